# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a wave becomes for Harvester's vm-import-controller: its objects, what stands in the way, and how far each import is.

The kinds and what the controller makes of them: harvester/vm-import-controller v1.8.1. Its definitions require nothing (an empty spec is
accepted), it never says why an import is invalid, it drops a card without a mapping, and it lower-cases names without looking at the rest:
so what it does not check is checked here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils.kubernetes_names import collisions, is_label

API = "migration.harvesterhci.io/v1beta1"
KINDS = {"vmware": "VmwareSource", "openstack": "OpenstackSource", "ova": "OvaSource"}
LABEL = "ferry.vmware/plan"
NIC_MODELS = ("e1000", "e1000e", "ne2k_pci", "pcnet", "rtl8139", "virtio")
DISK_BUSES = ("virtio", "scsi", "sata", "usb")
GIB = 1 << 30
#: The field is an int32; 68 years.
LONGEST_SHUTDOWN = (1 << 31) - 1
#: The states of an import in their order; before the first, its status is empty.
STATES = (
    "virtualMachineImportValid",
    "sourceReady",
    "disksExported",
    "diskImageSubmitted",
    "diskImagesReady",
    "virtualMachineCreated",
    "virtualMachineRunning",
)
FAILURES = ("virtualMachineImportInvalid", "VMMigrationFailed")

Object = dict[str, Any]


@dataclass
class Made:
    """The objects, what is wrong, and what somebody should know."""

    sources: list[Object] = field(default_factory=list)
    imports: list[Object] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: GiB that the importer needs for a while: twice the disks of the largest VM.
    scratch_gib: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {
            "sources": self.sources,
            "imports": self.imports,
            "errors": self.errors,
            "notes": self.notes,
            "scratch_gib": self.scratch_gib,
        }


