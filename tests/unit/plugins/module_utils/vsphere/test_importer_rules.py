# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a wave's concerns mean where MTV or Harvester's importer moves the disks: categories, labels, privileges, and their own rules."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.concerns import CATEGORIES, Concern
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.ways import why_no_files
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import importer_catalogue, importer_rules, precheck, privileges
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.importer_catalogue import IMPORTERS, OWN, ROWS
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.precheck import Checked
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.precheck_catalogue import KINDS, found
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.precheck_options import Options
from ansible_collections.ferry.vmware.tests.unit.plugins.module_utils.vsphere.test_precheck import machine, wave


def facts(name: str = "web01", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "cpus": 2,
        "cores_per_socket": 1,
        "memory_mb": 1024,
        "guest_id": "rhel9_64Guest",
        "guest_full_name": "Red Hat Enterprise Linux 9",
        "nics": [{"label": "Network adapter 1", "network": "VM Network"}],
        "disks": [{"datastore": "fast"}],
        **more,
    }


def judged(
    target: str, *vms: dict[str, Any], concerns: list[Concern] | None = None, **options: Any
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Categories by id, of each VM and of the wave."""
    own = Options(target=target, **options)
    checked = [Checked(vm["name"], f"vm-{i}", vm, list(concerns or ())) for i, vm in enumerate(vms)]
    of_vms, of_wave = importer_rules.judged(target, checked, [], own, [own] * len(vms))
    return [{c.id: c.category for c in one} for one in of_vms], {c.id: c.category for c in of_wave}


def test_every_concern_has_a_row() -> None:
    assert set(KINDS) | set(OWN) == set(ROWS)
    for name, row in ROWS.items():
        assert {row.openshift, row.harvester} <= {None, *CATEGORIES}, name
        assert row.label and not row.label.endswith(".")
    for target in IMPORTERS:
        assert all(importer_catalogue.advice_of(name, target) for name in ROWS)


@pytest.mark.parametrize(
    ("kind", "category", "openshift", "harvester"),
    [
        ("VMMissingChangedBlockTracking", None, "critical", None),
        ("VMHasSnapshots", "warning", "critical", None),
        ("GuestToolsIssue", None, "critical", "critical"),
        # the importer can pull the plug, MTV wants the tools in any case
        ("GuestToolsIssue", "warning", "critical", "warning"),
        ("vmware.guestDisks.freespace", "warning", "critical", None),
        ("ferry.transport.none", None, None, None),
        ("ferry.vm.encrypted", None, "warning", "critical"),
        ("ferry.tls.expires", "critical", "critical", "critical"),
    ],
)
def test_what_the_sources_concern_means_there(kind: str, category: str | None, openshift: str | None, harvester: str | None) -> None:
    concern = found(kind, "so it is", category=category, disk="Hard disk 1")
    for target, wanted in zip(IMPORTERS, (openshift, harvester), strict=True):
        told = importer_catalogue.translated(concern, target)
        assert (told.category if told else None) == wanted
        assert told is None or (told.label, told.assessment, told.disk) == (ROWS[kind].label, "so it is", "Hard disk 1")


def test_names() -> None:
    assert judged("openshift", facts("web01"))[0] == [{}]
    assert judged("openshift", facts("DB 01"))[0] == [{"TargetNameNotValid": "warning"}]
    assert judged("openshift", facts("在庫"))[0] == [{"TargetNameNotValid": "critical"}]
    assert judged("openshift", facts("DB 01"), target_name="db01")[0] == [{}]
    assert judged("openshift", facts("db01"), target_name="DB_01")[0] == [{"TargetNameNotValid": "critical"}]
    usual = {"ferry.harvester.memory": "information"}
    assert judged("harvester", facts("WEB01"))[0] == [usual]
    assert judged("harvester", facts("DC0_C0_VM0"))[0] == [{"TargetNameNotValid": "critical", **usual}]
    assert judged("harvester", facts("a" * 64))[0][0]["TargetNameNotValid"] == "critical"
    for target in IMPORTERS:
        assert judged(target, facts("web01"), facts("WEB01"))[1] == {"DuplicateVM": "critical"}
        assert judged(target, facts("web01"), facts("web02"))[1] == {}


def test_pod_network() -> None:
    two = facts(nics=[{"label": f"Network adapter {n}", "network": net} for n, net in enumerate(("VM Network", "backend"))])
    assert judged("openshift", two, network_map={"*": "pod"})[0] == [{"VMMultiplePodNetworkMappings": "critical"}]
    assert judged("openshift", two, network_map={"*": "pod", "backend": "ignored"})[0] == [{"NetMapPreservingIPsOnPodNetwork": "warning"}]
    assert judged("openshift", two, network_map={"*": "prod/lan"})[0] == [{}]


def test_warm() -> None:
    assert judged("openshift", facts(), strategy="warm")[1] == {"VDDKInitImageUnavailable": "warning"}
    assert judged("openshift", facts(), strategy="warm", transports=("nbd",))[1] == {}
    assert judged("harvester", facts(), strategy="warm")[1] == {"WarmMigrationNotReady": "critical"}


def test_what_harvesters_importer_makes_of_it() -> None:
    one = facts(cpus=4, cores_per_socket=2, guest_id="windows2019srv_64Guest", disks=[{"datastore": "fast"}, {"datastore": "slow"}])
    assert judged("harvester", one, storage_map={"fast": "a", "slow": {"storage_class": "b"}})[0] == [
        {
            "ferry.harvester.storage": "critical",
            "ferry.harvester.cpus": "warning",
            "ferry.harvester.drivers": "warning",
            "ferry.harvester.memory": "information",
        }
    ]


@pytest.mark.parametrize(
    ("target", "some", "others"),
    [
        ("openshift", {"VirtualMachine.State.CreateSnapshot", "Datastore.FileManagement"}, {"Global.SetCustomField", "VApp.Export"}),
        ("harvester", {"VApp.Export", "VirtualMachine.Interact.PowerOff"}, {"Datastore.Browse", "VirtualMachine.State.CreateSnapshot"}),
    ],
)
def test_privileges_are_the_importers(target: str, some: set[str], others: set[str]) -> None:
    vm = machine()
    asked = {need.privilege for need, on in privileges.needed(vm, wave(vm), Options(target=target), why_no_files)}
    assert some <= asked and not others & asked
    on = {on for need, on in privileges.needed(vm, wave(vm), Options(target="openshift"), why_no_files) if need.on == privileges.DATASTORE}
    assert on == {"datastore-1"}


def test_more_than_ten_of_one_host_and_no_ways_of_ours() -> None:
    vms = [machine(f"vm{n}", f"vm-{n}") for n in range(11)]
    for options, told in ((Options(target="openshift"), True), (Options(), False)):
        own = dict.fromkeys((vm.moref for vm in vms), options)
        found_of_wave = {c.id for c in precheck.judge(wave(*vms), options, own, why_no_files)[1]}
        assert ("ferry.nfc.memory" in found_of_wave) is told
