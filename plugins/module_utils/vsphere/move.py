# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moving a VM inside vSphere: plan, check, shut down where asked to, relocate, put back, boot; and say where it is whatever happens.

Vendor reference: vSphere Web Services API, VirtualMachine.RelocateVM_Task, Task.CancelTask, Folder.MoveIntoFolder_Task,
ResourcePool.MoveIntoResourcePool.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any, Callable, Mapping

from ..errors import BadInput, FerryError, ServerError
from . import source_state
from .client import Session
from .find import VmRef
from .move_checks import MIB, Check, Forbids
from .move_plan import Plan, WayKey, Wish, plan, stored_so, way_key
from .move_server import check_relocate, check_vmotion, not_possible
from .move_spec import Place, place_for, relocate_spec, with_checks
from .move_subject import Subject, read_subject
from .site import Site, read_site
from .steady import PATIENCE, Deadline, is_busy, steadily
from .tasks import wait_task

#: Custom attribute that says, while a VM is off for a move, that it is to be booted again.
MARK = "ferry.move"
MARK_SECONDS = 7 * 86400.0
#: The same where the guest was asked to shut down in vain, and how far the clocks of control nodes may be apart.
ASKED_SECONDS = 3600.0
CLOCK_SECONDS = 86400.0
#: Seconds that a canceled task has to end, and an operation of somebody else to let go of the VM.
CANCEL_TIMEOUT = 120.0
BUSY_PATIENCE = 60.0
LATER = Check("server.relocate", True, "asked once the VM is off: vCenter judges it as it is", skipped=True)
#: Ways that the server is asked about.
MOST_ASKED = 16

Told = Callable[[str], None]


def _quiet(text: str) -> None:
    return None


