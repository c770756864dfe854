# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which name of a guest's interfaces belongs to which card, and the files that keep it there on other hardware. Pure.

systemd names a card after its PCI slot (C(ens192)), which another machine does not have: everything that the guest says of that name, static
addresses and all, would be said of nothing. A C(.link) file gives the name to the MAC (systemd.link(5)); systems without systemd have udev's
rules for it. The names stay, so whichever manager the guest has (ifupdown, NetworkManager, netplan, ifcfg files) finds what it knows.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Iterable, Mapping, Sequence

from ..errors import BadInput, bounded
from .model import Card, Change
from .networks import Interface, order

RULES = "/etc/udev/rules.d/70-persistent-net.rules"
#: systemd's names by slot, by onboard index (which VMware's firmware gives), and the kernel's own.
_SLOT = re.compile(r"en[os](\d+)(?:np\d+)?")
_ADDRESS = re.compile(
    r"(?<![0-9A-Za-z.:/])([0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(/\d{1,3})?(?![0-9A-Za-z.:])"
)


def bind(found: Sequence[Interface], cards: Sequence[Card]) -> tuple[dict[str, str], list[str]]:
    """(MAC to name, remarks).

    A name is a card's where the guest's files say so, where the caller does, by the slot that it is named after, by the address that
    the card was seen with, and where there is only one of each left. More than one of each left are taken in their order, which is said.
    """
    names: dict[str, str] = {}
    remarks: list[str] = []
    macs = [card.mac for card in cards]
    left = list(found)

    def take(mac: str, interface: Interface) -> None:
        if mac in names or mac not in macs:
            return
        names[mac] = interface.name
        left.remove(interface)

    for interface in list(left):
        if interface.mac:
            take(interface.mac, interface)
    for card in cards:
        for interface in [i for i in left if card.name == i.name]:
            take(card.mac, interface)
        if card.name and card.mac not in names and not any(i.name == card.name for i in found):
            names[card.mac] = card.name
    for card in cards:
        for interface in [i for i in left if (slot := _SLOT.fullmatch(i.name)) and card.slot == int(slot[1])]:
            take(card.mac, interface)
    for card in cards:
        seen = {a.split("/")[0] for a in card.addresses}
        for interface in [i for i in left if seen & {a.split("/")[0] for a in i.addresses}]:
            take(card.mac, interface)
    # What a file binds to a MAC that no card has belongs to none of them.
    left = [i for i in left if not i.mac or i.mac in macs]
    free = [card for card in cards if card.mac not in names]
    if left and free and len(left) + len(free) > 2:
        shown = ", ".join(f"{i.name} to {c.mac}" for i, c in zip(left, free, strict=False))
        remarks.append(f"which card has which name is not certain, so they are taken in their order: {shown}")
    for card, interface in zip(free, sorted(left, key=lambda i: order(i.name)), strict=False):
        names[card.mac] = interface.name
    for interface in left[len(free) :]:
        remarks.append(f"the guest configures {interface.name}, for which there is no card")
    return names, remarks


def bound_already(found: Sequence[Interface], files: Mapping[str, str], names: Mapping[str, str], *, systemd: bool) -> bool:
    """Whether each name stays with its card as the files are: each is given by a C(.link) file or a rule of udev's."""
    return all(
        any(
            i.name == name and i.mac == mac
            for path, text in files.items()
            if path.endswith(".link" if systemd else ".rules")
            for i in _one(path, text)
        )
        for mac, name in names.items()
    )


def _one(path: str, text: str) -> Iterable[Interface]:
    from .networks import interfaces

    return interfaces({path: text})


def link_files(names: Mapping[str, str]) -> dict[str, str]:
    """The C(.link) files that give the names to the MACs."""
    return {
        f"/etc/systemd/network/10-ferry-{name}.link": f"[Match]\nMACAddress={mac}\n\n[Link]\nName={name}\n"
        for mac, name in sorted(names.items())
    }


def rules(text: str, names: Mapping[str, str]) -> str:
    """udev's rules that give the names to the MACs, in the place of older ones of these names and MACs."""
    taken = [*names, *(f'NAME="{name}"' for name in names.values())]
    kept = [line for line in text.splitlines() if not any(word.lower() in line.lower() for word in taken)]
    new = [
        f'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{address}}=="{mac}", ATTR{{type}}=="1", NAME="{name}"'
        for mac, name in sorted(names.items())
    ]
    return "\n".join([*kept, *new]) + "\n"


def without_driver(text: str, driver: str, mac: str) -> str:
    """A file that finds its card by VMware's driver finds it by its MAC: netplan, systemd-networkd and NetworkManager say it like this."""
    text = re.sub(rf"(?m)^(\s*)driver:\s*[\"']?{re.escape(driver)}[\"']?\s*$", rf'\1macaddress: "{mac}"', text)
    text = re.sub(rf"(?m)^Driver\s*=\s*{re.escape(driver)}\s*$", f"MACAddress={mac}", text)
    return re.sub(rf"(?m)^driver\s*=\s*{re.escape(driver)};?\s*\n", "", text)


def checked(addresses: Mapping[str, str] | None) -> dict[str, str]:
    """The option C(addresses): old to new, each an address that may have a prefix.

    :raises BadInput: one is none.
    """
    found = {}
    for old, new in (addresses or {}).items():
        for text in (old, new):
            try:
                ipaddress.ip_interface(str(text))
            except ValueError:
                raise BadInput(f"This is no address: {bounded(text, 60)!r}.", step="read the options") from None
        found[str(old)] = str(new)
    return found


def renumbered(path: str, text: str, addresses: Mapping[str, str]) -> tuple[str, list[Change]]:
    """The text with the addresses of the map, each a whole word of it; a prefix that the map does not name stays."""
    changes = []

    def one(found: re.Match[str]) -> str:
        whole, bare = found[0], found[1]
        new = addresses.get(whole) or addresses.get(bare)
        if new is None:
            return whole
        if found[2] and "/" not in new:
            new += found[2]
        elif not found[2]:
            new = new.split("/")[0]
        changes.append(Change("address changed", path, whole, new))
        return new

    return _ADDRESS.sub(one, text), changes
