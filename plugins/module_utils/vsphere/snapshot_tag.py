# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What marks a snapshot as ours: the first line of its description is JSON that says who took it and what for.

By this a later run, on any machine, finds what a killed one left behind, and nobody else's snapshot is ever touched.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass

#: Written into each tag, so that nobody else's JSON is taken for ours.
MARK = "ferry.vmware"
#: Longer first lines are not ours; vCenter's limit for the whole description is far below.
_LONGEST = 4096

#: Snapshots of this purpose were asked for by name and stay until somebody removes them.
KEPT = "kept"

#: Ids of the snapshots that this process is using now.
HELD: set[str] = set()


@dataclass(frozen=True)
class Tag:
    """C(owner): host and state folder of the run (host:/folder). C(process): boot, pid and start of the process on that host.
    C(purpose): copy, cbt, areas, kept. C(vm): instance UUID of the VM. C(id): of this snapshot, unique."""

    owner: str
    process: str
    purpose: str
    vm: str
    id: str

    def text(self, explanation: str) -> str:
        """The snapshot's description: the tag as one line, and C(explanation) for people."""
        return json.dumps({"by": MARK, **asdict(self)}, ensure_ascii=False, separators=(",", ":")) + "\n" + explanation

    @property
    def host(self) -> str:
        """The machine that took it."""
        return self.owner.partition(":")[0]

    @property
    def alive(self) -> bool | None:
        """Whether it is still in use: the process that took it runs. None where that cannot be told: it ran on another machine."""
        if self.host != host_name():
            return None
        return self.id in HELD if self.process == _own() else _runs(self.process)


def new_tag(purpose: str, vm: str | None, folder: str | None = None) -> Tag:
    """The tag of a snapshot that this process is about to take.

    :param vm: instance UUID.
    :param folder: the run's state folder.
    """
    return Tag(f"{host_name()}:{folder or ''}", _own(), purpose, vm or "", uuid.uuid4().hex)


def parse(description: str | None) -> Tag | None:
    """The tag in a snapshot's description, None for a snapshot that is not ours."""
    line = (description or "").partition("\n")[0].strip()
    if not line.startswith("{") or len(line) > _LONGEST:
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("by") != MARK:
        return None
    fields = [str(found.get(name) or "") for name in ("owner", "process", "purpose", "vm", "id")]
    return Tag(*fields) if fields[4] else None


def host_name() -> str:
    """This machine's name as it stands in tags."""
    return socket.gethostname().replace(":", "_")


def _own() -> str:
    return _process(os.getpid()) or str(os.getpid())


def _process(pid: int) -> str | None:
    """What tells process C(pid) from a later one of the same number: boot, pid, start in clock ticks since boot (proc(5))."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            boot = f.read().strip()
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    # the third field of the line is the first after the name; start time is the 22nd
    return None if fields[0] == "Z" else f"{boot}/{pid}/{fields[19]}"


def process_name(pid: int) -> str | None:
    """What tells process C(pid) of this machine from any other of any machine; None where it does not run."""
    process = _process(pid)
    return f"{host_name()}:{process}" if process else None


def runs(name: str) -> bool | None:
    """Whether the process that process_name() named C(name) still runs; None where that cannot be told: it is another machine's."""
    host, _colon, process = name.partition(":")
    return _runs(process) if host == host_name() else None


def _runs(process: str) -> bool | None:
    parts = process.split("/")
    if len(parts) != 3 or not parts[1].isdigit():
        return None
    return _process(int(parts[1])) == process
