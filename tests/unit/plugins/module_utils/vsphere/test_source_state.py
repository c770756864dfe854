# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client, find, source_state
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.source_state import State, Wanted, plan_power

from .conftest import FakeVcenter, Fault, result


def state(power: str = "on", tools: bool = True) -> State:
    return State(power=power, tools_running=tools, question=None, annotation="", change_version="1", attributes={}, fields={})


@pytest.mark.parametrize(
    ("now", "tools", "wanted", "on_timeout", "method", "after"),
    [
        ("on", True, "unchanged", "fail", "none", "on"),
        ("suspended", True, "unchanged", "fail", "none", "suspended"),
        ("on", True, "shutdown", "fail", "shutdown", "off"),
        ("on", True, "shutdown", "poweroff", "shutdown", "off"),
        ("on", False, "shutdown", "poweroff", "poweroff", "off"),
        ("off", False, "shutdown", "fail", "none", "off"),
        ("on", True, "off", "fail", "poweroff", "off"),
        ("suspended", False, "off", "fail", "poweroff", "off"),
        ("off", False, "off", "fail", "none", "off"),
        ("off", False, "on", "fail", "poweron", "on"),
        ("suspended", False, "on", "fail", "poweron", "on"),
        ("on", False, "on", "fail", "none", "on"),
    ],
)
def test_the_way_to_a_power_state(now: str, tools: bool, wanted: str, on_timeout: str, method: str, after: str) -> None:
    plan = plan_power(state(now, tools), Wanted(power=wanted, on_timeout=on_timeout), "vm")
    assert (plan.method, plan.after) == (method, after)
    assert plan.reason


def test_without_tools_it_fails_unless_told_otherwise_and_then_says_so() -> None:
    with pytest.raises(BadInput) as e:
        plan_power(state(tools=False), Wanted(power="shutdown"), "web01")
    assert (e.value.code, e.value.vm) == ("tools_not_running", "web01")
    assert "on_timeout" in (e.value.next_command or "")
    plan = plan_power(state(tools=False), Wanted(power="shutdown", on_timeout="poweroff"), "web01")
    assert "VMware Tools are not running" in plan.reason


@pytest.mark.parametrize("on_timeout", ["fail", "poweroff"])
def test_a_suspended_guest_is_never_shut_down(on_timeout: str) -> None:
    with pytest.raises(BadInput, match="suspended"):
        plan_power(state("suspended"), Wanted(power="shutdown", on_timeout=on_timeout), "vm")


class Guest:
    """A VM of the fake vCenter."""

    def __init__(self, fake: FakeVcenter) -> None:
        self.props: dict[str, Any] = {
            "runtime.powerState": vim.VirtualMachine.PowerState.poweredOn,
            "guest.toolsRunningStatus": "guestToolsRunning",
            "config.annotation": "theirs",
            "config.changeVersion": "1",
        }
        self.fields: list[Any] = []
        self.tasks: dict[str, Any] = {}
        self.fake = fake
        fake.handlers |= {"RetrievePropertiesEx": self.read, "ShutdownGuest": lambda body: None, "PowerOffVM_Task": self.power_off}

    def read(self, body: str) -> Any:
        if ">task-1<" in body:
            return result({vim.Task("task-1"): self.tasks})
        found: dict[Any, Any] = {vim.VirtualMachine("vm-1"): {k: v for k, v in self.props.items() if f">{k}<" in body}}
        if ">CustomFieldsManager<" in body:
            found[vim.CustomFieldsManager("CustomFieldsManager")] = {"field": vim.CustomFieldsManager.FieldDef.Array(self.fields)}
        return result(found)

    def off(self) -> None:
        self.props["runtime.powerState"] = vim.VirtualMachine.PowerState.poweredOff

    def power_off(self, body: str) -> Any:
        self.off()
        self.tasks = {"info.state": vim.TaskInfo.State.success}
        return vim.Task("task-1")


@pytest.fixture
def guest(vcenter: FakeVcenter) -> Guest:
    return Guest(vcenter)


