# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The copy engine: moves the extents of sources to sinks in units, by one pool of workers, recorded in ledgers.

Memory is bounded by workers x unit, whatever the disks' sizes, and the ledger's map (17 bytes for each MiB of data).
"""

from __future__ import annotations

import threading
import time
from typing import Callable, Iterator

from . import incremental, passes, proof, sampling, stream
from .errors import BadInput, FerryError
from .job import Job, Result, Unit
from .pool import Pool, Watcher

__all__ = ["Job", "Result", "Unit", "run"]


def run(
    jobs: list[Job],
    *,
    workers: int = 4,
    verify: str = "none",
    sample: float = 0.05,
    outside: float = 0.0,
    watcher: Watcher | None = None,
    guard: Callable[[], None] | None = None,
    checkpoint_seconds: float = 5.0,
    checkpoint_bytes: int = 1 << 30,
) -> list[Result]:
    """Copy all disks, in parallel under one pool of workers.

    :param verify: C(none); C(sample): a share C(sample) of the units is read back, of a pass over changes all chunks that it wrote
        to; C(full): all of them. What differs is copied again and counted as repaired.
    :param outside: the share (0 to 1) of the chunks outside the changed areas that is compared with the source. One that
        differs leads to a comparison of the whole disk in this same run.
    :param guard: called every C(checkpoint_seconds); it raises when a lease on a target was lost, and that stops the writers.
    :raises FerryError: the first error of any worker. What is durable then stays in the ledgers, and the same call
        goes on from there.
    """
    if not 1 <= workers <= 64:
        raise BadInput("workers must be 1 to 64.")
    if verify not in ("none", "sample", "full") or not 0 < sample <= 1 or not 0 <= outside <= 1:
        raise BadInput("verify must be none, sample or full; the shares sample and outside lie between 0 and 1.")
    return _Run(jobs, workers, verify, sample, outside, watcher, guard, checkpoint_seconds, checkpoint_bytes).run()


class _Run:
    def __init__(
        self,
        jobs: list[Job],
        workers: int,
        verify: str,
        sample: float,
        outside: float,
        watcher: Watcher | None,
        guard: Callable[[], None] | None,
        checkpoint_seconds: float,
        checkpoint_bytes: int,
    ) -> None:
        self.jobs = jobs
        self.workers = workers
        self.verify = verify
        self.sample = sample
        self.share = outside
        self.watcher = watcher
        self.guard = guard
        self.seconds = checkpoint_seconds
        self.bytes = checkpoint_bytes
        self.last = time.monotonic()
        self.busy: list[Job] = []
        self.owing: set[Job] = set()

    def run(self) -> list[Result]:
        started = time.monotonic()
        for job in self.jobs:
            job.halt = threading.Event()
            job.watcher = self.watcher
            job.proving = self.verify != "none"
        self.busy = [job for job in self.jobs if job.prepare()]
        # Where a run before was cut off, what it wrote is not known: the sample is of the whole disk then.
        self.owing = {job for job in self.jobs if job.cut_off or job.ledger.fact("unverified")}
        chosen = {job: self._chosen(job) for job in self.busy}
        try:
            self._copy(self.busy)
            self._outside(chosen)
            for job in self.busy:
                job.finish()
        except BaseException:
            for job in self.busy:
                _keep(job)
            raise
        if self.verify != "none":
            self._verify([job for job in self.jobs if self.verify == "full" or job in self.busy or job.ledger.fact("unverified")])
        for job in self.jobs:
            if self.watcher is not None:
                self.watcher.finish(job.disk, max(0, job.source.capacity - job.result.bytes_read))
            if job.idle and not job.result.repaired and not job.result.bytes_written:
                job.result.changed = False
            if job in self.busy or job.result.changed:
                job.result.seconds = time.monotonic() - started
        return [job.result for job in self.jobs]

    def _pool(self, jobs: list[Job]) -> Pool:
        halt = threading.Event()
        for job in jobs:
            job.halt = halt
        return Pool(self.workers, self.watcher, halt)

    def _tick(self) -> None:
        now = time.monotonic()
        due = now - self.last > self.seconds
        if self.guard is not None and due:
            self.guard()
        for job in self.busy:
            if job.unflushed and (due or job.unflushed > self.bytes):
                job.make_durable()
        if due:
            self.last = now

    def _copy(self, jobs: list[Job]) -> None:
        self._pool(jobs).run(jobs, Job.work, _units, self._tick)
        for job in jobs:
            job.settle()

    def _chosen(self, job: Job) -> list[int]:
        """The chunks to be compared with the source although nothing in them is to be copied, or not all of them: what tracking misses
        lies most often beside what it tells. Chosen before the copy touches any."""
        # Also where tracking is off by now: the areas of a pass that was cut off were told before.
        if not self.share or job.sequential:
            return []
        return list(sampling.choose(job.ledger, self.share, job.ledger.fact("generation"), fits=sampling.known))

    def _outside(self, chosen: dict[Job, list[int]]) -> None:
        for job in chosen:
            if self.share and job.narrowed and not job.sequential and job.result.mode != "incremental":
                # What C(*) left out was taken for zeroes without being read, in chunks that hold data, too.
                chosen[job] = list(sampling.choose(job.ledger, self.share, job.ledger.fact("generation")))
        looked = [job for job, chunks in chosen.items() if chunks]
        if not looked:
            return
        for job in looked:
            job.turn("outside")
        self._pool(looked).run(looked, proof.outside, lambda job: iter(chosen[job]), self._tick)
        again = []
        for job in looked:
            job.result.outside_share = self.share
            if job.result.outside_wrong:
                n = job.result.outside_wrong
                job.doubted()
                passes.look_everywhere(job, f"{n} of {job.result.outside_checked} chunks outside the changed areas differ from the source.")
                again.append(job)
            job.turn("copy")
        if again:
            self._copy(again)

    def _verify(self, jobs: list[Job]) -> None:
        before = {job: job.result.repaired for job in jobs}
        self._read_back(jobs, 1 if self.verify == "full" else max(1, round(1 / self.sample)))
        for job in jobs:
            job.result.verified = self.verify
        damaged = [job for job in jobs if job.result.repaired > before[job]]
        if self.verify != "full" and damaged:
            # Where a sample finds something there will be more: the target is another one, or its storage loses writes.
            self._read_back(damaged, 1)
        for job in jobs:
            if job in damaged:
                job.result.verified = "full"
            if job.result.repaired:
                job.result.changed = True
                job.finish()
            job.ledger.set(unverified=False)

    def _read_back(self, jobs: list[Job], every: int) -> None:
        """Compare each C(every)th unit on the targets with its digests, and mend it; of a delta, for C(every) above 1, what it wrote."""

        def pieces(job: Job) -> Iterator[tuple[int, int]]:
            if every > 1 and job.result.mode == "incremental" and job not in self.owing:
                yield from _runs(sorted(job.in_part), job.per_unit)
                return
            # A fixed stride with the first and the last unit in it: what is looked at can be told beforehand.
            starts = range(0, job.ledger.chunks, job.per_unit)
            for n, first in enumerate(starts):
                if n % every == 0 or first == starts[-1]:
                    yield first, min(job.per_unit, job.ledger.chunks - first)

        for job in jobs:
            forget = getattr(job.sink, "forget_cache", None)
            if forget is not None:
                forget()
            job.turn("verify")
        self._pool(jobs).run(jobs, lambda job, piece: proof.verify(job, *piece), pieces, lambda: None)


def _runs(chunks: list[int], most: int) -> Iterator[tuple[int, int]]:
    """C(chunks), ascending, as (first, count) of neighbours, at most C(most) at once."""
    first = count = 0
    for chunk in chunks:
        if count and chunk == first + count - 1:
            continue
        if count and chunk == first + count and count < most:
            count += 1
            continue
        if count:
            yield first, count
        first, count = chunk, 1
    if count:
        yield first, count


def _units(job: Job) -> Iterator[Unit]:
    if job.sequential:
        return stream.units(job)
    if job.ledger.whole_chunks_left:
        return job.units()
    left = job.left()
    job.done = max(0, job.source.capacity - left)
    job.idle = left == 0 and not job.cut_off and job.result.mode == "incremental"
    return incremental.units(job)


def _keep(job: Job) -> None:
    """After an error: make durable what was written. Where even that fails, the ledger says less than was done: safe."""
    try:
        job.make_durable()
    except FerryError:
        pass  # the first error is the one to tell
