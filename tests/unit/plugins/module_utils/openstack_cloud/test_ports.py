# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ports of a server against a Neutron and a Nova on loopback that remember the order of what they were told."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import ports

from .conftest import FakeCloud

SERVER = str(uuid.UUID(int=99))
P0, P1, P2, NEW = (str(uuid.UUID(int=i)) for i in range(1, 5))


class FakeNetwork:
    def __init__(self, cloud: FakeCloud) -> None:
        self.ports = {p: self.port(p, i) for i, p in enumerate((P0, P1, P2))}
        self.order = [P0, P1, P2]
        self.log: list[str] = []
        self.may_set_mac = True
        cloud.handler = self.serve

    @staticmethod
    def port(port_id: str, number: int) -> dict[str, Any]:
        return {
            "id": port_id,
            "name": f"nic{number}",
            "network_id": "n1",
            "mac_address": f"00:50:56:00:00:0{number}",
            "tags": ["a"],
            "security_groups": ["g"],
            "device_id": SERVER,
            "device_owner": "compute:nova",
            "description": "d",
            "fixed_ips": [{"subnet_id": "s", "ip_address": f"10.0.0.{number}"}],
        }

    def serve(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        data = json.loads(body) if body else {}
        last = path.rstrip("/").rsplit("/", maxsplit=1)[-1]
        if "/os-interface" in path:
            if method == "DELETE":
                self.log.append(f"off {last[-1]}")
                self.order.remove(last)
                self.ports[last]["device_id"] = ""
                return 202, b""
            port = data["interfaceAttachment"]["port_id"]
            self.log.append(f"on {port[-1]}")
            self.order.append(port)
            self.ports[port]["device_id"] = SERVER
            return 200, {"interfaceAttachment": {}}
        if path.endswith("/tags"):
            self.ports[path.split("/")[-2]]["tags"] = data["tags"]
            return 200, data
        if method == "POST":
            self.ports[NEW] = {**self.port(NEW, 9), "tags": [], "device_id": "", **data["port"]}
            return 201, {"port": self.ports[NEW]}
        port = self.ports[last]
        if method == "DELETE":
            assert not port["device_id"]
            del self.ports[last]
            return 204, b""
        if method == "PUT":
            if "mac_address" in data["port"]:
                if port["device_id"]:
                    return 409, {"NeutronError": {"message": "Unable to complete operation on port: it is bound."}}
                if not self.may_set_mac:
                    return 403, {"NeutronError": {"message": "rule:update_port:mac_address is disallowed by policy"}}
            port.update(data["port"])
        return 200, {"port": port}


@pytest.fixture
def network(fake: FakeCloud) -> FakeNetwork:
    return FakeNetwork(fake)


def wanted(*ids: str, **of_first: Any) -> list[dict[str, Any]]:
    return [{"port": i, **(of_first if n == 0 else {})} for n, i in enumerate(ids)]


def test_nothing_to_do(network: FakeNetwork, conn: Any) -> None:
    result = ports.ensure(conn, SERVER, wanted(P0, P1, P2, name="nic0", mac_address="00:50:56:00:00:00", tags=["a"], security_groups=["g"]))
    assert (result["changed"], network.log) == (False, [])


def test_names_and_tags_leave_the_server_alone(network: FakeNetwork, conn: Any) -> None:
    checked = ports.ensure(conn, SERVER, wanted(P0, P1, P2, name="x", tags=["b", "a"]), check=True)
    assert network.ports[P0]["name"] == "nic0"
    result = ports.ensure(conn, SERVER, wanted(P0, P1, P2, name="x", tags=["b", "a"]))
    assert checked["before"] == result["before"] == {P0: {"name": "nic0", "tags": ["a"]}}
    assert (network.ports[P0]["name"], network.ports[P0]["tags"], network.log) == ("x", ["a", "b"], [])


def test_another_mac_takes_the_ports_behind_it_off_too(network: FakeNetwork, conn: Any) -> None:
    rows = wanted(P0, P1, P2)
    rows[1]["mac_address"] = "00:50:56:AA:00:01"
    result = ports.ensure(conn, SERVER, rows)
    assert network.log == ["off 2", "off 3", "on 2", "on 3"]
    assert network.order == [P0, P1, P2]
    assert result["ports"][1]["mac_address"] == "00:50:56:aa:00:01"


def test_who_may_not_change_a_mac_gets_a_new_port_with_all_else_kept(network: FakeNetwork, conn: Any) -> None:
    network.may_set_mac = False
    result = ports.ensure(conn, SERVER, wanted(P0, P1, P2, mac_address="00:50:56:aa:00:01"))
    new = network.ports[NEW]
    assert P0 not in network.ports
    assert network.order == [NEW, P1, P2]
    assert (new["mac_address"], new["name"], new["tags"], new["description"]) == ("00:50:56:aa:00:01", "nic0", ["a"], "d")
    assert new["fixed_ips"] == [{"subnet_id": "s", "ip_address": "10.0.0.0"}]
    assert result["ports"][0]["id"] == NEW


def test_a_gap_is_closed_in_order(network: FakeNetwork, conn: Any) -> None:
    network.ports[P1]["device_id"] = ""
    network.order.remove(P1)
    ports.ensure(conn, SERVER, wanted(P0, P1, P2))
    assert network.order == [P0, P1, P2]
    assert network.log == ["off 3", "on 2", "on 3"]


def test_a_port_of_another_server(network: FakeNetwork, conn: Any) -> None:
    network.ports[P1]["device_id"] = "other"
    with pytest.raises(BadInput, match="in use by compute:nova other"):
        ports.ensure(conn, SERVER, wanted(P0, P1, P2))
    with pytest.raises(BadInput, match="name that server"):
        ports.ensure(conn, None, wanted(P0, mac_address="00:50:56:aa:00:01"))
    assert network.log == []
