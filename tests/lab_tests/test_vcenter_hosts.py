# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts of the lab's vCenter that die and come back, file locks, registering, maintenance mode, rules, custom attributes and events."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from tests.lab import model
from tests.lab.common import LabError
from tests.lab.vcenter import VCenter
from tests.lab_tests.moves_lab import LEVEL, MOVES, Spec, host, identity, refused, store, until
from tests.lab_tests.vcenter_lab import MIB, Client, disks_of, running

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


def test_a_dead_host_and_the_vms_that_died_with_it(lab: VCenter, client: Client) -> None:
    vm, esx2 = client.vm("web02"), host(client, "esx2")
    lab.post("/host/die", host="esx2", vms="die")
    assert (esx2.runtime.connectionState, esx2.runtime.powerState, esx2.overallStatus) == ("notResponding", "unknown", "red")
    assert (vm.runtime.connectionState, vm.runtime.powerState, vm.guestHeartbeatStatus) == ("disconnected", "poweredOn", "gray")
    assert not store(client, "local-esx2").summary.accessible and store(client, "shared1").summary.accessible
    for what in (vm.PowerOff, lambda: vm.MigrateVM_Task(None, host(client, "esx1"), LEVEL), esx2.ReconnectHost_Task):
        assert refused(client, what) in ("HostNotConnected", "NoHost")
    assert refused(client, lambda: client.vm("web01").MigrateVM_Task(None, esx2, LEVEL)) == "HostNotConnected"
    pool = vm.resourcePool
    path = vm.config.files.vmPathName
    assert refused(client, lambda: vm.parent.RegisterVM_Task(path, None, False, pool, host(client, "esx1"))) == "AlreadyExists"
    lab.post("/host/back", host="esx2")
    assert (esx2.runtime.connectionState, esx2.overallStatus, vm.runtime.connectionState) == ("connected", "green", "connected")
    assert vm.runtime.powerState == "poweredOff"


@pytest.mark.parametrize("answer", ["GenericVmConfigFault", "FileLocked"])
def test_failover_of_a_vm_that_runs_on_unseen_is_stopped_by_the_lock(lab: VCenter, client: Client, answer: str) -> None:
    vm = client.vm("db01")
    snapshot = client.snapshot(vm, "kept")
    lab.write("db01", 2000, 0, b"\x44" * 512)
    who, bytes_were = identity(vm), lab.sha256("db01", 2000)
    folder, pool, path = vm.parent, vm.resourcePool, vm.config.files.vmPathName
    assert refused(client, vm.UnregisterVM) == "InvalidPowerState"
    lab.post("/host/die", host="esx1", vms="run")
    vm.UnregisterVM()
    assert "db01" not in client.all(vim.VirtualMachine)
    lab.switch("lock_fault", answer)
    esx2 = host(client, "esx2")
    assert refused(client, lambda: folder.RegisterVM_Task(path, None, False, pool, host(client, "esx1"))) == "HostNotConnected"
    task = folder.RegisterVM_Task(path, None, False, pool, esx2)
    client.wait(task)
    new = task.info.result
    assert identity(new) == who and new.runtime.host == esx2 and new.runtime.powerState == "poweredOff"
    assert not new.customValue and {f.name for f in new.availableField} == {"owner", "backup"}
    assert [s.name for s in new.snapshot.rootSnapshotList] == ["kept"]
    assert refused(client, new.PowerOn) == answer and new.runtime.powerState == "poweredOff"
    many = client.all(vim.Datacenter)["DC0"].PowerOnMultiVM_Task([new], None)
    client.wait(many)
    assert refused(client, lambda: many.info.result.attempted[0].task) == answer
    lab.post("/host/die", host="esx1", vms="die")  # as fencing does
    client.wait(new.PowerOn())
    assert lab.sha256("db01", 2000) == bytes_were and new.guest.toolsRunningStatus == "guestToolsRunning"
    assert disks_of(snapshot.config)[2000].backing.fileName == "[shared2] db01/db01.vmdk"
    lab.post("/host/back", host="esx1")
    assert new not in list(host(client, "esx1").vm)


