# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One report of those of the slices."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils.report import files, history, live, model, page
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.merge import merge

NOON = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.timezone.utc)


def row(name: str, state: str = "migrated", read: int = 1, **more: Any) -> dict[str, Any]:
    disks = [{"label": "Hard disk 1", "capacity": 10, "bytes_read": read}]
    return {"name": name, "source_uuid": f"uuid-{name}", "state": state, "seconds": 2, "disks": disks, **more}


def report(path: Path, rows: Sequence[dict[str, Any]], minutes: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    totals = model.totals_of(model.vms_of(rows))
    path.write_text(page.as_json(rows, totals, "Slice", NOON + datetime.timedelta(minutes=minutes)))
    return path


def beside(folder: Path, host: str, run: str, began: float, result: dict[str, Any] | None = None) -> None:
    attempt = history.Attempt(run, began, began + 5, began + 5 if result else None, [history.Phase("copy", began, None)])
    attempt.result = result
    path = live.file_of(str(folder), host)
    known = history.load(path)
    one = history.History(host, attempt, host)
    if known is not None:
        one.earlier = [*known.earlier, known.now]
    files.replace(path, history.dump(one))


def test_slices_add_up(tmp_path: Path) -> None:
    report(tmp_path / "a.json", [row("one", read=3), row("two", "failed", errors=["no"])])
    report(tmp_path / "b.json", [row("three", read=4)])
    found = merge([str(tmp_path)])
    assert [(r["name"], r["state"]) for r in found.results] == [("one", "migrated"), ("two", "failed"), ("three", "migrated")]
    assert model.totals_of(model.vms_of(found.results)).bytes_read == 3 + 1 + 4
    assert found.warnings == []


@pytest.mark.parametrize(
    ("states", "counts"),
    [
        (("failed", "migrated"), "migrated"),
        (("migrated", "unchanged"), "migrated"),
        (("migrated", "failed"), "failed"),
        (("unchanged", "unchanged"), "unchanged"),
        (("precopied", "migrated", "unchanged"), "migrated"),
        (("migrated", "mended"), "mended"),
    ],
)
def test_a_slice_that_ran_again(tmp_path: Path, states: tuple[str, ...], counts: str) -> None:
    for n, state in enumerate(states):
        report(tmp_path / f"{9 - n}.json", [row("one", state)], minutes=n)
    assert [r["state"] for r in merge([str(tmp_path)]).results] == [counts]


def test_phases_say_when_it_was(tmp_path: Path) -> None:
    """A report is written at the end of its slice: another VM there may have taken longer."""
    late, early = {"phases": [{"name": "land", "began": 1, "ended": 50}]}, {"phases": [{"name": "copy", "began": 1, "ended": 20}]}
    report(tmp_path / "a.json", [row("one", "migrated", **late)], minutes=0)
    report(tmp_path / "b.json", [row("one", "failed", **early)], minutes=9)
    assert [r["state"] for r in merge([str(tmp_path)]).results] == ["migrated"]


def test_a_precopy_knows_the_name_alone(tmp_path: Path) -> None:
    without = {k: v for k, v in row("one", "precopied").items() if k != "source_uuid"}
    report(tmp_path / "a.json", [without])
    report(tmp_path / "b.json", [row("one")], minutes=1)
    assert [r["state"] for r in merge([str(tmp_path)]).results] == ["migrated"]
    twin = {**row("one"), "source_uuid": "uuid-another"}
    report(tmp_path / "c.json", [twin], minutes=2)
    assert len(merge([str(tmp_path)]).results) == 3, "of two VMs of that name it may be either"


def test_a_slice_that_died_left_its_files(tmp_path: Path) -> None:
    """One VM had ended before, one was under way; the second run took the first one up, and found the other done."""
    beside(tmp_path / "a.html.d", "one", "node-a-1", 100, row("one"))
    beside(tmp_path / "a.html.d", "two", "node-a-1", 100)
    beside(tmp_path / "a.html.d", "three", "node-a-1", 100)
    beside(tmp_path / "b.html.d", "two", "node-b-2", 200, row("two"))
    report(tmp_path / "b.json", [row("one", "unchanged"), row("two")], minutes=5)
    found = merge([str(tmp_path)])
    vms = model.vms_of(found.results)
    assert sorted((v.name, v.state) for v in vms) == [("one", "migrated"), ("two", "migrated")]
    entries, attempts = found.entries(vms, 300.0)
    by_name = {e.vm.name: e for e in entries}
    assert by_name["three"].vm.state == "interrupted" and found.unfinished == ["three"]
    assert [a.run for a in by_name["two"].attempts()] == ["node-a-1", "node-b-2"]
    assert all(a is not None for a in attempts)
    html = page.wave_html(entries, "All", NOON)
    assert all(name in html for name in ("one", "two", "three"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 999, "vms": []}',
        '{"version": 1}',
        '{"version": 1, "vms": [3]}',
        '{"version": 1, "vms": [{"name": "x"}]}',
    ],
)
def test_what_is_no_report_is_said(tmp_path: Path, text: str) -> None:
    report(tmp_path / "good.json", [row("one")])
    (tmp_path / "bad.json").write_text(text)
    found = merge([str(tmp_path), str(tmp_path / "absent.json")])
    assert [r["name"] for r in found.results] == ["one"]
    assert len(found.warnings) == 2 and "bad.json" in found.warnings[0] and "absent.json" in found.warnings[1]
