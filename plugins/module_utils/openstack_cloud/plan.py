# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a wave of virtual machines becomes in OpenStack, and what of it is there already. Pure: facts and rows in, a plan out.

Nothing is decided elsewhere: the role that applies the plan does what C(todo) and C(drift) say and calls nothing for the rest.
All errors of the whole wave are found before its first byte travels.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field, replace
from typing import Any, Mapping, Sequence

from ..errors import BadInput, bounded
from . import cards, compare, flavors, formats, groups, guests, matching, properties, quota, storage, topology
from .finding import Finding, id_of
from .options import MAX_NAME, Options, name_of, root_index, source_of
from .target import DISK, ROLE, SCOPE, SOURCE, STATE, Target

GIB = 1 << 30
#: What Nova's libvirt driver calls the disks of a bus (nova/virt/libvirt/blockinfo.py, get_dev_prefix_for_disk_bus).
_DEVICES = {"virtio": "vd", "ide": "hd"}
#: Characters of a key and a value of a server's metadata (Compute API, "Server metadata").
_MAX_METADATA = 255


@dataclass
class _Wave:
    """What has to be compared across the VMs of a wave."""

    claims: cards.Claims
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    needs: quota.Needs = field(default_factory=quota.Needs)


def plan(vms: Sequence[Mapping[str, Any]], target: Target, options: Options) -> dict[str, Any]:
    """The plan of a wave: C(vms) (one entry per VM, in order), C(errors) (of the whole wave, each with its VM), C(quotas),
    C(server_groups) and C(notes)."""
    wave = _Wave(cards.Claims(target.ports))
    entries = [_entry(vm, target, options, wave) for vm in vms]
    servers = {i: str(e["server"]["id"]) for i, e in enumerate(entries) if e["server"] and e["server"]["id"] and not e["server"]["replace"]}
    grouping = groups.grouping(vms, options.constraints, target.server_groups, servers)
    for i, entry in enumerate(entries):
        entry["warnings"] += grouping.warnings.get(i, [])
        if entry["server"]:
            group = grouping.of.get(i)
            entry["server"]["group"] = {k: group[k] for k in ("id", "name", "policy")} if group else None
    for group in grouping.groups:
        wave.needs.add("server_groups", 0 if group["id"] else 1)
    errors = [{"vm": e["name"], "id": id_of(what), "what": what, "text": f"{e['name']}: {what}"} for e in entries for what in e["errors"]]
    quotas, exceeded = quota.check(wave.needs, target.quotas)
    members = target.quotas.get("server_group_members", (-1, 0))[0]
    exceeded += [
        Finding(
            "ferry.quota.exceeded",
            f"the server group {bounded(g['name'], 100)} would have {g['members']} members, a group may have {members}",
            device="server_group_members",
        )
        for g in grouping.groups
        if 0 <= members < g["members"]
    ]
    errors += [{"vm": None, "id": id_of(text), "what": text, "text": text} for text in [*grouping.errors, *exceeded]]
    return {"vms": entries, "errors": errors, "quotas": quotas, "server_groups": grouping.groups, "notes": grouping.notes}


def _entry(vm: Mapping[str, Any], target: Target, options: Options, wave: _Wave) -> dict[str, Any]:
    name = str(vm.get("name") or vm.get("moref") or "?")
    entry: dict[str, Any] = {
        "name": name,
        "source": None,
        "moref": vm.get("moref"),
        "volumes": [],
        "ports": [],
        "flavor": None,
        "server": None,
        "todo": [],
        "drift": [],
        "warnings": [],
        "errors": [],
    }
    errors: list[str] = entry["errors"]
    try:
        own = options.of(vm)
        source = entry["source"] = source_of(vm)
        known = matching.Known(target, source)
        if source in wave.sources:
            errors.append(Finding("ferry.uuid.duplicate", f"it has the same instance uuid ({source}) as {wave.sources[source]}"))
        wave.sources.setdefault(source, name)
        server = _server(vm, own, known, target, entry, wave)
        entry["flavor"] = _flavor(vm, own, target, server, errors)
        own = _with_topology(vm, own, target, server, entry)
        _volumes(vm, own, known, target, entry, wave)
        cards.plan_ports(vm, own, known, target, entry, wave.claims)
        for port in entry["ports"]:
            _claim(wave, "port", port["name"], f"{port['nic']} of {name} ({source})", errors)
        _order(vm, own, entry)
        _needs(own, entry, wave)
    except BadInput as e:
        errors.append(Finding("ferry.option.invalid", e.message))
        return entry
    entry["warnings"] += [*properties.concerns(vm), *(Finding("ferry.file.problem", bounded(p, 300)) for p in vm.get("problems") or ())]
    compare.compare(entry)
    return entry


