# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cloud on loopback: Keystone's log-in and a catalog whose services answer what a test says. The wire is faked, nothing of ours."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.file import FileSource
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.base import Identity
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.indexed_stream import IndexedWriter
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client

PROJECT = "0123456789abcdef0123456789abcdef"
SERVICES = {"image": "image", "compute": "compute", "network": "network", "volumev3": "block-storage"}
VERSIONS = {"image": "v2.16", "compute": "v2.1", "network": "v2.0", "block-storage": "v3.0", "placement": "v1.0"}
#: An answer: (status, JSON body or bytes). A handler gets (method, path, body).
Answer = tuple[int, Any]
Handler = Callable[[str, str, bytes], Answer]


class FakeCloud:
    def __init__(self) -> None:
        self.password = "secret"
        self.token = "token"
        self.expires_at = "2099-01-01T00:00:00.000000Z"
        self.handler: Handler = lambda method, path, body: (404, {})
        self.requests: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.cut_after: int | None = None
        self.services = dict(SERVICES)
        self.roles: list[str] = []
        cloud = self

        class Wire(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two packets: the second would wait 40 ms for an answer to the first

            def _serve(self) -> None:
                body = self._body()
                if body is None:
                    self.close_connection = True
                    return
                headers: dict[str, str] = {}
                service = self.path.strip("/")
                if self.path.startswith("/identity"):
                    status, answer, headers = cloud.identity(self.command, body)
                elif service in VERSIONS and self.command == "GET":
                    links = [{"rel": "self", "href": f"{cloud.url}/{service}/"}]
                    status, answer = 200, {"versions": [{"id": VERSIONS[service], "status": "CURRENT", "links": links}]}
                else:
                    cloud.requests.append((self.command, self.path, body, dict(self.headers.items())))
                    status, answer = cloud.handler(self.command, self.path, body)
                if isinstance(answer, tuple):
                    headers = answer[1]
                    answer = answer[0]
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):
                    self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

            def _body(self) -> bytes | None:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts: list[bytes] = []
                while line := self.rfile.readline():
                    size = int(line, 16)
                    if not size:
                        self.rfile.readline()
                        return b"".join(parts)
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                    if cloud.cut_after is not None and sum(map(len, parts)) > cloud.cut_after:
                        break
                return None  # the body ended before its end: whoever sent it is gone

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Wire)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def identity(self, method: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if method == "GET":
            version = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": f"{self.url}/identity/v3"}]}
            return 200, {"version": version}, {}
        given = json.loads(body)["auth"]["identity"]["password"]["user"]["password"]
        if given != self.password:
            return 401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}, {}
        catalog = [
            {
                "type": kind,
                "name": name,
                "id": name,
                "endpoints": [{"interface": "public", "region": "R", "region_id": "R", "id": name, "url": f"{self.url}/{name}"}],
            }
            for kind, name in self.services.items()
        ]
        token = {
            "methods": ["password"],
            "expires_at": self.expires_at,
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "catalog": catalog,
            "project": {"id": PROJECT, "name": "p", "domain": {"id": "default", "name": "Default"}},
            "user": {"id": "u", "name": "user", "domain": {"id": "default", "name": "Default"}},
            "roles": [{"id": name, "name": name} for name in self.roles],
        }
        return 201, {"token": token}, {"X-Subject-Token": self.token}

    def params(self, **auth: str) -> dict[str, Any]:
        """Options that log in here."""
        return {
            "cloud": {
                "auth": {
                    "auth_url": f"{self.url}/identity/v3",
                    "username": "user",
                    "password": self.password,
                    "project_name": "p",
                    "user_domain_id": "default",
                    "project_domain_id": "default",
                    **auth,
                },
                "region_name": "R",
            }
        }

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    for name in ("OS_CLOUD", "OS_CLIENT_CONFIG_FILE", "OS_AUTH_URL"):
        monkeypatch.delenv(name, raising=False)
    cloud = FakeCloud()
    yield cloud
    cloud.close()


@pytest.fixture
def conn(fake: FakeCloud) -> Iterator[Any]:
    connection = client.connect(fake.params())
    yield connection
    connection.session.session.close()
    connection.close()


@pytest.fixture
def server(fake: FakeCloud) -> Any:
    """A FakeGlance."""
    from .glance_fake import FakeGlance

    return FakeGlance(fake)


@pytest.fixture
def image_conn(fake: FakeCloud) -> Iterator[Any]:
    connection = client.connect(fake.params())
    yield connection
    connection.session.session.close()
    connection.close()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as f:
        f.truncate(8 << 20)
        for at in (0, 3 << 20, 7 << 20):
            f.seek(at)
            f.write(hashlib.shake_128(str(at).encode()).digest(300_000))
        f.seek(510)
        f.write(b"\x55\xaa")
    return path


@pytest.fixture
def stream(raw: Path, tmp_path: Path) -> Path:
    """It as a streamOptimized VMDK whose directory stands in front, as Cinder takes it."""
    path = tmp_path / "disk.vmdk"
    with contextlib.closing(FileSource(str(raw))) as source, path.open("wb") as out:
        writer = IndexedWriter(source.capacity, Identity(adapter_type="lsilogic"))
        writer.measure(source)
        writer.write(source, out)
    return path
