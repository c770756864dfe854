# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the plan foresees of servers, quotas and policies, against what the lab's real OpenStack then says."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, formats, landing, ports

from .import_site import MIB, raw_disk, stream

UUID = "50210a1b-8800-4c6e-9f01-7a1e5b1c00{0:02x}"


@pytest.fixture(scope="module")
def conn() -> Iterator[Any]:
    connection = client.connect({"cloud": "lab"})
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def admin() -> Iterator[Any]:
    connection = client.connect({"cloud": "lab-admin"})
    yield connection
    connection.close()


def facts(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "name": f"server-{number}",
        "moref": f"vm-{number}",
        "instance_uuid": UUID.format(number),
        "cpus": 2,
        "cores_per_socket": 2,
        "memory_mb": 512,
        "disks": [{"key": 2000, "label": "Hard disk 1", "capacity": MIB, "controller": "pvscsi", "datastore": "ds"}],
        "nics": [{"key": 4000, "label": "Network adapter 1", "mac": "00:50:56:88:00:01", "network": "net", "type": "vmxnet3"}],
        **more,
    }


def plan(*vms: dict[str, Any], **options: Any) -> dict[str, Any]:
    return landing.plan_wave({"cloud": "lab", "vms": list(vms) or [facts()], "network_map": {"net": "net-web"}, "fail": False, **options})


def texts(result: dict[str, Any]) -> str:
    return "\n".join(e["text"] for e in result["errors"])


@pytest.fixture(scope="module")
def shared(admin: Any) -> Iterator[str]:
    """A network of the administrator that everybody may use: what a provider network is."""
    name = f"provider-{uuid.uuid4().hex[:6]}"
    made = client.call(
        admin, "network", "POST", "/networks", step="make a network", body={"network": {"name": name, "shared": True}}
    ).json()
    subnet = {"network_id": made["network"]["id"], "ip_version": 4, "cidr": "10.77.0.0/24"}
    client.call(admin, "network", "POST", "/subnets", step="make a subnet", body={"subnet": subnet})
    yield str(made["network"]["id"])
    for port in client.listing(admin, "network", "/ports", "ports", step="clean up", params={"network_id": made["network"]["id"]}):
        client.call(admin, "network", "DELETE", f"/ports/{port['id']}", step="clean up", allow=(404,))
    client.call(admin, "network", "DELETE", f"/networks/{made['network']['id']}", step="clean up", allow=(404, 409))


def make_port(conn: Any, **port: Any) -> str:
    return str(client.call(conn, "network", "POST", "/ports", step="make a port", body={"port": port}).json()["port"]["id"])


def test_what_the_plan_says_of_the_rights_is_what_neutron_does(conn: Any, admin: Any, shared: str) -> None:
    said = texts(plan(network_map={"net": shared}))
    assert "its MAC cannot be kept" in said and "belongs to another project" in said
    with pytest.raises(ServerError) as refused:
        make_port(conn, network_id=shared, mac_address="00:50:56:88:00:01")
    assert refused.value.code == "forbidden"
    said = texts(plan(network_map={"net": shared}, keep_mac=False, nics={"0": {"fixed_ips": ["10.77.0.9"]}}))
    assert "its address cannot be kept" in said
    with pytest.raises(ServerError) as refused:
        make_port(conn, network_id=shared, fixed_ips=[{"ip_address": "10.77.0.9"}])
    assert refused.value.code == "forbidden"
    assert texts(plan(network_map={"net": shared}, keep_mac=False)) == ""
    make_port(conn, network_id=shared)
    # On its own network the member may, and the administrator may everywhere.
    assert texts(plan(nics={"0": {"fixed_ips": ["10.9.0.99"]}})) == ""
    port = make_port(conn, network_id=plan()["vms"][0]["ports"][0]["network_id"], mac_address="00:50:56:88:00:77", name="mine")
    client.call(conn, "network", "DELETE", f"/ports/{port}", step="clean up")
    assert texts(plan(network_map={"net": shared}, cloud="lab-admin")) == ""


