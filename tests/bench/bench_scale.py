# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A wave in slices over two workers: how near it comes to what the read budget allows, log-ins per VM, and the memory of a worker.

Each worker takes the next slice when it is done with one, by ansible-runner's transmit, worker and process; both copy over one conversion
host, by ssh, under one budget. The ideal is the bytes of all disks by the budget's rate, nothing else. The budget is chosen so that this
takes C(--seconds); where that is less than the processor time of the tasks (on two cores some seconds for each VM), the cores are what is
measured: they are told beside it. Writes build/bench/scale.json. A row has a goal that is not to be exceeded; its ratio is goal by value.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from .bench_inventory import BUILD
from .bench_plan import row

#: The issue's figures: time by the ideal, log-ins per VM, MiB of a worker with ten forks.
MOST_TIME, MOST_LOGINS, MOST_MIB = 1.15, 0.1, 600
KEY, MIB = 2000, 1 << 20


def write_model(folder: Path, count: int, size: int) -> tuple[Path, list[str]]:
    """VMs that run, each with a disk of C(size) bytes without zeroes; the names of all."""
    (folder / "disk.raw").write_bytes(random.Random(1).randbytes(size))
    names = [f"vm{n:03}" for n in range(count)]
    vms = [
        {
            "name": name,
            "host": f"esx{n % 4 + 1}",
            "datastore": "shared",
            "memory_mb": 64,
            "power": "on",
            "cbt": True,
            "disks": [{"controller": "pvscsi", "path": "disk.raw", "provisioning": "thin"}],
        }
        for n, name in enumerate(names)
    ]
    hosts = [f"esx{n + 1}" for n in range(4)]
    model = {
        "datacenter": "DC lab",
        "clusters": [{"name": "C0", "hosts": hosts}],
        "networks": ["VM Network"],
        "datastores": [{"name": "shared", "capacity": "10TiB", "hosts": hosts}],
        "vms": vms,
    }
    path = folder / "model.json"
    path.write_text(json.dumps(model), encoding="utf-8")
    return path, names


class Worker(threading.Thread):
    """A node: takes slices until there are none."""

    def __init__(self, name: str, mesh: Any, slices: list[int], given: dict[str, Any]) -> None:
        super().__init__()
        self.node, self.mesh, self.slices, self.given = name, mesh, slices, given
        self.rss = 0
        self.wrong = ""

    def run(self) -> None:
        while not self.wrong:
            try:
                number = self.slices.pop(0)
            except IndexError:
                return
            began = time.perf_counter()
            job = self.mesh.start(self.node, "precopy", number=number, **self.given)
            code, said = job.wait(86_400)
            self.rss = max(self.rss, job.rss)
            print(f"{self.node}: slice {number}, {time.perf_counter() - began:.0f} s, {job.rss / MIB:.0f} MiB", file=sys.stderr, flush=True)
            if code:
                self.wrong = said[-3000:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vms", type=int, default=200)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--forks", type=int, default=10)
    parser.add_argument("--mib", type=int, default=24, help="size of each VM's disk")
    parser.add_argument("--seconds", type=float, default=1800, help="what the budget is to make of it, at best")
    options = parser.parse_args()
    total = options.vms * options.mib * MIB
    rate = total / options.seconds
    site, helper = (importlib.import_module(f"tests.lab_tests.{name}") for name in ("slices_site", "vcenter_lab"))
    stage = Path(os.environ.get("FERRY_STAGE", BUILD / "collections"))
    os.environ.setdefault("ANSIBLE_COLLECTIONS_PATH", str(BUILD / "collections"))
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as name, tempfile.TemporaryDirectory(prefix="fs-") as sockets:
        folder = Path(name)
        model, names = write_model(folder, options.vms, options.mib * MIB)
        with helper.running(folder, model) as vcenter, site.ssh_host(folder / "conversion") as conversion:
            mesh = site.Mesh(folder, vcenter, conversion, stage, sockets)
            given = {
                "hosts": mesh.hosts(names, [KEY]),
                "count": options.slices,
                "forks": options.forks,
                "ferry_read_budget": {"overall": {"rate": rate / 1e6}},
                "ferry_verify": "sample",
                "ferry_precopy_interval": 0,
                "ferry_downtime_budget": 600,
                "ferry_report_share": str(folder / "share"),
                "precopy_verify_first": "sample",
            }
            slices = list(range(1, options.slices + 1))
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            workers = [Worker(node, mesh, slices, given) for node in "ab"]
            try:
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()
            finally:
                mesh.end()
            took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            logins = mesh.logins()
            wrong = next((w.wrong for w in workers if w.wrong), "")
            digest = (folder / "disk.raw").read_bytes()
            unequal = [n for n in names if (folder / "targets" / f"{n}-0.raw").read_bytes() != digest] if not wrong else []
    if wrong or unequal:
        sys.exit(f"no figure: {wrong or f'not equal: {unequal}'}")
    # What the conversion host did is under its sshd, whose end is not awaited: this is the controllers' own.
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    work = f"{options.vms} VMs in {options.slices} slices over 2 workers"
    rows = [
        row(f"{work}, by the ideal of the budget", took / options.seconds, "times", MOST_TIME),
        row(f"{work}, log-ins per VM", logins / options.vms, "log-ins", MOST_LOGINS),
        row(f"memory of a worker with {options.forks} forks", max(w.rss for w in workers) / MIB, "MiB", MOST_MIB),
    ]
    beside = {"seconds": took, "ideal_seconds": options.seconds, "rate": rate, "controllers_cpu_seconds": own, "cores": os.cpu_count()}
    out = BUILD / "bench" / "scale.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"rows": rows, "scale": {**vars(options), **beside}}, indent=2) + "\n")
    print(out.read_text(), end="")


if __name__ == "__main__":
    main()
