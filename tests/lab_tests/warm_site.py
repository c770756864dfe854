# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A vCenter with running VMs whose guests write, and the playbooks precopy and cutover as a user runs them, to files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.lab.vcenter import USER, VCenter
from tests.lab.vcenter.writer import replay

from .processes import copying
from .vcenter_lab import MIB, write_raw

RECAP = re.compile(r"^(.+?)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
SIZES = {"root": 24 * MIB + 3 * 512, "data": 80 * MIB}
#: The disks' keys as the lab gives them out, in order.
KEYS = (2000, 2001)


def write_model(folder: Path, names: tuple[str, ...], more: Callable[[int], dict[str, Any]] = lambda number: {}) -> Path:
    """A running VM of two disks for each name, and what C(more) says of it."""
    for seed, (name, size) in enumerate(SIZES.items()):
        write_raw(folder / f"{name}.raw", size, seed)
    vms = [
        {
            "name": name,
            "host": "esx1",
            "datastore": "shared",
            "memory_mb": 256,
            "power": "on",
            "shutdown_seconds": 0.5,
            "disks": [{"controller": "pvscsi", "unit": i, "path": f"{d}.raw", "provisioning": "thin"} for i, d in enumerate(SIZES)],
            **more(number),
        }
        for number, name in enumerate(names)
    ]
    model = {
        "datacenter": "DC lab",
        "clusters": [{"name": "C0", "hosts": ["esx1"]}],
        "networks": ["VM Network"],
        "datastores": [{"name": "shared", "capacity": "2TiB", "hosts": ["esx1"]}],
        "vms": vms,
    }
    path = folder / "model.json"
    path.write_text(json.dumps(model), encoding="utf-8")
    return path


@dataclass
class Run:
    """What ansible-playbook said."""

    code: int
    out: str
    facts: dict[str, Any]

    @property
    def changed(self) -> dict[str, int]:
        return {name.strip(): int(changed) for name, _ok, changed, _unreachable, _failed in RECAP.findall(self.out)}

    @property
    def cycle_lines(self) -> list[str]:
        return re.findall(r": (cycle \d+, .*)$", self.out, re.MULTILINE)


@dataclass
class WarmSite:
    """A source, and a folder for targets and a conversion host's state."""

    folder: Path
    vcenter: VCenter

    # -- the lab ------------------------------------------------------------------------------------------------------

    def ask(self, path: str, method: str = "GET", body: Any = None, **query: Any) -> Any:
        """A call of the control port; its JSON."""
        url = f"{self.vcenter.control}{path}?{urllib.parse.urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data=data, method=method), timeout=60) as answer:
            return json.load(answer)

    def running(self, vm: str) -> bool:
        return bool(self.ask("/guest", vm=vm)["running"])

    def snapshots(self, vm: str) -> list[str]:
        return [str(s["name"]) for s in self.ask("/snapshots", vm=vm)["snapshots"]]

    def sha256(self, vm: str, key: int) -> str:
        """Digest of a disk's bytes as the guest sees them now."""
        return str(self.ask("/guest/disk", vm=vm, disk=key, hash="sha256")["sha256"])

    @contextmanager
    def writer(self, vm: str, rate: float, seed: int = 1) -> Iterator[Path]:
        """A guest that writes C(rate) MB per second until it is shut down; gives the log of its writes."""
        log = self.folder / f"{vm}-{seed}.jsonl"
        command = [sys.executable, "-m", "tests.lab.vcenter.writer", "--control", self.vcenter.control, "--vm", vm]
        process = subprocess.Popen([*command, "--rate", str(rate), "--seed", str(seed), "--log", str(log)])
        try:
            yield log
            if not self.running(vm):
                process.wait(60)  # it notices by itself, and notes which write was the last
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)

    # -- the target ---------------------------------------------------------------------------------------------------

    def target(self, host: str, index: int) -> Path:
        return self.folder / f"{host}-{index}.raw"

    def expected(self, index: int, log: Path) -> bytes:
        """The disk as it was at first, with the writes of the log carried out on it by the writer's own replay."""
        copy = self.folder / f"replayed-{index}.raw"
        shutil.copyfile(self.folder / f"{list(SIZES)[index]}.raw", copy)
        replay(copy, log, disk=KEYS[index])
        return copy.read_bytes()

    # -- the playbooks ------------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "PYTEST"))} | {
            "ANSIBLE_COLLECTIONS_PATH": os.environ["ANSIBLE_COLLECTIONS_PATH"],
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_FAILED": "true",
            "ANSIBLE_NOCOLOR": "true",
            "VMWARE_HOST": "127.0.0.1",
            "VMWARE_PORT": str(self.vcenter.port),
            "VMWARE_USER": USER,
            "VMWARE_PASSWORD": self.vcenter.place.password(),
            "VMWARE_CA_PATH": str(self.vcenter.place.state / "ca.pem"),
        }

    @staticmethod
    def tool() -> str:
        return str(Path(sys.executable).parent / "ansible-playbook")

    def command(self, playbook: str, *vms: str, arguments: tuple[str, ...] = (), **variables: Any) -> list[str]:
        hosts = {
            vm: {
                "ferry_vm": vm,
                "ferry_disks": [{"disk": str(key), "dest": {"path": str(self.target(vm, i))}} for i, key in enumerate(KEYS)],
            }
            for vm in vms
        }
        common = {
            "ferry_ledger": str(self.folder / "ferry"),
            "ferry_progress_interval": 0.5,
            "ferry_precopy_interval": 0,
            "ferry_downtime_budget": 30,
            "ferry_shutdown_seconds": 1,
        }
        inventory = self.folder / f"{playbook}-{vms[0]}.yml"
        inventory.write_text(yaml.safe_dump({"wave": {"hosts": hosts, "vars": common | variables}}, allow_unicode=True), encoding="utf-8")
        book = self.folder / f"{playbook}-{vms[0]}-play.yml"
        # The user's playbook, and after it one that writes down which facts were left.
        keep = {
            "hosts": "wave",
            "gather_facts": False,
            "tasks": [
                {
                    "ansible.builtin.copy": {
                        "dest": str(self.folder / "facts-{{ inventory_hostname }}.json"),
                        "content": "{{ {'precopy': precopy_result | default({}), 'cutover': cutover_result | default({})} | to_json }}",
                    },
                    "delegate_to": "localhost",
                    "changed_when": False,
                    "check_mode": False,
                }
            ],
        }
        book.write_text(yaml.safe_dump([{"import_playbook": f"ferry.vmware.{playbook}"}, keep]), encoding="utf-8")
        return [self.tool(), str(book), "-i", str(inventory), "-e", "ferry_wave=wave", *arguments]

    def run(self, playbook: str, vm: str, arguments: tuple[str, ...] = (), **variables: Any) -> Run:
        facts = self.folder / f"facts-{vm}.json"
        facts.unlink(missing_ok=True)
        command = self.command(playbook, vm, arguments=arguments, **variables)
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=300, check=False)
        print(done.stdout, done.stderr)
        return Run(done.returncode, done.stdout + done.stderr, json.loads(facts.read_text()) if facts.exists() else {})

    def start(self, playbook: str, vm: str, **variables: Any) -> subprocess.Popen[str]:
        """The playbook in a process group of its own."""
        command = self.command(playbook, vm, **variables)
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environment(), stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True)

    def copying(self) -> list[int]:
        """The processes that copy from this vCenter, wherever Ansible put them."""
        return copying(f"VMWARE_PORT={self.vcenter.port}")
