# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import hardware, properties

SERVER = "8b7f9d3e-9d3e-4d55-9e0a-1f0d6c0f2a22"
#: As libvirt 9 has it of a server that Nova made, cut to what is looked at.
DOMAIN = """
<domain type='qemu' id='1'>
  <name>instance-00000001</name>
  <uuid>8b7f9d3e-9d3e-4d55-9e0a-1f0d6c0f2a22</uuid>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
  </os>
  <devices>
    <disk type='file' device='disk'><target dev='sda' bus='scsi'/><serial>root-volume</serial></disk>
    <disk type='file' device='disk'><target dev='vdb' bus='virtio'/><serial>data-volume</serial></disk>
    <disk type='file' device='cdrom'><target dev='sdc' bus='sata'/></disk>
    <controller type='scsi' index='0' model='lsisas1068'/>
    <controller type='usb' index='0' model='piix3-uhci'/>
    <interface type='bridge'><mac address='00:50:56:00:00:01'/><model type='e1000e'/></interface>
  </devices>
</domain>
"""


def differing(wanted: dict[str, str], **found: Any) -> set[tuple[Any, ...]]:
    return {(d["where"], d["field"], d["is"], d.get("volume")) for d in hardware.differences(wanted, **found)}


def test_what_libvirt_says() -> None:
    uuid, found = hardware.of_domain(DOMAIN)
    assert uuid == SERVER
    assert found == {
        "disks": [
            {"device": "sda", "bus": "scsi", "volume": "root-volume"},
            {"device": "vdb", "bus": "virtio", "volume": "data-volume"},
        ],
        "firmware": "uefi",
        "nic_models": ["e1000e"],
        "scsi_models": ["lsisas1068"],
        "machine": "pc-q35-7.2",
    }
    wanted = {"disk_bus": "scsi", "scsi_model": "lsisas1068", "nic_model": "e1000e", "firmware": "uefi", "machine": "q35"}
    assert differing(wanted, domain=found) == {("libvirt", "disk_bus", "virtio", "data-volume")}
    assert differing({**wanted, "machine": "pc-q35-7.2"}, domain=found) == differing(wanted, domain=found)
    other = {"disk_bus": "scsi", "scsi_model": "vmpvscsi", "nic_model": "vmxnet3", "firmware": "bios", "machine": "pc"}
    assert {(d["field"], d["is"]) for d in hardware.differences(other, domain=found) if not d.get("volume")} == {
        ("scsi_model", "lsisas1068"),
        ("nic_model", "e1000e"),
        ("firmware", "uefi"),
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no xml",
        "<domain/>",
        "<domain><uuid>../../etc</uuid></domain>",
        "<other><uuid>8b7f9d3e-9d3e-4d55-9e0a-1f0d6c0f2a22</uuid></other>",
        f'<!DOCTYPE domain [<!ENTITY a "a">]>{DOMAIN}',
        "<domain>" + " " * hardware.MAX_XML + "</domain>",
        "<a>" * 100_000,
        "<domain>\0</domain>",
    ],
)
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="XML of a"):
        hardware.of_domain(text)


@pytest.mark.parametrize(
    ("device", "buses"),
    [
        ("/dev/vda", ("virtio",)),
        ("/dev/hdb", ("ide",)),
        ("sdc", ("scsi", "sata", "usb")),
        ("/dev/xvda", ("xen",)),
        ("/dev/nvme0", ()),
        ("", ()),
    ],
)
def test_names_tell_the_bus(device: str, buses: tuple[str, ...]) -> None:
    assert hardware.bus_of_name(device) == buses


def test_names_that_nova_gave() -> None:
    devices = {"a": "/dev/sda", "b": "/dev/vdb", "c": "/dev/mapper/x"}
    assert differing({"disk_bus": "scsi"}, devices=devices) == {("nova", "disk_bus", "virtio", "b")}
    assert differing({"disk_bus": "sata"}, devices=devices) == {("nova", "disk_bus", "virtio", "b")}
    assert differing({"disk_bus": "ide"}, devices=devices) == {
        ("nova", "disk_bus", "scsi/sata/usb", "a"),
        ("nova", "disk_bus", "virtio", "b"),
    }
    assert differing({}, devices=devices) == set()


def test_properties_of_both_families() -> None:
    scsi = {"disk_bus": "scsi", "scsi_model": "vmpvscsi"}
    assert hardware.of_properties({"vmware_adaptertype": "paraVirtual"}) == scsi
    assert hardware.of_properties({"hw_disk_bus": "scsi", "hw_scsi_model": "VMPVSCSI"}) == scsi
    assert hardware.of_properties({"hw_disk_bus": "virtio", "vmware_adaptertype": "paraVirtual"}) == {"disk_bus": "virtio"}
    assert hardware.of_properties({"vmware_adaptertype": "ide", "os_type": "linux"}) == {"disk_bus": "ide"}
    assert hardware.of_properties({}) == {}
    assert hardware.of_conversion({"disk_bus": "VirtIO", "firmware": "efi", "machine": "q35", "nic_model": None}) == {
        "disk_bus": "virtio",
        "firmware": "uefi",
        "machine": "q35",
    }
    assert differing(scsi, properties={"hw_disk_bus": "ide"}) == {
        ("properties", "disk_bus", "ide", None),
        ("properties", "scsi_model", None, None),
    }


def test_the_user_s_properties_replace_ours_under_any_name() -> None:
    ours = {"hw_disk_bus": "scsi", "hw_scsi_model": "vmpvscsi", "vmware_ostype": "x"}
    assert properties.merge(ours, {"vmware_adaptertype": "ide"}) == {"vmware_adaptertype": "ide", "vmware_ostype": "x"}
    assert properties.merge(ours, {"hw_disk_bus": "sata"}) == {"hw_disk_bus": "sata", "vmware_ostype": "x"}
    assert properties.merge(ours, {"hw_scsi_model": "lsilogic"}) == {
        "hw_disk_bus": "scsi",
        "hw_scsi_model": "lsilogic",
        "vmware_ostype": "x",
    }
    assert properties.merge(ours, {"os_distro": "debian", "hw_disk_bus": ""}) == {"os_distro": "debian"}
