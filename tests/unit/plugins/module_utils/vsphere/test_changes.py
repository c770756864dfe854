# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import changes, client
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.builds import Build, bad_build
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.disks import VmDisk
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.find import VmRef

from .conftest import FakeVcenter, Fault

KIB64 = 65536
ID = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/"
CAPACITY = 1 << 30


def disk(**more: Any) -> VmDisk:
    found = VmDisk(
        key=2000,
        label="Hard disk 1",
        address="scsi0:0",
        controller="ParaVirtualSCSIController",
        controller_kind="scsi",
        adapter="pvscsi",
        bus=0,
        unit=0,
        capacity=CAPACITY,
        path="[a] v/v.vmdk",
        chain=("[a] v/v.vmdk",),
        datastore="a",
        datastore_moref="datastore-1",
        datastore_type="VMFS",
        datacenter="DC0",
        backing="FlatVer2",
        uuid=None,
        thin=True,
        eager=None,
        mode="persistent",
        sharing=None,
        change_id=ID + "7",
        encrypted=False,
        rdm_mode=None,
        content_id=None,
    )
    return replace(found, **more)


def part(start: int, length: int, *areas: tuple[int, int]) -> Any:
    info = vim.VirtualMachine.DiskChangeInfo
    return info(startOffset=start, length=length, changedArea=[info.DiskChangeExtent(start=s, length=n) for s, n in areas])


def vm_of(session: client.Session) -> VmRef:
    return VmRef("vm-1", "db01", "/DC0/vm/db01", "uuid", False, session.managed("VirtualMachine", "vm-1"))


@pytest.fixture
def ask(vcenter: FakeVcenter, params: dict[str, Any]) -> Callable[..., list[tuple[int, int]]]:
    """Ask a vCenter that answers by a function of the start offset."""

    def asked(answer: Callable[[int], Any], start: int = 0, capacity: int = CAPACITY) -> list[tuple[int, int]]:
        def handler(body: str) -> Any:
            found = re.search(r"<startOffset[^>]*>(\d+)<", body)
            assert found
            return answer(int(found.group(1)))

        vcenter.handlers["QueryChangedDiskAreas"] = handler
        with client.connect(params) as session:
            return list(changes.changed_areas(session, vm_of(session), None, 2000, ID + "3", capacity, start, patience=0))

    return asked


def areas_of(count: int) -> list[tuple[int, int]]:
    return [(i * 2 * KIB64, KIB64) for i in range(count)]


def cut(areas: list[tuple[int, int]], most: int, whole: bool) -> Callable[[int], Any]:
    """A server that gives at most C(most) areas at a time; C(whole): it claims all the same to have described the disk to its end."""

    def answer(position: int) -> Any:
        if position >= CAPACITY:
            raise Fault("InvalidArgument", "<invalidProperty>startOffset</invalidProperty>")
        rest = [a for a in areas if a[0] >= position]
        now = rest[:most]
        end = CAPACITY if whole or len(rest) <= most else sum(now[-1])
        return part(position, end - position, *now)

    return answer


@pytest.mark.fault(
    "an answer is cut at 2,000 areas, and may claim to be whole", where="tracking", ends="asked on from its last area: all areas"
)
@pytest.mark.parametrize("whole", [False, True], ids=["says so", "claims to be whole"])
@pytest.mark.parametrize("count", [0, 1, 1999, 2000, 2001, 4000, 6500])
def test_answers_in_parts_are_followed_to_the_end(ask: Any, vcenter: FakeVcenter, count: int, whole: bool) -> None:
    assert ask(cut(areas_of(count), 2000, whole)) == areas_of(count)
    assert vcenter.calls.count("QueryChangedDiskAreas") == count // 2000 + 1


def test_one_answer_is_enough_for_a_few_areas(ask: Any, vcenter: FakeVcenter) -> None:
    assert ask(cut(areas_of(100), 2000, False)) == areas_of(100)
    assert vcenter.calls.count("QueryChangedDiskAreas") == 1


def test_parts_without_areas_are_passed(ask: Any) -> None:
    """Disks above 2 TB are described in spans."""
    span = CAPACITY // 4
    changed = (3 * span, KIB64)
    assert ask(lambda at: part(at, span, *([changed] if at == 3 * span else []))) == [changed]


def test_the_last_area_may_end_with_the_disk(ask: Any, vcenter: FakeVcenter) -> None:
    areas = [(CAPACITY - (2000 - i) * KIB64, KIB64) for i in range(2000)]
    assert ask(cut(areas, 2000, True)) == areas
    assert vcenter.calls.count("QueryChangedDiskAreas") == 1


