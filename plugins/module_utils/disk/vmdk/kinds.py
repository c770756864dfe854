# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a disk file is: VMDK, raw or qcow2."""

from __future__ import annotations

import os
from typing import Iterable

from .container import open_source
from .files import Folder, RawFile
from .reader import sniff


def kind_of(path: str) -> str:
    """vmdk, raw or qcow2, from the content; from the name where a guest decides on the content.

    The first bytes of a flat or raw disk are written by its guest. So a name that says flat or raw is believed, and a
    text descriptor is believed only in a file called C(*.vmdk).
    """
    kind, file, _folder = look(path)
    if file is not None:
        file.close()
    return kind


def look(path: str, allow: Iterable[str] = ()) -> tuple[str, RawFile | None, Folder | None]:
    """What C(kind_of) says, with the opened file and the folder from where it leads on where the content was looked at."""
    name = os.path.basename(path).lower()
    if name.endswith(("-flat.vmdk", ".raw")):
        return "raw", None, None
    file, folder = open_source(path, device_ok=True, what="source", allow=allow)
    try:
        # In an OVA, the name is that of its member.
        name = os.path.basename(file.path).lower()
        found = "raw" if file.device else sniff(file.read(0, min(4096, file.size)))
    except BaseException:
        file.close()
        raise
    if found == "qcow2":
        return "qcow2", file, folder
    if name.endswith((".vmdk", ".vmdk.gz")) or found in ("sparse", "cowd", "sesparse"):
        return "vmdk", file, folder
    return "raw", file, folder
