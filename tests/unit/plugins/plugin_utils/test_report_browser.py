# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as people see it, in headless Chromium. The pictures stay in build/reports, for whoever wants to look."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils.report import closing, dashboard, files, history, live, model, page

from .browser import Browser, browser, needs_browser
from .report_scene import BEGAN, EVIL, RUN, attempt, many, put, result, wave

pytestmark = [needs_browser, pytest.mark.slow]

#: Of each picture: its place and size as it was drawn, and how many shapes it has.
DRAWN = """[...document.querySelectorAll('svg.chart')].map(s => { const b = s.getBoundingClientRect();
  return {kind: s.classList[1], width: b.width, height: b.height, right: b.right,
          shapes: [...s.querySelectorAll('rect,path')].filter(e => { const r = e.getBoundingClientRect(); return r.width > 0 || r.height > 0 }).length}})"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def calm(tab: Browser) -> Iterator[Browser]:
    """A tab whose page must ask nobody but its own file, and have nothing to say on the console."""
    tab.close()  # the page of the test before would reload itself
    tab.said.clear()
    tab.asked.clear()
    yield tab
    assert tab.said == []
    assert [url for url in tab.asked if not url.startswith(("file:", "data:"))] == []
    assert len({url for url in tab.asked if url.startswith("file:")}) <= 1


@pytest.fixture(scope="session")
def pictures(top: Path) -> Path:
    """Beside the stage, where they outlive it."""
    return top.parents[3] / "reports" if top.parents[3].name == "build" else top / "build" / "reports"


def under_way(folder: Path, written: float) -> Path:
    """The page of a wave that runs, as if it had been written at C(written) (seconds since the epoch)."""
    path = folder / "report.html"
    plan = wave(path)
    shown = dashboard.render(str(path), plan, 5, BEGAN + 620)
    path.write_text(shown.replace(f'data-written="{BEGAN + 620:.0f}"', f'data-written="{written:.0f}"'))
    return path


def over(folder: Path, rows: list[dict[str, Any]], language: str = "en", monkeypatch: pytest.MonkeyPatch | None = None) -> Path:
    """The page of a wave that has ended."""
    path = folder / "report.html"
    if monkeypatch is not None:
        monkeypatch.setattr(live, "run_name", lambda: RUN)
    told, _warnings = closing.story(str(path), model.vms_of(rows), rows, {}, BEGAN + 900)
    when = datetime.datetime.fromtimestamp(BEGAN + 900, datetime.timezone.utc)
    path.write_text(page.wave_html(told.entries, "Wave 3", when, language=language))
    return path


def results(path: Path) -> list[dict[str, Any]]:
    known = history.all_of(history.folder_of(str(path))).values()
    return [h.now.result for h in known if h.now.result is not None]


@pytest.mark.parametrize(
    ("name", "width", "dark", "paper"),
    [("light", 1200, False, False), ("dark", 1200, True, False), ("phone", 390, False, False), ("paper", 760, True, True)],
)
def test_a_wave_that_runs(tmp_path: Path, calm: Browser, pictures: Path, name: str, width: int, dark: bool, paper: bool) -> None:
    path = under_way(tmp_path, time.time())
    calm.look(width, dark=dark, paper=paper)
    calm.open(path)
    drawn = calm.evaluate(DRAWN)
    assert [d["kind"] for d in drawn][:2] == ["timeline", "curves"] and {d["kind"] for d in drawn} >= {"columns", "spark"}
    assert all(d["width"] > 100 and d["height"] >= 30 and d["shapes"] > 0 and d["right"] <= width for d in drawn), drawn
    assert drawn[0]["shapes"] >= 20
    assert calm.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off or scrolls sideways"
    # Letters keep their size: a picture that shrinks cannot be read on a phone.
    assert calm.evaluate("document.querySelector('svg.timeline text').getBoundingClientRect().height") >= 10
    background = calm.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if paper else "rgb(17, 22, 29)" if dark else "rgb(245, 246, 248)")
    # Each name stands at the height of its bars.
    rows = calm.evaluate("[...document.querySelectorAll('.lanes li')].map(e => e.getBoundingClientRect().top)")
    bars = calm.evaluate("[...document.querySelectorAll('svg.timeline > a, svg.timeline > g')].map(e => e.getBoundingClientRect().top)")
    assert len(rows) == len(bars) == 7
    assert all(0 <= drawn - row <= 10 for row, drawn in zip(rows[:5], bars, strict=False)), (rows, bars)  # the last two wait
    calm.picture(pictures / f"report-running-{name}.png")


def test_it_reloads_itself_while_it_is_written_and_says_when_it_no_longer_is(tmp_path: Path, calm: Browser) -> None:
    path = under_way(tmp_path, time.time())
    calm.look(1200)
    calm.open(path)
    assert calm.evaluate("document.getElementById('age').hidden") is True
    files.replace(str(path), path.read_text().replace('data-every="5"', 'data-every="0.5"').replace("Wave 3, ", "Wave 33, "))
    calm.open(path)
    files.replace(str(path), path.read_text().replace("Wave 33, ", "Wave 34, "))
    for _try in range(100):
        time.sleep(0.1)  # between two looks
        if "Wave 34" in str(calm.evaluate("document.title")):
            break
    else:
        pytest.fail("the page did not reload itself")
    old = under_way(tmp_path, time.time() - 1800)
    calm.open(old)
    assert calm.evaluate("document.getElementById('age').hidden") is False
    assert "30" in calm.evaluate("document.getElementById('age').innerText")


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_wave_that_is_over(tmp_path: Path, calm: Browser, pictures: Path, language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    wave(path, over=True)
    over(tmp_path, results(path), language, monkeypatch)
    calm.look(1200)
    calm.open(path)
    assert calm.evaluate("document.scripts.length") == 0
    assert calm.evaluate("document.documentElement.lang") == language
    drawn = calm.evaluate(DRAWN)
    assert drawn[0]["kind"] == "timeline" and all(d["shapes"] for d in drawn)
    calm.picture(pictures / f"report-over-{language}.png")


def test_markup_in_names_does_nothing(tmp_path: Path, calm: Browser) -> None:
    path = tmp_path / "report.html"
    Path(history.folder_of(str(path))).mkdir()
    names = [EVIL, "<img src=x onerror=alert(1)>", "{{ 7 * 7 }}", "旧サーバー & co", "'\"><svg onload=alert(1)>"]
    for n, name in enumerate(names):
        put(path.with_name("report.html.d"), f"h{n}", attempt("prepare 2 copy 50"), result(name, errors=[name]))
    path.write_text(dashboard.render(str(path), dashboard.Plan(names[1], RUN, [f"h{n}" for n in range(5)]), 5, BEGAN + 60))
    calm.open(path)
    assert calm.evaluate("document.querySelectorAll('img, [onload], [onerror]').length") == 0
    shown = calm.evaluate("[...document.querySelectorAll('section.vm h2')].map(e => e.textContent)")
    assert sorted(shown) == sorted(model.text(name) for name in names)
    assert calm.evaluate("document.title").startswith(names[1])


def test_five_hundred_machines_are_shown_at_once(tmp_path: Path, calm: Browser, pictures: Path) -> None:
    path = tmp_path / "report.html"
    plan = many(path, 500, over=False)
    path.write_text(dashboard.render(str(path), plan, 5, BEGAN + 9000))
    assert path.stat().st_size < 3_000_000
    calm.look(1200)
    calm.open(path)
    assert calm.evaluate("document.querySelectorAll('svg.timeline > a').length") == 500
    timing = calm.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    (pictures / "many.txt").write_text(f"500 VMs: {path.stat().st_size} bytes, loaded after {timing:.0f} ms\n")
    calm.picture(pictures / "report-many.png", 4000)
