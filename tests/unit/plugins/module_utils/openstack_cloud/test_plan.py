# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a wave: pure, so a cloud here is a few rows, and a landing is imitated by making the rows that it would make."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.options import Options
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.plan import GIB, plan
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.target import Target

UUID = "5030aaaa-0000-0000-0000-00000000000"
NETWORKS = [{"id": "n1", "name": "web"}, {"id": "n2", "name": "backend"}]
FLAVORS = [
    {"id": "f1", "name": "small", "vcpus": 1, "ram": 1024, "disk": 0},
    {"id": "f2", "name": "large", "vcpus": 4, "ram": 8192, "disk": 0},
]
EMPTY = Target(
    flavors=FLAVORS,
    networks=NETWORKS,
    volume_types=[{"id": "t1", "name": "ssd"}, {"id": "t2", "name": "__DEFAULT__"}],
    security_groups=[{"id": "g1", "name": "default"}, {"id": "g2", "name": "web"}],
    zones=["nova"],
)
OPTIONS = Options(network_map={"VM Network": "web", "db": "n2"}, storage_map={"*": "ssd"})


def vm(number: int = 1, disks: int = 1, nics: int = 1, **facts: Any) -> dict[str, Any]:
    return {
        "name": f"vm{number}",
        "moref": f"vm-{number}",
        "instance_uuid": f"{UUID}{number}",
        "guest_id": "debian12_64Guest",
        "firmware": "bios",
        "cpus": 1,
        "memory_mb": 512,
        "boot_disks": [],
        "disks": [
            {
                "key": 2000 + i,
                "label": f"Hard disk {i + 1}",
                "capacity": GIB + i,
                "controller": "ParaVirtualSCSIController",
                "datastore": "ds1",
            }
            for i in range(disks)
        ],
        "nics": [
            {
                "key": 4000 + i,
                "label": f"NIC {i + 1}",
                "mac": f"00:50:56:00:0{number}:0{i}",
                "network": ["VM Network", "db"][i % 2],
                "type": "vmxnet3",
            }
            for i in range(nics)
        ],
        **facts,
    }


def landed(entry: dict[str, Any], target: Target) -> Target:
    """The target after C(entry) was applied: what Cinder, Neutron and Nova would show."""
    n = entry["moref"]
    volumes = [
        {
            "id": f"v-{n}-{v['disk']}",
            "name": v["name"],
            "status": "in-use",
            "size": v["size_gib"],
            "volume_type": v["type"],
            "bootable": str(v["bootable"]).lower(),
            "metadata": {**v["metadata"], "ferry_state": "complete", "ferry_digest": "d"},
            "volume_image_metadata": dict(v["image_properties"]),
            "attachments": [{"server_id": f"s-{n}"}],
        }
        for v in entry["volumes"]
    ]
    ports = [
        {
            "id": f"p-{n}-{p['nic']}",
            "name": p["name"],
            "network_id": p["network_id"],
            "mac_address": p["mac"],
            "tags": list(p["tags"]),
            "description": p["description"],
            "device_id": f"s-{n}",
            "device_owner": "compute:nova",
            "security_groups": p["security_groups"] or ["g1"],
        }
        for p in entry["ports"]
    ]
    server = {
        "id": f"s-{n}",
        "name": entry["server"]["name"],
        "status": "ACTIVE",
        "metadata": dict(entry["server"]["metadata"]),
        "flavor": {"original_name": entry["flavor"]["name"], "vcpus": entry["flavor"]["cpus"], "ram": entry["flavor"]["memory_mb"]},
        "os-extended-volumes:volumes_attached": [{"id": v["id"], "delete_on_termination": False} for v in volumes],
    }
    return replace(target, volumes=[*target.volumes, *volumes], ports=[*target.ports, *ports], servers=[*target.servers, server])


def land(vms: list[dict[str, Any]], options: Options = OPTIONS) -> Target:
    target = copy.deepcopy(EMPTY)
    for entry in plan(vms, target, options)["vms"]:
        target = landed(entry, target)
    return target


def errors(vms: list[dict[str, Any]], target: Target = EMPTY, options: Options = OPTIONS) -> str:
    return "\n".join(e["text"] for e in plan(vms, target, options)["errors"])


