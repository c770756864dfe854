# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What hosts and datastores still take, counted while a plan is made: moves done, and moves in flight on both sides. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterable, Mapping

from .site_model import MIB, Site, Vm


@dataclass(frozen=True)
class Policy:
    """What a plan may do.

    C(reserve_percent): of memory, CPU and datastores, left free. C(overcommit): memory of running VMs may be so many times that of
    the host. C(storage): disks may be copied to another datastore where a host does not reach them. C(shutdown): a running VM that
    cannot be moved running may be shut down for it. C(network_map): names of networks and what they are called at the target.
    C(datastore): MoRef of the one that disks go to.
    """

    reserve_percent: float = 10.0
    overcommit: float = 1.0
    storage: bool = True
    shutdown: bool = False
    network_map: Mapping[str, str] = field(default_factory=dict)
    datastore: str | None = None

    @property
    def share(self) -> float:
        """What of a capacity may be used."""
        return 1.0 - self.reserve_percent / 100.0


class Load:
    """Who is where and what that takes. Memory counts as configured, of VMs that run: what a host measures now says nothing of the
    moment when all guests want theirs. CPU counts as measured."""

    def __init__(self, site: Site, policy: Policy) -> None:
        self.site = site
        self.policy = policy
        self.where: dict[str, str | None] = {}
        self.on: dict[str, set[str]] = {h: set() for h in site.hosts}
        self.memory = dict.fromkeys(site.hosts, 0)
        self.reserved = dict.fromkeys(site.hosts, 0)
        self.cpu = dict.fromkeys(site.hosts, 0)
        self.free = {d.moref: d.free for d in site.datastores.values()}
        self.keep = {d.moref: int(d.capacity * policy.reserve_percent / 100.0) for d in site.datastores.values()}
        self.stored: dict[str, dict[str, int]] = {}
        for vm in site.vms.values():
            self.where[vm.moref] = vm.host
            if vm.host in self.on:
                self.arrive(vm, vm.host)
        # a host's own memory (vmkernel) is not in memory_mb_total's use by VMs: the reserve stands for it
        self.memory_limit = {h.moref: h.memory_mb_total * policy.share * policy.overcommit for h in site.hosts.values()}
        self.reserved_limit = {h.moref: h.memory_mb_total * policy.share for h in site.hosts.values()}
        self.cpu_limit = {h.moref: h.cpu_mhz_total * policy.share for h in site.hosts.values()}

    def arrive(self, vm: Vm, host: str) -> None:
        """The VM is (also) on the host."""
        self.on[host].add(vm.moref)
        if vm.running:
            self.memory[host] += vm.memory_mb
            self.reserved[host] += vm.memory_reserved
            self.cpu[host] += vm.cpu_used_mhz

    def leave(self, vm: Vm, host: str) -> None:
        """The VM is no longer on the host."""
        self.on[host].discard(vm.moref)
        if vm.running:
            self.memory[host] -= vm.memory_mb
            self.reserved[host] -= vm.memory_reserved
            self.cpu[host] -= vm.cpu_used_mhz

    def move(self, vm: Vm, host: str | None) -> None:
        """The VM is on the host C(host), and nowhere else."""
        before = self.where[vm.moref]
        if before in self.on:
            self.leave(vm, before)
        self.where[vm.moref] = host
        if host in self.on:
            self.arrive(vm, host)

    def files(self, vm: str) -> dict[str, int]:
        """Bytes of the VM by datastore, as they are by now."""
        return self.stored.get(vm) or self.site.vms[vm].disks_bytes

    def store(self, vm: str, target: Mapping[str, int]) -> None:
        """The VM's files are now as C(target) has them (bytes by datastore)."""
        for moref, size in self.files(vm).items():
            if moref in self.free:
                self.free[moref] += size
        for moref, size in target.items():
            if moref in self.free:
                self.free[moref] -= size
        if dict(target) == self.site.vms[vm].disks_bytes:
            self.stored.pop(vm, None)
        else:
            self.stored[vm] = dict(target)

    def refused(self, vms: Iterable[Vm], host: str) -> list[str]:
        """Why the host does not take C(vms) together (memory, CPU), in words; empty where it does."""
        running = [vm for vm in vms if vm.running and vm.moref not in self.on[host]]
        if not running:
            return []
        memory, reserved = sum(v.memory_mb for v in running), sum(v.memory_reserved for v in running)
        cpu = sum(v.cpu_used_mhz for v in running)
        found = []
        if self.memory[host] + memory > self.memory_limit[host]:
            found.append(
                f"memory: {memory} MiB wanted, {max(0, int(self.memory_limit[host] - self.memory[host]))} MiB left within the reserve"
            )
        if reserved and self.reserved[host] + reserved > self.reserved_limit[host]:
            found.append(
                f"memory reservations: {reserved} MiB wanted, {max(0, int(self.reserved_limit[host] - self.reserved[host]))} MiB left"
            )
        if cpu and self.cpu[host] + cpu > self.cpu_limit[host]:
            found.append(f"CPU: {cpu} MHz wanted, {max(0, int(self.cpu_limit[host] - self.cpu[host]))} MHz left within the reserve")
        return found

    def room(self, host: str) -> tuple[float, float]:
        """The shares of memory and CPU of the host that are free, before reserve and overcommitment."""
        h = self.site.hosts[host]
        memory = 1.0 - self.memory[host] / h.memory_mb_total if h.memory_mb_total else 0.0
        cpu = 1.0 - self.cpu[host] / h.cpu_mhz_total if h.cpu_mhz_total else 0.0
        return memory, cpu

    def lacks(self, datastore: str, size: int) -> str | None:
        """Why the datastore does not take C(size) bytes, in words."""
        left = self.free[datastore] - self.keep[datastore]
        if size <= left:
            return None
        name = self.site.datastores[datastore].name
        return f"datastore {name}: {size // MIB} MiB wanted, {max(0, left) // MIB} MiB left within the reserve"
