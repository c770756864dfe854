# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that drains hosts: which VM goes where, in waves, with the fewest moves. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

from ..errors import BadInput
from .candidates import Fitting
from .capacity import Load, Policy
from .constraints import Rules
from .rebalance import Rebalance, Solution
from .site_model import Site
from .waves import Limits, Move, schedule, table


@dataclass
class Plan:
    """C(stuck): VMs that stay, with reasons. C(least): it is proved that no plan has fewer moves. C(broken): constraints that are
    broken as things are now. C(after): the constraints that would be broken afterwards (those that were before, at most)."""

    moves: list[Move] = field(default_factory=list)
    stuck: list[dict[str, Any]] = field(default_factory=list)
    least: bool = False
    broken: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For a module's result."""
        return {
            "moves": [m.as_dict() for m in self.moves],
            "stuck": self.stuck,
            "least": self.least,
            "table": table(self.moves),
            "broken_before": self.broken,
            "broken_after": self.after,
        }


def plan_of(
    site: Site,
    rules: Rules,
    policy: Policy,
    limits: Limits,
    goals: Mapping[str, frozenset[str]],
    why: Mapping[str, str],
    *,
    closed: Iterable[str] = (),
    immovable: Mapping[str, str] | None = None,
) -> Plan:
    """The plan that brings each VM of C(goals) to one of its hosts."""
    fitting = Fitting(site, rules, policy)
    load = Load(site, policy)
    before = dict(load.where)
    search = Rebalance(fitting, load, goals, closed=closed, immovable=immovable)
    solution: Solution = search.solve()
    fresh = Load(site, policy)
    moves = schedule(fitting, fresh, solution.steps, limits, why)
    stuck = [
        {"vm": site.vms[vm].name, "moref": vm, "host": site.where(site.vms[vm].host), "reasons": reasons}
        for vm, reasons in sorted(solution.stuck.items(), key=lambda item: site.vms[item[0]].name)
    ]
    return Plan(moves, stuck, solution.least, rules.broken(before), rules.broken(fresh.where))


def _refuse_hosts(site: Site, hosts: Sequence[str]) -> None:
    for moref in hosts:
        host = site.hosts[moref]
        if not host.connected or host.power != "on":
            raise BadInput(
                f"The host {site.where(moref)} is not connected: nothing can be moved off it while it cannot be reached.",
                code="host_not_connected",
                step="plan the evacuation",
                next_command="bring the host back, or fail its VMs over with ferry.vmware.host_failover",
                host=host.name,
            )


def evacuation(
    site: Site,
    hosts: Sequence[str],
    rules: Rules | None = None,
    policy: Policy | None = None,
    limits: Limits | None = None,
    *,
    powered_off: bool = True,
) -> Plan:
    """The plan that takes all VMs off the hosts C(hosts) (MoRefs). Templates stay: they do not run, and nothing moves them.

    :param powered_off: also those that are off (they stay registered otherwise, which maintenance mode does not mind).
    :raises BadInput: a host is not connected, or constraints cannot hold together.
    """
    rules, policy, limits = rules or Rules(site), policy or Policy(), limits or Limits()
    _refuse_hosts(site, hosts)
    drained = frozenset(hosts)
    others = frozenset(site.hosts) - drained
    goals: dict[str, frozenset[str]] = {}
    why: dict[str, str] = {}
    immovable: dict[str, str] = {}
    for host in hosts:
        for vm in site.vms_on(host):
            if vm.template or (not vm.running and not powered_off):
                continue
            goals[vm.moref] = others
            why[vm.moref] = f"{site.where(host)} is drained"
    rules.check(goals)
    for moref, vm in site.vms.items():
        held = rules.held(moref)
        if held is not None:
            immovable[moref] = f"constraint {held}: it is not to be moved"
        elif vm.host is not None and not vm.connected:
            immovable[moref] = "it is not connected"
    for unit in {rules.unit(vm) for vm in goals}:
        for vm_ref in unit - goals.keys():
            why[vm_ref] = f"stays with {', '.join(sorted(site.vms[v].name for v in unit & goals.keys()))}"
    return plan_of(site, rules, policy, limits, goals, why, closed=drained, immovable=immovable)
