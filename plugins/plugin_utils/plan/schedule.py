# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When which VM of a wave is at which step: so many at once, in their order, sharing what the read budgets allow. Pure.

The play runs with the strategy host_pinned: a fork that has finished with a VM takes the next one. Rates are shared as the budget
shares them: each VM gets the same of what its scopes have, as far as it can use it.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Mapping, Sequence

from ansible_collections.ferry.vmware.plugins.module_utils.disk.budget_settings import Limit, Settings

#: Seconds after which limits are looked at again where some of them hold at times of the day only.
LOOK = 300.0
_DAY = 86400.0
#: A plan longer than this (seconds) is said to have no end.
LONGEST = 90 * _DAY
#: (conversion host, kind, name)
Scope = tuple[str, str, str]


@dataclass(frozen=True)
class Step:
    """C(seconds) that pass in any case, then C(count) bytes at C(rate) (bytes per second) at most. C(after): not before this moment."""

    name: str
    seconds: float = 0.0
    count: float = 0.0
    rate: float = math.inf
    after: float = 0.0


@dataclass(frozen=True)
class Task:
    """One VM. C(machine): its conversion host, whose budgets hold. C(host), C(datastore): whose bytes it reads."""

    steps: Sequence[Step]
    machine: str = ""
    host: str | None = None
    datastore: str | None = None


@dataclass
class Span:
    """A step as it comes to pass; seconds since the start of the wave."""

    name: str
    begins: float
    ends: float


@dataclass
class Schedule:
    """C(spans): the steps of each task. C(end): seconds; None where some task never ends, with its number in C(stuck)."""

    spans: list[list[Span]]
    end: float | None
    lanes: list[int] = field(default_factory=list)
    stuck: list[int] = field(default_factory=list)


@dataclass
class _Running:
    number: int
    lane: int
    task: Task
    at: int = 0
    seconds: float = 0.0
    left: float = 0.0
    began: float = 0.0
    rate: float = 0.0


def _begin(one: _Running, now: float) -> None:
    step = one.task.steps[one.at]
    one.seconds = max(step.seconds, step.after - now + step.seconds)
    one.left, one.began = step.count, now


def schedule(tasks: Sequence[Task], forks: int, budgets: Mapping[str, Settings], began: float = 0.0) -> Schedule:
    """The wave.

    :param forks: VMs at once.
    :param budgets: of each conversion host.
    :param began: seconds after midnight at which the wave begins: budgets may hold at times of the day.
    """
    out = Schedule([[] for _task in tasks], 0.0, [0] * len(tasks))
    scopes = {n: _scopes(task, budgets) for n, task in enumerate(tasks)}
    timed = any(limit.windows for found in scopes.values() for _scope, limit in found)
    waiting = list(range(len(tasks)))[::-1]
    lanes = list(range(max(1, forks)))
    heapq.heapify(lanes)
    running: list[_Running] = []
    now = 0.0
    while waiting or running:
        while waiting and lanes:
            number = waiting.pop()
            if not tasks[number].steps:
                continue
            one = _Running(number, heapq.heappop(lanes), tasks[number])
            out.lanes[number] = one.lane
            _begin(one, now)
            running.append(one)
        if not running:
            break
        _share(running, scopes, (began + now) % _DAY)
        ahead = min((one.seconds if one.seconds > 0 else _needs(one)) for one in running)
        if timed:
            ahead = min(ahead, LOOK)
        if not math.isfinite(ahead) or now + ahead > LONGEST:
            out.stuck = sorted([one.number for one in running] + waiting)
            out.end = None
            return out
        now += ahead
        for one in list(running):
            if one.seconds > 0:
                one.seconds = 0.0 if one.seconds - ahead < 1e-9 else one.seconds - ahead
            else:
                one.left = 0.0 if _needs(one) - ahead < 1e-9 else one.left - one.rate * ahead
            while one.seconds <= 0 and one.left <= 0:
                out.spans[one.number].append(Span(one.task.steps[one.at].name, one.began, now))
                one.at += 1
                if one.at == len(one.task.steps):
                    running.remove(one)
                    heapq.heappush(lanes, one.lane)
                    break
                _begin(one, now)
    out.end = now
    return out


def _needs(one: _Running) -> float:
    """Seconds until its bytes are there."""
    if one.left <= 0:
        return 0.0
    return one.left / one.rate if one.rate > 0 else math.inf


def _scopes(task: Task, budgets: Mapping[str, Settings]) -> list[tuple[Scope, Limit]]:
    settings = budgets.get(task.machine)
    if settings is None:
        return []
    found = [((task.machine, *scope), limit) for scope, limit in settings.scopes(task.host, task.datastore)]
    return [(scope, limit) for scope, limit in found if limit.rate is not None or limit.disks is not None or limit.windows]


def _share(running: Sequence[_Running], scopes: Mapping[int, list[tuple[Scope, Limit]]], day: float) -> None:
    """Give each of C(running) its rate: all rise alike until a scope is exhausted or a VM has what it can use."""
    wanting = []
    places: dict[Scope, int] = {}
    for one in running:
        one.rate = 0.0
        if one.seconds > 0 or one.left <= 0:
            continue
        held = []
        for scope, limit in scopes[one.number]:
            most = limit.disks_at(day)
            if most is not None:
                held.append((scope, places.setdefault(scope, most)))
        # It reads at least one disk at once, where each of its scopes has a place.
        if all(free > 0 for _scope, free in held):
            for scope, _free in held:
                places[scope] -= 1
            wanting.append(one)
    room: dict[Scope, float] = {}
    for one in wanting:
        for scope, limit in scopes[one.number]:
            rate = limit.rate_at(day)
            if rate is not None:
                room[scope] = rate
    while wanting:
        users: dict[Scope, int] = {}
        for one in wanting:
            for scope, _limit in scopes[one.number]:
                if scope in room:
                    users[scope] = users.get(scope, 0) + 1
        rise = min([one.task.steps[one.at].rate - one.rate for one in wanting] + [room[scope] / count for scope, count in users.items()])
        if not math.isfinite(rise):
            for one in wanting:
                one.rate = math.inf
            return
        for one in wanting:
            one.rate += rise
        for scope, count in users.items():
            room[scope] = max(0.0, room[scope] - rise * count)
        full = {scope for scope in users if room[scope] <= 1e-6}
        wanting = [
            one
            for one in wanting
            if one.rate < one.task.steps[one.at].rate - 1e-6 and not any(scope in full for scope, _limit in scopes[one.number])
        ]
