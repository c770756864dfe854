# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps a report up to date while a wave runs: each fork writes its VM's file, and now and then one of them the page.

Nothing here may hold up or fail a migration: whatever cannot be written becomes one warning.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
import socket
import time
from typing import Any, Callable, Concatenate, Mapping, ParamSpec, Sequence

from ansible.utils.display import Display

from ansible_collections.ferry.vmware.plugins.module_utils.disk.progress import start_time
from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import PERCENT_PHASES
from ansible_collections.ferry.vmware.plugins.plugin_utils.report import dashboard, history
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.files import replace
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.labels import LANGUAGES
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import number, plain, text

display = Display()
P = ParamSpec("P")

#: Phases of the status file that read back or compare what is there already.
PROVING = ("verify", "outside", "sha256")
#: How phases begin that make zeroes where nothing is copied to: a volume's end past its disk.
CLEARING = "clear"
#: What is kept of a disk.
FACTS = ("phase", "done", "total", "skipped", "rate", "left", "seconds", "state", "why")
#: How long before us a disk may have been begun and still count as begun by this task, in seconds.
SLACK = 5.0
#: Seconds between two signs of life of one that waits.
BEAT = 30.0


def run_name() -> str:
    """What all forks of one ansible-playbook have in common, and no other run has."""
    return name_of_process(os.getppid())


def name_of_process(pid: int) -> str:
    """What no other process has had or will have: the machine, the number and the start of C(pid)."""
    return f"{socket.gethostname()}-{pid}-{start_time(pid)}"


