# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The time in which an evacuation may begin relocations, and how long one will take by those that were measured."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Any, Mapping

from ..errors import BadInput, bounded

STEP = "look at the window"
#: Moves of one kind that an estimate is made of.
MOST_MEASURED = 50

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Window:
    """From C(start) to C(end), seconds since the epoch; C(end) is when the last relocation has to be over. None: without bounds."""

    start: float | None = None
    end: float | None = None


def seconds_of(text: str) -> float:
    """A length of time: C(90), C(90s), C(30m), C(4h), C(1.5d).

    :raises BadInput: it is none.
    """
    found = _LENGTH.fullmatch(text.strip().lower())
    if found is None or float(found[1]) <= 0:
        raise BadInput(f"{bounded(text, 60)} is no length of time, like 4h, 90m or 3600.", step=STEP)
    return float(found[1]) * _UNITS[found[2]]


def _moment(text: str, now: datetime.datetime) -> tuple[datetime.datetime, bool]:
    """The time that C(text) means, and whether it is one of the day only."""
    found = _CLOCK.fullmatch(text.strip())
    try:
        if found is not None:
            return now.replace(hour=int(found[1]), minute=int(found[2]), second=0, microsecond=0), True
        moment = datetime.datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError as e:
        raise BadInput(f"{bounded(text, 60)} is no time, like 22:00 or 2026-11-21T22:00:00+01:00.", step=STEP) from e
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=now.tzinfo)), False


def window_of(options: Mapping[str, Any] | None, now: float) -> Window:
    """The window that C(options) (start, end, duration) mean. A time of day is one of today, in the time zone of this machine; an end before
    its start is one of the next day.

    :param now: seconds since the epoch.
    :raises BadInput: code C(window_past): it is over already; or it cannot be read.
    """
    given = {k: str(v) for k, v in (options or {}).items() if v not in (None, "")}
    if not given:
        return Window()
    if "end" in given and "duration" in given:
        raise BadInput("A window has an end or a duration, not both.", step=STEP)
    here = datetime.datetime.fromtimestamp(now).astimezone()
    day = datetime.timedelta(days=1)
    start = end = None
    start_daily = end_daily = False
    if "start" in given:
        start, start_daily = _moment(given["start"], here)
    if "end" in given:
        end, end_daily = _moment(given["end"], here)
        if end_daily and start is not None:
            end = start.replace(hour=end.hour, minute=end.minute, second=0, microsecond=0)
            if end <= start:
                end += day
                if start_daily and here < start and here < end - day:
                    # it began yesterday, and is open over midnight
                    start, end = start - day, end - day
        elif end_daily and end <= here:
            end += day
    if "duration" in given:
        end = (start or here) + datetime.timedelta(seconds=seconds_of(given["duration"]))
    if start is not None and end is not None and end <= start:
        raise BadInput("The window ends before it begins.", step=STEP, said=f"{start.isoformat()} to {end.isoformat()}")
    if end is not None and end <= here:
        raise BadInput(
            f"The window is over already: it ended at {end.isoformat(timespec='seconds')}, and now it is {here.isoformat(timespec='seconds')}.",
            code="window_past",
            step=STEP,
            next_command="give a window that is still to come, with a date where the time of day is not enough",
        )
    return Window(start.timestamp() if start else None, end.timestamp() if end else None)


class Pace:
    """How long moves took, linked clones and others apart: of a clone far less is written than its size."""

    def __init__(self) -> None:
        self._measured: dict[bool, list[tuple[int, float]]] = {False: [], True: []}

    def add(self, mb: int, seconds: float, clone: bool) -> None:
        """A move of C(mb) took C(seconds)."""
        found = self._measured[clone]
        found.append((mb, max(0.0, seconds)))
        del found[:-MOST_MEASURED]

    def estimate(self, mb: int, clone: bool) -> float | None:
        """Seconds that a move of C(mb) will take, by the slower quarter of those that were measured; None before any was."""
        measured = self._measured[clone] or self._measured[not clone]
        if not measured:
            return None
        seconds = sorted(s for size, s in measured)
        rates = sorted(size / s for size, s in measured if s > 0 and size > 0)
        typical = seconds[len(seconds) // 2]
        return max(typical, mb / rates[len(rates) // 4]) if rates else typical

    def typical(self) -> float | None:
        """The median of all, in seconds."""
        seconds = sorted(s for found in self._measured.values() for size, s in found)
        return seconds[len(seconds) // 2] if seconds else None
