# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps that a migration takes on its source VM: power, note, custom attributes. Each is reversible, its old value returned.

Vendor reference: vSphere Web Services API, VirtualMachine (ShutdownGuest, PowerOffVM_Task, PowerOnVM_Task, ReconfigVM_Task)
and CustomFieldsManager (AddCustomFieldDef, SetField).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping

from ..errors import BadInput, FerryError, ServerError, bounded
from . import fence
from .client import Session
from .find import VmRef
from .guest import custom_attributes
from .note import note_of, with_note
from .properties import POWER, of_objects
from .tasks import POLL, wait_task

#: Seconds that vCenter has for a power or reconfigure task, which waits for no guest.
TASK_TIMEOUT = 300.0
#: How often the annotation is read again when somebody else has changed the VM in between.
_ATTEMPTS = 4


@dataclass(frozen=True)
class Wanted:
    """What is to be. None, C(unchanged) and attributes not named are left as they are; an empty note or attribute is removed.

    C(power): unchanged, shutdown (by the guest), off (at once), on. C(shutdown_timeout): seconds.
    C(on_timeout), for a guest that does not shut down or cannot be asked to: fail, poweroff.
    C(network): unchanged, disconnected. C(remember): write down what was found also where nothing of it is changed here.
    C(refuse_states): values of the attribute ferry.state with which nothing is done.
    """

    power: str = "unchanged"
    shutdown_timeout: float = 600.0
    on_timeout: str = "fail"
    note: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    network: str = "unchanged"
    remember: bool = False
    refuse_states: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """What is there. C(attributes): those that have a value. C(fields): keys of the attributes that are defined."""

    power: str
    tools_running: bool
    question: str | None
    annotation: str
    change_version: str | None
    attributes: dict[str, str]
    fields: dict[str, int]


def read_state(session: Session, vm: VmRef) -> State:
    """Read the state of C(vm) in one question."""
    leaves = (
        "runtime.powerState",
        "runtime.question",
        "guest.toolsRunningStatus",
        "config.annotation",
        "config.changeVersion",
        "customValue",
    )
    manager = session.content.customFieldsManager
    refs = [vm.ref] + ([manager] if manager is not None else [])
    rows = of_objects(session, refs, {"VirtualMachine": leaves, "CustomFieldsManager": ("field",)}, step="read the VM")
    found = {row.kind: row.props for row in rows}
    if "VirtualMachine" not in found:
        raise BadInput("The VM is gone from vCenter.", vm=vm.name, step="read the VM")
    p = found["VirtualMachine"]
    defined = [
        f
        for f in found.get("CustomFieldsManager", {}).get("field") or ()
        if f.managedObjectType is None or f.managedObjectType is session.vim.VirtualMachine
    ]
    power = str(p.get("runtime.powerState", ""))
    question = p.get("runtime.question")
    return State(
        power=POWER.get(power, power),
        tools_running=p.get("guest.toolsRunningStatus") in ("guestToolsRunning", "guestToolsExecutingScripts"),
        question=bounded(question.text) if question is not None else None,
        annotation=p.get("config.annotation") or "",
        change_version=p.get("config.changeVersion"),
        attributes=custom_attributes(defined, p.get("customValue") or ()),
        fields={str(f.name): int(f.key) for f in defined},
    )


@dataclass(frozen=True)
class PowerPlan:
    """C(method): none, shutdown, poweroff, poweron. C(reason): why that one, for people."""

    method: str
    after: str
    reason: str


def plan_power(state: State, wanted: Wanted, vm: str) -> PowerPlan:
    """Which way the power state that is wanted is reached. Pure.

    :raises BadInput: it cannot be reached as asked for (no VMware Tools and on_timeout is fail; a suspended guest).
    """
    now = state.power
    if wanted.power == "unchanged":
        return PowerPlan("none", now, "power was not asked for")
    if wanted.power == "on":
        return PowerPlan("none", now, "already on") if now == "on" else PowerPlan("poweron", "on", f"was {now}")
    if now == "off":
        return PowerPlan("none", now, "already off")
    if wanted.power == "off":
        lost = "; the suspended memory is lost" if now == "suspended" else ""
        return PowerPlan("poweroff", "off", f"asked for, was {now}{lost}")
    if now == "suspended":
        raise BadInput(
            "The VM is suspended: its guest cannot be shut down, and its disks lack what is in the suspended memory.",
            vm=vm,
            step="shut down the guest",
            next_command="power the VM on, or give up the suspended memory with power: off",
        )
    if state.tools_running:
        return PowerPlan("shutdown", "off", "VMware Tools are running")
    if wanted.on_timeout == "poweroff":
        return PowerPlan(
            "poweroff",
            "off",
            "VMware Tools are not running, so the guest cannot be asked to shut down: powered off at once, as on_timeout says",
        )
    raise BadInput(
        "VMware Tools are not running in the guest, so it cannot be asked to shut down.",
        code="tools_not_running",
        vm=vm,
        step="shut down the guest",
        said=state.question,
        next_command="shut the guest down by hand, or choose on_timeout: poweroff",
    )


