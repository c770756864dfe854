# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""VMs as rows for modules and inventory, and what there is before a VM is brought to a datastore."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Sequence

from ..errors import BadInput, bounded
from . import relocate
from .client import Client
from .entities import VM_PLAN_FIELDS, Datastore, VmFacts, VmRecord, uuid_of
from .find import Names, find_datastore, find_vm, list_datastores, list_vms, vcenters_of, vdc_names
from .space import RESERVE_PERCENT, Room, room

METHODS = ("relocate", "profile", "tenant", "policy")


def vm_row(vm: VmRecord, names: Names) -> dict[str, Any]:
    """What modules return of a VM."""
    return {
        "name": vm.name,
        "href": vm.href,
        "id": vm.id,
        "vapp": vm.vapp,
        "vdc": names.vdc(vm.vdc),
        "org": names.org(vm),
        "status": vm.status,
        "is_template": vm.is_template,
        "datastore": {"name": vm.datastore},
        "vcenter": names.vcenter(vm.vc),
        "moref": vm.moref,
    }


def vm_rows(
    client: Client,
    *,
    name: str | None = None,
    org: str | None = None,
    vdc: str | None = None,
    datastore: str | None = None,
    where: str | None = None,
) -> list[dict[str, Any]]:
    """All VMs of vApps and of templates, ordered by organization, vDC, vApp and name; see find.list_vms()."""
    vdcs = vdc_names(client)
    vms = list_vms(client, name=name, org=org, vdc=vdc, datastore=datastore, where=where, vdcs=vdcs)
    names = Names(vdcs, vcenters_of(list_datastores(client)))
    rows = [vm_row(vm, names) for vm in vms]
    return sorted(rows, key=lambda r: (r["org"], r["vdc"], r["vapp"], r["name"], r["href"]))


def datastore_rows(
    client: Client,
    *,
    name: str | None = None,
    datastore: str | None = None,
    org: str | None = None,
    vdc: str | None = None,
    where: str | None = None,
) -> list[dict[str, Any]]:
    """The datastores that are not deleted, ordered by name and vCenter.

    :param datastore: only this one; see find.find_datastore().
    :param org, vdc: only those on which VMs of these live.
    """
    stores = [d for d in list_datastores(client, name=name, where=where) if not d.deleted]
    if datastore is not None:
        stores = [find_datastore(client, datastore, stores=stores)]
    if org is not None or vdc is not None:
        used = {(uuid_of(v.vc), v.datastore) for v in list_vms(client, org=org, vdc=vdc)}
        stores = [d for d in stores if (uuid_of(d.vc), d.name) in used]
    return [d.as_dict() for d in stores]


@dataclass(frozen=True)
class Wanted:
    """What vcd_relocate is asked for.

    :param timeout: seconds for all of it.
    :param reserve_percent: of the target's size, that has to stay free.
    :param policy: the storage policy to change to, for C(method) policy.
    """

    vm: str
    datastore: str
    vapp: str | None = None
    vdc: str | None = None
    org: str | None = None
    method: str = "relocate"
    wait: bool = True
    timeout: float = 3600.0
    reserve_percent: float = RESERVE_PERCENT
    policy: str | None = None


@dataclass
class Situation:
    """What there is before anything is done."""

    client: Client
    wanted: Wanted
    record: VmRecord
    facts: VmFacts
    target: Datastore
    stores: list[Datastore]
    names: Names
    warn: Callable[[str], None] = field(default=lambda text: None)

    @property
    def source(self) -> Datastore | None:
        """The datastore that the VM lives on; None where it cannot be told for certain."""
        if self.facts.home is not None:
            return next((d for d in self.stores if d.key == self.facts.home), None)
        named = [d for d in self.stores if d.name == self.record.datastore and uuid_of(d.vc) == uuid_of(self.record.vc)]
        return named[0] if len(named) == 1 else None

    def name_of(self, facts: VmFacts | None) -> str | None:
        """The name of the datastore that C(facts) have the VM on."""
        if facts is None or facts.home is None:
            return None
        return next((d.name for d in self.stores if d.key == facts.home), facts.home[1])

    def here(self) -> bool:
        """Whether the VM is on the target already; by the datastore's name only where the server tells nothing better."""
        on = self.facts.on(self.target.key)
        if on is not None:
            return on
        same = [d for d in self.stores if d.name == self.target.name]
        if len(same) > 1:
            self.warn(
                f"The server does not tell the MoRef of the datastore of VM {bounded(self.record.name, 120)}, so it is compared by its "
                f"name, which {len(same)} datastores have."
            )
        return self.record.datastore == self.target.name

    def here_now(self) -> bool:
        """here(), asked anew."""
        fresh = [v for v in list_vms(self.client, name=self.record.name) if uuid_of(v.href) == uuid_of(self.record.href)]
        return bool(fresh) and fresh[0].datastore == self.target.name


def look(client: Client, wanted: Wanted, warn: Callable[[str], None]) -> Situation:
    """Find the VM and the target, and read them.

    :raises BadInput: either is unknown or ambiguous.
    """
    record = find_vm(client, wanted.vm, vapp=wanted.vapp, vdc=wanted.vdc, org=wanted.org, fields=VM_PLAN_FIELDS)
    stores = list_datastores(client)
    target = find_datastore(client, wanted.datastore, vc=record.vc or None, stores=stores)
    facts = relocate.read(client, record.href, record.name)
    names = Names(vdc_names(client), vcenters_of(stores))
    return Situation(client, wanted, record, facts, target, stores, names, warn)


def planned_room(now: Situation, need_mb: int) -> Room:
    """Whether C(need_mb) fit on the target, by its own fresh figures; raises where they do not."""
    found = room(now.target, need_mb, reserve_percent=now.wanted.reserve_percent)
    if not found.fits:
        raise BadInput(
            f"The datastore {bounded(now.target.name, 120)} is too full: {found.need_mb} MB are to go there, {found.free_mb} MB are free, "
            f"{found.reserve_mb} MB of them reserved.",
            code="target_full",
            vm=now.record.name,
            step=relocate.STEP,
            next_command="take another datastore, make room, or lower reserve_percent",
            **found.as_dict(),
        )
    if found.overcommitted:
        now.warn(f"The datastore {bounded(now.target.name, 120)} would be too small were every thin disk on it full.")
    return found


def diffed(result: dict[str, Any]) -> dict[str, Any]:
    """C(result) with its diff."""
    places = result["datastore"]
    result["diff"] = {"before": {"datastore": places["before"]}, "after": {"datastore": places["after"]}}
    return result


def affected_rows(vms: Sequence[VmRecord], names: Names) -> list[dict[str, Any]]:
    """What modules return of VMs that are moved along."""
    return [vm_row(v, names) for v in sorted(vms, key=lambda v: (v.vapp, v.name, v.href))]
