# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many relocations may be under way, and which may be next: limits by source, target and host, fewer when the server is busy, room on
the targets by their figures of now, and the window. No requests but those for the figures."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Callable, Iterable

from .client import Client, pause_before
from .entities import Datastore
from .evacuate_plan import Item, Key, Limits
from .evacuate_window import Pace, Window
from .find import list_datastores

#: Seconds between two looks at the targets' figures.
FIGURES = 2.0
#: Seconds that vCloud Director's figures may lag behind what was written.
FIGURES_LAG = 300.0


@dataclass(eq=False)
class Job:
    """A VM on its way.

    :param target: where to.
    :param task: the href of its relocation; None before it was begun.
    :param not_before: when it may be tried again, by the monotonic clock.
    :param busy_since: when the server first said that it is busy.
    """

    item: Item
    target: Datastore
    base_mb: int = 0
    task: str | None = None
    joined: bool = False
    joins: int = 0
    tries: int = 0
    not_before: float = 0.0
    busy_since: float | None = None
    began: float = 0.0
    began_wall: float = 0.0
    why: str = ""

    @property
    def need_mb(self) -> int:
        return self.item.mb + self.base_mb

    @property
    def clone(self) -> bool:
        return self.item.chain > 1


class Throttle:
    """How many at a time: the limits, and less while the server refuses for the moment."""

    def __init__(self, limits: Limits, targets: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.most = limits.total(targets)
        self.allowed = self.most
        self.quiet_until = 0.0
        self._clock = clock
        self._refusals = 0
        self._well = 0
        # learned from BUSY_ENTITY: the server lets only one of these move at a time
        self._alone: set[str] = set()

    def may(self, job: Job, under_way: Iterable[Job]) -> bool:
        """Whether C(job) may be begun beside those that are under way."""
        others = list(under_way)
        if len(others) >= self.allowed or self._clock() < self.quiet_until:
            return False
        if sum(o.target.key == job.target.key for o in others) >= self.limits.per_target:
            return False
        if job.item.host and sum(o.item.host == job.item.host for o in others) >= self.limits.per_host:
            return False
        return not any(k in self._alone for k in _ties(job.item) for o in others if k in _ties(o.item))

    def full_targets(self, under_way: Iterable[Job]) -> set[Key]:
        """The targets that take no more for the moment."""
        return {key for key, n in Counter(o.target.key for o in under_way).items() if n >= self.limits.per_target}

    def full(self, under_way: int) -> None:
        """The server's queue of operations is full. While some of ours are in it, their ends make room; else after a pause."""
        self._well = 0
        self.allowed = max(1, min(self.allowed, under_way))
        if not under_way:
            self.away(None)

    def away(self, retry_after: str | None) -> None:
        """The server asks for fewer requests (429, 503): half as many at a time, after a pause. Refusals of one moment count once."""
        if self._clock() < self.quiet_until:
            return
        self._refusals += 1
        self._well = 0
        self.allowed = max(1, self.allowed // 2)
        self.quiet_until = self._clock() + pause_before(min(self._refusals, 6) + 1, retry_after)

    def busy(self, job: Job, under_way: Iterable[Job]) -> float:
        """The VM is busy; gives the seconds to wait before it is tried again. Where one that we move ourselves may be the reason, its
        vApp, else its chain, is moved one by one from now on."""
        others = [o for o in under_way if o is not job]
        for tie in _ties(job.item):
            if any(tie in _ties(o.item) for o in others):
                self._alone.add(tie)
                return 0.0  # may() holds it back until that one has ended
        self._well = 0
        self.allowed = max(1, self.allowed - 1)
        return pause_before(min(job.tries, 6) + 1)

    def well(self) -> None:
        """One was begun: after as many of these as are allowed, one more is."""
        self._refusals = 0
        self._well += 1
        if self.allowed < self.most and self._well >= self.allowed:
            self._well = 0
            self.allowed += 1


def _ties(item: Item) -> list[str]:
    return [f"{kind}:{key}" for kind, key in (("vapp", item.vapp_href), ("chain", item.group)) if key]


@dataclass
class _Figures:
    store: Datastore
    #: What has been moved there that the figures may not show yet: when it ended, and MiB.
    unseen: list[tuple[float, int]] = field(default_factory=list)


class Space:
    """Room on the targets: what the server says now, less the reserve, less what is under way and what its figures may not show yet."""

    def __init__(
        self, client: Client, targets: Iterable[Datastore], reserve_percent: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._clock = clock
        self.reserve_percent = reserve_percent
        self._figures: dict[Key, _Figures] = {t.key: _Figures(t) for t in targets}
        self._looked = clock()

    def refresh(self) -> None:
        """Look again, not oftener than every FIGURES seconds."""
        now = self._clock()
        if now - self._looked < FIGURES:
            return
        self._looked = now
        fresh = {d.key: d for d in list_datastores(self._client)}
        for key, figures in self._figures.items():
            store = fresh.get(key)
            if store is None:
                continue
            if store.used_mb != figures.store.used_mb:
                figures.unseen.clear()
            figures.unseen = [(t, mb) for t, mb in figures.unseen if now - t < FIGURES_LAG]
            figures.store = store

    def arrived(self, job: Job) -> None:
        """A move has ended well."""
        self._figures[job.target.key].unseen.append((self._clock(), job.need_mb))

    def trouble(self, key: Key) -> str:
        """Why nothing may go to that target; empty where it may."""
        store = self._figures[key].store
        if store.deleted:
            return f"the target {store.name} was deleted"
        return "" if store.enabled else f"the target {store.name} is disabled"

    def fits(self, key: Key, need_mb: int, under_way: Iterable[Job]) -> bool:
        figures = self._figures[key]
        store = figures.store
        flight = sum(o.need_mb for o in under_way if o.target.key == key) + sum(mb for t, mb in figures.unseen)
        return store.used_mb + flight + need_mb <= store.total_mb - int(store.total_mb * self.reserve_percent / 100)

    def may_come(self, key: Key, under_way: Iterable[Job]) -> bool:
        """Whether room may still show by itself: what is under way there is counted by its largest size until it has ended."""
        return bool(self._figures[key].unseen) or any(o.target.key == key for o in under_way)

    def other(self, job: Job, under_way: Iterable[Job]) -> Datastore | None:
        """Another target that has room for a VM which stands alone."""
        others = list(under_way)
        found = [
            f.store
            for key, f in self._figures.items()
            if key != job.target.key and not self.trouble(key) and self.fits(key, job.need_mb, others)
        ]
        return max(found, key=lambda d: (d.free_mb, d.name), default=None)


def fits_window(job: Job, window: Window, pace: Pace, now: float) -> bool:
    """Whether, begun C(now) (seconds since the epoch), it would be over by the end of the window, by the rate that was measured."""
    if window.end is None:
        return True
    return now + (pace.estimate(job.item.mb, job.clone) or 0.0) < window.end
