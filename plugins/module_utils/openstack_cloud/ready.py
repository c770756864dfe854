# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is a server ready: ACTIVE, its disks in their order, and then what the user names, a port that answers or ssh.

ACTIVE only says that Nova has started it. What the user runs says whether it lives: so the checks go to the guest's own address,
from the machine that this runs on.
"""

from __future__ import annotations

import contextlib
import math
import re
import socket
import time
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

from ..errors import BadInput, ServerError, bounded
from .client import call, get
from .volumes import volume_id_of as uuid_of

STEP = "wait for the server"
#: Servers with the fault and the addresses; devices of volumes come from another request.
PASSING = ("BUILD", "REBUILD", "REBOOT", "HARD_REBOOT", "UNKNOWN")
PAUSE = 1.0
#: Seconds for one connection.
CONNECT = 5.0
SSH_PORT = 22
KINDS = ("port", "ssh")
#: Seconds in which an SSH server says what it is, however slowly its bytes come.
_GREETING = 20.0
#: Lines of the serial console in an error.
_CONSOLE = 8
_KEYS = frozenset(("kind", "port", "address", "network", "family", "timeout"))

Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Probe:
    """One check. C(address) None: the server's own, on C(network) where that is given. C(timeout): seconds, None as the others."""

    kind: str
    port: int
    address: str | None = None
    network: str | None = None
    family: int = 4
    timeout: float | None = None


def parse(data: Sequence[Any]) -> list[Probe]:
    """The checks in C(data): mappings with C(kind), C(port), C(address), C(network), C(family) (4 or 6), C(timeout) in seconds.

    :raises BadInput: lists everything that is wrong.
    """
    problems = []
    found = []
    for number, row in enumerate(data, 1):
        where = f"check {number}"
        unknown = sorted(str(k) for k in set(row) - _KEYS)
        if unknown:
            problems.append(f"{where}: not known: {bounded(', '.join(unknown), 100)}")
        kind = str(row.get("kind") or "port")
        if kind not in KINDS:
            problems.append(f"{where}: kind is {' or '.join(KINDS)}, not {bounded(kind, 40)}")
            continue
        port = row.get("port", SSH_PORT if kind == "ssh" else None)
        if not str(port).isdecimal() or not 0 < int(str(port)) < 65536:
            problems.append(f"{where}: port is a number from 1 to 65535")
            continue
        if str(row.get("family", 4)) not in ("4", "6"):
            problems.append(f"{where}: family is 4 or 6")
            continue
        timeout = row.get("timeout")
        if timeout is not None and not _seconds(timeout):
            problems.append(f"{where}: timeout is a number of seconds")
            continue
        found.append(
            Probe(
                kind,
                int(str(port)),
                str(row["address"]) if row.get("address") else None,
                str(row["network"]) if row.get("network") else None,
                int(str(row.get("family", 4))),
                float(timeout) if timeout is not None else None,
            )
        )
    if problems:
        raise BadInput(f"The checks cannot be used: {'; '.join(problems)}.", code="checks", step="read the checks")
    return found


def _seconds(value: Any) -> bool:
    try:
        return 0 <= float(value) < math.inf
    except (TypeError, ValueError):
        return False


def wait(
    conn: Any, server: str, checks: Sequence[Any], *, volumes: Sequence[str] = (), timeout: float, sleep: Sleep = time.sleep
) -> dict[str, Any]:
    """Wait until the server is ACTIVE and every check holds.

    :param server: its id.
    :param volumes: ids of its volumes, in the order in which the guest expects them.
    :param timeout: seconds for it to become ACTIVE, and again for each check that says nothing else.
    :returns: C(server) (id, name, status), C(devices) (volume id to device), C(order_kept), C(checks) (each with address, seconds).
    :raises ServerError: codes C(server_error), C(timeout), C(not_ready).
    """
    probes = parse(checks)
    row = _active(conn, uuid_of(server), timeout, sleep)
    devices = devices_of(conn, row["id"]) if volumes else {}
    done = []
    for probe in probes:
        address = probe.address or address_of(row, probe)
        began = time.monotonic()
        _until(probe, address, row, conn, timeout if probe.timeout is None else probe.timeout, sleep)
        done.append({"kind": probe.kind, "address": address, "port": probe.port, "seconds": round(time.monotonic() - began, 1)})
    return {
        "server": {"id": row["id"], "name": row.get("name"), "status": row.get("status")},
        "devices": devices,
        "order_kept": in_order(devices, volumes),
        "checks": done,
    }


