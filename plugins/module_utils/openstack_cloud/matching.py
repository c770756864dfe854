# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of the target's servers, volumes and ports are those of one VM, and what they are like. Pure.

Tags and metadata say it. Where somebody took them away by hand, what is left says it: a volume attached to our server under
its planned name, a port of our server with its MAC, a server that boots from our volume. Nothing is taken for ours by its name alone, and no server by a
volume that is only attached to it: that may be the conversion host, which copies.
"""

from __future__ import annotations

import re
from typing import Any, Collection, Iterable, Mapping, Sequence

from ..errors import bounded
from .target import DISK, NIC, SOURCE, STATE, Row, Target, source_tag


def servers_of(volume: Row) -> list[str]:
    """Ids of the servers that a volume is attached to."""
    return [a["server_id"] for a in volume.get("attachments") or () if a.get("server_id")]


def _metadata(row: Row) -> Mapping[str, Any]:
    return row.get("metadata") or {}


def _attached(server: Row) -> list[str]:
    return [v["id"] for v in server.get("os-extended-volumes:volumes_attached") or ()]


#: The first disk of a server, by Nova's name of it.
_FIRST = re.compile(r"(/dev/)?(vd|sd|hd|xvd|ubd)a")


def _boots_from(server: Row, volumes: Sequence[Row]) -> bool:
    """Whether the server boots from one of C(volumes). A server that was made of an image has a disk of its own in front of them."""
    if server.get("image"):
        return False
    here = [a for v in volumes for a in v.get("attachments") or () if a.get("server_id") == server["id"]]
    if any(a.get("device") for a in here):
        return any(_FIRST.fullmatch(str(a.get("device") or "")) for a in here)
    return bool(here) and set(_attached(server)) <= {v["id"] for v in volumes}


class Known:
    """What of the target belongs to the VM with the instance uuid C(source)."""

    def __init__(self, target: Target, source: str) -> None:
        self._target = target
        self._source = source
        self._volumes: Sequence[Row] = target.volumes_by_source.get(source, ())
        self.servers: Sequence[Row] = target.servers_by_source.get(source, ())
        if not self.servers:
            near = dict.fromkeys(i for v in self._volumes for i in servers_of(v))
            rows = [s for i in near for s in target.servers_by_id.get(i, ())]
            self.servers = [s for s in rows if not source_tag(s) and _boots_from(s, self._volumes)]
        held = dict.fromkeys(i for s in self.servers for i in _attached(s))
        self._held = [v for i in held for v in target.volumes_by_id.get(i, ())]

    def server(self) -> Row | None:
        return self.servers[0] if self.servers else None

    def volume(self, key: str, name: str) -> Row | None:
        """The volume of the disk C(key): the one attached to the server before others, a complete one before others."""
        tagged = [v for v in self._volumes if str(_metadata(v).get(DISK)) == key]
        if tagged:
            held = {v["id"] for v in self._held}
            return sorted(tagged, key=lambda v: (v["id"] not in held, volume_state(v) != "complete", str(v.get("created_at")), v["id"]))[0]
        untagged = [v for v in self._held if not _metadata(v).get(SOURCE)]
        for v in untagged:
            if str(_metadata(v).get(DISK)) == key:
                return v
        named = [v for v in (*untagged, *self._volumes) if v.get("name") == name and not _metadata(v).get(DISK)]
        return named[0] if named else None

    def spare_volumes(self, keys: Collection[str]) -> list[str]:
        """Ids of volumes tagged as this VM's whose disk is none of C(keys)."""
        return sorted(v["id"] for v in self._volumes if _metadata(v).get(DISK) and str(_metadata(v)[DISK]) not in keys)

    def port(self, key: str, name: str, mac: str | None, server_id: str | None) -> Row | None:
        """The port of the card C(key)."""
        target = self._target
        for p in target.ports_by_tag.get(f"{SOURCE}={self._source}", ()):
            if f"{NIC}={key}" in p["tags"]:
                return p
        # openstack.cloud.port sets no tags; between it and the tagging, the description says whose port it is
        for p in target.ports_by_description.get(f"{SOURCE}={self._source} {NIC}={key}", ()):
            return p
        of_server = target.ports_by_device.get(server_id, ()) if server_id else ()
        return next((p for p in of_server if p.get("name") == name or mac and str(p.get("mac_address")).lower() == mac), None)


