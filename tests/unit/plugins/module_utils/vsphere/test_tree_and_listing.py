# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import guest, listing
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.properties import Row
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.tree import Tree, shown
from ansible_collections.ferry.vmware.plugins.plugin_utils.inventory import unique_names


def inventory() -> list[Row]:
    """root / Europe / DC%2f0 with a folder, a vApp, a cluster and a standalone host."""
    folder, store = vim.Folder, vim.Datastore("datastore-1")
    return [
        Row("Folder", "group-d1", {"name": "Datacenters"}),
        Row("Folder", "group-d2", {"name": "Europe", "parent": folder("group-d1")}),
        Row("Datacenter", "datacenter-3", {"name": "DC%2f0", "parent": folder("group-d2")}),
        Row("Folder", "group-v4", {"name": "vm", "parent": vim.Datacenter("datacenter-3")}),
        Row("Folder", "group-v5", {"name": "wave 1", "parent": folder("group-v4")}),
        Row("Folder", "group-h6", {"name": "host", "parent": vim.Datacenter("datacenter-3")}),
        Row("VirtualApp", "resgroup-v7", {"name": "app", "parent": vim.ResourcePool("resgroup-1"), "parentFolder": folder("group-v4")}),
        Row(
            "VirtualApp",
            "resgroup-v8",
            {"name": "inner", "parent": vim.VirtualApp("resgroup-v7"), "parentVApp": vim.VirtualApp("resgroup-v7")},
        ),
        Row("ClusterComputeResource", "domain-c9", {"name": "C0", "parent": folder("group-h6")}),
        Row("ComputeResource", "domain-s10", {"name": "esx9", "parent": folder("group-h6")}),
        Row(
            "HostSystem",
            "host-11",
            {
                "name": "esx1",
                "parent": vim.ClusterComputeResource("domain-c9"),
                "summary.hardware.cpuMhz": 2000,
                "summary.hardware.numCpuCores": 4,
                "summary.quickStats.overallCpuUsage": 2000,
                "runtime.connectionState": "connected",
            },
        ),
        Row("HostSystem", "host-12", {"name": "esx9", "parent": vim.ComputeResource("domain-s10")}),
        Row(
            "Datastore",
            "datastore-1",
            {
                "name": "ds1",
                "summary.capacity": 1000,
                "summary.freeSpace": 250,
                "summary.maintenanceMode": "normal",
                "summary.type": "VMFS",
            },
        ),
        Row(
            "VirtualMachine",
            "vm-20",
            {
                "name": "web01",
                "parent": folder("group-v5"),
                "config.instanceUuid": "u20",
                "config.guestId": "debian12_64Guest",
                "runtime.powerState": "poweredOn",
                "runtime.host": vim.HostSystem("host-11"),
                "datastore": [store],
            },
        ),
        Row(
            "VirtualMachine",
            "vm-21",
            {
                "name": "in-app",
                "parentVApp": vim.VirtualApp("resgroup-v8"),
                "config.instanceUuid": "u21",
                "runtime.host": vim.HostSystem("host-12"),
            },
        ),
        Row("VirtualMachine", "vm-22", {"name": "golden", "parent": folder("group-v5"), "config.template": True}),
        Row("VirtualMachine", "vm-23", {"name": "hidden", "parent": folder("group-v99")}),
    ]


def test_paths() -> None:
    tree = Tree(inventory())
    assert tree.path("vm-20") == "/Europe/DC%2f0/vm/wave 1/web01"
    assert tree.path("vm-21") == "/Europe/DC%2f0/vm/app/inner/in-app"
    assert tree.path("vm-23") == ".../hidden"
    assert tree.path("vm-99") == ""
    assert tree.folder("vm-20") == "/Europe/DC%2f0/vm/wave 1"
    assert tree.datacenter("vm-20") == tree.datacenter("datacenter-3") == "Europe/DC%2f0"
    assert tree.datacenter("vm-23") is None
    assert (tree.cluster("host-11"), tree.cluster("host-12")) == ("C0", None)


def test_a_loop_ends() -> None:
    tree = Tree(
        [
            Row("Folder", "group-1", {"name": "a", "parent": vim.Folder("group-2")}),
            Row("Folder", "group-2", {"name": "b", "parent": vim.Folder("group-1")}),
        ]
    )
    assert tree.path("group-1").endswith("/a")


@pytest.mark.parametrize(
    ("name", "for_people"), [("a%2fb", "a/b"), ("a%2Fb", "a/b"), ("50%25", "50%"), ("c%5cd", "c\\d"), ("%252f", "%2f"), ("100%", "100%")]
)
def test_names_for_people(name: str, for_people: str) -> None:
    assert shown(name) == for_people


def records(**options: Any) -> list[dict[str, Any]]:
    return listing.records(inventory(), **{"properties": ["config.guestId", "runtime.powerState"], **options})


