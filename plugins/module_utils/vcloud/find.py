# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lists of VMs and datastores, and finding one of them by what people call it.

Names repeat: those of VMs everywhere, those of datastores across vCenters. Where several match, all are listed and none is taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Sequence

from ..errors import BadInput, ServerError, bounded
from . import query
from .client import Client
from .entities import (
    DATASTORE_FIELDS,
    VM_FIELDS,
    Datastore,
    VmFacts,
    VmRecord,
    datastore_of,
    datastore_record,
    path_of,
    uuid_of,
    vm_of,
    vm_record,
)

#: References in one filter; more are compared here.
MOST_REFERENCES = 20

_MOREF = re.compile(r"(datastore|group-p|storagepod)-?\d+")


@dataclass(frozen=True)
class Vdc:
    """A vDC of an organization; C(href) and C(org_href) as the server gives them."""

    name: str
    org: str
    href: str
    org_href: str


@dataclass
class Names:
    """What references are called: vDCs (and their organizations), organizations and vCenters by UUID."""

    vdcs: dict[str, Vdc] = field(default_factory=dict)
    vcenters: dict[str, str] = field(default_factory=dict)

    def vdc(self, href: str) -> str:
        """The vDC's name; its UUID where that is not to be had."""
        found = self.vdcs.get(uuid_of(href))
        return found.name if found else uuid_of(href)

    def org(self, vm: VmRecord) -> str:
        """The name of the organization that the VM's vDC belongs to."""
        found = self.vdcs.get(uuid_of(vm.vdc))
        return found.org if found and found.org else uuid_of(vm.org)

    def vcenter(self, href: str) -> str:
        return self.vcenters.get(uuid_of(href)) or uuid_of(href)


def vdc_names(client: Client) -> dict[str, Vdc]:
    """All vDCs by UUID."""
    # all fields: which of these the oldest versions have is not documented, and vDCs are few
    found = query.records(client, "adminOrgVdc", step="list the vDCs")
    return {uuid_of(r.get("href")): Vdc(r.get("name", ""), r.get("orgName", ""), r.get("href", ""), r.get("org", "")) for r in found}


def vcenters_of(stores: Iterable[Datastore]) -> dict[str, str]:
    """The names of vCenters by UUID, which the records of their datastores tell."""
    return {uuid_of(d.vc): d.vcenter for d in stores if d.vc and d.vcenter}


def matches(pattern: str, name: str) -> bool:
    """Whether C(name) is C(pattern), in which an asterisk stands for anything (then without regard to case, as on the server)."""
    if "*" not in pattern:
        return pattern == name
    return re.fullmatch(".*".join(re.escape(p) for p in pattern.split("*")), name, re.IGNORECASE | re.DOTALL) is not None


def list_datastores(client: Client, *, name: str | None = None, where: str | None = None) -> list[Datastore]:
    """The datastores, those that were deleted included, by name and vCenter.

    :param name: only those called so; an asterisk stands for anything.
    :param where: a further filter, in FIQL.
    """
    era = client.era
    chosen = query.every(query.equal("name", name, era) if name else None, query.raw(where, era) if where else None)
    found = query.records(client, "datastore", step="list the datastores", fields=DATASTORE_FIELDS, where=chosen)
    stores = [datastore_record(r) for r in found]
    return sorted((d for d in stores if not name or matches(name, d.name)), key=lambda d: (d.name, d.vcenter, d.moref))


