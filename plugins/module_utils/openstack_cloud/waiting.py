# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting for a service that tells nobody when it is done: it is asked again and again."""

from __future__ import annotations

import time
from typing import Callable, TypeVar

from ..errors import FerryError

#: Seconds between two questions.
PAUSE = 0.3

Found = TypeVar("Found")


def wait_for(look: Callable[[], Found | None], timeout: float, late: Callable[[], FerryError], *, pause: float = PAUSE) -> Found:
    """What C(look) gives, asked until it is something else than None.

    :param timeout: seconds, C(pause): seconds between two questions.
    :param late: makes the error for when the time is over.
    :raises FerryError: that error, or what C(look) raises.
    """
    end = time.monotonic() + timeout
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > end:
            raise late()
        time.sleep(pause)  # the service is asked: it tells nobody when it is done
