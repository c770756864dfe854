# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What awx_setup makes of its settings, and what it says of those that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.ferry.vmware.plugins.plugin_utils.awx import objects, present, surveys

TOP = Path(__file__).resolve().parents[4]


class _Loader(yaml.SafeLoader):
    """Knows Ansible's tag for what is no template."""


_Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]  # a scalar, as in the files


def catalogue() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in (TOP / "roles" / "awx_setup" / "vars" / "main").glob("*.yml"):
        found |= yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader of ours
    return {k.removeprefix("awx_setup_"): v for k, v in found.items()}


def settings(**more: Any) -> dict[str, Any]:
    known = catalogue()
    known["nodes"] = known.pop("workflow_nodes")
    return {
        **known,
        "organization": "Default",
        "prefix": "ferry",
        "execution_environment": "ferry",
        "image": "registry.example.com/ee:1",
        "pull": "missing",
        "registry_credential": "",
        "project": "ferry project",
        "project_url": "https://git.example.com/a.git",
        "project_branch": "",
        "project_credential": "",
        "project_folder": "playbooks",
        "project_update_on_launch": True,
        "credentials": [
            {"name": "v", "type": "vcenter", "inputs": {"host": "h", "username": "u", "password": "p"}},
            {"name": "o", "type": "openstack", "inputs": {"cloud": "c", "clouds_yaml": "x"}},
        ],
        "machine_credentials": ["ssh"],
        "update_secrets": False,
        "inventories": [{"name": "prod", "sources": [{"name": "VMs", "path": "inventories/prod.vcenter.yml", "credential": "v"}]}],
        "inventory": "",
        "conversion_hosts": {"conv1": {}},
        "ledger": "",
        "only": [],
        "templates": {},
        "forks": 10,
        "slices": 3,
        "workflow": "ferry migration",
        "workflow_survey_defaults": {},
        "approval_timeout": 0,
        "operators": ["ops"],
        "approvers": ["leads"],
        "auditors": [],
        "notifications": {},
        **more,
    }


def items(plan: dict[str, Any], kind: str) -> dict[str, Any]:
    return {i["name"]: i["args"] for i in plan["items"] if i["kind"] == kind}


def test_a_plan_of_good_settings() -> None:
    plan = objects.plan(settings())
    assert plan["errors"] == []
    templates = items(plan, "job_templates")
    assert "ferry vcd evacuate" not in templates and templates["ferry precopy"]["job_slice_count"] == 3
    assert templates["ferry precopy"]["credentials"] == ["v", "o", "ssh"] and templates["ferry status"]["credentials"] == ["ssh"]
    assert items(plan, "inventories")["prod"]["variables"] == {"ferry_conversion_hosts": {"conv1": {}}}
    assert [n["name"] for n in plan["nodes"]][:2] == ["plan", "approve precopy"]
    assert [(g["args"]["role"], g["args"]["teams"]) for g in plan["grants"]] == [("execute", ["ops"]), ("approval", ["leads"])]
    kinds = [i["kind"] for i in plan["items"]]
    assert kinds == sorted(kinds, key=objects.KINDS.index)


