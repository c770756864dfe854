# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writer of disks split into files of less than 2 GiB: twoGbMaxExtentSparse and twoGbMaxExtentFlat.

Sizes of the files are those of VMware's products, as they stand in descriptors of their making: 4,192,256 sectors (2,047 MiB)
in a sparse extent (Broadcom KB 306526), 4,193,792 (2,047.75 MiB) in a flat one, so that a whole file stays below 2^31 bytes.
qemu-img takes 4,194,304 in both. A reader takes any size; the names, C(NAME-s001.vmdk) and C(NAME-f001.vmdk), are those of all three.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from typing import Callable, Iterator, TypeAlias

from ..errors import SinkError
from ..model import SECTOR
from .base import Identity, checked_capacity
from .flat_writer import RawWriter, write_descriptor
from .sparse_writer import SparseWriter

SPARSE_PART = 4_192_256 * SECTOR
FLAT_PART = 4_193_792 * SECTOR
#: Files that are open at once; a disk of 62 TiB has 31,759.
_OPEN = 24


class _Sparse(SparseWriter):
    """An extent whose file can be closed and opened again in between."""

    def park(self) -> None:
        with self._lock:
            for number, entries in self._tables.items():
                self._store(number, entries)
            self._tables.clear()
        self.close()

    def wake(self) -> None:
        self._fd = _reopened(self.path)


class _Flat(RawWriter):
    def park(self) -> None:
        self.close()

    def wake(self) -> None:
        self._fd = _reopened(self.path)


_Part: TypeAlias = "_Sparse | _Flat"


def _reopened(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as e:
        raise SinkError("An extent cannot be opened again.", disk=path, step="write", said=e.strerror) from e


def part_sizes(capacity: int, *, sparse: bool) -> list[int]:
    """Bytes of disk in each file of a split disk of C(capacity) bytes; one of 0 for an empty disk."""
    step = SPARSE_PART if sparse else FLAT_PART
    return [min(step, capacity - at) for at in range(0, capacity, step)] or [0]


class SplitWriter:
    """A split disk: its descriptor at C(path), its data in the files that C(place) names.

    Ranges may come in any order and from several threads; only so many files are open at once.

    :param place: called with the number of an extent, from 0; returns the path to write and the name for the descriptor.
    """

    reads_zero = True

    def __init__(
        self,
        path: str,
        place: Callable[[int], tuple[str, str]],
        capacity: int,
        identity: Identity,
        *,
        sparse: bool,
        thin: bool = True,
    ) -> None:
        self.create_type = "twoGbMaxExtentSparse" if sparse else "twoGbMaxExtentFlat"
        self.path = path
        self.capacity = checked_capacity(capacity)
        self._identity = identity
        self._sparse = sparse
        self._thin = thin
        self._step = SPARSE_PART if sparse else FLAT_PART
        self._sizes = part_sizes(capacity, sparse=sparse)
        self._places = [place(number) for number in range(len(self._sizes))]
        self._parts: dict[int, _Part] = {}
        self._users: dict[int, int] = {}
        self._awake: OrderedDict[int, None] = OrderedDict()
        self._lock = threading.Lock()
        if not thin and not sparse:
            # No room for all of it is told before the work, not after hours.
            try:
                for number in range(len(self._sizes)):
                    with self._using(number):
                        """The file is made and its blocks are allocated."""
            except BaseException:
                self.close()
                raise

    @contextlib.contextmanager
    def _using(self, number: int) -> Iterator[_Part]:
        """Extent C(number), its file open as long as it is used."""
        with self._lock:
            part = self._parts.get(number)
            if part is None:
                file = self._places[number][0]
                size = self._sizes[number]
                part = _Sparse(file, size, None) if self._sparse else _Flat(file, size, thin=self._thin)
                self._parts[number] = part
            elif number not in self._awake:
                part.wake()
            self._awake[number] = None
            self._awake.move_to_end(number)
            self._users[number] = self._users.get(number, 0) + 1
            self._park_idle()
        try:
            yield part
        finally:
            with self._lock:
                self._users[number] -= 1

    def _park_idle(self) -> None:
        for number in list(self._awake)[: max(0, len(self._awake) - _OPEN)]:
            if not self._users[number]:
                del self._awake[number]
                self._parts[number].park()

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(number, offset in it, length) of the parts of a range."""
        if offset < 0 or offset + length > self.capacity:
            raise SinkError(f"Bytes {offset} to {offset + length} lie outside the disk.", disk=self.path, step="write")
        while length:
            number, inside = divmod(offset, self._step)
            count = min(length, self._step - inside)
            yield number, inside, count
            offset += count
            length -= count

    @property
    def bytes_out(self) -> int:
        return sum(part.bytes_out for part in self._parts.values())

    def write(self, offset: int, data: bytes | memoryview) -> None:
        at = 0
        for number, inside, count in self._pieces(offset, len(data)):
            with self._using(number) as part:
                part.write(inside, data if count == len(data) else memoryview(data)[at : at + count])
            at += count

    def zero(self, offset: int, length: int) -> None:
        for number, inside, count in self._pieces(offset, length):
            with self._using(number) as part:
                part.zero(inside, count)

    def read(self, offset: int, length: int) -> bytes:
        out: list[bytes] = []
        for number, inside, count in self._pieces(offset, length):
            with self._using(number) as part:
                out.append(part.read(inside, count))
        return b"".join(out)

    def flush(self) -> None:
        for number in sorted(self._parts):
            with self._using(number) as part:
                part.flush()

    def finish(self) -> None:
        """Make the files that nothing was written to, finish all, and write the descriptor."""
        for number in range(len(self._sizes)):
            with self._using(number) as part:
                part.finish()
        kind, offset = ("SPARSE", None) if self._sparse else ("FLAT", 0)
        lines = [("RW", size // SECTOR, kind, name, offset) for size, (_file, name) in zip(self._sizes, self._places, strict=True)]
        write_descriptor(self.path, self.create_type, lines, self._identity)

    def close(self) -> None:
        for part in self._parts.values():
            part.close()
