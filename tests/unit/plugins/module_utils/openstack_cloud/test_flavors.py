# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.flavors import fit, named


def flavor(name: str, vcpus: int, ram: int, disk: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": f"id-{name}", "name": name, "vcpus": vcpus, "ram": ram, "disk": disk, **more}


SHELF = [flavor("large", 4, 8192), flavor("small", 1, 1024), flavor("medium", 2, 4096), flavor("wide", 4, 4096), flavor("tall", 2, 8192)]


@pytest.mark.parametrize(
    ("cpus", "memory_mb", "name"),
    [(1, 512, "small"), (1, 1024, "small"), (2, 1024, "medium"), (3, 4096, "wide"), (2, 4097, "tall"), (4, 8192, "large")],
)
def test_the_fewest_surplus(cpus: int, memory_mb: int, name: str) -> None:
    assert fit(SHELF, cpus, memory_mb).name == name
    assert fit(list(reversed(SHELF)), cpus, memory_mb).name == name


def test_surplus_is_told() -> None:
    choice = fit(SHELF, 3, 4000)
    assert (choice.surplus_cpus, choice.surplus_memory_mb) == (1, 96)


def test_ties_are_stable() -> None:
    twins = [flavor("b", 1, 1024), flavor("a", 1, 1024)]
    assert fit(twins, 1, 512).name == fit(list(reversed(twins)), 1, 512).name == "a"


def test_unused_local_disk_is_surplus_too() -> None:
    assert fit([flavor("a-disk", 1, 1024, 40), flavor("b-none", 1, 1024)], 1, 512).name == "b-none"


def test_disk_is_asked_for_where_needed() -> None:
    assert fit([flavor("none", 1, 1024), flavor("disk", 1, 1024, 40)], 1, 512, disk_gb=20).name == "disk"


def test_special_hardware_is_never_chosen() -> None:
    gpu = flavor("gpu", 1, 1024, extra_specs={"pci_passthrough:alias": "a100:1"})
    assert fit([gpu, flavor("medium", 2, 4096)], 1, 512).name == "medium"
    with pytest.raises(BadInput, match="gpu"):
        fit([gpu], 1, 512)


def test_disabled_ones_are_left_out() -> None:
    with pytest.raises(BadInput, match="no flavors at all"):
        fit([flavor("off", 8, 65536, **{"OS-FLV-DISABLED:disabled": True})], 1, 512)


def test_none_fits_lists_the_nearest() -> None:
    with pytest.raises(BadInput) as e:
        fit(SHELF, 6, 8192)
    assert e.value.code == "no_flavor"
    assert "Nearest: large" in str(e.value)


def test_named_by_name_or_id() -> None:
    assert named(SHELF, "large", 1, 512).surplus_cpus == 3
    assert named(SHELF, "id-small").name == "small"
    with pytest.raises(BadInput, match="no flavor named 'x'|no flavor named x"):
        named(SHELF, "x")
    with pytest.raises(BadInput, match="several"):
        named([*SHELF, flavor("small", 1, 1)], "small")
