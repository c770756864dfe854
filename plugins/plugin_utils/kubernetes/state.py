# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the status of Forklift's objects says: whether something has come to an end, what stands in its way, how far each VM is.

Conditions disappear instead of turning False, so what counts is which are there; those of an older generation than the object count not.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

Object = dict[str, Any]
BLOCKING = ("Critical", "Error")
ENDS = ("Succeeded", "Failed", "Canceled")


def conditions(found: Object) -> list[Object]:
    """The conditions that hold, of the object as it is now."""
    status = found.get("status") or {}
    seen = status.get("observedGeneration")
    if seen is not None and seen < (found.get("metadata") or {}).get("generation", 0):
        return []
    return [c for c in status.get("conditions") or [] if c.get("status") == "True"]


def reasons(found: Object) -> list[str]:
    """What conditions say that block. How an earlier run ended blocks nothing."""
    return [_said(c) for c in conditions(found) if c.get("category") in BLOCKING and c["type"] not in ENDS]


def _said(one: Object) -> str:
    items = ", ".join(str(i).strip() for i in one.get("items") or [])
    text = f"{one['type']}: {one.get('message', '')}{' (' + items + ')' if items else ''}"
    return f"{text} {one['suggestion']}" if one.get("suggestion") else text


def readiness(found: Object) -> dict[str, Any]:
    """Of a Provider, a map, a Host, a Hook or a Plan: C(ready), C(blocked), C(ended) (one of both), C(reasons), C(conditions)."""
    types = [c["type"] for c in conditions(found)]
    why = reasons(found)
    ready = "Ready" in types and not why
    if found.get("kind") == "Provider" and not why and (found.get("status") or {}).get("phase") in ("ConnectionFailed", "ValidationFailed"):
        why = [f"its phase is {found['status']['phase']}"]
    return {"ready": ready, "blocked": bool(why), "ended": ready or bool(why), "reasons": why, "conditions": types}


def migration(plan: Object, found: Object) -> dict[str, Any]:
    """How far a Migration of a plan is.

    C(state): pending, running, precopied (warm: all disks are copied, the cutover is waited for), or one of the ends in lower case.
    C(ended), C(reasons), C(vms), C(lines) (one a VM, for people).
    """
    types = [c["type"] for c in conditions(found)]
    end = next((e for e in ENDS if e in types), "")
    # The migration mirrors what the plan says of its VMs.
    vms = (found.get("status") or {}).get("vms") or ((plan.get("status") or {}).get("migration") or {}).get("vms") or []
    rows = [vm_row(vm) for vm in vms]
    why = [] if end else reasons(found) + reasons(plan)
    open_rows = [r for r in rows if r["state"] not in ("succeeded", "failed", "canceled")]
    if end:
        state = end.lower()
    elif why:
        state = "blocked"
    elif "Running" not in types:
        state = "pending"
    elif open_rows and all(r["state"] == "precopied" for r in open_rows):
        state = "precopied"
    else:
        state = "running"
    why += [f"{r['name']}: {said}" for r in rows for said in r["reasons"]]
    return {
        "state": state,
        "ended": bool(end) or state == "blocked",
        "reasons": list(dict.fromkeys(why)),
        "vms": rows,
        "lines": [line(r) for r in rows],
        "started": (found.get("status") or {}).get("started"),
        "completed": (found.get("status") or {}).get("completed"),
    }


def vm_row(vm: Object) -> dict[str, Any]:
    """One VM of a migration, with the step it is at, its bytes (where the step counts MB), and every reason that a step gives."""
    types = [c["type"] for c in vm.get("conditions") or [] if c.get("status") == "True"]
    end = next((e for e in ENDS if e in types), "")
    pipeline = vm.get("pipeline") or []
    step = next((s for s in pipeline if s.get("phase") != "Completed"), None) or (pipeline[-1] if pipeline else {})
    # What a step or a task says, with its name; then what the VM alone says.
    parts = [(str(one.get("name")), part) for one in pipeline for part in [one, *(one.get("tasks") or [])]]
    told = [(name, str(r)) for name, part in parts for r in (part.get("error") or {}).get("reasons") or []]
    known = {r for _name, r in told}
    said = [f"{name}: {r}" for name, r in dict.fromkeys(told)]
    said += [str(r) for r in (vm.get("error") or {}).get("reasons") or [] if r not in known]
    waits = vm.get("phase") == "CopyingPaused" and ((vm.get("warm") or {}).get("successes") or 0) > 0
    transfer: Object = next((s for s in pipeline if str(s.get("name", "")).startswith("DiskTransfer")), {})
    counted = _bytes(transfer, transfer)
    return {
        "name": vm.get("newName") or vm.get("targetName") or vm.get("name") or vm.get("id"),
        "id": vm.get("id"),
        "source_name": vm.get("name"),
        "state": end.lower() or ("precopied" if waits else "running"),
        "phase": vm.get("phase"),
        "step": step.get("name", ""),
        "done": counted[0],
        "total": counted[1],
        "precopies": (vm.get("warm") or {}).get("successes", 0),
        "disks": [
            dict(zip(("name", "done", "total"), (t.get("name"), *_bytes(t, transfer)), strict=True)) for t in transfer.get("tasks") or []
        ],
        "reasons": said if end != "Succeeded" else [],
    }


def _bytes(part: Object, step: Object) -> tuple[int, int]:
    """How much of a step or of one of its tasks is done, and of how much; in bytes where the step counts MB (which are MiB)."""
    megabytes = (step.get("annotations") or {}).get("unit") == "MB"
    counted = part.get("progress") or {}
    done, total = (int(counted.get(key) or 0) * (1 << 20 if megabytes else 1) for key in ("completed", "total"))
    return done, total


def line(row: dict[str, Any]) -> str:
    """A row for people: name, state, step, how much of the disks."""
    much = f", {row['done'] / row['total']:.0%} of {row['total'] / (1 << 30):.1f} GiB" if row["total"] else ""
    step = f" at {row['step']}" if row["state"] == "running" and row["step"] else ""
    cycles = f", {row['precopies']} precopies" if row["precopies"] else ""
    return f"{row['name']}: {row['state']}{step}{much}{cycles}" + (f": {'; '.join(row['reasons'])}" if row["reasons"] else "")


def time(text: str) -> str:
    """RFC 3339 in UTC of C(now), or of a date and time, which without an offset is local; empty for C(on_demand). ValueError: it is none."""
    if text in ("", "on_demand"):
        return ""
    when = (
        datetime.now(timezone.utc)
        if text == "now"
        else datetime.fromisoformat(text.strip().replace("Z", "+00:00")).astimezone(timezone.utc)
    )
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
