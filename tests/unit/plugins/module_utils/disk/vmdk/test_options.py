# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each option of a conversion, and the sizes that check mode predicts."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput, VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk import split_writer
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.geometry import chs
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.outputs import FORMATS
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk

from .conftest import GRAIN, Disks

SIZE = 40 * GRAIN + 1024
VMDKS = [f for f in FORMATS if f not in ("raw", "qcow2")]
ADAPTERS = ("ide", "buslogic", "lsilogic", "lsisas1068", "pvscsi")


def dest_of(disks: Disks, format: str) -> Path:
    return disks.folder / f"d.{format if format in ('raw', 'qcow2') else 'vmdk'}"


def content(disks: Disks, name: str) -> Path:
    """A raw disk with one kind of content."""
    path = disks.folder / f"{name}.raw"
    rng = random.Random(3)
    size = {"one sector": 512, "large": (3 << 30) + 512, "empty": 64 << 20, "nothing": 0}.get(name, 24 << 20)
    with path.open("wb") as out:
        out.truncate(size)
        if name in ("one sector", "large"):
            out.write(b"x" * 512)
        elif name == "pieces":
            for _n in range(120):
                out.seek(rng.randrange(size - (1 << 18)) // 512 * 512)
                out.write(rng.randbytes(rng.randrange(512, 100_000)) + b"text" * rng.randrange(10_000))
        elif name == "allocated zeroes":
            for at in range(0, size, GRAIN):
                out.seek(at)
                out.write(rng.randbytes(GRAIN) if rng.random() < 0.4 else bytes(GRAIN))
        elif name == "text":
            for at in range(0, size, 1 << 20):
                out.seek(at)
                out.write((f"line {at} of a log file\n" * 60000).encode()[: 1 << 20])
    return path


@pytest.mark.parametrize("name", ["one sector", "pieces", "allocated zeroes", "text", "large", "empty", "nothing"])
@pytest.mark.parametrize("kind", ["raw", "monolithicSparse", "streamOptimized", "twoGbMaxExtentSparse"])
def test_predicted_sizes(disks: Disks, name: str, kind: str) -> None:
    """Check mode says the size within 5 %, from flat, sparse and compressed sources, and what will be read to the byte."""
    src = content(disks, name)
    if kind != "raw":
        convert(str(src), str(disks.folder / "s.vmdk"), format=kind)
        src = disks.folder / "s.vmdk"
    for format in FORMATS:
        if format == "qcow2" and kind != "raw":
            continue
        dest = dest_of(disks, format)
        said = convert(str(src), str(dest), format=format, force=True, check=True)
        done = convert(str(src), str(dest), format=format, force=True)
        assert abs(said["bytes_out"] - done["bytes_out"]) <= done["bytes_out"] * 0.05, format
        assert said["bytes_in"] == done["bytes_in"], format


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_out_is_what_is_stored(disks: Disks, format: str) -> None:
    dest = dest_of(disks, format)
    done = convert(str(content(disks, "pieces")), str(dest), format=format)
    data = sorted(p for p in disks.folder.glob("d[.-]*") if not (p.suffix == ".vmdk" and p.stat().st_size < 2000)) or [dest]
    stored = sum(
        p.stat().st_size if "parse" in format or "stream" in format or format == "qcow2" else p.stat().st_blocks * 512 for p in data
    )
    # A file system allocates whole blocks of 4 KiB.
    assert abs(done["bytes_out"] - stored) <= stored * 0.05


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("format", VMDKS)
def test_adapter_version_and_geometry(disks: Disks, format: str, adapter: str) -> None:
    dest = disks.folder / "d.vmdk"
    convert(str(disks.raw(SIZE)), str(dest), format=format, adapter_type=adapter, hw_version=19)
    with open_disk(str(dest)) as disk:
        assert (disk.info.create_type, disk.info.adapter_type, disk.info.hw_version, disk.problems) == (format, adapter, 19, [])
        assert disk.info.descriptor is not None
        ddb = disk.info.descriptor.ddb
    assert tuple(int(ddb[f"geometry.{k}"]) for k in ("cylinders", "heads", "sectors")) == chs(SIZE, adapter)
    assert len(ddb["uuid"]) == 47 and ddb["uuid"].startswith("60 00 C2 9") and len(ddb["longContentID"]) == 32


@pytest.mark.parametrize("format", VMDKS)
def test_controller_and_version_without_a_wish(disks: Disks, format: str) -> None:
    """Those of the source where it has some that a VMDK can name; else lsilogic and 4."""
    raw, a, b = disks.raw(SIZE), disks.folder / "a.vmdk", disks.folder / "d.vmdk"
    for ddb, want in (
        ('ddb.adapterType = "ide"\nddb.virtualHWVersion = "13"\n', ("ide", 13)),
        ('ddb.adapterType = "legacyESX"\n', ("lsilogic", 4)),
        ('ddb.adapterType = "nvme"\n', ("lsilogic", 4)),
        ("", ("lsilogic", 4)),
    ):
        a.write_text(
            f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW {SIZE // 512} FLAT "src.raw" 0\n{ddb}'
        )
        for src in (a, raw):
            convert(str(src), str(b), format=format, force=True)
            with open_disk(str(b)) as disk:
                assert (disk.info.adapter_type, disk.info.hw_version) == (want if src == a else ("lsilogic", 4))


@pytest.mark.parametrize("format", ["raw", "monolithicFlat", "vmfs", "twoGbMaxExtentFlat"])
def test_thin(disks: Disks, format: str) -> None:
    raw = disks.raw(4 << 20, content="empty")
    dest = dest_of(disks, format)
    for thin in (True, False):
        said = convert(str(raw), str(dest), format=format, thin=thin, check=True, force=True)
        done = convert(str(raw), str(dest), format=format, thin=thin, force=True)
        data = next(p for p in disks.folder.glob("d*") if p.stat().st_size == 4 << 20)
        assert data.stat().st_blocks * 512 >= 4 << 20 if not thin else data.stat().st_blocks == 0
        assert said["bytes_out"] == done["bytes_out"] == (0 if thin else 4 << 20)


def test_threads(disks: Disks, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are asked for work, and the bytes do not depend on it."""
    raw = disks.raw(20 << 20, content="full")
    real = threading.Thread.start
    started: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", lambda self: (started.append(self.name), real(self))[1])
    sums: set[int] = set()
    for count in (1, 3):
        started.clear()
        dest = disks.folder / f"t{count}.vmdk"
        convert(str(raw), str(dest), format="streamOptimized", threads=count)
        assert sum(name.startswith("vmdk") for name in started) <= count
        sums.add(dest.stat().st_size)
    assert len(sums) == 1


def test_compression_level(disks: Disks) -> None:
    rng = random.Random(4)
    words = [rng.randbytes(rng.randrange(2, 9)).hex().encode() for _n in range(500)]
    raw = disks.folder / "words.raw"
    raw.write_bytes(b" ".join(rng.choice(words) for _n in range(300_000))[: 3 << 20])
    sizes = [
        convert(str(raw), str(disks.folder / f"{n}.vmdk"), format="streamOptimized", compression_level=n)["bytes_out"] for n in (1, 6, 9)
    ]
    assert sizes[0] > sizes[1] >= sizes[2]


def test_allow_extents(disks: Disks) -> None:
    (disks.folder / "elsewhere").mkdir()
    raw = disks.raw(SIZE, name="elsewhere/far.raw")
    src = disks.folder / "s.vmdk"
    src.write_text(
        f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW {SIZE // 512} FLAT "{raw}" 0\n'
    )
    for format in FORMATS:
        with pytest.raises(VmdkError, match="absolute path"):
            convert(str(src), str(dest_of(disks, format)), format=format)
    for allowed in (raw, raw.parent):
        assert convert(str(src), str(disks.folder / "d.raw"), format="raw", allow_extents=[str(allowed)])["capacity"] == SIZE
    assert disks.sha(disks.folder / "d.raw") == disks.sha(raw)
    with pytest.raises(VmdkError):
        convert(str(src), str(disks.folder / "e.raw"), format="raw", allow_extents=[str(disks.folder / "else")])


@pytest.mark.parametrize("format", FORMATS)
def test_checksum_whether_written_or_not(disks: Disks, format: str) -> None:
    raw, dest = disks.raw(SIZE), dest_of(disks, format)
    want = "sha256:" + disks.sha(raw)
    for _n in range(2):
        assert convert(str(raw), str(dest), format=format, checksum="sha256")["checksum"] == want
    assert "checksum" not in convert(str(raw), str(dest), format=format)
    assert convert(str(raw), str(dest), format=format, checksum="sha256", check=True)["checksum"] == want


@pytest.mark.parametrize("format", FORMATS)
def test_force(disks: Disks, format: str) -> None:
    raw, dest = disks.raw(SIZE), dest_of(disks, format)
    dest.write_bytes(b"a letter to somebody")
    for check in (True, False):
        with pytest.raises(BadInput, match="something else"):
            convert(str(raw), str(dest), format=format, check=check)
    assert dest.read_bytes() == b"a letter to somebody"
    first = convert(str(raw), str(dest), format=format, force=True)
    before = dest.stat().st_ino
    assert convert(str(raw), str(dest), format=format, force=True)["changed"] and dest.stat().st_ino != before
    assert not convert(str(raw), str(dest), format=format)["changed"]
    assert first["digest"]


def test_the_same_by_content_not_by_name(disks: Disks) -> None:
    """A dest from another source, by another program, in other files: it holds the disk, so it is left alone."""
    raw = disks.raw(SIZE)
    for subformat in ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"):
        path = disks.qemu(raw, subformat, adapter="lsilogic")
        done = convert(str(raw), str(path), format=subformat)
        assert (done["changed"], done["bytes_in"]) == (False, 0), subformat
    other = disks.raw(SIZE, name="other.raw", seed=9)
    assert convert(str(other), str(disks.folder / "qemu-monolithicSparse.vmdk"), format="monolithicSparse")["changed"]


def test_salvage(disks: Disks) -> None:
    """A cut stream: refused without, read as far as it goes with; a sound disk loses nothing."""
    raw, src, dest = disks.raw(SIZE, content="full"), disks.folder / "s.vmdk", disks.folder / "d.raw"
    convert(str(raw), str(src), format="streamOptimized")
    sound = convert(str(src), str(disks.folder / "sound.raw"), format="raw", salvage=True)
    assert sound["lost"] == [] and disks.sha(disks.folder / "sound.raw") == disks.sha(raw)
    src.write_bytes(src.read_bytes()[: 30 * GRAIN])
    with pytest.raises(VmdkError, match="truncated"):
        convert(str(src), str(dest), format="raw")
    done = convert(str(src), str(dest), format="raw", salvage=True)
    assert done["lost"] and all(set(r) == {"start", "length", "reason"} for r in done["lost"])
    kept, got = bytearray(raw.read_bytes()), dest.read_bytes()
    for r in done["lost"]:
        kept[r["start"] : r["start"] + r["length"]] = bytes(r["length"])
    assert got == kept and sum(r["length"] for r in done["lost"]) < SIZE / 2
    with pytest.raises(BadInput, match="over the source"):
        convert(str(src), str(src), format="streamOptimized", salvage=True)


def test_salvage_of_a_lost_first_sector(disks: Disks) -> None:
    """Whatever the file is called, its compressed bytes are never taken for a raw disk; by a pipe neither."""
    raw, src = disks.raw(SIZE, content="full"), disks.folder / "s.img"
    convert(str(raw), str(src), format="streamOptimized")
    disks.patch(src, 0, bytes(512))
    pipe = disks.folder / "pipe"
    os.mkfifo(pipe)
    for given in (src, pipe):
        writer = threading.Thread(target=lambda: pipe.write_bytes(src.read_bytes()))
        if given is pipe:
            writer.start()
        done = convert(str(given), str(disks.folder / f"{given.name}.raw"), format="raw", salvage=True)
        assert done["capacity"] == SIZE and not done["lost"]
        assert disks.sha(disks.folder / f"{given.name}.raw") == disks.sha(raw)
    writer.join()
    assert convert(str(raw), str(disks.folder / "d.raw"), format="raw", salvage=True)["lost"] == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"threads": 257}, "threads"),
        ({"hw_version": 100}, "hw_version"),
        ({"compression_level": 10}, "compression_level"),
        ({"format": "vmfsThin"}, "format"),
    ],
)
def test_out_of_range(disks: Disks, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        convert(str(disks.raw(SIZE)), str(disks.folder / "d.vmdk"), **{"format": "vmfs", **wrong})


def test_extents_are_as_large_as_vmware_makes_them(disks: Disks) -> None:
    raw = disks.raw((2 << 30) + 512, content="empty")
    convert(str(raw), str(disks.folder / "d.vmdk"), format="twoGbMaxExtentFlat")
    assert (disks.folder / "d-f001.vmdk").stat().st_size == split_writer.FLAT_PART
    assert (disks.folder / "d-f002.vmdk").stat().st_size == (2 << 30) + 512 - split_writer.FLAT_PART
