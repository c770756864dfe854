# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For one VM: every host, whether it fits and why not, by which way, and a score. Pure.

The score (higher is better) is the smaller of the shares of memory and CPU that are free on the host once the VM is there, in
percent; less 100 where files have to be copied, 20 where the VM leaves its cluster, 10 for each wish (a constraint that is not
required) that would be broken, 5 where CPU compatibility is not known. Of equal scores the first name wins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

from .capacity import Load, Policy
from .constraints import Rules
from .site_model import Datastore, Host, Site, Vm

COPY, OTHER_CLUSTER, WISH, UNKNOWN_CPU = 100.0, 20.0, 10.0, 5.0


@dataclass(frozen=True)
class Way:
    """How a VM gets to a host. C(method): hot, cold, move. C(stores): datastores by those that they take the place of."""

    method: str
    stores: dict[str, str] = field(default_factory=dict)
    copied: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A host for a VM. C(host): MoRef. C(reasons): why it does not fit. C(score): only to compare those that fit."""

    host: str
    name: str
    fits: bool
    reasons: tuple[str, ...]
    score: float
    way: Way | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For a module's result."""
        return {
            "host": self.name,
            "moref": self.host,
            "fits": self.fits,
            "reasons": list(self.reasons),
            "score": round(self.score, 1),
            "method": self.way.method if self.way else None,
            "copied_mb": self.way.copied >> 20 if self.way else 0,
            "notes": list(self.notes),
        }


