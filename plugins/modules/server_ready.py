#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server_ready
short_description: Wait until a server in OpenStack is up and does what it is for
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Waits until the server is C(ACTIVE), says which disk it sees where, and then waits for each of the checks.
  - The checks are made from the machine that the module runs on. For a check through Ansible's own connection to the guest, use
    M(ansible.builtin.wait_for_connection) after it.
  - A check that fails says what came instead, with the end of the server's console.
options:
  server:
    description: ID of the server.
    type: str
    required: true
  checks:
    description: What has to answer, in this order.
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description: V(port) is a TCP connection that is accepted, V(ssh) one that is greeted by an SSH server.
        type: str
        choices: [port, ssh]
        default: port
      port:
        description: TCP port. For V(ssh) it is 22 unless given.
        type: int
      address:
        description: Where to ask. Absent, it is the server's floating address, else its first one.
        type: str
      network:
        description: Name of the network whose address is taken.
        type: str
      family:
        description: Version of IP.
        type: int
        choices: [4, 6]
        default: 4
      timeout:
        description: Seconds for this check, by default O(timeout).
        type: float
  volumes:
    description: IDs of the server's volumes in the order in which the guest expects them. Another order is a warning.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds for the server to become active, and for each check.
    type: float
    default: 300
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.openstack
attributes:
  check_mode:
    support: full
    details: Changes nothing. In check mode it does not wait.
  diff_mode:
    support: none
    details: Changes nothing.
  idempotency:
    support: full
seealso:
  - module: ansible.builtin.wait_for_connection
  - module: ferry.vmware.landing_plan
"""

EXAMPLES = r"""
- name: Wait until the web server answers
  ferry.vmware.server_ready:
    cloud: mycloud
    server: 3d2f1a0b-5b0f-4c57-8a1e-0c5f4c1e9b11
    checks:
      - port: 443
      - kind: ssh
        network: management
        timeout: 600
"""

RETURN = r"""
server:
  description: The server with its C(id), C(name) and C(status). Null in check mode.
  returned: success
  type: dict
devices:
  description: Device name that Nova gave each volume, by volume ID.
  returned: success
  type: dict
  sample: {"8b7f9d3e-9d3e-4d55-9e0a-1f0d6c0f2a22": "/dev/vda"}
order_kept:
  description: Whether the devices are in the order of O(volumes).
  returned: success
  type: bool
checks:
  description: What was asked, each with C(kind), C(address), C(port) and the C(seconds) until it answered.
  returned: success
  type: list
  elements: dict
"""

from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import ready
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.argspec import connection_spec
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.client import connect


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    checks = [{k: v for k, v in c.items() if v is not None} for c in p["checks"]]
    ready.parse(checks)
    if call.check:
        return {"server": None, "devices": {}, "order_kept": True, "checks": []}
    result = ready.wait(connect(p), p["server"], checks, volumes=p["volumes"], timeout=p["timeout"])
    if p["volumes"] and not result["order_kept"]:
        call.warn(f"The server sees its disks in another order than its source did: {result['devices']}")
    return result


def main() -> None:
    spec = {
        **connection_spec(),
        "server": {"type": "str", "required": True},
        "checks": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "kind": {"type": "str", "choices": ["port", "ssh"], "default": "port"},
                "port": {"type": "int"},
                "address": {"type": "str"},
                "network": {"type": "str"},
                "family": {"type": "int", "choices": [4, 6], "default": 4},
                "timeout": {"type": "float"},
            },
        },
        "volumes": {"type": "list", "elements": "str", "default": []},
        "timeout": {"type": "float", "default": 300},
    }
    edge.run(spec, work)


if __name__ == "__main__":
    main()
