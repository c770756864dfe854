# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rehearsal: copies of a VM's volumes, and a server of them on networks that lead nowhere. Everything is marked and removed again.

The marks are metadata C(ferry_rehearsal) (volumes, snapshots, servers) and descriptions (ports, networks) from the very call that makes
a thing, so that one made by a run that was killed in the next moment is found. What is rehearsed carries no C(ferry_source): no
migration takes it for its own.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Mapping, Sequence

from ..errors import BadInput, FerryError, ServerError, bounded
from . import removal, volumes
from .client import call, get, listing
from .target import SERVERS
from .waiting import wait_for

#: Mark of all that belongs to a rehearsal; its value is the instance UUID of the VM.
REHEARSAL = "ferry_rehearsal"
#: Metadata beside it: who makes the rehearsal (see transfer/rehearse.py).
BY = "ferry_rehearsal_by"
#: Seconds for a volume's copy, unless told otherwise: a back end without copy on write reads and writes all of it.
COPY_TIMEOUT = 3600.0
_PAUSE = 0.5
_MAX_NAME = 200
#: Longer metadata are refused by Cinder and Nova.
_LONGEST = 255

Row = Mapping[str, Any]


def mark_of(source: str) -> str:
    """The description of ports and networks."""
    return f"{REHEARSAL}={source.lower()}"


def left_over(conn: Any, source: str | None = None) -> dict[str, list[Row]]:
    """What there is of rehearsals, of one VM or of all: servers, ports, networks, volumes, snapshots."""

    def ours(row: Row) -> bool:
        found = str((row.get("metadata") or {}).get(REHEARSAL) or "")
        return bool(found) and (source is None or found == source.lower())

    def described(row: Row) -> bool:
        text = str(row.get("description") or "")
        return text.startswith(f"{REHEARSAL}=") if source is None else text == mark_of(source)

    query = {"description": mark_of(source)} if source is not None else {}
    step = "look for rehearsals"
    return {
        "servers": [s for s in listing(conn, "compute", "/servers/detail", "servers", step=step, microversion=SERVERS) if ours(s)],
        "ports": [p for p in listing(conn, "network", "/ports", "ports", step=step, params=query) if described(p)],
        "networks": [n for n in listing(conn, "network", "/networks", "networks", step=step, params=query) if described(n)],
        "volumes": [v for v in listing(conn, "block_storage", "/volumes/detail", "volumes", step=step) if ours(v)],
        "snapshots": [s for s in listing(conn, "block_storage", "/snapshots/detail", "snapshots", step=step) if ours(s)],
    }


def owners(found: Mapping[str, Sequence[Row]]) -> set[str]:
    """Who has made what left_over() found, as far as it says so."""
    said = {str((row.get("metadata") or {}).get(BY) or "") for rows in found.values() for row in rows}
    return said - {""}


def remove(conn: Any, found: Mapping[str, Sequence[Row]], *, timeout: float = removal.TIMEOUT) -> list[str]:
    """Remove what left_over() found; each as a sentence.

    Everything is tried; the first error is raised at the end, with the number of things left.
    """
    order = (
        ("servers", "server", removal.remove_server),
        ("ports", "port", lambda c, i, **_more: removal.remove_port(c, i)),
        ("networks", "network", removal.remove_network),
        ("volumes", "volume", removal.remove_volume),
        # a copy may live on its snapshot (copy on write), so snapshots go last
        ("snapshots", "snapshot", removal.remove_snapshot),
    )
    steps: list[str] = []
    errors: list[FerryError] = []
    for kind, word, work in order:
        for row in found[kind]:
            try:
                work(conn, row["id"], timeout=timeout)
                steps.append(f"{word} {row.get('name') or row['id']} removed")
            except FerryError as e:
                errors.append(e)
    if errors:
        errors[0].add(left=f"{len(errors)} things of the rehearsal", next_command="run it again, or ferry.vmware.cleanup")
        errors[0].partial = {"changed": bool(steps), "steps": steps}
        raise errors[0]
    return steps


def check_ready(conn: Any, entry: Mapping[str, Any], how: str) -> list[dict[str, Any]]:
    """The VM's volumes as they are now, where each can be copied.

    :param entry: the VM's entry of landing_plan.
    :param how: clone or snapshot.
    :raises BadInput: code not_ready, with the reasons.
    """
    problems = []
    rows = []
    for wanted in entry["volumes"]:
        label = bounded(wanted.get("label") or wanted.get("disk"), 60)
        if not wanted.get("id"):
            problems.append(f"{label} has no volume yet")
            continue
        row = volumes.get_volume(conn, wanted["id"])
        known = row.get("metadata") or {}
        rows.append(row)
        if not known.get("ferry_digest") or known.get("ferry_pass") == "open":
            problems.append(f"the copy of {label} is not whole yet")
        elif row["status"] != "available" and not (how == "snapshot" and row["status"] == "in-use"):
            problems.append(f"the volume of {label} is {bounded(row['status'], 30)}, so it is being written to or a server has it")
    if problems:
        raise BadInput(
            "There is nothing to rehearse with: " + "; ".join(problems) + ".",
            code="not_ready",
            vm=entry.get("name"),
            step="look at the volumes",
            next_command="run ferry.vmware.precopy to its end, and rehearse between two of its runs",
        )
    return rows


