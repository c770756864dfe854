# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Surveys of job templates, checked as AWX checks them (JobTemplateSurveySpec in its views), but all of it at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: How a node leads to the next ones.
LINKS = ("success", "failure", "always")
TYPES: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "textarea": str,
    "password": str,
    "integer": int,
    "float": (float, int),
    "multiplechoice": str,
    "multiselect": (str, list),
}


def spec(
    settings: Mapping[str, Any],
    key: str,
    names: Iterable[str],
    more: Iterable[Mapping[str, Any]],
    defaults: Mapping[str, Any],
    errors: list[str],
) -> dict[str, Any]:
    """AWX's survey of the questions C(names) of the catalogue and those in C(more); C(defaults) by variable. Empty without a question.

    What is wrong goes into C(errors).
    """
    questions = [dict(settings["questions"][n]) for n in names] + [dict(q) for q in more]
    at = f"survey of {key}"
    asked = [str(q.get("variable")) for q in questions]
    errors += [f"{at}: there is no question for {v}; there are {', '.join(asked) or 'none'}" for v in defaults if v not in asked]
    errors += [f"{at}: two questions for {v}" for v in dict.fromkeys(asked) if asked.count(v) > 1]
    for question in questions:
        if question.get("variable") in defaults:
            question["default"] = defaults[question["variable"]]
        errors += [f"{at}: {e}" for e in wrong(question)]
    return {"name": "", "description": "", "spec": questions} if questions else {}


def wrong(question: Mapping[str, Any]) -> list[str]:
    """What AWX would refuse of a question."""
    name = str(question.get("variable") or question.get("question_name") or "a question without a variable")
    found = [f"{name} has no {k}" for k in ("question_name", "variable", "type") if not isinstance(question.get(k), str) or not question[k]]
    kind = question.get("type")
    if not isinstance(question.get("required"), bool):
        found.append(f"{name}: required has to be true or false")
    if kind not in TYPES:
        return [*found, f"{name}: {kind} is no type; there are {', '.join(TYPES)}"]
    choices = question.get("choices")
    if kind in ("multiplechoice", "multiselect") and not choices:
        found.append(f"{name} has no choices")
    default = question.get("default", "")
    if default != "":
        if not isinstance(default, TYPES[kind]) or isinstance(default, bool):
            found.append(f"{name}: the default {default!r} is no {kind}")
        elif choices and any(d not in choices for d in (default if isinstance(default, list) else [default])):
            found.append(f"{name}: the default {default!r} is none of {', '.join(choices)}")
    elif question.get("required") is True and "default" in question:
        found.append(f"{name} is required, and its default is empty")
    found += [f"{name}: {k} has to be a whole number" for k in ("min", "max") if k in question and not isinstance(question[k], int)]
    return found
