# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.areas import AreasFile
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import area_query, client
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.area_query import MOST_SHOWN, Query
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.snapshots import Snapshot

from .conftest import FakeVcenter
from .test_changes import CAPACITY, ID, areas_of, disk, part, vm_of

FIRST, SECOND = disk(), disk(key=2016, label="Hard disk 2", address="scsi1:0", bus=1)
SNAPSHOT = Snapshot("snapshot-1", "s", False)


def ask(vcenter: FakeVcenter, params: Mapping[str, Any], count: int, path: Path | None = None) -> dict[str, Any]:
    """The result for a disk with so many areas, which come 2,000 at a time."""
    areas = areas_of(count)

    def handler(body: str) -> Any:
        found = re.search(r"<startOffset[^>]*>(\d+)<", body)
        assert found
        at = int(found.group(1))
        now = [a for a in areas if a[0] >= at]
        end = sum(now[1999]) if len(now) > 2000 else CAPACITY * 8
        return part(at, end - at, *now[:2000])

    vcenter.handlers["QueryChangedDiskAreas"] = handler
    wanted = disk(capacity=CAPACITY * 8)
    with client.connect(params) as session:
        if path is None:
            return area_query._one(session, vm_of(session), SNAPSHOT, wanted, "*", Query(), None)
        with AreasFile(str(path), "extentlist") as file:
            row = area_query._one(session, vm_of(session), SNAPSHOT, wanted, "*", Query(), file)
            file.replace()
            return row


@pytest.mark.parametrize(("count", "shown"), [(0, True), (MOST_SHOWN, True), (MOST_SHOWN + 1, False)])
def test_too_many_areas_are_not_in_the_result(
    vcenter: FakeVcenter, params: dict[str, Any], tmp_path: Path, count: int, shown: bool
) -> None:
    row = ask(vcenter, params, count)
    assert (row["area_count"], row["changed_bytes"], row["change_id"]) == (count, count * 65536, ID + "7")
    assert ("areas" in row) is shown
    assert len(row.get("areas", [])) == (count if shown else 0)
    row = ask(vcenter, params, count, tmp_path / "list")
    assert row["dest"] == str(tmp_path / "list")
    assert (tmp_path / "list").read_text() == "".join(f"{s} {n}\n" for s, n in areas_of(count))


@pytest.mark.parametrize(
    ("dest", "several", "name"),
    [
        ("/x/areas.jsonl", False, "/x/areas.jsonl"),
        ("/x/areas.jsonl", True, "/x/areas-2000.jsonl"),
        ("/x.y/areas", True, "/x.y/areas-2000"),
        ("/x/在庫.1.list", True, "/x/在庫.1-2000.list"),
    ],
)
def test_names_of_files(dest: str, several: bool, name: str) -> None:
    assert area_query.dest_of(dest, FIRST, several) == name


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), [(2000, "*"), (2016, "*")]),
        (Query(disk="Hard disk 2"), [(2016, "*")]),
        (Query(disk="scsi0:0", change_id=ID + "1"), [(2000, ID + "1")]),
        (Query(change_id={"2016": ID + "1"}), [(2016, ID + "1")]),
        (Query(change_id={"2016": ID + "1", "Hard disk 1": "*"}), [(2016, ID + "1"), (2000, "*")]),
        (Query(start=CAPACITY - 1), [(2000, "*"), (2016, "*")]),
    ],
)
def test_disks_and_their_change_ids(query: Query, found: list[tuple[int, str]]) -> None:
    assert [(d.key, change_id) for d, change_id in area_query.choose([FIRST, SECOND], query, "db01")] == found


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Query(change_id=ID + "1"), "belongs to one disk"),
        (Query(disk="2000", change_id={"2000": ID + "1"}), "not both"),
        (Query(change_id={"2000": "*", "scsi0:0": "*"}), "named twice"),
        (Query(disk="2000", change_id="yesterday"), "no changeId"),
        (Query(disk="Hard disk 9"), "No disk answers"),
        (Query(start=CAPACITY), "outside the disk"),
        (Query(start=-1), "outside the disk"),
        (Query(change_id={}), "no disk"),
    ],
)
def test_questions_that_make_no_sense(query: Query, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        area_query.choose([FIRST, SECOND], query, "db01")
