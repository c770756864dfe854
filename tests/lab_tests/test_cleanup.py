# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs that died have left: listed with its reason, removed where nobody needs it, and left alone where anybody may."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import removal
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import cleanup

from .undo_site import UndoSite, no_other_rehearsals, undo_site

NAMES = ("landed 在庫", "half", "busy", "snapped", "grouped")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UndoSite]:
    with undo_site(tmp_path_factory.mktemp("cleanup"), NAMES, "8a05") as made:
        yield made


def clean(site: UndoSite, *, check: bool = False, **more: Any) -> dict[str, Any]:
    """The result, with the rows of these tests' VMs alone."""
    options = {"where": ["vcenter", "openstack"], "abandon": [], "rehearsal_age": 3600.0, **more}
    said = cleanup.run({**site.connection(), **options}, check=check)
    mine = {site.uuid(vm) for vm in NAMES}
    return {**said, **{k: [r for r in said[k] if r["source"] in mine] for k in ("removed", "kept")}}


def whys(rows: list[dict[str, Any]], kind: str, source: str) -> set[str]:
    return {r["why"] for r in rows if r["kind"] == kind and r["source"] == source}


def die_with_a_snapshot(site: UndoSite, vm: str) -> None:
    """A snapshot of a process that is gone."""
    ours = "ansible_collections.ferry.vmware.plugins.module_utils.vsphere"
    code = (
        f"import json, sys\nfrom {ours} import client, find, snapshots\nwanted = json.load(sys.stdin)\n"
        "with client.connect(wanted) as session:\n    snapshots.take(session, find.find_vm(session, wanted['vm']), quiesce='never')"
    )
    wanted = json.dumps({**site.connection(), "vm": vm})
    subprocess.run([sys.executable, "-c", code], input=wanted, text=True, check=True, timeout=120)


@pytest.fixture
def alone() -> Iterator[None]:
    with no_other_rehearsals():
        yield


@pytest.mark.usefixtures("alone")
@pytest.mark.fault(
    "a run died and nobody ran it again", where="controller", ends="cleanup lists what is left, and removes what no run would go on with"
)
def test_each_thing_goes_or_stays_for_its_reason(site: UndoSite) -> None:
    landed, half, busy, snapped, _grouped = (site.uuid(vm) for vm in NAMES)
    site.land(NAMES[0])
    site.land(NAMES[1], state="copying", server=False)
    site.land(NAMES[2], state="copying", server=False)
    storage, network = site.cloud.block_storage, site.cloud.network
    home = network.find_network("net-web")
    port = network.create_port(network_id=home.id, name="half-0", description=f"ferry_source={half} ferry_nic=4000")
    storage.wait_for_status(storage.create_volume(name="double", size=1, metadata={"ferry_rehearsal": half}), interval=0.3)
    network.create_network(name="double", description=f"ferry_rehearsal={half}")
    die_with_a_snapshot(site, NAMES[3])
    somebodys = site.client.snapshot(site.client.vm(NAMES[3]), "somebody's")
    locks = site.folder / "ferry" / "vms"
    locks.mkdir(parents=True, exist_ok=True)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import fcntl,os,time; f=os.open({str(locks / (busy + '.lock'))!r},66,0o600); fcntl.flock(f,2); print(1,flush=True); time.sleep(600)",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None and holder.stdout.read(1)
        said = clean(site, check=True, abandon=[NAMES[2], landed])
        assert [r["kind"] for r in said["removed"]] == ["snapshot"] and "the run that took it is over" in said["removed"][0]["why"]
        assert len(site.vcenter.snapshots(NAMES[3])) == 2
        kept = said["kept"]
        assert any("has become" in w for w in whys(kept, "server", landed)) and whys(kept, "volume", landed) == {"a server has it"}
        assert whys(kept, "volume", half) == {f"copying: the next run for {NAMES[1]} goes on with it"}
        assert whys(kept, "port", half) == {f"the next run for {NAMES[1]} uses it"}
        assert all("is copying disks" in w for w in whys(kept, "volume", busy)) and whys(kept, "volume", busy)
        assert any("may be going on" in w for w in whys(kept, "rehearsal", half))
        done = clean(site, abandon=[NAMES[1], NAMES[2], NAMES[0]], rehearsal_age=0)
        assert sorted({(r["kind"], r["source"]) for r in done["removed"]}) == sorted(
            {("snapshot", snapped), ("rehearsal", half), ("port", half), ("volume", half)}
        )
        assert site.volumes(NAMES[1]) == {} and network.find_port(port.id) is None and site.rehearsals() == []
        assert len(site.volumes(NAMES[2])) == 1 and len(site.volumes(NAMES[0])) == 2 and site.server(NAMES[0]).status == "ACTIVE"
        assert [s["name"] for s in site.vcenter.snapshots(NAMES[3])] == ["somebody's"]
        again = clean(site, abandon=[NAMES[1], NAMES[2], NAMES[0]], rehearsal_age=0)
        assert again["removed"] == [] and not again["changed"]
    finally:
        holder.kill()
        holder.communicate(timeout=10)
        site.client.wait(somebodys.RemoveSnapshot_Task(False))
    assert {r["kind"] for r in clean(site, abandon=[NAMES[2]])["removed"]} == {"volume"}
    assert site.volumes(NAMES[2]) == {}


