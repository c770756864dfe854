# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading part of a disk to see how fast it is. Nothing is written anywhere; an export lease is given back unfinished."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, cast

from ..disk import nbdkit
from ..disk.model import Kind, Source
from ..disk.sources.nbd import NbdSource
from ..errors import BadInput
from ..vsphere import nfc
from ..vsphere.client import Session
from ..vsphere.disks import VmDisk
from ..vsphere.find import VmRef
from ..vsphere.snapshot_tree import Snapshot
from . import sources, ways

#: Bytes of one request, as a copy has them.
_CHUNK = 1 << 20
_ZEROES = bytes(_CHUNK)
#: Gets the bytes read so far and those wanted.
Tell = Callable[[int, int], None]
#: What it raises ends the reading.
Stop = Callable[[], None]


@dataclass(frozen=True)
class Read:
    """C(count) bytes of the disk in C(seconds); C(zeroes) of them in chunks that hold nothing else."""

    count: int
    zeroes: int
    seconds: float


def readable(disks: Sequence[VmDisk], transport: str) -> list[VmDisk]:
    """Those of C(disks) that can be read by C(transport), the largest first."""
    found = []
    for disk in disks:
        if disk.rdm_mode == "physicalMode":
            continue
        with contextlib.suppress(BadInput):
            ways.choose(transport, disk, nbd=True)
            found.append(disk)
    return sorted(found, key=lambda d: -d.capacity)


def read(
    session: Session, ref: VmRef, disk: VmDisk, snapshot: Snapshot | None, transport: str, params: Mapping[str, Any], tell: Tell, stop: Stop
) -> Read:
    """Read up to C(bytes) of C(disk) for at most C(seconds).

    :param params: C(bytes), C(seconds), C(workers), C(patience), C(vddk) as the module doctor_read has them.
    :raises FerryError: it cannot be opened or read.
    """
    most, limit = min(int(params["bytes"]), disk.capacity), float(params["seconds"])
    with contextlib.ExitStack() as stack:
        if transport == "nfc":
            return _stream(session, ref, disk, snapshot, params, stack, tell, stop)
        if transport == "https":
            source: Source = sources.open_https(session, disk, stop=stop, patience=float(params["patience"]))
        else:
            source = _nbd(session, ref, disk, snapshot, params, stack, stop)
        stack.callback(source.close)
        return _ranges(source, most, limit, int(params["workers"]), tell, stop)


def _ranges(source: Source, most: int, limit: float, workers: int, tell: Tell, stop: Stop) -> Read:
    """Read C(source) from its beginning with several requests at once, as a copy does."""
    began = time.monotonic()
    count = zeroes = 0
    chunks = _chunks(source, most)
    waiting: set[Future[bytes]] = set()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for offset, length in chunks:
                waiting.add(pool.submit(source.read, offset, length))
                if len(waiting) >= 2 * workers:
                    more, nothing, waiting = _done(waiting)
                    count, zeroes = count + more, zeroes + nothing
                    tell(count, most)
                    stop()
                    if time.monotonic() - began >= limit:
                        break
            while waiting:
                more, nothing, waiting = _done(waiting)
                count, zeroes = count + more, zeroes + nothing
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
    return Read(count, zeroes, time.monotonic() - began)


def _done(waiting: set[Future[bytes]]) -> tuple[int, int, set[Future[bytes]]]:
    """(bytes, zero bytes, what is still under way) after at least one of C(waiting) has come."""
    done, rest = wait(waiting, return_when=FIRST_COMPLETED)
    answers = [future.result() for future in done]
    return sum(map(len, answers)), sum(len(a) for a in answers if a == _ZEROES[: len(a)]), set(rest)


def _chunks(source: Source, most: int) -> Iterator[tuple[int, int]]:
    """Parts of C(source) that hold data, C(most) bytes of them."""
    for extent in source.extents():
        at = extent.start
        while extent.kind == Kind.DATA and at < extent.end and most > 0:
            length = min(_CHUNK, extent.end - at, most)
            yield at, length
            at, most = at + length, most - length
        if most <= 0:
            return


def _nbd(
    session: Session,
    ref: VmRef,
    disk: VmDisk,
    snapshot: Snapshot | None,
    params: Mapping[str, Any],
    stack: contextlib.ExitStack,
    stop: Stop,
) -> Source:
    where = session.endpoint
    uri = stack.enter_context(
        nbdkit.serve_vddk(
            params["vddk"],
            server=where.host,
            port=where.port,
            user=where.username,
            password=where.password,
            vm=ref.moref,
            snapshot=snapshot.moref if snapshot is not None else None,
            file=disk.path,
            context=session.ssl_context,
            stop=stop,
        )
    )
    return NbdSource(
        uri, name=disk.label, capacity=disk.capacity, connections=int(params["workers"]), patience=float(params["patience"]), stop=stop
    )


def _stream(
    session: Session,
    ref: VmRef,
    disk: VmDisk,
    snapshot: Snapshot | None,
    params: Mapping[str, Any],
    stack: contextlib.ExitStack,
    tell: Tell,
    stop: Stop,
) -> Read:
    """Read the beginning of an export."""
    most, limit = min(int(params["bytes"]), disk.capacity), float(params["seconds"])
    lease = nfc.export_lease(session, ref, snapshot, stop=stop)
    stack.callback(lease.abort)
    found = lease.disks.get(disk.key)
    if found is None:
        raise BadInput("The export does not hold this disk.", code="not_in_export", disk=disk.label, step="open the source")
    source = sources.open_nfc(session, found.url, disk, thumbprint=found.thumbprint, stop=stop, patience=float(params["patience"]))
    stack.callback(source.close)
    began = time.monotonic()
    count = zeroes = 0
    with contextlib.closing(cast(Generator[tuple[int, bytes], None, None], source.stream())) as stream:
        for _offset, data in stream:
            count += len(data)
            zeroes += len(data) if data == _ZEROES[: len(data)] else 0
            tell(min(count, most), most)
            stop()
            if count >= most or time.monotonic() - began >= limit:
                break
    return Read(count, zeroes, time.monotonic() - began)
