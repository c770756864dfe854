# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One connection to an NBD server, with a thread of its own: requests in flight, reconnection, retries."""

from __future__ import annotations

import errno
import os
import random
import select
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Sequence

from .. import optional
from ..errors import FerryError, SourceError

#: Bytes of one request. Larger ones gain nothing once several are in flight, and VDDK's buffers are of this order.
PIECE = 1 << 20
#: Requests in flight on one connection.
_DEPTH = 8
#: How often a request is asked again that the server itself answers with an error, and the first pause (seconds; it doubles).
_TRIES, _PAUSE = 5, 0.1
#: The largest request that any server takes (doc/proto.md, "Block size constraints").
_MAX_REQUEST = 32 << 20
#: Errors of the server about one request that another try does not mend.
_FINAL = frozenset({errno.EINVAL, errno.EPERM, errno.EOVERFLOW, errno.ENOTSUP})


def library() -> Any:
    """The module C(nbd), libnbd's own Python binding; MissingLibrary says how to get it."""
    return optional.distributed("nbd", "libnbdmod", package="python3-libnbd", rpm="python3-libnbd")


def shown_uri(uri: str) -> str:
    """C(uri) as it may be shown and stored: without the name and the files that it carries for TLS."""
    head, _mark, query = uri.partition("?")
    scheme, _slashes, rest = head.partition("//")
    host, slash, path = rest.partition("/")
    kept = "&".join(part for part in query.split("&") if part.startswith("socket="))
    return f"{scheme}//{host.rpartition('@')[2]}{slash}{path}" + (f"?{kept}" if kept else "")


@dataclass(frozen=True)
class Settings:
    """What all connections of a source share; seconds."""

    nbd: Any
    uri: str
    name: str
    certificates: str | None
    verify: bool
    timeout: float
    patience: float
    context: str


@dataclass(frozen=True)
class Facts:
    """What the server says of the export; bytes."""

    size: int
    minimum: int
    maximum: int
    multi_conn: bool
    allocation: bool


