# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults in the middle of a copy, and that the next run goes on: a full file system, a source that breaks, a lease that is lost."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import copy, errors, ledger
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sinks.file import FileSink
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.file import FileSource

from .guest import MIB, Guest, Snapshot, Way


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    found = Guest(tmp_path, 24 * MIB + 512)
    found.write(0, b"\1" * found.size)
    return found


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB that can be made larger."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "ferry-test", str(folder)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.fault("target and ledger's file system fills up", where="target", ends="fails; with room again it goes on: equal")
@pytest.mark.parametrize("verify", ["none", "full"])
def test_no_space_and_back(tmp_path: Path, guest: Guest, small: Path, verify: str) -> None:
    """Target and ledger on one file system that fills up: the kernel says ENOSPC to both."""
    way = Way(small, guest)
    at = guest.snapshot()
    with pytest.raises(errors.FerryError) as caught:
        way.copy(at, unit=MIB, workers=2)
    assert caught.value.code in ("target_full", "ledger_full") and "make room" in (caught.value.next_command or "")
    assert caught.value.disk == "Hard disk 1"
    subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
    result = way.copy(at, unit=MIB, workers=2, verify=verify)
    assert way.equal(at) and result.change_id == at.change_id and result.mode == "full"
    assert result.bytes_resumed + result.bytes_read == guest.size and result.bytes_resumed >= 8 * MIB


@pytest.mark.fault("the file system fills up during a delta", where="target", ends="fails; goes on with the next snapshot: equal")
def test_no_space_in_a_delta_and_back(guest: Guest, small: Path) -> None:
    guest.write(0, bytes(guest.size))
    way = Way(small, guest)
    way.copy(guest.snapshot())
    guest.write(2 * MIB, b"\2" * (18 * MIB))
    at = guest.snapshot()
    with pytest.raises(errors.FerryError) as caught:
        way.copy(at, unit=MIB, workers=2)
    assert caught.value.code in ("target_full", "ledger_full")
    subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
    guest.write(0, b"\3" * MIB)
    at = guest.snapshot()
    result = way.copy(at, unit=MIB, workers=2)
    assert way.equal(at) and result.mode == "incremental"
    assert result.bytes_read <= 19 * MIB - 8 * MIB + 2 * MIB, "what had been written was read again"


