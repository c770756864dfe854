# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the plan says of a server: its cards and addresses, processors, order of disks, groups, key; and the quotas of a wave."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.options import Options
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.plan import GIB, plan
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.target import Target

from .test_plan import EMPTY, OPTIONS, UUID, errors, landed, vm

SUBNETS = [
    {"id": "s1", "network_id": "n1", "cidr": "10.9.0.0/24", "gateway_ip": "10.9.0.1"},
    {"id": "s2", "network_id": "n2", "cidr": "10.10.0.0/24", "gateway_ip": "10.10.0.1"},
]
OWNED = replace(
    EMPTY,
    networks=[{**n, "project_id": "p1" if n["id"] == "n1" else "p2"} for n in EMPTY.networks],
    subnets=SUBNETS,
    project="p1",
    roles=frozenset(("member", "reader")),
)


def one(target: Target = EMPTY, options: Options = OPTIONS, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    result = plan([facts or vm()], target, options)
    assert result["errors"] == []
    entry: dict[str, Any] = result["vms"][0]
    return entry


# --- cards


def test_several_cards_on_one_network_keep_their_order() -> None:
    facts = vm(nics=3)
    for nic in facts["nics"]:
        nic["network"] = "VM Network"
    ports = one(facts=facts)["ports"]
    assert [(p["index"], p["network_id"], p["mac"]) for p in ports] == [(i, "n1", f"00:50:56:00:01:0{i}") for i in range(3)]
    assert len({p["name"] for p in ports}) == 3


def test_a_single_card_can_be_said_otherwise_by_index_label_key_and_mac() -> None:
    for name in (1, "1", "NIC 2", 4001, "00:50:56:00:01:01"):
        options = replace(OPTIONS, nics={name: {"network": "web", "mac": None, "fixed_ips": "10.9.0.7", "security_groups": ["web"]}})
        ports = plan([vm(nics=2)], OWNED, options)["vms"][0]["ports"]
        assert (ports[1]["network_id"], ports[1]["mac"], ports[1]["fixed_ips"]) == ("n1", None, [{"ip_address": "10.9.0.7"}]), name
        assert ports[1]["security_groups"] == ["g2"] and ports[0]["security_groups"] is None


def test_a_card_that_is_not_there_and_an_unknown_word_are_errors() -> None:
    assert "does not have: 7" in errors([vm()], options=replace(OPTIONS, nics={7: {"mac": None}}))
    assert "Unknown in nics, 0: speed" in errors([vm()], options=replace(OPTIONS, nics={0: {"speed": 1}}))
    assert "Unknown in network_map" in errors([vm()], options=replace(OPTIONS, network_map={"VM Network": {"net": "web"}}))


def test_a_mac_on_the_network_of_another_project_is_refused_before() -> None:
    said = errors([vm(nics=2)], OWNED)
    assert "NIC 2: its MAC cannot be kept on the network backend" in said and "NIC 1" not in said
    for may in (
        replace(OWNED, roles=frozenset(("admin",))),
        replace(OWNED, roles=None),
        replace(OWNED, networks=[{**n, "project_id": "p1"} for n in OWNED.networks]),
    ):
        assert errors([vm(nics=2)], may) == ""
    assert errors([vm(nics=2)], OWNED, replace(OPTIONS, port_policy="trust")) == ""
    assert errors([vm(nics=2)], OWNED, replace(OPTIONS, keep_mac=False)) == ""


def test_an_address_on_the_network_of_another_project_is_refused_before() -> None:
    options = replace(OPTIONS, keep_mac=False, nics={1: {"fixed_ips": ["10.10.0.7"]}})
    assert "NIC 2: its address cannot be kept" in errors([vm(nics=2)], OWNED, options)


def test_a_port_that_is_there_already_needs_no_right() -> None:
    mine = replace(OWNED, networks=[{**n, "project_id": "p1"} for n in OWNED.networks])
    entry = one(mine, OPTIONS, vm(nics=2))
    target = replace(landed(entry, mine), networks=OWNED.networks)
    assert errors([vm(nics=2)], target) == ""


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.8.0.4", "in no subnet"),
        ("10.9.0.1", "is the gateway"),
        ("10.9.0.255", "first or last"),
        ("ten", "is no IP address"),
        ("10.9.0.50", "in use by the port px (network:dhcp)"),
    ],
)
def test_addresses_that_cannot_be(address: str, words: str) -> None:
    busy = replace(
        OWNED,
        ports=[
            {
                "id": "px",
                "name": "",
                "network_id": "n1",
                "mac_address": "fa:16:3e:00:00:01",
                "device_owner": "network:dhcp",
                "fixed_ips": [{"ip_address": "10.9.0.50"}],
            }
        ],
    )
    assert words in errors([vm()], busy, replace(OPTIONS, nics={0: {"fixed_ips": address}}))


