# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a policy may say: events, conditions, ordered actions, limits. Checked as a whole, every mistake told at once. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from ..errors import BadInput, bounded
from .event_model import KINDS

#: Actions of one rule.
MOST_ACTIONS = 30
MOST_RULES = 100
#: What is kept of an hour stands in one custom attribute, so it has to be short.
MOST_PER_HOUR = 60
MONTH = 30 * 86400
WHEN = ("always", "ok", "failed")
_TEXTS = ("group", "cluster", "host", "datastore", "vm", "type", "message")

#: Action: its settings and their types. What is not said is up to the role that does it.
ACTIONS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "failover": {"fence_tasks": str, "unfenced": bool, "cluster": str, "at_once": int},
    "evacuate": {"partial": bool, "maintenance": bool, "powered_off": bool},
    "come_back": {},
    "relieve": {"target_percent": (int, float), "datastores": list, "at_once": int},
    "restore": {"placement": str},
    "tasks": {"file": str},
    "wait": {"seconds": int},
}
_NEEDS = {"restore": "placement", "tasks": "file", "wait": "seconds"}


@dataclass(frozen=True)
class Limits:
    """C(per_hour): actions within any hour, None for any number. C(hold): seconds for which a group rests after a rule has acted on it."""

    per_hour: int | None = None
    hold: int = 0


