# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tests of moves, hosts and events ask of the lab's vCenter, by plain pyvmomi, govc, and urllib."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyVmomi import vim, vmodl

from tests.lab.vcenter import USER, VCenter, build
from tests.lab_tests.vcenter_lab import Client, disks_of

MOVES = Path(__file__).parents[1] / "lab" / "models" / "moves.yml"
STOCK = "在庫 01 管理"
LEVEL = "defaultPriority"
Spec = vim.vm.RelocateSpec
Disk = Spec.DiskLocator
Flat = vim.vm.device.VirtualDisk.FlatVer2BackingInfo
Card = vim.vm.device.VirtualEthernetCard


def host(client: Client, name: str) -> Any:
    return client.all(vim.HostSystem)[name]


def store(client: Client, name: str) -> Any:
    return client.all(vim.Datastore)[name]


def files(vm: Any) -> dict[int, str]:
    return {key: d.backing.fileName for key, d in disks_of(vm.config).items()}


def said(fault: Any) -> str:
    return type(fault).__name__.rpartition(".")[2]


def refused(client: Client, what: Callable[[], Any]) -> str:
    """The name of the fault that a call or its task ends with."""
    try:
        task = what()
        client.wait(task)
    except vmodl.MethodFault as e:
        return said(e)
    raise AssertionError("it was not refused")


def relocate(client: Client, vm: Any, **spec: Any) -> None:
    client.wait(vm.RelocateVM_Task(Spec(**spec), LEVEL))


def until(what: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def state(vm: Any) -> dict[str, Any]:
    """What a move that fails must leave as it was."""
    return {
        "host": vm.runtime.host.name,
        "pool": vm.resourcePool,
        "folder": vm.parent,
        "power": vm.runtime.powerState,
        "vmx": vm.config.files.vmPathName,
        "files": files(vm),
        "stores": {d.name for d in vm.datastore},
        "networks": {n.name for n in vm.network},
    }


def identity(vm: Any) -> dict[str, Any]:
    """What registering must give back from the configuration file."""
    c = vm.config
    return {
        "uuids": (c.uuid, c.instanceUuid),
        "annotation": c.annotation,
        "hardware": (c.hardware.numCPU, c.hardware.memoryMB, c.guestId, c.firmware, c.version, c.changeTrackingEnabled),
        "disks": {k: (d.backing.fileName, d.capacityInBytes, d.backing.uuid, d.backing.thinProvisioned) for k, d in disks_of(c).items()},
        "controllers": sorted(type(d).__name__ for d in c.hardware.device if isinstance(d, vim.vm.device.VirtualController)),
        "nics": [(d.key, type(d).__name__, d.macAddress, d.deviceInfo.summary) for d in c.hardware.device if isinstance(d, Card)],
        "reserved": c.memoryAllocation.reservation,
    }


def govc(lab: VCenter, home: Path, *args: str) -> str:
    """What govmomi's own command line says."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GOVC_URL": f"https://127.0.0.1:{lab.port}/sdk",
        "GOVC_USERNAME": USER,
        "GOVC_PASSWORD": lab.place.password(),
        "GOVC_TLS_CA_CERTS": str(lab.place.state / "ca.pem"),
    }
    done = subprocess.run([str(build("./govc", "govc")), *args], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask_api(lab: VCenter, method: str, path: str, body: Any = None, *, token: str = "", user: bool = False) -> tuple[int, Any]:
    """Status and JSON that the Automation API answers."""
    request = urllib.request.Request(f"https://127.0.0.1:{lab.port}{path}", json.dumps(body).encode() if body else None, method=method)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("vmware-api-session-id", token)
    if user:
        pair = f"{USER}:{lab.place.password()}".encode()
        request.add_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
    tls = ssl.create_default_context(cafile=str(lab.place.state / "ca.pem"))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls))
    try:
        with opener.open(request, timeout=20) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, None
    return status, json.loads(text) if text else None
