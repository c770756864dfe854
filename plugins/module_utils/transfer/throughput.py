# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a conversion host has measured: how fast its copies were, by transport, and how long the other steps of a migration took.

It is kept beside the budget where a ledger folder was given, else in C(~/.ansible/ferry/throughput.json). Each figure is a moving
average, C({"rate": bytes per second, "count": measurements, "at": seconds since the epoch}); rates count what was read from the source
and what was read back to prove it, since both are part of a copy. Nothing depends on the file: damaged, it begins anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import secrets
import time
from typing import Any, Iterator, Mapping, Sequence

from ..errors import FerryError

NAME = "throughput.json"
VERSION = 1
#: How much one measurement moves the average.
WEIGHT = 0.3
#: Bytes below which a copy tells of its beginning and end, not of the way.
LEAST = 1 << 20
#: Copies of a disk that its ledger remembers.
KEPT = 8
#: Fact of a ledger: its last copies, the oldest first: C(at), C(mode), C(changed), C(read), C(seconds).
HISTORY = "history"

_MAX_FILE, _MAX_NAMES, _MAX_NAME = 1 << 20, 2000, 255


def place(ledger: str | None) -> str:
    """The file, for the option C(ledger) of a copy."""
    if ledger:
        return os.path.join(os.path.abspath(os.path.expanduser(ledger)), NAME)
    return os.path.join(os.path.expanduser("~"), ".ansible", "ferry", NAME)


def load(path: str) -> dict[str, Any]:
    """C(transports) and C(steps) as they stand in C(path); both empty where nothing was measured, or what stands there is none."""
    found: dict[str, Any] = {"version": VERSION, "transports": {}, "steps": {}}
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read(_MAX_FILE + 1)
        plain = json.loads(text) if len(text) <= _MAX_FILE else None
    except (OSError, ValueError, RecursionError):
        return found
    if not isinstance(plain, dict) or plain.get("version") != VERSION:
        return found
    for name, entry in _entries(plain.get("transports"), "rate"):
        hosts = plain["transports"][name].get("hosts")
        found["transports"][name] = {**entry, "hosts": dict(_entries(hosts, "rate"))}
    found["steps"] = dict(_entries(plain.get("steps"), "seconds"))
    return found


