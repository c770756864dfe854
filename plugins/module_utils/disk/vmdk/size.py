# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much of a disk will be stored: zeroes inside of data, and what the formats themselves take."""

from __future__ import annotations

import itertools

from ..model import SECTOR, Source
from .base import estimate, units
from .sparse_writer import layout
from .split_writer import part_sizes
from .stream_writer import predict_size
from .structs import GRAIN_SECTORS

_GRAIN = GRAIN_SECTORS * SECTOR
_ZERO = bytes(_GRAIN)


def pieces(data: bytes | bytearray) -> list[tuple[int, int]]:
    """(start, length) of the runs of grains in C(data) that are not all zero."""
    found: list[tuple[int, int]] = []
    for at in range(0, len(data), _GRAIN):
        count = min(_GRAIN, len(data) - at)
        # compares without a copy, and ends at the first byte that differs
        if data.startswith(_ZERO if count == _GRAIN else _ZERO[:count], at):
            continue
        if found and sum(found[-1]) == at:
            found[-1] = (found[-1][0], found[-1][1] + count)
        else:
            found.append((at, count))
    return found


def predict(source: Source, format: str, *, thin: bool = True, level: int | None = None) -> tuple[int, int]:
    """(bytes of data to read, bytes that will be stored) for a conversion of C(source), within about 5 %."""
    capacity = source.capacity
    if format == "streamOptimized":
        return sum(unit.data for unit in units(source)), predict_size(source, level=level)
    whole = format in ("monolithicSparse", "twoGbMaxExtentSparse", "qcow2")
    data, stored = estimate(source, lambda unit, piece: sum(grains(length) if whole else length for _at, length in pieces(piece)))
    if format == "monolithicSparse":
        return data, stored + layout(capacity).overhead * SECTOR
    if format == "qcow2":
        return data, stored + _qcow2_overhead(source, stored)
    if format == "twoGbMaxExtentSparse":
        return data, stored + sum(layout(size, embedded=False).overhead * SECTOR for size in part_sizes(capacity, sparse=True))
    return data, stored if thin else capacity


def grains(length: int) -> int:
    """Bytes of the whole grains that C(length) bytes from the begin of one take."""
    return -(-length // _GRAIN) * _GRAIN


def _qcow2_overhead(source: Source, stored: int) -> int:
    """Header, tables and reference counts of an image with clusters of 64 KiB, which are as large as our grains."""
    # A second-level table is a cluster and leads to 8,192 of them, a block of reference counts to 32,768.
    first = -(-source.capacity // (_GRAIN * 8192)) * 8
    if not stored:
        return 3 * _GRAIN + first
    tables = sum(1 for _table in itertools.groupby(units(source), lambda unit: unit.offset // (_GRAIN * 8192)))
    clusters = 2 + grains(first) // _GRAIN + tables
    return (clusters + 1 + (stored // _GRAIN + clusters) // 32768) * _GRAIN
