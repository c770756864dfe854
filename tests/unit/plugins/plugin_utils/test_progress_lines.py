# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils import progress_lines as lines
from ansible_collections.ferry.vmware.plugins.plugin_utils.long_task import parse_status

RUNNING = {
    "phase": "copy",
    "done": 20_866_662,
    "total": 43_935_334,
    "skipped": 0,
    "rate": 310e6,
    "left": 7.2,
    "seconds": 3,
    "state": "running",
}


@pytest.mark.parametrize(
    ("text", "width"), [("db01", 4), ("ハードディスク", 14), ("cafe\u0301", 4), ("ｱ", 1), ("a\u200bb", 2), ("한국", 4), ("·", 1)]
)
def test_cells(text: str, width: int) -> None:
    assert lines.cells(text) == width
    assert lines.cells(lines.pad(text, 20)) == lines.cells(lines.pad(text, 20, right=True)) == 20


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        ((1 << 30) - 1, "1.0 GiB"),
        (3 << 40, "3.0 TiB"),
        (5 << 50, "5120.0 TiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert lines.size(count) == text


def test_times() -> None:
    assert lines.clock(7.2) == "00:00:07"
    assert lines.clock(3 * 86400 + 3661) == "3d 01:01:01"
    assert lines.clock(-1) == "00:00:00"
    assert lines.duration(7.44) == "7.4 s"
    assert lines.duration(59.96) == "00:01:00"


def test_running_line() -> None:
    assert lines.running_line("db01", "Hard disk 2", RUNNING) == (
        "  db01 · Hard disk 2           47.5%        19.9 of 41.9 MiB     310.0 MB/s    00:00:07 left"
    )
    verify = {**RUNNING, "phase": "verify", "left": None, "rate": 0, "why": "sample"}
    assert lines.running_line("db01", "Hard disk 2", verify).endswith("0.0 MB/s                   verify, sample")
    unknown = {**RUNNING, "total": 0, "left": None}
    assert "–" in lines.running_line("db01", "Hard disk 2", unknown)
    assert " of " not in lines.running_line("db01", "x", unknown)


def test_wide_names_stay_aligned() -> None:
    plain, wide = lines.running_line("db01", "Hard disk 2", RUNNING), lines.running_line("古い 1", "ハード ディスク 1", RUNNING)
    assert lines.cells(plain) == lines.cells(wide)
    assert lines.cells(plain[: plain.index("47.5%")]) == lines.cells(wide[: wide.index("47.5%")])


def test_a_file_is_named_once() -> None:
    assert lines.title("/vol/a.vmdk", "a.vmdk") == lines.title("a.vmdk", "a.vmdk") == lines.title("", "a.vmdk") == "a.vmdk"
    assert lines.title("a", "b") == "a · b"


def test_other_units() -> None:
    text = lines.running_line("wave1", "", {**RUNNING, "done": 3, "total": 7, "rate": 0.1}, unit="VMs")
    assert "3 of 7 VMs" in text
    assert "MB/s" not in text


def test_what_vcenter_does_to_snapshots_is_percent_and_no_bytes() -> None:
    facts = {"state": "running", "phase": "consolidate", "done": 40, "total": 100, "rate": 12.0, "left": 5.0}
    line = lines.running_line("db01", "db01", facts)
    assert " 40.0%" in line and line.endswith("00:00:05 left  consolidate") and " B" not in line
    assert lines.final_line("db01", "db01", {**facts, "state": "done", "seconds": 0.3}).endswith("done  snapshot taken and removed")


def test_final_lines() -> None:
    done = {**RUNNING, "state": "done", "done": 41 << 20, "total": 41 << 20, "skipped": 40 << 20, "seconds": 2.0}
    assert lines.final_line("db01", "Hard disk 2", done) == (
        "  db01 · Hard disk 2            done                41.0 MiB  moved 1.0 MiB, skipped 40.0 MiB, in 2.0 s (0.5 MB/s)"
    )
    failed = {**RUNNING, "state": "failed", "why": "full"}
    assert lines.final_line("db01", "Hard disk 2", failed) == "  db01 · Hard disk 2          failed at 19.9 of 41.9 MiB after 3.0 s  full"


def test_names_from_outside_cannot_steer_the_terminal() -> None:
    text = lines.running_line("evil\x1b[2J\n", "x" * 500, {**RUNNING, "phase": "co\rpy", "why": "\x07"})
    assert text.isprintable()
    assert lines.cells(text) < 220


@pytest.mark.parametrize(
    "text",
    ["", " \n", "{", "[]", "null", '{"pid": 12}', '{"pid": 1, "beat": 1, "disks": {}}', '{"pid": "9; rm", "beat": 1, "disks": {}}']
    + ['{"pid": 99, "beat": 1, "disks": []}', '{"pid": 99, "beat": 1, "disks": {"a": 1}}', "x" * 2_000_000, "No such file"],
)
def test_a_status_that_is_none(text: str) -> None:
    assert parse_status(text) is None


def test_a_status() -> None:
    assert parse_status('{"pid": 99, "beat": 1, "disks": {"a": {}}}') is not None
    odd = {"done": "x", "total": None, "rate": True, "left": [], "state": "running"}
    assert "–" in lines.running_line("db01", "a", odd)
