# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done with a guest so that it starts on other hardware, and which hardware that must be. Pure.

Sources: virt-v2v-support(1) and virt-v2v(1) ("Free space in the guest") for what virt-v2v converts and needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Sequence

from . import fstab, identity, networks
from .model import LINUXES, Card, Change, GuestError, Inspection, Target

MIB = 1 << 20
#: Bytes that a conversion needs free, by mount point; others _ELSEWHERE.
SPACE = {"/": 100 * MIB, "/boot": 50 * MIB}
_ELSEWHERE = 10 * MIB
#: File systems that a conversion writes to.
_WRITTEN = ("/", "/boot", "/boot/efi", "/usr", "/var", "/etc")
#: A guest has to be converted, only bound to its cards and file systems, or needs nothing.
CONVERT, BIND, NOTHING = "convert", "bind", "nothing"
#: Disks that QEMU's IDE controller has room for.
_IDE = 4


@dataclass
class Wishes:
    """What is asked for. C(firmware): the source's, where it is known; it wins over what the disks look like."""

    cards: tuple[Card, ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)
    firmware: str = ""
    root: str = "first"
    virtio_win: str = ""
    first_boot: bool = False
    #: Convert even where nothing needs it.
    force: bool = False


@dataclass
class Decision:
    """C(action): one of the three above. C(reasons): why. C(changes): what would be done. C(names): MAC to name."""

    action: str
    reasons: list[str]
    changes: list[Change]
    names: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def refuse(found: Inspection, wishes: Wishes) -> None:
    """:raises GuestError: the guest cannot be converted, with what to do about it."""
    step = "look into the guest"
    if not found.roots:
        if found.encrypted:
            raise _encrypted(found, step)
        raise GuestError(
            "No operating system was found on the disks.",
            code="unknown_os",
            step=step,
            said=", ".join(f"{d} {k}" for d, k in list(found.filesystems.items())[:20]) or "no file system",
            next_command="land it as it is: ferry_guest_convert: false for this VM",
        )
    if len(found.roots) > 1 and wishes.root in ("", "ask", "single"):
        raise GuestError(
            f"There are {len(found.roots)} operating systems on the disks.",
            code="several_systems",
            step=step,
            said=", ".join(found.roots),
            next_command="say which: root: /dev/sda2, or root: first",
        )
    if found.hibernated:
        raise GuestError(
            "The guest is hibernated: what it has in memory lies on its disk, and its file systems are not to be touched."
            if not found.windows
            else "Windows is hibernated, or was shut down with fast startup: its file system is not to be touched.",
            code="hibernated",
            step=step,
            said=", ".join(found.hibernated),
            next_command="start the source again (ferry.vmware.rollback), shut it down in full (Windows: shutdown /s /t 0, powercfg /h off), migrate again",
        )
    if found.encrypted and not _readable(found):
        raise _encrypted(found, step)
    if not found.windows and (found.type != "linux" or found.distro not in LINUXES):
        raise GuestError(
            f"virt-v2v does not convert this guest ({found.product or found.distro or found.type or 'unknown'}).",
            code="unsupported_os",
            step=step,
            next_command="install virtio's drivers at the source by hand, or land it as it is: ferry_guest_convert: false for this VM",
        )
    for mount in found.mounts:
        needed = SPACE.get(mount.path, _ELSEWHERE)
        if mount.size and mount.path in _WRITTEN and mount.free < needed:
            raise GuestError(
                f"The guest has {mount.free // MIB} MiB free on {mount.path}; a conversion needs {needed // MIB} MiB.",
                code="no_space",
                step=step,
                next_command="free some space at the source, then run the same command again",
            )


def _readable(found: Inspection) -> bool:
    return any(m.path == "/" and m.size for m in found.mounts)


def _encrypted(found: Inspection, step: str) -> GuestError:
    return GuestError(
        "The guest's file systems are encrypted, so nothing in them can be converted.",
        code="encrypted",
        step=step,
        said=", ".join(f"{d} ({found.filesystems.get(d, '?')})" for d in found.encrypted),
        next_command="install virtio's drivers at the source (its initramfs too), then land it as it is with hardware: virtio and"
        " ferry_guest_convert: false",
    )


def decide(found: Inspection, wishes: Wishes) -> Decision:
    """What to do with a guest that refuse() lets pass."""
    reasons: list[str] = []
    if wishes.force:
        reasons.append("it was asked for")
    if found.virtio is not True:
        reasons.append("no virtio driver starts it" if found.virtio is False else "whether a virtio driver starts it is not known")
    if "vmware-tools" in found.tools:
        reasons.append("VMware Tools are installed")
    if found.windows:
        changes = [Change("virtio drivers, and VMware Tools out, at the first start", "Windows")] if reasons else []
        return Decision(CONVERT if reasons else NOTHING, reasons or ["its virtio drivers are there"], changes)
    action = CONVERT if reasons else NOTHING
    changes = []
    if action == CONVERT:
        changes.append(Change("virtio drivers in the initramfs, boot loader written anew", found.kernel or "/boot"))
        changes += [Change("removed", name) for name in found.tools]
    names, more, remarks = bindings(found, wishes)
    if more and action == NOTHING:
        action = BIND
        reasons.append("it is bound to VMware's hardware")
    return Decision(
        action, reasons or ["virtio drivers are there, and nothing is bound to VMware's hardware"], [*changes, *more], names, remarks
    )


def bindings(found: Inspection, wishes: Wishes) -> tuple[dict[str, str], list[Change], list[str]]:
    """(MAC to name, what is to be bound to MACs and UUIDs, remarks) of a Linux guest."""
    changes: list[Change] = []
    remarks: list[str] = []
    for path, column in ((fstab.FSTAB, 0), (fstab.CRYPTTAB, 1)):
        _text, some, left = fstab.by_uuid(found.files.get(path, ""), found.uuids, column=column, path=path)
        changes += some
        remarks += [f"{path} names {device}, whose UUID is not known: it may not be there on other hardware" for device in left]
    interfaces = networks.interfaces(found.files)
    names, more = identity.bind(interfaces, wishes.cards)
    remarks += more
    if names and not identity.bound_already(interfaces, found.files, names, systemd=found.systemd):
        changes += [
            Change("name bound to its MAC", identity_file(found, name), None, f"{name} = {mac}") for mac, name in sorted(names.items())
        ]
    for interface in interfaces:
        if interface.driver:
            changes.append(Change("found by its MAC, not by its driver", interface.source, interface.driver))
    for path in networked(found):
        changes += identity.renumbered(path, found.files[path], wishes.addresses)[1]
    return names, changes, remarks


def identity_file(found: Inspection, name: str) -> str:
    return next(iter(identity.link_files({"": name}))) if found.systemd else identity.RULES


def networked(found: Inspection) -> Sequence[str]:
    """The files that may hold addresses."""
    return [p for p in sorted(found.files) if p not in (fstab.FSTAB, fstab.CRYPTTAB) and not p.endswith((".rules", ".link"))]


def target(found: Inspection, wishes: Wishes, *, virtio: bool, disks: int) -> Target:
    """The hardware that the server must have.

    :param virtio: whether the guest has the drivers now.
    :param disks: how many it has; an IDE controller has room for four.
    """
    uefi = (wishes.firmware or found.firmware) in ("efi", "uefi")
    firmware, machine = ("uefi", "q35") if uefi else ("bios", "pc")
    if virtio:
        return Target("virtio", "virtio", firmware, machine)
    # QEMU's q35 has no IDE; AHCI is what each system of the time of UEFI knows.
    return Target("sata" if uefi or disks >= _IDE else "ide", "e1000", firmware, machine)
