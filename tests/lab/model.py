# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The model of a lab: read, check, fill in. What comes out is what the Go program takes (tests/lab/vcenter/model.go)."""

from __future__ import annotations

import importlib
import json
import re
import uuid
from pathlib import Path
from typing import Any, Callable, Mapping

from . import disks
from .common import LabError

SIZE = re.compile(r"^(\d+)\s*(B|KiB|MiB|GiB|TiB)?$")
UNITS = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
MAC = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")
CONTROLLERS = {"pvscsi": 64, "lsilogic": 16, "lsilogic-sas": 16, "buslogic": 16, "ide": 2, "sata": 30, "nvme": 15}
SCSI = ("pvscsi", "lsilogic", "lsilogic-sas", "buslogic")
NAMESPACE = uuid.UUID("6f1d3c5e-6f1b-5d0a-9a6e-5b7d0c1f2e3a")


def size(value: Any) -> int:
    """Bytes from a number or from text like "20 GiB"."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = SIZE.match(str(value).strip())
    if not found:
        raise ValueError(f"{value!r} is no size: a number of bytes, or with KiB, MiB, GiB, TiB")
    return int(found[1]) * UNITS[found[2]]


#: For each key a converter, and the value where it is missing.
Fields = Mapping[str, tuple[Callable[[Any], Any], Any]]


class _Checker:
    """Takes fields out of a mapping and keeps every mistake, so that all are told at once."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def take(self, where: str, data: Any, fields: Fields) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.errors.append(f"{where}: a mapping is wanted")
            data = {}
        self.errors += [f"{where}: {key} is not known" for key in data if key not in fields]
        out: dict[str, Any] = {}
        for key, (convert, default) in fields.items():
            if key in data and data[key] is not None:
                try:
                    out[key] = convert(data[key])
                except (ValueError, TypeError) as e:
                    self.errors.append(f"{where}: {key}: {e}")
                    out[key] = default
            elif default is _NEEDED:
                self.errors.append(f"{where}: {key} is missing")
                out[key] = None
            else:
                out[key] = default() if callable(default) else default
        return out


_NEEDED = object()


def _text(value: Any) -> str:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise ValueError("text is wanted")
    return str(value)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list is wanted")
    return value


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a mapping is wanted")
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is wanted")
    return value


def _choice(*allowed: str) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if value is True or value is False:  # YAML 1.1 reads on and off as booleans
            value = "on" if value else "off"
        if value not in allowed:
            raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
        return str(value)

    return convert


def _uuid(value: Any) -> str:
    return str(uuid.UUID(str(value)))


def _mac(value: Any) -> str:
    if not MAC.match(str(value).lower()):
        raise ValueError(f"{value!r} is no MAC address")
    return str(value).lower()


def _network(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"name": value, "distributed": False, "hosts": []}
    if isinstance(value, dict) and set(value) <= {"name", "distributed", "hosts"} and "name" in value:
        return {"name": str(value["name"]), "distributed": bool(value.get("distributed", False)), "hosts": _list(value.get("hosts", []))}
    raise ValueError(f"{value!r} is no network")


