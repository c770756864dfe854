# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Readiness of a server, against a Nova on loopback and real sockets."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import ready

from .conftest import FakeCloud

SERVER = str(uuid.UUID(int=7))
FLOATING = {"OS-EXT-IPS:type": "floating", "addr": "198.51.100.9", "version": 4}
FIXED = {"OS-EXT-IPS:type": "fixed", "addr": "10.9.0.5", "version": 4}


class FakeNova:
    """A server that goes through statuses, one for each time that it is asked for."""

    def __init__(self, cloud: FakeCloud, *statuses: str) -> None:
        self.statuses = list(statuses) or ["ACTIVE"]
        self.addresses: dict[str, Any] = {"net-web": [FIXED]}
        self.console = "booting\nKernel panic - not syncing\n"
        cloud.handler = self.serve

    def serve(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path.endswith("/os-volume_attachments"):
            return 200, {"volumeAttachments": [{"volumeId": "v1", "device": "/dev/sda"}, {"volumeId": "v2", "device": "/dev/sdb"}]}
        if path.endswith("/action"):
            return 200, {"output": self.console}
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        row = {"id": SERVER, "name": "web", "status": status, "addresses": self.addresses, "fault": {"message": "No valid host was found."}}
        return 200, {"server": row}


@contextmanager
def listening(*answers: bytes) -> Iterator[int]:
    """A port that answers each connection with the next of C(answers)."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                try:
                    link, _address = server.accept()
                except OSError:
                    return  # closed: nobody asked for the rest
                with link:
                    link.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait(conn: Any, *checks: Any, **more: Any) -> dict[str, Any]:
    return ready.wait(conn, SERVER, checks, **{"timeout": 0.0, "sleep": lambda seconds: None, **more})


def test_active_and_the_disks_in_order(fake: FakeCloud, conn: Any) -> None:
    FakeNova(fake, "BUILD", "BUILD", "ACTIVE")
    result = wait(conn, volumes=["v1", "v2"], timeout=60.0)
    assert result["server"]["status"] == "ACTIVE" and result["order_kept"] and result["devices"] == {"v1": "/dev/sda", "v2": "/dev/sdb"}
    assert not wait(conn, volumes=["v2", "v1"])["order_kept"]


def test_a_port_and_ssh(fake: FakeCloud, conn: Any) -> None:
    FakeNova(fake)
    with listening(b"", b"hello\r\nSSH-2.0-OpenSSH_9\r\n") as port:
        local = {"address": "127.0.0.1", "port": port}
        result = wait(conn, {**local, "kind": "port"}, {**local, "kind": "ssh"})
    assert [(c["kind"], c["address"], c["port"]) for c in result["checks"]] == [("port", "127.0.0.1", port), ("ssh", "127.0.0.1", port)]


def test_it_asks_again_until_it_answers(fake: FakeCloud, conn: Any) -> None:
    FakeNova(fake)
    with listening(b"HTTP/1.1 400\r\n\r\n", b"", b"SSH-2.0-x\r\n") as port:
        wait(conn, {"kind": "ssh", "address": "127.0.0.1", "port": port}, timeout=60.0)


def test_a_port_that_stays_closed_says_what_the_console_says(fake: FakeCloud, conn: Any) -> None:
    FakeNova(fake)
    port = free_port()
    with pytest.raises(ServerError) as error:
        wait(conn, {"port": port, "address": "127.0.0.1"})
    assert error.value.code == "not_ready" and "refused" in str(error.value.said) and "Kernel panic" in str(error.value.said)
    assert f"127.0.0.1 port {port}" in str(error.value) and SERVER in str(error.value.left)


def test_something_else_than_ssh(fake: FakeCloud, conn: Any) -> None:
    FakeNova(fake).console = ""
    with listening(b"220 mail ready\r\n") as port, pytest.raises(ServerError) as error:
        wait(conn, {"kind": "ssh", "address": "127.0.0.1", "port": port})
    assert "no SSH server: 220 mail ready" in str(error.value.said)


def test_a_server_that_will_not_become_active(fake: FakeCloud, conn: Any) -> None:
    FakeNova(fake, "ERROR")
    with pytest.raises(ServerError) as error:
        wait(conn)
    assert error.value.code == "server_error" and "No valid host" in str(error.value.said)
    FakeNova(fake, "SHUTOFF")
    with pytest.raises(ServerError, match="will not become ACTIVE"):
        wait(conn)
    FakeNova(fake, "BUILD")
    with pytest.raises(ServerError) as error:
        wait(conn)
    assert error.value.code == "timeout"


def address(addresses: dict[str, Any], **more: Any) -> str:
    (probe,) = ready.parse([{"port": 1, **more}])
    return ready.address_of({"name": "web", "addresses": addresses}, probe)


def test_which_address_is_asked() -> None:
    both = {"net-web": [FIXED, FLOATING], "net-db": [{**FIXED, "addr": "10.10.0.5"}]}
    assert address(both) == "198.51.100.9"
    assert address(both, network="net-db") == "10.10.0.5"
    assert address({"n": [FIXED, {**FIXED, "version": 6, "addr": "2001:db8::5"}]}, family=6) == "2001:db8::5"
    with pytest.raises(BadInput, match="is not on the network"):
        address(both, network="net-x")
    with pytest.raises(BadInput, match="no IPv4 address"):
        address({})


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({}, "port is a number"),
        ({"port": 70000}, "port is a number"),
        ({"kind": "ping"}, "kind is port or ssh"),
        ({"port": 1, "family": 5}, "family is 4 or 6"),
        ({"port": 1, "colour": "red"}, "not known: colour"),
    ],
)
def test_checks_that_cannot_be_read(check: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        ready.parse([check])


def test_ssh_has_its_port() -> None:
    assert ready.parse([{"kind": "ssh"}])[0].port == 22


def test_the_27th_device_comes_after_the_26th() -> None:
    assert ready.in_order({"a": "/dev/sdz", "b": "/dev/sdaa"}, ["a", "b"])
    assert not ready.in_order({"a": "/dev/sdz"}, ["a", "b"])
