# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every job template's playbook through ansible-runner, as AWX runs it: the project that awx_setup writes, credentials by their injectors, the
answers of the survey as extra variables; on a vCenter of the lab. So no template points at nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
import yaml

from tests.lab.awx.injectors import inject
from tests.lab.awx.server import running
from tests.lab.vcenter import VCenter
from tests.lab_tests.awx_site import COLLECTION, COLLECTIONS, environment, playbooks, role_vars
from tests.lab_tests.event_lab import vcenter_of
from tests.lab_tests.vcenter_lab import MIB

CATALOGUE, QUESTIONS, TYPES = (role_vars()[f"awx_setup_{k}"] for k in ("catalogue", "questions", "types"))
#: A port on which nothing listens: a target that does not answer says so, and the template has got that far.
NOWHERE = "https://127.0.0.1:9"
CLOUDS = {"clouds": {"lab": {"auth": {"auth_url": f"{NOWHERE}/v3", "username": "u", "password": "p", "project_name": "p"}}}}
#: Answers where a survey has no default. What is not required is left empty.
ANSWERS = {
    "ferry_wave": "wave1",
    "ferry_datastore": "Production-1",
    "ferry_targets": "Production-2,Production-3",
    "ferry_drain": "esx1",
    "ferry_target_namespace": "moved",
}
#: What is the first thing with a meaning that each says: it has reached the lab's vCenter, or says which target does not answer.
MEANS = {
    "plan": "127.0.0.1:9",
    "precheck": "web01",
    "migrate": "127.0.0.1:9",
    "precopy": "127.0.0.1:9",
    "cutover": "127.0.0.1:9",
    "health": "127.0.0.1:9",
    "commit": "127.0.0.1:9",
    "rollback": "127.0.0.1:9",
    "rehearse": "127.0.0.1:9",
    "status": "Migrations ·",
    "cleanup": "127.0.0.1:9",
    "doctor": "web01",
    "vcd_evacuate": "127.0.0.1:9",
    "host_evacuate": "web01",
    "policy": "The policy is",
    "mtv_migrate": "127.0.0.1",
    "harvester_migrate": "127.0.0.1",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCenter]:
    folder = tmp_path_factory.mktemp("vcenter")
    raw = folder / "0.raw"
    raw.write_bytes(random.Random(0).randbytes(4 * MIB))
    vm = {"name": "web01", "host": "esx1", "datastore": "shared", "folder": "wave1", "power": "on", "memory_mb": 256}
    model = {
        "clusters": [{"name": "C0", "hosts": ["esx1", "esx2"]}],
        "networks": ["VM Network"],
        "datastores": [{"name": "shared", "type": "VMFS", "capacity": "10GiB"}],
        "vms": [{**vm, "disks": [{"path": str(raw), "provisioning": "thin"}], "nics": [{"network": "VM Network"}]}],
    }
    with vcenter_of(folder, model) as one:
        yield one


SHORT = ["host_evacuate", "status"]


def written(folder: Path, home: Path, wanted: str, **variables: Any) -> Path:
    """What awx_setup writes for a repository."""
    words = json.dumps({"awx_setup_project_dir": str(folder), **variables})
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "ferry.vmware.awx_setup", "-e", words]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0 and wanted in done.stdout, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home")
    return written(folder, home, "changed=4", awx_setup_only=SHORT)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of it; a second run leaves it as it is."""
    folder, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home")
    written(folder, home, "changed=4")
    return written(folder, home, "changed=0")


def data_dir(folder: Path, project: Path, lab: VCenter, needs: list[str]) -> tuple[Path, dict[str, str]]:
    """ansible-runner's folder of a job, and what the credentials have put into its environment."""
    for name in ("env", "inventory"):
        (folder / name).mkdir(parents=True)
    shutil.copytree(project, folder / "project")
    shutil.copy(folder / "project" / "inventories" / "prod.vcenter.yml", folder / "inventory")
    shared = {
        "ferry_network_map": {"*": "web"},
        "ferry_storage_map": {"*": None},
        "ferry_ledger": str(folder / "ledger"),
        "ferry_patience": 1,
    }
    shared |= {
        "ansible_python_interpreter": sys.executable,
        "ferry_policy": {"rules": [{"name": "r", "event": "host_lost", "actions": [{"wait": 1}]}]},
    }
    (folder / "inventory" / "vars.yml").write_text(
        json.dumps({"all": {"hosts": {"localhost": {"ansible_connection": "local"}}, "vars": shared}})
    )
    env = lab.env()
    ca = Path(env["VMWARE_CA_PATH"]).read_text(encoding="utf-8")
    inputs: dict[str, dict[str, Any]] = {
        "vcenter": {
            "host": "127.0.0.1",
            "port": str(lab.port),
            "username": env["VMWARE_USER"],
            "password": env["VMWARE_PASSWORD"],
            "ca": ca,
        },
        "vcloud": {"host": "127.0.0.1", "port": "9", "token": "t"},
        "openstack": {"cloud": "lab", "clouds_yaml": yaml.safe_dump(CLOUDS)},
        "kubernetes": {"host": NOWHERE, "token": "t"},
    }
    # the inventory source has the vCenter's credential whatever the template needs
    found: dict[str, str] = {}
    for kind in dict.fromkeys([*needs, "vcenter"]):
        found |= inject(TYPES[kind], inputs[kind], folder / "env")
    return folder, found


