# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The copy engine on real files: what is copied is equal, and nothing is copied twice or believed unseen."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import copy, digest, errors, ledger
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Extent, Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sinks.file import FileSink
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.file import FileSource

MIB = 1 << 20
MODULE_UTILS = Path(copy.__file__).resolve().parents[1]


def make_disk(path: Path, size: int, seed: int = 1) -> None:
    """A disk with data, written zeroes and holes, none of them at round places."""
    rng = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(size)
        at = 0
        while at < size:
            f.seek(at)
            f.write(rng.randbytes(min(rng.randrange(1, 700_000), size - at)))
            at = f.tell()
            f.write(bytes(min(rng.randrange(1, 300_000), max(0, size - at))))
            at += rng.randrange(300_000, 6 * MIB)


def same(a: Path, b: Path) -> bool:
    return hashlib.sha256(a.read_bytes()).digest() == hashlib.sha256(b.read_bytes()).digest()


def run(folder: Path, **kwargs: Any) -> copy.Result:
    source = FileSource(str(folder / "source"))
    sink = FileSink(str(folder / "target"), source.capacity)
    book = ledger.Ledger(str(folder / "ledger.sqlite"), source.capacity)
    try:
        return copy.run([copy.Job("Hard disk 1", source, sink, book)], **kwargs)[0]
    finally:
        book.close()
        sink.close()
        source.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    make_disk(tmp_path / "source", 48 * MIB + 3 * 512)
    return tmp_path


@pytest.mark.parametrize("size", [1, 512, MIB - 512, MIB, MIB + 512, 4 * MIB, 4 * MIB + 1, 9 * MIB + 512])
def test_equal_at_every_size(tmp_path: Path, size: int) -> None:
    make_disk(tmp_path / "source", size, seed=size)
    result = run(tmp_path, verify="full")
    assert same(tmp_path / "source", tmp_path / "target")
    assert (result.bytes_written + result.bytes_skipped, result.repaired, result.bytes_verified) == (size, 0, size)


def test_holes_are_not_read_and_zeroes_not_stored(folder: Path) -> None:
    result = run(folder)
    stored = os.stat(folder / "source").st_blocks * 512
    assert result.bytes_read <= stored < result.capacity * 0.6
    assert os.stat(folder / "target").st_blocks * 512 <= stored
    assert result.bytes_skipped == result.capacity - result.bytes_written


def test_digest_is_what_an_independent_script_computes(folder: Path) -> None:
    import xxhash

    data = (folder / "source").read_bytes()
    total = xxhash.xxh3_128(b"ferry-disk-digest-1\n" + len(data).to_bytes(8, "little"))
    for at in range(0, len(data), MIB):
        total.update(xxhash.xxh3_128_digest(data[at : at + MIB]))
    assert run(folder).digest == "xxh3-128:" + total.hexdigest()


def test_digest_of_zeroes_without_any_data(tmp_path: Path) -> None:
    with open(tmp_path / "source", "wb") as f:
        f.truncate(3 * 1024 * MIB + 512)
    result = run(tmp_path)
    assert (result.bytes_read, result.bytes_written) == (0, 0)
    assert result.digest == digest.DigestMap(3 * 1024 * MIB + 512).disk_digest()
    assert os.stat(tmp_path / "target").st_size == 3 * 1024 * MIB + 512


def test_second_run_does_nothing(folder: Path) -> None:
    first = run(folder)
    second = run(folder)
    assert (second.changed, second.mode, second.bytes_read, second.digest) == (False, "none", 0, first.digest)


def test_changed_source_writes_what_differs_only(folder: Path) -> None:
    run(folder)
    with open(folder / "source", "r+b") as f:
        f.seek(20 * MIB + 5)
        f.write(b"changed")
        f.seek(30 * MIB)
        f.write(bytes(2 * MIB))
    result = run(folder)
    assert same(folder / "source", folder / "target")
    assert result.mode == "compare" and MIB <= result.bytes_written <= 4 * MIB


def test_altered_target_is_mended_and_counted(folder: Path) -> None:
    run(folder)
    with open(folder / "target", "r+b") as f:
        f.seek(7 * MIB)
        f.write(b"altered by hand")
    result = run(folder)
    assert same(folder / "source", folder / "target")
    assert (result.mode, result.repaired, result.changed) == ("repair", 1, True)
    assert result.bytes_read <= 4 * MIB


