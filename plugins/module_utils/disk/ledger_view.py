# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a ledger says, read beside the copy that may be writing it: without its lease, and without a change to it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from .digest import CHUNK, SEGMENT, chunks_of
from .errors import FerryError
from .ledger import BASE, DIRTY, OLD, ZERO, boot_id, left
from .ledger_file import SCHEMA

#: Chunks of the largest disk that is believed (64 PiB); a damaged ledger may say anything.
_MOST_CHUNKS = 1 << 36
#: 1 for states of chunks that are zeroes, and done.
_ZERO = bytes(int(s & BASE == ZERO and not s & (OLD | DIRTY)) for s in range(256))


@dataclass(frozen=True)
class View:
    """C(facts): as the copy kept them. C(capacity), C(done), C(zero): bytes of the disk, of those that need nothing more, and of
    those among them that are zeroes."""

    facts: dict[str, Any]
    capacity: int
    done: int
    zero: int


def look(path: str) -> View:
    """What the ledger C(path) says now.

    :raises FerryError: it is damaged (code C(ledger)), or of a later version (code C(ledger_newer)).
    """
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, timeout=5)) as db:
            db.execute("BEGIN")  # facts, segments and marks of one moment
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version > SCHEMA:
                raise FerryError(
                    f"The ledger is of version {version}, this program knows {SCHEMA}.",
                    code="ledger_newer",
                    step="read the ledger",
                    next_command="use the version of ferry.vmware that wrote it",
                    ledger=path,
                )
            facts = {str(n): json.loads(v) for n, v in db.execute("SELECT name, value FROM facts")}
            capacity = int(facts.get("capacity") or 0)
            if not 0 <= capacity <= _MOST_CHUNKS * CHUNK:
                raise ValueError(f"a disk of {capacity} bytes")
            segments = {int(n): bytearray(s) for n, s in db.execute("SELECT number, states FROM segments")}
            marks = db.execute("SELECT chunk, states FROM marks WHERE boot = ? AND boot != '' ORDER BY id", (boot_id(),))
            for chunk, states in marks.fetchall():
                _overlay(segments, int(chunk), bytes(states))
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as e:
        raise FerryError(
            "The ledger cannot be read.",
            code="ledger",
            step="read the ledger",
            said=e,
            next_command=f"move {path} away and run the migration again; the disk is then copied from its start",
            ledger=path,
        ) from e
    done, zero = _sums(segments, capacity)
    return View(facts, capacity, done, zero)


def _overlay(segments: dict[int, bytearray], chunk: int, states: bytes) -> None:
    """What was written since the last flush: it counts within this boot (see the module ledger)."""
    if not 0 <= chunk <= _MOST_CHUNKS:
        raise ValueError(f"a mark of chunk {chunk}")
    for at, state in enumerate(states, chunk):
        segments.setdefault(at // SEGMENT, bytearray(SEGMENT))[at % SEGMENT : at % SEGMENT + 1] = bytes([state])


def _sums(segments: dict[int, bytearray], capacity: int) -> tuple[int, int]:
    """(bytes done, bytes of these that are zeroes)."""
    chunks = chunks_of(capacity)
    done = zero = 0
    for number, states in segments.items():
        known = bytes(states[: max(0, chunks - number * SEGMENT)])
        done += left(known).count(0) * CHUNK
        zero += known.translate(_ZERO).count(1) * CHUNK
        if number == (chunks - 1) // SEGMENT and len(known) == (chunks - 1) % SEGMENT + 1:
            beyond = chunks * CHUNK - capacity  # the last chunk may be shorter
            done -= 0 if left(known[-1:])[0] else beyond
            zero -= beyond if known[-1:].translate(_ZERO)[0] else 0
    return done, zero
