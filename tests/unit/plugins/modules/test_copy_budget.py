# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module copy_budget: stored once, said in check mode, mended when the file was altered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.budget import Budget
from ansible_collections.ferry.vmware.plugins.module_utils.edge import Call
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.modules.copy_budget import work


def call(folder: Path, *, check: bool = False, **params: Any) -> dict[str, Any]:
    whole = {"state": "present", "ledger": str(folder), "overall": None, "hosts": {}, "datastores": {}, **params}
    return work(Call(whole, check=check, diff=True))


def test_once_and_as_said(tmp_path: Path) -> None:
    wanted = {"overall": {"rate": 100.0, "disks": None, "windows": None}, "hosts": {"ESX1": {"disks": "2"}}}
    path = tmp_path / "budget.json"
    planned = call(tmp_path, check=True, **wanted)
    assert planned["changed"]
    assert not path.exists()
    done = call(tmp_path, **wanted)
    assert done == planned
    assert done["budget"] == {"overall": {"rate": 100.0}, "hosts": {"esx1": {"disks": 2}}, "datastores": {}}
    assert done["diff"]["before"] == {}
    again = call(tmp_path, **wanted)
    assert not again["changed"]
    assert again["diff"]["before"] == again["diff"]["after"]
    assert dict(Budget(str(tmp_path)).settings().scopes("esx1", None))[("host", "esx1")].disks == 2
    path.write_text("{")
    assert call(tmp_path, check=True, **wanted)["changed"]
    assert call(tmp_path, **wanted)["changed"]
    assert not call(tmp_path, **wanted)["changed"]


def test_absent(tmp_path: Path) -> None:
    assert not call(tmp_path, state="absent")["changed"]
    call(tmp_path, overall={"rate": 1})
    assert call(tmp_path, check=True, state="absent")["changed"]
    assert (tmp_path / "budget.json").exists()
    assert call(tmp_path, state="absent")["changed"]
    assert not (tmp_path / "budget.json").exists()
    assert not call(tmp_path, state="absent")["changed"]


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for wrong in ({"hosts": {"a": {"speed": 1}}}, {"datastores": {"a": {"rate": "fast"}}}):
        for check in (True, False):
            with pytest.raises(BadInput):
                call(tmp_path, check=check, **wrong)
    assert list(tmp_path.iterdir()) == []
