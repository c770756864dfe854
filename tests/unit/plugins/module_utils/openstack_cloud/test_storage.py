# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which volume type a disk goes to."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import storage

TYPES = [
    {"id": "t0", "name": "__DEFAULT__", "extra_specs": {}},
    {"id": "t1", "name": "fast", "extra_specs": {"volume_backend_name": "ssd"}},
    {"id": "t2", "name": "cluster", "extra_specs": {"multiattach": "<is> True"}},
    {"id": "t3", "name": "secure", "extra_specs": {}},
]
DISK: dict[str, Any] = {
    "label": "Hard disk 2",
    "key": 2001,
    "address": "scsi0:1",
    "uuid": "6000C29b-0000-1111-2222-333344445555",
    "datastore": "san 01",
    "datastore_moref": "datastore-7",
    "sharing": "sharingNone",
}


def of(storage_map: dict[Any, Any], **facts: Any) -> tuple[storage.Storage, list[str]]:
    errors: list[str] = []
    return storage.of_disk({**DISK, **facts}, storage_map, TYPES, errors), errors


@pytest.mark.parametrize("key", ["Hard disk 2", 2001, "2001", "scsi0:1", DISK["uuid"], "san 01", "datastore-7", "*"])
def test_a_disk_is_named_in_any_of_its_ways(key: Any) -> None:
    assert of({key: "fast", "other": "secure"}) == (storage.Storage("fast"), [])


def test_the_disks_entry_comes_before_its_datastores_and_that_before_all() -> None:
    everything = {"*": "__DEFAULT__", "san 01": "fast", "Hard disk 2": "secure"}
    assert of(everything)[0].type == "secure"
    assert of(everything, label="Hard disk 1")[0].type == "fast"
    assert of(everything, label="Hard disk 1", datastore="nfs")[0].type == "__DEFAULT__"


def test_a_type_by_id_and_none_at_all() -> None:
    assert of({"*": "t3"})[0].type == "secure"
    assert of({"*": None}) == (storage.Storage(), [])
    assert of({}) == (storage.Storage(), [])


def test_what_is_missing_is_told() -> None:
    assert "not mapped" in of({"nfs": "fast"})[1][0]
    assert "there is no volume type 'gold'" in of({"*": "gold"})[1][0]
    assert "unknown keys: tier" in of({"*": {"type": "fast", "tier": 1}})[1][0]


def test_an_encrypted_type_is_to_be_verified_on_the_volume() -> None:
    found, errors = of({"*": {"type": "secure", "encrypted": True}})
    assert (found.type, found.expect, errors) == ("secure", {"encrypted": True}, [])
    assert storage.unmet({"encrypted": True}, found.expect) == []
    assert storage.unmet({"encrypted": False, "volume_type": "secure"}, found.expect) == ["it is not encrypted, as its type secure has it"]
    assert storage.unmet({"encrypted": True, "volume_type": "secure"}, {"encrypted": False}) == [
        "it is encrypted, as its type secure has it"
    ]


def test_an_encrypted_source_is_worth_a_warning_unless_it_is_asked_for() -> None:
    disk = {**DISK, "encrypted": True}
    assert len(storage.concerns(disk, storage.Storage("fast"))) == 1
    assert storage.concerns(disk, storage.Storage("secure", {"encrypted": True})) == []


@pytest.mark.parametrize(
    "facts", [{"sharing": "sharingMultiWriter"}, {"bus_sharing": "physicalSharing"}, {"bus_sharing": "virtualSharing"}]
)
def test_a_shared_disk_wants_a_type_that_several_servers_may_have(facts: dict[str, str]) -> None:
    found, errors = of({"*": "cluster"}, **facts)
    assert (found.expect, errors) == ({"multiattach": True}, [])
    for wrong in ({"*": "fast"}, {"*": None}, {}):
        _found, errors = of(wrong, **facts)
        assert len(errors) == 1 and "shared with other machines" in errors[0] and "those that do: cluster" in errors[0]
    # A copy of its own, said so.
    assert of({"*": {"type": "fast", "shared": False}}, **facts) == (storage.Storage("fast"), [])


def test_a_disk_of_one_machine_may_be_made_shareable() -> None:
    assert of({"*": {"type": "cluster", "shared": True}})[0].expect == {"multiattach": True}
    assert of({"*": {"type": "fast", "shared": True}})[1] != []
