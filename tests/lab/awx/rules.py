# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What AWX refuses, in its words. Sources: awx/api/serializers.py, awx/main/fields.py and awx/api/views (JobTemplateSurveySpec) of AWX 24.6.1;
recorded.json has such answers, and a test compares these with them."""

from __future__ import annotations

import json
from typing import Any

import jinja2
from jinja2 import sandbox

from .store import Object, Refusal, Store

ENCRYPTED = "$encrypted$"
#: Fields that name an object of another kind.
REFERENCES = {
    "organization": "organizations",
    "credential_type": "credential_types",
    "credential": "credentials",
    "execution_environment": "execution_environments",
    "default_environment": "execution_environments",
    "project": "projects",
    "source_project": "projects",
    "inventory": "inventories",
    "workflow_job_template": "workflow_job_templates",
    "unified_job_template": "unified_job_templates",
}
TYPES: dict[str, Any] = {
    "text": str,
    "textarea": str,
    "password": str,
    "multiplechoice": str,
    "multiselect": (str, list),
    "integer": int,
    "float": (float, int),
}


def check(store: Store, kind: str, said: Object, one: Object | None) -> None:
    """Raise Refusal where AWX would; C(one) is the object that is changed, None for a new one."""
    errors: dict[str, list[str]] = {}
    for name, field in store.fields(kind).items():
        value = said.get(name)
        if one is None and field.get("required") and name not in said:
            errors[name] = ["This field is required."]
        elif name in said and name in REFERENCES and value not in (None, ""):
            try:
                store.get(REFERENCES[name], int(value))
            except Refusal:
                errors[name] = [f'Invalid pk "{value}" - object does not exist.']
        elif name in said and field.get("choices") and value not in (None, "") and value not in [c[0] for c in field["choices"]]:
            errors[name] = [f'"{value}" is not a valid choice.']
    if errors:
        raise Refusal(400, errors)
    rule = globals().get(f"_{kind}")
    if rule is not None:
        rule(store, said, one)


def _value(said: Object, one: Object | None, name: str) -> Any:
    return said.get(name, (one or {}).get(name))


def _credential_types(store: Store, said: Object, one: Object | None) -> None:
    used = one is not None and any(c["credential_type"] == one["id"] for c in store.all("credentials"))
    if one is not None and one["managed"]:
        raise Refusal(403, {"detail": "Modifications not allowed for managed credential types"})
    fields = (_value(said, one, "inputs") or {}).get("fields", [])
    names = [f.get("id") for f in fields]
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise Refusal(400, {"inputs": [f"field IDs must be unique ({twice})"]})
    for number, field in enumerate(fields):
        for key in ("id", "label"):
            if key not in field:
                raise Refusal(400, {"inputs": [f"'{key}' is a required property, schema path fields.{number}"]})
        field.setdefault("type", "string")
    _injectors(_value(said, one, "injectors") or {}, names)
    if used and one is not None and "inputs" in said and said["inputs"] != one["inputs"]:
        raise Refusal(403, {"detail": "Modifications to inputs are not allowed for credential types that are in use"})


def _injectors(injectors: Object, names: list[str]) -> None:
    """Templates may use the fields, and the files that are made, and nothing else."""
    files = [k.partition(".")[2] for k in injectors.get("file", {})]
    known: Object = dict.fromkeys(names, "EXAMPLE") | {
        "tower": {"filename": dict.fromkeys(files, "EXAMPLE_FILENAME") if any(files) else "EXAMPLE_FILENAME"}
    }
    environment = sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    for kind, templates in injectors.items():
        for key, text in templates.items():
            if kind == "env" and key.startswith("ANSIBLE_"):
                words = f"Environment variable {key} may affect Ansible configuration so its use is not allowed in credentials."
                raise Refusal(400, {"injectors": [words]})
            try:
                environment.from_string(text).render(known)
            except jinja2.UndefinedError as e:
                raise Refusal(400, {"injectors": [f"{key} uses an undefined field ({e})"]}) from e


def _credentials(store: Store, said: Object, one: Object | None) -> None:
    if one is None and not any(said.get(k) for k in ("organization", "team", "user")):
        raise Refusal(400, {"detail": ["Missing 'user', 'team', or 'organization'."]})
    type_ = store.get("credential_types", int(_value(said, one, "credential_type")))
    known = {f["id"]: f for f in type_["inputs"].get("fields", [])}
    unknown = [k for k in said.get("inputs") or {} if k not in known]
    if unknown:
        many = len(unknown) > 1
        words = f"Additional properties are not allowed ({', '.join(repr(u) for u in unknown)} {'were' if many else 'was'} unexpected)"
        raise Refusal(400, {"inputs": [words]})
    for name, value in (said.get("inputs") or {}).items():
        if known[name]["type"] == "boolean" and not isinstance(value, bool):
            raise Refusal(400, {"inputs": {name: [f"{value!r} is not of type 'boolean'"]}})


def hide(store: Store, one: Object, inputs: Object) -> Object:
    """Inputs as AWX shows them; secrets are kept beside."""
    type_ = store.get("credential_types", int(one["credential_type"]))
    secret = {f["id"] for f in type_["inputs"].get("fields", []) if f.get("secret")}
    kept = store.secret.setdefault(int(one["id"]), {})
    kept |= {k: v for k, v in inputs.items() if k in secret and v != ENCRYPTED}
    return {k: ENCRYPTED if k in secret and v else v for k, v in inputs.items()}


def _job_templates(store: Store, said: Object, one: Object | None) -> None:
    project = store.get("projects", int(_value(said, one, "project"))) if _value(said, one, "project") else None
    if project is None:
        raise Refusal(400, {"project": ["This field is required."]})
    playbook = _value(said, one, "playbook")
    if playbook and playbook not in project["_playbooks"]:
        raise Refusal(400, {"playbook": ["Playbook not found for project."]})
    if not playbook:
        raise Refusal(400, {"playbook": ["Must select playbook for project."]})
    if not _value(said, one, "inventory") and not _value(said, one, "ask_inventory_on_launch"):
        raise Refusal(400, {"inventory": ["You must either set a default value or ask to prompt on launch."]})
    said["organization"] = project["organization"]
    try:
        json.loads(said.get("extra_vars") or "{}")
    except ValueError as e:
        raise Refusal(400, {"extra_vars": [f"Cannot parse as JSON (error: {e})"]}) from e


def _execution_environments(store: Store, said: Object, one: Object | None) -> None:
    if one is not None and said.get("organization") and said["organization"] != one["organization"]:
        raise Refusal(400, {"organization": ["Cannot change the organization of an execution environment"]})


def _inventory_sources(store: Store, said: Object, one: Object | None) -> None:
    if _value(said, one, "source") == "scm" and not _value(said, one, "source_project"):
        raise Refusal(400, {"source_project": ["Project required for scm type sources."]})
    number = _value(said, one, "credential")
    if number:
        type_ = store.get("credential_types", int(store.get("credentials", int(number))["credential_type"]))
        if type_["kind"] in ("insights", "vault"):
            words = "Credentials of type insights and vault are disallowed for scm inventory sources."
            raise Refusal(400, {"credential": [words]})


def survey(spec: Object) -> None:
    """What is refused of a survey; the body is C(error)."""
    for field, kind, label in (("name", str, "string"), ("description", str, "string"), ("spec", list, "list of items")):
        if field not in spec:
            raise Refusal(400, {"error": f"Field '{field}' is missing from survey spec."})
        if not isinstance(spec[field], kind):
            raise Refusal(400, {"error": f"Expected {label} for field '{field}', received {type(spec[field]).__name__} type."})
    if not spec["spec"]:
        raise Refusal(400, {"error": "'spec' doesn't contain any items."})
    seen: set[str] = set()
    for number, question in enumerate(spec["spec"]):
        _question(number, question, seen)


def _question(number: int, question: Object, seen: set[str]) -> None:
    for field in ("type", "question_name", "variable", "required"):
        if field not in question:
            raise Refusal(400, {"error": f"'{field}' missing from survey question {number}"})
    if question["variable"] in seen:
        raise Refusal(400, {"error": f"'variable' '{question['variable']}' duplicated in survey question {number}."})
    seen.add(question["variable"])
    kind = question["type"]
    if kind not in TYPES:
        words = f"'{kind}' in survey question {number} is not one of '{', '.join(TYPES)}' allowed question types."
        raise Refusal(400, {"error": words})
    default = question.get("default", "")
    if default != "" and not isinstance(default, TYPES[kind]):
        label = kind if kind in ("integer", "float") else "string"
        raise Refusal(400, {"error": f"Default value {default} in survey question {number} expected to be {label}."})
    for key in ("min", "max"):
        if question.get(key) is not None and not isinstance(question[key], int):
            raise Refusal(400, {"error": f"The {key} limit in survey question {number} expected to be integer."})
    if kind in ("multiselect", "multiplechoice"):
        if "choices" not in question:
            raise Refusal(400, {"error": f"Survey question {number} of type {kind} must specify choices."})
        if default != "" and any(d not in question["choices"] for d in ([default] if isinstance(default, str) else default)):
            raise Refusal(400, {"error": "Default choice must be answered from the choices listed."})


def answers(spec: Object, said: Object) -> list[str]:
    """What is wrong with the answers to a survey at launch (SurveyJobTemplateMixin._survey_element_validation)."""
    found = []
    for question in spec.get("spec", []):
        name, kind = question["variable"], question["type"]
        if name not in said:
            found += [f"'{name}' value missing"] if question["required"] and "default" not in question else []
            continue
        value = said[name]
        if kind in ("text", "textarea") and not isinstance(value, str):
            found.append(f"Value {value} for '{name}' expected to be a string.")
        elif kind in ("text", "textarea") and question.get("min") and len(value) < question["min"]:
            found.append(f"'{name}' value {value} is too small (length is {len(value)} must be at least {question['min']}).")
        elif kind == "integer" and type(value) is not int:
            found.append(f"Value {value} for '{name}' expected to be an integer.")
        elif kind == "multiplechoice" and value not in question["choices"]:
            found.append(f"Value {value} for '{name}' expected to be one of {question['choices']}.")
    return found
