# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The work of the modules landing_plan, server_ports and volume_image_properties: parameters in, result out."""

from __future__ import annotations

from typing import Any, Mapping

from ..errors import BadInput
from . import ports, volumes
from .client import connect
from .compare import MANAGED
from .matching import differing
from .plan import PER_VM, Options, plan, wanted_names
from .target import read_target

#: Errors written out in the message of a failed plan; all of them are in its result.
SHOWN = 20


def plan_wave(params: Mapping[str, Any]) -> dict[str, Any]:
    """Read the target and plan the landing of C(vms). Changes nothing.

    :raises BadInput: there are errors and C(fail) is set; its C(partial) has the whole plan.
    """
    options = Options(**{k: params[k] for k in PER_VM if params.get(k) is not None})
    vms = params["vms"]
    networks, port_names = wanted_names(vms, options)
    sources = {str(vm["instance_uuid"]).lower() for vm in vms if vm.get("instance_uuid")}
    zone = bool(options.availability_zone) or any((vm.get("options") or {}).get("availability_zone") for vm in vms)
    target = read_target(connect(params), sources=sources, networks=networks, port_names=port_names, zone=zone)
    result: dict[str, Any] = {"changed": False, **plan(vms, target, options)}
    if result["errors"] and params.get("fail", True):
        lines = [e["text"] for e in result["errors"]]
        more = f" … and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        error = BadInput(
            f"The wave cannot land as planned; {len(lines)} errors, nothing was changed.",
            code="plan",
            step="plan the landing",
            errors=result["errors"],
        )
        error.partial = {**result, "summary": "; ".join(lines[:SHOWN]) + more}
        error.message = error.message[:-1] + ": " + "; ".join(lines[:SHOWN]) + more
        raise error
    return result


def ensure_ports(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Ports as they should be, see ports.ensure()."""
    result = ports.ensure(connect(params), params.get("server"), params["ports"], check=check)
    before, after = result.pop("before"), result.pop("after")
    return {**result, "diff": {"before": before, "after": after}}


def ensure_volume(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Name, bootable flag, metadata and image properties of one volume."""
    conn = connect(params)
    found = volumes.get_volume(conn, params["volume"])
    has_metadata, has_properties = found.get("metadata") or {}, found.get("volume_image_metadata") or {}
    metadata = differing({str(k): str(v) for k, v in (params.get("metadata") or {}).items()}, has_metadata)
    managed = MANAGED if params.get("exclusive") else ()
    wanted = {str(k): str(v) for k, v in (params.get("properties") or {}).items()}
    properties = differing(wanted, has_properties, managed=managed)
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name, rows in (("metadata", metadata), ("image_properties", properties)):
        if rows:
            before[name] = {k: is_ for k, (is_, should) in rows.items()}
            after[name] = {k: should for k, (is_, should) in rows.items()}
    bootable = str(found.get("bootable")).lower() == "true"
    if params.get("bootable") is not None and params["bootable"] != bootable:
        before["bootable"], after["bootable"] = bootable, params["bootable"]
    if params.get("name") is not None and params["name"] != found.get("name"):
        before["name"], after["name"] = found.get("name"), params["name"]
    if after and not check:
        _set_volume(conn, found["id"], after)
        found = volumes.get_volume(conn, found["id"])
    shown = {k: found.get(k) for k in ("id", "name", "status", "size", "volume_type", "metadata")}
    shown["bootable"] = str(found.get("bootable")).lower() == "true"
    shown["image_properties"] = found.get("volume_image_metadata") or {}
    return {"changed": bool(after), "volume": shown, "diff": {"before": before, "after": after}}


def _set_volume(conn: Any, volume_id: str, after: Mapping[str, Any]) -> None:
    if "name" in after:
        volumes.rename(conn, volume_id, after["name"])
    if "bootable" in after:
        volumes.set_bootable(conn, volume_id, after["bootable"])
    for name, setter in (("metadata", volumes.set_metadata), ("image_properties", volumes.set_image_metadata)):
        if name in after:
            values = after[name]
            gone = tuple(k for k, v in values.items() if v is None)
            setter(conn, volume_id, {k: v for k, v in values.items() if v is not None}, unset=gone)
