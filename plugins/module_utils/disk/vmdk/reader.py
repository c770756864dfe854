# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Any VMDK as a disk: capacity, extents, ranges. It is a Source of the data plane."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, Iterable, Iterator, Sequence

from ..controllers import find
from ..errors import VmdkError
from ..model import SECTOR, Extent, Kind, merge
from ..sources.file import data_ranges
from . import chain
from . import descriptor as text
from .chain import AnyExtent
from .container import open_raw_file, open_source
from .cowd import CowdExtent
from .descriptor import Descriptor, ExtentLine
from .files import Folder, RawFile
from .flat import FlatExtent, ZeroExtent
from .sequence import in_sequence
from .sesparse import SeSparseExtent
from .sparse import SparseExtent
from .structs import MAGIC, MAGIC_COWD, MAGIC_SESPARSE, MAX_DESCRIPTOR, SparseHeader

_FLAT = frozenset({"FLAT", "VMFS", "ZERO"})
_SPARSE = frozenset({"SPARSE", "ZERO"})
_COWD = frozenset({"VMFSSPARSE", "ZERO"})
_SESPARSE = frozenset({"SESPARSE", "ZERO"})
#: Grain tables (2 KiB) that a disk of many extents keeps.
_CACHED_TABLES = 8192
#: Types of extent lines that fit a createType; _FLAT where it is not named.
_ALLOWED = {"custom": _FLAT | _SPARSE, "vmfsSparse": _COWD, "seSparse": _SESPARSE, "vmfsSESparse": _SESPARSE} | dict.fromkeys(
    text.SPARSE_TYPES, _SPARSE
)


@dataclass
class DiskInfo:
    """What a file says of itself; bytes where not said otherwise. C(format) is vmdk or raw."""

    path: str
    format: str
    create_type: str | None = None
    capacity: int = 0
    adapter_type: str | None = None
    hw_version: int | None = None
    descriptor: Descriptor | None = None
    descriptor_text: str | None = None
    embedded: bool = False
    #: Paths of the disk and of the parents that it hangs on, top first.
    chain: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Disk:
    """An opened disk, with its parents. C(info) says what it is; C(read) may be called from several threads."""

    def __init__(self, info: DiskInfo, parts: Sequence[AnyExtent], files: Sequence[RawFile], parent: Disk | None = None) -> None:
        self.info = info
        self.parent = parent
        self.parts = list(parts)
        self._files = list(files)
        self._starts: list[int] = []
        at = 0
        for part in self.parts:
            self._starts.append(at)
            at += part.capacity
        self.capacity = at
        info.capacity = at
        info.chain = [info.path, *(parent.info.chain if parent else [])]
        states = [f.identity for f in self._mine()] + ([parent.identity] if parent else [])
        self.identity: str = "vmdk:" + hashlib.sha256("\n".join(states).encode()).hexdigest()[:32]

    @property
    def allocated(self) -> int:
        """Bytes that are stored: grains in sparse extents, blocks in flat ones; those of the parents too."""
        return sum(p.allocated for p in self.parts) + (self.parent.allocated if self.parent else 0)

    @property
    def problems(self) -> list[str]:
        """Remarks of the descriptor and of all extents so far; those of the tables are there after extents() or check()."""
        below = [f"{os.path.basename(self.info.chain[1])}: {p}" for p in self.parent.problems] if self.parent else []
        return [*self.info.problems, *(p for part in self.parts for p in part.problems), *below]

    def files(self) -> list[RawFile]:
        """All files on disk behind the disk and its parents."""
        return [origin for file in self._mine() for origin in file.origins()] + (self.parent.files() if self.parent else [])

    def _mine(self) -> list[RawFile]:
        return [*self._files, *(p.file for p in self.parts if p.file is not None)]

    def check(self) -> None:
        """Check the tables of all extents; VmdkError names the first thing that cannot be."""
        for part in self.parts:
            part.check()
        if self.parent is not None:
            self.parent.check()

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        if since is not None:
            raise VmdkError("A VMDK file has no changed areas.", path=self.info.path)
        return merge(self._shifted() if self.parent is None else chain.over(self._shifted(), self.parent))

    def _shifted(self) -> Iterator[Extent]:
        for start, part in zip(self._starts, self.parts, strict=True):
            for e in part.extents() if self.parent is None else chain.own(part):
                yield Extent(start + e.start, e.length, e.kind)

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset + length > self.capacity:
            raise VmdkError(
                "A read past the end of the disk.", path=self.info.path, found=offset + length, expected=f"at most {self.capacity}"
            )
        if not length:
            return b""
        index = bisect_right(self._starts, offset) - 1
        parts: list[bytes] = []
        wanted = length
        while length:
            part = self.parts[index]
            inside = offset - self._starts[index]
            count = min(length, part.capacity - inside)
            if count > 0:
                if self.parent is None:
                    parts.append(part.read(inside, count))
                else:
                    parts.extend(self._through(part, inside, count, self._starts[index]))
                offset += count
                length -= count
            index += 1
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(data) != wanted:
            raise VmdkError("An extent gave fewer bytes than asked.", path=self.info.path, found=len(data), expected=wanted)
        return data

    def read_into(self, offset: int, view: memoryview) -> None:
        """As C(read), into C(view), without new memory where the extent can."""
        index = bisect_right(self._starts, offset) - 1
        part = self.parts[index] if index >= 0 else None
        inside = offset - self._starts[index]
        into = getattr(part, "read_into", None)
        if self.parent is None and part is not None and into is not None and inside + len(view) <= part.capacity:
            into(inside, view)
        else:
            view[:] = self.read(offset, len(view))

    def _through(self, part: AnyExtent, inside: int, count: int, start: int) -> Iterator[bytes]:
        """Bytes of an extent that begins at C(start); what it does not hold is read from the parent."""
        for e in chain.pieces(part, inside, count):
            if e.kind is Kind.DATA:
                yield part.read(e.start, e.length)
            elif e.kind is Kind.ZERO or self.parent is None:
                yield bytes(e.length)
            else:
                yield chain.read_below(self.parent, start + e.start, e.length)

    def close(self) -> None:
        for part in self.parts:
            part.close()
        for file in self._files:
            file.close()
        if self.parent is not None:
            self.parent.close()

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *args: Any) -> None:
        self.close()


