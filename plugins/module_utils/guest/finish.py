# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing into a Linux guest what keeps its file systems and addresses on other hardware, after a conversion or instead of one."""

from __future__ import annotations

from . import decide, fstab, identity, networks
from .fish import Guestfish, Refused
from .model import Change, GuestError, Inspection

#: What virt-v2v leaves for the guest's first start: it loads a guest agent from a mirror, and waits where there is none.
FIRST_BOOT = "/usr/lib/virt-sysprep/scripts/*"
_UNITS = "/etc/systemd/system/*.wants/guestfs-firstboot.service"


def bind(fish: Guestfish, found: Inspection, wishes: decide.Wishes, *, converted: bool) -> list[Change]:
    """Bind the guest to its UUIDs and MACs.

    :param fish: a session in which the guest's file systems are not mounted yet.
    :param found: the inspection of before; which file lies where it says, what stands in it is read again.
    :param converted: virt-v2v was at work before: what it left for the first start is taken out unless asked for.
    :raises GuestError: something could not be written; the disks are half changed and to be thrown away.
    """
    try:
        for mount in sorted(found.mounts, key=lambda m: (len(m.path), m.path)):
            if mount.size:
                fish.ask("mount", mount.device, mount.path)
        return [
            *_file_systems(fish, found),
            *_cards(fish, found, wishes),
            *(_first_boot(fish) if converted and not wishes.first_boot else []),
        ]
    except Refused as e:
        raise GuestError(
            "What binds the guest to its hardware could not be written.", step="bind the guest to its hardware", said=str(e)
        ) from e


def _file_systems(fish: Guestfish, found: Inspection) -> list[Change]:
    changes: list[Change] = []
    for path, column in ((fstab.FSTAB, 0), (fstab.CRYPTTAB, 1)):
        text = fish.text(path)
        if text is None:
            continue
        new, some, _left = fstab.by_uuid(text, found.uuids, column=column, path=path)
        if new != text:
            fish.write(path, new)
            changes += some
    # What is said of before the conversion is what its readers know: virt-v2v has made sda of vda meanwhile.
    before = {
        fstab.appliance_name(d): d
        for p, c in ((fstab.FSTAB, 0), (fstab.CRYPTTAB, 1))
        for d in fstab.by_device(found.files.get(p, ""), column=c)
    }
    return [Change(c.what, c.where, before.get(fstab.appliance_name(c.before or ""), c.before), c.after) for c in changes]


def _cards(fish: Guestfish, found: Inspection, wishes: decide.Wishes) -> list[Change]:
    names, wanted, _remarks = decide.bindings(found, wishes)
    changes: list[Change] = []
    if any(c.what == "name bound to its MAC" for c in wanted):
        if found.systemd:
            fish.ask("mkdir-p", "/etc/systemd/network")
            for path, text in identity.link_files(names).items():
                fish.write(path, text)
                fish.ask("chmod", "0644", path)
        else:
            fish.ask("mkdir-p", identity.RULES.rpartition("/")[0])
            fish.write(identity.RULES, identity.rules(fish.text(identity.RULES) or "", names))
            fish.ask("chmod", "0644", identity.RULES)
        changes += [c for c in wanted if c.what == "name bound to its MAC"]
    macs = {name: mac for mac, name in names.items()}
    driven = {i.source: i for i in networks.interfaces(found.files) if i.driver and i.name in macs}
    for path in decide.networked(found):
        there = fish.text(path)
        if there is None:
            continue
        new = there
        if path in driven:
            interface = driven[path]
            new = identity.without_driver(new, interface.driver or "", macs[interface.name])
            if new != there:
                changes.append(Change("found by its MAC, not by its driver", path, interface.driver, macs[interface.name]))
        new, some = identity.renumbered(path, new, wishes.addresses)
        changes += some
        if new != there:
            fish.write(path, new)
    return changes


def _first_boot(fish: Guestfish) -> list[Change]:
    gone = [*fish.lines("glob-expand", FIRST_BOOT), *fish.lines("glob-expand", _UNITS)]
    for path in gone:
        fish.ask("rm-f", path)
    return [Change("first-boot scripts left out", ", ".join(gone[:1]))] if gone else []
