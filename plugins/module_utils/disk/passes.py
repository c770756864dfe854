# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run has to do: everything, the changes, a comparison of all, the rest of a run that was cut off, or nothing.

Facts of the ledger that this reads and writes: C(state) (copying, complete), C(source), C(target), C(stamp), C(planned)
and C(change_id) (see the ledger), C(pass) and C(reason) (mode of the pass that is under way, and why), C(generation),
C(missed) (the UUID of a tracking that was caught missing changes), C(doubt) and C(taken_over) (what a take-over left open).
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from .changes import ChangeId, cannot_follow, checked, refuses_tracking
from .digest import CHUNK
from .errors import BadInput, FerryError
from .ledger import BASE, DIRTY, UNKNOWN
from .proof import differs

if TYPE_CHECKING:
    from .job import Job


def prepare(job: Job) -> bool:
    """Begin a pass over C(job)'s disk; True where there is something to do."""
    ledger, source, tracking = job.ledger, job.source, job.tracking
    target = str(getattr(job.sink, "identity", ""))
    another = ledger.fact("target") != target
    state = None if another else ledger.fact("state")
    job.cut_off = state == "copying"
    altered = _altered(job, state)
    same = ledger.resized_from is None and not ledger.fact("doubt") and ledger.fact("source") == source.identity and not another
    if tracking is not None:
        same = same and bool(tracking.change_id) and ledger.fact("planned") == tracking.change_id and job.certain
    elif state == "complete" and not (job.certain and getattr(source, "certain", True)):
        same = False  # an export whose name says nothing of its state, or files that a running VM writes
    mode, how, reason = _choose(job, another, state, same)
    if mode == "none" and not altered:
        if not (job.proving and ledger.stale):
            result = job.result
            result.mode, result.digest, result.change_id = mode, ledger.fact("digest", ""), ledger.fact("change_id")
            job.done = source.capacity
            return False
        reason = "Chunks that were written without verification are proven."
    if mode == "none":
        mode = "repair" if altered else "incremental"
    if job.mode == "incremental" and mode not in ("incremental", "repair"):
        raise _refusal(job, reason)
    if altered:
        job.result.extra["target_altered"] = True
        if how != "forget":
            _distrust(job)
    _begin(job, mode, how, reason, target)
    # Asked when the sink was opened: true only for as long as nobody has written by way of this ledger.
    job.fresh = another and job.sink.reads_zero
    if ledger.fact("missed"):
        job.hint = None
    elif tracking is not None and not tracking.distrust:
        job.hint = tracking.allocated
    job.result.change_id = None
    return True


def _altered(job: Job, state: str | None) -> bool:
    """Whether the target is not as the runs before left it. While a copy is under way its own writing changes the stamp: then a
    label says whether it is still the file that the ledger speaks of, in the state that it speaks of."""
    ledger = job.ledger
    if state is None:
        return False
    if state == "complete" and ledger.fact("stamp") != getattr(job.sink, "stamp", str)():
        return True
    label = ledger.fact("label")
    if not label:
        return job.sink.reads_zero and ledger.stored
    generation = ledger.fact("generation", 0)
    # Killed before it was labelled anew, it has the label of the run before.
    return job.sink.label() not in (f"{label}/{generation}", f"{label}/{generation - 1}")  # type: ignore[attr-defined]  # it gave one


def _choose(job: Job, another: bool, state: str | None, same: bool) -> tuple[str, str | None, str]:
    """(mode of the result, how the ledger begins it or None to go on with what it has, why)."""
    ledger = job.ledger
    going_on = state == "copying" and ledger.fact("pass", "full") == "full"
    if another or not ledger.known:
        replaced = another and ledger.fact("target") is not None
        return "full", "forget", "The target is another one than before." if replaced else ""
    if job.mode == "full" and not going_on:
        return "full", "forget", "A full copy was asked for."
    if same and state == "complete":
        return "none", None, ""
    if same:
        return ledger.fact("pass", "full"), None, ledger.fact("reason", "")
    why = why_compare(job)
    if why is not None:
        return "full" if job.mode == "full" else "compare", "look", why
    if ledger.fact("change_id") is None:
        # The first full copy, or a comparison, goes on with the changes since.
        return ledger.fact("pass", "full"), "keep", ledger.fact("reason", "")
    return "incremental", "keep", ledger.fact("taken_over") or ""


