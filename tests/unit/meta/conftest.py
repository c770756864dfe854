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


@pytest.fixture(scope="session")
def files(top: Path) -> list[str]:
    """All files of the project, relative to the top, as the stage's git lists them."""
    out = subprocess.run(["git", "-C", str(top), "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    return [name for name in out.split("\0") if name and (top / name).is_file()]


@pytest.fixture(scope="session")
def documentation(top: Path) -> dict[str, dict[str, Any]]:
    """What ansible-doc says of each module, by its short name: fragments are merged in."""
    names = sorted(f.stem for f in (top / "plugins" / "modules").glob("*.py"))
    command = [str(Path(sys.executable).parent / "ansible-doc"), "--type", "module", "--json", *[f"ferry.vmware.{n}" for n in names]]
    env = os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(top.parents[2])}
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name.rpartition(".")[2]: found for name, found in json.loads(done.stdout).items()}
