# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ledger by itself: passes, dirty areas, what counts after which death, and its size."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import errors, ledger
from ansible_collections.ferry.vmware.plugins.module_utils.disk.ledger import DATA, DIRTY, OLD, STALE, UNKNOWN, ZERO, Ledger

MIB = 1 << 20
GIB = 1 << 30
MODULE_UTILS = Path(ledger.__file__).resolve().parents[1]
CAPACITY = 3 * GIB + 5 * MIB + 512


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.sqlite")


@pytest.fixture
def book(path: str) -> Iterator[Ledger]:
    found = Ledger(path, CAPACITY)
    found.mark(0, bytes([DATA]) * found.chunks, bytes(range(16)) * found.chunks)
    yield found
    found.close()


def again(book: Ledger, boot: str | None = None, monkeypatch: pytest.MonkeyPatch | None = None) -> Ledger:
    book.close()
    if monkeypatch is not None:
        monkeypatch.setattr(ledger, "boot_id", lambda: boot)
    return Ledger(book.path, CAPACITY)


def dirt(book: Ledger) -> dict[int, list[tuple[int, int]]]:
    """Chunk of the disk: its areas, from the chunk's first byte."""
    found = {}
    for number, _states in book.touched():
        for chunk, areas in book.dirty(number):
            found[number * 1024 + chunk] = [(start - chunk * MIB, length) for start, length in areas]
    return found


def test_areas_are_kept_by_chunk_and_go_with_the_mark(book: Ledger) -> None:
    areas = [(512, 1024), (5 * MIB + 10, 2 * MIB), (GIB - 100, 200), (CAPACITY - 12, 12)]
    assert book.begin("keep", areas, planned="a/2") == (4, sum(n for _s, n in areas))
    assert book.dirty_bytes() == sum(n for _s, n in areas)
    last = book.chunks - 1
    expected = {
        0: [(512, 1024)],
        5: [(10, MIB - 10)],
        6: [(0, MIB)],
        7: [(0, 10)],
        1023: [(MIB - 100, 100)],
        1024: [(0, 100)],
        last: [(500, 12)],
    }
    assert dirt(book) == expected and not book.clean and not book.whole_chunks_left
    book.mark(5, bytes([DATA, DATA, STALE]), b"x" * 48)
    for chunk in (5, 6, 7):
        del expected[chunk]
    assert dirt(book) == expected and book.stale_chunks == 1
    copy = again(book)
    assert dirt(copy) == expected and copy.fact("planned") == "a/2"
    for chunk in expected:
        copy.mark(chunk, bytes([DATA]), b"x" * 16)
    assert copy.clean
    copy.commit(copy.position())
    assert copy.dirty_bytes() == 0
    copy.close()


def test_new_areas_join_those_that_are_left(book: Ledger) -> None:
    book.begin("keep", [(0, 512), (MIB, 512), (2 * GIB, 512)], planned="a/2")
    book.mark(1, bytes([DATA]), b"x" * 16)
    book.begin("keep", [(256, 512), (3 * MIB, 512)], planned="a/3")
    assert dirt(book) == {0: [(0, 768)], 3: [(0, 512)], 2048: [(0, 512)]}, "what was done is not done again"


