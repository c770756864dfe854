# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A monolithicSparse VMDK that is written in any order, durable at each flush, and taken up again after a crash.

Source of the format: see vmdk/structs.py. What C(write) and C(zero) did is in the file, with both sets of tables, when they return: a
process that is killed loses nothing of it. A grain is written before a table names it. After a power failure the sets may differ, and may
name grains whose bytes or place in the file were lost; these belong to chunks that the ledger does not call done, so either set is right
there, and what is gone reads as zeroes. Grains that are given back are used again only after a flush: no table on the disk names them then.
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
from ..vmdk.flat_writer import read_all
from ..vmdk.sparse_writer import SparseWriter, layout, packed
from ..vmdk.structs import GRAIN_SECTORS, GTES_PER_GT, sectors, unpack_header
from . import label
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
        self._clean = False
        self._changes = 0
        #: Tables of which one set may hold what the other does not, as writing them failed.
        self._torn: set[int] = set()
        #: Places (sectors) that may be used; and those that a table on the disk may still name.
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
        try:
            used = self._both_tables(info.st_size)
        except OSError as e:
            raise self._failed(0, e) from e
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
        for number in sorted(numbers):
            table, other = (self._load(directory, number) for directory in (h.gd_offset, h.rgd_offset))
            both = array("I", [self._believed(a or b, size) for a, b in zip(table, other, strict=True)])
            if both != table or both != other:
                self._write_entries(number, 0, both)
            for place in both:
                if place and not used.take(place):
                    raise self._damaged(f"table {number} names sector {place}")
        # What no table names may be used from now on, so that has to be certain.
        os.fsync(self._fd)
        return used

    @staticmethod
    def _believed(place: int, size: int) -> int:
        """C(place), unless the file ends before it: then the power failed before it was flushed."""
        return place if place * SECTOR < size else 0

    # -- tables -----------------------------------------------------------------------------------------------------

    def _table_at(self, directory: int, number: int) -> int:
        return (directory + sectors(self.header.tables * 4)) * SECTOR + number * _TABLE

    def _load(self, directory: int, number: int) -> array[int]:
        table = array("I")
        table.frombytes(read_all(self._fd, self._table_at(directory, number), _TABLE, self.path))
        if sys.byteorder == "big":
            table.byteswap()
        return table

    def _write_entries(self, number: int, first: int, entries: array[int]) -> None:
        data = packed(entries)
        for directory in (self.header.rgd_offset, self.header.gd_offset):
            self._put(data, self._table_at(directory, number) + 4 * first)

    def _table(self, number: int) -> array[int]:
        """Table C(number), to be used under the lock."""
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

    def _set(self, first: int, places: list[int]) -> None:
        """Give the grains from C(first) on these places; what they had is given back. Under the lock."""
        while places:
            number, at = divmod(first, GTES_PER_GT)
            table = self._table(number)
            part = array("I", places[: GTES_PER_GT - at])
            before = table[at : at + len(part)]
            if before != part:
                self._unclean()
                self._changes += 1
                self._torn.add(number)
                self._write_entries(number, at, part)
                self._torn.discard(number)
                table[at : at + len(part)] = part
                self._given_back.extend(old for old, new in zip(before, part, strict=True) if old and old != new)
            first += len(part)
            places = places[len(part) :]

    def _reserve(self) -> int:
        """A place for a grain, which no table names yet. Under the lock."""
        if self._free:
            return self._free.pop()
        place = self._next
        if place + GRAIN_SECTORS > 1 << 32:
            raise SinkError("A monolithicSparse VMDK cannot hold more than 2 TiB of data.", disk=self.path, step="write")
        self._next += GRAIN_SECTORS
        return place

    def _unclean(self) -> None:
        """Mark the file as being written. Under the lock."""
        if self._clean:
            self._put(self.header.pack(), 0)
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
        at = 0
        #: Neighbouring whole grains: the first one, their places, and the bytes of C(data) that they take.
        first, places, begin = -1, list[int](), 0
        try:
            for grain, inside, count in self._grains(offset, len(data)):
                if self._whole(grain, inside, count):
                    if not places:
                        first, begin = grain, at
                    piece = view[at : at + count]
                    zero = not piece[0] and piece.tobytes() == _ZERO[:count]
                    with self._lock:
                        places.append(0 if zero else self._entry(grain) or self._reserve())
                else:
                    self._patch(grain, inside, view[at : at + count])
                at += count
            self._put_grains(first, places, view[begin : begin + len(places) * GRAIN])
        except OSError as e:
            raise self._failed(offset, e) from e

    def _put_grains(self, first: int, places: list[int], data: memoryview) -> None:
        """Write whole grains to their places, then name these in the tables."""
        number = 0
        while number < len(places):
            end = number + 1
            while end < len(places) and places[number] and places[end] == places[end - 1] + GRAIN_SECTORS:
                end += 1
            if places[number]:
                self._put(data[number * GRAIN : end * GRAIN], places[number] * SECTOR)
            number = end
        with self._lock:
            self._set(first, places)

    def _patch(self, grain: int, inside: int, piece: memoryview) -> None:
        """Write a part of a grain; a new one is filled up with zeroes before a table names it."""
        with self._lock:
            place = self._entry(grain)
            if not place:
                place = self._reserve()
                self._put(_ZERO, place * SECTOR)
                self._set(grain, [place])
        self._put(piece, place * SECTOR + inside)

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

    def zero(self, offset: int, length: int) -> None:
        self._inside(offset, length)
        span = GRAIN * GTES_PER_GT
        try:
            while length:
                number, inside = divmod(offset, span)
                count = min(span - inside, length)
                with self._lock:
                    # A whole table without an entry is passed over at once: a hole of terabytes costs little.
                    empty = not any(self._table(number))
                if not empty:
                    self._zero_grains(offset, count)
                offset += count
                length -= count
        except OSError as e:
            raise self._failed(offset, e) from e

    def _zero_grains(self, offset: int, length: int) -> None:
        """Give back whole grains of one table; overwrite the parts of others."""
        whole: list[int] = []
        for grain, inside, count in self._grains(offset, length):
            if self._whole(grain, inside, count):
                whole.append(grain)
                continue
            with self._lock:
                place = self._entry(grain)
            if place:
                self._put(_ZERO[:count], place * SECTOR + inside)
        if whole:
            with self._lock:
                self._set(whole[0], [0] * len(whole))

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
                back, self._given_back = self._given_back, []
                changes = self._changes
                end = self._next * SECTOR
            try:
                with self._lock:
                    while self._torn:
                        number = next(iter(self._torn))
                        self._write_entries(number, 0, self._table(number))
                        self._torn.discard(number)
                if os.fstat(self._fd).st_size < end:
                    os.ftruncate(self._fd, end)
                os.fsync(self._fd)
                for place in back:
                    punch_hole(self._fd, place * SECTOR, GRAIN)
                with self._lock:
                    self._free.extend(back)
                    back = []
                    if not self._clean and changes == self._changes:
                        self._put(replace(self.header, unclean=0).pack(), 0)
                        os.fsync(self._fd)
                        self._clean = True
            except OSError as e:
                raise self._failed(0, e) from e
            finally:
                with self._lock:
                    self._given_back.extend(back)

    def stamp(self) -> str:
        """Changes when somebody else writes the file afterwards (size, mtime)."""
        info = os.fstat(self._fd)
        return f"{info.st_size}:{info.st_mtime_ns}"

    def label(self) -> str:
        """What C(set_label) wrote; empty where the file has no label."""
        return label.read(self._fd)

    def set_label(self, text: str) -> bool:
        """Say at the file whose ledger speaks of it; False where that cannot be said."""
        return label.write(self._fd, text)

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
