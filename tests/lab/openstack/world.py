# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a new lab holds: users, projects, catalog, networks, flavors and volume types."""

from __future__ import annotations

from typing import Any

from .layout import REGION, Layout
from .rest import Session

_CATALOG = {
    "glance": ("image", ""),
    "cinder": ("block-storage", "/v3"),
    "placement": ("placement", ""),
    "nova": ("compute", "/v2.1"),
    "neutron": ("network", ""),
}
_NETWORKS = {"net-web": "10.9.0.0/24", "net-backend": "10.10.0.0/24"}
# Name: vCPUs, MiB of memory. Disk 0: machines that come from elsewhere boot from volumes.
_FLAVORS = {
    "m1.nano": (1, 256),
    "m1.micro": (1, 512),
    "m1.tiny": (1, 1024),
    "m1.small": (1, 2048),
    "m1.medium": (2, 4096),
    "m1.large": (4, 8192),
    "m1.xlarge": (8, 16384),
}
_VOLUME_TYPES: dict[str, dict[str, str]] = {"fast": {}, "cluster": {"multiattach": "<is> True"}, "secure": {}}
_ENCRYPTION = {"provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256, "control_location": "front-end"}


def create_identities(layout: Layout) -> None:
    """The services' own user, the member "ferry" with its project, and the catalog; needs Keystone alone."""
    keystone = f"{layout.url('keystone')}/v3"
    admin = Session(layout.url("keystone"), "admin", layout.passwords["admin"])
    roles = {role["name"]: role["id"] for role in admin.get(f"{keystone}/roles")["roles"]}
    for user, project, granted in (("svc", "service", ("admin", "service")), ("ferry", "ferry", ("member",))):
        project_id = admin.post(f"{keystone}/projects", {"project": {"name": project, "domain_id": "default"}})["project"]["id"]
        body = {"user": {"name": user, "password": layout.passwords[user], "domain_id": "default"}}
        user_id = admin.post(f"{keystone}/users", body)["user"]["id"]
        for role in granted:
            admin.put(f"{keystone}/projects/{project_id}/users/{user_id}/roles/{roles[role]}")
    for name, (kind, path) in _CATALOG.items():
        service_id = admin.post(f"{keystone}/services", {"service": {"name": name, "type": kind}})["service"]["id"]
        for interface in ("public", "internal", "admin"):
            endpoint = {"service_id": service_id, "interface": interface, "url": layout.url(name) + path, "region_id": REGION}
            admin.post(f"{keystone}/endpoints", {"endpoint": endpoint})


def create_tenant_world(layout: Layout) -> None:
    """Networks that belong to the member's project, public flavors and a second volume type; needs all services."""
    member = Session(layout.url("keystone"), "ferry", layout.passwords["ferry"])
    admin = Session(layout.url("keystone"), "admin", layout.passwords["admin"])
    neutron = f"{layout.url('neutron')}/v2.0"
    for name, cidr in _NETWORKS.items():
        network: dict[str, Any] = member.post(f"{neutron}/networks", {"network": {"name": name}})["network"]
        subnet = {"name": name.replace("net-", "subnet-"), "network_id": network["id"], "ip_version": 4, "cidr": cidr}
        member.post(f"{neutron}/subnets", {"subnet": subnet})
    for name, (vcpus, ram) in _FLAVORS.items():
        flavor = {"name": name, "vcpus": vcpus, "ram": ram, "disk": 0}
        admin.post(f"{layout.url('nova')}/v2.1/flavors", {"flavor": flavor})
    # The type __DEFAULT__ comes with Cinder's schema.
    types = f"{layout.url('cinder')}/v3/{admin.project_id}/types"
    for name, specs in _VOLUME_TYPES.items():
        made = admin.post(types, {"volume_type": {"name": name, "extra_specs": {"volume_backend_name": "nfs1", **specs}}})["volume_type"]
        if name == "secure":
            admin.post(f"{types}/{made['id']}/encryption", {"encryption": _ENCRYPTION})
