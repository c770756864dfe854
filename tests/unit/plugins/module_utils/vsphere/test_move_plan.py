# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans of moves, from plain data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.candidates import candidates
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.disks import VmDisk, VmNic
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.find import VmRef
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move import mark_of
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move_checks import MIB, Check, Target, judge, load
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move_plan import Plan, Wish, plan, way_key
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move_rules import forbids_of
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move_spec import Pool, choose_pool
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move_subject import Drive, Subject
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.site import Cluster, Datastore, Host, Site, Vm

GIB = 1 << 30
NAME = "在庫 01"


def disk(key: int = 2000, store: str = "ds-1", **more: Any) -> VmDisk:
    names = {"ds-1": "shared", "ds-2": "local1", "ds-3": "local2"}
    path = f"[{names[store]}] vm/vm-{key}.vmdk"
    fields: dict[str, Any] = {
        "key": key,
        "label": f"Hard disk {key - 1999}",
        "address": f"scsi0:{key - 2000}",
        "controller": "ParaVirtualSCSIController",
        "controller_kind": "scsi",
        "adapter": "pvscsi",
        "bus": 0,
        "unit": key - 2000,
        "capacity": 10 * GIB,
        "path": path,
        "chain": (path,),
        "datastore": names[store],
        "datastore_moref": store,
        "datastore_type": "VMFS",
        "datacenter": "DC0",
        "backing": "FlatVer2",
        "uuid": None,
        "thin": True,
        "eager": None,
        "mode": "persistent",
        "sharing": None,
        "change_id": None,
        "encrypted": False,
        "rdm_mode": None,
        "content_id": None,
    }
    return VmDisk(**{**fields, **more})


def nic(network: str = "LAN", moref: str = "network-1") -> VmNic:
    return VmNic(4000, "Network adapter 1", "00:50:56:00:00:01", "vmxnet3", network, moref, None, True, True, ())


def subject(**more: Any) -> Subject:
    fields: dict[str, Any] = {
        "vm": VmRef("vm-1", NAME, f"/DC0/vm/{NAME}", "uuid-1", False, None),
        "facts": {"name": NAME, "host": "esx1", "cpus": 2, "custom_attributes": {}, "annotation": ""},
        "power": "on",
        "host": "host-1",
        "vmx_path": "[shared] vm/vm.vmx",
        "vmx_datastore": "ds-1",
        "datastores": frozenset({"ds-1"}),
        "disks": (disk(),),
        "nics": (nic(),),
        "bytes_on": {"ds-1": 2 * GIB + MIB},
        "disk_bytes": {2000: 2 * GIB},
        "memory_mb": 4096,
        "tools": True,
    }
    return Subject(**{**fields, **more})


def host(number: int, **more: Any) -> Host:
    fields: dict[str, Any] = {
        "cluster": "domain-c1",
        "cluster_name": "C0",
        "datacenter": "DC0",
        "cores": 16,
        "memory_mb_total": 65536,
        "memory_mb_used": 8192 * number,
        "datastores": frozenset({"ds-1"}),
        "networks": frozenset({"network-1"}),
        "cpu_model": "Intel(R) Xeon(R) Gold",
    }
    return Host(f"host-{number}", f"esx{number}", **{**fields, **more})


def site(*hosts: Host, **more: Any) -> Site:
    stores = {
        "ds-1": Datastore("ds-1", "shared", "VMFS", 100 * GIB, 50 * GIB),
        "ds-2": Datastore("ds-2", "local1", "VMFS", 100 * GIB, 50 * GIB, local=True),
        "ds-3": Datastore("ds-3", "local2", "VMFS", 100 * GIB, 50 * GIB, local=True),
    }
    found = {h.moref: h for h in hosts or (host(1), host(2), host(3))}
    for moref, store in stores.items():
        stores[moref] = replace(store, hosts=frozenset(h for h, x in found.items() if moref in x.datastores))
    fields: dict[str, Any] = {
        "hosts": found,
        "datastores": stores,
        "vms": {"vm-1": Vm("vm-1", NAME, "uuid-1", "host-1", "on"), "vm-2": Vm("vm-2", "db", "uuid-2", "host-2", "on")},
        "clusters": {"domain-c1": Cluster("C0"), "domain-c2": Cluster("C1")},
        "networks": {"network-1": "LAN", "network-2": "DMZ"},
    }
    return Site(**{**fields, **more})


