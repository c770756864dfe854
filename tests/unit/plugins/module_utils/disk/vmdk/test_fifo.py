# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pipes at either end: one pass where the format allows it, a spool beside dest or a clear refusal where it does not."""

from __future__ import annotations

import gzip
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput, FerryError, Interrupted, SinkError, VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk import convert as convert_module
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk import fifo
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.outputs import FORMATS, PIPED

from .conftest import GRAIN, Disks

SIZE = 80 * GRAIN + 1024


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@contextmanager
def feeding(path: Path, data: bytes) -> Iterator[None]:
    """Somebody who writes C(data) into the FIFO C(path), and goes away where nobody takes it."""

    def write() -> None:
        try:
            with path.open("wb") as out:
                out.write(data)
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def taking(path: Path, into: io.BytesIO, limit: int = -1) -> Iterator[None]:
    """Somebody who reads the FIFO C(path)."""

    def read() -> None:
        with path.open("rb") as file:
            into.write(file.read(limit))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def pipe(disks: Disks) -> Path:
    path = disks.folder / "pipe"
    os.mkfifo(path)
    return path


def no_spool(*args: object) -> None:
    raise AssertionError("spooled")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["streamOptimized", "qemu", "monolithicSparse", "raw", "qcow2"])
def test_from_a_pipe(disks: Disks, pipe: Path, kind: str, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream in one pass, the rest through a spool that does not stay; the digest is that of the file."""
    raw = disks.raw(SIZE)
    src = disks.folder / "src"
    if kind == "qemu":
        src = disks.qemu(raw, "streamOptimized")
    else:
        convert(str(raw), str(src), format=kind)
    want = convert(str(raw), str(disks.folder / "other.raw"), format="raw", checksum="sha256")
    if kind in ("streamOptimized", "qemu"):
        monkeypatch.setattr(convert_module, "spool", no_spool)
    dest = disks.folder / f"d.{format if format in ('raw', 'qcow2') else 'vmdk'}"
    data = src.read_bytes()
    with feeding(pipe, data):
        done = convert(str(pipe), str(dest), format=format, checksum="sha256")
    assert (done["changed"], done["capacity"], done["digest"], done["checksum"]) == (True, SIZE, want["digest"], want["checksum"])
    back = convert(str(dest), str(disks.folder / "back.raw"), format="raw")
    assert back["digest"] == want["digest"]
    assert not [name for name in listing(disks.folder) if name.startswith(".")]
    before = dest.stat()
    with feeding(pipe, data):
        again = convert(str(pipe), str(dest), format=format)
    assert (again["changed"], again["bytes_in"], again["digest"]) == (False, 0, want["digest"])
    assert dest.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("format", PIPED)
@pytest.mark.parametrize("kind", ["raw", "monolithicSparse", "streamOptimized", "twoGbMaxExtentFlat"])
def test_into_a_pipe(disks: Disks, pipe: Path, kind: str, format: str) -> None:
    raw, src = disks.raw(SIZE), disks.folder / ("s.raw" if kind == "raw" else "s.vmdk")
    want = convert(str(raw), str(src), format=kind)["digest"]
    said = convert(str(src), str(pipe), format=format, check=True)
    got = io.BytesIO()
    with taking(pipe, got):
        done = convert(str(src), str(pipe), format=format, checksum="sha256")
    data = got.getvalue()
    assert (done["changed"], done["digest"], done["checksum"]) == (True, want, "sha256:" + disks.sha(raw))
    assert done["bytes_out"] == len(data) and abs(said["bytes_out"] - len(data)) <= len(data) * 0.05
    if format == "raw":
        assert data == raw.read_bytes()
    else:
        path = disks.folder / "got.vmdk"
        path.write_bytes(data)
        assert disks.ours(path) == disks.sha(raw)


def test_from_pipe_to_pipe(disks: Disks, pipe: Path) -> None:
    raw, src, out = disks.raw(SIZE), disks.folder / "s.vmdk", disks.folder / "out"
    os.mkfifo(out)
    convert(str(raw), str(src), format="streamOptimized")
    got = io.BytesIO()
    with feeding(pipe, src.read_bytes()), taking(out, got):
        convert(str(pipe), str(out), format="raw")
    assert got.getvalue() == raw.read_bytes()
    with feeding(pipe, raw.read_bytes()), pytest.raises(BadInput, match="name a file"):
        convert(str(pipe), str(out), format="streamOptimized")


@pytest.mark.parametrize("format", [f for f in FORMATS if f not in PIPED])
def test_formats_that_a_pipe_cannot_take(disks: Disks, pipe: Path, format: str) -> None:
    with pytest.raises(BadInput, match="into a pipe"):
        convert(str(disks.raw(SIZE)), str(pipe), format=format)


def test_a_cut_or_damaged_stream_leaves_nothing(disks: Disks, pipe: Path) -> None:
    src = disks.folder / "s.vmdk"
    convert(str(disks.raw(SIZE, content="full")), str(src), format="streamOptimized")
    whole = src.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    before = listing(disks.folder)
    for data in (whole[:-512], whole[:-1536], whole[: len(whole) // 2], bytes(flipped), whole + b"x" * 512, b"", b"KDMV"):
        for format in ("raw", "twoGbMaxExtentSparse", "streamOptimized"):
            with feeding(pipe, data), pytest.raises(VmdkError):
                convert(str(pipe), str(disks.folder / "d.vmdk"), format=format)
            assert listing(disks.folder) == before


def test_a_descriptor_alone_is_refused(disks: Disks, pipe: Path) -> None:
    convert(str(disks.raw(SIZE)), str(disks.folder / "s.vmdk"), format="monolithicFlat")
    with feeding(pipe, (disks.folder / "s.vmdk").read_bytes()), pytest.raises(VmdkError, match="descriptor came"):
        convert(str(pipe), str(disks.folder / "d.raw"), format="raw")


def test_an_archive_is_refused(disks: Disks, pipe: Path) -> None:
    """By its name a file would be known for one; what comes through a pipe has none, and is not taken for a raw disk."""
    convert(str(disks.raw(SIZE)), str(disks.folder / "s.vmdk"), format="streamOptimized")
    disks.run("tar", "-C", str(disks.folder), "--format=ustar", "-cf", str(disks.folder / "x.ova"), "s.vmdk")
    for data in ((disks.folder / "x.ova").read_bytes(), gzip.compress(bytes(4096)).ljust(1024, b"\0")):
        with feeding(pipe, data), pytest.raises(VmdkError, match="archive"):
            convert(str(pipe), str(disks.folder / "d.raw"), format="raw")


def test_grains_out_of_order_are_refused(disks: Disks, pipe: Path) -> None:
    src = disks.folder / "s.vmdk"
    convert(str(disks.raw(2 * GRAIN, content="full")), str(src), format="streamOptimized")
    data = src.read_bytes()
    first, second = (data.index(lba.to_bytes(8, "little"), 65536) for lba in (0, 128))
    assert (first, second % 512) == (65536, 0)
    # The second grain comes first; its table says so, too.
    table = data.index((second // 512).to_bytes(4, "little"), second) - 4
    end = table - 512
    swapped = data[:first] + data[second:end] + data[first:second] + data[end:]
    places = (65536 // 512 + (end - second) // 512).to_bytes(4, "little") + (128).to_bytes(4, "little")
    swapped = swapped[:table] + places + swapped[table + 8 :]
    src.write_bytes(swapped)
    convert(str(src), str(disks.folder / "d.raw"), format="raw")
    with feeding(pipe, swapped), pytest.raises(VmdkError, match="order of the disk"):
        convert(str(pipe), str(disks.folder / "e.raw"), format="raw")


def test_something_else_at_dest(disks: Disks, pipe: Path) -> None:
    src, dest = disks.folder / "s.vmdk", disks.folder / "d.raw"
    convert(str(disks.raw(SIZE)), str(src), format="streamOptimized")
    dest.write_bytes(b"a letter")
    with feeding(pipe, src.read_bytes()), pytest.raises(BadInput, match="something else"):
        convert(str(pipe), str(dest), format="raw")
    assert dest.read_bytes() == b"a letter"
    with feeding(pipe, src.read_bytes()):
        assert convert(str(pipe), str(dest), format="raw", force=True)["changed"]


def test_check_mode_reads_no_pipe(disks: Disks, pipe: Path) -> None:
    said = convert(str(pipe), str(disks.folder / "d.raw"), format="raw", check=True)
    assert said["changed"] and said["capacity"] is None


def test_a_reader_that_goes_away(disks: Disks, pipe: Path) -> None:
    for format in PIPED:
        with taking(pipe, io.BytesIO(), 1000), pytest.raises(SinkError, match="has gone"):
            convert(str(disks.raw(SIZE, content="full")), str(pipe), format=format)


@pytest.mark.parametrize("read", [True, False])
def test_waiting_can_be_stopped(disks: Disks, pipe: Path, read: bool) -> None:
    """Nobody comes to the other end: the progress call stops the work."""
    raw = disks.raw(SIZE)

    def stop(phase: str, done: int, total: int) -> None:
        if phase == "wait":
            raise Interrupted("stopped")

    src, dest = (pipe, disks.folder / "d.raw") if read else (raw, pipe)
    with pytest.raises(Interrupted):
        convert(str(src), str(dest), format="raw", progress=stop)
    assert listing(disks.folder) == ["pipe", "src.raw"]


def test_a_reader_that_stalls_can_be_left(disks: Disks, pipe: Path) -> None:
    fd = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    calls = []

    def stop(phase: str, done: int, total: int) -> None:
        calls.append(phase)
        if phase == "wait":
            raise Interrupted("stopped")

    try:
        with pytest.raises(Interrupted):
            convert(str(disks.raw(SIZE, content="full")), str(pipe), format="raw", progress=stop)
    finally:
        os.close(fd)


def test_is_pipe(disks: Disks, pipe: Path) -> None:
    assert fifo.is_pipe(str(pipe)) and fifo.is_pipe("-")
    assert not fifo.is_pipe(str(disks.raw(512))) and not fifo.is_pipe("no\0where") and not fifo.is_pipe(str(disks.folder))
    with pytest.raises(FerryError):
        fifo.PipeIn(str(disks.folder / "absent"))
