# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook ferry.vmware.vmdk_import as a user runs it: an OVA becomes images, volumes and a server of the lab's OpenStack."""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, ready

from .import_site import KEY, MIB, PUBLIC, ImportSite, Run, descriptor, ova, raw_disk, stream

pytestmark = pytest.mark.filterwarnings("ignore:Using fork:DeprecationWarning")
SIZES = [6 * MIB, 3 * MIB]
NICS: list[tuple[str, str | None]] = [("VM Network", "00:50:56:9a:00:01"), ("VM Network", None), ("backend", "00:50:56:9a:00:03")]
VMX = """config.version = "8"
virtualHW.version = "19"
displayName = "old shop"
guestOS = "debian12-64"
numvcpus = "1"
memSize = "256"
scsi0.present = "TRUE"
scsi0.virtualDev = "lsilogic"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "old.vmdk"
ide1:0.present = "TRUE"
ide1:0.deviceType = "cdrom-image"
ide1:0.fileName = "../tools.iso"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "e1000"
ethernet0.networkName = "VM Network"
ethernet0.generatedAddress = "00:50:56:9a:00:09"
"""


class Greeter(threading.Thread):
    """A port that greets as an SSH server does: what a guest would, if the lab's hypervisor ran one."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])
        self.asked = 0

    def run(self) -> None:
        while True:
            try:
                link, _address = self.socket.accept()
            except OSError:
                return  # it was closed
            self.asked += 1
            with link:
                link.sendall(b"a line before the version\r\nSSH-2.0-test\r\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImportSite]:
    conn = client.connect({"cloud": "lab"})
    made = ImportSite(tmp_path_factory.mktemp("import"), conn)
    client.call(
        conn, "compute", "POST", "/os-keypairs", step="make a key", body={"keypair": {"name": KEY, "public_key": PUBLIC}}, allow=(409,)
    )
    yield made
    made.remove("shop", "old")
    client.call(conn, "compute", "DELETE", f"/os-keypairs/{KEY}", step="clean up", allow=(404,))
    conn.close()


@pytest.fixture(scope="module")
def greeter() -> Iterator[Greeter]:
    made = Greeter()
    made.start()
    yield made
    made.socket.close()


@pytest.fixture(scope="module")
def hosts(site: ImportSite, greeter: Greeter) -> dict[str, dict[str, Any]]:
    folder = site.folder / "old"
    folder.mkdir()
    stream(raw_disk(site.folder / "old-0.raw", 4 * MIB, 9), folder / "old.vmdk")
    (folder / "old.vmx").write_text(VMX, encoding="utf-8")
    check = {"address": "127.0.0.1", "port": greeter.port}
    return {
        "shop": {
            "ferry_files": str(ova(site.folder, "shop", SIZES, NICS, firmware="efi")),
            "ferry_landing": {"key_name": KEY, "config_drive": True, "nics": {1: {"network": "net-web", "fixed_ips": ["10.9.0.177"]}}},
            "ansible_python_interpreter": sys.executable,  # of the guest, which is this machine here
            "ferry_ready": [{**check, "kind": "port"}, {**check, "kind": "ssh"}, {"kind": "ansible", "connection": "local"}],
        },
        "old": {"ferry_files": str(folder)},
    }


VARIABLES: dict[str, Any] = {"ferry_constraints": [{"kind": "NE", "name": "shops", "vms": ["shop", "old"], "required": False}]}


@pytest.fixture(scope="module")
def imported(site: ImportSite, hosts: dict[str, Any]) -> Run:
    run = site.run(hosts, **VARIABLES)
    assert run.code == 0, run.out[-6000:]
    return run


def test_an_ova_becomes_a_server(site: ImportSite, imported: Run) -> None:
    server = site.server("shop")
    assert server is not None and server["status"] == "ACTIVE"
    assert (server["flavor"]["vcpus"], server["flavor"]["ram"]) == (2, 4096)
    volumes = site.volumes("shop")
    for index, (volume, size) in enumerate(zip(volumes, SIZES, strict=True)):
        assert site.bytes_of(volume["id"], size) == (site.folder / f"shop-{index}.raw").read_bytes(), "every byte has arrived"
        assert volume["metadata"]["ferry_state"] == "complete"
    root = volumes[0]["volume_image_metadata"]
    assert (root["hw_firmware_type"], root["hw_vif_model"]) == ("uefi", "vmxnet3") and root["hw_disk_bus"] in ("scsi", "sata")
    assert (root["hw_cpu_sockets"], root["hw_cpu_cores"]) == ("1", "2")
    assert [v["bootable"] for v in volumes] == ["true", "false"]


def test_a_folder_with_a_vmx_becomes_a_server(site: ImportSite, imported: Run) -> None:
    server = site.server("old")
    assert server is not None and server["status"] == "ACTIVE" and server["flavor"]["ram"] == 256
    (volume,) = site.volumes("old")
    assert site.bytes_of(volume["id"], 4 * MIB) == (site.folder / "old-0.raw").read_bytes()
    assert (volume["volume_image_metadata"]["hw_scsi_model"], volume["volume_image_metadata"]["hw_vif_model"]) == ("lsilogic", "e1000")
    assert [p["mac_address"] for p in site.ports("old")] == ["00:50:56:9a:00:09"]


def test_cards_in_their_order_two_on_one_network(site: ImportSite, imported: Run) -> None:
    ports = site.ports("shop")
    names = {n["id"]: n["name"] for n in client.listing(site.conn, "network", "/networks", "networks", step="look")}
    assert [names[p["network_id"]] for p in ports] == ["net-web", "net-web", "net-backend"]
    assert [ports[0]["mac_address"], ports[2]["mac_address"]] == ["00:50:56:9a:00:01", "00:50:56:9a:00:03"]
    assert [f["ip_address"] for f in ports[1]["fixed_ips"]] == ["10.9.0.177"]
    server = site.server("shop")
    assert server is not None
    interfaces = client.get(site.conn, "compute", f"/servers/{server['id']}/os-interface", step="look")["interfaceAttachments"]
    assert {i["port_id"] for i in interfaces} == {p["id"] for p in ports}


def test_group_key_and_config_drive(site: ImportSite, imported: Run) -> None:
    shop, old = site.server("shop"), site.server("old")
    assert shop is not None and old is not None
    groups = client.get(site.conn, "compute", "/os-server-groups", step="look", microversion="2.64")["server_groups"]
    (group,) = [g for g in groups if g["name"] == "ferry:shops"]
    assert group["policy"] == "soft-anti-affinity" and sorted(group["members"]) == sorted((shop["id"], old["id"]))
    assert shop["key_name"] == KEY and str(shop["config_drive"]).lower() == "true"


def test_disks_are_attached_in_the_order_of_the_plan(site: ImportSite, imported: Run) -> None:
    server = site.server("shop")
    assert server is not None
    devices = ready.devices_of(site.conn, server["id"])
    ids = [v["id"] for v in site.volumes("shop")]
    assert ready.in_order(devices, ids), devices


def test_what_the_user_names_was_asked(imported: Run, greeter: Greeter) -> None:
    assert greeter.asked >= 2
    assert re.search(r"Wait for Ansible's connection to the guest.*\nok: \[shop", imported.out), imported.out[-3000:]


def test_the_second_run_changes_nothing_and_sends_nothing(site: ImportSite, hosts: dict[str, Any], imported: Run) -> None:
    images = site.images("shop")
    again = site.run(hosts, **VARIABLES)
    assert again.code == 0, again.out[-4000:]
    assert set(again.changed.values()) == {0}
    assert [i["id"] for i in site.images("shop")] == [i["id"] for i in images]


def chunked(folder: Path, name: str, sizes: list[int]) -> Path:
    """A folder with an OVF descriptor whose disks lie in chunks beside it, as the specification's C(ovf:chunkSize) has them; their raws
    lie beside the folder."""
    made = folder / name
    made.mkdir()
    files = []
    for i, size in enumerate(sizes):
        path = stream(raw_disk(folder / f"{name}-{i}.raw", size, 40 + i), made / f"{name}-disk{i}.vmdk")
        data = path.read_bytes()
        step = len(data) // 3 + 1
        for number in range(3):
            (made / f"{path.name}.{number:09d}").write_bytes(data[number * step : (number + 1) * step])
        path.unlink()
        files.append((path.name, size, step))
    text = descriptor(name, [(file, size) for file, size, _step in files], [("VM Network", "00:50:56:9a:00:21")])
    for file, _size, step in files:
        text = text.replace(f'ovf:href="{file}"', f'ovf:href="{file}" ovf:chunkSize="{step}"')
    (made / f"{name}.ovf").write_text(text, encoding="utf-8")
    return made


@pytest.mark.long
def test_check_then_chunks_then_images_that_go(site: ImportSite) -> None:
    """One VM, from its plan to its last byte: C(--check) makes nothing, an OVF in chunks is read where it lies, its images go at the end."""
    name = "crates"
    hosts = {name: {"ferry_files": str(chunked(site.folder, name, SIZES))}}
    try:
        plan = site.run(hosts, "--check", vmdk_import_images="remove")
        assert plan.code == 0 and "Traceback" not in plan.out, plan.out[-5000:]
        assert (site.server(name), site.volumes(name), site.images(name), site.ports(name)) == (None, [], [], [])
        assert set(plan.changed.values()) != {0}, "it says what would be made"
        run = site.run(hosts, vmdk_import_images="remove")
        assert run.code == 0, run.out[-5000:]
        server = site.server(name)
        assert server is not None and server["status"] == "ACTIVE"
        for index, (volume, size) in enumerate(zip(site.volumes(name), SIZES, strict=True)):
            assert site.bytes_of(volume["id"], size) == (site.folder / f"{name}-{index}.raw").read_bytes()
        assert site.images(name) == []
        again = site.run(hosts, vmdk_import_images="remove")
        assert again.code == 0 and set(again.changed.values()) == {0}, again.out[-4000:]
        assert site.run(hosts, "--check", vmdk_import_images="remove").code == 0
        assert site.images(name) == []
    finally:
        site.remove(name)
