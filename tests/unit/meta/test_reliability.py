# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/reliability.md names the faults that tests cause, all of them, and no others."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def tool(top: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fault_matrix", top / "tools" / "fault_matrix.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("tools/fault_matrix.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_tests_say(tool: ModuleType, top: Path) -> None:
    text = (top / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert tool.page(text, top) == text, "make docs-reliability"


def test_a_mark_becomes_a_row(tool: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "unit"
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text('@pytest.mark.fault("the cable", where="copy", ends="equal")\ndef test_one() -> None: ...\n')
    assert tool.matrix(tmp_path).splitlines()[2:] == ["| copy | the cable | equal | `test_it.test_one` |"]


@pytest.mark.parametrize("mark", ['"a", "nowhere", "b"', '"a", "copy"', 'name, "copy", "b"'])
def test_a_mark_that_cannot_be_read_is_refused(tool: ModuleType, tmp_path: Path, mark: str) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(f"@pytest.mark.fault({mark})\ndef test_one() -> None: ...\n")
    with pytest.raises(SystemExit):
        tool.rows(tmp_path)
