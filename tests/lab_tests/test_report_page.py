# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a machine that is precopied in the evening and cut over at night, as the playbooks write it while they run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .vcenter_lab import running
from .warm_site import WarmSite, write_model

VM = "db01 在庫"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmSite]:
    folder = tmp_path_factory.mktemp("report")
    with running(folder, write_model(folder, (VM,))) as vcenter:
        yield WarmSite(folder, vcenter)


def history(report: Path) -> dict[str, Any]:
    (path,) = Path(f"{report}.d").glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.long
def test_one_page_from_the_first_cycle_to_the_end(site: WarmSite) -> None:
    report, told = site.folder / "wave.html", site.folder / "wave.json"
    wanted = {"ferry_report": str(report), "ferry_report_json": str(told), "ferry_report_interval": 0.2, "ferry_report_title": "Wave 7"}
    with site.writer(VM, rate=2):
        process = site.start("precopy", VM, ferry_precopy_min_cycles=2, **wanted)
        seen = ""
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            page = report.read_text() if report.exists() else ""
            if "location.reload()" in page and "Copied while it ran" in page:
                seen = page
            time.sleep(0.05)  # between two looks at a page that is being written
        out = process.communicate(timeout=60)[0]
        assert process.returncode == 0, out[-5000:]
        assert "1 running" in seen and VM in seen and "Wave 7" in seen, "the cycles are on the page before the end"
        page = report.read_text()
        assert "location.reload()" not in page and "1 precopied" in page
        assert [p["name"] for p in history(report)["phases"]] == ["precopy"]
        cut = site.run("cutover", VM, **wanted)
    assert cut.code == 0, cut.out[-5000:]
    page = report.read_text()
    assert "1 migrated" in page and "away for" in page and "Copied while it ran" in page
    now = history(report)
    assert [p["name"] for p in now["phases"]] == ["precopy", "cutover"] and len(now["earlier"]) == 1
    assert sum(now["earlier"][0]["samples"]["moved"]) > 0 and sum(now["samples"]["verified"]) > 0
    (row,) = json.loads(told.read_text())["vms"]
    phase = row["phases"][-1]
    assert phase["name"] == "cutover" and phase["ended"] - phase["began"] <= row["downtime"]["seconds"] + 10
