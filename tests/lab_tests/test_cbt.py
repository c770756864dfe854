# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules vm_cbt and vm_cbt_changed_areas on a vCenter of their own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.changes import ChangeId
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import (
    area_query,
    cbt,
    changes,
    client,
    find,
    snapshots,
)
from tests.lab.vcenter import VCenter

from .cbt_lab import (
    COLLECTIONS,
    KIB64,
    MIXED,
    OFF,
    TWO,
    methods,
    params,
    run_module,
    session,
    switches,
    two,
    vcenter,
    write,
)
from .vcenter_lab import MIB, Client

__all__ = ["params", "session", "vcenter"]


# -- switching it ---------------------------------------------------------------------------------------------------


def test_tracking_is_switched_on_and_off_with_a_stun(vcenter: VCenter, session: client.Session, params: dict[str, Any]) -> None:
    predicted = run_module("vm_cbt", params, vm=TWO, check=True, diff=True)
    assert (predicted["changed"], predicted["stunned"], [d["enabled"] for d in predicted["disks"]]) == (True, True, [True, True])
    assert predicted["diff"]["before"] == {"tracked": {"Hard disk 1": False, "Hard disk 2": False}}
    assert not cbt.read(session, find.find_vm(session, TWO)).enabled
    vcenter.clear()
    done = run_module("vm_cbt", params, vm=TWO, diff=True)
    assert (done["changed"], done["stunned"], done["diff"]) == (True, True, predicted["diff"])
    assert [(d["key"], d["label"], d["address"], d["enabled"]) for d in done["disks"]] == [
        (2000, "Hard disk 1", "scsi0:0", True),
        (2016, "Hard disk 2", "scsi1:0", True),
    ]
    assert all(ChangeId.parse(d["change_id"]) for d in done["disks"])
    asked = methods(vcenter)
    assert (asked["CreateSnapshot_Task"], asked["RemoveSnapshot_Task"], asked["ReconfigVM_Task"]) == (1, 1, 1)
    assert snapshots.every(session, find.find_vm(session, TWO)) == []
    vcenter.clear()
    again = run_module("vm_cbt", params, vm=TWO)
    assert (again["changed"], again["disks"]) == (False, done["disks"])
    assert not {"CreateSnapshot_Task", "ReconfigVM_Task"} & set(methods(vcenter))
    off = run_module("vm_cbt", params, vm=TWO, state="disabled")
    assert (off["changed"], [(d["enabled"], d["change_id"]) for d in off["disks"]]) == (True, [(False, None)] * 2)
    assert run_module("vm_cbt", params, vm=TWO, state="disabled")["changed"] is False


def test_one_disk_alone_and_then_the_other(session: client.Session) -> None:
    vm = find.find_vm(session, TWO)
    first = cbt.apply(session, vm, enable=True, disks=["scsi1:0"])
    assert (first["changed"], first["after"]) == (True, {"Hard disk 1": False, "Hard disk 2": True})
    facts = cbt.read(session, vm)
    assert [(facts.configured(d), d.change_id is not None) for d in facts.disks] == [(False, False), (True, True)]
    assert cbt.apply(session, vm, enable=True, disks=["Hard disk 2"])["changed"] is False
    assert cbt.apply(session, vm, enable=True, disks=["2000"])["changed"] is True
    assert cbt.apply(session, vm, enable=True)["changed"] is False
    cbt.apply(session, vm, enable=False, disks=["2016"])
    facts = cbt.read(session, vm)
    assert (facts.enabled, [facts.configured(d) for d in facts.disks]) == (True, [True, False])
    cbt.apply(session, vm, enable=False, disks=["2000"])
    assert cbt.read(session, vm).enabled is False


def test_a_vm_that_is_off_needs_no_stun(vcenter: VCenter, session: client.Session) -> None:
    vm = find.find_vm(session, OFF)
    vcenter.clear()
    result = cbt.apply(session, vm, enable=True)
    assert (result["changed"], result["stunned"]) == (True, False)
    assert "CreateSnapshot_Task" not in methods(vcenter)
    assert cbt.apply(session, vm, enable=True)["changed"] is False


