# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The doctor: every inconsistency with its place, and whether the data can be saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.info import inspect
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.report import MAX_PROBLEMS, Report

from . import builder, corpus
from .builder import GRAIN, SECTORS
from .corpus import GRAINS, put


def look(tmp_path: Path, data: bytes | bytearray, **options: bool) -> dict[str, Any]:
    path = tmp_path / "disk.vmdk"
    path.write_bytes(data)
    facts = inspect(str(path), **options)
    json.dumps(facts)
    assert len(facts["problems"]) <= MAX_PROBLEMS
    return facts


def errors(facts: dict[str, Any]) -> dict[int | None, str]:
    """Message by offset."""
    return {p.get("offset"): p["message"] for p in facts["problems"] if p["severity"] == "error"}


@pytest.mark.parametrize("base", sorted(corpus.bases()))
def test_sound_files_have_no_problems(tmp_path: Path, base: str) -> None:
    facts = look(tmp_path, corpus.bases()[base].data, deep=True)
    assert facts["problems"] == [] and facts["salvage"] is None


def test_all_fields_of_a_header(tmp_path: Path) -> None:
    data = corpus.stream().copy()
    for at, size, value in ((4, 4, 9), (20, 8, 100), (44, 4, 2), (77, 2, 0)):
        put(data, at, value, size)
    found = errors(look(tmp_path, data))
    assert {4, 20, 44, 77} <= set(found)
    footer = corpus.stream().at["footer"]
    assert footer not in found


def test_header_and_footer(tmp_path: Path) -> None:
    built = corpus.stream()
    data = built.copy()
    put(data, built.at["footer"] + 12, SECTORS + 16, 8)
    put(data, built.at["footer"] + 28, 2, 8)
    facts = look(tmp_path, data)
    found = errors(facts)
    assert "capacity_sectors" in found[built.at["footer"] + 12] and "descriptor_offset" in found[built.at["footer"] + 28]
    assert facts["salvage"]["possible"] and facts["salvage"]["lost_bytes"] == 0


def test_a_truncated_stream_and_what_is_behind_its_end(tmp_path: Path) -> None:
    built = corpus.stream()
    facts = look(tmp_path, built.data[:-512])
    assert "truncated" in facts["problems"][0]["message"] and facts["salvage"]["possible"]
    found = errors(look(tmp_path, built.data + b"tail" * 200))
    assert found == {len(built.data): "Bytes follow the end of the stream."}


def test_entries_of_both_tables(tmp_path: Path) -> None:
    built = corpus.plain()
    data = built.copy()
    (gd, first), (_copy, second) = built.directories
    put(data, first[0] + 4, 0xFFFFFFF0)
    put(data, second[0] + 4 * 2, 2)
    put(data, gd + 4, 0xFFFFFF)
    facts = look(tmp_path, data)
    found = errors(facts)
    assert {first[0] + 4, second[0] + 4 * 2, gd + 4} <= set(found)
    assert "past the end" in found[gd + 4]
    assert facts["salvage"] == {**facts["salvage"], "possible": True, "lost_bytes": 0, "lost": []}


