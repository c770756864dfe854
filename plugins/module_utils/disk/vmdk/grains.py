# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the two kinds of snapshot deltas of ESX (COWD, seSparse) share: tables of 4,096 entries, looked up lazily."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections import OrderedDict
from typing import Iterable, Iterator, NamedTuple

from ..errors import VmdkError
from ..model import SECTOR, Extent, Kind, merge
from ..sources.file import data_ranges
from .files import RawFile
from .structs import sectors

#: Entries in a grain table of both kinds.
ENTRIES = 4096
_PAGE = 1024
_CACHED_PAGES = 64
_CACHED_TABLES = 32
#: Bits of the map of places that is held at once (64 MiB); a larger file is gone over in several passes.
_WINDOW = 1 << 29
#: Sectors that are looked at together for data that no table names.
_CHUNK = 4096
_KINDS = (Kind.HOLE, Kind.ZERO, Kind.DATA)


def numbers(data: bytes, width: int) -> array[int]:
    """Unsigned little-endian numbers of C(width) bytes (4 or 8) in C(data)."""
    out = array("I" if width == 4 else "Q")
    out.frombytes(data)
    if sys.byteorder == "big":
        out.byteswap()
    return out


class Run(NamedTuple):
    """C(length) entries from C(first) on: unallocated where C(place) is 0, zeroes where 1, else grains in a row from that sector."""

    first: int
    length: int
    place: int


class Runs:
    """The runs of one table."""

    def __init__(self, places: array[int], step: int) -> None:
        self._starts = array("I")
        self._places = array("Q")
        i, end = 0, len(places)
        while i < end:
            first = at = places[i]
            self._starts.append(i)
            self._places.append(first)
            i += 1
            if at > 1:
                at += step
                while i < end and places[i] == at:
                    i += 1
                    at += step
            else:
                while i < end and places[i] == first:
                    i += 1
        self._starts.append(end)
        self._step = step

    def between(self, first: int, last: int) -> Iterator[Run]:
        """Runs of the entries C(first) to C(last), exclusive."""
        number = bisect_right(self._starts, first) - 1
        while first < last:
            stop = min(self._starts[number + 1], last)
            place = self._places[number]
            if place > 1:
                place += (first - self._starts[number]) * self._step
            yield Run(first, stop - first, place)
            first = stop
            number += 1


