# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.candidates import Candidate, best, candidates
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.capacity import Policy
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.constraints import Rules
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.site_model import Site

from .placement_sites import GIB, rule, site

FULL = Policy(reserve_percent=0)


def two(**more: dict[str, Any]) -> Site:
    return site({"h1": 100, "h2": 100}, {"a": ("h1", 10), "b": ("h2", 50)}, **more)


def at(found: Site, host: str = "h2", vm: str = "a", policy: Policy = FULL, rules: tuple[Any, ...] = (), alone: bool = False) -> Candidate:
    """What is said of one host."""
    return next(c for c in candidates(found, vm, Rules(found, rules), policy, alone=alone) if c.host == host)


def test_a_host_that_fits_and_the_one_it_is_on() -> None:
    found = at(two())
    assert (found.fits, found.reasons, found.way.method if found.way else None) == (True, (), "hot")
    assert at(two(), "h1").reasons == ("it is there already",)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"h2": {"connected": False}}, "the host is not connected"),
        ({"h2": {"maintenance": True}}, "the host is in maintenance mode"),
        ({"h2": {"power": "standby"}}, "the host's power is standby"),
        ({"h2": {"networks": frozenset()}}, "network VM Network is not there"),
        ({"h2": {"threads": 2, "cores": 2}, "a": {"cpus": 4}}, "CPU: the VM has 4, the host 2"),
        ({"h2": {"cpu_model": "AMD EPYC 7763"}}, "CPU: Intel(R) Xeon(R) Gold 6148 and AMD EPYC 7763 are of different makers"),
        ({"a": {"passthrough": ("PCI device 0",)}}, "passthrough: PCI device 0"),
        ({"a": {"connected_local_devices": ("CD/DVD drive 1",)}}, "connected to devices of its host: CD/DVD drive 1"),
        ({"a": {"ft": True}}, "fault tolerance is on"),
        ({"a": {"consolidation": True}}, "its disks need consolidation"),
        ({"a": {"memory_mb": 51}}, "memory: 51 MiB wanted, 50 MiB left within the reserve"),
        ({"a": {"memory_reserved": 60}, "b": {"memory_reserved": 50}}, "memory reservations: 60 MiB wanted, 50 MiB left"),
        ({"a": {"cpu_used_mhz": 60_000}, "b": {"cpu_used_mhz": 50_000}}, "CPU: 60000 MHz wanted, 50000 MHz left within the reserve"),
    ],
)
def test_reasons(more: dict[str, dict[str, Any]], reason: str) -> None:
    found = at(two(**more))
    assert not found.fits
    assert reason in found.reasons


def test_a_vm_that_is_off_needs_no_memory_and_no_cpu() -> None:
    found = at(two(a={"power": "off", "memory_mb": 1000}, h2={"cpu_model": "AMD EPYC 7763"}))
    assert found.fits
    assert found.way is not None
    assert found.way.method == "cold"


def test_shutting_down_where_that_is_allowed() -> None:
    found = two(a={"connected_local_devices": ("CD/DVD drive 1",)})
    allowed = at(found, policy=Policy(reserve_percent=0, shutdown=True))
    assert allowed.fits
    assert allowed.way is not None
    assert allowed.way.method == "move"
    assert "CD/DVD drive 1" in " ".join(allowed.notes)


def test_reserve_and_overcommitment() -> None:
    found = two(a={"memory_mb": 45})
    assert not at(found, policy=Policy(reserve_percent=10)).fits
    assert at(found, policy=Policy(reserve_percent=10, overcommit=1.5)).fits


def test_networks_by_a_map() -> None:
    found = replace(two(h2={"networks": frozenset(("other",))}), networks={"net": "VM Network", "other": "本番"})
    assert not at(found).fits
    assert at(found, policy=Policy(reserve_percent=0, network_map={"VM Network": "本番"})).fits
    said = at(found, policy=Policy(network_map={"VM Network": "x"})).reasons
    assert "network VM Network (mapped to x) is not there" in said


def test_evc_modes() -> None:
    modes = {"intel-a": ("intel", 1), "intel-b": ("intel", 2), "amd-a": ("amd", 1)}
    found = replace(two(a={"evc": "intel-b"}, h2={"evc_max": "intel-b", "cpu_model": "Intel(R) Xeon(R) X"}), evc_modes=modes)
    assert at(found).fits
    older = replace(found, hosts={**found.hosts, "h2": replace(found.hosts["h2"], evc_max="intel-a")})
    assert at(older).reasons == ("CPU: the VM needs EVC mode intel-b, the host offers intel-a",)
    amd = replace(found, hosts={**found.hosts, "h2": replace(found.hosts["h2"], evc_max="amd-a")})
    assert not at(amd).fits


