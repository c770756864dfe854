# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Relocation, and the three other ways that VMs change their datastore above API 38.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable

from .engine import Engine, Task
from .errors import ApiError, bad
from .switches import Switches
from .world import Datastore, Org, Profile, Vm, World
from .xmlout import V

INSUFFICIENT = "INSUFFICIENT_STORAGE"


@dataclass(frozen=True)
class Caller:
    """Who asks: the user, and the org of the session (id and name)."""

    user: str
    org: tuple[str, str]


class Moves:
    def __init__(
        self, world: World, engine: Engine, switches: Switches, failure: Callable[[Vm], tuple[float, tuple[int, str, str]] | None]
    ) -> None:
        self.world = world
        self.engine = engine
        self.switches = switches
        self._failure = failure  # the control port's wish for a task of this VM to fail

    def relocate(self, caller: Caller, vm: Vm, target: Datastore, profiles: bool) -> Task:
        """POST {vm}/action/relocate: vCloud API Programming Guide 1.5, "Relocate a Virtual Machine to a Different Datastore".

        profiles: whether the API version knows storage profiles (5.1 on).
        """
        self._check_target(vm, target)
        self._check_busy(vm)
        if vm.datastore is target and all(d.datastore is target for d in vm.disks) and self.switches.already_there == "refuse":
            raise bad(f'VM "{vm.name}" is on datastore "{target.name}" already.')
        outside = profiles and target not in vm.profile.datastores
        if outside and self.switches.profile_mismatch == "refuse":
            raise bad(f'Datastore "{target.name}" does not satisfy the storage profile "{vm.profile.name}" of VM "{vm.name}".')
        if self.switches.linked_clone == "refuse" and self.world.missing_images(vm, target):
            raise bad(f'VM "{vm.name}" is a linked clone and its base is not on datastore "{target.name}".')
        if self.switches.full_datastore == "post" and target.free_mb < self.bytes_to_move(vm, target):
            raise ApiError(400, INSUFFICIENT, self._no_space(vm, target))
        back = vm.datastore if outside and self.switches.profile_mismatch == "move_back" else None
        return self.start(caller, vm, target, "vappRelocateVm", f"Relocating Virtual Machine ({vm.id})", back)

    def _check_target(self, vm: Vm, target: Datastore) -> None:
        """The refusals of a target; minor codes are those that public clients know, the texts are ours."""
        if target.deleted:
            raise bad(f'Datastore "{target.name}" has been deleted from vCenter.')
        if not target.enabled:
            raise bad(f'Datastore "{target.name}" is disabled.')
        if target.vc is not vm.vdc.vc:
            raise bad(f'Datastore "{target.name}" belongs to vCenter "{target.vc.name}", VM "{vm.name}" to "{vm.vdc.vc.name}".')

    def _check_busy(self, vm: Vm) -> None:
        """400 BUSY_ENTITY, and OPERATION_LIMITS_EXCEEDED as jclouds and its users met it [C]."""
        busy = vm if vm.task else None
        if not busy and self.switches.busy_vapp:
            busy = next((x for x in vm.container.vms if x.task), None)
        if not busy and self.switches.busy_chain:
            root = list(self.world.bases(vm))[-1:] or [vm]
            busy = next((x for x in self._tree(root[0]) if x.task), None)
        if busy and busy.task:
            raise ApiError(
                400, "BUSY_ENTITY", f"The entity {busy.name} is busy completing an operation {_constant(busy.task.operation_name)}."
            )
        self._check_queue()

    def _check_queue(self) -> None:
        most = self.switches.max_operations
        if most and self.engine.open_count >= most:
            text = 'The maximum number of simultaneous operations for user "administrator" on organization "System" has been reached.'
            raise ApiError(400, "OPERATION_LIMITS_EXCEEDED", text)

    def _tree(self, vm: Vm) -> Iterable[Vm]:
        yield vm
        for clone in vm.clones:
            yield from self._tree(clone)

    def bytes_to_move(self, vm: Vm, target: Datastore) -> int:
        """MiB that a move writes to the target: the VM's own, and the bases of which a shadow VM has to be made."""
        own = sum(d.used_mb for d in vm.disks if d.datastore is not target and self._moves(vm, d.datastore))
        return own + sum(b.used_mb for b in self.world.missing_images(vm, target))

    def _moves(self, vm: Vm, datastore: Datastore) -> bool:
        return self.switches.move_other_disks or datastore is vm.datastore

    @staticmethod
    def _no_space(vm: Vm, target: Datastore) -> str:
        return f'Insufficient disk space on datastore "{target.name}" for VM "{vm.name}".'

    def start(self, caller: Caller, vm: Vm, target: Datastore | None, name: str, text: str, back: Datastore | None = None) -> Task:
        """Make the task of one VM's move, or with no target of something that moves nothing; space is taken when it starts to run."""
        megabytes = self.bytes_to_move(vm, target) if target else 0
        s = self.switches
        seconds = s.task_seconds if s.task_seconds >= 0 else s.seconds_base + s.seconds_per_mb * megabytes
        owner = (f"{V}vm+xml", vm.name, vm.path, f"urn:vcloud:vm:{vm.id}")
        task = self.engine.new(text, name, owner, caller.user, caller.org, seconds)
        if target and (vm.datastore is not target or megabytes):
            host = (f"host:{vm.host}",) if vm.power == "on" else ()
            sources = {d.datastore.id for d in vm.disks} | {vm.datastore.id, target.id}
            task.locks = (*(f"datastore:{key}" for key in sorted(sources)), *host)
        wish = self._failure(vm)
        if wish:
            task.fail_at, task.failure = wish
        reserved = 0

        def on_start(task: Task) -> None:
            nonlocal reserved
            if target is None:
                return
            need = self.bytes_to_move(vm, target)
            if target.free_mb < need or target.deleted:
                task.fail_at, task.failure = 0.0, (500, INSUFFICIENT, self._no_space(vm, target))
                return
            reserved = need
            target.reserved_mb += need
            self.world.changed()

        def on_end(task: Task) -> None:
            vm.task = None
            if target:
                target.reserved_mb -= reserved
            if target and task.status == "success":
                self.world.place(vm, back or target, s.move_other_disks, s.shadow_cleanup == "never")
            self.world.changed()

        task.on_start, task.on_end = on_start, on_end
        vm.task = task
        return self.engine.submit(task)

    def consolidate(self, caller: Caller, vm: Vm) -> Task:
        """POST {vm}/action/consolidate: a linked clone gets disks of its own."""
        self._check_busy(vm)
        task = self.start(caller, vm, None, "vappConsolidateVm", f"Consolidating Virtual Machine ({vm.id})")
        ended = task.on_end

        def on_end(task: Task) -> None:
            ended(task)
            if task.status == "success":
                self.world.consolidate(vm)

        task.on_end = on_end
        return task

    def reconfigure(self, caller: Caller, vm: Vm, profile: Profile | None) -> Task:
        """PUT of a Vm, or its reconfigureVm, with a storage profile: when the VM's datastore is disabled (or outside a new
        profile), the system picks another of the profile's (the vendor's advice from 39.0 on [D]; which one is picked: the
        emptiest [I])."""
        self._check_busy(vm)
        wanted = profile or vm.profile
        old = vm.profile
        good = [d for d in wanted.datastores if d.enabled]
        target: Datastore | None = None
        if any(d not in good for d in (vm.datastore, *(x.datastore for x in vm.disks))):
            target = vm.datastore if vm.datastore in good else self._pick(vm, good)
            if target is None:
                raise bad(f'No datastore of the storage profile "{wanted.name}" can take VM "{vm.name}".')
        task = self.start(caller, vm, target, "vappUpdateVm", f"Updating Virtual Machine {vm.name}({vm.id})")
        if wanted is not old:
            move = task.on_end

            def on_end(task: Task) -> None:
                move(task)
                if task.status == "success":
                    vm.profile = wanted

            task.on_end = on_end
        return task

    def _pick(self, vm: Vm, among: Iterable[Datastore]) -> Datastore | None:
        fit = [
            d
            for d in among
            if d.enabled and not d.deleted and d.vc is vm.vdc.vc and d is not vm.datastore and d.free_mb >= self.bytes_to_move(vm, d)
        ]
        return max(fit, key=lambda d: d.free_mb, default=None)

    def migrate_tenant(self, caller: Caller, orgs: list[Org], sources: list[Datastore], targets: list[Datastore]) -> Task:
        """POST /api/admin/extension/action/migrateTenant (29.0 on [D]): all entities of the orgs on the source datastores."""
        if not orgs or not sources or not targets:
            raise bad("orgs, sourceDatastores and targetDatastores are required.")
        for d in targets:
            if d.deleted or not d.enabled:
                raise bad(f'Datastore "{d.name}" is disabled or deleted.')
        vms = [
            v
            for v in self.world.vms.values()
            if v.vdc.org in orgs and (v.datastore in sources or any(d.datastore in sources for d in v.disks))
        ]
        owner = (f"{V}org+xml", orgs[0].name, f"/api/org/{orgs[0].id}", f"urn:vcloud:org:{orgs[0].id}")
        # Each profile with a target datastore [D]: of the targets, those that the VM's profile has; all where it has none [I].
        plan = [(v, self._pick(v, [d for d in targets if d in v.profile.datastores] or targets)) for v in vms]
        return self._many(caller, plan, owner, "tenantMigration", f"Migrating tenant {orgs[0].name}({orgs[0].id})", {})

    def migrate_policy(self, caller: Caller, source: Profile, target: Profile) -> Task:
        """POST /cloudapi/1.0.0/orgVdcStoragePolicies/{urn}/migrateStorage (38.1 on [D]): all VMs of a policy get another one."""
        if source is target or source.vdc is not target.vdc:
            raise bad("targetVdcStoragePolicy must be another policy of the same organization VDC.")
        vms = [v for v in self.world.vms.values() if v.profile is source]
        plan = [
            (v, v.datastore if v.datastore in target.datastores and v.datastore.enabled else self._pick(v, target.datastores)) for v in vms
        ]
        owner = (
            f"{V}vdcStorageProfile+xml",
            source.name,
            f"/api/vdcStorageProfile/{source.id}",
            f"urn:vcloud:vdcstorageProfile:{source.id}",
        )
        return self._many(
            caller, plan, owner, "vdcStorageMigration", f"Migrating storage policy {source.name}({source.id})", {v.id: target for v in vms}
        )

    def _many(
        self,
        caller: Caller,
        plan: list[tuple[Vm, Datastore | None]],
        owner: tuple[str, str, str, str],
        name: str,
        text: str,
        profiles: dict[str, Profile],
    ) -> Task:
        """One task over the moves of many VMs; it ends when the last of them has, and fails when one has."""
        for vm, target in plan:
            self._check_busy(vm)
            if target is None:
                raise ApiError(400, INSUFFICIENT, f'No target datastore can take VM "{vm.name}".')
        s = self.switches
        whole = self.engine.new(text, name, owner, caller.user, caller.org, 1e9 if plan else s.seconds_base)
        self.engine.submit(whole)
        left = len(plan)
        failed: list[tuple[int, str, str]] = []

        def one_over(task: Task, vm: Vm) -> None:
            nonlocal left
            left -= 1
            whole.progress = int(100 * (len(plan) - left) / len(plan))
            if task.status != "success":
                failed.append(task.error or (500, "TASK_CANCELED", f'The move of VM "{vm.name}" was {task.status}.'))
            elif vm.id in profiles:
                vm.profile = profiles[vm.id]
            if not left:
                self.engine.finish(whole, failed[0] if failed else None)

        for vm, target in plan:
            assert target is not None
            task = self.start(caller, vm, target, "vappRelocateVm", f"Relocating Virtual Machine ({vm.id})")
            move = task.on_end

            def on_end(task: Task, move: Callable[[Task], None] = move, vm: Vm = vm) -> None:
                move(task)
                one_over(task, vm)

            task.on_end = on_end
        return whole


def _constant(name: str) -> str:
    """vappRelocateVm as BUSY_ENTITY's text has it: VAPP_RELOCATE_VM."""
    return "".join(f"_{c}" if c.isupper() else c.upper() for c in name)
