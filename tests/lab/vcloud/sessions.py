# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Log-in, tokens and their expiry."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import uuid
from dataclasses import dataclass
from email.message import Message
from typing import Callable

from .errors import ApiError
from .switches import Switches
from .world import Org, World

SYSTEM = "System"


@dataclass(eq=False)
class Session:
    id: str
    user: str
    org_id: str
    org_name: str
    token: str  # x-vcloud-authorization
    jwt: str  # Authorization: Bearer, 30.0 on
    last: float

    @property
    def system(self) -> bool:
        """Whether it is a system administrator's."""
        return self.org_name == SYSTEM


def _jwt(session_id: str) -> str:
    """Something with a JWT's three parts; clients do not look inside."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    header, body = json.dumps({"alg": "RS256"}).encode(), json.dumps({"jti": session_id}).encode()
    return f"{part(header)}.{part(body)}.{part(secrets.token_bytes(256))}"


class Sessions:
    """All sessions of a server. System's user is administrator, every other org's is orgadmin; the password is the lab's."""

    def __init__(self, world: World, switches: Switches, password: str, now: Callable[[], float]) -> None:
        self._world = world
        self._switches = switches
        self._password = password
        self._now = now
        self._all: dict[str, Session] = {}  # by both tokens
        self.logins = 0
        self.logouts = 0
        self.failed = 0

    def refused(self) -> ApiError:
        self.failed += 1
        return ApiError(401, "UNAUTHORIZED", "The credentials are invalid.", {"WWW-Authenticate": 'Basic realm="vCloud"'})

    def log_in(self, header: str | None, provider: bool | None) -> Session:
        """Basic user@org:password. provider: whether the form of the log-in is the provider's; None: the old form, for all.

        An org's name is not case-sensitive: the seed logs in as administrator@system. The 401 of a wrong password is [D].
        """
        kind, _space, blob = (header or "").partition(" ")
        try:
            given = base64.b64decode(blob, validate=True).decode("utf-8") if kind.lower() == "basic" else ""
        except (binascii.Error, ValueError):
            given = ""
        name, colon, password = given.partition(":")
        user, at, org_name = name.rpartition("@")
        org = self._org(org_name)
        if not (colon and at and org) or not hmac.compare_digest(password.encode(), self._password.encode()):
            raise self.refused()
        system = org[1] == SYSTEM
        if user.lower() != ("administrator" if system else "orgadmin") or (provider is not None and provider is not system):
            raise self.refused()
        session_id = str(uuid.uuid4())
        token = base64.b64encode(secrets.token_bytes(32)).decode()
        session = Session(session_id, user.lower(), org[0], org[1], token, _jwt(session_id), self._now())
        self._all[session.token] = self._all[session.jwt] = session
        self.logins += 1
        return session

    def _org(self, name: str) -> tuple[str, str] | None:
        if name.lower() == SYSTEM.lower():
            return SYSTEM_ORG.id, SYSTEM_ORG.name
        return next(((o.id, o.name) for o in self._world.orgs.values() if o.name.lower() == name.lower()), None)

    def find(self, headers: Message) -> Session:
        """The session of a request, by any of the forms that its clients send [C]; renews it. Raises 401 or 403 (switches)."""
        bearer = headers.get("Authorization", "")
        token = headers.get("x-vcloud-authorization") or headers.get("X-VMWARE-VCLOUD-ACCESS-TOKEN")
        if bearer.lower().startswith("bearer "):
            token = bearer[7:].strip()
        if not token:
            raise self._denied(self._switches.no_login_status)
        session = self._all.get(token)
        now = self._now()
        if session is None or now - session.last > self._switches.idle_seconds:
            if session:
                self.log_out(session, count=False)
            raise self._denied(self._switches.expired_status)
        session.last = now
        return session

    @staticmethod
    def _denied(status: int) -> ApiError:
        if status == 403:
            return ApiError(403, "ACCESS_TO_RESOURCE_IS_FORBIDDEN", "This operation is denied.")
        return ApiError(401, "UNAUTHORIZED", "The session is missing or has expired.")

    def log_out(self, session: Session, count: bool = True) -> None:
        self._all.pop(session.token, None)
        self._all.pop(session.jwt, None)
        self.logouts += count

    def expire_all(self) -> int:
        """End every session without telling anybody."""
        count = self.open
        self._all.clear()
        return count

    @property
    def open(self) -> int:
        return len({s.id for s in self._all.values()})


SYSTEM_ORG = Org("a93c9db9-7471-3192-8d09-a8f7eeda85f9", SYSTEM, "System Organization")
