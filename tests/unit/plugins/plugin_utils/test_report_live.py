# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils.report import closing, dashboard, history, live, model, page, wave

from .report_scene import BEGAN, EVIL, GIB, RUN, attempt, many, put, read, result
from .report_scene import wave as whole_wave


class Templar:
    """Values are what they say."""

    def template(self, value: Any) -> Any:
        return value


class Clock:
    """The time that the code under test sees, and what it would cost to draw a page."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = BEGAN
        for module in (live, dashboard):
            monkeypatch.setattr(module.time, "time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def task_vars(folder: Path, host: str = "web01", **more: Any) -> dict[str, Any]:
    return {"ferry_report": str(folder / "report.html"), "inventory_hostname": host, "ansible_play_hosts_all": ["web01", "db01"], **more}


def one(folder: Path, host: str = "web01", **more: Any) -> live.Live:
    found = live.Live.of(task_vars(folder, host, **more), Templar())
    assert found is not None
    return found


def status(**disks: Any) -> dict[str, Any]:
    rows = {
        label.replace("_", " "): {"phase": phase, "done": done, "total": 40 * GIB, "skipped": skipped, "rate": 1e8, "left": 9, "seconds": s}
        for label, (phase, done, skipped, s) in disks.items()
    }
    for row in rows.values():
        row |= {"state": "running", "why": ""}
    return {"version": 1, "name": "web01", "unit": "bytes", "disks": rows}


def file(folder: Path, host: str = "web01") -> dict[str, Any]:
    return read(Path(live.file_of(str(folder / "report.html.d"), host)))


def shown(folder: Path) -> str:
    return (folder / "report.html").read_text()


# -- samples ----------------------------------------------------------------------------------------------------------


def test_samples_lose_no_byte_however_long_it_takes() -> None:
    samples = history.Samples()
    for n in range(5000):
        samples.add("moved", 7_000_001, n * 61.0, (n + 1) * 61.0)
    samples.add("verified", 5, 10.0, 10.0)
    assert sum(samples.moved) == 5000 * 7_000_001 and sum(samples.verified) == 5
    assert len(samples.moved) <= history.MOST_SAMPLES and samples.width * len(samples.moved) >= 5000 * 61
    middle = samples.moved[5:-5]
    assert max(middle) < 1.05 * min(middle)
    samples.thin(60)
    assert sum(samples.moved) == 5000 * 7_000_001 and len(samples.moved) <= 60


@pytest.mark.parametrize("wrong", [(0, 0, 1), (-5, 0, 1), (5, 0, float("inf")), (5, 0, float("nan"))])
def test_samples_that_cannot_be(wrong: tuple[float, float, float]) -> None:
    samples = history.Samples()
    samples.add("moved", *wrong)
    assert samples.moved == []


# -- what tasks tell --------------------------------------------------------------------------------------------------


def test_nothing_is_done_where_no_report_is_wanted(tmp_path: Path) -> None:
    for variables in ({}, {"inventory_hostname": "web01"}, {"inventory_hostname": "web01", "ferry_report": ""}):
        assert live.Live.of(variables, Templar()) is None

    class Broken(Templar):
        def template(self, value: Any) -> Any:
            raise ValueError("no such variable")

    assert live.Live.of(task_vars(tmp_path), Broken()) is None
    assert os.listdir(tmp_path) == []


def test_phases_figures_and_the_result_of_one_vm(tmp_path: Path, clock: Clock) -> None:
    one(tmp_path).phase("prepare")
    clock.now += 5
    copying = one(tmp_path)  # each task has its own
    clock.now += 10
    copying.progress(status(Hard_disk_1=("copy", 3 * GIB, GIB, 10.0)))
    clock.now += 1
    copying.progress(status(Hard_disk_1=("copy", 4 * GIB, GIB, 11.0)))  # too soon to be written
    assert file(tmp_path)["disks"]["Hard disk 1"]["done"] == 3 * GIB
    clock.now += 5
    copying.progress(status(Hard_disk_1=("copy", 5 * GIB, GIB, 16.0)))
    clock.now += 5
    copying.progress(status(Hard_disk_1=("verify", 2 * GIB, GIB, 21.0)))
    told = file(tmp_path)
    assert [p["name"] for p in told["phases"]] == ["prepare", "copy", "verify"]
    assert told["phases"][1]["ended"] == BEGAN + 26 and told["phases"][2]["ended"] is None
    assert sum(told["samples"]["moved"]) == 4 * GIB and sum(told["samples"]["verified"]) == 2 * GIB
    assert "reload()" in shown(tmp_path) and "Hard disk 1" in shown(tmp_path)
    one(tmp_path).phase("land")
    clock.now += 3
    one(tmp_path).result(result("web01"))
    told = file(tmp_path)
    assert (told["result"]["state"], told["ended"], told["phases"][-1]["ended"]) == ("migrated", clock.now, clock.now)
    entries = wave.running(history.all_of(str(tmp_path / "report.html.d")), ["web01", "db01"], [], live.run_name(), clock.now)
    assert [(e.vm.name, e.vm.state) for e in entries] == [("web01", "migrated"), ("db01", "waiting")]


def test_a_run_that_is_joined_does_not_count_what_it_did_before(tmp_path: Path, clock: Clock) -> None:
    task = one(tmp_path)
    clock.now += 1
    task.progress(status(a=("copy", 30 * GIB, 0, 4000.0)))
    clock.now += 5
    task.progress(status(a=("copy", 31 * GIB, 0, 4005.0)))
    assert sum(file(tmp_path)["samples"]["moved"]) == GIB


def test_what_moved_between_two_looks_is_made_up_for(tmp_path: Path, clock: Clock) -> None:
    """A small disk is copied before the status file is read for the first time."""
    task = one(tmp_path)
    clock.now += 2
    task.progress(status(a=("verify", GIB, 0, 1.5)))
    task.ended({"disks": [{"disk": "a", "bytes_read": GIB}]})
    assert sum(file(tmp_path)["samples"]["moved"]) == GIB
    task.ended({"failed": True, "msg": "it broke"})
    joined = one(tmp_path)
    joined.progress(status(a=("copy", 30 * GIB, 0, 4000.0)))
    joined.ended({"disks": [{"disk": "a", "bytes_read": 40 * GIB}]})
    assert sum(file(tmp_path)["samples"]["moved"]) == GIB


def test_cycles_are_told_as_they_end(tmp_path: Path, clock: Clock) -> None:
    warm = one(tmp_path)
    warm.phase("precopy")
    clock.now += 5
    copying = one(tmp_path)  # the copy's own task, in the same fork
    clock.now += 15
    copying.progress(status(a=("copy", 2 * GIB, 0, 10.0)))
    rows = [{"cycle": 1, "mode": "full", "seconds": 20.0, "bytes_written": 2 * GIB, "disks": [{"disk": "a", "change_id": "52 de/1"}]}]
    clock.now += 1
    warm.cycles(rows, {"downtime": 41.5})
    told = file(tmp_path)
    assert sum(told["samples"]["moved"]) == 2 * GIB, "what the copy's task wrote is kept"
    assert told["cycles"] == [{"cycle": 1, "mode": "full", "seconds": 20.0, "bytes_written": 2 * GIB}]
    assert [p["name"] for p in told["phases"]] == ["precopy"]
    clock.now += 20
    dashboard.refresh(str(tmp_path / "report.html"), warm.plan, 5)
    assert "41.5 s of downtime predicted" in shown(tmp_path) and "Copied while it ran" in shown(tmp_path)
    before = clock.now
    clock.now += 5
    warm.beat()
    assert file(tmp_path)["touched"] < before
    clock.now += 30
    warm.beat()
    assert file(tmp_path)["touched"] == clock.now


def test_figures_that_are_not_bytes_are_no_throughput(tmp_path: Path, clock: Clock) -> None:
    task = one(tmp_path)
    task.progress({**status(a=("copy", 30, 0, 4.0)), "unit": "machines"})
    clock.now += 9
    task.progress(status(a=("snapshot", 30, 0, 4.0)))
    clock.now += 9
    task.progress(status(a=("clear the volume's tail", 30 * GIB, 0, 4.0)))
    assert file(tmp_path)["samples"]["moved"] == []


def test_a_killed_run_is_an_earlier_attempt_of_the_next(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "report.html.d"
    folder.mkdir()
    put(folder, "web01", attempt("prepare 4 copy 130", run="other-1-1", began=BEGAN - 3000, going=True))
    put(folder, "db01", attempt("prepare 4 copy 130", run="other-1-1", began=BEGAN - 3000, going=True))
    one(tmp_path).phase("prepare")
    told = file(tmp_path)
    assert [p["name"] for p in told["earlier"][0]["phases"]] == ["prepare", "copy"] and len(told["earlier"]) == 1
    assert [p["name"] for p in told["phases"]] == ["prepare"]
    entries = wave.running(history.all_of(str(folder)), ["web01"], ["web01", "db01"], live.run_name(), clock.now)
    assert [(e.vm.name, e.vm.state, e.old) for e in entries] == [("web01", "running", False), ("db01", "interrupted", True)]
    assert "the same command again" in shown(tmp_path) or "before" in shown(tmp_path)


def test_attempts_are_kept_but_not_all(tmp_path: Path, clock: Clock) -> None:
    known = history.History("web01", attempt("copy 5", run="0"))
    for n in range(30):
        known.of_run(str(n), clock.now).begin("copy", clock.now)
    assert len(known.earlier) == history.MOST_EARLIER and known.now.run == "29"


def test_many_phases_disks_and_cycles_stay_a_small_file(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_PHASES", 20)
    task = one(tmp_path)
    for n in range(30):
        clock.now += 0.01
        task.phase(("precopy", "ready")[n % 2])
    task.cycles([{"cycle": n, "mode": "incremental", "seconds": 1.0} for n in range(1000)], None)
    rows = [{"cycle": n, "mode": "incremental", "disks": [{"disk": "a", "change_id": "52 de"}] * 20} for n in range(5000)]
    task.result(result("web01", cycles=rows))
    told = file(tmp_path)
    assert told["result"]["cycles"][-1] == {"cycle": 4999, "mode": "incremental"} and len(told["result"]["cycles"]) == history.MOST_CYCLES
    assert len(told["phases"]) == history.MOST_PHASES and len(told["cycles"]) == history.MOST_CYCLES
    assert Path(live.file_of(str(tmp_path / "report.html.d"), "web01")).stat().st_size < 100_000


# -- the files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["../../etc/passwd", "a/b", "データベース01", ".hidden", "x" * 400, EVIL])
def test_any_name_is_a_file_of_the_folder(tmp_path: Path, clock: Clock, host: str) -> None:
    one(tmp_path, host).phase("copy")
    (name,) = [n for n in os.listdir(tmp_path / "report.html.d") if n.endswith(".json")]
    assert name.startswith("vm-") and len(name) < 100
    assert file(tmp_path, model.text(host))["host"] == model.text(host)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 9, "host": "web01"}',
        '{"version": 1}',
        "[" * 100_000,
        '{"version":1,"host":"web01","phases":[{}]}',
    ]
    + [
        '{"version":1,"host":"web01","phases":{"a":1},"disks":[1],"samples":{"width":"x","moved":[null,"y",-3]},"earlier":[4,{}],"result":[]}'
    ]
    + ['{"version":1,"host":"web01","began":1e400,"touched":NaN,"cycles":[7],"disks":{"a":{"done":"x"},"b":3},"result":{"name":""}}'],
)
@pytest.mark.fault(
    "a file beside the live report is cut or altered",
    "controller",
    "it is left out or begun anew; the page is written, the migration goes on",
)
def test_a_damaged_file_harms_nobody(tmp_path: Path, clock: Clock, content: str) -> None:
    folder = tmp_path / "report.html.d"
    folder.mkdir()
    Path(live.file_of(str(folder), "web01")).write_text(content)
    put(folder, "db01", attempt("copy 20"), result("db01"))
    plan = dashboard.Plan("Wave", RUN, ["web01", "db01"])
    assert dashboard.refresh(str(tmp_path / "report.html"), plan, 5)
    assert "db01" in shown(tmp_path)
    one(tmp_path).phase("copy")
    assert file(tmp_path)["phases"][-1]["name"] == "copy"


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(live.display, "warning", said.append)
    (tmp_path / "report.html.d").write_text("a file where a folder should be")
    task = one(tmp_path)
    task.phase("copy")
    clock.now += 60
    task.progress(status(a=("copy", GIB, 0, 4.0)))
    task.result(result("web01"))
    assert len(said) == 1 and "report.html" in said[0] and "goes on" in said[0]
    told, warnings = closing.story(str(tmp_path / "report.html"), model.vms_of([result("web01")]), [result("web01")], {}, clock.now)
    assert [e.vm.name for e in told.entries] == ["web01"] and len(warnings) == 1


def test_a_page_in_the_way_is_a_warning(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(live.display, "warning", said.append)
    (tmp_path / "report.html").mkdir()
    one(tmp_path).phase("copy")
    assert len(said) == 1
    assert file(tmp_path)["phases"], "the figures are kept"


# -- the page while it is written -------------------------------------------------------------------------------------


def test_one_at_a_time_and_not_too_often(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "report.html")
    plan = whole_wave(Path(path))
    clock.now += 700
    assert dashboard.refresh(path, plan, 5)
    assert not dashboard.refresh(path, plan, 5), "just written"
    clock.now += 4
    assert not dashboard.refresh(path, plan, 5)
    assert dashboard.refresh(path, plan, 5, soon=True), "something has happened"
    clock.now += 6
    marker = Path(path + ".d") / ".page"
    with marker.open("r+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert not dashboard.refresh(path, plan, 5), "somebody else is at it: not waited for"
    marker.write_text(f"{clock.now - 60} 4.0\n")
    assert not dashboard.refresh(path, plan, 5, soon=True), "a page that took 4 s is not drawn each minute"
    clock.now += 30
    assert dashboard.refresh(path, plan, 5)
    marker.write_text("nonsense")
    assert dashboard.refresh(path, plan, 5)
    marker.write_text(f"{clock.now + 9e6} 0.1\n")
    assert dashboard.refresh(path, plan, 5), "a clock that was set back"


def test_the_dashboard_tells_who_is_where(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "report.html")
    plan = whole_wave(Path(path))
    clock.now += 600
    assert dashboard.refresh(path, plan, 5)
    text = Path(path).read_text()
    for words in (
        "Wave 3, databases and mail",
        "ファイルサーバー01",
        "1 failed",
        "1 running",
        "2 waiting",
        "HTTP 503",
        "52.5 %",
        "Snapshots",
        "left of what is",
    ):
        assert words in text, words
    assert text.index('id="vm4"') < text.index('id="vm5"') < text.index('id="vm1"'), "who needs somebody, who is under way, the rest"


def test_names_with_markup_are_text_everywhere(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "report.html")
    folder = Path(path + ".d")
    folder.mkdir()
    now = attempt("prepare 3 copy 60", going=True)
    now.phases.append(history.Phase(EVIL, BEGAN + 63))
    now.disks = {EVIL: {"phase": EVIL, "done": 1, "total": 2, "state": "running", "why": EVIL, "rate": 1.0, "left": None}}
    put(folder, EVIL, now)
    concern = {"id": EVIL, "category": EVIL, "label": EVIL, "assessment": EVIL, "advice": EVIL, "disk": EVIL}
    error = {"message": EVIL, "next_command": EVIL}
    put(folder, "b", attempt("copy 60", failed=True), result(EVIL, "failed", errors=[error], concerns=[concern]))
    clock.now += 70
    dashboard.refresh(path, dashboard.Plan(EVIL, RUN, [model.text(EVIL), "b", EVIL + "2"]), 5)
    text = Path(path).read_text()
    assert "<script>alert" not in text and '"onload' not in text and "\x1b" not in text
    assert text.count("<script>") == 1


# -- the last page ----------------------------------------------------------------------------------------------------


def closed(folder: Path, rows: list[dict[str, Any]], clock: Clock, **variables: Any) -> tuple[str, dict[str, Any]]:
    path = str(folder / "report.html")
    vms = model.vms_of(rows)
    told, warnings = closing.story(path, vms, rows, variables, clock.now)
    assert warnings == []
    when = datetime.datetime.fromtimestamp(clock.now, datetime.timezone.utc)
    html = page.wave_html(told.entries, "Wave", when)
    return html, json.loads(page.as_json(rows, model.totals_of(vms), "Wave", when, told.attempts))


def test_the_last_page_has_the_history_of_all_results(tmp_path: Path, clock: Clock) -> None:
    for host in ("web01", "db01", "gone01"):
        one(tmp_path, host).phase("copy")
    clock.now += 60
    one(tmp_path, "web01").result(result("web01"))
    clock.now += 5
    hosts = {"ansible_play_hosts_all": ["web01", "db01", "gone01"], "ferry_wave": "w", "groups": {"w": ["web01", "db01", "gone01"]}}
    html, told = closed(tmp_path, [result("web01"), result("db01", "failed", errors=["it broke"])], clock, **hosts)
    assert "reload" not in html and "<script" not in html and "noscript" not in html
    assert "1 interrupted" in html and "1 migrated" in html and "1 failed" in html
    assert [p["name"] for p in told["vms"][0]["phases"]] == ["copy"] and told["vms"][1]["phases"][0]["failed"] is True
    assert file(tmp_path, "db01")["result"]["state"] == "failed" and file(tmp_path, "db01")["ended"] == clock.now


def test_a_second_run_over_a_part_shows_the_rest_of_the_wave(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "report.html.d"
    folder.mkdir()
    put(folder, "web01", attempt("copy 60", run="first"), result("web01"))
    put(folder, "db01", attempt("copy 60", run="first", failed=True), result("db01", "failed", errors=["it broke"]))
    put(folder, "other", attempt("copy 60", run="first"), result("other"))
    clock.now += 900
    one(tmp_path, "db01", ansible_play_hosts_all=["db01"]).phase("copy")
    clock.now += 60
    variables = {"ansible_play_hosts_all": ["db01"], "ferry_wave": "w", "groups": {"w": ["web01", "db01"]}}
    html, told = closed(tmp_path, [result("db01")], clock, **variables)
    assert "2 migrated" in html and "earlier run" in html and "other" not in html.replace("another", "")
    assert [vm["name"] for vm in told["vms"]] == ["db01"]


def test_a_result_finds_its_file_by_uuid_then_by_name() -> None:
    first = history.History("h1", attempt("copy 5"), "same")
    second = history.History("h2", attempt("copy 5"), "same")
    second.now.result = {"source_uuid": "u2"}
    vms = [model.Vm("same", "migrated", source_uuid="u2"), model.Vm("same", "migrated", source_uuid="u1"), model.Vm("same", "failed")]
    assert wave.match(vms, [first, second], RUN) == [second, first, None]


def test_without_files_the_page_is_of_the_results(tmp_path: Path, clock: Clock) -> None:
    html, told = closed(tmp_path, [result("web01")], clock)
    assert "web01" in html and "phases" not in told["vms"][0]
    assert os.listdir(tmp_path) == []


def test_a_page_gets_leaner_until_it_is_small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    when = datetime.datetime.fromtimestamp(BEGAN, datetime.timezone.utc)
    error = {"message": "x" * 3000, "said": "y" * 4000, "next_command": "again"}
    rows = [result(f"vm{n:03d}", disks=9, errors=[error], state="failed") for n in range(80)]
    entries = wave.plain_entries(model.vms_of(rows))

    def made(most: int) -> str:
        monkeypatch.setattr(page, "MOST_BYTES", most)
        return page.wave_html(entries, "Wave", when)

    html = made(1_000_000)
    assert html.count('class="vm"') == 80 and "y" * 900 in html and "y" * 1001 not in html
    html = made(300_000)
    assert html.count('class="vm"') == page.MOST_TROUBLE and "30 machines" in html and "vm079" in html and len(html) < 600_000
    small = page.wave_html(entries[:3], "Wave", when)
    assert small.count('class="vm"') == 3 and "x" * 3000 in small


def test_five_hundred_machines_stay_small(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "report.html"
    plan = many(path, 500)
    rows = [result(host) for host in plan.hosts]
    told, _warnings = closing.story(str(path), model.vms_of(rows), rows, {}, clock.now)
    html = page.wave_html(told.entries, "Wave", datetime.datetime.fromtimestamp(clock.now, datetime.timezone.utc))
    assert 200_000 < len(html.encode()) < 3_000_000
