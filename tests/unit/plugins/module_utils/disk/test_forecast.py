# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from typing import Any, Callable

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.disk.forecast import (
    Cycle,
    Forecast,
    Terms,
    cycle_of,
    epoch,
    forecast,
)

MB = 1_000_000
GB = 1000 * MB
START = 1_800_000_000.0
Churn = Callable[[int, float], float]


def steady(rate: float) -> Churn:
    return lambda n, seconds: rate * seconds


class Disk:
    """A guest that changes its disk, and a copy of it, by the clock: what the cycles would measure."""

    def __init__(
        self, churn: Churn, throughput: float = 100 * MB, fixed: float = 4.0, capacity: int = 100 * GB, full: float = 200.0
    ) -> None:
        self.churn, self.throughput, self.fixed, self.capacity, self.full = churn, throughput, fixed, capacity, full
        self.now = START
        self.snapshot: float | None = None
        self.cycles: list[Cycle] = []

    def delta(self, seconds: float) -> int:
        return min(self.capacity, round(self.churn(len(self.cycles), seconds)))

    def cycle(self, mode: str = "incremental") -> Cycle:
        since = None if self.snapshot is None else self.now - self.snapshot
        full = self.snapshot is None or mode != "incremental"
        changed = 0 if since is None else self.delta(since)
        copying = self.full if full else changed / self.throughput
        self.snapshot = self.now
        made = Cycle(
            "full" if since is None else mode,
            changed,
            self.capacity if full else changed,
            copying,
            copying + self.fixed,
            since,
            self.capacity,
        )
        self.now += made.seconds
        self.cycles.append(made)
        return made

    def real_downtime(self, terms: Terms) -> float:
        """What a cutover now would really take."""
        assert self.snapshot is not None
        delta = self.delta(self.now - self.snapshot + terms.shutdown)
        return terms.shutdown + self.fixed + delta / self.throughput + terms.landing

    def run(self, terms: Terms, most: int = 300) -> list[Forecast]:
        told: list[Forecast] = []
        while len(told) < most:
            self.cycle()
            told.append(forecast(self.cycles, terms, self.now))
            if told[-1].verdict != "go_on":
                return told
            self.now += told[-1].wait
        return told


def test_nothing_measured_yet() -> None:
    assert forecast([], Terms(60), START).verdict == "go_on"


def test_after_the_full_copy_nothing_is_known_and_nothing_is_waited_for() -> None:
    disk = Disk(steady(MB))
    disk.cycle()
    told = forecast(disk.cycles, Terms(60, interval=600), disk.now)
    assert (told.verdict, told.wait, told.churn, told.downtime) == ("go_on", 0.0, None, None)
    assert told.throughput == pytest.approx(500 * MB)  # 100 GB in 200 s: holes travel fast


@pytest.mark.parametrize("rate", [0.1, 1, 5, 20, 40])
def test_it_converges_and_the_downtime_is_as_predicted(rate: float) -> None:
    terms = Terms(60, shutdown=20, landing=5)
    disk = Disk(steady(rate * MB))
    told = disk.run(terms)
    assert told[-1].verdict == "fits" and len(told) < 8
    assert told[-1].downtime is not None and told[-1].downtime <= 60
    assert disk.real_downtime(terms) == pytest.approx(told[-1].downtime, rel=0.01)
    assert told[-1].churn == pytest.approx(rate * MB, rel=0.01)


def test_an_idle_guest_costs_the_fixed_things_only() -> None:
    terms = Terms(60, shutdown=20)
    told = Disk(steady(0)).run(terms)
    assert [t.verdict for t in told] == ["go_on", "fits"]
    assert told[-1].downtime == pytest.approx(24) and told[-1].churn == 0 and told[-1].delta == 0


def test_more_churn_than_throughput_never_converges_and_says_what_would_do() -> None:
    told = Disk(steady(150 * MB), capacity=10**15).run(Terms(60))
    last = told[-1]
    assert last.verdict == "diverging" and len(told) == 4  # the full copy and three measured cycles
    assert last.diverges and last.limit is None
    assert "150.0 MB/s" in last.reason and "100.0 MB/s" in last.reason and "What would do" in last.reason


