# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Going on with a target whose ledger is on another host, or lost: the digests are taken from the target itself."""

from __future__ import annotations

from dataclasses import dataclass

from .digest import CHUNK, SEGMENT, SIZE, chunk_digest, zero_digest
from .ledger import DATA, ZERO, Ledger
from .model import Sink
from .pool import Watcher

#: Bytes that are read at once.
_STEP = 4 * CHUNK


@dataclass(frozen=True)
class TakenOver:
    """What was found on the target; bytes."""

    #: Whether the target's digest is the one that its metadata gives: the ledger is as good as the lost one then.
    equal: bool
    digest: str
    bytes_read: int
    #: What is proven by this and what is not, in a sentence.
    proven: str


def adopt(
    ledger: Ledger,
    sink: Sink,
    *,
    digest: str | None,
    change_id: str | None,
    source: str | None = None,
    believe: bool = False,
    disk: str = "",
    watcher: Watcher | None = None,
) -> TakenOver:
    """Read the target in C(sink) and fill the empty C(ledger) with what stands there.

    :param digest: of the disk, C(ALGORITHM:HEX), from the target's metadata; None where that has none.
    :param change_id: that the other host committed last, from there as well.
    :param source: identity of the source's state that was copied, for disks without tracking.
    :param believe: where the digest differs (the other host was cut off in the middle of a later pass): go on with the changes
        since C(change_id) all the same. All that it wrote since lies among them, so the target ends equal if it was equal
        then, but nothing proves that it was. Without this, the next pass compares the whole disk.
    """
    ledger.forget()
    sink.flush()
    read = 0
    for at in range(0, ledger.capacity, _STEP):
        length = min(_STEP, ledger.capacity - at)
        if watcher is not None:
            watcher.update(disk, "take over", at, ledger.capacity, at - read)
            watcher.check()
        read += _take(ledger, sink, at, length)
        if at % (SEGMENT * CHUNK) == 0:
            ledger.commit(ledger.position())
    found = ledger.digests.disk_digest()
    equal = digest is not None and found == digest
    stamp = getattr(sink, "stamp", str)()
    facts = {"target": str(getattr(sink, "identity", "")), "disk": disk, "source": source}
    ledger.commit(ledger.position())
    if equal:
        proven = "The target's digest is the one in its metadata."
        ledger.set(**facts, state="complete", digest=found, stamp=stamp, planned=change_id, change_id=change_id)
    elif change_id and believe:
        proven = (
            "The target was taken over from another host in the middle of a pass: the changes since the last finished one are"
            " copied; that the rest is right is not proven."
        )
        ledger.set(**facts, state="copying", planned=change_id, change_id=change_id, taken_over=proven, **{"pass": "incremental"})
    else:
        proven = "The target was taken over from another host, and its digest is not the one in its metadata."
        ledger.set(**facts, state="copying", planned=None, change_id=None, doubt=proven, **{"pass": "compare"})
    return TakenOver(equal, found, read, proven)


def _take(ledger: Ledger, sink: Sink, at: int, length: int) -> int:
    """Record what stands in these bytes of the target; the bytes read."""
    count = -(-length // CHUNK)
    hole = getattr(sink, "is_hole", None)
    if hole is not None and hole(at, length):
        ledger.mark(at // CHUNK, bytes([ZERO]) * count, None)
        return 0
    data = sink.read(at, length)
    states, digests = bytearray(count), bytearray(count * SIZE)
    for i in range(count):
        piece = data[i * CHUNK : (i + 1) * CHUNK]
        empty = not piece.strip(b"\0")
        states[i] = ZERO if empty else DATA
        digests[i * SIZE : (i + 1) * SIZE] = zero_digest(len(piece)) if empty else bytes(chunk_digest(piece))
    ledger.mark(at // CHUNK, bytes(states), bytes(digests))
    return length
