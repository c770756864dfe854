# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read budgets: how fast, and how many disks at once, may be read from each ESXi host, each datastore and altogether.

All copies on a machine share a folder, whichever process they are in. Rates are kept by one small file for each bucket, changed
under flock(2): it holds the time up to which the bucket's bytes are given away. Who wants bytes takes the next place behind that
time and waits for it, so nobody is overtaken; a process that dies leaves nothing behind but a quarter of a second. Slots are
locks on files, which the kernel frees with the process. Settings are read again when their file changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import threading
import time
from dataclasses import dataclass
from typing import Callable, Iterator

from .budget_settings import EMPTY, FILE, OVERALL, Limit, Settings, checked, load, save
from .errors import FerryError

__all__ = ["EMPTY", "FILE", "OVERALL", "Budget", "Limit", "Settings", "checked", "load", "save"]

#: Seconds of its rate that one request takes at once; a larger one takes several turns, so that others come in between.
SLICE = 0.25
#: Seconds of unused rate that a bucket keeps.
BURST = 0.1
#: Seconds after which settings, windows and C(stop) are looked at again by who waits.
LOOK = 0.5
#: Time (CLOCK_MONOTONIC) up to which the bucket is given away, and the rate (bytes per second) at which that was reckoned.
_STATE = struct.Struct("<dd")


def _day() -> float:
    now = time.localtime()
    return now.tm_hour * 3600.0 + now.tm_min * 60 + now.tm_sec


@dataclass(frozen=True)
class Clock:
    """Time as the budget sees it; tests bring their own. C(day): seconds since the local midnight."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    day: Callable[[], float] = _day


class Bucket:
    """The bucket of one scope, shared by all processes. Thread-safe."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def take(self, count: int, rate: float) -> float:
        """Give away the next C(count) bytes at C(rate) (bytes per second); the time (CLOCK_MONOTONIC) when they may pass."""
        with _locked(self._path) as fd:
            now = self._clock.now()
            given, before = self._read(fd, now)
            if before > 0 and before != rate and given > now:
                # The rate was changed: what waits moves up, or back.
                given = now + (given - now) * before / rate
            start = max(given, now - BURST)
            os.pwrite(fd, _STATE.pack(start + count / rate, rate), 0)
            return start

    @staticmethod
    def _read(fd: int, now: float) -> tuple[float, float]:
        data = os.pread(fd, _STATE.size, 0)
        if len(data) != _STATE.size:
            return 0.0, 0.0
        given, rate = _STATE.unpack(data)
        # After a restart of the machine its clock begins anew; nobody gives away more than an hour.
        return (given, rate) if given < now + 3600 and rate > 0 else (0.0, 0.0)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


