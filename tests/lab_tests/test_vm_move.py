# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vm_move on a vCenter of the tests' own; what it did is seen by plain pyvmomi and in the datastores' files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, FerryError, ServerError

from .vm_move_lab import BATCH, BOOKS, EAST, SHOP, WEST, Moves, moves_of, until


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Moves]:
    with moves_of(tmp_path) as moves:
        yield moves


def failed(result: dict[str, Any] | FerryError) -> set[str]:
    found = result.partial if isinstance(result, FerryError) else result
    return {c["id"] for c in found["checks"] if not c["passed"]}


def test_hot_to_another_host_and_everything_survives(lab: Moves) -> None:
    cards, attributes, files = lab.cards(SHOP), lab.attributes(SHOP), lab.files(SHOP)
    folder, pool = lab.client.vm(SHOP).parent._moId, lab.client.vm(SHOP).resourcePool._moId
    plan = lab.move(SHOP, method="hot", host="esx2", check=True)
    assert plan["changed"] and plan["method"] == "hot" and plan["after"]["host"] == "esx2" and plan["mb"] == 0
    assert lab.host(SHOP) == "esx1"
    result = lab.move(SHOP, method="hot", host="esx2")
    assert result["changed"] and (result["before"]["host"], result["after"]["host"]) == ("esx1", "esx2")
    assert not failed(result)
    assert lab.host(SHOP) == "esx2" and lab.power(SHOP) == "poweredOn"
    vm = lab.client.vm(SHOP)
    assert (lab.cards(SHOP), lab.attributes(SHOP), lab.files(SHOP)) == (cards, attributes, files)
    assert (vm.parent._moId, vm.resourcePool._moId, vm.config.annotation) == (folder, pool, "一行目\n二行目")
    again = lab.move(SHOP, method="hot", host="esx2")
    assert not again["changed"] and again["method"] == "none"


def test_hot_to_another_cluster_keeps_what_it_can_and_chooses_a_pool(lab: Moves) -> None:
    result = lab.move(SHOP, method="hot", host="esx4")
    vm = lab.client.vm(SHOP)
    assert result["after"]["cluster"] == WEST and lab.host(SHOP) == "esx4"
    assert vm.resourcePool.owner.name == WEST and vm.parent.name == "店舗"
    assert not lab.move(SHOP, method="auto", cluster=WEST)["changed"]


def test_cold_moves_what_is_off_and_leaves_it_off(lab: Moves) -> None:
    result = lab.move(BATCH, method="cold", host="esx3")
    assert result["method"] == "cold" and lab.host(BATCH) == "esx3" and lab.power(BATCH) == "poweredOff"


def test_storage_of_the_whole_vm_while_it_runs(lab: Moves) -> None:
    before = lab.sha(SHOP, 2000, 2001)
    plan = lab.move(SHOP, method="storage", datastore="共有 2", check=True)
    assert plan["mb"] > 0 and plan["after"]["datastores"] == ["共有 2"]
    result = lab.move(SHOP, method="storage", datastore="共有 2")
    assert all(f.startswith("[共有 2] ") for f in lab.files(SHOP)) and lab.sha(SHOP, 2000, 2001) == before
    assert result["after"]["datastores"] == ["共有 2"] and lab.host(SHOP) == "esx1" and lab.power(SHOP) == "poweredOn"
    assert not lab.move(SHOP, method="storage", datastore="共有 2")["changed"]


def test_one_disk_alone(lab: Moves) -> None:
    before = lab.sha(SHOP, 2000, 2001)
    lab.move(SHOP, method="storage", disks=["Hard disk 2"], datastore="共有 2")
    vmx, first, second = lab.files(SHOP)
    assert vmx.startswith("[共有 1] ") and first.startswith("[共有 1] ") and second.startswith("[共有 2] ")
    assert lab.sha(SHOP, 2000, 2001) == before
    assert not lab.move(SHOP, method="storage", disks=["scsi0:1"], datastore="共有 2")["changed"]


