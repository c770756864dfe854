# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files on a datastore, read by ranged GET.

Source of the protocol: "vSphere Web Services SDK Programming Guide", "HTTP Access to vSphere Server Files": a file is
C(https://HOST/folder/PATH?dcPath=DATACENTER&dsName=DATASTORE), authorized by the session's cookie.
"""

from __future__ import annotations

import hashlib
import http.client
import random
import re
import secrets
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Callable, Iterator, Mapping, Sequence, cast

from ..errors import BadInput, SourceError, bounded
from ..model import Extent, Kind
from . import multirange
from .tls import TlsSocket

#: Faults that go away by themselves: the connection was cut, or the server is busy.
_TRANSIENT = (OSError, http.client.HTTPException)
_BUSY_STATUS = {408, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Endpoint:
    """Where and how to read: host, port, TLS, and who we are. C(renew) is called when the server no longer knows us."""

    host: str
    port: int
    context: ssl.SSLContext
    headers: Callable[[], Mapping[str, str]]
    renew: Callable[[], None]
    #: Seconds for one answer.
    timeout: float = 60.0
    #: Seconds for which a server that fails or is away is asked again before the read fails.
    patience: float = 30.0
    #: Of the server's certificate (SHA-1 or SHA-256, hexadecimal, with or without colons), looked at before anything is sent.
    thumbprint: str | None = None


class _Connection(http.client.HTTPSConnection):
    """A connection to a server that is known by its certificate."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint.host, endpoint.port, timeout=endpoint.timeout, context=endpoint.context)
        self.endpoint = endpoint

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        try:
            self.sock = cast(Any, TlsSocket(self.sock, self.endpoint.context, self.endpoint.host))
        except BaseException:
            self.close()
            raise
        self._recognize(self.endpoint.thumbprint)

    def _recognize(self, thumbprint: str | None) -> None:
        if thumbprint is None:
            return
        wanted = thumbprint.replace(":", "").lower()
        shown = self.sock.getpeercert(binary_form=True) or b""
        digest = {40: hashlib.sha1, 64: hashlib.sha256}.get(len(wanted))
        if digest is None or digest(shown).hexdigest() != wanted:
            self.close()
            raise SourceError(
                "The server shows another certificate than vCenter says it has.", step="connect", said=f"{self.host}, wanted {wanted[:64]}"
            )


class RemoteFile:
    """One file on a datastore. Thread-safe: each thread has a connection of its own, kept open."""

    def __init__(self, endpoint: Endpoint, url: str, name: str, stop: Callable[[], None] = lambda: None) -> None:
        if not url.startswith("/") or any(c in url for c in "\r\n "):
            raise BadInput("Not a path on the server.", disk=name, url=url)
        self.endpoint = endpoint
        self.url = url
        self.name = name
        self._stop = stop
        self._local = threading.local()
        self._all: list[http.client.HTTPSConnection] = []
        self._lock = threading.Lock()
        self._renewals = 0
        self._size: int | None = None
        self._tag = ""
        #: What identifies the state of the file as of C(head).
        self.state = ""
        #: Whether the server answers requests for several ranges otherwise than with these.
        self._one_by_one = False

    def _connection(self) -> http.client.HTTPSConnection:
        found: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = _Connection(self.endpoint)
            with self._lock:
                self._all.append(found)
        return found

    def _drop(self) -> None:
        found = getattr(self._local, "connection", None)
        if found is not None:
            found.close()

    def _error(self, text: str, step: str, said: object | None = None, **details: Any) -> SourceError:
        return SourceError(text, disk=self.name, step=step, said=said, **details)

    def _renew(self, seen: int) -> None:
        with self._lock:
            if self._renewals == seen:  # another thread may have done it while this one waited
                self.endpoint.renew()
                self._renewals += 1

    def _ask(
        self,
        method: str,
        step: str,
        extra: Mapping[str, str],
        take: Callable[[http.client.HTTPResponse], Any],
        refusals: frozenset[int] = frozenset(),
    ) -> Any:
        """One request, again on faults that pass, for at most C(patience) seconds without any success; None for C(refusals)."""
        e = self.endpoint
        end = time.monotonic() + e.patience
        pause = 0.2
        refused = 0
        while True:
            self._stop()
            seen = self._renewals
            said: object
            try:
                connection = self._connection()
                connection.request(method, self.url, headers={**e.headers(), **extra})
                answer = connection.getresponse()
                if answer.status in (200, 206):
                    return take(answer)
                said = f"{answer.status} {answer.reason}"
                body = answer.read(2048)
                if not answer.will_close:
                    while answer.read(1 << 16):
                        pass
                if answer.status in refusals:
                    return None
                if answer.status in (401, 403) and refused < 2:
                    refused += 1
                    self._renew(seen)
                    continue
                if answer.status not in _BUSY_STATUS:
                    text = {
                        401: "The server refuses our session.",
                        403: "The account may not read this file.",
                        404: "The file is not on the datastore.",
                    }
                    what = text.get(answer.status, "The server does not give the file.")
                    raise self._error(what, step, f"{said}: {bounded(re.sub(r'<[^>]*>', ' ', body.decode('utf-8', 'replace')), 200)}")
            except ssl.SSLCertVerificationError as fault:
                raise self._error("The server's certificate is not trusted.", step, fault.verify_message) from fault
            except _TRANSIENT as fault:
                said = fault if not isinstance(fault, socket.timeout) else f"no answer within {e.timeout:.0f} s"
                self._drop()
            if time.monotonic() > end:
                raise self._error(
                    f"The server did not deliver for {e.patience:.0f} s.",
                    step,
                    said or type(said).__name__,
                    code="source_away",
                    next_command="run the same command again when the server is back; it goes on where it stopped",
                )
            time.sleep(pause * (0.5 + random.random()))
            pause = min(pause * 2, 5.0)

    def head(self) -> tuple[int, str]:
        """Size in bytes and what identifies this state of the file (ETag, else Last-Modified). C(state) is the same where it tells
        the file's states apart for certain; where it does not, it is never the same again."""

        def take(answer: http.client.HTTPResponse) -> tuple[int, str]:
            answer.read()
            length = answer.getheader("Content-Length", "")
            if not re.fullmatch(r"\d{1,18}", length):
                raise self._error("The server does not say how large the file is.", "ask for the size", length or None)
            tag = answer.getheader("ETag") or answer.getheader("Last-Modified") or ""
            self.state = (
                tag if answer.getheader("ETag") or _settled(tag, answer.getheader("Date", "")) else f"unknown {secrets.token_hex(8)}"
            )
            return int(length), tag

        size, tag = self._ask("HEAD", "ask for the size", {}, take)
        self._size, self._tag = size, tag
        return size, tag

    def read_all(self, limit: int) -> bytes:
        """The whole file, which must not be larger than C(limit) bytes."""

        def take(answer: http.client.HTTPResponse) -> bytes:
            data = answer.read(limit + 1)
            if len(data) > limit:
                self._drop()
                raise self._error(f"The file is larger than {limit} bytes.", "read the descriptor")
            return data

        return bytes(self._ask("GET", "read the descriptor", {}, take))

    def open(self) -> Body:
        """The whole file, once, from its begin. What cuts it is an error of its C(read): a stream cannot be taken up again."""

        def take(answer: http.client.HTTPResponse) -> Body:
            if answer.status != 200:
                self._drop()
                raise self._error("The server answered a part of the file, not the whole.", "open the stream", answer.status)
            return Body(answer, self.name, self._stop)

        body: Body = self._ask("GET", "open the stream", {}, take)
        return body

    def read(self, offset: int, length: int) -> bytearray:
        """Exactly C(length) bytes from C(offset). Another range, another size or another ETag is an error, never data."""
        data = bytearray(length)
        self.read_into(offset, memoryview(data))
        return data

    def read_into(self, offset: int, into: memoryview) -> None:
        """As C(read), into C(into). After an error its content is undefined."""
        length = len(into)
        wanted = f"bytes {offset}-{offset + length - 1}/"

        def take(answer: http.client.HTTPResponse) -> bool:
            got = answer.getheader("Content-Range", "")
            if answer.status != 206 or not got.startswith(wanted):
                self._drop()
                raise self._error(
                    f"The server answered another range than asked for at byte {offset}.",
                    "read",
                    f"{answer.status}, Content-Range {got or 'none'}",
                    wanted=wanted,
                )
            tag = answer.getheader("ETag") or answer.getheader("Last-Modified") or ""
            if (self._size is not None and got[len(wanted) :] != str(self._size)) or tag != self._tag:
                self._drop()
                raise self._changed(got, tag)
            view = into
            while view:
                n = answer.readinto(view)
                if not n:
                    raise http.client.IncompleteRead(bytes(length - len(view)), len(view))
                view = view[n:]
            answer.read()
            return True

        self._ask("GET", "read", {"Range": f"bytes={offset}-{offset + length - 1}"}, take)

    def _changed(self, size: object, tag: str) -> SourceError:
        return self._error(
            "The file changed while it was being read.",
            "read",
            f"was {self._size} bytes {self._tag}, is {size} {tag}",
            code="source_changed",
        )

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytearray]:
        """The bytes of each of C(ranges) (start, length), by one request where the server can; as C(read) in all else."""

        def take(answer: http.client.HTTPResponse) -> list[bytearray] | None:
            tag = answer.getheader("ETag") or answer.getheader("Last-Modified") or ""
            if tag != self._tag:
                self._drop()
                raise self._changed(self._size, tag)
            found = multirange.parts(answer, ranges, self._size)
            if found is None:
                self._drop()
            return found

        if 1 < len(ranges) <= multirange.MOST and not self._one_by_one:
            found: list[bytearray] | None = self._ask("GET", "read", {"Range": multirange.header(ranges)}, take, multirange.REFUSED)
            if found is not None:
                return found
            self._one_by_one = True
        return [self.read(start, length) for start, length in ranges]

    def close(self) -> None:
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()


