# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans that drain hosts: complete, allowed at every moment, and with the fewest moves, against an exhaustive search."""

from __future__ import annotations

import collections
import random
from collections.abc import Iterable

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.capacity import Policy
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.constraints import Rule, Rules
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.evacuate import Plan, evacuation
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.site_model import Datastore, Site
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.waves import Limits, table

from .placement_sites import GIB, random_site, rule, site

FULL = Policy(reserve_percent=0)


def drained(found: Site, host: str, rules: Iterable[Rule] = (), policy: Policy = FULL, limits: Limits | None = None) -> Plan:
    return evacuation(found, [host], Rules(found, rules), policy, limits)


def check_moments(found: Site, rules: Iterable[Rule], plan: Plan, limits: Limits, policy: Policy = FULL) -> dict[str, str | None]:
    """Every wave, with all its moves under way at once: memory, apart, limits; returns where everything is in the end."""
    where = {v: vm.host for v, vm in found.vms.items()}
    for number in range(1, max((m.wave for m in plan.moves), default=0) + 1):
        wave = [m for m in plan.moves if m.wave == number]
        assert wave
        both = {v: {h} for v, h in where.items()}
        busy: collections.Counter[str] = collections.Counter()
        for m in wave:
            assert m.source == where[m.vm] != m.target
            both[m.vm].add(m.target)
            busy.update((str(m.source), m.target))
        assert max(busy.values()) <= limits.per_host
        for host in {m.target for m in wave}:
            memory = sum(found.vms[v].memory_mb for v, hosts in both.items() if host in hosts)
            assert memory <= found.hosts[host].memory_mb_total * policy.share * policy.overcommit
        for r in rules:
            moved = {m.vm for m in wave} & r.vms
            if r.kind == "apart":
                for v in moved:
                    assert not any(both[v] & both[o] for o in r.vms - {v})
            if r.kind == "hold":
                assert not moved
        where.update({m.vm: m.target for m in wave})
        for r in rules:
            if r.kind == "pin":
                assert all(where[m.vm] in r.hosts for m in wave if m.vm in r.vms)
    return where


def exhaustive(found: Site, rules: Iterable[Rule], host: str) -> int | None:
    """The fewest moves that drain the host, by looking at every state; None where nothing does. Shares no code with the planner."""
    rules = list(rules)
    names = sorted(found.vms)
    size = {v: found.vms[v].memory_mb for v in names}
    groups = {v: {v} for v in names}
    for r in rules:
        if r.kind == "together":
            joined = set().union(*(groups[v] for v in r.vms))
            for v in joined:
                groups[v] = joined
    units = {tuple(sorted(g)) for g in groups.values()}

    def allowed(state: dict[str, str], unit: tuple[str, ...], to: str) -> bool:
        used = sum(size[v] for v, h in state.items() if h == to and v not in unit)
        if used + sum(size[v] for v in unit) > found.hosts[to].memory_mb_total:
            return False
        for r in rules:
            mine = set(unit) & r.vms
            if mine and r.kind == "hold":
                return False
            if mine and r.kind == "pin" and to not in r.hosts:
                return False
            if mine and r.kind == "apart" and (len(mine) > 1 or any(state[o] == to for o in r.vms - mine)):
                return False
        return True

    start = {v: str(found.vms[v].host) for v in names}
    best = {tuple(start.values()): 0}
    layers: dict[int, list[dict[str, str]]] = {0: [start]}
    for cost in range(3 * len(names) + 1):
        for state in layers.get(cost, ()):
            if best[tuple(state.values())] < cost:
                continue
            if host not in state.values():
                return cost
            for unit in units:
                for to in found.hosts:
                    if to != host and state[unit[0]] != to and allowed(state, unit, to):
                        after = {**state, **dict.fromkeys(unit, to)}
                        price, key = cost + len(unit), tuple(after.values())
                        if price < best.get(key, 1 << 30):
                            best[key] = price
                            layers.setdefault(price, []).append(after)
    return None


