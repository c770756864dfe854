# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NBD exports read from nbdkit: over a Unix socket, TCP and TLS, with errors, delays and cuts; and from a server that lies."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Iterator

import pytest
import trustme

from ansible_collections.ferry.vmware.plugins.module_utils.disk import optional
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput, MissingLibrary, SourceError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources import nbd_wire
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.nbd import NbdSource

MIB = 1 << 20
SIZE = 24 * MIB + 512


@pytest.fixture(scope="module", autouse=True)
def _needed() -> None:
    if shutil.which("nbdkit") is None:
        pytest.skip("nbdkit is not installed")
    try:
        nbd_wire.library()
    except MissingLibrary as e:
        pytest.skip(str(e))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse disk: data in the odd MiBs."""
    path = tmp_path_factory.mktemp("nbd") / "disk.raw"
    rng = random.Random(5)
    with path.open("wb") as out:
        out.truncate(SIZE)
        for at in range(MIB, SIZE, 2 * MIB):
            out.seek(at)
            out.write(rng.randbytes(min(MIB, SIZE - at)))
        out.seek(SIZE - 512)
        out.write(b"E" * 512)
    return path


class Server:
    """nbdkit on a socket in a folder, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = str(folder / "s")
        self.process: subprocess.Popen[bytes] | None = None
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self.port = 0

    def start(self, *arguments: str, tcp: bool = False) -> Server:
        self.kill()
        command = ["nbdkit", "--foreground", "--readonly", "--exit-with-parent"]
        if tcp:
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                self.port = s.getsockname()[1]
            command += ["--ipaddr", "127.0.0.1", "--port", str(self.port)]
        else:
            if os.path.exists(self.socket):
                os.unlink(self.socket)
            command += ["--unix", self.socket]
        self.process = subprocess.Popen([*command, *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not self._listens():
            assert self.process.poll() is None
        return self

    def _listens(self) -> bool:
        with socket.socket(socket.AF_INET if self.port else socket.AF_UNIX) as s:
            try:
                s.connect(("127.0.0.1", self.port) if self.port else self.socket)
            except OSError:
                return False
            return True

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.kill()


def all_of(source: NbdSource, step: int = 4 * MIB, threads: int = 3) -> bytes:
    """The whole disk, by several threads, in pieces that lie on no boundary."""
    out = bytearray(source.capacity)
    todo = iter(range(0, source.capacity, step - 7))
    lock, errors = threading.Lock(), []

    def reader() -> None:
        while True:
            with lock:
                at = next(todo, None)
            if at is None:
                return
            count = min(step - 7, source.capacity - at)
            try:
                out[at : at + count] = source.read(at, count)
            except SourceError as e:
                errors.append(e)
                return

    workers = [threading.Thread(target=reader) for _n in range(threads)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    if errors:
        raise errors[0]
    return bytes(out)


def test_unix_socket(server: Server, disk: Path) -> None:
    server.start("file", str(disk))
    source = NbdSource(server.uri)
    assert source.capacity == SIZE
    assert all_of(source) == disk.read_bytes()
    assert len(source._wires) == 4
    found = list(source.extents())
    assert [(e.start, e.length) for e in found if e.kind is Kind.DATA][:2] == [(MIB, MIB), (3 * MIB, MIB)]
    assert sum(e.length for e in found) == SIZE
    assert {e.kind for e in found} == {Kind.DATA, Kind.HOLE}
    assert not source.certain
    source.close()
    named = NbdSource(server.uri, state="vm-1/2000/snapshot-7")
    assert named.certain
    assert server.socket not in named.identity
    named.close()


def test_tcp_and_export_names(server: Server, disk: Path) -> None:
    (disk.parent / "names").mkdir(exist_ok=True)
    for name, text in (("one", b"1"), ("zwei drei", b"2")):
        (disk.parent / "names" / name).write_bytes(text * 4096)
    server.start("file", f"dir={disk.parent / 'names'}", tcp=True)
    for name, byte in (("one", b"1"), ("zwei%20drei", b"2")):
        source = NbdSource(f"nbd://127.0.0.1:{server.port}/{name}")
        assert source.read(100, 3996) == byte * 3996
        source.close()
    with pytest.raises(SourceError) as e:
        NbdSource(f"nbd://127.0.0.1:{server.port}/none", patience=0.5)
    assert e.value.said


def certificates(folder: Path, authority: trustme.CA, *names: str) -> str:
    folder.mkdir()
    authority.cert_pem.write_to_path(folder / "ca-cert.pem")
    made = authority.issue_cert(*names)
    made.cert_chain_pems[0].write_to_path(folder / "server-cert.pem")
    made.private_key_pem.write_to_path(folder / "server-key.pem")
    return str(folder)


@pytest.mark.fault("the certificate is of another authority or name", "NBD", "refused")
def test_tls_is_verified(server: Server, disk: Path, tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    folder = certificates(tmp_path / "server", authority, "localhost")
    certificates(tmp_path / "other", other, "localhost")
    server.start("--tls=require", f"--tls-certificates={folder}", "file", str(disk), tcp=True)
    uri = f"nbds://localhost:{server.port}/"
    source = NbdSource(uri, tls_certificates=folder)
    assert all_of(source) == disk.read_bytes()
    source.close()
    source = NbdSource(f"{uri}?tls-certificates={folder}")
    assert source.capacity == SIZE
    assert folder not in source.identity
    source.close()
    with pytest.raises(SourceError, match="not trusted"):
        NbdSource(uri, tls_certificates=str(tmp_path / "other"), patience=20)
    with pytest.raises(SourceError, match="not trusted"):
        # the certificate is for another name
        NbdSource(f"nbds://127.0.0.1:{server.port}/", tls_certificates=folder, patience=20)
    with pytest.raises(SourceError):
        NbdSource(f"nbd://localhost:{server.port}/", patience=0.5)
    source = NbdSource(uri, tls_certificates=str(tmp_path / "other"), verify=False)
    assert source.capacity == SIZE
    source.close()


def test_tls_over_a_unix_socket(server: Server, disk: Path, tmp_path: Path) -> None:
    folder = certificates(tmp_path / "server", trustme.CA(), "localhost")
    server.start("--tls=require", f"--tls-certificates={folder}", "file", str(disk))
    source = NbdSource(f"nbds+unix://localhost/?socket={server.socket}", tls_certificates=folder)
    assert all_of(source) == disk.read_bytes()
    source.close()


@pytest.mark.fault("the server answers reads with errors for a while", "NBD", "asked again: equal")
def test_errors_of_the_server_are_asked_again(server: Server, disk: Path, tmp_path: Path) -> None:
    ill = tmp_path / "ill"
    ill.touch()
    server.start("--filter=error", "file", str(disk), "error-pread-rate=100%", f"error-pread-file={ill}", "error=EIO")
    source = NbdSource(server.uri)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(all_of(source)))
    reader.start()
    while not any(request.tries for wire in list(source._wires) for request in list(wire._queue)):
        assert reader.is_alive()
    ill.unlink()
    reader.join()
    assert got == [disk.read_bytes()]
    source.close()


@pytest.mark.fault("the server cannot read a place", "NBD", "fails with the byte, after five tries")
def test_an_error_that_stays_is_told_with_its_place(server: Server, disk: Path) -> None:
    server.start("--filter=error", "file", str(disk), "error-pread-rate=100%", "error=ENOMEM")
    source = NbdSource(server.uri, name="Hard disk 1")
    with pytest.raises(SourceError) as e:
        source.read(5 * MIB, 4096)
    assert e.value.code == "nbd_refused"
    assert str(5 * MIB) in e.value.message
    assert e.value.disk == "Hard disk 1"
    source.close()


def test_slow_answers_arrive(server: Server, disk: Path) -> None:
    server.start("--filter=delay", "file", str(disk), "delay-read=100ms")
    source = NbdSource(server.uri)
    assert source.read(0, 8 * MIB) == disk.read_bytes()[: 8 * MIB]
    source.close()


@pytest.mark.fault("the server accepts and never answers", "NBD", "connected anew within patience, then fails")
def test_a_silent_server_is_given_up(server: Server, disk: Path) -> None:
    server.start("--filter=delay", "file", str(disk), "delay-read=60")
    source = NbdSource(server.uri, timeout=0.5, patience=1.0)
    with pytest.raises(SourceError) as e:
        source.read(0, 4096)
    assert e.value.code == "source_away"
    source.close()


@pytest.mark.fault("the server is killed in the middle and comes back", "NBD", "goes on where it was: equal")
def test_killed_in_the_middle_and_started_again(server: Server, disk: Path) -> None:
    slow = ("--filter=delay", "file", str(disk), "delay-read=30ms")
    server.start(*slow)
    source = NbdSource(server.uri, patience=20)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(all_of(source, MIB)))
    reader.start()
    for _n in range(3):
        while reader.is_alive() and not any(wire._flying for wire in list(source._wires)):
            pass
        server.start(*slow)
    reader.join()
    assert got == [disk.read_bytes()]
    source.close()


@pytest.mark.fault("the server is killed and stays away", "NBD", "fails within patience; a later read goes on")
def test_killed_for_good(server: Server, disk: Path) -> None:
    server.start("--filter=delay", "file", str(disk), "delay-read=1")
    source = NbdSource(server.uri, patience=1.0)
    errors: list[SourceError] = []

    def read() -> None:
        try:
            source.read(0, MIB)
        except SourceError as e:
            errors.append(e)

    reader = threading.Thread(target=read)
    reader.start()
    while not any(wire._flying for wire in list(source._wires)):
        assert reader.is_alive()
    server.kill()
    reader.join()
    assert [e.code for e in errors] == ["source_away"]
    assert errors[0].next_command
    # it comes back: the same source goes on
    server.start("file", str(disk))
    assert source.read(MIB, 4096) == disk.read_bytes()[MIB : MIB + 4096]
    source.close()


@pytest.mark.fault("another disk is behind the same name after a cut", "NBD", "refused")
def test_another_disk_behind_the_same_name_is_refused(server: Server, disk: Path) -> None:
    server.start("file", str(disk))
    source = NbdSource(server.uri, connections=1)
    source.read(0, 4096)
    server.start("memory", "1M")
    with pytest.raises(SourceError) as e:
        source.read(0, 4096)
    assert e.value.code == "source_changed"
    source.close()
    with pytest.raises(SourceError, match="should have"):
        NbdSource(server.uri, capacity=SIZE)


def test_block_sizes_of_the_server(server: Server, disk: Path) -> None:
    server.start(
        "--filter=blocksize-policy",
        "file",
        str(disk),
        "blocksize-minimum=512",
        "blocksize-preferred=4096",
        "blocksize-maximum=65536",
        "blocksize-error-policy=error",
    )
    source = NbdSource(server.uri)
    assert (source.facts.minimum, source.facts.maximum) == (512, 65536)
    data = disk.read_bytes()
    for at, length in ((1, 1), (MIB - 1, 3), (MIB + 511, 200_000), (SIZE - 1, 1), (SIZE - 513, 513)):
        assert source.read(at, length) == data[at : at + length]
    assert all_of(source) == data
    source.close()


def test_one_connection_where_the_server_allows_no_more(server: Server, disk: Path) -> None:
    server.start("--filter=multi-conn", "file", str(disk), "multi-conn-mode=disable")
    source = NbdSource(server.uri)
    assert all_of(source) == disk.read_bytes()
    assert len(source._wires) == 1
    source.close()


@pytest.mark.parametrize("filters", [("--filter=noextents",), ("--filter=error", "error-extents-rate=100%"), ("--no-sr",)])
def test_without_extents_all_is_data(server: Server, disk: Path, filters: tuple[str, ...]) -> None:
    options = [f for f in filters if f.startswith("--")]
    if options == ["--no-sr"] and "--no-sr" not in subprocess.run(["nbdkit", "--help"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("this nbdkit always has meta contexts")
    server.start(*options, "file", str(disk), *[f for f in filters if not f.startswith("--")])
    source = NbdSource(server.uri)
    assert [(e.start, e.length, e.kind) for e in source.extents()] == [(0, SIZE, Kind.DATA)]
    source.close()


def test_extents_of_a_large_disk_come_in_parts(server: Server) -> None:
    server.start("memory", "5T")
    source = NbdSource(server.uri)
    assert [(e.start, e.length, e.kind) for e in source.extents()] == [(0, 5 << 40, Kind.HOLE)]
    source.close()


class Stopped(Exception):
    pass


def test_stop_ends_a_read(server: Server, disk: Path) -> None:
    server.start("--filter=delay", "file", str(disk), "delay-read=60")
    asked = []

    def stop() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise Stopped

    source = NbdSource(server.uri, stop=stop)
    with pytest.raises(Stopped):
        source.read(0, 4096)
    source.close()
    with pytest.raises(SourceError, match="closed"):
        source.read(0, 4096)


def test_what_cannot_be(server: Server, disk: Path) -> None:
    for uri in ("http://host/", "/tmp/x", "nbdfoo://x", "nbd+ssh://host/"):
        with pytest.raises(BadInput):
            NbdSource(uri)
    with pytest.raises(BadInput, match="TLS"):
        NbdSource("nbd://localhost", tls_certificates="/etc")
    server.start("file", str(disk))
    source = NbdSource(server.uri)
    for at, length in ((SIZE, 1), (SIZE - 1, 2), (-1, 1)):
        with pytest.raises(SourceError):
            source.read(at, length)
    assert source.read(SIZE, 0) == b""
    with pytest.raises(BadInput):
        source.extents(since="x")
    source.close()


def test_the_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "_distribution_folders", list)
    monkeypatch.delitem(sys.modules, "nbd", raising=False)
    monkeypatch.delitem(sys.modules, "libnbdmod", raising=False)
    with pytest.raises(MissingLibrary, match="python3-libnbd"):
        nbd_wire.library()


def test_shown_uri_holds_no_names() -> None:
    shown = nbd_wire.shown_uri("nbds://alice@host:10809/disk?tls-psk-file=/home/x/keys&tls-certificates=/etc/x")
    assert shown == "nbds://host:10809/disk"
    assert nbd_wire.shown_uri("nbd+unix:///a?socket=/run/s") == "nbd+unix:///a?socket=/run/s"
