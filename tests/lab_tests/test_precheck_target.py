# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target's side of the precheck on the lab's real services: what they really have is found, by id, and in a twin it is not."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, precheck, quota, volumes
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.plan import _name_problem

MAPS = {"network_map": {"*": "net-web"}, "storage_map": {"*": "fast"}}
#: Names that Nova is asked about, good ones among them.
NAMES = [
    *("web01", "受注データベース", "a" * 255, "web 01", "web:01", "<b>x</b>", "é", "a/b\\c", "{name}"),
    *(
        "",
        " web",
        "web ",
        "we\tb",
        "we\nb",
        "we\x7fb",
        "web\u200b01",
        "web\u202e",
        "web\U0001f680",
        "we\u00a0b",
        "\u3000web",
        "web\ufffe",
        "web\ue000",
    ),
]


def vm(number: int = 1, name: str | None = None, **facts: Any) -> dict[str, Any]:
    return {
        "name": name or f"precheck-{number}",
        "moref": f"vm-{number}",
        "instance_uuid": f"5030bbbb-0000-4000-8000-{number:012x}",
        "guest_id": "debian12_64Guest",
        "firmware": "bios",
        "cpus": 1,
        "memory_mb": 512,
        "disks": [
            {"key": 2000, "label": "Hard disk 1", "capacity": 1 << 30, "controller": "ParaVirtualSCSIController", "datastore": "ds1"}
        ],
        "nics": [
            {
                "key": 4000,
                "label": "Network adapter 1",
                "mac": f"00:50:56:3{number >> 16 & 15:x}:{number >> 8 & 255:02x}:{number & 255:02x}",
                "network": "VM Network",
                "type": "vmxnet3",
            }
        ],
        **facts,
    }


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


def made(conn: Any, stack: contextlib.ExitStack, service: str, path: str, kind: str, **body: Any) -> dict[str, Any]:
    """Make something that goes at the end of C(stack)."""
    row: dict[str, Any] = client.call(conn, service, "POST", path, step="make it", body={kind: body}).json()[kind]
    name = row.get("id") or row["name"]
    stack.callback(client.call, conn, service, "DELETE", f"{path}/{name}", step="clean up", allow=(404,))
    return row


def ids(conn: Any, *wave: dict[str, Any], **options: Any) -> set[str]:
    """Ids of all concerns."""
    by_vm, of_wave = precheck.concerns(conn, list(wave) or [vm()], {**MAPS, **options})
    return {c.id for some in [*by_vm.values(), of_wave] for c in some}


def test_the_twin_that_has_nothing(conn: Any) -> None:
    assert ids(conn) == ids(conn, vm(1), vm(2)) == set()


def test_what_is_not_there(conn: Any) -> None:
    options = {"flavor": "gone", "key_name": "gone", "availability_zone": "gone", "security_groups": ["gone"]}
    assert ids(conn, network_map={"*": "gone"}, storage_map={"*": "gone"}, **options) == {
        "ferry.flavor.none",
        "ferry.key.unknown",
        "ferry.network.unknown",
        "ferry.volume_type.unknown",
        "ferry.zone.unknown",
    }
    assert ids(conn, **options) >= {"ferry.security_group.unknown"}
    assert ids(conn, flavor="m1.small", availability_zone="nova", security_groups=["default"]) == set()
    assert ids(conn, network_map={}, storage_map={"other": "fast"}) == {"VMNetworksNotMapped", "VMStorageNotMapped"}


def test_addresses_and_names_that_are_taken(conn: Any) -> None:
    network = next(n for n in client.listing(conn, "network", "/networks", "networks", step="look") if n["name"] == "net-web")
    with contextlib.ExitStack() as stack:
        port = made(
            conn, stack, "network", "/ports", "port", network_id=network["id"], name="precheck-2-nic0", mac_address=vm(1)["nics"][0]["mac"]
        )
        volume = made(conn, stack, "block_storage", "/volumes", "volume", size=1, name="precheck-3-disk0")
        volumes.wait_status(conn, volume["id"], ("available",), timeout=60)
        taken = port["fixed_ips"][0]["ip_address"]
        by_vm, of_wave = precheck.concerns(conn, [vm(1), vm(2), vm(3), vm(4)], {**MAPS, "nics": {}})
        assert {name: [c.id for c in some] for name, some in by_vm.items()} == {
            "precheck-1": ["MacConflicts"],
            "precheck-2": ["ferry.port.exists"],
            "precheck-3": ["ferry.volume.exists"],
            "precheck-4": [],
        }
        assert of_wave == [] and by_vm["precheck-1"][0].device == "Network adapter 1"
        assert ids(conn, vm(4), nics={0: {"fixed_ips": [taken]}}) == {"ferry.address.taken"}
        assert ids(conn, vm(1), nics={0: {"mac": None}}) == set()


def test_a_server_that_is_not_ours(conn: Any) -> None:
    with contextlib.ExitStack() as stack:
        volume = made(conn, stack, "block_storage", "/volumes", "volume", size=1, name=f"other-{uuid.uuid4().hex[:8]}")
        volumes.wait_status(conn, volume["id"], ("available",), timeout=60)
        action = {"os-set_bootable": {"bootable": True}}
        client.call(conn, "block_storage", "POST", f"/volumes/{volume['id']}/action", step="make it bootable", body=action)
        flavor = next(f for f in client.listing(conn, "compute", "/flavors/detail", "flavors", step="look") if f["name"] == "m1.small")
        disk = {"uuid": volume["id"], "source_type": "volume", "destination_type": "volume", "boot_index": 0}
        server = {"name": "precheck-1", "flavorRef": flavor["id"], "block_device_mapping_v2": [disk], "networks": "none"}
        answer = client.call(conn, "compute", "POST", "/servers", step="make a server", body={"server": server}, microversion="2.47")
        server_id = answer.json()["server"]["id"]
        try:
            assert ids(conn, vm(1), vm(2)) == {"VMAlreadyExists"}
        finally:
            _delete_server(conn, server_id)
            volumes.wait_status(conn, volume["id"], ("available",), timeout=60)
        assert ids(conn, vm(1)) == set()


