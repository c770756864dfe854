# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which areas of a disk have changed, as vSphere tracks them, checked before they are believed; and when not to believe them.

Vendor reference: vSphere Web Services API, VirtualMachine.QueryChangedDiskAreas and DiskChangeInfo; Virtual Disk Development Kit
Programming Guide, "Changed Block Tracking".
"""

from __future__ import annotations

import datetime
from functools import partial
from typing import Any, Callable, Iterator, Sequence

from ..errors import ServerError
from .builds import Build, bad_build
from .client import Session
from .disks import VmDisk
from .find import VmRef
from .snapshot_tree import Snapshot
from .steady import PATIENCE, steadily

#: Asks for what is allocated at all instead of what has changed.
EVERYTHING = "*"
#: An answer of so many areas may have been cut although it says that it reaches the end of the disk (kubevirt/containerized-data-
#: importer#3534 saw 2,000), so it is asked once more from the end of its last area.
_SUSPICIOUS = 2000

_STEP = "query the changed areas"


def _wrong(what: str, vm: VmRef, key: int, said: str) -> ServerError:
    return ServerError(
        f"vCenter's answer about changed areas is not to be believed: {what}.",
        code="bad_areas",
        vm=vm.name,
        disk=str(key),
        step=_STEP,
        said=said,
    )


def check_part(info: Any, position: int, capacity: int, vm: VmRef, key: int) -> tuple[list[tuple[int, int]], int]:
    """The areas of one answer and where it ends, in bytes; C(info): a DiskChangeInfo for a question from C(position) on. Pure.

    :raises ServerError: code bad_areas: it describes another part of the disk than asked for, or its areas are empty, overlap,
        descend, or lie outside the part that it claims to describe.
    """
    start, length = int(info.startOffset), int(info.length)
    claim = f"part ({start}, {length}) of a disk of {capacity} bytes, asked from {position}"
    if start != position:
        raise _wrong("it describes another part than asked for", vm, key, claim)
    end = start + length
    if end <= position or end > capacity:
        raise _wrong("it does not move forward" if end <= position else "it reaches beyond the disk", vm, key, claim)
    areas: list[tuple[int, int]] = []
    last = position
    for area in info.changedArea or ():
        begin, size = int(area.start), int(area.length)
        if size <= 0 or begin < last or begin + size > end:
            what = "an empty area" if size <= 0 else "areas overlap or descend" if begin < last else "an area outside its part"
            raise _wrong(what, vm, key, f"area ({begin}, {size}) after {last} in {claim}")
        areas.append((begin, size))
        last = begin + size
    return areas, end


def changed_areas(
    session: Session,
    vm: VmRef,
    snapshot: Snapshot | None,
    key: int,
    change_id: str,
    capacity: int,
    start: int = 0,
    *,
    patience: float = PATIENCE,
    stop: Callable[[], None] | None = None,
) -> Iterator[tuple[int, int]]:
    """All areas (start, length) in bytes, ascending, of the disk C(key) at C(snapshot) that have changed since C(change_id).

    An answer may describe only a part of the disk; all parts are asked for, one after the other, as they are consumed.

    :param snapshot: None only for a VM that is powered off: its disks as they are.
    :param change_id: "*" for all areas that are allocated: a hint, see star_distrust().
    :param capacity: of the disk in the snapshot, in bytes.
    :param start: offset to begin at, in bytes.
    :param patience: seconds for which a vCenter that is away is asked again.
    :raises ServerError: code bad_areas (see check_part); code fault where vSphere refuses: FileFault for a changeId that it does not
        know (or not any more), InvalidArgument for a key that the snapshot lacks.
    """
    ref = None if snapshot is None else session.managed("VirtualMachineSnapshot", snapshot.moref)

    def ask(begin: int) -> Any:
        again = partial(session.call, vm.ref.QueryChangedDiskAreas, ref, key, begin, change_id, step=_STEP, again=True)
        return steadily(again, patience=patience, stop=stop)

    position, claimed_all = start, False
    while position < capacity:
        if stop is not None:
            stop()
        try:
            info = ask(position)
        except ServerError as e:
            if claimed_all and e.details.get("fault") == "InvalidArgument":
                return  # it meant what it said: there is nothing after its last area
            e.add(vm=vm.name, disk=str(key))
            raise
        areas, end = check_part(info, position, capacity, vm, key)
        yield from areas
        if end < capacity and not areas:
            position = end
            continue
        if not areas or (end == capacity and len(areas) < _SUSPICIOUS):
            return
        position, claimed_all = areas[-1][0] + areas[-1][1], end == capacity


# -- when not to believe them ---------------------------------------------------------------------------------------


def star_distrust(disk: VmDisk, *, build: Build | None = None, bad_builds: Sequence[str] = ()) -> str | None:
    """Why "*" must not even be taken as a hint of what is allocated, or None. Pure.

    It is derived from VMFS's own records and from what was tracked since tracking was switched on; elsewhere it may fail or answer one
    area of the whole disk (VDDK Programming Guide, "About Changed Block Tracking"). Whether snapshots were there when it was
    switched on, which makes it wrong, cannot be seen afterwards: vm_cbt refuses that.
    """
    if not disk.change_id:
        return "the snapshot has no changeId for this disk"
    if disk.rdm_mode:
        return "the disk is a raw device mapping"
    if disk.datastore_type != "VMFS":
        return f"the datastore's type is {disk.datastore_type or 'unknown'}, not VMFS"
    return bad_build(build, disk.capacity, bad_builds)


def reverted_since(session: Session, vm: VmRef, since: str | datetime.datetime) -> str | None:
    """What vCenter's own record of tasks says of a revert of C(vm) to a snapshot since C(since) (the server's clock; ISO 8601 or
    datetime, Snapshot.created), or None. An ESXi host, or an account that may not read tasks, keeps no such record: None too.

    A revert that keeps the changeId's UUID would otherwise go unseen.
    """
    moment = datetime.datetime.fromisoformat(since) if isinstance(since, str) else since
    manager = session.content.taskManager
    if manager is None:
        return None
    spec = session.vim.TaskFilterSpec
    by_entity = spec.ByEntity(entity=vm.ref, recursion=spec.RecursionOption.self)
    by_time = spec.ByTime(timeType=spec.TimeOption.queuedTime, beginTime=moment)
    wanted = spec(entity=by_entity, time=by_time)
    step = "look for reverts to a snapshot"
    try:
        collector = session.call(manager.CreateCollectorForTasks, wanted, step=step)
    except ServerError as e:
        if e.code == "fault" and e.details.get("fault") in ("NoPermission", "NotSupported", "InvalidState"):
            return None
        raise
    try:
        for _page in range(1000):
            tasks = session.call(collector.ReadNextTasks, 500, step=step) or ()
            for task in tasks:
                if "revert" in str(task.descriptionId or "").lower() and (task.queueTime is None or task.queueTime >= moment):
                    return f"the VM was reverted to a snapshot at {task.queueTime}"
            if not tasks:
                break
    finally:
        try:
            session.call(collector.DestroyCollector)
        except ServerError:
            pass  # it dies with the session
    return None
