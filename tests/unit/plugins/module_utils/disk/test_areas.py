# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import areas
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput

AREAS = [(0, 65536), (1 << 20, 512), (1 << 41, 65536)]


def put(path: Path, form: str, found: list[tuple[int, int]]) -> bool:
    with areas.AreasFile(str(path), form) as file:
        assert list(file.passing(found)) == found
        return file.replace()


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "領域.jsonl"
    assert put(path, "jsonl", AREAS) is True
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"start": s, "length": n} for s, n in AREAS]


def test_an_extent_list(tmp_path: Path) -> None:
    path = tmp_path / "list"
    put(path, "extentlist", AREAS)
    assert path.read_text() == "0 65536\n1048576 512\n2199023255552 65536\n"


def test_the_file_is_private_and_comes_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with areas.AreasFile(str(path), "jsonl") as file:
        for _area in file.passing(AREAS):
            assert path.read_text() == "old"
        assert file.replace() is True
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_the_same_areas_change_nothing_but_a_wrong_mode_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert put(path, "jsonl", AREAS) is True
    written = path.stat().st_ino
    assert put(path, "jsonl", AREAS) is False
    assert path.stat().st_ino == written
    path.chmod(0o644)
    assert put(path, "jsonl", AREAS) is True
    assert path.stat().st_mode & 0o777 == 0o600
    assert put(path, "jsonl", []) is True
    assert path.read_bytes() == b""


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    put(path, "jsonl", AREAS[:1])
    before = path.read_bytes()

    def broken() -> Iterator[tuple[int, int]]:
        yield AREAS[1]
        raise RuntimeError("the server is gone")

    def ask() -> None:
        with areas.AreasFile(str(path), "jsonl") as file:
            list(file.passing(broken()))

    with pytest.raises(RuntimeError, match="gone"):
        ask()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "a"
    link.symlink_to(tmp_path / "real" / "a")
    (tmp_path / "real" / "a").write_text("old")
    assert put(link, "extentlist", AREAS[:1]) is True
    assert link.is_symlink()
    assert (tmp_path / "real" / "a").read_text() == "0 65536\n"


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none" / "a", tmp_path / "pipe"):
        with pytest.raises(BadInput):
            areas.AreasFile(str(path), "jsonl")


@pytest.mark.parametrize(
    ("more", "equal"), [((), False), (("--destination-is-zero",), False), (("--destination-is-zero", "-S", "0"), True)]
)
def test_a_delta_copied_by_nbdcopy_as_the_guide_says(tmp_path: Path, more: tuple[str, ...], equal: bool) -> None:
    """Without both options nbdcopy zeroes what is not listed, or leaves what has become zeroes."""
    if shutil.which("nbdkit") is None or shutil.which("nbdcopy") is None:
        pytest.skip("nbdkit and nbdcopy are not installed")
    source = random.Random(3)
    old = bytearray(source.randbytes(4 << 20))
    new = bytearray(old)
    new[1 << 20 : (1 << 20) + 65536] = source.randbytes(65536)
    new[2 << 20 : (2 << 20) + 65536] = bytes(65536)
    (tmp_path / "new").write_bytes(new)
    (tmp_path / "target").write_bytes(old)
    put(tmp_path / "list", "extentlist", [(1 << 20, 65536), (2 << 20, 65536)])
    reading = ["[", "nbdkit", "-r", "--exit-with-parent", "--filter=extentlist", "file", "new", "extentlist=list", "]"]
    writing = ["[", "nbdkit", "--exit-with-parent", "file", "target", "]"]
    subprocess.run(["nbdcopy", *more, "--", *reading, *writing], cwd=tmp_path, check=True, timeout=60)
    assert ((tmp_path / "target").read_bytes() == new) is equal
