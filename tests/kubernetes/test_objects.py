# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every object that the roles can make, of every kind of source, is taken by the API server under strict validation, in every version that the
importers' definitions serve."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import harvester, mtv, prerequisites
from tests.kubernetes import site as sites
from tests.lab.kubernetes import crds
from tests.lab.kubernetes.api import Kind, Object

SOURCES: dict[str, dict[str, Any]] = {
    "vsphere": {"url": "https://vc.example/sdk", "vddk_image": "registry.example/vddk:8", "settings": {"useVddkAioOptimization": True}},
    "esxi": {"type": "vsphere", "url": "https://esx1.example/sdk", "sdk_endpoint": "esxi", "esxi_clone_method": "vib"},
    "ovirt": {"type": "ovirt", "url": "https://rhv.example/ovirt-engine/api"},
    "openstack": {"type": "openstack", "url": "https://keystone.example:5000/v3"},
    "ova": {"type": "ova", "url": "nfs.example:/ova"},
    "openshift": {"type": "openshift", "url": "https://api.other.example:6443"},
}
#: Everything that a wave can say.
WAVE = [
    {
        "name": "web01",
        "target_name": "web",
        "networks": ["lan", "dmz", "old"],
        "storages": ["fast", "slow"],
        "plan": {"rootDisk": "/dev/sda"},
    }
]
SETTINGS: dict[str, Any] = {
    "name": "wave1",
    "target_namespace": "vms",
    "strategy": "cold",
    "destination": {"name": "far", "url": "https://api.far.example:6443"},
    "network_map": {"lan": "pod", "dmz": "net/dmz", "old": "ignored"},
    "storage_map": {
        "fast": {"storage_class": "ceph", "volume_mode": "Block", "access_mode": "ReadWriteMany"},
        "slow": {
            "storage_class": "ceph",
            "offload_plugin": {"vsphereXcopyConfig": {"secretRef": "array", "storageVendorProduct": "ontap"}},
        },
    },
    "hooks": [
        {"step": "PreHook", "image": "quay.example/hook", "playbook": "- hosts: all", "deadline": 300, "service_account": "hooks"},
        {"name": "by-aap", "step": "PostHook", "aap": {"jobTemplateId": 7, "url": "https://aap.example", "tokenSecret": {"name": "aap"}}},
    ],
    "esxi_hosts": [{"id": "host-9", "ip_address": "192.0.2.9"}],
    "plan": {"preserveStaticIPs": False, "transferNetwork": {"name": "fast", "namespace": "net"}, "targetLabels": {"team": "a"}},
}
IMPORTS: dict[str, dict[str, Any]] = {
    "vmware": {"type": "vmware", "endpoint": "https://vc.example/sdk", "dc": "DC0"},
    "openstack": {"type": "openstack", "endpoint": "https://keystone.example:5000/v3", "region": "RegionOne"},
    "ova": {"type": "ova", "url": "https://files.example/app.ova", "has_secret": True, "http_timeout": 60},
}


@cache
def definitions() -> list[dict[str, Any]]:
    """The importers' own; they are long."""
    return crds("crds")


def versions(kind: str, group: str) -> Iterator[Kind]:
    """Where objects of a kind are found, in each version that its definition serves."""
    found = [d for d in definitions() if d["spec"]["names"]["kind"] == kind and d["spec"]["group"] == group]
    assert found, f"no definition of {kind} ({group})"
    for definition in found:
        for version in definition["spec"]["versions"]:
            if version["served"]:
                yield Kind(f"{group}/{version['name']}", definition["spec"]["names"]["plural"])


def taken(site: sites.Site, objects: list[Object]) -> set[str]:
    """Make each object in each version, and take it away again; the kinds that were made. ApiError: one was refused."""
    made = set()
    for one in objects:
        group = str(one["apiVersion"]).partition("/")[0]
        for kind in versions(str(one["kind"]), group):
            body = {**one, "apiVersion": kind.api, "metadata": {**one["metadata"], "namespace": site.namespace}}
            site.api.create(kind, site.namespace, body)
            site.api.delete(kind, site.namespace, str(one["metadata"]["name"]))
            made.add(str(one["kind"]))
    return made


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_what_the_role_mtv_makes(site: sites.Site, source: str) -> None:
    sites.namespace(site.api, site.namespace)
    warm = SOURCES[source].get("type", "vsphere") in mtv.WARM_SOURCES
    found = mtv.make(WAVE, {**SETTINGS, "namespace": site.namespace, "source": SOURCES[source], "strategy": "warm" if warm else "cold"})
    assert found.errors == []
    plan = {"plan": {"name": "wave1", "namespace": site.namespace}, "cutover": "2026-01-01T00:00:00Z", "cancel": [{"id": "vm-1"}]}
    migration = {"apiVersion": mtv.API, "kind": "Migration", "metadata": {"name": "wave1-1"}, "spec": plan}
    kinds = {"Provider", "Host", "Hook", "NetworkMap", "StorageMap", "Plan", "Migration"}
    assert taken(site, [*found.objects, migration]) == kinds
    # The check before the first object says the same of the same definitions.
    told = prerequisites.gathered({"objects": found.objects, "definitions": definitions()})
    assert [r for r in told["rows"] if r["id"] == "ferry.cluster.definitions"] == []


@pytest.mark.parametrize("source", sorted(IMPORTS))
def test_what_the_role_harvester_makes(site: sites.Site, source: str) -> None:
    sites.namespace(site.api, site.namespace)
    settings = {
        "name": "wave1",
        "namespace": site.namespace,
        "source": IMPORTS[source],
        "network_map": {"*": "default/vlan1"},
        "storage_map": {"*": "longhorn"},
    }
    found = harvester.make([{"name": "web01", "networks": ["lan"], "storages": ["fast"]}], settings)
    assert found.errors == []
    assert taken(site, [*found.sources, *found.imports]) == {harvester.KINDS[source], "VirtualMachineImport"}
    told = prerequisites.gathered({"objects": found.sources + found.imports, "definitions": definitions()})
    assert [r for r in told["rows"] if r["id"] == "ferry.cluster.definitions"] == []
