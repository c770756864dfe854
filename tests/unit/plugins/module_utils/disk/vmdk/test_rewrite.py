# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Another controller or hardware version: the descriptor alone is written, and nothing else in it changes."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput, SinkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk import rewrite, split_writer
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.outputs import FORMATS
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.rewrite import edited

from .conftest import GRAIN, Disks

SIZE = 40 * GRAIN + 1024
VMDKS = [f for f in FORMATS if f not in ("raw", "qcow2")]
EMBEDDED = ("streamOptimized", "monolithicSparse")


def state(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def text_of(path: Path) -> str:
    with open_disk(str(path)) as disk:
        return disk.info.descriptor_text or ""


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("format", VMDKS)
def test_only_the_descriptor_is_written(disks: Disks, format: str, same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_writer, "SPARSE_PART", 10 * GRAIN)
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    first = convert(str(raw), str(dest), format=format, adapter_type="ide", hw_version=4)
    before, old = state(disks.folder), text_of(dest)
    inodes = {p.name: p.stat().st_ino for p in disks.folder.iterdir()}
    src = dest if same else raw
    said = convert(str(src), str(dest), format=format, adapter_type="pvscsi", hw_version=19, check=True)
    assert state(disks.folder) == before
    done = convert(str(src), str(dest), format=format, adapter_type="pvscsi", hw_version=19, checksum="sha256")
    new = text_of(dest)
    for result in (said, done):
        assert (result["changed"], result["bytes_in"], result["bytes_out"]) == (True, 0, len(new))
    assert (done["digest"], done["checksum"]) == (first["digest"], "sha256:" + disks.sha(raw))
    # What differs is what was asked for, and the geometry that goes with it.
    changed = {line.split(" = ")[0]: line for line in new.splitlines() if line not in old.splitlines()}
    assert set(changed) == {
        "ddb.adapterType",
        "ddb.virtualHWVersion",
        "ddb.geometry.cylinders",
        "ddb.geometry.heads",
        "ddb.geometry.sectors",
    }
    assert changed["ddb.adapterType"] == 'ddb.adapterType = "pvscsi"' and changed["ddb.geometry.heads"] == 'ddb.geometry.heads = "64"'
    after = state(disks.folder)
    assert set(after) == set(before)
    for name, data in after.items():
        if name != "d.vmdk":
            assert data == before[name]
            assert (disks.folder / name).stat().st_ino == inodes[name]
    if format in EMBEDDED:
        assert len(after["d.vmdk"]) == len(before["d.vmdk"]) and dest.stat().st_ino == inodes["d.vmdk"]
        assert after["d.vmdk"][:512] == before["d.vmdk"][:512] and after["d.vmdk"][21 * 512 :] == before["d.vmdk"][21 * 512 :]
    want = disks.sha(raw)
    assert disks.ours(dest) == disks.by_qemu(dest) == disks.by_dissect(dest) == disks.by_libvmdk(dest) == want
    again = convert(str(src), str(dest), format=format, adapter_type="pvscsi", hw_version=19)
    assert not again["changed"] and again["digest"] == first["digest"] and state(disks.folder) == {**after, **again_only(disks, after)}


def again_only(disks: Disks, after: dict[str, bytes]) -> dict[str, bytes]:
    """What qemu left beside the disk."""
    return {name: data for name, data in state(disks.folder).items() if name.endswith(".by-qemu") and name not in after}


def test_through_a_link(disks: Disks) -> None:
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    for format in ("monolithicSparse", "vmfs"):
        convert(str(raw), str(dest), format=format, force=True)
        link = disks.folder / f"{format}.vmdk"
        link.symlink_to("d.vmdk")
        assert convert(str(link), str(link), format=format, adapter_type="ide")["bytes_in"] == 0
        assert link.is_symlink() and 'adapterType = "ide"' in text_of(dest)


def test_mode_is_kept_and_the_source_elsewhere_untouched(disks: Disks) -> None:
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    convert(str(raw), str(dest), format="vmfs")
    dest.chmod(0o640)
    copy = disks.folder / "copy"
    copy.mkdir()
    for name in ("d.vmdk", "d-flat.vmdk"):
        shutil.copy(disks.folder / name, copy / name)
    before = dest.read_bytes()
    assert convert(str(dest), str(copy / "d.vmdk"), format="vmfs", adapter_type="ide")["bytes_in"] == 0
    assert dest.read_bytes() == before
    convert(str(dest), str(dest), format="vmfs", adapter_type="ide")
    assert dest.stat().st_mode & 0o777 == 0o640


def test_another_format_over_itself_is_refused(disks: Disks) -> None:
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    convert(str(raw), str(dest), format="monolithicSparse")
    before = dest.read_bytes()
    with pytest.raises(BadInput, match="over the source"):
        convert(str(dest), str(dest), format="streamOptimized", force=True)
    assert dest.read_bytes() == before


def test_only_what_is_asked_for_changes_in_place(disks: Disks) -> None:
    """A disk without a controller's name keeps it so, where only the version is asked for."""
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    convert(str(raw), str(dest), format="vmfs")
    disks.edit(dest, lambda data: data.replace(b'ddb.adapterType = "lsilogic"\n', b""))
    convert(str(dest), str(dest), format="vmfs", hw_version=14)
    assert "adapterType" not in text_of(dest) and 'virtualHWVersion = "14"' in text_of(dest)
    before = dest.read_bytes()
    assert not convert(str(dest), str(dest), format="vmfs")["changed"] and dest.read_bytes() == before


def test_a_controller_that_nobody_asks_for_is_left(disks: Disks) -> None:
    """A play that converts, and then names the controller, changes nothing when it runs again; a source that names one counts."""
    raw, dest, other = disks.raw(SIZE), disks.folder / "d.vmdk", disks.folder / "other.vmdk"
    convert(str(raw), str(dest), format="vmfs")
    convert(str(dest), str(dest), format="vmfs", adapter_type="pvscsi", hw_version=15)
    assert not convert(str(raw), str(dest), format="vmfs")["changed"]
    assert not convert(str(dest), str(dest), format="vmfs", adapter_type="pvscsi", hw_version=15)["changed"]
    convert(str(raw), str(other), format="streamOptimized", adapter_type="ide", hw_version=15)
    assert convert(str(other), str(dest), format="vmfs")["bytes_in"] == 0 and 'adapterType = "ide"' in text_of(dest)


ODD = (
    '#Disk DescriptorFile\r\nversion=1\r\n# ddb.adapterType = "comment"\r\nCID=1234abcd\r\nencoding="{codec}"\r\n\r\n'
    'createType="vmfs"\r\nRW 8 VMFS "{name}"\r\n\r\nmyKey = " kept "\r\n\t ddb.ADAPTERTYPE=ide  \r\n'
    'ddb.geometry.heads ="16"\r\nddb.unknown = "x=y"\r\n# end'
)


@pytest.mark.parametrize(("codec", "bom"), [("utf-8", b""), ("utf-8", b"\xef\xbb\xbf"), ("shift_jis", b""), ("utf-16-le", b"\xff\xfe")])
def test_everything_else_stays_as_it_is(codec: str, bom: bytes) -> None:
    data = bom + ODD.format(codec=codec, name="ディスク-flat.vmdk").encode(codec)
    values = {"ddb.adapterType": "pvscsi", "ddb.geometry.heads": "64", "ddb.virtualHWVersion": "13"}
    want = (
        ODD.format(codec=codec, name="ディスク-flat.vmdk")
        .replace("ADAPTERTYPE=ide", "ADAPTERTYPE=pvscsi")
        .replace('heads ="16"', 'heads ="64"')
        .replace('ddb.unknown = "x=y"\r\n', 'ddb.unknown = "x=y"\r\nddb.virtualHWVersion = "13"\r\n')
    )
    assert edited(data, values) == bom + want.encode(codec)
    assert edited(data, {"ddb.adapterType": "ide"}) == data


def test_without_any_ddb_line() -> None:
    assert edited(b'# Disk DescriptorFile\ncreateType="vmfs"', {"ddb.adapterType": "ide"}).endswith(
        b'createType="vmfs"\nddb.adapterType = "ide"\n'
    )


def test_no_room(disks: Disks) -> None:
    """A descriptor that fills its region: in place it is refused, into another file the disk is written anew."""
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    convert(str(raw), str(dest), format="monolithicSparse", adapter_type="ide")
    text = text_of(dest)
    filler = "# " + "x" * (20 * 512 - len(text) - 4) + "\n"
    disks.patch(dest, 512, (text + filler).encode())
    before = dest.read_bytes()
    for check in (True, False):
        with pytest.raises(BadInput, match="room"):
            convert(str(dest), str(dest), format="monolithicSparse", adapter_type="lsisas1068", check=check)
    assert dest.read_bytes() == before
    assert convert(str(raw), str(dest), format="monolithicSparse", adapter_type="lsisas1068")["bytes_in"] > 0
    assert disks.ours(dest) == disks.sha(raw)


@pytest.mark.parametrize("torn", [0, 1, 2])
def test_a_torn_write_is_undone(disks: Disks, torn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Power fails after C(torn) sectors of the new descriptor: the next run finds the old one, and finishes."""
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    convert(str(raw), str(dest), format="monolithicSparse", adapter_type="ide")
    line = 'ddb.adapterType = "ide"\n'
    disks.patch(dest, 512, text_of(dest).replace(line, line + "# " + "long " * 100 + "\n").encode())
    old = dest.read_bytes()
    real = rewrite.write_all

    def half(fd: int, data: bytes, offset: int, path: str) -> None:
        real(fd, data[: torn * 512], offset, path)
        raise SinkError("power", disk=path)

    with monkeypatch.context() as patch:
        patch.setattr(rewrite, "write_all", half)
        with pytest.raises(SinkError):
            convert(str(dest), str(dest), format="monolithicSparse", adapter_type="pvscsi")
    assert (disks.folder / ".d.vmdk.ferry-undo").exists()
    if torn == 1:
        assert dest.read_bytes() != old
    # A wish that changes nothing: only the undoing is seen.
    assert not convert(str(raw), str(dest), format="monolithicSparse", adapter_type="ide" if torn < 2 else "pvscsi")["changed"]
    assert (dest.read_bytes() == old) == (torn < 2)
    assert sorted(os.listdir(disks.folder)) == ["d.vmdk", "src.raw"]


def test_an_old_undo_does_no_harm(disks: Disks) -> None:
    """What the disk does not hold a mixture of is left alone, and so is a file that only looks like one."""
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    convert(str(raw), str(dest), format="monolithicSparse")
    before = dest.read_bytes()
    undo = disks.folder / ".d.vmdk.ferry-undo"
    for data in (
        struct.pack("<8sQI", b"vmdkundo", 512, 1024) + b"a" * 1024 + b"b" * 1024,
        struct.pack("<8sQI", b"vmdkundo", 1 << 60, 4) + b"aaaabbbb",
        struct.pack("<8sQI", b"vmdkundo", 0, 4) + b"aaaabbb",
        b"short",
    ):
        undo.write_bytes(data)
        assert not convert(str(raw), str(dest), format="monolithicSparse")["changed"]
        assert dest.read_bytes() == before and not undo.exists()
    dest.unlink()
    undo.write_bytes(struct.pack("<8sQI", b"vmdkundo", 512, 4) + b"aaaabbbb")
    assert convert(str(raw), str(dest), format="monolithicSparse")["changed"] and not undo.exists()


def test_the_change_lies_in_one_page(disks: Disks) -> None:
    """A kill cannot tear what is written into one page; a descriptor of ours is far shorter."""
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    for format in EMBEDDED:
        convert(str(raw), str(dest), format=format, force=True)
        assert 512 + len(text_of(dest)) < 2048


def test_a_member_of_an_ova_is_not_written_to(disks: Disks) -> None:
    raw, inner = disks.raw(SIZE), disks.folder / "disk1.vmdk"
    convert(str(raw), str(inner), format="streamOptimized")
    disks.run("tar", "-C", str(disks.folder), "--format=ustar", "-cf", str(disks.folder / "x.ova"), "disk1.vmdk")
    before = disks.sha(disks.folder / "x.ova")
    with pytest.raises(BadInput):
        convert(str(disks.folder / "x.ova"), str(disks.folder / "x.ova"), format="streamOptimized", adapter_type="ide")
    assert disks.sha(disks.folder / "x.ova") == before


KILLED = """
import os, signal, sys
from disk.vmdk import convert
at = int(sys.argv[3])
count = 0
def wrapped(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for name in ("replace", "unlink", "fsync", "pwrite", "open"):
    setattr(os, name, wrapped(getattr(os, name)))
convert.convert(sys.argv[1], sys.argv[1], format=sys.argv[2], adapter_type="pvscsi", hw_version=19)
"""


@pytest.mark.slow
@pytest.mark.parametrize("format", ["streamOptimized", "monolithicSparse", "vmfs"])
def test_a_kill_at_any_step(disks: Disks, top: Path, format: str) -> None:
    """The old or the new descriptor is there, whole; the next run makes it the new one and leaves nothing behind."""
    raw, dest = disks.raw(SIZE), disks.folder / "d.vmdk"
    env = {**os.environ, "PYTHONPATH": str(top / "plugins/module_utils")}
    seen = set()
    for step in range(1, 60):
        convert(str(raw), str(dest), format=format, adapter_type="ide", hw_version=4, force=True)
        done = subprocess.run([sys.executable, "-c", KILLED, str(dest), format, str(step)], env=env, check=False)
        with open_disk(str(dest)) as disk:
            seen.add((disk.info.adapter_type, disk.info.hw_version))
        assert disks.ours(dest) == disks.sha(raw)
        convert(str(dest), str(dest), format=format, adapter_type="pvscsi", hw_version=19)
        assert sorted(os.listdir(disks.folder)) == sorted(["d.vmdk", "src.raw", *(["d-flat.vmdk"] if format == "vmfs" else [])])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert done.returncode == 0 and seen == {("ide", 4), ("pvscsi", 19)}
