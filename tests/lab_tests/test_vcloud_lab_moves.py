# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's vCloud Director: relocation, the three other ways, storage accounted, linked clones, tasks and their limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.lab.common import ROOT
from tests.lab.vcloud import VCloud
from tests.lab_tests.vcloud_lab import RELOCATE, Answer, Rest, figures, free_base, known, links, local, running, total_used

GIB = 1024  # MiB
TENANT = "application/vnd.vmware.cloud.tenantMigrationParams+xml"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCloud]:
    with running(tmp_path_factory.mktemp("vcloud")) as vcloud:
        yield vcloud


@pytest.fixture
def lab(server: VCloud) -> VCloud:
    server.reset()
    server.switch(task_seconds=0.05)
    return server


@pytest.fixture
def one(lab: VCloud) -> Rest:
    return rest(lab)


def rest(lab: VCloud, version: str = "36.0") -> Rest:
    one = Rest(lab, version)
    assert one.log_in().status == 200
    return one


def refused(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.minor


# --- one VM ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.5", "5.1", "29.0", "33.0", "38.1"])
def test_a_vm_moves_with_all_its_disks_and_is_accounted(lab: VCloud, version: str) -> None:
    one = rest(lab, version)
    before = figures(lab)
    vm = one.vm("two-disks")
    one.move(vm, one.datastore("Production-2"))
    after = figures(lab)
    change = {n: [after[n][f"{k}_mb"] - before[n][f"{k}_mb"] for k in ("used", "provisioned", "requested")] for n in after}
    assert change["Production-2"] == [14 * GIB, 70 * GIB, 70 * GIB]
    assert change["Development-1"] == [-4 * GIB, -20 * GIB, -20 * GIB]
    assert change["Development-2"] == [-10 * GIB, -50 * GIB, -50 * GIB]
    assert set(one.place(vm)) == {"datastore-42"}
    assert one.rows("adminVM", "&filter=name==two-disks")[0]["datastoreName"] == "Production-2"
    assert all(d["reserved_mb"] == 0 for d in after.values())


def test_disks_elsewhere_may_stay_and_independent_ones_do(lab: VCloud, one: Rest) -> None:
    lab.switch(move_other_disks=False)
    vm = one.vm("two-disks")
    one.move(vm, one.datastore("Production-2"))
    assert one.place(vm) == ["datastore-42", "datastore-42", "datastore-44"]
    erp = next(r["href"] for r in one.rows("adminVM", "&filter=name==db01;vdcName==acme-prod"))
    one.move(erp, one.datastore("Development-2"))
    assert one.place(erp) == ["datastore-44", "datastore-44", "datastore-44", "datastore-41"]
    assert {d["name"]: d["datastoreName"] for d in one.rows("disk")} == {"shared-data": "Production-1", "spare": "Production-1"}


def test_the_vm_of_a_template_moves_by_its_own_link(lab: VCloud, one: Rest) -> None:
    vm = one.vm("win2008")
    task = one.task(one.relocate(links(one.get(vm).xml)["relocate"].removesuffix("/action/relocate"), one.datastore("Production-2")))
    owner = next(x for x in task if local(x) == "Owner")
    assert (task.get("status"), owner.get("href")) == ("success", vm)
    # The clones live there already: what was a shadow VM is the base itself now, and nothing is left behind.
    assert lab.get("/vms")["shadows"] == []
    assert figures(lab)["Production-1"]["vms"] == 1 + 7 + 21


def test_gone_from_39_but_served_at_a_lower_version(lab: VCloud) -> None:
    one = rest(lab, "39.1")
    vm, target = one.vm("test01"), one.datastore("Development-2")
    assert one.relocate(vm, target).status == 404
    lab.switch(relocate_removed_status=405)
    assert one.relocate(vm, target).status == 405
    accepted = one.relocate(vm, target, Accept="application/*+xml;version=38.1")
    assert accepted.status == 202
    assert one.task(accepted).get("status") == "success"
    lab.switch(versions=["39.0", "39.1"])
    assert one.relocate(vm, target, Accept="application/*+xml;version=38.1").status == 406


def test_targets_and_bodies_that_are_refused(lab: VCloud, one: Rest) -> None:
    vm, good = one.vm("test01"), one.datastore("Development-2")
    for name, vc in (("retired-1", "vc1"), ("removed-1", "vc1"), ("保管庫-1", "vc2")):
        assert refused(one.relocate(vm, one.datastore(name, vc))) == (400, "BAD_REQUEST")
    assert refused(one.relocate(vm, good[:-1] + ("0" if good[-1] != "0" else "1"))) == (400, "BAD_REQUEST")
    wrong = {
        f'<!DOCTYPE x [<!ENTITY a "b">]><RelocateParams><Datastore href="{good}"/></RelocateParams>': RELOCATE,
        "<RelocateParams/>": RELOCATE,
        "<Relocate>": RELOCATE,
        f'<Other><Datastore href="{good}"/></Other>': RELOCATE,
    }
    for body, media in wrong.items():
        assert refused(one.send("POST", f"{vm}/action/relocate", body, media)) == (400, "BAD_REQUEST")
    assert one.send("POST", f"{vm}/action/relocate", "<RelocateParams/>", "application/xhtml").status == 415
    assert known(lab, "test01")["relocations"] == 0


def test_where_the_product_is_unknown_it_is_a_switch(lab: VCloud, one: Rest) -> None:
    vm, outside, home = one.vm("test01"), one.datastore("Production-1"), one.datastore("Development-1")
    lab.switch(profile_mismatch="refuse", already_there="refuse")
    assert refused(one.relocate(vm, outside)) == (400, "BAD_REQUEST")
    assert refused(one.relocate(vm, home)) == (400, "BAD_REQUEST")
    lab.switch(profile_mismatch="move_back", already_there="success")
    one.move(vm, outside)
    assert known(lab, "test01")["datastore"] == "Development-1"
    one.move(vm, home)
    old = rest(lab, "1.5")  # no profiles yet
    old.move(vm, outside)
    assert known(lab, "test01")["datastore"] == "Production-1"
    lab.switch(profile_mismatch="allow")
    one.move(vm, one.datastore("Production-2"))
    assert known(lab, "test01")["datastore"] == "Production-2"


def test_a_full_target_fails_the_task_or_the_request(lab: VCloud, one: Rest) -> None:
    vm, target = one.vm("two-disks"), one.datastore("small-1")
    task = one.task(one.relocate(vm, target))
    error = next(x for x in task if local(x) == "Error")
    assert (task.get("status"), "Insufficient" in error.get("message", "")) == ("error", True)
    lab.switch(full_datastore="post")
    assert one.relocate(vm, target).status == 400
    lab.post("/datastore", name="small-1", free_mb=14 * GIB)
    one.move(vm, target)
    assert known(lab, "two-disks")["disks"] == ["small-1", "small-1"]


def test_space_is_taken_while_a_move_runs(lab: VCloud, one: Rest) -> None:
    lab.switch(task_seconds=30)
    lab.post("/datastore", name="small-1", free_mb=5 * GIB)
    first, second = (one.relocate(one.vm(n), one.datastore("small-1")) for n in ("test01", "test02"))
    assert figures(lab)["small-1"]["reserved_mb"] == 3 * GIB
    assert one.task(second).get("status") == "error"
    lab.post("/clock", forward=31)
    assert one.task(first).get("status") == "success"
    assert figures(lab)["small-1"]["reserved_mb"] == 0


# --- linked clones ---------------------------------------------------------------------------------------------------


def test_a_clone_takes_a_shadow_vm_of_its_base_along(lab: VCloud, one: Rest) -> None:
    assert one.rows("adminShadowVM")[0]["primaryVAppName"] == "windows-2008"
    used, target = total_used(lab), one.datastore("Production-2")
    one.move(one.vm("app01"), target)
    shadow = next(s for s in one.rows("adminShadowVM") if s["primaryVAppName"] == "centos-6")
    assert (shadow["datastoreName"], shadow["primaryVM"]) == ("Production-2", one.vm("centos-6"))
    assert total_used(lab) == used + 6 * GIB
    one.move(one.vm("app02"), target)  # the second finds it there
    assert total_used(lab) == used + 6 * GIB
    requested = sum(d["requested_mb"] for d in figures(lab).values())
    lab.reset()
    assert requested == sum(d["requested_mb"] for d in figures(lab).values())


@pytest.mark.parametrize("turned", [False, True])
def test_a_tree_takes_the_same_space_whatever_the_order(lab: VCloud, one: Rest, turned: bool) -> None:
    tree = [r["href"] for r in one.rows("adminVM", "&filter=(name==app0*,name==web*,name==centos-6)")]
    assert len(tree) == 28
    used, target = total_used(lab), one.datastore("Production-2")
    for vm in reversed(tree) if turned else tree:
        one.move(vm, target)
    assert total_used(lab) == used
    assert len(lab.get("/vms")["shadows"]) == 1  # that of windows-2008
    assert figures(lab)["Production-1"]["shadow_vms"] == 0


def test_a_base_that_leaves_its_clones_leaves_a_shadow_vm(lab: VCloud, one: Rest) -> None:
    one.move(one.vm("web01"), one.datastore("Production-2"))  # web-clone hangs on it, and it on centos-6
    shadows = {s["primary"]: s["datastore"] for s in lab.get("/vms")["shadows"]}
    assert shadows[known(lab, "web01")["id"]] == "Production-1"
    assert shadows[known(lab, "centos-6")["id"]] == "Production-2"
    one.move(one.vm("web-clone"), one.datastore("Production-2"))
    assert known(lab, "web01")["id"] not in {s["primary"] for s in lab.get("/vms")["shadows"]}


def test_a_consolidated_clone_stands_alone(lab: VCloud, one: Rest) -> None:
    before, vm = figures(lab)["Production-2"]["used_mb"], one.vm("win01")
    href = links(one.get(vm).xml)["consolidate"]
    assert one.task(one.send("POST", href, "")).get("status") == "success"
    assert (known(lab, "win01")["base"], figures(lab)["Production-2"]["used_mb"] - before) == (None, 14 * GIB)
    one.move(vm, one.datastore("Development-1"))
    assert {s["datastore"] for s in lab.get("/vms")["shadows"]} == {"Production-2"}


def test_shadow_vms_may_be_refused_or_stay(lab: VCloud, one: Rest) -> None:
    vm, target = one.vm("app01"), one.datastore("Production-2")
    lab.switch(linked_clone="refuse")
    assert refused(one.relocate(vm, target)) == (400, "BAD_REQUEST")
    lab.switch(linked_clone="shadow", shadow_cleanup="never")
    one.move(vm, target)
    one.move(vm, one.datastore("Production-1"))
    assert "centos-6" in {s["primaryVAppName"] for s in one.rows("adminShadowVM")}


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_a_task_has_progress_and_can_be_cancelled(lab: VCloud, one: Rest) -> None:
    lab.switch(task_seconds=100)
    accepted = one.relocate(one.vm("test01"), one.datastore("Development-2"))
    href = accepted.headers["Location"]
    lab.post("/clock", forward=50)
    task = one.get(href).xml
    assert (task.get("status"), next(x.text for x in task if local(x) == "Progress")) == ("running", "50")
    row = one.rows("adminTask", "&filter=status==running")[0]
    assert (row["objectName"], row["objectType"], row["object"]) == ("test01", "vm", one.vm("test01"))
    vm = one.get(one.vm("test01")).xml
    assert [x[0].get("href") for x in vm if local(x) == "Tasks"] == [href]
    assert one.send("POST", links(task)["task:cancel"], "").status == 204
    assert one.task(accepted).get("status") == "canceled"
    assert figures(lab)["Development-2"]["reserved_mb"] == 0
    assert known(lab, "test01")["datastore"] == "Development-1"
    assert one.send("POST", f"{href}/action/cancel", "").status == 400
    lab.switch(progress=False, task_keep_seconds=10)
    assert "Progress" not in [local(x) for x in one.get(href).xml]
    lab.post("/clock", forward=11)
    assert one.get(href).status == 403


def test_tasks_fail_and_are_aborted_on_demand(lab: VCloud, one: Rest) -> None:
    lab.fault("task_fail", match="test0", minor="NO_ROUTE", message="no route to host", at=0)
    task = one.task(one.relocate(one.vm("test03"), one.datastore("Development-2")))
    error = next(x for x in task if local(x) == "Error")
    assert (task.get("status"), error.get("majorErrorCode"), error.get("minorErrorCode"), error.get("message")) == (
        "error", "500", "NO_ROUTE", "no route to host",
    )  # fmt: skip
    lab.switch(task_seconds=100)
    accepted = one.relocate(one.vm("test03"), one.datastore("Development-2"))
    assert lab.post("/abort") == {"aborted": 1}
    assert one.task(accepted).get("status") == "aborted"
    assert known(lab, "test03")["datastore"] == "Development-1"


def test_what_is_busy_is_refused(lab: VCloud, one: Rest) -> None:
    lab.switch(task_seconds=100)
    target = one.datastore("Development-2")
    assert one.relocate(one.vm("app01"), target).status == 202
    answer = one.relocate(one.vm("app01"), target)
    assert refused(answer) == (400, "BUSY_ENTITY")
    assert answer.xml.get("message", "").endswith("The entity app01 is busy completing an operation VAPP_RELOCATE_VM.")
    lab.switch(busy_vapp=True)
    assert refused(one.relocate(one.vm("app02"), target)) == (400, "BUSY_ENTITY")
    assert one.relocate(one.vm("web02"), target).status == 202
    lab.switch(busy_vapp=False, busy_chain=True)
    assert refused(one.relocate(one.vm("web03"), target)) == (400, "BUSY_ENTITY")
    lab.switch(busy_chain=False, max_operations=2)
    assert refused(one.relocate(one.vm("test01"), target)) == (400, "OPERATION_LIMITS_EXCEEDED")


def test_so_many_at_a_time_per_datastore_and_per_host(lab: VCloud, one: Rest) -> None:
    lab.switch(task_seconds=10)
    target = one.datastore("Development-2")
    for i in range(1, 13):  # powered off: no host takes part
        assert one.relocate(one.vm(f"test{i:02d}"), target).status == 202
    states = [one.rows("adminTask", f"&filter=status=={s}") for s in ("running", "queued")]
    assert [len(s) for s in states] == [8, 4]
    lab.switch(queued_status="running")
    assert len(one.rows("adminTask", "&filter=status==running")) == 12
    begun = lab.get("/state")["time"]
    lab.post("/clock", forward=25)
    ends = sorted(one.get(r["href"]).xml.get("endTime") or "" for r in one.rows("adminTask"))
    # Twelve of ten seconds, eight at a time: the last four end at 20 s, though nobody looked in between.
    assert ends[-1][:19] <= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begun + 20))
    assert lab.get("/state")["tasks"]["success"] == 12

    target = one.datastore("Production-1")
    hosts: dict[str, list[str]] = {}
    for r in one.rows("adminVM", "&filter=name==win0*"):
        hosts.setdefault(r["hostName"], []).append(r["href"])
        assert one.relocate(r["href"], target).status == 202
    assert {k: len(v) for k, v in hosts.items()} == dict.fromkeys(("esx1", "esx2", "esx3", "esx4"), 2)
    lab.switch(queued_status="queued", per_host=1, per_datastore=3)
    for name in ("node01", "node02", "node03", "node04", "node05"):
        assert one.relocate(one.vm(name), one.datastore("Development-1")).status == 202
    running_now = lab.get("/state")["running"]
    assert max(n for k, n in running_now.items() if k.startswith("datastore:")) == 8  # those from before the change
    lab.post("/clock", forward=100)
    assert lab.get("/state")["tasks"] | {"success": 0} == dict.fromkeys(("queued", "running", "success", "error", "canceled", "aborted"), 0)


