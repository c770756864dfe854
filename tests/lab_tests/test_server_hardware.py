# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk's controller on its way through image, volume, server, snapshot and image again, on the lab's real OpenStack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import (
    client,
    glance,
    hardware_check,
    images,
    snapshot_images,
    volume_properties,
    volumes,
)

MIB = 1 << 20
CLOUD = {"cloud": "lab"}
CONTROLLER = {"hw_disk_bus": "scsi", "hw_scsi_model": "lsilogic", "hw_vif_model": "e1000e", "hw_firmware_type": "bios"}


@pytest.fixture(scope="module")
def conn() -> Iterator[Any]:
    connection = client.connect(CLOUD)
    yield connection
    connection.close()


class World:
    """A volume from an image of ours, and a server that boots from it."""

    def __init__(self, conn: Any, folder: Path) -> None:
        self.conn = conn
        self.mark = f"hardware-{uuid.uuid4().hex[:8]}"
        self.source = str(uuid.uuid4())
        raw = folder / "disk.raw"
        with raw.open("wb") as out:
            out.truncate(4 * MIB)
            out.write(b"a disk")
        params = {"name": self.mark, "src": str(raw), "state": "present", "hypervisor": "kvm", "convert": "auto", "timeout": 60}
        machine = {"adapter_type": "lsilogic", "nic_type": "e1000e", "firmware": "bios", "guest_id": "debian12_64Guest"}
        self.image = glance.Upload(conn, {**params, **machine}, lambda phase, done, total: None).run()["image"]["id"]
        self.volume = self.make_volume()
        self.call("block_storage", "POST", "/snapshots", {"snapshot": {"volume_id": self.volume, "name": self.mark}})
        self.until(lambda: self.snapshots()[0]["status"] == "available")
        self.server = self.boot()

    def make_volume(self) -> str:
        body = {"size": 1, "name": self.mark, "imageRef": self.image, "metadata": {"ferry_source": self.source, "ferry_role": "root"}}
        made: str = self.call("block_storage", "POST", "/volumes", {"volume": body}).json()["volume"]["id"]
        volumes.wait_status(self.conn, made, ("available",), timeout=90)
        return made

    def boot(self) -> str:
        flavor = next(f["id"] for f in client.listing(self.conn, "compute", "/flavors", "flavors", step="test") if f["name"] == "m1.nano")
        disk = {"uuid": self.volume, "source_type": "volume", "destination_type": "volume", "boot_index": 0}
        body: dict[str, Any] = {"name": self.mark, "flavorRef": flavor, "networks": "none", "block_device_mapping_v2": [disk]}
        body["metadata"] = {"ferry_source": self.source, "ferry_vm": "legacy01"}
        made: str = self.call("compute", "POST", "/servers", {"server": body}, microversion="2.67").json()["server"]["id"]
        self.until(lambda: self.get("compute", f"/servers/{made}")["server"]["status"] == "ACTIVE")
        return made

    def snapshot(self) -> str:
        """An image as Nova makes it of a server that boots from a volume: the volume's snapshot, and no data.

        With the lab's Nova the snapshot of a volume in use never ends, so it was made before; tests/lab_tests/test_libvirt_bus.py
        has an image by Nova itself.
        """
        mapping = {"boot_index": 0, "snapshot_id": self.snapshots()[0]["id"], "source_type": "snapshot", "destination_type": "volume"}
        body = {"name": f"{self.mark}-snapshot", "disk_format": "raw", "container_format": "bare", "bdm_v2": "True"}
        made = images.create(self.conn, {**body, **CONTROLLER, "os_distro": "debian", "block_device_mapping": json.dumps([mapping])})
        return str(made["id"])

    def snapshots(self) -> list[dict[str, Any]]:
        rows = client.listing(self.conn, "block_storage", "/snapshots/detail", "snapshots", step="test")
        return [row for row in rows if row["volume_id"] == self.volume]

    def call(self, service: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        return client.call(self.conn, service, method, path, step="test", body=body, **more)

    def get(self, service: str, path: str) -> Any:
        return client.get(self.conn, service, path, step="test")

    def until(self, done: Any) -> None:
        end = time.monotonic() + 90
        while not done():
            assert time.monotonic() < end
            time.sleep(0.3)

    def facts(self, **more: Any) -> dict[str, Any]:
        """What vm_info says of the VM that the server was made for."""
        disk = {"key": 2000, "label": "Hard disk 1", "capacity": 4 * MIB, "controller": "VirtualLsiLogicController"}
        vm = {"name": "legacy01", "instance_uuid": self.source.upper(), "firmware": "bios", "guest_id": "debian12_64Guest"}
        return {**vm, "disks": [disk], "nics": [{"type": "e1000e"}], **more}

    def remove(self) -> None:
        if self.server:
            self.call("compute", "DELETE", f"/servers/{self.server}", allow=(404,))
            self.until(
                lambda: self.call("compute", "GET", f"/servers/{self.server}", allow=(404,)).status_code == 404,
            )
        for image in [*images.find(self.conn, f"{self.mark}-snapshot"), *images.find(self.conn, self.mark)]:
            images.delete(self.conn, image)
        volumes.wait_status(self.conn, self.volume, ("available",), timeout=60)
        for row in self.snapshots():
            self.call("block_storage", "DELETE", f"/snapshots/{row['id']}")
        self.until(lambda: not self.snapshots())
        self.call("block_storage", "DELETE", f"/volumes/{self.volume}")


@pytest.fixture(scope="module")
def world(conn: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(conn, tmp_path_factory.mktemp("hardware"))
    yield made
    made.remove()


def set_properties(world: World, **params: Any) -> dict[str, Any]:
    check = params.pop("check", False)
    return volume_properties.run({**CLOUD, "volume": world.volume, **params}, check=check)


def of_volume(world: World) -> dict[str, str]:
    found = volumes.get_volume(world.conn, world.volume).get("volume_image_metadata") or {}
    return {k: v for k, v in found.items() if k in CONTROLLER or k.startswith("vmware_")}


def check(**params: Any) -> dict[str, Any]:
    defaults = {"hypervisor": "kvm", "hardware": "source", "properties": {}, "device_names": False}
    return hardware_check.run({**CLOUD, **defaults, **params})


def test_a_volume_from_an_image_has_its_controller(world: World) -> None:
    assert of_volume(world) == CONTROLLER
    assert set_properties(world, image=world.image)["changed"] is False
    volumes.set_image_metadata(world.conn, world.volume, {"hw_disk_bus": "ide", "vmware_adaptertype": "ide"}, unset=("hw_scsi_model",))
    said = set_properties(world, image=world.mark, check=True)
    assert said["diff"]["after"]["image_properties"] == {"hw_disk_bus": "scsi", "hw_scsi_model": "lsilogic", "vmware_adaptertype": None}
    assert of_volume(world) != CONTROLLER
    assert set_properties(world, image=world.mark)["changed"] is True
    assert of_volume(world) == CONTROLLER
    assert set_properties(world, image=world.mark)["changed"] is False
    with pytest.raises(BadInput, match="no such image"):
        set_properties(world, image="nothing of this name")


def test_an_image_of_a_snapshot_gets_it_again(world: World) -> None:
    image = world.snapshot()
    kept = images.get_image(world.conn, image)
    assert "block_device_mapping" in kept
    # as older releases of Nova leave it, and as one that was made before the volume was mended has it
    images.change(world.conn, kept, {**dict.fromkeys(CONTROLLER), "vmware_adaptertype": "busLogic"})
    params = {**CLOUD, "image": f"{world.mark}-snapshot", "hypervisor": "kvm", "properties": {}}
    said = snapshot_images.run(params, check=True)
    assert (said["changed"], said["images"][0]["source"]) == (True, world.volume)
    assert said["diff"]["after"][image]["vmware_adaptertype"] is None
    assert "hw_disk_bus" not in images.get_image(world.conn, image)
    assert snapshot_images.run(params)["changed"] is True
    now = images.get_image(world.conn, image)
    assert {k: now.get(k) for k in CONTROLLER} == CONTROLLER
    assert ("vmware_adaptertype" in now, now["os_distro"]) == (False, "debian")
    assert snapshot_images.run(params)["changed"] is False
    of_server = snapshot_images.run({**CLOUD, "server": world.mark, "hypervisor": "kvm", "properties": {}})
    assert ([row["id"] for row in of_server["images"]], of_server["changed"]) == ([image], False)
    # An image that names neither its snapshot nor its server.
    bare = images.create(world.conn, {"name": f"{world.mark}-snapshot", "disk_format": "raw", "container_format": "bare"})["id"]
    with pytest.raises(BadInput, match="2 images of this name"):
        snapshot_images.run(params)
    with pytest.raises(BadInput, match="Nothing says which hardware") as e:
        snapshot_images.run({**params, "image": bare})
    assert e.value.code == "unknown_source"
    assert snapshot_images.run({**params, "image": bare, "source_volume": world.volume})["changed"] is True
    assert images.get_image(world.conn, bare)["hw_scsi_model"] == "lsilogic"


def test_servers_that_are_not_as_their_source_are_found(world: World) -> None:
    found = check(servers=[world.mark], vms=[world.facts()])
    row = found["servers"][0]
    assert (row["ok"], row["differs"], row["expected_from"], row["root_volume"], found["missing"]) == (True, [], "vm", world.volume, [])
    assert row["expected"] == {"disk_bus": "scsi", "scsi_model": "lsilogic", "nic_model": "e1000e", "firmware": "bios"}
    assert check(servers=[world.server])["servers"][0]["expected_from"] == "volume"
    assert world.server in [row["id"] for row in check()["servers"]]

    # Its guest was converted, and nobody told the volume.
    needs = {"disk_bus": "virtio", "nic_model": "virtio", "firmware": "bios", "machine": "q35"}
    other = {**world.facts(), "name": "other", "instance_uuid": str(uuid.uuid4())}
    found = check(servers=[world.mark], vms=[world.facts(target=needs), other])
    assert (found["wrong"], found["missing"]) == ([world.mark], ["other"])
    assert {(d["where"], d["field"], d["is"], d["should"]) for d in found["servers"][0]["differs"]} == {
        ("properties", "disk_bus", "scsi", "virtio"),
        ("properties", "nic_model", "e1000e", "virtio"),
        ("properties", "machine", None, "q35"),
    }
    with pytest.raises(BadInput, match="1 of 1 servers") as e:
        check(servers=[world.mark], vms=[world.facts(target=needs)], fail=True)
    assert (e.value.code, e.value.partial["wrong"]) == ("hardware", [world.mark])
    with pytest.raises(BadInput, match="there is none"):
        check(servers=["no such server"])


PLAY = """
- hosts: localhost
  gather_facts: false
  module_defaults:
    group/ferry.vmware.openstack:
      cloud: lab
  tasks:
    - name: The volume has its image's controller
      ferry.vmware.volume_image_properties:
        volume: "{{ volume }}"
        image: "{{ image }}"
    - name: An image of the server has it
      ferry.vmware.snapshot_image_properties:
        image: "{{ snapshot }}"
      register: mended
    - name: And so has the server
      ferry.vmware.server_bus_check:
        servers: ["{{ server }}"]
        device_names: false
        fail: true
    - name: One that does not is said
      ferry.vmware.server_bus_check:
        servers: ["{{ server }}"]
        vms: "{{ vms }}"
        device_names: false
        fail: true
      register: wrong
      failed_when: wrong.failure.code != 'hardware' or not wrong.servers[0].next
"""


@pytest.mark.long
def test_the_modules_in_a_play(world: World, tmp_path: Path) -> None:
    snapshot = next(i["id"] for i in images.find(world.conn, f"{world.mark}-snapshot") if i.get("block_device_mapping"))
    images.change(world.conn, images.get_image(world.conn, snapshot), {"hw_disk_bus": "ide", "hw_scsi_model": None})
    facts = [world.facts(target={"disk_bus": "virtio"})]
    play, variables = tmp_path / "play.yml", tmp_path / "vars.json"
    play.write_text(PLAY)
    variables.write_text(
        json.dumps({"volume": world.volume, "image": world.image, "snapshot": snapshot, "server": world.server, "vms": facts})
    )
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local", str(play), "-e", f"@{variables}"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert done.returncode == 0, done.stdout[-3000:]
    assert "changed=1 " in done.stdout, done.stdout[-3000:]
