# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of a disk whose changes are tracked: only the changes travel, none is skipped, and doubt means comparing all."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Iterable, Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import copy, errors, ledger
from ansible_collections.ferry.vmware.plugins.module_utils.disk.changes import Tracking, TrackingRefused
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sinks.file import FileSink
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.file import FileSource

from .guest import BLOCK, MIB, UUID, Guest, Snapshot, Way


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path, 24 * MIB + 3 * 512)


@pytest.fixture
def way(tmp_path: Path, guest: Guest) -> Way:
    return Way(tmp_path, guest)


@pytest.mark.parametrize("verify", ["none", "sample", "full"])
def test_cycles_end_equal_and_read_the_changes_only(way: Way, guest: Guest, verify: str) -> None:
    first = way.copy(guest.snapshot(), verify=verify)
    assert (first.mode, first.reason, first.change_id) == ("full", "", f"{UUID}/1")
    for _cycle in range(6):
        guest.work()
        at = guest.snapshot()
        result = way.copy(at, verify=verify)
        areas = guest.areas(f"{UUID}/{at.number - 1}", at)
        assert way.equal(at)
        assert (result.mode, result.reason, result.change_id) == ("incremental", "", at.change_id)
        assert (result.areas, result.changed_bytes) == (len(areas), sum(n for _start, n in areas))
        assert result.changed_bytes <= result.bytes_read <= 1.1 * result.changed_bytes
        assert result.bytes_written + result.bytes_skipped == result.capacity
        assert way.fact("change_id") == way.fact("planned") == at.change_id


def test_digest_is_proven_or_said_to_be_missing(way: Way, guest: Guest, tmp_path: Path) -> None:
    way.copy(guest.snapshot(), verify="full")
    guest.work()
    proven = way.copy(guest.snapshot(), verify="sample")
    guest.work()
    at = guest.snapshot()
    assert way.copy(at).digest == "", "written in parts, nobody has read the rest"
    again = way.copy(at, verify="sample")
    assert again.mode == "incremental" and again.digest and again.bytes_read < guest.size / 2
    other = Way(tmp_path / "other", guest)
    other.folder.mkdir()
    assert again.digest == other.copy(at).digest
    assert proven.digest not in ("", again.digest)
    assert way.copy(at, verify="sample").mode == "none"


def test_same_state_is_not_copied_twice(way: Way, guest: Guest) -> None:
    at = guest.snapshot()
    way.copy(at)
    result = way.copy(at)
    assert (result.mode, result.changed, result.bytes_read, result.change_id) == ("none", False, 0, at.change_id)
    second = way.copy(guest.snapshot())
    assert (second.mode, second.changed, second.bytes_read) == ("incremental", False, 0), "a snapshot without a change is none"


