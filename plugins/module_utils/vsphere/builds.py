# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ESXi builds whose changed block tracking is known to miss changes.

Only what its makers state stands here; a build that is not listed is not thereby proven good. That is why each cutover also
compares a sample outside the changed areas, and why the caller may name further builds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Sequence

from ..errors import BadInput
from .client import Session
from .find import VmRef
from .properties import of_objects

GIB = 1 << 30


@dataclass(frozen=True)
class Build:
    """An ESXi host's product: C(version) as "6.0.0", C(number) the build, C(host) its name."""

    version: str
    number: int
    host: str = ""

    def __str__(self) -> str:
        return f"ESXi {self.version} build {self.number}"


@dataclass(frozen=True)
class Bad:
    """Builds of one C(version) (its beginning, whole numbers: "6.0" is all of 6.0.x) below C(fixed) (None: all of them).

    C(above): only disks larger than so many bytes.
    """

    version: str
    fixed: int | None
    why: str
    above: int = 0

    def covers(self, build: Build) -> bool:
        parts = self.version.split(".")
        return build.version.split(".")[: len(parts)] == parts and (self.fixed is None or build.number < self.fixed)


KNOWN_BAD: tuple[Bad, ...] = (
    # Broadcom KB 317933 (VMware KB 2136854): "change tracking information of I/Os that occur during snapshot consolidation to be
    # lost", ESXi 6.0.x, "resolved in VMware ESXi 6.0 patch ESXi600-201511001". The KB names the patch; that its build is 3247720
    # (ESXi 6.0 Express Patch 4, 2015-11-25) is from public lists of builds.
    Bad("6.0", 3_247_720, "changes made during consolidation are missing (Broadcom KB 317933; fixed by ESXi600-201511001)"),
    # Broadcom KB 310751 (VMware KB 2090639): wrong after a disk was extended past a 128 GB boundary. "Currently, there is no
    # resolution for ESXi 4.x". Whether a disk was ever extended cannot be seen. 5.x has fixed releases; which, is not listed here.
    Bad("4", None, "changes are missing once a disk was extended past 128 GB (Broadcom KB 310751; never fixed)", above=128 * GIB),
)

_NUMBER = re.compile(r"^(?:(\d+(?:\.\d+){0,3})(?:[ :-])+)?(\d+)$")


def parse_bad(text: str) -> Bad:
    """A build that the user distrusts: a build number ("24022510"), or a version and a number ("8.0.2 22380479"): this build alone.

    :raises BadInput: it is neither.
    """
    found = _NUMBER.match(text.strip())
    if not found:
        raise BadInput(
            f"{text!r} is no ESXi build: give its number (24022510), or version and number (8.0.3 24022510).", step="read the options"
        )
    return _Exactly(found[1] or "", int(found[2]), f"build {found[2]} is on the list given")


class _Exactly(Bad):
    """One build alone, of any version where C(version) is empty."""

    def covers(self, build: Build) -> bool:
        return build.number == self.fixed and (not self.version or build.version == self.version)


def bad_build(build: Build | None, capacity: int = 0, more: Sequence[str] = ()) -> str | None:
    """Why areas from C(build) are not to be used, or None.

    :param capacity: of the disk, in bytes.
    :param more: further builds, see parse_bad.
    """
    if build is None:
        return None
    for bad in (*KNOWN_BAD, *map(parse_bad, more)):
        if bad.covers(build) and capacity >= bad.above:
            return f"{build}: {bad.why}"
    return None


def host_build(session: Session, vm: VmRef) -> Build | None:
    """The product of the host that C(vm) is on now; None where it cannot be read (no privilege on the host, or no host)."""
    step = "read the ESXi build"
    rows = of_objects(session, [vm.ref], {"VirtualMachine": ("runtime.host",)}, step=step)
    host: Any = rows[0].props.get("runtime.host") if rows else None
    if host is None:
        return None
    found = of_objects(session, [host], {"HostSystem": ("name", "config.product.version", "config.product.build")}, step=step)
    props = found[0].props if found else {}
    version, number = props.get("config.product.version"), str(props.get("config.product.build") or "")
    return Build(str(version), int(number), str(props.get("name", ""))) if version and number.isdigit() else None
