# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parts of bench_plan: what a plan takes beside its precheck, and how near it comes to what then happens.

For the forecast four VMs are migrated from a vCenter of its own to the lab's OpenStack: two, from which the conversion host learns, then
two others, whose times are compared with their plan.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

MODULES = "ansible_collections.ferry.vmware.plugins.modules"
#: Makes the plan of what stands in a file, with its table, its page and its JSON, in a process of its own.
MAKE = """
import datetime, json, sys
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan import build, page, table
given = json.load(open(sys.argv[1]))
wave = [build.Given(f["name"], f, e, build.Terms()) for f, e in zip(given["facts"], given["landing"]["vms"], strict=True)]
known = build.Known({}, given["usage"], given["precheck"], given["landing"])
plan = build.build("bench", wave, known, forks=10, now=datetime.datetime.now().astimezone())
html, text = page.html(plan), table.render(plan)
json.dump({"vms": len(plan["vms"]), "html": len(html.encode()), "json": len(json.dumps(plan)), "table": len(text)}, sys.stdout)
"""
#: Bytes of a disk, per cent by which a forecast may miss.
SIZE, MOST_PERCENT = 96 << 20, 20.0


def cloud_environment() -> dict[str, str]:
    """What the lab's env.sh says of its OpenStack."""
    path = Path(os.environ.get("FERRY_LAB_DIR", "build/lab")) / "env.sh"
    if not path.exists():
        raise SystemExit("No lab runs: make lab first (the plan is made against its OpenStack).")
    lines = path.read_text().splitlines()
    said = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
    return {name: value.strip("'\"") for name, value in said.items() if name.startswith(("OS_", "FERRY_LAB"))}


def make(folder: Path, env: dict[str, str], given: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """The plan's sizes, and the processor time of making it."""
    (folder / "given.json").write_text(json.dumps(given))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", MAKE, str(folder / "given.json")], env=env, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return json.loads(done.stdout), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def plan(env: dict[str, str], names: list[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Precheck and plan of all VMs together: all processes that Ansible would start for it."""
    bench = importlib.import_module("tests.bench.bench_plan")
    env = {**env, **cloud_environment()}
    bench.ask(env["FERRY_VCENTER_CONTROL"], "DELETE", "/stats")
    both = {"network_map": {"*": "net-web"}, "storage_map": {"*": None}}
    asked = {"vms": names, "strategy": "warm", "facts": True, "target": "openstack", **both}
    checked, first, _clock = bench.run_module(f"{MODULES}.vm_precheck", asked, env)
    facts = [vm.pop("facts") for vm in checked["vms"]]
    landing, second, _clock = bench.run_module(f"{MODULES}.landing_plan", {"vms": facts, "fail": False, **both}, env)
    usage, third, _clock = bench.run_module(f"{MODULES}.vm_disk_usage", {"vms": [f["moref"] for f in facts]}, env)
    calls = sum(bench.ask(env["FERRY_VCENTER_CONTROL"], "GET", "/stats")["methods"].values())
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder:
        given = {"facts": facts, "landing": landing, "usage": usage, "precheck": checked}
        made, last = make(Path(folder), env, given)
    if made["vms"] != len(names):
        sys.exit("the plan does not tell of every VM: no figure")
    seconds = {"vm_precheck": first, "landing_plan": second, "vm_disk_usage": third, "migration_plan": last}
    print(f"plan: {seconds}, {calls} calls, {made}", file=sys.stderr)
    work = f"precheck and plan of {len(names)} VMs"
    rows = [
        bench.row(f"{work}, own time", sum(seconds.values()), "s", bench.MOST_SECONDS),
        bench.row(f"{work}, calls to vCenter", calls, "calls", bench.MOST_CALLS),
    ]
    return rows, {"plan": {"own_seconds": seconds, **made}}


def forecast(_env: dict[str, str], _names: list[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """By how many per cent the plan misses what two VMs then take, from the first step to the last."""
    bench = importlib.import_module("tests.bench.bench_plan")
    os.environ.update(cloud_environment())
    lab, helper = importlib.import_module("tests.lab_tests.test_plan"), importlib.import_module("tests.lab_tests.vcenter_lab")
    openstack = importlib.import_module("openstack")
    stage = os.environ.get("FERRY_STAGE", str(bench.BUILD / "collections"))
    os.environ.setdefault("ANSIBLE_COLLECTIONS_PATH", os.pathsep.join([stage, str(bench.BUILD / "collections")]))
    waves = [("one", "two"), ("three", "four")]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ferry-bench-")))
        model = lab.write_model(folder, [name for wave in waves for name in wave])
        (folder / "root.raw").write_bytes(random.Random(1).randbytes(SIZE))
        site = lab.PlanSite(
            folder, stack.enter_context(helper.running(folder, model)), None, stack.enter_context(openstack.connect(cloud="lab"))
        )
        site.remove_all()
        stack.callback(site.remove_all)
        page = str(folder / "report.html")
        site.play("migrate", *waves[0], ferry_report=page, ferry_plan_precheck=False)
        planned = site.play("plan", *waves[1], ferry_plan_precheck=False).report
        began = time.perf_counter()
        done = site.play("migrate", *waves[1], ferry_report=page)
        took = time.perf_counter() - began
        if done.code or planned["totals"]["basis"] != "measured":
            sys.exit(f"the migration failed, or nothing was learned: {done.out[-2000:]}")
        happened = {vm["name"]: vm["seconds"] for vm in json.loads((folder / "report.json").read_text())["vms"]}
    rows = []
    said = {vm["name"]: vm["ends"] - vm["begins"] for vm in planned["vms"]}
    missed = max(abs(said[name] - seconds) / seconds * 100 for name, seconds in happened.items())
    print(f"forecast: planned {said}, happened {happened}, the playbook took {took:.1f} s", file=sys.stderr)
    rows.append(bench.row("forecast of a migration's time, missed by", missed, "%", MOST_PERCENT))
    return rows, {"forecast": {"planned": said, "happened": happened, "phases": {vm["name"]: vm["phases"] for vm in planned["vms"]}}}
