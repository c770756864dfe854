# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One pool of worker threads for all disks of a copy: fair turns, bounded memory, the first error stops all."""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable, Iterator, Protocol, Sequence, TypeVar

from .errors import FerryError


class Watcher(Protocol):
    """Who is told how far it is, and who may stop it (by raising from C(check)). disk.progress.Progress is one."""

    def update(self, disk: str, phase: str, done: int, total: int, skipped: int | None = None) -> None: ...

    def finish(self, disk: str, skipped: int | None = None, why: str | None = None) -> None: ...

    def check(self) -> None: ...


class Work(Protocol):
    """What the pool has to know of a job: whom it is for, and how far it is (bytes)."""

    disk: str
    phase: str
    done: int

    @property
    def total(self) -> int:
        """What C(done) will be."""

    @property
    def skipped(self) -> int:
        """How much of C(done) needed no reading."""


Job = TypeVar("Job", bound=Work)
Piece = TypeVar("Piece")


class Pool:
    """Takes pieces of work from all jobs in turn and gives them to the workers; the first error stops all."""

    def __init__(self, workers: int, watcher: Watcher | None) -> None:
        self.workers = workers
        self.watcher = watcher
        self.lock = threading.Lock()
        self.error: BaseException | None = None

    def run(
        self,
        jobs: Sequence[Job],
        work: Callable[[Job, Piece], None],
        pieces: Callable[[Job], Iterator[Piece]],
        tick: Callable[[], None],
    ) -> None:
        """Do C(work) for all C(pieces) of all jobs; C(tick) is called a few times a second by the calling thread."""
        turns = deque((job, pieces(job)) for job in jobs)

        def take() -> tuple[Job, Piece] | None:
            with self.lock:
                while turns and self.error is None:
                    job, left = turns[0]
                    piece = next(left, None)
                    if piece is None:
                        turns.popleft()
                        continue
                    turns.rotate(-1)
                    return job, piece
                return None

        def worker() -> None:
            while True:
                job = None
                try:
                    found = take()
                    if found is None:
                        return
                    job, piece = found
                    work(job, piece)
                except BaseException as e:  # noqa: BLE001 - raised again by the thread that waits, below
                    with self.lock:
                        if self.error is None:
                            if isinstance(e, FerryError) and job is not None:
                                e.disk = job.disk
                            self.error = e
                    return

        threads = [threading.Thread(target=worker, name=f"copy-{i}", daemon=True) for i in range(self.workers)]
        for t in threads:
            t.start()
        try:
            for t in threads:
                while t.is_alive():
                    t.join(0.2)
                    if self.watcher is not None:
                        for job in jobs:
                            self.watcher.update(job.disk, job.phase, job.done, job.total, job.skipped)
                        self.watcher.check()
                    tick()
        except BaseException as e:
            with self.lock:
                self.error = self.error or e
            for t in threads:
                t.join()
            raise
        if self.error is not None:
            raise self.error
