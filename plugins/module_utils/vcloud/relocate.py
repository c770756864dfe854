# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Relocation of one VM: begun once, found again where the answer was lost, joined where it is under way, and looked at afterwards.

Vendor reference: vCloud API Programming Guide 1.5, "Relocate a Virtual Machine to a Different Datastore"; removed in API 39.0.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Callable, Iterable
from xml.sax.saxutils import quoteattr

from ..errors import BadInput, FerryError, ServerError, bounded
from .client import TRIES, Client, pause_before
from .document import VCLOUD
from .entities import RELOCATE_MEDIA, Datastore, VmFacts, uuid_of, vm_of
from .faults import again_later
from .tasks import IN_FLIGHT, RELOCATE, Task, find_tasks, task_of, wait_task
from .transport import LostAnswer, local_path

#: Looks for the task of a POST whose answer was lost, before it is sent a second time; the pauses add up to about 10 seconds.
LOOKS = 6
DATASTORE_MEDIA = "application/vnd.vmware.admin.datastore+xml"

STEP = "relocate the VM"

#: What is left above API 38.1, each a method of its own that has to be asked for.
OTHER_WAYS = (
    "method=profile: the source datastore is disabled and the VM updated with the storage profile that it has; the server picks the "
    "target among the profile's datastores",
    "method=tenant: everything that the VM's organization has on the source datastore goes to the target (API 29.0 on)",
    "method=policy: everything that has the VM's storage policy gets another policy (API 38.1 on)",
)


@dataclass(frozen=True)
class Begun:
    """C(task): what is under way; None where the VM is on the target already. C(joined): it was under way before."""

    task: Task | None
    joined: bool = False


@dataclass
class Moved:
    """What relocate_one() did.

    :param changed: whether a relocation was begun here, or one was under way that had not ended.
    :param before, after: as read; C(after) is None where it was not waited for.
    """

    before: VmFacts
    after: VmFacts | None = None
    task: Task | None = None
    changed: bool = False
    joined: bool = False
    warnings: list[str] = field(default_factory=list)


def relocate_body(datastore_href: str) -> bytes:
    """The body of a relocate request: C(RelocateParams)."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<RelocateParams xmlns="{VCLOUD}">'
        f"<Datastore type={quoteattr(DATASTORE_MEDIA)} href={quoteattr(datastore_href)}/></RelocateParams>"
    ).encode()


def version_or_refuse(client: Client, vm: str | None = None) -> str:
    """The API version for a relocate request.

    :raises ServerError: code C(relocate_gone): the server has none any more that knows it; the other ways are described.
    """
    version = client.relocate_version
    if version is None:
        raise ServerError(
            f"{client.where.netloc} speaks no API version that has relocate: it was removed in 39.0. "
            f"The other ways move more than one VM or choose the target themselves, so each has to be asked for: {'; '.join(OTHER_WAYS)}.",
            code="relocate_gone",
            vm=vm,
            step=STEP,
            next_command="set method after reading what it moves: check mode lists it as affected",
            offered=client.versions,
            other_ways=list(OTHER_WAYS),
        )
    return version


def read(client: Client, href: str, vm: str | None = None) -> VmFacts:
    """The VM, at the version that its relocate request goes by: newer ones leave out the link."""
    return vm_of(client.get(href, step="read the VM", version=client.relocate_version, vm=vm))


def check_target(target: Datastore, *, vc: str | None, vm: str | None = None) -> None:
    """Refuse a target that is deleted, disabled or of another vCenter than C(vc) (a UUID or an href)."""
    where = f"The datastore {bounded(target.name, 120)}"
    facts = {"datastore": target.name, "href": target.href}
    if target.deleted:
        raise BadInput(f"{where} was deleted from vCenter.", code="target_deleted", vm=vm, step=STEP, **facts)
    if not target.enabled:
        raise BadInput(
            f"{where} is disabled.", code="target_disabled", vm=vm, step=STEP, next_command="enable it, or take another", **facts
        )
    if vc and target.vc and uuid_of(target.vc) != (uuid_of(vc) or vc):
        raise BadInput(
            f"{where} belongs to another vCenter ({bounded(target.vcenter, 120)}) than the VM.",
            code="target_foreign",
            vm=vm,
            step=STEP,
            **facts,
        )


def relocations_of(client: Client, facts: VmFacts) -> list[Task]:
    """The relocations of the VM that the server still knows of, under way or ended: its own list, and the query's."""
    found = {t.path: t for t in facts.tasks if t.operation_name == RELOCATE}
    try:
        for task in find_tasks(client, owner_name=facts.name):
            if uuid_of(task.owner) == uuid_of(facts.href):
                found.setdefault(task.path, task)
    except ServerError as e:
        # a server that does not let itself be asked so still lists the tasks in the VM
        if e.code not in ("refused", "forbidden", "not_found"):
            raise
    return list(found.values())


