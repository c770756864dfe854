# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every inconsistency of a damaged disk file with its place, not only the first; and whether its data can be saved."""

from __future__ import annotations

from typing import Any, Iterable

from ..errors import FerryError, VmdkError
from ..model import SECTOR
from . import descriptor as text
from .container import open_source
from .descriptor import Descriptor, ExtentLine
from .files import Folder, RawFile
from .flat import FlatExtent
from .reader import UNSUPPORTED, sniff
from .report import Report
from .salvage import find_headers, open_salvaged
from .sparse import SparseExtent
from .structs import (
    GD_AT_END,
    MAGIC,
    MAX_DESCRIPTOR,
    SparseHeader,
    header_faults,
    parse_header,
)
from .symptoms import plain_tables, stream_markers

#: A damaged file of this size, of a disk of this size, is salvaged on trial even where not every grain was asked for.
_TRIAL = 64 << 20
_TRIAL_CAPACITY = 8 << 30
_FIELDS = {
    "version": 4,
    "flags": 8,
    "capacity_sectors": 12,
    "grain_sectors": 20,
    "descriptor_offset": 28,
    "descriptor_sectors": 36,
    "gtes_per_gt": 44,
    "compression": 77,
}


def examine(path: str, error: VmdkError, report: Report, *, allow_extents: Iterable[str] = (), deep: bool = False) -> None:
    """Add all that is wrong with the disk C(path), which was refused with C(error), to C(report)."""
    if error.code == UNSUPPORTED:
        report.error(error, "unsupported")
        return
    try:
        file, folder = open_source(path, allow=allow_extents)
        try:
            kind = sniff(file.read(0, min(4096, file.size)))
            if kind == "descriptor":
                _split(file, folder, report, deep)
            elif kind == "sparse" or (kind == "raw" and find_headers(file)[1] is not None):
                sparse_file(file, report, deep=deep)
        finally:
            file.close()
    except VmdkError as e:
        report.error(e)
    if not report.damaged:
        report.error(error)


def salvage_verdict(path: str, capacity: int, *, allow_extents: Iterable[str] = (), deep: bool = False) -> dict[str, Any]:
    """Whether data of the damaged disk C(path) can be saved, which claims to have C(capacity) bytes.

    :param deep: try it whatever the file's size.
    :returns: possible, how (a sentence), lost_bytes (None where it was not tried), lost (at most 100 ranges).
    """
    try:
        file, _folder = open_source(path, allow=allow_extents)
        size = file.size
        file.close()
        if not deep and (size > _TRIAL or capacity > _TRIAL_CAPACITY):
            return {
                "possible": True,
                "how": "vmdk_convert with salvage: true; with deep: true it is tried here",
                "lost_bytes": None,
                "lost": [],
            }
        disk, lost = open_salvaged(path, allow_extents=allow_extents)
        capacity = disk.capacity
        disk.close()
    except FerryError as e:
        return {"possible": False, "how": e.message.partition(" [")[0], "lost_bytes": None, "lost": []}
    gone = sum(r["length"] for r in lost)
    how = f"vmdk_convert with salvage: true writes the disk; of {capacity} bytes {gone} are lost or not proven"
    return {"possible": True, "how": how, "lost_bytes": gone, "lost": lost[:100]}


def sparse_file(file: RawFile, report: Report, *, deep: bool, line: ExtentLine | None = None) -> None:
    """Everything wrong in the sparse file C(file); C(line) is the extent line of another file's descriptor that names it."""
    path = file.path
    header, footer = find_headers(file)
    try:
        h = parse_header(file.read(0, min(SECTOR, file.size)), path)
        for fault in header_faults(h, path):
            report.error(fault)
    except VmdkError as e:
        report.error(e)
        if footer is None:
            return
        report.add("the header is lost, but the footer is sound", "warning", path=path, offset=0)
        h = footer
    wanted_footer = h.gd_offset == GD_AT_END
    if header is not None and (footer is not None or wanted_footer) and h.compressed:
        _footer(file, h, footer, report)
    best = footer if footer is not None and wanted_footer and footer.gd_offset != GD_AT_END else header
    _positions(file, h, report)
    if line is None:
        _embedded(file, h, report)
    elif line.sectors != h.capacity_sectors:
        report.add(
            "The extent's header and the descriptor's extent line differ in size (sectors).",
            path=path,
            offset=12,
            found=h.capacity_sectors,
            expected=line.sectors,
        )
    if h.unclean:
        report.add("the file was not closed cleanly (uncleanShutdown is set)", "warning", path=path, offset=72, found=h.unclean, expected=0)
    if best is None:
        best = footer
    if best is None or not best.capacity_sectors:
        return
    if best.compressed:
        stream_markers(file, best, report, deep=deep)
    else:
        plain_tables(file, best, report)


