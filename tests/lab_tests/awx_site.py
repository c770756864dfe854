# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of awx_setup, and the play that makes them true in an AWX."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.lab.awx.server import PASSWORD, USER

COLLECTION = Path(__file__).resolve().parents[2]
COLLECTIONS = COLLECTION.parents[2]
ROLE = COLLECTION / "roles" / "awx_setup"
SECRET = "a-secret-of-vcenter"

SETTINGS: dict[str, Any] = {
    "awx_setup_image": "registry.example.com/ferry-ee:1.0.0",
    "awx_setup_project_url": "https://git.example.com/ops/ferry-awx.git",
    "awx_setup_credentials": [
        {"name": "prod vCenter", "type": "vcenter", "inputs": {"host": "vcenter.example.com", "username": "ferry", "password": SECRET}},
        {"name": "prod cloud", "type": "openstack", "inputs": {"cloud": "prod", "clouds_yaml": "clouds: {prod: {auth: {}}}"}},
    ],
    "awx_setup_conversion_hosts": {"conv1": {"ansible_host": "192.0.2.5", "ansible_user": "ferry"}},
    "awx_setup_inventories": [
        {
            "name": "prod",
            "variables": {"ferry_network_map": {"*": "web"}},
            "sources": [{"name": "prod VMs", "path": "inventories/prod.vcenter.yml", "credential": "prod vCenter"}],
        }
    ],
    "awx_setup_operators": ["operators"],
    "awx_setup_approvers": ["leads"],
    "awx_setup_sync_interval": 0.1,
}
#: What takes seconds: two job templates that need nothing, and no workflow.
SMALL = {"awx_setup_only": ["status", "host_evacuate"], "awx_setup_workflow": "", "awx_setup_operators": [], "awx_setup_approvers": []}


class _Loader(yaml.SafeLoader):
    """Knows Ansible's tag for what is no template."""


_Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]  # a scalar, as in the files


def role_vars() -> dict[str, Any]:
    """The catalogue of the role."""
    found: dict[str, Any] = {}
    for path in sorted((ROLE / "vars" / "main").glob("*.yml")):
        found |= yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader of ours
    return found


def playbooks() -> list[str]:
    return [f"playbooks/{name}.yml" for name in role_vars()["awx_setup_catalogue"]]


def environment(home: Path) -> dict[str, str]:
    found = os.pathsep.join([str(COLLECTIONS), *filter(None, [os.environ.get("ANSIBLE_COLLECTIONS_PATH")])])
    drop = ("CONTROLLER_", "VMWARE_", "OS_", "VCD_", "K8S_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    env |= {"ANSIBLE_COLLECTIONS_PATH": found, "ANSIBLE_NOCOLOR": "1", "HOME": str(home), "ANSIBLE_LOCALHOST_WARNING": "false"}
    return env | {"ANSIBLE_INVENTORY_UNPARSED_WARNING": "false", "ANSIBLE_DEPRECATION_WARNINGS": "false"}


def setup(
    url: str, home: Path, *words: str, user: str = USER, password: str = PASSWORD, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Run the playbook on an AWX with SETTINGS and C(variables)."""
    env = environment(home) | {"CONTROLLER_HOST": url, "CONTROLLER_USERNAME": user, "CONTROLLER_PASSWORD": password}
    settings = home / "awx.yml"
    settings.write_text(json.dumps({**SETTINGS, **variables, "ansible_python_interpreter": sys.executable}), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "ferry.vmware.awx_setup", "-e", f"@{settings}", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=1800, check=False)


def changed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tasks said so."""
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    found = re.search(r"changed=(\d+)", done.stdout)
    assert found
    return int(found[1])


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Everything that was written, with line breaks and quotes of the display taken out."""
    return re.sub(r"\s+", " ", (done.stdout + done.stderr).replace("\\n", " "))
