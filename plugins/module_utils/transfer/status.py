# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every migration that this conversion host knows of: from its ledgers, and of those that run, from their status files. Nothing is changed.

States, of a disk and of its VM (the first of this order that one of its disks has):

* C(running), C(stopping): a process copies it now;
* C(failed): its last copy ended with an error; C(interrupted): it was stopped or killed, or its machine died;
* C(precopied): it is copied, and the VM runs on with its changes tracked: a further cycle or the cutover follows;
* C(copied): all of it was copied;
* C(new): its target was prepared, and nothing was copied yet.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import stat
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ..disk import ledger_view
from ..disk.progress import VERSION, start_time
from ..errors import FerryError, bounded
from . import holders, noted, throughput
from .targets import state_dir

STATES = ("running", "stopping", "failed", "interrupted", "precopied", "copied", "new")
#: Where the action plugins lay status files (plugin_utils/long_task.py).
STATUS_FOLDER = os.path.join("~", ".ansible", "ferry")
#: Figures beyond this are none: bytes of a disk, seconds since the epoch.
_MOST_OF_ANYTHING = 1 << 62
#: No status file is larger, and not more ledgers and files than this are looked at, the newest ones.
_MAX_STATUS, _MOST = 1_000_000, 20_000
_NAME = re.compile(r"(?P<vm>[A-Za-z0-9._-]{1,60})--(?P<disk>[A-Za-z0-9._-]{1,60})--[0-9a-f]{16}\.sqlite")
_AGAIN = "run the same playbook again; it goes on inside the disk"


@dataclass
class _Task:
    """A status file. C(alive): its process lives and works."""

    facts: Mapping[str, Any]
    alive: bool

    @property
    def pid(self) -> int:
        return int(self.facts["pid"])


def read(ledger: str | None = None, vms: Sequence[str] = ()) -> dict[str, Any]:
    """C(migrations) (one row per VM), C(tasks) (what runs and keeps no ledger: conversions, uploads), C(problems) and C(ledger).

    :param ledger: the folder of ledgers, see state_dir().
    :param vms: names (with wildcards) or instance UUIDs; none: all of them. What cannot be read is told in any case.
    """
    folder = state_dir(ledger)
    problems: list[dict[str, Any]] = []
    tasks = _tasks(os.path.expanduser(STATUS_FOLDER), problems)
    paths = _ledgers(folder, problems)
    held = _held(paths, problems)
    rows: dict[str, list[dict[str, Any]]] = {}
    for path in paths:
        try:
            row = _disk(path, held.get(path), tasks)
        except FerryError as e:
            problems.append(
                {
                    "path": path,
                    "code": e.code,
                    "what": bounded(e.message + (f" {e.said}" if e.said else "")),
                    "next_command": e.next_command,
                }
            )
            continue
        rows.setdefault(row["source"] or row["vm"], []).append(row)
    found = [_vm(disks) for disks in rows.values()]
    told = {row["pid"] for disks in rows.values() for row in disks}
    others = [_other(t, label, d) for t in tasks if t.alive and t.pid not in told for label, d in t.facts["disks"].items()]
    wanted = [v for v in vms if v]
    return {
        "migrations": sorted(
            (m for m in found if _meant(m["vm"], m["source"], wanted)), key=lambda m: (STATES.index(m["state"]), m["vm"], m["source"])
        ),
        "tasks": [o for o in others if _meant(o["name"], "", wanted)],
        "problems": problems,
        "ledger": folder,
    }


def _meant(name: str, source: str, wanted: Sequence[str]) -> bool:
    if not wanted:
        return True
    return any(name == w or fnmatch.fnmatchcase(name, w) or (source and source.lower() == w.lower()) for w in wanted)


# -- what there is --------------------------------------------------------------------------------------------------


