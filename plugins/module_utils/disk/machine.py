# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual machines that are given as files: an OVA, an OVF descriptor, a .vmx file, a folder with one of them, or bare disks.

The facts have the form of those that vm_info reads from a vCenter, so that everything that plans from those plans from these. What a
descriptor says of a disk's size is not believed: the disk is opened. A name in it never leads out of its folder.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import uuid
from typing import Any, Mapping

from . import ovf, vmx
from .controllers import find
from .errors import BadInput, FerryError, VmdkError, bounded
from .vmdk.container import Archive
from .vmdk.files import refuse_name
from .vmdk.info import inspect

STEP = "read the machine's files"
#: What a machine made of these files is tagged with is derived in this name space.
NAMESPACE = uuid.UUID("8a3f6c52-6f0e-5d0b-9c1f-3b0f3a5c7d11")
#: The order in which vSphere lists disks: by controller, bus, unit.
_KINDS = ("ide", "scsi", "sata", "nvme")
_PARTS = re.compile(r"-(flat|delta|ctk|rdm|rdmp|sesparse|[sf]\d{3})\.vmdk$", re.IGNORECASE)
_DISKS = (".vmdk", ".raw", ".img", ".qcow2")
_MAX_FILES = 10_000
#: What may be said of a machine whose files do not tell it, or tell it wrongly.
HARDWARE = ("cpus", "cores_per_socket", "memory_mb", "firmware", "secure_boot", "guest_id", "controller", "nics")


def read(path: str, *, name: str | None = None, hardware: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The machines at C(path): facts as vm_info returns them, each disk with C(file), and C(problems) in words.

    :param path: C(.ova), C(.ovf), C(.vmx), a disk, or a folder.
    :param name: the machine's name, where there is one machine; of several the one that is meant.
    :param hardware: what wins over the files, keys of HARDWARE; C(memory_mb) in MiB.
    :raises BadInput: there is nothing to be read, or too much to choose from.
    """
    said = {k: v for k, v in (hardware or {}).items() if v is not None}
    path = path.rstrip("/") if len(path) > 1 else path
    if os.path.isdir(path):
        path = _in_folder(path) or path
    low = path.lower()
    if os.path.isdir(path):
        machines, base = [_bare(path, _disks_in(path), said)], path
    elif not os.path.isfile(path):
        raise BadInput("There is no such file or folder.", disk=path, step=STEP)
    elif low.endswith(".ova"):
        machines, base = ovf.parse(*_of_archive(path)), path
    elif low.endswith(".ovf"):
        machines, base = ovf.parse(_bytes(path, ovf.MAX_BYTES), path), os.path.dirname(path)
    elif low.endswith(".vmx"):
        machines, base = [vmx.parse(_bytes(path, vmx.MAX_BYTES), path)], os.path.dirname(path)
    else:
        machines, base = [_bare(os.path.splitext(path)[0], [os.path.basename(path)], said)], os.path.dirname(path)
    if name and len(machines) > 1:
        machines = [m for m in machines if m.name == name] or machines
        if len(machines) != 1:
            raise BadInput(
                f"There is not one machine named {bounded(name, 80)}.",
                disk=path,
                step=STEP,
                said="there are " + ", ".join(bounded(m.name, 60) for m in machines[:20]),
            )
    return [_facts(m, base, path, name or m.name, said) for m in machines]


def _bytes(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read(limit + 1)
    except OSError as e:
        raise BadInput("The file cannot be read.", disk=path, step=STEP, said=e.strerror or e) from None


def _of_archive(path: str) -> tuple[bytes, str]:
    """(the descriptor of an OVA, its path). It is the archive's only member with that ending (DSP0243: the first)."""
    archive = Archive(path)
    names = [n for n in archive.names() if n.lower().endswith(".ovf")]
    if len(names) != 1:
        raise BadInput(f"The OVA has {len(names) or 'no'} OVF descriptors.", disk=path, step=STEP)
    member = archive.member(names[0])
    try:
        size = min(member.size, ovf.MAX_BYTES + 1)
        return member.read(0, size), posixpath.join(path, names[0])
    finally:
        member.close()


def _in_folder(folder: str) -> str | None:
    """The descriptor in a folder; None where there are disks only."""
    names = sorted(os.listdir(folder))
    if len(names) > _MAX_FILES:
        raise BadInput(f"The folder has more than {_MAX_FILES} files.", disk=folder, step=STEP)
    for ending in (".ovf", ".vmx", ".ova"):
        found = [n for n in names if n.lower().endswith(ending) and not n.startswith(".")]
        if len(found) > 1:
            raise BadInput("The folder has several machines; name the file of one.", disk=folder, step=STEP, said=", ".join(found[:20]))
        if found:
            return os.path.join(folder, found[0])
    return None


def _disks_in(folder: str) -> list[str]:
    """Names of the disks in a folder, without their parts; disk2 comes before disk10."""
    names = [n for n in os.listdir(folder) if n.lower().endswith(_DISKS) and not _PARTS.search(n) and not n.startswith(".")]
    names = [n for n in names if os.path.isfile(os.path.join(folder, n))]
    if not names:
        raise BadInput("There is no OVF descriptor, no .vmx file and no disk in this folder.", disk=folder, step=STEP)

    def key(name: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name.lower())]

    return sorted(names, key=key)


