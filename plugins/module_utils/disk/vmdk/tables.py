# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The grain directory and the grain tables of a sparse extent: looked up lazily, bounded before they are believed."""

from __future__ import annotations

import sys
import threading
from array import array
from collections import OrderedDict
from itertools import pairwise
from typing import Iterator

from ..errors import VmdkError
from ..model import SECTOR
from .files import RawFile
from .structs import GT_SECTORS, GTES_PER_GT, SparseHeader, sectors

_PAGE = 1024
_CACHED_TABLES = 256
_CACHED_PAGES = 64
_EMPTY = bytes(GTES_PER_GT * 4)
#: A disk whose tables lie in more pieces than this is not one that a product wrote.
_MAX_RUNS = 1 << 19


def words(data: bytes) -> array[int]:
    """Unsigned 32 bit little-endian numbers in C(data)."""
    out = array("I")
    out.frombytes(data)
    if sys.byteorder == "big":
        out.byteswap()
    return out


class Directory:
    """A grain directory at C(offset) sectors with C(count) entries, read a page at a time."""

    def __init__(self, file: RawFile, offset: int, count: int, name: str) -> None:
        self.file = file
        self.offset = offset
        self.count = count
        self.name = name
        end = (offset + sectors(count * 4)) * SECTOR
        if offset < 1 or end - (-(count * 4) % SECTOR) > file.size:
            raise VmdkError(
                f"The {name} lies outside the file: it is truncated, or its header is wrong.",
                path=file.path,
                offset=min(offset * SECTOR, 1 << 63),
                found=f"{file.size} bytes in the file",
                expected=f"{count} entries there",
            )
        self._pages: OrderedDict[int, array[int]] = OrderedDict()

    def __getitem__(self, index: int) -> int:
        number, at = divmod(index, _PAGE)
        return self.page(number)[at]

    def page(self, number: int) -> array[int]:
        """Entries C(number) x 1024 on, at most 1024."""
        page = self._pages.get(number)
        if page is None:
            count = min(_PAGE, self.count - number * _PAGE)
            page = words(self.file.read(self.offset * SECTOR + number * _PAGE * 4, count * 4, self.name))
            self._pages[number] = page
            if len(self._pages) > _CACHED_PAGES:
                self._pages.popitem(last=False)
        return page

    @property
    def end(self) -> int:
        """The sector after the directory."""
        return self.offset + sectors(self.count * 4)


