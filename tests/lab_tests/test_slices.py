# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Slices of a wave on two nodes that share a conversion host: ansible-runner's transmit, worker and process, as AWX uses them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.budget_settings import save

from .processes import copying
from .slices_site import SSHD, TOOLS, Mesh, ssh_host
from .vcenter_lab import running
from .warm_site import KEYS, WarmSite, write_model

NAMES = ("first", "second", "third", "fourth", "dying", "twice")
pytestmark = pytest.mark.skipif(SSHD is None, reason="no sshd (openssh-server) on this machine")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmSite]:
    folder = tmp_path_factory.mktemp("slices")
    with running(folder, write_model(folder, NAMES)) as vcenter:
        yield WarmSite(folder, vcenter)


@pytest.fixture
def mesh(site: WarmSite, tmp_path: Path) -> Iterator[Mesh]:
    site.ask("/stats", "DELETE")
    stage = Path(os.environ["ANSIBLE_COLLECTIONS_PATH"].split(os.pathsep)[0])
    with ssh_host(tmp_path / "conversion") as conversion:
        made = Mesh(tmp_path, site.vcenter, conversion, stage)
        try:
            yield made
        finally:
            made.end()


def until(what: Callable[[], Any], name: str) -> Any:
    end = time.monotonic() + 300
    while not (found := what()):
        assert time.monotonic() < end, f"not seen: {name}"
        time.sleep(0.05)
    return found


def assert_equal(site: WarmSite, mesh: Mesh, *vms: str) -> None:
    for vm in vms:
        for index, key in enumerate(KEYS):
            found = (mesh.folder / "targets" / f"{vm}-{index}.raw").read_bytes()
            assert hashlib.sha256(found).hexdigest() == site.sha256(vm, key), (vm, key)
        assert site.snapshots(vm) == []


def merged(mesh: Mesh) -> dict[str, Any]:
    """The report of all slices, fetched from the conversion host, as a user makes it."""
    inventory = mesh.folder / "merge.yml"
    inventory.write_text(json.dumps({"conversion_hosts": {"hosts": {"conv": dict(mesh.conversion)}}}))
    report = mesh.folder / "report.html"
    given = {
        "ferry_report": str(report),
        "ferry_report_json": f"{report}.json",
        "ferry_report_share": str(mesh.folder / "share"),
        "ansible_python_interpreter": sys.executable,
    }
    command = [str(TOOLS / "ansible-playbook"), "ferry.vmware.report_merge", "-i", str(inventory), "-e", json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=0" in done.stdout
    found: dict[str, Any] = json.loads(report.with_name("report.html.json").read_text())
    page = report.read_text()
    assert all(vm["name"] in page for vm in found["vms"])
    return found


def copies(mesh: Mesh) -> list[int]:
    """The processes that copy on the conversion host of this mesh."""
    return copying(f"HOME={mesh.folder / 'conversion' / 'home'}")


@pytest.mark.long
def test_slices_give_what_one_run_gives(site: WarmSite, mesh: Mesh) -> None:
    """Four VMs in two slices on two nodes, at once: equal disks, one budget, one report; and the wave in one run finds nothing to do."""
    vms = ("first", "second", "third", "fourth")
    hosts = mesh.hosts(vms, KEYS)
    rate = 4
    given: dict[str, Any] = {"ferry_report_share": str(mesh.folder / "share"), "ferry_shutdown_seconds": 1}
    given |= {"ferry_read_budget": {"overall": {"rate": rate}}, "cutover_refresh": False, "ferry_verify": "full"}
    began = time.monotonic()
    jobs = [mesh.start(node, "cutover", hosts, number, 2, **given) for number, node in enumerate("ab", 1)]
    for job in jobs:
        code, said = job.wait()
        assert code == 0, said[-4000:]
    took = time.monotonic() - began
    assert_equal(site, mesh, *vms)
    assert mesh.logins() == 2, "one for each slice"
    report = merged(mesh)
    assert {vm["name"]: vm["state"] for vm in report["vms"]} == dict.fromkeys(vms, "migrated")
    # Both were under one budget: together they took no more than it allows.
    assert report["totals"]["bytes_read"] <= rate * 1e6 * took
    again = mesh.start("c", "cutover", hosts, **given | {"ferry_read_budget": {"overall": None}})
    code, said = again.wait()
    assert code == 0 and said.count("changed=0") == len(vms), said[-4000:]
    report = merged(mesh)
    assert {vm["name"]: vm["state"] for vm in report["vms"]} == dict.fromkeys(vms, "migrated"), "who found it done does not hide who did it"


@pytest.mark.fault(
    "SIGKILL of a node with its slice, which runs again on another one while the copy goes on",
    where="controller",
    ends="the second node follows the copy that is alive; one copy, equal; the merged report has it",
)
def test_a_node_dies_and_its_slice_runs_elsewhere(site: WarmSite, mesh: Mesh) -> None:
    hosts = mesh.hosts(("dying",), KEYS)
    given: dict[str, Any] = {"ferry_report_share": str(mesh.folder / "share"), "ferry_downtime_budget": 86400}
    first = mesh.start("a", "precopy", hosts, **given, ferry_read_budget={"overall": {"rate": 0}})
    until(lambda: list(mesh.ledger.glob("ledgers/*.sqlite")) and copies(mesh), "a copy on the conversion host, and its ledger")
    one = set(copies(mesh))
    first.kill()
    assert one & set(copies(mesh)), "the node is gone, the copy is not"
    second = mesh.start("b", "precopy", hosts, **given)
    followed = "goes on with the run that is still alive"
    # On a machine so slow that the second node comes after the copy's lease, the copy has stopped by itself.
    until(lambda: followed in second.said() or not one & set(copies(mesh)), "the second node at the copy, or the end of its lease")
    save(str(mesh.ledger), {"overall": None})
    code, said = second.wait()
    assert code == 0, said[-4000:]
    assert_equal(site, mesh, "dying")
    assert mesh.logins() == 2, "one for each node"
    assert [(vm["name"], vm["state"]) for vm in merged(mesh)["vms"]] == [("dying", "precopied")]


@pytest.mark.long
@pytest.mark.fault(
    "AWX calls a node dead that goes on, and starts its slice again",
    where="controller",
    ends="one of them writes, the other follows it or is told who does; equal",
)
def test_two_nodes_with_the_same_slice(site: WarmSite, mesh: Mesh) -> None:
    hosts = mesh.hosts(("twice",), KEYS)
    given: dict[str, Any] = {"ferry_downtime_budget": 86400, "ferry_read_budget": {"overall": {"rate": 0.2}}}
    jobs = [mesh.start(node, "precopy", hosts, **given) for node in "ab"]
    ends = [job.wait() for job in jobs]
    assert 0 in [code for code, _said in ends], ends[0][1][-3000:] + ends[1][1][-3000:]
    for code, said in ends:
        assert code == 0 or "lease" in said or "took it" in said, said[-4000:]
    last, said = mesh.start("c", "precopy", hosts, **given | {"ferry_read_budget": {"overall": None}}).wait()
    assert last == 0, said[-3000:]
    assert_equal(site, mesh, "twice")
