# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prechecks of what no lab has, out of rows as the property collector gives them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.concerns import CRITICAL, INFORMATION, WARNING, Concern
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.precheck import entries_of, target_of
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.ways import why_no_files
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import cbt, precheck, precheck_wave
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.find import VmRef
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.guest import map_vm
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.precheck_catalogue import KINDS, LONGEST, found
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.precheck_disks import MOST_IN_CHAIN
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.precheck_options import Options
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.precheck_read import Answer, Host, SourceVm, Store, Wave, resolve
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.properties import Row
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.tree import Tree

GIB = 1 << 30
DAY = 86400.0


def flat(path: str, parent: Any = None) -> Any:
    return vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
        fileName=path, diskMode="persistent", datastore=vim.Datastore("datastore-1"), parent=parent, changeId="52 de/1"
    )


def devices(backing: Any, capacity: int = GIB) -> list[Any]:
    controller = vim.vm.device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing")
    description = vim.Description(label="Hard disk 1", summary="")
    disk = vim.vm.device.VirtualDisk(
        key=2000, controllerKey=1000, unitNumber=0, backing=backing, capacityInBytes=capacity, capacityInKB=0, deviceInfo=description
    )
    return [controller, disk]


def machine(name: str = "db01", moref: str = "vm-1", **props: Any) -> SourceVm:
    """A tracked VM on esx1 without anything to be concerned about; properties of it changed."""
    leaves = {
        "name": name,
        "config.changeTrackingEnabled": True,
        "config.guestId": "rhel9_64Guest",
        "config.hardware.device": devices(flat("[ds1] db01/db01.vmdk")),
        "config.version": "vmx-19",
        "guest.hostName": "db01",
        "guest.toolsRunningStatus": "guestToolsRunning",
        "runtime.host": vim.HostSystem("host-1"),
        "runtime.powerState": "poweredOn",
        **{leaf.replace("__", "."): value for leaf, value in props.items()},
    }
    row = Row("VirtualMachine", moref, {k: v for k, v in leaves.items() if v is not None})
    ref = VmRef(moref, name, f"/DC0/vm/{name}", None, False, None)
    facts = map_vm(row, Tree([row, Row("Datastore", "datastore-1", {"name": "ds1", "summary.type": "VMFS"})]), {})
    return SourceVm(facts, row.props, cbt.facts_of(ref, row.props))


def wave(*vms: SourceVm, **more: Any) -> Wave:
    given = {
        "hosts": {"host-1": Host("esx1", None, True, False, None)},
        "stores": {"datastore-1": Store("ds1", "VMFS", 100 * GIB, 50 * GIB, True, "normal")},
        **more,
    }
    return Wave([Answer(vm.name, vm.moref) for vm in vms], {vm.moref: vm for vm in vms}, **given)


WARM = Options(strategy="warm")
#: What the machine above has always: nobody told of its addresses.
USUAL = {"vmware.vm_missing_ip.detected"}


def judged(read: Wave, options: Options = WARM) -> tuple[dict[str, set[str]], list[Concern]]:
    of_vms, of_wave = precheck.judge(read, options, dict.fromkeys(read.vms, options), why_no_files)
    return {moref: {c.id for c in concerns} - USUAL for moref, concerns in of_vms.items()}, of_wave


def test_nothing_to_be_concerned_about() -> None:
    assert judged(wave(machine())) == ({"vm-1": set()}, [])


@pytest.mark.parametrize(("depth", "found_ids"), [(MOST_IN_CHAIN - 1, set()), (MOST_IN_CHAIN, {"ferry.snapshots.limit"})])
def test_a_chain_that_is_too_long(depth: int, found_ids: set[str]) -> None:
    backing = None
    for i in range(depth):
        backing = flat(f"[ds1] db01/db01-{i:06}.vmdk", backing)
    assert judged(wave(machine(config__hardware__device=devices(backing))))[0]["vm-1"] == found_ids