class Budget:
    """The budget in C(folder), which is made where it is not there. Without settings in it, nothing is limited.

    :raises BadInput: the settings in the folder are none.
    """

    def __init__(self, folder: str, clock: Clock | None = None) -> None:
        self.folder = folder
        self._clock = clock or Clock()
        #: Buckets and slots; the settings stand beside it.
        self._shared = os.path.join(folder, "budget")
        for path in (folder, self._shared):
            os.makedirs(path, mode=0o700, exist_ok=True)
        self._lock = threading.Lock()
        self._settings = load(folder)
        self._state = self._stat()
        self._looked = self._clock.now()

    def _stat(self) -> tuple[int, int, int]:
        try:
            info = os.stat(os.path.join(self.folder, FILE))
        except OSError:
            return (0, 0, 0)
        return (info.st_ino, info.st_mtime_ns, info.st_size)

    def settings(self) -> Settings:
        """What holds now. A file that cannot be read leaves the last settings in force."""
        with self._lock:
            now = self._clock.now()
            if now - self._looked >= LOOK:
                self._looked = now
                state = self._stat()
                if state != self._state:
                    try:
                        self._settings = load(self.folder)
                        self._state = state
                    except FerryError:
                        pass  # half an edit by hand; copies go on as before, and a new copy says what is wrong
            return self._settings

    def _path(self, kind: str, name: str) -> str:
        """Where the files of a scope are, without what tells them apart. Names come from outside, and become no paths."""
        return os.path.join(self._shared, hashlib.sha256(f"{kind}\0{name}".encode("utf-8", "backslashreplace")).hexdigest()[:32])

    # -- rates ---------------------------------------------------------------------------------------------------

    def throttle(
        self, *, host: str | None = None, datastore: str | None = None, stop: Callable[[], None] = lambda: None
    ) -> Callable[[int], None]:
        """A function that is called with a number of bytes before they are read from C(host) and C(datastore), and blocks.

        Get one for each disk: its threads take turns, so that a disk with many threads gets no more than one with few.

        :param stop: called about twice a second while waiting; what it raises ends the wait.
        """
        buckets: dict[tuple[str, str], Bucket] = {}
        turn = threading.Lock()

        def bucket(scope: tuple[str, str]) -> Bucket:
            if scope not in buckets:
                buckets[scope] = Bucket(f"{self._path(*scope)}.bucket", self._clock)
            return buckets[scope]

        def wait(count: int) -> None:
            while not turn.acquire(timeout=LOOK):
                stop()
            try:
                while count > 0:
                    count -= self._pass(count, bucket, host, datastore, stop)
            finally:
                turn.release()

        return wait

    def _rates(self, host: str | None, datastore: str | None) -> list[tuple[tuple[str, str], float]]:
        day = self._clock.day()
        found = []
        for scope, limit in self.settings().scopes(host, datastore):
            rate = limit.rate_at(day)
            if rate is not None:
                found.append((scope, rate))
        return found

    def _pass(
        self, count: int, bucket: Callable[[tuple[str, str]], Bucket], host: str | None, datastore: str | None, stop: Callable[[], None]
    ) -> int:
        """Wait until a part of C(count) bytes may pass; how many."""
        rates = self._rates(host, datastore)
        if not rates:
            return count
        if min(rate for _scope, rate in rates) <= 0:
            # A window in which nothing is read.
            stop()
            self._clock.sleep(LOOK)
            return 0
        part = min([count, *(max(4096, int(rate * SLICE)) for _scope, rate in rates)])
        start = max(bucket(scope).take(part, rate) for scope, rate in rates)
        while (left := start - self._clock.now()) > 0:
            self._clock.sleep(min(left, LOOK))
            stop()
            if left > LOOK and (now := self._rates(host, datastore)) != rates:
                # Changed while waiting: what was taken passes as soon as the new rates would have it.
                old, new = min(rate for _scope, rate in rates), min((rate for _scope, rate in now), default=float("inf"))
                if new > old:
                    start = self._clock.now() + max(0.0, start - self._clock.now()) * old / new
                rates = now
        return part

    # -- slots ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def slot(self, *, host: str | None = None, datastore: str | None = None, stop: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold a place for one disk among those that may be read at once from C(host), C(datastore) and altogether; waits for it.

        The place is free again at the end of the block, and when the process dies.
        """
        held: list[int] = []
        try:
            while not self._take_slots(host, datastore, held):
                stop()
                self._clock.sleep(LOOK)
            yield
        finally:
            for fd in held:
                os.close(fd)

    def _take_slots(self, host: str | None, datastore: str | None, held: list[int]) -> bool:
        """Take a place in each scope, or in none."""
        day = self._clock.day()
        for scope, limit in self.settings().scopes(host, datastore):
            most = limit.disks_at(day)
            if most is None:
                # Counted all the same: a limit may come while this disk is read.
                most = 1 << 12
            fd = self._take_slot(f"{self._path(*scope)}.slot", most)
            if fd < 0:
                for other in held:
                    os.close(other)
                held.clear()
                return False
            held.append(fd)
        return True

    @staticmethod
    def _take_slot(stem: str, most: int) -> int:
        """A locked file of this scope, or -1 where C(most) are locked. The lock of the scope makes counting and taking one step."""
        with _locked(f"{stem}.lock"):
            taken, free = 0, -1
            number = 0
            while True:
                path = f"{stem}.{number}"
                exists = os.path.exists(path)
                if not exists and free >= 0:
                    break
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(fd)
                    taken += 1
                else:
                    if free < 0:
                        free = fd
                    else:
                        os.close(fd)
                if not exists:
                    break
                number += 1
            if taken < most:
                return free
            os.close(free)
            return -1
