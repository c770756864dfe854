# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the disk files of a wave can become images of this cloud, before one byte is sent.

A disk that comes from a file has C(file) in its facts. What it would be sent as is decided where it is sent (forms.decide()); here
that is asked for every file, and held against the formats that this Glance takes (its schema, C(/v2/schemas/image)).
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ..errors import FerryError, ServerError, bounded
from . import forms
from .client import get


def accepted(conn: Any) -> dict[str, frozenset[str]]:
    """C(disk_format) and C(container_format) that this Glance takes.

    :raises ServerError: its schema does not say.
    """
    schema = get(conn, "image", "/schemas/image", step="read the image formats")
    found: dict[str, frozenset[str]] = {}
    for name in ("disk_format", "container_format"):
        row = (schema.get("properties") or {}).get(name) or {}
        values = row.get("enum")
        if not isinstance(values, list):
            raise ServerError(f"Glance's schema does not say which {name} it takes.", step="read the image formats")
        found[name] = frozenset(str(v) for v in values if v is not None)
    return found


def look(path: str, hypervisor: str) -> dict[str, Any]:
    """C(capacity) (bytes), C(disk_format), C(converted_to) of the file at C(path) as it would be sent; or C(error), in words."""
    try:
        form = forms.decide(path, hypervisor=hypervisor, convert="auto")
    except FerryError as e:
        return {"error": f"{e.message.rstrip('.')}" + (f": {e.said}" if e.said else "")}
    except OSError as e:
        return {"error": f"it cannot be read: {e.strerror or e}"}
    return {"capacity": form.capacity, "disk_format": form.disk_format, "converted_to": form.converted_to, "reasons": form.reasons[:5]}


def looked_at(vms: Sequence[Mapping[str, Any]], hypervisors: Sequence[str]) -> list[dict[str, Any]]:
    """The VMs, each disk that comes from a file with C(image), what look() says of it. Each file is opened, none is read through."""
    found = []
    for vm, hypervisor in zip(vms, hypervisors, strict=True):
        disks = []
        for disk in vm.get("disks") or ():
            if "image" in disk:
                pass  # looked at where the file is, which may be another machine
            elif disk.get("error"):
                disk = {**disk, "image": {"error": str(disk["error"])}}
            elif disk.get("file"):
                disk = {**disk, "image": look(str(disk["file"]), hypervisor)}
            disks.append(disk)
        found.append({**vm, "disks": disks})
    return found


def problem(disk: Mapping[str, Any], formats: Mapping[str, frozenset[str]]) -> str | None:
    """Why the file of C(disk) cannot become an image; None where it can, or is no file."""
    image = disk.get("image")
    if not image:
        return None
    path = bounded(disk.get("file"), 120)
    if image.get("error"):
        return f"{path}: {bounded(image['error'], 300)}"
    for name, value in (("disk_format", image["disk_format"]), ("container_format", "bare")):
        if name in formats and value not in formats[name]:
            known = ", ".join(sorted(formats[name])) or "none"
            return f"{path} would be sent with the {name} {value}, which this Glance does not take; it takes {known}"
    return None
