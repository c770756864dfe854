# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sinks: written at random, read back, taken up again, after a crash too; what is written is read by others."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput, Busy, SinkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sinks.file import FileSink
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sinks.vmdk import SUBFORMATS, VmdkSink
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk

MIB = 1 << 20
GRAIN = 64 << 10
CAPACITY = 36 * MIB + 3 * 512


class Model:
    """What a disk should hold, beside the sink that is told the same."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.data = bytearray(capacity)

    def apply(self, sink: FileSink | VmdkSink, rng: random.Random, count: int = 60) -> None:
        """Writes and zeroes of many shapes."""
        size = len(self.data)
        for _n in range(count):
            start = rng.choice([rng.randrange(0, size // GRAIN) * GRAIN, rng.randrange(0, size // 512) * 512])
            length = min(rng.choice([512, 4096, GRAIN, 3 * GRAIN, MIB, MIB + 512]), size - start)
            if rng.random() < 0.3:
                sink.zero(start, length)
                self.data[start : start + length] = bytes(length)
            else:
                block = rng.randbytes(length // 2) + (
                    bytes(length - length // 2) if rng.random() < 0.5 else rng.randbytes(length - length // 2)
                )
                sink.write(start, memoryview(block))
                self.data[start : start + length] = block

    def same(self, sink: FileSink | VmdkSink) -> bool:
        at, size = 0, len(self.data)
        while at < size:
            count = min(MIB - 512, size - at)
            if sink.read(at, count) != self.data[at : at + count]:
                return False
            if sink.is_hole(at, count) and any(self.data[at : at + count]):
                return False
            at += count
        return True


def by_qemu(path: Path) -> bytes:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    out = path.with_suffix(".by-qemu")
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(path), str(out)], check=True, capture_output=True)
    return out.read_bytes()


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_written_at_random_and_read_by_others(tmp_path: Path, subformat: str) -> None:
    path, model, rng = tmp_path / "disk.vmdk", Model(), random.Random(7)
    sink = VmdkSink(str(path), CAPACITY, subformat)
    assert sink.reads_zero
    for _n in range(3):
        model.apply(sink, rng)
        assert model.same(sink)
        sink.flush()
    stamp = sink.stamp()
    sink.forget_cache()
    assert model.same(sink)
    assert sink.stamp() == stamp
    sink.close()
    with open_disk(str(path)) as disk:
        assert disk.info.create_type == subformat
        assert disk.read(0, CAPACITY) == model.data
        list(disk.extents())
        assert not [p for p in disk.problems if "closed" in p]
    if subformat != "vmfs":
        assert by_qemu(path)[:CAPACITY] == model.data
        subprocess.run(["qemu-img", "check", "-f", "vmdk", str(path)], check=subformat == "monolithicSparse", capture_output=True)


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_taken_up_again(tmp_path: Path, subformat: str) -> None:
    path, model, rng = str(tmp_path / "disk.vmdk"), Model(), random.Random(8)
    identities, descriptors = set(), set()
    for _n in range(4):
        sink = VmdkSink(path, CAPACITY, subformat)
        assert model.same(sink)
        assert sink.reads_zero is not any(model.data)
        identities.add(sink.identity)
        model.apply(sink, rng, 20)
        sink.flush()
        sink.close()
        with open_disk(path) as disk:
            assert disk.info.descriptor is not None
            descriptors.add(disk.info.descriptor.cid)
    assert len(identities) == len(descriptors) == 1


class Crash:
    """Copies a file as a power failure may leave it: of the pages written since the last fsync, some."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.durable = path.read_bytes()

    def synced(self) -> None:
        self.durable = self.path.read_bytes()

    def image(self, rng: random.Random) -> bytes:
        now = self.path.read_bytes()
        size = rng.choice([len(now), len(self.durable)])
        old, new = self.durable.ljust(size, b"\0")[:size], now.ljust(size, b"\0")[:size]
        share = rng.random()
        return b"".join((new if rng.random() < share else old)[at : at + 512] for at in range(0, size, 512))


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[Crash]:
    """Told of each fsync(2)."""
    watching: list[Crash] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        for crash in watching:
            crash.synced()

    monkeypatch.setattr(os, "fsync", fsync)
    return watching


