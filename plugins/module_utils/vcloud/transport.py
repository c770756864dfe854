# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One HTTPS endpoint, and nothing else: requests go to it whatever a link says, redirects lead nowhere else, answers are bounded."""

from __future__ import annotations

import socket
import ssl
import zlib
from dataclasses import dataclass, field
from typing import Any, Mapping
from urllib.parse import urljoin, urlsplit

from .. import trust
from ..errors import BadInput, ServerError, bounded
from ..requires import need, version_of
from ..requires import requests as import_requests
from .argspec import ENVIRONMENT

#: Seconds to connect, and to wait for an answer (a query over thousands of VMs takes its time).
CONNECT_TIMEOUT = 30.0
CALL_TIMEOUT = 180.0
#: Bytes of one answer that are believed: a page of 128 records has less than 1 MiB, and a dozen are fetched at once.
MAX_BODY = 16 << 20
#: Redirects within the endpoint that are followed (a slash at the end).
MAX_REDIRECTS = 3
#: Connections that are kept open: as many as pages are fetched at once.
POOL = 12

SYSTEM = "System"


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom to log in. Secrets are not in its repr.

    :param username: without the organization.
    :param org: the organization to log in to; C(System) is that of system administrators.
    :param token: of a session that is there already, instead of a log-in.
    """

    host: str
    port: int
    username: str
    org: str
    password: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    validate_certs: bool = True
    ca_path: str | None = None
    api_version: str | None = None

    @property
    def netloc(self) -> str:
        """host:port as it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        return f"https://{self.netloc}"

    @property
    def provider(self) -> bool:
        """Whether that is the organization of system administrators. It is written in either case: administrator@system."""
        return self.org.lower() == SYSTEM.lower()

    @property
    def login(self) -> str:
        return f"{self.username}@{self.org}"


