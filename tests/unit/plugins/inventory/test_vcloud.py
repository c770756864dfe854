# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader
from ansible.template import Templar

from ..module_utils.vcloud.conftest import PASSWORD, VCLOUD, Answer, Asked, FakeVcd, vcd, vcd_authority, vcd_params

__all__ = ["vcd", "vcd_authority", "vcd_params"]

EVIL = "{{ lookup('ansible.builtin.pipe', 'touch evil') }}"
VC = "https://h/api/admin/extension/vimServer/3333cccc-0000-4000-8000-000000000003"

Read = Callable[..., InventoryData]


def uuid(n: int) -> str:
    return f"{n:08d}-0000-4000-8000-000000000000"


def records(kind: str, *rows: dict[str, str]) -> Answer:
    """A page with all of C(rows)."""
    inner = "".join(f"<{kind}Record{''.join(f' {k}={quoteattr(v)}' for k, v in row.items())}/>" for row in rows)
    return Answer(
        200, f'<QueryResultRecords xmlns="{VCLOUD}" total="{len(rows)}" pageSize="128" page="1">{inner}</QueryResultRecords>'.encode()
    )


def vm(n: int, name: str, vapp: str, vdc: int, **more: str) -> dict[str, str]:
    return {
        "name": name,
        "containerName": vapp,
        "vdc": f"https://h/api/vdc/{uuid(vdc)}",
        "status": "POWERED_ON",
        "isVAppTemplate": "false",
        "datastoreName": "gold-01",
        "vc": VC,
        "moref": f"vm-{n}",
        "href": f"https://h/api/vApp/vm-{uuid(n)}",
        **more,
    }


@pytest.fixture
def read(vcd: FakeVcd, vcd_params: dict[str, Any], tmp_path: Path) -> Read:
    """Parses an inventory file with the connection of the fake vCloud Director and further options."""
    vms = [
        vm(1, "db01", "erp", 101),
        vm(2, "db01", "erp", 102, status="POWERED_OFF"),
        vm(3, "web 01", "web", 101, datastoreName=EVIL),
        vm(4, "golden", "images", 101, isVAppTemplate="true"),
        vm(5, "vms", "odd", 103),
    ]
    vdcs = [(101, "prod", "acme"), (102, "dev", "acme"), (103, "prod", "globex")]

    def answer(asked: Asked) -> Answer:
        if "type=adminVM" in asked.path:
            return records("AdminVM", *vms)
        if "type=adminOrgVdc" in asked.path:
            return records("AdminVdc", *({"name": n, "orgName": o, "href": f"https://h/api/admin/vdc/{uuid(i)}"} for i, n, o in vdcs))
        return records(
            "Datastore", {"name": "gold-01", "vc": VC, "vcName": "vc1", "href": f"https://h/api/admin/extension/datastore/{uuid(9)}"}
        )

    vcd.handlers["GET /api/query"] = answer

    def parse(again: bool = True, **options: Any) -> InventoryData:
        path = tmp_path / "test.vcloud.yml"
        path.write_text(json.dumps({"plugin": "ferry.vmware.vcloud", **vcd_params, **options}))
        data = InventoryData()
        module = inventory_loader.get("ferry.vmware.vcloud")
        assert module.verify_file(str(path))
        assert not module.verify_file(str(tmp_path / "test.vcenter.yml"))
        module.parse(data, DataLoader(), str(path), cache=again)
        if options.get("cache"):
            module.update_cache_if_changed()  # as the inventory manager does
        data.reconcile_inventory()
        return data

    return parse


def hosts(data: InventoryData, group: str) -> set[str]:
    return {host.name for host in data.groups[group].get_hosts()}


