# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Precopying and cutting over VMs whose guests write all the while: the playbooks ferry.vmware.precopy and ferry.vmware.cutover."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from .vcenter_lab import Client, running
from .warm_site import KEYS, WarmSite, write_model

NAMES = ("gentle 在庫", "idle", "hasty", "killed", "timed", "planned", "missing", "shot", "started")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmSite]:
    folder = tmp_path_factory.mktemp("warm")
    with running(folder, write_model(folder, NAMES)) as vcenter:
        yield WarmSite(folder, vcenter)


def until(what: Callable[[], Any], name: str, process: subprocess.Popen[str] | None = None) -> None:
    """Wait for something to be seen while a process is alive."""
    end = time.monotonic() + 120
    while not what():
        assert process is None or process.poll() is None, process.communicate(timeout=5)[0][-3000:]
        assert time.monotonic() < end, f"not seen: {name}"
        time.sleep(0.02)


def assert_equal(site: WarmSite, vm: str, log: Path | None = None) -> None:
    """Each target is what the guest had at last: by the lab's digest of the disk, and by carrying out the guest's log on the old image."""
    for index, key in enumerate(KEYS):
        found = site.target(vm, index).read_bytes()
        assert hashlib.sha256(found).hexdigest() == site.sha256(vm, key), (vm, key)
        if log is not None:
            assert found == site.expected(index, log), (vm, key)


@pytest.mark.long  # make test has the same, into volumes and to a server, in test_warm_migrate
def test_cycles_until_it_fits_then_the_cutover(site: WarmSite) -> None:
    vm = "gentle 在庫"
    with site.writer(vm, rate=2) as log:
        run = site.run("precopy", vm, ferry_precopy_min_cycles=2)
        assert run.code == 0, run.out[-5000:]
        precopy = run.facts["precopy"]
        assert precopy["outcome"] == "fits" and [c["mode"] for c in precopy["cycles"]] == ["full", "incremental", "incremental"]
        last = precopy["cycles"][-1]
        assert 0 < last["bytes_read"] <= 1.1 * last["changed_bytes"] and last["churn"] > 0
        assert len(run.cycle_lines) == 3 and "predicted downtime" in run.cycle_lines[-1] and "of 30.0 s" in run.cycle_lines[-1]
        assert site.running(vm) and site.snapshots(vm) == []
        cut = site.run("cutover", vm)
    assert cut.code == 0, cut.out[-5000:]
    assert_equal(site, vm, log)
    result = cut.facts["cutover"]
    assert [d["mode"] for d in result["disks"]] == ["incremental", "incremental"]
    assert result["outside_checked"] > 0 and result["outside_wrong"] == 0
    assert result["downtime"] <= 30
    assert not site.running(vm) and site.snapshots(vm) == []


@pytest.mark.long
def test_a_guest_that_writes_nothing(site: WarmSite) -> None:
    """Nothing is read after the first cycle; the second run of the cutover changes nothing."""
    run = site.run("precopy", "idle", ferry_precopy_min_cycles=2)
    assert run.code == 0, run.out[-5000:]
    cycles = run.facts["precopy"]["cycles"]
    assert [(c["changed_bytes"], c["bytes_read"]) for c in cycles[1:]] == [(0, 0), (0, 0)]
    cut = site.run("cutover", "idle", cutover_refresh=False)
    assert cut.code == 0, cut.out[-5000:]
    assert_equal(site, "idle")
    again = site.run("cutover", "idle")
    assert again.code == 0 and set(again.changed.values()) == {0}, again.out[-3000:]


@pytest.mark.long
@pytest.mark.fault(
    "the guest writes faster than may be read",
    where="copy",
    ends="said with the figures and what would do; the VM runs on, no snapshot is left",
)
def test_it_says_plainly_that_it_will_not_converge(site: WarmSite) -> None:
    """More is written than may be read. The VM runs on, no snapshot is left, and what would do is said."""
    budget = {"overall": {"rate": 8}}
    with site.writer("hasty", rate=20):
        run = site.run(
            "precopy",
            "hasty",
            ferry_read_budget=budget,
            ferry_ledger=str(site.folder / "slow"),
            ferry_downtime_budget=6,
            precopy_diverging_after=1,
        )
        assert site.running("hasty") and site.snapshots("hasty") == []
    assert run.code != 0
    said = next(line for line in run.out.splitlines() if "will not converge at this churn" in line)
    assert "the disks change at" in said and "What would do: a budget of" in said and "6 s are allowed" in said, said
    assert "Next: the same playbook" in run.out


@pytest.mark.fault(
    "SIGKILL of playbook and copy in the middle of a delta",
    where="copy",
    ends="the next run removes the snapshot and goes on: equal at the cutover",
)
def test_killed_in_the_middle_of_a_cycle_it_goes_on(site: WarmSite) -> None:
    """SIGKILL to the playbook and to the copy while a delta is read: the next run removes the snapshot and skips nothing."""
    vm, slow = "killed", {"ferry_ledger": str(site.folder / "killed-ledger")}
    with site.writer(vm, rate=3) as log:
        first = site.run("precopy", vm, **slow)
        assert first.code == 0, first.out[-5000:]
        before = site.ask("/guest", vm=vm)["count"]
        until(lambda: site.ask("/guest", vm=vm)["count"] > before + 100, "more writes")
        process = site.start("precopy", vm, **slow, ferry_read_budget={"overall": {"rate": 1}})
        try:
            until(lambda: site.snapshots(vm) and site.copying(), "a copy from a snapshot", process)
        finally:
            for pid in site.copying():
                os.kill(pid, signal.SIGKILL)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=30)
        until(lambda: not site.copying(), "the end of the copy")
        assert len(site.snapshots(vm)) == 1, "the killed run left its snapshot"
        again = site.run("precopy", vm, **slow, ferry_read_budget={"overall": None})
        assert again.code == 0, again.out[-5000:]
        assert again.facts["precopy"]["cycles"][0]["mode"] == "incremental"
        assert "removed what a killed run had left" in again.out and site.snapshots(vm) == []
        cut = site.run("cutover", vm, **slow)
    assert cut.code == 0, cut.out[-5000:]
    assert_equal(site, vm, log)


