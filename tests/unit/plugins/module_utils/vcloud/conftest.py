# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server that answers over TLS what a test tells it to, and remembers the requests: the wire of the vCloud client's tests."""

from __future__ import annotations

import gzip
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

SAMPLES = Path(__file__).with_name("samples")
PASSWORD = "s3cret-of-the-test"
BEARER = "eyJhbGciOiJub25lIn0.e30.signature"
OLD = "u0+daukop+PlVs4yQ5/eceLe3EVM6lIbUaB6LyhOCqU="
VCLOUD = "http://www.vmware.com/vcloud/v1.5"


def sample(name: str) -> bytes:
    """A sample body."""
    return (SAMPLES / f"{name}.xml").read_bytes()


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def versions(*numbers: str) -> bytes:
    """The answer to GET /api/versions."""
    infos = "".join(f"<VersionInfo><Version>{n}</Version></VersionInfo>" for n in numbers)
    return f'<SupportedVersions xmlns="http://www.vmware.com/vcloud/versions">{infos}</SupportedVersions>'.encode()


class FakeVcd:
    """C(handlers): what is answered to "METHOD /path" (without the query), a function of the request."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.asked: list[Asked] = []
        self.handlers: dict[str, Callable[[Asked], Answer]] = {
            "GET /api/versions": lambda a: Answer(200, versions("1.5", "5.1", "30.0", "33.0", "36.0", "38.1", "39.1")),
            "POST /api/sessions": self.old_login,
            "POST /cloudapi/1.0.0/sessions": self.login,
            "POST /cloudapi/1.0.0/sessions/provider": self.login,
            "DELETE /api/session": lambda a: Answer(204),
        }
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16

            def log_message(self, format: str, *args: Any) -> None:
                """Tests are quiet."""

            def go(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                fake.asked.append(asked)
                handler = fake.handlers.get(f"{self.command} {self.path.partition('?')[0]}")
                answer = handler(asked) if handler else Answer(404)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_PUT = do_DELETE = go

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @staticmethod
    def old_login(asked: Asked) -> Answer:
        headers = {"x-vcloud-authorization": OLD}
        if "version=30" in asked.headers["accept"]:
            headers |= {"X-VMWARE-VCLOUD-ACCESS-TOKEN": BEARER, "X-VMWARE-VCLOUD-TOKEN-TYPE": "Bearer"}
        return Answer(200, sample("session_xml"), headers)

    @staticmethod
    def login(asked: Asked) -> Answer:
        headers = {"X-VMWARE-VCLOUD-ACCESS-TOKEN": BEARER, "X-VMWARE-VCLOUD-TOKEN-TYPE": "Bearer"}
        return Answer(200, b'{"id": "urn:vcloud:session:3333cccc-0000-4000-8000-000000000003"}', headers)

    def paths(self) -> list[str]:
        """The requests so far, as "METHOD /path"."""
        return [f"{a.method} {a.path.partition('?')[0]}" for a in self.asked]


def packed(body: bytes) -> Answer:
    """C(body), compressed."""
    return Answer(200, gzip.compress(body), {"Content-Encoding": "gzip"})


@pytest.fixture(scope="session")
def vcd_authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def vcd(vcd_authority: trustme.CA) -> Iterator[FakeVcd]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    vcd_authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    fake = FakeVcd(context)
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.fixture
def vcd_params(vcd: FakeVcd, vcd_authority: trustme.CA, tmp_path: Path) -> dict[str, Any]:
    """The connection options of the fake."""
    ca = tmp_path / "ca.pem"
    vcd_authority.cert_pem.write_to_path(str(ca))
    return {"hostname": "127.0.0.1", "port": vcd.port, "username": "administrator", "password": PASSWORD, "ca_path": str(ca)}
