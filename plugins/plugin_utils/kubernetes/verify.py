# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a VM that an importer has made is the one that it was made from: processors, memory, cards, firmware, disks. Pure.

The fields are those of KubeVirt's VirtualMachine (kubevirt.io/api/core/v1): cores, sockets and threads are 1 where they are not said,
secure boot is on where EFI does not say, and a VM without a bootloader has a BIOS.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any, Mapping, Sequence

Object = Mapping[str, Any]
_SUFFIXES = {s: 1000 ** (i + 1) for i, s in enumerate("kMGTPE")} | {f"{s}i": 1024 ** (i + 1) for i, s in enumerate("KMGTPE")}
_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([kMGTPE]i?|Ki|m)?")
#: Forklift's annotation of a claim (pkg/controller/plan/adapter/base/doc.go).
SOURCE = "forklift.konveyor.io/disk-source"
_SNAPSHOT = re.compile(r"-\d{6}\.vmdk$")
MIB = 1 << 20
GIB = 1 << 30


def quantity(text: Any) -> int:
    """Bytes of a quantity as Kubernetes writes it (C(1Gi), C(1024M), C(2e9)). ValueError: it is none."""
    found = _QUANTITY.fullmatch(str(text).strip())
    try:
        if found is None:
            raise InvalidOperation
        number = Decimal(found[1])
    except InvalidOperation:
        raise ValueError(f"{str(text)[:40]!r} is no quantity") from None
    suffix = found[2] or ""
    return int(number / 1000 if suffix == "m" else number * _SUFFIXES.get(suffix, 1))


