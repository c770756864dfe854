# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Machines given as files: what OVF and .vmx say, what is not believed of it, and what is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import machine, ovf, vmx
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert

MIB = 1 << 20
NAMESPACES = (
    'xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"'
    ' xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"'
    ' xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"'
    ' xmlns:vmw="http://www.vmware.com/schema/ovf"'
)


def item(**values: object) -> str:
    attributes = values.pop("attributes", "")
    return f"<Item {attributes}>" + "".join(f"<rasd:{k}>{v}</rasd:{k}>" for k, v in values.items()) + "</Item>"


CPU = item(InstanceID=1, ResourceType=3, VirtualQuantity=4).replace("</Item>", "<vmw:CoresPerSocket>2</vmw:CoresPerSocket></Item>")
MEMORY = item(AllocationUnits="byte * 2^20", InstanceID=2, ResourceType=4, VirtualQuantity=2048)
SCSI = item(Address=0, InstanceID=3, ResourceSubType="lsilogicsas", ResourceType=6)
IDE = item(Address=1, InstanceID=4, ResourceType=5)
DISK1 = item(AddressOnParent=1, HostResource="ovf:/disk/d1", InstanceID=10, Parent=3, ResourceType=17)
DISK0 = item(AddressOnParent=0, HostResource="ovf:/disk/d0", InstanceID=11, Parent=3, ResourceType=17)
CARD = item(
    Address="00:50:56:AA:00:01", Connection="VM Network", ElementName="eth0", InstanceID=20, ResourceSubType="E1000", ResourceType=10
)
DEFAULT = (CPU, MEMORY, SCSI, DISK1, DISK0, CARD)


