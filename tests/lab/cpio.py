# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An initramfs, written directly: so its device nodes need no root.

Source of the format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst ("newc").
"""

from __future__ import annotations

import gzip

_FOLDER, _FILE, _LINK, _DEVICE = 0o040000, 0o100000, 0o120000, 0o020000


class Archive:
    """Collects entries, in the order in which they are added; a folder comes before what lies in it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._number = 0

    def _add(self, name: str, mode: int, data: bytes = b"", major: int = 0, minor: int = 0) -> None:
        self._number += 1
        raw = name.encode() + b"\0"
        fields = (self._number, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % f for f in fields) + raw
        self._parts += [head + bytes(-len(head) % 4), data + bytes(-len(data) % 4)]

    def folder(self, name: str) -> None:
        self._add(name, _FOLDER | 0o755)

    def file(self, name: str, data: bytes, mode: int) -> None:
        self._add(name, _FILE | mode, data)

    def link(self, name: str, to: str) -> None:
        self._add(name, _LINK | 0o777, to.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        """A character device."""
        self._add(name, _DEVICE | 0o600, b"", major, minor)

    def gzip(self) -> bytes:
        """All of it, compressed, the same bytes every time."""
        end = Archive()
        end._add("TRAILER!!!", 0)
        return gzip.compress(b"".join([*self._parts, *end._parts]), 6, mtime=0)
