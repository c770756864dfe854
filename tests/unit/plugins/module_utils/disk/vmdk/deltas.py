# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writers of ESX snapshot deltas (COWD, seSparse) for tests, after the vendor's note and QEMU's reader.

No product can be run here: qemu-img and dissect.hypervisor read what is made here, and say whether it is right.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Mapping

from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk

SECTOR = 512
#: Of the disk of a Chain: no whole number of grains of any size.
SECTORS = 40003
#: A grain that is zero in the delta itself (seSparse only): unmapped by the guest, or zeroed.
UNMAPPED, ZEROED = "unmapped", "zeroed"
Grains = Mapping[int, "bytes | str"]


def descriptor(
    create_type: str, lines: list[tuple[int, str, str]], *, cid: int = 0x12345678, parent_cid: int = 0xFFFFFFFF, hint: str | None = None
) -> str:
    """A descriptor with extent C(lines) (sectors, type, name)."""
    text = f'# Disk DescriptorFile\nversion=1\nencoding="UTF-8"\nCID={cid:08x}\nparentCID={parent_cid:08x}\ncreateType="{create_type}"\n'
    if hint is not None:
        text += f'parentFileNameHint="{hint}"\n'
    text += "# Extent description\n"
    for sectors, kind, name in lines:
        text += f'RW {sectors} {kind} "{name}"' + (" 0\n" if kind == "FLAT" else "\n")
    return text + '\n# The Disk Data Base\n#DDB\n\nddb.adapterType = "lsilogic"\nddb.virtualHWVersion = "14"\n'


