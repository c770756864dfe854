#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: landing_plan
short_description: Plan what a wave of virtual machines becomes in OpenStack
version_added: 0.1.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Compares the facts of virtual machines, as M(ferry.vmware.vm_info) returns them, with what an OpenStack cloud has, and says
    which volumes, ports and server each of them needs, what of it is there already, and what was altered since by hand.
  - All errors of the whole wave are found at once, before anything is made. Networks, datastores and volume types without a
    map, flavors that are too small, quotas, MAC addresses in use, and names that are taken are among them.
  - It makes a handful of calls for a wave of any size, and changes nothing.
options:
  vms:
    description:
      - Facts of the virtual machines. Used are C(name), C(moref), C(instance_uuid), C(guest_id), C(firmware), C(secure_boot),
        C(cpus), C(memory_mb), C(boot_disks), C(disks) (C(key), C(label), C(capacity) in bytes, C(controller), C(datastore)) and
        C(nics) (C(key), C(label), C(mac), C(network), C(type), C(addresses)).
      - A dictionary C(options) in an entry overrides, for this VM, the options of the module with the same names.
    type: list
    elements: dict
    required: true
  network_map:
    description:
      - Source network (name or MoRef, V(*) for all others) to network in OpenStack (name or ID).
      - A null value leaves the VM without that card. The value may be a dictionary with C(network), and C(keep_ip) to give
        the port the IPv4 addresses that VMware Tools told.
    type: dict
    default: {}
  storage_map:
    description:
      - Source datastore (name or MoRef, V(*) for all others) to volume type. A null value is the cloud's default type.
      - When it is empty, all volumes get the default type.
    type: dict
    default: {}
  availability_zone:
    description: Availability zone of the servers.
    type: str
  security_groups:
    description: Security groups of the ports, by name or ID. Absent, the project's default group holds and is not compared.
    type: list
    elements: str
  flavor:
    description: Name or ID of the flavor. Absent, the one with the fewest surplus processors and memory is taken.
    type: str
  hypervisor:
    description: What runs the servers; it decides which family of image properties is set.
    type: str
    choices: [kvm, vmware]
    default: kvm
  hardware:
    description:
      - V(source) keeps disk controller and network card as near to the VM's as the target has them, so that a guest that was not
        converted finds its disks. V(virtio) is for guests that have the drivers.
    type: str
    choices: [source, virtio]
    default: source
  properties:
    description: Further image properties of the volume that the server boots from. An empty value takes one out.
    type: dict
    default: {}
  metadata:
    description: Further metadata of the servers.
    type: dict
    default: {}
  keep_mac:
    description: Whether ports get the MAC addresses of the source.
    type: bool
    default: true
  server_name:
    description: Template of the servers' names. The words C({name}), C({uuid}) and C({moref}) of the VM are replaced.
    type: str
    default: "{name}"
  volume_name:
    description: Template of the volumes' names, also with C({index}) (from 0) and C({key}) of the disk.
    type: str
    default: "{name}-disk{index}"
  port_name:
    description: Template of the ports' names, also with C({index}) (from 0) and C({key}) of the card.
    type: str
    default: "{name}-nic{index}"
  server_state:
    description: How the servers should be in the end.
    type: str
    choices: [started, stopped]
    default: started
  fail:
    description: Whether the module fails when the plan has errors. The failed result has the plan, too.
    type: bool
    default: true
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.openstack
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: What differs is in C(todo) and C(drift) of each VM.
  idempotency:
    support: full
"""

EXAMPLES = r"""
- name: Facts of the wave
  ferry.vmware.vm_info:
    vms: [web01, db01]
  register: source

- name: What they become
  ferry.vmware.landing_plan:
    cloud: mycloud
    vms: "{{ source.vms }}"
    network_map:
      VM Network: tenant-net
      backend: db-net
    storage_map:
      "*": ssd
  register: landing
"""

RETURN = r"""
vms:
  description: One entry per VM, in the order of O(vms).
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the VM.
      type: str
    source:
      description: Its instance UUID, by which everything made for it is tagged.
      type: str
    volumes:
      description:
        - One entry per disk, in order. C(id) is null where it is absent; C(state) is C(absent), C(copying) or C(complete).
        - C(create_metadata) is what to create it with, C(changes) what to set on it; empty where nothing is to do.
      type: list
      elements: dict
    ports:
      description: One entry per network card that lands, in order, with C(id), C(network_id), C(mac), C(tags) and C(changes).
      type: list
      elements: dict
    flavor:
      description: The flavor, with its surplus.
      type: dict
    server:
      description: C(id) (null where absent), C(name), C(status), C(should), C(metadata) and C(changes).
      type: dict
    to_copy:
      description: Keys of the disks that are still to copy.
      type: list
      elements: str
    todo:
      description: What is not made yet, each with C(kind), C(what), C(is), C(should).
      type: list
      elements: dict
    drift:
      description: What was altered since it was made, each with C(kind), C(what), C(field), C(is), C(should).
      type: list
      elements: dict
    warnings:
      description: What the plan cannot keep.
      type: list
      elements: str
    errors:
      description: Why this VM cannot land.
      type: list
      elements: str
    changed:
      description: Whether there is anything to do.
      type: bool
errors:
  description: All errors of the wave, each with C(vm) (null for the whole wave), C(what), and both as C(text).
  returned: always
  type: list
  elements: dict
quotas:
  description: What the wave needs of each quota, with C(what), C(needed), C(used), C(limit) (-1 is none). RAM is in MiB.
  returned: always
  type: list
  elements: dict
"""

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import landing
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.argspec import connection_spec


def main() -> None:
    spec = {
        **connection_spec(),
        "vms": {"type": "list", "elements": "dict", "required": True},
        "network_map": {"type": "dict", "default": {}},
        "storage_map": {"type": "dict", "default": {}},
        "availability_zone": {"type": "str"},
        "security_groups": {"type": "list", "elements": "str"},
        "flavor": {"type": "str"},
        "hypervisor": {"type": "str", "choices": ["kvm", "vmware"], "default": "kvm"},
        "hardware": {"type": "str", "choices": ["source", "virtio"], "default": "source"},
        "properties": {"type": "dict", "default": {}},
        "metadata": {"type": "dict", "default": {}},
        "keep_mac": {"type": "bool", "default": True},
        "server_name": {"type": "str", "default": "{name}"},
        "volume_name": {"type": "str", "default": "{name}-disk{index}"},
        "port_name": {"type": "str", "default": "{name}-nic{index}"},
        "server_state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
        "fail": {"type": "bool", "default": True},
    }
    edge.run(spec, lambda call: landing.plan_wave(call.params))


if __name__ == "__main__":
    main()
