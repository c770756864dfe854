# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One VM brought to a datastore: planned or done, by relocate or by another way that was asked for."""

from __future__ import annotations

from typing import Any, Callable

from ..errors import BadInput, FerryError, bounded
from . import relocate, ways
from .client import Client
from .situation import METHODS, Situation, Wanted, diffed, look, planned_room, vm_row
from .space import room, to_move
from .tasks import IN_FLIGHT, Task

#: Codes of errors after which something is under way, or is where it was not before.
MAY_HAVE_MOVED = ("timeout", "not_moved", "picked_other", "lost_answer")


def relocate_vm(
    client: Client,
    wanted: Wanted,
    *,
    check: bool = False,
    warn: Callable[[str], None] = lambda text: None,
    progress: Callable[[Task], None] | None = None,
) -> dict[str, Any]:
    """Bring one VM to a datastore, or, with C(check), say what that would do.

    :returns: changed, vm, datastore (before, after), task, method, plan, affected, diff.
    :raises BadInput: see find, relocate.check_target() (codes target_deleted, target_disabled, target_foreign), and code target_full.
    :raises ServerError: see relocate.relocate_one() and ways.
    """
    if wanted.method not in METHODS:
        raise BadInput(f"There is no method {bounded(wanted.method, 40)}.", step=relocate.STEP)
    if not 0 <= wanted.reserve_percent < 100:
        raise BadInput(f"reserve_percent is {wanted.reserve_percent:g}: from 0 to less than 100 is possible.", step=relocate.STEP)
    if wanted.timeout < 0:
        raise BadInput(f"timeout is {wanted.timeout:g}: it cannot be less than 0.", step=relocate.STEP)
    now = look(client, wanted, warn)
    vm = vm_row(now.record, now.names)
    before = now.name_of(now.facts) or now.record.datastore
    result: dict[str, Any] = {
        "changed": False,
        "vm": vm,
        "datastore": {"before": before, "after": before},
        "task": None,
        "method": wanted.method,
        "affected": [],
    }
    if now.here():
        return result
    try:
        relocate.check_target(now.target, vc=now.record.vc or None, vm=now.record.name)
        if wanted.method != "relocate":
            return ways.other_way(now, result, check=check, progress=progress)
        return _relocate(now, result, check=check, progress=progress)
    except FerryError as e:
        e.add(vm=now.record.name)
        e.partial = {**result, "changed": e.code in MAY_HAVE_MOVED, **e.partial}
        raise


def _relocate(now: Situation, result: dict[str, Any], *, check: bool, progress: Callable[[Task], None] | None) -> dict[str, Any]:
    relocate.version_or_refuse(now.client, now.record.name)
    under_way = [t for t in relocate.relocations_of(now.client, now.facts) if t.status in IN_FLIGHT]
    stays = [d.label for d in now.facts.disks if d.independent]
    if stays:
        now.warn(
            f"VM {bounded(now.record.name, 120)} has independent disks, which are not moved with it: {', '.join(bounded(s, 80) for s in stays)}."
        )
    need = to_move(now.facts, now.target.key)
    # what is under way has its space already
    found = room(now.target, need, reserve_percent=now.wanted.reserve_percent) if under_way else planned_room(now, need)
    result["plan"] = {**found.as_dict(), "linked_clone": now.facts.chain > 1}
    result["changed"] = True
    before = result["datastore"]["before"]
    if check:
        result["datastore"] = {"before": before, "after": now.target.name}
        result["task"] = under_way[0].as_dict() if under_way else None
        return diffed(result)
    moved = relocate.relocate_one(
        now.client,
        now.facts,
        now.target,
        wait=now.wanted.wait,
        timeout=now.wanted.timeout,
        progress=progress,
        by_name=now.here_now,
    )
    result["task"] = moved.task.as_dict() if moved.task else None
    result["joined"] = moved.joined
    result["datastore"]["after"] = None if moved.after is None else now.name_of(moved.after) or now.target.name
    if moved.after is not None:
        result["vm"] = vm_row(now.record._replace(datastore=result["datastore"]["after"]), now.names)
    result["changed"] = moved.changed
    return diffed(result)
