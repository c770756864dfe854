# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source's fence and the way back, stopped after every single call that changes something, without Ansible and OpenStack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, FerryError, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import cbt, client, fence, find, restore, snapshots, source_state

from .undo_site import UndoSite, write_model
from .vcenter_lab import Client, running

NAMES = ("on", "off", "tracked", "hung", "other")
CUTOVER = source_state.Wanted(
    power="shutdown", shutdown_timeout=20, network="disconnected", note="Moved.", attributes={"ferry.state": "cutover"}
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UndoSite]:
    folder = tmp_path_factory.mktemp("restore")
    with running(folder, write_model(folder, NAMES, "8a03")) as vcenter:
        made = UndoSite(folder, vcenter, Client(vcenter), None, NAMES, "8a03")
        made.power("off", on=False)
        yield made
        made.client.close()


@pytest.fixture
def session(site: UndoSite) -> Iterator[Any]:
    with client.connect(site.connection()) as made:
        yield made
    site.vcenter.clear()


def back(session: Any, vm: str, **more: Any) -> dict[str, Any]:
    return restore.restore(session, find.find_vm(session, vm), **more)


class Stopped(BaseException):
    """The run was killed here: nothing catches it."""


def stopped_after(session: Any, calls: int, work: Any) -> bool:
    """C(work) with a session that dies after so many calls that change something; whether it came to its end."""
    changing = (
        "ReconfigVM_Task",
        "SetField",
        "AddCustomFieldDef",
        "ShutdownGuest",
        "PowerOnVM_Task",
        "PowerOffVM_Task",
        "RemoveSnapshot_Task",
    )
    left = calls
    invoke = session.stub.InvokeMethod

    def counted(mo: Any, info: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        if info.wsdlName in changing:
            if left == 0:
                raise Stopped
            left -= 1
        return invoke(mo, info, *args, **kwargs)

    session.stub.InvokeMethod = counted
    try:
        work()
    except Stopped:
        return False
    finally:
        session.stub.InvokeMethod = invoke
    return True


@pytest.mark.fault("killed between any two steps of the cutover at the source", where="source", ends="rollback brings it back as it was")
@pytest.mark.parametrize("vm", ["on", "off"])
def test_back_from_every_step_of_a_cutover(site: UndoSite, session: Any, vm: str) -> None:
    """After each call that changes something the run dies; the way back dies after each of its own, too, and then comes to its end."""
    ref = find.find_vm(session, vm)
    if vm == "on":
        site.set_card(vm, 4001, connected=False, start=True)
    before = site.look(vm)
    ended = False
    steps = 0
    while not ended:
        ended = stopped_after(session, steps, lambda: source_state.apply(session, ref, CUTOVER))
        if steps % 2:  # the same command once more before the way back: it must not take its own changes for what was found
            stopped_after(session, 2, lambda: source_state.apply(session, ref, CUTOVER))
        way = 0
        while not stopped_after(session, way, lambda: back(session, vm)):
            way += 1
        assert site.look(vm) == before, f"stopped after {steps} steps there, and up to {way} back"
        assert back(session, vm)["changed"] is False
        steps += 1
        assert steps < 20
    assert steps > (5 if vm == "on" else 4), "the steps were not counted"


def test_what_was_altered_between_precopy_and_cutover_comes_back_as_it_was_then(site: UndoSite, session: Any) -> None:
    vm = "other"
    ref = find.find_vm(session, vm)
    source_state.apply(session, ref, source_state.Wanted(remember=True))
    site.set_card(vm, 4000, connected=False, start=False)
    before = site.look(vm)
    source_state.apply(session, ref, CUTOVER)
    assert set(site.cards(vm).values()) == {(False, False)}
    assert source_state.apply(session, ref, CUTOVER)["changed"] is False
    back(session, vm)
    del before["attributes"]["ferry.before"]
    assert site.look(vm) == before and before["cards"][4000] == (False, False)


def test_tracking_goes_off_again(site: UndoSite, session: Any) -> None:
    """Of a VM that runs, and of one that is off: with the very words that stood in its configuration."""
    vm = "tracked"
    ref = find.find_vm(session, vm)
    before = site.look(vm)
    assert not before["cbt"] and not before["ctk"]
    for wanted in (source_state.Wanted(remember=True), CUTOVER):
        source_state.apply(session, ref, source_state.Wanted(remember=True))
        cbt.apply(session, ref, enable=True)
        source_state.apply(session, ref, wanted)
        assert site.look(vm)["cbt"]
        snapshots.take(session, ref, quiesce="never")
        for held in list(snapshots.snapshot_tag.HELD):
            snapshots.snapshot_tag.HELD.discard(held)  # whoever took it is dead
        said = back(session, vm)
        assert any("snapshot" in s for s in said["steps"]) and "change tracking off, as it was" in said["steps"]
        assert site.look(vm) == before


def test_a_snapshot_that_does_not_go_does_not_keep_it_off(site: UndoSite, session: Any) -> None:
    vm = "on"
    ref = find.find_vm(session, vm)
    before = site.look(vm)
    source_state.apply(session, ref, CUTOVER)
    snapshots.take(session, ref, quiesce="never")
    snapshots.snapshot_tag.HELD.clear()
    site.vcenter.fault("snapshot_remove_fail", match=vm, times=1)
    with pytest.raises(ServerError) as caught:
        back(session, vm)
    assert "the snapshot ferry copy" in str(caught.value.left) and "powered on" in caught.value.partial["steps"]
    assert site.look(vm)["power"] == "poweredOn" and site.look(vm)["cards"] == before["cards"]
    back(session, vm)
    assert site.look(vm) == before and site.state(vm) == "rolled_back"


def test_check_mode_names_the_steps_and_takes_none(site: UndoSite, session: Any) -> None:
    vm = "on"
    source_state.apply(session, find.find_vm(session, vm), CUTOVER)
    before = site.look(vm)
    said = back(session, vm, check=True)
    assert said["changed"] and said["steps"][-4:] == ["powered on", "note removed", "state rolled_back", "old state forgotten"]
    assert site.look(vm) == before
    back(session, vm)


def test_one_that_was_committed_comes_back_only_when_told(site: UndoSite, session: Any) -> None:
    vm = "on"
    ref = find.find_vm(session, vm)
    source_state.apply(session, ref, CUTOVER)
    source_state.apply(session, ref, source_state.Wanted(attributes={"ferry.state": "committed"}))
    with pytest.raises(BadInput) as caught:
        back(session, vm)
    assert caught.value.code == "committed" and site.look(vm)["power"] == "poweredOff"
    back(session, vm, committed=True)
    assert site.look(vm)["power"] == "poweredOn"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"v":2}', '{"v":1,"vm":"UUID","power":"up","state":"","nics":{},"cbt":false,"ctk":{}}', "x" * 9000]
)
def test_a_record_that_cannot_be_read_is_an_error_and_nothing_is_done(site: UndoSite, session: Any, text: str) -> None:
    vm = "hung"
    ref = find.find_vm(session, vm)
    said = text.replace("UUID", site.uuid(vm))
    source_state.apply(session, ref, source_state.Wanted(attributes={fence.BEFORE: said}))
    before = site.look(vm)
    with pytest.raises(BadInput) as caught:
        back(session, vm)
    assert caught.value.code == "record" and site.look(vm) == before
    with pytest.raises(BadInput):
        source_state.apply(session, ref, CUTOVER)
    assert site.look(vm) == before
    source_state.apply(session, ref, source_state.Wanted(attributes={fence.BEFORE: ""}))


