# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The running lab's vCloud Director, for the tests of our client: where it is, its control port, and its state put back."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import client


def params(**more: Any) -> dict[str, Any]:
    """The connection options, as the lab's env.sh gives them."""
    e = os.environ
    return {
        "hostname": e["VCD_HOST"],
        "port": int(e["VCD_PORT"]),
        "username": e["VCD_USER"],
        "password": e["VCD_PASSWORD"],
        "auth_org": e["VCD_ORG"],
        "ca_path": e["VCD_CA_PATH"],
        **more,
    }


def control(method: str, path: str, **body: Any) -> Any:
    """A request to the lab's control port."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(os.environ["FERRY_VCLOUD_CONTROL"] + path, data=data, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def fault(kind: str, **options: Any) -> None:
    """Let something go wrong."""
    control("POST", "/faults", kind=kind, **options)


def switch(**values: Any) -> None:
    """Set switches of the server."""
    control("POST", "/switches", **values)


def requests_of(path: str) -> int:
    """How many requests of that name (POST /api/...) have come since the statistics were cleared."""
    time.sleep(0.05)  # the server counts a request when it has answered it
    found: dict[str, int] = control("GET", "/stats")["requests"]
    return sum(n for name, n in found.items() if path in name)


def vm(name: str, container: str | None = None, vdc: str | None = None) -> dict[str, Any]:
    """What the lab knows of a VM, the number of its relocations included."""
    found = [
        v for v in control("GET", "/vms")["vms"] if v["name"] == name and container in (None, v["container"]) and vdc in (None, v["vdc"])
    ]
    assert len(found) == 1
    one: dict[str, Any] = found[0]
    return one


class Quick(client.Client):
    """The client, which does not wait long between two tries."""

    slept: list[float]

    def __init__(self, **more: Any) -> None:
        self.slept = []
        super().__init__(client.endpoint(params(**more)), timeout=20.0, sleep=self._nap)

    def _nap(self, seconds: float) -> None:
        self.slept.append(seconds)
        time.sleep(min(seconds, 0.05))
