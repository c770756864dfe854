# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""VMDK conversions beside qemu-img, in turns, on a disk with a real file system; the median counts.

Every output is compared with the source before a figure is written. Writes build/bench/vmdk.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / "build"
#: Where files for the file system come from.
FILES = (Path("/usr/lib"), Path("/usr/share"))
MIB = 1 << 20


def make_disk(path: Path, size: int, percent: int) -> None:
    """A raw disk of C(size) bytes with an ext4 of real files, C(percent) of it data."""
    wanted = size * percent // 100
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        taken = count = 0
        for top in FILES:
            for file in sorted(top.rglob("*")):
                if taken >= wanted - MIB:
                    break
                # A file larger than what is left would make a small disk much fuller than was asked for.
                if file.is_file() and not file.is_symlink() and os.access(file, os.R_OK) and file.stat().st_size <= wanted - taken:
                    shutil.copyfile(file, Path(folder) / f"{count:06d}-{file.name}"[:200])
                    taken += file.stat().st_size
                    count += 1
        with path.open("wb") as out:
            out.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-d", folder, str(path)], check=True)


def ours(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "disk.vmdk", *arguments]


def durable(*command: str) -> list[str]:
    """C(command) SRC DEST so that a power failure does not take DEST away again, which is what we promise."""
    return ["sh", "-c", f'{" ".join(command)} "$1" "$2" && sync "$2"', " ".join([*command, "and sync"])]


def run(command: list[str]) -> float:
    """Seconds that C(command) takes."""
    env = {**os.environ, "PYTHONPATH": str(TOP / "plugins" / "module_utils")}
    os.sync()  # cp and qemu-img leave what they wrote to the kernel: that must not be written while the next one is measured
    began = time.monotonic()
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def in_turns(rounds: int, one: Callable[[], float], other: Callable[[], float]) -> tuple[float, float]:
    """Medians of C(one) and C(other), run alternately."""
    a, b = [], []
    for _ in range(rounds):
        a.append(one())
        b.append(other())
    return statistics.median(a), statistics.median(b)


def same(a: Path, b: Path) -> None:
    subprocess.run(["cmp", "-s", str(a), str(b)], check=True)


def conversion(
    work: str, rounds: int, src: Path, fmt: str, peer: list[str], goal: float, folder: Path, raw: Path
) -> list[dict[str, object]]:
    """The row of one conversion."""
    mine, theirs = folder / "mine", folder / "theirs"

    def we() -> float:
        mine.unlink(missing_ok=True)
        return run(ours("convert", str(src), str(mine), "--format", fmt, "--force"))

    def they() -> float:
        theirs.unlink(missing_ok=True)
        return run([*peer, str(src), str(theirs)])

    a, b = in_turns(rounds, we, they)
    back = folder / "back"
    if fmt == "raw":
        same(mine, raw)
    else:
        run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(mine), str(back)])
        same(back, raw)
        back.unlink()
    rows: list[dict[str, object]] = [
        {
            "work": work,
            "peer": peer[-1] if peer[0] == "sh" else " ".join(peer),
            "ours_value": a,
            "peer_value": b,
            "unit": "s",
            "ratio": round(b / a, 2),
            "goal": goal,
        }
    ]
    mine.unlink()
    theirs.unlink()
    return rows


def streams(rounds: int, raw: Path, peer: list[str], folder: Path) -> list[dict[str, object]]:
    """Rows for raw to streamOptimized: time and size of three of our levels beside the one that the peer has."""
    goals = {1: (15.0, 0.95), 3: (4.0, 0.95), 6: (4.0, 1.0)}
    mine, theirs, back = folder / "mine", folder / "theirs", folder / "back"
    seconds: dict[int, list[float]] = {level: [] for level in (*goals, 0)}
    sizes: dict[int, int] = {}
    for number in range(rounds):
        for level in goals:
            mine.unlink(missing_ok=True)
            command = ours("convert", str(raw), str(mine), "--format", "streamOptimized", "--compression-level", str(level))
            seconds[level].append(run(command))
            sizes[level] = mine.stat().st_size
            if not number:
                run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(mine), str(back)])
                same(back, raw)
                back.unlink()
        theirs.unlink(missing_ok=True)
        seconds[0].append(run([*peer, str(raw), str(theirs)]))
        sizes[0] = theirs.stat().st_size
    rows: list[dict[str, object]] = []
    for level, (fast, small) in goals.items():
        work, b = f"raw to streamOptimized, level {level}", statistics.median(seconds[0])
        a = statistics.median(seconds[level])
        row = {"work": work, "peer": " ".join(peer), "ours_value": a, "peer_value": b, "unit": "s", "ratio": round(b / a, 2), "goal": fast}
        size = {"ours_value": sizes[level], "peer_value": sizes[0], "unit": "B", "ratio": round(sizes[0] / sizes[level], 3), "goal": small}
        rows += [row, {"work": f"{work}, size", "peer": " ".join(peer), **size}]
    mine.unlink()
    theirs.unlink()
    return rows


def peak(command: list[str]) -> int:
    """Bytes of memory that C(command) holds at most."""
    env = {**os.environ, "PYTHONPATH": str(TOP / "plugins" / "module_utils")}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    _pid, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    return used.ru_maxrss * 1024


