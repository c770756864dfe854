# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sequences of events after which a copy once said success although the target was wrong; the storm of the lab's tests found them."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme

from ansible_collections.ferry.vmware.plugins.module_utils.disk import copy
from ansible_collections.ferry.vmware.plugins.module_utils.disk.changes import Tracking
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import SinkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sinks import label
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sinks.file import FileSink
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.https import HttpsSource

from .file_server import FileServer
from .guest import BLOCK, MIB, Guest, Snapshot, Way


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    found = Guest(tmp_path, 40 * MIB + 512)
    found.write(0, b"\1" * found.size)
    return found


@pytest.fixture
def way(tmp_path: Path, guest: Guest) -> Way:
    return Way(tmp_path, guest)


def cut_off(way: Way, at: Snapshot, after: int, **options: Any) -> None:
    """A run that ends after C(after) units, without a word."""
    with way.job(at, **options) as job:
        job.prepare()
        for n, unit in enumerate(copy._units(job)):
            if n == after:
                break
            job.work(unit)


def labels_are_kept(folder: Path) -> bool:
    with open(folder / "label", "wb") as f:
        return label.write(f.fileno(), "x")


def no_labels(*args: object) -> None:
    """setxattr(2) where the file system has no extended attributes."""
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


@pytest.mark.fault(
    "the target of a copy that was cut off is deleted and made anew", where="target", ends="nothing of it is believed: equal"
)
@pytest.mark.parametrize("how", ["deleted", "emptied", "cut", "no labels"])
def test_a_target_that_was_made_anew(way: Way, guest: Guest, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its inode may be the old one's, and its modification time says nothing while a copy is under way."""
    if how == "no labels":
        monkeypatch.setattr(os, "setxattr", no_labels)
    at = guest.snapshot()
    cut_off(way, at, 6)
    if how == "deleted":
        way.target.unlink()
    elif how == "cut":
        os.truncate(way.target, 10 * MIB)
    else:
        os.truncate(way.target, 0)
        os.truncate(way.target, guest.size)
        if how == "emptied" and labels_are_kept(way.folder):
            os.removexattr(way.target, "user.ferry.copy")
    at = guest.snapshot()
    way.copy(at)
    assert way.equal(at)


@pytest.mark.fault("another disk is copied over a target whose copy was cut off", where="target", ends="seen by its label: equal")
def test_another_disk_was_written_over_it(tmp_path: Path, way: Way, guest: Guest) -> None:
    if not labels_are_kept(tmp_path):
        pytest.skip("this file system knows no extended attributes")
    (tmp_path / "other").mkdir()
    theirs = Guest(tmp_path / "other", guest.size, seed=2)
    at = guest.snapshot()
    cut_off(way, at, 8)
    other = Way(tmp_path / "other", theirs)
    other.target = way.target
    other.copy(theirs.snapshot())
    way.copy(at)
    assert way.equal(at)


@pytest.mark.fault("the ledger is put back as it was in the middle of an older copy", where="target", ends="seen by the label: equal")
def test_a_ledger_of_another_time(tmp_path: Path, way: Way, guest: Guest) -> None:
    if not labels_are_kept(tmp_path):
        pytest.skip("this file system knows no extended attributes")
    before = bytes(guest.bytes)
    at = guest.snapshot()
    way.copy(at, untracked=True)
    guest.write(30 * MIB, b"\2" * (10 * MIB))
    at = guest.snapshot()
    cut_off(way, at, 2, untracked=True)
    shutil.copytree(tmp_path, tmp_path.with_name("kept"), ignore=shutil.ignore_patterns("snapshot-*", "target"))
    way.copy(at, untracked=True)
    guest.write(2 * MIB, b"\3" * (6 * MIB))
    way.copy(guest.snapshot(), untracked=True)
    for name in tmp_path.glob("ledger.sqlite*"):
        name.unlink()
    for kept in tmp_path.with_name("kept").glob("ledger.sqlite*"):
        shutil.copy(kept, tmp_path / kept.name)
    guest.write(0, before)
    at = guest.snapshot()
    way.copy(at, untracked=True)
    assert way.equal(at)


def test_what_a_sample_finds_leads_to_all_of_the_target(way: Way, guest: Guest) -> None:
    """Where nothing else tells that the target is another one (a device has no label), one piece that differs is seldom alone."""
    at = guest.snapshot()
    cut_off(way, at, 8)
    with open(way.target, "r+b") as f:
        f.write(b"\4" * (20 * MIB))
    result = way.copy(at, verify="sample")
    assert way.equal(at) and result.verified == "full" and result.repaired >= 20


class Losing(FileSink):
    """Its first flush after C(writes) writes fails, and what was written since the one before is lost: as of a full NFS export."""

    failing = True

    def __init__(self, path: str, capacity: int) -> None:
        super().__init__(path, capacity)
        self._since: list[tuple[int, bytes]] = []

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self._since.append((offset, super().read(offset, len(data))))
        super().write(offset, data)

    def flush(self) -> None:
        if Losing.failing and self._since:
            for offset, before in reversed(self._since):
                super().write(offset, before)
            self._since.clear()
            raise SinkError("The target cannot be made durable.", code="target_full", disk=self.path, step="write")
        super().flush()
        self._since.clear()


@pytest.mark.fault(
    "the target says at the flush that what was written is lost", where="target", ends="written again by the next run: equal"
)
@pytest.mark.parametrize("delta", [False, True])
def test_a_flush_that_fails_loses_what_was_written(way: Way, guest: Guest, delta: bool) -> None:
    """fsync reports an error once; the next one succeeds although the pages are gone."""
    Losing.failing = False
    if delta:
        way.copy(guest.snapshot(), sink=Losing)
        guest.write(5 * MIB, b"\5" * (9 * MIB))
    at = guest.snapshot()
    Losing.failing = True
    with pytest.raises(SinkError):
        way.copy(at, sink=Losing)
    Losing.failing = False
    way.copy(at, sink=Losing)
    assert way.equal(at)


def test_a_flush_that_fails_at_the_begin_of_the_next_run(way: Way, guest: Guest) -> None:
    """What a killed run wrote is lost, and the run after it is told."""
    at = guest.snapshot()
    cut_off(way, at, 6)
    os.truncate(way.target, 0)
    os.truncate(way.target, guest.size)

    class Telling(FileSink):
        def flush(self) -> None:
            raise SinkError("The target cannot be made durable.", disk=self.path, step="write")

    at = guest.snapshot()
    with pytest.raises(SinkError):
        way.copy(at, sink=Telling)
    way.copy(at)
    assert way.equal(at)


def without(guest: Guest, at: Snapshot, missed: tuple[int, int]) -> Tracking:
    """Tracking that leaves C(missed) (start, length) out, in whole blocks."""

    def areas(since: str) -> list[tuple[int, int]]:
        told = [(b, BLOCK) for start, n in guest.areas(since, at) for b in range(start, start + n, BLOCK)]
        return [(b, min(n, guest.size - b)) for b, n in told if not missed[0] <= b < missed[0] + missed[1]]

    return Tracking(at.change_id, areas)


@pytest.mark.fault(
    "tracking misses a change beside one that it tells", where="tracking", ends="found by the sample, all is compared: equal"
)
@pytest.mark.parametrize("verify", ["none", "full"])
def test_a_change_missed_beside_one_that_is_told(way: Way, guest: Guest, verify: str) -> None:
    way.copy(guest.snapshot(), verify=verify)
    guest.write(7 * MIB, b"told")
    guest.write(7 * MIB + 5 * BLOCK, b"missed")
    at = guest.snapshot()
    result = way.copy(at, verify=verify, tracking=without(guest, at, (7 * MIB + 5 * BLOCK, BLOCK)), outside=1.0)
    assert way.equal(at) and (result.mode, result.outside_wrong) == ("compare", 1)


@pytest.mark.fault("tracking misses a change between two halves of a first copy", where="tracking", ends="found by the sample: equal")
def test_a_change_missed_while_the_first_copy_was_cut_off(way: Way, guest: Guest) -> None:
    cut_off(way, guest.snapshot(), 8)
    guest.write(3 * MIB, b"missed")
    guest.write(5 * MIB, b"told")
    at = guest.snapshot()
    result = way.copy(at, tracking=without(guest, at, (3 * MIB, BLOCK)), outside=1.0)
    assert way.equal(at) and result.outside_wrong == 1


def test_a_change_missed_in_a_pass_that_ends_without_tracking(way: Way, guest: Guest) -> None:
    way.copy(guest.snapshot())
    guest.write(3 * MIB, b"missed")
    guest.write(5 * MIB, b"told")
    at = guest.snapshot()
    cut_off(way, at, 1, tracking=without(guest, at, (3 * MIB, BLOCK)))
    result = way.copy(at, untracked=True, outside=1.0)
    assert way.equal(at) and result.outside_wrong == 1


@pytest.mark.fault('"*" leaves out a part of a chunk', where="tracking", ends="found by the sample, all is compared: equal")
def test_a_hint_that_leaves_out_a_part_of_a_chunk(way: Way, guest: Guest) -> None:
    at = guest.snapshot()
    areas = [(b, min(BLOCK, guest.size - b)) for b in range(0, guest.size, BLOCK) if b != 9 * MIB + 3 * BLOCK]
    result = way.copy(at, tracking=guest.tracking(at, allocated=lambda: areas), outside=1.0)
    assert way.equal(at) and result.outside_wrong == 1


def test_a_source_of_which_nothing_tells_its_states_apart(way: Way, guest: Guest) -> None:
    """The files of a running VM: their times need not move with its writes."""
    at = guest.snapshot()
    way.copy(at, untracked=True)
    before = os.stat(at.path)
    with open(at.path, "r+b") as f:
        f.write(b"later")
    os.utime(at.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with way.job(at, untracked=True) as job:
        assert copy.run([job])[0].mode == "none"
    with way.job(at, untracked=True) as job:
        job.certain = False
        assert copy.run([job])[0].mode == "compare"
    assert way.equal(at)


@pytest.mark.fault(
    "a file server gives no ETag, and a time of the same second",
    where="source",
    ends="never taken for unchanged: compared with what is known",
)
@pytest.mark.parametrize(("modified", "settled"), [(3600, True), (1, False), (None, False)])
def test_a_file_whose_states_the_server_does_not_tell_apart(tmp_path: Path, modified: int | None, settled: bool) -> None:
    (tmp_path / "disk-flat.vmdk").write_bytes(b"x" * 1000)

    more = {} if modified is None else {"Last_Modified": formatdate(time.time() - modified, usegmt=True)}

    def answer(handler: Any, number: int) -> bool:
        handler.answer(200, b"x" * 1000, **more)
        return True

    identities = set()
    with FileServer(tmp_path, trustme.CA()).running() as server:
        server.fault = answer
        for _n in range(2):
            with contextlib.closing(HttpsSource([(server.remote("disk-flat.vmdk"), 0, 1000, Kind.DATA)], "cid")) as source:
                identities.add(source.identity)
    assert len(identities) == (1 if settled else 2)
