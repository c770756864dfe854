# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Seeded damage to every variant: refused or read right, never another exception, never wrong bytes.

FERRY_FUZZ_COUNT and FERRY_FUZZ_SEED (environment) make it longer, and another.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk import structs
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert

from .conftest import GRAIN, Disks

SIZE = 80 * GRAIN + 77 * 512
_BYTES = (0, 1, 2, 0x7F, 0x80, 0xFF)


def damaged(data: bytes, limit: int, rng: random.Random) -> tuple[bytes, list[object]]:
    """C(data) with something wrong in its first C(limit) bytes (cut, longer, bytes, numbers, copies, zeroes), and what."""
    out = bytearray(data)
    if rng.random() < 0.1:
        cut = rng.choice([0, 1, 79, 511, 512, 513, rng.randrange(len(out)), len(out) - 1, len(out) - 512, max(0, len(out) - 1024)])
        return bytes(out[:cut]), ["cut", cut]
    if rng.random() < 0.06:
        extra = rng.randbytes(rng.choice([1, 512, 70000]))
        return bytes(out) + extra, ["longer by", len(extra)]
    told: list[object] = []
    for _n in range(rng.choice([1, 1, 1, 2, 4])):
        zone = rng.random()
        top = min(80, limit) if zone < 0.35 else min(2048, limit) if zone < 0.6 else limit
        at = rng.randrange(top) if zone < 0.9 else limit - 1 - rng.randrange(min(limit, 4096))
        way = rng.random()
        if way < 0.5:
            out[at] = rng.choice(_BYTES) if rng.random() < 0.5 else rng.randrange(256)
            told += ["byte", at, out[at]]
            continue
        at &= ~3
        if way < 0.75:
            value = rng.choice(
                [0, 1, 2, 0xFFFFFFFF, 0x7FFFFFFF, len(out) // 512, rng.randrange(1 << 32), rng.randrange(len(out) // 512 + 1)]
            )
            out[at : at + 4] = value.to_bytes(4, "little")
            told += ["number", at, value]
        elif way < 0.9:
            other = rng.randrange(limit) & ~3
            out[at : at + 4] = out[other : other + 4]
            told += ["copy", at, other]
        else:
            length = len(out[at : at + rng.choice([4, 64, 512, 2048])])
            out[at : at + length] = bytes(length)
            told += ["zeroes", at, length]
    return bytes(out), told


def variants(disks: Disks) -> list[tuple[Path, Path, int]]:
    """(disk, file to damage, bytes at its begin where damage can be seen: data in flat and plain grains has no checksum)."""
    raw = disks.raw(SIZE, pieces=14)
    found: list[tuple[Path, Path, int]] = []
    for format in ("streamOptimized", "monolithicSparse", "monolithicFlat"):
        path = disks.folder / f"{format}.vmdk"
        convert(str(raw), str(path), format=format)
        found.append((path, path, path.stat().st_size))
    if shutil.which("qemu-img"):
        for subformat in ("monolithicSparse", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"):
            path = disks.qemu(raw, subformat)
            found.append((path, path, path.stat().st_size))
            part = path.with_name(path.stem + "-s001.vmdk")
            if part.exists():
                found.append((path, part, part.stat().st_size))
    return [
        (p, f, structs.unpack_header(f.read_bytes()[:512], "x").overhead * 512 if "Sparse" in f.name and size > 65536 else size)
        for p, f, size in found
    ]


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_damage(disks: Disks, count: int) -> None:
    rng = random.Random(int(os.environ.get("FERRY_FUZZ_SEED", 20261121 + count)))
    files = variants(disks)
    want = disks.sha(disks.folder / "src.raw")
    wrong: list[str] = []
    refused = 0
    for _n in range(int(os.environ.get("FERRY_FUZZ_COUNT", count))):
        path, file, limit = rng.choice(files)
        whole = file.read_bytes()
        data, told = damaged(whole, limit, rng)
        file.write_bytes(data)
        try:
            if disks.ours(path) != want:
                wrong.append(f"{file.name}: {told}: other bytes")
        except VmdkError:
            refused += 1
        except Exception as e:  # noqa: BLE001 - whatever it is, it is what is looked for
            wrong.append(f"{file.name}: {told}: {type(e).__name__}: {e}")
        finally:
            file.write_bytes(whole)
    assert not wrong
    assert refused > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20
