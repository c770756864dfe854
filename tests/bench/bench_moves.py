# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moves inside vSphere, against the lab's vCenter: an evacuation decided and checked for 1,000 VMs on 50 hosts, its number of moves against
an exhaustive search, and a failover of 20 VMs from the death of their host to the last boot.

Nothing else does any of this, so the figures stand beside limits: 3 seconds of our own processor time (the whole of host_evacuate in check
mode, reading included; what the lab's vCenter computes meanwhile on the same machine is not ours), the fewest moves that there are, and
what the tasks of the lab take at so many at a time. Where the rows of events are there (bench_events.py), they come along. Writes
build/bench/moves.json.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab.vcenter import USER, VCenter

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / "build"
PLAN_LIMIT, FAILOVER_FACTOR = 3.0, 1.3
DRAINED = 5
Row = dict[str, Any]


def of_ours(name: str) -> Any:
    """A module of the staged collection."""
    return importlib.import_module(f"ansible_collections.ferry.vmware.plugins.{name}")


def row(work: str, peer: str, ours_value: float, peer_value: float, unit: str, goal: float) -> Row:
    ratio = round(peer_value / ours_value, 2) if ours_value else 0.0
    return {
        "work": work,
        "peer": peer,
        "ours_value": round(ours_value, 3),
        "peer_value": round(peer_value, 3),
        "unit": unit,
        "ratio": ratio,
        "goal": goal,
    }


@contextmanager
def lab_with(folder: Path, model: dict[str, Any]) -> Iterator[VCenter]:
    """A vCenter of its own for the time of a measurement, on ports that are free."""
    helper = importlib.import_module("tests.lab_tests.vcenter_lab")
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps(model), encoding="utf-8")
    with helper.running(folder, folder / "model.json") as vcenter:
        yield vcenter


def connection(lab: VCenter) -> dict[str, Any]:
    return {
        "hostname": "127.0.0.1",
        "port": lab.port,
        "username": USER,
        "password": lab.place.password(),
        "ca_path": str(lab.place.state / "ca.pem"),
        "validate_certs": True,
    }


# -- the plan ---------------------------------------------------------------------------------------------------------


