# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a copy of a VM survives: kills, a vCenter that goes away, cut connections, full targets; and by which ways disks are read."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.nbdkit import Nbdkit
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, FerryError
from tests.lab_tests.copy_lab import JAPANESE, Lab, lab_of

MIB = 1 << 20
#: Slow enough to be interrupted, on any machine.
SLOW = {"overall": {"rate": 12}}
FREE = {"overall": {}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_of(tmp_path_factory.mktemp("lab")) as found:
        yield found


@pytest.fixture(autouse=True)
def fresh(lab: Lab, tmp_path: Path) -> Iterator[None]:
    lab.vcenter.clear()
    lab.folder = tmp_path
    yield
    lab.vcenter.clear()


def written(lab: Lab, vm: str) -> int:
    """Bytes that the target occupies."""
    target = lab.target(vm)
    return target.stat().st_blocks * 512 if target.exists() else 0


@pytest.mark.fault(
    "SIGKILL of the copy of a running VM, in the first copy and in a delta",
    where="copy",
    ends="the next run removes the snapshot, takes another, reads the rest (at most workers x chunk again) and what has changed: equal",
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_and_run_again(lab: Lab, seed: int) -> None:
    source = random.Random(seed)
    lab.track("large")
    for offset in range(0, 64 * MIB, MIB):
        lab.vcenter.write("large", 2000, offset, source.randbytes(512 << 10))
    more = {"workers": 2, "chunk_size": MIB}
    process = lab.start("large", budget=SLOW, **more)
    point = source.randrange(10 * MIB)
    lab.wait_for(lambda: lab.target("large").exists() and lab.served() > 8 * MIB + point, process)
    lab.kill(process)
    served = lab.served()
    assert len(lab.snapshots("large")) == 1
    lab.scribble("large", seed, end=60 * MIB)
    lab.vcenter.clear()
    row = lab.row("large", budget=FREE, verify="full", **more)
    assert lab.snapshots("large") == []
    assert lab.equal("large")
    assert row["mode"] == "full" and row["bytes_resumed"] > 0 and row["repaired"] == 0
    # what is allocated is read once, but for what was in hand, and what has changed since
    assert served + row["bytes_read"] <= row["capacity"] + 2 * MIB * 2 + row["changed_bytes"] * 2 + MIB
    # and again in a delta
    for offset in range(0, 64 * MIB, MIB):
        lab.vcenter.write("large", 2000, offset, source.randbytes(128 << 10))
    lab.vcenter.clear()
    process = lab.start("large", budget={"overall": {"rate": 4}}, **more)
    lab.wait_for(lambda: lab.served() > 2 * MIB, process)
    lab.kill(process)
    served = lab.served()
    row = lab.row("large", budget=FREE, verify="full", **more)
    assert row["mode"] == "incremental" and lab.snapshots("large") == []
    assert lab.equal("large")
    assert served + row["bytes_read"] <= 64 * (128 << 10) * 1.1 + 2 * MIB * 2 + 4 * MIB


@pytest.mark.fault(
    "SIGKILL where changes are not tracked", where="copy", ends="the next run goes on at the same snapshot: equal, nothing is read twice"
)
def test_killed_without_tracking(lab: Lab) -> None:
    process = lab.start("one", budget={"overall": {"rate": 8}}, workers=1, chunk_size=MIB)
    lab.wait_for(lambda: lab.served() > 6 * MIB, process)
    lab.kill(process)
    (left,) = lab.vcenter.snapshots("one")
    frozen = lab.source_sha("one", snapshot=left["moref"])
    lab.scribble("one", 9)
    row = lab.row("one", budget=FREE, workers=1, chunk_size=MIB)
    assert lab.sha("one") == frozen != lab.source_sha("one")
    assert row["bytes_resumed"] > 0 and row["bytes_read"] < row["capacity"] - 3 * MIB
    assert lab.snapshots("one") == []


@pytest.mark.fault("SIGTERM", where="copy", ends="the snapshot is removed before the process ends; the next run goes on")
def test_told_to_end(lab: Lab) -> None:
    lab.track("large")
    process = lab.start("large", budget={"overall": {"rate": 6}}, workers=2, chunk_size=MIB)
    lab.wait_for(lambda: lab.served() > 4 * MIB, process)
    process.terminate()
    _out, err = process.communicate(timeout=60)
    assert process.returncode != 0 and b"Interrupted" in err
    assert lab.snapshots("large") == []
    row = lab.row("large", budget=FREE)
    assert row["bytes_resumed"] > 0 and lab.equal("large")


@pytest.mark.fault("the session expires during the copy", where="vCenter", ends="logged in again: equal")
def test_an_expired_session(lab: Lab) -> None:
    lab.track("one")
    lab.vcenter.fault("session_expire", match="flat")
    lab.row("one", chunk_size=MIB)
    assert lab.equal("one") and lab.snapshots("one") == []


@pytest.mark.fault("vCenter restarts during the copy", where="vCenter", ends="waited for and logged in again: equal, no snapshot is left")
def test_a_restart_of_vcenter(lab: Lab) -> None:
    lab.track("large")
    timer = threading.Timer(1.0, lambda: lab.vcenter.restart(2.0))
    timer.start()
    try:
        row = lab.row("large", budget={"overall": {"rate": 20}}, chunk_size=MIB)
    finally:
        timer.join()
        lab.reconnect()
    assert row["mode"] == "full" and lab.equal("large") and lab.snapshots("large") == []


@pytest.mark.fault("connections are cut in the middle of answers, the server is busy or slow", where="source", ends="read again: equal")
@pytest.mark.parametrize("kind", ["folder_cut", "folder_status", "folder_delay"])
def test_a_bad_line(lab: Lab, kind: str) -> None:
    lab.track("one")
    options = {"folder_cut": {"after_bytes": 300_000}, "folder_delay": {"delay_ms": 200}}.get(kind, {})
    lab.vcenter.fault(kind, match="flat", times=3, **options)
    lab.row("one", chunk_size=MIB, patience=20)
    assert lab.equal("one")


@pytest.mark.fault(
    "the file is another one in the middle of the copy (another ETag)", where="source", ends="error, never data; the next run is equal"
)
@pytest.mark.fault("an answer is shorter than what was asked for", where="source", ends="error, never data; the next run is equal")
@pytest.mark.parametrize("kind", ["folder_etag", "folder_short"])
def test_other_bytes_than_asked_for(lab: Lab, kind: str) -> None:
    lab.track("one")
    lab.fill("one", 24 * MIB)
    options = {"after_bytes": 1000} if kind == "folder_short" else {}
    lab.vcenter.clear()
    process = lab.start("one", budget={"overall": {"rate": 8}}, chunk_size=MIB)
    lab.wait_for(lambda: lab.served() > MIB, process)
    lab.vcenter.fault(kind, match="flat", times=0, **options)
    _out, err = process.communicate(timeout=60)
    assert process.returncode != 0 and b"SourceError" in err
    assert lab.snapshots("one") == []
    lab.vcenter.clear()
    lab.row("one", budget=FREE)
    assert lab.equal("one")


@pytest.mark.fault("the guest writes while disks are consolidated", where="snapshot", ends="the next snapshot waits for the end: equal")
def test_slow_consolidation(lab: Lab) -> None:
    lab.track("one")
    lab.vcenter.switch("consolidate_seconds", 1)
    lab.row("one")
    for seed in (1, 2):
        over = threading.Event()

        def guest(first: int, over: threading.Event) -> None:
            n = first
            while not over.is_set():
                lab.scribble("one", n, writes=1)
                n += 1
                time.sleep(0.02)  # a guest rests between its writes

        thread = threading.Thread(target=guest, args=(seed * 1000, over))
        thread.start()
        try:
            row = lab.row("one")
        finally:
            over.set()
            thread.join()
        assert row["mode"] == "incremental"
    lab.row("one")
    assert lab.equal("one")


@pytest.mark.fault("a snapshot is left that another machine's copy may still use", where="snapshot", ends="left alone, and said")
def test_other_machines_snapshots_are_left_alone(lab: Lab) -> None:
    text = '{"by":"ferry.vmware","owner":"mover7:/srv","process":"x","purpose":"copy","vm":"","id":"1"}\nof mover7'
    ref = lab.ref("one").ref
    theirs = lab.task(ref.CreateSnapshot_Task("ferry copy of mover7", text, False, False))
    try:
        found = lab.copy("one")
        assert lab.snapshots("one") == ["ferry copy of mover7"]
        assert any("mover7" in r for r in found["remarks"])
    finally:
        lab.task(lab.session.managed("VirtualMachineSnapshot", theirs._moId).RemoveSnapshot_Task(False, True))


@pytest.mark.fault(
    "the target's file system is full", where="target", ends="error that says so; with room again the same task goes on: equal"
)
def test_no_room_and_room_again(lab: Lab, tmp_path: Path) -> None:
    import resource

    lab.track("one")
    lab.fill("one", 24 * MIB)
    # a process that may write files of so many bytes only (setrlimit(2): EFBIG), as a file system with that limit answers
    process = lab.start("one", budget=SLOW, chunk_size=MIB, workers=2)
    lab.wait_for(lambda: lab.target("one").exists() and lab.served() > 2 * MIB, process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (14 * MIB, resource.RLIM_INFINITY))
    _out, err = process.communicate(timeout=60)
    assert process.returncode != 0 and b"make room" in err
    assert lab.snapshots("one") == []
    row = lab.row("one", budget=FREE, chunk_size=MIB)
    assert row["bytes_resumed"] > 0 and lab.equal("one")


# -- ways -----------------------------------------------------------------------------------------------------------


def test_vsan_is_read_as_an_nfc_stream_and_compared_later(lab: Lab) -> None:
    lab.track("modern")
    row = lab.row("modern")
    assert (row["transport"], row["mode"]) == ("nfc", "full")
    assert lab.equal("modern")
    lab.scribble("modern", 3)
    row = lab.row("modern")
    assert (row["transport"], row["mode"]) == ("nfc", "compare") and row["bytes_written"] < 8 * MIB
    assert lab.equal("modern") and lab.snapshots("modern") == []
    with pytest.raises(BadInput) as e:
        lab.row("modern", transport="https")
    assert e.value.code == "no_way"
    lab.scribble("modern", 4)
    with pytest.raises(BadInput) as e:
        lab.row("modern", mode="incremental")
    assert e.value.code == "not_incremental"


def test_vsan_without_nbdkit_is_read_as_a_stream_and_that_is_said(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in an execution environment whose image has no nbdkit: VDDK was set up, another transport does it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    vddk = {"libdir": str(lab.folder), "thumbprint": "00" * 20, "transports": None}
    lab.scribble("modern", 5)
    found = lab.copy("modern", vddk=vddk)
    assert found["disks"][0]["transport"] == "nfc" and lab.equal("modern")
    assert ["nbdkit is needed" in r and "nfc" in r and "install" in r for r in found["remarks"]] == [True]


def test_both_disks_of_one_lease(lab: Lab) -> None:
    rows = lab.copy(JAPANESE, (2000, 3001), transport="nfc")["disks"]
    assert [r["transport"] for r in rows] == ["nfc", "nfc"]
    assert lab.equal(JAPANESE, 2000, 3001) and lab.snapshots(JAPANESE) == []
    lab.power(JAPANESE, False)
    try:
        lab.copy(JAPANESE, (3001,), transport="nfc", mode="full")
        assert lab.equal(JAPANESE, 3001)
    finally:
        lab.power(JAPANESE, True)


@pytest.mark.fault(
    "the export lease is lost, its stream is cut",
    where="NFC",
    ends="error; the next run reads the stream anew and writes what differs: equal",
)
def test_a_lost_lease(lab: Lab) -> None:
    lab.vcenter.switch("nfc_rate", 2_000_000)
    lab.vcenter.fault("soap_fault", match="HttpNfcLeaseProgress", fault="InvalidState", times=0)
    lab.vcenter.switch("nfc_timeout", 1)
    with pytest.raises(FerryError):
        lab.row("large", transport="nfc", patience=3)
    assert lab.snapshots("large") == []
    lab.vcenter.clear()
    lab.row("large", transport="nfc")
    assert lab.equal("large")


def test_a_lease_is_kept_alive(lab: Lab) -> None:
    lab.vcenter.switch("nfc_timeout", 1)
    lab.vcenter.switch("nfc_rate", 300_000)
    lab.row("toolless", transport="nfc")
    assert lab.equal("toolless")


def test_an_export_by_nbd(lab: Lab) -> None:
    """What VDDK gives by nbdkit, from nbdkit's file plugin: the frozen base of a snapshot."""
    snapshot = lab.snapshot("one", "for nbd")
    try:
        (there,) = lab.vcenter.snapshots("one")
        frozen = lab.source_sha("one", snapshot=there["moref"])
        lab.scribble("one", 60)
        base = next(name for name in there["disks"][0]["local"] if name.endswith("-flat.vmdk"))
        with Nbdkit("file", [f"file={base}"]) as server:
            disk = {"disk": "2000", "dest": {"path": str(lab.target("one"))}, "format": "raw", "nbd": server.uri}
            row = lab.row("one", snapshot="for nbd", transport="nbd", disks=[disk])
            assert (row["transport"], row["mode"]) == ("nbd", "full")
            assert lab.sha("one") == frozen
            assert lab.row("one", snapshot="for nbd", transport="nbd", disks=[disk])["mode"] == "none"
            row = lab.file(server.uri, lab.folder / "plain.raw")
            assert (row["transport"], row["mode"]) == ("nbd", "full")
        assert (lab.folder / "plain.raw").read_bytes() == lab.target("one").read_bytes()
    finally:
        lab.task(lab.session.managed("VirtualMachineSnapshot", snapshot._moId).RemoveSnapshot_Task(False, True))


def test_nbd_needs_an_export(lab: Lab) -> None:
    with pytest.raises(BadInput, match="export"):
        lab.row("one", transport="nbd")
    vddk = {"libdir": str(lab.folder), "thumbprint": "00" * 20, "transports": None}
    with pytest.raises(FerryError) as e:
        lab.row("one", transport="nbd", vddk=vddk)
    assert "VDDK" in str(e.value) and lab.snapshots("one") == []


@pytest.mark.parametrize("kind", ["monolithicSparse", "monolithicFlat", "vmfs"])
def test_a_vmdk_as_the_target(lab: Lab, kind: str) -> None:
    lab.track("one")
    disk = {"disk": "2000", "dest": {"path": str(lab.folder / "one.vmdk")}, "format": kind}
    lab.row("one", disks=[disk])
    lab.scribble("one", 70)
    row = lab.row("one", disks=[disk], verify="full")
    assert row["mode"] == "incremental" and row["repaired"] == 0
    lab.file(str(lab.folder / "one.vmdk"), lab.target("one"))
    assert lab.equal("one")


def test_disks_wait_for_their_places(lab: Lab) -> None:
    """One disk at a time from a host: both are copied, one after the other, and the VM does not wait for itself."""
    lab.track(JAPANESE)
    lab.copy(JAPANESE, (2000, 3001), budget={"hosts": {"*": {"disks": 1}}})
    assert lab.equal(JAPANESE, 2000, 3001)


@pytest.mark.fault(
    "SIGKILL while the snapshot is being made", where="snapshot", ends="the next run removes what came of it and takes its own: equal"
)
def test_killed_while_the_snapshot_is_made(lab: Lab) -> None:
    lab.track("one")
    lab.vcenter.switch("snapshot_seconds", 2)
    before = lab.vcenter.get("/stats")["methods"].get("CreateSnapshot_Task", 0)
    process = lab.start("one")
    lab.wait_for(lambda: lab.vcenter.get("/stats")["methods"].get("CreateSnapshot_Task", 0) > before, process)
    lab.kill(process)
    lab.row("one")
    assert lab.equal("one") and lab.snapshots("one") == []
