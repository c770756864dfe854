# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose is it: what a rollback, a plan and a cleanup must never take for theirs. A cloud at the wire, with somebody else's things in it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import matching, ready, rehearsal, undo
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.target import Target
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import cleanup, commit, moment, rehearse
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import snapshot_tag, snapshot_tree

SOURCE = "50210a1b-1111-4c6e-9f01-7a1e5b1c0001"
HOST, OTHER, OURS = (f"{n}0000000-0000-4000-8000-000000000000" for n in "abc")
ROOT, DATA = (f"{n}1111111-0000-4000-8000-000000000000" for n in "de")


def volume(id_: str, server: str | None = None, device: str = "/dev/vda", **known: str) -> dict[str, Any]:
    attachments = [{"server_id": server, "device": device, "volume_id": id_}] if server else []
    return {"id": id_, "name": id_, "status": "in-use" if server else "available", "size": 1, "attachments": attachments, "metadata": known}


def server(id_: str, *volumes: str, image: str = "", **known: str) -> dict[str, Any]:
    return {
        "id": id_,
        "name": id_,
        "status": "ACTIVE",
        "image": {"id": image} if image else "",
        "metadata": known,
        "os-extended-volumes:volumes_attached": [{"id": v, "delete_on_termination": False} for v in volumes],
        "OS-SRV-USG:launched_at": "2026-01-01T00:00:00.000000",
    }


def ours(disk: str, state: str = "complete") -> dict[str, str]:
    return {"ferry_source": SOURCE, "ferry_disk": disk, "ferry_state": state, "ferry_role": "root" if disk == "2000" else "data"}


class World:
    """Listings of what is there; C(written): everything else that was asked for."""

    def __init__(self, fake: Any, **there: list[dict[str, Any]]) -> None:
        self.there = {"servers": [], "volumes": [], "ports": [], "networks": [], "snapshots": [], "images": [], **there}
        self.written: list[str] = []
        fake.handler = self.answer

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        parts = urlsplit(path)
        names = parts.path.strip("/").split("/")
        if names[-1] == "os-server-groups":
            return 200, {"server_groups": []}
        key = next((n for n in names if n in self.there), "")
        if method != "GET":
            self.written.append(f"{method} {'/'.join(names[-2:])}")
            return (204, b"") if method == "DELETE" else (200, json.loads(body or b"{}"))
        if not key or names[-1] not in (key, "detail"):
            row = next((r for rows in self.there.values() for r in rows if r["id"] == names[-1]), None)
            return (200, {key.removesuffix("s"): row}) if row and f"DELETE {key}/{names[-1]}" not in self.written else (404, {})
        wanted = {k: v[0] for k, v in parse_qs(parts.query).items()}
        rows = self.there[key]
        if "device_id" in wanted:
            rows = [r for r in rows if r.get("device_id") == wanted["device_id"]]
        rows = [r for r in rows if all(r.get(k) == wanted[k] for k in ("id", "name") if k in wanted)]
        if "tags" in wanted:
            rows = [r for r in rows if wanted["tags"] in (r.get("tags") or ())]
        return 200, {key: rows}


CONVERSION_HOSTS = [
    # it boots from an image, and the volume that is being copied to is its first
    server(HOST, ROOT, image="debian"),
    # it boots from a volume of its own
    server(HOST, OTHER, ROOT),
]


@pytest.mark.parametrize("host", CONVERSION_HOSTS, ids=["image", "volume"])
@pytest.mark.parametrize("state", ["copying", "complete"])
def test_the_conversion_host_is_nobodys_server(host: dict[str, Any], state: str) -> None:
    """While a copy runs, and after one was killed, Nova shows our volume at the machine that copies."""
    target = Target(servers=[host], volumes=[volume(ROOT, HOST, "/dev/vdb", **ours("2000", state)), volume(OTHER, HOST)])
    assert matching.Known(target, SOURCE).server() is None


def test_a_server_that_lost_its_metadata_is_still_known_by_what_it_boots_from() -> None:
    rows = [volume(ROOT, OURS, **ours("2000")), volume(DATA, OURS, "/dev/vdb", **ours("2001"))]
    target = Target(servers=[server(OURS, ROOT, DATA), server(HOST, image="debian")], volumes=rows)
    found = matching.Known(target, SOURCE).server()
    assert found is not None and found["id"] == OURS


