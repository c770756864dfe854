# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The three ways besides relocate, which is gone from API 39.0. Each moves more than one VM, or lets the server choose the target.

None of them is taken unless it was asked for, and each lists what it moves. Vendor references: POST-DisableDatastore and
POST-EnableDatastore (1.5 on), PUT-Vm; POST-MigrateTenant (29.0 on, TenantMigrationParamsType); cloudapi "Migrate Vdc Storage"
(38.1 on, VdcStorageMigrationParams).
"""

from __future__ import annotations

import json
from typing import Any, Callable
from xml.sax.saxutils import escape, quoteattr

from ..errors import BadInput, FerryError, ServerError, bounded
from . import query, relocate
from .client import TRIES, Client, pause_before
from .document import VCLOUD, VMEXT
from .entities import Datastore, VmFacts, VmRecord, path_of, uuid_of
from .eras import Version, number
from .find import list_vms, read_datastore
from .situation import Situation, affected_rows, diffed, planned_room
from .space import read_vms, to_move
from .tasks import Task, task_of, wait_task
from .transport import Answer

VM_MEDIA = "application/vnd.vmware.vcloud.vm+xml"
TENANT_MEDIA = "application/vnd.vmware.cloud.tenantMigrationParams+xml"


def _need_version(client: Client, least: Version, method: str) -> None:
    have = number(client.api_version) or (0,)
    if have < least:
        raise BadInput(
            f"method {method} needs API {'.'.join(map(str, least))}; {client.api_version} is in use.",
            step=relocate.STEP,
            offered=client.versions,
        )


def other_way(now: Situation, result: dict[str, Any], *, check: bool, progress: Callable[[Task], None] | None) -> dict[str, Any]:
    """Bring the VM away from its datastore by now.wanted.method; fills and returns C(result).

    :raises BadInput: what the method needs is not given or not there.
    :raises ServerError: code C(picked_other): the server chose another datastore than the one that was wanted.
    """
    source = now.source
    if source is None:
        raise BadInput(
            "The datastore that the VM lives on cannot be told, so nothing can be moved off it.", vm=now.record.name, step=relocate.STEP
        )
    method = now.wanted.method
    vms = {"profile": _of_profile, "tenant": _of_org, "policy": _of_policy}[method](now, source)
    result["affected"] = affected_rows(vms, now.names)
    facts = read_vms(now.client, [v.href for v in vms])
    alone = method == "profile"
    need = (
        to_move(now.facts, now.target.key) if alone else sum(to_move(f, now.target.key) for f in facts.values() if isinstance(f, VmFacts))
    )
    result["plan"] = planned_room(now, need).as_dict()
    result["changed"] = True
    before = result["datastore"]["before"]
    if check:
        result["datastore"] = {"before": before, "after": now.target.name}
        return diffed(result)
    if method == "profile":
        task = _by_profile(now, source, progress)
    elif method == "tenant":
        task = _begun(
            now, _post(now, "/api/admin/extension/action/migrateTenant", tenant_body(now.record.org, source, now.target), TENANT_MEDIA)
        )
        task = _waited(now, task, progress)
    else:
        task = _waited(now, _by_policy(now), progress)
    result["task"] = task.as_dict()
    if not now.wanted.wait:
        result["datastore"] = {"before": before, "after": None}
        return diffed(result)
    after = relocate.read(now.client, now.record.href, now.record.name)
    result["datastore"] = {"before": before, "after": now.name_of(after)}
    result["vm"]["datastore"] = {"name": result["datastore"]["after"]}
    if after.on(now.target.key) is False:
        e = ServerError(
            f"The server put the VM on {bounded(now.name_of(after) or 'another datastore', 120)} rather than on "
            f"{bounded(now.target.name, 120)}: with method {method} it chooses itself.",
            code="picked_other",
            vm=now.record.name,
            step=relocate.STEP,
            task=task.href,
        )
        e.partial = diffed(dict(result))
        raise e
    return diffed(result)


# -- what each moves --------------------------------------------------------------------------------------------------


def _same_source(vms: list[VmRecord], source: Datastore) -> list[VmRecord]:
    return [v for v in vms if not v.vc or not source.vc or uuid_of(v.vc) == uuid_of(source.vc)]


def _of_profile(now: Situation, source: Datastore) -> list[VmRecord]:
    """The VMs that have the VM's storage profile on its datastore: while that is disabled, an update moves any of them."""
    _need_version(now.client, (5, 1), "profile")
    if not now.wanted.wait:
        raise BadInput(
            "method profile has to be waited for: the datastore that it disables is enabled again at the end.", step=relocate.STEP
        )
    if not now.facts.profile_href:
        raise BadInput("The VM has no storage profile.", vm=now.record.name, step=relocate.STEP)
    if now.record.is_template:
        raise BadInput("The VM of a template cannot be updated with a storage profile.", vm=now.record.name, step=relocate.STEP)
    vms = _records(now, vdc=now.record.vdc, datastore=source.name)
    return _same_source([v for v in vms if v.profile == now.facts.profile_name], source)


def _of_org(now: Situation, source: Datastore) -> list[VmRecord]:
    _need_version(now.client, (29,), "tenant")
    return _same_source(_records(now, org=now.record.org, datastore=source.name), source)


def _of_policy(now: Situation, source: Datastore) -> list[VmRecord]:
    """All VMs of the vDC with the VM's storage policy, wherever they are."""
    _need_version(now.client, (38, 1), "policy")
    if not now.wanted.policy:
        raise BadInput("method policy needs the storage policy to change to.", step=relocate.STEP, next_command="set policy")
    if not now.facts.profile_href:
        raise BadInput("The VM has no storage policy.", vm=now.record.name, step=relocate.STEP)
    return [v for v in _records(now, vdc=now.record.vdc) if v.profile == now.facts.profile_name]


