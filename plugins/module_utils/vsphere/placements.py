# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Named placements: who runs where, saved, compared, restored.

A placement is one custom attribute, C(ferry.placement.NAME), whose value on each VM is its host. So it needs no file that a second
control node does not have; each value is short, whatever the number of VMs; a VM that is removed takes its part with it, and one that
was made since has none. While it is written it is called C(NAME~), when it is complete C(NAME!), and then it takes the place of the
old one: a run that is killed at any moment leaves the old or the new placement, never half of one.
"""

from __future__ import annotations

import re
from typing import Any, Mapping

from ..errors import BadInput, FerryError, bounded
from . import attributes
from .capacity import Policy
from .client import Session
from .constraints import Rules
from .evacuate import Plan, plan_of
from .properties import of_view
from .site_model import Site
from .waves import Limits

PREFIX = "ferry.placement."
WRITING, WHOLE = "~", "!"
#: Placements in one vCenter: each is a column that every VM shows.
MOST = 20
_NAME = re.compile(r"[\w .:-]{1,40}")
_STEP = "read the placement"
#: VMs that are written between two looks at the lock.
_SIGN_EVERY = 200


def check_name(name: str) -> str:
    """:raises BadInput: the name cannot be that of an attribute."""
    if not _NAME.fullmatch(name) or name != name.strip():
        raise BadInput(
            f"A placement's name has 1 to 40 letters, digits, spaces or . : - _ , not {bounded(name, 60)!r}.", step="name the placement"
        )
    return name


def value_of(site: Site, host: str) -> str:
    """What stands on a VM: the host's MoRef, which survives a new name, and its name, which survives a new MoRef."""
    return f"{host} {site.hosts[host].name}"


def host_of(site: Site, value: str) -> str | None:
    """The host that C(value) means now, None where it is gone."""
    moref, _space, name = value.partition(" ")
    known = site.hosts.get(moref)
    if known is not None and known.name == name:
        return moref
    named = [h.moref for h in site.hosts.values() if h.name == name]
    if len(named) == 1:
        return named[0]
    return moref if known is not None and not named else None


def names(session: Session) -> dict[str, int]:
    """Key of each saved placement; unfinished ones are left out, whole ones that were not put in place yet go before the old."""
    found: dict[str, int] = {}
    for f in attributes.fields(session):
        if f.kind is None and f.name.startswith(PREFIX) and not f.name.endswith((WRITING, WHOLE)):
            found[f.name[len(PREFIX) :]] = f.key
    for f in attributes.fields(session):
        if f.kind is None and f.name.startswith(PREFIX) and f.name.endswith(WHOLE):
            found[f.name[len(PREFIX) : -1]] = f.key
    return found


def load(session: Session, name: str) -> dict[str, str] | None:
    """The saved values by VM (MoRef), or None where there is no such placement."""
    key = names(session).get(name)
    if key is None:
        return None
    rows = of_view(session, {"VirtualMachine": ("customValue",)}, step=_STEP)
    return {
        row.moref: str(v.value) for row in rows for v in row.props.get("customValue") or () if v.key == key and getattr(v, "value", None)
    }


def wanted_now(site: Site, of: str | None = None) -> dict[str, str]:
    """What a placement of now would hold: every VM that is no template, on its host.

    :param of: only those on this host.
    """
    vms = [vm for vm in site.vms.values() if not vm.template and (of is None or vm.host == of)]
    return {vm.moref: value_of(site, vm.host) for vm in vms if vm.host in site.hosts}


def differences(site: Site, saved: Mapping[str, str]) -> list[dict[str, Any]]:
    """VMs that are not where the placement has them; C(to) is None where that host is gone. Pure."""
    found = []
    for moref, value in saved.items():
        vm = site.vms.get(moref)
        if vm is None or vm.template:
            continue
        host = host_of(site, value)
        if host != vm.host:
            name = site.where(host) if host is not None else value.partition(" ")[2]
            found.append({"vm": vm.name, "moref": moref, "from": site.where(vm.host), "to": name, "host": host})
    return sorted(found, key=lambda d: (d["vm"], d["moref"]))


def shown(site: Site, saved: Mapping[str, str] | None) -> dict[str, str] | None:
    """A placement for people: name of the host by name of the VM, with the MoRef where several VMs have the name."""
    if saved is None:
        return None
    times: dict[str, int] = {}
    for vm in site.vms.values():
        times[vm.name] = times.get(vm.name, 0) + 1
    named = {
        (site.vms[m].name if times[site.vms[m].name] == 1 else f"{site.vms[m].name} ({m})"): value.partition(" ")[2]
        for m, value in saved.items()
        if m in site.vms
    }
    return dict(sorted(named.items()))


