# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VM from vCenter to a server in OpenStack, beside the way of export: every disk is downloaded, converted to qcow2, sent to Glance,
and made a volume. Both begin with a VM that is off and end with a server that is active and has its disks attached.

The way of export waits for nothing but its own programs: its volumes and its server are made by the same requests as ours, without the
client's start. It verifies nothing; we read back all that we wrote, as the role migrate does. Part of bench_openstack.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, images, volumes
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.client import connect
from tests.lab.vcenter import VCenter

GIB = 1 << 30
PLAIN, TRACKED = "bench", "tracked"
#: One VM's disks into volumes that are there; stdin has the options of vm_disk_copy.
OURS = """
import json, sys
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import disk_copy
result = disk_copy.run(json.load(sys.stdin))
print(json.dumps([disk["bytes_written"] for disk in result["disks"]]))
"""


def model(folder: Path, disks: list[Path]) -> Path:
    """A lab's model with two VMs that are off, of the same disks: one of them has changed block tracking."""
    path = folder / "model.json"
    vms = [
        {
            "name": name,
            "host": "esx1",
            "datastore": "ds",
            "power": "off",
            "cbt": name == TRACKED,
            "disks": [{"controller": "pvscsi", "unit": n, "path": str(raw)} for n, raw in enumerate(disks)],
        }
        for name in (PLAIN, TRACKED)
    ]
    datastores = [{"name": "ds", "type": "VMFS", "capacity": "1TiB", "hosts": ["esx1"]}]
    clusters = [{"name": "C0", "hosts": ["esx1"]}]
    path.write_text(
        json.dumps({"datacenter": "DC0", "clusters": clusters, "networks": ["VM Network"], "datastores": datastores, "vms": vms})
    )
    return path


@contextmanager
def watched(folder: Path) -> Iterator[list[int]]:
    """Most bytes that the files in C(folder) had together, looked at ten times a second and at the end."""
    most, ended = [0], threading.Event()

    def look() -> None:
        total = 0
        for path in folder.rglob("*"):
            try:
                total += path.lstat().st_size if path.is_file() else 0
            except FileNotFoundError:
                continue
        most[0] = max(most[0], total)

    def watch() -> None:
        while not ended.wait(0.1):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()
        look()


