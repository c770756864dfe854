# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Empty a datastore: look, plan, move, prove. Run again after anything, it goes on."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Sequence

from ..disk.progress import Progress
from ..errors import BadInput, FerryError, Interrupted, ServerError, bounded
from . import evacuate_journal as journal
from . import relocate
from .client import Client
from .entities import Datastore, uuid_of
from .evacuate_facts import Content, content_of, left_on, names_of
from .evacuate_limits import Job, Space, Throttle
from .evacuate_plan import ORDERS, PER_HOST, PER_SOURCE, PER_TARGET, STEP, Limits, Move, Plan, make_plan
from .evacuate_run import BUSY_PATIENCE, Run
from .evacuate_window import Pace, Window, window_of
from .find import find_datastore, list_datastores, read_datastore
from .space import RESERVE_PERCENT
from .tasks import Task, find_tasks

#: Of one kind at a time; vCenter queues what is above its own ceilings.
MOST_AT_A_TIME = 256
#: Seconds between looks at what is left, while that is only what the server itself removes.
LAST_LOOKS = (0.0, 1.0, 3.0)


@dataclass(frozen=True)
class Wanted:
    """What vcd_datastore_evacuate is asked for.

    :param canary: one number, so many; else names, hrefs or urns of VMs. Empty: none.
    :param window: start, end, duration; see evacuate_window.window_of().
    :param stop_after_failures: 0: never.
    :param timeout: seconds for one relocation; its task goes on after that.
    :param busy_timeout: seconds that a VM may stay busy with something else.
    """

    datastore: str
    targets: Sequence[str]
    reserve_percent: float = RESERVE_PERCENT
    max_per_target: int = PER_TARGET
    max_per_source: int = PER_SOURCE
    max_per_host: int = PER_HOST
    canary: Sequence[str] = ("1",)
    journal: str | None = None
    stop_after_failures: int = 3
    window: Mapping[str, Any] | None = None
    order: str = "small"
    timeout: float = 86400.0
    busy_timeout: float = BUSY_PATIENCE


@dataclass
class _Scene:
    """Everything that is known before anything is begun."""

    wanted: Wanted
    window: Window
    source: Datastore
    targets: list[Datastore]
    content: Content
    plan: Plan
    result: dict[str, Any] = field(default_factory=dict)


def check_wanted(wanted: Wanted) -> None:
    """Raise BadInput, with every mistake in the numbers and names."""
    wrong = []
    if not wanted.datastore.strip():
        wrong.append("no datastore is named")
    if not wanted.targets or any(not t.strip() for t in wanted.targets):
        wrong.append("no target is named")
    if not 0 <= wanted.reserve_percent < 100:
        wrong.append(f"reserve_percent is from 0 to below 100, not {wanted.reserve_percent:g}")
    for name in ("max_per_target", "max_per_source", "max_per_host"):
        if not 1 <= getattr(wanted, name) <= MOST_AT_A_TIME:
            wrong.append(f"{name} is from 1 to {MOST_AT_A_TIME}, not {getattr(wanted, name)}")
    if wanted.stop_after_failures < 0 or wanted.timeout <= 0 or wanted.busy_timeout < 0:
        wrong.append("stop_after_failures, timeout and busy_timeout cannot be negative")
    if wanted.order not in ORDERS:
        wrong.append(f"order is one of {', '.join(ORDERS)}")
    if wrong:
        raise BadInput(f"This cannot be done: {'; '.join(wrong)}.", step=STEP, errors=wrong)