def restoration(
    site: Site, saved: Mapping[str, str], rules: Rules | None = None, policy: Policy | None = None, limits: Limits | None = None
) -> Plan:
    """The plan with the fewest moves that brings every VM of a placement back. Pure.

    VMs whose host is gone are in its C(stuck); those that the placement does not have may be moved to make room.
    """
    rules, policy, limits = rules or Rules(site), policy or Policy(), limits or Limits()
    goals: dict[str, frozenset[str]] = {}
    why: dict[str, str] = {}
    gone: list[dict[str, Any]] = []
    for d in differences(site, saved):
        if d["host"] is None:
            gone.append({"vm": d["vm"], "moref": d["moref"], "host": d["from"], "reasons": [f"the host {d['to']} is gone from vCenter"]})
        else:
            goals[d["moref"]] = frozenset((d["host"],))
            why[d["moref"]] = f"was on {d['to']}"
    rules.check(goals)
    for moref, value in saved.items():  # what is in its place stays there, or comes back to it
        host = host_of(site, value)
        if moref in site.vms and host is not None and site.vms[moref].host == host:
            goals[moref] = frozenset((host,))
            why[moref] = f"comes back to {site.where(host)}"
    immovable = {m: f"constraint {r}: it is not to be moved" for m in site.vms if (r := rules.held(m)) is not None}
    immovable.update({m: "it is not connected" for m, vm in site.vms.items() if not vm.connected})
    plan = plan_of(site, rules, policy, limits, goals, why, immovable=immovable)
    plan.stuck = sorted([*plan.stuck, *gone], key=lambda s: str(s["vm"]))
    plan.least = plan.least and not gone
    return plan


def save(session: Session, site: Site, name: str, *, of: str | None = None, check: bool = False) -> bool:
    """Save where every VM is now; whether that was not saved already.

    :param of: only the VMs on this host (MoRef).
    :raises BadInput: there are too many placements.
    :raises Busy: somebody else saves the same one.
    """
    check_name(name)
    values = wanted_now(site, of)
    if load(session, name) == values:
        return False
    known = names(session)
    if name not in known and len(known) >= MOST:
        raise BadInput(
            f"There are {len(known)} placements already: {', '.join(sorted(known))}.",
            code="too_many",
            step="save the placement",
            next_command="remove one of them with state: absent",
        )
    if check:
        return True
    with attributes.locked(session, f"placement {name}") as lock:
        _finish(session, name)
        left = attributes.field(session, PREFIX + name + WRITING)
        if left is not None:  # of a run that was killed
            attributes.remove(session, left.key)
        key = attributes.ensure(session, PREFIX + name + WRITING)
        try:
            for number, (moref, value) in enumerate(sorted(values.items()), 1):
                if number % _SIGN_EVERY == 0:
                    lock.sure()
                    lock.sign()
                try:
                    attributes.set_value(session, session.managed("VirtualMachine", moref), key, value)
                except FerryError as e:
                    if e.details.get("fault") != "ManagedObjectNotFound":  # it was removed meanwhile
                        raise
            lock.sure()
            _rename(session, key, PREFIX + name + WHOLE)
        except BaseException:
            attributes.remove(session, key)
            raise
        _finish(session, name)
    return True


def _rename(session: Session, key: int, name: str) -> None:
    session.call(session.content.customFieldsManager.RenameCustomFieldDef, key, name, step="save the placement")


def _finish(session: Session, name: str) -> None:
    """Put a whole placement in the place of the old one."""
    whole = attributes.field(session, PREFIX + name + WHOLE)
    if whole is not None:
        old = attributes.field(session, PREFIX + name)
        if old is not None:
            attributes.remove(session, old.key)
        _rename(session, whole.key, PREFIX + name)


def forget(session: Session, name: str, *, check: bool = False) -> bool:
    """Remove the placement, and what a killed run has left of it; whether there was anything."""
    check_name(name)
    found = [f for f in attributes.fields(session) if f.name in (PREFIX + name, PREFIX + name + WRITING, PREFIX + name + WHOLE)]
    if found and not check:
        with attributes.locked(session, f"placement {name}"):
            for f in found:
                attributes.remove(session, f.key)
    return bool(found)


def need(session: Session, name: str) -> dict[str, str]:
    """The saved values.

    :raises BadInput: there is no such placement; lists those there are.
    """
    found = load(session, check_name(name))
    if found is None:
        known = ", ".join(sorted(names(session))) or "none"
        raise BadInput(f"There is no placement {name}; there are: {known}.", code="unknown", step=_STEP)
    return found