class Body:
    """The body of an answer, to be read once. Its end is believed only where the server said that it comes there."""

    def __init__(self, answer: http.client.HTTPResponse, name: str, stop: Callable[[], None]) -> None:
        self._answer = answer
        self._name = name
        self._stop = stop
        said = answer.getheader("Content-Length", "")
        #: Bytes that are to come; None where the server does not say (chunked).
        self.length = int(said) if re.fullmatch(r"\d{1,18}", said) else None
        self.position = 0

    def read(self, size: int) -> bytes:
        """At most C(size) bytes; b"" at the end."""
        self._stop()
        try:
            data = self._answer.read(size)
        except _TRANSIENT as fault:
            raise self._cut(fault) from fault
        self.position += len(data)
        if not data and size and self.length is not None and self.position < self.length:
            raise self._cut(f"{self.length - self.position} bytes are missing")
        return data

    def _cut(self, said: object) -> SourceError:
        return SourceError(
            f"The stream was cut after {self.position} bytes.",
            code="stream_cut",
            disk=self._name,
            step="read the stream",
            said=said,
            next_command="run the same command again: the stream is read anew, and only what differs is written",
        )

    def close(self) -> None:
        """Close the connection too, where something is left in it."""
        self._answer.close()


def _settled(modified: str, now: str) -> bool:
    """Whether the file was modified long enough before C(now) that a later change gets another time: HTTP's has whole seconds."""
    try:
        return (parsedate_to_datetime(now) - parsedate_to_datetime(modified)).total_seconds() > 2
    except (TypeError, ValueError):
        return False


