# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as one HTML file that asks nobody for anything, and as JSON."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from markupsafe import Markup

from ansible_collections.ferry.vmware.plugins.plugin_utils.report import charts, files, theme
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.history import Attempt
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.labels import Labels
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import CycleRow, Totals, Vm, totals_of
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.wave import Entry, counts, plain_entries

#: Version of the JSON report's format.
VERSION = 1
#: A page is made leaner until it is smaller than this, in bytes: phones have to show it.
MOST_BYTES = 2_600_000
#: From so many VMs on, each VM's part is kept short, and laid out when it is looked at.
MANY = 60
#: Failed VMs listed at the top.
MOST_TROUBLE = 50
_ORDER = {"failed": 0, "interrupted": 1, "running": 2}


@dataclass(frozen=True)
class Lean:
    """How much a VM's part tells: rows and columns of cycles, concerns, characters of an error's texts, changes; whether with a curve.

    C(calm): whether VMs without trouble have a part at all.
    """

    cycles: int
    columns: int
    concerns: int
    letters: int
    drift: int
    curve: bool
    calm: bool = True


#: From all there is to the least.
LEVELS = (
    Lean(400, charts.MOST_COLUMNS, 1000, 4000, 1000, True),
    Lean(6, 24, 4, 1000, 10, True),
    Lean(3, 0, 1, 400, 3, False),
    Lean(0, 0, 0, 200, 1, False, calm=False),
)


@dataclass(frozen=True)
class Part:
    """A VM's part of the page."""

    number: int
    entry: Entry
    curve: tuple[Markup, float] | None
    charts: list[tuple[str, Markup]]
    cycles: list[CycleRow]
    left_out: int
    concerns: list[dict[str, str]]
    more_concerns: int
    errors: list[dict[str, Any]]
    drift: list[str]


def html(vms: Sequence[Vm], totals: Totals, title: str, when: datetime.datetime) -> str:
    """The page of results alone, without their history."""
    return wave_html(plain_entries(vms), title, when, totals=totals)


def wave_html(
    entries: Sequence[Entry],
    title: str,
    when: datetime.datetime,
    *,
    totals: Totals | None = None,
    concerns: Sequence[dict[str, str]] = (),
    language: str = "en",
    every: float = 0,
) -> str:
    """The page of a wave.

    :param concerns: those of the wave as a whole.
    :param language: C(en) or C(ja).
    :param every: it is written again after about so many seconds; 0: the run is over.
    """
    t = Labels(language)
    now = when.timestamp()
    totals = totals or totals_of([e.vm for e in entries])
    drawn = charts.throughput(entries, t, now)
    away = [e.vm.downtime.seconds for e in entries if e.vm.downtime is not None]
    facts: dict[str, Any] = {
        "entries": entries,
        "totals": totals,
        "counts": counts(entries),
        "picture": charts.picture(entries, t, now),
        "curve": drawn[0] if drawn else None,
        "fastest": drawn[1] if drawn else 0.0,
        "concerns": _all_concerns(entries, concerns),
        "advice": len(entries) <= MANY,
        "crowd": len(entries) > MANY,
        "longest_away": max(away, default=None),
        "left": max([e.left for e in entries if e.left is not None], default=None),
        "longest": max([e.vm.seconds for e in entries], default=0.0) or 1.0,
        "whole": max(totals.capacity, totals.bytes_written + totals.bytes_resumed + totals.bytes_skipped, 1),
    }
    out = ""
    for lean in LEVELS if len(entries) <= MANY else LEVELS[1:]:
        told = [(n, e) for n, e in enumerate(entries, 1) if lean.calm or e.vm.errors]
        # Who needs somebody comes first, then who is under way.
        parts = sorted((_part(n, e, lean, t) for n, e in told), key=lambda p: _ORDER.get(p.entry.vm.state, 3))
        trouble = [p for p in parts if p.entry.vm.errors][:MOST_TROUBLE]
        facts |= {"parts": parts if lean.calm else trouble, "trouble": trouble, "left_out": 0 if lean.calm else len(entries) - len(trouble)}
        out = theme.render("page.html.j2", title=title, when=when, language=language, every=every, **facts)
        if len(out.encode()) <= MOST_BYTES:
            break
    return out


def _part(number: int, entry: Entry, lean: Lean, t: Labels) -> Part:
    vm = entry.vm
    first = max(0, len(vm.cycles) - lean.cycles)
    told = vm.concerns[: lean.concerns]
    return Part(
        number,
        entry,
        charts.small_curve(entry, t) if lean.curve else None,
        charts.cycle_charts(vm, t, lean.columns),
        vm.cycles[first:],
        first,
        told,
        len(vm.concerns) - len(told),
        [{key: _cut(value, lean.letters) for key, value in error.items()} for error in vm.errors],
        [_cut(change, lean.letters) for change in vm.drift[: lean.drift]],
    )


def _cut(value: Any, letters: int) -> str:
    said = str(value)
    return said if len(said) <= letters else said[: letters - 1] + "…"


def _all_concerns(entries: Sequence[Entry], of_wave: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """One row per kind of concern, with the number of VMs that have it, the worst first."""
    rows: dict[str, dict[str, Any]] = {}
    for concern, who in [*((c, None) for c in of_wave), *((c, n) for n, e in enumerate(entries) for c in e.vm.concerns)]:
        row = rows.setdefault(f"{concern['category']} {concern['id']}", {**concern, "vms": set()})
        if who is not None:
            row["vms"].add(who)
    order = ("critical", "warning", "information")
    return [{**row, "count": len(row["vms"])} for row in sorted(rows.values(), key=lambda r: (order.index(r["category"]), r["id"]))]


def as_json(results: Sequence[Any], totals: Totals, title: str, when: datetime.datetime, attempts: Sequence[Attempt | None] = ()) -> str:
    """The results as they came in (plain types), with title, time and totals.

    :param attempts: this run's history of each, whose C(phases) are added.
    """
    rows = list(results)
    for n, attempt in enumerate(attempts):
        if attempt is not None and isinstance(rows[n], Mapping) and "phases" not in rows[n]:
            rows[n] = {**rows[n], "phases": [vars(p) for p in attempt.phases]}
    sums = dict(vars(totals).items())
    content = {"version": VERSION, "title": title, "time": when.astimezone().isoformat(timespec="seconds"), "totals": sums, "vms": rows}
    return json.dumps(content, ensure_ascii=False, indent=2, sort_keys=False) + "\n"


def write(path: str, content: str) -> None:
    """Replace C(path) at once, and for good: a reader sees the old report or the new one. Its folder is made where it is missing."""
    files.replace(path, content, durable=True)
