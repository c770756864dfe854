# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is durable of one disk's copy: an SQLite file in WAL mode, one for each disk and target.

Two kinds of record, because two kinds of death differ:

* A *mark* is committed after each unit written. It is in the kernel's hands, not yet on the medium: it outlives a
  killed process, not a killed machine. So it carries the boot's id, and counts only within that boot.
* A *segment* (1,024 chunks of 1 MiB: state and digest of each) is committed, with fsync, only after the sink's flush
  returned. It counts always. C(commit) folds into segments only the marks that were there before the flush began.

What has to be copied is in there too, since a pass began: chunks that are not known, chunks of an earlier pass that are
to be compared (OLD), and chunks of which areas changed (DIRTY, with the areas packed by segment in a table of their own).
C(begin) puts it there in one transaction with the fact C(planned), the changeId up to which that work brings the target;
marks and segments take it away. So a kill between any two statements leaves either less than was done, never more, and
when nothing is left the target equals the disk at C(planned): that is when C(change_id) becomes C(planned).

One process at a time: flock on a file beside it (C(.lock)), which names the holder.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Iterable, Iterator

from .digest import ALGORITHM, CHUNK, SEGMENT, SIZE, DigestMap, chunks_of
from .dirty import Area, by_chunk, by_segment, merged, pack, total, unpack
from .ledger_file import LedgerFile

#: State of a chunk, in two bits: not known; reads as zeroes on the target; its data stands there; its data stands there,
#: but was written in parts that nobody has computed a digest over.
UNKNOWN, ZERO, DATA, STALE = 0, 1, 2, 3
#: Added to a state: it is that of an earlier pass, the chunk is to be compared; areas in it are to be copied.
OLD, DIRTY = 4, 8
BASE = 3


def _table(rule: Any) -> bytes:
    return bytes(rule(s) for s in range(256))


#: To be looked at again. What was to be copied into a chunk may stand there half: then nothing is known of it.
_LOOK = _table(lambda s: UNKNOWN if s & BASE in (UNKNOWN, STALE) or s & DIRTY else s | OLD)
_DROP_OLD = _table(lambda s: UNKNOWN if s & OLD else s)
_WHOLE = _table(lambda s: int(s & BASE == UNKNOWN or bool(s & OLD)))
_TO_DO = _table(lambda s: int(s & BASE == UNKNOWN or bool(s & (OLD | DIRTY))))
_TO_PROVE = _table(lambda s: int(s & BASE in (UNKNOWN, STALE) or bool(s & (OLD | DIRTY))))
_STALE = _table(lambda s: int(s & BASE == STALE))
_STORED = _table(lambda s: int(s & BASE in (DATA, STALE)))
_KNOWN = _table(lambda s: int(s & BASE != UNKNOWN))
_DELTA = _table(lambda s: int(s & BASE == STALE or bool(s & DIRTY)))


def left(states: bytes, *, stale: bool = False) -> bytes:
    """1 for each of C(states) where something is to be done (C(stale): where the digest is missing, too), else 0."""
    return states.translate(_TO_PROVE if stale else _TO_DO)


def whole(states: bytes) -> bytes:
    """1 for each of C(states) whose chunk is to be read whole, else 0."""
    return states.translate(_WHOLE)


def boot_id() -> str:
    """The id of this boot of the machine; empty where the kernel does not tell, and then no mark counts."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            return f.read().strip()
    except OSError:
        return ""


def file_name(vm: str, disk: str, target: str) -> str:
    """The ledger's file name for a disk of a VM and a target: readable, and safe whatever the names hold."""
    safe = [re.sub(r"[^A-Za-z0-9._-]", "_", part)[:60] for part in (vm, disk)]
    return f"{safe[0]}--{safe[1]}--{hashlib.sha256(json.dumps([vm, disk, target]).encode()).hexdigest()[:16]}.sqlite"


