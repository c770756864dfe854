# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far importers are with a wave, in the lines of our own copies: one for each VM and disk, with rate and time left."""

from __future__ import annotations

import time
from typing import Any, Callable, Mapping, Sequence

from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import NAME_CELLS, cells, final_line, running_line, title

Facts = dict[str, Any]


def status_of(row: Mapping[str, Any]) -> dict[str, Facts]:
    """A VM's disks as a copy's status file has them, by label. C(row): of mtv_progress or harvester_progress.

    A step that moves nothing is one line without a disk.
    """
    state = {"succeeded": "done", "virtualMachineRunning": "done", "failed": "failed", "canceled": "failed"}.get(
        str(row["state"]), "running"
    )
    if row.get("failed"):
        state = "failed"
    step = str(row.get("step") or (row["state"] if state == "running" else ""))
    why = "; ".join(str(r) for r in row.get("reasons") or [])
    disks = row.get("disks") or []
    moving = step.startswith("DiskTransfer") or step == "diskImageSubmitted"
    if state == "running" and not moving and not (row["state"] == "precopied" and disks):
        return {"": {"state": state, "phase": _words(row, step), "done": 0, "total": 0, "why": why}}
    if not disks:
        return {"": {"state": state, "phase": "", "done": 0, "total": 0, "why": why}}
    labels = [_label(str(d["name"] or "")) for d in disks]
    found = {}
    for number, (label, disk) in enumerate(zip(labels, disks, strict=True)):
        phase = "precopied" if row["state"] == "precopied" else "copy"
        facts = {"state": state, "phase": phase, "done": int(disk["done"]), "total": int(disk["total"]), "why": why if not number else ""}
        found[label if labels.count(label) == 1 else f"{label} {number + 1}"] = facts
    return found


def _words(row: Mapping[str, Any], step: str) -> str:
    return "guest shuts down" if row.get("shutting_down") else step or "waits"


def _label(name: str) -> str:
    """A disk's own name out of a datastore path."""
    return name.rpartition("/")[2].removesuffix(".vmdk").removesuffix(".img")


class Lines:
    """Remembers what was shown, so that only what has changed is said, and rates are known.

    :param clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: dict[tuple[str, str], tuple[float, int]] = {}
        self._last: dict[tuple[str, str], tuple[float, int, float]] = {}
        self._shown: dict[tuple[str, str], str] = {}
        self._width = NAME_CELLS

    def rated(self, name: str, disks: dict[str, Facts]) -> dict[str, Facts]:
        """The same with C(rate), C(left) and C(seconds), by what was seen before."""
        now = self._clock()
        for label, facts in disks.items():
            key = (name, label)
            began, first = self._began.setdefault(key, (now, facts["done"]))
            then, done, rate = self._last.get(key, (now, facts["done"], 0.0))
            if facts["done"] != done and now > then:
                rate = max(0.0, (facts["done"] - done) / (now - then))
                self._last[key] = (now, facts["done"], rate)
            else:
                self._last.setdefault(key, (now, facts["done"], rate))
            facts["seconds"] = now - began
            # What an earlier run brought over is not of this minute.
            facts["skipped"] = min(first, facts["done"])
            facts["rate"] = rate if facts["state"] == "running" else 0.0
            if facts["rate"] and facts["total"]:
                facts["left"] = (facts["total"] - facts["done"]) / rate
        return disks

    def of(self, vms: Sequence[tuple[str, dict[str, Facts]]]) -> list[str]:
        """Lines of what has changed since they were last asked for."""
        for name, disks in vms:
            for label in disks:
                self._width = max(self._width, min(60, cells(title(name, label))))
        lines = []
        for name, disks in vms:
            for label, facts in disks.items():
                over = facts["state"] in ("done", "failed")
                if over and not facts["total"]:
                    # Nothing of it was counted.
                    said = running_line(name, label, {"phase": facts["state"], "why": facts["why"]}, width=self._width)
                else:
                    said = (final_line if over else running_line)(name, label, facts, width=self._width)
                # The time that has passed is no news.
                known = f"{facts['state']} {facts['phase']} {facts['done']} {facts['why']}"
                if self._shown.get((name, label)) != known:
                    self._shown[(name, label)] = known
                    lines.append(said)
            if set(disks) != {""}:
                self._shown.pop((name, ""), None)
        return lines
