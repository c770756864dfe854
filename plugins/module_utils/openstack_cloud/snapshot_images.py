# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images made from a server get the hardware properties of what the server boots from: the work of snapshot_image_properties.

How an image is known to be of a server: Nova writes C(instance_uuid) where the server has a disk of its own, and where it
boots from a volume C(block_device_mapping), a JSON list that names the volume's snapshot (nova/compute/api.py,
snapshot_volume_backed).
"""

from __future__ import annotations

import json
from typing import Any, Mapping

from ..errors import BadInput, ServerError, bounded
from . import hardware_check, images, properties
from .client import connect, get, listing
from .matching import differing

#: What an image says of the guest beside its hardware.
_GUEST = ("os_type", "os_distro", "os_version")
#: Characters of block_device_mapping that are read at most.
_MAX_MAPPING = 1 << 16


def run(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """See the module for parameters and results."""
    conn = connect(params)
    own = {str(k): str(v) for k, v in (params.get("properties") or {}).items()}
    found = _images(conn, params)
    rows = [_image(conn, image, params, own, check) for image in found]
    before = {row["id"]: row.pop("before") for row in rows}
    after = {row["id"]: row.pop("after") for row in rows}
    return {
        "changed": any(row["changed"] for row in rows),
        "images": rows,
        "diff": {"before": {k: v for k, v in before.items() if v}, "after": {k: v for k, v in after.items() if v}},
    }


def _images(conn: Any, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The image that was named, or all of the server's."""
    step = "find the image"
    if params.get("image"):
        found = images.find(conn, params["image"])
        if len(found) != 1:
            text = f"there are {len(found)} images of this name: {', '.join(i['id'] for i in found)}" if found else "there is no such image"
            raise BadInput(f"Image {bounded(params['image'], 80)}: {text}.", step=step, next_command="Give its id.")
        return found
    server = hardware_check.servers(conn, [params["server"]])[0]
    own = listing(conn, "image", "/images", "images", step=step, params={"owner": conn.current_project_id})
    return [i for i in own if _server_id(i) == server["id"] or _volume_of(conn, i) in hardware_check.attached(conn, server["id"])]


def _server_id(image: Mapping[str, Any]) -> str | None:
    return str(image["instance_uuid"]) if image.get("instance_uuid") else None


def _mapping(image: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The disks of an image that is a list of snapshots, the one it boots from first."""
    text = image.get("block_device_mapping")
    if not isinstance(text, str) or len(text) > _MAX_MAPPING:
        return []
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        return []
    disks = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return sorted(disks, key=lambda row: row.get("boot_index") != 0)


def _volume_of(conn: Any, image: Mapping[str, Any]) -> str | None:
    """ID of the volume whose snapshot the image boots from."""
    disks = _mapping(image)
    if not disks or not disks[0].get("snapshot_id"):
        return None
    snapshot = images.segment(str(disks[0]["snapshot_id"]))
    found = get(conn, "block_storage", f"/snapshots/{snapshot}", step="read the image's snapshot", allow=(404,)).get("snapshot")
    return str(found["volume_id"]) if found else None


def _image(conn: Any, image: dict[str, Any], params: Mapping[str, Any], own: Mapping[str, str], check: bool) -> dict[str, Any]:
    wanted, source = _source(conn, image, params)
    wanted = properties.merge(wanted, own)
    wrong = properties.faults(wanted, params["hypervisor"])
    if wrong:
        raise BadInput(f"The image's properties would not do: {'; '.join(wrong)}.", code="conflict", step="read the properties")
    if not any(key in properties.HARDWARE for key in wanted):
        raise BadInput(
            f"Nothing says which hardware a server from image {image['id']} should have.",
            code="unknown_source",
            step="find what the image was made from",
            next_command="Name the volume or the server in source_volume or server, or give properties.",
        )
    changes = differing(wanted, image, managed=properties.HARDWARE)
    if changes and not check:
        values = {key: should for key, (_is, should) in changes.items()}
        images.change(conn, image, values)
        image = images.get_image(conn, image["id"])
        left = differing(wanted, image, managed=properties.HARDWARE)
        if left:
            raise ServerError(
                f"Glance did not keep {', '.join(sorted(left))} of image {image['id']}.",
                code="not_kept",
                step="verify the image's properties",
            )
    return {
        "id": image["id"],
        "name": image.get("name"),
        "source": source,
        "properties": wanted,
        "changed": bool(changes),
        "before": {key: is_ for key, (is_, _should) in changes.items()},
        "after": {key: should for key, (_is, should) in changes.items()},
    }


def _source(conn: Any, image: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[dict[str, str], str | None]:
    """(properties that the image should have, ID of the volume or server that says so)."""
    volume = params.get("source_volume") or _volume_of(conn, image)
    if volume:
        step = "read the volume"
        row = get(conn, "block_storage", f"/volumes/{images.segment(str(volume))}", step=step, allow=(404,)).get("volume")
        if row:
            return _of_guest(row.get("volume_image_metadata") or {}), str(row["id"])
        if params.get("source_volume"):
            raise BadInput(f"There is no volume {bounded(volume, 80)}.", step=step)
    server = params.get("server") or _server_id(image)
    if server:
        known = hardware_check.servers(conn, [server], missing=not params.get("server"))
        if known:
            has = hardware_check.made_with(conn, known[0])[0] or {}
            return _of_guest(has), str(known[0]["id"])
    return {}, None


def _of_guest(found: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(found[key]) for key in (*properties.HARDWARE, *_GUEST) if found.get(key)}
