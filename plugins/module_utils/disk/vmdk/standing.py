# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands where a disk is to be written: whose it is, and whether it may be replaced."""

from __future__ import annotations

import os
from typing import Iterable

from ..errors import BadInput, FerryError, VmdkError
from ..model import SECTOR
from .descriptor import is_descriptor, parse
from .files import RawFile
from .flat import FlatExtent
from .reader import Disk, DiskInfo, sniff
from .sparse import SparseExtent
from .staging import Staging, own_name
from .structs import MAX_DESCRIPTOR, unpack_header

#: (device, inode) of files of the source; of a member of an OVA, with its place.
Keys = set[tuple[int, int]]


def foreign(path: str) -> BadInput:
    """The error where C(path) is not ours to replace."""
    return BadInput(
        "dest exists and holds something else than this disk; it is not overwritten.",
        disk=path,
        next_command="set force: true to overwrite it",
    )


def apart(staging: Staging, names: Iterable[str], mine: Keys) -> None:
    """Refuse to write over the source, whose files are C(mine)."""
    for name in (staging.name, *names):
        path = os.path.join(staging.folder, name)
        if os.path.exists(path):
            info = os.stat(path)
            if (info.st_dev, info.st_ino) in mine:
                raise BadInput("dest would write over the source; name another file.", disk=staging.dest)


def replaced(staging: Staging, mine: Keys) -> list[str]:
    """Names of data files beside dest that belong to the disk that is there now, and not to the source."""
    found = []
    for name in extent_names(staging.dest):
        path = os.path.join(staging.folder, name)
        if own_name(name, staging.name) and os.path.lexists(path):
            info = os.lstat(path)
            if (info.st_dev, info.st_ino) not in mine:
                found.append(name)
    return found


def soon(path: str, format: str, capacity: int) -> None:
    """BadInput where C(path) is a disk of another capacity (bytes): known before a source that can be read only once is read."""
    if format == "qcow2" or not os.path.exists(path):
        return
    claimed = os.path.getsize(path) if format == "raw" else claimed_capacity(path)
    if claimed != capacity:
        raise foreign(path)


def strangers(staging: Staging, names: Iterable[str], mine: Keys) -> list[str]:
    """Those of C(names), data files of the new disk, that are there and belong to no disk of ours."""
    known = {*replaced(staging, mine), *staging.unfinished}
    return [name for name in names if name not in known and os.path.lexists(os.path.join(staging.folder, name))]


def without_descriptor(staging: Staging, format: str, names: dict[str, int]) -> Disk | None:
    """The data files C(names) as a disk, where they are all there in the sizes (bytes) of this C(format); else None."""
    parts: list[FlatExtent | SparseExtent] = []
    try:
        for name, size in names.items():
            file = RawFile(os.path.join(staging.folder, name))
            if format == "twoGbMaxExtentSparse":
                part: FlatExtent | SparseExtent = SparseExtent(file, size // SECTOR)
            else:
                part = FlatExtent(file, 0, size)
            parts.append(part)
            if format != "twoGbMaxExtentSparse" and file.size != size:
                raise VmdkError("Another size.", path=file.path)
        return Disk(DiskInfo(staging.dest, "vmdk"), parts, [])
    except VmdkError:
        for part in parts:
            part.close()
        return None


def headless(path: str) -> bool:
    """True where C(path), which its content does not tell from a raw disk, may be a VMDK whose first sector is damaged.

    A name that says raw is believed. So is a descriptor's text: where no name says VMDK, it is a guest's.
    """
    name = os.path.basename(path).lower()
    if name.endswith(("-flat.vmdk", ".raw")) or not os.path.isfile(path):
        return False
    file = RawFile(path, what="source")
    try:
        return sniff(file.read(0, min(4096, file.size))) == "raw"
    finally:
        file.close()


def stored_bytes(disk: Disk) -> int:
    """Bytes that C(disk) takes on its file system: a sparse file's size, a flat one's blocks."""
    return sum(f.size if disk.info.embedded else min(f.allocated, f.size) for f in disk.files())


def extent_names(path: str) -> list[str]:
    """The names that the text descriptor C(path) gives its extents; none where it is no descriptor."""
    try:
        file = RawFile(path, what="dest")
    except FerryError:
        return []
    try:
        head = file.read(0, min(MAX_DESCRIPTOR, file.size))
        return [name for line in parse(head, path).extents for name in line.names] if is_descriptor(head) else []
    except FerryError:
        return []
    finally:
        file.close()


def claimed_capacity(path: str) -> int | None:
    """The capacity in bytes that the VMDK C(path), which cannot be opened, claims; None where it claims none."""
    file = RawFile(path, what="dest")
    try:
        head = file.read(0, min(MAX_DESCRIPTOR, file.size))
        return parse(head, path).capacity if is_descriptor(head) else unpack_header(head, path).capacity
    except FerryError:
        return None
    finally:
        file.close()