def test_disks_that_cannot_be_tracked_are_named(session: client.Session, params: dict[str, Any]) -> None:
    result = run_module("vm_cbt", params, vm=MIXED)
    assert (result["failed"], result["failure"]["code"]) == (True, "not_trackable")
    reasons = {d["label"]: d["reason"] for d in result["failure"]["details"]["disks"]}
    assert "independent" in reasons["Hard disk 2"]
    assert "physical" in reasons["Hard disk 3"]
    assert len(reasons) == 2
    assert run_module("vm_cbt", params, vm=MIXED, disks=["Hard disk 1"])["changed"] is True


def test_a_vm_with_snapshots_is_refused(vcenter: VCenter, session: client.Session, params: dict[str, Any]) -> None:
    vm = find.find_vm(session, TWO)
    with contextlib.closing(Client(vcenter)) as plain:
        plain.snapshot(plain.vm(TWO), "更新の前")
    with pytest.raises(BadInput, match="更新の前") as e:
        cbt.apply(session, vm, enable=True)
    assert e.value.code == "has_snapshots"
    assert not cbt.read(session, vm).enabled


def test_switched_on_by_hand_without_a_stun_it_is_made_to_take_effect(vcenter: VCenter, session: client.Session) -> None:
    vm = find.find_vm(session, TWO)
    with contextlib.closing(Client(vcenter)) as plain:
        plain.wait(plain.vm(TWO).ReconfigVM_Task(session.vim.vm.ConfigSpec(changeTrackingEnabled=True)))
    result = cbt.apply(session, vm, enable=True)
    assert (result["changed"], result["stunned"]) == (True, True)
    assert all(d["change_id"] for d in result["disks"])
    assert cbt.apply(session, vm, enable=True)["changed"] is False


@pytest.mark.fault(
    "the stun's snapshot cannot be taken, or not be removed",
    where="tracking",
    ends="error that says what is left; the next run removes it and makes tracking take effect",
)
@pytest.mark.parametrize("fault", ["snapshot_create_fail", "snapshot_remove_fail"])
def test_a_stun_that_fails_is_made_good_by_the_next_run(
    vcenter: VCenter, session: client.Session, params: dict[str, Any], fault: str
) -> None:
    vcenter.fault(fault, match=TWO)
    failed = run_module("vm_cbt", params, vm=TWO)["failure"]
    assert (failed["vm"], failed["details"]["fault"]) == (TWO, "SnapshotFault")
    assert failed["left"]
    assert failed["next_command"]
    vcenter.clear()
    result = run_module("vm_cbt", params, vm=TWO)
    assert result["changed"] is True
    assert all(d["change_id"] for d in result["disks"])
    assert snapshots.every(session, find.find_vm(session, TWO)) == []
    assert run_module("vm_cbt", params, vm=TWO)["changed"] is False


# -- kills ----------------------------------------------------------------------------------------------------------

VICTIM = """
import os, runpy, signal, sys
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import snapshot_removal, snapshots, tasks
name, point = sys.argv[1:]
del sys.argv[1:]
def die(*args, **more):
    os.kill(os.getpid(), signal.SIGKILL)
if point == "before removal":
    snapshots.remove = die
elif point == "while it is taken":
    snapshots.wait_task = die
elif point == "while it is removed":
    snapshot_removal.wait_task = die
runpy.run_module(f"ansible_collections.ferry.vmware.plugins.modules.{name}", run_name="__main__")
"""


def killed(name: str, point: str, params: dict[str, Any], **options: Any) -> None:
    """The module, killed by SIGKILL at that point."""
    done = subprocess.run(
        [sys.executable, "-c", VICTIM, name, point],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**params, **options}}),
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -9, done.stdout + done.stderr


@pytest.mark.fault(
    "SIGKILL of vm_cbt while its snapshot is taken, there, or removed",
    where="tracking",
    ends="the next run removes it, and its consolidation is waited for",
)
@pytest.mark.parametrize("point", ["while it is taken", "before removal", "while it is removed"])
def test_a_killed_stun_is_cleaned_up_by_the_next_run(vcenter: VCenter, session: client.Session, params: dict[str, Any], point: str) -> None:
    vm = find.find_vm(session, TWO)
    switches(vcenter, snapshot_seconds=0.5, consolidate_seconds=1)
    killed("vm_cbt", point, params, vm=TWO)
    done = run_module("vm_cbt", params, vm=TWO)
    assert all(d["change_id"] for d in done["disks"]), done
    assert snapshots.every(session, vm) == []
    assert not snapshots.needs_consolidation(session, vm)
    assert run_module("vm_cbt", params, vm=TWO)["changed"] is False


