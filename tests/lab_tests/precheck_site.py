# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A vCenter for prechecks: one VM for each concern, which is the clean VM with one thing changed; and what is found at it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils.transfer import precheck
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import snapshot_tag
from tests.lab.vcenter import VCenter
from tests.lab_tests.vcenter_lab import Client, running

MIB = 1 << 20
ODD = '在庫 <b onclick="x">01</b> 管理'
#: What is found at a VM that is switched off: nobody tells of its guest.
OFF = {"vmware.hostname.empty", "vmware.vm_missing_ip.detected"}
#: How long a test's certificate lasts at least, in days; a wave that wants more has a concern.
LONG = 1_000_000.0
#: Tracking that is not in effect yet.
UNTRACKED = {"vmware.changed_block_tracking.disk.disabled", "VMMissingChangedBlockTracking"}

#: Two VMs of one name: their folders, instance UUIDs and datastores.
TWINS = {"a": ("50210a1b-aaaa-4c6e-9f01-7a1e5b1c0001", "shared"), "b": ("50210a1b-aaaa-4c6e-9f01-7a1e5b1c0002", "nfs")}
DISK = {"capacity": "8MiB"}
RDM = {"controller": "lsilogic", "bus": 1, "capacity": "1GiB", "rdm": "virtual"}
CLEAN: dict[str, Any] = {
    "host": "esx5",
    "datastore": "shared",
    "guest_id": "rhel9_64Guest",
    "power": "on",
    "cbt": True,
    "hostname": "clean.example",
    "disks": [DISK],
    "nics": [{"network": "VM Network", "ip": "192.0.2.5"}],
}


def traits(**said: Any) -> dict[str, Any]:
    return {"traits": said}


def guest_disk(path: str, free: int, disk: int = 2000) -> dict[str, Any]:
    return {"path": path, "capacity": 100 * MIB, "free": free, "disk": disk}


