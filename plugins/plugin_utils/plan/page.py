# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan as one HTML file that asks nobody for anything."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ansible_collections.ferry.vmware.plugins.module_utils.concerns import CATEGORIES
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan.table import approximate, basis_of, changed_of, headline
from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import clock
from ansible_collections.ferry.vmware.plugins.plugin_utils.report import svg, theme
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import text

#: What the times rest on, in words.
BASIS = {
    "measured": "Times are from what the conversion hosts have measured.",
    "stated": "Times are from the throughput that was stated.",
    "guess": "A ~ before a time: a guess, since not all of it was measured yet.",
}
#: Rows of the picture, one for each VM that goes at the same time as others; further ones would not be told apart.
_ROWS = 64
#: Phases in the order of a migration.
PHASES = ("prepare", "precopy", "copy", "verify", "cutover", "convert", "land", "ready", "note")


def _clean(value: Any) -> Any:
    """C(value) with texts that hold no control characters and have an end."""
    if isinstance(value, Mapping):
        return {k: _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    return text(value) if isinstance(value, str) else value


def _vm(vm: Mapping[str, Any]) -> dict[str, Any]:
    """C(vm) with the texts of its row."""
    basis = basis_of(vm)
    takes = None if vm["ends"] is None else vm["ends"] - vm["begins"]
    return {
        **vm,
        "changed": changed_of(vm),
        "takes": approximate(takes, basis),
        "away": approximate(vm["downtime_seconds"], basis) if vm["phases"] else "–",
        "starts": clock(vm["begins"]) if vm["phases"] and vm["ends"] is not None else "",
        "counts": [(category, sum(c["category"] == category for c in vm["concerns"])) for category in CATEGORIES],
    }


def picture(vms: Sequence[Mapping[str, Any]], began: float, end: float | None) -> Markup | None:
    """The wave over time: a row for each of the VMs that go at once."""
    if not end:
        return None
    lanes: dict[int, list[svg.Bar]] = {}
    for vm in vms:
        for p in vm["phases"]:
            if p["seconds"] and p["begins"] is not None and vm["lane"] < _ROWS:
                title = f"{vm['name']}: {p['name']}, {approximate(p['seconds'], p['basis'])}"
                begins = began + p["begins"]
                lanes.setdefault(vm["lane"], []).append(svg.Bar(begins, begins + p["seconds"], p["name"], title))
    rows = [svg.Row(bars) for _lane, bars in sorted(lanes.items())]
    return svg.timeline(rows, svg.Span(began, began + end), "The wave over time", row_height=20) if rows else None


def html(plan: Mapping[str, Any], drift: Sequence[Mapping[str, Any]] = (), *, language: str = "en") -> str:
    """The page. Every text in it comes from outside, so everything is escaped; a Content-Security-Policy forbids requests.

    :raises ValueError: for a language that is not known.
    """
    plan = _clean(plan)
    when = datetime.datetime.fromisoformat(plan["made"])
    vms = [_vm(vm) for vm in plan["vms"]]
    seen = {p["name"] for vm in vms for p in vm["phases"]}
    return theme.render(
        "plan.html.j2",
        os.path.dirname(__file__),
        title=plan["title"],
        when=when,
        language=language,
        headline=headline(plan),
        plan=plan,
        vms=vms,
        totals=plan["totals"],
        drift=_clean(drift),
        picture=picture(vms, when.timestamp(), plan["totals"]["seconds"]),
        phases=[name for name in PHASES if name in seen],
        basis=BASIS[plan["totals"]["basis"]],
        about=approximate,
    )
