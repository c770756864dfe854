# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import disks

DEVICE = vim.vm.device
DISK = DEVICE.VirtualDisk


def info(label: str) -> Any:
    return vim.Description(label=label, summary="")


def devices() -> list[Any]:
    """A VM with a disk on each kind of controller, in an order that is none."""
    store = vim.Datastore("datastore-1")
    base = DISK.FlatVer2BackingInfo(fileName="[ds] a/a.vmdk", datastore=store, diskMode="persistent", thinProvisioned=True)
    running = DISK.FlatVer2BackingInfo(
        fileName="[ds] a/a-000001.vmdk",
        datastore=store,
        diskMode="persistent",
        parent=base,
        deltaDiskFormat="seSparseFormat",
        changeId="52 de/7",
        uuid="6000C290-0001-4c6e-9f01-7a1e5b1c0001",
    )
    rdm = DISK.RawDiskMappingVer1BackingInfo(
        fileName="[ds] a/rdm.vmdk",
        datastore=store,
        diskMode="independent_persistent",
        compatibilityMode="physicalMode",
        sharing="sharingMultiWriter",
    )
    plain = DISK.FlatVer2BackingInfo(
        fileName="[ds] a/i.vmdk", datastore=store, diskMode="persistent", eagerlyScrub=True, keyId=vim.encryption.CryptoKeyId(keyId="k")
    )
    return [
        DEVICE.VirtualNVMEController(key=31000, busNumber=0),
        DEVICE.ParaVirtualSCSIController(key=1001, busNumber=1, sharedBus="noSharing"),
        DISK(key=32000, controllerKey=31000, unitNumber=3, capacityInKB=2048, backing=plain, deviceInfo=info("Hard disk 3")),
        DISK(
            key=2016,
            controllerKey=1001,
            unitNumber=2,
            capacityInBytes=1048577,
            capacityInKB=1024,
            backing=rdm,
            deviceInfo=info("Hard disk 2"),
        ),
        DEVICE.VirtualCdrom(
            key=3002,
            controllerKey=201,
            unitNumber=0,
            backing=DEVICE.VirtualCdrom.RemotePassthroughBackingInfo(deviceName="", exclusive=False),
        ),
        DEVICE.VirtualIDEController(key=200, busNumber=0),
        DEVICE.VirtualAHCIController(key=15000, busNumber=0),
        DISK(key=16000, controllerKey=15000, unitNumber=0, capacityInKB=1, backing=plain),
        DISK(key=3000, controllerKey=200, unitNumber=1, capacityInKB=1024, backing=running, deviceInfo=info("Hard disk 1")),
    ]


@pytest.fixture
def found() -> list[disks.VmDisk]:
    return disks.map_disks(devices(), lambda moref: ("ds", "VMFS") if moref == "datastore-1" else (None, None), "folder/DC 0")


def test_disks_in_the_order_of_controllers(found: list[disks.VmDisk]) -> None:
    assert [d.address for d in found] == ["ide0:1", "scsi1:2", "sata0:0", "nvme0:3"]
    assert [d.capacity for d in found] == [1 << 20, 1048577, 1024, 2 << 20]
    assert [d.controller_kind for d in found] == ["ide", "scsi", "sata", "nvme"]
    assert [d.adapter for d in found] == ["ide", "pvscsi", "sata", "nvme"]
    assert found[2].label == "device 16000"


def test_chain_and_backing(found: list[disks.VmDisk]) -> None:
    ide, rdm, sata, unused = found
    assert (ide.path, ide.chain) == ("[ds] a/a-000001.vmdk", ("[ds] a/a-000001.vmdk", "[ds] a/a.vmdk"))
    assert (ide.backing, ide.change_id, ide.datastore, ide.datastore_type) == ("FlatVer2", "52 de/7", "ds", "VMFS")
    assert (rdm.backing, rdm.rdm_mode, rdm.mode, rdm.sharing) == (
        "RawDiskMappingVer1",
        "physicalMode",
        "independent_persistent",
        "sharingMultiWriter",
    )
    assert (rdm.thin, sata.eager, sata.encrypted, ide.encrypted) == (None, True, True, False)
    assert ide.url() == "/folder/a/a-000001.vmdk?dcPath=folder%2FDC%200&dsName=ds"


def test_a_datastore_that_may_not_be_read_keeps_the_name_of_its_path() -> None:
    found = disks.map_disks(devices(), lambda moref: (None, None), "DC0")
    assert {d.datastore for d in found} == {"ds"}
    assert {d.datastore_type for d in found} == {None}