@pytest.mark.parametrize("block", range(4))
def test_fewest_moves_against_an_exhaustive_search(block: int) -> None:
    solved = more = 0
    for seed in range(block * 100, block * 100 + 100):
        found, rules, host = random_site(seed)
        wanted = exhaustive(found, rules, host)
        plan = drained(found, host, rules)
        after = check_moments(found, rules, plan, Limits())
        if wanted is None:
            assert plan.stuck, seed
            continue
        solved += 1
        needed = sum(1 for v in found.vms.values() if v.host == host)
        more += wanted > needed
        assert not plan.stuck, seed
        assert host not in after.values(), seed
        assert len(plan.moves) == wanted, seed
        assert plan.least, seed
        assert plan.after == [], seed
    assert solved > 10
    assert more > 0  # sites where others have to make room are among them


def test_room_is_made_where_nothing_fits_as_it_is() -> None:
    found = site({"h1": 8, "h2": 8, "h3": 8}, {"big": ("h1", 6), "a": ("h2", 4), "b": ("h3", 4)})
    plan = drained(found, "h1")
    assert [m.why for m in plan.moves] == ["makes room", "h1 is drained"]
    assert plan.moves[0].wave < plan.moves[1].wave
    assert plan.least


def test_apart_counts_while_a_move_is_under_way() -> None:
    found = site({"h1": 8, "h2": 8, "h3": 8}, {"web1": ("h1", 2), "web2": ("h2", 2), "web3": ("h3", 2)})
    plan = drained(found, "h1", [rule("apart", "web1", "web2", "web3", name="web tier")])
    assert plan.moves == []
    assert plan.stuck[0]["vm"] == "web1"
    assert all("web tier" in r for r in plan.stuck[0]["reasons"])


def test_together_goes_together() -> None:
    found = site({"h1": 16, "h2": 8, "h3": 16}, {"app": ("h1", 6), "db": ("h1", 6), "x": ("h2", 1)})
    plan = drained(found, "h1", [rule("together", "app", "db")])
    assert {m.target for m in plan.moves} == {"h3"}
    assert {m.wave for m in plan.moves} == {1}


def test_a_rule_that_is_broken_already_is_mended_on_the_way() -> None:
    found = site({"h1": 16, "h2": 16, "h3": 16}, {"app": ("h1", 6), "db": ("h2", 6)})
    plan = drained(found, "h1", [rule("together", "app", "db")])
    assert [(m.vm, m.target) for m in plan.moves] == [("app", "h2")]
    assert plan.broken
    assert plan.after == []


def test_at_most_so_many_at_once() -> None:
    vms = {f"v{i:02}": ("h1", 1) for i in range(10)}
    found = site({"h1": 100, "h2": 100, "h3": 100}, vms)
    limits = Limits(per_host=3)
    plan = drained(found, "h1", limits=limits)
    check_moments(found, [], plan, limits)
    assert max(m.wave for m in plan.moves) == 4


def test_files_are_copied_only_where_needed_and_few_at_once() -> None:
    stores = {"shared": ("h1", "h2"), "local1": ("h1",), "local2": ("h2",)}
    local = {"datastores": frozenset(("local1",)), "disks_bytes": {"local1": 5 * GIB}}
    found = site({"h1": 100, "h2": 100}, {f"v{i}": ("h1", 1) for i in range(4)}, stores=stores, v0=local, v1=local, v2=local)
    plan = drained(found, "h1", limits=Limits(per_host=8, per_datastore=1))
    by_name = {m.vm: m for m in plan.moves}
    assert by_name["v3"].datastore is None
    assert {by_name[v].datastore for v in ("v0", "v1", "v2")} == {"shared"}
    assert sorted(by_name[v].wave for v in ("v0", "v1", "v2")) == [1, 2, 3]
    assert by_name["v0"].mb == 5 * 1024 + 1


