# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest that boots is migrated by the playbook, and comes up under libvirt from its volumes: what it sees is what the source had."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import openstack
import pytest

from tests.lab import guest
from tests.lab.vcenter import USER

from . import libvirt_lab
from .test_migrate import UUID, Run, Site
from .vcenter_lab import MIB, Client, running

pytestmark = [pytest.mark.long, libvirt_lab.needs_libvirt]


@dataclass(frozen=True)
class Kind:
    """A VM, what of it libvirt's XML has to say (bus, model of controller and card), and which drivers its guest uses for them."""

    number: int
    firmware: str
    controller: str
    card: str
    disks: int
    bus: str
    model: str | None
    vif: str
    driver: str
    nic: str
    landing: dict[str, Any] = field(default_factory=dict)


KINDS = {
    "pvscsi": Kind(1, "bios", "pvscsi", "vmxnet3", 1, "scsi", "vmpvscsi", "vmxnet3", "vmw_pvscsi", "vmxnet3"),
    # QEMU's pvscsi has room for one disk.
    "pvscsi-two": Kind(2, "bios", "pvscsi", "e1000e", 2, "sata", None, "e1000e", "ahci", "e1000e"),
    # And none to Linux on its LSI Logic SAS, since Nova gives disks no world wide name; the parallel one has seven.
    "parallel": Kind(3, "bios", "lsilogic", "e1000", 2, "scsi", "lsilogic", "e1000", "sym53c8xx", "e1000"),
    "efi-virtio": Kind(4, "efi", "pvscsi", "vmxnet3", 2, "virtio", None, "virtio", "virtio-pci", "virtio-pci", {"hardware": "virtio"}),
}


def model(folder: Path) -> Path:
    def vm(name: str, kind: Kind) -> dict[str, Any]:
        made = guest.build(kind.firmware)
        return {
            "name": name,
            "uuid": UUID.format(kind.number),
            "host": "esx1",
            "datastore": "shared",
            "guest_id": "debian12_64Guest",
            "firmware": kind.firmware,
            "cpus": 1,
            "memory_mb": 512,
            "power": "on",
            "shutdown_seconds": 0.1,
            "disks": [
                {"controller": kind.controller, "unit": i, "path": str(path), "provisioning": "thin"}
                for i, path in enumerate((made.root, made.data)[: kind.disks])
            ],
            "nics": [
                {"network": network, "mac": f"00:50:56:7b:{kind.number:02x}:{9 - i:02x}", "type": kind.card}
                for i, network in enumerate(("VM Network", "backend"))
            ],
        }

    path = folder / "model.json"
    path.write_text(
        json.dumps(
            {
                "datacenter": "DC lab",
                "clusters": [{"name": "C0", "hosts": ["esx1"]}],
                "networks": ["VM Network", "backend"],
                "datastores": [{"name": "shared", "capacity": "2TiB", "hosts": ["esx1"]}],
                "vms": [vm(name, kind) for name, kind in KINDS.items()],
            }
        ),
        encoding="utf-8",
    )
    return path


class BootSite(Site):
    """A site whose VMs are KINDS, each with what is said of its landing."""

    vms: ClassVar[dict[str, Any]] = {name: {"ferry_vm": name, "ferry_landing": kind.landing} for name, kind in KINDS.items()}

    patience: ClassVar[int] = 900  # four machines boot meanwhile, without acceleration

    def environment(self, **more: str) -> dict[str, str]:
        return super().environment(VMWARE_USER=USER, VMWARE_VALIDATE_CERTS="true", **more)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("boot")
    with running(folder, model(folder)) as vcenter, openstack.connect(cloud="lab") as cloud:
        made = BootSite(folder, vcenter, Client(vcenter), cloud)
        try:
            yield made
        finally:
            made.client.close()
            made.remove_all()


@pytest.fixture(scope="module")
def migrated(site: Site) -> Run:
    run = site.migrate(*KINDS)
    assert run.code == 0, run.out[-6000:]
    return run


