# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a Linux guest's files say of its network interfaces: names, MACs and addresses, in the words of each of its network's managers. Pure.

Sources: interfaces(5) of ifupdown; Red Hat's and SUSE's ifcfg files; nm-settings-keyfile(5); netplan's YAML; systemd.network(5) and
systemd.link(5); udev(7).
"""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass, field, replace
from typing import Iterable, Iterator, Mapping

#: Files of a guest that bind interfaces, as patterns.
PATTERNS = (
    "/etc/network/interfaces",
    "/etc/network/interfaces.d/*",
    "/etc/netplan/*.yaml",
    "/etc/NetworkManager/system-connections/*",
    "/etc/sysconfig/network-scripts/ifcfg-*",
    "/etc/sysconfig/network/ifcfg-*",
    "/etc/systemd/network/*.network",
    "/etc/systemd/network/*.link",
    "/etc/udev/rules.d/*net*.rules",
)
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}"
_MAC = r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}"
#: No hardware has these: loopback, and what is made of other interfaces.
_MADE = re.compile(r"(lo|bond\d*|br\d+.*|br-.*|team\d*|dummy\d*|docker\d*|virbr\d*|veth.*|tun\d*|tap\d*|wg\d*|vlan\d*|.*\..*|.*:.*)")


@dataclass(frozen=True)
class Interface:
    """An interface that a file configures or names. C(mac): the one that the file binds it to; C(source): the file."""

    name: str
    source: str
    mac: str | None = None
    addresses: tuple[str, ...] = ()
    #: The file names the driver (C(vmxnet3)), which another card does not have.
    driver: str | None = None


@dataclass
class _Draft:
    name: str | None = None
    mac: str | None = None
    addresses: list[str] = field(default_factory=list)
    driver: str | None = None

    def done(self, source: str) -> Iterator[Interface]:
        name = (self.name or "").strip("\"' ")
        if re.fullmatch(_NAME, name) and not _MADE.fullmatch(name):
            yield Interface(name, source, normal(self.mac), tuple(self.addresses), self.driver)


def normal(mac: str | None) -> str | None:
    text = (mac or "").strip("\"' ").lower().replace("-", ":")
    return text if re.fullmatch(_MAC, text) else None


def interfaces(files: Mapping[str, str]) -> list[Interface]:
    """The interfaces that the files of a guest name, one for each name, with all that is known of it."""
    found: dict[str, Interface] = {}
    for path, text in sorted(files.items()):
        for one in _of_file(path, text):
            known = found.get(one.name)
            if known is None:
                found[one.name] = one
            else:
                addresses = tuple(dict.fromkeys((*known.addresses, *one.addresses)))
                found[one.name] = replace(known, mac=known.mac or one.mac, addresses=addresses, driver=known.driver or one.driver)
    return [found[name] for name in sorted(found, key=order)]


def order(name: str) -> tuple[object, ...]:
    """Natural order: eth2 before eth10."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))


def _of_file(path: str, text: str) -> Iterable[Interface]:
    name = path.rpartition("/")[2]
    if path.startswith("/etc/network/"):
        return _ifupdown(path, text)
    if path.startswith("/etc/netplan/"):
        return _netplan(path, text)
    if path.startswith("/etc/NetworkManager/"):
        return _keyfile(path, text)
    if name.startswith("ifcfg-"):
        return _ifcfg(path, text)
    if name.endswith((".network", ".link")):
        return _networkd(path, text)
    return _udev(path, text) if name.endswith(".rules") else ()


def _ifupdown(path: str, text: str) -> Iterator[Interface]:
    draft: _Draft | None = None
    for words in (line.split() for line in text.splitlines()):
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("iface", "auto", "allow-hotplug", "mapping", "source", "source-directory"):
            if draft:
                yield from draft.done(path)
            draft = _Draft(words[1]) if words[0] == "iface" and len(words) > 1 else None
        elif draft and words[0] == "address" and len(words) > 1:
            draft.addresses.append(words[1])
        elif draft and words[0] == "hwaddress" and len(words) > 1:
            draft.mac = words[-1]
    if draft:
        yield from draft.done(path)


