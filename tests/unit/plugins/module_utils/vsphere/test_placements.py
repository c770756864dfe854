# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restoring placements: complete, allowed at every moment, and with the fewest moves, against an exhaustive search."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import placements
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.capacity import Policy
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.constraints import Rules
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.site_model import Site

from .placement_sites import rule, site

FULL = Policy(reserve_percent=0)


def as_saved(found: Site, where: dict[str, str]) -> dict[str, str]:
    return {vm: placements.value_of(found, host) for vm, host in where.items()}


def exhaustive(found: Site, wanted: dict[str, str]) -> int | None:
    """The fewest single moves from how things are to C(wanted), memory kept at each; shares no code with the planner."""
    names = sorted(found.vms)
    start = tuple(str(found.vms[v].host) for v in names)
    goal = tuple(wanted[v] for v in names)
    layer, seen, moves = {start}, {start}, 0
    while layer:
        if goal in layer:
            return moves
        after = set()
        for state in layer:
            for i, v in enumerate(names):
                for host, h in found.hosts.items():
                    used = sum(found.vms[n].memory_mb for n, at in zip(names, state, strict=True) if at == host)
                    if state[i] != host and used + found.vms[v].memory_mb <= h.memory_mb_total:
                        after.add((*state[:i], host, *state[i + 1 :]))
        layer = after - seen
        seen |= layer
        moves += 1
    return None


def random_case(seed: int) -> tuple[Site, dict[str, str]]:
    """Hosts that are nearly full, and another placement that fits on them."""
    dice = random.Random(seed)
    hosts = {f"h{i}": dice.choice((4, 5, 6)) for i in range(3)}

    def place(sizes: dict[str, int]) -> dict[str, str] | None:
        left, where = dict(hosts), {}
        for v, size in sizes.items():
            fitting = [h for h, m in left.items() if m >= size]
            if not fitting:
                return None
            where[v] = dice.choice(fitting)
            left[where[v]] -= size
        return where

    while True:
        sizes = {f"v{i}": dice.randint(1, 3) for i in range(dice.randint(4, 6))}
        now, then = place(sizes), place(sizes)
        if now is not None and then is not None:
            return site(hosts, {v: (now[v], sizes[v]) for v in sizes}), then


@pytest.mark.parametrize("block", range(3))
def test_fewest_moves_against_an_exhaustive_search(block: int) -> None:
    solved = swaps = 0
    for seed in range(block * 60, block * 60 + 60):
        found, wanted = random_case(seed)
        least = exhaustive(found, wanted)
        plan = placements.restoration(found, as_saved(found, wanted), policy=FULL)
        if least is None:
            assert plan.stuck, seed
            continue
        solved += 1
        swaps += least > sum(1 for v, h in wanted.items() if found.vms[v].host != h)
        where = {v: vm.host for v, vm in found.vms.items()}
        for m in plan.moves:
            assert where[m.vm] == m.source, seed
            where[m.vm] = m.target
        assert where == wanted, seed
        assert len(plan.moves) == least, seed
        assert plan.least, seed
    assert solved > 10
    assert swaps > 0  # cases where VMs have to give way and come back are among them


def test_a_large_placement_is_restored_with_one_move_for_each() -> None:
    hosts = {f"h{i:02}": 200 for i in range(20)}
    found = site(hosts, {f"v{i:03}": (f"h{i % 20:02}", 4) for i in range(400)})
    wanted = {v: f"h{(int(v[1:]) * 7) % 20:02}" for v in found.vms}
    plan = placements.restoration(found, as_saved(found, wanted), policy=FULL)
    assert len(plan.moves) == sum(1 for v, h in wanted.items() if found.vms[v].host != h)
    assert plan.least


def test_a_ring_on_full_hosts_needs_one_move_more() -> None:
    found = site({"h1": 4, "h2": 4, "h3": 4, "spare": 4}, {"a": ("h1", 4), "b": ("h2", 4), "c": ("h3", 4)})
    plan = placements.restoration(found, as_saved(found, {"a": "h2", "b": "h3", "c": "h1"}), policy=FULL)
    assert len(plan.moves) == 4
    assert plan.least


def test_without_any_room_it_is_said() -> None:
    found = site({"h1": 4, "h2": 4}, {"a": ("h1", 4), "b": ("h2", 4)})
    plan = placements.restoration(found, as_saved(found, {"a": "h2", "b": "h1"}), policy=FULL)
    assert plan.moves == []
    assert [s["vm"] for s in plan.stuck] == ["a", "b"]
    assert "memory: 4 MiB wanted, 0 MiB left" in plan.stuck[0]["reasons"][0]
    assert not plan.least


def test_vms_that_came_since_may_make_room_and_stay_there() -> None:
    found = site({"h1": 4, "h2": 4, "h3": 4}, {"a": ("h2", 3), "new": ("h1", 2)})
    plan = placements.restoration(found, as_saved(found, {"a": "h1"}), policy=FULL)
    assert [(m.vm, m.target, m.why) for m in plan.moves] == [("new", "h3", "makes room"), ("a", "h1", "was on h1")]


def test_constraints_hold() -> None:
    found = site({"h1": 9, "h2": 9, "h3": 9}, {"a": ("h1", 1), "b": ("h2", 1)})
    saved = as_saved(found, {"a": "h2", "b": "h1"})
    apart = Rules(found, [rule("apart", "a", "b")])
    plan = placements.restoration(found, saved, apart, FULL)
    assert len(plan.moves) == 3  # they cannot pass each other on one host
    assert plan.least
    held = placements.restoration(found, saved, Rules(found, [rule("hold", "a")]), FULL)
    assert [m.vm for m in held.moves] == ["b"]
    assert "not to be moved" in held.stuck[0]["reasons"][0]


def test_values_survive_new_names_and_new_morefs() -> None:
    found = site({"h1": 9, "h2": 9}, {"a": ("h1", 1)})
    renamed = replace(found, hosts={"h1": replace(found.hosts["h1"], name="esx-one"), "h2": found.hosts["h2"]})
    assert placements.host_of(found, "h1 h1") == "h1"
    assert placements.host_of(renamed, "h1 h1") == "h1"
    assert placements.host_of(found, "host-99 h2") == "h2"
    assert placements.host_of(found, "host-99 gone") is None
    # one MoRef, but its old name is that of another host now: the name is what people mean
    swapped = replace(found, hosts={m: replace(h, name={"h1": "h2", "h2": "h1"}[m]) for m, h in found.hosts.items()})
    assert placements.host_of(swapped, "h1 h1") == "h2"


def test_differences_leave_out_templates_and_what_is_gone() -> None:
    found = site({"h1": 9, "h2": 9}, {"a": ("h1", 1), "t": ("h1", 1)}, t={"template": True})
    saved = {"a": "h2 h2", "t": "h2 h2", "gone": "h2 h2"}
    assert [(d["vm"], d["to"]) for d in placements.differences(found, saved)] == [("a", "h2")]
    assert placements.wanted_now(found) == {"a": "h1 h1"}
    assert placements.shown(found, saved) == {"a": "h2", "t": "h2"}
    assert placements.shown(found, None) is None


@pytest.mark.parametrize("name", ["weekdays", "平日", "before host-12", "a.b:c-d_e"])
def test_names(name: str) -> None:
    assert placements.check_name(name) == name


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\n", "x" * 41, "a!"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(BadInput):
        placements.check_name(name)
