# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""VMs and datastores as vCloud Director tells of them: records of queries, and the entities themselves.

Attributes of the records: those of API 1.5, which all later versions have as well. Hrefs are kept as the server gives them, with
its public base URL; the client uses their path only, and things are compared by the UUID in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Mapping, NamedTuple

from ..errors import ServerError
from .document import Element, child, children, link, name_of, text_of, truth, whole
from .query import Record
from .tasks import Task, of_entity
from .transport import local_path

VM_FIELDS = ("name", "containerName", "container", "vdc", "org", "status", "isVAppTemplate", "isDeleted", "datastoreName", "vc", "moref")
#: Further ones that a plan needs.
VM_PLAN_FIELDS = (*VM_FIELDS, "hostName", "memoryMB")
DATASTORE_FIELDS = (
    "name",
    "datastoreType",
    "isEnabled",
    "isDeleted",
    "storageMB",
    "storageUsedMB",
    "provisionedStorageMB",
    "requestedStorageMB",
    "vc",
    "vcName",
    "moref",
)

#: Status of a VM entity, in the words of the query's records.
STATUS = {"3": "SUSPENDED", "4": "POWERED_ON", "8": "POWERED_OFF"}

RELOCATE_MEDIA = "application/vnd.vmware.vcloud.relocateVmParams+xml"

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def path_of(href: str | None) -> str:
    """C(href) as a path on the endpoint; empty where there is none or it is not one of the API."""
    try:
        return local_path(href) if href else ""
    except ServerError:
        return ""


def uuid_of(href: str | None) -> str:
    """The last UUID in an href or a urn, in lower case: what identifies an object wherever its server is reached."""
    found = [m[0] for m in _UUID.finditer(href or "")]
    return found[-1].lower() if found else ""


def urn(kind: str, href: str) -> str | None:
    """The id (urn:vcloud:vm:...) that belongs to an href."""
    found = uuid_of(href)
    return f"urn:vcloud:{kind}:{found}" if found else None


class VmRecord(NamedTuple):
    """A VM of a vApp or of a template, as an AdminVMRecord tells of it. C(vc), C(vdc), C(org) and C(vapp_href) are hrefs.

    There are ten thousands of them: a tuple is made several times faster than a frozen data class.
    """

    href: str
    name: str
    vapp: str
    vapp_href: str
    vdc: str
    org: str
    status: str
    is_template: bool
    datastore: str
    vc: str
    moref: str
    host: str = ""
    memory_mb: int | None = None
    profile: str = ""

    @property
    def id(self) -> str:
        return urn("vm", self.href) or ""


def vm_record(record: Record) -> VmRecord:
    """C(record) of a query for adminVM."""
    get = record.get
    return VmRecord(
        href=get("href", ""),
        name=get("name", ""),
        vapp=get("containerName", ""),
        vapp_href=get("container", ""),
        vdc=get("vdc", ""),
        org=get("org", ""),
        status=get("status", ""),
        is_template=get("isVAppTemplate") == "true",
        datastore=get("datastoreName", ""),
        vc=get("vc", ""),
        moref=get("moref", ""),
        host=get("hostName", ""),
        memory_mb=whole(get("memoryMB")),
        profile=get("storageProfileName", ""),
    )


@dataclass(frozen=True)
class Datastore:
    """A datastore. Sizes in MiB; C(vc) is the href of its vCenter, C(vcenter) that one's name.

    :param used_mb: what is written. C(provisioned_mb): what it would be were every thin disk full; may exceed the total.
    :param requested_mb: vCloud Director's own allocation, shadow VMs left out.
    """

    href: str
    name: str
    vc: str
    vcenter: str
    moref: str
    enabled: bool
    deleted: bool
    total_mb: int
    used_mb: int
    provisioned_mb: int
    requested_mb: int
    kind: str = ""
    red_mb: int | None = None
    links: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def id(self) -> str:
        return urn("datastore", self.href) or ""

    @property
    def key(self) -> tuple[str, str]:
        """vCenter and MoRef: the same for one datastore however its record was come by."""
        return uuid_of(self.vc) or self.vc, self.moref

    @property
    def free_mb(self) -> int:
        return self.total_mb - self.used_mb

    def as_dict(self) -> dict[str, Any]:
        """What modules return of it."""
        return {
            "name": self.name,
            "href": self.href,
            "id": self.id,
            "moref": self.moref,
            "vcenter": self.vcenter,
            "enabled": self.enabled,
            "total_mb": self.total_mb,
            "used_mb": self.used_mb,
            "provisioned_mb": self.provisioned_mb,
            "requested_mb": self.requested_mb,
        }


