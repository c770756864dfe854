# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from types import SimpleNamespace as Thing

from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import usage


def file(key: int, size: int, kind: str = "diskExtent") -> Thing:
    return Thing(key=key, size=size, type=kind)


def layout(key: int, *links: list[int]) -> Thing:
    return Thing(key=key, chain=[Thing(fileKey=keys) for keys in links])


def test_what_the_files_of_a_disk_take() -> None:
    files = [file(1, 600, "diskDescriptor"), file(2, 5000), file(3, 700), file(4, 9000), file(5, 1, "log")]
    assert usage.allocated([layout(2000, [1, 2], [3]), layout(2001, [4])], files) == {2000: 5700, 2001: 9000}


def test_a_disk_that_is_one_file() -> None:
    assert usage.allocated([layout(2000, [1])], [file(1, 4096, "diskDescriptor")]) == {2000: 4096}


def test_what_vcenter_does_not_tell_is_left_out() -> None:
    assert usage.allocated([layout(2000, [7]), layout(2001), layout(2002, [1])], [file(1, 0)]) == {}
    assert usage.allocated([], []) == {}
