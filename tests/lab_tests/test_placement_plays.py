# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks machine_register and host_evacuate as a user runs them, and what the inventory plugin says afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from tests.lab.vcenter import USER, VCenter
from tests.lab_tests import vcenter_lab
from tests.lab_tests.test_vm_placement import model, where

pytestmark = pytest.mark.slow

DEFINITIONS = """
definitions:
  children:
    esx:
      vars: {ferry_kind: host, ferry_model: {min_cpus: 2, networks: [VM Network]}}
      hosts:
        esx-a: {ferry_machine: esx1}
        esx-b: {}
    web:
      vars: {ferry_kind: vm}
      hosts:
        VM-01: {ferry_machine: web01}
        VM-02: {ferry_machine: web02}
        VM-03: {ferry_machine: 在庫 03}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[VCenter]:
    with vcenter_lab.running(tmp_path, model(tmp_path)) as found:
        yield found


def run(lab: VCenter, folder: Path, tool: str, *words: str) -> str:
    env = {
        **os.environ,
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "ANSIBLE_NOCOLOR": "1",
        "VMWARE_HOST": "127.0.0.1",
        "VMWARE_PORT": str(lab.port),
        "VMWARE_USER": USER,
        "VMWARE_PASSWORD": lab.place.password(),
        "VMWARE_CA_PATH": str(lab.place.state / "ca.pem"),
    }
    command = [str(Path(sys.executable).with_name(tool)), *words]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)
    return done.stdout


def play(lab: VCenter, folder: Path, name: str, *words: str) -> str:
    return run(lab, folder, "ansible-playbook", f"ferry.vmware.{name}", "-e", f"ansible_python_interpreter={sys.executable}", *words)


def listed(lab: VCenter, folder: Path) -> dict[str, Any]:
    (folder / "site.vcenter.yml").write_text("plugin: ferry.vmware.vcenter\n", encoding="utf-8")
    found: dict[str, Any] = json.loads(run(lab, folder, "ansible-inventory", "-i", "site.vcenter.yml", "--list"))
    return found


def test_definitions_become_groups_and_variables(lab: VCenter, tmp_path: Path) -> None:
    before = listed(lab, tmp_path)
    assert "ferry_definition" not in json.dumps(before)
    (tmp_path / "definitions.yml").write_text(DEFINITIONS, encoding="utf-8")
    planned = play(lab, tmp_path, "machine_register", "-i", "definitions.yml", "--check", "--diff")
    assert planned.count("changed=1") == 5
    assert listed(lab, tmp_path) == before
    done = play(lab, tmp_path, "machine_register", "-i", "definitions.yml")
    assert done.count("changed=1") == 5
    assert "esx-a: esx1 (host-" in done
    found = listed(lab, tmp_path)
    assert sorted(found["web"]["hosts"]) == ["web01", "web02", "在庫 03"]
    assert found["esx"]["hosts"] == ["esx1", "esx2"]
    variables = found["_meta"]["hostvars"]
    assert (variables["web02"]["ferry_definition"], variables["web02"]["ferry_group"]) == ("VM-02", "web")
    assert variables["esx2"]["ferry_definition"] == "esx-b"
    assert "ferry_definition" not in variables["esx3"]
    again = play(lab, tmp_path, "machine_register", "-i", "definitions.yml")
    assert "changed=1" not in again
    play(lab, tmp_path, "machine_register", "-i", "definitions.yml", "--limit", "VM-02", "-e", "ferry_registration=absent")
    assert listed(lab, tmp_path)["web"]["hosts"] == ["web01", "在庫 03"]


def test_a_host_is_drained_and_comes_back(lab: VCenter, tmp_path: Path) -> None:
    client = vcenter_lab.Client(lab)
    before = where(client)
    variables = {"ferry_drain": ["esx1"], "ferry_constraints": [{"kind": "EQ", "vms": ["app", "db"]}], "host_evacuate_reserve_percent": 0}
    words = ("-e", json.dumps(variables))
    planned = play(lab, tmp_path, "host_evacuate", "--check", *words)
    assert "esx1 is drained" in planned
    assert where(client) == before
    done = play(lab, tmp_path, "host_evacuate", *words)
    assert "changed=1" in done
    now = where(client)
    assert "esx1" not in now.values()
    assert now["app"] == now["db"]
    assert "changed=0" in play(lab, tmp_path, "host_evacuate", *words)
    play(lab, tmp_path, "host_evacuate", *words, "-e", "ferry_drain_state=back")
    assert where(client) == before
    assert not client.all(vim.HostSystem)["esx1"].runtime.inMaintenanceMode
    client.close()
