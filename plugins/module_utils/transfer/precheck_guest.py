# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A precheck's look into guests that are off, of which VMware Tools tell nothing: their disks are read where they lie, and nothing is written.

Each disk is shown to libguestfs' appliance as an NBD export of this process, which reads what is asked for over the datastore's HTTPS, and no more.
"""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Sequence

from ..concerns import CRITICAL, INFORMATION, Concern, ordered
from ..disk.nbd_server import ReadOnlyServer
from ..errors import FerryError
from ..guest import decide, inspection, tools
from ..guest.fish import Guestfish
from ..guest.model import LINUXES, Disk, Inspection
from ..vsphere import find, guest, precheck
from ..vsphere.precheck_catalogue import found as concern
from ..vsphere.precheck_options import Options
from . import sources

_MIB = 1 << 20
#: Seconds for which a datastore that fails is asked again.
_PATIENCE = 30.0


def inspected(session: Any, checked: Sequence[precheck.Checked], own: Sequence[Options]) -> None:
    """Add to each of the wave's VMs that is off what its disks tell."""
    for entry, options in zip(checked, own, strict=True):
        if entry.facts is None or entry.twice or entry.facts.get("power") != "off" or entry.moref is None:
            continue
        try:
            tools.need("guestfish", "setpriv")
            said = list(concerns(look(session, entry.moref), options.converts))
        except FerryError as e:
            said = [concern("ferry.guest.unread", f"Its disks could not be looked into: {e.message} {e.said or ''}".strip())]
        entry.concerns[:] = ordered([*(c for c in entry.concerns if c.id not in _answered(said)), *said])


def _answered(said: Sequence[Concern]) -> set[str]:
    """What Tools did not tell, and the disks do."""
    return (
        {"vmware.hostname.empty"}
        if not any(c.id in ("vmware.hostname.empty", "ferry.guest.unread", "ferry.guest.unknown") for c in said)
        else set()
    )


def look(session: Any, moref: str) -> Inspection:
    """What the disks of a VM that is off say. Nothing is changed.

    :raises FerryError: they cannot be read by HTTPS, or the appliance does not start.
    """
    vm = guest.read_vms(session, [find.find_vm(session, moref)])[0]
    with contextlib.ExitStack() as stack:
        disks = []
        for facts in vm["disks"]:
            source = sources.open_https(session, facts, patience=_PATIENCE)
            stack.callback(source.close)
            server = stack.enter_context(ReadOnlyServer(source))
            disks.append(Disk("", facts.label, socket=server.path))
        with Guestfish(disks) as fish:
            return inspection.inspect(fish, disks)


def concerns(found: Inspection, converts: bool) -> Iterator[Concern]:
    """What of it stands in the way. Pure.

    :param converts: whether the guest is to be converted.
    """
    worse = CRITICAL if converts else None
    if found.hibernated:
        yield concern("ferry.guest.hibernated", f"It is hibernated: {', '.join(found.hibernated)}.", category=worse)
    if found.encrypted:
        shown = ", ".join(f"{d} ({found.filesystems.get(d, '?')})" for d in found.encrypted)
        yield concern("ferry.guest.encrypted", f"It has encrypted file systems: {shown}.", category=worse if not found.mounts else None)
    if not found.roots:
        if not found.encrypted:
            there = ", ".join(f"{d} {kind}" for d, kind in list(found.filesystems.items())[:10]) or "no file system"
            yield concern("ferry.guest.unknown", f"No operating system was found on its disks ({there}).", category=worse)
        return
    if not found.windows and (found.type != "linux" or found.distro not in LINUXES):
        yield concern("vmware.os.unsupported", f"By its disks, its guest is {found.product or found.distro or found.type}.")
    if not found.hostname:
        yield concern("vmware.hostname.empty", "Its disks do not tell what the guest calls itself.")
    elif found.hostname == "localhost.localdomain":
        yield concern("vmware.hostname.default", f"By its disks, the guest calls itself {found.hostname}.")
    for mount in found.mounts:
        needed = decide.SPACE.get(mount.path, 10 * _MIB)
        if mount.size and mount.free < needed:
            yield concern(
                "vmware.guestDisks.freespace",
                f"The guest has {mount.free // _MIB} MB free on {mount.path}; a conversion needs {needed // _MIB} MB.",
                device=mount.path,
                category=None if converts else "warning",
            )
    if not converts and found.virtio is False:
        yield concern("ferry.guest.virtio", "Its newest kernel has no driver for virtio in its initramfs.", category=INFORMATION)
