# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Leases of volumes, the landing of a VM, and images, on the lab's real OpenStack."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy, Interrupted, ServerError, SinkError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, glance, images, landing, volumes

#: os-brick's libraries import eventlet where it is installed, which warns of every fork thereafter.
pytestmark = pytest.mark.filterwarnings("ignore:Using fork:DeprecationWarning")

MIB = 1 << 20
TOP = Path(__file__).resolve().parents[2]
#: A child that attaches the volume in argv[1] (state folder argv[2], host argv[3]) and dies without a word.
KILLED = """
import os, signal, sys
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, volumes
held = volumes.attach(client.connect({"cloud": "lab"}), sys.argv[1], state_dir=sys.argv[2], host=sys.argv[3], root_helper="")
with open(held.path, "r+b") as f:
    f.write(b"begun")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module", autouse=True)
def shims() -> Iterator[None]:
    """os-brick finds the lab's mount."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.environ['FERRY_LAB_SHIM']}:{os.environ['PATH']}")
        yield


@pytest.fixture(scope="module")
def conn() -> Iterator[Any]:
    connection = client.connect({"cloud": "lab"})
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def admin() -> Iterator[Any]:
    connection = client.connect({"cloud": "lab-admin"})
    yield connection
    connection.close()


def delete_volume(conn: Any, volume: str) -> None:
    for a in volumes.attachments_of(conn, volume):
        volumes.delete_attachment(conn, a.id)
    volumes.wait_status(conn, volume, ("available", "error"), timeout=60)
    client.call(conn, "block_storage", "DELETE", f"/volumes/{volume}", step="clean up")


@pytest.fixture
def volume(conn: Any) -> Iterator[str]:
    body = {"volume": {"size": 1, "name": f"lease-{uuid.uuid4().hex[:8]}"}}
    made = client.call(conn, "block_storage", "POST", "/volumes", step="make a volume", body=body).json()["volume"]["id"]
    volumes.wait_status(conn, made, ("available",), timeout=60)
    yield made
    delete_volume(conn, made)


def killed(volume: str, state: Path, host: str) -> None:
    child = subprocess.run([sys.executable, "-c", KILLED, volume, str(state), host], check=False, timeout=120)
    assert child.returncode == -signal.SIGKILL


def test_a_volume_has_one_writer_who_is_named(conn: Any, volume: str, tmp_path: Path) -> None:
    with volumes.attach(conn, volume, state_dir=str(tmp_path / "a"), host="mover-1", root_helper="") as held:
        assert (held.size, held.is_block, held.still_ours()) == (1 << 30, False, True)
        with open(held.path, "r+b") as f:
            f.write(b"bytes")
        assert [(a.host, a.ours, a.status) for a in volumes.attachments_of(conn, volume)] == [("mover-1", True, "attached")]
        with pytest.raises(Busy, match=f"process {os.getpid()} of this host"):
            volumes.attach(conn, volume, state_dir=str(tmp_path / "a"), host="mover-1", root_helper="")
        with pytest.raises(Busy, match="held by the host mover-1"):
            volumes.attach(conn, volume, state_dir=str(tmp_path / "b"), host="mover-2", root_helper="")
        assert held.still_ours()
    assert volumes.get_volume(conn, volume)["status"] == "available"
    with volumes.attach(conn, volume, state_dir=str(tmp_path / "a"), host="mover-1", root_helper="") as held, open(held.path, "rb") as f:
        assert f.read(5) == b"bytes"


def test_what_a_killed_process_left_is_found_and_removed(conn: Any, volume: str, tmp_path: Path) -> None:
    killed(volume, tmp_path, "mover-1")
    left = volumes.attachments_of(conn, volume)
    assert [a.host for a in left] == ["mover-1"]
    with volumes.attach(conn, volume, state_dir=str(tmp_path), host="mover-1", root_helper="") as held:
        assert held.attachment_id != left[0].id
        with open(held.path, "rb") as f:
            assert f.read(5) == b"begun"


def test_a_nameless_attachment_is_ours_only_where_we_died_while_attaching(conn: Any, volume: str, tmp_path: Path) -> None:
    body = {"attachment": {"volume_uuid": volume, "connector": None, "mode": "rw"}}
    body["attachment"].pop("connector")
    client.call(conn, "block_storage", "POST", "/attachments", step="reserve", body=body, microversion=volumes.ATTACHMENTS)
    with pytest.raises(Busy, match="unknown holder"):
        volumes.attach(conn, volume, state_dir=str(tmp_path), host="mover-1", root_helper="")
    (tmp_path / "volumes" / f"{volume}.lock").write_text('{"phase": "attaching", "pid": 1}')
    volumes.attach(conn, volume, state_dir=str(tmp_path), host="mover-1", root_helper="").detach()


