# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cycles of precopying as rows of a result and as lines for people. Rates in bytes per second, times in seconds."""

from __future__ import annotations

import datetime
from typing import Any, Mapping, Sequence

from ansible_collections.ferry.vmware.plugins.module_utils.disk.forecast import Cycle, Forecast, Terms
from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import duration, printable, size, speed

#: What the row of a cycle keeps of each disk.
DISK_FACTS = (
    "disk",
    "key",
    "mode",
    "reason",
    "changed_bytes",
    "areas",
    "bytes_read",
    "bytes_written",
    "bytes_resumed",
    "seconds",
    "verified",
    "repaired",
    "change_id",
)
#: What of it adds up over cycles.
SUMMED = ("bytes_read", "bytes_written", "repaired", "seconds")


def copy_row(number: int, clock: float, cycle: Cycle, told: Forecast, disks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The row of a cycle that began at C(clock) (seconds since the epoch)."""
    return {
        "cycle": number,
        "time": datetime.datetime.fromtimestamp(clock, datetime.timezone.utc).isoformat(timespec="seconds"),
        "mode": cycle.mode,
        "changed_bytes": cycle.changed,
        "bytes_read": cycle.read,
        "bytes_written": sum(int(d.get("bytes_written") or 0) for d in disks),
        "since": None if cycle.since is None else round(cycle.since, 1),
        "copy_seconds": round(cycle.copying, 1),
        "seconds": round(cycle.seconds, 1),
        "churn": None if not cycle.since or cycle.mode != "incremental" else round(cycle.changed / cycle.since),
        "throughput": round(cycle.read / cycle.copying) if cycle.copying > 0 else None,
        "predicted_downtime": None if told.downtime is None else round(told.downtime, 1),
        "disks": [{k: d[k] for k in DISK_FACTS if k in d} for d in disks],
    }


def totals(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the cycles C(rows) did for each disk, all together: bytes, repaired chunks, seconds."""
    out: dict[str, dict[str, Any]] = {}
    for disk in (d for row in rows for d in row["disks"]):
        sums = out.setdefault(str(disk.get("key")), {"disk": disk.get("disk"), "key": disk.get("key")} | dict.fromkeys(SUMMED, 0))
        for fact in SUMMED:
            sums[fact] += disk.get(fact) or 0
    return list(out.values())


def cycle_line(row: Mapping[str, Any], told: Forecast, terms: Terms) -> str:
    """C(cycle 3, incremental: 41.9 MiB changed, churn 4.2 MB/s, copied at 210.0 MB/s, 2.1 s; predicted downtime 9.8 s of 60 s)."""
    parts = [f"{size(row['changed_bytes'])} changed" if row["mode"] == "incremental" else f"{size(row['bytes_written'])} written"]
    if row["churn"] is not None:
        parts.append(f"churn {speed(row['churn'])}")
    if row["throughput"]:
        parts.append(f"copied at {speed(row['throughput'])}")
    parts.append(f"in {duration(row['seconds'])}")
    text = f"cycle {row['cycle']}, {row['mode']}: {', '.join(parts)}; "
    if told.downtime is None:
        text += printable(told.reason, 120)
    else:
        text += f"predicted downtime {duration(told.downtime)} of {duration(terms.budget)}"
    why = next((d["reason"] for d in row["disks"] if d.get("reason") and d.get("mode") not in ("incremental", "none")), None)
    if why and row["cycle"] > 1:
        text += f" ({printable(why, 160)})"
    return text + (f"; the next one in {duration(told.wait)}" if told.wait >= 1 else "")


def terms_line(terms: Terms) -> str:
    """What ends the cycles, in one sentence."""
    when = "" if terms.until is None else datetime.datetime.fromtimestamp(terms.until).astimezone().isoformat(timespec="minutes")
    if terms.most == 1:
        return "one cycle"
    if terms.keep:
        ends = f"until {when}"
    else:
        ends = f"until a downtime of at most {duration(terms.budget)} is predicted" + (f", {when} at the latest" if when else "")
    return f"cycles {ends}, at most {terms.most}" + (f"; pauses of {duration(terms.interval)}" if terms.interval else "")
