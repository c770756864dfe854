# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is done with a guest, and what its server must then have, by what was found in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.guest import decide
from ansible_collections.ferry.vmware.plugins.module_utils.guest.model import Card, GuestError, Inspection, Mount

MIB = 1 << 20
MAC = "00:50:56:aa:bb:01"
BOUND = {
    "/etc/fstab": "UUID=1111-2222 / ext4 defaults 0 1\n",
    "/etc/network/interfaces": "iface ens192 inet static\n address 10.7.0.5/24\n",
    "/etc/systemd/network/10-ferry-ens192.link": f"[Match]\nMACAddress={MAC}\n\n[Link]\nName=ens192\n",
}
WISHES = decide.Wishes(cards=(Card(MAC, slot=192),))


def guest(**more: Any) -> Inspection:
    facts: dict[str, Any] = {
        "type": "linux",
        "distro": "debian",
        "product": "Debian GNU/Linux 12",
        "root": "/dev/vg0/root",
        "roots": ["/dev/vg0/root"],
        "kernel": "6.1.0-50-amd64",
        "virtio": True,
        "systemd": True,
        "mounts": [Mount("/", "/dev/vg0/root", 4096 * MIB, 1024 * MIB)],
        "files": dict(BOUND),
        "uuids": {"/dev/sdb1": "3333-4444"},
    }
    return Inspection(**{**facts, **more})


def test_a_guest_with_drivers_and_nothing_bound_needs_nothing() -> None:
    found = decide.decide(guest(), WISHES)
    assert (found.action, found.changes) == (decide.NOTHING, []) and "nothing is bound" in found.reasons[0]


@pytest.mark.parametrize(
    ("more", "action", "words"),
    [
        pytest.param({"virtio": False}, decide.CONVERT, "virtio drivers in the initramfs", id="no-driver"),
        pytest.param({"virtio": None}, decide.CONVERT, "virtio drivers in the initramfs", id="not-known"),
        pytest.param({"tools": ["open-vm-tools"]}, decide.NOTHING, "", id="open-tools-harm-nobody"),
        pytest.param({"tools": ["vmware-tools"]}, decide.CONVERT, "removed", id="vmwares-tools"),
        pytest.param({"files": {**BOUND, "/etc/fstab": "/dev/sdb1 /data ext4 d 0 2\n"}}, decide.BIND, "UUID", id="fstab"),
        pytest.param({"files": {k: v for k, v in BOUND.items() if not k.endswith(".link")}}, decide.BIND, "bound to its MAC", id="name"),
        pytest.param({"files": {}}, decide.NOTHING, "", id="no-names"),
    ],
)
def test_no_more_is_done_than_is_needed(more: dict[str, Any], action: str, words: str) -> None:
    found = decide.decide(guest(**more), WISHES)
    assert found.action == action
    assert words in " ".join(c.what for c in found.changes)


def test_addresses_that_are_to_change_are_a_change() -> None:
    wishes = replace(WISHES, addresses={"10.7.0.5": "10.9.0.5"})
    found = decide.decide(guest(), wishes)
    assert found.action == decide.BIND and [(c.before, c.after) for c in found.changes] == [("10.7.0.5/24", "10.9.0.5/24")]


def test_force_converts() -> None:
    assert decide.decide(guest(), replace(WISHES, force=True)).action == decide.CONVERT


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        pytest.param({"roots": [], "filesystems": {"/dev/sda1": "ext4"}}, "unknown_os", "/dev/sda1 ext4", id="nothing"),
        pytest.param(
            {"roots": [], "encrypted": ["/dev/sda2"], "filesystems": {"/dev/sda2": "crypto_LUKS"}}, "encrypted", "crypto_LUKS", id="luks"
        ),
        pytest.param({"encrypted": ["/dev/sda2"], "mounts": []}, "encrypted", "/dev/sda2", id="luks-root"),
        pytest.param({"hibernated": ["/dev/sda3"]}, "hibernated", "/dev/sda3", id="suspended"),
        pytest.param({"type": "windows", "hibernated": ["/dev/sda2"]}, "hibernated", "fast startup", id="fast-startup"),
        pytest.param({"type": "freebsd", "distro": "freebsd"}, "unsupported_os", "does not convert", id="freebsd"),
        pytest.param({"distro": "gentoo"}, "unsupported_os", "does not convert", id="gentoo"),
        pytest.param({"mounts": [Mount("/", "/dev/sda1", 100 * MIB, 99 * MIB)]}, "no_space", "99 MiB free on /", id="full-root"),
        pytest.param({"mounts": [Mount("/boot", "/dev/sda1", 100 * MIB, 9 * MIB)]}, "no_space", "/boot", id="full-boot"),
    ],
)
def test_what_cannot_be_converted_is_said(more: dict[str, Any], code: str, said: str) -> None:
    with pytest.raises(GuestError) as e:
        decide.refuse(guest(**more), WISHES)
    assert e.value.code == code and said in f"{e.value.message} {e.value.said}" and e.value.next_command


def test_a_data_disk_that_is_encrypted_or_full_stops_nobody() -> None:
    mounts = [*guest().mounts, Mount("/data", "/dev/sdb1", 100 * MIB, 0)]
    decide.refuse(guest(encrypted=["/dev/sdc1"], mounts=mounts), WISHES)


def test_several_systems_need_a_word() -> None:
    found = guest(roots=["/dev/sda1", "/dev/sda2"])
    decide.refuse(found, WISHES)
    with pytest.raises(GuestError) as e:
        decide.refuse(found, replace(WISHES, root="single"))
    assert e.value.code == "several_systems" and e.value.said == "/dev/sda1, /dev/sda2"


@pytest.mark.parametrize(
    ("firmware", "virtio", "disks", "target"),
    [
        ("bios", True, 2, ("virtio", "virtio", "bios", "pc")),
        ("efi", True, 2, ("virtio", "virtio", "uefi", "q35")),
        ("bios", False, 2, ("ide", "e1000", "bios", "pc")),
        ("bios", False, 5, ("sata", "e1000", "bios", "pc")),
        ("efi", False, 1, ("sata", "e1000", "uefi", "q35")),
    ],
)
def test_the_server_gets_what_the_guest_has_drivers_for(firmware: str, virtio: bool, disks: int, target: tuple[str, ...]) -> None:
    found = decide.target(guest(), replace(WISHES, firmware=firmware), virtio=virtio, disks=disks)
    assert tuple(found.as_dict().values()) == target


def test_windows_with_its_drivers_needs_nothing() -> None:
    there = guest(type="windows", distro="windows", files={})
    assert decide.decide(there, WISHES).action == decide.NOTHING
    assert decide.decide(replace(there, virtio=False), WISHES).action == decide.CONVERT
