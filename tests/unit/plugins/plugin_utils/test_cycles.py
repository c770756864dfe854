# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.ferry.vmware.plugins.action.vm_precopy import ActionModule
from ansible_collections.ferry.vmware.plugins.module_utils.disk.forecast import Cycle, Forecast, Terms, cycle_of, epoch, forecast
from ansible_collections.ferry.vmware.plugins.plugin_utils.cycles import copy_row, cycle_line, terms_line, totals

MIB = 1 << 20
NOON = 1_800_000_000.0


def disk(key: str = "2000", **facts: Any) -> dict[str, Any]:
    return {
        "disk": "Hard disk 1",
        "key": key,
        "mode": "incremental",
        "reason": "",
        "changed_bytes": 20 * MIB,
        "bytes_read": 20 * MIB,
        "bytes_written": 18 * MIB,
        "repaired": 0,
        "seconds": 0.5,
        "capacity": 512 * MIB,
        "dest": {"volume": "x"},
        **facts,
    }


def row(
    number: int, *disks: dict[str, Any], seconds: float = 4.0, since: float | None = 20.0, terms: Terms | None = None
) -> tuple[dict[str, Any], str]:
    terms = terms or Terms(60)
    full = Cycle("full", 0, 512 * MIB, 5.0, 9.0, None, 512 * MIB)
    cycle = cycle_of(disks, seconds, since)
    told = forecast([full, cycle], terms, NOON)
    made = copy_row(number, NOON, cycle, told, disks)
    return made, cycle_line(made, told, terms)


def test_the_line_of_a_cycle() -> None:
    made, line = row(3, disk(), disk("2001"))
    assert (
        line
        == "cycle 3, incremental: 40.0 MiB changed, churn 2.1 MB/s, copied at 83.9 MB/s, in 4.0 s; predicted downtime 34.4 s of 00:01:00"
    )
    assert made["time"] == "2027-01-15T08:00:00+00:00" and made["predicted_downtime"] == 34.4
    assert "dest" not in made["disks"][0] and len(made["disks"]) == 2


def test_the_line_says_why_everything_was_compared_and_how_long_it_waits() -> None:
    line = row(
        2, disk(mode="compare", reason="The VM was reverted to a snapshot."), terms=Terms(60, interval=30, until=NOON + 3600, keep=True)
    )[1]
    assert line.startswith("cycle 2, compare: 18.0 MiB written") and "(The VM was reverted to a snapshot.)" in line
    assert line.endswith("; the next one in 30.0 s")


def test_names_from_outside_stay_on_one_line() -> None:
    assert "\x1b" not in row(2, disk(mode="compare", reason="\x1b[2J"))[1]


def test_the_sums_of_all_cycles() -> None:
    first, second = row(1, disk(), disk("2001", bytes_read=MIB))[0], row(2, disk(seconds=1.5, repaired=2))[0]
    assert totals([first, second]) == [
        {"disk": "Hard disk 1", "key": "2000", "bytes_read": 40 * MIB, "bytes_written": 36 * MIB, "repaired": 2, "seconds": 2.0},
        {"disk": "Hard disk 1", "key": "2001", "bytes_read": MIB, "bytes_written": 18 * MIB, "repaired": 0, "seconds": 0.5},
    ]


@pytest.mark.parametrize(
    ("terms", "line"),
    [
        (Terms(120), "cycles until a downtime of at most 00:02:00 is predicted, at most 100"),
        (Terms(45, interval=300, most=5), "cycles until a downtime of at most 45.0 s is predicted, at most 5; pauses of 00:05:00"),
        (Terms(45, most=1), "one cycle"),
    ],
)
def test_what_ends_the_cycles(terms: Terms, line: str) -> None:
    assert terms_line(terms) == line


def test_options_of_the_action() -> None:
    given = {
        "downtime_budget": "90",
        "until": "2026-11-22T02:00:00+09:00",
        "keep_on": "yes",
        "on_diverging": "go_on",
        "outside_sample": "2",
    }
    terms = ActionModule._terms(None, given)
    assert (terms.budget, terms.until, terms.keep, terms.stubborn) == (90.0, epoch("2026-11-21T17:00:00Z"), True, True)
    assert terms.outside == 0.02 and terms.interval == 60


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"downtime_budget": "soon"}, "downtime_budget must be a number"),
        ({"interval": -1}, "interval must be a number"),
        ({"until": "02:00"}, "no date with a time"),
        ({"keep_on": True}, "keep_on needs until"),
        ({"on_diverging": "pray"}, "must be one of: stop, go_on"),
    ],
)
def test_options_that_cannot_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(AnsibleActionFail, match=said):
        ActionModule._terms(None, given)


def test_a_forecast_without_figures_still_makes_a_line() -> None:
    full = Cycle("full", 0, 512 * MIB, 5.0, 9.0, None, 512 * MIB)
    told = Forecast("go_on", "how fast the disks change is known after the next cycle")
    line = cycle_line(copy_row(1, NOON, full, told, [disk(mode="full")]), told, Terms(60))
    assert (
        line == "cycle 1, full: 18.0 MiB written, copied at 107.4 MB/s, in 9.0 s; how fast the disks change is known after the next cycle"
    )
