#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: copy_info
short_description: Tell what a conversion host has measured, may take, and has copied
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Returns how fast copies on this machine were, its read budget, and what the ledgers of its copies say. A plan is made of that.
  - M(ferry.vmware.vm_disk_copy) keeps how fast it was. How long the other steps of a migration took is kept with O(migrations).
  - Ledgers are read without their lease. A copy that runs is not disturbed.
options:
  ledger:
    description:
      - Folder of the state of copies on this machine, see O(ferry.vmware.vm_disk_copy#module:ledger).
      - The measurements are in C(throughput.json) of that folder. Without this option they are in C(~/.ansible/ferry).
    type: path
  sources:
    description:
      - Instance UUIDs of the VMs whose ledgers are told of, by default all.
    type: list
    elements: str
  must_last:
    description:
      - Fail where the folder is thrown away with this job, because it is in the own files of an execution environment's container.
        M(ferry.vmware.vm_disk_copy) fails there in any case. Asked beforehand, nothing has been touched yet.
    type: bool
    default: false
  migrations:
    description:
      - Migrations that went over this machine, as the role P(ferry.vmware.migrate#role) keeps them in C(migrate_result), with C(phases) (each with
        C(name), C(began) and C(ended)). How long their steps took is kept in the moving averages of this machine.
      - This is a note for later plans and no state, so it does not count as a change. In check mode nothing is kept.
    type: list
    elements: dict
    default: []
extends_documentation_fragment:
  - ferry.vmware.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details:
      - Changes nothing that is to be brought about.
  idempotency:
    support: full
    details:
      - Always returns C(changed=false).
seealso:
  - module: ferry.vmware.copy_budget
  - module: ferry.vmware.vm_disk_copy
  - module: ferry.vmware.migration_plan
"""

EXAMPLES = r"""
- name: How fast is this machine?
  ferry.vmware.copy_info:
  register: known
  delegate_to: "{{ ferry_conversion_host }}"

- name: Say it
  ansible.builtin.debug:
    msg: "{{ (known.throughput.transports.https.rate / 1e6) | round(1) }} MB/s"
"""

RETURN = r"""
throughput:
  description:
    - C(transports) has C(rate) (bytes per second), C(count) (copies measured), C(at) (seconds since the epoch) and the same for each
      ESXi host in C(hosts). C(steps) has C(seconds), C(count) and C(at).
    - Rates count the bytes that were read from the source and those that were read back to prove them.
  returned: success
  type: dict
  sample:
    version: 1
    transports: {https: {rate: 212000000, count: 14, at: 1795305600, hosts: {esx1.example.com: {rate: 230000000, count: 6, at: 1795305600}}}}
    steps: {land: {seconds: 14.2, count: 14, at: 1795305600}}
budget:
  description: The read budget, as M(ferry.vmware.copy_budget) returns it.
  returned: success
  type: dict
disks:
  description: What the ledgers say.
  returned: success
  type: list
  elements: dict
  contains:
    source:
      description: Instance UUID of the VM.
      type: str
    disk:
      description: Key of the disk.
      type: str
    label:
      description: Its label.
      type: str
    capacity:
      description: Its size in bytes.
      type: int
    target:
      description: Where it is copied to.
      type: str
    state:
      description: V(copying) or V(complete).
      type: str
    pass:
      description: What the last pass was, such as V(full) or V(incremental).
      type: str
    change_id:
      description: The changeId at which the target equals the disk.
      type: str
    left:
      description: Bytes that the copy has still to look at, at most.
      type: int
    history:
      description: The last copies, each with C(at) (seconds since the epoch), C(mode), C(changed), C(read) (bytes) and C(seconds).
      type: list
      elements: dict
ledger:
  description: The folder.
  returned: success
  type: str
  sample: /var/lib/ferry
remarks:
  description: What could not be read, and why.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import kept, lasting, targets, throughput

SPEC: dict[str, Any] = {
    "ledger": {"type": "path"},
    "sources": {"type": "list", "elements": "str"},
    "must_last": {"type": "bool", "default": False},
    "migrations": {"type": "list", "elements": "dict", "default": []},
}


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    if p["must_last"]:
        lasting.insist(targets.state_dir(p["ledger"]))
    if p["migrations"] and not call.check:
        throughput.note_steps(
            throughput.place(p["ledger"]), [step for migration in p["migrations"] for step in throughput.steps_of(migration)]
        )
    return kept.read(p["ledger"], p["sources"])


def main() -> None:
    edge.run(SPEC, work)


if __name__ == "__main__":
    main()
