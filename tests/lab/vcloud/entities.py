# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documents of single things: Session, Org, Vdc, vApp, template, Vm, Datastore, Task, as XML."""

from __future__ import annotations

from typing import Any, Callable

from . import records
from .engine import Engine, Task
from .records import Path, Version
from .sessions import SYSTEM, SYSTEM_ORG, Session
from .switches import Switches
from .world import Container, Datastore, NamedDisk, Org, Profile, Vdc, VimServer, Vm, World
from .xmlout import DECLARATION, NAMESPACES, OVF, RASD, VCLOUD, VERSIONS, VMEXT, A, V, element, error, leaf, link

# Entity status [D].
_STATUS = {"on": 4, "off": 8, "suspended": 3}


class Entities:
    def __init__(self, world: World, engine: Engine, switches: Switches, base: Callable[[], str]) -> None:
        self.world = world
        self.engine = engine
        self.switches = switches
        self.base = base

    def href(self, path: str) -> str:
        return self.base() + path

    def ref(self, name: str, media: str, path: Path, label: str, with_id: bool = False) -> str:
        values = {"type": media, "name": label, "id": path.urn if with_id else None, "href": self.href(path.path)}
        return element(name, values)

    def versions(self) -> str:
        """GET /api/versions, without a log-in [D]: LoginUrl by era, ProviderLoginUrl since 36.0, MediaTypeMapping before 5.7."""
        out = []
        for version in sorted(self.switches.versions, key=number):
            modern = number(version) >= (33, 0)
            login = "/cloudapi/1.0.0/sessions" if modern else "/api/sessions"
            inner = leaf("Version", version) + leaf("LoginUrl", self.href(login))
            if number(version) >= (36, 0):
                inner += leaf("ProviderLoginUrl", self.href("/cloudapi/1.0.0/sessions/provider"))
            if number(version) < (5, 7):
                inner += element(
                    "MediaTypeMapping",
                    None,
                    leaf("MediaType", f"{V}relocateVmParams+xml"),
                    leaf("ComplexTypeName", "RelocateParamsType"),
                    leaf("SchemaLocation", self.href("/api/v1.5/schema/vApp.xsd")),
                )
            values = {"deprecated": version in self.switches.deprecated} if number(version) >= (5, 1) else {}
            out.append(element("VersionInfo", values, inner))
        for version in self.switches.alpha_versions:
            inner = leaf("Version", version) + leaf("LoginUrl", self.href("/cloudapi/1.0.0/sessions"))
            out.append(element("AlphaVersion", {"deprecated": False}, inner))
        return DECLARATION + element("SupportedVersions", {"xmlns": VERSIONS}, *out)

    def session(self, session: Session) -> str:
        values = {
            "xmlns": VCLOUD,
            "user": session.user,
            "userId": f"urn:vcloud:user:{session.org_id}",
            "org": session.org_name,
            "locationId": f"{session.org_id}@vcd-cell1",
            "type": f"{V}session+xml",
            "href": self.href("/api/session"),
        }
        links = [link("down", self.href("/api/org"), f"{V}orgList+xml"), link("down", self.href("/api/admin"), f"{A}vcloud+xml")]
        if session.org_name != SYSTEM:
            links.append(link("down", self.href(f"/api/org/{session.org_id}"), f"{V}org+xml", session.org_name))
        if session.system:
            links.append(link("down", self.href("/api/admin/extension"), f"{A}vmwExtension+xml"))
        links.append(link("down", self.href("/api/query"), f"{V}query.queryList+xml"))
        return DECLARATION + element("Session", values, *links)

    def org_list(self, orgs: list[Org]) -> str:
        inner = [self.ref("Org", f"{V}org+xml", records.org_ref(o), o.name) for o in orgs]
        return DECLARATION + element("OrgList", {"xmlns": VCLOUD, "href": self.href("/api/org"), "type": f"{V}orgList+xml"}, *inner)

    def _head(self, name: str, urn: str, path: str, media: str, **more: Any) -> dict[str, Any]:
        return {**NAMESPACES, "name": name, "id": urn, **more, "type": media, "href": self.href(path)}

    def org(self, org: Org) -> str:
        ref = records.org_ref(org)
        links = [link("down", self.href(f"/api/vdc/{v.id}"), f"{V}vdc+xml", v.name) for v in org.vdcs]
        head = self._head(org.name, ref.urn, ref.path, f"{V}org+xml")
        return DECLARATION + element("Org", head, *links, leaf("Description", ""), leaf("FullName", org.full_name))

    def admin_org(self, org: Org) -> str:
        inner = [self.ref("Vdc", f"{A}vdc+xml", records.admin_vdc_ref(v), v.name) for v in org.vdcs]
        head = self._head(org.name, f"urn:vcloud:org:{org.id}", f"/api/admin/org/{org.id}", f"{A}organization+xml")
        alternate = link("alternate", self.href(f"/api/org/{org.id}"), f"{V}org+xml")
        return DECLARATION + element(
            "AdminOrg", head, alternate, leaf("FullName", org.full_name), leaf("IsEnabled", True), element("Vdcs", None, *inner)
        )

    def vdc(self, vdc: Vdc, version: Version) -> str:
        ref = records.vdc_ref(vdc)
        entities = [
            self.ref("ResourceEntity", f"{V}{'vAppTemplate' if c.template else 'vApp'}+xml", records.container_ref(c), c.name, True)
            for c in vdc.containers
        ]
        profiles = [self.ref("VdcStorageProfile", f"{V}vdcStorageProfile+xml", records.profile_ref(p), p.name, True) for p in vdc.profiles]
        return DECLARATION + element(
            "Vdc",
            self._head(vdc.name, ref.urn, ref.path, f"{V}vdc+xml", status=1),
            link("up", self.href(f"/api/org/{vdc.org.id}"), f"{V}org+xml"),
            leaf("AllocationModel", "AllocationVApp"),
            element("ResourceEntities", None, *entities),
            leaf("IsEnabled", vdc.enabled),
            element("VdcStorageProfiles", None, *profiles) if version >= records.V51 else "",
        )

    def profile(self, profile: Profile) -> str:
        ref = records.profile_ref(profile)
        head = self._head(profile.name, ref.urn, ref.path, f"{V}vdcStorageProfile+xml")
        up = link("up", self.href(f"/api/vdc/{profile.vdc.id}"), f"{V}vdc+xml")
        inner = (leaf("Enabled", True), leaf("Units", "MB"), leaf("Limit", 0), leaf("Default", profile.default))
        return DECLARATION + element("VdcStorageProfile", head, up, *inner)

    def vim_ref(self, name: str, server: Any, moref: str, kind: str, **values: Any) -> str:
        """A reference into vCenter: VimServerRef, MoRef, VimObjectType (vmext VimObjectRefType)."""
        media = f"{A}vmwvirtualcenter+xml"
        inner = self.ref("vmext:VimServerRef", media, records.server_ref(server), server.name)
        return element(f"vmext:{name}", values, inner, leaf("vmext:MoRef", moref), leaf("vmext:VimObjectType", kind))

    def _vim_info(self, vm: Vm, version: Version) -> str:
        """VCloudExtension/VmVimInfo; VmDiskDatastores (once per disk, by instanceId) since 5.6 (DiskDatastoreType)."""
        vc = vm.vdc.vc
        inner = self.vim_ref("VmVimObjectRef", vc, vm.moref, "VIRTUAL_MACHINE")
        inner += self.vim_ref("DatastoreVimObjectRef", vc, vm.datastore.moref, "DATASTORE")
        if version >= (5, 6) and self.switches.disk_datastores:
            disks = [(d.key, d.datastore) for d in vm.disks] + [(3000 + i, d.datastore) for i, d in enumerate(self._named(vm))]
            for key, datastore in disks:
                inner += self.vim_ref("VmDiskDatastores", vc, datastore.moref, "DATASTORE", instanceId=key)
        if vm.host and version >= (5, 1):
            inner += self.vim_ref("HostVimObjectRef", vc, f"host-{vc.hosts.index(vm.host) + 10}", "HOST")
        inner += leaf("vmext:VirtualDisksMaxChainLength", vm.chain_length)
        return element("VCloudExtension", {"required": False}, element("vmext:VmVimInfo", None, inner))

    def _named(self, vm: Vm) -> list[NamedDisk]:
        return [d for d in self.world.disks.values() if d.vm is vm]

    def _hardware(self, vm: Vm) -> str:
        """The disks of ovf:VirtualHardwareSection: vcloud:capacity in MB on HostResource (vCloud API Programming Guide 1.5)."""
        items = [self._item("4", leaf("rasd:VirtualQuantity", vm.memory_mb), 5), self._item("3", leaf("rasd:VirtualQuantity", vm.cpus), 6)]
        for i, disk in enumerate(vm.disks):
            resource = element("rasd:HostResource", {"vcloud:capacity": disk.size_mb, "vcloud:busType": 6, "vcloud:busSubType": "lsilogic"})
            items.append(self._item("17", resource, disk.key, f"Hard disk {i + 1}"))
        for i, named in enumerate(self._named(vm)):
            values = {"vcloud:capacity": named.size_mb, "vcloud:disk": self.href(f"/api/disk/{named.id}")}
            items.append(self._item("17", element("rasd:HostResource", values), 3000 + i, f"Hard disk {len(vm.disks) + i + 1}"))
        return element("ovf:VirtualHardwareSection", None, leaf("ovf:Info", "Virtual hardware requirements"), *items)

    @staticmethod
    def _item(kind: str, inner: str, instance: int, name: str = "") -> str:
        head = leaf("rasd:ElementName", name) if name else ""
        return element("ovf:Item", None, head, leaf("rasd:InstanceID", instance), leaf("rasd:ResourceType", kind), inner)

    def _specification(self, vm: Vm) -> str:
        """VmSpecSection with DiskSettings (SizeMb), modern versions."""
        disks = []
        for i, disk in enumerate(vm.disks):
            inner = leaf("DiskId", disk.key) + leaf("SizeMb", disk.size_mb) + leaf("UnitNumber", i) + leaf("BusNumber", 0)
            inner += leaf("AdapterType", 5) + leaf("ThinProvisioned", True) + self._profile_ref("StorageProfile", vm)
            disks.append(element("DiskSettings", None, inner, leaf("overrideVmDefault", False)))
        for i, named in enumerate(self._named(vm)):
            inner = leaf("DiskId", 3000 + i) + leaf("SizeMb", named.size_mb) + leaf("UnitNumber", 0) + leaf("BusNumber", 1)
            inner += leaf("AdapterType", 5) + element("Disk", {"name": named.name, "href": self.href(f"/api/disk/{named.id}")})
            disks.append(element("DiskSettings", None, inner))
        inner = leaf("ovf:Info", "Virtual Machine specification") + leaf("NumCpus", vm.cpus)
        memory = element("MemoryResourceMb", None, leaf("Configured", vm.memory_mb))
        return element("VmSpecSection", {"Modified": False}, inner, memory, element("DiskSection", None, *disks))

    def _profile_ref(self, name: str, vm: Vm) -> str:
        return self.ref(name, f"{V}vdcStorageProfile+xml", records.profile_ref(vm.profile), vm.profile.name, True)

    def relocatable(self, version: Version) -> bool:
        """Whether a version has relocate: since 1.5, gone from 39.0 [D]."""
        return version < (39, 0)

    def vm(self, vm: Vm, session: Session, version: Version, root: bool = True) -> str:
        ref = records.vm_ref(vm)
        head = self._head(vm.name, ref.urn, ref.path, f"{V}vm+xml", status=_STATUS[vm.power], deployed=vm.power == "on")
        if vm.template:
            head.pop("deployed")
        if root:
            head.update({"xmlns:ovf": OVF, "xmlns:rasd": RASD, "xmlns:vcloud": VCLOUD})
        else:
            head = {k: v for k, v in head.items() if not k.startswith("xmlns")}
        href = self.href(vm.path)
        container = "vAppTemplate" if vm.template else "vApp"
        links = [link("up", self.href(vm.container.path), f"{V}{container}+xml")]
        if not vm.template:
            links += [link("edit", href, f"{V}vm+xml"), link("down", f"{href}/virtualHardwareSection/disks", f"{V}rasdItemsList+xml")]
            if version >= records.V51:
                links.append(link("reconfigureVm", f"{href}/action/reconfigureVm", f"{V}vm+xml", vm.name))
        if session.system:
            links.append(link("consolidate", f"{href}/action/consolidate"))
            if self.relocatable(version):
                links.append(link("relocate", f"{href}/action/relocate", f"{V}relocateVmParams+xml"))
        out = [self._vim_info(vm, version) if session.system else "", *links]
        if vm.task and not vm.task.over:
            out.append(element("Tasks", None, self.task(vm.task, root=False)))
        if root:
            out.append(self._hardware(vm))
            if version >= records.MODERN:
                out.append(self._specification(vm))
        out.append(leaf("VAppScopedLocalId", vm.id))
        if version >= records.V51:
            out.append(self._profile_ref("StorageProfile", vm))
        return (DECLARATION if root else "") + element("Vm", head, *out)

    def disk_items(self, vm: Vm) -> str:
        """GET {vm}/virtualHardwareSection/disks: RasdItemsList."""
        items = "".join(
            element(
                "Item",
                None,
                leaf("rasd:ElementName", f"Hard disk {i + 1}"),
                element("rasd:HostResource", {"capacity": d.size_mb}),
                leaf("rasd:InstanceID", d.key),
                leaf("rasd:ResourceType", 17),
            )
            for i, d in enumerate(vm.disks)
        )
        values = {"xmlns": VCLOUD, "xmlns:rasd": RASD, "type": f"{V}rasdItemsList+xml"}
        return DECLARATION + element("RasdItemsList", {**values, "href": self.href(f"{vm.path}/virtualHardwareSection/disks")}, items)

    def container(self, c: Container, session: Session, version: Version) -> str:
        ref = records.container_ref(c)
        name = "VAppTemplate" if c.template else "VApp"
        media = f"{V}{'vAppTemplate' if c.template else 'vApp'}+xml"
        status = 8 if c.template or not any(v.power == "on" for v in c.vms) else 4
        head = self._head(c.name, ref.urn, ref.path, media, status=status, **{"xmlns:ovf": OVF, "xmlns:rasd": RASD, "xmlns:vcloud": VCLOUD})
        up = link("up", self.href(f"/api/vdc/{c.vdc.id}"), f"{V}vdc+xml")
        children = element("Children", None, *(self.vm(v, session, version, root=False) for v in c.vms))
        return DECLARATION + element(name, head, up, leaf("DateCreated", c.created), children)

    def disk(self, disk: NamedDisk) -> str:
        head = self._head(disk.name, f"urn:vcloud:disk:{disk.id}", f"/api/disk/{disk.id}", f"{V}disk+xml", status=1, sizeMb=disk.size_mb)
        profile = self.ref("StorageProfile", f"{V}vdcStorageProfile+xml", records.profile_ref(disk.profile), disk.profile.name)
        return DECLARATION + element("Disk", head, link("up", self.href(f"/api/vdc/{disk.vdc.id}"), f"{V}vdc+xml"), profile)

    def extension(self) -> str:
        head = {**NAMESPACES, "type": f"{A}vmwExtension+xml", "href": self.href("/api/admin/extension")}
        links = [
            link("down", self.href("/api/admin/extension/datastores"), f"{A}datastoreList+xml"),
            link("down", self.href("/api/admin/extension/vimServerReferences"), f"{A}vmwVimServerReferences+xml"),
        ]
        return DECLARATION + element("vmext:VMWExtension", head, *links)

    def datastores(self) -> str:
        """DatastoreReferences, as the 1.5 and 5.1 guides show it; with ids, which pyvcloud reads [C]."""
        inner = [self.ref("Reference", f"{A}datastore+xml", records.datastore_ref(d), d.name, True) for d in self.world.datastores.values()]
        head = {**NAMESPACES, "type": f"{A}datastoreList+xml", "href": self.href("/api/admin/extension/datastores")}
        up = link("up", self.href("/api/admin/extension"), f"{A}vmwExtension+xml")
        return DECLARATION + element("vmext:DatastoreReferences", head, up, *inner)

    def datastore(self, d: Datastore) -> str:
        """DatastoreType: the extension's view; actions enable and disable since 1.5 (POST-EnableDatastore)."""
        ref = records.datastore_ref(d)
        action = "disable" if d.enabled else "enable"
        fields: dict[str, Any] = {
            "Enabled": d.enabled,
            "Busy": False,
            "ThresholdYellowGb": d.total_mb // 1024 // 10,
            "ThresholdRedGb": d.total_mb // 1024 // 20,
            "DatastoreFsType": d.kind,
            "VcDisplayName": d.vc.name,
            "TotalCapacityMb": d.total_mb,
            "UsedCapacityMb": d.used_mb,
            "UsedCapacityPercent": 100 * d.used_mb // d.total_mb if d.total_mb else 0,
            "ProvisionedSpaceMb": d.provisioned_mb,
            "RequestedStorageMb": d.requested_mb,
        }
        return DECLARATION + element(
            "vmext:Datastore",
            self._head(d.name, ref.urn, ref.path, f"{A}datastore+xml"),
            link("edit", self.href(ref.path), f"{A}datastore+xml"),
            link(action, self.href(f"{ref.path}/action/{action}")),
            self.vim_ref("VimObjectRef", d.vc, d.moref, "DATASTORE"),
            *(leaf(f"vmext:{name}", value) for name, value in fields.items()),
        )

    def admin(self, orgs: list[Org]) -> str:
        """GET /api/admin: the organizations in the administrator's view."""
        media = f"{A}organization+xml"
        refs = [self.ref("OrganizationReference", media, Path(f"/api/admin/org/{o.id}", f"urn:vcloud:org:{o.id}"), o.name) for o in orgs]
        head = {"xmlns": VCLOUD, "name": "lab", "type": f"{A}vcloud+xml", "href": self.href("/api/admin")}
        return DECLARATION + element("VCloud", head, element("OrganizationReferences", None, *refs))

    def server(self, server: VimServer) -> str:
        ref = records.server_ref(server)
        head = self._head(server.name, ref.urn, ref.path, f"{A}vmwvirtualcenter+xml")
        inner = (leaf("vmext:IsEnabled", True), leaf("vmext:IsConnected", True))
        return DECLARATION + element("vmext:VimServer", head, *inner)

    def servers(self) -> str:
        inner = [
            self.ref("vmext:VimServerReference", f"{A}vmwvirtualcenter+xml", records.server_ref(s), s.name, True)
            for s in self.world.servers.values()
        ]
        head = {**NAMESPACES, "type": f"{A}vmwVimServerReferences+xml", "href": self.href("/api/admin/extension/vimServerReferences")}
        return DECLARATION + element("vmext:VMWVimServerReferences", head, *inner)

    def task(self, task: Task, root: bool = True) -> str:
        clock, status = self.engine.clock.text, self.engine.shown(task)
        media, name, path, _urn = task.owner
        head: dict[str, Any] = {
            **({"xmlns": VCLOUD, "xmlns:vmext": VMEXT} if root else {}),
            "name": "task",
            "status": status,
            "operationName": task.operation_name,
            "operation": task.operation,
            "serviceNamespace": "com.vmware.vcloud",
            "cancelRequested": task.cancel_requested,
            "startTime": clock(task.started or task.created),
            "endTime": clock(task.ended) if task.over else None,
            "expiryTime": clock(task.created + 90 * 86400),
            "id": f"urn:vcloud:task:{task.id}",
            "type": f"{V}task+xml",
            "href": self.href(task.path),
        }
        user = {"type": f"{A}user+xml", "name": task.user, "href": self.href(f"/api/admin/user/{SYSTEM_ORG.id}")}
        org = {"type": f"{V}org+xml", "name": task.org_name, "href": self.href(f"/api/org/{task.org_id}")}
        out = [] if task.over else [link("task:cancel", self.href(f"{task.path}/action/cancel"))]
        out += [element("Owner", {"type": media, "name": name, "href": self.href(path)})]
        out += [error(*task.error, root=False)] if task.error else []
        out += [element("User", user), element("Organization", org)]
        if self.switches.progress:
            out.append(leaf("Progress", self.engine.progress(task)))
        return (DECLARATION if root else "") + element("Task", head, *out, leaf("Details", ""))


def number(version: str) -> Version:
    """Versions compare as numbers: 5.1 < 29.0 < 38.1."""
    major, _dot, minor = version.partition(".")
    return int(major), int(minor or 0)
