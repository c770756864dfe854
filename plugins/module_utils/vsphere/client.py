# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A session with vCenter or ESXi: log in once, stay logged in, say clearly what went wrong.

The tasks of a run share one (session_share.py).

pyVmomi is used from its stub upwards only: its own connect() asks for the API version without a timeout, switches the
verification of certificates off for localhost, and gives up when a session expires.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, TypeVar
from xml.etree import ElementTree

from .. import trust
from ..errors import BadInput, FerryError, ServerError, bounded
from ..requires import need, pyvmomi
from .argspec import ENVIRONMENT
from .session_share import Share

T = TypeVar("T")

#: Seconds for the first word with the server, and for any answer after that (a big inventory takes its time).
CONNECT_TIMEOUT = 30.0
CALL_TIMEOUT = 180.0
#: Seconds after which an idle connection is not used again: shorter than the idle time of vCenter's reverse proxy.
IDLE_SECONDS = 45.0
#: Labels of devices are localized to the session's locale.
LOCALE = "en_US"

VERSIONS_PATH = "/sdk/vimServiceVersions.xml"
MAX_VERSIONS_BYTES = 1 << 20


#: How the end of a connection shows that was closed without TLS's own good-bye.
CLOSED = (ssl.SSLEOFError, ssl.SSLZeroReturnError)


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom to log in. C(password) is not in its repr."""

    host: str
    port: int
    username: str
    password: str = field(repr=False)
    validate_certs: bool = True
    ca_path: str | None = None

    @property
    def netloc(self) -> str:
        """host:port as it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class FolderAccess:
    """What a reader of the datastores' C(/folder) needs; free of pyVmomi.

    :param base_url: https://host:port, no slash at the end.
    :param headers: the request headers of now (Cookie); to be called for each request.
    :param renew: to be called after a 401 or 403, in the thread that got it; logs in again unless another thread already has.
    """

    base_url: str
    host: str
    port: int
    ca_path: str | None
    validate_certs: bool
    ssl_context: ssl.SSLContext = field(repr=False)
    headers: Callable[[], dict[str, str]] = field(repr=False)
    renew: Callable[[], None] = field(repr=False)


def endpoint(params: Mapping[str, Any]) -> Endpoint:
    """The endpoint that the connection options C(params) name; BadInput lists every option that is missing."""
    missing = [name for name in ("hostname", "username", "password") if not params.get(name)]
    if missing:
        raise BadInput(
            "No vCenter to talk to: "
            + ", ".join(f"{name} (or the environment variable {ENVIRONMENT[name]})" for name in missing)
            + " missing.",
            step="connect to vCenter",
        )
    host = str(params["hostname"]).strip()
    if "/" in host or "@" in host:
        raise BadInput(f"hostname is a name or an address, not a URL: {bounded(host.rsplit('@', 1)[-1], 120)}", step="connect to vCenter")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    port = params.get("port")
    validate = params.get("validate_certs")
    return Endpoint(
        host=host,
        port=443 if port is None else int(port),
        username=str(params["username"]),
        password=str(params["password"]),
        validate_certs=True if validate is None else bool(validate),
        ca_path=params.get("ca_path") or None,
    )


def offered_versions(document: bytes) -> list[str]:
    """The API versions in a server's vimServiceVersions.xml, newest first (vSphere Web Services SDK Programming Guide,
    "Identifying the API versions supported by the server"); none where the document is none of a vSphere server."""
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        return []
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError:
        return []
    spaces = [n for n in root.iter("namespace") if (n.findtext("name") or "").startswith("urn:vim25")]
    return [e.text for n in spaces for e in n.iter("version") if e.text]


def newest_version(document: bytes) -> str | None:
    """The version that a server itself counts as its newest, where it is one that can stand in a request."""
    version = next(iter(offered_versions(document)), None)
    return version if version and re.fullmatch(r"[0-9A-Za-z.]{1,40}", version) else None


