# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The things of the lab's cloud: organizations, vDCs, vApps, templates, VMs, shadow VMs, disks, datastores, and what they take.

Sizes are MiB, as in the API. A linked clone has a base (a template's VM, or another clone); where it lives, an image of its
base must live too: the base itself, or a shadow VM of it (vCloud API Programming Guide 1.5, "Relocate a VM": the disk tree and
the total consumption stay the same whatever the order; that a shadow VM is made on the target is inferred).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engine import Task

NAMESPACE = uuid.UUID("6f1e2c1a-5a0d-4e0e-9a53-9d3c5f6b7a10")


def make_id(*words: str) -> str:
    """An id that is the same every time for the same words."""
    return str(uuid.uuid5(NAMESPACE, "\0".join(words)))


@dataclass(eq=False)
class VimServer:
    id: str
    name: str
    hosts: list[str]


@dataclass(eq=False)
class Datastore:
    id: str
    name: str
    vc: VimServer
    moref: str
    kind: str
    total_mb: int
    used_mb: int  # what is written, foreign files too
    provisioned_mb: int  # what it would be were all thin disks full; may exceed the total [D]
    requested_mb: int = 0  # vCD's own allocation, shadow VMs left out [D]
    reserved_mb: int = 0  # by moves in flight
    enabled: bool = True
    deleted: bool = False

    @property
    def free_mb(self) -> int:
        return self.total_mb - self.used_mb - self.reserved_mb


@dataclass(eq=False)
class Org:
    id: str
    name: str
    full_name: str
    vdcs: list[Vdc] = field(default_factory=list)


@dataclass(eq=False)
class Profile:
    """A storage profile of a vDC (5.1 on): the datastores that its VMs may live on."""

    id: str
    name: str
    vdc: Vdc
    datastores: list[Datastore]
    default: bool


@dataclass(eq=False)
class Vdc:
    id: str
    name: str
    org: Org
    vc: VimServer
    fast: bool
    enabled: bool = True
    profiles: list[Profile] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)


@dataclass(eq=False)
class Container:
    """A vApp, or a vApp template."""

    id: str
    name: str
    vdc: Vdc
    template: bool
    catalog: str
    created: str
    vms: list[Vm] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"/api/vAppTemplate/vappTemplate-{self.id}" if self.template else f"/api/vApp/vapp-{self.id}"


@dataclass(eq=False)
class Disk:
    key: int
    size_mb: int
    used_mb: int
    datastore: Datastore


@dataclass(eq=False)
class Vm:
    id: str
    name: str
    container: Container
    moref: str
    host: str
    power: str  # on, off, suspended
    cpus: int
    memory_mb: int
    guest: str
    network: str
    profile: Profile
    datastore: Datastore  # of the VM's home; disks may live elsewhere
    disks: list[Disk]
    base: Vm | None = None
    clones: list[Vm] = field(default_factory=list)
    task: Task | None = None  # the operation that makes it busy

    @property
    def vdc(self) -> Vdc:
        return self.container.vdc

    @property
    def template(self) -> bool:
        return self.container.template

    @property
    def path(self) -> str:
        return f"/api/{'vAppTemplate' if self.template else 'vApp'}/vm-{self.id}"

    @property
    def used_mb(self) -> int:
        return sum(d.used_mb for d in self.disks)

    @property
    def size_mb(self) -> int:
        return sum(d.size_mb for d in self.disks)

    @property
    def chain_length(self) -> int:
        return 1 + (self.base.chain_length if self.base else 0)


@dataclass(eq=False)
class Shadow:
    """A copy of a base on another datastore, made by the system for linked clones there."""

    id: str
    primary: Vm
    datastore: Datastore
    moref: str

    @property
    def name(self) -> str:
        return f"{self.primary.name}-shadow"


@dataclass(eq=False)
class NamedDisk:
    """An independent disk: attached to a VM or to none, and not moved with it."""

    id: str
    name: str
    vdc: Vdc
    profile: Profile
    size_mb: int
    used_mb: int
    datastore: Datastore
    vm: Vm | None