def test_take_over_ends_the_other_host_s_lease(conn: Any, volume: str, tmp_path: Path) -> None:
    first = volumes.attach(conn, volume, state_dir=str(tmp_path / "a"), host="mover-1", root_helper="")
    second = volumes.attach(conn, volume, state_dir=str(tmp_path / "b"), host="mover-2", root_helper="", take_over=True)
    assert (first.still_ours(), second.still_ours()) == (False, True)
    first.detach()
    assert second.still_ours()
    second.detach()


def test_properties_metadata_and_flags_of_a_volume(conn: Any, volume: str) -> None:
    volumes.set_bootable(conn, volume, True)
    volumes.set_image_metadata(conn, volume, {"hw_disk_bus": "scsi", "hw_scsi_model": "vmpvscsi"})
    volumes.set_image_metadata(conn, volume, {}, unset=("hw_scsi_model", "never_there"))
    volumes.set_metadata(conn, volume, {"a": "1", "b": "2"})
    volumes.set_metadata(conn, volume, {"b": "3"}, unset=("a", "never_there"))
    volumes.rename(conn, volume, "レガシー 01")
    found = volumes.get_volume(conn, volume)
    assert (found["bootable"], found["volume_image_metadata"], found["metadata"], found["name"]) == (
        "true",
        {"hw_disk_bus": "scsi"},
        {"b": "3"},
        "レガシー 01",
    )


def test_a_volume_whose_file_is_an_overlay_is_not_written(conn: Any, volume: str, tmp_path: Path) -> None:
    """A snapshot on Cinder's NFS driver makes the volume's file a qcow2: raw bytes would destroy it."""
    body = {"snapshot": {"volume_id": volume, "name": "overlay"}}
    snapshot = client.call(conn, "block_storage", "POST", "/snapshots", step="snapshot", body=body).json()["snapshot"]["id"]
    _until(lambda: client.get(conn, "block_storage", f"/snapshots/{snapshot}", step="look")["snapshot"]["status"] == "available")
    with pytest.raises(SinkError, match="qcow2, not raw"):
        volumes.attach(conn, volume, state_dir=str(tmp_path), root_helper="")
    assert (volumes.attachments_of(conn, volume), volumes.get_volume(conn, volume)["status"]) == ([], "available")
    client.call(conn, "block_storage", "DELETE", f"/snapshots/{snapshot}", step="clean up")
    _until(lambda: client.call(conn, "block_storage", "GET", f"/snapshots/{snapshot}", step="look", allow=(404,)).status_code == 404)
    volumes.attach(conn, volume, state_dir=str(tmp_path), root_helper="").detach()


def test_a_volume_that_is_not_there(conn: Any, tmp_path: Path) -> None:
    with pytest.raises(ServerError) as e:
        volumes.attach(conn, str(uuid.uuid4()), state_dir=str(tmp_path), root_helper="")
    assert e.value.code == "not_found"
    with pytest.raises(BadInput):
        volumes.attach(conn, "../../etc/passwd", state_dir=str(tmp_path), root_helper="")


# -- landing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def vms(conn: Any, admin: Any) -> Iterator[list[dict[str, Any]]]:
    """Facts of one VM with two disks and two cards; what was made for it goes in the end."""
    mark = uuid.uuid4().hex[:6]
    mac = f"00:50:56:{int(mark[:2], 16) % 64:02x}:{mark[2:4]}:{mark[4:6]}"
    source = str(uuid.uuid4())
    disk = {"capacity": 300 * MIB + 512, "controller": "ParaVirtualSCSIController", "datastore": "ds"}
    yield [
        {
            "name": f"app {mark} 移行",
            "moref": "vm-1",
            "instance_uuid": source,
            "guest_id": "debian12_64Guest",
            "firmware": "efi",
            "cpus": 1,
            "memory_mb": 300,
            "boot_disks": [],
            "disks": [{**disk, "key": 2000 + i, "label": f"Hard disk {i + 1}"} for i in range(2)],
            "nics": [
                {"key": 4000, "label": "Network adapter 1", "mac": mac, "network": "web", "type": "vmxnet3"},
                {
                    "key": 4001,
                    "label": "Network adapter 2",
                    "mac": mac[:-1] + ("0" if mac[-1] != "0" else "1"),
                    "network": "backend",
                    "type": "vmxnet3",
                },
            ],
        }
    ]
    for s in client.listing(conn, "compute", "/servers/detail", "servers", step="clean up"):
        if s["metadata"].get("ferry_source") == source:
            client.call(conn, "compute", "DELETE", f"/servers/{s['id']}", step="clean up")
            conn.compute.wait_for_delete(conn.compute.get_server(s["id"]), interval=0.5, wait=60)
    for p in client.listing(admin, "network", "/ports", "ports", step="clean up"):
        if source in p["description"]:
            client.call(admin, "network", "DELETE", f"/ports/{p['id']}", step="clean up", allow=(404,))
    for v in client.listing(conn, "block_storage", "/volumes/detail", "volumes", step="clean up"):
        if v["metadata"].get("ferry_source") == source:
            delete_volume(conn, v["id"])


