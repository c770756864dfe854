#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vcd_datastore_evacuate
short_description: Move everything off a datastore of vCloud Director
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Relocates every virtual machine on O(datastore), of vApps and of templates, running or not, to O(targets), and reads the datastore
    again at the end. RV(empty) is the proof, or RV(left) lists what is left and why.
  - A canary goes first. Only when it has arrived, told by reading it again, are the others begun.
  - What was begun is in a journal before it is done. Killed at any point, the same task goes on, and joins relocations that are under way. Where
    the answer to a request was lost, its task is looked for. Nothing is moved twice.
  - Linked clones are kept together with their base. The API does not tell which base a clone hangs on, so those of an organization whose
    first disks are of the same size are taken for one chain. It goes to one target, the base first.
  - A machine is begun only where its target has room for it at that moment, with the largest size of everything that is under way, less
    O(reserve_percent).
  - Where the server is busy, fewer are moved at a time, and more again later.
options:
  datastore:
    description:
      - The datastore to empty, by name, href, urn (V(urn:vcloud:datastore:...)) or MoRef (V(datastore-41)). Where several vCenters have
        one of that name, it is an error that lists them.
    type: str
    required: true
  targets:
    description:
      - Where to, each as O(datastore). They have to be enabled, of the same vCenter, and not full. What is moved is shared out between
        them.
    type: list
    elements: str
    required: true
  reserve_percent:
    description:
      - Part of each target's capacity that has to stay free, in percent.
    type: float
    default: 5.0
  max_per_target:
    description:
      - Relocations under way at a time to each target.
    type: int
    default: 2
  max_per_source:
    description:
      - Relocations under way at a time altogether. vCenter runs 8 on a datastore and queues the others.
    type: int
    default: 8
  max_per_host:
    description:
      - Relocations under way at a time of running machines on one host. vCenter runs 2 and queues the others.
    type: int
    default: 2
  canary:
    description:
      - One number, so many machines go first, the smallest that stand alone. V(0) is none.
      - Otherwise the machines that go first, by name, href or urn.
      - Where one fails, nothing else is begun. A canary that has passed in an earlier run of the same O(journal) is not sent again.
    type: list
    elements: str
    default: ["1"]
  journal:
    description:
      - The file in which is written what was begun and how it ended. It is made with mode 0600 and belongs to the emptying of one datastore. It
        must outlive the run, and one run at a time can have it.
      - By default C($XDG_STATE_HOME/ferry/vcd-evacuate-UUID.jsonl), or the same under C(~/.local/state), with the UUID of the datastore.
    type: path
  stop_after_failures:
    description:
      - When so many have failed, no more are begun. Those under way are waited for. V(0) never stops.
    type: int
    default: 3
  window:
    description:
      - When relocations may be under way. None is begun that would not be over in time, by the rate that was measured. Those under way are waited
        for and never cancelled. What was not begun is in RV(left), and the same task goes on with it in the next window.
      - A window that is over already is an error before anything is begun. The module waits for one that has not begun.
    type: dict
    suboptions:
      start:
        description:
          - A time of today (V(22:00)), in the time zone of the machine that runs the module, or one with a date (V(2026-11-21T22:00:00+01:00)).
        type: str
      end:
        description:
          - As O(window.start). A time of day before that of O(window.start) is one of the next day.
        type: str
      duration:
        description:
          - How long it is, instead of O(window.end), for example V(4h), V(90m) or a number of seconds.
        type: str
  order:
    description:
      - V(small) begins with small machines and chains, V(chain) with chains.
    type: str
    choices: [small, chain]
    default: small
  timeout:
    description:
      - Seconds for one relocation. After that it counts as failed. Its task goes on.
    type: int
    default: 86400
  busy_timeout:
    description:
      - Seconds for which a machine that is busy with something else is tried again.
    type: int
    default: 900
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vcloud
  - ferry.vmware.long_task
attributes:
  check_mode:
    support: full
    details:
      - Gives the plan. The journal is read and not written.
  diff_mode:
    support: none
    details:
      - The plan says what would move where.
  idempotency:
    support: full
notes:
  - Independent disks are not moved with a machine. They are listed in RV(left).
  - Above API 38.1 the server has no relocate; see M(ferry.vmware.vcd_relocate). While it still lists 38.1 or less, that is what is used.
  - A relocation that is under way when the module is stopped goes on at the server.
seealso:
  - module: ferry.vmware.vcd_relocate
  - module: ferry.vmware.vcd_datastore_info
"""

EXAMPLES = r"""
- name: See what would go where
  ferry.vmware.vcd_datastore_evacuate:
    hostname: vcd.example.com
    username: administrator
    password: "{{ vcd_password }}"
    auth_org: System
    datastore: Production-1
    targets: [Production-2, Production-3]
  check_mode: true
  register: plan

- name: Empty it at night
  ferry.vmware.vcd_datastore_evacuate:
    datastore: Production-1
    targets: [Production-2, Production-3]
    reserve_percent: 10
    canary: [web01, db-test]
    window:
      start: "22:00"
      end: "05:00"
    journal: /var/lib/ferry/production-1.jsonl
  register: done

- name: Say what is left
  ansible.builtin.debug:
    msg: "{{ item.kind }} {{ item.name }}: {{ item.reason }}"
  loop: "{{ done.left }}"
  loop_control:
    label: "{{ item.name }}"
