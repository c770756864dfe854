# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans that were saved: what is refused, and what has drifted since."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan import build, drift
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan.estimate import Terms

from .plan_rows import NOW, disk, given, plan_of

CONCERN = {"id": "ferry.x", "category": "critical", "label": "bad", "assessment": "it is bad", "advice": "mend it"}


def saved(tmp_path: Path, plan: Any) -> str:
    path = tmp_path / "plan.json"
    path.write_text(plan if isinstance(plan, str) else json.dumps(plan), encoding="utf-8")
    return str(path)


def fields(old: build.Given, new: build.Given) -> list[str]:
    return [d.field for d in drift.compare(plan_of(old), plan_of(new))]


def changed(one: build.Given, **entry: Any) -> build.Given:
    return build.Given(one.host, one.facts, {**one.entry, **entry}, one.terms)


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    plan = plan_of(given(1), given(2))
    assert drift.load(saved(tmp_path, plan)) == plan and drift.compare(plan, plan) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "damaged"),
        ('{"version": 1, "wave": [', "damaged"),
        ("[]", "no plan"),
        ('{"a": 1}', "no plan"),
        ('{"version": 2, "wave": []}', "version 2"),
        ('{"version": "1\\u001b[2J", "wave": []}', "version 1"),
        ('{"version": 1, "wave": []}', "vms is missing"),
        ("[" * 100_000, "damaged"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(BadInput) as e:
        drift.load(saved(tmp_path, content))
    assert words in str(e.value) and "\x1b" not in str(e.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("made",), "yesterday"),
        (("made",), "2026-11-21T20:00:00"),
        (("wave",), [1]),
        (("vms", 0), "x"),
        (("vms", 0, "host"), 5),
        (("vms", 0, "disks"), {}),
        (("vms", 0, "disks", 0), []),
        (("vms", 0, "disks", 0, "capacity"), "40"),
        (("vms", 0, "concerns"), [1]),
        (("vcenter",), None),
        (("concerns",), ["x"]),
    ],
)
def test_a_damaged_plan_is_refused(tmp_path: Path, path: tuple[Any, ...], value: Any) -> None:
    plan = copy.deepcopy(plan_of(given(1)))
    node: Any = plan
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(BadInput, match="damaged"):
        drift.load(saved(tmp_path, plan))


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(BadInput, match="cannot be read|no file"):
            drift.load(str(path))


def test_another_vcenter_is_refused() -> None:
    other = plan_of(given(1))
    other["vcenter"] = {"instance": "cccc"}
    with pytest.raises(BadInput, match="another vCenter"):
        drift.compare(plan_of(given(1)), other)


@pytest.mark.parametrize(
    ("now", "field"),
    [
        ({"disks": [disk(gib=41)]}, "disk"),
        ({"disks": [disk(), disk(2001)]}, "disk"),
        ({"disks": [disk(datastore="ds2")]}, "datastore"),
        ({"disks": [disk(datastore_type="vsan")]}, "transport"),
        ({"host": "esx2"}, "esxi"),
        ({"power": "off"}, "power"),
        ({"nics": [{"network": "backend"}]}, "networks"),
        ({"instance_uuid": "other"}, "vm"),
    ],
)
def test_what_has_drifted_at_the_source(now: dict[str, Any], field: str) -> None:
    assert field in fields(given(1), given(1, **now))
    assert fields(given(1), given(1)) == [] and fields(given(1, **now), given(1, **now)) == []


def test_what_has_drifted_at_the_target_and_in_what_was_asked_for() -> None:
    one = given(1)
    assert fields(one, changed(one, flavor={"name": "m1.large"})) == ["flavor"]
    assert fields(one, changed(one, ports=[{**one.entry["ports"][0], "network_id": "other"}])) == ["ports"]
    assert fields(one, changed(one, volumes=[{**one.entry["volumes"][0], "type": "hdd"}])) == ["volume"]
    assert fields(one, given(1, terms=Terms(strategy="warm"))) == ["strategy"]
    assert fields(one, given(1, terms=Terms(machine="mover2"))) == ["conversion_host"]