@pytest.mark.parametrize("how", ["stopped", "removed", "purged"])
def test_a_rollback_leaves_the_conversion_host_alone(fake: Any, how: str) -> None:
    world = World(fake, servers=[server(HOST, ROOT, image="debian")], volumes=[volume(ROOT, HOST, "/dev/vdb", **ours("2000", "copying"))])
    said = undo.undo({**fake.params(), "source": SOURCE, "target": how, "timeout": 1.0, "state_dir": "/nonexistent"}, check=True)
    assert said["servers"] == [] and not [s for s in said["steps"] if s.startswith("server")] and world.written == []


@pytest.mark.parametrize("source", ["", " ", "None"])
def test_a_rollback_of_no_vm_is_refused(fake: Any, source: str) -> None:
    """Without a source, everything that carries no mark would be its own."""
    world = World(fake, servers=[server(HOST, OTHER)], volumes=[volume(OTHER, HOST), volume(DATA)])
    with pytest.raises(BadInput):
        undo.undo({**fake.params(), "source": source, "target": "purged", "timeout": 1.0, "state_dir": "/nonexistent"})
    assert world.written == []


def port(id_: str, device: str) -> dict[str, Any]:
    return {
        "id": id_,
        "name": id_,
        "tags": [f"ferry_source={SOURCE}"],
        "description": "",
        "device_id": device,
        "device_owner": "compute:nova",
    }


def test_a_rollback_leaves_a_port_that_somebody_elses_server_uses(fake: Any) -> None:
    there = [port("p-theirs", HOST), port("p-ours", OURS), port("p-free", "")]
    world = World(fake, servers=[server(OURS, ferry_source=SOURCE), server(HOST, image="debian")], ports=there)
    said = undo.undo({**fake.params(), "source": SOURCE, "target": "removed", "timeout": 5.0, "state_dir": "/nonexistent"})
    assert [w for w in world.written if "ports" in w] == ["DELETE ports/p-ours", "DELETE ports/p-free"], said


def clean(fake: Any, *abandon: str, check: bool = False) -> dict[str, Any]:
    more = {"where": ["openstack"], "abandon": list(abandon), "rehearsal_age": 3600.0, "ledger": "/nonexistent"}
    return cleanup.run({**fake.params(), **more}, check=check)


def test_cleanup_leaves_what_a_server_without_our_mark_uses(fake: Any) -> None:
    """Its metadata was taken away, or somebody has used the port for a server of their own: it runs."""
    there = {
        "ports": [port("p-used", HOST), port("p-free", "")],
        "volumes": [volume(ROOT, HOST, **ours("2000")), volume(DATA, **ours("2001"))],
    }
    World(fake, servers=[server(HOST, ROOT)], **there)
    said = clean(fake, SOURCE, check=True)
    assert sorted(r["id"] for r in said["removed"]) == [DATA, "p-free"], said


def test_a_name_that_two_vms_have_gives_up_neither(conn: Any) -> None:
    names = {SOURCE: "web", SOURCE.replace("0001", "0002"): "Web", SOURCE.replace("0001", "0003"): "db"}
    with pytest.raises(BadInput):
        cleanup._Landed(conn, {"abandon": ["web"]}, names)
    assert cleanup._Landed(conn, {"abandon": ["DB", SOURCE.upper()]}, names).given_up >= {SOURCE, SOURCE.replace("0001", "0003")}


def test_cleanup_leaves_the_images_of_a_server_that_is_there(fake: Any) -> None:
    image = {"id": "i-1", "name": "root", "status": "active", "ferry_source": SOURCE}
    World(fake, servers=[server(OURS, ferry_source=SOURCE)], images=[image])
    assert clean(fake, SOURCE, check=True)["removed"] == []


@pytest.mark.parametrize(
    "mark", [{"image_type": "snapshot"}, {"image_type": "backup"}, {"block_device_mapping": "[]"}, {"base_image_ref": "x"}]
)
def test_somebodys_snapshot_of_a_server_is_no_image_of_ours(fake: Any, mark: dict[str, str]) -> None:
    """Nova hands an image's properties, our mark among them, to the snapshots of the servers that were made from it."""
    image = {"id": "i-1", "name": "before the upgrade", "status": "active", "ferry_source": SOURCE, **mark}
    World(fake, images=[image])
    said = clean(fake, SOURCE, check=True)
    assert said["removed"] == [] and said["kept"] == []