def test_another_model_without_evc_is_a_doubt_and_no_reason() -> None:
    found = at(two(h2={"cpu_model": "Intel(R) Xeon(R) Platinum 8380"}))
    assert found.fits
    assert "no EVC mode" in found.notes[0]


def test_files_that_have_to_be_copied() -> None:
    stores = {"local1": ("h1",), "local2": ("h2",)}
    found = site({"h1": 100, "h2": 100}, {"a": ("h1", 10)}, stores=stores, a={"disks_bytes": {"local1": 7 * GIB}})
    way = at(found).way
    assert way is not None
    assert (way.method, way.stores, way.copied) == ("hot", {"local1": "local2"}, 7 * GIB)
    assert at(found, policy=Policy(storage=False)).reasons == ("datastore local1 is not reached from there",)
    small = replace(found, datastores={**found.datastores, "local2": replace(found.datastores["local2"], free=5 * GIB, capacity=10 * GIB)})
    assert "datastore local2: 7168 MiB wanted, 4096 MiB left within the reserve" in at(small, policy=Policy(reserve_percent=10)).reasons
    away = replace(found, datastores={**found.datastores, "local2": replace(found.datastores["local2"], accessible=False)})
    assert "the host has no datastore that takes files" in at(away).reasons
    draining = replace(found, datastores={**found.datastores, "local2": replace(found.datastores["local2"], maintenance="inMaintenance")})
    assert not at(draining).fits


def test_constraints_are_reasons() -> None:
    found = two()
    assert "constraint x: b is there" in at(found, rules=(rule("apart", "a", "b", name="x"),)).reasons
    assert at(found, rules=(rule("pin", "a", hosts=("h1",), name="x"),)).reasons == ("constraint x (pin, inventory)",)
    assert "it is not to be moved" in at(found, rules=(rule("hold", "a"),)).reasons[0]
    three = site({"h1": 100, "h2": 100}, {"a": ("h1", 1), "c": ("h1", 1)})
    together = (rule("together", "a", "c", name="x"),)
    assert "c would be elsewhere" in at(three, rules=together).reasons[0]
    assert at(three, rules=together, alone=True).fits


def test_the_score() -> None:
    hosts = {"h1": 100, "free": 100, "full": 100, "copy": 100, "away": 100, "wish": 100}
    stores = {"shared": ("h1", "free", "full", "away", "wish"), "local": ("copy",)}
    found = site(hosts, {"a": ("h1", 10), "x": ("full", 80), "y": ("wish", 0)}, stores=stores, away={"cluster": "c9", "cluster_name": "C9"})
    ranked = candidates(found, "a", Rules(found, [rule("apart", "a", "y", required=False)]), FULL)
    assert [(c.host, round(c.score)) for c in ranked] == [("free", 90), ("wish", 80), ("away", 70), ("full", 10), ("copy", -10), ("h1", 0)]
    first = best(ranked)
    assert first is not None
    assert first.host == "free"
    assert best([]) is None
    assert ranked[1].as_dict()["notes"] == ["breaks the wish apart a y (apart, inventory)"]


def test_a_vm_with_files_on_two_datastores_goes_where_fewer_bytes_travel() -> None:
    stores = {"shared": ("h1", "h2"), "local1": ("h1",), "local2": ("h2",)}
    both = {"datastores": frozenset(("shared", "local1")), "disks_bytes": {"shared": 40 * GIB, "local1": 5 * GIB}}
    way = at(site({"h1": 100, "h2": 100}, {"a": ("h1", 10)}, stores=stores, a=both)).way
    assert way is not None
    assert (way.stores, way.copied) == ({"local1": "shared"}, 5 * GIB)


def test_an_image_on_a_datastore_that_the_host_does_not_reach() -> None:
    stores = {"shared": ("h1", "h2"), "local1": ("h1",)}
    image = {"datastores": frozenset(("shared", "local1")), "disks_bytes": {"shared": GIB}}
    found = site({"h1": 100, "h2": 100}, {"a": ("h1", 10)}, stores=stores, a=image)
    assert at(found).reasons == ("connected to an image on datastore local1, which is not reached from there",)
    off = replace(found, vms={"a": replace(found.vms["a"], power="off")})
    assert at(off).fits


def test_a_datastore_that_was_asked_for() -> None:
    stores = {"shared": ("h1", "h2"), "gold": ("h2",)}
    found = site({"h1": 100, "h2": 100}, {"a": ("h1", 10)}, stores=stores)
    way = at(found, policy=Policy(reserve_percent=0, datastore="gold")).way
    assert way is not None
    assert way.stores == {"shared": "gold"}
    there = at(found, policy=Policy(reserve_percent=0, datastore="shared")).way
    assert there is not None
    assert there.stores == {}
