# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copying changed areas alone.

With proof (verification is on) the rest of each chunk is read back from the target and compared with the chunk's old
digest; only then are the areas laid over it, so that the new digest is as good as that of a chunk that was read whole.
Without, the areas are written and the chunk has no digest until a run with verification reads it whole (STALE).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable, Iterator

from .digest import CHUNK, SEGMENT, SIZE, chunk_digest, zero_digest
from .dirty import SEGMENT_BYTES, Area, joined
from .ledger import BASE, DATA, STALE, ZERO
from .model import Extent, Kind

if TYPE_CHECKING:
    from .job import Job, Unit

#: (chunk of the disk, its areas; starts count from the disk's first byte)
Chunks = tuple[tuple[int, list[Area]], ...]


def overlap(data: Iterable[Extent], areas: Iterable[Area]) -> Iterator[Extent]:
    """What lies in both; both ascend."""
    others = iter(areas)
    area = next(others, None)
    for e in data:
        while area is not None and area[0] + area[1] <= e.start:
            area = next(others, None)
        while area is not None and area[0] < e.end:
            start, end = max(e.start, area[0]), min(e.end, area[0] + area[1])
            yield Extent(start, end - start, Kind.DATA)
            if area[0] + area[1] > e.end:
                break
            area = next(others, None)
        if area is None:
            return


def _segment(job: Job, number: int) -> list[tuple[int, list[Area]]]:
    """The chunks of a segment in which something is to be copied."""
    ledger = job.ledger
    base = number * SEGMENT_BYTES
    found = {number * SEGMENT + c: [(base + at, length) for at, length in areas] for c, areas in ledger.dirty(number)}
    if job.proving:
        first = number * SEGMENT
        for i, state in enumerate(ledger.states(first, min(SEGMENT, ledger.chunks - first))):
            if state & BASE == STALE:
                found[first + i] = [((first + i) * CHUNK, ledger.digests.length_of(first + i))]
    return sorted(found.items())


def _grouped(job: Job, chunks: Iterable[tuple[int, list[Area]]]) -> Iterator[Chunks]:
    """Groups of neighbouring chunks with at most a unit's bytes in their areas.

    With proof, chunks of at most a unit: those that a kill leaves half written are read whole by the next run.
    """
    limit = job.per_unit * CHUNK
    most = job.per_unit if job.proving else SEGMENT
    group: list[tuple[int, list[Area]]] = []
    size = 0
    for chunk, areas in chunks:
        n = sum(length for _start, length in areas)
        if group and (size + n > limit or len(group) == most):
            yield tuple(group)
            group, size = [], 0
        group.append((chunk, areas))
        size += n
    if group:
        yield tuple(group)


def units(job: Job) -> Iterator[Unit]:
    """The work of a pass in which no chunk is to be read whole but for its missing digest, ascending."""
    unit = job.unit_type
    for number, _states in job.ledger.touched():
        for group in _grouped(job, _segment(job, number)):
            yield unit(group[0][0], group[-1][0] - group[0][0] + 1, areas=group)