def test_the_double_is_not_put_on_a_network_of_the_vms_other_cards(fake: Any, conn: Any) -> None:
    World(fake, networks=[{"id": "n-1", "name": "web"}, {"id": "n-2", "name": "backend"}])
    cards = [{"network": n, "network_id": i, "name": n} for n, i in (("web", "n-1"), ("backend", "n-2"))]
    entry = {"name": "vm", "source": SOURCE, "server": {"name": "vm"}, "volumes": [], "ports": cards}
    work = rehearsal.Rehearsal(conn, entry, {"network_map": {"web": "n-2"}, "copy": "clone", "timeout": 1})
    with pytest.raises(BadInput) as caught:
        work._network(cards[0])
    assert caught.value.code == "not_isolated"


def test_a_second_rehearsal_of_a_vm_leaves_the_first_one_alone(fake: Any, tmp_path: Path) -> None:
    """While the first one is being made, the VM's lock is held; the second takes nothing away, neither before nor after its error."""
    world = World(fake, volumes=[{**volume(ROOT), "metadata": {"ferry_rehearsal": SOURCE}}])
    entry = {"name": "vm", "source": SOURCE, "server": {"name": "vm"}, "volumes": [], "ports": []}
    params = {**fake.params(), "state": "present", "entry": entry, "copy": "clone", "timeout": 1.0, "ledger": str(tmp_path)}
    with moment.vm_lock(str(tmp_path), {"instance_uuid": SOURCE, "moref": None}), pytest.raises(Busy):
        rehearse.run(params)
    assert world.written == []


def test_ledgers_that_a_process_holds_are_not_deleted(tmp_path: Path) -> None:
    """Without the lock's file a second copy could begin beside the first."""
    path = tmp_path / "vms" / f"{SOURCE}.lock"
    path.parent.mkdir()
    code = "import fcntl,sys,time; f=open(sys.argv[1],'w'); fcntl.flock(f,2); print(1,flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.read(1)
            params = {"ledger": str(tmp_path), "delete": ["ledgers"]}
            items = commit._ledgers(params, SOURCE)
            with pytest.raises(Busy):
                commit._delete(None, params, SOURCE, items, False)
        finally:
            holder.kill()
    assert items and path.exists()


def test_ledgers_of_a_vm_whose_name_begins_alike_are_not_listed(tmp_path: Path) -> None:
    for name in (
        "vms/vm-4.lock",
        "vms/vm-42.lock",
        "ledgers/vm-4--2000--a.sqlite.lock",
        "ledgers/vm-4--2000--a.sqlite-wal",
        "ledgers/vm-42--2000--a.sqlite.lock",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [i["id"].rpartition("/")[2] for i in commit._ledgers({"ledger": str(tmp_path)}, "vm-4")]
    assert found == ["vm-4--2000--a.sqlite-wal", "vm-4--2000--a.sqlite.lock", "vm-4.lock"]


@pytest.mark.parametrize(
    "check", [{"port": "²"}, {"port": 22, "timeout": "nan"}, {"port": 22, "timeout": "inf"}, {"port": 22, "timeout": "soon"}]
)
def test_checks_that_would_never_end_are_refused(check: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        ready.parse([check])


def test_an_address_that_is_none_is_no_defect() -> None:
    assert ready.ask(ready.Probe("port", 22), "a" * 70 + ".example")


def test_a_snapshot_of_another_machine_is_left_to_that_machine() -> None:
    """A copy of terabytes takes longer than an hour, and is lost with its snapshot."""
    now = datetime(2026, 1, 2, tzinfo=timezone.utc)
    tag = snapshot_tag.Tag("elsewhere:/state", "boot/1/1", "copy", SOURCE, "id")
    taken = snapshot_tree.Snapshot("snapshot-1", "ferry", False, tag=tag, created=datetime(2026, 1, 1, tzinfo=timezone.utc).isoformat())
    kept = cleanup._snapshot(None, taken, now, set())
    assert kept.work is None and "elsewhere" in kept.why
    assert cleanup._snapshot(None, taken, now, {SOURCE}).work is not None
