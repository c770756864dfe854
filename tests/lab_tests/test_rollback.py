# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ferry.vmware.rollback, and the fence that a cutover puts around the source, on the lab's vCenter and OpenStack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import removal, undo

from .undo_site import UndoSite, undo_site
from .vcenter_lab import MIB

NAMES = ("back 在庫", "stopped", "warm back", "kept", "gone", "between", "paused")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UndoSite]:
    with undo_site(tmp_path_factory.mktemp("rollback"), NAMES, "8a01") as made:
        yield made


@pytest.mark.fault(
    "the source is powered on by mistake after its cutover", where="vCenter", ends="its cards are off the network; rollback connects them"
)
def test_there_and_back(site: UndoSite) -> None:
    """After a migration the source cannot take its addresses; after a rollback it is what it was, and the server is stopped."""
    vm = NAMES[0]
    site.set_card(vm, 4001, connected=True, start=False)  # as somebody may have left it
    before = site.look(vm)
    assert before["cards"] == {4000: (True, True), 4001: (True, False)}
    site.land(vm)  # the real migrations are in the longer tests below
    assert site.state(vm) == "migrated" and site.server(vm).status == "ACTIVE"
    assert site.look(vm)["annotation"] != before["annotation"]
    assert site.cards(vm) == {4000: (False, False), 4001: (False, False)}
    site.power(vm, on=True)
    assert site.cards(vm) == {4000: (False, False), 4001: (False, False)}
    site.power(vm, on=False)
    back = site.play("rollback", vm)
    assert back.code == 0, back.out[-4000:]
    assert site.look(vm) == before
    assert site.state(vm) == "rolled_back" and site.server(vm).status == "SHUTOFF"
    assert {v.metadata["ferry_state"] for v in site.volumes(vm).values()} == {"copying"}
    assert back.result(vm)["state"] == "rolled_back" and back.result(vm)["steps"] and "1 rolled back" in back.out
    again = site.play("rollback", vm)
    assert again.code == 0 and set(again.changed.values()) == {0} and again.result(vm)["state"] == "unchanged", again.out[-3000:]
    assert site.look(vm) == before


def test_a_server_that_nova_cannot_stop(site: UndoSite) -> None:
    """Nothing else is done then: a paused server may be resumed at any time. Removing it works, and without a volume less."""
    vm = NAMES[6]
    site.land(vm)
    compute = site.cloud.compute
    compute.pause_server(site.server(vm))
    compute.wait_for_server(site.server(vm), status="PAUSED", interval=0.3, wait=60)
    wanted = {**site.connection(), "validate_certs": None, "source": site.uuid(vm), "state_dir": str(site.folder / "ferry"), "timeout": 60}
    with pytest.raises(ServerError) as caught:
        undo.undo({**wanted, "target": "stopped"})
    assert caught.value.code == "not_stoppable" and "rollback_target=removed" in str(caught.value.next_command)
    assert {v.metadata["ferry_state"] for v in site.volumes(vm).values()} == {"complete"}
    with pytest.raises(ServerError, match="is attached to the server") as kept:  # at once: waiting would not free it
        removal.remove_volume(site.cloud, site.volumes(vm)["2001"].id, timeout=3600)
    assert kept.value.code == "in_use"
    said = undo.undo({**wanted, "target": "removed"}, check=True)
    assert said["changed"] and site.server(vm) is not None
    assert undo.undo({**wanted, "target": "removed"})["steps"] == said["steps"]
    assert site.server(vm) is None and len(site.volumes(vm)) == 2
    assert {(v.metadata["ferry_state"], "ferry_source_state" in v.metadata) for v in site.volumes(vm).values()} == {("copying", False)}
    assert undo.undo({**wanted, "target": "removed"})["changed"] is False


