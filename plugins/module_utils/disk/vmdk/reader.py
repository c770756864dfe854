# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Any VMDK as a disk: capacity, extents, ranges. It is a Source of the data plane."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, Iterable, Iterator, Sequence, TypeAlias

from ..controllers import find
from ..errors import VmdkError
from ..model import SECTOR, Extent, merge
from ..sources.file import data_ranges
from . import descriptor as text
from .descriptor import Descriptor, ExtentLine
from .files import Folder, RawFile
from .flat import FlatExtent, ZeroExtent
from .sparse import SparseExtent
from .structs import MAGIC, MAGIC_COWD, MAGIC_SESPARSE, MAX_DESCRIPTOR

AnyExtent: TypeAlias = "FlatExtent | SparseExtent | ZeroExtent"
_FLAT = frozenset({"FLAT", "VMFS", "ZERO"})
_SPARSE = frozenset({"SPARSE", "ZERO"})


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
    problems: list[str] = field(default_factory=list)


class Disk:
    """An opened disk. C(info) says what it is; C(read) may be called from several threads."""

    def __init__(self, info: DiskInfo, parts: Sequence[AnyExtent], files: Sequence[RawFile]) -> None:
        self.info = info
        self.parts = list(parts)
        self._files = list(files)
        self._starts: list[int] = []
        at = 0
        for part in self.parts:
            self._starts.append(at)
            at += part.capacity
        self.capacity = at
        info.capacity = at
        states = [f.identity for f in self.files()]
        self.identity = "vmdk:" + hashlib.sha256("\n".join(states).encode()).hexdigest()[:32]

    @property
    def allocated(self) -> int:
        """Bytes of the disk that are stored: grains in sparse extents, blocks in flat ones."""
        return sum(p.allocated for p in self.parts)

    @property
    def problems(self) -> list[str]:
        """Remarks of the descriptor and of all extents so far; those of the tables are there after extents() or check()."""
        return [*self.info.problems, *(p for part in self.parts for p in part.problems)]

    def files(self) -> list[RawFile]:
        """All files behind the disk."""
        return [*self._files, *(p.file for p in self.parts if p.file is not None)]

    def check(self) -> None:
        """Check the tables of all extents; VmdkError names the first thing that cannot be."""
        for part in self.parts:
            part.check()

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        if since is not None:
            raise VmdkError("A VMDK file has no changed areas.", path=self.info.path)
        return merge(self._shifted())

    def _shifted(self) -> Iterator[Extent]:
        for start, part in zip(self._starts, self.parts, strict=True):
            for e in part.extents():
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
        while length:
            part = self.parts[index]
            inside = offset - self._starts[index]
            count = min(length, part.capacity - inside)
            if count > 0:
                data = part.read(inside, count)
                if len(data) != count:
                    raise VmdkError("An extent gave fewer bytes than asked.", path=self.info.path, found=len(data), expected=count)
                parts.append(data)
                offset += count
                length -= count
            index += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        for part in self.parts:
            part.close()
        for file in self._files:
            file.close()

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *args: Any) -> None:
        self.close()


def sniff(head: bytes) -> str:
    """What the first bytes C(head) (4 KiB are enough) belong to: sparse, descriptor, cowd, sesparse, qcow2 or raw."""
    if head[:4] == MAGIC:
        return "sparse"
    if head[:4] == MAGIC_COWD:
        return "cowd"
    if head[:8] == MAGIC_SESPARSE:
        return "sesparse"
    if head[:4] == b"QFI\xfb":
        return "qcow2"
    return "descriptor" if text.is_descriptor(head) else "raw"


def open_raw(path: str) -> Disk:
    """The file or block device at C(path) as a raw disk."""
    file = RawFile(path, device_ok=True, what="disk")
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
    file = RawFile(path, what="VMDK")
    try:
        kind = sniff(file.read(0, min(4096, file.size)))
        if kind == "sparse":
            return _open_sparse(file)
        if kind == "descriptor":
            return _open_descriptor(file, allow_extents)
        named = {"cowd": "A COWD delta (vmfsSparse)", "sesparse": "A SEsparse delta"}.get(kind)
        if named:
            raise VmdkError(f"{named} is not a whole disk and is not supported yet.", path=path, offset=0, code=UNSUPPORTED)
        hint = " It may be a flat extent: name its descriptor instead." if kind == "raw" and file.size >= 1 << 20 else ""
        raise VmdkError(
            f"Not a VMDK.{hint}",
            path=path,
            offset=0,
            found="a qcow2 image" if kind == "qcow2" else file.read(0, min(16, file.size)).hex() or "an empty file",
            expected="KDMV or a descriptor",
        )
    except BaseException:
        file.close()
        raise


