# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record types of the query service: which attributes each has, since which version, and whom they are for.

Attribute names are those of the vendor's schema pages (QueryResultAdminVMRecordType and its like, 1.5 to 39.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterable

from .engine import Engine, Task
from .sessions import SYSTEM_ORG, Session
from .world import Container, Datastore, NamedDisk, Org, Profile, Shadow, Vdc, Vm, World
from .xmlout import A, V

Version = tuple[int, int]
FIRST: Version = (1, 5)
V51: Version = (5, 1)
MODERN: Version = (29, 0)


@dataclass(frozen=True)
class Path:
    """An attribute that refers to something: an href, or in idrecords a urn."""

    path: str
    urn: str


@dataclass(frozen=True)
class RecordType:
    name: str
    record: str  # element of a record; references are NAMEReference in NAMEReferences
    reference: str
    media: str
    system_only: bool
    objects: Callable[[World, Engine, Session], Iterable[Any]]
    ref: Callable[[Any], Path]
    attributes: dict[str, tuple[Version, Callable[[Any], Any]]]


def vm_ref(vm: Vm) -> Path:
    return Path(vm.path, f"urn:vcloud:vm:{vm.id}")


def container_ref(c: Container) -> Path:
    return Path(c.path, f"urn:vcloud:{'vapptemplate' if c.template else 'vapp'}:{c.id}")


def vdc_ref(vdc: Vdc) -> Path:
    return Path(f"/api/vdc/{vdc.id}", f"urn:vcloud:vdc:{vdc.id}")


def admin_vdc_ref(vdc: Vdc) -> Path:
    return Path(f"/api/admin/vdc/{vdc.id}", f"urn:vcloud:vdc:{vdc.id}")


def org_ref(org: Org) -> Path:
    return Path(f"/api/org/{org.id}", f"urn:vcloud:org:{org.id}")


def server_ref(server: Any) -> Path:
    return Path(f"/api/admin/extension/vimServer/{server.id}", f"urn:vcloud:vimserver:{server.id}")


def datastore_ref(d: Datastore) -> Path:
    return Path(f"/api/admin/extension/datastore/{d.id}", f"urn:vcloud:datastore:{d.id}")


def profile_ref(p: Profile) -> Path:
    return Path(f"/api/vdcStorageProfile/{p.id}", f"urn:vcloud:vdcstorageProfile:{p.id}")


def admin_profile_ref(p: Profile) -> Path:
    return Path(f"/api/admin/vdcStorageProfile/{p.id}", f"urn:vcloud:vdcstorageProfile:{p.id}")


def task_ref(t: Task) -> Path:
    return Path(t.path, f"urn:vcloud:task:{t.id}")


_POWER = {"on": "POWERED_ON", "off": "POWERED_OFF", "suspended": "SUSPENDED"}


def _mine(session: Session, vdc: Vdc) -> bool:
    return session.system or vdc.org.id == session.org_id


def _vms(world: World, _engine: Engine, session: Session) -> Iterable[Vm]:
    return [v for v in world.vms.values() if _mine(session, v.vdc)]


def _containers(template: bool) -> Callable[[World, Engine, Session], Iterable[Container]]:
    return lambda world, _engine, session: [c for c in world.containers.values() if c.template is template and _mine(session, c.vdc)]


def _profiles(world: World, _engine: Engine, session: Session) -> Iterable[Profile]:
    return [p for p in world.profiles.values() if _mine(session, p.vdc)]


def _tasks(world: World, engine: Engine, session: Session) -> Iterable[Task]:
    return [t for t in engine.tasks.values() if session.system or t.org_id == session.org_id]


def _orgs(world: World, _engine: Engine, session: Session) -> Iterable[Org]:
    return [SYSTEM_ORG, *world.orgs.values()] if session.system else [o for o in world.orgs.values() if o.id == session.org_id]


