# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import nfc, snapshot_tag, snapshots, steady
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.find import VmRef

from .test_changes import disk

VM = VmRef("vm-1", "在庫", "/DC0/vm/在庫", "50210a1b-0002", False, None)
NOW = datetime.datetime(2026, 11, 21, 18, 0, tzinfo=datetime.timezone.utc)


def test_a_tag_is_found_again_in_a_description() -> None:
    tag = snapshot_tag.new_tag("copy", "50210a1b", "/var/lib/ferry 移行")
    text = tag.text("Taken by ferry.\nSecond line.")
    assert snapshot_tag.parse(text) == tag
    assert text.splitlines()[1:] == ["Taken by ferry.", "Second line."]
    assert tag.owner.endswith(":/var/lib/ferry 移行")
    assert snapshot_tag.parse(text.replace("\n", "\r\n")) == tag


@pytest.mark.parametrize(
    "description",
    [None, "", "before the update", "{", "[]", "{}", '{"by":"veeam","id":"1"}', '{"by":"ferry.vmware"}', "x" * 10_000, "{" * 9_000],
)
def test_what_others_write_is_not_ours(description: str | None) -> None:
    assert snapshot_tag.parse(description) is None


def test_the_process_that_took_it() -> None:
    mine = snapshot_tag.new_tag("copy", None)
    assert mine.alive is False, "nothing holds it"
    snapshot_tag.HELD.add(mine.id)
    assert mine.alive is True
    snapshot_tag.HELD.discard(mine.id)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        theirs = replace(mine, process=str(snapshot_tag._process(other.pid)))
        assert theirs.alive is True
        later = replace(mine, process=theirs.process + "1")
        assert later.alive is False, "another process of the same number"
        other.kill()
    assert theirs.alive is False
    assert replace(mine, owner="another-host:/x").alive is None
    assert replace(mine, process=str(os.getpid())).alive is None


@pytest.mark.parametrize(
    ("owner", "process", "age", "left"),
    [
        ("here", "dead", 1, True),
        ("here", "alive", 99_999, False),
        ("elsewhere", "dead", 60, False),
        ("elsewhere", "dead", 3601, True),
    ],
)
def test_what_counts_as_left_behind(owner: str, process: str, age: float, left: bool) -> None:
    tag = snapshot_tag.new_tag("areas", None)
    if process == "alive":
        snapshot_tag.HELD.add(tag.id)
    if owner == "elsewhere":
        tag = replace(tag, owner="another-host:/x")
    created = (NOW - datetime.timedelta(seconds=age)).isoformat()
    snapshot = snapshots.Snapshot("snapshot-1", "ferry areas", False, tag=tag, created=created, vm=VM)
    assert snapshots.is_left_behind(snapshot, NOW) is left
    assert not snapshots.is_left_behind(replace(snapshot, tag=replace(tag, purpose="kept")), NOW)
    assert not snapshots.is_left_behind(replace(snapshot, tag=None), NOW)


def node(number: int, name: str, *children: Any, description: str = "") -> Any:
    return vim.vm.SnapshotTree(
        snapshot=vim.vm.Snapshot(f"snapshot-{number}"),
        vm=vim.VirtualMachine("vm-1"),
        name=name,
        description=description,
        id=number,
        createTime=NOW,
        state="poweredOn",
        quiesced=number % 2 == 0,
        childSnapshotList=list(children),
    )


def test_the_tree_is_read_parents_first() -> None:
    tag = snapshot_tag.new_tag("copy", None)
    root = node(1, "a%2fb", node(2, "ours", node(3, "移行前"), description=tag.text("x")), node(4, "other branch"))
    found = snapshots.tree_of(VM, vim.vm.SnapshotInfo(rootSnapshotList=[root, node(5, "second root")]))
    assert [(s.moref, s.name, s.depth) for s in found] == [
        ("snapshot-1", "a/b", 0),
        ("snapshot-2", "ours", 1),
        ("snapshot-3", "移行前", 2),
        ("snapshot-4", "other branch", 1),
        ("snapshot-5", "second root", 0),
    ]
    assert [s.tag for s in found] == [None, tag, None, None, None]
    assert [s.quiesced for s in found] == [False, True, False, True, False]
    assert snapshots.tree_of(VM, None) == []


