# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Failover against those who mean harm or know of nothing: records of last year, hosts that come back, names that are taken, races."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.errors import FerryError, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import failover_host
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.keep import Record
from ansible_collections.ferry.vmware.plugins.modules import host_failover

from .vm_move_lab import BATCH, BOOKS, EAST, SHOP, Moves, moves_of

LOCAL = {BOOKS, "hung"}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Moves]:
    with moves_of(tmp_path) as moves:
        yield moves


class Killed(BaseException):
    """Stands for SIGKILL."""


def die(lab: Moves, host: str = "esx1", vms: str = "die") -> None:
    lab.vcenter.post("/host/die", host=host, vms=vms)


def fail_host(lab: Moves, **options: Any) -> dict[str, dict[str, Any]]:
    """Rows by VM, also of a run that is incomplete."""
    more = {"host": "esx1", "phase": "run", "fenced": True, "cluster": None, "network_map": {}, "constraints": [], "at_once": 4}
    params = {**lab.connection, "state_dir": str(lab.folder / "kept"), **more, **options}
    try:
        result = host_failover.work(edge.Call(params, warn=lab.warnings.append))
    except ServerError as e:
        if e.code != "incomplete":
            raise
        result = e.partial
    return {str(r["name"]): r for r in result["vms"]}


def killed(lab: Moves, vm: str, step: str, *, before: bool = False, **options: Any) -> None:
    """A failover of the VM that is killed when its record has come to the step, or just before it has."""
    save = Record.save

    def save_and_die(self: Record, **changes: Any) -> None:
        if changes.get("step") == step and before:
            raise Killed
        save(self, **changes)
        if changes.get("step") == step:
            raise Killed

    with pytest.MonkeyPatch.context() as m:
        m.setattr(Record, "save", save_and_die)
        with pytest.raises(Killed):
            lab.move(vm, method="failover", fenced=True, **options)


def set_attribute(lab: Moves, vm: str, name: str, value: str) -> None:
    lab.client.vm(vm).setCustomValue(name, value)


def annotate(lab: Moves, vm: str, text: str) -> None:
    lab.client.wait(lab.client.vm(vm).ReconfigVM_Task(vim.vm.ConfigSpec(annotation=text)))


def log_in_again(lab: Moves) -> None:
    """The plain client, after its session and its connections have ended."""
    lab.client.si._stub.DropConnections()
    end = time.monotonic() + 20
    while True:
        try:
            lab.client = type(lab.client)(lab.vcenter)
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def migrate(lab: Moves, vm: str, host: str) -> None:
    target = lab.client.all(vim.HostSystem)[host]
    lab.client.wait(lab.client.vm(vm).RelocateVM_Task(vim.vm.RelocateSpec(host=target, pool=target.parent.resourcePool), "defaultPriority"))


def register(lab: Moves, path: str, name: str, host: str, folder: str) -> None:
    target, into = lab.client.all(vim.HostSystem)[host], lab.client.all(vim.Folder)[folder]
    lab.client.wait(into.RegisterVM_Task(path, name, False, target.parent.resourcePool, target))


def ended(process: subprocess.Popen[bytes]) -> str:
    """What a run in a process of its own has ended with: nothing, or the last line of its error."""
    _out, err = process.communicate(timeout=200)
    return err.decode().strip().rpartition("\n")[2] if process.returncode else ""


@pytest.mark.fault(
    "a host dies again, a year after its VMs were kept, and some have moved away since",
    where="failover",
    ends="those are left alone: not switched on, attributes and notes as they are now",
)
def test_a_record_of_last_year_is_not_put_back(lab: Moves) -> None:
    die(lab)
    assert fail_host(lab, phase="keep", fenced=None)[SHOP]["state"] == "kept"
    lab.vcenter.post("/host/back", host="esx1")
    migrate(lab, SHOP, "esx2")
    set_attribute(lab, SHOP, "担当", "本店")
    annotate(lab, SHOP, "今年")
    die(lab)
    assert SHOP not in fail_host(lab)
    assert lab.host(SHOP) == "esx2" and lab.power(SHOP) == "poweredOff"
    # and where its own host dies, what is so now is kept, not what was
    die(lab, "esx2")
    lab.move(SHOP, method="failover", fenced=True)
    assert lab.host(SHOP) in ("esx3", "esx4") and lab.power(SHOP) == "poweredOff"
    assert lab.attributes(SHOP)["担当"] == "本店" and lab.client.vm(SHOP).config.annotation == "今年"


@pytest.mark.fault(
    "SIGKILL between UnregisterVM and its note, then the host comes back and has its VM again",
    where="failover",
    ends="what vCenter had lost is put back; it is not registered elsewhere",
)
def test_a_host_that_comes_back_with_a_vm_that_vcenter_has_forgotten(lab: Moves) -> None:
    attributes, path = lab.attributes(SHOP), lab.files(SHOP)[0]
    die(lab)
    killed(lab, SHOP, "unregistered", before=True)
    lab.vcenter.post("/host/back", host="esx1")
    register(lab, path, SHOP, "esx1", "店舗")
    assert not lab.attributes(SHOP)
    lab.move(SHOP, method="failover", fenced=True)
    assert lab.host(SHOP) == "esx1" and lab.attributes(SHOP) == attributes


