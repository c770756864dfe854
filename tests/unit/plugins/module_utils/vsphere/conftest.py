# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server that speaks vSphere's SOAP over TLS: log-in, sessions, faults, and whatever a test tells it to answer."""

from __future__ import annotations

import datetime
import http.server
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from pyVmomi import SoapAdapter, vim, vmodl
from pyVmomi.VmomiSupport import Object

VERSIONS = b"""<?xml version="1.0" encoding="UTF-8"?>
<namespaces version="1.0"><namespace><name>urn:vim25</name><version>8.0.3.0</version>
<priorVersions><version>8.0.2.0</version><version>6.5</version></priorVersions></namespace></namespaces>"""

ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    "<soapenv:Body>{}</soapenv:Body></soapenv:Envelope>"
)

VERSION = "vim.version.v8_0_3_0"
PASSWORD = "s3cret-of-the-test"


class Fault(Exception):
    """To be raised by a handler: the fault's name and further elements of its detail."""

    def __init__(self, name: str, inner: str = "") -> None:
        super().__init__(name)
        self.name = name
        self.inner = inner


def serialized(value: Any, kind: type) -> str:
    """C(value) as the C(returnval) of an answer."""
    text: str = SoapAdapter.SerializeToStr(value, Object(name="returnval", type=kind, version=VERSION, flags=0), VERSION)
    return text


class FakeVcenter:
    """C(handlers): what is answered to a method, a function of the request's body. C(calls): names of the methods called."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.sessions: set[str] = set()
        self.logins = 0
        self.calls: list[str] = []
        self.bodies: list[str] = []
        self.versions = VERSIONS
        self.handlers: dict[str, Callable[[str], Any]] = {
            "RetrieveServiceContent": lambda body: self.content(),
            "Logout": lambda body: None,
            "CreateContainerView": lambda body: vim.view.ContainerView("view-1"),
            "DestroyView": lambda body: None,
        }
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # one segment for head and body: no waiting for delayed acknowledgements

            def log_message(self, format: str, *args: Any) -> None:
                """Tests are quiet."""

            def do_GET(self) -> None:
                self.answer(200 if self.path == "/sdk/vimServiceVersions.xml" else 404, fake.versions)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, text, cookie = fake.soap(body, self.headers.get("Cookie") or "")
                self.answer(status, text.encode(), cookie)

            def answer(self, status: int, body: bytes, cookie: str | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(body)))
                if cookie:
                    self.send_header("Set-Cookie", f'vmware_soap_session="{cookie}"; Path=/; HttpOnly; Secure;')
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @staticmethod
    def content() -> Any:
        return vim.ServiceInstanceContent(
            rootFolder=vim.Folder("group-d1"),
            propertyCollector=vmodl.query.PropertyCollector("propertyCollector"),
            viewManager=vim.view.ViewManager("ViewManager"),
            searchIndex=vim.SearchIndex("SearchIndex"),
            sessionManager=vim.SessionManager("SessionManager"),
            customFieldsManager=vim.CustomFieldsManager("CustomFieldsManager"),
            about=vim.AboutInfo(
                name="fake",
                fullName="fake",
                vendor="",
                version="8.0.3",
                build="1",
                osType="",
                productLineId="",
                apiType="VirtualCenter",
                apiVersion="",
            ),
        )

    def soap(self, body: str, cookie: str) -> tuple[int, str, str | None]:
        found = re.search(r"<soapenv:Body[^>]*><(\w+)", body)
        method = found.group(1) if found else ""
        self.calls.append(method)
        self.bodies.append(body)
        known = re.search(r'vmware_soap_session="?([\w-]+)', cookie)
        try:
            if method == "Login":
                return 200, *self.login(body)
            if method not in ("RetrieveServiceContent", "Logout") and (not known or known.group(1) not in self.sessions):
                raise Fault("NotAuthenticated")
            value = self.handlers[method](body)
        except Fault as fault:
            detail = f'<{fault.name}Fault xmlns="urn:vim25" xsi:type="{fault.name}">{fault.inner}</{fault.name}Fault>'
            text = f"<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>said {fault.name}</faultstring><detail>{detail}</detail></soapenv:Fault>"
            return 500, ENVELOPE.format(text), None
        inner = ""
        if value is not None:
            inner = serialized(value, type(value))
        return 200, ENVELOPE.format(f'<{method}Response xmlns="urn:vim25">{inner}</{method}Response>'), None

    def login(self, body: str) -> tuple[str, str]:
        if not re.search(f"<password[^>]*>{PASSWORD}<", body):
            raise Fault("InvalidLogin")
        self.logins += 1
        session = f"session-{self.logins}"
        self.sessions.add(session)
        now = datetime.datetime(2026, 11, 21, tzinfo=datetime.timezone.utc)
        inner = serialized(
            vim.UserSession(
                key=session,
                userName="u",
                fullName="u",
                loginTime=now,
                lastActiveTime=now,
                locale="en_US",
                messageLocale="en_US",
                extensionSession=False,
                ipAddress="",
                userAgent="",
                callCount=0,
            ),
            vim.UserSession,
        )
        return ENVELOPE.format(f'<LoginResponse xmlns="urn:vim25">{inner}</LoginResponse>'), session


def result(rows: Mapping[Any, Mapping[str, Any]], token: str | None = None) -> Any:
    """A page of the property collector: properties by managed object."""
    query = vmodl.query.PropertyCollector
    objects = [
        query.ObjectContent(obj=obj, propSet=[vmodl.DynamicProperty(name=name, val=value) for name, value in props.items()])
        for obj, props in rows.items()
    ]
    return query.RetrieveResult(objects=objects, token=token)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    ca = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return ca, path


@pytest.fixture(scope="session")
def tls(authority: tuple[trustme.CA, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority[0].issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def vcenter(tls: ssl.SSLContext) -> Iterator[FakeVcenter]:
    fake = FakeVcenter(tls)
    yield fake
    fake.close()


@pytest.fixture
def params(vcenter: FakeVcenter, authority: tuple[trustme.CA, Path]) -> dict[str, Any]:
    return {
        "hostname": "127.0.0.1",
        "port": vcenter.port,
        "username": "administrator@vsphere.local",
        "password": PASSWORD,
        "ca_path": str(authority[1]),
        "validate_certs": True,
    }
