# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What RelocateVM_Task is told: pools, folders, networks and disks, as the API wants them.

Vendor reference: vSphere Web Services API, VirtualMachineRelocateSpec and VirtualMachineRelocateSpecDiskLocator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Mapping, Sequence

from ..errors import BadInput
from .client import Session
from .disks import VmDisk
from .move_checks import Check, Target, network_of
from .move_plan import Plan, Wish
from .move_subject import Subject, disk_format
from .properties import Row, moref_of, of_objects, of_view
from .site import Host, Site
from .tree import shown


@dataclass(frozen=True)
class Pool:
    """A resource pool or vApp. C(path): names from the compute resource's root pool down, the root's own left out."""

    moref: str
    name: str
    owner: str
    path: tuple[str, ...]


def pools_of(rows: Sequence[Row]) -> dict[str, Pool]:
    """The pools among C(rows) (name, parent, owner), by MoRef. Pure."""
    by_moref = {r.moref: r for r in rows if r.kind in ("ResourcePool", "VirtualApp")}
    found: dict[str, Pool] = {}
    for moref, row in by_moref.items():
        path: list[str] = []
        above: Row | None = row
        while above is not None and len(path) < 64:
            parent = above.props.get("parent")
            next_ = by_moref.get(moref_of(parent)) if parent is not None else None
            if next_ is None:
                break
            path.insert(0, shown(str(above.props.get("name", ""))))
            above = next_
        owner = row.props.get("owner")
        found[moref] = Pool(moref, shown(str(row.props.get("name", moref))), moref_of(owner) if owner is not None else "", tuple(path))
    return found


def read_pools(session: Session) -> dict[str, Pool]:
    """Every resource pool, by MoRef."""
    return pools_of(of_view(session, {"ResourcePool": ("name", "parent", "owner")}, step="read the resource pools"))


def owner_of(session: Session, host: str) -> str:
    """MoRef of the cluster or compute resource that the host (MoRef) is in."""
    rows = of_objects(session, [session.managed("HostSystem", host)], {"HostSystem": ("parent",)}, step="read the host")
    return moref_of(rows[0].props["parent"]) if rows and "parent" in rows[0].props else ""


def choose_pool(pools: Mapping[str, Pool], owner: str, now: str | None, wanted: str | None, vm: str) -> str:
    """The MoRef of the pool that the VM is to be in, on the compute resource C(owner): that which was asked for (MoRef, name or path
    with slashes), else its present one, else the one of the same path there, else the root pool.

    :raises BadInput: the pool is not there, or its name stands for several.
    """
    there = {m: p for m, p in pools.items() if p.owner == owner}
    if wanted is not None:
        parts = tuple(s for s in wanted.strip("/").split("/") if s)
        found = [p for p in there.values() if wanted in (p.moref, p.name) or p.path == parts]
        if len(found) == 1:
            return found[0].moref
        listed = ", ".join("/".join(p.path) or p.name for p in (found or there.values()))
        word = "Several resource pools answer" if found else "No resource pool of the target answers"
        raise BadInput(f"{word} to {wanted}. There are: {listed or 'none'}.", vm=vm, step="find the resource pool", unknown=wanted)
    if now in there and now is not None:
        return now
    path = pools[now].path if now in pools and now is not None else ()
    same = next((p.moref for p in there.values() if path and p.path == path), None)
    root = next((p.moref for p in there.values() if not p.path), None)
    if same is None and root is None:
        raise BadInput("The target has no resource pool.", vm=vm, step="find the resource pool")
    return str(same or root)


def find_folder(session: Session, wanted: str, datacenter: str | None, vm: str) -> str:
    """The MoRef of a folder of VMs, given by its MoRef, its inventory path (/DC0/vm/prod), or the part below the datacenter's C(vm).

    :raises BadInput: there is none.
    """
    step = "find the folder"
    if wanted.startswith("group-v") and of_objects(session, [session.managed("Folder", wanted)], {"Folder": ("name",)}, step=step):
        return wanted
    tries = [wanted.strip("/")]
    if datacenter:
        tries.append(f"{datacenter}/vm/{wanted.strip('/')}".rstrip("/"))
    for path in tries:
        ref = session.call(session.content.searchIndex.FindByInventoryPath, path, step=step, again=True)
        if ref is not None and ref._wsdlName == "Folder":
            return moref_of(ref)
    raise BadInput(f"There is no folder {wanted}.", vm=vm, step=step, unknown=wanted)


