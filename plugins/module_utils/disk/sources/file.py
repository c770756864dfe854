# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A local raw or flat file as a source; holes by SEEK_HOLE."""

from __future__ import annotations

import errno
import os
import stat
from typing import Callable, Iterator

from ..errors import BadInput, FerryError, SourceError
from ..model import Extent, Kind


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, length) of what is not a hole, by lseek(2) SEEK_DATA and SEEK_HOLE; all of it where the file system cannot tell."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            if e.errno == errno.ENXIO:
                return
            yield at, size - at
            return
        if start >= size:
            return
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, end - start
        at = end


def pread_all(fd: int, offset: int, length: int, failed: Callable[[int, OSError | None], FerryError]) -> bytes:
    """Exactly C(length) bytes from C(offset).

    :param failed: gives the error to raise for a fault at a byte, or for the end of the file there (None).
    """
    parts = []
    while length:
        try:
            part = os.pread(fd, length, offset)
        except OSError as e:
            raise failed(offset, e) from e
        if not part:
            raise failed(offset, None)
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class FileSource:
    """A regular file or a block device, read by pread(2)."""

    def __init__(self, path: str, *, capacity: int | None = None) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as e:
            raise BadInput("The source cannot be opened.", disk=path, step="open the source", said=e.strerror) from e
        info = os.fstat(self._fd)
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISBLK(info.st_mode)):
            os.close(self._fd)
            raise BadInput("The source is neither a regular file nor a block device.", disk=path, step="open the source")
        self._regular = stat.S_ISREG(info.st_mode)
        size = info.st_size if self._regular else os.lseek(self._fd, 0, os.SEEK_END)
        if capacity is not None and capacity > size:
            os.close(self._fd)
            raise SourceError(f"The source holds {size} bytes, the disk should have {capacity}.", disk=path, step="open the source")
        self.capacity = size if capacity is None else capacity
        self.identity = self._state()

    def _state(self) -> str:
        info = os.fstat(self._fd)
        return (
            f"file:{info.st_dev}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}"
            if self._regular
            else f"block:{info.st_rdev}:{self.capacity}"
        )

    def unchanged(self) -> bool:
        """Whether the file is still in the state in which it was opened."""
        return self._state() == self.identity

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        if since is not None:
            raise BadInput("A file has no changed areas.", disk=self.path)
        at = 0
        ranges = data_ranges(self._fd, self.capacity) if self._regular else iter([(0, self.capacity)])
        for start, length in ranges:
            if start > at:
                yield Extent(at, start - at, Kind.HOLE)
            yield Extent(start, length, Kind.DATA)
            at = start + length
        if at < self.capacity:
            yield Extent(at, self.capacity - at, Kind.HOLE)

    def read(self, offset: int, length: int) -> bytes:
        return pread_all(self._fd, offset, length, self._unreadable)

    def _unreadable(self, at: int, error: OSError | None) -> SourceError:
        if error is None:
            return SourceError(f"The source ends at byte {at}: it was cut while being read.", disk=self.path, step="read")
        return SourceError(f"The source cannot be read at byte {at}.", disk=self.path, step="read", said=error.strerror)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