def failed(found: Plan) -> set[str]:
    return {c.id for c in found.checks if not c.passed}


def test_without_a_host_the_emptiest_that_fits_is_taken() -> None:
    found = plan(subject(), site(host(1), host(2), host(3, maintenance=True), host(4)), Wish())
    assert found.method == "hot" and found.target is not None and found.target.host.name == "esx2"
    assert [c["host"] for c in found.candidates] == ["esx2", "esx4", "esx3"]
    assert found.candidates[2]["reasons"] == ["host.maintenance: esx3 in C0 is in maintenance mode"]


@pytest.mark.parametrize(("cpus", "fits"), [(16, True), (32, True), (33, False)])
def test_a_vm_may_have_as_many_cpus_as_its_host_has_threads(cpus: int, fits: bool) -> None:
    """The check of a move and the plan of an evacuation say the same."""
    target = host(2, threads=32)
    there = site(host(1), target)
    there = replace(there, vms={"vm-1": replace(there.vms["vm-1"], cpus=cpus, datastores=frozenset({"ds-1"}))})
    checks = judge(subject(facts={"name": NAME, "host": "esx1", "cpus": cpus}), there, Target(target), "hot")
    assert {c.id: c.passed for c in checks}["cpu.count"] is fits
    found = {c.name: c for c in candidates(there, "vm-1")}["esx2"]
    assert any(r.startswith(f"CPU: the VM has {cpus}") for r in found.reasons) is not fits


def test_every_way_is_thought_of_and_the_gentlest_taken() -> None:
    lone = host(2, datastores=frozenset({"ds-3"}))
    found = plan(subject(), site(host(1), lone), Wish(host="esx2"))
    assert [(m["method"], m["datastore"], m["fits"]) for m in found.methods] == [
        ("hot", None, False),
        ("hot", "local2", True),
        ("move", "local2", True),
    ]
    assert found.method == "hot" and found.bytes == 2 * GIB + MIB


def test_a_piece_of_the_host_forbids_every_way_to_another() -> None:
    found = plan(subject(passthrough=("PCI device 0",)), site(), Wish(host="esx2"))
    assert not found.fits and failed(found) == {"vm.passthrough"}
    wish = Wish(method="storage", datastore="local2")
    there = site(host(1, datastores=frozenset({"ds-1", "ds-3"})))
    assert failed(plan(subject(passthrough=("PCI device 0",)), there, wish)) == {"vm.passthrough"}
    assert plan(subject(passthrough=("PCI device 0",), power="off"), there, wish).fits


def test_a_drive_of_the_host_is_no_hindrance_once_the_vm_is_off() -> None:
    held = subject(drives=(Drive("CD/DVD drive 1", "[local1] setup.iso", "ds-2"),))
    assert failed(plan(held, site(), Wish(method="hot", host="esx2"))) == {"vm.drives"}
    assert plan(held, site(host(1), host(2, datastores=frozenset({"ds-1", "ds-3"}))), Wish(host="esx2")).method == "move"


@pytest.mark.parametrize(
    ("change", "options", "check"),
    [
        ({"connected": False}, {}, "vm.connection"),
        ({"template": True}, {}, "vm.template"),
        ({"consolidation": True}, {}, "vm.consolidation"),
        ({"question": "msg.hbacommon.outofspace"}, {}, "vm.question"),
        ({"memory_mb": 1 << 20}, {}, "memory"),
        ({"memory_reserved_mb": 60000}, {}, "memory"),
        ({"nics": (nic("DMZ", "network-2"),)}, {}, "network"),
        ({}, {"network_map": {"LAN": "DMZ"}}, "network"),
        ({"power": "suspended"}, {"method": "hot"}, "vm.power"),
        ({"linked": ("Hard disk 1",)}, {"datastore": "local2"}, "vm.linked_clone"),
        ({"snapshots": 1}, {"format": "thick", "datastore": "local2"}, "vm.snapshots"),
        ({"fault_tolerance": True}, {"datastore": "local2"}, "vm.fault_tolerance"),
    ],
)
def test_each_hindrance_fails_its_own_check(change: dict[str, Any], options: dict[str, Any], check: str) -> None:
    there = site(host(1), host(2, datastores=frozenset({"ds-1", "ds-3"})))
    found = plan(subject(**change), there, Wish(**{"method": "hot", "host": "esx2", **options}))
    assert failed(found) == {check}


