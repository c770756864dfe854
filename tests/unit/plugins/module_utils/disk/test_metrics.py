# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Figures for Prometheus, read with Prometheus' own parser."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from ansible_collections.ferry.vmware.plugins.module_utils.disk import metrics
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.metrics import Metrics, file_name, render
from ansible_collections.ferry.vmware.plugins.module_utils.disk.progress import Progress, progress_from

Samples = dict[tuple[str, str, str], float]


def status(name: str = "db01", label: str = "Hard disk 1", **disk: Any) -> dict[str, Any]:
    figures = {"phase": "copy", "done": 5, "total": 10, "skipped": 2, "rate": 1.5, "left": 3.0, **disk}
    return {"name": name, "state": "running", "unit": "bytes", "time": 1700000000.25, "disks": {label: figures}}


def read(text: str) -> Samples:
    """(metric, VM, disk) to value."""
    return {(s.name, s.labels.get("vm", ""), s.labels.get("disk", "")): s.value for family in parse(text) for s in family.samples}


def test_names_and_types() -> None:
    families = {f.name: f for f in parse(render(status(), 2, 1600000000.0))}
    # the parser takes _total off the name of a counter
    assert {f"{n}_total" if f.type == "counter" else n: f.type for n, f in families.items()} == {n: k for n, k, _h in metrics._HELP}
    assert all(f.documentation.endswith(".") for f in families.values())
    for name in families:
        assert name.startswith(("ferry_disk_", "ferry_task_"))
    got = read(render(status(), 2, 1600000000.0))
    assert got["ferry_disk_size_bytes", "db01", "Hard disk 1"] == 10 and got["ferry_disk_remaining_seconds", "db01", "Hard disk 1"] == 3
    assert got["ferry_task_errors_total", "db01", ""] == 2 and got["ferry_task_running", "db01", ""] == 1
    assert got["ferry_task_last_update_timestamp_seconds", "db01", ""] == 1700000000.25


@pytest.mark.parametrize(
    "name", ["受注データベース", 'a"b', "a\\b", "a\\nb", "a\nb", "a\\\nb", "x{y}=1,z", "", "é" * 100, "tab\there", "#c"]
)
def test_labels_come_back_as_they_were(name: str) -> None:
    got = {(s.labels["vm"], s.labels.get("disk")) for f in parse(render(status(name, name), 0, 0)) for s in f.samples}
    assert got == {(name, name), (name, None)}


def test_a_name_that_is_no_text_is_shown_all_the_same() -> None:
    assert read(render(status("a\udcffb"), 0, 0))["ferry_task_running", "a\\udcffb", ""] == 1


@pytest.mark.parametrize("phase", metrics.PERCENT_PHASES)
def test_percent_is_not_told_as_bytes(phase: str) -> None:
    got = read(render(status(phase=phase), 0, 0))
    assert {n for n, _vm, disk in got if disk} == {"ferry_disk_phase"}


def test_what_is_not_known_is_left_out() -> None:
    names = {n for n, _vm, _disk in read(render(status(left=None), 0, 0))}
    assert "ferry_disk_remaining_seconds" not in names and "ferry_task_last_success_timestamp_seconds" not in names
    assert not any(n.endswith("_bytes") for n, _vm, _disk in read(render({**status(), "unit": "VMs"}, 0, 0)))


def test_files_of_different_names_are_different() -> None:
    names = ["db01", "db 01", "db/01", "受注", "発注", "", "..", "../db01", "x" * 300, "x" * 301]
    files = [file_name(n) for n in names]
    assert len(set(files)) == len(names) and files[0] == "ferry_db01.prom"
    assert all("/" not in f and f.startswith("ferry_") and f.endswith(".prom") and len(f) < 100 for f in files)


