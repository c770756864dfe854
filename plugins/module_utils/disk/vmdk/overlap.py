# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two grains of a sparse extent in one place, or a grain over the tables: found before a byte is believed."""

from __future__ import annotations

from array import array
from typing import Iterator

from ..errors import VmdkError
from ..model import SECTOR
from ..sources.file import data_ranges
from .files import RawFile
from .structs import SparseHeader, sectors
from .tables import Tables

#: Places for grains in a file that are tracked by a byte each; above, by a bit (slower, an eighth of the memory).
_BYTES = 32 << 20
#: Above this many places, grains that do not lie on one raster are refused instead of sorted.
_MIXED = 16 << 20


class _Places:
    """Which places (multiples of the grain, from the file's begin) are taken."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._by_byte = count <= _BYTES
        self._map = bytearray(count if self._by_byte else -(-count // 8))

    def take(self, place: int) -> bool:
        """Take C(place); False where it was taken before."""
        if self._by_byte:
            if self._map[place]:
                return False
            self._map[place] = 1
            return True
        byte, bit = place >> 3, 1 << (place & 7)
        if self._map[byte] & bit:
            return False
        self._map[byte] |= bit
        return True

    def taken(self, place: int) -> bool:
        if not 0 <= place < self._count:
            return False
        return bool(self._map[place] if self._by_byte else self._map[place >> 3] & (1 << (place & 7)))


def _entries(tables: Tables) -> Iterator[int]:
    for number in tables.used():
        table = tables.get(number)
        if table is not None:
            for at in table:
                if at > 1:
                    yield at


def check_grains(file: RawFile, header: SparseHeader, tables: Tables) -> list[str]:
    """Raise VmdkError where grains of an uncompressed extent overlap each other or the extent's metadata; return remarks."""
    if file.size % SECTOR:
        raise VmdkError(
            "The file is no whole number of sectors: it was cut, or changed by a transfer.",
            path=file.path,
            offset=file.size,
            found=file.size,
        )
    step = header.grain_sectors
    count = min(file.size // SECTOR, 1 << 32) // step + 1
    places = _Places(count)
    first_phase = -1
    phases: array[int] | None = None
    used = 0
    for at in _entries(tables):
        used += 1
        place, phase = divmod(at, step)
        if not places.take(place):
            raise VmdkError("Two grains lie in one place.", path=file.path, offset=at * SECTOR)
        if phase != first_phase:
            if first_phase < 0:
                first_phase = phase
            elif phases is None:
                if count > _MIXED:
                    raise VmdkError(
                        "The grains do not lie on one raster.", path=file.path, offset=at * SECTOR, found=phase, expected=first_phase
                    )
                phases = array("H", [first_phase]) * count
        if phases is not None:
            phases[place] = phase
    if first_phase < 0:
        tables.runs()
        return _unnamed(file, header, tables, places, 0, aligned=True)
    if phases is not None:
        for place in range(count - 1):
            if places.taken(place) and places.taken(place + 1) and phases[place + 1] < phases[place]:
                raise VmdkError("Two grains overlap.", path=file.path, offset=(place * step + phases[place]) * SECTOR)
    metadata = [(0, 1), *tables.runs()]
    if header.overhead <= file.size // SECTOR:
        metadata.append((0, header.overhead))
    if header.descriptor_offset:
        metadata.append((header.descriptor_offset, header.descriptor_offset + header.descriptor_sectors))
    for begin, end in metadata:
        for place in range(max(0, (begin - step) // step), min(count - 1, sectors(end * SECTOR) // step) + 1):
            if places.taken(place):
                at = place * step + (first_phase if phases is None else phases[place])
                if at < end and at + step > begin:
                    raise VmdkError(
                        "A grain lies over the extent's own metadata.",
                        path=file.path,
                        offset=at * SECTOR,
                        found=f"sectors {begin} to {end}",
                    )
    if phases is None:
        _nothing_behind(file, places, step, first_phase, count)
    return _unnamed(file, header, tables, places, used, aligned=first_phase == 0 and phases is None)


def _nothing_behind(file: RawFile, places: _Places, step: int, phase: int, count: int) -> None:
    """Refuse data behind the last grain that is less than a grain: bytes were put into the file, and all behind them is shifted."""
    last = next((place for place in range(count - 1, max(-1, count - 3), -1) if places.taken(place)), None)
    if last is None:
        return
    end = (last * step + phase + step) * SECTOR
    tail = file.size - end
    if 0 < tail < step * SECTOR and any(file.read(end, tail)):
        raise VmdkError("Bytes follow the last grain: something was put into the file.", path=file.path, offset=end, found=f"{tail} bytes")


def _wiped(tables: Tables) -> bool:
    """True where a grain directory leads to fewer tables than the capacity needs."""
    directory = tables.primary or tables.redundant
    return directory is None or any(0 in directory.page(page) for page in range(-(-tables.count // 1024)))


def _unnamed(file: RawFile, header: SparseHeader, tables: Tables, places: _Places, used: int, aligned: bool) -> list[str]:
    """A remark where the file has room for more grains than the C(used) ones.

    With a wiped table, data looks like this. A second set of tables that agrees in all says that nothing was wiped. Without one,
    or where the directories have empty entries (makers who write them twice make all tables), bytes in that room are refused.
    """
    step = header.grain_sectors
    room = (file.size // SECTOR - header.overhead) // step
    if room <= used:
        return []
    if tables.redundant is None or tables.problems or _wiped(tables):
        first = header.overhead * SECTOR
        for start, length in data_ranges(file.fd, file.size) if file.regular else [(0, file.size)]:
            at = max(start, first)
            while at < start + length:
                place = at // (step * SECTOR)
                end = min((place + 1) * step * SECTOR, start + length)
                free = not places.taken(place) and (aligned or not places.taken(place - 1))
                if free and any(file.read(at, end - at)):
                    raise VmdkError("The file holds data that its grain tables do not name: they are damaged.", path=file.path, offset=at)
                at = end
    return [f"{room - used} grains in the file belong to no table; they read as zeroes"]
