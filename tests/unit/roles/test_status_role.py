# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook status, on conversion hosts of which one is down and one has a ledger that cannot be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.ledger import Ledger, file_name
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import noted
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.wanted import Wanted

pytestmark = pytest.mark.slow

PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
UUIDS = {"db01": "5030aaaa-0000-4000-8000-000000000001", "受注": "5030aaaa-0000-4000-8000-000000000002"}
INVENTORY = f"""
all:
  vars: {{ansible_python_interpreter: {sys.executable}}}
  hosts:
    db01:
    jp: {{ferry_name: 受注}}
  children:
    conversion_hosts:
      hosts:
        conv1: {{ansible_connection: local}}
        conv2: {{ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1, ansible_ssh_timeout: 2}}
    esxi_hosts: {{hosts: {{esx1: }}}}
"""


class Site:
    def __init__(self, top: Path, folder: Path) -> None:
        self.top, self.folder = top, folder
        (folder / "inventory.yml").write_text(INVENTORY, encoding="utf-8")
        for vm, uuid in UUIDS.items():
            w = Wanted("Hard disk 1", "2000", 4 << 20, {"path": "/images/x.raw"})
            book = Ledger(str(folder / "state" / "ledgers" / file_name(uuid, w.key, w.target)), w.capacity)
            noted.begun(book, w, vm, uuid)
            book.set(state="copying", disk=w.label)
            book.close()

    def __call__(self, *options: str) -> tuple[str, dict[str, Any]]:
        command = [PLAYBOOK, "ferry.vmware.status", "-i", self.folder / "inventory.yml", "-e", f"ferry_ledger={self.folder}/state"]
        environment = {
            **os.environ,
            "HOME": str(self.folder / "home"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.top.parents[2]),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_STDOUT_CALLBACK": "default",
            "ANSIBLE_NOCOLOR": "1",
        }
        out = self.folder / "status.json"
        out.unlink(missing_ok=True)
        done = subprocess.run(
            [*command, "-e", f"ferry_status_json={out}", *options],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
        )
        text = done.stdout + done.stderr
        assert done.returncode == 0, text
        return text, json.loads(out.read_text()) if out.exists() else {}


@pytest.fixture
def site(top: Path, tmp_path: Path) -> Site:
    return Site(top, tmp_path)


@pytest.mark.fault("A conversion host is down", "controller", "ferry.vmware.status says so and shows what the others know")
def test_all_that_the_hosts_know(site: Site) -> None:
    (site.folder / "state" / "ledgers" / file_name("bad", "2000", "x")).write_text("no ledger")
    text, found = site()
    assert [(m["host"], m["vm"], m["state"]) for m in found["migrations"]] == [
        ("conv1", "db01", "interrupted"),
        ("conv1", "受注", "interrupted"),
    ]
    assert [(p["host"], p["code"]) for p in found["problems"]] == [("conv1", "ledger"), ("conv2", "host")]
    assert "受注" in text and "2 VMs: 2 interrupted" in text and "changed=0" in text


def test_limits_are_vms_and_conversion_hosts(site: Site) -> None:
    _text, found = site("--limit", "jp,conv1")
    assert [m["vm"] for m in found["migrations"]] == ["受注"] and found["problems"] == []
    _text, found = site("--limit", "conv1", "--check")
    assert found == {}
    text, found = site("--limit", "conv1")
    assert len(found["migrations"]) == 2 and found["problems"] == [], text
