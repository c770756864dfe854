# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a conversion host knows of copies: what it has measured, what it may take, and what its ledgers say. Read, never written.

Ledgers are opened read-only and without their lease, so that a copy that runs is not disturbed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
from typing import Any, Collection, Iterator

from ..disk.budget_settings import load_plain
from ..disk.digest import CHUNK
from ..disk.ledger import left
from ..disk.ledger_file import SCHEMA
from ..errors import BadInput
from . import throughput
from .targets import state_dir

#: Ledgers that are looked at, at most; the newest ones.
_MOST = 20_000
_NAME = re.compile(r"^(?P<vm>[A-Za-z0-9._-]{1,60})--(?P<disk>[A-Za-z0-9._-]{1,60})--[0-9a-f]{16}\.sqlite$")


def read(ledger: str | None, sources: Collection[str] | None) -> dict[str, Any]:
    """C(throughput), C(budget), C(disks) (those of the VMs with the instance UUIDs C(sources), or all), C(remarks) and C(ledger).

    What cannot be read is a remark: a plan can be made without it.
    """
    folder = state_dir(ledger)
    remarks: list[str] = []
    try:
        budget = load_plain(folder)
    except BadInput as e:
        budget = {"overall": None, "hosts": {}, "datastores": {}}
        remarks.append(str(e))
    disks = list(_disks(folder, None if sources is None else {s.lower() for s in sources}, remarks))
    kept = throughput.load(throughput.place(ledger))
    return {"throughput": kept, "budget": budget, "disks": disks, "remarks": remarks, "ledger": folder}


def _disks(folder: str, sources: set[str] | None, remarks: list[str]) -> Iterator[dict[str, Any]]:
    path = os.path.join(folder, "ledgers")
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    except OSError as e:
        remarks.append(f"The ledgers cannot be read: {e.strerror}")
        return
    for name in sorted(names)[:_MOST]:
        found = _NAME.match(name)
        if found is None or (sources is not None and found["vm"].lower() not in sources):
            continue
        try:
            facts = _facts(os.path.join(path, name))
        except (sqlite3.Error, ValueError, TypeError, OSError) as e:
            remarks.append(f"The ledger {name} cannot be read: {str(e)[:200]}")
            continue
        yield {"source": found["vm"].lower(), "disk": found["disk"], **facts}


def _facts(path: str) -> dict[str, Any]:
    """What a ledger says; C(left) are the bytes that its copy has still to look at, at most (None: nothing was begun)."""
    with contextlib.closing(sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, timeout=5)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise ValueError(f"it is of version {version}, this program knows {SCHEMA}")
        facts = {str(n): json.loads(v) for n, v in db.execute("SELECT name, value FROM facts")}
        done = 0
        for (states,) in db.execute("SELECT states FROM segments"):
            done += len(states) - sum(left(bytes(states)))
    capacity = int(facts.get("capacity") or 0)
    history = [row for row in facts.get(throughput.HISTORY) or [] if isinstance(row, dict)]
    return {
        "label": str(facts.get("disk") or ""),
        "capacity": capacity,
        "target": str(facts.get("target") or ""),
        "state": str(facts.get("state") or ""),
        "pass": str(facts.get("pass") or ""),
        "change_id": facts.get("change_id") or None,
        "left": max(0, capacity - done * CHUNK) if facts.get("state") else None,
        "history": history[-throughput.KEPT :],
    }


def _quoted(path: str) -> str:
    """C(path) in a file: URI of SQLite, where these three characters mean something."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
