# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changed block tracking of a VM's disks: what is on, what stands in the way, and switching it so that it takes effect.

Vendor reference: vSphere Web Services API, VirtualMachineConfigSpec.changeTrackingEnabled and VirtualMachineCapability.
changeTrackingSupported; Broadcom KB 320557, "Changed Block Tracking (CBT) on virtual machines" (hardware version 7, no snapshots when it is
switched on, C(scsi0:0.ctkEnabled) for each disk, in effect after a stun-unstun cycle).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

from ..errors import BadInput, FerryError, ServerError
from . import snapshots
from .client import Session
from .disks import VmDisk, find_disk, map_disks
from .find import VmRef
from .properties import POWER, of_objects
from .snapshots import MOST_TRACKED, Snapshot
from .steady import PATIENCE, steadily
from .tasks import wait_task

_STEP = "switch changed block tracking"
_LEAVES = (
    "capability.changeTrackingSupported",
    "config.changeTrackingEnabled",
    "config.extraConfig",
    "config.hardware.device",
    "config.template",
    "config.version",
    "runtime.consolidationNeeded",
    "runtime.powerState",
    "snapshot",
)
#: Seconds for the reconfiguration, which waits for no guest.
_RECONFIGURE_TIMEOUT = 600.0
#: Purposes of short-lived snapshots of ours; what a killed run left of them may be removed by any later one.
SHORT_LIVED = ("cbt", "areas")

#: Lowest virtual hardware version that has it.
_HARDWARE = 7


@dataclass(frozen=True)
class Facts:
    """What is known of a VM's tracking. C(options): the extra configuration's C(*.ctkEnabled), by address of the disk (scsi0:0).

    C(shared): why a controller's disks are shared with other VMs, by (kind, bus). C(consolidate): disks wait for consolidation.
    """

    power: str
    template: bool
    hardware: int | None
    supported: bool | None
    enabled: bool
    options: Mapping[str, bool]
    disks: Sequence[VmDisk]
    shared: Mapping[tuple[str, int], str]
    snapshots: Sequence[Snapshot]
    consolidate: bool = False

    def configured(self, disk: VmDisk) -> bool:
        """Whether tracking is switched on for C(disk); a disk with no word of its own follows the VM."""
        return self.enabled and self.options.get(disk.address, True)


def read(session: Session, vm: VmRef) -> Facts:
    """The facts of C(vm), in one question."""
    step = "read the change tracking"
    rows = of_objects(session, [vm.ref], {"VirtualMachine": _LEAVES}, step=step)
    if not rows:
        raise BadInput("The VM is gone from vCenter.", vm=vm.name, step=step)
    return facts_of(vm, rows[0].props)


def facts_of(vm: VmRef, props: Mapping[str, Any]) -> Facts:
    """The facts in what the property collector read. Pure."""
    devices = list(props.get("config.hardware.device") or ())
    disks = map_disks(devices, lambda moref: (None, None), None)
    kinds = {d.bus: d.controller_kind for d in disks if d.controller_kind == "scsi"}
    shared = {}
    for device in devices:
        mode = str(getattr(device, "sharedBus", None) or "noSharing")
        if mode != "noSharing" and device.busNumber in kinds:
            shared[("scsi", int(device.busNumber))] = mode
    options: dict[str, bool] = {}
    for option in props.get("config.extraConfig") or ():
        found = re.match(r"^((?:scsi|ide|sata|nvme)\d+:\d+)\.ctkEnabled$", str(option.key), re.IGNORECASE)
        if found and str(option.value or "").strip():
            options[found[1].lower()] = str(option.value).strip().lower() in ("true", "1", "yes")
    version = re.fullmatch(r"vmx-(\d+)", str(props.get("config.version") or ""))
    power = str(props.get("runtime.powerState", ""))
    return Facts(
        power=POWER.get(power, power),
        template=bool(props.get("config.template")),
        hardware=int(version[1]) if version else None,
        supported=props.get("capability.changeTrackingSupported"),
        enabled=bool(props.get("config.changeTrackingEnabled")),
        options=options,
        disks=disks,
        shared=shared,
        snapshots=snapshots.tree_of(vm, props.get("snapshot")),
        consolidate=bool(props.get("runtime.consolidationNeeded")),
    )


def untrackable(disk: VmDisk, facts: Facts) -> str | None:
    """Why vSphere cannot track C(disk), or None. Pure."""
    if disk.rdm_mode == "physicalMode":
        return "it is a raw device mapping in physical compatibility mode: its writes do not pass through vSphere's disk layer"
    if (disk.mode or "").startswith("independent"):
        return f"it is independent ({disk.mode}), so no snapshot holds it"
    if disk.sharing == "sharingMultiWriter":
        return "it is shared with other VMs (multi-writer), which may change it unseen"
    shared = facts.shared.get((disk.controller_kind, disk.bus))
    return f"its controller's bus is shared with other VMs ({shared}), which may change it unseen" if shared else None


