# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Relocation of one VM against the lab's server: done once, whatever happens on the way, and never where it should not be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, FerryError, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import find, move, relocate, situation, space, tasks

from .vcloud_env import Quick, control, fault, params, requests_of, switch, vm

RELOCATE = "POST /api/vApp/vm-ID/action/relocate"
COLLECTIONS = Path(__file__).resolve().parents[5]


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    """The lab as its model has it, with tasks of a tenth of a second."""
    control("POST", "/reset")
    switch(task_seconds=0.1)
    yield
    control("POST", "/reset")


@pytest.fixture
def session() -> Iterator[Quick]:
    with Quick() as found:
        yield found


def go(session: Quick, name: str, datastore: str, **more: Any) -> dict[str, Any]:
    check = more.pop("check", False)
    warnings: list[str] = []
    result = move.relocate_vm(session, situation.Wanted(vm=name, datastore=datastore, **more), check=check, warn=warnings.append)
    result["warnings"] = warnings
    return json.loads(json.dumps(result))


def refused(session: Quick, name: str, datastore: str, **more: Any) -> FerryError:
    with pytest.raises(FerryError) as caught:
        go(session, name, datastore, **more)
    return caught.value


@pytest.mark.parametrize("version", ["1.5", "5.1", "29.0", "33.0", "36.0", "38.1", "39.1"])
def test_there_and_back_and_again(version: str) -> None:
    with Quick(api_version=version) as session:
        first = go(session, "web02", "Production-2")
        assert (first["changed"], first["datastore"]) == (True, {"before": "Production-1", "after": "Production-2"})
        assert (first["task"]["status"], first["task"]["progress"]) == ("success", 100)
        assert first["diff"] == {"before": {"datastore": "Production-1"}, "after": {"datastore": "Production-2"}}
        assert vm("web02")["datastore"] == "Production-2"
        second = go(session, "web02", "Production-2")
        assert (second["changed"], second["task"]) == (False, None)
        assert go(session, "web02", "Production-1")["changed"]
    assert requests_of(RELOCATE) == 2


def test_above_38_1_the_request_is_made_at_38_1(session: Quick) -> None:
    assert (session.api_version, session.relocate_version) == ("39.1", "38.1")
    switch(versions=["37.0", "38.0", "39.0"])
    with Quick() as other:
        assert (other.api_version, other.relocate_version) == ("39.0", "38.0")
        assert go(other, "web02", "Production-2")["changed"]


def test_without_38_1_it_is_refused_and_the_other_ways_are_told() -> None:
    switch(versions=["39.0", "39.1"])
    with Quick() as session:
        e = refused(session, "web02", "Production-2")
        assert e.code == "relocate_gone"
        assert all(f"method={m}" in str(e.message) for m in ("profile", "tenant", "policy"))
        assert not go(session, "web02", "Production-1")["changed"]
    assert requests_of("POST /api/vApp") == 0


def test_vms_by_name_href_and_urn(session: Quick) -> None:
    e = refused(session, "db01", "Production-2")
    assert isinstance(e, BadInput)
    assert len(e.details["matches"]) == 3
    assert "東京-vdc" in str(e.details["matches"])
    assert "acme-dev" in e.message
    one = vm("db01", "erp", "acme-prod")
    for more in ({"vdc": "acme-prod"}, {"vapp": "erp", "vdc": "acme-prod", "org": "acme"}):
        assert go(session, "db01", "Production-2", check=True, **more)["vm"]["id"].endswith(one["id"])
    for wanted in (f"urn:vcloud:vm:{one['id']}", f"https://elsewhere.example/api/vApp/vm-{one['id']}", f"/api/vApp/vm-{one['id']}"):
        assert go(session, wanted, "Production-2", check=True)["vm"]["vdc"] == "acme-prod"
    assert refused(session, "db01", "Production-2", vapp="erp").details["matches"]
    assert go(session, one["id"], "Production-2", check=True)["vm"]["vdc"] == "acme-prod"
    assert refused(session, "nobody", "Production-2").code == "bad_input"
    assert refused(session, "urn:vcloud:vm:00000000-0000-4000-8000-000000000000", "Production-2").code == "bad_input"
    assert "no organization nowhere" in str(refused(session, "db01", "Production-2", org="nowhere"))
    odd = go(session, "shop(1), a;b", "Development-2")
    assert odd["changed"]


