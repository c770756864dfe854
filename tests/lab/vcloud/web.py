# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP for the lab's vCloud Director: TLS, HTTP/1.1 with kept connections, statistics, and the faults that live on the wire."""

from __future__ import annotations

import functools
import json
import re
import ssl
import sys
import threading
import time
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import SplitResult, urlsplit

from .app import XML_BODY, App, Reply, Request
from .faults import BEFORE, Fault
from .xmlout import error

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NEXT = re.compile(r'(<Link rel="nextPage"[^>]*?[?&](?:amp;)?page=)\d+')
BOMB = (
    '<?xml version="1.0"?>\n<!DOCTYPE Session [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + ']>\n<Session xmlns="http://www.vmware.com/vcloud/v1.5">&j;</Session>'
)
_PHRASES = {int(s): s.phrase for s in HTTPStatus}
HTML = "<!DOCTYPE html>\n<html><head><title>Proxy</title></head><body><h1>Access to this site needs a log-in</h1></body></html>\n"


class Stats:
    """What was asked of the server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_once = 0
        self.clear()

    def clear(self) -> None:
        self.requests: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()
        self.bytes_out = 0
        self.connections = 0
        self.most_at_once = 0

    def begun(self, number: int) -> None:
        """One more request is worked on; C(number): 1, or -1 when it is over."""
        with self._lock:
            self._at_once += number
            self.most_at_once = max(self.most_at_once, self._at_once)

    def count(self, request: str, status: int, size: int) -> None:
        with self._lock:
            self.requests[request] += 1
            self.answers[status] += 1
            self.bytes_out += size

    def connected(self) -> None:
        with self._lock:
            self.connections += 1

    def as_dict(self) -> dict[str, Any]:
        with self._lock:
            return {
                "requests": dict(self.requests),
                "answers": {str(k): v for k, v in self.answers.items()},
                "bytes_out": self.bytes_out,
                "connections": self.connections,
                "most_at_once": self.most_at_once,
            }


def _other_total(delta: int, found: re.Match[str]) -> str:
    return f' total="{max(0, int(found[1]) + delta)}"'


class Drop(Exception):
    """The connection is to break now."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ferry-lab-vcloud"
    disable_nagle_algorithm = True
    timeout = 300  # seconds of a kept connection without a request
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests carry tokens."""

    def setup(self) -> None:
        super().setup()
        self.server.stats.connected()

    def _go(self) -> None:
        app = self.server.app
        length = self.headers.get("Content-Length") or "0"
        body = self.rfile.read(min(int(length), XML_BODY)) if length.isdecimal() else b""
        if not length.isdecimal() or int(length) > XML_BODY or self.headers.get("Transfer-Encoding"):
            self.close_connection = True  # what is left of the body is not read
        url = urlsplit(self.path)
        request = Request(self.command, url.path, url.query, self.headers, body)
        self.server.stats.begun(1)
        try:
            self._answer(app, request, url)
        finally:
            self.server.stats.begun(-1)

    def _answer(self, app: App, request: Request, url: SplitResult) -> None:
        faults = app.faults.of_request(f"{self.command} {self.path}")
        for fault in faults:
            if fault.delay_ms:
                time.sleep(fault.delay_ms / 1000)  # the fault that was asked for
        try:
            reply = self._before(faults, app) or app.handle(request)
            if any(f.kind == "lost_answer" for f in faults):
                raise Drop
            data = self._after(reply, [f for f in faults if f.kind not in BEFORE])
        except Drop:
            self.server.stats.count(self._name(url.path, url.query), 0, 0)
            self.close_connection = True
            self.connection.close()
            return
        self._send(reply, data, request, cut=any(f.kind == "cut" for f in faults))
        self.server.stats.count(self._name(url.path, url.query), reply.status, len(data))

    def _name(self, path: str, query: str) -> str:
        kind = re.search(r"(?:^|&)type=(\w+)", query)
        return f"{self.command} {_ID.sub('ID', path)}{f'?type={kind[1]}' if kind else ''}"

    @staticmethod
    def _before(faults: list[Fault], app: App) -> Reply | None:
        """What is answered in place of the request's effect."""
        for fault in faults:
            if fault.kind == "drop":
                raise Drop
            if fault.kind == "expire":
                with app.lock:
                    app.sessions.expire_all()
            if fault.kind == "status":
                headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
                body = fault.body or error(fault.status, fault.minor, fault.message)
                return Reply(fault.status, body, fault.media or "application/vnd.vmware.vcloud.error+xml", headers)
            if fault.kind == "html":
                return Reply(200, HTML, "text/html")
            if fault.kind == "doctype":
                return Reply(200, BOMB, "application/*+xml")
            if fault.kind == "redirect":
                return Reply(302, "", "", {"Location": fault.location})
        return None

    def _after(self, reply: Reply, faults: list[Fault]) -> bytes:
        """What is changed in an answer."""
        text = reply.body
        for fault in faults:
            if fault.kind == "total":
                text = re.sub(r' total="(\d+)"', functools.partial(_other_total, fault.delta), text, count=1)
            elif fault.kind == "loop":
                text = _NEXT.sub(rf"\g<1>{fault.page}", text)
            elif fault.kind == "foreign_href":
                foreign = fault.location.rstrip("/")
                text = text.replace(f'"{self.server.app.base()}/', f'"{foreign}/')
                if "Location" in reply.headers:
                    reply.headers["Location"] = reply.headers["Location"].replace(self.server.app.base(), foreign)
            elif fault.kind == "big":
                text += " " * fault.bytes
        return text.encode()

    def _send(self, reply: Reply, data: bytes, request: Request, cut: bool) -> None:
        version = f";version={request.version[0]}.{request.version[1]}" if request.version > (0, 0) else ""
        headers = {"Date": self.date_time_string(), "Content-Type": f"{reply.media}{version}" if reply.media else "", **reply.headers}
        if reply.status != 204:
            headers["Content-Length"] = str(len(data))
        if self.close_connection:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {reply.status} {_PHRASES.get(reply.status, 'Other')}"]
        lines += [f"{name}: {value}" for name, value in headers.items() if value]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        try:
            self.wfile.write(head + (data[: len(data) // 2] if cut else data))
        except OSError:  # the client went away: its matter
            self.close_connection = True
        if cut:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = _go


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, app: App, address: tuple[str, int], cert: str, key: str) -> None:
        self.app = app
        self.stats = Stats()
        super().__init__(address, Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        # The handshake is the connection's own thread's matter: a client that is slow holds up nobody.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are no news; anything else goes to the log."""
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):
            super().handle_error(request, client_address)


def json_bytes(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
