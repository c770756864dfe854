# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Server groups from the constraints of the inventory: together (EQ) is affinity, apart (NE) anti-affinity. Pure.

The schema is that of C(ferry_constraints), which vsphere/constraints.py reads for ESXi hosts. Nova has affinity and anti-affinity,
with C(soft-) before it where it is a wish, one group for a server, and only when the server is made. Source: Compute API,
"Server groups" (os-server-groups), microversion 2.64.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from ..errors import bounded
from .finding import Finding

KINDS = ("together", "apart", "pin", "avoid", "hold")
#: The words of SigmaSystemCenter for the same.
ALIASES = {"eq": "together", "ne": "apart"}
#: Custom attribute that names the group of a VM's definition.
GROUP = "ferry.group"
#: Groups have no metadata: the name says whose they are.
PREFIX = "ferry:"
POLICIES = {"together": "affinity", "apart": "anti-affinity"}
_KEYS = frozenset(("name", "kind", "vms", "group", "hosts", "required"))
_MAX_NAME = 255


@dataclass
class Rule:
    """One constraint. C(members): positions of the wave's VMs."""

    kind: str
    name: str
    group_name: str
    required: bool
    members: set[int] = field(default_factory=set)

    @property
    def policy(self) -> str:
        return ("" if self.required else "soft-") + POLICIES[self.kind]


