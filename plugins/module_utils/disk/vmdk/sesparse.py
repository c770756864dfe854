# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""seSparse: the snapshot deltas of VMFS 6, and of disks above 2 TiB on VMFS 5.

The vendor never published the format. Source: what QEMU (block/vmdk.c, vmdk_open_se_sparse, get_cluster_offset) and
dissect.hypervisor know of it. A constant header, a volatile one, a directory and tables of 64 bit entries, grains of 4 KiB;
tables and grains are counted from where their area begins.
"""

from __future__ import annotations

import itertools
import struct
from array import array
from typing import Iterable

from ..errors import VmdkError
from ..model import SECTOR
from .files import RawFile
from .grains import ENTRIES, GrainExtent, Numbers, numbers
from .structs import MAX_SECTORS

CONST = struct.Struct("<26Q")
VOLATILE = struct.Struct("<4Q")
MAGIC = 0xCAFEBABE
MAGIC_VOLATILE = 0xCAFECAFE
VERSION = 0x0000000200000001
GRAIN_SECTORS = 8
TABLE_SECTORS = 64

#: The upper four bits of an entry of a table. A grain that the guest unmapped is zero, over a parent too.
TYPE_UNALLOCATED, TYPE_UNMAPPED, TYPE_ZERO, TYPE_ALLOCATED = 0, 1, 2, 3
#: Grains without a table, and of those with one, that are compared with the bitmap of free grains.
_LOOKED_AT = 1 << 14
#: The upper half of a directory entry that names a table.
_TABLE = 0x10000000

(
    _MAGIC,
    _VERSION,
    _CAPACITY,
    _GRAIN,
    _TABLE_SIZE,
    _FLAGS,
    _RESERVED,
    _VOLATILE,
    _GD,
    _GD_SIZE,
    _GT,
    _GT_SIZE,
    _BITMAP,
    _GRAINS,
) = (0, 1, 2, 3, 4, 5, 6, 10, 16, 17, 18, 19, 20, 24)


class SeSparseExtent(GrainExtent):
    """One seSparse file. C(sectors) is what the descriptor's extent line says; a header that says otherwise is refused."""

    unit = GRAIN_SECTORS

    def __init__(self, file: RawFile, sectors: int) -> None:
        head = file.read(0, SECTOR, "seSparse header")
        h = CONST.unpack_from(head)
        capacity = h[_CAPACITY]
        needed = -(-capacity // (GRAIN_SECTORS * ENTRIES))
        checks: tuple[tuple[bool, str, int, object, object], ...] = (
            (h[_MAGIC] == MAGIC, "No seSparse header", _MAGIC, hex(h[_MAGIC]), hex(MAGIC)),
            (h[_VERSION] == VERSION, "Unknown version of seSparse", _VERSION, hex(h[_VERSION]), hex(VERSION)),
            (capacity <= MAX_SECTORS, "Impossible capacity in sectors", _CAPACITY, capacity, f"at most {MAX_SECTORS}"),
            (
                capacity == sectors,
                "The extent's header and the descriptor's extent line differ in size (sectors)",
                _CAPACITY,
                capacity,
                sectors,
            ),
            (h[_GRAIN] == GRAIN_SECTORS, "Unsupported grain size in sectors", _GRAIN, h[_GRAIN], GRAIN_SECTORS),
            (h[_TABLE_SIZE] == TABLE_SECTORS, "Unsupported size of grain tables in sectors", _TABLE_SIZE, h[_TABLE_SIZE], TABLE_SECTORS),
            (not h[_FLAGS], "Unknown flags", _FLAGS, hex(h[_FLAGS]), 0),
            (not any(h[_RESERVED:_VOLATILE]), "Reserved fields are used", _RESERVED, "other values", 0),
            (not any(head[CONST.size :]), "Bytes follow the constant header", len(h), "other values", 0),
            (h[_GD_SIZE] * SECTOR // 8 >= needed, "The grain directory is too small", _GD_SIZE, h[_GD_SIZE], -(-needed * 8 // SECTOR)),
        )
        for good, what, at, found, expected in checks:
            if not good:
                raise VmdkError(f"{what}.", path=file.path, offset=at * 8, found=found, expected=expected)
        for at in (_VOLATILE, _GD, _GT, _GRAINS):
            if not 0 < h[at] < 1 << 55:
                raise VmdkError("Impossible position in the header (sectors).", path=file.path, offset=at * 8, found=h[at])
        self._volatile = h[_VOLATILE]
        self._tables_at, self._tables_sectors, self.origin = h[_GT], h[_GT_SIZE], h[_GRAINS]
        self._bitmap = (h[_BITMAP], h[_BITMAP + 1])
        self._freed = 0
        self._replay(file)
        super().__init__(file, capacity * SECTOR, GRAIN_SECTORS * SECTOR, Numbers(file, h[_GD], needed, 8, "grain directory"))

    def _replay(self, file: RawFile) -> None:
        at = self._volatile * SECTOR
        data = file.read(at, SECTOR, "volatile header")
        magic, _free_table, _transaction, replay = VOLATILE.unpack_from(data)
        if magic != MAGIC_VOLATILE:
            raise VmdkError("No volatile header.", path=file.path, offset=at, found=hex(magic), expected=hex(MAGIC_VOLATILE))
        if replay:
            raise VmdkError(
                "The file was not closed cleanly: its journal is still to be replayed, which only ESXi can do.",
                path=file.path,
                offset=at + 24,
                found=replay,
                expected=0,
            )
        if any(data[VOLATILE.size :]):
            raise VmdkError("Bytes follow the volatile header.", path=file.path, offset=at + VOLATILE.size)

    def _table_sector(self, number: int, entry: int) -> int:
        """First sector of the table that directory entry C(entry) names."""
        place: int = self._tables_at + (entry & 0xFFFFFFFF) * TABLE_SECTORS
        inside = (entry & 0xFFFFFFFF) < self._tables_sectors // TABLE_SECTORS
        if entry >> 32 != _TABLE or not inside or (place + TABLE_SECTORS) * SECTOR > self.file.size:
            raise VmdkError(
                "Impossible entry in the grain directory.",
                path=self.file.path,
                offset=self.directory.position(number) if self.directory is not None else None,
                found=hex(entry),
                expected=f"0, or 0x10000000 and the number of a table below {self._tables_sectors // TABLE_SECTORS}, in the file",
            )
        return place

    def _places(self, number: int, entry: int) -> array[int]:
        at = self._table_sector(number, entry) * SECTOR
        data = self.file.read(at, ENTRIES * 8, "grain table")
        table = numbers(data, 8)
        kinds = set(data[7::8])
        if max(kinds) >= (TYPE_ALLOCATED + 1) << 4:
            i = next(i for i, entry in enumerate(table) if entry >> 60 > TYPE_ALLOCATED)
            raise VmdkError("Unknown type of grain.", path=self.file.path, offset=at + 8 * i, found=hex(table[i]))
        if kinds == {0} and not any(data):
            return array("Q", bytes(len(data)))
        origin = self.origin
        places = array("Q", bytes(len(data)))
        freed = 0
        for i, value in enumerate(table):
            kind = value >> 60
            if kind == TYPE_ALLOCATED:
                # The low twelve bits of a grain's number stand above its high ones.
                places[i] = origin + (((value >> 48) & 0xFFF) | ((value & 0xFFFFFFFFFFFF) << 12)) * GRAIN_SECTORS
            elif kind != TYPE_UNALLOCATED:
                places[i] = 1
                freed += 1
            elif value:
                raise VmdkError("An unallocated grain has a place.", path=self.file.path, offset=at + 8 * i, found=hex(value), expected=0)
        # A table that is read again counts again: that is on the safe side of refusing a sound file.
        self._freed += freed
        return places

    def _unnamed(self, bits: bytearray, first: int) -> None:
        """Refuse data that no table names, unless it is that of grains which the guest freed.

        Freed grains keep their bytes. They are told by entries that say so (unmapped, zero), or by the bitmap of free grains,
        where that has one value for all of them and another for all that are in use (which value means what is not known).
        """
        forgotten = [place for place, data in itertools.islice(self._forgotten(bits, first, 1 << 62), _LOOKED_AT) if data]
        if not forgotten:
            return
        text = "the file holds grains with data that no table names, as those are that the guest freed"
        if len(forgotten) > self._freed and not self._known_free(bits, first, forgotten):
            raise VmdkError(
                "The file holds data that its grain tables do not name: they are damaged.",
                path=self.file.path,
                offset=(self.origin + forgotten[0] * GRAIN_SECTORS) * SECTOR,
                found=f"{len(forgotten)} such grains",
                expected=f"at most {self._freed}, which tables call free",
            )
        if text not in self.problems:
            self.problems.append(text)

    def _known_free(self, bits: bytearray, first: int, forgotten: list[int]) -> bool:
        at, size = self._bitmap
        used = itertools.islice((first + i for i in range(8 * len(bits)) if bits[i >> 3] & (1 << (i & 7))), _LOOKED_AT)
        values: list[set[int]] = []
        for places in (forgotten, used):
            found = set()
            for place in places:
                if place >> 3 >= size * SECTOR or (at + size) * SECTOR > self.file.size:
                    return False
                byte = self.file.read(at * SECTOR + (place >> 3), 1, "bitmap of free grains")[0]
                found.add(byte >> (place & 7) & 1)
            values.append(found)
        return values[0] != values[1] and all(len(found) == 1 for found in values)

    def _metadata(self) -> Iterable[tuple[int, int]]:
        """Nothing in the area of grains, where none of it may reach."""
        if self.directory is None:
            return []
        # An entry names a table inside the file.
        taken = bytearray(min(self._tables_sectors, self.file.size // SECTOR) // TABLE_SECTORS // 8 + 1)
        last = 0
        for number, entry in self.directory.used():
            place = self._table_sector(number, entry)
            index = entry & 0xFFFFFFFF
            if taken[index >> 3] & 1 << (index & 7):
                raise VmdkError(
                    "Two directory entries name one grain table.", path=self.file.path, offset=self.directory.position(number), found=index
                )
            taken[index >> 3] |= 1 << (index & 7)
            last = max(last, place + TABLE_SECTORS)
        areas = [(0, 1), (self._volatile, self._volatile + 1), (self.directory.offset, self.directory.end)]
        if last:
            areas.append((self._tables_at, last))
        areas.sort()
        for (a, b), (c, d) in itertools.pairwise([*areas, (self.origin, self.origin + 1)]):
            if c < b:
                raise VmdkError("Parts of the file overlap.", path=self.file.path, offset=c * SECTOR, found=f"sectors {a}-{b} and {c}-{d}")
        return []