def _records(now: Situation, **where: str) -> list[VmRecord]:
    fields = ("name", "containerName", "container", "vdc", "org", "status", "isVAppTemplate", "isDeleted", "datastoreName", "vc", "moref")
    return list_vms(now.client, fields=(*fields, "storageProfileName"), vdcs=now.names.vdcs, **where)


# -- doing it ---------------------------------------------------------------------------------------------------------


def _post(now: Situation, href: str, body: bytes | None, media: str | None, method: str = "POST") -> Answer:
    """One request that begins something. It is sent again where the server said that it was not done, never where its answer was lost."""
    attempt = 1
    while True:
        attempt += 1
        try:
            return now.client.request(method, href, step=relocate.STEP, body=body, media=media, again=False, vm=now.record.name)
        except ServerError as e:
            if e.code in ("busy_entity", "queue_full", "throttled") and attempt <= TRIES:
                now.client.sleep(pause_before(attempt, e.details.get("retry_after")))
                continue
            if e.code == "lost_answer":
                e.left = "perhaps a migration that is under way: the answer to the request for it was lost"
                e.next_command = "look at the tasks in vCloud Director before this is done again"
            raise


def _begun(now: Situation, answer: Answer) -> Task:
    """The task that a request began, in its body or (cloudapi) by its Location."""
    location = answer.headers.get("Location")
    if answer.body.strip()[:1] == b"<":
        return task_of(now.client.document(answer, step=relocate.STEP))
    if not location:
        raise ServerError("The server began something without telling its task.", code="protocol", vm=now.record.name, step=relocate.STEP)
    return task_of(now.client.get(location, step="look how far the task is"))


def _waited(now: Situation, task: Task, progress: Callable[[Task], None] | None) -> Task:
    if not now.wanted.wait:
        return task
    return wait_task(now.client, task.href, step=relocate.STEP, timeout=now.wanted.timeout, vm=now.record.name, progress=progress)


def _by_profile(now: Situation, source: Datastore, progress: Callable[[Task], None] | None) -> Task:
    """The source disabled, the VM updated with the profile that it has, the source enabled again."""
    fresh = read_datastore(now.client, source.href)
    was_enabled = fresh.enabled
    base = path_of(source.href)
    if was_enabled:
        _post(now, fresh.links.get("disable") or f"{base}/action/disable", None, None)
    try:
        task = _begun(now, _post(now, now.record.href, vm_body(now.facts), VM_MEDIA, "PUT"))
        task = _waited(now, task, progress)
    except FerryError as e:
        if was_enabled:
            try:
                _post(now, f"{base}/action/enable", None, None)
            except FerryError as second:
                e.left = f"the datastore {bounded(source.name, 120)} disabled ({second})"
        raise
    if was_enabled:
        try:
            _post(now, f"{base}/action/enable", None, None)
        except FerryError as e:
            e.left = f"the datastore {bounded(source.name, 120)} disabled; the VM was moved"
            raise
    return task


def vm_body(facts: VmFacts) -> bytes:
    """The body that updates a VM with the storage profile that it has, and with its description, which might be lost otherwise."""
    words = f"<Description>{escape(facts.description)}</Description>" if facts.description else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Vm xmlns="{VCLOUD}" name={quoteattr(facts.name)}>{words}'
        f'<StorageProfile type="application/vnd.vmware.vcloud.vdcStorageProfile+xml" href={quoteattr(facts.profile_href)}/></Vm>'
    ).encode()


def tenant_body(org_href: str, source: Datastore, target: Datastore) -> bytes:
    """C(TenantMigrationParams): everything of an organization from one datastore to another."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<vmext:TenantMigrationParams xmlns="{VCLOUD}" xmlns:vmext="{VMEXT}" name="relocate">'
        f"<vmext:orgs><Org href={quoteattr(org_href)}/></vmext:orgs>"
        f"<vmext:sourceDatastores><vmext:Datastore href={quoteattr(source.href)}/></vmext:sourceDatastores>"
        f"<vmext:targetDatastores><vmext:Datastore href={quoteattr(target.href)}/></vmext:targetDatastores>"
        "</vmext:TenantMigrationParams>"
    ).encode()


def _by_policy(now: Situation) -> Task:
    found = query.records(now.client, "adminOrgVdcStorageProfile", step="list the storage policies", fields=("name", "vdc"), where=None)
    same = [r for r in found if r.get("name") == now.wanted.policy and uuid_of(r.get("vdc")) == uuid_of(now.record.vdc)]
    if len(same) != 1:
        names = sorted(r.get("name", "") for r in found if uuid_of(r.get("vdc")) == uuid_of(now.record.vdc))
        raise BadInput(
            f"The vDC of the VM has no storage policy {bounded(now.wanted.policy, 120)}.",
            vm=now.record.name,
            step=relocate.STEP,
            policies=names[:100],
        )
    target = f"urn:vcloud:vdcstorageProfile:{uuid_of(same[0].get('href'))}"
    body = {"targetVdcStoragePolicy": {"name": same[0].get("name"), "id": target}, "entityTypes": [{"name": "urn:vcloud:type:vmware:vm"}]}
    policy = f"urn:vcloud:vdcstorageProfile:{uuid_of(now.facts.profile_href)}"
    answer = _post(now, f"/cloudapi/1.0.0/orgVdcStoragePolicies/{policy}/migrateStorage", json.dumps(body).encode(), "application/json")
    return _begun(now, answer)
