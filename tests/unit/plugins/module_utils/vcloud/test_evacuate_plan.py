# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of an evacuation: chains, room, balance, canary, order; the same for the same facts, and fast."""

from __future__ import annotations

import random
import time
import uuid
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud.entities import Datastore
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud.evacuate_plan import Item, Limits, Plan, chain_key, make_plan

VC = "https://vcd.example/api/admin/extension/vimServer/3333cccc-0000-4000-8000-000000000003"


def store(number: int, total: int = 1000_000, used: int = 0, provisioned: int | None = None, **more: Any) -> Datastore:
    values: dict[str, Any] = {"vc": VC, "vcenter": "vc1", "enabled": True, "deleted": False, "requested_mb": 0, **more}
    href = f"https://vcd.example/api/admin/extension/datastore/{uuid.UUID(int=number)}"
    return Datastore(
        href=href,
        name=f"ds{number}",
        moref=f"datastore-{number}",
        total_mb=total,
        used_mb=used,
        provisioned_mb=provisioned or used,
        **values,
    )


def item(name: str, mb: int = 1000, **more: Any) -> Item:
    href = f"https://vcd.example/api/vApp/vm-{uuid.uuid5(uuid.NAMESPACE_URL, name)}"
    return Item(href=href, name=name, mb=mb, org="acme", vdc="prod", vapp="app", **more)


def chain(group: str, *names: str, base: str | None = None, mb: int = 1000) -> list[Item]:
    found = [item(n, mb, group=group, chain=2) for n in names]
    return found + ([item(base, mb, group=group, is_template=True)] if base else [])


def plan(items: list[Item], *targets: Datastore, source: Datastore | None = None, **more: Any) -> Plan:
    return make_plan(items, source or store(1, used=10_000_000), targets or (store(2),), **more)


def names(found: Plan) -> list[str]:
    return [m.item.name for m in found.moves]


def test_small_before_large_and_a_canary_first() -> None:
    found = plan([item("c", 300), item("a", 100), item("b", 200), *chain("k", "x", base="t", mb=10)])
    assert names(found) == ["a", "t", "x", "b", "c"]
    assert [m.wave for m in found.moves] == [0, 1, 1, 2, 2]
    assert names(plan([item("c", 300), *chain("k", "x", base="t")], canary=["0"], order="chain")) == ["t", "x", "c"]


def test_a_named_canary() -> None:
    found = plan([item("a"), item("b"), item("c")], canary=["c", item("b").href])
    assert names(found) == ["c", "b", "a"]
    assert [m.wave for m in found.moves] == [0, 0, 1]
    assert found.moves[0].why == "canary"
    for wrong, said in ((["nobody"], "No VMs"), (["a", "stuck"], "cannot be moved: stuck")):
        with pytest.raises(BadInput, match=said):
            plan([item("a"), item("stuck", blocked="stuck: FAILED_CREATION")], canary=wrong)
    with pytest.raises(BadInput, match="2 VMs"):
        plan([item("a"), Item(href=item("z").href, name="a")], canary=["a"])


def test_a_chain_goes_to_one_target_and_its_base_first() -> None:
    members = chain("k", *(f"web{n:02d}" for n in range(40)), base="template", mb=10_000)
    found = plan([*members, *(item(f"s{n}", 5000) for n in range(60))], store(2), store(3))
    to = {m.target.name for m in found.moves if m.item.group and m.target}
    assert len(to) == 1
    assert [m.item.name for m in found.moves if m.item.group][0] == "template"
    assert {m.target.name for m in found.moves if m.target} == {"ds2", "ds3"}


def test_a_base_that_is_copied_along_is_counted_once() -> None:
    found = plan(chain("k", "a", "b", "c", mb=1000), store(2, total=10_000), bases={"k": 6000}, reserve_percent=10)
    assert len(found.moves) == 3
    assert [m.base_mb for m in found.moves] == [6000, 0, 0]
    tight = plan(chain("k", "a", "b", "c", mb=1000), store(2, total=9_900), bases={"k": 6000}, reserve_percent=10)
    assert not tight.moves
    assert {m.why for m in tight.stay} == {"no room: its chain of 3 VMs takes up to 9000 MB, and no target has more than 8910 MB left"}
    assert plan(chain("k", "a", base="t"), bases={"k": 6000}).moves[0].base_mb == 0


