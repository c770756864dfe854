# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demonstration as a newcomer runs it, from nothing, and once more. On a lab of its own: ``make test-demo``."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(os.environ["FERRY_CHECKOUT"])
OUT = TOP / "build" / "demo"
RECAP = re.compile(r"changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)")


def demo(target: str) -> str:
    """Run a make target in the checkout; what it printed."""
    done = subprocess.run(["make", "--no-print-directory", target], cwd=TOP, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def first() -> str:
    demo("demo-clean")
    assert not OUT.exists()
    return demo("demo")


def test_three_vms_arrive_byte_for_byte(first: str) -> None:
    result = json.loads((OUT / "result.json").read_text())
    assert sorted(vm["name"] for vm in result["vms"]) == ["db01", "legacy01 在庫 管理", "web01"]
    assert [len(vm["disks"]) for vm in sorted(result["vms"], key=lambda vm: vm["name"])] == [3, 1, 1]
    for vm in result["vms"]:
        assert vm["server_id"] and vm["seconds"] > 0
        for disk in vm["disks"]:
            assert disk["source_sha256"] == disk["target_sha256"]
            assert disk["bytes_read"] > 0
            assert vm["strategy"] == "warm" or disk["bytes_written"] + disk["bytes_skipped"] == disk["capacity"]


def test_db01_moves_while_its_guest_writes(first: str) -> None:
    """A full copy, at least three cycles, the cutover; and the writer's log, carried out on the first image, gives the same bytes."""
    vm = next(vm for vm in json.loads((OUT / "result.json").read_text())["vms"] if vm["name"] == "db01")
    assert [c["mode"] for c in vm["cycles"]][:4] == ["full", "incremental", "incremental", "incremental"]
    assert all(c["changed_bytes"] > 0 for c in vm["cycles"][1:])
    assert vm["writes"] > 100 and all(d["replayed_sha256"] == d["target_sha256"] for d in vm["disks"])
    assert vm["downtime"]["seconds"] <= vm["downtime"]["budget"] and vm["downtime"]["outside_checked"] > 0
    assert re.search(r"db01: cycle 4, incremental: .* changed, churn .*; predicted downtime [\d.]+ s of 00:01:00", first), first[-6000:]
    assert re.search(r"db01: [4-9] cycles while it ran; away for [\d.]+ s", first)


def test_it_shows_what_happens_and_where_to_look(first: str) -> None:
    for vm, disk in (("web01", 1), ("db01", 3), ("legacy01 在庫 管理", 1)):
        assert re.search(rf"{vm} · Hard disk {disk} +done +[\d.]+ [KMG]iB", first), first[-4000:]
    assert "3 VMs: 3 migrated" in first and "make demo-clean" in first
    page = (OUT / "report.html").read_text()
    assert "legacy01 在庫 管理" in page and "verified in full" in page


def test_the_second_run_changes_nothing(first: str) -> None:
    again = demo("demo")
    assert [m.groups() for m in RECAP.finditer(again)] == [("0", "0", "0")] * 3
    assert json.loads((OUT / "result.json").read_text())["equal"] is True


def test_it_cleans_up_after_itself(first: str) -> None:
    demo("demo-clean")
    assert not OUT.exists()
