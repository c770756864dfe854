# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""qcow2 through qemu-img: the header is checked first, and only files that the user lists are leant on."""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput, MissingLibrary, SinkError, VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.qcow2 import check_qcow2
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk

from .conftest import GRAIN, Disks

SIZE = 40 * GRAIN + 1024


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def image(disks: Disks, raw: Path, *options: str, name: str = "a.qcow2") -> Path:
    path = disks.folder / name
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(path))
    return path


def overlay(disks: Disks, base: Path, *, base_format: str | None = "qcow2", named: str | None = None) -> Path:
    """A delta over C(base) with some bytes of its own."""
    path = disks.folder / "over.qcow2"
    disks.run("qemu-img", "create", "-f", "qcow2", "-b", str(base), "-F", base_format or "raw", str(path))
    disks.run("qemu-io", "-f", "qcow2", "-c", "write -P 7 64k 64k", str(path))
    if named:
        disks.run("qemu-img", "rebase", "-u", "-b", named, "-F", base_format or "raw", str(path))
    return path


@pytest.mark.parametrize(
    "options", [(), ("-c",), ("-o", "compat=0.10"), ("-o", "cluster_size=4k"), ("-o", "extended_l2=on,cluster_size=128k")]
)
@pytest.mark.parametrize("format", ["streamOptimized", "monolithicSparse", "vmfs", "raw"])
def test_in(disks: Disks, format: str, options: tuple[str, ...]) -> None:
    """The seed's conversion, with the controller named in the same call."""
    raw = disks.raw(SIZE)
    src, dest = image(disks, raw, *options), disks.folder / f"d.{'raw' if format == 'raw' else 'vmdk'}"
    wish = {} if format == "raw" else {"adapter_type": "pvscsi"}
    done = convert(str(src), str(dest), format=format, checksum="sha256", **wish)
    assert done["checksum"] == f"sha256:{disks.sha(raw)}"
    if format != "raw":
        with open_disk(str(dest)) as disk:
            assert (disk.info.create_type, disk.info.adapter_type) == (format, "pvscsi")
    assert not convert(str(src), str(dest), format=format, **wish)["changed"]
    assert listing(disks.folder) == sorted(["a.qcow2", "src.raw", dest.name, *(["d-flat.vmdk"] if format == "vmfs" else [])])


def test_out(disks: Disks) -> None:
    raw, dest = disks.raw(SIZE), disks.folder / "d.qcow2"
    first = convert(str(raw), str(dest), format="qcow2")
    assert check_qcow2(str(dest)) == SIZE and first["bytes_out"] == dest.stat().st_size
    disks.run("qemu-img", "check", str(dest))
    assert not convert(str(raw), str(dest), format="qcow2")["changed"]
    other = disks.raw(SIZE - 512, name="o.raw")
    with pytest.raises(BadInput, match="something else"):
        convert(str(other), str(dest), format="qcow2")
    assert convert(str(other), str(dest), format="qcow2", force=True)["changed"]


def test_an_odd_size(disks: Disks) -> None:
    """qcow2 counts bytes; qemu-img rounds up to a sector, and so do we."""
    path = disks.folder / "a.qcow2"
    disks.run("qemu-img", "create", "-f", "qcow2", str(path), "1000")
    assert convert(str(path), str(disks.folder / "d.raw"), format="raw")["capacity"] == 1024


@pytest.mark.parametrize("base_format", ["qcow2", "raw"])
def test_a_backing_file_must_be_listed(disks: Disks, base_format: str) -> None:
    raw = disks.raw(SIZE)
    base = image(disks, raw, name="base.qcow2") if base_format == "qcow2" else raw
    over, dest = overlay(disks, base, base_format=base_format), disks.folder / "d.raw"
    before = listing(disks.folder)
    for allow in ([], [str(disks.folder / "other")], [str(over)]):
        with pytest.raises(VmdkError, match="backing file"):
            convert(str(over), str(dest), format="raw", allow_extents=allow)
    assert listing(disks.folder) == before
    want = bytearray(raw.read_bytes())
    want[GRAIN : 2 * GRAIN] = b"\7" * GRAIN
    for allow in ([str(base)], [str(disks.folder)]):
        convert(str(over), str(dest), format="raw", allow_extents=allow, force=True)
        assert dest.read_bytes() == want