class Fitting:
    """Answers for many VMs and hosts; what does not depend on the load is worked out once."""

    def __init__(self, site: Site, rules: Rules, policy: Policy) -> None:
        self.site = site
        self.rules = rules
        self.policy = policy
        self._host: dict[str, list[str]] = {}
        self._names: dict[str, frozenset[str]] = {}
        self._networks: dict[tuple[frozenset[str], str], list[str]] = {}
        self._stores: dict[str, list[Datastore]] = {}
        self._static: dict[tuple[str, str], tuple[list[str], str, tuple[str, ...]]] = {}
        self._missing: dict[tuple[frozenset[str], str], tuple[str, ...]] = {}

    def host_reasons(self, host: Host) -> list[str]:
        """Why the host takes no VM at all."""
        if host.moref not in self._host:
            found = []
            if not host.connected:
                found.append("the host is not connected")
            if host.maintenance:
                found.append("the host is in maintenance mode")
            if host.power != "on":
                found.append(f"the host's power is {host.power or 'unknown'}")
            self._host[host.moref] = found
        return self._host[host.moref]

    def _network_reasons(self, vm: Vm, host: Host) -> list[str]:
        key = (vm.networks, host.moref)
        if key not in self._networks:
            if host.moref not in self._names:
                self._names[host.moref] = self.site.network_names(host.networks)
            there = self._names[host.moref]
            mapped = {n: self.policy.network_map.get(n, n) for n in self.site.network_names(vm.networks)}
            self._networks[key] = [
                f"network {n if n == m else f'{n} (mapped to {m})'} is not there" for n, m in sorted(mapped.items()) if m not in there
            ]
        return self._networks[key]

    def cpu(self, vm: Vm, host: Host) -> tuple[str | None, str | None]:
        """For a VM that keeps its running state: why the host's CPU does not fit, or what is not known of it."""
        here = self.site.hosts.get(vm.host or "")
        if here is None or here.moref == host.moref:
            return None, None
        fits, why = self.site.cpu_fits(vm.evc, here, host)
        return (f"CPU: {why}", None) if fits is False else (None, why) if fits is None else (None, None)

    def _fixed(self, vm: Vm, host: Host) -> tuple[list[str], str, tuple[str, ...]]:
        """Reasons, method and notes that do not depend on the load."""
        key = (vm.moref, host.moref)
        if key in self._static:
            return self._static[key]
        reasons = [*self.host_reasons(host), *self._network_reasons(vm, host), *self.rules.against(vm.moref, host.moref)]
        notes: list[str] = []
        if vm.datacenter != host.datacenter and vm.datacenter and host.datacenter:
            notes.append(f"another datacenter ({host.datacenter})")
        if vm.cpus > host.logical_cpus > 0:
            reasons.append(f"CPU: the VM has {vm.cpus}, the host {host.logical_cpus}")
        method = "cold"
        if vm.passthrough:
            reasons.append(f"passthrough: {', '.join(vm.passthrough)}")
        if vm.ft:
            reasons.append("fault tolerance is on")
        if vm.consolidation:
            reasons.append("its disks need consolidation")
        if not vm.connected:
            reasons.append("the VM is not connected: its host has to be back, or it has to fail over")
        if vm.power in ("on", "suspended"):
            wrong = []
            if vm.power == "on":
                method = "hot"
                here = self.site.hosts.get(vm.host or "")
                wrong += [f"vMotion is not enabled on {h.name}" for h in (here, host) if h is not None and not h.vmotion]
                if vm.connected_local_devices:
                    wrong.append(f"connected to devices of its host: {', '.join(vm.connected_local_devices)}")
            reason, note = self.cpu(vm, host)
            if reason:
                wrong.append(reason)
            elif note:
                notes.append(note)
            if wrong and vm.power == "on" and self.policy.shutdown:
                method = "move"
                notes += [f"not while it runs: {w}" for w in wrong]
            else:
                reasons += wrong
        self._static[key] = (reasons, method, tuple(notes))
        return self._static[key]

    def stores_of(self, host: str) -> list[Datastore]:
        """The datastores that can take files for the host, shared ones first."""
        if host not in self._stores:
            found = [d for d in self.site.datastores.values() if host in d.hosts and d.accessible and d.maintenance == "normal"]
            self._stores[host] = sorted(found, key=lambda d: (d.local, d.name))
        return self._stores[host]

    def missing(self, vm: Vm, host: str, load: Load) -> tuple[str, ...]:
        """The VM's datastores that the host does not reach."""
        now = frozenset(load.stored[vm.moref]) if vm.moref in load.stored else frozenset(vm.datastores | vm.disks_bytes.keys())
        key = (now, host)
        if key not in self._missing:
            there = self.site.datastores
            self._missing[key] = tuple(sorted(d for d in now if d not in there or host not in there[d].hosts or not there[d].accessible))
        return self._missing[key]

    def way(self, vm: Vm, host: str, load: Load) -> tuple[Way | None, list[str]]:
        """How the VM gets to the host as things are, or why it does not: all that is about the VM alone, not about memory and CPU."""
        reasons, method, notes = self._fixed(vm, self.site.hosts[host])
        wanted = self.policy.datastore
        missing: Sequence[str] = self.missing(vm, host, load)
        if not missing and wanted is None:
            return (None, reasons) if reasons else (Way(method, {}, 0, notes), [])
        files = load.files(vm.moref)
        images = [d for d in missing if files and not files.get(d)]  # none of its files are there: an image in a drive
        if images:
            missing = [d for d in missing if d not in images]
            if vm.running:
                reasons = [*reasons, f"connected to an image on datastore {self._stores_named(images)}, which is not reached from there"]
        if not missing and (wanted is None or files.keys() <= {wanted}):
            return (None, reasons) if reasons else (Way(method, {}, 0, notes), [])
        why = [f"datastore {self._stores_named(missing)} is not reached from there"] if missing else []
        if missing and wanted is None and not self.policy.storage:
            return None, [*reasons, *why]
        target, lacking = self._target(host, files, load)
        if target is None:
            return None, [*reasons, *why, *lacking]
        if reasons:
            return None, reasons
        moving = sorted(d for d in {*files, *missing} if d != target)
        return Way(method, dict.fromkeys(moving, target), sum(files.get(d, 0) for d in moving), notes), []

    def _stores_named(self, morefs: Sequence[str]) -> str:
        return ", ".join(self.site.datastores[d].name if d in self.site.datastores else d for d in morefs)

    def _target(self, host: str, files: Mapping[str, int], load: Load) -> tuple[str | None, list[str]]:
        """The datastore that all files of a VM go to: where the fewest bytes have to be copied, then a shared one, then the one with most
        room; or why there is none."""
        lacking: list[str] = []
        options: list[tuple[int, bool, int, str, str]] = []
        for d in self.stores_of(host):
            if self.policy.datastore not in (None, d.moref):
                continue
            size = sum(b for store, b in files.items() if store != d.moref)
            text = load.lacks(d.moref, size)
            if text is None:
                options.append((size, d.local, load.keep[d.moref] - load.free[d.moref], d.name, d.moref))
            else:
                lacking.append(text)
        return (min(options)[4], []) if options else (None, lacking or ["the host has no datastore that takes files"])

    def neighbours(self, vms: Iterable[Vm], host: str, load: Load, flying: Iterable[str] = ()) -> list[str]:
        """Which VMs on the host (or on their way to it, C(flying)) have to be apart from one of C(vms), in words."""
        found = []
        moving = {vm.moref for vm in vms}
        for vm in vms:
            others = self.rules.apart.get(vm.moref)
            if others:
                there = (load.on[host] | set(flying)) - {vm.moref}
                for other in sorted(others.keys() & there | (others.keys() & moving)):
                    found.append(f"constraint {others[other]}: {self.site.vms[other].name} is there")
        return found

    def score(self, vm: Vm, host: str, load: Load, way: Way) -> tuple[float, tuple[str, ...]]:
        """The score of a host that fits, and the wishes that it would break."""
        h = self.site.hosts[host]
        memory, cpu = load.room(host)
        if vm.running and vm.moref not in load.on[host]:
            memory -= vm.memory_mb / h.memory_mb_total if h.memory_mb_total else 0.0
            cpu -= vm.cpu_used_mhz / h.cpu_mhz_total if h.cpu_mhz_total else 0.0
        score = 100.0 * min(memory, cpu)
        wishes = self.rules.wishes_broken(vm.moref, host, load.on[host]) if self.rules.of(vm.moref) else []
        here = self.site.hosts.get(vm.host or "")
        if way.stores:
            score -= COPY
        if here is not None and here.cluster != h.cluster:
            score -= OTHER_CLUSTER
        if any(n.startswith("CPU models") for n in way.notes):
            score -= UNKNOWN_CPU
        return score - WISH * len(wishes), tuple(f"breaks the wish {w}" for w in wishes)