def large_model(vms: int, hosts: int) -> dict[str, Any]:
    """Two clusters of hosts of 512 GiB that share a datastore, half full with VMs of 4 to 32 GiB."""
    dice = random.Random(1)
    names = [f"esx{i:02}" for i in range(hosts)]
    rows = [
        {
            "name": f"vm{i:04}",
            "host": names[i % hosts],
            "datastore": "shared",
            "memory_mb": dice.choice((4, 8, 16, 32)) * 1024,
            "power": "on",
            "disks": [{"controller": "pvscsi", "capacity": "16GiB", "provisioning": "thin"}],
            "nics": [{"network": "VM Network"}],
        }
        for i in range(vms)
    ]
    return {
        "datacenter": "DC0",
        "clusters": [{"name": "C0", "hosts": names[: hosts // 2]}, {"name": "C1", "hosts": names[hosts // 2 :]}],
        "networks": ["VM Network"],
        "datastores": [{"name": "shared", "capacity": "400TiB"}],
        "hardware": {"*": {"memory_mb": 524288, "cores": 64, "cpu_mhz": 2400}},
        "vms": rows,
    }


def constraints(vms: int, hosts: int) -> list[dict[str, Any]]:
    """A hundred that hold as things are: three apart, two together that are on one host."""
    found: list[dict[str, Any]] = []
    for i in range(0, vms - hosts - 3, max(1, vms // 90)):
        found.append({"kind": "apart", "vms": [f"vm{i + k:04}" for k in range(3)]})
    for i in range(5, vms - hosts, 100):
        found.append({"kind": "together", "vms": [f"vm{i:04}", f"vm{i + hosts:04}"]})
    return found


def bench_plan(folder: Path, vms: int, hosts: int, rounds: int) -> list[Row]:
    """host_evacuate in check mode: reading, deciding, the devices of what moves, the table. Exits where a VM is stuck."""
    drain, client = of_ours("module_utils.vsphere.drain"), of_ours("module_utils.vsphere.client")
    rules = constraints(vms, hosts)
    wanted = [f"esx{i:02}" for i in range(DRAINED)]
    own: list[float] = []
    wall: list[float] = []
    with lab_with(folder / "plan", large_model(vms, hosts)) as lab:
        for _turn in range(rounds):
            cpu, start = time.process_time(), time.perf_counter()
            with client.connect(connection(lab)) as session:
                result = drain.drain(session, wanted, drain.Settings(constraints=rules), check=True)
            own.append(time.process_time() - cpu)
            wall.append(time.perf_counter() - start)
            print(f"plan: {own[-1]:.2f} s of our own, {wall[-1]:.2f} s in all, {len(result['moves'])} moves", file=sys.stderr)
    needed = sum(1 for i in range(vms) if i % hosts < DRAINED)
    if result["stuck"] or result["broken_after"]:
        sys.exit("the plan leaves something or breaks something: no figure")
    work = f"host_evacuate --check, {DRAINED} of {hosts} hosts, {vms} VMs, {len(rules)} constraints"
    return [
        row(f"{work}: own time", f"{PLAN_LIMIT:g} s", statistics.median(own), PLAN_LIMIT, "s", 1.0),
        row(f"{work}: moves", "one for each VM there", len(result["moves"]), needed, "moves", 1.0),
    ]


def bench_fewest(sites: int) -> Row:
    """Moves of the plans for small tight sites, beside those of a search through all states."""
    tests = importlib.import_module("tests.unit.plugins.module_utils.vsphere.test_evacuate")
    sites_of = importlib.import_module("tests.unit.plugins.module_utils.vsphere.placement_sites")
    ours = best = solved = 0
    for seed in range(sites):
        found, rules, host = sites_of.random_site(seed)
        least = tests.exhaustive(found, rules, host)
        plan = tests.drained(found, host, rules)
        if (least is None) != bool(plan.stuck):
            sys.exit(f"site {seed}: the planner and the search disagree whether there is a plan: no figure")
        if least is not None:
            ours, best, solved = ours + len(plan.moves), best + least, solved + 1
    return row(f"moves of the plans for {solved} small sites", "exhaustive search", ours, best, "moves", 1.0)


# -- the failover -----------------------------------------------------------------------------------------------------


def failover_model(vms: int) -> dict[str, Any]:
    disk = {"controller": "pvscsi", "capacity": "1GiB", "provisioning": "thin"}
    rows = [
        {
            "name": f"vm{i:02}",
            "host": "esx1",
            "datastore": "shared",
            "memory_mb": 1024,
            "power": "on",
            "annotation": f"number {i}",
            "custom": {"owner": "bench"},
            "disks": [disk],
            "nics": [{"network": "VM Network"}],
        }
        for i in range(vms)
    ]
    return {
        "datacenter": "DC0",
        "clusters": [{"name": "C0", "hosts": ["esx1", "esx2", "esx3", "esx4"]}],
        "networks": ["VM Network"],
        "datastores": [{"name": "shared", "capacity": "10TiB"}],
        "hardware": {"*": {"memory_mb": 65536}},
        "vms": rows,
    }


class Boots:
    """Watches by a session of its own when the last VM has booted on another host."""

    def __init__(self, lab: VCenter, vms: int) -> None:
        self.client = importlib.import_module("tests.lab_tests.vcenter_lab").Client(lab)
        self.vms = vms
        self.at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        vim = importlib.import_module("pyVmomi").vim
        while not self._stop.wait(0.1):
            events = self.client.content.eventManager.QueryEvents(vim.event.EventFilterSpec(eventTypeId=["VmPoweredOnEvent"]))
            if sum(1 for e in events if e.host.name != "esx1") >= self.vms:
                self.at = time.perf_counter()
                return

    def end(self) -> float:
        self._thread.join(5)
        self._stop.set()
        self._thread.join()
        self.client.close()
        return self.at


def bench_failover(folder: Path, vms: int, at_once: int, register: float, boot: float, *, by_play: bool) -> Row:
    """From the death of the host: the playbook (or the module alone) is started in that moment, as a rule would. Exits where one is not up."""
    name = "play" if by_play else "module"
    with lab_with(folder / name, failover_model(vms)) as lab:
        lab.switch("register_seconds", register)
        lab.switch("power_on_seconds", boot)
        boots = Boots(lab, vms)
        start = time.perf_counter()
        lab.post("/host/die", host="esx1", vms="die")
        if by_play:
            _play(lab, folder / name, at_once)
        else:
            edge, module = of_ours("module_utils.edge"), of_ours("modules.host_failover")
            options = {"host": "esx1", "phase": "run", "fenced": True, "cluster": None, "network_map": {}, "constraints": []}
            module.work(edge.Call({**connection(lab), **options, "at_once": at_once, "state_dir": str(folder / name / "kept")}))
        took = boots.end() - start
    if took <= 0:
        sys.exit("not all VMs are up: no figure")
    ideal = -(-vms // at_once) * (register + boot)
    print(f"failover of {vms} VMs by the {name}, {at_once} at a time: {took:.1f} s, ideal {ideal:.1f} s", file=sys.stderr)
    work = f"{vms} VMs from their host's death to the last boot, {at_once} at a time, by the {'playbook' if by_play else 'module'}"
    return row(work, f"tasks of {register:g} and {boot:g} s", took, ideal, "s", round(1 / FAILOVER_FACTOR, 2))


def _play(lab: VCenter, folder: Path, at_once: int) -> None:
    fence = folder / "fence.yml"
    fence.write_text("- name: It is off\n  ansible.builtin.debug: {msg: off}\n", encoding="utf-8")
    variables = {
        "ansible_python_interpreter": sys.executable,
        "ferry_dead_host": "esx1",
        "ferry_fence_tasks": str(fence),
        "ferry_failover_at_once": at_once,
        "ferry_failover_state_dir": str(folder / "kept"),
    }
    env = {**os.environ, **lab.env(), "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false"}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "ferry.vmware.host_failover", "-e", json.dumps(variables)]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the playbook failed: no figure\n{done.stdout[-3000:]}{done.stderr[-1000:]}")


def event_rows() -> list[Row]:
    """The rows of the event source, where they are there."""
    if importlib.util.find_spec("tests.bench.bench_events") is None:
        return []
    found: list[Row] = importlib.import_module("tests.bench.bench_events").rows()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vms", type=int, default=1000, help="VMs of the evacuation's site")
    parser.add_argument("--hosts", type=int, default=50, help="its hosts")
    parser.add_argument("--rounds", type=int, default=3, help="times that the plan is made")
    parser.add_argument("--sites", type=int, default=100, help="small sites that are searched exhaustively")
    parser.add_argument("--failover", type=int, default=20, help="VMs of the dead host")
    parser.add_argument("--at-once", type=int, default=8, help="VMs at a time, the default of host_failover")
    parser.add_argument("--register-seconds", type=float, default=2.0, help="how long RegisterVM takes")
    parser.add_argument("--boot-seconds", type=float, default=6.0, help="how long PowerOnVM takes")
    parser.add_argument(
        "--only", choices=["plan", "fewest", "module", "play", "events"], action="append", help="measure these alone, no file"
    )
    options = parser.parse_args()
    what = options.only or ["plan", "fewest", "module", "play", "events"]
    sys.path.insert(0, os.environ.get("FERRY_STAGE", str(BUILD / "collections")))
    rows: list[Row] = []
    times = (options.failover, options.at_once, options.register_seconds, options.boot_seconds)
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as name:
        folder = Path(name)
        if "plan" in what:
            rows += bench_plan(folder, options.vms, options.hosts, options.rounds)
        if "fewest" in what:
            rows.append(bench_fewest(options.sites))
        if "module" in what:
            rows.append(bench_failover(folder, *times, by_play=False))
        if "play" in what:
            rows.append(bench_failover(folder, *times, by_play=True))
    if "events" in what:
        rows += event_rows()
    text = json.dumps({"rows": rows}, indent=2) + "\n"
    if not options.only:
        out = BUILD / "bench" / "moves.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
