# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moves in the lab's vCenter, by plain pyvmomi and govc: relocation with files, the checks before it, time, space and failures."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from tests.lab.vcenter import VCenter, build
from tests.lab_tests.moves_lab import (
    LEVEL,
    MOVES,
    STOCK,
    Card,
    Disk,
    Flat,
    Spec,
    files,
    host,
    identity,
    refused,
    relocate,
    said,
    state,
    store,
    until,
)
from tests.lab_tests.vcenter_lab import MIB, Client, disks_of, running, write_raw

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[VCenter]:
    with running(tmp_path, MOVES) as vcenter:
        yield vcenter


@pytest.fixture
def client(lab: VCenter) -> Iterator[Client]:
    one = Client(lab)
    yield one
    one.close()


def test_a_hot_move_changes_the_host_and_all_lists(client: Client) -> None:
    vm, esx1, esx2 = client.vm("web01"), host(client, "esx1"), host(client, "esx2")
    before = state(vm)
    client.wait(vm.MigrateVM_Task(None, esx2, LEVEL, "poweredOn"))
    assert state(vm) == {**before, "host": "esx2"}
    assert vm.summary.runtime.host == esx2 and vm in list(esx2.vm) and vm not in list(esx1.vm)
    assert refused(client, lambda: vm.MigrateVM_Task(None, esx1, LEVEL, "poweredOff")) == "InvalidPowerState"


def test_a_storage_move_moves_the_files_and_the_guest_goes_on(lab: VCenter, client: Client) -> None:
    vm = client.vm("web01")
    lab.write("web01", 2000, 0, b"\x11" * 4096)
    before, free = lab.sha256("web01", 2000), store(client, "shared2").summary.freeSpace
    gone = store(client, "shared1").summary.freeSpace
    local = Path(next(v for v in lab.get("/state")["vms"] if v["name"] == "web01")["disks"][0]["local"])
    relocate(client, vm, datastore=store(client, "shared2"))
    assert (vm.config.files.vmPathName, files(vm)) == ("[shared2] web01/web01.vmx", {2000: "[shared2] web01/web01.vmdk"})
    assert vm.summary.config.vmPathName == vm.config.files.vmPathName and vm.runtime.powerState == "poweredOn"
    assert [d.name for d in vm.datastore] == ["shared2"] and vm in list(store(client, "shared2").vm)
    assert vm not in list(store(client, "shared1").vm)
    assert not local.parent.exists()
    assert {f.name.split(" ", 1)[0] for f in vm.layoutEx.file} == {"[shared2]"}
    assert lab.sha256("web01", 2000) == before
    assert store(client, "shared2").summary.freeSpace < free and store(client, "shared1").summary.freeSpace > gone
    assert client.file("web01/web01.vmx", ds="shared2", dc="DC0").status == 200
    assert client.file("web01/web01.vmx", ds="shared1", dc="DC0").status == 404
    lab.write("web01", 2000, 8192, b"\x22" * 512)
    assert lab.disk("web01", 2000)[8192:8704] == b"\x22" * 512


def test_one_disk_alone_with_another_format(lab: VCenter, client: Client) -> None:
    vm = client.vm("db01")
    before = {k: lab.sha256("db01", k) for k in disks_of(vm.config)}
    keys = sorted(before)
    thick = Flat(fileName="", diskMode="", thinProvisioned=False, eagerlyScrub=True)
    nfs = store(client, "nfs1")
    free = nfs.summary.freeSpace
    relocate(client, vm, disk=[Disk(diskId=keys[0], datastore=nfs, diskBackingInfo=thick)])
    disk = disks_of(vm.config)[keys[0]]
    assert (disk.backing.fileName, disk.backing.thinProvisioned, disk.backing.eagerlyScrub) == ("[nfs1] db01/db01.vmdk", False, True)
    assert disk.backing.datastore == nfs and vm.config.files.vmPathName == "[shared2] db01/db01.vmx"
    assert nfs.summary.freeSpace == free - disk.capacityInBytes
    assert {d.name for d in vm.datastore} == {"shared1", "shared2", "nfs1"}
    assert {k: lab.sha256("db01", k) for k in before} == before
    text = client.file("db01/db01.vmdk", ds="nfs1", dc="DC0").body
    assert b"ddb.thinProvisioned" not in text and b"ddb.uuid" in text
    thin = Flat(fileName="", diskMode="", thinProvisioned=True)
    relocate(client, vm, disk=[Disk(diskId=keys[0], datastore=nfs, diskBackingInfo=thin)])
    assert disks_of(vm.config)[keys[0]].backing.thinProvisioned and nfs.summary.freeSpace > free - disk.capacityInBytes
    assert refused(client, lambda: vm.RelocateVM_Task(Spec(disk=[Disk(diskId=9, datastore=nfs)]), LEVEL)) == "InvalidArgument"