def test_grains_in_one_place_and_over_metadata(tmp_path: Path) -> None:
    built = corpus.plain()
    data = built.copy()
    for _gd, tables in built.directories:
        put(data, tables[0] + 4 * 5, built.grains[7] // 512)
        put(data, tables[0] + 4 * 8, _gd // 512)
        put(data, tables[1] + 4 * 300, 5)
    found = errors(look(tmp_path, data))
    table = built.directories[0][1]
    assert "another grain" in found[table[0] + 4 * 5] and "another grain" in found[table[0] + 4 * 7]
    assert any(w in found[table[0] + 4 * 8] for w in ("metadata", "raster"))
    assert "beyond the capacity" in found[table[1] + 4 * 300]


def test_lost_and_crossed_grains_of_a_stream(tmp_path: Path) -> None:
    built = corpus.stream()
    _gd, tables = built.directories[0]
    data = put(built.copy(), tables[0] + 4 * 5, 0)
    put(data, tables[0] + 4 * 7, built.grains[8] // 512)
    found = errors(look(tmp_path, data))
    assert "does not name" in found[built.grains[5]] and "does not name" in found[built.grains[7]]
    assert "something else" in found[tables[0] + 4 * 7]


def test_each_bad_grain_when_deep(tmp_path: Path) -> None:
    built = corpus.stream()
    data = built.copy()
    for n in (5, 100, 590):
        put(data, built.grains[n] + 60, 0xFFFF, 2)
    assert look(tmp_path, data)["problems"] == []
    facts = look(tmp_path, data, deep=True)
    assert {(p["offset"], p["disk_offset"]) for p in facts["problems"]} == {(built.grains[n], n * GRAIN) for n in (5, 100, 590)}
    assert facts["salvage"]["lost_bytes"] == 3 * GRAIN
    assert [r["start"] for r in facts["salvage"]["lost"]] == [n * GRAIN for n in (5, 100, 590)]


def test_a_broken_descriptor(tmp_path: Path) -> None:
    data = corpus.plain().copy()
    at = data.index(b"createType")
    data[at : at + 10] = b"createTipe"
    facts = look(tmp_path, data)
    assert facts["capacity"] == SECTORS * 512 and "createTipe" in facts["descriptor"]
    assert any("createType" in m for m in errors(facts).values())


def test_every_missing_extent(tmp_path: Path) -> None:
    lines = "".join(f'RW 16 FLAT "disk-f00{n}.vmdk" 0\n' for n in range(1, 5))
    (tmp_path / "disk-f002.vmdk").write_bytes(bytes(8192))
    (tmp_path / "disk-f004.vmdk").write_bytes(bytes(100))
    facts = look(tmp_path, builder.descriptor("twoGbMaxExtentFlat", lines))
    said = [p["message"] for p in facts["problems"]]
    assert [n for n in ("001", "002", "003", "004") if any(f"f{n}" in m and "missing" in m for m in said)] == ["001", "003"]
    assert any("shorter" in m for m in said)
    assert facts["salvage"]["lost_bytes"] == 2 * 8192 + 8192 - 100


def test_remarks_on_sound_files(tmp_path: Path) -> None:
    text = builder.descriptor(
        "monolithicSparse", corpus.LINE, more='ddb.geometry.cylinders = "5"\nddb.geometry.heads = "16"\nddb.geometry.sectors = "63"\n'
    )
    text = text.replace(b"CID=1234abcd\n", b"", 1)
    data = builder.sparse(GRAINS, text=text).data
    put(data, 8, 2)
    data[72] = 1
    facts = look(tmp_path, data)
    said = " ".join(p["message"] for p in facts["problems"])
    assert all(p["severity"] == "warning" for p in facts["problems"])
    for words in ("no CID", "geometry", "newline", "not closed cleanly"):
        assert words in said


def test_the_list_is_bounded() -> None:
    report = Report()
    for n in range(300):
        report.add(f"kind {n % 3}", offset=n)
        report.add(f"kind {n % 3}", offset=n)
    listed = report.listed()
    assert len(listed) == 3 * 20 + 3 and "80 more of: kind 0" in [p["message"] for p in listed]
    for n in range(300):
        report.add(f"other {n}")
    assert len(report.listed()) == MAX_PROBLEMS and report.full


def test_a_file_of_which_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(VmdkError):
        look(tmp_path, b"K" * 1000)


def test_a_directory_of_one_table_does_not_take_long(tmp_path: Path) -> None:
    """100,000 entries that lead to one table: bounded, and refused."""
    sectors = 100_000 * 512 * 8
    text = builder.descriptor("monolithicSparse", f'RW {sectors} SPARSE "disk.vmdk"\n')
    data = bytearray(1 << 20)
    data[:512] = builder.HEADER.pack(b"KDMV", 1, 1, sectors, 8, 1, 10, 512, 0, 16, 1024, 0, b"\n \r\n", 0)
    data[512 : 512 + len(text)] = text
    data[16 * 512 : 16 * 512 + 400_000] = (900).to_bytes(4, "little") * 100_000
    data[900 * 512 : 900 * 512 + 2048] = (1030).to_bytes(4, "little") * 512
    facts = look(tmp_path, data)
    assert errors(facts)
