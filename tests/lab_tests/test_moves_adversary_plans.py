# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moves, drains and registrations while others move, delete, switch and write in the same vCenter."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.errors import FerryError, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import attributes, client, drain, keep_vcenter, placements
from ansible_collections.ferry.vmware.plugins.modules import host_evacuate

from .vm_move_lab import BATCH, BOOKS, SHOP, Moves, moves_of, until

OPTIONS = {
    "state": "drained",
    "maintenance": True,
    "partial": False,
    "powered_off": True,
    "constraints": [],
    "reserve_percent": 0.0,
    "memory_overcommit": 1.0,
    "copy_files": True,
    "per_host": 4,
    "per_datastore": 2,
    "timeout": 60,
}

#: What may stand in the note of a move; NOW: seconds since the epoch.
NOTES = [
    '{"power": "on", "to": [1], "at": NOW}',
    '{"power": "on", "to": {"a": 1}, "at": NOW}',
    '{"power": "on", "at": 1' + "0" * 400 + "}",
    '{"power": "on", "at": 1e300}',
    '{"power": "on", "at": NaN}',
    "[" * 20_000,
    "<b>on</b>",
]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Moves]:
    with moves_of(tmp_path) as moves:
        yield moves


def evacuate(lab: Moves, host: str = "esx1", **options: Any) -> dict[str, Any]:
    return host_evacuate.work(edge.Call({**lab.connection, **OPTIONS, "hosts": [host], **options}, warn=lab.warnings.append))


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


def before_the_moves(monkeypatch: pytest.MonkeyPatch, work: Callable[[list[Any]], None]) -> None:
    """C(work) is done by somebody else when the plan is made and nothing has moved yet."""
    carry_out = drain.carry_out

    def later(session: Any, moves: list[Any], **options: Any) -> Any:
        work(moves)
        return carry_out(session, moves, **options)

    monkeypatch.setattr(drain, "carry_out", later)


