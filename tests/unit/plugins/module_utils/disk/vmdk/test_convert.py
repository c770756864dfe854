# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Converting: whole or not at all, unchanged where nothing is to be done, never over something else."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput, Busy, FerryError, SourceError, VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert, kind_of
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.outputs import FORMATS

from .conftest import GRAIN, Disks

SIZE = 40 * GRAIN + 1024
#: The one data file of small disks that have a descriptor apart.
DATA = {
    "monolithicFlat": "d-flat.vmdk",
    "vmfs": "d-flat.vmdk",
    "twoGbMaxExtentSparse": "d-s001.vmdk",
    "twoGbMaxExtentFlat": "d-f001.vmdk",
}


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def suffix(format: str) -> str:
    return format if format in ("raw", "qcow2") else "vmdk"


@pytest.mark.parametrize("second", FORMATS)
@pytest.mark.parametrize("first", FORMATS)
def test_every_way(disks: Disks, first: str, second: str) -> None:
    raw = disks.raw(SIZE)
    if "qcow2" in (first, second):
        disks.run("qemu-img", "--version")
    a, b, c = disks.folder / f"a.{suffix(first)}", disks.folder / f"b.{suffix(second)}", disks.folder / "c.raw"
    one = convert(str(raw), str(a), format=first)
    two = convert(str(a), str(b), format=second, checksum="sha256")
    convert(str(b), str(c), format="raw")
    assert one["digest"] == two["digest"]
    assert two["checksum"] == "sha256:" + disks.sha(raw) == "sha256:" + disks.sha(c)
    assert not [name for name in listing(disks.folder) if name.startswith(".")]


