# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A streamOptimized VMDK that comes through a pipe: one pass, bounded memory, no seeking.

What has come is believed only at the end: every grain must be named by exactly its entry in the tables, and the directory,
the footer and the end of the stream must be there. So who writes the bytes to a disk must not publish it before C(pieces) ended.
"""

from __future__ import annotations

import secrets
from array import array
from bisect import bisect_left
from collections import deque
from hashlib import blake2b
from typing import Iterable, Iterator, NamedTuple, Protocol

from ..errors import VmdkError
from ..model import SECTOR
from . import descriptor as text
from .compress import inflate
from .reader import UNSUPPORTED, DiskInfo, embedded
from .stream import compare_footer
from .structs import (
    DEFLATE_SLACK,
    FLAG_ZERO_GRAIN,
    GD_AT_END,
    GRAIN_MARKER,
    GT_SECTORS,
    GTES_PER_GT,
    MARKER_EOS,
    MARKER_FOOTER,
    MARKER_GD,
    MARKER_GT,
    MARKER_PROGRESS,
    SparseHeader,
    sectors,
    unpack_header,
    unpack_marker,
)
from .tables import words

#: Grains that wait for their table (9 bytes each). A table follows its 512 grains as a rule.
_MAX_WAITING = 8 << 20
_BLOCK = 1 << 20
#: Neighbours are joined up to this many bytes.
JOINED = 1 << 20
#: Empty tables, which tell nothing of their number, that are kept in mind.
_MAX_EMPTY = 1 << 20


class Readable(Protocol):
    """Something to read from: a pipe's file object."""

    def read(self, size: int, /) -> bytes | None: ...


class Piece(NamedTuple):
    """A compressed grain: its C(offset) in the disk, its data, and where that began in the stream (bytes)."""

    offset: int
    data: bytes
    at: int


class _Input:
    """Exact reads from a stream, counted."""

    def __init__(self, stream: Readable, path: str) -> None:
        self._stream = stream
        self._path = path
        self._block = b""
        self._used = 0
        self.position = 0

    def upto(self, length: int) -> bytes:
        """C(length) bytes, or what there is before the end."""
        parts = []
        while length:
            if self._used == len(self._block):
                try:
                    self._block = self._stream.read(_BLOCK) or b""
                except OSError as e:
                    raise VmdkError("The stream cannot be read.", path=self._path, offset=self.position, said=e.strerror) from e
                self._used = 0
                if not self._block:
                    break
            part = self._block[self._used : self._used + length]
            parts.append(part)
            self._used += len(part)
            self.position += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def take(self, length: int, what: str) -> bytes:
        """Exactly C(length) bytes."""
        data = self.upto(length)
        if len(data) != length:
            raise VmdkError(f"The stream is truncated: it ends inside of its {what}.", path=self._path, offset=self.position)
        return data

    def skip(self, length: int, what: str) -> None:
        while length:
            count = min(length, _BLOCK)
            self.take(count, what)
            length -= count


