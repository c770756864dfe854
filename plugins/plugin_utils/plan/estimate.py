# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many bytes of a VM are to be read, how fast, and how long each of its phases takes. Pure; bytes, bytes per second, seconds.

Each figure says what it rests on: C(measured) on that conversion host, C(stated) by the user, or C(guess).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

MEASURED, STATED, GUESS = "measured", "stated", "guess"
_ORDER = (MEASURED, STATED, GUESS)
MB = 1_000_000
#: Bytes per second by transport where nothing is known: what a 1 GbE link and a copy read back from its target come to.
RATES = {"https": 80 * MB, "nfc": 60 * MB, "nbd": 100 * MB}
#: Seconds that steps take beside copying where nothing is known.
STEPS = {"prepare": 10.0, "copy": 15.0, "cycle": 15.0, "cutover": 15.0, "convert": 300.0, "land": 30.0, "ready": 10.0, "note": 3.0}
#: Share of what a disk holds that a guest writes in an hour, where nothing is known.
CHURN_SHARE = 0.02
#: A part of a phase that is less than this share of it does not decide what the whole phase rests on.
SLIGHT = 0.1
#: Share of a target that verification reads back with C(sample), as the copy engine does it.
SAMPLE = 0.05


@dataclass
class Terms:
    """What was asked for with one VM."""

    machine: str = "localhost"
    strategy: str = "cold"
    phases: Sequence[str] = ("precopy", "cutover")
    transport: str = "auto"
    nbd: bool = False
    verify: str = ""
    throughput: float | None = None
    landing: float | None = None
    shutdown: float = 30.0
    budget: float = 300.0
    outside: float = 0.01
    interval: float = 60.0
    least: int = 1
    cutover_at: str = ""
    #: Whether its guest is converted, and the seconds that were stated for it.
    converts: bool = False
    convert: float | None = None


@dataclass(frozen=True)
class Figure:
    """A rate or a time, with what it rests on."""

    value: float
    basis: str


@dataclass
class Pace:
    """What a conversion host has measured (copy_info)."""

    transports: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, Any] = field(default_factory=dict)

    def rate(self, transport: str, host: str | None, stated: float | None) -> Figure:
        """Bytes per second of one VM's copy."""
        if stated:
            return Figure(stated, STATED)
        known = self.transports.get(transport) or {}
        own = (known.get("hosts") or {}).get((host or "").casefold()) or {}
        for entry in (own, known):
            if entry.get("rate"):
                return Figure(float(entry["rate"]), MEASURED)
        return Figure(float(RATES.get(transport, RATES["https"])), GUESS)

    def step(self, name: str, stated: float | None = None) -> Figure:
        """Seconds of a step."""
        if stated is not None:
            return Figure(stated, STATED)
        known = self.steps.get(name) or {}
        if "seconds" in known:
            return Figure(float(known["seconds"]), MEASURED)
        return Figure(STEPS.get(name, 0.0), GUESS)


@dataclass
class DiskNeeds:
    """One disk. C(reads): bytes to be read in the first pass (0: nothing is left). C(churn): bytes per second, where known."""

    key: str
    capacity: int
    allocated: int | None
    changed: int | None
    basis: str
    reads: int
    delta: bool
    churn: float | None
    done: bool = False


def churn_of(history: Sequence[Mapping[str, Any]]) -> float | None:
    """Bytes per second that the guest changed, by the last copies that its ledger remembers; None where fewer than two tell."""
    changed, since = 0.0, 0.0
    for before, row in zip(history, history[1:], strict=False):
        if row.get("mode") != "incremental":
            changed, since = 0.0, 0.0
            continue
        took = float(row.get("at") or 0) - float(before.get("at") or 0)
        if took > 0:
            changed, since = changed + float(row.get("changed") or 0), since + took
    return changed / since if since > 0 else None


