# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook ferry.vmware.plan, and what migrate does with a plan, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import openstack
import pytest
from pyVmomi import vim

from .test_migrate import Run, Site
from .vcenter_lab import MIB, Client, running, write_raw

UUID = "50210a1b-88{0:02d}-4c6e-9f01-7a1e5b1c0001"
APP, BUSY, LOST = "計画 app", "busy", "lost"
NAMES = (APP, BUSY, LOST, "first", "second")
SIZES = {"root": 24 * MIB + 3 * 512, "data": 9 * MIB}
#: Methods of vSphere that a plan calls; none of them changes anything but the session and its own views and filters.
READS = re.compile(
    r"^(Login|Logout|CurrentTime|Retrieve\w*|ContinueRetrieve\w*|Fetch\w*|Has\w*|Query\w*|Find\w*|CreateContainerView|DestroyView"
    r"|CreateFilter|DestroyPropertyFilter|CancelRetrieve\w*|SessionIsActive)$"
)


def write_model(folder: Path, names: Sequence[str] = NAMES) -> Path:
    """Running VMs of one disk, but for the first."""
    for seed, (name, size) in enumerate(SIZES.items()):
        write_raw(folder / f"{name}.raw", size, seed)

    def vm(number: int, name: str, *disks: str, network: str = "VM Network") -> dict[str, Any]:
        return {
            "name": name,
            "uuid": UUID.format(number),
            "host": "esx1",
            "datastore": "shared",
            "guest_id": "debian12_64Guest",
            "memory_mb": 256,
            "power": "on",
            "shutdown_seconds": 0.1,
            "disks": [{"controller": "pvscsi", "unit": i, "path": f"{d}.raw", "provisioning": "thin"} for i, d in enumerate(disks)],
            "nics": [{"network": network, "mac": f"00:50:56:88:{number:02x}:01"}],
        }

    disks = {APP: ("root", "data"), BUSY: ("data",), LOST: ("data",)}
    rows = [
        vm(n, name, *disks.get(name, ("root",)), network="unmapped" if name == LOST else "VM Network") for n, name in enumerate(names, 1)
    ]
    model = {
        "datacenter": "DC lab",
        "clusters": [{"name": "C0", "hosts": ["esx1", "esx2"]}],
        "networks": ["VM Network", "unmapped"],
        "datastores": [{"name": "shared", "capacity": "2TiB", "hosts": ["esx1", "esx2"]}],
        "vms": rows,
    }
    path = folder / "model.json"
    path.write_text(json.dumps(model), encoding="utf-8")
    return path


class PlanSite(Site):
    """A site whose playbook can be another one."""

    vms: ClassVar[dict[str, Any]] = {
        "app": APP,
        "busy": {"ferry_vm": BUSY, "ferry_strategy": "warm", "ferry_downtime_budget": 60},
    }

    @property
    def saved(self) -> Path:
        return self.folder / "plan.json"

    def play(self, playbook: str, *hosts: str, arguments: tuple[str, ...] = (), **variables: Any) -> Run:
        """Run it; the plan that was written as C(report)."""
        made = self.folder / "made.json"
        made.unlink(missing_ok=True)
        variables = {"ferry_plan_json": str(made), "ferry_plan_html": str(self.folder / "plan.html"), **variables}
        command = self.command(*hosts, arguments=arguments, **variables)
        command[1] = f"ferry.vmware.{playbook}"
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=self.patience, check=False)
        print(done.stdout, done.stderr)
        return Run(done.returncode, done.stdout + done.stderr, json.loads(made.read_text()) if made.exists() else {})

    def held(self, *hosts: str, plan: Path | None = None, **variables: Any) -> Run:
        """What a migration in check mode says of a plan that was saved."""
        return self.play(
            "migrate", *hosts, arguments=("--check",), ferry_plan=str(plan or self.saved), ferry_plan_precheck=False, **variables
        )

    def remove_all(self) -> None:
        for number in range(1, 6):
            for server in [s for s in self.cloud.compute.servers() if s.metadata.get("ferry_source") == UUID.format(number)]:
                self.cloud.compute.delete_server(server)
                self.cloud.compute.wait_for_delete(server, interval=0.5)
            for port in self.cloud.network.ports(tags=f"ferry_source={UUID.format(number)}"):
                self.cloud.network.delete_port(port)
        storage, newer = self.cloud.block_storage, {"microversion": "3.27"}
        for volume in storage.volumes(details=True):
            if str(volume.metadata.get("ferry_source")).startswith(UUID[:11]):
                for left in storage.get(f"/attachments?volume_id={volume.id}", **newer).json()["attachments"]:
                    storage.delete(f"/attachments/{left['id']}", **newer)  # of a killed copy
                storage.delete_volume(volume)
                storage.wait_for_delete(volume, interval=0.5, wait=60)

    def state(self) -> dict[str, Any]:
        """All that could have been changed: VMs with their configurations, what is in the cloud, the conversion host's files."""
        source = []
        for name, vm in sorted(self.client.all(vim.VirtualMachine).items()):
            values = sorted((v.key, v.value) for v in vm.customValue)
            cards = [(d.connectable.connected, d.connectable.startConnected) for d in vm.config.hardware.device if hasattr(d, "macAddress")]
            source.append(
                (name, vm.config.changeVersion, str(vm.config.modified), vm.runtime.powerState, vm.snapshot is None, values, cards)
            )
        cloud = self.cloud
        target = [
            *((v.id, v.status, sorted(v.metadata.items())) for v in cloud.block_storage.volumes(details=True)),
            *((p.id, p.name, p.device_id) for p in cloud.network.ports()),
            *((s.id, s.status) for s in cloud.compute.servers()),
            *(g.id for g in cloud.compute.server_groups()),
        ]
        fields = sorted(f.name for f in self.client.content.customFieldsManager.field)
        files = sorted(str(p) for p in (self.folder / "ferry").rglob("*"))
        return {"source": source, "fields": fields, "target": sorted(map(str, target)), "files": files}


