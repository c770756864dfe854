# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources that can only be read once and in order, budgets, and several disks under one pool."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import copy, errors, ledger
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Extent, Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sinks.file import FileSink
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.file import FileSource

from .guest import MIB, Guest, Snapshot


class Stream:
    """A snapshot as a lease gives it: pieces in order, zeroes left out, once."""

    sequential = True

    def __init__(self, at: Snapshot, seed: int = 1, breaks: int | None = None) -> None:
        self.data = at.path.read_bytes()
        self.capacity = len(self.data)
        self.identity = f"stream:{at.number}"
        self.rng = random.Random(seed)
        self.breaks = breaks
        self.given = 0

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        yield Extent(0, self.capacity, Kind.DATA)

    def stream(self) -> Iterator[tuple[int, bytes]]:
        at = 0
        while at < self.capacity:
            length = min(self.rng.choice([512, 65_536, 3 * MIB]), self.capacity - at)
            piece = self.data[at : at + length]
            if piece.strip(b"\0"):
                if self.breaks is not None and at >= self.breaks:
                    raise errors.SourceError("The connection was cut.", step="read")
                self.given += length
                yield at, piece
            at += length

    def read(self, offset: int, length: int) -> bytes:
        raise AssertionError("a stream cannot be read by range")

    def close(self) -> None:
        pass


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path, 30 * MIB + 3 * 512)


def take(folder: Path, source: Any, guest: Guest, at: Snapshot | None = None, verify: str = "none", **options: Any) -> copy.Result:
    sink = options.pop("sink", FileSink)(str(folder / "target"), source.capacity)
    book = ledger.Ledger(str(folder / "ledger"), source.capacity)
    try:
        tracking = guest.tracking(at) if at else None
        return copy.run([copy.Job("d", source, sink, book, tracking=tracking, **options)], verify=verify)[0]
    finally:
        book.close()
        sink.close()


@pytest.mark.parametrize("unit", [1, 4, 7])
@pytest.mark.parametrize("verify", ["none", "full"])
def test_a_stream_ends_equal(tmp_path: Path, guest: Guest, unit: int, verify: str) -> None:
    at = guest.snapshot()
    source = Stream(at, seed=unit)
    result = take(tmp_path, source, guest, at, verify, unit=unit * MIB)
    assert (tmp_path / "target").read_bytes() == source.data
    assert (result.mode, result.bytes_read, result.change_id) == ("full", source.given, at.change_id)
    flat = FileSource(str(at.path))
    again = take(tmp_path, flat, guest, at)
    assert again.mode == "incremental" and again.bytes_written == 0 and again.digest == result.digest, "the other way goes on from there"


@pytest.mark.fault("a stream breaks in the middle", where="source", ends="the next run reads it anew and writes only the rest")
def test_a_stream_that_breaks_is_read_anew_and_only_the_rest_is_written(tmp_path: Path, guest: Guest) -> None:
    at = guest.snapshot()
    with pytest.raises(errors.SourceError, match="cut") as caught:
        take(tmp_path, Stream(at, breaks=20 * MIB), guest, at)
    assert caught.value.disk == "d"
    result = take(tmp_path, Stream(at, seed=3), guest, at)
    assert (tmp_path / "target").read_bytes() == at.path.read_bytes()
    assert result.bytes_written < 16 * MIB, "what stood there was written again"


def test_a_later_stream_writes_what_differs(tmp_path: Path, guest: Guest) -> None:
    take(tmp_path, Stream(first := guest.snapshot()), guest, first)
    guest.work(3)
    at = guest.snapshot()
    with pytest.raises(errors.BadInput):
        take(tmp_path, Stream(at), guest, at, mode="incremental")
    result = take(tmp_path, Stream(at), guest, at)
    assert (tmp_path / "target").read_bytes() == at.path.read_bytes()
    assert result.mode == "compare" and "as a whole" in result.reason and result.bytes_written <= 8 * MIB


class Backwards(Stream):
    def stream(self) -> Iterator[tuple[int, bytes]]:
        yield MIB, b"x" * MIB
        yield 0, b"x" * MIB


