# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vm_disk_copy of VMs that run: read at a snapshot, incremental where changes are tracked, and equal at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy, FerryError, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import cbt
from tests.lab_tests.copy_lab import JAPANESE, Lab, lab_of


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_of(tmp_path_factory.mktemp("lab")) as found:
        yield found


@pytest.fixture(autouse=True)
def fresh(lab: Lab, tmp_path: Path) -> Iterator[None]:
    """Each test has a folder of its own for targets and ledger, and no faults."""
    lab.vcenter.clear()
    lab.folder = tmp_path
    yield
    lab.vcenter.clear()


def test_a_running_vm_is_read_at_its_snapshot_not_live(lab: Lab) -> None:
    """A copy that read the live disk would hold bytes that were written while it ran."""
    lab.track("one")
    seen: dict[str, str] = {}
    over = threading.Event()

    def guest() -> None:
        seed = 100
        while not over.is_set():
            lab.scribble("one", seed, writes=1, end=24 << 20)
            seed += 1
            there = lab.vcenter.snapshots("one")
            if there and "sha" not in seen:
                seen["sha"] = lab.source_sha("one", snapshot=there[0]["moref"])

    thread = threading.Thread(target=guest)
    thread.start()
    try:
        row = lab.row("one", budget={"overall": {"rate": 8}}, workers=2, chunk_size=1 << 20)
    finally:
        over.set()
        thread.join()
    assert row["mode"] == "full"
    assert lab.sha("one") == seen["sha"]
    assert lab.sha("one") != lab.source_sha("one")  # the guest went on
    again = lab.row("one", budget={"overall": {}})
    assert again["mode"] == "incremental"
    assert lab.equal("one")
    assert lab.snapshots("one") == []


def test_cycles_read_what_has_changed_and_no_more(lab: Lab) -> None:
    lab.track("one")
    lab.row("one")
    for cycle, verify in enumerate(("sample", "full", "none", "none", "full", "sample")):
        lab.scribble("one", cycle)
        row = lab.row("one", verify=verify)
        assert row["mode"] == "incremental" and row["reason"] == ""
        assert lab.equal("one")
        assert row["change_id"] and row["changed_bytes"] > 0
        if cycle < 4:  # the fifth proves what was not
            assert row["bytes_read"] <= 1.1 * row["changed_bytes"]
        assert bool(row["digest"]) == (verify != "none")
    row = lab.row("one")
    assert (row["changed"], row["bytes_read"], row["areas"]) == (False, 0, 0)


def test_all_disks_are_of_one_snapshot(lab: Lab) -> None:
    lab.track(JAPANESE)
    found = lab.copy(JAPANESE, (2000, 3001))
    lab.scribble(JAPANESE, 3, disks=(2000, 3001), end=8 << 20)
    rows = lab.copy(JAPANESE, (2000, 3001))["disks"]
    assert [r["mode"] for r in found["disks"]] == ["full", "full"]
    assert [r["mode"] for r in rows] == ["incremental", "incremental"]
    assert lab.equal(JAPANESE, 2000, 3001)
    methods = lab.vcenter.get("/stats")["methods"]
    assert methods.get("CreateSnapshot_Task", 0) + methods.get("CreateSnapshotEx_Task", 0) == 3  # tracking, and one for each copy


@pytest.mark.parametrize("delta", ["redoLogFormat", "seSparseFormat"])
def test_users_snapshots_stay_and_their_deltas_are_read(lab: Lab, delta: str) -> None:
    lab.vcenter.switch("delta_format", delta)
    theirs = [lab.snapshot("large", "before update"), None]
    try:
        lab.scribble("large", 5, end=60 << 20)
        theirs[1] = lab.snapshot("large", "アップデート前")
        lab.scribble("large", 6, end=60 << 20)
        row = lab.row("large", verify="full")
        assert row["mode"] == "full" and row["transport"] == "https"
        assert lab.equal("large")
        assert lab.snapshots("large") == ["before update", "アップデート前"]
    finally:
        for snapshot in theirs:
            if snapshot is not None:
                lab.task(lab.session.managed("VirtualMachineSnapshot", snapshot._moId).RemoveSnapshot_Task(False, True))


