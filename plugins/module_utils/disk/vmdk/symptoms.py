# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong inside of a sparse extent: its directories, tables, markers and grains, each with its place in the file."""

from __future__ import annotations

from array import array
from itertools import pairwise

from ..errors import VmdkError
from ..model import SECTOR
from . import survey
from .files import RawFile
from .lenient import Copies, PlainTables
from .report import Report
from .structs import GD_AT_END, GRAIN_MARKER, GT_SECTORS, GTES_PER_GT, SparseHeader
from .tables import Directory

_MAX_TABLES = 1 << 18
#: Tables that are looked at entry by entry after something wrong was found: 128 GiB of disk in grains of 64 KiB.
_MAX_LOOKED = 1 << 12


def _directories(copies: Copies, report: Report) -> None:
    """Directories outside of the file, entries that lead past its end, tables that overlap, and what only one copy has."""
    path = copies.file.path
    for fault in copies.faults if copies.header.gd_offset != GD_AT_END else []:
        report.error(fault)
    places: list[tuple[int, int, int]] = []
    for d in copies.directories:
        for number in copies.used():
            at = d[number]
            if at and copies.place(d, number) is None:
                past = (at + GT_SECTORS) * SECTOR > copies.file.size
                report.add(
                    f"An entry of the {d.name} "
                    + ("points past the end of the file (sectors)." if past else "leads to the same table as another one."),
                    path=path,
                    offset=d.offset * SECTOR + number * 4,
                    found=at,
                    expected=f"at most {copies.file.size // SECTOR - GT_SECTORS}" if past else "a table of its own",
                )
            elif at and len(places) < _MAX_TABLES:
                places.append((at, at + GT_SECTORS, d.offset * SECTOR + number * 4))
            if not at and copies.redundant and any(other[number] for other in copies.directories):
                report.add(
                    f"The {d.name} has no entry for a table that its copy has.",
                    path=path,
                    offset=d.offset * SECTOR + number * 4,
                    found=0,
                    expected="a table",
                )
            if report.full:
                return
    for (a, b, _entry), (c, e, entry) in pairwise(sorted(places)):
        if c < b:
            report.add("Grain tables overlap.", path=path, offset=entry, found=f"sectors {c} to {e}", expected=f"none of {a} to {b}")


def plain_tables(file: RawFile, header: SparseHeader, report: Report) -> None:
    """All that is wrong with the tables of an uncompressed extent, entry by entry."""
    copies = Copies(file, header)
    _directories(copies, report)
    if not copies.directories:
        return
    tables = PlainTables(copies)
    for looked, number in enumerate(copies.used()):
        if looked >= _MAX_LOOKED and report.damaged:
            report.add("Not all grain tables were looked at.", "warning", path=file.path)
            return
        rows = copies.rows(number)
        leading = copies.leading(number)
        left = copies.left(number)
        if len(rows) == 2 and rows[0] != rows[1]:
            _differences(file, leading, rows, number, report)
        # Two copies that agree have their faults in common.
        for d, row in zip(leading, rows, strict=True) if len(rows) != 2 or rows[0] != rows[1] else [(leading[0], rows[0])]:
            _entries(tables, d, row, number, left, len(rows) == 2 and rows[0] != rows[1], report)
        if report.full:
            return
    if not tables.holes_proven:
        report.add(
            "The file holds data that its grain tables do not name: they are damaged.",
            path=file.path,
            offset=tables.unnamed,
        )


def _differences(file: RawFile, leading: list[Directory], rows: list[array[int]], number: int, report: Report) -> None:
    kind = "The grain table and its redundant copy differ."
    first, second = leading[0][number], leading[1][number]
    for i, (a, b) in enumerate(zip(*rows, strict=True)):
        if a != b:
            report.add(kind, path=file.path, offset=first * SECTOR + i * 4 if first else second * SECTOR + i * 4, found=a, expected=b)


