# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records, constraints and plans against what may be in a vCenter and was not meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.binding import Model, misfits
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.candidates import candidates
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.failover import target_again
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.failover_again import has_left, same_vm, with_unfinished
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.failover_host import assign
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.keep import Record, Store
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move_plan import Wish
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move_rules import forbids_of
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.properties import Row
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.site_model import Cluster, DrsRule
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.tree import escaped, shown

from . import placement_sites
from .test_failover import DEAD, data, site, subject


def record(step: str = "kept", **more: Any) -> Record:
    return Record(Path("x.json"), {**data(**more), "step": step})


@pytest.mark.parametrize(
    ("step", "moref", "host_is_there", "left"),
    [
        ("kept", "vm-7", True, False),  # it never left, wherever it is by now
        ("unregistering", "vm-7", True, False),
        ("kept", "vm-99", True, True),  # registered anew by somebody
        ("unregistering", "vm-99", True, True),
        ("kept", None, True, False),  # deleted by its owner
        ("kept", None, False, True),  # it went with its host
        ("unregistering", None, True, True),
        ("registering", None, True, True),
    ],
)
def test_what_has_left_is_told_by_its_reference(step: str, moref: str | None, host_is_there: bool, left: bool) -> None:
    assert has_left(record(step), moref, [DEAD] if host_is_there else []) is left


def rows(*vms: tuple[str, str, str]) -> list[Row]:
    """Two datacenters, and VMs (MoRef, datacenter, BIOS UUID), all with the configuration file of the record."""

    def ref(moref: str) -> Any:
        return SimpleNamespace(_moId=moref)

    found = [Row("Folder", "group-d1", {"name": "Datacenters"})]
    found += [Row("Datacenter", f"datacenter-{n}", {"name": n, "parent": ref("group-d1")}) for n in ("DC0", "DC1")]
    path = data()["vmx_path"]
    for moref, datacenter, uuid in vms:
        props = {"name": moref, "parent": ref(f"datacenter-{datacenter}"), "config.files.vmPathName": path, "config.uuid": uuid}
        found.append(Row("VirtualMachine", moref, props))
    return found


def test_a_file_of_the_same_path_in_another_datacenter_is_another_vm() -> None:
    vm = {**data()["vm"], "bios_uuid": "B"}
    assert same_vm(rows(("vm-1", "DC1", "B")), data(vm=vm)) is None
    assert same_vm(rows(("vm-1", "DC0", "other")), data(vm=vm)) is None
    assert same_vm(rows(("vm-1", "DC1", "B"), ("vm-2", "DC0", "B")), data(vm=vm)) == "vm-2"


def test_constraints_and_rules_count_for_what_is_registered_nowhere() -> None:
    drs = {"groups": [], "rules": [{"name": "別々", "kind": "ClusterAntiAffinityRuleSpec", "enabled": True, "others": ["uuid-1"]}]}
    seen = site()
    seen = replace(seen, vms={**seen.vms, "vm-1": replace(seen.vms["vm-1"], host="host-3")})
    whole = with_unfinished(seen, [record("unregistered", drs=drs, attributes={"ferry.group": "店"})])
    forbids = forbids_of([{"kind": "avoid", "group": "店", "hosts": ["esx9"]}])
    with pytest.raises(BadInput, match="esx9"):
        forbids(whole)
    assert target_again(whole, data(), forbids_of([])(whole)) == whole.hosts["host-2"]
    pinned = forbids_of([{"kind": "avoid", "group": "店", "hosts": ["esx2"]}])(whole)
    assert target_again(whole, data(), pinned) is None


def test_hosts_are_chosen_again_where_the_first_choice_leaves_nothing_to_the_next() -> None:
    """The larger one would go to esx2, which does not have the datastore of the other, and they are to be together."""
    seen = site()
    hosts = {**seen.hosts, "host-3": replace(seen.hosts["host-3"], datastores=frozenset({"ds-1", "ds-2"}))}
    stores = {**seen.datastores, "ds-2": replace(seen.datastores["ds-1"], moref="ds-2", name="second", hosts=frozenset({"host-3"}))}
    seen = replace(seen, hosts=hosts, datastores=stores)
    together = forbids_of([{"kind": "together", "vms": ["仮想 1", "仮想 2"]}])
    found = assign([subject(1, memory_mb=8192), subject(2, vmx_datastore="ds-2")], seen, DEAD, Wish(), together)
    assert [(t.name, t.state, t.to.name if t.to else None) for t in found] == [("仮想 1", "planned", "esx3"), ("仮想 2", "planned", "esx3")]


def test_contradictions_between_rules_of_clusters_hinder_no_other_vm() -> None:
    rules = (
        DrsRule("a", "together", frozenset({"vm-3", "vm-4"})),
        DrsRule("b", "apart", frozenset({"vm-3", "vm-4"})),
    )
    seen = site(clusters={"domain-c1": Cluster("C0", rules=rules)})
    forbids = forbids_of([{"kind": "avoid", "vms": ["仮想 1"], "hosts": ["esx2"]}])(seen)
    assert forbids("vm-1", "host-2") and not forbids("vm-1", "host-3")
    with pytest.raises(BadInput) as e:
        forbids_of([{"kind": "apart", "vms": ["仮想 1", "仮想 2"]}, {"kind": "EQ", "vms": ["仮想 1", "仮想 2"]}])(seen)
    assert e.value.code == "contradiction"


def test_a_running_vm_is_not_planned_onto_a_host_without_vmotion() -> None:
    seen = placement_sites.site({"h1": 8192, "h2": 8192, "h3": 8192}, {"v": ("h1", 1024)}, h2={"vmotion": False})
    found = {c.host: c for c in candidates(seen, "v")}
    assert found["h3"].fits and found["h2"].reasons == ("vMotion is not enabled on h2",)
    off = replace(seen, vms={"v": replace(seen.vms["v"], power="off")})
    assert {c.host for c in candidates(off, "v") if c.fits} == {"h2", "h3"}


def test_brackets_in_names_are_brackets() -> None:
    seen = placement_sites.site({"esx[1]": 8192}, {})
    assert misfits(seen, seen.hosts["esx[1]"], Model(name="esx[1]")) == []
    assert misfits(seen, seen.hosts["esx[1]"], Model(name="esx[*")) == []
    assert misfits(seen, seen.hosts["esx[1]"], Model(name="esx[12]"))


@pytest.mark.parametrize("name", ["a/b", "100%", "\\\\server", "%2f", "在庫 01", ""])
def test_names_are_escaped_as_they_are_shown(name: str) -> None:
    assert shown(escaped(name)) == name


def test_records_that_cannot_be_written_are_typed_errors(tmp_path: Path) -> None:
    store = Store(tmp_path, "vcenter-1")
    found = store.new("5021-UUID", data())
    found.path.with_suffix(".lock").mkdir()
    with pytest.raises(FerryError) as e, store.lock("5021-UUID"):
        pass
    assert e.value.code == "state"
    found.path.unlink()
    with pytest.raises(FerryError) as e:
        store.finish(found)
    assert e.value.code == "state"
