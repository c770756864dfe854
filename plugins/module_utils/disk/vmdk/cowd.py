# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""COWD: the extents of createType vmfsSparse, the snapshot deltas of VMFS 5 and older.

Source: VMware "Virtual Disk Format 5.0", section "ESX Server Sparse Extents". The header has four sectors, of which the
first 32 bytes tell where data is; a grain table has 4,096 entries of 32 bits, and a grain is one sector as a rule.
"""

from __future__ import annotations

import struct
from array import array
from typing import Iterator

from ..errors import VmdkError
from ..model import SECTOR
from .files import RawFile
from .grains import ENTRIES, GrainExtent, Numbers, numbers
from .structs import MAGIC_COWD, MAX_GRAIN_SECTORS

HEADER = struct.Struct("<4s7I")
HEADER_SECTORS = 4
_UNCLEAN = struct.Struct("<I")
#: After the place of a parent's name (1028), generation, name, description, saved generation and 8 reserved bytes.
_UNCLEAN_AT = 32 + 1028 + 4 + 60 + 512 + 4 + 8
TABLE_SECTORS = ENTRIES * 4 // SECTOR
#: A directory for 2 TiB in grains of one sector has 2^20 entries.
_MAX_DIRECTORY = 1 << 21


class CowdExtent(GrainExtent):
    """One COWD file. C(sectors) is what the descriptor's extent line says; a header that says otherwise is refused."""

    def __init__(self, file: RawFile, sectors: int) -> None:
        head = file.read(0, HEADER_SECTORS * SECTOR, "COWD header")
        magic, version, _flags, capacity, grain, gd_offset, gd_entries, free = HEADER.unpack_from(head)
        needed = -(-capacity // (grain * ENTRIES)) if grain else 0
        checks: tuple[tuple[bool, str, int, object, object], ...] = (
            (magic == MAGIC_COWD, "No COWD header", 0, magic, MAGIC_COWD),
            (version == 1, "Unknown version of COWD", 4, version, 1),
            (
                0 < grain <= MAX_GRAIN_SECTORS and not grain & (grain - 1),
                "Unsupported grain size in sectors",
                16,
                grain,
                f"a power of two up to {MAX_GRAIN_SECTORS}",
            ),
            (
                capacity == sectors,
                "The extent's header and the descriptor's extent line differ in size (sectors)",
                12,
                capacity,
                sectors,
            ),
            (needed <= gd_entries <= _MAX_DIRECTORY, "Impossible number of directory entries", 24, gd_entries, needed),
            (free * SECTOR <= file.size, "The file is truncated: its first free sector lies past its end", 28, free, file.size // SECTOR),
        )
        for good, what, at, found, expected in checks:
            if not good:
                raise VmdkError(f"{what}.", path=file.path, offset=at, found=found, expected=expected)
        self.free = free
        directory = Numbers(file, gd_offset, gd_entries, 4, "grain directory")
        super().__init__(file, capacity * SECTOR, grain * SECTOR, directory)
        self._needed = needed
        self._top = free
        self._lost = 0
        self._unclean = bool(_UNCLEAN.unpack_from(head, _UNCLEAN_AT)[0])
        if self._unclean:
            self.problems.append("the file was not closed cleanly (uncleanShutdown is set)")

    def _used(self) -> Iterator[tuple[int, int]]:
        for number, entry in super()._used():
            if number >= self._needed:
                raise VmdkError(
                    "The grain directory has entries beyond the capacity.", path=self.file.path, found=f"entry {number}: {entry}"
                )
            yield number, entry

    def _places(self, number: int, entry: int) -> array[int]:
        if entry < HEADER_SECTORS or (entry + TABLE_SECTORS) * SECTOR > self.file.size:
            raise VmdkError(
                "A grain table lies outside the file: it is truncated, or its directory is wrong.",
                path=self.file.path,
                offset=self.directory.position(number) if self.directory is not None else None,
                found=entry,
                expected=f"{HEADER_SECTORS} to {self.file.size // SECTOR - TABLE_SECTORS}",
            )
        places = numbers(self.file.read(entry * SECTOR, ENTRIES * 4, "grain table"), 4)
        if min(filter(None, places), default=HEADER_SECTORS) < HEADER_SECTORS:
            raise VmdkError("A grain lies over the extent's header.", path=self.file.path, offset=entry * SECTOR, found=f"table {number}")
        return places

    def _metadata(self) -> Iterator[tuple[int, int]]:
        yield 0, HEADER_SECTORS
        if self.directory is not None:
            yield self.directory.offset, self.directory.end
            for _number, entry in self._used():
                yield entry, entry + TABLE_SECTORS

    def _unnamed(self, bits: bytearray, first: int) -> None:
        """Refuse data below the first free sector that no table names: a wiped table looks like this, and nothing else tells.

        In a file that was not closed cleanly, data may have come before its table entry.
        """
        for sector, data in self._forgotten(bits, first, self.free or self.file.size // SECTOR):
            self._lost += 1
            if data and not self._unclean:
                raise VmdkError(
                    "The file holds data that its grain tables do not name: they are damaged.", path=self.file.path, offset=sector * SECTOR
                )
        if self._lost and not any("belong to no table" in p for p in self.problems):
            self.problems.append(f"{self._lost} sectors in the file belong to no table")