# -- the plan -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What is to be done. C(vm_wide): the VM's own switch, None: left. C(options): ctkEnabled by address.

    C(stun): a snapshot and its removal are needed for it to take effect now.
    """

    vm_wide: bool | None
    options: Mapping[str, bool]
    stun: bool
    chosen: Sequence[VmDisk]
    wanted: bool

    @property
    def changes(self) -> bool:
        return self.vm_wide is not None or bool(self.options) or self.stun

    def after(self, facts: Facts) -> dict[str, bool]:
        """Whether each disk is tracked once the plan is carried out, by label."""
        enabled = facts.enabled if self.vm_wide is None else self.vm_wide
        return {d.label: enabled and {**facts.options, **self.options}.get(d.address, True) for d in facts.disks}


def choose(facts: Facts, wanted: Sequence[str] | None, vm: str) -> list[VmDisk]:
    """The disks that C(wanted) names, all for None."""
    if wanted is None:
        return list(facts.disks)
    found = [find_disk(facts.disks, w, vm) for w in wanted]
    return list({d.key: d for d in found}.values())


def plan(facts: Facts, enable: bool, chosen: Sequence[VmDisk], vm: str, leftovers: Sequence[Snapshot] = ()) -> Plan:
    """How C(chosen) get tracked, or untracked. Pure.

    :param leftovers: snapshots that a killed run left and that are removed before.
    :raises BadInput: code not_trackable, has_snapshots, too_many_snapshots or bad_input, with the reason for each disk.
    """
    running = facts.power == "on"
    options: dict[str, bool] = {}
    vm_wide: bool | None = None
    if enable:
        _refuse_disks(facts, chosen, vm)
        options = {d.address: True for d in chosen if not facts.options.get(d.address, False)}
        if facts.enabled and all(facts.configured(d) for d in chosen):
            options = {}
        if not facts.enabled:
            vm_wide = True
            keys = {d.key for d in chosen}
            # said anew also where it stands there: the VM's own switch may take all of its disks along
            options |= {d.address: False for d in facts.disks if d.key not in keys}
    else:
        options = {d.address: False for d in chosen if facts.enabled and facts.options.get(d.address, True)}
        left = {d.key for d in facts.disks if facts.configured(d)} - {d.key for d in chosen}
        if facts.enabled and not left:
            vm_wide = False
    stun = running and (vm_wide is not None or bool(options) or any(bool(d.change_id) != enable for d in chosen))
    found = Plan(vm_wide, options, stun, tuple(chosen), enable)
    if found.changes:
        _refuse_vm(facts, found, vm, leftovers)
    return found


def _refuse_disks(facts: Facts, chosen: Sequence[VmDisk], vm: str) -> None:
    if not chosen:
        raise BadInput("The VM has no disk.", vm=vm, step=_STEP)
    problems = [(d, why) for d in chosen if (why := untrackable(d, facts))]
    if problems:
        raise BadInput(
            "Changes cannot be tracked: " + "; ".join(f"{d.label} ({d.address}): {why}" for d, why in problems) + ".",
            code="not_trackable",
            vm=vm,
            disk=problems[0][0].label,
            step=_STEP,
            next_command="name the other disks in disks, or change what stands in the way",
            disks=[{"key": d.key, "label": d.label, "reason": why} for d, why in problems],
        )


def _refuse_vm(facts: Facts, planned: Plan, vm: str, leftovers: Sequence[Snapshot]) -> None:
    def refuse(message: str, code: str = "bad_input", next_command: str | None = None) -> BadInput:
        return BadInput(message, code=code, vm=vm, step=_STEP, next_command=next_command)

    if facts.template:
        raise refuse("The VM is a template, which nothing changes.", "not_trackable")
    if planned.wanted and facts.supported is False:
        raise refuse("The host that the VM is on cannot track changes of it.", "not_trackable")
    if planned.wanted and facts.hardware is not None and facts.hardware < _HARDWARE:
        raise refuse(
            f"The VM's hardware version is {facts.hardware}; tracking needs {_HARDWARE}.",
            "not_trackable",
            "upgrade the VM's compatibility, or migrate it cold",
        )
    if facts.power == "suspended":
        raise refuse("The VM is suspended: tracking can be switched while it is on or off.", next_command="resume it or power it off")
    there = [s for s in facts.snapshots if s.moref not in {gone.moref for gone in leftovers}]
    if len(there) > MOST_TRACKED:
        raise refuse(
            f"The VM has {len(there)} snapshots; with tracking it may have {MOST_TRACKED}.", "too_many_snapshots", "remove snapshots first"
        )
    if planned.wanted and there:
        names = ", ".join(f"{s.name} ({s.moref})" for s in there[:10])
        raise refuse(
            f"The VM has {len(there)} snapshots: {names}. Switched on now, tracking would not know what they hold, "
            "and its answers would lack areas.",
            "has_snapshots",
            "remove the snapshots, let the disks be consolidated, and run the same command again",
        )


# -- doing it -------------------------------------------------------------------------------------------------------


def _view(facts: Facts, chosen: Sequence[VmDisk]) -> list[dict[str, Any]]:
    now = {d.key: d for d in facts.disks}
    return [
        {
            "key": d.key,
            "label": d.label,
            "address": d.address,
            "enabled": facts.configured(now.get(d.key, d)),
            "change_id": now.get(d.key, d).change_id,
        }
        for d in chosen
    ]


def apply(
    session: Session,
    vm: VmRef,
    *,
    enable: bool,
    disks: Sequence[str] | None = None,
    check: bool = False,
    timeout: float = snapshots.REMOVE_TIMEOUT,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Switch changed block tracking of C(disks) (default: all) of C(vm), and make it take effect.

    On a running VM it takes effect by a snapshot, without memory, that is removed again; a VM that is off needs none.

    :param timeout: seconds for the removal of that snapshot, and for the consolidation of the disks.
    :returns: changed, disks[] (key, label, address, enabled, change_id), stunned, removed_snapshots[], before, after (tracked, by label).
    """
    facts = read(session, vm)
    chosen = choose(facts, disks, vm.name)
    leftovers = snapshots.left_behind(session, vm, purposes=SHORT_LIVED) if any(s.tag for s in facts.snapshots) else []
    planned = plan(facts, enable, chosen, vm.name, leftovers)
    result: dict[str, Any] = {
        "changed": planned.changes or bool(leftovers) or facts.consolidate,
        "disks": _view(facts, chosen),
        "stunned": planned.stun,
        "removed_snapshots": [s.name for s in leftovers],
        "before": {d.label: facts.configured(d) for d in facts.disks},
        "after": planned.after(facts),
    }
    if check or not result["changed"]:
        for row in result["disks"]:
            row["enabled"] = result["after"][row["label"]]
        return result
    try:
        result["removed_snapshots"] = snapshots.sweep(session, vm, purposes=SHORT_LIVED, timeout=timeout, progress=progress)
        snapshots.consolidate(session, vm, timeout=timeout, progress=progress)
        _reconfigure(session, vm, planned)
        if planned.stun:
            with snapshots.taken(session, vm, quiesce="never", purpose="cbt", timeout=timeout, progress=progress):
                pass  # what counts is that it was there: the disks are opened anew, now with tracking
            # one that a run killed a moment ago had still asked for comes to light only now
            result["removed_snapshots"] += snapshots.sweep(session, vm, purposes=SHORT_LIVED, timeout=timeout, progress=progress)
        now = steadily(lambda: read(session, vm))
        _see(now, planned, vm)
    except FerryError as e:
        if planned.changes:
            e.add(
                left="tracking may be switched in the VM's configuration without being in effect", next_command="run the same command again"
            )
        raise
    result["disks"] = _view(now, chosen)
    return result


