# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An NBD export as a source: any URI of libnbd (nbd://, nbds://, nbd+unix:///, nbds+unix:///), several requests on their way.

Source of the protocol: the NBD project's doc/proto.md and doc/uri.md; libnbd(3) speaks it. Each connection has one thread that
keeps requests in flight, opens the connection anew when it is cut, and asks again for what had not been answered.
"""

from __future__ import annotations

import threading
from typing import Callable, Iterator

from ..errors import BadInput, SourceError
from ..model import Extent, Kind, merge
from .nbd_wire import PIECE, Group, Request, Settings, Wire, library, shown_uri

#: Bytes of disk that one question for the block status is about. A server may answer for less.
_STATUS_STEP = 1 << 31
#: Flags of the metadata context base:allocation (doc/proto.md, "NBD_CMD_BLOCK_STATUS").
_STATE_HOLE, _STATE_ZERO = 1, 2
_CONTEXT = "base:allocation"


class NbdSource:
    """The export at C(uri). C(read) may be called from several threads at once.

    :param uri: an NBD URI; the export's name is its path (nbd://host:10809/NAME, nbd+unix:///NAME?socket=/run/x.sock).
    :param name: what errors call the disk.
    :param capacity: bytes that the disk must have; None: what the server says.
    :param state: names the disk and its state that is exported (VM, disk, snapshot). Without it C(certain) is False: that nothing has
        changed since the last copy can then not be told from here.
    :param connections: at most; one where the server does not say that several may be used (multi-conn).
    :param tls_certificates: folder with ca-cert.pem, and client-cert.pem and client-key.pem where the server asks for them.
    :param verify: False: TLS without verification of the server's certificate.
    :param timeout: seconds without any answer after which a connection is taken for dead.
    :param patience: seconds for which a server that is away or fails is asked again.
    :param stop: called while waiting; what it raises ends the read.
    :raises BadInput: no NBD URI.
    :raises MissingLibrary: libnbd's Python binding is not there.
    :raises SourceError: the server is away, refuses, or its certificate is not trusted.
    """

    #: A gap shorter than this is read rather than asked around (bytes).
    gap = 64 << 10

    def __init__(
        self,
        uri: str,
        *,
        name: str | None = None,
        capacity: int | None = None,
        state: str | None = None,
        connections: int = 4,
        tls_certificates: str | None = None,
        verify: bool = True,
        timeout: float = 60.0,
        patience: float = 30.0,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        if not uri.startswith(("nbd:", "nbds:", "nbd+unix:", "nbds+unix:", "nbd+vsock:", "nbds+vsock:")):
            raise BadInput("Not an NBD URI: nbd://host/export, nbds://host/export or nbd+unix:///export?socket=PATH.", disk=name)
        if tls_certificates is not None and not uri.startswith("nbds"):
            raise BadInput("Certificates were given, but the URI asks for no TLS: it begins with nbds:// then.", disk=name)
        self.name = name or shown_uri(uri)
        self._stop = stop
        self._settings = Settings(library(), uri, self.name, tls_certificates, verify, timeout, patience, _CONTEXT)
        self._wires: list[Wire] = []
        self._lock = threading.Lock()
        first = Wire(self._settings, stop)
        try:
            self.facts = first.open()
            self.capacity = self.facts.size
            if capacity is not None and capacity != self.capacity:
                raise SourceError(
                    f"The export has {self.capacity} bytes, the disk should have {capacity}.", disk=self.name, step="open the source"
                )
        except BaseException:
            first.close()
            raise
        self._wires.append(first)
        self._connections = max(1, min(connections, 16)) if self.facts.multi_conn else 1
        self.certain = state is not None
        #: The way to the export (a private socket) is no part of a state that has a name.
        self.identity = f"nbd:{self.capacity}:{state or shown_uri(uri)}"

    # -- reading ------------------------------------------------------------------------------------------------

    def _all(self) -> list[Wire]:
        """All connections; those beyond the first are opened when the first byte is read."""
        if len(self._wires) < self._connections:
            with self._lock:
                while len(self._wires) < self._connections:
                    self._wires.append(Wire(self._settings, self._stop))
        return self._wires

    def _aligned(self, offset: int, length: int) -> tuple[int, int]:
        """The range in whole blocks of the server's least size."""
        least = self.facts.minimum
        start = offset // least * least
        return start, min(-(-(offset + length) // least) * least, self.capacity) - start

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset + length > self.capacity:
            raise SourceError(f"Read beyond the end of the disk: {length} bytes from {offset} of {self.capacity}.", step="read")
        if not length:
            return b""
        start, size = self._aligned(offset, length)
        data = bytearray(size)
        view = memoryview(data)
        piece = min(PIECE, self.facts.maximum) // self.facts.minimum * self.facts.minimum
        group = Group()
        requests = [
            Request(group, start + at, min(piece, size - at), view[at : at + min(piece, size - at)]) for at in range(0, size, piece)
        ]
        wires = self._all()
        if not wires:
            raise SourceError("The source was closed.", disk=self.name, step="read")
        for request in requests:
            min(wires, key=lambda wire: wire.load).submit(request)
        group.wait(requests, self._stop)
        if size != length:
            return bytes(view[offset - start : offset - start + length])
        return data  # type: ignore[return-value]  # a bytearray reads like bytes, and this saves a copy of all that travels

    # -- what is where ------------------------------------------------------------------------------------------

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        """By the metadata context base:allocation where the server has it; else all is data.

        What is said to be a hole but not to read as zeroes is data: its content is not defined.
        """
        if since is not None:
            raise BadInput("Changed areas come from vCenter, not from an NBD export.")
        return merge(self._extents())

    def _extents(self) -> Iterator[Extent]:
        if not self.facts.allocation:
            yield Extent(0, self.capacity, Kind.DATA)
            return
        at = 0
        while at < self.capacity:
            end = at
            for length, flags in self._status(at):
                length = min(length, self.capacity - end)
                kind = Kind.DATA
                if flags & _STATE_ZERO:
                    kind = Kind.HOLE if flags & _STATE_HOLE else Kind.ZERO
                if length:
                    yield Extent(end, length, kind)
                end += length
            if end == at:
                raise SourceError("The server answers nothing about a range of the disk.", disk=self.name, step="ask what is allocated")
            at = end

    def _status(self, at: int) -> list[tuple[int, int]]:
        """(length, flags) of what stands from C(at) on."""
        step = min(_STATUS_STEP, self.capacity - at)
        group = Group()
        request = Request(group, at, step, None)
        self._wires[0].submit(request)
        try:
            group.wait([request], self._stop)
        except SourceError as e:
            if e.code != "nbd_refused":
                raise
            # The server cannot tell for this range: it is read.
            return [(step, 0)]
        return request.status

    def close(self) -> None:
        with self._lock:
            for wire in self._wires:
                wire.close()
            self._connections = 0
            self._wires.clear()