def test_a_format_changes_with_the_move_and_the_bytes_do_not(lab: Moves) -> None:
    before = lab.sha(BATCH)
    result = lab.move(BATCH, method="storage", datastore="共有 2", format="eagerZeroedThick")
    assert [d["format"] for d in result["after"]["disks"]] == ["eagerZeroedThick"] and lab.sha(BATCH) == before
    assert not lab.move(BATCH, method="storage", datastore="共有 2", format="eagerZeroedThick")["changed"]


def test_move_between_local_disks_with_a_shutdown_between(lab: Moves) -> None:
    before, cards, attributes = lab.sha(BOOKS), lab.cards(BOOKS), lab.attributes(BOOKS)
    plan = lab.move(BOOKS, method="move", host="esx2", check=True)
    assert plan["method"] == "move" and plan["after"]["datastores"] == ["local2"]
    result = lab.move(BOOKS, method="move", host="esx2")
    assert lab.host(BOOKS) == "esx2" and lab.power(BOOKS) == "poweredOn" and lab.sha(BOOKS) == before
    assert all(f.startswith("[local2] ") for f in lab.files(BOOKS))
    assert (lab.cards(BOOKS), lab.attributes(BOOKS)) == (cards, attributes)
    assert result["after"]["annotation"] == "会計"
    assert not lab.move(BOOKS, method="move", host="esx2")["changed"]


def test_auto_takes_the_gentlest_and_says_why_not_the_others(lab: Moves) -> None:
    plan = lab.move(SHOP, host="esx2", check=True)
    assert plan["method"] == "hot" and plan["mb"] == 0
    local = lab.move(BOOKS, host="esx2", check=True)
    assert local["method"] == "hot" and local["after"]["datastores"] == ["local2"] and local["mb"] > 0
    assert "datastore.access" in local["methods"][0]["reasons"][0] and not local["methods"][0]["fits"]
    assert lab.move(BATCH, host="esx2", check=True)["method"] == "cold"
    assert lab.move(SHOP, datastore="共有 2", check=True)["method"] == "storage"


def test_without_a_host_the_best_is_taken_and_all_are_told_of(lab: Moves) -> None:
    plan = lab.move(SHOP, method="hot", check=True)
    told = {c["host"]: c for c in plan["candidates"]}
    assert set(told) == {"esx2", "esx3", "esx4", "esx5", "esx6"}
    assert told["esx5"]["fits"] is False and "共有 1" in " ".join(told["esx5"]["reasons"])
    assert plan["candidates"][0]["host"] == plan["after"]["host"] and plan["after"]["cluster"] == EAST


