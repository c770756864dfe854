# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The copy engine: moves the extents of sources to sinks in units, by one pool of workers, recorded in ledgers.

Memory is bounded by workers x unit, whatever the disks' sizes, and the ledger's map (17 bytes for each MiB of data).
Zeroes are looked for at 64 KiB and never written to a target that reads as zeroes there.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator

from .digest import ALGORITHM, CHUNK, SIZE, chunk_digest, zero_digest
from .errors import BadInput, FerryError, SourceError
from .ledger import DATA, OLD, UNKNOWN, ZERO, Ledger
from .model import Kind, Sink, Source
from .pool import Pool, Watcher

_BLOCK = 64 << 10
_ZERO_BLOCK = bytes(_BLOCK)
_ZERO_CHUNK = bytes(CHUNK)
#: A run of zeroes is recorded in pieces of this many chunks: small enough to be interrupted, large enough to cost nothing.
_ZERO_RUN = 64 * 1024


@dataclass
class Result:
    """What was done for one disk; bytes and seconds."""

    disk: str
    capacity: int
    mode: str = "full"
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_skipped: int = 0
    bytes_resumed: int = 0
    digest: str = ""
    verified: str = "none"
    bytes_verified: int = 0
    repaired: int = 0
    seconds: float = 0.0
    changed: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        out = {k: v for k, v in vars(self).items() if k != "extra"}
        out["seconds"] = round(self.seconds, 3)
        return {**out, **self.extra}


@dataclass(frozen=True)
class Unit:
    """A piece of work: chunks C(first) to C(first + count), of which C(ranges) hold data (empty: all zeroes)."""

    first: int
    count: int
    ranges: tuple[tuple[int, int], ...]


