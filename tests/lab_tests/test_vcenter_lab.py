# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's vCenter as plain pyvmomi sees it: inventory, power, guest, custom attributes, sessions, faults."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.lab.vcenter import VCenter
from tests.lab_tests.vcenter_lab import JAPANESE, MIB, Client, running, small_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCenter]:
    folder = tmp_path_factory.mktemp("vcenter")
    with running(folder, small_model(folder)) as vcenter:
        yield vcenter


@pytest.fixture
def client(lab: VCenter) -> Iterator[Client]:
    lab.clear()
    one = Client(lab)
    yield one
    lab.clear()
    one.close()


def eventually(what: Any, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return bool(what())


def label(vm: Any, name: str) -> Any:
    return next(d for d in vm.config.hardware.device if d.deviceInfo.label == name)


@pytest.mark.parametrize(("user", "password"), [("administrator@vsphere.local", "wrong"), ("root", None)])
def test_only_the_labs_user_and_password_log_in(lab: VCenter, user: str, password: str | None) -> None:
    with pytest.raises(vim.fault.InvalidLogin):
        Client(lab, user, password)
    gc.collect()  # pyvmomi leaves the socket of a log-in that failed to the garbage collector


def test_nothing_is_read_without_a_session(client: Client) -> None:
    vm = client.vm("plain")
    client.close()
    with pytest.raises(vim.fault.NotAuthenticated):
        print(vm.name)


def test_clusters_hosts_and_networks(client: Client) -> None:
    assert set(client.all(vim.Datacenter)) == {"DC lab"}
    assert set(client.all(vim.ClusterComputeResource)) == {"C0"}
    assert set(client.all(vim.HostSystem)) == {"esx1", "esx2", "esx3"}
    networks = client.all(vim.Network)
    assert {"VM Network", "backend", "dvpg"} <= set(networks)
    assert isinstance(networks["dvpg"], vim.dvs.DistributedVirtualPortgroup)
    assert {h.name for h in networks["backend"].host} == {"esx1", "esx2", "esx3"}
    assert [v.name for v in networks["backend"].vm] == ["plain"]
    for host in client.all(vim.HostSystem).values():
        assert host.runtime.connectionState == "connected"
        assert {"VM Network", "backend"} <= {n.name for n in host.network}


def test_datastores(client: Client) -> None:
    stores = client.all(vim.Datastore)
    assert set(stores) == {"shared", "local1", "nfs 1"}
    shared, local, nfs = stores["shared"], stores["local1"], stores["nfs 1"]
    assert (shared.summary.type, nfs.summary.type) == ("VMFS", "NFS")
    assert isinstance(shared.info, vim.host.VmfsDatastoreInfo)
    assert isinstance(nfs.info, vim.host.NasDatastoreInfo)
    assert {m.key.name for m in shared.host} == {"esx1", "esx2"}
    assert [m.key.name for m in local.host] == ["esx1"]
    assert (shared.summary.multipleHostAccess, local.summary.multipleHostAccess) == (True, False)
    assert (shared.summary.capacity, local.summary.capacity) == (10 << 30, 2 << 30)
    # Thick disks take their capacity, thin ones what they occupy.
    assert local.summary.freeSpace == (2 << 30) - 3 * MIB
    assert (10 << 30) - 60 * MIB < shared.summary.freeSpace < (10 << 30) - 3 * MIB
    assert nfs.summary.freeSpace == 5 << 30
    shared.RefreshDatastore()
    assert shared.summary.capacity == 10 << 30
    assert {v.name for v in local.vm} == {"controllers"}


def test_a_vm_is_as_the_model_says(client: Client) -> None:
    vm = client.vm("plain")
    config = vm.config
    assert (config.instanceUuid, config.uuid) == ("50210a1b-1111-4c6e-9f01-7a1e5b1c0001", "42210a1b-1111-4c6e-9f01-7a1e5b1c0001")
    assert (vm.summary.config.instanceUuid, vm.summary.config.uuid) == (config.instanceUuid, config.uuid)
    assert (config.guestId, config.guestFullName) == ("debian12_64Guest", "Debian GNU/Linux 12 (64-bit)")
    assert (config.firmware, config.bootOptions.efiSecureBootEnabled, config.version) == ("efi", True, "vmx-20")
    assert (config.hardware.numCPU, config.hardware.memoryMB, config.annotation) == (2, 1024, "first line\nsecond line")
    assert (vm.summary.config.numCpu, vm.summary.config.memorySizeMB) == (2, 1024)
    assert (config.template, config.changeTrackingEnabled) == (False, False)
    assert vm.runtime.host.name == "esx1"
    assert (vm.parent.name, vm.parent.parent.name) == ("web", "prod")
    assert config.files.vmPathName == "[shared] plain/plain.vmx"
    assert vm.snapshot is None
    assert (vm.runtime.powerState, vm.guest.toolsRunningStatus, vm.guest.guestState) == ("poweredOn", "guestToolsRunning", "running")
    assert (vm.guest.hostName, vm.guest.ipAddress, vm.summary.guest.ipAddress) == ("plain.example", "192.0.2.5", "192.0.2.5")
    golden = client.vm("golden")
    assert golden.config.template
    assert golden.summary.config.template
    assert golden.resourcePool is None
    index = client.content.searchIndex
    assert index.FindByUuid(None, config.instanceUuid, True, True) == vm
    assert index.FindByUuid(None, config.uuid, True, False) == vm
    assert index.FindByInventoryPath("DC lab/vm/prod/web/plain") == vm
    assert index.FindByInventoryPath(f"DC lab/vm/{JAPANESE}").config.name == JAPANESE


def test_controllers_and_disks(client: Client) -> None:
    vm = client.vm("controllers")
    devices = {d.key: d for d in vm.config.hardware.device}
    found = [
        (d.key, type(devices[d.controllerKey]).__name__.rpartition(".")[2], d.unitNumber)
        for d in devices.values()
        if isinstance(d, vim.vm.device.VirtualDisk)
    ]
    assert found == [
        (2000, "ParaVirtualSCSIController", 0),
        (2016, "VirtualLsiLogicController", 0),
        (2032, "VirtualLsiLogicSASController", 0),
        (2048, "VirtualBusLogicController", 0),
        (3001, "VirtualIDEController", 1),
        (3002, "VirtualIDEController", 0),
        (16002, "VirtualAHCIController", 2),
        (32003, "VirtualNVMEController", 3),
        (2001, "ParaVirtualSCSIController", 1),
    ]
    assert [devices[key].deviceInfo.label for key, _, _ in found] == [f"Hard disk {i}" for i in range(1, 10)]
    assert devices[1001].device == [2016]
    assert (devices[200].device, devices[201].device) == ([3001], [3002])
    last = devices[2001]
    assert last.backing.fileName == "[local1] controllers/controllers_8.vmdk"
    assert (last.backing.eagerlyScrub, last.backing.thinProvisioned) == (True, False)
    assert {d.name for d in vm.datastore} == {"shared", "local1"}
    odd = label(client.vm("plain"), "Hard disk 1")
    assert (odd.capacityInBytes, odd.capacityInKB) == (4 * MIB + 1536, (4 * MIB + 1536) // 1024)
    assert (odd.backing.thinProvisioned, odd.backing.eagerlyScrub, odd.backing.diskMode) == (True, False, "persistent")
    assert isinstance(odd.backing, vim.vm.device.VirtualDisk.FlatVer2BackingInfo)
    assert odd.backing.uuid
    assert odd.backing.datastore.name == "shared"
    assert client.vm(JAPANESE).config.files.vmPathName == f"[nfs 1] {JAPANESE}/{JAPANESE}.vmx"


def test_network_adapters_keep_their_order(client: Client) -> None:
    vm = client.vm("plain")
    nics = [d for d in vm.config.hardware.device if isinstance(d, vim.vm.device.VirtualEthernetCard)]
    assert [(n.key, n.macAddress) for n in nics] == [(4000, "00:50:56:0a:00:22"), (4001, "00:50:56:0a:00:11"), (4002, "00:50:56:0a:00:33")]
    assert [type(n).__name__.rpartition(".")[2] for n in nics] == ["VirtualVmxnet3", "VirtualE1000e", "VirtualE1000"]
    assert [n.deviceInfo.label for n in nics] == [f"Network adapter {i}" for i in (1, 2, 3)]
    assert nics[1].backing.network.name == nics[1].backing.deviceName == "backend"
    assert nics[2].backing.port.portgroupKey == client.all(vim.Network)["dvpg"].key
    assert all(n.connectable.connected and n.connectable.startConnected for n in nics)


@pytest.mark.parametrize("kind", [vim.VirtualMachine, vim.HostSystem, vim.Datastore, vim.Network, vim.ClusterComputeResource, vim.Folder])
def test_pyvmomi_reads_every_property(client: Client, kind: Any) -> None:
    """Also unset ones, one by one: an empty enumeration or an answer of the wrong kind would raise."""
    for obj in client.all(kind).values():
        for prop in obj._GetPropertyList():
            with contextlib.suppress(vmodl.fault.MethodNotFound):  # of a later version than this vCenter's
                getattr(obj, prop.name)
    spec = vmodl.query.PropertyCollector.FilterSpec(
        objectSet=[vmodl.query.PropertyCollector.ObjectSpec(obj=o) for o in client.all(kind).values()],
        propSet=[vmodl.query.PropertyCollector.PropertySpec(type=kind, all=True)],
    )
    result = client.content.propertyCollector.RetrievePropertiesEx([spec], vmodl.query.PropertyCollector.RetrieveOptions())
    assert len(result.objects) == len(client.all(kind))


def test_storage_figures(client: Client) -> None:
    vm = client.vm("plain")
    vm.RefreshStorageInfo()
    occupied = vm.summary.storage.committed
    assert MIB < occupied < 2 * MIB
    assert vm.summary.storage.uncommitted == pytest.approx(4 * MIB + 1536 - occupied, abs=16384)
    assert {f.type for f in vm.layoutEx.file} >= {"config", "diskDescriptor", "diskExtent"}


def test_custom_attributes(client: Client) -> None:
    manager = client.content.customFieldsManager
    fields = {f.name: f.key for f in manager.field}
    vm = client.vm("plain")
    assert {v.key: v.value for v in vm.customValue} == {fields["owner"]: "web team", fields["window"]: "Sunday"}
    with pytest.raises(vim.fault.DuplicateName):
        manager.AddCustomFieldDef("owner", vim.VirtualMachine)
    lease = manager.AddCustomFieldDef("ferry.lease", vim.VirtualMachine)
    manager.SetField(vm, lease.key, "me")
    assert next(v.value for v in vm.customValue if v.key == lease.key) == "me"
    manager.RemoveCustomFieldDef(lease.key)
    assert lease.key not in {v.key for v in vm.customValue}


def test_reconfigure(client: Client) -> None:
    vm = client.vm("controllers")
    client.wait(vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="new", changeTrackingEnabled=True)))
    assert (vm.config.annotation, vm.config.changeTrackingEnabled) == ("new", True)
    nic = label(client.vm("plain"), "Network adapter 2")
    nic.connectable.connected = nic.connectable.startConnected = False
    change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=nic)
    client.wait(client.vm("plain").ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))
    after = label(client.vm("plain"), "Network adapter 2")
    assert (after.key, after.macAddress, after.connectable.connected) == (4001, "00:50:56:0a:00:11", False)


