# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writer of stream-optimized disks: one pass forward, into a file, a pipe or an HTTP body."""

from __future__ import annotations

import itertools
from array import array
from dataclasses import dataclass, replace
from typing import Any, Iterator, Protocol

from ..controllers import by_name
from ..digest import DigestMap, chunk_digest
from ..errors import SinkError
from ..model import SECTOR, Source
from .base import UNIT, Identity, Progress, Unit, checked_capacity, cores, estimate, fill_unit, is_zero, ordered, units
from .compress import deflater
from .descriptor import compose
from .geometry import chs
from .sparse_writer import packed, safe_name
from .structs import (
    DEFLATE,
    FLAG_COMPRESSED,
    FLAG_MARKERS,
    FLAG_NEWLINE,
    GD_AT_END,
    GRAIN_MARKER,
    GRAIN_SECTORS,
    GT_SECTORS,
    GTES_PER_GT,
    MARKER_EOS,
    MARKER_FOOTER,
    MARKER_GD,
    MARKER_GT,
    SparseHeader,
    marker,
    sectors,
)

_GRAIN = GRAIN_SECTORS * SECTOR
_ZERO_GRAIN = bytes(_GRAIN)
_OVERHEAD = 128
_DESCRIPTOR_SECTORS = 20


class Out(Protocol):
    """Whatever takes bytes in order."""

    def write(self, data: bytes, /) -> Any: ...


@dataclass(frozen=True)
class Packed:
    """Compressed grains in the order of the disk: (grain's number, its place in C(data)), every place a multiple of a sector."""

    grains: tuple[tuple[int, int], ...]
    data: bytes