def test_a_disk_that_is_gone_is_said_with_its_size() -> None:
    (found,) = drift.compare(plan_of(given(1, disks=[disk(), disk(2001)])), plan_of(given(1)))
    assert found.text == "vm0001: Hard disk 2 (40.0 GiB) is gone"


def test_machines_that_are_gone_or_new() -> None:
    found = drift.compare(plan_of(given(1), given(2)), plan_of(given(2), given(3)))
    assert [(d.vm, d.now) for d in found] == [("vm0001", "gone"), ("vm0003", "new")]


def test_what_is_critical_and_new() -> None:
    def checked(*concerns: dict[str, Any]) -> dict[str, Any]:
        return plan_of(given(1), precheck={"vms": [{"moref": "vm-1", "concerns": concerns}], "wave_concerns": concerns})

    found = drift.compare(checked(), checked(CONCERN))
    assert [(d.vm, d.field, d.now) for d in found] == [("vm0001", "concern", "ferry.x"), (None, "concern", "ferry.x")]
    assert drift.compare(checked(CONCERN), checked({**CONCERN, "assessment": "another figure"})) == []
    assert drift.compare(checked(CONCERN), checked()) == []
    assert drift.compare(checked(), checked({**CONCERN, "category": "warning"})) == []


def test_what_our_own_steps_have_changed_is_no_drift() -> None:
    under_way = given(1, power="off", custom_attributes={"ferry.state": "copying"})
    assert fields(given(1), under_way) == []
    done = changed(under_way, to_copy=[], volumes=[{**under_way.entry["volumes"][0], "id": "v", "state": "complete"}])
    assert fields(given(1), done) == []


def test_all_is_told_at_once() -> None:
    found = fields(given(1), given(1, host="esx2", power="off", disks=[disk(gib=50)], nics=[]))
    assert {"esxi", "power", "disk", "networks", "volume"} <= set(found)


def test_names_are_printable_and_bounded() -> None:
    found = drift.compare(plan_of(given(1)), plan_of(given(1, host="\x1b[2J" + "x" * 5000)))
    assert "\x1b" not in found[0].text and len(found[0].text) <= 400


def test_a_plan_that_is_older_than_the_inventory(tmp_path: Path) -> None:
    plan = plan_of(given(1))
    inventory = tmp_path / "hosts"
    (inventory / "group_vars").mkdir(parents=True)
    for name in ("a.yml", "group_vars/all.yml"):
        (inventory / name).write_text("x")
        os.utime(inventory / name, (NOW.timestamp() - 60,) * 2)
    assert drift.newer_sources(plan, [str(inventory), "localhost,", str(tmp_path / "absent")]) == []
    os.utime(inventory / "group_vars" / "all.yml", (NOW.timestamp() + 60,) * 2)
    assert drift.newer_sources(plan, [str(inventory), "localhost,"]) == [str(inventory)]


def test_a_job_s_own_inventory_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ansible-runner and AWX write it anew for each job."""
    plan = plan_of(given(1))
    for name in ("inventory/hosts", "inventoryx/hosts"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (NOW.timestamp() + 60,) * 2)
    monkeypatch.setenv("AWX_ISOLATED_DATA_DIR", str(tmp_path / "artifacts" / "4711"))
    other = str(tmp_path / "inventoryx")
    assert drift.newer_sources(plan, [str(tmp_path / "inventory" / "hosts"), other, "localhost,"]) == [other]


def test_a_slice_misses_nobody() -> None:
    whole, part = plan_of(given(1), given(2)), plan_of(given(2), given(3))
    assert [(d.vm, d.now) for d in drift.compare(whole, part, part=True)] == [("vm0003", "new")]
