# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ferry.vmware.rehearse between a precopy and its cutover, on the lab's vCenter and OpenStack."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import snapshot_tag

from .undo_site import UndoSite, no_other_rehearsals, undo_site

NAMES = ("drill 在庫", "elsewhere")
LOOK = [
    {"ansible.builtin.copy": {"content": "{{ rehearse_server | to_json }}", "dest": "{{ ferry_seen }}"}, "changed_when": False},
    {"ansible.builtin.assert": {"that": ["rehearse_server.status == 'ACTIVE'", "rehearse_server.ports | length == 2"]}},
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UndoSite]:
    with undo_site(tmp_path_factory.mktemp("rehearse"), NAMES, "8a02") as made:
        (made.folder / "look.yml").write_text(yaml.safe_dump(LOOK))
        (made.folder / "fails.yml").write_text(yaml.safe_dump([{"ansible.builtin.fail": {"msg": "no answer on port 5432"}}]))
        yield made


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with no_other_rehearsals():
        yield


@pytest.fixture(scope="module")
def precopied(site: UndoSite) -> dict[str, str]:
    """A VM whose volumes are filled while it runs on; their digests and those of the ledger."""
    run = site.play("precopy", NAMES[0])
    assert run.code == 0, run.out[-5000:]
    return site.digests(NAMES[0])


def seen(site: UndoSite) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site.folder / "seen.json").read_text())
    return found


def rehearse(site: UndoSite, tasks: str, **more: Any) -> Any:
    return site.play("rehearse", NAMES[0], ferry_rehearse_assertions=tasks, ferry_seen=str(site.folder / "seen.json"), **more)


def test_a_double_of_it_is_booted_and_nothing_else_is_touched(site: UndoSite, precopied: dict[str, str]) -> None:
    vm = NAMES[0]
    before = site.look(vm)
    run = rehearse(site, "look.yml")
    assert run.code == 0 and set(run.changed.values()) == {0}, run.out[-5000:]
    server = seen(site)
    volumes = site.volumes(vm)
    assert server["status"] == "ACTIVE" and len(server["volumes"]) == 2
    assert not {v.id for v in volumes.values()} & set(server["volumes"]), "the volumes themselves were booted"
    cards = [d.macAddress for d in site.client.vm(vm).config.hardware.device if hasattr(d, "macAddress")]
    assert [p["mac_address"] for p in server["ports"]] == cards
    home = {n.id for n in site.cloud.network.networks() if n.name in ("net-web", "net-backend")}
    assert not home & {p["network_id"] for p in server["ports"]}
    assert site.digests(vm) == precopied and site.look(vm) == before
    assert site.rehearsals() == [] and site.server(vm) is None and site.ports(vm) == []
    assert {v.status for v in volumes.values()} == {"available"}


@pytest.mark.long
@pytest.mark.fault("a rehearsal fails, or is killed", where="target", ends="all of it is removed: at once, or by the next run")
def test_failed_or_killed_it_leaves_nothing(site: UndoSite, precopied: dict[str, str]) -> None:
    vm = NAMES[0]
    failed = rehearse(site, "fails.yml")
    assert failed.code != 0 and "no answer on port 5432" in failed.out and "everything of it was removed" in failed.out, failed.out[-3000:]
    assert site.rehearsals() == [] and site.digests(vm) == precopied
    site.killed_at("Look at it", "rehearse", vm, ferry_rehearse_assertions="look.yml", ferry_seen=str(site.folder / "seen.json"))
    left = site.rehearsals()
    assert len(left) >= 7, left
    assert site.volumes(vm).keys() == {"2000", "2001"} and site.server(vm) is None, "what is rehearsed is not taken for the VM's"
    plan = rehearse(site, "look.yml", arguments=("--check",))
    assert plan.code == 0 and "of an earlier rehearsal removed" in plan.out and sorted(site.rehearsals()) == sorted(left), plan.out[-3000:]
    run = rehearse(site, "look.yml", ferry_rehearse_copy="snapshot")
    assert run.code == 0, run.out[-4000:]
    assert site.rehearsals() == [] and site.digests(vm) == precopied
    assert site.look(vm)["power"] == "poweredOn"