def _reconfigure(session: Session, vm: VmRef, planned: Plan) -> None:
    if planned.vm_wide is None and not planned.options:
        return
    vim = session.vim
    spec = vim.vm.ConfigSpec()
    if planned.vm_wide is not None:
        spec.changeTrackingEnabled = planned.vm_wide
    spec.extraConfig = [
        vim.option.OptionValue(key=f"{address}.ctkEnabled", value="TRUE" if value else "FALSE")
        for address, value in planned.options.items()
    ]
    wait_task(
        session,
        session.call(vm.ref.ReconfigVM_Task, spec, step=_STEP),
        vm=vm.name,
        step=_STEP,
        timeout=_RECONFIGURE_TIMEOUT,
        patience=PATIENCE,
    )


def _see(facts: Facts, planned: Plan, vm: VmRef) -> None:
    """Look whether it has come about."""
    keys = {d.key for d in planned.chosen}
    for disk in facts.disks:
        if disk.key not in keys:
            continue
        effective = facts.power != "on" or bool(disk.change_id) == planned.wanted
        if facts.configured(disk) != planned.wanted or not effective:
            raise ServerError(
                "vSphere reported success, but tracking is not " + ("in effect." if planned.wanted else "off."),
                code="not_effective",
                vm=vm.name,
                disk=disk.label,
                step=_STEP,
                said=f"changeTrackingEnabled {facts.enabled}, "
                f"{disk.address}.ctkEnabled {facts.options.get(disk.address)}, changeId {disk.change_id}",
            )