def test_targets_are_balanced() -> None:
    found = plan([item(f"vm{n}", 1000) for n in range(100)], store(2), store(3), store(4, used=40_000))
    by: dict[str, int] = {}
    for m in found.moves:
        assert m.target is not None
        by[m.target.name] = by.get(m.target.name, 0) + m.item.mb
    assert abs(by["ds2"] - by["ds3"]) <= 1000
    assert abs(by["ds2"] - by["ds4"] - 40_000) <= 1000


def test_room_by_the_used_figure_with_the_reserve() -> None:
    found = plan([item(f"vm{n}", 1000) for n in range(10)], store(2, total=10_000, used=2_000), reserve_percent=30)
    assert (len(found.moves), len(found.stay)) == (5, 5)
    assert "no room" in found.stay[0].why


def test_no_more_can_come_than_is_written_on_the_source() -> None:
    thin = [item(f"vm{n}", 10_000) for n in range(10)]
    assert len(plan(thin, store(2, total=50_000), source=store(1, used=30_000)).moves) == 10
    # what is gathered from other datastores comes on top
    wide = [item(f"vm{n}", 10_000, elsewhere_mb=5_000) for n in range(10)]
    assert len(plan(wide, store(2, total=50_000), source=store(1, used=30_000)).moves) == 4


def test_the_provisioned_figure_decides_between_targets_and_is_warned_of() -> None:
    overcommitted, sound = store(2, used=0, provisioned=995_000), store(3, used=500_000)
    found = plan([item("a", 50_000)], overcommitted, sound)
    assert found.moves[0].target == sound
    assert not found.warnings
    alone = plan([item("a", 50_000)], overcommitted)
    assert len(alone.moves) == 1
    assert "thin disk" in alone.warnings[0]


def test_what_cannot_move_is_listed() -> None:
    found = plan([item("a"), item("b", blocked="in maintenance: its vApp x is in maintenance mode"), item("c", 2_000_000)])
    assert names(found) == ["a"]
    assert [(m.item.name, m.target, m.wave) for m in found.stay] == [("b", None, None), ("c", None, None)]


def test_the_targets_of_an_earlier_run_are_kept() -> None:
    items = [item(f"vm{n}") for n in range(6)]
    kept = {items[0].uuid: store(3).key, items[1].uuid: ("elsewhere", "datastore-9")}
    found = plan(items, store(2), store(3, used=900_000), kept=kept)
    assert {m.item.name for m in found.moves if m.target and m.target.name == "ds3"} == {"vm0"}


def test_chains_by_organization_and_disk() -> None:
    org = "https://vcd.example/api/org/11111111-0000-4000-8000-000000000001"
    assert chain_key(org, 20480) == "11111111-0000-4000-8000-000000000001/20480"


def test_limits_make_the_waves() -> None:
    assert Limits().total(1) == 2
    assert Limits().total(10) == 8
    assert Limits(per_target=3, per_source=2).total(1) == 2
    waves = [m.wave for m in plan([item(f"vm{n}") for n in range(6)], canary=["0"]).moves]
    assert waves == [1, 1, 2, 2, 3, 3]


def ten_thousand() -> list[Item]:
    found = []
    for n in range(10_000):
        group = f"org{n // 1000}/20480" if n % 10 < 3 else ""
        found.append(item(f"vm{n:05d}", 20480, group=group, chain=2 if group and n % 1000 else 1, is_template=n % 1000 == 0))
    return found


def test_ten_thousand_are_planned_quickly_and_always_alike() -> None:
    items = ten_thousand()
    targets = [store(n, total=200_000_000) for n in range(2, 8)]
    start = time.perf_counter()
    first = make_plan(items, store(1, used=100_000_000), targets)
    assert time.perf_counter() - start < 60  # it takes 0.2 s: what is looked for is work that grows with the square
    assert len(first.moves) == 10_000
    random.Random(6).shuffle(items)
    assert make_plan(items, store(1, used=100_000_000), list(reversed(targets))) == first
    homes: dict[str, set[str]] = {}
    for m in first.moves:
        if m.item.group and m.target:
            homes.setdefault(m.item.group, set()).add(m.target.name)
    assert all(len(h) == 1 for h in homes.values())
