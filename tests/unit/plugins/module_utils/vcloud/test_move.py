# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Relocation where the server does not tell the MoRef of the VM's datastore, so that only names are left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import client, move, situation, transport

from .conftest import VCLOUD, Answer, Asked, FakeVcd, sample

VM = "/api/vApp/vm-1111aaaa-0000-4000-8000-000000000001"


class Cloud:
    """One VM without VmVimInfo on C(datastore); relocate brings it to C(leads_to)."""

    def __init__(self, vcd: FakeVcd) -> None:
        self.datastore = "gold-01"
        self.leads_to = "gold-02"
        self.names = ["gold-01", "gold-02"]
        self.sent = 0
        vcd.handlers["GET /api/query"] = self.query
        bare = re.sub(rb"<VCloudExtension.*</VCloudExtension>", b"", sample("vm"), flags=re.DOTALL)
        vcd.handlers[f"GET {VM}"] = lambda a: Answer(200, bare)
        vcd.handlers[f"POST {VM}/action/relocate"] = self.relocate
        ended = sample("task_running").replace(b'status="running"', b'status="success"')
        vcd.handlers["GET /api/task/3333cccc-0000-4000-8000-000000000003"] = lambda a: Answer(200, ended)

    def query(self, asked: Asked) -> Answer:
        if "type=adminVM" in asked.path:
            whole = sample("adminVM_1.5").replace(b'total="86"', b'total="1"').replace(b'rel="nextPage"', b'rel="other"')
            return Answer(200, whole.replace(b'datastoreName="gold-01"', f'datastoreName="{self.datastore}"'.encode()))
        if "type=datastore" in asked.path:
            one = re.search(rb"<DatastoreRecord[^>]*/>", sample("datastore_modern"))
            assert one is not None
            rows = [
                one[0].decode().replace("gold-02", name).replace("datastore-42", f"datastore-{n}").replace("2222bbbb", f"0000000{n}")
                for n, name in enumerate(self.names)
            ]
            return Answer(200, f'<QueryResultRecords xmlns="{VCLOUD}" total="{len(rows)}">{"".join(rows)}</QueryResultRecords>'.encode())
        return Answer(200, f'<QueryResultRecords xmlns="{VCLOUD}" total="0"/>'.encode())

    def relocate(self, asked: Asked) -> Answer:
        self.sent += 1
        self.datastore = self.leads_to
        return Answer(202, sample("task_running"))


@pytest.fixture
def cloud(vcd: FakeVcd) -> Cloud:
    return Cloud(vcd)


@pytest.fixture
def session(vcd: FakeVcd, vcd_params: dict[str, Any]) -> Iterator[client.Client]:
    with client.Client(transport.endpoint(vcd_params), sleep=lambda s: None) as found:
        yield found


def test_there_by_name(cloud: Cloud, session: client.Client) -> None:
    cloud.datastore = "gold-02"
    warnings: list[str] = []
    result = move.relocate_vm(session, situation.Wanted(vm=VM, datastore="gold-02"), warn=warnings.append)
    assert (result["changed"], cloud.sent, warnings) == (False, 0, [])


def test_names_that_repeat_are_told_of(cloud: Cloud, session: client.Client) -> None:
    cloud.datastore = "gold-02"
    cloud.names = ["gold-01", "gold-02", "gold-02"]
    warnings: list[str] = []
    wanted = situation.Wanted(vm=VM, datastore="urn:vcloud:datastore:00000001-0000-4000-8000-000000000002")
    assert not move.relocate_vm(session, wanted, warn=warnings.append)["changed"]
    assert "which 2 datastores have" in warnings[0]


def test_moved_by_name(cloud: Cloud, session: client.Client) -> None:
    result = move.relocate_vm(session, situation.Wanted(vm=VM, datastore="gold-02"))
    assert (result["changed"], cloud.sent, result["datastore"]) == (True, 1, {"before": "gold-01", "after": "gold-02"})


def test_not_moved_by_name(cloud: Cloud, session: client.Client) -> None:
    cloud.leads_to = "gold-01"
    with pytest.raises(FerryError) as e:
        move.relocate_vm(session, situation.Wanted(vm=VM, datastore="gold-02"))
    assert e.value.code == "not_moved"
    assert cloud.sent == 1