def _state(row: Row) -> tuple[Any, ...]:
    known = row.get("metadata") or {}
    return row.get("status"), known.get("ferry_digest"), known.get("ferry_generation"), known.get("ferry_pass"), known.get("ferry_state")


class Rehearsal:
    """Makes one. C(made): what has been made so far, sentences."""

    def __init__(self, conn: Any, entry: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.conn = conn
        self.entry = entry
        self.options = options
        self.source = str(entry["source"]).lower()
        self.mark = {REHEARSAL: self.source}
        if options.get("owner"):
            self.mark[BY] = str(options["owner"])[:_LONGEST]
        self.name = f"rehearsal-{str(entry['server']['name'])[:_MAX_NAME]}"
        self.made: list[str] = []

    def plan(self) -> list[str]:
        """What would be made, sentences."""
        rows = [f"volume {v.get('name')} copied ({self.options['copy']})" for v in self.entry["volumes"]]
        given = self.options.get("network_map") or {}
        for network in dict.fromkeys(p["network"] for p in self.entry["ports"]):
            rows.append(
                f"in the place of {network}: " + (f"the network {given[network]}" if network in given else "a network that leads nowhere")
            )
        return [*rows, f"server {self.name} of flavor {(self.entry.get('flavor') or {}).get('name')}, then everything removed again"]

    def build(self) -> dict[str, Any]:
        """Copy the volumes, make networks, ports and the server, and wait until it is ACTIVE; the server's facts."""
        rows = check_ready(self.conn, self.entry, self.options["copy"])
        copies = [self._copy(wanted, row) for wanted, row in zip(self.entry["volumes"], rows, strict=True)]
        for row in rows:
            if _state(volumes.get_volume(self.conn, row["id"])) != _state(row):
                raise ServerError(
                    "A volume was written to while it was copied, so the copy is worth nothing.",
                    code="changed",
                    vm=self.entry.get("name"),
                    step="copy the volumes",
                    next_command="rehearse while no copy runs",
                )
        networks: dict[str, str] = {}
        for port in self.entry["ports"]:
            if port["network"] not in networks:
                networks[port["network"]] = self._network(port)
        ports = [self._port(port, networks[port["network"]]) for port in self.entry["ports"]]
        return self._server(copies, ports)

    def _copy(self, wanted: Row, row: Row) -> dict[str, Any]:
        step = "copy the volume"
        body: dict[str, Any] = {
            "name": f"rehearsal-{str(row.get('name') or row['id'])[:_MAX_NAME]}",
            "size": row["size"],
            "metadata": self.mark,
        }
        if self.options["copy"] == "snapshot":
            asked = {"volume_id": row["id"], "name": body["name"], "metadata": self.mark, "force": row["status"] == "in-use"}
            made = call(
                self.conn, "block_storage", "POST", "/snapshots", step="take a snapshot of the volume", body={"snapshot": asked}
            ).json()
            self._wait(f"/snapshots/{made['snapshot']['id']}", "snapshot")
            body["snapshot_id"] = made["snapshot"]["id"]
        else:
            body["source_volid"] = row["id"]
        made = call(self.conn, "block_storage", "POST", "/volumes", step=step, body={"volume": body}).json()["volume"]
        copied = self._wait(f"/volumes/{made['id']}", "volume")
        if wanted.get("role") == "root":
            if str(copied.get("bootable")).lower() != "true":
                volumes.set_bootable(self.conn, made["id"], True)
            volumes.set_image_metadata(self.conn, made["id"], {str(k): str(v) for k, v in (wanted.get("image_properties") or {}).items()})
        self.made.append(f"volume {body['name']}")
        return {"id": made["id"], "role": wanted.get("role")}

    def _wait(self, path: str, key: str) -> dict[str, Any]:
        last: dict[str, Any] = {}

        def copied() -> dict[str, Any] | None:
            row: dict[str, Any] = get(self.conn, "block_storage", path, step="wait for the copy")[key]
            last.update(row)
            if str(row["status"]).startswith("error"):
                raise ServerError(
                    f"Cinder could not copy it: the {key} {row['id']} has the status {row['status']}.", step="copy the volume"
                )
            return row if row["status"] == "available" else None

        def late() -> ServerError:
            return ServerError(f"The {key} {last['id']} is still {last['status']}.", code="timeout", step="wait for the copy")

        return wait_for(copied, float(self.options.get("copy_timeout") or COPY_TIMEOUT), late, pause=_PAUSE)

    def _network(self, port: Row) -> str:
        """The id of the network in the place of the port's."""
        given = (self.options.get("network_map") or {}).get(port["network"])
        if given:
            found = removal.network_of(self.conn, given)
            self._insist_isolated(found, port)
            return str(found["id"])
        body = {"name": f"{self.name} {port['network']}"[:255], "description": mark_of(self.source)}
        made = call(self.conn, "network", "POST", "/networks", step="make a network", body={"network": body}).json()["network"]
        # The same addresses as at home, and no gateway: the guest keeps what it has, and nothing gets out.
        for subnet in get(self.conn, "network", "/subnets", step="read the subnets", params={"network_id": port["network_id"]})["subnets"]:
            kept = {
                k: subnet[k]
                for k in ("cidr", "ip_version", "enable_dhcp", "ipv6_address_mode", "ipv6_ra_mode")
                if subnet.get(k) is not None
            }
            new = {**kept, "network_id": made["id"], "gateway_ip": None, "name": body["name"]}
            call(self.conn, "network", "POST", "/subnets", step="make a subnet", body={"subnet": new})
        self.made.append(f"network {body['name']}")
        return str(made["id"])

    def _insist_isolated(self, network: Row, port: Row) -> None:
        step = "look at the network"
        owners = {
            str(p.get("device_owner") or "")
            for p in listing(self.conn, "network", "/ports", "ports", step=step, params={"network_id": network["id"]})
        }
        why = None
        if network["id"] in {port["network_id"], *(p["network_id"] for p in self.entry["ports"])}:
            why = "it is one that the VM is to have"
        elif network.get("router:external"):
            why = "it is an external network"
        elif any(o.startswith(("network:router", "network:ha_router")) for o in owners):
            why = "a router is attached to it"
        if why:
            raise BadInput(
                f"The network {bounded(network.get('name'), 80)} is not isolated: {why}. The VM's double would answer to its addresses there.",
                code="not_isolated",
                vm=self.entry.get("name"),
                step=step,
                next_command="name another network, or none: one is made then",
            )

    def _port(self, port: Row, network: str) -> str:
        addresses = [f["ip_address"] for f in port.get("fixed_ips") or () if f.get("ip_address")]
        addresses = addresses or list((port.get("found") or {}).get("addresses") or ())
        body: dict[str, Any] = {
            "name": f"rehearsal-{str(port['name'])[:_MAX_NAME]}",
            "network_id": network,
            "description": mark_of(self.source),
        }
        if port.get("mac"):
            body["mac_address"] = port["mac"]
        if port.get("security_groups") is not None:
            body["security_groups"] = port["security_groups"]
        subnets = get(self.conn, "network", "/subnets", step="read the subnets", params={"network_id": network})["subnets"]
        within = [a for a in addresses if any(ipaddress.ip_address(a) in ipaddress.ip_network(s["cidr"]) for s in subnets)]
        if within:
            body["fixed_ips"] = [{"ip_address": a} for a in within]
        made = call(self.conn, "network", "POST", "/ports", step="make a port", body={"port": body}).json()["port"]
        self.made.append(f"port {body['name']}")
        return str(made["id"])

    def _server(self, copies: Sequence[Mapping[str, Any]], ports: Sequence[str]) -> dict[str, Any]:
        entry = self.entry
        ordered = sorted(copies, key=lambda c: c["role"] != "root")
        disks = [
            {
                "source_type": "volume",
                "destination_type": "volume",
                "uuid": c["id"],
                "boot_index": 0 if n == 0 else -1,
                "delete_on_termination": False,
            }
            for n, c in enumerate(ordered)
        ]
        body = {
            "name": self.name,
            "flavorRef": entry["flavor"]["id"],
            "block_device_mapping_v2": disks,
            "networks": [{"port": p} for p in ports] or "none",
            "metadata": {**self.mark, "ferry_vm": str(entry["name"])[:_MAX_NAME]},
        }
        if entry["server"].get("availability_zone"):
            body["availability_zone"] = entry["server"]["availability_zone"]
        made = call(self.conn, "compute", "POST", "/servers", step="make the server", body={"server": body}, microversion=SERVERS).json()[
            "server"
        ]
        self.made.append(f"server {self.name}")
        server = removal.wait_server(self.conn, made["id"], timeout=float(self.options["timeout"]))
        rows = listing(self.conn, "network", "/ports", "ports", step="read the ports", params={"device_id": made["id"]})
        by_id = {p["id"]: p for p in rows}
        return {
            "id": made["id"],
            "name": self.name,
            "status": server["status"],
            "volumes": [c["id"] for c in ordered],
            "ports": [
                {
                    "id": p,
                    "mac_address": by_id[p]["mac_address"],
                    "network_id": by_id[p]["network_id"],
                    "addresses": [f["ip_address"] for f in by_id[p].get("fixed_ips") or ()],
                }
                for p in ports
                if p in by_id
            ],
        }
