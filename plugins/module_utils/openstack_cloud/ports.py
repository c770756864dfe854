# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ports of a server: name, MAC, tags, security groups, and that they hang on the server in their order.

Neutron refuses another MAC for a port that is bound to a server: the port is taken off, changed and put back. Those behind it
go the same way, because a server's cards are in the order in which they were attached.
"""

from __future__ import annotations

import time
from typing import Any, Mapping, Sequence

from ..errors import BadInput, ServerError, bounded
from .client import call, get
from .volumes import volume_id_of as uuid_of

#: Seconds that Nova gets to attach or detach a card.
TIMEOUT = 120.0
PAUSE = 0.3


def ensure(conn: Any, server: str | None, ports: Sequence[Mapping[str, Any]], *, check: bool = False) -> dict[str, Any]:
    """Make the ports what they should be.

    :param server: id of the server that they belong to, in this order; None leaves attaching alone.
    :param ports: each C(port) (id) and what should be: C(name), C(mac_address), C(tags) (these exactly), C(security_groups) (ids),
        C(fixed_ips) (addresses, all of them). What is None is left as it is.
    :returns: C(changed), C(before) and C(after) (by port id, what differed), C(ports) (as they are now).
    """
    rows = [get(conn, "network", f"/ports/{uuid_of(p['port'])}", step="read a port")["port"] for p in ports]
    for row in rows:
        if row.get("device_id") and server and row["device_id"] != server:
            raise BadInput(
                f"Port {row['id']} ({bounded(row.get('name'), 80)}) is in use by {bounded(row.get('device_owner'), 60)} {bounded(row['device_id'], 60)}.",
                step="attach the port",
            )
    bodies = [_body(row, wanted) for row, wanted in zip(rows, ports, strict=True)]
    tags = [_tags(row, wanted) for row, wanted in zip(rows, ports, strict=True)]
    taken_off = _to_move(rows, bodies, server)
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for index, row in enumerate(rows):
        changes = dict(bodies[index])
        if tags[index] is not None:
            changes["tags"] = tags[index]
        if server and row.get("device_id") != server:
            changes["device_id"] = server
        if changes:
            before[row["id"]] = {k: row.get(k) for k in changes}
            after[row["id"]] = changes
    if after and not check:
        ids = _apply(conn, server, rows, bodies, tags, taken_off)
        rows = [get(conn, "network", f"/ports/{i}", step="read a port")["port"] for i in ids]
    return {"changed": bool(after), "before": before, "after": after, "ports": [_shown(r) for r in rows]}


def _body(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if wanted.get("name") is not None and wanted["name"] != row.get("name"):
        body["name"] = wanted["name"]
    mac = wanted.get("mac_address")
    if mac is not None and mac.lower() != str(row.get("mac_address")).lower():
        body["mac_address"] = mac.lower()
    groups = wanted.get("security_groups")
    if groups is not None and sorted(groups) != sorted(row.get("security_groups") or ()):
        body["security_groups"] = list(groups)
    addresses = wanted.get("fixed_ips")
    if addresses is not None and sorted(addresses) != sorted(str(f.get("ip_address")) for f in row.get("fixed_ips") or ()):
        body["fixed_ips"] = [{"ip_address": a} for a in addresses]
    return body


def _tags(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str] | None:
    tags = wanted.get("tags")
    return sorted(tags) if tags is not None and sorted(tags) != sorted(row.get("tags") or ()) else None


def _to_move(rows: Sequence[Mapping[str, Any]], bodies: Sequence[Mapping[str, Any]], server: str | None) -> list[int]:
    """Indexes of the ports that must be off the server for a while: those that get a MAC, and what hangs behind a gap."""
    for index, row in enumerate(rows):
        attached = bool(row.get("device_id"))
        if attached and "mac_address" in bodies[index] and not server:
            raise BadInput(f"Port {row['id']} is bound to {bounded(row['device_id'], 60)}; name that server to change the port's MAC.")
        if server and (not attached or "mac_address" in bodies[index]):
            return [i for i in range(index, len(rows)) if rows[i].get("device_id")]
    return []


def _apply(
    conn: Any,
    server: str | None,
    rows: Sequence[Mapping[str, Any]],
    bodies: Sequence[Mapping[str, Any]],
    tags: Sequence[list[str] | None],
    taken_off: Sequence[int],
) -> list[str]:
    """Do it; the ports' ids, which may be new ones."""
    ids = [str(row["id"]) for row in rows]
    for index in taken_off:
        call(conn, "compute", "DELETE", f"/servers/{server}/os-interface/{ids[index]}", step="take a port off the server", allow=(404,))
    for index in taken_off:
        _wait(conn, ids[index], "")
    for index, row in enumerate(rows):
        wanted_tags = tags[index]
        if bodies[index]:
            path = f"/ports/{ids[index]}"
            may_not = (403,) if "mac_address" in bodies[index] else ()
            answer = call(conn, "network", "PUT", path, step="change the port", body={"port": dict(bodies[index])}, allow=may_not)
            if answer.status_code == 403:
                ids[index] = _replace(conn, row, bodies[index])
                wanted_tags = wanted_tags if wanted_tags is not None else sorted(row.get("tags") or ())
        if wanted_tags is not None:
            call(conn, "network", "PUT", f"/ports/{ids[index]}/tags", step="tag the port", body={"tags": wanted_tags})
    for index, row in enumerate(rows):
        if server and (index in taken_off or not row.get("device_id")):
            body = {"interfaceAttachment": {"port_id": ids[index]}}
            call(conn, "compute", "POST", f"/servers/{server}/os-interface", step="attach the port to the server", body=body)
            _wait(conn, ids[index], server)
    return ids


def _replace(conn: Any, row: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """A new port in the place of C(row), with what C(body) changes; its id.

    By default Neutron lets only an admin change a MAC, but the owner of a network choose one for a new port. Addresses are
    kept, so the old port goes first; a run that is killed in between finds the port absent and makes it.
    """
    kept = ("name", "network_id", "security_groups", "description", "admin_state_up", "allowed_address_pairs", "port_security_enabled")
    new = {k: row[k] for k in kept if row.get(k) is not None}
    new["fixed_ips"] = [{"subnet_id": f["subnet_id"], "ip_address": f["ip_address"]} for f in row.get("fixed_ips") or ()]
    call(conn, "network", "DELETE", f"/ports/{row['id']}", step="replace the port", allow=(404,))
    try:
        made = call(conn, "network", "POST", "/ports", step="replace the port", body={"port": {**new, **body}})
    except ServerError as e:
        e.add(left=f"the port {bounded(row.get('name'), 80)} is gone; the next run makes it")
        raise
    return str(made.json()["port"]["id"])


def _wait(conn: Any, port: str, device: str) -> None:
    end = time.monotonic() + TIMEOUT
    while True:
        found = get(conn, "network", f"/ports/{port}", step="wait for the port")["port"]
        if (found.get("device_id") or "") == device:
            return
        if time.monotonic() > end:
            raise ServerError(
                f"Port {port} is still {'attached' if not device else 'detached'} after {TIMEOUT:.0f} s.",
                code="timeout",
                step="wait for the port",
            )
        time.sleep(PAUSE)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("id", "name", "network_id", "mac_address", "tags", "security_groups", "device_id", "status", "fixed_ips")
    return {k: row.get(k) for k in keys}