def sniff(head: bytes) -> str:
    """What the first bytes C(head) (4 KiB are enough) belong to: sparse, descriptor, cowd, sesparse, qcow2, gzip or raw."""
    if head[:4] == MAGIC:
        return "sparse"
    if head[:4] == MAGIC_COWD:
        return "cowd"
    if head[:8] == MAGIC_SESPARSE:
        return "sesparse"
    if head[:4] == b"QFI\xfb":
        return "qcow2"
    if head[:3] == b"\x1f\x8b\x08":
        return "gzip"
    return "descriptor" if text.is_descriptor(head) else "raw"


def open_raw(path: str) -> Disk:
    """The file or block device at C(path) as a raw disk."""
    file = open_raw_file(path)
    if file.size % SECTOR:
        size = file.size
        file.close()
        raise VmdkError("A raw disk must be a whole number of sectors of 512 bytes.", path=path, found=size)
    return Disk(DiskInfo(path, "raw"), [FlatExtent(file, 0, file.size)], [])


def open_disk(path: str, *, allow_extents: Iterable[str] = (), format: str = "vmdk") -> Disk:
    """Open the VMDK at C(path) (its descriptor, or the file that has one embedded), or a raw disk where C(format) is raw.

    :param allow_extents: files, devices or folders outside the descriptor's folder that it may name.
    :raises VmdkError: for whatever is damaged, not supported, or not to be opened.
    """
    if format == "raw":
        return open_raw(path)
    return open_from(*open_source(path, allow=allow_extents))


def open_from(file: RawFile, folder: Folder) -> Disk:
    """The VMDK whose head is C(file), from where C(folder) leads on; C(file) belongs to it, and is closed where it fails."""
    return _open(file, folder)


