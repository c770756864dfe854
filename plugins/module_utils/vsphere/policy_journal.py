# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a policy has done, kept in vCenter: so that every control node and every job of AWX counts the same, whichever ran before.

The custom attribute C(ferry.policy) has it. Its value on the root folder says what was done in the last hour and which groups rest; its
value on a host, datastore or VM says how the last incident there ended (that of an event about none of these is on the root folder). It
is read and written under a lock (attributes.py), by vCenter's clock. Each value is short, whatever happens: it is bounded by the limits
of a policy.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Mapping

from . import attributes
from .client import Session
from .event_places import HOST_PATHS, STORE_PATHS
from .policy_decision import Decision, Event, Incident, Journal, Now, attempts_of, begun, decide, short
from .policy_model import Policy
from .properties import of_objects, of_view

ATTRIBUTE = attributes.PREFIX + "policy"
#: Groups that rest, and incidents of one object, that are kept at most.
MOST = 20
_STEP = "keep what the policy did"
_STATES = {"b": "begun", "d": "done", "f": "failed"}
_LETTERS = {word: letter for letter, word in _STATES.items()}


def read_journal(text: str) -> Journal:
    """What stands on the root folder; what cannot be read counts as nothing (somebody has edited it). Names are short()."""
    try:
        said = json.loads(text) if text else {}
        actions = tuple((float(t), int(n), str(r)) for t, n, r in said.get("a", ()))
        holds = {str(g): (float(u), str(i)) for g, (u, i) in dict(said.get("h", {})).items()}
        return Journal(actions, holds)
    except (ValueError, TypeError, AttributeError):
        return Journal()


def write_journal(journal: Journal, incidents: Mapping[str, Incident] | None = None) -> str:
    """:returns: JSON of some 3,000 characters at most. C(incidents): those that are kept beside it, on the root folder."""
    held = sorted(journal.holds.items(), key=lambda h: -h[1][0])[:MOST]
    said = {"a": [[int(t), n, r] for t, n, r in journal.actions], "h": {g: [int(u), i] for g, (u, i) in held}}
    return json.dumps({**said, "i": _packed(incidents)} if incidents else said, separators=(",", ":"))


def _packed(incidents: Mapping[str, Incident]) -> dict[str, list[Any]]:
    newest = sorted(incidents.items(), key=lambda item: -item[1].time)[:MOST]
    return {k: [i.id, _LETTERS[i.state], int(i.time), i.attempts, i.rule, i.at] for k, i in newest}