def choose_version(document: bytes, known: list[tuple[str, str]]) -> str | None:
    """The newest API version that both sides speak, by the name that pyVmomi has for it.

    :param document: the server's vimServiceVersions.xml.
    :param known: pyVmomi's versions, newest first, as (name, version id).
    """
    offered = set(offered_versions(document))
    return next((name for name, version in known if version and version in offered), None)


def not_vsphere(where: Endpoint, status: int) -> ServerError:
    """The error for a server that does not say which vSphere API it speaks."""
    return ServerError(
        f"{where.netloc} is no vSphere server, or none of an API version that is spoken here.",
        code="not_vsphere",
        step="connect to vCenter",
        said=f"HTTP {status} to GET {VERSIONS_PATH}",
        host=where.host,
        port=where.port,
    )


def login_refused(where: Endpoint, said: str | None) -> ServerError:
    """The error for a wrong user name or password; the password is not in it."""
    return ServerError(
        f"{where.netloc} refuses the user name or the password of {bounded(where.username, 120)}.",
        code="login",
        step="log in to vCenter",
        said=said,
        host=where.host,
        username=where.username,
    )


def fault_name(fault: BaseException) -> str:
    """The name of a vSphere fault as the API reference has it (InvalidLogin), or of the exception's class."""
    return str(getattr(fault, "_wsdlName", None) or type(fault).__name__)


def fault_text(fault: BaseException) -> str:
    """What the server said in a fault, on one line: its name, its message and the messages attached to it."""
    said = [str(getattr(fault, "msg", None) or "")]
    for message in getattr(fault, "faultMessage", None) or []:
        said.append(str(getattr(message, "message", None) or getattr(message, "key", None) or ""))
    reason = getattr(fault, "reason", None)
    if isinstance(reason, str):
        said.append(reason)
    words = "; ".join(dict.fromkeys(s.strip() for s in said if s and s.strip()))
    if not words and not hasattr(fault, "msg"):
        words = str(fault)
    return bounded(f"{fault_name(fault)}: {words}" if words else fault_name(fault))


def transport_error(e: BaseException, where: Endpoint, step: str) -> FerryError:
    """The typed error for an exception of the socket, TLS or HTTP layer."""
    at = where.netloc
    if isinstance(e, ssl.SSLCertVerificationError):
        trusted = f"the CAs in {where.ca_path}" if where.ca_path else "the CAs of this system"
        return ServerError(
            f"The certificate of {at} is not trusted by {trusted}.",
            code="untrusted_certificate",
            step=step,
            said=e.verify_message or e,
            next_command=f"set ca_path (VMWARE_CA_PATH) to the CA's PEM file (a vCenter offers it at https://{at}/certs/download.zip), "
            "or hostname to a name that the certificate carries",
            host=where.host,
            port=where.port,
        )
    if isinstance(e, (socket.timeout, TimeoutError)):
        return ServerError(f"{at} did not answer in time.", code="timeout", step=step, said=e, host=where.host, port=where.port)
    if isinstance(e, socket.gaierror):
        return ServerError(
            f"The name {where.host} cannot be resolved.", code="unreachable", step=step, said=e, host=where.host, port=where.port
        )
    if isinstance(e, ssl.SSLError) and not isinstance(e, CLOSED):
        return ServerError(f"{at} does not speak TLS as expected.", code="unreachable", step=step, said=e, host=where.host, port=where.port)
    if e.__class__ is http.client.HTTPException:  # how pyVmomi says an HTTP status that is no SOAP
        return ServerError(f"{at} answers with an HTTP error.", code="unreachable", step=step, said=e, host=where.host, port=where.port)
    broke = isinstance(e, (ConnectionResetError, BrokenPipeError, http.client.HTTPException, *CLOSED))
    return ServerError(
        f"The connection to {at} broke." if broke else f"{at} cannot be reached.",
        code="unreachable",
        step=step,
        said=f"{type(e).__name__}: {e}",
        host=where.host,
        port=where.port,
    )


