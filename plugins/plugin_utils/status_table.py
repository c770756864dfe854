# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of migrations on all conversion hosts, as rows, as a table for a terminal and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Mapping, Sequence

from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import cells, clock, pad, printable, size, speed

#: Version of the JSON file's format.
VERSION = 1
_HEAD = ("host", "VM", "disk", "state", "phase", "cycles", "done", "size", "", "rate", "left")
_RIGHT = (False, False, False, False, False, True, True, True, True, True, True)
_LISTS = ("migrations", "tasks", "problems")


def gathered(results: Sequence[Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of all hosts, each with its C(host).

    :param results: those of a loop over hosts, the host as C(item).
    :raises ValueError: it is no such list.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _LISTS}
    for result in results:
        if not isinstance(result, Mapping):
            raise ValueError("results is not what ferry.vmware.migration_status returned in a loop")
        host = str(result.get("item") or "localhost")
        if result.get("failed") or result.get("unreachable"):
            what = f"The host did not answer: {result.get('msg') or 'no reason given'}"
            row = {"path": None, "code": "host", "what": what, "next_command": "see that it is reachable, then ask again"}
            found["problems"].append({"host": host, **row})
            continue
        for name in _LISTS:
            found[name] += [{"host": host, **row} for row in result.get(name) or () if isinstance(row, Mapping)]
    return found


def states(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, int]:
    """Number of VMs by state."""
    return dict(Counter(str(m.get("state")) for m in found["migrations"]))


def as_json(found: Mapping[str, Any], made: str) -> str:
    return json.dumps({"version": VERSION, "time": made, **found}, ensure_ascii=False, indent=2) + "\n"


def _percent(done: float, total: float) -> str:
    return f"{int(100 * done / total)} %" if total > 0 else ""


def _figures(row: Mapping[str, Any], done: str, total: str) -> tuple[str, ...]:
    rate, left = float(row.get("rate") or 0), row.get("seconds_left")
    return (
        size(float(row.get(done) or 0)),
        size(float(row.get(total) or 0)),
        _percent(float(row.get(done) or 0), float(row.get(total) or 0)),
        speed(rate) if rate > 0 else "–",
        clock(float(left)) if left is not None else "–",
    )


def _rows(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[tuple[str, ...]]:
    rows = []
    last = ("", "")
    for vm in found["migrations"]:
        for disk in vm.get("disks") or ():
            names = (printable(vm["host"], 30), printable(vm.get("vm"), 40))
            shown = ("" if names[0] == last[0] else names[0], "" if names == last else names[1])
            last = names
            words = (printable(disk.get("label"), 30), printable(disk.get("state"), 20), printable(disk.get("phase") or "–", 30))
            rows.append((*shown, *words, str(disk.get("cycles") or 0), *_figures(disk, "bytes_done", "bytes_total")))
    for task in found["tasks"]:
        words = (printable(task.get("label"), 30), printable(task.get("state"), 20), printable(task.get("phase") or "–", 30))
        figures = _figures(task, "done", "total") if task.get("unit") == "bytes" else _counted(task)
        rows.append((printable(task["host"], 30), printable(task.get("name"), 40), *words, "", *figures))
    return rows


def _counted(task: Mapping[str, Any]) -> tuple[str, ...]:
    done, total, left = float(task.get("done") or 0), float(task.get("total") or 0), task.get("seconds_left")
    return (f"{done:g}", f"{total:g}", _percent(done, total), "–", clock(float(left)) if left is not None else "–")


def render(found: Mapping[str, Sequence[Mapping[str, Any]]], written: str | None = None) -> str:
    """The table, and below it what needs somebody."""
    counts = ", ".join(f"{count} {state}" for state, count in states(found).items())
    vms = len(found["migrations"])
    out = ["", f"  Migrations · {vms} VM{'' if vms == 1 else 's'}" + (f": {counts}" if counts else "")]
    rows = _rows(found)
    if rows:
        widths = [max(cells(row[n]) for row in [_HEAD, *rows]) for n in range(len(_HEAD))]
        lines = [("  " + "  ".join(pad(cell, widths[n], _RIGHT[n]) for n, cell in enumerate(row))).rstrip() for row in [_HEAD, *rows]]
        out += ["", lines[0], "  " + "  ".join("─" * width for width in widths), *lines[1:]]
    told = []
    for vm in found["migrations"]:
        for disk in vm.get("disks") or ():
            if disk.get("error") or disk.get("state") == "interrupted":
                why = printable(disk.get("error") or "its process is gone (killed, or the machine restarted)", 1000)
                told.append(f"  {printable(vm.get('vm'), 40)}, {printable(disk.get('label'), 30)} ({printable(vm['host'], 30)}): {why}")
                told += [f"    next: {printable(disk['next_command'], 1000)}"] if disk.get("next_command") else []
    for problem in found["problems"]:
        where = f"{printable(problem['host'], 30)}" + (f", {printable(problem['path'], 300)}" if problem.get("path") else "")
        told.append(f"  {where}: {printable(problem.get('what'), 1000)}")
        told += [f"    next: {printable(problem['next_command'], 1000)}"] if problem.get("next_command") else []
    out += ["", *told] if told else []
    out += ["", f"  json: {written}"] if written else []
    return "\n".join(out)
