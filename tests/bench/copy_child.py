# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One copy in a process of its own, for bench_copy: its task as JSON on standard input, what it did as JSON on standard output.

The engine is used as any Python program would use it; nothing of Ansible is imported.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
from typing import Any, Iterator

from ansible_collections.ferry.vmware.plugins.module_utils.disk import budget as budgets
from ansible_collections.ferry.vmware.plugins.module_utils.disk import changes
from ansible_collections.ferry.vmware.plugins.module_utils.disk import copy as engine
from ansible_collections.ferry.vmware.plugins.module_utils.disk.ledger import Ledger
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sinks.file import FileSink
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.https import Endpoint, HttpsSource, RemoteFile

OLD, NEW = "52 00 00 00 00 00 00 00-00 00 00 00 00 00 00 01/1", "52 00 00 00 00 00 00 00-00 00 00 00 00 00 00 01/2"


def pairs(path: str) -> Iterator[tuple[int, int]]:
    """The areas of a file of lines "start length"."""
    with open(path, encoding="ascii") as f:
        for line in f:
            start, length = line.split()
            yield int(start), int(length)


def job(task: dict[str, Any], disk: dict[str, Any], stack: contextlib.ExitStack) -> engine.Job:
    """The copy of one disk. With C(areas): from the changeId OLD, which its ledger has, to NEW; with C(allocated): the first, to OLD."""
    cookie = task["cookie"]
    endpoint = Endpoint("127.0.0.1", task["port"], ssl.create_default_context(cafile=task["ca"]), lambda: {"Cookie": cookie}, lambda: None)
    source = HttpsSource([(RemoteFile(endpoint, disk["url"], disk["name"]), 0, disk["capacity"], Kind.DATA)], "bench")
    sink = FileSink(disk["target"], disk["capacity"])
    ledger = Ledger(disk["ledger"], disk["capacity"])
    for thing in (source, sink, ledger):
        stack.callback(thing.close)
    tracking = None
    if disk.get("areas") or disk.get("allocated"):

        def areas(since: str) -> Iterator[tuple[int, int]]:
            return pairs(disk["areas"])

        hint = (lambda: pairs(disk["allocated"])) if disk.get("allocated") else None
        tracking = changes.Tracking(NEW if disk.get("areas") else OLD, areas, hint)
    throttle = None
    if disk.get("datastore"):
        throttle = budgets.Budget(task["budget"]).throttle(datastore=disk["datastore"])
    return engine.Job(disk["name"], source, sink, ledger, tracking=tracking, throttle=throttle)


def main() -> None:
    task = json.load(sys.stdin)
    with contextlib.ExitStack() as stack:
        jobs = [job(task, disk, stack) for disk in task["disks"]]
        results = engine.run(jobs, workers=task.get("workers", 4), verify=task.get("verify", "none"))
    with open("/proc/self/status", encoding="ascii") as f:
        peak = next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))
    json.dump({"disks": [r.as_dict() for r in results], "peak": peak}, sys.stdout)


if __name__ == "__main__":
    main()
