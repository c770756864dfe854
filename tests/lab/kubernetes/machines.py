# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The VirtualMachines that the controllers make: as Forklift does (pkg/controller/plan/adapter/vsphere/builder.go, commit d42511bb) and as
Harvester's importer does (pkg/source/helper.go, pkg/source/network.go, v1.8.1). A source is what the switch C(sources) says of it.
"""

from __future__ import annotations

from typing import Any

from .api import CLAIM, VM, Api, ApiError, Object

SourceVm = dict[str, Any]


def _make(api: Api, name: str, namespace: str, spec: Object, claims: list[Object], labels: dict[str, str]) -> None:
    body = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": name, "labels": labels}, "spec": spec}
    for kind, one in [*((CLAIM, claim) for claim in claims), (VM, body)]:
        try:
            api.create(kind, namespace, one)
        except ApiError as e:
            if e.reason != "AlreadyExists":
                raise


def _claim(name: str, size: int, annotations: dict[str, str]) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": str(size)}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "annotations": annotations}, "spec": spec}


def _wrong(domain: Object, wrong: Object) -> None:
    for key, value in wrong.items():
        domain[key] = {**domain.get(key, {}), **value}


def forklift(api: Api, name: str, namespace: str, source: SourceVm, networks: list[Object], wrong: Object) -> None:
    """C(networks): for each card the destination that the NetworkMap gives it."""
    cards = [(nic, to) for nic, to in zip(source["nics"], networks, strict=True) if to["type"] != "ignored"]
    interfaces, attachments = [], []
    for number, (nic, to) in enumerate(cards):
        pod = to["type"] == "pod"
        interfaces.append(
            {"name": f"net-{number}", "model": "virtio", "macAddress": nic["mac"], **({"masquerade": {}} if pod else {"bridge": {}})}
        )
        where = {"pod": {}} if pod else {"multus": {"networkName": f"{to['namespace']}/{to['name']}"}}
        attachments.append({"name": f"net-{number}", **where})
    loader: Object = {"efi": {"secureBoot": bool(source.get("secure_boot"))}} if source.get("firmware") == "efi" else {"bios": {}}
    claims = [
        _claim(f"{name}-{number}", disk["capacity"], {"forklift.konveyor.io/disk-source": disk["path"]})
        for number, disk in enumerate(source["disks"])
    ]
    domain: Object = {
        "cpu": {"sockets": source["cpus"] // source["cores_per_socket"], "cores": source["cores_per_socket"]},
        "memory": {"guest": str(source["memory_mb"] << 20)},
        "firmware": {"bootloader": loader},
        "devices": {
            "interfaces": interfaces,
            "disks": [{"name": f"vol-{n}", "disk": {"bus": "virtio"}} for n in range(len(claims))],
        },
    }
    _wrong(domain, wrong)
    volumes = [{"name": f"vol-{n}", "persistentVolumeClaim": {"claimName": c["metadata"]["name"]}} for n, c in enumerate(claims)]
    spec = {"runStrategy": "Always", "template": {"spec": {"domain": domain, "networks": attachments, "volumes": volumes}}}
    _make(api, name, namespace, spec, claims, {"vmID": str(source.get("id", ""))})


def harvester(api: Api, name: str, namespace: str, source: SourceVm, mapping: list[Object], images: list[Object], wrong: Object) -> None:
    """Traps included: vCPUs are multiplied, memory is decimal, a card without a mapping is dropped."""
    to = {m["sourceNetwork"]: m["destinationNetwork"] for m in mapping}
    cards = [nic for nic in source["nics"] if nic["network"] in to]
    interfaces: list[Object] = [
        {"name": f"migrated-{n}", "macAddress": nic["mac"], "model": "virtio", "bridge": {}} for n, nic in enumerate(cards)
    ]
    attachments: list[Object] = [{"name": f"migrated-{n}", "multus": {"networkName": to[nic["network"]]}} for n, nic in enumerate(cards)]
    if not cards:
        interfaces, attachments = [{"name": "pod-network", "masquerade": {}}], [{"name": "pod-network", "pod": {}}]
    memory = f"{source['memory_mb']}M"
    claims = [_claim(i["VirtualMachineImage"], i["diskSize"], {}) for i in images]
    domain: Object = {
        "cpu": {"cores": source["cpus"], "sockets": source["cores_per_socket"], "threads": 1},
        "memory": {"guest": memory},
        "resources": {"limits": {"memory": memory, "cpu": str(source["cpus"])}},
        "devices": {
            "interfaces": interfaces,
            "disks": [{"name": f"disk-{n}", "bootOrder": n + 1, "disk": {"bus": i["busType"]}} for n, i in enumerate(images)],
        },
    }
    if source.get("firmware") == "efi":
        domain["firmware"] = {"bootloader": {"efi": {"secureBoot": bool(source.get("secure_boot"))}}}
    _wrong(domain, wrong)
    volumes = [{"name": f"disk-{n}", "persistentVolumeClaim": {"claimName": c["metadata"]["name"]}} for n, c in enumerate(claims)]
    spec = {"runStrategy": "RerunOnFailure", "template": {"spec": {"domain": domain, "networks": attachments, "volumes": volumes}}}
    _make(api, name, namespace, spec, claims, {"migration.harvesterhci.io/imported": "true"})
