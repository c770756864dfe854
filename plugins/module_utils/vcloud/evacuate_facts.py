# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is on a datastore: before an evacuation, and at its end as the proof. Reads only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Mapping

from ..errors import ServerError, bounded
from . import query
from .client import Client
from .entities import VM_PLAN_FIELDS, Datastore, VmFacts, VmRecord, uuid_of
from .evacuate_plan import Item, chain_key
from .find import Names, list_vms, vcenters_of, vdc_names
from .space import Shadow, read_vms, shadow_vms
from .tasks import RELOCATE

#: Status of a VM that vCloud Director itself has lost hold of.
STUCK = ("FAILED_CREATION", "UNRESOLVED", "UNRECOGNIZED", "UNKNOWN", "INCONSISTENT_STATE")
#: What a server that does not know a query answers, or does not let us ask.
_NOT_TOLD = ("refused", "forbidden", "not_found")


@dataclass
class Disk:
    """An independent disk."""

    href: str
    name: str
    mb: int
    attached: bool


@dataclass
class Content:
    """What is on a datastore. C(disks) is None where the server does not tell.

    :param moving: tasks of relocations that are under way, by UUID of the VM.
    """

    source: Datastore
    items: list[Item]
    bases: dict[str, int]
    shadows: list[Shadow]
    disks: list[Disk] | None
    names: Names
    facts: Mapping[str, VmFacts] = field(default_factory=dict)
    moving: Mapping[str, str] = field(default_factory=dict)


def names_of(client: Client, stores: Iterable[Datastore]) -> Names:
    return Names(vdc_names(client), vcenters_of(stores))


def records_on(client: Client, source: Datastore, names: Names) -> list[VmRecord]:
    """The VMs of vApps and templates whose home is on C(source), told by its name and vCenter."""
    vms = list_vms(client, datastore=source.name, fields=VM_PLAN_FIELDS, vdcs=names.vdcs) if "*" not in source.name else list_vms(client)
    return [v for v in vms if v.datastore == source.name and (not v.vc or uuid_of(v.vc) == uuid_of(source.vc))]


def shadows_on(client: Client, source: Datastore) -> list[Shadow]:
    """The shadow VMs on C(source); their records name the vCenter only."""
    return [s for s in shadow_vms(client) if s.datastore == source.name and (not s.vcenter or s.vcenter == source.vcenter)]


def disks_on(client: Client, source: Datastore) -> list[Disk] | None:
    """The independent disks on C(source); None before 5.1, and where the server does not tell."""
    if not client.era.relational:
        return None
    fields = ("name", "datastore", "datastoreName", "sizeMb", "isAttached", "vc")
    try:
        found = query.records(client, "adminDisk", step="list the independent disks", fields=fields)
    except ServerError as e:
        if e.code not in _NOT_TOLD:
            raise
        return None
    here = [r for r in found if _is_on(r, source)]
    return [Disk(r.get("href", ""), r.get("name", ""), _whole(r.get("sizeMb")), r.get("isAttached") == "true") for r in here]


def _is_on(record: Mapping[str, str], source: Datastore) -> bool:
    if uuid_of(record.get("datastore")):
        return uuid_of(record.get("datastore")) == uuid_of(source.href)
    same_vc = not record.get("vc") or uuid_of(record.get("vc")) == uuid_of(source.vc)
    return record.get("datastoreName") == source.name and same_vc


