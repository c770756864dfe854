# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""awx_setup on an AWX at the wire, and on a real one where CONTROLLER_HOST says where."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import ca
from tests.lab.awx.server import Awx, running
from tests.lab_tests.awx_site import SECRET, SETTINGS, SMALL, changed, playbooks, said, setup


@pytest.fixture
def awx() -> Iterator[Awx]:
    with running(playbooks()) as one:
        yield one


def written(awx: Awx) -> list[tuple[str, str, Any]]:
    """Requests that change something; log-ins do not count."""
    return [r for r in awx.requests if r[0] not in ("GET", "OPTIONS") and not r[1].startswith("tokens")]


def by_name(awx: Awx, kind: str) -> dict[str, dict[str, Any]]:
    return {str(o.get("name") or o["identifier"]): o for o in awx.store.all(kind)}


def test_from_nothing_to_all_and_again(tmp_path: Path) -> None:
    ca_file, certificate, key = ca.ensure(tmp_path)
    with running(playbooks(), (certificate, key)) as awx:
        first = setup(awx.url, tmp_path, "-vvv", **SMALL, awx_setup_ca_path=str(ca_file))
        assert changed(first) > 5
        template = by_name(awx, "job_templates")["ferry host evacuate"]
        assert template["playbook"] == "playbooks/host_evacuate.yml" and template["survey_enabled"] and template["ask_job_type_on_launch"]
        spec = awx.store.surveys[template["id"]]["spec"]
        assert [q["variable"] for q in spec] == ["ferry_drain", "ferry_drain_state"]
        source = by_name(awx, "inventory_sources")["prod VMs"]
        assert (source["source_path"], source["status"], source["timeout"]) == ("inventories/prod.vcenter.yml", "successful", 600)
        assert '"conv1"' in by_name(awx, "inventories")["prod"]["variables"]
        assert by_name(awx, "credentials")["prod vCenter"]["inputs"]["password"] == "$encrypted$"
        assert SECRET not in first.stdout + first.stderr
        before = len(written(awx))
        again = setup(awx.url, tmp_path, **SMALL, awx_setup_ca_path=str(ca_file))
        assert changed(again) == 0 and len(written(awx)) == before


@pytest.mark.long
def test_everything_that_is_wrong_is_told_before_awx_is_asked(awx: Awx, tmp_path: Path) -> None:
    credentials = [{"name": "half", "type": "vcenter", "inputs": {"host": "h", "username": "", "passwort": "x"}}]
    done = setup(
        awx.url, tmp_path, **{**SMALL, "awx_setup_only": ["host_evacuate", "plann"]}, awx_setup_credentials=credentials, awx_setup_image=""
    )
    text = said(done)
    assert done.returncode != 0 and awx.requests == []
    for words in (
        "credential half: username is missing",
        "password is missing",
        "no field passwort",
        "no job template plann",
        "awx_setup_image is empty",
    ):
        assert words in text, text
    assert "Nothing was changed in AWX" in text


@pytest.mark.fault("AWX is older than the fields used", "AWX", "it says which fields it lacks, before anything is changed")
def test_an_older_awx_is_refused(tmp_path: Path) -> None:
    drop = {"job_templates": ["job_slice_count", "ask_job_slice_count_on_launch"], "execution_environments": ["*"]}
    with running(playbooks(), drop=drop) as awx:
        done = setup(awx.url, tmp_path, **SMALL)
        text = said(done)
        assert done.returncode != 0 and written(awx) == []
        assert (
            "its job templates have no ask_job_slice_count_on_launch, job_slice_count" in text
            and "it has no execution environments" in text
        )
        assert "24.6.1" in text


