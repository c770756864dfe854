# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The doctor's pilot: one VM through everything but the cutover, on the lab's OpenStack, and nothing is left of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from .undo_site import UndoSite, no_other_rehearsals, undo_site

PILOT, OTHER = "pilot 在庫", "other"
LOOK = [{"ansible.builtin.assert": {"that": ["rehearse_server.status == 'ACTIVE'", "rehearse_server.volumes | length == 2"]}}]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UndoSite]:
    with undo_site(tmp_path_factory.mktemp("pilot"), (PILOT, OTHER), "8c09") as made:
        (made.folder / "look.yml").write_text(yaml.safe_dump(LOOK))
        (made.folder / "fails.yml").write_text(yaml.safe_dump([{"ansible.builtin.fail": {"msg": "no answer on port 5432"}}]))
        yield made


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with no_other_rehearsals():
        yield


def doctor(site: UndoSite, tasks: str, **more: Any) -> tuple[Any, dict[str, Any]]:
    plain = site.folder / "doctor.json"
    plain.unlink(missing_ok=True)
    run = site.play(
        "doctor",
        PILOT,
        OTHER,
        arguments=("-e", json.dumps({"pilot": PILOT, "doctor_bytes": 1 << 20})),
        ferry_rehearse_assertions=tasks,
        ferry_doctor_html=str(site.folder / "doctor.html"),
        ferry_doctor_json=str(plain),
        **more,
    )
    return run, json.loads(plain.read_text(encoding="utf-8")) if plain.exists() else {}


@pytest.mark.long
def test_it_is_copied_compared_and_booted_and_all_is_as_before(site: UndoSite) -> None:
    before = {vm: (site.look(vm), site.state(vm)) for vm in (PILOT, OTHER)}
    run, found = doctor(site, "look.yml")
    assert run.code == 0, run.out[-5000:]
    pilot = found["pilot"]
    assert (pilot["name"], pilot["passed"], pilot["said"]) == (PILOT, True, "")
    for disk in pilot["disks"]:
        assert disk["verified"] == "full" and disk["repaired"] == 0 and disk["bytes_verified"] >= disk["capacity"], disk
    assert "it passed" in " ".join(run.out.split()) and PILOT in (site.folder / "doctor.html").read_text(encoding="utf-8")
    # It ran on, and nothing of it but the snapshot was touched: no tracking, no attribute, no note.
    assert {vm: (site.look(vm), site.state(vm)) for vm in (PILOT, OTHER)} == before
    methods = set(site.vcenter.get("/stats")["methods"])
    assert {m for m in methods if m.endswith("_Task")} <= {"CreateSnapshot_Task", "CreateSnapshotEx_Task", "RemoveSnapshot_Task"}
    assert not methods & {"SetField", "AddCustomFieldDef", "ShutdownGuest"}
    assert site.volumes(PILOT) == {} and site.server(PILOT) is None and site.rehearsals() == []
    assert not list((site.folder / "ferry" / "ledgers").glob(f"{site.uuid(PILOT)}--*"))


@pytest.mark.long
@pytest.mark.fault("the doctor's pilot fails", where="target", ends="its copies are removed, the source is as before, the page says why")
def test_one_that_fails_leaves_nothing_and_is_told(site: UndoSite) -> None:
    before = site.look(PILOT)
    run, found = doctor(site, "fails.yml")
    assert run.code != 0 and found["pilot"]["passed"] is False and "no answer on port 5432" in found["pilot"]["said"], run.out[-3000:]
    assert site.volumes(PILOT) == {} and site.rehearsals() == [] and site.look(PILOT) == before


@pytest.mark.long
def test_a_vm_whose_migration_has_begun_is_refused(site: UndoSite) -> None:
    site.land(PILOT, state="copying", server=False)
    held = site.volumes(PILOT)
    run, found = doctor(site, "look.yml")
    assert run.code != 0 and "its migration has begun" in found["pilot"]["said"], run.out[-3000:]
    assert {v.id for v in site.volumes(PILOT).values()} == {v.id for v in held.values()} != set()
