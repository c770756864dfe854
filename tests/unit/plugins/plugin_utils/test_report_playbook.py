# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report by real runs of ansible-playbook with a toy module: written while it runs, killed, gone on with, and where it cannot be."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .test_long_task import Playbook, Site, until

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.clean_up()
    shutil.rmtree(tmp_path, ignore_errors=True)


def start(site: Site, report: Path, **variables: Any) -> Playbook:
    """A wave of two VMs, as the roles do it: phases, a long task, a result each, and the report at the end."""
    result = {
        "name": "{{ inventory_hostname }}",
        "state": "migrated",
        "seconds": 3,
        "disks": [{"label": "Hard disk 1", "capacity": 44000000}],
    }
    tasks: list[dict[str, Any]] = [
        {"ferry.vmware.migration_phase": {"phase": "prepare"}},
        {"ferry.toy.long": {**site.toy(), "progress_interval": 0}, "delegate_to": "web01"},
        {"ferry.vmware.migration_phase": {"phase": "land"}},
        {"ansible.builtin.set_fact": {"migrate_result": result}},
        {"ferry.vmware.migration_phase": {"result": "{{ migrate_result }}"}},
        {
            "ferry.vmware.migration_report": {
                "results": "{{ ansible_play_hosts_all | map('extract', hostvars, 'migrate_result') | list }}",
                "title": "Wave 3",
                "html": "{{ ferry_report }}",
                "json": "{{ ferry_report }}.json",
            },
            "run_once": True,
        },
    ]
    given = {"ferry_report": str(report), "ferry_report_interval": 0.3, **variables}
    return site.start(*tasks, hosts="web01:db01", vars=given)


def files(report: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(path.read_text()) for path in Path(f"{report}.d").glob("*.json")]
    return {row["host"]: row for row in rows}


def under_way(site: Site, report: Path) -> None:
    until(lambda: len(site.log("begin")) == 2 and site.running(), "both under way")
    until(lambda: report.exists() and report.read_text().count("Hard disk 1") >= 2, "both on the page")


def test_the_page_is_written_while_it_runs_and_whole_at_the_end(place: Site) -> None:
    report = place.top / "reports" / "wave3.html"
    process = start(place, report)
    under_way(place, report)
    page = report.read_text()
    assert "location.reload()" in page and "2 running" in page and "svg" in page
    place.go()
    output = process.end()
    assert process.returncode == 0, output
    assert "[WARNING]" not in output
    page = report.read_text()
    assert "<script" not in page and "2 migrated" in page and "Wave 3" in page
    told = json.loads(Path(f"{report}.json").read_text())
    assert [[p["name"] for p in vm["phases"]] for vm in told["vms"]] == [["prepare", "copy", "land"]] * 2
    assert all(row["ended"] and row["samples"]["moved"] for row in files(report).values())
    assert not [name for name in os.listdir(f"{report}.d") if name.startswith(".report-")]
    again = start(place, report, ferry_report_language="ja")
    assert again.end() and again.returncode == 0
    assert "before" in report.read_text() and len(files(report)["web01"]["earlier"]) == 1


@pytest.mark.fault(
    "ansible-playbook is killed (SIGKILL) while its report is written",
    "controller",
    "the next run's page tells of the attempt that was cut",
)
def test_a_killed_run_is_told_by_the_next(place: Site) -> None:
    report = place.top / "wave3.html"
    first = start(place, report)
    under_way(place, report)
    first.send_signal(signal.SIGKILL)
    first.wait()
    until(lambda: len(place.log("interrupted")) == 2, "the end of both copies")
    second = start(place, report)
    place.go()
    output = second.end()
    assert second.returncode == 0, output
    page = report.read_text()
    assert "2 migrated" in page and page.count(": interrupted") == 2
    for row in files(report).values():
        assert row["earlier"][0]["ended"] is None and [p["name"] for p in row["earlier"][0]["phases"]] == ["prepare", "copy"]


@pytest.mark.fault("the folder of the report cannot be written", "controller", "one warning says so, and the machines are migrated")
def test_no_report_is_no_failure(place: Site) -> None:
    (place.top / "reports").write_text("a file where a folder should be")
    process = start(place, place.top / "reports" / "wave3.html")
    place.go()
    output = process.end()
    assert process.returncode == 0, output
    said = re.sub(r"\s+", " ", output)
    assert said.count("The live report") == 1 and "goes on without it" in said
    assert "could not be written" in said
