# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all writers of disks share: the interface, units of work, and an ordered pool."""

from __future__ import annotations

import os
import random
import secrets
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, Iterable, Iterator, Protocol, TypeVar

from ..errors import BadInput
from ..model import SECTOR, Kind, Source, merge
from .structs import MAX_SECTORS

#: A unit of work: 1 MiB, the chunk of the disk digest, a whole number of grains of any size that we write.
UNIT = 1 << 20
#: ESX, Workstation and VirtualBox of any age take a disk of this version.
DEFAULT_HW_VERSION = 4
DEFAULT_ADAPTER = "lsilogic"
_ZERO_UNIT = bytes(UNIT)
#: Units that a prediction reads at most.
SAMPLES = 384

In = TypeVar("In")
Out = TypeVar("Out")
#: Called with (bytes done, capacity); what it raises stops the work.
Progress = Callable[[int, int], None]
#: The same, with the name of the phase before them.
Phases = Callable[[str, int, int], None]


class Writer(Protocol):
    """A Sink (disk.model) that is finished: C(close) without C(finish) before it leaves an unusable file."""

    create_type: str
    capacity: int

    @property
    def reads_zero(self) -> bool: ...

    @property
    def bytes_out(self) -> int:
        """Bytes stored so far: what was written, and the format's own; holes left out."""

    def write(self, offset: int, data: bytes | memoryview) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...

    def flush(self) -> None: ...

    def read(self, offset: int, length: int) -> bytes: ...

    def finish(self) -> None:
        """Write what makes the file complete, and make it durable."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Identity:
    """What a new VMDK says of itself beyond its bytes."""

    name: str = "disk.vmdk"
    adapter_type: str = DEFAULT_ADAPTER
    hw_version: int = DEFAULT_HW_VERSION
    uuid: str | None = None
    cid: int | None = None

    @property
    def content_id(self) -> int:
        """The CID to write: the one given, or a fresh one (never the marks for "none")."""
        return secrets.randbelow(0xFFFFFFFD) + 1 if self.cid is None else self.cid


def checked_capacity(capacity: int) -> int:
    """C(capacity) in bytes where a VMDK can have it, else BadInput."""
    if capacity % SECTOR or not 0 <= capacity <= MAX_SECTORS * SECTOR:
        raise BadInput(f"A VMDK cannot hold {capacity} bytes: it has whole sectors of {SECTOR} bytes, up to {MAX_SECTORS * SECTOR}.")
    return capacity


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Unit:
    """C(length) bytes from C(offset), aligned to UNIT, of which C(ranges) (start, length) hold data."""

    offset: int
    length: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def data(self) -> int:
        """Bytes of data in it."""
        return sum(length for _start, length in self.ranges)


def units(source: Source) -> Iterator[Unit]:
    """The units of C(source) that hold data, ascending."""
    pending: list[tuple[int, int]] = []
    current = -1

    def unit() -> Unit:
        start = current * UNIT
        return Unit(start, min(UNIT, source.capacity - start), tuple(pending))

    for e in merge(source.extents()):
        if e.kind is not Kind.DATA:
            continue
        at = e.start
        while at < e.end:
            number = at // UNIT
            if number != current:
                if pending:
                    yield unit()
                pending = []
                current = number
            stop = min(e.end, (number + 1) * UNIT)
            pending.append((at, stop - at))
            at = stop
    if pending:
        yield unit()


def read_unit(source: Source, unit: Unit) -> bytes:
    """The bytes of C(unit); what is no data in it is not read."""
    if len(unit.ranges) == 1 and unit.ranges[0][1] == unit.length:
        return source.read(unit.offset, unit.length)
    out = bytearray(unit.length)
    for start, length in unit.ranges:
        out[start - unit.offset : start - unit.offset + length] = source.read(start, length)
    return bytes(out)


def fill_unit(source: Source, unit: Unit, buffer: bytearray) -> None:
    """As read_unit, into C(buffer), which has the unit's length and may hold anything."""
    view = memoryview(buffer)
    into = getattr(source, "read_into", None)
    at = 0
    for start, length in unit.ranges:
        begin = start - unit.offset
        if begin > at:
            view[at:begin] = bytes(begin - at)
        at = begin + length
        if into is not None:
            into(start, view[begin:at])
        else:
            view[begin:at] = source.read(start, length)
    if at < unit.length:
        view[at:] = bytes(unit.length - at)


def estimate(source: Source, size: Callable[[Unit, bytes], int], samples: int = SAMPLES) -> tuple[int, int]:
    """(bytes of data in C(source), sum of C(size) over its units), the latter from at most C(samples) of them.

    Reservoir sampling: one pass over the extents, memory for the samples alone. Seeded, so that two calls agree.
    """
    rng = random.Random(source.capacity)
    kept: list[Unit] = []
    count = total = 0
    for count, unit in enumerate(units(source), 1):
        total += unit.data
        if len(kept) < samples:
            kept.append(unit)
        elif (slot := rng.randrange(count)) < samples:
            kept[slot] = unit
    if not kept:
        return 0, 0
    # By the data in the samples, not by their number: units that are half a hole do not shift the sum.
    return total, sum(size(u, read_unit(source, u)) for u in kept) * total // sum(u.data for u in kept)


def is_zero(data: bytes | bytearray) -> bool:
    """True where all of C(data) (at most UNIT bytes) is zero."""
    return data == (_ZERO_UNIT if len(data) == UNIT else _ZERO_UNIT[: len(data)])


def ordered(work: Callable[[In], Out], items: Iterable[In], threads: int) -> Iterator[Out]:
    """C(work) of each item by C(threads) threads, results in the order of the items.

    At most 2 x threads + 1 results wait; the first exception reaches the caller and cancels what has not begun.
    """
    pending: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="vmdk") as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
