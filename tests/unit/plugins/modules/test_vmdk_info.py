# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vmdk_info as Ansible runs it: a process with its arguments on stdin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def run_module(top: Path, name: str, /, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """What the module answers; its exit code says the same as C(failed)."""
    given = {"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check, "_ansible_remote_tmp": "/tmp"}}
    done = subprocess.run(
        [sys.executable, "-m", f"ansible_collections.ferry.vmware.plugins.modules.{name}"],
        input=json.dumps(given),
        env={**os.environ, "PYTHONPATH": str(top.parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == int(result.get("failed", False)), done.stderr
    return result


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"x" * 70000 + bytes((1 << 20) - 70000))
    return path


def test_of_a_raw_disk(top: Path, raw: Path) -> None:
    facts = run_module(top, "vmdk_info", path=str(raw), hypervisor="kvm")
    assert (facts["changed"], facts["format"], facts["capacity"], facts["create_type"]) == (False, "raw", 1 << 20, None)
    assert facts["glance"]["accepted"] and not facts["glance"]["bootable"]


def test_of_a_vmdk(top: Path, raw: Path, tmp_path: Path) -> None:
    dest = tmp_path / "d.vmdk"
    run_module(top, "vmdk_convert", src=str(raw), dest=str(dest), format="monolithicSparse", adapter_type="pvscsi")
    facts = run_module(top, "vmdk_info", path=str(dest), deep=True)
    assert (facts["create_type"], facts["adapter_type"], facts["allocated"], facts["problems"]) == (
        "monolithicSparse",
        "pvscsi",
        131072,
        [],
    )
    assert facts["glance"]["vmware_disktype"] == "sparse"


def test_of_a_damaged_vmdk(top: Path, raw: Path, tmp_path: Path) -> None:
    """The module succeeds: what is wrong, and what can be saved, is its answer."""
    dest = tmp_path / "d.vmdk"
    run_module(top, "vmdk_convert", src=str(raw), dest=str(dest), format="streamOptimized")
    os.truncate(dest, dest.stat().st_size - 1024)
    facts = run_module(top, "vmdk_info", path=str(dest))
    assert "truncated" in facts["problems"][0]["message"] and facts["problems"][0]["offset"]
    assert not facts["glance"]["accepted"]
    assert (facts["salvage"]["possible"], facts["salvage"]["lost_bytes"], facts["salvage"]["lost"]) == (True, 0, [])


def test_of_something_else(top: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.vmdk"
    path.write_bytes(b"<html>")
    failed = run_module(top, "vmdk_info", path=str(path))
    assert failed["failed"] and failed["failure"]["code"] == "vmdk" and failed["failure"]["details"]["path"] == str(path)
