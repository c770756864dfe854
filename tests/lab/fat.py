# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A FAT16 file system with files in folders, written directly: small, deterministic, without mtools.

Source of the format: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03. Names are 8.3.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Mapping

SECTOR = 512
PER_CLUSTER = 4  # sectors
ROOT_ENTRIES = 512
DATE = (2026 - 1980) << 9 | 1 << 5 | 15  # 2026-01-15
TIME = 12 << 11


class Fat16:
    """Collects files, then writes the file system at an offset of a disk image."""

    def __init__(self, sectors: int, serial: int, label: str) -> None:
        self.sectors, self.serial, self.label = sectors, serial, label
        clusters = sectors // PER_CLUSTER
        self.fat_sectors = (clusters * 2 + SECTOR - 1) // SECTOR
        self.data_start = 1 + 2 * self.fat_sectors + ROOT_ENTRIES * 32 // SECTOR
        self.clusters = (sectors - self.data_start) // PER_CLUSTER
        if not 4085 <= self.clusters < 65525:
            raise ValueError(f"{sectors} sectors make {self.clusters} clusters: that is no FAT16")
        self.fat = [0xFFF8, 0xFFFF]
        self.data: list[bytes] = []  # from cluster 2

    def _store(self, content: bytes) -> int:
        """Append content as one chain of clusters; give the first, or 0 for nothing."""
        size = PER_CLUSTER * SECTOR
        count = (len(content) + size - 1) // size
        if count == 0:
            return 0
        first = len(self.fat)
        if first + count > self.clusters + 2:
            raise ValueError("the files do not fit")
        self.fat += [*range(first + 1, first + count), 0xFFFF]
        self.data.append(content.ljust(count * size, b"\0"))
        return first

    @staticmethod
    def _entry(name: bytes, attributes: int, cluster: int, size: int, case: int = 0) -> bytes:
        return struct.pack("<11sBBBHHHHHHHI", name, attributes, case, 0, TIME, DATE, DATE, 0, TIME, DATE, cluster, size)

    @classmethod
    def _named(cls, name: str, attributes: int, cluster: int, size: int) -> bytes:
        stem, _, extension = name.partition(".")
        if not (0 < len(stem) <= 8 and len(extension) <= 3 and name.isascii()):
            raise ValueError(f"{name!r} is no 8.3 name")
        case = (0x08 if stem.islower() else 0) | (0x10 if extension.islower() else 0)
        short = stem.upper().encode().ljust(8) + extension.upper().encode().ljust(3)
        return cls._entry(short, attributes, cluster, size, case)

    def write(self, f: BinaryIO, offset: int, tree: Mapping[str, bytes]) -> None:
        """Write the file system at offset (bytes) with the files of tree (path to content)."""
        folders: dict[str, list[bytes]] = {"": [self._entry(self.label.upper().encode().ljust(11)[:11], 0x08, 0, 0)]}
        for path in tree:
            parts = path.split("/")[:-1]
            for i in range(len(parts)):
                folders.setdefault("/".join(parts[: i + 1]), [])
        # A folder's cluster must be known to its parent and its children: all folders take one cluster each, first.
        place: dict[str, int] = {"": 0}
        for folder in sorted(folders):
            if folder:
                place[folder] = self._store(b"\0" * (PER_CLUSTER * SECTOR))
        for folder in sorted(folders):
            if folder:
                parent, _, name = folder.rpartition("/")
                folders[parent].append(self._named(name, 0x10, place[folder], 0))
                dots = [self._entry(b".".ljust(11), 0x10, place[folder], 0), self._entry(b"..".ljust(11), 0x10, place[parent], 0)]
                folders[folder][:0] = dots
        for path, content in sorted(tree.items()):
            folder, _, name = path.rpartition("/")
            folders[folder].append(self._named(name, 0x20, self._store(content), len(content)))
        for folder, entries in folders.items():
            if folder:
                raw = b"".join(entries)
                if len(raw) > PER_CLUSTER * SECTOR:
                    raise ValueError(f"folder {folder} has too many entries")
                self.data[place[folder] - 2] = raw.ljust(PER_CLUSTER * SECTOR, b"\0")
        geometry = (SECTOR, PER_CLUSTER, 1, 2, ROOT_ENTRIES, 0, 0xF8, self.fat_sectors, 63, 255, 0, self.sectors)
        boot = b"\xeb\x3c\x90FERRYLAB" + struct.pack("<HBHBHHBHHHII", *geometry)
        boot += struct.pack("<BBBI11s8s", 0x80, 0, 0x29, self.serial, self.label.upper().encode().ljust(11)[:11], b"FAT16   ")
        fat = struct.pack(f"<{len(self.fat)}H", *self.fat).ljust(self.fat_sectors * SECTOR, b"\0")
        f.seek(offset)
        f.write(boot.ljust(510, b"\0") + b"\x55\xaa" + fat + fat + b"".join(folders[""]).ljust(ROOT_ENTRIES * 32, b"\0"))
        f.write(b"".join(self.data))
