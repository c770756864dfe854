# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of a disk without copying it: what a copy would do, for check mode; that there is nothing to do; its plain SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Any, Mapping

from ..disk import ledger as ledgers
from ..disk.copy import Result
from ..disk.model import Kind, Source
from ..disk.progress import Progress
from .targets import CHANGE_ID, DIGEST, SOURCE_STATE, STATE, state_of, tells_its_state
from .wanted import Wanted


def predict(w: Wanted, source: Source | None, ledger_path: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a disk, with C(bytes_to_read) (at most; None where only a snapshot's changed areas would tell).

    :param source: None where it can only be opened at a snapshot.
    """
    result = Result(w.label, w.capacity, changed=True)
    to_read: int | None = w.capacity
    if source is not None:
        to_read = sum(e.length for e in source.extents() if e.kind == Kind.DATA)
    if os.path.exists(ledger_path):
        ledger = ledgers.Ledger(ledger_path, w.capacity)
        with contextlib.closing(ledger):
            same = source is not None and ledger.fact("source") == source.identity
            if same and ledger.fact("state") == "complete" and params["mode"] != "full" and _untouched(w, ledger):
                result.changed, result.mode, result.digest = False, "none", ledger.fact("digest", "")
                result.change_id = ledger.fact("change_id")
                to_read = 0
            elif ledger.fact("planned") and params["mode"] != "full":
                result.mode = "incremental"
                to_read = None
            elif same and to_read is not None:
                states = ledger.states(0, ledger.chunks)
                done = sum(ledger.digests.length_of(c) for c, state in enumerate(states) if state in (ledgers.ZERO, ledgers.DATA))
                to_read = max(0, to_read - done)
    return {**result.as_dict(), "bytes_to_read": to_read}


def _untouched(w: Wanted, ledger: ledgers.Ledger) -> bool:
    """Whether the file is as the last copy left it, and was verified as far as it was to be."""
    if w.dest.get("volume"):
        return False  # a volume tells by its own metadata
    if ledger.fact("unverified"):
        return False  # killed while it was read back
    try:
        info = os.stat(w.dest["path"])
    except OSError:
        return False
    return bool(ledger.fact("stamp") == f"{info.st_size}:{info.st_mtime_ns}")


def already(w: Wanted, known: Mapping[str, str], status: str, params: Mapping[str, Any], source: Source) -> dict[str, Any] | None:
    """The row of a volume that says itself that it holds this state of the source; None where work is to be done."""
    if known.get(STATE) != "complete" or known.get(SOURCE_STATE) != state_of(source) or not tells_its_state(source):
        return None
    if params["mode"] == "full" or params["verify"] == "full" and status == "available":
        return None
    row = Result(w.label, w.capacity, mode="none", digest=known.get(DIGEST, "")).as_dict()
    return {**row, "change_id": known.get(CHANGE_ID) or None}


def plain_sha256(sink: Any, capacity: int, progress: Progress, label: str) -> str:
    """SHA-256 of the first C(capacity) bytes of the target, read in order."""
    total = hashlib.sha256()
    step = 4 << 20
    zeroes = bytes(step)
    hole = getattr(sink, "is_hole", None)
    for at in range(0, capacity, step):
        length = min(step, capacity - at)
        progress.update(label, "sha256", at, capacity)
        progress.check()
        total.update(memoryview(zeroes)[:length] if hole is not None and hole(at, length) else sink.read(at, length))
    progress.finish(label)
    return total.hexdigest()
