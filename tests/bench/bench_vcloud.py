# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vCloud Director: 10,000 VMs listed beside pyvcloud's typed query, an evacuation of them planned, and 2,000 relocations.

All against the lab's server. The list: 128 a page, 20 ms until each answer, both with certificates verified, the same API version and in turns;
the records are compared before a figure counts. The peer is measured twice, asking for everything (its default) and for the fields that
ours asks for; the better of the two counts. The plan: vcd_datastore_evacuate in check mode, with and without the reads of the VMs. The
relocations: a whole evacuation with journal, room checks and proof; the ideal is what the server's task time takes at that many at a
time. Writes build/bench/vcloud.json.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / "build"
PEER_VERSION = "23.0.4"
#: The highest that the peer knows.
API_VERSION = "36.0"
LIST_GOAL, PLAN_LIMIT, MOVES_FACTOR = 5.0, 5.0, 1.1
MODEL = """
vcenters: [{name: vc1, hosts: [%s]}]
datastores:
  - {name: source, vcenter: vc1, capacity: 400TiB}
  - {name: target-1, vcenter: vc1, capacity: 400TiB}
  - {name: target-2, vcenter: vc1, capacity: 400TiB}
orgs: []
bulk: {vms: %d, vcenter: vc1, datastores: [source]}
"""
Row = dict[str, Any]