def test_a_start_offset_is_where_the_first_question_begins(ask: Any) -> None:
    assert ask(cut(areas_of(100), 7, False), start=10 * KIB64) == areas_of(100)[5:]


def test_a_doubtful_answer_was_whole_after_all(ask: Any) -> None:
    """Some servers refuse an offset after the last area of a delta."""

    def answer(position: int) -> Any:
        if position:
            raise Fault("InvalidArgument", "<invalidProperty>startOffset</invalidProperty>")
        return part(0, CAPACITY, *areas_of(2000))

    assert ask(answer) == areas_of(2000)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (part(KIB64, KIB64), "another part"),
        (part(0, 0), "does not move forward"),
        (part(0, 0, (0, KIB64)), "does not move forward"),
        (part(0, CAPACITY + 512), "beyond the disk"),
        (part(0, CAPACITY, (CAPACITY - 512, KIB64)), "outside its part"),
        (part(0, KIB64, (KIB64, KIB64)), "outside its part"),
        (part(0, CAPACITY, (0, 0)), "an empty area"),
        (part(0, CAPACITY, (0, -5)), "an empty area"),
        (part(0, CAPACITY, (0, KIB64), (512, KIB64)), "overlap or descend"),
        (part(0, CAPACITY, (KIB64, KIB64), (0, 512)), "overlap or descend"),
        (part(0, CAPACITY, (-512, KIB64)), "overlap or descend"),
    ],
)
@pytest.mark.fault(
    "areas that are empty, overlap, descend or lie outside the disk, and answers that do not move forward",
    where="tracking",
    ends="error, never data",
)
def test_what_cannot_be_is_refused(ask: Any, answer: Any, what: str) -> None:
    with pytest.raises(ServerError, match=what) as e:
        ask(lambda at: answer)
    assert (e.value.code, e.value.vm, e.value.disk) == ("bad_areas", "db01", "2000")


def test_an_answer_that_repeats_itself_is_refused(ask: Any) -> None:
    with pytest.raises(ServerError, match="another part"):
        ask(lambda at: part(0, KIB64, (0, KIB64)))


def test_a_change_id_that_is_not_known_any_more_is_said(ask: Any) -> None:
    def answer(at: int) -> Any:
        raise Fault("FileFault", "<file>v.vmdk</file>")

    with pytest.raises(ServerError) as e:
        ask(answer)
    assert (e.value.code, e.value.details["fault"], e.value.vm) == ("fault", "FileFault", "db01")


def test_a_session_that_expires_between_two_parts_is_renewed(ask: Any, vcenter: FakeVcenter) -> None:
    parts = cut(areas_of(5000), 2000, False)

    def answer(at: int) -> Any:
        if at and vcenter.logins == 1:
            vcenter.sessions.clear()
            raise Fault("NotAuthenticated")
        return parts(at)

    assert ask(answer) == areas_of(5000)
    assert vcenter.logins == 2


@pytest.mark.parametrize(
    ("version", "number", "capacity", "bad"),
    [
        ("6.0.0", 3_247_719, 0, True),
        ("6.0.0", 3_247_720, 0, False),
        ("6.5.0", 1, 0, False),
        ("60.0.0", 1, 0, False),
        ("4.1.0", 10, 129 << 30, True),
        ("4.1.0", 10, 100 << 30, False),
        ("5.5.0", 1, 1 << 40, False),
    ],
)
def test_known_bad_builds(version: str, number: int, capacity: int, bad: bool) -> None:
    assert (bad_build(Build(version, number), capacity) is not None) == bad


def test_builds_of_the_user() -> None:
    build = Build("8.0.3", 24022510)
    assert bad_build(build, more=["8.0.3 24022510"])
    assert bad_build(build, more=["8.0.2 24022510", "24022511"]) is None
    assert bad_build(None, more=["24022510"]) is None
    with pytest.raises(BadInput, match="no ESXi build"):
        bad_build(build, more=["8.0 U3"])


def test_where_the_star_is_no_hint() -> None:
    assert changes.star_distrust(disk()) is None
    assert "NFS, not VMFS" in (changes.star_distrust(disk(datastore_type="NFS")) or "")
    assert "unknown, not VMFS" in (changes.star_distrust(disk(datastore_type=None)) or "")
    assert "raw device" in (changes.star_distrust(disk(rdm_mode="virtualMode")) or "")
    assert "no changeId" in (changes.star_distrust(disk(change_id=None)) or "")
    assert "317933" in (changes.star_distrust(disk(), build=Build("6.0.0", 5)) or "")