def make(wave: list[dict[str, Any]], settings: dict[str, Any]) -> Made:
    """The objects of a wave. C(wave): what the inventory says of each VM: C(name), C(import), C(networks), C(storages).

    C(settings): C(name), C(namespace), C(source), C(network_map), C(storage_map), C(force_power_off), C(on_timeout), C(shutdown_timeout),
    C(nic_model), C(disk_bus), and C(facts): what M(ferry.vmware.vm_info) returned of the same VMs, where it was asked.
    """
    made = Made()
    for what in ("name", "namespace"):
        if not is_label(str(settings.get(what) or "")):
            made.errors.append(f"{settings.get(what)!r} is no name for Kubernetes ({what}): a-z, 0-9 and -, at most 63")
    kind = KINDS.get(settings["source"].get("type", "vmware"), "")
    if not kind:
        made.errors.append(f"the source's type {settings['source'].get('type')!r} is none of {', '.join(KINDS)}")
    if not wave:
        made.errors.append("no VM is in the wave")
    for what, known in (("nic_model", NIC_MODELS), ("disk_bus", DISK_BUSES)):
        if settings.get(what) and settings[what] not in known:
            made.errors.append(f"ferry_harvester_{what} {settings[what]!r} is none of {', '.join(known)}")
    facts = settings.get("facts") or []
    centers = list(dict.fromkeys(str(f["datacenter"]) for f in facts)) or [str(settings["source"].get("dc") or "")]
    names = _sources(made, settings, kind, centers)
    for number, vm in enumerate(wave):
        fact = facts[number] if facts else {}
        _import(made, vm, fact, settings, kind, names[str(fact["datacenter"]) if fact else centers[0]])
    made.errors += [
        f"{said}, because Harvester lower-cases names: rename them at the source"
        for said in collisions((str(vm["name"]), str(vm["name"]).lower()) for vm in wave)
    ]
    made.scratch_gib = max((2 * -(-sum(int(d["capacity"]) for d in f["disks"]) // GIB) for f in facts), default=0)
    return made


def _sources(made: Made, settings: dict[str, Any], kind: str, centers: list[str]) -> dict[str, str]:
    """One source a datacenter: a VmwareSource has one. Gives the source's name of each."""
    source, names = settings["source"], {}
    for number, center in enumerate(centers, 1):
        name = str(source.get("name") or f"{settings['name']}-source") + (f"-{number}" if len(centers) > 1 else "")
        names[center] = name
        if not is_label(name):
            made.errors.append(f"the source's name {name!r} is no name for Kubernetes")
        where = source.get("url") if kind == "OvaSource" else source.get("endpoint")
        if not where:
            made.errors.append(f"the source has no {'url' if kind == 'OvaSource' else 'endpoint'}")
        credentials = {"name": f"{name}-credentials", "namespace": settings["namespace"]}
        if kind == "VmwareSource":
            if not center:
                made.errors.append("the source has no dc (the datacenter)")
            spec: Object = {"endpoint": where, "dc": center, "credentials": credentials}
        elif kind == "OpenstackSource":
            if not source.get("region"):
                made.errors.append("the source has no region")
            spec = {"endpoint": where, "region": source.get("region"), "credentials": credentials}
            spec |= {"uploadImageRetryCount": int(source.get("retries", 30)), "uploadImageRetryDelay": int(source.get("retry_delay", 10))}
        else:
            spec = {"url": where, "httpTimeoutSeconds": int(source.get("http_timeout", 600))}
            if source.get("has_secret"):
                spec["credentials"] = credentials
        shared = {} if source.get("name") else {LABEL: settings["name"]}
        made.sources.append(_object(kind, name, settings["namespace"], spec, shared))
    return names


def _object(kind: str, name: str, namespace: str, spec: Object, labels: dict[str, str]) -> Object:
    labels = {"app.kubernetes.io/managed-by": "ferry.vmware", **labels}
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec}


def _import(made: Made, vm: dict[str, Any], fact: dict[str, Any], settings: dict[str, Any], kind: str, source: str) -> None:
    name = str(fact.get("name") or vm["name"])
    if not is_label(name.lower()):
        made.errors.append(
            f"{name!r} cannot be imported: Harvester calls the VM {name.lower()!r}, which is no name for Kubernetes, and knows no other way to"
            " name it. Rename it at the source"
        )
    spec: Object = {
        "virtualMachineName": name,
        "sourceCluster": {"apiVersion": API, "kind": kind, "name": source, "namespace": settings["namespace"]},
        "networkMapping": _networks(made, name, vm, fact, settings),
        "defaultNetworkInterfaceModel": settings.get("nic_model") or "virtio",
        "defaultDiskBusType": settings.get("disk_bus") or "virtio",
        **_shutdown(fact, settings),
        "skipPreflightChecks": False,
    }
    storage = _storage(made, name, vm, fact, settings)
    if storage:
        spec["storageClass"] = storage
    if kind == "VmwareSource" and fact:
        # The importer looks below the datacenter's folder of VMs.
        folder = str(fact["folder"]).removeprefix(f"/{fact['datacenter']}/vm").strip("/")
        if folder:
            spec["folder"] = folder
    spec |= vm.get("import") or {}
    made.imports.append(_object("VirtualMachineImport", name.lower(), settings["namespace"], spec, {LABEL: settings["name"]}))


def _shutdown(fact: dict[str, Any], settings: dict[str, Any]) -> Object:
    """How the VM comes to be off. The importer pulls the plug of a guest that takes longer than its timeout, always; so where nobody may,
    the timeout is as long as it can be. Without VMware Tools it refuses a VM that runs, unless it may pull the plug at once."""
    allowed = settings.get("on_timeout") == "poweroff"
    mute = fact.get("power") == "on" and fact.get("tools_running") != "guestToolsRunning"
    return {
        "forcePowerOff": bool(settings.get("force_power_off")) or (allowed and mute),
        "gracefulShutdownTimeoutSeconds": int(settings.get("shutdown_timeout") or 60) if allowed else LONGEST_SHUTDOWN,
    }


def _networks(made: Made, name: str, vm: dict[str, Any], fact: dict[str, Any], settings: dict[str, Any]) -> list[Object]:
    used = [str(nic["network"]) for nic in fact.get("nics") or []] if fact else [str(n) for n in vm.get("networks") or []]
    rows = []
    for network in dict.fromkeys(used):
        asked = settings["network_map"].get(network, settings["network_map"].get("*"))
        if asked is None:
            made.errors.append(f"the network {network!r} of {name} has no entry in ferry_network_map, and the importer would drop its card")
        elif asked == "ignored":
            made.notes.append(f"{name} loses its card on {network!r}, as ferry_network_map says")
        elif not isinstance(asked, str) or not re.fullmatch(r"[a-z0-9][-a-z0-9.]*/[a-z0-9][-a-z0-9.]*", asked):
            made.errors.append(f"ferry_network_map has {asked!r} for {network!r}: ignored, or namespace/name of a network of Harvester")
        else:
            rows.append({"sourceNetwork": network, "destinationNetwork": asked})
    return rows


def _storage(made: Made, name: str, vm: dict[str, Any], fact: dict[str, Any], settings: dict[str, Any]) -> str:
    """An import has one storage class for all disks; without one, the cluster's default is taken."""
    used = [str(d["datastore"]) for d in fact.get("disks") or []] if fact else [str(s) for s in vm.get("storages") or []]
    asked = [settings["storage_map"].get(store, settings["storage_map"].get("*")) for store in dict.fromkeys(used)]
    classes = list(dict.fromkeys(a["storage_class"] if isinstance(a, dict) else a for a in asked))
    if len(classes) > 1:
        made.errors.append(f"the disks of {name} would have several storage classes ({', '.join(map(str, classes))}): an import has one")
    return str(classes[0]) if classes and classes[0] else ""


def source_state(found: Object) -> dict[str, Any]:
    """Of a source: C(ready), and C(why) it is not."""
    word = (found.get("status") or {}).get("status") or ""
    if word == "clusterReady":
        return {"ready": True, "why": ""}
    if word:
        said = "; ".join(str(c["message"]) for c in (found["status"].get("conditions") or []) if c.get("message"))
        return {
            "ready": False,
            "why": f"the importer says {word}{': ' + said if said else ''}: is its address right, and can it be reached from there?",
        }
    return {"ready": False, "why": "its status is empty: the importer does not run, or the Secret lacks a key or is refused"}


def progress(imports: list[Object], images: list[Object]) -> dict[str, Any]:
    """How far each import is: C(rows), C(open) (names of those that are not over), C(failed), C(least) (the state of the slowest)."""
    shares = {str(i["metadata"]["name"]): int((i.get("status") or {}).get("progress") or 0) for i in images}
    rows = [_row(one, shares) for one in sorted(imports, key=lambda i: str(i["metadata"]["name"]))]
    steps = [STATES.index(r["state"]) + 1 if r["state"] in STATES else 0 for r in rows if not r["failed"]]
    return {
        "rows": rows,
        "open": [r["name"] for r in rows if not r["failed"] and r["state"] != STATES[-1]],
        "failed": [r["name"] for r in rows if r["failed"]],
        "least": min(steps, default=len(STATES)),
        "lines": [_line(r) for r in rows],
    }


def _row(found: Object, shares: dict[str, int]) -> dict[str, Any]:
    status = found.get("status") or {}
    state = str(status.get("importStatus") or "")
    # Conditions of the import and of its disks; what failed says so in its type.
    told = list(status.get("importConditions") or [])
    for disk in status.get("diskImportStatus") or []:
        told += disk.get("diskConditions") or []
    why = [
        f"{c.get('type')}{': ' + c['message'] if c.get('message') else ''}"
        for c in told
        if c.get("status") == "True" and str(c.get("type", "")).lower().endswith("failed")
    ]
    if state == "virtualMachineImportInvalid" and not why:
        why = [
            "the importer takes it for invalid and says the reason in its log only (deployment of vm-import-controller in harvester-system)"
        ]
    images = status.get("diskImportStatus") or []
    known = [shares[d["VirtualMachineImage"]] for d in images if d.get("VirtualMachineImage") in shares]
    over = state in STATES[STATES.index("diskImagesReady") :]
    disks = []
    for disk in images:
        size = int(disk.get("diskSize") or 0)
        share = 100 if over else shares.get(str(disk.get("VirtualMachineImage")), 0)
        disks.append({"name": disk.get("diskName"), "done": size * share // 100, "total": size})
    types = {c.get("type") for c in told if c.get("status") == "True"}
    return {
        "name": found["metadata"]["name"],
        "vm": (found.get("spec") or {}).get("virtualMachineName"),
        "made": status.get("newVirtualMachine") or status.get("importedVirtualMachineName"),
        "state": state,
        "failed": state in FAILURES,
        "disks": disks,
        # It was asked to, and the importer waits for it.
        "shutting_down": state == "sourceReady" and "VMShutdownGuest" in types and "VMPoweredOff" not in types,
        "percent": sum(known) // len(known) if known else None,
        "reasons": why if state != STATES[-1] else [],
    }


def _line(row: dict[str, Any]) -> str:
    share = f", images {row['percent']} %" if row["percent"] is not None and row["state"] == "diskImageSubmitted" else ""
    if row["shutting_down"]:
        share = ", its guest is shutting down"
    return f"{row['vm']}: {row['state'] or 'not looked at yet'}{share}" + (f": {'; '.join(row['reasons'])}" if row["reasons"] else "")