def stores_of(client: Client, wanted: Wanted) -> tuple[Datastore, list[Datastore], list[Datastore]]:
    """The source, the targets and all datastores.

    :raises BadInput: an unknown or ambiguous name, the source among the targets, a target that is disabled, deleted, of another vCenter or
        full to its reserve.
    """
    stores = list_datastores(client)
    source = find_datastore(client, wanted.datastore, stores=stores)
    targets: list[Datastore] = []
    for name in wanted.targets:
        target = find_datastore(client, name, vc=source.vc, stores=stores)
        if target.key == source.key:
            raise BadInput(f"The datastore {bounded(source.name, 120)} cannot be emptied onto itself.", step=STEP, code="target_is_source")
        if target in targets:
            raise BadInput(f"The target {bounded(target.name, 120)} is named twice.", step=STEP)
        relocate.check_target(target, vc=source.vc)
        reserve = int(target.total_mb * wanted.reserve_percent / 100)
        if target.free_mb <= reserve:
            raise BadInput(
                f"The target {bounded(target.name, 120)} is full: {target.free_mb} MB are free, {reserve} MB of them reserved.",
                code="target_full",
                step=STEP,
                next_command="take another target, make room, or lower reserve_percent",
                datastore=target.name,
            )
        targets.append(target)
    return source, targets, stores


def chain_names(plan: Plan) -> dict[str, str]:
    """What people call each chain: by its base where that is on the source, else by the size of its first disk."""
    found: dict[str, str] = {}
    for move in (*plan.moves, *plan.stay):
        item = move.item
        if item.group and (item.is_template or item.group not in found):
            found[item.group] = f"{item.org}/{item.name if item.is_template else item.group.rpartition('/')[2]}"
    return found


def plan_row(move: Move, source: Datastore, chains: Mapping[str, str]) -> dict[str, Any]:
    """A line of the plan as the module returns it."""
    item = move.item
    return {
        "vm": item.name,
        "href": item.href,
        "vapp": item.vapp,
        "vdc": item.vdc,
        "org": item.org,
        "is_template": item.is_template,
        "from": source.name,
        "to": move.target.name if move.target is not None else None,
        "mb": item.mb + move.base_mb,
        "chain": chains.get(item.group),
        "chain_length": item.chain,
        "why": move.why,
        "wave": move.wave,
    }


