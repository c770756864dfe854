# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a policy acts on an event, and why not. Pure functions of the policy, the event, what is so now, and what was done before."""

from __future__ import annotations

import fnmatch
import hashlib
from dataclasses import dataclass, field
from typing import Any, Mapping

from ..errors import BadInput, bounded
from .event_model import EVENT, FILLING, HOST_BACK, HOST_LOST, KINDS, LOST, RELIEVED
from .policy_model import Limits, Policy, Rule

HOUR = 3600.0
#: Why nothing is done, as words that programs test.
SUPPRESSED = ("no_rule", "over", "maintenance", "done", "under_way", "failed", "hold", "limit")


def short(text: str) -> str:
    """A name or an id in twelve characters, as journals have it."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Event:
    """An event of the source, as far as a decision needs it. C(kind), C(id), C(group): see event_model. C(moref), C(object): of what it
    is about (HostSystem, Datastore ...), None for the whole of vCenter. C(at): of an event of the history, when it was; ISO 8601."""

    id: str
    kind: str
    type: str = ""
    message: str = ""
    group: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    object: str | None = None
    moref: str | None = None
    at: str = ""


@dataclass(frozen=True)
class Now:
    """What is so at the moment of the decision. C(connection), C(used_percent): None where they do not apply, or the object is gone."""

    connection: str | None = None
    used_percent: float | None = None
    maintenance: bool = False
    there: bool = True


@dataclass(frozen=True)
class Incident:
    """What was done about the last incident of its kind at one object. C(state): begun, done or failed. C(time): seconds since the
    epoch. C(id), C(rule): short(). C(at): that of the event."""

    id: str
    state: str
    time: float
    attempts: int = 1
    rule: str = ""
    at: str = ""


@dataclass(frozen=True)
class Journal:
    """C(actions): time and number of actions of each run in the last hour, with its rule. C(holds): until when a group rests, and the
    incident for which it was acted on. Names and ids are short()."""

    actions: tuple[tuple[float, int, str], ...] = ()
    holds: Mapping[str, tuple[float, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """C(suppressed): one of SUPPRESSED, None where C(rule) acts. C(why): in words."""

    rule: Rule | None
    suppressed: str | None
    why: str

    @property
    def run(self) -> bool:
        return self.rule is not None and self.suppressed is None


_OBJECTS = (("host", "HostSystem"), ("datastore", "Datastore"), ("vm", "VirtualMachine"))


def read_event(value: Any) -> Event:
    """The event that C(value) is, as a rulebook hands it on.

    :raises BadInput: it is none of the source.
    """
    step = "read the event"
    if not isinstance(value, Mapping) or not isinstance(value.get("id"), str) or value.get("kind") not in KINDS:
        raise BadInput(f"That is no event of ferry.vmware.vcenter: {bounded(value, 120)}", code="event", step=step)
    if not 1 <= len(value["id"]) <= 400:
        raise BadInput("The event's id has 1 to 400 characters.", code="event", step=step)
    names: dict[str, str] = {}
    object_, moref = None, None
    for key, kind in _OBJECTS:
        said = value.get(key)
        if isinstance(said, Mapping) and isinstance(said.get("name"), str):
            names[key] = said["name"][:200]
            if moref is None and isinstance(said.get("moref"), str) and said["moref"]:
                object_, moref = kind, said["moref"][:100]
    cluster = value.get("cluster")
    if isinstance(cluster, Mapping) and isinstance(cluster.get("name"), str):
        names["cluster"] = cluster["name"][:200]
    kind = str(value["kind"])
    if kind != EVENT and moref is None:
        raise BadInput(f"The event {kind} does not say of what.", code="event", step=step)
    texts = {key: str(value.get(key) or "")[:300] for key in ("type", "message", "group")}
    at = str(value.get("time") or "")[:30] if kind == EVENT else ""
    return Event(value["id"], kind, texts["type"], texts["message"], texts["group"], names, object_, moref, at)


def _like(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(text.casefold(), p.casefold()) for p in patterns)


def matches(rule: Rule, event: Event, now: Now) -> bool:
    """Whether the rule is for such an event. A condition on what an event does not have does not hold."""
    if event.kind not in rule.events:
        return False
    said = {**event.names, "group": event.group, "type": event.type, "message": event.message}
    if not all(_like(said[key], patterns) if said.get(key) else False for key, patterns in rule.conditions.items()):
        return False
    return rule.min_percent <= 0 or (now.used_percent is not None and now.used_percent >= rule.min_percent)


def over(event: Event, now: Now) -> str | None:
    """Why the state that the event tells of is no longer there; None where it is."""
    if event.kind in (HOST_LOST, HOST_BACK, FILLING, RELIEVED) and not now.there:
        return "it is no longer in vCenter"
    if event.kind == HOST_LOST and now.connection != LOST:
        return f"the host is {now.connection or 'gone'} now"
    if event.kind == HOST_BACK and now.connection != "connected":
        return f"the host is {now.connection or 'gone'} now"
    return None


def used(journal: Journal, limits: Limits, at: float, rule: str | None, more: int) -> str | None:
    """Why C(more) actions are too many for the hour; None where they are not. C(rule): None counts those of all rules."""
    if limits.per_hour is None:
        return None
    count = sum(n for time, n, name in journal.actions if at - time < HOUR and (rule is None or name == short(rule)))
    if count + more <= limits.per_hour:
        return None
    of = f"the rule {rule}" if rule is not None else "all rules"
    return f"{count} actions of {of} within the last hour, {more} more would be above {limits.per_hour}"


def group_of(event: Event) -> str:
    """What a hold is for: the group, else the object itself."""
    return event.group or next(iter(event.names.values()), "") or event.moref or "*"


def decide(policy: Policy, event: Event, now: Now, journal: Journal, incident: Incident | None, at: float) -> Decision:
    """The decision on C(event) at the time C(at) (seconds since the epoch). The first rule that matches decides.

    :param incident: what was done last at the same object for the same kind of event.
    """
    rule = next((r for r in policy.rules if matches(r, event, now)), None)
    if rule is None:
        return Decision(None, "no_rule", f"no rule is for {event.kind} of {group_of(event)}")
    ended = over(event, now)
    if ended is not None:
        return Decision(rule, "over", ended)
    if policy.maintenance and _like(event.group or "-", policy.maintenance):
        return Decision(rule, "maintenance", f"the policy has {event.group or 'everything'} in maintenance")
    if now.maintenance and not rule.in_maintenance:
        return Decision(rule, "maintenance", f"{next(iter(event.names.values()), '')} is in maintenance mode")
    if incident is not None and incident.id == short(event.id):
        if incident.state == "done":
            return Decision(rule, "done", "it was done already")
        if incident.state == "begun" and at - incident.time < rule.lease:
            return Decision(rule, "under_way", f"it was begun {at - incident.time:.0f} s ago and has not ended")
        if incident.attempts >= rule.attempts:
            return Decision(rule, "failed", f"it was tried {incident.attempts} times: see to it by hand")
    elif incident is not None and event.at and event.at < incident.at:
        return Decision(rule, "done", "a later one was acted on already, so it is told again")
    elif incident is not None and incident.state == "begun" and at - incident.time < rule.lease:
        return Decision(rule, "under_way", f"an incident before it was begun {at - incident.time:.0f} s ago and has not ended")
    until, cause = journal.holds.get(short(group_of(event)), (0.0, ""))
    if at < until and cause != short(event.id):
        return Decision(rule, "hold", f"{group_of(event)} rests for another {until - at:.0f} s")
    for limits, name in ((rule.limits, rule.name), (policy.limits, None)):
        full = used(journal, limits, at, name, len(rule.actions))
        if full is not None:
            return Decision(rule, "limit", full)
    return Decision(rule, None, f"the rule {rule.name} is for it")


def attempts_of(incident: Incident | None, event: Event) -> int:
    """How many times the incident was acted on so far."""
    return incident.attempts if incident is not None and incident.id == short(event.id) else 0


def begun(journal: Journal, rule: Rule, policy: Policy, event: Event, incident: Incident | None, at: float) -> tuple[Journal, Incident]:
    """Journal and incident once the rule acts on the event; what is over is left out of the journal."""
    actions = tuple(a for a in journal.actions if at - a[0] < HOUR)
    holds = {g: h for g, h in journal.holds.items() if at < h[0]}
    hold = max(rule.limits.hold, policy.limits.hold)
    id_ = short(event.id)
    if hold:
        holds[short(group_of(event))] = (at + hold, id_)
    after = Journal((*actions, (at, len(rule.actions), short(rule.name))), holds)
    return after, Incident(id_, "begun", at, attempts_of(incident, event) + 1, short(rule.name), event.at)
