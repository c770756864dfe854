# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VM of KubeVirt beside its source: what is the same, and every way in which it can differ."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes.verify import quantity, verify

GIB = 1 << 30
FACTS: dict[str, Any] = {
    "name": "db01",
    "moref": "vm-2",
    "cpus": 4,
    "cores_per_socket": 2,
    "memory_mb": 1024,
    "firmware": "efi",
    "secure_boot": False,
    "nics": [{"mac": "00:50:56:0A:00:01", "network": "lan"}, {"mac": "00:50:56:0a:00:02", "network": "dmz"}],
    "disks": [
        {"label": "Hard disk 1", "capacity": GIB, "path": "[fast] db01/db01-000002.vmdk"},
        {"label": "Hard disk 2", "capacity": 2 * GIB, "path": "[fast] db01/db01_1.vmdk"},
    ],
}
DOMAIN: dict[str, Any] = {
    "cpu": {"cores": 2, "sockets": 2},
    "memory": {"guest": "1Gi"},
    "firmware": {"bootloader": {"efi": {"secureBoot": False}}},
    "devices": {
        "interfaces": [{"name": "a", "macAddress": "00-50-56-0a-00-01"}, {"name": "b", "macAddress": "00:50:56:0a:00:02"}],
        "disks": [{"name": "x", "disk": {}}, {"name": "y", "disk": {}}, {"name": "init", "cdrom": {}}],
    },
}
TEMPLATE: dict[str, Any] = {
    "domain": DOMAIN,
    "networks": [{"name": "a", "pod": {}}, {"name": "b", "multus": {"networkName": "dmz"}}],
    "volumes": [
        {"name": "x", "persistentVolumeClaim": {"claimName": "c1"}},
        {"name": "y", "dataVolume": {"name": "c2"}},
        {"name": "init", "cloudInitNoCloud": {}},
    ],
}


def claim(name: str, size: str, source: str = "", has: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "annotations": {"forklift.konveyor.io/disk-source": source} if source else {}},
        "spec": {"resources": {"requests": {"storage": size}}},
        "status": {"capacity": {"storage": has}} if has else {},
    }


def told(facts: dict[str, Any] | None = None, claims: list[dict[str, Any]] | None = None, **template: Any) -> list[str]:
    """What differs, in words; fields of the template changed."""
    made = copy.deepcopy(TEMPLATE)
    for key, value in template.items():
        made["domain" if key in DOMAIN else key] = {**made["domain"], key: value} if key in DOMAIN else value
    vm = {"metadata": {"name": "db01"}, "spec": {"template": {"spec": made}}}
    claims = claims if claims is not None else [claim("c1", "1Gi"), claim("c2", "1Gi", has="2Gi")]
    settings = {"network_map": {"lan": "pod", "*": "vms/dmz"}, "namespace": "vms", "names": {"vm-2": "db01"}}
    found = verify([facts or FACTS, {"name": "other", "moref": "vm-9"}], [vm], claims, settings)
    (row,) = found["rows"]
    assert found["ok"] is (row["differences"] == [])
    return [f"{d['what']}: {d['source']} -> {d['made']}" for d in row["differences"]]


def test_the_same() -> None:
    assert told() == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cpu": {"cores": 4, "sockets": 2, "threads": 1}}, ["vCPUs: 4 -> 8"]),
        ({"cpu": {"cores": 1, "sockets": 4}}, ["topology: 2 a socket -> 1 a socket"]),
        ({"cpu": {}}, ["vCPUs: 4 -> 1"]),
        ({"memory": {"guest": "1024M"}}, ["memory: 1024 MiB -> 1024M (977 MiB)"]),
        ({"memory": {}}, ["memory: 1024 MiB -> nothing (0 MiB)"]),
        ({"memory": {"guest": "lots"}}, ["memory: 1024 MiB -> lots (0 MiB)"]),
        ({"firmware": {}}, ["firmware: EFI -> BIOS"]),
        # KubeVirt's default of secure boot is on
        ({"firmware": {"bootloader": {"efi": {}}}}, ["firmware: EFI -> EFI with secure boot"]),
        (
            {"networks": [{"name": "a", "pod": {}}, {"name": "b", "multus": {"networkName": "prod/lan"}}]},
            ["networks: pod, vms/dmz -> pod, prod/lan"],
        ),
        ({"volumes": TEMPLATE["volumes"][:1]}, ["disks: 2 (1.00, 2.00 GiB) -> 1 (1.00 GiB)"]),
    ],
)
def test_what_differs(changed: dict[str, Any], said: list[str]) -> None:
    assert told(**changed) == said