@pytest.mark.fault(
    "somebody moves a VM onto the host that another, which has to be apart from it, is about to go to",
    where="moves",
    ends="that one does not go there; run again, it goes elsewhere",
)
def test_apart_also_from_what_others_have_moved_meanwhile(lab: Moves, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(lab, "toolless", "esx4")
    rules = [{"name": "別々", "kind": "apart", "vms": [SHOP, "toolless"]}]
    with monkeypatch.context() as m:
        before_the_moves(m, lambda moves: migrate(lab, "toolless", next(x.target_name for x in moves if x.name == SHOP)))
        with pytest.raises(FerryError) as e:
            evacuate(lab, constraints=rules)
    assert e.value.code == "moves_failed" and "別々" in str(e.value)
    assert lab.host(SHOP) != lab.host("toolless")
    evacuate(lab, constraints=rules)
    assert lab.host(SHOP) not in ("esx1", lab.host("toolless"))


@pytest.mark.fault(
    "one VM is removed and another moved away by somebody while a host is drained", where="moves", ends="neither is moved back"
)
def test_vms_that_somebody_removes_or_moves_meanwhile(lab: Moves, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as m:
        before_the_moves(m, lambda moves: lab.client.vm(BATCH).UnregisterVM())
        done = {x["vm"]: x["state"] for x in evacuate(lab, maintenance=False)["moves"]}
    assert done.pop(BATCH) == "gone" and set(done.values()) == {"moved"}
    evacuate(lab, state="back")
    assert lab.host(SHOP) == "esx1"
    with monkeypatch.context() as m:
        elsewhere: list[str] = []

        def note(moves: list[Any]) -> None:
            target = next(x.target_name for x in moves if x.name == SHOP)
            elsewhere.append(next(h for h in ("esx2", "esx3") if h != target))
            migrate(lab, SHOP, elsewhere[0])

        before_the_moves(m, note)
        with pytest.raises(FerryError) as e:
            evacuate(lab, maintenance=False)
    assert "meanwhile" in str(e.value) and lab.host(SHOP) == elsewhere[0]
    evacuate(lab)
    assert lab.host(SHOP) == elsewhere[0] and lab.client.all(vim.HostSystem)["esx1"].runtime.inMaintenanceMode


def test_placements_of_hosts_that_are_gone_do_not_use_up_the_twenty(lab: Moves) -> None:
    manager = lab.client.content.customFieldsManager
    for number in range(placements.MOST):
        manager.AddCustomFieldDef(name=f"{placements.PREFIX}{drain.BEFORE}host-{90_000 + number}", moType=None)
    evacuate(lab)
    names = [f.name for f in manager.field if f.name.startswith(placements.PREFIX)]
    assert len(names) == 1 and lab.host(SHOP) != "esx1"


@pytest.mark.fault("somebody writes attributes and notes while files are copied for hours", where="moves", ends="what was written stays")
def test_what_others_write_meanwhile_stays(lab: Moves) -> None:
    lab.vcenter.switch("relocate_seconds", 2)
    process = lab.start(SHOP, method="storage", datastore="共有 2")
    until(lab.relocating)
    lab.client.vm(SHOP).setCustomValue("担当", "本店")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    assert json.loads(out)["put_back"] == [] and lab.attributes(SHOP)["担当"] == "本店"


@pytest.mark.fault(
    "the guest shuts down only after the run has given up waiting for it", where="moves", ends="the next run moves it and boots it"
)
def test_a_guest_that_goes_down_late_is_booted(lab: Moves) -> None:
    with pytest.raises(FerryError) as e:
        lab.move("hung", method="move", host="esx2", shutdown_timeout=1)
    assert e.value.code == "shutdown_timeout"
    lab.client.wait(lab.client.vm("hung").PowerOffVM_Task())  # as its guest does at last
    lab.move("hung", method="move", host="esx2")
    assert lab.host("hung") == "esx2" and lab.power("hung") == "poweredOn" and "ferry.move" not in lab.attributes("hung")


@pytest.mark.fault("SIGKILL between the boot and the removal of the note", where="moves", ends="a VM switched off later stays off")
def test_a_note_that_was_left_does_not_boot_what_somebody_has_switched_off(lab: Moves) -> None:
    host = lab.client.all(vim.HostSystem)["esx1"]._moId
    lab.client.content.customFieldsManager.AddCustomFieldDef(name="ferry.move", moType=vim.VirtualMachine)
    lab.client.vm(SHOP).setCustomValue("ferry.move", json.dumps({"power": "on", "to": host, "at": int(time.time())}))
    assert not lab.move(SHOP, method="move", host="esx1")["changed"]
    lab.client.wait(lab.client.vm(SHOP).PowerOffVM_Task())
    lab.move(SHOP, method="cold", host="esx2")
    assert lab.host(SHOP) == "esx2" and lab.power(SHOP) == "poweredOff"


@pytest.mark.fault("attributes of our names that somebody else has written", where="moves", ends="they count for nothing")
def test_a_note_of_another_hand_counts_for_nothing(lab: Moves) -> None:
    lab.client.content.customFieldsManager.AddCustomFieldDef(name="ferry.move", moType=None)
    for number, text in enumerate(NOTES):
        host = ("esx2", "esx3")[number % 2]
        lab.client.vm(BATCH).setCustomValue("ferry.move", text.replace("NOW", str(int(time.time()))))
        assert lab.move(BATCH, host=host)["after"]["host"] == host
        assert lab.power(BATCH) == "poweredOff"


@pytest.mark.fault("a lock that says it was taken in the far future", where="moves", ends="broken like one that says nothing")
def test_a_lock_of_another_hand_is_not_held_for_ever(lab: Moves) -> None:
    manager = lab.client.content.customFieldsManager
    with client.connect(lab.connection) as session:
        for since in ("1e300", "NaN", "-Infinity", "1" + "0" * 400, "[]", '"2031"', '{"a": 1}', "99999999999"):
            key = manager.AddCustomFieldDef(name=attributes.lock_name("x"), moType=None).key
            manager.SetField(lab.client.content.rootFolder, key, '{"owner": "x", "since": ' + since + "}")
            now = [0.0]

            def later(seconds: float, now: list[float] = now) -> None:
                now[0] += 5

            lock = attributes.acquire(session, "x", clock=lambda now=now: now[0], sleep=later)  # type: ignore[misc]  # the usual binding
            attributes.remove(session, lock.key)
            assert now[0] < attributes.LEASE


def test_what_is_no_folder_is_not_taken_for_one(lab: Moves) -> None:
    """A VM in a vApp has no folder; its path leads to the vApp, which registers nothing."""
    path = f"/DC 東京/vm/本番/店舗/{SHOP}"
    data = {"folder": None, "folder_path": path, "datacenter": "DC 東京", "vm": {"name": SHOP}, "pool": None, "pool_path": []}
    with client.connect(lab.connection) as session:
        folder, _pool = keep_vcenter.place_of(session, data, lab.client.all(vim.HostSystem)["esx2"]._moId)
    assert folder._wsdlName == "Folder" and folder._moId == lab.client.all(vim.Folder)["vm"]._moId


@pytest.mark.fault("the session expires between any two calls", where="moves", ends="logged in again: moved once")
def test_sessions_that_expire_all_the_time(lab: Moves) -> None:
    before = lab.sha(BOOKS)
    lab.vcenter.switch("relocate_seconds", 1)
    process = lab.start(BOOKS, method="move", host="esx2", on_timeout="poweroff")
    while process.poll() is None:
        lab.vcenter.fault("session_expire")
        time.sleep(0.1)
    process.communicate()
    log_in_again(lab)
    if process.returncode:
        lab.move(BOOKS, method="move", host="esx2")
    assert lab.host(BOOKS) == "esx2" and lab.power(BOOKS) == "poweredOn" and lab.sha(BOOKS) == before


@pytest.mark.fault(
    "InvalidState and ManagedObjectNotFound from any call",
    where="moves",
    ends="one typed error that says where the VM is; run again, it goes on",
)
@pytest.mark.parametrize(
    "fault",
    ["ManagedObjectNotFound", *(pytest.param(f, marks=pytest.mark.long) for f in ("InvalidState", "RuntimeFault", "HostCommunication"))],
)
@pytest.mark.parametrize("method", ["RelocateVM_Task", "ShutdownGuest", "PowerOnVM_Task", "SetField", "CheckRelocate_Task"])
def test_a_fault_from_any_call(lab: Moves, method: str, fault: str) -> None:
    lab.vcenter.fault("soap_fault", match=method, fault=fault)
    try:
        lab.move(BOOKS, method="move", host="esx2")
    except FerryError as e:
        if "esx1" not in str(e.left) and "esx2" not in str(e.left) and "nothing was changed" not in str(e.left):
            raise ServerError(f"where the VM is is not said: {e}") from e
    lab.vcenter.clear()
    lab.move(BOOKS, method="move", host="esx2")
    assert lab.host(BOOKS) == "esx2" and lab.power(BOOKS) == "poweredOn" and "ferry.move" not in lab.attributes(BOOKS)
