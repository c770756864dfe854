# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vm_placement and host_evacuate against a vCenter of their own; what they did is looked at with plain pyvmomi."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client, placements, site
from ansible_collections.ferry.vmware.plugins.modules import host_evacuate, vm_placement
from tests.lab.vcenter import USER, VCenter
from tests.lab_tests import vcenter_lab

OPTIONS = {
    "constraints": [],
    "reserve_percent": 0.0,
    "memory_overcommit": 1.0,
    "copy_files": True,
    "per_host": 4,
    "per_datastore": 2,
    "timeout": 60,
}
WEB3 = "在庫 03"


def model(folder: Path) -> Path:
    """Three hosts of 4 GiB; web01, web02 and a Japanese one on them, an app with its database, one VM on a local disk, one off."""
    raw = vcenter_lab.write_raw(folder / "disk.raw", 1 << 20, 5)

    def vm(name: str, host: str, memory: int = 512, store: str = "shared", power: str = "on") -> dict[str, Any]:
        disks = [{"controller": "pvscsi", "path": raw.name}]
        nics = [{"network": "VM Network"}]
        return {"name": name, "host": host, "memory_mb": memory, "datastore": store, "power": power, "disks": disks, "nics": nics}

    found = {
        "datacenter": "DC lab",
        "clusters": [{"name": "C0", "hosts": ["esx1", "esx2", "esx3"]}],
        "networks": ["VM Network"],
        "datastores": [
            {"name": "shared", "capacity": "100GiB"},
            {"name": "local1", "capacity": "10GiB", "hosts": ["esx1"]},
        ],
        "vms": [
            vm("web01", "esx1"),
            vm("web02", "esx2"),
            vm(WEB3, "esx3"),
            vm("app", "esx1", 1024),
            vm("db", "esx1", 1024),
            vm("local", "esx1", store="local1"),
            vm("off", "esx1", 2048, power="off"),
        ],
    }
    path = folder / "model.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[VCenter]:
    with vcenter_lab.running(tmp_path, model(tmp_path)) as found:
        yield found


@pytest.fixture
def plain(lab: VCenter) -> Iterator[vcenter_lab.Client]:
    found = vcenter_lab.Client(lab)
    yield found
    found.close()


def connection(lab: VCenter) -> dict[str, Any]:
    return {
        "hostname": "127.0.0.1",
        "port": lab.port,
        "username": USER,
        "password": lab.place.password(),
        "ca_path": str(lab.place.state / "ca.pem"),
        "validate_certs": True,
    }


def placement(lab: VCenter, name: str = "平日", state: str = "saved", check: bool = False, **more: Any) -> dict[str, Any]:
    params = {**connection(lab), **OPTIONS, "name": name, "state": state, **more}
    return vm_placement.work(edge.Call(params, check=check, diff=True))


def evacuate(lab: VCenter, *hosts: str, check: bool = False, **more: Any) -> dict[str, Any]:
    defaults = {"state": "drained", "maintenance": True, "partial": False, "powered_off": True}
    params = {**connection(lab), **OPTIONS, **defaults, "hosts": list(hosts), **more}
    return host_evacuate.work(edge.Call(params, check=check, diff=True))


def where(plain: vcenter_lab.Client) -> dict[str, str]:
    return {name: vm.runtime.host.name for name, vm in plain.all(vim.VirtualMachine).items()}


def bring(plain: vcenter_lab.Client, vm: str, host: str) -> None:
    """Move a VM by plain pyvmomi."""
    plain.wait(plain.vm(vm).RelocateVM_Task(vim.vm.RelocateSpec(host=plain.all(vim.HostSystem)[host]), "defaultPriority"))


