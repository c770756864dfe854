# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What placement knows, as plain data: hosts, datastores, VMs and clusters by MoRef. site.py reads it from vCenter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Iterable, TypeVar

from ..errors import BadInput

MIB = 1 << 20


@dataclass(frozen=True)
class DrsRule:
    """A rule of a cluster. C(kind): together, apart (VMs with each other), run_on, keep_off (VMs and hosts). C(required): must, not should."""

    name: str
    kind: str
    vms: frozenset[str]
    hosts: frozenset[str] = frozenset()
    required: bool = True


@dataclass(frozen=True)
class Cluster:
    """C(rules): those that are enabled, whether or not DRS is."""

    name: str
    drs: bool = False
    ha: bool = False
    rules: tuple[DrsRule, ...] = ()


@dataclass(frozen=True)
class Host:
    """An ESXi host. CPU in MHz, memory in MiB as counted by the host. C(cluster): MoRef, None for a standalone host."""

    moref: str
    name: str
    cluster: str | None = None
    cluster_name: str | None = None
    datacenter: str | None = None
    connected: bool = True
    maintenance: bool = False
    power: str = "on"
    cpu_mhz_total: int = 0
    cpu_mhz_used: int = 0
    cores: int = 0
    memory_mb_total: int = 0
    memory_mb_used: int = 0
    datastores: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    vendor: str = ""
    model: str = ""
    version: str = ""
    build: str = ""
    evc: str | None = None
    custom: dict[str, str] = field(default_factory=dict)
    threads: int = 0
    cpu_model: str = ""
    evc_max: str | None = None
    path: str = ""
    vmotion: bool = True

    @property
    def logical_cpus(self) -> int:
        """The most virtual CPUs that a VM on this host can have; 0: not known. Vendor reference: vSphere Virtual Machine
        Administration, "Virtual CPU Limitations" (no more than the host has logical CPUs, which are threads)."""
        return self.threads or self.cores


@dataclass(frozen=True)
class Datastore:
    """Sizes in bytes. C(hosts): those that have it mounted and can reach it. C(local): one host alone has it."""

    moref: str
    name: str
    type: str = ""
    capacity: int = 0
    free: int = 0
    accessible: bool = True
    maintenance: str = "normal"
    hosts: frozenset[str] = frozenset()
    local: bool = False
    datacenter: str | None = None


@dataclass(frozen=True)
class Vm:
    """A VM. Memory in MiB, CPU in MHz. C(disks_bytes): what its files occupy, by datastore. C(passthrough) and
    C(connected_local_devices): labels of such devices, empty where devices were not read (C(devices_read) says)."""

    moref: str
    name: str
    uuid: str | None = None
    host: str | None = None
    power: str = "off"
    cpus: int = 1
    memory_mb: int = 0
    memory_reserved: int = 0
    cpu_used_mhz: int = 0
    datastores: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    disks_bytes: dict[str, int] = field(default_factory=dict)
    vmx_datastore: str | None = None
    snapshots: int = 0
    passthrough: tuple[str, ...] = ()
    connected_local_devices: tuple[str, ...] = ()
    ft: bool = False
    template: bool = False
    consolidation: bool = False
    custom: dict[str, str] = field(default_factory=dict)
    connected: bool = True
    evc: str | None = None
    guest_id: str = ""
    disks: tuple[int, ...] = ()
    devices_read: bool = False
    path: str = ""
    datacenter: str | None = None

    @property
    def running(self) -> bool:
        """Whether it takes memory of its host now."""
        return self.power == "on"

    @property
    def bytes(self) -> int:
        """What all its files occupy."""
        return sum(self.disks_bytes.values())


