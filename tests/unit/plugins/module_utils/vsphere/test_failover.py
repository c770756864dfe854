# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proof of a host's death, the choice of hosts, and the file that outlives the run."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.failover import choose, moved_answer, target_again
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.failover_host import assign
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.failover_proof import Signs, prove
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.find import VmRef
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.keep import Record, Store
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move_plan import Wish
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move_rules import forbids_of
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move_subject import Subject
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.site import Cluster, Datastore, Host, Site, Vm

DEAD = "host-1"


def site(**more: Any) -> Site:
    def host(number: int, **change: Any) -> Host:
        fields: dict[str, Any] = {
            "cluster": "domain-c1",
            "cluster_name": "C0",
            "memory_mb_total": 16384,
            "cores": 8,
            "datastores": frozenset({"ds-1"}),
            "connected": number != 1,
        }
        return Host(f"host-{number}", f"esx{number}", **{**fields, **change})

    hosts = {f"host-{n}": host(n) for n in (1, 2, 3)}
    fields: dict[str, Any] = {
        "hosts": hosts,
        "datastores": {"ds-1": Datastore("ds-1", "shared", capacity=1 << 40, free=1 << 39, hosts=frozenset(hosts))},
        "vms": {f"vm-{n}": Vm(f"vm-{n}", f"仮想 {n}", f"uuid-{n}", DEAD, "on", memory_mb=4096) for n in range(1, 5)},
        "clusters": {"domain-c1": Cluster("C0")},
    }
    return Site(**{**fields, **more})


def subject(number: int, **more: Any) -> Subject:
    name = f"仮想 {number}"
    ref = VmRef(f"vm-{number}", name, f"/DC0/vm/{name}", f"uuid-{number}", False, None)
    fields: dict[str, Any] = {
        "facts": {"cpus": 1, "host": "esx1", "connection": "disconnected"},
        "power": "on",
        "connected": False,
        "host": DEAD,
        "vmx_datastore": "ds-1",
        "memory_mb": 4096,
    }
    return Subject(ref, **{**fields, **more})


def signs(connection: str = "notResponding", beat: str = "gray", vm: str = "disconnected", das: str | None = None) -> Signs:
    return Signs("esx1", connection, "unknown", das, {"vm-1": ("仮想 1", vm, "poweredOn", beat)})


@pytest.mark.parametrize(
    ("seen", "fenced", "failed"),
    [
        (signs(), True, set()),
        (signs(), None, set()),
        (signs(), False, {"host.fenced"}),
        (signs("disconnected"), True, {"host.dead"}),
        (signs("connected", vm="connected"), True, {"host.dead", "host.heartbeats"}),
        (signs("removed"), True, {"host.dead"}),
        (signs(beat="green"), None, {"host.heartbeats"}),
        (signs(beat="yellow"), True, {"host.heartbeats"}),
        (signs(vm="connected"), None, {"host.heartbeats"}),
        (signs(das="networkIsolated"), None, {"host.heartbeats"}),
        (signs(das="hostDown"), None, set()),
    ],
)
def test_on_doubt_the_host_is_alive(seen: Signs, fenced: bool | None, failed: set[str]) -> None:
    assert {c.id for c in prove(seen, site(), DEAD, fenced) if not c.passed} == failed


def test_a_cluster_that_ha_protects_is_left_to_it() -> None:
    protected = site(clusters={"domain-c1": Cluster("C0", ha=True)})
    assert [c.id for c in prove(signs(), protected, DEAD, True) if not c.passed] == ["cluster.ha"]


def test_each_choice_counts_for_the_next() -> None:
    found = assign([subject(n) for n in range(1, 5)], site(), DEAD, Wish(), None)
    assert sorted(t.to.name for t in found if t.to is not None) == ["esx2", "esx2", "esx3", "esx3"]
    big = assign([subject(1, memory_mb=32768), subject(2)], site(), DEAD, Wish(), None)
    assert [(t.name, t.state) for t in big] == [("仮想 1", "refused"), ("仮想 2", "planned")]
    assert "memory" in big[0].reasons[0]


def test_constraints_hold_among_those_that_are_started_elsewhere() -> None:
    apart = forbids_of([{"kind": "apart", "vms": ["仮想 1", "仮想 2", "仮想 3"]}])
    found = assign([subject(n) for n in (1, 2, 3)], site(), DEAD, Wish(), apart)
    assert [t.state for t in found] == ["planned", "planned", "refused"] and found[0].to != found[1].to
    together = assign([subject(1), subject(2)], site(), DEAD, Wish(), forbids_of([{"kind": "EQ", "vms": ["仮想 1", "仮想 2"]}]))
    assert [t.state for t in together] == ["planned", "planned"]
    assert len({t.to.name for t in together if t.to is not None}) == 1