class Group:
    """Who waits for some requests."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.error: FerryError | None = None

    def tell(self, request: Request, error: FerryError | None) -> None:
        with self._changed:
            request.done = True
            self.error = self.error or error
            self._changed.notify_all()

    def wait(self, requests: Sequence[Request], stop: Callable[[], None]) -> None:
        """Until all are answered; the first error is raised, and what is left is given up."""
        try:
            while True:
                with self._changed:
                    if self.error is not None:
                        raise self.error
                    if all(r.done for r in requests):
                        return
                    self._changed.wait(0.5)
                stop()
        finally:
            for r in requests:
                r.wanted = False


@dataclass(eq=False)
class Request:
    """A range to read into C(view), or (where that is None) whose block status is asked."""

    group: Group
    offset: int
    length: int
    view: memoryview | None
    done: bool = False
    wanted: bool = True
    tries: int = 0
    not_before: float = 0.0
    status: list[tuple[int, int]] = field(default_factory=list)


class Wire:
    """One connection. All of libnbd's handle is used by the wire's own thread, but for the first C(open)."""

    def __init__(self, settings: Settings, stop: Callable[[], None]) -> None:
        self.settings = settings
        self._stop = stop
        self._nbd = settings.nbd
        self._handle: Any = None
        self._facts: Facts | None = None
        self._queue: deque[Request] = deque()
        self._flying: dict[int, Request] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread: threading.Thread | None = None
        self._away_since: float | None = None
        self._last_answer = 0.0

    # -- called by readers ----------------------------------------------------------------------------------------

    @property
    def load(self) -> int:
        """Requests that wait here."""
        return len(self._queue) + len(self._flying)

    def open(self) -> Facts:
        """Connect, within C(patience) seconds, and say what the export is."""
        end = time.monotonic() + self.settings.patience
        pause = _PAUSE
        while True:
            try:
                self._handle = self._connect()
                return self._known()
            except self._nbd.Error as e:
                if time.monotonic() > end or not _passes(e):
                    raise self._refused(e) from e
            self._stop()
            time.sleep(pause * (0.5 + random.random()))  # before the next try; not all connections at once
            pause = min(pause * 2, 2.0)

    def submit(self, request: Request) -> None:
        with self._lock:
            if self._closed:
                raise SourceError("The source was closed.", disk=self.settings.name, step="read")
            self._queue.append(request)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nbd", daemon=True)
                self._thread.start()
        self._wake()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._wake()
        if self._thread is not None:
            self._thread.join()
        else:
            self._leave()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            pass  # it is awake

    # -- the connection -------------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        s = self.settings
        handle = self._nbd.NBD()
        handle.add_meta_context(s.context)
        handle.set_uri_allow_local_file(True)
        handle.set_uri_allow_transports(self._nbd.ALLOW_TRANSPORT_TCP | self._nbd.ALLOW_TRANSPORT_UNIX | self._nbd.ALLOW_TRANSPORT_VSOCK)
        if s.certificates is not None:
            handle.set_tls_certificates(s.certificates)
        handle.set_tls_verify_peer(s.verify)
        # By steps of our own: the blocking call would wait for a silent server for ever.
        handle.aio_connect_uri(s.uri)
        end = time.monotonic() + s.timeout
        while not handle.aio_is_ready():
            if handle.aio_is_dead() or handle.aio_is_closed():
                raise self._nbd.Error("the server closed the connection", errno.ECONNRESET)
            if time.monotonic() > end:
                raise self._nbd.Error(f"no answer within {s.timeout:.0f} s", errno.ETIMEDOUT)
            if self._closed:
                raise self._nbd.Error("closed", errno.ESHUTDOWN)
            self._poll(handle, 0.25)
        return handle

    def _known(self) -> Facts:
        h, nbd = self._handle, self._nbd
        least = h.get_block_size(nbd.SIZE_MINIMUM) or 1
        most = h.get_block_size(nbd.SIZE_MAXIMUM) or _MAX_REQUEST
        if least & (least - 1) or not least <= most:
            raise SourceError("The server names impossible block sizes.", disk=self.settings.name, said=f"{least}, {most}")
        facts = Facts(h.get_size(), least, min(most, _MAX_REQUEST), h.can_multi_conn(), h.can_meta_context(self.settings.context))
        if self._facts is not None and facts.size != self._facts.size:
            raise SourceError(
                "The export has another size than before.",
                disk=self.settings.name,
                step="connect again",
                said=f"was {self._facts.size} bytes, is {facts.size}",
                code="source_changed",
            )
        self._facts = facts
        return facts

    def _refused(self, e: Any) -> SourceError:
        text = str(e.string)
        if "certificate" in text.lower():
            return SourceError("The server's certificate is not trusted.", disk=self.settings.name, step="connect", said=text)
        return SourceError(
            "The NBD server cannot be reached.",
            disk=self.settings.name,
            step="connect",
            said=text,
            code="source_away",
            next_command="run the same command again when the server is back; it goes on where it stopped",
        )

    def _poll(self, handle: Any, seconds: float) -> None:
        """Wait for the server or for a new request, and let libnbd work."""
        direction = handle.aio_get_direction()
        events = (select.POLLIN if direction & self._nbd.AIO_DIRECTION_READ else 0) | (
            select.POLLOUT if direction & self._nbd.AIO_DIRECTION_WRITE else 0
        )
        fd = handle.aio_get_fd()
        poll = select.poll()
        poll.register(fd, events)
        poll.register(self._wake_read, select.POLLIN)
        for ready, what in poll.poll(seconds * 1000):
            if ready == self._wake_read:
                os.read(self._wake_read, 4096)
            elif what & (select.POLLIN | select.POLLHUP | select.POLLERR) and direction & self._nbd.AIO_DIRECTION_READ:
                handle.aio_notify_read()
            elif what & (select.POLLOUT | select.POLLHUP | select.POLLERR):
                handle.aio_notify_write()

    # -- the wire's thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closed:
                try:
                    self._turn()
                except self._nbd.Error as e:
                    self._lost(e)
        except FerryError as e:
            self._fail(e)
        finally:
            self._leave()
            self._fail(SourceError("The source was closed.", disk=self.settings.name, step="read"))

    def _turn(self) -> None:
        if self._handle is None:
            if not self._queue:
                self._nap(0.5)
                return
            self._handle = self._connect()
            self._known()
        self._issue()
        self._poll(self._handle, 0.25 if self._queue or self._flying else 5.0)
        self._reap()
        if self._handle.aio_is_dead() or self._handle.aio_is_closed():
            raise self._nbd.Error("the connection was cut", errno.ECONNRESET)
        if self._flying and time.monotonic() - self._last_answer > self.settings.timeout:
            raise self._nbd.Error(f"no answer within {self.settings.timeout:.0f} s", errno.ETIMEDOUT)

    def _issue(self) -> None:
        now = time.monotonic()
        later: list[Request] = []
        while len(self._flying) < _DEPTH:
            with self._lock:
                if not self._queue:
                    break
                request = self._queue.popleft()
            if not request.wanted:
                continue
            if request.not_before > now:
                later.append(request)
                continue
            if not self._flying:
                self._last_answer = now
            try:
                cookie = self._send(request)
            except self._nbd.Error:
                self._queue.appendleft(request)
                raise
            self._flying[cookie] = request
        self._queue.extend(later)

    def _send(self, request: Request) -> int:
        if request.view is not None:
            return int(self._handle.aio_pread(self._nbd.Buffer.from_buffer(request.view), request.offset))
        request.status = []

        def extent(context: str, offset: int, entries: list[int], error: Any) -> int:
            if context == self.settings.context and offset == request.offset:
                request.status = list(zip(entries[::2], entries[1::2], strict=False))
            return 0

        return int(self._handle.aio_block_status(request.length, request.offset, extent))

    def _reap(self) -> None:
        for cookie, request in list(self._flying.items()):
            try:
                if not self._handle.aio_command_completed(cookie):
                    continue
            except self._nbd.Error as e:
                if (
                    not self._handle.aio_is_ready()
                    and not self._handle.aio_is_processing()
                    or e.errnum in (errno.ESHUTDOWN, errno.ENOTCONN)
                ):
                    raise
                del self._flying[cookie]
                self._answered()
                self._again(request, e)
                continue
            del self._flying[cookie]
            self._answered()
            request.group.tell(request, None)

    def _answered(self) -> None:
        self._last_answer = time.monotonic()
        self._away_since = None

    def _again(self, request: Request, e: Any) -> None:
        """The server answered a request with an error."""
        request.tries += 1
        if request.tries >= _TRIES or e.errnum in _FINAL:
            error = SourceError(
                f"The server cannot read {request.length} bytes from byte {request.offset}.",
                disk=self.settings.name,
                step="read" if request.view is not None else "ask what is allocated",
                said=e.string,
                code="nbd_refused",
            )
            request.group.tell(request, error)
            return
        request.not_before = time.monotonic() + _PAUSE * 2**request.tries * (0.5 + random.random())
        self._queue.append(request)

    def _lost(self, e: Any) -> None:
        """The connection is gone: what was in flight goes back, and the next turn connects again."""
        now = time.monotonic()
        self._leave()
        if self._away_since is None:
            self._away_since = now
        elif now - self._away_since > self.settings.patience or not _passes(e):
            error = self._refused(e)
            with self._lock:
                waiting, self._queue = list(self._queue), deque()
            for request in waiting:
                request.group.tell(request, error)
            self._away_since = None
            return
        self._nap(min(2.0, 0.1 + (now - self._away_since) / 4) * (0.5 + random.random()))

    def _nap(self, seconds: float) -> None:
        if select.select([self._wake_read], [], [], seconds)[0] and not self._closed:
            os.read(self._wake_read, 4096)

    def _leave(self) -> None:
        """Give up the handle; what was in flight waits again."""
        for request in self._flying.values():
            self._queue.appendleft(request)
        self._flying.clear()
        handle, self._handle = self._handle, None
        if handle is not None:
            try:
                handle.aio_disconnect()
            except self._nbd.Error:
                pass  # it is cut already

    def _fail(self, error: FerryError) -> None:
        with self._lock:
            self._closed = self._closed or True
            waiting, self._queue = list(self._queue), deque()
        for request in waiting:
            request.group.tell(request, error)


def _passes(e: Any) -> bool:
    """Whether a fault to connect may go away by itself; libnbd tells the others by their words alone."""
    text = str(e.string).partition(": ")[2].lower()
    return e.errnum != errno.EINVAL and not any(word in text for word in ("certificate", "for the export", "policy", "requires tls"))
