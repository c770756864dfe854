# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan's page as people see it, in headless Chromium. The pictures stay below build/reports of the stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils.plan import page
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan.estimate import Terms

from .browser import Browser, browser, needs_browser
from .plan_rows import disk, given, plan_of

pytestmark = needs_browser

EVIL = "<img src=x onerror=alert(1)>\"'><svg onload=alert(2)>"
RATES = {"throughput": {"transports": {"https": {"rate": 180_000_000, "count": 4}}, "steps": {}}, "budget": None, "disks": []}
CONCERN = {"id": "vmware.x", "category": "warning", "label": "bad", "assessment": "it is bad " * 8, "advice": "mend it"}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def scene(number: int = 14) -> dict[str, Any]:
    """A wave of large and small VMs, warm and cold, with things in its way."""
    wave = [
        given(
            n,
            terms=Terms(strategy="warm" if n % 3 == 0 else "cold"),
            name=EVIL if n == 2 else f"在庫管理-{n:02}" if n % 2 else f"web{n:02}",
            disks=[disk(2000 + k, gib=(n * 37) % 90 + 5) for k in range(1 + n % 3)],
        )
        for n in range(1, number + 1)
    ]
    concerns = [
        {"moref": f"vm-{n}", "concerns": [{**CONCERN, "category": "critical" if n == 4 else "warning"}]} for n in range(1, number, 3)
    ]
    quotas = [{"what": "gigabytes", "needed": 900, "used": 200, "limit": 1000}, {"what": "cores", "needed": 20, "used": 4, "limit": -1}]
    return plan_of(*wave, forks=4, machines={"localhost": RATES}, precheck={"vms": concerns}, landing={"quotas": quotas})


@pytest.mark.parametrize(
    ("name", "width", "dark", "paper"),
    [("light", 1200, False, False), ("dark", 1200, True, False), ("phone", 390, False, False), ("paper", 760, False, True)],
)
def test_the_page(tmp_path: Path, top: Path, tab: Browser, name: str, width: int, dark: bool, paper: bool) -> None:
    path = tmp_path / "plan.html"
    path.write_text(page.html(scene(), [{"text": f"web03: the flavor was {EVIL}, it is m1.large"}]), encoding="utf-8")
    tab.said.clear()
    tab.asked.clear()
    tab.look(width, dark=dark, paper=paper)
    tab.open(path)
    assert tab.said == [] and {url.partition(":")[0] for url in tab.asked} <= {"file", "data"}
    assert tab.evaluate("document.querySelectorAll('img, main svg svg, script').length") == 0
    drawn = tab.evaluate("[...document.querySelectorAll('svg.timeline rect')].filter(e => e.getBoundingClientRect().width > 0).length")
    assert drawn >= 14 * 4
    box = tab.evaluate("(b => [b.width, b.height])(document.querySelector('svg.timeline').getBoundingClientRect())")
    assert box[0] > 250 and box[1] >= 80
    assert tab.evaluate("document.documentElement.scrollWidth") <= width, "nothing scrolls sideways"
    assert tab.evaluate("document.querySelectorAll('details.vm').length") == 14
    assert tab.evaluate("document.querySelectorAll('details.vm[open]').length") == 1, "what cannot go is open"
    tab.picture(top / "build" / "reports" / f"plan-{name}.png", most=3000)


def test_five_hundred_machines_are_shown_quickly(tmp_path: Path, tab: Browser) -> None:
    path = tmp_path / "plan.html"
    path.write_text(page.html(scene(500)), encoding="utf-8")
    tab.look(1200)
    tab.open(path)
    spent = tab.evaluate("(e => e.domContentLoadedEventEnd - e.responseEnd)(performance.getEntriesByType('navigation')[0])")
    assert path.stat().st_size < 3_000_000 and tab.evaluate("document.querySelectorAll('details.vm').length") == 500
    print(f"{spent:.0f} ms, {path.stat().st_size} bytes")
