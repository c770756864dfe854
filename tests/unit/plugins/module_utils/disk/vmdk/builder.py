# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small sparse files built with struct alone (no code of the engine), with the place of everything in them.

After VMware's "Virtual Disk Format 5.0": grains of 8 KiB keep a disk with two grain tables below 200 KB.
"""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass, field

GRAIN_SECTORS = 16
GRAIN = GRAIN_SECTORS * 512
GRAINS = 600
#: Sectors of the disk: its last grain is not a whole one.
SECTORS = GRAINS * GRAIN_SECTORS - 9
SIZE = SECTORS * 512
USED = (0, 1, 2, 5, 7, 8, 100, 101, 300, 510, 511, 512, 513, 590, 598, 599)
HEADER = struct.Struct("<4sIIQQQQIQQQB4sH433x")
FIELDS = {
    "magic": (0, 4),
    "version": (4, 4),
    "flags": (8, 4),
    "capacity": (12, 8),
    "grain": (20, 8),
    "descriptor_offset": (28, 8),
    "descriptor_size": (36, 8),
    "gtes": (44, 4),
    "rgd": (48, 8),
    "gd": (56, 8),
    "overhead": (64, 8),
    "unclean": (72, 1),
    "newlines": (73, 4),
    "compression": (77, 2),
}
_ALL = 0xFFFFFFFFFFFFFFFF


def content(seed: int = 1, used: tuple[int, ...] = USED) -> dict[int, bytes]:
    """Data of the grains C(used): half random, half text."""
    rng = random.Random(seed)
    return {n: (rng.randbytes(GRAIN // 2) + b"grain %6d " % n * (GRAIN // 26 + 1))[:GRAIN] for n in used}


def disk(grains: dict[int, bytes], size: int = SIZE) -> bytes:
    """The bytes of the disk."""
    out = bytearray(-(-size // GRAIN) * GRAIN)
    for n, data in grains.items():
        out[n * GRAIN : (n + 1) * GRAIN] = data
    return bytes(out[:size])


def descriptor(create_type: str, lines: str, *, cid: str = "1234abcd", parent: str = "ffffffff", hint: str = "", more: str = "") -> bytes:
    """A descriptor as VMware writes it."""
    hinted = f'parentFileNameHint="{hint}"\n' if hint else ""
    return (
        f'# Disk DescriptorFile\nversion=1\nencoding="UTF-8"\nCID={cid}\nparentCID={parent}\ncreateType="{create_type}"\n{hinted}'
        f"\n# Extent description\n{lines}\n# The Disk Data Base\n#DDB\n\n"
        f'ddb.adapterType = "lsilogic"\nddb.virtualHWVersion = "13"\n{more}'
    ).encode()


@dataclass
class Built:
    """A file, and the byte offsets of its parts: tables and directories by copy, grains by number, markers by name."""

    data: bytearray
    at: dict[str, int] = field(default_factory=dict)
    grains: dict[int, int] = field(default_factory=dict)
    #: For each copy of the directory: its offset, and those of its tables.
    directories: list[tuple[int, list[int]]] = field(default_factory=list)

    def copy(self) -> bytearray:
        return bytearray(self.data)

    def boundaries(self) -> list[int]:
        """Where something begins or ends."""
        places = {0, 512, 1024, len(self.data), *self.at.values(), *self.grains.values()}
        for gd, tables in self.directories:
            places |= {gd, *tables, *(t + 2048 for t in tables)}
        return sorted(places)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def sparse(
    grains: dict[int, bytes],
    *,
    text: bytes | None = None,
    redundant: bool = True,
    version: int = 1,
    zeroes: tuple[int, ...] = (),
    sectors: int = SECTORS,
) -> Built:
    """A plain sparse file in the layout of VMware and QEMU: header, descriptor, copy, first tables, grains."""
    count = -(-sectors // (GRAIN_SECTORS * 512))
    embedded = _pad(text).ljust(10 * 512, b"\0") if text is not None else b""
    place = 1 + len(embedded) // 512
    built = Built(bytearray())
    copies: list[tuple[int, list[int]]] = []
    for _n in range(2 if redundant else 1):
        tables = [place + 1 + 4 * i for i in range(count)]
        copies.append((place, tables))
        place += 1 + 4 * count
    overhead = -(-place // GRAIN_SECTORS) * GRAIN_SECTORS
    flags = 1 | (2 if redundant else 0) | (4 if zeroes else 0)
    header = HEADER.pack(
        b"KDMV",
        version,
        flags,
        sectors,
        GRAIN_SECTORS,
        1 if embedded else 0,
        len(embedded) // 512,
        512,
        copies[0][0] if redundant else 0,
        copies[-1][0],
        overhead,
        0,
        b"\n \r\n",
        0,
    )
    out = bytearray(overhead * 512)
    out[:512] = header
    out[512 : 512 + len(embedded)] = embedded
    entries = dict.fromkeys(zeroes, 1)
    for n, data in grains.items():
        entries[n] = len(out) // 512
        built.grains[n] = len(out)
        out += data
    for gd, tables in copies:
        struct.pack_into(f"<{count}I", out, gd * 512, *tables)
        for n, entry in entries.items():
            struct.pack_into("<I", out, tables[n // 512] * 512 + n % 512 * 4, entry)
        built.directories.append((gd * 512, [t * 512 for t in tables]))
    built.directories.reverse()
    built.at.update(descriptor=512, overhead=overhead * 512)
    built.data = out
    return built


def grain(number: int, data: bytes, *, body: bytes | None = None, lba: int | None = None, size: int | None = None) -> bytes:
    """A compressed grain with its marker; C(body), C(lba), C(size) to make it lie."""
    packed = zlib.compress(data, 1) if body is None else body
    return _pad(struct.pack("<QI", number * GRAIN_SECTORS if lba is None else lba, len(packed) if size is None else size) + packed)


def marker(kind: int, count: int) -> bytes:
    return struct.pack("<QII496x", count, 0, kind)


def stream(
    grains: dict[int, bytes],
    text: bytes,
    *,
    front: bool = False,
    packed: dict[int, bytes] | None = None,
    before: dict[int, bytes] | None = None,
    sectors: int = SECTORS,
) -> Built:
    """A streamOptimized file: tables behind their grains and a footer, or with C(front) both copies in front, as QEMU does.

    C(packed) has other bytes for a grain and its marker, C(before) bytes to put before a grain.
    """
    count = -(-sectors // (GRAIN_SECTORS * 512))
    embedded = _pad(text).ljust(10 * 512, b"\0")
    flags = 0x30001 | (2 if front else 0)
    built = Built(bytearray())

    def header(rgd: int, gd: int, overhead: int) -> bytes:
        return HEADER.pack(b"KDMV", 3, flags, sectors, GRAIN_SECTORS, 1, len(embedded) // 512, 512, rgd, gd, overhead, 0, b"\n \r\n", 1)

    place = 1 + len(embedded) // 512
    copies: list[tuple[int, list[int]]] = []
    if front:
        for _n in range(2):
            copies.append((place, [place + 1 + 4 * i for i in range(count)]))
            place += 1 + 4 * count
    overhead = place if front else 32
    out = bytearray(overhead * 512)
    out[512 : 512 + len(embedded)] = embedded
    rows = [[0] * 512 for _n in range(count)]
    tables = [0] * count

    def table(number: int) -> None:
        built.at[f"marker GT {number}"] = len(out)
        out.extend(marker(1, 4))
        tables[number] = len(out) // 512
        out.extend(struct.pack("<512I", *rows[number]))

    number = 0
    for n, data in sorted(grains.items()):
        if n // 512 != number and not front:
            table(number)
        number = n // 512
        out += (before or {}).get(n, b"")
        rows[number][n % 512] = len(out) // 512
        built.grains[n] = len(out)
        out += (packed or {}).get(n) or grain(n, data)
    built.at.update(descriptor=512, overhead=overhead * 512, end_of_grains=len(out))
    if front:
        out[:512] = header(copies[0][0], copies[1][0], overhead)
        for gd, places in copies:
            struct.pack_into(f"<{count}I", out, gd * 512, *places)
            for at, row in zip(places, rows, strict=True):
                struct.pack_into("<512I", out, at * 512, *row)
            built.directories.append((gd * 512, [t * 512 for t in places]))
        built.directories.reverse()
        out += bytes(512)
    else:
        table(number)
        built.at["marker GD"] = len(out)
        out += marker(2, 1)
        gd = len(out) // 512
        out += _pad(struct.pack(f"<{count}I", *tables))
        built.at["marker footer"] = len(out)
        out += marker(3, 1)
        built.at["footer"] = len(out)
        out += header(0, gd, overhead)
        built.at["end"] = len(out)
        out += bytes(512)
        out[:512] = header(0, _ALL, overhead)
        built.directories.append((gd * 512, [t * 512 for t in tables]))
    built.data = out
    return built