def needs_of(
    disk: Mapping[str, Any],
    *,
    way: str,
    warm: bool,
    off: bool,
    tracked: bool,
    snapshots: int,
    usage: Mapping[str, Any],
    kept: Mapping[str, Any] | None,
    change_id: str | None,
    to_copy: bool,
    now: float,
) -> DiskNeeds:
    """What is to be read of C(disk) (vm_info's facts).

    :param usage: its entry of vm_disk_usage.
    :param kept: its ledger (copy_info), None where there is none.
    :param change_id: at which its target equals it, by the ledger or the volume's metadata.
    :param now: seconds since the epoch.
    """
    capacity = int(disk.get("capacity") or 0)
    allocated = usage.get("allocated")
    if allocated is not None:
        allocated = min(int(allocated), capacity)  # a chain of snapshots may take more; each byte is read once
    history = (kept or {}).get("history") or []
    churn = churn_of(history)
    changed, basis = usage.get("changed"), "areas"
    if changed is None and change_id and churn is not None:
        changed = min(capacity, round(churn * max(0.0, now - float(history[-1].get("at") or now))))
        basis = "churn"
    elif changed is None:
        basis = "unknown"
    out = DiskNeeds(str(disk.get("key")), capacity, allocated, changed, basis, 0, False, churn, not to_copy)
    if not to_copy:
        return out
    if change_id and way != "nfc":
        # Its changes are tracked and it was copied: the rest is a delta. Not known how much: nothing is taken for granted.
        out.delta, out.reads = True, changed if changed is not None else _guessed(capacity, allocated)
        return out
    hinted = (
        way == "https" and warm and not off and disk.get("datastore_type") == "VMFS" and not snapshots and len(disk.get("chain") or ()) < 2
    )
    whole = allocated if allocated is not None and (hinted or way in ("nfc", "nbd")) else capacity
    left = (kept or {}).get("left")
    copying = (kept or {}).get("state") == "copying" and left is not None and way != "nfc"
    out.reads = min(whole, int(left)) if copying and left is not None else whole
    return out


def _guessed(capacity: int, allocated: int | None) -> int:
    """A day's changes by the guessed churn."""
    return round((allocated if allocated is not None else capacity) * min(1.0, CHURN_SHARE * 24))


def weakest(phases: Sequence[Mapping[str, Any]]) -> str:
    """What C(phases) of plan.json rest on: the weakest of those that matter, which make up a tenth of the time."""
    whole = sum(p["seconds"] or 0.0 for p in phases)
    weighty: dict[str, float] = {}
    for p in phases:
        weighty[p["basis"]] = weighty.get(p["basis"], 0.0) + (p["seconds"] if p["seconds"] is not None else math.inf)
    found = [basis for basis, seconds in weighty.items() if seconds > SLIGHT * whole]
    return max(found, key=_ORDER.index, default=MEASURED)


@dataclass
class Phase:
    """One phase: C(seconds) that pass in any case, and C(count) bytes at C(rate)."""

    name: str
    seconds: float
    count: int = 0
    rate: float = 0.0
    basis: str = GUESS
    after: float = 0.0

    @property
    def alone(self) -> float:
        """Seconds where nothing else is in its way."""
        return self.seconds + (self.count / self.rate if self.rate > 0 else 0.0)


def _phase(name: str, fixed: Figure, count: int = 0, rate: Figure | None = None, after: float = 0.0) -> Phase:
    copying = count / rate.value if rate is not None and rate.value > 0 else 0.0
    whole = fixed.value + copying
    parts = [(fixed.value, fixed.basis)] + ([(copying, rate.basis)] if rate is not None and count else [])
    weighty = [basis for seconds, basis in parts if seconds > SLIGHT * whole] or [fixed.basis]
    return Phase(name, fixed.value, count, rate.value if rate is not None else 0.0, max(weighty, key=_ORDER.index), after)


def _sum(*figures: Figure) -> Figure:
    return Figure(sum(f.value for f in figures), max((f.basis for f in figures if f.value > 0), key=_ORDER.index, default=MEASURED))


