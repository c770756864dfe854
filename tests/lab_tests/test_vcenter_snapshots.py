# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of the lab's vCenter freeze bytes in real delta files; consolidation takes its time; the guest goes on writing."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk
from tests.lab.common import LabError
from tests.lab.vcenter import USER, VCenter, build, writer
from tests.lab_tests.vcenter_lab import MIB, Client, disks_of, running, warm_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FIRST, SECOND = 2000, 2016
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def lab(folder: Path) -> Iterator[VCenter]:
    with running(folder, warm_model(folder)) as vcenter:
        yield vcenter


@pytest.fixture
def client(lab: VCenter) -> Iterator[Client]:
    one = Client(lab)
    yield one
    one.close()


def scribble(lab: VCenter, vm: str, disk: int, seed: int, writes: int = 30) -> None:
    """Writes of the guest, of odd sectors, some of them zeroes."""
    source = random.Random(seed)
    for i in range(writes):
        length = 512 * source.randint(1, 150)
        lab.write(vm, disk, 512 * source.randrange(4 * MIB // 512), bytes(length) if i % 5 == 0 else source.randbytes(length))


def descriptor(lab: VCenter, vm: str, snapshot: int, disk: int = 0) -> Path:
    """The descriptor of a snapshot's disk on the lab's disk."""
    extent = lab.snapshots(vm)[snapshot]["disks"][disk]["local"][0]
    for end in ("-flat", "-delta", "-sesparse"):
        extent = extent.replace(f"{end}.vmdk", ".vmdk")
    return Path(extent)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def qemu(path: Path, into: Path) -> bytes:
    """The bytes as qemu-img reads them: a reader that is not ours."""
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(path), str(into)], check=True, capture_output=True, timeout=60)
    return into.read_bytes()


def test_a_snapshot_freezes_and_the_guest_goes_on(lab: VCenter, client: Client, folder: Path) -> None:
    vm = client.vm("db")
    scribble(lab, "db", FIRST, 1)
    before = lab.disk("db", FIRST)
    snapshot = client.snapshot(vm, "one")
    assert client.file("db/db.vmdk").status == client.file("db/db-flat.vmdk").status == 200
    scribble(lab, "db", FIRST, 2)
    assert lab.disk("db", FIRST) != before
    assert lab.disk("db", FIRST, "one") == before == client.file("db/db-flat.vmdk").body
    assert client.file("db/db-000001-sesparse.vmdk").status == 500  # the running VM has it locked
    assert disks_of(snapshot.config)[FIRST].backing.fileName == "[shared] db/db.vmdk"
    live = disks_of(vm.config)[FIRST].backing
    assert (live.fileName, live.parent.fileName, live.deltaDiskFormat) == (
        "[shared] db/db-000001.vmdk",
        "[shared] db/db.vmdk",
        "seSparseFormat",
    )
    assert {d.backing.fileName for d in disks_of(vm.config).values()} == {"[shared] db/db-000001.vmdk", "[shared] db/db_1-000001.vmdk"}
    assert (folder / "first.raw").read_bytes()[: 4 * MIB] != before[: 4 * MIB]


def test_the_models_files_are_never_written(lab: VCenter, client: Client, folder: Path) -> None:
    raw = {name: (folder / f"{name}.raw").read_bytes() for name in ("first", "second")}
    for vm in ("db", "plain"):
        scribble(lab, vm, FIRST, 3)
    client.wait(client.vm("db").CreateSnapshot_Task("one", "", False, False))
    scribble(lab, "db", FIRST, 4)
    client.wait(client.vm("db").RemoveAllSnapshots_Task())
    assert lab.disk("db", FIRST) != raw["first"]
    assert all((folder / f"{name}.raw").read_bytes() == data for name, data in raw.items())


@pytest.mark.parametrize(("vm", "extent"), [("db", "sesparse"), ("old", "delta"), ("onnfs", "delta")])
def test_nested_deltas_are_read_by_two_readers(lab: VCenter, client: Client, folder: Path, vm: str, extent: str) -> None:
    found = client.vm(vm)
    for i in range(3):
        scribble(lab, vm, FIRST, 10 + i)
        client.snapshot(found, f"s{i}")
    scribble(lab, vm, FIRST, 20)
    client.wait(found.PowerOffVM_Task())
    for i in range(3):
        expected = lab.disk(vm, FIRST, f"s{i}")
        path = descriptor(lab, vm, i)
        assert [f"-{extent}.vmdk" in name for name in lab.snapshots(vm)[i]["disks"][0]["files"]] == [True] * i + [False]
        with open_disk(str(path)) as disk:
            assert disk.read(0, disk.capacity) == expected
        if i:
            assert qemu(path, folder / "qemu.raw") == expected
    with open_disk(str(descriptor(lab, vm, 0).with_name(f"{vm}-000003.vmdk"))) as disk:  # the top: the VM is off
        assert disk.read(0, disk.capacity) == lab.disk(vm, FIRST)