def test_unseen_vms_are_there_again_when_the_host_comes_back(lab: VCenter, client: Client) -> None:
    vm = client.vm("web01")
    lab.post("/host/die", host="esx1", vms="run")
    lab.write("web01", 2000, 0, b"\x55" * 512)
    lab.post("/host/back", host="esx1")
    assert (vm.runtime.powerState, vm.runtime.connectionState, vm.guestHeartbeatStatus) == ("poweredOn", "connected", "green")


def test_a_lost_host_can_be_removed_with_its_vms(lab: VCenter, client: Client) -> None:
    esx2 = host(client, "esx2")
    lab.switch("unregister_dead", "refuse")
    lab.post("/host/die", host="esx2", vms="die")
    vm = client.vm("app01")
    folder, pool, path = vm.parent, vm.resourcePool, vm.config.files.vmPathName
    assert refused(client, vm.UnregisterVM) == "InvalidPowerState"
    client.wait(esx2.DisconnectHost_Task())
    client.wait(esx2.Destroy_Task())
    assert "esx2" not in client.all(vim.HostSystem) and "app01" not in client.all(vim.VirtualMachine)
    task = folder.RegisterVM_Task(path, "app01", False, pool, None)
    client.wait(task)
    client.wait(task.info.result.PowerOn())
    assert task.info.result.runtime.host.name in ("esx1", "esx3")


def test_what_registering_refuses(client: Client) -> None:
    vm = client.vm("web02")
    folder, pool, esx6 = vm.parent, vm.resourcePool, host(client, "esx6")
    path = vm.config.files.vmPathName
    client.wait(vm.PowerOff())
    vm.UnregisterVM()

    def register(path: str, name: str | None = None, pool: Any = pool, at: Any = None) -> str:
        return refused(client, lambda: folder.RegisterVM_Task(path, name, False, pool, at))

    assert register("[shared1] web02/other.vmx") == "NotFound" and register("[nowhere] web02/web02.vmx") == "InvalidDatastore"
    assert register("[shared1] web02") == "InvalidDatastorePath" and register(path, pool=None) == "InvalidArgument"
    assert register(path, at=esx6) == "InvalidArgument" and register(path, pool=esx6.parent.resourcePool) == "InvalidDatastore"
    assert register(path, name="web01") == "DuplicateName"
    client.wait(folder.RegisterVM_Task(path, "web03", False, pool, None))
    assert client.vm("web03").config.files.vmPathName == path


def test_maintenance_mode_waits_until_the_vms_are_gone(lab: VCenter, client: Client) -> None:
    esx4, vm = host(client, "esx4"), client.vm("far01")
    assert refused(client, lambda: esx4.EnterMaintenanceMode_Task(1)) == "Timedout" and not esx4.runtime.inMaintenanceMode
    task = esx4.EnterMaintenanceMode_Task(0)
    until(lambda: (task.info.progress or 0) > 0)
    client.wait(vm.PowerOff())
    client.wait(task)
    assert esx4.runtime.inMaintenanceMode and esx4.summary.runtime.inMaintenanceMode
    assert refused(client, vm.PowerOn) == "InvalidState"
    pool = esx4.parent.resourcePool
    other = client.vm("web02")
    assert refused(client, lambda: other.RelocateVM_Task(Spec(host=esx4, pool=pool), LEVEL)) == "InvalidHostState"
    client.wait(esx4.ExitMaintenanceMode_Task(0))
    client.wait(vm.PowerOn())
    assert refused(client, lambda: esx4.ExitMaintenanceMode_Task(0)) == "InvalidState"
    waiting = esx4.EnterMaintenanceMode_Task(0)
    until(lambda: (waiting.info.progress or 0) > 0)
    waiting.CancelTask()
    assert refused(client, lambda: waiting) == "RequestCanceled"
    assert refused(client, lambda: esx4.ShutdownHost_Task(False)) == "InvalidState"
    client.wait(esx4.ShutdownHost_Task(True))
    assert esx4.runtime.connectionState == "notResponding"