def _claim(wave: _Wave, kind: str, name: str, owner: str, errors: list[str]) -> None:
    other = wave.names.setdefault((kind, name), owner)
    if other != owner or not name:
        text = f"the {kind} of {owner} would have the name {bounded(name, 100)!r}, which is that of {other}"
        errors.append(Finding("ferry.name.duplicate", text, device=name[:100]))


def _server(
    vm: Mapping[str, Any], own: Options, known: matching.Known, target: Target, entry: dict[str, Any], wave: _Wave
) -> Mapping[str, Any] | None:
    errors = entry["errors"]
    name = name_of(own.server_name, vm)
    found = known.server()
    _claim(wave, "server", name, f"{entry['name']} ({entry['source']})", errors)
    wrong = _name_problem(name)
    if wrong:
        errors.append(Finding("ferry.name.invalid", f"Nova takes no server named {bounded(name, 100)!r}: {wrong}"))
    others = [s for s in target.servers_by_name.get(name, ()) if found is None or s["id"] != found["id"]]
    if others:
        text = f"a server named {bounded(name, 100)!r} that is not ours is there already ({others[0]['id']})"
        errors.append(Finding("VMAlreadyExists", text))
    if len(known.servers) > 1:
        errors.append(
            Finding("ferry.server.ambiguous", f"several servers are tagged as its own: {', '.join(s['id'] for s in known.servers)}")
        )
    if own.server_state not in ("started", "stopped"):
        errors.append(Finding("ferry.option.invalid", f"server_state is started or stopped, not {bounded(own.server_state, 40)}"))
    zone = own.availability_zone
    if zone and target.zones and zone not in target.zones:
        text = f"there is no availability zone {bounded(zone, 60)}; there are {', '.join(target.zones)}"
        errors.append(Finding("ferry.zone.unknown", text))
    metadata = {**{str(k): str(v) for k, v in own.metadata.items()}, SOURCE: entry["source"], SCOPE: entry["name"][:MAX_NAME]}
    errors += _metadata_problems(metadata, target)
    if own.key_name and target.keypairs is not None and own.key_name not in target.keypairs:
        known_keys = bounded(", ".join(sorted(target.keypairs)), 200) or "none"
        text = f"there is no key pair {bounded(own.key_name, 80)!r} of this user; there are: {known_keys}"
        errors.append(Finding("ferry.key.unknown", text))
    if found is not None and not matching.never_ran(found):
        entry["warnings"] += _fixed_at_creation(found, own)
    entry["server"] = {
        "id": found["id"] if found else None,
        "name": name,
        "status": found.get("status") if found else "absent",
        "should": "ACTIVE" if own.server_state == "started" else "SHUTOFF",
        "metadata": metadata,
        "availability_zone": zone,
        "key_name": own.key_name,
        "config_drive": own.config_drive,
        "group": None,
        "replace": matching.never_ran(found),
        "found": matching.server_facts(found),
    }
    return found


def _name_problem(name: str) -> str | None:
    """Why Nova refuses the name of a server (nova/api/validation/parameter_types.py, valid_name_regex)."""
    if not name or name != name.strip():
        return "it is empty, or begins or ends with a space"
    kinds = {unicodedata.category(c) for c in name}
    if any(k.startswith("C") or k in ("Zl", "Zp") for k in kinds):
        return "it has characters that cannot be printed"
    return "it has characters beyond U+FFFE" if any(ord(c) > 0xFFFE for c in name) else None


def _metadata_problems(metadata: Mapping[str, str], target: Target) -> list[str]:
    long = sorted(bounded(k, 40) for k, v in metadata.items() if not 0 < len(k) <= _MAX_METADATA or len(v) > _MAX_METADATA)
    found = [f"metadata of a server has keys and values of up to {_MAX_METADATA} characters; too long: {', '.join(long)}"] if long else []
    limit = target.quotas.get("server_metadata", (-1, 0))[0]
    if 0 <= limit < len(metadata):
        found.append(f"its server would have {len(metadata)} entries of metadata, the quota is {limit}")
    return [Finding("ferry.metadata.invalid", text) for text in found]


def _fixed_at_creation(found: Mapping[str, Any], own: Options) -> list[str]:
    """What differs on a server that is there, and that Nova sets only when it makes one."""
    rows: list[tuple[str, Any, Any]] = [
        ("key", found.get("key_name"), own.key_name),
        ("availability zone", found.get("OS-EXT-AZ:availability_zone"), own.availability_zone),
        ("config drive", str(found.get("config_drive")).lower() == "true", own.config_drive),
    ]
    shown = [
        f"{what} ({bounded(is_ or 'none', 60)}, planned is {bounded(should, 60)})" for what, is_, should in rows if should and is_ != should
    ]
    text = f"its server has another {' and '.join(shown)}; Nova sets that only when it makes a server, so it is left"
    return [Finding("ferry.server.fixed", text)] if shown else []


