# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""mtv_migrate where something is wrong: one error with the object's name and its condition, and nothing begun."""

from __future__ import annotations

import pytest

from tests.kubernetes.site import Site, until
from tests.lab.kubernetes.forklift import MIGRATION, PLAN


@pytest.mark.long
def test_a_provider_that_cannot_connect_or_says_nothing(wave: Site) -> None:
    wave.cluster.switch(unreachable_providers=["wave1-source"])
    said = wave.play("mtv_migrate", code=2)
    assert f"Provider wave1-source in {wave.namespace} cannot become ready: ConnectionTestFailed" in said
    assert "connection refused" in said
    wave.clear()
    wave.cluster.switch(silent_providers=["wave1-b-source"])
    said = wave.play("mtv_migrate", "-e", "ferry_mtv_name=wave1-b ferry_mtv_ready_timeout=4", code=2)
    assert f"Provider wave1-b-source in {wave.namespace} was not ready after 4 s" in said and "is the operator running?" in said
    assert wave.api.list(PLAN, wave.namespace) == []


@pytest.mark.long
def test_a_warm_plan_without_change_tracking(wave: Site) -> None:
    vms = {vm["name"]: vm["moref"] for vm in wave.vcenter.get("/state")["vms"]}
    wave.cluster.switch(vms_without_cbt=[vms["db01"]])
    wave.change(ferry_strategy="warm")
    said = wave.play("mtv_migrate", code=2)
    assert "Plan wave1 in" in said and "VMMissingChangedBlockTracking" in said and vms["db01"] in said
    assert wave.api.list(MIGRATION, wave.namespace) == []


def test_a_token_that_is_no_longer_good(wave: Site) -> None:
    said = wave.play("mtv_migrate", code=2, K8S_AUTH_API_KEY="expired")
    assert "Unauthorized" in said
    assert wave.api.list(PLAN, wave.namespace) == []


@pytest.mark.long
def test_what_cannot_be_is_said_at_once(wave: Site) -> None:
    wave.change(ferry_network_map={"*": "pod"}, ferry_storage_map={"fast": "ceph"}, ferry_target_name="one")
    said = wave.play("mtv_migrate", code=2)
    assert "db01 would have 2 cards on the pod network" in said
    assert "the storage 'slow' of db01 has no entry in ferry_storage_map" in said
    assert "would all be called one" in said
    assert "Nothing was touched" in said
    wave.change(
        ferry_target_name="", ferry_network_map={"*": "net/all"}, ferry_storage_map={"*": "ceph"}, ferry_mtv_plan={"colour": "blue"}
    )
    said = wave.play("mtv_migrate", code=2)
    assert "colour" in said
    assert wave.api.list(PLAN, wave.namespace) == []


@pytest.mark.long
@pytest.mark.fault(
    "The Kubernetes API server goes away while a migration is waited for", where="Kubernetes", ends="the wait goes on where it was"
)
def test_the_api_server_is_away_for_a_while(wave: Site) -> None:
    wave.cluster.switch(hold="DiskTransfer")
    with wave.playing("mtv_migrate") as (play, log):
        until(lambda: any(m.get("status", {}).get("vms") for m in wave.api.list(MIGRATION, wave.namespace)), 300)
        wave.cluster.stop_server()
        until(lambda: "the cluster does not answer" in log.read_text(encoding="utf-8"), 300)
        wave.cluster.start_server()
        until(lambda: "the cluster answers again" in log.read_text(encoding="utf-8"), 300)
        wave.clear()
        assert play.wait(300) == 0, log.read_text(encoding="utf-8")
        assert "wave1-1: succeeded" in " ".join(log.read_text(encoding="utf-8").split())
