# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing: what we write, readers that are not ours read to the same bytes."""

from __future__ import annotations

import hashlib
import io
import random
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.digest import DigestMap, chunk_digest
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput, SinkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Sink
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk import compress, structs
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.base import Identity, ordered
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.flat_writer import FlatWriter, RawWriter
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.geometry import chs
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk, open_raw
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.sparse_writer import SparseWriter
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.stream_writer import StreamWriter, predict_size, write_stream

from .conftest import GRAIN, Disks

FORMATS = ("streamOptimized", "monolithicSparse", "monolithicFlat")
ODD = GRAIN * 512 + 777 * 512


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("size", "content"),
    [(0, "empty"), (512, "full"), (129 * 512, "full"), (ODD, "mixed"), (ODD, "empty"), (33 << 20, "zeroes"), (5 << 20, "full")],
)
def test_others_read_what_we_write(disks: Disks, format: str, size: int, content: str) -> None:
    raw = disks.raw(size, content=content)
    path = disks.folder / "ours.vmdk"
    convert(str(raw), str(path), format=format)
    want = disks.sha(raw)
    assert disks.ours(path) == want
    assert disks.by_dissect(path) == want
    if size:
        # qemu-img and libvmdk refuse an empty disk of their own making, too.
        assert disks.by_qemu(path) == want
        assert disks.by_libvmdk(path) == want


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", [(1 << 40) + 512, (2 << 30) + 512])
def test_large_sparse_disks(disks: Disks, format: str, size: int) -> None:
    raw = disks.raw(size, pieces=3)
    path, back = disks.folder / "ours.vmdk", disks.folder / "back.raw"
    first = convert(str(raw), str(path), format=format)
    assert convert(str(path), str(back), format="raw")["digest"] == first["digest"]
    with open_raw(str(raw)) as disk:
        for e in disk.extents():
            if e.kind == 0:
                with open_raw(str(back)) as other:
                    assert disk.read(e.start, e.length) == other.read(e.start, e.length)
    if size < 1 << 32:
        assert disks.by_qemu(path) == disks.sha(raw)


def test_zero_grains_are_never_stored(disks: Disks) -> None:
    raw = disks.raw(33 << 20, content="zeroes")
    for format in FORMATS:
        result = convert(str(raw), str(disks.folder / f"{format}.vmdk"), format=format)
        assert result["bytes_out"] < 200_000
    assert (disks.folder / "monolithicFlat-flat.vmdk").stat().st_blocks == 0