class StreamWriter:
    """A streamOptimized disk written to C(out) as it comes. Ranges must ascend and be whole grains (but for the disk's end).

    As a Sink it cannot be read back. C(pack) may run in several threads, C(emit) in one.
    """

    create_type = "streamOptimized"
    reads_zero = True

    def __init__(self, out: Out, capacity: int, identity: Identity, *, level: int | None = None) -> None:
        self.capacity = checked_capacity(capacity)
        self._out = out
        self._deflate = deflater(level)
        controller = by_name(identity.adapter_type)
        self.header = SparseHeader(
            version=3,
            flags=FLAG_NEWLINE | FLAG_COMPRESSED | FLAG_MARKERS,
            capacity_sectors=capacity // SECTOR,
            descriptor_offset=1,
            descriptor_sectors=_DESCRIPTOR_SECTORS,
            gd_offset=GD_AT_END,
            overhead=_OVERHEAD,
            compression=DEFLATE,
        )
        text = compose(
            create_type=self.create_type,
            extents=[("RW", capacity // SECTOR, "SPARSE", safe_name(identity.name), None)],
            adapter_type=controller.ddb or controller.name,
            geometry=chs(capacity, controller.name),
            hw_version=identity.hw_version,
            cid=identity.content_id,
            uuid=identity.uuid,
        )
        self._directory = array("I", bytes(4 * self.header.tables))
        self._table = array("I", bytes(4 * GTES_PER_GT))
        self._number = 0
        self._used = False
        self._last = -1
        self._position = 0
        self._put(self.header.pack() + text.ljust((_OVERHEAD - 1) * SECTOR, b"\0"))

    @property
    def bytes_out(self) -> int:
        return self._position * SECTOR

    def _put(self, data: bytes) -> None:
        self._out.write(data)
        self._position += len(data) // SECTOR

    def pack(self, offset: int, data: bytes | bytearray) -> Packed:
        """Compress the grains of C(data) that are not all zero. C(offset) is a multiple of a grain."""
        grains: list[tuple[int, int]] = []
        parts: list[bytes] = []
        at = 0
        first = offset // _GRAIN
        view = memoryview(data)
        for number, start in enumerate(range(0, len(data), _GRAIN), first):
            short = start + _GRAIN - len(data)
            if data.startswith(_ZERO_GRAIN if short <= 0 else _ZERO_GRAIN[short:], start):
                continue
            body = self._deflate(view[start : start + _GRAIN] if short <= 0 else bytes(data[start:]).ljust(_GRAIN, b"\0"))
            size = GRAIN_MARKER.size + len(body)
            pad = -size % SECTOR
            grains.append((number, at))
            parts.append(GRAIN_MARKER.pack(number * GRAIN_SECTORS, len(body)))
            parts.append(body)
            parts.append(bytes(pad))
            at += size + pad
        return Packed(tuple(grains), b"".join(parts))

    def emit(self, pack: Packed) -> None:
        """Write C(pack), which lies after all that was written before."""
        start = 0
        for grain, at in pack.grains:
            if grain <= self._last:
                raise SinkError(f"A stream is written forwards only: grain {grain} comes after grain {self._last}.", step="write")
            if grain // GTES_PER_GT != self._number:
                self._put(pack.data[start:at])
                start = at
                self._end_table()
                self._number = grain // GTES_PER_GT
            place = self._position + (at - start) // SECTOR
            if place >= 1 << 32:
                raise SinkError("A streamOptimized disk cannot hold more than 2 TiB of compressed data.", step="write")
            self._table[grain % GTES_PER_GT] = place
            self._used = True
            self._last = grain
        if start < len(pack.data):
            self._put(pack.data[start:] if start else pack.data)

    def _end_table(self) -> None:
        if not self._used:
            return
        self._directory[self._number] = self._position + 1
        self._put(marker(MARKER_GT, GT_SECTORS) + packed(self._table))
        self._table = array("I", bytes(4 * GTES_PER_GT))
        self._used = False

    def write(self, offset: int, data: bytes | memoryview) -> None:
        end = offset + len(data)
        if offset % _GRAIN or end > self.capacity or (end % _GRAIN and end != self.capacity):
            raise SinkError(f"Bytes {offset} to {end} are no whole grains of {_GRAIN} bytes.", step="write")
        for at in range(0, len(data), UNIT):
            self.emit(self.pack(offset + at, bytes(data[at : at + UNIT])))

    def zero(self, offset: int, length: int) -> None:
        """Nothing: what is not written reads as zeroes."""

    def read(self, offset: int, length: int) -> bytes:
        raise SinkError("A stream cannot be read back while it is written.", step="read back")

    def flush(self) -> None:
        flush = getattr(self._out, "flush", None)
        if flush is not None:
            flush()

    def finish(self) -> None:
        """Write the last table, the directory, the footer and the end of the stream."""
        self._end_table()
        directory = packed(self._directory)
        directory += bytes(-len(directory) % SECTOR)
        place = self._position + 1
        if place >= 1 << 32:
            raise SinkError("A streamOptimized disk cannot hold more than 2 TiB of compressed data.", step="write")
        self._put(marker(MARKER_GD, sectors(len(directory))) + directory)
        self._put(marker(MARKER_FOOTER, 1) + replace(self.header, gd_offset=place).pack())
        self._put(marker(MARKER_EOS, 0))
        self.flush()

    def close(self) -> None:
        """Nothing: C(out) belongs to the caller."""


def chunks(
    source: Source,
    pack: Any,
    *,
    threads: int | None = None,
    digest: DigestMap | None = None,
    checksum: Any = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Unit, Any]]:
    """Read the units of C(source) in threads; yield each with C(pack(offset, data)) in the order of the disk.

    C(data) is a buffer that is used again: what C(pack) keeps of it is good until the next unit is asked for.

    :param digest: filled with the digest of every chunk.
    :param checksum: a hashlib object, fed with the whole disk in order (zeroes too).
    :param progress: called with (bytes done, capacity) after each unit; an exception from it stops the work.
    """

    once = getattr(source, "chunks", None)
    if once is not None:
        # A source that can only be read forwards, once (fifo.PipedDisk).
        yield from once(pack, threads=threads or cores(), digest=digest, checksum=checksum, progress=progress)
        return

    # New memory for each unit costs as much as its reading.
    free: list[bytearray] = []

    def work(unit: Unit) -> tuple[Unit, bytes | None, bytearray, Any]:
        try:
            data = free.pop() if unit.length == UNIT else bytearray(unit.length)
        except IndexError:
            data = bytearray(UNIT)
        fill_unit(source, unit, data)
        if is_zero(data):
            return unit, None, data, None
        hashed = None if digest is None else chunk_digest(data)
        return unit, hashed, data, pack(unit.offset, data)

    done = 0
    for unit, hashed, data, result in ordered(work, units(source), threads or cores()):
        if digest is not None and hashed is not None:
            digest.set(unit.offset // UNIT, hashed)
        if checksum is not None:
            feed_zeroes(checksum, unit.offset - done)
            checksum.update(data)
        done = unit.offset + unit.length
        if result is not None:
            yield unit, result
        if unit.length == UNIT:
            free.append(data)
        if progress is not None:
            progress(done, source.capacity)
    if checksum is not None:
        feed_zeroes(checksum, source.capacity - done)
    if progress is not None:
        progress(source.capacity, source.capacity)


def feed_zeroes(checksum: Any, length: int) -> None:
    """Feed a hashlib object with C(length) zero bytes."""
    block = bytes(min(length, UNIT))
    while length > 0:
        checksum.update(block[: min(length, UNIT)])
        length -= UNIT


def write_stream(
    source: Source,
    out: Out,
    *,
    adapter_type: str = "lsilogic",
    hw_version: int | None = None,
    level: int | None = None,
    threads: int | None = None,
    name: str = "disk.vmdk",
    uuid: str | None = None,
    cid: int | None = None,
    digest: DigestMap | None = None,
    checksum: Any = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write C(source) as a streamOptimized VMDK to C(out), forwards only, compressed by C(threads) threads.

    Memory is about 5 MiB for each thread, whatever the disk's size. The first exception of source, compression or
    C(out) reaches the caller. Returns bytes_in (read as data), bytes_out and capacity.
    With C(uuid) and C(cid), the same disk gives the same bytes each time.
    """
    identity = Identity(name=name, adapter_type=adapter_type, uuid=uuid, cid=cid)
    if hw_version is not None:
        identity = replace(identity, hw_version=hw_version)
    writer = StreamWriter(out, source.capacity, identity, level=level)
    counted = 0
    for unit, pack in chunks(source, writer.pack, threads=threads, digest=digest, checksum=checksum, progress=progress):
        writer.emit(pack)
        counted += unit.data
    writer.finish()
    return {"bytes_in": counted, "bytes_out": writer.bytes_out, "capacity": source.capacity}


def predict_size(source: Source, *, level: int | None = None) -> int:
    """Bytes that write_stream will make of C(source), within about 5 %, from samples of its data."""
    writer = StreamWriter(_Nowhere(), source.capacity, Identity(), level=level)
    _data, stored = estimate(source, lambda unit, data: len(writer.pack(unit.offset, data).data))
    tables = sum(1 for _table in itertools.groupby(units(source), lambda unit: unit.offset // (_GRAIN * GTES_PER_GT)))
    directory = 1 + sectors(4 * writer.header.tables)
    footer_and_end = 3
    return writer.bytes_out + stored + (tables * (1 + GT_SECTORS) + directory + footer_and_end) * SECTOR


class _Nowhere:
    def write(self, data: bytes, /) -> None:
        """Drop it."""
