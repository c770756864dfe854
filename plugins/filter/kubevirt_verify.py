# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kubevirt_verify
short_description: Whether VMs of KubeVirt are as the VMs that they were made from
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Compares vCPUs and their topology, memory, network cards (order, MAC addresses, networks), firmware, and disks (order, sizes).
positional: machines, claims, settings
options:
  _input:
    description:
      - What M(ferry.vmware.vm_info) returned of their sources.
    type: list
    elements: dict
    required: true
  machines:
    description:
      - The VirtualMachines of the namespace.
    type: list
    elements: dict
    required: true
  claims:
    description:
      - Its PersistentVolumeClaims.
    type: list
    elements: dict
    required: true
  settings:
    description:
      - C(network_map) as the roles P(ferry.vmware.mtv#role) and P(ferry.vmware.harvester#role) take it, C(namespace), and
        C(names), what each VM is called there, by its MoRef. VMs without a name are left out.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Tell what differs
  ansible.builtin.debug:
    msg: "{{ (found.vms | ferry.vmware.kubevirt_verify(machines, claims, settings)).lines }}"
  vars:
    settings: {network_map: {"*": pod}, namespace: production, names: {vm-42: web01}}
"""

RETURN = r"""
_value:
  description:
    - C(ok), C(lines) (sentences, one a VM) and C(rows). Each has C(name), C(vm), C(made), C(differences) (C(what), C(source), C(made)) and
      C(mend), a patch that gives the VM its source's processors and memory, empty where these are right.
  type: dict
"""

from typing import Any, Callable

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import verify


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kubevirt_verify": verify.verify}
