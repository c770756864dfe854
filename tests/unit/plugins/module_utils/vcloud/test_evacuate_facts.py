# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a plan needs of each VM, and why one cannot be moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud.entities import VmDisk, VmFacts, VmRecord
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud.evacuate import Wanted, chain_names, check_wanted
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud.evacuate_facts import item_of
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud.find import Names
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud.tasks import Task

from .test_evacuate_plan import chain, plan, store

HREF = "https://vcd.example/api/vApp/vm-1111aaaa-0000-4000-8000-000000000001"
VAPP = "https://vcd.example/api/vApp/vapp-4444dddd-0000-4000-8000-000000000004"
ORG = "https://vcd.example/api/org/5555eeee-0000-4000-8000-000000000005"
HERE, ELSEWHERE = store(1).key, store(9).key
RECORD = VmRecord(HREF, "db01", "erp", VAPP, "", ORG, "POWERED_ON", False, "ds1", "", "vm-1", host="esx1")
DISKS = (
    VmDisk("2000", "Hard disk 1", 20480, HERE),
    VmDisk("2001", "Hard disk 2", 1000, ELSEWHERE),
    VmDisk("3000", "named", 500, HERE, True),
)


def facts(**more: Any) -> VmFacts:
    values: dict[str, Any] = {"home": HERE, "disk_datastores": (HERE, ELSEWHERE), "disks": DISKS, "chain": 1, "tasks": (), **more}
    return VmFacts(
        HREF, "", "db01", "POWERED_ON", VAPP, None, profile_href="", profile_name="", relocate_href=None, **values
    )  # fmt: skip


def found(record: VmRecord = RECORD, about: VmFacts | ServerError | None = None, maintenance: frozenset[str] = frozenset()) -> Any:
    return item_of(record, about or facts(), store(1), Names(), set(maintenance))


def test_sizes_host_and_chain() -> None:
    one = found()
    assert (one.mb, one.elsewhere_mb, one.host, one.chain, one.group, one.blocked) == (21480, 1000, "esx1", 1, "", "")
    assert one.note == "1 independent disks are not moved with it"
    assert found(RECORD._replace(status="POWERED_OFF")).host == ""
    clone = found(about=facts(chain=2))
    assert clone.group == "5555eeee-0000-4000-8000-000000000005/20480"
    assert found(RECORD._replace(is_template=True)).group == clone.group


@pytest.mark.parametrize("status", ["FAILED_CREATION", "UNRESOLVED", "INCONSISTENT_STATE"])
def test_a_machine_that_is_stuck(status: str) -> None:
    assert found(RECORD._replace(status=status)).blocked == f"stuck: its status is {status}"


def test_a_machine_that_cannot_be_read() -> None:
    assert found(about=ServerError("No.", code="forbidden", said="HTTP 403")).blocked == "stuck: it cannot be read (HTTP 403)"


def test_maintenance() -> None:
    assert "maintenance" in found(maintenance=frozenset(["4444dddd-0000-4000-8000-000000000004"])).blocked


def test_what_it_is_busy_with() -> None:
    busy = Task("https://vcd.example/api/task/1", "running", operation_name="vappUpdateVm")
    one = found(about=facts(tasks=(busy,)))
    assert "busy now: vappUpdateVm" in one.note
    assert one.blocked == ""
    assert "under way already" in found(about=facts(tasks=(replace(busy, operation_name="vappRelocateVm"),))).note
    assert "busy" not in found(about=facts(tasks=(replace(busy, status="success"),))).note


def test_names_of_chains() -> None:
    both = [*chain("k1/20480", "a", base="centos"), *chain("k2/100", "b", "c")]
    assert chain_names(plan(both)) == {"k1/20480": "acme/centos", "k2/100": "acme/100"}


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(BadInput) as e:
        check_wanted(Wanted(" ", [], reserve_percent=100.0, max_per_host=0, stop_after_failures=-1, order="large"))
    assert len(e.value.details["errors"]) == 6
