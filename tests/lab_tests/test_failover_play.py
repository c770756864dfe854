# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook ferry.vmware.host_failover, with a fencing task file of the user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .vm_move_lab import SHOP, Moves, moves_of

COLLECTIONS = Path(__file__).resolve().parents[5]
FENCE = """---
- name: Cut it off from power
  ansible.builtin.uri:
    url: "{{ lookup('env', 'FERRY_VCENTER_CONTROL') }}/host/die?host={{ host_failover_host }}&vms=die"
    method: POST
"""
BROKEN = """---
- name: Cut it off from power
  ansible.builtin.fail:
    msg: the management controller does not answer
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Moves]:
    with moves_of(tmp_path) as moves:
        yield moves


def play(lab: Moves, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    values = {"ferry_dead_host": "esx1", "ferry_failover_state_dir": str(lab.folder / "kept"), **variables}
    found = os.pathsep.join([str(COLLECTIONS), *filter(None, [os.environ.get("ANSIBLE_COLLECTIONS_PATH")])])
    env = {
        **os.environ,
        **lab.vcenter.env(),
        "ANSIBLE_COLLECTIONS_PATH": found,
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_NOCOLOR": "1",
    }
    env |= {"ANSIBLE_INVENTORY_UNPARSED_WARNING": "false", "ANSIBLE_SHOW_CUSTOM_STATS": "true", "HOME": str(lab.folder)}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "ferry.vmware.host_failover", *words]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-e", json.dumps(values)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.slow
def test_a_dead_host_is_fenced_and_its_vms_run_elsewhere(lab: Moves) -> None:
    # cut off only: its VMs run on, and the fencing is what ends them
    lab.vcenter.post("/host/die", host="esx1", vms="run")
    fence = lab.folder / "fence.yml"
    fence.write_text(FENCE, encoding="utf-8")
    plan = play(lab, "--check", ferry_fence_tasks=str(fence))
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert SHOP in plan.stdout and "planned" in plan.stdout and "refused" in plan.stdout and lab.host(SHOP) == "esx1"
    done = play(lab, ferry_fence_tasks=str(fence))
    # two VMs are on a local disk of the dead host
    assert done.returncode != 0 and "2 of 5 VMs" in done.stdout, done.stdout + done.stderr
    assert lab.power(SHOP) == "poweredOn" and lab.host(SHOP) != "esx1"
    assert lab.vcenter.env()["VMWARE_PASSWORD"] not in plan.stdout + done.stdout


@pytest.mark.slow
def test_where_the_fencing_fails_nothing_is_started(lab: Moves) -> None:
    lab.vcenter.post("/host/die", host="esx1", vms="run")
    fence = lab.folder / "fence.yml"
    fence.write_text(BROKEN, encoding="utf-8")
    done = play(lab, ferry_fence_tasks=str(fence))
    assert done.returncode != 0 and "may be running" in done.stdout and lab.host(SHOP) == "esx1"
    without = play(lab)
    assert without.returncode != 0 and "host_failover_fence_tasks" in without.stdout and lab.host(SHOP) == "esx1"
