# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All that a person looks for in a disk file, with a verdict for Glance and the list of what is wrong: behind vmdk_info."""

from __future__ import annotations

import os
from typing import Any, Iterable, Iterator

from ..errors import BadInput, VmdkError
from ..model import SECTOR
from . import descriptor as text
from .container import open_source
from .descriptor import Descriptor
from .flat import FlatExtent
from .glance import Verdict, judge
from .grains import GrainExtent
from .kinds import look
from .reader import UNSUPPORTED, Disk, DiskInfo, fill, open_from, open_raw, printable, sniff
from .remarks import remarks
from .report import Report, problem
from .sparse import SparseExtent
from .structs import MAX_DESCRIPTOR

HYPERVISORS = ("vmware", "kvm")


def inspect(path: str, hypervisor: str = "vmware", deep: bool = False, *, allow_extents: Iterable[str] = ()) -> dict[str, Any]:
    """What the disk file C(path) is.

    :param hypervisor: whom the Glance verdict is for, vmware or kvm.
    :param deep: read and decode every grain, so that damage inside is found too.
    :returns: format, descriptor (text), create_type, adapter_type, hw_version, capacity, allocated (bytes), extents,
        parent, encrypted, cid, uuid, ddb, problems, salvage, glance.
    :raises VmdkError: only where nothing at all can be said of the file; else what is wrong is in C(problems).
    """
    if hypervisor not in HYPERVISORS:
        raise BadInput(f"hypervisor is {hypervisor}, it can be vmware or kvm.")
    allow = list(allow_extents)
    kind, file, folder = look(path, allow)
    if file is not None and (kind != "vmdk" or folder is None):
        file.close()
    if kind == "qcow2":
        return _qcow2(path, hypervisor)
    try:
        disk = open_raw(path) if file is None or folder is None or kind != "vmdk" else open_from(file, folder)
    except VmdkError as e:
        return _broken(path, kind, e, allow, deep)
    with disk:
        return _opened(disk, hypervisor, deep, allow)


def _opened(disk: Disk, hypervisor: str, deep: bool, allow: list[str]) -> dict[str, Any]:
    out = _facts(disk.info)
    out["extents"] = _extents(disk)
    report = Report()
    verdict = Verdict()
    try:
        disk.check()
        out["allocated"] = disk.allocated
        if deep:
            _decode_all(disk, report)
        for part in disk.parts:
            if isinstance(part, SparseExtent) and part.header.compressed and any("not checked" in p for p in part.problems):
                from .symptoms import stream_markers

                stream_markers(part.file, part.header, report, deep=deep, readable=True)
        if not report.damaged:
            verdict = judge(disk, hypervisor)
    except VmdkError as e:
        from . import doctor

        doctor.examine(disk.info.path, e, report, allow_extents=allow, deep=deep)
    for remark in disk.problems:
        report.add(remark, "warning")
    if disk.info.descriptor is not None:
        remarks(disk, report)
    return _with(out, report, verdict, disk.info.path, allow, deep)


def _with(out: dict[str, Any], report: Report, verdict: Verdict, path: str, allow: list[str], deep: bool) -> dict[str, Any]:
    """C(out) with the problems, the verdict for Glance, and, where there is damage, whether data can be saved."""
    out["salvage"] = None
    if report.damaged:
        verdict.accepted = verdict.bootable = False
        verdict.reasons.insert(0, "the file is damaged: see problems")
        if out["format"] == "vmdk":
            from . import doctor

            out["salvage"] = doctor.salvage_verdict(path, out["capacity"], allow_extents=allow, deep=deep)
    out["problems"] = report.listed()
    out["glance"] = verdict.as_dict()
    return out


