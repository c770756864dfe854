# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources that can only be read once, in order: a thread reads them, the pool takes units from a queue that it bounds."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Iterator

from .digest import CHUNK
from .errors import Interrupted, SourceError

if TYPE_CHECKING:
    from .job import Job, Unit

#: Units that wait for a worker.
_WAITING = 4
#: Seconds between two looks at whether the copy is to stop.
_LOOK = 0.2
#: Seconds for a reader that hangs in the network after the copy has stopped; it dies with the process otherwise.
_PATIENCE = 5.0


def units(job: Job) -> Iterator[Unit]:
    """The disk's units with their data, as they arrive."""
    waiting: queue.Queue[Unit | BaseException | None] = queue.Queue(_WAITING)
    stop = threading.Event()

    def stopped() -> bool:
        return stop.is_set() or job.halt.is_set()

    def hand(item: Unit | BaseException | None) -> None:
        while not stopped():
            try:
                waiting.put(item, timeout=_LOOK)
                return
            except queue.Full:
                continue
        raise Interrupted("Stopped.", step="read")

    def read() -> None:
        try:
            for unit in _cut(job):
                hand(unit)
            hand(None)
        except BaseException as e:  # noqa: BLE001 - raised again by the thread that takes units, below
            if not stopped():
                hand(e)

    reader = threading.Thread(target=read, name="stream", daemon=True)
    reader.start()
    try:
        while not stopped():
            try:
                item = waiting.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return
            yield item
    finally:
        stop.set()
        reader.join(_PATIENCE)


def _cut(job: Job) -> Iterator[Unit]:
    """The stream in units, gaps as zeroes; a unit of zeroes carries no data."""
    source, capacity = job.source, job.source.capacity
    size = job.per_unit * CHUNK
    number, buffer, end = 0, bytearray(0), 0

    def begin(n: int) -> bytearray:
        return bytearray(min(size, capacity - n * size))

    for start, piece in source.stream():  # type: ignore[attr-defined]  # only asked of sources that say they are sequential
        if start < end or start + len(piece) > capacity:
            raise SourceError(
                f"The stream gave {len(piece)} bytes for byte {start}, after {end} of {capacity}.", disk=job.disk, step="read"
            )
        # The size is known only once it is here: what was read is paid for before the next piece is taken.
        job.pay(len(piece))
        with job.lock:
            job.result.bytes_read += len(piece)
        end = start + len(piece)
        view = memoryview(piece)
        while view:
            n = start // size
            if n != number or not buffer:
                if buffer:
                    yield job.unit_type(number * job.per_unit, -(-len(buffer) // CHUNK), data=buffer)
                    number += 1
                yield from _gap(job, number, n)
                number, buffer = n, begin(n)
            at = start - n * size
            part = min(len(view), size - at)
            buffer[at : at + part] = view[:part]
            start += part
            view = view[part:]
    if buffer:
        yield job.unit_type(number * job.per_unit, -(-len(buffer) // CHUNK), data=buffer)
        number += 1
    yield from _gap(job, number, -(-capacity // size))


def _gap(job: Job, number: int, until: int) -> Iterator[Unit]:
    """The units of zeroes from unit C(number) to before unit C(until)."""
    if until > number:
        first = number * job.per_unit
        yield from job.zero_units(first, min(until * job.per_unit, job.ledger.chunks) - first)
