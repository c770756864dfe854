#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_failover
short_description: Start the VMs of a dead ESXi host elsewhere
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Fails all VMs of an ESXi host over that is dead, each to a healthy host that has its datastores. What M(ferry.vmware.vm_move) does with
    O(ferry.vmware.vm_move#module:method=failover) for one VM, this does for all of them side by side, planned together.
  - For each VM in this order. Everything that vCenter alone knows of it is kept in a file (custom attributes, tags, permissions, folder,
    resource pool, rules and groups of the cluster); it is unregistered; registered on its new host; everything is put back; booted if it ran.
  - It is refused where anything speaks for the life of the host, and where vSphere HA protects its cluster. What vCenter sees of a host that
    is cut off from the network is the same as of a dead one, so have it fenced between O(phase=keep) and O(phase=run).
  - A VM that cannot be started because of a lock on its files runs elsewhere. It is left registered and powered off, and the task fails.
  - A run that was killed is continued by the next from its files.
options:
  host:
    description:
      - The dead host, by name, C(cluster/name), inventory path or MoRef.
    type: str
    required: true
  phase:
    description:
      - V(plan) proves and plans only. V(keep) writes the files as well. V(run) does it all.
    type: str
    choices: [plan, keep, run]
    default: run
  fenced:
    description:
      - What came out of cutting the dead host off from power (fencing, by Redfish or IPMI).
      - V(false) refuses the failover. Without this option nothing is known of it, and the locks on the VMs' files are the last guard.
    type: bool
  cluster:
    description:
      - The cluster, by name or MoRef, whose hosts are to take the VMs. By default all hosts of the datacenter, those of the VM's cluster first.
    type: str
  network_map:
    description:
      - Networks on the target by those that the VMs are in now, both by name.
    type: dict
    default: {}
  constraints:
    description:
      - Which VMs belong together, apart, or on which hosts, as M(ferry.vmware.vm_placement) has them. The rules of the clusters count as well.
    type: list
    elements: dict
    default: []
  at_once:
    description: VMs at a time.
    type: int
    default: 8
  state_dir:
    description:
      - The folder on this machine in which everything that vCenter alone knows of a VM is kept until it is put back. It must outlive the
        run. By default C(~/.local/state/ferry/failover).
    type: path
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
seealso:
  - module: ferry.vmware.vm_move
"""

EXAMPLES = r"""
- name: Show where everything would go
  ferry.vmware.host_failover:
    hostname: vcenter.example.com
    username: administrator@vsphere.local
    password: "{{ vcenter_password }}"
    host: esx1.example.com
    phase: plan

- name: It was powered off by Redfish, so start its VMs elsewhere
  ferry.vmware.host_failover:
    host: esx1.example.com
    fenced: true
"""

RETURN = r"""
host:
  description: The dead host.
  type: str
  returned: always
phase:
  description: What was asked for.
  type: str
  returned: always
checks:
  description: What speaks for and against the death of the host, with C(id), C(passed) and C(detail).
  type: list
  elements: dict
  returned: always
vms:
  description: Every VM of the host.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: Its name.
      type: str
    moref:
      description: Its MoRef, the new one after the failover.
      type: str
    from:
      description: The dead host.
      type: str
    to:
      description: The host that it goes to, null where none fits.
      type: str
    power:
      description: What it was when its host died.
      type: str
    state:
      description:
        - V(planned), V(kept) (the file is written), V(done), V(failed), V(refused) (no host fits) or V(skipped) (a template).
      type: str
    reasons:
      description: Why, in words.
      type: list
      elements: str
    record:
      description: The file in which everything that vCenter alone knew is kept.
      type: str
    put_back:
      description: What was put back.
      type: list
      elements: str
    failure:
      description: What went wrong with it, as data.
      type: dict
failure:
  description: What went wrong, as data.
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import (
    argspec,
    client,
    failover,
    failover_host,
    move,
    move_plan,
    move_rules,
    steady,
)


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    wish = move_plan.Wish(
        method="failover", cluster=p["cluster"], network_map={str(k): str(v) for k, v in (p["network_map"] or {}).items()}
    )
    options = failover.Options(state_dir=p["state_dir"], fenced=p["fenced"])
    with steady.ending_tidily(), client.connect(p) as session:
        move.need_vcenter(session)
        result = failover_host.fail_over(
            session,
            p["host"],
            wish,
            options,
            phase=p["phase"],
            at_once=p["at_once"],
            check=call.check,
            forbids=move_rules.forbids_of(p["constraints"]),
            told=call.warn,
        )
    if call.diff:
        rows = result["vms"]
        result["diff"] = {
            "before": {r["name"]: r["from"] for r in rows},
            "after": {r["name"]: r["to"] if r["state"] in ("planned", "kept", "done") else r["from"] for r in rows},
        }
    return result


def main() -> None:
    edge.run(
        argspec.connection_spec(
            env_fallback,
            host={"type": "str", "required": True},
            phase={"type": "str", "choices": list(failover_host.PHASES), "default": "run"},
            fenced={"type": "bool"},
            cluster={"type": "str"},
            network_map={"type": "dict", "default": {}},
            constraints={"type": "list", "elements": "dict", "default": []},
            at_once={"type": "int", "default": 8},
            state_dir={"type": "path"},
        ),
        work,
    )


if __name__ == "__main__":
    main()
