# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import cbt
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.find import VmRef
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.snapshots import Snapshot

from .test_changes import disk

FIRST = disk(change_id=None)
SECOND = disk(key=2016, label="Hard disk 2", address="scsi1:0", bus=1, change_id=None)


def facts(**more: Any) -> cbt.Facts:
    found = cbt.Facts(
        power="on",
        template=False,
        hardware=19,
        supported=True,
        enabled=False,
        options={},
        disks=[FIRST, SECOND],
        shared={},
        snapshots=[],
    )
    return replace(found, **more)


def tracked(*, ids: bool = True) -> cbt.Facts:
    disks = [replace(d, change_id="52 aa/1") for d in (FIRST, SECOND)] if ids else [FIRST, SECOND]
    return facts(enabled=True, options={"scsi0:0": True, "scsi1:0": True}, disks=disks)


def planned(found: cbt.Facts, enable: bool, *names: str) -> cbt.Plan:
    return cbt.plan(found, enable, cbt.choose(found, names or None, "db01"), "db01")


@pytest.mark.parametrize(
    ("found", "enable", "names", "vm_wide", "options", "stun"),
    [
        (facts(), True, (), True, {"scsi0:0": True, "scsi1:0": True}, True),
        (facts(power="off"), True, (), True, {"scsi0:0": True, "scsi1:0": True}, False),
        (facts(), True, ("scsi1:0",), True, {"scsi0:0": False, "scsi1:0": True}, True),
        (tracked(), True, (), None, {}, False),
        (tracked(ids=False), True, (), None, {}, True),
        (facts(enabled=True), True, (), None, {}, True),
        (facts(enabled=True, options={"scsi0:0": False}), True, (), None, {"scsi0:0": True, "scsi1:0": True}, True),
        (facts(), False, (), None, {}, False),
        (tracked(), False, (), False, {"scsi0:0": False, "scsi1:0": False}, True),
        (replace(tracked(), power="off"), False, (), False, {"scsi0:0": False, "scsi1:0": False}, False),
        (tracked(), False, ("2000",), None, {"scsi0:0": False}, True),
        (replace(tracked(), options={"scsi0:0": True, "scsi1:0": False}), False, ("2000",), False, {"scsi0:0": False}, True),
    ],
)
def test_plans(found: cbt.Facts, enable: bool, names: tuple[str, ...], vm_wide: bool | None, options: dict[str, bool], stun: bool) -> None:
    plan = planned(found, enable, *names)
    assert (plan.vm_wide, plan.options, plan.stun) == (vm_wide, options, stun)
    after = plan.after(found)
    assert all(after[d.label] is enable for d in plan.chosen)


def test_a_disk_that_is_named_twice_counts_once() -> None:
    assert len(cbt.choose(facts(), ["2000", "Hard disk 1", "scsi0:0"], "db01")) == 1


@pytest.mark.parametrize(
    ("more", "shared", "reason"),
    [
        ({"mode": "independent_persistent"}, {}, "independent"),
        ({"mode": "independent_nonpersistent"}, {}, "independent"),
        ({"rdm_mode": "physicalMode", "mode": "independent_persistent"}, {}, "physical compatibility"),
        ({"sharing": "sharingMultiWriter"}, {}, "multi-writer"),
        ({}, {("scsi", 0): "physicalSharing"}, "bus is shared"),
    ],
)
def test_what_cannot_be_tracked_is_refused_by_name(more: dict[str, Any], shared: dict[tuple[str, int], str], reason: str) -> None:
    found = facts(disks=[replace(FIRST, **more), SECOND], shared=shared)
    with pytest.raises(BadInput, match=reason) as e:
        planned(found, True)
    assert (e.value.code, e.value.vm, e.value.disk) == ("not_trackable", "db01", "Hard disk 1")
    assert [d["key"] for d in e.value.details["disks"]] == [2000]
    assert planned(found, True, "Hard disk 2").changes
    assert planned(replace(found, enabled=True), False).vm_wide is False


def test_a_virtual_mode_mapping_can_be_tracked() -> None:
    assert planned(facts(disks=[replace(FIRST, rdm_mode="virtualMode", sharing="sharingNone")]), True).changes


def snapshots(count: int) -> list[Snapshot]:
    return [Snapshot(f"snapshot-{i}", f"s{i}", False) for i in range(count)]


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"template": True}, "not_trackable", "template"),
        ({"hardware": 4}, "not_trackable", "hardware version is 4"),
        ({"supported": False}, "not_trackable", "host"),
        ({"power": "suspended"}, "bad_input", "suspended"),
        ({"snapshots": snapshots(1)}, "has_snapshots", "s0 (snapshot-0)"),
        ({"snapshots": snapshots(29)}, "too_many_snapshots", "29 snapshots"),
    ],
)
def test_vms_that_are_refused(more: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(BadInput) as e:
        planned(facts(**more), True)
    assert e.value.code == code
    assert words in str(e.value)
    assert not planned(replace(tracked(), **more), True).changes, "nothing is to be done, so nothing is refused"


def test_what_a_killed_run_left_does_not_count_as_a_snapshot() -> None:
    left = snapshots(1)
    found = facts(snapshots=left)
    assert cbt.plan(found, True, found.disks, "db01", left).stun


def test_tracking_can_be_ended_with_snapshots_present() -> None:
    assert planned(replace(tracked(), snapshots=snapshots(2)), False).vm_wide is False


def test_facts_as_vsphere_has_them() -> None:
    device = vim.vm.device
    backing = device.VirtualDisk.FlatVer2BackingInfo
    devices = [
        device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing"),
        device.VirtualLsiLogicController(key=1001, busNumber=1, sharedBus="virtualSharing"),
        device.VirtualDisk(
            key=2000, controllerKey=1000, unitNumber=0, capacityInKB=1024, backing=backing(fileName="[a] v/v.vmdk", changeId="52 aa/1")
        ),
        device.VirtualDisk(key=2016, controllerKey=1001, unitNumber=3, capacityInKB=1024, backing=backing(fileName="[a] v/w.vmdk")),
    ]
    option = vim.option.OptionValue
    found = cbt.facts_of(
        VmRef("vm-1", "db01", "/DC0/vm/db01", None, False, None),
        {
            "config.hardware.device": devices,
            "config.extraConfig": [
                option(key="scsi0:0.ctkEnabled", value="TRUE"),
                option(key="scsi1:3.ctkEnabled", value="false"),
                option(key="ctkEnabled", value="TRUE"),
                option(key="scsi0:1.present", value="TRUE"),
            ],
            "config.changeTrackingEnabled": True,
            "config.version": "vmx-07",
            "runtime.powerState": "poweredOn",
        },
    )
    assert (found.power, found.hardware, found.enabled) == ("on", 7, True)
    assert found.options == {"scsi0:0": True, "scsi1:3": False}
    assert [found.configured(d) for d in found.disks] == [True, False]
    assert found.shared == {("scsi", 1): "virtualSharing"}
    assert cbt.untrackable(found.disks[0], found) is None
    assert "virtualSharing" in (cbt.untrackable(found.disks[1], found) or "")