def test_two_vms_with_one_file() -> None:
    both = wave(machine(), machine("db02", "vm-2"))
    assert judged(both)[0] == {"vm-1": {"vmware.disk.shared.detected"}, "vm-2": {"vmware.disk.shared.detected"}}


@pytest.mark.parametrize(
    ("props", "found_ids"),
    [
        ({"capability__changeTrackingSupported": False}, {"ferry.cbt.unsupported"}),
        ({"capability__changeTrackingSupported": True}, set()),
        ({"config__version": "vmx-07"}, set()),
        ({"config__version": None}, set()),
        ({"runtime__connectionState": "inaccessible"}, {"ferry.vm.disconnected"}),
        ({"runtime__faultToleranceState": "notConfigured"}, set()),
        ({"config__guestId": "windowsHyperVGuest"}, {"vmware.os.unsupported"}),
        ({"config__guestId": "winNetEnterprise64Guest"}, set()),
        ({"config__guestId": "windows8Server64Guest"}, set()),
        ({"config__guestId": "windows9_64Guest"}, {"ferry.windows.fast_startup"}),
        ({"config__guestId": "rhel3Guest"}, {"vmware.os.unsupported"}),
        ({"config__guestId": "debian5_64Guest"}, {"vmware.os.unsupported"}),
        ({"config__guestId": None}, {"vmware.os.unsupported"}),
        # a VM whose files are gone has no configuration at all
        ({"config__hardware__device": None, "config__version": None}, set()),
    ],
)
def test_single_properties(props: dict[str, Any], found_ids: set[str]) -> None:
    assert judged(wave(machine(**props)))[0]["vm-1"] == found_ids


def test_a_vm_of_which_nothing_can_be_read() -> None:
    """Its files are gone, or the account sees only that it is there."""
    row = Row("VirtualMachine", "vm-1", {"name": "gone"})
    bare = SourceVm(map_vm(row, Tree([row]), {}), row.props, cbt.facts_of(VmRef("vm-1", "gone", "", None, False, None), row.props))
    for options in (WARM, Options()):
        assert judged(wave(bare, hosts={}, stores={}), options)[0]["vm-1"] >= {"vmware.os.unsupported", "vmware.hostname.empty"}


def test_tracking_that_a_disk_is_kept_out_of() -> None:
    """The VM's switch is on, the disk's own is off."""
    off = vim.option.OptionValue(key="scsi0:0.ctkEnabled", value="FALSE")
    of_vms, unused = judged(wave(machine(config__extraConfig=[off])))
    assert of_vms["vm-1"] == {"vmware.changed_block_tracking.disk.disabled", "VMMissingChangedBlockTracking"}


@pytest.mark.parametrize(
    ("more", "found_ids"),
    [
        ({"vcenter": False}, {"ferry.server.esxi"}),
        ({"verified": False}, {"ferry.tls.unverified"}),
        ({"skew": 59.0}, set()),
        ({"skew": -61.0}, {"ferry.clock.skew"}),
        ({"hosts": {"host-1": Host("esx1", None, True, False, ())}}, {"ferry.clock.host"}),
        ({"hosts": {"host-2": Host("esx2", None, True, False, ())}}, set()),
        ({"hosts": {}}, set()),
        ({"stores": {}}, set()),
        ({"stores": {"datastore-1": Store("ds1", "VMFS", None, None, True, "normal")}}, set()),
        ({"stores": {"datastore-1": Store("ds1", "VMFS", GIB, 0, True, "normal")}}, {"ferry.datastore.headroom"}),
    ],
)
def test_the_wave(more: dict[str, Any], found_ids: set[str]) -> None:
    assert {c.id for c in judged(wave(machine(), **more))[1]} == found_ids


@pytest.mark.parametrize(("days", "category"), [(31, None), (29, "warning"), (0.5, "critical"), (-1, "critical")])
def test_the_end_of_the_certificate(days: float, category: str | None) -> None:
    read = wave(machine(), certificate_end=time.time() + days * DAY)
    assert [c.category for c in judged(read)[1]] == ([category] if category else [])