def test_a_disk_of_two_terabytes_gets_sesparse_on_vmfs_5(lab: VCenter, client: Client) -> None:
    vm = client.vm("big")
    client.snapshot(vm, "one")
    data = random.Random(1).randbytes(MIB)
    lab.write("big", FIRST, (2 << 40) - 3 * MIB, data)
    client.snapshot(vm, "two")
    with open_disk(str(descriptor(lab, "big", 1))) as disk:
        assert disk.capacity == 2 << 40
        assert disk.read((2 << 40) - 3 * MIB, MIB) == data
        assert not any(disk.read(1 << 40, MIB))


def test_a_live_copy_differs_from_the_snapshot_and_the_log_tells_how(lab: VCenter, client: Client, folder: Path) -> None:
    log = folder / "writes.jsonl"
    argv = [sys.executable, "-m", "tests.lab.vcenter.writer", "--vm", "db", "--seed", "5", "--rate", "0", "--log", str(log)]
    process = subprocess.Popen([*argv, "--control", lab.control], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        vm = client.vm("db")
        for i in range(3):
            seen = lab.ask("/guest", vm="db")["count"]
            while lab.ask("/guest", vm="db")["count"] < seen + 40:
                time.sleep(0.01)  # until the guest has written more
            client.snapshot(vm, f"s{i}")
        client.wait(vm.snapshot.rootSnapshotList[0].snapshot.RemoveSnapshot_Task(False))
        client.wait(vm.PowerOffVM_Task())
        assert process.wait(30) == 0  # it stops by itself
    finally:
        process.kill()
        process.wait()
    still = lab.sha256("db", FIRST)
    found = lab.snapshots("db")
    assert [s["name"] for s in found] == ["s1", "s2"]
    image = folder / "image.raw"
    for key, raw in ((FIRST, "first"), (SECOND, "second")):
        for i, snapshot in enumerate(found):
            shutil.copy(folder / f"{raw}.raw", image)
            assert writer.replay(image, log, snapshot["sequence"], key) == snapshot["disks"][key == SECOND]["writes"] > 0, i
            assert digest(image.read_bytes()) == lab.sha256("db", key, snapshot["moref"]) != lab.sha256("db", key)
        shutil.copy(folder / f"{raw}.raw", image)
        writer.replay(image, log, None, key)
        assert digest(image.read_bytes()) == lab.sha256("db", key)
    with pytest.raises(LabError, match="does not run"):
        lab.write("db", FIRST, 0, bytes(512))
    assert lab.sha256("db", FIRST) == still


def test_consolidation_takes_its_time_while_the_guest_writes(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    snapshot = client.snapshot(vm, "one")
    expected = bytearray(lab.disk("db", FIRST))
    source = random.Random(6)
    for i in range(60):
        data = source.randbytes(65536)
        lab.write("db", FIRST, i * 65536, data)
        expected[i * 65536 : (i + 1) * 65536] = data
    lab.switch("consolidate_seconds", 2)
    task = snapshot.RemoveSnapshot_Task(False)
    with pytest.raises(vim.fault.TaskInProgress):
        vm.CreateSnapshot_Task("two", "", False, False)
    seen, writes = set(), 0
    while task.info.state in ("queued", "running"):
        seen.add(task.info.progress)
        at, data = 512 * source.randrange(8 * MIB // 512), source.randbytes(512)
        lab.write("db", FIRST, at, data)
        expected[at : at + 512] = data
        writes += 1
    assert (task.info.state, task.info.entityName, vm.runtime.consolidationNeeded) == ("success", "db", False)
    assert len(seen) > 3
    assert writes > 3
    assert lab.disk("db", FIRST) == bytes(expected)
    assert disks_of(vm.config)[FIRST].backing.fileName == "[shared] db/db.vmdk"
    assert client.file("db/db-000001.vmdk").status == client.file("db/db-000001-sesparse.vmdk").status == 404
    assert client.file("db/db-flat.vmdk").status == 500
    client.wait(vm.PowerOffVM_Task())
    assert client.file("db/db-flat.vmdk").body == bytes(expected)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_of_nested_snapshots_can_be_removed(lab: VCenter, client: Client, which: int) -> None:
    vm = client.vm("old")
    taken = []
    for i in range(3):
        scribble(lab, "old", FIRST, 30 + i)
        taken.append(client.snapshot(vm, f"s{i}"))
    scribble(lab, "old", FIRST, 40)
    expected = {name: lab.sha256("old", FIRST, name) for name in ("", "s0", "s1", "s2")}
    client.wait(taken[which].RemoveSnapshot_Task(False))
    left = [n for n in ("s0", "s1", "s2") if n != f"s{which}"]
    assert [s["name"] for s in lab.snapshots("old")] == left
    assert {name: lab.sha256("old", FIRST, name) for name in ("", *left)} == {name: expected[name] for name in ("", *left)}
    tree = vm.snapshot.rootSnapshotList
    assert [tree[0].name, tree[0].childSnapshotList[0].name] == left
    assert vm.snapshot.currentSnapshot == (taken[1] if which == 2 else taken[2])
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        taken[which].RemoveSnapshot_Task(False)
    for i, name in enumerate(left):  # the chains' descriptors were put right
        with open_disk(str(descriptor(lab, "old", i))) as disk:
            assert digest(disk.read(0, disk.capacity)) == expected[name]
    client.wait(vm.snapshot.rootSnapshotList[0].snapshot.RemoveSnapshot_Task(True))
    assert vm.snapshot is None
    assert lab.sha256("old", FIRST) == expected[""]
    assert "00000" not in client.file("old", ds="vmfs5").body.decode()


def test_revert_brings_the_bytes_back_and_the_tree_can_branch(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    scribble(lab, "db", FIRST, 50)
    first = client.snapshot(vm, "one")
    scribble(lab, "db", FIRST, 51)
    client.snapshot(vm, "two")
    one, two = lab.sha256("db", FIRST, "one"), lab.sha256("db", FIRST, "two")
    scribble(lab, "db", FIRST, 52)
    client.wait(first.RevertToSnapshot_Task())
    assert (vm.runtime.powerState, vm.snapshot.currentSnapshot, lab.sha256("db", FIRST)) == ("poweredOff", first, one)
    client.wait(vm.PowerOnVM_Task())
    scribble(lab, "db", FIRST, 53)
    client.snapshot(vm, "three")
    three = lab.sha256("db", FIRST, "three")
    assert {t.name for t in vm.snapshot.rootSnapshotList[0].childSnapshotList} == {"two", "three"}
    assert (lab.sha256("db", FIRST, "one"), lab.sha256("db", FIRST, "two")) == (one, two)
    client.wait(first.RemoveSnapshot_Task(False))  # both branches still need its bytes
    assert (lab.sha256("db", FIRST, "two"), lab.sha256("db", FIRST, "three")) == (two, three)
    assert {t.name for t in vm.snapshot.rootSnapshotList} == {"two", "three"}
    client.wait(vm.RemoveAllSnapshots_Task())
    assert lab.sha256("db", FIRST) == three
    assert disks_of(vm.config)[FIRST].backing.parent is None


def test_without_consolidation_the_deltas_stay(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    snapshot = client.snapshot(vm, "one")
    scribble(lab, "db", FIRST, 60)
    now = lab.sha256("db", FIRST)
    client.wait(snapshot.RemoveSnapshot_Task(False, False))
    assert (vm.snapshot, vm.runtime.consolidationNeeded) == (None, True)
    assert disks_of(vm.config)[FIRST].backing.parent is not None
    lab.fault("consolidate_fail", match="db")
    with pytest.raises(vim.fault.FileLocked, match="locked"):
        client.wait(vm.ConsolidateVMDisks_Task())
    client.wait(vm.ConsolidateVMDisks_Task())
    assert (vm.runtime.consolidationNeeded, disks_of(vm.config)[FIRST].backing.parent, lab.sha256("db", FIRST)) == (False, None, now)


def test_tasks_that_fail(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    lab.fault("snapshot_create_fail", match="db")
    with pytest.raises(vim.fault.SnapshotFault):
        client.snapshot(vm, "one")
    assert vm.snapshot is None
    snapshot = client.snapshot(vm, "one")
    lab.fault("snapshot_remove_fail", match="db", fault="GenericVmConfigFault")
    with pytest.raises(vim.fault.GenericVmConfigFault):
        client.wait(snapshot.RemoveSnapshot_Task(False))
    assert vm.snapshot.currentSnapshot == snapshot
    lab.fault("consolidate_fail", match="db")
    with pytest.raises(vim.fault.FileLocked):
        client.wait(snapshot.RemoveSnapshot_Task(False))
    assert (vm.snapshot, vm.runtime.consolidationNeeded) == (None, True)


def test_quiescing(lab: VCenter, client: Client) -> None:
    assert client.snapshot(client.vm("db"), "quiet", quiesce=True) is not None
    assert client.vm("db").snapshot.rootSnapshotList[0].quiesced
    with pytest.raises(vim.fault.FilesystemQuiesceFault, match="quiescing"):
        client.snapshot(client.vm("onnfs"), "no tools", quiesce=True)
    lab.fault("quiesce_fail", match="db")
    with pytest.raises(vim.fault.ApplicationQuiesceFault):
        client.snapshot(client.vm("db"), "busy", quiesce=True)
    spec = vim.vm.GuestQuiesceSpec(timeout=5)
    client.wait(client.vm("db").CreateSnapshotEx_Task("ex", None, False, spec))


def test_independent_disks_and_raw_mappings_are_left_out(lab: VCenter, client: Client) -> None:
    vm = client.vm("plain")
    client.snapshot(vm, "one")
    assert [d["key"] for d in lab.snapshots("plain")[0]["disks"]] == [FIRST]
    backings = [d.backing for d in disks_of(vm.config).values()]
    assert [getattr(b, "parent", None) is not None for b in backings] == [True, False, False]
    assert (backings[2].compatibilityMode, type(backings[2]).__name__.rpartition(".")[2]) == (
        "physicalMode",
        "RawDiskMappingVer1BackingInfo",
    )
    lab.write("plain", 2001, 0, bytes(512))


def test_a_vm_without_bytes_has_snapshots_too(lab: VCenter, client: Client) -> None:
    vm = client.vm("bulk0000")
    snapshot = client.snapshot(vm, "one")
    client.snapshot(vm, "two")
    client.wait(snapshot.RemoveSnapshot_Task(False))
    client.wait(vm.RemoveAllSnapshots_Task())
    assert (vm.snapshot, vm.runtime.consolidationNeeded) == (None, False)


def test_frozen_deltas_have_the_faults_of_files(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    client.snapshot(vm, "one")
    scribble(lab, "db", FIRST, 70)
    client.snapshot(vm, "two")
    lab.fault("folder_status", match="-sesparse.vmdk", status=503)
    assert client.file("db/db-000001-sesparse.vmdk").status == 503
    answer = client.file("db/db-000001-sesparse.vmdk", Range="bytes=0-511")
    assert (answer.status, int.from_bytes(answer.body[:8], "little")) == (206, 0xCAFEBABE)
    assert lab.get("/stats")["files"]["[shared] db/db-000001-sesparse.vmdk"]["bytes"] >= 512


def test_a_restart_of_vcenter_keeps_the_state(lab: VCenter, client: Client) -> None:
    vm = client.vm("db")
    client.snapshot(vm, "one")
    lab.restart(0.5)
    with pytest.raises((OSError, vim.fault.NotAuthenticated)):
        client.vm("db")
    lab.write("db", FIRST, 0, b"\1" * 512)  # the VMs go on
    end = time.monotonic() + 10
    while True:
        try:
            again = Client(lab)
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)  # vCenter is away
    assert again.vm("db").snapshot.rootSnapshotList[0].name == "one"
    again.close()


def test_esxi_says_its_version_and_build(lab: VCenter, client: Client) -> None:
    def said() -> dict[str, Any]:
        return {n: (h.config.product.version, h.summary.config.product.build) for n, h in client.all(vim.HostSystem).items()}

    assert said() == {"esx1": ("7.0.3", "21930508"), "esx2": ("6.0.0", "2494585")}
    lab.post("/host", name="esx1", version="8.0.2", build="22380479")
    assert said()["esx1"] == ("8.0.2", "22380479")


def test_govc_takes_and_removes_a_snapshot(lab: VCenter, client: Client, folder: Path) -> None:
    env = {
        "HOME": str(folder),
        "GOVC_URL": f"https://127.0.0.1:{lab.port}",
        "GOVC_USERNAME": USER,
        "GOVC_PASSWORD": lab.place.password(),
        "GOVC_TLS_CA_CERTS": str(lab.place.state / "ca.pem"),
        "GOVC_PERSIST_SESSION": "false",
    }

    def govc(*args: str) -> str:
        done = subprocess.run([str(build("./govc", "govc")), *args], env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    govc("snapshot.create", "-vm", "db", "-m=false", "one")
    scribble(lab, "db", FIRST, 80)
    now = lab.sha256("db", FIRST)
    assert "one" in govc("snapshot.tree", "-vm", "db").split()
    govc("datastore.download", "-ds", "shared", "db/db-flat.vmdk", str(folder / "flat"))
    assert (folder / "flat").read_bytes() == lab.disk("db", FIRST, "one")
    govc("snapshot.remove", "-vm", "db", "one")
    assert (client.vm("db").snapshot, lab.sha256("db", FIRST)) == (None, now)
