# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a wave becomes for MTV (Forklift): its objects, and everything that stands in the way, at once.

The kinds and their fields: kubev2v/forklift, pkg/apis/forklift/v1beta1, commit d42511bb. Each field for which the server has a default
that decides something is written out, so that another release with another default changes nothing.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils.kubernetes_names import collisions, is_label, to_label

API = "forklift.konveyor.io/v1beta1"
TYPES = ("vsphere", "ovirt", "openstack", "ova", "openshift")
STRATEGIES = ("cold", "warm")
#: Strategies by the type of the source: only these two track changes.
WARM_SOURCES = ("vsphere", "ovirt")
STEPS = ("PreHook", "PostHook")
#: Fields of a Plan with defaults of the server (observed on the API server: all true), and others that decide what becomes of a VM.
PLAN_DEFAULTS: dict[str, Any] = {
    "preserveStaticIPs": True,
    "migrateSharedDisks": True,
    "runPreflightInspection": True,
    "useCompatibilityMode": True,
    # A VM that failed on the way is what one wants to look at.
    "deleteVmOnFailMigration": False,
    "skipGuestConversion": False,
    "targetPowerState": "auto",
}
#: The names of the other objects add to the plan's.
LONGEST_PLAN = 40
PLAN_LABEL = "ferry.vmware/plan"
#: What the role says itself, and no one else may.
OWN_PLAN_FIELDS = ("targetNamespace", "provider", "map", "vms", "type", "warm", "archived")

Object = dict[str, Any]


