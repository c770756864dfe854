# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In which form a disk is sent to Glance, and with which properties: what glance_vmdk_upload and vm_disk_copy decide before they send."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Mapping

from ..disk import controllers
from ..disk.model import SECTOR, Source
from ..disk.vmdk.glance import boots
from ..disk.vmdk.info import inspect
from ..disk.vmdk.kinds import kind_of
from ..disk.vmdk.reader import open_disk
from ..disk.vmdk.sparse_stream import CREATE_TYPE
from ..errors import BadInput
from . import properties
from .sending import INDEXED, RAW, Opener

#: What Glance and both of Nova's drivers take, and we can write without knowing the end before the beginning.
STREAM = "streamOptimized"


@dataclass
class Form:
    """How a disk is sent. C(converted_to) is None where a file is sent as it is.

    :param capacity: of the disk, in bytes.
    :param bootable: whether Nova with the hypervisor that was asked for boots a server from what is sent.
    :param reasons: what stands against that.
    """

    path: str
    kind: str
    capacity: int
    disk_format: str
    disktype: str | None
    adapter: str | None
    converted_to: str | None
    reasons: list[str] = field(default_factory=list)
    bootable: bool = True
    #: How C(sending.Converted) writes it, where it is converted: C(converted_to), or C(indexed).
    wire: str | None = None
    #: Opens a disk that is no local file; C(path) then is its name.
    opener: Opener | None = None
    #: Threads that read and compress it; None for as many as there are processors.
    threads: int | None = None

    def open(self) -> Source:
        """The disk itself, opened."""
        return open_disk(self.path, format=self.kind) if self.opener is None else self.opener()

    @property
    def descriptor_adapter(self) -> str:
        """What a VMDK that is made of it names as its adapter; there is no word for SATA and NVMe."""
        found = controllers.find(self.adapter or "")
        return found.name if found is not None and found.ddb else "lsilogic"

    def accepts(self, form: object, hypervisor: str, disktype: str | None) -> bool:
        """Whether an image with this very disk, sent as C(form) (the image's property ferry_form), is what is wanted.

        Where nobody asked for a form, any that the hypervisor boots, and of which Cinder makes volumes under KVM.
        """
        own = self.wire or (RAW if self.disk_format == "raw" else None)
        if form in (None, own):
            return True
        if RAW in (form, own):
            return False
        good = {"sparse": {CREATE_TYPE}, "streamOptimized": {INDEXED, STREAM}}.get(str(disktype), {INDEXED, STREAM, CREATE_TYPE})
        return form in (good - {STREAM} if hypervisor == "kvm" else good)

    @property
    def size(self) -> int | None:
        """Bytes that will be sent, where that is known before."""
        return None if self.converted_to else os.path.getsize(self.path)


def decide(path: str, *, hypervisor: str, convert: str, adapter_type: str | None = None, disktype: str | None = None) -> Form:
    """How the file at C(path) is sent so that Glance takes it and Nova boots it.

    :param hypervisor: C(kvm) or C(vmware), what will run its servers.
    :param convert: C(auto), or C(never): as it is, or not at all.
    :param disktype: the form that is wanted (a value of C(vmware_disktype)); None leaves the choice.
    :raises BadInput: the file would not be taken and may not, or cannot, be converted; says why.
    """
    facts = inspect(path, hypervisor)
    verdict = facts["glance"]
    broken = [p["message"] for p in facts["problems"] if p["severity"] != "warning"]
    if broken:
        raise BadInput(f"This disk cannot be read whole: {broken[0]}", disk=path, step="look at the disk", problems=facts["problems"][:10])
    kind = kind_of(path)
    form = Form(
        path=path,
        kind=kind,
        capacity=facts["capacity"],
        disk_format=verdict["disk_format"] or "vmdk",
        disktype=verdict["vmware_disktype"],
        adapter=adapter_type or facts["adapter_type"],
        converted_to=None,
        reasons=list(verdict["reasons"]),
        bootable=bool(verdict["bootable"]),
    )
    _possible(form, disktype)
    other = disktype is not None and kind != "qcow2" and disktype != form.disktype
    # A raw disk would be taken, but its zeroes would travel with it.
    good = verdict["accepted"] and kind != "raw" and not other and not any("convert it" in r for r in form.reasons)
    if good or (convert == "never" and verdict["accepted"] and not other):
        return form
    why = "; ".join(form.reasons) or (f"it is not {disktype}" if other else "it is raw")
    if convert == "never":
        raise BadInput(
            f"This file is not {disktype}, and convert is never." if other else "Glance would refuse this file, and convert is never.",
            disk=path,
            step="look at the disk",
            said=why,
            next_command="Set convert: auto.",
        )
    if kind == "qcow2":
        raise BadInput(
            "A qcow2 image cannot be converted on the fly.",
            disk=path,
            step="look at the disk",
            said=why,
            next_command="Convert it first: ferry.vmware.vmdk_convert with format: streamOptimized.",
        )
    form.disk_format = "vmdk"
    form.disktype, form.converted_to = ("sparse", CREATE_TYPE) if disktype == "sparse" else (STREAM, STREAM)
    form.wire = INDEXED if hypervisor == "kvm" and form.converted_to == STREAM else form.converted_to
    # What was said of the file's form does not hold for the stream; what was said of the disk does.
    form.reasons = [r for r in form.reasons if r.startswith(("no boot sector", "the disk is empty"))]
    if not form.reasons and not _boots(path, kind):
        form.reasons = ["no boot sector: it is a data disk, or a disk that was never partitioned"]
    form.bootable = not form.reasons
    return form