def _delete_server(conn: Any, server_id: str) -> None:
    end = time.monotonic() + 60
    while True:
        row = client.call(conn, "compute", "GET", f"/servers/{server_id}", step="look", allow=(404,))
        if row.status_code == 404:
            return
        if row.json()["server"]["status"] != "BUILD":
            client.call(conn, "compute", "DELETE", f"/servers/{server_id}", step="clean up", allow=(404, 409))
        if time.monotonic() > end:
            raise RuntimeError(f"server {server_id} is still there")
        time.sleep(0.3)


def test_a_network_of_another_project(conn: Any, admin: Any) -> None:
    with contextlib.ExitStack() as stack:
        name = f"precheck-{uuid.uuid4().hex[:8]}"
        made(admin, stack, "network", "/networks", "network", name=name, shared=True)
        assert ids(conn, network_map={"*": name}) == {"ferry.port.policy"}
        assert ids(conn, network_map={"*": name}, keep_mac=False) == ids(conn, network_map={"*": name}, port_policy="trust") == set()
        assert ids(admin, network_map={"*": name}) == set()


QUOTAS = [
    *(("compute", "/os-quota-sets", "quota_set", what) for what in ("instances", "cores", "ram")),
    *(("block_storage", "/os-quota-sets", "quota_set", what) for what in ("volumes", "gigabytes", "volumes_fast", "gigabytes_fast")),
    ("network", "/quotas", "quota", "port"),
]


@pytest.mark.parametrize(("service", "path", "kind", "what"), QUOTAS, ids=[f"{s}-{q}" for s, _p, _k, q in QUOTAS])
def test_a_quota_that_is_too_small_for_the_wave(conn: Any, admin: Any, service: str, path: str, kind: str, what: str) -> None:
    """There is room for one more of everything, and the wave has two VMs."""
    project = conn.current_project_id
    before = client.get(admin, service, f"{path}/{project}", step="read the quota")[kind][what]
    limit = quota.read(conn)[what][1] + 1
    try:
        client.call(admin, service, "PUT", f"{path}/{project}", step="set the quota", body={kind: {what: limit}})
        _by_vm, of_wave = precheck.concerns(conn, [vm(1), vm(2)], MAPS)
        assert {(c.id, c.category, c.device) for c in of_wave} == {("ferry.quota.exceeded", "critical", what)}
    finally:
        client.call(admin, service, "PUT", f"{path}/{project}", step="restore the quota", body={kind: {what: before}})
    assert ids(conn, vm(1), vm(2)) == set()


def test_secure_boot_by_the_traits_of_compute_hosts(conn: Any, admin: Any) -> None:
    facts = {"firmware": "efi", "secure_boot": True}
    assert ids(conn, vm(**facts)) == {"ferry.secure_boot.unknown"}  # members may not ask Placement
    assert ids(admin, vm(**facts)) == {"ferry.secure_boot.unsupported"}
    assert ids(admin, vm(firmware="efi")) == set()
    assert ids(admin, vm(vtpm=True), properties={"hw_tpm_version": "2.0"}) == {"ferry.tpm.lost", "ferry.tpm.unsupported"}


@pytest.mark.parametrize("name", NAMES, ids=[ascii(n)[:30] for n in NAMES])
def test_names_that_nova_takes_and_refuses(conn: Any, name: str) -> None:
    """Nova looks at the name before it looks for the flavor, of which there is none."""
    server = {"name": name, "flavorRef": "no-such-flavor", "networks": "none"}
    with pytest.raises(ServerError) as refused:
        client.call(conn, "compute", "POST", "/servers", step="ask", body={"server": server}, microversion="2.47")
    said = str(refused.value.said)
    assert ("invalid 'name' value" in said or "attribute name" in said) == (_name_problem(name) is not None), said


def test_host_names_are_those_that_nova_makes(tmp_path: Path) -> None:
    python = Path(os.environ["FERRY_LAB_SHIM"]).parents[3] / "build" / "venv-openstack" / "bin" / "python"
    code = "import json, sys; from nova.utils import sanitize_hostname as s; print(json.dumps([s(n) for n in json.load(sys.stdin)]))"
    names = [*NAMES, "-a.b_c-", "x" * 70, "A.B.C", "ünï code"]
    done = subprocess.run([python, "-W", "ignore", "-c", code], input=json.dumps(names), check=True, capture_output=True, text=True)
    assert [precheck.host_name(n) for n in names] == json.loads(done.stdout)


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if '"GET ' in record.getMessage() or '"POST ' in record.getMessage():
            self.lines.append(record.getMessage())


def test_a_thousand_vms_take_twelve_calls(conn: Any) -> None:
    ids(conn)  # the versions of the services are asked for once in a session
    log, handler = logging.getLogger("urllib3.connectionpool"), _Lines()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        by_vm, _of_wave = precheck.concerns(conn, [vm(i, firmware="efi") for i in range(1000)], MAPS)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    assert len(by_vm) == 1000 and 8 <= len(handler.lines) <= 12, handler.lines
