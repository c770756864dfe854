# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a reader of VMDK must decide, by number: what six readers disagree about, and what ours does.

Some of it is held elsewhere too: overlaps and redundant tables in test_reader.py, parents (21 to 23) in test_chain.py, OVAs and
chunks in test_container.py, streams from a pipe in test_pipe.py, spelling of descriptors in test_descriptor.py.
"""

from __future__ import annotations

import os
import random
import resource
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk import structs
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk

from . import deltas
from .conftest import GRAIN, Disks

HEAD = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
FLAT = HEAD + 'createType="monolithicFlat"\n'


def refused(path: Path, words: str) -> VmdkError:
    with pytest.raises(VmdkError, match=f"(?i){words}") as caught:
        Disks.ours(path)
    return caught.value


def whole(path: Path) -> bytes:
    with open_disk(str(path)) as disk:
        return disk.read(0, disk.capacity)


def flat(disks: Disks, name: str = "a-flat.vmdk", sectors: int = 16) -> bytes:
    data = random.Random(name).randbytes(sectors * 512)
    (disks.folder / name).write_bytes(data)
    return data


def stream(disks: Disks, size: int = 4 * GRAIN, content: str = "full") -> Path:
    path = disks.folder / "stream.vmdk"
    convert(str(disks.raw(size, content=content)), str(path), format="streamOptimized", threads=1, force=True)
    return path


def sparse(disks: Disks, count: int = 5, **options: int) -> tuple[Path, dict[int, bytes | str]]:
    path = disks.folder / "sparse.vmdk"
    size = 512 * options.get("grain", 128)
    grains: dict[int, bytes | str] = {n: random.Random(n).randbytes(size) for n in range(count)}
    deltas.hosted(path, count * size // 512, grains, **options)
    return path, grains


def test_01_a_line_after_an_empty_one_counts_once(disks: Disks) -> None:
    data = flat(disks)
    assert whole(disks.descriptor(FLAT + '\n\nRW 16 FLAT "a-flat.vmdk" 0\n\n')) == data


def test_02_rdonly_is_read_and_noaccess_refused(disks: Disks) -> None:
    data = flat(disks) + flat(disks, "b")
    assert whole(disks.descriptor(FLAT + 'RDONLY 16 FLAT "a-flat.vmdk" 0\nRW 16 FLAT "b" 0\n')) == data
    refused(disks.descriptor(FLAT + 'RW 16 FLAT "a-flat.vmdk" 0\nNOACCESS 16 FLAT "b" 0\n'), "NOACCESS")


def test_03_the_name_in_an_embedded_descriptor_is_never_opened(disks: Disks) -> None:
    for name in ("/etc/passwd", "/mnt/export-ami/x.vmdk", "../../x", "nbd:localhost:1"):
        text = deltas.descriptor("monolithicSparse", [(128, "SPARSE", name)])
        deltas.hosted(disks.folder / "x.vmdk", 128, {0: b"x" * GRAIN}, text=text)
        assert whole(disks.folder / "x.vmdk") == b"x" * GRAIN


@pytest.mark.parametrize("name", ["/dev/zero", "/etc/passwd", "../a-flat.vmdk", "json:{}", "http://h/x", "C:\\a", "fifo", "link", "sub"])
def test_04_only_files_of_the_folder_are_opened(disks: Disks, name: str) -> None:
    os.mkfifo(disks.folder / "fifo")
    (disks.folder / "link").symlink_to("/etc/passwd")
    (disks.folder / "sub").mkdir()
    refused(disks.descriptor(FLAT + f'RW 1 FLAT "{name}" 0\n'), "not opened|not a regular|cannot be opened")


def test_05_capacity_zero_follows_no_descriptor(disks: Disks) -> None:
    """CVE-2022-47951: qemu reads the extents that the embedded descriptor names."""
    flat(disks)
    path = disks.folder / "evil.vmdk"
    for line in ('RW 16 FLAT "a-flat.vmdk" 0', 'RW 16 FLAT "/etc/passwd" 0', 'RW 16 SPARSE "evil.vmdk"'):
        deltas.hosted(path, 0, {}, text=FLAT.replace("monolithicFlat", "monolithicSparse") + line + "\n")
        refused(path, "must name one SPARSE|differ in size")
    deltas.hosted(path, 0, {})
    with open_disk(str(path)) as disk:
        assert (disk.capacity, list(disk.extents()), len(disk.files())) == (0, [], 1)


def test_06_the_footer_counts_and_agrees_with_the_header(disks: Disks) -> None:
    path = stream(disks)
    want = disks.sha(disks.folder / "src.raw")
    data = path.read_bytes()
    assert disks.ours(path) == want
    footer = structs.unpack_header(data[-1024:-512], "x")
    # A real directory in the header counts as well, without a footer.
    path.write_bytes(data[:56] + struct.pack("<Q", footer.gd_offset) + data[64:-1536] + bytes(512))
    assert disks.ours(path) == want
    for at, value in ((4, 2), (12, 9), (20, 256), (28, 3), (36, 9)):
        path.write_bytes(data[: len(data) - 1024 + at] + struct.pack("<I", value) + data[len(data) - 1024 + at + 4 :])
        refused(path, "differ")


def test_07_bytes_after_the_end_and_cut_streams(disks: Disks) -> None:
    path = stream(disks)
    data = path.read_bytes()
    path.write_bytes(data + b"junk" * 128)
    refused(path, "follow the end")
    path.write_bytes(data[:-700])
    assert "truncated" in str(refused(path, "truncated")) and "not a VMDK" not in str(refused(path, ""))


@pytest.mark.parametrize("place", ["directory", "table", "grain", "flat"])
def test_08_past_the_end_is_an_error(disks: Disks, place: str) -> None:
    path, _grains = sparse(disks, redundant=0)
    h = structs.unpack_header(path.read_bytes()[:512], "x")
    far = struct.pack("<I", 1 << 24)
    if place == "flat":
        flat(disks)
        refused(disks.descriptor(FLAT + 'RW 17 FLAT "a-flat.vmdk" 0\n'), "shorter than")
        return
    at = {"directory": 56, "table": h.gd_offset * 512, "grain": (h.gd_offset + 1) * 512}[place]
    disks.patch(path, at, far)
    refused(path, "outside the file|past the end")


def test_09_a_zeroed_grain_needs_its_flag(disks: Disks) -> None:
    path = disks.folder / "z.vmdk"
    deltas.hosted(path, 384, {0: b"a" * GRAIN, 1: deltas.ZEROED, 2: b"c" * GRAIN}, version=2)
    assert whole(path) == b"a" * GRAIN + bytes(GRAIN) + b"c" * GRAIN
    flags = struct.unpack_from("<I", path.read_bytes(), 8)[0]
    disks.patch(path, 8, struct.pack("<I", flags & ~4))
    refused(path, "zero grain")


def test_10_the_redundant_tables_count(disks: Disks) -> None:
    path, grains = sparse(disks)
    want = deltas.expected(b"", grains, GRAIN, 5 * 128)
    data = path.read_bytes()
    h = structs.unpack_header(data[:512], "x")
    assert whole(path) == want
    # The first directory lies outside of the file, or leads there: the other one is used, and it is said.
    for at, value in ((56, struct.pack("<Q", 1 << 40)), (h.gd_offset * 512, struct.pack("<I", 1 << 30))):
        disks.patch(path, at, value)
        with open_disk(str(path)) as disk:
            assert disk.read(0, disk.capacity) == want and "redundant" in disk.problems[0]
        path.write_bytes(data)
    for at, value in ((h.gd_offset * 512, bytes(4)), ((h.gd_offset + 1) * 512, bytes(2048)), (h.rgd_offset * 512, bytes(4))):
        disks.patch(path, at, value)
        refused(path, "differ")
        path.write_bytes(data)


def test_11_header_versions(disks: Disks) -> None:
    for version in (1, 2, 3):
        path, grains = sparse(disks, version=version)
        assert whole(path) == deltas.expected(b"", grains, GRAIN, 5 * 128)
    for version in (0, 4, 1 << 31):
        disks.patch(path, 4, struct.pack("<I", version))
        refused(path, "version")


@pytest.mark.parametrize(("flags", "algorithm"), [(0x30001, 0), (0x30001, 2), (1, 1), (0x20001, 1), (0x10001, 1), (0x20001, 0)])
def test_12_flag_and_algorithm_of_compression_agree(disks: Disks, flags: int, algorithm: int) -> None:
    path = stream(disks)
    for base in (0, path.stat().st_size - 1024):
        disks.patch(path, base + 8, struct.pack("<I", flags))
        disks.patch(path, base + 77, struct.pack("<H", algorithm))
    refused(path, "compress")


def test_13_a_grain_inflates_to_a_grain(disks: Disks) -> None:
    def grain(body: bytes, count: int = 1) -> Path:
        """A stream of C(count) sectors, whose one grain is C(body)."""
        path = stream(disks, count * 512)
        data = path.read_bytes()
        size = struct.unpack_from("<I", data, 128 * 512 + 8)[0]
        old = -(-(12 + size) // 512)
        new = (struct.pack("<QI", 0, len(body)) + body).ljust(-(-(12 + len(body)) // 512) * 512, b"\0")
        shift = len(new) // 512 - old
        out = bytearray(data[: 128 * 512] + new + data[(128 + old) * 512 :])
        gd = struct.unpack_from("<Q", out, len(out) - 1024 + 56)[0] + shift
        struct.pack_into("<Q", out, len(out) - 1024 + 56, gd)
        struct.pack_into("<I", out, gd * 512, struct.unpack_from("<I", out, gd * 512)[0] + shift)
        path.write_bytes(out)
        return path

    noise = random.Random(3).randbytes(GRAIN)
    assert whole(grain(zlib.compress(noise), 128)) == noise
    # The head of a whole grain, at an odd end.
    assert whole(grain(zlib.compress(noise), 3)) == noise[:1536]
    raw = zlib.compressobj(wbits=-15)
    for body, words in (
        (raw.compress(noise) + raw.flush(), "damaged|shorter"),
        (zlib.compress(noise + b"x"), "longer"),
        (zlib.compress(bytes(64 << 20), 9), "longer"),
        (zlib.compress(noise[:-1]), "shorter"),
        (zlib.compress(noise)[:-2], "shorter|damaged"),
        (zlib.compress(noise)[:-1] + b"?", "damaged|shorter"),
    ):
        refused(grain(body, 128), words)


def test_14_the_markers_place_is_compared(disks: Disks) -> None:
    path = stream(disks)
    disks.patch(path, 128 * 512, struct.pack("<Q", 128))
    refused(path, "belongs elsewhere|does not name")


def test_15_progress_markers_are_skipped(disks: Disks) -> None:
    path = stream(disks, GRAIN)
    data = path.read_bytes()
    gd = struct.unpack_from("<Q", data, len(data) - 1024 + 56)[0]
    table = struct.unpack_from("<I", data, gd * 512)[0]
    # Between the grain and its table's marker.
    cut = (table - 1) * 512
    out = bytearray(data[:cut] + struct.pack("<QII496x", 0, 0, 4) + data[cut:])
    struct.pack_into("<Q", out, len(out) - 1024 + 56, gd + 1)
    struct.pack_into("<I", out, (gd + 1) * 512, table + 1)
    path.write_bytes(out)
    assert disks.ours(path) == disks.sha(disks.folder / "src.raw")
    with open_disk(str(path)) as disk:
        assert disk.problems == []


@pytest.mark.parametrize("grain", [8, 16, 64, 128, 256, 1024, 2048])
def test_16_grain_sizes_from_4_kib_to_1_mib(disks: Disks, grain: int) -> None:
    path, grains = sparse(disks, 3, grain=grain)
    assert whole(path) == deltas.expected(b"", grains, grain * 512, 3 * grain)
    assert disks.by_qemu(path) == disks.ours(path)


def test_16_other_grains_and_tables_are_refused(disks: Disks) -> None:
    path, _grains = sparse(disks)
    data = path.read_bytes()
    for at, value in ((20, 4), (20, 0), (20, 96), (20, 4096), (44, 1), (44, 511), (44, 1024), (44, 0)):
        path.write_bytes(data)
        disks.patch(path, at, struct.pack("<I", value))
        refused(path, "grain size|entries in a grain table")


def test_17_a_transfer_in_text_mode_is_named(disks: Disks) -> None:
    path, _grains = sparse(disks)
    disks.patch(path, 73, b"\n \n\n")
    refused(path, "text mode")


def test_18_offsets(disks: Disks) -> None:
    data = flat(disks)
    assert whole(disks.descriptor(FLAT + 'RW 8 FLAT "a-flat.vmdk" 8\nRW 8 FLAT "a-flat.vmdk" 0\n')) == data[4096:] + data[:4096]
    vmfs = HEAD + 'createType="vmfs"\n'
    assert whole(disks.descriptor(vmfs + 'RW 16 VMFS "a-flat.vmdk" 0\n')) == data
    refused(disks.descriptor(vmfs + 'RW 8 VMFS "a-flat.vmdk" 8\n'), "offset")
    refused(disks.descriptor(FLAT + 'RW 16 FLAT "a-flat.vmdk" 1\n'), "shorter")


def test_19_a_zero_extent_keeps_its_place(disks: Disks) -> None:
    data = flat(disks)
    text = FLAT + 'RW 8 FLAT "a-flat.vmdk" 0\nRW 8 ZERO\nRW 8 FLAT "a-flat.vmdk" 8\n'
    assert whole(disks.descriptor(text)) == data[:4096] + bytes(4096) + data[4096:]


def test_20_the_header_and_the_line_agree(disks: Disks) -> None:
    deltas.hosted(disks.folder / "s1", 256, {0: b"x" * GRAIN}, text="")
    deltas.hosted(disks.folder / "s2", 128, {0: b"y" * GRAIN}, text="")
    head = HEAD + 'createType="twoGbMaxExtentSparse"\n'
    assert whole(disks.descriptor(head + 'RW 256 SPARSE "s1"\nRW 128 SPARSE "s2"\n')) == b"x" * GRAIN + bytes(GRAIN) + b"y" * GRAIN
    refused(disks.descriptor(head + 'RW 128 SPARSE "s1"\nRW 128 SPARSE "s2"\n'), "differ in size")


def test_21_22_23_parents(disks: Disks) -> None:
    """The CID is compared before a byte is read, a circle ends, an unmapped grain is zero over a parent."""
    data = flat(disks)
    (disks.folder / "base.vmdk").write_text(deltas.descriptor("vmfs", [(16, "VMFS", "a-flat.vmdk")], cid=7))
    deltas.sesparse(disks.folder / "s", 16, {0: deltas.UNMAPPED})
    for parent, hint, words in ((8, "base.vmdk", "parentCID"), (7, "top.vmdk", "circle"), (7, "base.vmdk", "")):
        (disks.folder / "top.vmdk").write_text(deltas.descriptor("seSparse", [(16, "SESPARSE", "s")], cid=7, parent_cid=parent, hint=hint))
        if words:
            refused(disks.folder / "top.vmdk", words)
    assert whole(disks.folder / "top.vmdk") == bytes(4096) + data[4096:]


def test_24_keys_as_makers_write_them(disks: Disks) -> None:
    data = flat(disks)
    text = (
        '#Disk DescriptorFile\r\nversion = 1\r\n# createType="streamOptimized"\r\nCID=1\r\nparentCID = ffffffff \r\n'
        "createType=monolithicFlat\t\r\n"
        '# RW 99 FLAT "other" 0\r\n\r\n  RW  16  FLAT  "a-flat.vmdk"  0  \r\nodd.key = "kept"\r\nddb.odd = "kept too"\r\n'
    )
    path = disks.descriptor(text)
    assert whole(path) == data
    with open_disk(str(path)) as disk:
        d = disk.info.descriptor
        assert d is not None and (d.values["odd.key"], d.ddb["odd"]) == ("kept", "kept too")


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("UTF-8", "Zürich 日本.vmdk"),
        ("windows-1252", "Größe.vmdk"),
        ("windows-1250", "Łódź.vmdk"),
        ("Shift_JIS", "表示ソ.vmdk"),
        ("GBK", "虚拟磁盘.vmdk"),
        ("utf-16", "Ωmega.vmdk"),
    ],
)
def test_25_names_by_encoding_and_by_bytes(disks: Disks, encoding: str, name: str) -> None:
    # A byte of these Shift-JIS characters is that of a backslash.
    text = FLAT.replace("version=1", f'version=1\nencoding="{encoding}"') + f'RW 16 FLAT "{name}" 0\n'
    path = disks.folder / "d.vmdk"
    path.write_bytes(text.encode(encoding))
    decoded = flat(disks, name)
    assert whole(path) == decoded
    raw = os.fsencode(disks.folder) + b"/" + name.encode("utf-8" if encoding == "utf-16" else encoding)
    if raw == os.fsencode(disks.folder / name):
        return
    # A transfer may have kept the bytes of the name.
    Path(os.fsdecode(raw)).write_bytes(decoded[::-1])
    refused(path, "fits two files")
    (disks.folder / name).unlink()
    assert whole(path) == decoded[::-1]


def test_25_an_encoding_that_is_unknown(disks: Disks) -> None:
    data = flat(disks)
    for encoding in ("klingon", "hex", "", "../x", "rot13", "idna", "undefined"):
        path = disks.descriptor(FLAT.replace("version=1", f'version=1\nencoding="{encoding}"') + 'RW 16 FLAT "a-flat.vmdk" 0\n')
        assert whole(path) == data


def test_26_large_pieces_and_long_descriptors(disks: Disks) -> None:
    sectors = 8323072
    for name in ("f1", "f2"):
        with (disks.folder / name).open("wb") as out:
            out.truncate(sectors * 512)
            out.seek(sectors * 512 - 1)
            out.write(name[-1:].encode())
    text = HEAD + 'createType="twoGbMaxExtentFlat"\n' + "".join(f'RW {sectors} FLAT "{n}" 0\n' for n in ("f1", "f2"))
    with open_disk(str(disks.descriptor(text))) as disk:
        assert disk.capacity == 2 * sectors * 512
        assert disk.read(sectors * 512 - 1, 2) == b"1\0" and disk.read(disk.capacity - 1, 1) == b"2"
    refused(disks.descriptor(text + "#" * (1 << 20)), "too long")
    with (disks.folder / "long.vmdk").open("wb") as out:
        out.write(text.encode())
        out.truncate(100 << 20)
    refused(disks.folder / "long.vmdk", "too long")
    refused(disks.descriptor(FLAT + 'RW 1 ZERO "x"\n' * 40001), "too many")


def test_many_lines_over_one_file(disks: Disks) -> None:
    data = flat(disks, sectors=3000)
    lines = [f'RW 1 FLAT "a-flat.vmdk" {n}\n' for n in range(2999, -1, -1)]
    assert whole(disks.descriptor(FLAT + "".join(lines))) == b"".join(data[n * 512 : n * 512 + 512] for n in range(2999, -1, -1))
    refused(disks.descriptor(FLAT + "".join(lines) + 'RW 2 FLAT "a-flat.vmdk" 1500\n'), "same bytes")


def test_27_full_devices(disks: Disks) -> None:
    data = flat(disks)
    head = HEAD + 'createType="fullDevice"\n'
    for name in ("/dev/loop0", "\\\\.\\PhysicalDrive2"):
        assert refused(disks.descriptor(head + f'RW 16 FLAT "{name}" 0\n'), "device mapping").code == "vmdk_unsupported"
    assert whole(disks.descriptor(head + 'RW 16 FLAT "a-flat.vmdk" 0\n')) == data


def test_28_no_text_of_the_file_goes_unbounded_into_an_error(disks: Disks) -> None:
    for text in ("<html>\x1b]0;x\x07" + "A" * 90000, FLAT + "RW \x1b[2J" + "B" * 90000 + "\n", FLAT + f'RW 16 FLAT "{"C" * 90000}" 0\n'):
        error = str(refused(disks.descriptor(text), "."))
        assert len(error) < 800 and error.isprintable()


# What none of six readers handles.


def test_encryption_is_named(disks: Disks) -> None:
    flat(disks)
    text = FLAT.replace("version=1", 'version=1\nencryptionKeys="vmware:key/list/(pair/(x))"') + 'RW 16 FLAT "a-flat.vmdk" 0\n'
    assert refused(disks.descriptor(text), "encrypted").code == "vmdk_unsupported"


@pytest.mark.parametrize("kind", ["vmfsRDM", "vmfsRDMP", "vmfsRawDeviceMap", "vmfsPassthroughRawDeviceMap", "vmfsRaw"])
def test_device_mappings_are_named(disks: Disks, kind: str) -> None:
    flat(disks)
    text = HEAD + f'createType="{kind}"\nRW 16 VMFSRDM "a-flat.vmdk"\n'
    assert refused(disks.descriptor(text), "device mapping").code == "vmdk_unsupported"


def test_links_out_of_the_folder_are_refused(disks: Disks) -> None:
    inner = disks.folder / "inner"
    inner.mkdir()
    flat(disks)
    (inner / "a-flat.vmdk").symlink_to("../a-flat.vmdk")
    (inner / "d.vmdk").write_text(FLAT + 'RW 16 FLAT "a-flat.vmdk" 0\n')
    refused(inner / "d.vmdk", "link out")


def test_62_tib_with_tables_read_as_needed(disks: Disks) -> None:
    sectors = (62 << 40) // 512
    path = disks.folder / "big.vmdk"
    places = [0, 511, 512, 70_000_000, sectors // 128 - 1]
    deltas.hosted(path, sectors, {n: bytes([i + 1]) * GRAIN for i, n in enumerate(places)})
    tracemalloc.start()
    with open_disk(str(path)) as disk:
        assert disk.capacity == 62 << 40
        assert [e.start // GRAIN for e in disk.extents() if e.kind is Kind.DATA] == [0, 511, 70_000_000, sectors // 128 - 1]
        assert [disk.read(n * GRAIN + 5, 1) for n in places] == [bytes([i + 1]) for i in range(5)]
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()
    disks.patch(path, 12, struct.pack("<Q", (64 << 40) // 512 + 1))
    refused(path, "capacity")


def test_more_extents_than_open_files_are_allowed_at_first(disks: Disks) -> None:
    """5 TiB in pieces of 2 GiB are 2,560 files; a process may open 1,024 unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    names = [f"s{i:03d}" for i in range(300)]
    for name in names:
        deltas.hosted(disks.folder / name, 128, {0: name.encode() * (GRAIN // 4)}, text="")
    text = HEAD + 'createType="twoGbMaxExtentSparse"\n' + "".join(f'RW 128 SPARSE "{n}"\n' for n in names)
    path = disks.descriptor(text)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        assert whole(path) == b"".join(n.encode() * (GRAIN // 4) for n in names)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
