#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_source_restore
short_description: Bring the source of a migration back to what it was
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Undoes what a migration has changed of its source, by what M(ferry.vmware.vm_source_state) wrote down in the custom attribute
    C(ferry.before) of the VM. It can be run at any time, also after a run that was killed in the middle of a cutover.
  - In this order - snapshots of ours are removed, changed block tracking, network cards and power are what they were, the note is removed,
    C(ferry.state) becomes V(rolled_back). A snapshot that cannot be removed does not keep the VM off, the module fails at the end.
  - It does nothing at the target. Stop the server there first, else both answer to the same addresses; the role
    P(ferry.vmware.rollback#role) does it in this order.
  - To be run on the machine that copies the VM's disks, where it ends copies that are still running.
options:
  vm:
    description:
      - The VM, given by name, inventory path (V(/DC0/vm/folder/name), or only its end), instance UUID, BIOS UUID or MoRef.
    type: str
    required: true
  power:
    description:
      - V(recorded) powers it on where it was on, V(on) in any case, V(unchanged) never.
    type: str
    choices: [recorded, "on", unchanged]
    default: recorded
  stop_copies:
    description:
      - Whether copies of the VM's disks that run on this machine are ended. They write their ledger and remove their snapshot.
      - With V(false) the module fails where there are any.
    type: bool
    default: true
  timeout:
    description:
      - Seconds that these copies have to end.
    type: float
    default: 120
  take_over:
    description:
      - Remove snapshots of ours that a run on another machine took less than an hour ago. Only for when that run is known to be over.
    type: bool
    default: false
  committed:
    description:
      - Bring a VM back although its migration was committed.
    type: bool
    default: false
  ledger:
    description:
      - The folder of the ledgers, as in M(ferry.vmware.vm_disk_copy). By default C(~/.local/state/ferry).
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
  - module: ferry.vmware.vm_source_state
  - module: ferry.vmware.landing_undo
"""

EXAMPLES = r"""
- name: Bring the source back
  ferry.vmware.vm_source_restore:
    hostname: vcenter.example.com
    username: administrator@vsphere.local
    password: "{{ vcenter_password }}"
    vm: web01
"""

RETURN = r"""
vm:
  description: The VM, with C(name), C(moref), C(instance_uuid) and C(path).
  returned: success
  type: dict
steps:
  description: What was done, or in check mode would be, in its order.
  returned: always
  type: list
  elements: str
  sample: ["Network adapter 1 connected", "powered on", "note removed", "state rolled_back"]
remarks:
  description: What could not be brought back, and what was left.
  returned: always
  type: list
  elements: str
  sample: []
before:
  description: What was found - C(power), C(annotation), C(nics), C(tracked), C(snapshots) (ours) and C(attributes) (ours).
  returned: success
  type: dict
after:
  description: What was reached. In check mode as RV(before).
  returned: success
  type: dict
failure:
  description: What went wrong, as data.
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import rollback
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec


def work(call: edge.Call) -> dict[str, Any]:
    result = rollback.run(call.params, check=call.check)
    for remark in result["remarks"]:
        call.warn(f"{result['vm']['name']}: {remark}")
    if call.diff:
        result["diff"] = {"before": result["before"], "after": result["after"]}
    return result


def main() -> None:
    edge.run(
        argspec.connection_spec(
            env_fallback,
            vm={"type": "str", "required": True},
            power={"type": "str", "choices": ["recorded", "on", "unchanged"], "default": "recorded"},
            stop_copies={"type": "bool", "default": True},
            timeout={"type": "float", "default": 120},
            take_over={"type": "bool", "default": False},
            committed={"type": "bool", "default": False},
            ledger={"type": "path"},
        ),
        work,
    )


if __name__ == "__main__":
    main()