def of_huge(folder: Path) -> list[dict[str, object]]:
    """Peak memory with a disk of 2 TiB: 64 KiB of data in every 8 GiB, and 1 GiB of data at its end."""
    huge = folder / "huge.raw"
    block = os.urandom(MIB)
    with huge.open("wb") as out:
        out.truncate(2 << 40)
        for at in range(0, 2 << 40, 8 << 30):
            out.seek(at)
            out.write(block[: 64 << 10])
        for at in range((2 << 40) - (1 << 30), 2 << 40, MIB):
            out.seek(at)
            out.write(block)
    rows: list[dict[str, object]] = []
    for fmt in ("streamOptimized", "monolithicSparse"):
        there, back = folder / f"huge-{fmt}.vmdk", folder / "huge-back.raw"
        for work, command in (
            (f"2 TiB raw to {fmt}, peak memory", ours("convert", str(huge), str(there), "--format", fmt)),
            (f"2 TiB {fmt} to raw, peak memory", ours("convert", str(there), str(back), "--format", "raw")),
        ):
            used = peak(command)
            rows.append(
                {
                    "work": work,
                    "peer": "200 MiB",
                    "ours_value": used,
                    "peer_value": 200 * MIB,
                    "unit": "B",
                    "ratio": round(200 * MIB / used, 2),
                    "goal": 1.0,
                }
            )
        back.unlink()
        there.unlink()
    huge.unlink()
    return rows


def of_many(rounds: int, count: int, folder: Path) -> list[dict[str, object]]:
    """Facts of many files: one Python process beside a shell loop of qemu-img, and beside dissect.hypervisor."""
    many = folder / "many"
    many.mkdir()
    small = folder / "small.raw"
    with small.open("wb") as out:
        out.truncate(64 * MIB)
        out.write(b"x" * MIB)
    run(ours("convert", str(small), str(many / "0.vmdk"), "--format", "streamOptimized"))
    for i in range(1, count):
        shutil.copyfile(many / "0.vmdk", many / f"{i}.vmdk")
    program = "import sys, glob; from disk.vmdk.info import inspect\nfor f in glob.glob(sys.argv[1] + '/*.vmdk'): inspect(f)"
    loop = f"for f in {many}/*.vmdk; do qemu-img info $f; done"
    dissect = (
        "import sys, glob, pathlib; from dissect.hypervisor.disk.vmdk import VMDK\n"
        "for f in glob.glob(sys.argv[1] + '/*.vmdk'): VMDK(pathlib.Path(f)).size"
    )
    rows: list[dict[str, object]] = []
    for peer, command, goal in (
        ("qemu-img info in a loop", ["sh", "-c", loop], 20.0),
        ("dissect.hypervisor, opened, for the size alone", [sys.executable, "-c", dissect, str(many)], 1.0),
    ):
        a, b = in_turns(rounds, lambda: run([sys.executable, "-c", program, str(many)]), lambda: run(command))  # noqa: B023 - called here
        rows.append(
            {
                "work": f"info of {count} files",
                "peer": peer,
                "ours_value": a,
                "peer_value": b,
                "unit": "s",
                "ratio": round(b / a, 2),
                "goal": goal,
            }
        )
    return rows


def measure(folder: Path, size: int, percent: int, rounds: int, files: int, only: list[str]) -> list[dict[str, object]]:
    raw = folder / "disk.raw"
    make_disk(raw, size, percent)
    qemu = ["qemu-img", "convert", "-W", "-m", "8"]
    to_stream = [*qemu, "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "-c"]
    to_sparse = [*qemu, "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicSparse"]
    to_raw = [*qemu, "-f", "vmdk", "-O", "raw"]
    stream, sparse, flat = folder / "stream.vmdk", folder / "sparse.vmdk", folder / "flat.vmdk"
    for path, fmt in ((stream, "streamOptimized"), (sparse, "monolithicSparse"), (flat, "monolithicFlat")):
        run(ours("convert", str(raw), str(path), "--format", fmt))
    flat_raw = folder / "flat-flat.vmdk"
    steps: dict[str, Callable[[], list[dict[str, object]]]] = {
        "streams": lambda: streams(rounds, raw, to_stream, folder),
        "unpack": lambda: conversion("streamOptimized to raw", rounds, stream, "raw", to_raw, 3.0, folder, raw),
        "sparse": lambda: (
            conversion("raw to monolithicSparse", rounds, raw, "monolithicSparse", to_sparse, 1.5, folder, raw)
            + conversion("monolithicSparse to raw", rounds, sparse, "raw", to_raw, 1.5, folder, raw)
            + conversion("monolithicSparse to raw, durable", rounds, sparse, "raw", durable(*to_raw), 1.5, folder, raw)
        ),
        "flat": lambda: (
            conversion("flat to raw", rounds, flat_raw, "raw", ["cp", "--sparse=always"], 0.95, folder, raw)
            # what we promise: that the data are on the device
            + conversion("flat to raw, durable", rounds, flat_raw, "raw", durable("cp", "--sparse=always"), 0.95, folder, raw)
        ),
        "many": lambda: of_many(rounds, files, folder),
        "huge": lambda: of_huge(folder),
    }
    rows: list[dict[str, object]] = []
    for name, step in steps.items():
        if not only or name in only:
            rows += step()
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096, help="MiB of disk")
    parser.add_argument("--percent", type=int, default=30, help="of it data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--only", action="append", default=[], help="streams, unpack, sparse, flat, many or huge; may be given again")
    args = parser.parse_args()
    out = BUILD / "bench" / "vmdk.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        rows = measure(Path(folder), args.size * MIB, args.percent, args.rounds, args.files, args.only)
    out.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    for row in rows:
        print(
            f"{row['work']:42} {row['ours_value']:>12.4g} {row['peer_value']:>12.4g} {row['unit']:2} {row['ratio']:>7}x (goal {row['goal']})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
