# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources as the writers of images read them: counted, paid for, and streams in units."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.digest import DigestMap, chunk_digest
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.file import FileSource
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.stream_writer import write_stream
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import wanted
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.image_source import MeteredStream, metered
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.predict import already
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.targets import state_of

MIB = 1 << 20
GRAIN = 65536


class Stream:
    """What an export gives: grains, ascending, gaps left out; C(cut): how many of them come before it breaks."""

    sequential = True
    identity = "stream"

    def __init__(self, disk: bytes, cut: int | None = None) -> None:
        self.disk, self.capacity, self.cut = disk, len(disk), cut

    def stream(self) -> Iterator[tuple[int, bytes]]:
        for number, at in enumerate(range(0, self.capacity, GRAIN)):
            if number == self.cut:
                raise VmdkError("The stream was cut.")
            piece = self.disk[at : at + GRAIN]
            if any(piece):
                yield at, piece

    def close(self) -> None:
        """Nothing."""


@pytest.fixture
def disk() -> bytes:
    rng = random.Random(7)
    data = bytearray(9 * MIB + 1536)
    for at in (0, 3 * MIB - 40_000, 7 * MIB + 5, len(data) - 700):
        data[at : at + 600] = rng.randbytes(600)
    return bytes(data)


def digest_of(disk: bytes) -> str:
    digests = DigestMap(len(disk))
    for n in range(digests.chunks):
        digests.set(n, chunk_digest(disk[n * MIB : (n + 1) * MIB]))
    return digests.disk_digest()


def test_a_stream_in_units(disk: bytes, tmp_path: Path) -> None:
    paid: list[int] = []
    source = metered(Stream(disk), paid.append)  # type: ignore[arg-type]  # it has no ranges, as an export has none
    assert isinstance(source, MeteredStream)
    out, digests = io.BytesIO(), DigestMap(len(disk))
    write_stream(source, out, digest=digests, threads=2)
    assert digests.disk_digest() == digest_of(disk)
    assert source.bytes_read == sum(paid) == 3 * GRAIN + 1536
    path = tmp_path / "d.vmdk"
    path.write_bytes(out.getvalue())
    with closing(open_disk(str(path))) as back:
        assert back.read(0, len(disk)) == disk


def test_a_stream_that_is_cut(disk: bytes) -> None:
    source = metered(Stream(disk, cut=60), lambda n: None)  # type: ignore[arg-type]  # see above
    with pytest.raises(VmdkError, match="was cut"):
        write_stream(source, io.BytesIO(), threads=2)


def test_ranges_are_counted(disk: bytes, tmp_path: Path) -> None:
    path = tmp_path / "d.raw"
    path.write_bytes(disk)
    paid: list[int] = []
    with closing(FileSource(str(path))) as file:
        source = metered(file, paid.append)
        assert (source.read(MIB, 512), source.bytes_read, paid) == (disk[MIB : MIB + 512], 512, [512])
        assert (source.identity, source.capacity) == (file.identity, len(disk))
        source.close()
        assert file.read(0, 1) == disk[:1], "it is the opener's to close"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"dest": {"image": "x", "path": "/x"}}, "needs one of path, volume and image"),
        ({"dest": {}}, "needs one of path, volume and image"),
        ({"dest": {"image": "x"}, "format": "monolithicSparse"}, "raw or streamOptimized"),
        ({"dest": {"path": "/x"}, "format": "streamOptimized"}, "written forwards only"),
        ({"dest": {"volume": "x"}, "format": "streamOptimized"}, "A volume is written raw"),
        ({"dest": {"path": "/x"}, "image": {"visibility": "public"}}, "dest.image names"),
    ],
)
def test_targets_that_are_none(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        wanted.of_source("/disk.raw", [entry])


def test_targets() -> None:
    w = wanted.of_source("/disk.raw", [{"dest": {"image": "x"}, "image": {"hypervisor": "vmware"}, "format": None}])
    assert (w.target, w.format, w.image) == ("image:x", "streamOptimized", {"hypervisor": "vmware"})
    assert wanted.of_source("/disk.raw", [{"dest": {"path": "/x"}, "image": None}]).format == "raw"


@pytest.mark.fault(
    "an NBD export gives other bytes under the same name as at the last copy",
    where="source",
    ends="its name is not taken for its state: a volume that says it holds it is compared",
)
def test_an_export_that_names_no_state_is_compared(disk: bytes) -> None:
    source: Any = Stream(disk)
    w = wanted.of_source("nbd://host/export", [{"dest": {"volume": "v"}}]).sized(len(disk))
    known = {"ferry_state": "complete", "ferry_source_state": state_of(source), "ferry_digest": "d"}
    params = {"mode": "auto", "verify": "sample"}
    row = already(w, known, "available", params, source)
    assert row is not None and (row["mode"], row["digest"]) == ("none", "d")
    source.certain = False
    assert already(w, known, "available", params, source) is None
