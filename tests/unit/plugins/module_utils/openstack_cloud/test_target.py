# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is read of the target for a wave, and that nothing is read for which nobody asked."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import formats, quota
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.options import Options, asked
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.target import read_target

from .conftest import PROJECT, FakeCloud
from .test_plan import vm

ANSWERS: dict[str, Any] = {
    "/network/v2.0/networks": {"networks": [{"id": "n1", "name": "web", "tenant_id": PROJECT}]},
    "/network/v2.0/subnets": {"subnets": [{"id": "s1", "network_id": "n1", "cidr": "10.9.0.0/24"}]},
    "/network/v2.0/ports": {"ports": []},
    "/network/v2.0/security-groups": {"security_groups": []},
    "/network/v2.0/quotas": {"quota": {"port": {"limit": 5, "used": 1, "reserved": 1}}},
    "/compute/flavors/detail": {"flavors": []},
    "/compute/servers/detail": {"servers": []},
    "/compute/limits": {
        "limits": {"absolute": {"maxTotalCores": 8, "totalCoresUsed": 2, "maxServerGroupMembers": 10, "maxServerGroups": 3}}
    },
    "/compute/os-server-groups": {"server_groups": [{"id": "sg", "name": "ferry:a", "policy": "affinity", "members": []}]},
    "/compute/os-keypairs": {"keypairs": [{"keypair": {"name": "mine"}}]},
    "/compute/os-availability-zone": {"availabilityZoneInfo": [{"zoneName": "nova", "zoneState": {"available": True}}]},
    "/block-storage/volumes/detail": {"volumes": []},
    "/block-storage/types/default": {"volume_type": {"name": "standard"}},
    "/block-storage/types": {"volume_types": []},
    "/block-storage/os-quota-sets": {"quota_set": {"id": "x", "snapshots": {"limit": 4, "in_use": 1, "reserved": 1}}},
    "/image/schemas/image": {"properties": {"disk_format": {"enum": [None, "raw", "vmdk"]}, "container_format": {"enum": [None, "bare"]}}},
    "/image/info/usage": {"usage": {"image_count_total": {"limit": 2, "usage": 1}}},
}


class Server:
    def __init__(self, cloud: FakeCloud) -> None:
        self.paths: list[str] = []
        self.answers = dict(ANSWERS)
        cloud.handler = self.serve

    def serve(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        bare = path.partition("?")[0]
        self.paths.append(bare)
        for known, answer in sorted(self.answers.items(), key=lambda row: -len(row[0])):
            if bare.startswith(known):
                return (200, answer) if answer is not None else (404, {})
        return 404, {}


def test_what_a_plain_wave_reads(fake: FakeCloud, conn: Any) -> None:
    server = Server(fake)
    target = read_target(conn, asked([vm()], Options(network_map={"*": "web"})), sources={"u"})
    assert target.quotas == {"cores": (8, 2), "server_groups": (3, 0), "server_group_members": (10, 0), "snapshots": (4, 2), "port": (5, 2)}
    assert (target.default_type, target.project, target.keypairs, target.image_formats) == ("standard", PROJECT, None, {})
    for part in ("os-keypairs", "os-server-groups", "subnets", "schemas", "info/usage", "os-availability-zone"):
        assert not any(part in p for p in server.paths), part


def test_what_is_read_when_it_is_asked_for(fake: FakeCloud, conn: Any) -> None:
    Server(fake)
    facts = vm()
    facts["disks"][0]["file"] = "/x.vmdk"
    options = Options(
        network_map={"*": {"network": "web", "keep_ip": True}},
        key_name="mine",
        availability_zone="nova",
        constraints=[{"kind": "EQ", "vms": ["vm1"]}],
    )
    target = read_target(conn, asked([facts], options), sources={"u"})
    assert target.keypairs == {"mine"} and target.zones == ["nova"] and target.server_groups[0]["id"] == "sg"
    assert target.subnets[0]["cidr"] == "10.9.0.0/24" and target.image_formats["disk_format"] == {"raw", "vmdk"}
    assert target.quotas["image_count_total"] == (2, 1)


def test_a_service_that_does_not_tell_its_quotas(fake: FakeCloud, conn: Any) -> None:
    Server(fake).answers |= {
        "/compute/limits": None,
        "/block-storage/os-quota-sets": None,
        "/network/v2.0/quotas": None,
        "/image/info/usage": None,
    }
    assert quota.read(conn, images=True) == {}


def test_a_glance_that_does_not_say_what_it_takes(fake: FakeCloud, conn: Any) -> None:
    Server(fake).answers["/image/schemas/image"] = {"properties": {}}
    with pytest.raises(ServerError, match="does not say which disk_format"):
        formats.accepted(conn)
