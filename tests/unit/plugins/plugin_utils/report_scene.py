# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waves as the report's files would tell of them, of any size and at any moment; times are seconds since the epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.ferry.vmware.plugins.plugin_utils.report import dashboard, history, live

GIB = 1 << 30
BEGAN = 1_780_000_000.0
RUN = "controller-4711-1"
EVIL = "<script>alert('x')</script>&\x1b[2J\"onload=\"x"


def attempt(
    phases: str, *, run: str = RUN, began: float = BEGAN, going: bool = False, failed: bool = False, rate: float = 2e8
) -> history.Attempt:
    """C(prepare 5 copy 300 verify 100): what it did, each for so many seconds. Its last phase lasts where C(going).

    :param rate: bytes per second of its copies.
    """
    words = phases.split()
    out = history.Attempt(run, began, began)
    at = began
    for name, seconds in zip(words[::2], map(float, words[1::2]), strict=True):
        if name == "idle":
            at += seconds
            continue
        out.begin(name, at)
        if name in ("copy", "verify", "precopy", "cutover"):
            kind = "verified" if name == "verify" else "moved"
            for n in range(8):  # a rate that is not the same all the time
                part = (at + seconds * n / 8 - began, at + seconds * (n + 1) / 8 - began)
                out.samples.add(kind, rate * (0.6 + 0.1 * ((n * 5) % 8)) * seconds / 8, *part)
        at += seconds
        out.close(at)
    if going or failed:
        out.phases[-1].ended = None
        out.close(at, failed) if failed else None
    out.touched = at
    return out


def result(name: str, state: str = "migrated", disks: int = 2, **facts: Any) -> dict[str, Any]:
    rows = [
        {
            "label": f"Hard disk {n + 1}",
            "capacity": 40 * GIB,
            "bytes_read": 12 * GIB,
            "bytes_written": 11 * GIB,
            "bytes_skipped": 27 * GIB,
            "bytes_resumed": 2 * GIB if n else 0,
            "seconds": 61.0,
            "digest": "xxh3-128:" + "0123456789abcdef" * 2,
            "volume_id": "9b1d6a30-1111-2222-3333-444455556666",
            "verified": "full",
            "repaired": n,
            "transport": "https",
        }
        for n in range(disks)
    ]
    server = {"id": "1f0c2d3e-1111-2222-3333-444455556666", "name": name}
    uuid = "50112233-4455-6677-8899-aabbccddeeff"
    row = {"name": name, "state": state, "source_uuid": uuid, "server": server, "seconds": 412.0, "disks": rows, "drift": [], "errors": []}
    return {**row, **facts}


def warm(name: str, cycles: int = 7) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [{"cycle": 1, "mode": "full", "bytes_written": 12 * GIB, "seconds": 64.0, "throughput": 2.1e8}]
    for n in range(2, cycles + 1):
        size = int(900e6 / n)
        facts = {"changed_bytes": size, "bytes_written": size, "churn": 4e6, "throughput": 1.9e8, "seconds": 30.0 / n}
        rows.append({"cycle": n, "mode": "incremental", **facts, "predicted_downtime": 30 + 200 / n})
    away = {"seconds": 58.3, "shutdown": 21.0, "copy": 9.1, "predicted": 60.5, "budget": 90, "changed_bytes": 41 << 20}
    return result(name, cycles=rows, downtime={**away, "outside_checked": 410, "outside_wrong": 0})


CONCERNS = [
    {
        "id": "vmware.snapshot.detected",
        "category": "warning",
        "label": "Snapshots",
        "assessment": "It has 3 snapshots; the oldest is 41 days old.",
        "advice": "Remove them before the window.",
    },
    {
        "id": "ferry.datastore.headroom",
        "category": "information",
        "label": "Datastore nearly full",
        "assessment": "datastore1 has 8 % left.",
        "advice": "Free some room.",
        "disk": "Hard disk 1",
    },
]


def put(folder: Path, host: str, now: history.Attempt, row: dict[str, Any] | None = None, *earlier: history.Attempt) -> None:
    """Write a VM's file as the action plugins do."""
    if row is not None:
        now.result, now.ended = row, now.touched
    known = history.History(host, now, row["name"] if row else "", list(earlier))
    Path(live.file_of(str(folder), host)).write_text(history.dump(known))


def wave(page: Path, over: bool = False) -> dashboard.Plan:
    """A wave in which everything occurs once; with C(over) it has ended."""
    folder = Path(history.folder_of(str(page)))
    folder.mkdir(parents=True, exist_ok=True)
    put(folder, "web01", attempt("prepare 6 copy 310 verify 60 land 22 ready 12 note 1"), result("web01", downtime={"seconds": 401.0}))
    put(folder, "web02", attempt("prepare 5 copy 420 verify 72 land 30 ready 20 note 1"), result("web02", concerns=CONCERNS))
    last = attempt("prepare 4 precopy 500 idle 60 cutover 30 land 20 ready 15 note 1")
    put(folder, "db01", last, warm("db01"), attempt("prepare 3 precopy 200", run="controller-99-1", began=BEGAN - 3000, going=True))
    error = {
        "message": "Copy the disks: The datastore has closed the connection.",
        "disk": "Hard disk 2",
        "step": "read",
        "said": "HTTP 503 Service Unavailable",
        "left": "the source, powered off and off the network; to go back: ansible-playbook ferry.vmware.rollback",
        "next_command": "the same command again; it goes on inside the disk",
    }
    put(folder, "mail01", attempt("prepare 5 copy 200", failed=True), result("mail01", "failed", disks=0, server=None, errors=[error]))
    going = attempt("prepare 8 copy 560", going=True)
    facts = {
        "done": 21 * GIB,
        "total": 40 * GIB,
        "skipped": 4 * GIB,
        "rate": 2.1e8,
        "left": 96.0,
        "seconds": 90.0,
        "state": "running",
        "why": "",
    }
    going.disks = {"Hard disk 1": {"phase": "copy", **facts}, "Hard disk 2": {"phase": "copy", **facts, "done": 35 * GIB, "left": 31.0}}
    if not over:
        put(folder, "ファイルサーバー01", going)
    cut = attempt("prepare 4 copy 130", run="controller-99-1", began=BEGAN - 3000, going=True)
    if not over:
        put(folder, "erp01", cut)
    hosts = ["web01", "web02", "db01", "mail01", "ファイルサーバー01", "erp01", "file02"]
    return dashboard.Plan("Wave 3, databases and mail", RUN, hosts[:4] if over else hosts)


def many(page: Path, vms: int, over: bool = True) -> dashboard.Plan:
    """A wave of so many VMs with 2 disks each, one in ten moved warm, in 25 forks."""
    folder = Path(history.folder_of(str(page)))
    folder.mkdir(parents=True, exist_ok=True)
    hosts = []
    for n in range(vms):
        host = f"app-server-{n:04d}"
        began = BEGAN + (n // 25) * 500 + (n * 37) % 100
        row = warm(host, 40) if n % 10 == 0 else result(host)
        row["concerns"] = CONCERNS
        kind = (
            "prepare 6 precopy 300 cutover 30 land 40 ready 10 note 1"
            if n % 10 == 0
            else "prepare 6 copy 300 verify 60 land 40 ready 10 note 1"
        )
        put(folder, host, attempt(kind, began=began), row if over or n < vms * 0.7 else None)
        hosts.append(host)
    return dashboard.Plan("Wave of many", RUN, hosts)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content
