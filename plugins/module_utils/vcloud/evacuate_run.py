# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The run of an evacuation: as many relocations under way as are allowed, each begun once, looked after, and proven.

One thread decides and writes the journal; a few others send requests. What a VM's relocation is about to do is in the journal before it is
done; whatever a kill leaves is found again on the server by the task's href, or by the VM that owns the task.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable

from ..errors import FerryError, ServerError, bounded
from . import evacuate_journal as journal
from . import relocate
from .client import Client, pause_before
from .entities import Datastore, VmFacts
from .evacuate_journal import Journal
from .evacuate_limits import Job, Space, Throttle, fits_window
from .evacuate_window import Pace, Window
from .faults import again_later
from .tasks import IN_FLIGHT, Task, failed, find_tasks, read_task
from .transport import local_path

#: Requests at a time for beginning and for proving.
HANDS = 6
#: Seconds between two looks at the tasks: a part of how long a move takes, within these bounds.
LOOK_PART, FIRST_LOOK, LONGEST_LOOK = 0.04, 0.1, 5.0
#: Seconds for which a VM may stay busy with something else, and a server may be away.
BUSY_PATIENCE = 900.0
PATIENCE = 600.0

#: Trouble with the server as a whole: it is tried again, and nothing is held against the VM.
_AWAY = ("lost_answer", "unreachable", "paging", "html", "protocol", "unavailable", "throttled", "too_large", "redirect", "unauthorized")


@dataclass(frozen=True)
class Begun:
    """What became of beginning one: a task, or the VM was away from the source already."""

    task: Task | None
    joined: bool = False
    after: VmFacts | None = None


@dataclass
class Outcome:
    """What the run did. Rows as the module returns them; C(reasons): why VMs were not moved, by UUID."""

    moved: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    begun: int = 0


