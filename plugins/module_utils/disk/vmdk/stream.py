# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What only stream-optimized extents have: the footer, and markers that tell lost and crossed grains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import VmdkError
from ..model import SECTOR
from .files import RawFile
from .structs import (
    GD_AT_END,
    GRAIN_MARKER,
    GTES_PER_GT,
    MAGIC,
    MARKER_EOS,
    MARKER_FOOTER,
    MARKER_PROGRESS,
    SparseHeader,
    unpack_header,
    unpack_marker,
)

if TYPE_CHECKING:
    from .tables import Tables

#: Read at once where a marker is looked for: no dearer than the marker alone, and well compressed grains follow in it.
_WINDOW = 4096
#: How far before the end a misplaced footer is looked for, only to name what is wrong.
_SEARCH = 1 << 20


def find_footer(file: RawFile, header: SparseHeader) -> SparseHeader | None:
    """The footer, which agrees with C(header). None where there is none and the header has its own grain directory.

    :raises VmdkError: for a stream that is cut, goes on after its end, or whose header and footer tell different disks.
    """
    wanted = header.gd_offset == GD_AT_END
    tail = file.read(file.size - 3 * SECTOR, 3 * SECTOR, "footer") if file.size >= 4 * SECTOR and not file.size % SECTOR else b""
    value, size, kind = unpack_marker(tail) if tail else (0, 0, 0)
    if not tail or tail[SECTOR : SECTOR + 4] != MAGIC or (size, kind) != (0, MARKER_FOOTER) or any(tail[2 * SECTOR :]):
        if not wanted:
            return None
        raise VmdkError(
            _what_is_wrong(file), path=file.path, offset=max(file.size - 3 * SECTOR, 0), expected="footer marker, footer, end of stream"
        )
    offset = file.size - 2 * SECTOR
    footer = unpack_header(tail[SECTOR : 2 * SECTOR], file.path, offset)
    compare_footer(header, footer, file.path, offset)
    return footer


def compare_footer(header: SparseHeader, footer: SparseHeader, path: str, offset: int) -> None:
    """Raise VmdkError where C(footer), at byte C(offset), tells of another disk than C(header)."""
    wanted = header.gd_offset == GD_AT_END
    for name in ("version", "flags", "capacity_sectors", "grain_sectors", "descriptor_offset", "descriptor_sectors", "compression"):
        ours, theirs = getattr(header, name), getattr(footer, name)
        if ours != theirs:
            raise VmdkError(f"Header and footer differ in {name}.", path=path, offset=offset, found=theirs, expected=ours)
    if wanted and footer.gd_offset == GD_AT_END:
        raise VmdkError("The footer points to another footer.", path=path, offset=offset + 56)
    if not wanted and footer.gd_offset not in (GD_AT_END, header.gd_offset):
        raise VmdkError(
            "Header and footer name different grain directories (sectors).",
            path=path,
            offset=offset + 56,
            found=footer.gd_offset,
            expected=header.gd_offset,
        )


def _what_is_wrong(file: RawFile) -> str:
    start = max(0, file.size - _SEARCH)
    tail = file.read(start, file.size - start)
    at = tail.rfind(MAGIC)
    if at >= SECTOR and start + at > 0:
        value, size, kind = unpack_marker(tail[at - SECTOR :])
        if (size, kind) == (0, MARKER_FOOTER) and start + at + 2 * SECTOR < file.size:
            return f"Bytes follow the end of the stream, whose footer is at {start + at}: the file was appended to or padded."
    return "The stream is truncated: it has no footer at its end."


def walk(file: RawFile, header: SparseHeader, tables: Tables, footer: SparseHeader | None) -> list[str]:
    """Go over all markers; return remarks.

    A grain in the stream that no table names would read as zeroes: that is refused. So is what follows the end of the
    stream. A marker that is not understood ends the walk with a remark: the tables still lead to every grain they name.
    """
    known = dict(tables.runs())
    pos = header.overhead * SECTOR
    if not SECTOR <= pos <= file.size:
        return [f"overHead ({header.overhead} sectors) lies outside the file; the stream's markers were not checked"]
    window, base = b"", 0
    grain, span, longest = header.grain_sectors, header.grain_sectors * GTES_PER_GT, 2 * header.grain
    table, current = None, -1
    while pos < file.size:
        if pos // SECTOR in known:
            pos = known[pos // SECTOR] * SECTOR
            continue
        if file.size - pos < 16:
            return [f"{file.size - pos} stray bytes at the end of the stream"]
        if not base <= pos <= base + len(window) - 16:
            base, window = pos, file.read(pos, min(_WINDOW, file.size - pos), "marker")
        value, size, kind = unpack_marker(window, pos - base)
        if size:
            # the common case, without a call: a grain that its table names
            number, at = divmod(value, span)
            if number != current:
                table, current = tables.get(number) if value < header.capacity_sectors else None, number
            if table is not None and table[at // grain] * SECTOR == pos and not at % grain and size <= longest:
                step = (GRAIN_MARKER.size + size + SECTOR - 1) // SECTOR * SECTOR
            else:
                step = _grain(header, tables, file.path, pos, value, size)
        elif kind == MARKER_EOS and not value:
            _nothing_after(file, pos + SECTOR)
            return []
        else:
            step = (1 + value) * SECTOR if kind <= MARKER_PROGRESS and value * SECTOR <= file.size else 0
        if not step:
            return [f"no marker at byte {pos} of the stream; what follows was not checked"]
        pos += step
        if pos > file.size and pos - step + (GRAIN_MARKER.size + size if size else step) > file.size:
            raise VmdkError(
                "The stream is truncated inside of its last grain or table.",
                path=file.path,
                offset=pos - step,
                found=file.size,
                expected=pos,
            )
    return []


def _nothing_after(file: RawFile, pos: int) -> None:
    """Refuse what follows the end of the stream, but for zeroes (qemu-img pads to 64 KiB)."""
    while pos < file.size:
        data = file.read(pos, min(1 << 20, file.size - pos))
        if data != bytes(len(data)):
            raise VmdkError(
                "Bytes follow the end of the stream.", path=file.path, offset=pos, found=f"{file.size - pos} bytes", expected="none"
            )
        pos += len(data)


def _grain(header: SparseHeader, tables: Tables, path: str, pos: int, lba: int, size: int) -> int:
    """Bytes from the grain at C(pos) to the next marker; 0 where it is no grain."""
    if lba % header.grain_sectors or lba >= header.capacity_sectors or size > 2 * header.grain:
        return 0
    number, at = divmod(lba // header.grain_sectors, GTES_PER_GT)
    table = tables.get(number)
    entry = 0 if table is None else table[at]
    if entry * SECTOR != pos:
        raise VmdkError(
            f"The stream holds a grain for sector {lba} that the grain table does not name: data would be lost.",
            path=path,
            offset=pos,
            found=f"entry {entry}",
            expected=pos // SECTOR,
        )
    return -(-(GRAIN_MARKER.size + size) // SECTOR) * SECTOR
