# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The numbers in the names of a split disk's extents tell a lost or misplaced line of its descriptor."""

from __future__ import annotations

import re

from ..errors import VmdkError
from .descriptor import Descriptor
from .files import Folder

#: disk-s001.vmdk, disk-f001.vmdk: how VMware and QEMU name the extents of a split disk.
_NUMBERED = re.compile(r"^(.*-[sf])([0-9]{3,6})(\.vmdk)$", re.I | re.S)


def in_sequence(d: Descriptor, folder: Folder) -> None:
    """Refuse a split disk whose numbered files are not named in their order, or not all: a lost line shifts or shortens the disk."""
    if not d.create_type.startswith("twoGb"):
        return
    found = [(line, match) for line in d.extents if line.type != "ZERO" for match in [_NUMBERED.match(line.name)]]
    numbers = [int(match.group(2)) for _line, match in found if match]
    stems = {(match.group(1).lower(), match.group(3).lower()) for _line, match in found if match}
    if not numbers or len(numbers) < len(found) or len(stems) != 1:
        return
    for (line, _match), number, wanted in zip(found, numbers, range(min(numbers[0], 1), len(numbers) + 1), strict=False):
        if number != wanted:
            raise VmdkError(
                "The extents of the split disk are not in their order: a line of the descriptor is lost or misplaced.",
                path=folder.head,
                found=f"line {line.line}: {line.name}",
                expected=f"number {wanted}",
            )
    last = found[-1][1]
    if last is not None:
        after = f"{last.group(1)}{numbers[-1] + 1:0{len(last.group(2))}}{last.group(3)}"
        if folder.has(after):
            raise VmdkError(
                "The split disk has a further extent that its descriptor does not name: a line is lost.", path=folder.head, found=after
            )
