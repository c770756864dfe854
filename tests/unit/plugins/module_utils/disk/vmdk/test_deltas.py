# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Damage to the two kinds of ESX deltas: every field that is wrong is named, no byte is read otherwise in silence."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk import structs
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk

from . import deltas
from .conftest import Disks
from .deltas import SECTORS, Chain, read


def refused(path: Path, words: str) -> None:
    with pytest.raises(VmdkError, match=f"(?i){words}"):
        Disks.ours(path)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


@pytest.mark.parametrize("name", ["d1-delta.vmdk", "d1-sesparse.vmdk"])
def test_an_extent_alone(chain: Chain, name: str) -> None:
    chain.add("COWD" if "delta" in name else "SESPARSE", {0: b"x" * (512 if "delta" in name else 4096)})
    refused(chain.folder / name, "name the disk's descriptor")


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, b"DWOC", "No COWD header"),
        (4, struct.pack("<I", 2), "version"),
        (12, struct.pack("<I", SECTORS + 1), "differ in size"),
        (16, struct.pack("<I", 0), "grain size"),
        (16, struct.pack("<I", 3), "grain size"),
        (16, struct.pack("<I", 1 << 30), "grain size"),
        (20, struct.pack("<I", 0), "directory lies outside"),
        (20, struct.pack("<I", 1 << 30), "directory lies outside"),
        (24, struct.pack("<I", 1), "directory entries"),
        (24, struct.pack("<I", 0xFFFFFFFF), "directory entries"),
        (28, struct.pack("<I", 0xFFFFFFFF), "truncated"),
        (2048, struct.pack("<I", 1 << 30), "table lies outside"),
        (2048, struct.pack("<I", 3), "table lies outside|overlap"),
        (2048, struct.pack("<2I", 4, 4), "overlap"),
        (2048, struct.pack("<I", 0), "do not name"),
        (2560, struct.pack("<I", 1 << 30), "past the end"),
        (2560, struct.pack("<I", 1), "header"),
        (2560, struct.pack("<I", 4), "overlap"),
        (2560, struct.pack("<2I", 40, 40), "overlap"),
        (2560, bytes(16384), "do not name"),
    ],
)
def test_damaged_cowd(disks: Disks, chain: Chain, at: int, value: bytes, words: str) -> None:
    path = chain.add("COWD", {n: chain.rng.randbytes(512) for n in range(50)})
    disks.patch(chain.folder / "d1-delta.vmdk", at, value)
    refused(path, words)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (0, 0xCAFEBABF, "No seSparse header"),
        (1, 0x200000002, "version"),
        (2, SECTORS + 8, "differ in size"),
        (3, 16, "grain size"),
        (4, 32, "size of grain tables"),
        (5, 1, "flags"),
        (7, 1, "Reserved"),
        (30, 1, "follow the constant header"),
        (10, 1 << 40, "volatile header"),
        (10, 2, "No volatile header"),
        (16, 1 << 40, "directory lies outside"),
        (17, 0, "too small"),
        (18, 0, "Impossible position"),
        (19, 0, "Impossible entry"),
        (24, 1 << 60, "Impossible position"),
        (24, 64, "overlap"),
    ],
)
def test_damaged_sesparse_header(disks: Disks, chain: Chain, field: int, value: int, words: str) -> None:
    path = chain.add("SESPARSE", {n: chain.rng.randbytes(4096) for n in range(50)})
    disks.patch(chain.folder / "d1-sesparse.vmdk", 8 * field, struct.pack("<Q", value))
    refused(path, words)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("journal", 1, "journal"),
        ("directory", 1, "Impossible entry"),
        ("directory", 0x1000000000000005, "Impossible entry"),
        ("directory", 0x2000000000000000, "Impossible entry"),
        ("second", 0x1000000000000000, "Two directory entries"),
        ("table", 1, "unallocated grain"),
        ("table", 0x4000000000000000, "type of grain"),
        ("table", 0xF000000000000000, "type of grain"),
        ("table", 0x3001000000000000, "overlap"),
        ("table", 0x3000000000000001, "past the end"),
        ("table", 0x3FFFFFFFFFFFFFFF, "past the end"),
    ],
)
def test_damaged_sesparse_tables(disks: Disks, chain: Chain, place: str, value: int, words: str) -> None:
    path = chain.add("SESPARSE", {n: chain.rng.randbytes(4096) for n in range(50)})
    file = chain.folder / "d1-sesparse.vmdk"
    fields = struct.unpack_from("<26Q", file.read_bytes())
    at = {"journal": 512 + 24, "directory": fields[16] * 512, "second": fields[16] * 512 + 8, "table": fields[18] * 512}[place]
    disks.patch(file, at, struct.pack("<Q", value))
    refused(path, words)