class Tables:
    """Grain tables by number. Where there is a redundant set, both are read and must agree."""

    def __init__(self, file: RawFile, header: SparseHeader) -> None:
        self.file = file
        self.header = header
        self.count = header.tables
        self.problems: list[str] = []
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, array[int] | None] = OrderedDict()
        #: Tables that are kept; a disk of many extents lowers it.
        self.cached = _CACHED_TABLES
        self._noted: set[str] = set()
        self.redundant: Directory | None = None
        if header.redundant and header.rgd_offset:
            self.redundant = Directory(file, header.rgd_offset, self.count, "redundant grain directory")
        self.primary: Directory | None
        try:
            self.primary = Directory(file, header.gd_offset, self.count, "grain directory")
        except VmdkError as e:
            if self.redundant is None:
                raise
            self.primary = None
            self._note(f"the redundant grain directory is used: {e.message}")

    def _note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.problems.append(text)

    def _position(self, directory: Directory | None, number: int) -> int | None:
        """Sector of table C(number): 0 where there is none, None where the entry cannot be true."""
        if directory is None:
            return None
        at = directory[number]
        if at and (at + GT_SECTORS) * SECTOR > self.file.size:
            return None
        return at

    def _load(self, number: int) -> array[int] | None:
        first = self._position(self.primary, number)
        if self.redundant is None:
            if first is None:
                raise VmdkError(
                    "A grain table lies past the end of the file: it is truncated, or its directory is wrong.",
                    path=self.file.path,
                    offset=self._entry(number),
                    found=self.primary[number] if self.primary else None,
                    expected=f"at most {self.file.size // SECTOR - GT_SECTORS}",
                )
            data = self._read(first)
        else:
            second = self._position(self.redundant, number)
            if first is None and second is None:
                raise VmdkError("Both grain directories point past the end of the file.", path=self.file.path, offset=self._entry(number))
            if first is None or second is None:
                name = "redundant" if first is None else "first"
                self._note(f"a grain directory points past the end of the file; the {name} one is used")
                if second is None:
                    raise VmdkError(
                        "The redundant grain directory points past the end of the file.",
                        path=self.file.path,
                        offset=self.redundant.offset * SECTOR + number * 4,
                        found=self.redundant[number],
                    )
                data = self._read(second)
            else:
                data = self._read(first)
                other = self._read(second)
                if data != other:
                    raise VmdkError(
                        "The grain table and its redundant copy differ; which one is right cannot be told.",
                        path=self.file.path,
                        offset=first * SECTOR,
                        found=f"table {number}",
                        expected=f"the same as at {second * SECTOR}",
                    )
        if data == _EMPTY:
            return None
        return self._checked(words(data), number)

    def _entry(self, number: int) -> int:
        directory = self.primary or self.redundant
        if directory is None:
            raise VmdkError("The extent has no grain directory.", path=self.file.path)
        return directory.offset * SECTOR + number * 4

    def _read(self, position: int) -> bytes:
        return self.file.read(position * SECTOR, len(_EMPTY), "grain table") if position else _EMPTY

    def _checked(self, table: array[int], number: int) -> array[int]:
        """Refuse entries that cannot be true: past the end of the file, beyond the capacity, zero grains without their flag."""
        h = self.header
        zeroes = bool(h.flags & 4)
        left = -(-h.capacity_sectors // h.grain_sectors) - number * GTES_PER_GT
        if left < GTES_PER_GT and any(table[left:]):
            raise VmdkError("A grain table has entries beyond the capacity.", path=self.file.path, found=f"table {number}")
        if 1 in table and not zeroes:
            raise VmdkError(
                "A grain table entry is 1 (zero grain), but the header does not allow for that.",
                path=self.file.path,
                found=f"table {number}, entry {table.index(1)}",
                expected="flag bit 2 in the header",
            )
        room = 1 if h.compressed else h.grain_sectors
        limit = self.file.size // SECTOR
        if max(table) + room > limit:
            self._past_end(table, number)
        return table

    def _past_end(self, table: array[int], number: int) -> None:
        h = self.header
        for i, at in enumerate(table):
            if at <= 1:
                continue
            disk = (number * GTES_PER_GT + i) * h.grain
            need = 16 if h.compressed else min(h.grain, h.capacity - disk)
            # Of the disk's last grain, where the capacity is odd, some makers store the beginning alone, at the end of the file.
            whole = at * SECTOR + (16 if h.compressed else h.grain) <= self.file.size
            if not whole and at * SECTOR + need != self.file.size:
                raise VmdkError(
                    "A grain lies past the end of the file: it is truncated, or its table is wrong.",
                    path=self.file.path,
                    offset=at * SECTOR,
                    found=f"{self.file.size} bytes in the file",
                    expected=f"{at * SECTOR + need}",
                )

    def get(self, number: int) -> array[int] | None:
        """Entries of table C(number): sectors in the file, 0 unallocated, 1 zero grain. None where all are 0."""
        with self._lock:
            if number in self._cache:
                self._cache.move_to_end(number)
                return self._cache[number]
            table = self._load(number)
            self._cache[number] = table
            if len(self._cache) > self.cached:
                self._cache.popitem(last=False)
            return table

    def used(self) -> Iterator[int]:
        """Numbers of the tables that may hold something: whole pages of empty directory entries are left out."""
        directories = [d for d in (self.primary, self.redundant) if d is not None]
        for page in range(-(-self.count // _PAGE)):
            with self._lock:
                empty = not any(any(d.page(page)) for d in directories)
            if not empty:
                yield from range(page * _PAGE, min((page + 1) * _PAGE, self.count))

    def runs(self) -> list[tuple[int, int]]:
        """(first, end) sectors of all directories and tables, ascending; VmdkError where two of them overlap."""
        found: list[tuple[int, int]] = []
        for directory in (self.primary, self.redundant):
            if directory is None:
                continue
            found.append((directory.offset, directory.end))
            found.extend(self._table_runs(directory))
        found.sort()
        for (a, b), (c, d) in pairwise(found):
            if c < b:
                raise VmdkError(
                    "Grain tables or directories overlap.", path=self.file.path, offset=c * SECTOR, found=f"sectors {a}-{b} and {c}-{d}"
                )
        return found

    def _table_runs(self, directory: Directory) -> Iterator[tuple[int, int]]:
        first = end = runs = 0
        for number in self.used():
            at = directory[number]
            if not at or (at + GT_SECTORS) * SECTOR > self.file.size:
                continue
            if at == end:
                end += GT_SECTORS
                continue
            if end:
                yield first, end
                runs += 1
                if runs > _MAX_RUNS:
                    raise VmdkError("The grain tables lie in too many pieces.", path=self.file.path, expected=f"at most {_MAX_RUNS}")
            first, end = at, at + GT_SECTORS
        if end:
            yield first, end