def test_nothing_needs_what_comes_later() -> None:
    plan, seen = objects.plan(settings(machine_credentials=[])), set()
    for one in (*plan["items"], *plan["nodes"], *plan["grants"]):
        assert [n for n in one["needs"] if tuple(n) not in seen] == [], one["name"]
        seen.add((one["kind"], one["name"]))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"conversion_hosts": {}}, "jobs run in containers that are thrown away"),
        ({"only": ["nothing"]}, "there is no job template nothing"),
        ({"only": ["vcd_evacuate"]}, "there is no credential of the type vcloud"),
        ({"templates": {"plan": {"fork": 1}}}, "there is no option fork"),
        ({"templates": {"plan": {"survey_defaults": {"ferry_strategy": "hot"}}}}, "the default 'hot' is none of warm, cold"),
        ({"templates": {"plan": {"survey_defaults": {"ferry_downtime_budget": "60"}}}}, "the default '60' is no integer"),
        ({"templates": {"plan": {"survey_defaults": {"nothing": 1}}}}, "there is no question for nothing"),
        ({"inventory": "other"}, "is not among awx_setup_inventories"),
        ({"inventories": []}, "there is nothing for the job templates to work on"),
        ({"project": "ferry plan"}, "ferry plan is the name of 2 of them"),
        ({"project_url": ""}, "awx_setup_project_url is empty"),
        (
            {"credentials": [{"name": "v", "type": "vcloud", "inputs": {"host": "h", "username": "u"}}]},
            "give username and password, or token",
        ),
        (
            {"credentials": [{"name": "v", "type": "kubernetes", "inputs": {"host": "h", "token": "t", "insecure": "yes"}}]},
            "insecure has to be true or false",
        ),
        ({"credentials": [{"type": "vcenter"}]}, "a credential has no name"),
        ({"inventories": [{"name": "prod", "sources": [{"name": "VMs"}]}]}, "a source has no path"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_what_cannot_be_is_said(more: dict[str, Any], words: str) -> None:
    assert words in "; ".join(objects.plan(settings(**more))["errors"])


def test_two_credentials_of_a_type_are_asked_about() -> None:
    two = [*settings()["credentials"], {"name": "w", "type": "vcenter", "inputs": {"host": "h", "username": "u", "password": "p"}}]
    assert "which of v, w is meant" in "; ".join(objects.plan(settings(credentials=two))["errors"])
    said = {k: {"credentials": ["w"]} for k in catalogue()["catalogue"]}
    assert objects.plan(settings(credentials=two, templates=said))["errors"] == []


def test_each_question_is_one_that_awx_takes() -> None:
    known = catalogue()
    assert [e for q in known["questions"].values() for e in surveys.wrong(q)] == []
    asked = {q for one in known["catalogue"].values() for q in one.get("survey") or []} | set(known["workflow_survey"])
    assert asked == set(known["questions"])


def test_choices_are_those_of_the_options_that_they_answer() -> None:
    questions, roles = catalogue()["questions"], TOP / "roles"

    def choices(role: str, option: str) -> list[str]:
        spec = yaml.safe_load((roles / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
        return sorted(map(str, spec["argument_specs"]["main"]["options"][option]["choices"]))

    pairs = {
        "strategy": ("migrate", "migrate_strategy"),
        "cutover": ("migrate", "migrate_cutover"),
        "on_timeout": ("migrate", "migrate_on_timeout"),
        "rollback_target": ("rollback", "rollback_target"),
        "commit_delete": ("commit", "commit_delete"),
        "rehearse_copy": ("rehearse", "rehearse_copy"),
        "drain_state": ("host_evacuate", "host_evacuate_state"),
        "mtv_action": ("mtv", "mtv_action"),
        "harvester_action": ("harvester", "harvester_action"),
    }
    for question, (role, option) in pairs.items():
        assert sorted(questions[question]["choices"]) == choices(role, option), question
    module = (TOP / "plugins" / "modules" / "vm_precheck.py").read_text(encoding="utf-8")
    assert f"choices: [{', '.join(questions['target']['choices'])}]" in module


def answer(kind: str, *names: str) -> dict[str, Any]:
    return {"item": {"kind": kind}, "json": {"results": [{"name": n} for n in names]}}


def test_what_is_there_decides_what_check_mode_can_look_at() -> None:
    plan = objects.plan(settings(only=["status"], workflow="", operators=[], approvers=[]))
    there = [answer("organizations", "Default"), answer("credentials", "ssh")]
    found = present.compare(plan, there, check=True)
    assert found["missing"] == [] and "job template ferry status" in found["blocked"]
    assert set(found["todo"]) == {"organizations", "credential_types", "execution_environments", "inventories"}
    assert present.compare(plan, there[:1])["missing"] == ["there is no credential ssh in AWX, which job template ferry status needs"]
    assert present.compare(plan, there)["blocked"] == []


def test_queries_ask_for_names_alone() -> None:
    asked = present.queries(objects.plan(settings()))
    assert {q["kind"] for q in asked} >= {"credentials", "job_templates", "teams"}
    assert all("or__name=" in q["path"] for q in asked)


def test_fields_that_an_awx_does_not_know() -> None:
    fields = {"job_templates": ["forks", "job_slice_count"], "teams": ["name"]}
    known = {"actions": {"GET": {"forks": {}}, "POST": {}}}
    answers = [{"item": "job_templates", "status": 200, "json": known}, {"item": "teams", "status": 404}]
    assert present.too_old(fields, answers) == ["its job templates have no job_slice_count", "it has no teams"]