def test_entries_beyond_the_capacity(disks: Disks, chain: Chain) -> None:
    path = chain.add("COWD", {SECTORS - 1: b"x" * 512})
    file = chain.folder / "d1-delta.vmdk"
    table = struct.unpack_from("<I", file.read_bytes(), 2048 + 4 * (SECTORS // 4096))[0]
    disks.patch(file, table * 512 + 4 * (SECTORS % 4096), struct.pack("<I", 5))
    refused(path, "beyond the capacity")


def test_not_closed_cleanly_is_a_remark(disks: Disks, chain: Chain) -> None:
    path = chain.add("COWD", {1: b"x" * 512})
    disks.patch(chain.folder / "d1-delta.vmdk", 1648, b"\1")
    with open_disk(str(path)) as disk:
        assert "not closed cleanly" in disk.problems[0]


def test_a_damaged_delta_is_never_read_otherwise(disks: Disks, chain: Chain) -> None:
    """Seeded damage to the metadata of both kinds: refused, or the same bytes."""
    rng = random.Random(20261121)
    for kind, size in (("COWD", 512), ("SESPARSE", 4096)):
        path = chain.add(kind, {n: chain.rng.randbytes(size) for n in range(60)})
        want = chain.want
        file = next(chain.folder.glob(f"{path.stem}-*.vmdk"))
        whole = file.read_bytes()
        if kind == "COWD":
            zones = [(0, 32), (2048, 2088), (2560, 2560 + 240)]
        else:
            fields = struct.unpack_from("<26Q", whole)
            zones = [(0, 80), (512, 544), (fields[16] * 512, fields[16] * 512 + 16), (fields[18] * 512, fields[18] * 512 + 480)]
        silent = 0
        for _n in range(400):
            first, end = rng.choice(zones)
            at = rng.randrange(first, end)
            data = bytearray(whole)
            data[at] = rng.randrange(256)
            file.write_bytes(data)
            try:
                same = read(path) == want
            except VmdkError:
                continue
            # The lower bits of a zeroed entry's place, flags of COWD: nothing there may change a byte.
            silent += not same
        file.write_bytes(whole)
        assert silent == 0


def test_cowd_without_a_parent_as_libvmdk_reads_it(disks: Disks, chain: Chain) -> None:
    grains = chain.some(512, 300)
    deltas.cowd(disks.folder / "a-delta.vmdk", SECTORS, grains)
    (disks.folder / "a.vmdk").write_text(deltas.descriptor("vmfsSparse", [(SECTORS, "VMFSSPARSE", "a-delta.vmdk")]))
    raw = disks.folder / "want.raw"
    raw.write_bytes(deltas.expected(b"", grains, 512, SECTORS))
    assert disks.by_libvmdk(disks.folder / "a.vmdk") == disks.ours(disks.folder / "a.vmdk") == disks.sha(raw)


def test_a_large_delta_takes_little_memory(disks: Disks) -> None:
    sectors = (62 << 40) // 512
    grains = {n * 4096 * 977: bytes([n]) * 4096 for n in range(1, 8)}
    (disks.folder / "a.vmdk").write_text(deltas.descriptor("seSparse", [(sectors, "SESPARSE", "a-sesparse.vmdk")]))
    deltas.sesparse(disks.folder / "a-sesparse.vmdk", sectors, grains)
    tracemalloc.start()
    with open_disk(str(disks.folder / "a.vmdk")) as disk:
        data = [e for e in disk.extents() if e.kind is Kind.DATA]
        assert [(e.start, e.length) for e in data] == [(n * 4096, 4096) for n in grains]
        assert all(disk.read(e.start, 1) == bytes([i]) for i, e in enumerate(data, 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80 << 20
    assert sectors <= structs.MAX_SECTORS


def test_data_that_no_table_of_a_sesparse_names(disks: Disks, chain: Chain) -> None:
    """Grains that the guest freed keep their bytes; without a sign of that, a table was wiped."""
    file = chain.folder / "d1-sesparse.vmdk"
    grains: dict[int, bytes | str] = {n: chain.rng.randbytes(4096) for n in range(20)}
    path = chain.add("SESPARSE", grains)
    fields = struct.unpack_from("<26Q", file.read_bytes())
    entry = fields[18] * 512 + 8 * 5
    disks.patch(file, entry, bytes(8))
    refused(path, "do not name")
    # An entry that says so, ...
    disks.patch(file, entry, struct.pack("<Q", 1 << 60))
    want = bytearray(chain.want)
    want[5 * 4096 : 6 * 4096] = bytes(4096)
    assert read(path) == bytes(want)
    with open_disk(str(path)) as disk:
        disk.check()
        assert "freed" in disk.problems[0]
    # ... or the bitmap of free grains, whichever value means free.
    disks.patch(file, entry, bytes(8))
    for bitmap in (b"\x20\0\0", b"\xdf\xff\xff"):
        disks.patch(file, fields[20] * 512, bitmap)
        with open_disk(str(path)) as disk:
            disk.check()
            assert "freed" in disk.problems[0]
