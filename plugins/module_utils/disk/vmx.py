# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A virtual machine in a C(.vmx) file, as it lies in a folder copied from a datastore or from a workstation.

Sources: the files that ESXi, Workstation and ovftool write; keys as VMware's knowledge base names them (KB 1714 for C(.vmx) files,
C(firmware), C(uefi.secureBoot.enabled), C(scsiN.virtualDev), C(ethernetN.virtualDev)). A line is C(key = "value"); C(|22) is a quote.
"""

from __future__ import annotations

import re

from .errors import BadInput, bounded
from .ovf import OvfDisk, OvfMachine, OvfNic

MAX_BYTES = 1 << 20
_LINE = re.compile(r'\s*([A-Za-z0-9_.:-]{1,200})\s*=\s*"([^"\n]{0,65536})"\s*')
_DISK = re.compile(r"(scsi|ide|sata|nvme)(\d{1,2}):(\d{1,3})\.filename")
_NIC = re.compile(r"ethernet(0|[1-9]\d?)\.present")
_SCSI = {"buslogic": "buslogic", "lsilogic": "lsilogic", "lsisas1068": "lsisas1068", "pvscsi": "pvscsi"}
#: What is no hard disk although it has a file.
_NO_DISK = ("cdrom-image", "cdrom-raw", "atapi-cdrom", "cdrom")


def values(data: bytes, path: str) -> dict[str, str]:
    """{key in lower case: value}.

    :raises BadInput: code C(vmx): it is too large, or no such file.
    """
    if len(data) > MAX_BYTES:
        raise BadInput(
            f"The file is larger than {MAX_BYTES >> 20} MiB; it is no .vmx file.", code="vmx", disk=path, step="read the .vmx file"
        )
    # ESXi writes UTF-8 and says so; an old Workstation writes its code page, of which only names can suffer.
    text = data.decode("utf-8", "replace")
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match:
            found[match[1].lower()] = re.sub(r"\|([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), match[2])
    if "config.version" not in found and "virtualhw.version" not in found:
        raise BadInput("This is no .vmx file.", code="vmx", disk=path, step="read the .vmx file", said=text[:80])
    return found


def parse(data: bytes, path: str) -> OvfMachine:
    """The machine of a C(.vmx) file.

    :raises BadInput: code C(vmx).
    """
    found = values(data, path)
    machine = OvfMachine(bounded(found.get("displayname") or "vm", 200))
    guest = found.get("guestos")
    # "debian12-64" here is "debian12_64Guest" in the API.
    machine.guest_id = guest.replace("-", "_") + "Guest" if guest else None
    machine.firmware = "efi" if found.get("firmware", "").lower() == "efi" else "bios"
    machine.secure_boot = _true(found.get("uefi.secureboot.enabled"))
    machine.hw_version = f"vmx-{found['virtualhw.version']}" if found.get("virtualhw.version") else None
    machine.cpus = _number(found.get("numvcpus"), 1)
    machine.cores_per_socket = _number(found.get("cpuid.corespersocket"), 1)
    machine.memory = _number(found.get("memsize"), 0, limit=1 << 32) << 20
    machine.annotation = found.get("annotation", "")[:4000]
    for key, name in found.items():
        match = _DISK.fullmatch(key)
        if match is None or not name:
            continue
        kind, bus, unit = match[1], int(match[2]), int(match[3])
        where = f"{kind}{bus}:{unit}"
        device = found.get(f"{where}.devicetype", "").lower()
        if device in _NO_DISK or not _true(found.get(f"{where}.present", "true")):
            continue
        controller = _SCSI.get(found.get(f"scsi{bus}.virtualdev", "lsilogic").lower()) if kind == "scsi" else kind
        machine.disks.append(OvfDisk(where, name, None, controller, bus, unit))
    cards = sorted(int(m[1]) for m in map(_NIC.fullmatch, found) if m)
    for number in cards:
        if not _true(found[f"ethernet{number}.present"]):
            continue
        card = f"ethernet{number}"
        mac = (found.get(f"{card}.address") or found.get(f"{card}.generatedaddress") or "").lower()
        machine.nics.append(
            OvfNic(
                label=f"Network adapter {len(machine.nics) + 1}",
                kind=found.get(f"{card}.virtualdev", "e1000").lower(),
                network=found.get(f"{card}.networkname") or found.get(f"{card}.connectiontype") or None,
                mac=mac if re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", mac) else None,
            )
        )
    return machine


def _true(value: str | None) -> bool:
    return (value or "").strip().lower() in ("true", "1", "yes")


def _number(value: str | None, default: int, *, limit: int = 4096) -> int:
    text = (value or "").strip()
    return int(text) if text.isdecimal() and len(text) < 12 and 0 < int(text) <= limit else default
