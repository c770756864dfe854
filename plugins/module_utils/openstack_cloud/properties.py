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
from ..errors import bounded
from .finding import Finding

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

#: What Nova knows of each property (nova/objects/fields.py, nova/virt/vmwareapi/constants.py); it refuses a server from an image
#: with any other value. A lab test holds this table against the installed Nova. Free words (hw_machine_type, os_distro) are not here.
KNOWN: Mapping[str, tuple[str, ...]] = {
    "hw_disk_bus": ("fdc", "ide", "lxc", "sata", "scsi", "uml", "usb", "virtio", "xen"),
    "hw_scsi_model": ("buslogic", "ibmvscsi", "lsilogic", "lsisas1068", "lsisas1078", "virtio-scsi", "vmpvscsi"),
    "hw_vif_model": (
        "e1000",
        "e1000e",
        "igb",
        "lan9118",
        "ne2k_pci",
        "netfront",
        "pcnet",
        "rtl8139",
        "spapr-vlan",
        "sriov",
        "virtio",
        "vmxnet",
        "vmxnet3",
    ),
    "hw_firmware_type": ("bios", "uefi"),
    "os_type": ("linux", "windows"),
    "os_secure_boot": ("disabled", "optional", "required"),
    "vmware_adaptertype": ("busLogic", "ide", "lsiLogic", "lsiLogicsas", "paraVirtual"),
}
#: Properties that Nova reads in any case.
_ANY_CASE = ("hw_scsi_model", "hw_vif_model", "os_type")
#: Nova knows these, and its libvirt driver, or QEMU on x86, has them not.
_NOT_KVM = {
    "hw_disk_bus": ("lxc", "uml", "xen"),
    "hw_scsi_model": ("buslogic", "ibmvscsi"),
    "hw_vif_model": ("lan9118", "netfront", "spapr-vlan", "sriov", "vmxnet"),
}
#: Nova's VMware driver takes its adapter from a bus and a model of these, and its card from this list.
_VMWARE_MODELS = ("buslogic", "lsilogic", "lsisas1068", "vmpvscsi")
_VMWARE_CARDS = ("e1000", "e1000e", "pcnet", "sriov", "vmxnet", "vmxnet3")
#: Properties that say one thing twice: Nova takes the second where both are there (ImageMetaProps.from_dict).
_LEGACY = (("vmware_ostype", "os_distro"), ("vmware_disktype", "hw_disk_type"))
#: Properties that say which hardware a server gets.
HARDWARE = (
    "hw_disk_bus",
    "hw_scsi_model",
    "hw_vif_model",
    "hw_firmware_type",
    "hw_machine_type",
    "os_secure_boot",
    "vmware_adaptertype",
    "vmware_ostype",
)

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
    guest: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The image properties of the image or volume that the server boots from.

    :param vm: facts of the VM (guest_id, firmware, secure_boot, nics).
    :param root: facts of its root disk (controller).
    :param hypervisor: C(kvm) or C(vmware), that of the target.
    :param hardware: C(source) keeps controller and card as near as the target has them, so that a guest that was not
        converted finds its disks; C(virtio) is for guests that have the drivers.
    :param own: the user's: they win, and an empty value takes a property out.
    :param guest: what the guest needs now that it was converted (guests.needs); it wins over C(hardware).
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
        found.update({"hw_disk_bus": "virtio"} if hardware == "virtio" else _bus(controller_of(root), uefi, len(vm.get("disks") or ())))
        model = "virtio" if hardware == "virtio" else NIC_MODELS.get(nic)
        if model:
            found["hw_vif_model"] = model
        if uefi:
            found["hw_machine_type"] = "q35"  # the only machine of QEMU that libvirt boots with UEFI and secure boot alike
            if vm.get("secure_boot"):
                found["os_secure_boot"] = "required"
        if guest:
            found.pop("hw_scsi_model", None)
            found.update({"hw_disk_bus": guest["disk_bus"], "hw_vif_model": guest["nic_model"]})
            if guest["disk_bus"] == "ide":
                found["hw_machine_type"] = "pc"  # whatever the cloud's own machine is: q35 has no IDE
    found["hw_firmware_type"] = "uefi" if uefi else "bios"
    return merge(found, own)


def merge(found: Mapping[str, str], own: Mapping[str, Any] | None) -> dict[str, str]:
    """C(found) with the user's properties, which win: what they replace under another name goes. An empty value takes one out."""
    mine = {str(k): str(v) for k, v in (own or {}).items()}
    kept = dict(found)
    if "vmware_adaptertype" in mine or "hw_disk_bus" in mine or "hw_scsi_model" in mine:
        kept.pop("vmware_adaptertype", None)
    if "vmware_adaptertype" in mine:
        kept.pop("hw_disk_bus", None)
    if "vmware_adaptertype" in mine or mine.get("hw_disk_bus", "scsi") != "scsi":
        kept.pop("hw_scsi_model", None)
    for old, new in _LEGACY:
        if old in mine or new in mine:
            kept.pop(old, None)
            kept.pop(new, None)
    kept.update(mine)
    return {k: v for k, v in sorted(kept.items()) if v != ""}


