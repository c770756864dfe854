# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which machine a definition gets, and why not. What is written to vCenter is tested on the lab."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import attributes
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.binding import Model, Request, check_names, decide, misfits
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.site_model import Site

from .placement_sites import site

GIB = 1 << 30


def found(**more: dict[str, Any]) -> Site:
    hosts = {"big": 64_000, "small": 16_000, "middle": 32_000}
    return site(hosts, {"vm1": ("big", 2048), "vm2": ("small", 1024)}, **more)


def request(definition: str = "esx1", **more: Any) -> Request:
    return Request(**{"kind": "host", "group": "ESX", "definition": definition, **more})


def test_the_smallest_that_fits_is_taken() -> None:
    decision = decide(found(), request(model=Model(min_memory_mb=20_000)))
    assert decision.target is not None
    assert decision.target.name == "middle"
    assert [(c["name"], c["fits"]) for c in decision.candidates] == [("middle", True), ("big", True), ("small", False)]
    assert decision.candidates[2]["reasons"] == ["16000 MiB of memory, at least 20000 wanted"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Model(min_cpus=128), "64 CPUs, at least 128 wanted"),
        (Model(vendor="HPE*"), "vendor is Dell Inc., wanted HPE*"),
        (Model(model="*R7?0"), None),
        (Model(version="8.*"), "version is 7.0.3, wanted 8.*"),
        (Model(cluster="c0"), None),
        (Model(cluster="C9"), "cluster is C0, wanted C9"),
        (Model(datastores=("shared", "gold")), "datastore gold is not there"),
        (Model(networks=("VM Network", "dmz")), "network dmz is not there"),
        (Model(name="BIG"), None),
        (Model(attributes={"rack": "7*"}), None),
        (Model(attributes={"rack": "8"}), "attribute rack is 7b, wanted 8"),
    ],
)
def test_a_model_of_a_host(model: Model, reason: str | None) -> None:
    seen = found(big={"vendor": "Dell Inc.", "model": "PowerEdge R760", "version": "7.0.3", "custom": {"rack": "7b"}})
    assert misfits(seen, seen.hosts["big"], model) == ([reason] if reason else [])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Model(guest_id="debian*"), "guest id is rhel9_64Guest, wanted debian*"),
        (Model(guest_id="RHEL9*", min_cpus=1, min_memory_mb=2048), None),
        (Model(disks_gb=(10, 40)), None),
        (Model(disks_gb=(10, 10, 10)), "2 disks, 3 wanted"),
        (Model(disks_gb=(30, 30)), "a disk of 20 GiB, at least 30 wanted"),
        (Model(datastores=("gold",)), "datastore gold is not used by it"),
        (Model(cluster="C0"), None),
    ],
)
def test_a_model_of_a_vm(model: Model, reason: str | None) -> None:
    seen = found(vm1={"guest_id": "rhel9_64Guest", "disks": (20 * GIB, 40 * GIB)})
    assert misfits(seen, seen.vms["vm1"], model) == ([reason] if reason else [])


def test_what_is_away_or_a_template_does_not_fit() -> None:
    seen = found(big={"connected": False}, vm1={"template": True})
    assert misfits(seen, seen.hosts["big"], Model()) == ["not connected"]
    assert misfits(seen, seen.vms["vm1"], Model()) == ["a template"]


def test_taken_machines_say_by_whom() -> None:
    seen = found(small={"custom": {"ferry.definition": "other"}})
    decision = decide(seen, request())
    assert decision.target is not None
    assert decision.target.name == "middle"
    with pytest.raises(BadInput) as e:
        decide(seen, request(machine="small"))
    assert e.value.code == "does_not_fit"
    assert "registered as other" in str(e.value)


def test_what_is_bound_stays() -> None:
    seen = found(big={"custom": {"ferry.definition": "esx1", "ferry.group": "ESX"}})
    decision = decide(seen, request(model=Model(min_cpus=999)))
    assert decision.target is not None
    assert (decision.target.name, decision.release) == ("big", [])
    assert "no longer fits" in decision.warnings[0]


def test_another_machine_releases_the_old_one() -> None:
    decision = decide(found(big={"custom": {"ferry.definition": "esx1"}}), request(machine="small"))
    assert decision.target is not None
    assert decision.target.name == "small"
    assert [m.name for m in decision.release] == ["big"]


def test_release() -> None:
    seen = found(big={"custom": {"ferry.definition": "esx1"}})
    assert [m.name for m in decide(seen, request(present=False)).release] == ["big"]
    assert decide(seen, request(present=False, machine="small")).release == []
    assert decide(seen, request("other", present=False)).release == []


def test_two_machines_for_one_definition_are_said_and_can_be_released() -> None:
    both = {"custom": {"ferry.definition": "esx1"}}
    seen = found(big=both, vm1=both)
    with pytest.raises(BadInput) as e:
        decide(seen, request())
    assert e.value.code == "duplicate"
    assert {m.name for m in decide(seen, request(present=False)).release} == {"big", "vm1"}


def test_a_definition_is_one_name_over_hosts_and_vms() -> None:
    seen = found(vm1={"custom": {"ferry.definition": "esx1"}})
    with pytest.raises(BadInput) as e:
        decide(seen, request())
    assert e.value.code == "duplicate"


def test_no_candidate_lists_the_reasons() -> None:
    with pytest.raises(BadInput) as e:
        decide(found(), request(model=Model(min_cpus=65)))
    assert e.value.code == "no_candidate"
    assert len(e.value.partial["candidates"]) == 3
    assert "big: 64 CPUs, at least 65 wanted" in str(e.value)


@pytest.mark.parametrize("wrong", [{"definition": ""}, {"definition": "a\tb"}, {"group": " x"}, {"definition": "x" * 201}])
def test_names_that_cannot_be(wrong: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        check_names(request(**wrong))
    check_names(request(group="", present=False))


def test_lock_names_are_short_and_their_own() -> None:
    names = {attributes.lock_name(what) for what in ("definition a", "definition b", "machine a", "定義" * 100)}
    assert len(names) == 4
    assert all(len(n) < 40 and n.startswith("ferry.lock.") for n in names)


def test_tags() -> None:
    seen = found()
    carried = {"big": frozenset(("gold", "rack 7")), "small": frozenset(("gold",))}
    assert misfits(seen, seen.hosts["big"], Model(tags=("gold", "rack 7")), carried) == []
    assert misfits(seen, seen.hosts["small"], Model(tags=("gold", "rack 7")), carried) == ["tag rack 7 is missing"]
    decision = decide(seen, request(model=Model(tags=("rack 7",)), tags=carried))
    assert decision.target is not None
    assert decision.target.name == "big"