def _entries(plain: Any, unit: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, entry in list(plain.items())[:_MAX_NAMES] if isinstance(plain, dict) else ():
        value = entry.get(unit) if isinstance(entry, dict) else None
        if (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and math.isfinite(value)
            and value >= 0
            and len(name) <= _MAX_NAME
        ):
            count, at = entry.get("count"), entry.get("at")
            yield (
                name,
                {unit: value, "count": count if isinstance(count, int) else 1, "at": at if isinstance(at, (int, float)) else 0},
            )


def _moved(entry: Mapping[str, Any] | None, unit: str, value: float) -> dict[str, Any]:
    """C(entry) with one more measurement; old ones weigh less."""
    count = int((entry or {}).get("count", 0))
    mean = value if not count or entry is None else entry[unit] + WEIGHT * (value - entry[unit])
    return {unit: round(mean) if unit == "rate" else round(mean, 2), "count": count + 1, "at": round(time.time())}


@contextlib.contextmanager
def _changing(path: str) -> Iterator[dict[str, Any]]:
    """What stands in C(path), to be changed in place; stored in one step at the end. Several copies may end at the same time."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        plain = load(path)
        yield plain
        new = f"{path}.{secrets.token_hex(6)}"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as f:
            json.dump(plain, f, indent=1)
        os.replace(new, path)
    finally:
        os.close(lock)


def note(path: str, transport: str, count: int, seconds: float, host: str | None = None) -> bool:
    """Keep that C(count) bytes took C(seconds) by C(transport) (https, nfc, nbd, file), from the ESXi host C(host).

    True where it was kept: not for less than LEAST bytes, and not where the file cannot be written, which stops no copy.
    """
    if count < LEAST or seconds <= 0:
        return False
    rate = count / seconds
    try:
        with _changing(path) as plain:
            known = plain["transports"].get(transport) or {}
            hosts = dict(known.get("hosts") or {})
            if host and len(hosts) < _MAX_NAMES:
                hosts[host.casefold()[:_MAX_NAME]] = _moved(hosts.get(host.casefold()), "rate", rate)
            plain["transports"][transport] = {**_moved(known or None, "rate", rate), "hosts": hosts}
    except OSError:
        return False
    return True


def note_steps(path: str, steps: Sequence[tuple[str, float]]) -> bool:
    """Keep how many seconds steps of a migration took, each as (name, seconds); True where they were kept."""
    good = [(name, seconds) for name, seconds in steps if math.isfinite(seconds) and 0 <= seconds < 86400 and 0 < len(name) <= 40]
    if not good:
        return False
    try:
        with _changing(path) as plain:
            for name, seconds in good:
                plain["steps"][name] = _moved(plain["steps"].get(name), "seconds", seconds)
    except OSError:
        return False
    return True


def measured(path: str, tasks: Sequence[Any], seconds: float) -> None:
    """Keep what the copy of C(tasks) (disk_copy.Task), all at the same time, in C(seconds) says: in the file, and in each disk's ledger."""
    by_way: dict[tuple[str, str | None], int] = {}
    for task in tasks:
        result = task.job.result
        key = (task.way, task.host)
        by_way[key] = by_way.get(key, 0) + result.bytes_read + result.bytes_verified
        row = {
            "at": round(time.time()),
            "mode": result.mode,
            "changed": result.changed_bytes,
            "read": result.bytes_read,
            "seconds": round(result.seconds, 2),
        }
        if result.mode == "none":
            continue
        known = task.target.ledger.fact(HISTORY)
        # A measurement that cannot be kept is not worth a copy.
        with contextlib.suppress(FerryError):
            task.target.ledger.set(**{HISTORY: [*(known if isinstance(known, list) else []), row][-KEPT:]})
    if len(by_way) == 1:
        # Of several ways at once nobody knows which took how long.
        ((way, host), count) = next(iter(by_way.items()))
        note(path, way, count, seconds, host)


def steps_of(migration: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What one migration (C(migrate_result) of the role migrate, with C(phases)) tells of its steps: (name, seconds) each.

    Of C(copy) and C(cutover) it is what they took beside copying, and of precopying what a C(cycle) did. Of a migration that did not
    go from its beginning to its end nothing is told: what was there already took no time.
    """
    disks = [d for d in migration.get("disks") or () if isinstance(d, Mapping)]
    if migration.get("state") != "migrated" or any(_number(d.get("bytes_resumed")) for d in disks):
        return []
    times: dict[str, float] = {}
    for phase in migration.get("phases") or ():
        if isinstance(phase, Mapping) and phase.get("ended") is not None:
            seconds = _number(phase.get("ended")) - _number(phase.get("began"))
            times[str(phase.get("name"))] = times.get(str(phase.get("name")), 0.0) + seconds
    found: list[tuple[str, float]] = [(name, times[name]) for name in ("prepare", "convert", "land", "ready", "note") if name in times]
    warm = migration.get("strategy") == "warm"
    if not warm and "copy" in times:
        found.append(("copy", times["copy"] - max([_number(d.get("seconds")) for d in disks], default=0.0)))
    cycles = [c for c in migration.get("cycles") or () if isinstance(c, Mapping)]
    beside = [_number(c.get("seconds")) - _number(c.get("copy_seconds")) for c in cycles]
    found += [("cycle", sum(beside) / len(beside))] if beside else []
    away = migration.get("downtime")
    if warm and isinstance(away, Mapping):
        speed = _number(cycles[-1].get("throughput")) if cycles else 0.0
        copying = _number(away.get("changed_bytes")) / speed if speed > 0 else 0.0
        found.append(("cutover", _number(away.get("shutdown")) + _number(away.get("copy")) - copying))
    return [(name, max(0.0, seconds)) for name, seconds in found]


def _number(value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return 0.0
    return found if math.isfinite(found) else 0.0
