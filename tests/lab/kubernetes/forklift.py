# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for Forklift's controller: it moves nothing, and writes the status fields in the order in which Forklift writes them.

Fields, conditions and steps: kubev2v/forklift, pkg/apis/forklift/v1beta1 (plan.go, migration.go, provider.go), pkg/controller/plan
(validation.go, migration.go). A step takes one tick of the loop for each half of it.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from . import machines
from .api import FORKLIFT, SECRET, Api, Kind, Object
from .clock import later, now, parsed

PROVIDER = Kind(FORKLIFT, "providers")
HOST = Kind(FORKLIFT, "hosts")
HOOK = Kind(FORKLIFT, "hooks")
NETWORK_MAP = Kind(FORKLIFT, "networkmaps")
STORAGE_MAP = Kind(FORKLIFT, "storagemaps")
PLAN = Kind(FORKLIFT, "plans")
MIGRATION = Kind(FORKLIFT, "migrations")
CONTROLLER = Kind(FORKLIFT, "forkliftcontrollers")

#: What a provider's Secret must have, by the provider's type.
KEYS = {"vsphere": ("user", "password"), "ovirt": ("user", "password"), "openstack": (), "ova": ("url",), "openshift": ("token",)}
STEPS = ("Initialize", "PreHook", "PreflightInspection", "DiskAllocation", "DiskTransfer", "Cutover", "ImageConversion")
LAST_STEPS = ("VirtualMachineCreation", "PostHook")
ENDS = ("Succeeded", "Failed", "Canceled")
DISK_MB = 1024
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def condition(kind: str, category: str, message: str, reason: str = "", items: list[str] | None = None) -> Object:
    found: Object = {"type": kind, "status": "True", "category": category, "message": message, "lastTransitionTime": now()}
    if reason:
        found["reason"] = reason
    if items:
        found["items"] = items
    return found


def has(found: Object | None, kind: str) -> bool:
    return found is not None and any(c["type"] == kind for c in found.get("status", {}).get("conditions", []))


def kept(new: list[Object], old: list[Object]) -> list[Object]:
    """New conditions, with the time of an old one that says the same."""
    times = {(c["type"], c.get("message")): c["lastTransitionTime"] for c in old}
    return [{**c, "lastTransitionTime": times.get((c["type"], c.get("message")), c["lastTransitionTime"])} for c in new]


def _ended(vm: Object) -> str:
    return next((c["type"] for c in vm["conditions"] if c["type"] in ENDS), "")


