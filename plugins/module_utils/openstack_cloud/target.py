# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the target cloud has that a landing depends on, read once for a whole wave: one listing per kind, no call per VM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Iterator, Mapping, Sequence

from ..errors import ServerError
from .client import call, get, listing

#: Keys of metadata and tags by which a run finds what an earlier one made.
SOURCE, DISK, ROLE, STATE, DIGEST, NIC, SCOPE = (
    "ferry_source",
    "ferry_disk",
    "ferry_role",
    "ferry_state",
    "ferry_digest",
    "ferry_nic",
    "ferry_vm",
)

#: Servers with their flavor's name and volumes, and not yet with fields that older clouds lack (Nova, Pike and later).
SERVERS = "2.47"
#: Flavors with their extra specs (Nova, Rocky and later).
FLAVORS = "2.61"
#: Names or tags in one query: they travel in the URL.
CHUNK = 40
PORT_FIELDS = (
    "id",
    "name",
    "network_id",
    "mac_address",
    "tags",
    "description",
    "device_id",
    "device_owner",
    "fixed_ips",
    "security_groups",
    "status",
)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """Rows as the services answer them; C(quotas) as {service: {what: (limit, used)}}, -1 for no limit."""

    flavors: Sequence[Row] = ()
    networks: Sequence[Row] = ()
    ports: Sequence[Row] = ()
    volumes: Sequence[Row] = ()
    volume_types: Sequence[Row] = ()
    servers: Sequence[Row] = ()
    security_groups: Sequence[Row] = ()
    zones: Sequence[str] = ()
    quotas: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def read_target(conn: Any, *, sources: Iterable[str], networks: Iterable[str], port_names: Iterable[str], zone: bool = False) -> Target:
    """Read the target.

    :param sources: instance uuids of the wave's VMs; what is tagged with them is read wherever it is.
    :param networks: names or ids of the networks that the wave lands on; all their ports are read, for the MACs.
    :param port_names: names that the wave's ports will have.
    :param zone: whether the availability zones are needed.
    """
    known = list(listing(conn, "network", "/networks", "networks", step="read the networks", params={"fields": ["id", "name", "subnets"]}))
    wanted = set(networks)
    ids = [n["id"] for n in known if n["id"] in wanted or n["name"] in wanted]
    return Target(
        flavors=list(listing(conn, "compute", "/flavors/detail", "flavors", step="read the flavors", microversion=FLAVORS)),
        networks=known,
        ports=_ports(conn, ids, sources, port_names),
        volumes=list(listing(conn, "block_storage", "/volumes/detail", "volumes", step="read the volumes")),
        volume_types=list(listing(conn, "block_storage", "/types", "volume_types", step="read the volume types")),
        servers=list(listing(conn, "compute", "/servers/detail", "servers", step="read the servers", microversion=SERVERS)),
        security_groups=list(
            listing(
                conn, "network", "/security-groups", "security_groups", step="read the security groups", params={"fields": ["id", "name"]}
            )
        ),
        zones=_zones(conn) if zone else (),
        quotas=_quotas(conn),
    )


def _chunks(values: Iterable[str]) -> Iterator[list[str]]:
    rows = sorted(set(values))
    for i in range(0, len(rows), CHUNK):
        yield rows[i : i + CHUNK]


def _ports(conn: Any, networks: list[str], sources: Iterable[str], names: Iterable[str]) -> list[Row]:
    found: dict[str, Row] = {}

    def read(params: Mapping[str, Any]) -> None:
        for row in listing(conn, "network", "/ports", "ports", step="read the ports", params={**params, "fields": list(PORT_FIELDS)}):
            found[row["id"]] = row

    for some in _chunks(networks):
        read({"network_id": some})
    for some in _chunks(f"{SOURCE}={source}" for source in sources):
        read({"tags-any": ",".join(some)})
    for some in _chunks(names):
        read({"name": some})
    return list(found.values())


def _zones(conn: Any) -> list[str]:
    rows = get(conn, "compute", "/os-availability-zone", step="read the availability zones")["availabilityZoneInfo"]
    return [r["zoneName"] for r in rows if (r.get("zoneState") or {}).get("available")]


def _quotas(conn: Any) -> dict[str, tuple[int, int]]:
    """Limits and use by name. A service that does not tell its quotas to this user is left out: it will refuse by itself."""
    found: dict[str, tuple[int, int]] = {}
    limits = _optional(conn, "compute", "/limits").get("limits", {}).get("absolute", {})
    for name, limit, used in (
        ("instances", "maxTotalInstances", "totalInstancesUsed"),
        ("cores", "maxTotalCores", "totalCoresUsed"),
        ("ram", "maxTotalRAMSize", "totalRAMUsed"),
    ):
        if limit in limits:
            found[name] = (int(limits[limit]), int(limits.get(used, 0)))
    project = conn.current_project_id
    for name, row in _optional(conn, "block_storage", f"/os-quota-sets/{project}?usage=true").get("quota_set", {}).items():
        if isinstance(row, dict):
            found[name] = (int(row.get("limit", -1)), int(row.get("in_use", 0)) + int(row.get("reserved", 0)))
    row = _optional(conn, "network", f"/quotas/{project}/details").get("quota", {}).get("port")
    if isinstance(row, dict):
        found["port"] = (int(row.get("limit", -1)), int(row.get("used", 0)) + int(row.get("reserved", 0)))
    return found


def _optional(conn: Any, service: str, path: str) -> dict[str, Any]:
    response = call(conn, service, "GET", path, step="read the quotas", allow=(403, 404))
    if response.status_code >= 400:
        return {}
    try:
        body = response.json()
    except ValueError:
        raise ServerError("The quotas are no JSON.", step="read the quotas") from None
    return body if isinstance(body, dict) else {}
