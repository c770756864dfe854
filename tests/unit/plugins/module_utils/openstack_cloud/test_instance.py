# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether this machine is a server of the cloud, and which device is a volume: from sysfs and udev's links as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, SinkError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import instance

VOLUME = "0b6f9d0e-5f0c-4f57-9d3c-8a1b2c3d4e5f"
SERVER = "7d1f3e2a-1111-4222-8333-944455556666"


def machine(root: Path, vendor: str = "OpenStack Foundation", product: str = "OpenStack Nova", uuid: str = SERVER.upper()) -> Path:
    dmi = root / "sys/class/dmi/id"
    dmi.mkdir(parents=True)
    for name, text in (("sys_vendor", vendor), ("product_name", product), ("product_uuid", uuid)):
        (dmi / name).write_text(text + "\n")
    return root


def block(root: Path, name: str, serial: str | None = None, page: bytes | None = None) -> None:
    folder = root / "sys/block" / name
    (folder / "device").mkdir(parents=True)
    if serial is not None:
        (folder / "serial").write_text(serial)
    if page is not None:
        (folder / "device/vpd_pg80").write_bytes(page)
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev" / name).touch()


def test_firmware_tables_name_the_server(tmp_path: Path) -> None:
    assert instance._from_firmware(machine(tmp_path / "a"), "") == SERVER
    assert instance._from_firmware(machine(tmp_path / "b", "Red Hat", "OpenStack Compute"), "") == SERVER
    assert instance._from_firmware(machine(tmp_path / "c", "VMware, Inc.", "VMware7,1"), "") is None
    assert instance._from_firmware(machine(tmp_path / "d", uuid="not a uuid"), "") is None
    assert instance._from_firmware(tmp_path / "nothing", "") is None


def test_os_brick_is_taken_where_it_is_asked_for_or_nothing_says_otherwise(tmp_path: Path) -> None:
    assert instance.find(None, "brick", None, "", root=machine(tmp_path / "a")) is None
    assert instance.find(None, "auto", None, "", root=tmp_path / "none") is None
    with pytest.raises(BadInput, match="no server of this cloud"):
        instance.find(None, "nova", None, "", root=tmp_path / "none")
    with pytest.raises(BadInput, match="not carrier pigeon"):
        instance.find(None, "carrier pigeon", None, "")
    with pytest.raises(BadInput, match="not the id of a server"):
        instance.find(None, "auto", "../servers", "", root=tmp_path)


def test_virtio_shows_the_beginning_of_the_id(tmp_path: Path) -> None:
    block(tmp_path, "vda", "ffffffff-5f0c-4f57-9")
    block(tmp_path, "vdb", VOLUME[:20])
    assert instance.device_of(VOLUME, tmp_path) == str(tmp_path / "dev/vdb")


def test_scsi_shows_all_of_it(tmp_path: Path) -> None:
    block(tmp_path, "sda", page=b"\0\x80\0\x24" + VOLUME.replace("0b6f", "0b6e").encode())
    block(tmp_path, "sdb", page=b"\0\x80\0\x24" + VOLUME.encode())
    assert instance.device_of(VOLUME, tmp_path) == str(tmp_path / "dev/sdb")


def test_udevs_link_where_the_kernel_says_nothing(tmp_path: Path) -> None:
    block(tmp_path, "sdc")
    links = tmp_path / "dev/disk/by-id"
    links.mkdir(parents=True)
    (links / f"scsi-0QEMU_QEMU_HARDDISK_{VOLUME[:20]}").symlink_to("../../sdc")
    (links / f"scsi-0QEMU_QEMU_HARDDISK_{VOLUME[:20]}-part1").symlink_to("../../sdc1")
    assert instance.device_of(VOLUME, tmp_path) == str(tmp_path / "dev/sdc")


def test_a_short_or_strange_serial_is_not_taken_for_it(tmp_path: Path) -> None:
    block(tmp_path, "vda", VOLUME[:8])
    block(tmp_path, "sda", page=b"")
    block(tmp_path, "sdb", page=b"\0\x80\0\x04\xff\xfe\xfd\xfc")
    assert instance.device_of(VOLUME, tmp_path) is None


def test_two_devices_of_one_serial_are_none(tmp_path: Path) -> None:
    block(tmp_path, "vdb", VOLUME[:20])
    block(tmp_path, "vdc", VOLUME[:20])
    with pytest.raises(SinkError, match="vdb, vdc"):
        instance.device_of(VOLUME, tmp_path)
