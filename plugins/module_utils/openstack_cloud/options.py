# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a user says of a wave and of single VMs, and what follows from it alone: names, mapped networks, network cards. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

from ..errors import BadInput, bounded

#: Names in OpenStack end here (characters).
MAX_NAME = 255
PER_VM = (
    "availability_zone",
    "config_drive",
    "flavor",
    "hardware",
    "hypervisor",
    "keep_mac",
    "key_name",
    "network_map",
    "nics",
    "properties",
    "security_groups",
    "server_name",
    "server_state",
    "storage_map",
    "volume_name",
    "port_name",
    "metadata",
)
#: What may be said of a network in the network map, and of a single card.
_OF_NETWORK = frozenset(("network", "keep_ip", "security_groups"))
_OF_CARD = frozenset(("network", "keep_ip", "fixed_ips", "mac", "security_groups"))


@dataclass(frozen=True)
class Options:
    """What the user said. Each of PER_VM may be said for one VM too, in the C(options) of its facts.

    C(network_map): source network to target network (name or id); null leaves that card out.
    C(storage_map): source datastore, or C(*), to volume type; null or empty is the cloud's default type.
    C(nics): for single cards, by index, label, key or MAC; wins over the network map.
    C(constraints): which VMs belong together or apart, see groups.py.
    C(port_policy): C(trust) where the cloud's own policy lets the user choose MACs and addresses on networks of others.
    C(rehearsal): what a rehearsal will need beside the landing: nothing, snapshots, or clones of all volumes.
    """

    network_map: Mapping[str, Any] = field(default_factory=dict)
    storage_map: Mapping[str, Any] = field(default_factory=dict)
    nics: Mapping[Any, Any] = field(default_factory=dict)
    availability_zone: str | None = None
    security_groups: Sequence[str] | None = None
    flavor: str | None = None
    key_name: str | None = None
    config_drive: bool | None = None
    hypervisor: str = "kvm"
    hardware: str = "source"
    keep_mac: bool = True
    properties: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    server_name: str = "{name}"
    volume_name: str = "{name}-disk{index}"
    port_name: str = "{name}-nic{index}"
    server_state: str = "started"
    constraints: Sequence[Any] = ()
    port_policy: str = "check"
    rehearsal: str = "none"

    def of(self, vm: Mapping[str, Any]) -> Options:
        """These options with what C(vm) says of its own."""
        own = vm.get("options") or {}
        unknown = sorted(set(own) - set(PER_VM))
        if unknown:
            raise BadInput(f"Unknown options of one VM: {', '.join(bounded(u, 40) for u in unknown)}. Known are {', '.join(PER_VM)}.")
        return Options(**{**self.__dict__, **{k: v for k, v in own.items() if v is not None}})


@dataclass(frozen=True)
class Card:
    """What is said of one network card. Not C(mapped): nobody said where it goes. C(network) None: it is left out."""

    mapped: bool
    network: str | None
    mac: str | None
    keep_ip: bool
    fixed_ips: tuple[str, ...]
    security_groups: Sequence[str] | None

    @property
    def wants_address(self) -> bool:
        return self.keep_ip or bool(self.fixed_ips)


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


def key_of(nic: Mapping[str, Any], index: int) -> str:
    """The key of the card number C(index), its index where the facts have none."""
    return str(nic.get("key") if nic.get("key") is not None else index)


def label_of(nic: Mapping[str, Any], index: int) -> str:
    """The card's name for people."""
    return bounded(nic.get("label") or f"network card {index + 1}", 60)


def _list(value: Any) -> list[str]:
    return [] if value in (None, "") else [str(v) for v in (value if isinstance(value, (list, tuple)) else [value])]


def _said(value: Any, known: frozenset[str], where: str) -> dict[str, Any]:
    """C(value), a network's name or a mapping, as a mapping."""
    if not isinstance(value, Mapping):
        return {"network": str(value) if value else None}
    unknown = sorted(str(k) for k in set(value) - known)
    if unknown:
        raise BadInput(f"Unknown in {where}: {', '.join(bounded(u, 40) for u in unknown)}. Known are {', '.join(sorted(known))}.")
    return dict(value)


def card_of(nic: Mapping[str, Any], index: int, own: Options) -> Card:
    """What C(own) says of the card C(nic), the VM's number C(index) from 0.

    :raises BadInput: an unknown word in the network map or in nics.
    """
    said: dict[str, Any] = {}
    mapped = False
    for key in (nic.get("network"), nic.get("network_moref"), "*"):
        if key is not None and key in own.network_map:
            said, mapped = _said(own.network_map[key], _OF_NETWORK, f"network_map, {bounded(key, 60)}"), True
            break
    by_name = {str(k).lower(): v for k, v in own.nics.items()}
    for name in (nic.get("mac"), nic.get("label"), nic.get("key"), index):
        if name is not None and str(name).lower() in by_name:
            mine = _said(by_name[str(name).lower()], _OF_CARD, f"nics, {bounded(name, 60)}")
            said, mapped = {**said, **mine}, mapped or "network" in mine
            break
    mac = str(nic["mac"]).lower() if own.keep_mac and nic.get("mac") else None
    if "mac" in said:
        mac = str(said["mac"]).lower() if said["mac"] else None
    groups = said.get("security_groups", own.security_groups)
    return Card(
        mapped=mapped,
        network=str(said["network"]) if said.get("network") else None,
        mac=mac,
        keep_ip=bool(said.get("keep_ip")),
        fixed_ips=tuple(_list(said.get("fixed_ips"))),
        security_groups=None if groups is None else _list(groups),
    )


def unused_nics(vm: Mapping[str, Any], own: Options) -> list[str]:
    """Keys of C(nics) that name no card of the VM."""
    known = set()
    for index, nic in enumerate(vm.get("nics") or ()):
        known |= {str(n).lower() for n in (nic.get("mac"), nic.get("label"), nic.get("key"), index) if n is not None}
    return [str(k) for k in own.nics if str(k).lower() not in known]


@dataclass(frozen=True)
class Asked:
    """What of the target a wave is about: names or ids of networks, names of ports, keys, and what need not be read."""

    networks: frozenset[str]
    port_names: frozenset[str]
    keys: bool
    zones: bool
    addresses: bool
    groups: bool
    images: bool
    default_type: bool = True
    security_groups: bool = True


def asked(vms: Iterable[Mapping[str, Any]], options: Options) -> Asked:
    """What read_target() has to look at for this wave. Errors are left to plan(), which tells them with all others."""
    networks: set[str] = set()
    names: set[str] = set()
    keys = zones = addresses = images = default_type = security = False
    for vm in vms:
        images = images or any(d.get("file") for d in vm.get("disks") or ())
        try:
            own = options.of(vm)
            keys = keys or bool(own.key_name)
            zones = zones or bool(own.availability_zone)
            default_type = default_type or not _all_typed(own.storage_map)
            security = security or own.security_groups is not None
            for index, nic in enumerate(vm.get("nics") or ()):
                card = card_of(nic, index, own)
                if card.mapped and card.network:
                    networks.add(card.network)
                    names.add(name_of(own.port_name, vm, index, nic.get("key")))
                    addresses = addresses or card.wants_address
                    security = security or card.security_groups is not None
        except BadInput:
            continue
    return Asked(frozenset(networks), frozenset(names), keys, zones, addresses, bool(options.constraints), images, default_type, security)


def _all_typed(storage_map: Mapping[str, Any]) -> bool:
    """Whether no volume can become one of the cloud's default type."""
    return bool(storage_map) and all(v.get("type") if isinstance(v, Mapping) else v for v in storage_map.values())