#: Code of errors about disks that are sound as far as one can see, but of a kind that is not read.
UNSUPPORTED = "vmdk_unsupported"


def refuse_kind(d: Descriptor, path: str) -> None:
    """Name what is not supported, before anything else is opened."""
    what = None
    if d.encrypted:
        what = "The disk is encrypted; it has to be decrypted by vSphere first."
    elif d.create_type in text.DEVICE_TYPES:
        what = f"The disk is a raw device mapping ({d.create_type}); its data is on a device, not in files."
    elif d.create_type in text.DELTA_TYPES or d.create_type == "vsanSparse":
        what = f"The disk is a delta ({d.create_type}) and is not supported yet."
    elif d.parent_cid != text.NO_PARENT:
        what = f"The disk is a delta that hangs on a parent (parentCID={d.parent_cid:08x}) and is not supported yet."
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


def _open_sparse(file: RawFile) -> Disk:
    extent = SparseExtent(file)
    info = DiskInfo(file.path, "vmdk", embedded=True)
    data = extent.descriptor_bytes()
    if data is None or not any(data):
        raise VmdkError(
            "This is one extent of a split disk: name the disk's descriptor instead.", path=file.path, offset=28, found="no descriptor"
        )
    d = text.parse(data, file.path, offset=extent.header.descriptor_offset * SECTOR, embedded=True)
    info.descriptor_text = printable(data)
    fill(info, d)
    refuse_kind(d, file.path)
    lines = d.extents
    if len(lines) != 1 or lines[0].type != "SPARSE":
        found = ", ".join(f"{e.type} {e.name}" for e in lines[:3]) or "none"
        raise VmdkError("The embedded descriptor must name one SPARSE extent, this file.", path=file.path, found=found)
    if lines[0].access == "NOACCESS":
        raise VmdkError("The extent is marked NOACCESS.", path=file.path)
    if d.create_type not in ("monolithicSparse", "streamOptimized", "twoGbMaxExtentSparse", "custom"):
        raise VmdkError("createType does not fit a sparse file.", path=file.path, found=d.create_type)
    if d.create_type == "streamOptimized" and not extent.header.compressed:
        info.problems.append("createType is streamOptimized, but the grains are not compressed")
    if lines[0].sectors != extent.header.capacity_sectors:
        raise VmdkError(
            "The header and the descriptor's extent line differ in size (sectors).",
            path=file.path,
            offset=12,
            found=extent.header.capacity_sectors,
            expected=lines[0].sectors,
        )
    return Disk(info, [extent], [])


def _open_descriptor(file: RawFile, allow: Iterable[str]) -> Disk:
    if file.size > MAX_DESCRIPTOR:
        raise VmdkError("The descriptor is too long.", path=file.path, found=file.size, expected=f"at most {MAX_DESCRIPTOR}")
    data = file.read(0, file.size, "descriptor")
    d = text.parse(data, file.path)
    info = DiskInfo(file.path, "vmdk", descriptor_text=printable(data))
    fill(info, d)
    refuse_kind(d, file.path)
    if not d.extents:
        raise VmdkError("The descriptor names no extent.", path=file.path)
    folder = Folder(file.path, allow)
    parts: list[AnyExtent] = []
    seen: dict[tuple[int, int], list[tuple[int, int]]] = {}
    try:
        for line in d.extents:
            part = _open_extent(line, d, folder)
            parts.append(part)
            if part.file is not None:
                _once(part, line, seen, file.path)
        for flat in {p.file.key: p for p in parts if isinstance(p, FlatExtent)}.values():
            _nothing_beyond(flat, max(end for _begin, end in seen[flat.file.key]) * SECTOR)
        return Disk(info, parts, [file])
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
    if any(begin < e and b < begin + line.sectors for b, e in ranges):
        raise VmdkError("Two extent lines name the same bytes.", path=path, found=line.name)
    ranges.append((begin, begin + line.sectors))


def _nothing_beyond(part: FlatExtent, end: int) -> None:
    """Refuse a flat file that goes on with data after C(end), the last byte that the descriptor speaks of: a part of the disk would be lost."""
    file = part.file
    if not file.regular or file.size <= end:
        return
    part.problems.append(f"the flat file holds {file.size - end} bytes more than the descriptor says, all zero")
    for start, length in data_ranges(file.fd, file.size):
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
    allowed = _SPARSE if d.create_type in text.SPARSE_TYPES else _FLAT | _SPARSE if d.create_type == "custom" else _FLAT
    if line.type not in allowed:
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
        return FlatExtent(file, line.offset * SECTOR, line.sectors * SECTOR)
    except BaseException:
        file.close()
        raise


def _is_device(name: str) -> bool:
    return name.startswith(("/dev/", "\\\\.\\", "\\\\?\\")) or os.path.normpath(name).startswith("/dev/")
