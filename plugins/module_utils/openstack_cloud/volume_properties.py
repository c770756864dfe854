# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Name, bootable flag, metadata and image properties of one volume: the work of volume_image_properties."""

from __future__ import annotations

from typing import Any, Mapping

from ..errors import BadInput, ServerError, bounded
from . import images, properties, storage, volumes
from .client import call, connect
from .matching import differing

#: What a volume takes over from its image: its hardware, and its guest.
_OF_IMAGE = (*properties.HARDWARE, "os_type", "os_distro", "os_version", "vmware_disktype")


def run(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """See the module for parameters and results.

    :raises BadInput: code C(wrong_type), where it is not what C(expect) says; nothing is changed then.
    :raises ServerError: code C(not_kept), where the volume read back is not as it was set.
    """
    conn = connect(params)
    found = volumes.get_volume(conn, params["volume"])
    unmet = storage.unmet(found, params.get("expect") or {})
    if unmet:
        raise BadInput(
            f"The volume is not what it has to be: {'; '.join(unmet)}.",
            code="wrong_type",
            step="verify the volume's type",
            volume=found["id"],
            left=f"volume {found['id']}, empty",
            next_command="Map the disk to another volume type (ferry_storage_map), remove the volume, and run again.",
        )
    own = {str(k): str(v) for k, v in (params.get("properties") or {}).items()}
    wanted = properties.merge(_of_image(conn, params["image"]), own) if params.get("image") else own
    before, after = _differences(found, params, wanted)
    if after and not check:
        _set(conn, found["id"], after)
        found = volumes.get_volume(conn, found["id"])
        left = _differences(found, params, wanted)[1]
        if left:
            raise ServerError(
                f"Cinder did not keep what was set on the volume: {', '.join(sorted(left))}.",
                code="not_kept",
                step="verify the volume's properties",
                volume=found["id"],
                should=left,
            )
    shown = {k: found.get(k) for k in ("id", "name", "status", "size", "volume_type", "metadata")}
    shown["bootable"] = str(found.get("bootable")).lower() == "true"
    for name in ("encrypted", "multiattach"):
        shown[name] = bool(found.get(name))
    shown["image_properties"] = found.get("volume_image_metadata") or {}
    return {"changed": bool(after), "volume": shown, "diff": {"before": before, "after": after}}


def _of_image(conn: Any, image: str) -> dict[str, str]:
    found = images.find(conn, image)
    if not found:  # another project's, which only its id finds
        answer = call(conn, "image", "GET", f"/images/{images.segment(image)}", step="find the image", allow=(400, 404))
        found = [answer.json()] if answer.status_code == 200 else []
    if len(found) != 1:
        text = f"there are {len(found)} images of this name; give the id" if found else "there is no such image"
        raise BadInput(f"Image {bounded(image, 80)}: {text}.", step="find the image")
    return {key: str(found[0][key]) for key in _OF_IMAGE if found[0].get(key)}


def _differences(found: Mapping[str, Any], params: Mapping[str, Any], wanted: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(is, should) of what differs, by name, bootable, metadata and image_properties."""
    metadata = differing({str(k): str(v) for k, v in (params.get("metadata") or {}).items()}, found.get("metadata") or {})
    managed = properties.HARDWARE if params.get("exclusive") or params.get("image") else ()
    rows = differing(wanted, found.get("volume_image_metadata") or {}, managed=managed)
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name, some in (("metadata", metadata), ("image_properties", rows)):
        if some:
            before[name] = {k: is_ for k, (is_, _should) in some.items()}
            after[name] = {k: should for k, (_is, should) in some.items()}
    bootable = str(found.get("bootable")).lower() == "true"
    if params.get("bootable") is not None and params["bootable"] != bootable:
        before["bootable"], after["bootable"] = bootable, params["bootable"]
    if params.get("name") is not None and params["name"] != found.get("name"):
        before["name"], after["name"] = found.get("name"), params["name"]
    return before, after


def _set(conn: Any, volume_id: str, after: Mapping[str, Any]) -> None:
    if "name" in after:
        volumes.rename(conn, volume_id, after["name"])
    if "bootable" in after:
        volumes.set_bootable(conn, volume_id, after["bootable"])
    for name, setter in (("metadata", volumes.set_metadata), ("image_properties", volumes.set_image_metadata)):
        if name in after:
            values = after[name]
            gone = tuple(k for k, v in values.items() if v is None)
            setter(conn, volume_id, {k: v for k, v in values.items() if v is not None}, unset=gone)