@pytest.mark.fault(
    "SIGKILL of vm_cbt_changed_areas while its snapshot is there, or removed",
    where="tracking",
    ends="the next run removes it; the user's snapshots stay",
)
@pytest.mark.parametrize("point", ["while it is taken", "before removal", "while it is removed"])
def test_a_killed_query_is_cleaned_up_by_the_next_one(
    vcenter: VCenter, session: client.Session, params: dict[str, Any], point: str
) -> None:
    vm = two(session)
    with contextlib.closing(Client(vcenter)) as plain:
        theirs = plain.snapshot(plain.vm(TWO), "theirs")
    switches(vcenter, snapshot_seconds=0.5, consolidate_seconds=1)
    killed("vm_cbt_changed_areas", point, params, vm=TWO)
    planned = run_module("vm_cbt_changed_areas", params, vm=TWO, check=True)
    done = run_module("vm_cbt_changed_areas", params, vm=TWO)
    assert planned["removed_snapshots"] in ([], done["removed_snapshots"])
    assert [s.moref for s in snapshots.every(session, vm)] == [theirs._moId]


def test_a_snapshot_of_a_living_run_is_left_alone(session: client.Session) -> None:
    vm = two(session)
    with snapshots.taken(session, vm, purpose="areas") as mine:
        assert snapshots.left_behind(session, vm, purposes=["areas"]) == []
        assert [s.moref for s in snapshots.ours(session, vm)] == [mine.moref]
        assert area_query.run(session, vm, area_query.Query())["removed_snapshots"] == []
        assert [s.moref for s in snapshots.every(session, vm)] == [mine.moref]


@pytest.mark.fault("SIGTERM of vm_cbt_changed_areas", where="tracking", ends="the snapshot is removed before the process ends")
def test_a_signal_ends_a_query_without_leaving_its_snapshot(vcenter: VCenter, session: client.Session, params: dict[str, Any]) -> None:
    vm = two(session)
    switches(vcenter, cbt_query_ms=3000)
    command = [sys.executable, "-m", "ansible_collections.ferry.vmware.plugins.modules.vm_cbt_changed_areas"]
    env = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {**params, "vm": TWO}}))
        process.stdin.close()
        while "QueryChangedDiskAreas" not in methods(vcenter):
            assert process.poll() is None
        switches(vcenter)
        process.terminate()
        result = json.loads(process.stdout.read())
    assert result["failure"]["code"] == "interrupted"
    assert snapshots.every(session, vm) == []


# -- asking ---------------------------------------------------------------------------------------------------------


def test_the_flow_in_one_call_and_then_the_changes(vcenter: VCenter, session: client.Session, params: dict[str, Any]) -> None:
    run_module("vm_cbt", params, vm=TWO)
    full = run_module("vm_cbt_changed_areas", params, vm=TWO)
    assert (full["changed"], full["snapshot"]["taken"], full["snapshot"]["kept"]) == (False, True, False)
    assert snapshots.every(session, find.find_vm(session, TWO)) == []
    first, second = full["disks"]
    assert (first["label"], first["capacity"], first["start_offset"], first["length"]) == ("Hard disk 1", 8 * MIB + 1536, 0, 8 * MIB + 1536)
    assert first["areas"][0] == {"start": 0, "length": MIB}
    assert first["changed_bytes"] == sum(a["length"] for a in first["areas"]) < 2 * MIB
    write(vcenter, TWO, 2000, 3 * MIB + 512, b"changed!" * 64)
    write(vcenter, TWO, 2000, 8 * MIB + 1024, b"at end!!" * 64)
    write(vcenter, TWO, 2016, 0, b"elsewher" * 64)
    delta = run_module("vm_cbt_changed_areas", params, vm=TWO, disk="Hard disk 1", change_id=first["change_id"])
    assert delta["disks"][0]["areas"] == [{"start": 3 * MIB, "length": KIB64}, {"start": 8 * MIB, "length": 1536}]
    assert delta["disks"][0]["change_id"] != first["change_id"]
    both = run_module(
        "vm_cbt_changed_areas", params, vm=TWO, change_id={"2000": delta["disks"][0]["change_id"], "scsi1:0": second["change_id"]}
    )
    assert [d["areas"] for d in both["disks"]] == [[], [{"start": 0, "length": KIB64}]]
    later = run_module("vm_cbt_changed_areas", params, vm=TWO, disk="2000", change_id=first["change_id"], start_offset=4 * MIB)
    assert (later["disks"][0]["areas"], later["disks"][0]["length"]) == ([{"start": 8 * MIB, "length": 1536}], 4 * MIB + 1536)


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_answers_in_parts_are_put_together(vcenter: VCenter, session: client.Session, parts: int) -> None:
    vm = two(session)
    start = area_query.run(session, vm, area_query.Query(disk="2000"))["disks"][0]["change_id"]
    offsets = sorted(random.Random(parts).sample(range(128), 20))
    for at in offsets:
        write(vcenter, TWO, 2000, at * KIB64, b"x" * 512)
    query = area_query.Query(disk="2000", change_id=start)
    whole = area_query.run(session, vm, query)["disks"][0]["areas"]
    vcenter.clear()
    switches(vcenter, cbt_parts=parts)
    assert area_query.run(session, vm, query)["disks"][0]["areas"] == whole
    assert methods(vcenter)["QueryChangedDiskAreas"] >= len(whole) // parts
    assert sum(a["length"] for a in whole) == 20 * KIB64


