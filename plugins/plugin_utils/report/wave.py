# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a page shows of each VM: its result where there is one, else what its file says of the run. Seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import PERCENT_PHASES
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.history import Attempt, History
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import STATES, Disk, Vm, cycles_of, number, text, vms_of

#: States of a VM that has no result: not begun, under way, and left by a run that was killed.
OPEN_STATES = ("running", "waiting", "interrupted")
#: What is said of an interrupted one.
CUT = "The run ended without a word here: it was killed, its machine died, or the VM could not be reached."
AGAIN = "the same command again; it goes on from there"
#: Another run's VM counts as being worked on while its file was written in the last so many seconds.
FRESH = 90.0
#: Earlier attempts are in the picture while they do not make it longer than so many times what this run takes.
PICTURE = 2.5


@dataclass
class Going:
    """A disk under way; bytes and seconds."""

    label: str
    phase: str
    done: int
    total: int
    rate: float
    left: float | None
    why: str

    @property
    def percent(self) -> float | None:
        return min(100.0, 100 * self.done / self.total) if self.total > 0 else None


@dataclass
class Entry:
    """One VM of a page. C(old): its result is of an earlier run; this one did not touch it."""

    vm: Vm
    now: Attempt | None = None
    earlier: list[Attempt] = field(default_factory=list)
    going: list[Going] = field(default_factory=list)
    old: bool = False
    forecast: float | None = None

    @property
    def phase(self) -> str:
        """The phase that lasts, or in which it stopped."""
        if self.now is None or not self.now.phases:
            return ""
        last = self.now.phases[-1]
        return last.name if last.ended is None or last.failed or self.vm.state == "interrupted" else ""

    @property
    def left(self) -> float | None:
        """Seconds that its slowest disk has still to go."""
        known = [g.left for g in self.going if g.left is not None]
        return max(known) if known else None

    def attempts(self) -> list[Attempt]:
        """All of them, the oldest first."""
        return [*self.earlier, *([self.now] if self.now is not None else [])]


def plain_entries(vms: Sequence[Vm]) -> list[Entry]:
    """Entries of results alone."""
    return [Entry(vm) for vm in vms]


def result_of(row: Mapping[str, Any] | None) -> Vm | None:
    """The VM that a kept result tells of; None where it is none."""
    if row is None:
        return None
    try:
        return vms_of([row])[0]
    except ValueError:
        return None  # a file that somebody has altered


def _vm_under_way(history: History, attempt: Attempt, state: str, now: float) -> Vm:
    disks = []
    for label, facts in attempt.disks.items():
        if facts.get("phase") in PERCENT_PHASES:
            continue  # the VM's snapshot
        done, total, skipped = (int(number(facts.get(key))) for key in ("done", "total", "skipped"))
        moved = max(0, done - skipped) if facts.get("phase") == "copy" else 0
        disks.append(Disk(label, capacity=total, bytes_read=moved, bytes_written=moved, bytes_skipped=min(done, skipped) if moved else 0))
        disks[-1].seconds = number(facts.get("seconds"))
    end = now if state == "running" else attempt.until()
    vm = Vm(history.name or history.host, state, seconds=max(0.0, end - attempt.began), disks=disks, cycles=cycles_of(attempt.cycles))
    if state == "interrupted":
        vm.errors.append({"message": CUT, "next_command": AGAIN})
    return vm


def _going(attempt: Attempt) -> list[Going]:
    out = []
    for label, facts in attempt.disks.items():
        if facts.get("state") != "running":
            continue
        left = facts.get("left")
        done, total = (int(number(facts.get(key))) for key in ("done", "total"))
        rate = number(facts.get("rate"))
        out.append(
            Going(label, text(facts.get("phase")), done, total, rate, None if left is None else number(left), text(facts.get("why")))
        )
    return out


def _forecast(attempt: Attempt) -> float | None:
    return number(attempt.forecast.get("downtime")) or None if attempt.forecast else None


