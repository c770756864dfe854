# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual machines in an OVF descriptor: hardware, disks with their files, network cards.

Sources: DMTF DSP0243 "Open Virtualization Format" 1.1 and 2.1 (References, DiskSection, VirtualSystem, VirtualHardwareSection);
DSP8023; CIM_ResourceAllocationSettingData for C(rasd:ResourceType); VMware's extensions C(vmw:Config) and C(vmw:CoresPerSocket) as
ovftool writes them. What comes from outside is bounded: bytes, depth, elements, numbers; a DOCTYPE is refused in any encoding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Iterator
from xml.etree import ElementTree

from .errors import BadInput, bounded

Element = ElementTree.Element

MAX_BYTES = 8 << 20
_MAX_DEPTH = 64
_MAX_ELEMENTS = 200_000
_MAX_SYSTEMS = 256
_MAX_DEVICES = 4096
#: C(rasd:ResourceType), CIM schema.
CPU, MEMORY, IDE, SCSI, ETHERNET, DISK, OTHER_STORAGE = 3, 4, 5, 6, 10, 17, 20
#: C(rasd:ResourceSubType) of controllers, lower case, to our names of controllers (controllers.py).
SUBTYPES = {
    "buslogic": "buslogic",
    "lsilogic": "lsilogic",
    "lsilogicsas": "lsisas1068",
    "virtualscsi": "pvscsi",
    "ahci": "sata",
    "vmware.sata.ahci": "sata",
    "vmware.nvme.controller": "nvme",
    "piix4": "ide",
    "piix3": "ide",
    "ich6": "ide",
}
_UNIT = re.compile(r"bytes?(?:\s*\*\s*(\d{1,10})(?:\s*\^\s*(\d{1,3}))?)?", re.IGNORECASE)
_WORDS = {"kilobytes": 1 << 10, "megabytes": 1 << 20, "gigabytes": 1 << 30, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


@dataclass(frozen=True)
class OvfDisk:
    """A disk of a machine. C(href): its file as the descriptor names it, None for an empty disk. C(capacity): bytes, None unknown."""

    disk_id: str
    href: str | None
    capacity: int | None
    controller: str | None
    bus: int
    unit: int
    parent: bool = False


@dataclass(frozen=True)
class OvfNic:
    """A network card. C(mac): lower case, None where the descriptor leaves it to the importer."""

    label: str
    kind: str
    network: str | None
    mac: str | None


@dataclass
class OvfMachine:
    """A virtual system. C(memory): bytes."""

    name: str
    guest_id: str | None = None
    firmware: str = "bios"
    secure_boot: bool = False
    hw_version: str | None = None
    cpus: int = 1
    cores_per_socket: int = 1
    memory: int = 0
    annotation: str = ""
    disks: list[OvfDisk] = field(default_factory=list)
    nics: list[OvfNic] = field(default_factory=list)


class _Builder(ElementTree.TreeBuilder):
    """A tree of at most so many elements, so deep, without a DOCTYPE (entities that grow, or name files, are declared there)."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._depth = self._count = 0

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise BadInput("The OVF descriptor has a DOCTYPE, which is refused.", code="ovf", disk=self._path, step="read the descriptor")

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self._depth += 1
        self._count += 1
        if self._depth > _MAX_DEPTH or self._count > _MAX_ELEMENTS:
            raise BadInput("The OVF descriptor is too deep or too large.", code="ovf", disk=self._path, step="read the descriptor")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def _wrong(path: str, message: str, said: object | None = None) -> BadInput:
    return BadInput(message, code="ovf", disk=path, step="read the descriptor", said=said)


def parse(data: bytes, path: str) -> list[OvfMachine]:
    """The machines of the descriptor C(data), in its order.

    :param path: where it came from, for errors.
    :raises BadInput: code C(ovf): it is no OVF descriptor, or is not to be believed.
    """
    if len(data) > MAX_BYTES:
        raise _wrong(path, f"The OVF descriptor is larger than {MAX_BYTES >> 20} MiB.")
    parser = ElementTree.XMLParser(target=_Builder(path))
    try:
        parser.feed(data)
        root = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as e:
        raise _wrong(path, "The OVF descriptor is no XML.", e) from None
    if not isinstance(root, Element) or _name(root) != "Envelope":
        raise _wrong(path, "This is no OVF descriptor: its root is no Envelope.")
    files = {_attribute(f, "id"): f for f in _children(_child(root, "References"), "File")}
    disks = {_attribute(d, "diskId"): d for d in _children(_child(root, "DiskSection"), "Disk")}
    default = next((_attribute(c, "id") for c in _configurations(root) if _attribute(c, "default").lower() in ("true", "1")), None)
    default = default or next((_attribute(c, "id") for c in _configurations(root)), None)
    systems = list(_systems(root))
    if not systems:
        raise _wrong(path, "The OVF descriptor describes no virtual system.")
    if len(systems) > _MAX_SYSTEMS:
        raise _wrong(path, f"The OVF descriptor describes more than {_MAX_SYSTEMS} virtual systems.")
    return [_machine(s, files, disks, default, path) for s in systems]


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(element: Element | None, name: str) -> Iterator[Element]:
    return (c for c in (element if element is not None else ()) if isinstance(c.tag, str) and _name(c) == name)


def _child(element: Element | None, name: str) -> Element | None:
    return next(_children(element, name), None)


def _text(element: Element | None, name: str) -> str:
    found = _child(element, name)
    return (found.text or "").strip() if found is not None else ""


def _attribute(element: Element, name: str) -> str:
    """The attribute C(name), in whichever namespace."""
    return next((v.strip() for k, v in element.attrib.items() if k.rpartition("}")[2] == name), "")


def _number(text: str, what: str, path: str, *, limit: int = 1 << 62) -> int:
    """A number in the descriptor; some tools write decimals."""
    if not re.fullmatch(r"\d{1,19}(\.0{1,6})?", text) or int(text.partition(".")[0]) > limit:
        raise _wrong(path, f"The OVF descriptor has no sensible {what}.", text or "nothing")
    return int(text.partition(".")[0])


def _unit(text: str, path: str) -> int:
    """Bytes that a unit means: C(byte * 2^30), C(MegaBytes), nothing."""
    text = text.strip()
    if not text:
        return 1
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    found = _UNIT.fullmatch(text)
    if found is None:
        raise _wrong(path, "The OVF descriptor has an unknown unit.", text)
    size: int = int(found[1] or 1) ** int(found[2] or 1)
    if not 0 < size <= 1 << 50:
        raise _wrong(path, "The OVF descriptor has an unknown unit.", text)
    return size


def _configurations(root: Element) -> Iterator[Element]:
    return _children(_child(root, "DeploymentOptionSection"), "Configuration")


def _systems(root: Element) -> Iterator[Element]:
    for child in root:
        if isinstance(child.tag, str) and _name(child) == "VirtualSystem":
            yield child
        elif isinstance(child.tag, str) and _name(child) == "VirtualSystemCollection":
            yield from _systems(child)


def _items(hardware: Element, default: str | None) -> Iterator[Element]:
    """The devices of the default configuration. Since OVF 2.0 cards and disks may have element names of their own."""
    for item in hardware:
        if not isinstance(item.tag, str) or _name(item) not in ("Item", "EthernetPortItem", "StorageItem"):
            continue
        wanted = _attribute(item, "configuration").split()
        if (wanted and default not in wanted) or _attribute(item, "bound") in ("min", "max"):
            continue
        yield item


def _machine(system: Element, files: dict[str, Element], disks: dict[str, Element], default: str | None, path: str) -> OvfMachine:
    machine = OvfMachine(bounded(_text(system, "Name") or _attribute(system, "id") or "vm", 200))
    os_section = _child(system, "OperatingSystemSection")
    machine.guest_id = (_attribute(os_section, "osType") if os_section is not None else "") or None
    machine.annotation = _text(_child(system, "AnnotationSection"), "Annotation")[:4000]
    hardware = _child(system, "VirtualHardwareSection")
    if hardware is None:
        raise _wrong(path, f"The virtual system {machine.name} has no hardware.")
    machine.hw_version = _text(_child(hardware, "System"), "VirtualSystemType") or None
    for config in _children(hardware, "Config"):
        key, value = _attribute(config, "key"), _attribute(config, "value").lower()
        if key == "firmware" and value in ("bios", "efi"):
            machine.firmware = value
        elif key == "bootOptions.efiSecureBootEnabled":
            machine.secure_boot = value == "true"
    items = list(_items(hardware, default))
    if len(items) > _MAX_DEVICES:
        raise _wrong(path, f"The virtual system {machine.name} has more than {_MAX_DEVICES} devices.")
    controllers = _controllers(items)
    for item in items:
        kind = _text(item, "ResourceType")
        if kind == str(CPU):
            machine.cpus = max(_number(_text(item, "VirtualQuantity"), "number of processors", path, limit=4096), 1)
            cores = _text(item, "CoresPerSocket")
            machine.cores_per_socket = max(_number(cores, "number of cores", path, limit=4096), 1) if cores else 1
        elif kind == str(MEMORY):
            unit = _unit(_text(item, "AllocationUnits") or "byte * 2^20", path)
            machine.memory = _number(_text(item, "VirtualQuantity"), "amount of memory", path) * unit
        elif kind == str(ETHERNET):
            machine.nics.append(_nic(item, len(machine.nics)))
        elif kind == str(DISK):
            machine.disks.append(_disk(item, files, disks, controllers, path))
    return machine


def _controllers(items: list[Element]) -> dict[str, tuple[str | None, int]]:
    """{InstanceID: (controller, its bus)}; buses are counted by kind, in the order of their addresses."""
    found: dict[str, tuple[str | None, int]] = {}
    counts: dict[str, int] = {}

    def place(item: Element) -> tuple[int, str]:
        address = _text(item, "Address")
        return (int(address) if address.isdecimal() and len(address) < 6 else 0, _text(item, "InstanceID"))

    for item in sorted(items, key=place):
        kind, sub = _text(item, "ResourceType"), _text(item, "ResourceSubType").lower()
        if kind == str(IDE):
            family, name = "ide", "ide"
        elif kind == str(SCSI):
            family, name = "scsi", SUBTYPES.get(sub, "")
        elif kind == str(OTHER_STORAGE) and sub in SUBTYPES:
            family = name = SUBTYPES[sub]
        else:
            continue
        bus = counts.get(family, 0)
        counts[family] = bus + 1
        found[_text(item, "InstanceID")] = (name or None, bus)
    return found


def _nic(item: Element, index: int) -> OvfNic:
    mac = _text(item, "Address").lower().replace("-", ":")
    return OvfNic(
        label=bounded(_text(item, "ElementName") or f"Network adapter {index + 1}", 100),
        kind=(_text(item, "ResourceSubType").split() or ["unknown"])[0].lower(),
        network=_text(item, "Connection") or None,
        mac=mac if re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", mac) else None,
    )


def _disk(
    item: Element, files: dict[str, Element], disks: dict[str, Element], controllers: dict[str, tuple[str | None, int]], path: str
) -> OvfDisk:
    resource = _text(item, "HostResource")
    # ovf:/disk/ID, in OVF 0.9 without the scheme; ovf:/file/ID is a whole file as a disk.
    where, _slash, wanted = resource.removeprefix("ovf:").strip("/").partition("/")
    controller, bus = controllers.get(_text(item, "Parent"), (None, 0))
    unit_text = _text(item, "AddressOnParent")
    unit = _number(unit_text, "place of a disk", path, limit=4096) if unit_text else 0
    if where == "file":
        return OvfDisk(wanted, _href(wanted, files, path), None, controller, bus, unit)
    row = disks.get(wanted) if where == "disk" else None
    if row is None:
        raise _wrong(path, "A disk of the OVF descriptor is not in its disk section.", resource or "nothing")
    capacity = _attribute(row, "capacity")
    size = _number(capacity, "capacity of a disk", path) * _unit(_attribute(row, "capacityAllocationUnits"), path) if capacity else None
    if size is not None and size > 1 << 60:
        raise _wrong(path, "The OVF descriptor has no sensible capacity of a disk.", capacity)
    ref = _attribute(row, "fileRef")
    return OvfDisk(wanted, _href(ref, files, path) if ref else None, size, controller, bus, unit, parent=bool(_attribute(row, "parentRef")))


def _href(ref: str, files: dict[str, Element], path: str) -> str:
    file = files.get(ref)
    if file is None or not _attribute(file, "href"):
        raise _wrong(path, "A disk of the OVF descriptor names a file that is not among its references.", ref)
    return _attribute(file, "href")
