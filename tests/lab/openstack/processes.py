# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Background processes that outlive their starter: a pid file each, ended with all that they started.

Linux only: a process is recognised by its pid and start time in /proc, its descendants by the session it leads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Iterable, Mapping, Sequence

from .layout import LabError


class Processes:
    """The processes whose pid files lie in *run*, with their output in *log*."""

    def __init__(self, run: Path, log: Path) -> None:
        self._run = run
        self._log = log

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start *argv* as *name*, detached; a process of that name that still lives is an error."""
        if self.pid(name) is not None:
            raise LabError(f"{name} already runs")
        for folder in (self._run, self._log):
            folder.mkdir(parents=True, exist_ok=True)
        with open(self.output(name), "ab") as output:
            process = subprocess.Popen(
                argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._file(name).write_text(json.dumps({"pid": process.pid, "started": _stat(process.pid).started}))

    def pid(self, name: str) -> int | None:
        """The pid of *name*, or None if it does not run (any more)."""
        leader = self._leader(name)
        if leader is None:
            return None
        try:
            os.waitpid(leader[0], os.WNOHANG)  # our own child: without this a dead one stays a zombie
        except ChildProcessError:
            pass
        return leader[0] if _is(*leader) else None

    def names(self) -> list[str]:
        """Of all processes that were started and not stopped, living or not."""
        return sorted(path.stem for path in self._run.glob("*.pid"))

    def output(self, name: str) -> Path:
        return self._log / f"{name}.out"

    def stop(self, names: Iterable[str], timeout: float = 8.0) -> None:
        """End the processes and everything in their sessions: SIGTERM, and after *timeout* seconds SIGKILL."""
        names = list(names)
        sessions = {leader[0] for name in names if (leader := self._leader(name)) and _ours(*leader)}
        for pid in _members(sessions):
            if pid in sessions:  # a leader ends its helpers itself, if it can
                _kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while (left := _members(sessions)) and time.monotonic() < deadline:
            if not left & sessions:  # the leaders are gone: their helpers need no time
                break
            time.sleep(0.05)
        while left := _members(sessions):
            for pid in left:
                _kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for name in names:
            self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._run / f"{name}.pid"

    def _leader(self, name: str) -> tuple[int, int] | None:
        """(pid, start time) as noted when *name* was started."""
        try:
            noted = json.loads(self._file(name).read_text())
            return int(noted["pid"]), int(noted["started"])
        except (FileNotFoundError, ValueError, KeyError):
            return None


class _Stat:
    """Fields of /proc/PID/stat, see proc(5)."""

    def __init__(self, text: str) -> None:
        fields = text.rpartition(")")[2].split()  # the name in brackets may hold anything
        self.state = fields[0]
        self.session = int(fields[3])
        self.started = int(fields[19])  # in clock ticks since boot


def _stat(pid: int) -> _Stat:
    return _Stat(Path(f"/proc/{pid}/stat").read_text())


def _is(pid: int, started: int) -> bool:
    """Whether the process lives and is the one that was noted, not a later one with its number."""
    try:
        stat = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.started == started and stat.state != "Z"


def _ours(pid: int, started: int) -> bool:
    """Whether session *pid* can only be the one that was noted: its leader lives, or is gone (a pid in use as a session
    is not given to another process)."""
    try:
        return _stat(pid).started == started
    except (FileNotFoundError, ProcessLookupError):
        return True


def _members(sessions: set[int]) -> set[int]:
    """The living processes of these sessions; dead children of ours are reaped on the way."""
    members = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = _stat(int(entry))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if stat.session not in sessions:
            continue
        if stat.state == "Z":
            try:
                os.waitpid(int(entry), os.WNOHANG)
            except ChildProcessError:
                pass  # its parent's or init's to reap
            continue
        members.add(int(entry))
    return members


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