@pytest.mark.parametrize("format", FORMATS)
def test_second_run_changes_nothing_and_mends(disks: Disks, format: str) -> None:
    if format == "qcow2":
        disks.run("qemu-img", "--version")
    raw, dest = disks.raw(SIZE), disks.folder / f"d.{suffix(format)}"
    data = disks.folder / DATA.get(format, dest.name)
    first = convert(str(raw), str(dest), format=format)
    before = data.stat()
    second = convert(str(raw), str(dest), format=format, checksum="sha256")
    assert (first["changed"], second["changed"]) == (True, False)
    assert (second["digest"], second["checksum"]) == (first["digest"], "sha256:" + disks.sha(raw))
    if format in ("streamOptimized", "monolithicSparse"):
        assert second["bytes_out"] == first["bytes_out"] == data.stat().st_size
    assert data.stat() == before or data.stat().st_mtime_ns == before.st_mtime_ns
    assert convert(str(raw), str(dest), format=format, force=True)["changed"]
    if format != "qcow2":
        disks.patch(data, data.stat().st_size // 2, b"by hand")
        third = convert(str(raw), str(dest), format=format)
        assert third["changed"] and third["digest"] == first["digest"]
        assert not convert(str(raw), str(dest), format=format)["changed"]


def test_another_adapter_is_another_disk(disks: Disks) -> None:
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    convert(str(raw), str(dest), format="streamOptimized", adapter_type="ide")
    assert convert(str(raw), str(dest), format="streamOptimized", adapter_type="pvscsi")["changed"]
    assert not convert(str(raw), str(dest), format="streamOptimized", adapter_type="paraVirtual")["changed"]
    assert convert(str(raw), str(dest), format="monolithicSparse", adapter_type="pvscsi")["changed"]


def test_adapter_and_version_of_the_source_are_kept(disks: Disks) -> None:
    raw, a, b = disks.raw(SIZE), disks.folder / "a.vmdk", disks.folder / "b.vmdk"
    convert(str(raw), str(a), format="streamOptimized", adapter_type="ide", hw_version=13)
    convert(str(a), str(b), format="monolithicSparse")
    text = b.read_bytes()[512:4096]
    assert b'adapterType = "ide"' in text and b'virtualHWVersion = "13"' in text


def test_something_else_is_not_overwritten(disks: Disks) -> None:
    raw = disks.raw(SIZE)
    dest = disks.folder / "d.vmdk"
    for content in (b"a letter to somebody", disks.raw(SIZE - 512, name="o.raw").read_bytes()):
        dest.write_bytes(content)
        with pytest.raises(BadInput, match="something else"):
            convert(str(raw), str(dest), format="monolithicSparse")
        assert dest.read_bytes() == content
    convert(str(raw), str(disks.folder / "other.vmdk"), format="streamOptimized")
    dest.write_bytes((disks.folder / "other.vmdk").read_bytes()[:-2000])
    assert convert(str(raw), str(dest), format="streamOptimized")["changed"]
    dest.write_bytes(b"a letter")
    assert convert(str(raw), str(dest), format="streamOptimized", force=True)["changed"]


def test_never_over_the_source(disks: Disks) -> None:
    raw = disks.raw(SIZE)
    convert(str(raw), str(disks.folder / "a.vmdk"), format="monolithicFlat")
    for src, dest, format in (
        (raw, raw, "streamOptimized"),
        (disks.folder / "a.vmdk", disks.folder / "a-flat.vmdk", "raw"),
        (disks.folder / "a-flat.vmdk", disks.folder / "a.vmdk", "monolithicFlat"),
    ):
        before = disks.sha(src)
        with pytest.raises(BadInput, match="over the source"):
            convert(str(src), str(dest), format=format, force=True)
        assert disks.sha(src) == before


@pytest.mark.parametrize("format", FORMATS)
def test_check_says_what_would_happen(disks: Disks, format: str) -> None:
    if format == "qcow2":
        disks.run("qemu-img", "--version")
    raw, dest = disks.raw(60 << 20, pieces=50), disks.folder / f"d.{suffix(format)}"
    said = convert(str(raw), str(dest), format=format, check=True)
    assert said["changed"] and listing(disks.folder) == ["src.raw"]
    done = convert(str(raw), str(dest), format=format)
    assert abs(said["bytes_out"] - done["bytes_out"]) <= done["bytes_out"] * 0.05
    assert said["bytes_in"] == done["bytes_in"]
    assert not convert(str(raw), str(dest), format=format, check=True)["changed"]


def test_nothing_is_left_of_a_failure(disks: Disks) -> None:
    src = disks.folder / "s.vmdk"
    convert(str(disks.raw(SIZE, content="full")), str(src), format="streamOptimized")
    data = bytearray(src.read_bytes())
    data[len(data) // 2] ^= 1
    src.write_bytes(data)
    before = listing(disks.folder)
    for format in ("raw", "monolithicSparse", "monolithicFlat", "streamOptimized"):
        with pytest.raises(VmdkError):
            convert(str(src), str(disks.folder / "d.vmdk"), format=format)
        assert listing(disks.folder) == before


def test_a_source_that_changes_meanwhile(disks: Disks) -> None:
    raw = disks.raw(SIZE, content="full")

    def touch(phase: str, done: int, total: int) -> None:
        disks.patch(raw, 0, b"changed")

    with pytest.raises(SourceError):
        convert(str(raw), str(disks.folder / "d.vmdk"), format="streamOptimized", progress=touch)
    assert listing(disks.folder) == ["src.raw"]


def test_left_overs_of_a_killed_run_are_taken_away(disks: Disks) -> None:
    raw = disks.raw(SIZE)
    for role in ("new", "lock", "flat"):
        (disks.folder / f".d.vmdk.ferry-{role}").write_bytes(b"old")
    convert(str(raw), str(disks.folder / "d.vmdk"), format="monolithicFlat")
    assert listing(disks.folder) == ["d-flat.vmdk", "d.vmdk", "src.raw"]


def test_one_writer(disks: Disks) -> None:
    raw = disks.raw(SIZE)
    with (disks.folder / ".d.vmdk.ferry-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Busy):
            convert(str(raw), str(disks.folder / "d.vmdk"), format="raw")


def test_modes(disks: Disks) -> None:
    raw, dest = disks.raw(SIZE), disks.folder / "d.raw"
    mask = os.umask(0o027)
    try:
        convert(str(raw), str(dest), format="raw")
    finally:
        os.umask(mask)
    assert dest.stat().st_mode & 0o777 == 0o640
    dest.chmod(0o600)
    convert(str(raw), str(dest), format="raw", force=True)
    assert dest.stat().st_mode & 0o777 == 0o600


def test_kind_of(disks: Disks) -> None:
    """A guest writes the first bytes of a raw disk: its name counts, and a descriptor is believed in a *.vmdk only."""
    text = b"# Disk DescriptorFile\n"
    for name, data, want in (
        ("a-flat.vmdk", b"KDMV", "raw"),
        ("a.raw", b"QFI\xfb", "raw"),
        ("a.img", b"QFI\xfb", "qcow2"),
        ("a.img", text, "raw"),
        ("a.img", b"KDMV", "vmdk"),
        ("a.vmdk", text, "vmdk"),
        ("a.vmdk", bytes(512), "vmdk"),
        ("a.vmdk", b"QFI\xfb", "qcow2"),
        ("a", bytes(512), "raw"),
    ):
        path = disks.folder / name
        path.write_bytes(data)
        assert kind_of(str(path)) == want, name


@pytest.mark.parametrize(
    ("offset", "form", "value", "words"),
    [
        (4, ">I", 9, "version"),
        (8, ">Q", 1000, "backing"),
        (20, ">I", 40, "cluster"),
        (24, ">Q", 1 << 60, "capacity"),
        (32, ">I", 2, "encrypted"),
        (72, ">Q", 4, "external"),
        (72, ">Q", 2, "corrupt"),
    ],
)
def test_qcow2_headers(disks: Disks, offset: int, form: str, value: int, words: str) -> None:
    path = disks.folder / "a.qcow2"
    disks.run("qemu-img", "create", "-f", "qcow2", str(path), "1M")
    disks.patch(path, offset, struct.pack(form, value))
    with pytest.raises(VmdkError, match=words):
        convert(str(path), str(disks.folder / "d.raw"), format="raw")
    assert listing(disks.folder) == ["a.qcow2"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "vdi"},
        {"threads": 0},
        {"checksum": "md5"},
        {"adapter_type": "sata"},
        {"adapter_type": "x"},
        {"hw_version": 0},
        {"compression_level": 0},
    ],
)
def test_wrong_wishes(disks: Disks, wrong: dict[str, Any]) -> None:
    options: dict[str, Any] = {"format": "streamOptimized", **wrong}
    with pytest.raises(BadInput):
        convert(str(disks.raw(SIZE)), str(disks.folder / "d.vmdk"), **options)


def test_wrong_places(disks: Disks) -> None:
    raw = str(disks.raw(SIZE))
    for src, dest in ((raw, str(disks.folder / "no" / "d.vmdk")), (raw, str(disks.folder)), (str(disks.folder / "no.raw"), raw + ".vmdk")):
        with pytest.raises(FerryError):
            convert(src, dest, format="streamOptimized")
    assert listing(disks.folder) == ["src.raw"]
