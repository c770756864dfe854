# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cloud as its services answer, a wave and its options, in which nothing is of concern; tests change one thing of it."""

from __future__ import annotations

import copy
from typing import Any, Mapping
from urllib.parse import parse_qs

from .conftest import PROJECT, FakeCloud
from .test_plan import vm

UUID = "5030aaaa-0000-0000-0000-000000000001"
ROWS: dict[str, Any] = {
    "/network/v2.0/networks": {
        "networks": [{"id": "n1", "name": "web", "tenant_id": PROJECT}, {"id": "n2", "name": "theirs", "tenant_id": "x"}]
    },
    "/network/v2.0/subnets": {"subnets": [{"id": "s1", "network_id": "n1", "cidr": "10.9.0.0/24", "gateway_ip": "10.9.0.1"}]},
    "/network/v2.0/ports": {"ports": []},
    "/network/v2.0/security-groups": {"security_groups": [{"id": "g1", "name": "default"}]},
    "/network/v2.0/quotas": {"quota": {"port": {"limit": 5, "used": 1, "reserved": 1}}},
    "/compute/flavors/detail": {
        "flavors": [
            {"id": "f1", "name": "small", "vcpus": 1, "ram": 1024, "disk": 0},
            {"id": "f2", "name": "tpm", "vcpus": 1, "ram": 2048, "disk": 0, "extra_specs": {"hw:tpm_version": "2.0"}},
            {"id": "f4", "name": "flat", "vcpus": 4, "ram": 8192, "disk": 0, "extra_specs": {"hw:cpu_sockets": "4"}},
        ]
    },
    "/compute/servers/detail": {"servers": []},
    "/compute/limits": {
        "limits": {
            "absolute": {
                **{f"maxTotal{w}": n for w, n in (("Instances", 10), ("Cores", 20), ("RAMSize", 51200))},
                **{f"total{w}Used": 0 for w in ("Instances", "Cores", "RAM", "ServerGroups")},
                "maxServerGroups": 5,
                "maxServerGroupMembers": 5,
                "maxServerMeta": 128,
            }
        }
    },
    "/compute/os-server-groups": {"server_groups": []},
    "/compute/os-keypairs": {"keypairs": [{"keypair": {"name": "mine"}}]},
    "/compute/os-availability-zone": {"availabilityZoneInfo": [{"zoneName": "nova", "zoneState": {"available": True}}]},
    "/block-storage/volumes/detail": {"volumes": []},
    "/block-storage/types/default": {"volume_type": {"name": "standard"}},
    "/block-storage/types": {
        "volume_types": [{"id": "t1", "name": "ssd"}, {"id": "t2", "name": "shared", "extra_specs": {"multiattach": "<is> True"}}]
    },
    "/block-storage/os-quota-sets": {
        "quota_set": {
            "id": "x",
            "volumes": {"limit": 10, "in_use": 0, "reserved": 0},
            "gigabytes": {"limit": 100, "in_use": 0, "reserved": 0},
            "per_volume_gigabytes": {"limit": 50, "in_use": 0, "reserved": 0},
        }
    },
    "/image/schemas/image": {"properties": {"disk_format": {"enum": ["raw", "vmdk"]}, "container_format": {"enum": ["bare"]}}},
    "/image/info/usage": {"usage": {"image_count_total": {"limit": 2, "usage": 1}}},
    "/placement/traits": {
        "traits": ["COMPUTE_FIRMWARE_BIOS", "COMPUTE_FIRMWARE_UEFI", "COMPUTE_SECURITY_UEFI_SECURE_BOOT", "COMPUTE_SECURITY_TPM_2_0"]
    },
}


class Scene:
    """What a case changes. C(rows): answers by the beginning of their paths; None is 404."""

    def __init__(self) -> None:
        self.rows = copy.deepcopy(ROWS)
        self.wave = [vm()]
        self.options: dict[str, Any] = {"network_map": {"VM Network": "web", "db": "web"}, "storage_map": {"*": "ssd"}}
        self.paths: list[str] = []

    @property
    def vm(self) -> dict[str, Any]:
        return self.wave[0]

    @property
    def disk(self) -> dict[str, Any]:
        found: dict[str, Any] = self.vm["disks"][0]
        return found

    @property
    def nic(self) -> dict[str, Any]:
        found: dict[str, Any] = self.vm["nics"][0]
        return found

    def set(self, **options: Any) -> None:
        self.options.update(options)

    def add(self, path: str, **row: Any) -> None:
        """A row more in the listing C(path)."""
        answer = self.rows[path]
        next(iter(answer.values())).append(row)

    def server(self, **row: Any) -> None:
        base = {
            "id": "srv1",
            "name": "vm1",
            "status": "ACTIVE",
            "metadata": {},
            "flavor": {"vcpus": 1, "original_name": "small", "extra_specs": {}},
        }
        self.add("/compute/servers/detail", **{**base, **row})

    def volume(self, **row: Any) -> None:
        base = {
            "id": "vol1",
            "name": "vm1-disk0",
            "status": "available",
            "size": 1,
            "volume_type": "ssd",
            "metadata": {},
            "attachments": [],
        }
        self.add("/block-storage/volumes/detail", **{**base, **row})

    def own_volume(self, **row: Any) -> None:
        self.volume(metadata={"ferry_source": UUID, "ferry_disk": "2000", "ferry_state": "copying"}, **row)

    def port(self, **row: Any) -> None:
        base = {"id": "p1", "name": "other", "network_id": "n1", "mac_address": "fa:16:3e:00:00:01", "tags": [], "fixed_ips": []}
        self.add("/network/v2.0/ports", **{**base, **row})

    def absolute(self, **limits: int) -> None:
        self.rows["/compute/limits"]["limits"]["absolute"].update(limits)

    def serve(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        self.paths.append(path)
        bare, _mark, query = path.partition("?")
        for known, answer in sorted(self.rows.items(), key=lambda row: -len(row[0])):
            if bare.startswith(known):
                return (200, _filtered(answer, parse_qs(query))) if answer is not None else (404, {})
        return 404, {}

    def on(self, cloud: FakeCloud) -> Scene:
        cloud.handler = self.serve
        return self


def _filtered(answer: Mapping[str, Any], query: Mapping[str, list[str]]) -> Mapping[str, Any]:
    """Ports as Neutron filters them."""
    if "ports" not in answer:
        return answer
    rows = answer["ports"]
    for key in ("network_id", "name", "project_id"):
        if key in query:
            rows = [r for r in rows if r.get(key) in query[key]]
    if "tags-any" in query:
        wanted = set(query["tags-any"][0].split(","))
        rows = [r for r in rows if wanted & set(r.get("tags") or ())]
    return {"ports": rows}
