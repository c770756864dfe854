# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A datastore of the lab's vCloud Director emptied: in storms, with failures, within limits; nothing moved twice."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import client, evacuate, relocate, tasks

from .vcloud_env import Quick, control, fault, params, requests_of, switch, vm
from .vcloud_evacuation import ON_SOURCE, SOURCE, TARGETS, all_vms, go, lab, moved_once, on, refused, session

__all__ = ["lab", "session"]


# -- all of it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.5", "5.1", "33.0", "38.1", "39.1"])
def test_a_datastore_is_emptied(tmp_path: Path, version: str) -> None:
    with Quick(api_version=version) as session:
        result = go(session, tmp_path)
        assert (result["changed"], result["empty"], result["left"], result["failed"]) == (True, True, [], [])
        assert len(result["plan"]) == len(result["moved"]) == ON_SOURCE
        assert result["moved"][0]["vm"] == result["plan"][0]["vm"]
        assert result["plan"][0]["wave"] == 0
        assert {row["to"] for row in result["plan"]} == set(TARGETS)
        again = go(session, tmp_path)
        assert (again["changed"], again["empty"], again["plan"], again["moved"]) == (False, True, [], [])
    assert on(SOURCE) == set()
    assert moved_once()
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


def test_chains_templates_and_shadow_vms(session: Quick, tmp_path: Path) -> None:
    before = control("GET", "/state")
    result = go(session, tmp_path, datastore="datastore-41", max_per_target=8)
    chain = {row["to"] for row in result["plan"] if row["chain"] == "acme/centos-6"}
    assert len(chain) == 1
    assert len([row for row in result["plan"] if row["chain"] == "acme/centos-6"]) == 28
    order = [row["vm"] for row in result["moved"]]
    assert order.index("centos-6") < order.index("app01") < order.index("web-clone")
    assert [row["vm"] for row in result["plan"] if row["is_template"]] == ["centos-6", "win2008"]
    # the independent disks stay, and are told
    assert {(row["kind"], row["name"]) for row in result["left"]} == {("disk", "shared-data"), ("disk", "spare")}
    assert not result["empty"]
    assert on("Production-1") == set()
    used = [sum(d["used_mb"] for d in state["datastores"]) for state in (before, control("GET", "/state"))]
    # nothing was copied twice: the base went along, and no shadow VM was left
    assert used[1] <= used[0]


def test_a_base_that_lives_elsewhere_is_counted_once(session: Quick, tmp_path: Path) -> None:
    with_base = vm("centos-6")
    relocate.relocate_one(
        session,
        relocate.read(session, f"/api/vAppTemplate/vm-{with_base['id']}"),
        next(d for d in evacuate.list_datastores(session) if d.name == "Development-2"),
    )
    plan = go(session, tmp_path, datastore="datastore-41", targets=["Production-2"], check=True)["plan"]
    along = [row for row in plan if "copied along" in row["why"]]
    assert len(along) == 1
    assert along[0]["mb"] == 2 * 20480


def test_check_mode_plans_and_changes_nothing(session: Quick, tmp_path: Path) -> None:
    plan = go(session, tmp_path, check=True)
    assert (plan["changed"], plan["empty"], plan["moved"]) == (True, False, [])
    assert [row["why"] for row in plan["plan"] if row["vm"] == "two-disks"] == ["51200 MB from other datastores"]
    assert plan == go(session, tmp_path, check=True)
    assert requests_of("POST /api/vApp") == 0
    assert not (tmp_path / "journal").exists()


def test_a_single_disk_on_the_source_is_found(session: Quick, tmp_path: Path) -> None:
    result = go(session, tmp_path, datastore="Development-2", targets=["Production-2"])
    assert [row["vm"] for row in result["moved"]] == ["two-disks"]
    assert result["empty"]
    assert set(vm("two-disks")["disks"]) == {"Production-2"}


# -- a server in trouble ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "minor"), [(400, "BUSY_ENTITY"), (400, "OPERATION_LIMITS_EXCEEDED"), (503, "DOWN"), (429, "TOO_MANY")])
def test_a_storm_of_refusals(session: Quick, tmp_path: Path, status: int, minor: str) -> None:
    fault("status", status=status, minor=minor, match="action/relocate", times=6, after=3)
    assert go(session, tmp_path)["empty"]
    assert moved_once()


