# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a long task tells while it runs, and how it is told to stop.

The task writes a status file; whoever started it reads that file, shows it, and touches a lease file as a sign of life.
The worker threads only set numbers and look at a flag (C(update), C(check): about a microsecond); a thread of our own
computes rates, writes the file and looks at the lease, so that the file stays fresh while a read blocks.

Status file (JSON, mode 0600, replaced atomically a few times a second)::

    {"version": 1, "name": "db01", "pid": 4711, "start_time": 123456, "job": "/home/u/.ansible_async/j12.34",
     "beat": 17, "state": "running", "why": "", "time": 1700000000.0, "seconds": 12.5, "unit": "bytes",
     "phase": "copy", "done": 1, "total": 2, "skipped": 0, "rate": 3.0,
     "disks": {"Hard disk 1": {"phase": "copy", "done": 1, "total": 2, "skipped": 0, "rate": 3.0, "left": 4.0,
                               "seconds": 12.5, "state": "running", "why": ""}}}

C(done), C(total), C(skipped) and C(rate) (per second, smoothed) are in C(unit); C(done) counts what was skipped, C(rate)
does not. C(left), C(seconds) and C(time) (since the epoch) are in seconds; C(left) is null where it is not known.
C(metrics) is there where figures for Prometheus are wanted, and says why they could not be written.
C(start_time) is the start of the process in clock ticks after boot where C(/proc) tells it (else 0): pid and start time
together name one process. C(state) is running, stopping, done or failed.
"""

from __future__ import annotations

import fcntl
import glob
import json
import math
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Mapping

from .errors import Busy, Interrupted, SinkError, bounded
from .metrics import FOLDER_VARIABLE, Metrics

#: Version of the status file's format.
VERSION = 1
#: Seconds between two looks at the lease and two computations of rates.
TICK = 0.25
#: The file is written at least this often (seconds), so that a reader can tell a slow task from a dead one.
HEARTBEAT = 1.0
#: Seconds for ending in an orderly way (volumes to give back, snapshots to remove) once told to stop.
PATIENCE = 600.0
#: Time constant of the smoothed rates, in seconds.
SMOOTHING = 8.0
#: The path of the status file and the life of the lease in seconds, from the action plugin.
STATUS_VARIABLE = "FERRY_TASK_STATUS"
LEASE_VARIABLE = "FERRY_TASK_LEASE"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Meter:
    """A smoothed rate: an exponentially weighted mean over SMOOTHING seconds, right from its first value on."""

    def __init__(self) -> None:
        self._amount = 0.0
        self._time = 0.0

    def add(self, amount: float, seconds: float) -> None:
        if seconds <= 0:
            return
        keep = math.exp(-seconds / SMOOTHING)
        self._amount = self._amount * keep + amount
        self._time = self._time * keep + seconds

    @property
    def rate(self) -> float:
        return self._amount / self._time if self._time > 0 else 0.0


class _Disk:
    """The figures of one disk. C(update) sets plain attributes; only the clock thread computes with them."""

    def __init__(self, now: float) -> None:
        self.phase = ""
        self.done = self.total = self.skipped = 0
        self.state = "running"
        self.why = ""
        self.began = now
        self.ended: float | None = None
        self.restart(now)

    def restart(self, now: float) -> None:
        """A new phase: its rate begins anew, and what was done before its first figure (a resumed copy) is no speed."""
        self.moved, self.passed = Meter(), Meter()
        self.seen, self.seen_done, self.seen_skipped = now, self.done, self.skipped

    def tick(self, now: float) -> None:
        done, skipped, elapsed = self.done, self.skipped, now - self.seen
        self.passed.add(max(0, done - self.seen_done), elapsed)
        self.moved.add(max(0, (done - skipped) - (self.seen_done - self.seen_skipped)), elapsed)
        self.seen, self.seen_done, self.seen_skipped = now, done, skipped

    def as_dict(self, now: float) -> dict[str, Any]:
        running = self.state == "running"
        speed = self.passed.rate
        left = (self.total - self.done) / speed if running and speed > 0 and self.total > 0 else None
        return {
            "phase": self.phase,
            "done": self.done,
            "total": self.total,
            "skipped": self.skipped,
            "rate": round(self.moved.rate if running else 0.0, 1),
            "left": None if left is None else round(max(0.0, left), 1),
            "seconds": round((self.ended if self.ended is not None else now) - self.began, 3),
            "state": self.state,
            "why": self.why,
        }


class Progress:
    """The progress of one task over any number of disks; a context manager that writes the end state.

    :param path: the status file, in a folder of the task's user. Without one nothing is written, but signals still stop.
    :param lease: the task stops when the lease file (C(path) + ".lease") was not touched for so many seconds. 0: it is
        not timed. Where there was a lease file, its removal stops the task in either case.
    :param controlled: a controller laid down the lease file beforehand: when it is not there at the start, it was taken back.
    :param unit: what C(done) and C(total) count: "bytes", or a word in the plural.
    :param name: whom the task is for (a VM).
    :param patience: a task that was told to stop and has not ended after so many seconds hangs in something that never answers: its
        process is killed. What it leaves is what any kill leaves, and the next run goes on from there.
    :param metrics: where to write figures for Prometheus too, as often as it wants them; only beside a status file.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        lease: float = 0,
        unit: str = "bytes",
        name: str = "",
        controlled: bool = False,
        patience: float = PATIENCE,
        metrics: Metrics | None = None,
    ) -> None:
        self.path = path
        self.metrics = metrics
        self.controlled = controlled
        self.patience = patience
        self.lease = lease
        self.unit = unit
        self.name = name
        self._lock = threading.Lock()
        self._disks: dict[str, _Disk] = {}
        self._why: str | None = None
        self._state = "running"
        self._end_why = ""
        self._beat = 0
        self._began = time.monotonic()
        self._written = -math.inf
        self._changed = False
        self._stop_clock = threading.Event()
        self._clock: threading.Thread | None = None
        self._lock_fd: int | None = None
        self._handlers: dict[int, Any] = {}
        self._lease_file = f"{path}.lease" if path else None
        self._lease_mtime: int | None = None
        self._lease_seen = time.monotonic()
        self._job = ""
        self._pid = os.getpid()
        self._start_time = start_time(self._pid)

    # -- what the task calls ------------------------------------------------------------------------------------------

    def update(
        self, disk: str, phase: str, done: int, total: int, skipped: int | None = None, why: str | None = None, state: str = "running"
    ) -> None:
        """Set the figures of C(disk) (its label). Thread-safe, costs about a microsecond.

        :param phase: what is being done, a word ("copy", "verify"); a new one begins a new rate.
        :param done: what is behind us, skipped parts and those of an earlier run included.
        :param total: what C(done) will be at the end; 0 where it is not known.
        :param skipped: how much of C(done) needed no moving (holes, zeroes, unchanged or resumed parts).
        :param why: a short remark for people, shown in the line.
        """
        with self._lock:
            self._changed = True
            entry = self._disks.get(disk)
            if entry is None:
                entry = self._disks[disk] = _Disk(time.monotonic())
            entry.done, entry.total = done, total
            if skipped is not None:
                entry.skipped = skipped
            if phase != entry.phase:
                entry.phase = phase
                entry.restart(time.monotonic())
            if why is not None:
                entry.why = bounded(why, 200)
            if state != entry.state:
                entry.state = state
                entry.ended = None if state == "running" else time.monotonic()

    def finish(self, disk: str, skipped: int | None = None, why: str | None = None, failed: bool = False) -> None:
        """C(disk) is done (or has failed): its clock stops; C(done) becomes C(total) unless it failed."""
        with self._lock:
            entry = self._disks.get(disk)
            phase, done, total = (entry.phase, entry.done, entry.total) if entry else ("", 0, 0)
        self.update(disk, phase, done if failed else max(done, total), total, skipped, why, "failed" if failed else "done")

    def check(self) -> None:
        """Raise Interrupted when a signal came, the lease ran out or C(stop) was called. Costs less than a microsecond."""
        if self._why is not None:
            raise Interrupted(
                f"Stopped: {self._why}.",
                left="what was copied so far stays and is used again",
                next_command="the same command again; it goes on where this one stopped",
            )

    def wait(self, seconds: float) -> None:
        """Sleep, but raise Interrupted within a quarter of a second when the task is to stop."""
        # Slices instead of an Event: an Event must not be set by a signal handler, its lock is not reentrant.
        end = time.monotonic() + seconds
        while True:
            self.check()
            rest = end - time.monotonic()
            if rest <= 0:
                return
            time.sleep(min(rest, TICK))

    def stop(self, why: str) -> None:
        """Ask the task to stop: every C(check) raises from now on. Safe in a signal handler; the first reason stays."""
        if self._why is None:
            self._why = bounded(why, 200)

    def install_signals(self) -> None:
        """Let SIGTERM, SIGINT and SIGHUP stop the task; C(__exit__) gives the old handlers back. Python has them in the main
        thread only: called in another one, this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            self._handlers[number] = signal.signal(number, self._on_signal)

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Progress:
        self._began = self._lease_seen = time.monotonic()
        if self.path:
            self._take_lock()
            self._job = _async_job()
            self._look_at_lease(self._began)
            self._write("running")
            self._clock = threading.Thread(target=self._run_clock, name="progress", daemon=True)
            self._clock.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._clock is not None:
            self._stop_clock.set()
            self._clock.join()
            self._clock = None
        if error is not None:
            self._end_why = bounded(error) or type(error).__name__
        with self._lock:
            for entry in self._disks.values():
                if entry.state == "running":
                    entry.state, entry.ended = "done" if error is None else "failed", time.monotonic()
        if self.path:
            self._write("done" if error is None else "failed")
            self._release_lock()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop(signal.Signals(number).name)

    # -- one task per status file -------------------------------------------------------------------------------------

    def _take_lock(self) -> None:
        """Hold a lock beside the status file, so that a second start of the same task finds the first one."""
        name = f"{self.path}.lock"
        while True:
            try:
                fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as e:
                raise SinkError("The folder of the status file cannot be written.", said=e, step="begin to report progress") from e
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                os.close(fd)
                raise Busy("The same task is already running.", said=e, status_file=self.path) from e
            try:
                if os.path.samestat(os.fstat(fd), os.stat(name)):
                    self._lock_fd = fd
                    return
            except FileNotFoundError:
                pass
            os.close(fd)  # the holder before us removed the file between open and flock: ours is no longer the one on disk

    def _release_lock(self) -> None:
        if self._lock_fd is not None:
            try:
                os.unlink(f"{self.path}.lock")
            except OSError:
                pass  # a folder taken away under us; the lock itself goes with the descriptor
            os.close(self._lock_fd)
            self._lock_fd = None

    # -- the clock thread ---------------------------------------------------------------------------------------------

    def _run_clock(self) -> None:
        told = time.monotonic()
        while not self._stop_clock.wait(TICK):
            now = time.monotonic()
            self._look_at_lease(now)
            if self._changed or now - self._written >= HEARTBEAT:
                self._changed = False
                self._write("stopping" if self._why is not None else "running")
            if self._why is None:
                told = now
            elif now - told > self.patience:
                self._end_why = f"{self._why}; it did not end for {self.patience:g} s, and was killed"
                self._write("failed")
                os.kill(self._pid, signal.SIGKILL)

    def _look_at_lease(self, now: float) -> None:
        """Its mtime is compared with itself only, never with our clock: that may be set, and the file may lie on NFS."""
        if self._lease_file is None:
            return
        try:
            mtime = os.stat(self._lease_file).st_mtime_ns
        except FileNotFoundError:
            if self._lease_mtime is not None or self.controlled:
                self.stop("its controller gave it up")
            elif self.lease and now - self._lease_seen > self.lease:
                self.stop(f"no sign of life of its controller for {self.lease:g} s")
            return
        except OSError:
            mtime = self._lease_mtime or 0
        if mtime != self._lease_mtime:
            self._lease_mtime, self._lease_seen = mtime, now
        elif self.lease and now - self._lease_seen > self.lease:
            self.stop(f"no sign of life of its controller for {self.lease:g} s")

    def snapshot(self, state: str = "running") -> dict[str, Any]:
        """The content of the status file as it would be written now."""
        now = time.monotonic()
        with self._lock:
            for entry in self._disks.values():
                if entry.state == "running":
                    entry.tick(now)
            disks = {label: entry.as_dict(now) for label, entry in self._disks.items()}
        active = [d for d in disks.values() if d["state"] == "running"]
        return {
            "version": VERSION,
            "name": self.name,
            "pid": self._pid,
            "start_time": self._start_time,
            "job": self._job,
            "beat": self._beat,
            "state": state,
            "why": self._end_why or self._why or "",
            "time": time.time(),
            "seconds": round(now - self._began, 3),
            "unit": self.unit,
            "phase": (active or list(disks.values()) or [{"phase": ""}])[-1]["phase"],
            "done": sum(d["done"] for d in disks.values()),
            "total": sum(d["total"] for d in disks.values()),
            "skipped": sum(d["skipped"] for d in disks.values()),
            "rate": round(sum(d["rate"] for d in active), 1),
            "disks": disks,
        }

    def _write(self, state: str) -> None:
        if self.path is None:
            return
        self._written = time.monotonic()
        self._beat += 1
        said = self.snapshot(state)
        if self.metrics is not None:
            self.metrics.write(said)
            said["metrics"] = self.metrics.problem
        temp = f"{self.path}.tmp"
        try:
            fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as stream:
                json.dump(said, stream)
            os.replace(temp, self.path)
        except OSError:
            pass  # a full file system must not end a copy; the reader sees that the file is stale and asks in another way


def start_time(pid: int) -> int:
    """Start of a process in clock ticks after boot (proc(5), field 22 of stat); 0 where it cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return int(stream.read().rpartition(b") ")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _async_job() -> str:
    """Path of the result file of ansible-core's async_wrapper when it started us, else an empty string.

    The wrapper is our parent; its first argument is the first half of the job's name, and the folder is in the
    environment (ansible-core 2.17 to 2.19, lib/ansible/modules/async_wrapper.py). A controller that lost its connection
    while starting us finds our result by this.
    """
    try:
        with open(f"/proc/{os.getppid()}/cmdline", "rb") as stream:
            words = stream.read(4096).decode("utf-8", "replace").split("\0")
    except OSError:
        return ""
    for script, job in zip(words, words[1:], strict=False):
        if os.path.basename(script).find("async_wrapper") >= 0 and job.startswith("j") and job[1:].isdigit():
            folder = os.path.expanduser(os.environ.get("ANSIBLE_ASYNC_DIR", "~/.ansible_async"))
            found = [name for name in glob.glob(os.path.join(glob.escape(folder), f"{job}.*")) if not name.endswith(".tmp")]
            return found[0] if len(found) == 1 else ""
    return ""


def progress_from(params: Mapping[str, Any] | None = None, *, name: str = "", unit: str = "bytes") -> Progress:
    """The Progress of a module: what the action plugin asked for in the environment, taken out of it here.

    Without those variables (check mode, or called from Python) nothing is written; C(controlled) tells which it is. They
    are no argument because validate-modules accepts no private ones.

    :param params: the module's parameters; not used, so far.
    """
    path = os.environ.pop(STATUS_VARIABLE, "")
    try:
        lease = float(os.environ.pop(LEASE_VARIABLE, "") or 0)
    except ValueError:
        lease = 0.0
    folder = os.environ.pop(FOLDER_VARIABLE, "")
    metrics = Metrics(folder) if folder else None
    return Progress(path or None, lease=lease, unit=unit, name=name, controlled=bool(path), metrics=metrics)
