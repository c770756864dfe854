# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading: what others wrote, and every decision about files that are damaged or hostile."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk import descriptor, structs
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk, open_raw, sniff

from .conftest import GRAIN, Disks

SUBFORMATS = ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized")
SIZE = GRAIN * 512 + 777 * 512
HEAD = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"


def made(disks: Disks, format: str, size: int = SIZE, content: str = "mixed") -> Path:
    """A disk of ours in C(format)."""
    path = disks.folder / f"{format}.vmdk"
    # One thread, so that grains lie in the order of the disk.
    convert(str(disks.raw(size, content=content)), str(path), format=format, threads=1)
    return path


def refused(path: Path, words: str) -> None:
    with pytest.raises(VmdkError, match=f"(?i){words}"):
        Disks.ours(path)


def header(path: Path) -> structs.SparseHeader:
    return structs.unpack_header(path.read_bytes()[:512], str(path))


def first_entry(path: Path, offset: int, want: int = 1) -> tuple[int, list[int]]:
    """(byte offset, values) of the table entries at C(offset) on."""
    data = path.read_bytes()
    return offset, list(struct.unpack_from(f"<{want}I", data, offset))


@pytest.mark.parametrize("subformat", SUBFORMATS)
@pytest.mark.parametrize("size", [512, 129 * 512, SIZE])
def test_what_qemu_wrote(disks: Disks, subformat: str, size: int) -> None:
    raw = disks.raw(size)
    path = disks.qemu(raw, subformat)
    assert disks.ours(path) == disks.sha(raw)
    assert disks.ours(path, step=1000 * 512) == disks.sha(raw)
    with open_disk(str(path)) as disk:
        assert (disk.info.create_type, disk.info.adapter_type, disk.problems) == (subformat, "ide", [])


