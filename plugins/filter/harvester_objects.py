# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: harvester_objects
short_description: The objects that a wave becomes for Harvester's importer
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Makes sources and VirtualMachineImports of a wave, without asking anyone.
  - Everything that stands in the way is told at once, and nothing fails here.
positional: settings
options:
  _input:
    description:
      - What the inventory says of each VM. C(name), C(import) (fields of its own), and where there are no C(facts), C(networks) and
        C(storages).
    type: list
    elements: dict
    required: true
  settings:
    description:
      - What the role P(ferry.vmware.harvester#role) knows. C(name), C(namespace), C(source), C(network_map), C(storage_map),
        C(force_power_off), C(shutdown_timeout), C(nic_model), C(disk_bus), and C(facts), what M(ferry.vmware.vm_info) returned of the VMs.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: See what the wave becomes
  ansible.builtin.debug:
    msg: "{{ [{'name': 'web01'}] | ferry.vmware.harvester_objects(settings) }}"
  vars:
    settings:
      facts: "{{ found.vms }}"
      name: wave1
      namespace: default
      source: {type: vmware, endpoint: https://vcenter.example.com/sdk}
      network_map: {"*": default/vlan1}
      storage_map: {"*": harvester-longhorn}
"""

RETURN = r"""
_value:
  description:
    - C(sources), C(imports), C(errors) and C(notes) (sentences for people), and C(scratch_gib), twice the disks of the largest VM.
  type: dict
"""

from typing import Any, Callable

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import harvester


def harvester_objects(wave: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    return harvester.make(wave, settings).as_dict()


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"harvester_objects": harvester_objects}