#: Tasks of a migration in their order; at each the run is killed when it begins.
COLD = (
    "Create the volumes that are absent",
    "Shut the guest down",
    "Copy the disks straight into their volumes",
    "Look at the source",
    "Create the ports that are absent",
    "Create the server",
    "Leave word at the source",
    "Keep the result",
)
WARM = ("Switch changed block tracking on", "Copy in cycles", "Copy what has changed since the last cycle", "See that it has stayed off")


@pytest.mark.long
@pytest.mark.fault(
    "killed at any task of a migration", where="controller", ends="rollback brings the source back as it was, the server is stopped"
)
def test_back_from_every_task_of_a_cold_migration(site: UndoSite) -> None:
    """Killed at each task in turn and rolled back; the last migration goes on from what the earlier ones have copied."""
    vm = NAMES[1]
    before = site.look(vm)
    for task in COLD:
        site.killed_at(task, "migrate", vm)
        back = site.play("rollback", vm)
        assert back.code == 0, f"{task}:\n{back.out[-4000:]}"
        assert site.look(vm) == before, task
        server = site.server(vm)
        assert server is None or server.status == "SHUTOFF", task
        assert site.copying() == []
    again = site.play("rollback", vm)
    assert again.code == 0 and set(again.changed.values()) == {0}, again.out[-3000:]
    run = site.play("migrate", vm)
    assert run.code == 0, run.out[-5000:]
    site.assert_equal(vm)
    assert site.server(vm).status == "ACTIVE" and len(site.volumes(vm)) == 2 and site.state(vm) == "migrated"
    assert site.look(vm)["power"] == "poweredOff" and set(site.cards(vm).values()) == {(False, False)}


@pytest.mark.long
@pytest.mark.fault(
    "a VM is rolled back while a copy of it runs on, without its playbook",
    where="copy",
    ends="the copy ends or is ended, the source is back as it was",
)
def test_back_while_its_copy_runs_on(site: UndoSite) -> None:
    vm = NAMES[1]
    assert site.play("rollback", vm, ferry_rollback_target="purged").code == 0
    before = site.look(vm)
    site.vcenter.fault("folder_delay", match=site.flat(vm, 0).name, delay_ms=2000, times=0)
    site.killed_at("Copy the disks straight into their volumes", "migrate", vm, copies=False)
    assert site.copying()
    # The copy sees that its playbook is gone and ends by itself, if the rollback does not end it first: see test_holders for that.
    back = site.play("rollback", vm)
    assert back.code == 0, back.out[-4000:]
    assert site.copying() == [] and site.look(vm) == before
    site.vcenter.clear()


@pytest.mark.long
def test_back_from_every_task_of_a_warm_migration(site: UndoSite) -> None:
    """Change tracking and snapshots of ours are taken back, too."""
    vm = NAMES[2]
    before = site.look(vm)
    for task in WARM:
        site.killed_at(task, "migrate", vm, ferry_strategy="warm", ferry_downtime_budget=120)
        back = site.play("rollback", vm)
        assert back.code == 0, f"{task}:\n{back.out[-4000:]}"
        assert site.look(vm) == before, task
    run = site.play("migrate", vm, ferry_strategy="warm", ferry_downtime_budget=120)
    assert run.code == 0, run.out[-5000:]
    site.assert_equal(vm)
    assert site.server(vm).status == "ACTIVE"


