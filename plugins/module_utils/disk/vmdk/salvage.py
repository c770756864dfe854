# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Data saved from a damaged VMDK, with a map of what is lost: never a guess in silence."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from typing import Iterable, Iterator

from ..errors import VmdkError
from ..model import SECTOR, Extent, Kind, merge
from . import descriptor as text
from .base import cores, ordered, read_unit, units
from .chain import AnyExtent
from .compress import inflate
from .container import open_source
from .descriptor import Descriptor, ExtentLine
from .files import MISSING, Folder, RawFile
from .flat import FlatExtent, ZeroExtent
from .lenient import Copies, PlainTables
from .lost import Lost, LostRange, merged
from .reader import UNSUPPORTED, Disk, DiskInfo, fill, open_disk, printable, refuse_kind, sniff
from .rescue import StreamIndex
from .sparse import SparseExtent
from .structs import GD_AT_END, GRAIN_MARKER, GTES_PER_GT, MAGIC, MAX_DESCRIPTOR, MAX_SECTORS, SparseHeader, unpack_header

#: How far before the end of a stream its footer is looked for, where bytes follow it.
_SEARCH = 1 << 20
_NO_PARENT = re.compile(rb"parentcid\s*=\s*\"?ffffffff", re.I)
_LINE = re.compile(rb"\b(?:RW|RDONLY)[ \t]+([0-9]{1,15})[ \t]+SPARSE\b", re.I)
_COMPARED = ("version", "flags", "capacity_sectors", "grain_sectors", "descriptor_offset", "descriptor_sectors", "compression")


class SavedSparse:
    """A sparse extent read by what is left of its tables and markers; what is lost reads as zeroes."""

    def __init__(self, file: RawFile, header: SparseHeader, index: PlainTables | StreamIndex) -> None:
        self.file = file
        self.header = header
        self.index = index
        self.capacity = header.capacity
        self.problems: list[str] = []
        self._lock = threading.Lock()
        self._last: tuple[int, bytes] = (-1, b"")

    @property
    def allocated(self) -> int:
        """Bytes of disk that were found."""
        return sum(e.length for e in self.extents() if e.kind is Kind.DATA)

    def check(self) -> None:
        """Nothing: what is wrong was found when it was opened."""

    def _row(self, number: int) -> list[int]:
        with self._lock:
            return self.index.row(number)[0].tolist()

    def extents(self) -> Iterator[Extent]:
        return merge(self._raw_extents())

    def _raw_extents(self) -> Iterator[Extent]:
        grain = self.header.grain
        done = 0
        used = self.index.used() if isinstance(self.index, StreamIndex) else self.index.copies.used()
        for number in used:
            base = number * GTES_PER_GT * grain
            yield Extent(done, base - done, Kind.HOLE)
            for i, at in enumerate(self._row(number)[: self.index.copies.left(number)]):
                start = base + i * grain
                yield Extent(start, min(grain, self.capacity - start), Kind.DATA if at > 1 else Kind.ZERO if at else Kind.HOLE)
            done = min(base + GTES_PER_GT * grain, self.capacity)
        yield Extent(done, self.capacity - done, Kind.HOLE)

    def read(self, offset: int, length: int) -> bytes:
        grain = self.header.grain
        parts: list[bytes] = []
        end = offset + length
        row: list[int] = []
        while offset < end:
            index, skip = divmod(offset, grain)
            number, at = divmod(index, GTES_PER_GT)
            if not row or not at:
                row = self._row(number)
            count = min(grain - skip, end - offset)
            parts.append(self._piece(row[at], index, skip, count) if row[at] > 1 else bytes(count))
            offset += count
            if offset // grain // GTES_PER_GT != number:
                row = []
        return b"".join(parts)

    def _piece(self, at: int, index: int, skip: int, count: int) -> bytes:
        if not self.header.compressed:
            begin = at * SECTOR + skip
            there = max(0, min(count, self.file.size - begin))
            return (self.file.read(begin, there, "grain") if there else b"") + bytes(count - there)
        last, grain = self._last
        if last != index:
            place = at * SECTOR
            _lba, size = GRAIN_MARKER.unpack(self.file.read(place, GRAIN_MARKER.size, "grain marker"))
            body = self.file.read(place + GRAIN_MARKER.size, min(size, self.header.grain * 2), "grain")
            left = self.capacity - index * self.header.grain
            grain = inflate(body, self.header.grain, min(self.header.grain, left), self.file.path, place)
            self._last = (index, grain)
        return grain[skip : skip + count]

    def close(self) -> None:
        self.file.close()


