# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What placement knows: hosts, datastores, VMs and clusters as plain data, read in one question for a whole vCenter.

Vendor reference: vSphere Web Services API, HostSystem, Datastore (DatastoreHostMount), VirtualMachine (storage.perDatastoreUsage,
resourceConfig), ClusterConfigInfoEx (rule, group, drsConfig, dasConfig).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Iterable, Mapping, Sequence

from ..errors import BadInput
from .client import Session
from .guest import count_snapshots, custom_attributes
from .properties import POWER, Row, moref_of, of_objects, of_view
from .site_model import MIB, Cluster, Datastore, DrsRule, Host, Site, Vm
from .tree import ANCESTORS, Tree, shown

__all__ = ["Cluster", "Datastore", "DrsRule", "Host", "Site", "Vm", "read_site", "site_of", "with_devices"]


HOST_PATHS = (
    "name",
    "parent",
    "config.product.build",
    "config.product.version",
    "customValue",
    "datastore",
    "network",
    "runtime.connectionState",
    "runtime.inMaintenanceMode",
    "runtime.powerState",
    "summary.config.vmotionEnabled",
    "summary.currentEVCModeKey",
    "summary.maxEVCModeKey",
    "summary.hardware.cpuMhz",
    "summary.hardware.cpuModel",
    "summary.hardware.memorySize",
    "summary.hardware.model",
    "summary.hardware.numCpuCores",
    "summary.hardware.numCpuThreads",
    "summary.hardware.vendor",
    "summary.quickStats.overallCpuUsage",
    "summary.quickStats.overallMemoryUsage",
)
DATASTORE_PATHS = (
    "name",
    "parent",
    "host",
    "summary.accessible",
    "summary.capacity",
    "summary.freeSpace",
    "summary.maintenanceMode",
    "summary.type",
)
VM_PATHS = (
    "name",
    "parent",
    "parentVApp",
    "config.files.vmPathName",
    "config.guestId",
    "config.hardware.memoryMB",
    "config.hardware.numCPU",
    "config.instanceUuid",
    "config.template",
    "customValue",
    "datastore",
    "network",
    "resourceConfig.memoryAllocation.reservation",
    "runtime.connectionState",
    "runtime.consolidationNeeded",
    "runtime.faultToleranceState",
    "runtime.host",
    "runtime.minRequiredEVCModeKey",
    "runtime.powerState",
    "snapshot",
    "storage.perDatastoreUsage",
    "summary.quickStats.overallCpuUsage",
)
#: The one big leaf of a VM.
DEVICES = "config.hardware.device"
_NETWORKS = ("Network", "DistributedVirtualPortgroup", "OpaqueNetwork")
#: Devices of the host itself, which no other host has (vSphere: "Migration with vMotion", requirements of virtual machines).
_PASSTHROUGH = ("VirtualPCIPassthrough", "VirtualSCSIPassthrough", "VirtualSriovEthernetCard", "VirtualUSB")
#: Backings that are a device of the host (CD-ROM, floppy, serial and parallel port).
_LOCAL_BACKINGS = ("DeviceBackingInfo", "AtapiBackingInfo", "PassthroughBackingInfo")


def _refs(value: Any) -> frozenset[str]:
    return frozenset(moref_of(r) for r in value or ())


def _drs_rules(config: Any) -> tuple[DrsRule, ...]:
    """The enabled rules of a ClusterConfigInfoEx, groups resolved."""
    groups: dict[str, frozenset[str]] = {}
    for group in getattr(config, "group", None) or ():
        groups[str(group.name)] = _refs(getattr(group, "vm", None) or getattr(group, "host", None))
    found: list[DrsRule] = []
    for rule in getattr(config, "rule", None) or ():
        if not getattr(rule, "enabled", True):
            continue
        name, kind = str(rule.name), rule._wsdlName
        if kind in ("ClusterAffinityRuleSpec", "ClusterAntiAffinityRuleSpec"):
            found.append(DrsRule(name, "together" if kind == "ClusterAffinityRuleSpec" else "apart", _refs(rule.vm)))
        elif kind == "ClusterVmHostRuleInfo":
            vms, required = groups.get(str(rule.vmGroupName), frozenset()), bool(getattr(rule, "mandatory", False))
            for kind, group in (("run_on", rule.affineHostGroupName), ("keep_off", rule.antiAffineHostGroupName)):
                if group:
                    found.append(DrsRule(name, kind, vms, groups.get(str(group), frozenset()), required))
    return tuple(found)


