# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All that a person looks for in a disk file, with a verdict for Glance and the list of what is wrong: behind vmdk_info."""

from __future__ import annotations

import os
from typing import Any, Iterable, Iterator

from ..errors import BadInput, FerryError, VmdkError
from ..model import SECTOR
from . import descriptor as text
from .base import units
from .convert import kind_of
from .descriptor import Descriptor
from .files import RawFile
from .flat import FlatExtent
from .glance import Verdict, judge
from .qcow2 import check_qcow2
from .reader import UNSUPPORTED, Disk, DiskInfo, fill, open_disk, printable, sniff
from .sparse import SparseExtent
from .structs import GRAIN_SECTORS, MAX_DESCRIPTOR, unpack_header

#: A damaged disk may have a problem in each grain.
MAX_PROBLEMS = 100
#: Bytes of a usual grain.
_STEP = GRAIN_SECTORS * SECTOR
HYPERVISORS = ("vmware", "kvm")


def problem(error: FerryError | str, severity: str = "error") -> dict[str, Any]:
    """One entry of C(problems): severity (error, warning), message, and where known path, offset, found, expected."""
    if isinstance(error, str):
        return {"severity": severity, "message": error}
    facts = {k: v for k, v in error.details.items() if k in ("path", "offset", "found", "expected")}
    # The facts stand beside the message; there they need not be repeated.
    return {"severity": severity, "message": error.message.partition(" [")[0] if facts else error.message, **facts}


def inspect(path: str, hypervisor: str = "vmware", deep: bool = False, *, allow_extents: Iterable[str] = ()) -> dict[str, Any]:
    """What the disk file C(path) is.

    :param hypervisor: whom the Glance verdict is for, vmware or kvm.
    :param deep: read and decode every grain, so that damage inside is found too.
    :returns: format, descriptor (text), create_type, adapter_type, hw_version, capacity, allocated (bytes), extents,
        parent, encrypted, cid, uuid, ddb, problems, glance.
    :raises VmdkError: only where nothing at all can be said of the file; else what is wrong is in C(problems).
    """
    if hypervisor not in HYPERVISORS:
        raise BadInput(f"hypervisor is {hypervisor}, it can be vmware or kvm.")
    kind = kind_of(path)
    if kind == "qcow2":
        return _qcow2(path, hypervisor)
    try:
        with open_disk(path, allow_extents=allow_extents, format=kind) as disk:
            return _opened(disk, hypervisor, deep)
    except VmdkError as e:
        return _broken(path, kind, e)


def _opened(disk: Disk, hypervisor: str, deep: bool) -> dict[str, Any]:
    out = _facts(disk.info)
    out["extents"] = _extents(disk)
    problems: list[dict[str, Any]] = []
    verdict = Verdict()
    try:
        disk.check()
        out["allocated"] = disk.allocated
        if deep:
            problems.extend(_decode_all(disk))
        verdict = judge(disk, hypervisor)
    except VmdkError as e:
        problems.append(problem(e))
    problems.extend(problem(p, "warning") for p in disk.problems)
    if any(p["severity"] == "error" for p in problems):
        verdict.accepted = verdict.bootable = False
        verdict.reasons.insert(0, "the file is damaged: see problems")
    out["problems"] = problems[:MAX_PROBLEMS]
    out["glance"] = verdict.as_dict()
    return out


def _decode_all(disk: Disk) -> list[dict[str, Any]]:
    """Problems of all grains, from reading every one."""
    found: list[dict[str, Any]] = []
    for unit in units(disk):
        for start, length in unit.ranges:
            try:
                disk.read(start, length)
            except VmdkError:
                for p in _one_by_one(disk, start, length):
                    if p not in found:
                        found.append(p)
        if len(found) >= MAX_PROBLEMS:
            break
    return found


def _one_by_one(disk: Disk, start: int, length: int) -> Iterator[dict[str, Any]]:
    """The problems in a range, grain by grain."""
    for at in range(start, start + length, _STEP):
        try:
            disk.read(at, min(_STEP, start + length - at))
        except VmdkError as e:
            yield problem(e)


