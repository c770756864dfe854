# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands on disk in a hosted sparse extent (magic KDMV): header, markers, tables.

Source: VMware "Virtual Disk Format 5.0", sections "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse
Extents". Sizes and offsets called C(*_sectors) count sectors of 512 bytes; everything else counts bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Iterator

from ..errors import VmdkError
from ..model import SECTOR

MAGIC = b"KDMV"
MAGIC_COWD = b"COWD"
MAGIC_SESPARSE = struct.pack("<Q", 0xCAFEBABE)

FLAG_NEWLINE = 1 << 0
FLAG_REDUNDANT = 1 << 1
FLAG_ZERO_GRAIN = 1 << 2
FLAG_COMPRESSED = 1 << 16
FLAG_MARKERS = 1 << 17
#: The upper half of the flags changes how data is read: what is set there and not known cannot be ignored.
_INCOMPATIBLE = 0xFFFF0000 & ~(FLAG_COMPRESSED | FLAG_MARKERS)

GD_AT_END = 0xFFFFFFFFFFFFFFFF
GTES_PER_GT = 512
GT_SECTORS = GTES_PER_GT * 4 // SECTOR
DEFLATE = 1
NEWLINES = b"\n \r\n"

#: The largest disk of vSphere is 62 TiB.
MAX_SECTORS = (64 << 40) // SECTOR
MAX_DESCRIPTOR = 1 << 20
MIN_GRAIN_SECTORS = 8
MAX_GRAIN_SECTORS = 2048
GRAIN_SECTORS = 128

MARKER_EOS = 0
MARKER_GT = 1
MARKER_GD = 2
MARKER_FOOTER = 3
MARKER_PROGRESS = 4

_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH433x")
GRAIN_MARKER = struct.Struct("<QI")
_MARKER = struct.Struct("<QII496x")
#: Deflate never makes more than this of one grain (stored blocks: 5 bytes for each 16 KiB, head and checksum).
DEFLATE_SLACK = 4096


