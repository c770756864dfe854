# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Failover of one VM: its host is dead, so it is registered on a healthy one from shared storage and booted.

The order: what vCenter alone knows is kept in a file; (the host is fenced;) the VM is unregistered from the dead host, since
registering beside it answers AlreadyExists; registered; everything is put back; booted. Each step is in the file before and after
it is made, so a run that is killed at any of them is continued by the next.

Vendor reference: vSphere Web Services API, VirtualMachine.UnregisterVM, Folder.RegisterVM_Task, VirtualMachine.PowerOnVM_Task.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Mapping

from ..errors import BadInput, FerryError, ServerError
from . import source_state
from .client import Session
from .failover_again import allowed, has_left, moref_in, same_vm, with_unfinished
from .failover_proof import fencing, prove, read_signs
from .find import VmRef, describe, find_vm
from .keep import Record, Store
from .keep_vcenter import kept_of, place_of, put_back
from .move_checks import Check, Forbids, Target, judge
from .move_plan import Wish, wanted_host
from .move_server import not_possible
from .move_spec import Pool, read_pools
from .move_subject import Subject, read_subject
from .properties import moref_of, of_objects, of_view
from .site import Host, Site, read_site
from .steady import PATIENCE, is_away
from .tasks import wait_task
from .tree import ANCESTORS, escaped

TASK_TIMEOUT = 600.0
#: Seconds between two looks at a task.
LOOK = 0.3
#: Where UnregisterVM is refused for a VM that ran on a host which is still listed; what the product does is not documented.
REMOVE_HOST = (
    "keep what vCenter knows of all VMs of the dead host (host_failover with phase: keep), disconnect it and remove it from the inventory, "
    "then run the same task again"
)
#: Faults of UnregisterVM that say so.
_NOT_UNREGISTERED = frozenset({"InvalidPowerState", "InvalidState", "HostNotConnected", "NotSupported"})
#: A refused power-on that says this has met a VM that runs elsewhere (FileLocked; "Failed to lock the file", GenericVmConfigFault).
_LOCKED = re.compile(r"FileLocked|\block(ed)?\b|in use|owned by", re.IGNORECASE)

Told = Callable[[str], None]
ForbidsOf = Callable[[Site], Callable[[str, str], Any]]


@dataclass(frozen=True)
class Options:
    """C(fenced): what came out of the fencing, None where nothing is known. C(state_dir): of the records."""

    state_dir: str | None = None
    fenced: bool | None = None


@dataclass(frozen=True)
class Choice:
    """Where a VM goes, or why nowhere. C(candidates) as vm_move returns them."""

    host: Host | None
    checks: tuple[Check, ...]
    candidates: tuple[dict[str, Any], ...]


def store_of(session: Session, options: Options) -> Store:
    return Store(options.state_dir, str(session.content.about.instanceUuid or session.endpoint.netloc))


def orphaned(site: Site, dead: str) -> Site:
    """The site without what the dead host holds: its VMs are nowhere, so that constraints count only what runs."""
    return replace(site, vms={m: replace(v, host=None) if v.host == dead else v for m, v in site.vms.items()})


def choose(subject: Subject, site: Site, wish: Wish, forbids: Forbids | None = None) -> Choice:
    """The healthy host for a VM whose host is dead: the one with the largest part of its memory free afterwards. Pure.

    :raises BadInput: the host or the cluster that was asked for is unknown.
    """
    wanted = wanted_host(site, wish)
    hosts = [wanted] if wanted is not None else sorted(site.hosts.values(), key=lambda h: (h.name, h.moref))
    source = site.hosts.get(subject.host or "")
    if wanted is None:
        hosts = [h for h in hosts if h.moref != subject.host and (source is None or h.datacenter == source.datacenter)]
        if wish.cluster is not None:
            hosts = [h for h in hosts if wish.cluster in (h.cluster, h.cluster_name)]
    judged = [(h, judge(subject, site, Target(h, network_map=wish.network_map), "failover", forbids=forbids)) for h in hosts]
    rows: list[dict[str, Any]] = []
    fitting: list[tuple[tuple[Any, ...], Host, list[Check]]] = []
    for host, checks in judged:
        reasons = [f"{c.id}: {c.detail}" for c in checks if not c.passed]
        rows.append({"host": host.name, "moref": host.moref, "cluster": host.cluster_name, "fits": not reasons, "reasons": reasons})
        if not reasons:
            used = (host.memory_mb_used + subject.memory_mb) / max(1, host.memory_mb_total)
            elsewhere = source is not None and host.cluster != source.cluster
            fitting.append(((elsewhere, round(used, 3), host.name, host.moref), host, checks))
    fitting.sort(key=lambda f: f[0])
    order = {host.moref: i for i, (_key, host, _checks) in enumerate(fitting)}
    rows.sort(key=lambda r: order.get(str(r["moref"]), len(order)))
    if fitting:
        return Choice(fitting[0][1], tuple(fitting[0][2]), tuple(rows))
    if wanted is not None and judged:
        return Choice(None, tuple(judged[0][1]), tuple(rows))
    why = "; ".join(f"{r['host']} ({'; '.join(r['reasons'][:3])})" for r in rows) or "there is no other"
    return Choice(None, (Check("host.choice", False, f"none of {len(rows)} hosts fits: {why}"),), tuple(rows))


