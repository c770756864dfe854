# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of migrations as rows, as a table and as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils import status_table
from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import cells


def disk(label: str = "Hard disk 1", **facts: Any) -> dict[str, Any]:
    base = {"label": label, "state": "running", "phase": "copy", "cycles": 2, "bytes_done": 5 << 20, "bytes_total": 10 << 20, "rate": 3e6}
    return {**base, "seconds_left": 90.0, "error": "", "next_command": "", **facts}


def migration(name: str = "db01", *disks: dict[str, Any], state: str = "running") -> dict[str, Any]:
    return {"vm": name, "source": "u", "state": state, "disks": list(disks or [disk()])}


def said(host: str = "conv1", *rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"item": host, "migrations": list(rows or [migration()]), "tasks": [], "problems": [], **more}


def table(*results: dict[str, Any]) -> str:
    return status_table.render(status_table.gathered(list(results)))


def test_a_row_for_each_disk_and_the_host_and_vm_once() -> None:
    lines = table(said("conv1", migration("db01", disk(), disk("Hard disk 2", rate=0, seconds_left=None))), said("conv2")).splitlines()
    assert lines[1] == "  Migrations · 2 VMs: 2 running"
    assert " ".join(lines[5].split()) == "conv1 db01 Hard disk 1 running copy 2 5.0 MiB 10.0 MiB 50 % 3.0 MB/s 00:01:30"
    assert " ".join(lines[6].split()) == "Hard disk 2 running copy 2 5.0 MiB 10.0 MiB 50 % – –"
    assert lines[7].startswith("  conv2  db01")


def test_columns_are_in_line_whatever_the_names() -> None:
    names = ["受注データベース", "<b>db</b>", "a\nb\x1b[31m", "x" * 200, "e\u0301"]
    lines = table(said("conv1", *(migration(n) for n in names))).splitlines()[3:]
    states = {cells(line[: line.index("running")]) for line in lines if "running" in line}
    assert len(states) == 1 and not any("\x1b" in line for line in lines)


def test_what_needs_somebody_is_below() -> None:
    text = table(
        said(
            "conv1",
            migration("db01", disk(state="failed", error="It broke.", next_command="mend it"), state="failed"),
            migration("db02", disk(state="interrupted", next_command="again"), state="interrupted"),
            problems=[{"path": "/l/x.sqlite", "code": "ledger", "what": "It is damaged.", "next_command": "move it"}],
        ),
        {"item": "conv2", "unreachable": True, "msg": "no route"},
        {"item": "conv3", "failed": True, "msg": "no Python"},
    )
    for line in (
        "db01, Hard disk 1 (conv1): It broke.\n    next: mend it",
        "db02, Hard disk 1 (conv1): its process is gone (killed, or the machine restarted)\n    next: again",
        "conv1, /l/x.sqlite: It is damaged.\n    next: move it",
        "conv2: The host did not answer: no route",
        "conv3: The host did not answer: no Python",
    ):
        assert f"\n  {line}" in text
    assert "1 failed, 1 interrupted" in text


def test_nothing_at_all() -> None:
    assert table({"item": "localhost"}).strip() == "Migrations · 0 VMs"


def test_tasks_without_a_ledger() -> None:
    task = {"name": "ds1", "label": "ds1", "state": "running", "phase": "move", "unit": "VMs", "done": 3, "total": 4, "seconds_left": None}
    text = table(said("conv1", migration(), tasks=[task, {**task, "unit": "bytes", "done": 1 << 20, "total": 1 << 21}]))
    assert "75 %" in text and "50 %" in text and "1.0 MiB" in text


def test_json_has_all_rows_with_their_host() -> None:
    found = status_table.gathered([said("conv1"), said("conv2", migration("受注"))])
    data = json.loads(status_table.as_json(found, "2026-11-21T00:00:00+00:00"))
    assert data["version"] == status_table.VERSION and [(m["host"], m["vm"]) for m in data["migrations"]] == [
        ("conv1", "db01"),
        ("conv2", "受注"),
    ]


@pytest.mark.parametrize("results", [["x"], [None], [[]]])
def test_what_is_no_result(results: list[Any]) -> None:
    with pytest.raises(ValueError, match="migration_status"):
        status_table.gathered(results)
