# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The moment of a VM that is copied: its disks as they stand while it is off, or frozen by one snapshot for all of them.

The order of the design (section 4) is kept here: our old snapshots go first and their consolidation is waited for, then one
snapshot is taken, then key, capacity and changeId of each disk are read from that snapshot's configuration.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from datetime import datetime
from typing import Any, Callable, Collection, Iterator, Mapping, Sequence

from ..disk.changes import Tracking
from ..disk.progress import Progress
from ..errors import BadInput, Busy, FerryError, Interrupted
from ..vsphere import builds, changes, snapshot_removal, snapshot_tag, snapshot_tree, snapshots
from ..vsphere.disks import VmDisk
from ..vsphere.find import VmRef
from ..vsphere.steady import steadily

#: Seconds that an interrupted run gives vCenter to begin with the removal; it goes on there by itself.
_HURRY = 20.0


@contextlib.contextmanager
def vm_lock(folder: str, vm: Mapping[str, Any]) -> Iterator[None]:
    """One process of this machine at a time works with snapshots of the VM: else one would remove the other's.

    :raises Busy: another one does.
    """
    where = os.path.join(folder, "vms")
    os.makedirs(where, mode=0o700, exist_ok=True)
    fd = os.open(os.path.join(where, f"{vm['instance_uuid'] or vm['moref']}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise Busy(
                "Another process of this machine copies disks of this VM.",
                step="lock the VM",
                said=os.pread(fd, 100, 0).decode("ascii", "replace") or None,
                next_command="name all disks of the VM in one task, or wait",
            ) from e
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"pid {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(fd)


class Moment:
    """C(snapshot): None where the disks are read as they are. C(chains): each disk's files before the snapshot, by key."""

    def __init__(
        self, session: Any, ref: VmRef, vm: Mapping[str, Any], snapshot: snapshot_tree.Snapshot | None, disks: Sequence[VmDisk]
    ) -> None:
        self.session = session
        self.ref = ref
        self.vm = vm
        self.snapshot = snapshot
        self.disks = {d.key: d for d in disks}
        #: Snapshots that are not ours; counted before ours was taken.
        self.foreign = int(vm["snapshots"])
        self.remarks: list[str] = []
        self.bad_builds: Sequence[str] = ()
        self.stop: Callable[[], None] | None = None
        self._build: tuple[builds.Build | None] | None = None

    def disk(self, wanted: VmDisk) -> VmDisk:
        """The disk as it is at this moment.

        :raises BadInput: it is not part of the snapshot (an independent disk, or one that was added since).
        """
        found = self.disks.get(wanted.key)
        # A snapshot's configuration lists independent disks too, but their bytes go on.
        if found is None or self.snapshot is not None and (found.mode or "").startswith("independent"):
            raise BadInput(
                "The snapshot does not hold this disk: independent disks are left out of snapshots.",
                code="not_in_snapshot",
                disk=wanted.label,
                step="read the snapshot's disks",
                said=wanted.mode,
                next_command="shut the VM down and copy it powered off",
            )
        return found

    def _host(self) -> builds.Build | None:
        if self._build is None:
            self._build = (steadily(lambda: builds.host_build(self.session, self.ref), stop=self.stop),)
        return self._build[0]

    def bad_build(self, disk: VmDisk) -> str | None:
        """Why the host that the VM is on now is not to be trusted with the disk's changes. What it missed while it consolidated
        shows in the areas that are asked for later, perhaps on another host."""
        return None if self.snapshot is None else builds.bad_build(self._host(), disk.capacity, self.bad_builds)

    def tracking(self, disk: VmDisk, distrusted: str | None, taken: str | None) -> Tracking | None:
        """What vCenter knows of the disk's changes; None where it tracks none.

        :param distrusted: a reason that the caller knows for not trusting the areas.
        :param taken: when the snapshot of the last copy was taken, by the server's clock; None for the first copy.
        """
        snapshot = self.snapshot
        if snapshot is None or not disk.change_id:
            return None
        reason = self.bad_build(disk) or distrusted or _older(snapshot.created, taken)
        if reason is None and taken is not None:
            reason = steadily(lambda: changes.reverted_since(self.session, self.ref, taken), stop=self.stop)

        def areas(since: str) -> Iterator[tuple[int, int]]:
            return changes.changed_areas(self.session, self.ref, snapshot, disk.key, since, disk.capacity, stop=self.stop)

        return Tracking(disk.change_id, areas, self.allocated(disk), reason)

    def allocated(self, disk: VmDisk) -> Callable[[], Iterator[tuple[int, int]]] | None:
        """Gives the areas that "*" names: what is allocated. None where it is not even a hint of that: other snapshots are there."""
        if len(disk.chain) > 1 or self.foreign:
            return None
        if changes.star_distrust(disk, build=self._host(), bad_builds=self.bad_builds) is not None:
            return None
        args = (self.session, self.ref, self.snapshot, disk.key, changes.EVERYTHING, disk.capacity)
        return lambda: changes.changed_areas(*args, stop=self.stop)


def _older(created: str | None, taken: str | None) -> str | None:
    """Why reverts since the last copy cannot be looked for by time; None where they can. Both ISO 8601, by the server's clock."""
    if created is None or taken is None or datetime.fromisoformat(created) >= datetime.fromisoformat(taken):
        return None
    return f"The snapshot is older ({created}) than that of the last copy ({taken}): another one, or vCenter's clock was set back."


def _left_behind(snapshot: snapshot_tree.Snapshot, folder: str, dead: Collection[str]) -> bool:
    """Whether the run that took it is over: it had the lock that is ours now, its process is gone, or its machine lost the targets to us."""
    tag = snapshot.tag
    if tag is None:
        return False
    return tag.owner == f"{snapshot_tag.host_name()}:{folder}" or (tag.host in dead if tag.alive is None else not tag.alive)


def leftovers(session: Any, ref: VmRef, folder: str, dead: Collection[str] = ()) -> bool:
    """Whether there are snapshots of killed runs, which C(frozen) removes."""
    there = snapshot_tree.ours(session, ref, purpose="copy")
    return any(_left_behind(s, folder, dead) for s in there if s.tag is not None and s.tag.alive is not True)


@contextlib.contextmanager
def frozen(
    session: Any,
    ref: VmRef,
    vm: Mapping[str, Any],
    progress: Progress,
    *,
    named: str | None,
    quiesce: str,
    folder: str,
    reuse: Sequence[str] = (),
    dead: Collection[str] = (),
    bad_builds: Sequence[str] = (),
    timeout: float = snapshot_removal.REMOVE_TIMEOUT,
) -> Iterator[Moment]:
    """The disks of the VM at a snapshot: the one C(named), or one of our own for the time of the block.

    :param reuse: MoRefs of snapshots that interrupted copies without tracking were reading: the one that is still there is gone on with.
    :param dead: names of other machines whose copy of this VM is over for certain, because their targets' leases are ours now.
    :param bad_builds: further ESXi builds whose changed areas are distrusted.
    :param timeout: seconds for the removal and its consolidation.
    """
    label = vm["name"]
    if named is not None:
        theirs = snapshot_tree.find(session, ref, named)
        yield Moment(session, ref, vm, theirs, snapshot_tree.disks_at(session, ref, theirs))
        return

    def told(phase: str) -> Any:
        def percent(done: int) -> None:
            progress.update(label, phase, done, 100)
            progress.check()

        return percent

    with vm_lock(folder, vm):
        removed: list[str] = []
        again: snapshot_tree.Snapshot | None = None
        remarks: list[str] = []
        for old in snapshot_tree.ours(session, ref, purpose="copy"):
            if not _left_behind(old, folder, dead):
                remarks.append(
                    f"the snapshot {old.name} is of {old.tag.owner if old.tag else 'an unknown run'}, which may still be at work; left alone"
                )
                continue
            if again is None and old.moref in reuse:
                again = old
                continue
            progress.update(label, "consolidate", 0, 100)
            snapshot_removal.remove(session, old, timeout=timeout, progress=told("consolidate"))
            removed.append(old.name)
        progress.update(label, "snapshot", 0, 100)
        snapshot: snapshot_tree.Snapshot | None = again
        try:
            while snapshot is None:
                snapshot = snapshots.take(session, ref, quiesce=quiesce, folder=folder, progress=told("snapshot"), stop=progress.check)
                there = steadily(lambda: snapshot_tree.ours(session, ref, purpose="copy"), stop=progress.check)
                late = [s for s in there if s.moref != snapshot.moref and _left_behind(s, folder, dead)]
                if late:
                    # Asked for by a killed run, and made only now, below ours: it cannot go while ours is read.
                    for old in (snapshot, *late):
                        snapshot_removal.remove(session, old, timeout=timeout, progress=told("consolidate"))
                    removed += [s.name for s in late]
                    snapshot = None
            taken = snapshot
            disks = steadily(lambda: snapshot_tree.disks_at(session, ref, taken), stop=progress.check)
            found = Moment(session, ref, vm, snapshot, disks)
            found.foreign -= len(removed) + (again is not None)
            found.remarks += remarks
            found.bad_builds, found.stop = bad_builds, progress.check
            if removed:
                found.remarks.append("removed what a killed run had left: " + ", ".join(removed))
            if snapshot.remark:
                found.remarks.append(snapshot.remark)
            yield found
        except BaseException as e:
            if snapshot is None:
                raise
            hurry = isinstance(e, (Interrupted, KeyboardInterrupt))
            left = f"the snapshot {snapshot.name} ({snapshot.moref}) of the VM; the next run removes it"
            try:
                snapshot_removal.remove(session, snapshot, timeout=_HURRY if hurry else timeout, stop=None if hurry else progress.check)
            except FerryError:
                if isinstance(e, FerryError):
                    e.add(left=left)
            raise
        progress.update(label, "consolidate", 0, 100)
        snapshot_removal.remove(session, snapshot, timeout=timeout, progress=told("consolidate"))
        progress.finish(label)