def _power_state(session: Session, vm: VmRef) -> str:
    rows = of_objects(session, [vm.ref], {"VirtualMachine": ("runtime.powerState",)}, step="read the VM")
    power = str(rows[0].props.get("runtime.powerState", "")) if rows else ""
    return POWER.get(power, power)


def _power_task(session: Session, vm: VmRef, method: str) -> None:
    """PowerOff or PowerOn; a VM that is there already is no error."""
    start, step, after = (vm.ref.PowerOnVM_Task, "power on", "on") if method == "poweron" else (vm.ref.PowerOffVM_Task, "power off", "off")
    try:
        wait_task(session, session.call(start, step=step), vm=vm.name, step=step, timeout=TASK_TIMEOUT)
    except ServerError as e:
        if e.details.get("fault") == "InvalidPowerState" and _power_state(session, vm) == after:
            return
        if e.code == "timeout":
            e.said = read_state(session, vm).question or e.said
        raise e.add(vm=vm.name) from e


def _shut_down(session: Session, vm: VmRef, wanted: Wanted, clock: Callable[[], float], sleep: Callable[[float], None]) -> PowerPlan:
    """Ask the guest and wait; after the timeout do what on_timeout says. Returns what was done in the end."""
    step = "shut down the guest"
    try:
        session.call(vm.ref.ShutdownGuest, step=step)
    except ServerError as e:
        if e.details.get("fault") == "InvalidPowerState" and _power_state(session, vm) == "off":
            return PowerPlan("none", "off", "went off by itself")
        if e.details.get("fault") != "ToolsUnavailable" or wanted.on_timeout != "poweroff":
            raise e.add(vm=vm.name) from e
        _power_task(session, vm, "poweroff")
        return PowerPlan("poweroff", "off", "VMware Tools did not answer: powered off at once, as on_timeout says")
    begin = clock()
    while True:
        power = _power_state(session, vm)
        waited = clock() - begin
        if power == "off":
            return PowerPlan("shutdown", "off", f"the guest shut down in {waited:.0f} seconds")
        if waited >= wanted.shutdown_timeout:
            break
        sleep(min(POLL, wanted.shutdown_timeout - waited))
    if wanted.on_timeout != "poweroff":
        raise ServerError(
            f"The guest has not shut down within {wanted.shutdown_timeout:g} seconds.",
            code="shutdown_timeout",
            vm=vm.name,
            step=step,
            said=read_state(session, vm).question,
            left="the VM is powered on; the guest may still be shutting down",
            next_command="look at the VM's console, run it again, or choose on_timeout: poweroff",
        )
    _power_task(session, vm, "poweroff")
    return PowerPlan(
        "poweroff", "off", f"the guest had not shut down after {wanted.shutdown_timeout:g} seconds: powered off, as on_timeout says"
    )


def _write_annotation(session: Session, vm: VmRef, note: str) -> None:
    """Put our note into the annotation. changeVersion makes vCenter refuse where somebody else has changed the VM since it was read."""
    step = "write the annotation"
    for attempt in range(_ATTEMPTS):
        state = read_state(session, vm)
        text = with_note(state.annotation, note)
        if text == state.annotation:
            return
        spec = session.vim.vm.ConfigSpec(annotation=text, changeVersion=state.change_version)
        try:
            wait_task(session, session.call(vm.ref.ReconfigVM_Task, spec, step=step), vm=vm.name, step=step, timeout=TASK_TIMEOUT)
        except ServerError as e:
            if e.details.get("fault") != "ConcurrentAccess" or attempt == _ATTEMPTS - 1:
                raise e.add(vm=vm.name) from e
            continue
        if note_of(read_state(session, vm).annotation) != note_of(text):
            raise ServerError("vCenter kept the old annotation, though its task succeeded.", code="not_written", vm=vm.name, step=step)
        return


def _write_attributes(session: Session, vm: VmRef, changes: Mapping[str, str]) -> None:
    step = "set the custom attributes"
    manager = session.content.customFieldsManager
    for name, value in changes.items():
        key = read_state(session, vm).fields.get(name)
        if key is None:
            try:
                key = session.call(manager.AddCustomFieldDef, name, session.vim.VirtualMachine, step=step).key
            except ServerError as e:
                # another run was faster
                key = read_state(session, vm).fields.get(name) if e.details.get("fault") == "DuplicateName" else None
                if key is None:
                    raise e.add(vm=vm.name) from e
        try:
            session.call(manager.SetField, vm.ref, key, value, step=step)
        except ServerError as e:
            raise e.add(vm=vm.name) from e


