# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decisions of a policy on the lab's vCenter, where what was done is kept; the playbook that acts on an event; relieving a datastore."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.modules import datastore_relieve, policy_decide
from tests.lab.vcenter import VCenter
from tests.lab_tests.event_lab import GIB, vcenter_of
from tests.lab_tests.vcenter_lab import MIB, Client

COLLECTIONS = Path(__file__).resolve().parents[5]
SMALL, LARGE = "小 01", "大 02"


def model(folder: Path) -> dict[str, Any]:
    """Two VMs whose disks are full of data, on one of two datastores; a host in a cluster of its own."""
    vms = []
    for n, (name, size, power) in enumerate(((SMALL, 8 * MIB, "on"), (LARGE, 24 * MIB, "off"))):
        raw = folder / f"{n}.raw"
        raw.write_bytes(random.Random(n).randbytes(size))
        disk = {"path": str(raw), "provisioning": "thin"}
        vms.append({"name": name, "host": "esx1", "datastore": "shared", "power": power, "memory_mb": 256, "disks": [disk]})
    return {
        "clusters": [{"name": "C0", "hosts": ["esx1", "esx2"]}, {"name": "C1", "hosts": ["esx4"]}],
        "networks": ["VM Network"],
        "datastores": [
            {"name": "shared", "type": "VMFS", "capacity": "10GiB", "hosts": ["esx1", "esx2"]},
            {"name": "spare", "type": "NFS", "capacity": "10GiB", "hosts": ["esx1", "esx2"]},
        ],
        "vms": vms,
    }


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[VCenter]:
    with vcenter_of(tmp_path, model(tmp_path)) as one:
        yield one


@pytest.fixture
def client(lab: VCenter) -> Iterator[Client]:
    one = Client(lab)
    yield one
    one.close()


def connection(lab: VCenter) -> dict[str, Any]:
    env = lab.env()
    return {
        "hostname": env["VMWARE_HOST"],
        "port": lab.port,
        "username": env["VMWARE_USER"],
        "password": env["VMWARE_PASSWORD"],
        "ca_path": env["VMWARE_CA_PATH"],
        "validate_certs": True,
    }


def lost(client: Client, name: str, number: int = 1) -> dict[str, Any]:
    """The event of a host that is lost."""
    moref = client.all(vim.HostSystem)[name]._moId
    return {"id": f"u:host_lost:{moref}:{number}", "kind": "host_lost", "group": "C0", "host": {"name": name, "moref": moref}}


def decided(lab: VCenter, event: dict[str, Any], policy: dict[str, Any], state: str = "decided", *, check: bool = False) -> dict[str, Any]:
    return policy_decide.work(edge.Call({**connection(lab), "policy": policy, "event": event, "state": state}, check=check))


def rules(**more: Any) -> dict[str, Any]:
    return {"rules": [{"name": "r", "event": "host_lost", "actions": [{"failover": None}], **more}]}


def test_an_incident_from_its_beginning_to_its_end(lab: VCenter, client: Client) -> None:
    one, policy = lost(client, "esx1"), rules(limits={"hold": 3600})
    assert decided(lab, one, policy)["suppressed"] == "over"
    for host in ("esx1", "esx2"):
        lab.post("/host/die", host=host, vms="die")
    look = decided(lab, one, policy, check=True)
    assert look["run"] and not look["changed"] and client.content.customFieldsManager.field == []
    first = decided(lab, one, policy)
    assert (first["run"], first["changed"], first["attempt"], first["target"]) == (True, True, 1, "esx1")
    assert [a["action"] for a in first["actions"]] == ["failover"]
    assert decided(lab, one, policy)["suppressed"] == "under_way"
    assert decided(lab, lost(client, "esx2"), policy)["suppressed"] == "hold"
    assert decided(lab, one, policy, "failed")["changed"] and not decided(lab, one, policy, "failed")["changed"]
    again = decided(lab, one, policy)
    assert again["run"] and again["attempt"] == 2
    assert decided(lab, one, policy, "done")["changed"]
    last = decided(lab, one, policy)
    assert last["suppressed"] == "done" and last["actions"] == [] and not last["changed"]
    # what was counted is there for another policy and another control node
    other = {**lost(client, "esx2"), "group": "C9"}
    assert decided(lab, other, {**rules(), "limits": {"actions_per_hour": 2}})["suppressed"] == "limit"
    assert decided(lab, other, {**rules(), "limits": {"actions_per_hour": 3}})["run"]


