# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the last delta of a running machine fits a downtime, told from the cycles measured so far.

The model, with all rates in bytes per second and all times in seconds:

* While a cycle of C(T) seconds copies what had changed, the guest changes C(churn x T) more. That is the next delta.
* A cycle costs C(fixed + delta / throughput). Cycles without a pause between them therefore tend to C(fixed / (1 - r)) with
  C(r = churn / throughput), and grow without end where C(r) is 1 or more.
* The downtime is C(shutdown + fixed + delta / throughput + outside + landing), where the delta has grown from the last
  snapshot to the moment at which the guest is off.

Churn depends on how long one looks (a hot block counts once per cycle), and is never steady. So the verdict "fits" is made
with the higher of the last cycle's figure and the recent mean, and the verdict "will never fit" with the lower.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Iterable, Mapping, Sequence

from .errors import BadInput

#: Cycles that make up the recent mean.
WINDOW = 3
#: Less than this is no progress from one series of cycles to the next.
PROGRESS = 0.05

FITS, GO_ON, DIVERGING, TIME, CYCLES = "fits", "go_on", "diverging", "time", "cycles"


@dataclass(frozen=True)
class Cycle:
    """What one cycle measured.

    :param mode: C(full), C(compare) or C(incremental).
    :param changed: bytes that tracking says have changed since the snapshot before.
    :param read: bytes read from the source.
    :param copying: seconds in which the slowest disk was copied and verified.
    :param seconds: the whole cycle, with snapshot, attachments and consolidation.
    :param since: seconds from the snapshot before to this one; None where it is not known.
    :param capacity: bytes of all disks.
    """

    mode: str
    changed: int
    read: int
    copying: float
    seconds: float
    since: float | None = None
    capacity: int = 0


@dataclass(frozen=True)
class Terms:
    """What is asked for.

    :param budget: seconds of downtime that are allowed.
    :param shutdown: seconds that the guest takes to shut down; it goes on writing meanwhile.
    :param landing: seconds from the last byte to the machine's answer at its new place.
    :param outside: share (0 to 1) of the disks that the cutover compares outside the changed areas.
    :param whole: whether the cutover reads the whole target back, not only a sample of it as the cycles do.
    :param interval: seconds between the end of a cycle and the next one, where nothing calls for haste.
    :param until: time (seconds since the epoch) at which precopying ends.
    :param keep: go on until C(until) also when the delta fits already.
    :param most: cycles at most.
    :param least: incremental cycles at least.
    :param patience: measured incremental cycles before it is said that this will not converge.
    :param stubborn: never stop because of that.
    """

    budget: float
    shutdown: float = 30.0
    landing: float = 0.0
    outside: float = 0.0
    whole: bool = False
    interval: float = 0.0
    until: float | None = None
    keep: bool = False
    most: int = 100
    least: int = 1
    patience: int = 3
    stubborn: bool = False


@dataclass(frozen=True)
class Forecast:
    """What comes of it. Rates in bytes per second, times in seconds; None is "not known yet".

    C(downtime) is that of a cutover right now, C(limit) the least that further cycles can reach (infinite: None, with
    C(diverges)). C(needs_budget), C(needs_churn) and C(needs_throughput) say what would do where the verdict is C(diverging).
    """

    verdict: str
    reason: str
    wait: float = 0.0
    churn: float | None = None
    throughput: float | None = None
    fixed: float | None = None
    delta: int | None = None
    downtime: float | None = None
    limit: float | None = None
    diverges: bool = False
    needs_budget: float | None = None
    needs_churn: float | None = None
    needs_throughput: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For a module's result: rates and sizes as whole bytes, times to a tenth of a second."""
        out = asdict(self)
        for key in ("wait", "fixed", "downtime", "limit", "needs_budget"):
            out[key] = None if out[key] is None else round(out[key], 1)
        for key in ("churn", "throughput", "needs_churn", "needs_throughput"):
            out[key] = None if out[key] is None else round(out[key])
        return out