def test_altered_target_and_changed_source_at_once(folder: Path) -> None:
    run(folder)
    with open(folder / "target", "r+b") as f:
        f.seek(7 * MIB)
        f.write(b"altered by hand")
    with open(folder / "source", "r+b") as f:
        f.seek(30 * MIB)
        f.write(b"changed by the guest")
    result = run(folder)
    assert same(folder / "source", folder / "target"), "the ledger was believed against the target"
    assert result.mode == "compare" and result.bytes_written <= 3 * MIB


def test_replaced_target_is_copied_anew(folder: Path) -> None:
    run(folder)
    os.rename(folder / "target", folder / "gone")
    (folder / "target").write_bytes(os.urandom(48 * MIB + 3 * 512))
    run(folder)
    assert same(folder / "source", folder / "target"), "what stood there before shines through"


class LyingSink(FileSink):
    """A storage that loses one write: the first one of a chunk."""

    lost = False

    def write(self, offset: int, data: bytes | memoryview) -> None:
        if not LyingSink.lost and offset <= 8 * MIB < offset + len(data):
            LyingSink.lost = True
            return
        super().write(offset, data)


def test_verification_repairs_a_lost_write(folder: Path) -> None:
    with open(folder / "source", "r+b") as f:
        f.seek(8 * MIB)
        f.write(os.urandom(MIB))
    source = FileSource(str(folder / "source"))
    book = ledger.Ledger(str(folder / "ledger.sqlite"), source.capacity)
    LyingSink.lost = False
    sink = LyingSink(str(folder / "target"), source.capacity)
    result = copy.run([copy.Job("d", source, sink, book)], verify="full")[0]
    assert LyingSink.lost and result.repaired == 1
    assert same(folder / "source", folder / "target")
    book.close(), sink.close(), source.close()


class FailingSource(FileSource):
    def read(self, offset: int, length: int) -> bytes:
        if offset >= 24 * MIB:
            raise errors.SourceError("The server did not deliver.", step="read")
        return super().read(offset, length)


def test_error_names_the_disk_and_keeps_what_was_done(folder: Path) -> None:
    source = FailingSource(str(folder / "source"))
    sink = FileSink(str(folder / "target"), source.capacity)
    book = ledger.Ledger(str(folder / "ledger.sqlite"), source.capacity)
    with pytest.raises(errors.SourceError) as caught:
        copy.run([copy.Job("Hard disk 2", source, sink, book)], workers=2)
    assert caught.value.disk == "Hard disk 2" and caught.value.step == "read"
    book.close(), sink.close(), source.close()
    result = run(folder)
    assert result.bytes_resumed >= 16 * MIB
    assert same(folder / "source", folder / "target")


def test_a_source_that_is_written_to_meanwhile(folder: Path) -> None:
    class Busy(FileSource):
        def read(self, offset: int, length: int) -> bytes:
            os.utime(self.path)
            return super().read(offset, length)

    source = Busy(str(folder / "source"))
    sink = FileSink(str(folder / "target"), source.capacity)
    book = ledger.Ledger(str(folder / "ledger.sqlite"), source.capacity)
    with pytest.raises(errors.SourceError, match="written to while") as caught:
        copy.run([copy.Job("d", source, sink, book)])
    assert caught.value.code == "source_changed" and book.fact("state") == "copying"
    book.close(), sink.close(), source.close()
    assert run(folder).mode == "compare"


def test_one_writer(folder: Path) -> None:
    book = ledger.Ledger(str(folder / "ledger.sqlite"), 5)
    with pytest.raises(errors.Busy, match="another process"):
        ledger.Ledger(str(folder / "ledger.sqlite"), 5)
    sink = FileSink(str(folder / "target"), 5)
    with pytest.raises(errors.Busy):
        FileSink(str(folder / "target"), 5)
    book.close(), sink.close()


