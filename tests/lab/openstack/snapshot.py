# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab's databases when all is set up and nothing used, kept so that the next new lab starts from a copy.

Setting up from nothing takes half a minute, nearly all of it schema migrations. What differs between labs (addresses,
paths, passwords) is changed in the copy. Keys and passwords are never copied.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from . import services
from .layout import DATABASES, PACKAGE, SERVICES, USERS, Layout

_KEPT = 3
# The compute service refuses a database that knows its host under another id.
_COMPUTE_ID = "nova/state/compute_id"


class Snapshot:
    """The databases of one version of this package and of OpenStack, under *cache*. *kind*: see Layout.kind."""

    def __init__(self, cache: Path, kind: str) -> None:
        self._cache = cache
        self._folder = cache / f"openstack-{_version(kind)}"

    def save(self, layout: Layout) -> None:
        """Keep the databases of a running lab; of two savers the first wins."""
        beside = self._folder.with_name(f".{self._folder.name}.{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True, mode=0o700)
        for name in DATABASES:
            with closing(sqlite3.connect(layout.database(name))) as source, closing(sqlite3.connect(beside / f"{name}.sqlite")) as copy:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # one file, no log beside it
                if name == "keystone":
                    copy.execute("UPDATE password SET password_hash = ''")
                    copy.commit()
        shutil.copy(layout.state / _COMPUTE_ID, beside / "compute_id")
        (beside / "origin").write_text(f"{layout.base}\n{layout.state}\n")
        try:
            beside.rename(self._folder)
        except OSError:  # not empty: another lab was faster
            shutil.rmtree(beside)
        self._prune()

    def restore(self, layout: Layout) -> bool:
        """Give a new lab its databases; false if there is no snapshot."""
        try:
            base, state = (self._folder / "origin").read_text().splitlines()
        except FileNotFoundError:
            return False
        os.utime(self._folder)  # in use: not to be pruned
        origin = Layout(Path(state), layout.venv, int(base))
        for name in DATABASES:
            shutil.copy(self._folder / f"{name}.sqlite", layout.database(name))
        shutil.copy(self._folder / "compute_id", layout.state / _COMPUTE_ID)
        _move_catalog(layout, origin)
        _move_cells(layout, origin)
        _set_passwords(layout)
        return True

    def _prune(self) -> None:
        snapshots = sorted(self._cache.glob("openstack-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in snapshots[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


def _version(kind: str) -> str:
    """Of everything that decides what a new lab's databases hold."""
    constraints = PACKAGE.parents[2] / "requirements/openstack.txt"
    modules = [PACKAGE / f"{name}.py" for name in ("config", "layout", "services", "world")]
    files = [constraints, *modules, *PACKAGE.glob("templates/*"), *PACKAGE.glob("programs/*.py")]
    digest = hashlib.sha256(kind.encode())
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _move_catalog(layout: Layout, origin: Layout) -> None:
    with closing(sqlite3.connect(layout.database("keystone"))) as database, database:
        for service in SERVICES:
            database.execute("UPDATE endpoint SET url = replace(url, ?, ?)", (origin.url(service) + "/", f"@{service}/"))
            database.execute("UPDATE endpoint SET url = ? WHERE url = ?", (f"@{service}", origin.url(service)))
        for service in SERVICES:
            database.execute("UPDATE endpoint SET url = replace(url, ?, ?)", (f"@{service}", layout.url(service)))


def _move_cells(layout: Layout, origin: Layout) -> None:
    with closing(sqlite3.connect(layout.database("nova_api"))) as database, database:
        for name in ("nova", "nova_cell0"):
            database.execute(
                "UPDATE cell_mappings SET database_connection = ? WHERE database_connection = ?",
                (layout.database_url(name), origin.database_url(name)),
            )


def _set_passwords(layout: Layout) -> None:
    with closing(sqlite3.connect(layout.database("keystone"))) as database, database:
        for user in USERS:
            database.execute(
                "UPDATE password SET password_hash = ? WHERE local_user_id = (SELECT id FROM local_user WHERE name = ?)",
                (services.hash_password(layout, layout.passwords[user]), user),
            )