def writes_in_logs() -> list[str]:
    """Requests in the logs of the cloud's services that are no reads; the log-in is none, nor what the services say to each other."""
    found = []
    for log in sorted((Path(os.environ["FERRY_LAB_DIR"]) / "openstack" / "log").glob("*.log")):
        for line in log.read_text(errors="replace").splitlines():
            if log.name != "placement.log" and re.search(r'"(POST|PUT|PATCH|DELETE) /', line) and "/auth/tokens" not in line:
                found.append(f"{log.name}: {line}")
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlanSite]:
    folder = tmp_path_factory.mktemp("plan")
    with running(folder, write_model(folder)) as vcenter, openstack.connect(cloud="lab") as cloud:
        made = PlanSite(folder, vcenter, Client(vcenter), cloud)
        made.remove_all()
        yield made
        made.client.close()
        made.remove_all()


def figures(plan: dict[str, Any]) -> dict[str, Any]:
    """C(plan) without what is of the moment."""
    return {k: v for k, v in plan.items() if k not in ("made", "title")}


def test_a_plan_tells_the_night_and_changes_nothing(site: PlanSite) -> None:
    before, wrote = site.state(), writes_in_logs()
    site.control("DELETE", "/stats")
    run = site.play("plan", "app", "busy")
    called = site.control("GET", "/stats")["methods"]
    assert run.code == 0, run.out[-6000:]
    assert [m for m in called if not READS.match(m)] == [] and sum(called.values()) <= 30, called
    assert site.state() == before and writes_in_logs() == wrote
    assert set(run.changed.values()) == {0}
    plan = run.report
    app, busy = plan["vms"]
    assert [d["capacity"] for d in app["disks"]] == list(SIZES.values()) and all(d["allocated"] < 3 * MIB for d in app["disks"])
    assert [p["name"] for p in app["phases"]] == ["prepare", "copy", "verify", "land", "ready", "note"]
    assert [p["name"] for p in busy["phases"]] == ["prepare", "precopy", "cutover", "land", "ready", "note"]
    assert busy["disks"][0]["reads"] < 3 * MIB < app["disks"][0]["reads"], "warm, what is allocated is known"
    assert busy["downtime_seconds"] > 0 and app["flavor"] and app["conversion_host"] == "localhost"
    assert {q["resource"]: q["after"] - q["used"] for q in plan["quotas"]}["volumes"] == 3
    assert APP in run.out and "~ is a guess" in run.out and plan["vcenter"]["instance"]
    assert APP in (site.folder / "plan.html").read_text(encoding="utf-8")
    assert {c["id"] for c in busy["concerns"]} >= {"vmware.changed_block_tracking.disabled"}
    site.saved.write_text(json.dumps(plan), encoding="utf-8")


@pytest.mark.long
def test_check_of_migrate_gives_the_same(site: PlanSite) -> None:
    plan = site.play("plan", "app", "busy").report
    run = site.play("migrate", "app", "busy", arguments=("--check",))
    assert run.code == 0 and figures(run.report) == figures(plan), run.out[-3000:]
    assert run.changed["app"] == 1 and "copied from snapshots in cycles while it runs" in run.out