def test_a_new_vm() -> None:
    result = plan([vm(disks=3, nics=2)], EMPTY, OPTIONS)
    assert result["errors"] == []
    entry = result["vms"][0]
    assert [(v["name"], v["size_gib"], v["state"], v["role"], v["bootable"], v["type"]) for v in entry["volumes"]] == [
        ("vm1-disk0", 1, "absent", "root", True, "ssd"),
        ("vm1-disk1", 2, "absent", "data", False, "ssd"),
        ("vm1-disk2", 2, "absent", "data", False, "ssd"),
    ]
    assert entry["volumes"][0]["create_metadata"] == {
        "ferry_source": f"{UUID}1",
        "ferry_disk": "2000",
        "ferry_role": "root",
        "ferry_vm": "vm1",
        "ferry_state": "copying",
    }
    assert [(p["network_id"], p["mac"], p["index"]) for p in entry["ports"]] == [
        ("n1", "00:50:56:00:01:00", 0),
        ("n2", "00:50:56:00:01:01", 1),
    ]
    assert entry["flavor"]["name"] == "small"
    assert entry["to_copy"] == ["2000", "2001", "2002"]
    assert [t["kind"] for t in entry["todo"]] == ["volume"] * 3 + ["port"] * 2 + ["server"]
    assert entry["drift"] == []


def test_a_landed_wave_has_nothing_to_do() -> None:
    wave = [vm(1, 3, 2), vm(2)]
    result = plan(wave, land(wave), OPTIONS)
    assert result["errors"] == []
    for entry in result["vms"]:
        assert (entry["todo"], entry["drift"], entry["changed"], entry["to_copy"]) == ([], [], False, [])
        assert all(x["changes"] == {} for x in [*entry["volumes"], *entry["ports"], entry["server"]])


def test_the_boot_disk_is_the_one_of_the_boot_order() -> None:
    entry = plan([vm(disks=2, boot_disks=[2001])], EMPTY, OPTIONS)["vms"][0]
    assert [v["role"] for v in entry["volumes"]] == ["data", "root"]
    assert entry["volumes"][0]["image_properties"] == {}
    assert entry["volumes"][1]["image_properties"]["hw_disk_bus"] == "sata"


ALTER: list[tuple[str, str, Any, list[str], dict[str, Any]]] = [
    ("volumes", "name", "stolen", ["name"], {"name": "vm1-disk0"}),
    ("volumes", "bootable", "false", ["bootable"], {"bootable": True}),
    ("volumes", "metadata.ferry_vm", "x", ["metadata ferry_vm"], {"metadata": {"ferry_vm": "vm1"}}),
    ("volumes", "metadata.ferry_source", None, ["metadata ferry_source"], {"metadata": {"ferry_source": f"{UUID}1"}}),
    ("volumes", "metadata.ferry_state", None, ["metadata ferry_state"], {"metadata": {"ferry_state": "complete"}}),
    ("volumes", "volume_image_metadata.hw_disk_bus", "ide", ["image property hw_disk_bus"], {"image_properties": {"hw_disk_bus": "sata"}}),
    (
        "volumes",
        "volume_image_metadata.vmware_adaptertype",
        "ide",
        ["image property vmware_adaptertype"],
        {"unset_image_properties": ["vmware_adaptertype"]},
    ),
    ("ports", "name", "x", ["name"], {"name": "vm1-nic0"}),
    ("ports", "mac_address", "fa:16:3e:00:00:01", ["mac_address"], {"mac_address": "00:50:56:00:01:00"}),
    ("ports", "tags", [], ["tags"], {"tags": ["ferry_nic=4000", f"ferry_source={UUID}1"]}),
    ("ports", "device_id", "", ["device_id"], {}),
    ("servers", "name", "x", ["name"], {"name": "vm1"}),
    ("servers", "metadata.ferry_vm", "x", ["metadata ferry_vm"], {"metadata": {"ferry_vm": "vm1"}}),
    ("servers", "metadata.ferry_source", None, ["metadata ferry_source"], {"metadata": {"ferry_source": f"{UUID}1"}}),
    ("servers", "status", "SHUTOFF", ["power"], {"power": "start"}),
]


@pytest.mark.parametrize(("kind", "path", "value", "fields", "changes"), ALTER, ids=[f"{a[0]}-{a[1]}" for a in ALTER])
def test_drift_names_exactly_what_was_altered(kind: str, path: str, value: Any, fields: list[str], changes: dict[str, Any]) -> None:
    wave = [vm(1, 2, 2), vm(2)]
    target = copy.deepcopy(land(wave))
    row: Any = getattr(target, kind)[0]
    *parents, last = path.split(".")
    for parent in parents:
        row = row[parent]
    if value is None:
        del row[last]
    else:
        row[last] = value
    result = plan(wave, target, OPTIONS)
    assert result["errors"] == []
    entry, other = result["vms"]
    assert [d["field"] for d in entry["drift"]] == fields
    assert (entry["todo"], other["drift"]) == ([], [])
    changed: dict[str, Any] = {"volumes": entry["volumes"][0], "ports": entry["ports"][0], "servers": entry["server"]}[kind]["changes"]
    assert changed == changes
    if kind == "ports":
        assert entry["server"]["changes"] == {"ports": True}


