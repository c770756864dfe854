# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is to know of VMs before they are moved: one round of the property collector for a whole wave."""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from .client import Session
from .disks import VmDisk, VmNic, map_disks, map_nics
from .find import VmRef, describe, find_vms
from .properties import POWER, Row, moref_of, of_objects, of_view
from .tree import ANCESTORS, Tree, shown

#: Leaves of the VM. config.hardware.device is the one big one.
VM_PATHS = (
    "name",
    "parent",
    "parentVApp",
    "config.annotation",
    "config.bootOptions.bootOrder",
    "config.bootOptions.efiSecureBootEnabled",
    "config.changeTrackingEnabled",
    "config.files.vmPathName",
    "config.firmware",
    "config.guestFullName",
    "config.guestId",
    "config.hardware.device",
    "config.hardware.memoryMB",
    "config.hardware.numCPU",
    "config.hardware.numCoresPerSocket",
    "config.instanceUuid",
    "config.keyId",
    "config.template",
    "config.uuid",
    "config.version",
    "customValue",
    "datastore",
    "guest.hostName",
    "guest.net",
    "guest.toolsRunningStatus",
    "guest.toolsVersionStatus2",
    "network",
    "runtime.connectionState",
    "runtime.consolidationNeeded",
    "runtime.host",
    "runtime.powerState",
    "snapshot",
)

#: What is asked about the things around the VMs.
AROUND_PATHS = {
    **ANCESTORS,
    "HostSystem": ("name", "parent"),
    "Datastore": ("name", "summary.type"),
    "Network": ("name",),
    "DistributedVirtualPortgroup": ("name", "key"),
    "OpaqueNetwork": ("name", "summary"),
    "CustomFieldsManager": ("field",),
}


def count_snapshots(snapshot: Any) -> int:
    """The number of snapshots in a VM's C(snapshot) property."""
    waiting = list(getattr(snapshot, "rootSnapshotList", None) or ())
    count = 0
    while waiting:
        count += 1
        waiting.extend(waiting.pop().childSnapshotList or ())
    return count


def custom_attributes(fields: Iterable[Any], values: Iterable[Any]) -> dict[str, str]:
    """Custom attributes by name; an empty value is what vSphere keeps of a removed one, so it is left out."""
    names = {f.key: str(f.name) for f in fields or ()}
    return {names[v.key]: str(v.value) for v in values or () if v.key in names and getattr(v, "value", None)}


def network_names(rows: Iterable[Row]) -> dict[str, str]:
    """Names of networks by MoRef, port group key and opaque network id."""
    names: dict[str, str] = {}
    for row in rows:
        name = row.props.get("name")
        if name is None:
            continue
        if row.kind in ("Network", "DistributedVirtualPortgroup", "OpaqueNetwork"):
            opaque = getattr(row.props.get("summary"), "opaqueNetworkId", None)
            for known in (row.moref, row.props.get("key"), opaque):
                if known:
                    names[str(known)] = shown(str(name))
    return names


def map_vm(row: Row, tree: Tree, networks: dict[str, str], fields: Sequence[Any] = ()) -> dict[str, Any]:
    """The facts of one VM. Sizes of disks are in bytes, memory in MiB.

    :param networks: names by MoRef, port group key or opaque network id.
    :param fields: the definitions of custom attributes.
    """
    p = row.props
    devices = p.get("config.hardware.device") or ()
    host = p.get("runtime.host")
    datacenter = tree.datacenter(row.moref)

    def datastore(moref: str) -> tuple[str | None, str | None]:
        found = tree.row(moref)
        return (shown(str(found.props["name"])), found.props.get("summary.type")) if found and "name" in found.props else (None, None)

    disks = map_disks(devices, datastore, datacenter)
    nics = map_nics(devices, networks.get, p.get("guest.net") or ())
    power = str(p.get("runtime.powerState", ""))
    return {
        "name": shown(str(p.get("name", row.moref))),
        "moref": row.moref,
        "instance_uuid": p.get("config.instanceUuid"),
        "bios_uuid": p.get("config.uuid"),
        "path": tree.path(row.moref),
        "folder": tree.folder(row.moref),
        "datacenter": datacenter,
        "power": POWER.get(power, power or None),
        "connection": str(p["runtime.connectionState"]) if "runtime.connectionState" in p else None,
        "guest_id": p.get("config.guestId"),
        "guest_full_name": p.get("config.guestFullName"),
        "guest_hostname": p.get("guest.hostName"),
        "firmware": p.get("config.firmware") or None,
        "secure_boot": bool(p.get("config.bootOptions.efiSecureBootEnabled")),
        "boot_disks": [
            int(b.deviceKey) for b in p.get("config.bootOptions.bootOrder") or () if hasattr(b, "deviceKey") and "Disk" in b._wsdlName
        ],
        "vtpm": any(d._wsdlName == "VirtualTPM" for d in devices),
        "cpus": p.get("config.hardware.numCPU"),
        "cores_per_socket": p.get("config.hardware.numCoresPerSocket"),
        "memory_mb": p.get("config.hardware.memoryMB"),
        "hw_version": p.get("config.version"),
        "template": bool(p.get("config.template")),
        "annotation": p.get("config.annotation") or "",
        "tools_running": p.get("guest.toolsRunningStatus"),
        "tools_version": p.get("guest.toolsVersionStatus2"),
        "host": tree.name(host),
        "host_moref": moref_of(host) if host is not None else None,
        "cluster": tree.cluster(moref_of(host)) if host is not None else None,
        "datastores": sorted(filter(None, (tree.name(d) for d in p.get("datastore") or ()))),
        "vmx_path": p.get("config.files.vmPathName"),
        "encrypted": p.get("config.keyId") is not None,
        "change_tracking": bool(p.get("config.changeTrackingEnabled")),
        "consolidation_needed": bool(p.get("runtime.consolidationNeeded")),
        "snapshots": count_snapshots(p.get("snapshot")),
        "custom_attributes": custom_attributes(fields, p.get("customValue") or ()),
        "disks": disks,
        "nics": nics,
    }