def envelope(*items: str, before: str = "", more: str = "", disks: str | None = None, files: str | None = None) -> bytes:
    files = '<File ovf:id="f0" ovf:href="root.vmdk"/><File ovf:id="f1" ovf:href="data.vmdk"/>' if files is None else files
    if disks is None:
        disks = (
            f'<Disk ovf:diskId="d0" ovf:fileRef="f0" ovf:capacity="{4 * MIB}"/>'
            '<Disk ovf:diskId="d1" ovf:fileRef="f1" ovf:capacity="2" ovf:capacityAllocationUnits="byte * 2^20"/>'
        )
    return (
        f"{before}<Envelope {NAMESPACES}><References>{files}</References><DiskSection>{disks}</DiskSection>{more}"
        '<VirtualSystem ovf:id="web"><Name>web 01</Name><OperatingSystemSection ovf:id="96" vmw:osType="debian12_64Guest"/>'
        "<VirtualHardwareSection><System><vssd:VirtualSystemType>vmx-19</vssd:VirtualSystemType></System>"
        f'{"".join(items or DEFAULT)}<vmw:Config vmw:key="firmware" vmw:value="efi"/>'
        '<vmw:Config vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>'
        "</VirtualHardwareSection></VirtualSystem></Envelope>"
    ).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported machine: OVF and two disks."""
    for name, size in (("root", 4), ("data", 2)):
        raw = tmp_path / f"{name}.bin"
        raw.write_bytes(name.encode() * 100 + bytes(size * MIB - 100 * len(name)))
        convert(str(raw), str(tmp_path / f"{name}.vmdk"), format="streamOptimized", adapter_type="lsilogic")
        raw.unlink()
    (tmp_path / "web.ovf").write_bytes(envelope())
    return tmp_path


def test_hardware_disks_and_cards(folder: Path) -> None:
    (facts,) = machine.read(str(folder))
    assert {
        k: facts[k] for k in ("name", "cpus", "cores_per_socket", "memory_mb", "firmware", "secure_boot", "guest_id", "hw_version")
    } == {
        "name": "web 01",
        "cpus": 4,
        "cores_per_socket": 2,
        "memory_mb": 2048,
        "firmware": "efi",
        "secure_boot": True,
        "guest_id": "debian12_64Guest",
        "hw_version": "vmx-19",
    }
    assert [(d["key"], Path(d["file"]).name, d["capacity"], d["controller"], d["unit"]) for d in facts["disks"]] == [
        (2000, "root.vmdk", 4 * MIB, "lsisas1068", 0),
        (2001, "data.vmdk", 2 * MIB, "lsisas1068", 1),
    ]
    assert facts["nics"] == [
        {"label": "eth0", "type": "e1000", "network": "VM Network", "mac": "00:50:56:aa:00:01", "addresses": [], "key": 4000}
    ]
    assert facts["problems"] == []


def test_its_uuid_is_the_same_on_each_machine_and_of_another_name_another(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    first = machine.read(str(folder))[0]["instance_uuid"]
    moved = tmp_path_factory.mktemp("elsewhere") / "x"
    folder.rename(moved)
    assert machine.read(str(moved / "web.ovf"))[0]["instance_uuid"] == first
    assert machine.read(str(moved), name="web 02")[0]["instance_uuid"] != first


def test_an_ova_is_read_where_it_lies(folder: Path) -> None:
    path = folder / "web.ova"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("web.ovf", "root.vmdk", "data.vmdk"):
            archive.add(folder / name, arcname=name)
    (facts,) = machine.read(str(path))
    assert [d["file"] for d in facts["disks"]] == [f"{path}/root.vmdk", f"{path}/data.vmdk"]
    assert [d["capacity"] for d in facts["disks"]] == [4 * MIB, 2 * MIB]


def test_the_disk_is_believed_not_the_descriptor(folder: Path) -> None:
    (folder / "web.ovf").write_bytes(envelope().replace(str(4 * MIB).encode(), b"999424"))
    (facts,) = machine.read(str(folder))
    assert facts["disks"][0]["capacity"] == 4 * MIB and "the disk is believed" in facts["problems"][0]


@pytest.mark.parametrize("href", ["../secret.vmdk", "/etc/passwd", "http://host/x.vmdk", "a/../../x.vmdk", "nbd:host:1", "link.vmdk"])
def test_no_name_leads_out_of_the_folder(folder: Path, href: str) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (folder / "secret.vmdk").write_bytes(b"secret")
    (inner / "link.vmdk").symlink_to(folder / "secret.vmdk")
    (inner / "web.ovf").write_bytes(envelope(files=f'<File ovf:id="f0" ovf:href="{href}"/><File ovf:id="f1" ovf:href="data.vmdk"/>'))
    (facts,) = machine.read(str(inner))
    assert facts["disks"][0]["error"] and facts["disks"][0]["file"] is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_doctype_is_refused_in_any_encoding(folder: Path, encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE x [<!ENTITY a "aaaa">]>' + envelope().decode()
    (folder / "web.ovf").write_bytes(text.encode(encoding))
    with pytest.raises(BadInput, match="DOCTYPE"):
        machine.read(str(folder))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no XML"),
        (b"<x", "no XML"),
        (b"<x/>", "no Envelope"),
        (b"\x00\x01\x02", "no XML"),
        (envelope(item(ResourceType=17, HostResource="ovf:/disk/none")), "not in its disk section"),
        (envelope(files=""), "not among its references"),
        (envelope(item(ResourceType=3, VirtualQuantity=99999)), "number of processors"),
        (envelope(item(ResourceType=3, VirtualQuantity="-1")), "number of processors"),
        (envelope(item(ResourceType=4, VirtualQuantity=1, AllocationUnits="byte * 10^900")), "unknown unit"),
        (envelope(item(ResourceType=4, VirtualQuantity=1, AllocationUnits="parsecs")), "unknown unit"),
        (envelope(DISK0, disks=f'<Disk ovf:diskId="d0" ovf:fileRef="f0" ovf:capacity="{1 << 61}"/>'), "capacity"),
        (b"<Envelope>" + b"<a>" * 80 + b"</a>" * 80 + b"</Envelope>", "too deep"),
        (b"<Envelope>" + b"<a/>" * 200_001 + b"</Envelope>", "too large"),
        (b"<Envelope/>", "no virtual system"),
        (b" " * (ovf.MAX_BYTES + 1), "larger than"),
    ],
)
def test_descriptors_that_are_not_believed(data: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        ovf.parse(data, "x.ovf")


def test_only_the_default_configuration_counts() -> None:
    options = '<DeploymentOptionSection><Configuration ovf:id="s"/><Configuration ovf:id="l" ovf:default="true"/></DeploymentOptionSection>'
    small = item(attributes='ovf:configuration="s"', ResourceType=3, VirtualQuantity=1)
    large = item(attributes='ovf:configuration="l"', ResourceType=3, VirtualQuantity=8)
    bound = item(attributes='ovf:bound="max"', ResourceType=3, VirtualQuantity=32)
    (found,) = ovf.parse(envelope(large, small, bound, MEMORY, more=options), "x.ovf")
    assert found.cpus == 8


def test_controllers_are_counted_by_kind() -> None:
    second = item(Address=1, InstanceID=5, ResourceSubType="VirtualSCSI", ResourceType=6)
    sata = item(Address=0, InstanceID=6, ResourceSubType="vmware.sata.ahci", ResourceType=20)
    places = [item(AddressOnParent=0, HostResource="ovf:/disk/d0", ResourceType=17, Parent=p) for p in (5, 6, 4)]
    (found,) = ovf.parse(envelope(CPU, MEMORY, IDE, SCSI, second, sata, *places), "x.ovf")
    assert [(d.controller, d.bus) for d in found.disks] == [("pvscsi", 1), ("sata", 0), ("ide", 0)]


def test_the_machines_of_a_collection_are_told_by_name(folder: Path) -> None:
    text = envelope().decode()
    begin, end = text.index("<VirtualSystem "), text.index("</Envelope>")
    both = text[begin:end] + text[begin:end].replace("web 01", "db 01")
    (folder / "web.ovf").write_text(f"{text[:begin]}<VirtualSystemCollection>{both}</VirtualSystemCollection></Envelope>")
    assert [m["name"] for m in machine.read(str(folder))] == ["web 01", "db 01"]
    assert [m["name"] for m in machine.read(str(folder), name="db 01")] == ["db 01"]
    with pytest.raises(BadInput, match="not one machine named app"):
        machine.read(str(folder), name="app")


def test_a_delta_and_a_disk_that_is_missing_are_told_of_the_disk(folder: Path) -> None:
    disks = '<Disk ovf:diskId="d0" ovf:fileRef="f0" ovf:parentRef="d1"/><Disk ovf:diskId="d1" ovf:fileRef="f1"/>'
    (folder / "data.vmdk").unlink()
    (folder / "web.ovf").write_bytes(envelope(disks=disks))
    (facts,) = machine.read(str(folder))
    assert "delta" in facts["disks"][0]["error"] and facts["disks"][1]["error"]


def test_bare_disks_need_their_hardware_said(folder: Path) -> None:
    (folder / "web.ovf").unlink()
    (folder / "disk10.vmdk").write_bytes((folder / "data.vmdk").read_bytes())
    (folder / "disk9.vmdk").write_bytes((folder / "data.vmdk").read_bytes())
    (folder / "disk9-flat.vmdk").write_bytes(b"x")
    with pytest.raises(BadInput, match="hardware") as error:
        machine.read(str(folder))
    assert "cpus, memory_mb" in str(error.value.next_command)
    hardware: dict[str, Any] = {"cpus": 1, "memory_mb": 512, "nics": [{"network": "VM Network"}]}
    (facts,) = machine.read(str(folder), name="bare", hardware=hardware)
    assert [Path(d["file"]).name for d in facts["disks"]] == ["data.vmdk", "disk9.vmdk", "disk10.vmdk", "root.vmdk"]
    assert facts["disks"][0]["controller"] == "lsilogic" and facts["nics"][0]["type"] == "vmxnet3"


def test_what_is_said_wins_over_the_files(folder: Path) -> None:
    (facts,) = machine.read(str(folder), hardware={"cpus": 1, "firmware": "bios", "secure_boot": False, "controller": "pvscsi"})
    assert (facts["cpus"], facts["firmware"], facts["secure_boot"], facts["disks"][0]["controller"]) == (1, "bios", False, "pvscsi")


def test_nothing_and_too_much_to_choose_from(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(BadInput, match="no such file"):
        machine.read(str(folder / "none.ova"))
    with pytest.raises(BadInput, match="no disk in this folder"):
        machine.read(str(tmp_path_factory.mktemp("empty")))
    (folder / "second.ovf").write_bytes(envelope())
    with pytest.raises(BadInput, match="several machines"):
        machine.read(str(folder))


def test_an_ova_without_a_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "x.ova"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("disk.vmdk"), io.BytesIO(b""))
    with pytest.raises(BadInput, match="has no OVF descriptors"):
        machine.read(str(path))


# --- .vmx

VMX = """.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "17"
displayName = "db |22x|22"
guestOS = "windows2019srv-64"
firmware = "efi"
uefi.secureBoot.enabled = "TRUE"
numvcpus = "8"
cpuid.coresPerSocket = "4"
memSize = "4096"
scsi0.virtualDev = "pvscsi"
scsi0:0.fileName = "root.vmdk"
scsi0:1.fileName = "data.vmdk"
scsi0:1.present = "FALSE"
sata0:0.fileName = "tools.iso"
sata0:0.deviceType = "cdrom-image"
nvme0:0.fileName = "data.vmdk"
ethernet1.present = "TRUE"
ethernet1.virtualDev = "vmxnet3"
ethernet1.networkName = "backend"
ethernet1.address = "00:50:56:00:00:02"
ethernet0.present = "TRUE"
ethernet0.networkName = "VM Network"
ethernet2.present = "FALSE"
"""


def test_a_vmx_file() -> None:
    found = vmx.parse(VMX.encode(), "x.vmx")
    assert (found.name, found.guest_id, found.firmware, found.secure_boot) == ('db "x"', "windows2019srv_64Guest", "efi", True)
    assert (found.cpus, found.cores_per_socket, found.memory, found.hw_version) == (8, 4, 4 << 30, "vmx-17")
    assert [(d.href, d.controller, d.bus, d.unit) for d in found.disks] == [("root.vmdk", "pvscsi", 0, 0), ("data.vmdk", "nvme", 0, 0)]
    assert [(n.network, n.kind, n.mac) for n in found.nics] == [("VM Network", "e1000", None), ("backend", "vmxnet3", "00:50:56:00:00:02")]


def test_a_folder_with_a_vmx_file(folder: Path) -> None:
    (folder / "web.ovf").unlink()
    (folder / "db.vmx").write_text(VMX)
    (facts,) = machine.read(str(folder))
    assert [(d["label"], Path(d["file"]).name, d["controller_kind"]) for d in facts["disks"]] == [
        ("Hard disk 1", "root.vmdk", "scsi"),
        ("Hard disk 2", "data.vmdk", "nvme"),
    ]


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b'a = "b"\n', b"x" * (vmx.MAX_BYTES + 1)])
def test_what_is_no_vmx_file(data: bytes) -> None:
    with pytest.raises(BadInput):
        vmx.parse(data, "x.vmx")