def copy_unit(job: Job, first: int, count: int) -> None:
    """Copy the changed areas in C(count) chunks from C(first) on."""
    for number in range(first // SEGMENT, (first + count - 1) // SEGMENT + 1):
        wanted = [(c, areas) for c, areas in job.dirt(number) if first <= c < first + count]
        for group in _grouped(job, wanted):
            copy(job, group[0][0], group[-1][0] - group[0][0] + 1, group, counted=False)
    job.count(job.size(first, count))


def dirt(job: Job, number: int) -> list[tuple[int, list[Area]]]:
    """As C(units) has them, for one segment."""
    return _segment(job, number)


def copy(job: Job, first: int, count: int, chunks: Chunks, *, counted: bool = True) -> None:
    """Copy the areas of C(chunks), which lie in C(count) chunks of one segment from C(first) on, and record it."""
    states = bytearray(job.ledger.states(first, count))
    digests = bytearray(job.ledger.digests.slice(first, count))
    areas: list[Area] = []
    for chunk, pieces in chunks:
        length = job.ledger.digests.length_of(chunk)
        if job.proving and job.cut_off and _rest(job, chunk, states[chunk - first], job.ledger.digests.get(chunk)) is None:
            # Half written by the run before: known now, before its areas are read and then all of it.
            pieces = [(chunk * CHUNK, length)]
        for start, length in pieces:
            if areas and areas[-1][0] + areas[-1][1] == start:
                areas[-1] = (areas[-1][0], areas[-1][1] + length)
            else:
                areas.append((start, length))
    size = sum(length for _start, length in areas)
    reads = job.read_areas(joined(areas, getattr(job.source, "gap", 0)))
    written = (_proven if job.proving else _plain)(job, first, states, digests, reads)
    job.ledger.mark(first, bytes(states), bytes(digests))
    job.wrote(chunk for chunk, _pieces in chunks)
    job.count(size if counted else 0, written=written)


def _new(data: bytes | bytearray, at: int, length: int) -> tuple[int, bytes]:
    from .job import is_zero

    if is_zero(data, at, length):
        return ZERO, zero_digest(length)
    return DATA, bytes(chunk_digest(memoryview(data)[at : at + length]))


def _plain(job: Job, first: int, states: bytearray, digests: bytearray, reads: list[tuple[int, bytes]]) -> int:
    """Write what was read. A chunk that lies whole in it has a digest."""
    written = 0
    for start, data in reads:
        end = start + len(data)
        written += job.put(start, data, 0, len(data))
        for chunk in range(start // CHUNK, (end - 1) // CHUNK + 1):
            at, length = chunk * CHUNK, job.ledger.digests.length_of(chunk)
            i = chunk - first
            if start <= at and at + length <= end:
                states[i], digests[i * SIZE : (i + 1) * SIZE] = _new(data, at - start, length)
            else:
                states[i] = STALE
    return written


def _proven(job: Job, first: int, states: bytearray, digests: bytearray, reads: list[tuple[int, bytes]]) -> int:
    """Write what was read, each chunk's rest proven first."""
    parts: dict[int, list[tuple[int, int, int, bytes]]] = {}
    for start, data in reads:
        end = start + len(data)
        for chunk in range(start // CHUNK, (end - 1) // CHUNK + 1):
            a, b = max(start, chunk * CHUNK), min(end, (chunk + 1) * CHUNK)
            parts.setdefault(chunk, []).append((a, a - start, b - a, data))
    written = 0
    for chunk, pieces in parts.items():
        place, length = chunk * CHUNK, job.ledger.digests.length_of(chunk)
        i = chunk - first
        whole: bytes | bytearray
        if len(pieces) == 1 and pieces[0][2] == length:
            _a, at, _n, whole = pieces[0]
            states[i], digests[i * SIZE : (i + 1) * SIZE] = _new(whole, at, length)
            written += job.put(place, whole, at, length)
            continue
        rest = _rest(job, chunk, states[i], bytes(digests[i * SIZE : (i + 1) * SIZE]))
        if rest is None:
            # Half a write of the run before, or a target that somebody else has written: nothing of it is believed.
            whole = job.read(place, length)
            written += job.put(place, whole, 0, length)
            if not job.cut_off:
                with job.lock:
                    job.result.repaired += 1
        else:
            whole = rest
            for a, at, n, data in pieces:
                whole[a - place : a - place + n] = memoryview(data)[at : at + n]
                written += job.put(a, data, at, n)
        states[i], digests[i * SIZE : (i + 1) * SIZE] = _new(whole, 0, length)
    return written


def _rest(job: Job, chunk: int, state: int, digest: bytes) -> bytearray | None:
    """What stands in the chunk on the target, where that is what the ledger says, else None."""
    place, length = chunk * CHUNK, job.ledger.digests.length_of(chunk)
    if state & BASE == STALE:
        return None
    hole = getattr(job.sink, "is_hole", None)
    if state & BASE == ZERO and hole is not None and hole(place, length):
        return bytearray(length)
    data = bytearray(job.sink.read(place, length))
    return data if bytes(chunk_digest(data)) == digest else None