def verify(
    wanted: Sequence[Mapping[str, Any]], made: Sequence[Object], claims: Sequence[Object], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Compare VMs with what they were made from.

    :param wanted: what M(ferry.vmware.vm_info) returned of their sources.
    :param made: VirtualMachines, and C(claims) PersistentVolumeClaims, of one namespace.
    :param settings: C(network_map), C(namespace) (of the VMs), and C(names), what each is called there by its MoRef; others are left out.
    :returns: C(rows), one a VM, with C(differences) and C(mend), what a patch of its processors and memory would be; C(lines); C(ok).
    """
    by_name = {str(o["metadata"]["name"]): o for o in made}
    sizes = {str(c["metadata"]["name"]): (_capacity(c), _source(c)) for c in claims}
    rows = []
    for facts in wanted:
        name = settings["names"].get(facts["moref"])
        if name is None:
            continue
        found = by_name.get(str(name))
        differences = [_difference("VM", "there", "not there")] if found is None else _differences(facts, found, sizes, settings)
        mends = found is not None and any(d["what"] in ("vCPUs", "topology", "memory") for d in differences)
        rows.append(
            {
                "name": name,
                "vm": facts["name"],
                "made": found is not None,
                "differences": differences,
                "mend": _mend(facts) if mends else {},
            }
        )
    return {"rows": rows, "lines": [_line(r) for r in rows], "ok": all(not r["differences"] for r in rows)}


def _difference(what: str, source: Any, made: Any) -> dict[str, str]:
    return {"what": what, "source": str(source), "made": str(made)}


def _line(row: Mapping[str, Any]) -> str:
    told = "; ".join(f"{d['what']}: {d['source']} at the source, {d['made']} now" for d in row["differences"])
    return f"{row['name']}: {told or 'as its source'}"


def _differences(
    facts: Mapping[str, Any], found: Object, sizes: Mapping[str, tuple[int, str]], settings: Mapping[str, Any]
) -> list[dict[str, str]]:
    spec = found["spec"]
    template = (spec.get("template") or {}).get("spec") or {}
    domain = template.get("domain") or {}
    rows = []
    # An instance type says both, and was asked for.
    if not spec.get("instancetype"):
        rows += [*_processors(facts, domain), *_memory(facts, domain)]
    rows += [*_cards(facts, template, domain, settings), *_firmware(facts, domain), *_disks(facts, template, domain, sizes)]
    return rows


def _processors(facts: Mapping[str, Any], domain: Object) -> list[dict[str, str]]:
    cpu = domain.get("cpu") or {}
    cores, sockets, threads = (int(cpu.get(key) or 1) for key in ("cores", "sockets", "threads"))
    cpus, per_socket = int(facts["cpus"]), int(facts["cores_per_socket"] or 1)
    if cores * sockets * threads != cpus:
        return [_difference("vCPUs", cpus, cores * sockets * threads)]
    if cores * threads != per_socket:
        return [_difference("topology", f"{per_socket} a socket", f"{cores * threads} a socket")]
    return []


def _memory(facts: Mapping[str, Any], domain: Object) -> list[dict[str, str]]:
    said = (domain.get("memory") or {}).get("guest") or ((domain.get("resources") or {}).get("requests") or {}).get("memory")
    wanted = int(facts["memory_mb"]) * MIB
    try:
        there = quantity(said) if said is not None else 0
    except ValueError:
        there = 0
    return [] if there == wanted else [_difference("memory", f"{facts['memory_mb']} MiB", f"{said or 'nothing'} ({there / MIB:.0f} MiB)")]


def _target(network: str, asked: Any, namespace: str) -> str:
    """Where a card has to be: C(pod), or the attachment's C(namespace/name)."""
    if asked == "pod" or not isinstance(asked, str):
        return str(asked)
    return asked if "/" in asked else f"{namespace}/{asked}"


def _cards(facts: Mapping[str, Any], template: Object, domain: Object, settings: Mapping[str, Any]) -> list[dict[str, str]]:
    maps, namespace = settings["network_map"], str(settings["namespace"])
    wanted = []
    for nic in facts["nics"]:
        asked = maps.get(nic["network"], maps.get(nic.get("network_moref"), maps.get("*")))
        if asked not in (None, "ignored"):
            wanted.append((str(nic.get("mac") or "").lower(), _target(str(nic["network"]), asked, namespace)))
    networks = {str(n.get("name")): n for n in template.get("networks") or []}
    there = []
    for card in (domain.get("devices") or {}).get("interfaces") or []:
        network = networks.get(str(card.get("name"))) or {}
        multus = str((network.get("multus") or {}).get("networkName") or "")
        where = "pod" if "pod" in network else (multus if "/" in multus or not multus else f"{namespace}/{multus}")
        there.append((str(card.get("macAddress") or "").lower().replace("-", ":"), where))
    if not wanted and [where for mac, where in there] == ["pod"]:
        return []  # a VM that would have no card gets one on the pod network
    rows = []
    if [m for m, where in wanted] != [m for m, where in there]:
        rows.append(
            _difference("network cards", ", ".join(m for m, where in wanted) or "none", ", ".join(m for m, where in there) or "none")
        )
    elif [w for m, w in wanted] != [w for m, w in there]:
        rows.append(_difference("networks", ", ".join(w for m, w in wanted), ", ".join(w for m, w in there)))
    return rows


def _firmware(facts: Mapping[str, Any], domain: Object) -> list[dict[str, str]]:
    loader = (domain.get("firmware") or {}).get("bootloader") or {}
    efi = loader.get("efi")

    def told(is_efi: bool, secure: bool) -> str:
        return ("EFI with secure boot" if secure else "EFI") if is_efi else "BIOS"

    source = told(str(facts["firmware"]).lower() == "efi", bool(facts.get("secure_boot")))
    made = told(efi is not None, efi is not None and efi.get("secureBoot", True))
    return [] if source == made else [_difference("firmware", source, made)]


def _capacity(claim: Object) -> int:
    """Bytes that a claim has, or has asked for."""
    there = ((claim.get("status") or {}).get("capacity") or {}).get("storage")
    asked = (((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage")
    try:
        return quantity(there or asked or 0)
    except ValueError:
        return 0


def _base(path: str) -> str:
    """A disk's file without the number that a snapshot gives it (Forklift's trimBackingFileName)."""
    return _SNAPSHOT.sub(".vmdk", path)


def _source(claim: Object) -> str:
    """The file that a claim was filled from, where its maker wrote that down."""
    return _base(str(((claim.get("metadata") or {}).get("annotations") or {}).get(SOURCE) or ""))


def _disks(facts: Mapping[str, Any], template: Object, domain: Object, sizes: Mapping[str, tuple[int, str]]) -> list[dict[str, str]]:
    claims = {}
    for volume in template.get("volumes") or []:
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName") or (volume.get("dataVolume") or {}).get("name")
        if claim:
            claims[str(volume.get("name"))] = str(claim)
    devices = (domain.get("devices") or {}).get("disks") or []
    there = [sizes.get(claims[str(d["name"])], (0, "")) for d in devices if str(d.get("name")) in claims and "cdrom" not in d]
    disks = facts["disks"]
    wanted = [int(d["capacity"]) for d in disks]

    def told(counts: Sequence[int]) -> str:
        return f"{len(counts)} ({', '.join(f'{c / GIB:.2f}' for c in counts)} GiB)" if counts else "none"

    have = [size for size, source in there]
    if len(there) != len(disks):
        return [_difference("disks", told(wanted), told(have))]
    if there and all(source for size, source in there):
        # Forklift writes down what each came from, and has an order of its own.
        by_source = {source: size for size, source in there}
        return [
            _difference(
                d["label"], f"{int(d['capacity']) / GIB:.2f} GiB", f"{by_source[path] / GIB:.2f} GiB" if path in by_source else "not there"
            )
            for d, path in ((d, _base(str(d["path"]))) for d in disks)
            if by_source.get(path, -1) < int(d["capacity"])
        ]
    # A volume may be larger: storage rounds up, and a file system takes its part.
    if all(size >= want for size, want in zip(have, wanted, strict=True)):
        return []
    ordered = all(size >= want for size, want in zip(sorted(have), sorted(wanted), strict=True))
    return [_difference("order of the disks" if ordered else "sizes of the disks", told(wanted), told(have))]


def _mend(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A patch that gives a VM its source's processors and memory."""
    cpus, cores = int(facts["cpus"]), int(facts["cores_per_socket"] or 1)
    if cpus % cores:
        cores = 1  # vSphere allows a last socket that is not full; KubeVirt does not
    memory = f"{int(facts['memory_mb'])}Mi"
    return {
        "spec": {
            "template": {
                "spec": {
                    "domain": {
                        "cpu": {"cores": cores, "sockets": cpus // cores, "threads": 1},
                        "memory": {"guest": memory},
                        "resources": {"limits": {"cpu": str(cpus), "memory": memory}},
                    }
                }
            }
        }
    }
