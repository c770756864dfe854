# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is not made yet (todo) and what was altered since (drift), in one VM's entry of a plan. Pure.

Beside the two lists, which people read, every volume, port and server gets an C(changes): what a task has to set. It is empty
where nothing is to do, so that no module is called for it.
"""

from __future__ import annotations

from typing import Any

from .matching import differing
from .properties import HARDWARE

#: Image properties that are ours to remove: a controller of an earlier plan must not stay beside the new one's.
MANAGED = HARDWARE
#: Statuses of a server on its way; whoever applies the plan waits for their end.
PASSING = ("BUILD", "REBUILD", "REBOOT", "HARD_REBOOT")


def compare(entry: dict[str, Any]) -> None:
    """Fill C(todo), C(drift), C(to_copy) and each C(changes) of the entry."""
    for volume in entry["volumes"]:
        _volume(entry, volume)
    for port in entry["ports"]:
        _port(entry, port)
    _server(entry)
    entry["to_copy"] = [v["disk"] for v in entry["volumes"] if v["state"] != "complete"]
    entry["changed"] = bool(entry["todo"] or entry["drift"])


def _note(entry: dict[str, Any], where: str, kind: str, what: str, is_: Any, should: Any, **facts: Any) -> None:
    entry[where].append({"kind": kind, "what": what, "is": is_, "should": should, **facts})


def _volume(entry: dict[str, Any], volume: dict[str, Any]) -> None:
    update: dict[str, Any] = {}
    volume["changes"] = update
    found = volume["found"]
    what = f"volume {volume['name']} of {volume['label']}"
    facts = {"id": volume["id"], "disk": volume["disk"]}
    if volume["state"] != "complete":
        _note(entry, "todo", "volume", what, volume["state"], "complete", field="state", **facts)
    if found is None:
        if volume["bootable"]:
            update["bootable"] = True
        if volume["image_properties"]:
            update["image_properties"] = dict(volume["image_properties"])
        return
    # What a killed run did not get to is no drift: it is a part of what is still to do.
    altered = volume["state"] == "complete"

    def drift(field: str, is_: Any, should: Any) -> None:
        if altered:
            _note(entry, "drift", "volume", f"{what}: {field}", is_, should, field=field, **facts)

    if found["name"] != volume["name"]:
        update["name"] = volume["name"]
        drift("name", found["name"], volume["name"])
    if (found["size_gib"] or 0) < volume["size_gib"]:
        update["size_gib"] = volume["size_gib"]
        drift("size in GiB", found["size_gib"], volume["size_gib"])
    if found["bootable"] != volume["bootable"]:
        update["bootable"] = volume["bootable"]
        drift("bootable", found["bootable"], volume["bootable"])
    state = {"ferry_state": "complete"} if altered else {}
    for key, (is_, should) in differing({**volume["metadata"], **state}, found["metadata"]).items():
        update.setdefault("metadata", {})[key] = should
        drift(f"metadata {key}", is_, should)
    managed = MANAGED if volume["image_properties"] else ()
    for key, (is_, should) in differing(volume["image_properties"], found["image_properties"], managed=managed).items():
        if should is None:
            update.setdefault("unset_image_properties", []).append(key)
        else:
            update.setdefault("image_properties", {})[key] = should
        drift(f"image property {key}", is_, should)
    if volume["type"] and found["type"] != volume["type"]:
        entry["warnings"].append(f"{what} has the type {found['type']}, planned is {volume['type']}; it is left so")


def _port(entry: dict[str, Any], port: dict[str, Any]) -> None:
    update: dict[str, Any] = {}
    port["changes"] = update
    found = port["found"]
    server = entry["server"]
    what = f"port {port['name']} on {port['network']}"
    facts = {"id": port["id"], "nic": port["nic"]}
    if found is None:
        _note(entry, "todo", "port", what, "absent", "present", field="state", **facts)
        update["tags"] = port["tags"]
        return
    if found["name"] != port["name"]:
        update["name"] = port["name"]
        _note(entry, "drift", "port", f"{what}: name", found["name"], port["name"], field="name", **facts)
    if port["mac"] and found["mac"] != port["mac"]:
        update["mac_address"] = port["mac"]
        _note(entry, "drift", "port", f"{what}: MAC", found["mac"], port["mac"], field="mac_address", **facts)
    missing = [t for t in port["tags"] if t not in found["tags"]]
    if missing:
        update["tags"] = sorted({*found["tags"], *port["tags"]})
        _note(entry, "drift", "port", f"{what}: tags", found["tags"], update["tags"], field="tags", **facts)
    if port["security_groups"] is not None and sorted(port["security_groups"]) != found["security_groups"]:
        update["security_groups"] = port["security_groups"]
        _note(
            entry,
            "drift",
            "port",
            f"{what}: security groups",
            found["security_groups"],
            port["security_groups"],
            field="security_groups",
            **facts,
        )
    addresses = [f["ip_address"] for f in port["fixed_ips"] or ()]
    if addresses and sorted(addresses) != sorted(found["addresses"]):
        update["fixed_ips"] = addresses
        _note(entry, "drift", "port", f"{what}: addresses", found["addresses"], addresses, field="fixed_ips", **facts)
    if server["id"] and not server["replace"] and found["device_id"] != server["id"]:
        _note(entry, "drift", "port", f"{what}: attached to the server", found["device_id"], server["id"], field="device_id", **facts)


def _server(entry: dict[str, Any]) -> None:
    server = entry["server"]
    update: dict[str, Any] = {}
    server["changes"] = update
    found = server["found"]
    what = f"server {server['name']}"
    if found is None or server["replace"]:
        _note(entry, "todo", "server", what, server["status"], server["should"], field="status", id=server["id"])
        update["create"] = True
        return

    def drift(field: str, is_: Any, should: Any) -> None:
        _note(entry, "drift", "server", f"{what}: {field}", is_, should, field=field, id=server["id"])

    if found["name"] != server["name"]:
        update["name"] = server["name"]
        drift("name", found["name"], server["name"])
    for key, (is_, should) in differing(server["metadata"], found["metadata"]).items():
        update.setdefault("metadata", {})[key] = should
        drift(f"metadata {key}", is_, should)
    if found["status"] == "ERROR":
        entry["errors"].append(f"its server {server['id']} has the status ERROR: {found['fault'] or 'no reason given'}")
    elif found["status"] in PASSING:
        _note(entry, "todo", "server", what, found["status"], server["should"], field="status", id=server["id"])
        update["wait"] = True
    elif found["status"] != server["should"]:
        update["power"] = "start" if server["should"] == "ACTIVE" else "stop"
        drift("power", found["status"], server["should"])
    missing = [v for v in entry["volumes"] if not v["id"] or v["id"] not in found["volumes"]]
    if any(v["role"] == "root" for v in missing):
        entry["errors"].append(f"its server {server['id']} does not have the volume that it should boot from")
    elif missing:
        update["attach_volumes"] = [v["disk"] for v in missing]
        drift("volumes", [v["disk"] for v in entry["volumes"] if v not in missing], [v["disk"] for v in entry["volumes"]])
    if any(p["changes"] or not p["found"] or p["found"]["device_id"] != server["id"] for p in entry["ports"]):
        update["ports"] = True
    kept = {v["id"] for v in entry["volumes"]}
    for volume in found["deleted_with_server"]:
        if volume in kept:
            entry["warnings"].append(f"volume {volume} would be deleted together with its server")
    flavor = entry["flavor"]
    if flavor:
        needed = (flavor["cpus"] - flavor["surplus_cpus"], flavor["memory_mb"] - flavor["surplus_memory_mb"])
        if found["flavor"] and ((found["cpus"] or 0) < needed[0] or (found["memory_mb"] or 0) < needed[1]):
            entry["warnings"].append(f"its server has the flavor {found['flavor']}, which is smaller than the VM; it is left so")
