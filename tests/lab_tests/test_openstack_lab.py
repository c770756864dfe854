# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collection relies on in OpenStack, asked of the lab's real servers; and the lab's own promises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator

import openstack
import pytest
from keystoneauth1.exceptions import ConnectFailure

MICROVERSION = "3.54"
MIB = 1 << 20
MOVER = Path(__file__).with_name("openstack_mover.py")


def shim() -> Path:
    return Path(os.environ["FERRY_LAB_SHIM"])


def checkout() -> Path:
    """The tree that the lab was started from; these tests may run from a copy of it without build/."""
    return shim().parents[3]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Any]:
    with openstack.connect(cloud="lab") as connection:
        yield connection


@pytest.fixture(scope="module")
def admin() -> Iterator[Any]:
    with openstack.connect(cloud="lab-admin") as connection:
        yield connection


@pytest.fixture
def new_volume(cloud: Any) -> Iterator[Any]:
    """Makes volumes of 1 GiB, and removes them with their attachments."""
    made = []

    def make(**options: Any) -> Any:
        volume = cloud.block_storage.create_volume(size=1, name=f"labtest-{uuid.uuid4().hex[:8]}", **options)
        made.append(volume)
        return cloud.block_storage.wait_for_status(volume, "available", ["error"], interval=0.2, wait=60)

    yield make
    for volume in made:
        for attachment in attachments(cloud, volume.id):
            cloud.block_storage.delete(f"/attachments/{attachment['id']}", microversion=MICROVERSION)
        cloud.block_storage.wait_for_status(cloud.block_storage.get_volume(volume.id), "available", ["error"], interval=0.2, wait=30)
        cloud.block_storage.delete_volume(volume)
    for volume in made:
        cloud.block_storage.wait_for_delete(volume, interval=0.2, wait=30)


def attachments(cloud: Any, volume: str) -> list[dict[str, Any]]:
    answer = cloud.block_storage.get(f"/attachments?volume_id={volume}", microversion=MICROVERSION)
    found: list[dict[str, Any]] = answer.json()["attachments"]
    return found


def attach(cloud: Any, volume: str, host: str | None) -> Any:
    """POST /attachments, with the connector of *host*, or without one: a reservation."""
    body: dict[str, Any] = {"volume_uuid": volume}
    if host is not None:
        body["connector"] = {"host": host, "ip": "127.0.0.1", "multipath": False, "os_type": "linux", "platform": "x86_64"}
        body["mode"] = "rw"
    return cloud.block_storage.post("/attachments", json={"attachment": body}, microversion=MICROVERSION)


def start_mover(volume: str, offset: int, then: str) -> subprocess.Popen[bytes]:
    env = os.environ | {"OS_CLOUD": "lab", "PATH": f"{shim()}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-W", "ignore", str(MOVER), volume, str(offset), then]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def status(cloud: Any, volume: str) -> str:
    return str(cloud.block_storage.get_volume(volume).status)


def test_movers_bytes_are_in_the_volume(cloud: Any, new_volume: Any) -> None:
    volume, data = new_volume(), os.urandom(MIB)
    mover = start_mover(volume.id, 3 * MIB, "detach")
    said, errors = mover.communicate(data, timeout=60)
    assert mover.returncode == 0, errors.decode()[-2000:]
    exported = Path(said.decode().strip())
    assert exported.name == f"volume-{volume.id}"
    assert exported.stat().st_size == 1024 * MIB
    with exported.open("rb") as file:
        assert file.read(3 * MIB) == bytes(3 * MIB)
        assert file.read(MIB) == data
    assert status(cloud, volume.id) == "available"


def test_one_of_many_movers_gets_the_volume(cloud: Any, new_volume: Any) -> None:
    volume = new_volume()
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: attach(cloud, volume.id, f"mover{n}"), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400, 400, 400]
    assert all("must be available or downloading to reserve" in answer.text for answer in answers if not answer.ok)
    assert status(cloud, volume.id) == "attaching"
    (lease,) = attachments(cloud, volume.id)
    done = cloud.block_storage.post(f"/attachments/{lease['id']}/action", json={"os-complete": lease["id"]}, microversion=MICROVERSION)
    assert done.status_code == 204
    assert status(cloud, volume.id) == "in-use"
    assert attach(cloud, volume.id, "late").status_code == 400
    assert attach(cloud, volume.id, None).status_code == 400
    # Who holds it can be written beside it: a member is not told the attachment's host.
    assert cloud.block_storage.set_volume_metadata(volume.id, ferry_state="copying").metadata["ferry_state"] == "copying"


