# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Grain tables that are read without being believed: both copies side by side, and what speaks for each entry."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter, OrderedDict
from itertools import pairwise
from typing import Iterator

from ..errors import VmdkError
from ..model import SECTOR
from ..sources.file import data_ranges
from .files import RawFile
from .lost import Lost
from .structs import FLAG_ZERO_GRAIN, GT_SECTORS, GTES_PER_GT, SparseHeader
from .tables import Directory, words

_ZERO_ROW = array("I", bytes(4 * GTES_PER_GT))
_CACHED_ROWS = 64
#: Tables whose entries tell on which raster the grains lie.
_SAMPLED = 64
#: Entries of a directory among which doubles are looked for.
_MAX_COMPARED = 1 << 21
_MAX_RUNS = 1 << 18
_NO_TABLE = "no grain table can be found"


class Implied(Directory):
    """A directory whose entries are lost: makers put all tables straight behind it, in their order."""

    def page(self, number: int) -> array[int]:
        first = number * 1024
        return array("I", (self.end + (first + i) * GT_SECTORS for i in range(min(1024, self.count - first))))


class Copies:
    """The grain directory and tables, and the redundant ones, of one extent; what cannot be read is None."""

    def __init__(self, file: RawFile, header: SparseHeader) -> None:
        self.file = file
        self.header = header
        self.count = header.tables
        self.directories: list[Directory] = []
        self.faults: list[VmdkError] = []
        wanted = [(header.gd_offset, "grain directory")]
        if header.redundant and header.rgd_offset:
            wanted.append((header.rgd_offset, "redundant grain directory"))
        self.redundant = len(wanted) > 1
        for offset, name in wanted:
            try:
                self.directories.append(Directory(file, offset, self.count, name))
            except VmdkError as e:
                self.faults.append(e)
        self._doubled = {d.name: self._twice(d) for d in self.directories}
        if not header.compressed and self.directories and next(self.used(), None) is None:
            implied = [Implied(file, d.offset, d.count, d.name) for d in self.directories]
            self.directories = [d for d in implied if d.end + d.count * GT_SECTORS <= header.overhead <= file.size // SECTOR]

    def lead(self, sector: int) -> None:
        """Take the grain directory at C(sector), which was found elsewhere than the header says."""
        directory = Directory(self.file, sector, self.count, "grain directory")
        self.directories.append(directory)
        self._doubled[directory.name] = self._twice(directory)

    def place(self, directory: Directory, number: int) -> int | None:
        """Sector of table C(number) after C(directory): 0 where there is none, None where the entry cannot be true."""
        at = directory[number]
        return None if at and ((at + GT_SECTORS) * SECTOR > self.file.size or at in self._doubled[directory.name]) else at

    def _twice(self, directory: Directory) -> frozenset[int]:
        """Places that several entries of C(directory) name: one table cannot be two."""
        if directory.count > _MAX_COMPARED:
            return frozenset()
        entries = array("I")
        for page in range(-(-directory.count // 1024)):
            entries.extend(filter(None, directory.page(page)))
        return frozenset(a for a, b in pairwise(sorted(entries)) if a == b)

    def leading(self, number: int) -> list[Directory]:
        """The directories whose entry for table C(number) can be true."""
        return [d for d in self.directories if self.place(d, number) is not None]

    def rows(self, number: int) -> list[array[int]]:
        """The copies of table C(number), one for each of C(leading)."""
        places = (d[number] for d in self.leading(number))
        return [words(self.file.read(at * SECTOR, GT_SECTORS * SECTOR, "grain table")) if at else _ZERO_ROW for at in places]

    def used(self) -> Iterator[int]:
        """Numbers of the tables to which a directory leads."""
        for first in range(0, self.count, 1024):
            pages = [d.page(first // 1024) for d in self.directories]
            if any(any(page) for page in pages):
                yield from (first + i for i in range(min(1024, self.count - first)) if any(page[i] for page in pages))

    def left(self, number: int) -> int:
        """Grains of the disk that table C(number) speaks of."""
        return min(GTES_PER_GT, -(-self.header.capacity_sectors // self.header.grain_sectors) - number * GTES_PER_GT)


class PlainTables:
    """What the tables of an uncompressed extent say after both copies were weighed against each other and the file.

    An entry is possible where it lies in the file, on the raster of the others, over no metadata and where no other grain
    is. A copy with impossible entries gives way to one without; where both are possible and differ, the one that names a
    grain is taken and the grain is called not proven.
    """

    def __init__(self, copies: Copies) -> None:
        self.copies = copies
        self.file = copies.file
        self.header = copies.header
        self._step = copies.header.grain_sectors
        self._limit = self.file.size // SECTOR
        self._cache: OrderedDict[int, tuple[array[int], dict[int, str]]] = OrderedDict()
        count = min(self._limit, 1 << 32) // self._step + 1
        self._once = bytearray(-(-count // 8))
        self._twice = bytearray(-(-count // 8))
        self._metadata = self._runs()
        self._starts = [a for a, _b in self._metadata]
        self._phase = self._raster()
        self._claim()
        #: Where bytes lie in the file that no table names: an empty entry may be a wiped one. -1 where there are none.
        self.unnamed = -1 if len(copies.directories) == 2 and not self._missing() else self._unnamed()

    def _runs(self) -> list[tuple[int, int]]:
        h = self.header
        runs = [(0, 1)]
        if 0 < h.descriptor_offset < self._limit:
            runs.append((h.descriptor_offset, h.descriptor_offset + h.descriptor_sectors))
        for directory in self.copies.directories:
            if directory.end <= h.overhead:
                runs.append((directory.offset, directory.end))
            for number in self.copies.used():
                at = directory[number]
                # A table or directory among the grains may be a damaged number: it blames no grain.
                if at and at + GT_SECTORS <= h.overhead:
                    if runs[-1][1] == at:
                        runs[-1] = (runs[-1][0], at + GT_SECTORS)
                    else:
                        runs.append((at, at + GT_SECTORS))
                    if len(runs) > _MAX_RUNS:
                        raise VmdkError("The grain tables lie in too many pieces.", path=self.file.path)
        out: list[tuple[int, int]] = []
        for a, b in sorted(runs):
            if out and a <= out[-1][1]:
                out[-1] = (out[-1][0], max(b, out[-1][1]))
            else:
                out.append((a, b))
        return out

    def _raster(self) -> int:
        phases: Counter[int] = Counter()
        for sampled, number in enumerate(self.copies.used()):
            if sampled >= _SAMPLED:
                break
            for row in self.copies.rows(number):
                phases.update(at % self._step for at in row if 1 < at < self._limit)
        return phases.most_common(1)[0][0] if phases else 0

    def _claim(self) -> None:
        """Note the places that undisputed entries name, and those that two of them name."""
        for number in self.copies.used():
            rows = self.copies.rows(number)
            if not rows:
                continue
            first, last = rows[0], rows[-1]
            for at, other in zip(first[: self.copies.left(number)], last, strict=False):
                if at > 1 and at == other and at < self._limit and at % self._step == self._phase:
                    byte, bit = at // self._step >> 3, 1 << (at // self._step & 7)
                    if self._once[byte] & bit:
                        self._twice[byte] |= bit
                    self._once[byte] |= bit

    def why_not(self, at: int, disputed: bool) -> str | None:
        """Why the entry C(at) cannot be true, None where it can. C(disputed): the copies do not agree on it."""
        if at == 0:
            return None
        if at == 1:
            return None if self.header.flags & FLAG_ZERO_GRAIN else "a zero grain, which the header does not allow for"
        if at >= self._limit:
            return "it lies past the end of the file"
        if at % self._step != self._phase:
            return "it does not lie on the raster of the other grains"
        index = bisect_right(self._starts, at + self._step - 1) - 1
        if index >= 0 and self._metadata[index][1] > at:
            return "it lies over the extent's own metadata"
        byte, bit = at // self._step >> 3, 1 << (at // self._step & 7)
        if (self._once if disputed else self._twice)[byte] & bit:
            return "another grain has the same place"
        return None

    def row(self, number: int) -> tuple[array[int], dict[int, str]]:
        """(entries of table C(number), why an entry is lost or not proven, by its index)."""
        cached = self._cache.get(number)
        if cached is None:
            cached = self._cache[number] = self._resolved(number)
            if len(self._cache) > _CACHED_ROWS:
                self._cache.popitem(last=False)
        return cached

    def _resolved(self, number: int) -> tuple[array[int], dict[int, str]]:
        rows = self.copies.rows(number)
        left = self.copies.left(number)
        why: dict[int, str] = {}
        if not rows:
            return _ZERO_ROW, dict.fromkeys(range(left), _NO_TABLE)
        if len(rows) == 2 and rows[0] != rows[1]:
            # A copy without any entry is no witness: it was wiped, or its directory leads elsewhere.
            rows = [row for row in rows if any(row)]
            if len(rows) == 2:
                clean = [r for r, other in ((rows[0], rows[1]), (rows[1], rows[0])) if self._clean(r, other, left)]
                rows = clean if len(clean) == 1 else rows
        if len(rows) == 1 or rows[0] == rows[-1]:
            out = array("I", rows[0])
            for i in range(left):
                fault = self.why_not(out[i], False)
                if fault is None and out[i] == 0 and not self.holes_proven:
                    fault = "not in the grain table, but the file holds data that no table names"
                    why[i] = fault
                elif fault is not None:
                    out[i], why[i] = 0, f"its table entry is wrong: {fault}"
            return out, why
        return self._weighed(rows[0], rows[1], left)

    def _clean(self, row: array[int], other: array[int], left: int) -> bool:
        return not any(row[left:]) and all(self.why_not(row[i], row[i] != other[i]) is None for i in range(left))

    def _weighed(self, first: array[int], second: array[int], left: int) -> tuple[array[int], dict[int, str]]:
        out = array("I", first)
        why: dict[int, str] = {}
        for i in range(left):
            a, b = first[i], second[i]
            faults = [self.why_not(at, a != b) for at in (a, b)]
            if a == b:
                if faults[0] is not None:
                    out[i], why[i] = 0, f"its table entry is wrong: {faults[0]}"
            elif faults[0] is None and faults[1] is None:
                out[i], why[i] = a or b, "given but not proven: the two grain tables differ, and both entries are possible"
            elif faults[0] is None or faults[1] is None:
                out[i] = a if faults[0] is None else b
                if out[i] == 0:
                    why[i] = f"one grain table says that it is empty, the other's entry is wrong: {faults[1] or faults[0]}"
            else:
                out[i], why[i] = 0, f"both table entries are wrong: {faults[0]}"
        return out, why

    def _missing(self) -> bool:
        """True where an entry is empty in both directories: makers who write them twice make all tables."""
        directories = self.copies.directories
        return any(
            not any(entries)
            for page in range(-(-self.copies.count // 1024))
            for entries in zip(*(d.page(page) for d in directories), strict=True)
        )

    @property
    def holes_proven(self) -> bool:
        """True where an empty entry means that the disk is empty there."""
        return self.unnamed < 0

    def _unnamed(self) -> int:
        """The first byte of a place where no grain and no metadata is, but data that is not zero; -1 where there is none."""
        overhead = self.header.overhead
        taken = self._once.lstrip(b"\0")
        lowest = (len(self._once) - len(taken)) * 8 * self._step
        # The header's word for where grains begin is taken where no grain contradicts it.
        begin = max(self._metadata[-1][1], overhead if overhead <= lowest + 8 * self._step and overhead <= self._limit else 0) * SECTOR
        grain = self._step * SECTOR
        shift = self._phase * SECTOR
        for start, length in data_ranges(self.file.fd, self.file.size) if self.file.regular else [(0, self.file.size)]:
            at, stop = max(start, begin), start + length
            while at < stop:
                place = (at - shift) // grain
                end = min((place + 1) * grain + shift, stop)
                if not self._once[place >> 3] & (1 << (place & 7)) and any(self.file.read(at, end - at)):
                    return at
                at = end
        return -1

    def lost(self) -> Lost:
        """What is lost or not proven, as ranges of this extent's disk."""
        out = Lost()
        h = self.header
        done = 0
        empty = "not in the grain table, but the file holds data that no table names"
        if not self.copies.directories:
            out.add(0, h.capacity, _NO_TABLE)
            return out
        for number in self.copies.used():
            base = number * GTES_PER_GT * h.grain
            if not self.holes_proven:
                out.add(done, base - done, empty)
            done = min(base + GTES_PER_GT * h.grain, h.capacity)
            if not self.copies.leading(number):
                out.add(base, done - base, _NO_TABLE)
                continue
            row, why = self.row(number)
            for i in range(self.copies.left(number)):
                start = base + i * h.grain
                length = min(h.grain, h.capacity - start)
                if i in why:
                    out.add(start, length, why[i])
                elif row[i] > 1 and row[i] * SECTOR + length > self.file.size:
                    there = self.file.size - row[i] * SECTOR
                    out.add(start + there, length - there, "past the end of the file, which is cut")
        if not self.holes_proven:
            out.add(done, h.capacity - done, empty)
        return out
