# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A wave as imports of Harvester, and the traps of its importer."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import harvester
from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes.harvester import LONGEST_SHUTDOWN


def fact(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "datacenter": "DC0",
        "folder": "/DC0/vm/prod/web",
        "cpus": 2,
        "cores_per_socket": 1,
        "nics": [{"network": "VM Network"}],
        "disks": [{"datastore": "fast", "capacity": 3 << 30}, {"datastore": "slow", "capacity": 1 << 29}],
        **more,
    }


def made(*facts: dict[str, Any], wave: list[dict[str, Any]] | None = None, **more: Any) -> harvester.Made:
    settings = {
        "name": "wave1",
        "namespace": "vms",
        "source": {"type": "vmware", "endpoint": "https://vc.example/sdk"},
        "network_map": {"VM Network": "default/vlan1"},
        "storage_map": {"*": "longhorn"},
        "facts": list(facts),
        **more,
    }
    return harvester.make(wave if wave is not None else [{"name": f["name"]} for f in facts], settings)


def test_a_wave_becomes_imports() -> None:
    found = made(fact("Web01"), fact("db01", folder="/DC0/vm"))
    assert (found.errors, found.notes) == ([], [])
    assert [s["spec"] for s in found.sources] == [
        {"endpoint": "https://vc.example/sdk", "dc": "DC0", "credentials": {"name": "wave1-source-credentials", "namespace": "vms"}}
    ]
    web, db = (i["spec"] for i in found.imports)
    assert [i["metadata"]["name"] for i in found.imports] == ["web01", "db01"]
    assert web["virtualMachineName"] == "Web01"
    assert (web["folder"], db.get("folder")) == ("prod/web", None)
    assert web["networkMapping"] == [{"sourceNetwork": "VM Network", "destinationNetwork": "default/vlan1"}]
    assert web["storageClass"] == "longhorn"
    assert (web["forcePowerOff"], web["gracefulShutdownTimeoutSeconds"], web["skipPreflightChecks"]) == (False, LONGEST_SHUTDOWN, False)
    assert found.scratch_gib == 8


def test_each_datacenter_has_a_source() -> None:
    found = made(fact("a"), fact("b", datacenter="f/DC1", folder="/f/DC1/vm/x"))
    assert [(s["metadata"]["name"], s["spec"]["dc"]) for s in found.sources] == [("wave1-source-1", "DC0"), ("wave1-source-2", "f/DC1")]
    assert [(i["spec"]["sourceCluster"]["name"], i["spec"]["folder"]) for i in found.imports] == [
        ("wave1-source-1", "prod/web"),
        ("wave1-source-2", "x"),
    ]


@pytest.mark.parametrize(
    ("vm", "more", "said"),
    [
        (fact("DC0_C0_VM0"), {}, "'DC0_C0_VM0' cannot be imported: Harvester calls the VM 'dc0_c0_vm0'"),
        (fact("a", nics=[{"network": "lost"}]), {}, "the importer would drop its card"),
        (fact("a"), {"network_map": {"*": "pod"}}, "ferry_network_map has 'pod'"),
        (fact("a"), {"storage_map": {"fast": "x", "slow": "y"}}, "would have several storage classes (x, y)"),
        (fact("a"), {"nic_model": "vmxnet3"}, "ferry_harvester_nic_model 'vmxnet3' is none of"),
        (fact("a"), {"source": {"type": "kvm"}}, "the source's type 'kvm' is none of"),
        (fact("a"), {"source": {"type": "vmware"}}, "the source has no endpoint"),
        (fact("a"), {"namespace": ""}, "is no name for Kubernetes (namespace)"),
    ],
)
def test_what_the_importer_would_not_say(vm: dict[str, Any], more: dict[str, Any], said: str) -> None:
    found = made(vm, **more)
    assert any(said in e for e in found.errors), found.errors


def test_names_that_collide_in_lower_case() -> None:
    assert any("WEB, web would all be called web" in e for e in made(fact("WEB"), fact("web")).errors)


