# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An export lease (HttpNfcLease): the disks of a powered-off VM, or of a snapshot, as streams over HTTPS.

Vendor reference: vSphere Web Services API, VirtualMachine.ExportVm, VirtualMachineSnapshot.ExportSnapshot and HttpNfcLease. A lease
ends by itself where no progress is reported for leaseTimeout seconds, so a thread reports it while the streams are read.
"""

from __future__ import annotations

import re
import ssl
import threading
from dataclasses import dataclass, field
from typing import Any, Callable
from urllib.parse import urlsplit

from ..errors import BadInput, FerryError, ServerError, bounded
from . import guest
from .client import FolderAccess, Session, fault_name, fault_text
from .disks import VmDisk
from .find import VmRef
from .properties import of_objects
from .snapshot_tree import Snapshot, disks_at
from .steady import Deadline, is_away, is_busy

#: Seconds that vCenter has until a lease is ready: it opens the disks on the host.
READY_TIMEOUT = 300.0
#: Seconds for which a lease is asked for while the VM or the host's NFC service is busy.
BUSY_TIMEOUT = 120.0

#: A device URL's key: /vm-42/ParaVirtualSCSIController0:1, class of the controller, its bus and the unit.
_KEY = re.compile(r"([A-Za-z]\w*?)(\d+):(\d+)$")


@dataclass(frozen=True)
class LeaseDisk:
    """One disk of a lease. C(url): absolute. C(headers): to be called for each request; a cookie only where the URL's host is the
    one that the session is with. C(size): bytes that the server names for the stream, often 0 or an estimate."""

    key: int
    label: str
    capacity: int
    url: str
    size: int
    target: str
    thumbprint: str | None
    ssl_context: ssl.SSLContext = field(repr=False)
    headers: Callable[[], dict[str, str]] = field(repr=False)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 443

    @property
    def path(self) -> str:
        """Path and query, for a request."""
        parts = urlsplit(self.url)
        return parts.path + (f"?{parts.query}" if parts.query else "")


def lease_url(url: str, netloc: str) -> str:
    """C(url) of a lease with its "*" replaced: by the host that the session is with, and its port where the URL names none. Pure.

    :param netloc: host:port of the session.
    :raises ServerError: code protocol: it is no https URL.
    """
    found = re.match(r"^https://(\*|\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d{1,5})?(/.*)$", url)
    if not found:
        raise ServerError(
            "The lease names an address that is no https URL.", code="protocol", step="open the lease", said=bounded(url, 120)
        )
    host, port, path = found.groups()
    if host != "*":
        return url
    own_host, _colon, own_port = netloc.rpartition(":")
    return f"https://{own_host}{port or ':' + own_port}{path}"


def match_disk(key: str, disks: list[VmDisk]) -> VmDisk | None:
    """The disk that a device URL's C(key) names, by device key or by its place on its controller; None where it names none. Pure."""
    if key.isdigit():
        return next((d for d in disks if d.key == int(key)), None)
    found = _KEY.search(key)
    if not found:
        return None
    at = int(found[2]), int(found[3])
    return next((d for d in disks if (d.bus, d.unit) == at and d.controller.casefold() == found[1].casefold()), None)


class Lease:
    """A lease that is ready, kept alive by a thread until complete() or abort(). To be used with C(with): an exception aborts it.

    C(disks): by device key. C(timeout): seconds that the server waits for a sign of life.
    """

    def __init__(self, session: Session, vm: VmRef, ref: Any, disks: dict[int, LeaseDisk], timeout: float) -> None:
        self._session = session
        self._vm = vm
        self._ref = ref
        self.disks = disks
        self.timeout = timeout
        self._percent = 0
        self._failure: FerryError | None = None
        self._over = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._keep_alive, name=f"lease of {vm.name}", daemon=True)
        self._thread.start()

    def progress(self, percent: int) -> None:
        """Tell how far the download is, 0 to 100; it goes out with the next sign of life, and vCenter shows it.

        :raises ServerError: code lease_lost, see check().
        """
        self._percent = max(self._percent, min(100, int(percent)))
        self.check()

    def check(self) -> None:
        """Raise what the thread that keeps it alive has met.

        :raises ServerError: code lease_lost: it has timed out, or vCenter has taken it back. Its streams are cut.
        """
        if self._failure is not None:
            raise self._failure

    def complete(self) -> None:
        """End it: everything was read. The VM is free again."""
        self._quiet()
        self.check()
        self._session.call(self._ref.HttpNfcLeaseProgress, 100, step="end the lease")
        self._session.call(self._ref.HttpNfcLeaseComplete, step="end the lease")
        self._ended = True

    def abort(self) -> None:
        """Give it back where reading has failed; the VM is free again. One that is over already is no error."""
        self._quiet()
        if self._ended:
            return
        self._ended = True
        try:
            self._session.call(self._ref.HttpNfcLeaseAbort, None, step="abort the lease")
        except ServerError:
            pass  # it times out by itself

    def _quiet(self) -> None:
        self._over.set()
        self._thread.join()

    def _keep_alive(self) -> None:
        """Report progress three times within each timeout. A vCenter that is away may come back before the lease is over."""
        pause = max(0.2, self.timeout / 3)
        deadline = Deadline(self.timeout)
        while not self._over.wait(pause):
            try:
                self._session.call(self._ref.HttpNfcLeaseProgress, self._percent, step="keep the lease alive", again=True)
                deadline = Deadline(self.timeout)
                pause = max(0.2, self.timeout / 3)
            except FerryError as e:
                if is_away(e) and deadline.left > 0:
                    pause = min(pause, 1.0)
                    continue
                self._failure = ServerError(
                    "The export lease is lost: vCenter has ended it, and cuts the streams.",
                    code="lease_lost",
                    vm=self._vm.name,
                    step="read the disks by NFC",
                    said=e.said or e.message,
                    next_command="run the same command again",
                )
                return

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None and not self._ended:
                self.complete()
        finally:
            self.abort()