def test_one_address_for_two_cards_of_the_wave() -> None:
    options = replace(OPTIONS, nics={0: {"fixed_ips": ["10.9.0.9"]}})
    assert "the address 10.9.0.9 is there twice" in errors([vm(1), vm(2)], OWNED, options)


@pytest.mark.fault(
    "stopped between the source's shutdown and the making of its ports",
    where="OpenStack",
    ends="the addresses that VMware Tools told before are found again with the volume",
)
def test_kept_addresses_survive_a_source_that_is_off() -> None:
    """VMware Tools tell addresses while the guest runs; the port is made when it is off."""
    options = replace(OPTIONS, network_map={"*": {"network": "web", "keep_ip": True}})
    running = vm()
    running["nics"][0]["addresses"] = ["10.9.0.20", "fe80::1", "169.254.3.4"]
    entry = one(OWNED, options, running)
    assert entry["ports"][0]["fixed_ips"] == [{"ip_address": "10.9.0.20"}]
    volume = entry["volumes"][0]
    assert volume["create_metadata"]["ferry_ip_4000"] == "10.9.0.20"
    made = {"id": "v1", "name": volume["name"], "size": 1, "metadata": volume["create_metadata"], "bootable": "true", "status": "available"}
    off = one(replace(OWNED, volumes=[made]), options, vm())
    assert off["ports"][0]["fixed_ips"] == [{"ip_address": "10.9.0.20"}]
    assert "VMware Tools tell none" in errors([vm()], OWNED, options)


def test_an_address_altered_by_hand_is_named() -> None:
    options = replace(OPTIONS, nics={0: {"fixed_ips": ["10.9.0.9"]}})
    entry = one(OWNED, options)
    target = landed(entry, OWNED)
    target = replace(target, ports=[{**target.ports[0], "fixed_ips": [{"ip_address": "10.9.0.10"}]}])
    again = plan([vm()], target, options)["vms"][0]
    assert again["ports"][0]["changes"] == {"fixed_ips": ["10.9.0.9"]}
    assert [d["field"] for d in again["drift"]] == ["fixed_ips"]


def test_a_multicast_mac_is_no_mac() -> None:
    assert "is no MAC address of a card" in errors([vm()], options=replace(OPTIONS, nics={0: {"mac": "01:00:5e:00:00:01"}}))


# --- processors


def topology(specs: dict[str, str] | None, cpus: int = 4, cores: int = 2, vcpus: int = 4) -> tuple[dict[str, str], list[str]]:
    flavor = {"id": "f9", "name": "nine", "vcpus": vcpus, "ram": 8192, "disk": 0, "extra_specs": specs or {}}
    entry = one(replace(EMPTY, flavors=[flavor]), facts=vm(cpus=cpus, cores_per_socket=cores))
    found = {k: v for k, v in entry["volumes"][0]["image_properties"].items() if k.startswith("hw_cpu")}
    return found, entry["warnings"]


def test_a_server_that_never_ran_says_nothing_of_its_processors() -> None:
    """It is made anew, of the flavor that is chosen now."""
    facts = vm(cpus=2, cores_per_socket=2)
    flavor = {"id": "f9", "name": "nine", "vcpus": 2, "ram": 8192, "disk": 0, "extra_specs": {}}
    target = landed(one(replace(EMPTY, flavors=[flavor]), facts=facts), replace(EMPTY, flavors=[flavor]))
    other = {**target.servers[0], "flavor": {"original_name": "one", "vcpus": 1, "ram": 512, "extra_specs": {}}}
    for status, cores in (("ACTIVE", "1"), ("ERROR", "2")):
        entry = one(replace(target, servers=[{**other, "status": status}]), facts=facts)
        assert entry["volumes"][0]["image_properties"]["hw_cpu_cores"] == cores, status


