# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is saved of a damaged disk, and that all else is in the map of what is lost."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.lost import MAX_RANGES, Lost, merged
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.salvage import open_salvaged

from . import builder, corpus
from .builder import GRAIN, GRAIN_SECTORS, SECTORS
from .corpus import DISK, GRAINS, put
from .fuzz import differs

LAST = max(GRAINS)


def saved(path: Path, most: int, *, least: int = 0) -> list[str]:
    """Salvage C(path): all that is not in the map is right, and between C(least) and C(most) bytes are in it. The reasons."""
    disk, lost = open_salvaged(str(path))
    with disk:
        ranges = [(r["start"], r["length"]) for r in lost]
        assert differs(disk, DISK, ranges) is None
    assert all(a + n <= b for (a, n), (b, _n) in zip(ranges, ranges[1:], strict=False))
    assert least <= sum(n for _a, n in ranges) <= most
    return [r["reason"] for r in lost]


def written(tmp_path: Path, data: bytes | bytearray) -> Path:
    path = tmp_path / "disk.vmdk"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("base", sorted(corpus.bases()))
def test_a_sound_disk_is_itself(tmp_path: Path, base: str) -> None:
    path = written(tmp_path, corpus.bases()[base].data)
    with open_disk(str(path)) as disk:
        want = disk.identity
    disk, lost = open_salvaged(str(path))
    with disk:
        assert lost == [] and disk.identity == want


def test_a_stream_without_its_footer(tmp_path: Path) -> None:
    """Every grain is there, the tables are found by their markers, and the directory by its own."""
    built = corpus.stream()
    assert saved(written(tmp_path, built.data[: built.at["marker footer"]]), 0) == []
    assert saved(written(tmp_path, built.data[:-512]), 0) == []
    # Without the directory, the order of the stream tells what was empty; behind the last table nothing does.
    saved(written(tmp_path, built.data[: built.at["marker GD"]]), len(DISK) - LAST * GRAIN)


def test_a_stream_cut_in_the_middle(tmp_path: Path) -> None:
    """Up to the cut everything is told; from the grain that is cut on nothing is."""
    built = corpus.stream()
    for number in (8, 300, 590):
        data = built.data[: built.grains[number] + 600]
        after = sorted(n for n in GRAINS if n < number)[-1] + 1
        reasons = saved(written(tmp_path, data), len(DISK) - after * GRAIN, least=len(DISK) - after * GRAIN)
        assert reasons


def test_a_cut_stream_whose_tables_are_in_front(tmp_path: Path) -> None:
    """What was empty is known: only the grains behind the cut are lost."""
    built = corpus.stream(front=True)
    data = built.data[: built.grains[300]]
    gone = sum(min(GRAIN, len(DISK) - n * GRAIN) for n in GRAINS if n >= 300)
    assert saved(written(tmp_path, data), gone, least=gone)


def test_a_single_damaged_grain(tmp_path: Path) -> None:
    for front in (False, True):
        built = corpus.stream(front=front)
        data = put(built.copy(), built.grains[5] + 40, 0xFFFFFFFF)
        assert saved(written(tmp_path, data), GRAIN, least=GRAIN) == ["its compressed data is damaged"]


def test_the_next_marker_is_found_after_damage(tmp_path: Path) -> None:
    """Grains 7 and 8 and what is between them are overwritten, with a length that leads nowhere."""
    built = corpus.stream()
    data = built.copy()
    at, end = built.grains[7], built.grains[100]
    data[at:end] = b"\xaa" * (end - at)
    assert saved(written(tmp_path, data), 2 * GRAIN, least=2 * GRAIN)
    # The same where no table is left: what lies between the neighbours may have been there.
    data = data[: built.at["marker GT 0"]]
    saved(written(tmp_path, data), len(DISK) - 6 * GRAIN, least=2 * GRAIN)


