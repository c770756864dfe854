# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of disk controllers at every stop of a disk's way: one table, in one place.

Sources: vSphere Web Services API (VirtualController and its subclasses); Virtual Disk Format 5.0, "The Disk Database"
(C(ddb.adapterType)); OpenStack Compute's image properties C(vmware_adaptertype), C(hw_disk_bus), C(hw_scsi_model)
(nova/objects/fields.py, nova/virt/vmwareapi/constants.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import BadInput


@dataclass(frozen=True)
class Controller:
    """One kind of controller.

    :param name: our name, the value of the option C(adapter_type).
    :param device_classes: class names of vSphere's virtual device.
    :param ddb: value of C(ddb.adapterType) in a descriptor; None where VMDK has no word for it.
    :param vmware_adaptertype: Nova's image property under VMware; None where that driver has no such adapter.
    :param hw_disk_bus: Nova's image property under libvirt.
    :param hw_scsi_model: the same, None where the bus is not SCSI.
    """

    name: str
    device_classes: tuple[str, ...]
    ddb: str | None
    vmware_adaptertype: str | None
    hw_disk_bus: str
    hw_scsi_model: str | None = None


#: VMDK names pvscsi and lsisas1068 by their own words, as vmkfstools and KIWI do; C(legacyESX) (adapter not known) reads as lsilogic.
CONTROLLERS: tuple[Controller, ...] = (
    Controller("ide", ("VirtualIDEController",), "ide", "ide", "ide"),
    Controller("buslogic", ("VirtualBusLogicController",), "buslogic", "busLogic", "scsi", "buslogic"),
    Controller("lsilogic", ("VirtualLsiLogicController",), "lsilogic", "lsiLogic", "scsi", "lsilogic"),
    Controller("lsisas1068", ("VirtualLsiLogicSASController",), "lsisas1068", "lsiLogicsas", "scsi", "lsisas1068"),
    Controller("pvscsi", ("ParaVirtualSCSIController",), "pvscsi", "paraVirtual", "scsi", "vmpvscsi"),
    Controller("sata", ("VirtualAHCIController", "VirtualSATAController"), None, None, "sata"),
    # Nova has no NVMe bus; virtio is its fastest.
    Controller("nvme", ("VirtualNVMEController",), None, None, "virtio"),
)

#: Controllers that a VMDK can name: the choices of C(adapter_type).
VMDK_ADAPTERS: tuple[str, ...] = tuple(c.name for c in CONTROLLERS if c.ddb)

_ALIASES = {
    "legacyesx": "lsilogic",
    "lsisas": "lsisas1068",
    "lsilogicsas": "lsisas1068",
    "lsilogicsas1068": "lsisas1068",
    "paravirtual": "pvscsi",
    "paravirtualscsi": "pvscsi",
    "vmpvscsi": "pvscsi",
    "ahci": "sata",
}


def by_name(name: str) -> Controller:
    """The controller of C(name): ours, C(ddb.adapterType)'s or Nova's, in any case; BadInput lists the known ones."""
    found = find(name)
    if found is None:
        raise BadInput(f"Unknown disk controller {name}.", known=[c.name for c in CONTROLLERS])
    return found


def find(name: str) -> Controller | None:
    """As by_name, None where there is no such controller."""
    key = name.strip().lower()
    key = _ALIASES.get(key, key)
    if not key:
        return None
    for c in CONTROLLERS:
        if key in (c.name, (c.ddb or "").lower(), (c.vmware_adaptertype or "").lower()):
            return c
    return None


def by_device_class(name: str) -> Controller | None:
    """The controller of vSphere's device class C(name), with or without a C(vim.vm.device.) before it."""
    short = name.rsplit(".", maxsplit=1)[-1]
    return next((c for c in CONTROLLERS if short in c.device_classes), None)
