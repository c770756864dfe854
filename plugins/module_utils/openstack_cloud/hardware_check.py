# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which servers do not have the hardware of their source: the work of server_bus_check. It changes nothing."""

from __future__ import annotations

from typing import Any, Iterable, Mapping

from ..errors import BadInput, bounded
from . import hardware, properties
from .client import connect, get, listing
from .target import ROLE, SCOPE, SERVERS, SOURCE, Row

#: Servers with the properties that they were made with (Nova, 2024.2 and later), and for older clouds the one before it.
_PROPERTIES = ("2.98", SERVERS)


def run(params: Mapping[str, Any]) -> dict[str, Any]:
    """See the module for parameters and results.

    :raises BadInput: a server that is named is not there, or with C(fail) one differs; code C(hardware), with the whole result.
    """
    conn = connect(params)
    domains = dict(hardware.of_domain(text) for text in params.get("domains") or ())
    facts = {str(vm.get("instance_uuid") or "").lower(): vm for vm in params.get("vms") or ()}
    facts.pop("", None)
    rows = [_checked(conn, server, facts, domains, params) for server in servers(conn, params.get("servers"))]
    wrong = [row["name"] for row in rows if not row["ok"]]
    result = {"changed": False, "servers": rows, "wrong": wrong, "missing": _missing(rows, facts)}
    if wrong and params.get("fail"):
        error = BadInput(
            f"{len(wrong)} of {len(rows)} servers do not have the hardware of their source: {', '.join(bounded(w, 60) for w in wrong[:10])}.",
            code="hardware",
            step="compare the servers' hardware",
            next_command="See servers[].differs and servers[].next.",
        )
        error.partial = result
        raise error
    return result


def servers(conn: Any, wanted: Iterable[str] | None, *, missing: bool = False) -> list[Row]:
    """The servers that were asked for, or all that were made for a migrated VM.

    :param missing: leave one out that is not there, instead of an error.
    """
    step = "read the servers"
    rows: list[Row] = list(listing(conn, "compute", "/servers/detail", "servers", step=step, microversion=_microversion(conn)))
    if wanted is None:
        return sorted((r for r in rows if (r.get("metadata") or {}).get(SOURCE)), key=lambda r: (str(r["name"]), r["id"]))
    found = []
    for name in wanted:
        some = [r for r in rows if r["id"] == name] or [r for r in rows if r["name"] == name]
        if len(some) != 1 and not (missing and not some):
            text = f"there are {len(some)} of this name; give the id" if some else "there is none"
            raise BadInput(f"Server {bounded(name, 80)}: {text}.", step=step)
        found += some
    return found


def _microversion(conn: Any) -> str:
    """The newest of _PROPERTIES that this Nova has."""
    new, old = _PROPERTIES
    known = get(conn, "compute", "/", step="read Nova's version").get("version") or {}
    return new if _number(str(known.get("version") or "")) >= _number(new) else old


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _missing(rows: Iterable[Mapping[str, Any]], facts: Mapping[str, Any]) -> list[str]:
    """Names of the VMs whose facts were given, and that no server was made for."""
    there = {row["source"] for row in rows}
    return sorted(str(vm.get("name") or source) for source, vm in facts.items() if source not in there)


def _checked(conn: Any, server: Row, facts: Mapping[str, Any], domains: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    metadata = server.get("metadata") or {}
    source = str(metadata.get(SOURCE) or "").lower() or None
    disks = attached(conn, server["id"])
    has, where, root = made_with(conn, server, disks)
    vm = facts.get(source or "")
    wanted = _wanted(vm, params) if vm else hardware.of_properties(has or {})
    differs = hardware.differences(
        wanted,
        properties=has if vm else None,
        devices=disks if params.get("device_names") else None,
        domain=domains.get(server["id"]),
    )
    return {
        "id": server["id"],
        "name": server["name"],
        "status": server["status"],
        "source": source,
        "vm": metadata.get(SCOPE),
        "root_volume": root,
        "expected": wanted,
        "expected_from": "vm" if vm else where,
        "properties": {k: v for k, v in (has or {}).items() if k in properties.HARDWARE},
        "disks": [{"volume": volume, "device": device} for volume, device in sorted(disks.items(), key=lambda a: a[1])],
        "domain": domains.get(server["id"]),
        "differs": differs,
        "ok": not differs and bool(wanted),
        "next": _next(differs, wanted),
    }


def attached(conn: Any, server_id: str) -> dict[str, str]:
    """The server's volumes, each with the name that it is attached under."""
    rows = get(conn, "compute", f"/servers/{server_id}/os-volume_attachments", step="read the server's disks")["volumeAttachments"]
    return {str(row["volumeId"]): str(row.get("device") or "") for row in rows}


def _root(conn: Any, disks: Mapping[str, str]) -> Row | None:
    """The volume that the server boots from: the one marked so, else the bootable one attached first."""
    rows = [get(conn, "block_storage", f"/volumes/{volume}", step="read the volume")["volume"] for volume in disks]
    able = [v for v in rows if str(v.get("bootable")).lower() == "true"] or rows[: len(rows) == 1]
    return min(able, key=lambda v: ((v.get("metadata") or {}).get(ROLE) != "root", disks[v["id"]]), default=None)


def made_with(conn: Any, server: Row, disks: Mapping[str, str] | None = None) -> tuple[Mapping[str, Any] | None, str, str | None]:
    """(the properties that decide the server's hardware, where they stand, ID of the volume that it boots from)."""
    image = server.get("image")
    if isinstance(image, dict) and image.get("id"):
        if isinstance(image.get("properties"), dict):
            return image["properties"], "server", None
        return get(conn, "image", f"/images/{image['id']}", step="read the image", allow=(404,)), "image", None
    root = _root(conn, attached(conn, server["id"]) if disks is None else disks)
    return (root.get("volume_image_metadata") or {}, "volume", str(root["id"])) if root else (None, "nothing", None)


def _wanted(vm: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
    """The hardware that the server of this VM should have; what the conversion of its guest says wins over its source."""
    disks = list(vm.get("disks") or ())
    boots = [d for key in vm.get("boot_disks") or () for d in disks if str(d.get("key")) == str(key)]
    disk = (boots or disks or [{}])[0]
    own = params.get("properties")
    found = properties.for_vm(vm, disk, hypervisor=params["hypervisor"], hardware=params["hardware"], own=own)
    wanted = hardware.of_properties(found)
    if isinstance(vm.get("target"), Mapping):
        needs = hardware.of_conversion(vm["target"])
        if "disk_bus" in needs:
            wanted.pop("scsi_model", None)
        wanted.update(needs)
    return wanted


def _next(differs: list[dict[str, Any]], wanted: Mapping[str, str]) -> str | None:
    if not wanted:
        return "Nothing says what it should have: give the VM's facts in vms, or set the properties (ferry.vmware.volume_image_properties)."
    if any(row["where"] != "properties" for row in differs):
        return (
            "Nova keeps the properties that a server was made with: set those of its volume (ferry.vmware.volume_image_properties), "
            "delete the server, and make it anew from its volumes and ports."
        )
    if differs:
        return "Set the properties of its volume (ferry.vmware.volume_image_properties) and look at the running server again."
    return None
