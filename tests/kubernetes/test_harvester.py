# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""harvester_migrate as a user runs it, on a real API server: the addon, a wave, a VM that fails, and again; and what the importer hides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.kubernetes import site as sites
from tests.kubernetes.site import Site
from tests.lab.kubernetes.api import HARVESTER, SECRET, VM
from tests.lab.kubernetes.harvester import ADDON, ADDON_PLACE, IMPORT, SOURCES

VMWARE = SOURCES["VmwareSource"][0]


@pytest.fixture
def pair(site: Site) -> Iterator[Site]:
    """Two VMs that can be imported, and Harvester's addon, disabled as it comes."""
    space, name = ADDON_PLACE
    if space not in {n["metadata"]["name"] for n in site.api.list(sites.NAMESPACE)}:
        sites.namespace(site.api, space)
    spec = {
        "enabled": False,
        "chart": name,
        "repo": "http://charts.example",
        "version": "1.8.1",
        "valuesContent": "resources:\n  limits: {cpu: 1}\n",
    }
    site.api.create(ADDON, space, {"apiVersion": HARVESTER, "kind": "Addon", "metadata": {"name": name}, "spec": spec})
    site.write(
        ferry_target_namespace=site.namespace,
        ferry_network_map={"*": "default/vlan1"},
        ferry_storage_map={"*": "longhorn"},
        ferry_harvester_reach=False,
        ferry_harvester_interval=1,
        ferry_harvester_source_timeout=20,
        ferry_harvester_export_timeout=30,
        ferry_harvester_scratch_class="longhorn",
    )
    yield site
    site.api.delete(ADDON, *ADDON_PLACE)


def states(site: Site) -> dict[str, str]:
    return {o["metadata"]["name"]: o.get("status", {}).get("importStatus", "") for o in site.api.list(IMPORT, site.namespace)}


@pytest.mark.long
def test_a_wave_from_nothing_and_away_again(pair: Site) -> None:
    said = pair.play("harvester_migrate", "--check")
    assert "VirtualMachineImport" in said
    assert states(pair) == {}
    addon = pair.api.get(ADDON, *ADDON_PLACE)
    assert addon is not None and addon["spec"]["enabled"] is False

    pair.cluster.switch(failing_vms={"db01": {"reason": "no space left on device"}})
    said = pair.play("harvester_migrate", "-vv", code=2)
    assert "VMExportFailed: no space left on device" in said
    assert "web01: virtualMachineRunning" in said
    assert "4 vCPUs at 2 a socket become 8" in said
    assert pair.vcenter.place.password() not in said
    assert states(pair) == {"web01": "virtualMachineRunning", "db01": "VMMigrationFailed"}
    addon = pair.api.get(ADDON, *ADDON_PLACE)
    assert addon is not None and addon["spec"]["enabled"] is True
    values = yaml.safe_load(addon["spec"]["valuesContent"])
    assert values["pvcClaim"] == {"enabled": True, "size": "2Gi", "storageClass": "longhorn", "storageClassName": "longhorn"}
    assert values["resources"] == {"limits": {"cpu": 1}}
    web = pair.api.get(IMPORT, pair.namespace, "web01")
    assert web is not None and web["spec"]["folder"] == "prod/web"

    pair.clear()
    said = pair.play("harvester_migrate")
    assert states(pair) == {"web01": "virtualMachineRunning", "db01": "virtualMachineRunning"}
    assert pair.play("harvester_migrate").count("changed=0") == 2
    pair.play("harvester_migrate", "-e", "ferry_harvester_action=cleanup")
    assert states(pair) == {}
    assert pair.api.list(VMWARE, pair.namespace) == pair.api.list(SECRET, pair.namespace) == []


@pytest.mark.long
def test_what_the_importer_would_hide(pair: Site) -> None:
    pair.write(*sites.VMS, ferry_target_namespace=pair.namespace, ferry_network_map={"VM Network": "default/vlan1"})
    said = pair.play("harvester_migrate", code=2)
    assert "'DC0 C0_VM2' cannot be imported" in said or "DC0 C0_VM2" in said
    assert "'backend' of db01 has no entry in ferry_network_map" in said
    assert "Nothing was touched" in said
    assert states(pair) == {}
    pair.write(*sites.VMS[:1], "gone01", ferry_target_namespace=pair.namespace)
    assert "gone01" in pair.play("harvester_migrate", code=2)


