# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which TCP ports of which machines can be reached from here, many at once."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Sequence

from ..errors import BadInput, bounded

#: Connections under way at once, and addresses in one question.
AT_ONCE = 32
MOST = 2000
_STEP = "read the options"


def reach(addresses: Sequence[str], ports: Sequence[int], timeout: float) -> list[dict[str, Any]]:
    """Each address with each port: C(address), C(port), C(open), C(said) (why not).

    An address may name its own port (C(vcenter:8443)); then only that is tried.

    :param timeout: seconds for each of them, at most 60.
    :raises BadInput: a port or the timeout is none, or there are too many addresses.
    """
    if not 0 < timeout <= 60:
        raise BadInput(f"timeout is {timeout:g}; it can be more than 0 and at most 60 seconds.", step=_STEP)
    wanted = []
    for address in dict.fromkeys(str(a).strip() for a in addresses):
        host, colon, own = address.rpartition(":")
        single = bool(colon) and own.isdigit() and (":" not in host or host.endswith("]"))
        name = host if single else address
        wanted += [(name.strip("[]"), int(port)) for port in ([own] if single else ports)]
    wrong = [f"{bounded(name, 80)}:{port}" for name, port in wanted if not name or not 0 < port < 65536]
    if wrong:
        raise BadInput(f"{', '.join(wrong[:5])} cannot be reached at all: a name and a port of 1 to 65535 are wanted.", step=_STEP)
    if len(wanted) > MOST:
        raise BadInput(f"{len(wanted)} addresses and ports are asked for; {MOST} are taken at most.", step=_STEP)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda one: _tried(one[0], one[1], timeout), wanted))


def _tried(name: str, port: int, timeout: float) -> dict[str, Any]:
    said = ""
    try:
        socket.create_connection((name, port), timeout=timeout).close()
    except (OSError, UnicodeError) as e:
        said = bounded(getattr(e, "strerror", None) or str(e) or type(e).__name__, 200)
    return {"address": name, "port": port, "open": not said, "said": said}