def _cluster(row: Row) -> Cluster:
    config = row.props.get("configurationEx")
    drs, das = getattr(config, "drsConfig", None), getattr(config, "dasConfig", None)
    name = shown(str(row.props.get("name", row.moref)))
    return Cluster(name, bool(getattr(drs, "enabled", False)), bool(getattr(das, "enabled", False)), _drs_rules(config))


def _host(row: Row, tree: Tree, fields: Sequence[Any]) -> Host:
    p = row.props
    above = next((r for r in tree.chain(row.moref)[1:] if r.kind in ("ClusterComputeResource", "ComputeResource")), None)
    clustered = above is not None and above.kind == "ClusterComputeResource"
    power = str(p.get("runtime.powerState", ""))
    cores = int(p.get("summary.hardware.numCpuCores") or 0)
    return Host(
        moref=row.moref,
        name=shown(str(p.get("name", row.moref))),
        cluster=above.moref if above is not None and clustered else None,
        cluster_name=tree.cluster(row.moref),
        datacenter=tree.datacenter(row.moref),
        connected=str(p.get("runtime.connectionState", "")) == "connected",
        maintenance=bool(p.get("runtime.inMaintenanceMode")),
        power=POWER.get(power, power),
        cpu_mhz_total=int(p.get("summary.hardware.cpuMhz") or 0) * cores,
        cpu_mhz_used=int(p.get("summary.quickStats.overallCpuUsage") or 0),
        cores=cores,
        memory_mb_total=int(p.get("summary.hardware.memorySize") or 0) // MIB,
        memory_mb_used=int(p.get("summary.quickStats.overallMemoryUsage") or 0),
        datastores=_refs(p.get("datastore")),
        networks=_refs(p.get("network")),
        vendor=str(p.get("summary.hardware.vendor") or ""),
        model=str(p.get("summary.hardware.model") or ""),
        version=str(p.get("config.product.version") or ""),
        build=str(p.get("config.product.build") or ""),
        evc=p.get("summary.currentEVCModeKey") or None,
        custom=custom_attributes(fields, p.get("customValue") or ()),
        threads=int(p.get("summary.hardware.numCpuThreads") or cores),
        cpu_model=str(p.get("summary.hardware.cpuModel") or ""),
        evc_max=p.get("summary.maxEVCModeKey") or None,
        path=tree.path(row.moref),
        vmotion=p.get("summary.config.vmotionEnabled") is not False,
    )


def _datastore(row: Row, tree: Tree) -> Datastore:
    p = row.props
    mounts = p.get("host") or ()
    # unset is true: "accessible" came later than the mount itself (HostMountInfo)
    hosts = frozenset(moref_of(m.key) for m in mounts if getattr(m.mountInfo, "accessible", None) is not False)
    return Datastore(
        moref=row.moref,
        name=shown(str(p.get("name", row.moref))),
        type=str(p.get("summary.type") or ""),
        capacity=int(p.get("summary.capacity") or 0),
        free=int(p.get("summary.freeSpace") or 0),
        accessible=bool(p.get("summary.accessible", True)),
        maintenance=str(p.get("summary.maintenanceMode") or "normal"),
        hosts=hosts,
        local=len(mounts) == 1,
        datacenter=tree.datacenter(row.moref),
    )


