# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checks before a move: all of them, each with what it found. Pure functions of what was read.

Vendor reference: vCenter Server and Host Management, "vMotion requirements", "Requirements and limitations of Storage vMotion";
VirtualMachine.RelocateVM_Task in the vSphere Web Services API.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Sequence

from .move_subject import Subject, disk_format
from .site import Datastore, Host, Site

MIB = 1 << 20

#: Says why the VM (MoRef) may not be on the host (MoRef); nothing where it may.
Forbids = Callable[[str, str], Sequence[str]]


@dataclass(frozen=True)
class Check:
    """One check. C(skipped): it could not be made, so C(passed) says nothing."""

    id: str
    passed: bool
    detail: str
    skipped: bool = False

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"id": self.id, "passed": self.passed, "detail": self.detail}
        return {**found, "skipped": True} if self.skipped else found


@dataclass(frozen=True)
class Target:
    """Where to. C(datastore): of the whole VM, None where it stays. C(disks): of single disks, by key. C(network_map): by names."""

    host: Host
    datastore: Datastore | None = None
    disks: Mapping[int, Datastore] = field(default_factory=dict)
    format: str | None = None
    network_map: Mapping[str, str] = field(default_factory=dict)
    reserve_percent: float = 5.0

    def of_disk(self, key: int) -> Datastore | None:
        """The datastore that the disk C(key) is to be on, None where it stays."""
        return self.disks.get(key, None if self.disks else self.datastore)


def load(subject: Subject, target: Target) -> dict[str, int]:
    """Bytes that the move writes, per datastore."""
    found: dict[str, int] = {}

    def add(moref: str, size: int) -> None:
        found[moref] = found.get(moref, 0) + size

    for disk in subject.disks:
        to = target.of_disk(disk.key)
        changes = target.format is not None and disk_format(disk) not in (target.format, "other")
        if to is None or to.moref == disk.datastore_moref and not changes:
            continue
        size = subject.disk_bytes.get(disk.key, disk.capacity)
        add(to.moref, disk.capacity if changes and target.format != "thin" else size)
    if target.datastore is not None and not target.disks and target.datastore.moref != subject.vmx_datastore:
        add(target.datastore.moref, max(0, sum(subject.bytes_on.values()) - sum(subject.disk_bytes.values())))
    return found


def stays_on(subject: Subject, target: Target) -> frozenset[str]:
    """The datastores (MoRefs) that the VM is on after the move."""
    found = {to.moref if (to := target.of_disk(d.key)) is not None else d.datastore_moref for d in subject.disks}
    found.add(target.datastore.moref if target.datastore is not None and not target.disks else subject.vmx_datastore)
    return frozenset(m for m in found if m)


def network_of(site: Site, host: Host, name: str, moref: str | None, network_map: Mapping[str, str]) -> str | None:
    """The MoRef of the network that a card in C(name) gets on C(host): by the map, as it is, or by its name; None where there is none."""
    wanted = network_map.get(name)
    if wanted is None:
        if moref in host.networks:
            return moref
        wanted = name
    return next((m for m in sorted(host.networks) if site.networks.get(m) == wanted), None)


def _host(host: Host) -> list[Check]:
    where = f"{host.name}" + (f" in {host.cluster_name}" if host.cluster_name else "")
    return [
        Check("host.connection", host.connected, f"{where} is {'connected' if host.connected else 'not connected to vCenter'}"),
        Check("host.power", host.power in ("on", "poweredOn"), f"{where} is powered {host.power}"),
        Check("host.maintenance", not host.maintenance, f"{where} is {'in' if host.maintenance else 'not in'} maintenance mode"),
    ]


def _datastores(subject: Subject, site: Site, target: Target) -> list[Check]:
    found = []
    missing, bad = [], []
    for moref in sorted(stays_on(subject, target)):
        store = site.datastores.get(moref)
        name = store.name if store else moref
        if moref not in target.host.datastores:
            missing.append(name)
        elif store is not None and not store.accessible:
            bad.append(f"{name} is not accessible")
    written = load(subject, target)
    for moref in written:
        store = site.datastores.get(moref)
        if store is not None and store.maintenance not in ("", "normal", "None"):
            bad.append(f"{store.name} is in maintenance mode")
    names = ", ".join(site.datastores[m].name if m in site.datastores else m for m in sorted(stays_on(subject, target)))
    found.append(
        Check(
            "datastore.access",
            not missing,
            f"{target.host.name} does not have {', '.join(missing)}"
            if missing
            else f"{target.host.name} has {names or 'no datastore to have'}",
        )
    )
    found.append(Check("datastore.state", not bad, "; ".join(bad) or "accessible, not in maintenance mode"))
    if written:
        short: list[str] = []
        told: list[str] = []
        for moref, size in written.items():
            store = site.datastores.get(moref)
            if store is None:
                continue
            spare = store.free - int(store.capacity * target.reserve_percent / 100)
            text = f"{store.name}: {size // MIB} MB to write, {store.free // MIB} MB free, {target.reserve_percent:g} % kept free"
            (told if size <= spare else short).append(text)
        found.append(Check("datastore.space", not short, "; ".join(short or told)))
    return found


def _networks(subject: Subject, site: Site, target: Target) -> Check:
    missing, told = [], []
    for nic in subject.nics:
        if nic.network is None:
            continue
        to = network_of(site, target.host, nic.network, nic.network_moref, target.network_map)
        wanted = target.network_map.get(nic.network, nic.network)
        if to is None:
            missing.append(f"{nic.label}: {target.host.name} has no network {wanted}")
        else:
            told.append(f"{nic.label}: {wanted}")
    return Check("network", not missing, "; ".join(missing or told) or "no network card")


