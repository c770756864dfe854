# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A vCenter of the tests' own, on free ports, with a small model; and a client that is plain pyvmomi and urllib."""

from __future__ import annotations

import fcntl
import json
import os
import random
import ssl
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyVim.connect import Disconnect, SmartConnect
from pyVim.task import WaitForTask
from pyVmomi import vim

from tests.lab.common import Place, port_is_free
from tests.lab.vcenter import CONTROL_OFFSET, HTTPS_OFFSET, USER, VCenter

MIB = 1 << 20
JAPANESE = "在庫 01 管理"
DISKS = ("pvscsi", "lsilogic", "lsilogic-sas", "buslogic")


#: The locks of this process, by port base.
HELD: dict[int, int] = {}


def free_base(offsets: Sequence[int] = (HTTPS_OFFSET, CONTROL_OFFSET)) -> int:
    """A port base whose ports (by default vCenter's) are free, and which no other process of these tests takes until it is given back.

    The ports lie below those that the kernel gives to outgoing connections: one of these may take a port between our look and the lab's
    start, and keeps it for a minute after its end.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    low, high = (26000, first - 20) if first > 27000 else (11000, max(12000, first - 20))
    locks = Path(tempfile.gettempdir()) / f"ferry-test-ports-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    while True:
        base = random.SystemRandom().randrange(low, high - 20, 40)
        if not all(port_is_free(base + o) for o in offsets):
            continue
        lock = os.open(locks / str(base), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            time.sleep(0.01)  # all of them may be taken for a while
            continue
        HELD[base] = lock
        return base


def give_back(base: int) -> None:
    """What runs there has ended. There are fewer bases than vCenters in all of the tests together."""
    os.close(HELD.pop(base))


def write_raw(path: Path, size: int, seed: int) -> Path:
    """A raw disk of size bytes: data at the beginning and the end, a hole between."""
    source = random.Random(seed)
    with open(path, "wb") as f:
        f.write(source.randbytes(MIB))
        f.seek(size - 100_000)
        f.write(source.randbytes(100_000))
    return path


def small_model(folder: Path) -> Path:
    """Write a model with what the tests look at, and its raw disks."""
    raw = {
        name: write_raw(folder / f"{name}.raw", size, i) for i, (name, size) in enumerate({"odd": 4 * MIB + 1536, "even": 3 * MIB}.items())
    }

    def disk(controller: str, bus: int = 0, **more: Any) -> dict[str, Any]:
        return {"controller": controller, "bus": bus, "path": raw["even"].name, **more}

    vms: list[dict[str, Any]] = [
        {
            "name": "plain",
            "uuid": "50210a1b-1111-4c6e-9f01-7a1e5b1c0001",
            "bios_uuid": "42210a1b-1111-4c6e-9f01-7a1e5b1c0001",
            "host": "esx1",
            "datastore": "shared",
            "folder": "prod/web",
            "guest_id": "debian12_64Guest",
            "firmware": "efi",
            "secure_boot": True,
            "cpus": 2,
            "memory_mb": 1024,
            "power": "on",
            "hw_version": "vmx-20",
            "annotation": "first line\nsecond line",
            "custom": {"owner": "web team", "window": "Sunday"},
            "shutdown_seconds": 0.3,
            "hostname": "plain.example",
            "disks": [{"controller": "pvscsi", "unit": 0, "path": raw["odd"].name, "provisioning": "thin"}],
            "nics": [
                {"network": "VM Network", "mac": "00:50:56:0a:00:22", "ip": "192.0.2.5"},
                {"network": "backend", "mac": "00:50:56:0a:00:11", "type": "e1000e"},
                {"network": "dvpg", "mac": "00:50:56:0a:00:33", "type": "e1000"},
            ],
        },
        {
            "name": "controllers",
            "host": "esx1",
            "datastore": "shared",
            "disks": [
                *(disk(c, bus=i) for i, c in enumerate(DISKS)),
                disk("ide", bus=0, unit=1),
                disk("ide", bus=1),
                disk("sata", unit=2),
                disk("nvme", unit=3),
                disk("pvscsi", provisioning="eagerZeroedThick", datastore="local1"),
            ],
        },
        {"name": "hung", "host": "esx1", "datastore": "shared", "power": "on", "tools": "hangs", "disks": [disk("pvscsi")]},
        {"name": "toolless", "host": "esx1", "datastore": "shared", "power": "on", "tools": "not_running", "disks": [disk("pvscsi")]},
        {"name": "golden", "host": "esx2", "datastore": "shared", "template": True, "disks": [disk("lsilogic", provisioning="thick")]},
        {"name": JAPANESE, "host": "esx3", "datastore": "nfs 1", "power": "on", "shutdown_seconds": 0.1, "disks": [disk("ide")]},
    ]
    model = {
        "datacenter": "DC lab",
        "clusters": [{"name": "C0", "hosts": ["esx1", "esx2"]}],
        "standalone_hosts": ["esx3"],
        "networks": ["VM Network", "backend", {"name": "dvpg", "distributed": True}],
        "datastores": [
            {"name": "shared", "type": "VMFS", "capacity": "10GiB", "hosts": ["esx1", "esx2"]},
            {"name": "local1", "capacity": "2GiB", "hosts": ["esx1"]},
            {"name": "nfs 1", "type": "NFS", "capacity": "1TiB", "free": "5GiB", "hosts": ["esx1", "esx2", "esx3"]},
        ],
        "vms": vms,
    }
    path = folder / "model.json"
    path.write_text(json.dumps(model), encoding="utf-8")
    return path


def warm_model(folder: Path) -> Path:
    """Write a model for snapshots and change tracking, and its raw disks: "db" runs tracked, "plain" untracked, "old" is on VMFS 5."""
    first, second = write_raw(folder / "first.raw", 8 * MIB + 1536, 11), write_raw(folder / "second.raw", 5 * MIB, 12)

    def disk(raw: Path, **more: Any) -> dict[str, Any]:
        return {"controller": "pvscsi", "path": raw.name, **more}

    model = {
        "datacenter": "DC lab",
        "clusters": [{"name": "C0", "hosts": ["esx1"]}],
        "standalone_hosts": ["esx2"],
        "networks": ["VM Network"],
        "datastores": [
            {"name": "shared", "type": "VMFS", "capacity": "10GiB"},
            {"name": "vmfs5", "type": "VMFS", "vmfs": 5, "capacity": "10GiB"},
            {"name": "nfs", "type": "NFS", "capacity": "10GiB"},
        ],
        "esxi": {"*": {"version": "7.0.3", "build": "21930508"}, "esx2": {"version": "6.0.0", "build": "2494585"}},
        "vms": [
            {
                "name": "db",
                "host": "esx1",
                "datastore": "shared",
                "power": "on",
                "cbt": True,
                "shutdown_seconds": 0.1,
                "disks": [disk(first), disk(second, controller="lsilogic-sas", bus=1)],
            },
            {
                "name": "plain",
                "host": "esx1",
                "datastore": "shared",
                "power": "on",
                "disks": [
                    disk(first, provisioning="thick"),
                    disk(second, mode="independent_persistent"),
                    {"controller": "pvscsi", "capacity": "1GiB", "rdm": "physical"},
                ],
            },
            {"name": "old", "host": "esx1", "datastore": "vmfs5", "power": "on", "cbt": True, "disks": [disk(first)]},
            {
                "name": "onnfs",
                "host": "esx2",
                "datastore": "nfs",
                "power": "on",
                "tools": "not_running",
                "cbt": True,
                "disks": [disk(first)],
            },
            {"name": "big", "host": "esx2", "datastore": "vmfs5", "power": "on", "cbt": True, "disks": [disk(first, capacity="2TiB")]},
        ],
        "bulk": {"vms": 2},
    }
    path = folder / "model.json"
    path.write_text(json.dumps(model), encoding="utf-8")
    return path


def disks_of(config: Any) -> dict[int, Any]:
    """Virtual disks of a configuration, of a VM or of a snapshot, by key."""
    return {d.key: d for d in config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)}


@dataclass
class Answer:
    """What /folder answered."""

    status: int
    headers: Any
    body: bytes


class Client:
    """Plain pyvmomi for SOAP, urllib for files."""

    def __init__(self, lab: VCenter, user: str = USER, password: str | None = None) -> None:
        self.lab = lab
        self.tls = ssl.create_default_context(cafile=str(lab.place.state / "ca.pem"))
        self.si = SmartConnect(host="127.0.0.1", port=lab.port, user=user, pwd=password or lab.place.password(), sslContext=self.tls)
        self.content = self.si.RetrieveContent()

    @property
    def cookie(self) -> str:
        return str(self.si._stub.cookie).partition(";")[0]

    @property
    def logged_in(self) -> bool:
        """Whether the session lives; without one, a server may answer with nothing or with NotAuthenticated."""
        try:
            return self.content.sessionManager.currentSession is not None
        except vim.fault.NotAuthenticated:
            return False

    def close(self) -> None:
        """Log out, if the session still lives, and close the sockets, which pyvmomi leaves to the garbage collector."""
        if self.logged_in:
            Disconnect(self.si)
        self.si._stub.DropConnections()

    def all(self, kind: type) -> dict[str, Any]:
        view = self.content.viewManager.CreateContainerView(self.content.rootFolder, [kind], True)
        try:
            return {x.name: x for x in view.view}
        finally:
            view.Destroy()

    def vm(self, name: str) -> Any:
        return self.all(vim.VirtualMachine)[name]

    def wait(self, task: Any) -> Any:
        return WaitForTask(task, self.si)

    def snapshot(self, vm: Any, name: str, quiesce: bool = False, description: str = "") -> Any:
        """Take a snapshot; it."""
        task = vm.CreateSnapshot_Task(name, description, False, quiesce)
        self.wait(task)
        return task.info.result

    def areas(self, vm: Any, snapshot: Any, key: int, change_id: str = "*") -> list[tuple[int, int]]:
        """All changed areas (start, length), whichever parts they come in."""
        capacity = disks_of(snapshot.config if snapshot else vm.config)[key].capacityInBytes
        found: list[tuple[int, int]] = []
        start = 0
        while start < capacity:
            part = vm.QueryChangedDiskAreas(snapshot, key, start, change_id)
            found += [(a.start, a.length) for a in part.changedArea]
            start = part.startOffset + part.length
        return found

    def stream(self, url: str) -> bytes:
        """Read a lease's URL."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.tls))
        with opener.open(url.replace("*", f"127.0.0.1:{self.lab.port}"), timeout=30) as answer:
            return bytes(answer.read())

    def file(
        self, path: str, method: str = "GET", data: bytes | None = None, ds: str = "shared", dc: str = "DC lab", **headers: str
    ) -> Answer:
        """Ask /folder for a file; headers may override the session's cookie (Cookie="")."""
        query = urllib.parse.urlencode({"dcPath": dc, "dsName": ds})
        url = f"https://127.0.0.1:{self.lab.port}/folder/{urllib.parse.quote(path)}?{query}"
        sent = {"Cookie": self.cookie, **headers}
        request = urllib.request.Request(url, data=data, method=method, headers={k: v for k, v in sent.items() if v})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.tls))
        try:
            with opener.open(request, timeout=20) as r:
                return Answer(r.status, r.headers, r.read())
        except urllib.error.HTTPError as e:
            with e:
                return Answer(e.code, e.headers, e.read())


@contextmanager
def running(folder: Path, model: Path) -> Iterator[VCenter]:
    """A vCenter with this model, stopped at the end."""
    base = free_base()
    try:
        lab = VCenter(Place(folder / "state", base))
        lab.up(model)
        try:
            yield lab
        finally:
            lab.down()
    finally:
        give_back(base)
