# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which volume type a disk goes to, and what a volume of that type has to be: shared, encrypted. Pure.

The storage map has entries for datastores and for single disks. A type's encryption is shown to administrators only, so what was
asked for is verified on the volume itself, which tells everybody (C(encrypted), C(multiattach)).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping

from ..errors import bounded
from .finding import Finding

#: What an entry of the storage map may say, beside being the type's name itself.
KNOWN = frozenset({"type", "encrypted", "shared"})
#: vSphere's words for a disk that several machines write (VirtualDiskFlatVer2BackingInfo.sharing), and for such a bus of a
#: controller (VirtualSCSISharing).
MULTI_WRITER = "sharingMultiWriter"
SHARED_BUSES = ("virtualSharing", "physicalSharing")


#: Metadata of a volume that several servers are to have: which disk it is, in vSphere.
SHARED = "ferry_shared"


@dataclass(frozen=True)
class Storage:
    """Where a disk goes. C(type): None is the cloud's default. C(expect): what the volume must be, by Cinder's names."""

    type: str | None = None
    expect: Mapping[str, bool] = field(default_factory=dict)


def is_shared(disk: Mapping[str, Any]) -> bool:
    """Whether several machines write to the disk."""
    return disk.get("sharing") == MULTI_WRITER or disk.get("bus_sharing") in SHARED_BUSES


def entry_for(disk: Mapping[str, Any], storage_map: Mapping[Any, Any]) -> tuple[bool, Any]:
    """(whether the map has an entry for the disk, the entry): the disk's own before its datastore's before C(*)."""
    by_text = {str(k): v for k, v in storage_map.items()}
    own = (disk.get(name) for name in ("label", "key", "address", "uuid"))
    for key in (*own, disk.get("datastore"), disk.get("datastore_moref"), "*"):
        if key is not None and str(key) in by_text:
            return True, by_text[str(key)]
    return False, None


def of_disk(disk: Mapping[str, Any], storage_map: Mapping[Any, Any], types: Iterable[Mapping[str, Any]], errors: list[str]) -> Storage:
    """Where the disk goes; what is wrong with that is added to C(errors).

    :param disk: its facts (label, key, address, uuid, datastore, datastore_moref, sharing, bus_sharing).
    :param storage_map: disk (label, key, address such as C(scsi0:1), or uuid), datastore (name or MoRef) or C(*), to a volume type
        (name or id) or to a mapping of KNOWN; empty: everything goes to the default type.
    :param types: Cinder's volume types.
    """
    label = bounded(disk.get("label") or disk.get("key"), 60)
    wanted: Any = None
    if storage_map:
        found, wanted = entry_for(disk, storage_map)
        if not found:
            where = bounded(disk.get("datastore") or "", 80)
            text = f"disk {label} lies on the datastore {where!r}, which is not mapped (storage_map)"
            errors.append(Finding("VMStorageNotMapped", text, disk=label))
            return Storage()
    entry: Mapping[str, Any] = wanted if isinstance(wanted, Mapping) else {"type": wanted}
    unknown = sorted(str(k) for k in set(entry) - KNOWN)
    if unknown:
        text = f"the storage map's entry for disk {label} has unknown keys: {bounded(', '.join(unknown), 100)}"
        errors.append(Finding("ferry.option.invalid", text, disk=label))
    rows = list(types)
    row = _type(str(entry["type"]), rows) if entry.get("type") else None
    if entry.get("type") and row is None:
        names = ", ".join(sorted(str(t["name"]) for t in rows if t.get("name")))
        text = f"there is no volume type {bounded(entry['type'], 80)!r} for disk {label}; there are {bounded(names, 200)}"
        errors.append(Finding("ferry.volume_type.unknown", text, disk=label))
        return Storage()
    expect: dict[str, bool] = {}
    if entry.get("encrypted") is not None:
        expect["encrypted"] = bool(entry["encrypted"])
    shared = is_shared(disk) if entry.get("shared") is None else bool(entry["shared"])
    if shared:
        expect["multiattach"] = True
        if row is None or not _multiattach(row):
            fitting = ", ".join(sorted(str(t["name"]) for t in rows if _multiattach(t))) or "none"
            text = (
                f"disk {label} is shared with other machines: its volume type has to allow that (extra spec multiattach), and"
                f" {bounded(row['name'], 80) if row else 'the default type'} does not; those that do: {bounded(fitting, 200)}."
                " For a copy of its own, say shared: false in its entry of the storage map"
            )
            errors.append(Finding("ferry.volume_type.not_shared", text, disk=label))
    return Storage(str(row["name"]) if row else None, expect)


def _type(wanted: str, types: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    rows = list(types)
    return next((t for t in rows if t.get("id") == wanted), None) or next((t for t in rows if t.get("name") == wanted), None)


def _multiattach(volume_type: Mapping[str, Any]) -> bool:
    """Members see this extra spec too (Cinder, Xena and later)."""
    return str((volume_type.get("extra_specs") or {}).get("multiattach", "")).replace(" ", "").lower() == "<is>true"


def identity(disk: Mapping[str, Any]) -> str:
    """What names a shared disk, whichever VM it is looked at from: its uuid, else its file."""
    return str(disk.get("uuid") or disk.get("path") or "")[:255]


def elsewhere(disk: Mapping[str, Any], volumes: Iterable[Mapping[str, Any]], source: str) -> list[str]:
    """An error where the shared disk has become a volume for another of its VMs already: it must not become two.

    :param source: instance uuid of the VM that is planned.
    """
    this = identity(disk)
    for volume in volumes:
        metadata = volume.get("metadata") or {}
        if this and metadata.get(SHARED) == this and str(metadata.get("ferry_source") or "").lower() != source:
            label = bounded(disk.get("label") or disk.get("key"), 60)
            text = (
                f"disk {label} is shared, and is volume {volume['id']} already, made for the VM {bounded(metadata.get('ferry_vm') or '?', 80)}:"
                " leave it out here and attach that volume to this server afterwards, or say shared: false for a copy of its own"
            )
            return [Finding("ferry.disk.elsewhere", text, disk=label)]
    return []


def unmet(volume: Mapping[str, Any], expect: Mapping[str, bool | None]) -> list[str]:
    """What the volume is not, of what it has to be: for people. C(volume): as Cinder shows it."""
    words = {"encrypted": "encrypted", "multiattach": "shared (multiattach)"}
    return [
        f"it is {'not ' if should else ''}{words.get(name, name)}, as its type {bounded(volume.get('volume_type') or 'of old', 80)} has it"
        for name, should in sorted(expect.items())
        if should is not None and str(volume.get(name)).lower() != str(should).lower()
    ]


def concerns(disk: Mapping[str, Any], storage: Storage) -> list[str]:
    """What is worth a warning, and no error."""
    if disk.get("encrypted") and "encrypted" not in storage.expect:
        label = bounded(disk.get("label") or disk.get("key"), 60)
        text = f"disk {label} is encrypted in vSphere; whether its volume will be is up to the volume type (say encrypted: true to have it checked)"
        return [Finding("ferry.disk.encrypted", text, disk=label)]
    return []
