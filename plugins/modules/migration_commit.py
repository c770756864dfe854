#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_commit
short_description: Let a migration count for good, and delete what is named of what it leaves over
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Says what of a finished migration may be deleted, with sizes, and deletes only what O(delete) names.
  - Refuses with all reasons where the migration is not finished - the source has to be off, its state migrated, its server there, and all
    volumes complete and attached to it.
  - From then on C(ferry.state) of the source is V(committed), and P(ferry.vmware.rollback#role) refuses unless it is told otherwise.
  - Where the source was deleted by an earlier run, it is known by the metadata of the server.
options:
  vm:
    description:
      - The VM at its source, given by name, inventory path (V(/DC0/vm/folder/name), or only its end), instance UUID, BIOS UUID or MoRef.
    type: str
    required: true
  delete:
    description:
      - What is deleted now.
      - V(source) is the VM with its disks. It is refused where it has snapshots that are not ours, raw devices, or disks that other VMs share.
      - V(snapshots) are those of the VM that are ours, V(ledgers) what this machine knows of the copies, V(images) the images that were
        made for it on the way.
    type: list
    elements: str
    choices: [source, snapshots, ledgers, images]
    default: []
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
  - module: ferry.vmware.migration_cleanup
"""

EXAMPLES = r"""
- name: Say what may go
  ferry.vmware.migration_commit:
    vm: web01
    cloud: mycloud
  check_mode: true
  register: commit

- name: It has run for two weeks, so the source may go
  ferry.vmware.migration_commit:
    vm: web01
    cloud: mycloud
    delete: [source, ledgers]
"""

RETURN = r"""
vm:
  description: The VM, with C(name), C(moref) and C(instance_uuid).
  returned: success
  type: dict
server:
  description: ID of the server that it has become.
  returned: success
  type: str
committed:
  description: Whether it counts as moved for good, or in check mode would.
  returned: success
  type: bool
left:
  description: What may be deleted and was not named in O(delete).
  returned: success
  type: list
  elements: dict
  contains: &item
    kind:
      description: V(source), V(snapshots), V(ledgers) or V(images).
      type: str
    what:
      description: Which one.
      type: str
    bytes:
      description: Its size, null where vCenter does not tell it.
      type: int
    id:
      description: MoRef, path or ID.
      type: str
deleted:
  description: What was deleted, or in check mode would be.
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
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import commit
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec


def main() -> None:
    spec = argspec.connection_spec(
        env_fallback,
        vm={"type": "str", "required": True},
        delete={"type": "list", "elements": "str", "choices": ["source", "snapshots", "ledgers", "images"], "default": []},
        ledger={"type": "path"},
    )
    for name, option in openstack_argspec.connection_spec().items():
        spec.setdefault(name, option)
    edge.run(spec, lambda call: commit.run(call.params, check=call.check))


if __name__ == "__main__":
    main()