def test_after_a_power_loss_marks_do_not_count_and_their_areas_are_dirty_again(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    book.begin("keep", [(0, 512), (MIB, 512), (2 * MIB, 512)], planned="a/2")
    book.mark(0, bytes([DATA]), b"a" * 16)
    flushed = book.position()
    book.mark(1, bytes([DATA]), b"b" * 16)
    book.commit(flushed)
    book.mark(2, bytes([DATA]), b"c" * 16)
    assert book.clean
    after = again(book, "another boot", monkeypatch)
    assert (after.state(0), after.state(2)) == (DATA, DATA | DIRTY)
    assert after.state(1) == UNKNOWN, "written while a flush was under way: nothing is known"
    assert dirt(after) == {2: [(0, 512)]} and after.digests.get(0) == b"a" * 16
    after.close()


def test_a_plan_and_its_areas_are_one(book: Ledger) -> None:
    book.begin("keep", [(0, 512)], planned="a/2")

    def areas() -> Iterator[tuple[int, int]]:
        yield 5 * MIB, 512
        yield 2 * GIB, 512
        raise ValueError

    with pytest.raises(ValueError):
        book.begin("keep", areas(), planned="a/3")
    assert book.fact("planned") == "a/2" and set(dirt(book)) == {0}
    copy = again(book)
    assert copy.fact("planned") == "a/2" and set(dirt(copy)) == {0}
    copy.close()


def test_comparing_forgets_what_may_be_half_written(book: Ledger) -> None:
    book.mark(3, bytes([ZERO, STALE, UNKNOWN]), None)
    book.begin("keep", [(7 * MIB, 512)], planned="a/2")
    book.begin("look")
    assert [book.state(c) for c in (2, 3, 4, 5, 7)] == [DATA | OLD, ZERO | OLD, UNKNOWN, UNKNOWN, UNKNOWN]
    assert not dirt(book)
    book.mark(2, bytes([DATA]), b"x" * 16)
    book.begin("keep", [(2 * MIB, 512), (9 * MIB, 512)], doubtful=True, planned="a/3")
    assert [book.state(c) for c in (2, 3, 9)] == [DATA | DIRTY, UNKNOWN, UNKNOWN]


def test_forgetting_leaves_nothing_but_the_new_facts(book: Ledger) -> None:
    book.begin("forget", planned="a/9")
    assert not book.known and book.fact("planned") == "a/9"
    copy = again(book)
    assert not copy.known and copy.whole_chunks_left and copy.fact("planned") == "a/9"
    copy.forget()
    assert copy.fact("planned") is None
    copy.close()


@pytest.mark.parametrize("capacity", [CAPACITY + GIB, 3 * GIB, 512, 5 * GIB + 7])
def test_another_size_keeps_what_both_have(book: Ledger, capacity: int) -> None:
    book.commit(book.position())
    book.close()
    other = Ledger(book.path, capacity)
    assert other.resized_from == CAPACITY and other.chunks == -(-capacity // MIB)
    both = min(CAPACITY, capacity) // MIB
    assert set(other.states(0, both)) <= {DATA}
    assert all(s == UNKNOWN for s in other.states(both, other.chunks - both)), "a short last chunk has another digest"
    other.close()
    # Nothing was begun: the ledger is still that of the old disk.
    same = Ledger(book.path, CAPACITY)
    assert same.resized_from is None and same.state(same.chunks - 1) == DATA
    same.close()
    other = Ledger(book.path, capacity)
    other.begin("look")
    other.close()
    other = Ledger(book.path, capacity)
    assert other.resized_from is None and set(other.states(0, both)) <= {DATA | OLD}
    other.close()


def test_a_later_version_is_left_alone(book: Ledger) -> None:
    book._db.execute("PRAGMA user_version=99")
    with pytest.raises(errors.FerryError, match="version 99"):
        again(book)


@pytest.mark.fault("no room for the ledger", where="copy", ends="fails; nothing of the ledger is lost")
def test_no_room_for_the_ledger_is_an_error_of_ours_and_loses_nothing(tmp_path: Path) -> None:
    """The ledger's files may not grow: the kernel refuses, SQLite says that the disk is full, or that it cannot write."""
    script = """
        import resource, signal, sys
        sys.path.insert(0, sys.argv[1])
        from disk import ledger
        from disk.errors import FerryError
        book = ledger.Ledger(sys.argv[2], 1 << 40)
        book.mark(0, bytes([1]) * 1000, None)
        book.commit(book.position())
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        try:
            book.begin("keep", [], big="x" * 2_000_000)
        except FerryError as e:
            print(e.code, "|", e.next_command)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        book.begin("keep", [(0, 512)], planned="a/1")
        book.close()
    """
    path = str(tmp_path / "ledger")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(MODULE_UTILS), path], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("ledger"), done.stdout + done.stderr
    book = Ledger(path, 1 << 40)
    assert book.fact("big") is None and book.fact("planned") == "a/1" and dirt(book) == {0: [(0, 512)]}
    book.close()


@pytest.mark.slow
def test_a_million_areas_take_little_memory(tmp_path: Path) -> None:
    script = """
        import json, re, sys
        sys.path.insert(0, sys.argv[1])
        from disk import ledger
        def peak():
            return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
        capacity, count = 2 << 40, 1_000_000
        book = ledger.Ledger(sys.argv[2], capacity)
        for at in range(0, book.chunks, 65536):
            book.mark(at, bytes([1]) * 65536, None)
        before = peak()
        step = capacity // count // 65536 * 65536
        found = book.begin("keep", ((n * step, 65536) for n in range(count)), planned="a/2")
        read = sum(length for number, _s in book.touched() for _c, areas in book.dirty(number) for _at, length in areas)
        print(json.dumps([*found, read, peak() - before]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(MODULE_UTILS), str(tmp_path / "ledger")],
        capture_output=True,
        text=True,
        check=True,
    )
    count, size, read, grown_kib = json.loads(done.stdout)
    assert (count, size, read) == (1_000_000, 1_000_000 * 65536, 1_000_000 * 65536)
    assert grown_kib < 50 * 1024