def test_reservation_is_exclusive_but_its_update_is_not(cloud: Any, new_volume: Any) -> None:
    volume = new_volume()
    reserved = attach(cloud, volume.id, None).json()["attachment"]
    assert status(cloud, volume.id) == "reserved"
    assert attach(cloud, volume.id, None).status_code == 400
    assert attach(cloud, volume.id, "mover1").status_code == 400
    for host in ("mover1", "mover2"):  # why a lease is a POST with a connector, never a PUT
        body = {"attachment": {"connector": {"host": host, "ip": "127.0.0.1", "multipath": False}}}
        assert cloud.block_storage.put(f"/attachments/{reserved['id']}", json=body, microversion=MICROVERSION).status_code == 200


def test_volume_of_a_killed_mover_is_found_and_freed(cloud: Any, new_volume: Any) -> None:
    volume = new_volume()
    mover = start_mover(volume.id, 0, "wait")
    assert mover.stdin is not None
    assert mover.stdout is not None
    mover.stdin.write(b"half")
    mover.stdin.close()
    mover.stdout.readline()
    mover.send_signal(signal.SIGKILL)
    mover.wait(10)
    mover.stdout.close()
    assert mover.stderr is not None
    mover.stderr.close()
    assert status(cloud, volume.id) == "in-use"
    (left,) = attachments(cloud, volume.id)
    assert left["instance"] is None  # no server's: a mover's
    gone = cloud.block_storage.delete(f"/attachments/{left['id']}", microversion=MICROVERSION)
    assert gone.status_code == 200
    assert cloud.block_storage.delete(f"/attachments/{left['id']}", microversion=MICROVERSION).status_code == 404
    assert status(cloud, volume.id) == "available"
    assert attach(cloud, volume.id, "next").status_code == 200


def test_server_of_two_volumes_and_two_ports_in_order(cloud: Any, new_volume: Any) -> None:
    volumes = [new_volume(), new_volume()]
    cloud.block_storage.set_volume_bootable_status(volumes[0], True)
    macs = {"net-web": "00:50:56:3a:00:01", "net-backend": "00:50:56:3a:00:02"}
    ports = [cloud.network.create_port(network_id=cloud.network.find_network(net).id, mac_address=mac) for net, mac in macs.items()]
    for port in ports:
        cloud.network.set_tags(port, ["ferry_source=lab"])  # given to create_port() they are lost without a word
    server = cloud.compute.create_server(
        name="labtest-server",
        flavor_id=cloud.compute.find_flavor("m1.nano").id,
        networks=[{"port": port.id} for port in ports],
        block_device_mapping_v2=[
            {"boot_index": n, "uuid": volume.id, "source_type": "volume", "destination_type": "volume"} for n, volume in enumerate(volumes)
        ],
    )
    try:
        server = cloud.compute.wait_for_server(server, interval=0.5, wait=60)
        assert server.status == "ACTIVE"
        attached = {a.volume_id: a.device for a in cloud.compute.volume_attachments(server)}
        assert [attached[volume.id] for volume in volumes] == sorted(attached.values())
        interfaces = {i.port_id: i.mac_addr for i in cloud.compute.server_interfaces(server)}
        assert [interfaces[port.id] for port in ports] == list(macs.values())
        assert [cloud.network.get_port(port.id).tags for port in ports] == [["ferry_source=lab"]] * 2
        # A volume that a server has is refused to movers, and its attachment is not ours to delete.
        assert attach(cloud, volumes[0].id, "mover").status_code == 400
        (held,) = attachments(cloud, volumes[0].id)
        assert held["instance"] == server.id
        assert cloud.block_storage.delete(f"/attachments/{held['id']}", microversion=MICROVERSION).status_code == 409
    finally:
        cloud.compute.delete_server(server)
        cloud.compute.wait_for_delete(server, interval=0.5)
        for port in ports:
            cloud.network.delete_port(port)


