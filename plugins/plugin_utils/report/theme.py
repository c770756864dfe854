# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all pages share: the template environment, figures as texts, and the language.

A page extends base.html.j2 (blocks C(head), C(summary), C(content)) and is rendered by C(render). It is one file that asks
nobody for anything: a Content-Security-Policy forbids requests, and the one script that a live page has is named there by its hash.
"""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import os
import re
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import duration, size
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.labels import Labels
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import text

_FOLDER = os.path.dirname(__file__)
_INDENT = re.compile(r"\n\s+")
#: Reloads a page while it is being written, and says when it no longer is. Nothing of it depends on what is shown.
_RELOAD = """(()=>{const d=document,a=d.getElementById('age'),w=+a.dataset.written,e=+a.dataset.every,o=+a.dataset.old,
t=()=>{const s=Date.now()/1000-w;if(s>o){a.hidden=false;a.querySelector('b').textContent=Math.round(s/60)}};
t();setInterval(t,5000);setInterval(()=>{if(!d.hidden&&!String(getSelection()))location.reload()},e*1000)})()"""


def mbs(rate: float) -> str:
    """Bytes per second in MB/s; a dash where nothing moved."""
    return f"{rate / 1e6:.1f} MB/s" if rate > 0 else "–"


def moment(seconds: float) -> str:
    """Seconds since the epoch as this machine's local time."""
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


@functools.lru_cache(maxsize=4)
def environment(*folders: str) -> Environment:
    """Templates of C(folders), then those that all pages share; compiled once. Every text in a page comes from outside, so everything is escaped."""
    env = Environment(
        loader=FileSystemLoader([*folders, _FOLDER]), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters.update(size=size, duration=duration, mbs=mbs, moment=moment)
    return env


def render(template: str, *folders: str, title: str, when: datetime.datetime, language: str = "en", every: float = 0, **facts: Any) -> str:
    """A page.

    :param template: its file's name, looked for in C(folders) and here.
    :param when: when it was written.
    :param language: C(en) or C(ja).
    :param every: it is written again after about so many seconds, and reloads itself; 0: it is finished.
    :raises ValueError: for a language that is not known.
    """
    script = _RELOAD if every else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = (
        environment(*folders)
        .get_template(template)
        .render(
            t=Labels(language),
            title=text(title),
            when=when.astimezone().strftime("%Y-%m-%d %H:%M:%S %z"),
            written=f"{when.timestamp():.0f}",
            every=every,
            script=Markup(script),  # a constant of this file
            script_hash=digest if every else "",
            **facts,
        )
    )
    # Indentation is a fifth of a page of many VMs; nothing in it is preformatted, and the script has none.
    return _INDENT.sub("\n", page)
