# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changed-block tracking as the copy engine sees it: changeIds, whether one follows another, and areas that were checked.

A changeId is C(UUID/SEQUENCE) (vSphere API, C(VirtualDiskFlatVer2BackingInfo.changeId)): 16 bytes in hexadecimal with
blanks and one hyphen, a slash, a decimal number. The UUID stays for as long as tracking goes on without a break and is a
new one after a reset; the number grows with each snapshot. The API promises no form: what has a slash and a number is taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Iterable, Iterator, NamedTuple

from .errors import FerryError

_CHANGE_ID = re.compile(r"([^/\x00-\x1f]{1,100})/(\d{1,20})\Z")
#: Faults of the way to the server. They say nothing of the tracking: the run ends, and the next one asks again.
_PASSING = {"unreachable", "timeout", "login", "untrusted_certificate", "interrupted", "busy", "missing_library"}


class TrackingRefused(FerryError):
    """The changed areas could not be told, or what was told cannot be: the copy then compares the whole disk."""

    code = "tracking_refused"


def refuses_tracking(error: FerryError) -> bool:
    """Whether C(error), from asking for areas, means that they cannot be had (else: that the server cannot be reached now)."""
    return error.code not in _PASSING


class ChangeId(NamedTuple):
    """A changeId, taken apart."""

    uuid: str
    sequence: int

    @classmethod
    def parse(cls, text: str | None) -> ChangeId | None:
        """C(text) as a changeId; None where it is empty or of another form (C(*), which names no state, among them)."""
        found = _CHANGE_ID.match((text or "").strip())
        return None if found is None else cls(re.sub(r"[ -]", "", found[1].lower()), int(found[2]))


@dataclass(frozen=True)
class Tracking:
    """What is known of a disk's changes, at the state that is read now.

    :param change_id: of the state that is read now: from the snapshot's config, never from the VM's.
    :param areas: gives the areas that changed since the given changeId, ascending C((start, length)) in bytes. It may
        raise FerryError; TrackingRefused (or a fault of the server) leads to a pass that compares the whole disk.
    :param allocated: gives the areas that C(*) names, where they may be trusted as a hint of what is allocated.
    :param distrust: why C(areas) must not be used (a build known for missing changes, a revert, a reset); None: it may.
    """

    change_id: str
    areas: Callable[[str], Iterable[tuple[int, int]]]
    allocated: Callable[[], Iterable[tuple[int, int]]] | None = None
    distrust: str | None = None


def cannot_follow(kept: str | None, now: str | None) -> str | None:
    """Why the changes between changeId C(kept) and changeId C(now) cannot be asked for; None where they can."""
    if not now:
        return "The disk has no changeId: changed-block tracking is off."
    if not kept:
        return "No changeId is kept of an earlier copy."
    old, new = ChangeId.parse(kept), ChangeId.parse(now)
    if old is None or new is None:
        return f"The changeId {kept if old is None else now} is of no known form."
    if old.uuid != new.uuid:
        return "Changed-block tracking was begun anew since: the changeId has another UUID."
    if new.sequence < old.sequence:
        return f"The changeId went back from {old.sequence} to {new.sequence}: the disk was reverted."
    return None


def checked(areas: Iterable[tuple[int, int]], capacity: int) -> Iterator[tuple[int, int]]:
    """Hand C(areas) through while they are what areas must be; lengths and starts in bytes.

    :raises TrackingRefused: an area is empty, reaches beyond C(capacity), or begins before the one before it ends.
    """
    end = 0
    for start, length in areas:
        if start < end or length <= 0 or start + length > capacity:
            raise TrackingRefused(
                "The server's list of changed areas cannot be: it is out of order, or reaches beyond the disk.",
                step="read the changed areas",
                said=f"{length} bytes from {start}, after {end} of {capacity}",
            )
        end = start + length
        yield start, length