def test_a_record_that_came_with_a_clone_is_not_its_own(site: UndoSite, session: Any) -> None:
    vm = "hung"
    ref = find.find_vm(session, vm)
    theirs = fence.Record(site.uuid("on"), "off", "", {4000: (False, False)}, True, {}).text()
    source_state.apply(session, ref, source_state.Wanted(attributes={fence.BEFORE: theirs}))
    before = site.look(vm)["cards"]
    source_state.apply(session, ref, source_state.Wanted(power="off", network="disconnected"))
    assert json.loads(site.look(vm)["attributes"][fence.BEFORE])["vm"] == site.uuid(vm)
    back(session, vm)
    assert site.look(vm)["cards"] == before and site.look(vm)["power"] == "poweredOn"


def test_somebody_changes_a_card_in_the_same_moment(site: UndoSite, session: Any) -> None:
    vm = "other"
    ref = find.find_vm(session, vm)
    site.vcenter.fault("soap_fault", match="ReconfigVM_Task", fault="ConcurrentAccess", times=1)
    source_state.apply(session, ref, source_state.Wanted(power="off", network="disconnected"))
    assert set(site.cards(vm).values()) == {(False, False)}
    site.vcenter.fault("soap_fault", match="PowerOnVM_Task", fault="InsufficientResourcesFault", times=1)
    with pytest.raises(FerryError) as caught:
        back(session, vm)
    assert "Network adapter 2 connected" in caught.value.partial["steps"]
    with suppress(vim.fault.InvalidPowerState):
        site.client.wait(site.client.vm(vm).PowerOffVM_Task())
    back(session, vm)
    assert site.look(vm)["power"] == "poweredOn"
