# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk that a guest keeps changing, with snapshots that freeze it and tracking that tells what changed between them."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

from ansible_collections.ferry.vmware.plugins.module_utils.disk import copy, ledger
from ansible_collections.ferry.vmware.plugins.module_utils.disk.changes import Tracking
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sinks.file import FileSink
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.file import FileSource

MIB = 1 << 20
BLOCK = 64 << 10
UUID = "52 de c0 d9 b9 43 9d 10-61 35 4c 54 d3 c6 f3 a5"


@dataclass(frozen=True)
class Snapshot:
    number: int
    path: Path
    change_id: str


class Guest:
    """The disk's bytes, and for each snapshot what changed since the one before it, in blocks of 64 KiB."""

    def __init__(self, folder: Path, size: int, seed: int = 1) -> None:
        self.folder = folder
        self.size = size
        self.rng = random.Random(seed)
        self.uuid = UUID
        self.bytes = bytearray(size)
        self.changed: dict[int, set[int]] = {}
        self.now: set[int] = set()
        self.number = 0
        for _i in range(size // MIB // 2):
            self.write(self.rng.randrange(size - MIB), self.rng.randbytes(self.rng.randrange(1, MIB)))

    def write(self, offset: int, data: bytes) -> None:
        self.bytes[offset : offset + len(data)] = data
        self.now.update(range(offset // BLOCK, (offset + len(data) - 1) // BLOCK + 1))

    def work(self, writes: int = 8) -> None:
        """What a guest does: small writes anywhere, some of zeroes, some long."""
        for _i in range(writes):
            length = self.rng.choice([512, 4096, 70_000, 300_000])
            at = self.rng.randrange(0, self.size - length)
            self.write(at, bytes(length) if self.rng.random() < 0.2 else self.rng.randbytes(length))

    def snapshot(self) -> Snapshot:
        self.number += 1
        self.changed[self.number] = self.now
        self.now = set()
        path = self.folder / f"snapshot-{self.number}"
        with open(path, "wb") as f:
            f.truncate(self.size)
            for at in range(0, self.size, BLOCK):
                block = self.bytes[at : at + BLOCK]
                if any(block):
                    f.seek(at)
                    f.write(block)
        return Snapshot(self.number, path, f"{self.uuid}/{self.number}")

    def areas(self, since: str, at: Snapshot) -> list[tuple[int, int]]:
        first = int(since.partition("/")[2]) + 1
        blocks = sorted(set().union(*(self.changed[n] for n in range(first, at.number + 1))))
        out: list[tuple[int, int]] = []
        for b in blocks:
            start, length = b * BLOCK, min(BLOCK, self.size - b * BLOCK)
            if out and out[-1][0] + out[-1][1] == start:
                out[-1] = (out[-1][0], out[-1][1] + length)
            else:
                out.append((start, length))
        return out

    def tracking(self, at: Snapshot, **other: Any) -> Tracking:
        return Tracking(at.change_id, lambda since: self.areas(since, at), **other)


class Counting(FileSource):
    """Keeps what was read of it."""

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(path, **kwargs)
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return super().read(offset, length)


class Way:
    """From a guest's snapshots to one target, with one ledger: each C(copy) is a run of its own, with everything opened anew."""

    def __init__(self, folder: Path, guest: Guest) -> None:
        self.folder = folder
        self.guest = guest
        self.target = folder / "target"
        self.reads: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def job(self, at: Snapshot, *, tracking: Tracking | None = None, untracked: bool = False, **options: Any) -> Iterator[copy.Job]:
        source = Counting(str(at.path))
        self.reads = source.reads
        sink = options.pop("sink", FileSink)(str(self.target), source.capacity)
        book = ledger.Ledger(str(self.folder / "ledger.sqlite"), source.capacity)
        try:
            known = None if untracked else tracking or self.guest.tracking(at)
            yield copy.Job("Hard disk 1", source, sink, book, tracking=known, **options)
        finally:
            book.close()
            sink.close()
            source.close()

    def copy(self, at: Snapshot, *, verify: str = "none", outside: float = 0.0, workers: int = 4, **options: Any) -> copy.Result:
        with self.job(at, **options) as job:
            return copy.run([job], verify=verify, outside=outside, workers=workers)[0]

    def equal(self, at: Snapshot) -> bool:
        return self.target.read_bytes() == at.path.read_bytes()

    def fact(self, name: str) -> Any:
        book = ledger.Ledger(str(self.folder / "ledger.sqlite"), self.guest.size)
        try:
            return book.fact(name)
        finally:
            book.close()
