# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What disks hold, and how much of it has changed, told without a snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client, usage
from tests.lab.vcenter import USER, VCenter

from .vcenter_lab import MIB, Client, disks_of, running, warm_model


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCenter]:
    folder = tmp_path_factory.mktemp("usage")
    with running(folder, warm_model(folder)) as vcenter:
        yield vcenter


@pytest.fixture(scope="module")
def plain(lab: VCenter) -> Iterator[Client]:
    made = Client(lab)
    yield made
    made.close()


@pytest.fixture
def session(lab: VCenter) -> Iterator[client.Session]:
    params = {"hostname": "127.0.0.1", "port": lab.port, "username": USER, "password": lab.place.password()}
    with client.connect({**params, "ca_path": str(lab.place.state / "ca.pem"), "validate_certs": True}) as found:
        yield found


def of(found: dict[str, Any], number: int = 0) -> dict[str, dict[str, Any]]:
    return {d["key"]: d for d in found["vms"][number]["disks"]}


def test_what_disks_hold_by_name_and_by_moref(session: client.Session, plain: Client) -> None:
    by_name = usage.read(session, ["db", "plain"], {})
    db = of(by_name)
    assert all(d["allocated"] and d["allocated"] < 8 * MIB and d["changed"] is None for d in db.values()) and len(db) == 2
    assert "tracked" in next(iter(db.values()))["why"]
    assert by_name["vcenter"]["instance"] == plain.content.about.instanceUuid
    morefs = [plain.vm(name)._moId for name in ("db", "plain")]
    assert usage.read(session, morefs, {}) == by_name


def test_a_vm_that_is_gone_is_named(session: client.Session, plain: Client) -> None:
    with pytest.raises(BadInput) as e:
        usage.read(session, [plain.vm("db")._moId, "vm-99999"], {})
    assert "vm-99999" in str(e.value) and e.value.details["unknown"] == ["vm-99999"]


def test_what_has_changed_of_one_that_is_off(session: client.Session, plain: Client, lab: VCenter) -> None:
    vm = plain.vm("db")
    snapshot = plain.snapshot(vm, "before")
    since = {str(key): disk.backing.changeId for key, disk in disks_of(snapshot.config).items()}
    plain.wait(snapshot.RemoveSnapshot_Task(False))
    known = {vm._moId: since}
    running_ = of(usage.read(session, [vm._moId], known))
    assert {d["changed"] for d in running_.values()} == {None} and "snapshot" in running_[min(since)]["why"]
    plain.wait(vm.PowerOff())
    try:
        count = len(vm.rootSnapshot)
        off = of(usage.read(session, [vm._moId], known))
        assert {d["changed"] for d in off.values()} == {0}
        lost = of(usage.read(session, [vm._moId], {vm._moId: {next(iter(since)): "52 00 00 00 00 00 00 00-00 00 00 00 00 00 00 00/1"}}))
        assert lost[next(iter(since))]["changed"] is None and lost[next(iter(since))]["why"]
        assert len(plain.vm("db").rootSnapshot) == count, "no snapshot was taken"
    finally:
        plain.wait(vm.PowerOn())


def test_none_asked_for(session: client.Session) -> None:
    assert usage.read(session, [], {})["vms"] == []
