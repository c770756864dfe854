# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client, listing, properties, wire

from .conftest import PASSWORD, FakeVcenter, Fault, result

XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema"'


def value(text: str) -> Any:
    return wire.value_of(ElementTree.fromstring(text))


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (f'<val {XSI} xsi:type="xsd:string">a &amp; b</val>', "a & b"),
        (f'<val {XSI} xsi:type="xsd:string"/>', ""),
        (f'<val {XSI} xsi:type="xsd:int">-5</val>', -5),
        (f'<val {XSI} xsi:type="xsd:long">1099511627776</val>', 1 << 40),
        (f'<val {XSI} xsi:type="xsd:boolean">true</val>', True),
        (f'<val {XSI} xsi:type="xsd:boolean">false</val>', False),
        (f'<val {XSI} xsi:type="xsd:double">1.5</val>', 1.5),
        (f'<val {XSI} xsi:type="xsd:dateTime">2026-11-21T10:00:00Z</val>', "2026-11-21T10:00:00+00:00"),
        (f'<val {XSI} xsi:type="VirtualMachinePowerState">poweredOn</val>', "poweredOn"),
        (f'<val {XSI} xsi:type="ManagedObjectReference" type="Folder">group-v3</val>', wire.Ref("Folder", "group-v3")),
        (f'<val {XSI} xsi:type="ArrayOfString"><string>a</string><string/></val>', ["a", ""]),
        (
            f'<val {XSI} xsi:type="ArrayOfManagedObjectReference"><ManagedObjectReference type="Datastore">datastore-1</ManagedObjectReference></val>',
            [wire.Ref("Datastore", "datastore-1")],
        ),
    ],
)
def test_what_says_its_type_is_read(xml: str, expected: Any) -> None:
    found = value(xml)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    "xml",
    [
        f'<val {XSI} xsi:type="GuestInfo"><toolsStatus>toolsOk</toolsStatus></val>',
        f'<val {XSI} xsi:type="GuestInfo"/>',
        f'<val {XSI} xsi:type="ArrayOfGuestNicInfo"><GuestNicInfo/></val>',
        f'<val {XSI} xsi:type="ArrayOfAnyType"/>',
        "<val>no type at all</val>",
    ],
)
def test_what_the_schema_alone_knows_is_left_to_pyvmomi(xml: str) -> None:
    with pytest.raises(wire.NeedsTypes):
        value(xml)


def test_names_are_escaped_in_a_request() -> None:
    spec = wire.filter_spec({"VirtualMachine": ["a<b"]}, wire.Ref("ContainerView", 'v&"1'))
    assert "<pathSet>a&lt;b</pathSet>" in spec
    assert ">v&amp;&quot;1</obj>" in spec
    ElementTree.fromstring(f"<x {XSI}>{spec}</x>")


ROWS = {
    vim.VirtualMachine("vm-1"): {
        "name": "web & 在庫",
        "config.template": False,
        "config.hardware.memoryMB": 512,
        "parent": vim.Folder("group-v4"),
        "runtime.powerState": vim.VirtualMachine.PowerState.poweredOff,
        "datastore": vim.Datastore.Array([vim.Datastore("datastore-1")]),
    },
    vim.Folder("group-v4"): {"name": "vm"},
    vim.Datastore("datastore-1"): {"name": "ds1", "summary.capacity": 1 << 40, "summary.accessible": True},
}


def read_view(where: client.Endpoint, paths: Mapping[str, Sequence[str]]) -> list[properties.Row]:
    """Log in, read all objects of a view, log out."""
    with wire.Wire(where) as session:
        return session.of_view(paths)


def both(params: dict[str, Any]) -> tuple[list[properties.Row], list[properties.Row]]:
    """The same view read here and through pyVmomi."""
    paths = {"VirtualMachine": ("name",), "Datastore": ("name",), "Folder": ("name",)}
    with client.connect(params) as session:
        by_pyvmomi = properties.of_view(session, paths)
    return read_view(client.endpoint(params), paths), by_pyvmomi


