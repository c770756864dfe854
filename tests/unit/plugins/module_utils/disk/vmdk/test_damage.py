# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Seeded damage to every variant (see fuzz.py): a quick part, and 5,000 mutations as a slow test; C(make fuzz) runs it at length."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from . import fuzz

SEED = int(os.environ.get("FERRY_FUZZ_SEED", 20261121))


def test_damage(tmp_path: Path) -> None:
    result = fuzz.run(tmp_path, SEED, range(250))
    assert result.wrong == []
    assert result.read and result.refused and result.salvaged


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("part", range(2))
def test_damage_at_length(tmp_path: Path, part: int) -> None:
    count = int(os.environ.get("FERRY_FUZZ_COUNT", 5000)) // 2
    # A process of its own, so that its memory can be told.
    code = (
        "import json, sys; from pathlib import Path; from tests.unit.plugins.module_utils.disk.vmdk import fuzz;"
        f"r = fuzz.run(Path(sys.argv[1]), {SEED}, range({part * count}, {(part + 1) * count}));"
        "print(json.dumps([r.wrong, fuzz.peak_memory()]))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True, check=True, timeout=300)
    wrong, peak = json.loads(done.stdout)
    assert wrong == []
    assert peak < fuzz.MEMORY


def test_a_failure_is_told_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge itself: a reader that gives other bytes is found, its seed is told, its file kept."""
    monkeypatch.setattr(fuzz, "damaged", lambda data, limit, rng: (data, ["nothing"]))
    found = fuzz.variants(tmp_path / "v", peers=False)
    monkeypatch.setattr(fuzz, "variants", lambda folder: found[:1])
    found[0].want = bytes(len(found[0].want))
    result = fuzz.run(tmp_path, 5, range(1), tmp_path / "kept")
    assert len(result.wrong) == 1 and result.wrong[0].startswith("seed 5 number 0: ") and "other bytes" in result.wrong[0]
    assert (tmp_path / "kept" / "5-0" / "why.txt").exists()


def test_mutations_are_those_of_their_seed() -> None:
    data = random.Random(1).randbytes(5000)
    once, again = (fuzz.damaged(data, 5000, random.Random("3:4")) for _n in range(2))
    assert once == again and once[0] != data
