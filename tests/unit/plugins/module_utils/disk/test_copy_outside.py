# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tracking that misses changes is caught by a sample outside the changed areas, and the whole disk is compared in the same run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import copy, sampling
from ansible_collections.ferry.vmware.plugins.module_utils.disk.changes import Tracking
from ansible_collections.ferry.vmware.plugins.module_utils.disk.ledger import DATA, DIRTY, STALE, ZERO, Ledger

from .guest import MIB, UUID, Guest, Snapshot, Way


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path, 40 * MIB + 512)


@pytest.fixture
def way(tmp_path: Path, guest: Guest) -> Way:
    return Way(tmp_path, guest)


def missing(guest: Guest, at: Snapshot, chunk: int, uuid: str = UUID) -> Tracking:
    """A tracking that does not tell what changed in C(chunk)."""
    return Tracking(f"{uuid}/{at.number}", lambda since: [a for a in guest.areas(since, at) if not chunk * MIB <= a[0] < (chunk + 1) * MIB])


@pytest.mark.fault(
    "tracking misses a change", where="tracking", ends="found by the sample outside, the whole disk is compared in the same run: equal"
)
def test_a_missed_change_is_found_and_mended(way: Way, guest: Guest) -> None:
    way.copy(guest.snapshot())
    guest.write(3 * MIB, b"told")
    guest.write(17 * MIB, b"missed")
    at = guest.snapshot()
    result = way.copy(at, tracking=missing(guest, at, 17), outside=1.0)
    assert way.equal(at)
    assert (result.mode, result.outside_wrong, result.change_id) == ("compare", 1, at.change_id)
    assert "1 of 41 chunks outside the changed areas differ" in result.reason
    assert result.outside_checked == 41, "what is missed may lie beside what is told"


def test_without_a_sample_it_would_be_wrong(way: Way, guest: Guest) -> None:
    way.copy(guest.snapshot())
    guest.write(17 * MIB, b"missed")
    at = guest.snapshot()
    way.copy(at, tracking=missing(guest, at, 17))
    assert not way.equal(at)


def test_the_change_id_is_not_committed_before_the_sample_was_looked_at(way: Way, guest: Guest) -> None:
    first = guest.snapshot()
    way.copy(first)
    guest.write(17 * MIB, b"missed")
    at = guest.snapshot()

    class Away(Exception):
        pass

    def read(offset: int, length: int) -> bytes:
        raise Away

    with way.job(at, tracking=missing(guest, at, 17)) as job:
        job.source.read = read
        with pytest.raises(Away):
            copy.run([job], outside=1.0)
    assert (way.fact("change_id"), way.fact("state")) == (first.change_id, "copying")
    # Nothing is left to be copied, but the sample is still due.
    result = way.copy(at, tracking=missing(guest, at, 17), outside=1.0)
    assert result.outside_wrong == 1 and way.equal(at)


@pytest.mark.fault(
    "tracking that missed a change is used again", where="tracking", ends="compared each time until it is switched off and on"
)
def test_what_missed_once_is_not_trusted_until_it_is_begun_anew(way: Way, guest: Guest) -> None:
    way.copy(guest.snapshot())
    guest.write(17 * MIB, b"missed")
    at = guest.snapshot()
    way.copy(at, tracking=missing(guest, at, 17), outside=1.0)
    guest.write(18 * MIB, b"missed again")
    at = guest.snapshot()
    result = way.copy(at, tracking=missing(guest, at, 18))
    assert way.equal(at) and result.mode == "compare" and "caught missing" in result.reason
    guest.uuid = "53" + UUID[2:]
    at = guest.snapshot()
    assert "another UUID" in way.copy(at).reason
    guest.work(2)
    at = guest.snapshot()
    assert way.copy(at).mode == "incremental" and way.equal(at)


def test_a_right_tracking_passes_and_the_share_is_said(way: Way, guest: Guest) -> None:
    way.copy(guest.snapshot(), verify="full")
    guest.work(2)
    at = guest.snapshot()
    result = way.copy(at, verify="full", outside=0.25)
    assert (result.mode, result.outside_wrong, result.outside_share) == ("incremental", 0, 0.25)
    assert 8 <= result.outside_checked <= 11 and way.equal(at)
    assert result.bytes_read <= 1.1 * result.changed_bytes + result.outside_checked * MIB


@pytest.mark.fault('"*" leaves out what is allocated', where="tracking", ends="found by the sample outside: equal")
def test_a_hint_that_leaves_data_out_is_caught(way: Way, guest: Guest) -> None:
    """C(*) without an area that is allocated: its chunks were taken for zeroes."""
    guest.write(11 * MIB, bytes([1]) * (2 * MIB))
    at = guest.snapshot()
    areas = [(n * MIB, MIB) for n in range(40) if n not in (11, 12)]
    result = way.copy(at, tracking=guest.tracking(at, allocated=lambda: areas), outside=1.0)
    assert way.equal(at) and result.outside_wrong == 2 and result.mode == "compare"


def test_the_sample_moves_on_until_all_had_their_turn(tmp_path: Path) -> None:
    capacity = 3000 * MIB
    book = Ledger(str(tmp_path / "ledger"), capacity)
    book.set(disk="Hard disk 1")
    book.mark(0, bytes([ZERO, DATA] * 1500), b"x" * 16 * 3000)
    book.mark(7, bytes([DATA | DIRTY, STALE]), b"x" * 32)
    seen: set[int] = set()
    for generation in range(101):
        chosen = list(sampling.choose(book, 0.01, generation))
        assert chosen == sorted(chosen) and 27 <= len(chosen) <= 33 and not {7, 8} & set(chosen)
        assert chosen == list(sampling.choose(book, 0.01, generation))
        seen.update(chosen)
    assert len(seen) == 2998
    assert len(list(sampling.choose(book, 1e-9, 5))) == 1 and not list(sampling.choose(book, 0, 5))
    assert len(list(sampling.choose(book, 1, 5))) == 2998
    book.close()