def find_again(session: Session, data: Mapping[str, Any]) -> VmRef | None:
    """The VM of a record as it is registered now: by its instance UUID, else by its configuration file."""
    step = "find the VM"
    uuid = data["vm"]["instance_uuid"]
    if uuid:
        refs = session.call(session.content.searchIndex.FindAllByUuid, None, uuid, True, True, step=step, again=True)
        if len(refs or ()) == 1:
            return next(iter(describe(session, [moref_of(refs[0])])), None)
    paths = {**ANCESTORS, "VirtualMachine": ("name", "parent", "parentVApp", "config.files.vmPathName", "config.uuid")}
    moref = same_vm(of_view(session, paths, step=step), data)
    return next(iter(describe(session, [moref])), None) if moref is not None else None


def host_of(session: Session, vm: VmRef) -> str | None:
    """MoRef of the VM's host, as vCenter has it now."""
    rows = of_objects(session, [vm.ref], {"VirtualMachine": ("runtime.host",)}, step="read the VM")
    ref = rows[0].props.get("runtime.host") if rows else None
    return moref_of(ref) if ref is not None else None


class Failover:
    """The failover of one VM, from whichever step its record has reached."""

    def __init__(self, session: Session, store: Store, record: Record, target: Host, site: Site, options: Options, told: Told) -> None:
        self.session, self.store, self.record, self.target, self.site = session, store, record, target, site
        self.options, self.told = options, told
        self.put: list[str] = list(record.data.get("put_back") or ())

    def go(self) -> VmRef:
        """Every step that is left. The VM as it is registered now."""
        try:
            if self.options.fenced is False:
                raise not_possible(self.record.name, "failover", [fencing(False)])
            vm = find_again(self.session, self.record.data)
            here = host_of(self.session, vm) if vm is not None else None
            if vm is not None and self._came_back(vm, here):
                self.told(f"{vm.name}: it is on its own host again, which lives; what vCenter had lost is put back, and it is not booted")
                vm = self._restore(vm)
                self.store.finish(self.record)
                return vm
            if vm is not None and here is not None and (here == self.record.data["host"] or not self._lives(here)):
                if here != self.record.data["host"]:  # the host that it was registered on has died too; the fencing was of the first
                    self.record.save(step="kept", host=here)
                    self.options = replace(self.options, fenced=None)
                self._unregister(vm)
                vm = None
            if vm is None:
                vm = self._register()
            elif not self.record.reached("registered"):
                self.record.save(step="registered", new_moref=vm.moref, to=here)
            vm = self._restore(vm)
            self._boot(vm)
            self.store.finish(self.record)
            return vm
        except FerryError as e:
            raise self._explained(e) from e

    def _lives(self, host: str) -> bool:
        found = self.site.hosts.get(host)
        return found is not None and found.connected

    def _came_back(self, vm: VmRef, here: str | None) -> bool:
        """Whether somebody has registered the VM on its old host again, which lives."""
        again = has_left(self.record, vm.moref, self.site.hosts)
        return here is not None and here == self.record.data["host"] and again and self._lives(here)

    def _unregister(self, vm: VmRef) -> None:
        """Out of the inventory of the dead host; the proof is made anew in the last moment."""
        step = "unregister the VM from the dead host"
        host = str(self.record.data["host"])
        checks = prove(read_signs(self.session, host), self.site, host, self.options.fenced)
        if not all(c.passed for c in checks):
            raise not_possible(vm.name, "failover", checks)
        self.record.save(step="unregistering")
        try:
            self.session.call(vm.ref.UnregisterVM, step=step)
        except ServerError as e:
            if e.details.get("fault") != "ManagedObjectNotFound":
                raise e.add(vm=vm.name, next_command=REMOVE_HOST if e.details.get("fault") in _NOT_UNREGISTERED else None) from e
        self.record.save(step="unregistered")

    def _register(self) -> VmRef:
        data, step = self.record.data, "register the VM"
        folder, pool = place_of(self.session, data, self.target.moref)
        self.record.save(step="registering", to=self.target.moref)
        host = self.session.managed("HostSystem", self.target.moref)
        try:
            name = escaped(data["vm"]["name"])
            task = self.session.call(folder.RegisterVM_Task, data["vmx_path"], name, False, pool, host, step=step)
            ref = self._wait(task, step)
            vm = describe(self.session, [moref_of(ref)])[0]
        except ServerError as e:
            again = find_again(self.session, data) if e.details.get("fault") in ("AlreadyExists", "DuplicateName") else None
            if again is None and e.details.get("fault") == "DuplicateName":
                e.add(next_command="see whether the VM that has this name now is to stay; rename or remove it, and run the same task again")
            if again is None or host_of(self.session, again) == data["host"]:
                if e.details.get("fault"):  # refused, so nothing is under way
                    self.record.save(step="unregistered")
                raise
            vm = again  # another run was faster
        self.record.save(step="registered", new_moref=vm.moref)
        return vm

    def _restore(self, vm: VmRef) -> VmRef:
        if not self.record.reached("restored"):
            site_host = host_of(self.session, vm)
            cluster = self.target.cluster if site_host == self.target.moref else None
            self.put += put_back(self.session, vm, source_state.read_state(self.session, vm), self.record.data, cluster, self.told)
            self.record.save(step="restored", put_back=self.put)
            vm = next(iter(describe(self.session, [vm.moref])), vm)
        return vm

    def _boot(self, vm: VmRef) -> None:
        """Power on what ran. A lock on its files means that it runs elsewhere: it stays off, and everybody is told."""
        if self.record.data["power"] != "on" or self.record.reached("booted"):
            return
        step = "boot the VM"
        try:
            if source_state.read_state(self.session, vm).power != "on":
                task = self.session.call(vm.ref.PowerOnVM_Task, None, step=step)
                self._wait(task, step, lambda: self._answer(vm))
        except ServerError as e:
            if e.details.get("fault") == "InvalidPowerState" and source_state.read_state(self.session, vm).power == "on":
                pass
            elif _LOCKED.search(f"{e.details.get('fault')} {e.said}"):
                raise ServerError(
                    "The VM runs elsewhere: something holds the lock on its files, most likely its old host, which is cut off but not dead.",
                    code="runs_elsewhere",
                    vm=vm.name,
                    step=step,
                    said=e.said,
                    left=f"the VM is registered on {self.target.name}, powered off; nothing was started twice",
                    next_command="switch the old host off (fence it), then run the same task again",
                ) from e
            else:
                raise
        self.record.save(step="booted")

    def _wait(self, task: Any, step: str, between: Callable[[], None] | None = None) -> Any:
        """The result of C(task), looked at often: what is down waits for it. C(between): is called every second."""
        last = time.monotonic()

        def look() -> None:
            nonlocal last
            if between is not None and time.monotonic() - last >= 1.0:
                last = time.monotonic()
                between()

        return wait_task(self.session, task, vm=self.record.name, step=step, timeout=TASK_TIMEOUT, patience=PATIENCE, stop=look, most=LOOK)

    def _answer(self, vm: VmRef) -> None:
        """The question whether the VM was moved or copied is answered with moved, which keeps its UUIDs."""
        try:
            rows = of_objects(self.session, [vm.ref], {"VirtualMachine": ("runtime.question",)}, step="boot the VM")
        except ServerError as e:
            if is_away(e):
                return
            raise
        question = rows[0].props.get("runtime.question") if rows else None
        answer = moved_answer(question)
        if question is not None and answer is not None:
            self.session.call(vm.ref.AnswerVM, question.id, answer, step="boot the VM")

    def _explained(self, e: FerryError) -> FerryError:
        e.add(vm=self.record.name)
        where = {
            "kept": "the VM is registered on its dead host still",
            "unregistering": "the VM may be unregistered",
            "unregistered": "the VM is registered nowhere",
            "registering": f"the VM may be registered on {self.target.name}",
        }.get(self.record.step, f"the VM is registered on {self.target.name}")
        said = f"{where}; all that vCenter knew of it is in {self.record.path}"
        e.left = f"{e.left}; {said}" if e.left else said
        e.add(next_command="run the same task again: it goes on from there")
        return e