def test_the_last_copy_of_a_vm_that_was_shut_down(lab: Lab) -> None:
    lab.track("one")
    lab.row("one")
    lab.scribble("one", 7)
    lab.power("one", False)
    try:
        planned = lab.row("one", check=True)
        assert (planned["mode"], planned["bytes_to_read"], planned["changed"]) == ("incremental", None, True)
        row = lab.row("one", verify="full")
        assert row["mode"] == "incremental" and row["outside_checked"] > 0 and row["outside_wrong"] == 0
        assert lab.equal("one")
        again = lab.row("one")  # needs no snapshot to see that nothing has changed
        assert (again["changed"], again["mode"], again["change_id"]) == (False, "none", row["change_id"])
    finally:
        lab.power("one", True)


@pytest.mark.fault(
    "tracking misses changed areas", where="tracking", ends="the sample outside the areas finds it, the whole disk is compared: equal"
)
def test_missed_changes_are_found_at_the_last_copy(lab: Lab) -> None:
    lab.track("one")
    lab.row("one")
    lab.vcenter.switch("cbt_miss", "every:1", vm="one")
    for start in range(0, 24 << 20, 1 << 20):
        lab.vcenter.write("one", 2000, start, b"missed! " * 64)
    lab.power("one", False)
    try:
        row = lab.row("one")
        assert row["mode"] == "compare" and row["outside_wrong"] > 0
        assert "differ" in row["reason"]
        assert lab.equal("one")
    finally:
        lab.power("one", True)
        lab.vcenter.clear()
    # that tracking is trusted no more, until it is begun anew
    assert lab.row("one")["mode"] == "compare"
    assert lab.equal("one")


@pytest.mark.fault("areas come in parts of few", where="tracking", ends="all parts are asked for: equal")
def test_areas_in_parts(lab: Lab) -> None:
    lab.track("one")
    lab.row("one")
    lab.vcenter.switch("cbt_parts", 3)
    for start in range(0, 24 << 20, 256 << 10):
        lab.vcenter.write("one", 2000, start, b"x" * 512)
    row = lab.row("one")
    assert row["mode"] == "incremental" and row["areas"] > 90
    assert lab.equal("one")


@pytest.mark.fault('"*" is one area of the whole disk, or refused', where="tracking", ends="the whole disk is read: equal")
@pytest.mark.parametrize("switch", ["cbt_star_whole", "cbt_star_fault"])
def test_a_hint_that_is_none(lab: Lab, switch: str) -> None:
    lab.track("one")
    lab.vcenter.switch(switch, 1)
    row = lab.row("one")
    assert row["bytes_read"] == row["capacity"]
    assert lab.equal("one")


@pytest.mark.fault(
    '"*" leaves allocated areas out', where="tracking", ends="a sample of what it leaves out is read: found, compared, equal"
)
def test_a_hint_that_lies(lab: Lab) -> None:
    lab.track("one")
    for start in range(0, 24 << 20, 1 << 20):
        lab.vcenter.write("one", 2000, start, b"data" * 128)
    lab.vcenter.switch("cbt_star_miss", f"0-{24 << 20}")
    row = lab.row("one")
    assert row["mode"] == "compare" and row["outside_wrong"] > 0
    assert lab.equal("one")


def test_of_a_vm_that_is_off_only_what_is_allocated_is_read(lab: Lab) -> None:
    """Without a snapshot: its disks are asked for as they are."""
    lab.track("large")
    lab.power("large", False)
    try:
        row = lab.row("large", mode="full")
        assert row["mode"] == "full" and 0 < row["bytes_read"] < row["capacity"] // 2
        assert row["outside_checked"] > 0 and row["outside_wrong"] == 0
        assert lab.equal("large")
        assert not lab.row("large")["changed"]
    finally:
        lab.power("large", True)