@pytest.mark.parametrize(
    ("quiesce", "power", "tools", "asked", "remark"),
    [
        ("auto", "on", True, True, None),
        ("required", "on", True, True, None),
        ("never", "on", True, False, None),
        ("never", "suspended", False, False, None),
        ("auto", "off", False, False, None),
        ("required", "off", False, False, None),
        ("auto", "on", False, False, "Tools are not running"),
        ("auto", "suspended", True, False, "suspended"),
    ],
)
def test_whether_quiescing_is_asked_for(quiesce: str, power: str, tools: bool, asked: bool, remark: str | None) -> None:
    found, said = snapshots.plan_quiesce(quiesce, power, tools)
    assert found is asked
    assert (said is None) == (remark is None)
    assert (remark or "") in (said or "")


@pytest.mark.parametrize(("power", "tools"), [("on", False), ("suspended", True)])
def test_quiescing_that_is_required_and_cannot_be(power: str, tools: bool) -> None:
    with pytest.raises(BadInput) as e:
        snapshots.plan_quiesce("required", power, tools, "db01")
    assert (e.value.code, e.value.vm) == ("quiesce", "db01")


@pytest.mark.parametrize(
    ("fault", "said", "is_it"),
    [
        ("ApplicationQuiesceFault", "", True),
        ("FilesystemQuiesceFault", "", True),
        ("GenericVmConfigFault", "An error occurred while quiescing the virtual machine.", True),
        ("FileFault", "no space left", False),
    ],
)
def test_faults_of_quiescing(fault: str, said: str, is_it: bool) -> None:
    assert snapshots.is_quiesce_fault(ServerError("x", said=said, fault=fault)) is is_it


def test_a_deadline_waits_longer_and_longer_and_ends() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    deadline = steady.Deadline(20, clock=lambda: now[0], sleep=sleep)
    while deadline.wait():
        pass
    assert slept[:3] == [0.2, 0.4, 0.8]
    assert max(slept) == 5.0
    assert sum(slept) == pytest.approx(20)


def test_only_a_server_that_is_away_is_asked_again() -> None:
    tries = []

    def work(e: ServerError) -> str:
        tries.append(e)
        if len(tries) < 3:
            raise e
        return "there"

    assert steady.steadily(lambda: work(ServerError("away", code="unreachable")), patience=60) == "there"
    tries.clear()
    with pytest.raises(ServerError, match="no"):
        steady.steadily(lambda: work(ServerError("no", code="fault")), patience=60)
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("url", "netloc", "found"),
    [
        ("https://*/nfc/52aa/disk-0.vmdk", "vcenter.example.com:443", "https://vcenter.example.com:443/nfc/52aa/disk-0.vmdk"),
        ("https://*:8443/nfc/1/d", "vcenter.example.com:443", "https://vcenter.example.com:8443/nfc/1/d"),
        ("https://*/nfc/1/d", "[2001:db8::1]:443", "https://[2001:db8::1]:443/nfc/1/d"),
        ("https://esx1.example.com/nfc/1/d", "vcenter:443", "https://esx1.example.com/nfc/1/d"),
        ("https://[2001:db8::2]:902/nfc/1/d", "vcenter:443", "https://[2001:db8::2]:902/nfc/1/d"),
    ],
)
def test_urls_of_a_lease(url: str, netloc: str, found: str) -> None:
    assert nfc.lease_url(url, netloc) == found


@pytest.mark.parametrize(
    "url", ["http://*/nfc/1", "https://user@host/nfc", "https:///nfc", "file:///etc/passwd", "https://*", "https://a b/c"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ServerError):
        nfc.lease_url(url, "vcenter:443")


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("/vm-42/ParaVirtualSCSIController0:0", 2000),
        ("/vm-42/VirtualLsiLogicController1:3", 2019),
        ("/vm-42/VirtualAHCIController0:12", 16012),
        ("2019", 2019),
        ("/vm-42/VirtualLsiLogicController0:0", None),
        ("/vm-42/nvram", None),
        ("9", None),
        ("", None),
    ],
)
def test_disks_of_a_lease_are_told_by_their_key(key: str, found: int | None) -> None:
    disks = [
        disk(),
        disk(key=2019, controller="VirtualLsiLogicController", bus=1, unit=3),
        disk(key=16012, controller="VirtualAHCIController", controller_kind="sata", unit=12),
    ]
    match = nfc.match_disk(key, disks)
    assert (match.key if match else None) == found