@pytest.mark.fault("power fails while a sparse VMDK is written or flushed", "target", "what was flushed is there; written on: equal")
@pytest.mark.parametrize("seed", range(12))
def test_sparse_after_a_power_failure(tmp_path: Path, syncs: list[Crash], seed: int) -> None:
    """What was flushed and not written since is there; the file is taken up again, and can be written on."""
    rng, size = random.Random(seed), 12 * MIB
    path, model = tmp_path / "disk.vmdk", Model(size)
    sink = VmdkSink(str(path), size, "monolithicSparse")
    crash = Crash(path)
    syncs.append(crash)
    model.apply(sink, rng, 15)
    sink.flush()
    flushed = bytes(model.data)
    # Chunks written after the flush may hold anything afterwards; the others what was flushed.
    touched = Model(size)
    touched.data[:] = flushed
    touched.apply(sink, rng, 15)
    image = crash.image(rng)
    if rng.random() < 0.5:
        # in the middle of the next flush: its first fsync was done
        sink.flush()
        image = crash.image(rng)
    sink.close()
    syncs.clear()
    path.write_bytes(image)
    again = VmdkSink(str(path), size, "monolithicSparse")
    changed = {at // MIB for at in range(0, size, 4096) if flushed[at : at + 4096] != touched.data[at : at + 4096]}
    for chunk in range(size // MIB):
        if chunk not in changed:
            assert again.read(chunk * MIB, MIB) == flushed[chunk * MIB : (chunk + 1) * MIB], chunk
    for chunk in sorted(changed):
        again.write(chunk * MIB, touched.data[chunk * MIB : (chunk + 1) * MIB])
    again.flush()
    again.close()
    with open_disk(str(path)) as disk:
        assert disk.read(0, size) == touched.data
        disk.check()


def test_grains_that_were_given_back_are_used_again(tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    sink = VmdkSink(str(path), CAPACITY, "monolithicSparse")
    for n in range(6):
        sink.write(0, os.urandom(8 * MIB))
        sink.flush()
        size = path.stat().st_size
        sink.zero(0, 8 * MIB)
        assert sink.is_hole(0, 8 * MIB)
        sink.flush()
        assert path.stat().st_blocks * 512 < 2 * MIB, n
    sink.close()
    assert size < 10 * MIB


@pytest.mark.fault("another VMDK stands at the target", "target", "refused and left as it is")
def test_what_stands_there_is_not_taken_for_ours(tmp_path: Path) -> None:
    other = tmp_path / "other.vmdk"
    subprocess.run(["qemu-img", "create", "-f", "vmdk", str(other), "4M"], check=True, capture_output=True)
    content = hashlib.sha256(other.read_bytes()).hexdigest()
    for subformat in SUBFORMATS:
        with pytest.raises(BadInput) as e:
            VmdkSink(str(other), 8 * MIB, subformat)
        assert e.value.code == "target_exists"
    assert hashlib.sha256(other.read_bytes()).hexdigest() == content
    with pytest.raises(BadInput, match="vmdk_convert"):
        VmdkSink(str(tmp_path / "a.vmdk"), 8 * MIB, "streamOptimized")
    with pytest.raises(BadInput, match="ends in"):
        VmdkSink(str(tmp_path / "a.raw"), 8 * MIB, "vmfs")
    with pytest.raises(BadInput):
        VmdkSink(str(tmp_path / "a.vmdk"), 8 * MIB + 1, "vmfs")
    assert not (tmp_path / "a.vmdk").exists()


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_one_writer(tmp_path: Path, subformat: str) -> None:
    path = str(tmp_path / "disk.vmdk")
    sink = VmdkSink(path, 4 * MIB, subformat)
    with pytest.raises(Busy):
        VmdkSink(path, 4 * MIB, subformat)
    sink.close()
    VmdkSink(path, 4 * MIB, subformat).close()
    assert sorted(p.name for p in tmp_path.iterdir()) == (["disk.vmdk"] if "Sparse" in subformat else ["disk-flat.vmdk", "disk.vmdk"])


def test_a_flat_disk_of_another_size_gets_another_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    VmdkSink(str(path), 4 * MIB, "vmfs").close()
    sink = VmdkSink(str(path), 6 * MIB, "vmfs")
    sink.write(5 * MIB, b"x" * 4096)
    sink.close()
    with open_disk(str(path)) as disk:
        assert disk.capacity == 6 * MIB
        assert disk.read(5 * MIB, 4096) == b"x" * 4096


@pytest.mark.fault(
    "the file system of a VMDK target is full, then has room again", "target", "fails; the same sink, and a new one, go on: equal"
)
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_full_and_room_again(tmp_path: Path, subformat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def limited(left: list[int], fd: int, data: bytes, offset: int) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        return real(fd, data, offset)

    for room in range(0, 12, 2):
        path, model = tmp_path / f"disk{room}.vmdk", Model(6 * MIB)
        sink = VmdkSink(str(path), 6 * MIB, subformat)
        model.apply(sink, random.Random(1), 5)
        sink.flush()
        block = random.Random(2).randbytes(MIB + 4096)
        monkeypatch.setattr(os, "pwrite", functools.partial(limited, [room]))
        try:
            sink.write(MIB + 512, block)
        except SinkError as e:
            assert e.code == "target_full"  # noqa: PT017 - with much room there is no error
        monkeypatch.setattr(os, "pwrite", real)
        if room % 4:
            sink.close()
            sink = VmdkSink(str(path), 6 * MIB, subformat)
        sink.write(MIB + 512, block)
        model.data[MIB + 512 : MIB + 512 + len(block)] = block
        model.apply(sink, random.Random(3), 5)
        sink.flush()
        assert model.same(sink)
        sink.close()
        with open_disk(str(path)) as disk:
            assert disk.read(0, 6 * MIB) == model.data
            disk.check()


# -- devices --------------------------------------------------------------------------------------------------------


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    """A loop device of 8 MiB, full of bytes that are not zero."""
    back = tmp_path / "back.raw"
    back.write_bytes(b"\xaa" * (8 * MIB))
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        pytest.skip("a loop device needs root and losetup")
    made = subprocess.run(["losetup", "--find", "--show", str(back)], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no loop device here: {made.stderr.strip()}")
    yield made.stdout.strip()
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def test_block_device(loop: str) -> None:
    sink = FileSink(loop, 8 * MIB, resize=False)
    try:
        assert not sink.reads_zero
        assert not sink.is_hole(0, MIB)
        assert sink.identity.startswith("block:")
        sink.write(MIB, os.urandom(4096))
        sink.zero(0, MIB)
        sink.zero(2 * MIB + 512, 100)
        sink.flush()
        sink.forget_cache()
        assert sink.read(0, MIB) == bytes(MIB)
        assert sink.read(2 * MIB + 512, 101) == bytes(100) + b"\xaa"
        with pytest.raises((Busy, SinkError)):
            FileSink(loop, 8 * MIB, resize=False)
        sink.close()
        with pytest.raises(SinkError, match="needs"):
            FileSink(loop, 9 * MIB)
    finally:
        sink.close()