@pytest.mark.long
def test_networks_that_lead_somewhere_are_refused(site: UndoSite, precopied: dict[str, str]) -> None:
    vm = NAMES[0]
    run = rehearse(site, "look.yml", ferry_rehearse_network_map={"net-web": "net-web"})
    assert run.code != 0 and "is not isolated: it is one that the VM is to have" in run.out, run.out[-3000:]
    network = site.cloud.network
    routed = network.create_network(name="routed")
    network.create_subnet(network_id=routed.id, cidr="10.99.0.0/24", ip_version=4)
    router = network.create_port(network_id=routed.id, device_owner="network:router_interface")  # the lab has no routers themselves
    try:
        run = rehearse(site, "look.yml", ferry_rehearse_network_map={"net-backend": "routed"})
        assert run.code != 0 and "a router is attached to it" in run.out, run.out[-3000:]
        network.delete_port(router)
        run = rehearse(site, "look.yml", ferry_rehearse_network_map={"net-backend": "routed"})
        assert run.code == 0 and seen(site)["ports"][1]["network_id"] == routed.id, run.out[-3000:]
    finally:
        network.delete_port(router, ignore_missing=True)
        network.delete_network(routed)
    assert site.rehearsals() == [] and site.digests(vm) == precopied


@pytest.mark.long
def test_there_is_nothing_to_rehearse_before_a_precopy(site: UndoSite) -> None:
    run = site.play("rehearse", NAMES[1])
    assert run.code != 0 and "has no volume yet" in run.out and "ferry.vmware.precopy" in run.out, run.out[-3000:]
    assert site.rehearsals() == [] and site.look(NAMES[1])["power"] == "poweredOn"


@pytest.mark.long
@pytest.mark.fault(
    "a second rehearsal of a VM is begun while the first one's tasks look at it",
    where="controller",
    ends="it refuses and leaves the first alone; of one whose playbook is dead it removes what is left",
)
def test_another_ones_rehearsal_is_left_alone(site: UndoSite) -> None:
    vm = NAMES[1]
    storage = site.cloud.block_storage

    def made_by(owner: str) -> None:
        """A volume as a rehearsal by that playbook has it."""
        known = {"ferry_rehearsal": site.uuid(vm), "ferry_rehearsal_by": owner}
        storage.wait_for_status(storage.create_volume(name="theirs", size=1, metadata=known), interval=0.3, wait=60)

    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            owner = f"{snapshot_tag.process_name(other.pid)} {vm}"
            made_by(owner)
            refused = site.play("rehearse", vm)
            assert refused.code != 0 and "It is being rehearsed by another playbook" in refused.out, refused.out[-3000:]
            assert site.rehearsals() == ["theirs"], "the removal at the end is of one's own"
        finally:
            other.kill()
    over = site.play("rehearse", vm)  # there is nothing to rehearse yet, which is seen when the old one is gone
    assert "has no volume yet" in over.out and site.rehearsals() == [], over.out[-3000:]
    made_by(f"elsewhere:{owner.partition(':')[2]}")
    refused = site.play("rehearse", vm)
    assert "by elsewhere, it seems" in refused.out and site.rehearsals() == ["theirs"], refused.out[-3000:]
    assert "has no volume yet" in site.play("rehearse", vm, ferry_rehearse_again=True).out and site.rehearsals() == []


@pytest.mark.long
def test_each_vm_of_a_wave_is_rehearsed_for_itself(site: UndoSite, precopied: dict[str, str]) -> None:
    """By the playbook, and planned by the role in a play of the user's whose strategy is linear: none gets the plan of another."""
    run = site.play("precopy", NAMES[1])
    assert run.code == 0, run.out[-5000:]
    linear = site.folder / "linear.yml"
    play = {"hosts": "wave", "gather_facts": False, "connection": "local", "strategy": "linear", "roles": ["ferry.vmware.rehearse"]}
    linear.write_text(yaml.safe_dump([play]))
    for playbook, arguments in ((str(linear), ("--check",)), ("rehearse", ())):
        pattern = str(site.folder / "seen of {{ rehearse_result.name | default(migrate_facts.name) }}.json")
        run = site.play(playbook, *NAMES, arguments=arguments, ferry_rehearse_assertions="look.yml", ferry_seen=pattern)
        assert run.code == 0 and set(run.changed.values()) == {0}, run.out[-5000:]
        if arguments:
            assert [run.out.count(f"server rehearsal-{vm.split()[0]}") for vm in NAMES] == [1, 1], run.out[-5000:]
    for vm in NAMES:
        server = json.loads((site.folder / f"seen of {vm}.json").read_text())
        cards = [d.macAddress for d in site.client.vm(vm).config.hardware.device if hasattr(d, "macAddress")]
        assert [p["mac_address"] for p in server["ports"]] == cards and vm in server["name"]
    assert site.rehearsals() == [] and site.digests(NAMES[0]) == precopied