class Numbers:
    """A directory of C(count) numbers of C(width) bytes at sector C(offset), read a page at a time."""

    def __init__(self, file: RawFile, offset: int, count: int, width: int, name: str) -> None:
        self.file = file
        self.offset = offset
        self.count = count
        self.width = width
        self.name = name
        if offset < 1 or offset * SECTOR + count * width > file.size:
            raise VmdkError(
                f"The {name} lies outside the file: it is truncated, or its header is wrong.",
                path=file.path,
                offset=min(offset * SECTOR, 1 << 63),
                found=f"{file.size} bytes in the file",
                expected=f"{count} entries there",
            )
        self._pages: OrderedDict[int, array[int]] = OrderedDict()

    def page(self, number: int) -> array[int]:
        """Entries C(number) x 1024 on, at most 1024."""
        page = self._pages.get(number)
        if page is None:
            count = min(_PAGE, self.count - number * _PAGE)
            at = self.offset * SECTOR + number * _PAGE * self.width
            page = self._pages[number] = numbers(self.file.read(at, count * self.width, self.name), self.width)
            if len(self._pages) > _CACHED_PAGES:
                self._pages.popitem(last=False)
        return page

    def __getitem__(self, index: int) -> int:
        number, at = divmod(index, _PAGE)
        return self.page(number)[at]

    def position(self, index: int) -> int:
        """Byte offset of entry C(index)."""
        return self.offset * SECTOR + index * self.width

    def used(self) -> Iterator[tuple[int, int]]:
        """(index, value) of the entries that are not 0."""
        for number in range(-(-self.count // _PAGE)):
            page = self.page(number)
            if any(page):
                for i, value in enumerate(page, number * _PAGE):
                    if value:
                        yield i, value

    @property
    def end(self) -> int:
        """The sector after it."""
        return self.offset + sectors(self.count * self.width)


class GrainExtent(ABC):
    """An extent of plain grains. A subclass reads its header, then calls __init__; C(_places) and C(_metadata) are its own."""

    #: Sectors that a bit stands for in the map of places, and the sector where it begins.
    unit = 1
    origin = 0

    def __init__(self, file: RawFile, capacity: int, grain: int, directory: Numbers | None) -> None:
        self.file = file
        self.capacity = capacity
        self.grain = grain
        self.directory = directory
        self.problems: list[str] = []
        self._lock = threading.Lock()
        self._checking = threading.Lock()
        self._checked = False
        #: The place up to which there is something to look at.
        self._top = 0
        self._cache: OrderedDict[int, Runs | None] = OrderedDict()

    @abstractmethod
    def _places(self, number: int, entry: int) -> array[int]:
        """Places (sectors; 0, 1) of table C(number), whose directory entry is C(entry), bounded and checked."""

    @abstractmethod
    def _metadata(self) -> Iterable[tuple[int, int]]:
        """(first, end) sectors of what no grain may lie on, as far as it lies in the map of places."""

    @abstractmethod
    def _unnamed(self, bits: bytearray, first: int) -> None:
        """Look at what is free in the map C(bits), whose first bit is place C(first)."""

    def _forgotten(self, bits: bytearray, first: int, end: int) -> Iterator[tuple[int, bool]]:
        """(place, whether it holds data) of what is free in the map C(bits), up to place C(end); holes of the file are left out."""
        size = self.unit * SECTOR
        start = self.origin * SECTOR
        begin, stop = start + first * size, min(start + min(end, first + 8 * len(bits)) * size, self.file.size)
        ranges = data_ranges(self.file.fd, stop) if self.file.regular else iter([(0, stop)])
        done = first
        for at, length in ranges:
            a = max((at - start) // size, done) if at + length > begin else done
            b = -(-(min(at + length, stop) - start) // size)
            while a < b:
                count = min(_CHUNK // self.unit, b - a)
                if free_in(bits, a - first, a - first + count):
                    where = start + a * size
                    data = self.file.read(where, min(count * size, self.file.size - where))
                    for place in range(a, a + count):
                        if not bits[place - first >> 3] & (1 << (place - first & 7)):
                            yield place, any(data[(place - a) * size : (place - a + 1) * size])
                a += count
            done = max(done, a)

    def _table(self, number: int) -> Runs | None:
        """Runs of table C(number); None where there is no table."""
        with self._lock:
            if number in self._cache:
                self._cache.move_to_end(number)
                return self._cache[number]
            entry = self.directory[number] if self.directory is not None else 0
            runs = None
            if entry:
                places = self._places(number, entry)
                self._bounded(places, number)
                runs = Runs(places, self.grain // SECTOR)
            self._cache[number] = runs
            if len(self._cache) > _CACHED_TABLES:
                self._cache.popitem(last=False)
            return runs

    def _bounded(self, places: array[int], number: int) -> None:
        """Refuse grains past the end of the file and beyond the capacity."""
        left = -(-self.capacity // self.grain) - number * ENTRIES
        if left < ENTRIES and any(places[left:]):
            raise VmdkError("A grain table has entries beyond the capacity.", path=self.file.path, found=f"table {number}")
        if max(places) * SECTOR + self.grain <= self.file.size:
            return
        for i, at in enumerate(places):
            need = min(self.grain, self.capacity - (number * ENTRIES + i) * self.grain)
            if at > 1 and at * SECTOR + need > self.file.size:
                raise VmdkError(
                    "A grain lies past the end of the file: it is truncated, or its table is wrong.",
                    path=self.file.path,
                    offset=min(at * SECTOR, 1 << 63),
                    found=f"{self.file.size} bytes in the file",
                    expected=f"{at * SECTOR + need}",
                )

    def _runs(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(start, length, place) in bytes of disk; C(place) as in Run, in sectors, of the piece's first grain."""
        end = offset + length
        span = self.grain * ENTRIES
        while offset < end:
            number, inside = divmod(offset, span)
            stop = min(end, (number + 1) * span)
            runs = self._table(number)
            if runs is None:
                yield offset, stop - offset, 0
            else:
                base = number * span
                for run in runs.between(inside // self.grain, -(-(stop - base) // self.grain)):
                    at = max(offset, base + run.first * self.grain)
                    yield at, min(stop, base + (run.first + run.length) * self.grain) - at, run.place
            offset = stop

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        """What stands in a range, for who puts a chain together."""
        self.check()
        return merge(Extent(at, count, _KINDS[min(place, 2)]) for at, count, place in self._runs(offset, length))

    def extents(self) -> Iterator[Extent]:
        """What stands where, from the grain tables."""
        self.check()
        return merge(self._raw_extents())

    def _raw_extents(self) -> Iterator[Extent]:
        span = self.grain * ENTRIES
        done = 0
        for number, _entry in self._used():
            start = number * span
            yield Extent(done, start - done, Kind.HOLE)
            done = min(start + span, self.capacity)
            yield from (Extent(at, count, _KINDS[min(place, 2)]) for at, count, place in self._runs(start, done - start))
        yield Extent(done, self.capacity - done, Kind.HOLE)

    def _used(self) -> Iterator[tuple[int, int]]:
        return iter(()) if self.directory is None else self.directory.used()

    def read(self, offset: int, length: int) -> bytes:
        """C(length) bytes of disk from C(offset); what is not stored here reads as zeroes."""
        if not self._checked:
            self.check()
        parts = []
        for at, count, place in self._runs(offset, length):
            parts.append(bytes(count) if place <= 1 else self.file.read(place * SECTOR + at % self.grain, count, "grain"))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def allocated(self) -> int:
        """Bytes of disk that have a grain."""
        return sum(e.length for e in self.extents() if e.kind is Kind.DATA)

    def check(self) -> None:
        """Check all tables once: positions and overlaps. VmdkError names the first thing that cannot be."""
        with self._checking:
            if not self._checked:
                count = -(-(self.file.size // SECTOR - self.origin) // self.unit)
                for first in range(0, max(count, 1), _WINDOW):
                    if first <= self._top:
                        self._pass(first, min(_WINDOW, count - first))
                self._checked = True

    def _pass(self, first: int, count: int) -> None:
        """Take all places from C(first) on, C(count) of them, and find those that are taken twice."""
        bits = bytearray(-(-max(count, 0) // 8) + 1)
        for begin, end in self._metadata():
            self._take(bits, first, count, begin, end, "Parts of the metadata overlap.")
        step = self.grain // SECTOR
        span = ENTRIES * self.grain
        for number, _entry in self._used():
            runs = self._table(number)
            if runs is not None:
                stop = -(-(min(self.capacity, (number + 1) * span) - number * span) // self.grain)
                for run in runs.between(0, stop):
                    if run.place > 1:
                        what = "Two grains overlap, or a grain lies over the extent's own metadata."
                        self._take(bits, first, count, run.place, run.place + run.length * step, what)
        self._unnamed(bits, first)

    def _take(self, bits: bytearray, first: int, count: int, begin: int, end: int, what: str) -> None:
        a = max((begin - self.origin) // self.unit - first, 0)
        b = -(-(end - self.origin) // self.unit) - first
        self._top = max(self._top, b + first)
        b = min(b, count)
        if a < b and not take(bits, a, b):
            raise VmdkError(what, path=self.file.path, offset=begin * SECTOR, found=f"sectors {begin} to {end}")

    def close(self) -> None:
        self.file.close()


def free_in(bits: bytearray, a: int, b: int) -> bool:
    """True where one of the bits C(a) to C(b), exclusive, is not set."""
    value = int.from_bytes(bits[a >> 3 : (b + 7) >> 3], "little") >> (a & 7)
    return (value & ((1 << (b - a)) - 1)).bit_count() != b - a


def take(bits: bytearray, a: int, b: int) -> bool:
    """Set the bits C(a) to C(b), exclusive; False where one of them was set."""
    first, last = a >> 3, b >> 3
    if first == last:
        mask = ((1 << (b - a)) - 1) << (a & 7)
        if bits[first] & mask:
            return False
        bits[first] |= mask
        return True
    head, tail = 0xFF << (a & 7) & 0xFF, (1 << (b & 7)) - 1
    middle = last - first - 1
    if bits[first] & head or bits[last] & tail or bits.count(0, first + 1, last) != middle:
        return False
    bits[first] |= head
    bits[last] |= tail
    bits[first + 1 : last] = b"\xff" * middle
    return True