def of_disk(
    name: str, capacity: int, opener: Opener, *, hypervisor: str, raw: bool = False, adapter: str | None = None, threads: int | None = None
) -> Form:
    """How a disk is sent that is read from elsewhere, and not judged before.

    :param raw: as raw bytes, zeroes too, in one pass; else as streamOptimized.
    :raises BadInput: C(hypervisor) boots no such image.
    """
    if raw and hypervisor != "kvm":
        raise BadInput(
            "Nova's VMware driver boots no raw image.", disk=name, step="read the options", next_command="Use format: streamOptimized."
        )
    if raw:
        return Form(name, RAW, capacity, "raw", None, adapter, RAW, wire=RAW, opener=opener, threads=threads)
    wire = INDEXED if hypervisor == "kvm" else STREAM
    return Form(name, "vmdk", capacity, "vmdk", STREAM, adapter, STREAM, wire=wire, opener=opener, threads=threads)


def _possible(form: Form, disktype: str | None) -> None:
    """Refuse a form that no file sent to Glance has, or that cannot be written while it is sent."""
    if disktype == "preallocated":
        raise BadInput(
            "No image is preallocated: Glance takes flat data as raw only, which Nova's VMware driver refuses.",
            disk=form.path,
            step="read the options",
            next_command="Leave disktype out: the disk is sent as streamOptimized.",
        )


def _boots(path: str, kind: str) -> bool:
    with closing(open_disk(path, format=kind)) as disk:
        return disk.capacity >= SECTOR and boots(disk.read(0, SECTOR))


def properties_for(
    form: Form, *, hypervisor: str, machine: Mapping[str, Any] | None = None, own: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Image properties for the disk's controller and, as far as it is known, the rest of its machine; the user's own win.

    :param machine: guest_id, firmware, secure_boot, nic_type and hardware, the options of glance_vmdk_upload; None is not known.
        disk_count: how many disks the machine has on this controller, for those of QEMU's that have room for few.
    :raises BadInput: Nova would refuse them, or they name two controllers; code C(conflict).
    """
    about = dict(machine or {})
    vm: dict[str, Any] = {
        "guest_id": about.get("guest_id"),
        "firmware": about.get("firmware"),
        "secure_boot": about.get("secure_boot"),
        "nics": [{"type": about["nic_type"]}] if about.get("nic_type") else [],
    }
    if form.adapter:
        vm["disks"] = [{"controller": form.adapter}] * int(about.get("disk_count") or 1)
    hardware = str(about.get("hardware") or "source")
    found = properties.for_vm(vm, {"controller": form.adapter}, hypervisor=hypervisor, hardware=hardware)
    if not about.get("firmware"):
        found.pop("hw_firmware_type", None)
    if hypervisor == "vmware" and form.disk_format == "vmdk" and form.disktype:
        found["vmware_disktype"] = form.disktype
    found = properties.merge(found, own)
    wrong = properties.faults(found, hypervisor)
    said = found.get("vmware_disktype")
    if said and form.disk_format == "vmdk" and form.disktype and said != form.disktype:
        wrong.append(f"vmware_disktype is {said}, what is sent is {form.disktype}")
    if wrong:
        raise BadInput(
            f"The image's properties would not do: {'; '.join(wrong)}.",
            code="conflict",
            step="read the options",
            properties=found,
        )
    return found
