# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several ranges of a file by one request: RFC 9110, section 14.6, "Media Type multipart/byteranges".

A server may ignore such a request, refuse it, or answer with other ranges than asked for; each of these means that the ranges are
asked for one by one. Each part must be exactly the range that was asked for in its place, or nothing of it is data.
"""

from __future__ import annotations

import http.client
import re
from typing import Sequence

#: Ranges in one request: its header stays well below the 8 KiB that servers take.
MOST = 64
#: Statuses by which a server refuses such a request and no other.
REFUSED = frozenset({400, 413, 416, 431, 501})
_LONGEST_LINE = 1024
_BOUNDARY = re.compile(r'multipart/byteranges\s*;.*\bboundary="?([0-9A-Za-z\'()+_,./:=? -]{1,70}?)"?\s*(?:;|\Z)', re.IGNORECASE)


def header(ranges: Sequence[tuple[int, int]]) -> str:
    """The value of C(Range) for C(ranges): start and length in bytes."""
    return "bytes=" + ",".join(f"{start}-{start + length - 1}" for start, length in ranges)


def parts(answer: http.client.HTTPResponse, ranges: Sequence[tuple[int, int]], size: int | None) -> list[bytearray] | None:
    """The bytes of C(ranges) of a file of C(size) bytes; None where the server answered something else.

    :raises http.client.IncompleteRead: the answer ends in the middle.
    """
    found = _BOUNDARY.match(answer.getheader("Content-Type", ""))
    if answer.status != 206 or found is None:
        return None
    border = b"--" + found[1].encode()
    line = answer.readline(_LONGEST_LINE)
    if not line.strip():  # a line break may come before the first border
        line = answer.readline(_LONGEST_LINE)
    out = []
    for start, length in ranges:
        if not line:
            raise http.client.IncompleteRead(b"")
        if line.rstrip() != border:
            return None
        wanted = f"bytes {start}-{start + length - 1}/"
        if not _is_part(answer, wanted, size):
            return None
        data = bytearray(length)
        view = memoryview(data)
        while view:
            n = answer.readinto(view)
            if not n:
                raise http.client.IncompleteRead(b"", len(view))
            view = view[n:]
        out.append(data)
        answer.readline(_LONGEST_LINE)
        line = answer.readline(_LONGEST_LINE)
    if line.rstrip() != border + b"--":
        return None
    answer.read(_LONGEST_LINE)
    return out


def _is_part(answer: http.client.HTTPResponse, wanted: str, size: int | None) -> bool:
    """Read a part's header; whether it is the range C(wanted) of a file of C(size) bytes."""
    right = False
    while True:
        line = answer.readline(_LONGEST_LINE)
        if not line:
            raise http.client.IncompleteRead(b"")
        name, _colon, value = line.decode("latin-1").strip().partition(":")
        if not name:
            return right
        if name.lower() == "content-range":
            value = value.strip()
            right = value.startswith(wanted) and (size is None or value[len(wanted) :] == str(size))
