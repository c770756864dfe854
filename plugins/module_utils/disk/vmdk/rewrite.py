# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Change the controller or the hardware version of a VMDK by its descriptor alone; no data is touched.

A text descriptor is written beside and renamed. An embedded one stays at its place in the sparse file: only the sectors
that differ are written. Power may fail between two of them; so a small file C(.NAME.ferry-undo) with both states lies beside
the disk until the new one is durable, and the next run puts the old state back where it finds a mixture. A kill alone
cannot make one where the change lies in one page of 4 KiB, as it does in every descriptor of up to 3,584 bytes.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import stat
import struct
from dataclasses import dataclass

from ..controllers import by_name, find
from ..errors import BadInput, SinkError
from ..model import SECTOR
from .flat_writer import read_all, sync, write_all
from .geometry import chs
from .reader import Disk
from .sparse import SparseExtent
from .staging import Staging, sync_folder
from .structs import MAX_DESCRIPTOR

_LINE = re.compile(r"^(?P<before>[ \t]*(?P<key>[A-Za-z0-9_.\-]+)[ \t]*=[ \t]*)(?P<quote>\"?)(?P<value>[^\"]*?)(?P<after>\"?[ \t]*)$")
_ENDS = re.compile(r"(\r\n|\n|\r)")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_UNDO = struct.Struct("<8sQI")
_MAGIC = b"vmdkundo"


@dataclass(frozen=True)
class Edit:
    """A new descriptor for the file C(path). C(offset) is its place in bytes where it is embedded, in C(room) bytes."""

    path: str
    old: bytes
    new: bytes
    offset: int | None = None
    room: int = 0

    @property
    def size(self) -> int:
        """Bytes of the new descriptor, without padding."""
        return len(self.new)


def plan(disk: Disk, adapter_type: str | None, hw_version: int | None) -> Edit | None:
    """The edit that gives C(disk) this controller and this version (None: as it is); None where it has them.

    :raises BadInput: where the new descriptor does not fit into the room that the file has for it.
    """
    info = disk.info
    adapter = adapter_type if adapter_type != info.adapter_type else None
    version = hw_version if hw_version != info.hw_version else None
    if adapter is None and version is None:
        return None
    values: dict[str, str] = {}
    if adapter is not None:
        controller = by_name(adapter)
        values["ddb.adapterType"] = controller.ddb or controller.name
        before = find(info.adapter_type) if info.adapter_type else None
        # All SCSI controllers count alike: a geometry that a guest has seen is kept where it can be.
        if before is None or (before.name == "ide") != (controller.name == "ide"):
            for key, number in zip(("cylinders", "heads", "sectors"), chs(disk.capacity, controller.name), strict=True):
                values[f"ddb.geometry.{key}"] = str(number)
    if version is not None:
        values["ddb.virtualHWVersion"] = str(version)
    extent = disk.parts[0] if info.embedded and disk.parts else None
    file = disk.files()[0]
    # In an OVA, or cut into chunks, it is no file of its own.
    if not file.regular or (extent is not None and not (isinstance(extent, SparseExtent) and extent.file is file)):
        raise BadInput("The descriptor cannot be changed where it is; convert the disk to another file.", disk=info.path)
    if isinstance(extent, SparseExtent):
        region = extent.descriptor_bytes() or b""
        offset, room = extent.header.descriptor_offset * SECTOR, len(region)
        old = _text_of(region)
        new = edited(old, values)
        if len(new) > room:
            raise BadInput(
                f"The changed descriptor has {len(new)} bytes, the file has room for {room}; convert it to another file.", disk=info.path
            )
        return Edit(extent.file.path, old, new, offset, room)
    data = file.read(0, min(file.size, MAX_DESCRIPTOR), "descriptor")
    old = _text_of(data)
    return Edit(file.path, data, edited(old, values) + data[len(old) :])


