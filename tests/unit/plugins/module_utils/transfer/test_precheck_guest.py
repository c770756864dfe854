# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a precheck says of a guest that was looked into."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.guest.model import Inspection, Mount
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import precheck, precheck_guest

MIB = 1 << 20
ROOT = Mount("/", "/dev/sda1", 4096 * MIB, 1024 * MIB)


def told(converts: bool = True, **more: Any) -> list[tuple[str, str]]:
    facts: dict[str, Any] = {
        "type": "linux",
        "distro": "debian",
        "hostname": "db01",
        "roots": ["/dev/sda1"],
        "root": "/dev/sda1",
        "virtio": True,
    }
    found = Inspection(**{**facts, "mounts": [ROOT], **more})
    return [(c.id, c.category) for c in precheck_guest.concerns(found, converts)]


@pytest.mark.parametrize(
    ("more", "converted", "kept"),
    [
        pytest.param({}, [], [], id="nothing"),
        pytest.param({"virtio": False}, [], [("ferry.guest.virtio", "information")], id="no-drivers"),
        pytest.param(
            {"roots": [], "filesystems": {"/dev/sda1": "xfs"}},
            [("ferry.guest.unknown", "critical")],
            [("ferry.guest.unknown", "warning")],
            id="no-system",
        ),
        pytest.param(
            {"roots": [], "mounts": [], "encrypted": ["/dev/sda2"]},
            [("ferry.guest.encrypted", "critical")],
            [("ferry.guest.encrypted", "warning")],
            id="luks",
        ),
        pytest.param(
            {"encrypted": ["/dev/sdb1"]},
            [("ferry.guest.encrypted", "warning")],
            [("ferry.guest.encrypted", "warning")],
            id="luks-beside-it",
        ),
        pytest.param(
            {"hibernated": ["/dev/sda3"]},
            [("ferry.guest.hibernated", "critical")],
            [("ferry.guest.hibernated", "warning")],
            id="hibernated",
        ),
        pytest.param(
            {"mounts": [Mount("/", "/dev/sda1", 4096 * MIB, 20 * MIB)]},
            [("vmware.guestDisks.freespace", "critical")],
            [("vmware.guestDisks.freespace", "warning")],
            id="full",
        ),
        pytest.param({"hostname": ""}, [("vmware.hostname.empty", "warning")], [("vmware.hostname.empty", "warning")], id="no-name"),
        pytest.param({"distro": "gentoo"}, [("vmware.os.unsupported", "warning")], [("vmware.os.unsupported", "warning")], id="gentoo"),
    ],
)
def test_how_grave_it_is_depends_on_the_conversion(more: dict[str, Any], converted: list[Any], kept: list[Any]) -> None:
    assert (told(True, **more), told(False, **more)) == (converted, kept)


@pytest.mark.parametrize(
    ("said", "converts"),
    [
        ({}, False),
        ({"hardware": "virtio"}, True),
        ({"hardware": "virtio", "guest_convert": False}, False),
        ({"guest_convert": True}, True),
        ({"guest_convert": "True"}, True),
    ],
)
def test_whether_a_guest_is_converted_is_said_or_follows_from_its_hardware(said: dict[str, Any], converts: bool) -> None:
    assert precheck._converts(said) is converts