def test_shutdown_takes_its_time_and_the_guest_follows(client: Client) -> None:
    vm = client.vm("plain")
    started = time.monotonic()
    vm.ShutdownGuest()
    assert vm.runtime.powerState == "poweredOn"
    assert eventually(lambda: vm.runtime.powerState == "poweredOff")
    assert time.monotonic() - started >= 0.25
    assert (vm.guest.toolsRunningStatus, vm.guest.guestState, vm.guest.ipAddress) == ("guestToolsNotRunning", "notRunning", None)
    assert (vm.summary.guest.toolsRunningStatus, vm.runtime.bootTime) == ("guestToolsNotRunning", None)
    with pytest.raises(vim.fault.InvalidPowerState):
        vm.ShutdownGuest()
    client.wait(vm.PowerOnVM_Task())
    assert (vm.guest.toolsRunningStatus, vm.guest.ipAddress) == ("guestToolsRunning", "192.0.2.5")


def test_a_guest_may_hang_or_have_no_tools(client: Client) -> None:
    hung = client.vm("hung")
    hung.ShutdownGuest()
    with pytest.raises(vim.fault.ToolsUnavailable):
        client.vm("toolless").ShutdownGuest()
    plain = client.vm("plain")
    client.lab.fault("shutdown_hang", match="plain")
    plain.ShutdownGuest()
    time.sleep(1.0)
    assert (hung.runtime.powerState, plain.runtime.powerState) == ("poweredOn", "poweredOn")
    plain.ShutdownGuest()  # the fault was for once
    assert eventually(lambda: plain.runtime.powerState == "poweredOff")
    client.wait(plain.PowerOnVM_Task())


