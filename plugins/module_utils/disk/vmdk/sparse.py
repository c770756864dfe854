# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A hosted sparse extent (KDMV), plain or compressed, read by random access."""

from __future__ import annotations

import threading
from array import array
from typing import Iterator

from ..errors import VmdkError
from ..model import SECTOR, Extent, Kind, merge
from . import stream
from .compress import inflate
from .files import RawFile
from .overlap import check_grains
from .structs import (
    DEFLATE_SLACK,
    GD_AT_END,
    GRAIN_MARKER,
    GTES_PER_GT,
    SparseHeader,
    unpack_header,
)
from .tables import Tables

#: Compressed grains that lie together are fetched by one read of at most this many bytes.
_MAX_FETCH = 4 << 20
#: What a table entry of 0, of 1, and of 2 and above means.
_KINDS = (Kind.HOLE, Kind.ZERO, Kind.DATA)


class SparseExtent:
    """One KDMV file. C(sectors) is what the descriptor's extent line says; a header that says otherwise is refused."""

    def __init__(self, file: RawFile, line_sectors: int | None = None) -> None:
        self.file = file
        self.problems: list[str] = []
        header = unpack_header(file.read(0, SECTOR, "sparse header"), file.path)
        self.footer: SparseHeader | None = None
        if header.compressed or header.gd_offset == GD_AT_END:
            self.footer = stream.find_footer(file, header)
            if header.gd_offset == GD_AT_END:
                if self.footer is None:
                    raise VmdkError("The footer is missing.", path=file.path)
                header = self.footer
        self.header = header
        if line_sectors is not None and line_sectors != header.capacity_sectors:
            raise VmdkError(
                "The extent's header and the descriptor's extent line differ in size (sectors).",
                path=file.path,
                offset=12,
                found=header.capacity_sectors,
                expected=line_sectors,
            )
        if header.unclean:
            self.problems.append("the file was not closed cleanly (uncleanShutdown is set)")
        self.capacity = header.capacity
        self.grain = header.grain
        self.grains = -(-self.capacity // self.grain)
        self.tables = Tables(file, header) if self.capacity else None
        if self.tables is not None:
            self.problems.extend(self.tables.problems)
        self._checked = False
        self._lock = threading.Lock()
        self._last: tuple[int, bytes] = (-1, b"")

    @property
    def allocated(self) -> int:
        """Bytes of disk that have a grain."""
        self.check()
        if self.tables is None:
            return 0
        tables = (self.tables.get(number) for number in self.tables.used())
        stored = sum(GTES_PER_GT - t.count(0) - t.count(1) for t in tables if t is not None) * self.grain
        rest = self.capacity % self.grain
        return stored - (self.grain - rest if rest and self._entries(self.grains - 1, self.grains - 1)[0] > 1 else 0)

    def descriptor_bytes(self) -> bytes | None:
        """The embedded descriptor with its padding, None where there is none."""
        h = self.header
        if not h.descriptor_offset and not h.descriptor_sectors:
            return None
        if not h.descriptor_offset or not h.descriptor_sectors:
            raise VmdkError("The header gives half of the descriptor's place.", path=self.file.path, offset=28)
        return self.file.read(h.descriptor_offset * SECTOR, h.descriptor_sectors * SECTOR, "embedded descriptor")

    def check(self) -> None:
        """Check all tables once: positions, overlaps, markers. VmdkError names the first thing that cannot be."""
        with self._lock:
            if self._checked or self.tables is None:
                return
            if self.header.compressed:
                self.problems.extend(stream.walk(self.file, self.header, self.tables, self.footer))
            else:
                self.problems.extend(check_grains(self.file, self.header, self.tables))
            for text in self.tables.problems:
                if text not in self.problems:
                    self.problems.append(text)
            self._checked = True

    def extents(self) -> Iterator[Extent]:
        """What stands where, from the grain tables."""
        self.check()
        return merge(self._raw_extents())

    def _raw_extents(self) -> Iterator[Extent]:
        if self.tables is None:
            return
        span = self.grain * GTES_PER_GT
        done = 0
        for number in self.tables.used():
            start = number * span
            yield Extent(done, start - done, Kind.HOLE)
            done = min(start + span, self.capacity)
            length = min(span, self.capacity - start)
            table = self.tables.get(number)
            if table is None:
                yield Extent(start, length, Kind.HOLE)
            elif 0 not in table and 1 not in table:
                yield Extent(start, length, Kind.DATA)
            else:
                i, count = 0, -(-length // self.grain)
                while i < count:
                    # Entries of 2 and above are places: all of one kind.
                    kind = min(table[i], 2)
                    j = i + 1
                    while j < count and min(table[j], 2) == kind:
                        j += 1
                    at = i * self.grain
                    yield Extent(start + at, min(j * self.grain, length) - at, _KINDS[kind])
                    i = j
        yield Extent(done, self.capacity - done, Kind.HOLE)

    def _entries(self, first: int, last: int) -> array[int]:
        """Table entries of grains C(first) to C(last), inclusive."""
        if self.tables is None:
            raise VmdkError("The extent has no grain tables.", path=self.file.path)
        out = array("I")
        while first <= last:
            number, at = divmod(first, GTES_PER_GT)
            count = min(GTES_PER_GT - at, last - first + 1)
            table = self.tables.get(number)
            out.extend(array("I", bytes(4 * count)) if table is None else table[at : at + count])
            first += count
        return out

    def read(self, offset: int, length: int) -> bytes:
        """C(length) bytes of disk from C(offset)."""
        if not length:
            return b""
        if not self._checked:
            self.check()
        first, last = offset // self.grain, (offset + length - 1) // self.grain
        entries = self._entries(first, last)
        if self.header.compressed:
            data = b"".join(self._inflated(entries, first))
            skip = offset - first * self.grain
            return data if not skip and len(data) == length else data[skip : skip + length]
        spans = self._spans(entries, first, offset, offset + length)
        return b"".join(self.file.read(at, stop - start, "grain") if at else bytes(stop - start) for start, stop, at in spans)

    def read_into(self, offset: int, view: memoryview) -> None:
        """As C(read), into C(view)."""
        if not view:
            return
        if not self._checked:
            self.check()
        end = offset + len(view)
        first, last = offset // self.grain, (end - 1) // self.grain
        entries = self._entries(first, last)
        if self.header.compressed:
            at = first * self.grain
            for grain in self._inflated(entries, first):
                start, stop = max(at, offset), min(at + self.grain, end)
                view[start - offset : stop - offset] = grain if stop - start == len(grain) else grain[start - at : stop - at]
                at += self.grain
            return
        for start, stop, place in self._spans(entries, first, offset, end):
            if place:
                self.file.read_into(place, view[start - offset : stop - offset], "grain")
            else:
                view[start - offset : stop - offset] = bytes(stop - start)

    def _spans(self, entries: array[int], first: int, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Pieces (start, stop) of C(offset) to C(end) and the byte of the file (0: zeroes), neighbours in the file joined."""
        step = self.header.grain_sectors
        i = 0
        while i < len(entries):
            at = entries[i]
            j = i + 1
            if at <= 1:
                while j < len(entries) and entries[j] <= 1:
                    j += 1
            else:
                while j < len(entries) and entries[j] == at + (j - i) * step:
                    j += 1
            base = (first + i) * self.grain
            start = max(offset, base)
            yield start, min(end, (first + j) * self.grain), at * SECTOR + start - base if at > 1 else 0
            i = j

    def _inflated(self, entries: array[int], first: int) -> Iterator[bytes]:
        index, grain = self._last
        if len(entries) == 1 and index == first:
            yield grain
            return
        used = [at for at in entries if at > 1]
        bound = self.grain + DEFLATE_SLACK
        window = memoryview(b"")
        base = 0
        if used:
            base = min(used) * SECTOR
            span = min(max(used) * SECTOR + bound, self.file.size) - base
            if span <= _MAX_FETCH:
                window = memoryview(self.file.read(base, span, "compressed grain"))
        zeroes = bytes(self.grain)
        for i, at in enumerate(entries):
            if at <= 1:
                yield zeroes
                continue
            if window:
                piece = window[at * SECTOR - base :]
            else:
                piece = memoryview(self.file.read(at * SECTOR, min(bound, self.file.size - at * SECTOR), "compressed grain"))
            grain = self._grain(piece, at, first + i)
            if len(entries) == 1:
                self._last = (first, grain)
            yield grain

    def _grain(self, piece: memoryview, at: int, index: int) -> bytes:
        path, offset = self.file.path, at * SECTOR
        if len(piece) < GRAIN_MARKER.size:
            raise VmdkError("A compressed grain is cut.", path=path, offset=offset)
        lba, size = GRAIN_MARKER.unpack_from(piece)
        if lba != index * self.header.grain_sectors:
            raise VmdkError(
                "A compressed grain belongs elsewhere: its marker and the grain table differ (sectors).",
                path=path,
                offset=offset,
                found=lba,
                expected=index * self.header.grain_sectors,
            )
        if not 0 < size <= self.grain + DEFLATE_SLACK - GRAIN_MARKER.size or size > len(piece) - GRAIN_MARKER.size:
            if 0 < size <= self.grain * 2:
                piece = memoryview(self.file.read(offset, GRAIN_MARKER.size + size, "compressed grain"))
            else:
                raise VmdkError(
                    "Impossible size of a compressed grain.", path=path, offset=offset + 8, found=size, expected=f"1 to {self.grain * 2}"
                )
        left = self.capacity - index * self.grain
        return inflate(piece[GRAIN_MARKER.size : GRAIN_MARKER.size + size], self.grain, min(self.grain, left), path, offset)

    def close(self) -> None:
        self.file.close()
