# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""mtv_migrate as a user runs it, on a real API server: from an empty namespace to the end and away again, cold and warm, and what goes wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kubernetes import site as sites
from tests.kubernetes.site import Site, until
from tests.lab.kubernetes.api import SECRET, Kind
from tests.lab.kubernetes.forklift import HOOK, HOST, MIGRATION, NETWORK_MAP, PLAN, PROVIDER, STORAGE_MAP

KINDS = (PROVIDER, HOST, HOOK, NETWORK_MAP, STORAGE_MAP, PLAN, MIGRATION, SECRET)


def there(site: Site) -> list[str]:
    return sorted(f"{o['kind']}/{o['metadata']['name']}" for kind in KINDS for o in _list(site, kind))


def _list(site: Site, kind: Kind) -> list[dict[str, Any]]:
    return [{**o, "kind": kind.plural} for o in site.api.list(kind, site.namespace)]


def moref(site: Site, name: str) -> str:
    return str(next(vm["moref"] for vm in site.vcenter.get("/state")["vms"] if vm["name"] == name))


def test_one_vm_from_an_empty_namespace_to_its_end(wave: Site) -> None:
    """The shortest way through all of it."""
    wave.write("db01", **wave.inventory["wave1"]["vars"], ferry_report="report.html")
    said = wave.play("mtv_migrate")
    assert "wave1-1: succeeded" in said and "db01: as its source" in said
    # The report of our own copies has its disks too.
    page = (wave.folder / "report.html").read_text(encoding="utf-8")
    assert "db01" in page and "disk-0" in page


@pytest.mark.long
def test_a_cold_wave_from_nothing_and_away_again(wave: Site) -> None:
    wave.change(ferry_mtv_hooks=[{"step": "PostHook", "image": "quay.example/hook", "playbook": "- hosts: all"}])
    said = wave.play("mtv_migrate", "--check")
    assert "'kind': 'Plan'" in said or '"kind": "Plan"' in said
    assert wave.vcenter.place.password() not in said
    assert there(wave) == []

    ids = {name: moref(wave, name) for name in sites.VMS}
    wave.cluster.switch(failing_vms={ids["db01"]: {"step": "ImageConversion", "reason": "no such driver"}})
    said = wave.play("mtv_migrate", "-vv", code=2)
    assert "db01: failed" in said and "ImageConversion: no such driver" in said
    assert "web01: succeeded" in said and "dc0-c0-vm2: succeeded" in said
    assert wave.vcenter.place.password() not in said
    assert there(wave) == [
        "hooks/wave1-hook-1",
        "migrations/wave1-1",
        "networkmaps/wave1-networks",
        "plans/wave1",
        "providers/host",
        "providers/wave1-source",
        "secrets/wave1-source-credentials",
        "storagemaps/wave1-storage",
    ]
    plan = wave.api.get(PLAN, wave.namespace, "wave1")
    assert plan is not None
    assert [vm["id"] for vm in plan["spec"]["vms"]] == list(ids.values())
    assert plan["spec"]["deleteVmOnFailMigration"] is False
    managers = {m["manager"] for m in plan["metadata"]["managedFields"] if m["operation"] == "Apply"}
    assert managers == {"ferry.vmware"}

    wave.clear()
    said = wave.play("mtv_migrate")
    assert "db01: succeeded" in said
    assert [o for o in there(wave) if o.startswith("migrations")] == ["migrations/wave1-1", "migrations/wave1-2"]
    before = {o["kind"] + o["metadata"]["name"]: o["metadata"]["resourceVersion"] for kind in KINDS for o in _list(wave, kind)}
    said = wave.play("mtv_migrate")
    assert said.count("changed=0") == 3
    assert {o["kind"] + o["metadata"]["name"]: o["metadata"]["resourceVersion"] for kind in KINDS for o in _list(wave, kind)} == before

    wave.play("mtv_migrate", "-e", "ferry_mtv_action=cleanup")
    assert there(wave) == ["providers/host"]
    assert wave.play("mtv_migrate", "-e", "ferry_mtv_action=cleanup").count("changed=0") == 3


@pytest.mark.long
def test_a_warm_wave_waits_for_its_cutover(wave: Site) -> None:
    wave.change(ferry_strategy="warm")
    said = wave.play("mtv_migrate")
    assert "wave1-1: precopied" in said and "ferry_mtv_action=cutover" in said
    until(lambda: precopies(wave) >= 2)
    assert "changed=1" not in wave.play("mtv_migrate")
    said = wave.play("mtv_migrate", "-e", "ferry_mtv_action=cutover")
    assert said.count(": succeeded") == 4
    assert said.count(": as its source") == 3
    assert len(wave.api.list(MIGRATION, wave.namespace)) == 1


def precopies(site: Site) -> int:
    found = site.api.list(MIGRATION, site.namespace)[0]["status"]["vms"]
    return min(int(vm["warm"]["successes"]) for vm in found)


@pytest.mark.long
def test_a_warm_wave_with_a_time(wave: Site) -> None:
    wave.change(ferry_strategy="warm", ferry_cutover_at="2026-01-01T09:00:00+09:00")
    assert "wave1-1: succeeded" in wave.play("mtv_migrate")
    assert wave.api.list(MIGRATION, wave.namespace)[0]["spec"]["cutover"] == "2026-01-01T00:00:00Z"


@pytest.mark.long
@pytest.mark.fault("The controller is killed while MTV migrates", where="Kubernetes", ends="the migration goes on; a second run joins it")
def test_one_vm_is_cancelled_and_a_second_run_joins(wave: Site) -> None:
    wave.cluster.switch(hold="DiskTransfer")
    with wave.playing("mtv_migrate"):
        until(lambda: any(m.get("status", {}).get("vms") for m in wave.api.list(MIGRATION, wave.namespace)), 300)
    said = wave.play("mtv_migrate", "--limit", "db01", "-e", "ferry_mtv_action=cancel")
    assert "db01: canceled" in said and "web01: running at DiskTransfer" in said
    wave.change(ferry_storage_map={"*": "other"})
    said = wave.play("mtv_migrate", code=2)
    assert "wave1-1 runs" in said and "wave1-storage" in said and "would cancel it" in said
    said = wave.play("mtv_migrate", "-e", "ferry_mtv_action=archive", code=2)
    assert "wave1-1 of the plan wave1 runs" in said
    wave.change(ferry_storage_map={"*": "ceph"})
    wave.clear()
    said = wave.play("mtv_migrate", code=2)
    assert "web01: succeeded" in said and "db01: canceled" in said
    assert len(wave.api.list(MIGRATION, wave.namespace)) == 1
