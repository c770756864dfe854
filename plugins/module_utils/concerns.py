# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a check before a migration has found. Both sides' checks speak in it, so that one list tells all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

#: From what stops a VM to what is only good to know (Forklift's categories, in its order).
CRITICAL, WARNING, INFORMATION = "critical", "warning", "information"
CATEGORIES = (CRITICAL, WARNING, INFORMATION)


class Kind(NamedTuple):
    """What all concerns of one id have in common.

    C(category); C(label): for a table; C(advice): what to do; C(also): another category that it may have.
    """

    category: str
    label: str
    advice: str
    also: str | None = None


@dataclass(frozen=True)
class Concern:
    """One finding about one VM, or about a whole wave.

    :param id: what kind it is, for machines: Forklift's own id (C(vmware.disk_mode.independent)), or one of ours (C(ferry.…)).
    :param category: critical (it cannot go like this), warning, information.
    :param label: a few words for a table.
    :param assessment: what is so, with the values that were seen.
    :param advice: what to do about it.
    :param disk: label of the disk that it is about.
    :param device: label of another device, a network or a host that it is about.
    """

    id: str
    category: str
    label: str
    assessment: str
    advice: str
    disk: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.category not in CATEGORIES:
            raise ValueError(f"{self.category!r} is no category of a concern")

    def as_dict(self) -> dict[str, Any]:
        """For a result; without what it is not about."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def ordered(concerns: Iterable[Concern]) -> list[Concern]:
    """The worst first, then by id and what each is about; the same one twice is one."""
    return sorted(set(concerns), key=lambda c: (CATEGORIES.index(c.category), c.id, c.disk or "", c.device or "", c.assessment))


def ready(concerns: Iterable[Concern]) -> bool:
    """Whether nothing critical was found."""
    return all(c.category != CRITICAL for c in concerns)
