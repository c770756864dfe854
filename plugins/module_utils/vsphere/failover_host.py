# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Failover of everything that was on a host which is dead: proved once, planned together, made side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Callable, Iterable, Mapping, Sequence, TypeVar

from ..errors import BadInput, FerryError, ServerError
from .client import Session
from .failover import Failover, ForbidsOf, Options, begun, choose, host_of, keep, orphaned, store_of, target_again
from .failover_again import moref_in, placed, with_unfinished
from .failover_proof import prove, read_signs
from .find import VmRef, describe
from .keep import Record, Store
from .move_checks import Check
from .move_plan import Wish
from .move_server import not_possible, refused_by
from .move_spec import read_pools
from .move_subject import Subject, read_subject
from .site import Host, Site, read_site

T = TypeVar("T")
U = TypeVar("U")
Told = Callable[[str], None]

#: Orders in which hosts are chosen, at most.
TRIES = 6
#: plan writes nothing; keep writes the records; run makes the failover (and keeps first what has not been kept).
PHASES = ("plan", "keep", "run")


@dataclass
class _Task:
    """One VM. C(state): planned, kept, done, failed, refused, skipped."""

    name: str
    moref: str | None
    power: str
    to: Host | None
    state: str
    reasons: list[str]
    subject: Subject | None = None
    record: Record | None = None
    new_moref: str | None = None
    put_back: list[str] | None = None
    failure: dict[str, Any] | None = None

    def as_dict(self, source: str) -> dict[str, Any]:
        return {
            "name": self.name,
            "moref": self.new_moref or self.moref,
            "from": source,
            "to": self.to.name if self.to is not None else None,
            "power": self.power,
            "state": self.state,
            "reasons": self.reasons,
            "record": str(self.record.path) if self.record is not None else None,
            "put_back": self.put_back or [],
            "failure": self.failure,
        }


def assign(subjects: Iterable[Subject], site: Site, dead: str, wish: Wish, forbids: ForbidsOf | None) -> list[_Task]:
    """A host for each VM of the dead host, what runs and is large first, each choice counted for the next. Pure.

    Where constraints leave nothing to a VM because of what was chosen before it, it is asked first in another try.
    """
    order = sorted(subjects, key=lambda s: (s.power != "on", -s.memory_mb, s.vm.name))
    place = {s.vm.moref: n for n, s in enumerate(order)}
    best: list[_Task] = []
    for number in range(TRIES):
        found = _assigned(order, site, dead, wish, forbids)
        left = {t.moref for t in found if t.state == "refused"}
        if number == 0 or len(left) < sum(t.state == "refused" for t in best):
            best = found
        first = [s for s in order if s.vm.moref in left]
        if not first or order[: len(first)] == first or not any("constraints: " in r for t in found for r in t.reasons):
            break
        order = [*first, *(s for s in order if s.vm.moref not in left)]
    return sorted(best, key=lambda t: place[t.moref or ""])


def _assigned(order: Iterable[Subject], site: Site, dead: str, wish: Wish, forbids: ForbidsOf | None) -> list[_Task]:
    """The choices, made in this order."""
    found = []
    now = orphaned(site, dead)
    for subject in order:
        task = _Task(subject.vm.name, subject.vm.moref, subject.power, None, "refused", [], subject)
        found.append(task)
        if subject.template:
            task.state, task.reasons = "skipped", ["a template: register it by hand"]
            continue
        choice = choose(subject, now, wish, forbids(now) if forbids is not None else None)
        task.to = choice.host
        if choice.host is None:
            task.reasons = list(refused_by(choice.checks))
            continue
        task.state = "planned"
        host = now.hosts[choice.host.moref]
        hosts, vms = dict(now.hosts), dict(now.vms)
        if subject.power == "on":
            hosts[host.moref] = replace(host, memory_mb_used=host.memory_mb_used + subject.memory_mb)
        if subject.vm.moref in vms:
            vms[subject.vm.moref] = replace(vms[subject.vm.moref], host=host.moref)
        now = replace(now, hosts=hosts, vms=vms)
    return found


def _unfinished(session: Session, records: Iterable[Record], site: Site, dead: str, forbids: ForbidsOf | None) -> tuple[list[_Task], Site]:
    """The VMs that a killed run has taken out of the inventory and not brought to an end; and C(site) with them on the hosts they go to."""
    found = []
    for record in records:
        if record.data["host"] != dead or not begun(session, record, site):
            continue
        to = target_again(site, record.data, forbids(site) if forbids is not None else None)
        reasons = [f"continued from the step {record.step}"] if to is not None else ["no healthy host has its datastores"]
        state = "kept" if to is not None else "refused"
        found.append(_Task(record.name, None, str(record.data["power"]), to, state, reasons, None, record))
        site = placed(site, moref_in(site, record.data), to.moref) if to is not None else site
    return found, site


def _dead_host(site: Site, store: Store, wanted: str) -> Host:
    """The host that C(wanted) names; one that was removed from the inventory is known from the records of its VMs."""
    try:
        return site.host(wanted)
    except BadInput as e:
        found = {str(r.data["host"]): str(r.data["host_name"]) for r in store.all() if wanted in (r.data["host"], r.data["host_name"])}
        if e.code != "unknown" or len(found) != 1:
            raise
        moref, name = next(iter(found.items()))
        return Host(moref, name, connected=False)


