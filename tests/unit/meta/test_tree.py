# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for every file and every role."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).resolve().parents[3]
ROLES = sorted(f.name for f in (TOP / "roles").glob("*") if f.is_dir())
CODE = (".py", ".sh", ".go", ".yml", ".yaml")
LONGEST = 500
#: A lint that is silenced says which one and why, in the same line.
SILENCED = re.compile(r"#\s*(noqa\b(?!: [A-Z]+\d+(, ?[A-Z]+\d+)* +(- )?\w)|type: ?ignore(?!\[[\w, -]+\]\s+# \w))")


def test_silenced_lints_say_why(files: list[str], top: Path) -> None:
    found = []
    for name in files:
        if name.endswith(".py") and name != "tests/unit/meta/test_tree.py":
            lines = (top / name).read_text().splitlines()
            found += [f"{name}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if SILENCED.search(line)]
    assert found == []


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("import x  # noqa", True),
        ("import x  # noqa: F401", True),
        ("import x  # noqa: F401 - only whether it is there", False),
        ("a = b()  # type: ignore", True),
        ("a = b()  # type: ignore[attr-defined]", True),
        ("a = b()  # type: ignore[attr-defined]  # the stubs lack it", False),
    ],
)
def test_the_pattern_for_silenced_lints(line: str, bad: bool) -> None:
    assert bool(SILENCED.search(line)) is bad


def test_no_file_is_too_long(files: list[str], top: Path) -> None:
    """A longer file does more than one thing. What a tool writes is not read, so it may be long."""
    written = ("changelogs/changelog.yaml", "tests/lab/kubernetes/crds/")
    lengths = {f: len((top / f).read_bytes().splitlines()) for f in files if f.endswith(CODE) and not f.startswith(written)}
    assert {f: n for f, n in lengths.items() if n > LONGEST} == {}


def test_every_source_file_has_its_licence(files: list[str], top: Path) -> None:
    sources = [f for f in files if f.endswith((".py", ".sh", ".go")) and (top / f).stat().st_size]
    assert [f for f in sources if "GPL-3.0-or-later" not in "\n".join((top / f).read_text().splitlines()[:6])] == []


def test_package_files_are_empty(files: list[str], top: Path) -> None:
    """AnsiballZ sends a package's __init__.py with everything that it imports."""
    assert [f for f in files if f.startswith("plugins/") and f.endswith("__init__.py") and (top / f).stat().st_size] == []


def test_no_sanity_test_is_ignored(files: list[str]) -> None:
    assert [f for f in files if f.startswith("tests/sanity/ignore")] == []


def test_nothing_tells_where_it_was_written(files: list[str], top: Path) -> None:
    """No path of somebody's machine, no host of somebody's package index."""
    pattern = re.compile(r"(?<![\w.-])/(?:work|root)/|index-url[ =]+https?:")
    found = []
    for name in files:
        if (top / name).suffix in (*CODE, ".md", ".rst", ".txt", ".lock", ".toml", ".cfg", "") and name != "tests/unit/meta/test_tree.py":
            lines = (top / name).read_text(errors="replace").splitlines()
            found += [f"{name}:{n}: {line.strip()[:120]}" for n, line in enumerate(lines, 1) if pattern.search(line)]
    assert found == []


@pytest.mark.parametrize("role", ROLES)
def test_role_is_described(role: str) -> None:
    assert (TOP / "roles" / role / "README.md").is_file()
    spec = yaml.safe_load((TOP / "roles" / role / "meta" / "argument_specs.yml").read_text())
    entry: dict[str, Any] = spec["argument_specs"]["main"]
    assert entry["short_description"]
    assert entry["description"]
    defaults = yaml.safe_load((TOP / "roles" / role / "defaults" / "main.yml").read_text()) or {}
    assert [v for v in defaults if v not in entry["options"]] == []


@pytest.mark.parametrize("role", ROLES)
def test_role_variables_carry_its_name(role: str) -> None:
    """Shared variables begin with ferry_; each role has its own twin that defaults to them."""
    spec = yaml.safe_load((TOP / "roles" / role / "meta" / "argument_specs.yml").read_text())
    assert [o for o in spec["argument_specs"]["main"]["options"] if not o.startswith((f"{role}_", "ferry_"))] == []