def test_the_vm_of_a_template(session: Quick) -> None:
    result = go(session, "centos-6", "Production-2", vapp="centos-6")
    assert result["vm"]["is_template"]
    assert vm("centos-6")["datastore"] == "Production-2"
    one = vm("centos-6")
    assert not go(session, f"urn:vcloud:vm:{one['id']}", "Production-2")["changed"]


def test_datastores_by_name_href_urn_and_moref(session: Quick) -> None:
    stores = find.list_datastores(session)
    target = next(d for d in stores if d.name == "Production-2")
    for wanted in (target.href, target.id, target.moref):
        assert go(session, "web02", wanted, check=True)["datastore"]["after"] == "Production-2"
    # two are called so; the one of the VM's vCenter is meant
    back = go(session, "帳票 01", "Production-1")
    assert back["datastore"] == {"before": "Production-2", "after": "Production-1"}
    assert vm("帳票 01")["vcenter"] == "vc1"
    with pytest.raises(BadInput) as e:
        find.find_datastore(session, "Production-1", stores=stores)
    assert len(e.value.details["matches"]) == 2
    assert refused(session, "web02", "production-2").message.endswith("Close: Production-2.")


@pytest.mark.parametrize(
    ("name", "target", "code"),
    [
        ("web02", "retired-1", "target_disabled"),
        ("web02", "removed-1", "target_deleted"),
        ("web02", "保管庫-1", "target_foreign"),
        ("帳票 01", "small-1", "target_full"),
    ],
)
def test_targets_that_are_refused(session: Quick, name: str, target: str, code: str) -> None:
    for check in (True, False):
        e = refused(session, name, target, check=check)
        assert e.code == code
        assert e.vm == name
        assert e.partial["changed"] is False
    assert requests_of("POST /api/vApp") == 0


def test_the_reserve(session: Quick) -> None:
    control("POST", "/datastore", name="Production-2", vcenter="vc1", free_mb=25000)
    e = refused(session, "web02", "Production-2", reserve_percent=50)
    assert (e.code, e.details["need_mb"], e.details["free_mb"]) == ("target_full", 20480, 25000)
    assert refused(session, "web02", "Production-2", reserve_percent=100.0).code == "bad_input"
    plan = go(session, "web02", "Production-2", check=True, reserve_percent=0.0)
    assert plan["plan"] == {
        "need_mb": 20480, "free_mb": 25000, "reserve_mb": 0, "fits": True, "overcommitted": True, "linked_clone": True,
    }  # fmt: skip
    assert "thin disk" in plan["warnings"][0]


def test_check_mode_changes_nothing(session: Quick) -> None:
    plan = go(session, "web02", "Production-2", check=True)
    assert (plan["changed"], plan["datastore"], plan["task"]) == (True, {"before": "Production-1", "after": "Production-2"}, None)
    assert plan["plan"]["need_mb"] == 20480
    assert vm("web02")["relocations"] == 0


def test_one_disk_elsewhere_is_not_there_yet(session: Quick) -> None:
    result = go(session, "two-disks", "Development-1")
    assert result["changed"]
    assert result["plan"]["need_mb"] == 50 * 1024
    assert set(vm("two-disks")["disks"]) == {"Development-1"}
    assert not go(session, "two-disks", "Development-1")["changed"]


def test_a_server_that_leaves_a_disk_behind(session: Quick) -> None:
    switch(move_other_disks=False)
    e = refused(session, "two-disks", "Production-2")
    assert e.code == "not_moved"
    assert "disks of it" in e.message


def test_independent_disks_stay(session: Quick) -> None:
    result = go(session, "db01", "Production-2", vdc="acme-prod")
    assert result["changed"]
    assert "independent disks" in result["warnings"][0]
    assert not go(session, "db01", "Production-2", vdc="acme-prod")["changed"]


def test_a_server_that_does_not_tell_of_disks() -> None:
    switch(disk_datastores=False)
    with Quick() as session:
        assert go(session, "web02", "Production-2")["changed"]
        assert not go(session, "web02", "Production-2")["changed"]


@pytest.mark.parametrize("kind", ["lost_answer", "drop", "cut"])
@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_lost_answer_moves_nothing_twice(session: Quick, kind: str, seconds: float) -> None:
    switch(task_seconds=seconds)
    fault(kind, match="action/relocate")
    result = go(session, "web02", "Production-2")
    assert result["changed"]
    assert result["datastore"]["after"] == "Production-2"
    assert vm("web02")["relocations"] == 1


