# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A vCenter of the tests' own with VMs to copy, and vm_disk_copy's work called as the module calls it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils.transfer import disk_copy
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import cbt, client, find
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.tasks import wait_task
from tests.lab.vcenter import VCenter
from tests.lab_tests.vcenter_lab import MIB, running

JAPANESE = "会計 サーバ 02"
DEFAULTS: dict[str, Any] = {
    "snapshot": None,
    "quiesce": "auto",
    "mode": "auto",
    "transport": "auto",
    "workers": 4,
    "chunk_size": 4 * MIB,
    "verify": "sample",
    "checksum": "none",
    "patience": 30,
    "take_over": False,
    "root_helper": "sudo",
    "progress_interval": 5.0,
    "lease_seconds": 120.0,
}


def make_raw(path: Path, size: int, seed: int) -> Path:
    """Two areas that look like partitions: data with holes, zeroes written out, text; and an odd end."""
    source = random.Random(seed)
    with path.open("wb") as f:
        f.truncate(size)
        for start in (MIB // 2, size // 2 // 512 * 512):
            f.seek(start)
            f.write(source.randbytes(300_000) + bytes(200_000) + b"/etc/hosts 127.0.0.1 localhost\n" * 9000)
        f.seek(size - 5000)
        f.write(source.randbytes(5000))
    return path


def model(folder: Path) -> Path:
    """VMs of several kinds, all with disks of their own."""
    raws = [make_raw(folder / f"{n}.raw", size, n) for n, size in enumerate((24 * MIB + 1536, 9 * MIB, 64 * MIB))]

    def vm(name: str, *sizes: int, **more: Any) -> dict[str, Any]:
        disks = [
            {"controller": "pvscsi", "unit": n, "path": raws[size].name, "provisioning": "thin", **more.pop(f"disk{n}", {})}
            for n, size in enumerate(sizes)
        ]
        return {"name": name, "host": "esx1", "datastore": "vmfs", "power": "on", "disks": disks, "shutdown_seconds": 0.2, **more}

    vms = [
        vm("one", 0),
        vm(JAPANESE, 0, 1, disk1={"datastore": "nfs 1", "controller": "ide"}),
        vm("large", 2),
        vm("odd", 0, 1, disk1={"mode": "independent_persistent"}),
        vm("toolless", 0, tools="not_running"),
        vm("modern", 0, datastore="vsan"),
        vm("old", 0, host="esx6"),
    ]
    text = {
        "datacenter": "DC lab",
        "clusters": [{"name": "C0", "hosts": ["esx1", "esx2", "esx3", "esx6"]}],
        "networks": ["VM Network"],
        "datastores": [
            {"name": "vmfs", "type": "VMFS", "capacity": "10GiB", "hosts": ["esx1", "esx6"]},
            {"name": "nfs 1", "type": "NFS", "capacity": "10GiB", "hosts": ["esx1", "esx6"]},
            {"name": "vsan", "type": "vsan", "capacity": "10GiB", "hosts": ["esx1", "esx2", "esx3"]},
        ],
        "esxi": {"esx6": {"version": "6.0.0", "build": "2494585"}},
        "vms": vms,
    }
    path = folder / "model.json"
    path.write_text(json.dumps(text), encoding="utf-8")
    return path


class Lab:
    """The vCenter, a session with it, and copies into a folder."""

    def __init__(self, vcenter: VCenter, folder: Path) -> None:
        self.vcenter = vcenter
        self.folder = folder
        env = vcenter.env()
        self.connection = {
            "hostname": env["VMWARE_HOST"],
            "port": vcenter.port,
            "username": env["VMWARE_USER"],
            "password": env["VMWARE_PASSWORD"],
            "ca_path": env["VMWARE_CA_PATH"],
            "validate_certs": True,
        }
        self.session = client.connect(self.connection)

    def close(self) -> None:
        self.session.close()

    def reconnect(self) -> None:
        """A new session, after a restart of the server."""
        self.session.close()
        self.session = client.connect(self.connection)

    def ref(self, vm: str) -> Any:
        return find.find_vm(self.session, vm)

    def track(self, vm: str) -> None:
        cbt.apply(self.session, self.ref(vm), enable=True)

    def task(self, task: Any) -> Any:
        return wait_task(self.session, task, step="the test's")

    def power(self, vm: str, on: bool) -> None:
        ref = self.ref(vm).ref
        state = self.session.call(lambda: ref.runtime.powerState)
        if (state == "poweredOn") != on:
            self.task(ref.PowerOnVM_Task(None) if on else ref.PowerOffVM_Task())

    def snapshot(self, vm: str, name: str) -> Any:
        """A snapshot as a user takes it."""
        return self.task(self.ref(vm).ref.CreateSnapshot_Task(name, "", False, False))

    def revert(self, snapshot: Any) -> None:
        self.task(self.session.managed("VirtualMachineSnapshot", snapshot._moId).RevertToSnapshot_Task(None, False))

    def scribble(self, vm: str, seed: int, *, disks: tuple[int, ...] = (2000,), writes: int = 4, end: int = 8 * MIB) -> None:
        """Write here and there as a guest does."""
        source = random.Random(seed)
        for _n in range(writes):
            for disk in disks:
                data = source.randbytes(512 * source.randrange(1, 200)) if source.random() < 0.8 else bytes(512 * 64)
                self.vcenter.write(vm, disk, source.randrange((end - len(data)) // 512) * 512, data)

    def fill(self, vm: str, end: int, share: int = 512 << 10) -> None:
        """Data of C(share) bytes in each MiB up to C(end)."""
        for offset in range(0, end, MIB):
            self.vcenter.write(vm, 2000, offset, random.Random(offset).randbytes(share))

    def params(self, vm: str, keys: tuple[int, ...] = (2000,), **more: Any) -> dict[str, Any]:
        disks = [{"disk": str(key), "dest": {"path": str(self.target(vm, key))}, "format": "raw"} for key in keys]
        return {**DEFAULTS, **self.connection, "vm": vm, "disks": disks, "ledger": str(self.folder / "state"), **more}

    def target(self, vm: str, key: int = 2000) -> Path:
        return self.folder / f"{vm}-{key}.raw"

    def copy(self, vm: str, keys: tuple[int, ...] = (2000,), *, check: bool = False, **more: Any) -> dict[str, Any]:
        return disk_copy.run(self.params(vm, keys, **more), check=check)

    def file(self, source: str, target: Path) -> dict[str, Any]:
        """The copy of a local disk or an NBD export."""
        disk = {"disk": None, "dest": {"path": str(target)}, "format": "raw"}
        more = {"vm": None, "source": source, "disks": [disk]}
        found: dict[str, Any] = disk_copy.run({**DEFAULTS, "ledger": str(self.folder / "state"), **more})["disks"][0]
        return found

    def row(self, vm: str, **more: Any) -> dict[str, Any]:
        """The copy of a VM's first disk."""
        found: dict[str, Any] = self.copy(vm, **more)["disks"][0]
        return found

    def sha(self, vm: str, key: int = 2000) -> str:
        return hashlib.sha256(self.target(vm, key).read_bytes()).hexdigest()

    def source_sha(self, vm: str, key: int = 2000, snapshot: str = "") -> str:
        return self.vcenter.sha256(vm, key, snapshot)

    def equal(self, vm: str, *keys: int) -> bool:
        return all(self.sha(vm, key) == self.source_sha(vm, key) for key in keys or (2000,))

    def snapshots(self, vm: str) -> list[str]:
        return [s["name"] for s in self.vcenter.snapshots(vm)]

    # -- copies that are killed ---------------------------------------------------------------------------------------

    def start(self, vm: str, keys: tuple[int, ...] = (2000,), host: str = "", **more: Any) -> subprocess.Popen[bytes]:
        """The copy in a process of its own, which gets its options on standard input; C(host): its machine's name is another one."""
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, host], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}
        )
        if process.stdin is None:
            raise RuntimeError("no pipe")
        process.stdin.write(json.dumps(self.params(vm, keys, **more)).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def wait_for(self, what: Callable[[], bool], process: subprocess.Popen[bytes] | None = None, seconds: float = 60) -> None:
        """Until C(what) holds, or the process has ended by itself, which is an error."""
        end = time.monotonic() + seconds
        while not what():
            if process is not None and process.poll() is not None:
                raise AssertionError(f"it ended: {process.stderr.read().decode() if process.stderr else ''}")
            if time.monotonic() > end:
                raise AssertionError("it did not come so far")
            time.sleep(0.02)  # another process works meanwhile

    @staticmethod
    def kill(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    def served(self) -> int:
        """Bytes of disks that /folder has served since the statistics were cleared."""
        return sum(f["bytes"] for name, f in self.vcenter.get("/stats")["files"].items() if "-flat" in name or "-delta" in name)


_CHILD = """
import json, socket, sys
if sys.argv[1]:
    socket.gethostname = lambda: sys.argv[1]
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import disk_copy
print(json.dumps(disk_copy.run(json.load(sys.stdin)), default=str))
"""


@contextmanager
def lab_of(folder: Path) -> Iterator[Lab]:
    """A vCenter with the model; stopped at the end."""
    (folder / "model").mkdir(parents=True)
    with running(folder / "lab", model(folder / "model")) as vcenter:
        lab = Lab(vcenter, folder)
        try:
            yield lab
        finally:
            lab.close()
