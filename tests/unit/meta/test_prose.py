# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What README and guides name exists: targets of make, files, modules and playbooks, variables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[3]
PROSE = sorted(str(f.relative_to(TOP)) for f in [*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md"), *(TOP / "docs").rglob("*.rst")])
FOLDERS = ("plugins", "roles", "playbooks", "tests", "tools", "docs", "demo", "meta", "requirements", "extensions", "changelogs")


def targets() -> set[str]:
    """What make can make: targets by name, and bench-NAME for each measurement."""
    named = set(re.findall(r"^([a-z][a-z0-9-]*):", (TOP / "Makefile").read_text(), re.MULTILINE))
    lists = re.findall(r"^(?:\.PHONY|LINTS) ?:?= ?(.*)$|^\.PHONY: (.*)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    named |= {word for pair in lists for text in pair for word in text.split()}
    return named | {f.stem.replace("bench_", "bench-", 1) for f in (TOP / "tests" / "bench").glob("bench_*.py")}


def things() -> set[str]:
    """What can stand behind ferry.vmware. in a playbook or on a command line."""
    found = {f.stem for kind in ("modules", "inventory", "callback") for f in (TOP / "plugins" / kind).glob("*.py")}
    found |= {f.stem for f in [*(TOP / "playbooks").glob("*.yml"), *(TOP / "extensions" / "eda" / "rulebooks").glob("*.yml")]}
    return found | {f.name for f in (TOP / "roles").glob("*")} | {"docsite"}  # the prefix of the guides' labels


@pytest.mark.parametrize("name", PROSE)
def test_targets_exist(name: str) -> None:
    text = (TOP / name).read_text()
    fenced = [line for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
    quoted = re.findall(r"``?([^`\n]+)``?", text) + fenced + re.findall(r"^ +(\$ make .*)$", text, re.MULTILINE)
    named = {t for line in quoted for t in re.findall(r"^\$? ?make ((?:[a-z][a-z-]+ ?)+)", line)}
    assert {t for words in named for t in words.split()} - targets() == set()


@pytest.mark.parametrize("name", PROSE)
def test_files_exist(name: str) -> None:
    """A path in backticks that begins with one of the project's folders; a NAME in it stands for many."""
    text = (TOP / name).read_text()
    paths = {p for p in re.findall(r"``?([\w.-]+/[\w./-]*)``?", text) if p.split("/")[0] in FOLDERS and "NAME" not in p}
    paths |= set(re.findall(r"\]\(([\w./-]+)\)", text))
    assert {p for p in paths if not ((TOP / p).exists() or (TOP / name).parent.joinpath(p).exists())} == set()


@pytest.mark.parametrize("name", PROSE)
def test_plugins_and_playbooks_exist(name: str) -> None:
    found = set(re.findall(r"\bferry\.vmware\.([a-z][a-z_0-9]+)", (TOP / name).read_text()))
    assert found - things() == set()


@pytest.mark.parametrize("name", PROSE)
def test_variables_exist(name: str) -> None:
    """A variable ferry_... that a text names is read by a role, a playbook or a plugin."""
    named = set(re.findall(r"\bferry_[a-z_]+[a-z]\b", (TOP / name).read_text()))
    sources = [
        f
        for folder in ("roles", "playbooks", "plugins", "extensions")
        for f in (TOP / folder).rglob("*")
        if f.suffix in (".yml", ".py", ".j2")
    ]
    known = {v for f in sources for v in re.findall(r"\bferry_[a-z_]+[a-z]\b", f.read_text())}
    assert named - known == set()