def _around(rows: Sequence[Row]) -> list[Any]:
    """The managed objects that C(rows) of VMs point to: hosts, datastores, networks, folders."""
    found: dict[str, Any] = {}
    for row in rows:
        p = row.props
        single = [p.get(name) for name in ("parent", "parentVApp", "runtime.host")]
        for ref in [*single, *(p.get("datastore") or ()), *(p.get("network") or ())]:
            if ref is not None:
                found.setdefault(moref_of(ref), ref)
        for device in p.get("config.hardware.device") or ():
            ref = getattr(getattr(device, "backing", None), "datastore", None)
            if ref is not None:
                found.setdefault(moref_of(ref), ref)
    return list(found.values())


def read_vms(session: Session, vms: Sequence[VmRef]) -> list[dict[str, Any]]:
    """Like vm_facts, with C(disks) and C(nics) as VmDisk and VmNic."""
    step = "read the VM"
    rows = of_objects(session, [vm.ref for vm in vms], {"VirtualMachine": VM_PATHS}, step=step, page=100)
    manager = session.content.customFieldsManager
    refs = _around(rows) + ([manager] if manager is not None else [])
    around = of_objects(session, refs, AROUND_PATHS, ancestors=True, step=step)
    tree = Tree([*around, *rows])
    networks = network_names(around)
    fields = next((row.props.get("field") or () for row in around if row.kind == "CustomFieldsManager"), ())
    by_moref = {row.moref: map_vm(row, tree, networks, fields) for row in rows}
    return [by_moref[vm.moref] for vm in vms if vm.moref in by_moref]


def vm_facts(session: Session, vms: Sequence[VmRef]) -> list[dict[str, Any]]:
    """Facts of C(vms), in their order, as data that JSON can hold: two questions to the server for any number of VMs.

    A VM that was removed meanwhile is left out.
    """
    return [plain(facts) for facts in read_vms(session, vms)]


def facts_of(session: Session, wanted: Sequence[str] | None) -> list[dict[str, Any]]:
    """Facts of the VMs that C(wanted) names, in its order; for None of all that are no templates, by their paths."""
    if wanted is not None:
        return vm_facts(session, find_vms(session, wanted))
    rows = of_view(session, {"VirtualMachine": ("config.template",)})
    vms = describe(session, [row.moref for row in rows if not row.props.get("config.template")])
    return sorted(vm_facts(session, vms), key=lambda facts: str(facts["path"]))


def plain(facts: dict[str, Any]) -> dict[str, Any]:
    """C(facts) of read_vms with disks and nics as dicts."""
    return {**facts, "disks": [d.as_dict() for d in facts["disks"]], "nics": [n.as_dict() for n in facts["nics"]]}


def vm_disks(session: Session, vm: VmRef) -> list[VmDisk]:
    """The disks of one VM."""
    facts = read_vms(session, [vm])
    disks: list[VmDisk] = facts[0]["disks"] if facts else []
    return disks


def vm_nics(session: Session, vm: VmRef) -> list[VmNic]:
    """The network cards of one VM, in vSphere's order."""
    facts = read_vms(session, [vm])
    nics: list[VmNic] = facts[0]["nics"] if facts else []
    return nics
