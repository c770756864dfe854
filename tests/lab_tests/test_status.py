# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is seen of a migration while it runs and afterwards: its state, its figures for Prometheus, and the totals for AWX."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from ansible_collections.ferry.vmware.plugins.module_utils.disk import budget
from ansible_collections.ferry.vmware.plugins.module_utils.disk.metrics import file_name
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import status

from .test_migrate import UUID, Site, write_model
from .vcenter_lab import MIB, Client, running

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("status")
    with contextlib.ExitStack() as stack:
        vcenter = stack.enter_context(running(folder, write_model(folder)))
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("HOME", str(folder / "home"))  # status files of others are there, too
        (folder / "home").mkdir()
        cloud = stack.enter_context(openstack.connect(cloud="lab"))
        made = Site(folder, vcenter, Client(vcenter), cloud)
        yield made
        made.client.close()
        made.remove_all()


def figures(path: Path) -> dict[str, float]:
    return {s.name: s.value for f in parse(path.read_text(encoding="utf-8")) for s in f.samples}


def _copies(now: dict[str, float]) -> bool:
    """Whether the disk is on its way; before, what lies behind it on the volume is made zero."""
    return now.get("ferry_disk_size_bytes") == 96 * MIB and now["ferry_disk_done_bytes"] > MIB


def custom_stats(out: str) -> dict[str, Any]:
    """What set_stats kept, as the default callback shows it."""
    line = next(line for line in out.splitlines() if line.strip().startswith("RUN: "))
    stats: dict[str, Any] = json.loads(line.partition("RUN: ")[2])["ferry_result"]
    return stats


def state(site: Site) -> dict[str, Any]:
    found = status.read(str(site.folder / "ferry"))
    assert found["problems"] == [] and found["tasks"] == []
    return dict(found["migrations"][0]) if found["migrations"] else {"state": "none", "phase": "", "bytes_done": 0}


@pytest.mark.fault("The playbook is killed while a disk is copied", "controller", "status shows it as interrupted, and the figures stay")
def test_a_migration_is_seen_from_its_first_byte_to_its_end(site: Site) -> None:
    shown = site.folder / "metrics"
    shown.mkdir()
    (site.folder / "ferry").mkdir()
    budget.save(str(site.folder / "ferry"), {"overall": {"rate": 8.0}})
    variables = {"ferry_metrics_dir": str(shown)}
    command = site.command("killed", **variables)
    with subprocess.Popen(command, env=site.environment(), stdout=subprocess.DEVNULL, start_new_session=True) as play:
        end = time.monotonic() + site.patience
        path = shown / file_name("killed")
        while not (path.exists() and _copies(figures(path))):
            assert play.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        now = state(site)
        assert (now["state"], now["phase"], now["vm"], now["source"]) == ("running", "copy", "killed", UUID.format(2))
        assert 0 < now["bytes_done"] < now["bytes_total"] == 96 * MIB and now["disks"][0]["target"].startswith("volume:")
        assert figures(path)["ferry_task_running"] == 1 and figures(path)["ferry_disk_size_bytes"] == 96 * MIB
        os.killpg(play.pid, signal.SIGKILL)
    pid = now["disks"][0]["pid"]
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]:
        time.sleep(0.05)
    left = state(site)
    assert left["state"] == "interrupted" and "goes on inside the disk" in left["next_command"] and left["bytes_done"] > 0
    assert figures(path)["ferry_task_running"] == 1  # whoever is killed says nothing: the time of the last update tells

    budget.save(str(site.folder / "ferry"), {"overall": None})
    run = site.migrate("killed", env={"ANSIBLE_SHOW_CUSTOM_STATS": "true"}, **variables)
    assert run.code == 0, run.out[-5000:]
    done = state(site)
    assert (done["state"], done["bytes_done"], done["error"]) == ("copied", 96 * MIB, "")
    after = figures(path)
    assert after["ferry_task_running"] == 0 and after["ferry_task_last_success_timestamp_seconds"] > 0
    assert after["ferry_task_errors_total"] == 0
    stats = custom_stats(run.out)
    assert stats["wave"] == "wave" and stats["failed_vms"] == []
    assert stats["totals"]["vms"] == 1 and stats["totals"]["capacity"] == 96 * MIB and stats["totals"]["states"]["migrated"] == 1
