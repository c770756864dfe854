# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils import edge

from .conftest import FakeCloud


def test_nested_secrets() -> None:
    cloud = {
        "auth": {"username": "u", "password": "p1", "deep": [{"application_credential_secret": "p2"}]},
        "token": "p3",
        "region_name": "R",
    }
    assert sorted(edge.nested_secrets(cloud)) == ["p1", "p2", "p3"]
    assert list(edge.nested_secrets("mycloud")) == []


@pytest.mark.parametrize("whole", [True, False])
def test_a_password_is_never_shown(fake: FakeCloud, top: Path, whole: bool) -> None:
    """The module is run as Ansible runs it: parameters in a file, the result on standard output."""
    cloud = fake.params(password="h0shhush")["cloud"]
    params: dict[str, Any] = {"cloud": cloud} if whole else {"auth": cloud["auth"], "region_name": "R"}
    module = top / "plugins" / "modules" / "landing_plan.py"
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {**params, "vms": []}})
    env = {**os.environ, "PYTHONPATH": str(top.parents[2])}
    done = subprocess.run([sys.executable, str(module)], input=arguments, capture_output=True, text=True, check=False, env=env, timeout=60)
    result = json.loads(done.stdout)
    assert result["failure"]["code"] == "unauthorized"
    assert "h0shhush" not in done.stdout + done.stderr
