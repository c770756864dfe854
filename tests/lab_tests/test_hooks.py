# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The user's hooks of a whole migration and of its wave, from a vCenter of the tests' own to the lab's OpenStack."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from .undo_site import UndoSite, undo_site

GOOD, BAD = "good 在庫", "bad"
MOMENTS = [f"{side}_{phase}" for phase in ("prepare", "copy", "land", "ready") for side in ("before", "after")]


def note(line: str) -> dict[str, Any]:
    return {"name": "Write down who called", "ansible.builtin.command": {"argv": ["sh", "-c", 'echo "$0" >> "$1"', line, "{{ hook_log }}"]}}


NOTE = [note("{{ [inventory_hostname, ferry_hook, ferry_hook_vm.power, ferry_hook_vm.server.name | default('')] | to_json }}")]
#: Fails once at one VM: when it has been mended, the flag is there.
FRAGILE = [
    *NOTE,
    {
        "name": "Register it in monitoring",
        "ansible.builtin.fail": {"msg": "503 Service Unavailable"},
        "when": [f"inventory_hostname == '{BAD}'", "not mended | default(false)"],
    },
]
BEFORE = [note("{{ ['wave', ferry_hook, ferry_wave_hosts | length, ferry_hook_phases] | to_json }}")]
AFTER = [
    note(
        "{{ ['wave', ferry_hook, dict(ferry_wave_results | map(attribute='name') | zip(ferry_wave_results | map(attribute='state')))] | to_json }}"
    )
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UndoSite]:
    with undo_site(tmp_path_factory.mktemp("hooks"), (GOOD, BAD), "8b07") as made:
        for name, tasks in {"note": NOTE, "fragile": FRAGILE, "before": BEFORE, "after": AFTER}.items():
            (made.folder / f"{name}.yml").write_text(yaml.safe_dump(tasks, allow_unicode=True), encoding="utf-8")
        (made.folder / "refuses.yml").write_text("- name: Ask for the change ticket\n  ansible.builtin.fail: {msg: not approved}\n")
        yield made


def migrate(site: UndoSite, *vms: str, arguments: tuple[str, ...] = (), **variables: Any) -> Any:
    common = {
        "hook_log": str(site.folder / "log"),
        "ansible_python_interpreter": sys.executable,
        "ferry_hooks": dict.fromkeys(MOMENTS, "note.yml") | {"after_land": "fragile.yml"},
        "ferry_wave_hooks": {"before": "before.yml", "after": "after.yml"},
    }
    return site.play("migrate", *vms, arguments=arguments, **{**common, **variables})


def called(site: UndoSite) -> list[list[Any]]:
    log = site.folder / "log"
    found = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    return found


def test_a_wave_with_what_is_missing_does_not_begin(site: UndoSite) -> None:
    """Each VM's own hooks count: one file that is not there stops all of them, before a volume is made or a hook has run."""
    run = migrate(
        site,
        GOOD,
        BAD,
        ferry_hooks="{{ {'before_copy': 'note.yml', 'after_land': inventory_hostname ~ '.yml'} }}",
        ferry_wave_hooks={"before": "before.yml", "during": "x"},
    )
    flat = " ".join(run.out.split())
    assert run.code != 0 and "Nothing was touched." in flat, run.out[-3000:]
    for vm in (GOOD, BAD):
        assert f"after_land: there is no file {vm}.yml" in flat
        assert site.volumes(vm) == {} and site.look(vm)["power"] == "poweredOn"
    assert "wave during is no hook of a wave; there are before and after" in flat
    assert called(site) == []


def test_the_hook_before_the_wave_can_refuse_it(site: UndoSite) -> None:
    run = migrate(site, GOOD, BAD, ferry_wave_hooks={"before": "refuses.yml"})
    flat = " ".join(run.out.split())
    assert run.code != 0 and 'failed in its task "Ask for the change ticket": not approved. No VM was touched.' in flat, run.out[-3000:]
    assert called(site) == [] and all(site.volumes(vm) == {} and site.look(vm)["power"] == "poweredOn" for vm in (GOOD, BAD))


@pytest.mark.long
@pytest.mark.fault(
    "a hook after the landing fails at one VM", where="target", ends="that VM alone fails; the next run calls it again and goes on"
)
def test_all_moments_in_order_and_one_that_fails(site: UndoSite) -> None:
    run = migrate(site, GOOD, BAD)
    assert run.code != 0, run.out[-3000:]
    lines = called(site)
    good = [line[1:] for line in lines if line[0] == GOOD]
    off = ["after_copy", "before_land", "after_land", "before_ready", "after_ready"]
    assert [line[0] for line in good] == MOMENTS
    assert [line[0] for line in good if line[1] == "off"] == off
    assert [line[0] for line in good if line[2] == GOOD] == ["after_land", "before_ready", "after_ready"], "the server is known then"
    assert [line[1] for line in lines if line[0] == BAD] == MOMENTS[: MOMENTS.index("after_land") + 1]
    waves = [line[1:] for line in lines if line[0] == "wave"]
    assert waves == [["before", 2, ["precopy", "cutover"]], ["after", {GOOD: "migrated", BAD: "failed"}]]
    assert lines[0][0] == lines[-1][0] == "wave"
    flat = " ".join(run.out.split())
    assert f'The hook after_land of {BAD} (fragile.yml) failed in its task "Register it in monitoring": 503 Service Unavailable.' in flat
    assert run.result(BAD)["state"] == "failed" and "after_land" in run.result(BAD)["errors"][0]["text"]
    assert site.state(GOOD) == "migrated" and site.state(BAD) != "migrated"
    # Mended: its own hooks run again from where the run has something to do, the finished VM's do not.
    again = migrate(site, GOOD, BAD, mended=True)
    assert again.code == 0, again.out[-3000:]
    lines = called(site)
    assert [line[1] for line in lines if line[0] == BAD] == [m for m in MOMENTS if m != "before_copy"]
    assert [line for line in lines if line[0] == GOOD] == []
    assert site.state(BAD) == "migrated"
    site.assert_equal(BAD)
    third = migrate(site, GOOD, BAD, mended=True, ferry_wave_hooks={})
    assert third.code == 0 and set(third.changed.values()) == {0} and called(site) == [], third.out[-3000:]


@pytest.mark.long
def test_a_hook_after_the_wave_that_fails_is_told_at_the_end(site: UndoSite) -> None:
    run = migrate(site, GOOD, BAD, ferry_wave_hooks={"after": "refuses.yml"})
    flat = " ".join(run.out.split())
    assert run.code != 0 and "The VMs are as the report says." in flat, run.out[-3000:]
    assert {vm["state"] for vm in run.report["vms"]} == {"unchanged"}
    planned = migrate(site, GOOD, BAD, arguments=("--check",))
    assert planned.code == 0 and called(site) == [], planned.out[-3000:]