def test_names_groups_and_variables(read: Read) -> None:
    data = read()
    first, second, odd = f"db01_{uuid(1)}", f"db01_{uuid(2)}", f"vms_{uuid(5)}"
    assert hosts(data, "vms") == {first, second, odd, "web 01"}
    assert hosts(data, "org_acme") == {first, second, "web 01"}
    assert hosts(data, "org_globex") == hosts(data, "vdc_globex_prod") == hosts(data, "vapp_odd") == {odd}
    assert hosts(data, "vdc_prod") == {first, "web 01", odd}
    assert hosts(data, "vdc_acme_prod") == {first, "web 01"}
    assert hosts(data, "vdc_dev") == {second}
    assert hosts(data, "vapp_erp") == {first, second}
    assert hosts(data, "vapp_prod_erp") == {first}
    assert hosts(data, "vapp_dev_erp") == {second}
    assert not {"templates", "vdc_acme_dev", "vapp_prod_web", "vapp_images"} & set(data.groups)
    assert {k: v for k, v in data.hosts[second].vars.items() if k.startswith("ferry_")} == {
        "ferry_name": "db01",
        "ferry_href": f"https://h/api/vApp/vm-{uuid(2)}",
        "ferry_id": f"urn:vcloud:vm:{uuid(2)}",
        "ferry_moref": "vm-2",
        "ferry_vapp": "erp",
        "ferry_vdc": "dev",
        "ferry_org": "acme",
        "ferry_status": "POWERED_OFF",
        "ferry_datastore": "gold-01",
        "ferry_vcenter": "vc1",
        "ferry_is_template": False,
    }
    assert PASSWORD not in json.dumps([host.vars for host in data.hosts.values()])


def test_filters_templates_and_composed_groups(read: Read) -> None:
    data = read(
        include_templates=True,
        filters=["ferry_org == 'acme'"],
        hostnames=["ferry_vdc ~ '-' ~ ferry_name"],
        keyed_groups=[{"key": "ferry_status", "prefix": "is"}],
        groups={"databases": "ferry_name is match('db')"},
        compose={"where": "ferry_vdc"},
    )
    assert hosts(data, "vms") == {"prod-db01", "dev-db01", "prod-web 01", "prod-golden"}
    assert hosts(data, "templates") == hosts(data, "vapp_images") == {"prod-golden"}
    assert hosts(data, "is_POWERED_OFF") == {"dev-db01"}
    assert hosts(data, "databases") == {"prod-db01", "dev-db01"}
    assert data.hosts["dev-db01"].vars["where"] == "dev"


def test_what_a_server_says_is_never_a_template(read: Read) -> None:
    value = read().hosts["web 01"].vars["ferry_datastore"]
    assert Templar(loader=DataLoader()).template(value) == EVIL
    assert not Path("evil").exists()


def test_only_what_is_needed_is_asked_for(read: Read, vcd: FakeVcd) -> None:
    read()
    asked = [a.path for a in vcd.asked if "type=adminVM" in a.path]
    assert len(asked) == 1
    assert "pageSize=128" in asked[0]
    assert "fields=name,containerName," in asked[0]
    assert "hostName" not in asked[0]


def test_the_password_may_be_a_template(read: Read) -> None:
    half = len(PASSWORD) // 2
    assert "web 01" in read(password="{{ '" + PASSWORD[:half] + "' ~ '" + PASSWORD[half:] + "' }}").hosts


def test_a_wrong_password_is_one_clear_error(read: Read, vcd: FakeVcd) -> None:
    vcd.handlers["POST /cloudapi/1.0.0/sessions/provider"] = lambda a: Answer(401)
    with pytest.raises(AnsibleParserError, match="refuses the user name or the password") as e:
        read(password="wrong-one")
    assert "wrong-one" not in str(e.value)


def test_the_cache_answers_only_the_same_question(read: Read, vcd: FakeVcd, tmp_path: Path) -> None:
    cached = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    first = read(**cached)
    count = len(vcd.asked)
    assert set(read(**cached).hosts) == set(first.hosts)
    assert len(vcd.asked) == count
    read(**cached, name="db*")
    assert len(vcd.asked) > count
    count = len(vcd.asked)
    read(again=False, **cached)
    assert len(vcd.asked) > count