def prove(disk: Disk) -> None:
    """Check all tables of C(disk), and decode every compressed grain; VmdkError names the first that is damaged."""
    disk.check()
    if any(isinstance(p, SparseExtent) and p.header.compressed for p in disk.parts):
        for _length in ordered(lambda unit: len(read_unit(disk, unit)), units(disk), cores()):
            continue


def open_salvaged(path: str, *, allow_extents: Iterable[str] = ()) -> tuple[Disk, list[LostRange]]:
    """The VMDK C(path), damaged or not, as a disk, and the ranges of it that are lost or not proven.

    A lost range reads as zeroes, or as the bytes that are left; its C(reason) says which. A sound disk is itself, and nothing
    is lost. Every compressed grain is decoded once, before this returns.

    :param allow_extents: files or folders outside the descriptor's folder that it may name.
    :raises VmdkError: where nothing can be told of the disk (no capacity is known, no byte of it was found), where it is of a
        kind that is not supported, and for names that are not to be opened.
    """
    allow = list(allow_extents)
    try:
        disk = open_disk(path, allow_extents=allow)
    except VmdkError as e:
        if e.code == UNSUPPORTED:
            raise
        return _save(path, allow, e)
    try:
        prove(disk)
    except VmdkError as e:
        disk.close()
        return _save(path, allow, e)
    except BaseException:
        disk.close()
        raise
    return disk, []


def _save(path: str, allow: list[str], error: VmdkError) -> tuple[Disk, list[LostRange]]:
    file, folder = open_source(path, allow=allow)
    try:
        kind = sniff(file.read(0, min(4096, file.size)))
        if kind == "descriptor":
            return _save_split(file, folder)
        if kind in ("cowd", "sesparse", "qcow2", "gzip"):
            raise error
        return _save_embedded(file, error)
    except BaseException:
        file.close()
        raise