def _open(file: RawFile, folder: Folder, child: _Child | None = None) -> Disk:
    """The disk whose head is C(file), from where C(folder) leads on. It closes C(file), at once where it fails."""
    try:
        kind = sniff(file.read(0, min(4096, file.size)))
        if kind == "sparse":
            return _open_sparse(file, folder, child)
        if kind == "descriptor":
            return _open_descriptor(file, folder, child)
        raise _not_a_head(file, kind)
    except BaseException:
        file.close()
        raise


def _not_a_head(file: RawFile, kind: str) -> VmdkError:
    named = {
        "cowd": "This is a COWD extent (vmfsSparse, or a disk of before 2005): it has no descriptor inside. Name the disk's descriptor instead.",
        "sesparse": "This is a seSparse extent: it has no descriptor inside. Name the disk's descriptor instead.",
        "gzip": "The file is compressed with gzip: unpack it first.",
    }.get(kind)
    if named:
        return VmdkError(named, path=file.path, offset=0, code=UNSUPPORTED)
    hint = " It may be a flat extent: name its descriptor instead." if kind == "raw" and file.size >= 1 << 20 else ""
    return VmdkError(
        f"Not a VMDK.{hint}",
        path=file.path,
        offset=0,
        found="a qcow2 image" if kind == "qcow2" else file.read(0, min(16, file.size)).hex() or "an empty file",
        expected="KDMV or a descriptor",
    )


@dataclass(frozen=True)
class _Child:
    """The delta for which a parent is opened, and the heads above it."""

    descriptor: Descriptor
    path: str
    keys: tuple[tuple[int, int], ...]
    #: Extent lines and bytes of all descriptors so far.
    lines: int
    size: int


def _open_parent(d: Descriptor, file: RawFile, folder: Folder, child: _Child | None) -> Disk | None:
    """The parent of the disk with the descriptor C(d) in C(file); None where it has none."""
    if d.parent_cid == text.NO_PARENT:
        return None
    names = chain.hint_names(d, file.path)
    keys = (*(child.keys if child else ()), file.key)
    lines = len(d.extents) + (child.lines if child else 0)
    size = d.size + (child.size if child else 0)
    chain.check_length(len(keys), lines, size, file.path)
    below = folder.open(names, "parent")
    if below.key in keys:
        path = below.path
        below.close()
        raise VmdkError("The chain of parents is a circle.", path=file.path, found=path)
    return _open(below, folder.at(below), _Child(d, file.path, keys, lines, size))


def _assemble(
    info: DiskInfo, d: Descriptor, parts: Sequence[AnyExtent], files: Sequence[RawFile], file: RawFile, folder: Folder, child: _Child | None
) -> Disk:
    """The disk of C(parts), over its parent where it has one."""
    parent = _open_parent(d, file, folder, child)
    if parent is None:
        if d.create_type in text.DELTA_TYPES:
            info.problems.append(f"createType is {d.create_type}, but there is no parent; what the file does not hold reads as zeroes")
        return Disk(info, parts, files)
    size = sum(part.capacity for part in parts)
    if parent.capacity > size:
        found = parent.capacity
        parent.close()
        # No product makes such a delta: it is another disk's, or its size is damaged.
        raise VmdkError("The parent is larger than its delta (bytes).", path=file.path, found=found, expected=f"at most {size}")
    if parent.capacity < size:
        info.problems.append(f"the parent is smaller ({parent.capacity} bytes); what lies beyond its end reads as zeroes")
    return Disk(info, parts, files, parent)


#: Code of errors about disks that are sound as far as one can see, but of a kind that is not read.
UNSUPPORTED = "vmdk_unsupported"