class Breaking(FileSource):
    """A source that breaks in the middle of an answer: it gives half of it, then an error."""

    def read(self, offset: int, length: int) -> bytes:
        if offset >= 15 * MIB:
            super().read(offset, length // 2)
            raise errors.SourceError("The connection was cut in the middle of the answer.", step="read", code="source_away")
        return super().read(offset, length)


@pytest.mark.fault("the source breaks in the middle of an answer", where="source", ends="fails; the next run reads again what was in hand")
@pytest.mark.parametrize("workers", [1, 3])
def test_a_source_that_breaks_costs_what_was_in_hand(way_at: tuple[Way, Snapshot], workers: int) -> None:
    way, at = way_at
    source = Breaking(str(at.path))
    sink = FileSink(str(way.target), source.capacity)
    book = ledger.Ledger(str(way.folder / "ledger.sqlite"), source.capacity)
    with pytest.raises(errors.SourceError) as caught:
        copy.run([copy.Job("Hard disk 1", source, sink, book, unit=MIB, tracking=way.guest.tracking(at))], workers=workers)
    assert caught.value.code == "source_away"
    book.close(), sink.close(), source.close()
    result = way.copy(at, unit=MIB)
    assert way.equal(at)
    assert result.bytes_resumed >= 15 * MIB - workers * MIB and result.bytes_read <= at.path.stat().st_size - 15 * MIB + workers * MIB


@pytest.fixture
def way_at(tmp_path: Path, guest: Guest) -> tuple[Way, Snapshot]:
    return Way(tmp_path, guest), guest.snapshot()


@pytest.mark.fault("the lease on the target is lost", where="copy", ends="the writers stop, no changeId is committed")
def test_a_lost_lease_stops_the_writing_and_commits_nothing(way_at: tuple[Way, Snapshot]) -> None:
    way, first = way_at
    way.copy(first)
    way.guest.write(0, b"\4" * (20 * MIB))
    at = way.guest.snapshot()
    reads = []

    def guard() -> None:
        if len(reads) >= 5:
            raise errors.Busy("The volume was taken over by another host.")

    class Slow(FileSource):
        def read(self, offset: int, length: int) -> bytes:
            reads.append(offset)
            guard()  # as soon as five reads were made, whichever thread looks first
            return super().read(offset, length)

    source = Slow(str(at.path))
    sink = FileSink(str(way.target), source.capacity)
    book = ledger.Ledger(str(way.folder / "ledger.sqlite"), source.capacity)
    job = copy.Job("Hard disk 1", source, sink, book, unit=MIB, tracking=way.guest.tracking(at))
    with pytest.raises(errors.Busy):
        copy.run([job], workers=1, guard=guard, checkpoint_seconds=0)
    assert (book.fact("state"), book.fact("change_id"), book.fact("planned")) == ("copying", first.change_id, at.change_id)
    book.close(), sink.close(), source.close()
    assert way.copy(at, unit=MIB).mode == "incremental" and way.equal(at)


@pytest.mark.fault("data appear where zeroes should be", where="target", ends="found by verification and mended")
def test_what_was_written_where_zeroes_should_be_is_found(way_at: tuple[Way, Snapshot]) -> None:
    """A hole of the source: nothing was written there by us, and still it is proven to be empty."""
    way, _at = way_at
    way.guest.write(4 * MIB, bytes(8 * MIB))
    at = way.guest.snapshot()

    class Scribbling(FileSink):
        """A storage that puts other data where nothing was written, when it is told to make durable what was."""

        def flush(self) -> None:
            super().flush()
            if not self.done and os.fstat(self._fd).st_blocks:
                self.done = True
                os.pwrite(self._fd, b"not zero", 6 * MIB + 1000)

        done = False

    result = way.copy(at, sink=Scribbling, verify="full")
    assert result.repaired == 1 and way.equal(at)


@pytest.mark.fault(
    "the target gives back other bytes than were written", where="target", ends="mended; if they stay wrong, fails and is not complete"
)
def test_damage_that_stays_is_told_and_the_copy_is_not_called_complete(way_at: tuple[Way, Snapshot]) -> None:
    way, at = way_at

    class Rotten(FileSink):
        def read(self, offset: int, length: int) -> bytes:
            data = bytearray(super().read(offset, length))
            if offset <= 3 * MIB < offset + length:
                data[3 * MIB - offset] ^= 1
            return bytes(data)

    with pytest.raises(errors.FerryError) as caught:
        way.copy(at, sink=Rotten, verify="full")
    assert caught.value.code == "target_damaged" and f"byte {3 * MIB}" in caught.value.message
    assert way.fact("state") == "copying"
    result = way.copy(at, verify="sample", unit=4 * MIB)
    assert way.equal(at) and 0 < result.bytes_read <= 4 * MIB


@pytest.mark.fault("killed during verification", where="copy", ends="the next run verifies")
def test_a_verification_that_was_cut_off_is_made_up_for(way_at: tuple[Way, Snapshot]) -> None:
    way, at = way_at

    class Away(FileSink):
        def read(self, offset: int, length: int) -> bytes:
            raise errors.SinkError("Away.")

    with pytest.raises(errors.SinkError):
        way.copy(at, sink=Away, verify="sample")
    result = way.copy(at, verify="sample")
    assert (result.mode, result.verified) == ("none", "sample") and result.bytes_verified > 0
    assert way.copy(at, verify="sample").bytes_verified == 0


@pytest.mark.fault("power fails right after a flush", where="copy", ends="what was written during the flush is copied again")
def test_what_is_written_while_a_flush_is_under_way_is_durable_only_with_the_next(
    way_at: tuple[Way, Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    way, at = way_at

    class Meanwhile(FileSink):
        """Another worker writes and marks a unit between the flush and its record in the ledger."""

        def flush(self) -> None:
            super().flush()
            if units:
                job.work(units.pop())

    units: list[copy.Unit] = []
    with way.job(at, sink=Meanwhile, unit=MIB) as job:
        job.prepare()
        found = list(job.units())
        job.work(found[0])
        units.append(found[1])
        job.make_durable()
        assert ledger.left(job.ledger.states(0, 3)) == b"\0\0\1"
    monkeypatch.setattr(ledger, "boot_id", lambda: "another boot")
    with way.job(at, unit=MIB) as job:
        assert ledger.left(job.ledger.states(0, 3)) == b"\0\1\1"


@pytest.mark.fault("stopped while an altered target is looked at", where="copy", ends="the next run looks again: mended")
def test_looking_at_an_altered_target_is_told_and_can_be_stopped(way_at: tuple[Way, Snapshot]) -> None:
    way, at = way_at
    way.copy(at)
    with open(way.target, "r+b") as f:
        f.write(b"altered")
    told: list[str] = []

    class Stopping:
        def update(self, disk: str, phase: str, done: int, total: int, skipped: int | None = None) -> None:
            told.append(phase)

        def finish(self, disk: str, skipped: int | None = None, why: str | None = None) -> None:
            """Nothing to be done."""

        def check(self) -> None:
            if len(told) == 3:
                raise errors.Interrupted("Stopped.")

    with way.job(at) as job, pytest.raises(errors.Interrupted):
        copy.run([job], watcher=Stopping())
    assert told == ["look at the target"] * 3
    result = way.copy(at)
    assert (result.mode, result.repaired) == ("repair", 1) and way.equal(at), "the next run looks again"


def test_a_run_that_only_had_to_end_it_says_that_it_changed_something(way_at: tuple[Way, Snapshot]) -> None:
    way, at = way_at
    with way.job(at) as job:
        job.prepare()
        for unit in job.units():
            job.work(unit)
    result = way.copy(at)
    assert (result.changed, result.bytes_read, result.change_id) == (True, 0, at.change_id)


@pytest.mark.fault("power fails while an altered target is mended", where="target", ends="what is wrong is still known: mended")
def test_what_is_wrong_on_an_altered_target_is_known_before_it_is_written(
    way_at: tuple[Way, Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    way, at = way_at
    way.copy(at)
    with open(way.target, "r+b") as f:
        f.write(b"altered")
    with way.job(at) as job:
        assert job.prepare() and job.result.mode == "repair"
    monkeypatch.setattr(ledger, "boot_id", lambda: "another boot")
    assert way.copy(at).bytes_read > 0 and way.equal(at)
