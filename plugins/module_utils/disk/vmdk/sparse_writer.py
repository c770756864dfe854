# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writer of hosted sparse extents (monolithicSparse): grains where they come, tables in front, twice."""

from __future__ import annotations

import os
import sys
import threading
from array import array
from collections import OrderedDict
from dataclasses import replace

from ..controllers import by_name
from ..errors import SinkError
from ..model import SECTOR
from .base import Identity, checked_capacity
from .descriptor import compose
from .flat_writer import Behind, read_all, sync, write_all
from .geometry import chs
from .structs import FLAG_NEWLINE, FLAG_REDUNDANT, GRAIN_SECTORS, GT_SECTORS, GTES_PER_GT, SparseHeader, sectors

_DESCRIPTOR_AT = 1
_DESCRIPTOR_SECTORS = 20
_CACHED = 256
_GRAIN = GRAIN_SECTORS * SECTOR
_ZERO_GRAIN = bytes(_GRAIN)


def packed(numbers: array[int]) -> bytes:
    """C(numbers) as unsigned 32 bit little-endian."""
    if sys.byteorder == "big":
        numbers = array("I", numbers)
        numbers.byteswap()
    return numbers.tobytes()


def safe_name(name: str) -> str:
    """A name for an embedded descriptor, where it is only a label: Glance wants ASCII without slashes there."""
    return name if name.isascii() and name.isprintable() and not set(name) & set('"/\\') else "disk.vmdk"


