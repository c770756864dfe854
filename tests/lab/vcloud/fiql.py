# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The query service's filter expressions: FIQL, with the escapes of the API version.

vCloud API Programming Guide, "Query Filter Expressions": == (with * as a wildcard) and != in 1.5; =gt= =ge= =lt= =le= from
5.1 on; ; is AND, a comma OR, parentheses group. Equality ignores case in 1.5; from 5.1 on only where a value has a wildcard.
Values: before 35.0 each is percent-encoded once more with filterEncoded=true; from 35.0 on that has no effect, and a backslash
stands before ( ) , ; and itself (so say the vendor's guides, and pyvcloud 23.0.4's client.py beside what it sends).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable
from urllib.parse import unquote

from .errors import bad
from .xmlout import text

_TERM = re.compile(r"([A-Za-z_][\w:@.]*)(==|!=|=(?:gt|ge|lt|le)=)")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", re.IGNORECASE)
_MOST = 20_000  # characters of a filter
_DEPTH = 200  # parentheses in it

Test = Callable[[Callable[[str], Any]], bool]


@dataclass(frozen=True)
class Rules:
    """What a version's expressions are like."""

    compare: bool  # =gt= and its like
    any_case: bool
    backslash: bool
    encoded: bool

    @classmethod
    def of(cls, version: tuple[int, int], encoded: bool) -> Rules:
        return cls(version >= (5, 1), version < (5, 1), version >= (35, 0), encoded and version < (35, 0))


class _Parser:
    def __init__(self, source: str, rules: Rules, names: set[str]) -> None:
        self.source = source
        self.rules = rules
        self.names = names
        self.at = 0

    def fail(self, why: str) -> Exception:
        return bad(f"Invalid filter expression at character {self.at}: {why}")

    def expression(self) -> Test:
        tests = [self.conjunction()]
        while self.take(","):
            tests.append(self.conjunction())
        return tests[0] if len(tests) == 1 else lambda get: any(t(get) for t in tests)

    def conjunction(self) -> Test:
        tests = [self.term()]
        while self.take(";"):
            tests.append(self.term())
        return tests[0] if len(tests) == 1 else lambda get: all(t(get) for t in tests)

    def take(self, char: str) -> bool:
        if self.source[self.at : self.at + 1] == char:
            self.at += 1
            return True
        return False

    def term(self) -> Test:
        if self.take("("):
            inner = self.expression()
            if not self.take(")"):
                raise self.fail("a closing parenthesis is missing")
            return inner
        found = _TERM.match(self.source, self.at)
        if not found:
            raise self.fail("attribute and operator expected")
        name, operator = found.groups()
        if name not in self.names:
            raise self.fail(f"unknown attribute {name}")
        if len(operator) > 2 and not self.rules.compare:
            raise self.fail(f"operator {operator} is not known in this version")
        self.at = found.end()
        return _test(name, operator, self.value(), self.rules)

    def value(self) -> str:
        out: list[str] = []
        while self.at < len(self.source):
            char = self.source[self.at]
            if self.rules.backslash and char == "\\" and self.at + 1 < len(self.source):
                out.append(self.source[self.at + 1])
                self.at += 2
                continue
            if char in "(),;":
                break
            out.append(char)
            self.at += 1
        return unquote("".join(out)) if self.rules.encoded else "".join(out)


def _test(name: str, operator: str, value: str, rules: Rules) -> Test:
    if operator in ("==", "!="):
        wild = "*" in value
        flags = re.IGNORECASE | re.DOTALL if rules.any_case or wild else re.DOTALL
        pattern = re.compile(".*".join(re.escape(part) for part in value.split("*")), flags)
        urn = value if value.startswith(("http://", "https://", "urn:")) else ""
        tail = _UUID.search(urn)

        def equal(get: Callable[[str], Any]) -> bool:
            found = get(name)
            if found is None:
                return value == ""
            if tail:  # references compare by what they refer to: an href of any host, or a urn
                other = _UUID.search(text(found))
                return other is not None and other[0].lower() == tail[0].lower()
            return pattern.fullmatch(text(found)) is not None

        return equal if operator == "==" else lambda get: not equal(get)

    def compare(get: Callable[[str], Any]) -> bool:
        found = get(name)
        if isinstance(found, int) and not isinstance(found, bool):
            try:
                left: Any = found
                right: Any = float(value)
            except ValueError:
                raise bad(f"{value!r} is no number, as {name} is") from None
        else:
            left, right = text(found), value
        return bool({"=gt=": left > right, "=ge=": left >= right, "=lt=": left < right, "=le=": left <= right}[operator])

    return compare


def parse(source: str, rules: Rules, names: set[str]) -> Test:
    """A test over a record's attributes. Raises 400 BAD_REQUEST."""
    if len(source) > _MOST or source.count("(") > _DEPTH:
        raise bad("The filter expression is too complex.")
    parser = _Parser(source, rules, names)
    test = parser.expression()
    if parser.at != len(source):
        raise parser.fail("nothing more expected")
    return test
