# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The doctor's findings for people: a page in one file, and a table for the terminal."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.ferry.vmware.plugins.plugin_utils.doctor import findings
from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import cells, clock, pad, printable
from ansible_collections.ferry.vmware.plugins.plugin_utils.report import theme
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import text

#: VMs without a way that the terminal names; the page has all of them.
_NAMED = 20


def _clean(value: Any) -> Any:
    """C(value) with every text bounded and without control characters."""
    if isinstance(value, Mapping):
        return {str(key): _clean(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(inner) for inner in value]
    return text(value) if isinstance(value, str) else value


def html(found: Mapping[str, Any], when: datetime.datetime) -> str:
    """The page."""
    clean = _clean(found)
    rates = [float(r["rate"]) for r in clean["reads"] if r.get("rate")]
    return theme.render(
        "doctor.html.j2",
        os.path.dirname(__file__),
        title=clean["title"],
        when=when,
        found=clean,
        verdicts=findings.verdicts(clean),
        most=max(rates, default=1.0),
        several=len(clean["conversion_hosts"]) > 1,
        reading=clock(clean["totals"]["reading_seconds"]) if clean["totals"]["reading_seconds"] else "",
        cannot=[vm for vm in clean["vms"] if not vm["best"]["cold"]],
    )


def _rate(rate: float | None) -> str:
    return f"{rate / 1e6:.1f} MB/s" if rate else "–"


def table(found: Mapping[str, Any], written: Mapping[str, str]) -> str:
    """For a terminal: the verdicts, the speed per host and way, and the VMs that no way leads to."""
    rows: list[Sequence[str]] = [("host", "ESXi", "VMs", *findings.TRANSPORTS)]
    for host in found["hosts"]:
        by_way = {t: [r for r in found["reads"] if r["host"] == host["name"] and r["transport"] == t] for t in findings.TRANSPORTS}
        figures = [max((float(r["rate"] or 0) for r in by_way[t]), default=0.0) for t in findings.TRANSPORTS]
        build = " ".join(str(host[key]) for key in ("version", "build") if host.get(key)) or "unknown"
        rows.append((printable(host["name"], 40), printable(build, 24), str(host["vms"]), *map(_rate, figures)))
    widths = [max(cells(row[n]) for row in rows) for n in range(len(rows[0]))]
    out = ["", f"  {printable(found['title'], 100)}", ""]
    out += [f"  {'!' if kind == 'critical' else '·'} {printable(said, 300)}" for kind, said in findings.verdicts(found)]
    out.append("")
    out += [("  " + "  ".join(pad(cell, widths[n], n > 1) for n, cell in enumerate(row))).rstrip() for row in rows]
    for vm in [vm for vm in found["vms"] if not vm["best"]["cold"]][:_NAMED]:
        out.append(f"  {printable(vm['name'], 40)}: no way; {printable(vm['paths'][0]['why'][0] if vm['paths'][0]['why'] else '', 300)}")
    for row in [p for p in found["privileges"] if p.get("granted") is False]:
        out.append(f"  missing: {row['privilege']} (to {row['why']})")
    pilot = found.get("pilot") or {}
    if pilot.get("said"):
        out.append(f"  pilot: {printable(pilot['said'], 1000)}")
    out += ["", *[f"  {kind}: {path}" for kind, path in written.items()]]
    return "\n".join(out).rstrip()