def list_vms(
    client: Client,
    *,
    name: str | None = None,
    org: str | None = None,
    vdc: str | None = None,
    datastore: str | None = None,
    where: str | None = None,
    fields: Sequence[str] = VM_FIELDS,
    vdcs: dict[str, Vdc] | None = None,
) -> list[VmRecord]:
    """The VMs of vApps and of templates, in the order of their names. What can be is filtered by the server.

    :param name: only those called so; an asterisk stands for anything.
    :param datastore: only those on the datastore of that name.
    :param where: a further filter, in FIQL.
    :param vdcs: of vdc_names(), where it is there already.
    :raises BadInput: there is no such organization or vDC.
    """
    era, step = client.era, "list the VMs"
    chosen = query.every(
        query.equal("name", name, era) if name else None,
        query.equal("datastoreName", datastore, era) if datastore else None,
        query.raw(where, era) if where else None,
    )
    places: list[Vdc] | None = None
    narrowed = chosen
    if org is not None or vdc is not None:
        places = _places(vdcs if vdcs is not None else vdc_names(client), org, vdc)
        # a reference is filtered by the href that the server gives for it
        if vdc is not None and len(places) <= MOST_REFERENCES:
            narrowed = query.every(chosen, query.any_of("vdc", [p.href.replace("/api/admin/vdc/", "/api/vdc/") for p in places], era))
        elif org is not None and places and all(p.org_href for p in places):
            narrowed = query.every(chosen, query.any_of("org", sorted({p.org_href for p in places}), era))
    found = query.records(client, "adminVM", step=step, fields=fields, where=narrowed)
    if not found and narrowed is not chosen:
        # how a server compares references is its own business; names are compared here
        found = query.records(client, "adminVM", step=step, fields=fields, where=chosen)
    vms = [vm_record(r) for r in found if r.get("isDeleted") != "true"]
    inside = None if places is None else {uuid_of(p.href) for p in places}
    return [
        v
        for v in vms
        if (not name or matches(name, v.name))
        and (not datastore or matches(datastore, v.datastore))
        and (inside is None or uuid_of(v.vdc) in inside)
    ]


def _places(vdcs: dict[str, Vdc], org: str | None, vdc: str | None) -> list[Vdc]:
    """The vDCs that C(org) and C(vdc) (names, hrefs or urns) mean."""

    def is_org(found: Vdc) -> bool:
        return org is None or found.org == org or (uuid_of(org) != "" and uuid_of(org) == uuid_of(found.org_href))

    def is_vdc(found: Vdc) -> bool:
        return vdc is None or found.name == vdc or (uuid_of(vdc) != "" and uuid_of(vdc) == uuid_of(found.href))

    inside = [v for v in vdcs.values() if is_org(v)]
    if org is not None and not inside:
        known = sorted({v.org for v in vdcs.values() if v.org})
        raise BadInput(f"There is no organization {bounded(org, 120)} with a vDC.", step="find the organization", organizations=known[:100])
    places = [v for v in inside if is_vdc(v)]
    if vdc is not None and not places:
        raise BadInput(
            f"There is no vDC {bounded(vdc, 120)}{f' in {org}' if org else ''}.",
            step="find the vDC",
            vdcs=sorted(v.name for v in inside)[:100],
        )
    return places


# -- one of them ------------------------------------------------------------------------------------------------------


def read_vm(client: Client, href: str, *, vm: str | None = None) -> VmFacts:
    """The VM at C(href), freshly from the server."""
    return vm_of(client.get(href, step="read the VM", vm=vm))


def read_datastore(client: Client, href: str) -> Datastore:
    """The datastore at C(href), freshly from the server."""
    return datastore_of(client.get(href, step="read the datastore"))


def identity_of(wanted: str) -> str:
    """The UUID in an href, a urn, or on its own; empty where C(wanted) is a name."""
    found = uuid_of(wanted)
    return found if found and ("/" in wanted or wanted.startswith("urn:") or len(wanted) == len(found)) else ""


def described(vm: VmRecord, names: dict[str, Vdc]) -> str:
    """The VM with all that tells it from its namesakes."""
    place = Names(names)
    kind = "template" if vm.is_template else "vApp"
    return f"{vm.name} ({kind} {vm.vapp}, vDC {place.vdc(vm.vdc)}, org {place.org(vm)}, {vm.href})"


