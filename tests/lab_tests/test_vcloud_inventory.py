# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory plugin against the lab's vCloud Director, through ansible-inventory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .vcloud_env import control, vm

PROGRAM = Path(sys.executable).with_name("ansible-inventory")
COLLECTIONS = Path(__file__).resolve().parents[5]


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    control("POST", "/reset")
    yield
    control("POST", "/reset")


def run(folder: Path, *words: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    path = folder / "lab.vcloud.yml"
    path.write_text(yaml.safe_dump({"plugin": "ferry.vmware.vcloud", **options}))
    path.chmod(0o600)
    found = os.pathsep.join([str(COLLECTIONS), *filter(None, [os.environ.get("ANSIBLE_COLLECTIONS_PATH")])])
    whole = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": found, "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_NOCOLOR": "1", **(env or {})}
    command = [str(PROGRAM), "-i", str(path), *(words or ("--list",))]
    return subprocess.run(command, env=whole, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def listing(folder: Path, **options: Any) -> tuple[dict[str, Any], str]:
    done = run(folder, **options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found, done.stderr


def test_groups_and_variables(tmp_path: Path) -> None:
    env = {"ANSIBLE_TRANSFORM_INVALID_GROUP_CHARS": "silently"}
    done = run(tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    variables = found["_meta"]["hostvars"]
    assert len(variables) == len(found["vms"]["hosts"]) == 84
    twins = [f"db01_{vm('db01', None, vdc)['id']}" for vdc in ("acme-prod", "acme-dev", "東京-vdc")]
    assert set(twins) <= set(variables)
    assert "db01" not in variables
    assert "db01 is" in done.stderr
    assert set(found["org_acme"]["hosts"]) >= {"web01", "test01", *twins[:2]}
    assert set(found["vdc_acme_dev"]["hosts"]) >= {"test01", twins[1]}
    assert "web01" in found["vapp_web"]["hosts"]
    assert set(found["vapp_erp"]["hosts"]) >= set(twins[:2])
    assert twins[0] in found["vapp_acme_prod_erp"]["hosts"]
    assert twins[1] not in found["vapp_acme_prod_erp"]["hosts"]
    assert "templates" not in found
    one = variables["web01"]
    assert one["ferry_id"].endswith(vm("web01")["id"])
    assert {k: v for k, v in one.items() if k not in ("ferry_id", "ferry_href", "ferry_moref")} == {
        "ferry_name": "web01",
        "ferry_vapp": "web",
        "ferry_vdc": "acme-prod",
        "ferry_org": "acme",
        "ferry_status": "POWERED_ON",
        "ferry_datastore": "Production-1",
        "ferry_vcenter": "vc1",
        "ferry_is_template": False,
    }
    assert control("GET", "/stats")["sessions"] == 0


def test_filters_groups_and_names(tmp_path: Path) -> None:
    found, said = listing(
        tmp_path,
        org="acme",
        filters=["ferry_vdc == 'acme-prod'"],
        keyed_groups=[{"key": "ferry_datastore", "prefix": "on"}],
        groups={"web": "ferry_name is match('web')"},
        compose={"label": "ferry_org ~ '/' ~ ferry_name"},
        hostnames=["ferry_vdc ~ '.' ~ ferry_name"],
        include_templates=True,
    )
    assert "acme/db01" in str(found["_meta"]["hostvars"]["acme-prod.db01"]["label"])
    assert set(found["templates"]["hosts"]) == {"acme-prod.centos-6", "acme-prod.win2008"}
    assert len(found["web"]["hosts"]) == 21
    assert "acme-prod.web01" in found["on_Production_1"]["hosts"]
    assert "org_globex" not in found
    assert "got the UUID" not in said


def test_the_cache_answers_only_the_same_question(tmp_path: Path) -> None:
    cached = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    first, _said = listing(tmp_path, vdc="acme-dev", **cached)
    assert control("GET", "/stats")["logins"] == 1
    again, _said = listing(tmp_path, vdc="acme-dev", **cached)
    assert again == first
    assert control("GET", "/stats")["logins"] == 1
    listing(tmp_path, vdc="acme-prod", **cached)
    assert control("GET", "/stats")["logins"] == 2
    assert not [f for f in (tmp_path / "cache").iterdir() if os.environ["VCD_PASSWORD"] in f.read_text()]


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"VCD_PASSWORD": "certainly-wrong"}, "refuses the user name or the password"),
        ({"VCD_CA_PATH": "/etc/ssl/certs"}, "is not trusted"),
        ({"VCD_PORT": "1"}, "cannot be reached"),
        ({"VCD_ORG": "acme", "VCD_USER": "orgadmin"}, "only a system administrator"),
    ],
)
def test_errors_are_said_once_and_without_secrets(tmp_path: Path, env: dict[str, str], said: str) -> None:
    done = run(tmp_path, "--list", "-vvv", env={**env, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true"})
    assert done.returncode != 0
    assert said in done.stderr
    assert "certainly-wrong" not in done.stdout + done.stderr
    assert os.environ["VCD_PASSWORD"] not in done.stdout + done.stderr