def cowd(path: Path, sectors: int, grains: Grains, *, grain: int = 1) -> None:
    """A COWD file of C(sectors), with C(grains) of C(grain) sectors by number, stored in the order given."""
    span = 4096
    count = -(-sectors // (grain * span))
    directory = [0] * count
    tables: dict[int, list[int]] = {}
    free = 4 + -(-count * 4 // SECTOR)
    body: dict[int, bytes] = {}
    for number, data in grains.items():
        table, at = divmod(number, span)
        if table not in tables:
            directory[table] = free
            tables[table] = [0] * span
            free += span * 4 // SECTOR
        assert isinstance(data, bytes) and len(data) == grain * SECTOR
        tables[table][at] = free
        body[free] = data
        free += grain
    head = struct.pack("<4s10I", b"COWD", 1, 3, sectors, grain, 4, count, free, 0, 0, 0)
    with path.open("wb") as out:
        out.write(head.ljust(4 * SECTOR, b"\0"))
        out.write(struct.pack(f"<{count}I", *directory))
        for table, entries in tables.items():
            out.seek(directory[table] * SECTOR)
            out.write(struct.pack(f"<{span}I", *entries))
        for place, data in body.items():
            out.seek(place * SECTOR)
            out.write(data)
        out.truncate(free * SECTOR)


def sesparse(path: Path, sectors: int, grains: Grains, *, replay: int = 0, shift: int = 0) -> None:
    """A seSparse file of C(sectors), with C(grains) of 4 KiB by number; the first is stored C(shift) grains behind the begin."""
    span, size = 4096, 4096
    count = -(-sectors // (8 * span))
    gd_sectors = -(-count * 8 // SECTOR)
    volatile, journal = 1, 3
    gd = journal + 8
    gt = -(-(gd + gd_sectors) // 64) * 64
    gt_sectors = count * 64
    bitmap = gt + gt_sectors
    origin = -(-(bitmap + 16) // 8) * 8
    directory = [0] * count
    tables: dict[int, list[int]] = {}
    body: dict[int, bytes] = {}
    stored = shift
    for number, data in grains.items():
        table, at = divmod(number, span)
        if table not in tables:
            directory[table] = 0x1000000000000000 | len(tables)
            tables[table] = [0] * span
        if isinstance(data, str):
            tables[table][at] = {UNMAPPED: 1, ZEROED: 2}[data] << 60
        else:
            assert len(data) == size
            tables[table][at] = 3 << 60 | (stored & 0xFFF) << 48 | stored >> 12
            body[stored] = data
            stored += 1
    head = [0xCAFEBABE, 0x200000001, sectors, 8, 64, 0, 0, 0, 0, 0, volatile, 1, 2, 1, journal, 8, gd, gd_sectors, gt, gt_sectors]
    head += [bitmap, 8, bitmap + 8, 8, origin, (sectors + 7) // 8 * 8]
    with path.open("wb") as out:
        out.write(struct.pack("<26Q", *head).ljust(SECTOR, b"\0"))
        out.write(struct.pack("<4Q", 0xCAFECAFE, len(tables), 1, replay).ljust(SECTOR, b"\0"))
        out.seek(gd * SECTOR)
        out.write(struct.pack(f"<{count}Q", *directory))
        for table, entries in tables.items():
            out.seek((gt + 64 * (directory[table] & 0xFFFFFFFF)) * SECTOR)
            out.write(struct.pack(f"<{span}Q", *entries))
        for place, data in body.items():
            out.seek(origin * SECTOR + place * size)
            out.write(data)
        out.truncate(origin * SECTOR + stored * size)


def expected(base: bytes, grains: Grains, size: int, sectors: int) -> bytes:
    """What the disk of C(sectors) reads with C(grains) of C(size) bytes over C(base)."""
    out = bytearray(base.ljust(-(-sectors * SECTOR // size) * size, b"\0"))
    for number, data in grains.items():
        out[number * size : (number + 1) * size] = bytes(size) if isinstance(data, str) else data
    return bytes(out[: sectors * SECTOR])


def hosted(
    path: Path,
    sectors: int,
    grains: Grains,
    *,
    grain: int = 128,
    version: int = 1,
    redundant: bool = True,
    text: str | None = None,
    create_type: str = "monolithicSparse",
) -> None:
    """A hosted sparse extent (KDMV) of C(sectors) with C(grains) of C(grain) sectors; ZEROED ones get a table entry of 1."""
    zeroes = any(isinstance(data, str) for data in grains.values())
    tables = -(-sectors // (grain * 512))
    line = text if text is not None else descriptor(create_type, [(sectors, "SPARSE", path.name)])
    gd_sectors = -(-tables * 4 // SECTOR)
    used = sorted({number // 512 for number in grains})
    at = 21
    places: list[tuple[int, dict[int, int]]] = []
    for _copy in range(1 + redundant):
        places.append((at, {table: at + gd_sectors + 4 * i for i, table in enumerate(used)}))
        at += gd_sectors + 4 * len(used)
    overhead = -(-at // grain) * grain
    rgd, gd = (places[0][0], places[1][0]) if redundant else (0, places[0][0])
    head = struct.pack(
        "<4sIIQQQQIQQQB4sH",
        b"KDMV",
        version,
        1 | redundant << 1 | zeroes << 2,
        sectors,
        grain,
        1,
        20,
        512,
        rgd,
        gd,
        overhead,
        0,
        b"\n \r\n",
        0,
    )
    entries: dict[int, list[int]] = {table: [0] * 512 for table in used}
    with path.open("wb") as out:
        out.write(head.ljust(SECTOR, b"\0") + line.encode().ljust(20 * SECTOR, b"\0"))
        place = overhead
        for number, data in grains.items():
            if isinstance(data, str):
                entries[number // 512][number % 512] = 1
                continue
            entries[number // 512][number % 512] = place
            out.seek(place * SECTOR)
            out.write(data)
            place += grain
        for start, spots in places:
            for table, spot in spots.items():
                out.seek(start * SECTOR + 4 * table)
                out.write(struct.pack("<I", spot))
                out.seek(spot * SECTOR)
                out.write(struct.pack("<512I", *entries[table]))
        out.truncate(place * SECTOR)


def read(path: Path, **kwargs: list[str]) -> bytes:
    """The whole disk, by odd steps; its extents are compared with what they promise."""
    with open_disk(str(path), **kwargs) as disk:
        step = 999 * 512
        data = b"".join(disk.read(at, min(step, disk.capacity - at)) for at in range(0, disk.capacity, step))
        at = 0
        for e in disk.extents():
            assert e.start == at and e.length > 0
            assert e.kind is Kind.DATA or not any(data[e.start : e.end])
            at = e.end
        assert at == disk.capacity == len(data)
    return data


class Chain:
    """A base and deltas over it, with the bytes that each must read."""

    def __init__(self, folder: Path, sectors: int = SECTORS, seed: int = 5) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.sectors = sectors
        # A block of an odd length: no shift by sectors or grains goes unseen.
        self.want = (self.rng.randbytes(65537) * (sectors * 512 // 65537 + 1))[: sectors * 512]
        self.cid = 1
        self.top = folder / "base.vmdk"
        (folder / "base-flat.vmdk").write_bytes(self.want)
        self.top.write_text(descriptor("vmfs", [(sectors, "VMFS", "base-flat.vmdk")], cid=1))

    def add(self, kind: str, grains: Grains, name: str | None = None, **options: int) -> Path:
        name = name or f"d{self.cid}"
        self.cid += 1
        path = self.folder / f"{name}.vmdk"
        if kind == "COWD":
            size = 512 * options.get("grain", 1)
            cowd(self.folder / f"{name}-delta.vmdk", self.sectors, grains, **options)
            line = ("vmfsSparse", [(self.sectors, "VMFSSPARSE", f"{name}-delta.vmdk")])
        else:
            size = 4096
            sesparse(self.folder / f"{name}-sesparse.vmdk", self.sectors, grains, **options)
            line = ("seSparse", [(self.sectors, "SESPARSE", f"{name}-sesparse.vmdk")])
        path.write_text(descriptor(*line, cid=self.cid, parent_cid=self.cid - 1, hint=self.top.name))
        self.want = expected(self.want, grains, size, self.sectors)
        self.top = path
        return path

    def some(self, size: int, count: int, words: tuple[str, ...] = ()) -> Grains:
        """C(count) grains of C(size) bytes at random places, some in rows, and the last one of the disk."""
        last = (self.sectors * 512 - 1) // size
        numbers = {self.rng.randrange(last) for _n in range(count)} | set(range(100, 140)) | {last}
        return {n: self.rng.choice(words) if words and n % 3 == 0 else self.rng.randbytes(size) for n in sorted(numbers)}
