# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of a disk file, and the verdict for Glance."""

from __future__ import annotations

import os
import struct

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput, VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.glance import odd_mbr
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.info import inspect

from .conftest import GRAIN, Disks

SIZE = 40 * GRAIN
HEAD = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
KEYS = {
    "descriptor",
    "create_type",
    "adapter_type",
    "hw_version",
    "capacity",
    "allocated",
    "extents",
    "parent",
    "encrypted",
    "glance",
    "problems",
}


def mbr(*entries: tuple[int, int, int]) -> bytes:
    """A boot record with (boot flag, type, first sector) entries."""
    table = b"".join(struct.pack("<B3BB3BII", boot, 0, 2, 0, kind, 0, 0, 0, lba, 2048) for boot, kind, lba in entries)
    return bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"


def test_a_bootable_stream(disks: Disks) -> None:
    raw = disks.raw(SIZE)
    disks.patch(raw, 0, mbr((0x80, 0x83, 2048)))
    path = disks.folder / "d.vmdk"
    convert(str(raw), str(path), format="streamOptimized", adapter_type="lsisas1068", hw_version=13)
    facts = inspect(str(path), "kvm", deep=True)
    assert facts.keys() >= KEYS
    assert (facts["create_type"], facts["adapter_type"], facts["hw_version"], facts["capacity"]) == (
        "streamOptimized",
        "lsisas1068",
        13,
        SIZE,
    )
    assert facts["glance"] == {
        "accepted": True,
        "bootable": True,
        "disk_format": "vmdk",
        "vmware_disktype": "streamOptimized",
        "vmware_adaptertype": "lsiLogicsas",
        # Nova boots it; its directory is at the end, as in vSphere's exports.
        "reasons": ["Cinder makes no volume of a stream whose grain directory is at its end: convert it"],
    }
    assert inspect(str(path), "vmware")["glance"]["reasons"] == []
    assert facts["problems"] == [] and "createType" in facts["descriptor"]
    assert facts["extents"][0]["grain_size"] == GRAIN
    assert 0 < facts["allocated"] < SIZE


@pytest.mark.parametrize(
    ("format", "accepted", "disk_format", "disktype"),
    [
        ("streamOptimized", True, "vmdk", "streamOptimized"),
        ("monolithicSparse", True, "vmdk", "sparse"),
        ("monolithicFlat", False, None, None),
        ("raw", True, "raw", "preallocated"),
        ("qcow2", True, "qcow2", None),
    ],
)
def test_verdicts(disks: Disks, format: str, accepted: bool, disk_format: str | None, disktype: str | None) -> None:
    if format == "qcow2":
        disks.run("qemu-img", "--version")
    raw = disks.raw(SIZE)
    disks.patch(raw, 0, mbr((0x80, 0x83, 2048)))
    path = disks.folder / ("d." + (format if format in ("raw", "qcow2") else "vmdk"))
    convert(str(raw), str(path), format=format)
    for hypervisor in ("vmware", "kvm"):
        verdict = inspect(str(path), hypervisor)["glance"]
        assert (verdict["accepted"], verdict["disk_format"], verdict["vmware_disktype"]) == (accepted, disk_format, disktype)
        assert verdict["bootable"] == (accepted and (hypervisor == "kvm" or disk_format == "vmdk"))
        assert verdict["bootable"] or verdict["reasons"]
    if format == "monolithicFlat":
        assert inspect(str(disks.folder / "d-flat.vmdk"), "kvm")["glance"]["accepted"]


def test_split_disks_are_not_for_glance(disks: Disks) -> None:
    path = disks.qemu(disks.raw(SIZE), "twoGbMaxExtentSparse")
    verdict = inspect(str(path))["glance"]
    assert not verdict["accepted"] and "convert" in verdict["reasons"][0]


