# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A list of what is wrong with a disk file: bounded, each entry once."""

from __future__ import annotations

from typing import Any

from ..errors import FerryError, bounded

#: A damaged disk may have a problem in each grain.
MAX_PROBLEMS = 100
#: Problems of one kind that are listed; the others are counted.
_OF_A_KIND = 20
_FACTS = ("path", "offset", "found", "expected")


def problem(error: FerryError | str, severity: str = "error") -> dict[str, Any]:
    """One entry of C(problems): severity (error, unsupported, warning), message, and where known path, offset, found, expected."""
    if isinstance(error, str):
        return {"severity": severity, "message": error}
    facts = {k: v for k, v in error.details.items() if k in _FACTS}
    # The facts stand beside the message; there they need not be repeated.
    message = error.message.partition(" [")[0] if facts else error.message
    return {"severity": severity, "message": message + (f" ({error.said})" if error.said else ""), **facts}


class Report:
    """Problems in the order in which they were found."""

    def __init__(self) -> None:
        self._problems: list[dict[str, Any]] = []
        self._seen: set[tuple[Any, ...]] = set()
        self._last: tuple[Any, ...] | None = None
        self._kinds: dict[str, int] = {}

    @property
    def full(self) -> bool:
        """True where no more can be listed."""
        return len(self._problems) >= MAX_PROBLEMS

    @property
    def damaged(self) -> bool:
        """True where there is an error among them."""
        return any(p["severity"] == "error" for p in self._problems)

    def enough(self, message: str) -> bool:
        """True where enough problems of this kind are listed; it is counted all the same."""
        self._kinds[message] = self._kinds.get(message, 0) + 1
        return self._kinds[message] > _OF_A_KIND

    def error(self, error: FerryError, severity: str = "error") -> None:
        """Add what an exception says."""
        self._add(problem(error, severity))

    def add(self, message: str, severity: str = "error", **facts: Any) -> None:
        """Add a problem with C(facts): path, offset (bytes), found, expected; None is left out."""
        kept = {k: bounded(v, 120) if isinstance(v, str) else v for k, v in facts.items() if v is not None}
        self._add({"severity": severity, "message": message, **kept})

    def _add(self, entry: dict[str, Any]) -> None:
        key = (entry["message"], entry.get("path"), entry.get("offset"))
        if key in self._seen or key == self._last:
            return
        self._last = key
        if self.enough(entry["message"]) or self.full:
            return
        self._seen.add(key)
        self._problems.append(entry)

    def has(self, message: str) -> bool:
        """True where a problem with this message is listed."""
        return message in self._kinds

    def listed(self) -> list[dict[str, Any]]:
        """All of them, and how many of a kind were left out."""
        out = list(self._problems)
        for message, count in self._kinds.items():
            if count > _OF_A_KIND and len(out) < MAX_PROBLEMS:
                out.append({"severity": "error", "message": f"{count - _OF_A_KIND} more of: {message}"})
        return out
