# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stream with its directory in front: what it holds, who reads it, and a disk that changes on the way."""

from __future__ import annotations

import io
import random
import shutil
import struct
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import SinkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.base import Identity
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.indexed_stream import IndexedWriter
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.info import inspect
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk

MIB = 1 << 20
NAMED = Identity(adapter_type="pvscsi", uuid="60 00 C2 9a 00 00 00 00-00 00 00 00 00 00 00 00", cid=7)


def disk(folder: Path, capacity: int, pieces: int) -> Path:
    rng = random.Random(capacity)
    path = folder / "disk.raw"
    with path.open("wb") as out:
        out.truncate(capacity)
        for _piece in range(pieces):
            out.seek(rng.randrange(capacity - 65536))
            out.write(rng.randbytes(30000) + b"text " * 7000)
    return path


def written(raw: Path, identity: Identity = NAMED) -> tuple[bytes, int, str]:
    """(what is written, the size that was said before, the digest)."""
    out = io.BytesIO()
    with closing(open_disk(str(raw), format="raw")) as source:
        writer = IndexedWriter(source.capacity, identity)
        measured = writer.measure(source)
        assert writer.write(source, out) == measured
    return out.getvalue(), writer.size, measured


# the last table cut, a capacity that is no multiple of a grain, tables of which some are empty, an empty disk
@pytest.mark.parametrize(("capacity", "pieces"), [(4 * MIB, 1), (100 * MIB + 512, 7), (160 * MIB, 3), (8 * MIB, 0)])
def test_it_reads_back_and_has_the_size_that_was_said(tmp_path: Path, capacity: int, pieces: int) -> None:
    raw = disk(tmp_path, capacity, pieces)
    data, size, _digest = written(raw)
    path = tmp_path / "disk.vmdk"
    path.write_bytes(data)
    assert len(data) == size
    (gd_offset,) = struct.unpack_from("<Q", data, 56)
    assert 1 < gd_offset * 512 < size  # in front, and said so in the header
    facts = inspect(str(path), "kvm", deep=True)
    assert (facts["create_type"], facts["adapter_type"], facts["problems"], facts["glance"]["accepted"]) == (
        "streamOptimized",
        "pvscsi",
        [],
        True,
    )
    with closing(open_disk(str(path))) as back:
        assert back.read(0, capacity) == raw.read_bytes()
    if shutil.which("qemu-img"):
        plain = tmp_path / "plain.raw"
        subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", path, plain], check=True)
        assert plain.read_bytes() == raw.read_bytes()


def test_the_same_disk_gives_the_same_bytes(tmp_path: Path) -> None:
    raw = disk(tmp_path, 12 * MIB, 4)
    assert written(raw) == written(raw)
    assert written(raw, Identity())[0] != written(raw, Identity())[0]


class Counted:
    """A disk that counts what is read of it."""

    def __init__(self, disk: Any) -> None:
        self.disk, self.capacity, self.identity, self.count = disk, disk.capacity, "", 0

    def extents(self, since: str | None = None) -> Any:
        return self.disk.extents()

    def read(self, offset: int, length: int) -> bytes:
        self.count += length
        return bytes(self.disk.read(offset, length))

    def close(self) -> None:
        """Nothing."""


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_what_memory_holds_is_not_read_again(tmp_path: Path, share: float) -> None:
    raw = disk(tmp_path, 40 * MIB + 512, 30)
    want, size, _digest = written(raw)
    with closing(open_disk(str(raw), format="raw")) as source:
        counted = Counted(source)
        writer = IndexedWriter(counted.capacity, NAMED)
        seen: list[int] = []
        measured = writer.measure(counted, keep=int(size * share))
        once, out = counted.count, io.BytesIO()
        assert writer.write(counted, out, progress=lambda done, total: seen.append(done)) == measured
        again = counted.count - once
        assert (again == 0) if share == 1 else (again == once) if share == 0 else (0 < again < once)
        assert (out.getvalue(), seen == sorted(seen), seen[-1]) == (want, True, counted.capacity)
        # It was let go: a second time, all of it is read.
        out = io.BytesIO()
        assert (writer.write(counted, out), out.getvalue()) == (measured, want)


def changed(raw: Path, change: str) -> tuple[IndexedWriter, str]:
    """(the writer of a disk that changed after it was measured, the digest it had)."""
    with closing(open_disk(str(raw), format="raw")) as source:
        writer = IndexedWriter(source.capacity, NAMED)
        measured = writer.measure(source)
    with raw.open("r+b") as f:
        if change == "none":
            f.write(bytes(12 * MIB))
        elif change == "more":
            f.seek(11 * MIB)
            f.write(random.Random(1).randbytes(100_000))
        else:
            f.seek(f.read().index(b"text "))
            f.write(b"fext ")
    return writer, measured


@pytest.mark.parametrize("change", ["more", "none"])
def test_a_disk_that_changes_between_the_two_passes(tmp_path: Path, change: str) -> None:
    raw = disk(tmp_path, 12 * MIB, 4)
    writer, _measured = changed(raw, change)
    with closing(open_disk(str(raw), format="raw")) as source, pytest.raises(SinkError, match="was changed") as e:
        writer.write(source, io.BytesIO())
    assert e.value.code == "changed"


def test_a_change_that_keeps_every_size_shows_in_the_digest(tmp_path: Path) -> None:
    raw = disk(tmp_path, 12 * MIB, 4)
    writer, measured = changed(raw, "other")
    with closing(open_disk(str(raw), format="raw")) as source:
        assert writer.write(source, io.BytesIO()) != measured
