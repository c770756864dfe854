# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many events a second the event source takes, with its marks on disk: a storm in the lab's vCenter, posted as fast as it can.

Every event has to come, once and in order, or there is no figure. Beside it stands what the storm brought per second, and how long the
loop that the source shares with ansible-rulebook was ever held up. Writes build/bench/events.json.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import event_feed
from tests.lab.common import Place
from tests.lab.vcenter import VCenter

TOP = Path(__file__).resolve().parents[2]
EVENTS = 20_000
#: What the source has to take, events per second.
WANTED = 1000.0
MODEL = {
    "clusters": [{"name": "C0", "hosts": ["esx1", "esx2"]}],
    "networks": ["VM Network"],
    "datastores": [{"name": "shared", "type": "VMFS", "capacity": "10GiB"}],
    "vms": [],
}


async def storm(lab: VCenter, folder: Path, count: int, rate: int) -> tuple[float, float, float]:
    """Seconds from the first event posted to the last one taken, seconds of the posting, and the longest stall of the loop, seconds."""
    env = lab.env()
    taken: list[str] = []
    done, stall = asyncio.Event(), 0.0
    args = {
        "hostname": env["VMWARE_HOST"],
        "port": env["VMWARE_PORT"],
        "username": env["VMWARE_USER"],
        "password": env["VMWARE_PASSWORD"],
        "ca_path": env["VMWARE_CA_PATH"],
        "events": ["GeneralUserEvent"],
        "state_file": str(folder / "mark.json"),
    }
    options, path = event_feed.options_of(args, {})

    async def put(event: dict[str, Any]) -> None:
        taken.append(event["data"]["message"])
        if len(taken) >= count:
            done.set()

    async def watch_the_loop() -> None:
        nonlocal stall
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            stall = max(stall, time.perf_counter() - before - 0.01)

    source = asyncio.create_task(event_feed.feed(put, options, path))
    while not path.exists():  # the first mark: it listens
        await asyncio.sleep(0.05)
        if source.done():
            source.result()
    await asyncio.sleep(0.5)
    pulse = asyncio.create_task(watch_the_loop())
    start = time.perf_counter()
    posted = await asyncio.to_thread(lab.post, "/events/storm", count=count, rate=rate)
    await asyncio.wait_for(done.wait(), 120)
    took = time.perf_counter() - start
    for task in (pulse, source):
        task.cancel()
    await asyncio.gather(pulse, source, return_exceptions=True)
    if taken != [f"storm {i}" for i in range(1, count + 1)]:
        sys.exit("events were lost or repeated: no figure")
    return took, float(posted["seconds"]), stall


def rows(count: int = EVENTS) -> list[dict[str, Any]]:
    """The rows of the event source, for a benchmark's file."""
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as name:
        folder = Path(name)
        model = folder / "model.json"
        model.write_text(json.dumps(MODEL), encoding="utf-8")
        lab = VCenter(Place(folder / "state", int(os.environ.get("FERRY_BENCH_LAB_BASE", "21700"))))
        lab.up(model)
        try:
            took, posting, stall = asyncio.run(storm(lab, folder, count, 1_000_000))
        finally:
            lab.down()
    print(f"{count} events in {took:.2f} s, posted in {posting:.2f} s; the loop stood for {1000 * stall:.0f} ms at most", file=sys.stderr)
    taken = count / took
    row = {
        "work": f"events taken from vCenter with durable marks, a storm of {count}",
        "peer": "what it has to take",
        "ours_value": round(taken, 1),
        "peer_value": WANTED,
        "unit": "events/s",
        "ratio": round(taken / WANTED, 2),
        "goal": 1.0,
    }
    return [row]


def main() -> None:
    out = TOP / "build" / "bench" / "events.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"rows": rows()}, indent=2) + "\n", encoding="utf-8")
    print(out.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
