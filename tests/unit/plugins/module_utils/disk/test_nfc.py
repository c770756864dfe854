# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stream of an export lease: one pass in order; cut, damaged or of another disk it is an error, never a shorter disk."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput, FerryError, SourceError, VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.nfc import NfcSource
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.errors import ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.sources import open_nfc

from .file_server import FileServer

MIB = 1 << 20
SIZE = 9 * MIB + 512 * 7


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """disk.raw, and disk.vmdk: the same as a stream."""
    made = tmp_path_factory.mktemp("nfc")
    rng = random.Random(3)
    with (made / "disk.raw").open("wb") as out:
        out.truncate(SIZE)
        for at, length in ((0, 70_000), (MIB - 5000, 10_000), (5 * MIB, 2 * MIB), (SIZE - 600, 600)):
            out.seek(at)
            out.write(rng.randbytes(length))
    convert(str(made / "disk.raw"), str(made / "disk.vmdk"), format="streamOptimized")
    return made


@pytest.fixture
def server(folder: Path, authority: trustme.CA) -> Iterator[FileServer]:
    with FileServer(folder, authority).running() as made:
        made.valid.add("none")
        yield made


def source(server: FileServer, name: str = "disk.vmdk", capacity: int = SIZE, **more: Any) -> NfcSource:
    return NfcSource(server.endpoint(), f"/nfc/5209/{name}", capacity, name="Hard disk 1", **more)


def whole(stream: NfcSource) -> bytes:
    out = bytearray(stream.capacity)
    last = 0
    for offset, data in stream.stream():
        assert offset >= last
        assert len(data) <= MIB
        assert offset // MIB == (offset + len(data) - 1) // MIB
        out[offset : offset + len(data)] = data
        last = offset + len(data)
    return bytes(out)


def test_in_one_pass_with_progress(server: FileServer, folder: Path) -> None:
    seen: list[int] = []
    made = source(server, on_progress=seen.append, state="vm/2000/snapshot-1")
    assert made.sequential
    assert made.certain
    assert whole(made) == (folder / "disk.raw").read_bytes()
    assert seen == sorted(seen)
    assert seen[-1] == SIZE
    assert made.received == (folder / "disk.vmdk").stat().st_size
    assert server.requests == 1
    with pytest.raises(SourceError):
        made.read(0, 512)
    # a new pass is a new request
    assert whole(made) == (folder / "disk.raw").read_bytes()
    made.close()


@pytest.mark.fault("the stream is cut at any place", "NFC", "fails; the next run reads it anew")
def test_cut_in_the_body(server: FileServer, folder: Path) -> None:
    data = (folder / "disk.vmdk").read_bytes()
    for cut in (0, 300, 512, 100_000, len(data) - 512, len(data) - 1):

        def fault(handler: Any, n: int, cut: int = cut) -> bool:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[:cut])
            handler.close_connection = True
            return True

        server.fault = fault
        made = source(server)
        with pytest.raises(SourceError) as e:
            whole(made)
        assert e.value.code == "stream_cut"
        assert "anew" in (e.value.next_command or "")
        made.close()


