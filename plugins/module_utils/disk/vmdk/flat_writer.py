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

    create_type = "raw"
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
    """A monolithicFlat disk: the flat file at C(flat_path), the descriptor at C(path), which names it C(flat_name)."""

    create_type = "monolithicFlat"

    def __init__(self, path: str, flat_path: str, flat_name: str, capacity: int, identity: Identity, *, thin: bool = True) -> None:
        super().__init__(flat_path, checked_capacity(capacity), thin=thin)
        self.descriptor_path = path
        self.flat_name = flat_name
        self.identity = identity

    def finish(self) -> None:
        super().finish()
        controller = by_name(self.identity.adapter_type)
        data = compose(
            create_type=self.create_type,
            extents=[("RW", self.capacity // SECTOR, "FLAT", self.flat_name, 0)],
            adapter_type=controller.ddb or controller.name,
            geometry=chs(self.capacity, controller.name),
            hw_version=self.identity.hw_version,
            cid=self.identity.content_id,
            uuid=self.identity.uuid,
        )
        try:
            fd = os.open(self.descriptor_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                write_all(fd, data, 0, self.descriptor_path)
                sync(fd, self.descriptor_path)
            finally:
                os.close(fd)
        except OSError as e:
            raise SinkError(
                "The descriptor cannot be written.", disk=self.descriptor_path, step="write the descriptor", said=e.strerror
            ) from e


def write_all(fd: int, data: bytes | memoryview, offset: int, path: str) -> None:
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
