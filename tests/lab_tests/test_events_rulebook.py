# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rulebook with the real ansible-rulebook: from an event in the lab's vCenter to the VM that runs elsewhere, with nobody's hand in it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyVmomi import vmodl

from tests.lab.awx import exchanges
from tests.lab.awx import server as awx_server
from tests.lab.vcenter import VCenter
from tests.lab_tests.event_lab import COLLECTION, GIB, vcenter_of
from tests.lab_tests.vcenter_lab import MIB, Client

# pyvmomi leaves its sockets to the garbage collector, also those whose session a restart of vCenter has ended
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ROOT = Path(__file__).resolve().parents[5]
BIN = Path(sys.executable).parents[2] / "venv-rulebook" / "bin"
RULEBOOKS = COLLECTION / "extensions" / "eda" / "rulebooks"
WEB, DB = "店舗 01", "会計 02"


def missing() -> str:
    """Why the rulebook cannot run here."""
    if not (BIN / "ansible-rulebook").exists():
        return "ansible-rulebook is not installed: make venv-rulebook"
    java = shutil.which("java")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr if java else ""
    version = re.search(r'version "(\d+)', said)
    return "" if version and int(version[1]) >= 17 else "Java 17 or newer is not installed: apt-get install default-jre-headless"


needs_rulebook = pytest.mark.skipif(bool(missing()), reason=missing())


def model(folder: Path) -> dict[str, Any]:
    vms = []
    for n, (name, custom) in enumerate(((WEB, {"ferry.definition": "VM-01", "ferry.group": "web"}), (DB, {}))):
        raw = folder / f"{n}.raw"
        raw.write_bytes(random.Random(n).randbytes((8 + 16 * n) * MIB))
        disk = {"path": str(raw), "provisioning": "thin"}
        more = {"power": "on", "memory_mb": 256, "disks": [disk], "custom": custom}
        vms.append({"name": name, "host": "esx1", "datastore": "shared", **more})
    return {
        "clusters": [{"name": "C0", "hosts": ["esx1", "esx2", "esx3"]}],
        "networks": ["VM Network"],
        "datastores": [{"name": "shared", "type": "VMFS", "capacity": "10GiB"}, {"name": "spare", "type": "NFS", "capacity": "10GiB"}],
        "vms": vms,
    }


class Rulebook:
    """ansible-rulebook with the collection's rulebook, in a folder of its own."""

    def __init__(self, lab: VCenter, folder: Path, policy: dict[str, Any], **variables: Any) -> None:
        self.lab = lab
        self.client = Client(lab)
        self.log = folder / "rulebook.log"
        self.mark = folder / ".local" / "state" / "ferry" / "events"
        self._folder = folder
        self._stale = False
        inventory = folder / "inventory"
        (inventory / "group_vars").mkdir(parents=True)
        local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        (inventory / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"localhost": local}}}), encoding="utf-8")
        known = {"ferry_policy": policy, "ferry_failover_state_dir": str(folder / "kept")}
        (inventory / "group_vars" / "all.yml").write_text(json.dumps(known), encoding="utf-8")
        (folder / "vars.yml").write_text(json.dumps({"ferry_datastore_used": [50], **variables}), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, name: str = "vcenter", *more: str) -> None:
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XDG_STATE_HOME")}
        env |= {**self.lab.env(), "HOME": str(self._folder), "ANSIBLE_COLLECTIONS_PATH": str(ROOT), "ANSIBLE_NOCOLOR": "1"}
        env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
        words = ["--rulebook", f"ferry.vmware.{name}", "-i", "inventory", "--vars", "vars.yml", "-v", *more]
        with open(self.log, "ab") as out:
            command = [str(BIN / "ansible-rulebook"), *words]
            self._process = subprocess.Popen(command, cwd=self._folder, env=env, stdout=out, stderr=out, start_new_session=True)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, what: Callable[[], Any], seconds: float = 300) -> None:
        """Wait until C(what) holds; not asking too often, for it shares the machine with what it waits for."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, f"it did not come:\n{self.text()[-6000:]}"
            time.sleep(0.3)

    def listens(self) -> None:
        self.wait(lambda: list(self.mark.glob("*.json")))

    def runs_on(self, name: str, hosts: set[str]) -> bool:
        """Whether the VM is powered on, and on one of the hosts. It is unregistered for a moment on its way; vCenter may be away."""
        try:
            if self._stale:
                self.client.si._stub.DropConnections()
                self.client = Client(self.lab)
                self._stale = False
            runtime = self.client.vm(name).runtime
            return runtime.powerState == "poweredOn" and runtime.host.name in hosts
        except KeyError:
            pass
        except (vmodl.MethodFault, OSError, http.client.HTTPException):
            self._stale = True
        return False

    def kill(self) -> None:
        """With everything that it has started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def rulebook(folder: Path, policy: dict[str, Any], **variables: Any) -> Iterator[Rulebook]:
    with vcenter_of(folder, model(folder)) as lab:
        one = Rulebook(lab, folder, policy, **variables)
        try:
            yield one
        finally:
            one.kill()
            with contextlib.suppress(vmodl.MethodFault, OSError, http.client.HTTPException):  # its session may be over
                one.client.close()


def failover(**more: Any) -> dict[str, Any]:
    return {"name": "failover", "event": "host_lost", "when": {"group": "C0"}, "actions": [{"failover": {"unfenced": True}}], **more}


RELIEF = {"name": "relief", "event": "datastore_filling", "actions": [{"relieve": {"target_percent": 50}}]}
OTHERS = {"esx2", "esx3"}


