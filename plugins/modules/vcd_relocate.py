#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vcd_relocate
short_description: Bring a virtual machine of vCloud Director to another datastore
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Relocates one virtual machine, of a vApp or of a vApp template, running or not, to the datastore O(datastore). Moving it in vSphere
    would leave vCloud Director's own records wrong.
  - A machine that is there with all its disks is left alone. This is told by vCenter and MoRef of the datastore, not by its name.
  - A relocation of the machine that is under way is joined. Where the answer to a request was lost, its task is looked for before
    the request is sent again, so nothing is moved twice.
  - Nothing is begun on a target that is disabled, deleted, of another vCenter or too full.
  - API 39.0 and later have no relocate. While the server still lists 38.1 or less, that one request is made at the highest of these.
    Otherwise the module fails, unless O(method) says which of the other ways is wanted.
options:
  vm:
    description:
      - The machine, by name, href or urn (V(urn:vcloud:vm:...)). More than one match is an error that lists them.
    type: str
    required: true
  vapp:
    description:
      - Name of its vApp or vApp template, where O(vm) is a name that repeats.
    type: str
  vdc:
    description:
      - Name of its vDC, where O(vm) is a name that repeats.
    type: str
  org:
    description:
      - Name of its organization, where O(vm) is a name that repeats.
    type: str
  datastore:
    description:
      - The target, by name, href, urn (V(urn:vcloud:datastore:...)) or MoRef (V(datastore-42)). Of several with one name that in
        the machine's vCenter is taken.
    type: str
    required: true
  method:
    description:
      - How it is done. All but V(relocate) move more than the one machine, or let the server choose the target; RV(affected) lists in check
        mode what they concern. None of them is taken unless it is named here.
      - V(relocate) moves the machine to the target.
      - V(profile) disables the machine's datastore, updates the machine with the storage profile that it has, so that the server picks
        another datastore of that profile, and enables the datastore again. Whatever of the profile is updated meanwhile moves as well.
      - V(tenant) moves everything that the machine's organization has on the machine's datastore to the target (API 29.0 and later).
      - V(policy) gives everything with the machine's storage policy in its vDC the policy O(policy) (API 38.1 and later); the server
        picks the datastores.
    type: str
    choices: [relocate, profile, tenant, policy]
    default: relocate
  policy:
    description:
      - Name of the storage policy to change to, for O(method=policy).
    type: str
  reserve_percent:
    description:
      - Part of the target's capacity that has to stay free, in percent.
    type: float
    default: 5.0
  wait:
    description:
      - Whether to wait until the machine is there. Without it RV(task) is what was begun.
    type: bool
    default: true
  timeout:
    description:
      - Seconds to wait. The task goes on after that, and the same call joins it.
    type: int
    default: 3600
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vcloud
attributes:
  check_mode:
    support: full
    details:
      - Says which machine would move from where to where, how much that is at most, and whether it fits.
  diff_mode:
    support: full
    details:
      - Shows the name of the datastore.
  idempotency:
    support: full
    details:
      - Before API 5.6 the server tells the datastore of the machine only, not of each disk.
seealso:
  - module: ferry.vmware.vcd_vm_info
  - module: ferry.vmware.vcd_datastore_info
"""

EXAMPLES = r"""
- name: Move a machine to another datastore
  ferry.vmware.vcd_relocate:
    hostname: vcd.example.com
    username: administrator
    password: "{{ vcd_password }}"
    auth_org: System
    ca_path: /etc/ssl/vcd-ca.pem
    vm: db01
    vapp: erp
    vdc: acme-prod
    datastore: Production-2

- name: Move a machine by its href, and do not wait
  ferry.vmware.vcd_relocate:
    vm: https://vcd.example.com/api/vApp/vm-1111aaaa-0000-4000-8000-000000000001
    datastore: datastore-42
    wait: false
  register: begun

- name: See what moving a whole organization would concern
  ferry.vmware.vcd_relocate:
    vm: db01
    vapp: erp
    datastore: Production-2
    method: tenant
  check_mode: true
  register: plan
"""

RETURN = r"""
vm:
  description: The machine, as M(ferry.vmware.vcd_vm_info) tells of it.
  returned: success
  type: dict
  sample:
    name: db01
    href: https://vcd.example.com/api/vApp/vm-1111aaaa-0000-4000-8000-000000000001
    id: urn:vcloud:vm:1111aaaa-0000-4000-8000-000000000001
    vapp: erp
    vdc: acme-prod
    org: acme
    status: POWERED_ON
    is_template: false
    datastore:
      name: Production-2
    vcenter: vc1
    moref: vm-191
datastore:
  description: The datastore that it lives on.
  returned: success
  type: dict
  contains:
    before:
      description: The name of the datastore where it was.
      type: str
    after:
      description: The name of the one where it is, read anew, or in check mode where it would be. Null without O(wait).
      type: str
task:
  description: The task of the relocation, null where there was none.
  returned: success
  type: dict
  contains:
    href:
      description: What identifies it.
      type: str
    status:
      description: V(queued), V(running), V(success) and so on, in the server's words.
      type: str
    progress:
      description: Percentage, null where the server does not tell.
      type: int
method:
  description: How it was done.
  returned: success
  type: str
joined:
  description: Whether a relocation that was under way before was waited for.
  returned: when a relocation was begun or joined
  type: bool
plan:
  description: Whether it fits. Sizes in MiB.
  returned: when the machine is not there yet
  type: dict
  contains:
    need_mb:
      description:
        - What is moved at most, the sizes of the disks that are not there yet. Where it is a linked clone and its base is not on the target, the
          server copies that as well.
      type: int
    free_mb:
      description: What is free on the target.
      type: int
    reserve_mb:
      description: What of that has to stay free.
      type: int
    fits:
      description: Whether it does.
      type: bool
    overcommitted:
      description: Whether the target would be too small were every thin disk on it full.
      type: bool
    linked_clone:
      description: Whether its disks hang on others (linked clones, snapshots).
      type: bool
affected:
  description: The machines that O(method) concerns besides, as M(ferry.vmware.vcd_vm_info) tells of them. Empty for V(relocate).
  returned: success
  type: list
  elements: dict
failure:
  description:
    - What went wrong, as data. C(details) has the server's C(major) and C(minor) error codes, its C(request_id) and the C(task); C(details.matches)
      lists machines or datastores where a name stands for several.
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import argspec, client, move, situation, space

OWN: dict[str, dict[str, Any]] = {
    "vm": {"type": "str", "required": True},
    "vapp": {"type": "str"},
    "vdc": {"type": "str"},
    "org": {"type": "str"},
    "datastore": {"type": "str", "required": True},
    "method": {"type": "str", "choices": ["relocate", "profile", "tenant", "policy"], "default": "relocate"},
    "policy": {"type": "str"},
    "reserve_percent": {"type": "float", "default": space.RESERVE_PERCENT},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 3600},
}


def work(call: edge.Call) -> dict[str, Any]:
    wanted = situation.Wanted(**{name: call.params[name] for name in OWN})
    with client.administrator(call.params) as session:
        return move.relocate_vm(session, wanted, check=call.check, warn=call.warn)


def main() -> None:
    edge.run(argspec.connection_spec(env_fallback, **OWN), work, required_if=[("method", "policy", ["policy"])])


if __name__ == "__main__":
    main()
