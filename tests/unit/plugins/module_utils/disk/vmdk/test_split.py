# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks of several files: split ones and vmfs; they appear together, and an older disk's files go."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput, SinkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Sink
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk import split_writer, staging
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.base import Identity
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.split_writer import SplitWriter, part_sizes

from .conftest import GRAIN, Disks

SIZE = 40 * GRAIN + 1024
SPLIT = ("twoGbMaxExtentSparse", "twoGbMaxExtentFlat")


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extents of 10 grains instead of 2 GiB."""
    monkeypatch.setattr(split_writer, "SPARSE_PART", 10 * GRAIN)
    monkeypatch.setattr(split_writer, "FLAT_PART", 10 * GRAIN)


def test_sizes_of_extents() -> None:
    gib = 1 << 30
    assert part_sizes(5 * gib, sparse=True) == [2047 << 20, 2047 << 20, 5 * gib - 2 * (2047 << 20)]
    assert part_sizes(2 * gib + 512, sparse=False) == [4193792 * 512, 2 * gib + 512 - 4193792 * 512]
    assert part_sizes(0, sparse=True) == [0]
    assert len(part_sizes(62 << 40, sparse=True)) < 40000
    # A full sparse extent, its tables with it, is a file that 32 bits can address.
    assert (2047 << 20) + 2 * 64 * 2048 + 65536 < 1 << 31


@pytest.mark.parametrize("format", SPLIT)
def test_descriptor_of_a_split_disk(disks: Disks, format: str, small: None) -> None:
    convert(str(disks.raw(SIZE)), str(disks.folder / "d.vmdk"), format=format)
    letter, kind, tail = ("s", "SPARSE", "") if "Sparse" in format else ("f", "FLAT", " 0")
    lines = [line for line in (disks.folder / "d.vmdk").read_text().splitlines() if line.startswith("RW")]
    want = [f'RW 1280 {kind} "d-{letter}{n:03d}.vmdk"{tail}' for n in range(1, 5)] + [f'RW 2 {kind} "d-{letter}005.vmdk"{tail}']
    assert lines == want
    if letter == "f":
        assert [(disks.folder / f"d-f{n:03d}.vmdk").stat().st_size for n in range(1, 6)] == [10 * GRAIN] * 4 + [1024]


@pytest.mark.parametrize("format", SPLIT)
def test_others_read_a_disk_of_many_extents(disks: Disks, format: str, small: None) -> None:
    raw, path = disks.raw(SIZE, pieces=20), disks.folder / "d.vmdk"
    convert(str(raw), str(path), format=format)
    want = disks.sha(raw)
    assert disks.ours(path) == disks.by_qemu(path) == disks.by_dissect(path) == disks.by_libvmdk(path) == want


def test_vmfs(disks: Disks) -> None:
    raw, path = disks.raw(SIZE), disks.folder / "d.vmdk"
    convert(str(raw), str(path), format="vmfs", adapter_type="pvscsi", hw_version=17)
    text = path.read_text()
    assert f'RW {SIZE // 512} VMFS "d-flat.vmdk"\n' in text and 'createType="vmfs"' in text
    assert 'ddb.thinProvisioned = "1"' in text and 'ddb.adapterType = "pvscsi"' in text and 'ddb.virtualHWVersion = "17"' in text
    assert "ddb.uuid" in text and "ddb.longContentID" in text
    want = disks.sha(raw)
    assert disks.sha(disks.folder / "d-flat.vmdk") == disks.ours(path) == disks.by_qemu(path) == disks.by_dissect(path) == want
    assert disks.by_libvmdk(path) == want
    convert(str(raw), str(path), format="vmfs", thin=False, force=True)
    assert "thinProvisioned" not in path.read_text()
    assert (disks.folder / "d-flat.vmdk").stat().st_blocks * 512 >= SIZE


@pytest.mark.parametrize("sparse", [True, False])
def test_ranges_in_any_order_and_few_open_files(disks: Disks, small: None, monkeypatch: pytest.MonkeyPatch, sparse: bool) -> None:
    monkeypatch.setattr(split_writer, "_OPEN", 2)
    size = 83 * GRAIN + 1536
    places = [(str(disks.folder / f"w-{n}.vmdk"), f"w-{n}.vmdk") for n in range(9)]
    sink = SplitWriter(str(disks.folder / "w.vmdk"), places.__getitem__, size, Identity(), sparse=sparse)
    assert isinstance(sink, Sink) and sink.reads_zero
    want = bytearray(size)
    rng = random.Random(5)
    cuts = sorted({0, size, *(rng.randrange(size) for _n in range(80))})
    ranges = list(zip(cuts, cuts[1:], strict=False))
    rng.shuffle(ranges)

    def write(piece: tuple[int, int]) -> None:
        start, end = piece
        data = random.Random(start).randbytes(end - start) if start % 3 else bytes(end - start)
        want[start:end] = data
        sink.write(start, data)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, ranges))
    sink.zero(5 * GRAIN - 100, 20 * GRAIN)
    want[5 * GRAIN - 100 : 25 * GRAIN - 100] = bytes(20 * GRAIN)
    sink.flush()
    assert sink.read(0, size) == want
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SinkError):
        sink.write(size, b"x")
    sink.finish()
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    sink.close()
    with open_disk(str(disks.folder / "w.vmdk")) as disk:
        assert disk.read(0, size) == want and disk.problems == []


@pytest.mark.parametrize("first", ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "monolithicFlat", "vmfs"])
@pytest.mark.parametrize("second", ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "monolithicSparse", "raw", "vmfs"])
def test_files_of_an_older_disk_go(disks: Disks, first: str, second: str, small: None) -> None:
    raw, other = disks.raw(SIZE), disks.raw(SIZE - 15 * GRAIN, name="other.raw", seed=2)
    dest = disks.folder / "d.vmdk"
    (disks.folder / "d-s099.vmdk").write_bytes(b"not named by any descriptor")
    (disks.folder / "e-flat.vmdk").write_bytes(b"of another disk")
    convert(str(raw), str(dest), format=first)
    convert(str(other), str(dest), format=second, force=True)
    names = {"d-s099.vmdk", "e-flat.vmdk", "src.raw", "other.raw", "d.vmdk"}
    if second in SPLIT:
        names |= {f"d-{'s' if 'Sparse' in second else 'f'}{n:03d}.vmdk" for n in range(1, 4)}
    elif second == "vmfs":
        names.add("d-flat.vmdk")
    assert set(listing(disks.folder)) == names
    if second == "raw":
        assert disks.sha(dest) == disks.sha(other)
    else:
        assert disks.ours(dest) == disks.sha(other)


def test_an_extent_that_belongs_to_nobody_is_not_overwritten(disks: Disks) -> None:
    raw = disks.raw(SIZE)
    stranger = disks.folder / "d-flat.vmdk"
    stranger.write_bytes(b"somebody's data")
    for check in (True, False):
        with pytest.raises(BadInput, match="something else"):
            convert(str(raw), str(disks.folder / "d.vmdk"), format="monolithicFlat", check=check)
    assert stranger.read_bytes() == b"somebody's data" and listing(disks.folder) == ["d-flat.vmdk", "src.raw"]
    assert convert(str(raw), str(disks.folder / "d.vmdk"), format="monolithicFlat", force=True)["changed"]


def test_a_lost_descriptor_or_extent_is_mended(disks: Disks, small: None) -> None:
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    for format in (*SPLIT, "vmfs"):
        convert(str(raw), str(dest), format=format)
        for name in listing(disks.folder):
            if name.startswith("d"):
                (disks.folder / name).unlink()
                assert convert(str(raw), str(dest), format=format)["changed"], name
                assert disks.ours(dest) == disks.sha(raw)
                assert not convert(str(raw), str(dest), format=format)["changed"]
        for path in disks.folder.glob("d*.vmdk"):
            path.unlink()


@pytest.mark.parametrize("format", [*SPLIT, "vmfs"])
def test_extents_of_the_same_size_and_other_content_are_not_ours(disks: Disks, format: str, small: None) -> None:
    raw, other, dest = disks.raw(SIZE), disks.raw(SIZE, name="other.raw", seed=2), disks.folder / "d.vmdk"
    convert(str(other), str(dest), format=format)
    dest.unlink()
    before = {p.name: p.read_bytes() for p in disks.folder.glob("d-*")}
    for check in (True, False):
        with pytest.raises(BadInput, match="something else"):
            convert(str(raw), str(dest), format=format, check=check)
    if format in SPLIT:
        next(disks.folder.glob("d-?003.vmdk")).unlink()
        with pytest.raises(BadInput, match="something else"):
            convert(str(other), str(dest), format=format)
    assert all((disks.folder / name).read_bytes() == data for name, data in before.items() if "003" not in name)
    convert(str(raw), str(dest), format=format, force=True)
    assert disks.ours(dest) == disks.sha(raw)


@pytest.mark.parametrize("same", [True, False])
def test_a_journal_of_the_present_disk_harms_nothing(disks: Disks, small: None, same: bool) -> None:
    """A run was killed when all was in its place, but for its journal: an in-place change keeps the disk's files."""
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    convert(str(raw), str(dest), format="twoGbMaxExtentSparse", adapter_type="ide")
    names = [n for n in listing(disks.folder) if n.startswith("d-")]
    (disks.folder / "d-f001.vmdk").write_bytes(b"of the disk before")
    (disks.folder / ".d.vmdk.ferry-journal").write_text("\n".join([*names, "d-f001.vmdk"]) + "\n")
    src = dest if same else raw
    assert convert(str(src), str(dest), format="twoGbMaxExtentSparse", adapter_type="pvscsi")["bytes_in"] == 0
    assert listing(disks.folder) == sorted([*names, "d.vmdk", "src.raw"])
    assert disks.ours(dest) == disks.sha(raw)


