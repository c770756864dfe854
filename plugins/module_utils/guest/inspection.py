# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading what a guest's disks say of themselves, by one session of guestfish whose writes are thrown away.

Sources: guestfs(3), "Inspection"; blkid's names of file systems; initramfs-tools' lsinitramfs(8) and dracut's lsinitrd(1).
"""

from __future__ import annotations

import re
from typing import Sequence

from ..errors import bounded
from . import fstab, networks, windows
from .fish import Guestfish
from .model import Disk, Inspection, Mount

#: A partition's type in GPT that says that firmware boots from it (UEFI specification, 5.3.3).
_ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
#: blkid's words for what cannot be read, and for a swap area that holds a suspended system.
_ENCRYPTED = ("crypto_LUKS", "BitLocker")
_SUSPENDED = ("swsuspend", "swsusp")
#: Of a kernel's image, the names of its first file system, with its version for {}.
_INITRDS = ("/boot/initrd.img-{}", "/boot/initramfs-{}.img", "/boot/initrd-{}", "/boot/initrd.img")
#: Where boot loaders keep what they boot.
_LOADERS = (
    ("grub2", ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/efi/EFI/*/grub.cfg")),
    ("grub", ("/boot/grub/menu.lst", "/boot/grub/grub.conf")),
    ("systemd-boot", ("/boot/loader/loader.conf", "/efi/loader/loader.conf", "/boot/efi/loader/loader.conf")),
)
#: What of VMware is installed, by a file of it.
_TOOLS = (
    (
        "open-vm-tools",
        ("/etc/vmware-tools/tools.conf", "/usr/lib/systemd/system/open-vm-tools.service", "/lib/systemd/system/vmtoolsd.service"),
    ),
    ("vmware-tools", ("/usr/bin/vmware-config-tools.pl", "/usr/bin/vmware-uninstall-tools.pl")),
)
#: The most devices that are asked about; a guest has a few.
MOST_DEVICES = 256


def inspect(fish: Guestfish, disks: Sequence[Disk], *, root: str = "") -> Inspection:
    """All that the decision needs. Nothing is changed.

    :param root: the device with the system, where there are several; the first one unless given.
    """
    found = Inspection()
    _devices(fish, found)
    found.roots = fish.lines("inspect-os")
    if not found.roots:
        return found
    found.root = root if root in found.roots else found.roots[0]
    _system(fish, found)
    _mount(fish, found)
    if found.windows:
        windows.inspect(fish, found)
    else:
        _linux(fish, found)
    return found


def _devices(fish: Guestfish, found: Inspection) -> None:
    partitions, volumes = fish.lines("list-partitions"), fish.lines("lvs")
    names = [*fish.lines("list-devices"), *partitions, *volumes, *fish.lines("list-md-devices")]
    for device in list(dict.fromkeys(names))[:MOST_DEVICES]:
        kind = (fish.get("vfs-type", device) or "").strip()
        if kind:
            found.filesystems[device] = bounded(kind, 40)
        if kind in _ENCRYPTED:
            found.encrypted.append(device)
        elif kind in _SUSPENDED:
            found.hibernated.append(device)
        uuid = (fish.get("vfs-uuid", device) or "").strip() if kind else ""
        if uuid:
            found.uuids[device] = bounded(uuid, 80)
    for partition in partitions[:MOST_DEVICES]:
        disk, number = (fish.get(ask, partition) for ask in ("part-to-dev", "part-to-partnum"))
        if disk and number and (fish.get("part-get-gpt-type", disk.strip(), number.strip()) or "").strip().upper() == _ESP:
            found.firmware = "efi"


def _system(fish: Guestfish, found: Inspection) -> None:
    def say(what: str) -> str:
        said = (fish.get(f"inspect-get-{what}", found.root) or "").strip()
        return "" if said == "unknown" else bounded(said, 200)

    found.type, found.distro, found.product, found.arch = say("type"), say("distro"), say("product-name"), say("arch")
    found.hostname = say("hostname")
    found.version = ".".join(v for v in (say("major-version"), say("minor-version")) if v)


def _mount(fish: Guestfish, found: Inspection) -> None:
    points = fish.table("inspect-get-mountpoints", found.root) or {"/": found.root}
    for path, device in sorted(points.items(), key=lambda p: (len(p[0]), p[0]))[:MOST_DEVICES]:
        mount = Mount(path, device)
        found.mounts.append(mount)
        # Writable where it can be: the writes are thrown away, and what cannot be mounted so is what a conversion fails at.
        if fish.get("mount", device, path) is None:
            found.remarks.append(f"{path} ({device}) cannot be mounted for writing")
            if fish.get("mount-ro", device, path) is None:
                continue
        said = fish.table("statvfs", path)
        block = int(said.get("frsize") or said.get("bsize") or 0)
        mount.size, mount.free = int(said.get("blocks") or 0) * block, int(said.get("bavail") or 0) * block


def _linux(fish: Guestfish, found: Inspection) -> None:
    found.files.update(fish.texts(fstab.FSTAB, fstab.CRYPTTAB, *networks.PATTERNS))
    found.systemd = any(fish.yes("is-dir", p) for p in ("/usr/lib/systemd/network", "/lib/systemd/network"))
    for name, patterns in _LOADERS:
        if not found.boot_loader and any(fish.lines("glob-expand", p) for p in patterns):
            found.boot_loader = name
    found.tools = [name for name, paths in _TOOLS if any(fish.yes("exists", p) for p in paths)]
    kernels = [p.rpartition("vmlinuz-")[2] for p in fish.lines("glob-expand", "/boot/vmlinuz-*")]
    kernels = sorted((k for k in kernels if "rescue" not in k), key=networks.order)
    if kernels:
        found.kernel = bounded(kernels[-1], 100)
        found.virtio = _virtio(fish, kernels[-1])


def _virtio(fish: Guestfish, kernel: str) -> bool | None:
    """Whether the kernel finds its root file system on virtio-blk: the driver is built in, or in its initramfs. None: it does not tell."""
    builtin = fish.text(f"/lib/modules/{kernel}/modules.builtin") or ""
    needed = [m for m in ("virtio_blk", "virtio_pci") if not re.search(rf"/{m}\.ko", builtin)]
    if not needed:
        return True
    for name in (pattern.format(kernel) for pattern in _INITRDS):
        if not fish.yes("exists", name):
            continue
        for tool in ("/usr/bin/lsinitramfs", "/usr/bin/lsinitrd"):
            listing = fish.get("command", f"{tool} {name}") if fish.yes("exists", tool) else None
            if listing and "/" in listing:
                return all(re.search(rf"/{m}\.ko", listing) for m in needed)
        listing = fish.get("initrd-list", name)
        # Of an image in several parts (microcode first) this shows the first one only.
        return all(re.search(rf"/{m}\.ko", listing) for m in needed) if listing and ".ko" in listing else None
    return None
