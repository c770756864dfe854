#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: port_check
short_description: Tell which TCP ports can be reached from a machine
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Opens a TCP connection to each port of each address from the machine that the task runs on, many at once, and closes it again.
  - A port that cannot be reached is no error.
options:
  addresses:
    description: Names or addresses. One with a port of its own (V(vcenter.example.com:8443)) is tried at that alone.
    type: list
    elements: str
    required: true
  ports:
    description: Ports that are tried at each address.
    type: list
    elements: int
    default: [443]
  timeout:
    description: Seconds for each connection, at most 60. A name that takes longer to be resolved takes longer.
    type: float
    default: 5
extends_documentation_fragment:
  - ferry.vmware.attributes
attributes:
  check_mode:
    support: full
    details:
      - Changes nothing at any time.
  diff_mode:
    support: N/A
    details:
      - It changes nothing.
  idempotency:
    support: full
"""

EXAMPLES = r"""
- name: See whether ESXi hosts can be reached from the conversion host
  ferry.vmware.port_check:
    addresses: "{{ groups['esxi_hosts'] }}"
    ports: [443, 902]
  register: reached
"""

RETURN = r"""
rows:
  description: One for each address and port.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: The name or address.
      type: str
    port:
      description: The port.
      type: int
    open:
      description: Whether it was reached.
      type: bool
    said:
      description: Why not, empty where it was.
      type: str
"""

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import reach


def main() -> None:
    spec = {
        "addresses": {"type": "list", "elements": "str", "required": True},
        "ports": {"type": "list", "elements": "int", "default": [443]},
        "timeout": {"type": "float", "default": 5},
    }
    edge.run(spec, lambda call: {"rows": reach.reach(call.params["addresses"], call.params["ports"], call.params["timeout"])})


if __name__ == "__main__":
    main()