def fail_over(
    session: Session,
    wanted: str,
    wish: Wish,
    options: Options,
    *,
    phase: str = "run",
    at_once: int = 8,
    check: bool = False,
    forbids: ForbidsOf | None = None,
    told: Told = lambda text: None,
) -> dict[str, Any]:
    """Fail everything over that is on the host C(wanted).

    :param at_once: VMs at a time.
    :returns: changed, host, phase, checks, vms (name, moref, from, to, power, state, reasons, record, put_back, failure).
    :raises ServerError: code checks_failed (the host may be alive, HA), or incomplete where a run has left VMs behind (a plan
        only tells of them); the result is its C(partial).
    """
    store = store_of(session, options)
    records = store.all()
    site = with_unfinished(read_site(session, devices=False), records)
    host = _dead_host(site, store, wanted)
    tasks, site = _unfinished(session, records, site, host.moref, forbids)
    mine = {t.record.data["vm"]["instance_uuid"] for t in tasks if t.record is not None}
    held = [vm for vm in site.vms_on(host.moref) if vm.uuid not in mine]  # its host had it back for a while
    result: dict[str, Any] = {"changed": False, "host": host.name, "phase": phase, "checks": [], "vms": []}
    if not held and not tasks:
        result["checks"] = [Check("needed", True, f"nothing is left on {host.name}").as_dict()]
        return result
    proof = prove(read_signs(session, host.moref), site, host.moref, options.fenced)
    result["checks"] = [c.as_dict() for c in proof]
    if (held and not all(c.passed for c in proof)) or options.fenced is False:
        error = not_possible(host.name, "failover", proof)
        error.vm = None
        error.partial = result
        raise error
    refs = describe(session, [vm.moref for vm in held])
    subjects = _side_by_side(at_once, lambda ref: _subject(session, ref), refs)
    tasks += assign([s for s in subjects if s is not None], site, host.moref, wish, forbids)
    result["changed"] = any(t.state in ("planned", "kept") for t in tasks)
    if not check and phase != "plan":
        _keep(session, store, site, tasks, at_once, told)
        if phase == "run":
            _run(session, store, site, options, tasks, at_once, told)
    elif phase == "plan":
        result["changed"] = False
    result["vms"] = [t.as_dict(host.name) for t in tasks]
    return result if check or phase != "run" else _complete(result, host.name, tasks)


def _subject(session: Session, ref: VmRef) -> Subject | None:
    """The VM, or None where somebody has removed it meanwhile."""
    try:
        return read_subject(session, ref)
    except BadInput as e:
        if e.code == "gone":
            return None
        raise


def _side_by_side(at_once: int, work: Callable[[T], U], things: Sequence[T]) -> list[U]:
    """C(work) of each; told to end, what is under way comes to its end, and nothing else is begun."""
    with ThreadPoolExecutor(max(1, at_once)) as pool:
        try:
            return list(pool.map(work, things))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _keep(session: Session, store: Store, site: Site, tasks: Sequence[_Task], at_once: int, told: Told) -> None:
    """Write the records, also of VMs that no host fits: they would be gone with the host, should it be removed from the inventory."""
    pools = read_pools(session)

    def work(task: _Task) -> None:
        if task.subject is None:
            return
        try:
            task.record = keep(session, store, task.subject, site, pools, task.to, told)
            task.state = "kept" if task.to is not None else "refused"
        except FerryError as e:
            task.state, task.reasons, task.failure = "failed", [str(e)], e.as_dict()

    _side_by_side(at_once, work, [t for t in tasks if t.state in ("planned", "refused")])


def _run(session: Session, store: Store, site: Site, options: Options, tasks: Sequence[_Task], at_once: int, told: Told) -> None:
    """Side by side; one that fails does not stop the others."""

    def work(task: _Task) -> None:
        if task.record is None or task.to is None:
            return
        try:
            with store.lock(str(task.record.data["vm"]["instance_uuid"])):
                over = Failover(session, store, task.record, task.to, site, options, told)
                vm = over.go()
                task.state, task.new_moref, task.put_back = "done", vm.moref, over.put
                task.to = site.hosts.get(host_of(session, vm) or "", task.to)  # what was registered already has stayed where it was
        except FerryError as e:
            task.state, task.failure = "failed", e.as_dict()
            task.reasons = [str(e)]

    _side_by_side(at_once, work, [t for t in tasks if t.state == "kept"])


def _complete(result: dict[str, Any], host: str, tasks: Sequence[_Task]) -> dict[str, Any]:
    """C(result), unless something is left on the dead host."""
    bad: list[_Task] = [t for t in tasks if t.state in ("failed", "refused")]
    if not bad:
        return result
    first: Mapping[str, Any] = bad[0].failure or {}
    error = ServerError(
        f"{len(bad)} of {len(tasks)} VMs of {host} were not failed over: "
        + "; ".join(f"{t.name}: {t.reasons[0] if t.reasons else ''}" for t in bad[:5]),
        code="incomplete",
        step="fail over",
        left=f"{sum(t.state == 'done' for t in tasks)} VMs were failed over; see vms for each",
        next_command="run the same task again: it goes on from there",
        first=str(first.get("code") or "refused"),
    )
    error.partial = result
    raise error