def test_an_event_about_no_object_is_acted_on_once(lab: VCenter) -> None:
    policy = {"rules": [{"name": "r", "event": "event", "when": {"type": "Bad*"}, "actions": [{"tasks": "t.yml"}]}]}
    first, second = ({"id": f"u:{n}", "kind": "event", "type": "BadLogin", "time": f"2026-01-01T00:00:0{n}.000Z"} for n in (1, 2))
    assert [decided(lab, e, policy)["suppressed"] for e in (first, first)] == [None, "under_way"]
    assert decided(lab, first, policy, "done")["changed"]
    assert [decided(lab, e, policy)["suppressed"] for e in (first, second, first)] == ["done", None, "done"]


@pytest.mark.fault("two control nodes decide on one event at once", "policy", "one of them acts, the other is told that it is under way")
def test_of_two_that_decide_at_once_one_acts(lab: VCenter, client: Client) -> None:
    lab.post("/host/die", host="esx1", vms="die")
    one = lost(client, "esx1")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: decided(lab, one, rules()), range(4)))
    assert sorted(str(f["suppressed"]) for f in found) == ["None", "under_way", "under_way", "under_way"]


def test_hosts_of_one_name_are_told_apart_and_maintenance_mode_suppresses(lab: VCenter, client: Client) -> None:
    esx = client.all(vim.HostSystem)["esx4"]
    client.wait(esx.EnterMaintenanceMode_Task(30))
    lab.post("/host/die", host="esx4", vms="die")
    assert decided(lab, lost(client, "esx4"), rules())["suppressed"] == "maintenance"
    assert decided(lab, lost(client, "esx4"), rules(in_maintenance=True))["run"]


def test_a_host_that_is_back_before_the_state_has_lasted(lab: VCenter, client: Client) -> None:
    one = lost(client, "esx1")
    lab.post("/host/die", host="esx1", vms="die")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(decided, lab, one, rules(settle=2))
        lab.post("/host/back", host="esx1")
        assert waiting.result()["suppressed"] == "over"


def test_only_a_policy_is_checked_without_a_vcenter() -> None:
    found = policy_decide.work(edge.Call({"policy": rules(), "event": None, "state": "decided"}))
    assert found == {"changed": False, "rules": ["r"]}


def relieved(lab: VCenter, percent: float, *, check: bool = False, **more: Any) -> dict[str, Any]:
    options = {"datastore": "shared", "target_percent": percent, "datastores": [], "constraints": [], "at_once": 2, "timeout": 60, **more}
    return datastore_relieve.work(edge.Call({**connection(lab), **options}, check=check, diff=True))


def stored(client: Client, name: str) -> set[str]:
    vm = client.vm(name)
    disks = [d.backing.fileName for d in vm.config.hardware.device if hasattr(d, "capacityInKB")]
    return {f.partition("]")[0][1:] for f in (vm.config.files.vmPathName, *disks)}


def test_a_datastore_is_relieved_of_the_fewest_bytes(lab: VCenter, client: Client) -> None:
    assert relieved(lab, 75)["changed"] is False
    sums = lab.sha256(SMALL, 2000), lab.sha256(LARGE, 2000)
    lab.post("/datastore/fill", datastore="shared", free=5 * GIB - 16 * MIB)
    plan = relieved(lab, 50, check=True)
    assert [(m["vm"], m["to"], m["state"]) for m in plan["moves"]] == [(LARGE, "spare", "planned")]
    assert plan["diff"]["after"] == {LARGE: "spare"} and stored(client, LARGE) == {"shared"}
    done = relieved(lab, 50)
    assert [m["state"] for m in done["moves"]] == ["moved"] and stored(client, LARGE) == {"spare"}
    assert not relieved(lab, 50)["changed"]
    lab.post("/datastore/fill", datastore="shared", free=5 * GIB - 4 * MIB)
    assert [m["vm"] for m in relieved(lab, 50)["moves"]] == [SMALL]
    assert client.vm(SMALL).runtime.powerState == "poweredOn" and stored(client, SMALL) == {"spare"}
    assert (lab.sha256(SMALL, 2000), lab.sha256(LARGE, 2000)) == sums


