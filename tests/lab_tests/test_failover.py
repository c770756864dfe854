# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Failover on a vCenter of the tests' own, whose hosts die with their VMs or are only cut off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.errors import FerryError, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import failover
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.keep import Record
from ansible_collections.ferry.vmware.plugins.modules import host_failover

from .vm_move_lab import BATCH, BOOKS, SHOP, Moves, moves_of


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Moves]:
    with moves_of(tmp_path) as moves:
        yield moves


def die(lab: Moves, vms: str = "die") -> None:
    lab.vcenter.post("/host/die", host="esx1", vms=vms)


def fail_host(lab: Moves, *, check: bool = False, **options: Any) -> dict[str, Any]:
    more = {"host": "esx1", "phase": "run", "fenced": True, "cluster": None, "network_map": {}, "constraints": [], "at_once": 4}
    params = {**lab.connection, "state_dir": str(lab.folder / "kept"), **more, **options}
    return host_failover.work(edge.Call(params, check=check, diff=True, warn=lab.warnings.append))


def failed(e: FerryError) -> set[str]:
    return {c["id"] for c in e.partial["checks"] if not c["passed"]}


def permit(lab: Moves, vm: str) -> None:
    manager = lab.client.content.authorizationManager
    role = next(r.roleId for r in manager.roleList if r.name == "ReadOnly")
    manager.SetEntityPermissions(
        lab.client.vm(vm), [vim.AuthorizationManager.Permission(principal="LAB\\店舗", group=True, roleId=role, propagate=True)]
    )


def permissions(lab: Moves, vm: str) -> list[tuple[str, int]]:
    found = lab.client.content.authorizationManager.RetrieveEntityPermissions(lab.client.vm(vm), False)
    return [(p.principal, p.roleId) for p in found]


def test_a_vm_of_a_dead_host_runs_elsewhere_with_all_that_was_known_of_it(lab: Moves) -> None:
    permit(lab, SHOP)
    allowed, attributes, cards, bytes_ = permissions(lab, SHOP), lab.attributes(SHOP), lab.cards(SHOP), lab.sha(SHOP, 2000, 2001)
    die(lab)
    plan = lab.move(SHOP, method="failover", check=True)
    assert plan["changed"] and plan["after"]["host"] in ("esx2", "esx3", "esx4") and lab.host(SHOP) == "esx1"
    result = lab.move(SHOP, method="failover", host="esx2", fenced=True)
    vm = lab.client.vm(SHOP)
    assert result["after"]["host"] == "esx2" == lab.host(SHOP) and lab.power(SHOP) == "poweredOn"
    assert [n["mac"] for n in result["after"]["nics"]] == [mac for _key, mac in cards] == [mac for _key, mac in lab.cards(SHOP)]
    assert lab.attributes(SHOP) == attributes and permissions(lab, SHOP) == allowed
    assert vm.parent.name == "店舗" and vm.config.annotation == "一行目\n二行目"
    assert vm.config.instanceUuid == result["before"]["instance_uuid"] and lab.sha(SHOP, 2000, 2001) == bytes_
    again = lab.move(SHOP, method="failover")
    assert not again["changed"] and again["method"] == "none"


def test_a_host_that_lives_is_never_failed_over(lab: Moves) -> None:
    with pytest.raises(ServerError) as e:
        lab.move(SHOP, method="failover", host="esx2", fenced=True)
    assert failed(e.value) >= {"host.dead"} and lab.host(SHOP) == "esx1"
    die(lab)
    with pytest.raises(ServerError) as e:
        lab.move(SHOP, method="failover", host="esx2", fenced=False)
    assert failed(e.value) == {"host.fenced"} and lab.host(SHOP) == "esx1"


def test_a_vm_that_runs_unseen_is_not_started_twice(lab: Moves) -> None:
    die(lab, "run")
    with pytest.raises(ServerError) as e:
        lab.move(SHOP, method="failover", host="esx2")
    assert e.value.code == "runs_elsewhere" and "registered on esx2, powered off" in str(e.value.left)
    assert lab.host(SHOP) == "esx2" and lab.power(SHOP) == "poweredOff"
    # still cut off: again the lock stands
    with pytest.raises(ServerError) as e:
        lab.move(SHOP, method="failover")
    assert e.value.code == "runs_elsewhere"
    # fenced now: the same task goes on
    die(lab, "die")
    lab.move(SHOP, method="failover", fenced=True)
    assert lab.power(SHOP) == "poweredOn"


def test_local_disks_died_with_their_host(lab: Moves) -> None:
    die(lab)
    with pytest.raises(ServerError) as e:
        lab.move(BOOKS, method="failover", fenced=True)
    assert failed(e.value) == {"host.choice"} and "local1" in str(e.value)


