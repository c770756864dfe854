# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks on the server's own clock: queued, running, ended; at most so many at a time per datastore and per host.

Nothing runs in the background: advance() does all that is due, each at its own time, so that a task which was to start when
another ended started then, whether or not somebody asked in between.
"""

from __future__ import annotations

import datetime
import functools
import heapq
import itertools
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Callable

from .switches import Switches

# Seconds of a task whose work is that of other tasks; finish() ends it.
_OF_OTHERS = 1e9
ENDED = ("success", "error", "canceled", "aborted")


@dataclass(eq=False)
class Task:
    """One operation. Times are seconds of the server's clock since the epoch."""

    id: str
    operation: str
    operation_name: str
    owner: tuple[str, str, str, str]  # media type, name, path, urn
    user: str
    org_id: str
    org_name: str
    created: float
    seconds: float
    locks: tuple[str, ...] = ()  # what it takes one place of, each with a limit
    status: str = "queued"
    started: float = 0.0
    ended: float = 0.0
    progress: int = 0
    error: tuple[int, str, str] | None = None
    cancel_requested: bool = False
    fail_at: float = 2.0  # part of the work after which it fails; above 1 it does not
    failure: tuple[int, str, str] | None = None
    on_start: Callable[[Task], None] = field(default=lambda task: None)
    on_end: Callable[[Task], None] = field(default=lambda task: None)

    @property
    def over(self) -> bool:
        return self.status in ENDED

    @property
    def path(self) -> str:
        return f"/api/task/{self.id}"


class Clock:
    """Wall time that can be made to run faster, and be put forward."""

    def __init__(self, switches: Switches) -> None:
        self._switches = switches
        self._speed = switches.clock_speed
        self._real = time.monotonic()
        self._base = time.time()

    def now(self) -> float:
        real = time.monotonic()
        self._base += (real - self._real) * self._speed
        self._real = real
        self._speed = self._switches.clock_speed
        return self._base

    def put_forward(self, seconds: float) -> None:
        self._base += seconds

    @staticmethod
    def text(seconds: float) -> str:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class Engine:
    def __init__(self, switches: Switches, changed: Callable[[], None]) -> None:
        self.switches = switches
        self.clock = Clock(switches)
        self.tasks: dict[str, Task] = {}
        self.time = self.clock.now()
        self._changed = changed
        self._forget_at = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._waiting: dict[str, Task] = {}
        self._active: dict[str, Task] = {}
        self._held: Counter[str] = Counter()

    def limit(self, lock: str) -> int:
        """vCenter's ceilings: 8 Storage vMotions per datastore, 2 per host [D]."""
        return self.switches.per_host if lock.startswith("host:") else self.switches.per_datastore

    @property
    def open_count(self) -> int:
        return len(self._waiting) + len(self._active)

    def counts(self) -> dict[str, int]:
        return {lock: n for lock, n in self._held.items() if n}

    def submit(self, task: Task) -> Task:
        self.tasks[task.id] = task
        self._waiting[task.id] = task
        self._start_waiting()
        self._changed()
        return task

    def _start_waiting(self) -> None:
        full: set[str] = set()
        for task in list(self._waiting.values()):
            blocked = [lock for lock in task.locks if lock in full or self._held[lock] >= max(1, self.limit(lock))]
            if blocked:
                full.update(lock for lock in blocked if lock not in full)
                continue
            del self._waiting[task.id]
            self._active[task.id] = task
            self._held.update(task.locks)
            task.status, task.started = "running", self.time
            task.on_start(task)
            part = min(task.fail_at, 1.0) if task.failure else 1.0
            self._at(task.started + task.seconds * max(0.0, part), functools.partial(self._due, task))

    def _due(self, task: Task) -> None:
        if task.over or task.id not in self._active:
            return
        self._end(task, "error" if task.failure else "success", task.failure)

    def _end(self, task: Task, status: str, error: tuple[int, str, str] | None) -> None:
        task.progress = self.progress(task)
        task.status, task.error, task.ended = status, error, self.time
        if status == "success":
            task.progress = 100
        self._waiting.pop(task.id, None)
        if self._active.pop(task.id, None):
            self._held.subtract(task.locks)
        task.on_end(task)
        self._changed()
        self._start_waiting()

    def finish(self, task: Task, error: tuple[int, str, str] | None) -> None:
        """End a task whose work is that of others."""
        if not task.over:
            self._end(task, "error" if error else "success", error)

    def _at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), what))

    def advance(self) -> float:
        """Do all that is due; gives the time."""
        now = self.clock.now()
        while self._events and self._events[0][0] <= now:
            when, _order, what = heapq.heappop(self._events)
            self.time = max(self.time, when)
            what()
        self.time = max(self.time, now)
        return self.time

    def progress(self, task: Task) -> int:
        if task.over or task.status == "queued" or task.seconds >= _OF_OTHERS:
            return task.progress
        return max(0, min(99, int(100 * (self.time - task.started) / task.seconds))) if task.seconds > 0 else 99

    def shown(self, task: Task) -> str:
        """The status as clients see it: what waits for vCenter may already be running to vCloud."""
        return self.switches.queued_status if task.status == "queued" else task.status

    def cancel(self, task: Task) -> None:
        """Ask for a stop: a queued task at once, a running one a moment later."""
        task.cancel_requested = True
        if task.id in self._waiting:
            self._end(task, "canceled", None)
        else:
            self._at(self.time + self.switches.cancel_seconds, lambda: self._end(task, "canceled", None) if not task.over else None)

    def abort_all(self, error: tuple[int, str, str]) -> None:
        """What a restart of the cell does to running tasks."""
        for task in [*self._waiting.values(), *self._active.values()]:
            self._end(task, "aborted", error)

    def forget(self) -> None:
        """Drop ended tasks past their time; looked at once a second."""
        if self.time < self._forget_at:
            return
        self._forget_at = self.time + 1.0
        old = self.time - self.switches.task_keep_seconds
        for key in [k for k, t in self.tasks.items() if t.over and t.ended < old]:
            del self.tasks[key]

    def new(
        self, operation: str, operation_name: str, owner: tuple[str, str, str, str], user: str, org: tuple[str, str], seconds: float
    ) -> Task:
        return Task(str(uuid.uuid4()), operation, operation_name, owner, user, org[0], org[1], self.time, seconds)