def test_a_short_queue(session: Quick, tmp_path: Path) -> None:
    switch(max_operations=2)
    assert go(session, tmp_path)["empty"]
    assert moved_once()


def test_one_at_a_time_of_a_vapp(session: Quick, tmp_path: Path) -> None:
    switch(busy_vapp=True)
    assert go(session, tmp_path)["empty"]
    assert moved_once()


def test_a_machine_that_stays_busy(session: Quick, tmp_path: Path) -> None:
    one = vm("test05")
    fault("status", status=400, minor="BUSY_ENTITY", match=f"vm-{one['id']}/action/relocate", times=0)
    result = go(session, tmp_path, busy_timeout=1.0)
    assert [(row["name"], row["kind"]) for row in result["left"]] == [("test05", "vm")]
    assert "BUSY_ENTITY" in result["left"][0]["reason"]
    assert (len(result["moved"]), result["failed"], result["empty"]) == (ON_SOURCE - 1, [], False)


@pytest.mark.parametrize("kind", ["lost_answer", "drop", "cut"])
def test_lost_answers(session: Quick, tmp_path: Path, kind: str) -> None:
    fault(kind, match="action/relocate", times=2, after=1)
    assert go(session, tmp_path)["empty"]
    assert moved_once()


def test_the_session_expires_while_it_waits(session: Quick, tmp_path: Path) -> None:
    switch(task_seconds=0.4)
    for after in (2, 9, 14):
        fault("expire", match="adminTask", after=after)
    fault("expire", match="action/relocate", after=4)
    assert go(session, tmp_path)["empty"]
    assert session.generation > 2
    assert moved_once()


def test_a_lying_total(session: Quick, tmp_path: Path) -> None:
    fault("total", match="type=adminVM", times=0)
    assert refused(session, tmp_path).code == "paging"
    assert requests_of("POST /api/vApp") == 0
    control("DELETE", "/faults")
    # while it runs it is trouble that passes
    fault("total", match="adminTask", times=5, after=6)
    assert go(session, tmp_path)["empty"]
    assert moved_once()


def test_the_server_hiccups_while_it_waits(session: Quick, tmp_path: Path) -> None:
    for kind in ("drop", "html", "cut"):
        fault(kind, match="adminTask", times=3, after=5)
    fault("drop", match="type=datastore", times=2, after=2)
    assert go(session, tmp_path)["empty"]
    assert moved_once()


def test_tasks_that_fail(session: Quick, tmp_path: Path) -> None:
    fault("task_fail", match="test07", minor="INTERNAL_SERVER_ERROR", message="The host went away.")
    e = refused(session, tmp_path)
    assert e.code == "evacuation_failed"
    assert [(row["vm"], row["code"]) for row in e.partial["failed"]] == [("test07", "task")]
    assert len(e.partial["moved"]) == ON_SOURCE - 1
    assert [row["name"] for row in e.partial["left"]] == ["test07"]
    assert "The host went away" in e.partial["left"][0]["reason"]
    assert go(session, tmp_path)["empty"]


def test_it_stops_after_so_many_failures(session: Quick, tmp_path: Path) -> None:
    switch(task_seconds=0.3)
    fault("task_fail", match="test", times=0)
    e = refused(session, tmp_path, stop_after_failures=2, canary=["db01"], max_per_target=1, targets=["Production-2"])
    assert (e.code, len(e.partial["failed"])) == ("evacuation_failed", 2)
    assert "no more were begun" in e.message
    assert sum(v["relocations"] for v in all_vms()) < ON_SOURCE
    assert control("GET", "/state")["tasks"]["running"] == 0
    assert any("not begun" in row["reason"] for row in e.partial["left"])


