# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk of an export lease (HttpNfcLease): a streamOptimized VMDK over HTTPS, read once, in one pass.

Vendor reference: vSphere Web Services API, HttpNfcLease ("deviceUrl", "HttpNfcLeaseProgress"). The stream has no ranges: a run
that was cut reads it anew, and writes only what differs. It is believed at its end only, when its tables and footer were there.
"""

from __future__ import annotations

from typing import Callable, Iterator

from ..errors import BadInput, SourceError, VmdkError
from ..model import Extent, Kind
from ..vmdk.base import ordered
from ..vmdk.pipe import PipedStream, joined
from .https import Endpoint, RemoteFile


class NfcSource:
    """The stream at C(url) (path and query below the endpoint) of a disk of C(capacity) bytes.

    :param name: what errors call the disk.
    :param state: names the disk and its state that is exported (VM, disk, snapshot). Without it C(certain) is False: that
        nothing has changed since the last copy can then not be told from here.
    :param on_progress: called with the position in the disk (bytes) that is reached; what it raises ends the stream.
    :param threads: that inflate.
    :param stop: called before each read; what it raises ends the stream.
    """

    #: Read by C(stream), once and in order; C(read) is refused.
    sequential = True

    def __init__(
        self,
        endpoint: Endpoint,
        url: str,
        capacity: int,
        *,
        name: str,
        state: str | None = None,
        on_progress: Callable[[int], None] = lambda position: None,
        threads: int = 2,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.capacity = capacity
        self.certain = state is not None
        self.identity = f"nfc:{capacity}:{state or url}"
        self._file = RemoteFile(endpoint, url, name, stop)
        self._on_progress = on_progress
        self._threads = threads
        #: Bytes that came over the wire.
        self.received = 0

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        """What is where is known when the stream has been read, not before."""
        if since is not None:
            raise BadInput("Changed areas come from vCenter, not from an export.", disk=self.name)
        yield Extent(0, self.capacity, Kind.DATA)

    def read(self, offset: int, length: int) -> bytes:
        raise SourceError("An export is a stream: ranges of it cannot be read.", disk=self.name, step="read", code="sequential")

    def stream(self) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes), ascending, of at most 1 MiB each and none over a boundary of 1 MiB; gaps read as zeroes.

        :raises SourceError: the server refuses (patience applies), or the stream was cut (it does not).
        :raises VmdkError: no stream, of another size, damaged, or without its end. What was given before is not to be believed then.
        """
        body = self._file.open()
        try:
            piped = PipedStream(body, self.name)
            if piped.capacity != self.capacity:
                raise VmdkError(
                    "The stream is of a disk of another size.", path=self.name, found=piped.capacity, expected=self.capacity, step="open"
                )
            last = -1
            for offset, data in joined(ordered(piped.decode, piped.pieces(), self._threads)):
                if offset <= last:
                    raise VmdkError("The stream's grains are not in order.", path=self.name, offset=body.position, found=offset)
                last = offset + len(data) - 1
                self.received = body.position
                self._on_progress(offset + len(data))
                yield offset, data
            self.received = body.position
            if body.length is not None and body.position != body.length:
                raise VmdkError("Bytes follow the end of the stream.", path=self.name, offset=body.position)
            self._on_progress(self.capacity)
        finally:
            body.close()

    def close(self) -> None:
        self._file.close()