def test_looking_takes_no_lock(site: UndoSite) -> None:
    """A copy that starts while somebody looks must not find its lock taken."""
    path = site.folder / "ferry" / "vms" / f"{site.uuid(NAMES[0])}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not [h for h in cleanup.holders.holders(str(site.folder / "ferry"), site.uuid(NAMES[0])) if h.pid == os.getpid()]
    finally:
        os.close(fd)


@pytest.fixture
def groups(site: UndoSite) -> Iterator[dict[str, str]]:
    """Two server groups of ours and one of somebody's: their ids by name."""
    compute = site.cloud.compute
    made = {name: compute.create_server_group(name=name, policy="affinity").id for name in ("ferry:web", "ferry:db", "web ferry:")}
    try:
        yield made
    finally:
        for group in made.values():
            compute.delete_server_group(group, ignore_missing=True)


def group_rows(site: UndoSite, groups: dict[str, str], *, check: bool = False, **more: Any) -> tuple[dict[str, str], list[str]]:
    """Of C(groups): why they stay, by name, and the names of those that were removed."""
    options = {"where": ["openstack"], "abandon": [], "rehearsal_age": 3600.0, **more}
    said = cleanup.run({**site.connection(), **options}, check=check)
    mine = [[r for r in said[k] if r["id"] in groups.values()] for k in ("kept", "removed")]
    assert {r["kind"] for rows in mine for r in rows} <= {"server group"}
    return {r["name"]: r["why"] for r in mine[0]}, [r["name"] for r in mine[1]]


def test_an_empty_server_group_goes_where_it_is_named(site: UndoSite, groups: dict[str, str]) -> None:
    """Unnamed it stays: a wave that copies at this moment may have made it. What does not begin with our mark is not ours."""
    kept, removed = group_rows(site, groups, abandon=["FERRY:web", "web", "web ferry:"])
    assert sorted(kept) == ["ferry:db", "ferry:web"] and all("empty" in why for why in kept.values()) and removed == []
    assert group_rows(site, groups, check=True, abandon=["ferry:web"])[1] == ["ferry:web"]
    assert group_rows(site, groups, abandon=["ferry:web"]) == ({"ferry:db": kept["ferry:db"]}, ["ferry:web"])
    assert group_rows(site, groups, abandon=["ferry:web"])[1] == []
    assert {g.name for g in site.cloud.compute.server_groups() if g.id in groups.values()} == {"ferry:db", "web ferry:"}


@pytest.mark.long
def test_a_server_group_with_a_server_never_goes(site: UndoSite, groups: dict[str, str]) -> None:
    site.land(NAMES[4], group=groups["ferry:db"])
    kept, removed = group_rows(site, groups, abandon=["ferry:db"])
    assert kept["ferry:db"] == "servers in it: 1" and removed == []
    with pytest.raises(ServerError) as caught:  # one that has got its member since it was listed
        removal.remove_server_group(site.cloud, groups["ferry:db"])
    assert caught.value.code == "in_use"
    assert groups["ferry:db"] in {g.id for g in site.cloud.compute.server_groups()}


@pytest.mark.long
def test_the_playbook(site: UndoSite) -> None:
    die_with_a_snapshot(site, NAMES[3])
    plan = site.play("cleanup", NAMES[3], arguments=("--check",))
    assert plan.code == 0 and "would be removed: snapshot" in plan.out and len(site.vcenter.snapshots(NAMES[3])) == 1, plan.out[-3000:]
    done = site.play("cleanup", NAMES[3])
    assert done.code == 0 and "removed: snapshot" in done.out and site.vcenter.snapshots(NAMES[3]) == [], done.out[-3000:]
    again = site.play("cleanup", NAMES[3])
    assert again.code == 0 and set(again.changed.values()) == {0}, again.out[-3000:]
