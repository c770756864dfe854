# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""By which ways a VM can be copied, and why the others do not work. Pure functions of what vCenter says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ..errors import BadInput
from ..vsphere.disks import VmDisk
from . import ways

#: The ways, the best one first: what reads ranges can go on inside a disk and copy changes.
TRANSPORTS = ("https", "nfc", "nbd")
#: First virtual hardware with changed block tracking (Broadcom KB 1020128, "Changed Block Tracking (CBT) on virtual machines").
_CBT_HARDWARE = 7


@dataclass(frozen=True)
class Path:
    """One way for one VM. C(off), C(running): whether it can be copied in full while it is off, while it runs (from a snapshot).

    C(delta): whether only what has changed can be read. C(why): what does not work, and why; empty where all of it does.
    """

    transport: str
    off: bool
    running: bool
    delta: bool
    why: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"transport": self.transport, "off": self.off, "running": self.running, "delta": self.delta, "why": list(self.why)}


def tracking_supported(hw_version: str | None) -> bool:
    """Whether virtual hardware C(hw_version) (vmx-19) knows changed block tracking; what cannot be told counts as yes."""
    found = re.fullmatch(r"vmx-(\d{1,3})", hw_version or "")
    return found is None or int(found[1]) >= _CBT_HARDWARE


def _unreadable(transport: str, disk: VmDisk, vddk: bool) -> str | None:
    """Why C(disk) cannot be read by C(transport) at all; None where it can."""
    if disk.rdm_mode == "physicalMode":
        return "a raw device mapping in physical mode is on the storage array alone: copy it there, or inside the guest"
    if transport == "nbd" and not vddk:
        return "VDDK was not given (ferry_vddk)"
    try:
        ways.choose(transport, disk, nbd=vddk)
    except BadInput as e:
        return e.said or e.message
    return None


def _not_frozen(disk: VmDisk) -> str | None:
    """Why no snapshot holds C(disk) still while its VM runs; None where one does."""
    if (disk.mode or "").startswith("independent"):
        return f"it is independent ({disk.mode}), so snapshots leave it out"
    if disk.bus_sharing in ("physicalSharing", "virtualSharing"):
        return "its controller's bus is shared, and such a VM takes no snapshot"
    if disk.sharing == "sharingMultiWriter":
        return "it has several writers, and such a disk takes no snapshot"
    return None


def path(transport: str, vm: Mapping[str, Any], disks: Sequence[VmDisk], *, vddk: bool) -> Path:
    """The way C(transport) for a VM.

    :param vm: its facts (guest.read_vms): hw_version, template.
    :param disks: its disks.
    :param vddk: whether VDDK is there.
    """
    why: list[str] = []
    off = running = delta = bool(disks)
    if not disks:
        why.append("it has no disk")
    for disk in disks:
        blocked = _unreadable(transport, disk, vddk)
        if blocked:
            off = running = delta = False
            why.append(f"{disk.label}: {blocked}")
            continue
        moving = _not_frozen(disk)
        if moving:
            running = delta = False
            why.append(f"{disk.label} while it runs: {moving}")
    if running and vm.get("template"):
        running = delta = False
        why.append("it is a template, which does not run")
    if delta and transport == "nfc":
        delta = False
        why.append("changes: an export is one stream of the whole disk")
    elif delta and not tracking_supported(vm.get("hw_version")):
        delta = False
        why.append(f"changes: virtual hardware {vm.get('hw_version')} has no changed block tracking")
    return Path(transport, off, running, delta, tuple(dict.fromkeys(why)))


def paths(vm: Mapping[str, Any], disks: Sequence[VmDisk], *, vddk: bool) -> list[Path]:
    """All ways for a VM, in the order of TRANSPORTS."""
    return [path(transport, vm, disks, vddk=vddk) for transport in TRANSPORTS]


def best(found: Sequence[Path]) -> dict[str, str | None]:
    """The way that would be taken for C(cold) and for C(warm); None where none does."""
    cold = next((p.transport for p in found if p.off), None)
    warm = next((p.transport for p in found if p.running and p.delta), None)
    return {"cold": cold, "warm": warm}
