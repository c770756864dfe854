# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a folder for ledgers outlasts the job. In an execution environment the container's own files are thrown away at its end: then
the next run would know of no copy, and nothing would keep two of them from the same target.
"""

from __future__ import annotations

import os
from typing import Mapping

from ..errors import BadInput

#: Set by ansible-runner for whatever it runs, in AWX as well: ansible_runner/config/_base.py.
RUNNER_VARIABLE = "AWX_ISOLATED_DATA_DIR"
#: Set to 1 by who knows better: a lost ledger is a copy that is compared anew.
ANYWAY_VARIABLE = "FERRY_LEDGER_ANYWAY"
#: File systems of a container's own layer, and those in memory.
_PASSING = ("overlay", "fuse.fuse-overlayfs", "fuse-overlayfs", "aufs", "tmpfs", "ramfs")
#: Where ansible-runner mounts the job's own folder into a container; it is removed with the job.
_JOB = "/runner"
_NEXT = (
    "put the machines that copy into the group conversion_hosts (they keep the ledger), or set ferry_ledger to a folder that the execution "
    "environment mounts from its node (AWX: Settings, Job Settings, Paths to expose to isolated jobs)"
)


def unescaped(text: str) -> str:
    """A path as proc(5) writes it into mountinfo: blanks and the like are three octal digits."""
    out, rest = [], text
    while rest:
        head, slash, rest = rest.partition("\\")
        out.append(head)
        if slash and len(rest) >= 3 and all(c in "01234567" for c in rest[:3]):
            out.append(chr(int(rest[:3], 8)))
            rest = rest[3:]
        else:
            out.append(slash)
    return "".join(out)


def mount_of(path: str, mountinfo: str) -> tuple[str, str]:
    """(mount point, type of file system) of the absolute C(path), by proc(5)'s mountinfo; of two at one place the later one counts."""
    found = ("", "")
    for line in mountinfo.splitlines():
        head, dash, tail = line.partition(" - ")
        fields, kind = head.split(" "), tail.split(" ")[0]
        if not dash or len(fields) < 5:
            continue
        point = unescaped(fields[4])
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(found[0]):
            found = (point, kind)
    return found


def why_not(folder: str, environ: Mapping[str, str] | None = None, mountinfo: str | None = None) -> str:
    """Why the files in C(folder) end with this job; empty where they do not, or nothing says so."""
    environ = os.environ if environ is None else environ
    if not environ.get(RUNNER_VARIABLE) or environ.get(ANYWAY_VARIABLE) == "1":
        return ""
    if mountinfo is None:
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
                mountinfo = stream.read()
        except OSError:
            return ""
    path = os.path.realpath(folder)
    point, kind = mount_of(path, mountinfo)
    if kind in _PASSING:
        return f"{path} is on {kind} at {point}"
    if path == _JOB or path.startswith(_JOB + "/"):
        # Something that the user mounts below it lasts.
        return (
            "" if len(point) > len(_JOB) and point not in (f"{_JOB}/project", f"{_JOB}/artifacts") else f"{path} is in the job's own folder"
        )
    return ""


def insist(folder: str, environ: Mapping[str, str] | None = None, mountinfo: str | None = None) -> None:
    """:raises BadInput: (code C(not_lasting)) C(folder) is thrown away with this job."""
    said = why_not(folder, environ, mountinfo)
    if said:
        raise BadInput(
            "The ledger of the copies would be thrown away with this job: it is in the execution environment's own container.",
            code="not_lasting",
            step="look at the ledger's folder",
            said=said,
            left="nothing was started",
            next_command=_NEXT,
        )