def test_it_reads_what_pyvmomi_reads(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    items = list(ROWS.items())
    vcenter.handlers["RetrievePropertiesEx"] = lambda body: result(dict(items[:1]), "more")
    vcenter.handlers["ContinueRetrievePropertiesEx"] = lambda body: result(dict(items[1:]))
    here, there = both(params)
    assert [(r.kind, r.moref) for r in here] == [(r.kind, r.moref) for r in there]
    plain = [[{k: listing.plain_value(v) for k, v in r.props.items()} for r in rows] for rows in (here, there)]
    assert plain[0] == plain[1]
    assert plain[0][0]["name"] == "web & 在庫"
    assert vcenter.calls[-6:] == [
        "RetrieveServiceContent",
        "Login",
        "CreateContainerView",
        "RetrievePropertiesEx",
        "ContinueRetrievePropertiesEx",
        "Logout",
    ]


def test_an_empty_inventory(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    vcenter.handlers["RetrievePropertiesEx"] = lambda body: None
    assert both(params) == ([], [])


def test_a_data_object_is_read_through_pyvmomi(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    nics = vim.vm.GuestInfo.NicInfo.Array([vim.vm.GuestInfo.NicInfo(deviceConfigId=4000, connected=True)])
    vcenter.handlers["RetrievePropertiesEx"] = lambda body: result({vim.VirtualMachine("vm-1"): {"name": "a", "guest.net": nics}})
    found = listing.read(params, properties=["guest.net"])
    assert found[0]["props"] == {"guest": {"net": [{"connected": True, "deviceConfigId": 4000, "ipAddress": []}]}}
    assert vcenter.logins == 2


def test_errors_are_those_of_the_session(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    where = client.endpoint(params)
    with pytest.raises(ServerError) as e:
        read_view(client.endpoint({**params, "password": "wrong & <one>"}), {"VirtualMachine": ("name",)})
    assert e.value.code == "login"
    assert "wrong" not in str(e.value) + repr(e.value.as_dict())
    with pytest.raises(ServerError) as e:
        read_view(client.endpoint({**params, "ca_path": None}), {"VirtualMachine": ("name",)})
    assert e.value.code == "untrusted_certificate"

    def nonsense(body: str) -> Any:
        raise Fault("InvalidProperty", "<name>config.nonsense</name>")

    vcenter.handlers["RetrievePropertiesEx"] = nonsense
    with pytest.raises(BadInput, match=r"config\.nonsense"):
        read_view(where, {"VirtualMachine": ("config.nonsense",)})

    def forbidden(body: str) -> Any:
        raise Fault("NoPermission")

    vcenter.handlers["RetrievePropertiesEx"] = forbidden
    with pytest.raises(ServerError) as e:
        read_view(where, {"VirtualMachine": ("name",)})
    assert (e.value.code, e.value.details["fault"]) == ("fault", "NoPermission")
    vcenter.versions = b"<html/>"
    with pytest.raises(ServerError) as e:
        read_view(where, {"VirtualMachine": ("name",)})
    assert e.value.code == "not_vsphere"
    assert PASSWORD not in repr(where)


def test_a_hostile_answer_is_refused(vcenter: FakeVcenter, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    where = client.endpoint(params)
    good = vcenter.soap
    answers = {
        "<!DOCTYPE x [<!ENTITY a 'b'>]><soapenv/>": "HTTP 200",
        "<html><body></body></html>": "no SOAP",
        "not xml": "no SOAP",
        "": "no SOAP",
    }
    for text, said in answers.items():
        vcenter.soap = lambda body, cookie, text=text: (200, text, None)  # type: ignore[method-assign,misc]  # the wire is what is faked
        with pytest.raises(ServerError, match=said):
            read_view(where, {"VirtualMachine": ("name",)})
    vcenter.soap = good  # type: ignore[method-assign]  # the wire is what is faked
    monkeypatch.setattr(wire, "MAX_ANSWER", 100)
    with pytest.raises(ServerError, match="more than 100 bytes"):
        read_view(where, {"VirtualMachine": ("name",)})
