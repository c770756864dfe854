# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest that keeps writing: a known pseudo-random sequence of writes to a running VM's disks, logged so that a test can replay it.

C(python3 -m tests.lab.vcenter.writer --vm db01 --seed 1 --rate 8 --seconds 60 --log writes.jsonl). Every write is logged before it is
sent, so that a writer that was killed leaves no write without its line. It stops by itself when the VM is powered off.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import struct
import sys
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

SECTOR = 512
BLOCK = 64 << 10
_FRAME = struct.Struct(">IQI")
#: Writes, and bytes, that go into one request.
_BATCH, _BATCH_BYTES = 32, 1 << 20


@dataclass(frozen=True)
class Write:
    """One write: C(length) bytes at C(offset) of disk C(disk) (its key). C(number) counts from 0, C(seq) is the lab's number of it."""

    number: int
    disk: int
    offset: int
    length: int
    kind: str  # random, zero
    seed: int
    seq: int = 0

    def data(self) -> bytes:
        """Its bytes, which seed and number make."""
        return bytes(self.length) if self.kind == "zero" else random.Random(f"{self.seed}:{self.number}").randbytes(self.length)


def plan(seed: int, disks: Mapping[int, int]) -> Iterator[Write]:
    """The endless sequence of writes of this seed to these disks (key to capacity in bytes).

    Four in ten go to a few hot blocks, two are appended one after the other, four go anywhere; one in ten is zeroes. Offsets and lengths
    are sectors, seldom multiples of 64 KiB.
    """
    source = random.Random(seed)
    keys = sorted(key for key, capacity in disks.items() if capacity >= SECTOR)
    if not keys:
        raise ValueError("there is no disk to write to")
    hot = {key: [source.randrange(-(-disks[key] // BLOCK)) for i in range(8)] for key in keys}
    end = {key: disks[key] // 2 // SECTOR * SECTOR for key in keys}
    number = 0
    while True:
        key = source.choice(keys)
        capacity = disks[key] // SECTOR * SECTOR
        length = SECTOR * source.choice((1, 7, 8, 16, 33, 128, 129, 200, source.randint(1, 512)))
        where = source.random()
        if where < 0.4:
            offset = source.choice(hot[key]) * BLOCK + SECTOR * source.randrange(BLOCK // SECTOR)
        elif where < 0.6:
            offset = end[key] if end[key] < capacity else capacity // 2 // SECTOR * SECTOR
        else:
            offset = SECTOR * source.randrange(capacity // SECTOR)
        offset = min(offset, capacity - SECTOR)
        length = min(length, capacity - offset)
        if 0.4 <= where < 0.6:
            end[key] = offset + length
        yield Write(number, key, offset, length, "zero" if source.random() < 0.1 else "random", seed)
        number += 1


class Guest:
    """The control port, as the guest of one VM."""

    def __init__(self, control: str, vm: str) -> None:
        parts = urllib.parse.urlsplit(control)
        self._connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=120)
        self._vm = urllib.parse.urlencode({"vm": vm})

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        self._connection.request(method, f"{path}?{self._vm}", body=body)
        with self._connection.getresponse() as response:
            data = response.read()
        if response.status not in (200, 409):
            raise OSError(f"{path}: {response.status} {data.decode('utf-8', 'replace').strip()}")
        return response.status, json.loads(data)

    def look(self) -> dict[str, Any]:
        """running, count (writes until now), capacity (bytes by the disk's key)."""
        answer: dict[str, Any] = self._ask("GET", "/guest")[1]
        return answer

    def send(self, writes: Iterable[Write]) -> tuple[int, bool]:
        """Carry them out; the number of the last write there was, and whether the VM still runs."""
        body = b"".join(part for w in writes for part in (_FRAME.pack(w.disk, w.offset, w.length), w.data()))
        status, answer = self._ask("POST", "/guest/writes", body)
        return int(answer["count"]), status == 200

    def close(self) -> None:
        self._connection.close()


class _Stopped(Exception):
    """SIGTERM came."""


def _stop(*_args: object) -> None:
    raise _Stopped


def run(
    control: str, vm: str, log: TextIO, *, seed: int, rate: float = 0.0, seconds: float = 0.0, count: int = 0, disks: Iterable[int] = ()
) -> int:
    """Write until the VM is powered off, C(seconds) are over, or C(count) writes are made (0: no end); gives the number of writes made.

    C(rate) is in MB (10^6 bytes) per second, 0 is as fast as it goes. C(disks) are keys; none: all of the VM. OSError: the lab refuses,
    or somebody else writes to the same VM.
    """
    guest = Guest(control, vm)
    try:
        state = guest.look()
        wanted = set(disks)
        sizes = {int(key): int(size) for key, size in state["capacity"].items() if not wanted or int(key) in wanted}
        seq = first = int(state["count"])
        sequence = plan(seed, sizes)
        start, sent, running = time.monotonic(), 0, bool(state["running"])
        while running and (not count or seq - first < count) and (not seconds or time.monotonic() - start < seconds):
            batch: list[Write] = []
            size = 0
            most = _BATCH_BYTES if not rate else max(min(_BATCH_BYTES, int(rate * 1e5)), 1)
            while len(batch) < min(_BATCH, count - (seq - first) if count else _BATCH) and size < most:
                write = next(sequence)
                batch.append(Write(**{**asdict(write), "seq": seq + len(batch) + 1}))
                size += write.length
            log.writelines(json.dumps(asdict(w)) + "\n" for w in batch)
            log.flush()
            last, running = guest.send(batch)
            if last > seq + len(batch) or running and last != seq + len(batch):
                raise OSError(f"somebody else writes to {vm}: write {last}, expected {seq + len(batch)}")
            seq = last
            sent += size
            if rate:
                time.sleep(max(sent / (rate * 1e6) - (time.monotonic() - start), 0))  # the pace that was asked for
        log.write(json.dumps({"stopped": seq}) + "\n")
        log.flush()
        return seq - first
    finally:
        guest.close()


def read_log(log: Path) -> tuple[list[Write], int | None]:
    """The writes of a log, and the number of the last one that was carried out where the writer ended by itself."""
    writes: list[Write] = []
    stopped = None
    with open(log, encoding="ascii") as f:
        for line in f:
            if not line.endswith("\n"):
                break  # killed in the middle of a line: it was not sent
            entry = json.loads(line)
            if "stopped" in entry:
                stopped = int(entry["stopped"])
            else:
                writes.append(Write(**entry))
    return writes, stopped


def replay(image: Path, log: Path, upto: int | None = None, disk: int | None = None) -> int:
    """Carry out the writes of a log on a raw image: those of C(disk) (None: the log has but one) up to number C(upto).

    C(upto) is C(sequence) of GET /snapshots, or C(count) of GET /guest; without one, where the writer stopped by itself. Gives how many.
    """
    writes, stopped = read_log(log)
    upto = stopped if upto is None else upto
    if disk is None and len({w.disk for w in writes}) > 1:
        raise ValueError("the log has several disks: say which")
    done = 0
    with open(image, "r+b") as f:
        for write in writes:
            if (upto is None or write.seq <= upto) and disk in (None, write.disk):
                f.seek(write.offset)
                f.write(write.data())
                done += 1
    return done


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.lab.vcenter.writer", description="a guest that keeps writing")
    parser.add_argument("--vm", required=True, help="name or MoRef")
    parser.add_argument("--disk", type=int, action="append", default=[], help="key of a disk (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=4.0, help="MB per second; 0: no limit")
    parser.add_argument("--seconds", type=float, default=0.0, help="0: until the VM is powered off")
    parser.add_argument("--count", type=int, default=0, help="writes; 0: no limit")
    parser.add_argument("--log", type=Path, required=True, help="JSON lines; a new file")
    parser.add_argument("--control", default=os.environ.get("FERRY_VCENTER_CONTROL", ""), help="default: FERRY_VCENTER_CONTROL")
    args = parser.parse_args()
    if not args.control:
        parser.error("--control is missing, and FERRY_VCENTER_CONTROL is not set")
    signal.signal(signal.SIGTERM, _stop)
    try:
        with open(args.log, "x", encoding="ascii") as log:
            made = run(args.control, args.vm, log, seed=args.seed, rate=args.rate, seconds=args.seconds, count=args.count, disks=args.disk)
        print(f"{made} writes to {args.vm}")
    except _Stopped:
        print(f"stopped; {args.log} has the writes")
    except OSError as e:
        print(f"writer: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
