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
import shutil
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
    "tests": (Need("curl", "the command lines of users' procedures, run as they are written", program("curl")),),
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