def test_sockets_and_cores_are_kept_by_the_image_where_the_flavor_is_silent() -> None:
    assert topology(None) == ({"hw_cpu_sockets": "2", "hw_cpu_cores": "2", "hw_cpu_threads": "1"}, [])
    assert topology(None, cores=1) == ({}, [])
    assert topology(None, vcpus=8)[0] == {"hw_cpu_sockets": "2", "hw_cpu_cores": "4", "hw_cpu_threads": "1"}
    found, warnings = topology(None, vcpus=5)
    assert found == {} and "do not divide" in warnings[0]


def test_a_flavor_that_says_it_is_not_contradicted() -> None:
    assert topology({"hw:cpu_sockets": "2"}) == ({}, [])
    found, warnings = topology({"hw:cpu_max_sockets": "1"})
    assert found == {} and "hw:cpu_max_sockets=1" in warnings[0]


def test_of_equal_flavors_the_one_with_the_right_topology_is_taken() -> None:
    flavors = [
        {"id": "a", "name": "a", "vcpus": 4, "ram": 1024, "disk": 0, "extra_specs": {"hw:cpu_sockets": "4"}},
        {"id": "b", "name": "b", "vcpus": 4, "ram": 1024, "disk": 0, "extra_specs": {"hw:cpu_sockets": "2"}},
    ]
    entry = one(replace(EMPTY, flavors=flavors), facts=vm(cpus=4, cores_per_socket=2))
    assert entry["flavor"]["name"] == "b"


# --- disks in their order


def test_the_order_of_the_disks_and_the_names_that_they_get() -> None:
    entry = one(facts=vm(disks=3))
    assert [(v["attach"]["order"], v["attach"]["device"]) for v in entry["volumes"]] == [(0, "/dev/sda"), (1, "/dev/sdb"), (2, "/dev/sdc")]
    entry = one(options=replace(OPTIONS, hardware="virtio"), facts=vm(disks=2))
    assert [v["attach"]["device"] for v in entry["volumes"]] == ["/dev/vda", "/dev/vdb"]


def test_a_vm_that_boots_from_its_second_disk() -> None:
    entry = one(facts=vm(disks=3, boot_disks=[2001]))
    assert [(v["disk"], v["attach"]["order"]) for v in entry["volumes"]] == [("2000", 1), ("2001", 0), ("2002", 2)]
    assert any("boots from its disk number 2" in w for w in entry["warnings"])


def test_the_27th_disk() -> None:
    entry = one(facts=vm(disks=28))
    assert [v["attach"]["device"] for v in entry["volumes"][25:]] == ["/dev/sdz", "/dev/sdaa", "/dev/sdab"]


def test_more_disks_than_ide_has_room_for() -> None:
    facts = vm(disks=4)
    for disk in facts["disks"]:
        disk["controller"] = "VirtualIDEController"
    assert errors([facts]) == ""
    assert "has room for 3 beside the config drive" in errors([facts], options=replace(OPTIONS, config_drive=True))


# --- key, zone, config drive, metadata


def test_a_key_that_this_user_does_not_have() -> None:
    target = replace(EMPTY, keypairs=frozenset(("mine",)))
    assert "no key pair 'yours'" in errors([vm()], target, replace(OPTIONS, key_name="yours"))
    assert one(target, replace(OPTIONS, key_name="mine", config_drive=True))["server"]["key_name"] == "mine"


def test_what_nova_sets_only_once_is_a_warning_later() -> None:
    entry = one()
    target = landed(entry, EMPTY)
    options = replace(OPTIONS, key_name="new", availability_zone="nova", config_drive=True)
    again = one(replace(target, keypairs=frozenset(("new",))), options)
    assert not again["changed"] and "it is left" in again["warnings"][0] and "key (none, planned is new)" in again["warnings"][0]