def _view(state: State, power: str, annotation: str, attributes: Mapping[str, str], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "power": power,
        "note": note_of(annotation),
        "annotation": annotation,
        "attributes": {name: attributes.get(name, "") for name in names},
    }


def apply(
    session: Session,
    vm: VmRef,
    wanted: Wanted,
    *,
    check: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Bring C(vm) into the state C(wanted): power first, then the network cards, the attributes, the note. What is needed to go back
    is written down before all of it.

    :returns: changed, before, after (power, note, annotation, attributes, and nics where they were asked for), power_method,
        power_reason. An error carries the same as C(partial), as far as it came.
    """
    state = read_state(session, vm)
    _refuse_state(state, wanted, vm)
    if (wanted.attributes or wanted.remember or wanted.network != "unchanged") and session.content.customFieldsManager is None:
        raise BadInput("An ESXi host has no custom attributes: talk to the vCenter.", vm=vm.name, step="set the custom attributes")
    plan = plan_power(state, wanted, vm.name)
    annotation = state.annotation if wanted.note is None else with_note(state.annotation, wanted.note)
    changes = {name: value for name, value in wanted.attributes.items() if state.attributes.get(name, "") != value}
    names = wanted.attributes
    before = _view(state, state.power, state.annotation, state.attributes, names)
    after = _view(state, plan.after, annotation, {**state.attributes, **changes}, names)
    found, memory = _memory(session, vm, wanted, state, plan)
    fenced = fence.off_the_network(found) if found is not None and wanted.network == "disconnected" else {}
    if found is not None:
        before["nics"] = [c.as_dict() for c in found.cards]
        after["nics"] = [{**n, "connected": False, "start_connected": False} if n["key"] in fenced else n for n in before["nics"]]
    apart = bool(found is not None and fence.differing(found, fenced))
    changed = plan.method != "none" or annotation != state.annotation or bool(changes) or bool(memory) or apart
    result = {"changed": changed, "before": before, "after": after, "power_method": plan.method, "power_reason": plan.reason}
    if check or not changed:
        return result
    try:
        _write_attributes(session, vm, memory)
        if plan.method == "shutdown":
            plan = _shut_down(session, vm, wanted, clock, sleep)
        elif plan.method != "none":
            _power_task(session, vm, plan.method)
        result.update(power_method=plan.method, power_reason=plan.reason)
        fence.set_cards(session, vm, fenced)
        _write_attributes(session, vm, changes)
        if annotation != state.annotation:
            _write_annotation(session, vm, wanted.note or "")
    except FerryError as e:
        now = read_again(session, vm) or state
        reached = _view(now, now.power, now.annotation, now.attributes, names)
        e.partial = {**result, "changed": reached != before, "after": reached}
        raise
    return result


def _refuse_state(state: State, wanted: Wanted, vm: VmRef) -> None:
    now = state.attributes.get(fence.STATE, "")
    if now and now in wanted.refuse_states:
        committed = now == "committed"
        raise BadInput(
            "The migration of this VM was committed: it counts as moved for good."
            if committed
            else f"The VM has the state {bounded(now, 40)}: somebody has decided otherwise meanwhile.",
            code="state",
            vm=vm.name,
            step="look at the VM",
            next_command="if it is to come back all the same: rollback_committed=true"
            if committed
            else "find out who did it and why, then run the playbook again from its beginning",
        )


def _memory(session: Session, vm: VmRef, wanted: Wanted, state: State, plan: PowerPlan) -> tuple[fence.Found | None, dict[str, str]]:
    """(what is found at the VM, the attribute that is to be written before anything is changed); nothing where nobody asked."""
    if wanted.network == "unchanged" and not wanted.remember:
        return None, {}
    found = fence.read(session, vm)
    uuid = vm.instance_uuid or vm.moref
    kept = fence.parse(state.attributes.get(fence.BEFORE), uuid)
    off = plan.method in ("shutdown", "poweroff")
    record = fence.merged(kept, found, uuid, state.attributes.get(fence.STATE, ""), power=off, cards=wanted.network == "disconnected")
    return found, {} if record == kept else {fence.BEFORE: record.text()}


def read_again(session: Session, vm: VmRef) -> State | None:
    """The state, or None where it cannot be read any more (vCenter is away)."""
    try:
        return read_state(session, vm)
    except FerryError:
        return None
