# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NFC leases of the lab's vCenter: streams of powered-off VMs and of snapshots, their time-outs and locks."""

from __future__ import annotations

import hashlib
import http.client
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk
from tests.lab.vcenter import VCenter
from tests.lab_tests.vcenter_lab import MIB, Client, running, warm_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FIRST, SECOND = 2000, 2016


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[VCenter]:
    with running(tmp_path, warm_model(tmp_path)) as vcenter:
        yield vcenter


@pytest.fixture
def client(lab: VCenter) -> Iterator[Client]:
    one = Client(lab)
    yield one
    one.close()


def wait_for(lease: Any, state: str) -> Any:
    end = time.monotonic() + 20
    while lease.state != state:
        assert time.monotonic() < end, lease.state
        time.sleep(0.01)  # until the lab has got there
    return lease


def scribble(lab: VCenter, seed: int) -> None:
    source = random.Random(seed)
    for i in range(30):
        length = 512 * source.randint(1, 300)
        lab.write("db", FIRST, 512 * source.randrange(6 * MIB // 512), bytes(length) if i % 4 == 0 else source.randbytes(length))


def test_a_snapshot_is_streamed(lab: VCenter, client: Client, tmp_path: Path) -> None:
    vm = client.vm("db")
    for i in range(2):
        scribble(lab, i)
        client.snapshot(vm, f"s{i}")
    scribble(lab, 2)
    second = vm.snapshot.currentSnapshot
    lease = second.ExportSnapshot()
    wait_for(lease, "ready")
    urls = lease.info.deviceUrl
    assert (lease.info.entity, lease.info.leaseTimeout, lease.info.totalDiskCapacityInKB) == (vm, 300, (13 * MIB + 1536) // 1024)
    assert [(u.disk, u.targetId, u.key.rpartition("/")[2]) for u in urls] == [
        (True, "disk-0.vmdk", "ParaVirtualSCSIController0:0"),
        (True, "disk-1.vmdk", "VirtualLsiLogicSASController1:0"),
        (False, "db.nvram", "nvram"),
    ]
    assert all(u.url.startswith("https://*/nfc/") for u in urls)
    for url, key in zip(urls[:2], (FIRST, SECOND), strict=True):
        data = client.stream(url.url)
        expected = lab.disk("db", key, "s1")
        path = tmp_path / url.targetId
        path.write_bytes(data)
        with open_disk(str(path)) as disk:
            assert disk.read(0, disk.capacity) == expected
        raw = tmp_path / "raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", str(path), str(raw)], check=True, capture_output=True, timeout=60)
        assert raw.read_bytes() == expected
        entry = next(e for e in lease.HttpNfcLeaseGetManifest() if e.key == url.key)
        assert (entry.sha1, entry.size) == (hashlib.sha1(data).hexdigest(), len(data))
    lease.HttpNfcLeaseProgress(100)
    lease.HttpNfcLeaseComplete()
    wait_for(lease, "done")
    with pytest.raises(OSError, match="404"):
        client.stream(urls[0].url)


def test_a_vm_that_runs_is_not_exported_and_one_that_is_exported_does_not_start(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    with pytest.raises(vim.fault.InvalidPowerState):
        vm.ExportVm()
    client.wait(vm.PowerOffVM_Task())
    lease = wait_for(vm.ExportVm(), "ready")
    for refused in (vm.PowerOnVM_Task, vm.ExportVm, lambda: vm.CreateSnapshot_Task("one", "", False, False)):
        with pytest.raises(vim.fault.TaskInProgress):
            refused()
    assert client.stream(lease.info.deviceUrl[0].url)[:4] == b"KDMV"
    lease.HttpNfcLeaseAbort()
    wait_for(lease, "error")
    client.wait(vm.PowerOnVM_Task())


def test_a_lease_without_progress_ends_and_its_stream_is_cut(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    scribble(lab, 1)
    snapshot = client.snapshot(vm, "one")
    lab.switch("nfc_timeout", 2)
    lab.switch("nfc_rate", 200_000)
    lease = wait_for(snapshot.ExportSnapshot(), "ready")
    assert lease.info.leaseTimeout == 2
    with pytest.raises(http.client.IncompleteRead):
        client.stream(lease.info.deviceUrl[0].url)
    wait_for(lease, "error")
    assert isinstance(lease.error, vim.fault.Timedout)
    with pytest.raises(vim.fault.Timedout):
        lease.HttpNfcLeaseProgress(50)
    wait_for(snapshot.ExportSnapshot(), "ready")  # the VM is free again


def test_progress_keeps_a_lease_alive(lab: VCenter, client: Client) -> None:
    snapshot = client.snapshot(client.vm("db"), "one")
    lab.switch("nfc_timeout", 2)
    lease = wait_for(snapshot.ExportSnapshot(), "ready")
    end = time.monotonic() + 3.5
    while time.monotonic() < end:
        lease.HttpNfcLeaseProgress(10)
        time.sleep(0.2)  # well within the lease's two seconds
    assert lease.state == "ready"


def test_a_leased_snapshot_is_not_consolidated(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    snapshot = client.snapshot(vm, "one")
    expected = lab.disk("db", FIRST, "one")
    lease = wait_for(snapshot.ExportSnapshot(), "ready")
    scribble(lab, 3)
    with pytest.raises(vim.fault.FileLocked):
        client.wait(snapshot.RemoveSnapshot_Task(False))
    assert (vm.snapshot, vm.runtime.consolidationNeeded) == (None, True)
    assert len(client.stream(lease.info.deviceUrl[0].url)) > MIB
    assert client.file("db/db-flat.vmdk").body == expected
    lease.HttpNfcLeaseComplete()
    client.wait(vm.ConsolidateVMDisks_Task())
    assert vm.runtime.consolidationNeeded is False


def test_a_host_has_so_many_leases(lab: VCenter, client: Client) -> None:
    lab.switch("nfc_max", 1)
    leases = [client.snapshot(client.vm(name), "one").ExportSnapshot() for name in ("db", "onnfs")]
    for lease in leases:
        wait_for(lease, "ready")  # on different hosts
    third = wait_for(client.snapshot(client.vm("old"), "one").ExportSnapshot(), "error")
    assert isinstance(third.error, vim.fault.InsufficientHostCapacityFault)
    leases[0].HttpNfcLeaseComplete()
    wait_for(client.vm("old").snapshot.currentSnapshot.ExportSnapshot(), "ready")


def test_a_stream_that_is_cut_and_a_lease_that_fails(lab: VCenter, client: Client) -> None:
    snapshot = client.snapshot(client.vm("db"), "one")
    lease = wait_for(snapshot.ExportSnapshot(), "ready")
    lab.fault("folder_cut", match="/nfc/", after_bytes=300_000)
    with pytest.raises(http.client.IncompleteRead):
        client.stream(lease.info.deviceUrl[0].url)
    assert lab.get("/stats")["files"]["[nfc] db/disk-0.vmdk"] == {"bytes": 300_000, "requests": 1}
    assert len(client.stream(lease.info.deviceUrl[0].url)) > 300_000
    lease.HttpNfcLeaseComplete()
    lab.fault("nfc_error", match="db")
    assert isinstance(wait_for(snapshot.ExportSnapshot(), "error").error, vim.fault.HostConnectFault)
