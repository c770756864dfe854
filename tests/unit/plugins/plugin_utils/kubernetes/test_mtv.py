# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A wave as objects of MTV: what is written out, and what is refused, all at once."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.kubernetes_names import is_label, to_label
from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import mtv


def fact(name: str, moref: str, networks: tuple[str, ...] = ("VM Network",), stores: tuple[str, ...] = ("fast",)) -> dict[str, Any]:
    nics = [{"network": n, "network_moref": f"network-{n[:2]}"} for n in networks]
    return {"name": name, "moref": moref, "nics": nics, "disks": [{"datastore": s, "datastore_moref": f"datastore-{s}"} for s in stores]}


def settings(**more: Any) -> dict[str, Any]:
    return {
        "name": "wave1",
        "namespace": "mtv",
        "target_namespace": "vms",
        "strategy": "cold",
        "source": {"url": "https://vc.example/sdk"},
        "destination": {"make": True},
        "network_map": {"VM Network": "pod", "backend": "prod/backend"},
        "storage_map": {"*": "ceph"},
        "facts": [fact("web01", "vm-1"), fact("DB 01", "vm-2", ("VM Network", "backend"), ("fast", "slow"))],
        **more,
    }


def made(wave: list[dict[str, Any]] | None = None, **more: Any) -> mtv.Made:
    return mtv.make(wave or [{"name": "web01"}, {"name": "DB 01"}], settings(**more))


def specs(found: mtv.Made) -> dict[str, dict[str, Any]]:
    return {f"{o['kind']}/{o['metadata']['name']}": o["spec"] for o in found.objects}


def test_a_wave_becomes_a_plan() -> None:
    found = made()
    assert found.errors == []
    by_name = specs(found)
    assert list(by_name) == [
        "Provider/wave1-source",
        "Provider/host",
        "NetworkMap/wave1-networks",
        "StorageMap/wave1-storage",
        "Plan/wave1",
    ]
    assert by_name["Provider/wave1-source"]["settings"] == {"sdkEndpoint": "vcenter", "esxiCloneMethod": "ssh"}
    assert by_name["Provider/host"] == {"type": "openshift", "url": "", "secret": {}}
    assert by_name["NetworkMap/wave1-networks"]["map"] == [
        {"source": {"id": "network-VM"}, "destination": {"type": "pod"}},
        {"source": {"id": "network-ba"}, "destination": {"type": "multus", "namespace": "prod", "name": "backend"}},
    ]
    assert [row["source"]["id"] for row in by_name["StorageMap/wave1-storage"]["map"]] == ["datastore-fast", "datastore-slow"]
    plan = by_name["Plan/wave1"]
    assert plan["vms"] == [{"id": "vm-1", "targetName": "web01"}, {"id": "vm-2", "targetName": "db-01"}]
    assert plan["type"] == "cold" and "warm" not in plan
    assert {k: plan[k] for k in mtv.PLAN_DEFAULTS} == mtv.PLAN_DEFAULTS
    assert found.secrets == [{"name": "wave1-source-credentials", "who": "source", "plan": "wave1"}]


def test_secrets_are_not_in_it() -> None:
    hosts = [{"id": "host-1", "ip_address": "192.0.2.1"}]
    found = made(esxi_hosts=hosts, destination={"name": "far", "url": "https://far.example:6443"})
    assert found.errors == []
    assert [s["name"] for s in found.secrets] == ["wave1-source-credentials", "far-credentials", "wave1-source-host-1-credentials"]
    assert specs(found)["Host/wave1-source-host-1"]["secret"]["name"] == "wave1-source-host-1-credentials"


def test_what_others_share_does_not_go_with_the_plan() -> None:
    found = made(source={"url": "https://vc.example/sdk", "name": "vcenter", "vddk_image": "registry.example/vddk:8"})
    labels = {o["kind"]: o["metadata"]["labels"] for o in found.objects if o["metadata"]["name"] != "host"}
    assert mtv.PLAN_LABEL not in labels["Provider"]
    assert labels["Plan"][mtv.PLAN_LABEL] == labels["NetworkMap"][mtv.PLAN_LABEL] == "wave1"
    assert specs(found)["Provider/vcenter"]["settings"]["vddkInitImage"] == "registry.example/vddk:8"


