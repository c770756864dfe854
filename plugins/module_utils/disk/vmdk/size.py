# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much of a disk will be stored: zeroes inside of data, and what the formats themselves take."""

from __future__ import annotations

from ..model import SECTOR, Source
from .base import Writer, estimate
from .sparse_writer import layout
from .stream_writer import predict_size
from .structs import GRAIN_SECTORS

_GRAIN = GRAIN_SECTORS * SECTOR
_ZERO = bytes(_GRAIN)
#: About what a monolithicFlat's descriptor takes.
_DESCRIPTOR = 512


def pieces(data: bytes) -> list[tuple[int, int]]:
    """(start, length) of the runs of grains in C(data) that are not all zero."""
    found: list[tuple[int, int]] = []
    for at in range(0, len(data), _GRAIN):
        piece = data[at : at + _GRAIN]
        if piece == (_ZERO if len(piece) == _GRAIN else _ZERO[: len(piece)]):
            continue
        if found and sum(found[-1]) == at:
            found[-1] = (found[-1][0], found[-1][1] + len(piece))
        else:
            found.append((at, len(piece)))
    return found


def store(writer: Writer, offset: int, data: bytes) -> int:
    """Write what is not zero in C(data) to a new disk that reads as zeroes; return the bytes written."""
    found = pieces(data)
    for at, length in found:
        writer.write(offset + at, data if length == len(data) else data[at : at + length])
    return sum(length for _at, length in found)


def predict(source: Source, format: str, *, thin: bool = True, level: int | None = None) -> tuple[int, int]:
    """(bytes of data to read, bytes that will be stored) for a conversion of C(source), within about 5 %."""
    data, stored = estimate(source, lambda unit, piece: sum(length for _at, length in pieces(piece)))
    if format == "streamOptimized":
        return data, predict_size(source, level=level)
    if format == "monolithicSparse":
        return data, stored + layout(source.capacity).overhead * SECTOR
    if format == "qcow2":
        # Clusters of 64 KiB as our grains; header, refcounts and tables take five clusters and 8 bytes for each cluster.
        return data, stored + 5 * _GRAIN + source.capacity // _GRAIN * 8
    return data, (stored if thin else source.capacity) + (_DESCRIPTOR if format == "monolithicFlat" else 0)
