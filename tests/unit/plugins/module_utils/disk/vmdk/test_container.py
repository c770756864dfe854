# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks inside of an OVA, and disks in chunks: read where they lie, whatever the order and the kind of tar."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert, kind_of
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.info import inspect
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk, open_raw

from .conftest import GRAIN, Disks

SIZE = 40 * GRAIN + 5 * 512


@pytest.fixture
def stream(disks: Disks) -> Path:
    """A streamOptimized disk of ours, disk1.vmdk."""
    path = disks.folder / "disk1.vmdk"
    convert(str(disks.raw(SIZE)), str(path), format="streamOptimized")
    return path


def ova(path: Path, items: list[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT) -> Path:
    """An OVA of C(items) (name, content)."""
    with tarfile.open(path, "w", format=format) as out:
        for name, data in items:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def refused(path: Path | str, words: str) -> None:
    with pytest.raises(VmdkError, match=f"(?i){words}"):
        Disks.ours(Path(path))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_member_in_any_order_without_manifest(disks: Disks, stream: Path, format: int) -> None:
    want = disks.sha(disks.folder / "src.raw")
    data = stream.read_bytes()
    long = "a" * 120 + "/ü.vmdk"
    name = long if format != tarfile.USTAR_FORMAT else "disk1.vmdk"
    path = ova(disks.folder / "x.ova", [("README", b"hello\n"), (name, data), ("x.ovf", b"<Envelope/>")], format)
    assert disks.ours(path) == want
    assert disks.ours(path / name) == want
    assert kind_of(str(path)) == kind_of(str(path / name)) == "vmdk"
    out = disks.folder / "out.raw"
    convert(str(path / name), str(out), format="raw")
    assert disks.sha(out) == want


def test_glance_takes_no_archive(disks: Disks, stream: Path) -> None:
    facts = inspect(str(ova(disks.folder / "x.ova", [("disk1.vmdk", stream.read_bytes())])))
    assert not facts["glance"]["accepted"] and "OVA" in facts["glance"]["reasons"][0]
    assert facts["problems"] == [] and facts["capacity"] == SIZE
    assert inspect(str(stream))["glance"]["accepted"]


def test_dot_slash_and_folders(disks: Disks, stream: Path) -> None:
    path = ova(disks.folder / "x.ova", [("./sub/disk1.vmdk", stream.read_bytes())])
    assert disks.ours(path / "sub" / "disk1.vmdk") == disks.ours(path) == disks.sha(disks.folder / "src.raw")


def test_several_disks_must_be_named(disks: Disks, stream: Path) -> None:
    data = stream.read_bytes()
    path = ova(disks.folder / "x.ova", [("a.vmdk", data), ("b.vmdk", data)])
    refused(path, "several disks.*a.vmdk, b.vmdk")
    assert disks.ours(path / "b.vmdk") == disks.sha(disks.folder / "src.raw")
    refused(path / "c.vmdk", "no such member")
    refused(ova(disks.folder / "none.ova", [("README", b"x")]), "no disk")


def test_descriptor_with_its_flat_file_inside(disks: Disks) -> None:
    raw = disks.raw(SIZE)
    head = disks.folder / "d.vmdk"
    convert(str(raw), str(head), format="monolithicFlat")
    items = [("v/d-flat.vmdk", raw.read_bytes()), ("v/d.vmdk", head.read_bytes())]
    path = ova(disks.folder / "x.ova", items)
    assert disks.ours(path) == disks.sha(raw)
    with open_raw(str(path / "v/d-flat.vmdk")) as disk:
        assert disks.ours(disk) == disks.sha(raw)
    # Nothing beside the OVA belongs to it.
    refused(ova(disks.folder / "y.ova", items[1:]), "missing in the OVA")
    text = head.read_bytes().replace(b'"d-flat.vmdk"', b'"../d-flat.vmdk"')
    refused(ova(disks.folder / "z.ova", [("v/d.vmdk", text), ("d-flat.vmdk", raw.read_bytes())]), "leads upwards")


def test_chunks_beside_each_other(disks: Disks, stream: Path) -> None:
    want = disks.sha(disks.folder / "src.raw")
    data = stream.read_bytes()
    stream.unlink()
    step = len(data) // 3 + 7
    names = [f"disk1.vmdk.{i:09d}" for i in range(3)]
    for i, name in enumerate(names):
        (disks.folder / name).write_bytes(data[i * step : (i + 1) * step])
    assert disks.ours(disks.folder / names[0]) == disks.ours(stream) == want
    assert kind_of(str(stream)) == kind_of(str(disks.folder / names[0])) == "vmdk"
    with open_disk(str(stream)) as disk:
        assert [Path(f.path).name for f in disk.files()] == names
    refused(disks.folder / names[1], "later chunk")
    (disks.folder / names[1]).write_bytes(data[step : 2 * step - 1])
    refused(stream, "wrong size")
    (disks.folder / names[1]).unlink()
    refused(stream, "missing")
    (disks.folder / names[1]).symlink_to("/etc/hostname")
    refused(stream, "link out")


def test_chunks_in_an_ova(disks: Disks, stream: Path) -> None:
    data = stream.read_bytes()
    step = len(data) // 2 + 1
    items = [("d.vmdk.000000001", data[step:]), ("x.ovf", b""), ("d.vmdk.000000000", data[:step])]
    path = ova(disks.folder / "x.ova", items)
    want = disks.sha(disks.folder / "src.raw")
    assert disks.ours(path) == disks.ours(path / "d.vmdk") == disks.ours(path / "d.vmdk.000000000") == want
    refused(ova(disks.folder / "y.ova", items[:1]), "no disk")
    refused(ova(disks.folder / "z.ova", [*items, items[0]]), "twice")


def test_gzip_is_named(disks: Disks, stream: Path) -> None:
    gz = disks.folder / "a.vmdk.gz"
    gz.write_bytes(b"\x1f\x8b\x08\0" + bytes(600))
    refused(gz, "gzip")
    assert kind_of(str(gz)) == "vmdk"
    refused(ova(disks.folder / "x.ova", [("a.vmdk.gz", gz.read_bytes())]), "gzip")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.FIFOTYPE])