def test_a_disconnected_host_goes_on_and_is_reconnected(client: Client) -> None:
    esx4, vm = host(client, "esx4"), client.vm("far01")
    client.wait(esx4.DisconnectHost_Task())
    assert (esx4.runtime.connectionState, vm.runtime.connectionState) == ("disconnected", "disconnected")
    client.wait(esx4.ReconnectHost_Task())
    assert (esx4.runtime.connectionState, vm.runtime.powerState) == ("connected", "poweredOn")


def test_rules_groups_and_switches_of_a_cluster(client: Client) -> None:
    clusters = client.all(vim.ClusterComputeResource)
    config = clusters["C0"].configurationEx
    assert config.drsConfig.enabled and config.drsConfig.defaultVmBehavior == "partiallyAutomated" and not config.dasConfig.enabled
    assert not clusters["C1"].configurationEx.drsConfig.enabled
    rules = {r.name: r for r in config.rule}
    assert {v.name for v in rules["web apart"].vm} == {"web01", "web02"} and isinstance(
        rules["web apart"], vim.cluster.AntiAffinityRuleSpec
    )
    assert rules["licence"].mandatory and rules["licence"].affineHostGroupName == "licensed-hosts"
    assert {h.name for g in config.group if isinstance(g, vim.cluster.HostGroup) for h in g.host} == {"esx1", "esx2"}
    new = vim.cluster.AntiAffinityRuleSpec(name="new", enabled=True, vm=[client.vm("app01"), client.vm("web01")])
    spec = vim.cluster.ConfigSpecEx(
        rulesSpec=[vim.cluster.RuleSpec(operation="add", info=new)], dasConfig=vim.cluster.DasConfigInfo(enabled=True)
    )
    client.wait(clusters["C0"].ReconfigureComputeResource_Task(spec, True))
    config = clusters["C0"].configurationEx
    assert "new" in {r.name for r in config.rule} and config.dasConfig.enabled
    esx1 = host(client, "esx1").summary
    assert (esx1.hardware.vendor, esx1.maxEVCModeKey, esx1.currentEVCModeKey) == ("NEC", "intel-skylake", "intel-broadwell")
    assert (esx1.hardware.memorySize, esx1.hardware.numCpuCores, esx1.hardware.cpuMhz) == (65536 * MIB, 16, 2400)


def test_custom_attributes_are_taken_once_and_tell_of_their_values(client: Client) -> None:
    manager, vm = client.content.customFieldsManager, client.vm("web01")
    field = manager.AddCustomFieldDef("ferry.definition", None)
    with pytest.raises(vim.fault.DuplicateName):
        manager.AddCustomFieldDef("ferry.definition", vim.VirtualMachine)
    won: list[int] = []

    def race() -> None:
        with_own = Client(client.lab)
        try:
            with_own.content.customFieldsManager.AddCustomFieldDef("ferry.lock", vim.VirtualMachine)
            won.append(1)
        except vim.fault.DuplicateName:
            pass
        finally:
            with_own.close()

    racers = [threading.Thread(target=race) for _ in range(6)]
    for r in racers:
        r.start()
    for r in racers:
        r.join()
    assert won == [1]
    collector = client.content.propertyCollector
    prop = vim.PropertySpec(type=vim.VirtualMachine, pathSet=["customValue"])
    one = collector.CreateFilter(vim.PropertyFilterSpec(objectSet=[vim.ObjectSpec(obj=vm)], propSet=[prop]), False)
    version = collector.WaitForUpdatesEx("", None).version
    for target in (vm, host(client, "esx1")):
        manager.SetField(target, field.key, "VM-01")
        assert {(v.key, v.value) for v in target.customValue} >= {(field.key, "VM-01")}
        assert field.key in {f.key for f in target.availableField}
    update = collector.WaitForUpdatesEx(version, vim.PropertyCollector.WaitOptions(maxWaitSeconds=10))
    assert "VM-01" in {v.value for v in update.filterSet[0].objectSet[0].changeSet[0].val}
    one.Destroy()
    manager.RemoveCustomFieldDef(field.key)
    assert field.key not in {v.key for v in vm.customValue}


