# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disk geometry as VMware's products compute it for a new disk."""

from __future__ import annotations

from ..model import SECTOR

_GIB = (1 << 30) // SECTOR


def chs(capacity: int, adapter: str) -> tuple[int, int, int]:
    """(cylinders, heads, sectors) for a disk of C(capacity) bytes behind the controller C(adapter).

    IDE: 16 heads, 63 sectors. SCSI: 64/32 below 1 GiB, 128/32 below 2 GiB, else 255/63 (Broadcom KB 306526). Cylinders are
    rounded down, so a geometry never reaches beyond the disk, and have no limit: a log of VMware Fusion has 83220/16/63
    for 40 GiB on IDE. VirtualBox ends at 16,383; qemu-img has 255/63 for SCSI disks of any size (a disk of 1 MiB then has
    no cylinder). No reader takes a disk's size from its geometry.
    """
    total = capacity // SECTOR
    if adapter == "ide":
        return total // (16 * 63), 16, 63
    if total < _GIB:
        heads, per_track = 64, 32
    elif total < 2 * _GIB:
        heads, per_track = 128, 32
    else:
        heads, per_track = 255, 63
    return total // (heads * per_track), heads, per_track
