# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import document, entities, eras, find, query, space, tasks

from .conftest import VCLOUD, sample

OLD, MIDDLE, NEW = (eras.era_of(v) for v in ("1.5", "34.0", "36.0"))
VC = "3333cccc-0000-4000-8000-000000000003"


@pytest.mark.parametrize(
    ("era", "value", "wanted"),
    [
        (OLD, "db01", "filterEncoded=true&filter=name==db01"),
        (MIDDLE, "a(1), b;c", "filterEncoded=true&filter=name==a%25281%2529%252C%2520b%253Bc"),
        (NEW, "db01", "filter=name==db01"),
        (NEW, "a(1), b;c\\", "filter=name==a%5C(1%5C)%5C,%20b%5C;c%5C%5C"),
        (NEW, "web*", "filter=name==web*"),
        (OLD, "web*", "filterEncoded=true&filter=name==web*"),
        (NEW, "在庫&x=1#", "filter=name==%E5%9C%A8%E5%BA%AB%26x=1%23"),
        (OLD, "50%", "filterEncoded=true&filter=name==50%2525"),
    ],
)
def test_filters_by_era(era: eras.Era, value: str, wanted: str) -> None:
    path = query.query_path("adminVM", era, where=query.equal("name", value, era))
    assert path == f"/api/query?type=adminVM&format=records&page=1&pageSize=128&sortAsc=name&{wanted}"


def test_filters_together() -> None:
    both = query.every(query.equal("name", "a", NEW), None, query.any_of("status", ["x", "y"], NEW), query.raw("b==1,c==2", NEW))
    assert both == query.Fiql("name==a;(status==x,status==y);(b==1,c==2)")
    assert query.every(None, None) is None
    assert query.compare("memoryMB", "ge", "4096", NEW).text == "memoryMB=ge=4096"
    with pytest.raises(BadInput, match=r"5\.1"):
        query.compare("memoryMB", "ge", "4096", OLD)


def test_a_page() -> None:
    page = query.page_of(document.parse(sample("adminVM_1.5")))
    assert (page.total, page.size, page.number, len(page.records)) == (86, 25, 1, 1)
    assert page.following == "/api/query?type=adminVM&page=2&pageSize=25&format=records"
    guess = query.predictor(page)
    assert guess is not None
    assert guess(17) == "/api/query?type=adminVM&page=17&pageSize=25&format=records"
    with pytest.raises(ServerError):
        query.page_of(document.parse(sample("vm")))


@pytest.mark.parametrize(
    "following", [None, "/api/query?type=x&cursor=abc", "/api/query?type=x&page=20", "/api/query?homepage=2&offset=25"]
)
def test_pages_that_cannot_be_told_ahead(following: str | None) -> None:
    assert query.predictor(query.Page([], 86, 25, 1, following)) is None


def test_a_vm_record() -> None:
    vm = entities.vm_record(query.page_of(document.parse(sample("adminVM_1.5"))).records[0])
    assert (vm.name, vm.vapp, vm.status, vm.is_template, vm.datastore, vm.moref) == (
        "db01",
        "erp",
        "POWERED_ON",
        False,
        "gold-01",
        "vm-191",
    )
    assert vm.id == "urn:vcloud:vm:1111aaaa-0000-4000-8000-000000000001"
    assert entities.uuid_of(vm.vc) == VC
    assert entities.uuid_of("nothing") == ""


def test_datastores_are_the_same_by_record_and_by_entity() -> None:
    record = entities.datastore_record(query.page_of(document.parse(sample("datastore_modern"))).records[0])
    entity = entities.datastore_of(document.parse(sample("datastore_ext")))
    assert record.as_dict() == entity.as_dict()
    assert record.as_dict() == {
        "name": "gold-02",
        "href": "https://vcd.example/api/admin/extension/datastore/2222bbbb-0000-4000-8000-000000000002",
        "id": "urn:vcloud:datastore:2222bbbb-0000-4000-8000-000000000002",
        "moref": "datastore-42",
        "vcenter": "vc1",
        "enabled": True,
        "total_mb": 2097152,
        "used_mb": 1048576,
        "provisioned_mb": 2621440,
        "requested_mb": 1500000,
    }
    assert record.key == entity.key == (VC, "datastore-42")
    assert entity.red_mb == 100 * 1024


def test_a_vm() -> None:
    vm = entities.vm_of(document.parse(sample("vm")))
    assert (vm.name, vm.status, vm.chain, vm.profile_name) == ("db01", "POWERED_ON", 2, "Gold")
    assert vm.home == (VC, "datastore-41")
    assert vm.on((VC, "datastore-41")) is True
    assert vm.on((VC, "datastore-42")) is False
    assert vm.relocate_href is not None
    assert vm.relocate_href.endswith("/action/relocate")