@needs_rulebook
def test_from_an_event_to_the_vm_that_runs_elsewhere(tmp_path: Path) -> None:
    with rulebook(tmp_path, {"rules": [failover(), RELIEF]}) as one:
        one.start()
        one.listens()
        one.lab.post("/host/die", host="esx1", vms="die")
        one.wait(lambda: one.runs_on(WEB, OTHERS) and one.runs_on(DB, OTHERS))
        names = {f.key: f.name for f in one.client.content.customFieldsManager.field}
        kept = {names[v.key]: v.value for v in one.client.vm(WEB).customValue if v.value}
        assert kept["ferry.definition"] == "VM-01"
        # a little above the half, which is where the source tells and to where the policy relieves
        one.lab.post("/datastore/fill", datastore="shared", free=5 * GIB - 16 * MIB)
        one.wait(lambda: "spare" in {d.name for d in one.client.vm(DB).datastore})
        assert one.lab.env()["VMWARE_PASSWORD"] not in one.text()


@pytest.mark.long
@needs_rulebook
def test_an_event_launches_the_job_template_of_awx(tmp_path: Path) -> None:
    """From a host that dies to AWX's answer: the template that awx_setup makes, with the event where the role policy looks for it."""
    with rulebook(tmp_path, {"rules": [failover()]}) as one, awx_server.running(["playbooks/policy.yml"]) as awx:
        send = exchanges.sender(awx.url, awx_server.USER, awx_server.PASSWORD)
        made = send("POST", "projects/", {"name": "p", "organization": 1, "scm_type": "git", "scm_url": "https://git.example.com/a.git"})[
            1
        ]["id"]
        inventory = send("POST", "inventories/", {"name": "i", "organization": 1})[1]["id"]
        template = {
            "name": "ferry policy",
            "project": made,
            "inventory": inventory,
            "playbook": "playbooks/policy.yml",
            "ask_variables_on_launch": True,
        }
        assert send("POST", "job_templates/", template)[0] == 201
        one.start("vcenter_awx", "--controller-url", awx.url, "--controller-token", awx_server.TOKEN)
        one.listens()
        one.lab.post("/host/die", host="esx1", vms="die")
        one.wait(lambda: awx.launched)
        name, body = awx.launched[0]
        event = (
            json.loads(body["extra_vars"])["ansible_eda"]["event"]
            if isinstance(body["extra_vars"], str)
            else body["extra_vars"]["ansible_eda"]["event"]
        )
        assert (name, event["kind"], event["host"]["name"]) == ("ferry policy", "host_lost", "esx1")
        assert awx_server.TOKEN not in one.text()


@pytest.mark.long
@needs_rulebook
@pytest.mark.fault(
    "ansible-rulebook is killed in a failover",
    "policy",
    "it tells the host again when it is started; once the dead run's lease is over the same incident goes on, and is then done",
)
def test_a_rulebook_that_is_killed_goes_on(tmp_path: Path) -> None:
    with rulebook(tmp_path, {"rules": [failover(lease=30)]}, ferry_remind=10) as one:
        one.lab.switch("power_on_seconds", 3)
        one.start()
        one.listens()
        one.lab.post("/host/die", host="esx1", vms="die")
        one.wait(lambda: "Fail the VMs over" in one.text())
        one.kill()
        one.start()
        one.wait(lambda: one.runs_on(WEB, OTHERS) and one.runs_on(DB, OTHERS))
        one.wait(lambda: "it was done already" in one.text())
        one.kill()
        one.start()  # and after the end: nothing is done twice
        done = one.text().count("it was done already")
        one.wait(lambda: one.text().count("it was done already") > done)
        # once before the kill, once when the lease of that run was over
        assert one.text().count("Acting: the rule failover") == 2


@pytest.mark.long
@needs_rulebook
@pytest.mark.fault(
    "vCenter restarts, and a host dies meanwhile", "event source", "the host is found lost when vCenter is back, and failed over"
)
def test_a_host_that_dies_while_vcenter_restarts(tmp_path: Path) -> None:
    with rulebook(tmp_path, {"rules": [failover()]}) as one:
        one.start()
        one.listens()
        one.lab.restart(3)
        one.lab.post("/host/die", host="esx1", vms="die")
        one.wait(lambda: one.runs_on(WEB, OTHERS))


@pytest.mark.long
@needs_rulebook
def test_a_group_that_rests_is_left_alone(tmp_path: Path) -> None:
    with rulebook(tmp_path, {"rules": [failover(limits={"hold": 3600})]}) as one:
        one.start()
        one.listens()
        one.lab.post("/host/die", host="esx1", vms="die")
        one.wait(lambda: one.runs_on(WEB, OTHERS))
        first = one.client.vm(WEB).runtime.host.name
        one.lab.post("/host/die", host=first, vms="die")
        one.wait(lambda: "C0 rests for another" in one.text())
        assert one.text().count("Acting: the rule failover") == 1 and not one.runs_on(WEB, OTHERS - {first})


def test_both_rulebooks_are_alike_and_name_what_is_there() -> None:
    ours, awx = (
        {r["name"]: r for r in yaml.safe_load((RULEBOOKS / f).read_text(encoding="utf-8"))[0]["rules"]}
        for f in ("vcenter.yml", "vcenter_awx.yml")
    )
    assert {n: r["condition"] for n, r in ours.items()} == {n: r["condition"] for n, r in awx.items()}
    for rule in ours.values():
        name = rule["action"]["run_playbook"]["name"]
        assert (COLLECTION / "playbooks" / f"{name.rpartition('.')[2]}.yml").is_file()
    assert all("run_job_template" in r["action"] for r in awx.values())
