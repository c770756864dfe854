# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Opening the disks of one VM by the way that was chosen for each; leases and exports end with the copy."""

from __future__ import annotations

import contextlib
from typing import Any, Mapping

from ..disk import nbdkit
from ..disk.model import Source
from ..disk.progress import Progress
from ..disk.sources import nbd_wire
from ..disk.sources.file import FileSource
from ..disk.sources.nbd import NbdSource
from ..disk.vmdk import reader as vmdk_reader
from ..errors import BadInput, MissingLibrary
from ..vsphere import nfc
from ..vsphere.disks import VmDisk
from ..vsphere.find import VmRef
from . import sources
from .moment import Moment
from .wanted import Wanted
from .ways import Way


def open_file(path: str) -> Source:
    """A local disk file: a VMDK by its name, all else raw."""
    if _named_vmdk(path):
        found: Source = vmdk_reader.open_disk(path)
        return found
    return FileSource(path)


def open_nbd(uri: str, params: Mapping[str, Any], progress: Progress, **more: Any) -> NbdSource:
    """The NBD export at C(uri), with the options C(nbd_tls_certificates), C(validate_certs), C(patience)."""
    return NbdSource(
        uri,
        tls_certificates=params.get("nbd_tls_certificates"),
        verify=params.get("validate_certs") is not False,
        connections=max(1, int(params["workers"])),
        patience=float(params["patience"]),
        stop=progress.check,
        **more,
    )


def lacks_nbd(*, vddk: bool) -> str | None:
    """What this machine lacks to read an NBD export, and with C(vddk) to make it from VDDK; None where all is there."""
    try:
        if vddk:
            nbdkit.need_plugin("vddk")
        nbd_wire.library()
    except MissingLibrary as e:
        return e.message + (f" Next: {e.next_command}" if e.next_command else "")
    return None


class Opener:
    """Opens sources; C(stack) closes them."""

    def __init__(
        self,
        session: Any,
        ref: VmRef,
        vm: Mapping[str, Any],
        params: Mapping[str, Any],
        stack: contextlib.ExitStack,
        progress: Progress,
    ) -> None:
        self.session = session
        self.ref = ref
        self.vm = vm
        self.params = params
        self.stack = stack
        self.progress = progress
        self._lease: nfc.Lease | None = None
        #: What holds the snapshot while it is read, and has to let go before the snapshot is removed.
        self._held = stack.enter_context(contextlib.ExitStack())

    def open(self, way: Way, w: Wanted, disk: VmDisk, moment: Moment | None) -> Source:
        """The disk C(disk), as it is at C(moment) (None: as it stands while the VM is off)."""
        if way.name == "https":
            return self.https(disk)
        source = self._nfc(disk, moment) if way.name == "nfc" else self._nbd(w, disk, moment)
        self._held.callback(source.close)
        return source

    def https(self, disk: VmDisk) -> Source:
        source = sources.open_https(self.session, disk, stop=self.progress.check, patience=self.params["patience"])
        self.stack.callback(source.close)
        return source

    def let_go(self, *, done: bool) -> None:
        """End leases and exports, before the snapshot goes. C(done): all was read."""
        lease, self._lease = self._lease, None
        if lease is not None and done:
            lease.complete()
        self._held.close()

    def _state(self, disk: VmDisk, moment: Moment | None) -> str | None:
        """A name for the bytes of the disk at the moment, where there is one: only a snapshot stands still."""
        if moment is None or moment.snapshot is None:
            return None
        return f"{self.vm['instance_uuid']}:{disk.key}:{moment.snapshot.moref}"

    def _nfc(self, disk: VmDisk, moment: Moment | None) -> Source:
        if self._lease is None:
            # One lease has all disks of the VM: those that were not asked for are not downloaded.
            self._lease = nfc.export_lease(self.session, self.ref, moment.snapshot if moment else None, stop=self.progress.check)
            self._held.callback(self._lease.abort)
        lease = self._lease
        found = lease.disks.get(disk.key)
        if found is None:
            raise BadInput("The export does not hold this disk.", code="not_in_export", disk=disk.label, step="open the source")

        def position(at: int) -> None:
            lease.progress(at * 100 // max(1, disk.capacity))

        return sources.open_nfc(
            self.session,
            found.url,
            disk,
            thumbprint=found.thumbprint,
            state=self._state(disk, moment),
            on_progress=position,
            stop=self.progress.check,
            patience=self.params["patience"],
        )

    def _nbd(self, w: Wanted, disk: VmDisk, moment: Moment | None) -> Source:
        state = self._state(disk, moment)
        uri = w.nbd
        if uri is None:
            snapshot = moment.snapshot.moref if moment is not None and moment.snapshot is not None else None
            where = self.session.endpoint
            uri = self._held.enter_context(
                nbdkit.serve_vddk(
                    self.params["vddk"],
                    server=where.host,
                    port=where.port,
                    user=where.username,
                    password=where.password,
                    vm=self.ref.moref,
                    snapshot=snapshot,
                    file=disk.path,
                    context=self.session.ssl_context,
                    stop=self.progress.check,
                )
            )
        return open_nbd(uri, self.params, self.progress, name=disk.label, capacity=disk.capacity, state=state)


def _named_vmdk(path: str) -> bool:
    """Whether C(path) is to be read as a VMDK. By its name, never by its content: that of a raw disk is the guest's to write."""
    name = path.rsplit("/", 1)[-1].lower()
    return name.endswith(".vmdk") and not name.endswith(("-flat.vmdk", "-rdmp.vmdk"))
