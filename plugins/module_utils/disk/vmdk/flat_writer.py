# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writers of flat disks: raw, and a flat extent with its descriptor."""

from __future__ import annotations

import os
import threading

from ..controllers import by_name
from ..errors import SinkError
from ..model import SECTOR
from .base import Identity, checked_capacity
from .descriptor import compose
from .geometry import chs


class RawWriter:
    """A raw file of C(capacity) bytes. C(thin) leaves holes; else all its blocks are allocated first."""

    create_type: str = "raw"
    reads_zero = True

    def __init__(self, path: str, capacity: int, *, thin: bool = True) -> None:
        self.path = path
        self.capacity = capacity
        self._written = 0 if thin else capacity
        self._thin = thin
        self._lock = threading.Lock()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as e:
            raise SinkError("The file cannot be created.", disk=path, step="create the file", said=e.strerror) from e
        self._behind = Behind(self._fd, path)
        try:
            os.ftruncate(self._fd, capacity)
            if not thin and capacity:
                os.posix_fallocate(self._fd, 0, capacity)
        except OSError as e:
            self.close()
            raise SinkError(f"No room for {capacity} bytes.", disk=path, step="create the file", said=e.strerror) from e

    @property
    def bytes_out(self) -> int:
        return self._written

    def write(self, offset: int, data: bytes | memoryview) -> None:
        if offset < 0 or offset + len(data) > self.capacity:
            raise SinkError(f"Bytes {offset} to {offset + len(data)} lie outside the disk.", disk=self.path, step="write")
        write_all(self._fd, data, offset, self.path)
        self._behind.wrote(offset, len(data))
        if self._thin:
            with self._lock:
                self._written += len(data)

    def zero(self, offset: int, length: int) -> None:
        block = bytes(min(length, 1 << 20))
        while length:
            count = min(length, len(block))
            self.write(offset, block[:count])
            offset += count
            length -= count

    def read(self, offset: int, length: int) -> bytes:
        return read_all(self._fd, offset, length, self.path)

    def flush(self) -> None:
        sync(self._fd, self.path)

    def finish(self) -> None:
        self.flush()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FlatWriter(RawWriter):
    """A monolithicFlat or C(vmfs) disk: the flat file at C(flat_path), the descriptor at C(path), which names it C(flat_name)."""

    def __init__(
        self, path: str, flat_path: str, flat_name: str, capacity: int, identity: Identity, *, thin: bool = True, vmfs: bool = False
    ) -> None:
        super().__init__(flat_path, checked_capacity(capacity), thin=thin)
        self.create_type = "vmfs" if vmfs else "monolithicFlat"
        self.descriptor_path = path
        self.flat_name = flat_name
        self.identity = identity

    def finish(self) -> None:
        super().finish()
        vmfs = self.create_type == "vmfs"
        count = self.capacity // SECTOR
        write_descriptor(
            self.descriptor_path,
            self.create_type,
            # A VMFS line has no offset: qemu-img refuses one.
            [("RW", count, "VMFS", self.flat_name, None) if vmfs else ("RW", count, "FLAT", self.flat_name, 0)],
            self.identity,
            thin=True if vmfs and self._thin else None,
        )


def write_descriptor(
    path: str, create_type: str, extents: list[tuple[str, int, str, str, int | None]], identity: Identity, *, thin: bool | None = None
) -> None:
    """Write the new text descriptor C(path) of a disk of C(extents) (as in descriptor.compose), durably; SinkError."""
    controller = by_name(identity.adapter_type)
    data = compose(
        create_type=create_type,
        extents=extents,
        adapter_type=controller.ddb or controller.name,
        geometry=chs(sum(count for _access, count, *_rest in extents) * SECTOR, controller.name),
        hw_version=identity.hw_version,
        cid=identity.content_id,
        uuid=identity.uuid,
        thin=thin,
    )
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, data, 0, path)
            sync(fd, path)
        finally:
            os.close(fd)
    except OSError as e:
        raise SinkError("The descriptor cannot be written.", disk=path, step="write the descriptor", said=e.strerror) from e


class Behind:
    """Has what was written to a file go to its device while more is made, so that the sync at the end finds little left.

    POSIX_FADV_DONTNEED starts the writing of dirty pages and does not wait for it; only pages that are clean already
    leave the cache. C(write) appends, so it serves as the C(out) of a stream as well.
    """

    #: Bytes that are gathered before they are sent on.
    STEP = 16 << 20

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self._begin = self._end = self._count = self._at = 0

    def wrote(self, offset: int, length: int) -> None:
        """C(length) bytes at C(offset) were written."""
        end = offset + length
        self._begin, self._end = (min(self._begin, offset), max(self._end, end)) if self._count else (offset, end)
        self._count += length
        if self._count >= self.STEP:
            self._count = 0
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._fd, self._begin, self._end - self._begin, os.POSIX_FADV_DONTNEED)

    def write(self, data: bytes) -> None:
        write_all(self._fd, data, self._at, self._path)
        self.wrote(self._at, len(data))
        self._at += len(data)


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int, path: str) -> None:
    """pwrite(2) all of C(data) or raise SinkError."""
    view = memoryview(data)
    while view:
        try:
            done = os.pwrite(fd, view, offset)
        except OSError as e:
            raise SinkError(f"Byte {offset} cannot be written.", disk=path, step="write", said=e.strerror) from e
        view = view[done:]
        offset += done


def read_all(fd: int, offset: int, length: int, path: str) -> bytes:
    """pread(2) exactly C(length) bytes or raise SinkError."""
    parts: list[bytes] = []
    while length:
        try:
            part = os.pread(fd, length, offset)
        except OSError as e:
            raise SinkError(f"Byte {offset} cannot be read back.", disk=path, step="read back", said=e.strerror) from e
        if not part:
            raise SinkError(f"The file ends at byte {offset}.", disk=path, step="read back")
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)


def sync(fd: int, path: str) -> None:
    """fsync(2) or SinkError."""
    try:
        os.fsync(fd)
    except OSError as e:
        raise SinkError("What was written is not durable.", disk=path, step="flush", said=e.strerror) from e