@pytest.mark.slow
@pytest.mark.parametrize("subformat", ["monolithicSparse", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"])
def test_beyond_two_gib(disks: Disks, subformat: str) -> None:
    raw = disks.raw((2 << 30) + 512)
    with open_disk(str(disks.qemu(raw, subformat))) as disk, open_raw(str(raw)) as plain:
        assert disk.capacity == plain.capacity
        for e in (*disk.extents(), *plain.extents()):
            if e.kind is Kind.DATA and e.length < 1 << 30:
                assert disk.read(e.start, e.length) == plain.read(e.start, e.length)


def test_reads_of_any_place(disks: Disks) -> None:
    raw = disks.raw(SIZE).read_bytes()
    for subformat in SUBFORMATS:
        with open_disk(str(disks.qemu(disks.folder / "src.raw", subformat))) as disk:
            for offset, length in ((0, 0), (0, 1), (1, GRAIN), (GRAIN - 1, 2), (SIZE - 1, 1), (SIZE - 700000, 700000)):
                assert disk.read(offset, length) == raw[offset : offset + length]
            with pytest.raises(VmdkError):
                disk.read(SIZE, 1)


def test_identity_follows_every_file(disks: Disks) -> None:
    path = disks.qemu(disks.raw(SIZE), "twoGbMaxExtentFlat")
    with open_disk(str(path)) as disk:
        before = disk.identity
    os.utime(disks.folder / "qemu-twoGbMaxExtentFlat-f001.vmdk", ns=(1, 1))
    with open_disk(str(path)) as disk:
        assert disk.identity != before


def test_rdonly_is_read_and_noaccess_refused(disks: Disks) -> None:
    path = made(disks, "streamOptimized")
    want = disks.sha(disks.folder / "src.raw")
    data = path.read_bytes()
    # The longer word pushes the descriptor's padding: cut four bytes of it.
    grown = data.replace(b"\nRW ", b"\nRDONLY ", 1)
    end = grown.index(b"\0", 512)
    path.write_bytes(grown[:end] + grown[end + 4 :])
    assert disks.ours(path) == want
    grown = data.replace(b"\nRW ", b"\nNOACCESS ", 1)
    path.write_bytes(grown[:end] + grown[end + 6 :])
    refused(path, "NOACCESS")


def test_name_in_an_embedded_descriptor_is_never_opened(disks: Disks) -> None:
    path = made(disks, "monolithicSparse")
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"monolithicSparse.vmdk"', b'"/mnt/export/aws1.vmdk"', 1))
    assert path.stat().st_size == len(data)
    assert disks.ours(path) == disks.sha(disks.folder / "src.raw")


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside-flat.vmdk", "link.vmdk", "fifo.vmdk", "dirlink/outside-flat.vmdk"])
def test_nothing_outside_the_folder_is_opened(disks: Disks, target: str) -> None:
    inner = disks.folder / "inner"
    inner.mkdir()
    outside = disks.folder / "outside-flat.vmdk"
    outside.write_bytes(bytes(1 << 20))
    (inner / "link.vmdk").symlink_to(outside)
    (inner / "dirlink").symlink_to(disks.folder)
    os.mkfifo(inner / "fifo.vmdk")
    path = inner / "disk.vmdk"
    path.write_text(HEAD + f'createType="monolithicFlat"\nRW 2048 FLAT "{target}" 0\n')
    refused(path, "not opened|not a regular file|leads")
    if target != "fifo.vmdk" and "etc" not in target:
        with open_disk(str(path), allow_extents=[str(outside)]) as disk:
            assert disk.capacity == 1 << 20
        with open_disk(str(path), allow_extents=[str(disks.folder)]) as disk:
            assert disk.capacity == 1 << 20


def test_links_inside_the_folder_and_a_linked_head(disks: Disks) -> None:
    (disks.folder / "real.bin").write_bytes(bytes(1 << 20))
    (disks.folder / "a-flat.vmdk").symlink_to("real.bin")
    path = disks.descriptor(HEAD + 'createType="vmfs"\nRW 2048 VMFS "a-flat.vmdk"\n')
    assert open_disk(str(path)).capacity == 1 << 20
    other = disks.folder / "elsewhere"
    other.mkdir()
    (other / "d.vmdk").symlink_to(path)
    assert open_disk(str(other / "d.vmdk")).capacity == 1 << 20


def test_capacity_zero_does_not_follow_the_descriptor(disks: Disks) -> None:
    path = made(disks, "monolithicSparse")
    disks.patch(path, 12, bytes(8))
    refused(path, "differ in size")


def test_header_and_line_differ(disks: Disks) -> None:
    path = made(disks, "monolithicSparse")
    disks.patch(path, 12, struct.pack("<Q", SIZE // 512 + 128))
    refused(path, "differ in size")
    split = disks.qemu(disks.folder / "src.raw", "twoGbMaxExtentSparse")
    disks.edit(split, lambda d: d.replace(str(SIZE // 512).encode(), str(SIZE // 512 - 128).encode()))
    refused(split, "differ in size")


def test_stream_with_its_directory_in_the_header(disks: Disks) -> None:
    path = made(disks, "streamOptimized")
    want = disks.sha(disks.folder / "src.raw")
    footer = structs.unpack_header(path.read_bytes()[-1024:-512], "x")
    disks.patch(path, 56, struct.pack("<Q", footer.gd_offset))
    assert disks.ours(path) == want
    disks.patch(path, -1024 + 56, struct.pack("<Q", footer.gd_offset + 1))
    refused(path, "different grain directories")


@pytest.mark.parametrize(("at", "value"), [(4, 1), (12, SIZE // 512 - 1), (20, 64), (36, 19)])
def test_header_and_footer_must_agree(disks: Disks, at: int, value: int) -> None:
    path = made(disks, "streamOptimized")
    disks.patch(path, -1024 + at, struct.pack("<I" if at == 4 else "<Q", value))
    refused(path, "header and footer differ")


def test_bytes_after_the_end_and_cut_streams(disks: Disks) -> None:
    path = made(disks, "streamOptimized")
    data = path.read_bytes()
    for extra in (b"x", bytes(512), b"x" * 512, bytes(65536)):
        path.write_bytes(data + extra)
        refused(path, "follow the end")
    for cut in (len(data) - 512, len(data) - 1, len(data) // 2, 70000, 600):
        path.write_bytes(data[:cut])
        refused(path, "truncated")
    # With the directory in the header peers read on; what follows must be zeroes, as qemu-img pads.
    footer = structs.unpack_header(data[-1024:-512], "x")
    data = data[:56] + struct.pack("<Q", footer.gd_offset) + data[64:]
    path.write_bytes(data + bytes(1024))
    assert disks.ours(path) == disks.sha(disks.folder / "src.raw")
    path.write_bytes(data + bytes(1024) + b"x" * 512)
    refused(path, "follow the end")


def test_past_the_end_of_the_file(disks: Disks) -> None:
    path = made(disks, "monolithicSparse", content="full", size=20 * GRAIN)
    size = path.stat().st_size
    os.truncate(path, size - 512)
    refused(path, "past the end")
    os.truncate(path, header(path).gd_offset * 512)
    refused(path, "past the end|outside the file")
    flat = made(disks, "monolithicFlat")
    os.truncate(disks.folder / "monolithicFlat-flat.vmdk", SIZE - 512)
    refused(flat, "shorter than")


def test_flat_file_that_goes_on(disks: Disks) -> None:
    flat = made(disks, "monolithicFlat")
    data = disks.folder / "monolithicFlat-flat.vmdk"
    os.truncate(data, SIZE + 4096)
    with open_disk(str(flat)) as disk:
        assert "more than the descriptor" in disk.problems[0]
    disks.patch(data, SIZE + 4000, b"x")
    refused(flat, "goes on with data")


def test_entry_of_one_needs_its_flag(disks: Disks) -> None:
    path = made(disks, "monolithicSparse", content="full", size=20 * GRAIN)
    want = disks.folder / "src.raw"
    h = header(path)
    for directory in (h.rgd_offset, h.gd_offset):
        disks.patch(path, (directory + 1) * 512 + 5 * 4, struct.pack("<I", 1))
    refused(path, "zero grain")
    disks.patch(path, 8, struct.pack("<I", h.flags | structs.FLAG_ZERO_GRAIN))
    disks.patch(want, 5 * GRAIN, bytes(GRAIN))
    assert disks.ours(path) == disks.sha(want)
    with open_disk(str(path)) as disk:
        assert [e.kind for e in disk.extents()] == [Kind.DATA, Kind.ZERO, Kind.DATA]


def test_redundant_tables_are_compared(disks: Disks) -> None:
    path = made(disks, "monolithicSparse", content="full", size=20 * GRAIN)
    h = header(path)
    disks.patch(path, (h.gd_offset + 1) * 512, bytes(2048))
    refused(path, "redundant copy differ")


def test_redundant_tables_are_used(disks: Disks) -> None:
    path = made(disks, "monolithicSparse", content="full", size=20 * GRAIN)
    h = header(path)
    want = disks.sha(disks.folder / "src.raw")
    disks.patch(path, h.gd_offset * 512, struct.pack("<I", 0x7FFFFFFF))
    with open_disk(str(path)) as disk:
        disk.check()
        assert "redundant" in disk.problems[0]
    assert disks.ours(path) == want
    disks.patch(path, 56, struct.pack("<Q", 1 << 40))
    assert disks.ours(path) == want


@pytest.mark.parametrize("version", [1, 2, 3])
def test_versions(disks: Disks, version: int) -> None:
    path = made(disks, "monolithicSparse")
    disks.patch(path, 4, struct.pack("<I", version))
    assert disks.ours(path) == disks.sha(disks.folder / "src.raw")


@pytest.mark.parametrize(
    ("at", "form", "value", "words"),
    [
        (4, "<I", 0, "version"),
        (4, "<I", 4, "version"),
        (8, "<I", 1 << 20, "incompatible"),
        (8, "<I", 3 | 1 << 16, "do not agree"),
        (8, "<I", 3 | 1 << 17, "markers"),
        (77, "<H", 1, "do not agree"),
        (77, "<H", 2, "do not agree"),
        (12, "<Q", 1 << 60, "capacity"),
        (20, "<Q", 4, "grain size"),
        (20, "<Q", 129, "grain size"),
        (20, "<Q", 1 << 21, "grain size"),
        (36, "<Q", 1 << 40, "descriptor too long"),
        (44, "<I", 1, "grain table"),
        (44, "<I", 1024, "grain table"),
        (73, "<I", 0x0A0A0A0A, "text mode"),
    ],
)
def test_headers_that_are_refused(disks: Disks, at: int, form: str, value: int, words: str) -> None:
    path = made(disks, "monolithicSparse")
    disks.patch(path, at, struct.pack(form, value))
    refused(path, words)


def test_compression_must_be_named_twice(disks: Disks) -> None:
    path = made(disks, "streamOptimized")
    for place in (77, -1024 + 77):
        disks.patch(path, place, struct.pack("<H", 0))
    refused(path, "do not agree")


def test_grains_of_a_stream_are_checked(disks: Disks) -> None:
    path = made(disks, "streamOptimized", content="full", size=4 * GRAIN)
    data = path.read_bytes()
    start = 128 * 512
    lba, size = struct.unpack_from("<QI", data, start)
    assert lba == 0
    disks.patch(path, start, struct.pack("<Q", 128))
    refused(path, "belongs elsewhere|do not name|does not name")
    path.write_bytes(data)
    disks.patch(path, start + 12 + size // 2, bytes([data[start + 12 + size // 2] ^ 1]))
    refused(path, "damaged")
    path.write_bytes(data)
    disks.patch(path, start + 8, struct.pack("<I", 1 << 31))
    refused(path, "size|marker|does not name")


def test_crossed_and_lost_entries_of_a_stream(disks: Disks) -> None:
    path = made(disks, "streamOptimized", content="full", size=4 * GRAIN)
    data = path.read_bytes()
    footer = structs.unpack_header(data[-1024:-512], "x")
    table = struct.unpack_from("<I", data, footer.gd_offset * 512)[0] * 512
    a, b = struct.unpack_from("<2I", data, table)
    disks.patch(path, table, struct.pack("<2I", b, a))
    refused(path, "does not name|belongs")
    disks.patch(path, table, struct.pack("<2I", 0, b))
    refused(path, "does not name")


def test_a_deflate_bomb_stays_small(disks: Disks) -> None:
    zlib = pytest.importorskip("zlib")
    path = made(disks, "streamOptimized", content="full", size=4 * GRAIN)
    bomb = zlib.compress(bytes(8 * GRAIN), 9)
    disks.patch(path, 128 * 512 + 8, struct.pack("<I", len(bomb)) + bomb)
    with open_disk(str(path)) as disk, pytest.raises(VmdkError, match="longer than a grain|does not name"):
        disk.read(0, GRAIN)


def test_overlaps(disks: Disks) -> None:
    path = made(disks, "monolithicSparse", content="full", size=20 * GRAIN)
    data = path.read_bytes()
    h = header(path)
    first = struct.unpack_from("<I", data, (h.gd_offset + 1) * 512)[0]

    def entry(index: int, value: int) -> None:
        for directory in (h.rgd_offset, h.gd_offset):
            disks.patch(path, (directory + 1) * 512 + index * 4, struct.pack("<I", value))

    entry(3, first)
    refused(path, "one place")
    entry(3, first + 64)
    refused(path, "one place|overlap")
    entry(3, h.gd_offset)
    refused(path, "overlap")
    entry(3, 0)
    entry(0, h.gd_offset)
    refused(path, "own metadata")
    path.write_bytes(data)
    entry(25, first + 20 * 128)
    refused(path, "beyond the capacity")


def test_grains_that_no_table_names(disks: Disks) -> None:
    """With two sets of tables that agree it is room that was freed; with one set it is a table that was wiped."""
    path = made(disks, "monolithicSparse", content="full", size=20 * GRAIN)
    h = header(path)
    for directory in (h.rgd_offset, h.gd_offset):
        disks.patch(path, (directory + 1) * 512, bytes(8))
    with open_disk(str(path)) as disk:
        disk.check()
        assert disk.problems == ["2 grains in the file belong to no table; they read as zeroes"]
    disks.patch(path, 8, struct.pack("<I", structs.FLAG_NEWLINE))
    refused(path, "do not name")
    disks.patch(path, h.overhead * 512, bytes(2 * GRAIN))
    with open_disk(str(path)) as disk:
        disk.check()
        assert len(disk.problems) == 1


def test_tables_that_overlap(disks: Disks) -> None:
    path = made(disks, "monolithicSparse", size=SIZE)
    h = header(path)
    for directory in (h.rgd_offset, h.gd_offset):
        disks.patch(path, directory * 512 + 4, path.read_bytes()[directory * 512 : directory * 512 + 4])
    refused(path, "overlap|differ")


def test_split_disks(disks: Disks) -> None:
    raw = disks.raw(1 << 20, content="full")
    data = raw.read_bytes()
    (disks.folder / "a").write_bytes(b"junk" * 128 + data[: 512 << 10])
    (disks.folder / "b").write_bytes(data[768 << 10 :])
    text = HEAD + 'createType="twoGbMaxExtentFlat"\nRW 1024 FLAT "a" 1\nRW 512 ZERO\nRDONLY 512 FLAT "b" 0\n'
    disks.patch(raw, 512 << 10, bytes(256 << 10))
    path = disks.descriptor(text)
    assert disks.ours(path) == disks.sha(raw)
    disks.edit(path, lambda d: d + b'RW 512 FLAT "b" 0\n')
    refused(path, "same bytes")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD.replace("ffffffff", "00000001") + 'createType="monolithicFlat"\nRW 2048 FLAT "a" 0\n', "parent"),
        (HEAD + 'createType="vmfsSparse"\nRW 2048 VMFSSPARSE "a"\n', "No COWD header"),
        (HEAD + 'createType="seSparse"\nRW 2048 SESPARSE "a"\n', "No seSparse header"),
        (HEAD + 'createType="vsanSparse"\nRW 2048 VSANSPARSE "a"\n', "vSAN"),
        (HEAD + 'createType="vmfsRawDeviceMap"\nRW 2048 VMFSRDM "a"\n', "device mapping"),
        (HEAD + 'createType="fullDevice"\nRW 2048 FLAT "/dev/loop0" 0\n', "device mapping"),
        (HEAD + 'createType="fullDevice"\nRW 2048 FLAT "\\\\.\\PhysicalDrive2" 0\n', "device mapping"),
        (HEAD + 'createType="monolithicFlat"\nencryptionKeys="x"\nRW 2048 FLAT "a" 0\n', "encrypted"),
        (HEAD + 'createType="monolithicFlat"\nRW 2048 SPARSE "a"\n', "does not fit"),
        (HEAD + 'createType="vmfs"\nRW 2048 VMFS "a" 8\n', "offset|shorter"),
        (HEAD + 'createType="monolithicFlat"\n', "no extent"),
        (HEAD + 'createType="monolithicFlat"\nRW 2048 FLAT "missing" 0\n', "missing"),
    ],
)
def test_descriptors_that_are_refused(disks: Disks, text: str, words: str) -> None:
    (disks.folder / "a").write_bytes(bytes(1 << 20))
    refused(disks.descriptor(text), words)


def test_a_plain_file_of_a_full_device(disks: Disks) -> None:
    (disks.folder / "a").write_bytes(b"x" * (1 << 20))
    path = disks.descriptor(HEAD + 'createType="fullDevice"\nRW 2048 FLAT "a" 0\n')
    assert open_disk(str(path)).read(0, 3) == b"xxx"


def test_a_name_that_fits_two_files(disks: Disks) -> None:
    name = "ö-flat.vmdk"
    (disks.folder / name).write_bytes(bytes(1 << 20))
    path = disks.folder / "disk.vmdk"
    text = HEAD + f'encoding="windows-1252"\ncreateType="monolithicFlat"\nRW 2048 FLAT "{name}" 0\n'
    path.write_bytes(text.encode("windows-1252"))
    assert open_disk(str(path)).capacity == 1 << 20
    with open(os.fsencode(disks.folder) + b"/" + name.encode("windows-1252"), "wb") as out:
        out.write(bytes(1 << 20))
    refused(path, "fits two files")


@pytest.mark.parametrize("data", [b"", b"KDM", b"KDMV", b"<html>", bytes(4096), b"COWD" + bytes(2044), b"QFI\xfb" + bytes(600)])
def test_what_is_no_vmdk(disks: Disks, data: bytes) -> None:
    path = disks.folder / "x.vmdk"
    path.write_bytes(data)
    refused(path, ".")


def test_a_lonely_extent_is_named(disks: Disks) -> None:
    disks.qemu(disks.raw(SIZE), "twoGbMaxExtentSparse")
    refused(disks.folder / "qemu-twoGbMaxExtentSparse-s001.vmdk", "one extent of a split disk")


def test_sniff() -> None:
    assert [sniff(d) for d in (b"KDMV", b"COWD", b"QFI\xfb", b"# Disk DescriptorFile\n", b"", b"\xbe\xba\xfe\xca\0\0\0\0")] == [
        "sparse",
        "cowd",
        "qcow2",
        "descriptor",
        "raw",
        "sesparse",
    ]


@pytest.mark.parametrize(("tail", "good"), [(b"\n", True), (b"0\n", True), (b"x\n", False), (b'vmdk" 0\n', False)])
def test_what_an_overwritten_cid_leaves_behind(tail: bytes, good: bool) -> None:
    """Of qemu-img 7.2: one write in 256 gives a CID two or more digits shorter, and the end of the older text stays."""
    text = b'# Disk DescriptorFile\nversion=1\nCID=abcdef1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 8 FLAT "a-flat.vmdk" 0\n'
    if good:
        for embedded in (False, True):
            assert descriptor.parse(text + b"\0" + tail, "a.vmdk", embedded=embedded).problems == []
    else:
        with pytest.raises(VmdkError, match="binary data"):
            descriptor.parse(text + b"\0" + tail, "a.vmdk")