@pytest.mark.fault(
    '"*" leaves allocated areas of a VM out that is off',
    where="tracking",
    ends="a sample of the rest is read: found, compared, and not believed again: equal",
)
def test_a_hint_that_lies_of_a_vm_that_is_off(lab: Lab) -> None:
    lab.track("one")
    for start in range(0, 24 << 20, 1 << 20):
        lab.vcenter.write("one", 2000, start, b"data" * 128)
    lab.vcenter.switch("cbt_star_miss", f"0-{24 << 20}")
    lab.power("one", False)
    try:
        row = lab.row("one")
        assert row["mode"] == "compare" and row["outside_wrong"] > 0
        assert lab.equal("one")
        lab.power("one", True)
        lab.vcenter.write("one", 2000, 3 << 20, b"more" * 128)
        lab.power("one", False)
        row = lab.row("one")
        assert row["bytes_read"] >= row["capacity"]
        assert lab.equal("one")
    finally:
        lab.power("one", True)


@pytest.mark.fault("the VM is reverted to a snapshot between two copies", where="tracking", ends="the whole disk is compared: equal")
@pytest.mark.parametrize("how", ["new", "keep", "lower"])
def test_a_revert(lab: Lab, how: str) -> None:
    """Also where the changeId says nothing of it (keep)."""
    lab.track("large")
    lab.scribble("large", 20)
    snapshot = lab.snapshot("large", "good state")
    try:
        lab.scribble("large", 21)
        lab.row("large")
        lab.vcenter.switch("cbt_revert", how)
        lab.revert(snapshot)
        lab.power("large", True)
        lab.scribble("large", 22, writes=2)
        row = lab.row("large")
        assert row["mode"] == "compare" and row["reason"]
        assert lab.equal("large")
    finally:
        lab.power("large", True)
        lab.task(lab.session.managed("VirtualMachineSnapshot", snapshot._moId).RemoveSnapshot_Task(False, True))


@pytest.mark.fault(
    "QueryChangedDiskAreas answers FileFault", where="tracking", ends="the whole disk is compared, or refused with mode: incremental"
)
def test_areas_that_cannot_be_had(lab: Lab) -> None:
    lab.track("one")
    lab.row("one")
    lab.scribble("one", 30)
    lab.vcenter.fault("soap_fault", match="QueryChangedDiskAreas", fault="FileFault", times=0)
    with pytest.raises(BadInput) as e:
        lab.row("one", mode="incremental")
    assert e.value.code == "not_incremental" and lab.snapshots("one") == []
    row = lab.row("one")
    assert row["mode"] == "compare" and "areas" in row["reason"]
    assert lab.equal("one")


@pytest.mark.fault("changed block tracking is reset", where="tracking", ends="the whole disk is compared: equal")
def test_tracking_that_was_begun_anew(lab: Lab) -> None:
    lab.track("one")
    lab.row("one")
    lab.scribble("one", 31)
    cbt.apply(lab.session, lab.ref("one"), enable=False)
    lab.scribble("one", 32)
    untracked = lab.row("one")
    assert untracked["mode"] == "compare" and untracked["change_id"] is None
    assert lab.equal("one")
    lab.track("one")
    lab.scribble("one", 33)
    assert lab.row("one")["mode"] == "compare"
    lab.scribble("one", 34)
    assert lab.row("one")["mode"] == "incremental"
    assert lab.equal("one")


@pytest.mark.fault(
    "an ESXi build that is known for losing changes (KB 317933)", where="tracking", ends="areas are not used: the whole disk is compared"
)
def test_a_build_that_is_known_to_be_bad(lab: Lab) -> None:
    lab.track("old")
    lab.row("old")
    lab.scribble("old", 40)
    row = lab.row("old")
    assert row["mode"] == "compare" and "317933" in row["reason"]
    assert lab.equal("old")


def test_further_builds_can_be_distrusted(lab: Lab) -> None:
    lab.track("old")
    with pytest.raises(BadInput):
        lab.row("old", bad_builds=["newest"])
    assert lab.snapshots("old") == []