def answers(key: str) -> dict[str, Any]:
    """What somebody answers who leaves empty what may be left empty."""
    found: dict[str, Any] = {}
    for name in CATALOGUE[key].get("survey") or []:
        question = QUESTIONS[name]
        empty = [] if question["type"] == "multiselect" else ""
        required = ANSWERS.get(question["variable"], question.get("default"))
        found[question["variable"]] = required if question["required"] else empty
    return found


def launch(key: str, folder: Path, project: Path, lab: VCenter, *words: str, **variables: Any) -> tuple[str, str]:
    """Run a template's playbook; its status and everything it wrote."""
    place, env = data_dir(folder / key, project, lab, CATALOGUE[key]["needs"])
    env = {**environment(folder), **env, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = ansible_runner.run(
        private_data_dir=str(place),
        playbook=f"playbooks/{key}.yml",
        envvars={**env, "ANSIBLE_COLLECTIONS_PATH": env["ANSIBLE_COLLECTIONS_PATH"] or str(COLLECTIONS)},
        extravars={**answers(key), **variables},
        cmdline=" ".join(words) or None,
        quiet=True,
        timeout=600,
    )
    text = (place / "artifacts" / done.config.ident / "stdout").read_text(encoding="utf-8")
    assert lab.env()["VMWARE_PASSWORD"] not in text
    return done.status, text


def test_each_template_has_a_playbook_in_the_collection() -> None:
    assert [k for k in CATALOGUE if not (COLLECTION / "playbooks" / f"{k}.yml").is_file()] == []
    assert set(MEANS) == set(CATALOGUE)


@pytest.mark.long
@pytest.mark.parametrize("key", SHORT)
def test_a_template_runs(key: str, tmp_path: Path, short: Path, lab: VCenter) -> None:
    status, text = launch(key, tmp_path, short, lab, "--check")
    assert status == "successful" and MEANS[key] in text, text[-3000:]


def test_what_credentials_say_reaches_conversion_hosts_as_arguments(tmp_path: Path, short: Path, lab: VCenter) -> None:
    """The password is in the environment of the controller alone; the module runs on another machine, without it."""
    machine = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    # what the connection gives to the remote side: an environment without any of it
    gone = dict.fromkeys(("VMWARE_HOST", "VMWARE_USER", "VMWARE_PASSWORD"), "")
    more = {"ferry_conversion_hosts": {"conv1": machine}, "ferry_conversion_host": "conv1", "ferry_environment": gone}
    status, text = launch("host_evacuate", tmp_path, short, lab, "--check", **more)
    assert status == "successful" and "web01" in text and "conv1" in text, text[-3000:]


@pytest.mark.long
@pytest.mark.parametrize("key", sorted(CATALOGUE))
def test_every_template_gets_to_its_first_result(key: str, tmp_path: Path, project: Path, lab: VCenter) -> None:
    more = {"ferry_target": "none"} if key == "precheck" else {}
    status, text = launch(key, tmp_path, project, lab, *(["--check"] if key in ("host_evacuate", "doctor") else []), **more)
    assert MEANS[key] in text, text[-4000:]
    assert "rror while" not in text and "is undefined" not in text and "could not be found" not in text, text[-4000:]
    if MEANS[key].startswith("127.0.0.1"):
        assert status == "failed"


@pytest.mark.long
@pytest.mark.parametrize("key", [k for k, one in CATALOGUE.items() if "wave" in (one.get("survey") or [])])
def test_an_empty_wave_is_refused(key: str, tmp_path: Path, project: Path, lab: VCenter) -> None:
    """A workflow can hand an empty text on. It never means the whole vCenter."""
    status, text = launch(key, tmp_path, project, lab, ferry_wave="")
    assert status == "failed" and "-e ferry_wave=GROUP, or --limit" in text, text[-3000:]


@pytest.mark.long
def test_conversion_hosts_are_known_whatever_the_slice(tmp_path: Path, project: Path, lab: VCenter) -> None:
    machine = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {"conv1": machine, "conv2": machine}
    status, text = launch("status", tmp_path, project, lab, "--limit web01", ferry_conversion_hosts=hosts)
    assert status == "successful" and "conv1" in text and "conv2" in text, text[-3000:]


def test_the_stand_in_lists_these_playbooks() -> None:
    with running(playbooks()) as awx:
        assert sorted(awx.playbooks) == sorted(f"playbooks/{k}.yml" for k in CATALOGUE)
