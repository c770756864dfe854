# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory plugin against the lab's vCenter, through ansible-inventory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROGRAM = Path(sys.executable).with_name("ansible-inventory")
COLLECTIONS = Path(__file__).resolve().parents[5]


def run(folder: Path, *words: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    path = folder / "lab.vcenter.yml"
    path.write_text(yaml.safe_dump({"plugin": "ferry.vmware.vcenter", **options}))
    path.chmod(0o600)
    found = os.pathsep.join([str(COLLECTIONS), *filter(None, [os.environ.get("ANSIBLE_COLLECTIONS_PATH")])])
    whole = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": found, "ANSIBLE_LOCALHOST_WARNING": "false", **(env or {})}
    command = [str(PROGRAM), "-i", str(path), *(words or ("--list",))]
    return subprocess.run(command, env=whole, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def listing(folder: Path, **options: Any) -> dict[str, Any]:
    done = run(folder, **options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_connection_comes_from_the_environment(tmp_path: Path) -> None:
    found = listing(tmp_path, properties=["config.guestId", "config.hardware.numCPU"], group_by=["host", "folder"])
    assert {"web01", "db01", "legacy01 在庫 管理"} <= set(found["vms"]["hosts"])
    assert {"esx1", "esx2"} <= set(found["esxi_hosts"]["hosts"])
    assert {"datastore1", "local-esx1"} <= set(found["datastores"]["hosts"])
    assert found["folder_DC0_vm_production_databases"]["hosts"] == ["db01"]
    assert "db01" in found["host_esx2"]["hosts"]
    variables = found["_meta"]["hostvars"]
    db = variables["db01"]
    assert db["config"] == {"guestId": "debian12_64Guest", "hardware": {"numCPU": 2}}
    assert (db["ferry_path"], db["ferry_instance_uuid"]) == (
        "/DC0/vm/production/databases/db01",
        "50210a1b-0002-4c6e-9f01-7a1e5b1c0002",
    )
    assert variables["datastore1"]["ferry_capacity"] == 1 << 40
    assert (variables["datastore1"]["ferry_accessible"], variables["datastore1"]["ferry_type"]) == (True, "VMFS")
    assert (variables["esx1"]["ferry_connection"], variables["esx1"]["ferry_cluster"]) == ("connected", "C0")
    assert os.environ["VMWARE_PASSWORD"] not in json.dumps(found)


def test_nothing_secret_at_vvv(tmp_path: Path) -> None:
    done = run(tmp_path, "--list", "-vvv")
    assert done.returncode == 0
    assert os.environ["VMWARE_PASSWORD"] not in done.stdout + done.stderr


def test_filters_groups_and_names(tmp_path: Path) -> None:
    found = listing(
        tmp_path,
        filters=["config.hardware.memoryMB <= 512"],
        groups={"wave1": "config.guestId is match('debian12')"},
        keyed_groups=[{"key": "config.guestId", "prefix": "guest"}],
        hostnames=["guest.hostName", "ferry_name"],
        with_esxi_hosts=False,
        with_datastores=False,
    )
    names = {v["ferry_name"]: name for name, v in found["_meta"]["hostvars"].items()}
    assert {"web01", "legacy01 在庫 管理"} <= set(names)
    assert "db01" not in names
    assert found["wave1"]["hosts"] == [names["web01"]] == found["guest_debian12_64Guest"]["hosts"]


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"VMWARE_PASSWORD": "certainly-wrong"}, "refuses the user name or the password"),
        ({"VMWARE_CA_PATH": "/etc/ssl/certs"}, "is not trusted"),
        ({"VMWARE_PORT": "1"}, "cannot be reached"),
    ],
)
def test_errors_are_said_once_and_without_secrets(tmp_path: Path, env: dict[str, str], said: str) -> None:
    done = run(tmp_path, "--list", env={**env, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true"})
    assert done.returncode != 0
    assert said in done.stderr
    assert "certainly-wrong" not in done.stdout + done.stderr
    assert os.environ["VMWARE_PASSWORD"] not in done.stdout + done.stderr


def test_a_play_names_the_vm_by_its_moref(tmp_path: Path) -> None:
    play = [
        {
            "hosts": "db01",
            "gather_facts": False,
            "tasks": [
                {
                    "name": "Ask for the VM that this host is",
                    "ferry.vmware.vm_info": {"vms": ["{{ ferry_moref }}"]},
                    "delegate_to": "localhost",
                    "vars": {"ansible_python_interpreter": sys.executable},
                    "register": "found",
                },
                {
                    "name": "It is the one",
                    "ansible.builtin.assert": {"that": ["found.vms[0].path == ferry_path", "found.vms[0].disks | length == 3"]},
                },
            ],
        }
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    run(tmp_path)  # writes the inventory
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}
    command = [str(PROGRAM.with_name("ansible-playbook")), "-i", "lab.vcenter.yml", "play.yml"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=0" in done.stdout