def _devices(devices: Iterable[Any]) -> dict[str, Any]:
    """What a VM's devices say, as fields of Vm; capacities in bytes."""
    passthrough: list[str] = []
    local: list[str] = []
    disks: list[int] = []
    by_store: dict[str, int] = {}
    for d in devices:
        kind = d._wsdlName
        label = str(getattr(getattr(d, "deviceInfo", None), "label", None) or kind)
        backing = getattr(d, "backing", None)
        if kind in _PASSTHROUGH:
            passthrough.append(label)
        elif kind == "VirtualDisk":
            size = int(getattr(d, "capacityInBytes", None) or (d.capacityInKB or 0) * 1024)
            disks.append(size)
            store = getattr(backing, "datastore", None)
            if store is not None:
                by_store[moref_of(store)] = by_store.get(moref_of(store), 0) + size
        elif kind in ("VirtualCdrom", "VirtualFloppy", "VirtualSerialPort", "VirtualParallelPort") and backing is not None:
            remote = "Remote" in backing._wsdlName
            if getattr(getattr(d, "connectable", None), "connected", False) and not remote and backing._wsdlName.endswith(_LOCAL_BACKINGS):
                local.append(label)
    return {
        "passthrough": tuple(passthrough),
        "connected_local_devices": tuple(local),
        "disks": tuple(disks),
        "capacities": by_store,
    }


def _vm(row: Row, tree: Tree, fields: Sequence[Any], names: Mapping[tuple[str | None, str], str]) -> Vm:
    p = row.props
    power = str(p.get("runtime.powerState", ""))
    host = p.get("runtime.host")
    datacenter = tree.datacenter(row.moref)
    usage = {moref_of(u.datastore): int(u.committed or 0) for u in p.get("storage.perDatastoreUsage") or ()}
    found = _devices(p[DEVICES]) if DEVICES in p else {}
    capacities = found.pop("capacities", {})
    vmx = str(p.get("config.files.vmPathName") or "")
    store = names.get((datacenter, vmx[1:].partition("] ")[0])) if vmx.startswith("[") else None
    return Vm(
        moref=row.moref,
        name=shown(str(p.get("name", row.moref))),
        uuid=p.get("config.instanceUuid") or None,
        host=moref_of(host) if host is not None else None,
        power=POWER.get(power, power),
        cpus=int(p.get("config.hardware.numCPU") or 1),
        memory_mb=int(p.get("config.hardware.memoryMB") or 0),
        memory_reserved=int(p.get("resourceConfig.memoryAllocation.reservation") or 0),
        cpu_used_mhz=int(p.get("summary.quickStats.overallCpuUsage") or 0),
        datastores=_refs(p.get("datastore")),
        networks=_refs(p.get("network")),
        disks_bytes=usage if any(usage.values()) else capacities,
        vmx_datastore=store,
        snapshots=count_snapshots(p.get("snapshot")),
        ft=str(p.get("runtime.faultToleranceState") or "notConfigured") != "notConfigured",
        template=bool(p.get("config.template")),
        consolidation=bool(p.get("runtime.consolidationNeeded")),
        custom=custom_attributes(fields, p.get("customValue") or ()),
        connected=str(p.get("runtime.connectionState") or "connected") == "connected",
        evc=p.get("runtime.minRequiredEVCModeKey") or None,
        guest_id=str(p.get("config.guestId") or ""),
        devices_read=DEVICES in p,
        path=tree.path(row.moref),
        datacenter=datacenter,
        **found,
    )