def test_an_address_in_use_and_one_that_is_put_right(conn: Any) -> None:
    network = plan()["vms"][0]["ports"][0]["network_id"]
    port = make_port(conn, network_id=network, fixed_ips=[{"ip_address": "10.9.0.66"}])
    try:
        assert f"10.9.0.66 is in use by the port {port}" in texts(plan(nics={"0": {"fixed_ips": ["10.9.0.66"]}}))
        result = ports.ensure(conn, None, [{"port": port, "fixed_ips": ["10.9.0.67"]}])
        assert result["changed"] and [f["ip_address"] for f in result["ports"][0]["fixed_ips"]] == ["10.9.0.67"]
        assert not ports.ensure(conn, None, [{"port": port, "fixed_ips": ["10.9.0.67"]}])["changed"]
    finally:
        client.call(conn, "network", "DELETE", f"/ports/{port}", step="clean up")


def test_all_quotas_of_the_wave_are_held_against_the_real_ones(conn: Any, admin: Any) -> None:
    project = conn.current_project_id
    sets = {
        "compute": ({"cores": 3, "ram": 1000, "instances": 1, "server_groups": 0, "server_group_members": 1}, -1),
        "block_storage": ({"volumes": 0, "gigabytes": 0, "snapshots": 0, "volumes_fast": 0, "gigabytes_fast": 0, "snapshots_fast": 0}, -1),
    }
    before = {s: client.get(admin, s, f"/os-quota-sets/{project}", step="look")["quota_set"] for s in sets}
    used = plan()["quotas"]
    try:
        for service, (values, _none) in sets.items():
            raised = {k: v + next((q["used"] for q in used if q["what"] == k), 0) for k, v in values.items()}
            client.call(admin, service, "PUT", f"/os-quota-sets/{project}", step="set", body={"quota_set": raised})
        ports_used = next(q["used"] for q in used if q["what"] == "port")
        client.call(admin, "network", "PUT", f"/quotas/{project}", step="set", body={"quota": {"port": ports_used}})
        vms = [facts(1), facts(2, nics=[{"key": 4000, "mac": "00:50:56:88:00:02", "network": "net"}])]
        constraints = [{"kind": "NE", "name": "both", "vms": ["server-1", "server-2"]}]
        result = plan(*vms, storage_map={"ds": "fast"}, rehearsal="snapshot", constraints=constraints)
    finally:
        for service, (values, none) in sets.items():
            restored = {k: before[service].get(k, none) for k in values}
            client.call(admin, service, "PUT", f"/os-quota-sets/{project}", step="restore", body={"quota_set": restored})
        client.call(admin, "network", "DELETE", f"/quotas/{project}", step="restore", allow=(404,))
    said = texts(result)
    wanted = ("cores", "ram", "instances", "server_groups", "volumes", "gigabytes", "snapshots", "port")
    for what in (*wanted, "volumes_fast", "gigabytes_fast", "snapshots_fast"):
        assert f"the quota of {what} is" in said, (what, said)
    assert "would have 2 members, a group may have 1" in said


def test_keys_and_zones_that_are_not_there() -> None:
    said = texts(plan(key_name="nobody's", availability_zone="moon"))
    assert 'no key pair "nobody\'s"' in said and "no availability zone moon" in said and "there are nova" in said


def test_image_formats_are_glances_own(conn: Any, tmp_path: Path) -> None:
    taken = formats.accepted(conn)
    assert {"vmdk", "raw", "qcow2"} <= taken["disk_format"] and "bare" in taken["container_format"]
    good = stream(raw_disk(tmp_path / "good.raw", 2 * MIB, 1), tmp_path / "good.vmdk")
    cut = tmp_path / "cut.vmdk"
    cut.write_bytes(good.read_bytes()[:-70_000])
    disks = [{**facts()["disks"][0], "key": 2000 + i, "file": str(path)} for i, path in enumerate((good, cut, tmp_path / "none.vmdk"))]
    said = texts(plan(facts(disks=disks)))
    assert "good.vmdk" not in said and str(cut) in said and "none.vmdk" in said, said


def test_the_whole_list_is_one_error() -> None:
    with pytest.raises(BadInput) as error:
        plan(facts(1), facts(2, memory_mb=1 << 30), network_map={}, fail=True)
    assert error.value.code == "plan" and len(error.value.details["errors"]) == 3
