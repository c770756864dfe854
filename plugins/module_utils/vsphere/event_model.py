# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vCenter's events and states as plain data: what an event source hands on, and what it has told already. Pure.

Two sorts. An I<event> of vCenter's history is a fact, handed on once: C(kind) is C(event). A I<state> is a level (a host is lost, a
datastore is filling): it is told when it begins, and may be told again while it lasts, with the same C(id).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Iterable, Mapping, Sequence

from ..errors import bounded

HOST_LOST, HOST_BACK = "host_lost", "host_back"
FILLING, RELIEVED = "datastore_filling", "datastore_relieved"
EVENT = "event"
KINDS = (HOST_LOST, HOST_BACK, FILLING, RELIEVED, EVENT)

#: HostSystemConnectionState: "VirtualCenter is not receiving heartbeats from the server". A host that an administrator has
#: disconnected is not lost.
LOST = "notResponding"
#: After one of these a host that was lost and is lost now was back in between.
BACK_TYPES = frozenset({"HostConnectedEvent", "HostAddedEvent"})
#: Events that are handed on unless others are asked for.
DEFAULT_TYPES = (
    "HostConnectionLostEvent",
    "HostConnectedEvent",
    "HostDisconnectedEvent",
    "HostReconnectionFailedEvent",
    "HostShutdownEvent",
    "EnteredMaintenanceModeEvent",
    "ExitMaintenanceModeEvent",
    "AlarmStatusChangedEvent",
    "VmFailoverFailed",
    "VmRestartedOnAlternateHostEvent",
)
ALL_TYPES = "*"
#: Characters of one text of an event.
MAX_TEXT = 300
#: Properties of vim.event.Event that have a place of their own.
_BASE = frozenset(
    ("key", "chainId", "createdTime", "userName", "datacenter", "computeResource", "host", "vm", "ds", "net", "dvs")
    + ("fullFormattedMessage", "changeTag", "dynamicType", "dynamicProperty", "eventTypeId")
)
#: Argument of an event: the name of its reference, and what it is called here.
_OBJECTS = (
    ("vm", "vm", "vm"),
    ("host", "host", "host"),
    ("ds", "datastore", "datastore"),
    ("computeResource", "computeResource", "cluster"),
    ("datacenter", "datacenter", "datacenter"),
    ("net", "network", "network"),
)
_extra: dict[type, tuple[str, ...]] = {}


def inert(text: object) -> str:
    """A text from vCenter, short, on one line, and nothing that Ansible would take for a template: whoever may name a VM must not be able
    to have a playbook evaluate that name. Objects are found by MoRef, not by these names."""
    raw = text if isinstance(text, str) and len(text) <= MAX_TEXT and text.isprintable() else bounded(text, MAX_TEXT)
    return raw.replace("{", "(").replace("}", ")")


