# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stopping servers, and removing servers, ports, networks, volumes and snapshots with their end waited for. What is gone is no error."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ..errors import ServerError, bounded
from . import volumes
from .client import call, get
from .matching import never_ran
from .target import GROUPS, SERVERS
from .waiting import wait_for

#: Seconds that each thing has to stop or to go.
TIMEOUT = 300.0
#: Statuses of a server whose guest does not run and does not answer to any address.
AT_REST = ("SHUTOFF", "SHELVED", "SHELVED_OFFLOADED", "DELETED", "SOFT_DELETED")

Row = Mapping[str, Any]


def _again(conn: Any, service: str, path: str, key: str, step: str, **kwargs: Any) -> dict[str, Any] | None:
    """The thing as it is now, None where it is gone."""
    response = call(conn, service, "GET", path, step=step, allow=(404,), **kwargs)
    if response.status_code == 404:
        return None
    found: dict[str, Any] = response.json()[key]
    return found


def server_now(conn: Any, server_id: str) -> dict[str, Any] | None:
    """The server, None where it is gone."""
    return _again(conn, "compute", f"/servers/{server_id}", "server", "read the server", microversion=SERVERS)


def rests(server: Row) -> bool:
    """Whether its guest does not run. Pure."""
    return server.get("status") in AT_REST or never_ran(server)


def stop_server(conn: Any, server_id: str, *, timeout: float = TIMEOUT) -> None:
    """Stop the server and wait until its guest does not run.

    :param timeout: seconds.
    :raises ServerError: code timeout, or not_stoppable (it is paused, suspended, being rescued ...).
    """
    step = "stop the server"
    last: dict[str, Any] = {}

    def rested() -> bool | None:
        server = server_now(conn, server_id)
        if server is None or rests(server):
            return True
        status, task = str(server.get("status")), server.get("OS-EXT-STS:task_state")
        last.update(status=status, task=task)
        if status in ("ACTIVE", "ERROR") and not task:
            call(conn, "compute", "POST", f"/servers/{server_id}/action", step=step, body={"os-stop": None}, allow=(409,))
        elif not task and status not in ("BUILD", "REBUILD", "REBOOT", "HARD_REBOOT"):
            raise ServerError(
                f"The server {server_id} has the status {bounded(status, 40)}, from which Nova stops no server.",
                code="not_stoppable",
                step=step,
                next_command="bring it into the status ACTIVE or SHUTOFF, or let it be removed (rollback_target=removed)",
            )
        return None

    def late() -> ServerError:
        return ServerError(
            f"The server {server_id} has not stopped within {timeout:.0f} s.",
            code="timeout",
            step=step,
            said=f"status {last['status']}, task {last['task']}",
            next_command="run it again, or let it be removed (rollback_target=removed)",
        )

    wait_for(rested, timeout, late)


def remove_server(conn: Any, server_id: str, *, timeout: float = TIMEOUT) -> None:
    """Delete the server and wait until it is gone. Its ports and volumes were there before it and stay."""
    step = "remove the server"
    call(conn, "compute", "DELETE", f"/servers/{server_id}", step=step, allow=(404, 409))
    _gone(lambda: server_now(conn, server_id), f"The server {server_id}", step, timeout)


def remove_server_group(conn: Any, group_id: str) -> None:
    """Delete a server group that has no members. It is read once more, since Nova also deletes one that has.

    :raises ServerError: code in_use.
    """
    step = "remove the server group"
    path = f"/os-server-groups/{group_id}"
    group = _again(conn, "compute", path, "server_group", step, microversion=GROUPS)
    if group is None:
        return
    if group.get("members"):
        raise ServerError(f"The server group {bounded(group.get('name'), 80)} has members by now.", code="in_use", step=step)
    call(conn, "compute", "DELETE", path, step=step, allow=(404,))


def remove_port(conn: Any, port_id: str) -> None:
    call(conn, "network", "DELETE", f"/ports/{port_id}", step="remove the port", allow=(404,))


def remove_network(conn: Any, network_id: str, *, timeout: float = TIMEOUT) -> None:
    """Delete a network of ours. Neutron takes the ports of its own services along, but refuses while a server's is going."""
    step = "remove the network"

    def removed() -> bool | None:
        return call(conn, "network", "DELETE", f"/networks/{network_id}", step=step, allow=(404, 409)).status_code != 409 or None

    wait_for(
        removed, timeout, lambda: ServerError(f"The network {network_id} is still in use after {timeout:.0f} s.", code="timeout", step=step)
    )


