# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from typing import Any

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client, properties

from .conftest import FakeVcenter, Fault, result

PATHS = {"VirtualMachine": ("name",)}


def vm(number: int) -> Any:
    return vim.VirtualMachine(f"vm-{number}")


def names(rows: list[properties.Row]) -> list[str]:
    return [row.props["name"] for row in rows]


def test_pages_are_followed_and_the_view_is_destroyed(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    pages = {"2": result({vm(2): {"name": "b"}}, "3"), "3": result({vm(3): {}})}
    vcenter.handlers["RetrievePropertiesEx"] = lambda body: result({vm(1): {"name": "a"}}, "2")
    vcenter.handlers["ContinueRetrievePropertiesEx"] = lambda body: pages[re.findall("<token[^>]*>(.)<", body)[0]]
    with client.connect(params) as session:
        rows = properties.of_view(session, PATHS, page=1)
    assert rows == [
        properties.Row("VirtualMachine", "vm-1", {"name": "a"}),
        properties.Row("VirtualMachine", "vm-2", {"name": "b"}),
        properties.Row("VirtualMachine", "vm-3", {}),
    ]
    assert vcenter.calls[2:-1] == ["CreateContainerView", "RetrievePropertiesEx", *["ContinueRetrievePropertiesEx"] * 2, "DestroyView"]
    assert re.search("<maxObjects[^>]*>1<", vcenter.bodies[3])


def test_nothing_found_is_an_empty_answer(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    vcenter.handlers["RetrievePropertiesEx"] = lambda body: None
    with client.connect(params) as session:
        assert properties.of_view(session, PATHS) == []
        assert properties.of_objects(session, [], PATHS) == []


def test_a_session_that_ends_between_two_pages_starts_over(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    def next_page(body: str) -> Any:
        if vcenter.logins == 1:
            vcenter.sessions.clear()
            raise Fault("NotAuthenticated")
        if "first" in body:
            raise Fault("InvalidArgument", "<invalidProperty>token</invalidProperty>")
        return result({vm(2): {"name": "b"}})

    vcenter.handlers["RetrievePropertiesEx"] = lambda body: result({vm(1): {"name": "a"}}, "first" if vcenter.logins == 1 else "second")
    vcenter.handlers["ContinueRetrievePropertiesEx"] = next_page
    with client.connect(params) as session:
        assert names(properties.of_objects(session, [vm(1), vm(2)], PATHS)) == ["a", "b"]
        assert names(properties.of_view(session, PATHS)) == ["a", "b"]


def test_a_view_that_ended_with_its_session_is_made_again(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    def retrieve(body: str) -> Any:
        if vcenter.calls.count("CreateContainerView") == 1:
            raise Fault(
                "NotAuthenticated" if vcenter.logins == 1 else "ManagedObjectNotFound",
                "" if vcenter.logins == 1 else '<obj type="View">view-1</obj>',
            )
        return result({vm(1): {"name": "a"}})

    vcenter.handlers["RetrievePropertiesEx"] = retrieve
    with client.connect(params) as session:
        assert names(properties.of_view(session, PATHS)) == ["a"]


def test_an_object_that_is_gone_is_left_out(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    def retrieve(body: str) -> Any:
        if ">vm-2<" in body:
            raise Fault("ManagedObjectNotFound", '<obj type="VirtualMachine">vm-2</obj>')
        return result({vm(1): {"name": "a"}, vm(3): {"name": "c"}})

    vcenter.handlers["RetrievePropertiesEx"] = retrieve
    with client.connect(params) as session:
        assert names(properties.of_objects(session, [vm(1), vm(2), vm(3)], PATHS)) == ["a", "c"]
        assert properties.of_objects(session, [vm(2)], PATHS) == []


def test_an_unknown_property_is_the_users_mistake(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    def retrieve(body: str) -> Any:
        raise Fault("InvalidProperty", "<name>config.nonsense</name>")

    vcenter.handlers["RetrievePropertiesEx"] = retrieve
    with client.connect(params) as session, pytest.raises(BadInput, match=r"config\.nonsense"):
        properties.of_view(session, PATHS)


def test_another_fault_is_the_servers(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    def retrieve(body: str) -> Any:
        raise Fault("NoPermission", '<object type="Folder">group-d1</object><privilegeId>System.View</privilegeId>')

    vcenter.handlers["RetrievePropertiesEx"] = retrieve
    with client.connect(params) as session, pytest.raises(ServerError) as e:
        properties.of_view(session, PATHS)
    assert e.value.details["fault"] == "NoPermission"
