# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""virt-v2v's words, and what they mean for the landing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.guest import words

FIXTURES = Path(__file__).parents[3] / "fixtures" / "guest"


def read(name: str) -> words.Said:
    return words.read((FIXTURES / name).read_text())


@pytest.mark.parametrize(
    ("file", "system", "virtio", "warnings", "code"),
    [
        ("v2v-debian.txt", "12.15", True, 1, "conversion"),
        ("v2v-windows.txt", "Windows Server 2019 Standard", True, 0, "conversion"),
        ("v2v-windows-without.txt", "Windows Server 2019 Standard", False, 2, "conversion"),
        ("v2v-no-boot-loader.txt", "Debian GNU/Linux 12 (bookworm)", None, 0, "no_boot_loader"),
        ("v2v-no-space.txt", "", None, 0, "no_space"),
        ("v2v-read-only.txt", "", None, 0, "hibernated"),
    ],
)
def test_whether_drivers_are_there_is_in_the_words(file: str, system: str, virtio: bool | None, warnings: int, code: str) -> None:
    said = read(file)
    assert (said.system, said.virtio, len(said.warnings), said.code) == (system, virtio, warnings, code)


def test_a_message_goes_on_in_the_lines_behind_it() -> None:
    assert read("v2v-debian.txt").warnings == ["could not determine a way to update the configuration of Grub2"]
    assert read("v2v-no-space.txt").errors == ["not enough free space for conversion on filesystem '/'. 12.0 MB free < 100 MB needed"]
    assert read("v2v-no-boot-loader.txt").errors == ["no bootloader detected"]


def test_steps_are_told() -> None:
    assert words.step_of("[  64.9] Converting Debian to run on KVM") == "Converting Debian to run on KVM"
    assert words.step_of("virt-v2v: warning: x") is None
    assert read("v2v-debian.txt").steps[-1] == "Finishing off"


def test_what_a_guest_says_is_bounded() -> None:
    said = words.read("virt-v2v-in-place: error: " + "x\x1b[2J" * 5000 + "\n")
    assert len(said.errors[0]) <= 500 and "\x1b" not in said.errors[0]
