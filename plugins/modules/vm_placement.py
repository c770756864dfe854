#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_placement
short_description: Save who runs where under a name, and bring it back
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - A placement says for every VM on which host it is. It is saved under a name; later the VMs are brought back with the fewest moves,
    in an order in which each fits at its moment.
  - In check mode O(state=restored) shows the difference and the moves.
  - A placement is kept in vCenter, as a custom attribute C(ferry.placement.NAME) whose value on each VM is its host. So any control node
    can restore it; VMs that are gone do not matter, and those that were made since have no part in it. It is replaced as a whole, so a
    run that is killed leaves the old one or the new one. At most 20 of them are kept.
  - VMs are moved running where they run, and powered off where they are off. A VM that cannot be moved stays, and the result says why.
options:
  name:
    description: The placement's name, 1 to 40 letters, digits, spaces or V(.:-_).
    type: str
    required: true
  state:
    description:
      - V(saved) saves who runs where now, in the place of what was saved under that name.
      - V(restored) moves the VMs back.
      - V(absent) forgets the placement.
    type: str
    choices: [saved, restored, absent]
    default: saved
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.placing
  - ferry.vmware.vsphere
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotency:
    support: full
notes:
  - Saving needs the privileges C(Global.ManageCustomFields) and C(Global.SetCustomField), restoring C(Resource.HotMigrate) and
    C(Resource.ColdMigrate).
seealso:
  - module: ferry.vmware.vm_move
"""

EXAMPLES = r"""
- name: Before the maintenance
  ferry.vmware.vm_placement:
    hostname: vcenter.example.com
    username: administrator@vsphere.local
    password: "{{ vcenter_password }}"
    name: weekdays
    state: saved

- name: Afterwards
  ferry.vmware.vm_placement:
    name: weekdays
    state: restored
    constraints:
      - {kind: apart, vms: [web01, web02, web03]}
"""

RETURN = r"""
moves:
  description: The moves in their order. Those of one wave are under way at the same time.
  type: list
  elements: dict
  returned: success, and when a move failed
  contains:
    vm:
      description: The VM.
      type: str
    moref:
      description: Its MoRef.
      type: str
    from:
      description: The host that it was on.
      type: str
    to:
      description: The host that it goes to.
      type: str
    method:
      description: V(hot) or V(cold).
      type: str
    datastore:
      description: Where files are copied to, null where they stay.
      type: str
    why:
      description: Why it is moved.
      type: str
    mb:
      description: MiB that travel, the memory of a running VM and the files that are copied.
      type: int
    wave:
      description: Number of the wave.
      type: int
    state:
      description: V(planned), V(moved), V(was there), V(gone) (somebody has removed the VM meanwhile), V(failed) or V(not begun).
      type: str
    said:
      description: Of a failed one, what went wrong.
      type: str
stuck:
  description: VMs that stay, each with C(vm), C(moref), C(host) and C(reasons), one for each host.
  type: list
  elements: dict
  returned: success
least:
  description: Whether it is proved that no plan has fewer moves.
  type: bool
  returned: success
table:
  description: The plan for people, as lines.
  type: list
  elements: str
  returned: success
broken_before:
  description: Constraints that were broken before.
  type: list
  elements: str
  returned: success
broken_after:
  description: Those of them that still are.
  type: list
  elements: str
  returned: success
differences:
  description: Of O(state=restored), VMs that were not where the placement has them, each with C(vm), C(moref), C(from) and C(to).
  type: list
  elements: dict
  returned: success
saved:
  description: The placement, name of the host by name of the VM. Null when there is none.
  type: dict
  returned: success
failure:
  description: What went wrong, as data.
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec, client, drain, placements, site, steady


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    name = placements.check_name(p["name"])
    result: dict[str, Any] = {
        "moves": [],
        "stuck": [],
        "least": True,
        "table": [],
        "broken_before": [],
        "broken_after": [],
        "differences": [],
    }
    diff: tuple[Any, Any]
    with steady.ending_tidily(), client.connect(p) as session:
        seen = site.read_site(session, devices=False)
        before = placements.load(session, name)
        if p["state"] == "restored":
            result.update(drain.restore(session, name, drain.settings_of(p), check=call.check))
            was = [f"{d['vm']}: {d['from']}" for d in result["differences"]]
            diff = (was, [f"{d['vm']}: {d['to']}" for d in result["differences"]])
            after = before
            for vm in result["stuck"]:
                call.warn(f"{vm['vm']} stays on {vm['host']}: {'; '.join(vm['reasons'][:3])}")
        elif p["state"] == "saved":
            result["changed"] = placements.save(session, seen, name, check=call.check)
            after = placements.wanted_now(seen)
            diff = (placements.shown(seen, before), placements.shown(seen, after))
        else:
            result["changed"] = placements.forget(session, name, check=call.check)
            after = None
            diff = (placements.shown(seen, before), None)
    result["saved"] = placements.shown(seen, after)
    if call.diff:
        result["diff"] = {"before": {name: diff[0]}, "after": {name: diff[1]}}
    return result


def main() -> None:
    edge.run(
        argspec.connection_spec(
            env_fallback,
            name={"type": "str", "required": True},
            state={"type": "str", "choices": ["saved", "restored", "absent"], "default": "saved"},
            **drain.SPEC,
        ),
        work,
    )


if __name__ == "__main__":
    main()
