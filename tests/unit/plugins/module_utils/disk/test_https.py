# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ranged reads against a TLS server that misbehaves: a fault is asked again or an error, and never becomes data."""

from __future__ import annotations

import http.server
import os
import re
import ssl
import threading
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import trustme

from ansible_collections.ferry.vmware.plugins.module_utils.disk import errors
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Extent, Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.https import Endpoint, HttpsSource, RemoteFile

DATA = os.urandom(300_000)
URL = "/folder/%E5%9C%A8%E5%BA%AB/disk-flat.vmdk?dcPath=DC0&dsName=ds"


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA; C(fault) may answer a request in its own way (and returns True)."""

    daemon_threads = True
    fault: Callable[[Any, int], bool] = staticmethod(lambda handler, n: False)
    etag = '"one"'
    requests = 0
    valid = {"cookie-1"}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

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
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.send_header("ETag", self.server.etag)
        self.end_headers()

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.headers.get("Cookie") not in self.server.valid:
            self.answer(401, b"<html>who are you</html>")
            return
        if self.server.fault(self, self.server.requests):
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found is None:
            self.answer(200, DATA, ETag=self.server.etag)
            return
        start, end = int(found[1]), int(found[2])
        self.answer(206, DATA[start : end + 1], Content_Range=f"bytes {start}-{end}/{len(DATA)}", ETag=self.server.etag)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    made = Server(("127.0.0.1", 0), Handler)
    made.valid = {"cookie-1"}
    made.socket = context.wrap_socket(made.socket, server_side=True)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


class Client:
    def __init__(self, server: Server, authority: trustme.CA | None, patience: float = 2.0) -> None:
        context = ssl.create_default_context()
        if authority is not None:
            authority.configure_trust(context)
        self.cookie = "cookie-1"
        self.renewed = 0
        self.file = RemoteFile(
            Endpoint(
                "127.0.0.1", server.server_address[1], context, lambda: {"Cookie": self.cookie}, self.renew, timeout=2, patience=patience
            ),
            URL,
            "[ds] disk",
        )

    def renew(self) -> None:
        self.renewed += 1
        self.cookie = "cookie-2"


@pytest.fixture
def make(server: Server) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def one(*args: Any, **kwargs: Any) -> Client:
        made.append(Client(server, *args, **kwargs))
        return made[-1]

    yield one
    for client in made:
        client.file.close()


@pytest.fixture
def client(make: Callable[..., Client], authority: trustme.CA) -> Client:
    made = make(authority)
    made.file.head()
    return made


def test_ranges_are_exact(client: Client) -> None:
    assert bytes(client.file.read(0, len(DATA))) == DATA
    assert bytes(client.file.read(12_345, 6_789)) == DATA[12_345 : 12_345 + 6_789]


def test_expired_session_is_renewed_once_for_all_threads(client: Client, server: Server) -> None:
    server.valid = {"cookie-2"}
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(bytes(client.file.read(0, 1000)))) for _n in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == [DATA[:1000]] * 6
    assert client.renewed == 1


def test_refused_for_good_is_an_error(client: Client, server: Server) -> None:
    server.valid = set()
    with pytest.raises(errors.SourceError, match="refuses our session") as caught:
        client.file.read(0, 10)
    assert client.renewed == 2 and "<html>" not in str(caught.value)


def once(answer: Callable[[Any], None]) -> Callable[[Any, int], bool]:
    def fault(handler: Any, n: int) -> bool:
        if n > 1:
            return False
        answer(handler)
        return True

    return fault


def cut(handler: Any) -> None:
    handler.send_response(206)
    handler.send_header("Content-Length", "1000")
    handler.send_header("Content-Range", f"bytes 0-999/{len(DATA)}")
    handler.send_header("ETag", handler.server.etag)
    handler.end_headers()
    handler.wfile.write(DATA[:400])
    handler.wfile.flush()
    handler.close_connection = True


@pytest.mark.parametrize(
    "answer",
    [cut, lambda h: h.answer(503, b"busy"), lambda h: h.answer(500, b"oops"), lambda h: setattr(h, "close_connection", True)],
    ids=["cut in the body", "503", "500", "closed without an answer"],
)
def test_passing_faults_are_asked_again(client: Client, server: Server, answer: Callable[[Any], None]) -> None:
    server.fault = once(answer)
    assert bytes(client.file.read(0, 1000)) == DATA[:1000]
    assert server.requests == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda h: h.answer(200, DATA), "another range"),
        (lambda h: h.answer(206, DATA[5:1005], Content_Range=f"bytes 5-1004/{len(DATA)}", ETag='"one"'), "another range"),
        (lambda h: h.answer(206, DATA[:1000], Content_Range=f"bytes 0-999/{len(DATA) + 1}", ETag='"one"'), "changed while"),
        (lambda h: h.answer(206, DATA[:1000], Content_Range=f"bytes 0-999/{len(DATA)}", ETag='"two"'), "changed while"),
        (lambda h: h.answer(404, b"gone"), "not on the datastore"),
        (lambda h: h.answer(302, b"", Location="https://elsewhere.example/"), "does not give"),
    ],
    ids=["the whole file", "shifted", "another size", "another ETag", "404", "a redirect"],
)
def test_other_answers_are_errors_and_never_data(client: Client, server: Server, answer: Callable[[Any], None], message: str) -> None:
    server.fault = once(answer)
    with pytest.raises(errors.SourceError, match=message):
        client.file.read(0, 1000)
    assert bytes(client.file.read(0, 1000)) == DATA[:1000], "the connection is usable again"


def test_a_server_that_stays_away_is_an_error_that_says_what_next(
    server: Server, authority: trustme.CA, make: Callable[..., Client]
) -> None:
    client = make(authority, patience=0.5)
    client.file.head()
    server.fault = lambda handler, n: bool(handler.answer(503)) or True
    with pytest.raises(errors.SourceError, match="did not deliver") as caught:
        client.file.read(0, 10)
    assert caught.value.code == "source_away" and "goes on" in (caught.value.next_command or "")


def test_unknown_authority_is_refused(server: Server, make: Callable[..., Client]) -> None:
    client = make(None)
    with pytest.raises(errors.SourceError, match="certificate is not trusted"):
        client.file.head()
    assert server.requests == 0


def test_a_stop_is_heard_between_tries(server: Server, authority: trustme.CA, make: Callable[..., Client]) -> None:
    client = make(authority, patience=60)
    server.fault = lambda handler, n: bool(handler.answer(503)) or True
    asked = []

    def stop() -> None:
        asked.append(1)
        if len(asked) > 2:
            raise errors.Interrupted("Stopped: SIGTERM.")

    client.file._stop = stop
    with pytest.raises(errors.Interrupted):
        client.file.read_all(100)


def test_a_large_descriptor_is_refused(client: Client) -> None:
    with pytest.raises(errors.SourceError, match="larger than"):
        client.file.read_all(1000)


def test_parts_make_a_disk(client: Client, tmp_path: Path) -> None:
    source = HttpsSource([(client.file, 512, 1024, Kind.DATA), (None, 0, 2048, Kind.ZERO), (client.file, 0, 512, Kind.DATA)], "cid=1")
    assert source.capacity == 1024 + 2048 + 512
    assert bytes(source.read(0, source.capacity)) == DATA[512:1536] + bytes(2048) + DATA[:512]
    assert bytes(source.read(1000, 100)) == DATA[1512:1536] + bytes(76)
    assert list(source.extents())[1] == Extent(1024, 2048, Kind.ZERO)
    with pytest.raises(errors.SourceError, match="beyond the end"):
        source.read(source.capacity - 1, 2)
    with pytest.raises(errors.SourceError, match="the descriptor says"):
        HttpsSource([(client.file, 0, len(DATA) + 1, Kind.DATA)], "cid=1")


@pytest.mark.parametrize("url", ["https://elsewhere/x", "/a b", "/a\r\nX: y"])
def test_urls_are_paths_on_the_same_server(server: Server, url: str) -> None:
    with pytest.raises(errors.BadInput):
        RemoteFile(None, url, "x")  # type: ignore[arg-type]  # refused before the endpoint is looked at
