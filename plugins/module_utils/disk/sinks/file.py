# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A raw file or a block device as a sink: sparse where it can be, and durable when C(flush) returns."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import fcntl
import os
import stat
import struct
import threading

from ..errors import BadInput, Busy, SinkError
from ..sources.file import data_ranges, pread_all
from . import label

_PUNCH_HOLE_KEEP_SIZE = 0x03  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, linux/falloc.h
_BLKZEROOUT = 0x127F  # linux/fs.h: zeroes a range, by the device itself where it can
_ZEROES = bytes(1 << 20)
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h: begin to write these pages, without waiting for it
#: Writes of at least so many bytes are sent on to the medium at once.
_EARLY = 256 << 10

_libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Give a range of a file back to the file system, so that it reads as zeroes; False where that is not to be had."""
    return bool(_libc.fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, offset, length) == 0)


class FileSink:
    """C(path) as a disk of C(capacity) bytes. A regular file is made (mode 0600) or, where it exists, given that size.

    A block device must be large enough. The file is locked (flock) for as long as the sink is open: one writer.
    """

    def __init__(self, path: str, capacity: int, *, resize: bool = True) -> None:
        self.path = path
        self.capacity = capacity
        # File systems let one writer at a time into a file (the inode's lock), and who waits there burns a core.
        self._turn = threading.Lock()
        try:
            # On a block device O_EXCL (without O_CREAT) is refused while it is mounted or part of something (open(2)).
            block = os.path.exists(path) and stat.S_ISBLK(os.stat(path).st_mode)
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if block else os.O_CREAT), 0o600)
        except OSError as e:
            raise SinkError("The target cannot be opened for writing.", disk=path, step="open the target", said=e.strerror) from e
        try:
            self._open(resize)
        except BaseException:
            os.close(self._fd)
            self._fd = -1
            raise

    def _open(self, resize: bool) -> None:
        info = os.fstat(self._fd)
        self.regular = stat.S_ISREG(info.st_mode)
        if not self.regular and not stat.S_ISBLK(info.st_mode):
            raise BadInput("The target is neither a regular file nor a block device.", disk=self.path, step="open the target")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise Busy("Another process writes this target.", disk=self.path, step="lock the target", said=e.strerror) from e
        size = info.st_size if self.regular else os.lseek(self._fd, 0, os.SEEK_END)
        if self.regular and resize and size != self.capacity:
            label.remove(self._fd)  # somebody cut it, or the disk has grown: either way it is looked at before it is believed
            os.ftruncate(self._fd, self.capacity)
        elif size < self.capacity:
            raise SinkError(f"The target has {size} bytes, the disk needs {self.capacity}.", disk=self.path, step="open the target")
        #: A regular file without any data reads as zeroes all over; of a device nobody knows.
        self.reads_zero = self.regular and next(data_ranges(self._fd, max(size, self.capacity)), None) is None
        self.identity = f"file:{info.st_dev}:{info.st_ino}" if self.regular else f"block:{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"

    def stamp(self) -> str:
        """Changes when somebody else writes the file afterwards (size, mtime); empty for a device, which has neither."""
        info = os.fstat(self._fd)
        return f"{info.st_size}:{info.st_mtime_ns}" if self.regular else ""

    def label(self) -> str:
        """What C(set_label) wrote; empty where the file has no label."""
        return label.read(self._fd)

    def set_label(self, text: str) -> bool:
        """Say at the file whose ledger speaks of it; False where that cannot be said."""
        return self.regular and label.write(self._fd, text)

    def _failed(self, what: str, offset: int, e: OSError) -> SinkError:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return SinkError(
            f"The target cannot be {what} at byte {offset}.",
            code="target_full" if full else None,
            disk=self.path,
            step="write" if what != "read" else "read the target back",
            said=e.strerror,
            next_command="make room and run the same command again; it goes on where it stopped" if full else None,
        )

    def write(self, offset: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        start, length = offset, len(view)
        while view:
            try:
                with self._turn:
                    done = os.pwrite(self._fd, view, offset)
            except OSError as e:
                raise self._failed("written", offset, e) from e
            offset += done
            view = view[done:]
        if length >= _EARLY:
            # On its way to the medium while the next bytes are read, so that a flush finds little left to do.
            _libc.sync_file_range(self._fd, start, length, _SYNC_FILE_RANGE_WRITE)

    def zero(self, offset: int, length: int) -> None:
        if self.regular:
            if punch_hole(self._fd, offset, length):
                return
        else:
            try:
                fcntl.ioctl(self._fd, _BLKZEROOUT, struct.pack("QQ", offset, length))
                return
            except OSError:
                pass  # not aligned to the device's sectors, or a device that cannot: written out below
        while length:
            part = min(length, len(_ZEROES))
            self.write(offset, memoryview(_ZEROES)[:part])
            offset += part
            length -= part

    def is_hole(self, offset: int, length: int) -> bool:
        """True where the file system says that nothing is stored in the range, so that it reads as zeroes."""
        if not self.regular:
            return False
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA) >= offset + length
        except OSError as e:
            return e.errno == errno.ENXIO

    def flush(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as e:
            raise self._failed("made durable", 0, e) from e

    def forget_cache(self) -> None:
        """Ask the kernel to drop its cached pages, so that reading back reads what is stored. Call C(flush) first."""
        try:
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            pass  # advice only

    def read(self, offset: int, length: int) -> bytes:
        return pread_all(self._fd, offset, length, self._unreadable)

    def _unreadable(self, at: int, error: OSError | None) -> SinkError:
        if error is None:
            return SinkError(f"The target ends at byte {at}.", disk=self.path, step="read the target back")
        return self._failed("read", at, error)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