def plan_of(vms: list[dict[str, Any]]) -> dict[str, Any]:
    """The VM's entry of the plan, without Ansible."""
    params = {"cloud": "lab", "vms": vms, "network_map": {"web": "net-web", "backend": "net-backend"}}
    entry: dict[str, Any] = landing.plan_wave(params)["vms"][0]
    return entry


def land(vms: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Run the role's tasks; the VM's entry of the plan that they went by."""
    variables = folder / "vars.json"
    plan_file = folder / "plan.json"
    variables.write_text(json.dumps({"vms": vms, "plan_file": str(plan_file), "tasks": str(TOP / "roles" / "migrate" / "tasks")}))
    env = {
        **os.environ,
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
    }
    command = ["ansible-playbook", "-i", "localhost,", "-e", f"ansible_python_interpreter={sys.executable}", "-e", f"@{variables}"]
    done = subprocess.run(
        [*command, str(TOP / "tests" / "lab_tests" / "openstack_landing.yml")],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=0" not in done.stdout
    entry: dict[str, Any] = json.loads(plan_file.read_text())["vms"][0]
    return entry


@pytest.mark.long
def test_a_vm_lands_once_and_what_is_altered_is_mended(conn: Any, admin: Any, vms: list[dict[str, Any]], tmp_path: Path) -> None:
    first = land(vms, tmp_path)
    assert [v["state"] for v in first["volumes"]] == ["absent", "absent"]
    second = plan_of(vms)
    assert (second["todo"], second["drift"], second["changed"]) == ([], [], False)
    server, root, data, ports = second["server"]["id"], second["volumes"][0], second["volumes"][1], second["ports"]
    assert root["found"]["image_properties"] == {
        "hw_disk_bus": "scsi",
        "hw_firmware_type": "uefi",
        "hw_machine_type": "q35",
        "hw_scsi_model": "vmpvscsi",
        "hw_vif_model": "vmxnet3",
        "os_distro": "debian",
        "os_type": "linux",
        "os_version": "12",
    }
    assert sorted(second["server"]["found"]["volumes"]) == sorted([root["id"], data["id"]])  # Nova lists them in no order
    assert [p["found"]["mac"] for p in ports] == [n["mac"] for n in vms[0]["nics"]]
    shown = client.get(conn, "compute", f"/servers/{server}/os-interface", step="look")["interfaceAttachments"]
    assert {p["port_id"] for p in shown} == {p["id"] for p in ports}

    with pytest.raises(Busy, match=f"held by the server {server}"):
        volumes.attach(conn, root["id"], state_dir=str(tmp_path), root_helper="")

    def alter(service: str, method: str, path: str, body: Any = None) -> None:
        client.call(admin if service == "network" else conn, service, method, path, step="alter", body=body)

    volumes.rename(conn, root["id"], "stolen")
    volumes.set_bootable(conn, root["id"], False)
    volumes.set_image_metadata(conn, root["id"], {"hw_disk_bus": "ide"})
    volumes.set_metadata(conn, root["id"], {}, unset=("ferry_source",))
    alter("compute", "DELETE", f"/servers/{server}/os-volume_attachments/{data['id']}")
    volumes.wait_status(conn, data["id"], ("available",), timeout=60)
    alter("block_storage", "DELETE", f"/volumes/{data['id']}")
    alter("compute", "DELETE", f"/servers/{server}/os-interface/{ports[0]['id']}")
    _until(lambda: client.get(conn, "network", f"/ports/{ports[0]['id']}", step="look")["port"]["device_id"] == "")
    alter("network", "PUT", f"/ports/{ports[0]['id']}", {"port": {"mac_address": "fa:16:3e:00:00:99"}})
    alter("compute", "POST", f"/servers/{server}/os-interface", {"interfaceAttachment": {"port_id": ports[0]["id"]}})
    alter("network", "PUT", f"/ports/{ports[1]['id']}", {"port": {"name": "x"}})
    alter("compute", "PUT", f"/servers/{server}", {"server": {"name": "other"}})
    alter("compute", "POST", f"/servers/{server}/action", {"os-stop": None})
    _until(lambda: client.get(conn, "compute", f"/servers/{server}", step="look")["server"]["status"] == "SHUTOFF")

    third = land(vms, tmp_path)
    assert {(d["kind"], d["field"]) for d in third["drift"]} == {
        ("volume", "name"),
        ("volume", "bootable"),
        ("volume", "metadata ferry_source"),
        ("volume", "image property hw_disk_bus"),
        ("port", "mac_address"),
        ("port", "name"),
        ("server", "name"),
        ("server", "power"),
        ("server", "volumes"),
    }
    assert [t["disk"] for t in third["todo"]] == ["2001"]
    fourth = plan_of(vms)
    assert (fourth["todo"], fourth["drift"], fourth["changed"]) == ([], [], False)
    assert [p["found"]["mac"] for p in fourth["ports"]] == [n["mac"] for n in vms[0]["nics"]]
    assert fourth["server"]["id"] == server


def _until(done: Any) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.3)


# -- images -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def disks(tmp_path: Path) -> dict[str, Path]:
    """A disk of 32 MiB with some data, raw and as the VMDKs that qemu-img makes."""
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as f:
        f.truncate(32 * MIB)
        for at in range(0, 32, 5):
            f.seek(at * MIB)
            f.write(hashlib.shake_128(bytes([at])).digest(500_000))
    found = {"raw": raw}
    for kind in ("streamOptimized", "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse"):
        found[kind] = tmp_path / f"{kind}.vmdk"
        options = f"subformat={kind},adapter_type=lsilogic"
        subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "vmdk", "-o", options, str(raw), str(found[kind])], check=True)
    return found


@pytest.fixture
def name(conn: Any) -> Iterator[str]:
    chosen = f"image-{uuid.uuid4().hex[:8]}"
    yield chosen
    for image in images.find(conn, chosen):
        images.delete(conn, image)


def upload(conn: Any, name: str, *, progress: Any = None, check: bool = False, **params: Any) -> dict[str, Any]:
    defaults = {"name": name, "state": "present", "hypervisor": "kvm", "convert": "auto", "timeout": 120}
    return glance.Upload(conn, {**defaults, **params}, progress or (lambda phase, done, total: None), check=check).run()


@pytest.mark.parametrize("kind", ["streamOptimized", "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "raw"])
def test_any_disk_becomes_an_image_that_others_read(conn: Any, name: str, disks: dict[str, Path], kind: str, tmp_path: Path) -> None:
    result = upload(conn, name, src=str(disks[kind]))
    assert result["image"]["status"] == "active"
    assert result["converted_to"] == (None if kind in ("streamOptimized", "monolithicSparse") else "streamOptimized")
    assert result["sha512"] == result["image"]["os_hash_value"]
    assert result["bytes_sent"] == result["image"]["size"] < 16 * MIB
    back, plain = tmp_path / "back.vmdk", tmp_path / "back.raw"
    back.write_bytes(conn.image.download_image(result["image"]["id"]).content)
    subprocess.run(["qemu-img", "convert", "-q", "-f", "vmdk", "-O", "raw", str(back), str(plain)], check=True)
    assert plain.read_bytes() == disks["raw"].read_bytes()
    again = upload(conn, name, src=str(disks[kind]))
    assert (again["changed"], again["image"]["id"]) == (False, result["image"]["id"])


def test_a_cut_upload_uses_its_image_again(conn: Any, name: str, disks: dict[str, Path]) -> None:
    def cut(phase: str, done: int, total: int) -> None:
        if done > 10 * MIB:
            raise Interrupted("cut")

    with pytest.raises(Interrupted):
        upload(conn, name, src=str(disks["raw"]), progress=cut)
    left = images.find(conn, name)
    assert len(left) == 1
    assert upload(conn, name, src=str(disks["raw"]))["image"]["id"] == left[0]["id"]


def test_import_properties_and_protection(conn: Any, name: str, disks: dict[str, Path]) -> None:
    params = {
        "src": str(disks["monolithicFlat"]),
        "hypervisor": "vmware",
        "adapter_type": "pvscsi",
        "tags": ["t"],
        "protected": True,
        "members": ["x"],
    }
    image = upload(conn, name, import_method="glance-direct", **params)["image"]
    assert (image["vmware_disktype"], image["vmware_adaptertype"], image["protected"], image["tags"]) == (
        "streamOptimized",
        "paraVirtual",
        True,
        ["t"],
    )
    assert "hw_disk_bus" not in image
    images.change(conn, images.get_image(conn, image["id"]), {"vmware_adaptertype": "ide"})
    mended = upload(conn, name, **params)
    assert (mended["changed"], mended["image"]["vmware_adaptertype"]) == (True, "paraVirtual")
    with pytest.raises(BadInput):
        upload(conn, name, state="absent")
    upload(conn, name, **{**params, "protected": False})


def test_the_odd_boot_record_that_glance_refuses_as_raw_passes_converted(conn: Any, name: str, tmp_path: Path) -> None:
    odd = tmp_path / "odd.raw"
    odd.write_bytes(bytes(510) + b"\x55\xaa" + bytes(4 * MIB - 512))
    with pytest.raises(BadInput, match="safety checks"):
        upload(conn, name, src=str(odd), convert="never")
    assert upload(conn, name, src=str(odd))["image"]["status"] == "active"