def evacuate(
    client: Client,
    wanted: Wanted,
    *,
    check: bool = False,
    warn: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Move everything off a datastore, or, with C(check), say what would be moved where.

    :returns: changed, plan, moved, failed (and failures, the same: Ansible has a use of its own for the first name), left, empty, datastore, targets, journal.
    :raises BadInput: see check_wanted(), window_of(), stores_of(), make_plan() and evacuate_journal; nothing was begun.
    :raises Busy: another run is at it.
    :raises ServerError: codes C(evacuation_failed) and C(canary_failed), with everything in C(partial); or the server's own.
    """
    progress = progress or Progress()
    check_wanted(wanted)
    window = window_of(wanted.window, clock())
    relocate.version_or_refuse(client)
    source, targets, stores = stores_of(client, wanted)
    path = os.path.expanduser(wanted.journal or journal.default_path(uuid_of(source.href)))
    head = {"source": uuid_of(source.href), "vcenter": source.key[0], "moref": source.moref, "name": source.name, "host": client.where.host}
    if check:
        history = journal.read_history(path, head)
        return _look(client, wanted, window, (source, targets, stores), history, path, warn, progress).result
    with journal.Journal(path, head) as book:
        scene = _look(client, wanted, window, (source, targets, stores), book.history, path, warn, progress)
        scene.result["changed"] = False
        return _move(client, scene, book, progress, clock)


def _look(
    client: Client,
    wanted: Wanted,
    window: Window,
    stores: tuple[Datastore, list[Datastore], list[Datastore]],
    history: journal.History,
    path: str,
    warn: Callable[[str], None],
    progress: Progress,
) -> _Scene:
    source, targets, everything = stores
    names = names_of(client, everything)
    label = bounded(source.name, 60)
    content = content_of(
        client, source, names, warn=warn, seen=lambda what, done, total: progress.update(label, "read", done, total, why=what)
    )
    progress.check()
    kept = {uuid: s.target for uuid, s in history.vms.items() if s.event != journal.FAILED}
    plan = make_plan(
        content.items,
        source,
        targets,
        limits=Limits(wanted.max_per_target, wanted.max_per_source, wanted.max_per_host),
        reserve_percent=wanted.reserve_percent,
        canary=_canary(wanted, history),
        order=wanted.order,
        bases=content.bases,
        kept=kept,
    )
    for text in plan.warnings:
        warn(text)
    scene = _Scene(wanted, window, source, targets, content, plan)
    left = left_on(client, source, source, names, {m.item.uuid: m.why for m in plan.stay}, listed=content)
    chains = chain_names(plan)
    going = {m.item.uuid for m in plan.moves}
    staying = [row for row in left if uuid_of(row["href"]) not in going]
    scene.result = {
        "changed": bool(plan.moves),
        "datastore": source.as_dict(),
        "targets": [t.as_dict() for t in targets],
        "plan": [plan_row(m, source, chains) for m in (*plan.moves, *plan.stay)],
        "moved": [],
        "failed": [],
        "failures": [],
        "left": staying,
        "empty": not plan.moves and not left,
        "journal": path,
    }
    return scene


def _canary(wanted: Wanted, history: journal.History) -> Sequence[str]:
    """The canary of this run: none where it has passed before; a named one that is away already is not asked for again."""
    if history.canary_done:
        return ()
    away = {s.name for s in history.vms.values() if s.event == journal.MOVED}
    away |= {uuid for uuid, s in history.vms.items() if s.event == journal.MOVED}
    return [c for c in wanted.canary if c not in away and (not uuid_of(c) or uuid_of(c) not in away)]


def _jobs(moves: Sequence[Move], content: Content, history: journal.History) -> list[Job]:
    """The moves as jobs; one that is under way already has its task."""
    jobs = []
    for move in moves:
        if move.target is None:
            continue
        job = Job(move.item, move.target, move.base_mb)
        state = history.vms.get(move.item.uuid)
        job.task = content.moving.get(move.item.uuid) or (state.task if state is not None and state.event == journal.TASK else None)
        if job.task:
            job.joined, job.joins, job.began, job.began_wall = True, 1, time.monotonic(), time.time()
        jobs.append(job)
    return jobs


def _move(client: Client, scene: _Scene, book: journal.Journal, progress: Progress, clock: Callable[[], float]) -> dict[str, Any]:
    wanted, plan, label = scene.wanted, scene.plan, bounded(scene.source.name, 60)
    pace = Pace()
    for mb, seconds, clone in book.history.measured:
        pace.add(mb, seconds, clone)
    _found_away(scene, book)
    run = Run(
        client=client,
        source=scene.source,
        journal=book,
        throttle=Throttle(Limits(wanted.max_per_target, wanted.max_per_source, wanted.max_per_host), len(scene.targets)),
        space=Space(client, scene.targets, wanted.reserve_percent),
        window=scene.window,
        pace=pace,
        stop_after=wanted.stop_after_failures,
        timeout=wanted.timeout,
        busy_patience=wanted.busy_timeout,
        ended=_ended(client) if plan.moves else {},
        check=progress.check,
        tell=lambda phase, done, total, why: progress.update(label, phase, done, total, why=why),
        total=len(plan.moves),
    )
    reasons = {m.item.uuid: m.why for m in plan.stay}
    canary_failed = False
    try:
        _wait_for(scene.window, progress, label, len(plan.moves), clock)
        rest = _jobs(plan.rest, scene.content, book.history)
        first = _jobs(plan.canary, scene.content, book.history)
        if first:
            run.stop_after = 1
            run.go([*first, *(j for j in rest if j.task)], "canary")
            rest = [j for j in rest if not j.task]
            run.stop_after = wanted.stop_after_failures
            moved = {uuid_of(row["href"]) for row in run.outcome.moved}
            missing = [j for j in first if j.item.uuid not in moved]
            canary_failed = bool(run.outcome.failed)
            if missing or canary_failed:
                reasons.update({j.item.uuid: "not begun: the canary was not moved" for j in rest})
                rest = []
        if rest:
            if not book.history.canary_done and wanted.canary:
                book.canary_passed()
            run.go(rest, "move")
        elif first and not canary_failed:
            book.canary_passed()
    except FerryError as e:
        _told(scene, run, reasons)
        under_way = len(run.under_way)
        if isinstance(e, Interrupted) or e.left is None:
            e.left = f"{under_way} relocations that go on on the server, and the journal {book.path}"
            e.next_command = "the same command: it joins them, and goes on from there"
        e.partial = {**scene.result, **e.partial}
        raise
    finally:
        run.close()
    _told(scene, run, reasons)
    _prove(client, scene, {**reasons, **run.outcome.reasons})
    if run.outcome.failed:
        raise _failure(scene, canary_failed, run.stopping)
    return scene.result


def _found_away(scene: _Scene, book: journal.Journal) -> None:
    """What an earlier run had begun and is not on the source any more has been moved."""
    here = {i.uuid for i in scene.content.items}
    for uuid, state in list(book.history.vms.items()):
        if state.open and uuid not in here:
            book.note(journal.MOVED, uuid, state.name, state.target, mb=0, seconds=None, found=True)


def _ended(client: Client) -> dict[str, list[Task]]:
    """The relocations that have ended and that the server still knows of, by UUID of the VM."""
    found: dict[str, list[Task]] = {}
    try:
        for task in find_tasks(client):
            if not task.in_flight:
                found.setdefault(uuid_of(task.owner), []).append(task)
    except ServerError as e:
        # a server that does not let itself be asked so still lists the recent tasks in the VM
        if e.code not in ("refused", "forbidden", "not_found"):
            raise
    return found


def _told(scene: _Scene, run: Run, reasons: Mapping[str, str]) -> None:
    outcome = run.outcome
    scene.result.update(changed=bool(outcome.begun or outcome.moved), moved=outcome.moved, failed=outcome.failed, failures=outcome.failed)


def _wait_for(window: Window, progress: Progress, label: str, total: int, clock: Callable[[], float]) -> None:
    while window.start is not None and total and clock() < window.start:
        left = window.start - clock()
        progress.update(label, "wait", 0, total, why=f"the window opens in {max(1, round(left / 60))} min")
        progress.wait(min(left, 5.0))


def _prove(client: Client, scene: _Scene, reasons: Mapping[str, str]) -> None:
    """The source is read again; what is there is listed with the reason."""
    left: list[dict[str, Any]] = []
    for pause in LAST_LOOKS:
        client.sleep(pause)
        fresh = read_datastore(client, scene.source.href)
        left = left_on(client, scene.source, fresh, scene.content.names, reasons)
        scene.result["datastore"] = fresh.as_dict()
        # the server removes shadow VMs, and updates its figures, in its own time
        if any(row["kind"] not in ("shadow", "unknown") for row in left) or not left:
            break
    scene.result["left"] = left
    scene.result["empty"] = not left


def _failure(scene: _Scene, canary: bool, stopped: bool) -> ServerError:
    failed, left = scene.result["failed"], scene.result["left"]
    first = failed[0]
    what = "The canary failed, and nothing else was begun" if canary else f"{len(failed)} of the relocations failed"
    if stopped and not canary:
        what += ", and no more were begun"
    e = ServerError(
        f"{what}: {len(scene.result['moved'])} VMs were moved, {len(left)} things are left on {bounded(scene.source.name, 120)}.",
        code="canary_failed" if canary else "evacuation_failed",
        vm=first["vm"],
        step=relocate.STEP,
        said=first["reason"],
        left=f"the VMs in left, where they were; the journal {scene.result['journal']}",
        next_command="mend what failed and run the same again: it goes on from there",
        failures=[{"vm": f["vm"], "code": f["code"]} for f in failed[:20]],
    )
    e.partial = scene.result
    return e