def test_metadata_that_nova_would_refuse() -> None:
    assert "up to 255 characters" in errors([vm()], options=replace(OPTIONS, metadata={"k": "v" * 256}))
    few = replace(EMPTY, quotas={"server_metadata": (2, 0)})
    assert "3 entries of metadata, the quota is 2" in errors([vm()], few, replace(OPTIONS, metadata={"a": "b"}))


# --- server groups


def grouped(constraints: list[Any], target: Target = EMPTY, count: int = 3) -> dict[str, Any]:
    return plan([vm(i + 1) for i in range(count)], target, replace(OPTIONS, constraints=constraints))


def test_together_and_apart_become_server_groups() -> None:
    result = grouped(
        [{"kind": "EQ", "name": "pair", "vms": ["vm1", "vm-2"]}, {"kind": "apart", "vms": [f"{UUID}3", "other"], "required": False}]
    )
    assert result["errors"] == []
    assert [(g["name"].partition(":")[2].split("-")[0], g["policy"], g["vms"]) for g in result["server_groups"]] == [
        ("pair", "affinity", ["vm1", "vm2"]),
        ("apart", "soft-anti-affinity", ["vm3"]),
    ]
    assert [e["server"]["group"]["policy"] for e in result["vms"]] == ["affinity", "affinity", "soft-anti-affinity"]
    assert "also names what is not in this wave: other" in result["notes"][0]
    needs = {q["what"]: q["needed"] for q in result["quotas"]}
    assert needs["server_groups"] == 2


def test_a_group_of_machines_is_found_by_its_attribute() -> None:
    vms = [vm(1, custom_attributes={"ferry.group": "db"}), vm(2, custom_attributes={"ferry.group": "db"}), vm(3)]
    result = plan(vms, EMPTY, replace(OPTIONS, constraints=[{"kind": "NE", "group": "db"}]))
    assert result["server_groups"][0]["vms"] == ["vm1", "vm2"]


def test_a_group_that_is_there_is_used_in_the_next_wave() -> None:
    constraint = [{"kind": "NE", "name": "dbs", "vms": ["vm1", "vm2"]}]
    first = grouped(constraint, count=1)["server_groups"][0]
    there = replace(EMPTY, server_groups=[{"id": "sg", "name": first["name"], "policy": "anti-affinity", "members": ["s-vm-1"]}])
    second = plan([vm(2)], there, replace(OPTIONS, constraints=constraint))
    assert second["server_groups"][0]["id"] == "sg" and second["server_groups"][0]["members"] == 2
    assert second["vms"][0]["server"]["group"]["id"] == "sg"


def test_constraints_that_nova_cannot_keep() -> None:
    both = [{"kind": "NE", "name": "a", "vms": ["vm1", "vm2"]}, {"kind": "NE", "name": "b", "vms": ["vm2", "vm3"]}]
    assert "has one server group for a server" in grouped(both)["errors"][0]["text"]
    both[1]["required"] = False
    result = grouped(both)
    assert result["errors"] == [] and any("the latter is left out" in w for w in result["vms"][1]["warnings"])
    wrong = replace(EMPTY, server_groups=[{"id": "sg", "name": "ferry:a", "policies": ["affinity"], "members": []}])
    assert "has the policy affinity, wanted is anti-affinity" in grouped(both[:1], wrong)["errors"][0]["text"]


def test_together_joins() -> None:
    result = grouped([{"kind": "EQ", "name": "a", "vms": ["vm1", "vm2"]}, {"kind": "EQ", "name": "b", "vms": ["vm2", "vm3"]}])
    assert result["errors"] == [] and [g["vms"] for g in result["server_groups"]] == [["vm1", "vm2", "vm3"]]


def test_a_server_that_is_there_cannot_be_put_into_a_group() -> None:
    target = landed(one(), EMPTY)
    result = grouped([{"kind": "EQ", "name": "a", "vms": ["vm1", "vm2"]}], target, count=2)
    assert result["errors"] == [] and any("only when it is made" in w for w in result["vms"][0]["warnings"])


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("no", "is no mapping"),
        ({"kind": "near", "vms": ["vm1"]}, "kind is one of"),
        ({"kind": "EQ"}, "vms or group is missing"),
        ({"kind": "EQ", "vms": ["vm1"], "colour": 1}, "not known: colour"),
        ({"kind": "EQ", "vms": ["vm1"], "required": "yes"}, "required is true or false"),
    ],
)
def test_constraints_that_cannot_be_read(constraint: Any, words: str) -> None:
    assert words in grouped([constraint])["errors"][0]["text"]


