#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server_group
short_description: Have one server group of a name, also where several playbooks make it at once
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Nova takes the name of a server group as often as it is given. This finds the group, or makes it. Where there are several of the name
    and the policy, all who ask get the same one, that with the most members, else that with the first ID.
  - A server can be put into a group only when it is made. Ask right before that once more, and a group that another playbook has made
    meanwhile is found.
options:
  name:
    description: Name of the group.
    type: str
    required: true
  policy:
    description: Its policy, which cannot be changed.
    type: str
    choices: [affinity, anti-affinity, soft-affinity, soft-anti-affinity]
    required: true
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.openstack
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotency:
    support: full
seealso:
  - module: ferry.vmware.landing_plan
"""

EXAMPLES = r"""
- name: Databases apart
  ferry.vmware.server_group:
    cloud: mycloud
    name: ferry:databases
    policy: anti-affinity
  register: databases
"""

RETURN = r"""
group:
  description: The group, with C(id), C(name), C(policy) and C(members). Null where it would be made.
  returned: success
  type: dict
failure:
  description: What went wrong, as data.
  type: dict
  returned: failure
"""

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import server_group
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.argspec import connection_spec


def main() -> None:
    spec = {
        **connection_spec(),
        "name": {"type": "str", "required": True},
        "policy": {"type": "str", "choices": ["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"], "required": True},
    }
    edge.run(spec, lambda call: server_group.run(call.params, check=call.check))


if __name__ == "__main__":
    main()