def test_space_for_files_counts_what_is_on_its_way() -> None:
    stores = {"local1": ("h1",), "local2": ("h2",)}
    local = {"datastores": frozenset(("local1",)), "disks_bytes": {"local1": 5 * GIB}}
    small = Datastore("local2", "local2", "VMFS", 20 * GIB, 12 * GIB, True, "normal", frozenset(("h2",)), True, "DC")
    found = site({"h1": 100, "h2": 100}, {f"v{i}": ("h1", 1) for i in range(3)}, stores=stores, v0=local, v1=local, v2=local)
    found.datastores["local2"] = small
    plan = drained(found, "h1", policy=Policy(reserve_percent=10))
    assert len(plan.moves) == 2
    assert "datastore local2: 5120 MiB wanted, 0 MiB left within the reserve" in plan.stuck[0]["reasons"][0]


def test_what_cannot_move_is_said_and_the_rest_moves() -> None:
    found = site(
        {"h1": 100, "h2": 100},
        {"gpu": ("h1", 1), "cd": ("h1", 1), "held": ("h1", 1), "web": ("h1", 1)},
        gpu={"passthrough": ("PCI device 0",)},
        cd={"connected_local_devices": ("CD/DVD drive 1",)},
    )
    plan = drained(found, "h1", [rule("hold", "held", name="licence dongle")])
    assert [m.vm for m in plan.moves] == ["web"]
    said = {s["vm"]: " ".join(s["reasons"]) for s in plan.stuck}
    assert "passthrough: PCI device 0" in said["gpu"]
    assert "CD/DVD drive 1" in said["cd"]
    assert "licence dongle" in said["held"]
    assert not plan.least


def test_powered_off_and_templates() -> None:
    found = site(
        {"h1": 100, "h2": 100}, {"off": ("h1", 500), "golden": ("h1", 1)}, off={"power": "off"}, golden={"power": "off", "template": True}
    )
    plan = drained(found, "h1")
    assert [(m.vm, m.method) for m in plan.moves] == [("off", "cold")]  # memory of a VM that is off does not count
    assert evacuation(found, ["h1"], powered_off=False).moves == []


def test_a_host_that_is_away_is_refused() -> None:
    found = site({"h1": 8, "h2": 8}, {"a": ("h1", 1)}, h1={"connected": False})
    with pytest.raises(BadInput) as e:
        drained(found, "h1")
    assert e.value.code == "host_not_connected"


def test_several_hosts_at_once_and_maintenance_elsewhere() -> None:
    found = site({"h1": 8, "h2": 8, "h3": 16, "h4": 100}, {"a": ("h1", 4), "b": ("h2", 4), "c": ("h3", 2)}, h4={"maintenance": True})
    plan = evacuation(found, ["h1", "h2"], policy=FULL)
    assert {m.target for m in plan.moves} == {"h3"}


def large(seed: int = 1, vms: int = 1000, hosts: int = 50) -> tuple[Site, list[Rule]]:
    """A big site with constraints that hold."""
    dice = random.Random(seed)
    sizes = {f"esx{i:02}": 512 * 1024 for i in range(hosts)}
    where = {f"vm{i:04}": (f"esx{i % hosts:02}", dice.choice((4, 8, 16, 32)) * 1024) for i in range(vms)}
    rules = [rule("apart", *(f"vm{i + k:04}" for k in range(3)), name=f"apart {i}") for i in range(0, vms - 3, 20)]
    rules += [rule("together", f"vm{i:04}", f"vm{i + hosts:04}", name=f"together {i}") for i in range(5, vms - hosts, 100)]
    return site(sizes, where), rules


def test_a_large_site_is_planned_with_one_move_for_each() -> None:
    found, rules = large()
    drain = [f"esx{i:02}" for i in range(5)]
    plan = evacuation(found, drain, Rules(found, rules), Policy())
    needed = sum(1 for v in found.vms.values() if v.host in drain)
    assert plan.stuck == []
    assert len(plan.moves) == needed
    assert plan.least
    after = check_moments(found, rules, plan, Limits(), Policy())
    assert not set(drain) & set(after.values())


def test_the_table_is_for_people() -> None:
    found = site({"h1": 8, "h2": 8}, {"在庫 01": ("h1", 2)})
    lines = table(drained(found, "h1").moves)
    assert lines[0].split() == ["wave", "VM", "from", "to", "method", "MB", "why"]
    assert lines[1].split() == ["1", "在庫", "01", "h1", "h2", "hot", "2", "h1", "is", "drained"]
