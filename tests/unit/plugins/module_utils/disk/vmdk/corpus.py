# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Malformed disks, one for each way in which a file can lie, with what may come of it: an error, or exactly these bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator

from . import builder
from .builder import FIELDS, GRAIN, GRAIN_SECTORS, SECTORS, SIZE, Built

READ, REFUSE, EITHER = "read", "refuse", "either"
EXTREMES = (
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    64,
    127,
    128,
    129,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
GRAINS = builder.content()
DISK = builder.disk(GRAINS)
LINE = f'RW {SECTORS} SPARSE "disk.vmdk"\n'


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


RIGHT = sha(DISK)


@dataclass
class Special:
    """Something else than a few bytes: link (to C(target)), fifo, folder, size (C(size) zero bytes), text (C(target) again and again)."""

    kind: str
    target: str = ""
    size: int = 0


@dataclass
class Case:
    """Files to put into a folder, the one to open, and what may come of it: C(must), and the SHA-256 of what may be read."""

    name: str
    files: dict[str, bytes | Special]
    must: str = EITHER
    right: frozenset[str] = field(default_factory=lambda: frozenset({RIGHT}))
    head: str = "disk.vmdk"

    def write(self, folder: Path) -> Path:
        """Put it into C(folder)/in, with what must not be touched in C(folder)/out."""
        inside = folder / "in"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "out").mkdir(parents=True)
        (folder / "out" / "secret.vmdk").write_bytes(DISK)
        os.mkfifo(folder / "out" / "pipe")
        for name, data in self.files.items():
            path = inside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, bytes):
                path.write_bytes(data)
            elif data.kind == "link":
                path.symlink_to(data.target)
            elif data.kind == "fifo":
                os.mkfifo(path)
            elif data.kind == "folder":
                path.mkdir()
            else:
                with path.open("wb") as out:
                    for _n in range(data.size // 1_000_000 if data.kind == "text" else 0):
                        out.write((data.target.encode() * (1_000_000 // len(data.target) + 1))[:1_000_000])
                    out.truncate(data.size)
        return inside / self.head


def one(name: str, data: bytes, must: str = EITHER, *right: str) -> Case:
    """A disk in one file."""
    return Case(name, {"disk.vmdk": bytes(data)}, must, frozenset(right or {RIGHT}))


def plain(**options: bool) -> Built:
    return builder.sparse(GRAINS, text=builder.descriptor("monolithicSparse", LINE), **options)  # type: ignore[arg-type]  # the builder checks them


def stream(**options: object) -> Built:
    return builder.stream(GRAINS, builder.descriptor("streamOptimized", LINE), **options)  # type: ignore[arg-type]  # the builder checks them


def bases() -> dict[str, Built]:
    return {
        "sparse": plain(),
        "single": plain(redundant=False),
        "stream": stream(),
        "front": stream(front=True),
    }


def put(data: bytearray, at: int, value: int, size: int = 4) -> bytearray:
    data[at : at + size] = (value & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
    return data


def sound() -> Iterator[Case]:
    for name, built in bases().items():
        yield one(f"sound {name}", built.data, READ)
    grains = {n: d for n, d in GRAINS.items() if n != 5}
    text = builder.descriptor("monolithicSparse", LINE)
    yield one("sound zero grain", builder.sparse(grains, text=text, version=2, zeroes=(5,)).data, READ, sha(builder.disk(grains)))
    yield one("sound progress marker", stream(before={5: builder.marker(4, 0)}).data, READ)


def headers() -> Iterator[Case]:
    for base, built in bases().items():
        places = {"header": 0, **({"footer": built.at["footer"]} if "footer" in built.at else {})}
        for where, at in places.items():
            for name, (offset, size) in FIELDS.items():
                now = int.from_bytes(built.data[at + offset : at + offset + size], "little")
                values = {v & ((1 << (8 * size)) - 1) for v in (*EXTREMES, now - 1, now + 1, now * 2, now // 2)} - {now}
                for value in sorted(values):
                    must = READ if name == "unclean" else REFUSE if name in ("capacity", "gtes", "newlines", "magic") else EITHER
                    if where == "footer" and name in ("magic", "unclean", "newlines", "overhead"):
                        must = EITHER
                    yield one(f"{base}: {where} {name} = {value:#x}", put(built.copy(), at + offset, value, size), must)
    for base, built in bases().items():
        for bit in range(32):
            flags = int.from_bytes(built.data[8:12], "little") ^ (1 << bit)
            yield one(f"{base}: flag {bit} turned", put(built.copy(), 8, flags))


def resized() -> Iterator[Case]:
    """The capacity changed in header and descriptor alike: some of that is another, sound disk."""
    for base, built in bases().items():
        for change in (-1, 1, -7, 9, -GRAIN_SECTORS, -512 * GRAIN_SECTORS, 512 * GRAIN_SECTORS, 1 << 40):
            sectors = SECTORS + change
            data = built.copy()
            start = data.index(f"RW {SECTORS} ".encode())
            if sectors <= 0:
                continue
            end = data.index(b"\0", start)
            data[start:end] = (
                data[start:end].replace(f"RW {SECTORS} ".encode(), f"RW {sectors} ".encode())[: end - start].ljust(end - start, b"\n")
            )
            put(data, 12, sectors, 8)
            if "footer" in built.at:
                put(data, built.at["footer"] + 12, sectors, 8)
            size = sectors * 512
            # The last grain stays the same one, or nothing of it is lost.
            same = -(-sectors // GRAIN_SECTORS) >= builder.GRAINS and sectors < 1 << 30
            whole = b"".join(DISK[i : i + GRAIN] if n not in GRAINS else GRAINS[n] for n, i in enumerate(range(0, SIZE, GRAIN)))
            yield one(
                f"{base}: {change} sectors", data, EITHER if same else REFUSE, sha(whole[:size].ljust(size, b"\0")) if same else RIGHT
            )


def tables() -> Iterator[Case]:
    for base, built in bases().items():
        sectors = len(built.data) // 512
        overhead = built.at["overhead"] // 512
        copies = [[d] for d in built.directories] + ([built.directories] if len(built.directories) > 1 else [])
        for which, chosen in enumerate(copies):
            both = len(chosen) == len(built.directories)
            for n in (0, 3, 5, 511, 512, 599):
                old = built.grains.get(n, 0) // 512
                values = {
                    0,
                    1,
                    2,
                    overhead,
                    overhead - 1,
                    sectors,
                    sectors - 1,
                    sectors + 1,
                    (1 << 31),
                    (1 << 32) - 1,
                    built.grains[1] // 512,
                }
                values |= {old + 1, old - 1, old + GRAIN_SECTORS, chosen[0][0] // 512} if old else set()
                for value in sorted(values - {old}):
                    data = built.copy()
                    for _gd, places in chosen:
                        put(data, places[n // 512] + n % 512 * 4, value)
                    right = {RIGHT}
                    if both and value == 0 and base == "sparse":
                        # Two copies agree that nothing is there: room that was freed.
                        right.add(sha(builder.disk({k: v for k, v in GRAINS.items() if k != n})))
                    yield one(f"{base}: entry {n} of copy {which} = {value:#x}", data, EITHER, *right)
            for number in (0, 1):
                for value in (0, 1, chosen[0][1][1 - number] // 512, chosen[0][0] // 512, overhead, sectors - 1, sectors, (1 << 32) - 1):
                    data = built.copy()
                    for gd, _places in chosen:
                        put(data, gd + 4 * number, value)
                    yield one(f"{base}: table {number} of copy {which} at {value:#x}", data)
            data = built.copy()
            for gd, _places in chosen:
                data[gd : gd + 8] = bytes(8)
            yield one(f"{base}: directory {which} wiped", data, REFUSE if both else EITHER)
            for number in (0, 1):
                data = built.copy()
                for _gd, places in chosen:
                    data[places[number] : places[number] + 2048] = bytes(2048)
                right = {RIGHT}
                if both and base == "sparse":
                    right.add(sha(builder.disk({k: v for k, v in GRAINS.items() if k // 512 != number})))
                yield one(f"{base}: table {number} of copy {which} wiped", data, EITHER, *right)
            data = built.copy()
            for _gd, places in chosen:
                a, b = places[0], places[0] + 4 * 5
                data[a : a + 4], data[b : b + 4] = data[b : b + 4], data[a : a + 4]
            swapped = {**GRAINS, 0: GRAINS[5], 5: GRAINS[0]}
            # Nothing in a plain file says which grain is which: where all copies say so, it is another disk.
            right = {sha(builder.disk(swapped))} if both and base in ("sparse", "single") else {RIGHT}
            yield one(f"{base}: entries swapped in copy {which}", data, READ if both and base in ("sparse", "single") else REFUSE, *right)
    wide = plain()
    for copy in wide.directories:
        put(wide.data, copy[1][1] + 4 * 200, len(wide.data) // 512)
    yield one("sparse: entry beyond the capacity", wide.data + bytes(GRAIN), REFUSE)


def reread(built: Built, data: bytes) -> str:
    """The SHA-256 of the disk that C(data) is, where its tables are still those of C(built)."""
    return sha(builder.disk({n: bytes(data[at : at + GRAIN]).ljust(GRAIN, b"\0") for n, at in built.grains.items()}))


def cuts() -> Iterator[Case]:
    for base, built in bases().items():
        total = len(built.data)
        for at in sorted({max(0, b + d) for b in built.boundaries() for d in (-512, -1, 0, 1, 12, 512)} - {total}):
            if at < total:
                yield one(f"{base}: cut to {at}", built.data[:at], EITHER if at > total - 4096 else REFUSE)
        for name, more in (
            ("a byte", b"x"),
            ("511 zeroes", bytes(511)),
            ("a sector of zeroes", bytes(512)),
            ("64 KiB of zeroes", bytes(65536)),
            ("text", b"appended " * 1000),
            ("itself", bytes(built.data)),
            ("its header", bytes(built.data[:512])),
            ("its last KiB", bytes(built.data[-1024:])),
            ("another grain", builder.grain(3, GRAINS[1])),
            ("a grain again", builder.grain(5, GRAINS[1])),
        ):
            yield one(f"{base}: {name} appended", built.data + more)
        for at in built.boundaries():
            if 0 < at < total:
                yield one(f"{base}: a sector put in at {at}", built.data[:at] + bytes(512) + built.data[at:])
                # In a plain file nothing tells a grain from the next but the file's size, and its last grain is cut as it may be.
                shorter = built.data[:at] + built.data[at + 512 :]
                right = {RIGHT, reread(built, shorter)} if base in ("sparse", "single") and at >= built.at["overhead"] else {RIGHT}
                yield one(f"{base}: a sector taken out at {at}", shorter, EITHER, *right)
                yield one(f"{base}: a byte taken out at {at}", built.data[:at] + built.data[at + 1 :])
    for base, built in bases().items():
        damaged = bytes(built.data).replace(b"\r\n", b"\n")
        yield one(f"{base}: CRLF to LF", damaged, REFUSE)
        yield one(f"{base}: LF to CRLF", bytes(built.data).replace(b"\n", b"\r\n"), REFUSE)
        yield one(f"{base}: eighth bit lost", bytes(b & 0x7F for b in built.data), REFUSE if base != "single" else EITHER)
        yield one(f"{base}: as UTF-8", bytes(built.data).decode("latin-1").encode(), REFUSE)


def every() -> Iterator[Case]:
    """All of them."""
    from . import corpus_text

    sources: tuple[Callable[[], Iterator[Case]], ...] = (sound, headers, resized, tables, cuts, *corpus_text.SOURCES)
    for source in sources:
        yield from source()


def words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)
