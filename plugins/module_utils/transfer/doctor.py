# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A first look at a vCenter, before anything is moved: what is there, which way works for which VM, and how fast it is.

Nothing is changed: only what lies still anyway is read, disks of VMs that are off and what the user's own snapshots have frozen.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Collection, Iterator, Mapping, Sequence

from ..disk.progress import Progress, progress_from
from ..errors import BadInput, FerryError, Interrupted, ServerError
from ..vsphere import builds, guest, privileges, snapshot_tree
from ..vsphere.client import Session, connect
from ..vsphere.disks import VmDisk
from ..vsphere.find import VmRef, describe, find_vms
from ..vsphere.precheck_read import session_key
from ..vsphere.properties import of_objects, of_view
from ..vsphere.tree import shown
from . import doctor_read, throughput
from .doctor_paths import best, paths, tracking_supported

_HOST = ("name", "config.product.version", "config.product.build", "runtime.connectionState", "runtime.inMaintenanceMode")
_STORE = ("name", "summary.type", "summary.capacity", "summary.freeSpace", "summary.accessible")
_STEP = "look at the site"
#: VMs and datastores that are named where a privilege is missing.
_NAMED = 10
#: Disks that are tried for one figure before a reason is given instead.
_TRIES = 3


@dataclass(frozen=True)
class Candidate:
    """A disk that lies still: of a VM that is off, or frozen by C(snapshot), which is the user's."""

    vm: Mapping[str, Any]
    ref: VmRef
    disk: VmDisk
    snapshot: snapshot_tree.Snapshot | None = None