@pytest.mark.long
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"password": "wrong"}, "does not take this user or token (HTTP 401)"),
        ({"awx_setup_api": "/api/gateway/"}, "has no API at /api/gateway/ (HTTP 404)"),
        ({"awx_setup_machine_credentials": ["no such key"]}, "there is no credential no such key in AWX, which job template ferry"),
    ],
    ids=["password", "prefix", "name"],
)
def test_what_cannot_be_is_told_before_anything_is_changed(awx: Awx, tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    done = setup(awx.url, tmp_path, **{**SMALL, **wrong})
    assert done.returncode != 0 and written(awx) == [] and words in said(done), said(done)


WORKFLOW = {"awx_setup_only": ["plan", "precopy", "cutover", "health", "commit", "rollback"]}


@pytest.mark.long
def test_the_workflow_with_drift_mended(awx: Awx, tmp_path: Path) -> None:
    look = setup(awx.url, tmp_path, "--check", **WORKFLOW)
    assert changed(look) > 3 and written(awx) == []
    assert "would be made, after what it needs" in look.stdout and "job template ferry precopy" in look.stdout
    first = setup(awx.url, tmp_path, "-vvv", **WORKFLOW)
    assert changed(first) > 10 and SECRET not in first.stdout + first.stderr
    nodes, templates = by_name(awx, "workflow_job_template_nodes"), by_name(awx, "job_templates")
    assert nodes["cutover"]["always_nodes"] == [nodes["health"]["id"]]
    assert nodes["precopy"]["failure_nodes"] == [nodes["precopy again"]["id"]]
    assert templates["ferry precopy"]["job_slice_count"] == 2
    approval = awx.store.objects["workflow_approval_templates"][nodes["approve cutover"]["unified_job_template"]]
    assert "shut the guests down" in approval["description"]

    # somebody at work in the web interface
    templates["ferry plan"]["forks"] = 1
    awx.store.surveys[templates["ferry precopy"]["id"]]["spec"].pop()
    awx.store.linked("workflow_job_template_nodes", nodes["health"]["id"], "failure_nodes").clear()
    workflow = nodes["plan"]["workflow_job_template"]
    awx.store.new("workflow_job_template_nodes", {"identifier": "by hand", "workflow_job_template": workflow})
    by_name(awx, "credential_types")["ferry vCenter"]["injectors"] = {}
    awx.store.links = {k: [] if k[0] == "roles" else v for k, v in awx.store.links.items()}
    before = len(written(awx))
    # types, templates, a node too many, links, roles
    assert changed(setup(awx.url, tmp_path, **WORKFLOW)) == 5
    paths = {p.split("/")[0] for _m, p, _b in written(awx)[before:]}
    assert paths == {"job_templates", "workflow_job_template_nodes", "credential_types", "roles"}
    assert "by hand" not in by_name(awx, "workflow_job_template_nodes") and templates["ferry plan"]["forks"] == 10
    mended = len(written(awx))
    assert changed(setup(awx.url, tmp_path, "--check", **WORKFLOW)) == 0
    assert changed(setup(awx.url, tmp_path, **WORKFLOW)) == 0 and len(written(awx)) == mended


@pytest.mark.long
@pytest.mark.fault("an inventory source of AWX times out", "AWX", "everything else is made, and it says which source, why and what next")
def test_an_inventory_source_that_times_out(awx: Awx, tmp_path: Path) -> None:
    awx.failing["prod VMs"] = "Job terminated due to timeout"
    done = setup(awx.url, tmp_path, **SMALL)
    text = said(done)
    assert (
        done.returncode != 0
        and "prod VMs" in text
        and "Job terminated due to timeout" in text
        and "the option timeout of the source" in text
    )
    assert "ferry status" in by_name(awx, "job_templates")
    awx.failing.clear()
    assert changed(setup(awx.url, tmp_path, **SMALL)) == 1
    assert changed(setup(awx.url, tmp_path, **SMALL)) == 0


@pytest.mark.long
def test_a_project_without_its_playbooks_and_a_type_that_is_in_use(awx: Awx, tmp_path: Path) -> None:
    awx.playbooks = ["playbooks/status.yml"]
    done = setup(awx.url, tmp_path, **SMALL)
    assert done.returncode != 0 and "has no playbooks/host_evacuate.yml" in said(done) and "awx_setup_project_dir" in said(done)
    by_name(awx, "credential_types")["ferry vCenter"]["inputs"]["fields"].pop()
    by_name(awx, "credential_types")["ferry vCenter"]["injectors"] = {}
    done = setup(awx.url, tmp_path, **SMALL)
    assert done.returncode != 0 and "AWX does not change the fields of a type that credentials use" in said(done)


@pytest.mark.long
@pytest.mark.skipif("CONTROLLER_HOST" not in os.environ, reason="CONTROLLER_HOST does not say where a real AWX is")
def test_a_real_awx(tmp_path: Path) -> None:
    """Its project has to have the playbooks: awx_setup_project_url is FERRY_AWX_PROJECT_URL."""
    where = {"user": os.environ["CONTROLLER_USERNAME"], "password": os.environ["CONTROLLER_PASSWORD"]}
    more = {"awx_setup_sync": False, "awx_setup_project_url": os.environ.get("FERRY_AWX_PROJECT_URL", SETTINGS["awx_setup_project_url"])}
    changed(setup(os.environ["CONTROLLER_HOST"], tmp_path, **where, **more))
    assert changed(setup(os.environ["CONTROLLER_HOST"], tmp_path, **where, **more)) == 0