# --- the three other ways --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["PUT", "reconfigureVm"])
def test_the_same_profile_moves_a_vm_off_a_disabled_datastore(lab: VCloud, way: str) -> None:
    one = rest(lab, "39.1")
    vm = one.vm("test01")
    profile = next(x for x in one.get(vm).xml if local(x) == "StorageProfile")
    body = f'<Vm xmlns="http://www.vmware.com/vcloud/v1.5" name="test01"><StorageProfile href="{profile.get("href")}"/></Vm>'

    def update() -> str:
        path = vm if way == "PUT" else f"{vm}/action/{way}"
        answer = one.send("PUT" if way == "PUT" else "POST", path, body, "application/vnd.vmware.vcloud.vm+xml")
        assert one.task(answer).get("status") == "success"
        return str(known(lab, "test01")["datastore"])

    assert update() == "Development-1"  # enabled: it stays
    lab.post("/vm", id=known(lab, "test01")["id"], disk=0, datastore="Development-2")
    assert (update(), known(lab, "test01")["disks"]) == ("Development-1", ["Development-2"])
    lab.post("/datastore", name="Development-1", enabled=False)
    assert update() == "Development-2"  # the system picks, of the profile's
    lab.post("/datastore", name="Development-2", enabled=False)
    answer = one.send("PUT", vm, body, "application/vnd.vmware.vcloud.vm+xml")
    assert refused(answer) == (400, "BAD_REQUEST")


