# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The little of OpenStack's REST that sets up a lab, with the standard library alone: the CLI runs before any venv exists."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any, Mapping

from ..common import LabError

# Everything is on loopback: a proxy from the environment would only break it.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Session:
    """Requests as one user in one project."""

    def __init__(self, keystone: str, user: str, password: str) -> None:
        body = {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": {"name": user, "password": password, "domain": {"id": "default"}}},
                },
                "scope": {"project": {"name": user, "domain": {"id": "default"}}},
            }
        }
        self._token = ""
        headers, answer = self._send("POST", f"{keystone}/v3/auth/tokens", body)
        self._token = headers["X-Subject-Token"]
        self.project_id: str = answer["token"]["project"]["id"]

    def get(self, url: str) -> Any:
        return self._send("GET", url)[1]

    def post(self, url: str, body: Any) -> Any:
        return self._send("POST", url, body)[1]

    def put(self, url: str, body: Any = None) -> Any:
        return self._send("PUT", url, body)[1]

    def _send(self, method: str, url: str, body: Any = None) -> tuple[Mapping[str, str], Any]:
        request = urllib.request.Request(url, method=method, headers={"X-Auth-Token": self._token, "Accept": "application/json"})
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with _opener.open(request, timeout=60) as response:
                text = response.read()
                return response.headers, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode(errors="replace")
            raise LabError(f"{method} {url}: {error.code} {said}") from error


def answers(url: str) -> bool:
    """Whether an HTTP server answers at *url*, whatever it says."""
    try:
        _opener.open(url, timeout=10).close()
    except urllib.error.HTTPError:
        pass
    except OSError:
        return False
    return True