@pytest.mark.fault(
    "SIGKILL while a VM is registered nowhere, and constraints name it",
    where="failover",
    ends="they go on counting for it: the next run takes a host that they allow",
)
def test_constraints_count_for_a_vm_that_is_registered_nowhere(lab: Moves) -> None:
    die(lab)
    killed(lab, SHOP, "unregistered", host="esx2")
    target = lab.client.all(vim.HostSystem)["esx2"]
    lab.client.wait(target.EnterMaintenanceMode_Task(60))
    rules = [
        {"kind": "pin", "vms": [SHOP], "hosts": ["esx4"]},
        {"kind": "apart", "vms": [SHOP, "toolless"]},
    ]
    rows = fail_host(lab, constraints=rules)
    assert {n for n, r in rows.items() if r["state"] != "done"} == LOCAL
    assert lab.host(SHOP) == "esx4" == rows[SHOP]["to"] and lab.host("toolless") == "esx3"


@pytest.mark.fault("the same, by one VM after the other", where="failover", ends="a host that they forbid is refused, and said which")
def test_a_vm_that_is_registered_nowhere_is_not_put_where_constraints_forbid(lab: Moves) -> None:
    die(lab)
    killed(lab, SHOP, "unregistered", host="esx2")
    rules = [{"name": "免許", "kind": "avoid", "vms": [SHOP], "hosts": ["esx2", "esx3"]}, {"kind": "apart", "vms": [SHOP, "toolless"]}]
    with pytest.raises(FerryError) as e:
        lab.move(SHOP, method="failover", host="esx2", fenced=True, constraints=rules)
    assert "免許" in str(e.value)
    assert lab.move("toolless", method="failover", fenced=True, constraints=rules)["after"]["host"] in ("esx2", "esx3", "esx4")
    lab.move(SHOP, method="failover", fenced=True, constraints=rules)
    assert lab.host(SHOP) == "esx4" and lab.power(SHOP) == "poweredOn"


@pytest.mark.fault("a VM of a kept record was deleted by its owner", where="failover", ends="it is neither brought back nor missed")
def test_a_vm_that_its_owner_has_deleted_is_not_missed(lab: Moves) -> None:
    die(lab)
    assert fail_host(lab)[BOOKS]["state"] == "refused"
    lab.vcenter.post("/host/back", host="esx1")
    lab.client.wait(lab.client.vm(BOOKS).Destroy_Task())
    die(lab)
    assert set(fail_host(lab)) == {"hung"}


@pytest.mark.fault("a VM is deleted while the others are looked at", where="failover", ends="the others are failed over")
def test_a_vm_that_is_deleted_in_the_middle(lab: Moves, monkeypatch: pytest.MonkeyPatch) -> None:
    die(lab)
    describe = failover_host.describe

    def and_delete(session: Any, morefs: Any) -> Any:
        found = describe(session, morefs)
        lab.client.vm(BATCH).UnregisterVM()
        return found

    monkeypatch.setattr(failover_host, "describe", and_delete)
    rows = fail_host(lab)
    assert BATCH not in rows and {n for n, r in rows.items() if r["state"] == "done"} == {SHOP, "toolless"}


@pytest.mark.fault(
    "another VM has taken the name meanwhile (a backup was restored)", where="failover", ends="refused, with what to do; then it goes on"
)
def test_a_name_that_was_taken_meanwhile(lab: Moves) -> None:
    die(lab)
    killed(lab, SHOP, "unregistered")
    lab.vcenter.post("/host/back", host="esx1")
    thief = lab.client.vm("gpu")
    lab.client.wait(thief.Rename_Task(SHOP))
    lab.client.wait(lab.client.all(vim.Folder)["店舗"].MoveIntoFolder_Task([thief]))
    die(lab)
    with pytest.raises(FerryError) as e:
        lab.move(SHOP, method="failover", fenced=True)
    assert "rename" in str(e.value.next_command) and "registered nowhere" in str(e.value.left)
    lab.client.wait(thief.Rename_Task("gpu"))
    lab.move(SHOP, method="failover", fenced=True)
    assert lab.power(SHOP) == "poweredOn" and lab.host("gpu") == "esx3"


@pytest.mark.parametrize("name", ["A%2fB 100%25 <b>&\"'", "長" * 70])
def test_names_survive_as_they_were(lab: Moves, name: str) -> None:
    moref = lab.client.vm(SHOP)._moId
    lab.client.wait(lab.client.vm(SHOP).Rename_Task(name))
    named = next(n for n, v in lab.client.all(vim.VirtualMachine).items() if v._moId == moref)
    die(lab)
    lab.move(moref, method="failover", fenced=True)
    assert named in lab.client.all(vim.VirtualMachine)
    assert lab.power(named) == "poweredOn" and lab.host(named) != "esx1"