def sectors(length: int) -> int:
    """Sectors that C(length) bytes take, rounded up."""
    return -(-length // SECTOR)


@dataclass(frozen=True)
class SparseHeader:
    """SparseExtentHeader. C(gd_sectors) and so on are offsets in sectors, as they stand in the file."""

    version: int
    flags: int
    capacity_sectors: int
    grain_sectors: int = GRAIN_SECTORS
    descriptor_offset: int = 0
    descriptor_sectors: int = 0
    gtes_per_gt: int = GTES_PER_GT
    rgd_offset: int = 0
    gd_offset: int = 0
    overhead: int = 0
    unclean: int = 0
    newlines: bytes = NEWLINES
    compression: int = 0

    @property
    def compressed(self) -> bool:
        return bool(self.flags & FLAG_COMPRESSED)

    @property
    def redundant(self) -> bool:
        return bool(self.flags & FLAG_REDUNDANT)

    @property
    def grain(self) -> int:
        """Bytes in a grain."""
        return self.grain_sectors * SECTOR

    @property
    def capacity(self) -> int:
        """Bytes of disk in this extent."""
        return self.capacity_sectors * SECTOR

    @property
    def tables(self) -> int:
        """Grain tables that the capacity needs."""
        return -(-self.capacity_sectors // (self.grain_sectors * GTES_PER_GT))

    def at_end(self) -> SparseHeader:
        """The same with its grain directory said to be at the end."""
        return replace(self, gd_offset=GD_AT_END)

    def pack(self) -> bytes:
        return _HEADER.pack(
            MAGIC,
            self.version,
            self.flags,
            self.capacity_sectors,
            self.grain_sectors,
            self.descriptor_offset,
            self.descriptor_sectors,
            self.gtes_per_gt,
            self.rgd_offset,
            self.gd_offset,
            self.overhead,
            self.unclean,
            self.newlines,
            self.compression,
        )


def parse_header(data: bytes, path: str, offset: int = 0) -> SparseHeader:
    """The header or footer in C(data) as it stands there: only its length and its magic are checked."""
    if len(data) < SECTOR:
        raise VmdkError("The sparse header is cut.", path=path, offset=offset, found=len(data), expected=SECTOR)
    magic, *rest = _HEADER.unpack(data[:SECTOR])
    if magic != MAGIC:
        raise VmdkError("No sparse header.", path=path, offset=offset, found=bytes(magic), expected=MAGIC)
    return SparseHeader(*rest)


def header_faults(h: SparseHeader, path: str, offset: int = 0) -> Iterator[VmdkError]:
    """Everything in a header at C(offset) of C(path) that is out of bounds, or contradicts itself.

    What needs the file's size (positions) is checked where the tables are read.
    """
    if h.flags & FLAG_NEWLINE and h.newlines != NEWLINES:
        yield VmdkError(
            "The file was damaged by a transfer in text mode: its newline bytes were changed.",
            path=path,
            offset=offset + 73,
            found=h.newlines.hex(),
            expected=NEWLINES.hex(),
        )
    checks: tuple[tuple[bool, str, int, int | str, str], ...] = (
        (1 <= h.version <= 3, "Unknown version", 4, h.version, "1 to 3"),
        (not h.flags & _INCOMPATIBLE, "Unknown incompatible flags", 8, hex(h.flags & _INCOMPATIBLE), "none"),
        (h.capacity_sectors <= MAX_SECTORS, "Impossible capacity in sectors", 12, h.capacity_sectors, f"at most {MAX_SECTORS}"),
        (
            MIN_GRAIN_SECTORS <= h.grain_sectors <= MAX_GRAIN_SECTORS and not h.grain_sectors & (h.grain_sectors - 1),
            "Unsupported grain size in sectors",
            20,
            h.grain_sectors,
            f"a power of two from {MIN_GRAIN_SECTORS} to {MAX_GRAIN_SECTORS}",
        ),
        (h.descriptor_sectors * SECTOR <= MAX_DESCRIPTOR, "Descriptor too long, in sectors", 36, h.descriptor_sectors, "at most 2048"),
        (h.gtes_per_gt == GTES_PER_GT, "Unsupported number of entries in a grain table", 44, h.gtes_per_gt, str(GTES_PER_GT)),
    )
    for good, what, at, found, expected in checks:
        if not good:
            yield VmdkError(f"{what}.", path=path, offset=offset + at, found=found, expected=expected)
    if h.compressed != (h.compression == DEFLATE) or h.compression not in (0, DEFLATE):
        yield VmdkError(
            "The compression flag and the compression algorithm do not agree.",
            path=path,
            offset=offset + 77,
            found=f"flag {int(h.compressed)}, algorithm {h.compression}",
            expected="1 and 1, or 0 and 0",
        )
    if h.compressed != bool(h.flags & FLAG_MARKERS):
        yield VmdkError(
            "Compressed grains without markers, or markers without compression, are not supported.",
            path=path,
            offset=offset + 8,
            found=hex(h.flags),
            expected="both of 0x30000 or none",
        )


def unpack_header(data: bytes, path: str, offset: int = 0) -> SparseHeader:
    """Parse the header or footer in C(data), which stands at C(offset) of C(path); VmdkError names the first field that is wrong."""
    h = parse_header(data, path, offset)
    for fault in header_faults(h, path, offset):
        raise fault
    return h


_MARKER_HEAD = struct.Struct("<QII")


def marker(kind: int, count: int) -> bytes:
    """A metadata marker (one sector) before C(count) sectors of metadata of C(kind)."""
    return _MARKER.pack(count, 0, kind)


def unpack_marker(data: bytes, at: int = 0) -> tuple[int, int, int]:
    """(value, size, kind) of the marker in the 16 bytes at C(at) of C(data)."""
    value, size, kind = _MARKER_HEAD.unpack_from(data, at)
    return value, size, kind
