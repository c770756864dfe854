# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Debian guest without virtio is migrated, converted on its volumes, and starts under libvirt with both disks and its address on the card that
had it; unconverted it does not; one that cannot be converted is rolled back, and its source runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import openstack
import pytest

from tests.lab import debian_guest
from tests.lab.vcenter import USER

from . import libvirt_lab
from .test_migrate import UUID, Run, Site
from .vcenter_lab import Client, running

pytestmark = [pytest.mark.long, libvirt_lab.needs_libvirt]

OURS, PLAIN, BROKEN = 1, 2, 3
#: The guest's one configured interface is the second card's.
MACS = {n: [f"00:50:56:7c:{n:02x}:02", f"00:50:56:7c:{n:02x}:01"] for n in (OURS, PLAIN, BROKEN)}


def model(folder: Path) -> Path:
    made = debian_guest.build()
    broken = debian_guest.without_boot_loader(made, folder)

    def vm(number: int, name: str, disks: debian_guest.Disks) -> dict[str, Any]:
        networks = ("backend", "VM Network")
        return {
            "name": name,
            "uuid": UUID.format(number),
            "host": "esx1",
            "datastore": "shared",
            "guest_id": "debian12_64Guest",
            "cpus": 1,
            "memory_mb": 512,
            "power": "on",
            "shutdown_seconds": 0.1,
            "disks": [
                {"controller": "pvscsi", "unit": i, "path": str(path), "provisioning": "thin"}
                for i, path in enumerate((disks.root, disks.data))
            ],
            "nics": [
                {"network": network, "mac": mac, "type": "vmxnet3"} | ({"ip": debian_guest.ADDRESS} if network == "VM Network" else {})
                for network, mac in zip(networks, MACS[number], strict=True)
            ],
        }

    vms = [vm(OURS, "oldvm", made), vm(PLAIN, "plain", made), vm(BROKEN, "broken", broken)]
    path = folder / "model.json"
    site = {
        "datacenter": "DC lab",
        "clusters": [{"name": "C0", "hosts": ["esx1"]}],
        "networks": ["VM Network", "backend"],
        "datastores": [{"name": "shared", "capacity": "2TiB", "hosts": ["esx1"]}],
        "vms": vms,
    }
    path.write_text(json.dumps(site), encoding="utf-8")
    return path


class GuestSite(Site):
    vms: ClassVar[dict[str, Any]] = {
        "oldvm": {"ferry_vm": "oldvm"},
        "plain": {"ferry_vm": "plain", "ferry_guest_convert": False, "ferry_landing": {"hardware": "virtio"}},
        "broken": {"ferry_vm": "broken"},
    }
    patience: ClassVar[int] = 3600  # emulated: a conversion takes minutes, and a slow machine several times as many

    def environment(self, **more: str) -> dict[str, str]:
        return super().environment(VMWARE_USER=USER, VMWARE_VALIDATE_CERTS="true", LIBGUESTFS_BACKEND_SETTINGS="force_tcg", **more)

    def play(self, playbook: str, *hosts: str) -> Run:
        command = self.command(*hosts)
        command[1] = f"ferry.vmware.{playbook}"
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=300, check=False)
        print(done.stdout, done.stderr)
        return Run(done.returncode, done.stdout + done.stderr, {})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestSite]:
    folder = tmp_path_factory.mktemp("guest")
    with running(folder, model(folder)) as vcenter, openstack.connect(cloud="lab") as cloud:
        made = GuestSite(folder, vcenter, Client(vcenter), cloud)
        try:
            yield made
        finally:
            made.client.close()
            made.remove_all()


@pytest.fixture(scope="module")
def migrated(site: GuestSite) -> Run:
    """One converted, one as it is, one that cannot be converted, in one wave."""
    return site.migrate(
        "oldvm", "plain", "broken", ferry_guest_convert=True, ferry_network_map={"VM Network": "net-web", "backend": "net-backend"}
    )