def _entry(history: History, run: str, now: float, mine: bool) -> Entry:
    attempt = history.now
    of_this_run = attempt.run == run
    alive = of_this_run or (attempt.ended is None and now - attempt.touched < FRESH)
    result = result_of(attempt.result)
    if not alive and mine:
        # It will come to it. What earlier runs did is told below it.
        vm = Vm(history.name or history.host, "waiting")
        return Entry(vm, None, [*history.earlier, attempt])
    if result is not None:
        return Entry(result, attempt, history.earlier, old=not of_this_run)
    state = "running" if alive and attempt.ended is None else "interrupted"
    vm = _vm_under_way(history, attempt, state, now)
    going = _going(attempt) if state == "running" else []
    return Entry(vm, attempt, history.earlier, going, old=not of_this_run, forecast=_forecast(attempt))


def running(known: Mapping[str, History], hosts: Sequence[str], others: Iterable[str], run: str, now: float) -> list[Entry]:
    """The entries of a page while its run goes on.

    :param known: what the folder has (history.all_of()).
    :param hosts: inventory names of the play; each has an entry.
    :param others: further members of the wave; those of which an earlier run has left word have one.
    """
    out = [_entry(known[host], run, now, True) if host in known else Entry(Vm(text(host), "waiting")) for host in hosts]
    mine = set(hosts)
    out += [_entry(known[host], run, now, False) for host in dict.fromkeys(others) if host in known and host not in mine]
    return out


def finished(vms: Sequence[Vm], found: Sequence[History | None], run: str) -> list[Entry]:
    """The entries of a run's results, each with its history (see match())."""
    out = []
    for vm, history in zip(vms, found, strict=True):
        if history is None:
            out.append(Entry(vm))
        elif history.now.run == run:
            out.append(Entry(vm, history.now, history.earlier))
        else:
            out.append(Entry(vm, None, [*history.earlier, history.now]))
    return out


def others(known: Mapping[str, History], hosts: Iterable[str], run: str, now: float) -> list[Entry]:
    """The entries of those C(hosts) that have a file but no result in this run, which is over."""
    out = []
    for host in hosts:
        history = known.get(host)
        if history is not None:
            if history.now.run == run and history.now.ended is None:
                history.now.ended = now  # it was begun, and left no word: unreachable, or its play was stopped
            out.append(_entry(history, run, now, False))
    return out


def match(vms: Sequence[Vm], histories: Iterable[History], run: str) -> list[History | None]:
    """The file of each result: by its VM's uuid where this run has left a result, else by its name; each file once."""
    free = sorted(histories, key=lambda h: h.now.run != run)
    out: list[History | None] = []
    for vm in vms:
        by_uuid = (h for h in free if vm.source_uuid and h.now.result and h.now.result.get("source_uuid") == vm.source_uuid)
        by_name = (h for h in free if vm.name in (h.name, h.host))
        found = next(by_uuid, None) or next(by_name, None)
        if found is not None:
            free.remove(found)
        out.append(found)
    return out


def counts(entries: Sequence[Entry]) -> list[tuple[str, int]]:
    """How many are in each state; states that none is in are left out."""
    numbers = [(state, sum(e.vm.state == state for e in entries)) for state in (*OPEN_STATES, *STATES)]
    return [(state, n) for state, n in numbers if n]


def shown_attempts(entries: Sequence[Entry]) -> list[list[Attempt]]:
    """Per entry the attempts that the picture shows: those of this run, and earlier ones while it does not get too long."""
    current = [a for e in entries for a in ([e.now] if e.now is not None and not e.old else [])]
    every = [a for e in entries for a in e.attempts()]
    end = max([a.until() for a in every], default=0.0)
    begin = min([a.began for a in current or every], default=end)
    limit = end - PICTURE * (end - begin)
    return [[a for a in e.attempts() if a.began >= limit] for e in entries]