class Ledger(LedgerFile):
    """The ledger in file C(path) for a disk of C(capacity) bytes. Opening takes the lease, or raises Busy."""

    def __init__(self, path: str, capacity: int) -> None:
        super().__init__(path)
        try:
            self._boot = boot_id()
            self._states: dict[int, bytearray] = {}
            #: The capacity that the ledger was kept for, in bytes, where that was another one; it holds until C(begin).
            self.resized_from: int | None = None
            self._shape(self._facts.get("capacity", capacity))
            if self._facts.get("algorithm", ALGORITHM) != ALGORITHM:
                self._shape(capacity)
                self.forget()
            with self._statement("read the ledger"):
                self._load()
            if self.capacity != capacity:
                self._resize(capacity)
            else:
                self.set(capacity=capacity, algorithm=ALGORITHM)
        except BaseException:
            self.close()
            raise

    def _shape(self, capacity: int) -> None:
        self.capacity = capacity
        self.chunks = chunks_of(capacity)
        self.digests = DigestMap(capacity)

    def _load(self) -> None:
        for number, states, digests in self._db.execute("SELECT number, states, digests FROM segments"):
            self._states[number] = bytearray(states)
            self.digests.load(number, digests)
        self._db.execute("DELETE FROM marks WHERE boot != ? OR boot = ''", (self._boot,))
        for chunk, states, digests in self._db.execute("SELECT chunk, states, digests FROM marks ORDER BY id"):
            self._apply(chunk, states, digests)

    def _resize(self, capacity: int) -> None:
        """Take what is known over to another capacity, in memory; C(begin) makes it durable. Short last chunks are lost."""
        old, states, digests = self.capacity, self._states, self.digests
        self._shape(capacity)
        self._states = {}
        cut = {c.capacity // CHUNK for c in (digests, self.digests) if c.capacity % CHUNK}
        for number, known in states.items():
            length = min(SEGMENT, self.chunks - number * SEGMENT)
            if length > 0:
                grown = (known + bytes(SEGMENT))[:length]
                for chunk in cut:
                    if chunk // SEGMENT == number and chunk % SEGMENT < length:
                        grown[chunk % SEGMENT] = UNKNOWN
                self._states[number] = grown
                taken = digests.segment(number)[: length * SIZE]
                self.digests.load(number, taken + bytes(length * SIZE - len(taken)))
        self.resized_from = old

    def _apply(self, chunk: int, states: bytes, digests: bytes | None) -> None:
        done = 0
        while done < len(states):
            number, at = divmod(chunk + done, SEGMENT)
            count = min(SEGMENT - at, len(states) - done)
            self._segment(number)[at : at + count] = states[done : done + count]
            self.digests.put(chunk + done, count, None if digests is None else digests[done * SIZE : (done + count) * SIZE])
            done += count

    def _length(self, number: int) -> int:
        return min(SEGMENT, self.chunks - number * SEGMENT)

    def _segment(self, number: int) -> bytearray:
        found = self._states.get(number)
        if found is None:
            found = self._states[number] = bytearray(self._length(number))
        return found

    # -- what is known, and what is to be done ------------------------------------------------------------------

    def state(self, chunk: int) -> int:
        """UNKNOWN, ZERO, DATA or STALE, with OLD and DIRTY added where the chunk is to be compared or has areas to be copied."""
        number, at = divmod(chunk, SEGMENT)
        found = self._states.get(number)
        return UNKNOWN if found is None else found[at]

    def states(self, first: int, count: int) -> bytes:
        """The states of C(count) chunks from C(first) on."""
        parts = []
        while count:
            number, at = divmod(first, SEGMENT)
            part = min(SEGMENT - at, count)
            found = self._states.get(number)
            parts.append(bytes(part) if found is None else bytes(found[at : at + part]))
            first += part
            count -= part
        return b"".join(parts)

    def _any(self, table: bytes) -> bool:
        return any(1 in states.translate(table) for states in list(self._states.values()))

    @property
    def known(self) -> bool:
        """Whether anything is known of any chunk."""
        return self._any(_KNOWN)

    @property
    def stored(self) -> bool:
        """Whether there are chunks whose data stands on the target."""
        return self._any(_STORED)

    @property
    def stale_chunks(self) -> int:
        """How many chunks have no digest because they were written in parts."""
        return sum(states.translate(_STALE).count(1) for states in list(self._states.values()))

    @property
    def stale(self) -> bool:
        """Whether there are any."""
        return self._any(_STALE)

    @property
    def whole_chunks_left(self) -> bool:
        """Whether chunks are to be read whole: those that are not known, and those to be compared."""
        return any(n not in self._states for n in range(-(-self.chunks // SEGMENT))) or self._any(_WHOLE)

    @property
    def clean(self) -> bool:
        """Whether nothing is left to be done."""
        return not self.whole_chunks_left and not self._any(_TO_DO)

    def touched(self) -> Iterator[tuple[int, bytes]]:
        """(number, states) of the segments that hold DIRTY or STALE chunks, ascending."""
        for number in sorted(self._states):
            states = bytes(self._states[number])
            if 1 in states.translate(_DELTA):
                yield number, states

    def dirty(self, number: int) -> list[tuple[int, list[Area]]]:
        """(chunk in the segment, its areas) for the DIRTY chunks of segment C(number); starts count from the segment's first byte."""
        with self._statement("read the ledger") as db:
            row = db.execute("SELECT areas FROM dirty WHERE number = ?", (number,)).fetchone()
            states = bytes(self._segment(number))
        found = {c: areas for c, areas in by_chunk(unpack(row[0]) if row else ()) if states[c] & DIRTY}
        for chunk, state in enumerate(states):
            if state & DIRTY and chunk not in found:  # not to be: then all of it is
                found[chunk] = [(chunk * CHUNK, self.digests.length_of(number * SEGMENT + chunk))]
        return sorted(found.items())

    def dirty_bytes(self) -> int:
        """Bytes in areas that are to be copied, as C(begin) left them."""
        with self._statement("read the ledger") as db:
            return sum(total(row[0]) for row in db.execute("SELECT areas FROM dirty"))

    # -- what was done ------------------------------------------------------------------------------------------

    def mark(self, chunk: int, states: bytes, digests: bytes | None) -> None:
        """Record that the chunks from C(chunk) on were written (C(digests): 16 bytes each; None: all zeroes)."""
        with self._statement() as db:
            db.execute("INSERT INTO marks (chunk, states, digests, boot) VALUES (?, ?, ?, ?)", (chunk, states, digests, self._boot))
            self._apply(chunk, states, digests)

    def drop_marks(self) -> None:
        """What was marked since the last C(commit) may be lost: nothing is known of these chunks."""
        with self._statement() as db:
            for chunk, count in db.execute("SELECT chunk, length(states) FROM marks").fetchall():
                self._apply(chunk, bytes(count), None)
            with self._transaction():
                db.execute("DELETE FROM marks")

    def position(self) -> int:
        """Where the marks end now. Take it before the sink's flush, hand it to C(commit) after."""
        with self._statement("read the ledger") as db:
            return int(db.execute("SELECT max(id) FROM marks").fetchone()[0] or 0)

    def commit(self, position: int) -> None:
        """Make the marks up to C(position) durable: what they say has been flushed."""
        with self._statement() as db:
            rows = db.execute("SELECT chunk, length(states) FROM marks WHERE id <= ?", (position,)).fetchall()
            if not rows:
                return
            numbers = sorted({n for chunk, count in rows for n in range(chunk // SEGMENT, (chunk + count - 1) // SEGMENT + 1)})
            pending = db.execute("SELECT chunk, length(states) FROM marks WHERE id > ?", (position,)).fetchall()
            later: dict[int, set[int]] = {}
            for chunk, count in pending:
                for c in range(chunk, chunk + count):
                    later.setdefault(c // SEGMENT, set()).add(c % SEGMENT)
            with self._transaction():
                for number in numbers:
                    states = bytearray(self._segment(number))
                    for c in later.get(number, ()):
                        states[c] = UNKNOWN  # written after the flush began: durable only with the next one
                    self._put_segment(number, states)
                db.execute("DELETE FROM marks WHERE id <= ?", (position,))

    def _put_segment(self, number: int, states: bytearray) -> None:
        self._db.execute("INSERT OR REPLACE INTO segments VALUES (?, ?, ?)", (number, bytes(states), self.digests.segment(number)))
        if not any(s & DIRTY for s in set(states)):
            self._db.execute("DELETE FROM dirty WHERE number = ?", (number,))

    # -- passes -------------------------------------------------------------------------------------------------

    def begin(self, how: str, areas: Iterable[Area] = (), *, doubtful: bool = False, **facts: Any) -> tuple[int, int]:
        """Begin a pass, in one durable transaction; flush the sink first: from now on the marks count as durable.

        :param how: C(keep): what is known stays, and C(areas) are to be copied besides; C(look): every chunk is to be
            compared; C(forget): nothing is known.
        :param areas: ascending and apart, in bytes. What they raise undoes it all.
        :param doubtful: the pass before was cut off and the source is in another state now. What was to be compared may have
            been half written, and the source may hold again what it held before: its digest must not be believed.
        :param facts: kept in the same transaction.
        :returns: number and bytes of C(areas).
        """
        self.commit(self.position())
        new: dict[int, bytearray] = {}
        count = size = 0

        def counted() -> Iterator[Area]:
            nonlocal count, size
            for area in areas:
                count += 1
                size += area[1]
                yield area

        facts = {**facts, "capacity": self.capacity, "algorithm": ALGORITHM}
        with self._transaction() as db:
            if self.resized_from is not None or how == "forget":
                db.execute("DELETE FROM segments")
            if how != "keep":
                db.execute("DELETE FROM dirty")
            db.execute("DELETE FROM marks")
            for number, states in self._states.items() if how != "forget" else ():
                if doubtful or self.resized_from is not None:
                    new[number] = states.translate(_DROP_OLD)
                if how == "look":
                    new[number] = new.get(number, states).translate(_LOOK)
            if how == "keep":
                for number, pieces in by_segment(counted()):
                    if number in self._states:
                        new[number] = self._add_dirt(
                            number, new.get(number, self._states[number]), zip(pieces[0::2], pieces[1::2], strict=True)
                        )
            for number, states in new.items():
                self._put_segment(number, states)
            self._put_facts(db, facts)
        if how == "forget":
            self._states.clear()
            self.digests = DigestMap(self.capacity)
        self._states.update(new)
        self._facts.update(facts)
        self.resized_from = None
        return count, size

    def _add_dirt(self, number: int, states: bytearray, areas: Iterable[Area]) -> bytearray:
        """The states of a segment with C(areas) marked in it; writes its row of areas."""
        states = bytearray(states)
        row = self._db.execute("SELECT areas FROM dirty WHERE number = ?", (number,)).fetchone()
        fresh = list(areas)
        if row is None:
            blob = pack(fresh)
        else:
            before = [a for chunk, pieces in by_chunk(unpack(row[0])) if states[chunk] & DIRTY for a in pieces]
            blob = merged(before, fresh)
        for start, length in fresh:
            for chunk in range(start >> 20, (start + length - 1 >> 20) + 1):
                state = states[chunk]
                if state & BASE and not state & OLD:
                    states[chunk] = state | DIRTY
        self._db.execute("INSERT OR REPLACE INTO dirty VALUES (?, ?)", (number, blob))
        return states

    def forget(self) -> None:
        """The target is another one: nothing is known of it, and no fact stays."""
        with self._transaction() as db:
            for table in ("facts", "segments", "marks", "dirty"):
                db.execute(f"DELETE FROM {table}")
        self._facts.clear()
        self._states.clear()
        self.digests = DigestMap(self.capacity)
        self.resized_from = None