def mark_of(subject: Subject, now: Callable[[], float] = time.time) -> dict[str, Any]:
    """What an earlier run, which was killed while the VM was off for its move, has noted; empty where there was none, or long ago:
    a VM that somebody has left off since is not booted."""
    try:
        found = json.loads(subject.attributes.get(MARK, ""))
        age = now() - float(found["at"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return {}
    # a guest that was asked to go down and has not until now may do so late, but not days later
    limit = ASKED_SECONDS if found.get("asked") else MARK_SECONDS
    if not -CLOCK_SECONDS < age < limit or not isinstance(found.get("to"), (str, type(None))):
        return {}
    return dict(found)


def _summary(found: Plan, subject: Subject, after: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "method": found.method,
        "why": found.why,
        "before": subject.where(),
        "after": dict(after),
        "checks": [c.as_dict() for c in found.checks],
        "candidates": list(found.candidates),
        "methods": list(found.methods),
        "mb": -(-found.bytes // MIB),
    }


def _expected(subject: Subject, found: Plan, place: Place) -> dict[str, Any]:
    """What C(after) will be, as far as it can be told before."""
    after = subject.where()
    target = found.target
    if target is None:
        return after
    after.update(host=target.host.name, cluster=target.host.cluster_name, pool=place.pool)
    disks = []
    for row in after["disks"]:
        to = target.of_disk(row["key"])
        if to is not None:
            row = {**row, "datastore": to.name, "path": row["path"] if to.name == row["datastore"] else f"[{to.name}] ...",
                   "format": target.format or row["format"]}  # fmt: skip
        disks.append(row)
    after["disks"] = disks
    names = [d["datastore"] for d in disks]
    if target.datastore is not None and not target.disks:
        names = [target.datastore.name]
        if not subject.vmx_path.startswith(f"[{target.datastore.name}]"):
            after["vmx_path"] = f"[{target.datastore.name}] ..."
    elif subject.vmx_path:
        names.append(subject.vmx_path[1:].partition("] ")[0])
    after["datastores"] = sorted(set(names))
    after["nics"] = [{**n, "network": target.network_map.get(n["network"], n["network"])} for n in after["nics"]]
    return after


def _join(session: Session, subject: Subject, wish: Wish, told: Told) -> Subject:
    """Wait for a move of this VM that is under way already: of a run that was killed, or of somebody else."""
    if subject.moving is None:
        return subject
    told(f"{subject.vm.name}: a move is under way already, it is waited for")
    try:
        wait_task(session, subject.moving, vm=subject.vm.name, step="wait for the move under way", timeout=wish.timeout, patience=PATIENCE)
    except ServerError as e:
        if e.code != "task":
            raise
    return read_subject(session, subject.vm)


def _later(found: Plan, subject: Subject) -> bool:
    """Whether vCenter can be asked only once the VM is off: it judges the VM as it is."""
    return found.method == "move" and subject.power == "on"


def _planned(session: Session, subject: Subject, site: Site, wish: Wish, forbids: Forbids | None) -> tuple[Plan, Place, Any]:
    """The plan that the server has nothing against, its place in the trees and its RelocateSpec. What the server refuses is not taken
    and the next best thought of; the last plan, with its failed checks, where none is left."""
    refused: dict[WayKey, tuple[Check, ...]] = {}
    while True:
        found = plan(subject, site, wish, forbids, refused)
        target = found.target
        host = target.host if target is not None else site.hosts[subject.host or ""]
        place = place_for(session, subject, wish, host, site)
        if found.method == "none" or not found.fits or target is None:
            return found, place, None
        spec = relocate_spec(session, subject, site, target, place.pool)
        asked = [check_relocate(session, subject.vm.ref, spec) if not _later(found, subject) else LATER]
        if found.method == "hot" and stored_so(subject, target):  # the query knows nothing of files that come along
            asked.append(check_vmotion(session, subject.vm.ref, spec.host))
        against = tuple(c for c in asked if not c.passed)
        key = way_key(found.method, target)
        if not against or found.method == "storage" or key in refused or len(refused) >= MOST_ASKED:
            return with_checks(found, *asked), place, spec
        refused[key] = against


def move(
    session: Session,
    vm: VmRef,
    wish: Wish,
    *,
    check: bool = False,
    forbids: Callable[[Site], Forbids] | None = None,
    told: Told = _quiet,
) -> dict[str, Any]:
    """Bring C(vm) to where C(wish) wants it.

    :param forbids: gives, for the site that was read, what constraints say about hosts.
    :param told: gets sentences for people, as warnings.
    :returns: changed, method, why, before, after, checks, candidates, methods, mb, put_back. An error carries the same as C(partial).
    :raises ServerError: code checks_failed, or why the server refused; C(left) says where the VM is.
    """
    subject = read_subject(session, vm)
    if subject.moving is not None and not check:
        subject = _join(session, subject, wish, told)
    site = read_site(session, devices=False)
    mark = mark_of(subject)
    boots = mark.get("power") == "on" and subject.power == "off"
    if boots and wish.host is None and mark.get("to") in site.hosts:
        wish = replace(wish, host=str(mark["to"]))
    found, place, spec = _planned(session, subject, site, wish, forbids(site) if forbids is not None else None)
    placed = (place.pool, place.folder) == (subject.pool, subject.folder)
    result = {**_summary(found, subject, _expected(subject, found, place)), "put_back": [], "changed": found.method != "none" or not placed}
    result["changed"] = bool(result["changed"] or boots)
    if not found.fits:
        error = not_possible(vm.name, found.method, found.checks)
        error.partial = {**result, "changed": False, "after": subject.where()}
        raise error
    if check or not result["changed"]:
        if not check and subject.power == "on" and MARK in subject.attributes:
            # it runs again: a note that stays would boot it once more after somebody has switched it off
            source_state.apply(session, vm, source_state.Wanted(attributes={MARK: ""}))
        return result
    return _Run(session, subject, site, wish, found, place, spec, boots, result, told).go()


class _Run:
    """One move that is being made."""

    def __init__(
        self,
        session: Session,
        subject: Subject,
        site: Site,
        wish: Wish,
        found: Plan,
        place: Place,
        spec: Any,
        boots: bool,
        result: dict[str, Any],
        told: Told,
    ) -> None:
        self.session, self.before, self.site, self.wish, self.plan = session, subject, site, wish, found
        self.place, self.spec, self.boots, self.result, self.told = place, spec, boots, result, told
        self.vm = subject.vm
        self.under_way = False

    def go(self) -> dict[str, Any]:
        try:
            if self.plan.method == "move" and self.before.power == "on":
                self._shut_down()
            if self.spec is not None:
                self._relocate()
            self._put_back()
            if self.boots:
                self._boot()
        except FerryError as e:
            raise self._explained(e) from e
        now = read_subject(self.session, self.vm)
        if MARK in now.attributes:  # of long ago
            source_state.apply(self.session, self.vm, source_state.Wanted(attributes={MARK: ""}))
            now = read_subject(self.session, self.vm)
        self.result["after"] = now.where()
        self._compare(now)
        return self.result

    # -- steps --------------------------------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        """Note that it ran, then shut it down. The note comes first: a run that is killed must know what to boot."""
        target = self.plan.target
        mark = json.dumps({"power": "on", "to": target.host.moref if target is not None else None, "at": int(time.time())})
        source_state.apply(self.session, self.vm, source_state.Wanted(attributes={MARK: mark}))
        self.boots = True
        wanted = source_state.Wanted(power="shutdown", shutdown_timeout=self.wish.shutdown_timeout, on_timeout=self.wish.on_timeout)
        try:
            done = source_state.apply(self.session, self.vm, wanted)
        except FerryError as e:
            now = source_state.read_again(self.session, self.vm)
            if now is not None and now.power == "on":
                # it has not gone off, so there is nothing to boot; a guest that was asked may still go, for the next run to boot it
                asked = json.dumps({**json.loads(mark), "asked": True}) if e.code == "shutdown_timeout" else ""
                source_state.apply(self.session, self.vm, source_state.Wanted(attributes={MARK: asked}))
                self.boots = False
            raise e.add(vm=self.vm.name) from e
        if done["power_method"] == "poweroff":
            self.told(f"{self.vm.name}: {done['power_reason']}")
        check = check_relocate(self.session, self.vm.ref, self.spec)
        self.result["checks"] = [check.as_dict() if c["id"] == check.id else c for c in self.result["checks"]]
        if not check.passed:
            error = not_possible(self.vm.name, self.plan.method, [check])
            error.left = None
            raise error

    def _start(self) -> Any:
        """Begin the relocation; an operation of somebody else on the VM is waited for a minute."""
        deadline = Deadline(BUSY_PATIENCE)
        while True:
            try:
                return self.session.call(self.vm.ref.RelocateVM_Task, self.spec, "defaultPriority", step="relocate the VM")
            except ServerError as e:
                if not is_busy(e) or e.details.get("fault") not in ("TaskInProgress", "ConcurrentAccess") or not deadline.wait():
                    raise

    def _relocate(self) -> None:
        step = "relocate the VM"
        task = self._start()
        self.under_way = True
        try:
            wait_task(self.session, task, vm=self.vm.name, step=step, timeout=self.wish.timeout, patience=PATIENCE)
            self.under_way = False
        except ServerError as e:
            if e.code == "timeout":
                self._cancel(task, e)
            elif e.code == "task":
                self.under_way = False
                if not (e.details.get("gone") and self._arrived()):
                    raise
            else:
                raise

    def _cancel(self, task: Any, late: ServerError) -> None:
        """Take back a relocation that takes too long; it may come to its end in the same moment, which is well."""
        step = "cancel the relocation"
        try:
            self.session.call(task.CancelTask, step=step)
        except ServerError as e:
            late.details["cancel"] = e.said or e.message
        try:
            wait_task(self.session, task, vm=self.vm.name, step=step, timeout=CANCEL_TIMEOUT, patience=PATIENCE)
            self.under_way = False
            self.told(f"{self.vm.name}: the relocation ended while it was being canceled")
            return
        except ServerError as e:
            self.under_way = e.code == "timeout"
            if e.code not in ("task", "timeout"):
                raise
        if self.under_way:
            late.left = f"the task {task._moId} goes on, it could not be canceled"
        else:
            late.left = "the task was canceled"
        raise late

    def _arrived(self) -> bool:
        now = read_subject(self.session, self.vm)
        target = self.plan.target
        return target is not None and now.host == target.host.moref and stored_so(now, target)

    def _put_back(self) -> None:
        """What the API has lost on the way: folder, pool, annotation, custom attributes."""
        now = read_subject(self.session, self.vm)
        session, step = self.session, "put back what belongs to the VM"
        put = self.result["put_back"]
        if self.place.folder is not None and now.folder != self.place.folder and not now.vapp:
            folder = session.managed("Folder", self.place.folder)
            wait_task(session, session.call(folder.MoveIntoFolder_Task, [self.vm.ref], step=step), vm=self.vm.name, step=step)
            put.append("folder")
        if self.place.pool is not None and now.pool != self.place.pool and not now.vapp:
            session.call(session.managed("ResourcePool", self.place.pool).MoveIntoResourcePool, [self.vm.ref], step=step)
            put.append("pool")
        if self.before.annotation and not now.annotation:
            spec = session.vim.vm.ConfigSpec(annotation=self.before.annotation)
            wait_task(session, session.call(self.vm.ref.ReconfigVM_Task, spec, step=step), vm=self.vm.name, step=step)
            put.append("annotation")
        # what has another value by now was written by somebody while the move was under way: hours, where files are copied
        lost = {k: v for k, v in self.before.attributes.items() if k != MARK and not now.attributes.get(k)}
        if lost:
            source_state.apply(session, self.vm, source_state.Wanted(attributes=lost))
            put.append("attributes")

    def _boot(self) -> None:
        source_state.apply(self.session, self.vm, source_state.Wanted(power="on"))
        source_state.apply(self.session, self.vm, source_state.Wanted(attributes={MARK: ""}))
        self.boots = False

    # -- the end ------------------------------------------------------------------------------------------------------

    def _compare(self, now: Subject) -> None:
        """Cards and power are what the VM's owner looks at first; a difference is an error even where the server sees none."""
        before = [(n.mac, n.key) for n in self.before.nics]
        after = [(n.mac, n.key) for n in now.nics]
        was = "on" if mark_of(self.before).get("power") == "on" and self.before.power == "off" else self.before.power
        wrong = []
        target = self.plan.target
        if self.spec is not None and target is not None:
            if now.host != target.host.moref:
                wrong.append(f"it is on {now.facts.get('host')}, not on {target.host.name}")
            if not stored_so(now, target):
                wrong.append(f"its files are at {', '.join([now.vmx_path, *(d.path for d in now.disks)])}, not where they were to go")
        if before != after:
            wrong.append(f"network cards were {[m for m, _key in before]}, are {[m for m, _key in after]}")
        if was != now.power:
            wrong.append(f"it was powered {was}, is {now.power}")
        if wrong:
            error = ServerError(
                f"vCenter says that the VM was moved, but: {'; '.join(wrong)}.",
                code="not_kept",
                vm=self.vm.name,
                step="compare the VM",
                left=where_text(now),
            )
            error.partial = self.result
            raise error

    def _explained(self, e: FerryError) -> FerryError:
        """C(e) with where the VM is now. A VM that was shut down for the move runs again where it is, unless its task goes on."""
        e.add(vm=self.vm.name)
        try:
            now = steadily(lambda: read_subject(self.session, self.vm), patience=PATIENCE)
            if self.boots and not self.under_way and now.moving is None and now.power == "off":
                self._boot()
                now = read_subject(self.session, self.vm)
            said = where_text(now)
            if self.under_way and not e.left:
                e.left = "the relocation goes on in vCenter"
            self.result["after"] = now.where()
            self.result["changed"] = self.result["after"] != self.result["before"]
        except FerryError as again:
            said = f"where it is cannot be read now ({again.message}); before, {where_text(self.before)}"
        if self.boots:
            said += "; it is to be booted: run the same task again"
        e.left = f"{e.left}; {said}" if e.left else said
        e.add(next_command="run the same task again: it goes on from there")
        e.partial = self.result
        return e


def where_text(subject: Subject) -> str:
    """Where a VM is, for people."""
    host = subject.facts.get("host")
    return f"the VM is on {host}, powered {subject.power}, its configuration is {subject.vmx_path}"


def need_vcenter(session: Session) -> None:
    """BadInput on an ESXi host, which knows no other host."""
    if str(getattr(session.content.about, "apiType", "VirtualCenter")) != "VirtualCenter":
        raise BadInput("This is an ESXi host: only a vCenter moves VMs.", step="connect to vCenter")