def _entries(tables: PlainTables, d: Directory, row: array[int], number: int, left: int, differ: bool, report: Report) -> None:
    h, file = tables.header, tables.file
    place = d[number] * SECTOR
    if any(row[left:]):
        i = next(i for i in range(left, GTES_PER_GT) if row[i])
        report.add("A grain table has entries beyond the capacity.", path=file.path, offset=place + i * 4, found=row[i], expected=0)
    for i in range(left):
        at = row[i]
        if not at:
            continue
        fault = tables.why_not(at, False)
        need = min(h.grain, h.capacity - (number * GTES_PER_GT + i) * h.grain)
        if fault is None and at > 1 and at * SECTOR + need > file.size:
            fault = "its end lies past the end of the file"
        if fault is not None:
            report.add(
                f"A grain table entry cannot be true: {fault}.",
                path=file.path,
                offset=place + i * 4,
                found=at,
                expected=f"a free place for the disk's byte {(number * GTES_PER_GT + i) * h.grain}",
            )
            if report.full:
                return


def stream_markers(file: RawFile, header: SparseHeader, report: Report, *, deep: bool, readable: bool = False) -> None:
    """All that is wrong in a stream: its markers from the first to the last, and what its tables say otherwise.

    With C(readable) the tables were found sound: what is no marker between the grains hurts nothing.
    """
    path = file.path
    copies = Copies(file, header)
    known: dict[int, int] = {}
    for d in copies.directories:
        known[d.offset] = d.end
        known.update({at: at + GT_SECTORS for number in copies.used() if (at := copies.place(d, number))})
    _directories(copies, report)
    for event in survey.Survey(file, header, decode=deep, tables=known).events():
        if report.full:
            return
        disk = event.value * header.grain
        if event.kind == survey.GRAIN:
            rows = copies.rows(event.value // GTES_PER_GT) if copies.directories else []
            at = event.value % GTES_PER_GT
            if rows and all(row[at] != event.start // SECTOR for row in rows):
                report.add(
                    "The stream holds a grain that the grain table does not name: data would be lost.",
                    path=path,
                    offset=event.start,
                    found=f"entry {rows[0][at]} for the disk's byte {disk}",
                    expected=event.start // SECTOR,
                )
        elif event.kind == survey.BAD:
            report.add(
                f"A compressed grain is damaged: {event.why}.",
                path=path,
                offset=event.start,
                found=f"the grain of the disk's byte {disk}",
            )
        elif event.kind == survey.DAMAGE:
            report.add(
                "No marker of the stream can be read here.",
                "warning" if readable else "error",
                path=path,
                offset=event.start,
                found=f"{event.end - event.start} bytes without sense",
            )
        elif event.kind == survey.TRAILING:
            report.add("Bytes follow the end of the stream.", path=path, offset=event.start, found=f"{event.end - event.start} bytes")
    _named(copies, report)


def _named(copies: Copies, report: Report) -> None:
    """Entries of the tables that do not lead to a grain of their number."""
    file, h = copies.file, copies.header
    for looked, number in enumerate(copies.used() if copies.directories else ()):
        if looked >= _MAX_LOOKED and report.damaged:
            report.add("Not all grain tables were looked at.", "warning", path=file.path)
            return
        for d, row in zip(copies.leading(number), copies.rows(number), strict=True):
            place = d[number] * SECTOR
            if any(row[copies.left(number) :]):
                report.add("A grain table has entries beyond the capacity.", path=file.path, offset=place)
            for i in range(copies.left(number)):
                at = row[i]
                if not at or report.full:
                    continue
                lba = (number * GTES_PER_GT + i) * h.grain_sectors
                if (at + 1) * SECTOR > file.size and at * SECTOR + GRAIN_MARKER.size > file.size:
                    report.add(
                        "A grain table entry points past the end of the file (sectors).", path=file.path, offset=place + i * 4, found=at
                    )
                    continue
                try:
                    there, size = GRAIN_MARKER.unpack(file.read(at * SECTOR, GRAIN_MARKER.size, "grain marker"))
                except VmdkError as e:
                    report.error(e)
                    continue
                if there != lba or not size:
                    report.add(
                        "A grain table entry leads to something else than its grain (marker, sectors).",
                        path=file.path,
                        offset=place + i * 4,
                        found=f"entry {at}, marker {there}",
                        expected=lba,
                    )
