# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fewest moves that bring VMs to where they are wanted, in an order in which each fits at its moment. Pure.

VMs that have to be together move as one step. A step is possible where each of its VMs has a way to the host, the host takes them
beside all that is there, and no VM that has to be apart from one of them is there; while it is under way its VMs count on both sides.

Three stages: every VM by one move of its own (which nothing can beat); where that fails on a small site, an exact search (A*, with
the number of VMs not yet home as its bound); on a large one, chains that make room, and the order worked out again for the outcome.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import Iterable, Mapping

from .candidates import Fitting, Way, of_host
from .capacity import Load
from .site_model import Vm

#: Steps that the exact search tries, at most, and the largest number of (movable) VMs times hosts for which it is begun.
EXACT_STEPS = 150_000
EXACT_SIZE = 120
#: Steps that the search for room may try in one plan, and the length of its chains.
ROOM_TRIES = 4000
ROOM_CHAIN = 3


@dataclass(frozen=True)
class Step:
    """VMs that go to one host together. C(ways), C(before): way and host of now of each VM."""

    to: str
    ways: Mapping[str, Way]
    before: Mapping[str, str | None]
    makes_room: bool = False

    @property
    def vms(self) -> tuple[str, ...]:
        return tuple(self.ways)


@dataclass
class Solution:
    """C(steps) in their order. C(stuck): VMs that stay, with the reasons by host. C(least): no plan with fewer moves exists."""

    steps: list[Step] = field(default_factory=list)
    stuck: dict[str, list[str]] = field(default_factory=dict)
    least: bool = False

    @property
    def moves(self) -> int:
        return sum(len(s.ways) for s in self.steps)