def test_makers_of_cpus_and_evc_modes_count_for_what_runs() -> None:
    amd = host(2, cpu_model="AMD EPYC 7763")
    assert failed(plan(subject(), site(host(1), amd), Wish(method="hot", host="esx2"))) == {"cpu.features"}
    assert failed(plan(subject(power="suspended"), site(host(1), amd), Wish(method="cold", host="esx2"))) == {"cpu.features"}
    assert not failed(plan(subject(power="off"), site(host(1), amd), Wish(method="cold", host="esx2")))
    assert plan(subject(power="off"), site(host(1), amd), Wish(host="esx2")).method == "cold"
    modes = {"intel-haswell": ("intel", 4), "intel-skylake": ("intel", 6)}
    there = site(host(1, evc="intel-skylake"), host(2, evc="intel-haswell"), evc_modes=modes)
    there = replace(there, vms={"vm-1": replace(there.vms["vm-1"], evc="intel-skylake")})
    assert failed(plan(subject(), there, Wish(method="hot", host="esx2"))) == {"cpu.features"}


def test_room_is_counted_with_the_reserve() -> None:
    there = site(host(1), host(2, datastores=frozenset({"ds-1", "ds-3"})))
    tight = replace(there, datastores={**there.datastores, "ds-3": replace(there.datastores["ds-3"], free=6 * GIB)})
    assert failed(plan(subject(), tight, Wish(method="hot", host="esx2", datastore="local2"))) == {"datastore.space"}
    assert plan(subject(), tight, Wish(method="hot", host="esx2", datastore="local2", reserve_percent=3)).fits


def test_what_is_written_depends_on_the_format() -> None:
    to = site().datastores["ds-3"]
    assert load(subject(), Target(host(1), to)) == {"ds-3": 2 * GIB + MIB}
    assert load(subject(), Target(host(1), to, format="thick")) == {"ds-3": 10 * GIB + MIB}
    assert load(subject(), Target(host(1), disks={2000: to})) == {"ds-3": 2 * GIB}


def test_already_there() -> None:
    assert plan(subject(), site(), Wish(method="hot", host="esx1")).method == "none"
    assert plan(subject(), site(), Wish(cluster="C0")).method == "none"
    assert plan(subject(), site(), Wish(method="storage", datastore="shared")).method == "none"
    assert plan(subject(), site(), Wish(host="esx1", datastore="shared", format="thin")).method == "none"


def test_two_hosts_of_a_name_are_told_apart_by_their_cluster() -> None:
    twin = replace(host(3, cluster="domain-c2", cluster_name="C1"), name="esx2", path="/DC0/host/C1/esx2")
    there = site(host(1), replace(host(2), path="/DC0/host/C0/esx2"), twin)
    with pytest.raises(BadInput) as e:
        plan(subject(), there, Wish(host="esx2"))
    assert e.value.code == "ambiguous" and "/DC0/host/C1/esx2" in str(e.value)
    found = plan(subject(), there, Wish(host="esx2", cluster="C1"))
    assert found.target is not None and found.target.host.moref == "host-3"


def test_constraints_name_themselves() -> None:
    apart = forbids_of([{"kind": "NE", "name": "予備系", "vms": [NAME, "db"]}])
    found = plan(subject(), site(), Wish(method="hot", host="esx2"), apart(site()))
    assert failed(found) == {"constraints"} and "予備系" in found.checks[-1].detail
    other = plan(subject(), site(), Wish(method="hot"), apart(site()))
    assert other.target is not None and other.target.host.name == "esx3"
    with pytest.raises(BadInput, match="一緒"):
        forbids_of([{"kind": "NE", "vms": [NAME, "db"]}, {"kind": "EQ", "name": "一緒", "vms": [NAME, "db"]}])(site())


