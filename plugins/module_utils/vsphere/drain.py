# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host is drained for maintenance, and its VMs come back; a placement is restored. From vCenter's state to vCenter's state."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Mapping, Sequence

from ..errors import BadInput, FerryError
from . import placements
from .capacity import Policy
from .carry import carry_out, maintenance
from .client import Session
from .constraints import rules_of
from .evacuate import Plan, evacuation
from .move_rules import forbids_of
from .site import read_site, with_devices
from .site_model import Site
from .waves import Limits

#: What the placement is called that a host's VMs come back to.
BEFORE = "before "
_OF_HOST = re.compile(f"{BEFORE}host-[0-9]+")

#: The options of every module that plans and moves.
SPEC: dict[str, dict[str, Any]] = {
    "constraints": {"type": "list", "elements": "dict", "default": []},
    "reserve_percent": {"type": "float", "default": 10},
    "memory_overcommit": {"type": "float", "default": 1},
    "copy_files": {"type": "bool", "default": True},
    "per_host": {"type": "int", "default": 4},
    "per_datastore": {"type": "int", "default": 2},
    "timeout": {"type": "int", "default": 3600},
}


@dataclass(frozen=True)
class Settings:
    """How plans are made and carried out. C(timeout): seconds for each move."""

    constraints: Sequence[Any] = ()
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    timeout: float = 3600.0
    powered_off: bool = True
    stop: Callable[[], None] | None = None


def settings_of(params: Mapping[str, Any]) -> Settings:
    """The settings that the options of SPEC say.

    :raises BadInput: one of them makes no sense; says which.
    """
    wrong = [name for name in ("per_host", "per_datastore", "timeout") if params[name] < 1]
    wrong += ["reserve_percent"] if not 0 <= params["reserve_percent"] < 100 else []
    wrong += ["memory_overcommit"] if not 0.1 <= params["memory_overcommit"] <= 100 else []
    if wrong:
        raise BadInput(f"Out of range: {', '.join(f'{name} ({params[name]})' for name in wrong)}.", step="read the options")
    return Settings(
        constraints=params["constraints"],
        policy=Policy(params["reserve_percent"], params["memory_overcommit"], params["copy_files"]),
        limits=Limits(params["per_host"], params["per_datastore"]),
        timeout=float(params["timeout"]),
        powered_off=params.get("powered_off", True),
    )


def _go(session: Session, plan: Plan, settings: Settings, check: bool) -> dict[str, Any]:
    """The plan's result; carried out unless C(check)."""
    result = plan.as_dict()
    if check:
        result["moves"] = [{**m, "state": "planned"} for m in result["moves"]]
    elif plan.moves:
        try:
            result["moves"] = carry_out(
                session,
                plan.moves,
                timeout=settings.timeout,
                reserve_percent=settings.policy.reserve_percent,
                stop=settings.stop,
                forbids=forbids_of(settings.constraints, together=False),
            )
        except FerryError as e:
            e.partial = {**result, **e.partial}
            raise
    result["changed"] = bool(plan.moves)
    return result


def _settled(session: Session, site: Site, make: Callable[[Site], Plan]) -> tuple[Site, Plan]:
    """The plan that C(make) makes once the devices of all VMs that it moves are known; only theirs are read."""
    asked: set[str] = set()
    while True:
        plan = make(site)
        unread = [m.vm for m in plan.moves if not site.vms[m.vm].devices_read and m.vm not in asked]
        if not unread:
            return site, plan
        asked.update(unread)
        site = with_devices(session, site, unread)


def _stuck_error(plan: Plan, names: str) -> BadInput:
    listed = "; ".join(f"{s['vm']}: {' | '.join(s['reasons'][:3])}" for s in plan.stuck[:5])
    more = f"; and {len(plan.stuck) - 5} more" if len(plan.stuck) > 5 else ""
    error = BadInput(
        f"{len(plan.stuck)} VMs cannot leave {names}: {listed}{more}.",
        code="stuck",
        step="plan the evacuation",
        left="nothing was moved",
        next_command="shut these VMs down or make room for them, or allow it with partial: true",
    )
    error.partial = plan.as_dict()
    return error


