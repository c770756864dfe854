# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happened to one VM and when: the content of its file beside a report, and how that is kept small.

The file (JSON, one per VM in the folder C(<report>.d))::

    {"version": 1, "host": "db01", "name": "db01", "run": "ops-4711-88213", "began": 1.0, "touched": 9.5, "ended": null,
     "phases": [{"name": "copy", "began": 1.0, "ended": null, "failed": false}],
     "disks": {"Hard disk 1": {"phase": "copy", "done": 1, "total": 2, "rate": 3.0, "left": 4.0, "state": "running", "why": ""}},
     "samples": {"width": 5.0, "moved": [1048576, 0], "verified": [0, 1048576]},
     "cycles": [], "forecast": null, "result": null, "earlier": []}

Times are seconds since the epoch. C(samples) are bytes per stretch of C(width) seconds from C(began) on; when there are too
many stretches, two and two become one, so that a week takes as much room as an hour. C(earlier) has the attempts before this
one, of runs that ended or were killed, in the same form.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from typing import Any, Mapping

from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import number, plain, text

VERSION = 1
#: Stretches kept of the attempt that runs, and of each earlier one.
MOST_SAMPLES, EARLIER_SAMPLES = 240, 60
#: Attempts, phases, disks and cycles kept.
MOST_EARLIER, MOST_PHASES, MOST_DISKS, MOST_CYCLES = 8, 200, 200, 400
#: The narrowest stretch in seconds.
NARROW = 1.0
#: No file is larger; what is, is not ours.
MAX_FILE = 4_000_000


@dataclass
class Phase:
    """A stretch of a VM's way. C(ended) is None while it lasts, or when its run was killed."""

    name: str
    began: float
    ended: float | None = None
    failed: bool = False


@dataclass
class Samples:
    """Bytes per stretch of time, from C(began) on."""

    width: float = NARROW
    moved: list[int] = field(default_factory=list)
    verified: list[int] = field(default_factory=list)

    def add(self, kind: str, amount: float, first: float, last: float) -> None:
        """C(amount) bytes between C(first) and C(last), seconds since the beginning of the attempt.

        :param kind: C(moved) or C(verified).
        """
        if amount <= 0 or not math.isfinite(last):
            return
        first = max(0.0, min(first, last))
        self._fit(last)
        bins: list[int] = getattr(self, kind)
        begin, end = int(first / self.width), int(last / self.width)
        bins.extend([0] * (end + 1 - len(bins)))
        seconds, left = last - first, round(amount)
        for n in range(begin, end):
            part = round(amount * (min(last, (n + 1) * self.width) - max(first, n * self.width)) / seconds)
            bins[n] += min(part, left)
            left -= min(part, left)
        bins[end] += left

    def _fit(self, last: float) -> None:
        while last / self.width >= MOST_SAMPLES:
            self.halve()

    def halve(self) -> None:
        """Make one stretch of each two."""
        self.width *= 2
        for kind in ("moved", "verified"):
            bins = getattr(self, kind)
            setattr(self, kind, [sum(bins[n : n + 2]) for n in range(0, len(bins), 2)])

    def thin(self, most: int) -> None:
        while max(len(self.moved), len(self.verified)) > most:
            self.halve()


@dataclass
class Attempt:
    """One run's work on one VM."""

    run: str
    began: float
    touched: float
    ended: float | None = None
    phases: list[Phase] = field(default_factory=list)
    disks: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: Samples = field(default_factory=Samples)
    cycles: list[dict[str, Any]] = field(default_factory=list)
    forecast: dict[str, Any] | None = None
    result: dict[str, Any] | None = None

    @property
    def phase(self) -> Phase | None:
        """The one that lasts."""
        return self.phases[-1] if self.phases and self.phases[-1].ended is None else None

    def close(self, now: float, failed: bool = False) -> None:
        """End the phase that lasts, if any."""
        if (phase := self.phase) is not None:
            phase.ended, phase.failed = now, failed

    def begin(self, name: str, now: float) -> None:
        """Begin a phase; the one before ends. The same one again is no new one."""
        if (phase := self.phase) is not None and phase.name == name:
            return
        self.close(now)
        self.phases.append(Phase(name, now))
        del self.phases[:-MOST_PHASES]

    def shrink(self) -> None:
        """Keep what a page shows of an earlier attempt."""
        self.samples.thin(EARLIER_SAMPLES)
        self.disks, self.cycles, self.forecast = {}, [], None
        self.result = None if self.result is None else {key: self.result.get(key) for key in ("name", "state", "seconds")}

    def until(self) -> float:
        """The last moment that is known of it."""
        return max([self.touched, self.ended or 0.0, *(p.ended or 0.0 for p in self.phases)])

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "phases": [vars(p) for p in self.phases], "samples": vars(self.samples)}