@pytest.mark.long
def test_a_second_migration_takes_what_the_source_has_written_since(site: UndoSite) -> None:
    """Migrated, rolled back with the server kept, written to, migrated again: the server has what the guest wrote, and little was copied."""
    vm = NAMES[3]
    before = site.look(vm)
    assert site.play("migrate", vm).code == 0
    site.set_card(vm, 4000, connected=False, start=True)
    mended = site.play("migrate", vm)
    assert mended.code == 0 and mended.changed[vm] == 1, mended.out[-3000:]
    assert set(site.cards(vm).values()) == {(False, False)}, "what was connected again by hand is mended"
    plan = site.play("rollback", vm, arguments=("--check",))
    assert plan.code == 0 and "powered on" in plan.out and site.server(vm).status == "ACTIVE", plan.out[-3000:]
    assert site.play("rollback", vm).code == 0
    assert site.look(vm) == before
    kept, volumes = site.server(vm).id, site.volumes(vm)
    site.vcenter.write(vm, 2001, 2 * MIB, b"written after the rollback".ljust(4096, b"\0"))
    run = site.play("migrate", vm)
    assert run.code == 0, run.out[-5000:]
    site.assert_equal(vm)
    assert site.server(vm).id != kept and {v.id for v in site.volumes(vm).values()} == {v.id for v in volumes.values()}
    assert sum(d["bytes_written"] for d in run.result(vm)["disks"]) <= 2 * MIB
    assert len([s for s in site.cloud.compute.servers() if s.metadata.get("ferry_source") == site.uuid(vm)]) == 1


@pytest.mark.long
def test_the_server_is_removed_or_everything_is(site: UndoSite) -> None:
    vm = NAMES[4]
    before = site.look(vm)
    assert site.play("migrate", vm).code == 0
    assert site.play("rollback", vm, ferry_rollback_target="removed").code == 0
    assert site.look(vm) == before and site.server(vm) is None and site.ports(vm) == [] and len(site.volumes(vm)) == 2
    assert site.play("rollback", vm, ferry_rollback_target="purged").code == 0
    assert site.volumes(vm) == {} and site.look(vm) == before


@pytest.mark.long
@pytest.mark.fault(
    "OpenStack does not answer when a VM is to come back",
    where="target",
    ends="rollback_target=ignored brings the source back; a later migration refuses until the server is stopped",
)
def test_back_without_openstack(site: UndoSite) -> None:
    vm = NAMES[4]
    before = site.look(vm)
    assert site.play("migrate", vm).code == 0
    away = {"cloud": {"auth": {"auth_url": "http://127.0.0.1:9/v3", "username": "u", "password": "p", "project_name": "p"}}}
    failed = site.play("rollback", vm, ferry_openstack=away)
    assert failed.code != 0 and site.look(vm)["power"] == "poweredOff"
    assert failed.result(vm)["state"] == "failed" and "127.0.0.1:9" in failed.result(vm)["errors"][0]["message"]
    assert site.play("rollback", vm, ferry_openstack=away, ferry_rollback_target="ignored").code == 0
    assert site.look(vm) == before and site.server(vm).status == "ACTIVE"
    refused = site.play("migrate", vm)
    assert refused.code != 0 and "was rolled back while its server" in refused.out, refused.out[-3000:]
    assert site.look(vm) == before
    assert site.play("rollback", vm).code == 0
    assert site.server(vm).status == "SHUTOFF" and site.look(vm) == before


@pytest.mark.long
@pytest.mark.fault(
    "killed between copy and server, and the source runs in between",
    where="source",
    ends="what it has written is copied before a server is made",
)
def test_what_the_source_wrote_before_there_was_a_server(site: UndoSite) -> None:
    vm = NAMES[5]
    site.killed_at("Create the ports that are absent", "migrate", vm)
    assert {v.metadata["ferry_state"] for v in site.volumes(vm).values()} == {"complete"} and site.server(vm) is None
    with open(site.flat(vm, 1), "r+b") as f:
        f.seek(MIB + 4096)
        f.write(b"written after the copy")
    site.power(vm, on=True)
    refused = site.play("migrate", vm)
    assert refused.code != 0 and "runs at its source" in refused.out and site.server(vm) is None, refused.out[-3000:]
    assert site.look(vm)["power"] == "poweredOn"
    site.power(vm, on=False)
    run = site.play("migrate", vm)
    assert run.code == 0, run.out[-4000:]
    site.assert_equal(vm)
    assert site.server(vm).status == "ACTIVE"
