# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the target cloud has that a landing depends on, read once for a whole wave: one listing per kind, no call per VM."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

from . import formats, quota
from .client import call, get, listing
from .options import Asked

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
#: Server groups with their one policy (Nova, Rocky and later); how many are asked for at once, and at most.
GROUPS = "2.64"
GROUP_PAGE, MAX_GROUPS = 1000, 100_000
#: Names or tags in one query: they travel in the URL. For a wave that needs more such queries, the project's ports are read.
CHUNK = 40
PORT_QUERIES = 2
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
    """Rows as the services answer them; C(quotas) as {what: (limit, used)}, -1 for no limit (quota.py).

    C(project), C(roles): whose token it is, None where that is not known. C(keypairs): names, None where nobody asked.
    C(image_formats): what Glance takes, empty where nobody asked.
    """

    flavors: Sequence[Row] = ()
    networks: Sequence[Row] = ()
    ports: Sequence[Row] = ()
    volumes: Sequence[Row] = ()
    volume_types: Sequence[Row] = ()
    servers: Sequence[Row] = ()
    security_groups: Sequence[Row] = ()
    zones: Sequence[str] = ()
    quotas: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    subnets: Sequence[Row] = ()
    server_groups: Sequence[Row] = ()
    keypairs: frozenset[str] | None = None
    default_type: str | None = None
    image_formats: Mapping[str, frozenset[str]] = field(default_factory=dict)
    project: str | None = None
    roles: frozenset[str] | None = None

    # A wave of 1,000 VMs looks for its own among thousands: each is found by what it is known by, in the order of the listings.

    @cached_property
    def volumes_by_source(self) -> Mapping[str, list[Row]]:
        """By the instance uuid that they are tagged with, in lower case; empty: not tagged."""
        return _by(self.volumes, source_tag)

    @cached_property
    def volumes_by_id(self) -> Mapping[str, list[Row]]:
        return _by(self.volumes, lambda v: str(v["id"]))

    @cached_property
    def volumes_by_name(self) -> Mapping[str, list[Row]]:
        return _by(self.volumes, lambda v: str(v.get("name") or ""))

    @cached_property
    def servers_by_source(self) -> Mapping[str, list[Row]]:
        return _by(self.servers, source_tag)

    @cached_property
    def servers_by_id(self) -> Mapping[str, list[Row]]:
        return _by(self.servers, lambda s: str(s["id"]))

    @cached_property
    def servers_by_name(self) -> Mapping[str, list[Row]]:
        return _by(self.servers, lambda s: str(s.get("name") or ""))

    @cached_property
    def ports_by_tag(self) -> Mapping[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for port in self.ports:
            for tag in port.get("tags") or ():
                found.setdefault(str(tag), []).append(port)
        return found

    @cached_property
    def ports_by_description(self) -> Mapping[str, list[Row]]:
        return _by(self.ports, lambda p: str(p.get("description") or ""))

    @cached_property
    def ports_by_device(self) -> Mapping[str, list[Row]]:
        return _by(self.ports, lambda p: str(p.get("device_id") or ""))


def source_tag(row: Row) -> str:
    """The instance uuid that a volume or server is tagged with, in lower case; empty where it is not."""
    return str((row.get("metadata") or {}).get(SOURCE) or "").lower()


def _by(rows: Iterable[Row], key: Callable[[Row], str]) -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def read_target(conn: Any, asked: Asked, *, sources: Iterable[str]) -> Target:
    """Read the target.

    :param asked: what the wave is about; the ports of its networks are read, for their MACs and addresses.
    :param sources: instance uuids of the wave's VMs; what is tagged with them is read wherever it is.
    """
    fields = ["id", "name", "subnets", "project_id", "tenant_id", "shared"]
    known = list(listing(conn, "network", "/networks", "networks", step="read the networks", params={"fields": fields}))
    ids = [n["id"] for n in known if n["id"] in asked.networks or n["name"] in asked.networks]
    return Target(
        flavors=list(listing(conn, "compute", "/flavors/detail", "flavors", step="read the flavors", microversion=FLAVORS)),
        networks=known,
        ports=_ports(conn, ids, sources, asked.port_names),
        volumes=list(listing(conn, "block_storage", "/volumes/detail", "volumes", step="read the volumes")),
        volume_types=list(listing(conn, "block_storage", "/types", "volume_types", step="read the volume types")),
        servers=list(listing(conn, "compute", "/servers/detail", "servers", step="read the servers", microversion=SERVERS)),
        security_groups=_security_groups(conn) if asked.security_groups else (),
        zones=_zones(conn) if asked.zones else (),
        quotas=quota.read(conn, images=asked.images),
        subnets=_subnets(conn, ids) if asked.addresses else (),
        server_groups=server_groups(conn) if asked.groups else (),
        keypairs=_keypairs(conn) if asked.keys else None,
        default_type=_default_type(conn) if asked.default_type else None,
        image_formats=formats.accepted(conn) if asked.images else {},
        project=conn.current_project_id,
        roles=_roles(conn),
    )


def _security_groups(conn: Any) -> list[Row]:
    fields = {"fields": ["id", "name"]}
    return list(listing(conn, "network", "/security-groups", "security_groups", step="read the security groups", params=fields))


def _subnets(conn: Any, networks: list[str]) -> list[Row]:
    fields = ["id", "network_id", "cidr", "gateway_ip"]
    found: list[Row] = []
    for some in _chunks(networks):
        params = {"network_id": some, "fields": fields}
        found += listing(conn, "network", "/subnets", "subnets", step="read the subnets", params=params)
    return found


def server_groups(conn: Any) -> list[Row]:
    """All groups of the project. Their list has offsets and no markers."""
    found: list[Row] = []
    while True:
        params = {"limit": GROUP_PAGE, "offset": len(found)}
        rows = get(conn, "compute", "/os-server-groups", step="read the server groups", params=params, microversion=GROUPS)["server_groups"]
        found += rows
        if len(rows) < GROUP_PAGE or len(found) >= MAX_GROUPS:
            return found


def _keypairs(conn: Any) -> frozenset[str]:
    rows = get(conn, "compute", "/os-keypairs", step="read the key pairs")["keypairs"]
    return frozenset(str(r["keypair"]["name"]) for r in rows)


def _default_type(conn: Any) -> str | None:
    """The volume type of volumes that ask for none: it is what their quotas count for."""
    answer = call(conn, "block_storage", "GET", "/types/default", step="read the default volume type", allow=(403, 404))
    name = (answer.json().get("volume_type") or {}).get("name") if answer.status_code == 200 else None
    return str(name) if name else None


def _roles(conn: Any) -> frozenset[str] | None:
    """The roles in the token; None where it does not tell them."""
    access = getattr(conn.session.auth, "get_access", None)
    names = getattr(access(conn.session), "role_names", None) if access else None
    return frozenset(str(n).lower() for n in names) if names else None


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
    tags = list(_chunks(f"{SOURCE}={source}" for source in sources))
    named = list(_chunks(names))
    if len(tags) + len(named) > PORT_QUERIES:
        # of a large wave: what the project has, in one listing, whose pages are fewer than these questions
        read({"project_id": conn.current_project_id})
        return list(found.values())
    for some in tags:
        read({"tags-any": ",".join(some)})
    for some in named:
        read({"name": some})
    return list(found.values())


def _zones(conn: Any) -> list[str]:
    rows = get(conn, "compute", "/os-availability-zone", step="read the availability zones")["availabilityZoneInfo"]
    return [r["zoneName"] for r in rows if (r.get("zoneState") or {}).get("available")]
