# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much memory a buffer may take that saves work, and is not needed."""

from __future__ import annotations

from pathlib import Path

#: A buffer gets one part in so many of what is free, so that several at once fit.
SHARE = 8


def spare(most: int, *, root: Path = Path("/")) -> int:
    """Bytes, at most C(most): a share of the memory that is free on this machine and, in a container, below its limit.

    Sources: C(MemAvailable) of proc(5); C(memory.max) and C(memory.current) of the kernel's "Control Group v2", and their names of
    before (C(memory.limit_in_bytes), C(memory.usage_in_bytes)).

    :param root: where /proc and /sys are, for tests.
    """
    free = [_available(root)]
    for folder, limit, used in (("", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes")):
        most_of_group, in_use = (_number(root / "sys/fs/cgroup" / folder / name) for name in (limit, used))
        if most_of_group is not None:
            free.append(most_of_group - (in_use or 0))
    known = [n for n in free if n is not None]
    return max(0, min(most, min(known) // SHARE)) if known else 0


def _available(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        words = line.split()
        if words[:1] == ["MemAvailable:"] and len(words) > 1 and words[1].isdigit():
            return int(words[1]) << 10
    return None


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none (C(max): no limit)."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return int(text) if text.isdigit() else None