def why_compare(job: Job) -> str | None:
    """Why the changes alone do not suffice to bring the target from what it is to what the source is now; None: they do."""
    ledger, tracking = job.ledger, job.tracking
    if ledger.resized_from is not None:
        return f"The disk was resized from {ledger.resized_from} to {ledger.capacity} bytes."
    if ledger.fact("doubt"):
        return str(ledger.fact("doubt"))
    if tracking is None:
        return "The source is in another state than the one that was copied, and its changes are not tracked."
    if tracking.distrust:
        return tracking.distrust
    now = ChangeId.parse(tracking.change_id)
    if now is not None and ledger.fact("missed") == now.uuid:
        return "The changed-block tracking of this disk was caught missing changes; switch it off and on again to have it trusted."
    why = cannot_follow(ledger.fact("planned"), tracking.change_id)
    if why is None and ledger.fact("planned") == tracking.change_id and not job.certain:
        # Each snapshot has a number of its own.
        why = "Another snapshot has the changeId of the last one: the VM was reverted, and came to the same number again."
    if why is None and job.sequential:
        return "The source can only be read as a whole."
    return why


def _refusal(job: Job, reason: str) -> BadInput:
    return BadInput(
        "More than the changes would have to be copied.",
        code="not_incremental",
        disk=job.disk,
        step="begin the copy",
        said=reason or "no copy to this target was finished yet",
        next_command="run it with mode: auto",
    )


def _begin(job: Job, mode: str, how: str | None, reason: str, target: str) -> None:
    ledger, result = job.ledger, job.result
    facts: dict[str, Any] = {
        "source": job.source.identity,
        "target": target,
        "disk": job.disk,
        "state": "copying",
        "generation": ledger.fact("generation", 0) + 1,
        "pass": mode,
        "reason": reason,
    }
    label, generation = ledger.fact("label"), facts["generation"]
    if not label or how == "forget":
        label = secrets.token_hex(8)
        # Before anything is kept of it: where the ledger knows a label, the target has had one.
        set_label = getattr(job.sink, "set_label", None)
        facts["label"] = label if set_label is not None and set_label(f"{label}/{generation - 1}") else None
    result.mode, result.reason = mode, reason
    _record(job, mode, how, reason, facts)
    if ledger.fact("label"):
        job.sink.set_label(f"{label}/{generation}")  # type: ignore[attr-defined]  # it could


def _record(job: Job, mode: str, how: str | None, reason: str, facts: dict[str, Any]) -> None:
    """Keep in the ledger what is to be done."""
    ledger, source, tracking, result = job.ledger, job.source, job.tracking, job.result
    if how is None:
        ledger.set(**facts)
        return
    if how != "keep":
        facts.update(doubt=None, taken_over=None)
    planned = (tracking.change_id or None) if tracking is not None else None
    # From now on the marks count as durable; so must be what they speak of.
    job.flush()
    if how == "keep" and tracking is not None:
        areas = checked(tracking.areas(ledger.fact("planned")), source.capacity)
        try:
            result.areas, result.changed_bytes = ledger.begin("keep", areas, doubtful=job.cut_off, **facts, planned=planned)
            return
        except FerryError as e:
            if not refuses_tracking(e) or e.code.startswith("ledger"):
                raise
            how, reason = "look", f"The changed areas cannot be had: {e.message}" + (f" ({e.said})" if e.said else "")
            if job.mode == "incremental":
                raise _refusal(job, reason) from e
        mode = "full" if job.mode == "full" else "compare"
        facts.update({"pass": mode, "reason": reason, "doubt": None, "taken_over": None})
        result.mode, result.reason = mode, reason
    ledger.begin(how, doubtful=job.cut_off, **facts, planned=planned, change_id=None)


def _distrust(job: Job) -> None:
    """The target was written by somebody else: compare each chunk with its digest, and forget those that differ."""
    ledger = job.ledger
    for first in range(0, ledger.chunks, job.per_unit):
        count = min(job.per_unit, ledger.chunks - first)
        if job.watcher is not None:
            job.watcher.update(job.disk, "look at the target", first * CHUNK, ledger.capacity, 0)
            job.watcher.check()
        states = ledger.states(first, count)
        if job.cut_off and all(s & BASE == UNKNOWN for s in states):
            continue  # not copied yet
        wrong = [chunk for chunk in differs(job, first, count) if not job.cut_off or states[chunk - first] & BASE != UNKNOWN]
        for chunk in wrong:
            ledger.mark(chunk, bytes([UNKNOWN]), None)
        job.result.repaired += sum(not states[chunk - first] & DIRTY for chunk in wrong)
    # Before the ledger says that we write there: a run that is cut off would not look again.
    job.make_durable()


def look_everywhere(job: Job, reason: str) -> None:
    """Changes were missed: compare the whole disk, and trust this tracking no more until it is begun anew."""
    ledger, tracking = job.ledger, job.tracking
    uuid = ChangeId.parse(tracking.change_id) if tracking is not None else None
    job.make_durable()
    facts: dict[str, Any] = {"change_id": None, "missed": uuid.uuid if uuid else "unknown", "pass": "compare", "reason": reason}
    ledger.begin("look", **facts)
    job.hint = None
    job.cut_off = False
    job.done = 0
    job.result.mode, job.result.reason = "compare", reason
