# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is made of the property collector's answer. That the questions can be asked is tested on the lab."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.properties import Row
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.site import site_of

VM, HOST, STORE, NET = vim.VirtualMachine, vim.HostSystem, vim.Datastore, vim.Network
DEVICE = vim.vm.device


def mount(host: str, accessible: bool | None) -> Any:
    return vim.Datastore.HostMount(key=HOST(host), mountInfo=vim.host.MountInfo(accessMode="readWrite", accessible=accessible))


def cluster_config() -> Any:
    cluster = vim.cluster
    return cluster.ConfigInfoEx(
        dasConfig=cluster.DasConfigInfo(enabled=True),
        drsConfig=cluster.DrsConfigInfo(enabled=False),
        group=[cluster.VmGroup(name="dbs", vm=[VM("vm-1")]), cluster.HostGroup(name="room 1", host=[HOST("host-1")])],
        rule=[
            cluster.AffinityRuleSpec(name="eq", enabled=True, vm=[VM("vm-1"), VM("vm-2")]),
            cluster.AntiAffinityRuleSpec(name="ne", enabled=True, vm=[VM("vm-1"), VM("vm-2")]),
            cluster.AntiAffinityRuleSpec(name="off", enabled=False, vm=[VM("vm-1"), VM("vm-2")]),
            cluster.VmHostRuleInfo(name="must", enabled=True, mandatory=True, vmGroupName="dbs", affineHostGroupName="room 1"),
            cluster.VmHostRuleInfo(name="should", enabled=True, mandatory=False, vmGroupName="dbs", antiAffineHostGroupName="room 1"),
        ],
    )


def devices() -> list[Any]:
    def label(text: str) -> Any:
        return vim.Description(label=text, summary="")

    flat = DEVICE.VirtualDisk.FlatVer2BackingInfo(fileName="[ds1] a/a.vmdk", diskMode="persistent", datastore=STORE("datastore-1"))
    connected = DEVICE.VirtualDevice.ConnectInfo(connected=True, startConnected=True, allowGuestControl=True)
    return [
        DEVICE.VirtualDisk(key=2000, deviceInfo=label("Hard disk 1"), backing=flat, capacityInKB=4, capacityInBytes=4096),
        DEVICE.VirtualCdrom(
            key=3000, deviceInfo=label("CD 1"), connectable=connected, backing=DEVICE.VirtualCdrom.AtapiBackingInfo(deviceName="x")
        ),
        DEVICE.VirtualCdrom(
            key=3001, deviceInfo=label("CD 2"), connectable=connected, backing=DEVICE.VirtualCdrom.RemoteAtapiBackingInfo(deviceName="x")
        ),
        DEVICE.VirtualPCIPassthrough(key=13000, deviceInfo=label("PCI device 0")),
    ]


def rows() -> list[Row]:
    folder, dc = vim.Folder, vim.Datacenter
    return [
        Row("Folder", "group-d1", {"name": "Datacenters"}),
        Row("Datacenter", "datacenter-1", {"name": "DC%2f0", "parent": folder("group-d1")}),
        Row("Datacenter", "datacenter-2", {"name": "other", "parent": folder("group-d1")}),
        Row("Folder", "group-h1", {"name": "host", "parent": dc("datacenter-1")}),
        Row("Folder", "group-h2", {"name": "host", "parent": dc("datacenter-2")}),
        Row("Folder", "group-v1", {"name": "vm", "parent": dc("datacenter-1")}),
        Row("ClusterComputeResource", "domain-c1", {"name": "C0", "parent": folder("group-h1"), "configurationEx": cluster_config()}),
        Row("ComputeResource", "domain-s1", {"name": "esx2", "parent": folder("group-h2")}),
        Row(
            "HostSystem",
            "host-1",
            {
                "name": "esx1",
                "parent": vim.ClusterComputeResource("domain-c1"),
                "runtime.connectionState": "connected",
                "runtime.powerState": "poweredOn",
                "summary.hardware.cpuMhz": 2000,
                "summary.hardware.numCpuCores": 4,
                "summary.hardware.memorySize": 8 << 30,
                "datastore": [STORE("datastore-1")],
                "network": [NET("network-1")],
                "customValue": [vim.CustomFieldsManager.StringValue(key=7, value="esx-a")],
            },
        ),
        Row(
            "HostSystem", "host-2", {"name": "esx2", "parent": vim.ComputeResource("domain-s1"), "runtime.connectionState": "notResponding"}
        ),
        Row(
            "Datastore",
            "datastore-1",
            {
                "name": "ds1",
                "parent": dc("datacenter-1"),
                "host": [mount("host-1", None), mount("host-2", False)],
                "summary.type": "VMFS",
                "summary.capacity": 1000,
                "summary.freeSpace": 250,
            },
        ),
        Row(
            "Datastore",
            "datastore-2",
            {"name": "local", "parent": dc("datacenter-1"), "host": [mount("host-1", True)], "summary.accessible": False},
        ),
        Row("Network", "network-1", {"name": "VM Network"}),
        Row(
            "VirtualMachine",
            "vm-1",
            {
                "name": "a%25b",
                "parent": folder("group-v1"),
                "runtime.host": HOST("host-1"),
                "runtime.powerState": "poweredOn",
                "config.files.vmPathName": "[ds1] a/a.vmx",
                "config.hardware.device": devices(),
                "config.hardware.memoryMB": 512,
                "datastore": [STORE("datastore-1")],
                "storage.perDatastoreUsage": [
                    vim.vm.StorageInfo.UsageOnDatastore(datastore=STORE("datastore-1"), committed=77, uncommitted=1, unshared=77)
                ],
            },
        ),
        Row("VirtualMachine", "vm-2", {"name": "bare"}),
    ]


