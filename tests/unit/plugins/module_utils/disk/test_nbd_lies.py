# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An NBD server that answers less or other than it was asked for."""

from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import MissingLibrary, SourceError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources import nbd_wire
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.nbd import NbdSource

MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def _needed() -> None:
    try:
        nbd_wire.library()
    except MissingLibrary as e:
        pytest.skip(str(e))


class Liar:
    """Speaks the fixed newstyle handshake (doc/proto.md) for one export, and answers reads as C(answer) likes."""

    def __init__(self, folder: Path, size: int, answer: Callable[[socket.socket, bytes, int, int], bool], *, structured: bool) -> None:
        self.path = str(folder / "liar")
        self.uri = f"nbd+unix:///?socket={self.path}"
        self._size, self._answer, self._structured = size, answer, structured
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(self.path)
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @staticmethod
    def _exactly(s: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = s.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def _serve(self) -> None:
        while True:
            try:
                s, _who = self._listening.accept()
            except OSError:
                return
            with s:
                try:
                    self._one(s)
                except (EOFError, OSError):
                    pass

    def _one(self, s: socket.socket) -> None:
        s.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        self._exactly(s, 4)
        while True:
            _magic, option, length = struct.unpack(">8sII", self._exactly(s, 16))
            self._exactly(s, length)
            reply = struct.Struct(">QIII")
            if option == 8 and self._structured:  # NBD_OPT_STRUCTURED_REPLY
                s.sendall(reply.pack(0x3E889045565A9, option, 1, 0))
            elif option == 7:  # NBD_OPT_GO
                s.sendall(reply.pack(0x3E889045565A9, option, 3, 12) + struct.pack(">HQH", 0, self._size, 1))
                s.sendall(reply.pack(0x3E889045565A9, option, 1, 0))
                break
            else:
                s.sendall(reply.pack(0x3E889045565A9, option, 0x80000001, 0))
        while True:
            _magic, _flags, kind, cookie, offset, length = struct.unpack(">IHH8sQI", self._exactly(s, 28))
            if kind != 0 or not self._answer(s, cookie, offset, length):
                return

    def close(self) -> None:
        self._listening.close()


def structured_half(s: socket.socket, cookie: bytes, offset: int, length: int) -> bool:
    """One chunk with half of the data, marked as the last."""
    half = length // 2
    s.sendall(struct.pack(">IHH8sIQ", 0x668E33EF, 1, 1, cookie, 8 + half, offset) + b"x" * half)
    return True


def structured_elsewhere(s: socket.socket, cookie: bytes, offset: int, length: int) -> bool:
    """Data of another place."""
    s.sendall(struct.pack(">IHH8sIQ", 0x668E33EF, 1, 1, cookie, 8 + length, offset + 4096) + b"x" * length)
    return True


def simple_half(s: socket.socket, cookie: bytes, offset: int, length: int) -> bool:
    """A simple reply that is cut."""
    s.sendall(struct.pack(">II8s", 0x67446698, 0, cookie) + b"x" * (length // 2))
    return False


def other_cookie(s: socket.socket, cookie: bytes, offset: int, length: int) -> bool:
    s.sendall(struct.pack(">II8s", 0x67446698, 0, b"nobody's") + b"x" * length)
    return True


def no_magic(s: socket.socket, cookie: bytes, offset: int, length: int) -> bool:
    s.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * length)
    return True


@pytest.mark.fault("the server answers less than asked, of another place, or nonsense", "NBD", "fails: never data")
@pytest.mark.parametrize("answer", [structured_half, structured_elsewhere, simple_half, other_cookie, no_magic])
def test_less_or_other_than_asked_is_never_data(tmp_path: Path, answer: Any) -> None:
    liar = Liar(tmp_path, MIB, answer, structured=answer.__name__.startswith("structured"))
    source = NbdSource(liar.uri, patience=0.5, timeout=2.0)
    with pytest.raises(SourceError) as e:
        source.read(0, 65536)
    assert e.value.code in ("source_away", "nbd_refused")
    source.close()
    liar.close()
