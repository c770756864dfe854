# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A source, shown to other programs of this machine as an NBD export that can only be read: QEMU looks into a disk where it lies, without a copy.

The protocol is the fixed newstyle handshake with simple replies (NetworkBlockDevice, doc/proto.md). The socket lies in a folder of this user's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import tempfile
import threading
from types import TracebackType

from .errors import FerryError
from .model import Source

_MAGIC, _OPTION, _REPLY = b"NBDMAGIC", b"IHAVEOPT", 0x3E889045565A9
_FIXED, _NO_ZEROES = 1, 2
#: HAS_FLAGS, READ_ONLY, CAN_MULTI_CONN.
_FLAGS = 1 | 2 | 256
_EXPORT_NAME, _ABORT, _INFO, _GO = 1, 2, 6, 7
_ACK, _SAY, _UNSUPPORTED = 1, 3, 0x80000001
_REQUEST, _ANSWER = 0x25609513, 0x67446698
_READ, _DISCONNECT = 0, 2
_EPERM, _EIO, _EINVAL = 1, 5, 22
#: Bytes of one request and of one option; QEMU asks for 32 MiB at most.
_MAX_REQUEST, _MAX_OPTION = 32 << 20, 64 << 10


class ReadOnlyServer:
    """A context manager; C(path) is its socket. Who enters keeps the source open."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._folder = ""
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        #: What went wrong at the source while it was read; who asked has got an I/O error.
        self.error: FerryError | None = None

    @property
    def path(self) -> str:
        return os.path.join(self._folder, "nbd")

    def __enter__(self) -> ReadOnlyServer:
        self._folder = tempfile.mkdtemp(prefix="ferry-nbd-")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(16)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="nbd", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
            sockets = [*self._open, *([listener] if listener else [])]
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return  # closed
            with self._lock:
                if self._listener is None:
                    client.close()
                    return
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), name="nbd", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError, EOFError, struct.error):
                if self._greet(client):
                    while self._answer(client):
                        pass
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()

    def _greet(self, client: socket.socket) -> bool:
        """The handshake; whether requests follow."""
        client.sendall(_MAGIC + _OPTION + struct.pack(">H", _FIXED | _NO_ZEROES))
        flags = struct.unpack(">I", _take(client, 4))[0]
        while True:
            magic, option, length = struct.unpack(">8sII", _take(client, 16))
            if magic != _OPTION or length > _MAX_OPTION:
                return False
            _take(client, length)  # the export's name, and what is to be told of it: there is one, and its size is what counts

            def reply(kind: int, data: bytes = b"", option: int = option) -> None:
                client.sendall(struct.pack(">QIII", _REPLY, option, kind, len(data)) + data)

            if option == _EXPORT_NAME:
                client.sendall(struct.pack(">QH", self._source.capacity, _FLAGS) + (b"" if flags & _NO_ZEROES else bytes(124)))
                return True
            if option in (_INFO, _GO):
                reply(_SAY, struct.pack(">HQH", 0, self._source.capacity, _FLAGS))
                reply(_ACK)
                if option == _GO:
                    return True
            elif option == _ABORT:
                reply(_ACK)
                return False
            else:
                reply(_UNSUPPORTED)

    def _answer(self, client: socket.socket) -> bool:
        magic, _flags, kind, handle, offset, length = struct.unpack(">IHHQQI", _take(client, 28))
        if magic != _REQUEST or kind == _DISCONNECT:
            return False
        error, data = 0, b""
        if kind != _READ:
            error = _EPERM
            if kind == 1 and length <= _MAX_REQUEST:  # what it wants to write comes along
                _take(client, length)
        elif length > _MAX_REQUEST or offset + length > self._source.capacity:
            error = _EINVAL
        else:
            try:
                data = self._source.read(offset, length)
            except FerryError as e:
                self.error, error = e, _EIO
        client.sendall(struct.pack(">IIQ", _ANSWER, error, handle) + (data if not error else b""))
        return True


def _take(client: socket.socket, length: int) -> bytes:
    """Exactly so many bytes.

    :raises EOFError: the other side is gone.
    """
    found = bytearray()
    while len(found) < length:
        part = client.recv(min(length - len(found), 1 << 20))
        if not part:
            raise EOFError
        found += part
    return bytes(found)