def test_a_name_of_two_vms_and_a_pin() -> None:
    twins = [vm(1), vm(2, name="vm1")]
    options = replace(OPTIONS, constraints=[{"kind": "EQ", "vms": ["vm1"]}], server_name="{uuid}", volume_name="{uuid}-{index}")
    assert any("several VMs of the wave are named vm1" in e["text"] for e in plan(twins, EMPTY, options)["errors"])
    result = grouped([{"kind": "pin", "vms": ["vm1"], "hosts": ["esx1"]}])
    assert result["errors"] == [] and result["server_groups"] == [] and "ESXi hosts" in result["vms"][0]["warnings"][0]


# --- quotas


def test_every_quota_of_the_wave_at_once() -> None:
    quotas = {
        "instances": (1, 0),
        "cores": (1, 0),
        "ram": (1024, 0),
        "volumes": (3, 0),
        "gigabytes": (4, 0),
        "volumes_ssd": (3, 0),
        "gigabytes_ssd": (4, 0),
        "port": (1, 0),
        "per_volume_gigabytes": (1, 0),
        "server_groups": (0, 0),
        "server_group_members": (1, 0),
    }
    options = replace(OPTIONS, constraints=[{"kind": "EQ", "vms": ["vm1", "vm2"]}])
    said = errors([vm(1, disks=2), vm(2, disks=2)], replace(EMPTY, quotas=quotas), options)
    for what in ("instances", "cores", "ram", "volumes", "gigabytes", "volumes_ssd", "gigabytes_ssd", "port", "server_groups"):
        assert f"the quota of {what} is" in said, what
    assert "a volume may have 1" in said and "would have 2 members, a group may have 1" in said


def test_a_rehearsal_needs_more_snapshots_too() -> None:
    needs = {q["what"]: q["needed"] for q in plan([vm(disks=2)], EMPTY, replace(OPTIONS, rehearsal="snapshot"))["quotas"]}
    assert (needs["snapshots"], needs["snapshots_ssd"], needs["volumes"], needs["gigabytes"], needs["instances"]) == (2, 2, 4, 9, 2)
    quotas = {"snapshots": (1, 0)}
    assert "the quota of snapshots is 1" in errors([vm(disks=2)], replace(EMPTY, quotas=quotas), replace(OPTIONS, rehearsal="snapshot"))


def test_the_default_type_has_a_quota_too() -> None:
    target = replace(EMPTY, default_type="__DEFAULT__", quotas={"gigabytes___DEFAULT__": (0, 0)})
    assert "gigabytes___DEFAULT__" in errors([vm()], target, replace(OPTIONS, storage_map={}))


def test_only_the_growth_of_a_volume_counts() -> None:
    target = landed(one(), EMPTY)
    grown = vm()
    grown["disks"][0]["capacity"] = 3 * GIB
    needs = {q["what"]: q["needed"] for q in plan([grown], target, OPTIONS)["quotas"]}
    assert needs["gigabytes"] == 2 and "volumes" not in needs


# --- image formats


def test_formats_that_this_glance_does_not_take_are_told_for_all_disks() -> None:
    facts = vm(disks=3)
    facts["disks"][0] |= {"file": "/x/a.vmdk", "image": {"disk_format": "vmdk", "converted_to": None}}
    facts["disks"][1] |= {"file": "/x/b.vmdk", "image": {"error": "damaged"}}
    facts["disks"][2] |= {"file": "/x/c.raw", "image": {"disk_format": "raw", "converted_to": None}}
    target = replace(EMPTY, image_formats={"disk_format": frozenset(("raw", "qcow2")), "container_format": frozenset(("bare",))})
    said = errors([facts], target)
    assert "/x/a.vmdk would be sent with the disk_format vmdk" in said and "/x/b.vmdk: damaged" in said and "/x/c.raw" not in said
