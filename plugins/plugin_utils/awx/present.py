# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is in an AWX already, against what shall be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from .objects import KINDS

#: Kinds that are named, and never made by the role.
NAMED_ONLY = ("instance_groups", "labels", "notification_templates")


def plain(value: Any) -> Any:
    """Ansible's lazy containers as plain ones, which can be copied and changed."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def queries(plan: Mapping[str, Any]) -> list[dict[str, str]]:
    """What to ask: C(kind) and C(path) below /api/v2/. Names only of what is made or needed; an AWX may have thousands of others."""
    wanted: dict[str, list[str]] = {}
    for one in (*plan["items"], *plan["nodes"], *plan["grants"]):
        for kind, name in ([one["kind"], one["name"]], *one["needs"]):
            if kind in (*KINDS, *NAMED_ONLY) and name not in wanted.setdefault(kind, []):
                wanted[kind].append(name)
    found = []
    for kind in (*KINDS, *NAMED_ONLY):
        for first in range(0, len(wanted.get(kind, [])), 25):
            part = wanted[kind][first : first + 25]
            found.append({"kind": kind, "path": f"{kind}/?{urlencode([('or__name', n) for n in part] + [('page_size', '200')])}"})
    return found


def found_names(answers: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Names by kind, of answers (C(item.kind), C(json.results))."""
    names: dict[str, list[str]] = {}
    for answer in answers:
        names.setdefault(answer["item"]["kind"], []).extend(str(r["name"]) for r in answer["json"]["results"])
    return names


def compare(plan: Mapping[str, Any], answers: Iterable[Mapping[str, Any]], check: bool = False) -> dict[str, Any]:
    """What is to be made before what.

    In check mode only an item all of whose needs are there can be shown to a module; the others would be made.

    :returns: C(missing) (sentences: named, neither there nor made by the role), C(todo) (items for modules, by kind), C(blocked) (the other
        items, in words), C(there) (names by kind).
    """
    there = found_names(answers)
    ours = {(i["kind"], i["name"]) for i in plan["items"]}
    missing: dict[tuple[str, str], list[str]] = {}
    for one in plan["items"]:
        for kind, name in one["needs"]:
            if (kind, name) not in ours and name not in there.get(kind, []):
                missing.setdefault((kind, name), []).append(f"{_one(one['kind'])} {one['name']}")
    todo: dict[str, list[Any]] = {}
    blocked = []
    for one in (*plan["items"], *plan["nodes"], *plan["grants"]):
        if not check or all(name in there.get(kind, []) for kind, name in one["needs"]):
            todo.setdefault(one["kind"], []).append(one)
        else:
            blocked.append(f"{_one(one['kind'])} {one['name']}")
    sentences = [f"there is no {_one(kind)} {name} in AWX, which {_few(users)} needs" for (kind, name), users in missing.items()]
    return {"missing": sentences, "todo": todo, "blocked": blocked, "there": there}


def too_old(fields: Mapping[str, Iterable[str]], answers: Iterable[Mapping[str, Any]]) -> list[str]:
    """Sentences about fields that this AWX does not know, out of its answers to OPTIONS.

    It drops unknown fields without a word, so that an object would be made, and not as it shall be.
    """
    found = []
    for answer in answers:
        kind = str(answer["item"])
        if answer.get("status") == 404:
            found.append(f"it has no {kind.replace('_', ' ')}")
            continue
        actions = (answer.get("json") or {}).get("actions") or {}
        known = {**(actions.get("GET") or {}), **(actions.get("POST") or {})}
        lacking = [f for f in fields.get(kind, []) if f not in known]
        if known and lacking:
            found.append(f"its {kind.replace('_', ' ')} have no {', '.join(lacking)}")
    return found


def _one(kind: str) -> str:
    text = kind.replace("_", " ")
    return text[:-3] + "y" if text.endswith("ies") else text.removesuffix("s")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