FIELDS = [vim.CustomFieldsManager.FieldDef(key=7, name="ferry.definition", type=str, managedObjectType=None)]


def test_hosts_datastores_vms_and_clusters() -> None:
    found = site_of(rows(), FIELDS)
    host = found.hosts["host-1"]
    assert (host.cluster, host.cluster_name, host.datacenter, host.path) == ("domain-c1", "C0", "DC%2f0", "/DC%2f0/host/C0/esx1")
    assert (host.cpu_mhz_total, host.memory_mb_total, host.threads, host.connected) == (8000, 8192, 4, True)
    assert host.custom == {"ferry.definition": "esx-a"}
    assert (found.hosts["host-2"].cluster, found.hosts["host-2"].connected) == (None, False)
    store = found.datastores["datastore-1"]
    assert (store.hosts, store.local, store.accessible) == ({"host-1"}, False, True)
    assert (found.datastores["datastore-2"].local, found.datastores["datastore-2"].accessible) == (True, False)
    vm = found.vms["vm-1"]
    assert (vm.name, vm.vmx_datastore, vm.disks_bytes, vm.disks) == ("a%b", "datastore-1", {"datastore-1": 77}, (4096,))
    assert (vm.passthrough, vm.connected_local_devices, vm.devices_read) == (("PCI device 0",), ("CD 1",), True)
    bare = found.vms["vm-2"]
    assert (bare.host, bare.devices_read, bare.ft, bare.connected) == (None, False, False, True)
    assert found.networks == {"network-1": "VM Network"}


def test_rules_and_groups_of_a_cluster() -> None:
    cluster = site_of(rows()).clusters["domain-c1"]
    assert (cluster.name, cluster.drs, cluster.ha) == ("C0", False, True)
    said = {r.name: (r.kind, sorted(r.vms), sorted(r.hosts), r.required) for r in cluster.rules}
    assert said == {
        "eq": ("together", ["vm-1", "vm-2"], [], True),
        "ne": ("apart", ["vm-1", "vm-2"], [], True),
        "must": ("run_on", ["vm-1"], ["host-1"], True),
        "should": ("keep_off", ["vm-1"], ["host-1"], False),
    }


def test_one_datacenter() -> None:
    assert site_of(rows(), datacenter="other").hosts.keys() == {"host-2"}
    assert site_of(rows(), datacenter="/DC%2f0").vms.keys() == {"vm-1"}
    with pytest.raises(BadInput) as e:
        site_of(rows(), datacenter="DC9")
    assert e.value.code == "unknown"


def test_finding_by_what_people_have_at_hand() -> None:
    found = site_of(rows())
    assert found.host("C0/esx1").moref == found.host("host-1").moref == found.host("/DC%2f0/host/C0/esx1").moref == "host-1"
    assert found.vm("a%b").moref == "vm-1"
    assert found.datastore("ds1", "host-1").moref == "datastore-1"
    with pytest.raises(BadInput):
        found.datastore("ds1", "host-2")
    with pytest.raises(BadInput) as e:
        found.host("ESX")
    assert "close: esx1, esx2" in str(e.value)
    with pytest.raises(BadInput):
        found.vm("")
    assert found.where(None) == "nowhere"