def test_hooks_are_of_every_vm() -> None:
    hooks = [{"step": "PreHook", "image": "quay.example/hook", "playbook": "- hosts: all\n", "deadline": 60}]
    found = made(hooks=hooks)
    assert found.errors == []
    hook = specs(found)["Hook/wave1-hook-1"]
    assert base64.b64decode(hook["playbook"]) == b"- hosts: all\n"
    assert hook["deadline"] == 60
    assert all(
        vm["hooks"] == [{"step": "PreHook", "hook": {"name": "wave1-hook-1", "namespace": "mtv"}}]
        for vm in specs(found)["Plan/wave1"]["vms"]
    )


def test_other_sources_are_said_by_the_inventory() -> None:
    wave = [{"name": "web01", "id": "c0ffee", "networks": ["ovirtmgmt"], "storages": ["data"]}]
    found = made(wave, facts=[], source={"type": "ovirt", "url": "https://rhv.example/ovirt-engine/api"}, network_map={"ovirtmgmt": "pod"})
    assert found.errors == []
    assert "settings" not in specs(found)["Provider/wave1-source"]
    assert specs(found)["NetworkMap/wave1-networks"]["map"] == [{"source": {"name": "ovirtmgmt"}, "destination": {"type": "pod"}}]
    assert specs(found)["Plan/wave1"]["vms"][0]["id"] == "c0ffee"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"network_map": {"VM Network": "pod"}}, "the network 'backend' of DB 01 has no entry in ferry_network_map"),
        ({"network_map": {"*": "pod"}}, "DB 01 would have 2 cards on the pod network"),
        ({"network_map": {"*": 7}}, "ferry_network_map has 7"),
        ({"storage_map": {"fast": "ceph"}}, "the storage 'slow' of DB 01 has no entry in ferry_storage_map"),
        ({"storage_map": {"*": {"storage_class": "a", "size": 1}}}, "ferry_storage_map has size"),
        ({"storage_map": {"*": None}}, "has no entry in ferry_storage_map"),
        ({"target_namespace": "My VMs"}, "'My VMs' is no name for Kubernetes (target namespace)"),
        ({"source": {"type": "hyperv", "url": "x"}}, "the source's type 'hyperv' is none of"),
        ({"source": {}}, "the source has no url"),
        ({"source": {"url": "x", "sdk_endpoint": "host"}}, "sdk_endpoint 'host' is neither"),
        ({"source": {"type": "ova", "url": "nfs"}, "strategy": "warm"}, "knows nothing of changed blocks"),
        ({"strategy": "hot"}, "the strategy 'hot' is none of cold, warm"),
        ({"hooks": [{"step": "before", "image": "x"}]}, "has the step 'before'"),
        ({"hooks": [{"step": "PreHook"}]}, "has to have either an image or an aap"),
        ({"plan": {"targetNamespace": "x"}}, "targetNamespace of ferry_mtv_plan is what other variables say"),
        ({"esxi_hosts": [{"id": "host-1"}]}, "has no ip_address"),
        ({"name": "w" * 60}, "is longer than 40 characters"),
    ],
)
def test_what_cannot_be_is_said(more: dict[str, Any], said: str) -> None:
    assert any(said in error for error in made(**more).errors), made(**more).errors


def test_names_that_cannot_be_are_said_together() -> None:
    facts = [fact(n, f"vm-{i}") for i, n in enumerate(("Web_01", "web 01", "在庫", "ok"))]
    wave: list[dict[str, Any]] = [{"name": f["name"]} for f in facts]
    wave[3]["target_name"] = "Not_Ok"
    errors = made(wave, facts=facts).errors
    assert len(errors) == 3
    assert any("Web_01, web 01 would all be called web-01" in e for e in errors)
    assert any("nothing of the name '在庫' can be kept" in e for e in errors)
    assert any("ok cannot be called 'Not_Ok'" in e for e in errors)


@pytest.mark.parametrize("name", ["a" * 70, "DC0_C0_VM0", " x ", "ä-b", "-", "9.5 GB"])
def test_a_label_is_one(name: str) -> None:
    found = to_label(name)
    assert found == "" or is_label(found)
    assert found == to_label(found)


def test_the_vms_of_a_play_are_found_in_a_plan() -> None:
    vms = [{"id": "vm-1", "targetName": "web01"}, {"id": "vm-2", "targetName": "db-01"}, {"name": "x", "targetName": "x"}]
    assert mtv.refs(vms, [{"name": "DB 01"}]) == [{"id": "vm-2"}]
    assert mtv.refs(vms, [{"name": "anything", "id": "vm-1"}, {"name": "x"}]) == [{"id": "vm-1"}, {"name": "x"}]
    assert mtv.refs(vms, [{"name": "none"}]) == []