def _text_of(data: bytes) -> bytes:
    """C(data) up to the zero bytes that pad it, a byte order mark with it."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        for at in range(2, len(data) - 1, 2):
            if data[at : at + 2] == b"\0\0":
                return data[:at]
        return data[: len(data) & ~1]
    return data.split(b"\0", 1)[0]


def edited(data: bytes, values: dict[str, str]) -> bytes:
    """The descriptor C(data) with the keys of C(values) set; everything else stays as it is, byte for byte.

    A key that it has keeps its spelling, its blanks and its quotes; one that it has not is put behind the last C(ddb.) line.
    """
    mark, codec = next(((m, c) for m, c in _BOMS if data.startswith(m)), (b"", "latin-1"))
    # latin-1 keeps every byte of the encodings that agree with ASCII; keys and these values are ASCII.
    codec = "latin-1" if codec == "utf-8" else codec
    pieces = _ENDS.split(data[len(mark) :].decode(codec))
    left = {key.lower(): (key, value) for key, value in values.items()}
    missing = dict(left)
    last = -1
    for at in range(0, len(pieces), 2):
        found = _LINE.match(pieces[at])
        if found is None:
            continue
        key = found["key"].lower()
        if key in left:
            pieces[at] = f"{found['before']}{found['quote']}{left[key][1]}{found['after']}"
            missing.pop(key, None)
        if key.startswith("ddb."):
            last = at
    end = next((p for p in pieces[1::2]), "\n")
    lines = [f'{key} = "{value}"' for key, value in missing.values()]
    if lines and last >= 0:
        pieces[last] = end.join([pieces[last], *lines])
    elif lines:
        if pieces[-1]:
            pieces += [end, ""]
        pieces[-1] = end.join([*lines, ""])
    return mark + "".join(pieces).encode(codec)


def apply(edit: Edit, staging: Staging) -> None:
    """Write C(edit) durably; C(staging) is that of the disk. SinkError where it cannot be written."""
    if edit.offset is None:
        temporary = staging.temporary("new")
        try:
            info = os.stat(staging.dest)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                write_all(fd, edit.new, 0, temporary)
                with contextlib.suppress(PermissionError):
                    os.fchown(fd, info.st_uid, info.st_gid)
                sync(fd, temporary)
            finally:
                os.close(fd)
        except OSError as e:
            raise SinkError("The descriptor cannot be written.", disk=edit.path, step="write the descriptor", said=e.strerror) from e
        staging.publish([(temporary, staging.name)])
        return
    length = max(len(edit.old), len(edit.new))
    old, new = edit.old.ljust(length, b"\0"), edit.new.ljust(length, b"\0")
    first = next(i for i in range(length) if old[i] != new[i])
    last = next(i for i in range(length - 1, -1, -1) if old[i] != new[i])
    begin = (edit.offset + first) // SECTOR * SECTOR - edit.offset
    stop = min(-(-(edit.offset + last + 1) // SECTOR) * SECTOR - edit.offset, edit.room)
    _patch(edit.offset + begin, old[begin:stop].ljust(stop - begin, b"\0"), new[begin:stop].ljust(stop - begin, b"\0"), staging)


def _patch(offset: int, old: bytes, new: bytes, staging: Staging) -> None:
    path = staging.dest
    undo = staging.hidden("undo")
    try:
        with open(undo, "wb") as out:
            out.write(_UNDO.pack(_MAGIC, offset, len(old)) + old + new)
            out.flush()
            os.fsync(out.fileno())
        sync_folder(staging.folder)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if read_all(fd, offset, len(old), path) != old:
                raise SinkError("The descriptor was changed by somebody else meanwhile.", disk=path, step="write the descriptor")
            write_all(fd, new, offset, path)
            sync(fd, path)
        finally:
            os.close(fd)
        os.unlink(undo)
    except OSError as e:
        raise SinkError("The descriptor cannot be written.", disk=path, step="write the descriptor", said=e.strerror) from e


def recover(staging: Staging) -> None:
    """Put the old descriptor back where a run was stopped half way through the new one; nothing where none was."""
    undo = staging.hidden("undo")
    try:
        fd = os.open(undo, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        with open(fd, "rb") as file:
            data = file.read(_UNDO.size + 2 * MAX_DESCRIPTOR + 1)
        magic, offset, length = _UNDO.unpack_from(data) if len(data) >= _UNDO.size else (b"", 0, 0)
        # A file that is cut was not durable before the disk was touched: the disk has its old state.
        if magic == _MAGIC and len(data) == _UNDO.size + 2 * length:
            _mend(staging.dest, offset, data[_UNDO.size : _UNDO.size + length], data[_UNDO.size + length :])
        os.unlink(undo)
    except OSError as e:
        raise SinkError("A change that was interrupted cannot be undone.", disk=staging.dest, step="recover", said=e.strerror) from e


def _mend(path: str, offset: int, old: bytes, new: bytes) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size < offset + len(old):
            return
        now = read_all(fd, offset, len(old), path)
        sectors = range(0, len(old), SECTOR)
        mixed = all(now[i : i + SECTOR] in (old[i : i + SECTOR], new[i : i + SECTOR]) for i in sectors)
        if mixed and now not in (old, new):
            write_all(fd, old, offset, path)
            sync(fd, path)
    finally:
        os.close(fd)
