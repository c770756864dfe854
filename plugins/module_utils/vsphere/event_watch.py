# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vCenter's events and states, pushed: one property collector waits for new events of a history collector and for hosts and datastores.

The latest page of the history is the bell; the events themselves are read from the history, in pages, so that no burst is larger than
what is read. What belongs to a session (collectors, the view) is gone with it; after each log-in it is made anew, the history is read on
from the mark, and all states are looked at.

Vendor reference: vSphere Web Services API, PropertyCollector.WaitForUpdatesEx, EventManager.CreateCollectorForEvents,
EventHistoryCollector (ReadNextEvents, latestPage), HistoryCollector ("A HistoryCollector exists only for the duration of the session
that instantiated it").
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Callable, Mapping, Sequence, TypeVar

from ..errors import FerryError, ServerError
from .client import Session, connect
from .event_model import (
    ALL_TYPES,
    BACK_TYPES,
    DEFAULT_TYPES,
    Mark,
    States,
    Thresholds,
    fresh,
    shape,
    stamp,
    type_of,
)
from .event_places import HOST, PATHS, Places

T = TypeVar("T")

#: Events in one answer of ReadNextEvents (at most 1,000, HistoryCollector.SetCollectorPageSize).
PAGE = 1000
#: Events on the latest page, which only rings.
BELL = 10
#: Events that are handed on between two marks: so many may be handed on again after a kill.
MARK_EVERY = 100
#: Pages that are read before the states are looked at again: a storm of events does not hold up a host that is lost.
PAGES_AT_ONCE = 5
#: Seconds that one question waits for updates; it also keeps the session alive, whose idle time is 30 minutes.
WAIT = 20
#: Seconds for any answer. A vCenter that is gone without a word is noticed after that.
TIMEOUT = 60.0
#: Seconds by which the history is read from before the mark: clocks of hosts differ, keys do not.
MARGIN = 300.0
#: Seconds between two tries to reach a vCenter that is away: the first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0

SWEEPS = ("new", "all", "none")


@dataclass(frozen=True)
class Options:
    """What is watched. C(types): of events; C(*) for all. C(sweep): at the start, tell the states that were not told (new), all that
    there are, or none. C(remind): seconds after which states that last are told again, 0 for never."""

    connection: Mapping[str, Any]
    types: tuple[str, ...] = DEFAULT_TYPES
    thresholds: Thresholds = field(default_factory=Thresholds)
    sweep: str = "new"
    remind: float = 0.0
    wait: int = WAIT


@dataclass(frozen=True)
class Batch:
    """What is to be handed on, and the mark that holds afterwards."""

    events: Sequence[dict[str, Any]]
    mark: Mark


class _Over(Exception):
    """The session is over: it expired, or vCenter has ended it."""


class Watch:
    """Watches one vCenter until C(stop) is set.

    :param mark: from where to go on; None: from now.
    :param told: gets sentences for people.
    """

    def __init__(self, options: Options, mark: Mark | None, stop: threading.Event, told: Callable[[str], None]) -> None:
        self._options = options
        self._mark = mark
        self._stop = stop
        self._told = told
        self._connected = False
        self._swept = False
        #: Sessions so far; tests and the curious look at it.
        self.sessions = 0

    def run(self, hand: Callable[[Batch], None]) -> None:
        """Hand batches on until stopped. C(hand) may block: nothing is read ahead of it then.

        :raises FerryError: at the first connection only: what no waiting mends (a wrong password, a certificate that is not trusted).
        """
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                with connect(self._options.connection, TIMEOUT) as session:
                    self._connected = True
                    self.sessions += 1
                    _Listening(session, self._options, self._mark, not self._swept, self._stop).run(hand, self._went)
            except _Over:
                pause = FIRST_PAUSE
                self._told("The session with vCenter is over; logging in again.")
            except FerryError as e:
                if self._stop.is_set():
                    return
                if not self._connected and not _passes(e):
                    raise
                self._told(f"vCenter is away, trying again: {e}")
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            if self._stop.wait(pause * random.uniform(0.75, 1.25)):
                return
            pause = min(LONGEST_PAUSE, pause * 2)

    def _went(self, mark: Mark) -> None:
        """So far has been read, and the states have been looked at."""
        self._mark = mark
        self._swept = True


def _passes(e: FerryError) -> bool:
    """Whether waiting may mend it: vCenter is away, or comes up."""
    return isinstance(e, ServerError) and e.code in ("unreachable", "timeout", "protocol", "not_vsphere", "fault")


class _Listening:
    """One session's listening. C(start): the source has just begun, so states are told as C(sweep) says."""

    def __init__(self, session: Session, options: Options, mark: Mark | None, start: bool, stop: threading.Event) -> None:
        self._session = session
        self._options = options
        self._stop = stop
        self._start = start
        about = session.content.about
        self._vcenter = {"name": session.endpoint.host, "uuid": str(about.instanceUuid or "")}
        self._latest = self._ask(lambda: session.content.eventManager.latestEvent, "read the latest event")
        self._anew = self._from_now = False
        self._mark = self._begin(mark)
        self._states = States(self._mark, options.thresholds, self._vcenter)
        self._places = Places(session)
        self._waiter = session.content.propertyCollector

    def _begin(self, mark: Mark | None) -> Mark:
        now = Mark(self._vcenter["uuid"])
        if self._latest is not None:
            now = now.passed(self._latest)
        if mark is None or mark.vcenter != self._vcenter["uuid"]:
            self._from_now = True
            return now  # the first time, or another vCenter in the same place: its events mean nothing to the mark
        self._anew = self._latest is None or int(self._latest.key) < mark.key
        return replace(mark, key=0) if self._anew else mark

    def _ask(self, fn: Callable[..., T], step: str, *args: Any) -> T:
        """A call that is not repeated in a new session: what it asks for would not be there."""
        session = self._session
        try:
            return fn(*args)
        except session.vim.fault.NotAuthenticated as e:
            raise _Over from e
        except Exception as e:  # typed by error(), or raised again
            typed = session.error(e, step)
            if typed is e:
                raise
            if getattr(typed, "details", {}).get("fault") in ("ManagedObjectNotFound", "InvalidCollectorVersion"):
                raise _Over from e
            raise typed from e

    def run(self, hand: Callable[[Batch], None], went: Callable[[Mark], None]) -> None:
        """Until stopped, or the session ends."""

        def on(states: Sequence[dict[str, Any]]) -> None:
            self._mark = self._states.marked(self._mark)
            hand(Batch(states, self._mark))
            went(self._mark)

        def tell(events: Sequence[Any]) -> None:
            for begin in range(0, len(events), MARK_EVERY):
                part = events[begin : begin + MARK_EVERY]
                self._mark = self._mark.passed(part[-1])
                on([shape(e, self._vcenter) for e in part if self._wanted(e)])

        history = self._collector()
        while (page := self._page(history)) and not self._stop.is_set():
            self._states.was_back(page)
            tell(page)
        if self._anew and not self._mark.key and self._latest is not None:
            self._mark = replace(self._mark, key=int(self._latest.key))
        self._anew = False
        self._watch_for(history)
        version = self._sweep(on)
        reminded = time.monotonic()
        wait = 0  # what has come between the reading and the waiting is asked for at once
        while not self._stop.is_set():
            version, rang, states = self._wait(version, wait)
            if states:
                on(states)
            more = False
            if rang or wait == 0:
                for _number in range(PAGES_AT_ONCE):
                    read = self._page(history)
                    tell(read)
                    more = bool(read)
                    if not more:
                        break
            wait = 0 if more else self._options.wait
            if self._options.remind and time.monotonic() - reminded >= self._options.remind:
                reminded = time.monotonic()
                again = self._states.again((t for _kind, t in self._places.all()), _now())
                if again:
                    on(again)
            if self._options.remind:
                wait = min(wait, max(1, int(self._options.remind)))

    # -- the history ----------------------------------------------------------------------------------------------------

    def _collector(self) -> Any:
        vim = self._session.vim
        spec = vim.event.EventFilterSpec()
        if ALL_TYPES not in self._options.types:
            spec.eventTypeId = sorted({*self._options.types, *BACK_TYPES})
        if self._mark.time:
            begin = datetime.fromisoformat(self._mark.time.replace("Z", "+00:00")) - timedelta(seconds=MARGIN)
            spec.time = vim.event.EventFilterSpec.ByTime(beginTime=begin)
        history = self._ask(self._session.content.eventManager.CreateCollectorForEvents, "collect events", spec)
        self._ask(history.SetCollectorPageSize, "collect events", BELL)
        # behind the latest page, or at the oldest
        self._ask(history.ResetCollector if self._from_now else history.RewindCollector, "collect events")
        return history

    def _page(self, history: Any) -> list[Any]:
        """The next events after the mark; empty at the end."""
        while page := self._ask(history.ReadNextEvents, "read events", PAGE):
            found = fresh(page, self._mark, anew=self._anew)
            if found or self._stop.is_set():
                return found
        return []

    def _wanted(self, event: Any) -> bool:
        """Some are read for ourselves alone."""
        types = self._options.types
        kind = type_of(event)
        return ALL_TYPES in types or kind not in BACK_TYPES or kind in types

    # -- the states -----------------------------------------------------------------------------------------------------

    def _watch_for(self, history: Any) -> None:
        query, vim = self._session.vmodl.query.PropertyCollector, self._session.vim
        types = [getattr(vim, kind) for kind in PATHS]
        make = self._session.content.viewManager.CreateContainerView
        view = self._ask(make, "watch hosts and datastores", self._session.content.rootFolder, types, True)
        along = query.TraversalSpec(name="view", path="view", skip=False, type=vim.view.ContainerView)
        objects = [query.ObjectSpec(obj=view, skip=True, selectSet=[along])]
        wanted = [query.PropertySpec(type=getattr(vim, kind), pathSet=list(paths), all=False) for kind, paths in PATHS.items()]
        bell = query.PropertySpec(type=vim.event.EventHistoryCollector, pathSet=["latestPage"], all=False)
        for spec in (
            query.FilterSpec(objectSet=[query.ObjectSpec(obj=history, skip=False)], propSet=[bell]),
            query.FilterSpec(objectSet=objects, propSet=wanted),
        ):
            self._ask(self._waiter.CreateFilter, "watch hosts and datastores", spec, False)

    def _updates(self, version: str, wait: int) -> tuple[str, bool, list[tuple[str, str, bool]]]:
        """One answer: the version, whether the bell rang, the hosts and datastores that changed."""
        options = self._session.vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=wait)
        rang = False
        touched: list[tuple[str, str, bool]] = []
        while True:
            answer = self._ask(self._waiter.WaitForUpdatesEx, "wait for updates", version, options)
            if answer is None:
                return version, rang, touched
            version = answer.version
            for part in answer.filterSet or ():
                for update in part.objectSet or ():
                    if update.obj._wsdlName == "EventHistoryCollector":
                        rang = True
                        continue
                    found = self._places.put(update)
                    if found is not None:
                        touched.append(found)
            if not answer.truncated:
                return version, rang, touched

    def _wait(self, version: str, wait: int) -> tuple[str, bool, list[dict[str, Any]]]:
        version, rang, touched = self._updates(version, wait)
        now, states = _now(), []
        for kind, moref, there in touched:
            thing = self._places.thing(kind, moref) if there else None
            if not there:
                self._states.gone(moref)
            elif thing is not None:
                state = (self._states.host if kind == HOST else self._states.datastore)(thing, now)
                if state is not None:
                    states.append(state)
        return version, rang, states

    def _sweep(self, on: Callable[[Sequence[dict[str, Any]]], None]) -> str:
        """Look at all states: what happened to them while nobody listened is told, marked C(synthetic)."""
        version, _rang, _touched = self._updates("", 0)
        now, states = _now(), []
        things = self._places.all()
        there = {thing.moref for _kind, thing in things}
        for moref in [m for m in (*self._states.hosts, *self._states.datastores) if m not in there]:
            self._states.gone(moref)
        for kind, thing in things:
            state = (self._states.host if kind == HOST else self._states.datastore)(thing, now, synthetic=True)
            if state is not None:
                states.append(state)
        if self._start and self._options.sweep == "all":
            new = {s["id"] for s in states}
            states += [s for s in self._states.again((t for _kind, t in things), now) if s["id"] not in new]
        on([] if self._start and self._options.sweep == "none" else states)
        return version


def _now() -> str:
    return stamp(datetime.now(timezone.utc))
