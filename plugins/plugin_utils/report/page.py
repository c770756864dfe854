# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as one HTML file that asks nobody for anything, and as JSON."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
from typing import Any, Sequence

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import duration, size
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import STATES, Totals, Vm, text
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.table import headline

#: Version of the JSON report's format.
VERSION = 1


def _mbs(rate: float) -> str:
    return f"{rate / 1e6:.1f} MB/s" if rate > 0 else "–"


def html(vms: Sequence[Vm], totals: Totals, title: str, when: datetime.datetime) -> str:
    """The page. Every text in it comes from outside, so everything is escaped; a Content-Security-Policy forbids requests."""
    env = Environment(
        loader=FileSystemLoader(os.path.dirname(__file__)), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters.update(size=size, duration=duration, mbs=_mbs)
    return env.get_template("page.html.j2").render(
        vms=vms,
        details=sorted(enumerate(vms, 1), key=lambda entry: entry[1].state != "failed"),  # who needs somebody comes first
        totals=totals,
        title=text(title),
        when=when.astimezone().strftime("%Y-%m-%d %H:%M:%S %z"),
        headline=headline(totals),
        states=[state for state in STATES if totals.states[state]],
        longest=max([vm.seconds for vm in vms], default=0.0) or 1.0,
        whole=max(totals.capacity, totals.bytes_written + totals.bytes_resumed + totals.bytes_skipped, 1),
    )


def as_json(results: Sequence[Any], totals: Totals, title: str, when: datetime.datetime) -> str:
    """The results as they came in (plain types), with title, time and totals."""
    sums = dict(vars(totals).items())
    content = {"version": VERSION, "title": title, "time": when.astimezone().isoformat(timespec="seconds"), "totals": sums, "vms": results}
    return json.dumps(content, ensure_ascii=False, indent=2, sort_keys=False) + "\n"


def write(path: str, content: str) -> None:
    """Replace C(path) at once: a reader sees the old report or the new one. Its folder is made where it is missing."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    fd, temp = tempfile.mkstemp(prefix=".report-", dir=folder)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temp, 0o644 & ~_umask())
        os.replace(temp, path)
    except BaseException:
        os.unlink(temp)
        raise


def _umask() -> int:
    old = os.umask(0o077)
    os.umask(old)
    return old
