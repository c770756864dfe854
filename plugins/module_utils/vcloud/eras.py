# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""API versions of vCloud Director, and what differs between them: how to log in, which token, how to log out, how to escape.

Versions are compared as numbers: as text 9.0 is above 10.0 and 1.5 above 39.1. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable

from ..errors import BadInput, ServerError, bounded
from .document import children, parse, text_of

Version = tuple[int, ...]

#: The oldest and the newest that are known here. API 40 is that of another product.
OLDEST: Version = (1, 5)
BELOW: Version = (40,)
#: Both relocate operations are gone from this one on (vendor's API reference: "removed in 39.0", there through 38.1).
RELOCATE_GONE: Version = (39,)

_NUMBER = re.compile(r"\d{1,3}(\.\d{1,3}){0,2}")


@dataclass(frozen=True)
class Era:
    """What holds from one API version on.

    :param since: the first version.
    :param cloudapi_login: C(POST /cloudapi/1.0.0/sessions) rather than C(POST /api/sessions).
    :param log_out: the forms that exist, best first: C(current), C(id) (both of cloudapi), C(old) (C(DELETE /api/session)).
    :param relational: FIQL has =gt= =ge= =lt= =le=.
    :param encoded_twice: filter values are escaped by C(filterEncoded=true) and double encoding rather than by a backslash.
    """

    since: Version
    cloudapi_login: bool
    log_out: tuple[str, ...]
    relational: bool
    encoded_twice: bool


#: Newest first. The old log-in is deprecated from 33 on and gone from 38.0 on; C(current) is there from 36 on.
ERAS = (
    Era((38,), True, ("current", "id"), True, False),
    Era((36,), True, ("current", "id", "old"), True, False),
    Era((35,), True, ("id", "old"), True, False),
    Era((33,), True, ("id", "old"), True, True),
    Era((5, 1), False, ("old",), True, True),
    Era((1, 5), False, ("old",), False, True),
)


def number(text: str) -> Version | None:
    """C(text) ("38.1") as a tuple to compare; None where it is no version number (alpha versions have a suffix)."""
    text = text.strip()
    return tuple(int(n) for n in text.split(".")) if _NUMBER.fullmatch(text) else None


def era_of(version: str) -> Era:
    """The era of C(version), which has to be one of choose()."""
    wanted = number(version) or OLDEST
    return next((e for e in ERAS if wanted >= e.since), ERAS[-1])


def offered(body: bytes) -> list[str]:
    """The versions in the answer to C(GET /api/versions), highest first, as the server spells them.

    C(AlphaVersion) is left out: a pre-release may change under us.

    :raises ServerError: code C(protocol): not such a document.
    """
    root = parse(body, step="ask for the API versions")
    if root.tag.rpartition("}")[2] != "SupportedVersions":
        raise ServerError("That is no vCloud Director: its list of API versions is something else.", code="not_vcloud", said=root.tag)
    found = {}
    for info in children(root, "VersionInfo"):
        text = text_of(info, "Version").strip()
        if text and (key := number(text)) is not None:
            found[key] = text
    return [found[key] for key in sorted(found, reverse=True)]


def choose(versions: Iterable[str], pinned: str | None = None, *, below: Version = BELOW) -> str:
    """The highest of C(versions) that is known here, or the pinned one.

    :param pinned: what the user asks for; it has to be among them (38 stands for 38.0).
    :param below: leave out this one and everything above.
    :raises BadInput: the pinned one is not offered or not known.
    :raises ServerError: code C(not_vcloud): none is.
    """
    listed = list(versions)
    found = {key: text for text in listed if (key := number(text)) is not None and OLDEST <= key < below}
    known = {key: found[key] for key in sorted(found, reverse=True)}
    if pinned:
        wanted = number(pinned)
        same = [text for key, text in known.items() if wanted is not None and _same(key, wanted)]
        if same:
            return same[0]
        raise BadInput(
            f"The API version {bounded(pinned, 40)} is not to be had.",
            step="choose the API version",
            next_command=f"set api_version to one of {', '.join(known.values()) or 'none'}, or leave it out",
            offered=listed[:100],
        )
    if not known:
        raise ServerError(
            "The server offers no API version that is spoken here.",
            code="no_version",
            step="choose the API version",
            said=", ".join(listed) or "none at all",
        )
    return next(iter(known.values()))


def _same(one: Version, other: Version) -> bool:
    length = max(len(one), len(other))
    return one + (0,) * (length - len(one)) == other + (0,) * (length - len(other))


def relocate_version(versions: Iterable[str], in_use: str) -> str | None:
    """The API version to send a relocate request at: the one in use, else the highest that still has it, else None."""
    current = number(in_use)
    if current is not None and current < RELOCATE_GONE:
        return in_use
    below = [key for text in versions if (key := number(text)) is not None and OLDEST <= key < RELOCATE_GONE]
    return choose(versions, below=RELOCATE_GONE) if below else None