def drain(
    session: Session,
    wanted: Sequence[str],
    settings: Settings,
    *,
    partial: bool = False,
    enter: bool = True,
    check: bool = False,
) -> dict[str, Any]:
    """Take all VMs off the hosts C(wanted), and put these into maintenance mode.

    Where the VMs were is saved first, as a placement per host, so that come_back() can restore it.

    :param partial: what can move is moved, also where something cannot; such a host does not enter maintenance mode.
    :raises BadInput: code stuck, with the plan as C(partial): a VM cannot leave.
    """
    site = read_site(session, devices=False)
    hosts = list(dict.fromkeys(site.host(w).moref for w in wanted))

    def make(site: Site) -> Plan:
        rules = rules_of(site, settings.constraints)
        policy, limits = settings.policy, settings.limits
        return evacuation(site, hosts, rules, policy, limits, powered_off=settings.powered_off)

    site, plan = _settled(session, site, make)
    names = ", ".join(site.where(h) for h in hosts)
    if plan.stuck and not partial and not check:
        raise _stuck_error(plan, names)
    saved = [h for h in hosts if any(m.source == h for m in plan.moves) and not _begun(session, site, h)]
    if not check:
        for name in placements.names(session) if saved else ():
            if _OF_HOST.fullmatch(name) and name[len(BEFORE) :] not in site.hosts:  # nothing comes back to a host that was removed
                placements.forget(session, name)
        for host in saved:
            placements.save(session, site, BEFORE + host, of=host)
    result = _go(session, plan, settings, check)
    stay = {s["host"] for s in plan.stuck}
    result["maintenance"] = []
    for host in hosts:
        name = site.where(host)
        if not enter or name in stay:
            continue
        if site.hosts[host].maintenance if check else not maintenance(session, host, name, enter=True, timeout=settings.timeout):
            continue
        result["maintenance"].append(name)
    result["changed"] = bool(result["changed"] or result["maintenance"])
    return result


def _begun(session: Session, site: Site, host: str) -> bool:
    """Whether a drain of the host is half done: what was saved at its beginning is to stay. That of an earlier one, from which the VMs
    have come back (or to which they went since), is not kept."""
    saved = placements.load(session, BEFORE + host)
    if not saved:
        return False
    here = {m for m, value in saved.items() if placements.host_of(site, value) == host and m in site.vms}
    now = {vm.moref for vm in site.vms_on(host) if not vm.template}
    return bool(here - now) and now <= here


def _restoration(site: Site, saved: Mapping[str, str], settings: Settings) -> Plan:
    return placements.restoration(site, saved, rules_of(site, settings.constraints), settings.policy, settings.limits)


def come_back(session: Session, wanted: Sequence[str], settings: Settings, *, check: bool = False) -> dict[str, Any]:
    """Take the hosts out of maintenance mode and bring back the VMs that drain() took off them."""
    site = read_site(session, devices=False)
    hosts = list(dict.fromkeys(site.host(w).moref for w in wanted))
    left: list[str] = []
    for host in hosts:
        if site.hosts[host].maintenance if check else maintenance(session, host, site.where(host), enter=False, timeout=settings.timeout):
            left.append(site.where(host))
    if not check and left:
        site = read_site(session, devices=False)
    elif check:
        site = _as_if_out(site, hosts)
    saved: dict[str, str] = {}
    for host in hosts:
        for moref, value in (placements.load(session, BEFORE + host) or {}).items():
            if placements.host_of(site, value) == host:
                saved[moref] = value
    site, plan = _settled(session, site, lambda s: _restoration(s, saved, settings))
    result = _go(session, plan, settings, check)
    if not check and not plan.stuck:
        for host in hosts:
            placements.forget(session, BEFORE + host)
    result["maintenance"] = left
    result["changed"] = bool(result["changed"] or left)
    return result


def _as_if_out(site: Site, hosts: Sequence[str]) -> Site:
    """C(site) with C(hosts) out of maintenance mode."""
    return replace(site, hosts={m: replace(h, maintenance=False) if m in hosts else h for m, h in site.hosts.items()})


def restore(session: Session, name: str, settings: Settings, *, check: bool = False) -> dict[str, Any]:
    """Bring every VM back to where the placement C(name) has it."""
    saved = placements.need(session, name)
    site = read_site(session, devices=False)
    site, plan = _settled(session, site, lambda s: _restoration(s, saved, settings))
    return {**_go(session, plan, settings, check), "differences": placements.differences(site, saved)}
