# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A mesh without AWX: nodes that run slices of a wave by ansible-runner's transmit, worker and process, and a conversion host by ssh.

As AWX does it: slice n of c has every c-th host of the inventory, each is a job of its own, a node has nothing that another has, and
what is to be kept is on the conversion host, which all of them reach by ssh.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.lab.common import port_is_free
from tests.lab.vcenter import USER, VCenter

from .vcenter_lab import free_base, give_back

TOOLS = Path(sys.executable).parent
#: What of the collection a job needs.
PARTS = ("galaxy.yml", "meta", "playbooks", "plugins", "roles")
SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").exists() else None)


@contextmanager
def ssh_host(folder: Path) -> Iterator[dict[str, Any]]:
    """An sshd of our own on loopback, whose sessions have a home below C(folder); the variables of its inventory host."""
    folder.mkdir(parents=True)
    home = folder / "home"
    home.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True, stdin=subprocess.DEVNULL)
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    base = free_base((0,))
    lines = {
        "ListenAddress": f"127.0.0.1:{base}",
        "HostKey": str(folder / "host"),
        "PidFile": "none",
        "AuthorizedKeysFile": str(folder / "authorized"),
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "prohibit-password",
        "MaxStartups": "200",
        "MaxSessions": "200",
        "SetEnv": f"HOME={home}",
    }
    (folder / "sshd_config").write_text("".join(f"{k} {v}\n" for k, v in lines.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    assert SSHD is not None
    with open(folder / "sshd.log", "w", encoding="utf-8") as log:
        daemon = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log)
    try:
        end = time.monotonic() + 30
        while port_is_free(base):
            assert daemon.poll() is None and time.monotonic() < end, (folder / "sshd.log").read_text()
            time.sleep(0.05)
        common = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes -o LogLevel=ERROR"
        yield {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": base,
            "ansible_ssh_private_key_file": str(folder / "user"),
            "ansible_ssh_common_args": common,
            "ansible_python_interpreter": sys.executable,
        }
    finally:
        daemon.terminate()
        daemon.wait(30)
        give_back(base)


@dataclass
class Job:
    """A slice under way on a node: three processes in a pipe. C(worker) leads a process group of its own, as a container does."""

    folder: Path
    ident: str
    worker: subprocess.Popen[bytes]
    process: subprocess.Popen[bytes]
    rss: int = 0

    def wait(self, seconds: float = 540) -> tuple[int, str]:
        """The job's end: its code, and what the playbook has said."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, self.said()
            self.rss = max(self.rss, group_rss(self.worker.pid))
            time.sleep(0.2)
        self.worker.wait(30)
        path = self.folder / "artifacts" / self.ident / "rc"
        return (int(path.read_text()) if path.exists() else -1), self.said()

    def said(self) -> str:
        """What the playbook has said so far. The file beside the job is there at its end only."""
        path = self.folder / "artifacts" / self.ident / "stdout"
        path = path if path.exists() else self.folder.with_name(f"{self.ident}.log")
        return path.read_text(errors="replace")

    def kill(self) -> None:
        """The node dies: everything on it, at once. What it has started elsewhere by ssh it has not."""
        for pid in group(self.worker.pid):
            os.kill(pid, signal.SIGKILL)
        self.worker.wait(30)
        self.process.wait(60)


def group(leader: int) -> list[int]:
    """The processes of the session that C(leader) leads, and what these have put into sessions of their own."""
    parents: dict[int, tuple[int, int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended
        parents[int(path.name)] = (int(fields[1]), int(fields[3]))
    found = {pid for pid, (_parent, session) in parents.items() if session == leader} | {leader}
    while True:
        more = {pid for pid, (parent, _session) in parents.items() if parent in found} - found
        if not more:
            return sorted(found & parents.keys(), reverse=True)
        found |= more


def group_rss(leader: int) -> int:
    """Bytes of memory of all those processes, what they share counted once (PSS)."""
    total = 0
    for pid in group(leader):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


@dataclass
class Mesh:
    """Nodes, a vCenter and a conversion host. C(stage): a folder with ansible_collections. C(sockets): a folder with a short path where
    connections are to be kept."""

    folder: Path
    vcenter: VCenter
    conversion: Mapping[str, Any]
    stage: Path
    sockets: str = ""
    jobs: list[Job] = field(default_factory=list)

    @property
    def ledger(self) -> Path:
        return self.folder / "conversion" / "ferry"

    def hosts(self, names: Sequence[str], disks: Sequence[int]) -> dict[str, Any]:
        """Inventory of VMs whose disks (keys) go to files."""
        targets = self.folder / "targets"
        targets.mkdir(exist_ok=True)
        return {
            name: {
                "ferry_vm": name,
                "ferry_disks": [{"disk": str(key), "dest": {"path": str(targets / f"{name}-{i}.raw")}} for i, key in enumerate(disks)],
            }
            for name in names
        }

    def start(
        self, node: str, playbook: str, hosts: Mapping[str, Any], number: int = 1, count: int = 1, forks: int = 5, **variables: Any
    ) -> Job:
        """Slice C(number) of C(count) of C(hosts), on C(node)."""
        ident = f"{node}-{len(self.jobs) + 1}"
        job = self.folder / "jobs" / ident
        slice_of = dict(list(hosts.items())[number - 1 :: count])
        inventory = {
            "wave": {"hosts": slice_of},
            "conversion_hosts": {"hosts": {"conv": dict(self.conversion)}},
            "all": {"hosts": {"localhost": {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}}},
        }
        given = {
            "ferry_wave": "wave",
            "ferry_ledger": str(self.ledger),
            "ferry_progress_interval": 1,
            "ferry_vcenter": {
                "hostname": "127.0.0.1",
                "port": self.vcenter.port,
                "username": USER,
                "password": self.vcenter.place.password(),
                "ca_path": str(self.vcenter.place.state / "ca.pem"),
            },
            **variables,
        }
        home = self.folder / "nodes" / node / "home"
        home.mkdir(parents=True, exist_ok=True)
        env = {
            "ANSIBLE_COLLECTIONS_PATH": os.environ.get("ANSIBLE_COLLECTIONS_PATH", ""),
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "ANSIBLE_NOCOLOR": "True",
            "ANSIBLE_PIPELINING": "True",
            # A connection that is kept would outlive its node: in a container it does not.
            "ANSIBLE_SSH_ARGS": f"-o ControlMaster=auto -o ControlPersist=60s -o ControlPath={self.sockets}/{node}-%C"
            if self.sockets
            else "-o ControlMaster=no",
        }
        files = {
            "project/play.yml": yaml.safe_dump([{"import_playbook": f"ferry.vmware.{playbook}"}]),
            "inventory/hosts.yml": yaml.safe_dump(inventory, allow_unicode=True),
            "env/extravars": json.dumps(given),
            "env/envvars": json.dumps(env),
            "env/settings": json.dumps({"suppress_ansible_output": True}),
        }
        for name, text in files.items():
            (job / name).parent.mkdir(parents=True, exist_ok=True)
            (job / name).write_text(text, encoding="utf-8")
        self._collection(job / "project" / "collections" / "ansible_collections" / "ferry" / "vmware")
        work = self.folder / "nodes" / node / f"work-{len(self.jobs) + 1}"
        base = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "PYTEST", "VMWARE_", "XDG_"))}
        base |= {"HOME": str(home), "PATH": os.pathsep.join([str(TOOLS), os.environ["PATH"]])}
        runner = str(TOOLS / "ansible-runner")
        with open(self.folder / "jobs" / f"{ident}.log", "wb") as log:
            send = subprocess.Popen(
                [runner, "transmit", str(job), "-p", "play.yml", "-i", ident, "--forks", str(forks)],
                env=base,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            worker = subprocess.Popen(
                [runner, "worker", f"--private-data-dir={work}"],
                env=base,
                stdin=send.stdout,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
            process = subprocess.Popen([runner, "process", str(job), "-i", ident], env=base, stdin=worker.stdout, stdout=log, stderr=log)
        for end in (send.stdout, worker.stdout):
            if end is not None:
                end.close()
        send.wait(120)
        self.jobs.append(Job(job, ident, worker, process))
        return self.jobs[-1]

    def _collection(self, target: Path) -> None:
        source = self.stage / "ansible_collections" / "ferry" / "vmware"
        for name in PARTS:
            path = source / name
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, target / name)

    def logins(self) -> int:
        return int(self.vcenter.get("/stats")["methods"].get("Login", 0))

    def end(self) -> None:
        """Nothing of it goes on."""
        for job in self.jobs:
            if job.process.poll() is None:
                job.kill()
