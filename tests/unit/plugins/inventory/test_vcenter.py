# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader
from ansible.template import Templar
from pyVmomi import vim

from ..module_utils.vsphere.conftest import PASSWORD, FakeVcenter, result

EVIL = "{{ lookup('ansible.builtin.pipe', 'touch evil') }}"


def vm(name: str, folder: str = "group-v4", **props: Any) -> dict[str, Any]:
    return {"name": name, "parent": vim.Folder(folder), "config.instanceUuid": f"uuid-{name}", "config.template": False, **props}


def inventory() -> dict[Any, dict[str, Any]]:
    return {
        vim.CustomFieldsManager("CustomFieldsManager"): {},
        vim.Datacenter("datacenter-3"): {"name": "DC0", "parent": vim.Folder("group-d1")},
        vim.Folder("group-v4"): {"name": "vm", "parent": vim.Datacenter("datacenter-3")},
        vim.Folder("group-v5"): {"name": "wave1", "parent": vim.Folder("group-v4")},
        vim.HostSystem("host-6"): {"name": "esx1", "runtime.inMaintenanceMode": False},
        vim.Datastore("datastore-7"): {"name": "ds1", "summary.capacity": 100, "summary.freeSpace": 50},
        vim.VirtualMachine("vm-1"): vm("web01", "group-v5", **{"config.guestId": "debian12_64Guest", "config.hardware.memoryMB": 512}),
        vim.VirtualMachine("vm-2"): vm("twin", **{"config.guestId": "windows2022srv_64Guest", "config.hardware.memoryMB": 8192}),
        vim.VirtualMachine("vm-3"): vm("twin", "group-v5", **{"config.guestId": EVIL}),
        vim.VirtualMachine("vm-4"): {**vm("golden"), "config.template": True},
    }


Read = Callable[..., InventoryData]


@pytest.fixture
def read(vcenter: FakeVcenter, params: dict[str, Any], tmp_path: Path) -> Read:
    """Parses an inventory file with the connection of the fake vCenter and further options."""
    found = inventory()

    def retrieve(body: str) -> Any:
        return result(
            {obj: {k: v for k, v in props.items() if f">{k}<" in body} for obj, props in found.items() if f">{obj._wsdlName}<" in body}
        )

    vcenter.handlers["RetrievePropertiesEx"] = retrieve

    def parse(again: bool = True, **options: Any) -> InventoryData:
        path = tmp_path / "test.vcenter.yml"
        path.write_text(json.dumps({"plugin": "ferry.vmware.vcenter", **params, **options}))
        data = InventoryData()
        module = inventory_loader.get("ferry.vmware.vcenter")
        assert module.verify_file(str(path))
        module.parse(data, DataLoader(), str(path), cache=again)
        if options.get("cache"):
            module.update_cache_if_changed()  # as the inventory manager does
        data.reconcile_inventory()
        return data

    return parse


def hosts(data: InventoryData, group: str) -> set[str]:
    return {host.name for host in data.groups[group].get_hosts()}


def test_vms_hosts_and_datastores(read: Read, vcenter: FakeVcenter) -> None:
    data = read()
    assert hosts(data, "vms") == {"web01", "twin_vm-2", "twin_vm-3"}
    assert hosts(data, "esxi_hosts") == {"esx1"}
    assert hosts(data, "datastores") == {"ds1"}
    web = data.hosts["web01"].vars
    assert {k: v for k, v in web.items() if not k.startswith("inventory_")} == {
        "config": {"guestId": "debian12_64Guest", "hardware": {"memoryMB": 512}},
        "ferry_instance_uuid": "uuid-web01",
        "ferry_moref": "vm-1",
        "ferry_name": "web01",
        "ferry_path": "/DC0/vm/wave1/web01",
    }
    assert data.hosts["ds1"].vars["ferry_free"] == 50
    assert data.hosts["esx1"].vars["ferry_maintenance"] is False
    assert vcenter.calls.count("RetrievePropertiesEx") == 1  # where nothing is registered, it costs nothing that machines can be
    assert PASSWORD not in json.dumps([host.vars for host in data.hosts.values()])


@pytest.mark.parametrize("properties", [["name", "customValue"], ["name", "guest.net"]])
def test_registered_machines_have_their_definition_and_are_in_their_group(read: Read, vcenter: FakeVcenter, properties: list[str]) -> None:
    """Read here and, where a property needs the API's schema, through pyVmomi."""
    field, value = vim.CustomFieldsManager.FieldDef, vim.CustomFieldsManager.StringValue
    names = {7: "ferry.definition", 8: "ferry.group", 9: "owner"}
    defined = [field(key=k, name=n, type=str) for k, n in names.items()]
    found = inventory()
    found[vim.CustomFieldsManager("CustomFieldsManager")] = {"field": field.Array(defined)}
    values = [value(key=7, value="VM-01"), value(key=8, value="shop"), value(key=9, value="web team")]
    found[vim.VirtualMachine("vm-1")]["customValue"] = vim.CustomFieldsManager.Value.Array(values)
    found[vim.VirtualMachine("vm-1")]["guest.net"] = vim.vm.GuestInfo.NicInfo.Array(
        [vim.vm.GuestInfo.NicInfo(deviceConfigId=4000, connected=True)]
    )
    found[vim.VirtualMachine("vm-2")]["customValue"] = vim.CustomFieldsManager.Value.Array([value(key=9, value="web team")])
    found[vim.HostSystem("host-6")]["customValue"] = vim.CustomFieldsManager.Value.Array(
        [value(key=7, value="ESX-A"), value(key=8, value="esx")]
    )

    def retrieve(body: str) -> Any:
        rows = {o: {k: v for k, v in props.items() if f">{k}<" in body} for o, props in found.items() if f">{o._wsdlName}<" in body}
        return result(rows)

    vcenter.handlers["RetrievePropertiesEx"] = retrieve
    data = read(properties=properties)
    assert hosts(data, "shop") == {"web01"} and hosts(data, "esx") == {"esx1"}
    assert (data.hosts["web01"].vars["ferry_definition"], data.hosts["esx1"].vars["ferry_definition"]) == ("VM-01", "ESX-A")
    assert "ferry_definition" not in data.hosts["twin_vm-2"].vars
    assert ("customValue" in data.hosts["web01"].vars) == ("customValue" in properties)


