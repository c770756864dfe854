# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks of the lab's vCenter by each source: frozen chains of deltas over HTTPS, streams of export leases."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import FerryError, SourceError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Kind, Source
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.chain import ChainSource
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.nfc import NfcSource
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.sources import open_https, open_nfc
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client as vsphere_client
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import find, guest, nfc, snapshots
from tests.lab.vcenter import VCenter

from .vcenter_lab import MIB, Client, running, warm_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FIRST = 2000


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCenter]:
    folder = tmp_path_factory.mktemp("sources")
    with running(folder, warm_model(folder)) as vcenter:
        yield vcenter


@pytest.fixture
def user(lab: VCenter) -> Iterator[Client]:
    """Somebody with a client that is not ours."""
    one = Client(lab)
    yield one
    one.close()


@pytest.fixture
def session(lab: VCenter) -> Iterator[Any]:
    e = lab.env()
    wanted = {"hostname": e["VMWARE_HOST"], "port": int(e["VMWARE_PORT"]), "username": e["VMWARE_USER"]}
    with vsphere_client.connect({**wanted, "password": e["VMWARE_PASSWORD"], "ca_path": e["VMWARE_CA_PATH"]}) as found:
        yield found
    lab.clear()


def scribble(lab: VCenter, vm: str, seed: int) -> None:
    rng = random.Random(seed)
    for i in range(25):
        length = 512 * rng.randint(1, 150)
        lab.write(vm, FIRST, 512 * rng.randrange(4 * MIB // 512), bytes(length) if i % 5 == 0 else rng.randbytes(length))


def all_of(source: Source, step: int = MIB + 512) -> bytes:
    return b"".join(bytes(source.read(at, min(step, source.capacity - at))) for at in range(0, source.capacity, step))


def streamed(source: NfcSource) -> bytes:
    out = bytearray(source.capacity)
    for offset, data in source.stream():
        out[offset : offset + len(data)] = data
    return bytes(out)


@pytest.mark.parametrize(("vm", "kind"), [("db", "seSparse"), ("old", "vmfsSparse")])
def test_a_frozen_chain_by_range(lab: VCenter, user: Client, session: Any, vm: str, kind: str) -> None:
    """The user's own snapshots lie below ours: what ours froze is a chain, and what the guest writes meanwhile is in none of it."""
    for n in range(3):
        scribble(lab, vm, n)
        user.snapshot(user.vm(vm), f"user {n}")
    scribble(lab, vm, 9)
    found = find.find_vm(session, vm)
    with snapshots.taken(session, found) as ours:
        truth = lab.disk(vm, FIRST, ours.moref)
        disk = next(d for d in snapshots.disks_at(session, found, ours) if d.key == FIRST)
        assert len(disk.chain) == 4
        source = open_https(session, disk)
        assert isinstance(source, ChainSource)
        assert source.disk.info.create_type == kind
        scribble(lab, vm, 10)
        assert all_of(source) == truth != lab.disk(vm, FIRST)
        extents = list(source.extents())
        assert sum(e.length for e in extents) == len(truth)
        assert all(e.kind is Kind.DATA or not any(truth[e.start : e.end]) for e in extents)
        source.close()
        # vCenter forgets our session, is busy, and cuts what it serves: a source goes on
        source = open_https(session, disk)
        lab.fault("session_expire", match="-flat")
        lab.fault("folder_status", status=503, match="db" if vm == "db" else "old", times=2)
        lab.fault("folder_cut", after_bytes=300_000)
        assert all_of(source, 3 * MIB) == truth
        source.close()


def test_the_base_of_a_single_snapshot_is_read_flat(lab: VCenter, session: Any) -> None:
    found = find.find_vm(session, "onnfs")
    with snapshots.taken(session, found, quiesce="never") as ours:
        disk = next(d for d in snapshots.disks_at(session, found, ours) if d.key == FIRST)
        assert len(disk.chain) == 1
        source = open_https(session, disk)
        scribble(lab, "onnfs", 3)
        assert all_of(source) == lab.disk("onnfs", FIRST, ours.moref)
        source.close()


def test_the_running_vms_own_delta_is_not_to_be_had(lab: VCenter, session: Any) -> None:
    """The live disk is locked; a copy of it would be of many moments."""
    found = find.find_vm(session, "db")
    with snapshots.taken(session, found):
        live = next(d for d in guest.vm_disks(session, found) if d.key == FIRST)
        with pytest.raises(FerryError):
            open_https(session, live, patience=0.5)


def test_a_lease_of_a_snapshot(lab: VCenter, session: Any) -> None:
    found = find.find_vm(session, "db")
    with snapshots.taken(session, found) as ours:
        truth = {key: lab.disk("db", key, ours.moref) for key in (FIRST, 2016)}
        with nfc.export_lease(session, found, ours) as lease:
            for disk in snapshots.disks_at(session, found, ours):
                exported = lease.disks[disk.key]
                told: list[int] = []

                def progress(at: int, told: list[int] = told, capacity: int = disk.capacity) -> None:
                    told.append(at)
                    lease.progress(at * 100 // capacity)

                source = open_nfc(session, exported.url, disk, thumbprint=exported.thumbprint, on_progress=progress)
                scribble(lab, "db", 5)
                assert streamed(source) == truth[disk.key]
                assert told[-1] == disk.capacity
                source.close()


def test_a_lease_that_ends_in_the_middle(lab: VCenter, session: Any) -> None:
    found = find.find_vm(session, "db")
    with snapshots.taken(session, found) as ours:
        disk = next(d for d in snapshots.disks_at(session, found, ours) if d.key == FIRST)
        lease = nfc.export_lease(session, found, ours)
        source = open_nfc(session, lease.disks[FIRST].url, disk, patience=1.0)
        lease.abort()
        with pytest.raises((SourceError, FerryError)):
            streamed(source)
        source.close()
