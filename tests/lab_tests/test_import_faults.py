# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A landing that the cloud stops midway: one clear error each, the same command goes on, and nothing is left over in the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client

from .import_site import MIB, ImportSite, Run, ova

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:Using fork:DeprecationWarning")]
MAC = "00:50:56:9b:00:01"
FOREIGN = "somebody's"


@pytest.fixture
def admin() -> Iterator[Any]:
    conn = client.connect({"cloud": "lab-admin"})
    yield conn
    conn.close()


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, admin: Any) -> Iterator[ImportSite]:
    conn = client.connect({"cloud": "lab"})
    made = ImportSite(tmp_path_factory.mktemp("faults"), conn)
    remove_foreign(conn)
    yield made
    quota(admin, conn, -1)
    made.remove("night")
    remove_foreign(conn)
    conn.close()


def remove_foreign(conn: Any) -> None:
    """The port that has the MAC, which a test that failed may have left."""
    for port in client.listing(conn, "network", "/ports", "ports", step="clean up", params={"name": FOREIGN}):
        client.call(conn, "network", "DELETE", f"/ports/{port['id']}", step="clean up", allow=(404,))


def quota(admin: Any, conn: Any, volumes: int) -> None:
    path = f"/os-quota-sets/{conn.current_project_id}"
    client.call(admin, "block_storage", "PUT", path, step="set the quota", body={"quota_set": {"volumes": volumes}})


def used_volumes(conn: Any) -> int:
    path = f"/os-quota-sets/{conn.current_project_id}?usage=true"
    row = client.get(conn, "block_storage", path, step="look")["quota_set"]["volumes"]
    return int(row["in_use"]) + int(row["reserved"])


def meanwhile(site: ImportSite, hosts: dict[str, Any], due: Callable[[], bool], work: Callable[[], None]) -> Run:
    """Run the playbook, and C(work) once as soon as C(due)."""
    end = threading.Event()
    done: list[bool] = []

    def watch() -> None:
        while not end.is_set():
            if due():
                work()
                done.append(True)
                return
            time.sleep(0.1)  # between two looks at the cloud

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        run = site.run(hosts)
    finally:
        end.set()
        thread.join()
    assert done, "it never came so far"
    return run


def error(run: Run) -> str:
    assert run.code != 0
    assert "Traceback" not in run.out
    (vm,) = run.report["vms"]
    assert vm["state"] == "failed" and vm["name"] == "night"
    return str(vm["errors"][0]["text"])


@pytest.mark.fault(
    "a volumes quota that fills up, a MAC that somebody takes, a server for which there is no host, one after another, midway",
    where="OpenStack",
    ends="one error each that says it; each rerun goes on; at last one server, its volumes and ports, and nothing else",
)
def test_a_night_of_refusals(site: ImportSite, admin: Any) -> None:
    conn = site.conn
    hosts = {"night": {"ferry_files": str(ova(site.folder, "night", [4 * MIB, 3 * MIB], [("VM Network", MAC)]))}}

    # The quota is used up by others after the plan held: one of two volumes can be made.
    run = meanwhile(site, hosts, lambda: bool(site.images("night")), lambda: quota(admin, conn, used_volumes(conn) + 1))
    assert "Make the volumes" in error(run) and "quota" in error(run).lower(), error(run)
    assert len(site.volumes("night")) == 1 and site.server("night") is None
    first = site.volumes("night")[0]["id"]

    # The next run knows it before it sends a byte.
    images = {i["id"] for i in site.images("night")}
    run = site.run(hosts)
    assert run.code != 0 and "the quota of volumes is" in run.out and {i["id"] for i in site.images("night")} == images
    quota(admin, conn, -1)

    # Somebody takes the MAC while the volumes are made.
    (network,) = [n for n in client.listing(conn, "network", "/networks", "networks", step="look") if n["name"] == "net-web"]
    foreign: list[str] = []

    def take() -> None:
        body = {"port": {"network_id": network["id"], "name": FOREIGN, "mac_address": MAC}}
        foreign.append(client.call(conn, "network", "POST", "/ports", step="take the MAC", body=body).json()["port"]["id"])

    run = meanwhile(site, hosts, lambda: len(site.volumes("night")) == 2, take)
    assert "Create the ports" in error(run) and MAC in error(run), error(run)
    run = site.run(hosts)
    assert run.code != 0 and f"the MAC {MAC} is in use" in run.out and foreign[0] in run.out
    client.call(conn, "network", "DELETE", f"/ports/{foreign[0]}", step="give the MAC back")

    # Nova has no host for it: none has what the flavor asks for.
    flavor = {"name": "night-nowhere", "vcpus": 1, "ram": 512, "disk": 0}
    made = client.call(admin, "compute", "POST", "/flavors", step="make a flavor", body={"flavor": flavor}).json()["flavor"]["id"]
    try:
        specs = {"extra_specs": {"trait:CUSTOM_NIGHT": "required"}}
        client.call(admin, "compute", "POST", f"/flavors/{made}/os-extra_specs", step="make it special", body=specs)
        hosts["night"]["ferry_landing"] = {"flavor": "night-nowhere"}
        run = site.run(hosts)
        assert "No valid host was found" in error(run), error(run)
        broken = site.server("night")
        assert broken is not None and broken["status"] == "ERROR"
    finally:
        client.call(admin, "compute", "DELETE", f"/flavors/{made}", step="clean up")

    # And with a flavor that fits, all of it goes on.
    del hosts["night"]["ferry_landing"]
    run = site.run(hosts)
    assert run.code == 0, run.out[-4000:]
    server = site.server("night")
    assert server is not None and server["status"] == "ACTIVE" and server["id"] != broken["id"]
    volumes = site.volumes("night")
    assert [v["attachments"][0]["server_id"] for v in volumes] == [server["id"]] * 2 and volumes[0]["id"] == first
    for index, size in enumerate((4 * MIB, 3 * MIB)):
        assert site.bytes_of(volumes[index]["id"], size) == (site.folder / f"night-{index}.raw").read_bytes()
    assert [(p["mac_address"], p["device_id"]) for p in site.ports("night")] == [(MAC, server["id"])]
    assert {i["id"] for i in site.images("night")} == images and len(images) == 2
    again = site.run(hosts)
    assert again.code == 0 and set(again.changed.values()) == {0}