def test_what_is_not_enough_is_not_begun(lab: VCenter, client: Client) -> None:
    lab.post("/datastore/fill", datastore="shared", free=1 * GIB)
    with pytest.raises(BadInput) as said:
        relieved(lab, 50)
    assert said.value.code == "stuck" and said.value.partial["enough"] is False
    assert stored(client, SMALL) == {"shared"}
    for wrong in ({"datastore": "none"}, {"target_percent": 0}, {"datastores": ["none"]}):
        with pytest.raises(BadInput):
            relieved(lab, 50, **wrong)


def play(lab: VCenter, folder: Path, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    found = os.pathsep.join([str(COLLECTIONS), *filter(None, [os.environ.get("ANSIBLE_COLLECTIONS_PATH")])])
    env = {**os.environ, **lab.env(), "ANSIBLE_COLLECTIONS_PATH": found, "ANSIBLE_NOCOLOR": "1", "HOME": str(folder)}
    env |= {"ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false"}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "ferry.vmware.policy", *words]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-e", json.dumps(variables)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.long
def test_the_play_makes_the_actions_in_their_order(lab: VCenter, client: Client, tmp_path: Path) -> None:
    tasks = tmp_path / "page.yml"
    written = tmp_path / "paged"
    copy = {"content": "{{ policy_failures | join }} {{ policy_decision.names.datastore }}", "dest": str(written)}
    tasks.write_text(json.dumps([{"name": "Page somebody", "ansible.builtin.copy": copy}]), encoding="utf-8")
    actions = [
        {"relieve": {"target_percent": 50}},
        {"restore": "no such placement"},
        {"wait": 1},  # left out: what is before it has failed
        {"tasks": str(tasks), "after": "failed"},
    ]
    rule = {"name": "relief", "event": "datastore_filling", "actions": actions}
    moref = client.all(vim.Datastore)["shared"]._moId
    event = {"id": "e1", "kind": "datastore_filling", "group": "", "datastore": {"name": "shared", "moref": moref}}
    lab.post("/datastore/fill", datastore="shared", free=5 * GIB - 16 * MIB)
    variables = {"ferry_policy": {"rules": [rule]}, "ferry_event": event}
    plan = play(lab, tmp_path, "--check", **variables)
    assert "relieve, restore, wait, tasks" in plan.stdout and stored(client, LARGE) == {"shared"}, plan.stdout + plan.stderr
    done = play(lab, tmp_path, **variables)
    assert done.returncode != 0 and "restore:" in done.stdout, done.stdout + done.stderr
    assert stored(client, LARGE) == {"spare"} and "no such placement" in written.read_text(encoding="utf-8")
    assert written.read_text(encoding="utf-8").endswith(" shared")
    variables["ferry_policy"]["rules"][0]["actions"] = [{"relieve": {"target_percent": 50}}]  # type: ignore[index]  # a nested dict
    again = play(lab, tmp_path, **variables)
    assert again.returncode == 0 and "Acting" in again.stdout, again.stdout + again.stderr
    last = play(lab, tmp_path, **variables)
    assert "it was done already" in last.stdout and "changed=0" in last.stdout
    checked = play(lab, tmp_path, ferry_policy={"rules": [{**rule, "actions": []}]})
    assert checked.returncode != 0 and "1 to 30 actions" in checked.stdout
    assert lab.env()["VMWARE_PASSWORD"] not in plan.stdout + done.stdout + again.stdout