def test_a_canary_that_fails_stops_all(session: Quick, tmp_path: Path) -> None:
    fault("task_fail", match="test03")
    e = refused(session, tmp_path, canary=["test03", "db01"])
    assert e.code == "canary_failed"
    assert {v["name"] for v in all_vms() if v["relocations"]} == {"test03", "db01"}
    assert any("canary was not moved" in row["reason"] for row in e.partial["left"])
    result = go(session, tmp_path, canary=["test03", "db01"])
    assert [row["vm"] for row in result["plan"] if row["wave"] == 0] == ["test03"]
    assert result["empty"]


def test_the_cell_restarts(session: Quick, tmp_path: Path) -> None:
    switch(task_seconds=0.5)

    def restart() -> None:
        while control("GET", "/state")["tasks"]["running"] < 2:  # the canary is alone
            time.sleep(0.02)
        control("POST", "/abort")

    cell = threading.Thread(target=restart, daemon=True)
    cell.start()
    e = refused(session, tmp_path, stop_after_failures=0)
    cell.join(10)
    assert e.partial["failed"][0]["code"] == "task"
    switch(task_seconds=0.1)
    assert go(session, tmp_path)["empty"]


def test_somebody_elses_relocation_is_joined(session: Quick, tmp_path: Path) -> None:
    switch(task_seconds=1.0)
    target = next(d for d in evacuate.list_datastores(session) if d.name == "Production-2")
    begun = relocate.begin(session, relocate.read(session, f"/api/vApp/vm-{vm('test09')['id']}"), target)
    assert begun.task is not None
    switch(task_seconds=0.1)
    result = go(session, tmp_path)
    assert result["empty"]
    row = next(r for r in result["moved"] if r["vm"] == "test09")
    assert (row["joined"], row["task"]) == (True, begun.task.href)
    assert moved_once()


# -- limits, room and window ------------------------------------------------------------------------------------------


def most_at_once(session: Quick, folder: Path, **more: Any) -> int:
    """The most relocations that were under way at a time."""
    seen, over = [0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            state = control("GET", "/state")["tasks"]
            seen.append(state["running"] + state["queued"])
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        go(session, folder, **more)
    finally:
        over.set()
        watcher.join()
    return max(seen)


def test_no_more_at_a_time_than_allowed(session: Quick, tmp_path: Path) -> None:
    switch(task_seconds=0.4)
    assert most_at_once(session, tmp_path, max_per_target=2, max_per_source=3) == 3


def test_a_target_is_never_filled_up(session: Quick, tmp_path: Path) -> None:
    control("POST", "/datastore", name="Development-2", vcenter="vc1", free_mb=70 * 1024)
    result = go(session, tmp_path, targets=["Development-2"], reserve_percent=1.0)
    state = next(d for d in control("GET", "/state")["datastores"] if d["name"] == "Development-2")
    assert state["total_mb"] - state["used_mb"] >= state["total_mb"] // 100
    assert result["moved"]
    assert not result["failed"]


def test_full_targets_are_told(session: Quick, tmp_path: Path) -> None:
    result = go(session, tmp_path, targets=["small-1"], reserve_percent=0.0, canary=["0"])
    assert not result["empty"]
    assert all("no room" in row["reason"] for row in result["left"])
    assert all(row["to"] is None or row["mb"] <= 12 * 1024 for row in result["plan"])


def test_a_target_that_is_disabled_meanwhile(session: Quick, tmp_path: Path) -> None:
    switch(task_seconds=0.6)
    timer = threading.Timer(1.0, lambda: control("POST", "/datastore", name="Development-2", vcenter="vc1", enabled=False))
    timer.start()
    try:
        go(session, tmp_path, max_per_target=1, stop_after_failures=0)
    except FerryError as e:
        assert all(f["to"] == "Development-2" for f in e.partial["failed"])  # noqa: PT017 - either is right, by when it was noticed
    timer.join()
    assert "Development-2" in {v["datastore"] for v in all_vms()}


def test_nothing_is_begun_that_would_not_end_in_the_window(session: Quick, tmp_path: Path) -> None:
    switch(task_seconds=0.6)
    result = go(session, tmp_path, window={"duration": "3s"}, max_per_target=1)
    # one at a time, 0.6 s each: the window is over long before all of them
    assert result["left"]
    assert result["moved"]
    assert not result["failed"]
    assert result["left"]
    assert all("window" in row["reason"] for row in result["left"])
    assert control("GET", "/state")["tasks"]["running"] == 0
    switch(task_seconds=0.1)
    assert go(session, tmp_path)["empty"]
    assert moved_once()


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ({"targets": ["retired-1"]}, "target_disabled", "disabled"),
        ({"targets": ["removed-1"]}, "target_deleted", "deleted"),
        ({"targets": ["保管庫-1"]}, "target_foreign", "another vCenter"),
        ({"targets": [SOURCE]}, "target_is_source", "onto itself"),
        ({"targets": ["Production-2", "Production-2"]}, "bad_input", "twice"),
        ({"targets": ["nowhere"]}, "bad_input", "no datastore nowhere"),
        ({"targets": ["small-1"], "reserve_percent": 70.0}, "target_full", "full"),
        ({"targets": []}, "bad_input", "no target"),
        ({"datastore": "nowhere"}, "bad_input", "no datastore nowhere"),
        ({"datastore": "Production-1"}, "bad_input", "2 datastores"),
        ({"canary": ["nobody"]}, "bad_input", "No VMs"),
        ({"max_per_target": 0, "max_per_host": 0}, "bad_input", "max_per_host is from 1"),
        ({"window": {"end": "2026-01-01T00:00:00"}}, "window_past", "over already"),
        ({"window": {"end": "soon"}}, "bad_input", "no time"),
    ],
)
def test_bad_input(session: Quick, tmp_path: Path, more: dict[str, Any], code: str, said: str) -> None:
    e = refused(session, tmp_path, **more)
    assert e.code == code
    assert said in str(e)
    assert requests_of("POST /api/vApp") == 0