def remove_volume(conn: Any, volume_id: str, *, timeout: float = TIMEOUT) -> None:
    """Delete a volume and wait until it is gone."""
    step = "remove the volume"
    path = f"/volumes/{volumes.volume_id_of(volume_id)}"

    def now() -> dict[str, Any] | None:
        return _again(conn, "block_storage", path, "volume", step)

    able = ("available", "error", "error_restoring", "error_extending", "error_managing")
    _settled(now, able, f"The volume {volume_id}", step, timeout, lambda row: _insist_leaving(conn, row, step))
    call(conn, "block_storage", "DELETE", path, step=step, allow=(404,))
    _gone(now, f"The volume {volume_id}", step, timeout)


def remove_snapshot(conn: Any, snapshot_id: str, *, timeout: float = TIMEOUT) -> None:
    """Delete a volume's snapshot and wait until it is gone."""
    step = "remove the volume's snapshot"
    path = f"/snapshots/{volumes.volume_id_of(snapshot_id)}"

    def now() -> dict[str, Any] | None:
        return _again(conn, "block_storage", path, "snapshot", step)

    _settled(now, ("available", "error"), f"The snapshot {snapshot_id}", step, timeout)
    call(conn, "block_storage", "DELETE", path, step=step, allow=(404,))
    _gone(now, f"The snapshot {snapshot_id}", step, timeout)


def _insist_leaving(conn: Any, volume: Row, step: str) -> None:
    """A volume that is attached gets free only where what has it is going.

    :raises ServerError: code in_use, with who has it.
    """
    if volume.get("status") != "in-use":
        return
    holders = volumes.attachments_of(conn, str(volume["id"]))
    staying = []
    for holder in holders:
        server = server_now(conn, holder.server) if holder.server else None
        leaving = holder.server and (server is None or server.get("OS-EXT-STS:task_state") == "deleting")
        if not leaving and holder.status == "attached":
            staying.append(holder.holder)
    if staying or not holders:
        who = bounded(", ".join(staying), 200) or "nobody that Cinder tells"
        raise ServerError(
            f"The volume {volume['id']} is attached to {who}.",
            code="in_use",
            step=step,
            next_command="detach it, or let its holder end, and run it again",
        )


def _settled(
    now: Callable[[], Row | None],
    wanted: tuple[str, ...],
    what: str,
    step: str,
    timeout: float,
    look: Callable[[Row], None] = lambda row: None,
) -> None:
    """Wait until the thing has a status in which it can be deleted, or is gone.

    :param look: is shown the thing that is in another status, and raises where it will not come out of it.
    """
    last: list[Any] = [None]

    def settled() -> bool | None:
        row = now()
        if row is None or row.get("status") in (*wanted, "deleting"):
            return True
        last[0] = row.get("status")
        look(row)
        return None

    wait_for(settled, timeout, lambda: ServerError(f"{what} still has the status {bounded(last[0], 40)}.", code="timeout", step=step))


def _gone(now: Callable[[], Row | None], what: str, step: str, timeout: float) -> None:
    last: list[Any] = [None]

    def gone() -> bool | None:
        row = now()
        if row is None:
            return True
        last[0] = row.get("status")
        if str(last[0]).lower() == "error_deleting":
            raise ServerError(f"{what} could not be deleted: it has the status error_deleting.", code="not_deleted", step=step)
        return None

    wait_for(gone, timeout, lambda: ServerError(f"{what} is still there after {timeout:.0f} s.", code="timeout", step=step, said=last[0]))


def wait_server(conn: Any, server_id: str, *, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Wait until the server is ACTIVE.

    :raises ServerError: code server_error with Nova's reason, gone, timeout.
    """
    step = "wait for the server"
    last: list[Any] = [None]

    def active() -> dict[str, Any] | None:
        server = server_now(conn, server_id)
        if server is None:
            raise ServerError(f"The server {server_id} is gone.", code="gone", step=step)
        last[0] = server.get("status")
        if last[0] == "ERROR":
            said = (server.get("fault") or {}).get("message")
            raise ServerError(f"Nova could not start the server {server_id}.", code="server_error", step=step, said=said)
        return server if last[0] == "ACTIVE" else None

    return wait_for(
        active,
        timeout,
        lambda: ServerError(f"The server {server_id} is not ACTIVE after {timeout:.0f} s.", code="timeout", step=step, said=last[0]),
    )


def network_of(conn: Any, wanted: str) -> dict[str, Any]:
    """The one network with this id or name.

    :raises ServerError: none or several.
    """
    step = "find the network"
    for query in ({"id": wanted}, {"name": wanted}):
        rows = get(conn, "network", "/networks", step=step, params=query)["networks"]
        if len(rows) == 1:
            found: dict[str, Any] = rows[0]
            return found
        if rows:
            raise ServerError(f"{len(rows)} networks are named {bounded(wanted, 80)}; give the id.", code="bad_input", step=step)
    raise ServerError(f"There is no network {bounded(wanted, 80)}.", code="bad_input", step=step)