def test_a_move_takes_chains_of_snapshots_along(lab: VCenter, client: Client) -> None:
    vm = client.vm("db01")
    snapshot = client.snapshot(vm, "one")
    lab.write("db01", 2000, 4096, b"\x33" * 65536)
    frozen, now = lab.sha256("db01", 2000, "one"), lab.sha256("db01", 2000)
    change = disks_of(snapshot.config)[2000].backing.changeId
    relocate(client, vm, datastore=store(client, "shared1"), host=host(client, "esx2"))
    backing = disks_of(vm.config)[2000].backing
    assert backing.fileName == "[shared1] db01/db01-000001.vmdk" and backing.parent.fileName == "[shared1] db01/db01.vmdk"
    assert disks_of(snapshot.config)[2000].backing.fileName == "[shared1] db01/db01.vmdk"
    assert disks_of(snapshot.config)[2000].backing.datastore.name == "shared1"
    assert (lab.sha256("db01", 2000, "one"), lab.sha256("db01", 2000)) == (frozen, now) and frozen != now
    client.wait(snapshot.RemoveSnapshot_Task(False))
    assert lab.sha256("db01", 2000) == now and files(vm)[2000] == "[shared1] db01/db01.vmdk"
    later = client.snapshot(vm, "two")
    assert (4096 // 65536 * 65536, 131072) in client.areas(vm, later, 2000, change)


def test_a_cold_move_from_one_local_datastore_to_another(lab: VCenter, client: Client) -> None:
    vm = client.vm(STOCK)
    before, who = lab.sha256(STOCK, 3000), identity(vm)
    esx2, local = host(client, "esx2"), store(client, "local-esx2")
    assert refused(client, lambda: vm.MigrateVM_Task(None, esx2, LEVEL)) == "CannotAccessVmConfig"
    vm.ShutdownGuest()
    until(lambda: vm.runtime.powerState == "poweredOff")
    relocate(client, vm, host=esx2, datastore=local)
    assert (vm.runtime.host, vm.config.files.vmPathName) == (esx2, f"[local-esx2] {STOCK}/{STOCK}.vmx")
    client.wait(vm.PowerOn())
    assert lab.sha256(STOCK, 3000) == before and vm.runtime.powerState == "poweredOn"
    moved = identity(vm)
    assert {k: v[1:] for k, v in moved.pop("disks").items()} == {k: v[1:] for k, v in who.pop("disks").items()} and moved == who


def test_a_move_between_clusters_wants_a_pool_and_changes_the_folder(client: Client) -> None:
    vm, esx4 = client.vm("web02"), host(client, "esx4")
    client.wait(vm.PowerOff())
    pool = esx4.parent.resourcePool
    target = client.vm(STOCK).parent
    assert refused(client, lambda: vm.RelocateVM_Task(Spec(host=esx4, datastore=store(client, "shared2")), LEVEL)) == "InvalidArgument"
    relocate(client, vm, host=esx4, pool=pool, folder=target, datastore=store(client, "shared2"))
    assert (vm.runtime.host, vm.resourcePool, vm.parent) == (esx4, pool, target)
    assert vm in list(pool.vm) and vm in list(target.childEntity)


def test_a_network_adapter_gets_another_network_on_the_way(client: Client) -> None:
    vm, esx3 = client.vm("web01"), host(client, "esx3")
    spec = Spec(host=esx3)
    assert refused(client, lambda: vm.RelocateVM_Task(spec, LEVEL)) == "CannotAccessNetwork"
    nic = [d for d in vm.config.hardware.device if isinstance(d, Card)][1]
    plain = client.all(vim.Network)["VM Network"]
    nic.backing = Card.NetworkBackingInfo(deviceName="VM Network", network=plain)
    spec.deviceChange = [vim.vm.device.VirtualDeviceSpec(operation="edit", device=nic)]
    client.wait(vm.RelocateVM_Task(spec, LEVEL))
    nics = [d for d in vm.config.hardware.device if isinstance(d, Card)]
    assert [n.deviceInfo.summary for n in nics] == ["VM Network", "VM Network"] and vm.runtime.host == esx3
    assert [n.macAddress for n in nics] == ["00:50:56:10:00:01", "00:50:56:10:00:02"]
    assert [n.name for n in vm.network] == ["VM Network"] and vm not in list(client.all(vim.Network)["backend"].vm)


def test_every_check_is_told_by_the_checker(client: Client) -> None:
    checker = client.content.vmProvisioningChecker
    hosts = client.all(vim.HostSystem)

    def errors(task: Any) -> dict[str, set[str]]:
        client.wait(task)
        return {f"{r.vm.name} {r.host.name}": {said(e) for e in r.error} for r in task.info.result}

    names = ["web01", "gpu01", "iso01", "db01"]
    found = errors(checker.QueryVMotionCompatibilityEx_Task([client.vm(n) for n in names], list(hosts.values())))
    assert found["web01 esx2"] == set() and found["web01 esx3"] == {"CannotAccessNetwork"}
    assert found["web01 esx4"] == {"CpuIncompatible1ECX", "CannotAccessVmConfig", "CannotAccessVmDisk"}
    assert {"VMotionNotConfigured", "CpuIncompatible1ECX"} <= found["web01 esx6"] and "CpuIncompatible1ECX" in found["web01 esx5"]
    assert found["gpu01 esx2"] == {"DeviceNotSupported"} and found["iso01 esx2"] == {"CannotAccessVmDevice"}
    assert found["db01 esx3"] == {"VmHostAffinityRuleViolation", "CannotAccessNetwork"}
    pool = hosts["esx1"].parent.resourcePool
    assert set(errors(checker.CheckMigrate_Task(client.vm("web01"), None, pool, None))) == {"web01 esx1", "web01 esx2", "web01 esx3"}
    task = checker.CheckMigrate_Task(client.vm("web01"), hosts["esx2"], None, None)
    client.wait(task)
    assert [said(w) for w in task.info.result[0].warning] == ["RuleViolation"] and not task.info.result[0].error
    full = Spec(datastore=store(client, "full"))
    assert errors(checker.CheckRelocate_Task(client.vm("web01"), full)) == {"web01 esx1": {"NoDiskSpace"}}
    assert refused(client, lambda: client.vm("web01").RelocateVM_Task(full, LEVEL)) == "NoDiskSpace"
    assert errors(checker.CheckRelocate_Task(client.vm("off01"), Spec(host=hosts["esx1"]))) == {
        "off01 esx1": {"CannotAccessVmConfig", "CannotAccessVmDisk"}
    }


def test_a_move_takes_its_time_can_be_cancelled_and_fails_without_a_trace(lab: VCenter, client: Client) -> None:
    vm = client.vm("web01")
    before, shared2 = state(vm), store(client, "shared2")
    free = shared2.summary.freeSpace
    spec = Spec(datastore=shared2)
    lab.switch("relocate_seconds", 30, vm="web01")
    task = vm.RelocateVM_Task(spec, LEVEL)
    until(lambda: (task.info.progress or 0) > 0)
    assert task.info.cancelable and refused(client, lambda: vm.CreateSnapshot_Task("no", "", False, False)) == "TaskInProgress"
    assert refused(client, vm.PowerOff) == "TaskInProgress"
    assert vm.runtime.powerState == "poweredOn"
    task.CancelTask()
    assert refused(client, lambda: task) == "RequestCanceled" and task.info.cancelled
    assert state(vm) == before and shared2.summary.freeSpace == free
    lab.switch("relocate_seconds", 0.1, vm="web01")
    lab.fault("relocate_fail", match="web01", fault="InvalidState")
    assert refused(client, lambda: vm.RelocateVM_Task(spec, LEVEL)) == "InvalidState"
    assert state(vm) == before
    lab.switch("relocate_seconds", 30, vm="web01")
    task = vm.RelocateVM_Task(Spec(datastore=shared2, host=host(client, "esx2")), LEVEL)
    until(lambda: (task.info.progress or 0) > 0)
    lab.post("/host/die", host="esx2", vms="die")
    assert refused(client, lambda: task) == "HostNotConnected"
    assert state(vm) == before and vm not in list(shared2.vm)
    lab.clear()
    relocate(client, vm, datastore=shared2)
    assert vm.config.files.vmPathName.startswith("[shared2]")


def test_two_moves_at_once_cannot_take_the_same_space(lab: VCenter, client: Client) -> None:
    size = 1 << 30
    lab.post("/datastore/fill", datastore="local-esx1", free=size * 3 // 2)
    lab.switch("relocate_seconds", 2)
    one, two = client.vm("iso01"), client.vm("gpu01")
    client.wait(two.PowerOff())
    thick = Flat(fileName="", diskMode="", thinProvisioned=False)
    local = store(client, "local-esx1")
    task = one.RelocateVM_Task(Spec(disk=[Disk(diskId=2000, datastore=local, diskBackingInfo=thick)]), LEVEL)
    until(lambda: (task.info.progress or 0) > 0)
    second = Spec(disk=[Disk(diskId=2000, datastore=local, diskBackingInfo=thick)])
    assert refused(client, lambda: two.RelocateVM_Task(second, LEVEL)) == "NoDiskSpace"
    client.wait(task)
    assert local.summary.freeSpace == size // 2


def test_a_client_of_govmomi_sees_the_same(lab: VCenter, tmp_path: Path) -> None:
    govc = build("./govc", "govc")
    env = {
        "GOVC_URL": f"https://127.0.0.1:{lab.port}/sdk",
        "GOVC_USERNAME": lab.env()["VMWARE_USER"],
        "GOVC_PASSWORD": lab.env()["VMWARE_PASSWORD"],
        "GOVC_TLS_CA_CERTS": lab.env()["VMWARE_CA_PATH"],
        "HOME": str(tmp_path),
    }

    def run(*args: str) -> str:
        return subprocess.run([str(govc), *args], env=env, capture_output=True, text=True, check=True, timeout=60).stdout

    run("vm.migrate", "-host", "esx2", "web01")
    info = json.loads(run("vm.info", "-json", "web01"))["virtualMachines"][0]
    esx2 = json.loads(run("host.info", "-json", "-host", "esx2"))["hostSystems"][0]
    assert info["runtime"]["host"] == esx2["self"]
    assert info["self"] in esx2["vm"]


def test_the_models_bytes_are_not_touched(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "one.raw", 3 * MIB, 7)
    was = raw.read_bytes()
    model = {
        "clusters": [{"name": "C0", "hosts": ["a", "b"]}],
        "datastores": [{"name": "s", "capacity": "1GiB"}, {"name": "t", "capacity": "1GiB", "hosts": ["b"]}],
        "vms": [{"name": "vm", "host": "a", "datastore": "s", "power": "on", "disks": [{"path": raw.name}]}],
    }
    (tmp_path / "model.json").write_text(json.dumps(model), encoding="utf-8")
    with running(tmp_path, tmp_path / "model.json") as lab:
        client = Client(lab)
        relocate(client, client.vm("vm"), datastore=store(client, "t"), host=host(client, "b"))
        lab.write("vm", 2000, 0, b"\x66" * 4096)
        assert lab.disk("vm", 2000) == b"\x66" * 4096 + was[4096:]
        client.close()
    assert raw.read_bytes() == was


def test_disks_of_one_name_meet_in_one_folder(lab: VCenter, client: Client) -> None:
    vm = client.vm("db01")
    shared1, shared2, nfs = (store(client, n) for n in ("shared1", "shared2", "nfs1"))
    snapshot = client.snapshot(vm, "one")
    lab.write("db01", 2000, 0, b"\x77" * 4096)
    relocate(client, vm, disk=[Disk(diskId=2000, datastore=nfs)])
    spec = vim.vm.device.VirtualDeviceSpec(operation="add", fileOperation="create")
    backing = Flat(fileName="[shared2] db01/db01.vmdk", diskMode="persistent", thinProvisioned=True)
    spec.device = vim.vm.device.VirtualDisk(key=-1, controllerKey=1000, unitNumber=5, capacityInKB=1024, backing=backing)
    client.wait(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[spec])))
    before = {k: lab.sha256("db01", k) for k in disks_of(vm.config)}
    frozen = lab.sha256("db01", 2000, "one")
    relocate(client, vm, datastore=shared2)
    assert sorted(files(vm).values()) == [
        "[shared2] db01/db01.vmdk",
        "[shared2] db01/db01_1-000001.vmdk",
        "[shared2] db01/db01_2-000001.vmdk",
    ]
    assert {k: lab.sha256("db01", k) for k in before} == before and lab.sha256("db01", 2000, "one") == frozen
    assert b'"db01_' in client.file("db01/db01_2.vmdk", ds="shared2", dc="DC0").body
    client.wait(vm.PowerOff())
    relocate(client, vm, datastore=shared1)
    client.wait(snapshot.RemoveSnapshot_Task(False))
    assert {k: lab.sha256("db01", k) for k in before} == before
    client.wait(vm.PowerOn())
