# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Before a migration: what a precheck of 1,000 VMs takes of our own time, and how many calls of the vSphere API.

The module runs as Ansible runs it, in a process of its own, against a lab vCenter on this machine. Its own time is the processor time of
that process, Python's start and pyVmomi's import included; what vCenter takes to answer is beside it. Calls are counted by the lab.
Writes build/bench/plan.json. A row has a goal that is not to be exceeded; its ratio is goal by value, above 1 is good.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .bench_inventory import BUILD, Lab
from .planned import forecast, plan

MODULE = "ansible_collections.ferry.vmware.plugins.modules.vm_precheck"
#: The issue's figures: seconds of our own time for precheck and plan together, calls per 1,000 VMs.
MOST_SECONDS, MOST_CALLS = 10.0, 30

#: What a part of the bench needs: the lab's environment and the names of its VMs. It gives rows, and whatever else is kept.
Part = Callable[[dict[str, str], list[str]], tuple[list[dict[str, Any]], dict[str, Any]]]


def row(work: str, value: float, unit: str, goal: float) -> dict[str, Any]:
    """A row of the result; C(peer_value) is what is not to be exceeded, since nobody else does this."""
    ratio = round(goal / value, 2) if value else None
    return {"work": work, "peer": "goal", "ours_value": round(value, 3), "peer_value": goal, "unit": unit, "ratio": ratio, "goal": 1.0}


def ask(control: str, method: str, path: str) -> Any:
    """A request to the lab's control port."""
    with urllib.request.urlopen(urllib.request.Request(control + path, method=method), timeout=30) as answer:
        return json.load(answer)


def run_module(module: str, params: dict[str, Any], env: dict[str, str]) -> tuple[dict[str, Any], float, float]:
    """One run of a module: its result, the processor time of its process and the time by the clock, in seconds."""
    given = json.dumps({"ANSIBLE_MODULE_ARGS": params})
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", module], input=given, env=env, capture_output=True, text=True, check=False)
    took, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(done.stdout or "{}")
    if done.returncode or result.get("failed"):
        sys.exit(f"{module}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
    return result, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, took


def precheck(env: dict[str, str], names: list[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """vm_precheck of all VMs, warm, with their facts: what a plan asks for."""
    params = {"vms": names, "strategy": "warm", "facts": True}
    run_module(MODULE, {"vms": names[:1]}, env)  # compiles what is imported
    own, clock, calls = [], [], 0
    for _run in range(3):
        ask(env["FERRY_VCENTER_CONTROL"], "DELETE", "/stats")
        result, seconds, took = run_module(MODULE, params, env)
        methods = ask(env["FERRY_VCENTER_CONTROL"], "GET", "/stats")["methods"]
        own.append(seconds)
        clock.append(took)
        calls = sum(methods.values())
        if len(result["vms"]) != len(names) or not all(vm["facts"] for vm in result["vms"]):
            sys.exit("the precheck does not tell of every VM: no figure")
        print(f"precheck: {seconds:.2f} s of our own, {took:.2f} s by the clock, {calls} calls", file=sys.stderr)
    work = f"vm_precheck of {len(names)} VMs"
    rows = [
        row(f"{work}, own time", statistics.median(own), "s", MOST_SECONDS),
        row(f"{work}, calls to vCenter", calls, "calls", MOST_CALLS),
    ]
    return rows, {"precheck": {"own_seconds": own, "clock_seconds": clock, "methods": methods}}


PARTS: tuple[Part, ...] = (precheck, plan, forecast)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vms", type=int, default=1000)
    parser.add_argument("--base", type=int, default=int(os.environ.get("FERRY_BENCH_LAB_BASE", "21700")), help="first port of the lab")
    parser.add_argument("--parts", default="", help="comma-separated: precheck, plan, forecast; all of them unless given")
    options = parser.parse_args()
    wanted = [part for part in PARTS if not options.parts or part.__name__ in options.parts.split(",")]
    stage = Path(os.environ.get("FERRY_STAGE", BUILD / "collections"))
    rows: list[dict[str, Any]] = []
    beside: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as name, Lab(Path(name), options.base, options.vms) as said:
        env = {**os.environ, **said, "PYTHONPATH": str(stage)}
        for part in wanted:
            found, kept = part(env, [f"bulk{i:04}" for i in range(options.vms)])
            rows += found
            beside.update(kept)
    out = BUILD / "bench" / "plan.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"rows": rows, **beside}, indent=2) + "\n")
    print(out.read_text(), end="")


if __name__ == "__main__":
    main()