def test_power_operations(client: Client) -> None:
    vm = client.vm("hung")
    with pytest.raises(vim.fault.InvalidPowerState):
        client.wait(vm.PowerOnVM_Task())
    client.wait(vm.SuspendVM_Task())
    assert (vm.runtime.powerState, vm.guest.toolsRunningStatus) == ("suspended", "guestToolsNotRunning")
    client.wait(vm.PowerOnVM_Task())
    before = vm.runtime.bootTime
    task = vm.ResetVM_Task()
    client.wait(task)
    assert (task.info.name.info.wsdlName, task.info.entityName, task.info.descriptionId) == ("ResetVM_Task", "hung", "VirtualMachine.reset")
    assert (vm.runtime.powerState, vm.guest.toolsRunningStatus) == ("poweredOn", "guestToolsRunning")
    assert vm.runtime.bootTime > before
    client.wait(vm.PowerOffVM_Task())
    assert vm.runtime.powerState == "poweredOff"
    client.wait(vm.PowerOnVM_Task())


def test_an_old_shutdown_does_not_stop_a_vm_that_was_started_anew(client: Client) -> None:
    vm = client.vm("plain")
    vm.ShutdownGuest()
    client.wait(vm.PowerOffVM_Task())
    client.wait(vm.PowerOnVM_Task())
    time.sleep(0.6)
    assert vm.runtime.powerState == "poweredOn"


