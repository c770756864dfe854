# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""By which way a disk of a VM can be read (the table in the design, section 1). Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from ..errors import BadInput
from ..vsphere.disks import VmDisk

#: Datastore types (Datastore.summary.type) whose files /folder serves by range.
FILES = ("VMFS", "NFS", "NFS41")
#: Backings that are a file with the disk's bytes (VirtualDisk…BackingInfo, the distinguishing part).
FLAT_BACKINGS = ("FlatVer2", "SeSparse", "SparseVer2", "FlatVer1", "SparseVer1")


@dataclass(frozen=True)
class Way:
    """C(name): https, nfc or nbd. C(ranges): whether parts can be read (a stream gives the whole disk only).

    C(remark): what the user should know, where a better way could not be taken.
    """

    name: str
    why: str
    remark: str | None = None

    @property
    def ranges(self) -> bool:
        return self.name != "nfc"


def why_no_files(disk: VmDisk) -> str | None:
    """Why the datastore's files do not give the disk's bytes; None where they do."""
    if disk.encrypted:
        return "the disk is encrypted: its file holds ciphertext"
    if disk.rdm_mode is not None or disk.backing not in FLAT_BACKINGS:
        return f"the disk is backed by {disk.backing}, not by a file"
    if disk.datastore_type is not None and disk.datastore_type not in FILES:
        return f"the datastore is of type {disk.datastore_type}, whose files hold no disk"
    return None


def choose(wanted: str, disk: VmDisk, *, nbd: bool, lacks: Callable[[], str | None] = lambda: None) -> Way:
    """The way to read C(disk) for the option C(transport) = C(wanted).

    :param nbd: an NBD export of the disk was given, or VDDK is there to make one.
    :param lacks: what this machine lacks to read an export; asked only where C(auto) would take one, and then does without.
    :raises BadInput: it cannot be read that way; says which way it can.
    """
    no_files = why_no_files(disk)
    if wanted == "file":
        raise BadInput("A VM's disk is read from vCenter: transport is auto, https, nfc or nbd.", disk=disk.label, step="read the options")
    if wanted == "nbd" and not nbd:
        raise BadInput(
            "transport nbd needs an export: give disks[].nbd (a URI) or vddk.",
            disk=disk.label,
            step="choose the way",
            next_command="see the guide about NBD and VDDK",
        )
    if wanted == "https" and no_files:
        raise BadInput(
            "This disk cannot be read over the datastore's HTTPS.",
            code="no_way",
            disk=disk.label,
            step="choose the way",
            said=no_files,
            next_command="use transport nfc (whole disks) or nbd (VDDK)",
        )
    if wanted != "auto":
        return Way(wanted, "asked for")
    if nbd and no_files:
        without = lacks()
        if without is None:
            return Way("nbd", no_files)
        return Way("nfc", no_files, f"read as a stream (nfc), as a whole in each cycle, and not by NBD: {without}")
    if no_files:
        return Way("nfc", no_files)
    return Way("https", f"the datastore is of type {disk.datastore_type or 'unknown'}")
