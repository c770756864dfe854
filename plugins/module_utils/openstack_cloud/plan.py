# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a wave of virtual machines becomes in OpenStack, and what of it is there already. Pure: facts and rows in, a plan out.

Nothing is decided elsewhere: the role that applies the plan does what C(todo) and C(drift) say and calls nothing for the rest.
All errors of the whole wave are found before its first byte travels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

from ..errors import BadInput, bounded
from . import compare, flavors, matching, properties
from .target import DISK, NIC, ROLE, SCOPE, SOURCE, STATE, Target

GIB = 1 << 30
#: Names in OpenStack end here (characters).
MAX_NAME = 255
PER_VM = (
    "availability_zone",
    "flavor",
    "hardware",
    "hypervisor",
    "keep_mac",
    "network_map",
    "properties",
    "security_groups",
    "server_name",
    "server_state",
    "storage_map",
    "volume_name",
    "port_name",
    "metadata",
)


@dataclass(frozen=True)
class Options:
    """What the user said. Each may be said for one VM too, in the C(options) of its facts.

    C(network_map): source network to target network (name or id); null leaves that card out.
    C(storage_map): source datastore, or C(*), to volume type; null or empty is the cloud's default type.
    """

    network_map: Mapping[str, Any] = field(default_factory=dict)
    storage_map: Mapping[str, Any] = field(default_factory=dict)
    availability_zone: str | None = None
    security_groups: Sequence[str] | None = None
    flavor: str | None = None
    hypervisor: str = "kvm"
    hardware: str = "source"
    keep_mac: bool = True
    properties: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    server_name: str = "{name}"
    volume_name: str = "{name}-disk{index}"
    port_name: str = "{name}-nic{index}"
    server_state: str = "started"

    def of(self, vm: Mapping[str, Any]) -> Options:
        """These options with what C(vm) says of its own."""
        own = vm.get("options") or {}
        unknown = sorted(set(own) - set(PER_VM))
        if unknown:
            raise BadInput(f"Unknown options of one VM: {', '.join(bounded(u, 40) for u in unknown)}. Known are {', '.join(PER_VM)}.")
        return Options(**{**self.__dict__, **{k: v for k, v in own.items() if v is not None}})


def name_of(template: str, vm: Mapping[str, Any], index: int | None = None, key: object = None) -> str:
    """A name from a template with {name}, {uuid}, {moref}, {index} (from 0) and {key}."""
    words = {"name": vm.get("name"), "uuid": vm.get("instance_uuid"), "moref": vm.get("moref"), "index": index, "key": key}

    def word(match: re.Match[str]) -> str:
        if match[1] not in words:
            raise BadInput(f"Unknown word {match[0]} in the name template {bounded(template, 100)}; known are {', '.join(words)}.")
        return str(words[match[1]])

    return re.sub(r"\{(\w*)\}", word, template)[:MAX_NAME]


def source_of(vm: Mapping[str, Any]) -> str:
    """The VM's instance uuid, by which everything made for it is tagged."""
    found = str(vm.get("instance_uuid") or "")
    if not re.fullmatch(r"[0-9A-Fa-f-]{8,64}", found):
        raise BadInput("The VM's facts have no instance uuid; nothing could be found again.", vm=str(vm.get("name") or "?"))
    return found.lower()


def root_index(vm: Mapping[str, Any]) -> int:
    """Which disk the VM boots from: the first of its boot order, else its first."""
    keys = [str(d.get("key")) for d in vm.get("disks") or ()]
    for key in vm.get("boot_disks") or ():
        if str(key) in keys:
            return keys.index(str(key))
    return 0


def mapped_network(nic: Mapping[str, Any], network_map: Mapping[str, Any]) -> tuple[bool, str | None]:
    """(whether the card's network is mapped, to which; None: the card is left out)."""
    for key in (nic.get("network"), nic.get("network_moref"), "*"):
        if key is not None and key in network_map:
            value = network_map[key]
            if isinstance(value, Mapping):
                value = value.get("network")
            return True, str(value) if value else None
    return False, None


