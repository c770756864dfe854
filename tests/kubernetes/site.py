# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A vCenter and an API server side by side, and a playbook run against both as a user does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.common import Place
from tests.lab.kubernetes import OFFSETS, Kubernetes
from tests.lab.kubernetes.api import NAMESPACE, Api
from tests.lab.vcenter import CONTROL_OFFSET, HTTPS_OFFSET, VCenter
from tests.lab_tests import vcenter_lab

VMS = ("web01", "db01", "DC0 C0_VM2")


def model(folder: Path) -> Path:
    """Three VMs on two datastores and two networks, one of them with a name that Kubernetes does not take."""
    raw = vcenter_lab.write_raw(folder / "disk.raw", 1 << 20, 5)
    disk = {"controller": "pvscsi", "path": raw.name}

    def vm(number: int, store: str, *networks: str, **more: Any) -> dict[str, Any]:
        nics = [{"network": n, "mac": f"00:50:56:0a:{number:02x}:{i:02x}"} for i, n in enumerate(networks)]
        disks = [{**disk, "datastore": store}]
        return {"name": VMS[number], "host": "esx1", "datastore": store, "disks": disks, "nics": nics, "power": "on", **more}

    found = {
        "datacenter": "DC0",
        "clusters": [{"name": "C0", "hosts": ["esx1"]}],
        "networks": ["VM Network", "backend"],
        "datastores": [{"name": "fast", "capacity": "100GiB"}, {"name": "slow", "capacity": "100GiB"}],
        "vms": [
            vm(0, "fast", "VM Network", folder="prod/web"),
            vm(1, "slow", "VM Network", "backend", cpus=4, cores_per_socket=2),
            vm(2, "fast", "backend"),
        ],
    }
    path = folder / "model.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


@dataclass
class Site:
    """Both servers, a folder for what a user writes, and a namespace that no other test uses."""

    vcenter: VCenter
    cluster: Kubernetes
    api: Api
    folder: Path
    namespace: str
    inventory: dict[str, Any] = field(default_factory=dict)

    def write(self, *hosts: str, **variables: Any) -> None:
        """The inventory: a wave of hosts, with variables."""
        common = {"ferry_target_namespace": f"{self.namespace}-vms", **variables}
        self.inventory = {"wave1": {"hosts": {host: {} for host in hosts or VMS[:2]}, "vars": common}}
        (self.folder / "wave.yml").write_text(json.dumps(self.inventory), encoding="utf-8")

    def change(self, **variables: Any) -> None:
        """Other variables of the same wave."""
        self.inventory["wave1"]["vars"].update(variables)
        (self.folder / "wave.yml").write_text(json.dumps(self.inventory), encoding="utf-8")

    def env(self) -> dict[str, str]:
        env = {**os.environ, **self.vcenter.env(), **self.cluster.env()}
        return env | {"ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_NOCOLOR": "1", "HOME": str(self.folder)}

    def _command(self, name: str, *words: str) -> list[str]:
        tool = str(Path(sys.executable).with_name("ansible-playbook"))
        return [
            tool,
            f"ferry.vmware.{name}",
            "-i",
            "wave.yml",
            "-e",
            "ferry_wave=wave1",
            "-e",
            f"ansible_python_interpreter={sys.executable}",
            *words,
        ]

    def play(self, name: str, *words: str, code: int = 0, **env: str) -> str:
        """Run a playbook of the collection; gives what it said. AssertionError: it ended with another code."""
        command, place = self._command(name, *words), self.env() | env
        done = subprocess.run(command, env=place, cwd=self.folder, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}{done.stderr}"
        # Long texts are folded, and quotes escaped.
        return " ".join((done.stdout + done.stderr).split())

    @contextmanager
    def playing(self, name: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """A playbook under way, and its output; killed at the end."""
        log = self.folder / "log"
        with open(log, "wb") as out:
            running = subprocess.Popen(self._command(name), env=self.env(), cwd=self.folder, stdout=out, stderr=out, start_new_session=True)
        try:
            yield running, log
        finally:
            # Its workers too: they are processes of their own.
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()


@contextmanager
def servers(folder: Path) -> Iterator[tuple[VCenter, Kubernetes]]:
    """Both on free ports with one CA, stopped at the end."""
    base = vcenter_lab.free_base((HTTPS_OFFSET, CONTROL_OFFSET, *OFFSETS))
    place = Place(folder / "lab", base)
    vcenter, cluster = VCenter(place), Kubernetes(place)
    try:
        vcenter.up(model(folder))
        cluster.up()
        yield vcenter, cluster
    finally:
        cluster.down()
        vcenter.down()
        vcenter_lab.give_back(base)


def namespace(api: Api, name: str) -> str:
    api.create(NAMESPACE, "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def until(what: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)
