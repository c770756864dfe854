# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Say which system packages are missing, all at once, and the command that installs them.

python3 tools/require_system.py [--packages] GROUP...

Nothing is installed here. With --packages only the names of Debian's and Ubuntu's packages are printed (for .ci/run).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Callable


@dataclass(frozen=True)
class Need:
    package: str
    what: str
    there: Callable[[], bool]


def program(*names: str) -> Callable[[], bool]:
    """True where all programs are found; sbin counts too, which is not in every user's PATH."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return lambda: all(shutil.which(name, path=path) for name in names)


def python_headers() -> bool:
    return (Path(sysconfig.get_paths()["include"]) / "Python.h").exists()


def java() -> bool:
    """True where there is a Java of 17 or newer, which ansible-rulebook's rule engine runs on."""
    found = shutil.which("java")
    if found is None:
        return False
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    return version is not None and int(version[1]) >= 17


def libnbd() -> bool:
    """True where the binding lies in the distribution's folders, whichever Python they are for; PyPI does not have it."""
    folders = [Path("/usr/lib/python3/dist-packages"), *Path("/usr/lib64").glob("python3.*/site-packages")]
    return importlib.util.find_spec("nbd") is not None or any((folder / "nbd.py").exists() for folder in folders)


GROUPS: dict[str, tuple[Need, ...]] = {
    "install": (
        Need("python3-venv", "virtual environments with pip", lambda: importlib.util.find_spec("ensurepip") is not None),
        Need("git", "the list of files to stage", program("git")),
    ),
    "openstack": (
        Need("gcc", "a C compiler for uWSGI, which serves OpenStack's APIs", program("gcc")),
        Need("python3-dev", "Python's headers for uWSGI", python_headers),
        Need("libc6-dev", "the C library's headers for uWSGI", lambda: Path("/usr/include/stdlib.h").exists()),
        Need("qemu-utils", "qemu-img, by which Glance and Cinder look into images", program("qemu-img")),
    ),
    "libvirt": (
        Need("libvirt-daemon", "libvirtd, under which the lab's Nova runs servers", program("libvirtd")),
        Need("libvirt-clients", "virsh, which shows what runs", program("virsh")),
        Need("libvirt-dev", "libvirt's headers, for its Python binding", lambda: Path("/usr/include/libvirt/libvirt.h").exists()),
        Need("pkg-config", "the place of these headers", program("pkg-config")),
        Need("qemu-system-x86", "QEMU, which emulates the servers", program("qemu-system-x86_64")),
        Need("ovmf", "UEFI firmware for servers", lambda: Path("/usr/share/OVMF").is_dir() or Path("/usr/share/edk2").is_dir()),
    ),
    "guest": (
        Need("dpkg", "dpkg-deb, which unpacks a guest's kernel", program("dpkg-deb")),
        Need("grub-common", "grub-mkimage, which makes a guest's boot loader", program("grub-mkimage")),
        Need("grub-pc-bin", "GRUB for BIOS", lambda: Path("/usr/lib/grub/i386-pc/boot.img").exists()),
        Need("grub-efi-amd64-bin", "GRUB for UEFI", lambda: Path("/usr/lib/grub/x86_64-efi/normal.mod").exists()),
    ),
    "convert": (
        Need("virt-v2v", "virt-v2v-in-place, which converts guests", program("virt-v2v-in-place")),
        Need("libguestfs-tools", "guestfish, which looks into guests' disks", program("guestfish")),
        Need("mmdebstrap", "mmdebstrap, which makes a Debian guest", program("mmdebstrap")),
        Need("libwin-hivex-perl", "hivexregedit, which makes the registry of what looks like Windows", program("hivexregedit")),
        Need(
            "linux-image-cloud-amd64",
            "a kernel for libguestfs' appliance",
            lambda: any(Path("/boot").glob("vmlinuz-*")) and any(Path("/lib/modules").glob("*")),
        ),
    ),
    "disks": (
        Need("e2fsprogs", "ext4 file systems for the lab's disks", program("mkfs.ext4", "debugfs")),
        Need("xfsprogs", "xfs file systems for the lab's disks", program("mkfs.xfs", "xfs_db")),
        Need("qemu-utils", "qemu-img, the other reader of our VMDKs", program("qemu-img")),
    ),
    "nbd": (
        Need("nbdkit", "the server of NBD exports in tests, and of VDDK's disks", program("nbdkit")),
        Need("python3-libnbd", "libnbd's Python binding, which reads NBD exports", libnbd),
        Need("libnbd-bin", "nbdcopy and nbdinfo, the other reader of NBD exports", program("nbdcopy", "nbdinfo")),
    ),
    "tests": (
        Need("curl", "the command lines of users' procedures, run as they are written", program("curl")),
        Need("openssh-server", "sshd, to a loopback port of which connections are made and broken", program("sshd")),
    ),
    "rulebook": (Need("default-jre-headless", "Java 17 or newer, on which ansible-rulebook decides", java),),
    "browser": (
        Need(
            "chromium",
            "Chromium, in which tests look at the pages that are written",
            lambda: any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
        ),
    ),
    "lint": (Need("shellcheck", "shell scripts' lint", program("shellcheck")),),
}


def missing(groups: list[str]) -> dict[str, str]:
    """Package and what it is for, for all that C(groups) need and is not there."""
    return {need.package: need.what for group in groups for need in GROUPS[group] if not need.there()}


def main(arguments: list[str]) -> int:
    groups = [a for a in arguments if a != "--packages"]
    unknown = sorted(set(groups) - GROUPS.keys())
    if unknown or not groups:
        print(f"unknown: {unknown}; groups are {sorted(GROUPS)}", file=sys.stderr)
        return 2
    found = missing(groups)
    if "--packages" in arguments:
        print(" ".join(found))
        return 0
    if not found:
        return 0
    for package, what in found.items():
        print(f"  missing: {package:14} {what}", file=sys.stderr)
    sudo = "" if os.geteuid() == 0 else "sudo "
    print(f"Install with:\n  {sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {' '.join(found)}", file=sys.stderr)
    if not shutil.which("apt-get"):
        print("(Debian's names; this system has packages of like names.)", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
