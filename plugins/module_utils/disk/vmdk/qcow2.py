# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""qcow2 in and out, through qemu-img; the image's header is checked before qemu-img may see it.

Source: docs/interop/qcow2.rst of QEMU.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
from typing import Callable, Iterable

from ..errors import BadInput, MissingLibrary, SinkError, VmdkError, bounded
from .files import RawFile
from .structs import MAX_SECTORS

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_MORE = struct.Struct(">QQQII")
_CORRUPT, _EXTERNAL, _KNOWN = 2, 4, 31
_BACKING_FORMAT, _DATA_FILE = 0xE2792ACA, 0x44415441
#: QEMU's own limits (block/qcow2.h): the first-level table, the table of reference counts, snapshots.
_MAX_L1, _MAX_REFCOUNT_TABLE, _MAX_SNAPSHOTS = 32 << 20, 8 << 20, 65536
_MAX_NAME = 1023
_MAX_DEPTH = 16
_PROTOCOL = re.compile(r"^[A-Za-z0-9+.\-]+:")
#: Seconds between two looks at whether the work is to stop.
_TICK = 0.25


def check_qcow2(path: str, *, allow: Iterable[str] = ()) -> int:
    """Capacity in bytes of the qcow2 image at C(path).

    :param allow: files or folders outside that it may lean on: a backing file (of a named format, raw or qcow2), or the file
        of its data.
    :raises VmdkError: where it leans on another file that is not listed, is encrypted, marked corrupt, has fields that cannot
        be, or is no qcow2 of version 2 or 3.
    """
    return _check(path, [os.path.realpath(a) for a in allow], set())


def _check(path: str, allow: list[str], seen: set[tuple[int, int]]) -> int:
    file = RawFile(path, what="qcow2 image")
    try:
        if file.key in seen or len(seen) >= _MAX_DEPTH:
            raise VmdkError("The chain of backing files is a circle, or too long.", path=path)
        seen.add(file.key)
        head = file.read(0, min(file.size, 1 << 16))
        if len(head) < _HEADER.size:
            raise VmdkError("The qcow2 header is cut.", path=path, offset=0, found=len(head), expected=_HEADER.size)
        magic, version, backing, backing_size, cluster_bits, size, crypt, l1_size, l1_at, refs_at, refs, snapshots, _at = (
            _HEADER.unpack_from(head)
        )
        three = version == 3 and len(head) >= _HEADER.size + _MORE.size
        features, _compatible, _clear, order, length = _MORE.unpack_from(head, _HEADER.size) if three else (0, 0, 0, 4, _HEADER.size)
        cluster = 1 << min(cluster_bits, 30)
        # An entry of the first level leads to a cluster of entries for a cluster each; extended entries take 16 bytes.
        reach = cluster * (cluster // (16 if features & 16 else 8))
        checks = (
            (magic == b"QFI\xfb", "No qcow2 image.", 0, magic),
            (version in (2, 3) and (three or version == 2), "Unknown version of qcow2.", 4, version),
            (backing_size <= _MAX_NAME and backing + backing_size <= len(head), "Impossible name of a backing file.", 8, backing),
            (9 <= cluster_bits <= 21, "Impossible cluster size.", 20, cluster_bits),
            (size <= MAX_SECTORS * 512, "Impossible capacity.", 24, size),
            (not crypt, "The qcow2 image is encrypted.", 32, crypt),
            (l1_size * 8 <= _MAX_L1 and l1_size * reach >= size, "Impossible size of the first-level table.", 36, l1_size),
            (not l1_at % cluster and l1_at + l1_size * 8 <= file.size, "The first-level table lies outside the file.", 40, l1_at),
            (not refs_at % cluster and refs_at < file.size, "The table of reference counts lies outside the file.", 48, refs_at),
            (refs * cluster <= _MAX_REFCOUNT_TABLE, "Impossible size of the table of reference counts.", 56, refs),
            (snapshots <= _MAX_SNAPSHOTS, "Impossible number of snapshots.", 60, snapshots),
            (not features & ~_KNOWN, "The qcow2 image has features that are not known.", 72, hex(features)),
            (not features & _CORRUPT, "The qcow2 image is marked corrupt.", 72, features),
            (order <= 6, "Impossible width of reference counts.", 96, order),
            (length >= _HEADER.size and length <= min(cluster, len(head)), "Impossible length of the header.", 100, length),
        )
        for good, what, at, found in checks:
            if not good:
                raise VmdkError(what, path=path, offset=at, found=found)
        names = _extensions(head[: min(cluster, len(head))], length, path)
    finally:
        file.close()
    if features & _EXTERNAL:
        _listed(path, names.get(_DATA_FILE, b""), allow, "The qcow2 image keeps its data in an external file.", 72)
    if backing:
        below = _listed(path, head[backing : backing + backing_size], allow, "The qcow2 image leans on a backing file.", 8)
        kind = names.get(_BACKING_FORMAT, b"")
        if kind not in (b"raw", b"qcow2"):
            # Without a format QEMU guesses it from what a guest wrote.
            raise VmdkError("The format of the backing file must be named, raw or qcow2.", path=path, found=kind)
        if kind == b"qcow2":
            _check(below, allow, seen)
    return int(size)


def _extensions(head: bytes, at: int, path: str) -> dict[int, bytes]:
    """The header extensions of an image."""
    found: dict[int, bytes] = {}
    while at + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, at)
        if not kind:
            break
        if at + 8 + length > len(head):
            raise VmdkError("A header extension goes beyond the header.", path=path, offset=at, found=length)
        found[kind] = head[at + 8 : at + 8 + length]
        at += 8 + length + -length % 8
    return found


def _listed(path: str, name: bytes, allow: list[str], what: str, offset: int) -> str:
    """The file that the image C(path) calls C(name), where the user lists it; else VmdkError says C(what)."""
    text = os.fsdecode(name)
    full = os.path.realpath(os.path.join(os.path.dirname(os.path.realpath(path)), text)) if text and "\0" not in text else ""
    if not full or _PROTOCOL.match(text) or not any(full == a or full.startswith(a.rstrip("/") + "/") for a in allow):
        raise VmdkError(f"{what} List it in allow_extents, or flatten the image first.", path=path, offset=offset, found=bounded(text, 120))
    return full


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


def qcow2_to_raw(path: str, raw: str, tick: Callable[[], None] | None = None, *, allow: Iterable[str] = ()) -> None:
    """Write the checked qcow2 image at C(path) to the new sparse raw file C(raw)."""
    capacity = check_qcow2(path, allow=allow)
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
