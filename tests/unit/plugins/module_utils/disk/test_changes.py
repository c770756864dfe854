# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""changeIds, areas that are checked before they are believed, and their packing."""

from __future__ import annotations

import random

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import changes, dirty, incremental
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Extent, Kind

UUID = "52 de c0 d9 b9 43 9d 10-61 35 4c 54 d3 c6 f3 a5"
MIB = 1 << 20


def test_a_change_id_is_a_uuid_and_a_number() -> None:
    assert changes.ChangeId.parse(f"{UUID}/13") == ("52dec0d9b9439d1061354c54d3c6f3a5", 13)
    assert changes.ChangeId.parse(UUID.upper() + "/13") == changes.ChangeId.parse(f" {UUID}/13 ")


@pytest.mark.parametrize(
    "text", ["", None, "*", UUID, f"{UUID}/", f"{UUID}/x", f"{UUID}/-1", "/5", "a\nb/5", "a" * 200 + "/5", "a/" + "9" * 30]
)
def test_everything_else_is_none(text: str | None) -> None:
    assert changes.ChangeId.parse(text) is None


@pytest.mark.parametrize(
    ("kept", "now", "why"),
    [
        (f"{UUID}/1", f"{UUID}/1", None),
        (f"{UUID}/1", f"{UUID}/20", None),
        (f"{UUID}/9", f"{UUID}/10", None),
        (f"{UUID}/10", f"{UUID}/9", "went back"),
        (f"{UUID}/1", f"53{UUID[2:]}/2", "another UUID"),
        (None, f"{UUID}/2", "No changeId is kept"),
        ("", f"{UUID}/2", "No changeId is kept"),
        (f"{UUID}/1", "", "is off"),
        (f"{UUID}/1", None, "is off"),
        (f"{UUID}/1", "*", "no known form"),
        ("*", f"{UUID}/1", "no known form"),
    ],
)
def test_what_can_be_followed(kept: str | None, now: str | None, why: str | None) -> None:
    found = changes.cannot_follow(kept, now)
    assert found is None if why is None else why in str(found)


@pytest.mark.parametrize(
    "areas",
    [
        [(0, 0)],
        [(0, -5)],
        [(-512, 512)],
        [(0, 1025)],
        [(1024, 1)],
        [(512, 512), (0, 512)],
        [(0, 512), (0, 512)],
        [(0, 512), (511, 5)],
    ],
)
def test_areas_that_cannot_be_are_refused(areas: list[tuple[int, int]]) -> None:
    with pytest.raises(changes.TrackingRefused) as caught:
        list(changes.checked(areas, 1024))
    assert changes.refuses_tracking(caught.value)


def test_areas_that_can_be_pass() -> None:
    assert list(changes.checked([(0, 512), (512, 1), (1000, 24)], 1024)) == [(0, 512), (512, 1), (1000, 24)]
    assert list(changes.checked([], 1024)) == []


def test_a_server_that_is_away_does_not_refuse() -> None:
    assert not changes.refuses_tracking(FerryError("", code="unreachable"))
    assert not changes.refuses_tracking(FerryError("", code="interrupted"))
    assert changes.refuses_tracking(FerryError("", code="fault"))


def random_areas(rng: random.Random, capacity: int) -> list[tuple[int, int]]:
    out, at = [], 0
    while True:
        at += rng.choice([0, 512, 65536, 5 * MIB, 900 * MIB])
        length = rng.choice([1, 512, 65536, 3 * MIB, 1500 * MIB])
        if at + length > capacity:
            return out
        out.append((at, length))
        at += length


@pytest.mark.parametrize("seed", range(20))
def test_packed_and_cut_nothing_is_lost(seed: int) -> None:
    rng = random.Random(seed)
    areas = random_areas(rng, 40 << 30)
    back = []
    for number, pieces in dirty.by_segment(areas):
        pairs = list(zip(pieces[0::2], pieces[1::2], strict=True))
        blob = dirty.pack(pairs)
        assert dirty.total(blob) == sum(n for _s, n in pairs)
        assert list(dirty.unpack(dirty.merged(pairs, pairs[::2]))) == list(dirty.unpack(blob))
        for chunk, cut in dirty.by_chunk(dirty.unpack(blob)):
            assert all(chunk * MIB <= s and s + n <= (chunk + 1) * MIB for s, n in cut)
            back += [(number * dirty.SEGMENT_BYTES + s, n) for s, n in cut]
    assert list(join(back)) == list(join(areas))


def join(areas: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for start, length in areas:
        if out and sum(out[-1]) == start:
            out[-1] = (out[-1][0], out[-1][1] + length)
        else:
            out.append((start, length))
    return out


@pytest.mark.parametrize("seed", range(20))
def test_joining_reads_at_most_a_tenth_more(seed: int) -> None:
    rng = random.Random(seed)
    areas = join(random_areas(rng, 1 << 30)) + [(2 << 30, 65536), (2 << 30 | 65536 + 512, 65536)]
    joined = dirty.joined(areas, 256 << 10)
    wanted = sum(n for _s, n in areas)
    assert wanted <= sum(n for _s, n in joined) <= 1.1 * wanted
    for start, length in areas:
        assert any(s <= start and start + length <= s + n for s, n in joined)
    assert len(joined) < len(areas), "two areas with 512 bytes between them are one request"
    assert dirty.joined(areas, 0) == areas


def test_gaps_as_large_as_the_areas_are_asked_around() -> None:
    areas = [(n * 131_072, 65_536) for n in range(100)]
    assert 65_536 * 100 < sum(n for _s, n in dirty.joined(areas, 256 << 10)) <= 1.1 * 65_536 * 100
    assert dirty.joined(areas, 65_535) == areas


def test_overlap_is_what_lies_in_both() -> None:
    data = [Extent(0, 100, Kind.DATA), Extent(200, 100, Kind.DATA), Extent(400, 10, Kind.DATA)]
    areas = [(10, 20), (50, 200), (260, 10), (299, 200)]
    found = [(e.start, e.length) for e in incremental.overlap(iter(data), iter(areas))]
    assert found == [(10, 20), (50, 50), (200, 50), (260, 10), (299, 1), (400, 10)]
    assert not list(incremental.overlap(iter(data), iter([]))) and not list(incremental.overlap(iter([]), iter(areas)))