@pytest.mark.long
def test_what_cannot_land_is_told_with_all_the_rest(site: PlanSite) -> None:
    run = site.play("plan", "app", "lost")
    assert run.code != 0 and "cannot land as planned" in run.out, run.out[-3000:]
    app, lost = run.report["vms"]
    assert app["ready"] and not lost["ready"] and "unmapped" in json.dumps(lost["concerns"])
    assert run.report["totals"]["ready"] == 1


@pytest.mark.long
def test_a_wave_of_which_some_are_not_there_is_planned_without_them(site: PlanSite) -> None:
    run = site.play("plan", "ghost", "first")
    assert run.code != 0 and "1 of the VMs cannot be found, or are not clear: ghost" in run.out, run.out[-3000:]
    assert run.report["wave"] == ["first"] and any(
        c["category"] == "critical" and c.get("device") == "ghost" for c in run.report["concerns"]
    )


@pytest.mark.long
def test_a_wave_is_held_to_its_plan(site: PlanSite) -> None:
    site.saved.write_text(json.dumps(site.play("plan", "app", "busy", ferry_plan_precheck=False).report), encoding="utf-8")
    again = site.held("app", "busy")
    # The inventory's file was written anew by the test, with the same content.
    assert again.code != 0 and "older than the inventory" in again.out
    plan = json.loads(site.saved.read_text())
    plan["made"] = "2099-01-01T00:00:00+00:00"
    site.saved.write_text(json.dumps(plan), encoding="utf-8")
    again = site.held("app", "busy")
    assert again.code == 0 and "drifted" not in again.out, again.out[-3000:]
    vm = site.client.vm(BUSY)
    site.client.wait(vm.PowerOff())
    try:
        # Not in check mode: what stops one of them stops all.
        drifted = site.play(
            "migrate",
            *("app", "busy", "first"),
            ferry_plan=str(site.saved),
            ferry_plan_precheck=False,
            ferry_landing={"flavor": "m1.tiny"},
        )
        assert drifted.code != 0 and "no longer what was planned" in drifted.out
        for words in ("busy: its power was on, it is off", "first is in the wave, and not in the plan", "app: the flavor was"):
            assert words in drifted.out, words
        warned = site.held("busy", ferry_plan_drift="warn")
        assert warned.code == 0 and "app is in the plan, and no longer in the wave" in warned.out
    finally:
        site.client.wait(vm.PowerOn())
    for change, words in ({"version": 7}, "version 7"), ({"vcenter": {"instance": "another"}}, "another vCenter"), ({"vms": 3}, "damaged"):
        other = site.folder / "other.json"
        other.write_text(json.dumps({**plan, **change}), encoding="utf-8")
        refused = site.held("app", "busy", plan=other, ferry_plan_drift="warn")
        assert refused.code != 0 and words in refused.out and "Traceback" not in refused.out
    ours = [v.name for v in site.cloud.block_storage.volumes(details=True) if str(v.metadata.get("ferry_source")).startswith(UUID[:11])]
    assert ours == [] and site.power(APP) == "poweredOn"


@pytest.mark.long
def test_plans_learn_from_migrations(site: PlanSite) -> None:
    """The first VM is a guess, the second one rests on what the first one took."""
    guessed = site.play("plan", "first", ferry_plan_precheck=False).report
    assert guessed["totals"]["basis"] == "guess"
    run = site.play("migrate", "first", ferry_report=str(site.folder / "first.html"))
    assert run.code == 0, run.out[-4000:]
    known = json.loads((site.folder / "ferry" / "throughput.json").read_text())
    assert known["transports"]["https"]["hosts"]["esx1"]["count"] == 1 and set(known["steps"]) >= {
        "prepare",
        "copy",
        "land",
        "ready",
        "note",
    }
    plan = site.play("plan", "second", ferry_plan_precheck=False).report
    assert plan["totals"]["basis"] == "measured" and plan["totals"]["seconds"] > 0
    plan["made"] = "2099-01-01T00:00:00+00:00"
    site.saved.write_text(json.dumps(plan), encoding="utf-8")
    held = site.play(
        "migrate", "second", ferry_plan=str(site.saved), ferry_plan_precheck=False, ferry_report=str(site.folder / "second.html")
    )
    assert held.code == 0 and site.power("second") == "poweredOff", held.out[-4000:]
    again = site.play("migrate", "second", ferry_plan=str(site.saved), ferry_plan_precheck=False)
    assert again.code == 0 and again.changed["second"] == 0, "what our own steps have changed is no drift"
    done = site.play("plan", "first", "second", ferry_plan_precheck=False).report
    assert done["totals"]["to_do"] == 0 and done["totals"]["seconds"] == 0