def test_only_what_is_asked_for_is_read(read: Read, vcenter: FakeVcenter) -> None:
    data = read(properties=["name", "config.guestId"], with_esxi_hosts=False, with_datastores=False, include_templates=True)
    assert set(data.hosts) == {"web01", "twin_vm-2", "twin_vm-3", "golden"}
    assert "name" not in data.hosts["web01"].vars
    assert "esxi_hosts" not in data.groups
    body = next(b for b in vcenter.bodies if "RetrievePropertiesEx" in b)
    assert "memoryMB" not in body
    assert "HostSystem" not in body


def test_filters_groups_and_names(read: Read) -> None:
    data = read(
        filters=["config.hardware.memoryMB is defined", "config.hardware.memoryMB < 10000"],
        hostnames=["missing.thing", "ferry_moref ~ '.example'"],
        keyed_groups=[{"key": "config.guestId", "prefix": "os"}, {"key": "size", "prefix": "gib"}, {"key": "no.such", "prefix": "never"}],
        groups={"windows": "'windows' in config.guestId"},
        compose={"size": "(config.hardware.memoryMB // 1024) | string", "memory": "config.hardware.memoryMB"},
        group_by=["folder"],
    )
    assert hosts(data, "vms") == {"vm-1.example", "vm-2.example"}
    assert hosts(data, "os_debian12_64Guest") == {"vm-1.example"}
    assert hosts(data, "windows") == {"vm-2.example"}
    assert hosts(data, "folder_DC0_vm_wave1") == {"vm-1.example"}
    assert hosts(data, "gib_8") == {"vm-2.example"}
    assert not [group for group in data.groups if group.startswith("never")]
    assert (data.hosts["vm-2.example"].vars["size"], data.hosts["vm-2.example"].vars["memory"]) == ("8", 8192)


def test_folders(read: Read) -> None:
    assert hosts(read(folders=["/DC0/vm/wave1"]), "vms") == {"web01", "twin"}
    with pytest.raises(AnsibleParserError, match="/DC0/vm/nowhere"):
        read(folders=["/DC0/vm/nowhere"])


def test_an_error_in_a_filter_is_said_when_strict(read: Read) -> None:
    assert hosts(read(filters=["config.hardware.memoryMB > 1"]), "vms") == {"web01", "twin"}
    with pytest.raises(AnsibleParserError, match="fails for /DC0/vm/wave1/twin"):
        read(filters=["config.hardware.memoryMB > 1"], strict=True)


def test_what_a_vcenter_says_is_never_a_template(read: Read) -> None:
    value = read().hosts["twin_vm-3"].vars["config"]["guestId"]
    assert Templar(loader=DataLoader()).template(value) == EVIL
    plugin = importlib.import_module("ansible_collections.ferry.vmware.plugins.inventory.vcenter")
    header = "#jinja2:variable_start_string:'<<',variable_end_string:'>>'\n<< 6 * 7 >>"
    assert Templar(loader=DataLoader()).template(plugin.protect(header)) == header
    assert not Path("evil").exists()


def test_password_and_names_may_be_templates(read: Read) -> None:
    half = len(PASSWORD) // 2
    data = read(password="{{ '" + PASSWORD[:half] + "' ~ '" + PASSWORD[half:] + "' }}", hostname="{{ '127.0.0.' ~ 1 }}")
    assert "web01" in data.hosts


def test_a_wrong_password_is_one_clear_error(read: Read) -> None:
    with pytest.raises(AnsibleParserError, match="refuses the user name or the password") as e:
        read(password="wrong-one")
    assert "wrong-one" not in str(e.value)


def test_the_cache_answers_only_the_same_question(read: Read, vcenter: FakeVcenter, tmp_path: Path) -> None:
    cached = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    first = read(**cached)
    assert vcenter.logins == 1
    second = read(**cached)
    assert vcenter.logins == 1
    assert {h: v.vars for h, v in first.hosts.items()} == {h: v.vars for h, v in second.hosts.items()}
    assert PASSWORD not in "".join(f.read_text() for f in (tmp_path / "cache").iterdir())
    read(**cached, filters=["ferry_name == 'web01'"])
    assert vcenter.logins == 1
    read(**cached, properties=["config.guestId"])
    assert vcenter.logins == 2
    read(again=False, **cached)
    assert vcenter.logins == 3


@pytest.mark.parametrize(
    ("name", "ours"),
    [("a.vcenter.yml", True), ("ferry.yaml", True), ("wave.ferry.yml", True), ("hosts.yml", False), ("vcenter.ini", False)],
)
def test_names_of_configuration_files(tmp_path: Path, name: str, ours: bool) -> None:
    (tmp_path / name).write_text("plugin: ferry.vmware.vcenter\n")
    assert inventory_loader.get("ferry.vmware.vcenter").verify_file(str(tmp_path / name)) is ours
