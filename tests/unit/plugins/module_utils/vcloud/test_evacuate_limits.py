# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The window, how long moves take, and how many may be under way."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud.evacuate_limits import Job, Throttle, fits_window
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud.evacuate_plan import Limits
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud.evacuate_window import Pace, Window, seconds_of, window_of

from .test_evacuate_plan import item, store


def at(text: str) -> float:
    """A local time as seconds since the epoch."""
    return datetime.datetime.fromisoformat(f"2026-11-21T{text}" if len(text) < 9 else text).astimezone().timestamp()


@pytest.mark.parametrize(
    ("now", "options", "start", "end"),
    [
        ("12:00", {}, None, None),
        ("12:00", None, None, None),
        ("12:00", {"start": "22:00", "end": "05:00"}, "22:00", "2026-11-22T05:00"),
        ("23:00", {"start": "22:00", "end": "05:00"}, "22:00", "2026-11-22T05:00"),
        ("03:00", {"start": "22:00", "end": "05:00"}, "2026-11-20T22:00", "05:00"),
        ("12:00", {"end": "05:00"}, None, "2026-11-22T05:00"),
        ("12:00", {"end": "13:00"}, None, "13:00"),
        ("12:00", {"start": "13:00", "duration": "90m"}, "13:00", "14:30"),
        ("12:00", {"duration": "3600"}, None, "13:00"),
        ("12:00", {"start": "2026-11-23T01:00", "end": "02:00"}, "2026-11-23T01:00", "2026-11-23T02:00"),
    ],
)
def test_windows(now: str, options: dict[str, str], start: str | None, end: str | None) -> None:
    found = window_of(options, at(now))
    assert found == Window(at(start) if start else None, at(end) if end else None)


def test_a_time_zone_is_heard() -> None:
    assert window_of({"end": "2026-11-21T22:00:00+09:00"}, at("2026-11-20T00:00")).end == 1795266000.0
    assert window_of({"end": "2026-11-21T13:00:00Z"}, at("2026-11-20T00:00")).end == 1795266000.0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"start": "01:00", "end": "02:00"}, "window_past"),
        ({"end": "2026-11-21T11:59"}, "window_past"),
        ({"start": "2026-11-20T01:00", "duration": "2h"}, "window_past"),
        ({"start": "2026-11-22T01:00", "end": "2026-11-22T00:00"}, "bad_input"),
        ({"start": "25:00"}, "bad_input"),
        ({"end": "tomorrow"}, "bad_input"),
        ({"duration": "0"}, "bad_input"),
        ({"duration": "a while"}, "bad_input"),
        ({"end": "13:00", "duration": "1h"}, "bad_input"),
    ],
)
def test_windows_that_cannot_be(options: dict[str, str], code: str) -> None:
    with pytest.raises(BadInput) as e:
        window_of(options, at("12:00"))
    assert e.value.code == code


def test_lengths() -> None:
    assert [seconds_of(t) for t in ("90", "90s", "30 m", "4h", "1.5D")] == [90, 90, 1800, 14400, 129600]


def test_how_long_it_will_take() -> None:
    pace = Pace()
    assert pace.estimate(1000, False) is None
    for mb, seconds in ((1000, 10.0), (1000, 20.0), (2000, 20.0), (4000, 40.0)):
        pace.add(mb, seconds, False)
    assert pace.estimate(10_000, False) == 100.0
    assert pace.estimate(1, False) == 20.0
    # before a clone was measured, others have to do
    assert pace.estimate(10_000, True) == 100.0
    pace.add(20_000, 5.0, True)
    assert pace.estimate(20_000, True) == 5.0
    assert pace.typical() == 20.0


def job(name: str, target: int = 2, **more: Any) -> Job:
    return Job(item(name, **more), store(target))


def test_only_what_will_be_over_is_begun() -> None:
    pace = Pace()
    window = Window(None, 1000.0)
    assert fits_window(job("a"), window, pace, 999.0)
    assert not fits_window(job("a"), window, pace, 1000.0)
    pace.add(1000, 50.0, False)
    assert fits_window(job("a"), window, pace, 949.0)
    assert not fits_window(job("a"), window, pace, 951.0)
    assert not fits_window(job("a", mb=2000), window, pace, 949.0)
    assert fits_window(job("a"), Window(), pace, 1e12)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_limits_by_target_source_and_host() -> None:
    throttle = Throttle(Limits(per_target=2, per_source=3, per_host=2), 2)
    under_way = [job("a"), job("b")]
    assert not throttle.may(job("c"), under_way)
    assert throttle.may(job("c", 3), under_way)
    assert not throttle.may(job("d", 3), [*under_way, job("c", 3)])
    on_host = [job("a", host="esx1"), job("b", 3, host="esx1")]
    assert not throttle.may(job("c", host="esx1"), on_host)
    assert throttle.may(job("c", host="esx2"), on_host)
    assert throttle.may(job("c"), on_host)


def test_fewer_at_a_time_and_more_again() -> None:
    clock = Clock()
    throttle = Throttle(Limits(per_target=8), 1, clock)
    assert throttle.allowed == 8
    throttle.away(None)
    throttle.away(None)
    assert throttle.allowed == 4
    assert not throttle.may(job("a"), [])
    clock.now += 2
    assert throttle.may(job("a"), [])
    throttle.away("7")
    assert throttle.allowed == 2
    clock.now += 6.9
    assert not throttle.may(job("a"), [])
    clock.now += 1
    for expected in (2, 3, 3, 3, 4):
        throttle.well()
        assert throttle.allowed == expected
    throttle.full(3)
    assert throttle.allowed == 3
    assert throttle.may(job("a"), [])
    throttle.full(0)
    assert not throttle.may(job("a"), [])


def test_busy_together_they_move_one_by_one() -> None:
    throttle = Throttle(Limits(per_target=8), 1)
    mates = [job(n, vapp_href="vapp-1") for n in ("a", "b", "c")]
    assert throttle.may(mates[1], mates[:1])
    assert throttle.busy(mates[1], mates[:1]) == 0.0
    assert not throttle.may(mates[2], mates[:1])
    assert throttle.may(job("x", vapp_href="vapp-2"), mates[:1])
    assert throttle.allowed == 8
    alone = job("y")
    alone.tries = 1
    assert 0.5 <= throttle.busy(alone, mates) <= 1.0
    assert throttle.allowed == 7