def _active(conn: Any, server: str, timeout: float, sleep: Sleep) -> dict[str, Any]:
    end = time.monotonic() + timeout
    while True:
        row: dict[str, Any] = get(conn, "compute", f"/servers/{server}", step=STEP)["server"]
        status = str(row.get("status"))
        if status == "ACTIVE":
            return row
        name = bounded(row.get("name"), 80)
        if status == "ERROR":
            raise ServerError(
                f"The server {name} has the status ERROR.",
                code="server_error",
                step=STEP,
                said=(row.get("fault") or {}).get("message"),
                left=f"server {row['id']}; its volumes and ports stay. One that never ran is made anew by the next run",
            )
        if status not in PASSING:
            raise ServerError(
                f"The server {name} has the status {bounded(status, 40)}; it will not become ACTIVE by waiting.",
                code="not_ready",
                step=STEP,
                next_command="Start it, or run the migration again, which does.",
            )
        if time.monotonic() > end:
            raise ServerError(f"The server {name} still has the status {status} after {timeout:.0f} s.", code="timeout", step=STEP)
        sleep(PAUSE)


def address_of(row: Mapping[str, Any], probe: Probe) -> str:
    """The server's address for the probe: a floating one before a fixed one, on the first network in Nova's order.

    :raises BadInput: it has none.
    """
    networks = row.get("addresses") or {}
    if probe.network is not None and probe.network not in networks:
        raise BadInput(
            f"The server {bounded(row.get('name'), 80)} is not on the network {bounded(probe.network, 80)}.",
            step=STEP,
            said=f"it is on {', '.join(sorted(networks)) or 'none'}",
        )
    rows = [a for name, some in networks.items() if probe.network in (None, name) for a in some if a.get("version") == probe.family]
    rows.sort(key=lambda a: a.get("OS-EXT-IPS:type") != "floating")
    if not rows:
        raise BadInput(
            f"The server {bounded(row.get('name'), 80)} has no IPv{probe.family} address to be asked at.",
            step=STEP,
            next_command="Give the check an address.",
        )
    return str(rows[0]["addr"])


def _until(probe: Probe, address: str, row: Mapping[str, Any], conn: Any, timeout: float, sleep: Sleep) -> None:
    end = time.monotonic() + timeout
    while True:
        said = ask(probe, address)
        if said is None:
            return
        if time.monotonic() > end:
            console = _console(conn, str(row["id"]))
            raise ServerError(
                f"The server {bounded(row.get('name'), 80)} does not answer to {probe.kind} at {address} port {probe.port} after {timeout:.0f} s.",
                code="not_ready",
                step=STEP,
                said=said + (f"; the end of its console: {console}" if console else ""),
                left=f"server {row['id']}, ACTIVE, with its volumes and ports; the source is off",
                next_command="Look at its console; run again to wait again, or roll back.",
            )
        sleep(PAUSE)


def ask(probe: Probe, address: str) -> str | None:
    """Ask once: None where it answers as it should, else what happened."""
    try:
        with socket.create_connection((address, probe.port), timeout=CONNECT) as link:
            if probe.kind == "port":
                return None
            link.settimeout(CONNECT)
            return _greeting(link)
    except OSError as e:
        return bounded(e.strerror or e, 120) if e.args else type(e).__name__
    except UnicodeError as e:
        return f"{bounded(address, 80)} is no address: {bounded(e, 80)}"


def _greeting(link: socket.socket) -> str | None:
    """None where the other side greets as an SSH server (RFC 4253, section 4.2: lines may come before the version)."""
    seen = b""
    end = time.monotonic() + _GREETING
    while len(seen) < 8192 and time.monotonic() < end:
        block = link.recv(1024)
        if not block:
            break
        seen += block
        if any(line.startswith((b"SSH-2.0-", b"SSH-1.99-")) for line in seen.split(b"\n")[:-1]):
            return None
    return f"it is no SSH server: {bounded(seen[:80], 80) or 'it says nothing'}"


def _console(conn: Any, server: str) -> str:
    """The last lines of the server's serial console, where Nova has them; the end of a boot that stuck says why."""
    body = {"os-getConsoleOutput": {"length": _CONSOLE}}
    with contextlib.suppress(ServerError, ValueError):
        answer = call(conn, "compute", "POST", f"/servers/{server}/action", step="read the console", body=body)
        text = answer.json().get("output")
        return bounded(" / ".join(line.strip() for line in str(text or "").splitlines()[-_CONSOLE:] if line.strip()), 300)
    return ""


def devices_of(conn: Any, server: str) -> dict[str, str]:
    """{volume id: device name} as Nova gave them."""
    rows = get(conn, "compute", f"/servers/{server}/os-volume_attachments", step="read the server's volumes")["volumeAttachments"]
    return {str(r["volumeId"]): str(r.get("device") or "") for r in rows}


def in_order(devices: Mapping[str, str], volumes: Sequence[str]) -> bool:
    """Whether the devices are in the order of the volumes; sdb is before sdaa."""
    names = [re.sub(r"^/dev/", "", devices.get(v, "")) for v in volumes]
    return all(names) and names == sorted(names, key=lambda n: (len(n), n))
