# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A vCenter for the tests of change tracking, snapshots and leases, and the modules run on it as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import (
    cbt,
    client,
    find,
    snapshots,
    source_state,
)
from tests.lab.vcenter import VCenter

from .vcenter_lab import JAPANESE, MIB, running, write_raw

COLLECTIONS = Path(__file__).resolve().parents[5]
KIB64 = 65536
TWO, MIXED, OFF, ON_NFS = JAPANESE, "mixed", "off", "on nfs"


def model(folder: Path) -> Path:
    first, second = write_raw(folder / "first.raw", 8 * MIB + 1536, 1), write_raw(folder / "second.raw", 5 * MIB, 2)

    def vm(name: str, *disks: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"name": name, "host": "esx1", "datastore": "shared", "power": "on", "disks": list(disks), **more}

    def disk(raw: Path, **more: Any) -> dict[str, Any]:
        return {"controller": "pvscsi", "path": raw.name, **more}

    two = (disk(first), disk(second, controller="lsilogic-sas", bus=1))
    described = {
        "datacenter": "DC lab",
        "clusters": [{"name": "C0", "hosts": ["esx1"]}],
        "networks": ["VM Network"],
        "datastores": [{"name": "shared", "type": "VMFS", "capacity": "10GiB"}, {"name": "nfs", "type": "NFS", "capacity": "10GiB"}],
        "esxi": {"*": {"version": "6.0.0", "build": "3073146"}},
        "vms": [
            vm(TWO, *two),
            vm(
                MIXED,
                disk(first),
                disk(second, mode="independent_persistent"),
                {"controller": "pvscsi", "capacity": "1GiB", "rdm": "physical"},
            ),
            vm(OFF, *two, power="off"),
            vm(ON_NFS, disk(first), datastore="nfs", tools="not_running"),
        ],
    }
    path = folder / "model.json"
    path.write_text(json.dumps(described), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def vcenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCenter]:
    folder = tmp_path_factory.mktemp("vcenter")
    with running(folder, model(folder)) as lab:
        yield lab


@pytest.fixture(scope="module")
def params(vcenter: VCenter) -> dict[str, Any]:
    e = vcenter.env()
    return {
        "hostname": e["VMWARE_HOST"],
        "port": int(e["VMWARE_PORT"]),
        "username": e["VMWARE_USER"],
        "password": e["VMWARE_PASSWORD"],
        "ca_path": e["VMWARE_CA_PATH"],
        "validate_certs": True,
    }


@pytest.fixture
def session(vcenter: VCenter, params: dict[str, Any]) -> Iterator[client.Session]:
    """A session; afterwards every VM is as it was in the model: nothing tracked, no snapshots."""
    with client.connect(params) as found:
        yield found
        vcenter.clear()
        switches(vcenter)
        for vm in find.find_vms(found, [TWO, MIXED, OFF, ON_NFS]):
            for snapshot in snapshots.every(found, vm)[::-1]:
                snapshots.remove(found, snapshot, foreign=True)
            cbt.apply(found, vm, enable=False)
            source_state.apply(found, vm, source_state.Wanted(power="off" if vm.name == OFF else "on"))


def control(lab: VCenter, method: str, path: str, body: bytes | None = None, **query: Any) -> Any:
    url = f"{lab.control}{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(urllib.request.Request(url, data=body, method=method), timeout=30) as answer:
        return json.loads(answer.read() or b"{}")


def switches(lab: VCenter, **values: Any) -> None:
    """Set these switches of the lab, and no others."""
    control(lab, "DELETE", "/switches")
    for name, value in values.items():
        control(lab, "POST", "/switches", json.dumps({"name": name, "value": str(value)}).encode())


def write(lab: VCenter, vm: str, key: int, offset: int, data: bytes) -> None:
    """What the guest would write."""
    control(lab, "POST", "/guest/write", data, vm=vm, disk=key, offset=offset)


def methods(lab: VCenter) -> dict[str, int]:
    found: dict[str, int] = lab.get("/stats")["methods"]
    return found


def run_module(name: str, params: dict[str, Any], *, check: bool = False, diff: bool = False, **options: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"ansible_collections.ferry.vmware.plugins.modules.{name}"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**params, **options, "_ansible_check_mode": check, "_ansible_diff": diff}}),
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    assert params["password"] not in done.stdout.replace(json.dumps(params["password"]), "") + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def two(session: client.Session) -> find.VmRef:
    """The VM with two disks, tracked."""
    vm = find.find_vm(session, TWO)
    cbt.apply(session, vm, enable=True)
    return vm