def faults(found: Mapping[str, str], hypervisor: str) -> list[str]:
    """Why Nova would refuse these properties, or take something else than they seem to say; empty where nothing is wrong."""
    wrong = []
    for key, values in KNOWN.items():
        value = str(found.get(key, ""))
        if value and (value.lower() if key in _ANY_CASE else value) not in values:
            wrong.append(f"Nova knows no {key} {bounded(value, 60)!r}; it knows {', '.join(values)}")
    if wrong:
        return wrong
    adapter = controllers.find(found["vmware_adaptertype"]) if found.get("vmware_adaptertype") else None
    bus, model = found.get("hw_disk_bus"), str(found.get("hw_scsi_model") or "").lower() or None
    if adapter and ((model or adapter.hw_scsi_model) != adapter.hw_scsi_model or (bus or adapter.hw_disk_bus) != adapter.hw_disk_bus):
        wrong.append("two controllers are named: where hw_disk_bus or hw_scsi_model is set, Nova does not look at vmware_adaptertype")
    for old, new in _LEGACY:
        if found.get(old) and found.get(new) and found[old] != found[new]:
            wrong.append(f"{old} is {bounded(found[old], 60)!r} and {new} {bounded(found[new], 60)!r}: Nova reads the second for both")
    if model and bus and bus != "scsi":
        wrong.append(f"hw_scsi_model says nothing where hw_disk_bus is {bus}")
    if hypervisor == "kvm":
        wrong += [f"under KVM there is no {key} {found[key]}" for key, none in _NOT_KVM.items() if str(found.get(key, "")).lower() in none]
        if bus == "ide" and "q35" in str(found.get("hw_machine_type", "")):
            wrong.append("QEMU's machine q35 has no IDE: hw_disk_bus sata is the nearest")
        if found.get("os_secure_boot") == "required" and found.get("hw_firmware_type", "uefi") != "uefi":
            wrong.append("secure boot needs hw_firmware_type uefi")
    else:
        if bus and bus not in ("ide", "scsi"):
            wrong.append(f"Nova's VMware driver has no disk bus {bus}: it would take lsiLogic")
        if bus == "scsi" and model not in _VMWARE_MODELS:
            wrong.append(f"Nova's VMware driver needs with hw_disk_bus scsi one of these hw_scsi_model: {', '.join(_VMWARE_MODELS)}")
        card = str(found.get("hw_vif_model") or "").lower()
        if card and card not in _VMWARE_CARDS:
            wrong.append(f"Nova's VMware driver has no card {card}; it has {', '.join(_VMWARE_CARDS)}")
    return wrong


#: Disks that a server can have on a SCSI model of QEMU's under Nova. libvirt numbers them as units of one target, of which pvscsi knows
#: one (QEMU, hw/scsi/vmw_pvscsi.c, max_lun): with a second one the server ends in ERROR, "bad scsi device lun". And mptsas has SAS
#: addresses only for disks with a world wide name, which Nova gives none: Linux's driver sees no disk at all.
SCSI_DISKS = {"vmpvscsi": 1, "lsisas1068": 0}


def _crowded(controller: controllers.Controller | None, disks: int) -> bool:
    """Whether QEMU's model of the controller cannot have so many disks under Nova. C(disks): 0 where they are not known (an image)."""
    model = controller.hw_scsi_model if controller else None
    return bool(model) and disks > SCSI_DISKS.get(str(model), disks)


def _bus(controller: controllers.Controller | None, uefi: bool, disks: int = 0) -> dict[str, str]:
    if controller is None:
        return {}
    if controller.name == "nvme":
        return {"hw_disk_bus": "virtio"}  # Nova has no NVMe bus
    if controller.name == "buslogic":
        return {"hw_disk_bus": "sata" if uefi else "ide"}  # QEMU emulates no BusLogic; guests of its time know IDE
    if controller.name == "ide" and uefi:
        return {"hw_disk_bus": "sata"}  # QEMU's q35 machine has no IDE
    if _crowded(controller, disks):
        return {"hw_disk_bus": "sata"}  # AHCI: of all that takes more disks, what most guests have a driver for
    if controller.hw_scsi_model:
        return {"hw_disk_bus": controller.hw_disk_bus, "hw_scsi_model": controller.hw_scsi_model}
    return {"hw_disk_bus": controller.hw_disk_bus}


def concerns(vm: Mapping[str, Any]) -> list[str]:
    """What one set of image properties cannot say of this VM: Nova knows one bus and one card model per server."""
    found: list[str] = []
    if any((c := controller_of(d)) and c.name == "buslogic" for d in vm.get("disks") or ()):
        text = "QEMU emulates no BusLogic controller: under KVM its disks are on IDE, which takes four of them"
        found.append(Finding("ferry.controller.missing", text))
    disks = vm.get("disks") or ()
    if disks and _crowded(controller_of(disks[0]), len(disks)):
        text = (
            f"QEMU's {disks[0].get('controller')} cannot have {len(disks)} disk(s) under Nova: under KVM they are on SATA (AHCI), for which"
            " the guest needs a driver when it starts; with hardware: virtio, or hw_disk_bus of your own, they are on that"
        )
        found.append(Finding("ferry.controller.crowded", text))
    kinds = {str(d.get("controller") or "") for d in vm.get("disks") or ()}
    if len(kinds) > 1:
        text = f"its disks hang on different controllers ({', '.join(sorted(kinds))}); in OpenStack all get the root disk's"
        found.append(Finding("ferry.controller.mixed", text))
    cards = {str(n.get("type") or "") for n in vm.get("nics") or ()}
    if len(cards) > 1:
        text = f"its network cards are of different types ({', '.join(sorted(cards))}); in OpenStack all get the first one's"
        found.append(Finding("ferry.nic.mixed", text))
    return found