@pytest.mark.parametrize(
    ("adapter", "geometry"),
    [("ide", (66, 16, 63)), ("buslogic", (32, 64, 32)), ("lsilogic", (32, 64, 32)), ("lsisas1068", (32, 64, 32)), ("pvscsi", (32, 64, 32))],
)
@pytest.mark.parametrize("format", FORMATS)
def test_what_a_descriptor_says(disks: Disks, format: str, adapter: str, geometry: tuple[int, int, int]) -> None:
    path = disks.folder / "ours.vmdk"
    convert(str(disks.raw(33 << 20)), str(path), format=format, adapter_type=adapter, hw_version=19)
    with open_disk(str(path)) as disk:
        info = disk.info
        assert info.descriptor is not None
        assert (info.create_type, info.adapter_type, info.hw_version, disk.problems) == (format, adapter, 19, [])
        values = tuple(int(info.descriptor.ddb[f"geometry.{k}"]) for k in ("cylinders", "heads", "sectors"))
    assert values == ((33 << 20) // 512 // (geometry[1] * geometry[2]), *geometry[1:])


@pytest.mark.parametrize(
    ("capacity", "adapter", "want"),
    [
        (0, "lsilogic", (0, 64, 32)),
        ((1 << 30) - 512, "lsilogic", (1023, 64, 32)),
        (1 << 30, "lsilogic", (512, 128, 32)),
        (2 << 30, "pvscsi", (261, 255, 63)),
        (40 << 30, "lsilogic", (5221, 255, 63)),
        (62 << 40, "lsilogic", (8287829, 255, 63)),
        (40 << 30, "ide", (83220, 16, 63)),
        (1 << 20, "ide", (2, 16, 63)),
    ],
)
def test_geometry(capacity: int, adapter: str, want: tuple[int, int, int]) -> None:
    assert chs(capacity, adapter) == want


def test_stream_layout(disks: Disks) -> None:
    """To the byte, as docs/docsite/rst/vmdk_format.rst says."""
    out = io.BytesIO()
    with open_raw(str(disks.raw(34 << 20, content="full"))) as source:
        done = write_stream(source, out, adapter_type="ide", name="a/b.vmdk")
    data = out.getvalue()
    assert done["bytes_out"] == len(data) and not len(data) % 512
    h = structs.unpack_header(data[:512], "x")
    assert (h.version, h.flags, h.gd_offset, h.overhead, h.compression) == (3, 0x30001, structs.GD_AT_END, 128, 1)
    assert b'"disk.vmdk"' in data[512 : 21 * 512]
    footer = structs.unpack_header(data[-1024:-512], "x")
    assert footer.at_end() == h
    assert structs.unpack_marker(data[-1536:]) == (1, 0, structs.MARKER_FOOTER)
    assert not any(data[-512:])
    at = 128 * 512
    kinds = []
    while at < len(data):
        value, size, kind = structs.unpack_marker(data[at : at + 16])
        if size:
            kinds.append("grain")
            assert len(zlib.decompress(data[at + 12 : at + 12 + size])) == GRAIN
            at += -(-(12 + size) // 512) * 512
        else:
            kinds.append(("eos", "gt", "gd", "footer")[kind])
            at += 512 + value * 512
    assert kinds == ["grain"] * 512 + ["gt"] + ["grain"] * 32 + ["gt", "gd", "footer", "eos"]


def test_stream_goes_forwards_only() -> None:
    writer = StreamWriter(io.BytesIO(), 1 << 20, Identity())
    writer.write(GRAIN, b"x" * GRAIN)
    with pytest.raises(SinkError):
        writer.write(0, b"x" * GRAIN)
    with pytest.raises(SinkError):
        writer.write(2 * GRAIN, b"x")
    with pytest.raises(SinkError):
        writer.read(0, 1)


def test_digest_and_checksum_at_one_reading(disks: Disks) -> None:
    raw = disks.raw(ODD)
    digest, total = DigestMap(ODD), hashlib.sha256()
    with open_raw(str(raw)) as source:
        write_stream(source, io.BytesIO(), digest=digest, checksum=total)
    data = raw.read_bytes()
    want = DigestMap(ODD)
    for chunk in range(want.chunks):
        want.set(chunk, chunk_digest(data[chunk << 20 : (chunk + 1) << 20]))
    assert (digest.disk_digest(), total.hexdigest()) == (want.disk_digest(), disks.sha(raw))


@pytest.mark.parametrize("content", ["mixed", "full", "empty"])
def test_predicted_size(disks: Disks, content: str) -> None:
    raw = disks.raw(20 << 20, content=content, pieces=60)
    with open_raw(str(raw)) as source:
        out = io.BytesIO()
        real = write_stream(source, out)["bytes_out"]
        assert abs(predict_size(source) - real) <= real * 0.05


def test_levels(disks: Disks) -> None:
    raw = disks.raw(8 << 20, pieces=40)
    sizes = []
    for level in (1, 3, 6, 9):
        path = disks.folder / f"l{level}.vmdk"
        sizes.append(convert(str(raw), str(path), format="streamOptimized", compression_level=level)["bytes_out"])
        assert disks.ours(path) == disks.sha(raw)
    assert sizes[-1] <= sizes[0]
    with pytest.raises(BadInput):
        compress.deflater(10)


def test_the_first_exception_reaches_the_caller(disks: Disks) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 1 << 20:
                raise OSError(28, "No space left on device")
            return super().write(data)

    before = threading.active_count()
    with open_raw(str(disks.raw(8 << 20, content="full"))) as source:
        with pytest.raises(OSError, match="No space"):
            write_stream(source, Full())

        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_stream(source, io.BytesIO(), progress=stop)
    assert threading.active_count() == before


def test_ordered_is_bounded_and_in_order() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    results = ordered(lambda i: i * i, items(), 2)
    assert next(results) == 0
    assert len(taken) <= 6
    assert list(results) == [i * i for i in range(1, 100)]


def new_sink(folder: Path, kind: str, size: int) -> RawWriter | SparseWriter:
    identity = Identity(name="w.vmdk")
    if kind == "raw":
        return RawWriter(str(folder / "w.raw"), size)
    if kind == "flat":
        return FlatWriter(str(folder / "w.vmdk"), str(folder / "w-flat.vmdk"), "w-flat.vmdk", size, identity)
    return SparseWriter(str(folder / "w.vmdk"), size, identity)


@pytest.mark.parametrize("kind", ["raw", "flat", "sparse"])
def test_sinks_take_ranges_in_any_order(disks: Disks, kind: str) -> None:
    size = 70 * GRAIN + 1536
    sink = new_sink(disks.folder, kind, size)
    assert isinstance(sink, Sink) and sink.reads_zero
    rng = random.Random(5)
    want = bytearray(size)
    cuts = sorted({0, size, *(rng.randrange(size) for _n in range(60))})
    ranges = list(zip(cuts, cuts[1:], strict=False))
    rng.shuffle(ranges)

    def write(piece: tuple[int, int]) -> None:
        start, end = piece
        data = random.Random(start).randbytes(end - start) if start % 3 else bytes(end - start)
        want[start:end] = data
        sink.write(start, data)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, ranges))
    sink.zero(5 * GRAIN - 100, 2 * GRAIN)
    want[5 * GRAIN - 100 : 7 * GRAIN - 100] = bytes(2 * GRAIN)
    sink.flush()
    assert sink.read(0, size) == want
    with pytest.raises(SinkError):
        sink.write(size, b"x")
    sink.finish()
    sink.close()
    with open_disk(str(disks.folder / ("w.raw" if kind == "raw" else "w.vmdk")), format="raw" if kind == "raw" else "vmdk") as disk:
        assert disk.read(0, size) == want and disk.problems == []


def test_an_unfinished_sparse_file_says_so(disks: Disks) -> None:
    sink = new_sink(disks.folder, "sparse", 1 << 20)
    sink.write(0, b"x" * GRAIN)
    sink.flush()
    sink.close()
    with open_disk(str(disks.folder / "w.vmdk")) as disk:
        assert "uncleanShutdown" in disk.problems[0]


def test_thick_takes_its_room(disks: Disks) -> None:
    raw = disks.raw(4 << 20, content="empty")
    convert(str(raw), str(disks.folder / "thick.raw"), format="raw", thin=False)
    assert (disks.folder / "thick.raw").stat().st_blocks * 512 >= 4 << 20


def test_capacities_that_cannot_be(disks: Disks) -> None:
    for capacity in (-512, 511, (64 << 40) + 512):
        with pytest.raises(BadInput):
            StreamWriter(io.BytesIO(), capacity, Identity())
