# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The matrix: what we write, qemu-img, dissect.hypervisor and libvmdk read; what qemu-img writes, we read. By SHA-256.

Cells that are left out, because the peer is wrong or cannot:

- qemu-img and libvmdk open no disk of 0 bytes, not even one of their own making; dissect.hypervisor divides by its size.
- dissect.hypervisor and libvmdk ignore the offset in a FLAT line. We write none but 0, so their cells stay.
- qemu-img writes no C(vmfs).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import SECTOR, Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk, open_raw

from .conftest import GRAIN, Disks

OURS = ("streamOptimized", "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "vmfs")
THEIRS = OURS[:-1]
ODD = GRAIN * 512 + 777 * SECTOR
#: The formats whose own limits a large disk meets; make test-unit-long has all.
LARGE = [f if f == "streamOptimized" else pytest.param(f, marks=pytest.mark.long) for f in OURS]
HUGE = [f if not f.startswith("twoGb") else pytest.param(f, marks=pytest.mark.long) for f in OURS]
CASES = [
    (SECTOR, "empty"),
    (SECTOR, "full"),
    (3 * SECTOR, "full"),
    (129 * SECTOR, "full"),
    (ODD, "mixed"),
    (ODD, "empty"),
    (33 << 20, "zeroes"),
    (5 << 20, "full"),
]


def file_system(disks: Disks) -> Path:
    """A real ext4 file system with real files."""
    path, files = disks.folder / "fs.raw", disks.folder / "files"
    (files / "sub").mkdir(parents=True)
    rng = random.Random(11)
    for n in range(60):
        (files / f"text{n}").write_text(f"line {n}\n" * rng.randrange(20_000))
        (files / "sub" / f"random{n}").write_bytes(rng.randbytes(rng.randrange(300_000)))
    with path.open("wb") as out:
        out.truncate(64 << 20)
    disks.run("mkfs.ext4", "-q", "-F", "-d", str(files), str(path))
    return path


def two_gib_and_a_sector(disks: Disks) -> Path:
    """Data on both sides of each place where a split disk may be cut, and in the last sector."""
    size = (2 << 30) + SECTOR
    path, rng = disks.folder / "src.raw", random.Random(12)
    with path.open("wb") as out:
        out.truncate(size)
        for at in (0, 4192256 * SECTOR - 700, 4193792 * SECTOR - 700, (2 << 30) - 700, size - 100):
            out.seek(at)
            out.write(rng.randbytes(min(1400, size - at)))
    return path


def all_read(disks: Disks, path: Path, want: str) -> None:
    assert disks.ours(path) == want
    assert disks.by_qemu(path) == want
    assert disks.by_dissect(path) == want
    assert disks.by_libvmdk(path) == want


@pytest.mark.parametrize("format", OURS)
@pytest.mark.parametrize(("size", "content"), CASES)
def test_they_read_ours(disks: Disks, format: str, size: int, content: str) -> None:
    raw, path = disks.raw(size, content=content), disks.folder / "ours.vmdk"
    convert(str(raw), str(path), format=format)
    all_read(disks, path, disks.sha(raw))


@pytest.mark.parametrize("format", OURS)
def test_an_empty_disk(disks: Disks, format: str) -> None:
    raw, path = disks.raw(0), disks.folder / "ours.vmdk"
    first = convert(str(raw), str(path), format=format)
    assert first["capacity"] == 0 and disks.ours(path) == hashlib.sha256().hexdigest()
    assert not convert(str(raw), str(path), format=format)["changed"]
    assert convert(str(path), str(disks.folder / "back.raw"), format="raw")["digest"] == first["digest"]


@pytest.mark.parametrize("adapter", ["ide", "buslogic", "lsilogic"])
@pytest.mark.parametrize("subformat", THEIRS)
@pytest.mark.parametrize(
    ("size", "content"), [(SECTOR, "full"), (129 * SECTOR, "full"), (ODD, "mixed"), (ODD, "empty"), (9 << 20, "zeroes")]
)
def test_we_read_theirs(disks: Disks, subformat: str, adapter: str, size: int, content: str) -> None:
    raw = disks.raw(size, content=content)
    path = disks.qemu(raw, subformat, adapter=adapter)
    assert disks.ours(path) == disks.sha(raw)
    with open_disk(str(path)) as disk:
        assert (disk.info.create_type, disk.info.adapter_type) == (subformat, adapter)


@pytest.mark.parametrize("format", OURS)
def test_a_real_file_system(disks: Disks, format: str) -> None:
    """There and back through each format, and through theirs: to the byte, and the file system is clean."""
    raw, path, back = file_system(disks), disks.folder / "ours.vmdk", disks.folder / "back.raw"
    convert(str(raw), str(path), format=format)
    want = disks.sha(raw)
    all_read(disks, path, want)
    convert(str(path), str(back), format="raw")
    assert disks.sha(back) == want
    disks.run("e2fsck", "-fn", str(back))
    if format in THEIRS:
        assert disks.ours(disks.qemu(raw, format)) == want


@pytest.mark.slow
@pytest.mark.parametrize("format", LARGE)
def test_two_gib_and_a_sector(disks: Disks, format: str) -> None:
    raw, path = two_gib_and_a_sector(disks), disks.folder / "ours.vmdk"
    first = convert(str(raw), str(path), format=format)
    want = disks.sha(raw)
    assert disks.by_qemu(path) == want
    assert disks.by_libvmdk(path) == want
    ranges = data_of(raw)
    by_dissect(path, raw, ranges)
    assert convert(str(path), str(disks.folder / "back.raw"), format="raw", checksum="sha256")["checksum"] == f"sha256:{want}"
    if format in THEIRS:
        theirs = disks.qemu(raw, format)
        assert convert(str(theirs), str(disks.folder / "theirs.raw"), format="raw")["digest"] == first["digest"]


def data_of(raw: Path) -> list[tuple[int, int]]:
    """(start, length) of what is data in a raw file."""
    with open_raw(str(raw)) as disk:
        return [(e.start, e.length) for e in disk.extents() if e.kind is Kind.DATA]


def by_dissect(path: Path, raw: Path, ranges: list[tuple[int, int]]) -> None:
    vmdk: Any = pytest.importorskip("dissect.hypervisor.disk.vmdk")
    with path.open("rb") as f, raw.open("rb") as want:
        disk = vmdk.VMDK(f)
        assert disk.size == raw.stat().st_size
        for start, length in ranges:
            want.seek(start)
            assert disk.read_sectors(start // SECTOR, length // SECTOR) == want.read(length)
        for part in disk.disks:
            part.fh.close()


def by_libvmdk(path: Path, raw: Path, ranges: list[tuple[int, int]]) -> None:
    pytest.importorskip("pyvmdk")
    handle: Any = importlib.import_module("pyvmdk").handle()
    handle.open(str(path))
    handle.open_extent_data_files()
    assert handle.get_media_size() == raw.stat().st_size
    with raw.open("rb") as want:
        for start, length in ranges:
            want.seek(start)
            assert handle.read_buffer_at_offset(length, start) == want.read(length)
    handle.close()


def by_qemu(disks: Disks, path: Path, raw: Path, ranges: list[tuple[int, int]]) -> None:
    """It has the disk's size, and what it reads at each range is the same. (To convert or to map all of it takes it minutes.)"""
    out = subprocess.run(["qemu-img", "info", "--output=json", "-f", "vmdk", str(path)], capture_output=True, check=True).stdout
    assert json.loads(out)["virtual-size"] == raw.stat().st_size
    piece = disks.folder / "piece"
    with raw.open("rb") as want:
        for start, length in ranges:
            count = [f"skip={start // SECTOR}", f"count={start // SECTOR + length // SECTOR}"]
            disks.run("qemu-img", "dd", "-f", "vmdk", "-O", "raw", "bs=512", *count, f"if={path}", f"of={piece}")
            want.seek(start)
            assert piece.read_bytes()[:length] == want.read(length)


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """C(ranges) widened to whole grains."""
    return [(start // GRAIN * GRAIN, -(-(start + length) // GRAIN) * GRAIN - start // GRAIN * GRAIN) for start, length in ranges]


@pytest.mark.slow
@pytest.mark.parametrize("format", HUGE)
def test_five_tib(disks: Disks, format: str) -> None:
    """5 TiB and a sector, sparse: by maps and by what is allocated, for nobody reads all of it."""
    size = (5 << 40) + SECTOR
    raw, rng = disks.folder / "src.raw", random.Random(13)
    with raw.open("wb") as out:
        out.truncate(size)
        for at in (0, (2 << 40) - GRAIN, 3 << 40, (4 << 40) + 4096, (5 << 40) - (1 << 20), size - SECTOR):
            out.seek(at)
            out.write(rng.randbytes(min(3 * GRAIN, size - at)))
    ranges = data_of(raw)
    path = disks.folder / "ours.vmdk"
    first = convert(str(raw), str(path), format=format)
    assert first["capacity"] == size and sum(p.stat().st_blocks for p in disks.folder.iterdir()) * SECTOR < 2 << 30
    with open_disk(str(path)) as disk:
        at = 0
        for e in disk.extents():
            assert e.start == at
            at = e.end
            if e.kind is Kind.DATA:
                assert any(a < e.end and e.start < a + n for a, n in merged(ranges))
        assert at == size
    assert convert(str(path), str(disks.folder / "back.raw"), format="raw")["digest"] == first["digest"]
    by_qemu(disks, path, raw, ranges)
    by_dissect(path, raw, ranges)
    by_libvmdk(path, raw, ranges)
