# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots, reasons not to trust change tracking, and leases, on a vCenter of their own."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.changes import cannot_follow
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Interrupted, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import (
    builds,
    cbt,
    changes,
    client,
    find,
    nfc,
    snapshot_tag,
    snapshots,
    steady,
)
from tests.lab.vcenter import VCenter

from .cbt_lab import (
    KIB64,
    OFF,
    ON_NFS,
    TWO,
    control,
    methods,
    params,
    session,
    switches,
    two,
    vcenter,
    write,
)
from .vcenter_lab import MIB, Client

__all__ = ["params", "session", "vcenter"]


def until(done: Callable[[], bool], look: Callable[[], object], seconds: float = 60) -> None:
    """Look again and again until it is done."""
    deadline = steady.Deadline(seconds)
    while not done():
        look()
        assert deadline.wait()


# -- snapshots ------------------------------------------------------------------------------------------------------


def test_the_disks_are_read_from_the_snapshot(vcenter: VCenter, session: client.Session) -> None:
    vm = two(session)
    with snapshots.taken(session, vm) as snapshot:
        frozen = snapshots.disks_at(session, vm, snapshot)
        assert [(d.key, d.capacity, d.datastore, d.datacenter, d.datastore_type) for d in frozen] == [
            (2000, 8 * MIB + 1536, "shared", "DC lab", "VMFS"),
            (2016, 5 * MIB, "shared", "DC lab", "VMFS"),
        ]
        live = cbt.read(session, vm).disks
        assert all(d.change_id for d in frozen)
        assert [d.chain for d in frozen] == [d.chain[1:] for d in live]


@pytest.mark.parametrize(
    ("quiesce", "fault", "quiesced", "remark"),
    [
        ("auto", False, True, None),
        ("required", False, True, None),
        ("never", False, False, None),
        ("auto", True, False, "ApplicationQuiesceFault"),
        ("never", True, False, None),
    ],
)
@pytest.mark.fault("the guest cannot be quiesced", where="snapshot", ends="quiesce: auto goes on without and says so")
def test_quiescing(vcenter: VCenter, session: client.Session, quiesce: str, fault: bool, quiesced: bool, remark: str | None) -> None:
    vm = find.find_vm(session, TWO)
    if fault:
        vcenter.fault("quiesce_fail", match=TWO)
    with snapshots.taken(session, vm, quiesce=quiesce) as snapshot:
        assert snapshot.quiesced == quiesced
        assert (remark or "") in (snapshot.remark or "")
        assert (remark is None) == (snapshot.remark is None)
        assert len(snapshots.every(session, vm)) == 1
    assert snapshots.every(session, vm) == []


@pytest.mark.fault("the guest cannot be quiesced, and quiesce is required", where="snapshot", ends="refused; no snapshot is left")
def test_quiescing_that_is_required_and_cannot_be(vcenter: VCenter, session: client.Session) -> None:
    vm = find.find_vm(session, TWO)
    vcenter.fault("quiesce_fail", match=TWO)
    with pytest.raises(BadInput, match="could not be quiesced") as e:
        snapshots.take(session, vm, quiesce="required")
    assert (e.value.code, "ApplicationQuiesceFault" in str(e.value.said)) == ("quiesce", True)
    toolless = find.find_vm(session, ON_NFS)
    with pytest.raises(BadInput, match="Tools are not running"):
        snapshots.take(session, toolless, quiesce="required")
    with snapshots.taken(session, toolless, quiesce="auto") as snapshot:
        assert "Tools are not running" in str(snapshot.remark)
    off = find.find_vm(session, OFF)
    with snapshots.taken(session, off, quiesce="required") as snapshot:
        assert (snapshot.quiesced, snapshot.remark) == (False, None)
    assert snapshots.every(session, vm) == snapshots.every(session, toolless) == []


def test_only_ours_is_removed_and_its_children_stay(vcenter: VCenter, session: client.Session) -> None:
    vm = find.find_vm(session, TWO)
    with contextlib.closing(Client(vcenter)) as plain:
        plain.snapshot(plain.vm(TWO), "below", description='{"by":"somebody else"}')
        ours = snapshots.take(session, vm, purpose="copy", folder="/var/lib/ferry")
        plain.snapshot(plain.vm(TWO), "above")
    assert [s.name for s in snapshots.every(session, vm)] == ["below", ours.name, "above"]
    assert [s.depth for s in snapshots.every(session, vm)] == [0, 1, 2]
    assert [s.moref for s in snapshots.ours(session, vm)] == [ours.moref]
    assert ours.tag is not None
    assert (ours.tag.purpose, ours.tag.vm, ours.tag.alive) == ("copy", vm.instance_uuid, True)
    assert ours.tag.owner == f"{snapshot_tag.host_name()}:/var/lib/ferry"
    for other in ("below", "above"):
        with pytest.raises(BadInput, match="not ours"):
            snapshots.remove(session, snapshots.find(session, vm, other))
    snapshots.remove(session, ours)
    assert [s.name for s in snapshots.every(session, vm)] == ["below", "above"]
    snapshots.remove(session, ours)


