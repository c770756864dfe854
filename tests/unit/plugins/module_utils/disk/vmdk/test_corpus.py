# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The corpus of malformed disks (see corpus.py): an error or the right bytes, nothing opened outside, little memory, in time."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from . import corpus, fuzz

ROOT = Path(__file__).parents[6]
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([*(p for p in sys.path if p), str(ROOT)])}


def run(folder: Path, part: int, parts: int) -> dict[str, Any]:
    module = f"{__package__}.corpus_run"
    command = [sys.executable, "-m", module, str(folder), str(part), str(parts)]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    out: dict[str, Any] = json.loads(done.stdout)
    return out


def judge(out: dict[str, Any]) -> None:
    assert out["wrong"] == []
    assert out["read"] and out["refused"]
    assert out["peak"] < fuzz.MEMORY


def test_every_fortieth_case(tmp_path: Path) -> None:
    judge(run(tmp_path, 3, 40))


@pytest.mark.slow
@pytest.mark.long  # every fortieth is always read
@pytest.mark.parametrize("part", range(2))
def test_every_case(tmp_path: Path, part: int) -> None:
    out = run(tmp_path, part, 2)
    judge(out)
    assert out["cases"] > 2000


def test_names_are_told_apart() -> None:
    """A failure names its case."""
    names = [case.name for case in corpus.every()]
    assert len(names) > 4000
    assert len(set(names)) > len(names) * 0.98


@pytest.mark.slow
def test_the_command_line(tmp_path: Path) -> None:
    """As from outside: info, check, convert; exit 0 or 1, one line on stderr where refused, no partial dest."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "plugins" / "module_utils")}
    wrong: list[str] = []
    for number, case in enumerate(corpus.every()):
        if number % 199:
            continue
        head = case.write(tmp_path / "case")
        dest = tmp_path / "case" / "dest" / "x.raw"
        dest.parent.mkdir()
        for arguments in (["info", head], ["check", head], ["convert", head, dest, "--format", "raw"]):
            command = [sys.executable, "-m", "disk.vmdk", *map(str, arguments)]
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
            lines = done.stderr.splitlines()
            if done.returncode not in (0, 1):
                wrong.append(f"{case.name}: {arguments[0]}: exit {done.returncode}: {done.stderr[-300:]}")
            elif done.returncode == 1 and not (len(lines) == 1 and re.match(r"vmdk: .*: ", lines[0])):
                wrong.append(f"{case.name}: {arguments[0]}: {lines}")
        if dest.exists():
            with dest.open("rb") as f:
                right = hashlib.file_digest(f, "sha256").hexdigest() in case.right and case.must != corpus.REFUSE
            if done.returncode or not right:
                wrong.append(f"{case.name}: dest is there, exit {done.returncode}")
        elif not done.returncode:
            wrong.append(f"{case.name}: no dest")
    assert wrong == []
