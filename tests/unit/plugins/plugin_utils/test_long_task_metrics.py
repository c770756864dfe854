# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Figures for Prometheus, asked for by a variable of the playbook and written by the module that it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from .test_long_task import Site, until

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.clean_up()


def figures(path: Path) -> dict[str, float]:
    return {s.name: s.value for f in parse(path.read_text(encoding="utf-8")) for s in f.samples if s.labels["vm"] == "web01"}


@pytest.mark.fault("The folder for Prometheus' figures cannot be written", "conversion host", "one warning; the task goes on to its end")
def test_figures_are_written_where_the_variable_says(site: Site) -> None:
    folder = site.top / "shown"
    folder.mkdir()
    (site.top / "file").write_text("no folder")
    task = {"ferry.toy.long": site.toy(disks=["Hard disk 1"])}
    bad = {**task, "vars": {"ferry_metrics_dir": str(site.top / "file")}}
    process = site.start(task, bad, vars={"metrics_top": str(site.top), "ferry_metrics_dir": "{{ metrics_top }}/shown"})
    path = folder / "ferry_web01.prom"
    until(lambda: path.exists() and figures(path).get("ferry_disk_size_bytes"), "figures while it runs")
    assert figures(path)["ferry_task_running"] == 1
    site.go()
    output = process.end()
    assert process.returncode == 0, output
    assert figures(path)["ferry_task_running"] == 0 and figures(path)["ferry_task_last_success_timestamp_seconds"] > 0
    assert [p.name for p in folder.iterdir()] == [path.name]
    assert output.count("figures for Prometheus cannot be written: Not a directory") == 1, output