def moved_answer(question: Any) -> str | None:
    """The key of "I moved it" among the choices of the question msg.uuid.altered, which vCenter asks of VMs that it finds elsewhere."""
    if question is None or "uuid" not in f"{question.id} {question.text} {getattr(question, 'message', '')}".lower():
        return None
    for choice in question.choice.choiceInfo or ():
        if "moved" in f"{choice.label} {choice.summary}".lower():
            return str(choice.key)
    return None


def _done_before(session: Session, store: Store, vm: VmRef) -> Record | None:
    """The record of a finished failover that has brought C(vm) to the host it is on."""
    record = store.get(vm.instance_uuid or "", done=True) if vm.instance_uuid else None
    return record if record is not None and record.data.get("to") == host_of(session, vm) else None


def begun(session: Session, record: Record, site: Site) -> bool:
    """Whether the failover of C(record) is to be continued; else it is made anew."""
    vm = find_again(session, record.data)
    if not has_left(record, vm.moref if vm is not None else None, site.hosts):
        return False
    if vm is not None and record.reached("restored"):
        return host_of(session, vm) == record.data.get("to")  # else somebody has moved it since, and nothing is left to be put back
    return True


def keep(
    session: Session, store: Store, subject: Subject, site: Site, pools: Mapping[str, Pool], target: Host | None, told: Told
) -> Record:
    """Write down what vCenter alone knows of a VM that is to go to C(target); None: no host fits now."""
    to = target.moref if target is not None else None
    uuid = subject.vm.instance_uuid
    if not uuid:
        raise BadInput(
            "The VM has no instance UUID, by which it could be found again.", vm=subject.vm.name, step="keep what vCenter alone knows"
        )
    old = store.get(uuid)
    if old is not None and not old.reached("restored") and has_left(old, subject.vm.moref, site.hosts):
        # its new host has died before everything was put back: vCenter knows less than the record
        return store.new(uuid, {**old.data, "host": subject.host, "host_name": subject.facts.get("host"), "to": to})
    return store.new(uuid, {**kept_of(session, subject, site, pools, told), "to": to})