def phases_of(
    disks: Sequence[DiskNeeds],
    terms: Terms,
    pace: Pace,
    *,
    way: str,
    host: str | None,
    off: bool,
    absent: int,
    lands: bool,
    after: float = 0.0,
) -> list[Phase]:
    """The phases of one VM, in order; none where nothing is to be done.

    :param way: by which its bytes come.
    :param absent: volumes to be made.
    :param lands: whether its server has to be made or started.
    :param after: seconds from now to the moment before which it is not to be cut over.
    """
    todo = [d for d in disks if not d.done]
    rate = pace.rate(way, host, terms.throughput)
    out: list[Phase] = []
    if absent:
        out.append(_phase("prepare", pace.step("prepare")))
    shutdown = Figure(0.0 if off else terms.shutdown, GUESS)
    if todo and terms.strategy == "warm" and not off:
        out += _warm(todo, terms, pace, rate, shutdown, after)
        if "cutover" not in terms.phases:
            return out
    elif todo:
        fixed = pace.step("copy")
        if fixed.basis == GUESS:
            fixed = _sum(fixed, shutdown)
        out.append(_phase("copy", fixed, sum(d.reads for d in todo), rate))
        proof = _proof(terms.verify or ("sample" if terms.strategy == "warm" else "full"), todo)
        if proof:
            out.append(_phase("verify", Figure(0.0, MEASURED), proof, rate))
    if lands:
        if terms.converts:
            out.append(_phase("convert", pace.step("convert", terms.convert)))
        # What the user states is for landing and readiness together.
        out.append(_phase("land", pace.step("land", terms.landing)))
        if terms.landing is None:
            out.append(_phase("ready", pace.step("ready")))
    if out and (lands or todo):
        out.append(_phase("note", pace.step("note")))
    return out


def _proof(verify: str, disks: Sequence[DiskNeeds], written: int | None = None) -> int:
    """Bytes that are read back; of a delta with C(sample) what it wrote."""
    if verify == "full":
        return sum(d.capacity for d in disks)
    if verify != "sample":
        return 0
    return round(sum((d.reads if written is None else 0) if d.delta else SAMPLE * d.capacity for d in disks)) + (written or 0)


def churn_now(disks: Sequence[DiskNeeds]) -> Figure:
    """Bytes per second that the guest changes."""
    known = [d.churn for d in disks if d.churn is not None]
    if known:
        return Figure(sum(known), MEASURED)
    held = sum(d.allocated if d.allocated is not None else d.capacity for d in disks)
    return Figure(held * CHURN_SHARE / 3600, GUESS)


def _warm(todo: Sequence[DiskNeeds], terms: Terms, pace: Pace, rate: Figure, shutdown: Figure, after: float) -> list[Phase]:
    churn = churn_now(todo)
    cycle = pace.step("cycle")
    out = []
    # A delta of a cycle is what has changed since the one before began; without pauses that is soon only its own fixed time.
    delta = min(sum(d.capacity for d in todo), round(churn.value * max(cycle.value, 1.0)))
    if "precopy" in terms.phases:
        first = sum(d.reads for d in todo)
        count = first + _proof(terms.verify or "full", todo) + terms.least * 2 * delta
        fixed = Figure(cycle.value * (1 + terms.least), cycle.basis)
        out.append(_phase("precopy", fixed, count, rate))
    if "cutover" in terms.phases:
        last = delta + round(churn.value * shutdown.value) if "precopy" in terms.phases else sum(d.reads for d in todo)
        outside = round(terms.outside * sum(d.capacity for d in todo))
        proof = sum(d.capacity for d in todo) if terms.verify == "full" else 0 if terms.verify == "none" else last
        fixed = pace.step("cutover")
        fixed = _sum(fixed, shutdown) if fixed.basis == GUESS else fixed
        phase = _phase("cutover", fixed, last + outside + proof, rate, after)
        if churn.basis == GUESS and last + outside + proof and phase.basis != GUESS and last > SLIGHT * (last + outside + proof):
            phase.basis = GUESS
        out.append(phase)
    return out
