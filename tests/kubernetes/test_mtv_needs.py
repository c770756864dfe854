# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""mtv_migrate before the first object, after the last, and where somebody else has been at it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kubernetes import site as sites
from tests.kubernetes.site import Site, until
from tests.lab.kubernetes.api import CLAIM, CRD, VM, Object
from tests.lab.kubernetes.forklift import MIGRATION, PLAN, PROVIDER

pytestmark = pytest.mark.long


def test_everything_that_is_missing_is_said_at_once(wave: Site) -> None:
    space = sites.namespace(wave.api, f"{wave.namespace}-vms")
    body = {"apiVersion": VM.api, "kind": "VirtualMachine", "metadata": {"name": "web01"}, "spec": {}}
    wave.api.create(VM, space, body)
    wave.write(
        "web01",
        sites.ODD,
        ferry_mtv_namespace=wave.namespace,
        ferry_strategy="warm",
        ferry_network_map={"VM Network": "pod", "backend": "net/nowhere"},
        ferry_storage_map={"*": "floppy"},
    )
    wave.vcenter.switch("privileges_missing", "VirtualMachine.Provisioning.DiskRandomRead")
    try:
        said = wave.play("mtv_migrate", code=2)
    finally:
        wave.vcenter.switch("privileges_missing", "")
    for words in (
        "The account lacks VirtualMachine.Provisioning.DiskRandomRead (to read disks through VDDK)",
        "odd01: Changed Block Tracking (CBT) has not been enabled",
        "odd01: VMware Tools issues detected",
        "VDDK image is required for warm migration",
        "the cluster has no StorageClass floppy (it has ceph, longhorn, other)",
        "the cluster has no NetworkAttachmentDefinition net/nowhere",
        "Target VM already exists: web01",
        # and what is only good to know
        "web01: Static IPs are not preserved on the pod network",
        # nobody resolves the name of the lab's ESXi host
        "esx1:902",
        "its own test covers vCenter",
        "Nothing was touched",
    ):
        assert words in said, words
    assert wave.api.list(PROVIDER, wave.namespace) == []
    wave.change(ferry_mtv_ignore=["VMAlreadyExists", "ferry.cluster.network"], ferry_mtv_reach=False)
    said = wave.play("mtv_migrate", code=2)
    assert "floppy" in said and "already exists" not in said and "net/nowhere is" not in said and "esx1:902" not in said