def test_a_journal_that_names_the_source(disks: Disks) -> None:
    """What a killed run left may be what is now converted: it is not removed as a left-over."""
    raw = disks.raw(SIZE, name="d-flat.vmdk")
    (disks.folder / ".d.vmdk.ferry-journal").write_text("d-flat.vmdk\n")
    want = disks.sha(raw)
    convert(str(raw), str(disks.folder / "d.vmdk"), format="monolithicSparse")
    assert disks.sha(raw) == want == disks.ours(disks.folder / "d.vmdk")
    assert listing(disks.folder) == ["d-flat.vmdk", "d.vmdk"]


@pytest.mark.parametrize("name", ['a"b.vmdk', "a\nb.vmdk", "nbd:x.vmdk", "a\\b.vmdk", "a\udc80.vmdk", " a.vmdk"])
def test_names_that_a_descriptor_cannot_hold(disks: Disks, name: str) -> None:
    raw = disks.raw(SIZE)
    with pytest.raises(BadInput, match="name of dest"):
        convert(str(raw), str(disks.folder / name), format="vmfs")
    assert listing(disks.folder) == ["src.raw"]
    convert(str(raw), str(disks.folder / name), format="streamOptimized")
    assert disks.ours(disks.folder / name) == disks.sha(raw)


KILLED = """
import os, signal, sys
from disk.vmdk import convert, staging, split_writer
split_writer.SPARSE_PART = 10 * 65536
at = int(sys.argv[4])
count = 0
def wrapped(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for name in ("replace", "unlink", "fsync"):
    setattr(os, name, wrapped(getattr(os, name)))
convert.convert(sys.argv[1], sys.argv[2], format=sys.argv[3], force=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), [("twoGbMaxExtentSparse", "twoGbMaxExtentSparse"), ("monolithicFlat", "vmfs")])
def test_a_kill_at_any_step(disks: Disks, top: Path, old: str, new: str, small: None) -> None:
    """Whatever step a run is killed at: the old disk, the new disk or none is there, never a mixture; the next run goes on."""
    a, b = disks.raw(SIZE, name="a.raw"), disks.raw(SIZE - 15 * GRAIN, name="b.raw", seed=2)
    dest = disks.folder / "d.vmdk"
    want = {disks.sha(a), disks.sha(b)}
    env = {**os.environ, "PYTHONPATH": str(top / "plugins/module_utils")}
    finished = False
    seen = set()
    for step in range(1, 80):
        for name in listing(disks.folder):
            if name not in ("a.raw", "b.raw"):
                (disks.folder / name).unlink()
        convert(str(a), str(dest), format=old)
        done = subprocess.run([sys.executable, "-c", KILLED, str(b), str(dest), new, str(step)], env=env, check=False)
        if dest.exists():
            found = disks.ours(dest)
            assert found in want, step
            seen.add(found)
        assert convert(str(b), str(dest), format=new, force=dest.exists())["digest"]
        assert disks.ours(dest) == disks.sha(b), step
        left = [n for n in listing(disks.folder) if n not in ("a.raw", "b.raw", "d.vmdk")]
        assert left == (["d-flat.vmdk"] if new == "vmfs" else [f"d-s{n:03d}.vmdk" for n in range(1, 4)]), (step, left)
        if done.returncode == 0:
            finished = True
            break
        assert done.returncode == -signal.SIGKILL
    assert finished and seen == want


def test_left_overs_of_a_larger_killed_run(disks: Disks, small: None) -> None:
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    for role in ("new", "raw", "spool", "part0", "part77", "src"):
        (disks.folder / f".d.vmdk.ferry-{role}").write_bytes(b"old")
    convert(str(raw), str(dest), format="monolithicSparse")
    assert listing(disks.folder) == ["d.vmdk", "src.raw"]


def test_a_journal_names_nothing_else(disks: Disks) -> None:
    """A journal in a folder that others write leads to no file but a disk's own."""
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    (disks.folder / "victim").write_bytes(b"v")
    (disks.folder / "sub").mkdir()
    (disks.folder / "sub" / "d-s001.vmdk").write_bytes(b"v")
    (disks.folder / "d-s001.vmdk").write_bytes(b"stale")
    (disks.folder / ".d.vmdk.ferry-journal").write_text("victim\nsub/d-s001.vmdk\n../x\nd-s001.vmdk\n")
    convert(str(raw), str(dest), format="monolithicSparse")
    assert listing(disks.folder) == ["d.vmdk", "src.raw", "sub", "victim"]
    assert listing(disks.folder / "sub") == ["d-s001.vmdk"]
    assert staging.own_name("d-s0001.vmdk", "d.vmdk") and not staging.own_name("dd-s001.vmdk", "d.vmdk")


def test_no_room_is_told_first(disks: Disks, monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    raw = disks.raw(SIZE)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SinkError, match="No room"):
        convert(str(raw), str(disks.folder / "d.vmdk"), format="twoGbMaxExtentFlat", thin=False)
    assert listing(disks.folder) == ["src.raw"]