class NotRegular(FileSource):
    """Extents as changed-block tracking gives them: any start, any length."""

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        yield Extent(0, 100_000, Kind.DATA)
        yield Extent(100_000, 4 * MIB, Kind.HOLE)
        yield Extent(100_000 + 4 * MIB, 300, Kind.DATA)
        yield Extent(100_300 + 4 * MIB, 200, Kind.DATA)
        rest = 100_500 + 4 * MIB
        yield Extent(rest, self.capacity - rest, Kind.ZERO)


def test_extents_at_odd_places(tmp_path: Path) -> None:
    data = bytearray(11 * MIB)
    data[:100_000] = os.urandom(100_000)
    data[100_000 + 4 * MIB : 100_500 + 4 * MIB] = os.urandom(500)
    (tmp_path / "source").write_bytes(data)
    source = NotRegular(str(tmp_path / "source"))
    sink = FileSink(str(tmp_path / "target"), source.capacity)
    book = ledger.Ledger(str(tmp_path / "l"), source.capacity)
    result = copy.run([copy.Job("d", source, sink, book)])[0]
    assert same(tmp_path / "source", tmp_path / "target") and result.bytes_read == 100_500
    book.close(), sink.close(), source.close()


CHILD = """
    import sys, time
    sys.path.insert(0, sys.argv[1])
    from disk import copy, ledger
    from disk.sources.file import FileSource
    from disk.sinks.file import FileSink
    folder = sys.argv[2]
    class Slow(FileSource):
        def read(self, offset, length):
            data = super().read(offset, length)
            with open(folder + "/reads", "a") as f:
                f.write(f"{offset} {length}\\n")
            time.sleep(0.02)
            return data
    source = Slow(folder + "/source")
    sink = FileSink(folder + "/target", source.capacity)
    book = ledger.Ledger(folder + "/ledger.sqlite", source.capacity)
    copy.run([copy.Job("d", source, sink, book, unit=1 << 20)], workers=2, checkpoint_seconds=0.1)
"""


def reads(folder: Path) -> list[tuple[int, int]]:
    rows = (folder / "reads").read_text().split("\n") if (folder / "reads").exists() else []
    return [(int(a), int(b)) for a, b in (row.split() for row in rows if len(row.split()) == 2)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_sigkill_anywhere_then_go_on(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    killed = 0
    for _attempt in range(40):
        before = len(reads(folder))
        child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(CHILD), str(MODULE_UTILS), str(folder)])
        wanted = before + rng.randrange(1, 9)
        while child.poll() is None and len(reads(folder)) < wanted:
            time.sleep(0.002)
        if child.poll() is not None:
            assert child.returncode == 0
            break
        child.send_signal(signal.SIGKILL)
        child.wait()
        killed += 1
    assert killed >= 2
    assert same(folder / "source", folder / "target")
    total = sum(length for _at, length in reads(folder))
    needed = run(folder)
    assert needed.mode == "none"
    once = dict(reads(folder))
    # Read twice at most: what two workers had in hand at each kill.
    assert total - sum(once.values()) <= killed * 2 * MIB


def test_power_loss_forgets_what_was_not_flushed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks of another boot do not count: the target's unsynced pages died with the machine."""
    source = FailingSource(str(folder / "source"))
    sink = FileSink(str(folder / "target"), source.capacity)
    book = ledger.Ledger(str(folder / "ledger.sqlite"), source.capacity)
    job = copy.Job("d", source, sink, book)
    job.prepare()
    units = list(job.units())
    job.work(units[0])
    job.make_durable()
    job.work(units[1])
    job.work(units[2])
    durable = bytes((folder / "target").read_bytes())[: units[0].count * MIB]
    book.close(), sink.close(), source.close()
    # The machine dies: the second boot finds the file as it was at the flush.
    with open(folder / "target", "r+b") as f:
        f.truncate(len(durable))
        f.truncate(48 * MIB + 3 * 512)
    monkeypatch.setattr(ledger, "boot_id", lambda: "another boot")
    again = ledger.Ledger(str(folder / "ledger.sqlite"), 48 * MIB + 3 * 512)
    assert set(again.states(0, units[0].count)) <= {ledger.DATA, ledger.ZERO}
    assert set(again.states(units[1].first, units[1].count)) == {ledger.UNKNOWN}
    again.close()
    result = run(folder)
    assert same(folder / "source", folder / "target")
    assert result.bytes_resumed == units[0].count * MIB


