# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A walk over a stream-optimized extent that does not end at damage: it goes on at the next marker that can be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

from ..errors import VmdkError
from ..model import SECTOR
from .compress import inflate
from .files import RawFile
from .lost import Window
from .structs import (
    DEFLATE_SLACK,
    GRAIN_MARKER,
    GT_SECTORS,
    MAGIC,
    MARKER_FOOTER,
    MARKER_GD,
    MARKER_GT,
    MARKER_PROGRESS,
    SparseHeader,
    sectors,
    unpack_marker,
)

GRAIN = "grain"
BAD = "bad"
TABLE = "table"
DIRECTORY = "directory"
FOOTER = "footer"
PROGRESS = "progress"
DAMAGE = "damage"
END = "end"
TRAILING = "trailing"
_ZERO_SECTOR = bytes(SECTOR)


@dataclass(frozen=True)
class Event:
    """What stands at bytes C(start) to C(end) of the file.

    C(kind) grain: a grain whose number is C(value). bad: the same, but its data cannot be decoded (C(why)). table, directory,
    footer: C(value) is the byte where they begin, behind their marker. progress: nothing of the disk. damage: no marker that
    can be believed. end: the end of the stream; what follows is zero. trailing: bytes after it.
    """

    kind: str
    start: int
    end: int
    value: int = 0
    why: str = ""


def zlib_head(data: bytes | memoryview) -> bool:
    """True where C(data) begins as every zlib stream does (RFC 1950, 2.2)."""
    return len(data) >= 2 and data[0] & 0x0F == 8 and data[0] >> 4 <= 7 and (data[0] * 256 + data[1]) % 31 == 0 and not data[1] & 0x20


class Survey:
    """One walk. With C(decode) each grain is decoded; without, only those found after damage, so that no chance bytes pass."""

    def __init__(self, file: RawFile, header: SparseHeader, *, decode: bool, tables: dict[int, int] | None = None) -> None:
        self._file = file
        self._header = header
        self._decode = decode
        self._tables = tables or {}
        self._window = Window(file)
        self._limit = header.grain + DEFLATE_SLACK

    def events(self) -> Iterator[Event]:
        """Everything from the first grain on, in the order of the file, without gaps."""
        h, size = self._header, self._file.size
        first = max(1, h.descriptor_offset + h.descriptor_sectors if h.descriptor_offset < 1 << 32 else 1)
        pos = (h.overhead if first <= h.overhead <= size // SECTOR else first) * SECTOR
        lost = -1
        footer = False
        while pos < size:
            found = self._at(pos, after_damage=lost >= 0)
            if found is None:
                lost = pos if lost < 0 else lost
                pos = self._next(pos)
                continue
            if lost >= 0:
                yield Event(DAMAGE, lost, pos)
                lost = -1
            if found.kind == END:
                after = self._nonzero(found.end)
                if after is not None and not footer:
                    # Zeroes in the middle: a hole in the file, not its end.
                    lost = pos
                    pos = after
                    continue
                yield found
                if after is not None:
                    yield Event(TRAILING, after, size)
                return
            yield found
            footer = found.kind == FOOTER
            pos = found.end
        if lost >= 0:
            yield Event(DAMAGE, lost, size)

    def _next(self, pos: int) -> int:
        """The next sector after C(pos) where a marker may stand: zeroes are passed at once."""
        after = pos + SECTOR
        if self._window.get(after, SECTOR) == _ZERO_SECTOR:
            found = self._nonzero(after)
            return self._file.size if found is None else found
        return after

    def _nonzero(self, pos: int) -> int | None:
        """The first sector from C(pos) on that is not zero; None where all are."""
        while pos < self._file.size:
            piece = bytes(self._window.get(pos, 1 << 20))
            stripped = piece.lstrip(b"\0")
            if stripped:
                return pos + (len(piece) - len(stripped)) // SECTOR * SECTOR
            pos += len(piece)
        return None

    def _at(self, pos: int, *, after_damage: bool) -> Event | None:
        head = self._window.get(pos, SECTOR)
        if len(head) < 16:
            return None
        value, size, kind = unpack_marker(bytes(head[:16]))
        if size:
            return self._grain(pos, value, size, after_damage)
        if any(head[16:]) or len(head) < SECTOR:
            return self._bare_table(pos)
        if kind == 0 and value == 0:
            if pos // SECTOR in self._tables:
                return self._bare_table(pos)
            return None if after_damage else Event(END, pos, pos + SECTOR)
        return self._metadata(pos, value, kind) or self._bare_table(pos)

    def _metadata(self, pos: int, value: int, kind: int) -> Event | None:
        body = pos + SECTOR
        end = body + value * SECTOR
        if kind == MARKER_GT and value == GT_SECTORS and end <= self._file.size:
            return Event(TABLE, pos, end, body)
        if kind == MARKER_GD and value == sectors(4 * self._header.tables) and end <= self._file.size:
            return Event(DIRECTORY, pos, end, body)
        if kind == MARKER_FOOTER and value == 1 and self._window.get(body, 4) == MAGIC:
            return Event(FOOTER, pos, min(end, self._file.size), body)
        if kind == MARKER_PROGRESS and value == 0:
            return Event(PROGRESS, pos, body)
        return None

    def _bare_table(self, pos: int) -> Event | None:
        """A table without a marker, where a directory names this place."""
        end = self._tables.get(pos // SECTOR)
        return Event(TABLE, pos, end * SECTOR, pos) if end is not None and end * SECTOR <= self._file.size else None

    def _plausible(self, pos: int) -> bool:
        """True where something like a marker stands at C(pos), or the file ends there."""
        head = bytes(self._window.get(pos, GRAIN_MARKER.size + 4))
        if len(head) < GRAIN_MARKER.size + 4:
            return pos >= self._file.size
        lba, size = GRAIN_MARKER.unpack_from(head)
        if size:
            return self._fits(lba, size) and zlib_head(head[GRAIN_MARKER.size :])
        return self._at(pos, after_damage=False) is not None

    def _fits(self, lba: int, size: int) -> bool:
        h = self._header
        return lba % h.grain_sectors == 0 and lba < h.capacity_sectors and size <= self._limit

    def _grain(self, pos: int, lba: int, size: int, after_damage: bool) -> Event | None:
        if not self._fits(lba, size):
            return self._bare_table(pos)
        total = GRAIN_MARKER.size + size
        number = lba // self._header.grain_sectors
        end = pos + sectors(total) * SECTOR
        if pos + total > self._file.size:
            return None if after_damage else Event(BAD, pos, self._file.size, number, "cut")
        body = self._window.get(pos, total)[GRAIN_MARKER.size :]
        if not zlib_head(body):
            return Event(BAD, pos, end, number, "no zlib data") if not after_damage and self._plausible(end) else self._bare_table(pos)
        if not self._decode and not after_damage:
            return Event(GRAIN, pos, end, number) if self._plausible(end) or self._sound(body, pos, number) else None
        if self._sound(body, pos, number):
            return Event(GRAIN, pos, end, number)
        if after_damage or not self._plausible(end):
            return self._bare_table(pos)
        return Event(BAD, pos, end, number, "its data cannot be decoded")

    def _sound(self, body: memoryview, pos: int, number: int) -> bool:
        h = self._header
        try:
            inflate(body, h.grain, min(h.grain, h.capacity - number * h.grain), self._file.path, pos)
        except VmdkError:
            return False
        return True
