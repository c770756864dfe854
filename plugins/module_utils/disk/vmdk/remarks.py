# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is odd in a disk that can be read all the same: said as warnings, from what was read anyway."""

from __future__ import annotations

from ..model import SECTOR
from .descriptor import Descriptor
from .reader import Disk
from .report import Report
from .sparse import SparseExtent
from .structs import FLAG_NEWLINE, FLAG_ZERO_GRAIN, GD_AT_END, NEWLINES, SparseHeader

_FORMATS = {"1", "2", "3"}
#: Where the cylinders of a large disk end (ATA).
_MAX_CYLINDERS = 16383


def remarks(disk: Disk, report: Report) -> None:
    """Add to C(report) what is odd in the descriptor and the headers of C(disk)."""
    d = disk.info.descriptor
    if d is not None:
        _keys(d, disk, report)
    for part in disk.parts:
        if isinstance(part, SparseExtent):
            _header(part.header, part.file.path, disk.info.embedded, report)


def _keys(d: Descriptor, disk: Disk, report: Report) -> None:
    path = disk.info.path
    low = {k.lower(): v for k, v in d.values.items()}
    if "cid" not in low:
        report.add("the descriptor has no CID: a snapshot cannot tell whether this disk is its parent", "warning", path=path)
    if "parentcid" not in low:
        report.add("the descriptor has no parentCID; the disk is read as one without a parent", "warning", path=path)
    version = low.get("version")
    if version is None or version not in _FORMATS:
        report.add("the descriptor's version is missing or not known", "warning", path=path, found=version, expected="1 to 3")
    if d.adapter_type is None:
        report.add("the descriptor names no adapter (ddb.adapterType)", "warning", path=path)
    _geometry(d, disk.capacity, path, report)


def _geometry(d: Descriptor, capacity: int, path: str, report: Report) -> None:
    numbers: list[int] = []
    for name in ("cylinders", "heads", "sectors"):
        value = d.ddb.get("geometry." + name)
        if value is None:
            return
        if not (value.isascii() and value.isdigit() and len(value) < 16):
            report.add("the descriptor's geometry is not a number", "warning", path=path, found=value)
            return
        numbers.append(int(value))
    cylinders, heads, sectors = numbers
    size = cylinders * heads * sectors * SECTOR
    track = heads * sectors * SECTOR
    if track and cylinders < _MAX_CYLINDERS and abs(capacity - size) > max(2 * track, capacity // 50):
        report.add(
            "the descriptor's geometry is that of a disk of another size: the disk was resized, or the descriptor was changed",
            "warning",
            path=path,
            found=f"{cylinders} x {heads} x {sectors}, {size} bytes",
            expected=f"about {capacity} bytes",
        )


def _header(h: SparseHeader, path: str, embedded: bool, report: Report) -> None:
    if not h.flags & FLAG_NEWLINE:
        report.add("the header does not say that its newline bytes are to be checked", "warning", path=path, offset=8, found=hex(h.flags))
        if h.newlines != NEWLINES:
            report.add("the newline bytes are not those of a VMDK", "warning", path=path, offset=73, found=h.newlines.hex())
    if h.flags & FLAG_ZERO_GRAIN and h.version == 1:
        report.add("the header allows for zero grains, which version 1 does not know", "warning", path=path, offset=8, found=hex(h.flags))
    if h.redundant and not h.rgd_offset:
        report.add("the header says that there is a redundant grain directory, but not where", "warning", path=path, offset=48, found=0)
    if not h.redundant and 0 < h.rgd_offset < GD_AT_END and not h.compressed:
        report.add(
            "the header has a redundant grain directory, but its flag says that there is none",
            "warning",
            path=path,
            offset=8,
            found=hex(h.flags),
        )
    first = max(1, h.descriptor_offset + h.descriptor_sectors if embedded else 1)
    if h.capacity_sectors and h.overhead < first:
        report.add(
            "the header lets the grains begin inside of the metadata (overHead, sectors)",
            "warning",
            path=path,
            offset=64,
            found=h.overhead,
            expected=f"at least {first}",
        )
