# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tags of an object, which only vCenter's other API knows.

Vendor reference: vSphere Automation API, Session.create (POST /api/session), TagAssociation.list_attached_tags and attach
(POST /api/cis/tagging/tag-association).
"""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any, Sequence
from urllib.parse import quote

from ..errors import ServerError, bounded
from .client import Session

_TIMEOUT = 30.0
_MAX = 1 << 20


class TagApi:
    """One logged-in conversation with the Automation API (vSphere 7.0 U2 and newer); closed by close(). No redirect is followed."""

    def __init__(self, session: Session) -> None:
        where = session.endpoint
        self.netloc = where.netloc
        self._connection = http.client.HTTPSConnection(where.host, where.port, timeout=_TIMEOUT, context=session.ssl_context)
        self._token: str | None = None
        pair = base64.b64encode(f"{where.username}:{where.password}".encode()).decode()
        try:
            token = self.ask("POST", "/api/session", authorization=f"Basic {pair}")
        except ServerError:
            self._connection.close()
            raise
        if not isinstance(token, str):
            self._connection.close()
            raise ServerError(f"{self.netloc} gives no session of the Automation API.", code="tags", step="log in for tags")
        self._token = token

    def ask(self, method: str, path: str, body: Any = None, authorization: str | None = None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token is not None:
            headers["vmware-api-session-id"] = self._token
        if authorization is not None:
            headers["Authorization"] = authorization
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = self._connection.getresponse()
            text = answer.read(_MAX)
        except (OSError, http.client.HTTPException) as e:
            raise ServerError(f"{self.netloc} does not answer for tags.", code="tags", step="read the tags", said=e) from e
        if answer.status not in (200, 201, 204):
            said = f"HTTP {answer.status} to {method} {path.partition('?')[0]}: {bounded(text, 200)}"
            raise ServerError(f"{self.netloc} refuses to tell of tags.", code="tags", step="read the tags", said=said)
        try:
            return json.loads(text) if text else None
        except ValueError as e:
            raise ServerError(f"{self.netloc} answers no JSON.", code="tags", step="read the tags", said=e) from e

    def close(self) -> None:
        try:
            if self._token is not None:
                self.ask("DELETE", "/api/session")
        except ServerError:
            pass  # the session expires by itself
        finally:
            self._connection.close()


def attached_tags(session: Session, kind: str, moref: str) -> tuple[list[str] | None, str]:
    """(ids of the tags of an object, ""), or (None, why they cannot be read)."""
    api = None
    try:
        api = TagApi(session)
        body = {"object_id": {"type": kind, "id": moref}}
        found = api.ask("POST", "/api/cis/tagging/tag-association?action=list-attached-tags", body)
        return sorted(str(t) for t in found or ()), ""
    except ServerError as e:
        return None, e.said or e.message
    finally:
        if api is not None:
            api.close()


def attach_tags(session: Session, kind: str, moref: str, tags: Sequence[str]) -> int:
    """Attach those of C(tags) that are missing; how many."""
    if not tags:
        return 0
    api = TagApi(session)
    try:
        body = {"object_id": {"type": kind, "id": moref}}
        there = api.ask("POST", "/api/cis/tagging/tag-association?action=list-attached-tags", body) or ()
        missing = [t for t in tags if t not in there]
        for tag in missing:
            api.ask("POST", f"/api/cis/tagging/tag-association/{quote(tag, safe='')}?action=attach", body)
        return len(missing)
    finally:
        api.close()