@pytest.mark.long
def test_a_source_that_says_nothing(pair: Site) -> None:
    pair.cluster.switch(silent_providers=["wave1-source"])
    said = pair.play("harvester_migrate", "-e", "ferry_harvester_source_timeout=4", code=2)
    assert "VmwareSource wave1-source" in said and "its status is empty" in said
    assert states(pair) == {}


@pytest.mark.long
def test_an_export_that_hangs(pair: Site) -> None:
    pair.cluster.switch(hold="sourceReady")
    said = pair.play("harvester_migrate", "-e", "ferry_harvester_export_timeout=4", code=2)
    assert "did not export its disks within 4 s" in said and "web01: sourceReady" in said


def test_an_addon_without_room(pair: Site) -> None:
    pair.api.patch(ADDON, *ADDON_PLACE, {"spec": {"enabled": True, "valuesContent": "pvcClaim: {enabled: true, size: 1Gi}\n"}})
    said = pair.play("harvester_migrate", code=2)
    assert "a volume of 1Gi, and this wave needs 2 GiB" in said
    assert states(pair) == {}


@pytest.mark.long
def test_processors_and_memory_are_mended_where_that_is_allowed(pair: Site) -> None:
    said = pair.play("harvester_migrate")
    assert "db01: vCPUs: 4 at the source, 8 now; memory: " in said and "ferry_harvester_mend=true" in said
    pair.change(ferry_harvester_mend=True)
    said = pair.play("harvester_migrate")
    assert "db01: as its source" in said and "after its next restart" in said
    found = pair.api.get(VM, pair.namespace, "db01")
    assert found is not None
    domain = found["spec"]["template"]["spec"]["domain"]
    assert domain["cpu"] == {"cores": 2, "sockets": 2, "threads": 1}
    assert domain["memory"]["guest"] == domain["resources"]["limits"]["memory"] == f"{pair.sources['db01']['memory_mb']}Mi"
    # What was not wrong is as it was.
    assert len(domain["devices"]["interfaces"]) == 2
    assert pair.play("harvester_migrate").count("changed=0") == 2


@pytest.mark.long
def test_a_card_that_is_not_there(pair: Site) -> None:
    pair.cluster.switch(made_wrong={"db01": {"devices": {"interfaces": []}}})
    said = pair.play("harvester_migrate", code=2)
    assert "db01 runs, but is not as its source: network cards: 00:50:56:0a:01:00, 00:50:56:0a:01:01 at the source, none now" in said
    assert "web01 runs, but" not in said


@pytest.mark.long
@pytest.mark.fault(
    "A guest does not shut down for Harvester's importer", where="Kubernetes", ends="said after the timeout; its plug is not pulled"
)
def test_a_guest_that_does_not_shut_down(pair: Site) -> None:
    pair.cluster.switch(hold="VMShutdownGuest")
    said = pair.play("harvester_migrate", "-e", "ferry_shutdown_timeout=3", code=2)
    assert "The guest of db01, web01 did not shut down within 3 s" in said
    specs = [o["spec"] for o in pair.api.list(IMPORT, pair.namespace)]
    assert {(s["forcePowerOff"], s["gracefulShutdownTimeoutSeconds"]) for s in specs} == {(False, 2147483647)}


def test_what_the_cluster_and_the_account_lack(pair: Site) -> None:
    pair.write(
        "db01",
        sites.ODD,
        ferry_target_namespace=pair.namespace,
        ferry_strategy="warm",
        ferry_network_map={"*": "default/vlan9"},
        ferry_storage_map={"*": "floppy"},
        ferry_harvester_reach=False,
    )
    pair.vcenter.switch("privileges_missing", "VApp.Export")
    try:
        said = pair.play("harvester_migrate", code=2)
    finally:
        pair.vcenter.switch("privileges_missing", "")
    for words in (
        "The account lacks VApp.Export",
        "odd01: VMware Tools issues detected",
        "Warm migration is not supported",
        "no StorageClass floppy",
        "no NetworkAttachmentDefinition default/vlan9",
        "db01: Number of vCPUs comes out wrong",
        "Nothing was touched",
    ):
        assert words in said, words
    assert states(pair) == {}