def test_removal_waits_for_consolidation_and_tells_how_far_it_is(vcenter: VCenter, session: client.Session) -> None:
    vm = two(session)
    snapshot = snapshots.take(session, vm)
    write(vcenter, TWO, 2000, 0, bytes(random.Random(1).randbytes(4 * MIB)))
    switches(vcenter, consolidate_seconds=1.5)
    seen: list[int] = []
    snapshots.remove(session, snapshot, progress=seen.append)
    assert seen == sorted(seen)
    assert any(0 < p < 100 for p in seen)
    assert not snapshots.needs_consolidation(session, vm)
    assert all(len(d.chain) == 1 for d in cbt.read(session, vm).disks)


@pytest.mark.fault("a consolidation fails", where="snapshot", ends="done again until vCenter says that none is needed")
def test_a_consolidation_that_failed_is_done_again(vcenter: VCenter, session: client.Session) -> None:
    vm = two(session)
    snapshot = snapshots.take(session, vm)
    write(vcenter, TWO, 2000, 0, b"x" * KIB64)
    vcenter.fault("consolidate_fail", match=TWO)
    with contextlib.suppress(ServerError):  # whether the removal or the consolidation fails is the server's choice
        snapshots.remove(session, snapshot)
    snapshots.remove(session, snapshot)
    assert methods(vcenter)["ConsolidateVMDisks_Task"] >= 1
    assert not snapshots.needs_consolidation(session, vm)
    assert all(len(d.chain) == 1 for d in cbt.read(session, vm).disks)


def test_disks_are_consolidated_before_a_snapshot_is_taken(vcenter: VCenter, session: client.Session) -> None:
    vm = two(session)
    with contextlib.closing(Client(vcenter)) as plain:
        theirs = plain.snapshot(plain.vm(TWO), "of a backup")
        plain.wait(theirs.RemoveSnapshot_Task(False, False))
    assert snapshots.needs_consolidation(session, vm)
    switches(vcenter, consolidate_seconds=0.5)
    with snapshots.taken(session, vm) as snapshot:
        assert not snapshots.needs_consolidation(session, vm)
        assert all(len(d.chain) == 1 for d in snapshots.disks_at(session, vm, snapshot))


@pytest.mark.fault(
    "vCenter restarts while a snapshot is taken, and while it is removed",
    where="snapshot",
    ends="waited for and looked up again: one snapshot, then none",
)
def test_a_restart_of_vcenter_while_a_snapshot_is_taken_and_removed(vcenter: VCenter, session: client.Session) -> None:
    vm = two(session)
    switches(vcenter, snapshot_seconds=0.5, consolidate_seconds=1)

    def restart() -> None:
        control(vcenter, "POST", "/restart", b"", seconds=1)

    timer = threading.Timer(0.2, restart)
    timer.start()
    snapshot = snapshots.take(session, vm)
    timer.join()
    assert [s.moref for s in snapshots.every(session, vm)] == [snapshot.moref]
    timer = threading.Timer(0.2, restart)
    timer.start()
    snapshots.remove(session, snapshot)
    timer.join()
    assert snapshots.every(session, vm) == []
    assert not snapshots.needs_consolidation(session, vm)


@pytest.mark.fault("stopped while a snapshot is taken", where="snapshot", ends="waited for and removed before the process ends")
def test_stopped_while_a_snapshot_is_taken(vcenter: VCenter, session: client.Session) -> None:
    vm = two(session)
    switches(vcenter, snapshot_seconds=0.5)
    calls = []

    def stop() -> None:
        calls.append(1)
        if "CreateSnapshot_Task" in methods(vcenter):
            raise Interrupted("Stopped.")

    vcenter.clear()
    with pytest.raises(Interrupted) as e:
        snapshots.take(session, vm, stop=stop)
    assert e.value.left is None
    assert snapshots.every(session, vm) == []