class Rebalance:
    """One question: which steps bring each VM of C(goals) to one of its hosts.

    :param closed: hosts that no VM goes to (those that are drained).
    :param immovable: VMs that stay in any case, with the reason.
    """

    def __init__(
        self,
        fitting: Fitting,
        load: Load,
        goals: Mapping[str, frozenset[str]],
        *,
        closed: Iterable[str] = (),
        immovable: Mapping[str, str] | None = None,
    ) -> None:
        self.fitting = fitting
        self.rules = fitting.rules
        self.site = fitting.site
        self.load = load
        self.closed = frozenset(closed)
        self.immovable = dict(immovable or {})
        self.open = sorted(set(self.site.hosts) - self.closed, key=lambda h: (self.site.hosts[h].name, h))
        self.goals: dict[frozenset[str], frozenset[str]] = {}
        for vm, hosts in sorted(goals.items()):
            unit = self.rules.unit(vm)
            self.goals[unit] = self.goals.get(unit, frozenset(self.site.hosts)) & hosts
        self.before = dict(load.where)

    # -- steps

    def home(self, unit: frozenset[str]) -> bool:
        """Whether the unit is where it is wanted."""
        where = {self.load.where[v] for v in unit}
        return len(where) == 1 and next(iter(where)) in self.goals[unit]

    def step(self, unit: frozenset[str], host: str, *, makes_room: bool = False) -> Step | None:
        """The step that brings the unit to the host, where it is possible now."""
        if host in self.closed:
            return None
        moving = [self.site.vms[v] for v in sorted(unit) if self.load.where[v] != host]
        if not moving or any(vm.moref in self.immovable for vm in moving):
            return None
        if self.load.refused(moving, host) or self.fitting.neighbours(moving, host, self.load):
            return None
        ways: dict[str, Way] = {}
        for vm in moving:
            way, _reasons = self.fitting.way(vm, host, self.load)
            if way is None:
                return None
            ways[vm.moref] = way
        if len(moving) > 1 and not self._room_for_files(ways):
            return None
        return Step(host, ways, {v: self.load.where[v] for v in ways}, makes_room)

    def _room_for_files(self, ways: Mapping[str, Way]) -> bool:
        """Whether the datastores take the files of all of them; way() has looked at each alone."""
        wanted: dict[str, int] = {}
        for vm, way in ways.items():
            for source, target in way.stores.items():
                wanted[target] = wanted.get(target, 0) + self.load.files(vm).get(source, 0)
        return all(self.load.lacks(d, size) is None for d, size in wanted.items())

    def take(self, step: Step) -> list[tuple[Vm, str | None, dict[str, int] | None]]:
        """Count the step as done; what undo() needs."""
        done = []
        for moref, way in step.ways.items():
            vm = self.site.vms[moref]
            files = dict(self.load.files(moref)) if way.stores else None
            done.append((vm, self.load.where[moref], files))
            self.load.move(vm, step.to)
            if files is not None:
                after: dict[str, int] = {}
                for store, size in files.items():
                    after[way.stores.get(store, store)] = after.get(way.stores.get(store, store), 0) + size
                self.load.store(moref, after)
        return done

    def undo(self, done: list[tuple[Vm, str | None, dict[str, int] | None]]) -> None:
        for vm, host, files in reversed(done):
            self.load.move(vm, host)
            if files is not None:
                self.load.store(vm.moref, files)

    def reset(self) -> None:
        """Everything as before any step."""
        for moref, host in self.before.items():
            if self.load.where[moref] != host:
                self.load.move(self.site.vms[moref], host)
            if moref in self.load.stored:
                self.load.store(moref, self.site.vms[moref].disks_bytes)

    # -- stage one: every unit by one move

    def _weight(self, unit: frozenset[str]) -> int:
        return sum(vm.memory_mb for v in unit if (vm := self.site.vms[v]).running)

    def _hosts(self, unit: frozenset[str]) -> list[str]:
        """The hosts that the unit may end on, whatever the load is."""
        hosts = [h for h in self.open if h in self.goals[unit]]
        return [h for h in hosts if not any(self.fitting.rules.against(v, h) for v in unit if self.load.where[v] != h)]

    def _rank(self, unit: frozenset[str], step: Step, tight: bool) -> float:
        """How good the step is: by the score of its hosts, or where it has to be C(tight), the fullest host first."""
        if tight:
            copies = sum(1 for w in step.ways.values() if w.stores)
            return -self.load.room(step.to)[0] - copies
        return sum(self.fitting.score(self.site.vms[v], step.to, self.load, w)[0] for v, w in step.ways.items()) / len(step.ways)

    def _direct(self, tight: bool) -> list[Step]:
        """One move for each unit that is not home, as far as it goes; again while a round has brought something home."""
        steps: list[Step] = []
        waiting = sorted(
            (u for u in self.goals if not self.home(u)),
            key=lambda u: (len(self._hosts(u)), -self._weight(u), sorted(u)),
        )
        while waiting:
            left = []
            for unit in waiting:
                found = [s for h in self._hosts(unit) if (s := self.step(unit, h)) is not None]
                if found:
                    best = max(found, key=lambda s: (-len(s.ways), self._rank(unit, s, tight), -self.open.index(s.to)))
                    self.take(best)
                    steps.append(best)
                else:
                    left.append(unit)
            if len(left) == len(waiting):
                break
            waiting = left
        return steps

    def bound(self) -> int:
        """Moves that any plan needs at least, from where things are."""
        total = 0
        for unit, hosts in self.goals.items():
            if not self.home(unit):
                total += min((sum(1 for v in unit if self.load.where[v] != h) for h in hosts), default=len(unit))
        return total

    # -- stage two: exact, on small sites

    def _exact(self) -> list[Step] | None:
        """The fewest moves, or None where there is no plan or the site is too large to tell."""
        units = sorted({self.rules.unit(v) for v in self.site.vms if self.load.where[v] is not None}, key=sorted)
        units = [u for u in units if not any(v in self.immovable for v in u)]
        if sum(len(u) for u in units) * len(self.open) > EXACT_SIZE:
            return None
        morefs = sorted(v for u in units for v in u)
        counter = itertools.count()
        start = tuple(self.load.where[v] for v in morefs)
        best: dict[tuple[str | None, ...], int] = {start: 0}
        queue: list[tuple[int, int, int, tuple[Step, ...]]] = [(self.bound(), next(counter), 0, ())]
        tried = 0
        while queue and tried < EXACT_STEPS:
            _rank, _tie, cost, path = heapq.heappop(queue)
            undo = [self.take(s) for s in path]
            here = tuple(self.load.where[v] for v in morefs)
            try:
                if best.get(here, cost) < cost:
                    continue
                if all(self.home(u) for u in self.goals):
                    return list(path)
                for unit in units:
                    for host in self.open:
                        tried += 1
                        step = self.step(unit, host, makes_room=unit not in self.goals or host not in self.goals[unit])
                        if step is None:
                            continue
                        done = self.take(step)
                        there = tuple(self.load.where[v] for v in morefs)
                        price = cost + len(step.ways)
                        if price < best.get(there, 1 << 30):
                            best[there] = price
                            heapq.heappush(queue, (price + self.bound(), next(counter), price, (*path, step)))
                        self.undo(done)
            finally:
                for done in reversed(undo):
                    self.undo(done)
        return None

    # -- stage three: making room, on large sites

    def _blockers(self, unit: frozenset[str], host: str) -> list[frozenset[str]]:
        """Units on the host whose leaving may let C(unit) in, the lightest that suffices first."""
        moving = [self.site.vms[v] for v in unit if self.load.where[v] != host]
        apart = {o for vm in moving for o in self.rules.apart.get(vm.moref, {}) if o in self.load.on[host]}
        if apart:
            return sorted({self.rules.unit(o) for o in apart}, key=sorted)
        short = self.load.memory[host] + sum(v.memory_mb for v in moving if v.running) - self.load.memory_limit[host]
        units = {self.rules.unit(v) for v in self.load.on[host]} - {unit}
        return sorted(
            (u for u in units if self._weight(u)), key=lambda u: (self._weight(u) < short, abs(self._weight(u) - short), sorted(u))
        )[:8]

    def _make_room(self, unit: frozenset[str], chain: int, tries: list[int], moved: frozenset[frozenset[str]]) -> list[Step] | None:
        """Steps after which the unit is home, at most C(chain) of them others'; they are taken. None: nothing has changed."""
        for host in self._hosts(unit):
            step = self.step(unit, host)
            if step is not None:
                self.take(step)
                return [step]
        if chain == 0:
            return None
        for host in self._hosts(unit):
            if any(self.fitting.way(self.site.vms[v], host, self.load)[0] is None for v in unit if self.load.where[v] != host):
                continue
            for other in self._blockers(unit, host):
                if other in moved or tries[0] <= 0:
                    continue
                targets = [
                    h for h in self.open if h != host and (other not in self.goals or not self.home(other) or h in self.goals[other])
                ]
                options = [s for h in targets if (s := self.step(other, h, makes_room=True)) is not None]
                for step in sorted(options, key=lambda s: -self._rank(other, s, False))[:3]:
                    tries[0] -= 1
                    done = self.take(step)
                    rest = self._make_room(unit, chain - 1, tries, moved | {other})
                    if rest is not None:
                        return [step, *rest]
                    self.undo(done)
        return None

    def _with_room(self, steps: list[Step]) -> list[Step]:
        """C(steps), which are taken, and chains for what is not home yet."""
        tries = [ROOM_TRIES]
        for unit in sorted((u for u in self.goals if not self.home(u)), key=lambda u: (-self._weight(u), sorted(u))):
            for chain in range(1, ROOM_CHAIN + 1):
                found = self._make_room(unit, chain, tries, frozenset((unit,)))
                if found:
                    steps = [*steps, *found]
                    break
        return self._shortened(steps)

    def _shortened(self, steps: list[Step]) -> list[Step]:
        """The same outcome with one step for each unit, where there is an order for it."""
        units = [self.rules.unit(s.vms[0]) for s in steps]
        if len(set(units)) == len(units):
            return steps
        after = dict(self.load.where)
        goals, mine = self.goals, {}
        for unit in units:
            mine[unit] = frozenset(h for v in unit if (h := after[v]) is not None)
        self.reset()
        self.goals = mine
        found = self._direct(tight=False)
        complete = all(self.home(u) for u in mine)
        self.goals = goals
        if complete:
            return [s if self.rules.unit(s.vms[0]) in goals else Step(s.to, s.ways, s.before, True) for s in found]
        self.reset()
        for step in steps:
            self.take(step)
        return steps

    # -- all of it

    def _never(self, unit: frozenset[str]) -> bool:
        """Whether no load would let the unit in anywhere."""
        for host in self._hosts(unit):
            moving = [v for v in unit if self.load.where[v] != host]
            if all(v not in self.immovable and self.fitting.way(self.site.vms[v], host, self.load)[0] is not None for v in moving):
                return False
        return not self.home(unit)

    def reasons(self, unit: frozenset[str]) -> list[str]:
        """Why the unit is not home: per host, as things are now."""
        held = [f"{self.site.vms[v].name}: {self.immovable[v]}" for v in sorted(unit) if v in self.immovable]
        if held:
            return held
        found = []
        for host in self.open:
            if host not in self.goals[unit]:
                continue
            for v in sorted(unit):
                if self.load.where[v] != host:
                    c = of_host(self.fitting, self.site.vms[v], host, self.load, alone=True)
                    if c.reasons:
                        found.append(f"{c.name}: {'; '.join(c.reasons)}")
                        break
            else:
                found.append(
                    f"{self.site.where(host)}: all of {', '.join(sorted(self.site.vms[v].name for v in unit))} together do not fit"
                )
        return found or ["there is no other host"]

    def solve(self) -> Solution:
        """The plan; the load stays as it is after the plan's last step."""
        stuck: dict[frozenset[str], list[str]] = {}
        for unit in [u for u in self.goals if not self.home(u) and self._never(u)]:
            stuck[unit] = self.reasons(unit)
            del self.goals[unit]
        bound = self.bound()
        best: list[Step] | None = None
        for tight in (False, True):
            steps = self._direct(tight)
            if all(self.home(u) for u in self.goals):
                return self._solution(steps, stuck, bound)
            if best is None or sum(len(s.ways) for s in steps) > sum(len(s.ways) for s in best):
                best = steps
            self.reset()
        exact = self._exact()
        if exact is not None:
            for step in exact:
                self.take(step)
            found = self._solution(exact, stuck, bound)
            found.least = not stuck
            return found
        for step in best or ():
            self.take(step)
        steps = self._with_room(best or [])
        for unit in [u for u in self.goals if not self.home(u)]:
            stuck[unit] = self.reasons(unit)
        return self._solution(steps, stuck, bound)

    def _solution(self, steps: list[Step], stuck: Mapping[frozenset[str], list[str]], bound: int) -> Solution:
        found = Solution(steps)
        for unit, why in stuck.items():
            for vm in unit:
                found.stuck[vm] = why
        found.least = not stuck and found.moves == bound
        return found
