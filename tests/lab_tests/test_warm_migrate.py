# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ferry.vmware.migrate with ferry_strategy: warm, from a vCenter of the tests' own whose guests write, to the lab's OpenStack."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest

from .vcenter_lab import Client, running
from .warm_site import KEYS, SIZES, WarmSite, write_model

UUID = "50210a1b-78{0:02d}-4c6e-9f01-7a1e5b1c0001"
NAMES = ("warm 在庫", "apart", "killed warm", "started")


class Landing(WarmSite):
    """The site with a cloud to land in."""

    cloud: Any

    def number(self, vm: str) -> int:
        return NAMES.index(vm)

    def play(self, playbook: str, vm: str, arguments: tuple[str, ...] = (), **variables: Any) -> tuple[int, str, dict[str, Any]]:
        """Exit code, output, and the VM's part of the report."""
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        done = subprocess.run(
            self.order(playbook, vm, arguments, **variables),
            env=self.surroundings(),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        print(done.stdout, done.stderr)
        told = json.loads(report.read_text())["vms"][0] if report.exists() else {}
        return done.returncode, done.stdout + done.stderr, told

    def surroundings(self) -> dict[str, str]:
        env = self.environment()
        return env | {"PATH": os.pathsep.join([os.environ["FERRY_LAB_SHIM"], str(Path(self.tool()).parent), env["PATH"]])}

    def order(self, playbook: str, vm: str, arguments: tuple[str, ...] = (), **variables: Any) -> list[str]:
        inventory = {
            "wave": {
                "hosts": {vm: {"ferry_vm": vm}},
                "vars": {
                    "ferry_strategy": "warm",
                    "ferry_network_map": {"VM Network": "net-web"},
                    "ferry_ledger": str(self.folder / "ferry"),
                    "ferry_report_json": str(self.folder / "report.json"),
                    "ferry_progress_interval": 0.5,
                    "ferry_precopy_interval": 0,
                    "ferry_downtime_budget": 60,
                    "ferry_shutdown_seconds": 1,
                }
                | variables,
            }
        }
        path = self.folder / f"landing-{self.number(vm)}.json"
        path.write_text(json.dumps(inventory), encoding="utf-8")
        return [self.tool(), f"ferry.vmware.{playbook}", "-i", str(path), "-e", "ferry_wave=wave", *arguments]

    def volumes(self, vm: str) -> dict[str, Any]:
        rows = self.cloud.block_storage.volumes(details=True)
        return {v.metadata["ferry_disk"]: v for v in rows if v.metadata.get("ferry_source") == UUID.format(self.number(vm))}

    def server(self, vm: str) -> Any:
        return next((s for s in self.cloud.compute.servers() if s.metadata.get("ferry_source") == UUID.format(self.number(vm))), None)

    def assert_landed(self, vm: str, log: Path) -> None:
        """The volumes hold what the guest had at last, twice shown; the server runs, the source does not."""
        volumes = self.volumes(vm)
        for index, (key, size) in enumerate(zip(KEYS, SIZES.values(), strict=True)):
            file = Path(os.environ["FERRY_LAB_DIR"]) / "openstack" / "cinder" / "export" / f"volume-{volumes[str(key)].id}"
            with open(file, "rb") as f:
                found = f.read(size)
            assert hashlib.sha256(found).hexdigest() == self.sha256(vm, key), key
            assert found == self.expected(index, log), key
            assert volumes[str(key)].metadata["ferry_state"] == "complete"
        assert self.server(vm).status == "ACTIVE"
        assert not self.running(vm) and self.snapshots(vm) == []

    def volume_sha256(self, vm: str, key: int, size: int) -> str:
        file = Path(os.environ["FERRY_LAB_DIR"]) / "openstack" / "cinder" / "export" / f"volume-{self.volumes(vm)[str(key)].id}"
        with open(file, "rb") as f:
            return hashlib.sha256(f.read(size)).hexdigest()

    def remove_all(self) -> None:
        for vm in NAMES:
            server = self.server(vm)
            if server is not None:
                self.cloud.compute.delete_server(server)
                self.cloud.compute.wait_for_delete(server, interval=0.5)
            for port in self.cloud.network.ports(tags=f"ferry_source={UUID.format(self.number(vm))}"):
                self.cloud.network.delete_port(port)
            for volume in self.volumes(vm).values():
                storage, newer = self.cloud.block_storage, {"microversion": "3.27"}
                for left in storage.get(f"/attachments?volume_id={volume.id}", **newer).json()["attachments"]:
                    storage.delete(f"/attachments/{left['id']}", **newer)  # of a killed copy
                storage.delete_volume(volume)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Landing]:
    folder = tmp_path_factory.mktemp("landing")
    more = {"nics": [{"network": "VM Network"}], "guest_id": "debian12_64Guest"}
    model = write_model(folder, NAMES, lambda i: {**more, "uuid": UUID.format(i)})
    with running(folder, model) as vcenter, openstack.connect(cloud="lab") as cloud:
        made = Landing(folder, vcenter)
        made.cloud = cloud
        made.remove_all()
        yield made
        made.remove_all()


