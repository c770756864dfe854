# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One pool of worker threads for all disks of a copy: fair turns, bounded memory, the first error stops all."""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable, Generator, Generic, Iterator, Protocol, Sequence, TypeVar

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


class _Turn(Generic[Job, Piece]):
    """The pieces of one job, as an iterator that one thread at a time asks; it may be slow without holding up other jobs."""

    def __init__(self, job: Job, pieces: Iterator[Piece]) -> None:
        self.job = job
        self.pieces = pieces
        self.asked = False
        #: Pieces that workers have in hand.
        self.taken = 0


class Pool:
    """Takes pieces of work from all jobs in turn and gives them to the workers; the first error stops all.

    :param halt: set when the work is to stop: what waits elsewhere (for a budget, for a stream) looks at it.
    """

    def __init__(self, workers: int, watcher: Watcher | None, halt: threading.Event | None = None) -> None:
        self.workers = workers
        self.watcher = watcher
        self.halt = halt or threading.Event()
        self.changed = threading.Condition()
        self.error: BaseException | None = None

    def _stop(self, error: BaseException, job: Work | None = None) -> None:
        with self.changed:
            if self.error is None:
                if isinstance(error, FerryError) and job is not None:
                    error.disk = job.disk
                self.error = error
            self.halt.set()
            self.changed.notify_all()

    def _take(self, turns: deque[_Turn[Job, Piece]]) -> tuple[_Turn[Job, Piece], Piece] | None:
        """The next piece; None at the end.

        It is the turn of the job of which the fewest pieces are in hand: one that waits for its budget does not get all workers.
        """
        while True:
            with self.changed:
                while True:
                    if not turns or self.error is not None:
                        return None
                    turn = min((t for t in turns if not t.asked), key=lambda t: t.taken, default=None)
                    if turn is not None:
                        break
                    self.changed.wait()
                turn.asked = True
                turns.remove(turn)
                turns.append(turn)
            piece: Piece | None = None
            try:
                piece = next(turn.pieces, None)
            except BaseException as e:
                self._stop(e, turn.job)
                raise
            with self.changed:
                turn.asked = False
                if piece is None:
                    turns.remove(turn)
                else:
                    turn.taken += 1
                self.changed.notify_all()
            if piece is not None:
                return turn, piece

    def run(
        self,
        jobs: Sequence[Job],
        work: Callable[[Job, Piece], None],
        pieces: Callable[[Job], Iterator[Piece]],
        tick: Callable[[], None],
    ) -> None:
        """Do C(work) for all C(pieces) of all jobs; C(tick) is called a few times a second by the calling thread."""
        every = [_Turn(job, pieces(job)) for job in jobs]
        turns = deque(every)

        def worker() -> None:
            while True:
                job = None
                try:
                    found = self._take(turns)
                    if found is None:
                        return
                    turn, piece = found
                    job = turn.job
                    work(job, piece)
                    with self.changed:
                        turn.taken -= 1
                except BaseException as e:  # noqa: BLE001 - raised again by the thread that waits, below
                    self._stop(e, job)
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
            self._stop(e)
            for t in threads:
                t.join()
            raise
        finally:
            for turn in every:
                if isinstance(turn.pieces, Generator):
                    turn.pieces.close()
        if self.error is not None:
            raise self.error
