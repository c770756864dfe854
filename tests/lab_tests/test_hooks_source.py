# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The user's hooks around precopy, cutover and rollback to given targets, as a user runs these playbooks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from .vcenter_lab import running
from .warm_site import Run, WarmSite, write_model

NAMES = ("hooked 在庫", "stopped")
SECRET = "correct horse battery"

NOTE = [
    {
        "name": "Write down who called",
        "ansible.builtin.command": {"argv": ["sh", "-c", 'echo "$0" >> "$1"', "{{ line | to_json }}", "{{ hook_log }}"]},
        "vars": {
            "line": {
                "hook": "{{ ferry_hook }}",
                "phase": "{{ ferry_hook_phase }}",
                "host": "{{ inventory_hostname }}",
                "vm": "{{ ferry_hook_vm.name }}",
                "moref": "{{ ferry_hook_vm.moref }}",
                "power": "{{ ferry_hook_vm.power }}",
            }
        },
    },
    {"name": "One file more beside it", "ansible.builtin.include_tasks": "more/nothing.yml"},
]
FAILS = [
    *NOTE,
    {"name": "Ask the application", "ansible.builtin.fail": {"msg": "the queue is not empty."}, "when": "inventory_hostname == 'stopped'"},
]
SILENT = [{"name": "Log in", "ansible.builtin.command": {"argv": ["sh", "-c", f"echo {SECRET}; exit 1"]}, "no_log": True}]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmSite]:
    folder = tmp_path_factory.mktemp("hooks")
    for name, tasks in {"note.yml": NOTE, "fails.yml": FAILS, "silent.yml": SILENT}.items():
        (folder / name).write_text(yaml.safe_dump(tasks))
    (folder / "more").mkdir()
    (folder / "more" / "nothing.yml").write_text("- ansible.builtin.debug: {msg: 'beside it'}\n")
    with running(folder, write_model(folder, NAMES)) as vcenter:
        yield WarmSite(folder, vcenter)


def play(site: WarmSite, playbook: str, *vms: str, arguments: tuple[str, ...] = (), **variables: Any) -> Run:
    common = {"hook_log": str(site.folder / "log"), "ansible_python_interpreter": sys.executable}
    command = site.command(playbook, *vms, arguments=arguments, **common, **variables)
    done = subprocess.run(command, env=site.environment(), capture_output=True, text=True, timeout=300, check=False)
    print(done.stdout, done.stderr)
    return Run(done.returncode, done.stdout + done.stderr, {})


def called(site: WarmSite) -> list[dict[str, str]]:
    """What the hooks have written since the last look."""
    log = site.folder / "log"
    found = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    return found


def moments(site: WarmSite) -> list[tuple[str, str, str]]:
    return [(line["vm"], line["hook"], line["power"]) for line in called(site)]


def hooks(*names: str, file: str = "note.yml", **more: Any) -> dict[str, Any]:
    return dict.fromkeys(names, file) | more


def test_each_moment_is_called_with_the_vm_as_it_is_then(site: WarmSite) -> None:
    vm = NAMES[0]
    every = hooks("before_precopy", "after_precopy", "before_cutover", "after_cutover", "before_rollback", "after_rollback")
    # An absolute path, one beside the inventory, and one that this host has switched off.
    wanted = every | {"before_precopy": str(site.folder / "note.yml"), "after_ready": None}
    run = play(site, "precopy", vm, ferry_hooks=wanted)
    assert run.code == 0, run.out[-5000:]
    lines = called(site)
    assert [(line["hook"], line["phase"], line["host"], line["vm"]) for line in lines] == [
        ("before_precopy", "precopy", vm, vm),
        ("after_precopy", "precopy", vm, vm),
    ]
    assert all(line["moref"].startswith("vm-") and line["power"] == "on" for line in lines)
    planned = play(site, "cutover", vm, arguments=("--check",), ferry_hooks=wanted)
    assert planned.code == 0 and called(site) == [], planned.out[-5000:]
    run = play(site, "cutover", vm, ferry_hooks=wanted)
    assert run.code == 0, run.out[-5000:]
    assert moments(site) == [
        (vm, "before_precopy", "on"),
        (vm, "after_precopy", "on"),
        (vm, "before_cutover", "on"),
        (vm, "after_cutover", "off"),
    ]
    run = play(site, "rollback", vm, ferry_hooks=wanted)
    assert run.code == 0, run.out[-5000:]
    assert moments(site) == [(vm, "before_rollback", "off"), (vm, "after_rollback", "on")]


@pytest.mark.long
@pytest.mark.fault("a hook of the user's fails", where="controller", ends="its VM stops there and is as it was; the others go on")
def test_one_that_fails_stops_its_vm_alone_and_runs_again(site: WarmSite) -> None:
    wanted = hooks("before_cutover", "after_cutover", file="fails.yml")
    first = play(site, "precopy", *NAMES)
    assert first.code == 0, first.out[-5000:]
    run = play(site, "cutover", *NAMES, ferry_hooks=wanted)
    assert run.code != 0
    seen = moments(site)
    assert [m for m in seen if m[0] == NAMES[0]] == [(NAMES[0], "before_cutover", "on"), (NAMES[0], "after_cutover", "off")]
    assert [m for m in seen if m[0] == "stopped"] == [("stopped", "before_cutover", "on")]
    assert site.running("stopped") and not site.running(NAMES[0])
    flat = " ".join(run.out.split())
    assert "The hook before_cutover of stopped (fails.yml) failed" in flat and "Ask the application" in flat, run.out[-3000:]
    assert "the queue is not empty. What was done before it stays." in flat, run.out[-3000:]
    again = play(site, "cutover", "stopped", ferry_hooks=hooks("before_cutover"))
    assert again.code == 0 and moments(site) == [("stopped", "before_cutover", "on")], again.out[-3000:]
    assert not site.running("stopped")
    back = play(site, "rollback", *NAMES)
    assert back.code == 0, back.out[-3000:]


def test_what_is_wrong_is_said_at_once_and_nothing_has_begun(site: WarmSite) -> None:
    wanted = hooks(
        "before_precopy", before_verify="note.yml", after_cutover="nowhere/on_earth.yml", after_land=["a.yml"], before_land="/no/such.yml"
    )
    for playbook in ("precopy", "rollback"):
        run = play(site, playbook, "stopped", ferry_hooks=wanted)
        assert run.code != 0 and called(site) == []
        flat = " ".join(run.out.split())
        assert "Nothing was touched." in flat and "before_verify is no hook; there are before_prepare, before_precopy" in flat, run.out[
            -3000:
        ]
        assert f"after_cutover: there is no file nowhere/on_earth.yml in {site.folder}" in flat, run.out[-3000:]
        assert "after_land: a hook is the path of one file of tasks" in flat and "before_land: there is no file /no/such.yml." in flat
    assert site.running("stopped") and site.snapshots("stopped") == []


def test_what_a_hook_hides_is_not_shown(site: WarmSite) -> None:
    run = play(site, "precopy", "stopped", ferry_hooks=hooks("before_precopy", file="silent.yml"))
    flat = " ".join(run.out.split())
    assert run.code != 0 and "The hook before_precopy of stopped (silent.yml) failed" in flat and "is not shown (no_log)" in flat, run.out[
        -3000:
    ]
    assert SECRET not in run.out