def _facts(info: DiskInfo) -> dict[str, Any]:
    d = info.descriptor
    return {
        "file": info.path,
        "format": info.format,
        "descriptor": info.descriptor_text,
        "create_type": info.create_type,
        "adapter_type": info.adapter_type,
        "hw_version": info.hw_version,
        "capacity": info.capacity,
        "allocated": None,
        "extents": [],
        "parent": _parent(d),
        "encrypted": bool(d and d.encrypted),
        "cid": f"{d.cid:08x}" if d else None,
        "uuid": d.ddb.get("uuid") if d else None,
        "ddb": dict(d.ddb) if d else {},
    }


def _parent(d: Descriptor | None) -> dict[str, Any] | None:
    if d is None or d.parent_cid == text.NO_PARENT:
        return None
    return {"cid": f"{d.parent_cid:08x}", "hint": d.parent_hint}


def _line(line: text.ExtentLine) -> dict[str, Any]:
    return {"access": line.access, "type": line.type, "size": line.sectors * SECTOR, "name": line.name, "offset": line.offset * SECTOR}


def _extents(disk: Disk) -> list[dict[str, Any]]:
    d = disk.info.descriptor
    if d is None:
        return [{"access": "RW", "type": "FLAT", "size": disk.capacity, "name": os.path.basename(disk.info.path), "offset": 0}]
    out = []
    for line, part in zip(d.extents, disk.parts, strict=True):
        facts = _line(line)
        if isinstance(part, SparseExtent):
            h = part.header
            facts.update(version=h.version, grain_size=h.grain, compressed=h.compressed, redundant=h.redundant, path=part.file.path)
        elif isinstance(part, FlatExtent):
            facts.update(path=part.file.path)
        out.append(facts)
    return out


def _broken(path: str, kind: str, error: VmdkError) -> dict[str, Any]:
    """What can be said of a disk that cannot be opened: its descriptor, where that can be read."""
    info = DiskInfo(path, "vmdk")
    if kind != "vmdk":
        raise error
    file = RawFile(path, what="VMDK")
    try:
        head = file.read(0, min(file.size, MAX_DESCRIPTOR))
        found = sniff(head)
        if found == "sparse":
            h = unpack_header(head, path)
            info.embedded = True
            info.capacity = h.capacity
            data = file.read(h.descriptor_offset * SECTOR, h.descriptor_sectors * SECTOR, "descriptor") if h.descriptor_offset else b""
            d = text.parse(data, path, offset=h.descriptor_offset * SECTOR, embedded=True)
        elif found == "descriptor":
            data = file.read(0, file.size) if file.size <= MAX_DESCRIPTOR else head
            d = text.parse(data, path)
            info.capacity = d.capacity
        else:
            raise error
    except VmdkError as e:
        # Nothing is known but what is wrong; the first error says it best.
        raise error from e
    finally:
        file.close()
    info.descriptor_text = printable(data)
    fill(info, d)
    out = _facts(info)
    out["extents"] = [_line(line) for line in d.extents]
    unsupported = error.code == UNSUPPORTED
    out["problems"] = [problem(error, "unsupported" if unsupported else "error"), *(problem(p, "warning") for p in info.problems)]
    reason = error.message if unsupported else "the file is damaged: see problems"
    out["glance"] = Verdict(reasons=[reason]).as_dict()
    return out


def _qcow2(path: str, hypervisor: str) -> dict[str, Any]:
    info = DiskInfo(path, "qcow2", capacity=check_qcow2(path))
    out = _facts(info)
    out["allocated"] = min(os.stat(path).st_blocks * SECTOR, os.stat(path).st_size)
    reasons = ["Nova's VMware driver boots VMDK and ISO only: convert it"] if hypervisor == "vmware" else []
    reasons.append("whether it has a boot sector is not looked at in a qcow2 image")
    out["problems"] = []
    out["glance"] = Verdict(accepted=True, bootable=hypervisor == "kvm", disk_format="qcow2", reasons=reasons).as_dict()
    return out