def test_migrated_while_its_guest_writes(site: Landing) -> None:
    vm = NAMES[0]
    code, out, _told = site.play("migrate", vm, ("--check",))
    assert code == 0 and "copied from snapshots in cycles while it runs" in out and "at most 60 s of downtime" in out, out[-3000:]
    assert site.running(vm) and not site.volumes(vm)
    with site.writer(vm, rate=1) as log:
        code, out, told = site.play("migrate", vm, ferry_precopy_min_cycles=3)
        assert code == 0, out[-6000:]
    site.assert_landed(vm, log)
    assert told["state"] == "migrated" and [c["mode"] for c in told["cycles"]][:4] == ["full", *["incremental"] * 3]
    away = told["downtime"]
    assert away["budget"] == 60 and away["shutdown"] + away["copy"] <= away["seconds"] and away["outside_wrong"] == 0
    assert away["outside_checked"] > 0 and away["predicted"] > 0
    assert sum(d["bytes_read"] for d in told["disks"]) >= sum(c["bytes_read"] for c in told["cycles"])
    code, out, told = site.play("migrate", vm)
    assert code == 0 and told["state"] == "unchanged" and "changed=0" in out, out[-3000:]


@pytest.mark.long
def test_precopied_one_day_and_cut_over_another(site: Landing) -> None:
    vm = NAMES[1]
    with site.writer(vm, rate=1) as log:
        code, out, told = site.play("precopy", vm)
        assert code == 0 and told["state"] == "precopied" and told["server"] is None, out[-5000:]
        assert site.running(vm) and site.server(vm) is None and len(site.volumes(vm)) == 2
        assert {v.metadata["ferry_state"] for v in site.volumes(vm).values()} == {"copying"}
        code, out, told = site.play("cutover", vm)
        assert code == 0, out[-6000:]
    site.assert_landed(vm, log)
    assert {d["mode"] for d in told["disks"]} == {"incremental"} and len(told["cycles"]) == 1


@pytest.mark.long
@pytest.mark.fault(
    "SIGKILL between the shutdown and the landing",
    where="copy",
    ends="the next run copies the rest of the VM that is off, and lands it: equal",
)
def test_killed_between_shutdown_and_landing(site: Landing) -> None:
    """SIGKILL while the last delta is copied: the next run copies it, without precopying a VM that is off, and lands it."""
    vm = NAMES[2]
    with site.writer(vm, rate=4) as log:
        code, out, _told = site.play("precopy", vm)
        assert code == 0, out[-5000:]
        order = site.order("cutover", vm, ferry_cutover_refresh=False, ferry_read_budget={"overall": {"rate": 1}})
        with open(site.folder / "killed.txt", "w+", encoding="utf-8") as said:
            process = subprocess.Popen(order, env=site.surroundings(), stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                end = time.monotonic() + 120
                while site.running(vm) or not site.copying():
                    assert process.poll() is None and time.monotonic() < end, (site.folder / "killed.txt").read_text()[-3000:]
                    time.sleep(0.05)
            finally:
                for pid in site.copying():
                    os.kill(pid, signal.SIGKILL)
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)
    assert site.server(vm) is None and not site.running(vm)
    code, out, told = site.play("migrate", vm, ferry_read_budget={"overall": None})
    assert code == 0, out[-6000:]
    assert told["cycles"] == [] and told["state"] == "migrated"
    site.assert_landed(vm, log)


@pytest.mark.long
@pytest.mark.fault(
    "the VM is powered on during the cutover to volumes", where="vCenter", ends="no server is made of them, in this run or the next"
)
def test_volumes_of_a_machine_that_was_started_meanwhile_are_not_taken_for_complete(site: Landing) -> None:
    """What the guest writes after the power-on would be lost: no server is made of the volumes, in this run or the next."""
    vm = NAMES[3]
    with site.writer(vm, rate=4):
        code, out, _told = site.play("precopy", vm)
        assert code == 0, out[-5000:]
        order = site.order("cutover", vm, ferry_cutover_refresh=False, ferry_read_budget={"overall": {"rate": 3}})
        with open(site.folder / "started.txt", "w+", encoding="utf-8") as said:
            process = subprocess.Popen(order, env=site.surroundings(), stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
            end = time.monotonic() + 120
            while site.running(vm) or not (site.copying() and site.snapshots(vm)):
                assert process.poll() is None and time.monotonic() < end, (site.folder / "started.txt").read_text()[-3000:]
                time.sleep(0.05)
            client = Client(site.vcenter)
            client.wait(client.vm(vm).PowerOnVM_Task())
            client.close()
            assert process.wait(120) != 0
    assert "was powered on while its last delta was copied" in (site.folder / "started.txt").read_text()
    assert {v.metadata["ferry_state"] for v in site.volumes(vm).values()} == {"copying"} and site.server(vm) is None
    with site.writer(vm, rate=1, seed=2) as log:
        code, out, told = site.play("migrate", vm, ferry_read_budget={"overall": None})
        assert code == 0 and told["state"] == "migrated", out[-6000:]
    assert log.stat().st_size > 0
    for key, size in zip(KEYS, SIZES.values(), strict=True):
        assert site.volume_sha256(vm, key, size) == site.sha256(vm, key), key
