#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: landing_undo
short_description: Stop or remove what a migration has made of a VM in OpenStack
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - The target's half of a rollback, to be run before M(ferry.vmware.vm_source_restore).
  - The volumes no longer count as complete, since the source is about to go on without them. A second migration compares them with it
    and copies what differs.
  - Server, ports and volumes are found by their tags and metadata, C(ferry_source).
options:
  source:
    description: Instance UUID of the VM at its source.
    type: str
    required: true
  target:
    description:
      - V(stopped) stops the server and keeps everything.
      - V(removed) removes the server and its ports. The volumes stay.
      - V(purged) removes the volumes as well; a second migration copies everything again.
    type: str
    choices: [stopped, removed, purged]
    default: stopped
  timeout:
    description: Seconds that a server has to stop or to go, and each volume.
    type: float
    default: 300
  ledger:
    description:
      - The folder of the ledgers, as in M(ferry.vmware.vm_disk_copy). By default C(~/.local/state/ferry). Used with V(purged).
    type: path
  root_helper:
    description: What makes a command root, for a volume that a killed copy has left attached to this machine. Used with V(purged).
    type: str
    default: sudo
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
  - module: ferry.vmware.vm_source_restore
  - module: ferry.vmware.landing_plan
"""

EXAMPLES = r"""
- name: Stop the server that the VM has become
  ferry.vmware.landing_undo:
    cloud: mycloud
    source: 50210a1b-1111-4c6e-9f01-7a1e5b1c0001
"""

RETURN = r"""
steps:
  description: What was done, or in check mode would be, in its order.
  returned: success
  type: list
  elements: str
  sample: ["server web01 (3d2f1a0b-5b0f-4c57-8a1e-0c5f4c1e9b11) stopped"]
servers:
  description: IDs of the VM's servers that were found.
  returned: success
  type: list
  elements: str
volumes:
  description: IDs of the VM's volumes that were found.
  returned: success
  type: list
  elements: str
failure:
  description: What went wrong, as data.
  type: dict
  returned: failure
"""

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import undo
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.argspec import connection_spec
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.targets import state_dir


def main() -> None:
    spec = {
        **connection_spec(),
        "source": {"type": "str", "required": True},
        "target": {"type": "str", "choices": ["stopped", "removed", "purged"], "default": "stopped"},
        "timeout": {"type": "float", "default": 300},
        "ledger": {"type": "path"},
        "root_helper": {"type": "str", "default": "sudo"},
    }
    edge.run(spec, lambda call: undo.undo({**call.params, "state_dir": state_dir(call.params.get("ledger"))}, check=call.check))


if __name__ == "__main__":
    main()
