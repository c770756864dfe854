# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A sentence of the plan that knows what kind it is, so that programs need not read it."""

from __future__ import annotations

from typing import Any


class Finding(str):
    """A sentence, with C(id) (of precheck_catalogue), and the label of the C(disk) or C(device) that it is about."""

    __slots__ = ("device", "disk", "id")

    id: str
    disk: str | None
    device: str | None

    def __new__(cls, id_: str, text: str, *, disk: str | None = None, device: str | None = None) -> Finding:
        found = super().__new__(cls, text)
        found.id, found.disk, found.device = id_, disk, device
        return found


def id_of(text: str) -> str:
    """The kind of a sentence; C(ferry.target.other) where it does not say."""
    return text.id if isinstance(text, Finding) else "ferry.target.other"


def plain(value: Any) -> Any:
    """C(value) with its findings as ordinary strings: what leaves Python, or is compared by type."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list) else value
