# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A vCenter of the tests' own, the lab's OpenStack, and the playbooks that rehearse, undo, commit and clean up, as a user runs them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openstack
import yaml
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.transfer import sources
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.targets import state_of
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client as vsphere_client
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import find, guest, source_state
from tests.lab.vcenter import USER, VCenter

from .processes import copying
from .test_migrate import Run
from .vcenter_lab import MIB, Client, running, write_raw

UUID = "50210a1b-{0}-4c6e-9f01-7a1e5b1c00{1:02d}"
SIZES = {"root": 6 * MIB + 3 * 512, "data": 3 * MIB}


def write_model(folder: Path, names: tuple[str, ...], series: str, **more: Any) -> Path:
    """A running VM of two disks and two cards for each name."""
    for seed, (name, size) in enumerate(SIZES.items()):
        write_raw(folder / f"{name}.raw", size, seed)
    vms = [
        {
            "name": name,
            "uuid": UUID.format(series, number),
            "host": "esx1",
            "datastore": "shared",
            "guest_id": "debian12_64Guest",
            "annotation": "owned by the web team",
            "custom": {"owner": "web team"},
            "memory_mb": 256,
            "power": "on",
            "shutdown_seconds": 0.1,
            "disks": [{"controller": "pvscsi", "unit": i, "path": f"{d}.raw", "provisioning": "thin"} for i, d in enumerate(SIZES)],
            "nics": [
                {"network": n, "mac": f"00:50:56:{int(series, 16) & 0xFF:02x}:{number:02x}:{i:02x}"}
                for i, n in enumerate(("VM Network", "backend"))
            ],
            **more,
        }
        for number, name in enumerate(names)
    ]
    model = {
        "datacenter": "DC lab",
        "clusters": [{"name": "C0", "hosts": ["esx1"]}],
        "networks": ["VM Network", "backend"],
        "datastores": [{"name": "shared", "capacity": "2TiB", "hosts": ["esx1"]}],
        "vms": vms,
    }
    path = folder / "model.json"
    path.write_text(json.dumps(model), encoding="utf-8")
    return path


