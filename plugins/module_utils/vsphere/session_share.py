# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a process takes part in the session of its run: takes it where it lives, makes it for all where not, and leaves it in the end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ..requires import need
from . import session_store

if TYPE_CHECKING:
    from .client import Endpoint, Session


class Share:
    """One process's part in the session of its run. Where there is no run, or its session cannot be shared safely, it has none."""

    def __init__(self, where: Endpoint) -> None:
        self._store = session_store.open_store(where.host, where.port, where.username, where.password, where.validate_certs, where.ca_path)

    def version(self) -> str | None:
        """pyVmomi's name of the API version that the run's session speaks, where there is one: the server need not be asked."""
        if self._store is None:
            return None
        try:
            with self._store.turn() as turn:
                known = turn.read()
        except OSError:
            self.leave()
            return None
        return known.version if known is not None and known.version in need("pyVmomi.VmomiSupport").versionIdMap else None

    def join(self, session: Session) -> bool:
        """Give C(session) the run's session, or make that; False where it has to log in for itself alone.

        Whoever comes while another logs in waits for that: of many tasks that find the session expired, one logs in again.
        """
        if self._store is None:
            return False
        with contextlib.ExitStack() as stack:
            try:
                turn = stack.enter_context(self._store.turn())
                known = turn.read()
            except OSError:
                self.leave()
                return False
            before = session.cookie_pair() if session.generation else ""
            if known is not None and _lives(session, known):
                if before != known.cookie:
                    session.stub.cookie = known.cookie
                    return True
                # It lives, and the caller was refused all the same: a new one for everybody would help nobody.
                self.leave()
                return False
            key = session.login_anew()
            try:
                turn.write(_record(session, self._store.run, key))
            except OSError:  # a full disk: this one is ours alone
                self.leave()
                return True
        self._store.sweep()
        return True

    def leave(self) -> bool:
        """Share no more. True where the session was the run's: it is not ours to be logged out."""
        store, self._store = self._store, None
        if store is not None:
            store.release()
        return store is not None


def _lives(session: Session, known: session_store.Record) -> bool:
    """Whether vCenter still has that session: it answers with the session's own key (SessionManager.currentSession)."""
    stub = session.stub if session.generation == 0 else session.new_stub()  # at first nobody else uses it
    stub.cookie = known.cookie
    manager = session.vim.SessionManager(known.manager, stub)
    try:
        found = manager.currentSession
    except session.vim.fault.NotAuthenticated:
        return False
    except Exception as e:  # typed by error(), or raised again
        typed = session.error(e, "log in to vCenter")
        if typed is e:
            raise
        raise typed from e
    finally:
        if stub is not session.stub:
            stub.DropConnections()
    return found is not None and str(found.key) == known.key


def _record(session: Session, run: str, key: str) -> session_store.Record:
    where = session.endpoint
    return session_store.Record(
        host=where.host,
        port=where.port,
        validate_certs=where.validate_certs,
        ca_path=where.ca_path,
        run=run,
        cookie=session.cookie_pair(),
        key=key,
        manager=str(session.content.sessionManager._moId),
        version=session.version,
        wire=str(need("pyVmomi.VmomiSupport").versionIdMap[session.version]),
    )
