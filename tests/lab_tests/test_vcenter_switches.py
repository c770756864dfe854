# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong on demand with moves in the lab's vCenter: each switch and fault does what its README says; and tags, also by govc."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyVmomi import vim

from tests.lab.vcenter import VCenter
from tests.lab_tests.moves_lab import LEVEL, MOVES, Spec, ask_api, govc, host, refused, store, until
from tests.lab_tests.vcenter_lab import Client, running

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCenter]:
    with running(tmp_path_factory.mktemp("lab"), MOVES) as vcenter:
        yield vcenter


@pytest.fixture
def lab(started: VCenter) -> VCenter:
    started.clear()
    return started


@pytest.fixture
def client(lab: VCenter) -> Iterator[Client]:
    one = Client(lab)
    yield one
    one.close()


def test_a_host_that_is_rebooted_is_away_and_comes_back(lab: VCenter, client: Client) -> None:
    esx6, vm = host(client, "esx6"), client.vm("alone01")
    lab.switch("host_boot_seconds", 0.5)
    assert refused(client, lambda: esx6.RebootHost_Task(False)) == "InvalidState"
    client.wait(vm.PowerOff())
    client.wait(esx6.EnterMaintenanceMode_Task(10))
    booted = esx6.runtime.bootTime
    client.wait(esx6.RebootHost_Task(False))
    assert esx6.runtime.connectionState == "notResponding" and vm.runtime.connectionState == "disconnected"
    until(lambda: esx6.runtime.connectionState == "connected")
    assert esx6.runtime.bootTime != booted and esx6.runtime.inMaintenanceMode and vm.runtime.connectionState == "connected"
    client.wait(esx6.ExitMaintenanceMode_Task(10))
    client.wait(vm.PowerOn())
    client.wait(esx6.RebootHost_Task(True))
    until(lambda: esx6.runtime.connectionState == "connected")
    assert vm.runtime.powerState == "poweredOff"
    client.wait(vm.PowerOn())


def test_a_relocation_takes_as_long_as_its_bytes(lab: VCenter, client: Client) -> None:
    vm = client.vm("web01")
    occupied = next(f.size for f in vm.layoutEx.file if f.type == "diskExtent")
    lab.switch("relocate_rate", occupied * 4, vm="web02")
    lab.switch("relocate_rate", occupied / 4, vm="web01")  # about four seconds
    task = vm.RelocateVM_Task(Spec(datastore=store(client, "shared2")), LEVEL)
    until(lambda: 0 < (task.info.progress or 0) < 98)
    assert task.info.state == "running"
    other = client.vm("web02").RelocateVM_Task(Spec(datastore=store(client, "shared2")), LEVEL)
    client.wait(other)
    assert task.info.state == "running"  # sixteen times as fast, and begun later
    task.CancelTask()
    assert refused(client, lambda: task) == "RequestCanceled" and vm.config.files.vmPathName.startswith("[shared1]")


def test_a_power_on_that_fails_leaves_the_vm_off(lab: VCenter, client: Client) -> None:
    vm = client.vm("off01")
    lab.fault("power_on_fail", match="off01")
    assert refused(client, vm.PowerOn) == "GenericVmConfigFault" and vm.runtime.powerState == "poweredOff"
    lab.fault("power_on_fail", match="off01", fault="InsufficientMemoryResourcesFault", times=2)
    assert [refused(client, vm.PowerOn) for _ in range(2)] == ["InsufficientMemoryResourcesFault"] * 2
    lab.fault("power_on_fail", match="another")
    client.wait(vm.PowerOn())
    client.wait(vm.PowerOff())


def test_a_registration_that_fails_leaves_nothing(lab: VCenter, client: Client) -> None:
    vm = client.vm("off01")
    folder, pool, path = vm.parent, vm.resourcePool, vm.config.files.vmPathName
    vm.UnregisterVM()
    lab.fault("register_fail", match="off01.vmx")
    assert refused(client, lambda: folder.RegisterVM_Task(path, None, False, pool, None)) == "InvalidState"
    lab.fault("register_fail", match="off01.vmx", fault="VmConfigFault")
    assert refused(client, lambda: folder.RegisterVM_Task(path, None, False, pool, None)) == "VmConfigFault"
    assert "off01" not in client.all(vim.VirtualMachine)
    client.wait(folder.RegisterVM_Task(path, None, False, pool, None))
    assert client.vm("off01").config.files.vmPathName == path


