# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What lies behind a disk on a larger target is zero afterwards, and only that is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import tail
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import Interrupted, SinkError

MIB = 1 << 20
CAPACITY = 5 * MIB + 3 * 512


def target(path: Path, size: int = 40 * MIB) -> Path:
    with open(path, "wb") as f:
        f.write(os.urandom(CAPACITY))
        f.truncate(size)
    return path


def test_garbage_behind_the_disk_goes_and_the_disk_stays(tmp_path: Path) -> None:
    path = target(tmp_path / "volume")
    disk = path.read_bytes()[:CAPACITY]
    with open(path, "r+b") as f:
        f.seek(CAPACITY)
        f.write(b"garbage right behind")
        f.seek(30 * MIB - 7)
        f.write(b"across a step")
        f.seek(40 * MIB - 33 * 512)
        f.write(b"EFI PART" * 100)
    assert tail.zero_tail(str(path), CAPACITY) > 0
    after = path.read_bytes()
    assert after[:CAPACITY] == disk
    assert not after[CAPACITY:].strip(b"\0")
    assert len(after) == 40 * MIB
    assert tail.zero_tail(str(path), CAPACITY) == 0


def test_a_tail_of_holes_is_neither_read_nor_allocated(tmp_path: Path) -> None:
    path = target(tmp_path / "volume", 4 << 30)
    before = path.stat().st_blocks
    seen: list[tuple[int, int]] = []
    assert tail.zero_tail(str(path), CAPACITY, watch=lambda done, total: seen.append((done, total))) == 0
    assert path.stat().st_blocks == before
    assert len(seen) <= 2 and seen[-1] == ((4 << 30) - CAPACITY, (4 << 30) - CAPACITY)


def test_written_zeroes_count_as_zero(tmp_path: Path) -> None:
    path = tmp_path / "volume"
    path.write_bytes(b"x" * 512 + bytes(3 * MIB))
    assert tail.zero_tail(str(path), 512) == 0


def test_it_can_be_stopped_and_goes_on(tmp_path: Path) -> None:
    path = target(tmp_path / "volume")
    with open(path, "r+b") as f:
        f.seek(CAPACITY)
        f.write(b"\xff" * (20 * MIB))

    def stop(done: int, _total: int) -> None:
        if done > 9 * MIB:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        tail.zero_tail(str(path), CAPACITY, watch=stop)
    assert tail.zero_tail(str(path), CAPACITY) < 20 * MIB
    assert not path.read_bytes()[CAPACITY:].strip(b"\0")


@pytest.mark.fault(
    what="a volume's medium keeps what lies behind the disk, although zeroes were written over it",
    where="target",
    ends="an error; the disk is not said to be complete",
)
def test_zeroes_that_do_not_stay_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = target(tmp_path / "volume")
    with open(path, "r+b") as f:
        f.seek(CAPACITY)
        f.write(b"garbage")
    monkeypatch.setattr(tail, "punch_hole", lambda fd, at, length: True)  # the medium says yes, and does nothing
    with pytest.raises(SinkError, match="read back as something else"):
        tail.zero_tail(str(path), CAPACITY)


def test_where_no_hole_can_be_punched_zeroes_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = target(tmp_path / "volume")
    with open(path, "r+b") as f:
        f.seek(CAPACITY + 100)
        f.write(b"garbage")
    monkeypatch.setattr(tail, "punch_hole", lambda fd, at, length: False)
    assert tail.zero_tail(str(path), CAPACITY) > 0
    assert not path.read_bytes()[CAPACITY:].strip(b"\0")


def test_a_target_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot be opened"):
        tail.zero_tail(str(tmp_path / "none"), 0)
