#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_evacuate
short_description: Drain ESXi hosts for maintenance, and bring their VMs back
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Moves all VMs off one or several hosts and puts these into maintenance mode; takes them out again and brings the VMs back.
  - The plan has the fewest moves that there are, in an order in which constraints hold at every moment and each VM fits at its moment.
    VMs under way count on both sides. Where nothing fits as it is, other VMs make room.
  - Check mode gives the plan.
  - Where the VMs were is saved as a placement of the host, C(before) and its MoRef (see M(ferry.vmware.vm_placement)).
  - It is only ever planned from what is there now, so a run that was killed is gone on with by running it again.
options:
  hosts:
    description: The hosts, by name, C(cluster/name), inventory path or MoRef.
    type: list
    elements: str
    required: true
  state:
    description:
      - V(drained) moves the VMs off the hosts.
      - V(back) takes the hosts out of maintenance mode and brings the VMs back.
    type: str
    choices: [drained, back]
    default: drained
  maintenance:
    description: Whether drained hosts enter maintenance mode.
    type: bool
    default: true
  partial:
    description:
      - Whether what can move is moved where something cannot. Such a host does not enter maintenance mode.
      - Without it nothing is moved then.
    type: bool
    default: false
  powered_off:
    description: Whether VMs that are off or suspended are moved as well. Maintenance mode does not need that. Templates stay in any case.
    type: bool
    default: true
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
  - Needs the privileges C(Host.Config.Maintenance), C(Resource.HotMigrate), C(Resource.ColdMigrate), C(Global.ManageCustomFields) and
    C(Global.SetCustomField).
seealso:
  - module: ferry.vmware.vm_move
  - module: ferry.vmware.vm_placement
"""

EXAMPLES = r"""
- name: Drain a host
  ferry.vmware.host_evacuate:
    hostname: vcenter.example.com
    username: administrator@vsphere.local
    password: "{{ vcenter_password }}"
    hosts: [esx1]
    constraints:
      - {name: web tier, kind: apart, vms: [web01, web02, web03]}
      - {kind: hold, vms: [licences]}

- name: Bring it back
  ferry.vmware.host_evacuate:
    hosts: [esx1]
    state: back
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
maintenance:
  description: Names of the hosts that entered (or left) maintenance mode, or in check mode would.
  type: list
  elements: str
  returned: success
failure:
  description:
    - What went wrong, as data. Its C(code) is C(stuck) where VMs cannot leave, C(contradiction) where constraints cannot hold together,
      C(host_not_connected) or C(moves_failed), or that of any other failure.
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec, client, drain, steady


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    settings = drain.settings_of(p)
    with steady.ending_tidily(), client.connect(p) as session:
        if p["state"] == "drained":
            result = drain.drain(session, p["hosts"], settings, partial=p["partial"], enter=p["maintenance"], check=call.check)
        else:
            result = drain.come_back(session, p["hosts"], settings, check=call.check)
    if call.diff:
        result["diff"] = {
            "before": {m["vm"]: m["from"] for m in result["moves"]},
            "after": {m["vm"]: m["to"] for m in result["moves"]},
        }
    return result


def main() -> None:
    edge.run(
        argspec.connection_spec(
            env_fallback,
            hosts={"type": "list", "elements": "str", "required": True},
            state={"type": "str", "choices": ["drained", "back"], "default": "drained"},
            maintenance={"type": "bool", "default": True},
            partial={"type": "bool", "default": False},
            powered_off={"type": "bool", "default": True},
            **drain.SPEC,
        ),
        work,
    )


if __name__ == "__main__":
    main()
