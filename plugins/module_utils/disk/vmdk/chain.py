# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A delta over its parent: what the delta does not hold is the parent's; zeroes of the delta are zeroes, over a parent too."""

from __future__ import annotations

from typing import Iterator, Protocol

from ..errors import VmdkError
from ..model import Extent, Kind, merge
from .descriptor import Descriptor
from .files import RawFile
from .flat import FlatExtent, ZeroExtent
from .grains import GrainExtent
from .sparse import SparseExtent
from .structs import GTES_PER_GT

#: vSphere allows 32 snapshots of a VM.
MAX_DEPTH = 64
#: Of all descriptors of a chain together: what is parsed of them stays in memory.
MAX_LINES = 100000
MAX_TEXT = 4 << 20
_KINDS = (Kind.HOLE, Kind.ZERO, Kind.DATA)


class AnyExtent(Protocol):
    """What a disk wants of its extents; all units are bytes."""

    capacity: int
    problems: list[str]

    @property
    def file(self) -> RawFile | None: ...

    @property
    def allocated(self) -> int: ...

    def extents(self) -> Iterator[Extent]: ...

    def read(self, offset: int, length: int) -> bytes: ...

    def check(self) -> None: ...

    def close(self) -> None: ...


class Parent(Protocol):
    """What a delta wants of its parent."""

    @property
    def capacity(self) -> int: ...

    def extents(self) -> Iterator[Extent]: ...

    def read(self, offset: int, length: int) -> bytes: ...


def check_cid(child: Descriptor, parent: Descriptor, path: str, parent_path: str) -> None:
    """Raise VmdkError where the parent was changed since the delta was made: its CID is another than the delta's parentCID."""
    if not any(key.lower() == "cid" for key in parent.values):
        raise VmdkError("The parent has no CID: it cannot be told whether the delta belongs to it.", path=parent_path)
    if parent.cid != child.parent_cid:
        raise VmdkError(
            "The delta's parentCID is not its parent's CID: the parent was changed since, or it is another disk.",
            path=path,
            found=f"parentCID={child.parent_cid:08x}",
            expected=f"CID={parent.cid:08x} of {parent_path}",
        )


def check_length(depth: int, lines: int, size: int, path: str) -> None:
    """Raise VmdkError for a chain of C(depth) links, C(lines) extent lines and C(size) bytes of descriptors that no product makes."""
    for what, found, limit in (("links", depth, MAX_DEPTH), ("extents", lines, MAX_LINES), ("bytes of descriptors", size, MAX_TEXT)):
        if found > limit:
            raise VmdkError(
                f"The chain of parents is too long: it has too many {what}.", path=path, found=found, expected=f"at most {limit}"
            )


def hint_names(d: Descriptor, path: str) -> list[str]:
    """Spellings of the parent's name in the delta's descriptor C(d)."""
    if not d.parent_hint:
        raise VmdkError(
            "The disk is a delta, but its descriptor does not name the parent (parentFileNameHint).",
            path=path,
            found=f"parentCID={d.parent_cid:08x}",
        )
    return d.parent_names


def pieces(part: AnyExtent, offset: int, length: int) -> Iterator[Extent]:
    """What a range of one extent of a delta holds; HOLE is what the parent has to tell."""
    if isinstance(part, FlatExtent):
        # A flat extent has all of its bytes itself: what is a hole on the file system is zeroes of the disk.
        return iter([Extent(offset, length, Kind.DATA)])
    if isinstance(part, ZeroExtent):
        return iter([Extent(offset, length, Kind.ZERO)])
    if isinstance(part, GrainExtent):
        return part.map(offset, length)
    if isinstance(part, SparseExtent):
        return merge(_sparse(part, offset, length))
    return _within(part.extents(), offset, offset + length)


def _within(extents: Iterator[Extent], start: int, stop: int) -> Iterator[Extent]:
    for e in extents:
        if e.start < stop and e.end > start:
            at = max(e.start, start)
            yield Extent(at, min(e.end, stop) - at, e.kind)


def _sparse(part: SparseExtent, offset: int, length: int) -> Iterator[Extent]:
    part.check()
    grain, end = part.grain, offset + length
    span = grain * GTES_PER_GT
    while offset < end:
        number, inside = divmod(offset, span)
        stop = min(end, (number + 1) * span)
        table = None if part.tables is None else part.tables.get(number)
        if table is None:
            yield Extent(offset, stop - offset, Kind.HOLE)
        else:
            i, last = inside // grain, -(-(stop - number * span) // grain)
            while i < last:
                kind = min(table[i], 2)
                j = i + 1
                while j < last and min(table[j], 2) == kind:
                    j += 1
                at = max(offset, number * span + i * grain)
                yield Extent(at, min(stop, number * span + j * grain) - at, _KINDS[kind])
                i = j
        offset = stop


def own(part: AnyExtent) -> Iterator[Extent]:
    """The extents of one extent file of a delta; HOLE is what the parent has to tell."""
    for e in part.extents():
        yield Extent(e.start, e.length, Kind.ZERO) if e.kind is Kind.HOLE and isinstance(part, FlatExtent) else e


def over(child: Iterator[Extent], parent: Parent) -> Iterator[Extent]:
    """The extents of a delta laid over those of its parent, which may be shorter."""
    below = parent.extents()
    under: Extent | None = next(below, None)
    for e in child:
        if e.kind is not Kind.HOLE:
            yield e
            continue
        at = e.start
        while at < e.end:
            while under is not None and under.end <= at:
                under = next(below, None)
            if under is None:
                yield Extent(at, e.end - at, Kind.HOLE)
                break
            stop = min(e.end, under.end)
            yield Extent(at, stop - at, under.kind)
            at = stop


def read_below(parent: Parent, offset: int, length: int) -> bytes:
    """Bytes of the parent; zeroes beyond its end."""
    inside = max(0, min(length, parent.capacity - offset))
    data = parent.read(offset, inside) if inside else b""
    return data if inside == length else data + bytes(length - inside)
