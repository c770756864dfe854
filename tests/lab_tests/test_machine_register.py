# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""machine_register against a vCenter of its own: bindings, reasons, races, locks that killed runs have left."""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import attributes, client
from ansible_collections.ferry.vmware.plugins.modules import machine_register
from tests.lab.vcenter import USER, VCenter
from tests.lab_tests import vcenter_lab

MODEL = {"min_cpus": 0, "min_memory_mb": 0, "datastores": [], "networks": [], "disks_gb": [], "tags": [], "attributes": {}}
NOTHING = dict.fromkeys(("name", "vendor", "model", "version", "cluster", "guest_id"))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[VCenter]:
    with vcenter_lab.running(tmp_path, vcenter_lab.small_model(tmp_path)) as found:
        yield found


@pytest.fixture
def plain(lab: VCenter) -> Iterator[vcenter_lab.Client]:
    found = vcenter_lab.Client(lab)
    yield found
    found.close()


def connection(lab: VCenter) -> dict[str, Any]:
    return {
        "hostname": "127.0.0.1",
        "port": lab.port,
        "username": USER,
        "password": lab.place.password(),
        "ca_path": str(lab.place.state / "ca.pem"),
        "validate_certs": True,
    }


def register(lab: VCenter, definition: str, check: bool = False, model: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """What the module returns, with its warnings."""
    warnings: list[str] = []
    params = {
        **connection(lab),
        "kind": "host",
        "group": "ESX",
        "machine": None,
        "state": "present",
        **more,
        "definition": definition,
        "model": {**MODEL, **NOTHING, **(model or {})},
    }
    result = machine_register.work(edge.Call(params, check=check, diff=True, warn=warnings.append))
    return {**result, "warned": warnings}


def carried(plain: vcenter_lab.Client, kind: type = vim.HostSystem) -> dict[str, dict[str, str]]:
    """Custom attributes of ours by machine, as plain pyvmomi sees them."""
    names = {f.key: f.name for f in plain.content.customFieldsManager.field}
    return {
        name: {names[v.key]: v.value for v in thing.customValue if v.value and names[v.key].startswith("ferry.")}
        for name, thing in plain.all(kind).items()
    }


def no_locks(plain: vcenter_lab.Client) -> bool:
    return not any(f.name.startswith(attributes.LOCK) for f in plain.content.customFieldsManager.field)


def test_register_again_and_release(lab: VCenter, plain: vcenter_lab.Client) -> None:
    assert register(lab, "esx 一号", check=True)["changed"]
    assert carried(plain) == {"esx1": {}, "esx2": {}, "esx3": {}}
    first = register(lab, "esx 一号")
    assert first["changed"]
    assert first["machine"]["name"] == "esx1"
    assert first["diff"]["before"]["machine"] is None
    assert first["diff"]["after"] == {"definition": "esx 一号", "machine": "esx1", "group": "ESX"}
    assert carried(plain)["esx1"] == {"ferry.definition": "esx 一号", "ferry.group": "ESX"}
    again = register(lab, "esx 一号")
    assert not again["changed"]
    assert again["diff"]["before"] == again["diff"]["after"]
    moved = register(lab, "esx 一号", machine="esx2")
    assert moved["changed"]
    assert moved["released"] == ["esx1"]
    assert carried(plain) == {"esx1": {}, "esx2": {"ferry.definition": "esx 一号", "ferry.group": "ESX"}, "esx3": {}}
    assert register(lab, "esx 一号", group="他")["changed"]
    assert carried(plain)["esx2"]["ferry.group"] == "他"
    assert register(lab, "esx 一号", state="absent", group=None)["released"] == ["esx2"]
    assert not register(lab, "esx 一号", state="absent", group=None)["changed"]
    assert carried(plain) == {"esx1": {}, "esx2": {}, "esx3": {}}
    assert no_locks(plain)


def test_a_change_by_hand_is_mended(lab: VCenter, plain: vcenter_lab.Client) -> None:
    register(lab, "esx1")
    key = next(f.key for f in plain.content.customFieldsManager.field if f.name == "ferry.group")
    plain.content.customFieldsManager.SetField(plain.all(vim.HostSystem)["esx1"], key, "wrong")
    assert register(lab, "esx1")["changed"]
    assert carried(plain)["esx1"]["ferry.group"] == "ESX"


def test_candidates_say_why_not(lab: VCenter) -> None:
    wanted = {"min_cpus": 2, "vendor": "vmware*", "datastores": ["local1"], "networks": ["backend"]}
    found = register(lab, "one", model=wanted)
    said = {c["name"]: c["reasons"] for c in found["candidates"]}
    assert said["esx1"] == []
    assert said["esx2"] == ["datastore local1 is not there"]
    with pytest.raises(BadInput) as e:
        register(lab, "two", model=wanted)
    assert e.value.code == "no_candidate"
    assert "registered as one" in str(e.value)
    assert len(e.value.partial["candidates"]) == 3
    with pytest.raises(BadInput) as e:
        register(lab, "two", machine="esx1")
    assert e.value.code == "does_not_fit"
    with pytest.raises(BadInput) as e:
        register(lab, "two", model={"min_memory_mb": 1 << 30, "cluster": "C9"}, machine="esx3")
    assert "MiB of memory" in str(e.value) and "cluster is unknown, wanted C9" in str(e.value)


def test_vms_with_disks_and_attributes(lab: VCenter, plain: vcenter_lab.Client) -> None:
    found = register(
        lab, "VM-02", kind="vm", group="web", model={"guest_id": "DEBIAN*", "disks_gb": [0.003], "attributes": {"owner": "web*"}}
    )
    assert found["machine"]["name"] == "plain"
    assert found["machine"]["uuid"]
    reasons = {c["name"]: c["reasons"] for c in found["candidates"]}
    assert "a template" in reasons["golden"]
    assert any(r.startswith("a disk of") for r in reasons["hung"])
    assert carried(plain, vim.VirtualMachine)["plain"] == {"ferry.definition": "VM-02", "ferry.group": "web"}
    assert register(lab, "在庫", kind="vm", machine=vcenter_lab.JAPANESE)["machine"]["name"] == vcenter_lab.JAPANESE


def test_a_machine_that_no_longer_fits_is_kept_and_told_of(lab: VCenter) -> None:
    register(lab, "esx1", machine="esx3")
    found = register(lab, "esx1", model={"min_cpus": 64})
    assert not found["changed"]
    assert found["machine"]["misfits"] == ["2 CPUs, at least 64 wanted"]
    assert "esx3 no longer fits esx1" in found["warned"][0]


@pytest.mark.parametrize("wrong", [{"definition": " x"}, {"definition": ""}, {"group": "a\nb"}, {"definition": "x" * 201}])
def test_names_that_cannot_be(lab: VCenter, wrong: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        register(lab, **{"definition": "ok", **wrong})


def test_unknown_and_ambiguous_machines(lab: VCenter) -> None:
    with pytest.raises(BadInput) as e:
        register(lab, "x", machine="esx9")
    assert e.value.code == "unknown"


def test_runs_that_race(lab: VCenter, plain: vcenter_lab.Client) -> None:
    """Twelve runs, four definitions, three hosts: whoever wins, no machine and no definition is there twice."""
    outcomes: list[tuple[str, str]] = []

    def run(number: int) -> None:
        definition = f"def{number % 4}"
        try:
            outcomes.append((definition, str(register(lab, definition)["machine"]["name"])))
        except (BadInput, Busy) as e:
            outcomes.append((definition, e.code))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    bound = {name: values["ferry.definition"] for name, values in carried(plain).items() if values}
    assert len(bound) == 3
    assert len(set(bound.values())) == 3
    by_definition = collections.defaultdict(set)
    for definition, outcome in outcomes:
        by_definition[definition].add(outcome)
    for definition, found in by_definition.items():
        assert len(found) == 1, outcomes
        assert bound.get(next(iter(found))) == definition or found == {"no_candidate"}
    assert no_locks(plain)


def left_over(plain: vcenter_lab.Client, what: str, age: float | None) -> int:
    """A lock as a killed run leaves it, made by plain pyvmomi."""
    manager = plain.content.customFieldsManager
    key = int(manager.AddCustomFieldDef(name=attributes.lock_name(what), moType=None).key)
    if age is not None:
        since = plain.si.CurrentTime().timestamp() - age
        manager.SetField(plain.content.rootFolder, key, json.dumps({"owner": "node1 4711", "since": since}))
    return key


def test_a_lock_that_is_left_over_is_broken(lab: VCenter, plain: vcenter_lab.Client) -> None:
    left_over(plain, "definition esx1", attributes.LEASE + 5)
    assert register(lab, "esx1")["changed"]
    assert no_locks(plain)


def test_a_lock_that_is_held_is_waited_for_and_said(lab: VCenter, plain: vcenter_lab.Client) -> None:
    left_over(plain, "definition esx1", 1.0)
    with client.connect(connection(lab)) as session, pytest.raises(Busy) as e:
        attributes.acquire(session, "definition esx1", timeout=0.3)
    assert e.value.said == "node1 4711"
    assert not no_locks(plain)


def test_a_lock_without_an_owner_is_broken_after_a_while(lab: VCenter, plain: vcenter_lab.Client) -> None:
    left_over(plain, "definition esx1", None)
    now = [0.0]
    with client.connect(connection(lab)) as session:
        lock = attributes.acquire(session, "definition esx1", clock=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + 5))
        assert now[0] > attributes.NAMELESS
        lock.sure()
        attributes.remove(session, lock.key)
        with pytest.raises(Busy):
            lock.sure()


def test_a_lock_is_no_longer_trusted_after_half_its_time(lab: VCenter) -> None:
    now = [0.0]
    with client.connect(connection(lab)) as session, attributes.locked(session, "x", clock=lambda: now[0]) as lock:
        now[0] = attributes.LEASE / 2 + 1
        with pytest.raises(Busy):
            lock.sure()
        lock.sign()
        lock.sure()


KILLED = """
import json, sys, time
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import attributes, binding, client
p = json.loads(sys.stdin.readline())
real = attributes.set_value
calls = [0]
def slow(session, entity, key, value):
    real(session, entity, key, value)
    calls[0] += 1
    print(calls[0], flush=True)
    if calls[0] == p["stop"]:
        time.sleep(60)
attributes.set_value = slow
with client.connect(p["connection"]) as session:
    binding.register(session, binding.Request("host", "ESX", "esx1", machine="esx2"))
"""


@pytest.mark.slow
@pytest.mark.fault(
    "the run is killed between two writes of a registration", where="vCenter", ends="the next run finishes it; one machine, one definition"
)
@pytest.mark.parametrize("stop", range(1, 7))
def test_killed_between_any_two_writes(lab: VCenter, plain: vcenter_lab.Client, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Re-registering from esx1 to esx2, SIGKILL after each write: lock, lock, release of both attributes, both new ones."""
    register(lab, "esx1", machine="esx1")
    child = subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        if child.stdin is None or child.stdout is None:
            raise RuntimeError("no pipes")
        child.stdin.write(json.dumps({"connection": connection(lab), "stop": stop}) + "\n")
        child.stdin.flush()
        for line in child.stdout:
            if int(line) == stop:
                break
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
    now = [v["ferry.definition"] for v in carried(plain).values() if "ferry.definition" in v]
    assert len(now) <= 1
    monkeypatch.setattr(attributes, "LEASE", 1.0)
    time.sleep(1.1)
    monkeypatch.setattr(attributes.Lock, "sure", lambda self: None)  # half of a lease of one second is not enough for a run
    found = register(lab, "esx1", machine="esx2")
    assert found["machine"]["name"] == "esx2"
    assert carried(plain) == {"esx1": {}, "esx2": {"ferry.definition": "esx1", "ferry.group": "ESX"}, "esx3": {}}
    assert no_locks(plain)
