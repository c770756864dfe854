# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File systems of a guest that are named by a device (C(/dev/sdb1)) are named by their UUID instead, which holds on any bus. Pure.

virt-v2v rewrites such names to C(/dev/vdX), which binds the guest to virtio-blk; these are made UUIDs too.
Sources: fstab(5), crypttab(5).
"""

from __future__ import annotations

import re
from typing import Mapping

from .model import Change

FSTAB, CRYPTTAB = "/etc/fstab", "/etc/crypttab"
#: Whole disks by their letters (sda, vdb, hdc, xvdaa) and the partition's number.
_DEVICE = re.compile(r"/dev/(?:sd|vd|hd|xvd)([a-z]{1,2})(\d*)")
#: Names that hold VMware's serial numbers, or the controller's place on the bus: they mean nothing on other hardware.
_HARDWARE = re.compile(r"/dev/disk/by-(?:path|id)/\S+")


def appliance_name(device: str) -> str | None:
    """A device of the guest as libguestfs names it (its disks are sda, sdb ... in the order in which they were added)."""
    found = _DEVICE.fullmatch(device)
    return f"/dev/sd{found[1]}{found[2]}" if found else None


def by_device(text: str, *, column: int = 0) -> list[str]:
    """The devices that lines name by their place on the hardware, in order. C(column): 0 in fstab, 1 in crypttab."""
    found = []
    for fields in (line.split() for line in text.splitlines()):
        if len(fields) > max(column, 1) and not fields[0].startswith("#"):
            device = fields[column]
            if _DEVICE.fullmatch(device) or _HARDWARE.fullmatch(device):
                found.append(device)
    return list(dict.fromkeys(found))


def by_uuid(text: str, uuids: Mapping[str, str], *, column: int = 0, path: str = FSTAB) -> tuple[str, list[Change], list[str]]:
    """(the text with UUIDs, what was changed, devices that stay because their UUID is not known).

    :param uuids: UUID of a file system by libguestfs' name of its device.
    """
    out, changes, left = [], [], []
    for line in text.splitlines(keepends=True):
        fields = line.split()
        if len(fields) > max(column, 1) and not fields[0].startswith("#"):
            device = fields[column]
            name = appliance_name(device)
            uuid = uuids.get(name or "")
            if uuid and re.fullmatch(r"[0-9A-Za-z-]{4,64}", uuid):
                # The first word that is the device itself, not one that begins like it.
                line = re.sub(rf"(?<!\S){re.escape(device)}(?!\S)", f"UUID={uuid}", line, count=1)
                changes.append(Change("file system named by its UUID", path, device, f"UUID={uuid}"))
            elif name or _HARDWARE.fullmatch(device):
                left.append(device)
        out.append(line)
    return "".join(out), changes, left