@dataclass(frozen=True)
class _Rates:
    churn: float
    throughput: float
    fixed: float

    @property
    def ratio(self) -> float:
        if self.churn <= 0:
            return 0.0
        return self.churn / self.throughput if self.throughput > 0 else math.inf


def cycle_of(disks: Iterable[Mapping[str, Any]], seconds: float, since: float | None) -> Cycle:
    """One cycle from the C(disks) that vm_disk_copy returned; they were copied at the same time."""
    rows = list(disks)

    def total(key: str) -> int:
        return sum(int(row.get(key) or 0) for row in rows)

    modes = {str(row.get("mode") or "full") for row in rows}
    tracked = modes <= {"incremental", "none"}
    return Cycle(
        mode="incremental" if tracked else "full" if "full" in modes else "compare",
        changed=total("changed_bytes") if tracked else total("bytes_written"),
        read=total("bytes_read"),
        copying=max([float(row.get("seconds") or 0) for row in rows], default=0.0),
        seconds=max(0.0, seconds),
        since=since,
        capacity=total("capacity"),
    )


def epoch(text: str) -> float:
    """A date with time (ISO 8601; without an offset it is this machine's local time) in seconds since the epoch.

    :raises BadInput: for anything else. A time without a date is refused: run again after midnight it would mean another day.
    """
    given = text.strip()
    try:
        if len(given) < 16:  # 2026-11-22T02:00
            raise ValueError
        return datetime.fromisoformat(given[:-1] + "+00:00" if given[-1] in "zZ" else given).timestamp()
    except (ValueError, OverflowError):
        raise BadInput(
            f"{given[:60]!r} is no date with a time.", step="read the options", next_command="write it as 2026-11-22T02:00:00+09:00"
        ) from None


def _measured(cycles: Sequence[Cycle]) -> list[Cycle]:
    """The incremental cycles at the end whose churn is known; one that could not trust tracking starts the series anew."""
    out: list[Cycle] = []
    for cycle in reversed(cycles):
        if cycle.mode != "incremental":
            break
        if cycle.since is not None and cycle.since > 0:
            out.append(cycle)
    return out[::-1]


def _throughput(cycles: Sequence[Cycle]) -> float:
    busy = [c for c in cycles if c.read > 0 and c.copying > 0]
    return sum(c.read for c in busy) / sum(c.copying for c in busy) if busy else 0.0


def _rates(deltas: Sequence[Cycle], cycles: Sequence[Cycle], *, hopeful: bool) -> _Rates:
    recent = deltas[-WINDOW:]
    choose = min if hopeful else max
    means = sum(c.changed for c in recent) / sum(c.since or 0 for c in recent)
    last = recent[-1].changed / (recent[-1].since or 1)
    speeds = [s for s in (_throughput(recent), _throughput(recent[-1:])) if s > 0] or [_throughput(cycles)]
    fixed = [max(0.0, c.seconds - c.copying) for c in recent]
    # A cycle that read nothing still took its time; with the others this is part of the throughput.
    fixed = [f + (c.copying if not c.read else 0.0) for f, c in zip(fixed, recent, strict=True)]
    return _Rates(
        churn=choose(means, last),
        throughput=max(speeds) if hopeful else min(speeds),
        fixed=choose(sum(fixed) / len(fixed), fixed[-1]),
    )


def _outside(cycles: Sequence[Cycle], terms: Terms) -> float:
    """Seconds that comparing outside the changed areas takes, and reading the whole target back where that is asked for."""
    speed = _throughput(cycles)
    capacity = cycles[-1].capacity
    held = max([c.read for c in cycles if c.mode == "full"], default=0) or capacity
    return (terms.outside * capacity + terms.whole * held) / speed if speed > 0 else 0.0


def _downtime(rates: _Rates, age: float, other: float, terms: Terms, capacity: int) -> tuple[int, float]:
    """The last delta (bytes) and the downtime (seconds) when the newest snapshot is C(age) seconds old."""
    delta = rates.churn * (age + terms.shutdown)
    if capacity:
        delta = min(delta, capacity)
    copying = delta / rates.throughput if rates.throughput > 0 else 0.0 if delta <= 0 else math.inf
    return round(delta), terms.shutdown + rates.fixed + copying + other