def load(path: Path) -> dict[str, Any]:
    """Read a model (YAML or JSON), build the disks that its recipes name, and give what the Go program takes.

    Raises LabError with every mistake, not the first.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise LabError(f"model {path}: {e.strerror}") from e
    if path.suffix == ".json":
        try:
            data = json.loads(text)
        except ValueError as e:
            raise LabError(f"model {path}: {e}") from e
    else:
        try:
            yaml = importlib.import_module("yaml")
        except ImportError as e:
            raise LabError("PyYAML is missing: run the lab with build/venv/bin/python, or give the model as .json") from e
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as e:
            raise LabError(f"model {path}: {e}") from e
    return check(data, path.resolve().parent)


def check(data: Any, folder: Path) -> dict[str, Any]:
    """Check a model that is read already; relative paths in it start at folder."""
    c = _Checker()
    model = c.take(
        "model",
        data,
        {
            "datacenter": (_text, "DC0"),
            "clusters": (_list, list),
            "standalone_hosts": (_list, list),
            "networks": (lambda v: [_network(x) for x in _list(v)], lambda: [_network("VM Network")]),
            "datastores": (_list, _NEEDED),
            "vms": (_list, list),
            "bulk": (_dict, None),
            "behaviour": (_dict, dict),
            "esxi": (_dict, dict),
            "hardware": (_dict, dict),
            "api_version": (_text, ""),
        },
    )
    model["clusters"] = [_cluster(c, f"cluster {i}", x) for i, x in enumerate(model["clusters"])]
    hosts = [h for x in model["clusters"] for h in x["hosts"]] + model["standalone_hosts"]
    if not hosts:
        c.errors.append("model: there is no host")
    model["datastores"] = [
        c.take(
            f"datastore {i}",
            x,
            {
                "name": (_text, _NEEDED),
                "type": (_choice("VMFS", "NFS", "NFS41", "vsan", "VVOL"), "VMFS"),
                "vmfs": (lambda v: int(_choice("5", "6")(str(v))), 6),
                "capacity": (size, 1 << 40),
                "free": (size, None),
                "hosts": (_list, lambda: list(hosts)),
            },
        )
        for i, x in enumerate(model["datastores"] or [])
    ]
    stores = {d["name"]: d for d in model["datastores"]}
    networks = {n["name"] for n in model["networks"]}
    model["vms"] = [_vm(c, i, x, hosts, stores, networks, folder) for i, x in enumerate(model["vms"])]
    if model["bulk"] is not None:
        model["bulk"] = c.take("bulk", model["bulk"], {"vms": (size, _NEEDED), "prefix": (_text, "bulk")})
    model["behaviour"] = c.take("behaviour", model["behaviour"], {"locked_status": (size, 500)})
    model["esxi"] = {
        host: c.take(f"esxi {host}", x, {"version": (_text, _NEEDED), "build": (_text, _NEEDED)}) for host, x in model["esxi"].items()
    }
    model["hardware"] = {host: c.take(f"hardware {host}", x, HARDWARE) for host, x in model["hardware"].items()}
    for part in ("esxi", "hardware"):
        c.errors += [f"{part}: no host {host}" for host in model[part] if host not in (*hosts, "*")]
    for net in model["networks"]:
        c.errors += [f"network {net['name']}: no host {host}" for host in net["hosts"] if host not in hosts]
    _check_rules(c, model)
    for kind in ("name", "uuid"):
        seen: set[str] = set()
        for vm in model["vms"]:
            where = (vm["folder"], vm[kind]) if kind == "name" else vm[kind]
            if str(where) in seen:
                c.errors.append(f"two VMs have the {kind} {vm[kind]}")
            seen.add(str(where))
    if c.errors:
        raise LabError("the model has mistakes:\n  " + "\n  ".join(c.errors))
    return model


HARDWARE: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "cpu_mhz": (size, 0),
    "cores": (size, 0),
    "memory_mb": (size, 0),
    "vendor": (_text, ""),
    "model": (_text, ""),
    "evc": (_text, ""),
    "no_vmotion": (_bool, False),
    "time_servers": (_list, None),
}


#: What few VMs have (tests/lab/vcenter/traits.go).
TRAITS: Fields = {
    "usb": (lambda v: [_choice("2", "3")(str(x)) for x in _list(v)], list),
    "tpm": (_bool, False),
    "encrypted": (_bool, False),
    "cpu_affinity": (lambda v: [size(x) for x in _list(v)], list),
    "numa": (_text, ""),
    "hot_add": (lambda v: [_choice("cpu", "cpu_remove", "memory")(x) for x in _list(v)], list),
    "fault_tolerance": (_choice("notConfigured", "disabled", "enabled", "needSecondary", "starting", "running"), ""),
    "disk_uuid": (_bool, False),
    "connection": (_choice("connected", "disconnected", "orphaned", "inaccessible", "invalid"), ""),
    "tools_version": (_text, ""),
    "guest_disks": (
        lambda v: [{"path": x["path"], **{k: size(x.get(k, 0)) for k in ("capacity", "free", "disk")}} for x in _list(v)],
        list,
    ),
}


def _cluster(c: _Checker, where: str, data: Any) -> dict[str, Any]:
    """A cluster with its hosts, the switches of DRS, HA and EVC, and its groups and rules (of VMs and hosts by their names)."""
    cluster = c.take(
        where,
        data,
        {
            "name": (_text, _NEEDED),
            "hosts": (_list, list),
            "drs": (_choice("off", "manual", "partiallyAutomated", "fullyAutomated"), ""),
            "ha": (_bool, False),
            "evc": (_text, ""),
            "dpm": (_bool, False),
            "groups": (_list, list),
            "rules": (_list, list),
        },
    )
    names: Fields = {"name": (_text, _NEEDED), "vms": (_list, list), "hosts": (_list, list)}
    cluster["groups"] = [c.take(f"{where}, group {i}", x, names) for i, x in enumerate(cluster["groups"])]
    rule = {
        "name": (_text, _NEEDED),
        "type": (_choice("affinity", "anti_affinity", "run_on", "avoid"), _NEEDED),
        "vms": (_list, list),
        "vm_group": (_text, ""),
        "host_group": (_text, ""),
        "mandatory": (_bool, False),
        "enabled": (_bool, True),
    }
    cluster["rules"] = [c.take(f"{where}, rule {i}", x, rule) for i, x in enumerate(cluster["rules"])]
    return cluster


def _check_rules(c: _Checker, model: dict[str, Any]) -> None:
    vms = {v["name"] for v in model["vms"]}
    for cluster in model["clusters"]:
        where, groups = f"cluster {cluster['name']}", {g["name"] for g in cluster["groups"]}
        for part in (*cluster["groups"], *cluster["rules"]):
            c.errors += [f"{where}: {part['name']}: no VM {vm}" for vm in part["vms"] if vm not in vms]
            c.errors += [f"{where}: {part['name']}: no host {host}" for host in part.get("hosts", []) if host not in cluster["hosts"]]
            used = {part.get("vm_group", ""), part.get("host_group", "")} - {""}
            c.errors += [f"{where}: {part['name']}: no group {group}" for group in used - groups]


def _vm(c: _Checker, i: int, data: Any, hosts: list[str], stores: dict[str, Any], networks: set[str], folder: Path) -> dict[str, Any]:
    name = str(data.get("name", i)) if isinstance(data, dict) else str(i)
    where = f"VM {name}"
    vm = c.take(
        where,
        data,
        {
            "name": (_text, _NEEDED),
            "uuid": (_uuid, lambda: str(uuid.uuid5(NAMESPACE, name))),
            "bios_uuid": (_uuid, lambda: str(uuid.uuid5(NAMESPACE, f"bios {name}"))),
            "host": (_text, hosts[0] if hosts else ""),
            "datastore": (_text, next(iter(stores), "")),
            "folder": (_text, ""),
            "template": (_bool, False),
            "guest_id": (_text, "otherLinux64Guest"),
            "guest_full_name": (_text, ""),
            "firmware": (_choice("bios", "efi"), "bios"),
            "secure_boot": (_bool, False),
            "cpus": (size, 1),
            "cores_per_socket": (size, 1),
            "memory_mb": (size, 512),
            "power": (_choice("on", "off", "suspended"), "off"),
            "tools": (_choice("running", "hangs", "not_running", "not_installed"), "running"),
            "shutdown_seconds": (float, 1.0),
            "hw_version": (_text, "vmx-19"),
            "hostname": (_text, ""),
            "annotation": (_text, ""),
            "custom": (lambda v: {str(k): str(x) for k, x in _dict(v).items()}, dict),
            "cbt": (_bool, False),
            "passthrough": (lambda v: [_text(x) for x in _list(v)], list),
            "iso": (_text, ""),
            "memory_reserved_mb": (size, 0),
            "traits": (_dict, dict),
            "disks": (_list, list),
            "nics": (_list, list),
        },
    )
    vm["traits"] = c.take(f"{where}, traits", vm["traits"], TRAITS)
    if vm["host"] not in hosts:
        c.errors.append(f"{where}: no host {vm['host']}")
    if vm["template"] and vm["power"] != "off":
        c.errors.append(f"{where}: a template cannot be powered on")
    taken: set[tuple[str, int, int]] = set()
    vm["disks"] = [_disk(c, f"{where}, disk {j + 1}", x, vm, taken, stores, folder) for j, x in enumerate(vm["disks"])]
    for store in {vm["datastore"], *(d["datastore"] for d in vm["disks"] if d["datastore"])}:
        if store not in stores:
            c.errors.append(f"{where}: no datastore {store}")
        elif vm["host"] not in stores[store]["hosts"]:
            c.errors.append(f"{where}: host {vm['host']} does not have datastore {store}")
    kinds = _choice("vmxnet3", "vmxnet2", "e1000", "e1000e", "pcnet32", "sriov")
    vm["nics"] = [
        c.take(
            f"{where}, NIC {j + 1}",
            x,
            {"network": (_text, _NEEDED), "mac": (_mac, lambda j=j: _made_mac(name, j)), "type": (kinds, "vmxnet3"), "ip": (_text, "")},
        )
        for j, x in enumerate(vm["nics"])
    ]
    c.errors += [f"{where}: no network {n['network']}" for n in vm["nics"] if n["network"] not in networks]
    return vm


def _made_mac(name: str, i: int) -> str:
    """An address from VMware's range for addresses set by hand: 00:50:56:00:00:00 to 00:50:56:3f:ff:ff."""
    b = uuid.uuid5(NAMESPACE, f"mac {name} {i}").bytes
    return f"00:50:56:{b[0] & 0x3F:02x}:{b[1]:02x}:{b[2]:02x}"