class Lab:
    """A vCloud Director of its own for the time of a measurement; gives its environment."""

    def __init__(self, folder: Path, base: int, vms: int) -> None:
        self.env = {**os.environ, "FERRY_LAB_DIR": str(folder / f"lab{vms}"), "FERRY_LAB_BASE": str(base)}
        self.folder = folder / f"lab{vms}"
        self.model = folder / f"model{vms}.yml"
        self.model.write_text(MODEL % (", ".join(f"esx{n}" for n in range(1, 65)), vms))
        self.said: dict[str, str] = {}

    def call(self, *words: str) -> None:
        subprocess.run([sys.executable, "-m", "tests.lab", *words], cwd=TOP, env=self.env, stdout=sys.stderr, check=True)

    def __enter__(self) -> Lab:
        try:
            self.call("up", "vcloud", "--model", str(self.model))
        except BaseException:
            self.__exit__()
            raise
        lines = (self.folder / "env.sh").read_text().splitlines()
        found = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
        self.said = {name: value.strip("'\"") for name, value in found.items()}
        return self

    def __exit__(self, *exc: object) -> None:
        self.call("down", "vcloud")

    def control(self, method: str, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(self.said["FERRY_VCLOUD_CONTROL"] + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def params(self, version: str | None = None) -> dict[str, Any]:
        names = {"hostname": "VCD_HOST", "port": "VCD_PORT", "username": "VCD_USER", "password": "VCD_PASSWORD", "auth_org": "VCD_ORG"}
        found: dict[str, Any] = {option: self.said[name] for option, name in names.items()}
        return {**found, "ca_path": self.said["VCD_CA_PATH"], "api_version": version}


def of_ours(name: str) -> Any:
    """A module of plugins/module_utils/vcloud, from the staged collection."""
    return importlib.import_module(f"ansible_collections.ferry.vmware.plugins.module_utils.vcloud.{name}")


def row(work: str, peer: str, ours_value: float, peer_value: float, goal: float) -> Row:
    ratio = round(peer_value / ours_value, 2)
    return {
        "work": work,
        "peer": peer,
        "ours_value": round(ours_value, 3),
        "peer_value": round(peer_value, 3),
        "unit": "s",
        "ratio": ratio,
        "goal": goal,
    }


# -- the list ---------------------------------------------------------------------------------------------------------


def list_ours(session: Any) -> tuple[float, set[tuple[Any, ...]]]:
    start = time.perf_counter()
    found = of_ours("find").list_vms(session)
    seconds = time.perf_counter() - start
    return seconds, {(v.href, v.name, v.status, v.datastore, v.vapp, v.moref) for v in found}


def list_peer(client: Any, module: Any, fields: str | None) -> tuple[float, set[tuple[Any, ...]]]:
    start = time.perf_counter()
    query = client.get_typed_query(
        "adminVM", query_result_format=module.QueryResultFormat.RECORDS, page_size=128, sort_asc="name", fields=fields
    )
    found = list(query.execute())
    seconds = time.perf_counter() - start
    wanted = ("href", "name", "status", "datastoreName", "containerName", "moref")
    return seconds, {tuple(v.get(name) for name in wanted) for v in found}


def bench_list(lab: Lab, vms: int, rounds: int) -> Row:
    """Exits where the answers differ."""
    warnings.simplefilter("ignore")  # the peer's own
    module = importlib.import_module("pyvcloud.vcd.client")
    host = f"https://{lab.said['VCD_HOST']}:{lab.said['VCD_PORT']}"
    peer = module.Client(host, api_version=API_VERSION, verify_ssl_certs=lab.said["VCD_CA_PATH"], log_file=os.devnull)
    peer.set_credentials(module.BasicLoginCredentials(lab.said["VCD_USER"], lab.said["VCD_ORG"], lab.said["VCD_PASSWORD"]))
    fields = ",".join(of_ours("entities").VM_FIELDS)
    lab.control("POST", "/faults", kind="latency", delay_ms=20, times=0)
    seconds: dict[str, list[float]] = {"ours": [], "peer": [], "peer, the same fields": []}
    with of_ours("client").connect(lab.params(API_VERSION)) as session:
        for turn in range(rounds + 1):
            answers = {}
            for who, call in (
                ("ours", functools.partial(list_ours, session)),
                ("peer", functools.partial(list_peer, peer, module, None)),
                ("peer, the same fields", functools.partial(list_peer, peer, module, fields)),
            ):
                took, found = call()
                answers[who] = found
                if turn:  # the first warms up
                    seconds[who].append(took)
                print(f"{who}: {took:.2f} s, {len(answers[who])} VMs", file=sys.stderr)
            if len({frozenset(a) for a in answers.values()}) != 1 or len(answers["ours"]) != vms:
                sys.exit("the lists differ: no figure")
    lab.control("DELETE", "/faults")
    peer.logout()
    medians = {who: statistics.median(found) for who, found in seconds.items()}
    best = min(medians["peer"], medians["peer, the same fields"])
    return row(f"list {vms} VMs, 128 a page, 20 ms until each answer", f"pyvcloud {PEER_VERSION}", medians["ours"], best, LIST_GOAL)


# -- the plan ---------------------------------------------------------------------------------------------------------


def bench_plan(lab: Lab, vms: int) -> tuple[Row, float]:
    """Also the seconds with the reads, one request per VM: no list of the API tells sizes and chains.

    Exits where a plan leaves something out or tears a chain apart.
    """
    evacuate, facts, plan = of_ours("evacuate"), of_ours("evacuate_facts"), of_ours("evacuate_plan")
    wanted = evacuate.Wanted(datastore="source", targets=["target-1", "target-2"], journal=str(lab.folder / "no-journal"))
    with of_ours("client").administrator(lab.params()) as session:
        start = time.perf_counter()
        result = evacuate.evacuate(session, wanted, check=True)
        whole = time.perf_counter() - start
        source, targets, stores = evacuate.stores_of(session, wanted)
        content = facts.content_of(session, source, facts.names_of(session, stores))
    start = time.perf_counter()
    found = plan.make_plan(content.items, source, targets)
    alone = time.perf_counter() - start
    homes: dict[str, set[str]] = {}
    for line in result["plan"]:
        homes.setdefault(line["chain"] or line["href"], set()).add(line["to"])
    if len(result["plan"]) != vms or len(found.moves) != vms or any(len(h) != 1 or None in h for h in homes.values()):
        sys.exit("the plan is not right: no figure")
    print(f"plan: {alone:.2f} s, with the reads of {vms} VMs {whole:.2f} s", file=sys.stderr)
    return row(f"plan the evacuation of {vms} VMs whose facts are there", "5 s", alone, PLAN_LIMIT, 1.0), whole


# -- the relocations --------------------------------------------------------------------------------------------------


def bench_moves(lab: Lab, vms: int, at_once: int, task_seconds: float) -> Row:
    """Exits where something is left, failed or was moved twice."""
    evacuate = of_ours("evacuate")
    lab.control("POST", "/switches", per_datastore=at_once, per_host=at_once, task_seconds=task_seconds)
    wanted = evacuate.Wanted(
        datastore="source",
        targets=["target-1", "target-2"],
        max_per_target=at_once // 2,
        max_per_source=at_once,
        max_per_host=at_once,
        canary=(),
        journal=str(lab.folder / "journal"),
    )
    with of_ours("client").administrator(lab.params()) as session:
        start = time.perf_counter()
        result = evacuate.evacuate(session, wanted)
        took = time.perf_counter() - start
    relocations = [v["relocations"] for v in lab.control("GET", "/vms")["vms"]]
    if not result["empty"] or len(result["moved"]) != vms or relocations != [1] * vms:
        sys.exit("not everything was moved once: no figure")
    ideal = -(-vms // at_once) * task_seconds
    print(f"{vms} relocations, {at_once} at a time: {took:.1f} s, ideal {ideal:.1f} s", file=sys.stderr)
    work = f"{vms} relocations of {task_seconds:g} s, {at_once} at a time, from the first request to the proof"
    return row(work, "the ideal time", took, ideal, round(1 / MOVES_FACTOR, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vms", type=int, default=10_000, help="VMs that are listed and planned")
    parser.add_argument("--moves", type=int, default=2_000, help="VMs that are relocated")
    parser.add_argument("--at-once", type=int, default=64, help="relocations at a time")
    parser.add_argument("--task-seconds", type=float, default=4.0, help="how long a relocation takes")
    parser.add_argument("--rounds", type=int, default=3, help="times that each list is read")
    parser.add_argument("--only", choices=["list", "plan", "moves"], action="append", help="measure these alone, and write no file")
    parser.add_argument("--base", type=int, default=int(os.environ.get("FERRY_BENCH_LAB_BASE", "21700")), help="first port of the lab")
    options = parser.parse_args()
    what = options.only or ["list", "plan", "moves"]
    sys.path.insert(0, os.environ.get("FERRY_STAGE", str(BUILD / "collections")))
    rows: list[Row] = []
    also: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as name:
        folder = Path(name)
        if "list" in what or "plan" in what:
            with Lab(folder, options.base, options.vms) as lab:
                if "list" in what:
                    rows.append(bench_list(lab, options.vms, options.rounds))
                if "plan" in what:
                    planned, also["plan with a read of every VM"] = bench_plan(lab, options.vms)
                    rows.append(planned)
        if "moves" in what:
            with Lab(folder, options.base, options.moves) as lab:
                rows.append(bench_moves(lab, options.moves, options.at_once, options.task_seconds))
    text = json.dumps({"rows": rows, "seconds": {what: round(seconds, 3) for what, seconds in also.items()}}, indent=2) + "\n"
    if not options.only:
        out = BUILD / "bench" / "vcloud.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