def test_the_file_of_a_task(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        found = Metrics(str(tmp_path))
        with Progress(str(tmp_path / "s.json"), name="db01", metrics=found) as progress:
            progress.update("Hard disk 1", "copy", 5, 10)
            progress._write("running")
    finally:
        os.umask(old)
    path = tmp_path / "ferry_db01.prom"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    got = read(path.read_text())
    assert got["ferry_task_running", "db01", ""] == 0 and got["ferry_task_last_success_timestamp_seconds", "db01", ""] > 1.7e9
    assert found.problem == "" and sorted(p.name for p in tmp_path.iterdir()) == ["ferry_db01.prom", "s.json"]


def test_what_is_counted_goes_on_in_the_next_run(tmp_path: Path) -> None:
    def run(fails: bool) -> Samples:
        with pytest.raises(FerryError) if fails else open(os.devnull):
            with Progress(str(tmp_path / "s.json"), name='d"b', metrics=Metrics(str(tmp_path))):
                if fails:
                    raise FerryError("It broke.")
        return read((tmp_path / file_name('d"b')).read_text())

    first = run(False)["ferry_task_last_success_timestamp_seconds", 'd"b', ""]
    assert run(True)["ferry_task_errors_total", 'd"b', ""] == 1
    third = run(True)
    assert third["ferry_task_errors_total", 'd"b', ""] == 2 and third["ferry_task_last_success_timestamp_seconds", 'd"b', ""] == first
    assert run(False)["ferry_task_last_success_timestamp_seconds", 'd"b', ""] >= first


def test_it_is_not_written_at_every_tick(tmp_path: Path) -> None:
    found = Metrics(str(tmp_path))
    found.write(status(done=1))
    found.write(status(done=2))
    assert read((tmp_path / "ferry_db01.prom").read_text())["ferry_disk_done_bytes", "db01", "Hard disk 1"] == 1
    found.write({**status(done=3), "state": "done"})
    assert read((tmp_path / "ferry_db01.prom").read_text())["ferry_disk_done_bytes", "db01", "Hard disk 1"] == 3


def test_a_vm_that_gets_its_name_late_has_one_file(tmp_path: Path) -> None:
    found = Metrics(str(tmp_path))
    found.write(status("50300000-uuid"))
    found._written = float("-inf")
    found.write(status("db01"))
    assert [p.name for p in tmp_path.iterdir()] == ["ferry_db01.prom"]


def test_old_files_of_ours_go_and_no_others(tmp_path: Path) -> None:
    old = time.time() - metrics.AGE - 60
    for name in ("ferry_gone.prom", "ferry_torn.prom.0123456789ab", "node.prom", "ferry_notes.txt"):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (old, old))
    (tmp_path / "ferry_new.prom").write_text("x")
    Metrics(str(tmp_path)).write(status())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ferry_db01.prom", "ferry_new.prom", "ferry_notes.txt", "node.prom"]


@pytest.mark.parametrize("damage", ["\xff\xfe", 'ferry_task_errors_total{vm="db01"} many\n', "x" * 2_000_000, ""])
def test_a_damaged_file_begins_anew(tmp_path: Path, damage: str) -> None:
    (tmp_path / "ferry_db01.prom").write_bytes(damage.encode("latin-1"))
    Metrics(str(tmp_path)).write(status())
    assert read((tmp_path / "ferry_db01.prom").read_text())["ferry_task_errors_total", "db01", ""] == 0


@pytest.mark.fault("The folder for Prometheus' figures is missing", "conversion host", "a warning; the copy goes on")
def test_a_folder_that_is_not_there_stops_nothing(tmp_path: Path) -> None:
    found = Metrics(str(tmp_path / "missing"))
    with Progress(str(tmp_path / "s.json"), name="db01", metrics=found) as progress:
        progress.update("Hard disk 1", "copy", 5, 10)
    assert "missing" in found.problem and "No such file" in found.problem
    assert '"metrics": "No such file' in (tmp_path / "s.json").read_text()


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "ferry_db01.prom").symlink_to(tmp_path / "precious")
    Metrics(str(tmp_path)).write(status())
    assert (tmp_path / "precious").read_text() == "keep" and not (tmp_path / "ferry_db01.prom").is_symlink()


def test_it_is_asked_for_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress_from().metrics is None
    monkeypatch.setenv(metrics.FOLDER_VARIABLE, str(tmp_path))
    found = progress_from().metrics
    assert found is not None and found.folder == str(tmp_path) and metrics.FOLDER_VARIABLE not in os.environ