def test_a_damaged_ledger_is_named_and_nothing_is_touched(folder: Path) -> None:
    (folder / "ledger.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(errors.FerryError) as caught:
        run(folder)
    assert caught.value.code == "ledger" and "move" in (caught.value.next_command or "")


def test_ledger_files_are_private(folder: Path) -> None:
    run(folder)
    for name in ("ledger.sqlite", "ledger.sqlite.lock", "target"):
        assert os.stat(folder / name).st_mode & 0o077 == 0


def test_a_target_that_is_too_small_or_no_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(errors.FerryError):
        FileSink(str(tmp_path / "d"), 5)
    with pytest.raises(errors.BadInput):
        FileSource("/dev/null")
    (tmp_path / "small").write_bytes(b"x")
    with pytest.raises(errors.SinkError, match="has 1 bytes"):
        FileSink(str(tmp_path / "small"), 5, resize=False)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_disk(tmp_path: Path) -> None:
    """2 TiB with a little data, in 200 MiB."""
    script = """
        import json, re, sys
        sys.path.insert(0, sys.argv[1])
        from disk import copy, ledger
        from disk.sources.file import FileSource
        from disk.sinks.file import FileSink
        folder = sys.argv[2]
        with open(folder + "/source", "wb") as f:
            f.truncate(2 << 40)
            for n in range(64):
                f.seek(n * (30 << 30) + 12345)
                f.write(b"some data" * 200000)
        source = FileSource(folder + "/source")
        sink = FileSink(folder + "/target", source.capacity)
        book = ledger.Ledger(folder + "/ledger.sqlite", source.capacity)
        r = copy.run([copy.Job("d", source, sink, book)], verify="full")[0]
        # Not ru_maxrss: a process inherits that of the one that started it, here pytest.
        peak_kib = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
        print(json.dumps([peak_kib, r.bytes_written, r.repaired]))
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(MODULE_UTILS), str(tmp_path)], capture_output=True, text=True, check=True
    )
    peak_kib, written, repaired = json.loads(out.stdout)
    assert peak_kib < 200 * 1024 and repaired == 0
    assert written >= 64 * 1_800_000


def test_a_lost_lease_stops_the_writers(folder: Path) -> None:
    class Slow(FileSource):
        def read(self, offset: int, length: int) -> bytes:
            time.sleep(0.05)
            return super().read(offset, length)

    def guard() -> None:
        raise errors.Busy("Taken over.")

    source = Slow(str(folder / "source"))
    sink = FileSink(str(folder / "target"), source.capacity)
    book = ledger.Ledger(str(folder / "ledger.sqlite"), source.capacity)
    with pytest.raises(errors.Busy, match="Taken over"):
        copy.run([copy.Job("d", source, sink, book, unit=MIB)], workers=1, guard=guard, checkpoint_seconds=0.1)
    assert any(s == ledger.UNKNOWN for s in book.states(0, book.chunks)), "it stopped before the end"
    book.close(), sink.close(), source.close()


def test_a_full_target_says_so_and_the_copy_goes_on_later(folder: Path) -> None:
    """The file may not grow past 20 MiB: what the kernel answers is EFBIG, as ENOSPC and EDQUOT elsewhere."""
    script = """
        import resource, signal, sys
        sys.path.insert(0, sys.argv[1])
        from disk import copy, ledger
        from disk.errors import FerryError
        from disk.sources.file import FileSource
        from disk.sinks.file import FileSink
        folder = sys.argv[2]
        source = FileSource(folder + "/source")
        sink = FileSink(folder + "/target", source.capacity)
        book = ledger.Ledger(folder + "/ledger.sqlite", source.capacity)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, resource.RLIM_INFINITY))
        try:
            copy.run([copy.Job("Hard disk 1", source, sink, book)], workers=1)
        except FerryError as e:
            print(e.code, e.disk, e.next_command)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(MODULE_UTILS), str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("target_full Hard disk 1 make room"), done.stdout + done.stderr
    result = run(folder)
    assert same(folder / "source", folder / "target") and result.bytes_resumed >= 12 * MIB