def datastore_record(record: Record) -> Datastore:
    """C(record) of a query for datastore."""
    get = record.get
    return Datastore(
        href=get("href", ""),
        name=get("name", ""),
        vc=get("vc", ""),
        vcenter=get("vcName", ""),
        moref=get("moref", ""),
        enabled=get("isEnabled", "true") == "true",
        deleted=get("isDeleted") == "true",
        total_mb=whole(get("storageMB")) or 0,
        used_mb=whole(get("storageUsedMB")) or 0,
        provisioned_mb=whole(get("provisionedStorageMB")) or 0,
        requested_mb=whole(get("requestedStorageMB")) or 0,
        kind=get("datastoreType", ""),
    )


def datastore_of(root: Element) -> Datastore:
    """The datastore in a C(vmext:Datastore) entity.

    :raises ServerError: code C(protocol): it is none.
    """
    if name_of(root) != "Datastore" or not root.get("href"):
        raise ServerError("The server answers with something else than a datastore.", code="protocol", said=name_of(root))
    ref = child(root, "VimObjectRef")
    server = child(ref, "VimServerRef")
    red = whole(text_of(root, "ThresholdRedGb") or None)
    return Datastore(
        href=root.get("href") or "",
        name=root.get("name") or "",
        vc=(server.get("href") or "") if server is not None else "",
        vcenter=(server.get("name") if server is not None else None) or text_of(root, "VcDisplayName"),
        moref=text_of(ref, "MoRef"),
        enabled=truth(text_of(root, "Enabled")) is not False,
        deleted=False,
        total_mb=whole(text_of(root, "TotalCapacityMb") or None) or 0,
        used_mb=whole(text_of(root, "UsedCapacityMb") or None) or 0,
        provisioned_mb=whole(text_of(root, "ProvisionedSpaceMb") or None) or 0,
        requested_mb=whole(text_of(root, "RequestedStorageMb") or None) or 0,
        kind=text_of(root, "DatastoreFsType"),
        red_mb=red * 1024 if red is not None else None,
        links={rel: href for rel in ("enable", "disable") if (href := link(root, rel))},
    )


@dataclass(frozen=True)
class VmDisk:
    """A disk. C(datastore): vCenter and MoRef, None where the server does not tell per disk.

    :param independent: a named disk, attached to the VM: it is an object of its own, and not moved with the VM.
    """

    key: str
    label: str
    size_mb: int
    datastore: tuple[str, str] | None = None
    independent: bool = False


@dataclass(frozen=True)
class VmFacts:
    """A VM entity (C(GET /vApp/vm-{id}) or C(/vAppTemplate/vm-{id})).

    :param home: vCenter and MoRef of the datastore that it lives on; None where the server does not tell.
    :param disk_datastores: the same of each of its own disks; empty where the server does not tell (before 5.6).
    :param chain: the longest chain of its disks: above 1 it is a linked clone (or has snapshots).
    :param relocate_href: the entity's own link; None where it has none.
    """

    href: str
    id: str
    name: str
    status: str
    vapp_href: str
    vm_ref: tuple[str, str] | None
    home: tuple[str, str] | None
    disk_datastores: tuple[tuple[str, str], ...]
    disks: tuple[VmDisk, ...]
    chain: int
    profile_href: str
    profile_name: str
    relocate_href: str | None
    description: str = ""
    tasks: tuple[Task, ...] = ()

    @property
    def size_mb(self) -> int:
        """The size of its own disks, in MiB: the most that a move can write, bases of linked clones left out."""
        return sum(d.size_mb for d in self.disks if not d.independent)

    def on(self, datastore: tuple[str, str]) -> bool | None:
        """Whether it lives there with every disk that the server tells of; None where it tells of nothing."""
        if self.home is None:
            return None
        return all(d == datastore for d in (self.home, *self.disk_datastores))