def _whole(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def in_maintenance(client: Client) -> set[str]:
    """The UUIDs of vApps in maintenance mode; none where the server does not tell."""
    where = query.equal("isInMaintenanceMode", "true", client.era)
    try:
        found = query.records(client, "adminVApp", step="list the vApps", fields=("name", "isInMaintenanceMode"), where=where)
    except ServerError as e:
        if e.code not in _NOT_TOLD:
            raise
        return set()
    return {uuid_of(r.get("href")) for r in found if r.get("isInMaintenanceMode") == "true"}


def content_of(
    client: Client,
    source: Datastore,
    names: Names,
    *,
    warn: Callable[[str], None] = lambda text: None,
    seen: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Content:
    """Everything on C(source), with what a plan needs of each VM: one read per VM, several at a time.

    :param seen: is told how far it is.
    """
    records = records_on(client, source, names)
    seen("read the VMs", 0, len(records))
    facts = read_vms(client, [v.href for v in records])
    disks = disks_on(client, source)
    shadows = shadows_on(client, source)
    records, facts = [*records], dict(facts)
    if _more_is_there(source, facts, disks):
        known = {uuid_of(v.href) for v in records}
        others = [v for v in list_vms(client, fields=VM_PLAN_FIELDS, vdcs=names.vdcs) if uuid_of(v.vc) == uuid_of(source.vc)]
        others = [v for v in others if uuid_of(v.href) not in known]
        seen("look for single disks", 0, len(others))
        facts.update(read_vms(client, [v.href for v in others]))
        here = [v for v in others if isinstance(f := facts.get(v.href), VmFacts) and source.key in (f.home, *f.disk_datastores)]
        records += here
    maintenance = in_maintenance(client) if records else set()
    items, moving = [], {}
    for vm in records:
        found = facts.get(vm.href)
        if isinstance(found, VmFacts) and found.home is not None and source.key not in (found.home, *found.disk_datastores):
            continue  # it has moved since the list was made
        items.append(item_of(vm, found, source, names, maintenance))
        if isinstance(found, VmFacts):
            task = next((t for t in found.tasks if t.in_flight and t.operation_name == RELOCATE), None)
            if task is not None:
                moving[uuid_of(vm.href)] = task.href
    known_facts = {h: f for h, f in facts.items() if isinstance(f, VmFacts)}
    return Content(source, items, _bases(client, items, shadows), shadows, disks, names, known_facts, moving)


def _more_is_there(source: Datastore, facts: Mapping[str, VmFacts | ServerError], disks: list[Disk] | None) -> bool:
    """Whether vCloud Director has allocated more there than the VMs that live there, and the independent disks, account for: then VMs that
    live elsewhere have single disks on it."""
    known = [f for f in facts.values() if isinstance(f, VmFacts)]
    if known and not any(f.disk_datastores for f in known):
        return False  # the server does not tell per disk
    own = sum(d.size_mb for f in known for d in f.disks if not d.independent and (d.datastore or f.home) == source.key)
    return source.requested_mb > own + sum(d.mb for d in disks or ())


def item_of(vm: VmRecord, facts: VmFacts | ServerError | None, source: Datastore, names: Names, maintenance: set[str]) -> Item:
    """A VM of the plan."""
    common: dict[str, Any] = {
        "href": vm.href,
        "name": vm.name,
        "vapp": vm.vapp,
        "vapp_href": vm.vapp_href,
        "vdc": names.vdc(vm.vdc),
        "org": names.org(vm),
        "is_template": vm.is_template,
        "host": vm.host if vm.status == "POWERED_ON" else "",
    }
    if not isinstance(facts, VmFacts):
        return Item(**common, blocked=f"stuck: it cannot be read ({bounded(facts.said or facts.message, 120) if facts else 'no answer'})")
    blocked = ""
    if vm.status in STUCK:
        blocked = f"stuck: its status is {vm.status}"
    elif uuid_of(vm.vapp_href) in maintenance:
        blocked = f"in maintenance: its vApp {bounded(vm.vapp, 80)} is in maintenance mode"
    notes = []
    for task in facts.tasks:
        if task.in_flight:
            notes.append("under way already" if task.operation_name == RELOCATE else f"busy now: {bounded(task.operation_name, 60)}")
    own = [d for d in facts.disks if not d.independent]
    if len(own) < len(facts.disks):
        notes.append(f"{len(facts.disks) - len(own)} independent disks are not moved with it")
    clone = facts.chain > 1 or vm.is_template
    return Item(
        **common,
        mb=facts.size_mb,
        elsewhere_mb=sum(d.size_mb for d in own if (d.datastore or facts.home) != source.key),
        chain=facts.chain,
        group=chain_key(vm.org, own[0].size_mb) if clone and own else "",
        blocked=blocked,
        note=", ".join(dict.fromkeys(notes)),
    )


def _bases(client: Client, items: list[Item], shadows: list[Shadow]) -> dict[str, int]:
    """MiB of the base by chain, where it is not on the source but a shadow VM of it is: a target gets a copy of it."""
    groups = {i.group for i in items if i.group and i.chain > 1}
    primaries = sorted({s.primary_vm for s in shadows if s.primary_vm})
    if not groups or not primaries:
        return {}
    orgs = {uuid_of(r.get("href")): r.get("org", "") for r in _templates(client)}
    by_template = {s.primary_vm: s.primary_template for s in shadows}
    found: dict[str, int] = {}
    for href, facts in read_vms(client, primaries).items():
        if not isinstance(facts, VmFacts) or not facts.disks:
            continue
        org = orgs.get(uuid_of(by_template.get(href)), "")
        key = chain_key(org, facts.disks[0].size_mb)
        if key in groups:
            found[key] = max(found.get(key, 0), facts.size_mb)
    return found


def _templates(client: Client) -> list[query.Record]:
    """Which organization each template and vApp belongs to."""
    found: list[query.Record] = []
    for kind in ("adminVAppTemplate", "adminVApp"):
        try:
            found += query.records(client, kind, step="list the templates", fields=("name", "org"))
        except ServerError as e:
            if e.code not in _NOT_TOLD:
                raise
    return found


# -- the proof --------------------------------------------------------------------------------------------------------


def left_on(
    client: Client,
    source: Datastore,
    fresh: Datastore,
    names: Names,
    reasons: Mapping[str, str],
    *,
    listed: Content | None = None,
) -> list[dict[str, Any]]:
    """What is on C(source), each with the reason; empty is the proof.

    :param fresh: the datastore, read again.
    :param reasons: by UUID of the VM.
    :param listed: what was read just now; without it everything is read again.
    """
    rows = []
    known: set[str] = set()
    if listed is not None:
        for item in listed.items:
            known.add(item.uuid)
            rows.append(_vm(item.name, item.href, item.is_template, item.vapp, item.vdc, item.org, reasons))
    else:
        for vm in records_on(client, source, names):
            known.add(uuid_of(vm.href))
            rows.append(_vm(vm.name, vm.href, vm.is_template, vm.vapp, names.vdc(vm.vdc), names.org(vm), reasons))
        for uuid, why in reasons.items():
            if uuid not in known and why:
                rows += _stray(client, source, uuid, why)
    shadow_why = "the server removes this shadow VM when no clone there needs it" if rows else "the server has not removed this shadow VM"
    shadows = listed.shadows if listed is not None else shadows_on(client, source)
    rows += [_row(s.name, s.href, "shadow", shadow_why) for s in shadows]
    disks = listed.disks if listed is not None else disks_on(client, source)
    for disk in disks or ():
        why = "relocate does not move an independent disk" + (": it is attached to a VM" if disk.attached else "")
        rows.append(_row(disk.name, disk.href, "disk", why, mb=disk.mb))
    if not rows and fresh.requested_mb > 0:
        why = (
            f"vCloud Director has {fresh.requested_mb} MB allocated there for something that no list of its shows (media, or single disks)"
        )
        rows.append(_row(source.name, source.href, "unknown", why, mb=fresh.requested_mb))
    return rows


def _vm(name: str, href: str, template: bool, vapp: str, vdc: str, org: str, reasons: Mapping[str, str]) -> dict[str, Any]:
    why = reasons.get(uuid_of(href)) or "it came there during the evacuation, or was not moved"
    return _row(name, href, "template" if template else "vm", why, vapp=vapp, vdc=vdc, org=org)


def _stray(client: Client, source: Datastore, uuid: str, why: str) -> list[dict[str, Any]]:
    """A VM that lives elsewhere and has disks on C(source)."""
    for path in (f"/api/vApp/vm-{uuid}", f"/api/vAppTemplate/vm-{uuid}"):
        found = read_vms(client, [path])[path]
        if isinstance(found, VmFacts):
            here = source.key in (found.home, *found.disk_datastores)
            return [_row(found.name, found.href, "vm", f"{why}; disks of it are there")] if here else []
    return []


def _row(name: str, href: str, kind: str, reason: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "href": href, "kind": kind, "reason": reason, **more}
