# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests whose answers were recorded from an AWX, and are compared with those of the stand-in. C({name}) is the id of an object made before.

python -m tests.lab.awx.exchanges URL USER      records an AWX anew (password: CONTROLLER_PASSWORD); it leaves the organization behind
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable

#: How a request is made: (method, path below /api/v2/, body) to (status, answer).
Send = Callable[[str, str, Any], tuple[int, Any]]
PRESENT = ("organizations", "credential_types", "instance_groups", "execution_environments")
ORG = "recorded"
TYPE_INPUTS = {
    "fields": [{"id": "host", "label": "Host", "type": "string"}, {"id": "key", "label": "Key", "type": "string", "secret": True}]
}
QUESTION = {"question_name": "Wave", "variable": "wave", "type": "text", "required": True, "min": 1}
SURVEY: dict[str, Any] = {"name": "", "description": "", "spec": [QUESTION]}

#: The first object of each kind, with what is required alone: its answer shows fields and defaults.
BLANKS: list[tuple[str, str, dict[str, Any]]] = [
    ("organizations", "organization", {"name": ORG}),
    ("teams", "team", {"name": ORG, "organization": "{organization}"}),
    ("credential_types", "type", {"name": ORG, "kind": "cloud", "inputs": TYPE_INPUTS, "injectors": {"env": {"A_HOST": "{{ host }}"}}}),
    (
        "credentials",
        "credential",
        {"name": ORG, "organization": "{organization}", "credential_type": "{type}", "inputs": {"key": "a secret"}},
    ),
    ("execution_environments", "environment", {"name": ORG, "image": "registry.example.com/image:1"}),
    ("projects", "project", {"name": ORG, "organization": "{organization}", "scm_type": "git", "scm_url": "https://git.example.com/a.git"}),
    ("inventories", "inventory", {"name": ORG, "organization": "{organization}"}),
    ("inventory_sources", "source", {"name": f"{ORG} source", "inventory": "{inventory}", "source": "scm", "source_project": "{project}"}),
    (
        "job_templates",
        "template",
        {"name": f"{ORG} template", "inventory": "{inventory}", "project": "{project}", "playbook": "playbooks/plan.yml"},
    ),
    ("workflow_job_templates", "workflow", {"name": f"{ORG} workflow", "organization": "{organization}"}),
    ("workflow_job_template_nodes", "node", {"identifier": "one", "workflow_job_template": "{workflow}"}),
    ("labels", "label", {"name": ORG, "organization": "{organization}"}),
]

#: After these: what is refused, what is dropped, what is shown.
EXCHANGES: list[tuple[str, str, Any]] = [
    ("POST", "organizations/", {"name": ORG}),
    ("POST", "teams/", {"name": "x"}),
    (
        "POST",
        "credential_types/",
        {"name": "a", "kind": "cloud", "inputs": {"fields": [{"id": "a", "label": "A"}, {"id": "a", "label": "B"}]}},
    ),
    ("POST", "credential_types/", {"name": "b", "kind": "cloud", "inputs": TYPE_INPUTS, "injectors": {"env": {"X": "{{ nothing }}"}}}),
    ("POST", "credential_types/", {"name": "c", "kind": "cloud", "inputs": TYPE_INPUTS, "injectors": {"env": {"ANSIBLE_X": "{{ host }}"}}}),
    ("POST", "credential_types/", {"name": "d", "kind": "none"}),
    ("PATCH", "credential_types/{type}/", {"inputs": {"fields": [{"id": "other", "label": "Other", "type": "string"}]}}),
    ("POST", "credentials/", {"name": "a", "credential_type": "{type}", "inputs": {}}),
    ("POST", "credentials/", {"name": "b", "organization": "{organization}", "credential_type": "{type}", "inputs": {"no": "x"}}),
    ("POST", "credentials/", {"name": "c", "organization": "{organization}", "credential_type": "{type}"}),
    ("PATCH", "credentials/{credential}/", {"inputs": {"host": "h", "key": "$encrypted$"}}),
    ("POST", "projects/", {"name": "x", "organization": 99999, "scm_type": "git", "scm_url": "https://git.example.com/a.git"}),
    ("GET", "projects/{project}/playbooks/", None),
    ("POST", "inventory_sources/", {"name": "x", "inventory": "{inventory}", "source": "scm"}),
    ("PATCH", "inventory_sources/{source}/", {"credential": "{credential}", "timeout": 5}),
    ("POST", "job_templates/", {"name": "a", "inventory": "{inventory}", "project": "{project}", "playbook": "playbooks/none.yml"}),
    ("POST", "job_templates/", {"name": "b", "project": "{project}", "playbook": "playbooks/plan.yml"}),
    ("PATCH", "job_templates/{template}/", {"no_such_field": 1, "forks": 3}),
    ("POST", "job_templates/{template}/survey_spec/", {"name": "", "description": ""}),
    ("POST", "job_templates/{template}/survey_spec/", {"name": "", "description": "", "spec": []}),
    ("POST", "job_templates/{template}/survey_spec/", {**SURVEY, "spec": [{"type": "text", "variable": "a", "required": True}]}),
    ("POST", "job_templates/{template}/survey_spec/", {**SURVEY, "spec": [*SURVEY["spec"], *SURVEY["spec"]]}),
    ("POST", "job_templates/{template}/survey_spec/", {**SURVEY, "spec": [{**QUESTION, "type": "none"}]}),
    ("POST", "job_templates/{template}/survey_spec/", {**SURVEY, "spec": [{**QUESTION, "type": "integer", "default": "many"}]}),
    ("POST", "job_templates/{template}/survey_spec/", {**SURVEY, "spec": [{**QUESTION, "type": "multiplechoice"}]}),
    ("POST", "job_templates/{template}/survey_spec/", SURVEY),
    ("GET", "job_templates/{template}/survey_spec/", None),
    ("POST", "job_templates/{template}/credentials/", {"id": "{credential}"}),
    ("GET", "job_templates/{template}/credentials/", None),
    ("PATCH", "job_templates/{template}/", {"survey_enabled": True, "ask_variables_on_launch": False}),
    ("POST", "job_templates/{template}/launch/", {"extra_vars": {"wave": ""}}),
    ("POST", "job_templates/{template}/launch/", {}),
    ("POST", "workflow_job_template_nodes/{node}/create_approval_template/", {"name": "approve", "description": "d", "timeout": 0}),
    ("GET", "workflow_job_template_nodes/?identifier=one&workflow_job_template={workflow}", None),
    ("POST", "workflow_job_template_nodes/", {"identifier": "one", "workflow_job_template": "{workflow}"}),
    ("POST", "workflow_job_template_nodes/{node}/success_nodes/", {"id": "{node}"}),
    ("GET", "unified_job_templates/?name=recorded%20template", None),
    ("GET", "job_templates/?no_such=1", None),
    ("GET", "job_templates/99999/", None),
    ("POST", "labels/", {"name": ORG}),
]


