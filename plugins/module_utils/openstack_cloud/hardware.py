# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hardware of a server, as image properties say it, as Nova names its disks, as libvirt's XML has it; and what differs. Pure.

Sources: nova/virt/libvirt/blockinfo.py (get_dev_prefix_for_disk_bus: which names a bus gives), libvirt's "Domain XML format".
"""

from __future__ import annotations

import re
from typing import Any, Mapping
from xml.etree import ElementTree

from ..disk import controllers
from ..errors import BadInput, bounded

#: Bytes of a domain's XML that are read at most; real ones have some ten thousand.
MAX_XML = 1 << 20
#: What is compared, by the properties that say it.
FIELDS = {
    "hw_disk_bus": "disk_bus",
    "hw_scsi_model": "scsi_model",
    "hw_vif_model": "nic_model",
    "hw_firmware_type": "firmware",
    "hw_machine_type": "machine",
}
#: Beginnings of the names under which libvirt's driver attaches disks, and the buses that have them.
_NAMES = {"vd": ("virtio",), "hd": ("ide",), "sd": ("scsi", "sata", "usb"), "fd": ("fdc",), "xvd": ("xen",)}


def of_properties(found: Mapping[str, Any]) -> dict[str, str]:
    """The hardware that image properties ask for, in Nova's words of the C(hw_) family; what they do not say is left out."""
    said = {field: str(found[key]) for key, field in FIELDS.items() if found.get(key)}
    adapter = controllers.find(str(found["vmware_adaptertype"])) if found.get("vmware_adaptertype") else None
    if adapter is not None:  # as Nova reads it; the hw_ family wins
        said.setdefault("disk_bus", adapter.hw_disk_bus)
        if adapter.hw_scsi_model and said["disk_bus"] == "scsi":
            said.setdefault("scsi_model", adapter.hw_scsi_model)
    for field in ("scsi_model", "nic_model"):  # these Nova reads in any case
        if field in said:
            said[field] = said[field].lower()
    return said


def of_conversion(target: Mapping[str, Any]) -> dict[str, str]:
    """The hardware that a converted guest needs: C(target) of vm_guest_convert (disk_bus, nic_model, firmware, machine)."""
    fields = ("disk_bus", "scsi_model", "nic_model", "firmware", "machine")
    said = {field: str(target[field]).lower() for field in fields if target.get(field)}
    if said.get("firmware") == "efi":
        said["firmware"] = "uefi"
    return said


def of_domain(text: str) -> tuple[str, dict[str, Any]]:
    """(the server's id, its hardware) from libvirt's XML of a domain.

    C(disks) has for each disk its device name, bus and the volume's id (C(serial)); the rest is what all of them have.

    :raises BadInput: it is no such XML, too long, or has a DOCTYPE.
    """
    step = "read the domain's XML"
    if len(text) > MAX_XML or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadInput("This XML of a domain is refused: it is too long, or has a DOCTYPE.", step=step)
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError) as e:
        raise BadInput("This is no XML of a libvirt domain.", step=step, said=f"{e}: {bounded(text, 120)}") from e
    uuid = (root.findtext("uuid") or "").strip().lower()
    if root.tag != "domain" or not re.fullmatch(r"[0-9a-f-]{36}", uuid):
        raise BadInput("This is no XML of a libvirt domain: it has no uuid.", step=step, said=bounded(text, 120))
    disks = []
    for disk in root.iterfind("devices/disk"):
        target = disk.find("target")
        if disk.get("device", "disk") == "disk" and target is not None:
            serial = (disk.findtext("serial") or "").strip()
            disks.append({"device": str(target.get("dev")), "bus": str(target.get("bus")), "volume": serial})
    models = {str(c.get("model")) for c in root.iterfind("devices/controller") if c.get("type") == "scsi" and c.get("model")}
    cards = [str(m.get("type")) for m in root.iterfind("devices/interface/model")]
    system = root.find("os")
    loader = system.find("loader") if system is not None else None
    uefi = (system is not None and system.get("firmware") == "efi") or (loader is not None and loader.get("type") == "pflash")
    kind = system.find("type") if system is not None else None
    found: dict[str, Any] = {"disks": disks, "firmware": "uefi" if uefi else "bios", "nic_models": sorted(set(cards))}
    if models:
        found["scsi_models"] = sorted(models)
    if kind is not None and kind.get("machine"):
        found["machine"] = str(kind.get("machine"))
    return uuid, found


def bus_of_name(device: str) -> tuple[str, ...]:
    """Buses that a disk attached as C(device) (/dev/sda) may be on; none where the name does not tell."""
    name = re.match(r"(xvd|vd|hd|sd|fd)[a-z]", device.removeprefix("/dev/"))
    return _NAMES[name[1]] if name else ()


def differences(
    wanted: Mapping[str, str],
    *,
    properties: Mapping[str, Any] | None = None,
    devices: Mapping[str, str] | None = None,
    domain: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """What is not as C(wanted), each with C(where), C(field), C(is), C(should), and C(volume) where it is of one disk.

    :param properties: those of the volume or image that the server boots from.
    :param devices: volume's id to the name that Nova attached it under.
    :param domain: see of_domain().
    """
    rows: list[dict[str, Any]] = []

    def note(where: str, field: str, is_: Any, **more: Any) -> None:
        rows.append({"where": where, "field": field, "is": is_, "should": wanted[field], **more})

    if properties is not None:
        has = of_properties(properties)
        for field, should in wanted.items():
            if has.get(field) != should:
                note("properties", field, has.get(field))
    bus = wanted.get("disk_bus")
    for volume, device in (devices or {}).items():
        possible = bus_of_name(device)
        if bus and possible and bus not in possible:
            note("nova", "disk_bus", "/".join(possible), volume=volume, device=device)
    if domain is not None:
        _domain(domain, wanted, note)
    return rows


def _domain(domain: Mapping[str, Any], wanted: Mapping[str, str], note: Any) -> None:
    for disk in domain["disks"]:
        if wanted.get("disk_bus") and disk["bus"] != wanted["disk_bus"]:
            note("libvirt", "disk_bus", disk["bus"], volume=disk["volume"], device=disk["device"])
    if wanted.get("disk_bus") == "scsi" and wanted.get("scsi_model"):
        has = domain.get("scsi_models") or []
        if wanted["scsi_model"] not in has:
            note("libvirt", "scsi_model", "/".join(has) or None)
    if wanted.get("nic_model"):
        for model in domain["nic_models"]:
            if model != wanted["nic_model"]:
                note("libvirt", "nic_model", model)
    if wanted.get("firmware") and domain["firmware"] != wanted["firmware"]:
        note("libvirt", "firmware", domain["firmware"])
    # Nova asks for q35, libvirt answers with the version that it resolved: pc-q35-7.2.
    machine = str(domain.get("machine") or "")
    if wanted.get("machine") and wanted["machine"] not in (machine, *machine.split("-")):
        note("libvirt", "machine", domain.get("machine"))
