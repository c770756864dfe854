# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What conditions and pipelines say."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import state


def thing(*conditions: tuple[str, str], generation: int = 1, seen: int = 1, **status: Any) -> dict[str, Any]:
    told = [{"type": t, "status": "True", "category": c, "message": f"{t} it is"} for t, c in conditions]
    return {
        "kind": "Provider",
        "metadata": {"generation": generation},
        "status": {"observedGeneration": seen, "conditions": told, **status},
    }


def test_ready_is_what_the_newest_generation_says() -> None:
    assert state.readiness(thing(("Ready", "Required"))) == {
        "ready": True,
        "blocked": False,
        "ended": True,
        "reasons": [],
        "conditions": ["Ready"],
    }
    assert state.readiness(thing(("Ready", "Required"), generation=2))["ended"] is False
    assert state.readiness({})["ended"] is False


def test_a_critical_condition_blocks_although_it_is_ready() -> None:
    found = state.readiness(thing(("Ready", "Required"), ("VMNotFound", "Critical"), ("NameNotValid", "Warn")))
    assert (found["ready"], found["blocked"]) == (False, True)
    assert found["reasons"] == ["VMNotFound: VMNotFound it is"]


def test_how_an_earlier_run_ended_blocks_nothing() -> None:
    assert state.readiness(thing(("Ready", "Required"), ("Failed", "Error")))["ready"] is True


def test_a_provider_may_say_it_by_its_phase() -> None:
    assert state.readiness(thing(phase="ConnectionFailed"))["reasons"] == ["its phase is ConnectionFailed"]


def vm(name: str, *ends: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "phase": "x", "pipeline": [], "conditions": [{"type": e, "status": "True"} for e in ends], **more}


def test_reasons_are_dug_out_of_tasks() -> None:
    error = {"phase": "CopyDisks", "reasons": ["no space"]}
    pipeline = [
        {"name": "Initialize", "phase": "Completed"},
        {
            "name": "DiskTransfer",
            "phase": "Completed",
            "annotations": {"unit": "MB"},
            "progress": {"completed": 5, "total": 10},
            "tasks": [{"name": "disk 1", "progress": {"completed": 5, "total": 10}, "error": error}],
        },
    ]
    row = state.vm_row(vm("vm-1", "Failed", pipeline=pipeline, error={"phase": "x", "reasons": ["no space", "and the wind"]}))
    assert row["reasons"] == ["DiskTransfer: no space", "and the wind"]
    assert (row["done"], row["total"]) == (5 << 20, 10 << 20)
    assert state.line(row) == "vm-1: failed, 50% of 0.0 GiB: DiskTransfer: no space; and the wind"


@pytest.mark.parametrize(
    ("conditions", "vms", "expected"),
    [
        ((), [], "pending"),
        ((("Running", "Advisory"),), [vm("a")], "running"),
        ((("Running", "Advisory"),), [vm("a", phase="CopyingPaused", warm={"successes": 2})], "precopied"),
        ((("Running", "Advisory"),), [vm("a", phase="CopyingPaused", warm={"successes": 2}), vm("b")], "running"),
        ((("Running", "Advisory"),), [vm("a", phase="CopyingPaused", warm={"successes": 2}), vm("b", "Failed")], "precopied"),
        ((("Failed", "Error"),), [vm("a", "Failed")], "failed"),
        ((("PlanNotReady", "Critical"),), [], "blocked"),
    ],
)
def test_the_state_of_a_migration(conditions: tuple[tuple[str, str], ...], vms: list[dict[str, Any]], expected: str) -> None:
    assert state.migration({}, thing(*conditions, vms=vms))["state"] == expected


def test_times() -> None:
    assert state.time("2026-11-22T02:00:00+09:00") == "2026-11-21T17:00:00Z"
    assert state.time("2026-11-22T02:00:00Z") == "2026-11-22T02:00:00Z"
    assert state.time("on_demand") == state.time("") == ""
    assert state.time("now").endswith("Z")
    with pytest.raises(ValueError):
        state.time("tomorrow")