def test_migrate_tenant_moves_a_whole_org(lab: VCloud) -> None:
    one = rest(lab, "39.1")
    org = next(r["href"] for r in one.rows("organization") if r["name"] == "globex").replace("/admin/", "/")
    source, target = one.datastore("Production-2"), one.datastore("Development-2")
    other = len(one.rows("adminVM", "&filter=datastoreName==Production-2")) - 19
    body = (
        '<vmext:TenantMigrationParams xmlns="http://www.vmware.com/vcloud/v1.5" name="evacuate"'
        ' xmlns:vmext="http://www.vmware.com/vcloud/extension/v1.5">'
        f'<vmext:orgs><Org href="{org}"/></vmext:orgs><vmext:sourceDatastores><vmext:Datastore href="{source}"/></vmext:sourceDatastores>'
        f'<vmext:targetDatastores><vmext:Datastore href="{target}"/></vmext:targetDatastores></vmext:TenantMigrationParams>'
    )
    path = "/api/admin/extension/action/migrateTenant"
    lab.switch(task_seconds=1)
    accepted = one.send("POST", path, body, TENANT)
    lab.post("/clock", forward=1.1)
    middle = one.get(accepted.headers["Location"]).xml
    assert (middle.get("status"), middle.get("operationName")) == ("running", "tenantMigration")
    lab.post("/clock", forward=10)
    assert one.task(accepted).get("status") == "success"
    assert len(one.rows("adminVM", f"&filter=datastoreName==Development-2;org=={quote(org, safe='')}")) == 19
    assert len(one.rows("adminVM", "&filter=datastoreName==Production-2")) == other
    assert rest(lab, "5.1").send("POST", path, body, TENANT).status == 404
    tenant = Rest(lab)
    tenant.log_in("orgadmin@globex", "/cloudapi/1.0.0/sessions")
    assert tenant.send("POST", path, body, TENANT).status == 403


