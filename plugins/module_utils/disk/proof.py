# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proof of what was copied: the target read back, and the source looked at where nothing is said to have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .digest import CHUNK, chunk_digest, zero_digest
from .errors import FerryError
from .ledger import BASE, DATA, STALE, UNKNOWN, ZERO

if TYPE_CHECKING:
    from .job import Job

_ZERO_CHUNK = bytes(CHUNK)


def digest_of(piece: bytes | memoryview) -> bytes:
    """The digest of one chunk's bytes."""
    if len(piece) == CHUNK and piece[:1] == b"\0" and piece == _ZERO_CHUNK:
        return zero_digest()
    return bytes(chunk_digest(piece))


def differs(job: Job, first: int, count: int) -> list[int]:
    """The chunks among these whose bytes on the target are not what the ledger says, those without a digest among them.

    What should be zero is looked at like all the rest; only where the file system says that nothing is stored there, it is
    not read.
    """
    ledger, sink = job.ledger, job.sink
    size = job.size(first, count)
    hole = getattr(sink, "is_hole", None)
    known = ledger.states(first, count)
    if all(s & BASE == ZERO for s in known) and hole is not None and hole(first * CHUNK, size):
        return []
    data = sink.read(first * CHUNK, size)
    wrong = []
    for i in range(count):
        piece = data[i * CHUNK : (i + 1) * CHUNK]
        if known[i] & BASE == STALE or digest_of(piece) != ledger.digests.get(first + i):
            wrong.append(first + i)
    return wrong


def verify(job: Job, first: int, count: int) -> None:
    """Read the chunks back; what differs is copied again from the source and read back once more.

    :raises FerryError: (code C(target_damaged)) it differs again, or the source cannot be read a second time.
    """
    wrong = differs(job, first, count)
    for chunk in wrong:
        _mend(job, chunk)
        if differs(job, chunk, 1):
            raise _damaged(job, chunk, "also after a second try")
    with job.lock:
        size = job.size(first, count)
        job.done += size
        job.result.bytes_verified += size
        job.result.repaired += len(wrong)


def _mend(job: Job, chunk: int) -> None:
    if job.sequential:
        raise _damaged(job, chunk, "and its source can only be read as a whole")
    length = job.ledger.digests.length_of(chunk)
    data = bytes(job.read(chunk * CHUNK, length))
    if data == bytes(length):
        job.sink.zero(chunk * CHUNK, length)
        job.ledger.mark(chunk, bytes([ZERO]), None)
    else:
        job.sink.write(chunk * CHUNK, data)
        job.ledger.mark(chunk, bytes([DATA]), bytes(chunk_digest(data)))


def _damaged(job: Job, chunk: int, why: str) -> FerryError:
    # The ledger has called the copy complete: it is not. The next run copies this chunk anew.
    job.ledger.mark(chunk, bytes([UNKNOWN]), None)
    job.ledger.set(state="copying", **{"pass": "repair", "reason": "The target gave back other bytes than were written."})
    return FerryError(
        f"The target gives back other bytes than were written, at byte {chunk * CHUNK}, {why}.",
        code="target_damaged",
        disk=job.disk,
        step="verify",
        next_command="look at the target's storage, then run the same command again; do not start the VM from this disk",
    )


def outside(job: Job, chunk: int) -> None:
    """Compare a chunk that is said to be unchanged, or to be changed in the areas that were copied, with the source."""
    ledger = job.ledger
    length = ledger.digests.length_of(chunk)
    found = digest_of(bytes(job.read(chunk * CHUNK, length)))
    # One that was written in parts has no digest.
    stale = ledger.state(chunk) & BASE == STALE
    kept = digest_of(bytes(job.sink.read(chunk * CHUNK, length))) if stale else ledger.digests.get(chunk)
    with job.lock:
        job.result.outside_checked += 1
        job.result.outside_wrong += found != kept
