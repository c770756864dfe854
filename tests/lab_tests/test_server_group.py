# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One server group of a name on the lab's Nova, which would take the name as often as it is given."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, server_group
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.target import GROUPS, server_groups


@pytest.fixture
def conn() -> Iterator[Any]:
    connection = client.connect({"cloud": "lab"})
    yield connection
    connection.close()


@pytest.fixture
def name(conn: Any) -> Iterator[str]:
    chosen = f"ferry:test-{uuid.uuid4().hex[:8]}"
    yield chosen
    for row in named(conn, chosen):
        client.call(conn, "compute", "DELETE", f"/os-server-groups/{row['id']}", step="clean up", allow=(404,))


def named(conn: Any, name: str) -> list[Any]:
    return [r for r in server_groups(conn) if r["name"] == name]


def ask(name: str, policy: str = "anti-affinity", *, check: bool = False) -> dict[str, Any]:
    return server_group.run({"cloud": "lab", "name": name, "policy": policy}, check=check)


def test_made_once(conn: Any, name: str) -> None:
    assert ask(name, check=True) == {"changed": True, "group": None} and named(conn, name) == []
    first = ask(name)
    assert (first["changed"], first["group"]["policy"], first["group"]["members"]) == (True, "anti-affinity", [])
    assert ask(name) == {**first, "changed": False} == ask(name, check=True)
    with pytest.raises(BadInput, match="has the policy anti-affinity, wanted is affinity") as e:
        ask(name, "affinity")
    assert e.value.code == "other_policy"


@pytest.mark.fault("two playbooks make a server group of one name at once", where="OpenStack", ends="their servers are in one group")
def test_at_once(conn: Any, name: str) -> None:
    """Nova has them all; who asks before it makes a server gets the same one."""
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _n: ask(name), range(3)))
        later = {found["group"]["id"] for found in pool.map(lambda _n: ask(name), range(3))}
    assert len(later) == 1 and later <= {row["id"] for row in named(conn, name)}
    body = {"server_group": {"name": name, "policy": "anti-affinity"}}
    client.call(conn, "compute", "POST", "/os-server-groups", step="one more", body=body, microversion=GROUPS)
    assert len(named(conn, name)) >= 2
    assert ask(name)["group"]["id"] == min(row["id"] for row in named(conn, name)) == ask(name)["group"]["id"]


def test_the_one_with_members_first() -> None:
    rows: list[Any] = [
        {"id": "a", "name": "g", "policies": ["affinity"], "members": []},
        {"id": "c", "name": "g", "policy": "affinity", "members": ["s1"]},
        {"id": "b", "name": "g", "policy": "affinity", "members": ["s2"]},
        {"id": "0", "name": "g", "policy": "anti-affinity", "members": ["s3", "s4"]},
        {"id": "1", "name": "h", "policy": "affinity", "members": ["s5", "s6"]},
    ]
    found = server_group.chosen(rows, "g", "affinity")
    assert found is not None and found["id"] == "b"
    assert server_group.chosen(rows, "x", "affinity") is None