@pytest.mark.fault("the stream ends properly but without its footer", "NFC", "fails: never a shorter disk")
@pytest.mark.parametrize("chunked", [False, True])
def test_an_end_that_the_server_believes_in_is_not_enough(server: FileServer, folder: Path, chunked: bool) -> None:
    """A host whose NFC server gave up sends a proper end of the body: the footer is missing."""
    data = (folder / "disk.vmdk").read_bytes()

    def answer(body: bytes) -> None:
        def fault(handler: Any, n: int) -> bool:
            if not chunked:
                handler.answer(200, body)
                return True
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for at in range(0, len(body), 50_000):
                piece = body[at : at + 50_000]
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.write(b"0\r\n\r\n")
            return True

        server.fault = fault

    answer(data)
    made = source(server)
    assert whole(made) == (folder / "disk.raw").read_bytes()
    made.close()
    for wrong in (data[: len(data) // 2], data[:-1024], data[:-512], data + b"x" * 512, b"", b"<html>gone</html>"):
        answer(wrong)
        made = source(server)
        with pytest.raises(VmdkError):
            whole(made)
        made.close()


@pytest.mark.fault("the stream is of a disk of another size", "NFC", "refused before a byte is written")
def test_another_size_is_refused_before_a_byte_is_given(server: FileServer) -> None:
    made = source(server, capacity=SIZE + 512)
    with pytest.raises(VmdkError, match="another size"):
        next(iter(made.stream()))
    made.close()


def test_the_lease_can_stop_it(server: FileServer) -> None:
    def lost(position: int) -> None:
        raise SourceError("The lease is lost.", code="lease_lost")

    made = source(server, on_progress=lost)
    with pytest.raises(SourceError) as e:
        whole(made)
    assert e.value.code == "lease_lost"
    made.close()


def test_busy_at_the_begin_is_asked_again(server: FileServer, folder: Path) -> None:
    server.fault = lambda handler, n: n < 3 and (handler.answer(503) or True)
    made = source(server)
    assert whole(made) == (folder / "disk.raw").read_bytes()
    assert server.requests == 3
    made.close()


# -- the lease's URL ------------------------------------------------------------------------------------------------


class Session:
    """What open_nfc wants of a session: access to the host C(host) with a cookie."""

    def __init__(self, server: FileServer, host: str, port: int) -> None:
        endpoint = server.endpoint()
        self._access = SimpleNamespace(
            host=host, port=port, ssl_context=endpoint.context, headers=lambda: {"Cookie": "vcenter's"}, renew=lambda: None
        )

    def folder_access(self) -> Any:
        return self._access


DISK: Any = SimpleNamespace(label="Hard disk 1", capacity=SIZE)


def thumbprint(server: FileServer, name: str = "sha1") -> str:
    certificate = x509.load_pem_x509_certificate(server.certificate.cert_chain_pems[0].bytes())
    digest = hashlib.new(name, certificate.public_bytes(Encoding.DER)).hexdigest().upper()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def cookies(server: FileServer) -> list[str]:
    seen: list[str] = []

    def look(handler: Any, n: int) -> bool:
        seen.append(handler.headers.get("Cookie", "none"))
        return False

    server.fault = look
    server.valid.add("vcenter's")
    return seen


@pytest.mark.parametrize("host", ["*", "127.0.0.1"])
def test_vcenters_own_host(server: FileServer, folder: Path, host: str) -> None:
    seen = cookies(server)
    port = "" if host == "*" else f":{server.port}"
    made = open_nfc(Session(server, "127.0.0.1", server.port), f"https://{host}{port}/nfc/52/disk.vmdk", DISK)
    assert whole(made) == (folder / "disk.raw").read_bytes()
    assert seen == ["vcenter's"]
    made.close()


@pytest.mark.fault("the host of the stream shows another certificate", "NFC", "refused before anything is sent")
@pytest.mark.parametrize("name", ["sha1", "sha256"])
def test_another_host_is_known_by_its_thumbprint_and_gets_no_cookie(server: FileServer, folder: Path, name: str) -> None:
    seen = cookies(server)
    session = Session(server, "vcenter.example.com", 443)
    url = f"https://127.0.0.1:{server.port}/nfc/52/disk.vmdk"
    made = open_nfc(session, url, DISK, thumbprint=thumbprint(server, name))
    assert whole(made) == (folder / "disk.raw").read_bytes()
    made.close()
    made = open_nfc(session, url, DISK, thumbprint="00:" * 19 + "00", patience=0.3)
    with pytest.raises(SourceError, match="another certificate"):
        whole(made)
    made.close()
    made = open_nfc(session, url, DISK)  # by the session's CAs
    assert whole(made) == (folder / "disk.raw").read_bytes()
    made.close()
    assert seen == ["none", "none"]


@pytest.mark.parametrize("url", ["http://host/x", "https:///x", "https://host", "https://a:b@host/x", "https://host:x/y", "nfc"])
def test_urls_that_are_none(server: FileServer, url: str) -> None:
    with pytest.raises(ServerError):
        open_nfc(Session(server, "vc", 443), url, DISK)


def test_a_line_break_in_the_url(server: FileServer) -> None:
    with pytest.raises((BadInput, FerryError)):
        open_nfc(Session(server, "vc", 443), "https://host/x y", DISK)
