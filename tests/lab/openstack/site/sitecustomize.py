# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loaded by Python into every OpenStack process of the lab (PYTHONPATH): makes SQLite safe for parallel API writers.

WAL and a long busy timeout; the outermost transaction of a thread starts as BEGIN IMMEDIATE (a deferred BEGIN that later
writes fails at once with "database is locked"); a nested one on a second connection stays deferred, else it would wait
for itself. synchronous=OFF survives the death of a process, not of the machine: a lab needs no more.
"""

from __future__ import annotations

import threading
from typing import Any

try:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
except ImportError:  # a program of the same venv that knows no database
    Engine = None

_PRAGMAS = ("journal_mode=WAL", "busy_timeout=60000", "synchronous=OFF")
_local = threading.local()


def _writing(connection: Any) -> set[int]:
    """Connections of this thread, to the same database, that hold the write lock."""
    held: set[int] = _local.__dict__.setdefault(str(connection.engine.url), set())
    return held


def _on_connect(dbapi_connection: Any, _record: Any) -> None:
    if type(dbapi_connection).__module__.startswith("sqlite3"):
        for pragma in _PRAGMAS:
            dbapi_connection.execute(f"PRAGMA {pragma}")


def _on_execute(connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> tuple[str, Any]:
    if statement == "BEGIN" and connection.dialect.name == "sqlite":
        held = _writing(connection)
        if not held - {id(connection)}:
            statement = "BEGIN IMMEDIATE"
            held.add(id(connection))
    return statement, parameters


def _on_end(connection: Any) -> None:
    if connection.dialect.name == "sqlite":
        _writing(connection).discard(id(connection))


if Engine is not None:
    event.listen(Engine, "connect", _on_connect)
    event.listen(Engine, "before_cursor_execute", _on_execute, retval=True)
    event.listen(Engine, "commit", _on_end)
    event.listen(Engine, "rollback", _on_end)