def layout(capacity: int, *, embedded: bool = True) -> SparseHeader:
    """The header of a sparse file: descriptor (if C(embedded)), redundant directory and tables, directory and tables, grains."""
    descriptor = _DESCRIPTOR_SECTORS if embedded else 0
    h = SparseHeader(
        version=1,
        flags=FLAG_NEWLINE | FLAG_REDUNDANT,
        capacity_sectors=capacity // SECTOR,
        descriptor_offset=_DESCRIPTOR_AT if embedded else 0,
        descriptor_sectors=descriptor,
        rgd_offset=_DESCRIPTOR_AT + descriptor,
        unclean=1,
    )
    half = sectors(h.tables * 4) + h.tables * GT_SECTORS
    end = h.rgd_offset + 2 * half
    return replace(h, gd_offset=h.rgd_offset + half, overhead=-(-end // GRAIN_SECTORS) * GRAIN_SECTORS)


class SparseWriter:
    """A monolithicSparse file at C(path); ranges may come in any order and from several threads.

    Without C(identity) it has no descriptor: an extent of a split disk.
    """

    create_type = "monolithicSparse"
    reads_zero = True

    def __init__(self, path: str, capacity: int, identity: Identity | None) -> None:
        self.path = path
        self.capacity = checked_capacity(capacity)
        self.header = layout(capacity, embedded=identity is not None)
        self._next = self.header.overhead
        self._tables: OrderedDict[int, array[int]] = OrderedDict()
        self._dirty: set[int] = set()
        self._lock = threading.Lock()
        text = b"" if identity is None else self._descriptor(identity)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise SinkError("The file cannot be created.", disk=path, step="create the file", said=e.strerror) from e
        self._behind = Behind(self._fd, path)
        try:
            os.ftruncate(self._fd, self.header.overhead * SECTOR)
            write_all(self._fd, self.header.pack(), 0, path)
            write_all(self._fd, text.ljust(self.header.descriptor_sectors * SECTOR, b"\0"), _DESCRIPTOR_AT * SECTOR, path)
            for offset in (self.header.rgd_offset, self.header.gd_offset):
                self._write_directory(offset)
        except OSError as e:
            self.close()
            raise SinkError("The file cannot be created.", disk=path, step="create the file", said=e.strerror) from e
        except BaseException:
            self.close()
            raise

    def _descriptor(self, identity: Identity) -> bytes:
        controller = by_name(identity.adapter_type)
        return compose(
            create_type=self.create_type,
            extents=[("RW", self.capacity // SECTOR, "SPARSE", safe_name(identity.name), None)],
            adapter_type=controller.ddb or controller.name,
            geometry=chs(self.capacity, controller.name),
            hw_version=identity.hw_version,
            cid=identity.content_id,
            uuid=identity.uuid,
        )

    def _write_directory(self, offset: int) -> None:
        first = offset + sectors(self.header.tables * 4)
        page = 1 << 16
        for start in range(0, self.header.tables, page):
            stop = min(start + page, self.header.tables)
            entries = array("I", range(first + start * GT_SECTORS, first + stop * GT_SECTORS, GT_SECTORS))
            write_all(self._fd, packed(entries), offset * SECTOR + start * 4, self.path)

    @property
    def bytes_out(self) -> int:
        return self._next * SECTOR

    def _table_at(self, directory: int, number: int) -> int:
        return (directory + sectors(self.header.tables * 4) + number * GT_SECTORS) * SECTOR

    def _table(self, number: int) -> array[int]:
        """Table C(number), to be used under the lock."""
        table = self._tables.get(number)
        if table is None:
            if len(self._tables) >= _CACHED:
                old, entries = self._tables.popitem(last=False)
                self._store(old, entries)
            table = array("I")
            table.frombytes(read_all(self._fd, self._table_at(self.header.gd_offset, number), GTES_PER_GT * 4, self.path))
            if sys.byteorder == "big":
                table.byteswap()
            self._tables[number] = table
        else:
            self._tables.move_to_end(number)
        return table

    def _store(self, number: int, entries: array[int]) -> None:
        if number in self._dirty:
            data = packed(entries)
            for directory in (self.header.rgd_offset, self.header.gd_offset):
                write_all(self._fd, data, self._table_at(directory, number), self.path)
            self._dirty.discard(number)

    def _place(self, grain: int, *, make: bool) -> tuple[int, bool]:
        """(sector of C(grain) or 0, whether it is new), under the lock."""
        number, at = divmod(grain, GTES_PER_GT)
        table = self._table(number)
        if table[at] or not make:
            return table[at], False
        if self._next + GRAIN_SECTORS > 1 << 32:
            raise SinkError("A sparse extent cannot hold more than 2 TiB of data.", disk=self.path, step="write")
        table[at] = self._next
        self._dirty.add(number)
        self._next += GRAIN_SECTORS
        return table[at], True

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if offset < 0 or offset + len(data) > self.capacity:
            raise SinkError(f"Bytes {offset} to {offset + len(data)} lie outside the disk.", disk=self.path, step="write")
        if isinstance(data, memoryview):
            data = bytes(data)
        at = begin = end = 0
        target = 0
        while at < len(data):
            grain, inside = divmod(offset + at, _GRAIN)
            count = min(_GRAIN - inside, len(data) - at)
            if inside or (count < _GRAIN and offset + at + count != self.capacity):
                self._patch(grain, inside, data[at : at + count])
                at += count
                continue
            with self._lock:
                # a whole grain of zeroes needs no place, unless it has one; startswith compares without a copy
                place, _new = self._place(grain, make=not data.startswith(_ZERO_GRAIN[:count], at))
            if place:
                # the last grain may be cut by the capacity: what is behind it in the file is a hole
                if end != at or place * SECTOR != target + end - begin:
                    self._write_run(data, begin, end, target)
                    begin, target = at, place * SECTOR
                end = at + count
            at += count
        self._write_run(data, begin, end, target)

    def _write_run(self, data: bytes | bytearray, begin: int, end: int, target: int) -> None:
        """Write C(data) from C(begin) to C(end) at byte C(target) of the file."""
        if end > begin:
            write_all(self._fd, memoryview(data)[begin:end], target, self.path)
            self._behind.wrote(target, end - begin)

    def _patch(self, grain: int, inside: int, piece: bytes | bytearray) -> None:
        """Write a part of a grain. A new grain is filled up with zeroes first."""
        with self._lock:
            place, new = self._place(grain, make=any(piece))
            if place and new:
                write_all(self._fd, _ZERO_GRAIN, place * SECTOR, self.path)
        if place:
            write_all(self._fd, piece, place * SECTOR + inside, self.path)

    def zero(self, offset: int, length: int) -> None:
        while length:
            count = min(length, 1 << 20)
            self.write(offset, bytes(count))
            offset += count
            length -= count

    def read(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        while length:
            grain, inside = divmod(offset, _GRAIN)
            count = min(_GRAIN - inside, length)
            with self._lock:
                place, _new = self._place(grain, make=False)
            parts.append(read_all(self._fd, place * SECTOR + inside, count, self.path) if place else bytes(count))
            offset += count
            length -= count
        return b"".join(parts)

    def flush(self) -> None:
        with self._lock:
            for number, entries in self._tables.items():
                self._store(number, entries)
        sync(self._fd, self.path)

    def finish(self) -> None:
        try:
            os.ftruncate(self._fd, self._next * SECTOR)
        except OSError as e:
            raise SinkError("The file cannot be finished.", disk=self.path, step="write", said=e.strerror) from e
        self.flush()
        write_all(self._fd, replace(self.header, unclean=0).pack(), 0, self.path)
        sync(self._fd, self.path)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