_VM: dict[str, tuple[Version, Callable[[Vm], Any]]] = {
    "name": (FIRST, lambda v: v.name),
    "containerName": (FIRST, lambda v: v.container.name),
    "container": (FIRST, lambda v: container_ref(v.container)),
    "status": (FIRST, lambda v: "RESOLVED" if v.template else _POWER[v.power]),
    "vdc": (FIRST, lambda v: vdc_ref(v.vdc)),
    "isVAppTemplate": (FIRST, lambda v: v.template),
    "isDeleted": (FIRST, lambda v: False),
    "guestOs": (FIRST, lambda v: v.guest),
    "numberOfCpus": (FIRST, lambda v: v.cpus),
    "memoryMB": (FIRST, lambda v: v.memory_mb),
    "networkName": (FIRST, lambda v: v.network or None),
    "isDeployed": (FIRST, lambda v: v.power == "on"),
    "isPublished": (FIRST, lambda v: bool(v.container.catalog)),
    "catalogName": (FIRST, lambda v: v.container.catalog or None),
    "hardwareVersion": (FIRST, lambda v: 8),
    "storageProfileName": (V51, lambda v: v.profile.name),
    "description": (MODERN, lambda v: ""),
    "vdcName": (MODERN, lambda v: v.vdc.name),
    "gcStatus": (MODERN, lambda v: "NO_GC"),
    "isAutoNature": (MODERN, lambda v: False),
    "dateCreated": ((34, 0), lambda v: v.container.created),
    "isExpired": ((36, 0), lambda v: False),
}

_ADMIN_VM: dict[str, tuple[Version, Callable[[Vm], Any]]] = {
    **_VM,
    "hostName": (FIRST, lambda v: v.host or None),
    "isVdcEnabled": (FIRST, lambda v: v.vdc.enabled),
    "vmToolsVersion": (FIRST, lambda v: 8384 if v.power == "on" else 0),
    "datastoreName": (FIRST, lambda v: v.datastore.name),
    "vc": (FIRST, lambda v: server_ref(v.vdc.vc)),
    "moref": (FIRST, lambda v: v.moref),
    "org": (FIRST, lambda v: org_ref(v.vdc.org)),
    "detectedGuestOs": ((33, 0), lambda v: ""),
    "ipAddress": ((33, 0), lambda v: None),
    "encrypted": ((33, 0), lambda v: False),
    "vmNameInVc": ((36, 0), lambda v: f"{v.name} ({v.id})"),
    "firmware": ((38, 0), lambda v: "bios"),
    "tpmPresent": ((38, 0), lambda v: False),
}

_TENANT_VM: dict[str, tuple[Version, Callable[[Vm], Any]]] = {
    **_VM,
    "ownerName": (MODERN, lambda v: "system"),
    "isBusy": (FIRST, lambda v: v.task is not None),
    "vmToolsStatus": (FIRST, lambda v: "TOOLS_INSTALLED"),
    "isInMaintenanceMode": (FIRST, lambda v: False),
    "totalStorageAllocatedMb": ((36, 0), lambda v: v.size_mb),
}

_CONTAINER: dict[str, tuple[Version, Callable[[Container], Any]]] = {
    "name": (FIRST, lambda c: c.name),
    "vdc": (FIRST, lambda c: vdc_ref(c.vdc)),
    "vdcName": (FIRST, lambda c: c.vdc.name),
    "isEnabled": (FIRST, lambda c: True),
    "isBusy": (FIRST, lambda c: any(v.task for v in c.vms)),
    "creationDate": (FIRST, lambda c: c.created),
    "ownerName": (FIRST, lambda c: "system"),
    "isDeployed": (FIRST, lambda c: any(v.power == "on" for v in c.vms)),
    "isExpired": (MODERN, lambda c: False),
}

_ADMIN_CONTAINER: dict[str, tuple[Version, Callable[[Container], Any]]] = {
    "org": (FIRST, lambda c: org_ref(c.vdc.org)),
    "isVdcEnabled": (FIRST, lambda c: c.vdc.enabled),
}

