#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_cbt
short_description: Switch changed block tracking of a VM's disks on or off, so that it takes effect
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Switches changed block tracking (CBT) for all disks of a VM or for some of them, in the VM's configuration
    (C(changeTrackingEnabled)) and per disk (C(scsi0:0.ctkEnabled)).
  - On a running VM that alone changes nothing until the VM is powered off and on or stunned. So a snapshot without memory is
    taken and removed again, and the consolidation of the disks is waited for. A VM that is powered off needs none.
  - The snapshot is tagged. It is removed also when something fails, and one that a killed run has left is removed by the next. Disks
    that wait for consolidation are consolidated.
  - Refuses what vSphere cannot track, naming each disk and its reason, that is independent disks, raw device mappings in physical
    compatibility mode, and disks that are shared with other VMs; virtual hardware below version 7; and a VM that has snapshots, since
    tracking would not know what they hold.
options:
  vm:
    description:
      - The VM, given by name, inventory path (V(/DC0/vm/folder/name), or only its end), instance UUID, BIOS UUID or MoRef.
    type: str
    required: true
  state:
    description:
      - V(enabled) tracks the disks, and V(disabled) ends that.
      - What was tracked until then is lost when it is disabled, so the next incremental copy compares whole disks.
    type: str
    choices: [enabled, disabled]
    default: enabled
  disks:
    description:
      - The disks, each by label (C(Hard disk 1)), key (V(2000)), UUID or place (C(scsi0:0)).
      - Without this option all disks of the VM. Disks that are not named stay as they are; when the VM was not tracked at all
        before, they stay untracked.
    type: list
    elements: str
  timeout:
    description:
      - Seconds for the removal of the snapshot and the consolidation of the disks.
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
  - Needs the privileges C(VirtualMachine.Config.ChangeTracking), C(VirtualMachine.Config.AdvancedConfig),
    C(VirtualMachine.State.CreateSnapshot) and C(VirtualMachine.State.RemoveSnapshot).
  - The stun stops the guest for about a second, longer on slow storage.
seealso:
  - module: ferry.vmware.vm_cbt_changed_areas
  - module: ferry.vmware.vm_disk_copy
"""

EXAMPLES = r"""
- name: Track the changes of all disks
  ferry.vmware.vm_cbt:
    hostname: vcenter.example.com
    username: administrator@vsphere.local
    password: "{{ vcenter_password }}"
    vm: db01

- name: Only the system disk
  ferry.vmware.vm_cbt:
    vm: /DC0/vm/production/databases/db01
    disks: [Hard disk 1]

- name: End it after the migration
  ferry.vmware.vm_cbt:
    vm: db01
    state: disabled
"""

RETURN = r"""
disks:
  description: The disks that were asked for, as they are now, or in check mode would be.
  type: list
  elements: dict
  returned: success
  contains:
    key:
      description: Key of the disk.
      type: int
      sample: 2000
    label:
      description: Its label.
      type: str
      sample: Hard disk 1
    address:
      description: Its place.
      type: str
      sample: scsi0:0
    enabled:
      description: Whether its changes are tracked.
      type: bool
    change_id:
      description:
        - The changeId of its present state. Null where it is not tracked, and for a VM that has not been powered on since it is.
        - For a copy, take the one of a snapshot (see M(ferry.vmware.vm_cbt_changed_areas)), not this one.
      type: str
      sample: 52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81
stunned:
  description: Whether a snapshot was (or in check mode would be) taken and removed for it to take effect.
  type: bool
  returned: success
removed_snapshots:
  description: Names of snapshots that a killed run had left, and that were (or in check mode would be) removed.
  type: list
  elements: str
  returned: success
vm:
  description: The VM.
  returned: success
  type: dict
  contains:
    name:
      description: Its name.
      type: str
    moref:
      description: Its MoRef.
      type: str
    instance_uuid:
      description: vCenter's UUID of it.
      type: str
    path:
      description: Its inventory path.
      type: str
failure:
  description: What went wrong, as data. Its C(details) list the disks that cannot be tracked, with the reason for each.
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec, cbt, client, find, steady


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    with steady.ending_tidily(), client.connect(p) as session:
        vm = find.find_vm(session, p["vm"])
        result = cbt.apply(session, vm, enable=p["state"] == "enabled", disks=p["disks"], check=call.check, timeout=float(p["timeout"]))
    before, after = result.pop("before"), result.pop("after")
    result["vm"] = {"name": vm.name, "moref": vm.moref, "instance_uuid": vm.instance_uuid, "path": vm.path}
    if call.diff:
        result["diff"] = {"before": {"tracked": before}, "after": {"tracked": after}}
    return result


def main() -> None:
    edge.run(
        argspec.connection_spec(
            env_fallback,
            vm={"type": "str", "required": True},
            state={"type": "str", "choices": ["enabled", "disabled"], "default": "enabled"},
            disks={"type": "list", "elements": "str"},
            timeout={"type": "int", "default": 3600},
        ),
        work,
    )


if __name__ == "__main__":
    main()