def read_incidents(text: str, *, root: bool = False) -> dict[str, Incident]:
    """What stands on an object, by kind of event. C(root): on the root folder, beside the journal."""
    try:
        said = json.loads(text) if text else {}
        found = dict(said.get("i", {}) if root else said)
        return {str(k): Incident(str(i), _STATES[s], float(t), int(n), str(r), str(at)) for k, (i, s, t, n, r, at) in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def write_incidents(incidents: Mapping[str, Incident]) -> str:
    """:returns: JSON."""
    return json.dumps(_packed(incidents), separators=(",", ":"))


@dataclass(frozen=True)
class Outcome:
    """C(decision) on C(event), C(attempt): number of this run at the incident. C(at): vCenter's clock, seconds since the epoch.
    C(target): what the object is called for modules."""

    decision: Decision
    event: Event
    now: Now
    at: float
    attempt: int = 0
    target: str | None = None

    def as_dict(self) -> dict[str, Any]:
        rule = self.decision.rule
        return {
            "run": self.decision.run,
            "rule": rule.name if rule is not None else None,
            "suppressed": self.decision.suppressed,
            "why": self.decision.why,
            "actions": [a.as_dict() for a in rule.actions] if rule is not None and self.decision.run else [],
            "incident": self.event.id,
            "attempt": self.attempt,
            "group": self.event.group,
            "names": dict(self.event.names),
            "moref": self.event.moref,
            "target": self.target,
        }


class Keeper:
    """Reads and writes what stands in vCenter."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _entity(self, event: Event) -> Any:
        """Where the incident is kept: on the object, else on the root folder."""
        if event.object is None or event.moref is None:
            return self._session.content.rootFolder
        return self._session.managed(event.object, event.moref)

    def now(self, event: Event) -> Now:
        """The object as it is at this moment."""
        if event.object not in ("HostSystem", "Datastore"):
            return Now()
        paths = {"HostSystem": HOST_PATHS, "Datastore": STORE_PATHS}
        rows = of_objects(self._session, [self._entity(event)], {event.object: paths[event.object]}, step="look at the object of the event")
        if not rows:
            return Now(there=False)
        p = rows[0].props
        if event.object == "HostSystem":
            return Now(str(p.get("runtime.connectionState", "")), maintenance=bool(p.get("runtime.inMaintenanceMode", False)))
        capacity, free = int(p.get("summary.capacity", 0)), int(p.get("summary.freeSpace", 0))
        percent = 100.0 * (capacity - free) / capacity if capacity else None
        return Now(used_percent=percent, maintenance=str(p.get("summary.maintenanceMode", "normal")) != "normal")

    def target(self, event: Event) -> str | None:
        """The name of the object, which a user's tasks know it by, where no other has it; else its MoRef."""
        if event.object is None or event.moref is None:
            return None
        names = {r.moref: str(r.props.get("name", "")) for r in of_view(self._session, {event.object: ("name",)}, step=_STEP)}
        name = names.get(event.moref)
        return name if name and list(names.values()).count(name) == 1 else event.moref

    def _value(self, entity: Any, key: int | None) -> str:
        if key is None:
            return ""
        rows = of_objects(self._session, [entity], {str(entity._wsdlName): ("customValue",)}, step=_STEP)
        values = rows[0].props.get("customValue") or () if rows else ()
        return next((str(v.value) for v in values if v.key == key), "")

    def _read(self, event: Event, key: int | None) -> tuple[Journal, dict[str, Incident]]:
        root = self._value(self._session.content.rootFolder, key)
        mine = read_incidents(self._value(self._entity(event), key)) if event.moref else read_incidents(root, root=True)
        return read_journal(root), mine

    def _write(self, event: Event, key: int, journal: Journal, incidents: Mapping[str, Incident]) -> None:
        """The root folder first: a kill in between counts an action that was not made, rather than making one that is not counted."""
        root = self._session.content.rootFolder
        beside = read_incidents(self._value(root, key), root=True) if event.moref else incidents
        attributes.set_value(self._session, root, key, write_journal(journal, beside))
        if event.moref:
            attributes.set_value(self._session, self._entity(event), key, write_incidents(incidents))

    def _key(self) -> int | None:
        found = attributes.field(self._session, ATTRIBUTE)
        return found.key if found is not None else None

    def look(self, policy: Policy, event: Event) -> Outcome:
        """The decision as it would be now; nothing is written."""
        now = self.now(event)
        journal, incidents = self._read(event, self._key())
        at = attributes.server_time(self._session)
        incident = incidents.get(_slot(event))
        decision = decide(policy, event, now, journal, incident, at)
        return Outcome(decision, event, now, at, attempts_of(incident, event) + 1, self.target(event))

    def begin(self, policy: Policy, event: Event) -> Outcome:
        """The decision; where a rule acts, that is written before this returns."""
        with attributes.locked(self._session, ATTRIBUTE) as lock:
            key = attributes.ensure(self._session, ATTRIBUTE)
            journal, incidents = self._read(event, key)
            now = self.now(event)
            at = attributes.server_time(self._session)
            incident = incidents.get(_slot(event))
            decision = decide(policy, event, now, journal, incident, at)
            if decision.rule is None or not decision.run:
                return Outcome(decision, event, now, at)
            after, fresh = begun(journal, decision.rule, policy, event, incident, at)
            lock.sure()
            self._write(event, key, after, {**incidents, _slot(event): fresh})
            return Outcome(decision, event, now, at, fresh.attempts, self.target(event))

    def end(self, event: Event, *, well: bool) -> bool:
        """Say how the run ended; whether that changed anything."""
        with attributes.locked(self._session, ATTRIBUTE) as lock:
            key = attributes.ensure(self._session, ATTRIBUTE)
            journal, incidents = self._read(event, key)
            incident = incidents.get(_slot(event))
            state = "done" if well else "failed"
            if incident is None or incident.id != short(event.id) or incident.state == state:
                return False
            ended = replace(incident, state=state, time=attributes.server_time(self._session))
            lock.sure()
            self._write(event, key, journal, {**incidents, _slot(event): ended})
            return True


def _slot(event: Event) -> str:
    """Under which name an object keeps its incident: events of the history by their type."""
    return event.type[:60] if event.kind == "event" else event.kind


def settle(keeper: Keeper, policy: Policy, event: Event, *, sleep: Callable[[float], None] = time.sleep) -> Outcome | None:
    """Wait as long as the rule says that the state has to last, and look at it meanwhile; the outcome where nothing is to be done."""
    outcome = keeper.look(policy, event)
    rule = outcome.decision.rule
    left = float(rule.settle) if rule is not None else 0.0
    while outcome.decision.run and left > 0:
        sleep(min(5.0, left))
        left -= 5.0
        outcome = keeper.look(policy, event)
    return None if outcome.decision.run else outcome
