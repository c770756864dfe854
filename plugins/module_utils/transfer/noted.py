# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a ledger keeps of a copy for people: whose disk it is, and what went wrong last. Nothing of a copy depends on it."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ..disk.ledger import Ledger
from ..errors import FerryError, Interrupted, bounded
from .wanted import Wanted

#: Facts of a ledger: C({"vm", "source", "key", "target"}); C({"at", "code", "text", "next", "stopped"}) or null, C(at) in seconds since the epoch.
OF, ERROR = "of", "error"


def begun(ledger: Ledger, w: Wanted, vm: str, source: str) -> None:
    """A copy begins: what went wrong before is over."""
    with contextlib.suppress(FerryError):
        ledger.set(**{OF: {"vm": bounded(vm, 255), "source": source, "key": w.key, "target": bounded(w.target)}, ERROR: None})


def failed(ledger: Ledger, w: Wanted, error: BaseException | None) -> None:
    """A copy ends with C(error), where that is one, and is of this disk or of none in particular."""
    if not isinstance(error, FerryError) or error.disk not in (None, w.label):
        return
    row: dict[str, Any] = {
        "at": round(time.time()),
        "code": error.code,
        "text": bounded(error.message + (f" Said: {error.said}." if error.said else "")),
        "next": error.next_command,
        "stopped": isinstance(error, Interrupted),
    }
    with contextlib.suppress(FerryError):
        ledger.set(**{ERROR: row})
