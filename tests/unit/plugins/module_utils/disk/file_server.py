# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A TLS server of a folder's files, by range as a datastore's /folder and whole as an export lease, that counts and can misbehave."""

from __future__ import annotations

import contextlib
import http.server
import re
import ssl
import threading
from pathlib import Path
from typing import Any, Callable, Iterator
from urllib.parse import quote, unquote, urlsplit

import trustme

from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.https import Endpoint, RemoteFile


class FileServer(http.server.ThreadingHTTPServer):
    """Serves C(folder). C(fault(handler, number of the request)) may answer in its own way (and returns True)."""

    daemon_threads = True

    def __init__(self, folder: Path, authority: trustme.CA) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.authority = authority
        self.fault: Callable[[Any, int], bool] = lambda handler, n: False
        #: Of these requests (by number) half of the body is sent, then the connection is cut.
        self.cut: Callable[[int], bool] = lambda n: False
        self.requests = 0
        self.sent = 0
        self.valid = {"cookie-1"}
        self.etags: dict[str, str] = {}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate = authority.issue_cert("127.0.0.1", "localhost")
        self.certificate.configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @contextlib.contextmanager
    def running(self) -> Iterator[FileServer]:
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()

    def endpoint(self, *, patience: float = 2.0, timeout: float = 2.0, **more: Any) -> Endpoint:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        cookies = ["cookie-1"]

        def renew() -> None:
            cookies.append(f"cookie-{len(cookies) + 1}")

        return Endpoint(
            "127.0.0.1", self.port, context, lambda: {"Cookie": cookies[-1]}, renew, **{"timeout": timeout, "patience": patience, **more}
        )

    def remote(self, name: str, **more: Any) -> RemoteFile:
        """A file of the folder as the datastore path C(name) ("[ds] vm/file", of which the last part counts) names it."""
        return RemoteFile(self.endpoint(**more), f"/folder/{quote(name.rsplit('/', 1)[-1])}?dsName=ds", name)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.server.valid.isdisjoint({self.headers.get("Cookie", "none")}):
            self.answer(401)
            return
        if self.server.fault(self, self.server.requests):
            return
        name = unquote(urlsplit(self.path).path).rsplit("/", 1)[-1]
        path = self.server.folder / name
        if not path.is_file():
            self.answer(404)
            return
        size = path.stat().st_size
        tag = self.server.etags.get(name, f'"{name}"')
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(found[1]), int(found[2])) if found else (0, size - 1)
        if found:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(end - start + 1))
        self.send_header("ETag", tag)
        self.end_headers()
        if self.command == "HEAD":
            return
        with path.open("rb") as f:
            f.seek(start)
            left = end - start + 1
            if self.server.cut(self.server.requests):
                left //= 2
                self.close_connection = True
            while left:
                data = f.read(min(left, 1 << 16))
                self.wfile.write(data)
                self.server.sent += len(data)
                left -= len(data)