def test_a_budget_below_what_cycles_can_reach() -> None:
    """r = 0.5: cycles tend to 8 s; 30 s of shutdown, 4 s fixed, and 0.5 * (8 + 30) s for the last delta are 53 s."""
    terms = Terms(45)
    disk = Disk(steady(50 * MB))
    last = disk.run(terms)[-1]
    assert last.verdict == "diverging" and last.limit == pytest.approx(53, abs=0.1)
    assert last.needs_budget is not None and last.needs_churn is not None and last.needs_throughput is not None
    # each of the three is enough
    assert Disk(steady(50 * MB)).run(replace(terms, budget=last.needs_budget + 2))[-1].verdict == "fits"
    assert Disk(steady(last.needs_churn * 0.97)).run(terms)[-1].verdict == "fits"
    assert Disk(steady(50 * MB), throughput=last.needs_throughput * 1.03).run(terms)[-1].verdict == "fits"


def test_a_budget_that_is_spent_before_a_byte_is_copied() -> None:
    last = Disk(steady(MB)).run(Terms(20, shutdown=30))[-1]
    assert last.verdict == "diverging" and last.needs_churn is None
    assert "34 s pass without a byte copied" in last.reason


@pytest.mark.parametrize("seed", range(20))
def test_noise_neither_stops_it_early_nor_makes_it_promise_too_much(seed: int) -> None:
    """Churn between a third and three times its mean: the verdict must not be that this never fits, nor be broken by half."""
    source = random.Random(seed)
    factors = [source.choice((0.33, 0.6, 1.0, 1.6, 3.0)) for _n in range(300)]
    terms = Terms(90, shutdown=20)
    disk = Disk(lambda n, seconds: 8 * MB * factors[n] * seconds)
    told = disk.run(terms)
    assert told[-1].verdict == "fits", told[-1]
    assert disk.real_downtime(terms) < 1.5 * 90


def test_a_burst_passes() -> None:
    """Half an hour of a nightly backup, while the full copy has just ended, is not for ever where one can wait."""
    disk = Disk(lambda n, seconds: (150 if n < 6 else 5) * MB * seconds, capacity=50 * GB)
    told = disk.run(Terms(60, stubborn=True))
    assert told[-1].verdict == "fits" and len(told) > 6


def test_cycles_that_no_longer_get_shorter_are_seen_even_where_the_model_hopes() -> None:
    """The delta is the same hot 8 GB however short the cycle: the model, fed with shrinking rates, would go on for ever."""
    disk = Disk(lambda n, seconds: 8 * GB * (1 + 0.3 * (n % 2)))
    told = disk.run(Terms(70))
    assert told[-1].verdict == "diverging" and len(told) <= 10


def test_the_pause_is_kept_only_where_nothing_calls_for_haste() -> None:
    terms = Terms(60, interval=900, least=3)
    disk = Disk(steady(MB))
    told = disk.run(terms)
    assert [t.wait for t in told] == [0.0, 900.0, 900.0, 0.0] and told[-1].verdict == "fits"
    # A pause of 900 s at 40 MB/s makes a delta of 6 minutes: the cycles after it follow one another at once.
    hasty = Disk(steady(40 * MB)).run(terms)
    assert hasty[-1].verdict == "fits"
    assert any(t.wait == 0.0 and t.downtime is not None and t.downtime > 60 for t in hasty[1:-1])


def test_it_ends_at_the_set_time() -> None:
    told = Disk(steady(60 * MB)).run(Terms(10, until=START + 1000, stubborn=True))
    assert told[-1].verdict == "time"


def test_kept_warm_until_the_time_and_the_last_cycle_ends_right_at_it() -> None:
    terms = Terms(60, until=START + 3600, keep=True, interval=600)
    disk = Disk(steady(MB))
    told = disk.run(terms)
    assert told[-1].verdict == "time" and len(told) == 7
    assert START + 3600 - 25 < disk.now <= START + 3600
    assert {t.verdict for t in told[:-1]} == {"go_on"}


