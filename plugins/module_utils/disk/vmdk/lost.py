# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The map of what a salvage could not prove, and a window over a file for walks through it."""

from __future__ import annotations

from typing import TypedDict

from .files import RawFile

#: Ranges that are kept apart; above, neighbours are joined, so that the map says more than is lost, never less.
MAX_RANGES = 4096
_WINDOW = 4 << 20


class LostRange(TypedDict):
    """C(length) bytes of disk from byte C(start) that are lost, or given but not proven, and why."""

    start: int
    length: int
    reason: str


class Lost:
    """Ranges of a disk in ascending order; neighbours of one reason are one range."""

    def __init__(self) -> None:
        self.ranges: list[LostRange] = []

    def add(self, start: int, length: int, reason: str) -> None:
        """C(length) bytes from C(start), which lies after all that was added before."""
        if length <= 0:
            return
        last = self.ranges[-1] if self.ranges else None
        if last is not None and last["start"] + last["length"] == start and last["reason"] == reason:
            last["length"] += length
        elif last is not None and len(self.ranges) >= MAX_RANGES:
            last["length"] = start + length - last["start"]
            last["reason"] = "damage in many places, listed as one range"
        else:
            self.ranges.append({"start": start, "length": length, "reason": reason})

    def shifted(self, offset: int) -> list[LostRange]:
        """The ranges of an extent that begins at byte C(offset) of the disk."""
        return [{"start": r["start"] + offset, "length": r["length"], "reason": r["reason"]} for r in self.ranges]


def merged(ranges: list[LostRange]) -> list[LostRange]:
    """C(ranges), which ascend, with neighbours of one reason joined, and bounded."""
    out = Lost()
    for r in ranges:
        out.add(r["start"], r["length"], r["reason"])
    return out.ranges


class Window:
    """Bytes of a file for a walk forwards: read in large pieces, given in small ones."""

    def __init__(self, file: RawFile) -> None:
        self._file = file
        self._base = 0
        self._data = b""

    def get(self, at: int, length: int) -> memoryview:
        """Up to C(length) bytes (at most 4 MiB) from byte C(at): fewer at the end of the file only."""
        length = max(0, min(length, self._file.size - at, _WINDOW))
        if at < self._base or at + length > self._base + len(self._data):
            self._base = at
            self._data = self._file.read(at, min(_WINDOW, self._file.size - at)) if at < self._file.size else b""
        return memoryview(self._data)[at - self._base : at - self._base + length]