def filled(value: Any, ids: dict[str, int]) -> Any:
    """C(value) with the ids in the places of their names."""
    if isinstance(value, dict):
        return {k: filled(v, ids) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(v, ids) for v in value]
    if not isinstance(value, str):
        return value
    if value.startswith("{") and value.strip("{}") in ids and value.count("{") == 1 and value.endswith("}"):
        return ids[value.strip("{}")]
    for name, number in ids.items():
        value = value.replace("{" + name + "}", str(number))
    return value


def make_blanks(send: Send, settle: Callable[[], None] = lambda: None) -> tuple[dict[str, int], dict[str, Any]]:
    """Make the first objects; their ids by name, and the answers by kind."""
    ids: dict[str, int] = {}
    found = {}
    for kind, name, body in BLANKS:
        status, answer = send("POST", f"{kind}/", filled(body, ids))
        if status != 201:
            raise RuntimeError(f"{kind}: {status} {answer}")
        ids[name] = answer["id"]
        if kind == "projects":
            settle()
        found[kind] = send("GET", f"{kind}/{answer['id']}/", None)[1]
    return ids, found


def sender(url: str, user: str, password: str) -> Send:
    """Requests to an AWX, with a user's name."""
    head = {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode(), "Content-Type": "application/json"}

    def send(method: str, path: str, body: Any) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{url}/api/v2/{path}", data=data, method=method, headers=head)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as e:
            text = e.read()
            return e.code, json.loads(text) if text else None

    return send


def _record(url: str, user: str) -> dict[str, Any]:
    send = sender(url, user, os.environ["CONTROLLER_PASSWORD"])
    present = {kind: [o for o in send("GET", f"{kind}/?page_size=200", None)[1]["results"] if _shipped(kind, o)] for kind in PRESENT}
    ids, blanks = make_blanks(send, lambda: time.sleep(10))
    kinds = {}
    for kind, blank in blanks.items():
        actions = send("OPTIONS", f"{kind}/", None)[1]["actions"]
        post = {k: {x: v[x] for x in ("type", "required", "default", "choices") if x in v} for k, v in actions["POST"].items()}
        kinds[kind] = {"post": post, "get": sorted(actions["GET"]), "blank": blank}
    exchanges = []
    for method, path, body in EXCHANGES:
        status, answer = send(method, str(filled(path, ids)), filled(body, ids))
        exchanges.append({"status": status, "answer": answer})
    made = next(e["answer"] for (_m, p, _b), e in zip(EXCHANGES, exchanges, strict=True) if p.endswith("create_approval_template/"))
    approval = {k: v for k, v in made.items() if k not in ("id", "url", "related", "type")}
    return {
        "approval": approval,
        "version": send("GET", "ping/", None)[1]["version"],
        "present": present,
        "kinds": kinds,
        "ids": ids,
        "exchanges": exchanges,
    }


def _shipped(kind: str, one: dict[str, Any]) -> bool:
    return bool(one.get("managed")) or one["name"] in ("Default", "controlplane", "default")


if __name__ == "__main__":
    found = _record(sys.argv[1], sys.argv[2])
    (Path(__file__).parent / "recorded.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
