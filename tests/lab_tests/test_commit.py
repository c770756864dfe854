# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Committing migrations: what may be deleted, what is, and what never."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import commit
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client, find, restore

from .undo_site import UndoSite, undo_site

NAMES = ("done 在庫", "running", "played")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UndoSite]:
    with undo_site(tmp_path_factory.mktemp("commit"), NAMES, "8a04") as made:
        yield made


def committed(site: UndoSite, vm: str, *delete: str, check: bool = False) -> dict[str, Any]:
    return commit.run({**site.connection(), "vm": vm, "delete": list(delete)}, check=check)


def ledger(site: UndoSite, vm: str) -> Path:
    path = site.folder / "ferry" / "ledgers" / f"{site.uuid(vm)}--2000--0123456789abcdef.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 1000)
    path.with_suffix(".sqlite.lock").write_bytes(b"")
    return path


def test_says_what_may_go_and_deletes_what_is_named(site: UndoSite) -> None:
    """One after the other: refused while anything is missing, listed, committed, the source deleted, and again without a source."""
    vm = NAMES[0]
    with pytest.raises(BadInput) as caught:
        committed(site, NAMES[1], "source")
    assert caught.value.code == "not_done" and "its source is on" in caught.value.message and "no server" in caught.value.message
    site.land(vm, copied=True)
    kept = ledger(site, vm)
    volume = site.volumes(vm)["2001"]
    site.cloud.block_storage.set_volume_metadata(volume, ferry_state="copying")
    with pytest.raises(BadInput) as caught:
        committed(site, vm, "source", "ledgers")
    assert "is not complete" in caught.value.message and site.state(vm) == "migrated"
    site.cloud.block_storage.set_volume_metadata(volume, ferry_state="complete")
    said = committed(site, vm, "source", check=True)
    assert {i["kind"] for i in said["left"]} == {"ledgers"} and [i["kind"] for i in said["deleted"]] == ["source"]
    assert said["deleted"][0]["bytes"] > 0 and sum(i["bytes"] for i in said["left"]) == 1000
    assert site.state(vm) == "migrated" and kept.exists()
    said = committed(site, vm)
    assert said["changed"] and said["deleted"] == [] and {i["kind"] for i in said["left"]} == {"source", "ledgers"}
    assert site.state(vm) == "committed" and kept.exists()
    assert committed(site, vm)["changed"] is False
    with client.connect(site.connection()) as session, pytest.raises(BadInput) as caught:
        restore.restore(session, find.find_vm(session, vm))
    assert caught.value.code == "committed"
    somebodys = site.client.snapshot(site.client.vm(vm), "before the upgrade")
    with pytest.raises(BadInput) as caught:
        committed(site, vm, "source")
    assert caught.value.code == "shared" and "before the upgrade" in caught.value.message
    site.client.wait(somebodys.RemoveSnapshot_Task(False))
    state = site.volumes(vm)["2001"].metadata["ferry_source_state"]
    site.cloud.block_storage.set_volume_metadata(volume, ferry_source_state="of before it ran once more")
    with pytest.raises(BadInput) as caught:
        committed(site, vm, "source")
    assert caught.value.code == "written_since" and "Hard disk 2" in caught.value.message
    assert vm in {v["name"] for v in site.vcenter.ask("/state")["vms"]}
    site.cloud.block_storage.set_volume_metadata(volume, ferry_source_state=state)
    said = committed(site, vm, "source")
    assert [i["kind"] for i in said["deleted"]] == ["source"] and kept.exists()
    assert vm not in {v["name"] for v in site.vcenter.ask("/state")["vms"]}
    assert site.server(vm).status == "ACTIVE" and {v.status for v in site.volumes(vm).values()} == {"in-use"}
    said = committed(site, vm, "source", "ledgers")
    assert said["changed"] and not kept.exists()
    assert committed(site, vm, "source", "ledgers")["changed"] is False


def test_a_vm_that_is_not_known_stays_an_error(site: UndoSite) -> None:
    with pytest.raises(BadInput) as caught:
        committed(site, "nobody", "source")
    assert "nobody" in caught.value.message


@pytest.mark.long
def test_the_playbook(site: UndoSite) -> None:
    vm = NAMES[2]
    assert site.play("migrate", vm).code == 0
    plan = site.play("commit", vm, arguments=("--check",))
    assert plan.code == 0 and "may be deleted" in plan.out and "virtual machine" in plan.out, plan.out[-3000:]
    assert site.state(vm) == "migrated"
    done = site.play("commit", vm, ferry_commit_delete=["source", "ledgers"])
    assert done.code == 0 and "deleted: virtual machine" in done.out, done.out[-3000:]
    assert vm not in {v["name"] for v in site.vcenter.ask("/state")["vms"]} and site.server(vm).status == "ACTIVE"
    again = site.play("commit", vm, ferry_commit_delete=["source", "ledgers"])
    assert again.code == 0 and set(again.changed.values()) == {0}, again.out[-3000:]
