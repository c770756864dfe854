# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One question: which areas of a VM's disks have changed. From finding the disks to removing the snapshot, in one call."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

from ..disk import areas as areas_files
from ..disk.changes import ChangeId
from ..errors import BadInput, FerryError
from . import cbt, changes, snapshots
from .client import Session
from .disks import VmDisk, find_disk
from .find import VmRef
from .snapshots import KEPT, Snapshot

#: More areas than this are not put into the result.
MOST_SHOWN = 10_000

_STEP = "query the changed areas"


@dataclass(frozen=True)
class Query:
    """What is asked. C(change_id): one for all disks, or by disk. C(start): bytes. C(timeout): seconds for the snapshot's removal."""

    disk: str | None = None
    snapshot: str | None = None
    keep_snapshot: bool = False
    quiesce: str = "never"
    change_id: str | Mapping[str, str] = changes.EVERYTHING
    start: int = 0
    dest: str | None = None
    form: str = "jsonl"
    timeout: float = snapshots.REMOVE_TIMEOUT


def dest_of(dest: str, disk: VmDisk, several: bool) -> str:
    """The file for one disk: C(dest), or with several disks C(dest) with the disk's key before its extension."""
    if not several:
        return dest
    stem, extension = os.path.splitext(dest)
    return f"{stem}-{disk.key}{extension}"


def choose(disks: Sequence[VmDisk], query: Query, vm: str) -> list[tuple[VmDisk, str]]:
    """The disks that are asked about, each with its changeId.

    :raises BadInput: no such disk; one changeId for several disks, which have one each; a start beyond the disk.
    """
    if isinstance(query.change_id, str):
        chosen = list(disks) if query.disk is None else [find_disk(disks, query.disk, vm)]
        if query.change_id != changes.EVERYTHING and len(chosen) > 1:
            raise BadInput(
                "A changeId belongs to one disk, and the VM has several: name the disk, or give a changeId for each.",
                vm=vm,
                step=_STEP,
                said=", ".join(f"{d.label} (key {d.key})" for d in chosen),
            )
        found = [(d, query.change_id) for d in chosen]
    else:
        if query.disk is not None:
            raise BadInput("Give disk, or a changeId by disk, not both.", vm=vm, step=_STEP)
        found = [(find_disk(disks, name, vm), str(change_id)) for name, change_id in query.change_id.items()]
        if len({d.key for d, _id in found}) != len(found):
            raise BadInput("The same disk is named twice.", vm=vm, step=_STEP)
    if not found:
        raise BadInput("The VM has no disk.", vm=vm, step=_STEP)
    for disk, change_id in found:
        if change_id != changes.EVERYTHING and ChangeId.parse(change_id) is None:
            raise BadInput(f"{change_id!r} is no changeId, nor '*'.", vm=vm, disk=disk.label, step=_STEP)
        if not 0 <= query.start < max(disk.capacity, 1):
            raise BadInput(f"start_offset is outside the disk of {disk.capacity} bytes.", vm=vm, disk=disk.label, step=_STEP)
    return found


def check_tracked(facts: cbt.Facts, chosen: Sequence[tuple[VmDisk, str]], vm: str) -> None:
    """Refuse, before anything is done, disks that are not tracked.

    :raises BadInput: code not_tracked.
    """
    missing = [d for d, _id in chosen if not facts.configured(d)]
    if missing:
        raise BadInput(
            "Changes are not tracked for " + ", ".join(f"{d.label} ({d.address})" for d in missing) + ".",
            code="not_tracked",
            vm=vm,
            disk=missing[0].label,
            step=_STEP,
            next_command="switch it on with ferry.vmware.vm_cbt; changes before that cannot be asked for",
        )