def stamp(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds; these compare as the moments do."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def type_of(event: Any) -> str:
    """The type of a vCenter event as its filters have it: eventTypeId of an EventEx, else the class."""
    kind = str(event._wsdlName)
    return str(getattr(event, "eventTypeId", None) or kind) if kind in ("EventEx", "ExtendedEvent") else kind


def _extra_of(event: Any) -> tuple[str, ...]:
    known = _extra.get(type(event))
    if known is None:
        known = tuple(p.name for p in event._GetPropertyList() if p.name not in _BASE)
        _extra[type(event)] = known
    return known


def _plain(value: Any) -> Any:
    """A scalar, or the name in an argument of an event; None for all else."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return inert(value)
    if isinstance(value, datetime):
        return stamp(value)
    name = getattr(value, "name", None)
    return inert(name) if isinstance(name, str) else None


def shape(event: Any, vcenter: Mapping[str, str]) -> dict[str, Any]:
    """A vCenter event as plain data. C(id) is the same whenever it is read. Vendor reference: vSphere Web Services API, Event."""
    time = stamp(event.createdTime)
    shaped: dict[str, Any] = {
        "id": f"{vcenter['uuid']}:{event.key}:{time}",
        "kind": EVENT,
        "type": inert(type_of(event)),
        "key": int(event.key),
        "time": time,
        "message": inert(event.fullFormattedMessage or ""),
        "user": inert(event.userName or ""),
        "vcenter": dict(vcenter),
        "synthetic": False,
        "again": False,
    }
    for name, ref, ours in _OBJECTS:
        argument = getattr(event, name, None)
        if argument is not None:
            moref = getattr(argument, ref, None)
            shaped[ours] = {"name": inert(argument.name or ""), "moref": str(moref._moId) if moref is not None else None}
    data = {name: _plain(getattr(event, name, None)) for name in _extra_of(event)}
    shaped["data"] = {name: value for name, value in data.items() if value is not None}
    return shaped


@dataclass(frozen=True)
class Thing:
    """A host or a datastore as it is now. C(connection), C(cluster), C(group), C(definition): of hosts; C(group) and C(definition) are
    those of machine_register, C(group) else the cluster. C(capacity), C(free) (bytes), C(accessible): of datastores."""

    moref: str
    name: str
    maintenance: bool = False
    connection: str = ""
    cluster: str | None = None
    group: str | None = None
    definition: str | None = None
    capacity: int = 0
    free: int = 0
    accessible: bool = True

    @property
    def used_percent(self) -> float:
        """Of the capacity; 0 where it is unknown."""
        return round(100.0 * (self.capacity - self.free) / self.capacity, 2) if self.capacity > 0 else 0.0


@dataclass(frozen=True)
class Told:
    """A state that has been told and lasts. C(level): the threshold of a datastore, percent; 100 of a host."""

    id: str
    since: str
    name: str
    level: float = 100.0


@dataclass(frozen=True)
class Mark:
    """Up to where events were handed on, and which states were told. C(key), C(time): of the last event."""

    vcenter: str = ""
    key: int = 0
    time: str = ""
    hosts: Mapping[str, Told] = field(default_factory=dict)
    datastores: Mapping[str, Told] = field(default_factory=dict)

    def passed(self, event: Any) -> Mark:
        """After C(event) of the history."""
        return replace(self, key=int(event.key), time=stamp(event.createdTime))


@dataclass(frozen=True)
class Thresholds:
    """C(used): percents of a datastore's capacity, ascending. A level is left only C(hysteresis) percent below it, so that a
    datastore that swings round it is told once."""

    used: tuple[float, ...] = (85.0,)
    hysteresis: float = 3.0

    def level(self, percent: float, before: float) -> float:
        """The threshold that C(percent) has reached, coming from the level C(before); 0 for none."""
        up = max((u for u in self.used if percent >= u), default=0.0)
        kept = max((u for u in self.used if u <= before and percent > u - self.hysteresis), default=0.0)
        return max(up, kept)


class States:
    """What is lost and what is filling, and what of it was told."""

    def __init__(self, mark: Mark, thresholds: Thresholds, vcenter: Mapping[str, str]) -> None:
        self.hosts = dict(mark.hosts)
        self.datastores = dict(mark.datastores)
        self._returned: set[str] = set()
        self._thresholds = thresholds
        self._vcenter = dict(vcenter)

    def marked(self, mark: Mark) -> Mark:
        """C(mark) with the states as they are told now."""
        return replace(mark, vcenter=self._vcenter["uuid"], hosts=dict(self.hosts), datastores=dict(self.datastores))

    def was_back(self, events: Iterable[Any]) -> None:
        """Hosts came back while nobody listened: one that was told as lost and is lost now was lost anew."""
        for event in events:
            if type_of(event) in BACK_TYPES and event.host is not None and event.host.host is not None:
                self._returned.add(str(event.host.host._moId))

    def host(self, thing: Thing, now: str, *, synthetic: bool = False) -> dict[str, Any] | None:
        """The state of a host is C(thing): what is to be told of it."""
        told = self.hosts.get(thing.moref)
        returned = thing.moref in self._returned
        self._returned.discard(thing.moref)
        if thing.connection == LOST and (told is None or returned):
            self.hosts[thing.moref] = Told(f"{HOST_LOST}:{thing.moref}:{now}", now, thing.name)
            return self._state(HOST_LOST, thing, self.hosts[thing.moref], now, synthetic)
        if told is not None and thing.connection == "connected":
            del self.hosts[thing.moref]
            return self._state(HOST_BACK, thing, replace(told, id=told.id.replace(HOST_LOST, HOST_BACK, 1)), now, synthetic)
        return None

    def datastore(self, thing: Thing, now: str, *, synthetic: bool = False) -> dict[str, Any] | None:
        """The same of a datastore. One that cannot be reached says nothing of its space."""
        if not thing.accessible or thing.capacity <= 0:
            return None
        told = self.datastores.get(thing.moref)
        before = told.level if told is not None else 0.0
        level = self._thresholds.level(thing.used_percent, before)
        if level > before:
            fresh = Told(f"{FILLING}:{thing.moref}:{level:g}:{now}", now, thing.name, level)
            self.datastores[thing.moref] = fresh
            return self._state(FILLING, thing, fresh, now, synthetic)
        if told is not None and level == 0:
            del self.datastores[thing.moref]
            return self._state(RELIEVED, thing, replace(told, id=told.id.replace(FILLING, RELIEVED, 1), level=0.0), now, synthetic)
        if told is not None and level < before:
            self.datastores[thing.moref] = replace(told, level=level)
        return None

    def again(self, things: Iterable[Thing], now: str) -> list[dict[str, Any]]:
        """The states that last, told again."""
        known = {thing.moref: thing for thing in things}
        found = []
        for kind, states in ((HOST_LOST, self.hosts), (FILLING, self.datastores)):  # hosts first: they are what somebody waits for
            found += [{**self._state(kind, known[m], told, now, True), "again": True} for m, told in states.items() if m in known]
        return found

    def gone(self, moref: str) -> None:
        """The object was removed from the inventory."""
        self.hosts.pop(moref, None)
        self.datastores.pop(moref, None)

    def _state(self, kind: str, thing: Thing, told: Told, now: str, synthetic: bool) -> dict[str, Any]:
        what = {"name": inert(thing.name), "moref": thing.moref, "maintenance": thing.maintenance}
        shaped: dict[str, Any] = {
            "id": f"{self._vcenter['uuid']}:{told.id}",
            "kind": kind,
            "type": kind,
            "time": now,
            "since": told.since,
            "vcenter": self._vcenter,
            "synthetic": synthetic,
            "again": False,
        }
        if kind in (HOST_LOST, HOST_BACK):
            shaped["host"] = {**what, "connection": thing.connection}
            shaped["cluster"] = {"name": inert(thing.cluster or "")}
            shaped["group"] = inert(thing.group or thing.cluster or "")
            shaped["definition"] = inert(thing.definition or "")
            words = "does not answer vCenter" if kind == HOST_LOST else "answers again"
            shaped["message"] = f"{what['name']} {words}"
        else:
            shaped["datastore"] = {**what, "capacity": thing.capacity, "free": thing.free, "used_percent": thing.used_percent}
            shaped["level"] = told.level
            shaped["group"] = ""
            shaped["message"] = f"{what['name']} is {thing.used_percent:g} % full"
        return shaped


def fresh(events: Sequence[Any], mark: Mark, *, anew: bool = False) -> list[Any]:
    """Those of C(events) that come after C(mark), the oldest first. Vendor reference: EventHistoryCollector.latestPage ("The 'oldest
    event' is the one with the smallest key").

    :param anew: the keys began anew (vCenter was restored or its events were cleared): the time counts.
    """
    if anew:
        found = [e for e in events if stamp(e.createdTime) > mark.time]
    else:
        found = [e for e in events if int(e.key) > mark.key]
    return sorted(found, key=lambda e: int(e.key))
