# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stream through a pipe: one pass, the same bytes, and refused at the end where anything does not fit."""

from __future__ import annotations

import io
import os
import random
import struct
import threading
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk import structs
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.pipe import JOINED, PipedStream, joined

from .conftest import GRAIN, Disks

SIZE = GRAIN * 1100 + 777 * 512


class Dribble(io.RawIOBase):
    """Bytes in pieces of an odd size, as a pipe gives them."""

    def __init__(self, data: bytes, step: int = 7777) -> None:
        self._data = data
        self._at = 0
        self._step = step

    def read(self, size: int = -1, /) -> bytes:
        part = self._data[self._at : self._at + min(size, self._step)]
        self._at += len(part)
        return part


def whole(data: bytes) -> bytes:
    """The disk in the stream C(data)."""
    stream = PipedStream(Dribble(data))
    out = bytearray(stream.capacity)
    for offset, piece in stream:
        assert len(piece) <= JOINED
        out[offset : offset + len(piece)] = piece
    return bytes(out)


def refused(data: bytes, words: str) -> None:
    with pytest.raises(VmdkError, match=f"(?i){words}"):
        whole(data)


@pytest.fixture
def stream(disks: Disks) -> Path:
    path = disks.folder / "s.vmdk"
    convert(str(disks.raw(SIZE, pieces=30)), str(path), format="streamOptimized", threads=1)
    return path


def test_ours_and_qemus(disks: Disks, stream: Path) -> None:
    want = (disks.folder / "src.raw").read_bytes()
    assert whole(stream.read_bytes()) == want
    assert whole(disks.qemu(disks.folder / "src.raw", "streamOptimized").read_bytes()) == want


@pytest.mark.parametrize("content", ["empty", "full", "zeroes"])
@pytest.mark.parametrize("size", [0, 512, GRAIN * 3])
def test_small_ones(disks: Disks, size: int, content: str) -> None:
    path = disks.folder / "s.vmdk"
    raw = disks.raw(size, content=content)
    convert(str(raw), str(path), format="streamOptimized")
    assert whole(path.read_bytes()) == raw.read_bytes()


def test_info_is_known_at_once(stream: Path) -> None:
    piped = PipedStream(Dribble(stream.read_bytes()[: 128 * 512]))
    assert (piped.capacity, piped.info.create_type, piped.info.embedded) == (SIZE, "streamOptimized", True)
    assert piped.info.descriptor is not None and piped.position <= 128 * 512


def test_through_a_fifo_with_threads(disks: Disks, stream: Path) -> None:
    fifo = disks.folder / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(stream.read_bytes()))
    writer.start()
    with open(fifo, "rb", buffering=0) as source, ThreadPoolExecutor(2) as pool:
        piped = PipedStream(source)
        out = bytearray(piped.capacity)
        for offset, data in joined(pool.map(piped.decode, piped.pieces())):
            out[offset : offset + len(data)] = data
    writer.join()
    assert bytes(out) == (disks.folder / "src.raw").read_bytes()


def test_cut_anywhere_is_truncated(stream: Path) -> None:
    data = stream.read_bytes()
    rng = random.Random(4)
    for cut in (
        600,
        70000,
        len(data) - 1,
        len(data) - 512,
        len(data) - 1024,
        len(data) - 1536,
        *(rng.randrange(512, len(data)) for _n in range(20)),
    ):
        refused(data[:cut], "truncated")


def test_what_follows_the_end(disks: Disks, stream: Path) -> None:
    data = stream.read_bytes()
    assert whole(data + bytes(70000)) == (disks.folder / "src.raw").read_bytes()
    refused(data + b"x", "follow the end")
    refused(data + bytes(4096) + b"x" * 512, "follow the end")