def _volumes(vm: Mapping[str, Any], own: Options, known: matching.Known, target: Target, entry: dict[str, Any], wave: _Wave) -> None:
    errors = entry["errors"]
    disks = vm.get("disks") or ()
    if not disks:
        errors.append(Finding("ferry.disk.none", "it has no disks"))
        return
    root = root_index(vm)
    for index, disk in enumerate(disks):
        key = str(disk.get("key"))
        label = str(disk.get("label") or key)
        capacity = int(disk.get("capacity") or 0)
        if capacity <= 0:
            why = f": {bounded(disk['error'], 300)}" if disk.get("error") else ""
            errors.append(Finding("vmware.disk.capacity.invalid", f"disk {bounded(label, 60)} has no capacity{why}", disk=label))
            continue
        where = storage.of_disk(disk, own.storage_map, target.volume_types, errors)
        volume_type = where.type
        entry["warnings"] += storage.concerns(disk, where)
        name = name_of(own.volume_name, vm, index, key)
        found = known.volume(key, name)
        broken = found["id"] if found and matching.empty_in_error(found) else None
        found = None if broken else found
        _claim(wave, "volume", name, f"{label} of {entry['name']} ({entry['source']})", errors)
        taken = [v for v in target.volumes_by_name.get(name, ()) if v["id"] != broken and (found is None or v["id"] != found["id"])]
        if found is None and taken:
            text = f"a volume named {bounded(name, 100)!r} that is not ours is there already ({taken[0]['id']})"
            errors.append(Finding("ferry.volume.exists", text, disk=label))
        size = -(-capacity // GIB)
        boots = index == root
        said = (found.get("metadata") or {}) if found else {}
        row: dict[str, Any] = {
            "disk": key,
            "label": label,
            "index": index,
            "role": "root" if boots else "data",
            "name": name,
            "capacity": capacity,
            "size_gib": size,
            "type": volume_type,
            "availability_zone": None,
            "bootable": boots,
            "metadata": {SOURCE: entry["source"], DISK: key, ROLE: "root" if boots else "data", SCOPE: entry["name"][:MAX_NAME]},
            "image_properties": properties.for_vm(
                vm, disk, hypervisor=own.hypervisor, hardware=own.hardware, own=own.properties, guest=guests.needs(said)
            )
            if boots
            else {},
            "id": found["id"] if found else None,
            "state": matching.volume_state(found),
            "digest": said.get("ferry_digest") or said.get(guests.COPIED),
            "guest": guests.state(said),
            "found": matching.volume_facts(found),
            "expect": dict(where.expect),
            "replace": broken,
        }
        if where.expect.get("multiattach"):
            row["metadata"][storage.SHARED] = storage.identity(disk)
            errors += storage.elsewhere(disk, target.volumes, entry["source"])
        if found is not None:
            errors += [
                Finding("ferry.volume.unmet", f"volume {found['id']} of disk {bounded(label, 60)}: {what}", disk=label)
                for what in storage.unmet(found, where.expect)
            ]
        row["create_metadata"] = {**row["metadata"], STATE: "copying"}
        errors += [Finding("ferry.properties.invalid", what) for what in properties.faults(row["image_properties"], own.hypervisor)]
        entry["volumes"].append(row)
        problem = matching.volume_problem(found, row, entry["server"]["id"])
        if problem:
            errors.append(Finding("ferry.volume.unusable", problem, disk=label))
        limit = target.quotas.get("per_volume_gigabytes", (-1, 0))[0]
        if 0 <= limit < size and (found is None or int(found.get("size") or 0) < size):
            errors.append(
                Finding("ferry.quota.per_volume", f"disk {bounded(label, 60)} needs {size} GiB, a volume may have {limit}", disk=label)
            )
        wrong = formats.problem(disk, target.image_formats) if row["state"] != "complete" else None
        if wrong:
            errors.append(Finding("ferry.image.refused", wrong, disk=label))
        row["file"] = disk.get("file")
        row["quota_type"] = volume_type or target.default_type
    for spare in known.spare_volumes({r["disk"] for r in entry["volumes"]}):
        text = f"volume {spare} is tagged as its own, but the VM has no such disk (any more)"
        entry["warnings"].append(Finding("ferry.volume.spare", text))


def _flavor(
    vm: Mapping[str, Any], own: Options, target: Target, server: Mapping[str, Any] | None, errors: list[str]
) -> dict[str, Any] | None:
    cpus, memory_mb = int(vm.get("cpus") or 1), int(vm.get("memory_mb") or 1)
    try:
        if own.flavor:
            choice = flavors.named(target.flavors, own.flavor, cpus, memory_mb)
        else:
            choice = flavors.fit(target.flavors, cpus, memory_mb, suits=lambda row: topology.suits(row.get("extra_specs"), vm))
    except BadInput as e:
        errors.append(Finding("ferry.flavor.none", e.message[0].lower() + e.message[1:].rstrip(".")))
        return None
    return choice.as_dict()


def _with_topology(vm: Mapping[str, Any], own: Options, target: Target, server: Mapping[str, Any] | None, entry: dict[str, Any]) -> Options:
    """The options with the image properties for sockets and cores; the user's own win."""
    # A server that is there keeps its flavor, whatever would be chosen today; one that never ran is made anew.
    has = (server.get("flavor") or {}) if server is not None and not matching.never_ran(server) else {}
    chosen = entry["flavor"] or {}
    vcpus = int(has.get("vcpus") or chosen.get("cpus") or 0)
    specs = has.get("extra_specs")
    if specs is None:
        specs = next((f.get("extra_specs") for f in target.flavors if f.get("id") == chosen.get("id")), None)
    if not vcpus or own.hypervisor != "kvm":
        return own
    found, warnings = topology.properties(vm, vcpus, specs)
    entry["warnings"] += [Finding("ferry.cpu.topology", text) for text in warnings]
    if any(k in own.properties for k in topology.PROPERTIES):
        found = {}
    return replace(own, properties={**found, **own.properties})


def _order(vm: Mapping[str, Any], own: Options, entry: dict[str, Any]) -> None:
    """Say in which order, and under which names, the server sees its disks: the one it boots from first, the others as the VM had them.

    A name in the guest may still be another (its own driver gives it); what is certain is the volume's id as the disk's serial number.
    """
    root = next((v for v in entry["volumes"] if v["role"] == "root"), None)
    if root is None:
        return
    bus = str(root["image_properties"].get("hw_disk_bus") or ("virtio" if own.hypervisor == "kvm" else "scsi"))
    prefix = _DEVICES.get(bus, "sd")
    ordered = [root, *(v for v in entry["volumes"] if v is not root)]
    for number, volume in enumerate(ordered):
        volume["attach"] = {"order": number, "bus": bus, "device": f"/dev/{prefix}{_letters(number)}", "serial": volume["id"]}
    if root["index"]:
        text = f"it boots from its disk number {root['index'] + 1}, which becomes the first: names such as /dev/sda move, UUIDs and labels do not"
        entry["warnings"].append(Finding("ferry.disk.order", text, disk=root["label"]))
    room = 4 - bool(own.config_drive)
    if bus == "ide" and len(ordered) > room:
        text = (
            f"it has {len(ordered)} disks, an IDE controller has room for {room}"
            + (" beside the config drive" if own.config_drive else "")
            + "; set another controller (properties: hw_disk_bus) if its guest has the driver"
        )
        entry["errors"].append(Finding("ferry.controller.full", text))


def _letters(number: int) -> str:
    """a, b ... z, aa, ab ..."""
    return (_letters(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _needs(own: Options, entry: dict[str, Any], wave: _Wave) -> None:
    """What the entry takes of the quotas beside what is there already."""
    needs, flavor = wave.needs, entry["flavor"]
    servers = (0 if entry["server"]["id"] else 1) + (own.rehearsal != "none")
    if servers:
        needs.add("instances", servers)
        needs.add("cores", servers * (flavor or {}).get("cpus", 0))
        needs.add("ram", servers * (flavor or {}).get("memory_mb", 0))
    for volume in entry["volumes"]:
        size, volume_type = volume["size_gib"], volume["quota_type"]
        if volume["found"] is None and volume["replace"]:
            pass  # the one in error is removed first
        elif volume["found"] is None:
            needs.volume(size, volume_type)
        elif (volume["found"]["size_gib"] or 0) < size:
            needs.volume(size - (volume["found"]["size_gib"] or 0), volume_type, count=0)
        if own.rehearsal != "none":
            needs.volume(size, volume_type)
        if own.rehearsal == "snapshot":
            needs.snapshot(size, volume_type)
        if volume["file"] and volume["state"] != "complete":
            needs.add("image_count_total", 1)
    needs.add("port", sum(p["id"] is None for p in entry["ports"]) + (len(entry["ports"]) if own.rehearsal != "none" else 0))