def of_host(fitting: Fitting, vm: Vm, host: str, load: Load, *, alone: bool = False) -> Candidate:
    """One host for one VM.

    :param alone: constraints of kind together are not looked at (the others come along).
    """
    name = fitting.site.where(host)
    way, reasons = fitting.way(vm, host, load)
    reasons = list(reasons)
    if vm.host == host:
        reasons.insert(0, "it is there already")
    unit = fitting.rules.unit(vm.moref)
    if not alone and len(unit) > 1:
        apart = sorted(fitting.site.vms[v].name for v in unit - {vm.moref} if load.where.get(v) != host)
        if apart:
            rules = sorted({str(r) for v in unit for r in fitting.rules.of(v) if r.kind == "together" and r.required})
            reasons.append(f"constraint {'; '.join(rules)}: {', '.join(apart[:6])} would be elsewhere")
    reasons += fitting.neighbours([vm], host, load)
    reasons += load.refused([vm], host)
    if reasons or way is None:
        return Candidate(host, name, False, tuple(dict.fromkeys(reasons)), 0.0)
    score, wishes = fitting.score(vm, host, load, way)
    return Candidate(host, name, True, (), score, way, (*way.notes, *wishes))


def candidates(site: Site, vm: str, rules: Rules | None = None, policy: Policy | None = None, *, alone: bool = False) -> list[Candidate]:
    """Every host for the VM (MoRef) as things are now: those that fit first, the best first; then the others by name."""
    policy = policy or Policy()
    fitting = Fitting(site, rules or Rules(site), policy)
    load = Load(site, policy)
    found = [of_host(fitting, site.vms[vm], h, load, alone=alone) for h in site.hosts]
    return sorted(found, key=lambda c: (not c.fits, -c.score, c.name, c.host))


def best(found: Sequence[Candidate]) -> Candidate | None:
    """The first that fits."""
    return next((c for c in found if c.fits), None)