def test_the_last_pair_of_a_together_is_not_torn() -> None:
    there = site()
    there = replace(there, vms={**there.vms, "vm-2": replace(there.vms["vm-2"], host="host-1")})
    torn = plan(subject(), there, Wish(method="hot", host="esx2"), forbids_of([{"kind": "EQ", "vms": [NAME, "db"]}])(there))
    assert failed(torn) == {"constraints"}


def test_all_checks_are_told_also_when_one_fails() -> None:
    found = judge(subject(), site(), Target(host(2, connected=False)), "hot")
    assert {"host.connection", "host.maintenance", "datastore.access", "network", "cpu.features", "constraints"} <= {c.id for c in found}


def test_a_pool_of_the_same_path_is_found_in_another_cluster() -> None:
    pools = {
        "p1": Pool("p1", "Resources", "domain-c1", ()),
        "p2": Pool("p2", "本番", "domain-c1", ("本番",)),
        "p3": Pool("p3", "Resources", "domain-c2", ()),
        "p4": Pool("p4", "本番", "domain-c2", ("本番",)),
    }
    assert choose_pool(pools, "domain-c2", "p2", None, NAME) == "p4"
    assert choose_pool(pools, "domain-c2", "p1", None, NAME) == "p3"
    assert choose_pool(pools, "domain-c1", "p2", None, NAME) == "p2"
    assert choose_pool(pools, "domain-c1", "p1", "本番", NAME) == "p2"
    with pytest.raises(BadInput, match="There are"):
        choose_pool(pools, "domain-c1", "p1", "無い", NAME)


def test_a_vm_that_has_to_be_shut_down_keeps_its_shared_storage() -> None:
    found = plan(subject(), site(host(1), host(2, cpu_model="AMD EPYC", datastores=frozenset({"ds-1", "ds-3"}))), Wish(host="esx2"))
    assert found.method == "move" and found.bytes == 0 and found.target is not None and found.target.datastore is None


def test_what_the_server_refuses_is_not_taken() -> None:
    there = site(host(1), host(2), host(3))
    first = plan(subject(), there, Wish())
    assert first.target is not None and first.target.host.name == "esx2"
    refused = {way_key(first.method, first.target): (Check("server.relocate", False, "vMotion is not enabled"),)}
    second = plan(subject(), there, Wish(), refused=refused)
    assert second.target is not None and (second.method, second.target.host.name) == ("hot", "esx3")
    assert next(c for c in second.candidates if c["host"] == "esx2")["fits"]  # by shutting it down
    only = plan(subject(), there, Wish(method="hot", host="esx2"), refused=refused)
    assert failed(only) == {"server.relocate"}


def test_a_datastore_that_only_another_host_has_takes_the_vm_there() -> None:
    found = plan(subject(), site(host(1), host(2, datastores=frozenset({"ds-3"}))), Wish(datastore="local2"))
    assert found.method == "hot" and found.target is not None and found.target.host.name == "esx2"


def test_auto_never_takes_failover_and_says_so() -> None:
    dead = plan(subject(connected=False), site(host(1, connected=False), host(2)), Wish(host="esx2"))
    assert not dead.fits and dead.methods[-1]["method"] == "failover" and "never taken by auto" in dead.methods[-1]["reasons"][0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"power": "on", "to": "host-2", "at": 1000}', {"power": "on", "to": "host-2", "at": 1000}),
        ('{"power": "on", "at": -999999}', {}),
        ('{"power": "on"}', {}),
        ("[]", {}),
        ("on", {}),
        ("", {}),
    ],
)
def test_only_a_fresh_note_boots_a_vm(text: str, found: dict[str, Any]) -> None:
    marked = subject(facts={"custom_attributes": {"ferry.move": text}})
    assert mark_of(marked, now=lambda: 2000.0) == found