@pytest.mark.parametrize("name", KINDS)
def test_a_migrated_guest_boots_from_its_volume_and_sees_what_the_source_had(site: Site, migrated: Run, name: str) -> None:
    kind = KINDS[name]
    server, found = site.server(kind.number), site.volumes(kind.number)
    volumes = [found[key] for key in sorted(found)]
    macs = [f"00:50:56:7b:{kind.number:02x}:{last:02x}" for last in (9, 8)]

    xml = libvirt_lab.domain(server.id)
    disks = libvirt_lab.buses(xml)
    assert [(d.bus, d.serial) for d in disks] == [(kind.bus, v.id) for v in volumes]
    if kind.model:
        assert {d.controller for d in disks} == {kind.model}
    assert xml.find("./os/boot[@dev='hd']") is not None and str(disks[0].file).endswith(f"volume-{volumes[0].id}")
    assert libvirt_lab.cards(xml) == [(mac, kind.vif) for mac in macs]
    assert libvirt_lab.firmware(xml)[0] == kind.firmware

    seen = libvirt_lab.wait_for_guest(site.cloud, server.id)
    assert seen.firmware == kind.firmware
    assert {row["controller"] for row in seen.disks.values()} == {kind.driver}, seen.said
    # A volume is whole GiB; the guest's disk was smaller, and what is behind it is zero.
    assert [int(row["bytes"]) for row in seen.disks.values()] == [1024 * MIB] * kind.disks
    assert {mac: row["controller"] for mac, row in seen.cards.items()} == dict.fromkeys(macs, kind.nic)
    contents = {"root": "root of the guest", "data": "the second disk"}
    assert {label: content for label, (_device, content) in seen.mounted.items()} == dict(list(contents.items())[: kind.disks])
    names = [device.rstrip("0123456789") for device, _content in seen.mounted.values()]
    assert sorted(names) == list(seen.disks)
    if kind.bus == "virtio":
        assert names == ["vda", "vdb"]  # Linux numbers SCSI disks as they answer, in any order
    if kind.bus in ("virtio", "scsi"):  # each told apart by the id of its volume, of which virtio shows 20 characters
        shown = [seen.disks[n]["serial"] for n in names]
        assert [s and v.id.startswith(s) for s, v in zip(shown, volumes, strict=True)] == [True] * kind.disks, shown


def test_the_source_is_off_and_its_disks_untouched(site: Site, migrated: Run) -> None:
    for name, kind in KINDS.items():
        assert site.power(name) == "poweredOff"
        made = guest.build(kind.firmware)
        assert site.flat(name).read_bytes() == made.root.read_bytes()
        assert kind.disks == 1 or site.flat(name, 1).read_bytes() == made.data.read_bytes()


def test_a_stopped_server_starts_again_with_what_its_guest_wrote(site: Site, migrated: Run) -> None:
    """A hard reboot makes libvirt's domain anew, from Nova's records and the volumes' image metadata."""
    server = site.server(KINDS["parallel"].number)
    first = libvirt_lab.wait_for_guest(site.cloud, server.id)
    before = [(d.bus, d.controller, d.serial) for d in libvirt_lab.buses(libvirt_lab.domain(server.id))]
    site.cloud.compute.reboot_server(server, "HARD")
    libvirt_lab.wait_for_console(site.cloud, server.id, rf"boots {first.boots + 1}\b")
    assert [(d.bus, d.controller, d.serial) for d in libvirt_lab.buses(libvirt_lab.domain(server.id))] == before


def test_a_volume_attached_while_it_runs_is_seen_by_its_id(site: Site, migrated: Run) -> None:
    """By this a conversion host that is an instance finds the volume that Nova has plugged in."""
    server = site.server(KINDS["efi-virtio"].number)
    libvirt_lab.wait_for_guest(site.cloud, server.id)
    volume = site.cloud.block_storage.create_volume(size=1, name="plugged in")
    try:
        site.cloud.block_storage.wait_for_status(volume, "available", ["error"], interval=0.5, wait=60)
        site.cloud.compute.post(f"/servers/{server.id}/os-volume_attachments", json={"volumeAttachment": {"volumeId": volume.id}})
        libvirt_lab.wait_for_console(site.cloud, server.id, rf"plugged disk vdc bytes {1024 * MIB} .*serial {volume.id[:20]}", 120)
        site.cloud.compute.delete(f"/servers/{server.id}/os-volume_attachments/{volume.id}")
        libvirt_lab.wait_for_console(site.cloud, server.id, "unplugged vdc", 120)
        site.cloud.block_storage.wait_for_status(
            site.cloud.block_storage.get_volume(volume.id), "available", ["error"], interval=0.5, wait=60
        )
    finally:
        site.cloud.block_storage.delete_volume(volume)
