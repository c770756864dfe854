# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A datastore that is filling is relieved: VMs' files go to others, the fewest bytes that are enough. Each VM stays on its host."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from ..errors import BadInput, FerryError, ServerError
from .client import Session
from .constraints import Rules, rules_of
from .find import describe
from .move import move
from .move_plan import Wish
from .move_subject import read_subject
from .site import read_site
from .site_model import MIB, Datastore, Site, Vm

_STEP = "relieve the datastore"


@dataclass(frozen=True)
class Shift:
    """The files that a VM has on the datastore go to C(target). C(size): bytes."""

    vm: Vm
    target: Datastore
    size: int

    def as_dict(self, source: str, state: str) -> dict[str, Any]:
        return {
            "vm": self.vm.name,
            "moref": self.vm.moref,
            "from": source,
            "to": self.target.name,
            "method": "storage",
            "mb": self.size // MIB,
            "state": state,
            "said": None,
        }


@dataclass
class Plan:
    """C(need): bytes to be freed. C(stuck): VMs that could not go, with reasons."""

    source: Datastore
    need: int = 0
    shifts: list[Shift] = field(default_factory=list)
    stuck: list[dict[str, Any]] = field(default_factory=list)

    @property
    def freed(self) -> int:
        return sum(s.size for s in self.shifts)

    @property
    def enough(self) -> bool:
        return self.freed >= self.need

    def table(self) -> list[str]:
        """For people, a line each under a heading."""
        if not self.shifts:
            return ["nothing to move"]
        rows = [("VM", "from", "to", "MB")]
        rows += [(s.vm.name, self.source.name, s.target.name, str(s.size // MIB)) for s in self.shifts]
        widths = [max(len(r[i]) for r in rows) for i in range(3)]
        return ["  ".join([*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[3]]) for r in rows]


def _immovable(vm: Vm, site: Site, rules: Rules) -> str | None:
    host = site.hosts.get(vm.host or "")
    held = rules.held(vm.moref)
    if vm.template:
        return "a template"
    if host is None or not host.connected or not vm.connected:
        return "its host is not connected"
    if held is not None:
        return f"constraint {held}: it is not to be moved"
    if vm.consolidation:
        return "its disks need consolidation"
    return None


def _target(
    vm: Vm, size: int, site: Site, source: Datastore, allowed: frozenset[str], free: Mapping[str, int], keep: float
) -> Datastore | str:
    """The datastore with most room that its host reaches, or why there is none. C(keep): share that stays free."""
    full, found = [], []
    for store in site.datastores.values():
        if store.moref == source.moref or vm.host not in store.hosts or (allowed and store.moref not in allowed):
            continue
        if not store.accessible or store.maintenance not in ("", "normal") or (store.local and not source.local):
            continue
        after = free[store.moref] - size
        if after < store.capacity * keep:
            full.append(store.name)
        else:
            found.append((-after / store.capacity, store.name, store))
    if found:
        return min(found, key=lambda f: f[:2])[2]
    return f"no room on {', '.join(sorted(full))}" if full else "its host reaches no other datastore"


def plan(site: Site, source: Datastore, percent: float, rules: Rules, allowed: frozenset[str] = frozenset()) -> Plan:
    """The plan after which at most C(percent) of the datastore is used, and of none that takes files more than that. Pure.

    :param allowed: MoRefs of the datastores that may take files; empty: all.
    """
    keep = 1.0 - percent / 100.0
    made = Plan(source, max(0, int(source.capacity * keep) - source.free))
    free = {d.moref: d.free for d in site.datastores.values()}
    waiting = []
    for vm in sorted(site.vms.values(), key=lambda v: (v.name, v.moref)):
        size = vm.disks_bytes.get(source.moref, 0)
        if size <= 0 or not made.need:
            continue
        why = _immovable(vm, site, rules)
        if why is not None:
            made.stuck.append({"vm": vm.name, "moref": vm.moref, "reasons": [why]})
        else:
            waiting.append((size, vm))
    left = made.need
    while left > 0 and waiting:
        # the smallest that is enough, else the largest: few moves, and few bytes
        enough = [w for w in waiting if w[0] >= left]
        size, vm = min(enough, key=lambda w: w[0]) if enough else max(waiting, key=lambda w: w[0])
        waiting.remove((size, vm))
        target = _target(vm, size, site, source, allowed, free, keep)
        if isinstance(target, str):
            made.stuck.append({"vm": vm.name, "moref": vm.moref, "reasons": [target]})
            continue
        free[target.moref] -= size
        made.shifts.append(Shift(vm, target, size))
        left -= size
    for shift in sorted(made.shifts, key=lambda s: s.size):
        if made.freed - shift.size >= made.need:  # what came later made it needless
            made.shifts.remove(shift)
    return made


def _one(session: Session, shift: Shift, source: Datastore, timeout: float) -> dict[str, Any]:
    """Make one move; its outcome, never an error."""
    result = shift.as_dict(source.name, "moved")
    try:
        found = describe(session, [shift.vm.moref])
        if not found:
            raise BadInput("The VM is gone from vCenter.", step=_STEP)
        subject = read_subject(session, found[0])
        here = [d for d in subject.disks if d.datastore_moref == source.moref]
        whole = len(here) == len(subject.disks) and subject.vmx_datastore == source.moref
        if not whole and not here:
            result["state"] = "was there"
            return result
        disks = () if whole else tuple(str(d.key) for d in here)
        wish = Wish(method="storage", datastore=shift.target.moref, disks=disks, timeout=timeout)
        if not move(session, found[0], wish)["changed"]:
            result["state"] = "was there"
    except FerryError as e:
        result.update(state="failed", said=str(e))
    return result


def relieve(
    session: Session,
    wanted: str,
    percent: float,
    *,
    allowed: Sequence[str] = (),
    constraints: Sequence[Any] = (),
    at_once: int = 2,
    timeout: float = 3600.0,
    check: bool = False,
) -> dict[str, Any]:
    """Bring what is used of the datastore C(wanted) down to C(percent). Run again, it goes on from what is there then.

    :raises BadInput: an unknown name; or code stuck, with the plan as C(partial), where what can move is not enough (nothing was moved).
    :raises ServerError: code moves_failed, with C(moves) in C(partial).
    """
    if not 1 <= percent <= 99:
        raise BadInput(f"target_percent is from 1 to 99, not {percent:g}.", step=_STEP)
    site = read_site(session, devices=False)
    source = site.datastore(wanted)
    into = frozenset(site.datastore(name).moref for name in allowed)
    made = plan(site, source, percent, rules_of(site, constraints), into)
    result: dict[str, Any] = {
        "changed": bool(made.shifts),
        "datastore": source.name,
        "used_percent": round(100.0 * (source.capacity - source.free) / source.capacity, 2) if source.capacity else 0.0,
        "need_mb": -(-made.need // MIB),
        "moves": [s.as_dict(source.name, "planned") for s in made.shifts],
        "stuck": made.stuck,
        "enough": made.enough,
        "table": made.table(),
    }
    if check:
        return result
    if not made.enough:
        error = BadInput(
            f"{source.name} needs {result['need_mb']} MiB, and no more than {made.freed // MIB} MiB can go elsewhere: "
            + "; ".join(f"{s['vm']}: {s['reasons'][0]}" for s in made.stuck[:5]),
            code="stuck",
            step=_STEP,
            left="nothing was moved",
            next_command="add a datastore, or take a higher target_percent",
        )
        error.partial = {**result, "changed": False}
        raise error
    with ThreadPoolExecutor(max(1, at_once)) as pool:
        result["moves"] = list(pool.map(lambda s: _one(session, s, source, timeout), made.shifts))
    failed = [m for m in result["moves"] if m["state"] == "failed"]
    if failed:
        bad = ServerError(
            f"{len(failed)} of {len(made.shifts)} moves failed: " + "; ".join(f"{m['vm']}: {m['said']}" for m in failed[:5]),
            code="moves_failed",
            step=_STEP,
            next_command="run it again: it goes on from where the files are now",
        )
        bad.partial = result
        raise bad
    return result
