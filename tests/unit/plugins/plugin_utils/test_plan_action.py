# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action migration_plan as ansible-playbook runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .plan_rows import entry, facts

pytestmark = pytest.mark.slow

TOP = Path(__file__).resolve().parents[4]


def play(tmp_path: Path, *tasks: dict[str, Any], arguments: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """One task each with these options, on localhost, one after the other; what each returned, and in C(out) what was shown."""
    vm = facts(1)
    args = {"hosts": ["vm0001"], "facts": [vm], "entries": [entry(vm)], "terms": [{"strategy": "cold"}]}
    rows: list[dict[str, Any]] = []
    for n, options in enumerate(tasks):
        given = {k: v for k, v in {**args, **options}.items() if v is not None}
        rows.append({"name": f"task {n}", "ferry.vmware.migration_plan": given, "register": f"result_{n}", "ignore_errors": True})
    found = ", ".join(f"result_{n}" for n in range(len(tasks)))
    keep = {"content": "{{ [" + found + "] | to_json }}", "dest": str(tmp_path / "results.json")}
    rows.append({"ansible.builtin.copy": keep, "check_mode": False})
    book = tmp_path / "book.yml"
    book.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": rows}], allow_unicode=True))
    inventory = tmp_path / "hosts.yml"
    if not inventory.exists():
        host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory.write_text(yaml.safe_dump({"all": {"hosts": {"localhost": host}}}))
    env = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")}
    env |= {"ANSIBLE_COLLECTIONS_PATH": str(TOP.parents[2]), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false"}
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), str(book), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    out = done.stdout + done.stderr
    assert done.returncode == 0 and "Traceback" not in out, out
    shown = re.split(r"TASK \[.*", out)[1:]
    results: list[dict[str, Any]] = json.loads((tmp_path / "results.json").read_text())
    return [{**result, "out": text} for result, text in zip(results, shown, strict=False)]


def test_it_is_shown_and_written_also_in_check_mode(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done, unwritten = play(
        tmp_path,
        {"html": str(tmp_path / "a" / "plan.html"), "json": str(tmp_path / "plan.json")},
        {"json": str(tmp_path / "file" / "plan.json")},
        arguments=("--check", "-f", "7"),
    )
    assert not done["changed"] and "vm0001" in done["out"] and "1 VM, 1 ready" in done["out"]
    assert json.loads((tmp_path / "plan.json").read_text())["forks"] == 7 == done["plan"]["forks"]
    assert "vm0001" in (tmp_path / "a" / "plan.html").read_text()
    assert not unwritten.get("failed") and "could not be written" in unwritten["warnings"][0] and "json" not in unwritten


def test_a_wave_is_held_to_its_plan(tmp_path: Path) -> None:
    saved = str(tmp_path / "plan.json")
    warm = [{"strategy": "warm"}]
    _made, same, stopped, warned = play(
        tmp_path,
        {"json": saved},
        {"hold_to": saved},
        {"hold_to": saved, "terms": warm},
        {"hold_to": saved, "terms": warm, "on_drift": "warn"},
    )
    assert not same.get("failed") and same["drift"] == []
    assert stopped["failed"] and "the strategy was cold, it is warm" in stopped["msg"] and "≠" in stopped["out"]
    assert not warned.get("failed") and len(warned["drift"]) > 0 and "differs from the plan" in warned["warnings"][0]
    os.utime(tmp_path / "hosts.yml", (4e9, 4e9))
    stopped, warned = play(tmp_path, {"hold_to": saved}, {"hold_to": saved, "on_drift": "warn"})
    assert stopped["failed"] and stopped["failure"]["code"] == "plan_old" and "older than the inventory" in stopped["msg"]
    assert not warned.get("failed") and "was changed after the plan was made" in warned["warnings"][0]


def test_bad_input(tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"facts": None}, "facts"),
        ({"facts": []}, "one entry per VM"),
        ({"entries": ["x"]}, "list of dictionaries"),
        ({"machines": [1]}, "machines must be a dictionary"),
        ({"forks": "many"}, "forks"),
        ({"terms": [{"throughput": "fast"}]}, "throughput"),
        ({"on_drift": "ignore"}, "on_drift"),
        ({"language": "fr", "html": str(tmp_path / "plan.html")}, "language"),
        ({"hold_to": "absent.json"}, "cannot be read"),
    ]
    for (_options, words), result in zip(wrong, play(tmp_path, *(options for options, _words in wrong)), strict=True):
        assert result["failed"] and words in result["msg"], result
