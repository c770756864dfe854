# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which processes of this machine copy disks of a VM now, and ending them: by the locks that they hold, never by a name or a bare number."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import signal
import time
from dataclasses import dataclass
from typing import Iterable

from ..errors import Busy

#: Seconds that a copy gets to end by itself: it flushes, writes its ledger and removes its snapshot.
TIMEOUT = 120.0
_PAUSE = 0.2


@dataclass(frozen=True)
class Holder:
    """A lock that is held. C(pid): 0 where the process cannot be told."""

    path: str
    pid: int


def lock_files(folder: str, vm: str) -> list[str]:
    """The lock files of the VM with the instance UUID C(vm) below the state folder: its own, and one for each disk's ledger."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", vm)[:60]
    own = os.path.join(folder, "vms", f"{vm}.lock")
    found = sorted(glob.glob(os.path.join(glob.escape(folder), "ledgers", f"{name}--*.lock")))
    return [own, *found] if os.path.basename(own) == f"{vm}.lock" else found


def holders(folder: str, vm: str) -> list[Holder]:
    """The locks of the VM that somebody else holds, as the kernel lists them (proc_locks(5)): asking by taking them would be in the way."""
    return held(lock_files(folder, vm))


def held(paths: Iterable[str]) -> list[Holder]:
    """Those of the lock files C(paths) that somebody else holds."""
    inodes = {}
    for path in paths:
        with contextlib.suppress(OSError):
            inodes[os.stat(path).st_ino] = path
    if not inodes:
        return []
    found = []
    with open("/proc/locks", encoding="ascii", errors="replace") as f:
        for line in f:
            match = re.match(r"\d+: FLOCK +\S+ +WRITE +(-?\d+) +\S+:(\d+) ", line)
            if match is None or int(match[2]) not in inodes or int(match[1]) == os.getpid():
                continue
            path = inodes[int(match[2])]
            is_it = _has_open(int(match[1]), path)
            if is_it is not False:
                found.append(Holder(path, int(match[1]) if is_it else 0))
    return found


def _has_open(pid: int, path: str) -> bool | None:
    """Whether the process has the file open: inodes are numbered for each file system. None where it cannot be told."""
    try:
        entries = list(os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return None if os.path.exists(f"/proc/{pid}") else False
    wanted = os.path.realpath(path)
    for entry in entries:
        with contextlib.suppress(OSError):
            if os.readlink(entry.path) == wanted:
                return True
    return False


def end(folder: str, vm: str, name: str, *, stop: bool, timeout: float = TIMEOUT) -> int:
    """Wait until no process of this machine copies disks of the VM, and ask those that do to end; how many were asked.

    :param stop: whether to ask them (SIGTERM); else it is an error that there are any.
    :param timeout: seconds.
    :raises Busy: they go on.
    """
    asked: set[int] = set()
    until = time.monotonic() + timeout
    while True:
        there = holders(folder, vm)
        if not there:
            return len(asked)
        pids = {h.pid for h in there if h.pid > 0}
        if not stop or time.monotonic() > until:
            raise Busy(
                "A copy of disks of this VM is running on this machine.",
                vm=name,
                step="wait for the copy",
                said=", ".join(f"process {h.pid or '?'} holds {os.path.basename(h.path)}" for h in there),
                next_command="stop its playbook, and run this one again",
            )
        for pid in pids - asked:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
            asked.add(pid)
        time.sleep(_PAUSE)  # waiting for the lock would take it from the copy that may follow