def test_memory_that_is_reserved_must_be_there(client: Client) -> None:
    vm = client.vm("far01")
    client.wait(vm.PowerOff())
    spec = vim.vm.ConfigSpec(memoryMB=131072, memoryAllocation=vim.ResourceAllocationInfo(reservation=131072))
    client.wait(vm.ReconfigVM_Task(spec))
    assert refused(client, vm.PowerOn) == "InsufficientMemoryResourcesFault"


def test_moves_and_hosts_leave_events(lab: VCenter, client: Client) -> None:
    vm = client.vm("web01")
    client.wait(vm.MigrateVM_Task(None, host(client, "esx2"), LEVEL))
    lab.post("/host/die", host="esx2", vms="die")
    lab.post("/datastore/fill", datastore="shared3", free=10 << 30)
    names = ["HostConnectionLostEvent", "VmMigratedEvent", "VmDisconnectedEvent", "AlarmStatusChangedEvent"]
    events = client.content.eventManager.QueryEvents(vim.event.EventFilterSpec(eventTypeId=names))
    kinds = [type(e).__name__.rpartition(".")[2] for e in events]
    assert set(names) == set(kinds)
    moved = next(e for e in events if isinstance(e, vim.event.VmMigratedEvent))
    assert (moved.sourceHost.name, moved.host.name, moved.vm.vm) == ("esx1", "esx2", vm)
    alarm = next(e for e in events if isinstance(e, vim.event.AlarmStatusChangedEvent))
    assert (alarm.entity.name, alarm.to, store(client, "shared3").overallStatus) == ("shared3", "red", "red")
    of_vm = vim.event.EventFilterSpec.ByEntity(entity=vm, recursion="self")
    mine = client.content.eventManager.QueryEvents(vim.event.EventFilterSpec(entity=of_vm))
    assert mine and {e.vm.vm for e in mine} == {vm}


def test_a_collector_loses_no_event_of_a_storm_and_tells_of_new_ones(lab: VCenter, client: Client) -> None:
    manager = client.content.eventManager
    collector = manager.CreateCollectorForEvents(vim.event.EventFilterSpec(eventTypeId=["GeneralUserEvent"], maxCount=10))
    waiter = client.content.propertyCollector
    prop = vim.PropertySpec(type=vim.event.EventHistoryCollector, pathSet=["latestPage"])
    waiter.CreateFilter(vim.PropertyFilterSpec(objectSet=[vim.ObjectSpec(obj=collector)], propSet=[prop]), False)
    version = waiter.WaitForUpdatesEx("", None).version
    done = lab.post("/events/storm", count=3000, rate=10000)
    assert done["last"] - done["first"] >= 2999
    update = waiter.WaitForUpdatesEx(version, vim.PropertyCollector.WaitOptions(maxWaitSeconds=10))
    assert update.filterSet[0].objectSet[0].changeSet[0].val[0].message.startswith("storm ")
    read: list[str] = []
    while page := collector.ReadNextEvents(700):
        read += [e.message for e in page]
    assert read == [f"storm {i}" for i in range(1, 3001)]
    assert not collector.ReadNextEvents(1)
    assert [e.message for e in collector.latestPage] == [f"storm {i}" for i in range(3000, 2990, -1)]
    collector.ResetCollector()
    assert len(collector.ReadPreviousEvents(5)) == 5
    collector.RewindCollector()
    assert collector.ReadNextEvents(1)[0].message == "storm 1"
    collector.DestroyCollector()


