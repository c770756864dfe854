# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Killed between any two steps and run again: always byte-identical at the end, and little is read twice.

Each seed is a history of its own: a guest that works, snapshots, a copy that is killed at a step drawn by lot, run again with
the same or a newer snapshot, until it comes through; then the next cycle. FERRY_KILL_RUNS seeds (30) from FERRY_KILL_SEED (0) on.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import copy

from . import powerloss
from .guest import MIB, Guest, Snapshot

MODULE_UTILS = Path(copy.__file__).resolve().parents[1]
RUNS = int(os.environ.get("FERRY_KILL_RUNS", "30"))
FIRST = int(os.environ.get("FERRY_KILL_SEED", "0"))
SIZE = 8 * MIB + 3 * 512
WORKERS, UNIT = 2, MIB


class History:
    """One seed's runs."""

    def __init__(self, folder: Path, seed: int, *, power: bool) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.guest = Guest(folder, SIZE, seed)
        self.power = power
        self.tracked = power or seed % 4 != 3
        self.verify = self.rng.choice(["none", "none", "sample", "full"])
        self.boots = 0
        self.kills = 0
        self.steps = {"read": 12, "write": 20, "zero": 2, "flush": 4, "flushed": 4, "statement": 40, "commit": 4}

    def run(self, at: Snapshot) -> bool:
        """One start of the copy, killed at a step by lot; whether it came through."""
        plan = {
            "folder": str(self.folder),
            "source": str(at.path),
            "change_id": at.change_id if self.tracked else "",
            "areas": {f"{self.guest.uuid}/{n}": self.guest.areas(f"{self.guest.uuid}/{n}", at) for n in range(at.number + 1)},
            "die_at": [kind := self.rng.choice(sorted(self.steps)), self.rng.randrange(1, self.steps[kind] + 2)],
            "durable": self.power,
            "boot": f"boot {self.boots}" if self.power else "",
            "verify": self.verify,
            "outside": 0.0,
            "checkpoint": self.rng.choice([0, 2 * MIB, 1 << 30]),
        }
        path = self.folder / "plan"
        path.write_text(json.dumps(plan))
        (self.folder / "result").unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-I", powerloss.__file__, str(MODULE_UTILS), str(path)], check=False, capture_output=True, text=True
        )
        if done.returncode == 0:
            self.steps.update(self.result()["steps"])
            return True
        assert done.returncode == -9, done.stderr
        self.kills += 1
        if self.power and self.rng.random() < 0.7:
            powerloss.lose_power(self.folder, self.rng)
            self.boots += 1
        return False

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "result").read_text())
        return found

    def cycle(self, changing: bool) -> Snapshot:
        """Copy until it comes through; where C(changing), the guest works on and each start has a snapshot of its own."""
        at = self.guest.snapshot()
        for _attempt in range(300):
            if self.run(at):
                assert (self.folder / "target").read_bytes() == at.path.read_bytes(), "the copy is not the disk at its snapshot"
                return at
            if changing:
                self.guest.work(2)
                at = self.guest.snapshot()
        raise AssertionError("it never came through")

    def bytes_read(self) -> int:
        path = self.folder / "reads"
        if not path.exists():
            return 0
        read = sum(int(row.split()[1]) for row in path.read_text().splitlines() if len(row.split()) == 2)
        path.unlink()
        return read


@pytest.mark.fault(
    "SIGKILL between any two steps of a copy",
    where="copy",
    ends="the next run goes on: equal, at most what the workers had in hand is read twice",
)
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST, FIRST + RUNS))
def test_killed_anywhere_it_goes_on(tmp_path: Path, seed: int) -> None:
    history = History(tmp_path, seed, power=False)
    guest, rng = history.guest, history.rng
    for cycle in range(3):
        first, kills = guest.number + 1, history.kills
        at = history.cycle(changing=history.tracked and rng.random() < 0.5)
        # All that is stored at first and without tracking; else, and for each newer snapshot, the areas that changed.
        needed = 0.0
        if cycle == 0 or not history.tracked:
            needed = min(os.stat(at.path).st_blocks * 512, SIZE)
            first += 1
        for number in range(first, at.number + 1):
            needed += 1.1 * sum(length for _start, length in guest.areas(f"{guest.uuid}/{number - 1}", Snapshot(number, at.path, "")))
        again = (history.kills - kills) * WORKERS * UNIT
        assert history.bytes_read() <= needed + again, f"read twice: more than {again} bytes after {history.kills - kills} kills"
        guest.work()


@pytest.mark.fault(
    "the machine loses power; any of what was not flushed is lost", where="copy", ends="the next run goes on from the last flush: equal"
)
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST, FIRST + max(1, RUNS // 3)))
def test_the_machine_dies_and_it_goes_on(tmp_path: Path, seed: int) -> None:
    history = History(tmp_path, 1000 + seed, power=True)
    for _cycle in range(3):
        history.cycle(history.rng.random() < 0.5)
        history.guest.work()
