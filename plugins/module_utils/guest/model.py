# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of a guest's disks, what a landing must give it, and the error of this layer. Data only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Mapping

from ..errors import BadInput, FerryError

#: Families that virt-v2v converts (virt-v2v-support(1), "Guest operating systems"), in libguestfs' words (guestfs_inspect_get_distro).
DEBIANS = ("debian", "ubuntu", "kalilinux", "linuxmint")
REDHATS = ("rhel", "centos", "rocky", "almalinux", "fedora", "oraclelinux", "scientificlinux", "redhat-based")
SUSES = ("sles", "suse-based", "opensuse")
LINUXES = (*DEBIANS, *REDHATS, *SUSES, "altlinux")


class GuestError(FerryError):
    """A guest that cannot be converted. C(code): unknown_os, unsupported_os, encrypted, hibernated, several_systems, no_space,
    no_boot_loader, conversion, appliance, timeout."""

    code = "conversion"


@dataclass(frozen=True)
class Disk:
    """A disk of the guest, in the order in which its source had them. C(path): file or block device; C(format): raw or qcow2.

    C(socket): where it is an NBD export instead, which can only be looked into.
    """

    path: str
    label: str = ""
    format: str = "raw"
    socket: str = ""


@dataclass(frozen=True)
class Card:
    """A network card of the guest as its source had it.

    C(name): what the guest calls it, where that is known; C(slot): its PCI slot number at the source (vSphere's
    C(ethernetN.pciSlotNumber)), after which systemd names it (C(ens192)). C(addresses): those that it was seen with.
    C(static): for Windows, C(ip,gateway,length,dns...) as virt-v2v's C(--mac) takes it.
    """

    mac: str
    name: str | None = None
    slot: int | None = None
    addresses: tuple[str, ...] = ()
    static: str | None = None


@dataclass(frozen=True)
class Target:
    """The hardware that the guest's server must have, in Nova's words. C(None): the guest does not say."""

    disk_bus: str
    nic_model: str
    firmware: str
    machine: str

    def as_dict(self) -> dict[str, str]:
        return dict(asdict(self))

    def as_text(self) -> str:
        """For a volume's metadata, whose values have 255 characters at most."""
        return json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))


@dataclass
class Mount:
    """A file system of the guest where it has it. Sizes in bytes; 0 where it could not be mounted."""

    path: str
    device: str
    size: int = 0
    free: int = 0


@dataclass
class Inspection:
    """What the disks say of themselves. C(virtio): whether its kernel finds its root file system on virtio; C(None): not known.

    C(files): text of the files that bind it to its hardware (fstab, network), by path.
    """

    type: str = ""
    distro: str = ""
    product: str = ""
    version: str = ""
    arch: str = ""
    hostname: str = ""
    root: str = ""
    roots: list[str] = field(default_factory=list)
    firmware: str = "bios"
    boot_loader: str = ""
    kernel: str = ""
    virtio: bool | None = None
    mounts: list[Mount] = field(default_factory=list)
    filesystems: dict[str, str] = field(default_factory=dict)
    uuids: dict[str, str] = field(default_factory=dict)
    encrypted: list[str] = field(default_factory=list)
    hibernated: list[str] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    systemd: bool = False
    remarks: list[str] = field(default_factory=list)

    @property
    def windows(self) -> bool:
        return self.type == "windows"

    def system(self) -> dict[str, Any]:
        """The module's C(os): what people and playbooks want to know, without the files."""
        kept = ("type", "distro", "product", "version", "arch", "hostname", "firmware", "boot_loader", "kernel", "virtio", "tools")
        found: dict[str, Any] = {k: getattr(self, k) for k in kept}
        found["mounts"] = [asdict(m) for m in sorted(self.mounts, key=lambda m: m.path)]
        found["encrypted"], found["hibernated"] = self.encrypted, self.hibernated
        return found


@dataclass(frozen=True)
class Change:
    """One thing that is, or would be, changed in the guest."""

    what: str
    where: str
    before: str | None = None
    after: str | None = None

    def as_dict(self) -> dict[str, str]:
        return {k: str(v) for k, v in asdict(self).items() if v is not None}


def cards_of(rows: Any) -> tuple[Card, ...]:
    """The option C(nics).

    :raises BadInput: a MAC that is none.
    """
    found = []
    for row in rows or ():
        mac = str(row.get("mac") or "").lower().replace("-", ":")
        parts = mac.split(":")
        if len(parts) != 6 or any(len(p) != 2 or any(c not in "0123456789abcdef" for c in p) for p in parts):
            raise BadInput(f"This is no MAC address: {str(row.get('mac'))[:40]!r}.", step="read the options")
        slot = row.get("slot")
        found.append(
            Card(
                mac,
                row.get("name") or None,
                int(slot) if slot else None,
                tuple(map(str, row.get("addresses") or ())),
                row.get("static") or None,
            )
        )
    return tuple(found)


def target_of(text: str) -> Target | None:
    """The target that a volume's metadata says; None where it says none."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return None
    keys = ("disk_bus", "nic_model", "firmware", "machine")
    if not isinstance(found, Mapping) or not all(isinstance(found.get(k), str) for k in keys):
        return None
    return Target(*(str(found[k]) for k in keys))