def test_a_lost_answer_of_a_task_that_failed(session: Quick) -> None:
    switch(task_seconds=0.0)
    fault("task_fail", match="web02", at=0.0, status=500, minor="INTERNAL_SERVER_ERROR", message="The host went away.")
    fault("lost_answer", match="action/relocate")
    e = refused(session, "web02", "Production-2")
    assert e.code == "task"
    assert "The host went away" in str(e)
    assert vm("web02")["relocations"] == 1


def test_answers_that_stay_lost(session: Quick) -> None:
    fault("drop", match="action/relocate", times=0)
    e = refused(session, "web02", "Production-2")
    assert e.code == "lost_answer"
    assert e.left
    assert vm("web02")["relocations"] == 0


def test_one_under_way_is_joined(session: Quick) -> None:
    switch(task_seconds=1.0)
    first = go(session, "web02", "Production-2", wait=False)
    assert (first["changed"], first["datastore"]["after"], first["task"]["status"]) == (True, None, "running")
    plan = go(session, "web02", "Production-2", check=True)
    assert plan["task"]["href"] == first["task"]["href"]
    second = go(session, "web02", "Production-2")
    assert (second["joined"], second["task"]["href"]) == (True, first["task"]["href"])
    assert second["datastore"]["after"] == "Production-2"
    assert vm("web02")["relocations"] == 1


def test_one_under_way_to_elsewhere_is_waited_for_first(session: Quick) -> None:
    switch(task_seconds=0.5)
    go(session, "web02", "Development-1", wait=False)
    result = go(session, "web02", "Production-2")
    assert result["datastore"]["after"] == "Production-2"
    assert vm("web02")["relocations"] == 2


def test_a_timeout_cancels_nothing(session: Quick) -> None:
    switch(task_seconds=1.0)
    e = refused(session, "web02", "Production-2", timeout=0.2)
    assert e.code == "timeout"
    assert e.partial["changed"]
    href = e.details["task"]
    assert tasks.wait_task(session, href, step="wait").status == "success"
    assert not go(session, "web02", "Production-2")["changed"]


def test_a_task_that_fails(session: Quick) -> None:
    fault("task_fail", match="web02", message="No space left.", minor="INSUFFICIENT_STORAGE")
    e = refused(session, "web02", "Production-2")
    assert (e.code, e.details["minor"], e.vm) == ("task", "INSUFFICIENT_STORAGE", "web02")
    assert "No space left" in str(e)
    assert vm("web02")["datastore"] == "Production-1"


def test_a_task_that_is_canceled(session: Quick) -> None:
    switch(task_seconds=5.0)
    go(session, "web02", "Production-2", wait=False)
    task = relocate.read(session, vm_href("web02")).tasks[0]
    tasks.cancel(session, task)
    with pytest.raises(ServerError) as e:
        tasks.wait_task(session, task.href, step="wait")
    assert e.value.details["status"] == "canceled"
    assert vm("web02")["datastore"] == "Production-1"


def vm_href(name: str) -> str:
    return f"/api/vApp/vm-{vm(name)['id']}"


@pytest.mark.parametrize(("status", "minor"), [(400, "BUSY_ENTITY"), (400, "OPERATION_LIMITS_EXCEEDED"), (429, "TOO_MANY"), (503, "DOWN")])
def test_a_busy_server_is_asked_again(session: Quick, status: int, minor: str) -> None:
    fault("status", status=status, minor=minor, match="action/relocate", times=2)
    assert go(session, "web02", "Production-2")["changed"]
    assert vm("web02")["relocations"] == 1
    fault("status", status=status, minor=minor, match="action/relocate", times=0)
    e = refused(session, "web02", "Production-1")
    assert e.code in ("busy_entity", "queue_full", "throttled", "unavailable")
    assert e.details["minor"] == minor


def test_the_session_expires_at_the_request(session: Quick) -> None:
    fault("expire", match="action/relocate")
    assert go(session, "web02", "Production-2")["changed"]
    assert session.generation == 2
    assert vm("web02")["relocations"] == 1


def test_many_tasks_in_one_question(session: Quick) -> None:
    switch(task_seconds=0.5, per_datastore=8, per_host=8)
    target = find.find_datastore(session, "Production-2")
    begun = []
    for name in ("web02", "web03", "web04", "web05", "web06"):
        one = relocate.begin(session, relocate.read(session, vm_href(name)), target)
        assert one.task is not None
        begun.append(one.task.href)
    requests_of("anything")
    control("DELETE", "/stats")
    looked = tasks.look_at(session, begun)
    assert set(looked) == set(begun)
    assert all(t.in_flight for t in looked.values())
    assert (requests_of("GET /api/query?type=adminTask"), requests_of("GET /api/task")) == (1, 0)
    over: list[str] = []
    done = tasks.wait_many(session, begun, ended=lambda t: over.append(t.href))
    assert sorted(over) == sorted(begun)
    assert {t.status for t in done.values()} == {"success"}
    assert tasks.wait_many(session, begun, timeout=0).keys() == set(begun)