@dataclass(frozen=True)
class Site:
    """Everything, by MoRef. C(evc_modes): vendor and rank of each EVC mode that vCenter knows (higher: newer)."""

    hosts: dict[str, Host] = field(default_factory=dict)
    datastores: dict[str, Datastore] = field(default_factory=dict)
    vms: dict[str, Vm] = field(default_factory=dict)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    evc_modes: dict[str, tuple[str, int]] = field(default_factory=dict)

    def vms_on(self, host: str) -> list[Vm]:
        """The VMs registered on the host C(host), by name."""
        return sorted((vm for vm in self.vms.values() if vm.host == host), key=lambda vm: (vm.name, vm.moref))

    def cpu_fits(self, needs: str | None, source: Host | None, target: Host) -> tuple[bool | None, str]:
        """Whether a VM that keeps its running state can go on with the CPU of C(target), None where nothing says so; and why.

        :param needs: the EVC mode that the VM was started with (VirtualMachineRuntimeInfo.minRequiredEVCModeKey).
        """
        needs = needs or (source.evc if source is not None else None)
        offers = target.evc or target.evc_max
        if needs in self.evc_modes and offers in self.evc_modes:
            (maker, rank), (other, offered) = self.evc_modes[str(needs)], self.evc_modes[str(offers)]
            return maker == other and rank <= offered, f"the VM needs EVC mode {needs}, the host offers {offers}"
        if source is None:
            return None, "nothing is known of the CPU that it runs on"
        if source.cpu_model == target.cpu_model or (source.evc and source.evc == target.evc):
            return True, f"the same CPU model or EVC mode as {source.name}"
        makers = [next((m for m in ("intel", "amd") if m in h.cpu_model.casefold()), None) for h in (source, target)]
        if None not in makers and makers[0] != makers[1]:
            return False, f"{source.cpu_model} and {target.cpu_model} are of different makers"
        return None, f"CPU models differ ({source.cpu_model}; {target.cpu_model}) and no EVC mode says whether they are compatible"

    def network_names(self, morefs: Iterable[str]) -> frozenset[str]:
        """Names of the networks C(morefs)."""
        return frozenset(self.networks.get(m, m) for m in morefs)

    def where(self, host: str | None) -> str:
        """The host's name, with its cluster where another host is called the same."""
        found = self.hosts.get(host or "")
        if found is None:
            return host or "nowhere"
        twins = sum(1 for h in self.hosts.values() if h.name == found.name)
        return found.name if twins == 1 else f"{found.cluster_name or 'standalone'}/{found.name}"

    def host(self, wanted: str) -> Host:
        """The one host that C(wanted) names: MoRef, name, cluster/name, or inventory path.

        :raises BadInput: there is none, or several (which are listed).
        """
        return _one("host", wanted, self.hosts.values(), lambda h: (h.moref, h.name, f"{h.cluster_name or ''}/{h.name}", h.path))

    def vm(self, wanted: str) -> Vm:
        """The one VM that C(wanted) names: MoRef, instance UUID, name, or inventory path.

        :raises BadInput: there is none, or several (which are listed).
        """
        return _one("VM", wanted, self.vms.values(), lambda v: (v.moref, v.uuid or "", v.name, v.path))

    def datastore(self, wanted: str, host: str | None = None) -> Datastore:
        """The one datastore that C(wanted) names (MoRef or name), among those of the host C(host) where that is given."""
        found = [d for d in self.datastores.values() if host is None or host in d.hosts]
        return _one("datastore", wanted, found, lambda d: (d.moref, d.name))


T = TypeVar("T", Host, Datastore, Vm)


def _one(kind: str, wanted: str, things: Iterable[T], names: Callable[[T], tuple[str, ...]]) -> T:
    text = str(wanted).strip()
    known = list(things)
    found = [t for t in known if text and text in names(t)]
    if len(found) == 1:
        return found[0]
    step = f"find the {kind}"
    if not found:
        close = sorted(t.name for t in known if text.casefold() in t.name.casefold())[:5] if text else []
        more = f" (close: {', '.join(close)})" if close else ""
        raise BadInput(f"There is no {kind} {text or '(empty name)'}{more}.", code="unknown", step=step, unknown=text)
    listed = [f"{getattr(t, 'path', '') or t.name} ({t.moref})" for t in found[:10]]
    raise BadInput(
        f"{len(found)} {kind}s answer to {text}: {'; '.join(listed)}.",
        code="ambiguous",
        step=step,
        next_command="give the MoRef or the inventory path",
        ambiguous=listed,
    )
