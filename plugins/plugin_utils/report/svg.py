# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pictures of pages: inline SVG without a script, coloured by the classes of base.html.j2.

Everything is placed by percent of the width and by pixels of the height, so that a picture fills a desk's screen and a
phone's, and its letters keep their size on both (a viewBox would shrink them). Curves lie in an inner picture that is
stretched. Times are seconds since the epoch, shown in this machine's time zone. Each text is escaped here.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, field
from typing import Callable, Sequence

from markupsafe import Markup, escape

from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import text

#: Distances between the marks of a time axis, in seconds.
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 2 * 86400, 7 * 86400, 30 * 86400)
#: Height of the letters below and above a chart, in pixels.
LETTERS = 16
#: Height that curves are drawn in before they are stretched; in width, each value takes 1. So all their numbers are short.
HIGH = 200


@dataclass(frozen=True)
class Bar:
    """A stretch of time of one row. C(kind) is a class of base.html.j2 (a phase's name)."""

    began: float
    ended: float
    kind: str
    title: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a timeline."""

    bars: Sequence[Bar]
    title: str = ""
    link: str = ""


@dataclass(frozen=True)
class Series:
    """One curve: values at equal distances, from the left end of the chart to its right one."""

    kind: str
    values: Sequence[float]


@dataclass(frozen=True)
class Span:
    """A stretch of time that a chart shows; at least a second."""

    began: float
    ended: float
    seconds: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", max(1.0, self.ended - self.began))

    def percent(self, moment: float) -> float:
        """Where C(moment) lies, from 0 to 100."""
        return min(100.0, max(0.0, 100 * (moment - self.began) / self.seconds))


def said(words: str) -> Markup:
    """A text from outside, as it may stand in a picture."""
    return escape(text(words))


def short(value: float) -> str:
    """A coordinate with as few characters as it needs: pages of 500 VMs have tens of thousands of them."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def local(moment: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(moment).astimezone()


def time_ticks(span: Span, most: int = 6) -> list[tuple[float, str]]:
    """Round times within C(span) with their labels, at most C(most)."""
    step = next((s for s in STEPS if span.seconds / s <= most), STEPS[-1] * math.ceil(span.seconds / STEPS[-1] / most))
    form = "%H:%M:%S" if step < 60 else "%H:%M" if span.seconds < 20 * 3600 else "%m-%d" if step >= 86400 else "%m-%d %H:%M"
    offset = (local(span.began).utcoffset() or datetime.timedelta()).total_seconds()
    first = math.ceil((span.began + offset) / step) * step - offset
    return [(at, local(at).strftime(form)) for at in (first + n * step for n in range(most + 1)) if at <= span.began + span.seconds]


def value_ticks(top: float, most: int = 4) -> list[float]:
    """Round values from 0 to at least C(top), the last one above or at it."""
    if not top > 0 or not math.isfinite(top):
        return [0.0, 1.0]
    power = 10 ** math.floor(math.log10(top / most))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if top / (m * power) <= most)
    return [n * step for n in range(math.ceil(top / step - 1e-9) + 1)]


def _svg(parts: Sequence[str], height: float, label: str, kind: str) -> Markup:
    head = f'<svg class="chart {said(kind)}" width="100%" height="{short(height)}" role="img" aria-label="{said(label)}">'
    return Markup(head + "".join(parts) + "</svg>")  # every text in it went through said()


def _time_axis(span: Span, height: float, most: int = 6) -> list[str]:
    """Thin lines at round times, and the times below them."""
    out = []
    for at, label in time_ticks(span, most):
        x = span.percent(at)
        anchor = "start" if x < 4 else "end" if x > 96 else "middle"
        out.append(f'<line class="grid" x1="{short(x)}%" x2="{short(x)}%" y1="0" y2="{short(height)}"/>')
        out.append(f'<text x="{short(x)}%" y="{short(height + LETTERS - 4)}" text-anchor="{anchor}">{said(label)}</text>')
    return out


def _long(span: Span) -> bool:
    return span.seconds >= 20 * 3600


def timeline(rows: Sequence[Row], span: Span, label: str, *, row_height: float = 22, now: float | None = None) -> Markup:
    """Rows of bars over time. The rows' names stand beside it (class C(lanes) of base.html.j2), with the same C(row_height).

    :param row_height: pixels; a bar takes 60 percent of it.
    :param now: a line at this time.
    """
    height = row_height * len(rows)
    thick = min(row_height, max(2.0, row_height * 0.6))
    out = _time_axis(span, height, 4 if _long(span) else 6)
    for n, row in enumerate(rows):
        y = short(n * row_height + (row_height - thick) / 2)
        marks = []
        for b in row.bars:
            x = span.percent(b.began)
            width = max(0.15, span.percent(b.ended) - x)
            title = f"<title>{said(b.title)}</title>" if b.title else ""
            end = f">{title}</rect>" if title else "/>"
            marks.append(f'<rect class="ph-{said(b.kind)}" x="{short(x)}%" y="{y}" width="{short(width)}%" height="{short(thick)}"{end}')
        group = "".join(marks)
        if row.title:
            group = f"<title>{said(row.title)}</title>{group}"
        out.append(f'<a href="{said(row.link)}">{group}</a>' if row.link else f"<g>{group}</g>")
    if now is not None:
        at = short(span.percent(now))
        out.append(f'<line class="now" x1="{at}%" x2="{at}%" y1="0" y2="{short(height)}"/>')
    return _svg(out, height + LETTERS, label, "timeline")


