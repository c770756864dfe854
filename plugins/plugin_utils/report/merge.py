# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One report of the reports of a wave's slices: what each run said of its VMs, and what the files beside its page tell.

A VM may be in several: its slice ran again on another node, or was begun by one that died. The last word counts; but a run that found
everything done ("unchanged") does not hide the one that did it.
"""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.ferry.vmware.plugins.plugin_utils.report import history, model, wave
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.page import VERSION

#: No report is larger; what is, is none of ours.
MAX_FILE = 256_000_000
#: Reports and folders that are read, at most.
MOST = 2000


@dataclass
class Merged:
    """What the slices say together. C(warnings): what could not be read. C(unfinished): names of VMs without a last word."""

    results: list[dict[str, Any]] = field(default_factory=list)
    known: dict[str, history.History] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    def entries(self, vms: Sequence[model.Vm], now: float) -> tuple[list[wave.Entry], list[history.Attempt | None]]:
        """The entries of a page on C(vms) (those of C(results)), and the attempt of each; VMs without a last word come after them."""
        found = wave.match(vms, self.known.values(), "")
        out = [wave.Entry(vm) if h is None else wave.Entry(vm, h.now, h.earlier) for vm, h in zip(vms, found, strict=True)]
        used = {h.host for h in found if h is not None}
        others = wave.others(self.known, [host for host in self.known if host not in used], "", now)
        self.unfinished = [e.vm.name for e in others]
        return [*out, *others], [None if h is None else h.now for h in found]


def _files(path: str, warnings: list[str]) -> tuple[list[str], list[str]]:
    """The reports and the folders of histories that C(path) means: a report, C(<page>.d), or a folder of these."""
    if not os.path.isdir(path):
        return [path], []
    if path.rstrip("/").endswith(".d"):
        return [], [path]
    try:
        names = sorted(os.listdir(path))
    except OSError as e:
        warnings.append(f"{path} could not be read: {e.strerror or e}")
        return [], []
    full = [os.path.join(path, name) for name in names]
    return [p for p in full if p.endswith(".json") and not os.path.isdir(p)], [p for p in full if p.endswith(".d") and os.path.isdir(p)]


def _report(path: str) -> dict[str, Any]:
    """:raises ValueError: C(path) is no report."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = stream.read(MAX_FILE + 1)
    except OSError as e:
        raise ValueError(f"{path} could not be read: {e.strerror or e}") from e
    try:
        found = json.loads(content) if len(content) <= MAX_FILE else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("version") != VERSION or not isinstance(found.get("vms"), list):
        raise ValueError(f"{path} is no report of a migration, or one that was cut off")
    try:
        model.vms_of(found["vms"])
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    return found


def _seconds(value: Any) -> float:
    try:
        return datetime.datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return 0.0


def _said_at(row: Mapping[str, Any], report: Mapping[str, Any]) -> float:
    """When the word on a VM was said: at the end of its last phase, where that is known."""
    ends = [model.number(p.get("ended")) for p in row.get("phases") or () if isinstance(p, Mapping)]
    return max(ends, default=0.0) or _seconds(report.get("time"))


def merge(paths: Iterable[str]) -> Merged:
    """What lies at C(paths); what cannot be read is a warning, since the VMs have moved."""
    out = Merged()
    reports: list[dict[str, Any]] = []
    for path in list(paths)[:MOST]:
        files, folders = _files(path, out.warnings)
        for name in files[:MOST]:
            try:
                reports.append(_report(name))
            except ValueError as e:
                out.warnings.append(str(e))
        for name in folders[:MOST]:
            try:
                _take(out.known, history.all_of(name).values())
            except OSError as e:
                out.warnings.append(f"{name} could not be read: {e.strerror or e}")
    said = [(row, _said_at(row, report)) for report in reports for row in report["vms"]]
    kept = ((one.now.result, one.now.until()) for one in out.known.values())
    said += [(row, until) for row, until in kept if row is not None and wave.result_of(row) is not None]
    out.results = _last_words(said)
    return out


def _last_words(said: Sequence[tuple[dict[str, Any], float]]) -> list[dict[str, Any]]:
    """Of rows with the times when they were said, the one that counts for each VM, in the order in which VMs come first."""
    uuids: dict[str, set[str]] = {}
    for row, _when in said:
        uuid = model.text(row.get("source_uuid")).lower()
        uuids.setdefault(model.text(row.get("name")), set()).update([uuid] if uuid else [])
    last: dict[str, tuple[tuple[bool, float], dict[str, Any]]] = {}
    for row, when in said:
        name, uuid = model.text(row.get("name")), model.text(row.get("source_uuid")).lower()
        # A precopy knows the name alone. Where it is one VM's, it is that VM.
        key = uuid or (next(iter(uuids[name])) if len(uuids[name]) == 1 else name)
        order = (row.get("state") != "unchanged", when)
        if key not in last or order >= last[key][0]:
            last[key] = (order, row)
    return [row for _order, row in last.values()]


def _take(known: dict[str, history.History], found: Iterable[history.History]) -> None:
    """Put together what several folders know of a VM: each run's attempt once, the newest last."""
    for one in found:
        attempts = [*one.earlier, one.now]
        if one.host in known:
            attempts += [*known[one.host].earlier, known[one.host].now]
        by_run: dict[str, history.Attempt] = {}
        for attempt in attempts:
            if attempt.run not in by_run or attempt.touched >= by_run[attempt.run].touched:
                by_run[attempt.run] = attempt
        ordered = sorted(by_run.values(), key=lambda a: a.began)
        name = one.name or (known[one.host].name if one.host in known else "")
        known[one.host] = history.History(one.host, ordered[-1], name, ordered[:-1][-history.MOST_EARLIER :])
