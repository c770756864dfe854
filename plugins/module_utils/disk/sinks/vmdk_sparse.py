# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A monolithicSparse VMDK that is written in any order, durable at each flush, and taken up again after a crash.

Source of the format: see vmdk/structs.py. The order at a flush: grains, then both sets of tables, then the mark of a clean
file; so a table never names a grain that is not there. A crash between the two sets leaves entries in one of them only: what
they name is durable, and belongs to chunks that the ledger does not call done, so either is right. Grains that are given back
(zeroes) are used again only when no table on disk names them any more.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sys
import threading
from array import array
from collections import OrderedDict
from dataclasses import replace
from typing import Iterator

from ..errors import BadInput, Busy, FerryError, SinkError
from ..model import SECTOR
from ..sources.file import data_ranges
from ..vmdk.base import Identity
from ..vmdk.flat_writer import read_all, sync, write_all
from ..vmdk.sparse_writer import SparseWriter, layout, packed
from ..vmdk.structs import GRAIN_SECTORS, GTES_PER_GT, sectors, unpack_header
from .file import punch_hole

GRAIN = GRAIN_SECTORS * SECTOR
_ZERO = bytes(GRAIN)
_TABLE = GTES_PER_GT * 4
#: Clean tables (2 KiB, 32 MiB of disk each) that are kept; changed ones are kept until they are durable.
_CACHED = 512