def refuse_kind(d: Descriptor, path: str) -> None:
    """Name what is not supported, before anything else is opened."""
    what = None
    if d.encrypted:
        what = "The disk is encrypted; it has to be decrypted by vSphere first."
    elif d.create_type in text.DEVICE_TYPES:
        what = f"The disk is a raw device mapping ({d.create_type}); its data is on a device, not in files."
    elif d.create_type == "vsanSparse":
        what = "The disk is a delta of vSAN (vsanSparse); its data is in vSAN objects, not in files."
    if what:
        raise VmdkError(what, path=path, code=UNSUPPORTED)


def fill(info: DiskInfo, d: Descriptor) -> None:
    """Take over from the descriptor C(d) what a person asks for."""
    info.descriptor = d
    info.create_type = d.create_type
    info.problems.extend(d.problems)
    adapter = d.adapter_type
    if adapter is not None:
        known = find(adapter)
        info.adapter_type = known.name if known else adapter
        if known is None or known.ddb is None:
            info.problems.append(f"ddb.adapterType {adapter[:40]!r} is not known")
    version = d.hw_version
    if version is not None:
        if version.isascii() and version.isdigit() and len(version) < 5:
            info.hw_version = int(version)
        else:
            info.problems.append(f"ddb.virtualHWVersion {version[:40]!r} is not a number")


def printable(data: bytes) -> str:
    """A descriptor's bytes as text to show: up to the padding, undecodable bytes escaped."""
    return data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _open_sparse(file: RawFile, folder: Folder, child: _Child | None) -> Disk:
    extent = SparseExtent(file)
    info = DiskInfo(file.path, "vmdk")
    d = embedded(info, extent.descriptor_bytes(), extent.header)
    _believe(d, file.path, child)
    return _assemble(info, d, [extent], [], file, folder, child)


def embedded(info: DiskInfo, data: bytes | None, header: SparseHeader) -> Descriptor:
    """Take over into C(info) the descriptor C(data) inside of a sparse file with C(header); VmdkError where they do not fit."""
    path = info.path
    if data is None or not any(data):
        raise VmdkError(
            "This is one extent of a split disk: name the disk's descriptor instead.", path=path, offset=28, found="no descriptor"
        )
    info.embedded = True
    d = text.parse(data, path, offset=header.descriptor_offset * SECTOR, embedded=True)
    info.descriptor_text = printable(data)
    fill(info, d)
    refuse_kind(d, path)
    lines = d.extents
    if len(lines) != 1 or lines[0].type != "SPARSE":
        found = ", ".join(f"{e.type} {e.name}" for e in lines[:3]) or "none"
        raise VmdkError("The embedded descriptor must name one SPARSE extent, this file.", path=path, found=found)
    if lines[0].access == "NOACCESS":
        raise VmdkError("The extent is marked NOACCESS.", path=path)
    if d.create_type not in ("monolithicSparse", "streamOptimized", "twoGbMaxExtentSparse", "custom"):
        raise VmdkError("createType does not fit a sparse file.", path=path, found=d.create_type)
    if d.create_type == "streamOptimized" and not header.compressed:
        info.problems.append("createType is streamOptimized, but the grains are not compressed")
    if lines[0].sectors != header.capacity_sectors:
        raise VmdkError(
            "The header and the descriptor's extent line differ in size (sectors).",
            path=path,
            offset=12,
            found=header.capacity_sectors,
            expected=lines[0].sectors,
        )
    return d


def _believe(d: Descriptor, path: str, child: _Child | None) -> None:
    """Compare the CID of C(d) with what the delta over it says, before anything else is opened."""
    if child is not None:
        chain.check_cid(child.descriptor, d, child.path, path)


