# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-inventory --list of 1,000 VMs with five properties: ferry.vmware.vcenter beside vmware.vmware.vms.

Both ask the same lab vCenter in turns and verify its certificate. The peer has its defaults but for the properties, and
ours makes the same groups (guest id and power state). The answers are compared, VM by VM and group by group, before a
figure is written. An empty ansible-inventory is measured as well: what Ansible itself takes.
Writes build/bench/inventory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / "build"
PEER_VERSION = "2.6.0"
GOAL = 20.0
PROPERTIES = ["name", "config.guestId", "config.hardware.memoryMB", "config.hardware.numCPU", "summary.runtime.powerState"]
#: The peer's default.
PEER_GROUPS = [{"key": "config.guestId", "separator": ""}, {"key": "summary.runtime.powerState", "separator": ""}]
MODEL = """
datacenter: DC0
clusters: [{name: C0, hosts: [esx1, esx2]}]
networks: [VM Network]
datastores: [{name: datastore1, type: VMFS, capacity: 1TiB, hosts: [esx1, esx2]}]
bulk: {vms: %d, prefix: bulk}
"""


class Lab:
    """A vCenter of its own for the time of the measurement."""

    def __init__(self, folder: Path, base: int, vms: int) -> None:
        self.folder = folder
        self.env = {**os.environ, "FERRY_LAB_DIR": str(folder / "lab"), "FERRY_LAB_BASE": str(base)}
        self.model = folder / "model.yml"
        self.model.write_text(MODEL % vms)

    def call(self, *words: str) -> None:
        subprocess.run([sys.executable, "-m", "tests.lab", *words], cwd=TOP, env=self.env, stdout=sys.stderr, check=True)

    def __enter__(self) -> dict[str, str]:
        try:
            self.call("up", "vcenter", "--model", str(self.model))
        except BaseException:
            self.__exit__()
            raise
        lines = (self.folder / "lab" / "env.sh").read_text().splitlines()
        said = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
        return {name: value.strip("'\"") for name, value in said.items()}

    def __exit__(self, *exc: object) -> None:
        self.call("down", "vcenter")


def plain(value: Any) -> Any:
    """C(value) without the marks that Ansible puts around text from outside."""
    if isinstance(value, dict):
        return plain(value["__ansible_unsafe"]) if set(value) == {"__ansible_unsafe"} else {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list) else value


def facts(found: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """The five properties and the groups by host, in one form for both."""
    groups: dict[str, set[str]] = {}
    for group, content in found.items():
        for host in content.get("hosts", ()) if group not in ("_meta", "all", "ungrouped", "vms") else ():
            groups.setdefault(host, set()).add(group)
    hosts = plain(found.get("_meta", {}).get("hostvars", {}))
    return {
        host: (
            v["config"]["guestId"],
            v["config"]["hardware"]["memoryMB"],
            v["config"]["hardware"]["numCPU"],
            v["summary"]["runtime"]["powerState"],
            sorted(groups.get(host, ())),
        )
        for host, v in hosts.items()
    }


def measure(source: Path, env: dict[str, str]) -> tuple[float, dict[str, tuple[Any, ...]]]:
    """Seconds of one ansible-inventory, and what it said of the VMs."""
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(source), "--list"]
    start = time.perf_counter()
    done = subprocess.run(command, env=env, cwd=source.parent, capture_output=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{source.name}: {done.stderr.decode(errors='replace')[-2000:]}")
    return seconds, facts(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vms", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1, help="times that the peer is run; ours is run twice before and after each")
    parser.add_argument("--base", type=int, default=int(os.environ.get("FERRY_BENCH_LAB_BASE", "21700")), help="first port of the lab")
    options = parser.parse_args()
    stage = Path(os.environ.get("FERRY_STAGE", BUILD / "collections"))
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as name:
        folder = Path(name)
        with Lab(folder, options.base, options.vms) as said:
            env = {
                **os.environ,
                **said,
                "ANSIBLE_COLLECTIONS_PATH": os.pathsep.join(dict.fromkeys([str(stage), str(BUILD / "collections")])),
                "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
                # the peer has no option for a CA of one's own
                "SSL_CERT_FILE": said["VMWARE_CA_PATH"],
            }
            rows = compare(folder, env, options.rounds, options.vms)
    out = BUILD / "bench" / "inventory.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=2) + "\n")
    print(out.read_text(), end="")


def compare(folder: Path, env: dict[str, str], rounds: int, vms: int) -> dict[str, Any]:
    """Run all three in turns; exits where the answers differ."""
    ours_only = {"with_esxi_hosts": False, "with_datastores": False, "keyed_groups": PEER_GROUPS}
    sources = {
        "ours": ("ours.vcenter.yml", {"plugin": "ferry.vmware.vcenter", "properties": PROPERTIES, **ours_only}),
        "peer": ("peer.vms.yml", {"plugin": "vmware.vmware.vms", "properties": PROPERTIES}),
    }
    paths = {}
    for who, (name, config) in sources.items():
        paths[who] = folder / name
        paths[who].write_text(json.dumps(config))
    paths["empty"] = folder / "empty.yml"
    paths["empty"].write_text("all: {}\n")
    for who in ("empty", "ours"):
        measure(paths[who], env)  # compiles what is imported
    seconds: dict[str, list[float]] = {"ours": [], "peer": [], "empty": []}
    answers: dict[str, dict[str, tuple[Any, ...]]] = {}
    for who in ["empty", "ours", "ours", *["peer", "ours", "ours", "empty"] * rounds]:
        took, answers[who] = measure(paths[who], env)
        seconds[who].append(took)
        print(f"{who}: {took:.2f} s, {len(answers[who])} VMs", file=sys.stderr)
    if answers["ours"] != answers["peer"] or len(answers["ours"]) != vms:
        sys.exit("the two inventories differ: no figure")
    ours, peer = statistics.median(seconds["ours"]), statistics.median(seconds["peer"])
    row = {
        "work": f"ansible-inventory --list, {vms} VMs, {len(PROPERTIES)} properties",
        "peer": f"vmware.vmware.vms {PEER_VERSION}",
        "ours_value": round(ours, 3),
        "peer_value": round(peer, 3),
        "unit": "s",
        "ratio": round(peer / ours, 2),
        "goal": GOAL,
    }
    return {"rows": [row], "seconds": {who: [round(s, 3) for s in found] for who, found in seconds.items()}}


if __name__ == "__main__":
    main()