def test_what_somebody_should_know() -> None:
    found = made(fact("a", cpus=4, cores_per_socket=2, nics=[{"network": "dmz"}]), network_map={"*": "ignored"})
    assert found.errors == []
    assert found.imports[0]["spec"]["networkMapping"] == []
    assert any("loses its card on 'dmz'" in n for n in found.notes)


def test_other_sources() -> None:
    wave = [{"name": "a", "networks": ["net"], "storages": []}]
    cloud = made(wave=wave, source={"type": "openstack", "endpoint": "https://k.example:5000", "region": "R1"}, network_map={"net": "a/b"})
    assert cloud.errors == []
    assert cloud.sources[0]["kind"] == "OpenstackSource"
    assert cloud.sources[0]["spec"]["uploadImageRetryCount"] == 30
    assert "storageClass" not in cloud.imports[0]["spec"]
    ova = made(wave=wave, source={"type": "ova", "url": "https://f.example/a.ova"}, network_map={"net": "a/b"})
    assert ova.sources[0]["spec"] == {"url": "https://f.example/a.ova", "httpTimeoutSeconds": 600}


def one(name: str, state: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"virtualMachineName": name}, "status": {"importStatus": state, **status}}


def test_progress_is_the_slowest_ones() -> None:
    failed = one("c", "VMMigrationFailed", importConditions=[{"type": "VMExportFailed", "status": "True", "message": "no space"}])
    disks = [{"VirtualMachineImage": "i1"}, {"VirtualMachineImage": "i2"}]
    submitted = one("b", "diskImageSubmitted", diskImportStatus=disks)
    images = [{"metadata": {"name": "i1"}, "status": {"progress": 100}}, {"metadata": {"name": "i2"}}]
    found = harvester.progress([one("a", "virtualMachineRunning"), submitted, failed], images)
    assert (found["least"], found["open"], found["failed"]) == (4, ["b"], ["c"])
    assert found["lines"][1] == "b: diskImageSubmitted, images 50 %"
    assert found["rows"][2]["reasons"] == ["VMExportFailed: no space"]
    assert harvester.progress([{"metadata": {"name": "new"}}], [])["least"] == 0
    assert harvester.progress([failed], [])["least"] == len(harvester.STATES)


def test_an_invalid_import_says_where_the_reason_is() -> None:
    assert "log only" in harvester.progress([one("a", "virtualMachineImportInvalid")], [])["rows"][0]["reasons"][0]


def test_an_empty_status_of_a_source_means_something() -> None:
    assert harvester.source_state({"status": {"status": "clusterReady"}}) == {"ready": True, "why": ""}
    assert "Secret lacks a key" in harvester.source_state({})["why"]
    assert "clusterNotReady" in harvester.source_state({"status": {"status": "clusterNotReady"}})["why"]


@pytest.mark.parametrize(
    ("power", "tools", "settings", "wanted"),
    [
        # Nobody may pull the plug: the importer does after its timeout, always, so that is as long as it can be.
        ("on", "guestToolsRunning", {"on_timeout": "fail"}, (False, LONGEST_SHUTDOWN)),
        ("on", "guestToolsNotRunning", {"on_timeout": "fail"}, (False, LONGEST_SHUTDOWN)),
        ("on", "guestToolsRunning", {"on_timeout": "poweroff", "shutdown_timeout": 300}, (False, 300)),
        ("on", "guestToolsNotRunning", {"on_timeout": "poweroff", "shutdown_timeout": 300}, (True, 300)),
        ("off", "guestToolsNotRunning", {"on_timeout": "poweroff"}, (False, 60)),
        ("on", "guestToolsRunning", {"force_power_off": True}, (True, LONGEST_SHUTDOWN)),
    ],
)
def test_how_a_vm_comes_to_be_off(power: str, tools: str, settings: dict[str, Any], wanted: tuple[bool, int]) -> None:
    spec = made(fact("a", power=power, tools_running=tools), **settings).imports[0]["spec"]
    assert (spec["forcePowerOff"], spec["gracefulShutdownTimeoutSeconds"]) == wanted