_VAPP: dict[str, tuple[Version, Callable[[Container], Any]]] = {
    "status": (FIRST, lambda c: "POWERED_ON" if any(v.power == "on" for v in c.vms) else "POWERED_OFF"),
    "isInMaintenanceMode": (FIRST, lambda c: False),
    "numberOfVMs": (FIRST, lambda c: len(c.vms)),
    "storageKB": (FIRST, lambda c: sum(v.size_mb for v in c.vms) * 1024),
}

_TEMPLATE: dict[str, tuple[Version, Callable[[Container], Any]]] = {
    "status": (FIRST, lambda c: "RESOLVED"),
    "isPublished": (FIRST, lambda c: False),
    "isGoldMaster": (FIRST, lambda c: False),
    "catalogName": (FIRST, lambda c: c.catalog or None),
    "storageProfileName": (V51, lambda c: c.vms[0].profile.name if c.vms else None),
}

_DATASTORE: dict[str, tuple[Version, Callable[[Datastore], Any]]] = {
    "name": (FIRST, lambda d: d.name),
    "datastoreType": (FIRST, lambda d: d.kind),
    "isEnabled": (FIRST, lambda d: d.enabled),
    "isDeleted": (FIRST, lambda d: d.deleted),
    "storageUsedMB": (FIRST, lambda d: d.used_mb),
    "storageMB": (FIRST, lambda d: d.total_mb),
    "provisionedStorageMB": (FIRST, lambda d: d.provisioned_mb),
    "requestedStorageMB": (FIRST, lambda d: d.requested_mb),
    "vc": (FIRST, lambda d: server_ref(d.vc)),
    "vcName": (FIRST, lambda d: d.vc.name),
    "moref": (FIRST, lambda d: d.moref),
    "numberOfProviderVdcs": (FIRST, lambda d: 1),
    "datastoreCluster": (MODERN, lambda d: False),
    "isDistributed": ((37, 0), lambda d: False),
    "iopsCapacity": (MODERN, lambda d: 0),
    "iopsAllocated": (MODERN, lambda d: 0),
}

_SHADOW: dict[str, tuple[Version, Callable[[Shadow], Any]]] = {
    "name": (FIRST, lambda s: s.name),
    "isPublished": (FIRST, lambda s: False),
    "primaryVmName": ((33, 0), lambda s: s.primary.name),
    "primaryVAppTemplate": (FIRST, lambda s: container_ref(s.primary.container)),
    "primaryVAppName": (FIRST, lambda s: s.primary.container.name),
    "datastoreName": (FIRST, lambda s: s.datastore.name),
    "vcName": (FIRST, lambda s: s.datastore.vc.name),
    "isDeleted": (FIRST, lambda s: False),
    "status": (FIRST, lambda s: "POWERED_OFF"),
    "isBusy": (FIRST, lambda s: False),
    "primaryVM": (FIRST, lambda s: vm_ref(s.primary)),
    "primaryVMOwner": (FIRST, lambda s: "system"),
    "primaryVMCatalog": (FIRST, lambda s: s.primary.container.catalog or None),
    "org": (FIRST, lambda s: org_ref(s.primary.vdc.org)),
}

_VDC: dict[str, tuple[Version, Callable[[Vdc], Any]]] = {
    "name": (FIRST, lambda v: v.name),
    "isEnabled": (FIRST, lambda v: v.enabled),
    "numberOfVApps": (FIRST, lambda v: sum(not c.template for c in v.containers)),
    "numberOfVAppTemplates": (FIRST, lambda v: sum(c.template for c in v.containers)),
    "orgName": (FIRST, lambda v: v.org.name),
    "org": (FIRST, lambda v: org_ref(v.org)),
    "isBusy": (FIRST, lambda v: False),
}

_ADMIN_VDC: dict[str, tuple[Version, Callable[[Vdc], Any]]] = {
    **_VDC,
    "vc": (FIRST, lambda v: server_ref(v.vc)),
    "vcName": (FIRST, lambda v: v.vc.name),
    "isThinProvisioned": (FIRST, lambda v: True),
    "isFastProvisioned": (FIRST, lambda v: v.fast),
}