class Forklift:
    """One pass over all objects at each L(tick)."""

    def __init__(self, api: Api, switches: dict[str, Any]) -> None:
        self.api = api
        self.switches = switches

    def tick(self) -> None:
        for found in self.api.list(PROVIDER):
            self._write(PROVIDER, found, self._provider(found))
        for kind in (NETWORK_MAP, STORAGE_MAP, HOST, HOOK):
            for found in self.api.list(kind):
                self._write(kind, found, self._small(kind, found))
        migrations = self.api.list(MIGRATION)
        for plan in self.api.list(PLAN):
            self._plan(plan, migrations)

    def _write(self, kind: Kind, found: Object, status: Object | None) -> None:
        if status is None:
            return
        status["conditions"] = kept(status.get("conditions", []), found.get("status", {}).get("conditions", []))
        status["observedGeneration"] = found["metadata"]["generation"]
        if status != found.get("status"):
            self.api.replace_status(kind, found, status)

    def _provider(self, found: Object) -> Object | None:
        name, namespace = found["metadata"]["name"], found["metadata"]["namespace"]
        spec, old = found["spec"], found.get("status", {})
        if name in self.switches["silent_providers"]:
            return None
        if not old:
            return {"phase": "Staging", "conditions": []}
        local = spec["type"] == "openshift" and not spec.get("url")
        if spec["type"] not in KEYS:
            return {"phase": "ValidationFailed", "conditions": [condition("TypeNotSupported", "Critical", "The `type` is not supported.")]}
        if not local:
            ref = spec["secret"]
            secret = self.api.get(SECRET, ref.get("namespace") or namespace, ref["name"]) if ref.get("name") else None
            missing = [k for k in KEYS[spec["type"]] if k not in (secret or {}).get("data", {})]
            if secret is None or missing:
                said = f"The `secret` is not valid: {', '.join(missing)} missing." if secret else "The `secret` is not found."
                return {"phase": "ValidationFailed", "conditions": [condition("SecretNotValid", "Critical", said, "DataErr")]}
        if name in self.switches["unreachable_providers"]:
            said = f'Post "{spec.get("url")}": dial tcp: connect: connection refused'
            return {"phase": "ConnectionFailed", "conditions": [condition("ConnectionTestFailed", "Critical", said, "Tested")]}
        return {
            "phase": "Ready",
            "conditions": [
                condition("ConnectionTestSucceeded", "Required", "Connection test, succeeded.", "Tested"),
                condition("Validated", "Advisory", "Validation has been completed.", "Completed"),
                condition("InventoryCreated", "Required", "The inventory has been loaded.", "Completed"),
                condition("Ready", "Required", "The provider is ready."),
            ],
        }

    def _ref(self, kind: Kind, ref: Object, namespace: str) -> Object | None:
        return self.api.get(kind, ref.get("namespace") or namespace, ref["name"]) if ref.get("name") else None

    def _small(self, kind: Kind, found: Object) -> Object:
        spec, namespace = found["spec"], found["metadata"]["namespace"]
        if kind is HOOK:
            if not spec.get("image") and not spec.get("aap"):
                return {"conditions": [condition("ImageNotValid", "Critical", "The image name is invalid.", "NotSet")]}
            return {"conditions": [condition("Ready", "Required", "The hook is ready.")]}
        refs = {"Provider": spec["provider"]} if kind is HOST else {k.title() + "Provider": v for k, v in spec["provider"].items()}
        bad = [name for name, ref in sorted(refs.items()) if not has(self._ref(PROVIDER, ref, namespace), "Ready")]
        if bad:
            return {"conditions": [condition(f"{name}NotReady", "Critical", f"The {name} is not ready.") for name in bad]}
        what = {HOST: "host", NETWORK_MAP: "network map", STORAGE_MAP: "storage map"}[kind]
        return {"conditions": [condition("Ready", "Required", f"The {what} is ready.")]}

    # --- a plan and its migration

    def _faults(self, plan: Object) -> list[Object]:
        spec, namespace = plan["spec"], plan["metadata"]["namespace"]
        faults = []
        for side in ("source", "destination"):
            if not has(self._ref(PROVIDER, spec["provider"][side], namespace), "Ready"):
                faults.append(
                    condition(f"{side.title()}ProviderNotReady", "Critical", f"The {side} provider does not have the Ready condition.")
                )
        source = self._ref(PROVIDER, spec["provider"]["source"], namespace) or {"spec": {}}
        image = source["spec"].get("settings", {}).get("vddkInitImage") or self._global_image()
        if spec.get("type") == "warm" and source["spec"].get("type") == "vsphere" and not image:
            said = "VDDK image is required for warm migration. Set it on the source provider or configure a global VDDK image."
            faults.append(condition("VDDKInitImageUnavailable", "Critical", said, "NotSet"))
        for key, kind, word in (("network", NETWORK_MAP, "NetworkMap"), ("storage", STORAGE_MAP, "StorageMap")):
            if not has(self._ref(kind, spec["map"][key], namespace), "Ready"):
                faults.append(condition(f"{word}NotReady", "Critical", f"{word} does not have Ready condition."))
        for ref in spec["vms"]:
            name = ref.get("name", "")
            if {ref.get("id"), ref.get("name")} & set(self.switches["missing_vms"]):
                faults.append(condition("VMNotFound", "Critical", "VM not found.", "NotFound", [f" id:{ref.get('id')} name:'{name}' "]))
            if spec.get("type") == "warm" and {ref.get("id"), ref.get("name")} & set(self.switches["vms_without_cbt"]):
                said = "Changed Block Tracking (CBT) has not been enabled on some VM. This feature is a prerequisite for VM warm migration."
                faults.append(condition("VMMissingChangedBlockTracking", "Critical", said, items=[f" id:{ref.get('id')} name:'{name}' "]))
            if ref.get("targetName") and not NAME.fullmatch(ref["targetName"]):
                faults.append(condition("TargetNameNotValid", "Critical", "Target VM name is not valid", "NotValid", [ref["targetName"]]))
            for hook in ref.get("hooks", []):
                if not has(self._ref(HOOK, hook["hook"], namespace), "Ready"):
                    faults.append(
                        condition("HookNotReady", "Critical", "Hook does not have Ready condition.", items=[hook["hook"].get("name", "")])
                    )
        return faults

    def _global_image(self) -> str:
        found = self.api.list(CONTROLLER)
        return str(found[0]["spec"].get("vddk_image", "")) if found else ""

    def _plan(self, plan: Object, migrations: list[Object]) -> None:
        meta, old = plan["metadata"], plan.get("status", {})
        if plan["spec"].get("archived"):
            gone = [c for c in old.get("conditions", []) if c["type"] in ENDS]
            self._write(
                PLAN,
                plan,
                {**old, "conditions": [*gone, condition("Archived", "Advisory", "The migration plan has been archived.", "UserRequested")]},
            )
            return
        if has(plan, "Succeeded"):  # never reconciled again
            return
        faults = self._faults(plan)
        ours = [m for m in migrations if m["spec"]["plan"].get("name") == meta["name"] and m["metadata"]["namespace"] == meta["namespace"]]
        ours.sort(key=lambda m: str(m["metadata"]["creationTimestamp"]))
        active = next((m for m in ours if not m.get("status", {}).get("completed")), None)
        if faults:
            self._write(PLAN, plan, {**{k: v for k, v in old.items() if k == "migration"}, "conditions": faults})
            if active is not None:
                self._write(MIGRATION, active, {"conditions": [condition("PlanNotReady", "Critical", "The migration plan is not ready")]})
            return
        ready = condition("Ready", "Required", "The migration plan is ready.")
        if active is None or not has(plan, "Ready"):
            ends = [c for c in old.get("conditions", []) if c["type"] in ENDS]
            self._write(PLAN, plan, {**{k: v for k, v in old.items() if k == "migration"}, "conditions": [ready, *ends]})
            return
        self._step(plan, active, ready)

    def _step(self, plan: Object, migration: Object, ready: Object) -> None:
        spec = plan["spec"]
        begun = migration.get("status", {}).get("started")
        if not begun:
            # What an earlier migration of the plan has brought over is not done again.
            done = {
                v.get("id") or v.get("name"): v
                for v in plan.get("status", {}).get("migration", {}).get("vms", [])
                if _ended(v) == "Succeeded"
            }
            vms = [done.get(v.get("id") or v.get("name")) or self._new_vm(v, spec) for v in spec["vms"]]
        else:
            vms = copy.deepcopy(plan["status"]["migration"]["vms"])
            for vm in vms:
                self._advance(vm, migration["spec"], plan)
        progress: Object = {"started": begun or now(), "vms": vms}
        ends = [end for end in map(_ended, vms) if end]
        conditions, of_plan = [], [ready]
        if len(ends) == len(vms):
            progress["completed"] = now()
            end = "Failed" if "Failed" in ends else "Succeeded" if "Succeeded" in ends else "Canceled"
            category = "Advisory" if end != "Failed" else "Error"
            conditions.append(condition(end, category, f"The migration has {end.upper()}."))
            of_plan.append(condition(end, "Advisory", f"The plan execution has {end.upper()}."))
        else:
            conditions += [
                condition("Ready", "Required", "The migration is ready."),
                condition("Running", "Advisory", "The migration is RUNNING."),
            ]
            of_plan.append(condition("Executing", "Advisory", "The plan is EXECUTING."))
        self._write(PLAN, plan, {"migration": progress, "conditions": of_plan})
        self._write(MIGRATION, migration, {**progress, "conditions": conditions})

    def _new_vm(self, ref: Object, spec: Object) -> Object:
        warm = spec.get("type") == "warm"
        hooks = {h["step"] for h in ref.get("hooks", [])}
        steps = [s for s in (*STEPS, *LAST_STEPS) if (s not in ("PreHook", "PostHook") or s in hooks) and (s != "Cutover" or warm)]
        if spec.get("runPreflightInspection") is False or not warm:
            steps = [s for s in steps if s != "PreflightInspection"]
        pipeline: list[Object] = [{"name": s, "phase": "Pending", "progress": {"completed": 0, "total": 1}} for s in steps]
        for step in pipeline:
            if step["name"] == "DiskTransfer":
                disks = [f"[datastore1] {ref.get('name') or ref['id']}/disk-{n}.vmdk" for n in range(2)]
                step["progress"] = {"completed": 0, "total": DISK_MB * len(disks)}
                step["annotations"] = {"unit": "MB"}
                part = {"phase": "Pending", "annotations": {"unit": "MB"}}
                step["tasks"] = [{"name": d, "progress": {"completed": 0, "total": DISK_MB}, **part} for d in disks]
        vm: Object = {k: ref[k] for k in ("id", "name", "targetName") if ref.get(k)}
        vm |= {"phase": "Started", "started": now(), "pipeline": pipeline, "conditions": []}
        if ref.get("targetName"):
            vm["newName"] = ref["targetName"]
        if warm:
            vm["warm"] = {"successes": 0, "failures": 0, "consecutiveFailures": 0, "precopies": []}
        return vm

    def _end(self, vm: Object, end: str, category: str = "Advisory") -> None:
        vm |= {"phase": "Completed", "completed": now()}
        vm["conditions"] = [condition(end, category, f"The VM migration has {end.upper()}.")]

    def _create(self, vm: Object, plan: Object) -> None:
        """The VM, where it is said what its source is."""
        spec, namespace = plan["spec"], plan["metadata"]["namespace"]
        names = [str(n) for n in (vm.get("id"), vm.get("name")) if n]
        source = next((self.switches["sources"][n] for n in names if n in self.switches["sources"]), None)
        found = self._ref(NETWORK_MAP, spec["map"]["network"], namespace)
        if source is None or found is None:
            return
        rows = {row["source"].get(key): row["destination"] for row in found["spec"]["map"] for key in ("id", "name")}
        networks = [rows[nic["network_moref"] if nic.get("network_moref") in rows else nic["network"]] for nic in source["nics"]]
        wrong: Object = next((self.switches["made_wrong"][n] for n in names if n in self.switches["made_wrong"]), {})
        machines.forklift(self.api, str(vm["newName"]), spec["targetNamespace"], source, networks, wrong)

    def _advance(self, vm: Object, asked: Object, plan: Object) -> None:
        if vm.get("completed"):
            return
        warm = plan["spec"].get("type") == "warm"
        names = {vm.get("id"), vm.get("name")} - {None}
        if any({c.get("id"), c.get("name")} & names for c in asked.get("cancel", [])):
            self._end(vm, "Canceled")
            return
        step = next((s for s in vm["pipeline"] if s["phase"] != "Completed"), None)
        if step is None:
            self._end(vm, "Succeeded")
            return
        if step["name"] == self.switches["hold"]:
            return
        failing = next((f for n, f in self.switches["failing_vms"].items() if n in names), None)
        if failing is not None and failing["step"] == step["name"]:
            error = {"phase": vm["phase"], "reasons": [failing["reason"]]}
            step |= {"phase": "Completed", "error": error}
            vm["error"] = error
            self._end(vm, "Failed", "Error")
            return
        if step["name"] == "Cutover" and not self._cut(vm, asked):
            return
        vm["phase"] = {"DiskTransfer": "CopyDisks", "Cutover": "Finalize", "VirtualMachineCreation": "CreateVM"}.get(
            step["name"], step["name"]
        )
        total = step["progress"]["total"]
        done = min(total, step["progress"]["completed"] + max(1, total // 2))
        step |= {"phase": "Completed" if done == total else "Running", "started": step.get("started") or now()}
        step["progress"] = {"completed": done, "total": total}
        for task in step.get("tasks", []):
            task |= {"phase": step["phase"], "progress": {"completed": min(DISK_MB, done // len(step["tasks"])), "total": DISK_MB}}
        if done == total:
            step["completed"] = now()
            if step["name"] == "DiskTransfer" and warm:
                self._precopied(vm)
            if step["name"] == "VirtualMachineCreation":
                self._create(vm, plan)

    def _precopied(self, vm: Object) -> None:
        vm["warm"]["successes"] += 1
        vm["warm"]["precopies"].append({"start": now(), "end": now(), "snapshot": f"snapshot-{vm['warm']['successes']}"})
        vm["warm"]["nextPrecopyAt"] = later(self.switches["precopy_seconds"])

    def _cut(self, vm: Object, asked: Object) -> bool:
        """Whether it is time; until then the disks are brought up to date at each interval."""
        own = next((c["cutover"] for c in asked.get("vmCutover", []) if c["id"] == vm.get("id")), None)
        at = own or asked.get("cutover")
        if at and parsed(at) <= parsed(now()):
            return True
        vm["phase"] = "CopyingPaused"
        if parsed(vm["warm"]["nextPrecopyAt"]) <= parsed(now()):
            self._precopied(vm)
        return False
