# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Extents without structure: a flat file, and zeroes."""

from __future__ import annotations

from typing import Iterator

from ..errors import VmdkError
from ..model import Extent, Kind
from ..sources.file import data_ranges
from .files import RawFile


class FlatExtent:
    """C(length) bytes of a file from byte C(offset) on."""

    def __init__(self, file: RawFile, offset: int, length: int) -> None:
        if offset + length > file.size:
            raise VmdkError(
                "The flat extent is shorter than the descriptor says.",
                path=file.path,
                offset=offset,
                found=file.size,
                expected=offset + length,
            )
        self.file = file
        self.offset = offset
        self.capacity = length
        self.problems: list[str] = []

    @property
    def allocated(self) -> int:
        """Bytes that take room on the file system."""
        return min(self.file.allocated, self.capacity)

    def read(self, offset: int, length: int) -> bytes:
        return self.file.read(self.offset + offset, length)

    def read_into(self, offset: int, view: memoryview) -> None:
        """As C(read), into C(view)."""
        self.file.read_into(self.offset + offset, view)

    def extents(self) -> Iterator[Extent]:
        """Data and holes by lseek(2) SEEK_DATA; one data extent where the file system cannot tell."""
        end = self.offset + self.capacity
        at = self.offset
        ranges = data_ranges(self.file.fd, end) if self.file.regular else iter([(0, end)])
        for start, length in ranges:
            stop = start + length
            start = max(start, at)
            if stop <= start:
                continue
            if start > at:
                yield Extent(at - self.offset, start - at, Kind.HOLE)
            yield Extent(start - self.offset, stop - start, Kind.DATA)
            at = stop
        if at < end:
            yield Extent(at - self.offset, end - at, Kind.HOLE)

    def check(self) -> None:
        """Nothing in a flat extent can be inconsistent beyond its size."""

    def close(self) -> None:
        self.file.close()


class ZeroExtent:
    """A ZERO line of a descriptor: reads as zeroes."""

    file: RawFile | None = None
    allocated = 0

    def __init__(self, length: int) -> None:
        self.capacity = length
        self.problems: list[str] = []

    def read(self, offset: int, length: int) -> bytes:
        return bytes(length)

    def extents(self) -> Iterator[Extent]:
        if self.capacity:
            yield Extent(0, self.capacity, Kind.ZERO)

    def check(self) -> None:
        """Nothing to check."""

    def close(self) -> None:
        """Nothing to close."""
