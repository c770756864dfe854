# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is durable of one disk's copy: an SQLite file in WAL mode, one for each disk and target.

Two kinds of record, because two kinds of death differ:

* A *mark* is committed after each unit written. It is in the kernel's hands, not yet on the medium: it outlives a
  killed process, not a killed machine. So it carries the boot's id, and counts only within that boot.
* A *segment* (1,024 chunks of 1 MiB: state and digest of each) is committed, with fsync, only after the sink's flush
  returned. It counts always. C(commit) folds into segments only the marks that were there before the flush began.

A kill between any two statements thus leaves either less than was done, never more. One process at a time: flock on a
file beside it (C(.lock)), which names the holder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import sqlite3
import threading
import time
from typing import Any

from .digest import ALGORITHM, SEGMENT, SIZE, DigestMap, chunks_of
from .errors import BadInput, Busy, FerryError

#: State of a chunk: not known; reads as zeroes on the target; its data stands there. OLD: true of an earlier pass.
UNKNOWN, ZERO, DATA, OLD = 0, 1, 2, 4
_SCHEMA = 1


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


class Ledger:
    """The ledger in file C(path) for a disk of C(capacity) bytes. Opening takes the lease, or raises Busy."""

    def __init__(self, path: str, capacity: int) -> None:
        self.path = path
        self.capacity = capacity
        self.chunks = chunks_of(capacity)
        self._lock = threading.Lock()
        folder = os.path.dirname(path) or "."
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self._lease = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise BadInput("The ledger cannot be kept there.", step="open the ledger", said=e.strerror, ledger=path) from e
        try:
            self._take_lease()
            self._open()
        except BaseException:
            os.close(self._lease)
            raise

    def _take_lease(self) -> None:
        try:
            fcntl.flock(self._lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            holder = os.pread(self._lease, 200, 0).decode("ascii", "replace")
            raise Busy(
                "This disk is being copied by another process.",
                step="take the lease",
                said=holder or e.strerror,
                next_command="wait for it, or stop it",
            ) from e
        os.ftruncate(self._lease, 0)
        os.pwrite(self._lease, f"pid {os.getpid()} since {time.strftime('%Y-%m-%dT%H:%M:%S%z')}".encode(), 0)

    def _open(self) -> None:
        old_mask = os.umask(0o077)
        try:
            self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _SCHEMA):
                raise FerryError(
                    f"The ledger is of version {version}, this program knows {_SCHEMA}.",
                    code="ledger",
                    step="open the ledger",
                    ledger=self.path,
                )
            self._db.executescript(
                "BEGIN IMMEDIATE;"
                "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);"
                "CREATE TABLE IF NOT EXISTS segments (number INTEGER PRIMARY KEY, states BLOB NOT NULL, digests BLOB NOT NULL);"
                "CREATE TABLE IF NOT EXISTS marks (id INTEGER PRIMARY KEY AUTOINCREMENT, chunk INTEGER NOT NULL,"
                " states BLOB NOT NULL, digests BLOB, boot TEXT NOT NULL);"
                f"PRAGMA user_version={_SCHEMA};"
                "COMMIT;"
            )
            self._facts: dict[str, Any] = {n: json.loads(v) for n, v in self._db.execute("SELECT name, value FROM facts")}
        except sqlite3.DatabaseError as e:
            raise FerryError(
                "The ledger cannot be read.",
                code="ledger",
                step="open the ledger",
                said=e,
                left="the target as it is",
                next_command=f"move {self.path} away and run the same command again; the disk is then copied from its start",
            ) from e
        finally:
            os.umask(old_mask)
        self._boot = boot_id()
        self.digests = DigestMap(self.capacity)
        self._states: dict[int, bytearray] = {}
        if self._facts.get("capacity", self.capacity) != self.capacity or self._facts.get("algorithm", ALGORITHM) != ALGORITHM:
            self.forget()
        self._load()
        self.set(capacity=self.capacity, algorithm=ALGORITHM)

    def _load(self) -> None:
        for number, states, digests in self._db.execute("SELECT number, states, digests FROM segments"):
            self._states[number] = bytearray(states)
            self.digests.load(number, digests)
        self._db.execute("DELETE FROM marks WHERE boot != ? OR boot = ''", (self._boot,))
        for chunk, states, digests in self._db.execute("SELECT chunk, states, digests FROM marks ORDER BY id"):
            self._apply(chunk, states, digests)

    def _apply(self, chunk: int, states: bytes, digests: bytes | None) -> None:
        done = 0
        while done < len(states):
            number, at = divmod(chunk + done, SEGMENT)
            count = min(SEGMENT - at, len(states) - done)
            self._segment(number)[at : at + count] = states[done : done + count]
            self.digests.put(chunk + done, count, None if digests is None else digests[done * SIZE : (done + count) * SIZE])
            done += count

    def _segment(self, number: int) -> bytearray:
        found = self._states.get(number)
        if found is None:
            found = self._states[number] = bytearray(min(SEGMENT, self.chunks - number * SEGMENT))
        return found

    def fact(self, name: str, default: Any = None) -> Any:
        """A fact about the copy that was kept by C(set)."""
        return self._facts.get(name, default)

    def set(self, **facts: Any) -> None:
        """Keep facts (values that JSON can hold), durably."""
        new = {n: v for n, v in facts.items() if n not in self._facts or self._facts[n] != v}
        if not new:
            return
        with self._lock:
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", [(n, json.dumps(v)) for n, v in new.items()])
            self._db.execute("COMMIT")
            self._db.execute("PRAGMA synchronous=NORMAL")
        self._facts.update(new)

    def state(self, chunk: int) -> int:
        """UNKNOWN, ZERO or DATA, with OLD added where that is what an earlier pass knew."""
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

    def mark(self, chunk: int, states: bytes, digests: bytes | None) -> None:
        """Record that the chunks from C(chunk) on were written (C(digests): 16 bytes each; None: all zeroes)."""
        with self._lock:
            self._db.execute("INSERT INTO marks (chunk, states, digests, boot) VALUES (?, ?, ?, ?)", (chunk, states, digests, self._boot))
            self._apply(chunk, states, digests)

    def position(self) -> int:
        """Where the marks end now. Take it before the sink's flush, hand it to C(commit) after."""
        with self._lock:
            found = self._db.execute("SELECT max(id) FROM marks").fetchone()[0]
            return int(found or 0)

    def commit(self, position: int) -> None:
        """Make the marks up to C(position) durable: what they say has been flushed."""
        with self._lock:
            rows = self._db.execute("SELECT chunk, length(states) FROM marks WHERE id <= ?", (position,)).fetchall()
            if not rows:
                return
            touched = sorted({n for chunk, count in rows for n in range(chunk // SEGMENT, (chunk + count - 1) // SEGMENT + 1)})
            pending = self._db.execute("SELECT chunk, states FROM marks WHERE id > ?", (position,)).fetchall()
            later = {chunk + i for chunk, states in pending for i in range(len(states))}
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("BEGIN IMMEDIATE")
            for number in touched:
                states = bytearray(self._segment(number))
                for chunk in later:
                    if chunk // SEGMENT == number:
                        states[chunk % SEGMENT] = UNKNOWN  # written after the flush began: durable only with the next one
                self._db.execute("INSERT OR REPLACE INTO segments VALUES (?, ?, ?)", (number, bytes(states), self.digests.segment(number)))
            self._db.execute("DELETE FROM marks WHERE id <= ?", (position,))
            self._db.execute("COMMIT")
            self._db.execute("PRAGMA synchronous=NORMAL")

    def next_pass(self) -> None:
        """The source has changed: what is known of the target stays known, but every chunk has to be looked at again.

        Flush the sink first: from now on the marks count as durable.
        """
        with self._lock:
            for states in self._states.values():
                states[:] = bytes(s | OLD if s & 3 else s for s in states)
            self._db.execute("BEGIN IMMEDIATE")
            for number, states in self._states.items():
                self._db.execute("INSERT OR REPLACE INTO segments VALUES (?, ?, ?)", (number, bytes(states), self.digests.segment(number)))
            self._db.execute("DELETE FROM marks")
            self._db.execute("COMMIT")

    def forget(self) -> None:
        """The target is another one: nothing is known of it."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            for table in ("facts", "segments", "marks"):
                self._db.execute(f"DELETE FROM {table}")
            self._db.execute("COMMIT")
        self._facts.clear()
        self._states.clear()
        self.digests = DigestMap(self.capacity)

    def close(self) -> None:
        with self._lock:
            self._db.close()
            os.close(self._lease)
