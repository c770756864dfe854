#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rehearsal
short_description: Boot copies of a VM's volumes on networks that lead nowhere
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Copies the volumes that a precopy has filled, makes a network without a router in the place of each that the VM is to have, and boots a
    server from the copies there, with the VM's MAC addresses and, where they are known, its IP addresses.
  - The volumes themselves, their ledger and the source are not touched.
  - All that is made is marked, and O(state=absent) removes it. O(state=present) first removes what an earlier rehearsal of this VM left.
    One that may still be going on is left alone. Then O(state=present) fails, and O(state=absent) does nothing.
  - To be run on the machine that copies the VM's disks, where it keeps copies from beginning while the volumes are copied.
options:
  state:
    description:
      - V(present) makes a rehearsal, V(absent) removes it.
    type: str
    choices: [present, absent]
    default: present
  source:
    description: Instance UUID of the VM, for O(state=absent).
    type: str
  entry:
    description: The VM's entry of C(vms) that M(ferry.vmware.landing_plan) returns, for O(state=present).
    type: dict
  copy:
    description:
      - How volumes are copied. V(clone) asks Cinder for a clone, V(snapshot) for a snapshot and a volume of it.
      - V(snapshot) also works for volumes that a server has, where the back end can.
    type: str
    choices: [clone, snapshot]
    default: clone
  network_map:
    description:
      - Networks to use instead of new ones, by the name of the network that they stand for. They must have no router.
    type: dict
    default: {}
  again:
    description:
      - Remove a rehearsal of this VM that another playbook may be running, on another machine too. For one that was killed there.
    type: bool
    default: false
  owner:
    description: Who makes the rehearsal. The action plugin of this module says it, a play need not.
    type: str
  copy_timeout:
    description: Seconds for the copy of each volume.
    type: float
    default: 3600
  timeout:
    description: Seconds that the server has to become ACTIVE, and each thing to be removed.
    type: float
    default: 600
  ledger:
    description:
      - The folder of the ledgers, as in M(ferry.vmware.vm_disk_copy). By default C(~/.local/state/ferry).
    type: path
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.openstack
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotency:
    support: none
    details:
      - With O(state=present) a new rehearsal is made each time.
seealso:
  - module: ferry.vmware.landing_plan
"""

EXAMPLES = r"""
- name: Boot it where it meets nobody
  ferry.vmware.rehearsal:
    cloud: mycloud
    entry: "{{ migrate_entry }}"
  register: rehearsal

- name: Remove it again
  ferry.vmware.rehearsal:
    cloud: mycloud
    state: absent
    source: 50210a1b-1111-4c6e-9f01-7a1e5b1c0001
"""

RETURN = r"""
server:
  description: The server, null with O(state=absent) and in check mode.
  returned: success
  type: dict
  contains:
    id:
      description: Its ID.
      type: str
    name:
      description: Its name.
      type: str
    status:
      description: Its status.
      type: str
    volumes:
      description: IDs of the copies, the one that it boots from first.
      type: list
      elements: str
    ports:
      description: Its ports in their order, each with C(id), C(mac_address), C(network_id) and C(addresses).
      type: list
      elements: dict
steps:
  description: What was made or removed, or in check mode would be.
  returned: success
  type: list
  elements: str
failure:
  description: What went wrong, as data.
  type: dict
  returned: failure
"""

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.argspec import connection_spec
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import rehearse


def main() -> None:
    spec = {
        **connection_spec(),
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "source": {"type": "str"},
        "entry": {"type": "dict"},
        "copy": {"type": "str", "choices": ["clone", "snapshot"], "default": "clone"},
        "network_map": {"type": "dict", "default": {}},
        "again": {"type": "bool", "default": False},
        "owner": {"type": "str"},
        "copy_timeout": {"type": "float", "default": 3600},
        "timeout": {"type": "float", "default": 600},
        "ledger": {"type": "path"},
    }
    edge.run(
        spec,
        lambda call: rehearse.run(call.params, check=call.check),
        required_if=[("state", "present", ["entry"]), ("state", "absent", ["source"])],
    )


if __name__ == "__main__":
    main()
