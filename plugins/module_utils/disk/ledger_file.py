# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file behind a ledger: SQLite in WAL mode, the lease of it (flock), its tables, facts and transactions."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
import time
from typing import Any, Iterator

from .errors import BadInput, Busy, FerryError

#: 1 had facts, segments and marks; 2 has the dirty areas beside them. A ledger of version 1 is taken on as it is.
SCHEMA = 2
_TABLES = (
    "BEGIN IMMEDIATE;"
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);"
    "CREATE TABLE IF NOT EXISTS segments (number INTEGER PRIMARY KEY, states BLOB NOT NULL, digests BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS marks (id INTEGER PRIMARY KEY AUTOINCREMENT, chunk INTEGER NOT NULL,"
    " states BLOB NOT NULL, digests BLOB, boot TEXT NOT NULL);"
    "CREATE TABLE IF NOT EXISTS dirty (number INTEGER PRIMARY KEY, areas BLOB NOT NULL);"
    f"PRAGMA user_version={SCHEMA};"
    "COMMIT;"
)


class LedgerFile:
    """The file C(path), opened and held by this process until C(close).

    :raises Busy: another process holds it.
    :raises FerryError: (code C(ledger)) it is damaged, or of a later version.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.RLock()
        folder = os.path.dirname(path) or "."
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self._lease = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise BadInput("The ledger cannot be kept there.", step="open the ledger", said=e.strerror, ledger=path) from e
        try:
            self._take_lease()
            self._open_file()
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

    def _open_file(self) -> None:
        old_mask = os.umask(0o077)
        try:
            self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise FerryError(
                    f"The ledger is of version {version}, this program knows {SCHEMA}.",
                    code="ledger",
                    step="open the ledger",
                    ledger=self.path,
                )
            if version < SCHEMA:
                self._db.executescript(_TABLES)
            self._facts: dict[str, Any] = {n: json.loads(v) for n, v in self._db.execute("SELECT name, value FROM facts")}
        except sqlite3.DatabaseError as e:
            raise self._failed("open the ledger", e) from e
        finally:
            os.umask(old_mask)

    def _failed(self, step: str, e: sqlite3.Error) -> FerryError:
        full = "full" in str(e)
        return FerryError(
            "There is no room left for the ledger." if full else "The ledger cannot be read or written.",
            code="ledger_full" if full else "ledger",
            step=step,
            said=e,
            left="the target as it is",
            next_command="make room and run the same command again; it goes on where it stopped"
            if full
            else f"move {self.path} away and run the same command again; the disk is then copied from its start",
        )

    @contextlib.contextmanager
    def _statement(self, step: str = "write the ledger") -> Iterator[sqlite3.Connection]:
        """The connection, held by this thread; what SQLite says becomes an error of ours."""
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as e:
                raise self._failed(step, e) from e

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and on the medium (fsync) when this ends."""
        with self._statement() as db:
            db.execute("PRAGMA synchronous=FULL")
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            finally:
                db.execute("PRAGMA synchronous=NORMAL")

    def fact(self, name: str, default: Any = None) -> Any:
        """A fact about the copy that was kept by C(set)."""
        return self._facts.get(name, default)

    @staticmethod
    def _put_facts(db: sqlite3.Connection, facts: dict[str, Any]) -> None:
        db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", [(n, json.dumps(v)) for n, v in facts.items()])

    def set(self, **facts: Any) -> None:
        """Keep facts (values that JSON can hold), durably and all at once."""
        new = {n: v for n, v in facts.items() if n not in self._facts or self._facts[n] != v}
        if not new:
            return
        with self._transaction() as db:
            self._put_facts(db, new)
        self._facts.update(new)

    def close(self) -> None:
        with self._lock:
            self._db.close()
            if self._lease >= 0:
                os.close(self._lease)
                self._lease = -1
