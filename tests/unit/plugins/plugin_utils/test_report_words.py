# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

from ansible_collections.ferry.vmware.plugins.action.migration_phase import PHASES
from ansible_collections.ferry.vmware.plugins.module_utils.concerns import CATEGORIES
from ansible_collections.ferry.vmware.plugins.plugin_utils import report
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.labels import Labels
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import STATES
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.wave import AGAIN, CUT, OPEN_STATES
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.words_ja import WORDS

FOLDER = Path(next(iter(report.__path__)))


def used() -> set[str]:
    """Every text that the report hands to its labels."""
    found: set[str] = set()
    for name in ("base.html.j2", "page.html.j2", "vm.html.j2"):
        source = (FOLDER / name).read_text()
        found |= set(re.findall(r"\bt\('([^']*)'", source))
        found |= {text for pair in re.findall(r"t\.count\([^,]+, '([^']*)', '([^']*)'\)", source) for text in pair}
    found |= set(re.findall(r'\bt\("([^"]*)"', (FOLDER / "charts.py").read_text()))
    found |= {AGAIN, CUT}
    return found | {word.replace("_", " ") for word in (*STATES, *OPEN_STATES, *PHASES, *CATEGORIES)}


def test_every_word_of_the_report_has_its_japanese() -> None:
    words = used()
    assert len(words) > 90
    assert sorted(words - WORDS.keys()) == []


@pytest.mark.parametrize("english", sorted(WORDS))
def test_the_fields_of_a_text_are_the_same(english: str) -> None:
    fields = [sorted(name for _text, name, _form, _conv in Formatter().parse(text) if name) for text in (english, WORDS[english])]
    assert fields[0] == fields[1]


def test_a_language_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="must be one of en, ja, got 'xx'"):
        Labels("xx")
    assert Labels("ja")("nobody has translated this") == "nobody has translated this"
    assert Labels("ja").state("rolled_back") == "切り戻し済み" and Labels().state("rolled_back") == "rolled back"
