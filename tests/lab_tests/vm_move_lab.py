# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A vCenter of the tests' own with hosts, shared and local datastores, and VMs that move between them; vm_move called as Ansible calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.modules import vm_move
from tests.lab.vcenter import VCenter
from tests.lab_tests.vcenter_lab import MIB, Client, running, write_raw

EAST, WEST = "東クラスタ", "西クラスタ"
SHOP, BOOKS, BATCH = "店舗 サーバ 01", "会計 02", "夜間バッチ"
DEFAULTS: dict[str, Any] = {
    "method": "auto",
    "host": None,
    "datastore": None,
    "disks": [],
    "format": None,
    "pool": None,
    "cluster": None,
    "folder": None,
    "network_map": {},
    "constraints": [],
    "shutdown_timeout": 20,
    "on_timeout": "fail",
    "timeout": 60,
    "reserve_percent": 5,
    "fenced": None,
    "state_dir": None,
}


def model(folder: Path) -> Path:
    """Two clusters and six hosts. Shop runs on shared storage, Books on the local disk of esx1, Batch is off."""
    first, second = write_raw(folder / "first.raw", 6 * MIB + 1536, 21), write_raw(folder / "second.raw", 4 * MIB, 22)

    def vm(name: str, host: str, datastore: str, *raws: Path, **more: Any) -> dict[str, Any]:
        disks = [{"controller": "pvscsi", "path": raw.name, "provisioning": "thin"} for raw in raws]
        nics = [{"network": "業務 LAN", "mac": more.pop("mac")}] if "mac" in more else []
        return {
            "name": name,
            "host": host,
            "datastore": datastore,
            "power": "on",
            "memory_mb": 256,
            "shutdown_seconds": 0.2,
            "disks": disks,
            "nics": nics,
            **more,
        }

    described = {
        "datacenter": "DC 東京",
        "clusters": [{"name": EAST, "hosts": ["esx1", "esx2", "esx3", "esx6"]}, {"name": WEST, "hosts": ["esx4", "esx5"]}],
        "networks": ["VM Network", "業務 LAN", "裏 LAN"],
        "datastores": [
            {"name": "共有 1", "type": "VMFS", "capacity": "10GiB", "hosts": ["esx1", "esx2", "esx3", "esx4"]},
            {"name": "共有 2", "type": "NFS", "capacity": "10GiB", "hosts": ["esx1", "esx2", "esx3"]},
            {"name": "local1", "capacity": "4GiB", "hosts": ["esx1"]},
            {"name": "local2", "capacity": "4GiB", "hosts": ["esx2"]},
            {"name": "local5", "capacity": "4GiB", "hosts": ["esx5"]},
            {"name": "共有 3", "type": "VMFS", "capacity": "4GiB", "hosts": ["esx1", "esx6"]},
            {"name": "満杯", "capacity": "1GiB", "free": "1MiB", "hosts": ["esx1", "esx2"]},
        ],
        "hardware": {"esx6": {"no_vmotion": True}},
        "vms": [
            vm(
                SHOP,
                "esx1",
                "共有 1",
                first,
                second,
                folder="本番/店舗",
                annotation="一行目\n二行目",
                custom={"担当": "店舗課", "ferry.definition": "VM-01"},
                nics=[{"network": "業務 LAN", "mac": "00:50:56:0b:00:22"}, {"network": "VM Network", "mac": "00:50:56:0b:00:11"}],
            ),
            vm(BOOKS, "esx1", "local1", first, folder="本番", annotation="会計", custom={"担当": "会計課"}, mac="00:50:56:0b:00:33"),
            vm(BATCH, "esx1", "共有 1", second, power="off", mac="00:50:56:0b:00:44"),
            vm("toolless", "esx1", "共有 1", second, tools="not_running"),
            vm("hung", "esx1", "local1", second, tools="hangs"),
            vm("gpu", "esx3", "共有 1", second, passthrough=["3b:00.0"]),
        ],
    }
    path = folder / "model.json"
    path.write_text(json.dumps(described), encoding="utf-8")
    return path


class Moves:
    """The vCenter, a plain client of it, and the module."""

    def __init__(self, vcenter: VCenter, folder: Path) -> None:
        self.vcenter = vcenter
        self.folder = folder
        self.client = Client(vcenter)
        env = vcenter.env()
        self.connection = {
            "hostname": env["VMWARE_HOST"],
            "port": vcenter.port,
            "username": env["VMWARE_USER"],
            "password": env["VMWARE_PASSWORD"],
            "ca_path": env["VMWARE_CA_PATH"],
            "validate_certs": True,
        }
        self.warnings: list[str] = []

    def params(self, vm: str, **options: Any) -> dict[str, Any]:
        return {**DEFAULTS, **self.connection, "state_dir": str(self.folder / "kept"), "vm": vm, **options}

    def move(self, vm: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
        call = edge.Call(self.params(vm, **options), check=check, diff=True, warn=self.warnings.append)
        return vm_move.work(call)

    def host(self, vm: str) -> str:
        """Where the VM is, as plain pyvmomi sees it."""
        return str(self.client.vm(vm).runtime.host.name)

    def power(self, vm: str) -> str:
        return str(self.client.vm(vm).runtime.powerState)

    def files(self, vm: str) -> list[str]:
        """The configuration file and the disks' files, as plain pyvmomi sees them."""
        config = self.client.vm(vm).config
        disks = [d.backing.fileName for d in config.hardware.device if hasattr(d, "capacityInKB")]
        return [str(config.files.vmPathName), *map(str, disks)]

    def cards(self, vm: str) -> list[tuple[int, str]]:
        return [(d.key, d.macAddress) for d in self.client.vm(vm).config.hardware.device if hasattr(d, "macAddress")]

    def attributes(self, vm: str) -> dict[str, str]:
        names = {f.key: f.name for f in self.client.content.customFieldsManager.field}
        return {names[v.key]: v.value for v in self.client.vm(vm).customValue if v.value}

    def relocating(self) -> bool:
        """Whether a relocation runs."""
        tasks = [t.info for t in self.client.content.taskManager.recentTask]
        return any("relocate" in i.descriptionId and i.state == "running" for i in tasks)

    def sha(self, vm: str, *keys: int) -> list[str]:
        return [self.vcenter.sha256(vm, key) for key in keys or (2000,)]

    # -- runs that are killed -------------------------------------------------------------------------------------------

    def start(self, vm: str, **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}
        )
        if process.stdin is None:
            raise RuntimeError("no pipe")
        process.stdin.write(json.dumps(self.params(vm, **options)).encode())
        process.stdin.close()
        process.stdin = None
        return process

    @staticmethod
    def kill(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until C(what) holds."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise AssertionError("it did not come so far")
        time.sleep(0.02)


_CHILD = """
import json, sys
from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.modules import vm_move
print(json.dumps(vm_move.work(edge.Call(json.load(sys.stdin))), default=str))
"""


@contextmanager
def moves_of(folder: Path) -> Iterator[Moves]:
    """A vCenter with the model; stopped at the end."""
    (folder / "model").mkdir(parents=True)
    with running(folder / "lab", model(folder / "model")) as vcenter:
        lab = Moves(vcenter, folder)
        try:
            yield lab
        finally:
            lab.client.close()