class Job:
    """One disk to be copied."""

    def __init__(self, disk: str, source: Source, sink: Sink, ledger: Ledger, *, unit: int = 4 * CHUNK) -> None:
        if source.capacity != ledger.capacity:
            raise BadInput("The ledger is of a disk of another size.", disk=disk)
        if unit % CHUNK or not 0 < unit <= 64 * CHUNK:
            raise BadInput(f"chunk_size must be a multiple of {CHUNK} bytes, at most {64 * CHUNK}.", disk=disk)
        self.disk = disk
        self.source = source
        self.sink = sink
        self.ledger = ledger
        self.per_unit = unit // CHUNK
        self.result = Result(disk, source.capacity)
        self.done = 0
        self.lock = threading.Lock()
        self.phase = "copy"
        self.started = time.monotonic()
        self._unflushed = 0
        self._fresh = False

    # -- what is to be done -------------------------------------------------------------------------------------

    def prepare(self) -> bool:
        """Compare source and target with what the ledger knows; True where there is something to do."""
        ledger, source = self.ledger, self.source
        target = str(getattr(self.sink, "identity", ""))
        stamp = getattr(self.sink, "stamp", str)()
        if ledger.fact("target") != target:
            ledger.forget()
            ledger.set(capacity=source.capacity, algorithm=ALGORITHM, target=target, disk=self.disk)
            # Nothing of ours is there yet: what reads as zeroes need not be written.
            self._fresh = self.sink.reads_zero
        elif ledger.fact("state") == "complete":
            if ledger.fact("source") == source.identity and ledger.fact("stamp") == stamp:
                self.result.digest = ledger.digests.disk_digest()
                self.result.mode = "none"
                self.done = source.capacity
                return False
            if ledger.fact("stamp") != stamp:
                # Somebody else wrote there: what the ledger knows of the target may be wrong, whatever became of the source.
                self.result.extra["target_altered"] = True
                self._distrust()
            if ledger.fact("source") != source.identity:
                self._look_again()
        elif ledger.fact("source") != source.identity:
            self._look_again()
        ledger.set(source=source.identity, state="copying", generation=ledger.fact("generation", 0) + 1)
        self.result.changed = True
        return True

    def _look_again(self) -> None:
        """The source has changed: every chunk is read again, and what differs from the target is written."""
        self.sink.flush()
        self.ledger.next_pass()
        self.result.mode = "compare"

    def _distrust(self) -> None:
        """The target was written by somebody else: compare each chunk with its digest, and forget those that differ."""
        self.result.mode = "repair"
        for first in range(0, self.ledger.chunks, self.per_unit):
            count = min(self.per_unit, self.ledger.chunks - first)
            wrong = self._differs(first, count)
            for chunk in wrong:
                self.ledger.mark(chunk, bytes([UNKNOWN]), zero_digest(self.ledger.digests.length_of(chunk)))
            self.result.repaired += len(wrong)

    def units(self) -> Iterator[Unit]:
        """The work in ascending order: runs of zeroes, and units that hold data."""
        per, capacity = self.per_unit, self.source.capacity
        size = per * CHUNK
        gap = getattr(self.source, "gap", 0)
        pending: list[tuple[int, int]] = []
        pending_unit = -1
        zeroes_from = 0  # chunks before this one are in units already given

        def data_unit() -> Iterator[Unit]:
            nonlocal zeroes_from
            first = pending_unit * per
            if first > zeroes_from:
                yield from self._zero_units(zeroes_from, first - zeroes_from)
            count = min(per, self.ledger.chunks - first)
            yield Unit(first, count, tuple(pending))
            zeroes_from = first + count
            pending.clear()

        for e in self.source.extents():
            if e.kind != Kind.DATA:
                continue
            at = e.start
            while at < e.end:
                number = at // size
                end = min(e.end, (number + 1) * size)
                if number != pending_unit and pending:
                    yield from data_unit()
                pending_unit = number
                if pending and at - (pending[-1][0] + pending[-1][1]) <= gap:
                    pending[-1] = (pending[-1][0], end - pending[-1][0])
                else:
                    pending.append((at, end - at))
                at = end
        if pending:
            yield from data_unit()
        if zeroes_from * CHUNK < capacity:
            yield from self._zero_units(zeroes_from, self.ledger.chunks - zeroes_from)

    @staticmethod
    def _zero_units(first: int, count: int) -> Iterator[Unit]:
        while count:
            part = min(count, _ZERO_RUN)
            yield Unit(first, part, ())
            first += part
            count -= part

    # -- doing it -----------------------------------------------------------------------------------------------

    def _size(self, first: int, count: int) -> int:
        return min((first + count) * CHUNK, self.source.capacity) - first * CHUNK

    def work(self, unit: Unit) -> None:
        """Copy one unit. Called by several threads."""
        states = self.ledger.states(unit.first, unit.count)
        size = self._size(unit.first, unit.count)
        if all(s in (ZERO, DATA) for s in states):
            self._count(size, resumed=size)
            return
        if not unit.ranges:
            self._zeroes(unit, states)
            return
        base = unit.first * CHUNK
        read = 0
        if len(unit.ranges) == 1 and unit.ranges[0] == (base, size):
            data: Any = self.source.read(base, size)
            read = size
        else:
            data = bytearray(size)
            for start, length in unit.ranges:
                data[start - base : start - base + length] = self.source.read(start, length)
                read += length
        written = 0
        view = memoryview(data)
        new_states = bytearray(unit.count)
        digests = bytearray(unit.count * SIZE)
        for i in range(unit.count):
            piece = view[i * CHUNK : (i + 1) * CHUNK]
            state, digest, wrote = self._chunk(unit.first + i, piece, states[i])
            new_states[i] = state
            digests[i * SIZE : (i + 1) * SIZE] = digest
            written += wrote
        self.ledger.mark(unit.first, bytes(new_states), bytes(digests))
        self._count(size, read=read, written=written, skipped=size - written)

    def _chunk(self, chunk: int, piece: memoryview, known: int) -> tuple[int, bytes, int]:
        """Bring one chunk to the target; its state, its digest and the bytes written."""
        at, length = chunk * CHUNK, len(piece)
        raw = piece.tobytes()
        if raw == (_ZERO_CHUNK if length == CHUNK else bytes(length)):
            if not self._fresh and known & 3 != ZERO:
                self.sink.zero(at, length)
            return ZERO, zero_digest(length), 0
        digest = bytes(chunk_digest(raw))
        if known == DATA | OLD and digest == self.ledger.digests.get(chunk):
            return DATA, digest, 0
        if not self._fresh:
            self.sink.write(at, piece)
            return DATA, digest, length
        return DATA, digest, self._write_sparse(at, piece, raw)

    def _write_sparse(self, at: int, piece: memoryview, raw: bytes) -> int:
        written = 0
        start: int | None = None
        for i in range(0, len(raw), _BLOCK):
            block = raw[i : i + _BLOCK]
            if block == (_ZERO_BLOCK if len(block) == _BLOCK else bytes(len(block))):
                if start is not None:
                    self.sink.write(at + start, piece[start:i])
                    written += i - start
                    start = None
            elif start is None:
                start = i
        if start is not None:
            self.sink.write(at + start, piece[start:])
            written += len(raw) - start
        return written

    def _zeroes(self, unit: Unit, states: bytes) -> None:
        size = self._size(unit.first, unit.count)
        if not self._fresh:
            # Only where the ledger does not know zeroes already, in runs: punching what is empty is cheap, but not free.
            run: int | None = None
            for i in range(unit.count + 1):
                needs = i < unit.count and states[i] & 3 != ZERO
                if needs and run is None:
                    run = i
                elif not needs and run is not None:
                    self.sink.zero((unit.first + run) * CHUNK, self._size(unit.first + run, i - run))
                    run = None
        self.ledger.mark(unit.first, bytes([ZERO]) * unit.count, None)
        self._count(size, skipped=size)

    def _count(self, size: int, *, read: int = 0, written: int = 0, skipped: int = 0, resumed: int = 0) -> None:
        with self.lock:
            self.done += size
            self._unflushed += written
            r = self.result
            r.bytes_read += read
            r.bytes_written += written
            r.bytes_skipped += skipped
            r.bytes_resumed += resumed

    # -- durability and proof -----------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """Bytes of the disk."""
        return self.source.capacity

    @property
    def skipped(self) -> int:
        """Bytes of C(done) that needed no reading in this phase: what the rest took is the speed of the way."""
        return self.done - self.result.bytes_read if self.phase == "copy" else 0

    @property
    def unflushed(self) -> int:
        """Bytes written since the last flush."""
        return self._unflushed

    def make_durable(self) -> None:
        """Flush the target, then record what was flushed. In this order: a crash between the two loses nothing."""
        position = self.ledger.position()
        with self.lock:
            self._unflushed = 0
        self.sink.flush()
        self.ledger.commit(position)

    def _differs(self, first: int, count: int) -> list[int]:
        """The chunks among these whose bytes on the target are not what the ledger says."""
        ledger, sink = self.ledger, self.sink
        size = self._size(first, count)
        hole = getattr(sink, "is_hole", None)
        known = ledger.states(first, count)
        if all(s & 3 == ZERO for s in known) and hole is not None and hole(first * CHUNK, size):
            return []
        data = sink.read(first * CHUNK, size)
        wrong = []
        for i in range(count):
            piece = data[i * CHUNK : (i + 1) * CHUNK]
            digest = (
                zero_digest(len(piece))
                if piece == (_ZERO_CHUNK if len(piece) == CHUNK else bytes(len(piece)))
                else bytes(chunk_digest(piece))
            )
            if digest != ledger.digests.get(first + i):
                wrong.append(first + i)
        return wrong

    def verify(self, first: int, count: int) -> None:
        """Read the chunks back; what differs is copied again from the source and read back once more."""
        wrong = self._differs(first, count)
        for chunk in wrong:
            length = self.ledger.digests.length_of(chunk)
            data = bytes(self.source.read(chunk * CHUNK, length))
            self.sink.write(chunk * CHUNK, data)
            self.ledger.mark(chunk, bytes([DATA]), bytes(chunk_digest(data)))
            if self._differs(chunk, 1):
                raise FerryError(
                    f"The target gives back other bytes than were written, at byte {chunk * CHUNK}, also after a second try.",
                    code="target_damaged",
                    disk=self.disk,
                    step="verify",
                    next_command="look at the target's storage; do not start the VM from this disk",
                )
        with self.lock:
            size = self._size(first, count)
            self.done += size
            self.result.bytes_verified += size
            self.result.repaired += len(wrong)

    def finish(self) -> None:
        """All is copied: flush, and say so in the ledger.

        :raises SourceError: the source was written to meanwhile. Its chunks are of different moments; the next run compares all.
        """
        self.make_durable()
        unchanged = getattr(self.source, "unchanged", None)
        if unchanged is not None and not unchanged():
            raise SourceError(
                "The source was written to while it was being copied.",
                code="source_changed",
                disk=self.disk,
                step="finish",
                next_command="stop whoever writes to it, then run the same command again",
            )
        digest = self.ledger.digests.disk_digest()
        self.ledger.set(state="complete", digest=digest, stamp=getattr(self.sink, "stamp", str)(), completed=time.time())
        self.result.digest = digest