def _decode_all(disk: Disk, report: Report) -> None:
    """Read every unit of data in threads; add the problems of each grain that cannot be decoded."""
    from .base import UNIT, Unit, cores, ordered, units

    step = min((p.header.grain for p in disk.parts if isinstance(p, SparseExtent)), default=UNIT)

    def work(unit: Unit) -> list[tuple[int, VmdkError]]:
        bad: list[tuple[int, VmdkError]] = []
        for start, length in unit.ranges:
            try:
                disk.read(start, length)
            except VmdkError:
                bad.extend(_one_by_one(disk, start, length, step))
        return bad

    for found in ordered(work, units(disk), cores()):
        for at, error in found:
            entry = problem(error)
            report.add(**entry, disk_offset=at)
        if report.full:
            return


def _one_by_one(disk: Disk, start: int, length: int, step: int) -> Iterator[tuple[int, VmdkError]]:
    """(byte of the disk, error) of what cannot be read in a range, grain by grain."""
    for at in range(start, start + length, step):
        try:
            disk.read(at, min(step, start + length - at))
        except VmdkError as e:
            yield at, e


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
        "parent": _parent(info),
        "encrypted": bool(d and d.encrypted),
        "cid": f"{d.cid:08x}" if d else None,
        "uuid": d.ddb.get("uuid") if d else None,
        "ddb": dict(d.ddb) if d else {},
    }


def _parent(info: DiskInfo) -> dict[str, Any] | None:
    d = info.descriptor
    if d is None or d.parent_cid == text.NO_PARENT:
        return None
    # Where the parents were opened, they are named, the nearest first.
    return {"cid": f"{d.parent_cid:08x}", "hint": d.parent_hint, **({"chain": info.chain[1:]} if info.chain[1:] else {})}


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
        elif isinstance(part, GrainExtent):
            facts.update(grain_size=part.grain, path=part.file.path)
        elif isinstance(part, FlatExtent):
            facts.update(path=part.file.path)
        out.append(facts)
    return out


def _broken(path: str, kind: str, error: VmdkError, allow: list[str], deep: bool) -> dict[str, Any]:
    """What can be said of a disk that cannot be opened: its descriptor, or its header, where that can be read."""
    if kind != "vmdk":
        raise error
    from . import doctor
    from .salvage import find_headers, read_descriptor

    info = DiskInfo(path, "vmdk")
    file, _folder = open_source(path, allow=allow)
    data = b""
    d: Descriptor | None = None
    try:
        head = file.read(0, min(file.size, MAX_DESCRIPTOR))
        found = sniff(head)
        if found == "descriptor":
            data = file.read(0, file.size) if file.size <= MAX_DESCRIPTOR else head
            d = text.parse(data, path)
            info.capacity = d.capacity
        elif found in ("sparse", "raw"):
            h = next((h for h in find_headers(file) if h is not None), None)
            if h is None:
                raise error
            info.embedded = True
            info.capacity = h.capacity
            d, data = read_descriptor(file, h)
        else:
            raise error
    except VmdkError as e:
        # Nothing is known but what is wrong; the first error says it best.
        raise error from e
    finally:
        file.close()
    info.descriptor_text = printable(data) if data else None
    if d is not None:
        fill(info, d)
    out = _facts(info)
    out["extents"] = [_line(line) for line in d.extents] if d is not None else []
    report = Report()
    doctor.examine(path, error, report, allow_extents=allow, deep=deep)
    for remark in info.problems:
        report.add(remark, "warning")
    reasons = [error.message.partition(" [")[0]] if error.code == UNSUPPORTED else []
    return _with(out, report, Verdict(reasons=reasons), path, allow, deep)


def _qcow2(path: str, hypervisor: str) -> dict[str, Any]:
    from .qcow2 import check_qcow2

    info = DiskInfo(path, "qcow2", capacity=check_qcow2(path))
    out = _facts(info)
    out["allocated"] = min(os.stat(path).st_blocks * SECTOR, os.stat(path).st_size)
    reasons = ["Nova's VMware driver boots VMDK and ISO only: convert it"] if hypervisor == "vmware" else []
    reasons.append("whether it has a boot sector is not looked at in a qcow2 image")
    out["problems"] = []
    out["salvage"] = None
    out["glance"] = Verdict(accepted=True, bootable=hypervisor == "kvm", disk_format="qcow2", reasons=reasons).as_dict()
    return out