@pytest.mark.parametrize("lone", ["", "remove"])
def test_a_vm_that_leaves_the_inventory_leaves_groups_and_rules(lab: VCenter, client: Client, lone: str) -> None:
    cluster = client.all(vim.ClusterComputeResource)["C0"]
    vm, other = client.vm("off01"), client.vm("hung01")
    group = vim.cluster.VmGroup(name=f"both {lone}", vm=[vm, other])
    rule = vim.cluster.AntiAffinityRuleSpec(name=f"apart {lone}", enabled=True, vm=[vm, other])
    spec = vim.cluster.ConfigSpecEx(
        groupSpec=[vim.cluster.GroupSpec(operation="add", info=group)], rulesSpec=[vim.cluster.RuleSpec(operation="add", info=rule)]
    )
    client.wait(cluster.ReconfigureComputeResource_Task(spec, True))
    lab.switch("lone_rules", lone)
    folder, pool, path = vm.parent, vm.resourcePool, vm.config.files.vmPathName
    vm.UnregisterVM()
    client.wait(folder.RegisterVM_Task(path, None, False, pool, None))
    config = cluster.configurationEx
    assert [list(g.vm) for g in config.group if g.name == f"both {lone}"] == [[other]]
    assert [list(r.vm) for r in config.rule if r.name == f"apart {lone}"] == ([] if lone else [[other]])
    assert {"web apart", "licence"} <= {r.name for r in config.rule}


def test_tags_as_govc_makes_them_are_those_of_the_automation_api(lab: VCenter, client: Client, tmp_path: Path) -> None:
    govc(lab, tmp_path, "tags.category.create", "rack")
    one = govc(lab, tmp_path, "tags.create", "-c", "rack", "ラック 7").strip()
    govc(lab, tmp_path, "tags.attach", "ラック 7", "/DC0/host/C0/esx1")
    esx1 = host(client, "esx1")._moId
    body = {"object_id": {"type": "HostSystem", "id": esx1}}
    where = "/api/cis/tagging/tag-association"
    status, token = ask_api(lab, "POST", "/api/session", user=True)
    assert status == 201 and isinstance(token, str)
    assert ask_api(lab, "POST", f"{where}?action=list-attached-tags", body, token=token) == (200, [one])
    assert ask_api(lab, "GET", f"/api/cis/tagging/tag/{one}", token=token)[1]["name"] == "ラック 7"
    esx2 = {"object_id": {"type": "HostSystem", "id": host(client, "esx2")._moId}}
    assert ask_api(lab, "POST", f"{where}?action=list-attached-tags", esx2, token=token) == (200, [])
    assert ask_api(lab, "POST", f"{where}/{one}?action=attach", esx2, token=token) == (204, None)
    attached = json.loads(govc(lab, tmp_path, "tags.attached.ls", "-json", "ラック 7"))
    assert {ref.rpartition(":")[2] for ref in attached} == {esx1, host(client, "esx2")._moId}
    many = {"object_ids": [body["object_id"], esx2["object_id"]]}
    _status, found = ask_api(lab, "POST", f"{where}?action=list-attached-tags-on-objects", many, token=token)
    assert [f["tag_ids"] for f in found] == [[one], [one]]
    assert ask_api(lab, "POST", f"{where}/urn:none?action=attach", esx2, token=token)[0] == 404
    assert ask_api(lab, "DELETE", "/api/session", token=token)[0] == 204
    assert ask_api(lab, "POST", f"{where}?action=list-attached-tags", body, token=token)[0] == 401
    assert ask_api(lab, "GET", "/api/vcenter/vm", token=token)[0] == 404
