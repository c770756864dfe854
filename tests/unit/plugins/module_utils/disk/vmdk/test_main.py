# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine by plain Python: exit codes, one line of refusal, no traceback, no partial file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import GRAIN, Disks

SIZE = 20 * GRAIN


@pytest.fixture
def vmdk(top: Path, disks: Disks) -> object:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(top / "plugins" / "module_utils")}
        return subprocess.run(
            [sys.executable, "-m", "disk.vmdk", *arguments], cwd=disks.folder, env=env, capture_output=True, text=True, check=False
        )

    return run


def test_done(vmdk: object, disks: Disks) -> None:
    assert callable(vmdk)
    disks.raw(SIZE)
    done = vmdk("convert", "src.raw", "d.vmdk", "--format", "streamOptimized", "--adapter-type", "pvscsi", "--threads", "2")
    assert done.returncode == 0 and json.loads(done.stdout)["changed"]
    assert vmdk("check", "d.vmdk").returncode == 0
    told = vmdk("info", "d.vmdk", "--json")
    assert told.returncode == 0 and json.loads(told.stdout)["adapter_type"] == "pvscsi"
    assert "create_type: streamOptimized" in vmdk("info", "d.vmdk").stdout


def test_refused(vmdk: object, disks: Disks) -> None:
    assert callable(vmdk)
    disks.raw(SIZE)
    vmdk("convert", "src.raw", "d.vmdk", "--format", "streamOptimized")
    path = disks.folder / "d.vmdk"
    path.write_bytes(path.read_bytes()[:-1000])
    for command in (("info", "d.vmdk"), ("check", "d.vmdk"), ("convert", "d.vmdk", "out.raw", "--format", "raw"), ("info", "missing")):
        done = vmdk(*command)
        assert done.returncode == 1, done
        assert done.stderr.startswith(f"vmdk: {command[1]}: ") and done.stderr.count("\n") == 1
    assert sorted(os.listdir(disks.folder)) == ["d.vmdk", "src.raw"]


def test_wrong_usage(vmdk: object) -> None:
    assert callable(vmdk)
    assert vmdk().returncode == vmdk("convert", "a").returncode == vmdk("convert", "a", "b", "--format", "x").returncode == 2
