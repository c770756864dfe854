# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Areas that are still to be copied, packed: eight bytes for each, in one blob for each segment (1 GiB of the disk).

A blob holds pairs of unsigned 32 bit numbers of this machine's byte order: start in the segment and length, in bytes,
ascending and apart from each other. A million areas are 8 MB on disk, and one segment at a time is in memory.
"""

from __future__ import annotations

from array import array
from typing import Iterable, Iterator

from .digest import CHUNK, SEGMENT

SEGMENT_BYTES = SEGMENT * CHUNK
Area = tuple[int, int]


def pack(areas: Iterable[Area]) -> bytes:
    """The blob of C(areas), whose starts count from the segment's; neighbours that touch or overlap become one."""
    out = array("I")
    start = end = -1
    for at, length in areas:
        if at > end:
            if end > start:
                out.append(start)
                out.append(end - start)
            start, end = at, at + length
        elif at + length > end:
            end = at + length
    if end > start:
        out.append(start)
        out.append(end - start)
    return out.tobytes()


def unpack(blob: bytes) -> Iterator[Area]:
    """The areas in C(blob)."""
    numbers = array("I")
    numbers.frombytes(blob)
    return zip(numbers[0::2], numbers[1::2], strict=True)


def total(blob: bytes) -> int:
    """How many bytes the areas in C(blob) have."""
    numbers = array("I")
    numbers.frombytes(blob)
    return sum(numbers[1::2])


def by_chunk(areas: Iterable[Area]) -> Iterator[tuple[int, list[Area]]]:
    """C(areas) cut at chunk borders: (chunk in the segment, its areas), ascending. Starts still count from the segment's."""
    current = -1
    pieces: list[Area] = []
    for start, length in areas:
        while length:
            chunk = start // CHUNK
            part = min(length, (chunk + 1) * CHUNK - start)
            if chunk != current:
                if pieces:
                    yield current, pieces
                current, pieces = chunk, []
            pieces.append((start, part))
            start += part
            length -= part
    if pieces:
        yield current, pieces


def by_segment(areas: Iterable[Area]) -> Iterator[tuple[int, array[int]]]:
    """C(areas) of a disk, cut at segment borders: (number of the segment, its starts and lengths in turn)."""
    current = -1
    pieces = array("I")
    for start, length in areas:
        while length:
            number, at = divmod(start, SEGMENT_BYTES)
            part = min(length, SEGMENT_BYTES - at)
            if number != current:
                if pieces:
                    yield current, pieces
                current, pieces = number, array("I")
            pieces.append(at)
            pieces.append(part)
            start += part
            length -= part
    if pieces:
        yield current, pieces


def merged(one: Iterable[Area], other: Iterable[Area]) -> bytes:
    """The blob of both."""
    return pack(sorted([*one, *other]))


def joined(areas: Iterable[Area], gap: int, share: float = 0.1) -> list[Area]:
    """C(areas) with neighbours joined over gaps of at most C(gap) bytes, the smallest gaps first, for as long as the bytes
    between them are at most C(share) of those in them: fewer requests, and never many more bytes."""
    found = list(areas)
    if len(found) < 2:
        return found
    spare = int(sum(length for _start, length in found) * share)
    gaps = sorted((found[i + 1][0] - found[i][0] - found[i][1], i) for i in range(len(found) - 1))
    over = set()
    for size, i in gaps:
        if size > gap or size > spare:
            break
        spare -= size
        over.add(i)
    if not over:
        return found
    out = [found[0]]
    for i, (start, length) in enumerate(found[1:]):
        if i in over:
            out[-1] = (out[-1][0], start + length - out[-1][0])
        else:
            out.append((start, length))
    return out