@pytest.mark.parametrize("step", ["kept", "unregistering", "unregistered", "registering", "registered", "restored", "booted"])
def test_a_run_that_is_killed_after_any_step_is_continued(lab: Moves, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = lab.attributes(SHOP)
    die(lab)
    save = Record.save

    class Killed(BaseException):
        pass

    def save_and_die(self: Record, **changes: Any) -> None:
        save(self, **changes)
        if changes.get("step", self.step) == step:
            raise Killed

    with monkeypatch.context() as m:
        m.setattr(Record, "save", save_and_die)
        with pytest.raises(Killed):
            lab.move(SHOP, method="failover", fenced=True)
    result = lab.move(SHOP, method="failover", fenced=True)
    assert lab.power(SHOP) == "poweredOn" and lab.host(SHOP) == result["after"]["host"] != "esx1"
    assert lab.attributes(SHOP) == attributes and lab.client.vm(SHOP).parent.name == "店舗"
    assert not lab.move(SHOP, method="failover")["changed"]


def test_a_host_with_all_its_vms(lab: Moves) -> None:
    attributes = lab.attributes(SHOP)
    die(lab)
    plan = {r["name"]: r for r in fail_host(lab, check=True)["vms"]}
    assert plan[SHOP]["state"] == "planned" and plan[BOOKS]["state"] == "refused" and "local1" in plan[BOOKS]["reasons"][0]
    assert lab.host(SHOP) == "esx1"
    with pytest.raises(ServerError) as e:
        fail_host(lab)
    rows = {r["name"]: r for r in e.value.partial["vms"]}
    assert {n: r["state"] for n, r in rows.items()} == {
        SHOP: "done",
        BATCH: "done",
        "toolless": "done",
        BOOKS: "refused",
        "hung": "refused",
    }
    assert lab.power(SHOP) == "poweredOn" and lab.power(BATCH) == "poweredOff" and lab.attributes(SHOP) == attributes
    assert lab.host(BOOKS) == "esx1"


def test_what_was_kept_before_the_fencing_is_used_after_it(lab: Moves) -> None:
    die(lab)
    kept = [r for r in fail_host(lab, phase="keep", fenced=None)["vms"] if r["state"] == "kept"]
    assert len(kept) == 3 and all(Path(r["record"]).exists() for r in kept) and lab.host(SHOP) == "esx1"
    with pytest.raises(ServerError):
        fail_host(lab)
    assert lab.power(SHOP) == "poweredOn"


def test_another_run_that_was_faster_is_no_error(lab: Moves, monkeypatch: pytest.MonkeyPatch) -> None:
    die(lab)
    place = failover.place_of

    def faster(session: Any, data: Any, host: str) -> Any:
        folder, pool = place(session, data, host)
        if lab.client.all(vim.VirtualMachine).get(SHOP) is None:
            target = next(h for h in lab.client.all(vim.HostSystem).values() if h._moId == host)
            root = lab.client.all(vim.Folder)["店舗"]
            lab.client.wait(root.RegisterVM_Task(data["vmx_path"], SHOP, False, target.parent.resourcePool, target))
        return folder, pool

    monkeypatch.setattr(failover, "place_of", faster)
    result = lab.move(SHOP, method="failover", fenced=True)
    assert lab.power(SHOP) == "poweredOn" and result["after"]["attributes"]["担当"] == "店舗課"


def test_where_vcenter_refuses_to_unregister_the_host_is_removed_and_the_same_task_goes_on(lab: Moves) -> None:
    attributes = lab.attributes(SHOP)
    lab.vcenter.switch("unregister_dead", "refuse")
    die(lab)
    with pytest.raises(ServerError) as e:
        fail_host(lab)
    rows = {r["name"]: r for r in e.value.partial["vms"]}
    assert rows[SHOP]["state"] == "failed" and "remove it from the inventory" in rows[SHOP]["failure"]["next_command"]
    host = lab.client.all(vim.HostSystem)["esx1"]
    lab.client.wait(host.DisconnectHost_Task())
    lab.client.wait(host.Destroy_Task())
    with pytest.raises(ServerError) as e:
        fail_host(lab)
    left = {r["name"]: r["reasons"] for r in e.value.partial["vms"] if r["state"] != "done"}
    assert left == {BOOKS: ["no healthy host has its datastores"], "hung": ["no healthy host has its datastores"]}
    assert lab.power(SHOP) == "poweredOn" and lab.attributes(SHOP) == attributes


def test_a_second_host_that_dies_in_between(lab: Moves, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = lab.attributes(SHOP)
    die(lab)
    lab.vcenter.fault("power_on_fail", match=SHOP)
    with pytest.raises(FerryError):
        lab.move(SHOP, method="failover", host="esx2", fenced=True)
    lab.vcenter.post("/host/die", host="esx2", vms="die")
    lab.move(SHOP, method="failover", fenced=True)
    assert lab.host(SHOP) in ("esx3", "esx4") and lab.power(SHOP) == "poweredOn" and lab.attributes(SHOP) == attributes