@dataclass
class Made:
    """Objects in the order in which they are to be made, and what is wrong."""

    objects: list[Object] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    #: Names of the Secrets that the objects name, without what is in them: who (source, destination, host) and which host.
    secrets: list[Object] = field(default_factory=list)

    def add(self, kind: str, name: str, namespace: str, spec: Object, plan: str = "") -> None:
        """With C(plan), it is that plan's alone, and goes with it."""
        labels = {"app.kubernetes.io/managed-by": "ferry.vmware"} | ({PLAN_LABEL: plan} if plan else {})
        self.objects.append(
            {"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec}
        )

    def as_dict(self) -> dict[str, Any]:
        return {"objects": self.objects, "errors": self.errors, "secrets": self.secrets}


def make(wave: list[dict[str, Any]], settings: dict[str, Any]) -> Made:
    """The objects of a wave. C(wave): what the inventory says of each VM: C(name), C(id), C(target_name), C(plan), C(networks), C(storages).

    C(settings): C(name), C(namespace), C(target_namespace), C(strategy), C(source), C(destination), C(network_map), C(storage_map),
    C(hooks), C(esxi_hosts), C(plan), and C(facts): what M(ferry.vmware.vm_info) returned of the same VMs, where it was asked.
    """
    made = Made()
    wave = _known(wave, settings.get("facts") or [])
    name, namespace = settings["name"], settings["namespace"]
    for what in ("name", "namespace", "target_namespace"):
        if not is_label(str(settings.get(what) or "")):
            made.errors.append(f"{settings.get(what)!r} is no name for Kubernetes ({what.replace('_', ' ')}): a-z, 0-9 and -, at most 63")
    if len(str(name)) > LONGEST_PLAN:
        made.errors.append(f"the name {name} is longer than {LONGEST_PLAN} characters: the objects' names are made from it")
    if not wave:
        made.errors.append("no VM is in the wave")
    source, destination = _providers(made, settings)
    refs = {"source": _ref(source, namespace), "destination": _ref(destination, namespace)}
    _esxi_hosts(made, settings, source)
    hooks = _hooks(made, settings)
    _network_map(made, wave, settings, refs)
    _storage_map(made, wave, settings, refs)
    _plan(made, wave, settings, refs, hooks)
    return made


def _known(wave: list[dict[str, Any]], facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The VMs with their cards and disks: as vCenter says, else as the inventory does."""
    found = []
    for number, said in enumerate(wave):
        own = {key: said.get(key) for key in ("target_name", "plan")}
        if facts:
            found.append({**facts[number], **own})
            continue
        cards, disks = (
            [{part: name} for name in said.get(key) or []] for part, key in (("network", "networks"), ("datastore", "storages"))
        )
        found.append({"name": said["name"], "moref": said.get("id"), "nics": cards, "disks": disks, **own})
    return found


def _ref(name: str, namespace: str) -> Object:
    return {"name": name, "namespace": namespace}


def _providers(made: Made, settings: dict[str, Any]) -> tuple[str, str]:
    source, destination, namespace = settings["source"], settings.get("destination") or {}, settings["namespace"]
    kind, name = source.get("type", "vsphere"), source.get("name") or f"{settings['name']}-source"
    if kind not in TYPES:
        made.errors.append(f"the source's type {kind!r} is none of {', '.join(TYPES)}")
    if not is_label(name):
        made.errors.append(f"the source's name {name!r} is no name for Kubernetes")
    if not source.get("url"):
        made.errors.append("the source has no url")
    spec: Object = {"type": kind, "url": source.get("url") or "", "secret": _ref(f"{name}-credentials", namespace)}
    values = {**_source_settings(made, kind, source), **{str(k): _text(v) for k, v in (source.get("settings") or {}).items()}}
    if values:
        spec["settings"] = values
    own = "" if source.get("name") else settings["name"]
    made.add("Provider", name, namespace, spec, own)
    made.secrets.append({"name": f"{name}-credentials", "who": "source", "plan": own})
    target = destination.get("name") or "host"
    if destination.get("url"):
        made.secrets.append({"name": f"{target}-credentials", "who": "destination", "plan": ""})
        made.add(
            "Provider",
            target,
            namespace,
            {"type": "openshift", "url": destination["url"], "secret": _ref(f"{target}-credentials", namespace)},
        )
    elif destination.get("make"):
        # The cluster that MTV runs in: it wants the key "secret", and nothing in it.
        made.add("Provider", target, namespace, {"type": "openshift", "url": "", "secret": {}})
    return name, target


def _source_settings(made: Made, kind: str, source: dict[str, Any]) -> dict[str, str]:
    """Settings are texts, all of them."""
    if kind != "vsphere":
        return {}
    endpoint, clone = source.get("sdk_endpoint") or "vcenter", source.get("esxi_clone_method") or "ssh"
    if endpoint not in ("vcenter", "esxi"):
        made.errors.append(f"the source's sdk_endpoint {endpoint!r} is neither vcenter nor esxi")
    if clone not in ("ssh", "vib"):
        made.errors.append(f"the source's esxi_clone_method {clone!r} is neither ssh nor vib")
    found = {"sdkEndpoint": endpoint, "esxiCloneMethod": clone}
    if source.get("vddk_image"):
        found["vddkInitImage"] = str(source["vddk_image"])
    return found


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _esxi_hosts(made: Made, settings: dict[str, Any], source: str) -> None:
    """Hosts by which MTV shall fetch the disks of VMs (another network than vCenter's)."""
    namespace = settings["namespace"]
    for number, host in enumerate(settings.get("esxi_hosts") or []):
        name = to_label(f"{source}-{host.get('id') or ''}")
        missing = [key for key in ("id", "ip_address") if not host.get(key)]
        if missing:
            made.errors.append(f"an ESXi host of mtv_esxi_hosts has no {' and no '.join(missing)}")
            continue
        spec = {
            "id": host["id"],
            "ipAddress": host["ip_address"],
            "provider": _ref(source, namespace),
            "secret": _ref(f"{name}-credentials", namespace),
        }
        made.add("Host", name, namespace, spec, settings["name"])
        made.secrets.append({"name": f"{name}-credentials", "who": "host", "number": number, "plan": settings["name"]})


def _hooks(made: Made, settings: dict[str, Any]) -> list[Object]:
    """Makes the Hooks, and gives what each VM of the plan says of them."""
    namespace, found = settings["namespace"], []
    for number, hook in enumerate(settings.get("hooks") or [], 1):
        name = hook.get("name") or f"{settings['name']}-hook-{number}"
        if hook.get("step") not in STEPS:
            made.errors.append(f"the hook {name} has the step {hook.get('step')!r}: it is {' or '.join(STEPS)}")
        if not is_label(name):
            made.errors.append(f"the hook's name {name!r} is no name for Kubernetes")
        if bool(hook.get("image")) == bool(hook.get("aap")):
            made.errors.append(f"the hook {name} has to have either an image or an aap")
        spec: Object = {}
        if hook.get("image"):
            spec["image"] = hook["image"]
        if hook.get("aap"):
            spec["aap"] = hook["aap"]
        if hook.get("playbook"):
            spec["playbook"] = base64.b64encode(str(hook["playbook"]).encode()).decode("ascii")
        if hook.get("deadline") is not None:
            spec["deadline"] = int(hook["deadline"])
        if hook.get("service_account"):
            spec["serviceAccount"] = hook["service_account"]
        made.add("Hook", name, namespace, spec, settings["name"])
        found.append({"step": hook.get("step"), "hook": _ref(name, namespace)})
    return found


def _sources(wave: list[dict[str, Any]], part: str) -> dict[str, dict[str, Any]]:
    """The networks or the datastores of a wave by their names: id where it is known, and the VMs."""
    found: dict[str, dict[str, Any]] = {}
    for vm in wave:
        for device in vm.get("nics" if part == "network" else "disks") or []:
            one = found.setdefault(str(device[part]), {"id": device.get(f"{part}_moref"), "vms": []})
            if vm["name"] not in one["vms"]:
                one["vms"].append(vm["name"])
    return found


def _source(name: str, known: dict[str, Any]) -> Object:
    return {"id": known["id"]} if known["id"] else {"name": name}


def _unmapped(what: str, name: str, vms: list[str]) -> str:
    return f"the {what} {name!r} of {', '.join(vms[:5])}{' …' if len(vms) > 5 else ''} has no entry in ferry_{what}_map"


def _network_map(made: Made, wave: list[dict[str, Any]], settings: dict[str, Any], refs: Object) -> None:
    rows, pods = [], []
    for name, known in _sources(wave, "network").items():
        asked = settings["network_map"].get(name, settings["network_map"].get("*"))
        if asked is None:
            made.errors.append(_unmapped("network", name, known["vms"]))
            continue
        if asked in ("pod", "ignored"):
            target: Object = {"type": asked}
            pods += [name] if asked == "pod" else []
        elif isinstance(asked, str) and asked:
            space, _slash, definition = asked.rpartition("/")
            target = {"type": "multus", "namespace": space or settings["target_namespace"], "name": definition}
        else:
            made.errors.append(f"ferry_network_map has {asked!r} for {name!r}: pod, ignored, or the name of a network (namespace/name)")
            continue
        rows.append({"source": _source(name, known), "destination": target})
    # A VM can have one card on the pod network.
    for vm in wave:
        cards = [nic for nic in vm.get("nics") or [] if nic["network"] in pods]
        if len(cards) > 1:
            made.errors.append(f"{vm['name']} would have {len(cards)} cards on the pod network: it can have one")
    made.add("NetworkMap", f"{settings['name']}-networks", settings["namespace"], {"provider": refs, "map": rows}, settings["name"])


def _storage_map(made: Made, wave: list[dict[str, Any]], settings: dict[str, Any], refs: Object) -> None:
    rows = []
    for name, known in _sources(wave, "datastore").items():
        asked = settings["storage_map"].get(name, settings["storage_map"].get("*"))
        if isinstance(asked, str):
            asked = {"storage_class": asked}
        if not asked or not asked.get("storage_class"):
            made.errors.append(_unmapped("storage", name, known["vms"]))
            continue
        wrong = sorted(set(asked) - {"storage_class", "volume_mode", "access_mode", "offload_plugin"})
        if wrong:
            made.errors.append(f"ferry_storage_map has {', '.join(wrong)} for {name!r}, which is not known")
        target = {"storageClass": asked["storage_class"]}
        if asked.get("volume_mode"):
            target["volumeMode"] = asked["volume_mode"]
        if asked.get("access_mode"):
            target["accessMode"] = asked["access_mode"]
        row: Object = {"source": _source(name, known), "destination": target}
        if asked.get("offload_plugin"):
            row["offloadPlugin"] = asked["offload_plugin"]
        rows.append(row)
    made.add("StorageMap", f"{settings['name']}-storage", settings["namespace"], {"provider": refs, "map": rows}, settings["name"])


def _plan(made: Made, wave: list[dict[str, Any]], settings: dict[str, Any], refs: Object, hooks: list[Object]) -> None:
    name, namespace, strategy = settings["name"], settings["namespace"], settings["strategy"]
    if strategy not in STRATEGIES:
        made.errors.append(f"the strategy {strategy!r} is none of {', '.join(STRATEGIES)}")
    kind = settings["source"].get("type", "vsphere")
    if strategy == "warm" and kind in TYPES and kind not in WARM_SOURCES:
        made.errors.append(f"a source of the type {kind} knows nothing of changed blocks: ferry_strategy has to be cold")
    vms, names = [], []
    for vm in wave:
        asked = str(vm.get("target_name") or "")
        target = asked or to_label(vm["name"])
        if asked and not is_label(asked):
            made.errors.append(f"{vm['name']} cannot be called {asked!r}: a-z, 0-9 and -, at most 63 (ferry_target_name)")
        elif not target:
            made.errors.append(f"nothing of the name {vm['name']!r} can be kept in Kubernetes: say ferry_target_name")
        names.append((vm["name"], target))
        # MoRefs are unique, names need not be.
        ref: Object = {"id": vm["moref"]} if vm.get("moref") else {"name": vm["name"]}
        ref["targetName"] = target
        if hooks:
            ref["hooks"] = hooks
        vms.append({**ref, **(vm.get("plan") or {})})
    made.errors += [f"{said}: say ferry_target_name for them" for said in collisions(names)]
    own = [key for key in settings.get("plan") or {} if key in OWN_PLAN_FIELDS]
    if own:
        made.errors.append(f"{', '.join(own)} of ferry_mtv_plan is what other variables say")
    spec = {
        **PLAN_DEFAULTS,
        **(settings.get("plan") or {}),
        "type": strategy,
        "targetNamespace": settings["target_namespace"],
        "provider": refs,
        "map": {"network": _ref(f"{name}-networks", namespace), "storage": _ref(f"{name}-storage", namespace)},
        "vms": vms,
    }
    made.add("Plan", name, namespace, spec, name)


def refs(vms: list[Object], wanted: list[dict[str, Any]]) -> list[Object]:
    """Which of a plan's VMs are meant: by id, by name, or by the name that they get; as C(cancel) of a Migration takes them."""
    known: set[str] = set()
    for one in wanted:
        known |= {str(one[key]) for key in ("id", "name") if one.get(key)}
        known.add(str(one.get("target_name") or to_label(one["name"])))
    found = [vm for vm in vms if {vm.get("id"), vm.get("name"), vm.get("targetName")} & known]
    return [{"id": vm["id"]} if vm.get("id") else {"name": vm["name"]} for vm in found]