def test_saved_shown_restored_forgotten(lab: VCenter, plain: vcenter_lab.Client) -> None:
    assert placement(lab, check=True)["changed"]
    first = placement(lab)
    assert first["changed"]
    assert first["saved"][WEB3] == "esx3"
    assert not placement(lab)["changed"]
    before = where(plain)
    bring(plain, "app", "esx3")
    bring(plain, "web02", "esx1")
    shown = placement(lab, state="restored", check=True)
    assert [(m["vm"], m["from"], m["to"], m["state"]) for m in shown["moves"]] == [
        ("app", "esx3", "esx1", "planned"),
        ("web02", "esx1", "esx2", "planned"),
    ]
    assert shown["least"]
    assert shown["diff"]["before"] == {"平日": ["app: esx3", "web02: esx1"]}
    assert where(plain) != before
    done = placement(lab, state="restored")
    assert done["changed"]
    assert {m["state"] for m in done["moves"]} == {"moved"}
    assert where(plain) == before
    again = placement(lab, state="restored")
    assert not again["changed"]
    assert again["moves"] == []
    assert placement(lab, state="absent")["changed"]
    assert not placement(lab, state="absent")["changed"]
    with pytest.raises(BadInput) as e:
        placement(lab, state="restored")
    assert e.value.code == "unknown"


def test_a_swap_on_full_hosts_takes_one_move_more(lab: VCenter, plain: vcenter_lab.Client) -> None:
    """app and web02 have to change places, and neither host takes the other first: a third host lends room."""
    placement(lab)
    before = where(plain)
    for vm, host in (("web02", "esx3"), ("app", "esx2"), ("web02", "esx1")):
        bring(plain, vm, host)
    # at half of its memory esx1 takes 2047 MiB: it has web01, db, local and web02, and esx2 has app
    done = placement(lab, state="restored", reserve_percent=20.0)
    assert where(plain) == before
    assert done["least"]


def test_a_placement_outlives_vms_and_says_which_host_is_gone(lab: VCenter, plain: vcenter_lab.Client) -> None:
    placement(lab)
    with client.connect(connection(lab)) as session:
        saved = placements.need(session, "平日")
        seen = site.read_site(session)
    app = seen.vm("app")
    saved[app.moref] = "host-999 esx9"
    saved["vm-4711"] = "host-1 esx1"
    plan = placements.restoration(seen, saved)
    assert plan.moves == []
    assert plan.stuck[0]["reasons"] == ["the host esx9 is gone from vCenter"]


@pytest.mark.parametrize("name", ["", "a/b", " x", "x" * 41, "a~"])
def test_names_that_cannot_be(lab: VCenter, name: str) -> None:
    with pytest.raises(BadInput):
        placement(lab, name=name)


def test_twenty_placements_at_most(lab: VCenter) -> None:
    for number in range(placements.MOST):
        placement(lab, name=f"p{number}")
    with pytest.raises(BadInput) as e:
        placement(lab, name="one more")
    assert e.value.code == "too_many"
    placement(lab, name="p3", state="absent")
    assert placement(lab, name="one more")["changed"]


KILLED = """
import json, os, signal, sys
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import attributes, client, placements, site
p = json.loads(sys.stdin.readline())
calls = [0]
def dying(real):
    def call(*args):
        calls[0] += 1
        if calls[0] == p["stop"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)
    return call
attributes.set_value, attributes.remove = dying(attributes.set_value), dying(attributes.remove)
placements._rename = dying(placements._rename)
with client.connect(p["connection"]) as session:
    placements.save(session, site.read_site(session), "night")
"""


