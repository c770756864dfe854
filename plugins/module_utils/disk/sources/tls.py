# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A TLS connection that takes what has arrived from the kernel at once, not record by record.

ssl.SSLSocket asks the kernel twice for each record of at most 16 KiB (its head, its body). Here ciphertext goes through memory
(ssl.MemoryBIO) in pieces of up to a MiB, which saves half of the system's share of reading a disk.
"""

from __future__ import annotations

import io
import socket
import ssl
from typing import Any

#: Bytes that are taken from the kernel at once.
_PIECE = 1 << 20
#: The reader's own buffer: heads of answers fit in, bodies go past it.
_BUFFER = 64 << 10


class TlsSocket:
    """C(plain), which is connected, with TLS around it: what http.client needs of a socket.

    The server is verified as C(context) says, against the name C(host). Errors are those of ssl.SSLSocket.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._plain = plain
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, server_hostname=host)
        self._piece = memoryview(bytearray(_PIECE))
        self._readers = 0
        self._closed = False
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._send()
                if not self._receive():
                    raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in the handshake") from None
            except ssl.SSLError:
                self._send()  # the alert that says why
                raise
        self._send()

    def _send(self) -> None:
        data = self._goes.read()
        if data:
            self._plain.sendall(data)

    def _receive(self) -> bool:
        """Take what has arrived, at least a byte; False at the end of the connection."""
        count = self._plain.recv_into(self._piece)
        if count:
            self._came.write(self._piece[:count])
        else:
            self._came.write_eof()
        return count > 0

    def getpeercert(self, binary_form: bool = False) -> Any:
        """The certificate that the server has shown."""
        return self._tls.getpeercert(binary_form)

    def sendall(self, data: Any) -> None:
        """Send all of C(data)."""
        view = memoryview(data).cast("B")
        while view:
            view = view[self._tls.write(view) :]
        self._send()

    def recv_into(self, view: memoryview) -> int:
        """Fill C(view) as far as what has arrived goes; 0 at the end, also where TLS's own good-bye is missing: lengths are HTTP's."""
        at, size = 0, len(view)
        while at < size:
            try:
                count = self._tls.read(size - at, view[at:])
            except ssl.SSLWantReadError:
                self._send()
                if at:
                    break
                self._receive()
                continue
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                break
            if not count:
                break
            at += int(count)
        return at

    def makefile(self, mode: str = "rb", buffering: int | None = None) -> io.BufferedReader:
        """What reads from it; the connection stays open for as long as one of them is."""
        self._readers += 1
        return io.BufferedReader(_Reader(self), buffering or _BUFFER)

    def settimeout(self, seconds: float | None) -> None:
        self._plain.settimeout(seconds)

    def fileno(self) -> int:
        return self._plain.fileno()

    def close(self) -> None:
        """Close it once no reader is left."""
        self._closed = True
        if not self._readers:
            self._plain.close()

    def _reader_closed(self) -> None:
        self._readers -= 1
        if self._closed:
            self.close()


class _Reader(io.RawIOBase):
    def __init__(self, of: TlsSocket) -> None:
        self._of: TlsSocket | None = of

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._of.recv_into(memoryview(buffer).cast("B")) if self._of is not None else 0

    def close(self) -> None:
        of, self._of = self._of, None
        if of is not None:
            of._reader_closed()
        super().close()
