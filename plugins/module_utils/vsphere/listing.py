# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory: VMs, ESXi hosts and datastores as plain records, from one question to the property collector.

A record is what a cache can keep: C(kind), C(name), C(moref), C(vars) (the ferry_* variables), C(props) (the properties that
were asked for, nested: config.guestId is C(props["config"]["guestId"])).
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

from ..errors import BadInput
from .client import connect, endpoint
from .properties import POWER, Row, moref_of, of_objects, of_view
from .tree import ANCESTORS, Tree, shown
from .wire import Attribute, NeedsTypes, Wire

#: Always read of a VM: what the ferry_* variables are made of, and what filters templates out.
VM_ALWAYS = ("name", "parent", "parentVApp", "config.instanceUuid", "config.template")

HOST_PATHS = (
    "name",
    "parent",
    "config.product.build",
    "config.product.version",
    "runtime.connectionState",
    "runtime.inMaintenanceMode",
    "runtime.powerState",
    "summary.hardware.cpuMhz",
    "summary.hardware.memorySize",
    "summary.hardware.numCpuCores",
    "summary.quickStats.overallCpuUsage",
    "summary.quickStats.overallMemoryUsage",
)

DATASTORE_PATHS = (
    "name",
    "parent",
    "summary.accessible",
    "summary.capacity",
    "summary.freeSpace",
    "summary.maintenanceMode",
    "summary.multipleHostAccess",
    "summary.type",
    "summary.uncommitted",
    "summary.url",
)

#: Custom attributes that bind a machine to a definition of an inventory (binding.py), and the variables that they become.
REGISTERED = {"ferry.definition": "ferry_definition", "ferry.group": "ferry_group"}

#: What group_by can name, and the leaves of a VM that each needs.
GROUPINGS: dict[str, tuple[str, ...]] = {
    "cluster": ("runtime.host",),
    "datacenter": (),
    "datastore": ("datastore",),
    "folder": (),
    "host": ("runtime.host",),
    "power": ("runtime.powerState",),
}


def plain_value(value: Any) -> Any:
    """C(value) of the vSphere API as data that JSON can hold: a managed object is its MoRef, a data object a dict without what is unset."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or kind is float or value is None:
        return value
    # pyVmomi's own subclasses: bool stands before int, which it is a subclass of
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return [plain_value(v) for v in value]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "_moId"):
        return moref_of(value)
    if isinstance(value, Attribute):
        return {"key": value.key, "value": value.value}
    if hasattr(value, "_GetPropertyList"):
        found = ((p.name, getattr(value, p.name)) for p in value._GetPropertyList() if p.name not in ("dynamicType", "dynamicProperty"))
        return {name: plain_value(v) for name, v in found if v is not None}
    return str(value)


def nested(props: Mapping[str, Any], split: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The properties that C(split) names (path to its parts) as a tree of dicts; what is unset or may not be read is left out."""
    tree: dict[str, Any] = {}
    for path, parts in split.items():
        if path not in props:
            continue
        node = tree
        for part in parts[:-1]:
            inner = node.get(part)
            if not isinstance(inner, dict):
                inner = node[part] = {}
            node = inner
        node[parts[-1]] = plain_value(props[path])
    return tree


def _percent(used: Any, total: Any) -> int | None:
    return round(100 * used / total) if used is not None and total else None


def host_vars(row: Row, tree: Tree) -> dict[str, Any]:
    """The ferry_* variables of an ESXi host. Memory in MiB, CPU in MHz."""
    p = row.props
    mhz, cores = p.get("summary.hardware.cpuMhz"), p.get("summary.hardware.numCpuCores")
    cpu_mhz = mhz * cores if mhz is not None and cores is not None else None
    memory_mb = p["summary.hardware.memorySize"] // (1 << 20) if "summary.hardware.memorySize" in p else None
    cpu_used, memory_used = p.get("summary.quickStats.overallCpuUsage"), p.get("summary.quickStats.overallMemoryUsage")
    power = str(p.get("runtime.powerState", ""))
    return {
        "ferry_build": p.get("config.product.build"),
        "ferry_cluster": tree.cluster(row.moref),
        "ferry_connection": plain_value(p.get("runtime.connectionState")),
        "ferry_cpu_load_percent": _percent(cpu_used, cpu_mhz),
        "ferry_cpu_mhz": plain_value(cpu_mhz),
        "ferry_cpu_used_mhz": plain_value(cpu_used),
        "ferry_maintenance": p.get("runtime.inMaintenanceMode"),
        "ferry_memory_load_percent": _percent(memory_used, memory_mb),
        "ferry_memory_mb": plain_value(memory_mb),
        "ferry_memory_used_mb": plain_value(memory_used),
        "ferry_power": POWER.get(power, power or None),
        "ferry_version": p.get("config.product.version"),
    }


