# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The processes that Ansible's modules have become, wherever it put them."""

from __future__ import annotations

from pathlib import Path


def copying(variable: str) -> list[int]:
    """Those of vm_disk_copy in whose environment C(variable), C(NAME=value), stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"AnsiballZ_vm_disk_copy" in (path / "cmdline").read_bytes() and variable.encode() in (path / "environ").read_bytes().split(
                b"\0"
            ):
                found.append(int(path.name))
        except OSError:
            continue  # it ended
    return found