def test_records() -> None:
    found = records()
    assert [(r["kind"], r["name"]) for r in found] == [
        ("vm", "hidden"),
        ("vm", "in-app"),
        ("vm", "web01"),
        ("esxi_host", "esx1"),
        ("esxi_host", "esx9"),
        ("datastore", "ds1"),
    ]
    web = found[2]
    assert web["props"] == {"config": {"guestId": "debian12_64Guest"}, "runtime": {"powerState": "poweredOn"}}
    assert web["vars"] == {
        "ferry_moref": "vm-20",
        "ferry_name": "web01",
        "ferry_path": "/Europe/DC%2f0/vm/wave 1/web01",
        "ferry_instance_uuid": "u20",
    }
    assert found[1]["props"] == {}
    assert (found[3]["vars"]["ferry_cpu_load_percent"], found[3]["vars"]["ferry_cluster"], found[3]["vars"]["ferry_connection"]) == (
        25,
        "C0",
        "connected",
    )
    assert (found[5]["vars"]["ferry_used_percent"], found[5]["vars"]["ferry_maintenance"]) == (75, False)
    assert json.loads(json.dumps(found)) == found


def test_templates_only_when_asked_for() -> None:
    assert "golden" not in {r["name"] for r in records()}
    assert "golden" in {r["name"] for r in records(include_templates=True)}


def test_groupings_without_templates() -> None:
    web, app = (next(r for r in records(group_by=list(listing.GROUPINGS)) if r["name"] == name) for name in ("web01", "in-app"))
    assert web["groups"] == {
        "cluster": ["C0"],
        "datacenter": ["Europe/DC%2f0"],
        "datastore": ["ds1"],
        "folder": ["Europe/DC/0/vm/wave 1"],
        "host": ["esx1"],
        "power": ["on"],
    }
    assert (app["groups"]["cluster"], app["groups"]["power"], app["groups"]["datastore"]) == ([], [], [])


def test_folders_are_whole_names_and_every_missing_one_is_said() -> None:
    assert {r["name"] for r in records(folders=["/Europe/DC%2f0/vm/wave 1"]) if r["kind"] == "vm"} == {"web01"}
    assert {r["name"] for r in records(folders=["Europe/DC/0/vm/app/"]) if r["kind"] == "vm"} == {"in-app"}
    with pytest.raises(BadInput, match="/Europe/DC%2f0/vm/wave, /nowhere"):
        records(folders=["/Europe/DC%2f0/vm/wave", "/nowhere"])


def test_values_become_plain_data() -> None:
    nic = vim.vm.GuestInfo.NicInfo(deviceConfigId=4000, connected=True, ipAddress=["192.0.2.1"])
    assert listing.plain_value([nic]) == [{"deviceConfigId": 4000, "connected": True, "ipAddress": ["192.0.2.1"]}]
    assert listing.plain_value(vim.HostSystem("host-1")) == "host-1"
    assert listing.plain_value(datetime.datetime(2026, 11, 21, tzinfo=datetime.timezone.utc)) == "2026-11-21T00:00:00+00:00"
    power = listing.plain_value(vim.VirtualMachine.PowerState.poweredOn)
    assert (power, type(power)) == ("poweredOn", str)


def test_a_path_above_a_leaf_and_one_below_it() -> None:
    summary = vim.vm.Summary.QuickStats(overallCpuUsage=5)
    found = listing.nested({"a": summary, "a.b": 1}, {"a": ["a"], "a.b": ["a", "b"]})
    assert found["a"]["b"] == 1
    assert found["a"]["overallCpuUsage"] == 5


def test_names_that_are_shared_get_their_moref_whatever_the_order() -> None:
    names = [("web", "vm-1"), ("db", "vm-2"), ("web", "vm-3"), ("web_vm-3", "vm-4")]
    assert unique_names(names) == (["web_vm-1", "db", "web_vm-3_vm-3", "web_vm-3"], {"web": ["web_vm-1", "web_vm-3_vm-3"]})
    backwards, unused = unique_names(names[::-1])
    assert set(backwards) == {"web_vm-1", "db", "web_vm-3_vm-3", "web_vm-3"}


def test_a_name_that_a_group_has_is_not_given_to_a_host() -> None:
    assert unique_names([("vms", "vm-1"), ("db", "vm-2")], ["all", "vms"]) == (["vms_vm-1", "db"], {"vms": ["vms_vm-1"]})


def test_snapshots_are_counted() -> None:
    def snapshot(*children: Any) -> Any:
        return vim.vm.SnapshotTree(childSnapshotList=list(children))

    assert guest.count_snapshots(None) == 0
    assert guest.count_snapshots(vim.vm.SnapshotInfo(rootSnapshotList=[snapshot(snapshot(), snapshot(snapshot())), snapshot()])) == 5


def test_custom_attributes_without_the_empty_ones() -> None:
    fields = [vim.CustomFieldsManager.FieldDef(key=1, name="a"), vim.CustomFieldsManager.FieldDef(key=2, name="b")]
    values = [
        vim.CustomFieldsManager.StringValue(key=1, value="x"),
        vim.CustomFieldsManager.StringValue(key=2, value=""),
        vim.CustomFieldsManager.StringValue(key=9, value="?"),
    ]
    assert guest.custom_attributes(fields, values) == {"a": "x"}