def test_what_is_told_after_a_refusal_is_what_helps(lab: Moves) -> None:
    """Removing the host from the inventory helps where vCenter does not unregister its VMs; not where a right is missing."""
    die(lab)
    lab.vcenter.fault("soap_fault", match=f"UnregisterVM {SHOP}", fault="NoPermission")
    with pytest.raises(ServerError) as e:
        lab.move(SHOP, method="failover", fenced=True)
    assert "inventory" not in str(e.value.next_command) and e.value.details["fault"] == "NoPermission"
    lab.move(SHOP, method="failover", fenced=True)


def groups(lab: Moves) -> dict[str, set[str]]:
    config = lab.client.all(vim.ClusterComputeResource)[EAST].configurationEx
    return {g.name: {v.name for v in g.vm} for g in config.group if isinstance(g, vim.cluster.VmGroup)}


@pytest.mark.fault("two VMs of one group are failed over by two processes", where="failover", ends="both are in the group again")
def test_two_processes_put_two_vms_back_into_one_group(lab: Moves) -> None:
    cluster = lab.client.all(vim.ClusterComputeResource)[EAST]
    info = vim.cluster.VmGroup(name="免許", vm=[lab.client.vm(SHOP), lab.client.vm("toolless")])
    spec = vim.cluster.ConfigSpecEx(groupSpec=[vim.cluster.GroupSpec(operation="add", info=info)])
    lab.client.wait(cluster.ReconfigureComputeResource_Task(spec, True))
    die(lab)
    for vm in (SHOP, "toolless"):  # both come so far that only the rest is left
        killed(lab, vm, "registered", host="esx2")
    assert groups(lab)["免許"] == set()
    lab.vcenter.fault("soap_delay", match="ReconfigureComputeResource_Task", delay_ms=700, times=4)
    runs = [lab.start(vm, method="failover", fenced=True) for vm in (SHOP, "toolless")]
    assert [ended(run) for run in runs] == ["", ""]
    assert groups(lab)["免許"] == {SHOP, "toolless"}


@pytest.mark.fault(
    "three processes fail one VM over, each with a folder of its own", where="failover", ends="it is registered once and runs once"
)
def test_three_control_nodes_at_once(lab: Moves) -> None:
    attributes = lab.attributes(SHOP)
    die(lab)
    lab.vcenter.switch("register_seconds", 0.4)

    runs = [lab.start(SHOP, method="failover", fenced=True, state_dir=str(lab.folder / f"node{n}")) for n in range(3)]
    said = [ended(run) for run in runs]
    # Those that come late find no VM of the name, one that has just gone, or one of theirs; each says so in its own words.
    assert "" in said and all(re.search(r"errors\.(ServerError|BadInput)", s) for s in said if s), said
    named = [v for v in lab.client.all(vim.VirtualMachine) if v == SHOP]
    assert len(named) == 1 and lab.power(SHOP) == "poweredOn" and lab.host(SHOP) != "esx1"
    assert lab.attributes(SHOP) == attributes


@pytest.mark.fault("vCenter restarts between any two steps", where="failover", ends="the run ends well, or the next one goes on")
@pytest.mark.parametrize("step", ["unregistering", "unregistered", "registering", "registered", "restored"])
def test_vcenter_restarts_at_any_step(lab: Moves, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = lab.attributes(SHOP)
    die(lab)
    save = Record.save

    def save_and_restart(self: Record, **changes: Any) -> None:
        save(self, **changes)
        if changes.get("step") == step:
            lab.vcenter.restart(0.3)

    with monkeypatch.context() as m:
        m.setattr(Record, "save", save_and_restart)
        try:
            lab.move(SHOP, method="failover", fenced=True)
        except ServerError as e:
            if e.code not in ("unreachable", "timeout", "protocol") or not e.left or "run the same task again" not in str(e.next_command):
                raise
    log_in_again(lab)
    lab.move(SHOP, method="failover", fenced=True)
    assert lab.power(SHOP) == "poweredOn" and lab.host(SHOP) != "esx1" and lab.attributes(SHOP) == attributes


@pytest.mark.fault("records truncated, of another vCenter, of another hand", where="failover", ends="refused, with the file named")
@pytest.mark.parametrize("text", ["", '{"version": 1', "[" * 100_000, "half"])
def test_a_record_that_was_damaged_is_named(lab: Moves, text: str) -> None:
    die(lab)
    killed(lab, SHOP, "unregistered")
    path = next(p for p in (lab.folder / "kept").glob("*.json"))
    whole = path.read_text(encoding="utf-8")
    if text == "half":
        data = json.loads(whole)
        del data["attributes"], data["drs"]
        text = json.dumps(data)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FerryError) as e:
        lab.move(SHOP, method="failover", fenced=True)
    assert e.value.code == "state" and str(path) in e.value.message
    path.write_text(whole, encoding="utf-8")
    lab.move(SHOP, method="failover", fenced=True)
    assert lab.power(SHOP) == "poweredOn"