def _path(values: Sequence[float], top: float, closed: bool) -> str:
    points = [f"{n},{HIGH - HIGH * min(max(v, 0.0), top) / top if math.isfinite(v) else HIGH:.0f}" for n, v in enumerate(values)]
    if not points:
        return f"M0,{HIGH}"
    if len(points) == 1:
        points.append(f"1,{points[0].partition(',')[2]}")
    if closed:
        return f"M0,{HIGH}L{' '.join(points)} {len(points) - 1},{HIGH}Z"
    return f"M{' '.join(points)}"


def _stretched(parts: Sequence[str], values: int, height: float) -> str:
    """An inner picture that fills the outer one."""
    head = f'<svg width="100%" height="{short(height)}" viewBox="0 0 {max(1, values - 1)} {HIGH}" preserveAspectRatio="none">'
    return head + "".join(parts) + "</svg>"


def curves(series: Sequence[Series], span: Span, label: str, tell: Callable[[float], str], *, height: float = 130) -> Markup:
    """Filled curves over time, the first one behind.

    :param tell: how a value is written at the left axis.
    """
    top_value = max([v for s in series for v in s.values if math.isfinite(v)], default=0.0)
    ticks = value_ticks(top_value)
    top = ticks[-1]
    out = _time_axis(span, height, 4 if _long(span) else 6)
    marks, words = _value_axis(ticks, height, tell)
    inner = []
    for s in series:
        inner.append(f'<path class="area cv-{said(s.kind)}" d="{_path(s.values, top, True)}"/>')
        inner.append(f'<path class="line cv-{said(s.kind)}" d="{_path(s.values, top, False)}"/>')
    drawn = _stretched(inner, max([len(s.values) for s in series], default=1), height)
    out += [*marks, drawn, *words]
    return _svg(out, height + LETTERS, label, "curves")


def _value_axis(ticks: Sequence[float], height: float, tell: Callable[[float], str]) -> tuple[list[str], list[str]]:
    """Lines, which stand behind what is drawn, and their values, which stand before it."""
    lines, words = [], []
    for tick in ticks:
        y = height - height * tick / ticks[-1]
        lines.append(f'<line class="grid" x1="0" x2="100%" y1="{short(y)}" y2="{short(y)}"/>')
        if tick and y < height - 8:
            words.append(f'<text x="0" y="{short(y + 11)}">{said(tell(tick))}</text>')
    return lines, words


def spark(values: Sequence[float], label: str, kind: str = "copy", height: float = 36) -> Markup:
    """A small curve without axes."""
    top = max([v for v in values if math.isfinite(v)], default=0.0) or 1.0
    body = f'<path class="both cv-{said(kind)}" d="{_path(values, top, True)}"/>'
    return _svg([_stretched([body], len(values), height)], height, label, "spark")


def columns(
    values: Sequence[float | None],
    label: str,
    tell: Callable[[float], str],
    *,
    titles: Sequence[str] = (),
    marks: Sequence[str] = (),
    limit: float | None = None,
    kind: str = "copy",
    height: float = 110,
) -> Markup:
    """One column per value, from the left; None leaves its place free.

    :param titles: what a pointer shows over each.
    :param marks: what stands below each; where there are many, only some are written.
    :param limit: a dashed line; columns above it have the class C(over).
    """
    known = [v for v in values if v is not None and math.isfinite(v)]
    ticks = value_ticks(max([*known, limit or 0.0], default=0.0), 3)
    out, words = _value_axis(ticks, height, tell)
    place = 100 / max(1, len(values))
    every = math.ceil(len(values) / 12) if values else 1
    for n, value in enumerate(values):
        x = n * place
        if n < len(marks) and n % every == 0:
            out.append(f'<text x="{short(x + place / 2)}%" y="{short(height + LETTERS - 4)}" text-anchor="middle">{said(marks[n])}</text>')
        if value is None or not math.isfinite(value):
            continue
        tall = max(1.5, height * value / ticks[-1])
        over = " over" if limit is not None and value > limit else ""
        title = f"<title>{said(titles[n])}</title>" if n < len(titles) and titles[n] else ""
        out.append(
            f'<rect class="col cv-{said(kind)}{over}" x="{short(x + place * 0.18)}%" y="{short(height - tall)}"'
            f' width="{short(place * 0.64)}%" height="{short(tall)}">{title}</rect>'
        )
    if limit is not None and limit <= ticks[-1]:
        y = short(height - height * limit / ticks[-1])
        out.append(f'<line class="limit" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
    return _svg([*out, *words], height + (LETTERS if marks else 2), label, "columns")
