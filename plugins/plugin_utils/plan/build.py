# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a wave, from what was read on both sides: data that JSON can hold (plan.json). Bytes and seconds. Pure."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.ferry.vmware.plugins.module_utils.concerns import CATEGORIES, CRITICAL, INFORMATION, WARNING, Concern, ordered
from ansible_collections.ferry.vmware.plugins.module_utils.disk.budget_settings import Settings, checked
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.disk.forecast import epoch
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import ways
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.disks import VmDisk
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan import estimate
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan.estimate import DiskNeeds, Pace, Phase, Terms
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan.schedule import Step, Task, schedule

VERSION = 1
#: Phases in which a VM is away, by strategy.
AWAY = {"cold": ("copy", "verify", "convert", "land", "ready"), "warm": ("cutover", "convert", "land", "ready")}
_MEND = "mend what it names, then make the plan again"


@dataclass(frozen=True)
class Given:
    """One VM of the wave: its facts (vm_info), its entry of landing_plan, and what was asked for."""

    host: str
    facts: Mapping[str, Any]
    entry: Mapping[str, Any]
    terms: Terms = field(default_factory=Terms)


@dataclass
class Known:
    """What was read beside: C(machines) (copy_info) by conversion host, C(usage) (vm_disk_usage), C(precheck) (vm_precheck),
    C(landing) (landing_plan)."""

    machines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    usage: Mapping[str, Any] = field(default_factory=dict)
    precheck: Mapping[str, Any] = field(default_factory=dict)
    landing: Mapping[str, Any] = field(default_factory=dict)
    #: (MoRef, disk's key) to what the disk holds; MoRef to concerns; VM's name to errors of landing_plan;
    #: (conversion host, VM's UUID, disk's key) to ledgers.
    held: dict[tuple[str, str], Mapping[str, Any]] = field(init=False)
    found: dict[str, list[Mapping[str, Any]]] = field(init=False)
    wrong: dict[str, list[Mapping[str, Any]]] = field(init=False)
    ledgers: dict[tuple[str, str, str], list[Mapping[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self.held = {(str(v.get("moref")), str(d.get("key"))): d for v in self.usage.get("vms") or () for d in v.get("disks") or ()}
        self.found = {str(v.get("moref")): list(v.get("concerns") or ()) for v in self.precheck.get("vms") or ()}
        self.wrong, self.ledgers = {}, {}
        for error in self.landing.get("errors") or ():
            self.wrong.setdefault(str(error.get("vm") or ""), []).append(error)
        for name, machine in self.machines.items():
            for disk in machine.get("disks") or ():
                self.ledgers.setdefault((name, str(disk.get("source")), str(disk.get("disk"))), []).append(disk)

    def ledger(self, given: Given, key: str, volume: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The ledger of a disk: that of its volume, where it has one."""
        source = str(given.facts.get("instance_uuid") or "").lower()
        found = self.ledgers.get((given.terms.machine, source, key)) or []
        if volume is not None:
            found = [d for d in found if d.get("target") == f"volume:{volume.get('id')}"]
        return found[-1] if found else None


def terms_of(said: Mapping[str, Any]) -> Terms:
    """C(said) (migrate_terms of the role) as Terms; templates hand over strings.

    :raises BadInput: a number that is none, or a time that is none.
    """

    def number(name: str, default: float | None) -> float | None:
        value = said.get(name)
        if value is None or value == "":
            return default
        try:
            found = float(value)
        except (TypeError, ValueError):
            found = -1.0
        if not math.isfinite(found) or found < 0:
            raise BadInput(f"{name} is a number of 0 or more, not {str(value)[:50]!r}.", step="read the options")
        return found

    strategy = str(said.get("strategy") or "cold")
    phases = said.get("phases")
    found = Terms(
        machine=str(said.get("conversion_host") or "localhost"),
        strategy=strategy,
        phases=[str(p) for p in phases] if isinstance(phases, Sequence) and not isinstance(phases, str) else ("precopy", "cutover"),
        transport=str(said.get("transport") or "auto"),
        nbd=bool(said.get("vddk")),
        verify=str(said.get("verify") or ""),
        throughput=number("throughput", None),
        landing=number("landing_seconds", None),
        shutdown=number("shutdown_seconds", 30.0) or 0.0,
        budget=number("downtime_budget", 300.0) or 0.0,
        outside=min(100.0, number("outside_sample", 1.0) or 0.0) / 100,
        interval=number("interval", 60.0) or 0.0,
        least=max(1, int(number("min_cycles", 1.0) or 1)),
        cutover_at=str(said.get("cutover_at") or ""),
        convert=number("convert_seconds", None),
        converts=str(said.get("converts") or "").lower() in ("true", "yes", "1"),
    )
    if found.cutover_at:
        epoch(found.cutover_at)
    return found


def build(title: str, wave: Sequence[Given], known: Known, *, forks: int, now: datetime.datetime) -> dict[str, Any]:
    """plan.json.

    :param forks: VMs at once.
    :param now: with its time zone.
    """
    rows = [_vm(given, known, now.timestamp()) for given in wave]
    concerns = _of_wave(known)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    end = _time(rows, wave, known, forks, (now - midnight).total_seconds(), concerns)
    for row in rows:
        row.pop("steps")
    plan: dict[str, Any] = {
        "version": VERSION,
        "made": now.isoformat(timespec="seconds"),
        "title": title,
        "vcenter": dict(known.usage.get("vcenter") or {}),
        "forks": forks,
        "wave": [given.host for given in wave],
        "vms": rows,
        "quotas": quotas_of(known.landing.get("quotas") or ()),
        "server_groups": [
            {k: g.get(k) for k in ("name", "policy", "id", "vms")}
            for g in known.landing.get("server_groups") or ()
            if isinstance(g, Mapping)
        ],
        "concerns": [c.as_dict() for c in ordered(concerns)],
        "remarks": sorted({f"{name}: {text}" for name, machine in known.machines.items() for text in machine.get("remarks") or ()}),
    }
    plan["totals"] = totals_of(plan, end)
    return plan


def quotas_of(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Quotas before and after the wave; C(limit) is -1 where there is none."""
    return [
        {
            "resource": str(row.get("what")),
            "used": int(row.get("used") or 0),
            "limit": int(row.get("limit", -1)),
            "after": int(row.get("used") or 0) + int(row.get("needed") or 0),
        }
        for row in rows
    ]


def totals_of(plan: Mapping[str, Any], end: float | None) -> dict[str, Any]:
    """Sums over C(plan); C(seconds) is the whole wave on the clock."""
    vms = plan["vms"]
    disks = [d for vm in vms for d in vm["disks"]]
    found = [c["category"] for vm in vms for c in vm["concerns"]] + [c["category"] for c in plan["concerns"]]
    return {
        "vms": len(vms),
        "ready": sum(vm["ready"] for vm in vms),
        "to_do": sum(bool(vm["phases"]) for vm in vms),
        "disks": len(disks),
        "capacity": sum(d["capacity"] for d in disks),
        "allocated": sum(d["allocated"] if d["allocated"] is not None else d["capacity"] for d in disks),
        "reads": sum(d["reads"] for d in disks),
        "volumes_gib": sum(v["size_gib"] for vm in vms for v in vm["volumes"]),
        "seconds": None if end is None else round(end, 1),
        "downtime": round(max([vm["downtime_seconds"] or 0.0 for vm in vms], default=0.0), 1),
        "basis": estimate.weakest([p for vm in vms for p in vm["phases"]]),
        **{category: found.count(category) for category in CATEGORIES},
    }


# -- one VM -----------------------------------------------------------------------------------------------------------


def _vm(given: Given, known: Known, now: float) -> dict[str, Any]:
    facts, entry, terms = given.facts, given.entry, given.terms
    machine = known.machines.get(terms.machine) or {}
    off = facts.get("power") == "off"
    to_copy = {str(k) for k in entry.get("to_copy") or ()}
    volumes = {str(v.get("disk")): v for v in entry.get("volumes") or ()}
    concerns = _concerns(given, known)
    disks: list[dict[str, Any]] = []
    needs: list[DiskNeeds] = []
    for disk in facts.get("disks") or ():
        key = str(disk.get("key"))
        volume = volumes.get(key)
        way = _way(disk, terms, concerns)
        kept = known.ledger(given, key, volume)
        said = (((volume or {}).get("found") or {}).get("metadata") or {}).get("ferry_change_id")
        need = estimate.needs_of(
            disk,
            way=way,
            warm=terms.strategy == "warm",
            off=off,
            tracked=bool(facts.get("change_tracking")),
            snapshots=int(facts.get("snapshots") or 0),
            usage=known.held.get((str(facts.get("moref")), key), {}),
            kept=kept,
            change_id=(kept or {}).get("change_id") or said or None,
            to_copy=key in to_copy or volume is None,
            now=now,
        )
        needs.append(need)
        disks.append(
            {
                "label": str(disk.get("label") or key),
                "key": key,
                "capacity": need.capacity,
                "allocated": need.allocated,
                "changed": need.changed,
                "changed_basis": need.basis,
                "reads": need.reads,
                "transport": way,
                "datastore": disk.get("datastore"),
                "volume": {"type": volume.get("type"), "size_gib": volume.get("size_gib")} if volume else None,
            }
        )
    phases = _phases(given, needs, disks, machine, off, now)
    first: Mapping[str, Any] = max(disks, key=lambda d: d["reads"], default={})
    return {
        "name": str(facts.get("name") or given.host),
        "host": given.host,
        "moref": facts.get("moref"),
        "source": str(facts.get("instance_uuid") or ""),
        "power": facts.get("power"),
        "state": str((facts.get("custom_attributes") or {}).get("ferry.state") or ""),
        "esxi": facts.get("host"),
        "networks": [n.get("network") for n in facts.get("nics") or ()],
        "disks": disks,
        "conversion_host": terms.machine,
        "strategy": terms.strategy,
        "flavor": (entry.get("flavor") or {}).get("name"),
        "server": {k: (entry.get("server") or {}).get(k) for k in ("name", "id", "status")},
        "ports": [_port(p) for p in entry.get("ports") or ()],
        "volumes": [_volume(v) for v in entry.get("volumes") or ()],
        "phases": [],
        "steps": phases,
        "begins": 0.0,
        "ends": 0.0,
        "downtime_seconds": 0.0,
        "downtime_budget": terms.budget if terms.strategy == "warm" else None,
        "cutover_at": terms.cutover_at or None,
        "ready": all(c.category != CRITICAL for c in concerns),
        "concerns": [c.as_dict() for c in ordered(concerns)],
        "reads_from": [facts.get("host"), first.get("datastore")],
    }


def _way(disk: Mapping[str, Any], terms: Terms, concerns: list[Concern]) -> str:
    fields = VmDisk.__dataclass_fields__
    try:
        plain: dict[str, Any] = {name: disk.get(name) for name in fields}
        plain["chain"] = tuple(disk.get("chain") or ())
        plain["backing"] = disk.get("backing") or "FlatVer2"
        return ways.choose(terms.transport, VmDisk(**plain), nbd=terms.nbd).name
    except BadInput as e:
        label = str(disk.get("label") or "")
        what = "; ".join(filter(None, [e.message, str(e.said or "")]))
        concerns.append(Concern("ferry.transport.none", CRITICAL, "cannot be read this way", what, e.next_command or _MEND, disk=label))
        return "none"


def _phases(
    given: Given, needs: Sequence[DiskNeeds], disks: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], off: bool, now: float
) -> list[Phase]:
    entry, terms = given.entry, given.terms
    measured = machine.get("throughput") or {}
    pace = Pace(measured.get("transports") or {}, measured.get("steps") or {})
    slowest = [d["transport"] for d in disks if d["reads"]]
    way = next((w for w in ("nfc", "nbd", "https") if w in slowest), "https")
    server = entry.get("server") or {}
    changes = server.get("changes") or {}
    return estimate.phases_of(
        needs,
        terms,
        pace,
        way=way,
        host=given.facts.get("host"),
        off=off,
        absent=sum(v.get("state") == "absent" for v in entry.get("volumes") or ()),
        lands="create" in changes or changes.get("power") == "start",
        after=max(0.0, epoch(terms.cutover_at) - now) if terms.cutover_at else 0.0,
    )


def _port(port: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "nic": str(port.get("nic") or ""),
        "name": port.get("name"),
        "network": port.get("network") or port.get("network_id"),
        "mac": port.get("mac"),
        "addresses": [f.get("ip_address") for f in port.get("fixed_ips") or () if isinstance(f, Mapping)],
        "id": port.get("id"),
    }


def _volume(volume: Mapping[str, Any]) -> dict[str, Any]:
    attach = volume.get("attach") or {}
    return {
        "disk": str(volume.get("disk")),
        "label": volume.get("label"),
        "name": volume.get("name"),
        "type": volume.get("type"),
        "size_gib": int(volume.get("size_gib") or 0),
        "device": attach.get("device"),
        "bus": attach.get("bus"),
        "id": volume.get("id"),
        "state": volume.get("state"),
    }


# -- concerns ---------------------------------------------------------------------------------------------------------


def _concerns(given: Given, known: Known) -> list[Concern]:
    """What the precheck found, and what landing_plan says beside: each finding once."""
    found = [_concern(c) for c in known.found.get(str(given.facts.get("moref")), ())]
    ids = {c.id for c in found}
    for error in known.wrong.get(str(given.entry.get("name")), ()):
        if error.get("what") in (given.entry.get("errors") or ()) and error.get("id") not in ids:
            found.append(
                Concern(str(error.get("id") or "ferry.landing"), CRITICAL, "cannot land as planned", str(error.get("what")), _MEND)
            )
    if not ids:
        # A precheck of the target tells these too, each with its own id.
        for text in given.entry.get("warnings") or ():
            found.append(Concern("ferry.landing.note", WARNING, "lands with a difference", str(text), "see whether the guest minds"))
    return found


def _concern(row: Mapping[str, Any]) -> Concern:
    category = str(row.get("category"))
    return Concern(
        str(row.get("id")),
        category if category in CATEGORIES else WARNING,
        str(row.get("label") or row.get("id")),
        str(row.get("assessment") or ""),
        str(row.get("advice") or ""),
        disk=None if row.get("disk") is None else str(row["disk"]),
        device=None if row.get("device") is None else str(row["device"]),
    )


def _of_wave(known: Known) -> list[Concern]:
    found = [_concern(c) for c in known.precheck.get("wave_concerns") or ()]
    for vm in known.precheck.get("vms") or ():
        if not vm.get("moref"):
            # It is not there: what is said of it has no other place.
            found += [_concern({**c, "device": c.get("device") or vm.get("name")}) for c in vm.get("concerns") or ()]
    ids = {c.id for c in found}
    for error in known.wrong.get("", ()):
        if error.get("id") not in ids:
            found.append(Concern(str(error.get("id") or "ferry.landing"), CRITICAL, "the wave does not fit", str(error.get("what")), _MEND))
    if known.precheck.get("msg") and "vms" not in known.precheck:
        text = str(known.precheck["msg"])
        found.append(Concern("ferry.precheck.failed", WARNING, "not looked at for concerns", text, "mend it, then make the plan again"))
    for text in known.landing.get("notes") or () if not ids else ():
        found.append(Concern("ferry.landing.note", INFORMATION, "of the wave", str(text), "nothing needs to be done"))
    return found


# -- the clock --------------------------------------------------------------------------------------------------------


def _time(
    rows: Sequence[dict[str, Any]], wave: Sequence[Given], known: Known, forks: int, began: float, concerns: list[Concern]
) -> float | None:
    """Put the phases on the clock; seconds to the end of the wave, None where it has none."""
    budgets: dict[str, Settings] = {}
    for name, machine in known.machines.items():
        try:
            budgets[name] = Settings(checked(machine.get("budget")))
        except BadInput as e:
            concerns.append(Concern("ferry.budget.invalid", WARNING, "the read budget cannot be used", str(e), _MEND, device=name))
    tasks = [
        Task(
            [Step(p.name, p.seconds, p.count, p.rate or math.inf, p.after) for p in row["steps"]],
            given.terms.machine,
            row["reads_from"][0],
            row["reads_from"][1],
        )
        for row, given in zip(rows, wave, strict=True)
    ]
    found = schedule(tasks, forks, budgets, began)
    for number, (row, spans) in enumerate(zip(rows, found.spans, strict=True)):
        row.pop("reads_from")
        row["lane"] = found.lanes[number]
        times = {s.name: round(s.ends - s.begins, 1) for s in spans}
        row["phases"] = [
            {
                "name": p.name,
                "seconds": times.get(p.name),
                "bytes": p.count,
                "basis": p.basis,
                "begins": next((round(s.begins, 1) for s in spans if s.name == p.name), None),
            }
            for p in row["steps"]
        ]
        row["begins"] = round(spans[0].begins, 1) if spans else 0.0
        row["ends"] = None if number in found.stuck else round(spans[-1].ends, 1) if spans else 0.0
        away = [p for p in row["phases"] if p["name"] in AWAY.get(row["strategy"], AWAY["cold"])]
        if row["strategy"] == "warm" and row["cutover_at"]:
            # The wait for the moment is no downtime.
            away = [{**p, "seconds": step.alone} for p, step in zip(row["phases"], row["steps"], strict=True) if p in away]
        known_times = [p["seconds"] for p in away]
        row["downtime_seconds"] = None if None in known_times else 0.0 if row["power"] == "off" else round(sum(known_times), 1)
    if found.stuck:
        names = ", ".join(str(rows[n]["name"]) for n in found.stuck[:5])
        more = f" and {len(found.stuck) - 5} more" if len(found.stuck) > 5 else ""
        text = f"with the read budget as it is these have no end: {names}{more}"
        concerns.append(Concern("ferry.budget.never", CRITICAL, "no end in sight", text, "raise the budget with ferry.vmware.copy_budget"))
    return found.end
