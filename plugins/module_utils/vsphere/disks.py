# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual disks and network cards of a VM, as plain data. Pure functions of what the property collector read.

Vendor reference: vSphere Web Services API, VirtualDisk, VirtualDeviceBackingInfo and VirtualEthernetCard.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Callable, Iterable, Sequence
from urllib.parse import quote

from ..disk.controllers import by_device_class
from ..errors import BadInput, bounded
from .properties import moref_of
from .tree import shown

#: API class of a network card, to the name that ddb and .vmx files have (and Nova's hw_vif_model is near to).
NIC_TYPES = {
    "VirtualE1000": "e1000",
    "VirtualE1000e": "e1000e",
    "VirtualPCNet32": "pcnet32",
    "VirtualVmxnet": "vmxnet",
    "VirtualVmxnet2": "vmxnet2",
    "VirtualVmxnet3": "vmxnet3",
    "VirtualVmxnet3Vrdma": "vmxnet3vrdma",
    "VirtualSriovEthernetCard": "sriov",
}

#: Names of devices' backing classes, without what they all have around them.
_BACKING = re.compile(r"^Virtual(?:Disk)?(.*?)BackingInfo$")

_ADDRESS = re.compile(r"^(scsi|ide|sata|nvme)(\d{1,2})[:.](\d{1,3})$", re.IGNORECASE)


@dataclass(frozen=True)
class VmDisk:
    """One virtual disk.

    C(path), C(chain): datastore paths, "[datastore] folder/name.vmdk"; C(chain) goes from the running disk down to its base.
    C(capacity): bytes. C(controller): the API's class; C(adapter): our name of it (disk/controllers.py). C(address): scsi0:1.
    C(datacenter): for dcPath (see folder_url). C(thin), C(eager): None where the backing does not say.
    C(uuid): of the disk itself, as the guest may see it.
    """

    key: int
    label: str
    address: str
    controller: str
    controller_kind: str
    adapter: str | None
    bus: int
    unit: int
    capacity: int
    path: str
    chain: tuple[str, ...]
    datastore: str
    datastore_moref: str | None
    datastore_type: str | None
    datacenter: str | None
    backing: str
    uuid: str | None
    thin: bool | None
    eager: bool | None
    mode: str | None
    sharing: str | None
    change_id: str | None
    encrypted: bool
    rdm_mode: str | None
    content_id: str | None
    #: How the controller's bus is shared among VMs (VirtualSCSISharing); None where it is not.
    bus_sharing: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "chain": list(self.chain)}

    def url(self, path: str | None = None) -> str:
        """The path of this disk's descriptor (or of C(path) beside it) below the server, for HTTP: see folder_url."""
        return folder_url(path or self.path, self.datacenter, self.datastore)


@dataclass(frozen=True)
class VmNic:
    """One network card. C(network): the port group's or network's name; C(portgroup): its key on a distributed switch."""

    key: int
    label: str
    mac: str | None
    type: str
    network: str | None
    network_moref: str | None
    portgroup: str | None
    connected: bool
    start_connected: bool
    addresses: tuple[str, ...]
    #: Its PCI slot number, after which guests with systemd name it (ens192).
    slot: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "addresses": list(self.addresses)}


def split_path(path: str, datastore: str | None = None) -> tuple[str, str]:
    """(datastore, file) of a datastore path "[datastore] folder/file"; BadInput for anything else.

    :param datastore: the datastore's name where it is known: it may hold brackets itself.
    """
    if datastore is not None and path.startswith(f"[{datastore}]"):
        return datastore, path[len(datastore) + 2 :].lstrip(" ")
    name, bracket, file = path[1:].partition("]")
    if not path.startswith("[") or not bracket or not name:
        raise BadInput(f"{bounded(path, 200)} is no datastore path ([datastore] folder/file).")
    return name, file.lstrip(" ")


def folder_url(path: str, datacenter: str | None, datastore: str | None = None) -> str:
    """The path and query of a datastore file below the server: /folder/a/b.vmdk?dcPath=...&dsName=...

    Vendor reference: vSphere Web Services SDK Programming Guide, "HTTP Access to vSphere Server Files".

    :param path: "[datastore] folder/file".
    :param datacenter: the datacenter's path without a leading slash, folders above it included ("folder/DC0"); None on an ESXi
        host of its own, whose only datacenter is called ha-datacenter.
    """
    name, file = split_path(path, datastore)
    return f"/folder/{quote(file)}?dcPath={quote(datacenter or 'ha-datacenter', safe='')}&dsName={quote(name, safe='')}"


def _leaf(kind: str) -> str:
    found = _BACKING.match(kind)
    return found.group(1) if found and found.group(1) else kind


def _label(device: Any) -> str:
    info = getattr(device, "deviceInfo", None)
    return str(getattr(info, "label", None) or f"device {device.key}")


def _chain(backing: Any) -> tuple[str, ...]:
    """File names from the running disk to its base; the depth is bounded, vSphere allows 32 snapshots."""
    found: list[str] = []
    while backing is not None and len(found) < 256:
        found.append(str(getattr(backing, "fileName", None) or getattr(backing, "deviceName", None) or ""))
        backing = getattr(backing, "parent", None)
    return tuple(found)


