# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copying the disks of a VM, or one file or export, to where they will live: what vm_disk_copy does, free of Ansible.

A VM that is off is read as it stands; one that runs, or whose changes since the last copy are tracked, is read at a snapshot
(moment.py). Targets are opened first: no snapshot is taken for a target that cannot be written.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Callable, Iterator, Mapping, Sequence

from ..disk import budget as budgets
from ..disk import copy as engine
from ..disk.changes import Tracking
from ..disk.model import Source
from ..disk.progress import Progress
from ..errors import BadInput, FerryError
from ..long_task import progress_from
from ..vsphere import client as vsphere_client
from ..vsphere import find, guest
from . import lasting, throughput, ways
from . import moment as moments
from .image_copy import ImageCopy
from .moment import Moment, frozen
from .opener import Opener, lacks_nbd, open_file, open_nbd
from .predict import already, plain_sha256, predict
from .targets import Target, Targets, state_dir, state_of
from .wanted import Wanted, naming, of_source, of_vm

#: Share (percent) of the chunks outside the changed areas that the last copy of a VM compares, unless it is told otherwise.
OUTSIDE_AT_CUTOVER = 1.0

_STARTED = "the VM was not off at the end: this copy is not taken for its last state"


def run(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Copy the disks that C(params) (the options of vm_disk_copy) name. See the module for options and results.

    :raises FerryError: with the VM, the disk and the step; what was copied stays in the ledger and is used again.
    """
    with contextlib.ExitStack() as stack:
        progress = progress_from(params, name=str(params.get("vm") or params.get("source")))
        if not check:
            stack.enter_context(progress)
            progress.install_signals()
        vm: dict[str, Any] | None = None
        try:
            lasting.insist(state_dir(params.get("ledger")))
            if not params.get("vm"):
                return _FileCopy(params, stack, progress).run(of_source(params["source"], params["disks"]), check)
            session = vsphere_client.connect(params)
            stack.callback(session.close)
            ref = find.find_vm(session, params["vm"])
            vm = guest.read_vms(session, [ref])[0]
            progress.name = vm["name"]
            return _VmCopy(params, stack, progress, session, ref, vm).run(of_vm(vm, params["disks"]), check)
        except FerryError as e:
            e.add(vm=vm["name"] if vm else params.get("vm"))
            raise


@dataclass(frozen=True, eq=False)
class Task:
    """One disk on its way. C(way): the transport. C(host), C(datastore): whose budgets its reading counts to."""

    target: Target
    job: engine.Job
    way: str
    host: str | None = None
    datastore: str | None = None


class _NoPlace(Exception):
    """The budget has no place for a further disk now."""


def _no_place() -> None:
    raise _NoPlace


class _Copy:
    """What copies of VMs and of files have in common."""

    def __init__(self, params: Mapping[str, Any], stack: contextlib.ExitStack, progress: Progress, source_id: str) -> None:
        self.params = params
        self.stack = stack
        self.progress = progress
        self.targets = Targets(params, stack, progress, source_id)
        budgets.checked(params.get("budget"))

    @cached_property
    def budget(self) -> budgets.Budget:
        """The budget of this machine, with what was asked for now; first used when something is about to be read."""
        if self.params.get("budget"):
            budgets.save(self.targets.folder, self.params["budget"])
        return budgets.Budget(self.targets.folder)

    def _copy(self, jobs: Sequence[Task]) -> list[dict[str, Any]]:
        """Run the jobs; a row for each, in their order."""
        outside = self.params.get("outside_sample")
        share = (self._outside(jobs) if outside is None else float(outside)) / 100
        try:
            for group in self._groups(jobs):
                for task in group:
                    self.targets.begin(task.target)
                began = time.monotonic()
                engine.run(
                    [task.job for task in group],
                    workers=self.params["workers"],
                    verify=self.params["verify"],
                    outside=share,
                    watcher=self.progress,
                    guard=self.targets.still_ours,
                )
                throughput.measured(throughput.place(self.params.get("ledger")), group, time.monotonic() - began)
        except FerryError as e:
            e.partial = {"changed": True, "disks": [self._row(t.target.wanted, t.job.result.as_dict(), t.way, t.target) for t in jobs]}
            raise
        return [self._row(t.target.wanted, t.job.result.as_dict(), t.way, t.target) for t in jobs]

    def _groups(self, jobs: Sequence[Task]) -> Iterator[list[Task]]:
        """The jobs, as many at once as the budget has places for: all of them where it counts none."""
        left = list(jobs)
        while left:
            group: list[Task] = []
            with contextlib.ExitStack() as held:
                for task in left:
                    # The first waits; a further one that finds no place waits for this group to end, not for itself.
                    stop = _no_place if group else self.progress.check
                    with contextlib.suppress(_NoPlace):
                        held.enter_context(self.budget.slot(host=task.host, datastore=task.datastore, stop=stop))
                        group.append(task)
                left = [task for task in left if task not in group]
                yield group

    def _outside(self, jobs: Sequence[Task]) -> float:
        return 0.0

    def _image(self, w: Wanted, way: ways.Way, vm: Mapping[str, Any] | None = None) -> ImageCopy | None:
        """What sends C(w) to Glance, where that is its target."""
        if not w.dest.get("image"):
            return None
        return ImageCopy(w, way, self.params, lambda: self.targets.conn, self.progress, source_id=self.targets.source_id, vm=vm)

    def _send(self, image: ImageCopy, source: Source, host: str | None = None, datastore: str | None = None) -> dict[str, Any]:
        """Send one disk to Glance; its row."""
        throttle = self.budget.throttle(host=host, datastore=datastore, stop=self.progress.check)
        with self.budget.slot(host=host, datastore=datastore, stop=self.progress.check):
            return self._row(image.wanted, image.send(source, throttle), image.way.name, None)

    def _row(self, w: Wanted, row: dict[str, Any], way: str, target: Target | None) -> dict[str, Any]:
        row["key"] = w.key
        row["dest"] = {k: v for k, v in w.dest.items() if v}
        row["transport"] = way
        row.setdefault("change_id", None)
        if target is not None and target.adopted:
            row["adopted"] = target.adopted
        if target is not None and target.tail_cleared:
            row["tail_cleared"] = target.tail_cleared
        if target is not None and row.get("digest") and self.params.get("checksum") == "sha256":
            row["sha256"] = plain_sha256(target.sink, w.capacity, self.progress, w.label)
        return row


class _FileCopy(_Copy):
    """A local file, or any NBD export."""

    def __init__(self, params: Mapping[str, Any], stack: contextlib.ExitStack, progress: Progress) -> None:
        super().__init__(params, stack, progress, "")

    def run(self, w: Wanted, check: bool) -> dict[str, Any]:
        if self.params.get("snapshot"):
            raise BadInput("A snapshot belongs to a VM: snapshot needs vm.", step="read the options")
        try:
            way = "nbd" if w.nbd else "file"
            if self.params["transport"] not in ("auto", way):
                raise BadInput(f"This source is read by {way}: transport is {way} or auto.", step="read the options")
            source = open_nbd(w.nbd, self.params, self.progress) if w.nbd else open_file(w.key)
            self.stack.callback(source.close)
            w = w.sized(source.capacity)
            image = self._image(w, ways.Way(way, "it is what source names"))
            known, status = self.targets.said_by_volume(w)
            row = image.already(source, check=check) if image else already(w, known, status, self.params, source)
            if row is None and check:
                row = image.predict(source) if image else predict(w, source, self.targets.ledger_path(w), self.params)
            if row is None and image:
                row = self._send(image, source)
                image.commit(source)
            if row is not None:
                row = self._row(w, row, way, None)
                return {"changed": row["changed"], "disks": [row]}
            (target,) = self.targets.open_all([(w, known)])
            throttle = self.budget.throttle(host=None, datastore=None, stop=self.progress.check)
            job = engine.Job(
                w.label, source, target.sink, target.ledger, unit=self.params["chunk_size"], throttle=throttle, mode=self.params["mode"]
            )
            row = self._copy([Task(target, job, way)])[0]
            self.targets.commit(target, digest=job.result.digest, change_id=None, final=state_of(source))
        except FerryError as e:
            e.add(disk=w.label)
            raise
        return {"changed": row["changed"], "disks": [row]}


class _Job(engine.Job):
    """A job that keeps in the ledger at which snapshot its disk is read: by the names of the disk's files, and by the snapshot's
    time, a later run sees that the VM was reverted in between."""

    at: Mapping[str, Any] = {}
    begun: Callable[[str], None] | None = None

    def prepare(self) -> bool:
        todo = super().prepare()
        # Only now, after what is to be done stands in the ledger: a kill in between finds the old facts, and distrusts again.
        self.ledger.set(**self.at)
        if todo and self.begun is not None:
            self.begun(self.result.mode)
        return todo

    def doubted(self) -> None:
        if self.begun is not None:
            self.begun("compare")


class _VmCopy(_Copy):
    """Disks of a VM."""

    def __init__(
        self, params: Mapping[str, Any], stack: contextlib.ExitStack, progress: Progress, session: Any, ref: find.VmRef, vm: dict[str, Any]
    ) -> None:
        super().__init__(params, stack, progress, str(vm["instance_uuid"] or vm["moref"]))
        self.session = session
        self.ref = ref
        self.vm = vm
        self.off = vm["power"] == "off"
        self.opener = Opener(session, ref, vm, params, stack, progress)

    def run(self, wanted: list[Wanted], check: bool) -> dict[str, Any]:
        rows: dict[str, dict[str, Any]] = {}
        left: list[tuple[Wanted, ways.Way, Mapping[str, str]]] = []
        images: list[ImageCopy] = []
        as_it_is: dict[str, Source] = {}
        remarks: list[str] = []
        for w in wanted:
            with naming(w):
                disk = _facts(w)
                nbd = bool(w.nbd or self.params.get("vddk"))
                way = ways.choose(self.params["transport"], disk, nbd=nbd, lacks=partial(lacks_nbd, vddk=not w.nbd))
                if way.remark:
                    remarks.append(f"{w.label}: {way.remark}")
                image = self._image(w, way, self.vm)
                known, status = self.targets.said_by_volume(w)
                row = None
                if self.off and self.params.get("snapshot") is None and way.name == "https" and (check or not self._leftovers()):
                    as_it_is[w.key] = self.opener.https(disk)
                    if image:
                        row = image.already(as_it_is[w.key], check=check)
                    else:
                        row = already(w, known, status, self.params, as_it_is[w.key])
                    if row is None and not image and self._unchanged(w, as_it_is[w.key]):
                        row = predict(w, as_it_is[w.key], self.targets.ledger_path(w), self.params)
                if row is None and image and check:
                    row = image.predict(as_it_is.get(w.key))
                if row is not None:
                    rows[w.key] = self._row(w, row, way.name, None)
                elif image:
                    images.append(image)
                else:
                    left.append((w, way, known))
        if left and check:
            for w, way, _said in left:
                with naming(w):
                    row = predict(w, as_it_is.get(w.key), self.targets.ledger_path(w), self.params)
                    rows[w.key] = self._row(w, row, way.name, None)
        elif left or images:
            targets = self.targets.open_all([(w, said) for w, _way, said in left])
            opened = [(target, way) for target, (_w, way, _said) in zip(targets, left, strict=True)]
            remarks += self._copy_all(opened, images, as_it_is, rows)
        found = [rows[w.key] for w in wanted]
        return {"changed": any(r["changed"] for r in found), "disks": found, "remarks": remarks}

    def _unchanged(self, w: Wanted, source: Source) -> bool:
        """Whether the ledger says that the target holds this very state: then no snapshot is needed to find that out."""
        if self.params["verify"] == "full" or self.params["mode"] == "full" or w.dest.get("volume"):
            return False
        row = predict(w, source, self.targets.ledger_path(w), self.params)
        return not row["changed"]

    def _leftovers(self) -> bool:
        """Whether killed runs have left snapshots, which this one removes."""
        return bool(self.vm["snapshots"]) and moments.leftovers(self.session, self.ref, self.targets.folder, self.targets.dead)

    def _needs_snapshot(self, opened: Sequence[tuple[Target, ways.Way]]) -> bool:
        if not self.off or self.params.get("snapshot") is not None:
            return True
        # Off, but copied before with its changes tracked: the areas since then can be asked for at a snapshot. It also keeps the
        # bytes still where somebody powers the VM on in the middle. And what a killed run has left is removed on that way.
        return self._leftovers() or bool(self.vm["change_tracking"]) and any(t.ledger.fact("planned") for t, _way in opened)

    def _copy_all(
        self,
        opened: list[tuple[Target, ways.Way]],
        images: Sequence[ImageCopy],
        as_it_is: Mapping[str, Source],
        rows: dict[str, dict[str, Any]],
    ) -> list[str]:
        if not self._needs_snapshot(opened):
            jobs = []
            here = self._as_it_is() if self.vm["change_tracking"] else None
            for target, way in opened:
                source = as_it_is.get(target.wanted.key) or self.opener.open(way, target.wanted, _facts(target.wanted), None)
                jobs.append(self._task(target, source, None, way))
                if here is not None:
                    jobs[-1].job.hint = here.allocated(_facts(target.wanted))
            done_rows = self._copy(jobs)
            sent = self._send_all(images, lambda w, way: as_it_is.get(w.key) or self.opener.open(way, w, _facts(w), None), done_rows, rows)
            stayed = self._off_still()
            for task, row in zip(jobs, done_rows, strict=True):
                rows[task.target.wanted.key] = row
                state = state_of(task.job.source) if stayed else None
                self.targets.commit(task.target, digest=task.job.result.digest, change_id=None, final=state)
            if not stayed:
                for error in [e for image, _source in sent if (e := image.withdraw()) is not None][:1]:
                    raise error
            for image, source in sent:
                image.commit(source if stayed else None)
            return [] if stayed else [_STARTED]
        if self.vm["power"] == "suspended":
            raise BadInput("The VM is suspended: what its memory holds is not on its disks.", code="vm_suspended", step="look at the VM")
        reading = [t.ledger.fact("snapshot") for t, _way in opened if t.ledger.fact("state") == "copying"]
        with frozen(
            self.session,
            self.ref,
            self.vm,
            self.progress,
            named=self.params.get("snapshot"),
            quiesce=self.params["quiesce"],
            folder=self.targets.folder,
            # Of a VM that is off the last state is wanted, not that of a while ago.
            reuse=[str(r) for r in reading if r] if not self.vm["change_tracking"] and not self.off else (),
            dead=self.targets.dead,
            bad_builds=self.params.get("bad_builds") or (),
        ) as moment:
            done = False
            try:
                jobs = [self._job_at(moment, target, way) for target, way in opened]
                found = self._copy(jobs)
                sent = self._send_all(images, partial(self._source_at, moment), found, rows)
                done = True
            finally:
                self.opener.let_go(done=done)
        final = self.off and self.params.get("snapshot") is None
        if final and not self._off_still():
            final = False
            moment.remarks.append(_STARTED)
        for task, row in zip(jobs, found, strict=True):
            target = task.target
            rows[target.wanted.key] = row
            state = None
            if final:
                state = self._still(target, as_it_is.get(target.wanted.key)) or state_of(task.job.source)
            self.targets.commit(target, digest=task.job.result.digest, change_id=row["change_id"], final=state)
        for image, _source in sent:
            image.commit(None)  # of what was read at a snapshot, the next run compares the digest
        return moment.remarks

    def _send_all(
        self,
        images: Sequence[ImageCopy],
        opened: Callable[[Wanted, ways.Way], Source],
        others: Sequence[dict[str, Any]],
        rows: dict[str, dict[str, Any]],
    ) -> list[tuple[ImageCopy, Source]]:
        """Send the images, one after another; each with the source that it was read from.

        :param others: the rows of the disks that are copied already, for the error of one that cannot be sent.
        :param rows: gets each image's row, by the disk's key.
        """
        sent: list[tuple[ImageCopy, Source]] = []
        for image in images:
            w = image.wanted
            with naming(w):
                try:
                    source = opened(w, image.way)
                    rows[w.key] = self._send(image, source, self.vm["host"], _facts(w).datastore)
                except FerryError as e:
                    e.partial = {"changed": bool(others or sent), "disks": [*others, *(rows[i.wanted.key] for i, _source in sent)]}
                    raise
                sent.append((image, source))
        return sent

    def _as_it_is(self) -> Moment:
        """The VM that is off, without a snapshot of ours."""
        found = Moment(self.session, self.ref, self.vm, None, ())
        found.bad_builds, found.stop = self.params.get("bad_builds") or (), self.progress.check
        return found

    def _source_at(self, moment: Moment, w: Wanted, way: ways.Way) -> Source:
        return self.opener.open(way, w, self._disk_at(moment, w), moment)

    @staticmethod
    def _disk_at(moment: Moment, w: Wanted) -> Any:
        """The disk as the snapshot has it."""
        disk = moment.disk(_facts(w))
        if disk.capacity != w.capacity:
            raise BadInput(
                f"The disk had {disk.capacity} bytes when the snapshot was taken, now it has {w.capacity}.",
                code="resized",
                step="read the snapshot's disks",
                next_command="take a new snapshot, or leave the option snapshot out",
            )
        return disk

    def _job_at(self, moment: Moment, target: Target, way: ways.Way) -> Task:
        w = target.wanted
        with naming(w):
            disk = self._disk_at(moment, w)
            distrusted = _reverted(target.ledger.fact("chain"), disk.chain) or target.ledger.fact("bad_build")
            tracking = moment.tracking(disk, distrusted, target.ledger.fact("taken"))
            source = self.opener.open(way, w, disk, moment)
            at: dict[str, Any] = {}
            if moment.snapshot is not None:
                at = {"chain": chain_digest(disk.chain), "taken": moment.snapshot.created, "snapshot": moment.snapshot.moref}
                at["bad_build"] = moment.bad_build(disk)
            task = self._task(target, source, tracking, way, at)
            # The times of files that a running VM writes need not move with its writes (VMFS); only a snapshot stands still.
            task.job.certain = self.off or target.ledger.fact("snapshot") == at.get("snapshot")
            return task

    def _task(self, target: Target, source: Source, tracking: Tracking | None, way: ways.Way, at: Mapping[str, Any] | None = None) -> Task:
        host, datastore = self.vm["host"], _facts(target.wanted).datastore
        job = _Job(
            target.wanted.label,
            source,
            target.sink,
            target.ledger,
            unit=self.params["chunk_size"],
            tracking=tracking,
            throttle=self.budget.throttle(host=host, datastore=datastore, stop=self.progress.check),
            mode=self.params["mode"],
        )
        job.at = at or {}
        job.begun = partial(self.targets.begun, target)
        return Task(target, job, way.name, host, datastore)

    def _outside(self, jobs: Sequence[Task]) -> float:
        """At the last copy, and where what is allocated was taken from a hint, a sample of the rest is compared."""
        hinted = any(t.job.tracking and t.job.tracking.allocated and not t.target.ledger.fact("planned") for t in jobs)
        return OUTSIDE_AT_CUTOVER if self.off or hinted else 0.0

    def _off_still(self) -> bool:
        """Whether the VM is off at the end too: what it writes once it runs again is not in the copy, which then is not its last."""
        try:
            return bool(guest.read_vms(self.session, [self.ref])[0]["power"] == "off")
        except FerryError:
            return False  # not known: the next run looks again, and copies what has changed

    def _still(self, target: Target, before: Source | None) -> str | None:
        """The state of the VM's disk without a snapshot, where it is what it was before ours: the next run then needs none."""
        if before is None:
            return None
        with contextlib.suppress(FerryError):
            vm = guest.read_vms(self.session, [self.ref])[0]
            disk = next((d for d in vm["disks"] if str(d.key) == target.wanted.key), None)
            if vm["power"] == "off" and disk is not None:
                now = self.opener.https(disk)
                if now.identity == before.identity:
                    target.ledger.set(source=now.identity)
                    return state_of(now)
        return None


def _facts(w: Wanted) -> Any:
    if w.facts is None:
        raise BadInput("Not a disk of a VM.", disk=w.label)
    return w.facts


def chain_digest(chain: Sequence[str]) -> str:
    """A short name for the files of a disk, from the running one down to the base."""
    return hashlib.sha256("\0".join(chain).encode()).hexdigest()[:32]


def _reverted(kept: str | None, now: Sequence[str]) -> str | None:
    """Why the files of the disk say that its history was changed; None where they are the old ones, or the old ones below new deltas."""
    if not kept or any(chain_digest(now[n:]) == kept for n in range(len(now))):
        return None
    return "The disk's files are others than at the last copy: the VM was reverted to a snapshot, or snapshots were removed."