def test_a_converted_guest_starts_on_virtio_as_what_it_was(site: GuestSite, migrated: Run) -> None:
    assert migrated.result("oldvm")["state"] == "migrated", migrated.out[-6000:]
    server = site.server(OURS)
    xml = libvirt_lab.domain(server.id)
    assert [d.bus for d in libvirt_lab.buses(xml)] == ["virtio", "virtio"]
    assert libvirt_lab.cards(xml) == [(mac, "virtio") for mac in MACS[OURS]]

    found = libvirt_lab.wait_for_console(site.cloud, server.id, f"{debian_guest.BEGIN}.*?{debian_guest.END}", 900)
    seen = debian_guest.read(found[0] + "\n")
    assert seen.mounts == {"/": "/dev/mapper/vg0-root", "/boot": "/dev/vda1", "/data": "/dev/vdb1"}, seen.lines
    assert "data the second disk" in seen.lines
    assert seen.nics[MACS[OURS][1]] == (debian_guest.INTERFACE, "virtio_net"), seen.lines
    assert seen.addresses[debian_guest.INTERFACE] == f"{debian_guest.ADDRESS}/24"
    assert any(line.startswith(f"route default via {debian_guest.GATEWAY}") for line in seen.lines)
    assert f"canary {debian_guest.CANARY} /etc/ferry-canary" in seen.lines
    # dpkg-query knows the name of a package that was purged, and no version.
    assert not [line for line in seen.lines if line.startswith("failed ") or line.startswith("package ") and len(line.split()) > 2], (
        seen.lines
    )


def test_its_volumes_say_so_and_the_second_run_changes_nothing(site: GuestSite, migrated: Run) -> None:
    for volume in site.volumes(OURS).values():
        assert json.loads(volume.metadata["ferry_guest"])["disk_bus"] == "virtio"
        assert volume.metadata["ferry_state"] == "complete" and volume.metadata["ferry_copied_digest"]
    again = site.migrate("oldvm", ferry_guest_convert=True)
    assert (again.code, again.changed["oldvm"]) == (0, 0), again.out[-4000:]


def test_the_source_is_off_and_its_disks_untouched(site: GuestSite, migrated: Run) -> None:
    assert site.power("oldvm") == "poweredOff"
    made = debian_guest.build()
    assert site.flat("oldvm").read_bytes() == made.root.read_bytes()
    assert site.flat("oldvm", 1).read_bytes() == made.data.read_bytes()


def test_the_same_guest_unconverted_does_not_start(site: GuestSite, migrated: Run) -> None:
    server = site.server(PLAIN)
    assert [d.bus for d in libvirt_lab.buses(libvirt_lab.domain(server.id))] == ["virtio", "virtio"]
    libvirt_lab.wait_for_console(site.cloud, server.id, "ALERT!.*vg0-root does not exist", 900)


@pytest.mark.fault("A guest cannot be converted", "guest", "no server is made, the volumes are as copied; rolled back, its source runs")
def test_a_guest_that_cannot_be_converted_is_rolled_back_and_its_source_runs(site: GuestSite, migrated: Run) -> None:
    row = migrated.result("broken")
    assert row["state"] == "failed" and "no_boot_loader" in json.dumps(row["errors"]), row["errors"]
    assert site.server(BROKEN) is None and site.power("broken") == "poweredOff"
    site.assert_equal("broken", BROKEN)
    assert not any("ferry_guest" in v.metadata for v in site.volumes(BROKEN).values())
    done = site.play("rollback", "broken")
    assert done.code == 0, done.out[-3000:]
    assert site.power("broken") == "poweredOn"


def test_no_appliance_and_no_layer_is_left(site: GuestSite, migrated: Run) -> None:
    left = [p.name for p in (site.folder / "ferry" / "guests").glob("*/*") if p.name not in ("lock", "virt-v2v.log")]
    assert not left
    lines = [p.read_bytes().replace(b"\0", b" ").decode(errors="replace") for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not [line for line in lines if str(site.folder / "ferry" / "guests") in line]
