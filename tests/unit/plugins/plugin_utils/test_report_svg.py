# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import itertools
import re
from xml.etree import ElementTree

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils.report import svg

from .report_scene import BEGAN, EVIL

SECONDS = (0, 0.3, 5, 59, 61, 600, 3600, 4 * 3600, 86400, 5 * 86400, 60 * 86400, 900 * 86400)


def shapes(picture: object) -> ElementTree.Element:
    """It is well-formed also where XML is asked for, not only where browsers forgive."""
    return ElementTree.fromstring(str(picture))


@pytest.mark.parametrize("seconds", SECONDS)
def test_times_on_an_axis_are_round_and_few(seconds: float) -> None:
    span = svg.Span(BEGAN + 17, BEGAN + 17 + seconds)
    ticks = svg.time_ticks(span)
    assert len(ticks) <= 7 and (ticks or seconds < 2)
    assert all(span.began <= at <= span.began + span.seconds for at, _label in ticks)
    steps = {round(b - a) for (a, _left), (b, _right) in itertools.pairwise(ticks)}
    assert len(steps) <= 1
    assert len({label for _at, label in ticks}) == len(ticks), "no two of them look the same"
    for at, label in ticks:
        if re.fullmatch(r"\d\d:\d\d", label):
            local = datetime.datetime.fromtimestamp(at).astimezone()
            assert local.second == 0 and f"{local:%H:%M}" == label


@pytest.mark.parametrize("top", [0, -1, float("nan"), float("inf"), 0.003, 1, 7, 99, 100, 101, 3.2e9, 1e-9])
def test_values_on_an_axis_are_round_and_reach_the_top(top: float) -> None:
    ticks = svg.value_ticks(top)
    assert ticks[0] == 0 and 2 <= len(ticks) <= 6 and ticks == sorted(ticks)
    if 0 < top < float("inf"):
        assert top <= ticks[-1] * (1 + 1e-9) and ticks[-1] < 3 * top


def test_a_timeline_places_bars_by_percent_and_never_outside() -> None:
    bars = [
        svg.Bar(BEGAN - 50, BEGAN + 50, "copy"),
        svg.Bar(BEGAN + 100, BEGAN + 500, "verify", EVIL),
        svg.Bar(BEGAN + 10, BEGAN + 10, "note"),
    ]
    drawn = shapes(
        svg.timeline([svg.Row(bars, EVIL, "#vm1"), svg.Row([])], svg.Span(BEGAN, BEGAN + 200), EVIL.replace("\x1b", ""), now=BEGAN + 150)
    )
    rects = [(float(r.get("x", "")[:-1]), float(r.get("width", "")[:-1])) for r in drawn.iter("rect")]
    assert rects == [(0, 25), (50, 50), (5, 0.15)]
    assert drawn.get("width") == "100%" and float(drawn.get("height", "")) == 2 * 22 + svg.LETTERS
    assert drawn.find("a") is not None and [e.tag for e in drawn.iter("title")]


@pytest.mark.parametrize("values", [[], [0], [5], [0, 0, 0], [1, 2, float("nan"), float("inf"), -4, 3]])
def test_curves_of_odd_values_can_be_drawn(values: list[float]) -> None:
    for picture in (
        svg.curves([svg.Series("copy", values)], svg.Span(BEGAN, BEGAN + 60), "x", str),
        svg.spark(values, "x"),
        svg.columns(values, "x", str, marks=[str(n) for n in range(len(values))], titles=[EVIL.replace("\x1b", "")] * len(values), limit=2),
    ):
        shapes(picture)
        assert not re.search(r"[\s,\"M](nan|inf|-\d)", str(picture))


def test_texts_of_pictures_are_escaped() -> None:
    evil = EVIL.replace("\x1b", "")
    row = svg.Row([svg.Bar(BEGAN, BEGAN + 5, evil, evil)], evil, evil)
    for picture in (
        svg.timeline([row], svg.Span(BEGAN, BEGAN + 5), evil),
        svg.spark([1.0], evil, evil),
        svg.curves([svg.Series(evil, [1.0])], svg.Span(BEGAN, BEGAN + 5), evil, lambda value: evil),
        svg.columns([1.0], evil, lambda value: evil, titles=[evil], marks=[evil], kind=evil),
    ):
        assert "script" not in {element.tag for element in shapes(picture).iter()}
        assert not [name for element in shapes(picture).iter() for name in element.attrib if name.startswith("on")]