def volume_state(volume: Row | None) -> str:
    """absent, copying or complete. A volume whose ferry_state is gone but that a server uses was complete."""
    if volume is None:
        return "absent"
    state = _metadata(volume).get(STATE)
    if state in ("copying", "complete"):
        return str(state)
    return "complete" if servers_of(volume) else "copying"


def volume_facts(volume: Row | None) -> dict[str, Any] | None:
    if volume is None:
        return None
    return {
        "name": volume.get("name"),
        "status": volume.get("status"),
        "size_gib": volume.get("size"),
        "type": volume.get("volume_type"),
        "bootable": str(volume.get("bootable")).lower() == "true",
        "metadata": dict(_metadata(volume)),
        "image_properties": dict(volume.get("volume_image_metadata") or {}),
        "servers": servers_of(volume),
    }


def port_facts(port: Row | None) -> dict[str, Any] | None:
    if port is None:
        return None
    return {
        "name": port.get("name"),
        "network_id": port.get("network_id"),
        "mac": str(port.get("mac_address") or "").lower(),
        "tags": sorted(port.get("tags") or ()),
        "security_groups": sorted(port.get("security_groups") or ()),
        "device_id": port.get("device_id") or None,
        "status": port.get("status"),
        "addresses": [str(f.get("ip_address")) for f in port.get("fixed_ips") or ()],
    }


def server_facts(server: Row | None) -> dict[str, Any] | None:
    if server is None:
        return None
    flavor = server.get("flavor") or {}
    fault = server.get("fault") or {}
    return {
        "name": server.get("name"),
        "status": server.get("status"),
        "metadata": dict(_metadata(server)),
        "volumes": _attached(server),
        "deleted_with_server": [
            v["id"] for v in server.get("os-extended-volumes:volumes_attached") or () if v.get("delete_on_termination")
        ],
        "flavor": flavor.get("original_name"),
        "cpus": flavor.get("vcpus"),
        "memory_mb": flavor.get("ram"),
        "fault": bounded(fault["message"]) if fault.get("message") else None,
    }


def never_ran(server: Row | None) -> bool:
    """Whether the server is one that Nova could not start for the first time: it may be made anew, there is nothing in it.

    Its volumes and ports were there before it and stay.
    """
    return server is not None and server.get("status") == "ERROR" and not server.get("OS-SRV-USG:launched_at")


def empty_in_error(volume: Row) -> bool:
    """Whether Cinder could not make the volume: nothing was ever written to it, so it may be made anew."""
    written = {"ferry_digest", "ferry_pass", "ferry_ledger", "ferry_change_id"} & set(_metadata(volume))
    return volume.get("status") == "error" and volume_state(volume) == "copying" and not written and not servers_of(volume)


def volume_problem(volume: Row | None, wanted: Mapping[str, Any], server_id: str | None) -> str | None:
    """Why a volume that is there cannot be used; None when it can."""
    if volume is None:
        return None
    status = str(volume.get("status"))
    if status.startswith("error"):
        return f"volume {volume['id']} of disk {bounded(wanted['label'], 60)} has the status {status}; delete it and run again"
    foreign = [s for s in servers_of(volume) if s != server_id]
    if foreign:
        return f"volume {volume['id']} of disk {bounded(wanted['label'], 60)} is attached to the server {foreign[0]}, which is not ours"
    return None


def port_problem(port: Row | None, wanted: Mapping[str, Any], server_id: str | None) -> str | None:
    """Why a port that is there cannot be used; None when it can."""
    if port is None:
        return None
    if port.get("network_id") != wanted["network_id"]:
        return f"port {port['id']} ({bounded(wanted['name'], 80)}) is on another network than {bounded(wanted['network'], 80)}; delete it and run again"
    device, owner = port.get("device_id"), bounded(port.get("device_owner"), 60)
    if device and device != server_id:
        return f"port {port['id']} ({bounded(wanted['name'], 80)}) is in use by {owner} {bounded(device, 60)}, which is not ours"
    return None


def differing(wanted: Mapping[str, Any], found: Mapping[str, Any], *, managed: Iterable[str] = ()) -> dict[str, tuple[Any, Any]]:
    """{key: (is, should)} of the keys that differ; of C(managed) keys also those that are there and should not be (should: None)."""
    rows: dict[str, tuple[Any, Any]] = {k: (found.get(k), v) for k, v in wanted.items() if found.get(k) != v}
    rows.update({k: (found[k], None) for k in managed if k in found and k not in wanted})
    return rows