def export_lease(
    session: Session, vm: VmRef, snapshot: Snapshot | None = None, *, timeout: float = READY_TIMEOUT, stop: Callable[[], None] | None = None
) -> Lease:
    """A lease on the disks of C(snapshot), or of C(vm) where it is powered off, ready to be read.

    :param timeout: seconds until it has to be ready.
    :param stop: is called between looks and raises where the work is to end.
    :raises BadInput: code vm_running: a running VM has to be read from a snapshot.
    :raises ServerError: code fault (the VM is locked by another lease: TaskInProgress), lease (it never became ready, with vCenter's
        reason), protocol (a disk cannot be told by its key).
    """
    step = "open the lease"
    disks = disks_at(session, vm, snapshot) if snapshot is not None else guest.vm_disks(session, vm)
    ask = vm.ref.ExportVm if snapshot is None else session.managed("VirtualMachineSnapshot", snapshot.moref).ExportSnapshot
    busy = Deadline(BUSY_TIMEOUT)
    while True:
        try:
            ref = session.call(ask, step=step)
            break
        except ServerError as e:
            e.add(vm=vm.name)
            if e.details.get("fault") == "InvalidPowerState":
                raise BadInput(
                    "The VM is running: its disks can be exported from a snapshot only.",
                    code="vm_running",
                    vm=vm.name,
                    step=step,
                    said=e.said,
                    next_command="take a snapshot, or shut the VM down",
                ) from e
            if not is_busy(e) or not busy.wait():
                raise
        if stop is not None:
            stop()
    try:
        info = _ready(session, vm, ref, Deadline(timeout), stop)
        found = _disks(session, vm, info, disks)
    except BaseException:
        try:
            session.call(ref.HttpNfcLeaseAbort, None, step="abort the lease")
        except ServerError:
            pass  # it times out by itself
        raise
    return Lease(session, vm, ref, found, float(info.leaseTimeout or READY_TIMEOUT))


def _ready(session: Session, vm: VmRef, ref: Any, deadline: Deadline, stop: Callable[[], None] | None) -> Any:
    """Wait until the lease is ready; its C(info)."""
    step = "open the lease"
    while True:
        rows = of_objects(session, [ref], {"HttpNfcLease": ("state", "error", "info")}, step=step)
        props = rows[0].props if rows else {}
        state = str(props.get("state", "gone"))
        if state == "ready" and props.get("info") is not None:
            return props["info"]
        if state in ("error", "done", "gone"):
            fault = props.get("error")
            raise ServerError(
                "vCenter could not open the disks for export.",
                code="lease",
                vm=vm.name,
                step=step,
                said=fault_text(fault) if fault is not None else f"the lease is {state}",
                fault=fault_name(fault) if fault is not None else None,
            )
        if stop is not None:
            stop()
        if not deadline.wait():
            raise ServerError("The export lease did not become ready in time.", code="lease", vm=vm.name, step=step, said=state)


def _disks(session: Session, vm: VmRef, info: Any, disks: list[VmDisk]) -> dict[int, LeaseDisk]:
    access: FolderAccess = session.folder_access()
    found: dict[int, LeaseDisk] = {}
    for device in info.deviceUrl or ():
        if not device.disk:
            continue
        disk = match_disk(str(device.key), disks)
        if disk is None or disk.key in found:
            raise ServerError(
                "A disk of the export cannot be told by its key.",
                code="protocol",
                vm=vm.name,
                step="open the lease",
                said=f"{bounded(device.key, 120)} among {', '.join(f'{d.controller}{d.bus}:{d.unit}' for d in disks)}",
            )
        url = lease_url(str(device.url), session.endpoint.netloc)
        own = urlsplit(url).hostname == urlsplit(f"https://{session.endpoint.netloc}").hostname
        found[disk.key] = LeaseDisk(
            key=disk.key,
            label=disk.label,
            capacity=disk.capacity,
            url=url,
            size=int(device.fileSize or 0),
            target=str(device.targetId or ""),
            thumbprint=device.sslThumbprint or None,
            ssl_context=access.ssl_context,
            headers=access.headers if own else dict,
        )
    return found