def endpoint(params: Mapping[str, Any]) -> Endpoint:
    """The endpoint that the connection options C(params) name; BadInput lists every option that is missing.

    C(username) may carry the organization (administrator@system), unless C(auth_org) is given.
    """
    token = params.get("token") or None
    wanted = ("hostname",) if token else ("hostname", "username", "password")
    missing = [name for name in wanted if not params.get(name)]
    if missing:
        raise BadInput(
            "No vCloud Director to talk to: "
            + ", ".join(f"{name} (or the environment variable {ENVIRONMENT[name]})" for name in missing)
            + " missing.",
            step="connect to vCloud Director",
        )
    host = str(params["hostname"]).strip()
    if "/" in host or "@" in host:
        raise BadInput(
            f"hostname is a name or an address, not a URL: {bounded(host.rsplit('@', 1)[-1], 120)}", step="connect to vCloud Director"
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    user, org = str(params.get("username") or ""), params.get("auth_org") or None
    if org is None:
        user, at, said = user.rpartition("@") if "@" in user else (user, "", "")
        org = said if at and said else SYSTEM
    elif user.lower().endswith("@" + str(org).lower()):
        user = user[: -len(str(org)) - 1]
    if ":" in user or ":" in str(org):
        raise BadInput("A user name or an organization with a colon cannot be logged in with.", step="connect to vCloud Director")
    port, validate = params.get("port"), params.get("validate_certs")
    return Endpoint(
        host=host,
        port=443 if port is None else int(port),
        username=user,
        org=str(org),
        password=str(params.get("password") or ""),
        token=token,
        validate_certs=True if validate is None else bool(validate),
        ca_path=params.get("ca_path") or None,
        api_version=params.get("api_version") or None,
    )


def local_path(href: str) -> str:
    """The path and query of C(href), which is all that is used of a link.

    vCloud Director's links carry its public base URL, which may be another address than the one that is configured, or one that
    somebody else owns: no request ever goes to where a link points.

    :raises ServerError: code C(link): that is no path of its API.
    """
    try:
        parts = urlsplit(href if len(href) <= 8192 else "")
    except ValueError:
        parts = urlsplit("")
    path = parts.path
    if not path.startswith(("/api/", "/cloudapi/")) and path not in ("/api", "/cloudapi"):
        raise ServerError("The server gave a link that leads out of its API.", code="link", said=bounded(href, 200))
    if (
        any(p in (".", "..") for p in path.split("/"))
        or "\\" in path
        or not (path + parts.query).isprintable()
        or " " in path + parts.query
    ):
        raise ServerError("The server gave a link that is no proper URL.", code="link", said=bounded(href, 200))
    return f"{path}?{parts.query}" if parts.query else path


@dataclass(frozen=True)
class Answer:
    """C(headers) are looked up without regard to case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def request_id(self) -> str | None:
        return self.headers.get("X-VMWARE-VCLOUD-REQUEST-ID")


class LostAnswer(ServerError):
    """The request may have reached the server, but its answer did not reach us."""

    code = "lost_answer"


class Transport:
    """Requests to one endpoint over kept connections. May be used from several threads."""

    def __init__(self, where: Endpoint, timeout: float = CALL_TIMEOUT) -> None:
        requests = import_requests()
        self.where = where
        self.timeout = (min(CONNECT_TIMEOUT, timeout), timeout)
        self._errors = requests.exceptions
        urllib3 = need("urllib3")
        self._broken = (OSError, zlib.error, urllib3.exceptions.HTTPError)
        if not where.validate_certs:  # the user has said so; a warning at each request tells nothing new
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._session = requests.Session()
        # No .netrc: it would replace our Authorization header. No cookies: a session's cookie is a second way in that outlives it.
        self._session.trust_env = False
        self._session.cookies.set_policy(_no_cookies())
        self._session.headers.clear()
        self._session.headers.update({"User-Agent": "ferry.vmware", "Accept-Encoding": "gzip"})
        self._proxies = requests.utils.get_environ_proxies(where.base_url)
        context = trust.context(where.validate_certs, where.ca_path, "connect to vCloud Director")
        if version_of("urllib3") < (2,):
            # urllib3 1 gives ssl no name where the host is an address, and compares the certificate's names itself where ssl does not
            context.check_hostname = False
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _adapter(requests, context, where.validate_certs))

    def exchange(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None = None, step: str, limit: int = MAX_BODY
    ) -> Answer:
        """Send one request and read its answer, of any status.

        :param path: of local_path().
        :raises LostAnswer: the connection broke after the request may have been sent.
        :raises ServerError: code unreachable, untrusted_certificate, timeout, protocol, too_large or redirect.
        """
        for _turn in range(MAX_REDIRECTS + 1):
            answer = self._one(method, path, headers, body, step, limit)
            target = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            if method != "GET" or not target or not self._ours(path, target):
                raise ServerError(
                    f"{self.where.netloc} redirects, and credentials are sent to no other place than the one that is configured.",
                    code="redirect",
                    step=step,
                    said=f"HTTP {answer.status} to {bounded(target or 'nowhere', 200)}",
                    next_command="set hostname (VCD_HOST) to the address that answers itself",
                )
            path = local_path(urljoin(self.where.base_url + path, target))
        raise ServerError(f"{self.where.netloc} redirects without end.", code="redirect", step=step)

    def _ours(self, path: str, target: str) -> bool:
        try:
            parts = urlsplit(urljoin(self.where.base_url + path, target))
            return parts.scheme == "https" and (parts.hostname or "") == self.where.host.lower() and (parts.port or 443) == self.where.port
        except ValueError:
            return False

    def _one(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, step: str, limit: int) -> Answer:
        try:
            with self._session.request(
                method,
                self.where.base_url + path,
                headers=dict(headers),
                data=body,
                timeout=self.timeout,
                allow_redirects=False,
                verify=self.where.validate_certs,
                proxies=self._proxies,
                stream=True,
            ) as answer:
                data = _bounded_body(answer.raw, answer.headers, limit, self.where.netloc, step)
                return Answer(answer.status_code, answer.headers, data)
        except self._errors.RequestException as e:
            raise self._error(e, step) from e
        except self._broken as e:  # while the body is read
            raise LostAnswer(f"The connection to {self.where.netloc} broke.", step=step, said=_said(e)) from e

    def _error(self, e: BaseException, step: str) -> ServerError:
        where, causes = self.where, _causes(e)
        facts: dict[str, Any] = {"step": step, "host": where.host, "port": where.port}
        for cause in causes:
            # the second is urllib3 1's own
            if isinstance(cause, ssl.SSLCertVerificationError) or type(cause).__name__ == "CertificateError":
                trusted = f"the CAs in {where.ca_path}" if where.ca_path else "the CAs of this system"
                return ServerError(
                    f"The certificate of {where.netloc} is not trusted by {trusted}.",
                    code="untrusted_certificate",
                    said=getattr(cause, "verify_message", None) or cause,
                    next_command="set ca_path (VCD_CA_PATH) to the PEM file of the CA that signed it, or hostname to a name that it carries",
                    **facts,
                )
            if isinstance(cause, socket.gaierror):
                return ServerError(f"The name {where.host} cannot be resolved.", code="unreachable", said=cause, **facts)
        if isinstance(e, (self._errors.ConnectTimeout, self._errors.ProxyError)) or any(
            isinstance(c, (ConnectionRefusedError, ssl.SSLError)) for c in causes
        ):
            return ServerError(f"{where.netloc} cannot be reached.", code="unreachable", said=_said(causes[-1]), **facts)
        if isinstance(e, self._errors.ReadTimeout):
            return LostAnswer(f"{where.netloc} did not answer within {self.timeout[1]:g} seconds.", said=_said(causes[-1]), **facts)
        new = any(type(c).__name__ in ("NewConnectionError", "NameResolutionError") for c in causes)
        if new:
            return ServerError(f"{where.netloc} cannot be reached.", code="unreachable", said=_said(causes[-1]), **facts)
        if isinstance(e, (self._errors.ConnectionError, self._errors.ChunkedEncodingError, self._errors.Timeout)):
            return LostAnswer(f"The connection to {where.netloc} broke.", said=_said(causes[-1]), **facts)
        return ServerError(f"{where.netloc} answers something that is no HTTP.", code="protocol", said=_said(causes[-1]), **facts)

    def close(self) -> None:
        self._session.close()


def _said(e: BaseException) -> str:
    return f"{type(e).__name__}: {e}"


def _causes(e: BaseException) -> list[BaseException]:
    """C(e) and what it was raised from, in requests' and urllib3's ways."""
    found: list[BaseException] = []
    todo: list[Any] = [e]
    while todo and len(found) < 20:
        one = todo.pop(0)
        if isinstance(one, BaseException) and not any(one is f for f in found):
            found.append(one)
            todo += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
    return found


def _no_cookies() -> Any:
    import http.cookiejar  # with requests, which has it loaded already

    return http.cookiejar.DefaultCookiePolicy(allowed_domains=[])


def _adapter(requests: Any, context: ssl.SSLContext, validate: bool) -> Any:
    """requests' adapter with our TLS context: its own would trust its bundle of CAs beside the given one."""

    class Adapter(requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> Any:
            return super().init_poolmanager(*args, ssl_context=context, **kwargs)

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            return super().proxy_manager_for(proxy, ssl_context=context, **kwargs)

        def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
            conn.cert_reqs = "CERT_REQUIRED" if validate else "CERT_NONE"

    return Adapter(pool_connections=2, pool_maxsize=POOL, max_retries=0)


def _bounded_body(raw: Any, headers: Mapping[str, str], limit: int, netloc: str, step: str) -> bytes:
    """The body, decompressed, of at most C(limit) bytes."""
    packed = (headers.get("Content-Encoding") or "").lower() in ("gzip", "x-gzip")
    pieces, size = [], 0
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS) if packed else None
    while True:
        piece = raw.read(1 << 18, decode_content=False)
        if not piece:
            break
        if inflate is not None:
            piece = inflate.decompress(piece, limit + 1 - size)
            if inflate.unconsumed_tail:
                size = limit + 1
        size += len(piece)
        if size > limit:
            raise ServerError(f"{netloc} answers with more than {limit} bytes.", code="too_large", step=step)
        pieces.append(piece)
    if inflate is not None and pieces and not inflate.eof:
        raise zlib.error("the compressed answer ends too soon")
    expected = headers.get("Content-Length")
    if inflate is None and expected and expected.isdigit() and size != int(expected):
        raise OSError(f"{size} bytes of {expected} came")
    return b"".join(pieces)