@dataclass
class Run:
    """One run over the jobs of an evacuation.

    :param ended: the relocations that had ended before this run, by UUID of the VM: none of them is what became of a lost answer.
    :param check: called often; raises Interrupted where the run has to stop.
    :param tell: is told of the phase, how many are done of how many, and a remark.
    """

    client: Client
    source: Datastore
    journal: Journal
    throttle: Throttle
    space: Space
    window: Window
    pace: Pace
    stop_after: int
    timeout: float
    ended: dict[str, list[Task]] = field(default_factory=dict)
    check: Callable[[], None] = lambda: None
    tell: Callable[[str, int, int, str], None] = lambda phase, done, total, why: None
    outcome: Outcome = field(default_factory=Outcome)
    total: int = 0
    busy_patience: float = BUSY_PATIENCE
    patience: float = PATIENCE

    def __post_init__(self) -> None:
        self._waiting: list[Job] = []
        self._flying: list[Job] = []  # begun: being asked for, or with a task
        self._asked: dict[Future[Begun], Job] = {}
        self._proofs: dict[Future[VmFacts], tuple[Job, Task | None]] = {}
        self._next_look = 0.0
        self._trouble_since: float | None = None
        self._pool = ThreadPoolExecutor(HANDS, thread_name_prefix="evacuate")

    # -- the loop -----------------------------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether so many have failed that no more are begun."""
        return 0 < self.stop_after <= len(self.outcome.failed)

    @property
    def under_way(self) -> list[Job]:
        """What was begun and has not ended, as far as is known."""
        return [j for j in self._flying if j.task]

    def go(self, jobs: Iterable[Job], phase: str) -> None:
        """Do all of C(jobs), in their order as far as the limits allow. Returns when nothing is under way any more.

        :raises FerryError: Interrupted, the journal cannot be written, the server stays away. What was begun is in the journal.
        """
        for job in jobs:
            (self._flying if job.task else self._waiting).append(job)
        try:
            while self._waiting or self._flying or self._asked or self._proofs:
                self.check()
                self._collect()
                self._look()
                self._begin()
                self.tell(phase, len(self.outcome.moved), self.total, self._remark())
                self._pause()
        except BaseException:
            self._leave()
            raise

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def _remark(self) -> str:
        words = [f"{len(self._flying)} under way"] if self._flying else []
        if self.outcome.failed:
            words.append(f"{len(self.outcome.failed)} failed")
        if self.throttle.allowed < self.throttle.most:
            words.append(f"the server is busy, {self.throttle.allowed} at a time")
        if self.stopping:
            words.append("no more are begun")
        return ", ".join(words)

    def _pause(self) -> None:
        waits: list[Future[Any]] = [*self._asked, *self._proofs]
        seconds = max(0.0, min(self._next_look - time.monotonic(), 0.5)) if self._flying else 0.1
        if waits:
            wait(waits, timeout=min(seconds, 0.05), return_when="FIRST_COMPLETED")
        elif self._waiting or self._flying:
            time.sleep(max(0.005, seconds))  # until the next look at the tasks

    def _leave(self) -> None:
        """Before the run ends early: what the server has already answered goes to the journal, so that the next run joins by href."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for future, job in self._asked.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                found = future.result()
                if found.task is not None:
                    try:
                        self._note(journal.TASK, job, task=found.task.href)
                    except FerryError:
                        return  # the journal itself is the trouble; the task is found by its owner

    def _note(self, event: str, job: Job, **facts: Any) -> None:
        self.journal.note(event, job.item.uuid, job.item.name, job.target.key, **facts)

    # -- beginning ----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._waiting:
            return
        if self.stopping:
            self._put_off(self._waiting, f"not begun: {len(self.outcome.failed)} have failed before")
            return
        # a task that ended badly counts before its VM has been read
        bad = sum(task is not None and task.status != "success" and not job.joined for job, task in self._proofs.values())
        if len(self._flying) >= self.throttle.allowed or 0 < self.stop_after <= len(self.outcome.failed) + bad:
            return
        try:
            self.space.refresh()
        except ServerError as e:
            self._away(e)
            return
        now, wall = time.monotonic(), time.time()
        late: list[Job] = []
        full, bases = self.throttle.full_targets(self._flying), self._bases_to_come()
        for job in list(self._waiting):
            if len(self._flying) >= self.throttle.allowed:
                break
            if not fits_window(job, self.window, self.pace, wall):
                late.append(job)
            elif job.target.key in full or job.not_before > now or (job.item.group in bases and not job.item.is_template):
                continue
            elif self.throttle.may(job, self._flying) and self._room(job):
                self._begin_one(job)
                full = self.throttle.full_targets(self._flying)
        self._put_off(late, "the window closes before it would be over")

    def _begin_one(self, job: Job) -> None:
        self._waiting.remove(job)
        job.tries += 1
        job.began, job.began_wall = time.monotonic(), time.time()
        self._note(journal.BEGUN, job)
        self._flying.append(job)
        self._asked[self._pool.submit(self._ask, job)] = job

    def _bases_to_come(self) -> set[str]:
        """The chains whose base is still to arrive: a clone that is there before it makes the server copy the base."""
        coming = [*self._waiting, *self._flying, *(j for j, task in self._proofs.values())]
        return {j.item.group for j in coming if j.item.is_template and j.item.group}

    def _room(self, job: Job) -> bool:
        """Whether its target takes it now; one that will never take it is put off, or sent elsewhere."""
        trouble = self.space.trouble(job.target.key)
        if not trouble and self.space.fits(job.target.key, job.need_mb, self._flying):
            return True
        if not trouble and self.space.may_come(job.target.key, self._flying):
            return False
        other = self.space.other(job, self._flying) if not job.item.group else None
        if other is not None:
            job.target = other
            return self.throttle.may(job, self._flying)
        self._put_off([job], trouble or f"no room: it takes up to {job.need_mb} MB, and {job.target.name} has not so much left")
        return False

    def _put_off(self, jobs: Iterable[Job], why: str) -> None:
        for job in list(jobs):
            self._waiting.remove(job)
            self.outcome.reasons[job.item.uuid] = job.why or why

    def _ask(self, job: Job) -> Begun:
        """In a thread: begin it, unless it is away already."""
        now = relocate.read(self.client, job.item.href, job.item.name)
        if self._away_from_source(now):
            return Begun(None, after=now)
        begun = relocate.begin(self.client, now, job.target, known=self.ended.get(job.item.uuid, ()))
        return Begun(begun.task, begun.joined)

    def _away_from_source(self, facts: VmFacts) -> bool:
        return facts.home is not None and self.source.key not in (facts.home, *facts.disk_datastores)

    # -- what came of it ----------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        for asked in [f for f in self._asked if f.done()]:
            self._answered(asked, self._asked.pop(asked))
        for proof in [f for f in self._proofs if f.done()]:
            job, task = self._proofs.pop(proof)
            self._proven(proof, job, task)

    def _answered(self, future: Future[Begun], job: Job) -> None:
        try:
            begun = future.result()
        except ServerError as e:
            self._flying.remove(job)
            self._refused(job, e)
            return
        self._trouble_since = None
        job.busy_since = None
        if begun.task is None:
            if begun.after is None:
                self._prove(job, None)
            else:
                self._arrived(job, None)
            return
        job.task, job.joined = begun.task.href, begun.joined
        job.joins += begun.joined
        self.outcome.begun += 1
        self._note(journal.TASK, job, task=job.task)
        self.throttle.well()
        self._next_look = min(self._next_look, time.monotonic() + self._interval())

    def _refused(self, job: Job, e: ServerError) -> None:
        """Beginning it was refused, for the moment or for good."""
        now = time.monotonic()
        if e.code == "busy_entity":
            job.busy_since = job.busy_since if job.busy_since is not None else now
            if now - job.busy_since > self.busy_patience:
                self.outcome.reasons[job.item.uuid] = f"busy: {bounded(e.said or e.message, 160)}"
                self._note(journal.LATER, job, why="busy")
                return
            job.not_before = now + self.throttle.busy(job, self._flying)
            self._waiting.append(job)
        elif again_later(e):
            if e.code == "queue_full":
                self.throttle.full(len(self._flying))
            else:
                self.throttle.away(e.details.get("retry_after"))
            self._away(e, patience=max(self.patience, self.busy_patience))
            self._waiting.insert(0, job)
        elif e.code in _AWAY:
            self._away(e)
            job.not_before = now + pause_before(min(job.tries, 6) + 1)
            self._waiting.insert(0, job)
        elif e.code == "not_found" and e.step == "read the VM":
            self.outcome.reasons[job.item.uuid] = ""  # it was deleted meanwhile
            self._note(journal.LATER, job, why="gone")
        elif e.code in ("login", "untrusted_certificate", "relocate_gone"):
            raise e
        else:
            self._fail(job, e)

    def _away(self, e: ServerError, patience: float | None = None) -> None:
        """The server as a whole is in trouble; raises when that lasts."""
        now = time.monotonic()
        if self._trouble_since is None:
            self._trouble_since = now
        if now - self._trouble_since > (self.patience if patience is None else patience):
            e.left = f"{len(self._flying)} relocations under way, which go on; the journal has them"
            e.next_command = "the same again when the server answers: it goes on from there"
            raise e

    def _fail(self, job: Job, e: FerryError) -> None:
        said = str(e.said or "")
        self._note(journal.FAILED, job, task=job.task, code=e.code, why=bounded(e.message, 200))
        self.outcome.failed.append(
            {**self._row(job), "reason": f"{e.message}{' ' + said if said else ''}", "code": e.code, "details": e.as_dict().get("details")}
        )
        self.outcome.reasons[job.item.uuid] = f"failed: {bounded(f'{e.message} {said}'.strip(), 300)}"

    def _row(self, job: Job) -> dict[str, Any]:
        item = job.item
        return {
            "vm": item.name,
            "href": item.href,
            "vapp": item.vapp,
            "vdc": item.vdc,
            "org": item.org,
            "is_template": item.is_template,
            "from": self.source.name,
            "to": job.target.name,
            "mb": item.mb,
            "task": job.task,
            "joined": job.joined,
            "seconds": round(time.time() - job.began_wall, 3) if job.began_wall else None,
        }

    # -- looking at tasks ---------------------------------------------------------------------------------------------

    def _interval(self) -> float:
        typical = self.pace.typical()
        return FIRST_LOOK if typical is None else max(FIRST_LOOK, min(LONGEST_LOOK, typical * LOOK_PART))

    def _look(self) -> None:
        """How far all tasks are: one query for those under way, one request for each that no longer is."""
        now = time.monotonic()
        jobs = [j for j in self._flying if j.task]
        if not jobs or now < self._next_look:
            return
        try:
            running = {t.path: t for t in find_tasks(self.client, status=IN_FLIGHT)} if len(jobs) > 2 else {}
            for job in jobs:
                task = self._task_of(job, running)
                if task is not None and task.in_flight:
                    if job.began and now - job.began > self.timeout:
                        self._flying.remove(job)
                        text = f"It is not over after {self.timeout:g} seconds; the task goes on."
                        self._fail(job, ServerError(text, code="timeout", vm=job.item.name, step=relocate.STEP))
                    continue
                self._prove(job, task)
            self._trouble_since = None
        except ServerError as e:
            if e.code not in _AWAY and not again_later(e):
                raise
            self._away(e)
        self._next_look = time.monotonic() + self._interval()

    def _task_of(self, job: Job, running: dict[str, Task]) -> Task | None:
        """The task of C(job); None where the server has forgotten it."""
        href = job.task or ""
        found = running.get(local_path(href))
        if found is not None:
            return found
        try:
            return read_task(self.client, href)
        except ServerError as e:
            if e.code not in ("not_found", "forbidden", "refused"):
                raise
            return None

    def _prove(self, job: Job, task: Task | None) -> None:
        self._proofs[self._pool.submit(relocate.read, self.client, job.item.href, job.item.name)] = (job, task)
        # its place is free while the VM is read
        if job in self._flying:
            self._flying.remove(job)

    def _proven(self, future: Future[VmFacts], job: Job, task: Task | None) -> None:
        """The task is over, and the VM was read again: there is no other proof."""
        try:
            now = future.result()
        except ServerError as e:
            if e.code in _AWAY or again_later(e):
                self._away(e)
                self._prove(job, task)
                return
            if e.code == "not_found":
                self.outcome.reasons[job.item.uuid] = ""
                self._note(journal.LATER, job, why="gone")
                return
            self._fail(job, e)
            return
        if self._away_from_source(now):
            self._arrived(job, task)
        elif task is not None and not job.joined and task.status != "success":
            self._fail(job, failed(task, vm=job.item.name, step=relocate.STEP))
        elif job.joined and job.joins < 3 or task is None and job.tries < 3:
            # somebody else's relocation, or one of an earlier run, and the VM is still here: now ours
            if task is not None:
                self.ended.setdefault(job.item.uuid, []).append(task)
            job.task, job.joined = None, False
            self._waiting.insert(0, job)
        else:
            text = "The relocation ended well, but the VM or a disk of it is still on the source."
            self._fail(job, ServerError(text, code="not_moved", vm=job.item.name, step="look where the VM is after the relocation"))

    def _arrived(self, job: Job, task: Task | None) -> None:
        if job in self._flying:
            self._flying.remove(job)
        seconds = time.monotonic() - job.began if job.began and task is not None and not job.joined else None
        if seconds is not None:
            self.pace.add(job.item.mb, seconds, job.clone)
        self.space.arrived(job)
        self._note(journal.MOVED, job, mb=job.item.mb, seconds=seconds, clone=job.clone)
        self.outcome.moved.append(self._row(job))
        self.outcome.reasons.pop(job.item.uuid, None)