def _footer(file: RawFile, h: SparseHeader, footer: SparseHeader | None, report: Report) -> None:
    if footer is None:
        report.add(
            "The stream is truncated: it has no footer at its end.",
            path=file.path,
            offset=max(0, file.size - 3 * SECTOR),
            expected="footer marker, footer, end of stream",
        )
        return
    place = _place_of_footer(file)
    for name, at in _FIELDS.items():
        ours, theirs = getattr(h, name), getattr(footer, name)
        if ours != theirs:
            report.add(f"Header and footer differ in {name}.", path=file.path, offset=place + at, found=theirs, expected=ours)
    if footer.gd_offset == GD_AT_END:
        report.add("The footer points to another footer.", path=file.path, offset=place + 56)
    elif h.gd_offset not in (GD_AT_END, footer.gd_offset):
        report.add(
            "Header and footer name different grain directories (sectors).",
            path=file.path,
            offset=place + 56,
            found=footer.gd_offset,
            expected=h.gd_offset,
        )
    if place + 2 * SECTOR < file.size:
        tail = file.read(place + 2 * SECTOR, min(file.size - place - 2 * SECTOR, 1 << 20))
        if any(tail):
            report.add(
                "Bytes follow the end of the stream.",
                path=file.path,
                offset=place + 2 * SECTOR,
                found=f"{file.size - place - 2 * SECTOR} bytes",
                expected="none",
            )


def _place_of_footer(file: RawFile) -> int:
    start = max(SECTOR, (file.size - (1 << 20)) // SECTOR * SECTOR)
    tail = file.read(start, file.size - start)
    at = tail.rfind(MAGIC)
    while at > 0 and at % SECTOR:
        at = tail.rfind(MAGIC, 0, at)
    return start + max(at, 0)


def _positions(file: RawFile, h: SparseHeader, report: Report) -> None:
    """Fields of the header that need the file's size."""
    limit = -(-file.size // SECTOR)
    places = [("descriptor", 28, h.descriptor_offset, h.descriptor_sectors), ("grains (overHead)", 64, h.overhead, 0)]
    if h.gd_offset != GD_AT_END:
        places.append(("grain directory", 56, h.gd_offset, 1))
    if h.redundant:
        places.append(("redundant grain directory", 48, h.rgd_offset, 1))
    for name, at, place, length in places:
        if place + length > limit:
            report.add(
                f"The header's place of the {name} lies past the end of the file (sectors).",
                path=file.path,
                offset=at,
                found=place,
                expected=f"at most {limit - length}",
            )
    if h.overhead < h.descriptor_offset + h.descriptor_sectors <= limit:
        report.add(
            "The header lets the grains begin inside of the descriptor (overHead, sectors).",
            "warning",
            path=file.path,
            offset=64,
            found=h.overhead,
            expected=h.descriptor_offset + h.descriptor_sectors,
        )


def _embedded(file: RawFile, h: SparseHeader, report: Report) -> None:
    begin = h.descriptor_offset * SECTOR
    if not h.descriptor_offset or not h.descriptor_sectors:
        report.add(
            "The file has no embedded descriptor: it is one extent of a split disk, or its header is damaged.", path=file.path, offset=28
        )
        return
    if begin >= file.size:
        return
    data = file.read(begin, min(h.descriptor_sectors * SECTOR, MAX_DESCRIPTOR, file.size - begin), "embedded descriptor")
    try:
        d = text.parse(data, file.path, offset=begin, embedded=True)
    except VmdkError as e:
        report.error(e)
        return
    if len(d.extents) != 1 or d.extents[0].type != "SPARSE":
        found = ", ".join(f"{e.type} {e.name}" for e in d.extents[:3]) or "none"
        report.add("The embedded descriptor must name one SPARSE extent, this file.", path=file.path, offset=begin, found=found)
    elif d.extents[0].sectors != h.capacity_sectors:
        report.add(
            "The header and the descriptor's extent line differ in size (sectors).",
            path=file.path,
            offset=12,
            found=h.capacity_sectors,
            expected=d.extents[0].sectors,
        )
    for remark in d.problems:
        report.add(remark, "warning", path=file.path, offset=begin)


def _split(file: RawFile, folder: Folder, report: Report, deep: bool) -> None:
    if file.size > MAX_DESCRIPTOR:
        report.add("The descriptor is too long.", path=file.path, found=file.size, expected=f"at most {MAX_DESCRIPTOR}")
        return
    d = text.parse(file.read(0, file.size, "descriptor"), file.path)
    if not d.extents:
        report.add("The descriptor names no extent.", path=file.path)
    seen: dict[tuple[int, int], str] = {}
    for line in d.extents:
        if report.full:
            return
        if line.access == "NOACCESS":
            report.add("An extent is marked NOACCESS.", path=file.path, found=f"line {line.line}")
        elif line.type in ("FLAT", "VMFS", "SPARSE"):
            _extent(line, d, folder, seen, report, deep)


def _extent(line: ExtentLine, d: Descriptor, folder: Folder, seen: dict[tuple[int, int], str], report: Report, deep: bool) -> None:
    try:
        file = folder.open(line.names)
    except VmdkError as e:
        # The folder is that of the whole disk: the line tells one missing file from the next.
        report.add(f"{e.message.partition(' [')[0]} (line {line.line}: {line.name[:80]})", path=folder.head, found=line.name)
        return
    try:
        if line.type == "SPARSE":
            if file.key in seen:
                report.add("Two extent lines name the same bytes.", path=folder.head, found=f"line {line.line}: {line.name}")
            seen[file.key] = line.name
            try:
                extent = SparseExtent(file, line.sectors)
                extent.check()
            except VmdkError:
                sparse_file(file, report, deep=deep, line=line)
        else:
            FlatExtent(file, line.offset * SECTOR, line.sectors * SECTOR)
    except VmdkError as e:
        report.error(e)
    finally:
        file.close()
