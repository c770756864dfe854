# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks inside of other files: members of an OVA, and OVF's chunks (C(disk.vmdk.000000000) and so on) joined.

Source: DMTF DSP0243 "Open Virtualization Format", sections "Distribution" (an OVA is a tar file) and "File references"
(all chunks of a file but the last have one size, their names end with nine digits). Both are read where they lie.
"""

from __future__ import annotations

import itertools
import os
import posixpath
import re
from bisect import bisect_right
from typing import Iterable, Sequence

from ..errors import VmdkError, bounded
from ..model import SECTOR
from .descriptor import is_descriptor
from .files import MISSING, Folder, RawFile, refuse_name
from .tar import Member, is_tar, members

_CHUNK = re.compile(r"^(.+)\.([0-9]{9})$", re.S)
FIRST = ".000000000"
#: Each chunk is an open file.
_MAX_CHUNKS = 512


class Window(RawFile):
    """A range of another file. It has no C(fd) of its own: positions in it are not those of the file."""

    def __init__(self, outer: RawFile, begin: int, size: int, path: str) -> None:
        self._fd = -1
        self.path = path
        self.size = size
        self.regular = False
        # Two windows over one file are two files.
        self.key = (outer.key[0], outer.key[1] << 64 | begin)
        self.allocated = min(size, outer.allocated)
        self.identity = f"{outer.identity}:{begin}:{size}"
        self._outer = outer
        self._begin = begin

    def changed(self) -> bool:
        return self._outer.changed()

    def origins(self) -> list[RawFile]:
        return self._outer.origins()

    def read(self, offset: int, length: int, what: str = "data") -> bytes:
        self._inside(offset, length, what)
        return self._outer.read(self._begin + offset, length, what)

    def close(self) -> None:
        self._outer.close()


class Joined(RawFile):
    """Files one after another."""

    def __init__(self, files: Sequence[RawFile], path: str) -> None:
        self._fd = -1
        self._parts = list(files)
        self._starts = [0, *itertools.accumulate(f.size for f in self._parts)]
        self.path = path
        self.size = self._starts[-1]
        self.regular = False
        self.key = self._parts[0].key
        self.allocated = sum(f.allocated for f in self._parts)
        self.identity = "+".join(f.identity for f in self._parts)

    def changed(self) -> bool:
        return any(f.changed() for f in self._parts)

    def origins(self) -> list[RawFile]:
        return [origin for f in self._parts for origin in f.origins()]

    def read(self, offset: int, length: int, what: str = "data") -> bytes:
        self._inside(offset, length, what)
        parts = []
        number = bisect_right(self._starts, offset) - 1
        while length:
            inside = offset - self._starts[number]
            count = min(length, self._parts[number].size - inside)
            if count:
                parts.append(self._parts[number].read(inside, count, what))
            offset += count
            length -= count
            number += 1
        return b"".join(parts)

    def close(self) -> None:
        for part in self._parts:
            part.close()


class Archive(Folder):
    """An OVA as the folder of its members. C(head) is the member whose descriptor names others; it leads nowhere else."""

    def __init__(self, path: str, head: str = "", listed: tuple[Sequence[Member], str] | None = None) -> None:
        self.path = path
        self.head = posixpath.join(path, head) if head else path
        self._folder = posixpath.dirname(head)
        if listed is None:
            file = RawFile(path, what="OVA")
            try:
                if not file.size or not is_tar(file.read(0, min(SECTOR, file.size))):
                    raise VmdkError("Not an OVA: it is no tar file.", path=path, offset=0, found=file.read(0, min(16, file.size)))
                listed = members(file), file.identity
            finally:
                file.close()
        self._members, self._state = listed

    def at(self, file: RawFile) -> Archive:
        return Archive(self.path, file.path[len(self.path) + 1 :], (self._members, self._state))

    def has(self, name: str) -> bool:
        return bool(self._named(posixpath.normpath(posixpath.join(self._folder, name))))

    def open(self, names: list[str], what: str = "extent") -> RawFile:
        found = []
        for name in names:
            refuse_name(name, self.head, undecoded=name != names[-1])
            full = posixpath.normpath(posixpath.join(self._folder, name))
            if self._chunks(full) or self._named(full):
                found.append(full)
        if not found:
            message = f"The {what} that the descriptor names is missing in the OVA."
            raise VmdkError(message, path=self.head, found=bounded(names[0], 120), code=MISSING)
        if len(found) > 1:
            raise VmdkError(f"The {what}'s name fits two members, by its encoding.", path=self.head, found=bounded(names[0], 120))
        return self.member(found[0])

    def _named(self, name: str) -> list[Member]:
        return [m for m in self._members if _plain(m.name) == name]

    def _chunks(self, name: str) -> list[tuple[int, Member]]:
        """The chunks that the disk C(name) comes in, by number."""
        found = []
        for m in self._members:
            match = _CHUNK.match(_plain(m.name) or "")
            if match and match.group(1) == name:
                found.append((int(match.group(2)), m))
        return sorted(found, key=lambda chunk: chunk[0])

    def member(self, name: str) -> RawFile:
        """The member C(name), or what its chunks make together."""
        match = _CHUNK.match(name)
        if match and int(match.group(2)) == 0:
            name = match.group(1)
        found = self._named(name)
        path = posixpath.join(self.path, name)
        if not found:
            chunks = self._chunks(name)
            if not chunks:
                raise VmdkError("The OVA has no such member.", path=self.path, found=bounded(name, 120), expected=self._list())
            check_chunks([n for n, _m in chunks], [m.size for _n, m in chunks], path)
            return Joined([self._window(m) for _n, m in chunks], path)
        if len(found) > 1:
            raise VmdkError("The OVA has two members of this name.", path=self.path, found=bounded(name, 120))
        return self._window(found[0])

    def _window(self, m: Member) -> RawFile:
        if m.refused:
            raise VmdkError(f"The member of the OVA {m.refused}; it is not read.", path=self.path, found=bounded(m.name, 120))
        outer = RawFile(self.path, what="OVA")
        if outer.identity != self._state:
            outer.close()
            raise VmdkError("The OVA was changed while it was opened.", path=self.path)
        return Window(outer, m.begin, m.size, posixpath.join(self.path, _plain(m.name) or ""))

    def _list(self) -> str:
        return "one of " + ", ".join(bounded(name, 60) for name in self.disks()[:5])

    def names(self) -> list[str]:
        """Names of the members that lie inside of the archive, whatever they are."""
        return [name for m in self._members if (name := _plain(m.name)) is not None]

    def disks(self) -> list[str]:
        """Names of the members that are disks: with a descriptor, or said to be a disk by their name."""
        found = []
        for m in self._members:
            name = _plain(m.name)
            if name is None:
                if m.name.lower().endswith(".vmdk"):
                    raise VmdkError("The OVA has a member with a name that leads out of it.", path=self.path, found=bounded(m.name, 120))
                continue
            match = _CHUNK.match(name)
            if match:
                if int(match.group(2)):
                    continue
                name = match.group(1)
            if self._is_disk(m, name):
                found.append(name)
        return found

    def only_disk(self) -> str:
        """The name of the one disk."""
        found = self.disks()
        if len(found) == 1:
            return found[0]
        what = "The OVA holds several disks: name one of them." if found else "The OVA holds no disk that can be read."
        shown = ", ".join(bounded(name, 60) for name in found[:8])
        raise VmdkError(what, path=self.path, found=shown or None, expected=f"{self.path}/NAME.vmdk")

    def _is_disk(self, m: Member, name: str) -> bool:
        if m.refused:
            return name.lower().endswith((".vmdk", ".vmdk.gz"))
        file = self._window(m)
        try:
            head = file.read(0, min(file.size, SECTOR))
        finally:
            file.close()
        if head[:4] == b"KDMV":
            # An extent of a split disk has no descriptor inside.
            return len(head) == SECTOR and any(head[28:36])
        if is_descriptor(head):
            return True
        return name.lower().endswith(".vmdk.gz") or (name.lower().endswith(".vmdk") and head[:3] == b"\x1f\x8b\x08")


def _plain(name: str) -> str | None:
    """A member's name without C(./) before it; None where it leads out of the archive."""
    if not name or name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
        return None
    return posixpath.normpath(name)


