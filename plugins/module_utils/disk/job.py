# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One disk to be copied: its units of work, how one is carried out, and when what was done is durable.

Zeroes are looked for at 64 KiB and never written to a target that reads as zeroes there.
"""

from __future__ import annotations

import contextlib
import threading
import time
from array import array
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Iterator

from . import buffers, incremental, passes
from .changes import Tracking, checked, refuses_tracking
from .digest import CHUNK, SIZE, chunk_digest, zero_digest
from .errors import BadInput, FerryError, Interrupted, SourceError
from .ledger import BASE, DATA, DIRTY, ZERO, Ledger, left, whole
from .model import Extent, Kind, Sink, Source
from .pool import Watcher

MODES = ("auto", "full", "incremental")
_BLOCK = 64 << 10
_ZEROES = {n: bytes(n) for n in (_BLOCK, CHUNK)}
#: A run of zeroes is recorded in pieces of this many chunks: small enough to be interrupted, large enough to cost nothing.
_ZERO_RUN = 64 * 1024
#: What a budget is asked for at once (bytes), so that a copy that waits for it can be stopped.
_SLICE = 1 << 20
_AT_ONCE = 64  # areas that a source is asked for at once


@dataclass
class Result:
    """What was done for one disk; bytes and seconds."""

    disk: str
    capacity: int
    #: full, incremental, compare, repair or none; and why it was not less, in a sentence.
    mode: str = "full"
    reason: str = ""
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_skipped: int = 0
    bytes_resumed: int = 0
    #: The changed areas since the pass before: how many, and their bytes.
    areas: int = 0
    changed_bytes: int = 0
    #: The changeId at which the target equals the disk; None where that is not known.
    change_id: str | None = None
    digest: str = ""
    verified: str = "none"
    bytes_verified: int = 0
    repaired: int = 0
    #: Chunks outside the changed areas that were compared with the source, their share of all those, and how many differed.
    outside_checked: int = 0
    outside_share: float = 0.0
    outside_wrong: int = 0
    seconds: float = 0.0
    changed: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        out = {k: v for k, v in vars(self).items() if k != "extra"}
        out["seconds"] = round(self.seconds, 3)
        return {**out, **self.extra}


@dataclass(frozen=True)
class Unit:
    """A piece of work: chunks C(first) to C(first + count).

    C(ranges) of them hold data (empty: all zeroes), unless C(areas) says that only these are to be copied, by chunk, or
    C(data) has arrived already.
    """

    first: int
    count: int
    ranges: tuple[tuple[int, int], ...] = ()
    areas: tuple[tuple[int, list[tuple[int, int]]], ...] | None = None
    data: bytearray | None = None


class Job:
    """One disk to be copied from C(source) to C(sink), recorded in C(ledger).

    :param unit: bytes that are read and recorded at once, a multiple of 1 MiB.
    :param tracking: where changed-block tracking is on, what it says; else a changed source is compared whole.
    :param throttle: called with a number of bytes before they are read; it waits for as long as a budget wants.
    :param mode: C(auto); C(full): everything is read and written again; C(incremental): refuse to do more than the changes.
    """

    unit_type = Unit
    #: Whether an identity of the source that is the same says that nothing has changed since a copy that is complete.
    certain = True

    def __init__(
        self,
        disk: str,
        source: Source,
        sink: Sink,
        ledger: Ledger,
        *,
        unit: int = 8 * CHUNK,
        tracking: Tracking | None = None,
        throttle: Callable[[int], None] | None = None,
        mode: str = "auto",
    ) -> None:
        if source.capacity != ledger.capacity:
            raise BadInput("The ledger is of a disk of another size.", disk=disk)
        if unit % CHUNK or not 0 < unit <= 64 * CHUNK:
            raise BadInput(f"chunk_size must be a multiple of {CHUNK} bytes, at most {64 * CHUNK}.", disk=disk)
        if mode not in MODES:
            raise BadInput(f"mode must be one of {', '.join(MODES)}.", disk=disk)
        self.disk = disk
        self.source = source
        self.sink = sink
        self.ledger = ledger
        self.tracking = tracking
        self.throttle = throttle
        self.mode = mode
        self.per_unit = unit // CHUNK
        self.sequential = bool(getattr(source, "sequential", False))
        self.result = Result(disk, source.capacity)
        self.done = 0
        self.lock = threading.Lock()
        self.phase = "copy"
        self.halt = threading.Event()
        #: Who is told of what C(prepare) does, where that takes long.
        self.watcher: Watcher | None = None
        #: Whether what is written is proven on the way (verification is on).
        self.proving = False
        #: Whether the run before ended in the middle.
        self.cut_off = False
        #: Whether the target reads as zeroes wherever nothing of ours is known to be.
        self.fresh = False
        #: Whether a pass of changes alone found none.
        self.idle = False
        #: What C(*) says is allocated, in this pass; set beforehand by who has it without tracking.
        self.hint: Callable[[], Any] | None = None
        #: Whether it has left anything out.
        self.narrowed = False
        #: Chunks in which this run has copied areas, in no order.
        self.in_part = array("L")
        self._unflushed = 0
        self._read_before = 0
        self._dirt: tuple[int, list[tuple[int, list[tuple[int, int]]]]] | None = None

    # -- what is to be done -------------------------------------------------------------------------------------

    def prepare(self) -> bool:
        """Compare source and target with what the ledger knows, and begin a pass; True where there is something to do.

        :raises BadInput: (code C(not_incremental)) mode is C(incremental), and the changes alone do not suffice.
        """
        found = passes.prepare(self)
        self.result.changed = found
        self._read_before = self.result.bytes_read
        return found

    def wrote(self, chunks: Iterable[int]) -> None:
        """Areas in these chunks were copied."""
        with self.lock:
            self.in_part.extend(chunks)

    def doubted(self) -> None:
        """Called when changes were found missed, before the whole disk is compared: for who tells others what the target holds."""

    def extents(self) -> Iterator[Extent]:
        """The source's extents that hold data; where a hint of what is allocated may be trusted, only what is."""
        data = (e for e in self.source.extents() if e.kind == Kind.DATA)
        return data if self.hint is None else incremental.overlap(data, self._allocated(self.hint))

    def _allocated(self, hint: Callable[[], Any]) -> Iterator[tuple[int, int]]:
        end = 0
        try:
            for start, length in checked(hint(), self.source.capacity):
                self.narrowed = self.narrowed or start > end
                yield start, length
                end = start + length
            self.narrowed = self.narrowed or end < self.source.capacity
        except FerryError as e:
            if not refuses_tracking(e):
                raise
            # It may fail where CBT was not enabled in time: then all the rest is read.
            if end < self.source.capacity:
                yield end, self.source.capacity - end

    def dirt(self, number: int) -> list[tuple[int, list[tuple[int, int]]]]:
        """The chunks of segment C(number) in which areas are to be copied, with them; the last segment asked for is kept."""
        found = self._dirt
        if found is None or found[0] != number:
            found = self._dirt = (number, incremental.dirt(self, number))
        return found[1]

    def units(self) -> Iterator[Unit]:
        """The work in ascending order: runs of zeroes, and units that hold data."""
        per, capacity = self.per_unit, self.source.capacity
        size = per * CHUNK
        gap = getattr(self.source, "gap", 0)
        pending: list[tuple[int, int]] = []
        pending_unit = -1
        zeroes_from = 0  # chunks before this one are in units already given

        def data_unit() -> Iterator[Unit]:
            nonlocal zeroes_from
            first = pending_unit * per
            if first > zeroes_from:
                yield from self.zero_units(zeroes_from, first - zeroes_from)
            count = min(per, self.ledger.chunks - first)
            yield Unit(first, count, tuple(pending))
            zeroes_from = first + count
            pending.clear()

        for e in self.extents():
            at = e.start
            while at < e.end:
                number = at // size
                end = min(e.end, (number + 1) * size)
                if number != pending_unit and pending:
                    yield from data_unit()
                pending_unit = number
                if pending and at - (pending[-1][0] + pending[-1][1]) <= gap:
                    pending[-1] = (pending[-1][0], end - pending[-1][0])
                else:
                    pending.append((at, end - at))
                at = end
        if pending:
            yield from data_unit()
        if zeroes_from * CHUNK < capacity:
            yield from self.zero_units(zeroes_from, self.ledger.chunks - zeroes_from)

    @staticmethod
    def zero_units(first: int, count: int) -> Iterator[Unit]:
        """Chunks that are all zeroes, in units."""
        while count:
            part = min(count, _ZERO_RUN)
            yield Unit(first, part)
            first += part
            count -= part

    def left(self) -> int:
        """Bytes to be read in a pass of changed areas alone."""
        return self.ledger.dirty_bytes() + (CHUNK * self.ledger.stale_chunks if self.proving else 0)

    def settle(self) -> None:
        """A pass is through: what was not written needed no writing."""
        self.done = self.source.capacity
        self.result.bytes_skipped = max(0, self.source.capacity - self.result.bytes_written - self.result.bytes_resumed)

    def turn(self, phase: str) -> None:
        """Begin another phase: C(done) counts anew."""
        self.phase = phase
        self.done = 0
        self._read_before = self.result.bytes_read

    # -- doing it -----------------------------------------------------------------------------------------------

    def size(self, first: int, count: int) -> int:
        """Bytes in C(count) chunks from C(first) on."""
        return min((first + count) * CHUNK, self.source.capacity) - first * CHUNK

    def pay(self, length: int) -> None:
        """Wait until C(length) bytes may be read.

        :raises Interrupted: the copy is to stop.
        """
        if self.throttle is None:
            return
        while length > 0:
            if self.halt.is_set():
                raise Interrupted("Stopped while waiting for the read budget.", step="read")
            self.throttle(min(length, _SLICE))
            length -= _SLICE

    def read(self, start: int, length: int, *, lent: bool = False) -> bytes:
        """Exactly these bytes of the source.

        :param lent: they may be in memory that this thread's next such call overwrites.
        :raises SourceError: the source gave fewer or more.
        """
        self.pay(length)
        data: Any
        into = getattr(self.source, "read_into", None) if lent and length == self.per_unit * CHUNK else None
        if into is None:
            data = self.source.read(start, length)
        else:
            into(start, memoryview(data := buffers.mine(length)))
        self._received(start, length, data)
        return data  # type: ignore[no-any-return]  # a bytearray reads like bytes

    def _received(self, start: int, length: int, data: bytes | bytearray) -> None:
        if len(data) != length:
            raise SourceError(
                f"The source gave {len(data)} bytes where {length} were asked for, at byte {start}.", disk=self.disk, step="read"
            )
        with self.lock:
            self.result.bytes_read += length

    def read_areas(self, areas: list[tuple[int, int]]) -> list[tuple[int, bytes]]:
        """(start, bytes) of each of C(areas), by as few requests as the source can do with."""
        many = getattr(self.source, "read_many", None)
        if many is None or len(areas) < 2:
            return [(start, self.read(start, length)) for start, length in areas]
        out: list[tuple[int, bytes]] = []
        for i in range(0, len(areas), _AT_ONCE):
            asked = areas[i : i + _AT_ONCE]
            self.pay(sum(length for _start, length in asked))
            for (start, length), data in zip(asked, many(asked), strict=True):
                self._received(start, length, data)
                out.append((start, data))
        return out

    def work(self, unit: Unit) -> None:
        """Copy one unit. Called by several threads."""
        states = self.ledger.states(unit.first, unit.count)
        size = self.size(unit.first, unit.count)
        if unit.areas is not None:
            incremental.copy(self, unit.first, unit.count, unit.areas)
        elif unit.data is not None:
            self._chunks(unit, states, unit.data)
        elif 1 not in left(states, stale=self.proving):
            self.count(size, **{"resumed" if self.cut_off else "skipped": size})
        elif 1 not in whole(states):
            incremental.copy_unit(self, unit.first, unit.count)
        elif not unit.ranges:
            self._zeroes(unit, states)
        else:
            base = unit.first * CHUNK
            data: Any
            if len(unit.ranges) == 1 and unit.ranges[0] == (base, size):
                data = self.read(base, size, lent=True)
            else:
                data = bytearray(size)
                for start, length in unit.ranges:
                    data[start - base : start - base + length] = self.read(start, length)
            self._chunks(unit, states, data)

    def _chunks(self, unit: Unit, states: bytes, data: bytes | bytearray) -> None:
        """Bring the chunks of a unit, all of whose bytes are C(data), to the target."""
        written = 0
        view = memoryview(data)
        new_states = bytearray(unit.count)
        digests = bytearray(unit.count * SIZE)
        for i in range(unit.count):
            state, digest, wrote = self._chunk(unit.first + i, data, i * CHUNK, view, states[i])
            new_states[i] = state
            digests[i * SIZE : (i + 1) * SIZE] = digest
            written += wrote
        self.ledger.mark(unit.first, bytes(new_states), bytes(digests))
        self.count(len(data), written=written, skipped=len(data) - written)

    def _chunk(self, chunk: int, data: bytes | bytearray, at: int, view: memoryview, known: int) -> tuple[int, bytes, int]:
        """Bring one chunk to the target; its state, its digest and the bytes written."""
        piece = view[at : at + CHUNK]
        length, place = len(piece), chunk * CHUNK
        if is_zero(data, at, length):
            if not self.fresh and (known & BASE != ZERO or known & DIRTY):
                self.sink.zero(place, length)
            return ZERO, zero_digest(length), 0
        digest = bytes(chunk_digest(piece))
        # What was half written by a run that was cut off is DIRTY or UNKNOWN, or differs from the old digest.
        if known & BASE == DATA and not known & DIRTY and digest == self.ledger.digests.get(chunk):
            return DATA, digest, 0
        if not self.fresh:
            self.sink.write(place, piece)
            return DATA, digest, length
        return DATA, digest, self._write_sparse(place, data, at, length, view)

    def _write_sparse(self, place: int, data: bytes | bytearray, at: int, length: int, view: memoryview) -> int:
        written = 0
        for start, end, zero in blocks(data, at, at + length):
            if not zero:
                self.sink.write(place + start - at, view[start:end])
                written += end - start
        return written

    def put(self, place: int, data: bytes | bytearray | memoryview, start: int, length: int) -> int:
        """Write C(length) bytes of C(data) from C(start) on to the target at C(place), zeroes as zeroes; the bytes written."""
        written = 0
        view = memoryview(data)
        for at, end, zero in blocks(data, start, start + length):
            if zero:
                self.sink.zero(place + at - start, end - at)
            else:
                self.sink.write(place + at - start, view[at:end])
                written += end - at
        return written

    def _zeroes(self, unit: Unit, states: bytes) -> None:
        size = self.size(unit.first, unit.count)
        if not self.fresh:
            # Only where the ledger does not know zeroes already, in runs: punching what is empty is cheap, but not free.
            run: int | None = None
            for i in range(unit.count + 1):
                needs = i < unit.count and (states[i] & BASE != ZERO or bool(states[i] & DIRTY))
                if needs and run is None:
                    run = i
                elif not needs and run is not None:
                    self.sink.zero((unit.first + run) * CHUNK, self.size(unit.first + run, i - run))
                    run = None
        self.ledger.mark(unit.first, bytes([ZERO]) * unit.count, None)
        self.count(size, skipped=size)

    def count(self, size: int, *, written: int = 0, skipped: int = 0, resumed: int = 0) -> None:
        """Add to what is done (C(size) bytes of the whole) and to the result."""
        with self.lock:
            self.done += size
            self._unflushed += written
            r = self.result
            r.bytes_written += written
            r.bytes_skipped += skipped
            r.bytes_resumed += resumed

    # -- durability ---------------------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """Bytes of the disk."""
        return self.source.capacity

    @property
    def skipped(self) -> int:
        """Bytes of C(done) that needed no reading in this phase: what the rest took is the speed of the way."""
        return max(0, self.done - (self.result.bytes_read - self._read_before)) if self.phase == "copy" else 0

    @property
    def unflushed(self) -> int:
        """Bytes written since the last flush."""
        return self._unflushed

    def make_durable(self) -> None:
        """Flush the target, then record what was flushed. In this order: a crash between the two loses nothing."""
        position = self.ledger.position()
        with self.lock:
            self._unflushed = 0
        self.flush()
        self.ledger.commit(position)

    def flush(self) -> None:
        """Flush the target. Where that fails the kernel may have dropped what was written, and says so only once (fsync(2)): then
        no mark counts any more."""
        try:
            self.sink.flush()
        except BaseException:
            with contextlib.suppress(FerryError):  # the first error is the one to tell
                self.ledger.drop_marks()
            raise

    def finish(self) -> None:
        """All is copied: flush, and only then say so in the ledger, with the changeId.

        :raises SourceError: the source was written to meanwhile. Its chunks are of different moments; the next run compares all.
        """
        self.make_durable()
        unchanged = getattr(self.source, "unchanged", None)
        if unchanged is not None and not unchanged():
            raise SourceError(
                "The source was written to while it was being copied.",
                code="source_changed",
                disk=self.disk,
                step="finish",
                next_command="stop whoever writes to it, then run the same command again",
            )
        if not self.ledger.clean:
            raise FerryError("The ledger knows of chunks that were not copied.", code="ledger", disk=self.disk, step="finish")
        digest = "" if self.ledger.stale else self.ledger.digests.disk_digest()
        change_id = self.ledger.fact("planned")
        stamp = getattr(self.sink, "stamp", str)()
        done = time.time()
        self.ledger.set(state="complete", digest=digest, stamp=stamp, completed=done, change_id=change_id, unverified=self.proving)
        self.result.digest = digest
        self.result.change_id = change_id


def is_zero(data: bytes | bytearray | memoryview, at: int, length: int) -> bool:
    """Whether these bytes of C(data), at most 1 MiB, are all zero."""
    zero = _ZEROES.get(length) or bytes(length)
    if isinstance(data, memoryview):
        return bytes(data[at : at + length]) == zero
    return data.startswith(zero, at, at + length)  # compares in place; a slice would be a copy


def blocks(data: bytes | bytearray | memoryview, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """C(data) from C(start) to C(end) in runs of 64 KiB blocks: (start, end, whether it is all zeroes)."""
    run, kind = start, False
    for at in range(start, end, _BLOCK):
        zero = is_zero(data, at, min(_BLOCK, end - at))
        if at == start:
            kind = zero
        elif zero != kind:
            yield run, at, kind
            run, kind = at, zero
    if start < end:
        yield run, end, kind
