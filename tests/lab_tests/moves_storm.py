# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Seeded storms over moves, failover, drains, placements and registrations on two clusters with six hosts.

    python3 -m tests.lab_tests.moves_storm COUNT SEED     COUNT storms from SEED on; each that fails prints its steps

What happens: hosts die and come back, runs are killed between any two calls and made again, the server refuses, loses sessions and
restarts, others switch VMs on and off. After each step every VM is registered once, or its record says that it is on its way; its disks
are what they were; no two machines have one definition; VMs that are to be apart are. At the end of a storm each VM is powered as it was.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.errors import FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import attributes, client
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.keep import Record, Store
from ansible_collections.ferry.vmware.plugins.modules import host_evacuate, host_failover, machine_register, vm_placement
from tests.lab_tests.vm_move_lab import BATCH, BOOKS, SHOP, Moves, moves_of

VMS = (SHOP, BOOKS, BATCH, "toolless")
HOSTS = ("esx1", "esx2", "esx3", "esx4", "esx5", "esx6")
APART = [{"name": "別々", "kind": "apart", "vms": [SHOP, "toolless"]}]
PLANS = {
    "constraints": APART,
    "reserve_percent": 0.0,
    "memory_overcommit": 1.0,
    "copy_files": True,
    "per_host": 4,
    "per_datastore": 2,
    "timeout": 60,
}
MODEL = {
    **dict.fromkeys(("name", "vendor", "model", "version", "cluster", "guest_id")),
    "min_cpus": 0,
    "min_memory_mb": 0,
    "datastores": [],
    "networks": [],
    "disks_gb": [],
    "tags": [],
    "attributes": {},
}
CALLS = ("RelocateVM_Task", "PowerOnVM_Task", "RegisterVM_Task", "UnregisterVM", "SetField", "ShutdownGuest", "ReconfigVM_Task")


class Broken(AssertionError):
    """A promise was broken."""


class Killed(BaseException):
    """Stands for SIGKILL: from then on the run asks nothing of the server and writes no file."""


