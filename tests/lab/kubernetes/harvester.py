# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for Harvester's vm-import-controller: it imports nothing, and writes the status fields as the controller does, traps included.

States and conditions: harvester/vm-import-controller v1.8.1, pkg/apis/migration.harvesterhci.io/v1beta1 and pkg/controllers/migration.
"""

from __future__ import annotations

import re
from typing import Any

from . import machines
from .api import ATTACHMENT, HARVESTER, IMPORTER, SECRET, STORAGE_CLASS, Api, ApiError, Kind, Object
from .clock import now

ADDON = Kind(HARVESTER, "addons")
IMAGE = Kind(HARVESTER, "virtualmachineimages")
IMPORT = Kind(IMPORTER, "virtualmachineimports")
#: The kinds of sources and what their Secrets must have; an OVA's needs no Secret at all.
SOURCES = {
    "VmwareSource": (Kind(IMPORTER, "vmwaresources"), ("username", "password")),
    "OpenstackSource": (Kind(IMPORTER, "openstacksources"), ("username", "password", "project_name", "domain_name")),
    "OvaSource": (Kind(IMPORTER, "ovasources"), ()),
}
ADDON_PLACE = ("harvester-system", "vm-import-controller")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
END = "virtualMachineRunning"
FAILED = ("virtualMachineImportInvalid", "VMMigrationFailed")


def condition(kind: str, status: str = "True", message: str = "") -> Object:
    return {"type": kind, "status": status, "lastUpdateTime": now(), **({"message": message} if message else {})}


class Importer:
    """One pass over all objects at each L(tick). Nothing happens while the addon is not enabled: then nobody runs."""

    def __init__(self, api: Api, switches: dict[str, Any]) -> None:
        self.api = api
        self.switches = switches

    def tick(self) -> None:
        addon = self.api.get(ADDON, *ADDON_PLACE)
        if addon is None:
            return
        word = "AddonDeploySuccessful" if addon["spec"]["enabled"] else "AddonDisabled"
        if addon.get("status", {}).get("status") != word:
            self.api.replace_status(ADDON, addon, {"status": word})
        if not addon["spec"]["enabled"]:
            return
        for kind, keys in SOURCES.values():
            for found in self.api.list(kind):
                self._source(kind, keys, found)
        for found in self.api.list(IMPORT):
            self._import(found)

    def _source(self, kind: Kind, keys: tuple[str, ...], found: Object) -> None:
        name, spec = found["metadata"]["name"], found.get("spec", {})
        ref = spec.get("credentials") or {}
        secret = self.api.get(SECRET, ref.get("namespace", ""), ref["name"]) if ref.get("name") else None
        # The controller's reconcile ends in an error, and the status stays as it was: empty.
        if any(k not in (secret or {}).get("data", {}) for k in keys) or name in self.switches["silent_providers"]:
            return
        word = "clusterNotReady" if name in self.switches["unreachable_providers"] else "clusterReady"
        if found.get("status", {}).get("status") != word:
            says = condition("ClusterReady", "True" if word == "clusterReady" else "False")
            self.api.replace_status(kind, found, {"status": word, "conditions": [says]})

    def _write(self, found: Object, **status: Any) -> None:
        self.api.replace_status(IMPORT, found, {**found.get("status", {}), **status})

    def _import(self, found: Object) -> None:
        spec, status = found.get("spec", {}), found.get("status", {})
        vm, state = spec.get("virtualMachineName", ""), status.get("importStatus", "")
        if state in (*FAILED, END):
            return
        ref = spec.get("sourceCluster", {})
        known = SOURCES.get(ref.get("kind", ""))
        source = self.api.get(known[0], ref.get("namespace", ""), ref.get("name", "")) if known and ref.get("name") else None
        if state == "":
            missing = vm in self.switches["missing_vms"] and not spec.get("forcePowerOff")
            # The reason is in the controller's log only.
            bad = not vm or source is None or missing or not NAME.fullmatch(vm.lower()) or self._unknown(found)
            self._write(found, importStatus="virtualMachineImportInvalid" if bad else "virtualMachineImportValid")
        elif state == "virtualMachineImportValid":
            if source is not None and source.get("status", {}).get("status") == "clusterReady":
                self._write(found, importStatus="sourceReady")
        elif state == "sourceReady":
            self._export(found, vm)
        elif state == "disksExported":
            self._submit(found, vm)
        elif state == "diskImageSubmitted":
            self._images(found)
        elif state == "diskImagesReady":
            self._create(found, vm)
            self._write(found, importStatus="virtualMachineCreated", newVirtualMachine=vm.lower(), importedVirtualMachineName=vm.lower())
        elif state == "virtualMachineCreated":
            self._write(found, importStatus=END)

    def _unknown(self, found: Object) -> bool:
        """Whether it names a storage class or a network that is not there."""
        spec, namespace = found.get("spec", {}), found["metadata"]["namespace"]
        if spec.get("storageClass") and self.api.get(STORAGE_CLASS, "", spec["storageClass"]) is None:
            return True
        places = [str(m.get("destinationNetwork", "")).rpartition("/") for m in spec.get("networkMapping") or []]
        return any(self.api.get(ATTACHMENT, space or namespace, name) is None for space, _slash, name in places)

    def _create(self, found: Object, vm: str) -> None:
        """The VM, where it is said what its source is."""
        source = self.switches["sources"].get(vm)
        if source is not None:
            wrong = self.switches["made_wrong"].get(vm, {})
            mapping, images = found["spec"].get("networkMapping") or [], found["status"]["diskImportStatus"]
            machines.harvester(self.api, vm.lower(), found["metadata"]["namespace"], source, mapping, images, wrong)

    def _export(self, found: Object, vm: str) -> None:
        if vm in self.switches["missing_vms"] or self.switches["hold"] == "sourceReady":
            return
        if self.switches["hold"] == "VMShutdownGuest":
            self._write(found, importConditions=[condition("VMShutdownGuest")])
            return
        failing = self.switches["failing_vms"].get(vm)
        if failing is not None:
            says = condition("VMExportFailed", message=failing["reason"])
            self._write(found, importStatus="VMMigrationFailed", importConditions=[says])
            return
        done = [condition("VMShutdownGuest"), condition("VMPoweringOff"), condition("VMPoweredOff"), condition("VMExported")]
        sizes = [d["capacity"] for d in self.switches["sources"].get(vm, {}).get("disks", [])] or [1 << 30] * 2
        disks = [{"diskName": f"{vm.lower()}-disk-{n}.img", "diskSize": size, "busType": "virtio"} for n, size in enumerate(sizes)]
        self._write(found, importStatus="disksExported", importConditions=done, diskImportStatus=disks)

    def _submit(self, found: Object, vm: str) -> None:
        namespace = found["metadata"]["namespace"]
        disks = found["status"]["diskImportStatus"]
        for disk in disks:
            name = f"image-{disk['diskName'].removesuffix('.img')}"
            body = {
                "apiVersion": HARVESTER,
                "kind": "VirtualMachineImage",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "displayName": f"vm-import-{disk['diskName']}",
                    "sourceType": "download",
                    "url": f"http://10.0.0.1:8080/{disk['diskName']}",
                },
            }
            try:
                self.api.create(IMAGE, namespace, body)
            except ApiError as e:
                if e.reason != "AlreadyExists":
                    raise
            disk["VirtualMachineImage"] = name
        self._write(found, importStatus="diskImageSubmitted", diskImportStatus=disks)

    def _images(self, found: Object) -> None:
        namespace, ready = found["metadata"]["namespace"], True
        for disk in found["status"]["diskImportStatus"]:
            image = self.api.get(IMAGE, namespace, disk["VirtualMachineImage"])
            if image is None:
                return
            progress = int(image.get("status", {}).get("progress", 0))
            if progress < 100:
                ready = False
                # The kind has no status subresource.
                self.api.patch(IMAGE, namespace, disk["VirtualMachineImage"], {"status": {"progress": progress + 50}})
        if ready:
            self._write(found, importStatus="diskImagesReady")
