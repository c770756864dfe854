# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the grains of a damaged stream-optimized extent are: from its markers, its tables, and its order."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from ..errors import VmdkError
from ..model import SECTOR
from . import survey
from .files import RawFile
from .lenient import Copies
from .lost import Lost
from .structs import GRAIN_MARKER, GT_SECTORS, GTES_PER_GT, SparseHeader
from .tables import words

_ZERO_ROW = array("I", bytes(4 * GTES_PER_GT))
#: Tables of found grains that are kept (2 KiB each): 2 TiB of disk in grains of 64 KiB.
_MAX_ROWS = 1 << 16
_MAX_SEGMENTS = 4096
_MAX_DISPUTED = 1 << 16
_MAX_ORPHANS = 1 << 16
_UNKNOWN = "it may have been in the part that is damaged or missing"


@dataclass
class Segment:
    """Grains that follow each other without damage between: from C(first) to C(last), the number of a grain."""

    first: int
    last: int


class StreamIndex:
    """The grains of a compressed extent whose data was decoded, by number, and what is known of the others.

    A grain's marker and its checksum prove it; a table that leads to another grain's marker disputes both. That a place holds
    no grain is proven by a table all of whose entries are true, or, in a stream written in one pass, by the order: between
    two neighbours without damage nothing was written.
    """

    def __init__(self, file: RawFile, header: SparseHeader, *, sequential: bool) -> None:
        self.file = file
        self.header = header
        self.copies = Copies(file, header)
        self._rows: dict[int, array[int]] = {}
        self._segments: list[Segment] = []
        # A stream whose directory is at the front was not written in one pass: qemu-img stores grains in any order.
        self._sequential = sequential
        self._disputed: dict[int, str] = {}
        self._tables: dict[int, list[array[int]]] = {}
        self._orphans: list[int] = []
        self._wiped: set[str] = set()
        self.damages: list[survey.Event] = []
        self._walk()
        self._take_orphans()
        self._cross_check()

    @property
    def grains(self) -> int:
        """Grains that the capacity needs."""
        return -(-self.header.capacity_sectors // self.header.grain_sectors)

    def _walk(self) -> None:
        known = {}
        for directory in self.copies.directories:
            for number in self.copies.used():
                at = self.copies.place(directory, number)
                if at:
                    known[at] = at + GT_SECTORS
            known[directory.offset] = directory.end
        open_segment = True
        ended = False
        last = -1
        first_of_segment = 0
        for event in survey.Survey(self.file, self.header, decode=True, tables=known).events():
            if event.kind == survey.GRAIN:
                number = event.value
                if number <= last:
                    self._sequential = False
                if not open_segment:
                    self._close(first_of_segment, last)
                    first_of_segment, open_segment = number, True
                last = max(last, number)
                self._found(number, event.start // SECTOR)
            elif event.kind == survey.BAD and last < event.value < self.grains and event.end < self.file.size:
                self._dispute(event.value, "its compressed data is damaged")
            elif event.kind in (survey.BAD, survey.DAMAGE):
                if event.kind == survey.BAD:
                    self._dispute(event.value, "its compressed data is damaged")
                if open_segment and last >= 0:
                    self._close(first_of_segment, last)
                    first_of_segment = last + 1
                open_segment = False
                if len(self.damages) < _MAX_SEGMENTS:
                    self.damages.append(event)
            elif event.kind == survey.TABLE and event.start // SECTOR not in known:
                if len(self._orphans) < _MAX_ORPHANS:
                    self._orphans.append(event.value)
            elif event.kind in (survey.DIRECTORY, survey.FOOTER):
                ended = True
                if event.kind == survey.DIRECTORY and not self.copies.directories:
                    self.copies.lead(event.value // SECTOR)
        if open_segment and last >= 0:
            self._close(first_of_segment, self.grains - 1 if ended else last)
        elif open_segment and ended:
            self._close(0, self.grains - 1)

    def _close(self, first: int, last: int) -> None:
        if len(self._segments) < _MAX_SEGMENTS and last >= first:
            self._segments.append(Segment(first, last))

    def _dispute(self, number: int, why: str) -> None:
        if len(self._disputed) < _MAX_DISPUTED:
            self._disputed.setdefault(number, why)
        elif number not in self._disputed:
            raise VmdkError("The stream is damaged in too many places to save it.", path=self.file.path)

    def _found(self, number: int, sector: int) -> None:
        table, at = divmod(number, GTES_PER_GT)
        row = self._rows.get(table)
        if row is None:
            if len(self._rows) >= _MAX_ROWS:
                raise VmdkError("The stream has too many grains to save it.", path=self.file.path)
            row = self._rows[table] = array("I", bytes(4 * GTES_PER_GT))
        if row[at] and row[at] != sector:
            self._dispute(number, "given but not proven: the stream holds this grain twice")
            named = {r[at] for r in self.copies.rows(table)}
            if sector not in named:
                return
        row[at] = sector

    def _lba(self, sector: int) -> int:
        """The grain whose marker stands at C(sector), -1 where none that was found does."""
        if (sector + 1) * SECTOR > self.file.size:
            return -1
        lba, size = GRAIN_MARKER.unpack(self.file.read(sector * SECTOR, GRAIN_MARKER.size))
        number = lba // self.header.grain_sectors
        if not size or lba % self.header.grain_sectors or number >= self.grains:
            return -1
        row = self._rows.get(number // GTES_PER_GT)
        return number if row is not None and row[number % GTES_PER_GT] == sector else -1

    def _take_orphans(self) -> None:
        """Tables that no directory leads to belong where their entries lead."""
        for place in self._orphans:
            row = words(self.file.read(place, GT_SECTORS * SECTOR, "grain table"))
            seen = {(n // GTES_PER_GT if n % GTES_PER_GT == i else -1) for i, at in enumerate(row) if at > 1 and (n := self._lba(at)) >= 0}
            if len(seen) == 1 and (number := seen.pop()) >= 0:
                self._tables.setdefault(number, []).append(row)

    def named(self, number: int) -> list[array[int]]:
        """The tables that speak of table C(number)'s grains. An entry 0 in a directory that lost others says nothing."""
        copies = self.copies
        rows = [row for row, d in zip(copies.rows(number), copies.leading(number), strict=True) if d[number] or d.name not in self._wiped]
        return [*rows, *self._tables.get(number, [])]

    def _cross_check(self) -> None:
        """An entry that leads to a found grain of another number disputes both. A directory may have lost entries."""
        for directory in self.copies.directories:
            if any(directory[number] == 0 for number in self._rows):
                self._wiped.add(directory.name)
        for number in {*self.copies.used(), *self._tables} if self.copies.directories else set(self._tables):
            mine = self._rows.get(number, _ZERO_ROW)
            for row in self.named(number):
                for i in range(self.copies.left(number)):
                    at = row[i]
                    if at > 1 and at != mine[i]:
                        other = self._lba(at)
                        if other >= 0:
                            why = "given but not proven: its marker and a grain table do not agree"
                            self._dispute(other, why)

    def _by_order(self, number: int) -> bool:
        return self._sequential and any(s.first <= number <= s.last for s in self._segments)

    def row(self, number: int) -> tuple[array[int], dict[int, str]]:
        """(sectors of the grains of table C(number), why one is lost or not proven, by its index)."""
        mine = self._rows.get(number, _ZERO_ROW)
        tables = self.named(number)
        left = self.copies.left(number)
        base = number * GTES_PER_GT
        why = {i: self._disputed[base + i] for i in range(left) if base + i in self._disputed} if self._disputed else {}
        trusted = any(self._true(row, mine, left) for row in tables)
        for i in range(left):
            if mine[i] or i in why:
                continue
            if any(row[i] for row in tables):
                ats = [row[i] for row in tables if row[i]]
                cut = all(at * SECTOR >= self.file.size for at in ats)
                why[i] = "past the end of the file, which is cut" if cut else "no grain of this number is where the grain table says"
            elif not trusted and not self._by_order(base + i):
                why[i] = _UNKNOWN
        return mine, why

    def _true(self, row: array[int], mine: array[int], left: int) -> bool:
        """True where the table C(row) names all grains that were found, and nothing that is another's."""
        if any(row[left:]):
            return False
        return all(not mine[i] or row[i] == mine[i] for i in range(left)) and all(
            at == 0 or at == mine[i] or self._lba(at) < 0 for i, at in enumerate(row[:left])
        )

    def used(self) -> list[int]:
        """Numbers of the tables with a grain, or with anything lost."""
        return sorted(self._rows)

    def lost(self) -> Lost:
        """What is lost or not proven, as ranges of this extent's disk."""
        out = Lost()
        h = self.header
        span = GTES_PER_GT * h.grain
        led = {*self.copies.used(), *self._tables, *self._rows, *(n // GTES_PER_GT for n in self._disputed)}
        for number in range(self.copies.count):
            base = number * span
            if number not in led:
                if self.copies.directories or self._covered(number):
                    continue
                if not self._touched(number):
                    out.add(base, min(span, h.capacity - base), _UNKNOWN)
                    continue
            _mine, why = self.row(number)
            for i in sorted(why):
                start = base + i * h.grain
                out.add(start, min(h.grain, h.capacity - start), why[i])
        return out

    def _covered(self, number: int) -> bool:
        """True where the order alone proves that no grain of table C(number) was written."""
        first, last = number * GTES_PER_GT, number * GTES_PER_GT + self.copies.left(number) - 1
        return self._sequential and any(s.first <= first and last <= s.last for s in self._segments)

    def _touched(self, number: int) -> bool:
        first, last = number * GTES_PER_GT, (number + 1) * GTES_PER_GT
        return any(s.first < last and s.last >= first for s in self._segments)