@pytest.mark.parametrize(
    ("path", "kind", "found_ids"),
    [
        ("/", None, {"vmware.guestDisks.freespace"}),
        ("/var", "ext4", {"vmware.guestDisks.freespace"}),
        ("/snap/core20/1234", None, set()),
        ("/mnt/image", "squashfs", set()),
        ("/media/cdrom", "iso9660", set()),
    ],
)
def test_file_systems_that_are_always_full(path: str, kind: str | None, found_ids: set[str]) -> None:
    disk = vim.vm.GuestInfo.DiskInfo(diskPath=path, freeSpace=0, capacity=GIB, filesystemType=kind)
    assert judged(wave(machine(guest__disk=[disk])))[0]["vm-1"] == found_ids


@pytest.mark.parametrize(("connected", "maintenance"), [(True, True), (False, False)])
def test_a_host_that_is_not_ready(connected: bool, maintenance: bool) -> None:
    hosts = {"host-1": Host("esx1", None, connected, maintenance, None)}
    assert judged(wave(machine(), hosts=hosts))[0]["vm-1"] == {"HostNotReady"}


def test_a_datastore_in_maintenance() -> None:
    stores = {"datastore-1": Store("ds1", "VMFS", GIB, GIB, True, "enteringMaintenance")}
    assert judged(wave(machine(), stores=stores))[0]["vm-1"] == {"ferry.datastore.inaccessible"}


def test_names_in_texts_are_bounded() -> None:
    name = "x\n<b>" * 400
    of_vms, unused = precheck.judge(wave(machine(name)), WARM, {"vm-1": WARM}, why_no_files)
    told = [c for c in of_vms["vm-1"] if c.id == "vmware.vm.name.invalid"][0]
    assert len(told.assessment) <= LONGEST
    assert "\n" not in told.assessment


def test_the_catalogue_holds() -> None:
    assert found("VMHasSnapshots", "It has.", category="warning").category == "warning"
    with pytest.raises(ValueError, match="never information"):
        found("VMHasSnapshots", "It has.", category="information")
    with pytest.raises(KeyError):
        found("vmware.unheard_of", "It is.")
    assert all(kind.label and kind.advice.endswith(".") and kind.also != kind.category for kind in KINDS.values())


#: Forklift's rules (validation/policies/io/konveyor/forklift/vmware) with their categories.
MTV = {
    CRITICAL: "datastore.missing disk.capacity.invalid passthrough_device.detected guestDisks.freespace",
    WARNING: "changed_block_tracking.disabled changed_block_tracking.disk.disabled consolidation_needed disk_mode.independent disk.rdm.detected "
    "disk.shared.detected disk.count.exceeds.limit cpu_affinity.detected numa_affinity.detected host_affinity.detected cpu_memory.hotplug.enabled "
    "device.sriov.detected usb_controller.detected tpm.detected hostname.empty hostname.default vm_missing_ip.detected vm.name.invalid os.unsupported",
    INFORMATION: "snapshot.detected disk_serial.truncated drs.enabled dpm.enabled fault_tolerance.enabled guestDisks.key.not_found",
}


def test_forklifts_rules_have_its_categories() -> None:
    theirs = {f"vmware.{rule}": category for category, rules in MTV.items() for rule in rules.split()}
    assert {i: kind.category for i, kind in KINDS.items() if i.startswith("vmware.")} == theirs


def test_names_of_many_are_cut() -> None:
    assert precheck_wave.named(["a", "b"]) == "a, b"
    assert precheck_wave.named([str(i) for i in range(12)]).endswith("9 and 2 more")


# -- which VM is meant ----------------------------------------------------------------------------------------------


