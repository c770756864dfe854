# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Opening a VM's disk as a source: the descriptor is read from the datastore, its flat extents are read by range."""

from __future__ import annotations

from typing import Any, Callable

from ..disk.model import SECTOR, Kind, Source
from ..disk.sources.https import Endpoint, HttpsSource, RemoteFile
from ..disk.vmdk import descriptor as vmdk_descriptor
from ..errors import FerryError, VmdkError
from ..vsphere import disks as vsphere_disks

#: A descriptor is a page of text; VMware's own tools read at most this much.
_MAX_DESCRIPTOR = 1 << 20
#: createType of a disk whose extents are flat files on a datastore.
_FLAT = vmdk_descriptor.VMFS_TYPES | {"monolithicFlat", "twoGbMaxExtentFlat"}


def open_https(session: Any, disk: vsphere_disks.VmDisk, *, stop: Callable[[], None] = lambda: None, patience: float = 30.0) -> Source:
    """The disk C(disk) of a powered-off VM, read over the datastore's HTTPS.

    :raises VmdkError: the descriptor is damaged or names what this way cannot read.
    :raises SourceError: the server refuses, or a file is missing or too short.
    """
    access = session.folder_access()
    endpoint = Endpoint(access.host, access.port, access.ssl_context, access.headers, access.renew, patience=patience)
    path = disk.path

    def remote(file: str) -> RemoteFile:
        return RemoteFile(endpoint, vsphere_disks.folder_url(file, disk.datacenter), file, stop)

    try:
        head = remote(path)
        try:
            text = head.read_all(_MAX_DESCRIPTOR)
        finally:
            head.close()
        found = vmdk_descriptor.parse(text, path)
        if found.is_delta:
            raise VmdkError(
                "The disk is a delta over a parent; only disks without snapshots can be read this way.",
                path=path,
                code="has_snapshot",
                next_command="remove the VM's snapshots (consolidate) and run the same command again",
            )
        if found.encrypted:
            raise VmdkError("The disk is encrypted: its file holds ciphertext.", path=path, code="encrypted")
        if found.create_type not in _FLAT:
            raise VmdkError(
                "A disk of this type cannot be read over the datastore's HTTPS.", path=path, found=found.create_type, expected="a flat disk"
            )
        folder = path[: max(path.rfind("/"), path.rfind("] ") + 1) + 1]
        parts: list[tuple[RemoteFile | None, int, int, Kind]] = []
        for extent in found.extents:
            if extent.access == "NOACCESS" or extent.type not in ("FLAT", "VMFS", "ZERO"):
                raise VmdkError(
                    "An extent of this kind cannot be read over the datastore's HTTPS.", path=path, found=f"{extent.access} {extent.type}"
                )
            length = extent.sectors * SECTOR
            if extent.type == "ZERO":
                parts.append((None, 0, length, Kind.ZERO))
                continue
            if not extent.name or "/" in extent.name or extent.name in (".", ".."):
                raise VmdkError("The descriptor names an extent outside its own folder.", path=path, found=extent.name)
            parts.append((remote(folder + extent.name), extent.offset * SECTOR, length, Kind.DATA))
        source = HttpsSource(parts, f"cid={found.cid:08x}")
        if source.capacity != disk.capacity:
            source.close()
            raise VmdkError(
                "The descriptor and the VM's configuration disagree on the disk's size.",
                path=path,
                found=source.capacity,
                expected=disk.capacity,
            )
        return source
    except FerryError as e:
        e.add(disk=disk.label, step="open the source")
        raise
