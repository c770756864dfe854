# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What vm_disk_copy was asked for: which disk goes where. No server is asked here."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field, replace
from typing import Any, Iterator, Mapping, Sequence

from ..errors import BadInput, FerryError
from ..vsphere import disks as vsphere_disks

#: What a target file may be written as; raw also means a block device or a volume.
FORMATS = ("raw", "monolithicFlat", "vmfs", "monolithicSparse", "streamOptimized")
#: The form of an image, which is sent from its beginning to its end, and nothing else is.
STREAM = "streamOptimized"

_NBD = re.compile(r"^nbds?(\+unix|\+vsock)?://", re.IGNORECASE)


@dataclass(frozen=True)
class Wanted:
    """One disk to be copied: where from, where to. C(capacity): bytes, 0 where the source has not told yet."""

    label: str
    key: str
    capacity: int
    dest: Mapping[str, Any]
    format: str = "raw"
    facts: vsphere_disks.VmDisk | None = None
    nbd: str | None = None
    #: The options C(disks[].image), where the target is an image.
    image: Mapping[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The target as the ledger names it."""
        for kind in ("volume", "image"):
            if self.dest.get(kind):
                return f"{kind}:{self.dest[kind]}"
        return f"path:{os.path.abspath(self.dest['path'])}"

    def sized(self, capacity: int) -> Wanted:
        return self if capacity == self.capacity else replace(self, capacity=capacity)


@contextlib.contextmanager
def naming(w: Wanted) -> Iterator[None]:
    """What is raised within names the disk."""
    try:
        yield
    except FerryError as e:
        if e.disk not in (None, w.label):
            e.details.setdefault("file", e.disk)
        e.disk = w.label
        raise


def is_nbd(source: str) -> bool:
    """Whether C(source) is an NBD URI rather than a path (NBD URI specification: nbd, nbds, nbd+unix, nbds+unix, +vsock)."""
    return bool(_NBD.match(source))


def of_vm(vm: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> list[Wanted]:
    """The disks of C(vm) (guest.read_vms) that C(entries) (the option C(disks)) name.

    :raises BadInput: a disk that is not there, or one disk or target named twice.
    """
    out = []
    disks: list[vsphere_disks.VmDisk] = vm["disks"]
    for entry in entries:
        if entry.get("disk") is None and len(disks) != 1:
            raise BadInput("Say which disk goes where.", step="find the disk", said=", ".join(d.label for d in disks))
        disk = vsphere_disks.find_disk(disks, entry["disk"]) if entry.get("disk") is not None else disks[0]
        out.append(Wanted(disk.label, str(disk.key), disk.capacity, _dest(entry), _format(entry), disk, entry.get("nbd"), _image(entry)))
    for what, values in (("disk", [w.key for w in out]), ("target", [w.target for w in out])):
        if len(set(values)) != len(values):
            raise BadInput(f"The same {what} is named twice.", step="read the options")
    return out


def of_source(source: str, entries: Sequence[Mapping[str, Any]]) -> Wanted:
    """The one disk that is the file or the NBD export C(source)."""
    if len(entries) != 1 or entries[0].get("disk") is not None or entries[0].get("nbd"):
        raise BadInput("With source there is one disk: give one entry in disks, with dest only.", step="read the options")
    if is_nbd(source):
        shown = shown_uri(source)
        return Wanted(shown, shown, 0, _dest(entries[0]), _format(entries[0]), None, source, _image(entries[0]))
    path = os.path.abspath(os.path.expanduser(source))
    return Wanted(os.path.basename(path), path, 0, _dest(entries[0]), _format(entries[0]), image=_image(entries[0]))


def shown_uri(uri: str) -> str:
    """C(uri) without what may be secret in it (a password in the authority)."""
    return re.sub(r"^(\w[\w+.-]*://)[^/@]*@", r"\1", uri)


def _dest(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    dest: Mapping[str, Any] = entry.get("dest") or {}
    if len([k for k in ("path", "volume", "image") if dest.get(k)]) != 1:
        raise BadInput("dest needs one of path, volume and image.", step="read the options")
    return dest


def _format(entry: Mapping[str, Any]) -> str:
    dest = entry.get("dest") or {}
    found = str(entry.get("format") or (STREAM if dest.get("image") else "raw"))
    if found != "raw" and dest.get("volume"):
        raise BadInput("A volume is written raw: format belongs to dest.path and dest.image.", step="read the options")
    if dest.get("image") and found not in ("raw", STREAM):
        raise BadInput(f"An image is sent as raw or {STREAM}.", step="read the options")
    if found == STREAM and dest.get("path"):
        raise BadInput(
            "A streamOptimized file is written forwards only, so no copy could go on in it.",
            step="read the options",
            next_command="copy to a raw file, and make the stream of it with ferry.vmware.vmdk_convert",
        )
    return found


def _image(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = entry.get("image") or {}
    if any(v is not None for v in found.values()) and not (entry.get("dest") or {}).get("image"):
        raise BadInput("image describes the image that dest.image names.", step="read the options")
    return found
