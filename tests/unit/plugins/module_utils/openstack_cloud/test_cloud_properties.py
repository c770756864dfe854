# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import properties

#: nova/objects/fields.py of Nova 34; the lab tests hold the same values against the installed one.
KNOWN = {
    "hw_disk_bus": {"fdc", "ide", "sata", "scsi", "usb", "virtio"},
    "hw_scsi_model": {"buslogic", "ibmvscsi", "lsilogic", "lsisas1068", "lsisas1078", "virtio-scsi", "vmpvscsi"},
    "hw_vif_model": {"virtio", "ne2k_pci", "pcnet", "rtl8139", "e1000", "e1000e", "igb", "vmxnet", "vmxnet3", "sriov"},
    "hw_firmware_type": {"bios", "uefi"},
    "os_type": {"linux", "windows"},
    "os_secure_boot": {"required", "disabled", "optional"},
    "hw_machine_type": {"q35"},
    "vmware_adaptertype": {"lsiLogic", "lsiLogicsas", "busLogic", "paraVirtual", "ide"},
}
CLASSES = [
    "VirtualIDEController",
    "VirtualBusLogicController",
    "VirtualLsiLogicController",
    "VirtualLsiLogicSASController",
    "ParaVirtualSCSIController",
    "VirtualAHCIController",
    "VirtualNVMEController",
    "unknown",
]


def vm(**facts: Any) -> dict[str, Any]:
    return {"guest_id": "debian12_64Guest", "firmware": "bios", "nics": [{"type": "vmxnet3"}], **facts}


@pytest.mark.parametrize("controller", CLASSES)
@pytest.mark.parametrize("firmware", ["bios", "efi"])
@pytest.mark.parametrize("hypervisor", ["kvm", "vmware"])
@pytest.mark.parametrize("hardware", ["source", "virtio"])
@pytest.mark.parametrize("nic", ["e1000", "e1000e", "pcnet32", "vmxnet", "vmxnet2", "vmxnet3", "sriov", "VirtualSomething"])
def test_values_are_nova_s_and_families_do_not_mix(controller: str, firmware: str, hypervisor: str, hardware: str, nic: str) -> None:
    found = properties.for_vm(
        vm(firmware=firmware, secure_boot=True, nics=[{"type": nic}]), {"controller": controller}, hypervisor=hypervisor, hardware=hardware
    )
    for key, values in KNOWN.items():
        assert key not in found or found[key] in values, (key, found)
    assert not ({"vmware_adaptertype"} & set(found) and {"hw_disk_bus", "hw_scsi_model"} & set(found))
    if hypervisor == "kvm":
        assert not [k for k in found if k.startswith("vmware_")]
        assert found.get("hw_disk_bus") == "scsi" or "hw_scsi_model" not in found


def test_source_s_hardware_is_kept_for_kvm() -> None:
    assert properties.for_vm(vm(), {"controller": "ParaVirtualSCSIController"}) == {
        "hw_disk_bus": "scsi",
        "hw_scsi_model": "vmpvscsi",
        "hw_vif_model": "vmxnet3",
        "hw_firmware_type": "bios",
        "os_type": "linux",
        "os_distro": "debian",
        "os_version": "12",
    }


def test_uefi_needs_q35_which_has_no_ide() -> None:
    found = properties.for_vm(vm(firmware="efi"), {"controller": "VirtualIDEController"})
    assert (found["hw_firmware_type"], found["hw_machine_type"], found["hw_disk_bus"]) == ("uefi", "q35", "sata")
    assert "os_secure_boot" not in found


def test_vmware_s_own_driver_wants_the_guest_id() -> None:
    found = properties.for_vm(vm(), {"controller": "VirtualLsiLogicSASController"}, hypervisor="vmware")
    assert found["vmware_adaptertype"] == "lsiLogicsas"
    assert found["vmware_ostype"] == "debian12_64Guest"
    assert "os_distro" not in found


def test_the_user_wins_and_takes_out() -> None:
    found = properties.for_vm(vm(), {"controller": "pvscsi"}, own={"hw_vif_model": "e1000", "os_version": "", "hw_video_model": "vga"})
    assert (found["hw_vif_model"], found["hw_video_model"]) == ("e1000", "vga")
    assert "os_version" not in found


@pytest.mark.parametrize(
    ("guest_id", "wanted"),
    [
        ("ubuntu64Guest", {"os_type": "linux", "os_distro": "ubuntu"}),
        ("rhel9_64Guest", {"os_type": "linux", "os_distro": "rhel", "os_version": "9"}),
        ("rockylinux_64Guest", {"os_type": "linux", "os_distro": "rocky"}),
        ("windows2019srvNext_64Guest", {"os_type": "windows", "os_distro": "windows"}),
        ("winNetStandardGuest", {"os_type": "windows", "os_distro": "windows"}),
        ("freebsd13_64Guest", {"os_distro": "freebsd"}),
        ("other5xLinux64Guest", {"os_type": "linux"}),
        ("otherGuest", {}),
        (None, {}),
    ],
)
def test_guest_ids(guest_id: str | None, wanted: dict[str, str]) -> None:
    assert properties.guest_os(guest_id) == wanted


def test_what_one_set_of_properties_cannot_say() -> None:
    mixed = vm(disks=[{"controller": "a"}, {"controller": "b"}], nics=[{"type": "e1000"}, {"type": "vmxnet3"}])
    assert len(properties.concerns(mixed)) == 2
