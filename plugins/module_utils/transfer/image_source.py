# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source of a copy as the writers of images read it: counted, and paid for from the read budget."""

from __future__ import annotations

import threading
from typing import Any, Callable, Iterator

from ..disk.digest import chunk_digest
from ..disk.model import Extent, Source
from ..disk.vmdk.base import UNIT, Progress, Unit, is_zero, ordered

#: Called with a number of bytes before they are read (budget.Budget.throttle()).
Throttle = Callable[[int], None]
#: (start, bytes), ascending, none over a boundary of UNIT (NfcSource.stream()).
Pieces = Iterator[tuple[int, bytes]]


class Metered:
    """C(source), whose reads wait for C(throttle) and are counted in C(bytes_read). It closes nothing."""

    def __init__(self, source: Source, throttle: Throttle) -> None:
        self.capacity = source.capacity
        self.bytes_read = 0
        self._source = source
        self._throttle = throttle
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        return self._source.identity

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        return self._source.extents(since)

    def read(self, offset: int, length: int) -> bytes:
        self._throttle(length)
        data = self._source.read(offset, length)
        self._count(len(data))
        return data

    def _count(self, length: int) -> None:
        with self._lock:
            self.bytes_read += length

    def close(self) -> None:
        """Nothing: who opened the source closes it."""


class MeteredStream(Metered):
    """The same of a source that is read once, in order, by its C(stream) (disk.stream)."""

    def chunks(
        self, pack: Any, *, threads: int, digest: Any = None, checksum: Any = None, progress: Progress | None = None
    ) -> Iterator[tuple[Unit, Any]]:
        """As stream_writer.chunks, which calls it. C(checksum) is not served: it would have to see the zeroes, too."""

        def work(given: tuple[int, bytes]) -> tuple[Unit, bytes | None, Any]:
            start, data = given
            unit = Unit(start, len(data), ((start, len(data)),))
            if is_zero(data):
                return unit, None, None
            return unit, None if digest is None else chunk_digest(data), pack(start, data)

        for unit, hashed, result in ordered(work, self._units(), threads):
            if digest is not None and hashed is not None:
                digest.set(unit.offset // UNIT, hashed)
            if result is not None:
                yield unit, result
            if progress is not None:
                progress(unit.offset + unit.length, self.capacity)
        if progress is not None:
            progress(self.capacity, self.capacity)

    def _units(self) -> Iterator[tuple[int, bytes]]:
        """(start, bytes) of each unit that holds data."""
        number, buffer = -1, bytearray()
        pieces: Pieces = self._source.stream()  # type: ignore[attr-defined]  # only asked of sources that say they are sequential
        for start, piece in pieces:
            # The size is known only once it is here: what was read is paid for before the next piece is taken.
            self._throttle(len(piece))
            self._count(len(piece))
            if start // UNIT != number:
                if buffer:
                    yield number * UNIT, bytes(buffer)
                number = start // UNIT
                buffer = bytearray(min(UNIT, self.capacity - number * UNIT))
            at = start - number * UNIT
            buffer[at : at + len(piece)] = piece
        if buffer:
            yield number * UNIT, bytes(buffer)


def metered(source: Source, throttle: Throttle) -> Metered:
    """C(source), counted and paid for."""
    return (MeteredStream if getattr(source, "sequential", False) else Metered)(source, throttle)