def begin(client: Client, facts: VmFacts, target: Datastore, *, known: Iterable[Task] | None = None) -> Begun:
    """Begin the relocation of the VM, unless one is under way, which is joined whatever its target.

    A POST whose answer was lost is not sent again before its task was looked for.

    :param facts: of read(), fresh.
    :param known: the relocations of the VM that had ended before; without it the server is asked for them.
    :raises ServerError: codes busy_entity, queue_full, throttled, unavailable (faults.again_later()): nothing was begun, and it may be
        tried again later; relocate_gone; and whatever the server refuses.
    """
    version = version_or_refuse(client, facts.name)
    tasks = relocations_of(client, facts) if known is None else [*known, *(t for t in facts.tasks if t.operation_name == RELOCATE)]
    for task in tasks:
        if task.status in IN_FLIGHT:
            return Begun(task, joined=True)
    before = {t.path for t in tasks}
    href = facts.relocate_href or f"{local_path(facts.href)}/action/relocate"
    body = relocate_body(target.href)
    for last in (False, True):
        try:
            answer = client.request("POST", href, step=STEP, body=body, media=RELOCATE_MEDIA, version=version, again=False, vm=facts.name)
            return Begun(task_of(client.document(answer, step=STEP)))
        except LostAnswer as e:
            found = _look_for(client, facts, target, before)
            if found is not None:
                return found
            if last:
                e.left = "no relocation that the server knows of; it was looked for"
                raise
    raise AssertionError("unreachable")


def _look_for(client: Client, facts: VmFacts, target: Datastore, before: set[str]) -> Begun | None:
    """What became of a POST whose answer was lost: its task, also one that has ended; None where there is none after a while."""
    for look in range(LOOKS):
        client.sleep(0.2 * 2**look)
        try:
            now = read(client, facts.href, facts.name)
            if now.on(target.key):
                return Begun(None)
            new = [t for t in relocations_of(client, now) if t.path not in before]
        except ServerError as e:
            e.left = "perhaps a relocation of the VM: the answer to the request for it was lost"
            e.next_command = "the same again: it joins a relocation that is under way"
            raise
        if new:
            # one that is under way rather than one that has ended
            return Begun(sorted(new, key=lambda t: t.status not in IN_FLIGHT)[0])
    return None


def check_arrived(facts: VmFacts, target: Datastore, *, task: Task | None = None, arrived: bool | None = None) -> None:
    """Raise where C(facts), read after the task ended, do not have the VM on C(target) with all its disks.

    :param arrived: what is known of that otherwise, where C(facts) do not tell.
    """
    on = facts.on(target.key)
    if on or (on is None and arrived is not False):
        return
    there = facts.home == target.key
    raise ServerError(
        f"The relocation ended well, but the VM is not on {bounded(target.name, 120)}"
        + (": disks of it are on another datastore." if there else "."),
        code="not_moved",
        vm=facts.name,
        step="look where the VM is after the relocation",
        task=task.href if task else None,
        found=[f"{vc}/{moref}" for vc, moref in dict.fromkeys((*([facts.home] if facts.home else []), *facts.disk_datastores))],
    )


def relocate_one(
    client: Client,
    facts: VmFacts,
    target: Datastore,
    *,
    wait: bool = True,
    timeout: float = 3600.0,
    tries: int = TRIES,
    progress: Callable[[Task], None] | None = None,
    by_name: Callable[[], bool] | None = None,
) -> Moved:
    """Bring one VM to C(target).

    :param facts: of read(), fresh.
    :param timeout: seconds for all of it; a task that is under way then goes on.
    :param tries: how often it is asked for where the server says later (busy, a full queue, 429, 503).
    :param by_name: tells whether it is on the target by the datastore's name, for where the VM itself does not tell.
    :raises ServerError: as begin(), tasks.wait_task() and check_arrived().
    """
    result = Moved(before=facts)
    end = time.monotonic() + timeout
    now, attempt, joins = facts, 1, 0

    def arrived(vm: VmFacts) -> bool | None:
        on = vm.on(target.key)
        return by_name() if on is None and by_name is not None else on

    while True:
        if arrived(now):
            result.after = now
            return result
        try:
            begun = begin(client, now, target)
        except FerryError as e:
            attempt += 1
            if not again_later(e) or attempt > tries or time.monotonic() > end:
                raise
            client.sleep(min(pause_before(attempt, e.details.get("retry_after")), max(0.0, end - time.monotonic())))
            now = read(client, facts.href, facts.name)
            continue
        result.changed = True
        result.joined = result.joined or begun.joined
        if begun.task is not None:
            result.task = begun.task
            if not wait:
                return result
            result.task = wait_task(
                client, begun.task.href, step=STEP, timeout=max(0.0, end - time.monotonic()), vm=facts.name, progress=progress
            )
        now = read(client, facts.href, facts.name)
        there = arrived(now)
        if begun.joined and joins < 2 and not there:
            # somebody else's relocation, to another datastore
            joins += 1
            continue
        check_arrived(now, target, task=result.task, arrived=there)
        result.after = now
        return result
