# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of the guide on moves, cell by cell, on a lab that is in the state of the row: vm_move in check mode says what the table says.

What a lab cannot be in is left out: a question that waits, a heartbeat of a VM on a silent host, a linked clone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import FerryError
from tests.lab_tests.moves_lab import refused
from tests.lab_tests.vcenter_lab import MIB, running, write_raw
from tests.lab_tests.vm_move_lab import Moves
from tests.unit.plugins.module_utils.vsphere import test_move_matrix as matrix

HOSTS = ["esx1", "esx2", "amd", "small", "lanless", "storeless", "resting", "gone"]
LEFT_OUT = {"waits for an answer", "linked clone", "its host is silent, a VM on it has a heartbeat"}


@dataclass(frozen=True)
class There:
    """A row on the lab: its VM, its target, the other datastore, what is said of the fencing. C(phase): which state the hosts are in."""

    vm: str
    target: str = "esx2"
    datastore: str = "other"
    fenced: bool | None = None
    constraints: tuple[dict[str, Any], ...] = ()
    phase: str = "alive"


APART = {"kind": "apart", "vms": ["run", "neighbour"]}
ROWS = {
    "runs, shared storage": There("run"),
    "off, shared storage": There("off"),
    "suspended, shared storage": There("suspended"),
    "runs, local disk of its host": There("local"),
    "off, local disk of its host": There("localoff"),
    "VMware Tools do not run": There("toolless"),
    "has snapshots": There("snapped"),
    "needs consolidation": There("consolidate"),
    "passthrough device": There("gpu"),
    "CD drive of the host connected": There("cd"),
    "target not connected": There("run", "gone"),
    "target in maintenance mode": There("run", "resting"),
    "target without the network": There("run", "lanless"),
    "target's CPUs of another maker": There("run", "amd"),
    "target with too little memory": There("run", "small"),
    "target without the shared storage": There("run", "storeless"),
    "the other datastore is full": There("run", datastore="full"),
    "to be apart from a VM on the target": There("run", constraints=(APART,)),
    "its host was disconnected by somebody": There("run", fenced=True, phase="disconnected"),
    "its host is dead, vSphere HA protects the cluster": There("run", fenced=True, phase="dead, HA"),
    "its host is dead, fenced": There("run", fenced=True, phase="dead"),
    "its host is dead, nothing said of fencing": There("run", phase="dead"),
    "its host is dead, fencing failed": There("run", fenced=False, phase="dead"),
    "its host is dead, local disk": There("local", fenced=True, phase="dead"),
}


def model(folder: Path) -> Path:
    raw = write_raw(folder / "disk.raw", 2 * MIB, 3)

    def vm(name: str, **more: Any) -> dict[str, Any]:
        disks = [{"controller": "pvscsi", "path": raw.name, "provisioning": "thin"}]
        fields = {"host": "esx1", "datastore": "shared", "power": "on", "memory_mb": 4096, "disks": disks, "nics": [{"network": "LAN"}]}
        return {"name": name, **fields, **more}

    found = {
        "datacenter": "DC0",
        "clusters": [{"name": "C0", "hosts": HOSTS}],
        "networks": [{"name": "LAN", "hosts": [h for h in HOSTS if h != "lanless"]}, "VM Network"],
        "datastores": [
            {"name": "shared", "capacity": "10GiB", "hosts": [h for h in HOSTS if h != "storeless"]},
            {"name": "other", "capacity": "10GiB"},
            {"name": "full", "capacity": "10GiB", "free": "1MiB"},
            {"name": "local1", "capacity": "4GiB", "hosts": ["esx1"]},
        ],
        "hardware": {
            "*": {"memory_mb": 65536, "cores": 16, "evc": "intel-skylake"},
            "amd": {"memory_mb": 65536, "cores": 16, "evc": "amd-zen"},
            "small": {"memory_mb": 2048, "cores": 16, "evc": "intel-skylake"},
        },
        "vms": [
            vm("run"),
            vm("off", power="off"),
            vm("suspended", power="suspended"),
            vm("local", datastore="local1"),
            vm("localoff", datastore="local1", power="off"),
            vm("toolless", tools="not_running"),
            vm("snapped"),
            vm("consolidate"),
            vm("gpu", passthrough=["3b:00.0"]),
            vm("cd", iso="[local1] iso/setup.iso"),
            vm("neighbour", host="esx2"),
        ],
    }
    path = folder / "model.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moves]:
    folder = tmp_path_factory.mktemp("matrix")
    with running(folder / "lab", model(folder)) as vcenter:
        moves = Moves(vcenter, folder)
        client = moves.client
        hosts = client.all(vim.HostSystem)
        client.wait(hosts["resting"].EnterMaintenanceMode_Task(10))
        vcenter.post("/host/die", host="gone", vms="die")
        client.snapshot(client.vm("snapped"), "one")
        snapshot = client.snapshot(client.vm("consolidate"), "one")
        vcenter.fault("consolidate_fail", match="consolidate")
        assert refused(client, lambda: snapshot.RemoveSnapshot_Task(False)) == "FileLocked"
        yield moves
        client.close()


@pytest.fixture
def hosts_in(lab: Moves, request: pytest.FixtureRequest) -> Iterator[str]:
    """The hosts as the row's phase wants them; as before afterwards."""
    phase, esx1 = str(request.param), lab.client.all(vim.HostSystem)["esx1"]
    cluster = lab.client.all(vim.ClusterComputeResource)["C0"]

    def protect(on: bool) -> None:
        spec = vim.cluster.ConfigSpecEx(dasConfig=vim.cluster.DasConfigInfo(enabled=on))
        lab.client.wait(cluster.ReconfigureComputeResource_Task(spec, True))

    if phase == "disconnected":
        lab.client.wait(esx1.DisconnectHost_Task())
    elif phase.startswith("dead"):
        lab.vcenter.post("/host/die", host="esx1", vms="run")
        protect(phase.endswith("HA"))
    yield phase
    if phase == "disconnected":
        lab.client.wait(esx1.ReconnectHost_Task())
    elif phase.startswith("dead"):
        protect(False)
        lab.vcenter.post("/host/back", host="esx1")


def said(lab: Moves, there: There, options: dict[str, Any]) -> str:
    """What vm_move says in check mode, in the words of the table; what vCenter's own checks add is not in it."""
    own = dict(options)
    if "host" in own:
        own["host"] = there.target
    if "datastore" in own:
        own["datastore"] = there.datastore
    try:
        found = lab.move(there.vm, check=True, fenced=there.fenced, constraints=list(there.constraints), **own)
    except FerryError as e:
        failed = [c["id"] for c in e.partial["checks"] if not c["passed"] and not c["id"].startswith("server.")]
        return "; ".join(failed) or "refused by vCenter alone"
    return str(found["method"]) if "method" not in options else "yes"


def test_every_row_is_here_or_left_out() -> None:
    assert set(ROWS) | LEFT_OUT == {s.title for s in matrix.STATES} and not set(ROWS) & LEFT_OUT


@pytest.mark.long
@pytest.mark.parametrize(("title", "hosts_in"), [(title, there.phase) for title, there in ROWS.items()], indirect=["hosts_in"])
def test_the_lab_says_what_the_table_says(lab: Moves, title: str, hosts_in: str) -> None:
    assert hosts_in == ROWS[title].phase
    state = next(s for s in matrix.STATES if s.title == title)
    table = {name: matrix.cell(state, options) for name, options in matrix.METHODS.items()}
    assert {name: said(lab, ROWS[title], options) for name, options in matrix.METHODS.items()} == table
