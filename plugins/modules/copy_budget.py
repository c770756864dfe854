#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: copy_budget
short_description: How fast, and how many disks at once, copies may read from ESXi hosts and datastores
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Stores read budgets on the machine that carries the bytes. All copies on it share them, whichever process they are in.
  - Running copies take a change over within about a second.
  - The options are the whole budget. What they do not name has no limit.
options:
  state:
    description:
      - V(present) stores the budget, V(absent) removes it, so that nothing is limited.
    type: str
    choices: [present, absent]
    default: present
  ledger:
    description:
      - Folder of the state of copies on this machine, see O(ferry.vmware.vm_disk_copy#module:ledger). Budgets belong to that folder.
      - By default C(ferry) in C(XDG_STATE_HOME), or C(~/.local/state/ferry).
    type: path
  overall:
    description:
      - What all copies together may take.
    type: dict
    suboptions:
      rate:
        description:
          - MB/s, of 1,000,000 bytes of disk. Without it there is no limit. With V(0) nothing is read.
        type: float
      disks:
        description:
          - Disks that may be read at once.
        type: int
      windows:
        description:
          - Times of the day in which other limits hold, by the machine's local time. The first window that fits counts.
        type: list
        elements: dict
        suboptions:
          from:
            description:
              - When it begins, as V("HH:MM"), quoted.
            type: str
            required: true
          to:
            description:
              - When it ends. One that is not later than O(overall.windows[].from) is meant on the next day.
            type: str
            required: true
          rate:
            description:
              - MB/s in the window. Without it there is no limit in the window. With V(0) nothing is read.
            type: float
          disks:
            description:
              - Disks that may be read at once in the window. Without it the number outside of windows holds.
            type: int
  hosts:
    description:
      - Limits of ESXi hosts, by the name that vCenter has for them. Each is a dictionary with the keys of O(overall).
      - The name V(*) stands for each host without an entry of its own. Each of them has a budget of its own all the same.
    type: dict
    default: {}
  datastores:
    description:
      - The same for datastores.
    type: dict
    default: {}
extends_documentation_fragment:
  - ferry.vmware.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotency:
    support: full
seealso:
  - module: ferry.vmware.vm_disk_copy
"""

EXAMPLES = r"""
- name: Leave room for others by day, and keep within the NFC connections of each host
  ferry.vmware.copy_budget:
    overall:
      rate: 800
      windows:
        - {from: "07:00", to: "19:00", rate: 200}
    hosts:
      "*": {rate: 250, disks: 4}
      esx-old.example.com: {rate: 60, disks: 1}
    datastores:
      nfs-slow:
        windows:
          - {from: "08:00", to: "18:00", rate: 0}
  delegate_to: "{{ ferry_conversion_host }}"

- name: Take all limits away
  ferry.vmware.copy_budget:
    state: absent
"""

RETURN = r"""
budget:
  description: The budget that holds now, or would after a run without check mode. Names of hosts are in lower case.
  returned: success
  type: dict
  contains:
    overall:
      description: The limit for all copies together. Null where there is none.
      type: dict
    hosts:
      description: Limits by ESXi host.
      type: dict
    datastores:
      description: Limits by datastore.
      type: dict
  sample: {overall: {rate: 800.0, windows: [{from: "07:00", to: "19:00", rate: 200.0}]}, hosts: {"*": {rate: 250.0, disks: 4}}, datastores: {}}
path:
  description: The file.
  returned: success
  type: str
  sample: /var/lib/ferry/budget.json
"""

import os
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.disk import budget
from ansible_collections.ferry.vmware.plugins.module_utils.disk.budget_settings import load_plain
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.targets import state_dir

_LIMIT: dict[str, Any] = {"rate": {"type": "float"}, "disks": {"type": "int"}}
SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "ledger": {"type": "path"},
    "overall": {
        "type": "dict",
        "options": {
            **_LIMIT,
            "windows": {
                "type": "list",
                "elements": "dict",
                "options": {"from": {"type": "str", "required": True}, "to": {"type": "str", "required": True}, **_LIMIT},
            },
        },
    },
    "hosts": {"type": "dict", "default": {}},
    "datastores": {"type": "dict", "default": {}},
}


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    folder = state_dir(p["ledger"])
    path = os.path.join(folder, budget.FILE)
    there = os.path.exists(path)
    try:
        before = load_plain(folder)
        sound = True
    except BadInput:
        before, sound = dict(budget.EMPTY), False
    wanted = p["state"] == "present"
    after = budget.checked({name: p[name] for name in ("overall", "hosts", "datastores")} if wanted else None)
    changed = there != wanted or (wanted and (before != after or not sound))
    if changed and not call.check:
        budget.save(folder, after if wanted else None)
    result: dict[str, Any] = {"changed": changed, "budget": after, "path": path}
    if call.diff:
        result["diff"] = {"before": before if there else {}, "after": after if wanted else {}}
    return result


def main() -> None:
    edge.run(SPEC, work)


if __name__ == "__main__":
    main()
