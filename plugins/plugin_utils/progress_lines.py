# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Figures and progress lines for people. Widths are cells of a terminal: an East Asian wide character takes two."""

from __future__ import annotations

import unicodedata
from typing import Any, Mapping

from ansible_collections.ferry.vmware.plugins.module_utils.disk import metrics

#: Phases whose figures are percent, not bytes.
PERCENT_PHASES = metrics.PERCENT_PHASES

#: Cells kept for the name at the left of a line; a longer one pushes the figures to the right rather than being cut.
NAME_CELLS = 26


def cells(text: str) -> int:
    """How many cells C(text) takes in a terminal (UAX 11; combining and format characters take none)."""
    width = 0
    for c in text:
        if unicodedata.combining(c) or unicodedata.category(c) in ("Cf", "Mn", "Me"):
            continue
        width += 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1
    return width


def pad(text: str, width: int, right: bool = False) -> str:
    """C(text) filled up with spaces to C(width) cells; never cut."""
    fill = " " * max(0, width - cells(text))
    return fill + text if right else text + fill


def printable(text: object, limit: int = 60) -> str:
    """A name from outside on one line: what a terminal would obey is escaped, and it is at most C(limit) cells wide."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)[: limit * 2])
    if cells(safe) <= limit:
        return safe
    while cells(safe) > limit - 1:
        safe = safe[:-1]
    return safe + "…"


def size(count: float) -> str:
    """Bytes with a binary unit: C(41.9 MiB)."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1023.95 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def pair(done: float, total: float) -> str:
    """C(19.9 of 41.9 MiB): both in the unit of C(total)."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = 0
    while power < 4 and total / 1024**power >= 1023.95:
        power += 1
    digits = 0 if power == 0 else 1
    return f"{done / 1024**power:.{digits}f} of {total / 1024**power:.{digits}f} {units[power]}"


def speed(rate: float) -> str:
    """Bytes per second in decimal megabytes, as networks and disks are sold: C(310.0 MB/s)."""
    return f"{rate / 1e6:.1f} MB/s"


def clock(seconds: float) -> str:
    """C(00:00:07); days where there are any."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}d {text}" if days else text


def duration(seconds: float) -> str:
    """A time that has passed: tenths below a minute (C(7.4 s)), else as a clock."""
    return f"{seconds:.1f} s" if seconds < 59.95 else clock(seconds)


def _number(facts: Mapping[str, Any], key: str) -> float:
    value = facts.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0


def title(subject: str, label: str) -> str:
    """C(db01 · Hard disk 2); a file that is its own only disk is named once."""
    parts = [printable(part) for part in (subject, label) if part]
    return parts[1] if len(parts) == 2 and parts[0].rpartition("/")[2] == parts[1] else " · ".join(parts)


def _head(subject: str, label: str, width: int) -> str:
    return "  " + pad(title(subject, label), width)


def running_line(subject: str, label: str, facts: Mapping[str, Any], unit: str = "bytes", width: int = NAME_CELLS) -> str:
    """The line of a disk under way.

    :param facts: its part of the status file (see the data plane's progress.py).
    """
    done, total = _number(facts, "done"), _number(facts, "total")
    phase = printable(facts.get("phase") or "", 20)
    percent = f"{min(100.0, 100 * done / total):5.1f}%" if total > 0 else "     –"
    if phase in PERCENT_PHASES:
        amount = rate = ""
    elif unit == "bytes":
        amount = pair(done, total) if total > 0 else size(done)
        rate = speed(_number(facts, "rate"))
    else:
        amount = f"{done:.0f} of {total:.0f} {unit}" if total > 0 else f"{done:.0f} {unit}"
        rate = ""
    left = facts.get("left")
    rest = f"{clock(_number(facts, 'left'))} left" if left is not None else ""
    parts = [_head(subject, label, width), percent, pad(amount, 22, right=True), pad(rate, 13, right=True), pad(rest, 15, right=True)]
    tail = ", ".join(x for x in (phase if phase not in ("", "copy") else "", printable(facts.get("why") or "", 80)) if x)
    return ("  ".join([parts[0], *parts[1:]]) + (f"  {tail}" if tail else "")).rstrip()


def final_line(subject: str, label: str, facts: Mapping[str, Any], unit: str = "bytes", width: int = NAME_CELLS) -> str:
    """The last line of a disk: what was moved, what was skipped, and the time it took."""
    done, total, skipped = (_number(facts, key) for key in ("done", "total", "skipped"))
    done = max(done, skipped)
    seconds = _number(facts, "seconds")
    moved = max(0.0, done - skipped)
    if facts.get("state") == "failed":
        amount = pair(done, total) if unit == "bytes" else f"{done:.0f} of {total:.0f} {unit}"
        said = printable(facts.get("why") or "", 120)
        return f"{_head(subject, label, width)}  failed at {amount} after {duration(seconds)}" + (f"  {said}" if said else "")
    if facts.get("phase") in PERCENT_PHASES:
        text = "snapshot taken and removed"
    elif unit == "bytes":
        text = f"{pad(size(done), 22, right=True)}  moved {size(moved)}, skipped {size(skipped)}, in {duration(seconds)}"
        if seconds > 0 and moved > 0:
            text += f" ({speed(moved / seconds)})"
    else:
        text = f"{pad(f'{done:.0f} {unit}', 22, right=True)}  in {duration(seconds)}"
    said = printable(facts.get("why") or "", 80)
    return f"{_head(subject, label, width)}    done  {text}" + (f"  {said}" if said else "")