@pytest.mark.parametrize(
    ("wanted", "key"),
    [
        ("Hard disk 2", 2016),
        ("hard disk 2", 2016),
        ("2016", 2016),
        (2016, 2016),
        ("scsi1:2", 2016),
        ("SCSI1.2", 2016),
        ("ide0:1", 3000),
        ("nvme0:3", 32000),
        ("sata0:0", 16000),
        ("6000c29000014c6e9f017a1e5b1c0001", 3000),
        ("6000C290-0001-4c6e-9f01-7a1e5b1c0001", 3000),
    ],
)
def test_a_disk_is_found_by(found: list[disks.VmDisk], wanted: str | int, key: int) -> None:
    assert disks.find_disk(found, wanted).key == key


def test_no_disk_and_two_disks_list_them(found: list[disks.VmDisk]) -> None:
    with pytest.raises(BadInput, match=r"Hard disk 1.*scsi1:2.*nvme0:3"):
        disks.find_disk(found, "scsi0:0", "vm")
    twins = [found[0], disks.VmDisk(**{**found[1].__dict__, "label": found[0].label})]
    with pytest.raises(BadInput, match="2 disks answer"):
        disks.find_disk(twins, "Hard disk 1")


@pytest.mark.parametrize(
    ("path", "datacenter", "datastore", "url"),
    [
        ("[ds1] web/web-flat.vmdk", "DC0", None, "/folder/web/web-flat.vmdk?dcPath=DC0&dsName=ds1"),
        ("[ds1] top.vmdk", None, None, "/folder/top.vmdk?dcPath=ha-datacenter&dsName=ds1"),
        (
            "[a [b]] x y/在庫#1?.vmdk",
            "f/DC&0",
            "a [b]",
            "/folder/x%20y/%E5%9C%A8%E5%BA%AB%231%3F.vmdk?dcPath=f%2FDC%260&dsName=a%20%5Bb%5D",
        ),
        ("[ds1] web/50%.vmdk", "DC%2f0", None, "/folder/web/50%25.vmdk?dcPath=DC%252f0&dsName=ds1"),
    ],
)
def test_urls(path: str, datacenter: str | None, datastore: str | None, url: str) -> None:
    assert disks.folder_url(path, datacenter, datastore) == url


@pytest.mark.parametrize("path", ["", "web/web.vmdk", "[ds1 web.vmdk", "[] web.vmdk"])
def test_what_is_no_datastore_path(path: str) -> None:
    with pytest.raises(BadInput):
        disks.split_path(path)


def test_nics_in_vspheres_order() -> None:
    card = DEVICE.VirtualEthernetCard
    up = DEVICE.VirtualDevice.ConnectInfo(startConnected=True, allowGuestControl=True, connected=True)
    down = DEVICE.VirtualDevice.ConnectInfo(startConnected=False, allowGuestControl=True, connected=False)
    port = vim.dvs.PortConnection(switchUuid="s", portgroupKey="dvportgroup-7")
    found = disks.map_nics(
        [
            DEVICE.VirtualE1000e(
                key=4002,
                macAddress="00:50:56:0A:00:03",
                connectable=down,
                backing=card.OpaqueNetworkBackingInfo(opaqueNetworkId="seg-1", opaqueNetworkType="nsx"),
            ),
            DEVICE.VirtualVmxnet3(
                key=4000,
                macAddress="00:50:56:0a:00:22",
                connectable=up,
                deviceInfo=info("Network adapter 1"),
                backing=card.DistributedVirtualPortBackingInfo(port=port),
            ),
            DEVICE.VirtualE1000(
                key=4001, macAddress="00:50:56:0a:00:11", connectable=up, backing=card.NetworkBackingInfo(deviceName="a%2fb")
            ),
        ],
        {"dvportgroup-7": "prod", "seg-1": "segment"}.get,
        [vim.vm.GuestInfo.NicInfo(deviceConfigId=4000, connected=True, ipAddress=["192.0.2.1", "fe80::1"])],
    )
    assert [(n.key, n.mac, n.type, n.network, n.connected, n.start_connected) for n in found] == [
        (4000, "00:50:56:0a:00:22", "vmxnet3", "prod", True, True),
        (4001, "00:50:56:0a:00:11", "e1000", "a/b", True, True),
        (4002, "00:50:56:0a:00:03", "e1000e", "segment", False, False),
    ]
    assert found[0].addresses == ("192.0.2.1", "fe80::1")
    assert found[0].portgroup == "dvportgroup-7"


def test_a_shared_bus_is_told_of_each_of_its_disks() -> None:
    controllers = [
        DEVICE.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing"),
        DEVICE.ParaVirtualSCSIController(key=1001, busNumber=1, sharedBus="physicalSharing"),
    ]
    backing = DISK.FlatVer2BackingInfo(fileName="[ds] a/a.vmdk", diskMode="persistent")
    made = [
        DISK(key=2000 + i, controllerKey=c.key, unitNumber=0, capacityInKB=1024, backing=backing, deviceInfo=info(f"Hard disk {i + 1}"))
        for i, c in enumerate(controllers)
    ]
    assert [d.bus_sharing for d in disks.map_disks([*controllers, *made], lambda moref: (None, None), None)] == [None, "physicalSharing"]