def run(
    jobs: list[Job],
    *,
    workers: int = 4,
    verify: str = "none",
    sample: float = 0.05,
    watcher: Watcher | None = None,
    guard: Callable[[], None] | None = None,
    checkpoint_seconds: float = 5.0,
    checkpoint_bytes: int = 1 << 30,
) -> list[Result]:
    """Copy all disks, in parallel under one pool of workers.

    :param verify: C(none); C(sample): a share C(sample) of the units is read back; C(full): all of them. What differs
        is copied again and counted as repaired.
    :param guard: called every C(checkpoint_seconds); it raises when a lease on a target was lost, and that stops the writers.
    :raises FerryError: the first error of any worker. What is durable then stays in the ledgers, and the same call
        goes on from there.
    """
    if not 1 <= workers <= 64:
        raise BadInput("workers must be 1 to 64.")
    started = time.monotonic()
    busy = [job for job in jobs if job.prepare()]
    last = time.monotonic()

    def tick() -> None:
        nonlocal last
        now = time.monotonic()
        if guard is not None and now - last > checkpoint_seconds:
            guard()
        for job in busy:
            if job.unflushed and (now - last > checkpoint_seconds or job.unflushed > checkpoint_bytes):
                job.make_durable()
        if now - last > checkpoint_seconds:
            last = now

    pool = Pool(workers, watcher)
    try:
        pool.run(busy, Job.work, Job.units, tick)
    except BaseException:
        for job in busy:
            _keep(job)
        raise
    for job in busy:
        job.finish()
        job.result.seconds = time.monotonic() - started
    if verify != "none":
        _verify(jobs if verify == "full" else busy, verify, sample, workers, watcher)
    for job in jobs:
        if watcher is not None:
            watcher.finish(job.disk, max(0, job.source.capacity - job.result.bytes_read))
        if job.result.changed:
            job.result.seconds = time.monotonic() - started
    return [job.result for job in jobs]


def _keep(job: Job) -> None:
    """After an error: make durable what was written. Where even that fails, the ledger says less than was done: safe."""
    try:
        job.make_durable()
    except FerryError:
        pass  # the first error is the one to tell


def _verify(jobs: list[Job], how: str, share: float, workers: int, watcher: Watcher | None) -> None:
    every = 1 if how == "full" else max(1, round(1 / share))

    def pieces(job: Job) -> Iterator[tuple[int, int]]:
        # A fixed stride with the first and the last unit in it: what is looked at can be told beforehand.
        starts = range(0, job.ledger.chunks, job.per_unit)
        for n, first in enumerate(starts):
            if n % every == 0 or first == starts[-1]:
                yield first, min(job.per_unit, job.ledger.chunks - first)

    for job in jobs:
        forget = getattr(job.sink, "forget_cache", None)
        if forget is not None:
            forget()
        job.phase = "verify"
        job.done = 0
    Pool(workers, watcher).run(jobs, lambda job, piece: job.verify(*piece), pieces, lambda: None)
    for job in jobs:
        job.result.verified = how
        if job.result.repaired:
            job.result.changed = True
            job.finish()
