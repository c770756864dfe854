# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a Windows guest's disks say: the drivers in its registry, hibernation, VMware Tools, the addresses of its cards.

Sources: hivex (guestfs(3), "hivex-open"); the registry's key Services, under which Windows keeps its drivers.
"""

from __future__ import annotations

from ..errors import bounded
from .fish import Guestfish, Refused
from .model import Inspection

#: Drivers of virtio-win by the names of their services; either of the disks' will do.
DISK_DRIVERS, CARD_DRIVER = ("viostor", "vioscsi"), "netkvm"
#: The first bytes of hiberfil.sys while a session lies in it (Windows; of one that was resumed they are "wake").
_ASLEEP = ("hibr", "HIBR", "RSTR")


def inspect(fish: Guestfish, found: Inspection) -> None:
    """Fill in what is Windows' own. The file systems are mounted."""
    found.boot_loader = "windows"
    head = fish.get("pread", _real(fish, "/hiberfil.sys"), "4", "0")
    if head and head.startswith(_ASLEEP):
        found.hibernated.append(found.root)
    for path in ("/Program Files/VMware/VMware Tools", "/Program Files (x86)/VMware/VMware Tools"):
        if fish.yes("is-dir", _real(fish, path)) and "vmware-tools" not in found.tools:
            found.tools.append("vmware-tools")
    services = _services(fish, found)
    if services is not None:
        found.virtio = CARD_DRIVER in services and any(name in services for name in DISK_DRIVERS)


def _real(fish: Guestfish, path: str) -> str:
    """The path as it is written on the disk: NTFS takes any case, Linux one."""
    return (fish.get("case-sensitive-path", path) or path).strip()


def _services(fish: Guestfish, found: Inspection) -> set[str] | None:
    """Which of the drivers that matter have a service; None where the registry cannot be read."""
    hive = (fish.get("inspect-get-windows-system-hive", found.root) or "").strip()
    control_set = (fish.get("inspect-get-windows-current-control-set", found.root) or "").strip()
    if not hive or not control_set:
        found.remarks.append("its registry cannot be read")
        return None
    try:
        fish.ask("hivex-open", hive)
        node = fish.ask("hivex-root").strip()
        for name in (control_set, "Services"):
            node = fish.ask("hivex-node-get-child", node, name).strip()
            if node in ("", "0"):
                return set()
        there = [name for name in (*DISK_DRIVERS, CARD_DRIVER) if fish.ask("hivex-node-get-child", node, name).strip() not in ("", "0")]
        return set(there)
    except Refused as e:
        found.remarks.append(bounded(f"its registry cannot be read: {e}", 200))
        return None
    finally:
        fish.get("hivex-close")
