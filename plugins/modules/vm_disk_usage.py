#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_disk_usage
short_description: Tell how much the disks of virtual machines hold, and how much has changed
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Returns for each disk how many bytes its files take, and how many have changed since a changeId where vCenter tells that without a
    snapshot.
  - Takes no snapshot and changes nothing. What cannot be told that way is null, with the reason.
options:
  vms:
    description:
      - The VMs, each given by name, inventory path, instance UUID, BIOS UUID or MoRef.
      - Where all of them look like MoRefs (V(vm-42)) they are taken for such, which saves the search.
    type: list
    elements: str
    required: true
  change_ids:
    description:
      - MoRef of a VM to a dictionary of the keys of its disks and the changeIds of their last copies.
      - They are used for VMs that are off. Of one that runs only a snapshot would tell.
    type: dict
    default: {}
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
attributes:
  check_mode:
    support: full
    details:
      - Changes nothing at any time.
  diff_mode:
    support: N/A
    details:
      - Changes nothing at any time.
  idempotency:
    support: full
seealso:
  - module: ferry.vmware.vm_info
  - module: ferry.vmware.vm_cbt_changed_areas
"""

EXAMPLES = r"""
- name: What is to be copied
  ferry.vmware.vm_disk_usage:
    hostname: vcenter.example.com
    username: administrator@vsphere.local
    password: "{{ vcenter_password }}"
    vms:
      - db01
      - web01
  register: usage
"""

RETURN = r"""
vms:
  description: One entry per VM, in the order of O(vms).
  returned: success
  type: list
  elements: dict
  contains:
    moref:
      description: MoRef of the VM.
      type: str
      sample: vm-42
    disks:
      description: Its disks.
      type: list
      elements: dict
      contains:
        key:
          description: The device key.
          type: str
          sample: "2000"
        allocated:
          description: Bytes that its files take, those below snapshots included. Null where vCenter does not say.
          type: int
        changed:
          description: Bytes changed since the changeId. Null where that is not known.
          type: int
        why:
          description: Why it is not known.
          type: str
vcenter:
  description: The vCenter, with C(instance) (its instance UUID) and C(name) (product and version).
  returned: success
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec, client, usage


def work(call: edge.Call) -> dict[str, Any]:
    with client.connect(call.params) as session:
        return usage.read(session, call.params["vms"], call.params["change_ids"])


def main() -> None:
    edge.run(
        argspec.connection_spec(
            env_fallback, vms={"type": "list", "elements": "str", "required": True}, change_ids={"type": "dict", "default": {}}
        ),
        work,
    )


if __name__ == "__main__":
    main()