@pytest.mark.long
def test_kept_up_to_date_until_the_set_time(site: WarmSite) -> None:
    at = time.time() + 20
    with site.writer("timed", rate=1) as log:
        cut = site.run("cutover", "timed", ferry_cutover_at=datetime.fromtimestamp(at, timezone.utc).isoformat(), ferry_precopy_interval=2)
    assert cut.code == 0, cut.out[-5000:]
    assert_equal(site, "timed", log)
    assert cut.facts["precopy"]["outcome"] == "time" and len(cut.facts["precopy"]["cycles"]) >= 2
    assert cut.facts["cutover"]["began"] >= at


def test_the_plan_touches_nothing(site: WarmSite) -> None:
    plan = site.run("precopy", "planned", ("--check",))
    assert plan.code == 0, plan.out[-5000:]
    assert re.search(r"Hard disk 2: full copy, at most [\d.]+ MiB to read", plan.out) and "a downtime of at most 30.0 s" in plan.out
    plan = site.run("cutover", "planned", ("--check",), ferry_cutover="in_budget")
    assert plan.code == 0, plan.out[-5000:]
    assert "no cutover where more than 30 s of downtime are predicted" in plan.out and "1 % of the disks compared" in plan.out
    assert site.running("planned") and site.snapshots("planned") == [] and not site.target("planned", 0).exists()


@pytest.mark.long
def test_no_cutover_where_it_would_overrun(site: WarmSite) -> None:
    run = site.run("cutover", "planned", ferry_cutover="in_budget", ferry_downtime_budget=1)
    assert run.code != 0 and site.running("planned")
    assert "1 s are allowed" in run.out and "pass without a byte copied" in run.out, run.out[-3000:]


@pytest.mark.long
@pytest.mark.fault(
    "tracking misses every second area, until the cutover",
    where="tracking",
    ends="the sample outside finds it, everything is compared: equal",
)
def test_changes_that_tracking_missed_are_found_at_the_cutover_and_mended(site: WarmSite) -> None:
    """Every second area is left out of the answers: reading back cannot see it, the sample outside does."""
    vm = "missing"
    site.ask("/switches", "POST", {"name": "cbt_miss", "vm": vm, "value": "every:2"})
    with site.writer(vm, rate=3) as log:
        run = site.run("precopy", vm)
        assert run.code == 0, run.out[-5000:]
        cut = site.run("cutover", vm, ferry_outside_sample=50, ferry_cutover_refresh=False)
    assert cut.code == 0, cut.out[-5000:]
    result = cut.facts["cutover"]
    assert result["outside_wrong"] > 0 and f"{result['outside_wrong']} differed" in cut.out
    assert_equal(site, vm, log)


@pytest.mark.long
@pytest.mark.fault("SIGKILL of the copy alone, in a cycle", where="copy", ends="said, and the cycle is made again: equal at the cutover")
def test_a_cycle_that_fails_is_tried_again(site: WarmSite) -> None:
    """SIGKILL to the copy alone, as the kernel does when memory is short: the loop says so and goes on."""
    vm = "shot"
    with site.writer(vm, rate=2) as log:
        process = site.start("precopy", vm, ferry_precopy_min_cycles=3, ferry_precopy_interval=1)
        said: list[str] = []
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                said.append(line)
                if ": cycle 2, incremental" in line:
                    until(lambda: site.snapshots(vm) and site.copying(), "the next cycle's copy")
                    for pid in site.copying():
                        os.kill(pid, signal.SIGKILL)
        assert process.wait(60) == 0, "".join(said)[-5000:]
        assert "it is tried again" in "".join(said) and ": cycle 4, incremental" in "".join(said)
        assert site.snapshots(vm) == []
        cut = site.run("cutover", vm)
    assert cut.code == 0, cut.out[-5000:]
    assert_equal(site, vm, log)


@pytest.mark.long
@pytest.mark.fault(
    "the VM is powered on while its last delta is copied",
    where="vCenter",
    ends="the copy is refused as the last one; the next cutover is equal",
)
def test_a_machine_that_somebody_starts_during_the_cutover(site: WarmSite) -> None:
    """The last delta comes from a snapshot, so it is not torn; but it is not the last one, and nothing is made of it."""
    vm, slow = "started", {"ferry_ledger": str(site.folder / "started-ledger"), "ferry_cutover_refresh": False}
    with site.writer(vm, rate=6):
        run = site.run("precopy", vm, **slow)
        assert run.code == 0, run.out[-5000:]
        before = site.ask("/guest", vm=vm)["count"]
        until(lambda: site.ask("/guest", vm=vm)["count"] > before + 150, "more writes")
        process = site.start("cutover", vm, **slow, ferry_read_budget={"overall": {"rate": 3}})
        until(lambda: not site.running(vm) and site.copying() and site.snapshots(vm), "the last delta", process)
    client = Client(site.vcenter)
    client.wait(client.vm(vm).PowerOnVM_Task())
    client.close()
    said = process.communicate(timeout=120)[0]
    assert process.returncode != 0 and f"{vm} was powered on while its last delta was copied" in said, said[-3000:]
    assert site.running(vm) and site.snapshots(vm) == []
    again = site.run("cutover", vm, **slow, ferry_read_budget={"overall": None})
    assert again.code == 0, again.out[-5000:]
    assert_equal(site, vm)
