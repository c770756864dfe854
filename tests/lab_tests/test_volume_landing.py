# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks straight into their volumes: types per disk, what a volume must be, its tail, one that Cinder cannot make, and a host that is
a server of the cloud, to which Nova attaches them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy, FerryError, SinkError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, landing, volume_properties, volumes
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import disk_copy

from .copy_lab import DEFAULTS

#: os-brick's libraries import eventlet where it is installed, which warns of every fork thereafter.
pytestmark = pytest.mark.filterwarnings("ignore:Using fork:DeprecationWarning")

MIB = 1 << 20
TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def shims() -> Iterator[None]:
    """os-brick finds the lab's mount."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.environ['FERRY_LAB_SHIM']}:{os.environ['PATH']}")
        yield


@pytest.fixture(scope="module")
def conn() -> Iterator[Any]:
    with client.connect({"cloud": "lab"}) as connection:
        yield connection


@pytest.fixture(scope="module")
def admin() -> Iterator[Any]:
    with client.connect({"cloud": "lab-admin"}) as connection:
        yield connection


@pytest.fixture
def make(conn: Any) -> Iterator[Callable[..., str]]:
    """Makes volumes of 1 GiB; they go in the end."""
    made: list[str] = []

    def new(**options: Any) -> str:
        body = {"volume": {"size": 1, "name": f"landing-{uuid.uuid4().hex[:8]}", **options}}
        volume = str(client.call(conn, "block_storage", "POST", "/volumes", step="make", body=body).json()["volume"]["id"])
        made.append(volume)
        volumes.wait_status(conn, volume, ("available",), timeout=60)
        return volume

    yield new
    for volume in made:
        for a in volumes.attachments_of(conn, volume):
            volumes.delete_attachment(conn, a.id)
        volumes.wait_status(conn, volume, ("available",), timeout=60)
        delete(conn, volume)


def delete(conn: Any, volume: str) -> None:
    """Delete a volume and wait until it is gone: quotas count it until then."""
    client.call(conn, "block_storage", "DELETE", f"/volumes/{volume}", step="clean up")
    end = time.monotonic() + 90
    while client.call(conn, "block_storage", "GET", f"/volumes/{volume}", step="look", allow=(404,)).status_code != 404:
        assert time.monotonic() < end
        time.sleep(0.3)


def exported(volume: str) -> Path:
    """The file that Cinder's back end keeps the volume in."""
    return Path(os.environ["FERRY_LAB_DIR"]) / "openstack/cinder/export" / f"volume-{volume}"


def copy(source: Path, volume: str, ledger: Path, **more: Any) -> dict[str, Any]:
    disks = [{"disk": None, "dest": {"volume": volume}, "format": "raw"}]
    params = {**DEFAULTS, "source": str(source), "disks": disks, "ledger": str(ledger), "cloud": "lab", "root_helper": "", **more}
    row: dict[str, Any] = disk_copy.run(params)["disks"][0]
    return row


# -- the tail -----------------------------------------------------------------------------------------------------------


def test_garbage_behind_the_disk_is_zeroed_and_proven(make: Callable[..., str], tmp_path: Path) -> None:
    volume, source = make(), tmp_path / "disk.raw"
    source.write_bytes(os.urandom(3 * MIB + 1536))
    with exported(volume).open("r+b") as f:  # what a back end that clears nothing would leave
        f.write(b"\xaa" * (8 * MIB))
        f.seek((1 << 30) - 33 * 512)
        f.write(b"EFI PART" * 64)
    row = copy(source, volume, tmp_path / "ledger")
    assert row["tail_cleared"] > 0
    content = exported(volume).read_bytes()
    assert content[: 3 * MIB + 1536] == source.read_bytes()
    assert len(content) == 1 << 30 and not content[3 * MIB + 1536 :].strip(b"\0")
    assert "tail_cleared" not in copy(source, volume, tmp_path / "ledger")


# -- what a volume has to be ----------------------------------------------------------------------------------------------


