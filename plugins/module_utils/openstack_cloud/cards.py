# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ports that a VM's network cards become: network, MAC, addresses, security groups, and whether the user may have them. Pure.

Neutron's default policy (neutron/conf/policies/port.py: C(create_port:mac_address), C(create_port:fixed_ips:ip_address)) lets an
admin, a service, or a member of the project that owns the network choose a MAC or an address; nobody else.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Iterable, Mapping, Sequence

from ..errors import bounded
from . import matching
from .finding import Finding
from .options import Card, Options, card_of, key_of, label_of, name_of, unused_nics
from .target import NIC, SOURCE, Row, Target

#: Roles that may choose MACs and addresses on any network.
STRONG = frozenset(("admin", "service", "advsvc"))
#: Metadata of the volume that the server boots from: the addresses of a card. A source that is off tells none any more.
ADDRESS = "ferry_ip_"
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


class Claims:
    """What the wave's cards claim, each for one of them only, beside what the ports that are there have: looked up, not searched."""

    def __init__(self, ports: Iterable[Row]) -> None:
        self.macs: dict[tuple[str, str], str] = {}
        self.addresses: dict[tuple[str, str], str] = {}
        self.named: dict[str, list[Row]] = {}
        self.with_mac: dict[tuple[str, str], list[Row]] = {}
        self.with_address: dict[tuple[str, str], list[Row]] = {}
        for port in ports:
            network = str(port.get("network_id"))
            self.named.setdefault(str(port.get("name") or ""), []).append(port)
            self.with_mac.setdefault((network, str(port.get("mac_address")).lower()), []).append(port)
            for fixed in port.get("fixed_ips") or ():
                self.with_address.setdefault((network, str(fixed.get("ip_address"))), []).append(port)


def plan_ports(vm: Mapping[str, Any], own: Options, known: matching.Known, target: Target, entry: dict[str, Any], claims: Claims) -> None:
    """Fill C(ports), C(errors) and C(warnings) of the entry, and note addresses in its volumes' metadata."""
    errors: list[str] = entry["errors"]
    for index, nic in enumerate(vm.get("nics") or ()):
        shown = label_of(nic, index)
        card = card_of(nic, index, own)
        if not card.mapped:
            text = f"{shown} is on the network {bounded(nic.get('network'), 80)!r}, which is not mapped (network_map)"
            errors.append(Finding("VMNetworksNotMapped", text, device=shown))
            continue
        if card.network is None:
            continue
        network = _network(card.network, shown, target, errors)
        if network is None:
            continue
        key = key_of(nic, index)
        name = name_of(own.port_name, vm, index, nic.get("key"))
        found = known.port(key, name, card.mac, entry["server"]["id"])
        taken = claims.named.get(name, ())
        if found is None and taken:
            text = f"a port named {bounded(name, 100)!r} that is not ours is there already ({taken[0]['id']})"
            errors.append(Finding("ferry.port.exists", text, device=shown))
        who = f"{entry['source']} {key}"
        _check_mac(card, network, shown, found, who, claims, errors)
        addresses = _addresses(nic, key, card, shown, found, entry)
        _check_addresses(addresses, network, shown, found, target, who, claims, errors)
        _may(card, addresses, network, shown, found, target, own, errors)
        port = {
            "nic": key,
            "index": index,
            "name": name,
            "network": network["name"],
            "network_id": network["id"],
            "mac": card.mac,
            "description": f"{SOURCE}={entry['source']} {NIC}={key}",
            "tags": [f"{SOURCE}={entry['source']}", f"{NIC}={key}"],
            "security_groups": _groups(card.security_groups, shown, target, errors),
            "fixed_ips": [{"ip_address": a} for a in addresses] or None,
            "id": found["id"] if found else None,
            "found": matching.port_facts(found),
        }
        entry["ports"].append(port)
        problem = matching.port_problem(found, port, entry["server"]["id"])
        if problem:
            errors.append(Finding("ferry.port.unusable", problem, device=shown))
    unknown = unused_nics(vm, own)
    if unknown:
        errors.append(Finding("ferry.option.invalid", f"nics names cards that it does not have: {bounded(', '.join(unknown), 200)}"))


def _network(wanted: str, shown: str, target: Target, errors: list[str]) -> Row | None:
    found = [n for n in target.networks if n["id"] == wanted] or [n for n in target.networks if n["name"] == wanted]
    if len(found) == 1:
        return found[0]
    many = f"several networks are named {bounded(wanted, 80)!r}; give the id" if found else f"there is no network {bounded(wanted, 80)!r}"
    errors.append(Finding("ferry.network.unknown", f"{many} (for {shown})", device=shown))
    return None


def _check_mac(card: Card, network: Row, shown: str, found: Row | None, who: str, claims: Claims, errors: list[str]) -> None:
    mac = card.mac
    if not mac:
        return
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1:
        text = f"{shown}: {bounded(mac, 40)} is no MAC address of a card (six pairs of hexadecimal digits, no multicast)"
        errors.append(Finding("ferry.mac.invalid", text, device=shown))
        return
    if claims.macs.setdefault((network["id"], mac), who) != who:
        text = f"{shown}: the MAC {mac} is there twice in the wave, on the network {bounded(network['name'], 80)}"
        errors.append(Finding("MacConflicts", text, device=shown))
    for port in claims.with_mac.get((network["id"], mac), ()):
        if found is None or port["id"] != found["id"]:
            text = f"{shown}: the MAC {mac} is in use on the network {bounded(network['name'], 80)} by the port {port['id']}, which is not ours"
            errors.append(Finding("MacConflicts", text, device=shown))


