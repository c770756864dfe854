#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: datastore_relieve
short_description: Move VMs' files off a datastore that is filling
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Brings what is used of a datastore down to a percentage, with the fewest bytes moved that are enough.
  - Each VM stays on its host, running or not. Only what lies on the datastore is moved, single disks where others lie elsewhere.
  - Files go to the datastore with most room that the VM's host reaches. None that takes files is filled above the same percentage, and a
    local one takes none of a shared one.
  - Where what can move is not enough, nothing is moved, and the VMs that cannot are listed with the reasons.
  - Check mode gives the plan. Run again, it goes on from what is there then.
options:
  datastore:
    description: The datastore, by name or MoRef.
    type: str
    required: true
  target_percent:
    description: What may be used of it afterwards, percent of its capacity.
    type: float
    default: 75
  datastores:
    description: The datastores that may take files, by name or MoRef. By default all that a VM's host reaches.
    type: list
    elements: str
    default: []
  constraints:
    description: As in M(ferry.vmware.host_evacuate). A VM that is held stays.
    type: list
    elements: dict
    default: []
  at_once:
    description: VMs at a time.
    type: int
    default: 2
  timeout:
    description: Seconds for each move.
    type: int
    default: 3600
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotency:
    support: full
notes:
  - Needs the privileges C(Resource.HotMigrate), C(Resource.ColdMigrate) and C(Datastore.AllocateSpace).
seealso:
  - module: ferry.vmware.vm_move
  - module: ferry.vmware.policy_decide
"""

EXAMPLES = r"""
- name: Make room
  ferry.vmware.datastore_relieve:
    datastore: shared01
    target_percent: 70
"""

RETURN = r"""
datastore:
  description: Name of the datastore.
  type: str
  returned: success, and when a move failed
used_percent:
  description: What was used of it before.
  type: float
  returned: success, and when a move failed
need_mb:
  description: MiB that were to be freed.
  type: int
  returned: success, and when a move failed
moves:
  description:
    - The moves, each with C(vm), C(moref), C(from), C(to), C(method), C(mb), C(state) (V(planned), V(moved), V(was there) or V(failed)) and
      C(said).
  type: list
  elements: dict
  returned: success, and when a move failed
stuck:
  description: VMs that could not go, with C(reasons).
  type: list
  elements: dict
  returned: success, and when a move failed
enough:
  description: Whether the plan frees as much as is needed.
  type: bool
  returned: success, and when a move failed
table:
  description: The plan for people, as lines.
  type: list
  elements: str
  returned: success, and when a move failed
failure:
  description: What went wrong, as data. Its C(code) is C(stuck) where not enough can move, or C(moves_failed).
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec, client, relieve, steady


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    with steady.ending_tidily(), client.connect(p) as session:
        result = relieve.relieve(
            session,
            p["datastore"],
            p["target_percent"],
            allowed=p["datastores"],
            constraints=p["constraints"],
            at_once=p["at_once"],
            timeout=float(p["timeout"]),
            check=call.check,
        )
    if call.diff:
        moves = result["moves"]
        result["diff"] = {"before": {m["vm"]: m["from"] for m in moves}, "after": {m["vm"]: m["to"] for m in moves}}
    return result


def main() -> None:
    edge.run(
        argspec.connection_spec(
            env_fallback,
            datastore={"type": "str", "required": True},
            target_percent={"type": "float", "default": 75},
            datastores={"type": "list", "elements": "str", "default": []},
            constraints={"type": "list", "elements": "dict", "default": []},
            at_once={"type": "int", "default": 2},
            timeout={"type": "int", "default": 3600},
        ),
        work,
    )


if __name__ == "__main__":
    main()