class Session:
    """A session with vCenter or ESXi, to be had from connect(). May be used from several threads.

    C(content) is the ServiceContent; managed objects are to be made with this session's C(stub).
    """

    def __init__(self, where: Endpoint, timeout: float = CALL_TIMEOUT) -> None:
        self.vim, self.vmodl, self._soap = pyvmomi()
        self.endpoint = where
        self.ssl_context = trust.context(where.validate_certs, where.ca_path, "connect to vCenter")
        self._lock = threading.RLock()
        self._handed_out = threading.local()
        self._generation = 0
        self._open = False
        self._timeout = timeout
        self._share = Share(where)
        try:
            self.version = self._share.version() or self._negotiate()
            self.stub = self.new_stub()
            try:
                service = self.vim.ServiceInstance("ServiceInstance", self.stub)
                self.content: Any = self.call(service.RetrieveContent, step="connect to vCenter")
                self._login(0)
            except BaseException:
                self.stub.DropConnections()
                raise
        except BaseException:
            self._share.leave()
            raise

    def new_stub(self) -> Any:
        """A connection that is not logged in."""
        where = self.endpoint
        return self._soap.SoapStubAdapter(
            host=where.host,
            port=where.port,
            path="/sdk",
            version=self.version,
            # always given: without one pyVmomi verifies nothing on localhost
            sslContext=self.ssl_context,
            httpConnectionTimeout=self._timeout,
            connectionPoolTimeout=IDLE_SECONDS,
        )

    def _negotiate(self) -> str:
        """Ask the server which API versions it speaks; the first word with it, so it also tells whether it can be reached."""
        where = self.endpoint
        support = need("pyVmomi.VmomiSupport")
        connection = http.client.HTTPSConnection(
            where.host, where.port, timeout=min(CONNECT_TIMEOUT, self._timeout), context=self.ssl_context
        )
        try:
            connection.request("GET", VERSIONS_PATH)
            answer = connection.getresponse()
            document = answer.read(MAX_VERSIONS_BYTES)
        except (OSError, http.client.HTTPException) as e:
            raise transport_error(e, where, "connect to vCenter") from e
        finally:
            connection.close()
        known = [(name, str(support.versionIdMap[name])) for name in support.GetServiceVersions("vim25")]
        version = choose_version(document, known) if answer.status == 200 else None
        if version is None:
            raise not_vsphere(where, answer.status)
        return version

    def _login(self, generation: int) -> None:
        """Log in, unless somebody else has since C(generation)."""
        with self._lock:
            if self._generation != generation:
                return
            if not self._share.join(self):
                self.login_anew()
            self._generation += 1
            self._open = True

    def login_anew(self) -> str:
        """Log in, whoever else has; the key of the new session (UserSession.key)."""
        step = "log in to vCenter"
        # By a stub of its own: Login fails on a session that is logged in, and other threads are still using the old cookie.
        fresh = self.new_stub()
        manager = self.vim.SessionManager(self.content.sessionManager._moId, fresh)
        try:
            key = str(manager.Login(self.endpoint.username, self.endpoint.password, LOCALE).key)
        except self.vim.fault.InvalidLogin as e:
            raise login_refused(self.endpoint, fault_text(e)) from None
        except Exception as e:  # whatever pyVmomi lets through: typed here, or raised again
            typed = self.error(e, step)
            if typed is e:
                raise
            raise typed from e
        finally:
            fresh.DropConnections()
        self.stub.SetSessionId(fresh.GetSessionId())
        self.stub.cookie = fresh.cookie
        return key

    @property
    def generation(self) -> int:
        """Counts the log-ins. What belongs to a session (views, page tokens) is gone when this has changed."""
        return self._generation

    def error(self, e: BaseException, step: str | None = None) -> BaseException:
        """The typed error for whatever pyVmomi raised; C(e) itself where it is none of the server or the wire."""
        if isinstance(e, FerryError):
            return e.add(step=step)
        if isinstance(e, self.vmodl.MethodFault):
            return ServerError(f"{self.endpoint.netloc} refused.", code="fault", step=step, said=fault_text(e), fault=fault_name(e))
        if isinstance(e, (OSError, http.client.HTTPException)):
            return transport_error(e, self.endpoint, step or "talk to vCenter")
        if type(e).__name__ in ("ExpatError", "ParserError"):
            return ServerError(f"{self.endpoint.netloc} answered something that is no SOAP.", code="protocol", step=step, said=e)
        return e

    def call(self, fn: Callable[..., T], *args: Any, step: str | None = None, again: bool = False, **kwargs: Any) -> T:
        """C(fn(*args, **kwargs)), a call of the vSphere API; logs in again once where the session has expired.

        :param step: what is being done, for the error.
        :param again: the call changes nothing, so it may be repeated once after a broken connection.
        :raises ServerError: code C(fault) with details.fault = the name of the vSphere fault (the fault is its C(__cause__)), or
            C(unreachable), C(timeout), C(login).
        """
        for last in (False, True):
            generation = self._generation
            try:
                return fn(*args, **kwargs)
            except self.vim.fault.NotAuthenticated as e:
                if last:
                    raise self.error(e, step) from e
                self._login(generation)
            except Exception as e:  # typed by error(), or raised again
                broken = isinstance(e, (ConnectionError, http.client.HTTPException, *CLOSED)) and not isinstance(e, ConnectionRefusedError)
                if broken:
                    self.stub.DropConnections()  # those that wait in pyVmomi's pool are of the same age
                if again and broken and not last:
                    continue
                if isinstance(e, KeyError):  # pyVmomi raises it for a type that it does not know: a server newer than the library
                    said = f"a type that it does not know: {e}"
                    raise ServerError(
                        f"{self.endpoint.netloc} answered in a way that this pyVmomi does not understand.",
                        code="unknown_type",
                        step=step,
                        said=said,
                    ) from e
                typed = self.error(e, step)
                if typed is e:
                    raise
                raise typed from e
        raise AssertionError("unreachable")

    def managed(self, kind: str, moref: str) -> Any:
        """The managed object C(moref) of the type C(kind) (VirtualMachine, Datastore ...); nothing is asked of the server."""
        return getattr(self.vim, kind)(moref, self.stub)

    @property
    def cookie(self) -> str:
        """The value of the cookie C(vmware_soap_session), which datastore HTTPS wants as well."""
        return self.cookie_pair().partition("=")[2]

    def cookie_pair(self) -> str:
        """The cookie as a request carries it, NAME=VALUE; empty where there is none."""
        # the stub keeps the whole Set-Cookie header
        return str(self.stub.cookie).split(";", 1)[0].strip()

    def folder_access(self) -> FolderAccess:
        """What a reader of the datastores' C(/folder) needs. Vendor reference: vSphere Web Services SDK Programming Guide,
        "HTTP Access to vSphere Server Files" (session cookie of the SOAP log-in)."""

        def headers() -> dict[str, str]:
            with self._lock:
                self._handed_out.generation = self._generation
                return {"Cookie": self.cookie_pair()}

        def renew() -> None:
            self._login(getattr(self._handed_out, "generation", self._generation))

        where = self.endpoint
        return FolderAccess(
            base_url=f"https://{where.netloc}",
            host=where.host,
            port=where.port,
            ca_path=where.ca_path,
            validate_certs=where.validate_certs,
            ssl_context=self.ssl_context,
            headers=headers,
            renew=renew,
        )

    def close(self) -> None:
        """Log out, once, unless the session is the run's; a server that is away is no error any more."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            try:
                if not self._share.leave():
                    self.content.sessionManager.Logout()
            except (OSError, http.client.HTTPException, self.vmodl.MethodFault):
                pass  # the session expires by itself
            self.stub.DropConnections()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Session({self.endpoint!r})"


def connect(params: Mapping[str, Any], timeout: float = CALL_TIMEOUT) -> Session:
    """Log in with the connection options C(params) (argspec.py).

    :param timeout: seconds to wait for any answer of the server.
    :raises BadInput: an option is missing or ca_path cannot be read.
    :raises ServerError: with code login, untrusted_certificate, unreachable, timeout, not_vsphere or fault.
    """
    return Session(endpoint(params), timeout)