def site_of(rows: Sequence[Row], fields: Sequence[Any] = (), *, datacenter: str | None = None) -> Site:
    """The site that C(rows) of the property collector describe. Pure.

    :param fields: the definitions of custom attributes.
    :param datacenter: name or path; hosts, datastores and VMs of others are left out.
    :raises BadInput: there is no such datacenter.
    """
    tree = Tree(rows)
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        by_kind.setdefault(row.kind, []).append(row)
    if datacenter is not None:
        paths = {tree.datacenter(r.moref) for r in by_kind.get("Datacenter", ())}
        wanted = datacenter.strip("/")
        if wanted not in paths and not any((p or "").rpartition("/")[2] == wanted for p in paths):
            raise BadInput(f"There is no datacenter {datacenter}.", code="unknown", step="read the site", unknown=datacenter)
        inside = {p for p in paths if p == wanted or (p or "").rpartition("/")[2] == wanted}
    datastores = {r.moref: _datastore(r, tree) for r in by_kind.get("Datastore", ())}
    names = {(d.datacenter, d.name): d.moref for d in datastores.values()}
    hosts = {r.moref: _host(r, tree, fields) for r in by_kind.get("HostSystem", ())}
    vms = {r.moref: _vm(r, tree, fields, names) for r in by_kind.get("VirtualMachine", ())}
    if datacenter is not None:
        datastores = {m: d for m, d in datastores.items() if d.datacenter in inside}
        hosts = {m: h for m, h in hosts.items() if h.datacenter in inside}
        vms = {m: v for m, v in vms.items() if v.datacenter in inside}
    return Site(
        hosts=hosts,
        datastores=datastores,
        vms=vms,
        clusters={r.moref: _cluster(r) for r in by_kind.get("ClusterComputeResource", ())},
        networks={r.moref: shown(str(r.props.get("name", r.moref))) for kind in _NETWORKS for r in by_kind.get(kind, ())},
    )


def _evc_modes(session: Session) -> dict[str, tuple[str, int]]:
    """Vendor and rank of each EVC mode (ServiceInstance.capability.supportedEVCMode: EVCMode.vendor, vendorTier)."""
    instance = session.vim.ServiceInstance("ServiceInstance", session.stub)
    rows = of_objects(session, [instance], {"ServiceInstance": ("capability",)}, step="read the site")
    capability = rows[0].props.get("capability") if rows else None
    modes = getattr(capability, "supportedEVCMode", None) or ()
    return {str(m.key): (str(m.vendor), int(m.vendorTier)) for m in modes}


def _fields(session: Session) -> Sequence[Any]:
    manager = session.content.customFieldsManager
    if manager is None:  # an ESXi host alone has none
        return ()
    rows = of_objects(session, [manager], {"CustomFieldsManager": ("field",)}, step="read the site")
    found: Sequence[Any] = rows[0].props.get("field") or () if rows else ()
    return found


def read_site(session: Session, *, datacenter: str | None = None, devices: bool = True) -> Site:
    """Read the site: one question whose answer comes in pages, and two small ones.

    :param datacenter: name or path; without it all of them.
    :param devices: also the VMs' devices (passthrough, local devices, sizes of disks), which are most of the answer;
        with_devices() reads them for some VMs later.
    """
    paths: dict[str, Sequence[str]] = {
        **ANCESTORS,
        "ClusterComputeResource": ("name", "parent", "configurationEx"),
        "HostSystem": HOST_PATHS,
        "Datastore": DATASTORE_PATHS,
        "VirtualMachine": (*VM_PATHS, DEVICES) if devices else VM_PATHS,
        **dict.fromkeys(_NETWORKS, ("name",)),
    }
    rows = of_view(session, paths, step="read the site")
    site = site_of(rows, _fields(session), datacenter=datacenter)
    return replace(site, evc_modes=_evc_modes(session))


def with_devices(session: Session, site: Site, morefs: Iterable[str]) -> Site:
    """C(site) with the devices of the VMs C(morefs) read, where they were not; one question."""
    wanted = [m for m in dict.fromkeys(morefs) if m in site.vms and not site.vms[m].devices_read]
    if not wanted:
        return site
    refs = [session.managed("VirtualMachine", m) for m in wanted]
    vms = dict(site.vms)
    for row in of_objects(session, refs, {"VirtualMachine": (DEVICES,)}, step="read the site"):
        found = _devices(row.props.get(DEVICES) or ())
        capacities = found.pop("capacities")
        vm = vms[row.moref]
        vms[row.moref] = replace(vm, devices_read=True, disks_bytes=vm.disks_bytes or capacities, **found)
    return replace(site, vms=vms)