def test_it_ends_after_so_many_cycles() -> None:
    told = Disk(steady(99 * MB), capacity=10**15).run(Terms(10, most=2))
    assert [t.verdict for t in told] == ["go_on", "cycles"]


def test_two_hundred_cycles() -> None:
    told = Disk(steady(MB)).run(Terms(60, least=200, most=250))
    assert told[-1].verdict == "fits" and len(told) == 201


def test_a_rerun_learns_the_churn_with_its_second_cycle() -> None:
    """The time of the snapshot that an earlier run took is not known: its delta says nothing about the rate."""
    first = Cycle("incremental", 80 * MB, 80 * MB, 1.0, 5.0, None, GB)
    assert forecast([first], Terms(60), START).churn is None
    second = Cycle("incremental", 5 * MB, 5 * MB, 0.5, 4.5, 5.0, GB)
    assert forecast([first, second], Terms(60), START).churn == pytest.approx(MB)


def test_tracking_that_is_not_trusted_costs_a_pass_over_everything() -> None:
    disk = Disk(steady(MB), full=100)
    for mode in itertools.chain(["full"], ["compare"] * 4):
        disk.cycle(mode)
    last = forecast(disk.cycles, Terms(60), disk.now)
    assert last.verdict == "diverging" and last.needs_budget == pytest.approx(134)
    assert forecast(disk.cycles, Terms(140), disk.now).verdict == "fits"
    # one such pass among deltas: what was known before it is not used after it
    mixed = Disk(steady(MB))
    for mode in ("full", "incremental", "incremental", "compare"):
        mixed.cycle(mode)
    assert forecast(mixed.cycles, Terms(60), mixed.now).churn is None


def test_the_sample_outside_the_changed_areas_is_counted() -> None:
    disk = Disk(steady(0))
    disk.cycle()
    disk.cycle()
    without = forecast(disk.cycles, Terms(600), disk.now)
    told = forecast(disk.cycles, Terms(600, outside=0.01), disk.now)
    assert told.downtime is not None and without.downtime is not None
    assert told.downtime - without.downtime == pytest.approx(0.01 * 100 * GB / (500 * MB))
    whole = forecast(disk.cycles, Terms(600, whole=True), disk.now)
    assert whole.downtime is not None and whole.downtime - without.downtime == pytest.approx(200)


def row(**facts: Any) -> dict[str, Any]:
    return {"mode": "incremental", "changed_bytes": 4, "bytes_read": 5, "bytes_written": 3, "seconds": 2.0, "capacity": 10, **facts}


def test_a_cycle_is_made_of_its_disks() -> None:
    made = cycle_of([row(), row(seconds=3.5), row(mode="none", changed_bytes=0, bytes_read=0, seconds=None)], 9.0, 60.0)
    assert made == Cycle("incremental", 8, 10, 3.5, 9.0, 60.0, 30)
    assert cycle_of([row(), row(mode="compare")], 1.0, None).mode == "compare"
    assert cycle_of([row(mode="full"), row(mode="compare", changed_bytes=None)], 1.0, None) == Cycle("full", 6, 10, 2.0, 1.0, None, 20)


def test_the_result_is_plain_json() -> None:
    for told in Disk(steady(150 * MB), capacity=10**15).run(Terms(60)):
        json.dumps(told.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-22T02:00:00+09:00", 1795280400.0),
        ("2026-11-21T17:00:00Z", 1795280400.0),
        ("2026-11-21 17:00:00+00:00", 1795280400.0),
        ("2026-11-21T17:00+00:00", 1795280400.0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert epoch(text) == seconds


@pytest.mark.parametrize("text", ["", "02:00", "2026-11-22", "tomorrow at two", "2026-13-45T00:00:00Z"])
def test_a_time_that_could_mean_another_day_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        epoch(text)