def test_no_more_snapshots_than_tracking_bears(session: client.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = two(session)
    monkeypatch.setattr(snapshots, "MOST_TRACKED", 1)
    with snapshots.taken(session, vm), pytest.raises(BadInput) as e:
        snapshots.take(session, vm)
    assert e.value.code == "too_many_snapshots"


# -- distrust -------------------------------------------------------------------------------------------------------


@pytest.mark.fault(
    "a revert that keeps the changeId's UUID, or its number", where="tracking", ends="noticed in vCenter's own record of tasks"
)
@pytest.mark.parametrize("kind", ["new", "keep", "lower"])
def test_a_revert_is_noticed_however_the_change_id_looks(vcenter: VCenter, session: client.Session, kind: str) -> None:
    vm = two(session)
    switches(vcenter, cbt_revert=kind)
    with contextlib.closing(Client(vcenter)) as plain:
        base = plain.snapshot(plain.vm(TWO), "base")
        with snapshots.taken(session, vm) as first:
            kept = snapshots.disks_at(session, vm, first)[0]
        assert first.created is not None
        assert changes.reverted_since(session, vm, first.created) is None
        plain.wait(base.RevertToSnapshot_Task())
    vm = find.find_vm(session, TWO)
    with snapshots.taken(session, vm) as second:
        now = snapshots.disks_at(session, vm, second)[0]
    reverted = changes.reverted_since(session, vm, first.created)
    assert "reverted" in str(reverted)
    if kind != "keep":
        # the engine takes the same number at another snapshot for a revert
        assert cannot_follow(kept.change_id, now.change_id) or kept.change_id == now.change_id


def test_the_build_of_the_host(session: client.Session) -> None:
    vm = two(session)
    build = builds.host_build(session, vm)
    assert build == builds.Build("6.0.0", 3073146, "esx1")
    disk = cbt.read(session, vm).disks[0]
    assert "317933" in str(builds.bad_build(build, disk.capacity))


# -- leases ---------------------------------------------------------------------------------------------------------


def test_a_lease_on_a_snapshot(vcenter: VCenter, session: client.Session) -> None:
    vm = two(session)
    with contextlib.closing(Client(vcenter)) as plain, snapshots.taken(session, vm) as snapshot:
        with nfc.export_lease(session, vm, snapshot) as lease:
            assert {k: (d.label, d.capacity) for k, d in lease.disks.items()} == {
                2000: ("Hard disk 1", 8 * MIB + 1536),
                2016: ("Hard disk 2", 5 * MIB),
            }
            for disk in lease.disks.values():
                assert disk.headers()["Cookie"].startswith("vmware_soap_session=")
                assert plain.stream(disk.url)[:4] == b"KDMV"
            lease.progress(50)
    with pytest.raises(BadInput) as e:
        nfc.export_lease(session, vm)
    assert e.value.code == "vm_running"


def test_a_lease_is_kept_alive_and_given_back(vcenter: VCenter, session: client.Session) -> None:
    vm = find.find_vm(session, OFF)
    vcenter.clear()
    switches(vcenter, nfc_timeout=1)
    with nfc.export_lease(session, vm) as lease:
        until(lambda: methods(vcenter).get("HttpNfcLeaseProgress", 0) >= 5, lease.check)
        assert lease.timeout == 1.0
    assert methods(vcenter)["HttpNfcLeaseComplete"] == 1
    with pytest.raises(RuntimeError, match="mine"), nfc.export_lease(session, vm):
        raise RuntimeError("mine")
    assert methods(vcenter)["HttpNfcLeaseAbort"] == 1
    with nfc.export_lease(session, vm):
        pass


@pytest.mark.fault("an export lease is lost while it is read", where="NFC", ends="error that says so")
def test_a_lost_lease_is_said(vcenter: VCenter, session: client.Session) -> None:
    vm = find.find_vm(session, OFF)
    switches(vcenter, nfc_timeout=1)
    vcenter.fault("soap_fault", match="HttpNfcLeaseProgress", fault="Timedout", times=0)

    def lost() -> None:
        with nfc.export_lease(session, vm) as lease:
            until(lambda: False, lease.check)

    with pytest.raises(ServerError) as e:
        lost()
    assert (e.value.code, e.value.vm) == ("lease_lost", OFF)


@pytest.mark.fault("an export lease fails before it is ready", where="NFC", ends="error with vCenter's reason")
def test_a_lease_that_never_becomes_ready_says_why(vcenter: VCenter, session: client.Session) -> None:
    vm = find.find_vm(session, OFF)
    vcenter.fault("nfc_error", match=OFF)
    with pytest.raises(ServerError, match="HostConnectFault") as e:
        nfc.export_lease(session, vm)
    assert e.value.code == "lease"