def find_headers(file: RawFile) -> tuple[SparseHeader | None, SparseHeader | None]:
    """(header, footer) of a sparse file, each None where it cannot be believed; the footer is looked for in the last MiB."""
    header = footer = None
    try:
        header = unpack_header(file.read(0, min(SECTOR, file.size)), file.path)
    except VmdkError:
        header = None
    start = max(SECTOR, (file.size - _SEARCH) // SECTOR * SECTOR)
    tail = file.read(start, file.size - start) if file.size > start else b""
    at = tail.rfind(MAGIC)
    while at >= 0 and footer is None:
        if at % SECTOR == 0:
            try:
                footer = unpack_header(tail[at : at + SECTOR], file.path, start + at)
            except VmdkError:
                footer = None
        at = tail.rfind(MAGIC, 0, at)
    return header, footer if footer is not None and footer.compressed else None


def _candidates(file: RawFile, error: VmdkError) -> list[SparseHeader]:
    """Headers to try, the likeliest first: one, where header and footer agree or only one of them is left."""
    header, footer = find_headers(file)
    if header is None and footer is None:
        raise VmdkError(f"Nothing can be saved: {error.message.partition(' [')[0]}", path=file.path, offset=0) from error
    if header is None or footer is None:
        only = header or footer
        return [only] if only is not None else []
    if not header.compressed:
        return [header]
    if any(getattr(header, name) != getattr(footer, name) for name in _COMPARED):
        return [header, footer]
    return [footer if header.gd_offset == GD_AT_END and footer.gd_offset != GD_AT_END else header]


def read_descriptor(file: RawFile, header: SparseHeader) -> tuple[Descriptor | None, bytes]:
    """The embedded descriptor (None where it is damaged) and the bytes at its place."""
    data = b""
    # Where the header's word is damaged, the descriptor is where all makers put it: in the second sector.
    for begin, size in ((header.descriptor_offset * SECTOR, header.descriptor_sectors * SECTOR), (SECTOR, 20 * SECTOR)):
        if 0 < begin < file.size:
            data = file.read(begin, min(size, file.size - begin), "embedded descriptor")
            try:
                return text.parse(data, file.path, offset=begin, embedded=True), data
            except VmdkError:
                continue
    return None, data


def _said_by_line(data: bytes) -> int:
    """Sectors in the extent line of a descriptor that is damaged elsewhere; 0 where there is none."""
    found = _LINE.findall(data)
    return int(found[0]) if len(found) == 1 and int(found[0]) <= MAX_SECTORS else 0


def _index(file: RawFile, header: SparseHeader) -> PlainTables | StreamIndex:
    if not header.compressed:
        return PlainTables(Copies(file, header))
    first = file.read(0, min(SECTOR, file.size))
    try:
        at_end = unpack_header(first, file.path).gd_offset == GD_AT_END
    except VmdkError:
        at_end = True
    return StreamIndex(file, header, sequential=at_end)


def _found(index: PlainTables | StreamIndex) -> int:
    """Tables with a grain."""
    return len(index.used()) if isinstance(index, StreamIndex) else sum(1 for _n in index.copies.used())


def _beyond(index: PlainTables | StreamIndex) -> bool:
    """True where a table has grains beyond the capacity."""
    last = index.copies.count - 1
    return last >= 0 and any(any(row[index.copies.left(last) :]) for row in index.copies.rows(last))


def _save_embedded(file: RawFile, error: VmdkError) -> tuple[Disk, list[LostRange]]:
    tried = []
    for header in _candidates(file, error):
        d, data = read_descriptor(file, header)
        if d is not None:
            _refuse(d, file.path)
        line = sum(e.sectors for e in d.extents) if d is not None else _said_by_line(data) or header.capacity_sectors
        part, lost = _sparse(file, header, line)
        agrees = d is not None and line == header.capacity_sectors
        tried.append((part, lost, d, data, agrees, _found(part.index)))
    part, lost, d, data, _agrees, found = max(tried, key=lambda t: (t[4], t[5]))
    if not part.capacity or not found:
        why = "no grain of the disk was found" if part.capacity else "no capacity is known"
        raise VmdkError(f"Nothing can be saved: {why}.", path=file.path) from error
    if d is None and _beyond(part.index):
        raise VmdkError("Nothing can be saved: the descriptor is lost, and the header's capacity is not true.", path=file.path) from error
    if d is None and not _said_by_line(data) and None in find_headers(file):
        end = max((e.end for e in part.extents() if e.kind is Kind.DATA), default=0)
        lost = _unsure(lost, end, part.capacity, "not proven: the size is told by one header alone")
    if d is None and not _NO_PARENT.search(data):
        lost = _with_holes(part, lost, "empty here; whether a parent disk holds it cannot be told: the descriptor is damaged")
    info = DiskInfo(file.path, "vmdk", embedded=True)
    info.create_type = "streamOptimized" if part.header.compressed else "monolithicSparse"
    info.descriptor_text = printable(data)
    if d is not None:
        fill(info, d)
    return Disk(info, [part], []), merged(lost)


def _sparse(file: RawFile, header: SparseHeader, line: int) -> tuple[SavedSparse, list[LostRange]]:
    """The sparse extent C(file) of C(line) sectors after the descriptor: what both say is proven, what one says is not."""
    sure = min(header.capacity_sectors, line) * SECTOR
    header = replace(header, capacity_sectors=max(header.capacity_sectors, line))
    part = SavedSparse(file, header, _index(file, header))
    lost = part.index.lost().ranges
    if sure < header.capacity:
        lost = _unsure(lost, sure, header.capacity, "not proven: header and descriptor do not agree on the size")
    return part, lost


def _unsure(lost: list[LostRange], start: int, end: int, reason: str) -> list[LostRange]:
    """C(lost) up to C(start), and from there to C(end) everything."""
    out = Lost()
    for r in lost:
        out.add(r["start"], min(r["length"], start - r["start"]), r["reason"])
    out.add(start, end - start, reason)
    return out.ranges


def _with_holes(part: SavedSparse, lost: list[LostRange], reason: str) -> list[LostRange]:
    """C(lost) with all that is empty in C(part) added."""
    holes: list[LostRange] = [{"start": e.start, "length": e.length, "reason": reason} for e in part.extents() if e.kind is not Kind.DATA]
    out = Lost()
    at = 0
    for r in sorted([*lost, *holes], key=lambda r: (r["start"], r["reason"] == reason)):
        end = r["start"] + r["length"]
        out.add(max(at, r["start"]), end - max(at, r["start"]), r["reason"])
        at = max(at, end)
    return out.ranges


def _refuse(d: Descriptor, path: str) -> None:
    refuse_kind(d, path)
    if d.is_delta:
        raise VmdkError(
            "A delta cannot be salvaged: without a sound chain nothing tells what its parent holds.", path=path, code=UNSUPPORTED
        )


def _save_split(file: RawFile, folder: Folder) -> tuple[Disk, list[LostRange]]:
    if file.size > MAX_DESCRIPTOR:
        raise VmdkError("The descriptor is too long.", path=file.path, found=file.size, expected=f"at most {MAX_DESCRIPTOR}")
    data = file.read(0, file.size, "descriptor")
    d = text.parse(data, file.path)
    _refuse(d, file.path)
    info = DiskInfo(file.path, "vmdk", descriptor_text=printable(data))
    fill(info, d)
    parts: list[AnyExtent] = []
    lost: list[LostRange] = []
    seen: dict[tuple[int, int], list[tuple[int, int]]] = {}
    at = 0
    try:
        for line in d.extents:
            found, gone = _save_extent(line, d, folder, seen)
            parts.extend(found)
            lost.extend({"start": r["start"] + at, "length": r["length"], "reason": r["reason"]} for r in gone)
            at += line.sectors * SECTOR
        if not any(p.file is not None for p in parts):
            raise VmdkError("Nothing can be saved: no extent of the disk is left.", path=file.path)
        return Disk(info, parts, [file]), merged(lost)
    except BaseException:
        for part in parts:
            part.close()
        raise


def _save_extent(
    line: ExtentLine, d: Descriptor, folder: Folder, seen: dict[tuple[int, int], list[tuple[int, int]]]
) -> tuple[list[AnyExtent], list[LostRange]]:
    size = line.sectors * SECTOR
    if line.access == "NOACCESS" or line.type not in ("FLAT", "VMFS", "ZERO", "SPARSE") or (line.type == "SPARSE" and line.offset):
        raise VmdkError("An extent line cannot be salvaged.", path=folder.head, found=f"line {line.line}: {line.access} {line.type}")
    if line.type == "ZERO":
        return [ZeroExtent(size)], []
    file = _open(line, folder)
    if file is None:
        return [ZeroExtent(size)], [{"start": 0, "length": size, "reason": f"the extent {line.name[:80]} is missing"}]
    try:
        begin = line.offset if line.type != "SPARSE" else 0
        ranges = seen.setdefault(file.key, [])
        if any(begin < e and b < begin + line.sectors for b, e in ranges):
            raise VmdkError("Two extent lines name the same bytes.", path=folder.head, found=line.name)
        ranges.append((begin, begin + line.sectors))
        if line.type == "SPARSE":
            return _save_sparse(file, line)
        there = max(0, min(size, file.size - begin * SECTOR))
        if there == size:
            return [FlatExtent(file, begin * SECTOR, size)], []
        gone: list[LostRange] = [{"start": there, "length": size - there, "reason": "past the end of the file, which is cut"}]
        return [FlatExtent(file, begin * SECTOR, there) if there else _closed(file), ZeroExtent(size - there)], gone
    except BaseException:
        file.close()
        raise


def _closed(file: RawFile) -> ZeroExtent:
    file.close()
    return ZeroExtent(0)


def _open(line: ExtentLine, folder: Folder) -> RawFile | None:
    """The file of C(line), None where it is missing; VmdkError where it is not to be opened."""
    try:
        return folder.open(line.names)
    except VmdkError as e:
        if e.code == MISSING:
            return None
        raise


def _save_sparse(file: RawFile, line: ExtentLine) -> tuple[list[AnyExtent], list[LostRange]]:
    size = line.sectors * SECTOR
    try:
        extent = SparseExtent(file, line.sectors)
        prove(Disk(DiskInfo(file.path, "vmdk"), [extent], []))
        return [extent], []
    except VmdkError as e:
        fault = e
    try:
        header = next(iter(_candidates(file, fault)))
        part, lost = _sparse(file, replace(header, capacity_sectors=min(header.capacity_sectors, line.sectors)), line.sectors)
    except VmdkError:
        file.close()
        return [ZeroExtent(size)], [{"start": 0, "length": size, "reason": f"nothing can be read of the extent {line.name[:80]}"}]
    return [part], lost
