# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Seeded damage to every variant: refused or read right, never another exception, never wrong bytes.

C(make fuzz) runs it at length: FERRY_FUZZ_COUNT mutations from FERRY_FUZZ_SEED on; FERRY_FUZZ_ONLY repeats one of them. What
fails is kept under FERRY_FUZZ_KEEP.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.info import inspect
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.outputs import FORMATS
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import Disk, open_disk
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.salvage import open_salvaged

from . import builder, corpus, corpus_text, deltas

_BYTES = (0, 1, 2, 0x7F, 0x80, 0xFF)
#: A process may grow to this.
MEMORY = 256 << 20


@dataclass
class Variant:
    """A sound disk: its head, the file that is damaged, and how much of its begin says something (0: all of it)."""

    name: str
    head: Path
    file: Path
    want: bytes
    limit: int = 0
    whole: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.whole = self.file.read_bytes()
        self.limit = self.limit or len(self.whole)


@dataclass
class Result:
    """What became of the mutations; C(wrong) has a line for each failure."""

    read: int = 0
    refused: int = 0
    salvaged: int = 0
    wrong: list[str] = field(default_factory=list)


def variants(folder: Path, *, peers: bool = True) -> list[Variant]:
    """Every variant that is read, small, in C(folder)."""
    found: list[Variant] = []

    def add(name: str, files: dict[str, bytes], want: bytes, limit: int = 0, *, head: str = "", damage: tuple[str, ...] = ()) -> None:
        place = folder / name.replace(" ", "-")
        place.mkdir(parents=True)
        for file, data in files.items():
            (place / file).write_bytes(data)
        for file in damage or tuple(files):
            found.append(Variant(f"{name} {file}", place / (head or next(iter(files))), place / file, want, limit if file != head else 0))

    for name, built in corpus.bases().items():
        plain = name in ("sparse", "single")
        add(f"built {name}", {"disk.vmdk": bytes(built.data)}, corpus.DISK, built.at["overhead"] if plain else 0)
    base = bytes(corpus.plain().data)
    over = builder.disk({**corpus.GRAINS, 3: corpus.GRAINS[1]})
    child = {"disk.vmdk": corpus_text.plain_child(), "base.vmdk": base}
    add("chain", child, over, corpus.plain().at["overhead"])
    for kind, line in (("cowd", "VMFSSPARSE"), ("sesparse", "SESPARSE")):
        size = 512 if kind == "cowd" else 4096
        grains: dict[int, bytes | str] = {n: bytes([n % 200 + 1]) * size for n in (0, 3, 900)}
        getattr(deltas, kind)(folder / "delta", builder.SECTORS, grains)
        data = (folder / "delta").read_bytes()
        create = "vmfsSparse" if kind == "cowd" else "seSparse"
        head = deltas.descriptor(create, [(builder.SECTORS, line, "x-delta.vmdk")], parent_cid=0x1234ABCD, hint="base.vmdk").encode()
        want = deltas.expected(corpus.DISK, grains, size, builder.SECTORS)
        meta = min(data.index(bytes([n % 200 + 1]) * size) for n in (0, 3, 900))
        add(
            kind,
            {"disk.vmdk": head, "x-delta.vmdk": data, "base.vmdk": base},
            want,
            meta,
            head="disk.vmdk",
            damage=("disk.vmdk", "x-delta.vmdk"),
        )
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (("x.ovf", b"<Envelope/>"), ("disk.vmdk", bytes(corpus.stream().data))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    add("OVA", {"x.ova": archive.getvalue()}, corpus.DISK)
    raw = folder / "src.raw"
    raw.write_bytes(corpus.DISK)
    for format in FORMATS:
        if format not in ("raw", "qcow2"):
            _written(found, folder / f"ours {format}", raw, format, "ours")
    if peers and shutil.which("qemu-img"):
        for format in ("monolithicSparse", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"):
            _written(found, folder / f"qemu {format}", raw, format, "qemu")
    return found


def _written(found: list[Variant], place: Path, raw: Path, format: str, maker: str) -> None:
    place.mkdir()
    head = place / "disk.vmdk"
    if maker == "ours":
        convert(str(raw), str(head), format=format, threads=1)
    else:
        command = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={format}", str(raw), str(head)]
        subprocess.run(command, check=True, capture_output=True)
    for file in sorted(place.iterdir()):
        data = file.read_bytes()
        if "flat" in file.name or file.name.endswith("-f001.vmdk"):
            continue
        overhead = int.from_bytes(data[64:72], "little") * 512 if data[:4] == b"KDMV" and "stream" not in format else 0
        found.append(Variant(f"{maker} {format} {file.name}", head, file, corpus.DISK, overhead))


def damaged(data: bytes, limit: int, rng: random.Random) -> tuple[bytes, list[object]]:
    """C(data) with something wrong in its first C(limit) bytes (cut, longer, bytes, numbers, copies, zeroes), and what."""
    out = bytearray(data)
    if rng.random() < 0.1:
        cut = rng.choice([0, 1, 79, 511, 512, 513, rng.randrange(len(out)), len(out) - 1, len(out) - 512, max(0, len(out) - 1024)])
        return bytes(out[:cut]), ["cut", cut]
    if rng.random() < 0.06:
        extra = rng.randbytes(rng.choice([1, 512, 70000]))
        return bytes(out) + extra, ["longer by", len(extra)]
    told: list[object] = []
    for _n in range(rng.choice([1, 1, 1, 2, 4])):
        zone = rng.random()
        top = min(80, limit) if zone < 0.35 else min(2048, limit) if zone < 0.6 else limit
        at = rng.randrange(top) if zone < 0.9 else limit - 1 - rng.randrange(min(limit, 4096))
        way = rng.random()
        if way < 0.5:
            out[at] = rng.choice(_BYTES) if rng.random() < 0.5 else rng.randrange(256)
            told += ["byte", at, out[at]]
            continue
        at &= ~3
        if way < 0.75:
            value = rng.choice(
                [0, 1, 2, 0xFFFFFFFF, 0x7FFFFFFF, len(out) // 512, rng.randrange(1 << 32), rng.randrange(len(out) // 512 + 1)]
            )
            out[at : at + 4] = value.to_bytes(4, "little")
            told += ["number", at, value]
        elif way < 0.9:
            other = rng.randrange(limit) & ~3
            out[at : at + 4] = out[other : other + 4]
            told += ["copy", at, other]
        else:
            length = min(limit, at + rng.choice([4, 64, 512, 2048])) - at
            out[at : at + length] = bytes(length)
            told += ["zeroes", at, length]
    return bytes(out), told


def differs(disk: Disk, want: bytes, lost: list[tuple[int, int]] | None = None) -> str | None:
    """Where C(disk) is not C(want), outside of the ranges C(lost); None where it is."""
    if disk.capacity != len(want):
        return f"{disk.capacity} bytes"
    at = 0
    for e in disk.extents():
        if e.start != at or e.length <= 0:
            return f"extents are not in order at {at}"
        at = e.end
        for start in range(e.start, e.end, 1 << 20):
            stop = min(start + (1 << 20), e.end)
            data = disk.read(start, stop - start) if e.kind is Kind.DATA else bytes(stop - start)
            if data != want[start:stop] and _outside(data, want, start, stop, lost or []):
                return f"other bytes in {start} to {stop}"
    return None if at == len(want) else f"the extents end at {at}"


def _outside(data: bytes, want: bytes, start: int, stop: int, lost: list[tuple[int, int]]) -> bool:
    ours, theirs = bytearray(data), bytearray(want[start:stop])
    for begin, length in lost:
        a, b = max(begin, start) - start, min(begin + length, stop) - start
        if a < b:
            ours[a:b] = theirs[a:b] = bytes(b - a)
    return ours != theirs


def attempt(variant: Variant, data: bytes, result: Result, *, more: bool) -> str | None:
    """What is wrong with how the damaged file is taken; None where nothing is."""
    variant.file.write_bytes(data)
    try:
        try:
            with open_disk(str(variant.head)) as disk:
                wrong = differs(disk, variant.want)
            result.read += 1
        except VmdkError:
            wrong = None
            result.refused += 1
        if wrong is None and more:
            _told(variant)
            wrong = _salvaged(variant, result)
        return wrong
    except Exception as e:  # noqa: BLE001 - whatever it is, it is what is looked for
        return f"{type(e).__name__}: {e}"
    finally:
        variant.file.write_bytes(variant.whole)


def _told(variant: Variant) -> None:
    try:
        inspect(str(variant.head))
    except VmdkError:
        return


def _salvaged(variant: Variant, result: Result) -> str | None:
    try:
        disk, lost = open_salvaged(str(variant.head))
    except VmdkError:
        return None
    with disk:
        result.salvaged += 1
        ranges = [(r["start"], r["length"]) for r in lost]
        if disk.capacity > len(variant.want):
            # What header and descriptor do not agree on is kept, and listed.
            beyond = disk.capacity - len(variant.want)
            if any(start < len(variant.want) + (1 << 16) and start + length >= disk.capacity for start, length in ranges):
                return None
            return f"salvaged: {beyond} bytes more"
        wrong = differs(disk, variant.want, ranges)
    return None if wrong is None else f"salvaged: {wrong}"


def run(folder: Path, seed: int, numbers: range, keep: Path | None = None) -> Result:
    """Mutations C(numbers) of C(seed), each of which can be repeated alone."""
    result = Result()
    found = variants(folder)
    for n in numbers:
        rng = random.Random(f"{seed}:{n}")
        variant = rng.choice(found)
        data, told = damaged(variant.whole, variant.limit, rng)
        why = attempt(variant, data, result, more=rng.random() < 0.5)
        if why is not None:
            result.wrong.append(f"seed {seed} number {n}: {variant.name}: {told}: {why}")
            if keep is not None:
                place = keep / f"{seed}-{n}"
                shutil.copytree(variant.head.parent, place, dirs_exist_ok=True)
                (place / variant.file.name).write_bytes(data)
                (place / "why.txt").write_text(result.wrong[-1] + "\n")
    return result


def peak_memory() -> int:
    """Bytes that this process had at most. Not ru_maxrss: a process inherits that of the one that started it."""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return int(found.group(1)) * 1024


def _part(job: tuple[int, int, int, str]) -> tuple[Result, int]:
    seed, first, last, keep = job
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), seed, range(first, last), Path(keep))
    return result, peak_memory()


def main() -> int:
    """Run at length, in all cores; 1 where anything failed."""
    seed = int(os.environ.get("FERRY_FUZZ_SEED") or random.SystemRandom().randrange(1 << 32))
    count = int(os.environ.get("FERRY_FUZZ_COUNT") or 50_000)
    only = os.environ.get("FERRY_FUZZ_ONLY")
    keep = os.environ.get("FERRY_FUZZ_KEEP") or tempfile.mkdtemp(prefix="ferry-fuzz-")
    jobs = (
        [(seed, n, min(n + 500, count), keep) for n in range(0, count, 500)] if only is None else [(seed, int(only), int(only) + 1, keep)]
    )
    sys.stdout.write(f"FERRY_FUZZ_SEED={seed}, {count if only is None else 1} mutations; what fails is kept in {keep}\n")
    began = time.monotonic()
    total = Result()
    peak = 0
    with multiprocessing.Pool(min(len(jobs), len(os.sched_getaffinity(0))), maxtasksperchild=8) as pool:
        for number, (result, memory) in enumerate(pool.imap_unordered(_part, jobs), 1):
            total.read += result.read
            total.refused += result.refused
            total.salvaged += result.salvaged
            total.wrong += result.wrong
            peak = max(peak, memory)
            for line in result.wrong:
                sys.stdout.write(f"WRONG: {line}\n")
            if number % 20 == 0 or number == len(jobs):
                sys.stdout.write(f"{number * 500} done, {len(total.wrong)} wrong, {time.monotonic() - began:.0f} s\n")
            sys.stdout.flush()
    sys.stdout.write(f"read {total.read}, refused {total.refused}, salvaged {total.salvaged}, wrong {len(total.wrong)}, {peak >> 20} MiB\n")
    return 1 if total.wrong or peak > MEMORY else 0


if __name__ == "__main__":
    sys.exit(main())
