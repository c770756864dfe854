# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vcd_datastore_evacuate as Ansible runs it: a process with its arguments on stdin, against a server over TLS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..module_utils.vcloud.conftest import PASSWORD, VCLOUD, Answer, Asked, FakeVcd, sample, vcd, vcd_authority, vcd_params
from .test_vcd_modules import HREF, page

__all__ = ["vcd", "vcd_authority", "vcd_params"]


def run_module(top: Path, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """What the module answers. C(failed) is a list where nothing else went wrong."""
    given = {"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check, "_ansible_remote_tmp": "/tmp"}}
    command = [sys.executable, "-m", "ansible_collections.ferry.vmware.plugins.modules.vcd_datastore_evacuate"]
    env = {**os.environ, "PYTHONPATH": str(top.parents[2])}
    done = subprocess.run(command, input=json.dumps(given), env=env, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == int(result["failed"] is True), done.stderr
    return result


def stores() -> bytes:
    """The datastore gold-02 of the sample, and gold-01 beside it."""
    text = sample("datastore_modern").decode()
    start, end = text.index("<DatastoreRecord"), text.index("/>", text.index("<DatastoreRecord")) + 2
    other = text[start:end].replace("gold-02", "gold-01").replace("datastore-42", "datastore-41").replace("2222bbbb", "2222cccc")
    return (text[:end] + other + text[end:]).replace('total="1"', 'total="2"').encode()


@pytest.fixture
def served(vcd: FakeVcd) -> FakeVcd:
    """One VM on gold-01; gold-02 is empty."""

    def answer(asked: Asked) -> Answer:
        if "type=adminVM&" in asked.path:
            return Answer(200, page(sample("adminVM_1.5"), 1))
        if "type=datastore" in asked.path:
            return Answer(200, stores())
        return Answer(200, f'<QueryResultRecords xmlns="{VCLOUD}" total="0"/>'.encode())

    vcd.handlers["GET /api/query"] = answer
    vcd.handlers["GET /api/vApp/vm-1111aaaa-0000-4000-8000-000000000001"] = lambda a: Answer(200, sample("vm"))
    return vcd


def test_the_plan(top: Path, tmp_path: Path, served: FakeVcd, vcd_params: dict[str, Any]) -> None:
    journal = tmp_path / "journal"
    options = {"datastore": "datastore-41", "targets": ["gold-02"], "journal": str(journal)}
    result = run_module(top, check=True, **vcd_params, **options)
    assert (result["changed"], result["empty"], result["moved"], result["failed"], result["failures"]) == (True, False, [], [], [])
    assert [(row["vm"], row["href"], row["from"], row["to"], row["wave"]) for row in result["plan"]] == [
        ("db01", HREF, "gold-01", "gold-02", 0)
    ]
    assert result["datastore"]["name"] == "gold-01"
    assert [t["name"] for t in result["targets"]] == ["gold-02"]
    assert result["journal"] == str(journal)
    assert not journal.exists()
    assert PASSWORD not in json.dumps(result)
    assert not [a for a in served.asked if a.method == "POST" and "/vApp/" in a.path]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"targets": ["gold-01"]}, "target_is_source"),
        ({"targets": ["gold-03"]}, "bad_input"),
        ({"window": {"end": "2026-01-01T00:00"}}, "window_past"),
        ({"canary": ["web01"]}, "bad_input"),
        ({"max_per_target": 0}, "bad_input"),
    ],
)
def test_bad_input(top: Path, tmp_path: Path, served: FakeVcd, vcd_params: dict[str, Any], options: dict[str, Any], code: str) -> None:
    given = {"datastore": "gold-01", "targets": ["gold-02"], "journal": str(tmp_path / "journal"), **options}
    result = run_module(top, **vcd_params, **given)
    assert result["failed"] is True
    assert result["failure"]["code"] == code
    assert not [a for a in served.asked if a.method == "POST" and "/vApp/" in a.path]


def test_a_window_has_one_end(top: Path, vcd_params: dict[str, Any]) -> None:
    given = {"datastore": "gold-01", "targets": ["gold-02"], "window": {"end": "05:00", "duration": "4h"}}
    assert "mutually exclusive" in run_module(top, **vcd_params, **given)["msg"]