def test_journals_that_are_not_ours(session: Quick, tmp_path: Path) -> None:
    assert go(session, tmp_path, datastore="Development-2", targets=["Production-2"])["empty"]
    before = (tmp_path / "journal").read_bytes()
    assert refused(session, tmp_path).code == "journal_foreign"
    assert refused(session, tmp_path, check=True).code == "journal_foreign"
    bad = bytearray(before)
    bad[len(bad) // 2] ^= 1
    (tmp_path / "journal").write_bytes(bad)
    e = refused(session, tmp_path, datastore="Development-2", targets=["Production-2"])
    assert e.code == "journal_damaged"
    assert "line" in e.message
    assert (tmp_path / "journal").read_bytes() == bad
    (tmp_path / "journal").write_text("hosts: all\n")
    assert refused(session, tmp_path).code == "journal_foreign"
    assert (tmp_path / "journal").read_text() == "hosts: all\n"


def test_two_runs_at_once(session: Quick, tmp_path: Path) -> None:
    switch(task_seconds=0.5)
    first = threading.Thread(target=go, args=(session, tmp_path))
    first.start()
    # it holds the journal once something is under way
    while not control("GET", "/state")["tasks"]["running"]:
        assert first.is_alive()
    with Quick() as other:
        assert refused(other, tmp_path).code == "journal_busy"
        assert go(other, tmp_path, check=True)["plan"]
    first.join()
    assert moved_once()
    assert on(SOURCE) == set()


def test_only_for_system_administrators() -> None:
    with pytest.raises(FerryError) as e, client.administrator(params(username="orgadmin", auth_org="acme")):
        pass
    assert e.value.code == "not_system_administrator"
    with pytest.raises(FerryError) as e, client.administrator(params(auth_org="nowhere")):
        pass
    assert e.value.code == "login"


def test_an_api_without_relocate(tmp_path: Path) -> None:
    switch(versions=["39.0", "39.1"])
    with Quick() as session:
        assert refused(session, tmp_path).code == "relocate_gone"
    assert not (tmp_path / "journal").exists()


def test_tasks_are_looked_at_with_few_requests(session: Quick, tmp_path: Path) -> None:
    switch(task_seconds=1.0)
    go(session, tmp_path, max_per_target=8)
    asked = sum(n for name, n in control("GET", "/stats")["requests"].items() if "/api/task/" in name)
    assert asked <= 3 * ON_SOURCE
    assert tasks.RELOCATE == "vappRelocateVm"
