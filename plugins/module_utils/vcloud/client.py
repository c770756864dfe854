# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A session with vCloud Director: the API version negotiated, logged in, logged in again where it expires, logged out on every path.

Log-in and log-out forms by API version: eras.py. The version is chosen per request, so one session may mix them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Any, Callable, Iterator, Mapping

from ..errors import ServerError, bounded
from .document import Element, name_of, parse
from .eras import Era, choose, era_of, offered, relocate_version
from .faults import again_later, refusal
from .transport import CALL_TIMEOUT, SYSTEM, Answer, Endpoint, LostAnswer, Transport, endpoint, local_path

#: A request is repeated so often where the server says "later" (BUSY_ENTITY, 429, 503) or the connection broke.
TRIES = 6
#: Seconds of the first pause; each is twice as long as the one before, with jitter, up to the longest.
PAUSE = 1.0
LONGEST_PAUSE = 30.0
#: A Retry-After above this (seconds) is not waited for.
MOST_RETRY_AFTER = 300.0
#: Bytes of the list of versions; API 1.5 has hundreds of media types in it.
MAX_VERSIONS = 4 << 20
#: Seconds that a log-out may take: nobody waits for it.
LOGOUT_TIMEOUT = 10.0


def pause_before(attempt: int, retry_after: str | None = None, jitter: Callable[[], float] = random.random) -> float:
    """Seconds to wait before the attempt C(attempt) (2 is the first repetition): what Retry-After says, else doubled each time.

    :param jitter: between 0 and 1; so that clients that were refused together do not come back together.
    """
    asked = _seconds(retry_after)
    if asked is not None:
        return min(asked, MOST_RETRY_AFTER) * (1 + 0.1 * jitter())
    return float(min(LONGEST_PAUSE, PAUSE * 2 ** max(0, attempt - 2))) * (0.5 + 0.5 * jitter())


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header (RFC 9110: seconds, or a date) asks for."""
    text = (retry_after or "").strip()
    if text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time()) if text else None
    except (ValueError, OverflowError):
        return None


class Client:
    """A session, to be had from connect(). May be used from several threads.

    :param where: endpoint and user.
    :param sleep: waits, in seconds.
    """

    def __init__(self, where: Endpoint, timeout: float = CALL_TIMEOUT, sleep: Callable[[float], None] = time.sleep) -> None:
        self.where = where
        self.sleep = sleep
        self._transport = Transport(where, timeout)
        self._lock = threading.RLock()
        self._headers: dict[str, str] = {}
        self._session_id: str | None = None
        self._open = False
        self._generation = 0
        try:
            self.versions = self._ask_versions()
            self.api_version = choose(self.versions, where.api_version)
            self._log_in(0)
        except BaseException:
            self._transport.close()
            raise

    @property
    def era(self) -> Era:
        """What holds at the API version in use."""
        return era_of(self.api_version)

    @property
    def generation(self) -> int:
        """Counts the log-ins."""
        return self._generation

    @property
    def relocate_version(self) -> str | None:
        """The API version to send a relocate request at; None where the server has none any more that knows it."""
        return relocate_version(self.versions, self.api_version)

    # -- session ------------------------------------------------------------------------------------------------------

    def _ask_versions(self) -> list[str]:
        step = "ask for the API versions"
        for attempt in range(2, TRIES + 2):
            try:
                answer = self._transport.exchange("GET", "/api/versions", headers={}, step=step, limit=MAX_VERSIONS)
            except LostAnswer:
                if attempt > 3:
                    raise
                self.sleep(pause_before(attempt))
                continue
            if answer.status == 200:
                return offered(answer.body)
            refused = self._refusal(answer, step)
            if not again_later(refused) or attempt > TRIES:
                break
            self.sleep(pause_before(attempt, answer.headers.get("Retry-After")))
        if refused.code in ("html", "unavailable", "throttled"):
            raise refused
        raise ServerError(
            f"{self.where.netloc} is no vCloud Director, or one that does not answer.",
            code="not_vcloud",
            step=step,
            said=refused.said,
            status=answer.status,
            next_command="set hostname (VCD_HOST) to the host name in the public REST API base URL of the system settings",
        )

    def _log_in(self, generation: int) -> None:
        """Log in, unless somebody else has since C(generation)."""
        with self._lock:
            if self._generation != generation:
                return
            where, step = self.where, "log in to vCloud Director"
            if where.token and generation == 0:
                self._headers = token_headers(where.token)
                self._generation += 1
                return
            if where.token and not where.password:
                raise ServerError(
                    "The token is not valid, or not any more.",
                    code="login",
                    step=step,
                    next_command="give a fresh one in token (VCD_TOKEN), or username and password",
                )
            if self.era.cloudapi_login:
                path = "/cloudapi/1.0.0/sessions/provider" if where.provider else "/cloudapi/1.0.0/sessions"
                accept = f"application/json;version={self.api_version}"
            else:
                path, accept = "/api/sessions", self.accept()
            word = base64.b64encode(f"{where.login}:{where.password}".encode()).decode("ascii")
            answer = self._polite("POST", path, {"Accept": accept, "Authorization": f"Basic {word}"}, step)
            if answer.status in (401, 403):
                raise self._login_refused(answer, step)
            if answer.status not in (200, 201):
                raise self._refusal(answer, step)
            headers = session_headers(answer.headers)
            if not headers:
                # a web page with status 200 has no token either
                if not self.era.cloudapi_login:
                    parse(answer.body, step=step)
                raise ServerError(f"{where.netloc} let us in without a token.", code="protocol", step=step, said=f"HTTP {answer.status}")
            self._headers = headers
            self._session_id = _session_id(answer.body) if self.era.cloudapi_login else None
            self._generation += 1
            self._open = True

    def _polite(self, method: str, path: str, headers: dict[str, str], step: str) -> Answer:
        """An exchange without a session, repeated where the server says later or the connection breaks."""
        attempt = 1
        while True:
            attempt += 1
            try:
                answer = self._transport.exchange(method, path, headers=headers, step=step)
            except LostAnswer:
                if attempt > 3:
                    raise
                self.sleep(pause_before(attempt))
                continue
            if answer.status not in (429, 503) or attempt > TRIES:
                return answer
            self.sleep(pause_before(attempt, answer.headers.get("Retry-After")))

    def _login_refused(self, answer: Answer, step: str) -> ServerError:
        where = self.where
        said = self._refusal(answer, step).said
        return ServerError(
            f"{where.netloc} refuses the user name or the password of {bounded(where.username, 120)} in the organization "
            f"{bounded(where.org, 120)}.",
            code="login",
            step=step,
            said=said,
            next_command=None
            if where.provider
            else f"set auth_org (VCD_ORG) to {SYSTEM} for a system administrator, or to the organization that the user belongs to",
            host=where.host,
            username=where.username,
            org=where.org,
            request_id=answer.request_id,
        )

    def _expired(self, status: int, generation: int) -> bool:
        """Whether a request of the log-in C(generation) was answered C(status) because the session is over.

        Expiry is 401 in newer documents, 403 in an older guide; so after a 403 the server is asked.
        """
        if status == 401 or self._generation != generation:
            return True
        step = "look whether the session is still valid"
        answer = self._polite("GET", "/api/session", {"Accept": self.accept(), **self._headers}, step)
        return answer.status in (401, 403)

    def close(self) -> None:
        """Log out, once, in the first form that works; a server that is away is no error any more.

        A session whose token was given is somebody else's, and stays.
        """
        with self._lock:
            if self._open:
                self._open = False
                self._log_out()
            self._transport.close()

    def _log_out(self) -> None:
        self._transport.timeout = (LOGOUT_TIMEOUT, LOGOUT_TIMEOUT)
        json_accept = f"application/json;version={self.api_version}"
        forms = {
            "current": ("/cloudapi/1.0.0/sessions/current", json_accept),
            "id": (f"/cloudapi/1.0.0/sessions/{self._session_id}" if self._session_id else None, json_accept),
            "old": ("/api/session", self.accept()),
        }
        for form in self.era.log_out:
            path, accept = forms[form]
            if path is None:
                continue
            try:
                answer = self._transport.exchange("DELETE", path, headers={"Accept": accept, **self._headers}, step="log out")
            except ServerError:
                return  # the session expires by itself
            if answer.status < 300 or answer.status == 401:
                return

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.where!r}, api_version={getattr(self, 'api_version', None)!r})"

    # -- requests -----------------------------------------------------------------------------------------------------

    def accept(self, version: str | None = None, *, cloudapi: bool = False) -> str:
        """The Accept header at C(version), the one in use unless given."""
        kind = "json" if cloudapi else "*+xml"
        return f"application/{kind};version={version or self.api_version}"

    def _refusal(self, answer: Answer, step: str, vm: str | None = None) -> ServerError:
        return refusal(answer.status, answer.body, answer.request_id, step=step, vm=vm, where=self.where.netloc)

    def request(
        self,
        method: str,
        href: str,
        *,
        step: str,
        body: bytes | None = None,
        media: str | None = None,
        version: str | None = None,
        again: bool | None = None,
        vm: str | None = None,
    ) -> Answer:
        """One request with the session's token; logs in again once where the session has expired.

        :param href: any href of this API; only its path is used.
        :param media: the media type of C(body).
        :param version: the API version of this request, the one in use unless given.
        :param again: whether it may be repeated where the server says later (BUSY_ENTITY, 429, 503) or the connection broke;
            GET may, others only where the caller says so, for what they do might be done twice.
        :raises LostAnswer: it may have been done.
        :raises ServerError: codes of faults.refusal() and of Transport.exchange().
        """
        path = local_path(href)
        again = method == "GET" if again is None else again
        cloudapi = path.startswith("/cloudapi/")
        attempt, renewed, lost = 1, False, 0
        while True:
            attempt += 1
            generation = self._generation
            headers = {"Accept": self.accept(version, cloudapi=cloudapi), **self._headers}
            if body is not None and media:
                headers["Content-Type"] = media
            try:
                answer = self._transport.exchange(method, path, headers=headers, body=body, step=step)
            except LostAnswer as e:
                lost += 1
                if not again or lost > 2:
                    e.add(vm=vm)
                    raise
                self.sleep(pause_before(attempt))
                continue
            if answer.status < 400:
                return answer
            # it was not done, so it may be sent again, once
            if not renewed and answer.status in (401, 403) and self._expired(answer.status, generation):
                renewed = True
                self._log_in(generation)
                continue
            refused = self._refusal(answer, step, vm)
            if not again or not again_later(refused) or attempt > TRIES:
                refused.details["retry_after"] = answer.headers.get("Retry-After")
                raise refused
            self.sleep(pause_before(attempt, answer.headers.get("Retry-After")))

    def get(self, href: str, *, step: str, version: str | None = None, vm: str | None = None) -> Element:
        """The document at C(href)."""
        return self.document(self.request("GET", href, step=step, version=version, vm=vm), step=step)

    def document(self, answer: Answer, *, step: str) -> Element:
        """The XML of an answer, which is no C(Error)."""
        try:
            root = parse(answer.body, step=step)
        except ServerError as e:
            if e.code == "html":
                e.message = f"{self.where.netloc} answers with a web page instead of the API's XML: a proxy, a portal or a load balancer is in between."
            e.details.setdefault("status", answer.status)
            raise
        if name_of(root) == "Error":
            raise self._refusal(Answer(int(root.get("majorErrorCode") or 500), answer.headers, answer.body), step)
        return root

    def get_json(self, href: str, *, step: str) -> dict[str, Any]:
        """The JSON object at C(href) of cloudapi."""
        answer = self.request("GET", href, step=step)
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError) as e:
            raise ServerError(f"{self.where.netloc} answers something that is no JSON.", code="protocol", step=step, said=e) from e
        if not isinstance(found, dict):
            raise ServerError(f"{self.where.netloc} answers something that is no JSON object.", code="protocol", step=step)
        return found

    def need_provider(self) -> None:
        """Refuse a user of another organization than System before anything is asked that only a system administrator may."""
        org = self.where.org
        if self.where.token:
            # whose it is only the server knows
            org = self.get("/api/session", step="look who is logged in").get("org") or org
        if org.lower() != SYSTEM.lower():
            raise ServerError(
                f"The user is of the organization {bounded(org, 120)}, and only a system administrator sees datastores and relocates.",
                code="not_system_administrator",
                step="look who is logged in",
                next_command=f"log in with auth_org (VCD_ORG) {SYSTEM}",
                org=org,
            )


def token_headers(token: str) -> dict[str, str]:
    """The headers for a token that was given: a JSON web token goes as a bearer, the older kind in a header of its own."""
    if token.count(".") == 2 or token.startswith("eyJ"):
        return {"Authorization": f"Bearer {token}"}
    return {"x-vcloud-authorization": token}


def session_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that requests carry after a log-in that was answered with C(headers); empty where there is no token in them."""
    bearer, old = headers.get("X-VMWARE-VCLOUD-ACCESS-TOKEN"), headers.get("x-vcloud-authorization")
    if bearer:
        return {"Authorization": f"Bearer {bearer}"}
    return {"x-vcloud-authorization": old} if old else {}


def _session_id(body: bytes) -> str | None:
    """The session's id (urn:vcloud:session:...) in the answer to a log-in by cloudapi."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    value = found.get("id") if isinstance(found, dict) else None
    return value if isinstance(value, str) and len(value) < 200 and all(c.isalnum() or c in ":-" for c in value) else None


def connect(params: Mapping[str, Any], timeout: float = CALL_TIMEOUT) -> Client:
    """Log in with the connection options C(params) (argspec.py).

    :param timeout: seconds to wait for any answer of the server.
    :raises BadInput: an option is missing, ca_path cannot be read, api_version is not offered.
    :raises ServerError: with code login, untrusted_certificate, unreachable, lost_answer, not_vcloud, html, redirect ...
    """
    return Client(endpoint(params), timeout)


@contextlib.contextmanager
def administrator(params: Mapping[str, Any], timeout: float = CALL_TIMEOUT) -> Iterator[Client]:
    """A session of a system administrator, logged out at the end."""
    with connect(params, timeout) as client:
        client.need_provider()
        yield client