def test_vsphere_ha_restarts_what_it_can_where_the_cluster_has_it(lab: VCenter, client: Client) -> None:
    cluster = client.all(vim.ClusterComputeResource)["C0"]
    spec = vim.cluster.ConfigSpecEx(dasConfig=vim.cluster.DasConfigInfo(enabled=True))
    client.wait(cluster.ReconfigureComputeResource_Task(spec, True))
    lab.switch("ha_restart_seconds", 0.2)
    lab.post("/host/die", host="esx1", vms="die")
    vm, stuck = client.vm("web01"), client.vm("在庫 01 管理")
    until(lambda: vm.runtime.powerState == "poweredOn" and vm.runtime.host.name != "esx1")
    names = ["VmRestartedOnAlternateHostEvent", "VmFailoverFailed", "DasHostFailedEvent"]

    def events() -> set[str]:
        found = client.content.eventManager.QueryEvents(vim.event.EventFilterSpec(eventTypeId=names))
        return {f"{type(e).__name__.rpartition('.')[2]} {e.vm.name if e.vm else ''}" for e in found}

    wanted = {"VmRestartedOnAlternateHostEvent web01", "VmRestartedOnAlternateHostEvent db01", f"VmFailoverFailed {stuck.name}"}
    until(lambda: wanted <= events())
    assert stuck.runtime.connectionState == "disconnected" and vm.runtime.connectionState == "connected"


def test_two_clients_that_wait_at_once_are_both_told(lab: VCenter, client: Client) -> None:
    other = Client(lab)
    try:
        waiting = []
        for one in (client, other):
            vm = one.vm("web01")
            prop = vim.PropertySpec(type=vim.VirtualMachine, pathSet=["runtime.host"])
            spec = vim.PropertyFilterSpec(objectSet=[vim.ObjectSpec(obj=vm)], propSet=[prop])
            collector = one.content.propertyCollector
            collector.CreateFilter(spec, False)
            waiting.append((one, collector, collector.WaitForUpdatesEx("", None).version))
        third = Client(lab)
        third.wait(third.vm("web01").MigrateVM_Task(None, host(third, "esx2"), LEVEL))
        third.close()
        for one, collector, version in waiting:
            update = collector.WaitForUpdatesEx(version, vim.PropertyCollector.WaitOptions(maxWaitSeconds=10))
            assert update.filterSet[0].objectSet[0].changeSet[0].val == host(one, "esx2")
    finally:
        other.close()


def test_a_cdrom_image_and_passthrough_survive_registering(client: Client) -> None:
    for name, kind in (("iso01", vim.vm.device.VirtualCdrom), ("gpu01", vim.vm.device.VirtualPCIPassthrough)):
        vm = client.vm(name)
        client.wait(vm.PowerOff())
        before = [(d.key, d.deviceInfo.summary) for d in vm.config.hardware.device if isinstance(d, kind)]
        folder, pool, path = vm.parent, vm.resourcePool, vm.config.files.vmPathName
        vm.UnregisterVM()
        client.wait(folder.RegisterVM_Task(path, None, False, pool, None))
        again = client.vm(name)
        assert before and [(d.key, d.deviceInfo.summary) for d in again.config.hardware.device if isinstance(d, kind)] == before


def test_mistakes_in_a_models_clusters_are_all_told(tmp_path: Path) -> None:
    rules = [
        {"name": "r", "type": "affinity", "vms": ["nobody"]},
        {"name": "s", "type": "run_on", "vm_group": "g", "host_group": "none"},
        {"name": "t", "type": "near"},
    ]
    cluster = {"name": "C0", "hosts": ["a"], "drs": "maybe", "groups": [{"name": "g", "hosts": ["z"]}], "rules": rules}
    data = {
        "clusters": [cluster],
        "datastores": [{"name": "s"}],
        "networks": [{"name": "n", "hosts": ["y"]}],
        "hardware": {"x": {"cores": 4}, "a": {"colour": "red"}},
    }
    with pytest.raises(LabError) as e:
        model.check(data, tmp_path)
    for part in (
        "r: no VM nobody",
        "no group none",
        "type: 'near'",
        "drs: 'maybe'",
        "g: no host z",
        "no host y",
        "hardware: no host x",
        "colour",
    ):
        assert part in str(e.value)
