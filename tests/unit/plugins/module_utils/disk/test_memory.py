# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much memory a buffer may take, by what the kernel says of the machine and of the container."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.memory import SHARE, spare

GIB = 1 << 30


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return root


FREE = {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable:   {16 * GIB >> 10} kB\n"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (FREE, 16 * GIB),
        ({**FREE, "sys/fs/cgroup/memory.max": "max\n"}, 16 * GIB),
        ({**FREE, "sys/fs/cgroup/memory.max": f"{2 * GIB}\n", "sys/fs/cgroup/memory.current": f"{GIB}\n"}, GIB),
        ({**FREE, "sys/fs/cgroup/memory.max": f"{2 * GIB}\n"}, 2 * GIB),
        ({**FREE, "sys/fs/cgroup/memory/memory.limit_in_bytes": str(GIB), "sys/fs/cgroup/memory/memory.usage_in_bytes": str(2 * GIB)}, 0),
        ({"proc/meminfo": "MemAvailable: lots\n"}, 0),
        ({}, 0),
    ],
)
def test_a_share_of_what_is_free(tmp_path: Path, files: dict[str, str], free: int) -> None:
    root = machine(tmp_path, files)
    assert spare(64 * GIB, root=root) == free // SHARE
    assert spare(GIB // 16, root=root) == min(free // SHARE, GIB // 16)


def test_this_machine_has_some() -> None:
    assert 0 < spare(1 << 20) <= 1 << 20