@dataclass
class Grouping:
    """C(groups): one row per server group that the wave needs. C(of): row by position of the VM. C(errors), C(notes): of the wave.

    C(warnings): by position of the VM.
    """

    groups: list[dict[str, Any]] = field(default_factory=list)
    of: dict[int, dict[str, Any]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: dict[int, list[str]] = field(default_factory=dict)


def _words(value: Any) -> list[str]:
    return [str(v) for v in (value if isinstance(value, (list, tuple)) else [value])] if value not in (None, "") else []


def _named(vms: Sequence[Mapping[str, Any]], word: str) -> list[int]:
    """Positions of the VMs that C(word) names, as a UUID, MoRef or path, else as a name."""
    exact = ("moref", "instance_uuid", "bios_uuid", "path", "inventory_name")
    found = [i for i, vm in enumerate(vms) if any(str(vm.get(k) or "").lower() == word.lower() for k in exact)]
    return found or [i for i, vm in enumerate(vms) if vm.get("name") == word]


def _group_name(kind: str, data: Mapping[str, Any]) -> str:
    """The group's name: the same in every wave, whatever the constraint's place in the list."""
    if data.get("name"):
        return (PREFIX + str(data["name"]).strip())[:_MAX_NAME]
    words = "\n".join([*sorted(_words(data.get("vms"))), "", *sorted(_words(data.get("group")))])
    return f"{PREFIX}{kind}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"


def parse(vms: Sequence[Mapping[str, Any]], data: Sequence[Any], out: Grouping) -> list[Rule]:
    """The constraints in C(data) that concern the wave's VMs; what is wrong goes to C(out)."""
    rules = []
    for number, row in enumerate(data, 1):
        where = f"constraint {number}"
        if not isinstance(row, Mapping):
            out.errors.append(Finding("ferry.constraint.invalid", f"{where} is no mapping", device=where))
            continue
        kind = str(row.get("kind", "")).lower()
        kind = ALIASES.get(kind, kind)
        where = f"{where} ({bounded(row.get('name') or kind, 80)})"
        problems = []
        unknown = sorted(str(k) for k in set(row) - _KEYS)
        if unknown:
            problems.append(f"{where}: not known: {bounded(', '.join(unknown), 100)}")
        if kind not in KINDS:
            problems.append(f"{where}: kind is one of {', '.join(KINDS)} (or EQ, NE), not {bounded(kind, 40) or 'empty'}")
        if not _words(row.get("vms")) and not _words(row.get("group")):
            problems.append(f"{where}: vms or group is missing")
        if not isinstance(row.get("required", True), bool):
            problems.append(f"{where}: required is true or false")
        out.errors += [Finding("ferry.constraint.invalid", text, device=where) for text in problems]
        if problems:
            continue
        rule = Rule(kind, str(row.get("name") or kind), _group_name(kind, row), bool(row.get("required", True)))
        elsewhere = []
        for word in _words(row.get("vms")):
            found = _named(vms, word)
            if len(found) > 1:
                text = f"{where}: several VMs of the wave are named {bounded(word, 80)}; give a path or a UUID"
                out.errors.append(Finding("ferry.constraint.invalid", text, device=where))
            elif not found:
                elsewhere.append(word)
            rule.members |= set(found)
        for word in _words(row.get("group")):
            rule.members |= {i for i, vm in enumerate(vms) if (vm.get("custom_attributes") or {}).get(GROUP) == word}
        if not rule.members:
            continue
        if kind not in POLICIES:
            for i in rule.members:
                text = f"the constraint {bounded(rule.name, 80)} ({kind}) is about ESXi hosts and has no meaning in OpenStack"
                out.warnings.setdefault(i, []).append(Finding("ferry.constraint.ignored", text))
            continue
        if elsewhere:
            text = f"{where} also names what is not in this wave: {bounded(', '.join(elsewhere), 200)}"
            out.notes.append(Finding("ferry.constraint.elsewhere", text, device=where))
        rules.append(rule)
    return rules


def _merged(rules: list[Rule]) -> list[Rule]:
    """Constraints of the kind together that share VMs are one: whoever is with A, which is with B, is with B."""
    found: list[Rule] = []
    for rule in rules:
        same = [r for r in found if r.kind == rule.kind == "together" and r.required == rule.required and r.members & rule.members]
        if not same:
            found.append(rule)
            continue
        first = same[0]
        for other in [*same[1:], rule]:
            first.members |= other.members
        found = [r for r in found if r not in same[1:]]
    return found


def grouping(
    vms: Sequence[Mapping[str, Any]], data: Sequence[Any], rows: Sequence[Mapping[str, Any]], servers: Mapping[int, str]
) -> Grouping:
    """The server groups of a wave.

    :param vms: facts of its VMs.
    :param data: the constraints.
    :param rows: the server groups that are there, as Nova shows them.
    :param servers: ids of servers that are there already, by position of the VM.
    """
    out = Grouping()
    rules = _merged(parse(vms, data, out))
    names = [r.group_name for r in rules]
    twice = sorted({n for n in names if names.count(n) > 1})
    out.errors += [Finding("ferry.constraint.invalid", f"two constraints have the name {bounded(n, 80)}", device=n[:80]) for n in twice]
    taken: dict[int, Rule] = {}
    # What is required comes before wishes, so that a wish loses.
    for rule in sorted(rules, key=lambda r: not r.required):
        members = set(rule.members)
        for i in sorted(rule.members):
            other = taken.get(i)
            if other is None:
                continue
            members.discard(i)
            pair = f"the constraints {bounded(other.name, 80)} and {bounded(rule.name, 80)}"
            if rule.required:
                name = bounded(vms[i].get("name"), 80)
                text = f"{name} is in {pair}, but Nova has one server group for a server: merge them, or make one a wish"
                out.errors.append(Finding("ferry.constraint.conflict", text, device=name))
            else:
                text = f"it is in {pair}; Nova has one server group for a server, so the latter is left out"
                out.warnings.setdefault(i, []).append(Finding("ferry.constraint.ignored", text))
        for i in members:
            taken[i] = rule
        if members:
            _row(rule, members, vms, rows, servers, out)
    return out


def _row(
    rule: Rule,
    members: set[int],
    vms: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    servers: Mapping[int, str],
    out: Grouping,
) -> None:
    named = [r for r in rows if r.get("name") == rule.group_name]
    mine = {servers[i] for i in members if i in servers}
    found = [r for r in named if policy_of(r) == rule.policy]
    # A second one may be there by a race of two runs: the one with our servers is it, else the one with any.
    found.sort(key=lambda r: (-len(mine & set(r.get("members") or ())), -len(r.get("members") or ()), str(r.get("id"))))
    if named and not found:
        text = (
            f"the server group {bounded(rule.group_name, 100)} has the policy {bounded(policy_of(named[0]), 40)}, wanted is {rule.policy};"
            " a group cannot be changed: name the constraint otherwise, or delete the group"
        )
        out.errors.append(Finding("ferry.server_group.policy", text, device=rule.group_name[:100]))
        return
    there = set(found[0].get("members") or ()) if found else set()
    row = {
        "name": rule.group_name,
        "policy": rule.policy,
        "constraint": rule.name,
        "id": found[0]["id"] if found else None,
        "vms": [str(vms[i].get("name")) for i in sorted(members)],
        "members": len(there | mine) + len([i for i in members if i not in servers]),
        "new_servers": len([i for i in members if i not in servers]),
    }
    out.groups.append(row)
    for i in members:
        out.of[i] = row
        if i in servers and servers[i] not in there:
            text = (
                f"its server is not in the server group {bounded(rule.group_name, 100)}; Nova puts a server in a group only when it is made"
            )
            out.warnings.setdefault(i, []).append(Finding("ferry.server_group.outside", text))


def policy_of(row: Mapping[str, Any]) -> str:
    """The policy of a row, by C(policy) (microversion 2.64 and later) or the first of C(policies)."""
    return str(row.get("policy") or next(iter(row.get("policies") or ()), ""))