def datastore_vars(row: Row, tree: Tree) -> dict[str, Any]:
    """The ferry_* variables of a datastore. Sizes in bytes."""
    p = row.props
    mode = plain_value(p.get("summary.maintenanceMode"))
    capacity, free = plain_value(p.get("summary.capacity")), plain_value(p.get("summary.freeSpace"))
    return {
        "ferry_accessible": p.get("summary.accessible"),
        "ferry_capacity": capacity,
        "ferry_free": free,
        "ferry_maintenance": None if mode is None else mode != "normal",
        "ferry_shared": p.get("summary.multipleHostAccess"),
        "ferry_type": p.get("summary.type"),
        "ferry_uncommitted": plain_value(p.get("summary.uncommitted")),
        "ferry_url": p.get("summary.url"),
        "ferry_used_percent": _percent(capacity - free, capacity) if capacity is not None and free is not None else None,
    }


def _groupings(row: Row, tree: Tree, wanted: Iterable[str]) -> dict[str, list[str]]:
    """The values that C(wanted) of GROUPINGS have for a VM."""
    p = row.props
    host = p.get("runtime.host")
    found: dict[str, list[str | None]] = {}
    for name in wanted:
        if name == "folder":
            found[name] = [shown(tree.folder(row.moref)).strip("/")]
        elif name == "datacenter":
            found[name] = [tree.datacenter(row.moref)]
        elif name == "host":
            found[name] = [tree.name(host)]
        elif name == "cluster":
            found[name] = [tree.cluster(moref_of(host)) if host is not None else None]
        elif name == "power":
            power = str(p.get("runtime.powerState", ""))
            found[name] = [POWER.get(power, power)]
        elif name == "datastore":
            found[name] = [tree.name(d) for d in p.get("datastore") or ()]
    return {name: [v for v in values if v] for name, values in found.items()}


def registration(row: Row, names: Mapping[int, str]) -> dict[str, str]:
    """The variables of a machine that is registered as a definition; none for others.

    :param names: variables by the keys of the attributes.
    """
    values = {names[v.key]: str(v.value) for v in row.props.get("customValue") or () if v.key in names and v.value}
    return values if "ferry_definition" in values else {}


def below(path: str, folders: Sequence[str]) -> bool:
    """Whether the inventory path C(path) is in or below one of C(folders)."""
    return any(path == f or path.startswith(f + "/") for f in folders)