def one(
    session: Session,
    wanted: str,
    wish: Wish,
    options: Options,
    *,
    check: bool = False,
    forbids: ForbidsOf | None = None,
    told: Told = lambda text: None,
) -> dict[str, Any]:
    """Fail the VM C(wanted) over; the result is that of move.move(), with C(record).

    :raises ServerError: code checks_failed (its host may be alive, HA, no host fits), runs_elsewhere, or why the server refused.
    """
    store = store_of(session, options)
    record = store.find(wanted)
    site = with_unfinished(read_site(session, devices=False), store.all())
    if record is not None and not begun(session, record, site):
        record = None
    if record is None:
        return _begin(session, store, find_vm(session, wanted), site, wish, options, check, forbids, told)
    with store.lock(str(record.data["vm"]["instance_uuid"])):
        return _go_on(session, store, record, site, wish, options, check, forbids, told)


def _begin(
    session: Session, store: Store, vm: VmRef, site: Site, wish: Wish, options: Options, check: bool, forbids: ForbidsOf | None, told: Told
) -> dict[str, Any]:
    subject = read_subject(session, vm)
    signs = read_signs(session, subject.host or "")
    proof = prove(signs, site, subject.host or "", options.fenced)
    done = _done_before(session, store, vm) if signs.connection == "connected" else None
    if done is not None:
        why = "it was failed over to this host already"
        return _result(subject, subject.where(), "none", why, [Check("needed", True, why)], (), [], done, False)
    bare = orphaned(site, subject.host or "")
    choice = choose(subject, bare, wish, forbids(bare) if forbids is not None else None)
    checks = [*proof, *choice.checks]
    why = f"{signs.name} is dead"
    after = {
        **subject.where(),
        "host": choice.host.name if choice.host else None,
        "cluster": choice.host.cluster_name if choice.host else None,
    }
    result = _result(subject, after, "failover", why, checks, choice.candidates, [], None, True)
    if choice.host is None or not all(c.passed for c in checks):
        error = not_possible(vm.name, "failover", checks)
        error.partial = {**result, "changed": False, "after": subject.where()}
        raise error
    if check:
        return result
    with store.lock(vm.instance_uuid or ""):
        record = keep(session, store, subject, site, read_pools(session), choice.host, told)
        return _run(session, Failover(session, store, record, choice.host, site, options, told), result)


