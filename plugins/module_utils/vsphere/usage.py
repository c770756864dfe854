# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much of their capacity disks take, and how much of it has changed since a changeId, as far as that is told without a snapshot.

Vendor reference: vSphere Web Services API, VirtualMachineFileLayoutEx (C(disk[].chain[].fileKey) names the files of a disk, and
C(file[].size) is "commonly the amount of space used"), and VirtualMachine.QueryChangedDiskAreas, which without a snapshot answers of
a VM that is powered off only.
"""

from __future__ import annotations

import re
from typing import Any, Mapping, Sequence

from ..errors import BadInput, FerryError
from . import changes
from .client import Session
from .find import VmRef, find_vms
from .properties import POWER, of_objects

_LEAVES = ("layoutEx.disk", "layoutEx.file", "runtime.powerState")
#: Disks whose changed areas are asked for, at most: each is a question of its own.
MOST_ASKED = 200

_STEP = "read how much the disks hold"
_MOREF = re.compile(r"^vm-\d+$")


def allocated(disks: Sequence[Any], files: Sequence[Any]) -> dict[int, int]:
    """Bytes that the files of each disk take, by the disk's key; a disk of which vCenter tells nothing is left out. Pure."""
    sizes = {int(f.key): (str(f.type), int(f.size or 0)) for f in files or ()}
    found: dict[int, int] = {}
    for disk in disks or ():
        keys = {int(k) for link in disk.chain or () for k in link.fileKey or ()}
        known = [sizes[k] for k in keys if k in sizes]
        extents = [size for kind, size in known if kind == "diskExtent"] or [size for _kind, size in known]
        if extents and sum(extents) > 0:
            found[int(disk.key)] = sum(extents)
    return found


def read(session: Session, wanted: Sequence[str], change_ids: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """C(vms): moref, and of each disk C(key), C(allocated) and C(changed) in bytes (None: not known), and C(why) it is not known.

    :param change_ids: the changeId of each disk (by key) at the last copy, by the VM's MoRef.
    :raises BadInput: a VM that is not there.
    """
    vms = _found(session, wanted)
    rows = {row.moref: row.props for row in of_objects(session, [v.ref for v in vms], {"VirtualMachine": _LEAVES}, step=_STEP, page=500)}
    gone = [vm.name for vm in vms if vm.moref not in rows]
    if gone:
        raise BadInput("VMs are not there (any more).", step=_STEP, said=", ".join(gone[:20]), unknown=gone)
    found = []
    asked = [vm for vm in vms if change_ids.get(vm.moref) and POWER.get(str(rows[vm.moref].get("runtime.powerState"))) == "off"]
    areas = _areas(session, asked, change_ids) if asked else {}
    for vm in vms:
        props, since = rows[vm.moref], change_ids.get(vm.moref) or {}
        sizes = allocated(props.get("layoutEx.disk") or (), props.get("layoutEx.file") or ())
        disks = []
        for key in sorted({str(d.key) for d in props.get("layoutEx.disk") or ()} | set(since), key=lambda k: (len(k), k)):
            why = "of a VM that runs only a snapshot tells" if since.get(key) else "not copied with its changes tracked yet"
            changed, why = areas.get((vm.moref, key), (None, why))
            disks.append({"key": key, "allocated": sizes.get(int(key)) if key.isdigit() else None, "changed": changed, "why": why})
        found.append({"moref": vm.moref, "disks": disks})
    about = session.content.about
    return {"vms": found, "vcenter": {"instance": str(about.instanceUuid or ""), "name": str(about.fullName or "")}}


def _found(session: Session, wanted: Sequence[str]) -> list[VmRef]:
    """The VMs. MoRefs alone need no search: one that is not there is missing in the answer."""
    if all(_MOREF.match(w) for w in wanted):
        return [VmRef(w, w, w, None, False, session.managed("VirtualMachine", w)) for w in dict.fromkeys(wanted)]
    return find_vms(session, wanted)


def _areas(
    session: Session, vms: Sequence[VmRef], change_ids: Mapping[str, Mapping[str, str]]
) -> dict[tuple[str, str], tuple[int | None, str]]:
    """Bytes that have changed of VMs that are off, by MoRef and the disk's key; None with why it is not known."""
    rows = of_objects(session, [vm.ref for vm in vms], {"VirtualMachine": ("config.hardware.device",)}, step=_STEP, page=100)
    devices = {row.moref: row.props.get("config.hardware.device") or () for row in rows}
    found: dict[tuple[str, str], tuple[int | None, str]] = {}
    for vm in vms:
        for device in devices.get(vm.moref, ()):
            change_id = change_ids[vm.moref].get(str(device.key))
            if device._wsdlName != "VirtualDisk" or not change_id:
                continue
            if len(found) >= MOST_ASKED:
                found[vm.moref, str(device.key)] = None, f"asked for {MOST_ASKED} disks at most"
                continue
            capacity = int(device.capacityInBytes or 0) or int(device.capacityInKB or 0) * 1024
            found[vm.moref, str(device.key)] = _changed(session, vm, int(device.key), change_id, capacity)
    return found


def _changed(session: Session, vm: VmRef, key: int, change_id: str, capacity: int) -> tuple[int | None, str]:
    try:
        return sum(length for _start, length in changes.changed_areas(session, vm, None, key, change_id, capacity)), ""
    except FerryError as e:
        return None, e.message