def file_of(folder: str, host: str) -> str:
    """A VM's file: names from an inventory may hold anything."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", host)[:60]
    return os.path.join(folder, f"vm-{slug}-{hashlib.sha256(host.encode()).hexdigest()[:10]}.json")


def page_of(value: Any) -> str:
    """The path of a page that C(ferry_report) names; empty for none."""
    return os.path.abspath(os.path.expanduser(str(value))) if value else ""


def members(task_vars: Mapping[str, Any]) -> list[str]:
    """The hosts of the play, and those of the group that C(ferry_wave) names: with C(--limit) the play has only some of them."""
    wave, groups, play = task_vars.get("ferry_wave"), task_vars.get("groups"), task_vars.get("ansible_play_hosts_all")
    group = groups.get(str(wave)) if isinstance(groups, Mapping) and wave else None
    return list(dict.fromkeys(text(host) for host in [*(play or []), *(group or [])]))


def _harmless(method: Callable[Concatenate[Live, P], None]) -> Callable[Concatenate[Live, P], None]:
    """No report is worth a migration: whatever goes wrong in it is said, and that is all."""

    @functools.wraps(method)
    def guarded(self: Live, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.broken:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as e:  # noqa: BLE001 - a full disk, a file that somebody altered, a template: see above
            self.give_up(e)

    return guarded


class Live:
    """The report on one VM while it is worked on. Made for each task by C(of); does nothing where no report is wanted.

    :param page: path of the page.
    :param host: the VM's name in the inventory.
    :param plan: what the page has to know beside the files.
    :param interval: seconds between two writings.
    """

    def __init__(self, page: str, host: str, plan: dashboard.Plan, interval: float = 5.0) -> None:
        self.page = page
        self.plan = plan
        self.interval = interval
        self._path = file_of(history.folder_of(page), host)
        self._host = host
        self._last: dict[str, tuple[float, float, str]] = {}
        self._states: dict[str, Any] = {}
        self._moved = 0.0
        self._joined = False
        self._written = -math.inf
        self._began = time.time()
        self._history: history.History | None = None
        self.broken = False

    @classmethod
    def of(cls, task_vars: Mapping[str, Any], templar: Any) -> Live | None:
        """The one that the play's variables ask for: C(ferry_report), C(ferry_report_interval), C(ferry_report_language)."""
        host = text(task_vars.get("inventory_hostname"))
        if not task_vars.get("ferry_report") or not host:
            return None

        def told(name: str) -> Any:
            return templar.template(task_vars[name]) if name in task_vars else None

        try:
            page = page_of(told("ferry_report"))
            interval = told("ferry_report_interval")
            language = str(told("ferry_report_language") or "en")
            title = text(told("ferry_report_title"))
            hosts = plain(task_vars.get("ansible_play_hosts_all")) or [host]
        except Exception as e:  # noqa: BLE001 - whatever a user's template raises: the task itself will say so where it matters
            display.vv(f"{host}: no live report: {e}")
            return None
        if not page:
            return None
        plan = dashboard.Plan(
            title=title,
            run=run_name(),
            hosts=[text(h) for h in hosts],
            others=members(task_vars),
            language=language if language in LANGUAGES else "en",
        )
        return cls(page, host, plan, number(interval) if interval not in (None, "") else 5.0)

    # -- what tasks call ----------------------------------------------------------------------------------------------

    @_harmless
    def phase(self, name: str, state: str = "begin") -> None:
        """A phase begins (the one before ends), ends, or has failed. An end names the phase that lasts, or none."""
        now = time.time()
        attempt = self._attempt(now, fresh=True)
        if state == "begin":
            attempt.begin(name, now)
        elif not name or (attempt.phase is not None and attempt.phase.name == name):
            attempt.close(now, state == "failed")
        self._write(now)

    @_harmless
    def result(self, row: Mapping[str, Any]) -> None:
        """How the VM ended; the last word of this run on it."""
        now = time.time()
        attempt = self._attempt(now, fresh=True)
        attempt.close(now, row.get("state") == "failed")
        attempt.result, attempt.ended = history.small_result(row), now
        if self._history is not None:
            self._history.name = text(row.get("name")) or self._history.name
        self._write(now)

    @_harmless
    def cycles(self, rows: Sequence[Mapping[str, Any]], forecast: Mapping[str, Any] | None) -> None:
        """The cycles of precopying so far, without what each did for each disk, and what is expected of a cutover now."""
        now = time.time()
        attempt = self._attempt(now, fresh=True)
        attempt.cycles = history.small_cycles(plain(rows[-history.MOST_CYCLES :]))
        attempt.forecast = plain(forecast) if forecast else None
        self._write(now)

    @_harmless
    def progress(self, status: Mapping[str, Any], phase: str = "copy") -> None:
        """What a long task's status file says; written at most every C(interval) seconds, and whenever a disk's state changes.

        :param phase: the one that begins with it, unless the role has named another.
        """
        now = time.time()
        disks = {text(label): facts for label, facts in status["disks"].items()}
        states = {label: (facts.get("phase"), facts.get("state")) for label, facts in disks.items()}
        if not disks or (now - self._written < self.interval and states == self._states):
            return
        self._states = states
        attempt = self._attempt(now)
        if self._history is not None:
            self._history.name = text(status.get("name")) or self._history.name
        self._turn(attempt, disks, phase, now)
        for label, facts in disks.items():
            if str(status.get("unit") or "bytes") == "bytes":
                self._sample(attempt, label, facts, now)
            attempt.disks[label] = {k: facts.get(k) for k in FACTS}
        self._write(now, soon=False)

    @_harmless
    def beat(self) -> None:
        """Still there, and waiting: a page that is not written for minutes looks like a run that has died."""
        now = time.time()
        if now - self._written >= max(self.interval, BEAT):
            self._attempt(now, fresh=True)
            self._write(now, soon=False)

    @_harmless
    def ended(self, outcome: Mapping[str, Any]) -> None:
        """A long task has ended: what it moved between two looks at its status file is made up for."""
        disks = outcome.get("disks")
        if self._joined or not isinstance(disks, list):
            return
        missed = sum(number(d.get("bytes_read")) for d in disks if isinstance(d, Mapping)) - self._moved
        if missed > 0:
            now = time.time()
            attempt = self._attempt(now)
            attempt.samples.add("moved", missed, self._began - attempt.began, now - attempt.began)
            self._write(now, soon=False)

    # -- how ----------------------------------------------------------------------------------------------------------

    @staticmethod
    def _turn(attempt: history.Attempt, disks: Mapping[str, Mapping[str, Any]], phase: str, now: float) -> None:
        """The phase that the figures tell of, where the role tells of none: copying, then reading back."""
        lasting = attempt.phase.name if attempt.phase is not None else ""
        running = [str(facts.get("phase")) for facts in disks.values() if facts.get("state") == "running"]
        if lasting in ("", "plan", "prepare"):
            attempt.begin(phase, now)
        elif lasting in ("copy", "verify") and running:
            attempt.begin("verify" if all(name in PROVING for name in running) else "copy", now)

    def _sample(self, attempt: history.Attempt, label: str, facts: Mapping[str, Any], now: float) -> None:
        phase = str(facts.get("phase") or "")
        if phase in PERCENT_PHASES or phase.startswith(CLEARING):
            return
        proving = phase in PROVING
        # What was skipped took no time worth a curve; of a phase that reads back nothing is skipped.
        moved = number(facts.get("done")) - (0 if proving else number(facts.get("skipped")))
        before = self._last.get(label)
        if before is not None and before[2] == phase and moved >= before[1]:
            since, base = before[0], before[1]
        elif before is not None:
            since, base = before[0], 0.0
        else:
            since, base = now - number(facts.get("seconds")), 0.0
            if since < self._began - SLACK:
                since, base = now, moved  # a run that we have joined: what it did before is not of this minute
                self._joined = True
        self._last[label] = (now, moved, phase)
        self._moved += 0.0 if proving else moved - base
        attempt.samples.add("verified" if proving else "moved", moved - base, since - attempt.began, now - attempt.began)

    def _attempt(self, now: float, fresh: bool = False) -> history.Attempt:
        """This run's attempt. C(fresh): another task of this fork may have written the file since (a cycle of a precopy)."""
        if self._history is None or fresh:
            self._history = history.load(self._path) or history.History(self._host, history.Attempt(self.plan.run, now, now))
        return self._history.of_run(self.plan.run, now)

    def _write(self, now: float, soon: bool = True) -> None:
        if self._history is None:
            return
        self._history.now.touched = now
        self._written = now
        replace(self._path, history.dump(self._history))
        dashboard.refresh(self.page, self.plan, self.interval, soon)

    def give_up(self, why: Exception) -> None:
        """Say so, once, and do no more in this task."""
        said = why.strerror or str(why) if isinstance(why, OSError) else f"{type(why).__name__}: {why}"
        # The same words for all VMs: Ansible shows them once.
        display.warning(f"The live report {self.page} cannot be written: {text(said)[:300]}. The migration goes on without it.")
        self.broken = True
