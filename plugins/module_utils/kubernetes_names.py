# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that Kubernetes takes: RFC 1123 labels, at most 63 characters of a-z, 0-9 and the hyphen, which neither begins nor ends them."""

from __future__ import annotations

import re
from collections.abc import Iterable

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LONGEST = 63


def is_label(name: str) -> bool:
    """Whether Kubernetes takes this name as it is."""
    return LABEL.fullmatch(name) is not None


def to_label(name: str) -> str:
    """The nearest name that Kubernetes takes, empty where nothing of it can be kept.

    Letters become lower case; what is not allowed becomes one hyphen.
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST].rstrip("-")


def collisions(names: Iterable[tuple[str, str]]) -> list[str]:
    """What is wrong where several things would have one name. C(names): pairs of what a thing is called, and the name it would get."""
    by_name: dict[str, list[str]] = {}
    for original, name in names:
        by_name.setdefault(name, []).append(original)
    return [f"{', '.join(who)} would all be called {name}" for name, who in by_name.items() if name and len(who) > 1]
