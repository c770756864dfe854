# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report's pictures, from its entries: who did what when, and how many bytes moved. Seconds and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

from markupsafe import Markup

from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import duration, size
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.history import Attempt, Phase, Samples
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.labels import Labels
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import Vm
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.svg import Bar, Row, Series, Span, columns, curves, local, spark, timeline
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.wave import Entry, shown_attempts

#: Points of the wave's curve, of a VM's, and columns of a VM's cycles.
POINTS, FEW_POINTS, MOST_COLUMNS = 160, 48, 60
#: Up to so many VMs a timeline has rows with names, and rows that are lower but named.
NAMED, LOW = 40, 150
#: Height in pixels of a timeline whose rows have no names, about.
TALL = 900
#: From so many VMs on a bar does not tell its times.
QUIET = 120


@dataclass(frozen=True)
class Lane:
    """A name beside the timeline."""

    name: str
    link: str


@dataclass(frozen=True)
class Picture:
    """The timeline with what stands beside and below it. C(lanes) is empty where there are too many rows for names."""

    svg: Markup
    lanes: list[Lane]
    row_height: float
    kinds: list[str]
    began: float
    ended: float


def mb(rate: float) -> str:
    return f"{rate / 1e6:g} MB/s"


def span_of(entries: Sequence[Entry], attempts: Sequence[Sequence[Attempt]], now: float) -> Span | None:
    """From the first thing that is shown to the last one, or to now while something runs."""
    every = [a for some in attempts for a in some]
    if not every:
        return None
    going = any(e.vm.state in ("running", "waiting") for e in entries)
    return Span(min(a.began for a in every), now if going else max(a.until() for a in every))


def picture(entries: Sequence[Entry], t: Labels, now: float) -> Picture | None:
    """The timeline of a wave; None where nothing is known of times."""
    attempts = shown_attempts(entries)
    span = span_of(entries, attempts, now)
    if span is None:
        return None
    height = 22 if len(entries) <= NAMED else 15 if len(entries) <= LOW else max(2.0, round(TALL / len(entries), 1))
    rows, kinds = [], {}
    for n, (entry, some) in enumerate(zip(entries, attempts, strict=True), 1):
        bars = []
        for attempt in some:
            old = attempt is not entry.now or entry.old
            for phase in attempt.phases:
                drawn = _bar(phase, attempt, entry, old, t, now)
                kinds[drawn.kind.partition(" ")[0]] = True
                bars.append(drawn if len(entries) <= QUIET else Bar(drawn.began, drawn.ended, drawn.kind))
        state = t.state(entry.vm.state) + (f" ({t.state(entry.phase)})" if entry.phase else "")
        rows.append(Row(bars, f"{entry.vm.name}: {state}", f"#vm{n}"))
    going = any(e.vm.state == "running" for e in entries)
    shown = timeline(rows, span, t("What each machine did, over time"), row_height=height, now=now if going else None)
    lanes = [Lane(e.vm.name, f"#vm{n}") for n, e in enumerate(entries, 1)] if len(entries) <= LOW else []
    order = ("precheck", "plan", "prepare", "precopy", "copy", "verify", "cutover", "convert", "land", "ready", "note", "failed")
    return Picture(shown, lanes, height, [k for k in order if k in kinds], span.began, span.began + span.seconds)


def _bar(phase: Phase, attempt: Attempt, entry: Entry, old: bool, t: Labels, now: float) -> Bar:
    lasts = phase.ended is None and not old and entry.vm.state == "running"
    ended = now if lasts else attempt.until() if phase.ended is None else phase.ended
    kind = "failed" if phase.failed else phase.name
    if phase.ended is None and not lasts:
        kind += " cut"
    times = f"{local(phase.began):%H:%M:%S} – {'…' if lasts else format(local(ended), '%H:%M:%S')}"
    title = f"{t.state(phase.name)}{' – ' + t('failed') if phase.failed else ''}: {duration(ended - phase.began)} ({times})"
    return Bar(phase.began, ended, f"{kind} earlier" if old else kind, title)


def _spread(samples: Samples, began: float, span: Span, points: int, kind: str, into: list[float]) -> None:
    """Add an attempt's bytes to the C(points) stretches of C(span), as rates."""
    bins: list[int] = getattr(samples, kind)
    width = span.seconds / points
    for n, amount in enumerate(bins):
        if not amount:
            continue
        first = (began - span.began + n * samples.width) / width
        last = first + samples.width / width
        rate = amount / samples.width
        at = max(0, int(first))
        while at < points and at < last:
            into[at] += rate * (min(last, at + 1) - max(first, at))
            at += 1


def throughput(entries: Sequence[Entry], t: Labels, now: float) -> tuple[Markup, float] | None:
    """The wave's curve of bytes moved and verified, and the greatest rate of moving; None where nothing was measured."""
    attempts = shown_attempts(entries)
    span = span_of(entries, attempts, now)
    if span is None:
        return None
    points = max(2, min(POINTS, int(span.seconds)))
    series = []
    for kind, drawn in (("verified", "verify"), ("moved", "copy")):
        values = [0.0] * points
        for attempt in (a for some in attempts for a in some):
            _spread(attempt.samples, attempt.began, span, points, kind, values)
        if any(values):
            series.append(Series(drawn, [round(v, 1) for v in values]))
    if not series:
        return None
    top = max([*[v for s in series if s.kind == "copy" for v in s.values], 0.0])
    return curves(series, span, t("Throughput over time"), mb), top


def small_curve(entry: Entry, t: Labels) -> tuple[Markup, float] | None:
    """A VM's own throughput in this run, and its greatest rate; None where there is too little to draw."""
    if entry.now is None:
        return None
    samples = entry.now.samples
    if sum(1 for v in samples.moved if v) < 3:
        return None
    span = Span(entry.now.began, entry.now.began + samples.width * len(samples.moved))
    points = min(FEW_POINTS, len(samples.moved))
    values = [0.0] * points
    _spread(samples, entry.now.began, span, points, "moved", values)
    return spark([round(v) for v in values], t("Throughput over time")), max(values)


def cycle_charts(vm: Vm, t: Labels, most: int = MOST_COLUMNS) -> list[tuple[str, Markup]]:
    """What changed per cycle, and the downtime predicted after each; nothing for fewer than two cycles. The last C(most) of them."""
    cycles = vm.cycles[-most:] if most else []
    budget = vm.downtime.budget if vm.downtime is not None else None
    if len(cycles) < 2:
        return []
    marks = [str(c.number) for c in cycles]
    changed = [float(c.changed_bytes) if c.mode == "incremental" else None for c in cycles]
    out = []
    if any(v for v in changed if v):
        out.append((t("Changed per cycle"), _columns(changed, t("Changed per cycle"), size, marks)))
    predicted = [c.predicted for c in cycles]
    if any(v is not None for v in predicted):
        caption = t("Downtime predicted after each cycle") + (f" ({t('allowed: {time}', time=duration(budget))})" if budget else "")
        out.append((caption, _columns(predicted, caption, duration, marks, budget, "cutover")))
    return out


def _columns(
    values: Sequence[float | None],
    label: str,
    tell: Callable[[float], str],
    marks: Sequence[str],
    limit: float | None = None,
    kind: str = "precopy",
) -> Markup:
    titles = ["" if v is None else f"{m}: {tell(v)}" for m, v in zip(marks, values, strict=True)]
    return columns(values, label, tell, titles=titles, marks=marks, limit=limit, kind=kind)