@contextlib.contextmanager
def killing(after: int, done: bool) -> Iterator[None]:
    """A run that is killed at its call number C(after), before the server has it or (C(done)) when it has answered."""
    count, call = [0], client.Session.call

    def gone() -> bool:
        return count[0] > after or (count[0] == after and not done)

    def counted(self: client.Session, *args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if gone():
            raise Killed
        answer = call(self, *args, **kwargs)
        if count[0] >= after:
            count[0] += 1
            raise Killed
        return answer

    def unless_gone(work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if gone():
                raise Killed
            return work(*args, **kwargs)

        return wrapped

    with pytest.MonkeyPatch.context() as m:
        m.setattr(client.Session, "call", counted)
        m.setattr(Record, "save", unless_gone(Record.save))
        m.setattr(Store, "finish", unless_gone(Store.finish))
        yield


class Storm:
    """One storm; C(log) has its steps."""

    def __init__(self, lab: Moves, seed: int) -> None:
        self.lab, self.dice = lab, random.Random(seed)
        self.log: list[str] = []
        self.runs = self.kills = 0
        self.dead: set[str] = set()
        self.either: set[str] = set()
        self.uuids = {v: lab.client.vm(v).config.instanceUuid for v in VMS}
        self.sha = {v: self.digests(v) for v in VMS}
        self.power = {v: lab.power(v) for v in VMS}

    # -- what is looked at

    def vms(self) -> dict[str, list[Any]]:
        """The VMs there are, by instance UUID."""
        found: dict[str, list[Any]] = {}
        view = self.lab.client.content.viewManager.CreateContainerView(self.lab.client.content.rootFolder, [vim.VirtualMachine], True)
        for vm in view.view:
            found.setdefault(vm.config.instanceUuid, []).append(vm)
        view.Destroy()
        return found

    def digests(self, name: str) -> list[str]:
        keys = [d.key for d in self.lab.client.vm(name).config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)]
        return self.lab.sha(name, *keys)

    def on_its_way(self) -> set[str]:
        """Names of the VMs that a record speaks of."""
        with client.connect(self.lab.connection) as session:
            store = Store(self.lab.folder / "kept", str(session.content.about.instanceUuid))
        return {r.name for r in store.all()}

    def look(self) -> None:
        """What holds at any moment."""
        there, coming = self.vms(), self.on_its_way()
        for name, uuid in self.uuids.items():
            found = there.get(uuid, [])
            if len(found) > 1 or (not found and name not in coming):
                raise Broken(f"{name} is registered {len(found)} times")
            if found and self.digests(found[0].name) != self.sha[name]:
                raise Broken(f"the disks of {name} have changed")
        shop, other = (there.get(self.uuids[v], [None])[0] for v in (SHOP, "toolless"))
        if shop is not None and other is not None and shop.runtime.host == other.runtime.host:
            raise Broken("the two that are to be apart are together")
        names = {f.key: f.name for f in self.lab.client.content.customFieldsManager.field}
        carried = [
            v.value for h in self.lab.client.all(vim.HostSystem).values() for v in h.customValue if names[v.key] == "ferry.definition"
        ]
        if len(carried) != len({c for c in carried if c}) + carried.count(""):
            raise Broken(f"one definition, two machines: {carried}")

    # -- steps

    def run(self, what: str, work: Callable[[], Any]) -> None:
        """One run, perhaps killed and then made again; errors have to be typed."""
        self.runs += 1
        if self.dice.random() < 0.5:
            after, done = self.dice.randint(1, 60), self.dice.random() < 0.5
            self.log.append(f"{what}, killed {'after' if done else 'at'} call {after}")
            with contextlib.suppress(Killed, FerryError), killing(after, done):
                work()
            self.kills += 1
            self.look()
            self.age_locks()
        self.log.append(what)
        try:
            work()
        except FerryError as e:
            self.log.append(f"  {e.code}: {str(e)[:200]}")

    def age_locks(self) -> None:
        """As if the time after which a lock of a killed run counts no more had passed."""
        manager = self.lab.client.content.customFieldsManager
        for field in manager.field:
            if field.name.startswith(attributes.LOCK):
                manager.SetField(self.lab.client.content.rootFolder, field.key, '{"owner": "killed", "since": 1}')

    def call(self, module: Any, **params: Any) -> Callable[[], Any]:
        call = edge.Call({**self.lab.connection, **params}, warn=self.lab.warnings.append)
        return lambda: module.work(call)

    def move(self) -> None:
        name, host = self.dice.choice(VMS), self.dice.choice((*HOSTS, None))
        method = self.dice.choice(("auto", "auto", "hot", "cold", "move"))
        self.run(
            f"move {name} to {host} {method}",
            lambda: self.lab.move(name, host=host, method=method, on_timeout="poweroff", constraints=APART),
        )

    def drain(self) -> None:
        host, state = self.dice.choice(HOSTS), self.dice.choice(("drained", "back"))
        maintenance = state == "back" or self.dice.random() < 0.3
        more = {"hosts": [host], "state": state, "maintenance": maintenance, "partial": True, "powered_off": True}
        self.run(f"{host} {state}", self.call(host_evacuate, **PLANS, **more))

    def placement(self) -> None:
        state = self.dice.choice(("saved", "restored"))
        self.run(f"placement {state}", self.call(vm_placement, **PLANS, name="嵐", state=state))

    def bind(self) -> None:
        definition, machine = f"node{self.dice.randint(1, 3)}", self.dice.choice((None, *HOSTS))
        state = self.dice.choice(("present", "present", "absent"))
        more = {"kind": "host", "group": "ESX", "model": MODEL}
        what = f"register {definition} {machine} {state}"
        self.run(what, self.call(machine_register, definition=definition, machine=machine, state=state, **more))

    def death(self) -> None:
        """A host dies, perhaps with VMs that run on unseen; what was on it is failed over, or it comes back first."""
        host = self.dice.choice([h for h in HOSTS if h not in self.dead])
        unseen = self.dice.random() < 0.3
        self.lab.vcenter.post("/host/die", host=host, vms="run" if unseen else "die")
        self.dead.add(host)
        self.log.append(f"{host} dies{', its VMs run on' if unseen else ''}")
        params = {"host": host, "phase": "run", "cluster": None, "network_map": {}, "constraints": APART, "at_once": 4}
        if self.dice.random() < 0.8:
            params["state_dir"] = str(self.lab.folder / "kept")
            self.run(f"failover of {host}", self.call(host_failover, fenced=None, **params))
            if unseen:
                self.look()
                self.lab.vcenter.post("/host/die", host=host, vms="die")
                self.run(f"failover of {host}, fenced", self.call(host_failover, fenced=True, **params))
        if self.dice.random() < 0.7:
            self.back(host)

    def back(self, host: str) -> None:
        self.log.append(f"{host} is back")
        self.lab.vcenter.post("/host/back", host=host)
        self.dead.discard(host)
        there, coming = self.vms(), self.on_its_way()
        for name, uuid in self.uuids.items():  # what has died with it is off, and nobody has asked us to start it
            for vm in there.get(uuid, []):
                if vm.runtime.host.name == host and vm.runtime.powerState == "poweredOff":
                    self.power[name] = "poweredOff"
                    self.either |= {name} & coming  # unless a failover has begun

    def trouble(self) -> None:
        kind = self.dice.choice(("fault", "relocate_fail", "power_on_fail", "register_fail", "session", "restart"))
        self.log.append(kind)
        if kind == "fault":
            fault = self.dice.choice(("InvalidState", "ManagedObjectNotFound", "TaskInProgress", "RuntimeFault"))
            self.lab.vcenter.fault("soap_fault", match=self.dice.choice(CALLS), fault=fault)
        elif kind == "session":
            self.lab.vcenter.fault("session_expire")
        elif kind == "restart":
            self.lab.vcenter.restart(0.1)
        else:
            self.lab.vcenter.fault(kind)
        if kind in ("session", "restart"):
            self.log_in_again()

    def log_in_again(self) -> None:
        self.lab.client.si._stub.DropConnections()
        end = time.monotonic() + 20
        while True:
            try:
                self.lab.client = type(self.lab.client)(self.lab.vcenter)
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def switch(self) -> None:
        """Somebody switches a VM on or off."""
        name = self.dice.choice(VMS)
        vm = next(iter(self.vms().get(self.uuids[name], [])), None)
        if (
            vm is None
            or vm.runtime.connectionState != "connected"
            or name in self.on_its_way()
            or "ferry.move" in self.lab.attributes(name)
        ):
            return
        on = vm.runtime.powerState == "poweredOn"
        self.log.append(f"{name} is switched {'off' if on else 'on'} by somebody")
        self.lab.vcenter.clear()
        self.lab.client.wait(vm.PowerOffVM_Task() if on else vm.PowerOnVM_Task())
        self.power[name] = str(vm.runtime.powerState)
        self.either.discard(name)

    # -- a whole storm

    def begin(self) -> None:
        manager = self.lab.client.content.customFieldsManager
        manager.RemoveCustomFieldDef(next(f.key for f in manager.field if f.name == "ferry.definition"))  # the model's is for VMs alone
        self.lab.move("toolless", host="esx2")

    def end(self) -> None:
        """Calm: all hosts are back, and what was begun is brought to its end. Then everything is as it was."""
        self.lab.vcenter.clear()
        for host in sorted(self.dead):
            self.back(host)
        for host in HOSTS:
            with contextlib.suppress(FerryError):
                self.call(host_evacuate, **PLANS, hosts=[host], state="back", maintenance=True, partial=True, powered_off=True)()
        for name in sorted(self.on_its_way()):
            with contextlib.suppress(FerryError):  # nothing is left to do for a VM that never left its host
                self.lab.move(name, method="failover", fenced=True, constraints=APART)
        for name in VMS:
            if "ferry.move" in self.lab.attributes(name):
                self.lab.move(name, host=self.lab.host(name), constraints=APART)
        self.look()
        for name in VMS:
            if name not in self.either and self.lab.power(name) != self.power[name]:
                raise Broken(f"{name} is {self.lab.power(name)}, was {self.power[name]}")
        self.age_locks()
        with client.connect(self.lab.connection) as session:
            attributes.sweep(session)
            if any(f.name.startswith(attributes.LOCK) for f in attributes.fields(session)):
                raise Broken("a lock is left")

    def go(self, steps: int) -> None:
        self.begin()
        ways = [self.move] * 4 + [self.drain] * 2 + [self.placement, self.bind] + [self.death] * 3 + [self.trouble] * 3 + [self.switch]
        for _number in range(steps):
            self.dice.choice(ways)()
            self.look()
        self.end()


def storm(folder: Path, seed: int, steps: int = 12) -> Storm:
    """One storm on a vCenter of its own; raises with its steps where something was broken."""
    with moves_of(folder) as lab:
        found = Storm(lab, seed)
        try:
            found.go(steps)
        except BaseException as e:
            e.add_note(f"seed {seed}:\n" + "\n".join(found.log)) if hasattr(e, "add_note") else found.log.append(str(e))
            print(f"seed {seed}:", *found.log, sep="\n  ", file=sys.stderr)
            raise
    return found


def main(argv: list[str]) -> int:
    count, seed = int(argv[0]) if argv else 20, int(argv[1]) if len(argv) > 1 else 1
    bad = []
    for number in range(seed, seed + count):
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = storm(Path(folder) / "storm", number, 25)
                print(f"seed {number}: {found.runs} runs, {found.kills} killed", flush=True)
            except Exception:  # noqa: BLE001 - whatever it is, the other seeds are tried
                traceback.print_exc()
                bad.append(number)
    print(f"{count - len(bad)} of {count} storms held" + (f"; broken: {bad}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
