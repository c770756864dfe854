# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix of docs/reliability.md, made from the tests: each row is a test with the mark fault(what, where, ends).

    python3 tools/fault_matrix.py [--write]     prints the matrix, or writes it into the page

The marks are read from the source, so that the page names only tests that exist. A test compares the page with this output.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

TOP = Path(__file__).resolve().parent.parent
PAGE = TOP / "docs" / "reliability.md"
BEGIN, END = "<!-- matrix: begin (make docs-reliability) -->", "<!-- matrix: end -->"
#: The order of the sections on the page.
WHERE = (
    "precheck",
    "copy",
    "source",
    "target",
    "tracking",
    "snapshot",
    "vCenter",
    "NFC",
    "NBD",
    "budget",
    "controller",
    "conversion host",
    "moves",
    "failover",
    "policy",
    "event source",
    "Glance",
    "OpenStack",
    "Kubernetes",
    "AWX",
    "guest",
)


class Row(NamedTuple):
    where: str
    what: str
    ends: str
    test: str


def _mark(decorator: ast.expr) -> list[str] | None:
    """The three texts of a mark fault(...), None for another decorator."""
    if not (isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute) and decorator.func.attr == "fault"):
        return None
    named = {k.arg: k.value for k in decorator.keywords}
    values = [*decorator.args, *(named[n] for n in ("what", "where", "ends")[len(decorator.args) :] if n in named)]
    texts = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
    if len(texts) != 3:
        raise SystemExit(f"line {decorator.lineno}: fault(what, where, ends) takes three plain texts")
    return texts


def rows(top: Path = TOP) -> list[Row]:
    """All marks of all tests, in the order of WHERE, then of the files."""
    return sorted(_rows(top), key=lambda r: (WHERE.index(r.where), r.test))


def _rows(top: Path) -> Iterator[Row]:
    for path in sorted((top / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            for decorator in node.decorator_list:
                found = _mark(decorator)
                if found is None:
                    continue
                what, where, ends = found
                if where not in WHERE:
                    raise SystemExit(f"{path.name}:{decorator.lineno}: where is one of {', '.join(WHERE)}")
                yield Row(where, what, ends, f"{path.stem}.{node.name}")


def matrix(top: Path = TOP) -> str:
    """The table as Markdown."""
    lines = ["| where | what goes wrong | how it ends | test |", "|---|---|---|---|"]
    for row in rows(top):
        cells = (row.where, row.what, row.ends, f"`{row.test}`")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def page(text: str, top: Path = TOP) -> str:
    """The page C(text) with the matrix of now between its two marks."""
    head, begin, rest = text.partition(BEGIN)
    old, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page lacks the lines {BEGIN} and {END}")
    return f"{head}{begin}\n\n{matrix(top)}\n\n{end}{tail}"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write(matrix() + "\n")
