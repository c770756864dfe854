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

from ansible_collections.ferry.vmware.plugins.module_utils.transfer import precheck
from tests.lab.common import Place
from tests.lab.kubernetes import OFFSETS, Kubernetes
from tests.lab.kubernetes.api import ATTACHMENT, NAMESPACE, STORAGE_CLASS, Api
from tests.lab.vcenter import CONTROL_OFFSET, HTTPS_OFFSET, VCenter
from tests.lab_tests import vcenter_lab

VMS = ("web01", "db01", "DC0 C0_VM2")
ODD = "odd01"
CLASSES = ("ceph", "other", "longhorn")
ATTACHMENTS = ("net/backend", "net/all", "default/vlan1")


def model(folder: Path) -> Path:
    """Three VMs on two datastores and two networks, one of them with a name that Kubernetes does not take; and one that is not ready."""
    raw = vcenter_lab.write_raw(folder / "disk.raw", 1 << 20, 5)
    disk = {"controller": "pvscsi", "path": raw.name}

    def vm(number: int, store: str, *networks: str, **more: Any) -> dict[str, Any]:
        nics = [{"network": n, "mac": f"00:50:56:0a:{number:02x}:{i:02x}"} for i, n in enumerate(networks)]
        disks = [{**disk, "datastore": store}]
        return {
            "name": (*VMS, ODD)[number],
            "host": "esx1",
            "datastore": store,
            "disks": disks,
            "nics": nics,
            "power": "on",
            "cbt": True,
            **more,
        }

    found = {
        "datacenter": "DC0",
        "clusters": [{"name": "C0", "hosts": ["esx1"]}],
        "networks": ["VM Network", "backend"],
        "datastores": [{"name": "fast", "capacity": "100GiB"}, {"name": "slow", "capacity": "100GiB"}],
        "vms": [
            vm(0, "fast", "VM Network", folder="prod/web"),
            vm(1, "slow", "VM Network", "backend", cpus=4, cores_per_socket=2),
            vm(2, "fast", "backend"),
            # What neither importer takes as it is.
            vm(3, "fast", "backend", cbt=False, tools="not_running", firmware="efi"),
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
    sources: dict[str, Any] = field(default_factory=dict)

    def clear(self) -> None:
        """All switches as at the start, but for the pace and what the VMs are."""
        self.cluster.clear()
        self.cluster.switch(tick_seconds=0.3, sources=self.sources)

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
            # Its workers too: they have sessions of their own, so its group does not reach them.
            for pid in [running.pid, *family(running.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            running.wait()


def furnish(api: Api) -> None:
    """The storage classes and networks that the waves of the tests are mapped to."""
    for name in CLASSES:
        body = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, "provisioner": "none.example"}
        api.create(STORAGE_CLASS, "", body)
    spaces = {n["metadata"]["name"] for n in api.list(NAMESPACE)}
    for place in ATTACHMENTS:
        space, _slash, name = place.partition("/")
        if space not in spaces:
            spaces.add(namespace(api, space))
        body = {"apiVersion": ATTACHMENT.api, "kind": "NetworkAttachmentDefinition", "metadata": {"name": name}, "spec": {"config": "{}"}}
        api.create(ATTACHMENT, space, body)


def sources(vcenter: VCenter) -> dict[str, Any]:
    """What the VMs are, for the stand-ins: they do not look into vCenter themselves. By MoRef, and by name."""
    env = vcenter.env()
    asked = {
        "hostname": env["VMWARE_HOST"],
        "port": int(env["VMWARE_PORT"]),
        "username": env["VMWARE_USER"],
        "password": env["VMWARE_PASSWORD"],
        "ca_path": env["VMWARE_CA_PATH"],
        "validate_certs": True,
    }
    told = precheck.run({**asked, "vms": [*VMS, ODD], "facts": True})
    return {key: vm["facts"] for vm in told["vms"] for key in (vm["moref"], vm["name"])}


@contextmanager
def servers(folder: Path) -> Iterator[tuple[VCenter, Kubernetes]]:
    """Both on free ports with one CA, stopped at the end."""
    base = vcenter_lab.free_base((HTTPS_OFFSET, CONTROL_OFFSET, *OFFSETS))
    place = Place(folder / "lab", base)
    vcenter, cluster = VCenter(place), Kubernetes(place)
    try:
        vcenter.up(model(folder))
        cluster.up()
        api = cluster.api()
        furnish(api)
        api.close()
        yield vcenter, cluster
    finally:
        cluster.down()
        vcenter.down()
        vcenter_lab.give_back(base)


def family(pid: int) -> list[int]:
    """The processes that one has started, and theirs."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # pid (name) state ppid ...; the name may hold anything
            head, _bracket, rest = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")
            parents.setdefault(int(rest.split()[1]), []).append(int(head.split()[0]))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def namespace(api: Api, name: str) -> str:
    api.create(NAMESPACE, "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def until(what: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)