def test_a_server_that_is_away_while_a_task_is_waited_for(session: Quick) -> None:
    switch(task_seconds=0.5)
    fault("status", status=503, match="GET /api/task/", times=14)
    fault("html", match="GET /api/task/", times=2)
    assert go(session, "web02", "Production-2")["changed"]


def test_facts_for_a_plan(session: Quick) -> None:
    vms = find.list_vms(session, datastore="Production-1", org="acme")
    facts = space.read_vms(session, [v.href for v in vms])
    db = next(f for f in facts.values() if isinstance(f, find.VmFacts) and f.name == "db01")
    assert (db.size_mb, db.chain) == (240 * 1024, 1)
    assert [d.independent for d in db.disks] == [False, False, True]
    disks = space.independent_disks(session, datastore="Production-1")
    assert [(d.name, d.attached, d.size_mb) for d in disks] == [("shared-data", True, 102400), ("spare", False, 10240)]
    clone = next(f for f in facts.values() if isinstance(f, find.VmFacts) and f.name == "web-clone")
    assert clone.chain == 3
    before = {s.href for s in space.shadow_vms(session)}
    go(session, "web02", "Production-2")
    assert [(s.datastore, s.vcenter) for s in space.shadow_vms(session) if s.href not in before] == [("Production-2", "vc1")]


# -- the three other ways ---------------------------------------------------------------------------------------------


def test_by_profile(session: Quick) -> None:
    plan = go(session, "帳票 01", "Production-1", method="profile", check=True)
    assert {a["name"] for a in plan["affected"]} >= {"帳票 01", "在庫サーバー"}
    assert all(a["datastore"] == {"name": "Production-2"} for a in plan["affected"])
    assert requests_of("PUT") == 0
    result = go(session, "帳票 01", "Production-1", method="profile")
    assert result["datastore"] == {"before": "Production-2", "after": "Production-1"}
    assert next(d for d in control("GET", "/state")["datastores"] if d["name"] == "Production-2")["enabled"]
    assert vm("在庫サーバー")["datastore"] == "Production-2"
    assert not go(session, "帳票 01", "Production-1", method="profile")["changed"]


def test_by_profile_where_the_server_chooses_another(session: Quick) -> None:
    e = refused(session, "db01", "Production-2", vdc="acme-dev", method="profile")
    assert e.code == "picked_other"
    assert e.partial["datastore"] == {"before": "Development-1", "after": "Development-2"}
    assert e.partial["changed"]
    assert next(d for d in control("GET", "/state")["datastores"] if d["name"] == "Development-1")["enabled"]


def test_by_profile_a_busy_vm_is_asked_again(session: Quick) -> None:
    fault("status", status=400, minor="BUSY_ENTITY", match="PUT /api/vApp", times=2)
    assert go(session, "帳票 01", "Production-1", method="profile")["changed"]


def test_by_profile_a_failure_enables_the_datastore_again(session: Quick) -> None:
    fault("task_fail", match="帳票")
    assert refused(session, "帳票 01", "Production-1", method="profile").code == "task"
    assert next(d for d in control("GET", "/state")["datastores"] if d["name"] == "Production-2")["enabled"]


def test_by_tenant(session: Quick) -> None:
    switch(per_datastore=100, per_host=100)
    plan = go(session, "node01", "Development-2", method="tenant", check=True)
    assert len(plan["affected"]) == 19
    assert {a["org"] for a in plan["affected"]} == {"globex"}
    assert plan["plan"]["need_mb"] == (17 * 24 + 2 * 16) * 1024
    result = go(session, "node01", "Development-2", method="tenant")
    assert result["datastore"]["after"] == "Development-2"
    assert vm("node17")["datastore"] == "Development-2"
    assert vm("win01")["datastore"] == "Production-2"


