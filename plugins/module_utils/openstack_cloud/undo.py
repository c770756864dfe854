# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target's half of a rollback: what was landed for a VM is at rest, or gone, and its volumes no longer count as complete.

The source is about to run again, so what the volumes hold is of the past: a second migration has to go on with them, not to take
them for the VM.
"""

from __future__ import annotations

from typing import Any, Mapping

from ..errors import BadInput
from . import volumes
from .client import call, connect, listing
from .matching import Known
from .removal import TIMEOUT, remove_port, remove_server, remove_volume, rests, stop_server
from .target import SERVERS, SOURCE, STATE, Target

__all__ = ["ROLLED_BACK", "landed", "undo"]

#: Value of ferry_state at a server that a rollback has stopped and kept.
ROLLED_BACK = "rolled_back"
SOURCE_STATE = "ferry_source_state"

Row = Mapping[str, Any]


def landed(conn: Any, source: str) -> tuple[list[Row], list[Row], list[Row]]:
    """(servers, ports, volumes) that were made for the VM with the instance UUID C(source).

    A port that somebody has given to a server of their own meanwhile is not among them.

    :raises BadInput: there is no source; all that carries no mark would be taken for its own.
    """
    source = source.strip().lower()
    if source in ("", "none", "null"):
        raise BadInput("Nothing says which VM is meant: its instance UUID is empty.", step="look at the target")
    target = Target(
        servers=list(listing(conn, "compute", "/servers/detail", "servers", step="read the servers", microversion=SERVERS)),
        volumes=list(listing(conn, "block_storage", "/volumes/detail", "volumes", step="read the volumes")),
    )
    tagged = listing(conn, "network", "/ports", "ports", step="read the ports", params={"tags": f"{SOURCE}={source}"})
    known = Known(target, source)
    theirs = {s["id"] for s in target.servers} - {s["id"] for s in known.servers}
    ports = {p["id"]: p for p in tagged if p.get("device_id") not in theirs and not str(p.get("device_owner")).startswith("network:")}
    for server in known.servers:
        for port in listing(conn, "network", "/ports", "ports", step="read the ports", params={"device_id": server["id"]}):
            # openstack.cloud.port sets no tags; between it and the tagging, the description says whose port it is
            if str(port.get("description") or "").startswith(f"{SOURCE}={source} "):
                ports[port["id"]] = port
    mine = [v for v in target.volumes if str((v.get("metadata") or {}).get(SOURCE) or "").lower() == source]
    return list(known.servers), list(ports.values()), mine


def undo(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Stop, or remove, what was landed for C(source).

    :param params: the connection; source; target: stopped (server stopped and kept), removed (server and ports are removed, the
        volumes stay for a second migration), purged (the volumes as well); timeout in seconds; state_dir, root_helper.
    :returns: changed, steps (sentences), server, volumes.
    """
    conn = connect(params)
    try:
        return _undo(conn, params, check)
    finally:
        conn.close()


def _undo(conn: Any, params: Mapping[str, Any], check: bool) -> dict[str, Any]:
    how, timeout = params["target"], float(params.get("timeout") or TIMEOUT)
    servers, ports, disks = landed(conn, params["source"])
    steps: list[str] = []
    for server in servers:
        name = f"server {server.get('name')} ({server['id']})"
        if how != "stopped":
            steps.append(f"{name} removed")
            if not check:
                remove_server(conn, server["id"], timeout=timeout)
            continue
        if not rests(server):
            steps.append(f"{name} stopped")
            if not check:
                stop_server(conn, server["id"], timeout=timeout)
        if (server.get("metadata") or {}).get(STATE) != ROLLED_BACK:
            steps.append(f"{name} marked as rolled back")
            if not check:
                body = {"metadata": {STATE: ROLLED_BACK}}
                call(conn, "compute", "POST", f"/servers/{server['id']}/metadata", step="mark the server", body=body)
    for port in ports if how != "stopped" else ():
        steps.append(f"port {port.get('name') or port['id']} removed")
        if not check:
            remove_port(conn, port["id"])
    for volume in disks:
        known = volume.get("metadata") or {}
        name = f"volume {volume.get('name')} ({volume['id']})"
        if how == "purged":
            steps.append(f"{name} removed")
            if not check:
                _purge(conn, volume, params, timeout)
        elif known.get(STATE) != "copying" or SOURCE_STATE in known:
            steps.append(f"{name} no longer counts as complete")
            if not check:
                volumes.set_metadata(conn, volume["id"], {STATE: "copying"}, unset=(SOURCE_STATE,))
    return {
        "changed": bool(steps),
        "steps": steps,
        "servers": [s["id"] for s in servers],
        "volumes": [v["id"] for v in disks],
    }


def _purge(conn: Any, volume: Row, params: Mapping[str, Any], timeout: float) -> None:
    if any(a.ours for a in volumes.attachments_of(conn, volume["id"])):
        # what a dead copy of this machine left attached is taken away by attaching it; somebody else's is Busy
        with volumes.attached(conn, volume["id"], state_dir=params["state_dir"], root_helper=params.get("root_helper") or "sudo"):
            pass
    remove_volume(conn, volume["id"], timeout=timeout)