def test_an_encrypted_type_is_verified_and_never_written_past_its_encryption(conn: Any, make: Callable[..., str], tmp_path: Path) -> None:
    secure, plain = make(volume_type="secure"), make()
    shown = volume_properties.run({"cloud": "lab", "volume": secure, "expect": {"encrypted": True, "multiattach": None}})
    assert (shown["changed"], shown["volume"]["encrypted"], shown["volume"]["multiattach"]) == (False, True, False)
    with pytest.raises(BadInput, match="it is not encrypted") as wrong:
        volume_properties.run({"cloud": "lab", "volume": plain, "expect": {"encrypted": True}, "name": "never"})
    assert wrong.value.code == "wrong_type" and volumes.get_volume(conn, plain)["name"] != "never"
    before = exported(secure).read_bytes()[:MIB]
    with pytest.raises(SinkError) as refused:
        volumes.attach(conn, secure, state_dir=str(tmp_path), root_helper="")
    assert refused.value.code in ("encrypted_volume", "not_raw")
    assert exported(secure).read_bytes()[:MIB] == before
    assert volumes.attachments_of(conn, secure) == []


def test_a_shared_volume_has_one_writer_all_the_same(conn: Any, make: Callable[..., str], tmp_path: Path) -> None:
    volume = make(volume_type="cluster")
    assert volumes.get_volume(conn, volume)["multiattach"] is True

    def attach(number: int) -> volumes.AttachedVolume | FerryError:
        with client.connect({"cloud": "lab"}) as own:
            try:
                held = volumes.attach(own, volume, state_dir=str(tmp_path / str(number)), host=f"mover-{number}", root_helper="")
            except FerryError as e:
                return e
            held.detach()
            return held

    with volumes.attach(conn, volume, state_dir=str(tmp_path / "a"), host="mover-a", root_helper="") as first:
        with pytest.raises(Busy, match="mover-a"):
            volumes.attach(conn, volume, state_dir=str(tmp_path / "b"), host="mover-b", root_helper="")
        assert first.still_ours()
        assert [a.id for a in volumes.attachments_of(conn, volume)] == [first.attachment_id]
    with ThreadPoolExecutor(3) as pool:
        got = list(pool.map(attach, range(3)))
    assert all(isinstance(g, volumes.AttachedVolume | Busy) for g in got), got
    assert volumes.attachments_of(conn, volume) == []


# -- a volume that Cinder cannot make, and a quota that ends midway --------------------------------------------------------


def facts(**disk: Any) -> list[dict[str, Any]]:
    """One VM with two disks and no cards."""
    source = str(uuid.uuid4())
    row = {"capacity": 300 * MIB, "controller": "ParaVirtualSCSIController", "datastore": "ds", **disk}
    return [
        {
            "name": f"vol {source[:6]}",
            "moref": "vm-1",
            "instance_uuid": source,
            "guest_id": "debian12_64Guest",
            "firmware": "efi",
            "secure_boot": True,
            "cpus": 1,
            "memory_mb": 300,
            "boot_disks": [],
            "disks": [{**row, "key": 2000 + i, "label": f"Hard disk {i + 1}", "address": f"scsi0:{i}"} for i in range(2)],
            "nics": [],
        }
    ]


