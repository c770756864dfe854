# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vocabulary of the data plane (design, section 4): disk, extent, source, sink. All units are bytes."""

from __future__ import annotations

import enum
from typing import Iterable, Iterator, NamedTuple, Protocol, runtime_checkable

SECTOR = 512


class Kind(enum.IntEnum):
    """What stands in an extent. HOLE and ZERO both read as zeroes; a hole takes no room at its source."""

    DATA = 0
    ZERO = 1
    HOLE = 2


class Extent(NamedTuple):
    """C(length) bytes from C(start) on, all of one kind."""

    start: int
    length: int
    kind: Kind

    @property
    def end(self) -> int:
        return self.start + self.length


@runtime_checkable
class Source(Protocol):
    """Something that can be read like a disk. C(read) may be called from several threads at once."""

    @property
    def capacity(self) -> int:
        """Size of the disk in bytes."""

    @property
    def identity(self) -> str:
        """Changes when the bytes behind the source may have changed (ETag and size, inode and mtime): a resumed copy compares it."""

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        """Extents in ascending order that together cover 0 to C(capacity) without a gap (with C(since): only what changed)."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly C(length) bytes from C(offset), or SourceError: a short read is never data."""

    def close(self) -> None: ...


@runtime_checkable
class Sink(Protocol):
    """Something that can be written like a disk. All methods but C(close) may be called from several threads at once."""

    @property
    def reads_zero(self) -> bool:
        """True where everything not yet written reads as zeroes (a new sparse file), so that zeroes need no writing."""

    def write(self, offset: int, data: bytes | memoryview) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...

    def flush(self) -> None:
        """When this returns, all that was written before is durable."""

    def read(self, offset: int, length: int) -> bytes: ...

    def close(self) -> None: ...


def merge(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of one kind. The input is ascending; empty extents vanish."""
    last: Extent | None = None
    for e in extents:
        if not e.length:
            continue
        if last is not None and last.end == e.start and last.kind == e.kind:
            last = Extent(last.start, last.length + e.length, e.kind)
        else:
            if last is not None:
                yield last
            last = e
    if last is not None:
        yield last
