# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading what vCenter alone knows of a VM, and putting it back on the VM that was registered again.

Vendor reference: vSphere Web Services API, AuthorizationManager (RetrieveEntityPermissions, SetEntityPermissions),
CustomFieldsManager, ClusterComputeResource (configurationEx, ReconfigureComputeResource_Task).
"""

from __future__ import annotations

import threading
from typing import Any, Callable, Mapping, Sequence

from ..errors import FerryError, ServerError
from . import attributes, source_state
from .client import Session
from .find import VmRef
from .move_spec import Pool, choose_pool, owner_of, read_pools
from .move_subject import Subject
from .properties import moref_of, of_objects, of_view
from .site import Site
from .tags import attach_tags, attached_tags
from .tasks import wait_task

_STEP = "put back what vCenter alone knew"
#: Rules and groups of a cluster are read, changed and written as a whole: one at a time, of this process and (by a lock in vCenter) of all.
_CLUSTER = threading.Lock()

Told = Callable[[str], None]


def _permissions(session: Session, vm: Any) -> list[dict[str, Any]]:
    manager = session.content.authorizationManager
    found = session.call(manager.RetrieveEntityPermissions, vm, False, step="keep the permissions", again=True)
    return [{"principal": p.principal, "group": bool(p.group), "role": int(p.roleId), "propagate": bool(p.propagate)} for p in found or ()]


def _cluster_config(session: Session, cluster: str | None) -> Any:
    if cluster is None:
        return None
    ref = session.managed("ClusterComputeResource", cluster)
    rows = of_objects(session, [ref], {"ClusterComputeResource": ("configurationEx",)}, step="read the cluster's rules")
    return rows[0].props.get("configurationEx") if rows else None


def _memberships(config: Any, vm: str, uuids: Mapping[str, str]) -> dict[str, Any]:
    """Groups and rules of a cluster that C(vm) (MoRef) is in. Other VMs by their instance UUIDs: a failover gives them other MoRefs."""
    groups = [str(g.name) for g in getattr(config, "group", None) or () if vm in {moref_of(v) for v in getattr(g, "vm", None) or ()}]
    rules = []
    for rule in getattr(config, "rule", None) or ():
        vms = [moref_of(v) for v in getattr(rule, "vm", None) or ()]
        if vm in vms:
            rules.append(
                {
                    "name": str(rule.name),
                    "kind": str(rule._wsdlName),
                    "enabled": bool(rule.enabled),
                    "mandatory": bool(getattr(rule, "mandatory", False)),
                    "others": sorted(uuids[m] for m in vms if m != vm and m in uuids),
                }
            )
    return {"groups": groups, "rules": rules}


def kept_of(session: Session, subject: Subject, site: Site, pools: Mapping[str, Pool], told: Told) -> dict[str, Any]:
    """Everything that has to be put back, as JSON has it."""
    f = subject.facts
    host = site.hosts.get(subject.host or "")
    uuids = {m: v.uuid for m, v in site.vms.items() if v.uuid}
    config = _cluster_config(session, host.cluster if host is not None else None)
    pool = pools.get(subject.pool or "")
    tags, why = attached_tags(session, "VirtualMachine", subject.vm.moref)
    if tags is None:
        told(f"{subject.vm.name}: tags cannot be read and will not be put back: {why}")
    return {
        "vm": {
            "name": subject.vm.name,
            "moref": subject.vm.moref,
            "instance_uuid": subject.vm.instance_uuid,
            "bios_uuid": f.get("bios_uuid"),
            "path": subject.vm.path,
        },
        "vmx_path": subject.vmx_path,
        "datastores": sorted(subject.datastores),
        "datacenter": f.get("datacenter"),
        "host": subject.host,
        "host_name": f.get("host"),
        "cluster": host.cluster if host is not None else None,
        "folder": subject.folder,
        "folder_path": f.get("folder"),
        "pool": subject.pool,
        "pool_path": list(pool.path) if pool is not None else [],
        "power": subject.power,
        "annotation": subject.annotation,
        "attributes": subject.attributes,
        "permissions": _permissions(session, subject.vm.ref),
        "tags": tags,
        "drs": _memberships(config, subject.vm.moref, uuids),
        "nics": [[n.key, n.mac, n.network] for n in subject.nics],
        "memory_mb": subject.memory_mb,
        "before": subject.where(),
    }


def place_of(session: Session, data: Mapping[str, Any], host: str) -> tuple[Any, Any]:
    """(folder, pool), managed objects, in which the VM is registered on the host C(host): its own, else the nearest to them."""
    folder = None
    if data["folder"] and of_objects(session, [session.managed("Folder", data["folder"])], {"Folder": ("name",)}, step=_STEP):
        folder = session.managed("Folder", data["folder"])
    if folder is None and data["folder_path"]:
        find = session.content.searchIndex.FindByInventoryPath
        folder = session.call(find, str(data["folder_path"]).strip("/"), step="find the folder", again=True)
    if folder is None or folder._wsdlName != "Folder":  # a VM in a vApp has none
        root = f"{data['datacenter']}/vm"
        folder = session.call(session.content.searchIndex.FindByInventoryPath, root, step="find the folder", again=True)
    if folder is None:
        raise ServerError(f"The folder {data['folder_path']} is gone.", code="gone", vm=data["vm"]["name"], step="find the folder")
    pools = dict(read_pools(session))
    if data["pool"] and data["pool"] not in pools:
        pools[data["pool"]] = Pool(data["pool"], "", "", tuple(data["pool_path"]))
    moref = choose_pool(pools, owner_of(session, host), data["pool"], None, data["vm"]["name"])
    return folder, session.managed("ResourcePool", moref)


def _reconfigure(session: Session, vm: VmRef, **config: Any) -> None:
    spec = session.vim.vm.ConfigSpec(**config)
    wait_task(session, session.call(vm.ref.ReconfigVM_Task, spec, step=_STEP), vm=vm.name, step=_STEP, timeout=source_state.TASK_TIMEOUT)


def _put_permissions(session: Session, vm: VmRef, kept: Sequence[Mapping[str, Any]]) -> bool:
    now = {(p["principal"], p["group"]): p for p in _permissions(session, vm.ref)}
    missing = [p for p in kept if now.get((p["principal"], p["group"])) != p]
    if missing:
        permission = session.vim.AuthorizationManager.Permission
        made = [permission(principal=p["principal"], group=p["group"], roleId=p["role"], propagate=p["propagate"]) for p in missing]
        session.call(session.content.authorizationManager.SetEntityPermissions, vm.ref, made, step=_STEP)
    return bool(missing)


def _put_memberships(session: Session, vm: VmRef, data: Mapping[str, Any], cluster: str | None) -> list[str]:
    """Into the groups and rules of the cluster again; what has gone with the VM is made again."""
    kept = data["drs"]
    if not (kept["groups"] or kept["rules"]) or cluster != data["cluster"] or cluster is None:
        return []
    vim = session.vim
    put: list[str] = []
    with _CLUSTER, attributes.locked(session, f"rules of {cluster}") as lock:
        config = _cluster_config(session, cluster)
        groups, rules = [], []
        now = {str(g.name): g for g in getattr(config, "group", None) or ()}
        for name in kept["groups"]:
            group = now.get(name)
            members = list(getattr(group, "vm", None) or ())
            if vm.moref not in {moref_of(m) for m in members}:
                info = vim.cluster.VmGroup(name=name, userCreated=True, vm=[*members, vm.ref])
                groups.append(vim.cluster.GroupSpec(operation="add" if group is None else "edit", info=info))
                put.append(f"group {name}")
        there = {str(r.name): r for r in getattr(config, "rule", None) or ()}
        morefs = _by_uuid(session) if kept["rules"] else {}
        for rule in kept["rules"]:
            old = there.get(rule["name"])
            among = {moref_of(m): m for m in getattr(old, "vm", None) or ()}
            if vm.moref in among:
                continue
            for uuid in rule["others"]:
                if uuid in morefs:
                    among.setdefault(morefs[uuid], session.managed("VirtualMachine", morefs[uuid]))
            among[vm.moref] = vm.ref
            if len(among) < 2:
                continue  # the last one that is put back makes it again
            kind = vim.cluster.AffinityRuleSpec if rule["kind"] == "ClusterAffinityRuleSpec" else vim.cluster.AntiAffinityRuleSpec
            info = kind(name=rule["name"], enabled=rule["enabled"], mandatory=rule["mandatory"], userCreated=True, vm=list(among.values()))
            if old is not None:
                info.key = old.key
                info.ruleUuid = getattr(old, "ruleUuid", None)
            rules.append(vim.cluster.RuleSpec(operation="add" if old is None else "edit", info=info))
            put.append(f"rule {rule['name']}")
        if groups or rules:
            lock.sure()
            spec = vim.cluster.ConfigSpecEx(groupSpec=groups or None, rulesSpec=rules or None)
            ref = session.managed("ClusterComputeResource", cluster)
            task = session.call(ref.ReconfigureComputeResource_Task, spec, True, step=_STEP)
            wait_task(session, task, vm=vm.name, step=_STEP)
    return put


def _by_uuid(session: Session) -> dict[str, str]:
    rows = of_view(session, {"VirtualMachine": ("config.instanceUuid",)}, step=_STEP)
    return {str(r.props["config.instanceUuid"]): r.moref for r in rows if "config.instanceUuid" in r.props}


def put_back(session: Session, vm: VmRef, now: source_state.State, data: Mapping[str, Any], cluster: str | None, told: Told) -> list[str]:
    """Put everything in C(data) back on C(vm), which was registered again; what is there already is left alone.

    :param now: the VM as it is.
    :param cluster: MoRef of the cluster it is in now.
    :returns: what was put back. Every part is tried; the first error is raised at the end.
    """
    put: list[str] = []
    errors: list[FerryError] = []

    def part(name: str, work: Callable[[], bool]) -> None:
        try:
            if work():
                put.append(name)
        except FerryError as e:
            errors.append(e.add(vm=vm.name, step=_STEP))
            told(f"{vm.name}: {name} could not be put back: {e}")

    def custom() -> bool:
        # what has another value by now was written after the VM came back
        lost = {k: v for k, v in data["attributes"].items() if not now.attributes.get(k)}
        if lost:
            source_state.apply(session, vm, source_state.Wanted(attributes=lost))
        return bool(lost)

    def identity() -> bool:
        uuid = data["vm"]["instance_uuid"]
        if not uuid or vm.instance_uuid == uuid:
            return False
        _reconfigure(session, vm, instanceUuid=uuid)
        return True

    def annotation() -> bool:
        if now.annotation or not data["annotation"]:
            return False
        _reconfigure(session, vm, annotation=data["annotation"])
        return True

    def tags() -> bool:
        return attach_tags(session, "VirtualMachine", vm.moref, data["tags"] or ()) > 0

    part("attributes", custom)
    part("instance UUID", identity)
    part("annotation", annotation)
    part("permissions", lambda: _put_permissions(session, vm, data["permissions"]))
    part("tags", tags)
    part("groups and rules", lambda: bool(_put_memberships(session, vm, data, cluster)))
    if errors:
        raise errors[0]
    return put