def plan(vms: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The VM's entry of a plan that has no errors."""
    return dict(landing.plan_wave({"cloud": "lab", "vms": vms, "network_map": {}, **more})["vms"][0])


def make_volumes(entry: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the role's tasks for the volumes of an entry."""
    variables = folder / "vars.json"
    variables.write_text(json.dumps({"migrate_entry": entry, "tasks": str(TOP / "roles/migrate/tasks")}))
    env = {**os.environ, "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false", "ANSIBLE_NOCOLOR": "true"}
    command = ["ansible-playbook", "-i", "localhost,", "-e", f"ansible_python_interpreter={sys.executable}", "-e", f"@{variables}"]
    playbook = str(TOP / "tests/lab_tests/openstack_volumes.yml")
    return subprocess.run([*command, playbook], env=env, capture_output=True, text=True, check=False, timeout=300)


def volumes_of(conn: Any, vms: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By disk; it is an error when a disk has two."""
    found: dict[str, dict[str, Any]] = {}
    for v in client.listing(conn, "block_storage", "/volumes/detail", "volumes", step="look"):
        if v["metadata"].get("ferry_source") == vms[0]["instance_uuid"]:
            assert v["metadata"]["ferry_disk"] not in found
            found[v["metadata"]["ferry_disk"]] = v
    return found


@pytest.fixture
def vms(conn: Any) -> Iterator[list[dict[str, Any]]]:
    made = facts()
    yield made
    for v in volumes_of(conn, made).values():
        delete(conn, v["id"])


def test_each_disk_has_its_type_and_the_root_disk_its_firmware(conn: Any, vms: list[dict[str, Any]], tmp_path: Path) -> None:
    storage_map = {"ds": "fast", "Hard disk 2": {"type": "secure", "encrypted": True}}
    done = make_volumes(plan(vms, storage_map=storage_map), tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    found = volumes_of(conn, vms)
    assert [(v["volume_type"], v["encrypted"], v["size"], v["bootable"]) for _key, v in sorted(found.items())] == [
        ("fast", False, 1, "true"),
        ("secure", True, 1, "false"),
    ]
    said = found["2000"]["volume_image_metadata"]
    assert (said["hw_firmware_type"], said["hw_machine_type"], said["os_secure_boot"]) == ("uefi", "q35", "required")
    assert "volume_image_metadata" not in found["2001"]
    with pytest.raises(BadInput, match="it is not encrypted"):
        plan(vms, storage_map={"*": {"type": "fast", "encrypted": True}})


@pytest.mark.long
@pytest.mark.fault(
    "a volume's type does not encrypt, although it was asked for",
    where="target",
    ends="an error before a byte is in it",
)
def test_a_type_that_does_not_encrypt_is_found_before_a_byte_travels(conn: Any, vms: list[dict[str, Any]], tmp_path: Path) -> None:
    done = make_volumes(plan(vms, storage_map={"*": {"type": "fast", "encrypted": True}}), tmp_path)
    assert done.returncode != 0 and "it is not encrypted, as its type fast has it" in done.stdout


@pytest.mark.long
@pytest.mark.fault(
    "Cinder cannot make a volume: it has the status error",
    where="target",
    ends="the next run removes it, since nothing is in it, and makes it anew; one that holds something is left, and named",
)
def test_a_volume_in_error_is_made_anew_unless_it_holds_something(conn: Any, admin: Any, vms: list[dict[str, Any]], tmp_path: Path) -> None:
    assert make_volumes(plan(vms), tmp_path).returncode == 0
    first = volumes_of(conn, vms)

    def fail(volume: str, status: str) -> None:
        client.call(admin, "block_storage", "POST", f"/volumes/{volume}/action", step="alter", body={"os-reset_status": {"status": status}})

    fail(first["2001"]["id"], "error")
    entry = plan(vms)
    assert [v["replace"] for v in entry["volumes"]] == [None, first["2001"]["id"]]
    done = make_volumes(entry, tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    second = volumes_of(conn, vms)
    assert second["2000"]["id"] == first["2000"]["id"] and second["2001"]["id"] != first["2001"]["id"]
    assert second["2001"]["status"] == "available"
    volumes.set_metadata(conn, second["2001"]["id"], {"ferry_state": "complete", "ferry_digest": "xxh3-128:00"})
    fail(second["2001"]["id"], "error")
    try:
        with pytest.raises(BadInput, match=f"volume {second['2001']['id']} of disk Hard disk 2 has the status error"):
            plan(vms)
    finally:
        fail(second["2001"]["id"], "available")


@pytest.mark.long
@pytest.mark.fault(
    "the quota of volumes is used up by somebody else after the plan",
    where="target",
    ends="an error that says so; the next run goes on, each disk with one volume",
)
def test_a_quota_that_ends_midway(conn: Any, admin: Any, vms: list[dict[str, Any]], tmp_path: Path) -> None:
    project = conn.current_project_id
    used = admin.block_storage.get_quota_set(project, usage=True).usage["volumes"]
    entry = plan(vms)
    admin.block_storage.update_quota_set(project, volumes=used + 1)
    try:
        done = make_volumes(entry, tmp_path)
        assert done.returncode != 0 and "quota" in done.stdout.lower(), done.stdout[-3000:]
        assert list(volumes_of(conn, vms)) == ["2000"]
        with pytest.raises(BadInput, match="quota of volumes"):
            plan(vms)
    finally:
        admin.block_storage.update_quota_set(project, volumes=-1)
    done = make_volumes(plan(vms), tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    assert sorted(volumes_of(conn, vms)) == ["2000", "2001"]


# -- a conversion host that is a server of the cloud ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def hosts(conn: Any) -> Iterator[list[str]]:
    """Two servers that stand for conversion hosts: Nova's attachments are real, their machines are not."""
    made = []
    roots = []
    for number in range(2):
        body = {"volume": {"size": 1, "name": f"host-{number}"}}
        roots.append(client.call(conn, "block_storage", "POST", "/volumes", step="make", body=body).json()["volume"]["id"])
    for number, root in enumerate(roots):
        volumes.wait_status(conn, root, ("available",), timeout=60)
        volumes.set_bootable(conn, root, True)
        boot = {"boot_index": 0, "uuid": root, "source_type": "volume", "destination_type": "volume"}
        server = conn.compute.create_server(
            name=f"conversion-{number}",
            flavor_id=conn.compute.find_flavor("m1.nano").id,
            networks="none",
            block_device_mapping_v2=[boot],
        )
        made.append(server)
    for server in made:
        conn.compute.wait_for_server(server, interval=0.5, wait=120)
    yield [s.id for s in made]
    for server in made:
        conn.compute.delete_server(server)
    for server in made:
        conn.compute.wait_for_delete(server, interval=0.5, wait=60)
    for root in roots:
        volumes.wait_status(conn, root, ("available",), timeout=60)
        delete(conn, root)


@contextmanager
def kernel(conn: Any, server: str, volume: str, root: Path) -> Iterator[None]:
    """Stands in for the machine of a server: as soon as Nova attaches the volume to it, a device with its serial is there; then not."""
    end = threading.Event()
    block, device = root / "sys/block/vdb", root / "dev/vdb"
    block.mkdir(parents=True, exist_ok=True)
    device.parent.mkdir(parents=True, exist_ok=True)

    def watch() -> None:
        while not end.wait(0.2):
            there = any(a.server == server and a.status == "attached" for a in volumes.attachments_of(conn, volume))
            if there and not device.is_symlink():
                (block / "serial").write_text(volume[:20])
                device.symlink_to(exported(volume))
            elif not there and device.is_symlink():
                device.unlink()
                (block / "serial").unlink()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_nova_brings_the_volume_and_its_attachment_is_the_lease(
    conn: Any, make: Callable[..., str], hosts: list[str], tmp_path: Path
) -> None:
    volume = make()
    options: dict[str, Any] = {"way": "nova", "server": hosts[0], "root": tmp_path, "root_helper": ""}
    with kernel(conn, hosts[0], volume, tmp_path):
        with volumes.attach(conn, volume, state_dir=str(tmp_path / "a"), host="mover-1", **options) as held:
            assert (held.path, held.size, held.still_ours()) == (str(tmp_path / "dev/vdb"), 1 << 30, True)
            with open(held.path, "r+b") as f:
                f.write(b"by nova")
            assert [a.server for a in volumes.attachments_of(conn, volume)] == [hosts[0]]
            assert volumes.get_volume(conn, volume)["metadata"][volumes.HOLDER] == hosts[0]
            with pytest.raises(Busy, match="of this host"):
                volumes.attach(conn, volume, state_dir=str(tmp_path / "a"), host="mover-1", **options)
            with pytest.raises(Busy, match=f"held by the server {hosts[0]}"):
                volumes.attach(conn, volume, state_dir=str(tmp_path / "b"), host="mover-2", **{**options, "server": hosts[1]})
            with pytest.raises(Busy, match=f"held by the server {hosts[0]}"):
                volumes.attach(conn, volume, state_dir=str(tmp_path / "c"), host="mover-3", root_helper="")
    assert volumes.attachments_of(conn, volume) == []
    assert (volumes.get_volume(conn, volume)["status"], volumes.get_volume(conn, volume)["metadata"]) == ("available", {})
    assert exported(volume).read_bytes()[:7] == b"by nova"


#: A child that attaches the volume in argv[1] to the server argv[2] (state folder argv[3], root argv[4]) and dies without a word.
KILLED = """
import os, signal, sys
from pathlib import Path
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, volumes
volumes.attach(client.connect({"cloud": "lab"}), sys.argv[1], state_dir=sys.argv[3], host="mover-1", root_helper="", way="nova",
               server=sys.argv[2], root=Path(sys.argv[4]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.long
@pytest.mark.fault(
    "a conversion host that is a server of the cloud is killed while Nova has a volume attached to it",
    where="controller",
    ends="its next run detaches the volume and attaches it anew; another host gets it by take_over only, and never a guest's",
)
def test_what_a_killed_host_left_attached_by_nova(conn: Any, make: Callable[..., str], hosts: list[str], tmp_path: Path) -> None:
    volume = make()
    options: dict[str, Any] = {"way": "nova", "server": hosts[0], "root": tmp_path, "root_helper": "", "host": "mover-1"}
    state = str(tmp_path / "state")
    with kernel(conn, hosts[0], volume, tmp_path):
        child = subprocess.run([sys.executable, "-c", KILLED, volume, hosts[0], state, str(tmp_path)], check=False, timeout=120)
        assert child.returncode == -signal.SIGKILL
        # Without the lock that proves it a dead one's, an attachment to our own server might be anything of this machine's.
        with pytest.raises(Busy):
            volumes.attach(conn, volume, state_dir=str(tmp_path / "fresh"), **options)
        first = volumes.attach(conn, volume, state_dir=state, **options)
        other: dict[str, Any] = {**options, "server": hosts[1], "host": "mover-2", "root": tmp_path / "other"}
        with kernel(conn, hosts[1], volume, tmp_path / "other"):
            second = volumes.attach(conn, volume, state_dir=str(tmp_path / "other-state"), take_over=True, **other)
            assert (first.still_ours(), second.still_ours()) == (False, True)
            first.detach()
            assert second.still_ours()
            second.detach()
    # A guest's volume is not taken over: nothing says that its server is a conversion host.
    client.call(
        conn,
        "compute",
        "POST",
        f"/servers/{hosts[0]}/os-volume_attachments",
        step="attach",
        body={"volumeAttachment": {"volumeId": volume}},
    )
    volumes.wait_status(conn, volume, ("in-use",), timeout=60)
    with pytest.raises(Busy, match=f"held by the server {hosts[0]}"):
        volumes.attach(conn, volume, state_dir=str(tmp_path / "other-state"), take_over=True, **other)
    client.call(conn, "compute", "DELETE", f"/servers/{hosts[0]}/os-volume_attachments/{volume}", step="detach")
    volumes.wait_status(conn, volume, ("available",), timeout=60)


def test_a_server_that_this_cloud_does_not_know(conn: Any, make: Callable[..., str], tmp_path: Path) -> None:
    volume = make()
    with pytest.raises(BadInput, match="Nova does not show the server"):
        volumes.attach(conn, volume, state_dir=str(tmp_path), root_helper="", way="nova", server=str(uuid.uuid4()))
    # This machine is nobody's server: os-brick.
    with volumes.attach(conn, volume, state_dir=str(tmp_path), root_helper="", way="auto", root=tmp_path) as held:
        assert held.attachment_id


@pytest.mark.long
def test_a_device_that_never_appears_leaves_nothing_attached(
    conn: Any, make: Callable[..., str], hosts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = make()
    monkeypatch.setattr(volumes.instance, "DEVICE_TIMEOUT", 1.0)
    with pytest.raises(SinkError, match="no device with that serial appears"):
        volumes.attach(conn, volume, state_dir=str(tmp_path), root_helper="", way="nova", server=hosts[1], root=tmp_path)
    end = time.monotonic() + 60
    while volumes.get_volume(conn, volume)["status"] != "available":
        assert time.monotonic() < end
        time.sleep(0.3)
    assert volumes.attachments_of(conn, volume) == []
