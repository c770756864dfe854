# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an importer needs, put together: all at once, each with its category, and what could not be asked for."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.reach import reach
from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes.prerequisites import gathered

CONCERN = {"id": "vmware.tpm.detected", "category": "warning", "label": "TPM detected", "assessment": "It has one.", "advice": "Look."}


def definition(kind: str, spec: dict[str, Any], version: str = "v1beta1", served: bool = True) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"properties": {"spec": spec}}}
    return {
        "spec": {
            "group": "forklift.konveyor.io",
            "names": {"kind": kind},
            "versions": [{"name": version, "served": served, "schema": schema}],
        }
    }


def made(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "forklift.konveyor.io/v1beta1", "kind": kind, "spec": spec}


def ids(found: dict[str, Any], which: str = "critical") -> list[str]:
    return [r["id"] for r in found["rows"] if r["category"] == which]


NOTHING: dict[str, Any] = {"definitions": [], "classes": [], "attachments": [], "machines": []}


def test_nothing_in_the_way() -> None:
    assert gathered(NOTHING) == {"rows": [], "errors": [], "warnings": [], "notes": [], "ignored": []}


def test_fields_that_the_cluster_does_not_know() -> None:
    vms = {"type": "array", "items": {"properties": {"id": {}, "hooks": {"items": {"properties": {"step": {}}}}}}}
    known = definition("Plan", {"properties": {"vms": vms, "free": {"x-kubernetes-preserve-unknown-fields": True}}})
    plan = made(
        "Plan",
        {
            "type": "cold",
            "free": {"any": {"thing": 1}},
            "vms": [{"id": "a", "targetName": "b", "hooks": [{"step": "PreHook", "hook": {}}]}],
        },
    )
    found = gathered({**NOTHING, "objects": [plan], "definitions": [known]})
    assert found["errors"] == [
        "the cluster knows no spec.type, spec.vms.targetName, spec.vms.hooks.hook of Plan: it is of another release than this collection was"
        " written for (ferry.cluster.definitions). Install or update the importer's operator"
    ]
    settings = definition("Provider", {"properties": {"settings": {"additionalProperties": {"type": "string"}}}})
    assert gathered({**NOTHING, "objects": [made("Provider", {"settings": {"x": "y"}})], "definitions": [settings]})["errors"] == []


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ([], "knows no Plan (forklift.konveyor.io)"),
        ([definition("Plan", {}, version="v1alpha1")], "knows no v1beta1 of Plan"),
        ([definition("Plan", {}, served=False)], "knows no v1beta1 of Plan"),
    ],
)
def test_a_missing_or_an_older_definition(there: list[dict[str, Any]], said: str) -> None:
    (error,) = gathered({**NOTHING, "objects": [made("Plan", {})], "definitions": there})["errors"]
    assert said in error


def test_storage_classes_and_networks() -> None:
    objects = [
        made("StorageMap", {"map": [{"destination": {"storageClass": "ceph"}}, {"destination": {"storageClass": "slow"}}]}),
        made("NetworkMap", {"map": [{"destination": {"type": "pod"}}, {"destination": {"type": "multus", "namespace": "a", "name": "b"}}]}),
        made("VirtualMachineImport", {"storageClass": "longhorn", "networkMapping": [{"destinationNetwork": "default/vlan1"}]}),
    ]
    known = [definition(kind, {}) for kind in ("StorageMap", "NetworkMap", "VirtualMachineImport")]
    found = gathered({**NOTHING, "objects": objects, "definitions": known, "classes": ["ceph"]})
    assert ids(found) == ["ferry.cluster.network", "ferry.cluster.storage"]
    assert "NetworkAttachmentDefinition a/b, default/vlan1" in found["errors"][0]
    assert "StorageClass slow, longhorn (it has ceph)" in found["errors"][1]
    unknown = gathered({"objects": objects, "definitions": known})
    assert unknown["errors"] == [] and ids(unknown, "warning") == ["VMAlreadyExists", "ferry.cluster.network", "ferry.cluster.storage"]
    assert "were not looked for" in unknown["warnings"][1]


def test_names_that_are_taken() -> None:
    there = [{"metadata": {"name": n}} for n in ("web01", "db01")]
    done = {"newName": "web01", "conditions": [{"type": "Succeeded", "status": "True"}]}
    plan = {"status": {"migration": {"vms": [done]}}}
    found = gathered({**NOTHING, "machines": there, "names": ["web01", "db01", "app01"], "plan": plan})
    assert found["errors"] == [
        "Target VM already exists: db01 (VMAlreadyExists). Remove or rename what is there, or give another name (ferry_target_name)"
    ]


def test_concerns_of_the_source_are_told_once_and_can_be_ignored() -> None:
    critical = {**CONCERN, "id": "VMHasSnapshots", "category": "critical"}
    missing = {**CONCERN, "id": "ferry.privilege.missing", "category": "critical"}
    said_twice = {**CONCERN, "id": "VMNetworksNotMapped", "category": "critical"}
    vms = [{"name": n, "concerns": [CONCERN, critical, missing, said_twice]} for n in ("a", "b")]
    checked = {"vms": vms, "wave_concerns": [{**missing, "assessment": "The account lacks VApp.Export."}]}
    found = gathered({**NOTHING, "errors": ["no map"], "checked": checked})
    assert found["errors"][0] == "no map"
    assert ids(found) == ["VMHasSnapshots", "ferry.privilege.missing"]
    assert found["warnings"] == ["a, b: TPM detected: It has one (vmware.tpm.detected). Look"]
    ignoring = gathered({**NOTHING, "checked": checked, "ignore": ["VMHasSnapshots", "nothing"]})
    assert ignoring["ignored"] == ["VMHasSnapshots"]
    assert len(ignoring["errors"]) == 1 and len(ignoring["rows"]) == 3


def test_the_operator_and_addresses() -> None:
    csv = {"metadata": {"name": "mtv-operator.v2.10.0"}, "status": {"phase": "Failed"}}
    rows = [{"address": "esx1", "port": 902, "open": False, "said": "timed out"}, {"address": "vc", "port": 443, "open": True, "said": ""}]
    found = gathered({**NOTHING, "versions": [csv, {"metadata": {"name": "other.v1"}}], "reach": rows})
    assert [w.split(" (")[0] for w in found["warnings"]] == ["from this machine esx1:902", "the operator mtv-operator.v2.10.0 is Failed"]
    assert found["notes"] == ["the operator is mtv-operator.v2.10.0 (ferry.cluster.operator)"]


def test_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        rows = reach([f"127.0.0.1:{port}", "127.0.0.1"], [port], 5)
        assert rows == [{"address": "127.0.0.1", "port": port, "open": True, "said": ""}] * 2
    shut = reach(["127.0.0.1"], [port], 5)
    assert [(r["open"], "refused" in r["said"]) for r in shut] == [(False, True)]
    assert reach(["no-such-host.invalid"], [443], 5)[0]["open"] is False
    assert reach([f"[::1]:{port}"], [443], 5)[0]["port"] == port


@pytest.mark.parametrize(
    ("addresses", "ports", "timeout"),
    [
        (["a"], [0], 5),
        (["a"], [65536], 5),
        ([""], [443], 5),
        (["a"], [443], 0),
        (["a"], [443], 61),
        ([f"h{n}" for n in range(2001)], [1], 5),
    ],
)
def test_what_cannot_be_reached_at_all(addresses: list[str], ports: list[int], timeout: float) -> None:
    with pytest.raises(BadInput):
        reach(addresses, ports, timeout)