def rows() -> list[Row]:
    def vm(moref: str, name: str, folder: str, uuid: str = "") -> Row:
        return Row("VirtualMachine", moref, {"name": name, "parent": vim.Folder(folder), "config.instanceUuid": uuid or None})

    return [
        Row("Folder", "group-d1", {"name": "Datacenters"}),
        Row("Datacenter", "datacenter-1", {"name": "DC0", "parent": vim.Folder("group-d1")}),
        Row("Folder", "group-v1", {"name": "vm", "parent": vim.Datacenter("datacenter-1")}),
        Row("Folder", "group-v2", {"name": "web%2fprod", "parent": vim.Folder("group-v1")}),
        vm("vm-1", "web01", "group-v1", "50210A1B-1111-4c6e-9f01-7a1e5b1c0001"),
        vm("vm-2", "web01", "group-v2"),
        vm("vm-3", "a%2fb", "group-v2"),
        vm("vm-4", "vm-1", "group-v1"),
        Row("VirtualMachine", "vm-5", {}),
    ]


@pytest.mark.parametrize(
    ("asked", "morefs"),
    [
        ("50210a1b-1111-4c6e-9f01-7a1e5b1c0001", ["vm-1"]),
        ("50210a1b-1111-4c6e-9f01-7a1e5b1c0009", []),
        ("web01", ["vm-1", "vm-2"]),
        ("/DC0/vm/web01", ["vm-1"]),
        ("DC0/vm/web01", ["vm-1"]),
        ("vm/web01", ["vm-1"]),
        ("web/prod/web01", ["vm-2"]),
        ("/DC0/vm/web%2fprod/web01", ["vm-2"]),
        ("a/b", ["vm-3"]),
        ("web/prod/a/b", ["vm-3"]),
        ("vm-1", ["vm-1", "vm-4"]),
        ("vm-2", ["vm-2"]),
        ("vm-5", ["vm-5"]),
        ("vm-9", []),
        ("/", []),
        ("", []),
        ("WEB01", []),
    ],
)
def test_resolve(asked: str, morefs: list[str]) -> None:
    (answer,) = resolve([asked], [r for r in rows() if r.kind == "VirtualMachine"], Tree(rows()))
    assert [m.rpartition("(")[2].rstrip(")") for m in answer.matches] == morefs
    assert answer.moref == (morefs[0] if len(morefs) == 1 else None)
    assert (answer.close == ("web01",)) is (asked == "WEB01")


# -- what was asked -------------------------------------------------------------------------------------------------


def test_what_names_a_vm() -> None:
    assert entries_of(["a", 42, {"vm": 7, "options": None}]) == [("a", {}), ("42", {}), ("7", {})]


@pytest.mark.parametrize("vms", [[], None, [True], [{}], [{"vm": "a", "strategy": "cold"}], ["x"] * 10_001])
def test_what_does_not(vms: Any) -> None:
    with pytest.raises(BadInput):
        entries_of(vms)


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({}, "none"),
        ({"cloud": "prod"}, "openstack"),
        ({"auth": {"username": "me"}}, "openstack"),
        ({"cloud": "prod", "target": "none"}, "none"),
    ],
)
def test_the_target(params: dict[str, Any], target: str) -> None:
    assert target_of(params) == target


def test_options_of_one_vm() -> None:
    options = Options().of({"strategy": "warm", "transports": ["nbd"], "network_map": None})
    assert (options.strategy, options.transports, options.network_map) == ("warm", ("nbd",), {})
    assert Options().of({}) == Options()
    with pytest.raises(BadInput, match="strategi"):
        Options().of({"strategi": "warm"})


def test_every_critical_concern_makes_a_vm_not_ready() -> None:
    read = wave(machine(runtime__powerState="suspended"))
    of_vms, unused = precheck.judge(read, WARM, {"vm-1": WARM}, why_no_files)
    assert [c.category for c in of_vms["vm-1"] if c.id == "VMPowerStateUnsupported"] == [CRITICAL]


def test_a_wave_keeps_the_order_it_was_asked_in() -> None:
    read = wave(machine("b", "vm-2"), machine("a", "vm-1"))
    answers: Sequence[Answer] = [Answer("a", "vm-1"), Answer("?", None, (), ()), Answer("b", "vm-2")]
    entries = precheck.entries_of(dataclasses.replace(read, answers=answers), {"vm-1": [], "vm-2": []})
    assert [e.name for e in entries] == ["a", "?", "b"]