@pytest.mark.parametrize(
    ("sector", "words"),
    [
        (bytes(512), None),
        (mbr((0x80, 0x83, 2048)), None),
        (mbr((0, 0xEE, 1)), None),
        (mbr(), "no partition"),
        (mbr((0x81, 0x83, 2048)), "boot flag"),
        (mbr((0, 0xEE, 2)), "sector 1"),
        (mbr((0, 0xEE, 1), (0, 0x83, 2048)), "hybrid"),
        (b"LUKS\xba\xbe" + bytes(506), "LUKS"),
        (bytes(16) + b"\x02" + bytes(4) + b"\xf8" + bytes(488) + b"\x55\xaa", None),
    ],
)
def test_the_raw_trap(disks: Disks, sector: bytes, words: str | None) -> None:
    why = odd_mbr(sector)
    assert why is None if words is None else why is not None and words in why
    raw = disks.raw(SIZE, content="empty")
    disks.patch(raw, 0, sector)
    assert inspect(str(raw), "kvm")["glance"]["accepted"] == (words is None)


def test_names_that_glance_refuses(disks: Disks) -> None:
    path = disks.folder / "d.vmdk"
    convert(str(disks.raw(SIZE)), str(path), format="streamOptimized")
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"d.vmdk"', b'"a/.vmd"', 1))
    assert "slash" in inspect(str(path))["glance"]["reasons"][0]
    path.write_bytes(data.replace(b'"d.vmdk"', '"ö.vmd"'.encode(), 1))
    assert "ASCII" in inspect(str(path))["glance"]["reasons"][0]


def test_what_kvm_cannot_read(disks: Disks) -> None:
    path = disks.folder / "d.vmdk"
    raw = disks.raw(SIZE)
    disks.patch(raw, 0, mbr((0x80, 0x83, 2048)))
    convert(str(raw), str(path), format="streamOptimized")
    data = path.read_bytes()
    end = data.index(b"\0", 512)
    grown = data[:end].replace(b"\nRW ", b"\nRDONLY ") + data[end + 4 :]
    path.write_bytes(grown)
    for hypervisor, bootable in (("vmware", True), ("kvm", False)):
        verdict = inspect(str(path), hypervisor)["glance"]
        assert (verdict["accepted"], verdict["bootable"]) == (True, bootable)


def test_what_is_not_read_is_named(disks: Disks) -> None:
    path = disks.descriptor(
        HEAD.replace("ffffffff", "00000007") + 'createType="vmfsSparse"\nparentFileNameHint="p.vmdk"\nRW 2048 VMFSSPARSE "a-delta.vmdk"\n'
    )
    facts = inspect(str(path))
    assert facts["parent"] == {"cid": "00000007", "hint": "p.vmdk"}
    assert facts["problems"][0]["severity"] == "error" and not facts["glance"]["accepted"]
    path = disks.descriptor(HEAD + 'createType="monolithicFlat"\nencryptionKeys="k"\nRW 2048 FLAT "a" 0\n')
    assert inspect(str(path))["encrypted"]


def test_damage_is_listed_with_its_place(disks: Disks) -> None:
    path = disks.folder / "d.vmdk"
    convert(str(disks.raw(SIZE, content="full")), str(path), format="streamOptimized")
    data = bytearray(path.read_bytes())
    for at in (300_000, 900_000):
        data[at] ^= 0x10
    path.write_bytes(data)
    shallow, deep = inspect(str(path)), inspect(str(path), deep=True)
    assert shallow["problems"] == []
    assert len(deep["problems"]) == 2 and all(p["severity"] == "error" and p["offset"] for p in deep["problems"])
    assert not deep["glance"]["accepted"]
    os.truncate(path, len(data) - 512)
    facts = inspect(str(path))
    assert facts["create_type"] == "streamOptimized" and "truncated" in facts["problems"][0]["message"]


def test_nothing_to_be_said(disks: Disks) -> None:
    path = disks.folder / "x.vmdk"
    path.write_bytes(b"<html>")
    with pytest.raises(VmdkError):
        inspect(str(path))
    with pytest.raises(BadInput):
        inspect(str(path), "xen")
