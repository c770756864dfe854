# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A source as an NBD export: qemu-img and qemu-io, which are not ours, read it as the disk that it is."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import SourceError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Extent
from ansible_collections.ferry.vmware.plugins.module_utils.disk.nbd_server import ReadOnlyServer
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.file import FileSource

needs_qemu = pytest.mark.skipif(
    not shutil.which("qemu-img") or not shutil.which("qemu-io"), reason="qemu-img and qemu-io (qemu-utils) read it"
)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"".join(bytes([n % 251]) * 4096 for n in range(700)) + b"end".ljust(512, b"\0"))
    return path


@pytest.fixture
def server(disk: Path) -> Iterator[ReadOnlyServer]:
    source = FileSource(str(disk))
    with ReadOnlyServer(source) as made:
        yield made
    source.close()


@needs_qemu
def test_qemu_reads_all_of_it(server: ReadOnlyServer, disk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", f"nbd+unix:///?socket={server.path}", str(out)], check=True, timeout=60)
    assert out.read_bytes() == disk.read_bytes()
    assert (Path(server.path).parent.stat().st_mode & 0o777) == 0o700


@needs_qemu
def test_nothing_can_be_written(server: ReadOnlyServer, disk: Path) -> None:
    before = disk.read_bytes()
    done = subprocess.run(
        ["qemu-io", "-f", "raw", "-c", "write 0 512", f"nbd+unix:///?socket={server.path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0 or "failed" in done.stdout + done.stderr or "read-only" in done.stderr
    assert disk.read_bytes() == before


class Broken:
    capacity, identity = 4096, "x"

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        return iter(())

    def read(self, offset: int, length: int) -> bytes:
        raise SourceError("The datastore is gone.")

    def close(self) -> None: ...


def _client(path: str) -> socket.socket:
    """A client by hand, after the handshake with NBD_OPT_EXPORT_NAME."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(path)
    assert client.recv(18)[:16] == b"NBDMAGICIHAVEOPT"
    client.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))
    assert struct.unpack(">QH", client.recv(10)) == (4096, 259)
    return client


def test_an_error_at_the_source_is_an_error_of_the_request(tmp_path: Path) -> None:
    with ReadOnlyServer(Broken()) as server, _client(server.path) as client:
        for offset, length, error in ((0, 512, 5), (4096, 512, 22), (0, 1 << 30, 22)):
            client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, offset, length))
            assert struct.unpack(">IIQ", client.recv(16)) == (0x67446698, error, 7)
        assert server.error is not None and "datastore is gone" in server.error.message
    assert not Path(server.path).exists()


def test_what_is_no_nbd_is_let_go(tmp_path: Path) -> None:
    with ReadOnlyServer(Broken()) as server, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(server.path)
        client.recv(18)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n" + bytes(64))
        with contextlib.suppress(ConnectionResetError):  # what it had sent was not read
            assert client.recv(100) == b""