def run(session: Session, vm: VmRef, query: Query, *, check: bool = False, progress: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Ask, and return the result of vm_cbt_changed_areas.

    A snapshot is taken where none is named, and removed again, also on failure, unless it is to be kept.
    """
    facts = cbt.read(session, vm)
    chosen = choose(facts.disks, query, vm.name)
    check_tracked(facts, chosen, vm.name)
    if query.dest:
        for disk, _id in chosen:
            areas_files.check_place(dest_of(query.dest, disk, len(chosen) > 1))
    named = snapshots.find(session, vm, query.snapshot) if query.snapshot else None
    leftovers = snapshots.left_behind(session, vm, purposes=cbt.SHORT_LIVED) if any(s.tag for s in facts.snapshots) else []
    leftovers = [s for s in leftovers if named is None or s.moref != named.moref]
    result: dict[str, Any] = {"changed": bool(leftovers), "removed_snapshots": [s.name for s in leftovers]}
    if check and named is None:
        result["snapshot"] = None
        result["disks"] = [_row(d, None, query, 0) for d, _id in chosen]
        result["would"] = "take a snapshot of the VM, ask for the areas, and " + ("keep it" if query.keep_snapshot else "remove it again")
        result["changed"] = bool(leftovers) or query.keep_snapshot
        return result
    for old in [] if check else leftovers:
        snapshots.remove(session, old, timeout=query.timeout, progress=progress)
    with contextlib.ExitStack() as stack:
        if named is None:
            snapshot = stack.enter_context(
                snapshots.taken(
                    session,
                    vm,
                    quiesce=query.quiesce,
                    purpose=KEPT if query.keep_snapshot else "areas",
                    keep=query.keep_snapshot,
                    timeout=query.timeout,
                    progress=progress,
                )
            )
            result["changed"] |= query.keep_snapshot
        else:
            snapshot = named
        rows, written = _ask(session, vm, snapshot, [(d.key, change_id) for d, change_id in chosen], query, check)
    if named is None:
        # one that a run killed a moment ago had still asked for comes to light only now
        late = snapshots.sweep(session, vm, purposes=cbt.SHORT_LIVED, timeout=query.timeout, progress=progress)
        result["removed_snapshots"] += late
        result["changed"] |= bool(late)
    result["snapshot"] = {**snapshot.as_dict(), "taken": named is None, "kept": named is not None or query.keep_snapshot}
    result["disks"] = rows
    result["changed"] |= written
    return result


def _ask(
    session: Session, vm: VmRef, snapshot: Snapshot, chosen: Sequence[tuple[int, str]], query: Query, check: bool
) -> tuple[list[dict[str, Any]], bool]:
    """Rows of the disks C(chosen) (key, changeId), and whether a file was written."""
    frozen = {d.key: d for d in snapshots.disks_at(session, vm, snapshot)}
    rows, written = [], False
    with contextlib.ExitStack() as stack:
        files = []
        for key, change_id in chosen:
            disk = frozen.get(key)
            if disk is None:
                raise BadInput("The snapshot does not hold this disk.", vm=vm.name, disk=str(key), step=_STEP, said=snapshot.name)
            file = None
            if query.dest and not check:
                file = stack.enter_context(areas_files.AreasFile(dest_of(query.dest, disk, len(chosen) > 1), query.form))
                files.append(file)
            try:
                rows.append(_one(session, vm, snapshot, disk, change_id, query, file))
            except FerryError as e:
                e.disk = disk.label
                if e.details.get("fault") == "FileFault" and change_id != changes.EVERYTHING:
                    e.next_command = (
                        e.next_command or "the changeId is not known any more (tracking was reset): read the whole disk, with '*'"
                    )
                raise
        # all or none: a file of one disk beside an old one of another would be taken for the same moment
        for file in files:
            written |= file.replace()
    return rows, written


def _row(disk: VmDisk, change_id: str | None, query: Query, count: int) -> dict[str, Any]:
    return {
        "key": disk.key,
        "label": disk.label,
        "capacity": disk.capacity,
        "change_id": change_id,
        "start_offset": query.start,
        "length": disk.capacity - query.start,
        "area_count": count,
        "changed_bytes": 0,
    }


def _one(
    session: Session,
    vm: VmRef,
    snapshot: Snapshot,
    disk: VmDisk,
    change_id: str,
    query: Query,
    file: areas_files.AreasFile | None,
) -> dict[str, Any]:
    found = changes.changed_areas(session, vm, snapshot, disk.key, change_id, disk.capacity, query.start)
    count = total = 0
    shown: list[dict[str, int]] = []
    for start, length in found if file is None else file.passing(found):
        count += 1
        total += length
        if count <= MOST_SHOWN:
            shown.append({"start": start, "length": length})
    row = _row(disk, disk.change_id, query, count)
    row["changed_bytes"] = total
    if count <= MOST_SHOWN:
        row["areas"] = shown
    if file is not None:
        row["dest"] = file.path
    return row
