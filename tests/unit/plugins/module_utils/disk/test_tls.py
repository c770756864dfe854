# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TLS through memory, against a server that speaks TLS by the standard library's sockets."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trustme

from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.tls import TlsSocket

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@contextmanager
def served(authority: trustme.CA, talk: Callable[[ssl.SSLSocket], None], version: ssl.TLSVersion) -> Iterator[socket.socket]:
    """A connection to a server that does C(talk); plain as yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    authority.issue_cert(HOST).configure_cert(context)
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            plain, _address = listener.accept()
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    talk(connection)
            except OSError:
                plain.close()  # the client has refused us

        thread = threading.Thread(target=serve)
        thread.start()
        with socket.create_connection((HOST, listener.getsockname()[1]), timeout=20) as plain:
            yield plain
        thread.join()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bytes_come_as_they_were_sent(authority: trustme.CA, version: ssl.TLSVersion) -> None:
    source = random.Random(4)
    data = source.randbytes(3_000_001)
    asked: list[bytes] = []

    def talk(connection: ssl.SSLSocket) -> None:
        asked.append(connection.recv(100))
        view = memoryview(data)
        while view:
            size = source.randrange(1, 90_000)
            connection.sendall(view[:size])
            view = view[size:]
        connection.unwrap()

    with served(authority, talk, version) as plain:
        tls = TlsSocket(plain, trusting(authority), HOST)
        tls.sendall(b"GET it")
        with tls.makefile() as reader:
            tls.close()  # as http.client does where the answer ends with the connection
            found = reader.read(10) + reader.read()
        assert plain.fileno() == -1
    assert asked == [b"GET it"] and found == data


def test_an_end_without_good_bye_is_an_end(authority: trustme.CA) -> None:
    def talk(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"half an ans")
        socket.socket(fileno=connection.detach()).close()

    with served(authority, talk, ssl.TLSVersion.TLSv1_3) as plain, TlsSocket(plain, trusting(authority), HOST).makefile() as reader:
        assert reader.read() == b"half an ans"


def test_a_server_that_is_not_trusted(authority: trustme.CA) -> None:
    with served(authority, lambda connection: None, ssl.TLSVersion.TLSv1_3) as plain, pytest.raises(ssl.SSLCertVerificationError):
        TlsSocket(plain, ssl.create_default_context(), HOST)


def test_a_server_of_another_name(authority: trustme.CA) -> None:
    with served(authority, lambda connection: None, ssl.TLSVersion.TLSv1_3) as plain, pytest.raises(ssl.SSLCertVerificationError):
        TlsSocket(plain, trusting(authority), "vcenter.example.com")


def test_a_server_that_hangs_up(authority: trustme.CA) -> None:
    with socket.create_server((HOST, 0)) as listener, socket.create_connection(listener.getsockname()) as plain:
        listener.accept()[0].close()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            TlsSocket(plain, trusting(authority), HOST)


def test_a_server_that_says_nothing(authority: trustme.CA) -> None:
    with socket.create_server((HOST, 0)) as listener, socket.create_connection(listener.getsockname(), timeout=0.2) as plain:
        accepted = listener.accept()[0]
        with accepted, pytest.raises(TimeoutError):
            TlsSocket(plain, trusting(authority), HOST)