def test_a_grain_twice(stream: Path) -> None:
    data = stream.read_bytes()
    lba, size = struct.unpack_from("<QI", data, 128 * 512)
    step = -(-(12 + size) // 512) * 512
    refused(data[: 128 * 512 + step] + data[128 * 512 :], "no grain of its own|no grain table names|other tables")


def test_tables_directory_and_footer_are_compared(stream: Path) -> None:
    data = stream.read_bytes()
    footer = structs.unpack_header(data[-1024:-512], "x")
    gd = footer.gd_offset * 512
    table = next(e for e in struct.unpack_from("<3I", data, gd) if e) * 512
    entries = struct.unpack_from("<512I", data, table)
    used = [i for i, e in enumerate(entries) if e]

    def changed(at: int, value: int) -> bytes:
        return data[:at] + struct.pack("<I", value) + data[at + 4 :]

    refused(changed(table + 4 * used[0], 0), "no grain table names")
    refused(changed(table + 4 * used[0], entries[used[1]]), "no grain of its own")
    refused(changed(table + 4 * ((used[-1] + 1) % 512), 1), "zero grain|no grain")
    refused(changed(gd, 0x55), "other tables")
    refused(changed(len(data) - 1024 + 56, footer.gd_offset + 1), "not where")
    refused(changed(len(data) - 1024 + 12, 5), "differ")
    refused(changed(table - 512 + 12, 9), "unknown marker")
    refused(changed(table - 512, 3), "unknown marker")


def test_grains_are_bounded(stream: Path) -> None:
    data = stream.read_bytes()
    at = 128 * 512
    refused(data[:at] + struct.pack("<Q", 1) + data[at + 8 :], "impossible place")
    refused(data[:at] + struct.pack("<Q", SIZE // 512 + 128) + data[at + 8 :], "impossible place")
    refused(data[: at + 8] + struct.pack("<I", 1 << 31) + data[at + 12 :], "impossible size")
    bomb = zlib.compress(bytes(8 * GRAIN), 9)
    refused(data[: at + 8] + struct.pack("<I", len(bomb)) + bomb + data[at + 12 + len(bomb) :], "longer than a grain")


def test_what_is_no_stream(disks: Disks) -> None:
    refused(b"", "only a streamOptimized")
    refused(b"# Disk DescriptorFile\n", "only a streamOptimized")
    sparse = disks.folder / "m.vmdk"
    convert(str(disks.raw(SIZE)), str(sparse), format="monolithicSparse")
    refused(sparse.read_bytes(), "not compressed")


def test_a_delta_is_named(stream: Path) -> None:
    data = stream.read_bytes().replace(b"parentCID=ffffffff", b"parentCID=00000001", 1)
    refused(data, "delta")


def test_only_once(stream: Path) -> None:
    piped = PipedStream(Dribble(stream.read_bytes()))
    assert list(piped)
    with pytest.raises(VmdkError, match="only once"):
        list(piped)


def test_progress_markers_are_skipped(disks: Disks) -> None:
    """open-vmdk writes them; they shift nothing but what comes after, so they are put before the end marker here."""
    path = disks.folder / "s.vmdk"
    raw = disks.raw(GRAIN, content="full")
    convert(str(raw), str(path), format="streamOptimized")
    data = path.read_bytes()
    grain_end = 128 * 512 + -(-(12 + struct.unpack_from("<I", data, 128 * 512 + 8)[0]) // 512) * 512
    shifted = bytearray(data[:grain_end] + struct.pack("<QII496x", 0, 0, 4) + data[grain_end:])
    gd = structs.unpack_header(bytes(shifted[-1024:-512]), "x").gd_offset
    shifted[-1024 + 56 : -1024 + 64] = struct.pack("<Q", gd + 1)
    table = struct.unpack_from("<I", shifted, (gd + 1) * 512)[0]
    shifted[(gd + 1) * 512 : (gd + 1) * 512 + 4] = struct.pack("<I", table + 1)
    assert whole(bytes(shifted)) == raw.read_bytes()


def test_damage_is_never_silent(disks: Disks) -> None:
    """Seeded: one byte in the header, at the end, or anywhere at all."""
    path = disks.folder / "s.vmdk"
    convert(str(disks.raw(GRAIN * 20 + 512)), str(path), format="streamOptimized", threads=1)
    data = path.read_bytes()
    want = (disks.folder / "src.raw").read_bytes()
    rng = random.Random(20261121)
    wrong = 0
    for _n in range(150):
        out = bytearray(data)
        at = rng.choice([rng.randrange(80), rng.randrange(len(out)), len(out) - 1 - rng.randrange(8192)])
        out[at] = rng.randrange(256)
        try:
            wrong += whole(bytes(out)) != want
        except VmdkError:
            continue
    assert wrong == 0


def test_memory_is_bounded(disks: Disks) -> None:
    path = disks.folder / "big.vmdk"
    convert(str(disks.raw(1 << 40, content="empty")), str(path), format="streamOptimized")
    tracemalloc.start()
    with path.open("rb") as source:
        assert list(PipedStream(source)) == []
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
