# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of a VM: taken with a tag, found by it, removed with their consolidation waited for.

Vendor reference: vSphere Web Services API, VirtualMachine.CreateSnapshot_Task. Looking is in snapshot_tree.py, removing in
snapshot_removal.py; both are to be had from here.
"""

from __future__ import annotations

import contextlib
import datetime
from dataclasses import dataclass, replace
from typing import Any, Iterator, Sequence

from ..errors import BadInput, FerryError, ServerError
from . import guest, snapshot_tag
from .client import Session
from .find import VmRef
from .properties import POWER, of_objects
from .snapshot_removal import REMOVE_TIMEOUT, Progress, Stop, consolidate, needs_consolidation, remove
from .snapshot_tag import KEPT, Tag
from .snapshot_tree import Snapshot, disks_at, every, find, is_left_behind, left_behind, ours, server_time, tree_of
from .steady import PATIENCE, Deadline, is_away, is_busy, steadily
from .tasks import wait_task

__all__ = [
    "KEPT",
    "MOST_TRACKED",
    "REMOVE_TIMEOUT",
    "TAKE_TIMEOUT",
    "Snapshot",
    "consolidate",
    "disks_at",
    "every",
    "find",
    "is_left_behind",
    "left_behind",
    "needs_consolidation",
    "ours",
    "plan_quiesce",
    "remove",
    "server_time",
    "sweep",
    "take",
    "taken",
    "tree_of",
]

#: Seconds that vCenter has to take a snapshot: Windows' VSS alone may use fifteen minutes.
TAKE_TIMEOUT = 1800.0
#: Most snapshots that a VM with changed block tracking may have (without tracking vSphere's limit is 32 in a chain).
MOST_TRACKED = 28

#: Faults that say that the guest, not vSphere, stood in the way (API reference, CreateSnapshot_Task).
QUIESCE_FAULTS = frozenset({"ApplicationQuiesceFault", "FilesystemQuiesceFault", "ToolsUnavailable"})


@dataclass(frozen=True)
class _Before:
    power: str
    tools: bool
    tracked: bool
    snapshots: int
    consolidate: bool


def _before(session: Session, vm: VmRef) -> _Before:
    leaves = ("runtime.powerState", "guest.toolsRunningStatus", "config.changeTrackingEnabled", "runtime.consolidationNeeded", "snapshot")
    rows = of_objects(session, [vm.ref], {"VirtualMachine": leaves}, step="take a snapshot")
    if not rows:
        raise BadInput("The VM is gone from vCenter.", vm=vm.name, step="take a snapshot")
    p = rows[0].props
    power = str(p.get("runtime.powerState", ""))
    return _Before(
        power=POWER.get(power, power),
        tools=p.get("guest.toolsRunningStatus") in ("guestToolsRunning", "guestToolsExecutingScripts"),
        tracked=bool(p.get("config.changeTrackingEnabled")),
        snapshots=guest.count_snapshots(p.get("snapshot")),
        consolidate=bool(p.get("runtime.consolidationNeeded")),
    )


def plan_quiesce(quiesce: str, power: str, tools: bool, vm: str | None = None) -> tuple[bool, str | None]:
    """(whether to ask for quiescing, a remark for the user). Pure.

    vSphere ignores the wish silently where VMware Tools do not run (API reference, CreateSnapshot_Task), hence the look before.

    :param quiesce: auto, required or never.
    :param power: on, off or suspended.
    :raises BadInput: required, and it cannot be.
    """
    if quiesce == "never":
        return False, None
    if power == "off":
        return False, None
    if power == "suspended":
        why = "the VM is suspended: its guest cannot be asked to flush, and what its memory holds is not on the disks"
    elif not tools:
        why = "VMware Tools are not running in the guest"
    else:
        return True, None
    if quiesce == "required":
        raise BadInput(
            f"The guest cannot be quiesced: {why}.",
            code="quiesce",
            vm=vm,
            step="take a snapshot",
            next_command="start VMware Tools in the guest, or choose quiesce: auto",
        )
    return False, f"not quiesced: {why}; the snapshot is as after a power failure"


def is_quiesce_fault(e: ServerError) -> bool:
    """Whether the guest stood in the way: by the fault's name, or, where vCenter wraps it into a general one, by its text."""
    return e.details.get("fault") in QUIESCE_FAULTS or "quiesc" in (e.said or "").casefold()


