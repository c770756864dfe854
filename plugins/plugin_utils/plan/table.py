# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan for a terminal: a table of the wave, its quotas, what stands in the way, and when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils.concerns import CATEGORIES, CRITICAL, INFORMATION, WARNING
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan.estimate import weakest
from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import cells, clock, duration, pad, printable, size

_HEAD = ("#", "VM", "disks", "size", "to read", "changed", "by", "on", "as", "flavor", "starts", "takes", "away", "concerns")
_RIGHT = (True, False, True, True, True, True, False, False, False, False, True, True, True, False)
_SIGNS = {CRITICAL: "!", WARNING: "?", INFORMATION: "i"}
#: Concerns that are written out; the page and the JSON file have all of them.
SHOWN = 60
_UNITS = {"ram": "MiB", "gigabytes": "GiB"}


def approximate(seconds: float | None, basis: str = "measured") -> str:
    """A time, with ~ where it is only a guess; a dash where there is none."""
    return "–" if seconds is None else f"~{duration(seconds)}" if basis == "guess" else duration(seconds)


def basis_of(vm: Mapping[str, Any]) -> str:
    """What the times of C(vm) rest on."""
    return weakest(vm["phases"])


def counts(concerns: Sequence[Mapping[str, Any]]) -> str:
    """C(1 critical, 2 warning)."""
    found = [(sum(c["category"] == category for c in concerns), category) for category in CATEGORIES]
    return ", ".join(f"{n} {category}" for n, category in found if n)


def changed_of(vm: Mapping[str, Any]) -> str:
    """The changed bytes of all disks, as far as they are known."""
    known = [d["changed"] for d in vm["disks"] if d["changed"] is not None]
    return size(sum(known)) if known else "–"


def _row(number: int, vm: Mapping[str, Any]) -> tuple[str, ...]:
    disks, basis = vm["disks"], basis_of(vm)
    takes = None if vm["ends"] is None else vm["ends"] - vm["begins"]
    ways = list(dict.fromkeys(d["transport"] for d in disks))
    return (
        str(number),
        printable(vm["name"], 40),
        str(len(disks)),
        size(sum(d["capacity"] for d in disks)),
        size(sum(d["reads"] for d in disks)),
        changed_of(vm),
        ", ".join(ways) or "–",
        printable(vm["conversion_host"], 24),
        vm["strategy"],
        printable(vm["flavor"] or "–", 24),
        clock(vm["begins"]) if vm["phases"] and vm["ends"] is not None else "–",
        approximate(takes, basis) if vm["phases"] else "nothing to do",
        approximate(vm["downtime_seconds"], basis) if vm["phases"] else "–",
        counts(vm["concerns"]) or "none",
    )


def headline(plan: Mapping[str, Any]) -> str:
    """C(3 VMs, 2 ready, 1 with something critical; 41.9 GiB to read; ends after ~01:12:00)."""
    t = plan["totals"]
    stopped = t["vms"] - t["ready"]
    parts = [
        f"{t['vms']} VM{'' if t['vms'] == 1 else 's'}, {t['ready']} ready" + (f", {stopped} that cannot go like this" if stopped else "")
    ]
    if t["to_do"]:
        parts.append(f"{size(t['reads'])} to read")
        parts.append("no end in sight" if t["seconds"] is None else f"the wave takes {approximate(t['seconds'], t['basis'])}")
        parts.append(f"at most {approximate(t['downtime'], t['basis'])} away")
    else:
        parts.append("nothing to do")
    return "; ".join(parts)


def render(plan: Mapping[str, Any], drift: Sequence[Mapping[str, Any]] = (), written: Mapping[str, str] | None = None) -> str:
    """All of it, as lines."""
    out = ["", f"  {printable(plan['title'], 100)} · {headline(plan)}", ""]
    rows = [_HEAD, *(_row(n, vm) for n, vm in enumerate(plan["vms"], 1))]
    if plan["vms"]:
        widths = [max(cells(row[n]) for row in rows) for n in range(len(_HEAD))]
        out += [_line(row, widths) for row in rows[:1]]
        out.append("  " + "  ".join("─" * width for width in widths))
        out += [_line(row, widths) for row in rows[1:]]
        out.append("")
    out += _rests(plan)
    out += _quotas(plan["quotas"])
    out += _concerns(plan)
    out += [f"  {printable(text, 300)}" for text in plan["remarks"]]
    if drift:
        out.append(f"  What has drifted since the plan was saved ({len(drift)}):")
        out += [f"  ≠ {printable(d['text'], 400)}" for d in drift]
        out.append("")
    out += [f"  {kind}: {path}" for kind, path in (written or {}).items()]
    while out[-1] == "":
        out.pop()
    return "\n".join(out)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return ("  " + "  ".join(pad(cell, widths[n], _RIGHT[n]) for n, cell in enumerate(row))).rstrip()


def _rests(plan: Mapping[str, Any]) -> list[str]:
    t = plan["totals"]
    if not t["to_do"]:
        return []
    rests = {
        "measured": "Times are from what the conversion hosts have measured.",
        "stated": "Times are from the throughput that was stated (ferry_throughput).",
        "guess": "~ is a guess: nothing was measured yet. Say ferry_throughput (bytes/s), or let ferry.vmware.doctor measure.",
    }
    return [f"  {plan['forks']} at once. {rests[t['basis']]}", ""]


def _quotas(quotas: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [("quota", "used", "after", "limit")]
    for q in quotas:
        unit = next((u for k, u in _UNITS.items() if str(q["resource"]).startswith(k)), "")
        limit = "none" if q["limit"] < 0 else f"{q['limit']} {unit}".rstrip()
        over = "  too much" if 0 <= q["limit"] < q["after"] else ""
        rows.append((printable(q["resource"], 50), str(q["used"]), str(q["after"]), limit + over))
    if len(rows) == 1:
        return []
    widths = [max(cells(row[n]) for row in rows) for n in range(4)]
    return [*(("  " + "  ".join(pad(cell, widths[n], n in (1, 2)) for n, cell in enumerate(row))).rstrip() for row in rows), ""]


def _concerns(plan: Mapping[str, Any]) -> list[str]:
    found = [(None, c) for c in plan["concerns"]] + [(vm["name"], c) for vm in plan["vms"] for c in vm["concerns"]]
    found.sort(key=lambda pair: CATEGORIES.index(pair[1]["category"]))
    out = []
    for name, concern in found[:SHOWN]:
        about = ", ".join(printable(concern[k], 60) for k in ("disk", "device") if concern.get(k))
        head = ": ".join(
            filter(None, [printable(name, 40) if name else "", printable(concern["label"], 80) + (f" ({about})" if about else "")])
        )
        out.append(f"  {_SIGNS[concern['category']]} {head}: {printable(concern['assessment'], 600)} [{printable(concern['id'], 80)}]")
        if concern["advice"]:
            out.append(f"      {printable(concern['advice'], 400)}")
    if len(found) > SHOWN:
        out.append(f"    … and {len(found) - SHOWN} more; the plan's page and file have all of them")
    return [*out, ""] if out else []