def _disk(
    c: _Checker, where: str, data: Any, vm: dict[str, Any], taken: set[tuple[str, int, int]], stores: dict[str, Any], folder: Path
) -> dict[str, Any]:
    disk = c.take(
        where,
        data,
        {
            "controller": (_choice(*CONTROLLERS), "pvscsi"),
            "bus": (size, 0),
            "unit": (size, None),
            "path": (_text, ""),
            "recipe": (_choice(*disks.RECIPES), None),
            "capacity": (size, 0),
            "provisioning": (_choice("thin", "thick", "eagerZeroedThick"), "thin"),
            "uuid": (_uuid, ""),
            "datastore": (_text, ""),
            "mode": (_choice("persistent", "independent_persistent", "independent_nonpersistent"), "persistent"),
            "rdm": (_choice("physical", "virtual"), ""),
            "sharing": (_choice("multi_writer"), ""),
            "bus_sharing": (_choice("physical", "virtual"), ""),
            "lacks": (_choice("datastore", "capacity"), ""),
        },
    )
    kind = "scsi" if disk["controller"] in SCSI else disk["controller"]
    units = [u for u in range(CONTROLLERS[disk["controller"]]) if not (kind == "scsi" and u == 7)]
    if disk["unit"] is None:
        disk["unit"] = next((u for u in units if (kind, disk["bus"], u) not in taken), units[-1])
    if disk["unit"] not in units:
        c.errors.append(f"{where}: {disk['controller']} has no unit {disk['unit']} for a disk")
    if (kind, disk["bus"], disk["unit"]) in taken:
        c.errors.append(f"{where}: {kind}{disk['bus']}:{disk['unit']} is taken twice")
    taken.add((kind, disk["bus"], disk["unit"]))
    recipe = disk.pop("recipe")
    if disk["rdm"] and (recipe or disk["path"]):
        c.errors.append(f"{where}: an rdm has no bytes here: give its capacity alone")
    if recipe and disk["path"]:
        c.errors.append(f"{where}: path and recipe exclude each other")
    elif recipe:
        disk["path"] = str(disks.build(recipe))
    elif disk["path"]:
        disk["path"] = str((folder / disk["path"]).resolve())
    if disk["path"]:
        file = Path(disk["path"])
        if not file.is_file():
            c.errors.append(f"{where}: there is no file {file}")
        else:
            disk["capacity"] = disk["capacity"] or file.stat().st_size
    if not disk["capacity"]:
        c.errors.append(f"{where}: path, recipe or capacity is wanted")
    if disk["capacity"] % 512:
        c.errors.append(f"{where}: {disk['capacity']} bytes are not whole sectors of 512")
    return disk
