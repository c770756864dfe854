# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory that a thread reads into again and again: a new one for each read would be cleared first, at the price of a copy."""

from __future__ import annotations

import threading

_OWN = threading.local()


def mine(size: int) -> bytearray:
    """This thread's buffer of C(size) bytes, with whatever was in it: its content is good until the thread asks again."""
    found: bytearray | None = getattr(_OWN, "buffer", None)
    if found is None or len(found) != size:
        found = _OWN.buffer = bytearray(size)
    return found
