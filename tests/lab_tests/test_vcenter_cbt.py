# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changed block tracking of the lab's vCenter: exact areas, in parts too, and all the ways in which it can be wrong by switch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.lab.vcenter import VCenter
from tests.lab_tests.vcenter_lab import MIB, Client, disks_of, running, warm_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FIRST, SECOND = 2000, 2016
BLOCK = 65536


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[VCenter]:
    with running(tmp_path, warm_model(tmp_path)) as vcenter:
        yield vcenter


@pytest.fixture
def client(lab: VCenter) -> Iterator[Client]:
    one = Client(lab)
    yield one
    one.close()


def change_id(config: Any, key: int = FIRST) -> str | None:
    found: str | None = disks_of(config)[key].backing.changeId
    return found


def switch_on(client: Client, vm: Any, on: bool = True, **disks: str) -> None:
    extra = [vim.option.OptionValue(key=f"{k.replace('_', ':')}.ctkEnabled", value=v) for k, v in disks.items()]
    client.wait(vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=on, extraConfig=extra)))


def touched(writes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The areas of 64 KiB that writes (offset, length) touch, as they must be reported."""
    blocks = sorted({b for offset, length in writes for b in range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)})
    areas: list[tuple[int, int]] = []
    for b in blocks:
        if areas and sum(areas[-1]) == b * BLOCK:
            areas[-1] = (areas[-1][0], areas[-1][1] + BLOCK)
        else:
            areas.append((b * BLOCK, BLOCK))
    return areas


def write_some(lab: VCenter, seed: int, count: int = 20, disk: int = FIRST) -> list[tuple[int, int]]:
    source = random.Random(seed)
    done = []
    for _i in range(count):
        offset, length = 512 * source.randrange(4 * MIB // 512), 512 * source.randint(1, 100)
        lab.write("db", disk, offset, source.randbytes(length))
        done.append((offset, length))
    return done


def test_areas_are_exact_from_each_snapshot_to_each_later_one(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    assert (vm.config.changeTrackingEnabled, change_id(client.vm("plain").config)) == (True, None)
    ids, snapshots, writes = [], [], []
    for i in range(4):
        writes.append(write_some(lab, i))
        snapshots.append(client.snapshot(vm, f"s{i}"))
        ids.append(change_id(snapshots[-1].config))
    assert [int(str(x).partition("/")[2]) for x in ids] == [2, 3, 4, 5]
    uuid = str(ids[0]).partition("/")[0]
    assert len(bytes.fromhex(uuid.replace("-", " ").replace(" ", ""))) == 16
    assert {str(x).partition("/")[0] for x in ids} == {uuid}
    for i in range(4):
        for j in range(i, 4):
            expected = touched([w for part in writes[i + 1 : j + 1] for w in part])
            assert client.areas(vm, snapshots[j], FIRST, str(ids[i])) == expected, (i, j)
    assert client.areas(vm, snapshots[3], SECOND, str(change_id(snapshots[0].config, SECOND))) == []


def test_star_is_what_is_allocated(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    lab.write("db", FIRST, 4 * MIB + 512, bytes(512))
    snapshot = client.snapshot(vm, "one")
    capacity = 8 * MIB + 1536
    found = client.areas(vm, snapshot, FIRST)
    assert (4 * MIB, BLOCK) in found
    assert found[0] == (0, MIB)
    assert sum(found[-1]) == capacity  # the end of the disk is no multiple of 64 KiB
    assert sum(length for _start, length in found) < 2 * MIB
    lab.switch("cbt_star_whole", 1, vm="db")
    assert client.areas(vm, snapshot, FIRST) == [(0, capacity)]
    lab.switch("cbt_star_fault", 1, vm="db", disk=FIRST)
    with pytest.raises(vim.fault.FileFault):
        client.areas(vm, snapshot, FIRST)
    assert client.areas(vm, snapshot, SECOND)
    other = client.vm("onnfs")  # not on VMFS: nobody knows
    assert client.areas(other, client.snapshot(other, "one"), FIRST) == [(0, capacity)]


def test_areas_come_in_parts(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    first = change_id(client.snapshot(vm, "one").config)
    for i in range(0, 60, 2):
        lab.write("db", FIRST, i * BLOCK, b"x" * 512)
    second = client.snapshot(vm, "two")
    whole = client.areas(vm, second, FIRST, str(first))
    assert whole == [(i * BLOCK, BLOCK) for i in range(0, 60, 2)]
    lab.switch("cbt_parts", 7)
    part = vm.QueryChangedDiskAreas(second, FIRST, 0, first)
    assert (len(part.changedArea), part.startOffset, part.length) == (7, 0, 13 * BLOCK)
    part = vm.QueryChangedDiskAreas(second, FIRST, 13 * BLOCK, first)
    assert (len(part.changedArea), part.startOffset, part.length) == (7, 13 * BLOCK, 14 * BLOCK)
    assert client.areas(vm, second, FIRST, str(first)) == whole
    part = vm.QueryChangedDiskAreas(second, FIRST, 100, first)  # the head of an area is cut off
    assert (part.changedArea[0].start, part.changedArea[0].length, part.startOffset) == (100, BLOCK - 100, 100)


def test_what_cannot_be_answered(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    snapshot = client.snapshot(vm, "one")
    known = str(change_id(snapshot.config))
    uuid = known.partition("/")[0]
    for bad in ("52 00 00 00 00 00 00 00-00 00 00 00 00 00 00 00/1", f"{uuid}/77", f"{uuid}/0", "nonsense", ""):
        with pytest.raises(vim.fault.FileFault):
            vm.QueryChangedDiskAreas(snapshot, FIRST, 0, bad)
    for start in (8 * MIB + 1536, -1):
        with pytest.raises(vmodl.fault.InvalidArgument, match="startOffset"):
            vm.QueryChangedDiskAreas(snapshot, FIRST, start, "*")
    with pytest.raises(vmodl.fault.InvalidArgument, match="deviceKey"):
        vm.QueryChangedDiskAreas(snapshot, 2999, 0, "*")
    with pytest.raises(vim.fault.NotFound):
        vm.QueryChangedDiskAreas(client.snapshot(client.vm("old"), "other"), FIRST, 0, "*")
    lab.fault("cbt_file_fault", match="db")
    with pytest.raises(vim.fault.FileFault):
        vm.QueryChangedDiskAreas(snapshot, FIRST, 0, "*")
    assert vm.QueryChangedDiskAreas(snapshot, FIRST, 0, known).changedArea == []
    plain = client.vm("plain")
    with pytest.raises(vim.fault.FileFault):  # not tracked
        plain.QueryChangedDiskAreas(client.snapshot(plain, "one"), FIRST, 0, "*")


def test_no_snapshot_is_needed_of_a_vm_that_is_off(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    snapshot = client.snapshot(vm, "one")
    known = str(change_id(snapshot.config))
    client.wait(snapshot.RemoveSnapshot_Task(False))
    writes = write_some(lab, 9)
    with pytest.raises(vim.fault.InvalidPowerState):
        vm.QueryChangedDiskAreas(None, FIRST, 0, known)
    client.wait(vm.PowerOffVM_Task())
    assert client.areas(vm, None, FIRST, known) == touched(writes)


def test_tracking_takes_effect_after_a_stun(lab: VCenter, client: Client) -> None:
    vm = client.vm("plain")
    switch_on(client, vm)
    assert (vm.config.changeTrackingEnabled, change_id(vm.config)) == (True, None)
    snapshot = client.snapshot(vm, "stun")
    assert change_id(snapshot.config) is None
    client.wait(snapshot.RemoveSnapshot_Task(False))
    assert change_id(vm.config)
    assert disks_of(vm.config)[2001].backing.changeId is None  # independent
    enabled = {o.key: o.value for o in vm.config.extraConfig if o.key.endswith(".ctkEnabled")}
    assert enabled == {"scsi0:0.ctkEnabled": "TRUE"}
    lab.write("plain", FIRST, 0, bytes(512))
    assert client.areas(vm, client.snapshot(vm, "one"), FIRST)[0] == (0, MIB)


def test_a_power_cycle_is_a_stun_too_and_a_vm_that_is_off_needs_none(lab: VCenter, client: Client) -> None:
    vm = client.vm("plain")
    switch_on(client, vm)
    client.wait(vm.PowerOffVM_Task())
    assert change_id(vm.config) is None
    client.wait(vm.PowerOnVM_Task())
    first = change_id(vm.config)
    assert first
    client.wait(vm.PowerOffVM_Task())
    switch_on(client, vm, on=False)
    assert (vm.config.changeTrackingEnabled, change_id(vm.config)) == (False, None)
    switch_on(client, vm)
    assert change_id(vm.config) not in (None, first)


def test_tracking_per_disk(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    assert {o.key: o.value for o in vm.config.extraConfig if "ctk" in o.key} == {"scsi0:0.ctkEnabled": "TRUE", "scsi1:0.ctkEnabled": "TRUE"}
    kept = change_id(vm.config)
    switch_on(client, vm, scsi1_0="FALSE")
    assert change_id(vm.config, SECOND)
    client.wait(client.snapshot(vm, "stun").RemoveSnapshot_Task(False))
    assert (change_id(vm.config, SECOND), str(change_id(vm.config)).partition("/")[0]) == (None, str(kept).partition("/")[0])
    assert {o.key: o.value for o in vm.config.extraConfig if "ctk" in o.key} == {
        "scsi0:0.ctkEnabled": "TRUE",
        "scsi1:0.ctkEnabled": "FALSE",
    }


def test_star_is_no_good_where_tracking_began_with_snapshots(lab: VCenter, client: Client) -> None:
    vm = client.vm("plain")
    client.snapshot(vm, "old one")
    switch_on(client, vm)
    client.snapshot(vm, "stun")
    assert client.areas(vm, client.snapshot(vm, "one"), FIRST) == [(0, 8 * MIB + 1536)]


def test_consolidation_changes_nothing_in_what_is_tracked(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    first = client.snapshot(vm, "one")
    known = str(change_id(first.config))
    writes = write_some(lab, 20)
    lab.switch("consolidate_seconds", 0.5)
    task = first.RemoveSnapshot_Task(False)
    lab.write("db", FIRST, 6 * MIB, b"y" * 512)
    client.wait(task)
    assert client.areas(vm, client.snapshot(vm, "two"), FIRST, known) == touched([*writes, (6 * MIB, 512)])


def test_consolidation_that_misses_writes(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    first = client.snapshot(vm, "one")
    known = str(change_id(first.config))
    lab.write("db", FIRST, 0, b"x" * 512)
    lab.switch("cbt_consolidation_misses", 1, vm="db")
    lab.switch("consolidate_seconds", 0.5)
    task = first.RemoveSnapshot_Task(False)
    while (task.info.progress or 0) <= 5:
        pass
    lab.write("db", FIRST, 6 * MIB, b"y" * 512)
    client.wait(task)
    lab.write("db", FIRST, 5 * MIB, b"z" * 512)
    second = client.snapshot(vm, "two")
    assert client.areas(vm, second, FIRST, known) == [(0, BLOCK), (5 * MIB, BLOCK)]
    assert lab.disk("db", FIRST, "two")[6 * MIB : 6 * MIB + 512] == b"y" * 512


def test_areas_that_are_missed(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    known = str(change_id(client.snapshot(vm, "one").config))
    for i in range(0, 12, 2):
        lab.write("db", FIRST, i * BLOCK, b"x" * 512)
    second = client.snapshot(vm, "two")
    lab.switch("cbt_miss", "every:3", vm="db")
    assert client.areas(vm, second, FIRST, known) == [(i * BLOCK, BLOCK) for i in (0, 2, 6, 8)]
    lab.switch("cbt_miss", f"{2 * BLOCK}-{6 * BLOCK + 4096}", vm="db")
    assert client.areas(vm, second, FIRST, known) == [(0, BLOCK), (6 * BLOCK + 4096, BLOCK - 4096), (8 * BLOCK, BLOCK), (10 * BLOCK, BLOCK)]
    lab.switch("cbt_miss", "", vm="db")
    assert len(client.areas(vm, second, FIRST, known)) == 6


@pytest.mark.parametrize("how", ["new", "keep", "lower"])
def test_what_a_revert_does_to_the_change_id(lab: VCenter, client: Client, how: str) -> None:
    vm = client.vm("db")
    old = client.snapshot(vm, "old")
    lab.write("db", FIRST, 3 * BLOCK, b"x" * 512)
    known = str(change_id(client.snapshot(vm, "copied").config))  # .../3
    lab.switch("cbt_revert", how)
    client.wait(old.RevertToSnapshot_Task())
    client.wait(vm.PowerOnVM_Task())
    lab.write("db", FIRST, 9 * BLOCK, b"y" * 512)
    now = client.snapshot(vm, "now")
    (uuid, _slash, number), (found, _slash, seq) = known.partition("/"), str(change_id(now.config)).partition("/")
    assert lab.disk("db", FIRST, "now")[3 * BLOCK : 3 * BLOCK + 512] != b"x" * 512
    if how == "new":
        assert found != uuid
        with pytest.raises(vim.fault.FileFault):
            client.areas(vm, now, FIRST, known)
    elif how == "keep":
        assert (found, int(seq) > int(number)) == (uuid, True)
        assert client.areas(vm, now, FIRST, known) == [(9 * BLOCK, BLOCK)]  # what went back is missing: wrong on purpose
    else:
        assert (found, int(seq)) == (uuid, int(number))
        assert client.areas(vm, now, FIRST, known) == []


def test_a_reset_and_a_lower_sequence(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    for i in range(4):
        known = str(change_id(client.snapshot(vm, f"s{i}").config))
    lab.post("/cbt/lower", vm="db", disk=FIRST, by=3)
    lab.write("db", FIRST, 0, b"x" * 512)
    now = client.snapshot(vm, "lower")
    assert (known.partition("/")[2], str(change_id(now.config)).partition("/")[2]) == ("5", "3")
    assert str(change_id(now.config)).partition("/")[0] == known.partition("/")[0]
    assert client.areas(vm, now, FIRST, known) == []  # wrong on purpose
    assert str(change_id(now.config, SECOND)).endswith("/6")
    lab.post("/cbt/reset", vm="db", disk=FIRST)
    reset = client.snapshot(vm, "reset")
    assert str(change_id(reset.config)).partition("/")[0] != known.partition("/")[0]
    with pytest.raises(vim.fault.FileFault):
        client.areas(vm, reset, FIRST, known)


def test_a_disk_that_grows(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    snapshot = client.snapshot(vm, "one")
    known = str(change_id(snapshot.config))

    def grow() -> Any:
        disk = disks_of(vm.config)[FIRST]
        disk.capacityInBytes, disk.capacityInKB = 16 * MIB, 16 * MIB // 1024
        return vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[vim.vm.device.VirtualDeviceSpec(operation="edit", device=disk)]))

    with pytest.raises(vim.fault.InvalidDeviceOperation):  # not with snapshots
        client.wait(grow())
    client.wait(snapshot.RemoveSnapshot_Task(False))
    before = lab.disk("db", FIRST)
    client.wait(grow())
    assert disks_of(vm.config)[FIRST].capacityInBytes == 16 * MIB
    assert lab.disk("db", FIRST) == before + bytes(16 * MIB - len(before))
    lab.write("db", FIRST, 16 * MIB - 512, b"z" * 512)
    now = client.snapshot(vm, "two")
    with pytest.raises(vim.fault.FileFault):
        client.areas(vm, now, FIRST, known)
    assert sum(client.areas(vm, now, FIRST)[-1]) == 16 * MIB