def test_members_that_are_no_plain_files(disks: Disks, kind: bytes) -> None:
    path = disks.folder / "x.ova"
    with tarfile.open(path, "w") as out:
        info = tarfile.TarInfo("disk1.vmdk")
        info.type, info.linkname = kind, "/etc/passwd"
        out.addfile(info)
    refused(path, "is a link|sparse|of the type")
    refused(path / "disk1.vmdk", "is a link|sparse|of the type")


def test_names_that_lead_out_and_doubles(disks: Disks, stream: Path) -> None:
    data = stream.read_bytes()
    refused(ova(disks.folder / "a.ova", [("/abs/disk.vmdk", data)]), "leads out")
    refused(ova(disks.folder / "b.ova", [("../disk.vmdk", data)]), "leads out")
    double = ova(disks.folder / "c.ova", [("disk.vmdk", data), ("disk.vmdk", data)])
    refused(double / "disk.vmdk", "two members")


def test_damaged_archives(disks: Disks, stream: Path) -> None:
    path = ova(disks.folder / "x.ova", [("a", b"x" * 600), ("disk1.vmdk", stream.read_bytes())])
    whole = path.read_bytes()
    for at, value, words in ((0, b"?", "no tar"), (1536, b"?", "damaged"), (1536 + 124, b"77777777777", "damaged")):
        path.write_bytes(whole[:at] + value + whole[at + len(value) :])
        refused(path, words)
    path.write_bytes(whole[:5000])
    refused(path, "truncated")
    path.write_bytes(b"")
    refused(path, "not an OVA")


def test_a_pax_size_beyond_the_end(disks: Disks, stream: Path) -> None:
    path = disks.folder / "x.ova"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"size": "99999999999"}) as out:
        out.addfile(tarfile.TarInfo("disk1.vmdk"))
    refused(path, "truncated|damaged")


def test_a_raw_disk_that_holds_a_tar_file_stays_raw(disks: Disks, stream: Path) -> None:
    path = ova(disks.folder / "guest.img", [("disk1.vmdk", stream.read_bytes())])
    assert kind_of(str(path)) == "raw"
    with open_raw(str(path)) as disk:
        assert disk.capacity == path.stat().st_size
