# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the doctor has found, put together from its modules' results: the content of doctor.json, of the page and of the table."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

#: Version of doctor.json.
VERSION = 1
TRANSPORTS = ("https", "nfc", "nbd")


def build(
    looked: Sequence[Mapping[str, Any]],
    *,
    title: str,
    when: datetime.datetime,
    checked: Mapping[str, Any] | None = None,
    pilot: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The findings; sizes in bytes, times in seconds, rates in bytes per second.

    :param looked: results of doctor_read, one per conversion host, with its name as C(conversion_host).
    :param checked: the result of vm_precheck for the same VMs.
    :param pilot: how the one VM that was rehearsed fared.
    :raises ValueError: there is no result, or it is none.
    """
    if not looked or not all(isinstance(r, Mapping) and isinstance(r.get("vms"), Sequence) for r in looked):
        raise ValueError("looked: a list of results of ferry.vmware.doctor_read, one at least")
    first = looked[0]
    concerns = {str(vm.get("moref")): vm for vm in (checked or {}).get("vms") or ()}
    vms = [_vm(vm, concerns.get(str(vm["moref"]))) for vm in first["vms"]]
    reads = [{"conversion_host": str(r.get("conversion_host") or "localhost"), **row} for r in looked for row in r.get("reads") or ()]
    found = {
        "version": VERSION,
        "made": when.astimezone().isoformat(timespec="seconds"),
        "title": title,
        "vcenter": dict(first.get("vcenter") or {}),
        "conversion_hosts": [str(r.get("conversion_host") or "localhost") for r in looked],
        "hosts": list(first.get("hosts") or ()),
        "datastores": list(first.get("datastores") or ()),
        "vms": vms,
        "privileges": list(first.get("privileges") or ()),
        "reads": reads,
        "concerns": list((checked or {}).get("wave_concerns") or ()),
        "checked": checked is not None,
        "pilot": dict(pilot) if pilot else None,
    }
    found["totals"] = totals(found)
    return found


def _vm(vm: Mapping[str, Any], checked: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**vm, "concerns": list((checked or {}).get("concerns") or ()), "ready": (checked or {}).get("ready")}


def totals(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a page begins with."""
    vms, asked = found["vms"], [p for p in found["privileges"] if p.get("granted") is not None]
    rates = speeds(found["reads"])
    capacity = sum(int(vm.get("capacity") or 0) for vm in vms)
    best = max(rates.values(), default=0.0)
    return {
        "vms": len(vms),
        "capacity": capacity,
        "cold": sum(1 for vm in vms if vm["best"]["cold"]),
        "warm": sum(1 for vm in vms if vm["best"]["warm"]),
        "none": sum(1 for vm in vms if not vm["best"]["cold"]),
        "critical": sum(1 for vm in vms if vm["ready"] is False),
        "privileges": len(asked),
        "lacking": sum(1 for p in asked if not p["granted"]),
        "speeds": {name: round(rate) for name, rate in rates.items()},
        "reading_seconds": round(capacity / best) if best else None,
    }


def speeds(reads: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean rate of each way over the hosts; ways without a figure are left out."""
    out = {}
    for transport in TRANSPORTS:
        rates = [float(r["rate"]) for r in reads if r["transport"] == transport and r.get("rate")]
        if rates:
            out[transport] = sum(rates) / len(rates)
    return out


def verdicts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(kind, sentence): what somebody has to know who reads nothing else. C(kind): information, warning, critical."""
    sums = found["totals"]
    count = sums["vms"]
    out = [
        (
            "information",
            f"{sums['cold']} of {count} VMs can be copied while they are off, {sums['warm']} of them while they run, in cycles.",
        )
    ]
    if sums["none"]:
        out.append(("critical", f"{sums['none']} cannot be read by any way; why stands at each."))
    if sums["critical"]:
        out.append(("critical", f"{sums['critical']} have something that stops their migration; it is listed with what to do about it."))
    if sums["lacking"]:
        out.append(("critical", f"The account lacks {sums['lacking']} of the {sums['privileges']} privileges that migrations may need."))
    elif not sums["privileges"]:
        out.append(("warning", "vCenter does not tell what the account may do."))
    bad = [h["name"] for h in found["hosts"] if h.get("bad_build")]
    if bad:
        out.append(
            (
                "warning",
                f"Changed areas of {len(bad)} ESXi hosts are not to be trusted: {', '.join(bad[:5])}{' …' if len(bad) > 5 else ''}.",
            )
        )
    if not sums["speeds"] and found["reads"]:
        out.append(
            ("warning", "No disk lay still, so no speed could be measured: shut a VM down, or take a snapshot of one, and look again.")
        )
    pilot = found.get("pilot")
    if pilot:
        kind = "information" if pilot.get("passed") else "critical"
        out.append(
            (
                kind,
                f"The pilot {pilot.get('name')} was copied, compared in full and booted: {'it passed' if pilot.get('passed') else 'it failed'}.",
            )
        )
    return out
