#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_register
short_description: Bind an ESXi host or a VM to a definition of the inventory
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - A definition says what a machine has to be (a model) and to which group it belongs. A machine is what vCenter has. This module
    binds one to the other, keeps the binding, changes it or releases it.
  - Without O(machine) the candidates are all machines that fit the model and are free, and the smallest of these is taken, so that
    large ones stay free for definitions that need them. For each that does not fit the result has the reasons.
  - A definition that has its machine keeps it, also where others would fit better, and also where it no longer fits the model, of
    which a warning tells. Only naming another machine in O(machine) changes that; the old one is released first.
  - The binding is kept in vCenter, as the custom attributes C(ferry.definition) and C(ferry.group) of the machine. The inventory
    plugin P(ferry.vmware.vcenter#inventory) gives them back as the variables C(ferry_definition) and C(ferry_group), and as groups.
  - A definition never gets two machines, nor a machine two definitions, also when two runs race. While the binding is written, a
    custom attribute of the name C(ferry.lock.) and a hash is there, of which vCenter makes only one; it says in its value on the root
    folder who made it. One that a killed run has left is removed by the next after two minutes.
options:
  kind:
    description: What the definition is for.
    type: str
    choices: [host, vm]
    default: host
  group:
    description: The group of the definition. Needed for O(state=present).
    type: str
  definition:
    description: The name of the definition. It is one name over all groups, hosts and VMs of the vCenter.
    type: str
    required: true
  model:
    description:
      - What the machine has to have. What is not given does not matter.
      - Patterns are those of a shell (V(*), V(?)), in any letter case.
    type: dict
    default: {}
    suboptions:
      min_cpus:
        description: CPUs at least, of a host its cores.
        type: int
        default: 0
      min_memory_mb:
        description: MiB of memory at least.
        type: int
        default: 0
      name:
        description: A pattern for its name.
        type: str
      vendor:
        description: A pattern for the maker of a host.
        type: str
      model:
        description: A pattern for the model of a host.
        type: str
      version:
        description: A pattern for the ESXi version of a host.
        type: str
      cluster:
        description: A pattern for the name of the cluster that the host, or the VM's host, is in.
        type: str
      guest_id:
        description: A pattern for the guest id of a VM (V(debian12_64Guest)).
        type: str
      datastores:
        description: Names of datastores that the host has to have, or that the VM has to be on.
        type: list
        elements: str
        default: []
      networks:
        description: Names of networks that the host has to have, or that the VM has to be on.
        type: list
        elements: str
        default: []
      disks_gb:
        description: Sizes in GiB. For each the VM has to have a disk of its own that is at least as large.
        type: list
        elements: float
        default: []
      tags:
        description: Names of tags that it has to carry, of whatever category. They are read from vCenter's Automation API.
        type: list
        elements: str
        default: []
      attributes:
        description: Patterns for custom attributes of the machine, by their names.
        type: dict
        default: {}
  machine:
    description:
      - The machine, by name, inventory path or MoRef; a VM also by instance UUID, a host also as C(cluster/name).
      - With O(state=absent), only this one is released.
    type: str
  state:
    description:
      - V(present) binds, V(absent) releases.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotency:
    support: full
notes:
  - Needs the privileges C(Global.ManageCustomFields) and C(Global.SetCustomField), on the root folder as well.
seealso:
  - module: ferry.vmware.vm_placement
"""

EXAMPLES = r"""
- name: A host for the definition esx1, whichever fits
  ferry.vmware.machine_register:
    hostname: vcenter.example.com
    username: administrator@vsphere.local
    password: "{{ vcenter_password }}"
    group: ESX
    definition: esx1
    model:
      min_cpus: 16
      min_memory_mb: 262144
      vendor: "HPE*"
      datastores: [shared01]

- name: This VM, and no other
  ferry.vmware.machine_register:
    kind: vm
    group: web
    definition: VM-02
    machine: /DC0/vm/production/web02

- name: Release what the definition has
  ferry.vmware.machine_register:
    definition: esx1
    state: absent
"""

RETURN = r"""
machine:
  description: The machine that has, or in check mode would have, the definition. Null when it is released.
  type: dict
  returned: success
  contains:
    kind:
      description: Host or vm.
      type: str
    name:
      description: Its name.
      type: str
    moref:
      description: Its MoRef.
      type: str
    path:
      description: Its inventory path.
      type: str
    uuid:
      description: Of a VM, vCenter's UUID of it.
      type: str
    misfits:
      description: Where it is not what the model wants.
      type: list
      elements: str
released:
  description: Names of the machines that lost (or in check mode would lose) the definition.
  type: list
  elements: str
  returned: success
candidates:
  description: All machines of the kind; first those that fit and are free, the smallest first.
  type: list
  elements: dict
  returned: success, and when no machine fits
  contains:
    name:
      description: Its name.
      type: str
    moref:
      description: Its MoRef.
      type: str
    path:
      description: Its inventory path.
      type: str
    fits:
      description: Whether it fits and is free.
      type: bool
    reasons:
      description: Why not.
      type: list
      elements: str
failure:
  description:
    - What went wrong, as data. Its C(code) is C(no_candidate), C(does_not_fit), C(duplicate) or C(busy), or that of any other failure.
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec, binding, client, steady


def request_of(params: dict[str, Any]) -> binding.Request:
    """What the options ask for."""
    m: dict[str, Any] = params["model"]
    model = binding.Model(
        min_cpus=m["min_cpus"],
        min_memory_mb=m["min_memory_mb"],
        name=m["name"],
        vendor=m["vendor"],
        model=m["model"],
        version=m["version"],
        cluster=m["cluster"],
        guest_id=m["guest_id"],
        datastores=tuple(m["datastores"]),
        networks=tuple(m["networks"]),
        disks_gb=tuple(m["disks_gb"]),
        tags=tuple(m["tags"]),
        attributes={str(k): str(v) for k, v in (m["attributes"] or {}).items()},
    )
    return binding.Request(
        kind=params["kind"],
        group=params["group"] or "",
        definition=params["definition"],
        model=model,
        machine=params["machine"],
        present=params["state"] == "present",
    )


def work(call: edge.Call) -> dict[str, Any]:
    request = request_of(call.params)
    with steady.ending_tidily(), client.connect(call.params) as session:
        result = binding.register(session, request, check=call.check, told=call.warn)
    before, after = result.pop("before"), result.pop("after")
    result.pop("warnings")
    if call.diff:
        result["diff"] = {"before": before, "after": after}
    return result


def main() -> None:
    model: dict[str, Any] = {
        "min_cpus": {"type": "int", "default": 0},
        "min_memory_mb": {"type": "int", "default": 0},
        **{name: {"type": "str"} for name in ("name", "vendor", "model", "version", "cluster", "guest_id")},
        "datastores": {"type": "list", "elements": "str", "default": []},
        "networks": {"type": "list", "elements": "str", "default": []},
        "disks_gb": {"type": "list", "elements": "float", "default": []},
        "tags": {"type": "list", "elements": "str", "default": []},
        "attributes": {"type": "dict", "default": {}},
    }
    edge.run(
        argspec.connection_spec(
            env_fallback,
            kind={"type": "str", "choices": ["host", "vm"], "default": "host"},
            group={"type": "str"},
            definition={"type": "str", "required": True},
            model={"type": "dict", "options": model, "default": {}, "apply_defaults": True},
            machine={"type": "str"},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
        ),
        work,
        required_if=[("state", "present", ("group",))],
    )


if __name__ == "__main__":
    main()