def test_a_user_s_snapshot_is_asked_and_left(vcenter: VCenter, session: client.Session, params: dict[str, Any]) -> None:
    vm = two(session)
    with contextlib.closing(Client(vcenter)) as plain:
        plain.snapshot(plain.vm(TWO), "バックアップ")
    write(vcenter, TWO, 2000, 4 * MIB, b"afterwards" * 512)
    options = {"vm": TWO, "disk": "2000", "snapshot": "バックアップ"}
    before = {s.moref for s in snapshots.every(session, vm)}
    named = run_module("vm_cbt_changed_areas", params, **options)
    assert (named["snapshot"]["name"], named["snapshot"]["taken"], named["snapshot"]["kept"]) == ("バックアップ", False, True)
    assert run_module("vm_cbt_changed_areas", params, check=True, **options)["disks"] == named["disks"]
    delta = run_module("vm_cbt_changed_areas", params, vm=TWO, disk="2000", change_id=named["disks"][0]["change_id"])
    assert delta["disks"][0]["areas"] == [{"start": 4 * MIB, "length": KIB64}]
    assert {s.moref for s in snapshots.every(session, vm)} == before
    with pytest.raises(BadInput, match="バックアップ"):
        area_query.run(session, vm, area_query.Query(snapshot="nobody's"))


def test_check_mode_takes_no_snapshot(vcenter: VCenter, session: client.Session, params: dict[str, Any], tmp_path: Path) -> None:
    two(session)
    vcenter.clear()
    result = run_module("vm_cbt_changed_areas", params, vm=TWO, dest=str(tmp_path / "a"), check=True)
    assert (result["changed"], result["snapshot"], "take a snapshot" in result["would"]) == (False, None, True)
    assert [d["change_id"] for d in result["disks"]] == [None, None]
    assert "CreateSnapshot_Task" not in methods(vcenter)
    assert list(tmp_path.iterdir()) == []
    assert run_module("vm_cbt_changed_areas", params, vm=TWO, keep_snapshot=True, check=True)["changed"] is True


def test_a_kept_snapshot_stays_and_is_nobody_s_leftover(session: client.Session, params: dict[str, Any]) -> None:
    vm = two(session)
    kept = run_module("vm_cbt_changed_areas", params, vm=TWO, keep_snapshot=True, quiesce="auto")
    assert (kept["changed"], kept["snapshot"]["kept"], kept["snapshot"]["quiesced"]) == (True, True, True)
    again = run_module("vm_cbt_changed_areas", params, vm=TWO)
    assert again["removed_snapshots"] == []
    assert [s.moref for s in snapshots.every(session, vm)] == [kept["snapshot"]["moref"]]
    assert snapshots.ours(session, vm) == []
    snapshots.remove(session, snapshots.find(session, vm, kept["snapshot"]["moref"]))


