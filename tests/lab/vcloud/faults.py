# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults on demand: what goes wrong, with which requests, how often."""

from __future__ import annotations

import itertools
import threading
from dataclasses import asdict, dataclass, field
from typing import Any

from .errors import ControlError
from .world import Vm

#: Kind: what happens. README.md lists the options of each.
KINDS = {
    "status": "status and body instead of the answer; the request has no effect",
    "lost_answer": "the request takes effect, the connection breaks before the answer",
    "drop": "the connection breaks before the request has any effect",
    "latency": "delay_ms before the answer",
    "total": "the total of a query result is wrong by delta",
    "loop": "nextPage leads to page (1)",
    "doctype": "the answer is an entity bomb with a DOCTYPE",
    "html": "the answer is a proxy's HTML page with status 200",
    "redirect": "302 to location",
    "foreign_href": "every href of the answer has location as its base",
    "big": "the answer grows by bytes of white space",
    "cut": "the body is cut after half of its bytes, with the length of the whole",
    "task_fail": "a task of a VM whose name has match ends with an error, after the part `at` of its time",
    "expire": "all sessions end when the request comes",
}
BEFORE = ("status", "drop", "html", "redirect", "doctype", "expire")


@dataclass
class Fault:
    kind: str
    match: str = ""  # part of "METHOD /path?query" (task_fail: of the VM's name)
    times: int = 1  # 0: until removed
    after: int = 0  # so many matching requests pass first
    status: int = 503
    minor: str = "INTERNAL_SERVER_ERROR"
    message: str = "A fault of the lab."
    body: str = ""
    media: str = ""
    retry_after: str = ""
    delay_ms: float = 0.0
    delta: int = 1
    page: int = 1
    location: str = "https://127.0.0.2:9/"
    bytes: int = 64 << 20
    at: float = 0.5
    id: int = 0
    used: int = field(default=0)


class Faults:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._all: list[Fault] = []

    def add(self, values: dict[str, Any]) -> Fault:
        """Set one. Raises ControlError."""
        if values.get("kind") not in KINDS:
            raise ControlError(f"kind must be one of {', '.join(KINDS)}")
        try:
            fault = Fault(**values)
        except TypeError as e:
            raise ControlError(str(e)) from None
        for name, value in values.items():
            default = getattr(Fault, name, "")
            if isinstance(default, (int, float)) and not isinstance(value, (int, float)):
                raise ControlError(f"{name} must be a number")
            if isinstance(default, str) and not isinstance(value, str):
                raise ControlError(f"{name} must be text")
        fault.id, fault.used = next(self._ids), 0
        with self._lock:
            self._all.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._all.clear()

    def listed(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(f) for f in self._all]

    def _take(self, text: str, kinds: tuple[str, ...]) -> list[Fault]:
        """Those that fit; each is used up by its number of times."""
        if not self._all:
            return []
        with self._lock:
            out = []
            for fault in list(self._all):
                if fault.kind not in kinds or fault.match not in text:
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.used += 1
                if fault.times and fault.used >= fault.times:
                    self._all.remove(fault)
                out.append(fault)
            return out

    def of_request(self, text: str) -> list[Fault]:
        """For a request "METHOD /path?query", all kinds but task_fail."""
        return self._take(text, tuple(k for k in KINDS if k != "task_fail"))

    def task_failure(self, vm: Vm) -> tuple[float, tuple[int, str, str]] | None:
        found = self._take(vm.name, ("task_fail",))
        return (found[0].at, (found[0].status if found[0].status != 503 else 500, found[0].minor, found[0].message)) if found else None