def _ref(element: Element | None) -> tuple[str, str] | None:
    """vCenter and MoRef of a VimObjectRef."""
    if element is None:
        return None
    server, moref = child(element, "VimServerRef"), text_of(element, "MoRef")
    if server is None or not moref:
        return None
    href = server.get("href") or ""
    return uuid_of(href) or path_of(href), moref


def _disks(root: Element, stores: Mapping[str, tuple[str, str]]) -> tuple[VmDisk, ...]:
    """Disks from DiskSection (newer versions), or the hard disks (ResourceType 17) of the virtual hardware section."""
    found = []
    section = child(root, "VmSpecSection", "DiskSection")
    for settings in children(section, "DiskSettings") if section is not None else ():
        key = text_of(settings, "DiskId") or text_of(settings, "UnitNumber")
        size = whole(text_of(settings, "SizeMb") or None) or 0
        found.append(VmDisk(key, key, size, stores.get(key), child(settings, "Disk") is not None))
    if found:
        return tuple(found)
    hardware = child(root, "VirtualHardwareSection")
    for item in children(hardware, "Item") if hardware is not None else ():
        if text_of(item, "ResourceType") != "17":
            continue
        key = text_of(item, "InstanceID")
        resource = child(item, "HostResource")
        values = {k.rpartition("}")[2]: v for k, v in resource.attrib.items()} if resource is not None else {}
        label = text_of(item, "ElementName") or key
        found.append(VmDisk(key, label, whole(values.get("capacity")) or 0, stores.get(key), "disk" in values))
    return tuple(found)


def vm_of(root: Element) -> VmFacts:
    """The facts in a C(Vm) entity, or in the C(VAppTemplate) that the VM of a template is.

    :raises ServerError: code C(protocol): it is none.
    """
    if name_of(root) not in ("Vm", "VAppTemplate") or not root.get("href"):
        raise ServerError("The server answers with something else than a VM.", code="protocol", said=name_of(root))
    info = child(root, "VCloudExtension", "VmVimInfo")
    if info is None:
        info = next((e for e in root.iter() if name_of(e) == "VmVimInfo"), None)
    stores: dict[str, tuple[str, str]] = {}
    for element in children(info, "VmDiskDatastores") if info is not None else ():
        ref = _ref(element)
        if ref is not None:
            stores[element.get("instanceId") or str(len(stores))] = ref
    disks = _disks(root, stores)
    independent = {d.key for d in disks if d.independent}
    profile = child(root, "StorageProfile")
    href = root.get("href") or ""
    status = root.get("status") or ""
    return VmFacts(
        href=href,
        id=root.get("id") or urn("vm", href) or "",
        name=root.get("name") or "",
        status=STATUS.get(status, status),
        vapp_href=link(root, "up") or "",
        vm_ref=_ref(child(info, "VmVimObjectRef")),
        home=_ref(child(info, "DatastoreVimObjectRef")),
        disk_datastores=tuple(ref for key, ref in stores.items() if key not in independent),
        disks=disks,
        chain=whole(text_of(info, "VirtualDisksMaxChainLength") or None) or 1,
        profile_href=(profile.get("href") or "") if profile is not None else "",
        profile_name=(profile.get("name") or "") if profile is not None else "",
        relocate_href=link(root, "relocate", RELOCATE_MEDIA) or link(root, "relocate"),
        description=text_of(root, "Description"),
        tasks=tuple(of_entity(root)),
    )
