# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the progress of a running copy costs: processor time of the controller's process that follows it, and of what writes its status.

A long task that copies nothing (ferry.toy.long, with 20 new figures per second) runs under ansible-playbook with the default interval. When it
has come to its usual pace, the processor time of both sides is taken over a minute: all processes of ansible-playbook with the commands that they
start, and the module's process, whose own loop counts here too. The first process of ansible-playbook is left out: it asks a thousand times a second
whether a task has ended, whatever its tasks do. Writes build/bench/progress.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from .bench_inventory import BUILD
from .bench_plan import row

FIXTURES = Path(__file__).resolve().parents[1] / "unit" / "fixtures" / "collections"
#: The issue's figure: percent of one core per running copy.
MOST = 2.0
#: Seconds until the intervals have become those of a task that takes hours.
WARM_UP = 15.0


def spent(pid: int, itself: bool = True) -> float:
    """Processor seconds of a process, of its children that have ended and of those that live (proc(5), stat).

    :param itself: False: only of the children.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    found: dict[int, tuple[int, float]] = {}
    own = 0.0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(entry.parent.name) == pid:
            own = sum(map(int, fields[11:13])) / ticks
        found[int(entry.parent.name)] = int(fields[1]), sum(map(int, fields[11:15])) / ticks
    wanted, more = {pid}, {pid}
    while more:
        more = {p for p, (parent, _seconds) in found.items() if parent in more and p not in wanted}
        wanted |= more
    return sum(found[p][1] for p in wanted if p in found) - (0.0 if itself else own)


def environment(top: Path, stage: Path, copies: int) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")} | {
        "HOME": str(top),
        "ANSIBLE_COLLECTIONS_PATH": f"{FIXTURES}:{stage}",
        "ANSIBLE_INVENTORY": str(top / "inventory"),
        "ANSIBLE_FORKS": str(copies),
        "PYTHONPATH": "",
    }


def measure(stage: Path, seconds: float, copies: int) -> tuple[float, float]:
    """Percent of a core: of what follows the copies on the controller, and of the modules."""
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as name:
        top = Path(name)
        names = [f"web{n:02}" for n in range(copies)]
        shared = f"ansible_connection=local\nansible_python_interpreter={sys.executable}\n"
        (top / "inventory").write_text("\n".join(names) + f"\n[all:vars]\n{shared}")
        task = {"ferry.toy.long": {"name": "{{ inventory_hostname }}", "folder": str(top)}}
        play = {"hosts": "all", "gather_facts": False, "strategy": "ansible.builtin.host_pinned", "tasks": [task]}
        (top / "play.yml").write_text(yaml.safe_dump([play]))
        command = [sys.executable, "-m", "ansible", "playbook", str(top / "play.yml")]
        with (top / "out.txt").open("w") as out:
            process = subprocess.Popen(command, env=environment(top, stage, copies), stdout=out, stderr=out)
        log, end = top / "log", time.monotonic() + 300
        while not log.exists() or log.read_text().count("begin") < copies:
            if process.poll() is not None or time.monotonic() > end:
                sys.exit((top / "out.txt").read_text()[-2000:])
            time.sleep(0.2)
        modules = [int(line.split()[2]) for line in log.read_text().splitlines()]
        time.sleep(WARM_UP)
        begin, before = time.monotonic(), (spent(process.pid, itself=False), sum(map(spent, modules)))
        time.sleep(seconds)
        after, took = (spent(process.pid, itself=False), sum(map(spent, modules))), time.monotonic() - begin
        (top / "go").write_text("")
        process.wait(120)
    return 100 * (after[0] - before[0]) / took, 100 * (after[1] - before[1]) / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    stage = Path(os.environ.get("FERRY_STAGE", BUILD / "collections"))
    rows = []
    for copies in (1, 8):
        controller, modules = measure(stage, options.seconds, copies)
        work = f"progress, {copies} running cop{'y' if copies == 1 else 'ies'} at once, per copy"
        cost = row(work, (controller + modules) / copies, "% of a core", MOST)
        rows.append({**cost, "controller": round(controller, 3), "modules": round(modules, 3)})
    out = BUILD / "bench" / "progress.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    print(out.read_text(), end="")


if __name__ == "__main__":
    main()
