# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What storms do to targets and ledgers behind a copy's back, and what a target holds."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from pathlib import Path

from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk

MIB = 1 << 20


def content(path: Path) -> str:
    """The SHA-256 of the disk in the target C(path)."""
    if path.suffix == ".raw":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    disk = open_disk(str(path))
    try:
        found = hashlib.sha256()
        for at in range(0, disk.capacity, MIB):
            found.update(disk.read(at, min(MIB, disk.capacity - at)))
        return found.hexdigest()
    finally:
        disk.close()


def alter(target: Path, how: str, source: random.Random) -> None:
    """Do to a raw target what C(how) says: delete, empty (made anew), truncate, write, replace (by another file)."""
    if how == "delete":
        target.unlink()
    elif how == "truncate":
        os.truncate(target, source.randrange(9) * MIB)
    elif how == "empty":
        size = target.stat().st_size
        target.unlink()
        with target.open("wb") as f:
            f.truncate(size)
    elif how == "write":
        with target.open("r+b") as f:
            f.seek(source.randrange(8) * MIB)
            f.write(b"somebody else's")
    else:
        old = target.with_suffix(".old")
        shutil.copy2(target, old)
        with old.open("r+b") as f:
            f.write(b"a backup of another time")
        os.replace(old, target)
