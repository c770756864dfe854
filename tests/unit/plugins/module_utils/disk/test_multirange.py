# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several ranges by one request, from servers that can, that cannot, and that answer something else."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import trustme

from ansible_collections.ferry.vmware.plugins.module_utils.disk import copy, errors
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.https import HttpsSource

from .file_server import FileServer
from .guest import MIB, Guest, Way

RANGES = [(0, 512), (65_536, 65_536), (1_000_000, 1), (2 * MIB - 512, 512)]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(tmp_path: Path, authority: trustme.CA) -> Iterator[FileServer]:
    (tmp_path / "disk").write_bytes(random.Random(1).randbytes(2 * MIB))
    with FileServer(tmp_path, authority).running() as found:
        found.fault = several()
        yield found


def several(
    change: Callable[[list[bytes]], list[bytes]] = lambda parts: parts, tag: str | None = None, size: int = 0, status: int = 206
) -> Any:
    """A server that answers several ranges as RFC 9110 has it, but for C(change), which gets the parts of the body."""

    def fault(handler: Any, number: int) -> bool:
        ranges = re.findall(r"(\d+)-(\d+)", handler.headers.get("Range", ""))
        if len(ranges) < 2:
            return False
        handler.server.several += 1
        path = handler.server.folder / handler.path.split("?")[0].rsplit("/", 1)[-1]
        data = path.read_bytes()
        parts = []
        for first, last in ranges:
            piece = data[int(first) : int(last) + 1]
            head = (
                f"\r\n--b0rder\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {first}-{last}/{len(data) + size}\r\n\r\n"
            )
            parts.append(head.encode() + piece)
        body = b"".join([*change(parts), b"\r\n--b0rder--\r\n"])
        handler.answer(status, body, ETag=tag or f'"{path.name}"', Content_Type="multipart/byteranges; boundary=b0rder")
        return True

    FileServer.several = 0
    return fault


def check(server: FileServer) -> None:
    data = (server.folder / "disk").read_bytes()
    file = server.remote("[ds] vm/disk")
    file.head()
    for _again in range(2):
        assert [bytes(d) for d in file.read_many(RANGES)] == [data[at : at + length] for at, length in RANGES]
    file.close()


def test_one_request_for_all(server: FileServer) -> None:
    check(server)
    assert server.requests == 3, "one HEAD, and one for each time"


def test_a_border_without_a_line_break_before_it(server: FileServer) -> None:
    server.fault = several(lambda parts: [parts[0][2:], *parts[1:]])
    check(server)
    assert server.requests == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: parts[::-1],
        lambda parts: parts[:-1],
        lambda parts: [*parts, parts[-1]],
        lambda parts: [b"".join(parts).replace(b"bytes 0-511/", b"bytes 1-512/")],
        lambda parts: [parts[0].replace(b"Content-Range", b"Content-Other"), *parts[1:]],
        lambda parts: [b"\r\n--other" + parts[0][10:], *parts[1:]],
    ],
)
@pytest.mark.fault("the server answers other ranges than asked for", where="source", ends="no data; asked for one by one")
def test_other_parts_than_asked_for_are_no_data(server: FileServer, change: Any) -> None:
    server.fault = several(change)
    check(server)
    assert server.several == 1, "asked once, then never again"


@pytest.mark.parametrize("status", [200, 400, 416, 431, 501])
def test_a_server_that_refuses_is_asked_one_by_one(server: FileServer, status: int) -> None:
    server.fault = several(status=status)
    check(server)
    assert server.several == 1


def test_a_server_that_ignores_it_and_gives_the_whole_file(server: FileServer) -> None:
    server.fault = lambda handler, n: False
    check(server)


def test_another_size_is_no_data(server: FileServer) -> None:
    server.fault = several(size=512)
    check(server)
    assert server.several == 1


def test_a_changed_file_is_an_error(server: FileServer) -> None:
    file = server.remote("[ds] vm/disk")
    file.head()
    server.fault = several(tag='"another"')
    with pytest.raises(errors.SourceError) as caught:
        file.read_many(RANGES)
    assert caught.value.code == "source_changed"
    file.close()


@pytest.mark.fault("an answer of several ranges is cut", where="source", ends="asked again: equal")
def test_an_answer_that_is_cut_is_asked_for_again(server: FileServer) -> None:
    def cut(handler: Any, number: int) -> bool:
        if number in (2, 3):
            handler.send_response(206)
            handler.send_header("Content-Length", "1000000")
            handler.send_header("ETag", '"disk"')
            handler.send_header("Content-Type", "multipart/byteranges; boundary=b0rder")
            handler.end_headers()
            handler.wfile.write(b"--b0rder\r\nContent-Range: bytes 0-511/2097152\r\n" + b"\r\nhalf" * (number - 2))
            handler.close_connection = True
            return True
        return bool(whole(handler, number))

    whole = several()
    server.fault = cut
    check(server)
    assert server.requests == 5


def test_a_delta_takes_few_requests(tmp_path: Path, server: FileServer) -> None:
    """The engine asks for the areas of a unit at once."""
    guest = Guest(tmp_path, 12 * MIB)
    way = Way(tmp_path, guest)
    way.copy(guest.snapshot())
    for at in range(0, 12 * MIB, 200_704):
        guest.write(at, os.urandom(512))
    at = guest.snapshot()
    server.requests = 0
    file = server.remote(f"[ds] vm/{at.path.name}")
    source = HttpsSource([(file, 0, guest.size, Kind.DATA)], "x")
    with way.job(at) as job:
        job.source.close()
        job.source = source
        result = copy.run([job])[0]
    source.close()
    assert way.equal(at) and result.areas > 50 and result.bytes_read <= 1.1 * result.changed_bytes
    assert server.requests <= 3