def _ifcfg(path: str, text: str) -> Iterator[Interface]:
    said = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            said[key.upper()] = value.strip("\"' ")
    draft = _Draft(said.get("DEVICE") or path.rpartition("ifcfg-")[2], said.get("HWADDR") or said.get("LLADDR"))
    draft.addresses = [v for k, v in sorted(said.items()) if re.fullmatch(r"IPADDR\d*|IPV6ADDR", k) and v]
    if said.get("TYPE", "Ethernet").lower() == "ethernet":
        yield from draft.done(path)


def _ini(text: str) -> configparser.ConfigParser | None:
    found = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True, delimiters=("=",), comment_prefixes=("#", ";"))
    try:
        found.read_string(text)
    except configparser.Error:
        return None
    return found


def _keyfile(path: str, text: str) -> Iterator[Interface]:
    said = _ini(text)
    if said is None or said.get("connection", "type", fallback="ethernet") not in ("ethernet", "802-3-ethernet"):
        return
    ethernet = "ethernet" if said.has_section("ethernet") else "802-3-ethernet"
    draft = _Draft(said.get("connection", "interface-name", fallback=None), said.get(ethernet, "mac-address", fallback=None))
    for section in ("ipv4", "ipv6"):
        if said.has_section(section):
            draft.addresses += [v.split(",")[0] for k, v in said.items(section) if re.fullmatch(r"address\d+", k) and v]
    draft.driver = _vmware(said.get("match", "driver", fallback=None))
    yield from draft.done(path)


def _networkd(path: str, text: str) -> Iterator[Interface]:
    said = _ini(text)
    if said is None:
        return
    names = said.get("Link" if path.endswith(".link") else "Match", "Name", fallback=None) or ""
    mac = said.get("Match", "MACAddress", fallback=None) or said.get("Match", "PermanentMACAddress", fallback=None) or ""
    # A key may come several times, of which an ini reader keeps one.
    addresses = re.findall(r"(?m)^\s*Address\s*=\s*(\S+)", text)
    driver = _vmware(said.get("Match", "Driver", fallback=None))
    for name in names.split():
        yield from _Draft(name, mac.split(" ")[0], addresses, driver).done(path)


def _netplan(path: str, text: str) -> Iterator[Interface]:
    """The mappings below C(ethernets), by their indentation: block style, which netplan and its installers write."""
    draft: _Draft | None = None
    inside = outer = -1
    key, at = "", 0
    for line in text.splitlines():
        bare = line.split(" #")[0].rstrip()
        if not bare.strip() or bare.lstrip().startswith("#"):
            continue
        depth = len(bare) - len(bare.lstrip())
        word, _colon, value = bare.strip().partition(":")
        word, value = word.strip("\"' "), value.strip("\"' ")
        if inside >= 0 and depth <= outer:
            inside = outer = -1
        if word == "ethernets" and outer < 0:
            outer = depth
            continue
        if outer < 0:
            continue
        if inside < 0 or depth <= inside:
            if draft:
                yield from draft.done(path)
            inside, draft = depth, _Draft(word)
        elif draft is None:
            continue
        elif bare.strip().startswith("- "):
            if key == "addresses" and depth <= at + 2:
                draft.addresses.append(bare.strip()[2:].strip("\"' :"))
        else:
            if word in ("addresses", "nameservers", "routes") or value:
                key, at = (word if key != "nameservers" or depth <= at else key), depth
            if word == "addresses" and value.startswith("[") and key == "addresses":
                draft.addresses += [a.strip("\"' ") for a in value.strip("[]").split(",") if a.strip()]
            elif word == "macaddress":
                draft.mac = value
            elif word == "set-name":
                draft.name = value
            elif word == "driver":
                draft.driver = _vmware(value)
            elif word == "name" and re.fullmatch(_NAME, value):
                draft.name = value
    if draft:
        yield from draft.done(path)


def _udev(path: str, text: str) -> Iterator[Interface]:
    for line in text.splitlines():
        name, mac = re.search(r'\bNAME:?="([^"]+)"', line), re.search(r'ATTR\{address\}=="([^"]+)"', line)
        if name and not line.lstrip().startswith("#"):
            yield from _Draft(name[1], mac[1] if mac else None).done(path)


def _vmware(driver: str | None) -> str | None:
    """C(driver) where it is one that VMware's cards have."""
    found = re.search(r"\b(vmxnet3?|e1000e?|pcnet32)\b", driver or "")
    return found[1] if found else None