#: Name of a VM: what it has that the clean one has not; strategy and other options of its own; what is found at it, all of it.
CASES: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], set[str]]] = {
    "clean": ({}, {}, set()),
    "clean-cold": ({"cbt": False}, {"strategy": "cold"}, set()),
    "clean-windows": (
        {"guest_id": "windows2019srv_64Guest", **traits(guest_disks=[guest_disk("C:\\", 100 * MIB)])},
        {},
        set(),
    ),
    # its state
    "suspended": ({"power": "suspended"}, {}, {"VMPowerStateUnsupported", *OFF}),
    "no-tools": ({"tools": "not_running"}, {}, {"GuestToolsIssue", *OFF}),
    "orphaned": (traits(connection="orphaned"), {}, {"ferry.vm.disconnected"}),
    "template": ({"template": True, "power": "off", "cbt": False}, {"strategy": "cold"}, {"ferry.vm.template", *OFF}),
    "no-tools-poweroff": ({"tools": "not_running"}, {"on_timeout": "poweroff"}, {"GuestToolsIssue", *OFF}),
    "template-warm": (
        {"template": True, "power": "off", "cbt": False},
        {},
        {"ferry.vm.template", "vmware.changed_block_tracking.disabled", *UNTRACKED, *OFF},
    ),
    "encrypted": (traits(encrypted=True), {}, {"ferry.vm.encrypted"}),
    "dead-host": (
        {"host": "esx4", "datastore": "lost"},
        {},
        {"HostNotReady", "ferry.vm.disconnected", "ferry.datastore.inaccessible"},
    ),
    # its guest
    ODD: ({}, {}, {"vmware.vm.name.invalid"}),
    "x" * 64: ({}, {}, {"vmware.vm.name.invalid"}),
    "freebsd": ({"guest_id": "freebsd14_64Guest"}, {}, {"vmware.os.unsupported"}),
    "no-name": ({"hostname": ""}, {}, {"vmware.hostname.empty"}),
    "default-name": ({"hostname": "localhost.localdomain"}, {}, {"vmware.hostname.default"}),
    "no-address": ({"nics": [{"network": "VM Network"}]}, {}, {"vmware.vm_missing_ip.detected"}),
    "full-root": (
        traits(guest_disks=[guest_disk("/", 99 * MIB), guest_disk("/boot", 50 * MIB), guest_disk("/srv", 10 * MIB)]),
        {},
        {"vmware.guestDisks.freespace"},
    ),
    "full-c": (
        {"guest_id": "windows2019srv_64Guest", **traits(guest_disks=[guest_disk("C:\\", 99 * MIB)])},
        {},
        {"vmware.guestDisks.freespace"},
    ),
    "no-key": (
        {"guest_id": "windows2019srv_64Guest", **traits(guest_disks=[guest_disk("C:\\", 500 * MIB, 0)])},
        {},
        {"vmware.guestDisks.key.not_found"},
    ),
    "windows11": ({"guest_id": "windows11_64Guest"}, {}, {"ferry.windows.fast_startup"}),
    "old-tools": (traits(tools_version="guestToolsNeedUpgrade"), {}, {"ferry.tools.outdated"}),
    # devices and settings
    "passthrough": ({"passthrough": ["0000:3b:00.0"]}, {}, {"vmware.passthrough_device.detected"}),
    "sriov": ({"nics": [{"network": "VM Network", "ip": "192.0.2.6", "type": "sriov"}]}, {}, {"vmware.device.sriov.detected"}),
    "usb": (traits(usb=["2"]), {}, {"vmware.usb_controller.detected"}),
    "usb3": (traits(usb=["3"]), {}, {"vmware.usb_controller.detected"}),
    "tpm": (traits(tpm=True), {}, {"vmware.tpm.detected"}),
    "cpu-affinity": (traits(cpu_affinity=[0, 1]), {}, {"vmware.cpu_affinity.detected"}),
    "numa": (traits(numa="0,1"), {}, {"vmware.numa_affinity.detected"}),
    "hot-cpu": (traits(hot_add=["cpu"]), {}, {"vmware.cpu_memory.hotplug.enabled"}),
    "hot-cpu-remove": (traits(hot_add=["cpu_remove"]), {}, {"vmware.cpu_memory.hotplug.enabled"}),
    "hot-memory": (traits(hot_add=["memory"]), {}, {"vmware.cpu_memory.hotplug.enabled"}),
    "in-drs": ({"host": "esx3"}, {}, {"vmware.drs.enabled"}),
    "in-dpm": ({"host": "esx1"}, {}, {"vmware.drs.enabled", "vmware.dpm.enabled"}),
    "pinned": ({"host": "esx3"}, {}, {"vmware.drs.enabled", "vmware.host_affinity.detected"}),
    "ft": (traits(fault_tolerance="running"), {"strategy": "cold"}, {"vmware.fault_tolerance.enabled"}),
    "ft-warm": (traits(fault_tolerance="running"), {}, {"vmware.fault_tolerance.enabled", "ferry.cbt.unsupported"}),
    "cdrom": ({"iso": "[shared] rhel.iso"}, {}, {"ferry.cdrom.connected"}),
    # disks
    "no-datastore": (
        {"disks": [DISK, {**RDM, "lacks": "datastore"}]},
        {"strategy": "cold"},
        {"vmware.datastore.missing", "vmware.disk.rdm.detected", "ferry.transport.stream"},
    ),
    "no-capacity": (
        {"disks": [DISK, {**RDM, "lacks": "capacity"}]},
        {"strategy": "cold"},
        {"vmware.disk.capacity.invalid", "vmware.disk.rdm.detected", "ferry.transport.stream"},
    ),
    "rdm": ({"disks": [DISK, RDM]}, {"strategy": "cold"}, {"vmware.disk.rdm.detected", "ferry.transport.stream"}),
    "rdm-physical": (
        {"disks": [DISK, {**RDM, "rdm": "physical"}]},
        {"strategy": "cold"},
        {"vmware.disk.rdm.detected", "vmware.disk_mode.independent", "ferry.transport.none"},
    ),
    "independent": (
        {"disks": [DISK, {**DISK, "mode": "independent_persistent"}]},
        {"strategy": "cold"},
        {"vmware.disk_mode.independent"},
    ),
    "independent-warm": (
        {"disks": [DISK, {**DISK, "mode": "independent_persistent"}]},
        {},
        {"vmware.disk_mode.independent", "ferry.cbt.untrackable"},
    ),
    "multi-writer": ({"disks": [DISK, {**DISK, "sharing": "multi_writer"}]}, {"strategy": "cold"}, {"vmware.disk.shared.detected"}),
    "shared-bus": (
        {"disks": [DISK, {**DISK, "controller": "lsilogic", "bus": 1, "bus_sharing": "physical"}]},
        {"strategy": "cold"},
        {"vmware.disk.shared.detected"},
    ),
    "many-disks": (
        {"cbt": False, "disks": [{**DISK, "bus": i // 42, "unit": i % 42 + (i % 42 > 6)} for i in range(166)]},
        {"strategy": "cold"},
        {"vmware.disk.count.exceeds.limit"},
    ),
    "disk-uuid": (traits(disk_uuid=True), {}, {"vmware.disk_serial.truncated"}),
    "disk-uuid-ide": ({"disks": [{**DISK, "controller": "ide"}], **traits(disk_uuid=True)}, {}, set()),
    "on-vsan": ({"datastore": "vsan"}, {"strategy": "cold"}, {"ferry.transport.stream"}),
    "on-vsan-warm": ({"datastore": "vsan"}, {}, {"ferry.transport.no_delta"}),
    "on-vsan-vddk": ({"datastore": "vsan"}, {"transports": ["https", "nbd"]}, {"ferry.transport.vddk"}),
    "on-vsan-https": ({"datastore": "vsan"}, {"transports": ["https"]}, {"ferry.transport.none"}),
    "on-vvol": ({"datastore": "vvol"}, {}, {"ferry.transport.no_delta"}),
    "on-nfs": ({"datastore": "nfs"}, {}, set()),
    # snapshots and change tracking
    "snapshot": ({}, {"strategy": "cold"}, {"vmware.snapshot.detected"}),
    "snapshot-tracked": ({}, {}, {"vmware.snapshot.detected", "VMHasSnapshots"}),
    "snapshot-untracked": (
        {"cbt": False},
        {},
        {"vmware.snapshot.detected", "VMHasSnapshots", "vmware.changed_block_tracking.disabled", *UNTRACKED},
    ),
    "snapshots-28": ({}, {}, {"vmware.snapshot.detected", "VMHasSnapshots", "ferry.snapshots.limit"}),
    "snapshots-28-cold": ({}, {"strategy": "cold"}, {"vmware.snapshot.detected", "ferry.snapshots.limit"}),
    "own-snapshot": ({}, {}, set()),
    "stale": ({}, {}, {"vmware.consolidation_needed"}),
    "untracked": ({"cbt": False}, {}, {"vmware.changed_block_tracking.disabled", *UNTRACKED}),
    "old-hardware": ({"hw_version": "vmx-04"}, {}, {"ferry.cbt.unsupported"}),
    "bad-build": ({"host": "esx2"}, {}, {"ferry.cbt.bad_build"}),
}


def model(folder: Path) -> Path:
    """Write the model of all CASES."""
    vms = [{**CLEAN, "name": name, **said} for name, (said, own, ids) in CASES.items()]
    vms += [{**CLEAN, "name": "twin", "folder": where, "uuid": uuid, "datastore": store} for where, (uuid, store) in TWINS.items()]
    found = {
        "datacenter": "DC lab",
        "clusters": [
            {"name": "C0", "hosts": ["esx1"], "drs": "fullyAutomated", "dpm": True},
            {
                "name": "C1",
                "hosts": ["esx3"],
                "drs": "manual",
                "groups": [{"name": "some", "vms": ["pinned"]}, {"name": "there", "hosts": ["esx3"]}],
                "rules": [{"name": "stay", "type": "run_on", "vm_group": "some", "host_group": "there"}],
            },
            {"name": "C2", "hosts": ["esx5", "esx2"], "drs": "off"},
        ],
        "standalone_hosts": ["esx4"],
        "api_version": "7.0.3.0",
        "networks": ["VM Network"],
        "datastores": [
            {"name": "shared", "capacity": "1TiB"},
            {"name": "lost", "capacity": "10GiB", "hosts": ["esx4"]},
            {"name": "vsan", "type": "vsan", "capacity": "10GiB"},
            {"name": "vvol", "type": "VVOL", "capacity": "10GiB"},
            {"name": "nfs", "type": "NFS", "capacity": "10GiB"},
        ],
        "esxi": {"*": {"version": "7.0.3", "build": "21930508"}, "esx2": {"version": "6.0.0", "build": "2494585"}},
        "hardware": {"esx5": {"time_servers": ["ntp.example"]}, "esx3": {"time_servers": []}},
        "vms": vms,
    }
    path = folder / "model.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


class Site:
    """The running vCenter, and prechecks of it."""

    def __init__(self, lab: VCenter) -> None:
        self.lab = lab
        env = lab.env()
        self.params: dict[str, Any] = {
            "hostname": env["VMWARE_HOST"],
            "port": int(env["VMWARE_PORT"]),
            "username": env["VMWARE_USER"],
            "password": env["VMWARE_PASSWORD"],
            "ca_path": env["VMWARE_CA_PATH"],
            "validate_certs": True,
            "strategy": "warm",
        }

    def check(self, *vms: Any, **options: Any) -> dict[str, Any]:
        return precheck.run({**self.params, "vms": list(vms), **options})


def ids(concerns: list[dict[str, Any]]) -> set[str]:
    return {c["id"] for c in concerns}


def prepare(lab: VCenter) -> None:
    """Snapshots, and a host that is lost."""
    client = Client(lab)
    try:
        for name, count in (
            ("snapshot", 1),
            ("snapshot-tracked", 1),
            ("snapshot-untracked", 2),
            ("snapshots-28", 28),
            ("snapshots-28-cold", 28),
        ):
            vm = client.vm(name)
            for i in range(count):
                client.snapshot(vm, f"before update {i}")
        client.snapshot(client.vm("own-snapshot"), "ferry", description=snapshot_tag.new_tag("copy", "").text("of a copy"))
        lab.fault("consolidate_fail", match="stale")
        stale = client.vm("stale")
        client.wait(client.snapshot(stale, "passing").RemoveSnapshot_Task(False, True))
    except Exception as e:  # the consolidation fails as it was told to
        if "stale" not in str(e) and type(e).__name__ != "vim.fault.FileLocked":
            raise
    finally:
        client.close()
    lab.post("/host/die", host="esx4", vms="die")


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    with running(folder, model(folder)) as lab:
        prepare(lab)
        yield Site(lab)