@pytest.mark.fault(
    "the VM is reverted, and another snapshot comes to the same changeId",
    where="tracking",
    ends="not taken for unchanged: compared in full",
)
def test_another_snapshot_of_the_same_change_id_is_not_the_same_state(way: Way, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = guest.snapshot()
    way.copy(first)
    guest.work()
    other = guest.snapshot()
    same, name = Tracking(first.change_id, lambda since: []), str(way.fact("source"))
    with way.job(other, tracking=same) as job:
        # an export by NBD has a name, and no state
        monkeypatch.setattr(job.source, "identity", name)
        monkeypatch.setattr(job.source, "unchanged", None)
        job.certain = False
        result = copy.run([job])[0]
    assert result.mode == "compare" and "reverted" in (result.reason or "")
    assert way.equal(other)


def other_uuid(guest: Guest, at: Snapshot) -> Tracking:
    return Tracking("52 00" + UUID[5:] + f"/{at.number}", lambda since: [])


def empty(guest: Guest, at: Snapshot) -> Tracking:
    return Tracking("", lambda since: [])


def lower(guest: Guest, at: Snapshot) -> Tracking:
    return Tracking(f"{UUID}/0", lambda since: [])


def distrusted(guest: Guest, at: Snapshot) -> Tracking:
    return guest.tracking(at, distrust="The VM was reverted to a snapshot.", allocated=list)


def refused(guest: Guest, at: Snapshot) -> Tracking:
    def areas(since: str) -> Iterable[tuple[int, int]]:
        yield 0, BLOCK
        raise TrackingRefused("The server cannot tell the changes.", said="vim.fault.FileFault")

    return Tracking(at.change_id, areas)


def beyond(guest: Guest, at: Snapshot) -> Tracking:
    return Tracking(at.change_id, lambda since: [(0, BLOCK), (guest.size - 512, 1024)])


def descending(guest: Guest, at: Snapshot) -> Tracking:
    return Tracking(at.change_id, lambda since: [(BLOCK, BLOCK), (0, BLOCK)])


DOUBTS = [
    (other_uuid, "another UUID"),
    (empty, "tracking is off"),
    (lower, "went back from"),
    (distrusted, "reverted"),
    (refused, "FileFault"),
    (beyond, "beyond the disk"),
    (descending, "out of order"),
]


@pytest.mark.fault(
    "another UUID, no changeId, a lower sequence, a revert, areas refused, beyond the disk or out of order",
    where="tracking",
    ends="the whole disk is compared, with the reason: equal",
)
@pytest.mark.parametrize(("doubt", "said"), DOUBTS)
def test_doubt_means_comparing_everything(way: Way, guest: Guest, doubt: Any, said: str) -> None:
    way.copy(guest.snapshot())
    guest.work(3)
    at = guest.snapshot()
    result = way.copy(at, tracking=doubt(guest, at))
    assert way.equal(at), "a change that the tracking did not tell is missing"
    assert result.mode == "compare" and said in result.reason
    assert result.bytes_written < result.bytes_read, "unchanged chunks are read, not written"
    assert (way.fact("change_id") or "") == doubt(guest, at).change_id


@pytest.mark.parametrize(("doubt", "said"), DOUBTS)
def test_incremental_refuses_to_do_more(way: Way, guest: Guest, doubt: Any, said: str) -> None:
    with pytest.raises(errors.BadInput) as caught:
        way.copy(guest.snapshot(), mode="incremental")
    assert caught.value.code == "not_incremental"
    first = guest.snapshot()
    way.copy(first)
    guest.work(3)
    at = guest.snapshot()
    with pytest.raises(errors.BadInput) as caught:
        way.copy(at, tracking=doubt(guest, at), mode="incremental")
    assert caught.value.code == "not_incremental" and said in (caught.value.said or "")
    assert way.equal(first) and way.fact("change_id") == first.change_id, "refused, and nothing was touched"
    assert way.copy(at, mode="incremental").mode == "incremental" and way.equal(at)


@pytest.mark.fault("vCenter is away when areas are asked for", where="tracking", ends="fails; the next run is a delta")
def test_a_server_that_is_away_ends_the_run_and_compares_nothing(way: Way, guest: Guest) -> None:
    first = guest.snapshot()
    way.copy(first)
    guest.work()
    at = guest.snapshot()

    def areas(since: str) -> Iterator[tuple[int, int]]:
        yield 0, BLOCK
        raise errors.FerryError("No answer.", code="unreachable")

    with pytest.raises(errors.FerryError, match="No answer"):
        way.copy(at, tracking=Tracking(at.change_id, areas))
    assert (way.fact("state"), way.fact("planned")) == ("complete", first.change_id)
    assert way.copy(at).mode == "incremental" and way.equal(at)


def test_full_reads_and_writes_everything_again(way: Way, guest: Guest) -> None:
    way.copy(guest.snapshot())
    guest.work()
    at = guest.snapshot()
    result = way.copy(at, mode="full")
    assert way.equal(at) and result.mode == "full" and "asked for" in result.reason
    assert result.bytes_read == sum(n for _at, n in way.reads) > guest.size / 4
    assert way.copy(at).mode == "none"


@pytest.mark.fault("the disk is resized", where="tracking", ends="the whole disk is compared: equal")
@pytest.mark.parametrize("verify", ["none", "full"])
def test_a_resized_disk_is_compared(way: Way, guest: Guest, verify: str) -> None:
    way.copy(guest.snapshot())
    for size in (29 * MIB + 512, 30 * MIB, 7 * MIB + 1024):
        guest.bytes = (guest.bytes + bytes(size))[:size]
        guest.size = size
        guest.write(size - 100_000, b"the end" * 1000)
        at = guest.snapshot()
        with pytest.raises(errors.BadInput):
            way.copy(at, mode="incremental")
        result = way.copy(at, verify=verify, tracking=Tracking(at.change_id, lambda since: []))
        assert way.equal(at)
        assert result.mode == "compare" and "resized" in result.reason and result.bytes_written <= 8 * MIB
        assert way.copy(at).mode == "none"


class Breaking(FileSink):
    """A storage that fails when it is asked to make things durable."""

    def flush(self) -> None:
        if self.broken:
            raise errors.SinkError("The target cannot be made durable.")
        super().flush()

    broken = False


@pytest.mark.fault("the flush fails", where="copy", ends="the changeId is not committed; the next run is equal")
def test_the_change_id_is_committed_after_the_flush(way: Way, guest: Guest) -> None:
    first = guest.snapshot()
    way.copy(first)
    guest.work()
    at = guest.snapshot()
    with way.job(at, sink=Breaking) as job:
        assert job.prepare()
        for unit in copy._units(job):
            job.work(unit)
        job.sink.broken = True
        with pytest.raises(errors.SinkError):
            job.finish()
    assert (way.fact("change_id"), way.fact("planned"), way.fact("state")) == (first.change_id, at.change_id, "copying")
    assert way.copy(at).change_id == at.change_id and way.equal(at)


@pytest.mark.fault("stopped while areas are read", where="tracking", ends="the old plan stays; the next delta is equal")
def test_planned_is_never_ahead_of_what_is_known_to_be_dirty(way: Way, guest: Guest) -> None:
    """The areas come in parts; whatever ends that in the middle leaves the old plan."""
    first = guest.snapshot()
    way.copy(first)
    guest.work(30)
    at = guest.snapshot()

    def areas(since: str) -> Iterator[tuple[int, int]]:
        for n, area in enumerate(guest.areas(since, at)):
            if n == 3:
                raise KeyboardInterrupt
            yield area

    with pytest.raises(KeyboardInterrupt):
        way.copy(at, tracking=Tracking(at.change_id, areas))
    assert (way.fact("planned"), way.fact("state")) == (first.change_id, "complete")
    guest.work()
    last = guest.snapshot()
    assert way.copy(last).mode == "incremental" and way.equal(last)


@pytest.mark.fault("a delta is cut off again and again", where="copy", ends="goes on with the newest snapshot: equal")
@pytest.mark.parametrize("verify", ["none", "sample"])
def test_an_interrupted_delta_goes_on_with_the_next_snapshot(way: Way, guest: Guest, verify: str) -> None:
    way.copy(guest.snapshot())
    rng = random.Random(5)
    for _attempt in range(6):
        guest.work()
        at = guest.snapshot()
        with way.job(at, unit=MIB) as job:
            job.proving = verify != "none"
            job.prepare()
            units = list(copy._units(job))
            for unit in units[: rng.randrange(len(units))]:
                job.work(unit)
    guest.work()
    at = guest.snapshot()
    result = way.copy(at, verify=verify)
    assert way.equal(at) and result.mode == "incremental" and result.repaired == 0


def test_an_interrupted_full_copy_goes_on_with_the_next_snapshot(way: Way, guest: Guest) -> None:
    at = guest.snapshot()
    with way.job(at, unit=MIB) as job:
        job.prepare()
        for unit in list(job.units())[:11]:
            job.work(unit)
    guest.work()
    at = guest.snapshot()
    with pytest.raises(errors.BadInput) as caught:
        way.copy(at, mode="incremental")
    assert caught.value.code == "not_incremental"
    result = way.copy(at, unit=4 * MIB)
    assert way.equal(at) and result.mode == "full" and result.bytes_resumed > 0
    assert result.change_id == at.change_id
    guest.work(2)
    at = guest.snapshot()
    assert way.copy(at).mode == "incremental" and way.equal(at)


@pytest.mark.fault(
    "cut off in a comparison, and the source goes back to what it was", where="copy", ends="half written chunks are not believed: equal"
)
def test_a_half_written_chunk_is_not_believed_when_the_source_goes_back(way: Way, guest: Guest) -> None:
    """A, then B half copied, then A again: the digest of A is still in the ledger, the bytes of B stand on the target."""
    before = bytes(guest.bytes[5 * MIB : 6 * MIB])
    way.copy(guest.snapshot())
    guest.write(5 * MIB, b"B" * MIB)
    at = guest.snapshot()
    with way.job(at, tracking=distrusted(guest, at)) as job:
        job.prepare()
        job.sink.write(5 * MIB, b"B" * MIB)  # and then it was killed
        job.sink.flush()
    guest.write(5 * MIB, before)
    at = guest.snapshot()
    way.copy(at, tracking=distrusted(guest, at))
    assert way.equal(at)


@pytest.mark.fault("somebody writes beside a changed area", where="target", ends="found by its digest, mended and counted")
def test_an_altered_rest_of_a_chunk_is_mended(way: Way, guest: Guest) -> None:
    """With proof, the bytes around a changed area are compared with the digest before the new one is made."""
    way.copy(guest.snapshot())
    guest.write(9 * MIB, b"changed")
    at = guest.snapshot()
    with way.job(at) as job:
        job.proving = True
        job.prepare()
        job.sink.write(9 * MIB + 500_000, b"somebody else")
        for unit in copy._units(job):
            job.work(unit)
        job.finish()
        assert job.result.repaired == 1
    assert way.equal(at)


def test_an_altered_target_is_mended_beside_the_changes(way: Way, guest: Guest) -> None:
    way.copy(guest.snapshot(), verify="sample")
    with open(way.target, "r+b") as f:
        f.seek(7 * MIB)
        f.write(b"altered by hand")
    guest.write(20 * MIB, b"changed")
    at = guest.snapshot()
    result = way.copy(at)
    assert way.equal(at) and result.mode == "incremental" and result.repaired == 1 and result.extra["target_altered"]


def test_allocated_areas_save_reading_zeroes(way: Way, guest: Guest) -> None:
    flat = guest.folder / "flat"
    flat.write_bytes(guest.bytes)  # no holes: as over https
    data = [(at, BLOCK) for at in range(0, guest.size - BLOCK, BLOCK) if any(guest.bytes[at : at + BLOCK])]
    data.append((guest.size - 3 * 512, 3 * 512))
    at = Snapshot(guest.snapshot().number, flat, f"{UUID}/1")
    result = way.copy(at, tracking=guest.tracking(at, allocated=lambda: data), outside=0.2)
    assert way.equal(at) and result.mode == "full"
    allocated = sum(n for _start, n in data)
    assert result.bytes_read <= allocated + result.outside_checked * MIB < guest.size
    assert result.outside_wrong == 0


@pytest.mark.fault('"*" fails in the middle', where="tracking", ends="the rest is read: equal")
def test_a_hint_that_fails_in_the_middle_is_read_on_from_there(way: Way, guest: Guest) -> None:
    def allocated() -> Iterator[tuple[int, int]]:
        yield 0, 10 * MIB
        raise TrackingRefused("FileFault")

    at = guest.snapshot()
    way.copy(at, tracking=guest.tracking(at, allocated=allocated))
    assert way.equal(at)


def test_a_ledger_of_the_first_version_goes_on(way: Way, guest: Guest) -> None:
    import sqlite3

    at = guest.snapshot()
    way.copy(at, untracked=True)
    with sqlite3.connect(way.folder / "ledger.sqlite") as db:
        db.execute("DROP TABLE dirty")
        db.execute("DELETE FROM facts WHERE name IN ('planned', 'change_id', 'pass', 'reason')")
        db.execute("PRAGMA user_version=1")
    db.close()
    assert way.copy(at, untracked=True).mode == "none"
    result = way.copy(at)
    assert result.mode == "compare" and result.bytes_written == 0 and result.change_id == at.change_id
    guest.work(2)
    at = guest.snapshot()
    assert way.copy(at).mode == "incremental" and way.equal(at)


def test_neither_a_short_read_nor_a_long_one_is_data(way: Way, guest: Guest) -> None:
    class Short(FileSource):
        def read(self, offset: int, length: int) -> bytes:
            return super().read(offset, length)[:-1]

    at = guest.snapshot()
    source = Short(str(at.path))
    sink = FileSink(str(way.target), source.capacity)
    book = ledger.Ledger(str(way.folder / "ledger.sqlite"), source.capacity)
    with pytest.raises(errors.SourceError, match="where"):
        copy.run([copy.Job("d", source, sink, book)])
    assert not book.known
    book.close(), sink.close(), source.close()
