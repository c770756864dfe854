# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client, snapshots

from .conftest import FakeVcenter, Fault, result
from .test_changes import vm_of

NOW = datetime.datetime(2026, 11, 21, 18, 0, tzinfo=datetime.timezone.utc)


class Snapshots:
    """A VM's snapshots. C(before), C(after): what happens before and after the server has taken or removed one; may raise."""

    def __init__(self, fake: FakeVcenter) -> None:
        self.fake = fake
        self.there: dict[int, str] = {}
        self.count = 0
        self.quiesces = True
        self.asked: list[bool] = []
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.outcome: Any = None
        fake.handlers |= {
            "RetrievePropertiesEx": self.read,
            "CurrentTime": lambda body: NOW,
            "CreateSnapshot_Task": self.create,
            "RemoveSnapshot_Task": self.remove,
        }

    def read(self, body: str) -> Any:
        if ">task-1<" in body:
            error, self.outcome = self.outcome, None
            if error is not None:
                return result({vim.Task("task-1"): {"info.state": vim.TaskInfo.State.error, "info.error": error}})
            return result({vim.Task("task-1"): {"info.state": vim.TaskInfo.State.success}})
        nodes = [self.node(number, text) for number, text in self.there.items()]
        props: dict[str, Any] = {
            "runtime.powerState": vim.VirtualMachine.PowerState.poweredOn,
            "guest.toolsRunningStatus": "guestToolsRunning",
            "runtime.consolidationNeeded": False,
        }
        if nodes:
            props["snapshot"] = vim.vm.SnapshotInfo(rootSnapshotList=nodes)
        return result({vim.VirtualMachine("vm-1"): {k: v for k, v in props.items() if f">{k}<" in body}})

    def node(self, number: int, text: str) -> Any:
        return vim.vm.SnapshotTree(
            snapshot=vim.vm.Snapshot(f"snapshot-{number}"),
            vm=vim.VirtualMachine("vm-1"),
            name=f"s{number}",
            description=text,
            id=number,
            createTime=NOW,
            state="poweredOn",
            quiesced=self.quiesces and self.asked[-1],
            replaySupported=False,
        )

    def create(self, body: str) -> Any:
        self.before()
        text = re.search(r"<description[^>]*>(.*?)</description>", body, re.DOTALL)
        assert text
        self.asked.append(bool(re.search(r"<quiesce[^>]*>true<", body)))
        if self.outcome is None:
            self.count += 1
            self.there[self.count] = html.unescape(text.group(1))
        self.after()
        return vim.Task("task-1")

    def remove(self, body: str) -> Any:
        found = re.search(r">snapshot-(\d+)<", body)
        assert found
        if int(found.group(1)) not in self.there:
            raise Fault("ManagedObjectNotFound")
        del self.there[int(found.group(1))]
        self.after()
        return vim.Task("task-1")


@pytest.fixture
def there(vcenter: FakeVcenter) -> Snapshots:
    return Snapshots(vcenter)


@pytest.fixture
def take(params: dict[str, Any]) -> Callable[..., snapshots.Snapshot]:
    def taken(**options: Any) -> snapshots.Snapshot:
        with client.connect(params) as session:
            return snapshots.take(session, vm_of(session), **options)

    return taken


def once(what: Callable[[], None]) -> Callable[[], None]:
    """C(what), the first time only."""
    waiting = [what]
    return lambda: waiting.pop()() if waiting else None


def cut() -> None:
    """The server dies before it has answered: the connection ends."""
    raise ConnectionAbortedError


def busy() -> None:
    raise Fault("TaskInProgress", "<task type='Task'>task-9</task>")


def test_a_request_whose_answer_is_lost_is_not_made_twice(there: Snapshots, take: Any) -> None:
    there.after = once(cut)
    found = take()
    assert (found.moref, found.quiesced) == ("snapshot-1", True)
    assert there.fake.calls.count("CreateSnapshot_Task") == 1


def test_a_request_that_did_not_arrive_is_made_again(there: Snapshots, take: Any) -> None:
    there.before = once(cut)
    assert take().moref == "snapshot-1"
    assert list(there.there) == [1]


@pytest.mark.parametrize("by_task", [False, True])
def test_somebody_else_s_work_on_the_vm_is_waited_for(there: Snapshots, take: Any, by_task: bool) -> None:
    if by_task:
        there.outcome = vim.fault.TaskInProgress(task=vim.Task("task-9"))
    else:
        there.before = once(busy)
    assert take().moref == "snapshot-1"
    assert there.fake.calls.count("CreateSnapshot_Task") == 2


def test_a_refusal_leaves_nothing(there: Snapshots, take: Any) -> None:
    there.outcome = vim.fault.TooManySnapshotLevels()
    with pytest.raises(ServerError, match="TooManySnapshotLevels") as e:
        take()
    assert (e.value.vm, e.value.step, e.value.left) == ("db01", "take a snapshot", None)
    assert there.there == {}


def test_quiescing_that_is_silently_ignored_is_noticed(there: Snapshots, take: Any) -> None:
    there.quiesces = False
    found = take(quiesce="auto")
    assert (found.quiesced, "not quiesced" in str(found.remark)) == (False, True)
    assert take(quiesce="never").remark is None
    before = dict(there.there)
    with pytest.raises(BadInput) as e:
        take(quiesce="required")
    assert e.value.code == "quiesce"
    assert there.there == before
    assert there.asked == [True, False, True]


def test_a_removal_whose_answer_is_lost(there: Snapshots, params: dict[str, Any]) -> None:
    with client.connect(params) as session:
        found = snapshots.take(session, vm_of(session))
        there.after = once(cut)
        snapshots.remove(session, found)
        assert there.there == {}
        snapshots.remove(session, found)
    assert there.fake.calls.count("RemoveSnapshot_Task") == 1
