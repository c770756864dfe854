# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules, groups and tags that others have made in vCenter: kept to in an evacuation, put back after a failover, asked for by a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, FerryError, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import binding, client
from ansible_collections.ferry.vmware.plugins.modules import host_evacuate, host_failover
from tests.lab.vcenter import VCenter
from tests.lab_tests.moves_lab import MOVES, govc, host, relocate, store
from tests.lab_tests.vcenter_lab import Client, running

OPTIONS: dict[str, Any] = {
    "constraints": [],
    "reserve_percent": 0.0,
    "memory_overcommit": 1.0,
    "copy_files": True,
    "per_host": 4,
    "per_datastore": 2,
    "timeout": 60,
    "state": "drained",
    "maintenance": True,
    "partial": True,
    "powered_off": True,
}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[VCenter]:
    with running(tmp_path / "lab", MOVES) as vcenter:
        yield vcenter


@pytest.fixture
def plain(lab: VCenter) -> Iterator[Client]:
    one = Client(lab)
    yield one
    one.close()


def connection(lab: VCenter) -> dict[str, Any]:
    env = lab.env()
    return {
        "hostname": env["VMWARE_HOST"],
        "port": lab.port,
        "username": env["VMWARE_USER"],
        "password": env["VMWARE_PASSWORD"],
        "ca_path": env["VMWARE_CA_PATH"],
        "validate_certs": True,
    }


def evacuate(lab: VCenter, *hosts: str, check: bool = False, **more: Any) -> dict[str, Any]:
    return host_evacuate.work(edge.Call({**connection(lab), **OPTIONS, "hosts": list(hosts), **more}, check=check, diff=True))


def places(plain: Client) -> dict[str, str]:
    return {name: vm.runtime.host.name for name, vm in plain.all(vim.VirtualMachine).items()}


def memberships(plain: Client) -> dict[str, set[str]]:
    """VMs by the group or rule of the cluster C0."""
    config = plain.all(vim.ClusterComputeResource)["C0"].configurationEx
    named = [x for x in [*config.group, *config.rule] if hasattr(x, "vm")]
    return {x.name: {v.name for v in x.vm} for x in named}


def test_an_evacuation_keeps_to_the_rules_of_the_cluster(lab: VCenter, plain: Client) -> None:
    """app01 with cache01, web02 not to web01 on esx1; esx3 lacks the network of none of them, and holds them all."""
    plan = evacuate(lab, "esx2", check=True)
    to = {m["vm"]: m["to"] for m in plan["moves"]}
    assert to["app01"] == to["cache01"] and to["web02"] != "esx1"
    waves = {m["vm"]: m["wave"] for m in plan["moves"]}
    assert waves["app01"] == waves["cache01"]
    evacuate(lab, "esx2")
    now = places(plain)
    assert now["app01"] == now["cache01"] and now["web02"] != now["web01"] and "esx2" not in {now[v] for v in to}
    assert memberships(plain)["web apart"] == {"web01", "web02"}


def test_a_must_rule_leaves_one_host_and_none_where_that_is_drained_too(lab: VCenter, plain: Client) -> None:
    plan = evacuate(lab, "esx1", check=True)
    assert {m["vm"]: m["to"] for m in plan["moves"]}["db01"] == "esx2"
    both = evacuate(lab, "esx1", "esx2", check=True)
    stuck = {s["vm"]: " ".join(s["reasons"]) for s in both["stuck"]}
    assert "licence" in stuck["db01"] and "passthrough" in stuck["gpu01"]
    with pytest.raises(BadInput) as e:
        evacuate(lab, "esx1", "esx2", partial=False)
    assert e.value.code == "stuck" and places(plain)["db01"] == "esx1"


@pytest.mark.parametrize("lone", ["", "remove"])
@pytest.mark.fault("a host dies whose VMs have tags and are in DRS groups and rules", "vCenter", "all of it is put back")
def test_a_failover_puts_tags_groups_and_rules_back(lab: VCenter, plain: Client, tmp_path: Path, lone: str) -> None:
    govc(lab, tmp_path, "tags.category.create", "店舗")
    govc(lab, tmp_path, "tags.create", "-c", "店舗", "東京 本店")
    govc(lab, tmp_path, "tags.attach", "東京 本店", "/DC0/vm/production/databases/db01")
    relocate(plain, plain.vm("web02"), host=host(plain, "esx3"))  # web01 can go to esx2 alone, for its network
    before = memberships(plain)
    lab.switch("lone_rules", lone)
    lab.post("/host/die", host="esx1", vms="die")
    options = {"host": "esx1", "phase": "run", "fenced": True, "cluster": None, "network_map": {}, "constraints": [], "at_once": 4}
    params = {**connection(lab), **options, "state_dir": str(tmp_path / "kept")}
    with pytest.raises(ServerError) as e:  # those with a local disk or a piece of esx1 stay
        host_failover.work(edge.Call(params))
    rows = {r["name"]: r for r in e.value.partial["vms"]}
    assert {n for n, r in rows.items() if r["state"] == "done"} >= {"web01", "db01"}
    assert {"tags", "groups and rules"} <= set(rows["db01"]["put_back"]) and "groups and rules" in rows["web01"]["put_back"]
    assert memberships(plain) == before
    now = places(plain)
    assert now["db01"] == "esx2" == now["web01"]
    assert govc(lab, tmp_path, "tags.attached.ls", "-r", "/DC0/vm/production/databases/db01").split("\n")[0] == "東京 本店"


def test_a_model_asks_for_tags(lab: VCenter, plain: Client, tmp_path: Path) -> None:
    govc(lab, tmp_path, "tags.category.create", "rack")
    govc(lab, tmp_path, "tags.create", "-c", "rack", "ラック 7")
    govc(lab, tmp_path, "tags.attach", "ラック 7", "/DC0/host/C0/esx2")
    model = binding.Model(tags=("ラック 7",))
    with client.connect(connection(lab)) as session:
        found = binding.register(session, binding.Request("host", "esx", "esx-a", model))
        assert found["machine"]["name"] == "esx2"
        with pytest.raises(FerryError, match="tag ラック 7 is missing"):
            binding.register(session, binding.Request("host", "esx", "esx-b", model))
    assert [v.value for v in host(plain, "esx2").customValue if v.value == "esx-a"] == ["esx-a"]
    assert store(plain, "shared1").summary.accessible