def test_files_of_areas(session: client.Session, params: dict[str, Any], tmp_path: Path) -> None:
    two(session)
    dest = tmp_path / "在庫.areas.jsonl"
    done = run_module("vm_cbt_changed_areas", params, vm=TWO, dest=str(dest))
    assert done["changed"] is True
    files = [tmp_path / "在庫.areas-2000.jsonl", tmp_path / "在庫.areas-2016.jsonl"]
    assert [d["dest"] for d in done["disks"]] == [str(f) for f in files]
    assert sorted(tmp_path.iterdir()) == files
    for file, row in zip(files, done["disks"], strict=True):
        assert [json.loads(line) for line in file.read_text().splitlines()] == row["areas"]
        assert file.stat().st_mode & 0o777 == 0o600
    assert run_module("vm_cbt_changed_areas", params, vm=TWO, dest=str(dest))["changed"] is False
    one = run_module("vm_cbt_changed_areas", params, vm=TWO, disk="2000", dest=str(tmp_path / "x"), dest_format="extentlist")
    assert (tmp_path / "x").read_text() == "".join(f"{a['start']} {a['length']}\n" for a in one["disks"][0]["areas"])


@pytest.mark.fault("changed areas are refused", where="tracking", ends="error; neither snapshot nor file is left")
@pytest.mark.parametrize("name", ["cbt_file_fault", "soap_fault"])
def test_after_a_failure_neither_snapshot_nor_file_is_left(
    vcenter: VCenter, session: client.Session, params: dict[str, Any], tmp_path: Path, name: str
) -> None:
    vm = two(session)
    known = area_query.run(session, vm, area_query.Query(disk="2000"))["disks"][0]["change_id"]
    if name == "cbt_file_fault":
        vcenter.fault(name, match=TWO)
    else:
        vcenter.fault(name, match="QueryChangedDiskAreas", fault="NotSupported", times=0)
    result = run_module("vm_cbt_changed_areas", params, vm=TWO, disk="2000", change_id=known, dest=str(tmp_path / "a"))
    assert result["failed"] is True
    assert (result["failure"]["vm"], result["failure"]["disk"], result["failure"]["code"]) == (TWO, "Hard disk 1", "fault")
    assert snapshots.every(session, vm) == []
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_asked_is_refused_before_a_snapshot(vcenter: VCenter, session: client.Session, tmp_path: Path) -> None:
    vm = find.find_vm(session, TWO)
    with pytest.raises(BadInput) as e:
        area_query.run(session, vm, area_query.Query())
    assert (e.value.code, "vm_cbt" in str(e.value.next_command)) == ("not_tracked", True)
    cbt.apply(session, vm, enable=True)
    vcenter.clear()
    base = area_query.Query(change_id="52 aa/1")
    for query in (
        base,
        replace(base, disk="nothing"),
        replace(base, disk="2000", start=1 << 40),
        replace(base, disk="2000", start=-1),
        replace(base, disk="2000", change_id="yesterday"),
        replace(base, change_id={"2000": "52 aa/1", "scsi0:0": "52 aa/1"}),
        replace(base, disk="2000", dest=str(tmp_path / "no" / "folder")),
        replace(base, disk="2000", dest=str(tmp_path)),
    ):
        with pytest.raises(BadInput):
            area_query.run(session, vm, query)
    assert "CreateSnapshot_Task" not in methods(vcenter)


@pytest.mark.fault(
    "the session expires between two parts of the areas, and during a removal", where="tracking", ends="logged in again: all areas"
)
def test_a_session_that_ends_in_the_middle(vcenter: VCenter, session: client.Session) -> None:
    vm = two(session)
    for at in range(0, 100, 2):
        write(vcenter, TWO, 2000, at * KIB64, b"x" * 512)
    switches(vcenter, cbt_parts=5, snapshot_seconds=0.3)
    snapshot = snapshots.take(session, vm)
    whole = list(changes.changed_areas(session, vm, snapshot, 2000, "*", 8 * MIB + 1536))
    found = []
    for area in changes.changed_areas(session, vm, snapshot, 2000, "*", 8 * MIB + 1536):
        found.append(area)
        if len(found) in (3, 8):
            vcenter.fault("session_expire")
    switches(vcenter, consolidate_seconds=0.5)
    vcenter.fault("session_expire")
    snapshots.remove(session, snapshot)
    assert found == whole
    assert snapshots.every(session, vm) == []
    assert session.generation > 2
