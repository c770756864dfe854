# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Image properties for a virtual machine that comes from VMware: which hardware its server gets. Pure.

Sources: Glance's "Useful image properties" (hw_*, os_*, vmware_*) and the enums of nova/objects/fields.py; a test holds every
value against the installed Nova. Where C(vmware_adaptertype) and C(hw_scsi_model) are both set, Nova lets C(hw_*) win: only
one of the families is ever written, the one of the target's hypervisor.
"""

from __future__ import annotations

import re
from typing import Any, Mapping, Sequence

from ..disk import controllers

#: Network cards by their names in .vmx files, to hw_vif_model. vmxnet3 and e1000e are emulated by QEMU.
NIC_MODELS = {
    "e1000": "e1000",
    "e1000e": "e1000e",
    "pcnet32": "pcnet",
    "vmxnet": "pcnet",  # QEMU has no vmxnet 1 and 2; their hardware shows itself as a pcnet card until its driver takes over
    "vmxnet2": "pcnet",
    "vmxnet3": "vmxnet3",
    "vmxnet3vrdma": "vmxnet3",
}
#: The same for the VMware driver of Nova, whose enum knows its own old names too.
VMWARE_NIC_MODELS = {"e1000": "e1000", "e1000e": "e1000e", "pcnet32": "pcnet", "vmxnet": "vmxnet", "vmxnet3": "vmxnet3", "sriov": "sriov"}

#: Guest ids of vSphere (without _64Guest, Guest), to os_distro of Glance's list. The rest of the id is the version.
_DISTROS: tuple[tuple[str, str], ...] = (
    ("debian", "debian"),
    ("ubuntu", "ubuntu"),
    ("rhel", "rhel"),
    ("centos", "centos"),
    ("rockylinux", "rocky"),
    ("almalinux", "alma"),
    ("oraclelinux", "ol"),
    ("fedora", "fedora"),
    ("sles", "sles"),
    ("opensuse", "opensuse"),
    ("amazonlinux", "amazonlinux"),
    ("freebsd", "freebsd"),
    ("windows", "windows"),
    ("win", "windows"),
)
_LINUX = {"debian", "ubuntu", "rhel", "centos", "rocky", "alma", "ol", "fedora", "sles", "opensuse", "amazonlinux"}
#: Guest ids of Linuxes that have no name of their own there.
_OTHER_LINUX = re.compile(
    r"^(other\w*linux|linux|asianux|vmwarephoton|crxpod|coreos|mandriva|mandrake|turbolinux|suse|redhat|nld|oes|sjds)", re.IGNORECASE
)


def guest_os(guest_id: str | None) -> dict[str, str]:
    """os_type, os_distro and os_version of a vSphere guest id (VirtualMachineGuestOsIdentifier), as far as it tells them."""
    name = re.sub(r"(_?64)?_?guest$", "", (guest_id or "").strip(), flags=re.IGNORECASE)
    for prefix, distro in _DISTROS:
        if not name.lower().startswith(prefix):
            continue
        found = {"os_distro": distro}
        if distro in _LINUX:
            found["os_type"] = "linux"
            version = re.match(r"\d+", name[len(prefix) :])
            if version:
                found["os_version"] = version.group()
        elif distro == "windows":
            found["os_type"] = "windows"
        return found
    return {"os_type": "linux"} if _OTHER_LINUX.match(name) else {}


def controller_of(disk: Mapping[str, Any]) -> controllers.Controller | None:
    """The controller of a disk's facts: vSphere's class (ParaVirtualSCSIController), or a name of the table (pvscsi)."""
    text = str(disk.get("controller") or "")
    return controllers.by_device_class(text) or controllers.find(text)


def for_vm(
    vm: Mapping[str, Any],
    root: Mapping[str, Any],
    *,
    hypervisor: str = "kvm",
    hardware: str = "source",
    own: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The image properties of the image or volume that the server boots from.

    :param vm: facts of the VM (guest_id, firmware, secure_boot, nics).
    :param root: facts of its root disk (controller).
    :param hypervisor: C(kvm) or C(vmware), that of the target.
    :param hardware: C(source) keeps controller and card as near as the target has them, so that a guest that was not
        converted finds its disks; C(virtio) is for guests that have the drivers.
    :param own: the user's: they win, and an empty value takes a property out.
    """
    found = guest_os(vm.get("guest_id"))
    uefi = str(vm.get("firmware") or "bios").lower() in ("efi", "uefi")
    nics: Sequence[Mapping[str, Any]] = vm.get("nics") or ()
    nic = str(nics[0].get("type") or "").lower() if nics else ""
    if hypervisor == "vmware":
        adapter = controller_of(root)
        if adapter and adapter.vmware_adaptertype:
            found["vmware_adaptertype"] = adapter.vmware_adaptertype
        if vm.get("guest_id"):
            # Nova reads vmware_ostype as os_distro, and prefers the latter where both are there; its driver wants the guest id.
            found.pop("os_distro", None)
            found["vmware_ostype"] = str(vm["guest_id"])
        if nic in VMWARE_NIC_MODELS:
            found["hw_vif_model"] = VMWARE_NIC_MODELS[nic]
    else:
        found.update({"hw_disk_bus": "virtio"} if hardware == "virtio" else _bus(controller_of(root), uefi))
        model = "virtio" if hardware == "virtio" else NIC_MODELS.get(nic)
        if model:
            found["hw_vif_model"] = model
        if uefi:
            found["hw_machine_type"] = "q35"  # the only machine of QEMU that libvirt boots with UEFI and secure boot alike
            if vm.get("secure_boot"):
                found["os_secure_boot"] = "required"
    found["hw_firmware_type"] = "uefi" if uefi else "bios"
    found.update({str(k): str(v) for k, v in (own or {}).items()})
    return {k: v for k, v in sorted(found.items()) if v != ""}


def _bus(controller: controllers.Controller | None, uefi: bool) -> dict[str, str]:
    if controller is None:
        return {}
    if controller.name == "nvme":
        return {"hw_disk_bus": "virtio"}  # Nova has no NVMe bus
    if controller.name == "ide" and uefi:
        return {"hw_disk_bus": "sata"}  # QEMU's q35 machine has no IDE
    if controller.hw_scsi_model:
        return {"hw_disk_bus": controller.hw_disk_bus, "hw_scsi_model": controller.hw_scsi_model}
    return {"hw_disk_bus": controller.hw_disk_bus}


def concerns(vm: Mapping[str, Any]) -> list[str]:
    """What one set of image properties cannot say of this VM: Nova knows one bus and one card model per server."""
    found = []
    kinds = {str(d.get("controller") or "") for d in vm.get("disks") or ()}
    if len(kinds) > 1:
        found.append(f"its disks hang on different controllers ({', '.join(sorted(kinds))}); in OpenStack all get the root disk's")
    cards = {str(n.get("type") or "") for n in vm.get("nics") or ()}
    if len(cards) > 1:
        found.append(f"its network cards are of different types ({', '.join(sorted(cards))}); in OpenStack all get the first one's")
    return found
