# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Partition tables written byte by byte: no system package, no root, the same bytes every time."""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Sequence

SECTOR = 512

LINUX = 0x83
GPT_ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
GPT_LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


@dataclass(frozen=True)
class Entry:
    """A partition: first sector and number of sectors, its type for GPT, and what GPT names it."""

    start: int
    sectors: int
    kind: uuid.UUID = GPT_LINUX
    guid: uuid.UUID = uuid.UUID(int=0)
    name: str = ""


def write_mbr(f: BinaryIO, signature: int, entries: Sequence[Entry]) -> None:
    """Write an MBR of up to four Linux partitions, the first of them active; the CHS fields say "beyond CHS"."""
    if len(entries) > 4:
        raise ValueError("an MBR holds four partitions")
    table = b""
    for i, e in enumerate(entries):
        table += struct.pack("<B3sB3sII", 0x80 if i == 0 else 0, b"\xfe\xff\xff", LINUX, b"\xfe\xff\xff", e.start, e.sectors)
    f.seek(0)
    f.write(b"\0" * 440 + struct.pack("<IH", signature, 0) + table.ljust(64, b"\0") + b"\x55\xaa")


def write_gpt(f: BinaryIO, disk: uuid.UUID, sectors: int, entries: Sequence[Entry]) -> None:
    """Write a GPT with its protective MBR and its backup at the end (UEFI specification 2.10, chapter 5.3)."""
    raw = b"".join(
        e.kind.bytes_le
        + e.guid.bytes_le
        + struct.pack("<QQQ", e.start, e.start + e.sectors - 1, 0)
        + e.name.encode("utf-16-le").ljust(72, b"\0")
        for e in entries
    ).ljust(128 * 128, b"\0")
    last = sectors - 1

    def header(here: int, there: int, table: int) -> bytes:
        layout = (here, there, 34, last - 33, disk.bytes_le, table, 128, 128, zlib.crc32(raw))
        fields = struct.pack("<8s4sIIIQQQQ16sQIII", b"EFI PART", b"\0\0\1\0", 92, 0, 0, *layout)
        return (fields[:16] + struct.pack("<I", zlib.crc32(fields)) + fields[20:]).ljust(SECTOR, b"\0")

    f.seek(0)
    f.write(
        b"\0" * 446 + struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, min(last, 0xFFFFFFFF)) + b"\0" * 48 + b"\x55\xaa"
    )
    f.write(header(1, last, 2) + raw)
    f.seek((last - 32) * SECTOR)
    f.write(raw + header(last, 1, last - 32))
