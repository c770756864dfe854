# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of metadata that would shift, drop or double data and that no single field betrays (the corpus has them all)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.descriptor import parse
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk

from . import builder, corpus
from .corpus import put
from .fuzz import differs


def read(path: Path) -> None:
    with open_disk(str(path)) as disk:
        assert differs(disk, corpus.DISK) is None


def refused(path: Path, data: bytes | bytearray, words: str) -> None:
    path.write_bytes(data)
    with pytest.raises(VmdkError, match=words), open_disk(str(path)) as disk:
        disk.check()


def split(folder: Path, numbers: tuple[int, ...], *, stem: str = "disk-f", there: int = 4) -> Path:
    for n in range(there):
        (folder / f"{stem}{n + 1:03}.vmdk").write_bytes(bytes([n]) * 8192)
    path = folder / "disk.vmdk"
    lines = "".join(f'RW 16 FLAT "{stem}{n:03}.vmdk" 0\n' for n in numbers)
    path.write_bytes(builder.descriptor("twoGbMaxExtentFlat", lines))
    return path


@pytest.mark.parametrize("numbers", [(2, 3, 4), (1, 3, 4), (1, 2, 3), (2, 1, 3, 4), (1, 2, 4, 3)])
def test_lines_of_a_split_disk_lost_or_swapped(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    path = split(tmp_path, numbers)
    with pytest.raises(VmdkError, match="line is lost|lost or misplaced"):
        open_disk(str(path))


def test_split_disks_that_are_whole(tmp_path: Path) -> None:
    """Numbers from 1, or names without a number that tells an order."""
    with open_disk(str(split(tmp_path, (1, 2, 3, 4)))) as disk:
        assert disk.read(8192, 1) == b"\1"
    with open_disk(str(split(tmp_path, (4, 1), stem="part"))) as disk:
        assert disk.read(0, 1) == b"\3"


def test_both_directories_wiped(tmp_path: Path) -> None:
    built = corpus.plain()
    data = built.copy()
    for gd, _tables in built.directories:
        data[gd : gd + 8] = bytes(8)
    refused(tmp_path / "disk.vmdk", data, "do not name")


def test_one_copy_out_of_reach_and_the_other_wiped(tmp_path: Path) -> None:
    built = corpus.plain()
    data = put(built.copy(), 56, 1 << 30, 8)
    table = built.directories[1][1][0]
    data[table : table + 64] = bytes(64)
    refused(tmp_path / "disk.vmdk", data, "do not name")


def test_a_sector_put_in(tmp_path: Path) -> None:
    built = corpus.plain()
    at = built.grains[5]
    refused(tmp_path / "disk.vmdk", built.data[:at] + bytes(512) + built.data[at:], "put into the file")
    refused(tmp_path / "disk.vmdk", built.data + b"\n", "whole number of sectors")


def test_a_grain_in_front_of_the_grains(tmp_path: Path) -> None:
    """A place between the tables and where the header lets the grains begin."""
    built = corpus.plain(redundant=False)
    table = built.directories[0][1][0]
    refused(tmp_path / "disk.vmdk", put(built.copy(), table, built.grains[0] // 512 - 1), "metadata")


def test_the_last_grain(tmp_path: Path) -> None:
    """Of an odd capacity's last grain the beginning alone may be stored, but then the file ends there."""
    path = tmp_path / "disk.vmdk"
    built = corpus.plain()
    need = builder.SIZE % builder.GRAIN
    path.write_bytes(built.data[: built.grains[599] + need])
    read(path)
    refused(path, built.data[: built.grains[599] + need + 512], "past the end")
    data = built.copy()
    for _gd, tables in built.directories:
        put(data, tables[1] + 4 * (599 - 512), built.grains[599] // 512 + 1)
    refused(path, data, "past the end")


def test_a_stream_that_ends_inside_of_its_last_grain(tmp_path: Path) -> None:
    built = corpus.stream(front=True)
    refused(tmp_path / "disk.vmdk", built.data[: built.grains[599] + 600], "truncated inside")


def test_many_keys_are_read_in_no_time() -> None:
    text = builder.descriptor("monolithicFlat", 'RW 1 FLAT "x" 0\n') + b"".join(b"key%d=1\n" % n for n in range(60_000))
    began = time.monotonic()
    assert len(parse(text, "x").values) > 60_000
    assert time.monotonic() - began < 20  # it takes 0.2 s; it took more than 40 when it grew with the square