def map_disks(devices: Iterable[Any], datastores: Callable[[str], tuple[str | None, str | None]], datacenter: str | None) -> list[VmDisk]:
    """The disks among C(devices) (config.hardware.device), by controller, bus and unit: the order of a VM's boot and of the client.

    :param datastores: gives (name, type) for a datastore's MoRef.
    """
    devices = list(devices)
    by_key = {d.key: d for d in devices}
    found = []
    for device in devices:
        if device._wsdlName != "VirtualDisk":
            continue
        controller = by_key.get(device.controllerKey)
        kind = controller._wsdlName if controller is not None else "unknown"
        known = by_device_class(kind)
        prefix = "unknown" if known is None else "scsi" if known.hw_scsi_model else known.name
        bus = int(getattr(controller, "busNumber", None) or 0)
        unit = int(device.unitNumber or 0)
        backing = device.backing
        chain = _chain(backing)
        ref = getattr(backing, "datastore", None)
        moref = moref_of(ref) if ref is not None else None
        name, ds_type = datastores(moref) if moref else (None, None)
        if name is None:
            name = chain[0][1:].partition("]")[0] if chain[0].startswith("[") else ""
        capacity = device.capacityInBytes
        found.append(
            VmDisk(
                key=int(device.key),
                label=_label(device),
                address=f"{prefix}{bus}:{unit}",
                controller=kind,
                controller_kind=prefix,
                adapter=known.name if known else None,
                bus=bus,
                unit=unit,
                capacity=int(capacity) if capacity else int(device.capacityInKB or 0) * 1024,
                path=chain[0],
                chain=chain,
                datastore=name,
                datastore_moref=moref,
                datastore_type=ds_type,
                datacenter=datacenter,
                backing=_leaf(backing._wsdlName),
                uuid=getattr(backing, "uuid", None) or None,
                thin=getattr(backing, "thinProvisioned", None),
                eager=getattr(backing, "eagerlyScrub", None),
                mode=getattr(backing, "diskMode", None) or None,
                sharing=getattr(backing, "sharing", None) or None,
                change_id=getattr(backing, "changeId", None) or None,
                encrypted=getattr(backing, "keyId", None) is not None,
                rdm_mode=getattr(backing, "compatibilityMode", None) or None,
                content_id=getattr(backing, "contentId", None) or None,
                bus_sharing=shared if (shared := str(getattr(controller, "sharedBus", None) or "noSharing")) != "noSharing" else None,
            )
        )
    order = {"ide": 0, "scsi": 1, "sata": 2, "nvme": 3}
    return sorted(found, key=lambda d: (order.get(d.controller_kind, 9), d.bus, d.unit, d.key))


def map_nics(devices: Iterable[Any], networks: Callable[[str], str | None], guest_net: Iterable[Any] = ()) -> list[VmNic]:
    """The network cards among C(devices), in vSphere's order: "Network adapter 1" is the one with the lowest key.

    :param networks: gives the name of a network by its MoRef, port group key or opaque network id.
    :param guest_net: guest.net, what VMware Tools tell about addresses.
    """
    addresses = {n.deviceConfigId: tuple(str(a) for a in n.ipAddress or ()) for n in guest_net or ()}
    found = []
    for device in devices:
        if not hasattr(device, "macAddress"):
            continue
        backing = device.backing
        moref = portgroup = name = None
        ref = getattr(backing, "network", None)
        port = getattr(backing, "port", None)
        if ref is not None:
            moref = moref_of(ref)
        elif port is not None:
            portgroup = port.portgroupKey
            # vCenter makes a distributed port group's key from its MoRef
            moref = portgroup
        opaque = getattr(backing, "opaqueNetworkId", None)
        for known in (moref, opaque):
            if known and name is None:
                name = networks(known)
        connectable = device.connectable
        found.append(
            VmNic(
                key=int(device.key),
                label=_label(device),
                mac=device.macAddress.lower() if device.macAddress else None,
                type=NIC_TYPES.get(device._wsdlName, device._wsdlName),
                network=name or (shown(backing.deviceName) if getattr(backing, "deviceName", None) else None),
                network_moref=moref,
                portgroup=portgroup,
                connected=bool(connectable and connectable.connected),
                start_connected=bool(connectable and connectable.startConnected),
                addresses=addresses.get(device.key, ()),
                slot=getattr(getattr(device, "slotInfo", None), "pciSlotNumber", None),
            )
        )
    return sorted(found, key=lambda n: n.key)


def _plain_uuid(text: str) -> str:
    return re.sub(r"[^0-9a-f]", "", text.lower())


def find_disk(disks: Sequence[VmDisk], wanted: str | int, vm: str | None = None) -> VmDisk:
    """The one of C(disks) that C(wanted) names: label (Hard disk 1), key (2000), uuid, or address (scsi0:0, ide0:1, sata0:0, nvme0:0).

    :raises BadInput: none or more than one; the message lists the disks there are.
    """
    text = str(wanted).strip()
    address = _ADDRESS.match(text)
    tests: list[Callable[[VmDisk], bool]] = [lambda d: d.label.casefold() == text.casefold()]
    if text.isdigit():
        tests.append(lambda d: d.key == int(text))
    if address:
        tests.append(lambda d: d.address == f"{address[1].lower()}{int(address[2])}:{int(address[3])}")
    if len(_plain_uuid(text)) == 32:
        tests.append(lambda d: bool(d.uuid) and _plain_uuid(d.uuid or "") == _plain_uuid(text))
    found = [d for d in disks if any(test(d) for test in tests)]
    if len(found) == 1:
        return found[0]
    there = "; ".join(f"{d.label} (key {d.key}, {d.address}, {d.capacity} bytes, {d.path})" for d in (found or disks)) or "none at all"
    if found:
        raise BadInput(f"{len(found)} disks answer to {bounded(text, 80)}: {there}.", vm=vm, disk=text, step="find the disk")
    raise BadInput(f"No disk answers to {bounded(text, 80)}. There are: {there}.", vm=vm, disk=text, step="find the disk")