def test_an_independent_disk_is_in_no_snapshot(lab: Lab) -> None:
    with pytest.raises(BadInput) as e:
        lab.copy("odd", (2000, 2001))
    assert e.value.code == "not_in_snapshot" and e.value.disk == "Hard disk 2"
    assert lab.snapshots("odd") == []
    lab.power("odd", False)
    lab.copy("odd", (2000, 2001))
    assert lab.equal("odd", 2000, 2001)
    lab.power("odd", True)


def test_quiescing_and_its_fall_back(lab: Lab) -> None:
    found = lab.copy("toolless")
    assert any("Tools" in r for r in found["remarks"])
    with pytest.raises(BadInput) as e:
        lab.copy("toolless", quiesce="required")
    assert e.value.code == "quiesce" and lab.snapshots("toolless") == []
    assert lab.copy("toolless", quiesce="never")["remarks"] == []


def test_a_named_snapshot_is_read_and_stays(lab: Lab) -> None:
    snapshot = lab.snapshot("one", "nightly")
    try:
        then = lab.source_sha("one")
        lab.scribble("one", 50)
        assert lab.row("one", snapshot="nightly")["mode"] == "full"
        assert lab.sha("one") == then and lab.snapshots("one") == ["nightly"]
        with pytest.raises(BadInput, match="nightly"):
            lab.row("one", snapshot="weekly")
    finally:
        lab.task(lab.session.managed("VirtualMachineSnapshot", snapshot._moId).RemoveSnapshot_Task(False, True))


def test_check_mode_touches_nothing(lab: Lab) -> None:
    lab.vcenter.clear()
    planned = lab.row("one", check=True, budget={"overall": {"rate": 5}})
    assert list(lab.folder.iterdir()) == []
    assert planned["changed"] and planned["bytes_to_read"] == planned["capacity"]
    methods = lab.vcenter.get("/stats")["methods"]
    assert not any("Snapshot" in m for m in methods)
    assert not lab.target("one").exists()
    with pytest.raises(BadInput):
        lab.row("one", check=True, budget={"overall": {"rate": "fast"}})


@pytest.mark.fault(
    "a file of the disk cannot be read", where="source", ends="error; the snapshot is removed all the same; the next run goes on"
)
def test_the_snapshot_goes_when_the_copy_fails(lab: Lab) -> None:
    lab.track("one")
    lab.vcenter.fault("folder_status", match="flat", status=404, times=0)
    with pytest.raises(FerryError) as e:
        lab.row("one")
    assert e.value.disk == "Hard disk 1" and e.value.vm == "one" and lab.snapshots("one") == []
    lab.vcenter.clear()
    assert lab.row("one")["changed"]
    assert lab.equal("one")


@pytest.mark.fault("the snapshot cannot be removed", where="snapshot", ends="the error names it; the next run removes it")
def test_a_snapshot_that_stays_is_named_and_removed_by_the_next_run(lab: Lab) -> None:
    lab.track("one")
    lab.vcenter.fault("soap_fault", match="RemoveSnapshot_Task", fault="NotSupported", times=0)
    with pytest.raises(ServerError) as e:
        lab.row("one")
    (left,) = lab.snapshots("one")
    assert left in str(e.value)
    lab.vcenter.clear()
    assert lab.row("one")["mode"] in ("none", "incremental")
    assert lab.snapshots("one") == [] and lab.equal("one")


def test_a_second_copy_of_the_same_vm_is_refused(lab: Lab) -> None:
    lab.track("large")
    process = lab.start("large", budget={"overall": {"rate": 4}})
    try:
        lab.wait_for(lambda: bool(lab.snapshots("large")), process)
        with pytest.raises(Busy):
            lab.copy("large")
        other: dict[str, Any] = {"disk": "2000", "dest": {"path": str(lab.folder / "other.raw")}, "format": "raw"}
        with pytest.raises(Busy, match="copies disks of this VM"):
            lab.copy("large", disks=[other])
        assert len(lab.snapshots("large")) == 1
    finally:
        lab.kill(process)
    lab.copy("large", budget={"overall": {}})
    assert lab.snapshots("large") == []