def _backing(session: Session, moref: str, name: str) -> Any:
    """The backing of a network card in the network C(moref)."""
    vim = session.vim.vm.device
    card = vim.VirtualEthernetCard
    if moref.startswith("dvportgroup-"):
        ref = session.managed("DistributedVirtualPortgroup", moref)
        paths = {"DistributedVirtualPortgroup": ("key", "config.distributedVirtualSwitch")}
        rows = of_objects(session, [ref], paths, step="read the port group")
        switch = rows[0].props["config.distributedVirtualSwitch"]
        found = of_objects(session, [switch], {"DistributedVirtualSwitch": ("uuid",)}, step="read the port group")
        port = session.vim.dvs.PortConnection(portgroupKey=rows[0].props["key"], switchUuid=found[0].props["uuid"])
        return card.DistributedVirtualPortBackingInfo(port=port)
    if not moref.startswith("network-o"):
        return card.NetworkBackingInfo(deviceName=name, network=session.managed("Network", moref))
    rows = of_objects(session, [session.managed("OpaqueNetwork", moref)], {"OpaqueNetwork": ("summary",)}, step="read the network")
    summary = rows[0].props["summary"]
    return card.OpaqueNetworkBackingInfo(opaqueNetworkId=summary.opaqueNetworkId, opaqueNetworkType=summary.opaqueNetworkType)


def device_changes(session: Session, subject: Subject, site: Site, target: Target) -> list[Any]:
    """Edits of the network cards that are in another network on the target host. MAC, type and place stay."""
    to = {}
    for nic in subject.nics:
        if nic.network is None or target.host.moref == subject.host:
            continue
        moref = network_of(site, target.host, nic.network, nic.network_moref, target.network_map)
        if moref is not None and moref != nic.network_moref:
            to[nic.key] = (moref, target.network_map.get(nic.network, nic.network))
    if not to:
        return []
    rows = of_objects(session, [subject.vm.ref], {"VirtualMachine": ("config.hardware.device",)}, step="read the VM")
    spec = session.vim.vm.device.VirtualDeviceSpec
    changes = []
    for device in rows[0].props.get("config.hardware.device") or ():
        if device.key in to:
            device.backing = _backing(session, *to[device.key])
            changes.append(spec(operation=spec.Operation.edit, device=device))
    return changes


def _locator(session: Session, disk: VmDisk, datastore: str, format_: str | None) -> Any:
    relocate = session.vim.vm.RelocateSpec
    locator = relocate.DiskLocator(diskId=disk.key, datastore=session.managed("Datastore", datastore))
    if format_ is not None:
        # the API wants a file name in a backing; an empty one leaves the name to the server (VirtualDiskFlatVer2BackingInfo)
        locator.diskBackingInfo = session.vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
            fileName="", diskMode=disk.mode or "persistent", thinProvisioned=format_ == "thin", eagerlyScrub=format_ == "eagerZeroedThick"
        )
    return locator


def relocate_spec(session: Session, subject: Subject, site: Site, target: Target, pool: str | None) -> Any:
    """The RelocateSpec for C(target)."""
    spec = session.vim.vm.RelocateSpec()
    if target.host.moref != subject.host:
        spec.host = session.managed("HostSystem", target.host.moref)
        if pool is not None:
            spec.pool = session.managed("ResourcePool", pool)
    if target.datastore is not None and not target.disks:
        spec.datastore = session.managed("Datastore", target.datastore.moref)
    wanted = target.disks or ({d.key: target.datastore for d in subject.disks} if target.datastore is not None and target.format else {})
    for disk in subject.disks:
        to = wanted.get(disk.key)
        if to is None:
            continue
        changes = target.format is not None and disk_format(disk) not in (target.format, "other")
        if changes or to.moref != disk.datastore_moref:
            spec.disk = [*(spec.disk or []), _locator(session, disk, to.moref, target.format if changes else None)]
    changes_ = device_changes(session, subject, site, target)
    if changes_:
        spec.deviceChange = changes_
    return spec


@dataclass(frozen=True)
class Place:
    """Where the VM stands in vCenter's own trees. MoRefs; None: as the server has it."""

    pool: str | None
    folder: str | None


def place_for(session: Session, subject: Subject, wish: Wish, host: Host, site: Site) -> Place:
    """The pool and the folder that the VM is to have on C(host)."""
    source = site.hosts.get(subject.host or "")
    same = source is not None and (host.moref == source.moref or host.cluster is not None and host.cluster == source.cluster)
    pool = subject.pool
    if wish.pool is not None or not same:
        pool = choose_pool(read_pools(session), owner_of(session, host.moref), subject.pool, wish.pool, subject.vm.name)
    folder = subject.folder
    if wish.folder is not None:
        folder = find_folder(session, wish.folder, host.datacenter, subject.vm.name)
    elif source is not None and source.datacenter != host.datacenter:
        folder = None
    return Place(pool, folder)


def with_checks(plan: Plan, *checks: Check) -> Plan:
    """C(plan) with more checks."""
    return replace(plan, checks=(*plan.checks, *checks))
