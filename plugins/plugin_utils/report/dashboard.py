# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes a report's page from the files of its VMs: one process at a time, now and then, and never waiting for another."""

from __future__ import annotations

import datetime
import fcntl
import os
import time
from dataclasses import dataclass, field

from ansible_collections.ferry.vmware.plugins.plugin_utils.report import history, page, wave
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.files import replace

#: Of a processor's time, at most one part in so many goes into the page: one of 500 VMs takes a second.
SHARE = 20
#: Seconds after which a page that shows more VMs than C(MANY) reloads itself, at the least.
CALM, MANY = 15.0, 60


@dataclass(frozen=True)
class Plan:
    """What the page has to know beside the files.

    :param run: the run that writes (see live.py's run_name()).
    :param hosts: inventory names of the play, in its order.
    :param others: further VMs of the wave, which are shown where an earlier run has left word of them.
    """

    title: str
    run: str
    hosts: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    language: str = "en"


def refresh(path: str, plan: Plan, interval: float, soon: bool = False) -> bool:
    """Write the page again if it is time to, and nobody else is at it.

    :param interval: seconds between two writings.
    :param soon: something has happened: it is worth a page before the interval is over.
    :returns: whether it was written.
    :raises OSError: the folder or the page cannot be written.
    """
    fd = os.open(os.path.join(history.folder_of(path), ".page"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        now = time.time()
        last, cost = _times(os.pread(fd, 100, 0))
        pause = cost * SHARE if soon else max(interval, cost * SHARE)
        if 0 <= now - last < pause:
            return False
        began = time.process_time()
        replace(path, render(path, plan, interval, now))
        told = f"{now:.3f} {time.process_time() - began:.3f}\n".encode()
        os.pwrite(fd, told, 0)
        os.ftruncate(fd, len(told))
        return True
    finally:
        os.close(fd)


def _times(content: bytes) -> tuple[float, float]:
    """When the page was written last, and what it took."""
    try:
        last, cost = map(float, content.split())
    except ValueError:
        return 0.0, 0.0
    return last, min(cost, 60.0)


def render(path: str, plan: Plan, interval: float, now: float) -> str:
    """The page as it is while the wave runs."""
    known = history.all_of(history.folder_of(path))
    entries = wave.running(known, plan.hosts, plan.others, plan.run, now)
    every = max(5.0, interval, CALM if len(entries) > MANY else 0.0)
    when = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
    return page.wave_html(entries, plan.title or "Migration", when, language=plan.language, every=every)