_ORG: dict[str, tuple[Version, Callable[[Org], Any]]] = {
    "name": (FIRST, lambda o: o.name),
    "displayName": (FIRST, lambda o: o.full_name),
    "isEnabled": (FIRST, lambda o: True),
    "isReadOnly": (FIRST, lambda o: o is SYSTEM_ORG),
    "numberOfVdcs": (FIRST, lambda o: len(o.vdcs)),
    "numberOfVApps": (FIRST, lambda o: sum(not c.template for v in o.vdcs for c in v.containers)),
}

_PROFILE: dict[str, tuple[Version, Callable[[Profile], Any]]] = {
    "name": (V51, lambda p: p.name),
    "isEnabled": (V51, lambda p: True),
    "isDefaultStorageProfile": (V51, lambda p: p.default),
    "storageUsedMB": (V51, lambda p: sum(m.size_mb for c in p.vdc.containers for m in c.vms if m.profile is p)),
    "storageLimitMB": (V51, lambda p: 0),
    "vdc": (V51, lambda p: vdc_ref(p.vdc)),
    "vdcName": (V51, lambda p: p.vdc.name),
    "org": (V51, lambda p: org_ref(p.vdc.org)),
    "vc": (V51, lambda p: server_ref(p.vdc.vc)),
}

_DISK: dict[str, tuple[Version, Callable[[NamedDisk], Any]]] = {
    "name": (V51, lambda d: d.name),
    "vdc": (V51, lambda d: vdc_ref(d.vdc)),
    "vdcName": (V51, lambda d: d.vdc.name),
    "sizeMb": (V51, lambda d: d.size_mb),
    "datastore": (V51, lambda d: datastore_ref(d.datastore)),
    "datastoreName": (V51, lambda d: d.datastore.name),
    "ownerName": (V51, lambda d: "system"),
    "storageProfile": (V51, lambda d: profile_ref(d.profile)),
    "storageProfileName": (V51, lambda d: d.profile.name),
    "status": (V51, lambda d: "RESOLVED"),
    "isAttached": (V51, lambda d: d.vm is not None),
    "attachedVmCount": ((36, 0), lambda d: int(d.vm is not None)),
}

_ADMIN_DISK: dict[str, tuple[Version, Callable[[NamedDisk], Any]]] = {
    **_DISK,
    "org": (V51, lambda d: org_ref(d.vdc.org)),
    "vc": (V51, lambda d: server_ref(d.vdc.vc)),
}


def task_attributes(admin: bool, engine: Engine) -> dict[str, tuple[Version, Callable[[Task], Any]]]:
    clock = engine.clock.text
    out: dict[str, tuple[Version, Callable[[Task], Any]]] = {
        "name": (FIRST, lambda t: t.operation_name),
        "org": (FIRST, lambda t: Path(f"/api/org/{t.org_id}", f"urn:vcloud:org:{t.org_id}")),
        "orgName": (FIRST, lambda t: t.org_name),
        "operationFull": (FIRST, lambda t: t.operation),
        "startDate": (FIRST, lambda t: clock(t.started or t.created)),
        "endDate": (FIRST, lambda t: clock(t.ended) if t.over else None),
        "status": (FIRST, lambda t: engine.shown(t)),
        "progress": (FIRST, lambda t: engine.progress(t) if engine.switches.progress else None),
        "ownerName": (FIRST, lambda t: t.user),
        "object": (FIRST, lambda t: Path(t.owner[2], t.owner[3])),
        "objectType": (FIRST, lambda t: t.owner[3].split(":")[2]),
        "objectName": (FIRST, lambda t: t.owner[1]),
        "serviceNamespace": (FIRST, lambda t: "com.vmware.vcloud"),
    }
    if admin:
        out["cellName"] = (FIRST, lambda t: "vcd-cell1")
    return out