def records(
    rows: Sequence[Row],
    *,
    properties: Sequence[str],
    group_by: Sequence[str] = (),
    include_templates: bool = False,
    folders: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The records of what was read, ordered by kind and path. Pure.

    :param properties: leaves of a VM that were asked for.
    :param folders: inventory paths (/DC0/vm/wave1); VMs elsewhere are left out.
    :raises BadInput: lists every one of C(folders) that does not exist.
    """
    tree = Tree(rows)
    roots = ["/" + f.strip("/") for f in folders]
    if roots:
        there = {shown(tree.path(r.moref)) for r in rows if r.kind in ("Folder", "Datacenter", "VirtualApp")}
        missing = [f for f in roots if shown(f) not in there]
        if missing:
            raise BadInput(f"There is no folder {', '.join(missing)}.", step="read the inventory", folders=missing)
    split = {path: path.split(".") for path in properties}
    defined = next((row.props.get("field") or () for row in rows if row.kind == "CustomFieldsManager"), ())
    registered = {f.key: REGISTERED[f.name] for f in defined if f.name in REGISTERED and f.managedObjectType is None}
    found: list[dict[str, Any]] = []
    for row in rows:
        variables: dict[str, Any]
        if row.kind == "VirtualMachine":
            if row.props.get("config.template") and not include_templates:
                continue
            path = tree.path(row.moref)
            if roots and not below(shown(path), [shown(r) for r in roots]):
                continue
            variables = {"ferry_instance_uuid": row.props.get("config.instanceUuid")}
            kind, props, groups = "vm", nested(row.props, split), _groupings(row, tree, group_by)
        elif row.kind == "HostSystem":
            kind, props, groups, path, variables = "esxi_host", {}, {}, tree.path(row.moref), host_vars(row, tree)
        elif row.kind == "Datastore":
            kind, props, groups, path, variables = "datastore", {}, {}, tree.path(row.moref), datastore_vars(row, tree)
        else:
            continue
        name = shown(str(row.props.get("name", row.moref)))
        variables.update(ferry_moref=row.moref, ferry_name=name, ferry_path=path)
        if registered:
            bound = registration(row, registered)
            variables.update(bound)
            if "ferry_group" in bound:
                groups = {**groups, "": [bound["ferry_group"]]}
        found.append({"kind": kind, "name": name, "moref": row.moref, "vars": variables, "props": props, "groups": groups})
    order = {"vm": 0, "esxi_host": 1, "datastore": 2}
    return sorted(found, key=lambda r: (order[r["kind"]], r["vars"]["ferry_path"], r["moref"]))


def read(
    params: Mapping[str, Any],
    *,
    properties: Sequence[str],
    group_by: Sequence[str] = (),
    include_templates: bool = False,
    folders: Sequence[str] = (),
    with_esxi_hosts: bool = True,
    with_datastores: bool = True,
) -> list[dict[str, Any]]:
    """Read the inventory, in one question whose answer comes in pages; see records().

    :param params: the connection options.
    """
    leaves = dict.fromkeys([*VM_ALWAYS, *(leaf for g in group_by for leaf in GROUPINGS[g]), *properties])
    paths: dict[str, Sequence[str]] = {"VirtualMachine": tuple(leaves), **ANCESTORS}
    by_host = bool({"host", "cluster"} & set(group_by))
    if with_esxi_hosts or by_host:
        paths["HostSystem"] = HOST_PATHS if with_esxi_hosts else ("name", "parent")
    if with_datastores or "datastore" in group_by:
        paths["Datastore"] = DATASTORE_PATHS if with_datastores else ("name", "parent")
    rows = _read(params, paths)
    found = records(rows, properties=properties, group_by=group_by, include_templates=include_templates, folders=folders)
    unwanted = {kind for kind, wanted in (("esxi_host", with_esxi_hosts), ("datastore", with_datastores)) if not wanted}
    return [r for r in found if r["kind"] not in unwanted]


def _anything_registered(defined: Iterable[Any]) -> bool:
    """Whether there is the attribute that machine_register writes, so that machines may have it."""
    return any(f.name == "ferry.definition" and f.managedObjectType is None for f in defined)


def _attributes_of(paths: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    return {kind: ("customValue",) for kind in ("VirtualMachine", "HostSystem") if kind in paths}


def _read(params: Mapping[str, Any], paths: Mapping[str, Sequence[str]]) -> list[Row]:
    """Without pyVmomi, whose import alone takes longer than all of this, unless a whole data object is asked for.

    The definitions of attributes come along with the first answer. Their values are a second question, where any machine can be
    registered: a site that registers none pays nothing.
    """
    try:
        with Wire(endpoint(params)) as wire:
            manager = wire.manager("customFieldsManager")
            rows = wire.of_view(paths, also={manager: ("field",)} if manager is not None else {})
            defined = next((r.props.get("field") or () for r in rows if r.kind == "CustomFieldsManager"), ())
            values = wire.of_view(_attributes_of(paths)) if _anything_registered(defined) else []
    except NeedsTypes:
        with connect(params) as session:
            rows = of_view(session, paths)
            fields = session.content.customFieldsManager
            rows += of_objects(session, [fields], {"CustomFieldsManager": ("field",)}) if fields is not None else []
            defined = next((r.props.get("field") or () for r in rows if r.kind == "CustomFieldsManager"), ())
            values = of_view(session, _attributes_of(paths)) if _anything_registered(defined) else []
    found = {(r.kind, r.moref): r.props for r in values}
    for row in rows if found else ():
        row.props.update(found.get((row.kind, row.moref), {}))
    return rows