def run(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """What the module doctor_read does; see its documentation for C(params) and the result.

    :param check: look, but read no disks.
    :raises FerryError: vCenter cannot be asked, or one of the VMs is not there. What cannot be read is a row with its reason.
    """
    for name, least, most in (("bytes", 1 << 20, 1 << 40), ("seconds", 0.1, 3600), ("workers", 1, 64)):
        if not least <= params[name] <= most:
            raise BadInput(f"{name} must be from {least} to {most}, got {params[name]}.", step="read the options")
    with contextlib.ExitStack() as stack:
        progress = progress_from(params, name="doctor")
        if not check:
            stack.enter_context(progress)
            progress.install_signals()
        session = stack.enter_context(connect(params))
        found = _look(session, params)
        plan = list(_wanted(found, params))
        rows = []
        for number, (host, transport) in enumerate([] if check else plan):
            progress.check()
            row = _measure(session, params, found, host, transport, progress)
            row["kept"] = _keep(params, row)
            rows.append(row)
            if row["vm"] is None:
                continue  # nothing lay still: the report says so
            progress.update(f"{host['name']} {transport}", "read", row["bytes"], max(row["bytes"], 1))
            progress.finish(f"{host['name']} {transport}", why=row["error"] or f"{number + 1} of {len(plan)}", failed=bool(row["error"]))
        about = session.content.about
        return {
            "vcenter": {
                "name": session.endpoint.host,
                "version": str(about.version),
                "build": str(about.build),
                "api_type": str(about.apiType),
            },
            "hosts": found["hosts"],
            "datastores": found["datastores"],
            "vms": found["vms"],
            "privileges": _privileges(session, found),
            "reads": rows,
        }


def _look(session: Session, params: Mapping[str, Any]) -> dict[str, Any]:
    """Hosts, datastores and VMs as plain data; C(refs) and C(raw) are for the reading."""
    wanted = params.get("vms")
    if wanted:
        refs = find_vms(session, wanted)
    else:
        rows = of_view(session, {"VirtualMachine": ("config.template",)})
        refs = describe(session, [row.moref for row in rows])
    raw = guest.read_vms(session, refs)
    known = {vm["moref"] for vm in raw}
    refs = [ref for ref in refs if ref.moref in known]
    hosts = _rows(session, "HostSystem", {vm["host_moref"] for vm in raw if vm["host_moref"]}, _HOST)
    stores = _rows(session, "Datastore", {d.datastore_moref for vm in raw for d in vm["disks"] if d.datastore_moref}, _STORE)
    vddk = bool(params.get("vddk"))
    return {
        "refs": refs,
        "raw": raw,
        "hosts": [_host(moref, props, raw, params.get("bad_builds") or ()) for moref, props in hosts],
        "datastores": [_store(moref, props, raw) for moref, props in stores],
        "vms": [_vm(vm, vddk) for vm in raw],
    }


def _rows(session: Session, kind: str, morefs: set[str], leaves: Sequence[str]) -> list[tuple[str, Mapping[str, Any]]]:
    refs = [session.managed(kind, moref) for moref in sorted(morefs)]
    found = of_objects(session, refs, {kind: leaves}, step=_STEP) if refs else []
    return sorted(((row.moref, row.props) for row in found), key=lambda item: str(item[1].get("name", item[0])))


def _host(moref: str, props: Mapping[str, Any], raw: Sequence[Mapping[str, Any]], more: Sequence[str]) -> dict[str, Any]:
    version, number = props.get("config.product.version"), str(props.get("config.product.build") or "")
    name = shown(str(props.get("name", moref)))
    build = builds.Build(str(version), int(number), name) if version and number.isdigit() else None
    largest = max((d.capacity for vm in raw if vm["host_moref"] == moref for d in vm["disks"]), default=0)
    return {
        "name": name,
        "moref": moref,
        "version": str(version) if version else None,
        "build": number or None,
        "bad_build": builds.bad_build(build, largest, more),
        "connection": str(props.get("runtime.connectionState", "unknown")),
        "maintenance": bool(props.get("runtime.inMaintenanceMode")),
        "vms": sum(1 for vm in raw if vm["host_moref"] == moref),
    }


def _store(moref: str, props: Mapping[str, Any], raw: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "name": shown(str(props.get("name", moref))),
        "moref": moref,
        "type": str(props.get("summary.type") or "unknown"),
        "capacity": int(props.get("summary.capacity") or 0),
        "free": int(props.get("summary.freeSpace") or 0),
        "accessible": bool(props.get("summary.accessible")),
        "vms": sum(1 for vm in raw if any(d.datastore_moref == moref for d in vm["disks"])),
    }


def _vm(vm: Mapping[str, Any], vddk: bool) -> dict[str, Any]:
    disks: Sequence[VmDisk] = vm["disks"]
    found = paths(vm, disks, vddk=vddk)
    return {
        **{key: vm[key] for key in ("name", "moref", "instance_uuid", "path", "host", "power", "template", "snapshots", "hw_version")},
        "consolidation_needed": vm["consolidation_needed"],
        "capacity": sum(d.capacity for d in disks),
        "datastores": sorted({f"{d.datastore} ({d.datastore_type or 'unknown'})" for d in disks}),
        "tracking": {
            "supported": tracking_supported(vm["hw_version"]),
            "enabled": bool(vm["change_tracking"]),
            "disks": sum(1 for d in disks if d.change_id),
            "of": len(disks),
        },
        "paths": [p.as_dict() for p in found],
        "best": best(found),
    }


def _privileges(session: Session, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What migrations need of the account, one by one; C(granted) is None where vCenter does not tell."""
    names = {row["moref"]: row["name"] for kind in ("vms", "datastores") for row in found[kind]}
    root = str(session.content.rootFolder._moId)
    names[root] = "the root folder"
    asked = {
        privileges.VM: [vm["moref"] for vm in found["vms"]],
        privileges.DATASTORE: [store["moref"] for store in found["datastores"]],
        privileges.ROOT: [root],
    }
    lacking: Mapping[str, Collection[str]] | None
    try:
        # An ESXi host has no such question.
        key = session_key(session) if _is_vcenter(session) else None
        lacking = privileges.missing(session, key, asked, {n.privilege for n in privileges.NEEDS}) if key is not None else None
    except ServerError:
        lacking = None
    rows = []
    for need in privileges.NEEDS:
        without = [names[m] for m in asked[need.on] if lacking is not None and need.privilege in lacking.get(m, ())]
        rows.append(
            {
                "privilege": need.privilege,
                "why": need.why,
                "when": list(need.when),
                "granted": None if lacking is None else not without,
                "lacking": len(without),
                "lacking_on": without[:_NAMED],
            }
        )
    return rows


def _is_vcenter(session: Session) -> bool:
    return session.content.authorizationManager is not None and str(session.content.about.apiType) == "VirtualCenter"


def _wanted(found: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """(host, transport): each figure that is wanted."""
    chosen = params.get("transports") or ("https", "nfc", "nbd")
    for host in found["hosts"]:
        for transport in chosen:
            if transport != "nbd" or params.get("vddk"):
                yield host, transport


def _candidates(session: Session, found: Mapping[str, Any], host: Mapping[str, Any], transport: str) -> Iterator[Candidate]:
    """Disks of VMs on C(host) that can be read by C(transport) as they lie, the largest of VMs that are off first."""
    here = [(vm, ref) for vm, ref in zip(found["raw"], found["refs"], strict=True) if vm["host_moref"] == host["moref"]]
    still = [(vm, ref) for vm, ref in here if vm["power"] == "off" and vm["connection"] == "connected"]
    for vm, ref in sorted(still, key=lambda item: (item[0]["template"], -max((d.capacity for d in item[0]["disks"]), default=0))):
        yield from (Candidate(vm, ref, disk) for disk in doctor_read.readable(vm["disks"], transport)[:1])
    for vm, ref in here:
        if vm["power"] != "on" or not vm["snapshots"] or vm["connection"] != "connected":
            continue
        theirs = [s for s in snapshot_tree.every(session, ref) if s.tag is None]
        if theirs:
            disks = [d for d in snapshot_tree.disks_at(session, ref, theirs[-1]) if not (d.mode or "").startswith("independent")]
            yield from (Candidate(vm, ref, disk, theirs[-1]) for disk in doctor_read.readable(disks, transport)[:1])


def _measure(
    session: Session, params: Mapping[str, Any], found: Mapping[str, Any], host: Mapping[str, Any], transport: str, progress: Progress
) -> dict[str, Any]:
    """One figure: up to C(bytes) of a disk on C(host), read by C(transport); or why there is none."""
    row: dict[str, Any] = {
        "host": host["name"],
        "host_moref": host["moref"],
        "transport": transport,
        "vm": None,
        "disk": None,
        "datastore": None,
        "bytes": 0,
        "zero_bytes": 0,
        "seconds": 0.0,
        "rate": None,
        "error": None,
    }
    failed: list[str] = []
    for candidate in _candidates(session, found, host, transport):
        label = f"{host['name']} {transport}"
        row.update(vm=candidate.vm["name"], disk=candidate.disk.label, datastore=candidate.disk.datastore)

        def tell(count: int, of: int, label: str = label) -> None:
            progress.update(label, "read", count, of)

        try:
            read = doctor_read.read(session, candidate.ref, candidate.disk, candidate.snapshot, transport, params, tell, progress.check)
        except Interrupted:
            raise
        except FerryError as e:
            failed.append(f"{candidate.vm['name']}, {candidate.disk.label}: {e.message}" + (f" Said: {e.said}" if e.said else ""))
            if len(failed) >= _TRIES:
                break
            continue
        rate = read.count / read.seconds if read.seconds > 0 else None
        row.update(bytes=read.count, zero_bytes=read.zeroes, seconds=round(read.seconds, 2), rate=round(rate) if rate else None)
        return row
    row["error"] = "; ".join(failed) or (
        "on this host nothing lies still that could be read this way: no VM that is off, and none with a snapshot of yours"
    )
    return row


def _keep(params: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Keep the figure for plans. What was mostly zeroes tells of no disk, and is shown only."""
    if row["rate"] is None or row["zero_bytes"] * 2 > row["bytes"]:
        return False
    return throughput.note(throughput.place(params.get("ledger")), row["transport"], row["bytes"], row["seconds"], row["host"])
