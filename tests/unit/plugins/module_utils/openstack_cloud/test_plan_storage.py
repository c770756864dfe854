# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes in a plan: types per disk, shared disks, volumes in error, and controllers that have no room for all disks."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import matching, properties
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.options import Options
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.plan import plan
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.target import Target

GIB = 1 << 30
SOURCE = "50210a1b-1111-4c6e-9f01-7a1e5b1c0001"
SHARED = "6000c290-0001-4c6e-9f01-7a1e5b1c0009"
TYPES = [
    {"id": "t1", "name": "fast", "extra_specs": {}},
    {"id": "t2", "name": "cluster", "extra_specs": {"multiattach": "<is> True"}},
    {"id": "t3", "name": "secure", "extra_specs": {}},
]
FLAVORS = [{"id": "f1", "name": "small", "vcpus": 1, "ram": 512, "disk": 0}]


def vm(disks: int = 2, controller: str = "ParaVirtualSCSIController", **second: Any) -> dict[str, Any]:
    rows = [
        {
            "key": 2000 + i,
            "label": f"Hard disk {i + 1}",
            "address": f"scsi0:{i}",
            "capacity": GIB - 512,
            "controller": controller,
            "datastore": "ds1",
        }
        for i in range(disks)
    ]
    rows[-1].update(second)
    return {
        "name": "vm1",
        "moref": "vm-1",
        "instance_uuid": SOURCE,
        "firmware": "bios",
        "cpus": 1,
        "memory_mb": 512,
        "disks": rows,
        "nics": [],
    }


def volume(**facts: Any) -> dict[str, Any]:
    """The second disk's volume, as a run left it that was killed before it copied."""
    return {
        "id": "v1",
        "name": "vm1-disk1",
        "status": "available",
        "size": 1,
        "volume_type": "fast",
        "bootable": "false",
        "metadata": {"ferry_source": SOURCE, "ferry_disk": "2001", "ferry_role": "data", "ferry_vm": "vm1", "ferry_state": "copying"},
        **facts,
    }


def planned(machine: dict[str, Any], *rows: dict[str, Any], **options: Any) -> tuple[dict[str, Any], list[str]]:
    target = Target(flavors=FLAVORS, volume_types=TYPES, volumes=rows)
    result = plan([machine], target, Options(**{"storage_map": {"*": "fast"}, **options}))
    return result["vms"][0], [e["what"] for e in result["errors"]]


def test_a_disk_may_have_a_type_of_its_own() -> None:
    entry, errors = planned(vm(), storage_map={"ds1": "fast", "scsi0:1": {"type": "secure", "encrypted": True}})
    assert errors == []
    assert [(v["type"], v["expect"]) for v in entry["volumes"]] == [("fast", {}), ("secure", {"encrypted": True})]


def test_a_shared_disk_is_marked_and_made_once() -> None:
    machine = vm(sharing="sharingMultiWriter", uuid=SHARED)
    storage_map = {"*": "fast", "Hard disk 2": "cluster"}
    entry, errors = planned(machine, storage_map=storage_map)
    assert errors == []
    assert (entry["volumes"][1]["expect"], entry["volumes"][1]["create_metadata"]["ferry_shared"]) == ({"multiattach": True}, SHARED)
    theirs = volume(id="v9", name="other", metadata={"ferry_source": "50210a1b-2222", "ferry_vm": "vm2", "ferry_shared": SHARED})
    _entry, errors = planned(machine, theirs, storage_map=storage_map)
    assert len(errors) == 1 and "is volume v9 already, made for the VM vm2" in errors[0]
    _entry, errors = planned(machine, theirs, storage_map={"*": {"type": "fast", "shared": False}})
    assert errors == []


def test_a_volume_that_is_not_what_it_has_to_be_is_an_error() -> None:
    wanted = {"*": {"type": "fast", "encrypted": True}}
    _entry, errors = planned(vm(), volume(encrypted=False), storage_map=wanted)
    assert errors == ["volume v1 of disk Hard disk 2: it is not encrypted, as its type fast has it"]
    assert planned(vm(), volume(encrypted=True), storage_map=wanted)[1] == []


def test_a_volume_in_error_that_holds_nothing_is_made_anew() -> None:
    entry, errors = planned(vm(), volume(status="error"))
    assert errors == []
    row = entry["volumes"][1]
    assert (row["replace"], row["id"], row["state"]) == ("v1", None, "absent")
    assert [v["replace"] for v in planned(vm(), volume())[0]["volumes"]] == [None, None]


@pytest.mark.parametrize(
    "kept",
    [
        {"status": "error_extending"},
        {"status": "error", "attachments": [{"server_id": "s1"}]},
        *({"status": "error", "more": {key: "x"}} for key in ("ferry_digest", "ferry_pass", "ferry_ledger", "ferry_change_id")),
        {"status": "error", "more": {"ferry_state": "complete"}},
    ],
)
def test_a_volume_in_error_that_holds_something_is_left_and_named(kept: dict[str, Any]) -> None:
    more = kept.pop("more", {})
    row = volume(**kept)
    row["metadata"].update(more)
    assert not matching.empty_in_error(row)
    entry, errors = planned(vm(), row)
    assert errors and all("v1" in e for e in errors)
    assert entry["volumes"][1]["replace"] is None


@pytest.mark.parametrize(
    ("controller", "disks", "bus"),
    [
        ("ParaVirtualSCSIController", 1, {"hw_disk_bus": "scsi", "hw_scsi_model": "vmpvscsi"}),
        ("ParaVirtualSCSIController", 2, {"hw_disk_bus": "sata"}),
        ("VirtualLsiLogicSASController", 1, {"hw_disk_bus": "sata"}),
        ("VirtualLsiLogicSASController", 3, {"hw_disk_bus": "sata"}),
        ("VirtualLsiLogicController", 5, {"hw_disk_bus": "scsi", "hw_scsi_model": "lsilogic"}),
    ],
)
def test_disks_that_qemus_controller_has_no_room_for_go_to_sata(controller: str, disks: int, bus: dict[str, str]) -> None:
    entry, errors = planned(vm(disks, controller))
    assert errors == []
    found = entry["volumes"][0]["image_properties"]
    assert {k: v for k, v in found.items() if k in ("hw_disk_bus", "hw_scsi_model")} == bus
    assert any("SATA" in w for w in entry["warnings"]) == ("hw_scsi_model" not in bus)
    converted = properties.for_vm(vm(disks, controller), {"controller": controller}, hardware="virtio")
    assert converted["hw_disk_bus"] == "virtio"
