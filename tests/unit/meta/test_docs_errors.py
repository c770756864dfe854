# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guide about troubleshooting has an entry for each code of an error, with messages that there are."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

GUIDE = "docs/docsite/rst/troubleshooting.rst"
ENTRY = re.compile(r"^``(\w+)``\n((?:   .*\n|\n)+)", re.MULTILINE)


def text_of(node: ast.expr) -> str:
    """The text of a literal, with … for each value in it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
    return str(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


@pytest.fixture(scope="module")
def codes(top: Path) -> dict[str, set[str]]:
    """The codes that are in the sources, each with the messages that come with it, as far as they are literals."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in (top / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    if keyword.arg == "code" and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str):
                        found[keyword.value.value].add(text_of(node.args[0]) if node.args else "")
            elif isinstance(node, ast.ClassDef) and any(text.endswith(("Error", "Exception")) for text in map(ast.unparse, node.bases)):
                for line in node.body:
                    if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "code" and isinstance(line.value, ast.Constant):
                        found[str(line.value.value)].add("")
    return found


@pytest.fixture(scope="module")
def entries(top: Path) -> dict[str, str]:
    return dict(ENTRY.findall((top / GUIDE).read_text(encoding="utf-8")))


def test_each_code_has_an_entry_and_each_entry_is_a_code(codes: dict[str, set[str]], entries: dict[str, str]) -> None:
    assert codes.keys() - entries.keys() == set(), f"say in {GUIDE} what to do"
    assert entries.keys() - codes.keys() == set(), f"no error has this code any more: {GUIDE}"


def test_messages_in_the_guide_are_those_of_the_sources(codes: dict[str, set[str]], entries: dict[str, str]) -> None:
    """A reader searches for what the terminal shows. C(…) in the guide stands for a value."""
    wrong = []
    for code, entry in entries.items():
        shown = re.findall(r"\| \*(.+?)\*(?=\n(?:   \||\n))", entry, re.DOTALL)
        known = {" ".join(message.split()) for message in codes.get(code, set())}
        wrong += [f"{code}: {text}" for text in (" ".join(s.split()) for s in shown) if text not in known]
    assert wrong == []


def test_each_entry_says_what_to_do(entries: dict[str, str]) -> None:
    silent = [code for code, entry in entries.items() if not re.search(r"^   (?![| ])\S", entry, re.MULTILINE)]
    assert silent == []
