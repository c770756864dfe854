# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Opening a VM's disk as a source: its files on the datastore are read by range, or it comes as the stream of a lease."""

from __future__ import annotations

import ssl
from typing import Any, Callable
from urllib.parse import urlsplit

from ..disk.model import SECTOR, Kind, Source
from ..disk.sources.chain import ChainSource
from ..disk.sources.https import Endpoint, HttpsSource, RemoteFile
from ..disk.sources.nfc import NfcSource
from ..disk.vmdk import descriptor as vmdk_descriptor
from ..errors import FerryError, ServerError, VmdkError
from ..vsphere import disks as vsphere_disks

#: A descriptor is a page of text; VMware's own tools read at most this much.
_MAX_DESCRIPTOR = 1 << 20
#: createType of a disk whose extents are flat files on a datastore.
_FLAT = vmdk_descriptor.VMFS_TYPES | {"monolithicFlat", "twoGbMaxExtentFlat"}


def open_https(session: Any, disk: vsphere_disks.VmDisk, *, stop: Callable[[], None] = lambda: None, patience: float = 30.0) -> Source:
    """The disk C(disk), read over the datastore's HTTPS: of a powered-off VM, or as a snapshot's config has it (all of it is frozen).

    C(disk.chain) is vCenter's word on what lies over what; the running VM's own delta is in none but the running VM's.

    :param patience: seconds for which a server that fails is asked again.
    :raises VmdkError: a file is damaged, does not belong to the chain, or is of a kind that this way cannot read.
    :raises SourceError: the server refuses, or a file is missing or too short.
    """
    access = session.folder_access()
    endpoint = Endpoint(access.host, access.port, access.ssl_context, access.headers, access.renew, patience=patience)

    def remote(file: str) -> RemoteFile:
        return RemoteFile(endpoint, vsphere_disks.folder_url(file, disk.datacenter), file, stop)

    try:
        source: Source = _flat(disk, remote) if len(disk.chain) < 2 else ChainSource(disk.chain, remote)
        if source.capacity != disk.capacity:
            source.close()
            raise VmdkError(
                "The descriptor and the VM's configuration disagree on the disk's size.",
                path=disk.path,
                found=source.capacity,
                expected=disk.capacity,
            )
        return source
    except FerryError as e:
        e.add(disk=disk.label, step="open the source")
        raise


def _flat(disk: vsphere_disks.VmDisk, remote: Callable[[str], RemoteFile]) -> Source:
    """A disk of one link: flat files."""
    path = disk.path
    head = remote(path)
    try:
        text = head.read_all(_MAX_DESCRIPTOR)
    finally:
        head.close()
    found = vmdk_descriptor.parse(text, path)
    if found.is_delta:
        raise VmdkError(
            "The disk is a delta, but vCenter names no parent of it.",
            path=path,
            code="has_snapshot",
            next_command="consolidate the VM's disks, then run the same command again",
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
    return HttpsSource(parts, f"cid={found.cid:08x}")


def open_nfc(
    session: Any,
    url: str,
    disk: vsphere_disks.VmDisk,
    *,
    thumbprint: str | None = None,
    state: str | None = None,
    on_progress: Callable[[int], None] = lambda position: None,
    stop: Callable[[], None] = lambda: None,
    patience: float = 30.0,
) -> NfcSource:
    """The disk C(disk) of an export lease, whose device URL is C(url).

    Vendor reference: vSphere Web Services API, HttpNfcLeaseDeviceUrl: C(url) with "*" as host means the server that was asked;
    C(thumbprint) (sslThumbprint) is of the certificate of the host that serves it. vCenter's cookie goes to vCenter alone.

    :param state: names the disk's state (see NfcSource).
    :param on_progress: gets the position in the disk (bytes); give it the lease's progress.
    :raises ServerError: the URL is none that can be read.
    """
    access = session.folder_access()
    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port or 443
    except ValueError as e:
        raise ServerError("The lease gives a URL that is none.", disk=disk.label, step="open the source", said=url) from e
    if parts.scheme != "https" or not host or not parts.path.startswith("/") or parts.username is not None:
        raise ServerError("The lease gives a URL that cannot be read.", disk=disk.label, step="open the source", said=url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    if host == "*" or (host, port) == (access.host.lower(), access.port):
        endpoint = Endpoint(access.host, access.port, access.ssl_context, access.headers, access.renew, patience=patience)
    else:
        context = access.ssl_context
        if thumbprint is not None:
            # vCenter, whose own certificate was verified, says which certificate the host has.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        endpoint = Endpoint(host, port, context, dict, lambda: None, patience=patience, thumbprint=thumbprint)
    return NfcSource(endpoint, path, disk.capacity, name=disk.label, state=state, on_progress=on_progress, stop=stop)
