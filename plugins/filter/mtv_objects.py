# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: mtv_objects
short_description: The objects that a wave becomes for the Migration Toolkit for Virtualization
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Makes Provider, Host, Hook, NetworkMap, StorageMap and Plan of a wave, without asking anyone.
  - Everything that stands in the way is told at once, and nothing fails here.
positional: settings
options:
  _input:
    description:
      - What the inventory says of each VM. C(name), C(target_name) where its name shall be another, C(plan) (fields of its own in the
        Plan), and where there are no C(facts), C(id), C(networks) and C(storages).
    type: list
    elements: dict
    required: true
  settings:
    description:
      - What the role P(ferry.vmware.mtv#role) knows. C(name), C(namespace), C(target_namespace), C(strategy), C(source), C(destination),
        C(network_map), C(storage_map), C(hooks), C(esxi_hosts), C(plan), and C(facts), what M(ferry.vmware.vm_info) returned of the VMs.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: See what the wave becomes
  ansible.builtin.debug:
    msg: "{{ [{'name': 'web01'}] | ferry.vmware.mtv_objects(settings) }}"
  vars:
    settings:
      facts: "{{ found.vms }}"
      name: wave1
      namespace: openshift-mtv
      target_namespace: production
      strategy: cold
      source: {type: vsphere, url: https://vcenter.example.com/sdk}
      network_map: {"*": pod}
      storage_map: {"*": ceph}
"""

RETURN = r"""
_value:
  description:
    - C(objects) in the order in which they are to be made, C(secrets), the names of the Secrets that they name, and C(errors), sentences
      for people.
  type: dict
"""

from typing import Any, Callable

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import mtv


def mtv_objects(wave: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    return mtv.make(wave, settings).as_dict()


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mtv_objects": mtv_objects}