@pytest.mark.parametrize(
    ("vm", "options", "check"),
    [
        pytest.param(SHOP, {"method": "hot", "host": "esx5"}, "datastore.access", id="no shared storage"),
        pytest.param(SHOP, {"method": "storage", "datastore": "満杯"}, "datastore.space", id="full datastore"),
        pytest.param(SHOP, {"method": "hot", "host": "esx2", "network_map": {"業務 LAN": "無い LAN"}}, "network", id="network missing"),
        pytest.param(SHOP, {"method": "cold", "host": "esx2"}, "vm.power", id="running"),
        pytest.param(BATCH, {"method": "hot", "host": "esx2"}, "vm.power", id="off"),
        pytest.param("toolless", {"method": "move", "host": "esx2"}, "vm.power", id="no tools"),
        pytest.param(
            SHOP,
            {"method": "hot", "host": "esx2", "constraints": [{"kind": "NE", "vms": [SHOP, BATCH]}, {"kind": "pin", "vms": [SHOP], "hosts": ["esx3"]}]},
            "constraints",
            id="constraints",
        ),
    ],
)  # fmt: skip
def test_a_failed_check_is_told_with_all_others_and_nothing_changes(lab: Moves, vm: str, options: dict[str, Any], check: str) -> None:
    with pytest.raises(ServerError) as e:
        lab.move(vm, **options)
    assert e.value.code == "checks_failed" and failed(e.value) == {check}
    assert len(e.value.partial["checks"]) > 8
    assert lab.host(vm) == "esx1"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "esx9"}, "no host esx9"),
        ({"host": "esx4", "cluster": EAST}, "no host esx4 in the cluster"),
        ({"cluster": "北"}, "no cluster 北"),
        ({"datastore": "nothing"}, "no datastore nothing"),
        ({"method": "storage"}, "needs a datastore"),
        ({"method": "hot", "host": "esx2", "disks": ["Hard disk 1"], "datastore": "共有 2"}, "Single disks"),
        ({"disks": ["Hard disk 7"], "datastore": "共有 2"}, "No disk answers"),
        ({"host": "esx2", "folder": "無い"}, "no folder 無い"),
        ({"host": "esx2", "pool": "無い"}, "No resource pool"),
        ({"host": "esx2", "reserve_percent": 100}, "reserve_percent"),
        ({"host": "esx2", "constraints": [{"kind": "EQ", "vms": [SHOP, "誰"]}]}, "誰"),
        ({"host": "esx2", "constraints": [{"kind": "EQ", "vms": [SHOP, BOOKS]}, {"kind": "NE", "vms": [SHOP, BOOKS]}]}, "apart"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_reason(lab: Moves, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        lab.move(SHOP, **options)


def test_a_host_in_maintenance_is_none(lab: Moves) -> None:
    host = lab.client.all(vim.HostSystem)["esx2"]
    lab.client.wait(host.EnterMaintenanceMode_Task(60))
    with pytest.raises(ServerError) as e:
        lab.move(SHOP, method="hot", host="esx2")
    assert failed(e.value) == {"host.maintenance"}
    assert lab.move(SHOP, method="hot", check=True)["after"]["host"] != "esx2"


def test_a_guest_that_does_not_shut_down_stays_where_it_is_or_is_powered_off(lab: Moves) -> None:
    with pytest.raises(FerryError) as e:
        lab.move("hung", method="move", host="esx2", shutdown_timeout=1)
    assert e.value.code == "shutdown_timeout" and "esx1" in str(e.value.left)
    assert lab.host("hung") == "esx1" and lab.power("hung") == "poweredOn"
    lab.move("hung", method="move", host="esx2", shutdown_timeout=1, on_timeout="poweroff")
    assert lab.host("hung") == "esx2" and lab.power("hung") == "poweredOn"
    assert any("powered off" in w for w in lab.warnings)


def test_an_invalid_state_midway_leaves_it_running_where_it_was(lab: Moves) -> None:
    lab.vcenter.fault("soap_fault", match=f"RelocateVM_Task {BOOKS}", fault="InvalidState")
    with pytest.raises(ServerError) as e:
        lab.move(BOOKS, method="move", host="esx2")
    assert e.value.details["fault"] == "InvalidState" and "the VM is on esx1, powered on" in str(e.value.left)
    assert lab.host(BOOKS) == "esx1" and lab.power(BOOKS) == "poweredOn" and "ferry.move" not in lab.attributes(BOOKS)
    lab.move(BOOKS, method="move", host="esx2")
    assert lab.host(BOOKS) == "esx2"


def test_a_run_that_is_killed_while_the_vm_is_off_is_continued(lab: Moves) -> None:
    before = lab.sha(BOOKS)
    process = lab.start(BOOKS, method="move", host="esx2", on_timeout="poweroff")
    until(lambda: lab.power(BOOKS) == "poweredOff")
    lab.kill(process)
    result = lab.move(BOOKS, method="move", host="esx2")
    assert result["after"]["host"] == "esx2" and lab.power(BOOKS) == "poweredOn"
    assert "ferry.move" not in lab.attributes(BOOKS) and lab.sha(BOOKS) == before


def test_another_folder_pool_and_network(lab: Moves) -> None:
    result = lab.move(SHOP, method="hot", host="esx2", folder="本番", network_map={"業務 LAN": "裏 LAN"})
    assert lab.client.vm(SHOP).parent.name == "本番"
    assert [n["network"] for n in result["after"]["nics"]] == ["裏 LAN", "VM Network"]
    assert [n["mac"] for n in result["after"]["nics"]] == ["00:50:56:0b:00:22", "00:50:56:0b:00:11"]


def test_hot_between_hosts_that_share_nothing(lab: Moves) -> None:
    before, cards = lab.sha(BOOKS), lab.cards(BOOKS)
    result = lab.move(BOOKS, host="esx2")
    assert result["method"] == "hot" and lab.host(BOOKS) == "esx2" and lab.power(BOOKS) == "poweredOn"
    assert all(f.startswith("[local2] ") for f in lab.files(BOOKS)) and lab.sha(BOOKS) == before and lab.cards(BOOKS) == cards


def test_what_vcenter_itself_refuses_is_not_taken(lab: Moves) -> None:
    with pytest.raises(ServerError) as e:
        lab.move(SHOP, method="hot", host="esx6", datastore="共有 3")
    assert failed(e.value) == {"server.relocate"}
    plan = lab.move(SHOP, host="esx6", datastore="共有 3", check=True)
    assert plan["method"] == "move" and "server.relocate" in plan["methods"][0]["reasons"][0]


def test_a_piece_of_the_host_stays_on_it(lab: Moves) -> None:
    with pytest.raises(ServerError) as e:
        lab.move("gpu", method="hot", host="esx2")
    assert "vm.passthrough" in failed(e.value) and lab.host("gpu") == "esx3"


def test_a_relocation_that_takes_too_long_is_canceled(lab: Moves) -> None:
    lab.vcenter.switch("relocate_seconds", 60)
    files = lab.files(BOOKS)
    with pytest.raises(ServerError) as e:
        lab.move(BOOKS, method="move", host="esx2", timeout=1)
    assert e.value.code == "timeout" and "the task was canceled; the VM is on esx1, powered on" in str(e.value.left)
    assert lab.host(BOOKS) == "esx1" and lab.power(BOOKS) == "poweredOn" and lab.files(BOOKS) == files
    assert "ferry.move" not in lab.attributes(BOOKS)


def test_a_relocation_that_fails_on_its_way(lab: Moves) -> None:
    lab.vcenter.fault("relocate_fail", match=SHOP)
    before = lab.sha(SHOP, 2000, 2001)
    with pytest.raises(ServerError) as e:
        lab.move(SHOP, method="storage", datastore="共有 2")
    assert e.value.code == "task" and "[共有 1]" in str(e.value.left) and e.value.partial["changed"] is False
    assert lab.sha(SHOP, 2000, 2001) == before and lab.power(SHOP) == "poweredOn"


def test_a_move_that_is_under_way_is_waited_for(lab: Moves) -> None:
    lab.vcenter.switch("relocate_seconds", 3)
    store = lab.client.all(vim.Datastore)["共有 2"]
    lab.client.vm(SHOP).RelocateVM_Task(vim.vm.RelocateSpec(datastore=store), "defaultPriority")
    result = lab.move(SHOP, method="storage", datastore="共有 2")
    assert result["changed"] is False and any("under way" in w for w in lab.warnings)
    assert all(f.startswith("[共有 2] ") for f in lab.files(SHOP))


def test_a_run_that_is_killed_during_the_relocation_is_continued(lab: Moves) -> None:
    lab.vcenter.switch("relocate_seconds", 3)
    before = lab.sha(BOOKS)
    process = lab.start(BOOKS, method="move", host="esx2", on_timeout="poweroff")
    until(lambda: lab.relocating())
    lab.kill(process)
    result = lab.move(BOOKS, method="move", host="esx2")
    assert result["after"]["host"] == "esx2" and lab.power(BOOKS) == "poweredOn" and lab.sha(BOOKS) == before
    assert "ferry.move" not in lab.attributes(BOOKS)


def test_what_the_server_loses_is_put_back(lab: Moves) -> None:
    """Somebody moves the VM into another folder and changes its notes while it is on its way."""
    lab.vcenter.switch("migrate_seconds", 2)
    process = lab.start(SHOP, method="hot", host="esx2")
    until(lambda: lab.relocating())
    lab.client.wait(lab.client.all(vim.Folder)["本番"].MoveIntoFolder_Task([lab.client.vm(SHOP)]))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    assert json.loads(out)["put_back"] == ["folder"] and lab.client.vm(SHOP).parent.name == "店舗"
