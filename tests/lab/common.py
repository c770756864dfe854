# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every part of the lab needs: where things are, ports, processes that outlive the command, errors for people."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
# Tests run from the staged copy of the tree, build/<stage>/ansible_collections/ferry/vmware: what is built there belongs
# into the same build/ as what the checkout builds.
_STAGED = ROOT.parts[-3:] == ("ansible_collections", "ferry", "vmware") and ROOT.parents[3].name == "build"
BUILD = ROOT.parents[3] if _STAGED else ROOT / "build"


class LabError(Exception):
    """Something that a person can put right; the command line prints it without a traceback."""


@dataclass(frozen=True)
class Place:
    """Where a lab lives: its state folder and its port base. Two places run beside each other."""

    state: Path
    base: int

    @classmethod
    def from_environment(cls) -> Place:
        """FERRY_LAB_DIR (default build/lab) and FERRY_LAB_BASE (default 21000)."""
        text = os.environ.get("FERRY_LAB_BASE") or "21000"
        if not text.isdigit() or not 1024 <= int(text) <= 65000:
            raise LabError(f"FERRY_LAB_BASE is {text!r}: a port from 1024 to 65000 is wanted")
        state = Path(os.environ.get("FERRY_LAB_DIR") or BUILD / "lab")
        return cls(state if state.is_absolute() else BUILD.parent / state, int(text))

    @property
    def password_file(self) -> Path:
        return self.state / "password"

    def password(self) -> str:
        """The lab's password, made once per state folder."""
        try:
            return self.password_file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            # Parts of the lab start side by side, and the first to make it is the one whom the others follow.
            temp = self.password_file.with_name(f".password.{os.getpid()}.{threading.get_ident()}")
            write_private(temp, secrets.token_urlsafe(18) + "\n")
            with contextlib.suppress(FileExistsError):
                os.link(temp, self.password_file)
            temp.unlink()
            return self.password_file.read_text(encoding="ascii").strip()


def write_private(path: Path, text: str) -> None:
    """Write a file that only we may read (0600), whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(temp, path)


def port_is_free(port: int) -> bool:
    """Whether 127.0.0.1:port can be listened on."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def started_at(pid: int) -> str | None:
    """The start time of a process in clock ticks since boot (proc(5), field 22 of stat), or None when it is gone.

    Together with the pid it names one process for ever: a recycled pid has another start time.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return None
    return fields[19]


class Process:
    """A server of the lab: in a session of its own, found again by a file that holds its pid and start time."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.pid_file = folder / f"{name}.pid"
        self.log_file = folder / f"{name}.log"

    def pid(self) -> int | None:
        """The pid while that very process lives."""
        try:
            kept = json.loads(self.pid_file.read_text(encoding="utf-8"))
            pid, start = int(kept["pid"]), str(kept["start"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return pid if started_at(pid) == start else None

    def start(self, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None, *, whole_env: bool = False) -> None:
        """Start it with its output in the log file. Secrets belong in files, never in argv.

        env comes on top of ours; with whole_env it is all that the process gets.
        """
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log_file, "ab") as log:
            os.chmod(self.log_file, 0o600)
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=cwd,
                env={**({} if whole_env else os.environ), **(env or {})},
            )
        start = started_at(child.pid)
        write_private(self.pid_file, json.dumps({"pid": child.pid, "start": start}) + "\n")
        # It outlives us; should it end before, this thread keeps it from staying a zombie.
        threading.Thread(target=child.wait, daemon=True).start()

    def wait_ready(self, ready: Callable[[], bool], timeout: float) -> None:
        """Wait until ready() (seconds); a process that has died or is late is an error with the end of its log."""
        end = time.monotonic() + timeout
        while not ready():
            if self.pid() is None:
                raise LabError(f"{self.name} did not start:\n{self.tail()}")
            if time.monotonic() > end:
                raise LabError(f"{self.name} was not ready after {timeout:.0f} s:\n{self.tail()}")
            time.sleep(0.05)

    def stop(self, timeout: float = 10.0) -> bool:
        """Stop the process and its session: TERM, then KILL after timeout seconds. False when it did not run."""
        pid = self.pid()
        if pid is not None:
            self._signal(pid, signal.SIGTERM)
            end = time.monotonic() + timeout
            while self.pid() is not None and time.monotonic() < end:
                time.sleep(0.02)
            if self.pid() is not None:
                self._signal(pid, signal.SIGKILL)
                while self.pid() is not None and time.monotonic() < end + 5:
                    time.sleep(0.02)
        self.pid_file.unlink(missing_ok=True)
        return pid is not None

    @staticmethod
    def _signal(pid: int, number: signal.Signals) -> None:
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            pass

    def tail(self, lines: int = 12) -> str:
        try:
            with open(self.log_file, "rb") as f:
                f.seek(max(0, self.log_file.stat().st_size - 8192))
                return "\n".join(f.read().decode("utf-8", "replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"


def need(program: str, package: str, what_for: str) -> str:
    """The path of a system program, also from the sbin folders, or an error that says what to install."""
    path = os.environ.get("PATH", "/usr/bin:/bin").split(os.pathsep) + ["/usr/local/sbin", "/usr/sbin", "/sbin"]
    for folder in path:
        candidate = Path(folder) / program
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    raise LabError(f"{program} is missing: it {what_for}. Install it with: sudo apt-get install {package}")