def run(params: dict[str, Any], wanted: Wanted, clock: list[float] | None = None, sleep: Any = None) -> dict[str, Any]:
    times = iter(clock or range(1000))
    with client.connect(params) as session:
        vm = find.VmRef("vm-1", "web01", "/DC0/vm/web01", None, False, session.managed("VirtualMachine", "vm-1"))
        return source_state.apply(session, vm, wanted, clock=lambda: next(times), sleep=sleep or (lambda seconds: None))


def test_the_guest_gets_its_time(params: dict[str, Any], guest: Guest) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            guest.off()

    done = run(params, Wanted(power="shutdown", shutdown_timeout=100), sleep=sleep)
    assert (done["power_method"], done["after"]["power"]) == ("shutdown", "off")
    assert "PowerOffVM_Task" not in guest.fake.calls


def test_a_guest_that_hangs_is_left_on_or_powered_off(params: dict[str, Any], guest: Guest) -> None:
    with pytest.raises(ServerError) as e:
        run(params, Wanted(power="shutdown", shutdown_timeout=5))
    assert (e.value.code, e.value.vm) == ("shutdown_timeout", "web01")
    assert e.value.partial["after"]["power"] == "on"
    done = run(params, Wanted(power="shutdown", shutdown_timeout=5, on_timeout="poweroff"))
    assert done["power_method"] == "poweroff"
    assert "5 seconds" in done["power_reason"]


def test_a_vm_that_goes_off_by_itself_meanwhile_is_fine(params: dict[str, Any], guest: Guest) -> None:
    def shut_down(body: str) -> None:
        guest.off()
        raise Fault("InvalidPowerState", "<existingState>poweredOff</existingState>")

    guest.fake.handlers["ShutdownGuest"] = shut_down
    assert run(params, Wanted(power="shutdown"))["after"]["power"] == "off"


def test_a_note_survives_a_change_by_somebody_else(params: dict[str, Any], guest: Guest) -> None:
    """The first write is refused as a concurrent one: the annotation is read again, and the other's text is kept."""
    texts: list[str] = []

    def reconfigure(body: str) -> Any:
        if not texts:
            guest.props |= {"config.annotation": "theirs, newer", "config.changeVersion": "2"}
            guest.tasks = {"info.state": vim.TaskInfo.State.error, "info.error": vim.fault.ConcurrentAccess(msg="changed")}
        else:
            assert ">2</changeVersion>" in body
            guest.props["config.annotation"] = body.split("<annotation", 1)[1].split(">", 1)[1].split("</annotation>")[0]
            guest.tasks = {"info.state": vim.TaskInfo.State.success}
        texts.append(body)
        return vim.Task("task-1")

    guest.fake.handlers["ReconfigVM_Task"] = reconfigure
    done = run(params, Wanted(note="ours"))
    assert done["changed"]
    assert len(texts) == 2
    assert guest.props["config.annotation"].startswith("theirs, newer\n---")


def test_an_annotation_that_is_not_kept_is_an_error(params: dict[str, Any], guest: Guest) -> None:
    def reconfigure(body: str) -> Any:
        guest.tasks = {"info.state": vim.TaskInfo.State.success}
        return vim.Task("task-1")

    guest.fake.handlers["ReconfigVM_Task"] = reconfigure
    with pytest.raises(ServerError) as e:
        run(params, Wanted(note="ours"))
    assert e.value.code == "not_written"


def test_an_attribute_that_another_run_defines_first(params: dict[str, Any], guest: Guest) -> None:
    def define(body: str) -> Any:
        guest.fields = [vim.CustomFieldsManager.FieldDef(key=7, name="ferry.state", type=str)]
        raise Fault("DuplicateName", '<name>ferry.state</name><object type="CustomFieldsManager">CustomFieldsManager</object>')

    set_values: list[str] = []
    guest.fake.handlers |= {"AddCustomFieldDef": define, "SetField": set_values.append}
    done = run(params, Wanted(attributes={"ferry.state": "copied"}))
    assert done["after"]["attributes"] == {"ferry.state": "copied"}
    assert ">7</key>" in set_values[0]
    assert ">copied</value>" in set_values[0]
