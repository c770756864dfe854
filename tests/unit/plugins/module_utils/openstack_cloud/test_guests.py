# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A volume says of its guest which hardware it needs, and the plan of the landing follows it, in this run and in each later one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import guests, properties
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.options import Options
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.plan import plan
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.target import Target

SOURCE = "5030aaaa-0000-0000-0000-000000000001"
VIRTIO = {"disk_bus": "virtio", "nic_model": "virtio", "firmware": "bios", "machine": "pc"}
IDE = {"disk_bus": "ide", "nic_model": "e1000", "firmware": "bios", "machine": "pc"}
EMPTY = Target(
    flavors=[{"id": "f1", "name": "small", "vcpus": 1, "ram": 1024, "disk": 0}], networks=[{"id": "n1", "name": "web"}], zones=["nova"]
)
OPTIONS = Options(network_map={"*": "web"}, storage_map={"*": None})


def vm(**more: Any) -> dict[str, Any]:
    disk = {"key": 2000, "label": "Hard disk 1", "capacity": 1 << 30, "controller": "ParaVirtualSCSIController", "datastore": "ds"}
    card = {"key": 4000, "label": "NIC 1", "mac": "00:50:56:00:00:01", "network": "lan", "type": "vmxnet3"}
    facts = {"name": "vm1", "moref": "vm-1", "instance_uuid": SOURCE, "guest_id": "debian12_64Guest", "firmware": "bios", "cpus": 1}
    return {**facts, "memory_mb": 512, "boot_disks": [], "disks": [disk], "nics": [card], **more}


def entry(guest: str, **image: str) -> dict[str, Any]:
    """The plan of a VM whose one volume says C(guest), and has the image properties."""
    first: dict[str, Any] = plan([vm()], EMPTY, OPTIONS)["vms"][0]["volumes"][0]
    volume = {
        "id": "v1",
        "name": first["name"],
        "status": "available",
        "size": 1,
        "bootable": "true",
        "metadata": {**first["metadata"], "ferry_state": "complete", guests.COPIED: "d", **({guests.GUEST: guest} if guest else {})},
        "volume_image_metadata": image or first["image_properties"],
        "attachments": [],
    }
    found: dict[str, Any] = plan([vm()], replace(EMPTY, volumes=[volume]), OPTIONS)["vms"][0]
    return found


def test_the_hardware_is_the_guests_from_then_on() -> None:
    before = entry("")["volumes"][0]
    assert (before["guest"], before["image_properties"]["hw_disk_bus"], before["changes"]) == ("", "scsi", {})
    found = entry(json.dumps(VIRTIO))["volumes"][0]
    assert (found["guest"], found["digest"], found["attach"]["device"]) == ("ready", "d", "/dev/vda")
    has = found["image_properties"]
    assert (has["hw_disk_bus"], has["hw_vif_model"]) == ("virtio", "virtio") and "hw_scsi_model" not in has
    assert found["changes"]["image_properties"] and found["changes"]["unset_image_properties"] == ["hw_scsi_model"]
    again = entry(json.dumps(VIRTIO), **has)
    assert again["volumes"][0]["changes"] == {} and again["drift"] == []


def test_ide_needs_the_machine_that_has_it_and_the_users_word_wins() -> None:
    facts = vm()
    found = properties.for_vm(facts, facts["disks"][0], guest=IDE)
    assert (found["hw_disk_bus"], found["hw_vif_model"], found["hw_machine_type"]) == ("ide", "e1000", "pc")
    own = properties.for_vm(facts, facts["disks"][0], guest=VIRTIO, own={"hw_disk_bus": "sata"})
    assert own["hw_disk_bus"] == "sata"


@pytest.mark.parametrize("said", ["", "committing:12ab", "{}", '{"disk_bus": 1}', "[1]", "{", "virtio"])
def test_what_a_volume_says_is_believed_when_it_is_whole(said: str) -> None:
    assert guests.needs({guests.GUEST: said}) is None
    assert guests.token({guests.GUEST: said}) == ("12ab" if said.startswith("committing") else "")
    assert guests.state({guests.GUEST: said}) == ("committing" if said.startswith("committing") else "")
    assert guests.state(None) == ""
