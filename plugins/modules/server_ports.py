#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server_ports
short_description: Names, MAC addresses, tags and order of a server's ports in OpenStack
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Sets what M(openstack.cloud.port) cannot. It renames ports, tags them, changes the MAC address of a port that a server
    uses, and attaches ports to a server in an order.
  - A port that is in use refuses another MAC address. It is taken off its server, changed and attached again, and so are the
    ports behind it, so that the guest sees its cards in their order.
options:
  server:
    description: ID of the server that the ports belong to. Absent, nothing is attached or detached.
    type: str
  ports:
    description: The ports, in the order of the server's network cards.
    type: list
    elements: dict
    required: true
    suboptions:
      port:
        description: ID of the port.
        type: str
        required: true
      name:
        description: Its name.
        type: str
      mac_address:
        description: Its MAC address.
        type: str
      tags:
        description: Its tags, all of them.
        type: list
        elements: str
      security_groups:
        description: IDs of its security groups, all of them.
        type: list
        elements: str
      fixed_ips:
        description: Its addresses, all of them.
        type: list
        elements: str
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.openstack
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotency:
    support: full
seealso:
  - module: openstack.cloud.port
"""

EXAMPLES = r"""
- name: Give the first card its MAC back
  ferry.vmware.server_ports:
    cloud: mycloud
    server: 3d2f1a0b-5b0f-4c57-8a1e-0c5f4c1e9b11
    ports:
      - port: 8b7f9d3e-9d3e-4d55-9e0a-1f0d6c0f2a22
        mac_address: "00:50:56:01:02:03"
      - port: 0c9e7a51-77aa-4b61-9c1c-6a3b2d1e0f33
"""

RETURN = r"""
ports:
  description: The ports as they are now.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: ID of the port.
      type: str
    name:
      description: Its name.
      type: str
    mac_address:
      description: Its MAC address.
      type: str
    device_id:
      description: ID of the server that uses it.
      type: str
    tags:
      description: Its tags.
      type: list
      elements: str
"""

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import landing
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.argspec import connection_spec


def main() -> None:
    spec = {
        **connection_spec(),
        "server": {"type": "str"},
        "ports": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "port": {"type": "str", "required": True},
                "name": {"type": "str"},
                "mac_address": {"type": "str"},
                "tags": {"type": "list", "elements": "str"},
                "security_groups": {"type": "list", "elements": "str"},
                "fixed_ips": {"type": "list", "elements": "str"},
            },
        },
    }
    edge.run(spec, lambda call: landing.ensure_ports(call.params, check=call.check))


if __name__ == "__main__":
    main()