def test_cards() -> None:
    devices = DOMAIN["devices"]
    swapped = {**devices, "interfaces": devices["interfaces"][::-1]}
    assert told(devices=swapped) == ["network cards: 00:50:56:0a:00:01, 00:50:56:0a:00:02 -> 00:50:56:0a:00:02, 00:50:56:0a:00:01"]
    assert told(devices={**devices, "interfaces": []}) == ["network cards: 00:50:56:0a:00:01, 00:50:56:0a:00:02 -> none"]
    # A VM whose cards are all ignored gets one on the pod network from Harvester's importer.
    pod = {"devices": {**devices, "interfaces": [{"name": "a"}]}, "networks": [{"name": "a", "pod": {}}]}
    assert told({**FACTS, "nics": []}, **pod) == []


def test_disks_by_their_sources_or_by_their_order() -> None:
    first, second = "[fast] db01/db01.vmdk", "[fast] db01/db01_1.vmdk"
    # Forklift has an order of its own: what each came from counts.
    assert told(claims=[claim("c1", "2Gi", second), claim("c2", "1Gi", first)]) == []
    assert told(claims=[claim("c1", "1Gi", second), claim("c2", "1Gi", first)]) == ["Hard disk 2: 2.00 GiB -> 1.00 GiB"]
    assert told(claims=[claim("c1", "1Gi", first), claim("c2", "2Gi", "[fast] x/x.vmdk")]) == ["Hard disk 2: 2.00 GiB -> not there"]
    assert told(claims=[claim("c1", "2Gi"), claim("c2", "1Gi")]) == ["order of the disks: 2 (1.00, 2.00 GiB) -> 2 (2.00, 1.00 GiB)"]
    assert told(claims=[claim("c1", "1Gi"), claim("c2", "1Gi")]) == ["sizes of the disks: 2 (1.00, 2.00 GiB) -> 2 (1.00, 1.00 GiB)"]
    assert told(claims=[claim("c1", "3Gi"), claim("c2", "2Gi")]) == []
    assert told(claims=[]) == ["sizes of the disks: 2 (1.00, 2.00 GiB) -> 2 (0.00, 0.00 GiB)"]


def test_a_vm_that_is_not_there_and_a_patch() -> None:
    settings = {"network_map": {}, "namespace": "vms", "names": {"vm-2": "db01"}}
    found = verify([FACTS], [], [], settings)
    assert found["lines"] == ["db01: VM: there at the source, not there now"]
    assert found["rows"][0]["mend"] == {}
    vm = {
        "metadata": {"name": "db01"},
        "spec": {"template": {"spec": {**TEMPLATE, "domain": {**DOMAIN, "cpu": {"cores": 4, "sockets": 2}}}}},
    }
    domain = verify([FACTS], [vm], [], settings)["rows"][0]["mend"]["spec"]["template"]["spec"]["domain"]
    assert domain["cpu"] == {"cores": 2, "sockets": 2, "threads": 1}
    assert domain["memory"] == {"guest": "1024Mi"}
    uneven = verify([{**FACTS, "cpus": 3}], [vm], [], settings)["rows"][0]["mend"]["spec"]["template"]["spec"]["domain"]
    assert uneven["cpu"] == {"cores": 1, "sockets": 3, "threads": 1}


def test_an_instance_type_says_processors_and_memory() -> None:
    vm = {
        "metadata": {"name": "db01"},
        "spec": {"instancetype": {"name": "u1"}, "template": {"spec": {**TEMPLATE, "domain": {**DOMAIN, "cpu": {}}}}},
    }
    settings = {"network_map": {"lan": "pod", "*": "vms/dmz"}, "namespace": "vms", "names": {"vm-2": "db01"}}
    assert verify([FACTS], [vm], [claim("c1", "1Gi"), claim("c2", "2Gi")], settings)["ok"] is True


@pytest.mark.parametrize(
    ("text", "count"),
    [("1Gi", GIB), ("1024M", 1024 * 10**6), ("2e9", 2 * 10**9), ("1073741824", GIB), ("1500m", 1), ("0.5Ki", 512), (0, 0)],
)
def test_quantities(text: str, count: int) -> None:
    assert quantity(text) == count


@pytest.mark.parametrize("text", ["", "Gi", "1GB", "1.2.3", "one", "1e", "--1"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        quantity(text)