def types(engine: Engine) -> dict[str, RecordType]:
    """All of them by name; names are case-sensitive [D]."""
    table = [
        RecordType("adminVM", "AdminVMRecord", "VM", f"{V}vm+xml", True, _vms, vm_ref, _ADMIN_VM),
        RecordType("vm", "VMRecord", "VM", f"{V}vm+xml", False, _vms, vm_ref, _TENANT_VM),
        RecordType("adminVApp", "AdminVAppRecord", "AdminVApp", f"{V}vApp+xml", True, _containers(False), container_ref,
                   {**_CONTAINER, **_VAPP, **_ADMIN_CONTAINER}),
        RecordType("vApp", "VAppRecord", "VApp", f"{V}vApp+xml", False, _containers(False), container_ref, {**_CONTAINER, **_VAPP}),
        RecordType("adminVAppTemplate", "AdminVAppTemplateRecord", "AdminVAppTemplate", f"{V}vAppTemplate+xml", True, _containers(True),
                   container_ref, {**_CONTAINER, **_TEMPLATE, **_ADMIN_CONTAINER}),
        RecordType("vAppTemplate", "VAppTemplateRecord", "VAppTemplate", f"{V}vAppTemplate+xml", False, _containers(True), container_ref,
                   {**_CONTAINER, **_TEMPLATE}),
        RecordType("datastore", "DatastoreRecord", "Datastore", f"{A}datastore+xml", True, lambda w, e, s: w.datastores.values(),
                   datastore_ref, _DATASTORE),
        RecordType("adminShadowVM", "AdminShadowVMRecord", "AdminShadowVM", f"{V}vm+xml", True, lambda w, e, s: list(w.shadows.values()),
                   lambda s: Path(f"/api/vAppTemplate/vm-{s.id}", f"urn:vcloud:vm:{s.id}"), _SHADOW),
        RecordType("adminOrgVdc", "AdminVdcRecord", "AdminVdc", f"{A}vdc+xml", True, lambda w, e, s: w.vdcs.values(), admin_vdc_ref, _ADMIN_VDC),
        RecordType("orgVdc", "OrgVdcRecord", "OrgVdc", f"{V}vdc+xml", False, lambda w, e, s: [v for v in w.vdcs.values() if _mine(s, v)],
                   vdc_ref, _VDC),
        RecordType("organization", "OrgRecord", "Organization", f"{A}organization+xml", True, _orgs,
                   lambda o: Path(f"/api/admin/org/{o.id}", f"urn:vcloud:org:{o.id}"), _ORG),
        RecordType("adminOrgVdcStorageProfile", "AdminOrgVdcStorageProfileRecord", "AdminOrgVdcStorageProfile", f"{A}vdcStorageProfile+xml",
                   True, _profiles, admin_profile_ref, _PROFILE),
        RecordType("orgVdcStorageProfile", "OrgVdcStorageProfileRecord", "OrgVdcStorageProfile", f"{V}vdcStorageProfile+xml", False, _profiles,
                   profile_ref, {k: v for k, v in _PROFILE.items() if k not in ("org", "vc")}),
        RecordType("adminDisk", "AdminDiskRecord", "AdminDisk", f"{V}disk+xml", True, lambda w, e, s: w.disks.values(),
                   lambda d: Path(f"/api/disk/{d.id}", f"urn:vcloud:disk:{d.id}"), _ADMIN_DISK),
        RecordType("disk", "DiskRecord", "Disk", f"{V}disk+xml", False, lambda w, e, s: [d for d in w.disks.values() if _mine(s, d.vdc)],
                   lambda d: Path(f"/api/disk/{d.id}", f"urn:vcloud:disk:{d.id}"), _DISK),
        RecordType("adminTask", "AdminTaskRecord", "AdminTask", f"{V}task+xml", True, _tasks, task_ref, task_attributes(True, engine)),
        RecordType("task", "TaskRecord", "Task", f"{V}task+xml", False, _tasks, task_ref, task_attributes(False, engine)),
    ]  # fmt: skip
    return {t.name: t for t in table}