class _Sum:
    """Sum over (grain, sector) pairs in any order: two that are equal were made of the same pairs."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.value = 0

    def add(self, grain: int, sector: int) -> None:
        data = grain.to_bytes(8, "little") + sector.to_bytes(8, "little")
        self.value += int.from_bytes(blake2b(data, digest_size=16, key=self._key).digest(), "little")


class _Ahead:
    """Tables that stand before the grains (as qemu-img writes them)."""

    def __init__(self, header: SparseHeader, path: str) -> None:
        self._h = header
        self._path = path
        key = secrets.token_bytes(16)
        self._told, self._seen = _Sum(key), _Sum(key)

    def read(self, source: _Input) -> None:
        """Read the directory and the tables, up to the first marker."""
        h = self._h
        source.skip(h.gd_offset * SECTOR - source.position, "metadata")
        directory = words(source.take(h.tables * 4, "grain directory"))
        # One number each: a directory for 62 TiB has two million entries.
        order = sorted(at << 32 | number for number, at in enumerate(directory) if at)
        limit = -(-h.capacity_sectors // h.grain_sectors)
        for both in order:
            at, number = both >> 32, both & 0xFFFFFFFF
            if at * SECTOR < source.position or at + GT_SECTORS > h.overhead:
                raise VmdkError(
                    "A grain table does not lie between the directory and the grains, in order: such a stream cannot be read from a pipe.",
                    path=self._path,
                    found=f"table {number} at sector {at}",
                )
            source.skip(at * SECTOR - source.position, "metadata")
            table = words(source.take(GT_SECTORS * SECTOR, "grain table"))
            if any(table):
                for i, sector in enumerate(table):
                    if sector > 1:
                        self._told.add(number * GTES_PER_GT + i, sector)
                        if number * GTES_PER_GT + i >= limit:
                            raise VmdkError("A grain table has entries beyond the capacity.", path=self._path, found=f"table {number}")
                    elif sector == 1:
                        _zero_allowed(h, self._path)

    def grain(self, grain: int, sector: int) -> None:
        self._seen.add(grain, sector)

    def table(self, sector: int, data: bytes) -> None:
        raise VmdkError(
            "A grain table among the grains, though the header says that they come first.", path=self._path, offset=sector * SECTOR
        )

    def directory(self, sector: int, data: bytes) -> None:
        raise VmdkError("A second grain directory.", path=self._path, offset=sector * SECTOR)

    def end(self, footer: SparseHeader | None) -> None:
        if self._seen.value != self._told.value:
            raise VmdkError(
                "The grains in the stream are not those that the grain tables name: it is truncated or damaged.", path=self._path
            )


class _Behind:
    """Tables that follow their grains, and a directory at the end."""

    def __init__(self, header: SparseHeader, path: str) -> None:
        self._h = header
        self._path = path
        self._sectors = array("I")
        self._grains = array("Q")
        self._named = bytearray()
        self._left = 0
        self._tables: dict[int, int] = {}
        self._empty: set[int] = set()
        self._directory: int | None = None

    def grain(self, grain: int, sector: int) -> None:
        if len(self._sectors) >= _MAX_WAITING or sector >= 1 << 32:
            raise VmdkError("Too many grains without a table.", path=self._path, offset=sector * SECTOR)
        self._sectors.append(sector)
        self._grains.append(grain)
        self._named.append(0)
        self._left += 1

    def table(self, sector: int, data: bytes) -> None:
        """Take the table at C(sector): its number is told by the grains that it names."""
        number = -1
        for i, at in enumerate(words(data)):
            if at == 1:
                _zero_allowed(self._h, self._path)
            if at <= 1:
                continue
            k = bisect_left(self._sectors, at)
            grain = self._grains[k] if k < len(self._sectors) and self._sectors[k] == at else -1
            if number < 0 <= grain:
                number = grain // GTES_PER_GT
            if grain < 0 or grain != number * GTES_PER_GT + i or self._named[k]:
                raise VmdkError(
                    "A grain table names what is no grain of its own in the stream.",
                    path=self._path,
                    offset=sector * SECTOR + 4 * i,
                    found=at,
                )
            self._named[k] = 1
            self._left -= 1
        if number < 0:
            self._empty.add(sector)
            if len(self._empty) > _MAX_EMPTY:
                raise VmdkError("Too many empty grain tables.", path=self._path, offset=sector * SECTOR)
        elif number in self._tables:
            raise VmdkError("Two grain tables for one part of the disk.", path=self._path, offset=sector * SECTOR, found=number)
        else:
            self._tables[number] = sector
        if not self._left:
            del self._sectors[:]
            del self._grains[:]
            self._named.clear()

    def directory(self, sector: int, data: bytes) -> None:
        if self._directory is not None:
            raise VmdkError("A second grain directory.", path=self._path, offset=sector * SECTOR)
        self._directory = sector
        if self._left:
            missing = self._grains[self._named.index(0)]
            raise VmdkError(
                "The stream holds a grain that no grain table names: data would be lost.",
                path=self._path,
                offset=self._sectors[self._named.index(0)] * SECTOR,
                found=f"grain {missing}",
            )
        entries = words(data[: len(data) & ~3])
        for number, at in enumerate(entries):
            expected = self._tables.get(number, 0)
            if at != expected and not (not expected and at in self._empty and number < self._h.tables):
                raise VmdkError(
                    "The grain directory names other tables than the stream holds.",
                    path=self._path,
                    offset=sector * SECTOR + 4 * number,
                    found=at,
                    expected=expected,
                )
        if self._tables and max(self._tables) >= len(entries):
            raise VmdkError("The grain directory is too short.", path=self._path, offset=sector * SECTOR, found=len(entries))

    def end(self, footer: SparseHeader | None) -> None:
        wanted = footer.gd_offset if self._h.gd_offset == GD_AT_END and footer else self._h.gd_offset
        if self._directory is None or self._left or (self._h.gd_offset == GD_AT_END and footer is None):
            raise VmdkError("The stream is truncated: its grain directory or its footer is missing.", path=self._path)
        if wanted != self._directory:
            raise VmdkError(
                "The grain directory is not where the header or the footer says (sectors).",
                path=self._path,
                found=self._directory,
                expected=wanted,
            )


def _zero_allowed(header: SparseHeader, path: str) -> None:
    if not header.flags & FLAG_ZERO_GRAIN:
        raise VmdkError(
            "A grain table entry is 1 (zero grain), but the header does not allow for that.", path=path, expected="flag bit 2 in the header"
        )


class PipedStream:
    """A streamOptimized VMDK on C(stream), which is read once, from its begin to its end.

    C(info) and C(capacity) (bytes) are known at once. What is not in C(pieces) reads as zeroes. C(position) is the number of bytes taken.

    :param stream: has C(read(size)), which blocks; short reads are fine.
    :param path: what errors call it.
    :raises VmdkError: for whatever is no stream, cut, or damaged.
    """

    def __init__(self, stream: Readable, path: str = "-") -> None:
        self.path = path
        self._in = _Input(stream, path)
        head = self._in.upto(SECTOR)
        if head[:4] != b"KDMV":
            raise VmdkError("Only a streamOptimized VMDK can be read from a pipe.", path=path, offset=0, found=head[:16], expected=b"KDMV")
        self.header = h = unpack_header(head, path)
        if not h.compressed:
            raise VmdkError("Only a streamOptimized VMDK can be read from a pipe; this one is not compressed.", path=path, offset=8)
        self.info = DiskInfo(path, "vmdk", capacity=h.capacity)
        end = h.descriptor_offset + h.descriptor_sectors
        if h.descriptor_sectors and not 1 <= h.descriptor_offset < end <= max(h.overhead, 1):
            raise VmdkError("The descriptor does not lie before the grains.", path=path, offset=28, found=h.descriptor_offset)
        if h.overhead < 1 or (h.gd_offset != GD_AT_END and not end <= h.gd_offset <= 1 << 32):
            raise VmdkError("Impossible positions in the header (sectors).", path=path, offset=56, found=h.gd_offset)
        data = None
        if h.descriptor_sectors:
            self._in.skip((h.descriptor_offset - 1) * SECTOR, "metadata")
            data = self._in.take(h.descriptor_sectors * SECTOR, "descriptor")
        d = embedded(self.info, data, h)
        if d.parent_cid != text.NO_PARENT:
            raise VmdkError("A delta cannot be read from a pipe: its parent is needed beside it.", path=path, code=UNSUPPORTED)
        if h.unclean:
            self.info.problems.append("the file was not closed cleanly (uncleanShutdown is set)")
        self.capacity = h.capacity
        self.grain = h.grain
        self.info.chain = [path]
        self._begun = False

    @property
    def problems(self) -> list[str]:
        """Remarks."""
        return self.info.problems

    @property
    def position(self) -> int:
        """Bytes taken from the stream so far."""
        return self._in.position

    def pieces(self) -> Iterator[Piece]:
        """The compressed grains in the order of the stream, once. It ends without VmdkError only where the whole stream was sound."""
        if self._begun:
            raise VmdkError("A stream is read only once.", path=self.path)
        self._begun = True
        h, source = self.header, self._in
        ahead = h.gd_offset < h.overhead
        tables: _Ahead | _Behind = _Ahead(h, self.path) if ahead else _Behind(h, self.path)
        if isinstance(tables, _Ahead):
            tables.read(source)
        source.skip(h.overhead * SECTOR - source.position, "metadata")
        footer: SparseHeader | None = None
        while True:
            at = source.position
            head = source.upto(SECTOR)
            if not head and ahead:
                break
            if len(head) != SECTOR:
                raise VmdkError("The stream is truncated: it has no end marker.", path=self.path, offset=at)
            value, size, kind = unpack_marker(head)
            if size:
                yield self._piece(head, at, tables)
                continue
            sector = at // SECTOR + 1
            if kind == MARKER_EOS and not value:
                if any(head):
                    raise VmdkError("A broken end marker.", path=self.path, offset=at)
                break
            if footer is not None:
                raise VmdkError("The footer is not at the end of the stream.", path=self.path, offset=at)
            if kind == MARKER_GT and value == GT_SECTORS:
                tables.table(sector, source.take(GT_SECTORS * SECTOR, "grain table"))
            elif kind == MARKER_GD and sectors(h.tables * 4) <= value <= sectors(h.tables * 4) + 128:
                tables.directory(sector, source.take(value * SECTOR, "grain directory"))
            elif kind == MARKER_FOOTER and value == 1:
                footer = unpack_header(source.take(SECTOR, "footer"), self.path, sector * SECTOR)
                compare_footer(h, footer, self.path, sector * SECTOR)
            elif kind == MARKER_PROGRESS and value <= 128:
                source.skip(value * SECTOR, "progress marker")
            else:
                raise VmdkError("An unknown marker in the stream.", path=self.path, offset=at, found=f"kind {kind}, {value} sectors")
        tables.end(footer)
        self._nothing_after()

    def _piece(self, head: bytes, at: int, tables: _Ahead | _Behind) -> Piece:
        lba, size = GRAIN_MARKER.unpack_from(head)
        step = self.header.grain_sectors
        if lba % step or lba >= self.header.capacity_sectors:
            raise VmdkError("A grain of the stream lies at an impossible place (sectors).", path=self.path, offset=at, found=lba)
        if size > 2 * self.grain + DEFLATE_SLACK:
            raise VmdkError(
                "Impossible size of a compressed grain.", path=self.path, offset=at + 8, found=size, expected=f"1 to {2 * self.grain}"
            )
        whole = GRAIN_MARKER.size + size
        body = head[GRAIN_MARKER.size : whole]
        if whole > SECTOR:
            body += self._in.take(sectors(whole) * SECTOR - SECTOR, "grain")[: whole - SECTOR]
        tables.grain(lba // step, at // SECTOR)
        return Piece(lba * SECTOR, body, at)

    def _nothing_after(self) -> None:
        while data := self._in.upto(_BLOCK):
            if any(data):
                raise VmdkError("Bytes follow the end of the stream.", path=self.path, offset=self._in.position - len(data))

    def decode(self, piece: Piece) -> tuple[int, bytes]:
        """(offset, bytes) of a grain, that of a disk's odd end cut; may be called from several threads."""
        left = min(self.grain, self.capacity - piece.offset)
        data = inflate(piece.data, self.grain, left, self.path, piece.at)
        return piece.offset, data if len(data) == left else data[:left]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) in the order of the stream, neighbours joined to at most about JOINED bytes."""
        return joined(self.decode(piece) for piece in self.pieces())


def joined(grains: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Join neighbours of C(grains) (offset, bytes) to pieces that end at multiples of JOINED at the latest."""
    waiting: deque[bytes] = deque()
    start = end = 0
    for offset, data in grains:
        if waiting and (offset != end or end % JOINED == 0):
            yield start, b"".join(waiting)
            waiting.clear()
        if not waiting:
            start = offset
        waiting.append(data)
        end = offset + len(data)
    if waiting:
        yield start, b"".join(waiting)