def test_image_metadata_of_a_volume(cloud: Any, new_volume: Any) -> None:
    volume, wanted = new_volume(volume_type="fast"), {"hw_disk_bus": "scsi", "hw_scsi_model": "virtio-scsi"}
    body = {"os-set_image_metadata": {"metadata": wanted}}
    assert cloud.block_storage.post(f"/volumes/{volume.id}/action", json=body).status_code == 200
    found = cloud.block_storage.get_volume(volume.id)
    assert found.volume_image_metadata == wanted
    assert found.volume_type == "fast"


def test_stream_optimized_image_becomes_a_volume(cloud: Any, new_volume: Any, tmp_path: Path) -> None:
    raw, vmdk = tmp_path / "disk.raw", tmp_path / "disk.vmdk"
    data = os.urandom(2 * MIB)
    raw.write_bytes(bytes(4 * MIB) + data + bytes(2 * MIB))
    subprocess.run(["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", str(raw), str(vmdk)], check=True)
    properties = {"disk_format": "vmdk", "container_format": "bare", "vmware_disktype": "streamOptimized"}
    with vmdk.open("rb") as file:
        image = cloud.image.create_image("labtest-image", data=file, wait=True, **properties)
    try:
        image = cloud.image.get_image(image.id)
        assert image.status == "active"
        assert image.virtual_size == 8 * MIB
        volume = new_volume(image_id=image.id)
        answer = attach(cloud, volume.id, "reader").json()["attachment"]["connection_info"]
        with open(Path(answer["export"].partition(":")[2], answer["name"]), "rb") as file:
            file.seek(4 * MIB)
            assert file.read(2 * MIB) == data
    finally:
        cloud.image.delete_image(image.id)


def test_full_target_can_be_made(cloud: Any, admin: Any) -> None:
    project = admin.identity.find_project("ferry")
    used = admin.block_storage.get_quota_set(project, usage=True).usage["gigabytes"]
    admin.block_storage.update_quota_set(project, gigabytes=used + 1)  # less than what is used is refused
    try:
        with pytest.raises(openstack.exceptions.HttpException, match="exceeds allowed gigabytes quota") as refused:
            cloud.block_storage.create_volume(size=used + 2)
        assert refused.value.status_code == 413
    finally:
        admin.block_storage.update_quota_set(project, gigabytes=-1)


def test_one_service_can_fail_and_come_back(cloud: Any) -> None:
    def command(verb: str) -> None:
        subprocess.run([sys.executable, "-m", "tests.lab.openstack", verb, "glance"], cwd=checkout(), check=True, timeout=120)

    command("stop")
    try:
        # Without the SDK's retries of a refused connection.
        endpoint = cloud.image.get_endpoint()
        with pytest.raises(ConnectFailure):
            cloud.session.get(f"{endpoint}/v2/images", connect_retries=0)
        assert list(cloud.block_storage.volumes()) is not None
    finally:
        command("start")
    assert list(cloud.image.images()) is not None


LAB = """
import sys
from pathlib import Path
from tests.lab.openstack import OpenStack
lab = OpenStack(Path(sys.argv[1]), Path("build/venv-openstack"), int(sys.argv[2]))
for verb in sys.argv[3:]:
    print({"up": lambda: lab.up(["keystone"]), "down": lab.down, "status": lab.status}[verb]())
"""


def processes_of(folder: Path) -> list[int]:
    """Whose environment names the lab's folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_killed_lab_beside_this_one_starts_again(tmp_path: Path) -> None:
    state, port = tmp_path / "second-lab", int(os.environ.get("FERRY_LAB_BASE") or 21000) + 60

    def lab(*verbs: str) -> None:
        subprocess.run([sys.executable, "-c", LAB, str(state), str(port), *verbs], cwd=checkout(), check=True, timeout=200)

    def log_in() -> None:
        config = openstack.config.OpenStackConfig(config_files=[str(state / "clouds.yaml")], load_envvars=False)
        with openstack.connection.Connection(config=config.get_one("lab-admin")) as connection:
            assert connection.identity.find_user("ferry") is not None
            assert f":{port + 4}/" in connection.compute.get_endpoint()

    lab("up")
    try:
        log_in()
        assert (state / "clouds.yaml").stat().st_mode & 0o077 == 0
        for pid in processes_of(state):
            os.kill(pid, signal.SIGKILL)
        lab("up")
        log_in()
    finally:
        lab("down")
    deadline = time.monotonic() + 5
    while processes_of(state) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(state) == []