@dataclass
class UndoSite:
    """A source, a target, and a folder for a conversion host's state. C(series): four hex digits of the UUIDs of its VMs."""

    folder: Path
    vcenter: VCenter
    client: Client
    cloud: Any
    names: tuple[str, ...]
    series: str

    def uuid(self, vm: str) -> str:
        return UUID.format(self.series, self.names.index(vm))

    # -- playbooks ----------------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "PYTEST"))} | {
            "ANSIBLE_COLLECTIONS_PATH": os.environ["ANSIBLE_COLLECTIONS_PATH"],
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_FAILED": "true",
            "ANSIBLE_NOCOLOR": "true",
            "VMWARE_HOST": "127.0.0.1",
            "VMWARE_PORT": str(self.vcenter.port),
            "VMWARE_USER": USER,
            "VMWARE_PASSWORD": self.vcenter.place.password(),
            "VMWARE_CA_PATH": str(self.vcenter.place.state / "ca.pem"),
            "PATH": os.pathsep.join([os.environ["FERRY_LAB_SHIM"], str(Path(sys.executable).parent), os.environ["PATH"]]),
        }

    def command(self, playbook: str, *vms: str, arguments: tuple[str, ...] = (), **variables: Any) -> list[str]:
        common = {
            "ferry_network_map": {"VM Network": "net-web", "backend": "net-backend"},
            "ferry_storage_map": {"shared": None},
            "ferry_ledger": str(self.folder / "ferry"),
            "ferry_report_json": str(self.folder / "report.json"),
            "ferry_progress_interval": 0.5,
            "ferry_precopy_interval": 0,
        }
        inventory = {"all": {"vars": common | variables}, "wave": {"hosts": {v: {"ferry_vm": v} for v in vms}}}
        path = self.folder / "inventory.yml"
        path.write_text(yaml.safe_dump(inventory, allow_unicode=True), encoding="utf-8")
        tool = str(Path(sys.executable).parent / "ansible-playbook")
        return [
            tool,
            playbook if playbook.endswith(".yml") else f"ferry.vmware.{playbook}",
            "-i",
            str(path),
            "-e",
            "ferry_wave=wave",
            *arguments,
        ]

    def play(self, playbook: str, *vms: str, arguments: tuple[str, ...] = (), **variables: Any) -> Run:
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        order = self.command(playbook, *vms, arguments=arguments, **variables)
        done = subprocess.run(order, env=self.environment(), capture_output=True, text=True, timeout=400, check=False)
        print(done.stdout, done.stderr)
        return Run(done.returncode, done.stdout + done.stderr, json.loads(report.read_text()) if report.exists() else {})

    def killed_at(self, task: str, playbook: str, *vms: str, copies: bool = True, **variables: Any) -> str:
        """The playbook, killed when it begins with C(task), with the copies that it has started or (C(copies)) without; what it had said."""
        order = self.command(playbook, *vms, **variables)
        said = []
        process = subprocess.Popen(
            order, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if line.startswith("TASK [") and task in line:
                while not copies and not self.copying():
                    assert process.poll() is None, "".join(said)[-4000:]
                    time.sleep(0.05)
                break
        else:
            raise AssertionError(f"it never came to {task}:\n{''.join(said)[-4000:]}")
        os.killpg(process.pid, signal.SIGKILL)
        for pid in self.copying() if copies else ():
            os.kill(pid, signal.SIGKILL)
        process.stdout.close()
        process.wait(30)
        return "".join(said)

    def copying(self) -> list[int]:
        """The processes that copy from this vCenter, wherever Ansible put them."""
        return copying(f"VMWARE_PORT={self.vcenter.port}")

    # -- without Ansible ----------------------------------------------------------------------------------------------

    def connection(self) -> dict[str, Any]:
        """The options by which the modules log in to both sides."""
        return {
            "hostname": "127.0.0.1",
            "port": self.vcenter.port,
            "username": USER,
            "password": self.vcenter.place.password(),
            "validate_certs": True,
            "ca_path": str(self.vcenter.place.state / "ca.pem"),
            "cloud": "lab",
            "ledger": str(self.folder / "ferry"),
        }

    def land(self, vm: str, *, state: str = "complete", server: bool = True, group: str = "", copied: bool = False) -> None:
        """What a migration leaves, made at once: the source off with its state and note, volumes of 1 GiB, a server of them; or one volume alone.

        :param group: id of a server group for the server.
        :param copied: the volumes say that they have the source's disks as they are.
        """
        states: dict[str, str] = {}
        with vsphere_client.connect(self.connection()) as session:
            ref = find.find_vm(session, vm)
            wanted = source_state.Wanted(power="off", network="disconnected", note="Migrated.", attributes={"ferry.state": "migrated"})
            source_state.apply(session, ref, wanted)
            for disk in guest.read_vms(session, [ref])[0]["disks"] if copied else ():
                with contextlib.closing(sources.open_https(session, disk)) as source:
                    states[str(disk.key)] = state_of(source)
        storage, compute = self.cloud.block_storage, self.cloud.compute
        made = []
        for key in ("2000", "2001") if server else ("2000",):
            known = {"ferry_source": self.uuid(vm), "ferry_disk": key, "ferry_state": state, "ferry_source_state": states.get(key, "x")}
            made.append(storage.create_volume(name=f"{vm}-{key}", size=1, metadata=known))
        for volume in made:
            storage.wait_for_status(volume, interval=0.3, wait=60)
        if server:
            storage.set_volume_bootable_status(made[0], True)
            disks = [
                {"source_type": "volume", "destination_type": "volume", "uuid": v.id, "boot_index": 0 if n == 0 else -1}
                for n, v in enumerate(made)
            ]
            flavor = compute.find_flavor("m1.nano").id
            known = {"ferry_source": self.uuid(vm), "ferry_vm": vm}
            hints = {"scheduler_hints": {"group": group}} if group else {}
            booted = compute.create_server(name=vm, flavor_id=flavor, block_device_mapping=disks, networks="none", metadata=known, **hints)
            compute.wait_for_server(booted, interval=0.5, wait=120)

    # -- the source ---------------------------------------------------------------------------------------------------

    def cards(self, vm: str) -> dict[int, tuple[bool, bool]]:
        """(connected, at power on) of the network cards, by key."""
        devices = self.client.vm(vm).config.hardware.device
        return {
            d.key: (d.connectable.connected, d.connectable.startConnected)
            for d in devices
            if isinstance(d, vim.vm.device.VirtualEthernetCard)
        }

    def look(self, vm: str) -> dict[str, Any]:
        """All of the source that a migration may change, and what it must not: by plain pyvmomi."""
        found = self.client.vm(vm)
        config = found.config
        names = {f.key: f.name for f in self.client.content.customFieldsManager.field}
        return {
            "name": config.name,
            "power": found.runtime.powerState,
            "annotation": config.annotation,
            "attributes": {names[v.key]: v.value for v in found.customValue if v.value and names[v.key] != "ferry.state"},
            "snapshots": found.snapshot is not None,
            "consolidation": bool(found.runtime.consolidationNeeded),
            "cbt": bool(config.changeTrackingEnabled),
            "ctk": {o.key: o.value for o in config.extraConfig if "ctk" in o.key and o.value},
            "cards": self.cards(vm),
            "networks": [
                (d.key, d.macAddress, d.addressType, d.backing.deviceName)
                for d in sorted(config.hardware.device, key=lambda d: int(d.key))
                if isinstance(d, vim.vm.device.VirtualEthernetCard)
            ],
            "disks": [
                (d.key, d.backing.fileName, d.capacityInBytes) for d in config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)
            ],
            "hardware": (config.hardware.numCPU, config.hardware.memoryMB, config.firmware, config.guestId, config.version),
            "uuid": (config.instanceUuid, config.uuid),
        }

    def state(self, vm: str) -> str:
        """The custom attribute ferry.state."""
        key = next((f.key for f in self.client.content.customFieldsManager.field if f.name == "ferry.state"), None)
        return next((v.value for v in self.client.vm(vm).customValue if v.key == key), "")

    def set_card(self, vm: str, key: int, connected: bool, start: bool) -> None:
        found = self.client.vm(vm)
        card = next(d for d in found.config.hardware.device if d.key == key)
        card.connectable.connected, card.connectable.startConnected = connected, start
        spec = vim.vm.ConfigSpec(deviceChange=[vim.vm.device.VirtualDeviceSpec(operation="edit", device=card)])
        self.client.wait(found.ReconfigVM_Task(spec))

    def power(self, vm: str, on: bool) -> None:
        found = self.client.vm(vm)
        self.client.wait(found.PowerOnVM_Task() if on else found.PowerOffVM_Task())

    def flat(self, vm: str, disk: int) -> Path:
        rows = self.vcenter.ask("/state")["vms"]
        return Path(next(v for v in rows if v["name"] == vm)["disks"][disk]["local"])

    # -- the target ---------------------------------------------------------------------------------------------------

    def volumes(self, vm: str) -> dict[str, Any]:
        """Volumes of a VM, by disk key."""
        rows = self.cloud.block_storage.volumes(details=True)
        return {v.metadata["ferry_disk"]: v for v in rows if v.metadata.get("ferry_source") == self.uuid(vm)}

    def server(self, vm: str) -> Any:
        return next((s for s in self.cloud.compute.servers() if s.metadata.get("ferry_source") == self.uuid(vm)), None)

    def ports(self, vm: str) -> list[Any]:
        return list(self.cloud.network.ports(tags=f"ferry_source={self.uuid(vm)}"))

    def volume_file(self, volume_id: str) -> Path:
        return Path(os.environ["FERRY_LAB_DIR"]) / "openstack" / "cinder" / "export" / f"volume-{volume_id}"

    def digests(self, vm: str) -> dict[str, str]:
        """SHA-256 of the VM's volumes and of its ledgers' rows: what a rehearsal must leave as it is."""
        found = {v.id: hashlib.sha256(self.volume_file(v.id).read_bytes()).hexdigest() for v in self.volumes(vm).values()}
        for path in sorted((self.folder / "ferry" / "ledgers").glob(f"{self.uuid(vm)}--*.sqlite*")):
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def assert_equal(self, vm: str) -> None:
        for index, (_key, volume) in enumerate(sorted(self.volumes(vm).items())):
            source = self.flat(vm, index).read_bytes()
            assert self.volume_file(volume.id).read_bytes()[: len(source)] == source, volume.name

    def rehearsals(self) -> list[str]:
        """What there is of rehearsals of these VMs."""
        mine = {self.uuid(vm) for vm in self.names}
        storage, network = self.cloud.block_storage, self.cloud.network
        found = [s.name for s in self.cloud.compute.servers() if s.metadata.get("ferry_rehearsal") in mine]
        found += [v.name for v in storage.volumes(details=True) if v.metadata.get("ferry_rehearsal") in mine]
        found += [s.name for s in storage.snapshots(details=True) if (s.metadata or {}).get("ferry_rehearsal") in mine]
        marks = {f"ferry_rehearsal={uuid}" for uuid in mine}
        return found + [row.name for row in (*network.ports(), *network.networks()) if row.description in marks]

    def remove_all(self) -> None:
        """What the tests made in the lab's cloud, so that they can run again in the same lab."""
        mine = {self.uuid(vm) for vm in self.names}
        cloud = self.cloud
        for server in list(cloud.compute.servers()):
            if {server.metadata.get("ferry_source"), server.metadata.get("ferry_rehearsal")} & mine:
                cloud.compute.delete_server(server)
                cloud.compute.wait_for_delete(server, interval=0.5)
        marks = {f"ferry_rehearsal={uuid}" for uuid in mine}
        for port in list(cloud.network.ports()):
            if port.description in marks or {t.partition("=")[2] for t in port.tags if t.startswith("ferry_source=")} & mine:
                cloud.network.delete_port(port)
        for network in list(cloud.network.networks()):
            if network.description in marks:
                cloud.network.delete_network(network)
        storage, newer = cloud.block_storage, {"microversion": "3.27"}
        for volume in list(storage.volumes(details=True)):
            if {volume.metadata.get("ferry_source"), volume.metadata.get("ferry_rehearsal")} & mine:
                for left in storage.get(f"/attachments?volume_id={volume.id}", **newer).json()["attachments"]:
                    storage.delete(f"/attachments/{left['id']}", **newer)  # of a killed copy
                storage.delete_volume(volume)


@contextmanager
def no_other_rehearsals() -> Iterator[None]:
    """The lab's cloud is shared by tests that run at once, and a cleanup that is told to removes every rehearsal in it."""
    with open(Path(os.environ["FERRY_LAB_DIR"]) / "rehearsals.lock", "w", encoding="ascii") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


@contextmanager
def undo_site(folder: Path, names: tuple[str, ...], series: str, **more: Any) -> Iterator[UndoSite]:
    """A site with running VMs of these names."""
    with running(folder, write_model(folder, names, series, **more)) as vcenter, openstack.connect(cloud="lab") as cloud:
        made = UndoSite(folder, vcenter, Client(vcenter), cloud, names, series)
        made.remove_all()
        yield made
        made.client.close()
        made.remove_all()