def check_chunks(numbers: Sequence[int], sizes: Sequence[int], path: str) -> None:
    """Raise VmdkError where one of a disk's chunks is missing, doubled or of a wrong size."""
    if len(numbers) > _MAX_CHUNKS:
        raise VmdkError("The disk comes in too many chunks.", path=path, found=len(numbers), expected=f"at most {_MAX_CHUNKS}")
    for wanted, number in enumerate(numbers):
        if number != wanted:
            what = "missing" if number > wanted else "there twice"
            raise VmdkError(f"A chunk of the disk is {what}.", path=path, expected=f".{min(wanted, number):09d}")
    for number, size in enumerate(sizes):
        if size != sizes[0] and (number < len(sizes) - 1 or size > sizes[0]):
            raise VmdkError("A chunk of the disk has a wrong size.", path=path, found=f"{size} bytes in .{number:09d}", expected=sizes[0])


def _join(path: str, folder: Folder) -> RawFile:
    """The chunks of the disk C(path) (its name without the number)."""
    base = os.path.basename(path)
    numbers = []
    for name in os.listdir(folder.root):
        match = _CHUNK.match(name)
        if match and match.group(1) == base:
            numbers.append(int(match.group(2)))
    numbers.sort()
    check_chunks(numbers, [], path)
    files: list[RawFile] = []
    try:
        for number in numbers:
            files.append(folder.open([f"{base}.{number:09d}"], "chunk"))
        check_chunks(numbers, [f.size for f in files], path)
        return Joined(files, path)
    except BaseException:
        for file in files:
            file.close()
        raise