def _limit(rates: _Rates, other: float, terms: Terms, capacity: int) -> float:
    """The downtime that cycles without pauses tend to; infinite where the guest changes more than is copied."""
    if rates.ratio >= 1:
        return math.inf
    return _downtime(rates, rates.fixed / (1 - rates.ratio), other, terms, capacity)[1]


def _most_ratio(rates: _Rates, other: float, terms: Terms) -> float:
    """The greatest C(churn / throughput) with which the limit is within the budget; 0 where no churn at all would do.

    The limit as a function of r, put equal to the budget, is S r^2 - (F + S + K) r + K = 0, with the shutdown S, the fixed
    costs F and K = budget - S - F - other.
    """
    s, f = terms.shutdown, rates.fixed
    k = terms.budget - s - f - other
    if k <= 0:
        return 0.0
    b = f + s + k
    return 2 * k / (b + math.sqrt(max(0.0, b * b - 4 * s * k)))


def forecast(cycles: Sequence[Cycle], terms: Terms, now: float) -> Forecast:
    """What to do after these cycles. C(now) is in seconds since the epoch.

    :param cycles: those of this run, oldest first; the last one has just ended.
    """
    if not cycles:
        return Forecast(GO_ON, "nothing has been copied yet")
    deltas = _measured(cycles)
    other = _outside(cycles, terms) + terms.landing
    if not deltas:
        return _first(cycles, terms, other, now)
    capacity = cycles[-1].capacity
    careful, hopeful = _rates(deltas, cycles, hopeful=False), _rates(deltas, cycles, hopeful=True)
    delta, downtime = _downtime(careful, cycles[-1].seconds, other, terms, capacity)
    limit = _limit(careful, other, terms, capacity)
    best = _limit(hopeful, other, terms, capacity)
    facts: dict[str, Any] = {
        "churn": careful.churn,
        "throughput": careful.throughput or None,
        "fixed": careful.fixed,
        "delta": delta,
        "downtime": downtime if math.isfinite(downtime) else None,
        "limit": limit if math.isfinite(limit) else None,
        "diverges": not math.isfinite(limit),
    }
    if downtime <= terms.budget and not terms.keep and len(deltas) >= terms.least:
        return Forecast(FITS, f"a downtime of about {downtime:.0f} s is predicted, {terms.budget:g} s are allowed", **facts)
    ended = _ended(cycles, terms, now)
    if ended is not None:
        return Forecast(*ended, **facts)
    hopeless = best > terms.budget or _stalled(deltas, terms, other)
    if hopeless and len(deltas) >= max(terms.patience, terms.least) and not terms.stubborn and not terms.keep:
        return _diverging(careful, downtime, limit, other, terms, facts)
    # Cycles that can still get shorter are not held up: each pause would make the next delta larger.
    haste = not terms.keep and downtime > terms.budget and best <= terms.budget
    wait = 0.0 if haste else _wait(cycles, terms, now)
    if downtime <= terms.budget:
        reason = f"a downtime of about {downtime:.0f} s is predicted, within the {terms.budget:g} s allowed"
    else:
        reason = f"a downtime of about {downtime:.0f} s is predicted, more than the {terms.budget:g} s allowed"
    return Forecast(GO_ON, reason, wait, **facts)


