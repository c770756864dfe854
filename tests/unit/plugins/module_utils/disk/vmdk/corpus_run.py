# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the corpus in a process of its own, which is watched: what it opens, how much memory it takes, how long each case lasts.

C(python -m ...corpus_run FOLDER PART PARTS) prints JSON: cases, read, refused, wrong[], peak (bytes), slowest [seconds, name].
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert, digest_of, opened
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.info import inspect

from . import corpus
from .fuzz import peak_memory

#: Seconds that any one question about a small file may take.
LIMIT = 10.0
_opened: list[str] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and args and isinstance(args[0], (str, bytes)):
        _opened.append(os.fsdecode(args[0]))
    elif event.startswith(("socket.connect", "subprocess.Popen", "os.exec", "os.posix_spawn")):
        _opened.append(event)


def _attempt(work: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "done", work()
    except FerryError as e:
        return "refused", e
    except BaseException as e:  # noqa: BLE001 - whatever it is, it is what is looked for
        return "crashed", f"{type(e).__name__}: {e}"


def _info(head: str) -> dict[str, Any]:
    facts = inspect(head)
    json.dumps(facts)
    broken = next((p for p in facts["problems"] if p["severity"] != "warning"), None)
    if broken is not None:
        raise FerryError(broken["message"])
    return facts


def _check(head: str) -> str:
    with opened(head, None) as disk:
        return digest_of(disk, threads=2)


def judge(case: corpus.Case, folder: Path) -> tuple[str, list[str]]:
    """(what became of C(case), everything that is wrong with that)."""
    head = str(case.write(folder))
    dest = folder / "dest"
    dest.mkdir()
    wrong: list[str] = []
    del _opened[:]
    began = time.monotonic()
    says, facts = _attempt(lambda: _info(head))
    checked, why = _attempt(lambda: _check(head))
    made, result = _attempt(lambda: convert(head, str(dest / "dest.raw"), format="raw", threads=2))
    lasted = time.monotonic() - began
    outside = str(folder / "out")
    for name in _opened:
        real = os.path.realpath(name) if name.startswith("/") else name
        if real.startswith((outside, "/etc/pass", "/dev/zero", "/proc/self/mem")) or not name.startswith("/"):
            wrong.append(f"opened {name}")
    for what, state, value in (("info", says, facts), ("check", checked, why), ("convert", made, result)):
        if state == "crashed":
            wrong.append(f"{what} crashed: {value}")
    left = sorted(os.listdir(dest))
    if made == "done":
        data = (dest / "dest.raw").read_bytes()
        if case.must == corpus.REFUSE:
            wrong.append("it was read")
        elif hashlib.sha256(data).hexdigest() not in case.right:
            wrong.append(f"other bytes ({len(data)})")
        if checked != "done":
            wrong.append("convert read what check refused")
        if left != ["dest.raw"]:
            wrong.append(f"left behind: {left}")
    else:
        if case.must == corpus.READ:
            wrong.append(f"it was not read: {result}")
        if left:
            wrong.append(f"left behind: {left}")
        if checked == "done":
            wrong.append("check read what convert refused")
    if case.must == corpus.REFUSE and says == "done" and not any(w in case.name for w in ("grain", "bit")):
        wrong.append("info finds nothing wrong")
    if lasted > LIMIT:
        wrong.append(f"it took {lasted:.1f} s")
    return made, wrong


def main() -> None:
    folder, part, parts = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    only = sys.argv[4] if len(sys.argv) > 4 else ""
    sys.addaudithook(_hook)
    out: dict[str, Any] = {"cases": 0, "read": 0, "refused": 0, "wrong": [], "slowest": [0.0, ""]}
    for number, case in enumerate(corpus.every()):
        if number % parts != part or only not in case.name:
            continue
        out["cases"] += 1
        began = time.monotonic()
        faulthandler.dump_traceback_later(4 * LIMIT, exit=True)
        made, wrong = judge(case, folder / f"case{part}")
        out["slowest"] = max(out["slowest"], [time.monotonic() - began, case.name])
        if os.environ.get("FERRY_CORPUS_TRACE"):
            sys.stderr.write(f"{time.monotonic() - began:.2f} {case.name}\n")
        out["read" if made == "done" else "refused"] += 1
        out["wrong"] += [f"{case.name}: {w}" for w in wrong]
    out["peak"] = peak_memory()
    sys.stdout.write(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
