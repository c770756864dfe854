# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A copy that dies between any two steps: run as a program it copies and kills itself; imported it makes what a power loss leaves.

    python powerloss.py MODULE_UTILS PLAN

The plan (JSON) names the folder with the files, the source, its changeId and areas, and the step before which the process
kills itself, by kind and number: a read, a write, a zeroing, a flush begun or ended, a statement or a commit of SQLite. With C(durable) the
program keeps beside target and ledger what of them was certain to be on the medium: a copy of the target as it was when a
flush began, put in place when that flush has returned, and one of the ledger as of its last transaction with fsync.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

PAGE = 4096
LEDGER = ("ledger.sqlite", "ledger.sqlite-wal")


def lose_power(folder: Path, rng: random.Random) -> None:
    """Put target and ledger into a state that they may have after a power loss: of what was not flushed, any page or none."""
    target, durable = folder / "target", folder / "durable"
    kept = durable / "target"
    if target.exists():
        now = target.read_bytes()
        before = kept.read_bytes() if kept.exists() else b""
        before = before[: len(now)] + bytes(len(now) - len(before))
        share = rng.choice([0.0, 0.5, 1.0])
        pages = []
        for at in range(0, len(now), PAGE):
            a, b = before[at : at + PAGE], now[at : at + PAGE]
            pages.append(a if a == b or rng.random() >= share else b)
        with open(target, "r+b") as f:  # the same inode: a file system that was mounted again has the same files
            f.write(b"".join(pages))
    # Either all that was written to the ledger has reached the medium, or only what was made certain to.
    if (durable / "ledger").is_dir() and rng.random() < 0.5:
        for name in LEDGER:
            (folder / name).unlink(missing_ok=True)
            if (durable / "ledger" / name).exists():
                shutil.copy(durable / "ledger" / name, folder / name)
    (folder / "ledger.sqlite-shm").unlink(missing_ok=True)


def main(module_utils: str, plan: dict[str, Any]) -> None:
    sys.path.insert(0, module_utils)
    from disk import copy, ledger
    from disk.changes import Tracking
    from disk.sinks.file import FileSink
    from disk.sources.file import FileSource

    folder = Path(plan["folder"])
    steps: Counter[str] = Counter()
    reads = open(folder / "reads", "a", buffering=1)  # noqa: SIM115 - a log that lives as long as the process

    lock = threading.Lock()

    def step(kind: str) -> None:
        with lock:
            steps[kind] += 1
            if [kind, steps[kind]] == plan["die_at"]:
                os.kill(os.getpid(), signal.SIGKILL)

    class Source(FileSource):
        def read(self, offset: int, length: int) -> bytes:
            step("read")
            reads.write(f"{offset} {length}\n")
            data: bytes = super().read(offset, length)
            return data

    class Sink(FileSink):
        def write(self, offset: int, data: bytes | memoryview) -> None:
            step("write")
            half = len(data) // 2
            super().write(offset, memoryview(data)[:half])
            step("write")
            super().write(offset + half, memoryview(data)[half:])

        def zero(self, offset: int, length: int) -> None:
            step("zero")
            super().zero(offset, length)

        def flush(self) -> None:
            step("flush")
            if plan["durable"]:
                shutil.copyfile(folder / "target", folder / "durable" / "target.new")
            super().flush()
            if plan["durable"]:
                os.replace(folder / "durable" / "target.new", folder / "durable" / "target")
            step("flushed")

    def statement(text: str) -> None:
        step("commit" if text == "COMMIT" else "statement")
        if plan["durable"] and text == "PRAGMA synchronous=NORMAL" and not book._db.in_transaction:
            new, kept = folder / "durable" / "ledger.new", folder / "durable" / "ledger"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            for name in LEDGER:
                if (folder / name).exists():
                    shutil.copyfile(folder / name, new / name)
            shutil.rmtree(kept, ignore_errors=True)
            new.rename(kept)

    if plan["boot"]:
        ledger.boot_id = lambda: plan["boot"]
    (folder / "durable").mkdir(exist_ok=True)
    source = Source(plan["source"])
    sink = Sink(str(folder / "target"), source.capacity)
    book = ledger.Ledger(str(folder / "ledger.sqlite"), source.capacity)
    book._db.set_trace_callback(statement)
    tracking = Tracking(plan["change_id"], lambda since: [tuple(a) for a in plan["areas"][since]]) if plan["change_id"] else None
    job = copy.Job("Hard disk 1", source, sink, book, unit=1 << 20, tracking=tracking)
    threading.stack_size(256 << 10)
    result = copy.run(
        [job], workers=2, verify=plan["verify"], outside=plan["outside"], checkpoint_seconds=0.0, checkpoint_bytes=plan["checkpoint"]
    )
    (folder / "result").write_text(json.dumps({**result[0].as_dict(), "steps": steps}))
    book.close()
    sink.close()
    source.close()


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as stream:
        main(sys.argv[1], json.load(stream))