def test_a_data_volume_that_was_deleted_is_made_and_attached_again() -> None:
    wave = [vm(1, 2)]
    target = land(wave)
    gone = target.volumes[1]["id"]
    server = {**target.servers[0], "os-extended-volumes:volumes_attached": [{"id": target.volumes[0]["id"]}]}
    entry = plan(wave, replace(target, volumes=[v for v in target.volumes if v["id"] != gone], servers=[server]), OPTIONS)["vms"][0]
    assert entry["to_copy"] == ["2001"]
    assert entry["server"]["changes"] == {"attach_volumes": ["2001"]}


def test_a_port_that_was_deleted_is_made_again() -> None:
    wave = [vm(1, 1, 2)]
    target = land(wave)
    entry = plan(wave, replace(target, ports=target.ports[1:]), OPTIONS)["vms"][0]
    assert [t["what"] for t in entry["todo"]] == ["port vm1-nic0 on web"]
    assert entry["server"]["changes"] == {"ports": True}


def test_a_killed_copy_is_gone_on_with() -> None:
    wave = [vm(1, 2)]
    target = land(wave)
    target.volumes[1]["metadata"]["ferry_state"] = "copying"
    target.volumes[1]["name"] = "half"
    entry = plan(wave, replace(target, servers=[], ports=[]), OPTIONS)["vms"][0]
    assert (entry["to_copy"], entry["volumes"][1]["id"]) == (["2001"], "v-vm-1-2001")
    assert entry["drift"] == []
    assert entry["volumes"][1]["changes"] == {"name": "vm1-disk1"}


def test_a_port_that_is_not_tagged_yet_is_known_by_its_description() -> None:
    wave = [vm()]
    target = land(wave)
    port = {**target.ports[0], "tags": [], "device_id": ""}
    target.volumes[0]["attachments"] = []
    entry = plan(wave, replace(target, ports=[port], servers=[]), OPTIONS)["vms"][0]
    assert entry["errors"] == []
    assert entry["ports"][0]["id"] == port["id"]


def test_a_server_that_never_ran_is_made_anew_and_one_that_did_is_not() -> None:
    wave = [vm()]
    target = land(wave)
    failed = {**target.servers[0], "status": "ERROR", "OS-SRV-USG:launched_at": None, "fault": {"message": "No valid host was found."}}
    entry = plan(wave, replace(target, servers=[failed]), OPTIONS)["vms"][0]
    assert entry["server"]["replace"]
    assert entry["server"]["changes"] == {"create": True}
    assert entry["errors"] == []
    ran = {**failed, "OS-SRV-USG:launched_at": "2026-01-01"}
    assert "No valid host was found" in errors(wave, replace(target, servers=[ran]))


def test_all_errors_of_the_wave_at_once() -> None:
    wave = [vm(1), vm(2, cpus=64), vm(3), {**vm(4), "instance_uuid": None}, vm(5, disks=0), vm(6, options={"nonsense": 1})]
    wave[0]["nics"][0]["network"] = "unmapped"
    wave[2]["disks"][0]["datastore"] = "elsewhere"
    text = errors(wave, EMPTY, replace(OPTIONS, storage_map={"ds1": "gold"}))
    for words in (
        "vm1: NIC 1 is on the network 'unmapped', which is not mapped",
        "vm1: there is no volume type 'gold'",
        "vm2: no flavor has 64 processors",
        "vm3: disk Hard disk 1 lies on the datastore 'elsewhere', which is not mapped",
        "vm4: The VM's facts have no instance uuid",
        "vm5: it has no disks",
        "vm6: Unknown options of one VM: nonsense",
    ):
        assert words in text


def test_networks_that_are_not_there_or_there_twice() -> None:
    twice = replace(EMPTY, networks=[*NETWORKS, {"id": "n3", "name": "web"}])
    assert "several networks are named 'web'" in errors([vm()], twice)
    assert "there is no network 'web'" in errors([vm()], replace(EMPTY, networks=[]))


def test_a_mac_in_use() -> None:
    other = {"id": "p9", "name": "x", "network_id": "n1", "mac_address": "00:50:56:00:01:00", "device_id": "s9"}
    assert "the MAC 00:50:56:00:01:00 is in use on the network web by the port p9" in errors([vm()], replace(EMPTY, ports=[other]))
    assert errors([vm()], replace(EMPTY, ports=[{**other, "network_id": "n2"}])) == ""
    assert errors([vm()], replace(EMPTY, ports=[other]), replace(OPTIONS, keep_mac=False)) == ""
    same = vm(2)
    same["nics"][0]["mac"] = vm(1)["nics"][0]["mac"].upper()
    assert "is there twice in the wave" in errors([vm(1), same])