def wanted_names(vms: Iterable[Mapping[str, Any]], options: Options) -> tuple[set[str], set[str]]:
    """(networks, port names) that the wave asks for: what read_target() has to look at. Errors are left to plan()."""
    networks: set[str] = set()
    names: set[str] = set()
    for vm in vms:
        try:
            own = options.of(vm)
            for index, nic in enumerate(vm.get("nics") or ()):
                known, network = mapped_network(nic, own.network_map)
                if known and network:
                    networks.add(network)
                    names.add(name_of(own.port_name, vm, index, nic.get("key")))
        except BadInput:
            continue  # plan() tells it, with all others
    return networks, names


class _Wave:
    """What has to be compared across the VMs of a wave."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, str], str] = {}
        self.macs: dict[tuple[str, str], str] = {}
        self.needs: dict[str, int] = {}
        self.sources: dict[str, str] = {}

    def need(self, what: str, amount: int) -> None:
        self.needs[what] = self.needs.get(what, 0) + amount


def plan(vms: Sequence[Mapping[str, Any]], target: Target, options: Options) -> dict[str, Any]:
    """The plan of a wave: C(vms) (one entry per VM, in order), C(errors) (of the whole wave, each with its VM), C(quotas)."""
    wave = _Wave()
    entries = [_entry(vm, target, options, wave) for vm in vms]
    errors = [{"vm": e["name"], "what": what, "text": f"{e['name']}: {what}"} for e in entries for what in e["errors"]]
    quotas = []
    for what, amount in sorted(wave.needs.items()):
        limit, used = target.quotas.get(what, (-1, 0))
        quotas.append({"what": what, "needed": amount, "used": used, "limit": limit})
        if limit >= 0 and amount > 0 and used + amount > limit:
            text = f"the quota of {what} is {limit}, {used} are used, the wave needs {amount} more"
            errors.append({"vm": None, "what": text, "text": text})
    return {"vms": entries, "errors": errors, "quotas": quotas}


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
            errors.append(f"it has the same instance uuid ({source}) as {wave.sources[source]}")
        wave.sources.setdefault(source, name)
        server = _server(vm, own, known, target, entry, wave)
        _volumes(vm, own, known, target, entry, wave)
        _ports(vm, own, known, target, entry, wave)
        entry["flavor"] = _flavor(vm, own, target, server, errors, wave)
    except BadInput as e:
        errors.append(e.message)
        return entry
    entry["warnings"] += properties.concerns(vm)
    compare.compare(entry)
    return entry


def _claim(wave: _Wave, kind: str, name: str, owner: str, errors: list[str]) -> None:
    other = wave.names.setdefault((kind, name), owner)
    if other != owner or not name:
        errors.append(f"the {kind} of {owner} would have the name {bounded(name, 100)!r}, which is that of {other}")


def _server(
    vm: Mapping[str, Any], own: Options, known: matching.Known, target: Target, entry: dict[str, Any], wave: _Wave
) -> Mapping[str, Any] | None:
    errors = entry["errors"]
    name = name_of(own.server_name, vm)
    found = known.server()
    _claim(wave, "server", name, f"{entry['name']} ({entry['source']})", errors)
    others = [s for s in target.servers if s.get("name") == name and (found is None or s["id"] != found["id"])]
    if others:
        errors.append(f"a server named {bounded(name, 100)!r} that is not ours is there already ({others[0]['id']})")
    if len(known.servers) > 1:
        errors.append(f"several servers are tagged as its own: {', '.join(s['id'] for s in known.servers)}")
    if own.server_state not in ("started", "stopped"):
        errors.append(f"server_state is started or stopped, not {bounded(own.server_state, 40)}")
    zone = own.availability_zone
    if zone and target.zones and zone not in target.zones:
        errors.append(f"there is no availability zone {bounded(zone, 60)}; there are {', '.join(target.zones)}")
    entry["server"] = {
        "id": found["id"] if found else None,
        "name": name,
        "status": found.get("status") if found else "absent",
        "should": "ACTIVE" if own.server_state == "started" else "SHUTOFF",
        "metadata": {**{str(k): str(v) for k, v in own.metadata.items()}, SOURCE: entry["source"], SCOPE: entry["name"][:MAX_NAME]},
        "availability_zone": zone,
        "replace": matching.never_ran(found),
        "found": matching.server_facts(found),
    }
    if found is None:
        wave.need("instances", 1)
    return found


def _volumes(vm: Mapping[str, Any], own: Options, known: matching.Known, target: Target, entry: dict[str, Any], wave: _Wave) -> None:
    errors = entry["errors"]
    disks = vm.get("disks") or ()
    if not disks:
        errors.append("it has no disks")
        return
    root = root_index(vm)
    types = {t["name"]: t for t in target.volume_types} | {t["id"]: t for t in target.volume_types}
    for index, disk in enumerate(disks):
        key = str(disk.get("key"))
        label = str(disk.get("label") or key)
        capacity = int(disk.get("capacity") or 0)
        if capacity <= 0:
            errors.append(f"disk {bounded(label, 60)} has no capacity")
            continue
        volume_type = _type_of(disk, own, types, errors, label)
        name = name_of(own.volume_name, vm, index, key)
        found = known.volume(key, name)
        _claim(wave, "volume", name, f"{label} of {entry['name']} ({entry['source']})", errors)
        taken = [v for v in target.volumes if v.get("name") == name and (found is None or v["id"] != found["id"])]
        if found is None and taken:
            errors.append(f"a volume named {bounded(name, 100)!r} that is not ours is there already ({taken[0]['id']})")
        size = -(-capacity // GIB)
        boots = index == root
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
            "image_properties": properties.for_vm(vm, disk, hypervisor=own.hypervisor, hardware=own.hardware, own=own.properties)
            if boots
            else {},
            "id": found["id"] if found else None,
            "state": matching.volume_state(found),
            "digest": (found.get("metadata") or {}).get("ferry_digest") if found else None,
            "found": matching.volume_facts(found),
        }
        row["create_metadata"] = {**row["metadata"], STATE: "copying"}
        entry["volumes"].append(row)
        problem = matching.volume_problem(found, row, entry["server"]["id"])
        if problem:
            errors.append(problem)
        if found is None:
            for what in ("volumes", f"volumes_{volume_type}") if volume_type else ("volumes",):
                wave.need(what, 1)
            for what in ("gigabytes", f"gigabytes_{volume_type}") if volume_type else ("gigabytes",):
                wave.need(what, size)
            limit = target.quotas.get("per_volume_gigabytes", (-1, 0))[0]
            if 0 <= limit < size:
                errors.append(f"disk {bounded(label, 60)} needs {size} GiB, a volume may have {limit}")
    for spare in known.spare_volumes({r["disk"] for r in entry["volumes"]}):
        entry["warnings"].append(f"volume {spare} is tagged as its own, but the VM has no such disk (any more)")


def _type_of(disk: Mapping[str, Any], own: Options, types: Mapping[str, Any], errors: list[str], label: str) -> str | None:
    datastore = str(disk.get("datastore") or "")
    wanted: Any = None
    if own.storage_map:
        for key in (datastore, disk.get("datastore_moref"), "*"):
            if key is not None and key in own.storage_map:
                wanted = own.storage_map[key]
                break
        else:
            errors.append(f"disk {bounded(label, 60)} lies on the datastore {bounded(datastore, 80)!r}, which is not mapped (storage_map)")
            return None
    if isinstance(wanted, Mapping):
        wanted = wanted.get("type")
    if not wanted:
        return None
    if wanted not in types:
        names = ", ".join(sorted(t["name"] for t in types.values() if t["name"]))
        errors.append(f"there is no volume type {bounded(wanted, 80)!r} for disk {bounded(label, 60)}; there are {bounded(names, 200)}")
        return None
    return str(types[wanted]["name"])


def _ports(vm: Mapping[str, Any], own: Options, known: matching.Known, target: Target, entry: dict[str, Any], wave: _Wave) -> None:
    errors = entry["errors"]
    groups = _groups(own, target, errors)
    for index, nic in enumerate(vm.get("nics") or ()):
        key = str(nic.get("key") if nic.get("key") is not None else index)
        shown = bounded(nic.get("label") or f"network card {index + 1}", 60)
        mapped, wanted = mapped_network(nic, own.network_map)
        if not mapped:
            errors.append(f"{shown} is on the network {bounded(nic.get('network'), 80)!r}, which is not mapped (network_map)")
            continue
        if wanted is None:
            continue
        networks = [n for n in target.networks if n["id"] == wanted] or [n for n in target.networks if n["name"] == wanted]
        if len(networks) != 1:
            many = (
                f"several networks are named {bounded(wanted, 80)!r}; give the id"
                if networks
                else f"there is no network {bounded(wanted, 80)!r}"
            )
            errors.append(f"{many} (for {shown})")
            continue
        network = networks[0]
        name = name_of(own.port_name, vm, index, nic.get("key"))
        mac = str(nic["mac"]).lower() if own.keep_mac and nic.get("mac") else None
        found = known.port(key, name, mac, entry["server"]["id"])
        _claim(wave, "port", name, f"{shown} of {entry['name']} ({entry['source']})", errors)
        taken = [p for p in target.ports if p.get("name") == name and (found is None or p["id"] != found["id"])]
        if found is None and taken:
            errors.append(f"a port named {bounded(name, 100)!r} that is not ours is there already ({taken[0]['id']})")
        if mac:
            if wave.macs.setdefault((network["id"], mac), f"{entry['source']} {key}") != f"{entry['source']} {key}":
                errors.append(f"{shown}: the MAC {mac} is there twice in the wave, on the network {bounded(network['name'], 80)}")
            holder = next((p for p in target.ports if p["network_id"] == network["id"] and str(p.get("mac_address")).lower() == mac), None)
            if holder is not None and (found is None or holder["id"] != found["id"]):
                errors.append(
                    f"{shown}: the MAC {mac} is in use on the network {bounded(network['name'], 80)} by the port {holder['id']}, which is not ours"
                )
        port = {
            "nic": key,
            "index": index,
            "name": name,
            "network": network["name"],
            "network_id": network["id"],
            "mac": mac,
            "description": f"{SOURCE}={entry['source']} {NIC}={key}",
            "tags": [f"{SOURCE}={entry['source']}", f"{NIC}={key}"],
            "security_groups": groups,
            "fixed_ips": _fixed_ips(nic, own),
            "id": found["id"] if found else None,
            "found": matching.port_facts(found),
        }
        entry["ports"].append(port)
        problem = matching.port_problem(found, port, entry["server"]["id"])
        if problem:
            errors.append(problem)
        if found is None:
            wave.need("port", 1)


def _fixed_ips(nic: Mapping[str, Any], own: Options) -> list[dict[str, str]] | None:
    """Addresses for the card where its entry in the network map asks to keep those that VMware Tools told."""
    value = next(
        (own.network_map[k] for k in (nic.get("network"), nic.get("network_moref"), "*") if k is not None and k in own.network_map), None
    )
    if not isinstance(value, Mapping) or not value.get("keep_ip"):
        return None
    found = [str(a) for a in nic.get("addresses") or () if ":" not in str(a)]
    return [{"ip_address": a} for a in found] or None


def _groups(own: Options, target: Target, errors: list[str]) -> list[str] | None:
    if own.security_groups is None:
        return None
    found = []
    for wanted in own.security_groups:
        rows = [g for g in target.security_groups if g["id"] == wanted] or [g for g in target.security_groups if g["name"] == wanted]
        if len(rows) == 1:
            found.append(str(rows[0]["id"]))
        else:
            errors.append(f"{'several security groups are named' if rows else 'there is no security group'} {bounded(wanted, 80)!r}")
    return found


def _flavor(
    vm: Mapping[str, Any], own: Options, target: Target, server: Mapping[str, Any] | None, errors: list[str], wave: _Wave
) -> dict[str, Any] | None:
    cpus, memory_mb = int(vm.get("cpus") or 1), int(vm.get("memory_mb") or 1)
    try:
        choice = flavors.named(target.flavors, own.flavor, cpus, memory_mb) if own.flavor else flavors.fit(target.flavors, cpus, memory_mb)
    except BadInput as e:
        errors.append(e.message[0].lower() + e.message[1:].rstrip("."))
        return None
    if server is None:
        wave.need("cores", choice.cpus)
        wave.need("ram", choice.memory_mb)
    return choice.as_dict()