def _ledgers(folder: str, problems: list[dict[str, Any]]) -> list[str]:
    path = os.path.join(folder, "ledgers")
    try:
        found = [(e.stat().st_mtime, e.path) for e in os.scandir(path) if _NAME.fullmatch(e.name) and e.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as e:
        problems.append({"path": path, "code": "unreadable", "what": f"The ledgers cannot be read: {e.strerror}.", "next_command": None})
        return []
    if len(found) > _MOST:
        what = f"There are {len(found)} ledgers; the newest {_MOST} are shown."
        problems.append(
            {"path": path, "code": "too_many", "what": what, "next_command": "ferry.vmware.commit removes those of finished VMs"}
        )
    return sorted(path for _at, path in sorted(found, reverse=True)[:_MOST])


def _held(paths: Sequence[str], problems: list[dict[str, Any]]) -> dict[str, int]:
    """Process by ledger, of those that are being written."""
    try:
        return {h.path.removesuffix(".lock"): h.pid for h in holders.held(f"{p}.lock" for p in paths)}
    except OSError as e:
        problems.append(
            {"path": "/proc/locks", "code": "unreadable", "what": f"What runs cannot be told: {e.strerror}.", "next_command": None}
        )
        return {}


def _tasks(folder: str, problems: list[dict[str, Any]]) -> list[_Task]:
    try:
        entries = [e for e in os.scandir(folder) if e.name.endswith(".json") and e.name != throughput.NAME]
    except FileNotFoundError:
        return []
    except OSError as e:
        problems.append({"path": folder, "code": "unreadable", "what": f"Status files cannot be read: {e.strerror}.", "next_command": None})
        return []
    found = []
    for entry in entries[:_MOST]:
        facts = _status(entry.path)
        if facts is not None:
            alive = facts.get("state") in ("running", "stopping") and _lives(facts["pid"], facts.get("start_time"))
            found.append(_Task(facts, alive))
    return found


def _status(path: str) -> dict[str, Any] | None:
    """What a status file says; None where it is none of ours, or one that is being removed."""
    try:
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as f:
            if not stat.S_ISREG(os.fstat(f.fileno()).st_mode):
                return None
            text = f.read(_MAX_STATUS + 1)
        facts = json.loads(text) if len(text) <= _MAX_STATUS else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(facts, dict) or facts.get("version") != VERSION or not isinstance(facts.get("pid"), int) or facts["pid"] <= 1:
        return None
    disks = facts.get("disks")
    return facts if isinstance(disks, dict) and all(isinstance(d, dict) for d in disks.values()) else None


def _lives(pid: int, began: Any) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rpartition(b") ")[2].split()
    except OSError:
        return False
    # a zombie waits for somebody to ask how it ended
    return fields[:1] not in ([b"Z"], [b"X"]) and began in (0, None, start_time(pid))


# -- what is said of it ---------------------------------------------------------------------------------------------


def _number(value: Any) -> float:
    """A figure out of a file that somebody may have damaged; 0 where it is none."""
    found = _seconds(value)
    return 0.0 if found is None else found


def _seconds(value: Any) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _MOST_OF_ANYTHING
    return float(value) if good else None


def _disk(path: str, pid: int | None, tasks: Sequence[_Task]) -> dict[str, Any]:
    """The row of one ledger. C(pid): the process that holds it; 0 where it cannot be told; None: nobody does."""
    view = ledger_view.look(path)
    facts = view.facts
    name = _NAME.fullmatch(os.path.basename(path))
    kept = facts.get(noted.OF)
    of: Mapping[str, Any] = kept if isinstance(kept, dict) else {}
    source = str(of.get("source") or (name["vm"] if name and name["vm"] != "file" else ""))
    key = str(of.get("key") or (name["disk"] if name else ""))
    label = bounded(facts.get("disk") or key, 120)
    live = next((t for t in tasks if t.alive and t.pid == pid), None) if pid else None
    figures: Mapping[str, Any] = live.facts["disks"].get(label) or {"phase": live.facts.get("phase")} if live else {}
    error = facts.get(noted.ERROR) if isinstance(facts.get(noted.ERROR), dict) else None
    history = facts.get(throughput.HISTORY)
    state = _state(facts, pid, live, error)
    done = int(_number(figures.get("done"))) if figures.get("phase") == "copy" else min(view.done, view.capacity)
    return {
        "vm": bounded(of.get("vm") or source or key, 255),
        "source": source,
        "key": key,
        "label": label,
        "target": bounded(of.get("target") or facts.get("target") or "", 300),
        "state": state,
        "phase": bounded(figures.get("phase") or "", 60),
        "pass": bounded(facts.get("pass") or "", 40),
        "reason": bounded(facts.get("reason") or "", 300),
        "cycles": int(_number(facts.get("generation"))),
        "bytes_total": view.capacity,
        "bytes_done": done,
        "bytes_zero": view.zero,
        "rate": _number(figures.get("rate")),
        "seconds_left": _seconds(figures.get("left")),
        "history": [row for row in history if isinstance(row, dict)][-throughput.KEPT :] if isinstance(history, list) else [],
        "copied_at": _seconds(facts.get("completed")),
        "digest": bounded(facts.get("digest") or "", 100),
        "pid": pid or None,
        "error": bounded(error.get("text") or "", 500) if error and state in ("failed", "interrupted") else "",
        "next_command": _next(state, error),
        "ledger": path,
    }


def _state(facts: Mapping[str, Any], pid: int | None, live: _Task | None, error: Mapping[str, Any] | None) -> str:
    if pid is not None:
        return "stopping" if live and live.facts.get("state") == "stopping" else "running"
    if error:
        return "interrupted" if error.get("stopped") else "failed"
    if facts.get("state") == "copying":
        return "interrupted"
    if facts.get("state") == "complete":
        return "precopied" if facts.get("change_id") else "copied"
    return "new"


def _next(state: str, error: Mapping[str, Any] | None) -> str:
    if state == "failed":
        return bounded((error or {}).get("next") or "mend what is said, then " + _AGAIN, 300)
    if state in ("interrupted", "new"):
        return _AGAIN
    return "ferry.vmware.precopy for another cycle, or ferry.vmware.cutover" if state == "precopied" else ""


def _vm(disks: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of a VM, with its disks."""
    disks = sorted(disks, key=lambda d: (d["label"], d["key"], d["target"]))
    worst = min(disks, key=lambda d: STATES.index(d["state"]))
    lefts = [d["seconds_left"] for d in disks if d["seconds_left"] is not None]
    return {
        "vm": worst["vm"],
        "source": worst["source"],
        "state": worst["state"],
        "phase": worst["phase"],
        "cycles": max(d["cycles"] for d in disks),
        "bytes_total": sum(d["bytes_total"] for d in disks),
        "bytes_done": sum(d["bytes_done"] for d in disks),
        "rate": round(sum(d["rate"] for d in disks), 1),
        "seconds_left": max(lefts) if lefts else None,
        "error": worst["error"],
        "next_command": worst["next_command"],
        "disks": disks,
    }


def _other(task: _Task, label: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": bounded(task.facts.get("name") or "", 255),
        "label": bounded(label, 120),
        "state": bounded(figures.get("state") or "", 20),
        "phase": bounded(figures.get("phase") or "", 60),
        "unit": bounded(task.facts.get("unit") or "bytes", 40),
        "done": _number(figures.get("done")),
        "total": _number(figures.get("total")),
        "rate": _number(figures.get("rate")),
        "seconds_left": _seconds(figures.get("left")),
        "pid": task.pid,
    }