def test_a_vm_on_a_local_disk_of_the_dead_host_goes_nowhere() -> None:
    choice = choose(subject(1, vmx_datastore="ds-9"), site(), Wish())
    assert choice.host is None and "datastore.access" in choice.checks[0].detail


def data(**more: Any) -> dict[str, Any]:
    vm = {"name": "在庫 01", "moref": "vm-7", "instance_uuid": "5021-UUID", "bios_uuid": None, "path": "/DC0/vm/本番/在庫 01"}
    whole: dict[str, Any] = {
        "vm": vm,
        "host": DEAD,
        "host_name": "esx1",
        "cluster": "domain-c1",
        "datacenter": "DC0",
        "datastores": ["ds-1"],
        "to": "host-3",
        "power": "on",
        "vmx_path": "[shared] 在庫 01/在庫 01.vmx",
        "memory_mb": 4096,
        "attributes": {},
        "permissions": [],
        "tags": None,
        "drs": {"groups": [], "rules": []},
        "before": {},
        "annotation": "",
        "folder": "group-v3",
        "folder_path": "/DC0/vm/本番",
        "pool": None,
        "pool_path": [],
    }
    return {**whole, **more}


def test_a_record_is_there_after_the_run_and_only_for_its_user(tmp_path: Path) -> None:
    store = Store(tmp_path / "kept", "vcenter-1")
    record = store.new("5021-UUID", data())
    record.save(step="unregistering")
    assert stat.S_IMODE(record.path.stat().st_mode) == 0o600 and stat.S_IMODE(record.path.parent.stat().st_mode) == 0o700
    again = Store(tmp_path / "kept", "vcenter-1").find("在庫 01")
    assert again is not None and again.step == "unregistering" and again.reached("kept") and not again.reached("unregistered")
    assert [p.name for p in (tmp_path / "kept").iterdir()] == [record.path.name]


@pytest.mark.parametrize("wanted", ["在庫 01", "vm-7", "5021-uuid", "/DC0/vm/本番/在庫 01", "本番/在庫 01"])
def test_a_record_answers_to_what_the_vm_was_called(tmp_path: Path, wanted: str) -> None:
    store = Store(tmp_path, "vcenter-1")
    store.new("5021-UUID", data())
    assert store.find(wanted) is not None and store.find("在庫") is None
    assert Store(tmp_path, "vcenter-2").find(wanted) is None


def test_a_finished_one_is_kept_apart(tmp_path: Path) -> None:
    store = Store(tmp_path, "vcenter-1")
    record = store.new("5021-UUID", data())
    store.finish(record)
    assert store.find("在庫 01") is None and store.get("5021-UUID") is None
    done = store.get("5021-UUID", done=True)
    assert done is not None and done.data["to"] == "host-3"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 9}', json.dumps({"version": 1, "step": "flown", "vm": {"name": "x"}})])
def test_a_damaged_record_is_never_passed_over(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path, "vcenter-1")
    store.new("5021-UUID", data()).path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="no record"):
        store.find("在庫 01")


def test_one_run_at_a_time(tmp_path: Path) -> None:
    store = Store(tmp_path, "vcenter-1")
    with store.lock("5021-UUID"), pytest.raises(Busy), Store(tmp_path, "vcenter-1").lock("5021-UUID"):
        pass
    with store.lock("5021-UUID"):
        pass


def test_a_run_that_goes_on_keeps_its_host_unless_that_died_too() -> None:
    there = site()
    chosen = target_again(there, data())
    assert chosen is not None and chosen.name == "esx3"
    gone = replace(there, hosts={**there.hosts, "host-3": replace(there.hosts["host-3"], connected=False)})
    other = target_again(gone, data())
    assert other is not None and other.name == "esx2"
    assert target_again(there, data(datastores=["ds-1", "ds-9"])) is None


def test_a_vm_that_asks_whether_it_was_moved_is_told_so() -> None:
    def choice(key: str, label: str) -> Any:
        return SimpleNamespace(key=key, label=label, summary=label)

    choices = SimpleNamespace(
        choiceInfo=[choice("0", "button.uuid.cancel"), choice("1", "button.uuid.movedTheVM"), choice("2", "button.uuid.copiedTheVM")]
    )
    assert moved_answer(SimpleNamespace(id="1", text="msg.uuid.altered: ...", choice=choices)) == "1"
    assert moved_answer(SimpleNamespace(id="1", text="msg.hbacommon.outofspace", choice=choices)) is None
    assert moved_answer(None) is None


def test_a_record_with_steps_out_of_order_is_told_by_its_step() -> None:
    assert Record(Path("x"), {"step": "restored"}).reached("registered") and not Record(Path("x"), {"step": "restored"}).reached("booted")
