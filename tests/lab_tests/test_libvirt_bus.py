# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller that an image asks for, in libvirt's XML of the running server: through a volume, and through a snapshot's image."""

from __future__ import annotations

import time
import uuid
from typing import Any, Collection, Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import (
    client,
    glance,
    hardware_check,
    images,
    snapshot_images,
    volume_properties,
    volumes,
)
from tests.lab import guest
from tests.lab_tests import libvirt_lab

pytestmark = [pytest.mark.long, libvirt_lab.needs_libvirt]

CLOUD = {"cloud": "lab"}


class Cloud:
    """What the test makes, and takes away again."""

    def __init__(self) -> None:
        self.conn = client.connect(CLOUD)
        self.mark = f"bus-{uuid.uuid4().hex[:8]}"

    def call(self, service: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        return client.call(self.conn, service, method, path, step="test", body=body, **more)

    def rows(self, service: str, path: str, key: str) -> list[dict[str, Any]]:
        return list(client.listing(self.conn, service, path, key, step="test"))

    def until(self, done: Any, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end
            time.sleep(0.5)

    def image(self, source: str, adapter: str) -> str:
        params = {"name": self.mark, "src": source, "state": "present", "hypervisor": "kvm", "convert": "auto", "timeout": 120}
        machine = {"adapter_type": adapter, "nic_type": "e1000e", "firmware": "bios"}
        made: str = glance.Upload(self.conn, {**params, **machine}, lambda phase, done, total: None).run()["image"]["id"]
        return made

    def volume(self, **what: Any) -> str:
        made: str = self.call("block_storage", "POST", "/volumes", {"volume": {"size": 1, "name": self.mark, **what}}).json()["volume"][
            "id"
        ]
        volumes.wait_status(self.conn, made, ("available",), timeout=120)
        return made

    def server(self, disk: dict[str, Any]) -> str:
        flavor = next(f["id"] for f in self.rows("compute", "/flavors", "flavors") if f["name"] == "m1.micro")
        body: dict[str, Any] = {"name": self.mark, "flavorRef": flavor, "networks": "none"}
        body["block_device_mapping_v2"] = [{"destination_type": "volume", "boot_index": 0, **disk}]
        made: str = self.call("compute", "POST", "/servers", {"server": body}, microversion="2.67").json()["server"]["id"]
        self.until(lambda: self.status(made) != "BUILD")
        assert self.status(made) == "ACTIVE"
        return made

    def status(self, server: str) -> str:
        return str(client.get(self.conn, "compute", f"/servers/{server}", step="test")["server"]["status"])

    def stop(self, server: str) -> None:
        self.call("compute", "DELETE", f"/servers/{server}")
        self.until(lambda: self.call("compute", "GET", f"/servers/{server}", allow=(404,)).status_code == 404)

    def clear(self) -> None:
        for server in self.rows("compute", "/servers/detail", "servers"):
            if server["name"] == self.mark:
                self.stop(server["id"])
        for image in [*images.find(self.conn, self.mark), *images.find(self.conn, f"{self.mark}-snapshot")]:
            images.delete(self.conn, image)
        # A volume made of a snapshot goes before it, and it before the volume that it was made of.
        made = {row["id"] for row in self.snapshots()}
        for volume in sorted(self.volumes(made), key=lambda v: v["snapshot_id"] not in made):
            if volume["snapshot_id"] not in made:
                for row in self.snapshots():
                    self.call("block_storage", "DELETE", f"/snapshots/{row['id']}", allow=(404,))
                self.until(lambda: not self.snapshots())
            self.until(lambda i=volume["id"]: volumes.get_volume(self.conn, i)["status"] in ("available", "error"))
            self.call("block_storage", "DELETE", f"/volumes/{volume['id']}")
            self.until(lambda i=volume["id"]: self.call("block_storage", "GET", f"/volumes/{i}", allow=(404,)).status_code == 404)

    def volumes(self, snapshots: Collection[str] = ()) -> list[dict[str, Any]]:
        """Ours, and those that Nova made of one of C(snapshots)."""
        found = self.rows("block_storage", "/volumes/detail", "volumes")
        return [v for v in found if v["name"] == self.mark or v["snapshot_id"] in snapshots]

    def snapshots(self) -> list[dict[str, Any]]:
        """Those of our volumes."""
        mine = {v["id"] for v in self.volumes()}
        return [row for row in self.rows("block_storage", "/snapshots/detail", "snapshots") if row["volume_id"] in mine]


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    yield made
    made.clear()
    made.conn.close()


def check(server: str, **facts: Any) -> dict[str, Any]:
    defaults = {"hypervisor": "kvm", "hardware": "source", "properties": {}, "device_names": True}
    row: dict[str, Any] = hardware_check.run({**CLOUD, **defaults, "servers": [server], **facts})["servers"][0]
    return row


def running(server: str) -> tuple[str, str | None]:
    """(bus, model of the controller) of its disk, by libvirt."""
    disk = libvirt_lab.buses(libvirt_lab.domain(server))[0]
    return disk.bus, disk.controller


def test_the_controller_stays_on_its_way(cloud: Cloud) -> None:
    """Image to volume to server, the server's snapshot to an image and from it to a server: pvscsi each time."""
    image = cloud.image(str(guest.build("bios").root), "pvscsi")
    volume = cloud.volume(imageRef=image)
    assert volume_properties.run({**CLOUD, "volume": volume, "image": image})["changed"] is False
    first = cloud.server({"uuid": volume, "source_type": "volume"})
    assert running(first) == ("scsi", "vmpvscsi")
    row = check(first, domains=[libvirt_lab.virsh("dumpxml", first)])
    assert (row["ok"], row["differs"], row["domain"]["disks"][0]["volume"]) == (True, [], volume)

    body = {"createImage": {"name": f"{cloud.mark}-snapshot"}}
    snapshot = cloud.call("compute", "POST", f"/servers/{first}/action", body, microversion="2.67").json()["image_id"]
    cloud.until(lambda: images.get_image(cloud.conn, snapshot)["status"] == "active")
    cloud.until(lambda: all(row["status"] == "available" for row in cloud.snapshots()))
    # As it is where the properties got lost: without them a server from it gets virtio.
    images.change(cloud.conn, images.get_image(cloud.conn, snapshot), {"hw_disk_bus": None, "hw_scsi_model": None})
    assert snapshot_images.run({**CLOUD, "image": snapshot, "hypervisor": "kvm", "properties": {}})["changed"] is True
    cloud.stop(first)
    flavor = next(f["id"] for f in cloud.rows("compute", "/flavors", "flavors") if f["name"] == "m1.micro")
    again = {"name": cloud.mark, "flavorRef": flavor, "networks": "none", "imageRef": snapshot}
    second = cloud.call("compute", "POST", "/servers", {"server": again}, microversion="2.67").json()["server"]["id"]
    cloud.until(lambda: cloud.status(second) != "BUILD")
    assert cloud.status(second) == "ACTIVE"
    assert running(second) == ("scsi", "vmpvscsi")


def test_a_server_on_the_wrong_bus_is_found(cloud: Cloud) -> None:
    """Its volume was mended after it was made: only Nova's names and libvirt's XML tell that it runs on the old bus."""
    image = cloud.image(str(guest.build("bios").root), "ide")
    volume = cloud.volume(imageRef=image)
    volume_properties.run({**CLOUD, "volume": volume, "properties": {"hw_disk_bus": "virtio"}})
    server = cloud.server({"uuid": volume, "source_type": "volume"})
    assert running(server)[0] == "virtio"
    assert check(server)["ok"] is True
    volume_properties.run({**CLOUD, "volume": volume, "image": image})
    row = check(server, domains=[libvirt_lab.virsh("dumpxml", server)])
    assert {(d["where"], d["field"], d["is"], d["should"]) for d in row["differs"]} == {
        ("nova", "disk_bus", "virtio", "ide"),
        ("libvirt", "disk_bus", "virtio", "ide"),
    }
    assert "make it anew" in row["next"]
    # That helps: the same volume, a new server.
    cloud.stop(server)
    cloud.until(lambda: volumes.get_volume(cloud.conn, volume)["status"] == "available")
    server = cloud.server({"uuid": volume, "source_type": "volume"})
    assert running(server)[0] == "ide"
    assert check(server, domains=[libvirt_lab.virsh("dumpxml", server)])["ok"] is True
