# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Descriptors that somebody has made to do harm: each is one typed error, or read for what it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import machine, ovf, vmx
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput, FerryError

from .test_machine import CARD, CPU, DISK0, DISK1, MEMORY, SCSI, envelope, item

HARDWARE = {"cpus": 1, "memory_mb": 64}
VMX = 'virtualHW.version = "19"\nmemsize = "64"\n'


@pytest.mark.parametrize("odd", ["²", "٣", "1e5", "-1", "99999999999999999999"])
def test_numbers_that_are_none_are_no_defect(odd: str) -> None:
    rows = [
        item(Address=odd, InstanceID=3, ResourceSubType="lsilogic", ResourceType=6),
        item(AddressOnParent=odd, HostResource="ovf:/disk/d0", InstanceID=11, Parent=3, ResourceType=17),
        item(InstanceID=1, ResourceType=3, VirtualQuantity=odd),
        item(AllocationUnits=f"byte * {odd} ^ {odd}", InstanceID=2, ResourceType=4, VirtualQuantity=odd),
    ]
    for number, row in enumerate(rows):
        items = [SCSI, DISK1, DISK0, CPU, MEMORY, CARD]
        try:
            ovf.parse(envelope(*(row if n == number else i for n, i in enumerate(items))), "x.ovf")
        except BadInput:
            continue  # refused is as good


@pytest.mark.parametrize(
    "lines",
    ['numvcpus = "²"', 'memsize = "²"', 'ethernet00.present = "TRUE"', 'ethernet1.present = "TRUE"\nethernet01.present = "TRUE"'],
)
def test_odd_lines_of_a_vmx_file_are_no_defect(lines: str) -> None:
    found = vmx.parse((VMX + lines + "\n").encode(), "x.vmx")
    assert len(found.nics) <= 1 and found.cpus == 1


@pytest.mark.parametrize(
    "name", ["a|00.vmdk", "../b.vmdk", "|2e|2e/b.vmdk", "/etc/passwd", "|2fetc|2fpasswd", "././/../b.vmdk", "file:/etc/passwd", "."]
)
def test_names_in_a_vmx_file_lead_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "b.vmdk").write_bytes(b"x" * 512)
    inner = tmp_path / "vm"
    inner.mkdir()
    (inner / "x.vmx").write_text(VMX + f'scsi0:0.fileName = "{name}"\n', encoding="utf-8")
    facts = machine.read(str(inner))[0]
    assert facts["disks"][0]["capacity"] == 0 and facts["problems"], facts


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.vmdk")
    (tmp_path / "x.vmx").write_text(VMX + 'scsi0:0.fileName = "pipe.vmdk"\n', encoding="utf-8")
    assert machine.read(str(tmp_path))[0]["problems"]


@pytest.mark.parametrize("name", ["1²2.vmdk", "disk²¹.vmdk", "disk\udcff.vmdk", "٣.vmdk"])
def test_odd_names_of_bare_disks(tmp_path: Path, name: str) -> None:
    for other in (name, "disk1.vmdk"):
        Path(os.fsdecode(os.fsencode(str(tmp_path / other)))).write_bytes(b"x" * 512)
    assert len(machine.read(str(tmp_path), hardware=HARDWARE)[0]["disks"]) == 2


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    """Also where it is a file by the time that it is read: the same class of error."""
    with pytest.raises(FerryError):
        machine.read(str(tmp_path / "gone"))
    with pytest.raises(FerryError):
        machine.read("a\0b")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
def test_entities_that_grow_are_refused_in_any_encoding(encoding: str) -> None:
    grown = "".join(f'<!ENTITY e{n} "' + f"&e{n - 1};" * 10 + '">' for n in range(1, 9))
    text = f'<?xml version="1.0" encoding="{encoding[:6]}"?><!DOCTYPE x [<!ENTITY e0 "aaaaaaaaaa">{grown}]><Envelope>&e8;</Envelope>'
    with pytest.raises(BadInput) as caught:
        ovf.parse(text.encode(encoding), "x.ovf")
    assert caught.value.code == "ovf"
