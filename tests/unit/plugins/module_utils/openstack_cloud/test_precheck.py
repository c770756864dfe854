# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every concern of the target's side: a cloud that has it, found by its id, and the same cloud without."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.concerns import CATEGORIES, Concern
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, precheck
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.precheck_catalogue import KINDS

from .conftest import PROJECT, FakeCloud
from .precheck_cases import CASES, Change
from .precheck_scene import UUID, Scene
from .test_plan import vm


@pytest.fixture(scope="module")
def cloud() -> Iterator[tuple[FakeCloud, Any]]:
    fake = FakeCloud()
    fake.services["placement"] = "placement"
    fake.roles = ["member"]
    conn = client.connect(fake.params())
    yield fake, conn
    conn.session.session.close()
    conn.close()
    fake.close()


def look(cloud: tuple[FakeCloud, Any], scene: Scene) -> tuple[dict[str, list[Concern]], list[Concern]]:
    scene.on(cloud[0])
    return precheck.concerns(cloud[1], scene.wave, scene.options)


def every(cloud: tuple[FakeCloud, Any], scene: Scene) -> list[Concern]:
    by_vm, of_wave = look(cloud, scene)
    return [*(c for some in by_vm.values() for c in some), *of_wave]


# -- the tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("id_", "change", "about"), CASES, ids=[f"{i}-{id_}" for i, (id_, _change, _about) in enumerate(CASES)])
def test_a_cloud_that_has_it(
    cloud: tuple[FakeCloud, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, id_: str, change: Change, about: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    scene = Scene()
    change(scene)
    found = [c for c in every(cloud, scene) if c.id == id_]
    assert found, [c.id for c in every(cloud, scene)]
    kind = KINDS[id_]
    assert all((c.category, c.label, c.advice) == (kind.category, kind.label, kind.advice) for c in found)
    assert about is None or about in {c.device for c in found} | {c.disk for c in found}


def test_its_twin_that_has_not(cloud: tuple[FakeCloud, Any]) -> None:
    assert look(cloud, Scene()) == ({"vm1": []}, [])


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.vm.update(firmware="efi", secure_boot=True),
        lambda s: s.set(nics={0: {"fixed_ips": ["10.9.0.7"]}}),
        lambda s: s.set(security_groups=["default"], key_name="mine", availability_zone="nova"),
        lambda s: s.set(constraints=[{"kind": "EQ", "vms": ["vm1"]}]),
        lambda s: s.set(port_policy="trust", network_map={"*": "theirs"}),
        lambda s: s.set(rehearsal="snapshot"),
        lambda s: s.own_volume(),
        lambda s: s.port(tags=[f"ferry_source={UUID}", "ferry_nic=4000"], mac_address="00:50:56:00:01:00"),
        lambda s: (s.disk.update(sharing="sharingMultiWriter", uuid="6000c29"), s.set(storage_map={"*": "shared"})),
        lambda s: (s.disk.update(encrypted=True), s.set(storage_map={"*": {"type": "ssd", "encrypted": True}})),
        lambda s: s.port(mac_address="00:50:56:00:01:00", network_id="n2"),
        lambda s: s.wave.append(vm(2)),
    ],
)
def test_what_is_asked_for_and_is_there_is_of_no_concern(cloud: tuple[FakeCloud, Any], change: Change) -> None:
    scene = Scene()
    change(scene)
    assert every(cloud, scene) == []


def test_every_kind_has_a_case() -> None:
    assert set(KINDS) - {id_ for id_, _change, _about in CASES} == {"ferry.target.other"}
    assert all(k.category in CATEGORIES and k.label and k.advice.endswith(".") for k in KINDS.values())


def test_a_finding_that_no_kind_knows_stops_the_vm() -> None:
    assert precheck.concern("something else", stops=True).category == "critical"


def test_all_that_is_wrong_is_told_at_once(cloud: tuple[FakeCloud, Any]) -> None:
    scene = Scene()
    scene.options.update(network_map={}, storage_map={"ds9": "ssd"}, flavor="none", key_name="yours", availability_zone="moon")
    by_vm, _of_wave = look(cloud, scene)
    assert [c.id for c in by_vm["vm1"]] == [
        "VMNetworksNotMapped",
        "VMStorageNotMapped",
        "ferry.flavor.none",
        "ferry.key.unknown",
        "ferry.zone.unknown",
    ]


def test_vms_of_one_name_are_told_apart(cloud: tuple[FakeCloud, Any]) -> None:
    scene = Scene()
    scene.wave = [vm(1), {**vm(2), "name": "vm1", "disks": []}, vm(3)]
    by_vm, _of_wave = look(cloud, scene)
    assert list(by_vm) == ["vm-1", "vm-2", "vm3"] == precheck.keys_of(scene.wave)
    assert "ferry.disk.none" in {c.id for c in by_vm["vm-2"]} and by_vm["vm3"] == []


def test_disks_without_a_size_are_left_to_the_side_that_reads_them(cloud: tuple[FakeCloud, Any]) -> None:
    scene = Scene()
    scene.disk["capacity"] = 0
    assert every(cloud, scene) == []


@pytest.mark.parametrize(("name", "host"), [("web01", "web01"), ("受注", ""), ("A b.c", "a-b-c"), ("x" * 70, "x" * 63), ("-web-", "web")])
def test_host_names(name: str, host: str) -> None:
    assert precheck.host_name(name) == host


def test_a_thousand_vms_take_twelve_calls(cloud: tuple[FakeCloud, Any]) -> None:
    scene = Scene()
    scene.wave = [
        {
            **vm(nics=1),
            "name": f"vm{i}",
            "moref": f"vm-{i}",
            "instance_uuid": f"5030aaaa-0000-0000-0000-{i:012x}",
            "firmware": "efi",
            "nics": [
                {
                    "key": 4000,
                    "label": "NIC 1",
                    "mac": f"00:50:56:00:{i // 256:02x}:{i % 256:02x}",
                    "network": "VM Network",
                    "type": "vmxnet3",
                }
            ],
        }
        for i in range(1000)
    ]
    scene.port(mac_address="00:50:56:00:01:00")
    scene.port(id="p2", name="vm3-nic0", network_id="n2", project_id=PROJECT)
    scene.options["nics"] = {}
    by_vm, of_wave = look(cloud, scene)
    assert len(scene.paths) <= 12, scene.paths
    assert {n for n, some in by_vm.items() if any(c.id == "MacConflicts" for c in some)} == {"vm256"}
    assert {n for n, some in by_vm.items() if any(c.id == "ferry.port.exists" for c in some)} == {"vm3"}
    assert {c.device for c in of_wave} >= {"instances", "cores", "volumes", "gigabytes", "port"}


def test_only_questions_are_asked(cloud: tuple[FakeCloud, Any]) -> None:
    before = len(cloud[0].requests)
    every(cloud, Scene())
    assert {r[0] for r in cloud[0].requests[before:]} == {"GET"}


def test_a_service_that_fails_is_a_concern_of_the_wave(cloud: tuple[FakeCloud, Any]) -> None:
    scene = Scene()
    scene.rows["/network/v2.0/networks"] = None
    by_vm, of_wave = look(cloud, scene)
    assert by_vm == {"vm1": []} and [c.id for c in of_wave] == ["ferry.target.unreadable"] and "Neutron" in of_wave[0].assessment