def test_a_destroyed_vm_is_gone_for_every_session(client: Client) -> None:
    folder, pool = client.vm("plain").parent, client.vm("plain").resourcePool
    spec = vim.vm.ConfigSpec(name="passing", guestId="otherGuest", files=vim.vm.FileInfo(vmPathName="[shared]"))
    made = client.wait(folder.CreateVM_Task(spec, pool, client.all(vim.HostSystem)["esx1"]))
    assert made == "success"
    other = Client(client.lab)
    vm, seen = client.vm("passing"), other.vm("passing")
    assert seen.name == "passing"
    client.wait(vm.Destroy_Task())
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        print(seen.name)
    other.close()


def test_a_vm_is_not_made_where_its_host_has_no_such_datastore(client: Client) -> None:
    plain, hosts = client.vm("plain"), client.all(vim.HostSystem)
    for path, host in (("[local1]", "esx2"), ("[nowhere]", "esx1"), ("[nowhere]", None)):
        spec = vim.vm.ConfigSpec(name="lost", guestId="otherGuest", files=vim.vm.FileInfo(vmPathName=path))
        with pytest.raises(vim.fault.InvalidDatastore):
            plain.parent.CreateVM_Task(spec, plain.resourcePool, hosts[host] if host else None)


def test_sessions_end_on_demand(client: Client) -> None:
    vm = client.vm("plain")
    assert client.lab.fault("session_expire")["expired"] >= 1
    with pytest.raises(vim.fault.NotAuthenticated):
        print(vm.name)
    with pytest.raises(vim.fault.NotAuthenticated):
        vm.PowerOffVM_Task()
    assert not client.logged_in
    other = Client(client.lab)
    assert other.vm("plain").name == "plain"
    other.close()


def test_soap_faults(client: Client) -> None:
    vm = client.vm("controllers")
    client.lab.fault("soap_fault", match="ReconfigVM_Task controllers", fault="TaskInProgress")
    with pytest.raises(vim.fault.TaskInProgress):
        vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="x"))
    client.wait(vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="x")))
    client.lab.fault("soap_down", status=503, times=2)
    for _ in range(2):
        with pytest.raises(Exception, match="503"):  # pyvmomi raises http.client's own
            vm.Reload()
    vm.Reload()


def test_updates_are_told(client: Client) -> None:
    vm = client.vm("plain")
    collector = client.content.propertyCollector
    spec = vmodl.query.PropertyCollector.FilterSpec(
        objectSet=[vmodl.query.PropertyCollector.ObjectSpec(obj=vm)],
        propSet=[vmodl.query.PropertyCollector.PropertySpec(type=vim.VirtualMachine, pathSet=["runtime.powerState"])],
    )
    collector.CreateFilter(spec, True)
    version = collector.WaitForUpdatesEx("", vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=5)).version
    vm.ShutdownGuest()
    update = collector.WaitForUpdatesEx(version, vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=5))
    assert update.filterSet[0].objectSet[0].changeSet[0].val == "poweredOff"
    client.wait(vm.PowerOnVM_Task())


def test_state_and_stats(client: Client) -> None:
    vms = {v["name"]: v for v in client.lab.get("/state")["vms"]}
    assert vms[JAPANESE]["disks"][0]["key"] == 3000
    assert Path(vms[JAPANESE]["disks"][0]["local"]).stat().st_size == 3 * MIB
    client.vm("plain").Reload()
    assert client.lab.get("/stats")["methods"]["Reload"] == 1
