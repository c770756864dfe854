# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing a snapshot, and waiting until nothing of it is left: its task, and then the consolidation of the disks.

Vendor reference: vSphere Web Services API, VirtualMachineSnapshot.RemoveSnapshot_Task, VirtualMachine.ConsolidateVMDisks_Task and
VirtualMachineRuntimeInfo.consolidationNeeded. A snapshot taken while disks are still consolidated has corrupted copies elsewhere.
"""

from __future__ import annotations

from typing import Any, Callable

from ..errors import BadInput, ServerError
from .client import Session
from .find import VmRef
from .properties import of_objects
from .snapshot_tag import HELD
from .snapshot_tree import Snapshot, every
from .steady import PATIENCE, Deadline, is_away, is_busy, steadily
from .tasks import wait_task

Progress = Callable[[int], None]
Stop = Callable[[], None]

#: Seconds for the removal of a snapshot: what the guest wrote meanwhile has to be copied into its base.
REMOVE_TIMEOUT = 6 * 3600.0
#: Seconds for which a locked file is waited for: an export of a killed run holds its snapshot's files until its lease ends, after
#: five minutes (HttpNfcLeaseInfo.leaseTimeout).
LOCKED_PATIENCE = 330.0
#: How often consolidation is asked for when vCenter goes on saying that it is needed.
_CONSOLIDATIONS = 5


def remove(
    session: Session,
    snapshot: Snapshot,
    *,
    timeout: float = REMOVE_TIMEOUT,
    progress: Progress | None = None,
    stop: Stop | None = None,
    foreign: bool = False,
) -> None:
    """Remove C(snapshot) (its children stay), and wait until the disks are consolidated. One that is gone already is no error.

    Goes on through a restart of vCenter, and waits while somebody else works on the VM.

    :param timeout: seconds; vCenter goes on after that.
    :param progress: gets the percentage of the task at work.
    :param stop: is called between looks and raises where the work is to end.
    :param foreign: remove it although it is not ours: only where the user has named this very one.
    :raises ServerError: code timeout, task or fault, with what is left behind.
    """
    vm = snapshot.vm
    if vm is None or (snapshot.tag is None and not foreign):
        raise BadInput(
            f"The snapshot {snapshot.name} ({snapshot.moref}) is not ours, so it is not removed.",
            vm=vm.name if vm else None,
            step="remove the snapshot",
        )
    if snapshot.tag is not None:
        HELD.discard(snapshot.tag.id)
    deadline, locked = Deadline(timeout), Deadline(min(timeout, LOCKED_PATIENCE))
    try:
        while any(s.moref == snapshot.moref for s in steadily(lambda: every(session, vm), patience=min(PATIENCE, timeout), stop=stop)):
            _remove_once(session, vm, snapshot, deadline, locked, progress, stop)
        consolidate(session, vm, timeout=deadline.left, progress=progress, stop=stop)
    except ServerError as e:
        e.add(
            vm=vm.name,
            step="remove the snapshot",
            left=f"the snapshot {snapshot.name} ({snapshot.moref}), or files of it that wait for consolidation",
            next_command="run the same command again: it removes what is left",
        )
        raise


def _is_locked(e: ServerError) -> bool:
    return e.details.get("fault") == "FileLocked"


def _remove_once(
    session: Session, vm: VmRef, snapshot: Snapshot, deadline: Deadline, locked: Deadline, progress: Progress | None, stop: Stop | None
) -> None:
    """Ask for the removal and wait for its task; returns where the tree has to be looked at again."""
    step = "remove the snapshot"
    ref = session.managed("VirtualMachineSnapshot", snapshot.moref)
    try:
        task = session.call(ref.RemoveSnapshot_Task, False, True, step=step)
        _wait(session, task, vm, step, deadline, progress, stop)
    except ServerError as e:
        if e.details.get("fault") == "ManagedObjectNotFound" or e.details.get("gone"):
            return
        # answered too late, or a task of somebody else: the snapshot may be gone at the next look
        if not (_is_locked(e) and locked.wait()) and (not (is_away(e) or is_busy(e)) or not deadline.wait()):
            raise
    if stop is not None:
        stop()


def _wait(session: Session, task: Any, vm: VmRef, step: str, deadline: Deadline, progress: Progress | None, stop: Stop | None) -> None:
    wait_task(session, task, vm=vm.name, step=step, timeout=deadline.left, progress=progress, patience=PATIENCE, stop=stop)


def needs_consolidation(session: Session, vm: VmRef) -> bool:
    """What vCenter says: files of snapshots that are gone are still in the chain of a disk."""
    rows = of_objects(session, [vm.ref], {"VirtualMachine": ("runtime.consolidationNeeded",)}, step="consolidate the disks")
    return bool(rows and rows[0].props.get("runtime.consolidationNeeded"))


def consolidate(
    session: Session,
    vm: VmRef,
    *,
    timeout: float = REMOVE_TIMEOUT,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> bool:
    """Wait until vCenter says that no disk of C(vm) needs consolidation, and consolidate where it goes on saying so.

    :param timeout: seconds.
    :returns: whether anything had to be done.
    :raises ServerError: code task or fault (a locked file: somebody holds a disk), timeout, not_consolidated.
    """
    step = "consolidate the disks"
    deadline, locked = Deadline(timeout), Deadline(min(timeout, LOCKED_PATIENCE))
    attempts = 0
    while steadily(lambda: needs_consolidation(session, vm), stop=stop):
        if stop is not None:
            stop()
        if attempts == _CONSOLIDATIONS:
            raise ServerError(
                f"vCenter says that consolidation is needed, also after {attempts} consolidations.",
                code="not_consolidated",
                vm=vm.name,
                step=step,
                left="files of removed snapshots in the disks' chains",
                next_command="look for who locks the VM's files (another backup), consolidate the disks in vCenter, and run it again",
            )
        try:
            task = session.call(vm.ref.ConsolidateVMDisks_Task, step=step)
            _wait(session, task, vm, step, deadline, progress, stop)
            attempts += 1
        except ServerError as e:
            e.add(vm=vm.name, left="files of removed snapshots in the disks' chains")
            if _is_locked(e) and locked.wait():
                continue
            if not (e.details.get("gone") or is_away(e) or is_busy(e)) or not deadline.wait():
                raise
    return attempts > 0