@dataclass
class History:
    """All that is known of one VM; C(host) is its name in the inventory, C(name) that in vCenter where it is known."""

    host: str
    now: Attempt
    name: str = ""
    earlier: list[Attempt] = field(default_factory=list)

    def of_run(self, run: str, clock: float) -> Attempt:
        """The attempt of this run; one of another run becomes an earlier one."""
        if self.now.run != run:
            self.now.shrink()
            self.earlier.append(self.now)
            del self.earlier[:-MOST_EARLIER]
            self.now = Attempt(run, clock, clock)
        return self.now

    def as_dict(self) -> dict[str, Any]:
        """For the file."""
        head = {"version": VERSION, "host": self.host, "name": self.name}
        return {**head, **self.now.as_dict(), "earlier": [a.as_dict() for a in self.earlier]}


def small_cycles(rows: Any) -> list[Any]:
    """The last cycles of a VM, without what each did for each disk: a week of them has thousands."""
    return (
        [{k: v for k, v in row.items() if k != "disks"} for row in rows[-MOST_CYCLES:] if isinstance(row, dict)]
        if isinstance(rows, list)
        else []
    )


def small_result(row: Mapping[str, Any]) -> dict[str, Any]:
    """A VM's result as its file keeps it."""
    kept: dict[str, Any] = plain(row)
    return {**kept, "cycles": small_cycles(kept["cycles"])} if kept.get("cycles") else kept


def folder_of(page: str) -> str:
    """Where the files of a report's VMs lie."""
    return f"{page}.d"


def _list(value: Any, most: int) -> list[Any]:
    return value[:most] if isinstance(value, list) else []


def _phase(row: Mapping[str, Any]) -> Phase:
    ended = row.get("ended")
    return Phase(text(row.get("name"))[:40], number(row.get("began")), None if ended is None else number(ended), row.get("failed") is True)


def _samples(row: Any) -> Samples:
    row = row if isinstance(row, dict) else {}
    bins = {kind: [int(number(v)) for v in _list(row.get(kind), MOST_SAMPLES)] for kind in ("moved", "verified")}
    return Samples(max(NARROW, number(row.get("width"))), bins["moved"], bins["verified"])


def _attempt(row: Mapping[str, Any]) -> Attempt:
    ended, forecast, result, disks = row.get("ended"), row.get("forecast"), row.get("result"), row.get("disks")
    began = number(row.get("began"))
    return Attempt(
        run=text(row.get("run"))[:200],
        began=began,
        touched=max(began, number(row.get("touched"))),
        ended=None if ended is None else number(ended),
        phases=[_phase(p) for p in _list(row.get("phases"), MOST_PHASES) if isinstance(p, dict)],
        disks={text(k): v for k, v in list(disks.items())[:MOST_DISKS] if isinstance(v, dict)} if isinstance(disks, dict) else {},
        samples=_samples(row.get("samples")),
        cycles=[c for c in _list(row.get("cycles"), MOST_CYCLES) if isinstance(c, dict)],
        forecast=forecast if isinstance(forecast, dict) else None,
        result=result if isinstance(result, dict) else None,
    )


def load(path: str) -> History | None:
    """What the file says; None where there is none, or it is not what we write (cut by a full disk, of another version)."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = stream.read(MAX_FILE + 1)
        row = json.loads(content) if len(content) <= MAX_FILE else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or row.get("version") != VERSION or not text(row.get("host")):
        return None
    earlier = [_attempt(a) for a in _list(row.get("earlier"), MOST_EARLIER) if isinstance(a, dict)]
    return History(text(row.get("host")), _attempt(row), text(row.get("name")), earlier)


def dump(history: History) -> str:
    return json.dumps(plain(history.as_dict()), ensure_ascii=False, separators=(",", ":")) + "\n"


def all_of(folder: str) -> dict[str, History]:
    """Every VM that the folder knows, by its name in the inventory.

    :raises OSError: the folder cannot be read; one that is not there is empty.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except FileNotFoundError:
        return {}
    found = (load(os.path.join(folder, name)) for name in names)
    return {history.host: history for history in found if history is not None}
