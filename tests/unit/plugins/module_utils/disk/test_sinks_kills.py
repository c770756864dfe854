# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A copy into a VMDK that is killed between any two system calls of the target, run again until it comes through: always equal."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import copy
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sinks.vmdk import SUBFORMATS
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk

MODULE_UTILS = Path(copy.__file__).resolve().parents[1]
MIB = 1 << 20
SIZE = 10 * MIB + 512 * 5

#: Copies FOLDER/source, and dies before the system call DIE on a file of the target; prints how many there were.
PROGRAM = """
import os, signal, sys
folder, subformat, die = sys.argv[2], sys.argv[3], int(sys.argv[4])
sys.path.insert(0, sys.argv[1])
calls = 0
def counted(name):
    real = getattr(os, name)
    def call(*args):
        global calls
        calls += 1
        if calls == die:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)
    setattr(os, name, call)
for name in ("pwrite", "fsync", "ftruncate", "link", "unlink", "replace"):
    counted(name)
from disk import copy, ledger
from disk.sinks.vmdk import VmdkSink
from disk.sources.file import FileSource
source = FileSource(folder + "/source")
book = ledger.Ledger(folder + "/ledger.sqlite", source.capacity)
sink = VmdkSink(folder + "/target.vmdk", source.capacity, subformat)
job = copy.Job("disk", source, sink, book, unit=1 << 20)
(result,) = copy.run([job], workers=2, verify="sample", checkpoint_bytes=2 << 20)
sink.close()
book.close()
print(calls, result.mode)
"""


def change(path: Path, rng: random.Random) -> None:
    """What a disk becomes: data, zeroes, and what was data turned to zeroes."""
    with path.open("r+b" if path.exists() else "w+b") as f:
        f.truncate(SIZE)
        for _n in range(12):
            f.seek(rng.randrange(SIZE // 512) * 512)
            length = min(rng.choice([512, 65536, 300_000, MIB]), SIZE - f.tell())
            f.write(bytes(length) if rng.random() < 0.3 else rng.randbytes(length))


@pytest.mark.slow
@pytest.mark.fault("SIGKILL between any two system calls on a VMDK target", "target", "the next run takes it up: equal")
@pytest.mark.parametrize("subformat", SUBFORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_and_taken_up(tmp_path: Path, subformat: str, seed: int) -> None:
    rng = random.Random(seed)
    kills, expected = 0, 60
    for _cycle in range(3):
        change(tmp_path / "source", rng)
        for _attempt in range(20):
            die = rng.randrange(1, expected + 1) if _attempt < 5 else 0
            done = subprocess.run(
                [sys.executable, "-I", "-c", PROGRAM, str(MODULE_UTILS), str(tmp_path), subformat, str(die)],
                check=False,
                capture_output=True,
                text=True,
            )
            if done.returncode == 0:
                expected = max(2, int(done.stdout.split()[0]))
                break
            assert done.returncode == -9, done.stderr
            kills += 1
        with open_disk(str(tmp_path / "target.vmdk")) as disk:
            assert disk.read(0, SIZE) == (tmp_path / "source").read_bytes()
            list(disk.extents())
    assert kills
    left = sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("target") and not p.name.endswith(("target.vmdk", "-flat.vmdk")))
    assert left == [] or os.path.basename(left[0]).startswith("target.vmdk.")