def _first(cycles: Sequence[Cycle], terms: Terms, other: float, now: float) -> Forecast:
    """After a full copy, or where tracking is not trusted: churn is not known, only what the same pass again would cost."""
    last = cycles[-1]
    speed = _throughput(cycles) or None
    if last.mode == "compare":
        downtime = terms.shutdown + last.seconds + other
        said = f"tracking could not be trusted; with another pass over everything a downtime of about {downtime:.0f} s is predicted"
        if downtime <= terms.budget and not terms.keep and len(cycles) > terms.least:
            return Forecast(FITS, said, throughput=speed, downtime=downtime, limit=downtime)
    else:
        downtime, said = None, "how fast the disks change is known after the next cycle"
    ended = _ended(cycles, terms, now)
    if ended is not None:
        return Forecast(*ended, throughput=speed, downtime=downtime)
    passes = [c for c in cycles if c.mode == "compare"]
    if downtime is not None and len(passes) > max(terms.patience, terms.least) and not terms.stubborn and not terms.keep:
        text = f"This will not converge: {said}, and {terms.budget:g} s are allowed. What would do: a budget of {downtime:.0f} s, or a cold copy."
        return Forecast(DIVERGING, text, throughput=speed, downtime=downtime, limit=downtime, needs_budget=downtime)
    return Forecast(GO_ON, said, _wait(cycles, terms, now) if terms.keep else 0.0, throughput=speed, downtime=downtime)


def _ended(cycles: Sequence[Cycle], terms: Terms, now: float) -> tuple[str, str] | None:
    if terms.until is not None and now + (_expected(cycles) if terms.keep else 0.0) >= terms.until:
        return TIME, "the time is up" if now >= terms.until else "another cycle would not end in time"
    if len(cycles) >= terms.most:
        return CYCLES, f"{len(cycles)} cycle{'' if len(cycles) == 1 else 's'}, as many as were asked for"
    return None


def _expected(cycles: Sequence[Cycle]) -> float:
    """Seconds that the next cycle will take, about: as long as the last one that was not a full copy."""
    return next((c.seconds for c in reversed(cycles) if c.mode != "full"), 0.0)


def _wait(cycles: Sequence[Cycle], terms: Terms, now: float) -> float:
    """The pause before the next cycle; the last one before C(until) is to end right at it."""
    if terms.until is None:
        return terms.interval
    return max(0.0, min(terms.interval, terms.until - now - _expected(cycles)))


def _stalled(deltas: Sequence[Cycle], terms: Terms, other: float) -> bool:
    """Whether the cycles have stopped getting shorter, above the budget, whatever the model hopes for."""
    n = max(1, terms.patience)
    if len(deltas) < 2 * n:
        return False

    def best(some: Sequence[Cycle]) -> float:
        return min(c.seconds for c in some)

    before, after = best(deltas[-2 * n : -n]), best(deltas[-n:])
    return terms.shutdown + after + other > terms.budget and after > before * (1 - PROGRESS)


def _mb(rate: float) -> str:
    return f"{rate / 1e6:.1f} MB/s"


def _diverging(rates: _Rates, downtime: float, limit: float, other: float, terms: Terms, facts: dict[str, Any]) -> Forecast:
    ratio = _most_ratio(rates, other, terms)
    budget = min(downtime, limit)
    needs: dict[str, float] = {"needs_budget": math.ceil(budget)} if math.isfinite(budget) else {}
    if ratio > 0:
        needs |= {"needs_churn": ratio * rates.throughput, "needs_throughput": rates.churn / ratio}
    what = f"This will not converge at this churn: the disks change at {_mb(rates.churn)} and are copied at {_mb(rates.throughput)}"
    if math.isfinite(limit):
        what += f"; further cycles would come to a downtime of {limit:.0f} s at best"
    what += f", {terms.budget:g} s are allowed"
    if ratio <= 0:
        alone = terms.shutdown + rates.fixed + other
        what += (
            f", and {alone:.0f} s pass without a byte copied (shutdown {terms.shutdown:.0f} s, snapshot and the like {rates.fixed:.0f} s"
        )
        what += f", the rest {other:.0f} s)" if other >= 0.5 else ")"
    ways = [f"a budget of {needs['needs_budget']:.0f} s"] if "needs_budget" in needs else []
    if ratio > 0:
        ways += [f"a churn below {_mb(needs['needs_churn'])}", f"copying faster than {_mb(needs['needs_throughput'])}"]
    return Forecast(DIVERGING, f"{what}. What would do: {', or '.join(ways)}.", **(facts | needs))
