# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""qcow2 in and out, through qemu-img; the image's header is checked before qemu-img may see it.

Source: docs/interop/qcow2.rst of QEMU.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from typing import Callable

from ..errors import BadInput, MissingLibrary, SinkError, VmdkError, bounded
from .files import RawFile
from .structs import MAX_SECTORS

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_INCOMPATIBLE = struct.Struct(">Q")
_CORRUPT, _EXTERNAL = 2, 4
#: Seconds between two looks at whether the work is to stop.
_TICK = 0.25


def check_qcow2(path: str) -> int:
    """Capacity in bytes of the qcow2 image at C(path).

    :raises VmdkError: where it leans on another file (backing or external data file), is encrypted, marked corrupt,
        or no qcow2 of version 2 or 3.
    """
    file = RawFile(path, what="qcow2 image")
    try:
        head = file.read(0, 104 if file.size >= 104 else _HEADER.size, "qcow2 header")
    finally:
        file.close()
    magic, version, backing, backing_size, cluster_bits, size, crypt, *_rest = _HEADER.unpack_from(head)
    features = _INCOMPATIBLE.unpack_from(head, 72)[0] if version == 3 and len(head) >= 80 else 0
    checks = (
        (magic == b"QFI\xfb", "No qcow2 image.", 0, magic),
        (version in (2, 3), "Unknown version of qcow2.", 4, version),
        (not backing and not backing_size, "The qcow2 image leans on a backing file; flatten it first.", 8, backing),
        (9 <= cluster_bits <= 21, "Impossible cluster size.", 20, cluster_bits),
        (size <= MAX_SECTORS * 512, "Impossible capacity.", 24, size),
        (not crypt, "The qcow2 image is encrypted.", 32, crypt),
        (not features & _CORRUPT, "The qcow2 image is marked corrupt.", 72, features),
        (not features & _EXTERNAL, "The qcow2 image keeps its data in an external file.", 72, features),
    )
    for good, what, at, found in checks:
        if not good:
            raise VmdkError(what, path=path, offset=at, found=found)
    return int(size)


def _run(arguments: list[str], path: str, tick: Callable[[], None] | None) -> None:
    """Run qemu-img; C(tick) is called a few times a second, and what it raises ends the program too."""
    program = shutil.which("qemu-img")
    if program is None:
        raise MissingLibrary(
            "qcow2 needs the program qemu-img on this machine.",
            next_command="apt install qemu-utils  (or: dnf install qemu-img)",
            library="qemu-img",
        )
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen([program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said) as child,
    ):
        try:
            while True:
                try:
                    code = child.wait(_TICK)
                    break
                except subprocess.TimeoutExpired:
                    if tick is not None:
                        tick()
        except BaseException:
            child.kill()
            raise
        if code:
            said.seek(0)
            raise SinkError("qemu-img failed.", disk=path, step="convert qcow2", said=bounded(said.read(2000)), returncode=code)


def qcow2_to_raw(path: str, raw: str, tick: Callable[[], None] | None = None) -> None:
    """Write the checked qcow2 image at C(path) to the new sparse raw file C(raw)."""
    capacity = check_qcow2(path)
    # An absolute path cannot be taken for a protocol ("nbd:...").
    _run(["convert", "-f", "qcow2", "-O", "raw", os.path.abspath(path), os.path.abspath(raw)], path, tick)
    got = os.path.getsize(raw)
    if got != capacity + -capacity % 512:
        raise SinkError(f"qemu-img made {got} bytes of a disk of {capacity}.", disk=path, step="convert qcow2")


def raw_to_qcow2(raw: str, path: str, *, threads: int = 1, tick: Callable[[], None] | None = None) -> None:
    """Write the raw disk C(raw) as the new qcow2 image C(path)."""
    if not os.path.isabs(raw):
        raise BadInput("An absolute path is needed.", disk=raw)
    _run(["convert", "-f", "raw", "-O", "qcow2", "-W", "-m", str(min(max(threads, 1), 16)), raw, os.path.abspath(path)], path, tick)
