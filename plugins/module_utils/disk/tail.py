# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What lies behind a disk on a larger target: volumes come in whole GiB. It is made zero, and read back.

A new volume need not be empty (thick LVM with volume_clear=none, a back end that reuses blocks), and what stands there would be
the guest's as soon as it grows its last partition: a stranger's data, or the old backup of a partition table.
"""

from __future__ import annotations

import os
import stat
from typing import Callable

from .errors import FerryError, SinkError
from .sinks.file import punch_hole
from .sources.file import data_ranges, pread_all

#: Bytes read and compared at once.
STEP = 4 << 20
_ZEROES = bytes(STEP)


def zero_tail(path: str, start: int, *, watch: Callable[[int, int], None] | None = None) -> int:
    """Make everything of a file or block device from C(start) on zero; the bytes that had to be written.

    What reads as zero already is only read, and holes of a file not even that: nothing is allocated for zeroes.

    :param start: bytes; the disk's capacity.
    :param watch: is told (bytes done, bytes in all), and may raise to stop.
    :raises SinkError: it cannot be written, or is not zero when read back.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        raise SinkError(
            "The target cannot be opened for writing.", disk=path, step="clear what lies behind the disk", said=e.strerror
        ) from e
    try:
        return _zero(fd, path, start, watch or (lambda done, total: None))
    except OSError as e:
        raise SinkError(
            "What lies behind the disk cannot be cleared.", disk=path, step="clear what lies behind the disk", said=e.strerror
        ) from e
    finally:
        os.close(fd)


def _zero(fd: int, path: str, start: int, watch: Callable[[int, int], None]) -> int:
    regular = stat.S_ISREG(os.fstat(fd).st_mode)
    end = os.lseek(fd, 0, os.SEEK_END)
    dirty: list[tuple[int, int]] = []
    for at, length in _pieces(fd, start, end, regular):
        watch(at - start, end - start)
        if _read(fd, path, at, length) != _ZEROES[:length]:
            if not (regular and punch_hole(fd, at, length)):
                _write(fd, at, length)
            dirty.append((at, length))
    if dirty:
        os.fsync(fd)
        # Out of the cache, so that what is read now has been on the target.
        os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_DONTNEED)
        for at, length in dirty:
            if _read(fd, path, at, length) != _ZEROES[:length]:
                raise SinkError(
                    f"Zeroes written behind the disk, at {at}, are read back as something else.",
                    disk=path,
                    step="clear what lies behind the disk",
                )
    watch(end - start, end - start)
    return sum(length for _at, length in dirty)


def _pieces(fd: int, start: int, end: int, regular: bool) -> list[tuple[int, int]]:
    """(offset, length) of what has to be read, in steps; of a regular file only what is no hole."""
    ranges = list(data_ranges(fd, end)) if regular else [(start, end - start)]
    found = []
    for at, length in ranges:
        first, last = max(at, start), min(at + length, end)
        while first < last:
            size = min(STEP, last - first)
            found.append((first, size))
            first += size
    return found


def _read(fd: int, path: str, at: int, length: int) -> bytes:
    def failed(offset: int, error: OSError | None) -> FerryError:
        said = error.strerror if error else "the target ends there"
        return SinkError(
            f"What lies behind the disk cannot be read at {offset}.", disk=path, step="clear what lies behind the disk", said=said
        )

    return pread_all(fd, at, length, failed)


def _write(fd: int, at: int, length: int) -> None:
    view = memoryview(_ZEROES)[:length]
    while view:
        done = os.pwrite(fd, view, at)
        at += done
        view = view[done:]
