# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A monolithicSparse VMDK written forwards only: for readers that take no streamOptimized one with its tables at the end.

Its grains are stored as they are, so where each will lie follows from what is allocated, before a byte is read: header, descriptor,
directories and tables go first, the grains after them. Cinder is such a reader (cinder/image/format_inspector.py refuses a
C(gdOffset) of C(GD_AT_END), "Unsupported VMDK footer"), and so an image that is to become a volume has to have this form.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Any, Callable, Iterator

from ..controllers import by_name
from ..digest import DigestMap, chunk_digest
from ..errors import SinkError
from ..model import SECTOR, Source
from .base import UNIT, Identity, checked_capacity, cores, is_zero, ordered, read_unit, units
from .base import Unit as DiskUnit
from .descriptor import compose
from .geometry import chs
from .sparse_writer import layout, packed, safe_name
from .stream_writer import Out
from .structs import GRAIN_SECTORS, GT_SECTORS, GTES_PER_GT, SparseHeader, sectors

CREATE_TYPE = "monolithicSparse"
_GRAIN = GRAIN_SECTORS * SECTOR
#: Directory entries written at once.
_PAGE = 1 << 16

Progress = Callable[[int, int], None]


def _grains(unit: DiskUnit) -> list[int]:
    """Numbers of the grains of C(unit) that hold data, ascending."""
    found: list[int] = []
    for start, length in unit.ranges:
        first, last = start // _GRAIN, (start + length - 1) // _GRAIN
        found += range(max(first, found[-1] + 1) if found else first, last + 1)
    return found


def size_of(source: Source) -> int:
    """Bytes that write_sparse_stream will make of C(source): exactly, without reading its data."""
    header = layout(checked_capacity(source.capacity))
    return header.overhead * SECTOR + sum(len(_grains(u)) for u in units(source)) * _GRAIN


def _descriptor(capacity: int, identity: Identity) -> bytes:
    controller = by_name(identity.adapter_type)
    return compose(
        create_type=CREATE_TYPE,
        extents=[("RW", capacity // SECTOR, "SPARSE", safe_name(identity.name), None)],
        adapter_type=controller.ddb or controller.name,
        geometry=chs(capacity, controller.name),
        hw_version=identity.hw_version,
        cid=identity.content_id,
        uuid=identity.uuid,
    )


def _directory(header: SparseHeader, offset: int) -> Iterator[bytes]:
    first = offset + sectors(header.tables * 4)
    for start in range(0, header.tables, _PAGE):
        stop = min(start + _PAGE, header.tables)
        yield packed(array("I", range(first + start * GT_SECTORS, first + stop * GT_SECTORS, GT_SECTORS)))
    yield bytes(sectors(header.tables * 4) * SECTOR - header.tables * 4)


def _tables(header: SparseHeader, source: Source) -> Iterator[bytes]:
    """All grain tables in order: grain after grain gets the next place."""
    place = header.overhead
    number = 0
    entries = array("I", bytes(4 * GTES_PER_GT))
    for unit in units(source):
        for grain in _grains(unit):
            table, at = divmod(grain, GTES_PER_GT)
            while number < table:
                yield packed(entries)
                entries = array("I", bytes(4 * GTES_PER_GT))
                number += 1
            if place + GRAIN_SECTORS > 1 << 32:
                raise SinkError("A sparse extent cannot hold more than 2 TiB of data.", step="write")
            entries[at] = place
            place += GRAIN_SECTORS
    while number < header.tables:
        yield packed(entries)
        entries = array("I", bytes(4 * GTES_PER_GT))
        number += 1


def write_sparse_stream(
    source: Source,
    out: Out,
    *,
    adapter_type: str = "lsilogic",
    name: str = "disk.vmdk",
    uuid: str | None = None,
    cid: int | None = None,
    threads: int | None = None,
    digest: DigestMap | None = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write C(source) as a monolithicSparse VMDK to C(out), forwards only. Returns bytes_in, bytes_out (size_of()) and capacity.

    What the source calls data is stored, zeroes within it too. Its extents are asked for several times and must stay the same.
    With C(uuid) and C(cid), the same disk gives the same bytes each time.

    :param digest: filled with the digest of every chunk.
    :param progress: called with (bytes of the disk done, capacity); an exception from it stops the work.
    """
    capacity = checked_capacity(source.capacity)
    header = layout(capacity)
    put = _Counted(out)
    put.write(replace(header, unclean=0).pack())
    text = _descriptor(capacity, Identity(name=name, adapter_type=adapter_type, uuid=uuid, cid=cid))
    put.write(text.ljust(header.descriptor_sectors * SECTOR, b"\0"))
    for offset in (header.rgd_offset, header.gd_offset):
        for block in _directory(header, offset):
            put.write(block)
        for block in _tables(header, source):
            put.write(block)
    put.write(bytes(header.overhead * SECTOR - put.count))

    def work(unit: DiskUnit) -> tuple[DiskUnit, bytes, Any]:
        data = read_unit(source, unit)
        return unit, data, None if digest is None or is_zero(data) else chunk_digest(data)

    counted = 0
    for unit, data, hashed in ordered(work, units(source), threads or min(cores(), 4)):
        if digest is not None and hashed is not None:
            digest.set(unit.offset // UNIT, hashed)
        view = memoryview(data)
        for first, last in _runs(_grains(unit)):
            begin = first * _GRAIN - unit.offset
            end = (last + 1) * _GRAIN - unit.offset
            put.write(view[begin:end])
            if end > len(data):  # the last grain reaches beyond the disk
                put.write(bytes(end - len(data)))
        counted += unit.data
        if progress is not None:
            progress(unit.offset + unit.length, capacity)
    if progress is not None:
        progress(capacity, capacity)
    return {"bytes_in": counted, "bytes_out": put.count, "capacity": capacity}


def _runs(grains: list[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of the grains that follow one another."""
    start = 0
    for i in range(1, len(grains) + 1):
        if i == len(grains) or grains[i] != grains[i - 1] + 1:
            yield grains[start], grains[i - 1]
            start = i


class _Counted:
    """Hands blocks on and counts their bytes."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self.count = 0

    def write(self, block: bytes | memoryview) -> None:
        if len(block):
            self._out.write(bytes(block))
            self.count += len(block)