def able(site: Site, data: Mapping[str, Any]) -> list[Host]:
    """The healthy hosts that have all datastores of a record's VM."""
    there = set(data["datastores"])
    return [h for h in site.hosts.values() if h.moref != data["host"] and h.connected and not h.maintenance and there <= h.datastores]


def target_again(site: Site, data: Mapping[str, Any], forbids: Forbids | None = None) -> Host | None:
    """The host that a record's VM was to go to, else the best of those that can take it; None where there is none.

    :param site: completed by with_unfinished(), where there is C(forbids).
    """
    healthy = allowed(site, data, able(site, data), forbids)
    chosen = next((h for h in healthy if h.moref == data.get("to")), None)
    return chosen or min(
        healthy, key=lambda h: (h.cluster != data["cluster"], h.memory_mb_used / max(1, h.memory_mb_total), h.name), default=None
    )


def _go_on(
    session: Session,
    store: Store,
    record: Record,
    site: Site,
    wish: Wish,
    options: Options,
    check: bool,
    forbids: ForbidsOf | None,
    told: Told,
) -> dict[str, Any]:
    """Continue what a killed run has begun, on the host that it had chosen unless that is gone or another is asked for."""
    data = record.data
    before = dict(data["before"])
    known = wanted_host(site, wish)
    against = forbids(site) if forbids is not None else None
    healthy = allowed(site, data, able(site, data), against)
    if known is not None and known not in healthy:
        why = "; ".join(against(moref_in(site, data), known.moref)) if against is not None else ""
        raise BadInput(f"{known.name} cannot take the VM.", vm=record.name, step="choose a host", said=why or None)
    target = known or target_again(site, data, against)
    why = f"a failover that had come to the step {record.step} is continued"
    if target is None:
        check_ = Check("host.choice", False, "no healthy host has the VM's datastores and is allowed by the constraints")
        error = not_possible(record.name, "failover", [check_])
        error.left = f"the VM is at the step {record.step}; all that vCenter knew of it is in {record.path}"
        error.partial = {"method": "failover", "why": why, "before": before, "after": before, "checks": [check_.as_dict()],
                         "candidates": [], "methods": [], "mb": 0, "put_back": []}  # fmt: skip
        raise error
    result = {
        "method": "failover",
        "why": why,
        "before": before,
        "after": {**before, "host": target.name, "cluster": target.cluster_name},
        "checks": [Check("record", True, why).as_dict()],
        "candidates": [{"host": h.name, "moref": h.moref, "cluster": h.cluster_name, "fits": True, "reasons": []} for h in healthy],
        "methods": [],
        "mb": 0,
        "put_back": [],
        "record": str(record.path),
        "changed": True,
    }
    return result if check else _run(session, Failover(session, store, record, target, site, options, told), result)


def _run(session: Session, work: Failover, result: dict[str, Any]) -> dict[str, Any]:
    try:
        vm = work.go()
    except FerryError as e:
        e.partial = {**result, "put_back": work.put, "record": str(work.record.path), "changed": work.record.reached("unregistering")}
        raise
    result.update(after=read_subject(session, vm).where(), put_back=work.put, record=str(work.record.path))
    return result


def _result(
    subject: Subject,
    after: Mapping[str, Any],
    method: str,
    why: str,
    checks: list[Check],
    candidates: tuple[dict[str, Any], ...],
    put: list[str],
    record: Record | None,
    changed: bool,
) -> dict[str, Any]:
    return {
        "method": method,
        "why": why,
        "before": subject.where(),
        "after": dict(after),
        "checks": [c.as_dict() for c in checks],
        "candidates": list(candidates),
        "methods": [],
        "mb": 0,
        "put_back": put,
        "record": str(record.path) if record is not None else None,
        "changed": changed,
    }
