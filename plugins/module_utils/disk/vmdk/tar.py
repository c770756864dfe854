# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The members of a tar file (an OVA is one), as ranges of it. Nothing is unpacked, nothing is believed unbounded.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import VmdkError
from ..model import SECTOR
from .files import RawFile

_MAX_MEMBERS = 10000
_MAX_PAX = 1 << 20
_PAX = re.compile(rb"([1-9][0-9]{0,6}) ([^=\n]{1,200})=")
_OCTAL = re.compile(rb"^ *([0-7]*)[ \0]*$")


@dataclass(frozen=True)
class Member:
    """A member: C(size) bytes of the tar file from byte C(begin) on. C(refused) says why it is not read."""

    name: str
    begin: int
    size: int
    refused: str | None = None


def is_tar(head: bytes) -> bool:
    """True where C(head), the first sector of a file, is the header of a tar member."""
    return len(head) >= SECTOR and _sum_is_right(head[:SECTOR])


def _sum_is_right(block: bytes) -> bool:
    found = _OCTAL.match(block[148:156])
    said = int(found.group(1) or b"0", 8) if found else -1
    return said > 0 and said == sum(block) - sum(block[148:156]) + 8 * 0x20


def _number(data: bytes, path: str, at: int) -> int:
    """A number in octal, or base 256 as GNU tar has it."""
    if data[0] == 0x80:
        return int.from_bytes(data[1:], "big")
    found = _OCTAL.match(data)
    if found is None:
        raise VmdkError("A broken size in a tar header.", path=path, offset=at, found=data)
    return int(found.group(1) or b"0", 8)


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes, path: str, at: int) -> dict[str, str]:
    """The records of a pax header."""
    found: dict[str, str] = {}
    pos = 0
    while pos < len(data):
        match = _PAX.match(data, pos)
        end = pos + int(match.group(1)) if match else 0
        if match is None or end > len(data) or end <= match.end() or data[end - 1 : end] != b"\n":
            raise VmdkError("A broken pax header.", path=path, offset=at + pos, found=data[pos : pos + 20])
        found[match.group(2).decode("utf-8", "surrogateescape")] = data[match.end() : end - 1].decode("utf-8", "surrogateescape")
        pos = end
    return found


def _why_not(kind: bytes, records: dict[str, str]) -> str | None:
    if kind in (b"1", b"2"):
        return "is a link"
    if kind == b"S" or any(key.startswith("GNU.sparse") for key in records):
        return "is stored as a sparse file"
    return None if kind in (b"0", b"\0") else f"is of the type {kind!r}"


def members(file: RawFile) -> list[Member]:
    """The members of the tar file C(file) that are no folders, in its order.

    :raises VmdkError: where a header is damaged or a member reaches past the end of the file.
    """
    found: list[Member] = []
    records: dict[str, str] = {}
    common: dict[str, str] = {}
    long_name: str | None = None
    at = 0
    while at + SECTOR <= file.size:
        block = file.read(at, SECTOR, "tar header")
        if not any(block):
            return found
        if not _sum_is_right(block):
            raise VmdkError("The OVA is damaged: here should be the header of a member.", path=file.path, offset=at, found=block[:16])
        size = _number(block[124:136], file.path, at + 124)
        kind = block[156:157]
        begin = at + SECTOR
        meta = kind in (b"x", b"g", b"L", b"K")
        if not meta and "size" in (told := {**common, **records}):
            if not told["size"].isdecimal() or len(told["size"]) > 19:
                raise VmdkError("A broken size in a pax header.", path=file.path, offset=at, found=told["size"])
            size = int(told["size"])
        if kind in (b"1", b"2", b"3", b"4", b"5", b"6"):
            size = 0
        if begin + size > file.size or (meta and size > _MAX_PAX):
            raise VmdkError(
                "The OVA is truncated, or the size in a member's header is wrong.",
                path=file.path,
                offset=at + 124,
                found=f"{file.size} bytes in the file",
                expected=f"{begin + size}",
            )
        if kind in (b"x", b"g"):
            (records if kind == b"x" else common).update(_pax(file.read(begin, size), file.path, begin))
        elif kind == b"L":
            long_name = _text(file.read(begin, size))
        elif kind != b"K":
            told = {**common, **records}
            prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
            name = told.get("path") or long_name or (prefix + "/" if prefix else "") + _text(block[:100])
            if kind != b"5" and not name.endswith("/"):
                found.append(Member(name, begin, size, _why_not(kind, told)))
            records, long_name = {}, None
            if len(found) > _MAX_MEMBERS:
                raise VmdkError("Too many members in the OVA.", path=file.path, expected=f"at most {_MAX_MEMBERS}")
        at = begin + -(-size // SECTOR) * SECTOR
    return found