"""

RETURN = r"""
plan:
  description: All machines on the datastore, those that move in the order in which they are begun, then those that cannot.
  returned: success, and when relocations failed
  type: list
  elements: dict
  contains:
    vm:
      description: Name.
      type: str
    href:
      description: What identifies it.
      type: str
    vapp:
      description: Its vApp or vApp template.
      type: str
    vdc:
      description: Its vDC.
      type: str
    org:
      description: Its organization.
      type: str
    is_template:
      description: Whether it belongs to a vApp template.
      type: bool
    from:
      description: The datastore that is emptied.
      type: str
    to:
      description: The target, null where it cannot be moved.
      type: str
    mb:
      description: MiB that are written at most, with the base that is copied along.
      type: int
    chain:
      description: What its chain is called, null where it is in none.
      type: str
    chain_length:
      description: The longest chain of its disks; above 1 it is a linked clone, or has snapshots.
      type: int
    why:
      description: Why it goes there, or why it cannot.
      type: str
    wave:
      description: V(0) is the canary. The others are what would be under way at a time if all took equally long. Null where it cannot be moved.
      type: int
moved:
  description: What has arrived in this run, in that order.
  returned: success, and when relocations failed
  type: list
  elements: dict
  sample:
    - vm: web01
      href: https://vcd.example.com/api/vApp/vm-1111aaaa-0000-4000-8000-000000000001
      vapp: web
      vdc: acme-prod
      org: acme
      is_template: false
      from: Production-1
      to: Production-2
      mb: 20480
      task: https://vcd.example.com/api/task/2222bbbb-0000-4000-8000-000000000002
      joined: false
      seconds: 92.4
failed:
  description:
    - What was begun and has failed, as RV(moved), with C(reason), C(code) and C(details). The server undoes a move that it did not finish.
    - Where it is not empty the task has failed, and Ansible puts its own V(true) in its place in a registered variable. RV(failures) is the same
      list and stays.
  returned: success, and when relocations failed
  type: list
  elements: dict
failures:
  description: The same list as RV(failed).
  returned: success, and when relocations failed
  type: list
  elements: dict
left:
  description: What is on the datastore at the end, or in check mode what would be.
  returned: success, and when relocations failed
  type: list
  elements: dict
  contains:
    name:
      description: Name.
      type: str
    href:
      description: What identifies it.
      type: str
    kind:
      description: V(vm), V(template), V(shadow), V(disk) (an independent disk) or V(unknown) (allocated, and in no list).
      type: str
    reason:
      description: Why it is there.
      type: str
empty:
  description: Whether nothing is on the datastore, read again at the end.
  returned: success, and when relocations failed
  type: bool
datastore:
  description: The datastore, read again at the end, as M(ferry.vmware.vcd_datastore_info) tells of it.
  returned: success, and when relocations failed
  type: dict
targets:
  description: The targets as they were at the beginning, as M(ferry.vmware.vcd_datastore_info) tells of them.
  returned: success, and when relocations failed
  type: list
  elements: dict
journal:
  description: Path of the journal.
  returned: success, and when relocations failed
  type: str
failure:
  description: What went wrong, as data. C(code) is V(canary_failed) or V(evacuation_failed) where relocations failed.
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.errors import ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.long_task import long_task_spec, progress_from
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import argspec, client, evacuate, evacuate_plan, space

OWN: dict[str, dict[str, Any]] = {
    "datastore": {"type": "str", "required": True},
    "targets": {"type": "list", "elements": "str", "required": True},
    "reserve_percent": {"type": "float", "default": space.RESERVE_PERCENT},
    "max_per_target": {"type": "int", "default": evacuate_plan.PER_TARGET},
    "max_per_source": {"type": "int", "default": evacuate_plan.PER_SOURCE},
    "max_per_host": {"type": "int", "default": evacuate_plan.PER_HOST},
    "canary": {"type": "list", "elements": "str", "default": ["1"]},
    "journal": {"type": "path"},
    "stop_after_failures": {"type": "int", "default": 3},
    "window": {
        "type": "dict",
        "options": {"start": {"type": "str"}, "end": {"type": "str"}, "duration": {"type": "str"}},
        "mutually_exclusive": [("end", "duration")],
    },
    "order": {"type": "str", "choices": ["small", "chain"], "default": "small"},
    "timeout": {"type": "int", "default": 86400},
    "busy_timeout": {"type": "int", "default": 900},
}


def work(call: edge.Call) -> dict[str, Any]:
    wanted = evacuate.Wanted(**{name: call.params[name] for name in OWN})
    with progress_from(call.params, name=wanted.datastore, unit="VMs") as progress:
        progress.install_signals()
        with client.administrator(call.params) as session:
            try:
                return evacuate.evacuate(session, wanted, check=call.check, warn=call.warn, progress=progress)
            except ServerError as e:
                if not e.partial.get("failed"):
                    raise
                # what failed is the list C(failed), which is not empty: so the task has failed, and Ansible's own flag does not hide it
                return {**e.partial, "msg": str(e), "failure": e.as_dict()}


def main() -> None:
    edge.run(argspec.connection_spec(env_fallback, **OWN, **long_task_spec()), work)


if __name__ == "__main__":
    main()