def take(
    session: Session,
    vm: VmRef,
    *,
    quiesce: str = "auto",
    purpose: str = "copy",
    folder: str | None = None,
    timeout: float = TAKE_TIMEOUT,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Snapshot:
    """Take one snapshot of all disks of C(vm), without its memory, and tag it as ours. A consolidation is waited for before.

    :param quiesce: auto (as long as the guest lets it; else without, said in remark), required, never. With VMware Tools in a
        Windows guest quiescing runs VSS, so that applications flush too; elsewhere file systems are frozen.
    :param purpose: stands in the tag: copy, cbt, areas, kept.
    :param folder: state folder of the run, for the tag.
    :param timeout: seconds.
    :param stop: is called between looks and raises where the work is to end; what was begun is then taken back.
    :raises BadInput: code quiesce (required, and the guest cannot), too_many_snapshots.
    :raises ServerError: vSphere refused, with its words.
    """
    before = steadily(lambda: _before(session, vm), stop=stop)
    if before.tracked and before.snapshots >= MOST_TRACKED:
        raise BadInput(
            f"The VM has {before.snapshots} snapshots; with changed block tracking it may have {MOST_TRACKED}.",
            code="too_many_snapshots",
            vm=vm.name,
            step="take a snapshot",
            next_command="remove snapshots that are no longer needed",
        )
    asked, remark = plan_quiesce(quiesce, before.power, before.tools, vm.name)
    if before.consolidate:
        # a snapshot that is taken while disks are consolidated has corrupted copies elsewhere (kubev2v/forklift#1193)
        consolidate(session, vm, progress=progress, stop=stop)
    try:
        found = _take(session, vm, _new_tag(vm, purpose, folder), asked, remark, timeout, progress, stop)
        if found.quiesced or not asked:
            return found
        said, left = "vSphere has taken it without, and gives no reason", None
        if quiesce != "required":
            return replace(found, remark=f"not quiesced: {said}; the snapshot is as after a power failure")
        remove(session, found, stop=stop)
    except ServerError as e:
        if not asked or not is_quiesce_fault(e):
            raise
        said, left = e.said or e.message, e.left
        if quiesce != "required":
            remark = f"not quiesced, because the guest could not ({said}); the snapshot is as after a power failure"
            return _take(session, vm, _new_tag(vm, purpose, folder), False, remark, timeout, progress, stop)
    raise BadInput(
        "The guest could not be quiesced.",
        code="quiesce",
        vm=vm.name,
        step="take a snapshot",
        said=said,
        left=left,
        next_command="look at the guest's event log (Windows: the VSS writers), or choose quiesce: auto",
    )


def _new_tag(vm: VmRef, purpose: str, folder: str | None) -> Tag:
    return snapshot_tag.new_tag(purpose, vm.instance_uuid, folder)


def _take(
    session: Session,
    vm: VmRef,
    tag: Tag,
    quiesced: bool,
    remark: str | None,
    timeout: float,
    progress: Progress | None,
    stop: Stop | None,
) -> Snapshot:
    step = "take a snapshot"
    deadline = Deadline(timeout)
    snapshot_tag.HELD.add(tag.id)
    stamp = steadily(lambda: server_time(session), stop=stop).astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = tag.text("Taken by ferry.vmware and removed by it. Do not revert to it or remove it while a migration runs.")
    task: Any = None
    busy = False
    try:
        while True:
            failed: ServerError | None = None
            try:
                task = session.call(vm.ref.CreateSnapshot_Task, f"ferry {tag.purpose} {stamp}", text, False, quiesced, step=step)
                wait_task(session, task, vm=vm.name, step=step, timeout=deadline.left, progress=progress, patience=PATIENCE, stop=stop)
            except ServerError as e:
                busy = busy or is_busy(e)
                if not (is_busy(e) or is_away(e) or e.details.get("gone")):
                    raise
                failed = e
            # a request or a task that vCenter gave no answer to may have been carried out: found by its tag, it is the one
            found = steadily(lambda: _by_id(session, vm, tag), stop=stop)
            if found:
                break
            if failed is None:
                raise ServerError("vCenter has taken no snapshot, though it did not refuse.", code="no_snapshot", vm=vm.name, step=step)
            if not deadline.wait():
                raise failed
            if stop is not None:
                stop()
        for twice in found[:-1]:
            remove(session, twice, stop=stop)
        if busy:
            # perhaps with one that a run killed a moment ago had asked for
            sweep(session, vm, purposes=[tag.purpose])
        snapshot_tag.HELD.add(tag.id)
        return replace(found[-1], remark=remark)
    except BaseException as e:
        snapshot_tag.HELD.discard(tag.id)
        left = _undo(session, vm, tag, task)
        if isinstance(e, FerryError):
            e.add(vm=vm.name, step=step, left=left)
        raise


def _by_id(session: Session, vm: VmRef, tag: Tag) -> list[Snapshot]:
    return [s for s in every(session, vm) if s.tag is not None and s.tag.id == tag.id]


def _undo(session: Session, vm: VmRef, tag: Tag, task: Any) -> str | None:
    """Remove what a failed take() may have begun. Returns what is left, for the error."""
    left = f"perhaps a snapshot of the VM with the id {tag.id} in its description; the next run removes it"
    try:
        if task is not None:
            with contextlib.suppress(ServerError):
                wait_task(session, task, vm=vm.name, step="take a snapshot", timeout=60)
        for begun in _by_id(session, vm, tag):
            remove(session, begun, timeout=300)
        return None
    except FerryError:
        return left


def sweep(
    session: Session, vm: VmRef, *, purposes: Sequence[str], timeout: float = REMOVE_TIMEOUT, progress: Progress | None = None
) -> list[str]:
    """Remove what killed runs have left of C(purposes); the names of what was removed."""
    found = left_behind(session, vm, purposes=purposes)
    for snapshot in found:
        remove(session, snapshot, timeout=timeout, progress=progress)
    return [s.name for s in found]


@contextlib.contextmanager
def taken(
    session: Session,
    vm: VmRef,
    *,
    quiesce: str = "auto",
    purpose: str = "copy",
    folder: str | None = None,
    keep: bool = False,
    timeout: float = REMOVE_TIMEOUT,
    progress: Progress | None = None,
) -> Iterator[Snapshot]:
    """A snapshot for the time of the block: take() at its beginning, remove() at its end, also on failure.

    :param keep: leave it, where the block ends well.
    :param timeout: seconds for the removal.
    """
    snapshot = take(session, vm, quiesce=quiesce, purpose=purpose, folder=folder)
    done = False
    try:
        yield snapshot
        done = True
    except BaseException as e:
        try:
            remove(session, snapshot, timeout=timeout, progress=progress)
        except FerryError as failed:
            if isinstance(e, FerryError):
                e.add(left=failed.left or f"the snapshot {snapshot.name} ({snapshot.moref}) of the VM: {failed.message}")
        raise
    if done and not keep:
        remove(session, snapshot, timeout=timeout, progress=progress)