def test_crossed_entries_are_not_believed(tmp_path: Path) -> None:
    built = corpus.stream()
    data = built.copy()
    _gd, tables = built.directories[0]
    put(data, tables[0] + 4 * 5, built.grains[7] // 512)
    reasons = saved(written(tmp_path, data), 2 * GRAIN, least=GRAIN)
    assert any("do not agree" in r for r in reasons)


@pytest.mark.parametrize("where", ["directory", "tables", "header"])
@pytest.mark.parametrize("copy", [0, 1])
def test_the_other_copy_of_the_tables(tmp_path: Path, where: str, copy: int) -> None:
    built = corpus.plain()
    data = built.copy()
    gd, tables = built.directories[copy]
    if where == "directory":
        put(data, gd, 0xFFFFFF00)
        put(data, gd + 4, 0)
    elif where == "tables":
        data[tables[0] : tables[0] + 64] = b"\xff" * 64
        data[tables[1] : tables[1] + 2048] = bytes(2048)
    else:
        put(data, 48 if copy else 56, 1 << 40, 8)
    assert saved(written(tmp_path, data), 0) == []


def test_both_copies_damaged_in_places(tmp_path: Path) -> None:
    """Each entry is taken from the copy where it is possible; what is possible in both, and differs, is listed."""
    built = corpus.plain()
    data = built.copy()
    first, second = (tables[0] for _gd, tables in built.directories)
    put(data, first + 4 * 1, 0xFFFFFFF0)
    put(data, second + 4 * 2, 1)
    put(data, second + 4 * 5, 0)
    reasons = saved(written(tmp_path, data), GRAIN, least=GRAIN)
    assert len(reasons) == 1 and reasons[0].startswith("given but not proven")


def test_directories_that_are_wiped(tmp_path: Path) -> None:
    """Makers put the tables behind the directory, in their order."""
    built = corpus.plain()
    data = built.copy()
    for gd, _tables in built.directories:
        data[gd : gd + 8] = bytes(8)
    assert saved(written(tmp_path, data), 0) == []


def test_a_wiped_table_without_a_copy(tmp_path: Path) -> None:
    """Data that no table names: nothing that is empty is proven to be."""
    built = corpus.plain(redundant=False)
    data = built.copy()
    _gd, tables = built.directories[0]
    data[tables[1] : tables[1] + 2048] = bytes(2048)
    kept = sum(GRAIN for n in GRAINS if n < 512)
    reasons = saved(written(tmp_path, data), len(DISK) - kept, least=len(DISK) - kept)
    assert set(reasons) == {"not in the grain table, but the file holds data that no table names"}


def test_a_plain_file_that_is_cut(tmp_path: Path) -> None:
    built = corpus.plain()
    last = builder.SIZE % GRAIN or GRAIN
    saved(written(tmp_path, built.data[: built.grains[LAST] + 1024]), last - 1024, least=last - 1024)


@pytest.mark.parametrize("front", [False, True])
def test_a_header_that_is_lost(tmp_path: Path, front: bool) -> None:
    """The footer has all that the header has; without one nothing can be told."""
    path = written(tmp_path, bytes(512) + bytes(corpus.stream(front=front).data[512:]))
    if front:
        with pytest.raises(VmdkError, match="Nothing can be saved"):
            open_salvaged(str(path))
    else:
        assert saved(path, 0) == []


def test_bytes_behind_the_end(tmp_path: Path) -> None:
    assert saved(written(tmp_path, corpus.stream().data + b"appended" * 1000), 0) == []


def test_header_and_footer_that_differ(tmp_path: Path) -> None:
    """The descriptor says which of them is right."""
    built = corpus.stream()
    assert saved(written(tmp_path, put(built.copy(), 12, SECTORS * 2, 8)), 0) == []
    assert saved(written(tmp_path, put(built.copy(), built.at["footer"] + 20, 128, 8)), 0) == []


def test_a_descriptor_that_is_lost(tmp_path: Path) -> None:
    """The grains are saved; that no parent holds what is empty is told by the descriptor alone."""
    built = corpus.plain()
    data = built.copy()
    end = data.index(b"\0", 512)
    data[512:end] = bytes(end - 512)
    empty = len(DISK) - sum(min(GRAIN, len(DISK) - n * GRAIN) for n in GRAINS)
    assert all("parent" in r for r in saved(written(tmp_path, data), empty, least=empty))
    data = built.copy()
    at = data.index(b"createType")
    data[at : at + 10] = b"cr\xffateType"
    assert saved(written(tmp_path, data), 0) == []


def split(tmp_path: Path) -> Path:
    half = 512 * GRAIN_SECTORS
    lines = ""
    for i, size in enumerate((half, SECTORS - half)):
        grains = {n - 512 * i: d for n, d in GRAINS.items() if n // 512 == i}
        (tmp_path / f"disk-s00{i + 1}.vmdk").write_bytes(builder.sparse(grains, sectors=size).data)
        lines += f'RW {size} SPARSE "disk-s00{i + 1}.vmdk"\n'
    return written(tmp_path, builder.descriptor("twoGbMaxExtentSparse", lines))


def test_a_missing_extent(tmp_path: Path) -> None:
    path = split(tmp_path)
    (tmp_path / "disk-s002.vmdk").unlink()
    disk, lost = open_salvaged(str(path))
    with disk:
        assert [(r["start"], r["length"]) for r in lost] == [(512 * GRAIN, len(DISK) - 512 * GRAIN)]
        assert "disk-s002.vmdk is missing" in lost[0]["reason"]
        assert disk.read(0, 512 * GRAIN) == DISK[: 512 * GRAIN] and not any(disk.read(512 * GRAIN, GRAIN))
    (tmp_path / "disk-s001.vmdk").unlink()
    with pytest.raises(VmdkError, match="no extent of the disk is left"):
        open_salvaged(str(path))


def test_a_damaged_extent(tmp_path: Path) -> None:
    path = split(tmp_path)
    part = tmp_path / "disk-s002.vmdk"
    data = bytearray(part.read_bytes())
    part.write_bytes(put(bytearray(data), 12, 64, 8))
    saved(path, len(DISK) - 512 * GRAIN, least=1)
    part.write_bytes(b"nothing" * 100)
    saved(path, len(DISK) - 512 * GRAIN, least=len(DISK) - 512 * GRAIN)


def test_a_flat_extent_that_is_short(tmp_path: Path) -> None:
    path = written(tmp_path, builder.descriptor("monolithicFlat", f'RW {SECTORS} FLAT "disk-flat.vmdk" 0\n'))
    flat = tmp_path / "disk-flat.vmdk"
    for there in (len(DISK) - 512, 1000):
        flat.write_bytes(DISK[:there])
        assert saved(path, len(DISK) - there, least=len(DISK) - there) == ["past the end of the file, which is cut"]
    flat.write_bytes(b"")
    with pytest.raises(VmdkError, match="no extent of the disk is left"):
        open_salvaged(str(path))


def test_what_is_not_salvaged(tmp_path: Path) -> None:
    """Names that lead away stay closed, encrypted disks and deltas stay what they are."""
    for line in ('RW 100 FLAT "../x" 0', 'RW 100 FLAT "/etc/passwd" 0', 'NOACCESS 100 FLAT "x" 0', 'RW 100 VMFSRDM "x"'):
        with pytest.raises(VmdkError):
            open_salvaged(str(written(tmp_path, builder.descriptor("monolithicFlat", line + "\n"))))
    text = builder.descriptor("monolithicSparse", corpus.LINE, more='encryptionKeys="k"\n')
    with pytest.raises(VmdkError, match="encrypted"):
        open_salvaged(str(written(tmp_path, builder.sparse(GRAINS, text=text).data[:-512])))
    text = builder.descriptor("monolithicSparse", corpus.LINE, parent="12345678", hint="gone.vmdk")
    with pytest.raises(VmdkError, match="delta"):
        open_salvaged(str(written(tmp_path, builder.sparse(GRAINS, text=text).data)))
    for data in (b"", b"<html>", b"KDMV" + bytes(600), b"KDMV" + b"\xff" * 600):
        with pytest.raises(VmdkError, match="Nothing can be saved"):
            open_salvaged(str(written(tmp_path, data)))


def test_grains_that_two_places_claim(tmp_path: Path) -> None:
    built = corpus.stream()
    again = builder.grain(5, GRAINS[8])
    data = built.data[: built.at["end_of_grains"]] + again
    reasons = saved(written(tmp_path, data), len(DISK), least=GRAIN)
    assert any("twice" in r for r in reasons)


def test_the_map_is_bounded() -> None:
    out = Lost()
    for n in range(0, 3 * MAX_RANGES, 2):
        out.add(n, 1, "x")
    assert len(out.ranges) == MAX_RANGES
    assert out.ranges[-1]["start"] + out.ranges[-1]["length"] == 3 * MAX_RANGES - 1
    assert merged([{"start": 0, "length": 4, "reason": "a"}, {"start": 4, "length": 4, "reason": "a"}])[0]["length"] == 8


def test_a_disk_of_2_tib_is_saved_in_little_memory(tmp_path: Path) -> None:
    """A lost footer of a large disk: nothing grows with the capacity."""
    sectors = (2 << 40) // 512
    text = builder.descriptor("streamOptimized", f'RW {sectors} SPARSE "disk.vmdk"\n')
    body = builder.HEADER.pack(b"KDMV", 3, 0x30001, sectors, 128, 1, 10, 512, 0, (1 << 64) - 1, 32, 0, b"\n \r\n", 1)
    data = bytearray(32 * 512)
    data[:512] = body
    data[512 : 512 + len(text)] = text
    grain = GRAINS[0] * 8
    for number in (0, 70_000, 33_000_000):
        data += struct.pack("<QI", number * 128, 0)[:8] + builder.grain(0, grain, lba=number * 128)[8:]
    disk, lost = open_salvaged(str(written(tmp_path, data)))
    with disk:
        assert disk.capacity == 2 << 40
        assert disk.read(70_000 * 65536, 65536) == grain
        assert [(r["start"], r["length"]) for r in lost] == [(33_000_001 * 65536, (2 << 40) - 33_000_001 * 65536)]
