# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the record of a failover means now: whether its VM has left the inventory, and what constraints say of it meanwhile. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Iterable, Mapping, Sequence

from .keep import Record
from .move_checks import Forbids
from .properties import Row
from .site import Host, Site
from .site_model import DrsRule, Vm
from .tree import Tree

_KINDS = {"ClusterAffinityRuleSpec": "together", "ClusterAntiAffinityRuleSpec": "apart"}


def has_left(record: Record, moref: str | None, hosts: Iterable[str]) -> bool:
    """Whether the VM of C(record) was taken out of the inventory since it was kept.

    One that was not is no business of the record's: what was kept may be of last year, and the VM have moved, changed or been switched off.

    :param moref: the MoRef that the VM has now, None where it is not registered. It is a new one each time a VM is registered.
    :param hosts: MoRefs of the hosts in the inventory. With a host that is removed its VMs go; while it is there, somebody has
        removed a VM that we have not.
    """
    if moref is None:
        return record.reached("unregistering") or record.data["host"] not in hosts
    return bool(moref != record.data["vm"]["moref"])


def same_vm(rows: Sequence[Row], data: Mapping[str, Any]) -> str | None:
    """The MoRef of the VM among C(rows) that has the configuration file of the record C(data), None where there is none.

    Datastores of two datacenters may have one name, and files of one VM replace those of another: so its datacenter and its BIOS UUID
    have to be the same as well.

    :param rows: VMs (config.files.vmPathName, config.uuid, parent, parentVApp) and their ancestors.
    """
    tree = Tree(rows)

    def same(row: Row) -> bool:
        if row.kind != "VirtualMachine" or row.props.get("config.files.vmPathName") != data["vmx_path"]:
            return False
        uuid, datacenter = data["vm"]["bios_uuid"], data.get("datacenter")
        return uuid in (None, row.props.get("config.uuid")) and datacenter in (None, tree.datacenter(row.moref))

    found = [r.moref for r in rows if same(r)]
    return found[0] if len(found) == 1 else None


def with_unfinished(site: Site, records: Iterable[Record]) -> Site:
    """C(site) with the VMs that failovers under way have taken out of the inventory: on no host, with their names, attributes and rules, so
    that constraints go on counting for them."""
    by_uuid = {v.uuid: m for m, v in site.vms.items() if v.uuid}
    vms, left = dict(site.vms), []
    for record in records:
        data, of = record.data, record.data["vm"]
        now = by_uuid.get(of["instance_uuid"])
        if record.reached("restored") or not has_left(record, now, site.hosts):
            continue
        if now is None:
            now = str(of["moref"])
            custom, path = dict(data["attributes"]), str(of["path"])
            vms[now] = Vm(now, of["name"], of["instance_uuid"], power=data["power"], memory_mb=data["memory_mb"], custom=custom, path=path)
            by_uuid[of["instance_uuid"]] = now
        else:
            vms[now] = replace(vms[now], custom={**data["attributes"], **vms[now].custom})
        left.append((now, data))
    clusters = dict(site.clusters)
    for now, data in left:
        cluster = clusters.get(data["cluster"] or "")
        kept = [r for r in data["drs"]["rules"] if r["enabled"] and r["kind"] in _KINDS]
        if cluster is not None and kept:
            others = [(r, frozenset(by_uuid[u] for u in r["others"] if u in by_uuid)) for r in kept]
            rules = tuple(DrsRule(r["name"], _KINDS[r["kind"]], vms_ | {now}) for r, vms_ in others)
            clusters[data["cluster"]] = replace(cluster, rules=(*cluster.rules, *rules))
    return replace(site, vms=vms, clusters=clusters)


def moref_in(site: Site, data: Mapping[str, Any]) -> str:
    """The MoRef that the record's VM has in C(site), which with_unfinished() has completed."""
    new = str(data.get("new_moref") or "")
    return new if new in site.vms else str(data["vm"]["moref"])


def placed(site: Site, moref: str, host: str) -> Site:
    """C(site) with the VM on the host, for what is chosen after it."""
    return replace(site, vms={**site.vms, moref: replace(site.vms[moref], host=host)}) if moref in site.vms else site


def allowed(site: Site, data: Mapping[str, Any], hosts: Iterable[Host], forbids: Forbids | None) -> list[Host]:
    """Those of C(hosts) that constraints leave to the record's VM."""
    moref = moref_in(site, data)
    return [h for h in hosts if forbids is None or not forbids(moref, h.moref)]