class SparseSink:
    """The file at C(path), of C(capacity) bytes. See VmdkSink."""

    def __init__(self, path: str, capacity: int, identity: Identity) -> None:
        self.path = path
        self.capacity = capacity
        self.header = layout(capacity)
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._tables: OrderedDict[int, array[int]] = OrderedDict()
        #: Changed since the last flush; and those that a flush is storing. None of them may be read from the disk.
        self._dirty: dict[int, array[int]] = {}
        self._storing: dict[int, array[int]] = {}
        self._clean = False
        #: Places (sectors) that may be used; and those whose last name is not yet gone from the disk.
        self._free: list[int] = []
        self._given_back: list[int] = []
        self._fd = -1
        if not os.path.exists(path):
            self._create(identity)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as e:
            raise SinkError("The target cannot be opened for writing.", disk=path, step="open the target", said=e.strerror) from e
        try:
            self._take_up()
        except BaseException:
            self.close()
            raise

    def _create(self, identity: Identity) -> None:
        """An empty disk, which gets its name when it is whole and durable."""
        new = f"{self.path}.{secrets.token_hex(4)}"
        try:
            writer = SparseWriter(new, self.capacity, identity)
            try:
                writer.finish()
            finally:
                writer.close()
            os.link(new, self.path)
        except FileExistsError:
            pass  # another process was first; the lock tells
        except OSError as e:
            raise SinkError("The target cannot be created.", disk=self.path, step="open the target", said=e.strerror) from e
        finally:
            if os.path.exists(new):
                os.unlink(new)

    def _take_up(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise Busy("Another process writes this target.", disk=self.path, step="lock the target", said=e.strerror) from e
        info = os.fstat(self._fd)
        self.identity = f"file:{info.st_dev}:{info.st_ino}"
        try:
            found = unpack_header(read_all(self._fd, 0, SECTOR, self.path), self.path)
        except FerryError as e:
            raise self._other(e.message) from e
        if replace(found, unclean=1) != self.header:
            raise self._other(f"a sparse VMDK of {found.capacity} bytes" if found.capacity != self.capacity else "made by another program")
        self._clean = not found.unclean
        used = self._both_tables(info.st_size)
        first, end = self.header.overhead, max(info.st_size // SECTOR, self.header.overhead)
        self._next = first + -(-(end - first) // GRAIN_SECTORS) * GRAIN_SECTORS
        self._free = [place for place in range(first, self._next, GRAIN_SECTORS) if place not in used]
        #: Nothing is stored: all reads as zeroes.
        self.reads_zero = not used
        for place in self._free:
            punch_hole(self._fd, place * SECTOR, GRAIN)

    def _other(self, said: str) -> BadInput:
        return BadInput(
            "Another file than a monolithicSparse disk of ours and of this size stands at the target.",
            code="target_exists",
            disk=self.path,
            step="open the target",
            said=said,
            next_command="name another target, or remove that file",
        )

    def _damaged(self, said: str) -> SinkError:
        return SinkError(
            "The target's grain tables are damaged.",
            code="target_damaged",
            disk=self.path,
            step="open the target",
            said=said,
            next_command="remove the file and run the same command again",
        )

    def _both_tables(self, size: int) -> _Used:
        """Read all tables, make both sets equal where a crash left them different, and say what is used."""
        h = self.header
        start = sectors(h.tables * 4)
        numbers: set[int] = set()
        for directory in (h.rgd_offset, h.gd_offset):
            begin = (directory + start) * SECTOR
            for at, length in data_ranges(self._fd, begin + h.tables * _TABLE):
                first, last = max(at, begin) - begin, at + length - begin
                numbers.update(range(first // _TABLE, max(-(-last // _TABLE), 0)))
        used = _Used(h.overhead, size)
        mended = False
        for number in sorted(numbers):
            table, other = (self._load(directory, number) for directory in (h.gd_offset, h.rgd_offset))
            if table != other:
                for i, (a, b) in enumerate(zip(table, other, strict=True)):
                    if a and b and a != b:
                        raise self._damaged(f"table {number}, entry {i}: {a} and {b}")
                    table[i] = a or b
                self._write_table(number, packed(table))
                mended = True
            for place in table:
                if place and not used.take(place):
                    raise self._damaged(f"table {number} names sector {place}")
        if mended:
            sync(self._fd, self.path)
        return used

    # -- tables -----------------------------------------------------------------------------------------------------

    def _table_at(self, directory: int, number: int) -> int:
        return (directory + sectors(self.header.tables * 4)) * SECTOR + number * _TABLE

    def _load(self, directory: int, number: int) -> array[int]:
        table = array("I")
        table.frombytes(read_all(self._fd, self._table_at(directory, number), _TABLE, self.path))
        if sys.byteorder == "big":
            table.byteswap()
        return table

    def _write_table(self, number: int, data: bytes) -> None:
        for directory in (self.header.rgd_offset, self.header.gd_offset):
            write_all(self._fd, data, self._table_at(directory, number), self.path)

    def _table(self, number: int) -> array[int]:
        """Table C(number), to be used under the lock."""
        table = self._dirty.get(number) or self._storing.get(number)
        if table is not None:
            return table
        table = self._tables.get(number)
        if table is None:
            table = self._tables[number] = self._load(self.header.gd_offset, number)
            if len(self._tables) > _CACHED:
                self._tables.popitem(last=False)
        else:
            self._tables.move_to_end(number)
        return table

    def _entry(self, grain: int) -> int:
        number, at = divmod(grain, GTES_PER_GT)
        return self._table(number)[at]

    def _set(self, grain: int, place: int) -> None:
        number, at = divmod(grain, GTES_PER_GT)
        table = self._table(number)
        table[at] = place
        self._dirty[number] = table
        self._tables.pop(number, None)

    def _place(self, grain: int) -> tuple[int, bool]:
        """(sector of C(grain), whether it is new); it gets a place where it has none. Under the lock."""
        place = self._entry(grain)
        if place:
            return place, False
        if self._free:
            place = self._free.pop()
        else:
            place = self._next
            if place + GRAIN_SECTORS > 1 << 32:
                raise SinkError("A monolithicSparse VMDK cannot hold more than 2 TiB of data.", disk=self.path, step="write")
            self._next += GRAIN_SECTORS
        self._set(grain, place)
        return place, True

    def _unclean(self) -> None:
        """Mark the file as being written. Under the lock."""
        if self._clean:
            write_all(self._fd, self.header.pack(), 0, self.path)
            self._clean = False

    # -- the data ---------------------------------------------------------------------------------------------------

    def _inside(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.capacity:
            raise SinkError(f"Bytes {offset} to {offset + length} lie outside the disk.", disk=self.path, step="write")

    def _grains(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(grain, first byte in it, bytes) of a range."""
        while length:
            grain, inside = divmod(offset, GRAIN)
            count = min(GRAIN - inside, length)
            yield grain, inside, count
            offset += count
            length -= count

    def _whole(self, grain: int, inside: int, count: int) -> bool:
        return not inside and (count == GRAIN or grain * GRAIN + count == self.capacity)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self._inside(offset, len(data))
        view = memoryview(data)
        at = begin = end = target = 0
        try:
            for grain, inside, count in self._grains(offset, len(data)):
                piece = view[at : at + count]
                with self._lock:
                    self._unclean()
                    if not piece[0] and self._whole(grain, inside, count) and piece.tobytes() == _ZERO[:count]:
                        self._give_back(grain)
                        place = 0
                    else:
                        place, new = self._place(grain)
                        if new and not self._whole(grain, inside, count):
                            self._put(_ZERO, place * SECTOR)
                byte = place * SECTOR + inside
                if place and end > begin and end == at and byte == target + end - begin:
                    end = at + count
                else:
                    self._put(view[begin:end], target)
                    begin, end, target = at, at + count if place else at, byte
                at += count
            self._put(view[begin:end], target)
        except OSError as e:
            raise self._failed(offset, e) from e

    def _put(self, data: bytes | memoryview, offset: int) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, offset)
            view = view[done:]
            offset += done

    def _failed(self, offset: int, e: OSError) -> SinkError:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return SinkError(
            f"The target cannot be written at byte {offset}.",
            code="target_full" if full else None,
            disk=self.path,
            step="write",
            said=e.strerror,
            next_command="make room and run the same command again; it goes on where it stopped" if full else None,
        )

    def _give_back(self, grain: int) -> None:
        place = self._entry(grain)
        if place:
            self._set(grain, 0)
            self._given_back.append(place)

    def zero(self, offset: int, length: int) -> None:
        self._inside(offset, length)
        # Whole tables without an entry are passed over at once: a hole of terabytes costs nothing.
        while length:
            number, inside = divmod(offset, GRAIN * GTES_PER_GT)
            count = min(GRAIN * GTES_PER_GT - inside, length)
            with self._lock:
                empty = not any(self._table(number))
            if not empty:
                for grain, first, part in self._grains(offset, count):
                    self._zero_grain(grain, first, part)
            offset += count
            length -= count

    def _zero_grain(self, grain: int, inside: int, count: int) -> None:
        with self._lock:
            place = self._entry(grain)
            if place:
                self._unclean()
            if self._whole(grain, inside, count):
                self._give_back(grain)
                return
        if place:
            try:
                self._put(_ZERO[:count], place * SECTOR + inside)
            except OSError as e:
                raise self._failed(grain * GRAIN, e) from e

    def read(self, offset: int, length: int) -> bytes:
        self._inside(offset, length)
        parts: list[bytes] = []
        # (byte in the file, length) of neighbours; 0 for zeroes
        run: tuple[int, int] | None = None
        for grain, inside, count in self._grains(offset, length):
            with self._lock:
                place = self._entry(grain)
            byte = place * SECTOR + inside if place else 0
            if run is not None and (byte == run[0] + run[1] if run[0] and byte else run[0] == byte):
                run = (run[0], run[1] + count)
            else:
                parts.extend(self._fetch(run))
                run = (byte, count)
        parts.extend(self._fetch(run))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _fetch(self, run: tuple[int, int] | None) -> list[bytes]:
        if run is None:
            return []
        if not run[0]:
            return [bytes(run[1])]
        inside = min(run[1], max(0, os.fstat(self._fd).st_size - run[0]))
        # The last grain of all may not be filled up yet.
        return [read_all(self._fd, run[0], inside, self.path) + bytes(run[1] - inside)]

    def is_hole(self, offset: int, length: int) -> bool:
        """True where no grain is stored in the range."""
        with self._lock:
            return not any(self._entry(grain) for grain, _inside, _count in self._grains(offset, length))

    # -- durability -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        with self._flushing:
            with self._lock:
                self._storing, self._dirty = self._dirty, {}
                changed = {number: packed(table) for number, table in self._storing.items()}
                back, self._given_back = self._given_back, []
                end = self._next * SECTOR
            try:
                if os.fstat(self._fd).st_size < end:
                    os.ftruncate(self._fd, end)
                sync(self._fd, self.path)
                for number, data in changed.items():
                    self._write_table(number, data)
                if changed:
                    sync(self._fd, self.path)
            except BaseException as e:
                with self._lock:
                    self._dirty = {**self._storing, **self._dirty}
                    self._storing = {}
                    self._given_back.extend(back)
                if isinstance(e, OSError):
                    raise self._failed(0, e) from e
                raise
            for place in back:
                punch_hole(self._fd, place * SECTOR, GRAIN)
            with self._lock:
                self._free.extend(back)
                self._tables.update((number, table) for number, table in self._storing.items() if number not in self._dirty)
                self._storing = {}
                while len(self._tables) > _CACHED:
                    self._tables.popitem(last=False)
                if not self._clean and not self._dirty:
                    write_all(self._fd, replace(self.header, unclean=0).pack(), 0, self.path)
                    sync(self._fd, self.path)
                    self._clean = True

    def stamp(self) -> str:
        """Changes when somebody else writes the file afterwards (size, mtime)."""
        info = os.fstat(self._fd)
        return f"{info.st_size}:{info.st_mtime_ns}"

    def forget_cache(self) -> None:
        """Ask the kernel to drop its cached pages, so that reading back reads what is stored. Call C(flush) first."""
        try:
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            pass  # advice only

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Used:
    """Which places for grains are taken."""

    def __init__(self, first: int, size: int) -> None:
        self._first = first
        self._count = max(0, -(-(size // SECTOR - first) // GRAIN_SECTORS))
        self._bits = bytearray(self._count // 8 + 1)
        self._any = False

    def _index(self, place: int) -> int:
        index, rest = divmod(place - self._first, GRAIN_SECTORS)
        return -1 if rest or not 0 <= index < self._count else index

    def take(self, place: int) -> bool:
        """Take C(place); False where it is none, or taken."""
        index = self._index(place)
        if index < 0 or self._bits[index >> 3] & 1 << (index & 7):
            return False
        self._bits[index >> 3] |= 1 << (index & 7)
        self._any = True
        return True

    def __contains__(self, place: int) -> bool:
        index = self._index(place)
        return index >= 0 and bool(self._bits[index >> 3] & 1 << (index & 7))

    def __bool__(self) -> bool:
        return self._any
