# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands beside a migration in a real cloud, and must stand there afterwards: the machine that copies, servers, ports and snapshots
of other people. And a source that must not be deleted yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openstack
import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import images, matching, undo
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.target import Target
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import cleanup, commit

from .undo_site import UndoSite, undo_site

NAMES = ("moved 在庫", "half", "left out", "imaged")
MARKED = "adversary"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UndoSite]:
    with undo_site(tmp_path_factory.mktemp("adversary"), NAMES, "8a0e") as made:
        yield made


@contextmanager
def image(site: UndoSite, **properties: str) -> Iterator[Any]:
    """A small image of somebody's."""
    made = site.cloud.image.create_image(MARKED, disk_format="raw", container_format="bare", data=b"\0" * 512, **properties)
    try:
        yield site.cloud.image.get_image(made.id)
    finally:
        for row in list(site.cloud.image.images()):
            if row.name.startswith(MARKED):
                site.cloud.image.delete_image(row)


@contextmanager
def somebodys(site: UndoSite, image_id: str, **more: Any) -> Iterator[Any]:
    """A server that no migration has made, from an image."""
    compute = site.cloud.compute
    with openstack.connect(cloud="lab-admin") as admin:
        # Nova takes an image only with a flavor that has room for it
        flavor = admin.compute.create_flavor(name=MARKED, ram=64, vcpus=1, disk=1)
        try:
            made = compute.create_server(name=MARKED, flavor_id=flavor.id, image_id=image_id, **{"networks": "none", **more})
            try:
                yield compute.wait_for_server(made, interval=0.3, wait=120)
            finally:
                compute.delete_server(made, ignore_missing=True)
                compute.wait_for_delete(made, interval=0.3, wait=120)
        finally:
            admin.compute.delete_flavor(flavor)


def clean(site: UndoSite, *abandon: str, check: bool = False) -> dict[str, Any]:
    options = {"where": ["openstack"], "abandon": list(abandon), "rehearsal_age": 3600.0}
    return cleanup.run({**site.connection(), **options}, check=check)


def undone(site: UndoSite, vm: str, how: str) -> dict[str, Any]:
    options = {"source": site.uuid(vm), "target": how, "timeout": 3.0, "state_dir": str(site.folder / "ferry")}
    return undo.undo({**site.connection(), "validate_certs": None, **options})


@pytest.mark.long
@pytest.mark.fault(
    "a run is rolled back whose copy has left a volume attached, by Nova, to the machine that copies",
    where="target",
    ends="that machine is not taken for what the VM has become: it runs on, nothing of it is touched",
)
def test_the_machine_that_copies_survives_rollback_and_cleanup(site: UndoSite) -> None:
    vm = NAMES[1]
    site.land(vm, state="copying", server=False)
    volume = site.volumes(vm)["2000"]
    compute, storage = site.cloud.compute, site.cloud.block_storage
    with image(site) as disk, somebodys(site, disk.id) as host:
        compute.create_volume_attachment(host, volume_id=volume.id)
        storage.wait_for_status(volume, "in-use", interval=0.3, wait=60)
        rows = {"servers": [s.to_dict() for s in compute.servers()], "volumes": [v.to_dict() for v in storage.volumes(details=True)]}
        assert matching.Known(Target(**rows), site.uuid(vm)).server() is None
        for how in ("stopped", "removed"):
            assert undone(site, vm, how)["servers"] == []
        said = clean(site, site.uuid(vm))
        assert volume.id not in {r["id"] for r in said["removed"]} and volume.id in {r["id"] for r in said["kept"]}
        now = compute.get_server(host)
        assert now.status == "ACTIVE" and [v["id"] for v in now.attached_volumes] == [volume.id]
        compute.delete_volume_attachment(host, volume.id)
        storage.wait_for_status(volume, "available", interval=0.3, wait=60)
    assert volume.id in {r["id"] for r in clean(site, site.uuid(vm))["removed"]}


@pytest.mark.long
def test_a_port_that_somebody_uses_stays(site: UndoSite) -> None:
    vm, network = NAMES[1], site.cloud.network
    mark = f"ferry_source={site.uuid(vm)}"
    port = network.create_port(network_id=network.find_network("net-web").id, name=MARKED, description=f"{mark} ferry_nic=4000")
    try:
        network.set_tags(port, [mark])
        with image(site) as disk, somebodys(site, disk.id, networks=[{"port": port.id}]) as host:
            assert port.id not in {r["id"] for r in clean(site, site.uuid(vm))["removed"]}
            undone(site, vm, "removed")
            assert network.get_port(port.id).device_id == host.id
    finally:
        network.delete_port(port, ignore_missing=True)


@pytest.mark.long
def test_a_snapshot_of_a_server_that_was_made_from_an_image_is_the_users(site: UndoSite) -> None:
    """Nova copies the mark of the image into the snapshot."""
    source = site.uuid(NAMES[3])
    with image(site, ferry_source=source) as disk, somebodys(site, disk.id) as server:
        taken = site.cloud.compute.create_server_image(server, f"{MARKED} before the upgrade")
        row = next(i for i in images.find(site.cloud, f"{MARKED} before the upgrade") if i["id"] == taken.id)
        assert row["ferry_source"] == source and images.of_a_server(row), row
        found = clean(site, source, check=True)
        assert {r["id"] for r in found["removed"]} == {disk.id}
        assert {i["id"] for i in commit._images(site.cloud, source)} == {disk.id}


@pytest.mark.long
def test_a_source_with_a_disk_that_has_no_volume_is_not_committed(site: UndoSite) -> None:
    vm = NAMES[2]
    site.land(vm)
    compute, storage = site.cloud.compute, site.cloud.block_storage
    volume = site.volumes(vm)["2001"]
    compute.delete_volume_attachment(site.server(vm), volume.id)
    storage.wait_for_status(volume, "available", interval=0.3, wait=60)
    storage.delete_volume(volume)
    storage.wait_for_delete(volume, interval=0.3, wait=60)
    with pytest.raises(BadInput) as caught:
        commit.run({**site.connection(), "vm": vm, "delete": ["source"]})
    assert caught.value.code == "not_done" and "no volume of its disk Hard disk 2" in caught.value.message
    assert vm in {v["name"] for v in site.vcenter.ask("/state")["vms"]} and site.state(vm) == "migrated"
