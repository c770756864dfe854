#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_cleanup
short_description: List and remove what migrations that died have left behind
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Finds by their tags, in vCenter and in OpenStack, snapshots, rehearsals, servers, ports, volumes, images and server groups of ours, and
    says of each why it goes or stays.
  - Removed are snapshots of runs that are over, and rehearsals that are over. Whether a run on another machine is over, only that machine
    knows, so its snapshots stay here; of a VM that O(abandon) names they go when they are an hour old.
  - Volumes, ports, images and servers that never started stay, since the next run goes on with them, unless O(abandon) names their VM.
  - Never removed are servers that have run, what they use, server groups with members, volumes that are attached to some machine, and what
    a live process of this machine holds.
  - Check mode is the list.
options:
  where:
    description: Where to look.
    type: list
    elements: str
    choices: [vcenter, openstack]
    default: [vcenter, openstack]
  abandon:
    description:
      - VMs whose migration is given up, by name (where this vCenter has them) or instance UUID. What was copied of them is removed.
      - Server groups that are empty and not needed any more, by their whole name, which begins with C(ferry:). They do not tell whose they
        are.
    type: list
    elements: str
    default: []
  rehearsal_age:
    description: Seconds after which a rehearsal counts as over.
    type: float
    default: 3600
  ledger:
    description:
      - The folder of the ledgers, as in M(ferry.vmware.vm_disk_copy). By default C(~/.local/state/ferry).
    type: path
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
  - ferry.vmware.openstack
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotency:
    support: full
seealso:
  - module: ferry.vmware.migration_commit
"""

EXAMPLES = r"""
- name: See what is left
  ferry.vmware.migration_cleanup:
    cloud: mycloud
  check_mode: true

- name: Remove it, and what was copied of a VM that stays where it is
  ferry.vmware.migration_cleanup:
    cloud: mycloud
    abandon: [old-db]
"""

RETURN = r"""
removed:
  description: What was removed, or in check mode would be.
  returned: success
  type: list
  elements: dict
  contains: &item
    kind:
      description: V(snapshot), V(rehearsal), V(server), V(port), V(volume), V(image) or V(server group).
      type: str
    id:
      description: ID or MoRef; of a rehearsal the instance UUID of its VM.
      type: str
    name:
      description: Its name, or what it consists of.
      type: str
    source:
      description: Instance UUID of the VM that it was made for, empty for a server group.
      type: str
    bytes:
      description: Its size, 0 where it has none or none is known.
      type: int
    why:
      description: Why it goes or stays.
      type: str
kept:
  description: What is ours and stays.
  returned: success
  type: list
  elements: dict
  contains: *item
failure:
  description: What went wrong, as data.
  type: dict
  returned: failure
"""

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import argspec as openstack_argspec
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import cleanup
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec


def main() -> None:
    spec = argspec.connection_spec(
        env_fallback,
        where={"type": "list", "elements": "str", "choices": ["vcenter", "openstack"], "default": ["vcenter", "openstack"]},
        abandon={"type": "list", "elements": "str", "default": []},
        rehearsal_age={"type": "float", "default": 3600},
        ledger={"type": "path"},
    )
    for name, option in openstack_argspec.connection_spec().items():
        spec.setdefault(name, option)
    edge.run(spec, lambda call: cleanup.run(call.params, check=call.check))


if __name__ == "__main__":
    main()