class HttpsSource:
    """A flat disk on a datastore: its extents, in order, as files. Nothing is known of holes here: all is data.

    :param parts: (file, offset in the file in bytes, length in bytes, kind) in the disk's order.
    :param tag: something else that tells states of the disk apart (the descriptor's CID).
    """

    #: A gap shorter than this is read rather than asked around: a request costs more.
    gap = 256 << 10

    def __init__(self, parts: list[tuple[RemoteFile | None, int, int, Kind]], tag: str) -> None:
        self.parts = []
        at = 0
        for file, offset, length, kind in parts:
            self.parts.append((at, file, offset, length, kind))
            at += length
        self.capacity = at
        try:
            self.identity = "https:" + "|".join([tag, *self._states()])
        except BaseException:
            self.close()
            raise

    def _states(self) -> Iterator[str]:
        """Name and state of each file, which must be as long as its extents."""
        for _at, file, offset, length, _kind in self.parts:
            if file is not None:
                size, _tag = file.head()
                if size < offset + length:
                    raise SourceError(
                        f"The extent has {size} bytes, the descriptor says {offset + length}.", disk=file.name, step="open the source"
                    )
                yield f"{file.url}:{size}:{file.state}"

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        if since is not None:
            raise BadInput("Changed areas come from vCenter, not from the datastore.")
        for at, _file, _offset, length, kind in self.parts:
            yield Extent(at, length, kind)

    def read(self, offset: int, length: int) -> bytes:
        pieces = []
        for at, file, inside, size, _kind in self.parts:
            start, end = max(offset, at), min(offset + length, at + size)
            if start < end:
                pieces.append(bytes(end - start) if file is None else file.read(inside + start - at, end - start))
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(data) != length:
            raise SourceError(f"Read beyond the end of the disk: {length} bytes from {offset} of {self.capacity}.", step="read")
        return data  # type: ignore[return-value]  # a bytearray reads like bytes, and this saves a copy of all that travels

    def read_into(self, offset: int, into: memoryview) -> None:
        """As C(read), into memory that the caller has: what is read again and again need not be cleared each time."""
        done = 0
        for at, file, inside, size, _kind in self.parts:
            start, end = max(offset, at), min(offset + len(into), at + size)
            if start < end:
                view = into[start - offset : end - offset]
                if file is None:
                    view[:] = bytes(len(view))
                else:
                    file.read_into(inside + start - at, view)
                done += end - start
        if done != len(into):
            raise SourceError(f"Read beyond the end of the disk: {len(into)} bytes from {offset} of {self.capacity}.", step="read")

    def read_many(self, areas: Sequence[tuple[int, int]]) -> Sequence[bytes | bytearray]:
        """The bytes of each of C(areas) (start, length), with fewer requests than C(read) for each."""
        if len(self.parts) == 1:
            _at, file, inside, size, _kind = self.parts[0]
            if file is not None and all(start + length <= size for start, length in areas):
                return file.read_many([(inside + start, length) for start, length in areas])
        return [self.read(start, length) for start, length in areas]

    def close(self) -> None:
        for file in {id(p[1]): p[1] for p in self.parts if p[1] is not None}.values():
            file.close()