@dataclass(frozen=True)
class Action:
    """C(name): of ACTIONS. C(after): whether the one before it has to have ended well (ok), badly (failed), or either (always)."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    after: str = "ok"

    def as_dict(self) -> dict[str, Any]:
        return {"action": self.name, "after": self.after, **self.settings}


@dataclass(frozen=True)
class Rule:
    """C(conditions): patterns by what they are for. C(settle): seconds that the state has to last. C(lease): seconds after which a run
    that has not ended counts as dead. C(attempts): at one and the same incident."""

    name: str
    events: tuple[str, ...]
    actions: tuple[Action, ...]
    conditions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    min_percent: float = 0.0
    settle: int = 0
    lease: int = 900
    attempts: int = 3
    in_maintenance: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Policy:
    """C(maintenance): groups for which nothing is done, C(*) for all."""

    rules: tuple[Rule, ...] = ()
    limits: Limits = field(default_factory=Limits)
    maintenance: tuple[str, ...] = ()


class _Reader:
    """Collects what is wrong."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def table(self, where: str, value: Any, known: Sequence[str]) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self.wrong.append(f"{where}: is to be a table, not {bounded(value, 40)}")
            return {}
        for name in value:
            if name not in known:
                self.wrong.append(f"{where}: there is no {bounded(name, 40)}; there are {', '.join(known)}")
        return value

    def whole(self, where: str, value: Any, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.wrong.append(f"{where}: is to be a whole number from {low} to {high}, not {bounded(value, 40)}")
            return low
        return value

    def text(self, where: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip() or len(value) > 200:
            self.wrong.append(f"{where}: is to be a text of 1 to 200 characters, not {bounded(value, 40)}")
            return ""
        return value

    def texts(self, where: str, value: Any) -> tuple[str, ...]:
        found = value if isinstance(value, list) else [value]
        if not found:
            self.wrong.append(f"{where}: is empty")
        return tuple(self.text(where, v) for v in found)

    def yes(self, where: str, value: Any) -> bool:
        if not isinstance(value, bool):
            self.wrong.append(f"{where}: is to be true or false, not {bounded(value, 40)}")
        return value is True

    def limits(self, where: str, value: Any) -> Limits:
        said = self.table(where, value, ("actions_per_hour", "hold"))
        per_hour = said.get("actions_per_hour")
        if per_hour is not None:
            per_hour = self.whole(f"{where}.actions_per_hour", per_hour, 0, MOST_PER_HOUR)
        return Limits(per_hour, self.whole(f"{where}.hold", said.get("hold", 0), 0, MONTH))

    def action(self, where: str, value: Any) -> Action | None:
        said = self.table(where, value, (*ACTIONS, "after"))
        named = [name for name in said if name in ACTIONS]
        if len(named) != 1:
            self.wrong.append(f"{where}: names one of {', '.join(ACTIONS)}, not {len(named)} of them")
            return None
        name = named[0]
        known = ACTIONS[name]
        given = said[name]
        if _NEEDS.get(name) and isinstance(given, (str, int)) and not isinstance(given, bool):
            given = {_NEEDS[name]: given}  # wait: 30
        settings = self.table(f"{where}.{name}", given if given is not None else {}, tuple(known))
        for key, setting in settings.items():
            kind = known.get(key)
            if kind is not None and (not isinstance(setting, kind) or (isinstance(setting, bool) and kind is not bool)):
                self.wrong.append(f"{where}.{name}.{key}: {bounded(setting, 40)} is of another type than it is to be")
        if name in _NEEDS and _NEEDS[name] not in settings:
            self.wrong.append(f"{where}.{name}: {_NEEDS[name]} is missing")
        if name == "wait" and isinstance(settings.get("seconds"), int):
            self.whole(f"{where}.wait.seconds", settings["seconds"], 1, 3600)
        percent = settings.get("target_percent")
        if isinstance(percent, (int, float)) and not isinstance(percent, bool) and not 1 <= percent <= 99:
            self.wrong.append(f"{where}.{name}.target_percent: is from 1 to 99, not {percent}")
        after = said.get("after", "ok")
        if after not in WHEN:
            self.wrong.append(f"{where}.after: is one of {', '.join(WHEN)}, not {bounded(after, 40)}")
        return Action(name, dict(settings), str(after))

    def rule(self, where: str, value: Any) -> Rule:
        known = ("name", "event", "when", "settle", "lease", "attempts", "in_maintenance", "limits", "actions")
        said = self.table(where, value, known)
        name = self.text(f"{where}.name", said.get("name"))
        events = self.texts(f"{where}.event", said.get("event"))
        for event in events:
            if event and event not in KINDS:
                self.wrong.append(f"{where}.event: there is no {bounded(event, 40)}; there are {', '.join(KINDS)}")
        when = self.table(f"{where}.when", said.get("when", {}), (*_TEXTS, "min_percent"))
        percent = when.get("min_percent", 0)
        if isinstance(percent, bool) or not isinstance(percent, (int, float)) or not 0 <= percent <= 100:
            self.wrong.append(f"{where}.when.min_percent: is a number from 0 to 100, not {bounded(percent, 40)}")
            percent = 0
        listed = said.get("actions")
        if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_ACTIONS:
            self.wrong.append(f"{where}.actions: is to be a list of 1 to {MOST_ACTIONS} actions")
            listed = []
        found = [self.action(f"{where}.actions[{n}]", a) for n, a in enumerate(listed)]
        return Rule(
            name,
            events,
            tuple(a for a in found if a is not None),
            {key: self.texts(f"{where}.when.{key}", when[key]) for key in _TEXTS if key in when},
            float(percent),
            self.whole(f"{where}.settle", said.get("settle", 0), 0, 600),
            self.whole(f"{where}.lease", said.get("lease", 900), 30, 86400),
            self.whole(f"{where}.attempts", said.get("attempts", 3), 1, 100),
            self.yes(f"{where}.in_maintenance", said.get("in_maintenance", False)),
            self.limits(f"{where}.limits", said.get("limits", {})),
        )

    def policy(self, value: Any) -> Policy:
        said = self.table("policy", value, ("rules", "limits", "maintenance"))
        listed = said.get("rules")
        if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_RULES:
            self.wrong.append(f"policy.rules: is to be a list of 1 to {MOST_RULES} rules")
            listed = []
        rules = tuple(self.rule(f"rules[{n}]", r) for n, r in enumerate(listed))
        names = [r.name for r in rules]
        self.wrong += [f"rules: there are several called {n}" for n in sorted({n for n in names if n and names.count(n) > 1})]
        closed = said.get("maintenance", False)
        groups: tuple[str, ...] = ("*",) if closed is True else ()
        if not isinstance(closed, bool):
            groups = self.texts("policy.maintenance", closed)
        return Policy(rules, self.limits("policy.limits", said.get("limits", {})), groups)


def read_policy(value: Any) -> Policy:
    """The policy that C(value) (from YAML) says.

    :raises BadInput: code policy, with everything that is wrong in it; C(details.problems) lists it.
    """
    reader = _Reader()
    policy = reader.policy(value)
    if reader.wrong:
        problems = list(dict.fromkeys(reader.wrong))
        raise BadInput(
            f"The policy has {len(problems)} mistakes: " + "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else ""),
            code="policy",
            step="read the policy",
            problems=problems[:200],
        )
    return policy
