# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import math
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.budget_settings import Settings, checked
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan.schedule import Schedule, Step, Task, schedule

MB = 1_000_000


def copying(megabytes: float, rate: float = 100, machine: str = "", host: str = "esx1", datastore: str = "ds1") -> Task:
    return Task([Step("copy", 0.0, megabytes * MB, rate * MB)], machine, host, datastore)


def budget(**settings: Any) -> dict[str, Settings]:
    return {"": Settings(checked(settings))}


def ends(found: Schedule) -> list[float]:
    return [round(spans[-1].ends, 3) for spans in found.spans]


def test_as_many_at_once_as_there_are_forks_and_in_their_order() -> None:
    found = schedule([Task([Step("land", 10.0)]) for nth in range(5)], 2, {})
    assert ends(found) == [10, 10, 20, 20, 30] and found.end == 30
    assert found.lanes == [0, 1, 0, 1, 0]


def test_a_large_one_holds_up_no_other() -> None:
    found = schedule([copying(100_000), *(copying(100) for nth in range(4))], 2, {})
    assert ends(found) == [1000, 1, 2, 3, 4] and found.end == 1000


def test_steps_follow_each_other_with_their_fixed_seconds_first() -> None:
    found = schedule([Task([Step("prepare", 3.0), Step("copy", 5.0, 200 * MB, 100 * MB), Step("land", 2.0)])], 1, {})
    assert [(s.name, s.begins, s.ends) for s in found.spans[0]] == [("prepare", 0, 3), ("copy", 3, 10), ("land", 10, 12)]


def test_the_budget_of_all_is_shared_alike() -> None:
    found = schedule([copying(100), copying(200), copying(300)], 3, budget(overall={"rate": 60}))
    # 20 each until the first has its 100; then 30 each; then all of it.
    assert ends(found) == pytest.approx([5, 5 + 100 / 30, 5 + 100 / 30 + 100 / 60], abs=0.01)


def test_what_one_cannot_use_others_get() -> None:
    found = schedule([copying(10, rate=10), copying(90)], 2, budget(overall={"rate": 100}))
    assert ends(found) == pytest.approx([1, 1], abs=0.01)


def test_budgets_of_hosts_and_datastores_hold_together() -> None:
    wave = [copying(100, host="a"), copying(100, host="b", datastore="slow")]
    found = schedule(wave, 2, budget(hosts={"A": {"rate": 50}}, datastores={"slow": {"rate": 20}}))
    assert ends(found) == pytest.approx([2, 5], abs=0.01)


def test_a_budget_belongs_to_one_conversion_host() -> None:
    slow = Settings(checked({"overall": {"rate": 10}}))
    found = schedule([copying(100, machine="one"), copying(100, machine="two")], 2, {"one": slow})
    assert ends(found) == pytest.approx([10, 1], abs=0.01)


def test_places_for_disks_are_waited_for() -> None:
    found = schedule([copying(100) for nth in range(4)], 4, budget(hosts={"*": {"disks": 1}}))
    assert ends(found) == pytest.approx([1, 2, 3, 4], abs=0.01)


def test_a_window_in_which_nothing_is_read_is_waited_for() -> None:
    day = {"overall": {"windows": [{"from": "08:00", "to": "18:00", "rate": 0}]}}
    found = schedule([copying(100)], 1, budget(**day), began=17 * 3600.0)
    assert found.end == pytest.approx(3601, abs=1)


def test_what_never_ends_is_said() -> None:
    found = schedule([copying(100), copying(100, host="esx2")], 2, budget(hosts={"esx1": {"rate": 0}}))
    assert found.end is None and found.stuck == [0] and ends(Schedule(found.spans[1:], None)) == [1]


def test_nothing_before_its_moment() -> None:
    found = schedule([Task([Step("precopy", 10.0), Step("cutover", 5.0, after=100.0)])], 1, {})
    assert [(s.begins, s.ends) for s in found.spans[0]] == [(0, 10), (10, 105)]


def test_without_a_limit_bytes_take_no_time() -> None:
    found = schedule([Task([Step("copy", 1.0, 5.0, math.inf)]), Task([])], 1, {})
    assert found.end == 1 and found.spans[1] == []


def test_an_empty_wave() -> None:
    assert schedule([], 5, {}).end == 0


def test_a_thousand_of_them_are_put_on_the_clock() -> None:
    found = schedule([copying(100 + n, host=f"esx{n % 7}") for n in range(1000)], 20, budget(overall={"rate": 1000}))
    total = sum(100 + n for n in range(1000))
    assert found.end is not None and total / 1000 <= found.end <= total / 1000 * 1.05