def test_migrate_storage_moves_a_whole_policy(lab: VCloud) -> None:
    one = rest(lab, "38.1")
    urns = {r["name"]: r["id"] for r in one.rows("adminOrgVdcStorageProfile", "&format=idrecords&filter=vdcName==acme-prod")}
    body = {"targetVdcStoragePolicy": {"id": urns["Silver"]}, "entityTypes": [{"name": "urn:vcloud:type:vmware:vm"}]}
    path = f"/cloudapi/1.0.0/orgVdcStoragePolicies/{quote(urns['Gold'])}/migrateStorage"
    low = rest(lab, "38.0").send("POST", path, json.dumps(body), "application/json")
    assert (low.status, "minorErrorCode" in json.loads(low.body)) == (404, True)
    assert one.send("POST", path, "{}", "application/json").status == 400
    accepted = one.send("POST", path, json.dumps(body), "application/json")
    lab.post("/clock", forward=60)
    assert one.task(accepted).get("status") == "success"
    moved = [v for v in lab.get("/vms")["vms"] if v["vdc"] == "acme-prod"]
    assert {v["profile"] for v in moved} == {"Silver"}
    assert {v["datastore"] for v in moved} <= {"Development-1", "Development-2", "Production-2"}


# --- the lab's command line ------------------------------------------------------------------------------------------


def test_up_status_wipe_and_the_environment(tmp_path: Path) -> None:
    state = tmp_path / "lab"
    env = {**os.environ, "FERRY_LAB_DIR": str(state), "FERRY_LAB_BASE": str(free_base())}

    def cli(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "tests.lab", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    try:
        up = cli("up", "vcloud")
        assert up.returncode == 0, up.stderr
        assert "vcloud running" in up.stdout
        text = (state / "env.sh").read_text()
        names = ["HOST", "PORT", "USER", "PASSWORD", "ORG", "CA_PATH", "VALIDATE_CERTS"]
        assert all(f"export VCD_{n}=" in text for n in names)
        assert "export FERRY_VCLOUD_CONTROL=http://127.0.0.1:" in text
        assert cli("up", "vcloud").returncode == 0
        assert (state / "vcloud" / "config.json").stat().st_mode & 0o777 == 0o600
        assert "running" in cli("status", "vcloud").stdout
        assert cli("down", "vcloud").returncode == 0
        assert "VCD_HOST" not in (state / "env.sh").read_text()
    finally:
        assert cli("wipe", "vcloud").returncode == 0
    assert not (state / "vcloud").exists()