def test_what_a_backing_name_may_not_be(disks: Disks) -> None:
    """An URL, a pseudo-protocol, a base that leans on another one, a base of no named format."""
    raw = disks.raw(SIZE)
    base = image(disks, raw, name="base.qcow2")
    allow = [str(disks.folder)]
    for name in ("nbd://127.0.0.1/x", "json:{}", "file:" + str(base)):
        over = overlay(disks, base, named=name)
        with pytest.raises(VmdkError, match="backing file"):
            check_qcow2(str(over), allow=["/"])
    over = overlay(disks, base)
    deep = disks.folder / "deep.qcow2"
    disks.run("qemu-img", "create", "-f", "qcow2", "-b", str(over), "-F", "qcow2", str(deep))
    with pytest.raises(VmdkError, match="backing file"):
        check_qcow2(str(deep), allow=[str(over)])
    assert check_qcow2(str(deep), allow=[str(over), str(base)]) == SIZE
    disks.edit(over, lambda data: data.replace(struct.pack(">II", 0xE2792ACA, 5), struct.pack(">II", 0x12345678, 5), 1))
    with pytest.raises(VmdkError, match="format of the backing file"):
        check_qcow2(str(over), allow=allow)
    circle = disks.folder / "circle.qcow2"
    disks.run("qemu-img", "create", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(circle))
    disks.run("qemu-img", "rebase", "-u", "-b", str(circle), "-F", "qcow2", str(circle))
    with pytest.raises(VmdkError, match="circle"):
        check_qcow2(str(circle), allow=allow)


def test_an_external_data_file_must_be_listed(disks: Disks) -> None:
    raw = disks.raw(SIZE)
    data = disks.folder / "data.bin"
    src = image(disks, raw, "-o", f"data_file={data}")
    with pytest.raises(VmdkError, match="external file"):
        convert(str(src), str(disks.folder / "d.raw"), format="raw")
    convert(str(src), str(disks.folder / "d.raw"), format="raw", allow_extents=[str(data)])
    assert disks.sha(disks.folder / "d.raw") == disks.sha(raw)


@pytest.mark.parametrize(
    ("offset", "form", "value", "words"),
    [
        (4, ">I", 1, "version"),
        (8, ">Q", 1 << 62, "backing"),
        (16, ">I", 5000, "backing"),
        (20, ">I", 8, "cluster"),
        (20, ">I", 0xFFFFFFFF, "cluster"),
        (24, ">Q", 1 << 60, "capacity"),
        (32, ">I", 1, "encrypted"),
        (36, ">I", 0xFFFFFFFF, "first-level"),
        (36, ">I", 0, "first-level"),
        (40, ">Q", 1 << 50, "first-level"),
        (40, ">Q", 513, "first-level"),
        (48, ">Q", 1 << 50, "reference counts"),
        (56, ">I", 0xFFFFFFFF, "reference counts"),
        (60, ">I", 0xFFFFFFFF, "snapshots"),
        (72, ">Q", 1 << 63, "features"),
        (72, ">Q", 2, "corrupt"),
        (96, ">I", 7, "width"),
        (100, ">I", 0xFFFFFFFF, "header"),
        (100, ">I", 8, "header"),
        (108, ">I", 0xFFFFFFF0, "extension"),
    ],
)
def test_fields_are_bounded(disks: Disks, offset: int, form: str, value: int, words: str) -> None:
    path = image(disks, disks.raw(SIZE))
    if offset == 108:
        length = struct.unpack(">I", path.read_bytes()[100:104])[0]
        disks.patch(path, length, struct.pack(">II", 0xE2792ACA, value))
    else:
        disks.patch(path, offset, struct.pack(form, value))
    with pytest.raises(VmdkError, match=words):
        convert(str(path), str(disks.folder / "d.raw"), format="raw")
    assert listing(disks.folder) == ["a.qcow2", "src.raw"]


@pytest.mark.parametrize("length", [0, 4, 71, 72, 100, 104, 4096])
def test_a_cut_image(disks: Disks, length: int) -> None:
    path = image(disks, disks.raw(SIZE), name="a.img")
    path.write_bytes(path.read_bytes()[:length])
    # What has no magic number any more is a raw disk to convert().
    work: Callable[[], object] = functools.partial(check_qcow2, str(path))
    if length >= 4:
        work = functools.partial(convert, str(path), str(disks.folder / "d.raw"), format="raw")
    with pytest.raises((VmdkError, SinkError)):
        work()
    assert listing(disks.folder) == ["a.img", "src.raw"]


def test_without_qemu_img(disks: Disks, monkeypatch: pytest.MonkeyPatch) -> None:
    src = image(disks, disks.raw(SIZE))
    monkeypatch.setenv("PATH", str(disks.folder))
    with pytest.raises(MissingLibrary, match="qemu-img"):
        convert(str(src), str(disks.folder / "d.raw"), format="raw")
