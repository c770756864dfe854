# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook ferry.vmware.vcd_evacuate against the lab's vCloud Director."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .vcloud_env import control, fault
from .vcloud_evacuation import COLLECTIONS, SOURCE, TARGETS, all_vms, lab, moved_once

__all__ = ["lab"]


def play(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    what = "ferry.vmware.vcd_evacuate"
    found = os.pathsep.join([str(COLLECTIONS), *filter(None, [os.environ.get("ANSIBLE_COLLECTIONS_PATH")])])
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": found, "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_NOCOLOR": "1"}
    env |= {"ANSIBLE_INVENTORY_UNPARSED_WARNING": "false", "ANSIBLE_SHOW_CUSTOM_STATS": "true", "HOME": str(folder)}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), what, "-e", f"ansible_python_interpreter={sys.executable}", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)


def variables(folder: Path, **more: Any) -> list[str]:
    values = {"ferry_datastore": SOURCE, "ferry_targets": list(TARGETS), "ferry_journal": str(folder / "journal"), **more}
    return ["-e", json.dumps(values)]


def test_the_playbook(tmp_path: Path) -> None:
    plan = play(tmp_path, *variables(tmp_path), "--check")
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert "WAVE" in plan.stdout
    assert "15 would move" in plan.stdout
    assert not any(v["relocations"] for v in all_vms())
    done = play(tmp_path, *variables(tmp_path, ferry_progress_interval=0.5, vcd_evacuate_require_empty=True))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 15 VMs" in done.stdout
    assert "15 moved, 0 failed, empty" in done.stdout
    assert '"moved": 15' in done.stdout or "'moved': 15" in done.stdout
    again = play(tmp_path, *variables(tmp_path))
    assert "changed=0" in again.stdout
    for run in (plan, done, again):
        assert os.environ["VCD_PASSWORD"] not in run.stdout + run.stderr
        assert "WARNING" not in run.stdout + run.stderr
    assert moved_once()
    assert control("GET", "/stats")["sessions"] == 0


def test_the_playbook_tells_what_failed(tmp_path: Path) -> None:
    fault("task_fail", match="test07", message="The host went away.")
    done = play(tmp_path, *variables(tmp_path))
    assert done.returncode != 0
    assert "failed test07" in done.stdout
    assert "The host went away" in done.stdout
    assert '"failed": 1' in done.stdout or "'failed': 1" in done.stdout


def test_the_module_over_the_hosts_of_the_inventory(tmp_path: Path) -> None:
    (tmp_path / "lab.vcloud.yml").write_text(
        'plugin: ferry.vmware.vcloud\nhostname: \'{{ lookup("env", "VCD_HOST") }}\'\nkeyed_groups: [{key: ferry_datastore, prefix: datastore}]\n'
    )
    values = {"ferry_hosts": "datastore_Development_1", "ferry_targets": list(TARGETS), "ferry_journal": str(tmp_path / "journal")}
    done = play(tmp_path, "-i", str(tmp_path / "lab.vcloud.yml"), "-e", json.dumps(values))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "moved, 0 failed, empty" in done.stdout
    assert moved_once()