def _inside_of(path: str) -> tuple[str, str] | None:
    """(file, member) where C(path) goes on behind a regular file."""
    prefix, rest = path, ""
    while prefix and not os.path.lexists(prefix):
        prefix, _slash, last = prefix.rpartition("/")
        rest = f"{last}/{rest}" if rest else last
    return (prefix, rest) if rest and os.path.isfile(prefix) else None


def open_source(path: str, *, device_ok: bool = False, what: str = "VMDK", allow: Iterable[str] = ()) -> tuple[RawFile, Folder]:
    """The file that C(path) means, and the folder from where a descriptor in it leads on.

    C(path) is a file, C(x.ova/member), C(x.ova) where that holds one disk, the first of several chunks, or a disk's name where
    only its chunks are there.
    """
    folder = Folder(path, allow)
    match = _CHUNK.match(os.path.basename(path))
    if match and os.path.isfile(path):
        if int(match.group(2)):
            raise VmdkError("This is a later chunk of a disk: name the first one.", path=path, expected=match.group(1) + FIRST)
        return _join(path[: -len(FIRST)], folder), folder
    if path.lower().endswith(".ova") and os.path.isfile(path):
        archive = Archive(path)
        file = archive.member(archive.only_disk())
        return file, archive.at(file)
    if not os.path.lexists(path):
        if os.path.isfile(path + FIRST):
            return _join(path, folder), folder
        inside = _inside_of(path)
        if inside is not None:
            archive = Archive(inside[0])
            name = _plain(inside[1])
            if name is None:
                raise VmdkError("The name leads out of the OVA.", path=inside[0], found=bounded(inside[1], 120))
            file = archive.member(name)
            return file, archive.at(file)
    return RawFile(path, device_ok=device_ok, what=what), folder


def open_raw_file(path: str) -> RawFile:
    """The file or device C(path) itself, whatever it holds (a guest writes what is in a raw disk), or a member of an OVA."""
    if os.path.lexists(path):
        return RawFile(path, device_ok=True, what="disk")
    return open_source(path, what="disk")[0]