def test_by_policy(session: Quick) -> None:
    switch(per_datastore=100, per_host=100)
    assert refused(session, "帳票 01", "Development-1", method="policy").code == "bad_input"
    e = refused(session, "帳票 01", "Development-1", method="policy", policy="Platinum")
    assert e.details["policies"] == ["Gold", "Silver"]
    plan = go(session, "帳票 01", "Development-2", method="policy", policy="Silver", check=True)
    assert len(plan["affected"]) > 30
    assert vm("帳票 01")["profile"] == "Gold"
    # its datastore belongs to the new policy as well, so the server leaves it there
    e = refused(session, "帳票 01", "Development-2", method="policy", policy="Silver")
    assert e.code == "picked_other"
    assert e.partial["changed"]
    assert e.partial["datastore"] == {"before": "Production-2", "after": "Production-2"}
    assert vm("帳票 01")["profile"] == vm("web02")["profile"] == "Silver"
    assert vm("web02")["datastore"] != "Production-1"


def test_by_policy_to_where_the_server_puts_it(session: Quick) -> None:
    switch(per_datastore=100, per_host=100)
    result = go(session, "web02", "Production-2", method="policy", policy="Silver")
    assert result["datastore"] == {"before": "Production-1", "after": "Production-2"}
    assert result["task"]["status"] == "success"
    assert (vm("web02")["profile"], vm("web02")["datastore"]) == ("Silver", "Production-2")
    assert not go(session, "web02", "Production-2", method="policy", policy="Silver")["changed"]


@pytest.mark.parametrize(("method", "version"), [("profile", "1.5"), ("tenant", "5.1"), ("policy", "37.0")])
def test_a_way_that_the_version_does_not_have(method: str, version: str) -> None:
    with Quick(api_version=version) as session:
        assert "needs API" in str(refused(session, "帳票 01", "Production-1", method=method, policy="Silver"))


# -- as modules -------------------------------------------------------------------------------------------------------


def play(folder: Path, tasks_: list[dict[str, Any]], *words: str) -> subprocess.CompletedProcess[str]:
    path = folder / "play.yml"
    whole = {"hosts": "localhost", "gather_facts": False, "vars": {"ansible_python_interpreter": sys.executable}, "tasks": tasks_}
    path.write_text(yaml.safe_dump([whole]))
    found = os.pathsep.join([str(COLLECTIONS), *filter(None, [os.environ.get("ANSIBLE_COLLECTIONS_PATH")])])
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": found, "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_NOCOLOR": "1"}
    env |= {"ANSIBLE_INVENTORY_UNPARSED_WARNING": "false"}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(path), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_the_modules_in_a_play(tmp_path: Path) -> None:
    steps = [
        {"ferry.vmware.vcd_vm_info": {"name": "web*", "vdc": "acme-prod", "datastore": "Production-1"}, "register": "vms"},
        {"ferry.vmware.vcd_datastore_info": {"name": "Production-2"}, "register": "stores"},
        {"ferry.vmware.vcd_relocate": {"vm": "web02", "datastore": "{{ stores.datastores[0].href }}"}, "register": "first"},
        {"ferry.vmware.vcd_relocate": {"vm": "{{ first.vm.id }}", "datastore": "{{ stores.datastores[0].moref }}"}, "register": "second"},
        {"ferry.vmware.vcd_relocate": {"vm": "db01", "datastore": "Production-2"}, "register": "third", "ignore_errors": True},
        {
            "ansible.builtin.assert": {
                "that": [
                    "vms.vms | length == 21",
                    "vms.vms[0].datastore.name == 'Production-1'",
                    "stores.datastores | length == 1",
                    "stores.datastores[0].total_mb == 4194304",
                    "first.changed and first.datastore.after == 'Production-2'",
                    "not second.changed",
                    "third.failed and third.failure.details.matches | length == 3",
                ]
            }
        },
    ]
    done = play(tmp_path, steps, "-vvv", "--diff")
    assert done.returncode == 0, done.stdout + done.stderr
    assert os.environ["VCD_PASSWORD"] not in done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    assert '"datastore": "Production-1"' in done.stdout
    assert control("GET", "/stats")["sessions"] == 0


def test_module_defaults_and_check_mode(tmp_path: Path) -> None:
    step = {"ferry.vmware.vcd_relocate": {"vm": "web02", "datastore": "Production-2"}, "register": "plan"}
    block = {"module_defaults": {"group/ferry.vmware.vcloud": {"api_version": "36.0"}}, "block": [step]}
    look = {"ansible.builtin.assert": {"that": ["plan.changed", "plan.datastore.after == 'Production-2'", "plan.plan.fits"]}}
    done = play(tmp_path, [block, look], "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert vm("web02")["relocations"] == 0
    assert params()["auth_org"] == "System"