def _bare(path: str, names: list[str], said: Mapping[str, Any]) -> ovf.OvfMachine:
    """A machine of disks alone: its hardware has to be said."""
    missing = [k for k in ("cpus", "memory_mb") if not said.get(k)]
    if missing:
        raise BadInput(
            "No descriptor says what hardware these disks belong to.",
            disk=path,
            step=STEP,
            next_command=f"Say it in hardware: {', '.join(missing)}.",
        )
    machine = ovf.OvfMachine(os.path.basename(path) or "vm")
    machine.disks = [ovf.OvfDisk(n, n, None, None, 0, i) for i, n in enumerate(names)]
    return machine


def _facts(machine: ovf.OvfMachine, base: str, path: str, name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    problems: list[str] = []
    disks = [_disk(d, base, path, said, problems) for d in machine.disks]
    order = {k: i for i, k in enumerate(_KINDS)}
    disks.sort(key=lambda d: (order.get(d["controller_kind"], len(order)), d["bus"], d["unit"]))
    for index, disk in enumerate(disks):
        disk["key"], disk["label"] = 2000 + index, f"Hard disk {index + 1}"
    nics: list[dict[str, Any]] = [
        {"label": n.label, "type": n.kind, "network": n.network, "mac": n.mac, "addresses": []} for n in machine.nics
    ]
    if "nics" in said:
        nics = [
            {"label": f"Network adapter {i + 1}", "type": "vmxnet3", "mac": None, "addresses": [], **dict(n)}
            for i, n in enumerate(said["nics"])
        ]
    for index, nic in enumerate(nics):
        nic["key"] = 4000 + index
    memory_mb = int(said.get("memory_mb") or -(-machine.memory // (1 << 20)))
    if memory_mb <= 0:
        raise BadInput("Nothing says how much memory it has.", vm=name, disk=path, step=STEP, next_command="Say it in hardware: memory_mb.")
    identity = json.dumps([name, [[os.path.basename(str(d["file"] or "")), d["capacity"]] for d in disks]])
    return {
        "name": name,
        "moref": None,
        "instance_uuid": str(uuid.uuid5(NAMESPACE, identity)),
        "path": path,
        "power": "off",
        "guest_id": said.get("guest_id") or machine.guest_id,
        "firmware": said.get("firmware") or machine.firmware,
        "secure_boot": bool(said.get("secure_boot", machine.secure_boot)),
        "hw_version": machine.hw_version,
        "cpus": int(said.get("cpus") or machine.cpus),
        "cores_per_socket": int(said.get("cores_per_socket") or machine.cores_per_socket),
        "memory_mb": memory_mb,
        "annotation": machine.annotation,
        "custom_attributes": {},
        "boot_disks": [],
        "disks": disks,
        "nics": nics,
        "problems": problems,
    }


def _disk(disk: ovf.OvfDisk, base: str, path: str, said: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    where = bounded(disk.href or disk.disk_id, 120)
    facts: dict[str, Any] = {
        "bus": disk.bus,
        "unit": disk.unit,
        "file": None,
        "capacity": disk.capacity or 0,
        "datastore": "",
        "adapter": None,
    }
    if disk.href is not None:
        try:
            facts["file"] = _place(disk.href, base, path)
            if disk.parent:
                raise VmdkError("The disk is a delta over another one, which an OVF descriptor may say; it is not read.")
            seen = inspect(facts["file"], "kvm")
            facts["adapter"] = seen["adapter_type"]
            if disk.capacity is not None and disk.capacity != seen["capacity"]:
                problems.append(
                    f"{where}: the descriptor says {disk.capacity} bytes, the disk has {seen['capacity']}; the disk is believed"
                )
            facts["capacity"] = seen["capacity"]
        except (FerryError, OSError) as e:
            facts["error"] = bounded(e.message if isinstance(e, FerryError) else e.strerror or e)
            problems.append(f"{where}: {facts['error']}")
    name = str(said.get("controller") or disk.controller or facts["adapter"] or "")
    controller = find(name) if name else None
    facts["controller"] = controller.name if controller else None
    facts["controller_kind"] = "scsi" if controller and controller.hw_scsi_model else controller.name if controller else "unknown"
    return facts


def _place(href: str, base: str, path: str) -> str:
    """The file that a descriptor names, inside of its own folder or archive.

    :raises VmdkError: the name leads elsewhere.
    """
    name = href.removeprefix("file:").removeprefix("./")
    refuse_name(name, path)
    if base.lower().endswith(".ova") and os.path.isfile(base):
        return posixpath.join(base, name)
    full = os.path.join(base or ".", name)
    root = os.path.realpath(base or ".")
    real = os.path.realpath(full)
    if not real.startswith(root.rstrip("/") + "/"):
        raise VmdkError("The file is a link out of the descriptor's folder; it is not opened.", path=path, found=bounded(href, 120))
    return full