def test_names_that_are_taken() -> None:
    target = replace(
        EMPTY,
        servers=[{"id": "s9", "name": "vm1", "status": "ACTIVE"}],
        volumes=[{"id": "v9", "name": "vm1-disk0", "metadata": {}}],
        ports=[{"id": "p9", "name": "vm1-nic0", "network_id": "n2", "mac_address": "x"}],
    )
    text = errors([vm()], target)
    for thing in ("a server named 'vm1'", "a volume named 'vm1-disk0'", "a port named 'vm1-nic0'"):
        assert thing in text
    assert "would have the name 'vm1'" in errors([vm(1), vm(2, name="vm1")])
    assert "would have the name 'fixed'" in errors([vm(disks=2)], EMPTY, replace(OPTIONS, volume_name="fixed"))


def test_a_volume_of_ours_on_a_foreign_server() -> None:
    wave = [vm()]
    target = land(wave)
    target.volumes[0]["attachments"] = [{"server_id": "foreign"}]
    assert "is attached to the server foreign, which is not ours" in errors(wave, target)


def test_quotas_of_the_whole_wave() -> None:
    quotas = {
        "volumes": (3, 1),
        "gigabytes": (100, 0),
        "gigabytes_ssd": (3, 0),
        "instances": (2, 0),
        "cores": (1, 0),
        "ram": (-1, 5),
        "port": (1, 0),
    }
    text = errors([vm(1, 2), vm(2, 1)], replace(EMPTY, quotas=quotas))
    assert "the quota of volumes is 3, 1 are used, the wave needs 3 more" in text
    assert "gigabytes_ssd" in text
    assert "cores" in text
    assert "port" in text
    assert "instances" not in text
    assert "quota of gigabytes is" not in text
    wave = [vm(1, 2), vm(2, 1)]
    assert errors(wave, replace(land(wave), quotas={"volumes": (3, 3), "instances": (2, 2)})) == "", "what is there already needs no quota"


def test_options_of_one_vm_win() -> None:
    own = {
        "flavor": "large",
        "server_name": "app",
        "network_map": {"VM Network": "backend"},
        "properties": {"hw_video_model": "vga"},
        "server_state": "stopped",
    }
    entry = plan([vm(options=own)], EMPTY, OPTIONS)["vms"][0]
    assert (entry["errors"], entry["flavor"]["name"], entry["server"]["name"], entry["server"]["should"]) == ([], "large", "app", "SHUTOFF")
    assert entry["ports"][0]["network"] == "backend"
    assert entry["volumes"][0]["image_properties"]["hw_video_model"] == "vga"


def test_properties_that_nova_would_refuse_are_errors_of_the_plan() -> None:
    own = {"properties": {"hw_disk_bus": "nvme"}}
    entry = plan([vm(options=own)], EMPTY, OPTIONS)["vms"][0]
    assert len(entry["errors"]) == 1
    assert "Nova knows no hw_disk_bus 'nvme'" in entry["errors"][0]


def test_maps() -> None:
    entry = plan([vm(nics=2)], EMPTY, replace(OPTIONS, network_map={"VM Network": None, "*": {"network": "n2"}}, storage_map={"*": None}))[
        "vms"
    ][0]
    assert [p["nic"] for p in entry["ports"]] == ["4001"]
    assert entry["volumes"][0]["type"] is None
    assert entry["errors"] == []


def test_security_groups() -> None:
    options = replace(OPTIONS, security_groups=["web"])
    wave = [vm()]
    target = land(wave, options)
    assert plan(wave, target, options)["vms"][0]["drift"] == []
    target.ports[0]["security_groups"] = ["g1"]
    assert plan(wave, target, options)["vms"][0]["ports"][0]["changes"] == {"security_groups": ["g2"]}
    assert "there is no security group 'x'" in errors(wave, EMPTY, replace(OPTIONS, security_groups=["x"]))


def test_unknown_words_in_templates_and_zones() -> None:
    assert "Unknown word {nmae}" in errors([vm()], EMPTY, replace(OPTIONS, server_name="{nmae}"))
    assert "no availability zone moon" in errors([vm()], EMPTY, replace(OPTIONS, availability_zone="moon"))


def test_names_from_outside_stay_what_they_are() -> None:
    entry = plan([vm(name="legacy 01 {uuid} レガシー")], EMPTY, OPTIONS)["vms"][0]
    assert entry["server"]["name"] == "legacy 01 {uuid} レガシー"
    assert entry["volumes"][0]["name"] == "legacy 01 {uuid} レガシー-disk0"