def _addresses(nic: Mapping[str, Any], key: str, card: Card, shown: str, found: Row | None, entry: dict[str, Any]) -> list[str]:
    """The addresses that the port gets; none where DHCP decides.

    Those that VMware Tools told are kept with the volume: when the port is made, the source is off and tells nothing.
    """
    if card.fixed_ips:
        return list(card.fixed_ips)
    if not card.keep_ip:
        return []
    # A guest's link-local addresses are its own affair.
    told = [str(a) for a in nic.get("addresses") or () if ":" not in str(a) and not str(a).startswith("169.254.")]
    root = next((v for v in entry["volumes"] if v["role"] == "root"), None)
    kept = ((root["found"] or {}).get("metadata") or {}).get(ADDRESS + key) if root else None
    addresses = told or [a for a in str(kept or "").split(",") if a]
    if addresses and root:
        root["metadata"][ADDRESS + key] = root["create_metadata"][ADDRESS + key] = ",".join(addresses)[:255]
    elif not addresses and found is None:
        text = f"{shown}: its address is to be kept (keep_ip), but VMware Tools tell none; start the guest, or give fixed_ips in nics"
        entry["errors"].append(Finding("ferry.address.unknown", text, device=shown))
    return addresses


def _check_addresses(
    addresses: Sequence[str], network: Row, shown: str, found: Row | None, target: Target, who: str, claims: Claims, errors: list[str]
) -> None:
    subnets = [s for s in target.subnets if s.get("network_id") == network["id"]]
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            errors.append(Finding("ferry.address.invalid", f"{shown}: {bounded(text, 60)} is no IP address", device=shown))
            continue
        fitting = [s for s in subnets if address in ipaddress.ip_network(str(s["cidr"]), strict=False)]
        if not fitting:
            known = ", ".join(str(s["cidr"]) for s in subnets[:5]) or "none"
            what = f"{shown}: {text} is in no subnet of the network {bounded(network['name'], 80)} (subnets: {known})"
            errors.append(Finding("ferry.address.outside", what, device=shown))
            continue
        net = ipaddress.ip_network(str(fitting[0]["cidr"]), strict=False)
        ends = (net.network_address, net.broadcast_address) if net.version == 4 and net.prefixlen < 31 else ()
        if address in ends or str(address) == fitting[0].get("gateway_ip"):
            what = f"{shown}: {text} is the {'gateway' if address not in ends else 'first or last address'} of the subnet {net}"
            errors.append(Finding("ferry.address.reserved", what, device=shown))
            continue
        if claims.addresses.setdefault((network["id"], str(address)), who) != who:
            what = f"{shown}: the address {text} is there twice in the wave, on the network {bounded(network['name'], 80)}"
            errors.append(Finding("ferry.address.taken", what, device=shown))
        for port in claims.with_address.get((network["id"], str(address)), ()):
            if found is None or port["id"] != found["id"]:
                owner = bounded(port.get("device_owner") or "nothing", 40)
                what = f"{shown}: the address {text} is in use by the port {port['id']} ({owner}), which is not ours"
                errors.append(Finding("ferry.address.taken", what, device=shown))


def may_choose(network: Row, target: Target) -> bool:
    """Whether this user may choose MACs and addresses on the network, by Neutron's default policy; true where that is not known."""
    if target.roles is None or target.project is None or not (network.get("project_id") or network.get("tenant_id")):
        return True
    owner = str(network.get("project_id") or network.get("tenant_id"))
    return bool(STRONG & target.roles) or owner.replace("-", "") == target.project.replace("-", "")


def _may(
    card: Card,
    addresses: Sequence[str],
    network: Row,
    shown: str,
    found: Row | None,
    target: Target,
    own: Options,
    errors: list[str],
) -> None:
    if own.port_policy == "trust" or may_choose(network, target):
        return
    asks = []
    if card.mac and (found is None or str(found.get("mac_address")).lower() != card.mac):
        asks.append("its MAC")
    if addresses and (found is None or not set(addresses) <= {str(f.get("ip_address")) for f in found.get("fixed_ips") or ()}):
        asks.append("its address")
    if asks:
        text = (
            f"{shown}: {' and '.join(asks)} cannot be kept on the network {bounded(network['name'], 80)}, which belongs to another project:"
            " Neutron lets only an admin or the network's owner choose them. Use keep_mac: false (nics: mac: null for one card),"
            " or port_policy: trust where your cloud allows it"
        )
        errors.append(Finding("ferry.port.policy", text, device=shown))


def _groups(wanted: Sequence[str] | None, shown: str, target: Target, errors: list[str]) -> list[str] | None:
    """Ids of the security groups; None leaves them to Neutron."""
    if wanted is None:
        return None
    found = []
    for word in wanted:
        rows = [g for g in target.security_groups if g["id"] == word] or [g for g in target.security_groups if g["name"] == word]
        if len(rows) == 1:
            found.append(str(rows[0]["id"]))
            continue
        text = f"{'several security groups are named' if rows else 'there is no security group'} {bounded(word, 80)!r}"
        if text not in errors:
            errors.append(Finding("ferry.security_group.unknown", text, device=shown))
    return found