def _open_descriptor(file: RawFile, folder: Folder, child: _Child | None) -> Disk:
    if file.size > MAX_DESCRIPTOR:
        raise VmdkError("The descriptor is too long.", path=file.path, found=file.size, expected=f"at most {MAX_DESCRIPTOR}")
    data = file.read(0, file.size, "descriptor")
    d = text.parse(data, file.path)
    info = DiskInfo(file.path, "vmdk", descriptor_text=printable(data))
    fill(info, d)
    refuse_kind(d, file.path)
    _believe(d, file.path, child)
    if not d.extents:
        raise VmdkError("The descriptor names no extent.", path=file.path)
    in_sequence(d, folder)
    parts: list[AnyExtent] = []
    seen: dict[tuple[int, int], list[tuple[int, int]]] = {}
    try:
        for line in d.extents:
            part = _open_extent(line, d, folder)
            parts.append(part)
            if part.file is not None:
                _once(part, line, seen, file.path)
        for part in parts:
            if isinstance(part, SparseExtent) and part.tables is not None:
                part.tables.cached = min(part.tables.cached, max(2, _CACHED_TABLES // len(parts)))
        for flat in {p.file.key: p for p in parts if isinstance(p, FlatExtent)}.values():
            _nothing_beyond(flat, max((end for _begin, end in seen[flat.file.key]), default=0) * SECTOR)
        return _assemble(info, d, parts, [file], file, folder, child)
    except BaseException:
        for part in parts:
            part.close()
        raise


def _once(part: AnyExtent, line: ExtentLine, seen: dict[tuple[int, int], list[tuple[int, int]]], path: str) -> None:
    """Refuse a second use of the same bytes: an extent line twice makes another disk."""
    if part.file is None:
        return
    begin = line.offset if isinstance(part, FlatExtent) else 0
    ranges = seen.setdefault(part.file.key, [])
    if not line.sectors:
        return
    mine = (begin, begin + line.sectors)
    at = bisect_right(ranges, mine)
    if any(b < mine[1] and begin < e for b, e in ranges[max(at - 1, 0) : at + 1]):
        raise VmdkError("Two extent lines name the same bytes.", path=path, found=line.name)
    ranges.insert(at, mine)


def _nothing_beyond(part: FlatExtent, end: int) -> None:
    """Refuse a flat file that goes on with data after C(end), the last byte that the descriptor speaks of: a part of the disk would be lost."""
    file = part.file
    if file.device or file.size <= end:
        return
    part.problems.append(f"the flat file holds {file.size - end} bytes more than the descriptor says, all zero")
    for start, length in data_ranges(file.fd, file.size) if file.regular else [(0, file.size)]:
        at = max(start, end)
        while at < start + length:
            piece = file.read(at, min(1 << 20, start + length - at))
            if any(piece):
                raise VmdkError(
                    "The flat file goes on with data where the descriptor says that it ends.",
                    path=file.path,
                    offset=at,
                    found=file.size,
                    expected=end,
                )
            at += len(piece)


def _open_extent(line: ExtentLine, d: Descriptor, folder: Folder) -> AnyExtent:
    where = folder.head
    if line.access == "NOACCESS":
        raise VmdkError("An extent is marked NOACCESS.", path=where, found=f"line {line.line}")
    if line.type not in _ALLOWED.get(d.create_type, _FLAT):
        raise VmdkError(
            f"An extent of type {line.type} does not fit createType {d.create_type}, or is not supported.",
            path=where,
            found=f"line {line.line}",
        )
    if line.type == "ZERO":
        return ZeroExtent(line.sectors * SECTOR)
    if line.type != "FLAT" and line.offset:
        raise VmdkError(f"An offset in a {line.type} line is not supported.", path=where, found=line.offset, expected=0)
    if d.create_type in ("fullDevice", "partitionedDevice") and _is_device(line.name):
        raise VmdkError(
            "The disk is a device mapping; its data is on a device, not in files.", path=where, found=line.name, code=UNSUPPORTED
        )
    file = folder.open(line.names)
    try:
        if line.type == "SPARSE":
            return SparseExtent(file, line.sectors)
        if line.type == "VMFSSPARSE":
            return CowdExtent(file, line.sectors)
        if line.type == "SESPARSE":
            return SeSparseExtent(file, line.sectors)
        return FlatExtent(file, line.offset * SECTOR, line.sectors * SECTOR)
    except BaseException:
        file.close()
        raise


def _is_device(name: str) -> bool:
    return name.startswith(("/dev/", "\\\\.\\", "\\\\?\\")) or os.path.normpath(name).startswith("/dev/")
