# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans that relieve a datastore."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.constraints import Rules
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.relieve import plan
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.site_model import Site

from .placement_sites import GIB, rule, site

SIZES = {"a": 10, "b": 30, "c": 60, "d": 25}


def full(used: int = 900, sizes: dict[str, int] | None = None, **more: Any) -> Site:
    """A datastore of 1,000 GiB with VMs of these sizes (GiB), and two others."""
    vms = sizes or SIZES
    fields: dict[str, Any] = {name: {"disks_bytes": {"full": size * GIB}} for name, size in vms.items()}
    fields["full"] = {"free": (1000 - used) * GIB}
    for name, change in more.items():
        fields[name] = {**fields.get(name, {}), **change}
    stores = {"full": ("h1", "h2"), "x": ("h1", "h2"), "y": ("h1", "h2"), "local": ("h1",)}
    return site({"h1": 1000, "h2": 1000}, dict.fromkeys(vms, ("h1", 1)), stores=stores, **fields)


def moved(found: Site, percent: float, *rules: Any, allowed: frozenset[str] = frozenset()) -> dict[str, str]:
    made = plan(found, found.datastores["full"], percent, Rules(found, rules), allowed)
    return {s.vm.name: s.target.name for s in made.shifts}


@pytest.mark.parametrize(
    ("percent", "wanted"),
    [(90, set()), (95, set()), (89.5, {"a"}), (88, {"d"}), (87, {"b"}), (85, {"c"}), (83, {"a", "c"}), (78, {"a", "b", "c", "d"})],
)
def test_the_fewest_bytes_that_are_enough(percent: float, wanted: set[str]) -> None:
    assert set(moved(full(), percent)) == wanted


def test_no_target_is_filled_above_the_same_percentage() -> None:
    found = full(x={"free": 130 * GIB}, y={"free": 160 * GIB})
    assert moved(found, 85) == {}  # 60 GiB nowhere, and the rest is not enough either: the plan says so
    made = plan(found, found.datastores["full"], 85, Rules(found), frozenset())
    assert not made.enough and {s["vm"] for s in made.stuck} >= {"c"} and "no room on x, y" in made.stuck[0]["reasons"][0]


def test_files_go_where_most_room_is_and_never_to_a_local_one() -> None:
    found = full(x={"free": 300 * GIB}, y={"free": 340 * GIB}, local={"free": 999 * GIB})
    assert moved(found, 83) == {"c": "y", "a": "x"}
    assert moved(found, 89.5, allowed=frozenset({"x"})) == {"a": "x"}


@pytest.mark.parametrize("change", [{"accessible": False}, {"maintenance": "inMaintenance"}, {"hosts": frozenset({"h2"})}])
def test_datastores_that_cannot_take_files(change: dict[str, Any]) -> None:
    assert moved(full(x=change), 89.5) == {"a": "y"}


@pytest.mark.parametrize(
    ("change", "why"), [({"template": True}, "template"), ({"connected": False}, "connected"), ({"consolidation": True}, "consol")]
)
def test_vms_that_stay(change: dict[str, Any], why: str) -> None:
    found = full(a=change)
    made = plan(found, found.datastores["full"], 89.5, Rules(found), frozenset())
    assert [s.vm.name for s in made.shifts] == ["d"] and why in made.stuck[0]["reasons"][0]


def test_a_vm_that_is_held_stays() -> None:
    assert moved(full(), 89.5, rule("hold", "a")) == {"d": "x"}


def test_a_vm_whose_other_disks_lie_elsewhere_counts_with_what_is_here() -> None:
    found = full(c={"disks_bytes": {"full": 5 * GIB, "x": 500 * GIB}})
    assert set(moved(found, 89.6)) == {"c"}