def find_vm(
    client: Client,
    wanted: str,
    *,
    vapp: str | None = None,
    vdc: str | None = None,
    org: str | None = None,
    fields: Sequence[str] = VM_FIELDS,
) -> VmRecord:
    """The one VM that C(wanted) means: an href, a urn (urn:vcloud:vm:...), or a name, with the names of vApp (or template), vDC and
    organization to tell it from others.

    :raises BadInput: none, or more than one; details.matches lists them.
    """
    step = "find the VM"
    if not wanted.strip():
        raise BadInput("No VM is named.", step=step)
    identity = identity_of(wanted)
    if identity:
        found = [_by_id(client, wanted, identity, fields)]
    else:
        found = [v for v in list_vms(client, name=wanted, org=org, vdc=vdc, fields=fields) if v.name == wanted]
        found = [v for v in found if vapp is None or v.vapp == vapp or (uuid_of(vapp) != "" and uuid_of(vapp) == uuid_of(v.vapp_href))]
    if len(found) == 1:
        return found[0]
    where = "".join(f" in {what} {value}" for what, value in (("vApp", vapp), ("vDC", vdc), ("organization", org)) if value)
    if not found:
        raise BadInput(f"There is no VM {bounded(wanted, 200)}{bounded(where, 200)}.", vm=wanted, step=step)
    names = vdc_names(client)
    listed = [described(v, names) for v in found]
    raise BadInput(
        f"{len(found)} VMs are called {bounded(wanted, 200)}{bounded(where, 200)}: {'; '.join(listed[:20])}.",
        vm=wanted,
        step=step,
        next_command="name it by its href, or give vapp, vdc and org as well",
        matches=[_match(v, names) for v in found[:100]],
    )


def _match(vm: VmRecord, names: dict[str, Vdc]) -> dict[str, Any]:
    place = Names(names)
    return {"name": vm.name, "href": vm.href, "id": vm.id, "vapp": vm.vapp, "vdc": place.vdc(vm.vdc), "org": place.org(vm)}


def _by_id(client: Client, wanted: str, identity: str, fields: Sequence[str]) -> VmRecord:
    given = path_of(wanted)
    paths = [given] if "/vm-" in given else [f"/api/vApp/vm-{identity}", f"/api/vAppTemplate/vm-{identity}"]
    facts = None
    for path in paths:
        try:
            facts = read_vm(client, path, vm=wanted)
            break
        except ServerError as e:
            # an object that does not exist may be 403
            if e.code not in ("not_found", "forbidden", "refused"):
                raise
    if facts is None:
        raise BadInput(f"There is no VM {bounded(wanted, 200)}, or it may not be seen.", vm=wanted, step="find the VM")
    for record in list_vms(client, name=facts.name, fields=fields):
        if uuid_of(record.href) == identity:
            return record
    raise BadInput(f"The VM {bounded(wanted, 200)} is in no list of the server's.", vm=wanted, step="find the VM")


def find_datastore(client: Client, wanted: str, *, vc: str | None = None, stores: Sequence[Datastore] | None = None) -> Datastore:
    """The one datastore that C(wanted) means: a name, an href, a urn (urn:vcloud:datastore:...) or a MoRef (datastore-42).

    :param vc: the vCenter (its href) that decides between several of one name or MoRef.
    :param stores: of list_datastores(), where that is there already.
    :raises BadInput: none, or more than one; details.matches lists them.
    """
    step = "find the datastore"
    if stores is None:
        stores = list_datastores(client)
    identity = identity_of(wanted)
    if identity:
        found = [d for d in stores if uuid_of(d.href) == identity]
    else:
        found = [d for d in stores if d.name == wanted]
        if not found and _MOREF.fullmatch(wanted):
            found = [d for d in stores if d.moref == wanted]
    if len(found) > 1 and any(not d.deleted for d in found):
        found = [d for d in found if not d.deleted]
    if len(found) > 1 and vc is not None:
        found = [d for d in found if uuid_of(d.vc) == uuid_of(vc)] or found
    if len(found) == 1:
        return found[0]
    if not found:
        close = [d.name for d in stores if d.name.lower() == wanted.lower()]
        hint = f" Close: {', '.join(sorted(set(close))[:5])}." if close else ""
        raise BadInput(f"There is no datastore {bounded(wanted, 200)}.{hint}", step=step, datastore=wanted)
    listed = [f"{d.name} (vCenter {d.vcenter}, {d.moref}, {d.href})" for d in found]
    raise BadInput(
        f"{len(found)} datastores are meant by {bounded(wanted, 200)}: {'; '.join(listed[:20])}.",
        step=step,
        datastore=wanted,
        next_command="name it by its href",
        matches=[{"name": d.name, "href": d.href, "moref": d.moref, "vcenter": d.vcenter} for d in found[:100]],
    )
