#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: policy_decide
short_description: Decide whether a policy acts on an event of a vCenter
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Takes an event of the event source C(ferry.vmware.vcenter) and a policy, looks at what is so now and at what was done before, and says
    which actions are due, or why none is.
  - Limits, holds and incidents are kept in vCenter (custom attribute C(ferry.policy)), under a lock. So they count for all control nodes.
  - It does none of the actions. That is what the role P(ferry.vmware.policy#role) is for, which uses this module before and after.
  - What a policy may say is in the guide on events.
options:
  policy:
    description: The policy. Every mistake in it is told at once.
    type: dict
    required: true
  event:
    description: The event, as the event source has handed it on. Without it only the policy is checked.
    type: dict
  state:
    description:
      - V(decided) decides. Where a rule acts, that is written before the module returns.
      - V(done) and V(failed) say how the run of the actions has ended.
    type: str
    choices: [decided, done, failed]
    default: decided
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
attributes:
  check_mode:
    support: full
    details: It decides and writes nothing.
  diff_mode:
    support: none
  idempotency:
    support: full
    details: An incident that was dealt with is not dealt with again.
notes:
  - Needs the privileges C(Global.ManageCustomFields) and C(Global.SetCustomField).
  - A rule with C(settle) makes the module wait for so long.
seealso:
  - module: ferry.vmware.host_failover
  - module: ferry.vmware.datastore_relieve
"""

EXAMPLES = r"""
- name: Is the policy right
  ferry.vmware.policy_decide:
    policy: "{{ ferry_policy }}"

- name: What is to be done about this event
  ferry.vmware.policy_decide:
    policy: "{{ ferry_policy }}"
    event: "{{ ferry_event }}"
  register: decision
"""

RETURN = r"""
run:
  description: Whether the actions are to be made.
  type: bool
  returned: when an event was given
rule:
  description: The rule that is for the event.
  type: str
  returned: when an event was given
suppressed:
  description:
    - Why nothing is to be done. V(no_rule), V(over) (the state has ended), V(maintenance), V(done) (before), V(under_way),
      V(failed) (too often), V(hold), V(limit); null where something is.
  type: str
  returned: when an event was given
why:
  description: The same in words.
  type: str
  returned: when an event was given
actions:
  description: The actions in their order, each with C(action), C(after) and its settings.
  type: list
  elements: dict
  returned: when an event was given
incident:
  description: The id of the event.
  type: str
  returned: when an event was given
attempt:
  description: How many times this incident was acted on, this time included.
  type: int
  returned: when an event was given
group:
  description: The group of the host.
  type: str
  returned: when an event was given
names:
  description: Names of what the event is about, by C(host), C(datastore), C(vm) and C(cluster).
  type: dict
  returned: when an event was given
moref:
  description: MoRef of what the event is about.
  type: str
  returned: when an event was given
target:
  description: What other modules know the host or datastore by, its name where no other has it, else its MoRef.
  type: str
  returned: when an event was given
rules:
  description: Names of the rules of the policy.
  type: list
  elements: str
  returned: success
failure:
  description: What went wrong, as data. Its C(code) is C(policy) where the policy has mistakes, which C(details.problems) lists.
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec, client, policy_decision, policy_journal, policy_model


def work(call: edge.Call) -> dict[str, Any]:
    policy = policy_model.read_policy(call.params["policy"])
    result: dict[str, Any] = {"changed": False, "rules": [r.name for r in policy.rules]}
    if call.params["event"] is None:
        return result
    event = policy_decision.read_event(call.params["event"])
    with client.connect(call.params) as session:
        keeper = policy_journal.Keeper(session)
        if call.params["state"] != "decided":
            changed = not call.check and keeper.end(event, well=call.params["state"] == "done")
            return {**result, "changed": changed}
        if call.check:
            return {**result, **keeper.look(policy, event).as_dict()}
        outcome = policy_journal.settle(keeper, policy, event) or keeper.begin(policy, event)
    return {**result, **outcome.as_dict(), "changed": outcome.decision.run}


def main() -> None:
    edge.run(
        argspec.connection_spec(
            env_fallback,
            policy={"type": "dict", "required": True},
            event={"type": "dict"},
            state={"type": "str", "choices": ["decided", "done", "failed"], "default": "decided"},
        ),
        work,
    )


if __name__ == "__main__":
    main()
