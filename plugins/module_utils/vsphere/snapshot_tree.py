# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The snapshots a VM has: all of them, ours by their tag, one by name, and the disks that one has frozen.

Vendor reference: vSphere Web Services API, VirtualMachineSnapshotTree and VirtualMachineSnapshot.config.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any, Sequence

from ..errors import BadInput, ServerError, bounded
from . import guest, snapshot_tag
from .client import Session
from .disks import VmDisk, map_disks
from .find import VmRef
from .properties import moref_of, of_objects
from .snapshot_tag import KEPT, Tag
from .tree import shown

#: Seconds after which a snapshot of a process on another machine counts as left behind, where nobody can say otherwise.
FOREIGN_STALE = 3600.0


@dataclass(frozen=True)
class Snapshot:
    """A snapshot. C(remark): what the user should know of how it was taken. C(tag): None where it is not ours.

    C(created): ISO 8601, UTC, by the server's clock. C(depth): snapshots above it in the tree.
    """

    moref: str
    name: str
    quiesced: bool
    remark: str | None = None
    tag: Tag | None = None
    created: str | None = None
    depth: int = 0
    vm: VmRef | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        return {"moref": self.moref, "name": self.name, "quiesced": self.quiesced, "created": self.created, "remark": self.remark}


def tree_of(vm: VmRef, snapshot_info: Any) -> list[Snapshot]:
    """The snapshots in a VM's property C(snapshot), parents before children."""
    found: list[Snapshot] = []
    waiting = [(s, 0) for s in reversed(list(getattr(snapshot_info, "rootSnapshotList", None) or ()))]
    while waiting:
        node, depth = waiting.pop()
        created = node.createTime
        found.append(
            Snapshot(
                moref=moref_of(node.snapshot),
                name=shown(str(node.name)),
                quiesced=bool(node.quiesced),
                tag=snapshot_tag.parse(node.description),
                created=created.astimezone(datetime.timezone.utc).isoformat() if created is not None else None,
                depth=depth,
                vm=vm,
            )
        )
        waiting += [(s, depth + 1) for s in reversed(list(node.childSnapshotList or ()))]
    return found


def every(session: Session, vm: VmRef) -> list[Snapshot]:
    """All snapshots of C(vm), parents before children."""
    rows = of_objects(session, [vm.ref], {"VirtualMachine": ("snapshot",)}, step="read the snapshots")
    return tree_of(vm, rows[0].props.get("snapshot")) if rows else []


def ours(session: Session, vm: VmRef, *, purpose: str | None = None) -> list[Snapshot]:
    """The snapshots of C(vm) that carry our tag, children before parents: the order in which they are to be removed.

    :param purpose: only those; without it all but the ones that the user asked to keep.
    """
    found = [s for s in every(session, vm) if s.tag is not None and (s.tag.purpose == purpose if purpose else s.tag.purpose != KEPT)]
    return found[::-1]


def is_left_behind(snapshot: Snapshot, now: datetime.datetime) -> bool:
    """Whether the run that took C(snapshot) is over: its process is gone, or it ran elsewhere and the snapshot is older than
    FOREIGN_STALE seconds at C(now), the server's time. A copy's snapshots are the copy's own to judge: see its ledger."""
    tag = snapshot.tag
    if tag is None or tag.purpose == KEPT:
        return False
    alive = tag.alive
    if alive is not None:
        return not alive
    if snapshot.created is None:
        return False
    return (now - datetime.datetime.fromisoformat(snapshot.created)).total_seconds() > FOREIGN_STALE


def left_behind(session: Session, vm: VmRef, *, purposes: Sequence[str]) -> list[Snapshot]:
    """Those of ours(), of C(purposes), that a killed run left."""
    found = [s for s in ours(session, vm) if s.tag is not None and s.tag.purpose in purposes]
    return [s for s in found if is_left_behind(s, server_time(session))] if found else []


def server_time(session: Session) -> datetime.datetime:
    """The server's clock (ServiceInstance.CurrentTime)."""
    instance = session.vim.ServiceInstance("ServiceInstance", session.stub)
    now: datetime.datetime = session.call(instance.CurrentTime, step="read the server's clock", again=True)
    return now if now.tzinfo else now.replace(tzinfo=datetime.timezone.utc)


def find(session: Session, vm: VmRef, wanted: str) -> Snapshot:
    """The one snapshot of C(vm) that C(wanted) names: its name or its MoRef (snapshot-42).

    :raises BadInput: none or several; the message lists those there are.
    """
    step = "find the snapshot"
    there = every(session, vm)
    found = [s for s in there if s.moref == wanted] or [s for s in there if s.name == wanted]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(f"{s.name} ({s.moref}, {s.created})" for s in (found or there)[:20]) or "none at all"
    what = f"{len(found)} snapshots answer to" if found else "No snapshot answers to"
    raise BadInput(f"{what} {bounded(wanted, 120)}. There are: {listed}.", vm=vm.name, step=step)


def disks_at(session: Session, vm: VmRef, snapshot: Snapshot) -> list[VmDisk]:
    """The disks as they stand in the configuration of C(snapshot): key, capacity, change_id and the frozen chain.

    Never from the VM's own configuration: its capacity and changeId may have gone on since.
    """
    step = "read the snapshot's disks"
    ref = session.managed("VirtualMachineSnapshot", snapshot.moref)
    rows = of_objects(session, [ref], {"VirtualMachineSnapshot": ("config.hardware.device",)}, step=step)
    if not rows:
        raise ServerError("The snapshot is gone.", code="snapshot_gone", vm=vm.name, step=step, said=f"{snapshot.name} ({snapshot.moref})")
    devices = list(rows[0].props.get("config.hardware.device") or ())
    facts = guest.read_vms(session, [vm])
    if not facts:
        raise BadInput("The VM is gone from vCenter.", vm=vm.name, step=step)
    names: dict[str, tuple[str | None, str | None]] = {d.datastore_moref: (d.datastore, d.datastore_type) for d in facts[0]["disks"]}
    refs = {moref_of(d.backing.datastore): d.backing.datastore for d in devices if getattr(getattr(d, "backing", None), "datastore", None)}
    unknown = [ref for moref, ref in refs.items() if moref not in names]
    if unknown:
        for row in of_objects(session, unknown, {"Datastore": ("name", "summary.type")}, step=step):
            names[row.moref] = shown(str(row.props.get("name", ""))), row.props.get("summary.type")
    return map_disks(devices, lambda moref: names.get(moref, (None, None)), facts[0]["datacenter"])