@pytest.mark.slow
@pytest.mark.fault(
    "the run is killed while it saves a placement", where="vCenter", ends="the old placement or the new one, whole; the next run saves"
)
@pytest.mark.parametrize("stop", [1, 2, 5, 9, 10, 11, 12])
def test_killed_while_saving(lab: VCenter, plain: vcenter_lab.Client, stop: int) -> None:
    """The lock (1), seven values (2 to 8), whole (9), the old one removed (10), put in place (11), the lock removed (12)."""
    old = placement(lab, name="night")["saved"]
    bring(plain, "app", "esx2")
    text = json.dumps({"connection": connection(lab), "stop": stop}) + "\n"
    done = subprocess.run([sys.executable, "-c", KILLED], input=text, text=True, env=dict(os.environ), check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with client.connect(connection(lab)) as session:
        found = placements.shown(site.read_site(session), placements.load(session, "night"))
    assert found == (old if stop < 10 else {**old, "app": "esx2"})


def test_drained_and_back(lab: VCenter, plain: vcenter_lab.Client) -> None:
    """A drain with constraints: the plan in check mode, then the same for real; the second run changes nothing; all come back."""
    rules = [{"name": "app with its database", "kind": "EQ", "vms": ["app", "db"]}, {"kind": "hold", "vms": ["web02"]}]
    before = where(plain)
    planned = evacuate(lab, "esx1", check=True, constraints=rules)
    assert where(plain) == before
    assert planned["maintenance"] == ["esx1"]
    moves = {m["vm"]: m for m in planned["moves"]}
    assert moves.keys() == {"web01", "app", "db", "local", "off"}
    assert moves["app"]["to"] == moves["db"]["to"]
    assert moves["off"]["method"] == "cold"
    assert moves["local"]["datastore"] == "shared"
    assert planned["table"][0].split()[:5] == ["wave", "VM", "from", "to", "method"]
    done = evacuate(lab, "esx1", constraints=rules)
    assert {m["state"] for m in done["moves"]} == {"moved"}
    now = where(plain)
    assert "esx1" not in now.values()
    assert now["app"] == now["db"]
    assert plain.all(vim.HostSystem)["esx1"].runtime.inMaintenanceMode
    assert [d.name for d in plain.vm("local").datastore] == ["shared"]
    again = evacuate(lab, "esx1", constraints=rules)
    assert not again["changed"]
    back = evacuate(lab, "esx1", state="back")
    assert back["maintenance"] == ["esx1"]
    assert where(plain) == before
    assert not plain.all(vim.HostSystem)["esx1"].runtime.inMaintenanceMode
    assert not evacuate(lab, "esx1", state="back")["changed"]


def test_what_cannot_leave_is_said_before_anything_moves(lab: VCenter, plain: vcenter_lab.Client) -> None:
    before = where(plain)
    apart = [{"name": "web tier", "kind": "NE", "vms": ["web01", "web02", WEB3]}]
    with pytest.raises(BadInput) as e:
        evacuate(lab, "esx1", constraints=apart)
    assert e.value.code == "stuck"
    assert "web tier" in str(e.value)
    assert where(plain) == before
    done = evacuate(lab, "esx1", constraints=apart, partial=True)
    assert [s["vm"] for s in done["stuck"]] == ["web01"]
    assert done["maintenance"] == []
    assert [v for v, h in where(plain).items() if h == "esx1"] == ["web01"]


def test_constraints_that_cannot_hold(lab: VCenter) -> None:
    rules = [
        {"name": "one", "kind": "together", "vms": ["app", "db"]},
        {"name": "two", "kind": "apart", "vms": ["app", "db"]},
        {"name": "three", "kind": "pin", "vms": ["web01"], "hosts": ["esx1"]},
    ]
    with pytest.raises(BadInput) as e:
        evacuate(lab, "esx1", constraints=rules)
    assert e.value.code == "contradiction"
    assert set(e.value.details["contradictions"][0]["rules"]) == {"one", "two"}
    with pytest.raises(BadInput) as e:
        evacuate(lab, "esx9")
    assert e.value.code == "unknown"


def test_a_failed_move_stops_the_next_wave_and_is_gone_on_with(lab: VCenter, plain: vcenter_lab.Client) -> None:
    lab.fault("soap_fault", match="RelocateVM_Task", fault="InvalidState", times=1)
    with pytest.raises(FerryError) as e:
        evacuate(lab, "esx1", per_host=2)
    assert e.value.code == "moves_failed"
    states = [m["state"] for m in e.value.partial["moves"]]
    assert states.count("failed") == 1
    assert "not begun" in states
    done = evacuate(lab, "esx1", per_host=2)
    assert done["changed"]
    assert "esx1" not in where(plain).values()
    evacuate(lab, "esx1", state="back")
    assert where(plain)["app"] == "esx1"
