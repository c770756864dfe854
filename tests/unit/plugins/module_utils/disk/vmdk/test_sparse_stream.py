# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""monolithicSparse written forwards only: read back by our reader and by qemu-img, and taken by the judge that Cinder has."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.digest import DigestMap
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.info import inspect
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk, open_raw
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.sparse_stream import size_of, write_sparse_stream
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.structs import GD_AT_END, unpack_header

KIB, MIB = 1 << 10, 1 << 20


def raw(path: Path, size: int, pieces: list[tuple[int, int]], seed: int = 1) -> Path:
    """A file with holes between the pieces (offset, length)."""
    rng = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(size)
        for offset, length in pieces:
            f.seek(offset)
            f.write(rng.randbytes(length))
    return path


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (5 * MIB, [(0, 4 * KIB), (3 * MIB + 12 * KIB, 300 * KIB)]),
        (70 * MIB + 512, [(33 * MIB, 2 * MIB), (70 * MIB, 512)]),
        (64 * KIB, [(0, 64 * KIB)]),
        (MIB, []),
        (512, [(0, 512)]),
        (0, []),
    ],
)
def test_every_byte_and_the_size_said_before(tmp_path: Path, size: int, pieces: list[tuple[int, int]]) -> None:
    source = raw(tmp_path / "disk.raw", size, pieces)
    out = io.BytesIO()
    seen: list[tuple[int, int]] = []
    with closing(open_raw(str(source))) as disk:
        said = size_of(disk)
        digests = DigestMap(disk.capacity)
        result = write_sparse_stream(disk, out, digest=digests, progress=lambda done, total: seen.append((done, total)))
    assert len(out.getvalue()) == said == result["bytes_out"] and seen[-1] == (size, size)
    target = tmp_path / "disk.vmdk"
    target.write_bytes(out.getvalue())
    facts = inspect(str(target), deep=True)
    assert (facts["create_type"], facts["capacity"]) == ("monolithicSparse", size)
    assert not [p for p in facts["problems"] if p["severity"] != "warning"]
    with closing(open_disk(str(target))) as disk:
        assert disk.read(0, size) == source.read_bytes()
        again = DigestMap(disk.capacity)
        write_sparse_stream(disk, io.BytesIO(), digest=again)
    assert again.disk_digest() == digests.disk_digest()


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_qemu_reads_it(tmp_path: Path) -> None:
    source = raw(tmp_path / "disk.raw", 40 * MIB, [(0, 4 * KIB), (35 * MIB, 3 * MIB)])
    with closing(open_raw(str(source))) as disk, open(tmp_path / "disk.vmdk", "wb") as out:
        write_sparse_stream(disk, out, adapter_type="pvscsi")
    done = subprocess.run(
        ["qemu-img", "compare", "-f", "raw", "-F", "vmdk", str(source), str(tmp_path / "disk.vmdk")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_tables_are_where_the_header_says() -> None:
    """Cinder refuses the mark for tables at the end, which every streamOptimized disk has."""
    out = io.BytesIO()

    class Nothing:
        capacity = MIB

        def extents(self) -> list[object]:
            return []

        def read(self, offset: int, length: int) -> bytes:
            raise AssertionError

    write_sparse_stream(Nothing(), out)  # type: ignore[arg-type]  # a source that is never read
    header = unpack_header(out.getvalue()[:512], "x")
    assert header.gd_offset != GD_AT_END and not header.compressed and header.unclean == 0


def test_the_same_disk_gives_the_same_bytes(tmp_path: Path) -> None:
    source = raw(tmp_path / "disk.raw", 3 * MIB, [(MIB, 100 * KIB)])
    outs = []
    for _turn in range(2):
        out = io.BytesIO()
        with closing(open_raw(str(source))) as disk:
            write_sparse_stream(disk, out, cid=7, uuid="60 00 C2 9a 5d 3c 1f 00-00 11 22 33 44 55 66 77")
        outs.append(out.getvalue())
    assert outs[0] == outs[1]