class World:
    """All of it, by id, with the books of every datastore kept as things move."""

    def __init__(self) -> None:
        self.servers: dict[str, VimServer] = {}
        self.datastores: dict[str, Datastore] = {}
        self.orgs: dict[str, Org] = {}
        self.vdcs: dict[str, Vdc] = {}
        self.profiles: dict[str, Profile] = {}
        self.containers: dict[str, Container] = {}
        self.vms: dict[str, Vm] = {}
        self.shadows: dict[tuple[str, str], Shadow] = {}
        self.disks: dict[str, NamedDisk] = {}
        self.generation = 0  # grows with every change that a query may show
        self._moref = 1000

    def next_moref(self) -> int:
        self._moref += 1
        return self._moref

    def changed(self) -> None:
        self.generation += 1

    def charge(self, vm: Vm, sign: int = 1) -> None:
        """Enter a VM's disks into the books of their datastores, or take them out."""
        for disk in vm.disks:
            disk.datastore.used_mb += sign * disk.used_mb
            disk.datastore.provisioned_mb += sign * disk.size_mb
            disk.datastore.requested_mb += sign * disk.size_mb
        self.generation += 1

    def add_vm(self, vm: Vm) -> None:
        self.vms[vm.id] = vm
        vm.container.vms.append(vm)
        if vm.base:
            vm.base.clones.append(vm)
        self.charge(vm)

    def add_disk(self, disk: NamedDisk) -> None:
        self.disks[disk.id] = disk
        disk.datastore.used_mb += disk.used_mb
        disk.datastore.provisioned_mb += disk.size_mb
        disk.datastore.requested_mb += disk.size_mb
        self.generation += 1

    def has_image(self, base: Vm, datastore: Datastore) -> bool:
        """Whether clones of base can live there."""
        return base.datastore is datastore or (base.id, datastore.id) in self.shadows

    def bases(self, vm: Vm) -> Iterator[Vm]:
        """The chain below a VM, nearest first."""
        while vm.base:
            vm = vm.base
            yield vm

    def missing_images(self, vm: Vm, target: Datastore) -> list[Vm]:
        """The bases of which a shadow VM would have to be made for vm to live on target."""
        return [b for b in self.bases(vm) if not self.has_image(b, target)]

    def add_shadow(self, primary: Vm, datastore: Datastore) -> None:
        if (primary.id, datastore.id) in self.shadows or primary.datastore is datastore:
            return
        shadow = Shadow(make_id("shadow", primary.id, datastore.id), primary, datastore, f"vm-{self.next_moref()}")
        self.shadows[primary.id, datastore.id] = shadow
        datastore.used_mb += primary.used_mb
        datastore.provisioned_mb += primary.used_mb
        self.generation += 1

    def remove_shadow(self, primary: Vm, datastore: Datastore) -> None:
        if self.shadows.pop((primary.id, datastore.id), None):
            datastore.used_mb -= primary.used_mb
            datastore.provisioned_mb -= primary.used_mb
            self.generation += 1

    def needed_on(self, base: Vm, datastore: Datastore) -> bool:
        """Whether something on the datastore hangs on base: a clone, or the shadow of a clone."""
        return any(c.datastore is datastore or (c.id, datastore.id) in self.shadows for c in base.clones)

    def consolidate(self, vm: Vm) -> None:
        """Make a linked clone a full one: what its bases hold is written into its first disk; unused shadow VMs go."""
        bases = list(self.bases(vm))
        if not vm.base or not vm.disks:
            return
        self.charge(vm, -1)
        vm.disks[0].used_mb = min(vm.disks[0].size_mb, vm.disks[0].used_mb + sum(b.used_mb for b in bases))
        vm.base.clones.remove(vm)
        vm.base = None
        self.charge(vm)
        for base in bases:
            if not self.needed_on(base, vm.datastore):
                self.remove_shadow(base, vm.datastore)

    def place(self, vm: Vm, target: Datastore, other_disks: bool, keep_shadows: bool) -> None:
        """Move a VM's home and disks to target, with the shadow VMs that this makes or leaves without use."""
        source = vm.datastore
        for base in self.missing_images(vm, target):
            self.add_shadow(base, target)
        self.charge(vm, -1)
        self.remove_shadow(vm, target)
        for disk in vm.disks:
            if other_disks or disk.datastore is source:
                disk.datastore = target
        vm.datastore = target
        self.charge(vm)
        if source is not target:
            if self.needed_on(vm, source):
                self.add_shadow(vm, source)
            if not keep_shadows:
                for base in self.bases(vm):
                    if not self.needed_on(base, source):
                        self.remove_shadow(base, source)
