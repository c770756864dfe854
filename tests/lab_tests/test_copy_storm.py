# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Storms: random sequences of all that can happen to copies of a VM (storm.py), and what they have found, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab_tests import storm, storm_targets
from tests.lab_tests.copy_lab import Lab, lab_of

MIB = 1 << 20


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_of(tmp_path_factory.mktemp("lab")) as found:
        yield found


@pytest.fixture(autouse=True)
def fresh(lab: Lab, tmp_path: Path) -> Iterator[None]:
    lab.vcenter.clear()
    lab.folder = tmp_path
    yield
    lab.vcenter.clear()


@pytest.mark.fault(
    "fifteen random events, more by make storm: kills, faults, reverts, others' snapshots, power, tracking that is reset or lies, targets and ledgers altered",
    where="copy",
    ends="each copy that succeeds is equal to what it read; the last one succeeds, and no snapshot is left",
)
@pytest.mark.parametrize("seed", [2, 124, 152])
def test_storm(tmp_path: Path, seed: int) -> None:
    assert storm.storm(tmp_path / "storm", seed, steps=15).copies > 0


@pytest.mark.fault(
    "SIGKILL where changes are not tracked, then the VM is powered off", where="snapshot", ends="the last copy removes the snapshot: equal"
)
def test_a_snapshot_left_behind_is_removed_by_the_copy_of_a_vm_that_is_off(lab: Lab) -> None:
    lab.fill("one", 24 * MIB)
    process = lab.start("one", budget={"overall": {"rate": 8}}, chunk_size=MIB)
    lab.wait_for(lambda: lab.served() > 2 * MIB, process)
    lab.kill(process)
    assert len(lab.snapshots("one")) == 1
    lab.scribble("one", 1)
    lab.power("one", False)
    try:
        lab.row("one", budget={"overall": {}})
        assert lab.snapshots("one") == [] and lab.equal("one")
        assert lab.row("one")["mode"] == "none"
    finally:
        lab.power("one", True)


@pytest.mark.fault(
    "SIGKILL during an export (NFC), whose lease goes on and locks the snapshot's files",
    where="NFC",
    ends="the next run waits for the lease to end, removes the snapshot: equal",
)
def test_the_lease_of_a_killed_export_is_waited_for(lab: Lab) -> None:
    lab.vcenter.switch("nfc_timeout", 4)
    lab.vcenter.switch("nfc_rate", 4 * MIB)
    process = lab.start("toolless", transport="nfc")
    lab.wait_for(lambda: any(n.startswith("[nfc]") and f["bytes"] for n, f in lab.vcenter.get("/stats")["files"].items()), process)
    lab.kill(process)
    frozen = lab.source_sha("toolless", snapshot=lab.vcenter.snapshots("toolless")[0]["moref"])
    lab.scribble("toolless", 2)
    lab.vcenter.switch("nfc_rate", "")
    lab.row("toolless", transport="nfc")
    assert lab.snapshots("toolless") == [] and lab.sha("toolless") == frozen


@pytest.mark.fault(
    "the VM moves away from a host whose build loses changes (KB 317933)",
    where="tracking",
    ends="what was consolidated there is compared once more, then areas are used: equal",
)
def test_the_host_of_the_last_copy_was_of_a_bad_build(lab: Lab) -> None:
    product = lab.session.call(lambda: lab.ref("large").ref.runtime.host.config.product)
    lab.track("large")
    lab.vcenter.post("/host", name="esx1", version="6.0.0", build="2494585")
    try:
        lab.row("large")
        lab.vcenter.switch("cbt_miss", "every:1", vm="large")
        lab.scribble("large", 3, end=60 * MIB)
    finally:
        lab.vcenter.post("/host", name="esx1", version=product.version, build=product.build)
    row = lab.row("large", outside_sample=0)
    assert row["mode"] == "compare" and "317933" in row["reason"] and lab.equal("large")
    lab.vcenter.clear()
    lab.scribble("large", 4, end=60 * MIB)
    assert lab.row("large")["mode"] == "incremental" and lab.equal("large")


def test_a_target_that_was_deleted_in_the_middle(lab: Lab) -> None:
    """A sparse VMDK that is made anew has the old one's inode: a ledger that believed it would leave holes."""
    lab.track("one")
    lab.fill("one", 24 * MIB)
    disk = {"disk": "2000", "dest": {"path": str(lab.folder / "one.vmdk")}, "format": "monolithicSparse"}
    process = lab.start("one", disks=[disk], budget={"overall": {"rate": 8}}, chunk_size=MIB)
    lab.wait_for(lambda: lab.served() > 6 * MIB, process)
    lab.kill(process)
    (lab.folder / "one.vmdk").unlink()
    lab.row("one", disks=[disk], budget={"overall": {}}, verify="none")
    assert storm_targets.content(lab.folder / "one.vmdk") == lab.source_sha("one")