class Landing:
    """One VM, both ways; each takes away what it made before it returns. C(staged): bytes that lay between source and volumes."""

    def __init__(self, folder: Path, vcenter: VCenter, env: dict[str, str], disks: list[Path], cinder: Path, openstack: str) -> None:
        self.vcenter, self.disks, self.cinder, self.openstack = vcenter, disks, cinder, openstack
        self.work = folder / "work"
        self.env = {**os.environ, **env, "TMPDIR": str(self.work)}
        self.conn = client.connect({"cloud": "lab"})
        self.staged: dict[str, int] = {}
        known = vcenter.env()
        self.source: dict[str, Any] = {
            "hostname": known["VMWARE_HOST"],
            "port": vcenter.port,
            "username": known["VMWARE_USER"],
            "password": known["VMWARE_PASSWORD"],
            "ca_path": known["VMWARE_CA_PATH"],
        }

    def ours(self) -> float:
        return self._measured("ours", partial(self._copy, PLAIN))

    def tracked(self) -> float:
        """Ours, of a VM whose changed block tracking tells what is allocated."""
        return self._measured("tracked", partial(self._copy, TRACKED))

    def theirs(self) -> float:
        return self._measured("theirs", self._export)

    def _measured(self, name: str, bring: Callable[[list[str]], None]) -> float:
        """Seconds from nothing to the active server, whose volumes are then compared and removed."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(mode=0o700)
        made: list[str] = []
        server = None
        os.sync()
        try:
            with watched(self.work) as most:
                began = time.monotonic()
                bring(made)
                server = self._boot(made)
                took = time.monotonic() - began
            self.staged[name] = most[0] + sum(int(i["size"] or 0) for i in self._images())
            self._compare(made)
            return took
        finally:
            self._remove(server, made)

    def _copy(self, vm: str, made: list[str]) -> None:
        made += [self._volume(disk, {}) for disk in self.disks]
        for volume in made:
            volumes.wait_status(self.conn, volume, ("available",), timeout=120)
        pairs = [{"disk": f"Hard disk {n}", "dest": {"volume": v}, "format": "raw"} for n, v in enumerate(made, 1)]
        options = {"mode": "auto", "transport": "auto", "quiesce": "auto", "workers": 4, "chunk_size": 8 << 20, "verify": "full"}
        more = {"checksum": "none", "ledger": str(self.work), "patience": 60, "root_helper": "sudo", "take_over": False, "cloud": "lab"}
        task = {**self.source, "vm": vm, "disks": pairs, **options, **more}
        subprocess.run([sys.executable, "-c", OURS], input=json.dumps(task), env=self.env, check=True, capture_output=True, text=True)

    def _export(self, made: list[str]) -> None:
        env = {k: v for k, v in self.env.items() if k != "PYTHONPATH"}
        with connect(self.source) as session:
            cookie = session.folder_access().headers()["Cookie"]
            for number, disk in enumerate(self.disks):
                name = f"bench{'' if not number else f'_{number}'}-flat.vmdk"
                flat, image = self.work / name, self.work / f"disk{number}.qcow2"
                url = f"https://{self.source['hostname']}:{self.vcenter.port}/folder/{quote('bench/' + name)}?dcPath=DC0&dsName=ds"
                fetch = ["curl", "--silent", "--fail", "--cacert", self.source["ca_path"], "--config", "-", "--output", str(flat), url]
                subprocess.run(fetch, input=f'header = "Cookie: {_quoted(cookie)}"\n', check=True, text=True, env=env)
                subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(flat), str(image)], check=True, env=env)
                command = [self.openstack, "image", "create", "--disk-format", "qcow2", "--container-format", "bare", "--file", str(image)]
                subprocess.run([*command, f"landing-{number}"], check=True, env=env, stdout=subprocess.DEVNULL)
                made.append(self._volume(disk, {"imageRef": images.find(self.conn, f"landing-{number}")[0]["id"]}))
            for volume in made:
                volumes.wait_status(self.conn, volume, ("available",), timeout=600)

    def _volume(self, disk: Path, more: dict[str, str]) -> str:
        body = {"volume": {"size": -(-disk.stat().st_size // GIB), "name": disk.stem, **more}}
        made = client.call(self.conn, "block_storage", "POST", "/volumes", step="make a volume", body=body).json()
        return str(made["volume"]["id"])

    def _boot(self, made: list[str]) -> Any:
        """An active server with these volumes, the first one its root."""
        mapping = [
            {"uuid": volume, "source_type": "volume", "destination_type": "volume", "boot_index": 0 if not n else -1}
            for n, volume in enumerate(made)
        ]
        client.call(
            self.conn,
            "block_storage",
            "POST",
            f"/volumes/{made[0]}/action",
            step="make it bootable",
            body={"os-set_bootable": {"bootable": True}},
        )
        flavor = self.conn.compute.find_flavor("m1.micro").id
        server = self.conn.compute.create_server(name="landing", flavor_id=flavor, networks="none", block_device_mapping=mapping)
        found = self.conn.compute.wait_for_server(server, interval=0.2, wait=120)
        for volume in made:
            volumes.wait_status(self.conn, volume, ("in-use",), timeout=60)
        return found

    def _images(self) -> list[dict[str, Any]]:
        return [image for n in range(len(self.disks)) for image in images.find(self.conn, f"landing-{n}")]

    def _compare(self, made: list[str]) -> None:
        """The volumes begin with the bytes of the disks, and are zero behind them."""
        for volume, disk in zip(made, self.disks, strict=True):
            there = self.cinder / f"volume-{volume}"
            size = disk.stat().st_size
            subprocess.run(["cmp", "-s", "-n", str(size), str(there), str(disk)], check=True)
            rest = there.stat().st_size - size
            subprocess.run(["cmp", "-s", "-n", str(rest), "-i", f"{size}:0", str(there), "/dev/zero"], check=True)

    def _remove(self, server: Any, made: list[str]) -> None:
        found = [server] if server is not None else list(self.conn.compute.servers(name="landing"))
        for one in found:
            self.conn.compute.delete_server(one)
            self.conn.compute.wait_for_delete(one, interval=0.2)
        for volume in made:
            volumes.wait_status(self.conn, volume, ("available", "error"), timeout=120)
            client.call(self.conn, "block_storage", "DELETE", f"/volumes/{volume}", step="remove the volume")
        for image in self._images():
            images.delete(self.conn, image)
        shutil.rmtree(self.work)


def _quoted(text: str) -> str:
    """For a curl configuration file: the cookie itself has quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
