# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that an importer needs before the first object is made, put together: what was found at the source and in the cluster. Pure.

What could not be asked for (an account that may not read it) is None, and told as a warning: it is not known to be right.
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Mapping, Sequence

from ansible_collections.ferry.vmware.plugins.module_utils.concerns import CATEGORIES, CRITICAL, INFORMATION, WARNING

from . import state

Object = Mapping[str, Any]
Row = dict[str, str]
#: What the making of the objects says itself, in its own words.
SAID_BY_OBJECTS = (
    "VMNetworksNotMapped",
    "VMStorageNotMapped",
    "VMMultiplePodNetworkMappings",
    "DuplicateVM",
    "TargetNameNotValid",
    "ferry.harvester.storage",
)
#: Names in one sentence.
NAMED = 10


def _row(category: str, kind: str, who: str, said: str, advice: str) -> Row:
    return {"category": category, "id": kind, "who": who, "said": said.rstrip("."), "advice": advice.rstrip(".")}


def gathered(found: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the way, and what somebody should know.

    :param found: C(errors) (of the objects), C(checked) (what M(ferry.vmware.vm_precheck) returned), C(objects), C(definitions)
        (CustomResourceDefinitions), C(classes) (names of storage classes), C(attachments) (namespace/name), C(machines)
        (VirtualMachines of the target namespace), C(plan) (as it is), C(names) (that the VMs get), C(reach) (rows of
        M(ferry.vmware.port_check)), C(versions) (ClusterServiceVersions), C(no_image) (there is certainly none of VDDK), C(ignore) (ids).
    :returns: C(rows), the worst first, C(errors), C(warnings) and C(notes), sentences of those that are not ignored, and C(ignored), ids.
    """
    rows = [
        *_concerns(found.get("checked") or {}, bool(found.get("no_image"))),
        *_definitions(found.get("objects") or [], found.get("definitions")),
        *_classes(found.get("objects") or [], found.get("classes")),
        *_attachments(found.get("objects") or [], found.get("attachments")),
        *_taken(found),
        *_reach(found.get("reach") or []),
        *_versions(found.get("versions")),
    ]
    rows.sort(key=lambda r: (CATEGORIES.index(r["category"]), r["id"], r["who"]))
    ignore = {str(i) for i in found.get("ignore") or []}
    kept = [r for r in rows if r["id"] not in ignore]
    return {
        "rows": rows,
        "errors": [str(e) for e in found.get("errors") or []] + [_told(r) for r in kept if r["category"] == CRITICAL],
        "warnings": [_told(r) for r in kept if r["category"] == WARNING],
        "notes": [_told(r) for r in kept if r["category"] == INFORMATION],
        "ignored": sorted({r["id"] for r in rows} & ignore),
    }


def _told(row: Row) -> str:
    who = f"{row['who']}: " if row["who"] else ""
    return f"{who}{row['said']} ({row['id']}). {row['advice']}" if row["advice"] else f"{who}{row['said']} ({row['id']})"


def _concerns(checked: Mapping[str, Any], no_image: bool) -> Iterator[Row]:
    """Of VMs and of the wave; one that all of several VMs have is told once. C(no_image): there is no image of VDDK, for certain."""
    shared: dict[tuple[str, str, str, str, str], list[str]] = {}
    of_wave = {str(c["id"]) for c in checked.get("wave_concerns") or []}
    for name, concern in [(str(vm["name"]), c) for vm in checked.get("vms") or [] for c in vm["concerns"]] + [
        ("", c) for c in checked.get("wave_concerns") or []
    ]:
        kind = str(concern["id"])
        if kind in SAID_BY_OBJECTS and concern["category"] == CRITICAL:
            continue
        if name and kind == "ferry.privilege.missing" and kind in of_wave:
            continue  # told of the wave, privilege by privilege
        category = CRITICAL if kind == "VDDKInitImageUnavailable" and no_image else str(concern["category"])
        key = (category, kind, str(concern["label"]), str(concern["assessment"]), str(concern["advice"]))
        shared.setdefault(key, []).append(name)
    for (category, kind, label, assessment, advice), names in shared.items():
        who = ", ".join(n for n in names[:NAMED] if n) + (" …" if len(names) > NAMED else "")
        yield _row(category, kind, who, f"{label}: {assessment}", advice)


# -- the cluster ----------------------------------------------------------------------------------------------------------


def _definitions(objects: Sequence[Object], definitions: Sequence[Object] | None) -> Iterator[Row]:
    """Whether the cluster's definitions know every field that will be written."""
    if definitions is None:
        yield _row(
            WARNING,
            "ferry.cluster.definitions",
            "",
            "the cluster does not let this account read its CustomResourceDefinitions, so its release is not known",
            "",
        )
        return
    known = {(str(d["spec"]["group"]), str(d["spec"]["names"]["kind"])): d for d in definitions}
    lacking: dict[str, list[str]] = {}
    for one in objects:
        group, _slash, version = str(one["apiVersion"]).partition("/")
        found = known.get((group, str(one["kind"])))
        if found is None:
            lacking.setdefault(f"{one['kind']} ({group})", [])
            continue
        served = next((v for v in found["spec"]["versions"] if v["name"] == version and v.get("served")), None)
        if served is None:
            lacking.setdefault(f"{version} of {one['kind']} ({group})", [])
            continue
        schema = (served.get("schema") or {}).get("openAPIV3Schema") or {}
        fields = [*_unknown(one.get("spec") or {}, (schema.get("properties") or {}).get("spec") or {}, "spec")]
        if fields:
            lacking.setdefault(str(one["kind"]), []).extend(fields)
    for what, fields in lacking.items():
        said = (
            f"knows no {what}"
            if not fields
            else f"knows no {', '.join(dict.fromkeys(fields))} of {what}: it is of another release than this collection was written for"
        )
        yield _row(CRITICAL, "ferry.cluster.definitions", "", f"the cluster {said}", "Install or update the importer's operator")


def _unknown(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """Fields of C(value) that an OpenAPI schema does not have."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(value, Mapping):
        fields, others = schema.get("properties"), schema.get("additionalProperties")
        for key, part in value.items():
            if fields is not None and key in fields:
                yield from _unknown(part, fields[key], f"{path}.{key}")
            elif others is None and fields is not None:
                yield f"{path}.{key}"
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _unknown(part, schema.get("items") or {}, path)


def _classes(objects: Sequence[Object], there: Sequence[str] | None) -> Iterator[Row]:
    wanted: list[str] = []
    for one in objects:
        if one["kind"] == "StorageMap":
            wanted += [str(row["destination"]["storageClass"]) for row in one["spec"]["map"]]
        elif one["kind"] == "VirtualMachineImport" and one["spec"].get("storageClass"):
            wanted.append(str(one["spec"]["storageClass"]))
    yield from _missing(wanted, there, "StorageClass", "ferry.cluster.storage", "ferry_storage_map")


def _attachments(objects: Sequence[Object], there: Sequence[str] | None) -> Iterator[Row]:
    wanted: list[str] = []
    for one in objects:
        if one["kind"] == "NetworkMap":
            rows = [row["destination"] for row in one["spec"]["map"]]
            wanted += [f"{to['namespace']}/{to['name']}" for to in rows if to["type"] == "multus"]
        elif one["kind"] == "VirtualMachineImport":
            wanted += [str(row["destinationNetwork"]) for row in one["spec"].get("networkMapping") or []]
    yield from _missing(wanted, there, "NetworkAttachmentDefinition", "ferry.cluster.network", "ferry_network_map")


def _missing(wanted: Iterable[str], there: Sequence[str] | None, what: str, kind: str, variable: str) -> Iterator[Row]:
    names = list(dict.fromkeys(wanted))
    if not names:
        return
    if there is None:
        yield _row(WARNING, kind, "", f"the cluster does not tell which {what}s it has: {', '.join(names[:NAMED])} were not looked for", "")
        return
    gone = [name for name in names if name not in there]
    if gone:
        close = f" (it has {', '.join(sorted(there)[:NAMED])})" if there else ""
        yield _row(CRITICAL, kind, "", f"the cluster has no {what} {', '.join(gone[:NAMED])}{close}", f"Correct {variable}, or make it")


def _taken(found: Mapping[str, Any]) -> Iterator[Row]:
    """VMs of these names that are there already, and are not what an earlier run of the same plan has brought."""
    if found.get("machines") is None:
        yield _row(
            WARNING,
            "VMAlreadyExists",
            "",
            "the cluster does not tell which VirtualMachines it has: whether a name is taken is not known",
            "",
        )
        return
    there = {str(o["metadata"]["name"]) for o in found["machines"]}
    rows = [state.vm_row(vm) for vm in (((found.get("plan") or {}).get("status") or {}).get("migration") or {}).get("vms") or []]
    ours = {row["name"] for row in rows if row["state"] == "succeeded"}
    taken = [str(n) for n in found.get("names") or [] if n in there - ours]
    if taken:
        said = f"Target VM already exists: {', '.join(taken[:NAMED])}"
        yield _row(CRITICAL, "VMAlreadyExists", "", said, "Remove or rename what is there, or give another name (ferry_target_name)")


def _versions(found: Sequence[Object] | None) -> Iterator[Row]:
    names = [
        str(o["metadata"]["name"]) for o in found or [] if str(o["metadata"]["name"]).startswith(("mtv-operator", "forklift-operator"))
    ]
    for one in found or []:
        name, phase = str(one["metadata"]["name"]), str((one.get("status") or {}).get("phase") or "")
        if name in names and phase not in ("", "Succeeded"):
            yield _row(WARNING, "ferry.cluster.operator", "", f"the operator {name} is {phase}", "See that it becomes Succeeded")
    if names:
        yield _row(INFORMATION, "ferry.cluster.operator", "", f"the operator is {', '.join(names)}", "")


def _reach(rows: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Addresses as seen from where Ansible runs. What the cluster's nodes see, nobody tells before they try."""
    shut = [f"{r['address']}:{r['port']} ({r['said']})" for r in rows if not r["open"]]
    if shut:
        yield _row(
            WARNING,
            "ferry.address.unreachable",
            "",
            f"from this machine {', '.join(shut[:NAMED])}{' …' if len(shut) > NAMED else ''} cannot be reached",
            "The cluster's nodes have to reach them: its own test covers vCenter's address only, and that of an ESXi host is first seen when a"
            " disk is read",
        )