@contextmanager
def altered(site: Site, name: str, change: Object | None) -> Iterator[None]:
    """A definition that is another one for a while, or (None) is not there."""
    found = site.api.get(CRD, "", name)
    assert found is not None
    before = {key: found[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": name}}
    annotations = found["metadata"].get("annotations")
    if change is None:
        site.api.delete(CRD, "", name)
        until(lambda: site.api.get(CRD, "", name) is None)
    else:
        site.api.patch(CRD, "", name, change)
    try:
        yield
    finally:
        if change is None:
            before["metadata"]["annotations"] = annotations or {}
            site.api.create(CRD, "", before)
        else:
            site.api.patch(CRD, "", name, {"spec": before["spec"]})
        until(lambda: "True" in [c["status"] for c in conditions(site, name) if c["type"] == "Established"])


def conditions(site: Site, name: str) -> list[Object]:
    found = site.api.get(CRD, "", name) or {}
    return list((found.get("status") or {}).get("conditions") or [])


def test_a_definition_that_is_older_or_not_there(wave: Site) -> None:
    found = wave.api.get(CRD, "", "plans.forklift.konveyor.io")
    assert found is not None
    versions = copy.deepcopy(found["spec"]["versions"])
    fields = versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    for name in ("type", "runPreflightInspection"):
        del fields[name]
    with altered(wave, "plans.forklift.konveyor.io", {"spec": {"versions": versions}}):
        said = wave.play("mtv_migrate", code=2)
    assert "knows no spec.runPreflightInspection, spec.type of Plan" in said and "another release" in said
    with altered(wave, "storagemaps.forklift.konveyor.io", None):
        said = wave.play("mtv_migrate", code=2)
    assert "knows no StorageMap (forklift.konveyor.io)" in said and "Nothing was touched" in said


def test_a_vm_that_came_out_otherwise(wave: Site) -> None:
    wave.write("web01", "db01", **wave.inventory["wave1"]["vars"])
    ids = {vm["name"]: vm["moref"] for vm in wave.vcenter.get("/state")["vms"]}
    wave.cluster.switch(made_wrong={ids["db01"]: {"cpu": {"sockets": 4}, "memory": {"guest": "64Mi"}}})
    said = wave.play("mtv_migrate", code=2)
    assert "web01: as its source" in said
    assert "db01 has landed, but is not as its source: vCPUs: 4 at the source, 8 now" in said
    # and the lines of our own copies, one a disk
    assert "web01 · disk-0" in said and "1.0 GiB" in said
    made = wave.api.get(VM, f"{wave.namespace}-vms", "db01")
    assert made is not None
    memory = wave.sources["db01"]["memory_mb"]
    made["spec"]["template"]["spec"]["domain"] |= {"cpu": {"sockets": 2, "cores": 2}, "memory": {"guest": f"{memory}Mi"}}
    wave.api.patch(VM, f"{wave.namespace}-vms", "db01", {"spec": made["spec"]})
    assert "db01: as its source" in wave.play("mtv_migrate")


@pytest.mark.fault(
    "Somebody changes the Plan while MTV migrates", where="Kubernetes", ends="one error that names the field; nothing is overwritten"
)
@pytest.mark.fault(
    "Somebody deletes the Migration while it is waited for", where="Kubernetes", ends="said; the same command begins a new one"
)
def test_somebody_else_changes_the_plan_and_deletes_the_migration(wave: Site) -> None:
    wave.write("web01", **wave.inventory["wave1"]["vars"])
    wave.cluster.switch(hold="DiskTransfer")
    with wave.playing("mtv_migrate") as (play, log):
        until(lambda: any((m.get("status") or {}).get("vms") for m in wave.api.list(MIGRATION, wave.namespace)), 300)
        wave.api.patch(PLAN, wave.namespace, "wave1", {"spec": {"preserveStaticIPs": False}})
        wave.api.delete(MIGRATION, wave.namespace, "wave1-1")
        assert play.wait(300) == 2
        said = " ".join(log.read_text(encoding="utf-8").split())
        assert "wave1-1 in" in said and "is gone: somebody has deleted it" in said
    wave.clear()
    said = wave.play("mtv_migrate", code=2)
    assert "The cluster refuses Plan of wave1" in said and ".spec.preserveStaticIPs" in said and "ferry_mtv_force=true" in said
    wave.change(ferry_mtv_force=True)
    assert "wave1-1: succeeded" in wave.play("mtv_migrate")


def test_clean_up_spares_volumes(wave: Site) -> None:
    wave.write("web01", **wave.inventory["wave1"]["vars"])
    wave.play("mtv_migrate")
    plan = wave.api.get(PLAN, wave.namespace, "wave1")
    assert plan is not None
    space = f"{wave.namespace}-vms"
    wave.api.patch(CLAIM, space, "web01-0", {"metadata": {"labels": {"plan": plan["metadata"]["uid"]}}})
    said = wave.play("mtv_migrate", "-e", "ferry_mtv_action=cleanup", code=2)
    assert "1 volumes in" in said and "web01-0" in said and "The plan is archived, and nothing else was touched" in said
    assert wave.api.get(PLAN, wave.namespace, "wave1") is not None
    wave.play("mtv_migrate", "-e", "ferry_mtv_action=cleanup", "-e", "ferry_mtv_remove_volumes=true")
    assert wave.api.get(PLAN, wave.namespace, "wave1") is None
