# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One server group of a name, although Nova takes a name as often as it is given: the work of server_group.

Two playbooks at once may both find none and both make one. Whoever looks afterwards chooses by the same rule: the one with the most
members, else the one with the first id. So it is asked once more right before a server is made, and they meet in one.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

from ..errors import BadInput, bounded
from .client import call, connect
from .groups import policy_of
from .target import GROUPS, Row, server_groups


def chosen(rows: Iterable[Row], name: str, policy: str) -> Row | None:
    """The group that all take. Pure.

    :raises BadInput: there is only one of another policy.
    """
    named = [r for r in rows if r.get("name") == name]
    found = sorted((r for r in named if policy_of(r) == policy), key=lambda r: (-len(r.get("members") or ()), str(r.get("id"))))
    if named and not found:
        raise BadInput(
            f"The server group {bounded(name, 100)} has the policy {bounded(policy_of(named[0]), 40)}, wanted is {bounded(policy, 40)}.",
            code="other_policy",
            step="look at the server groups",
            next_command="name the constraint otherwise, or delete the group",
        )
    return found[0] if found else None


def run(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """See the module for parameters and results."""
    name, policy = str(params["name"]), str(params["policy"])
    conn = connect(params)
    try:
        found = chosen(server_groups(conn), name, policy)
        if found is not None or check:
            return {"changed": found is None, "group": _shown(found)}
        body = {"server_group": {"name": name, "policy": policy}}
        made = call(conn, "compute", "POST", "/os-server-groups", step="make the server group", body=body, microversion=GROUPS).json()
        own = made["server_group"]
        found = chosen(server_groups(conn), name, policy) or own
        if found["id"] != own["id"]:
            # Nobody who looks now takes it, and nobody can have put a server in it.
            call(conn, "compute", "DELETE", f"/os-server-groups/{own['id']}", step="remove the second server group", allow=(404,))
        return {"changed": found["id"] == own["id"], "group": _shown(found)}
    finally:
        conn.close()


def _shown(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {"id": row["id"], "name": row["name"], "policy": policy_of(row), "members": list(row.get("members") or ())}
