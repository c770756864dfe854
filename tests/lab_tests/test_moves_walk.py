# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole way, with playbooks and the inventory plugin alone: hosts and VMs are registered as definitions, a VM is moved in each way, its
host dies, and it runs elsewhere. What it did is looked at with plain pyvmomi and in the bytes of the disks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from tests.lab.vcenter import VCenter
from tests.lab_tests import vcenter_lab
from tests.lab_tests.test_placement_plays import play, run

pytestmark = pytest.mark.slow

DEFINITIONS = """
definitions:
  children:
    esx:
      vars: {ferry_kind: host}
      hosts:
        ESX-A: {ferry_machine: esx1}
        ESX-B: {ferry_machine: esx2}
    shop:
      vars: {ferry_kind: vm}
      hosts:
        VM-01: {ferry_machine: web01}
        VM-02: {ferry_machine: 在庫 02}
        VM-03: {ferry_machine: db03}
"""
INVENTORY = """
plugin: ferry.vmware.vcenter
hostnames: [ferry_definition, ferry_name]
properties: [name, runtime.powerState]
"""
MOVE = """
- name: Move one definition's VM to another definition's host
  hosts: "{{ what }}"
  gather_facts: false
  connection: local
  tasks:
    - name: Move it
      ferry.vmware.vm_move:
        vm: "{{ ferry_moref }}"
        method: "{{ how }}"
        host: "{{ groups['esx'] | map('extract', hostvars) | selectattr('ferry_definition', 'equalto', to) | map(attribute='ferry_moref') | first }}"
"""


def model(folder: Path) -> Path:
    """Two hosts with shared and local storage; web01 and 在庫 02 on the shared one, db03 on the local disk of esx1."""
    raw = vcenter_lab.write_raw(folder / "disk.raw", 6 << 20, 9)

    def vm(name: str, store: str, mac: str) -> dict[str, Any]:
        return {
            "name": name,
            "host": "esx1",
            "datastore": store,
            "power": "on",
            "memory_mb": 256,
            "shutdown_seconds": 0.2,
            "annotation": f"{name} の覚え書き",
            "disks": [{"controller": "pvscsi", "path": raw.name, "provisioning": "thin"}],
            "nics": [{"network": "VM Network", "mac": mac}],
        }

    found = {
        "datacenter": "DC lab",
        "clusters": [{"name": "C0", "hosts": ["esx1", "esx2"]}],
        "networks": ["VM Network"],
        "datastores": [
            {"name": "shared", "capacity": "10GiB"},
            {"name": "local1", "capacity": "4GiB", "hosts": ["esx1"]},
            {"name": "local2", "capacity": "4GiB", "hosts": ["esx2"]},
        ],
        "vms": [
            vm("web01", "shared", "00:50:56:0c:00:01"),
            vm("在庫 02", "shared", "00:50:56:0c:00:02"),
            vm("db03", "local1", "00:50:56:0c:00:03"),
        ],
    }
    path = folder / "model.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[VCenter]:
    with vcenter_lab.running(tmp_path, model(tmp_path)) as found:
        yield found


@pytest.mark.fault("the ESXi host of registered VMs dies", "vCenter", "they run on another host, registered as before")
def test_registered_moved_in_each_way_and_failed_over(lab: VCenter, tmp_path: Path) -> None:
    for name, text in (("definitions.yml", DEFINITIONS), ("site.vcenter.yml", INVENTORY), ("move.yml", MOVE)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    client = vcenter_lab.Client(lab)

    def move(what: str, how: str, to: str) -> str:
        words = [
            "-i",
            "site.vcenter.yml",
            "move.yml",
            "-e",
            json.dumps({"what": what, "how": how, "to": to, "ansible_python_interpreter": sys.executable}),
        ]
        return run(lab, tmp_path, "ansible-playbook", *words)

    def seen(name: str) -> tuple[str, str]:
        vm = client.vm(name)
        return vm.runtime.host.name, vm.runtime.powerState

    def definitions() -> dict[str, Any]:
        listed = json.loads(run(lab, tmp_path, "ansible-inventory", "-i", "site.vcenter.yml", "--list"))
        assert sorted(listed["shop"]["hosts"]) == ["VM-01", "VM-02", "VM-03"] and sorted(listed["esx"]["hosts"]) == ["esx1", "esx2"]
        return {name: v["ferry_name"] for name, v in listed["_meta"]["hostvars"].items() if v.get("ferry_group") == "shop"}

    assert play(lab, tmp_path, "machine_register", "-i", "definitions.yml").count("changed=1") == 5
    assert definitions() == {"VM-01": "web01", "VM-02": "在庫 02", "VM-03": "db03"}
    before = {name: lab.sha256(name, 2000) for name in ("web01", "在庫 02", "db03")}

    assert "changed=1" in move("VM-02", "hot", "ESX-B")
    assert seen("在庫 02") == ("esx2", "poweredOn")
    assert "changed=0" in move("VM-02", "hot", "ESX-B")

    assert "changed=1" in move("VM-03", "move", "ESX-B")
    moved = client.vm("db03").config
    assert seen("db03") == ("esx2", "poweredOn") and moved.files.vmPathName.startswith("[local2]")
    assert all(d.backing.fileName.startswith("[local2]") for d in vcenter_lab.disks_of(moved).values())

    lab.post("/host/die", host="esx1", vms="die")
    fence = tmp_path / "fence.yml"
    fence.write_text("- name: It is off\n  ansible.builtin.debug: {msg: the management controller says off}\n", encoding="utf-8")
    variables = {"ferry_dead_host": "esx1", "ferry_fence_tasks": str(fence), "ferry_failover_state_dir": str(tmp_path / "kept")}
    assert "changed=" in play(lab, tmp_path, "host_failover", "-e", json.dumps(variables))
    assert seen("web01") == ("esx2", "poweredOn")
    assert client.vm("web01").config.annotation == "web01 の覚え書き"
    assert {name: lab.sha256(name, 2000) for name in before} == before
    assert definitions() == {"VM-01": "web01", "VM-02": "在庫 02", "VM-03": "db03"}
    assert client.all(vim.HostSystem)["esx1"].runtime.connectionState == "notResponding"
    client.close()