def _hardware(subject: Subject, site: Site, target: Target, running: bool) -> list[Check]:
    """Memory and CPU of the other host. C(running): the VM goes on running on the way. A suspended one has to go on later with the CPU
    that it began with (vCenter Server and Host Management, "Migrate a Powered Off or Suspended Virtual Machine")."""
    to, source = target.host, site.hosts.get(subject.host or "")
    free = to.memory_mb_total - to.memory_mb_used
    if subject.memory_mb > to.memory_mb_total:
        memory = Check("memory", False, f"the VM has {subject.memory_mb} MB, all of {to.name} has {to.memory_mb_total}")
    elif subject.power == "on" and subject.memory_reserved_mb > free:
        memory = Check("memory", False, f"{subject.memory_reserved_mb} MB are reserved for the VM, {to.name} has {free} free")
    else:
        over = "; it will be overcommitted" if subject.power == "on" and subject.memory_mb > free else ""
        memory = Check("memory", True, f"the VM has {subject.memory_mb} MB, {to.name} has {free} free{over}")
    cpus = int(subject.facts.get("cpus") or 0)
    fits, has = cpus <= to.logical_cpus or to.logical_cpus == 0, to.logical_cpus or "an unknown number of"
    found = [memory, Check("cpu.count", fits, f"the VM has {cpus} CPUs, {to.name} has {has} logical CPUs")]
    vm = site.vms.get(subject.vm.moref)
    fits_cpu, why = site.cpu_fits(vm.evc if vm is not None else None, source, to)
    found.append(
        Check("cpu.features", fits_cpu is not False, why)
        if running or subject.power == "suspended"
        else Check("cpu.features", True, "it does not run on the way: any CPU will do")
    )
    return found


def _vm(subject: Subject, method: str, target: Target) -> list[Check]:
    hot = subject.power == "on" and method in ("hot", "storage")
    other = target.host.moref != subject.host
    dead = method == "failover"  # its host is, so that nothing of this can be mended there
    found = [
        Check(
            "vm.connection", dead or subject.connected, "connected" if subject.connected else f"the VM is {subject.facts.get('connection')}"
        ),
        Check("vm.template", not subject.template, "a template: make it a VM first" if subject.template else "no template"),
        Check(
            "vm.consolidation",
            dead or not subject.consolidation,
            "its disks need consolidation" if subject.consolidation else "none needed",
        ),
        Check(
            "vm.question",
            dead or subject.question is None,
            f"it waits for an answer: {subject.question}" if subject.question else "none",
        ),
        Check(
            "vm.fault_tolerance",
            not (subject.fault_tolerance and bool(load(subject, target))),
            "protected by Fault Tolerance" if subject.fault_tolerance else "not configured",
        ),
    ]
    if subject.passthrough:
        what, here = ", ".join(subject.passthrough), subject.facts.get("host")
        why = "which no other host has" if other else "with which no running VM is moved" if hot else "where it stays"
        found.append(Check("vm.passthrough", not (other or hot), f"{what}: a piece of {here}, {why}"))
    else:
        found.append(Check("vm.passthrough", True, "no device of its host"))
    held = [f"{d.label}: {d.what}" for d in subject.drives if d.datastore is None or d.datastore not in target.host.datastores]
    found.append(Check("vm.drives", not (held and hot and other), "; ".join(held) or "none that belongs to the host"))
    found.append(
        Check(
            "vm.snapshots",
            not (subject.snapshots and target.format is not None),
            f"{subject.snapshots} snapshots" + (", with which the format cannot change" if target.format else ", which go with it")
            if subject.snapshots
            else "none",
        )
    )
    grows = bool(subject.linked) and bool(load(subject, target))
    found.append(
        Check(
            "vm.linked_clone",
            not grows,
            f"{', '.join(subject.linked)}: on a base of another VM" + (", which the move would copy" if grows else "")
            if subject.linked
            else "no disk on a base of another VM",
        )
    )
    return found


def power_check(subject: Subject, method: str, on_timeout: str) -> Check:
    """Whether the VM's power state is one that C(method) works with."""
    power = subject.power
    if method == "hot":
        return Check("vm.power", power == "on", f"powered {power}" + ("" if power == "on" else ": hot moves running VMs, choose cold"))
    if method == "cold":
        return Check(
            "vm.power", power != "on", f"powered {power}" + ("" if power != "on" else ": cold moves what does not run, choose hot or move")
        )
    if method != "move" or power == "off":
        return Check("vm.power", True, f"powered {power}")
    if power == "suspended":
        return Check("vm.power", False, "suspended: its guest cannot be shut down; choose cold, which keeps the suspended memory")
    if subject.tools or on_timeout == "poweroff":
        how = "VMware Tools shut it down" if subject.tools else "VMware Tools do not run: powered off at once, as on_timeout says"
        return Check("vm.power", True, f"powered on; {how}")
    return Check(
        "vm.power", False, "VMware Tools do not run, so the guest cannot be asked to shut down; on_timeout: poweroff would power it off"
    )


def judge(
    subject: Subject, site: Site, target: Target, method: str, *, on_timeout: str = "fail", forbids: Forbids | None = None
) -> list[Check]:
    """Every check of moving C(subject) to C(target) by C(method) (hot, cold, storage, move, failover), whichever have failed."""
    other = target.host.moref != subject.host
    running = subject.power == "on" and method in ("hot", "storage")
    found = [*_host(target.host), power_check(subject, method, on_timeout), *_vm(subject, method, target)]
    found += _datastores(subject, site, target)
    if other:
        found += [_networks(subject, site, target), *_hardware(subject, site, target, running)]
        broken = list(forbids(subject.vm.moref, target.host.moref)) if forbids is not None else []
        found.append(Check("constraints", not broken, "; ".join(broken) or "none is broken"))
    return found
