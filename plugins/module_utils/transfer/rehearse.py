# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rehearsal beside a migration: what an earlier one left goes first, and no copy of this machine writes while the volumes are copied.

Between the module that makes a rehearsal and the one that removes it the user's tasks run, and no process of ours. So all of it says
whose it is: C(owner) is the process of the playbook on its controller, and the inventory's name of the host. As long as that process
runs, or cannot be asked after because it is another machine's, nobody else removes the rehearsal.
"""

from __future__ import annotations

import contextlib
from typing import Any, Mapping

from ..errors import BadInput, Busy, FerryError, bounded
from ..openstack_cloud import client as openstack_client
from ..openstack_cloud import rehearsal
from ..vsphere import snapshot_tag
from . import holders
from .moment import vm_lock
from .targets import state_dir


def run(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Make or remove the rehearsal that C(params) (the options of the module rehearsal) name. See the module for options and results."""
    conn = openstack_client.connect(params)
    with contextlib.ExitStack() as stack:
        stack.callback(conn.close)
        if params["state"] == "absent":
            return _absent(conn, str(params["source"]), params, check)
        entry = params["entry"]
        source = str(entry["source"])
        work = rehearsal.Rehearsal(conn, entry, params)
        if check:
            old = _left_over(conn, source, params)
            steps = [f"{row.get('name') or row['id']} of an earlier rehearsal removed" for rows in old.values() for row in rows]
            rehearsal.check_ready(conn, entry, params["copy"])
            return {"changed": True, "steps": steps + work.plan(), "server": None}
        folder = state_dir(params.get("ledger"))
        # Before anything is removed: who holds it may be making a rehearsal of this VM.
        stack.enter_context(vm_lock(folder, {"instance_uuid": source, "moref": entry.get("moref")}))
        steps = rehearsal.remove(conn, _left_over(conn, source, params), timeout=params["timeout"])
        try:
            if holders.holders(folder, source):
                raise BadInput(
                    "Its disks are being copied at this moment.",
                    code="not_ready",
                    vm=entry.get("name"),
                    next_command="rehearse after the copy",
                )
            server = work.build()
        except BaseException as e:
            with contextlib.suppress(FerryError):
                rehearsal.remove(conn, rehearsal.left_over(conn, source), timeout=params["timeout"])
            if isinstance(e, FerryError):
                e.add(vm=entry.get("name"))
            raise
    return {"changed": True, "steps": steps + [f"{made} made" for made in work.made], "server": server}


def busy_with(found: Mapping[str, Any], params: Mapping[str, Any]) -> str | None:
    """The owner of what was found, where that is somebody else who may still be rehearsing."""
    if params.get("again"):
        return None
    own = str(params.get("owner") or "")
    return next((o for o in sorted(rehearsal.owners(found)) if o != own and snapshot_tag.runs(o.partition(" ")[0]) is not False), None)


def _left_over(conn: Any, source: str, params: Mapping[str, Any]) -> dict[str, list[rehearsal.Row]]:
    """What an earlier rehearsal has left.

    :raises Busy: code rehearsing, with C(owner), where it may be going on.
    """
    found = rehearsal.left_over(conn, source)
    owner = busy_with(found, params)
    if owner is None:
        return found
    here = snapshot_tag.runs(owner.partition(" ")[0])
    raise Busy(
        "It is being rehearsed "
        + ("by another playbook of this machine." if here else f"by {bounded(owner.partition(':')[0], 80)}, it seems."),
        code="rehearsing",
        step="look for rehearsals",
        owner=owner,
        next_command="let that rehearsal end"
        + ("" if here else "; where it was killed, run this with rehearse_again: true, or ferry.vmware.cleanup an hour later"),
    )


def _absent(conn: Any, source: str, params: Mapping[str, Any], check: bool) -> dict[str, Any]:
    found = rehearsal.left_over(conn, source)
    if busy_with(found, params) is not None:
        return {"changed": False, "steps": [], "server": None}
    rows = [row for kind in found.values() for row in kind]
    if check:
        return {"changed": bool(rows), "steps": [f"{row.get('name') or row['id']} removed" for row in rows], "server": None}
    steps = rehearsal.remove(conn, found, timeout=params["timeout"])
    return {"changed": bool(steps), "steps": steps, "server": None}