def whole_vm(disks: str, stores: str) -> entities.VmFacts:
    """A VM with the hardware items and VmDiskDatastores given."""
    text = f"""<Vm xmlns="{VCLOUD}" xmlns:e="http://www.vmware.com/vcloud/extension/v1.5" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
      xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:v="{VCLOUD}"
      name="x" href="https://h/api/vApp/vm-1111aaaa-0000-4000-8000-000000000001" status="8"><VCloudExtension><e:VmVimInfo>
      <e:DatastoreVimObjectRef><e:VimServerRef href="https://h/api/admin/extension/vimServer/{VC}"/><e:MoRef>datastore-1</e:MoRef>
      </e:DatastoreVimObjectRef>{stores}</e:VmVimInfo></VCloudExtension>
      <ovf:VirtualHardwareSection>{disks}</ovf:VirtualHardwareSection></Vm>"""
    return entities.vm_of(document.parse(text.encode()))


def item(key: int, size: int, more: str = "") -> str:
    return (
        f'<ovf:Item><rasd:ElementName>Hard disk {key}</rasd:ElementName><rasd:HostResource v:capacity="{size}" {more}/>'
        f"<rasd:InstanceID>{key}</rasd:InstanceID><rasd:ResourceType>17</rasd:ResourceType></ovf:Item>"
    )


def store(key: int, moref: str) -> str:
    return (
        f'<e:VmDiskDatastores instanceId="{key}"><e:VimServerRef href="https://h/api/admin/extension/vimServer/{VC}"/>'
        f"<e:MoRef>{moref}</e:MoRef></e:VmDiskDatastores>"
    )


def test_every_disk_counts_but_independent_ones() -> None:
    one = (VC, "datastore-1")
    vm = whole_vm(item(2000, 100) + item(2001, 50), store(2000, "datastore-1") + store(2001, "datastore-2"))
    assert (vm.on(one), vm.size_mb, space.to_move(vm, one), space.to_move(vm, (VC, "datastore-3"))) == (False, 150, 50, 150)
    vm = whole_vm(
        item(2000, 100) + item(3000, 50, 'v:disk="https://h/api/disk/1"'), store(2000, "datastore-1") + store(3000, "datastore-2")
    )
    assert (vm.on(one), vm.size_mb, space.to_move(vm, one)) == (True, 100, 0)
    # before 5.6 disks are not told of
    vm = whole_vm(item(2000, 100), "")
    assert (vm.on(one), space.to_move(vm, one)) == (True, 0)


@pytest.mark.parametrize(
    ("need", "reserve", "in_flight", "fits", "overcommitted"),
    [(100, 0, 0, True, False), (500, 0, 0, True, True), (501, 0, 0, False, True), (401, 10, 0, False, True), (200, 0, 301, False, True)],
)
def test_room(need: int, reserve: float, in_flight: int, fits: bool, overcommitted: bool) -> None:
    target = entities.datastore_record({"storageMB": "1000", "storageUsedMB": "500", "provisionedStorageMB": "800"})
    found = space.room(target, need, reserve_percent=reserve, in_flight_mb=in_flight)
    assert (found.fits, found.overcommitted) == (fits, overcommitted)


def test_tasks() -> None:
    running = tasks.task_of(document.parse(sample("task_running")))
    assert (running.status, running.progress, running.in_flight, running.operation_name) == ("running", 40, True, "vappRelocateVm")
    assert running.path == "/api/task/3333cccc-0000-4000-8000-000000000003"
    assert running.cancel_href is not None
    bad = tasks.task_of(document.parse(sample("task_error")))
    e = tasks.failed(bad, vm="db01", step="relocate the VM")
    assert (e.code, e.details["minor"], e.details["major"]) == ("task", "INTERNAL_SERVER_ERROR", 500)
    assert "(text invented)" in str(e)


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("db01", "db01", True),
        ("db01", "DB01", False),
        ("db*", "DB01", True),
        ("*", "", True),
        ("a.c", "abc", False),
        ("a*c", "a(\n)c", True),
    ],
)
def test_names(pattern: str, name: str, fits: bool) -> None:
    assert find.matches(pattern, name) is fits


def stores(*rows: tuple[str, str, str, str]) -> list[entities.Datastore]:
    made: list[dict[str, Any]] = [
        {"name": n, "moref": m, "vc": f"https://h/api/admin/extension/vimServer/{vc}", "vcName": vc[:3], "isDeleted": d,
         "href": f"https://h/api/admin/extension/datastore/0000000{i}-0000-4000-8000-000000000000"}
        for i, (n, m, vc, d) in enumerate(rows)
    ]  # fmt: skip
    return [entities.datastore_record(r) for r in made]


def test_datastores_whose_names_repeat() -> None:
    other = VC.replace("3333", "4444")
    found = stores(("a", "datastore-1", VC, "false"), ("a", "datastore-1", other, "false"), ("b", "datastore-2", VC, "true"))
    client: Any = None
    assert find.find_datastore(client, "a", vc=f"https://x/api/{other}", stores=found).vc.endswith(other)
    assert find.find_datastore(client, "b", stores=found).deleted
    assert find.find_datastore(client, "urn:vcloud:datastore:00000001-0000-4000-8000-000000000000", stores=found) is found[1]
    assert find.find_datastore(client, "https://elsewhere" + found[0].href[9:], stores=found) is found[0]
    for wanted in ("a", "datastore-1"):
        with pytest.raises(BadInput) as e:
            find.find_datastore(client, wanted, stores=found)
        assert len(e.value.details["matches"]) == 2
    with pytest.raises(BadInput, match="Close: a"):
        find.find_datastore(client, "A", stores=found)