class Beyond(Stream):
    def stream(self) -> Iterator[tuple[int, bytes]]:
        yield self.capacity - 1, b"xx"


@pytest.mark.fault("a stream goes back, or beyond the disk", where="source", ends="fails: never data")
@pytest.mark.parametrize("kind", [Backwards, Beyond])
def test_a_stream_that_cannot_be_is_an_error(tmp_path: Path, guest: Guest, kind: Any) -> None:
    with pytest.raises(errors.SourceError, match="The stream gave"):
        take(tmp_path, kind(guest.snapshot()), guest)


def test_an_error_of_the_target_stops_the_reader(tmp_path: Path, guest: Guest) -> None:
    class Full(FileSink):
        def write(self, offset: int, data: bytes | memoryview) -> None:
            raise errors.SinkError("Full.", code="target_full")

    with pytest.raises(errors.SinkError):
        take(tmp_path, Stream(guest.snapshot()), guest, sink=Full)
    assert not [t for t in threading.enumerate() if t.name in ("stream", "copy-0")]


def test_the_budget_is_asked_before_each_read(tmp_path: Path, guest: Guest) -> None:
    at = guest.snapshot()
    paid: list[int] = []
    lock = threading.Lock()

    class Checked(FileSource):
        def read(self, offset: int, length: int) -> bytes:
            with lock:
                self.seen += length
                assert self.seen <= sum(paid)
            return super().read(offset, length)

        seen = 0

    result = take(tmp_path, Checked(str(at.path)), guest, at, throttle=paid.append)
    assert sum(paid) == result.bytes_read and max(paid) <= MIB
    paid.clear()
    guest.work()
    at = guest.snapshot()
    result = take(tmp_path, Stream(at), guest, at, throttle=paid.append)
    assert sum(paid) == result.bytes_read


@pytest.mark.fault("one disk gets no budget", where="budget", ends="other disks are copied meanwhile; a stop ends the waiting")
def test_waiting_for_a_budget_holds_up_no_other_disk_and_ends_with_the_copy(tmp_path: Path, guest: Guest) -> None:
    """One disk gets nothing; the other is copied meanwhile, and then fails: the waiting one ends, too."""
    at = guest.snapshot()
    over = threading.Event()

    def never(length: int) -> None:
        assert over.wait(30), "the other disk was held up"

    class Second(FileSource):
        def read(self, offset: int, length: int) -> bytes:
            if offset >= 28 * MIB:
                over.set()
                raise errors.SourceError("Away.")
            return super().read(offset, length)

    jobs = []
    for name, kind, throttle in (("one", FileSource, never), ("two", Second, None)):
        source = kind(str(at.path))
        sink = FileSink(str(tmp_path / name), source.capacity)
        book = ledger.Ledger(str(tmp_path / f"{name}.sqlite"), source.capacity)
        jobs.append(copy.Job(name, source, sink, book, throttle=throttle, unit=MIB))
    guest.write(29 * MIB, b"data")
    with pytest.raises(errors.FerryError) as caught:
        copy.run(jobs, workers=3)
    assert caught.value.disk == "two"
    for job in jobs:
        job.ledger.close(), job.sink.close(), job.source.close()


def test_two_disks_take_turns(tmp_path: Path, guest: Guest) -> None:
    guest.write(0, b"x" * (guest.size - 1))
    at = guest.snapshot()
    order: list[str] = []

    class Named(FileSource):
        name = ""

        def read(self, offset: int, length: int) -> bytes:
            order.append(self.name)
            return super().read(offset, length)

    jobs = []
    for name in ("one", "two"):
        source = Named(str(at.path))
        source.name = name
        sink = FileSink(str(tmp_path / name), source.capacity)
        book = ledger.Ledger(str(tmp_path / f"{name}.sqlite"), source.capacity)
        jobs.append(copy.Job(name, source, sink, book, unit=MIB))
    copy.run(jobs, workers=1)
    half = len(order) // 2
    assert abs(order[:half].count("one") - half / 2) <= 2, order
    for job in jobs:
        job.ledger.close(), job.sink.close(), job.source.close()
