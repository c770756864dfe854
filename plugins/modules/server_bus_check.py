#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server_bus_check
short_description: Find servers that do not have the disk bus and the other hardware of their source
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - A guest that finds its disks on another bus than before does not boot. This compares, for servers in OpenStack, the hardware
    that they should have with the properties of the volume or image that they boot from, with the names under which Nova
    attached their disks, and, where it is given, with libvirt's XML of the running server.
  - It changes nothing.
options:
  servers:
    description: Names or IDs of servers. Absent, all that were made for a migrated VM.
    type: list
    elements: str
  vms:
    description:
      - Facts of the virtual machines, as M(ferry.vmware.vm_info) returns them. A server belongs to the VM whose instance UUID
        is in its metadata.
      - A dictionary C(target) in an entry, with C(disk_bus), C(nic_model), C(firmware) and C(machine), is what the conversion of
        its guest says it needs now. It wins.
      - A server whose VM is not given is compared with the properties of what it boots from.
    type: list
    elements: dict
    default: []
  hypervisor:
    description: What runs the servers.
    type: str
    choices: [kvm, vmware]
    default: kvm
  hardware:
    description: As in M(ferry.vmware.landing_plan), V(source) or, for guests that have the drivers, V(virtio).
    type: str
    choices: [source, virtio]
    default: source
  properties:
    description: As in M(ferry.vmware.landing_plan), the user's own properties, which win over those of the source.
    type: dict
    default: {}
  domains:
    description:
      - Texts of libvirt's XML of running servers, as C(virsh dumpxml) prints them on the compute host. They say what the
        servers really have.
    type: list
    elements: str
    default: []
  device_names:
    description:
      - Whether the names of attached disks are looked at. With libvirt they tell the bus, C(/dev/vda) is virtio and C(/dev/sda)
        is SCSI or SATA. Other drivers of Nova give names that say nothing.
    type: bool
    default: true
  fail:
    description: Whether the module fails when a server differs. The failed result has everything, too.
    type: bool
    default: false
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.openstack
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing.
  idempotency:
    support: full
seealso:
  - module: ferry.vmware.volume_image_properties
  - module: ferry.vmware.snapshot_image_properties
"""

EXAMPLES = r"""
- name: Facts of the wave
  ferry.vmware.vm_info:
    vms: [web01, db01]
  register: source

- name: Their servers have the same buses
  ferry.vmware.server_bus_check:
    cloud: mycloud
    vms: "{{ source.vms }}"
    fail: true

- name: What libvirt says, on the compute host
  ansible.builtin.command: virsh -c qemu:///system dumpxml 8b7f9d3e-9d3e-4d55-9e0a-1f0d6c0f2a22
  delegate_to: compute1
  changed_when: false  # it only reads
  register: domain

- name: It runs with them
  ferry.vmware.server_bus_check:
    cloud: mycloud
    servers: [web01]
    domains: ["{{ domain.stdout }}"]
    fail: true
"""

RETURN = r"""
servers:
  description: One entry per server.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: Its ID.
      type: str
    name:
      description: Its name.
      type: str
    status:
      description: Its status.
      type: str
    source:
      description: Instance UUID of the VM that it was made for.
      type: str
    vm:
      description: Name of that VM.
      type: str
    expected:
      description: The hardware it should have, with C(disk_bus), C(scsi_model), C(nic_model), C(firmware), C(machine).
      type: dict
    expected_from:
      description: What says so, C(vm), C(volume), C(server) (what Nova keeps of its image), C(image) or C(nothing).
      type: str
    root_volume:
      description: ID of the volume that it boots from.
      type: str
    properties:
      description: The hardware properties of what it boots from.
      type: dict
    disks:
      description: Its volumes, each with C(volume) and C(device).
      type: list
      elements: dict
    domain:
      description: What its XML says, where it was given.
      type: dict
    differs:
      description:
        - What is not as expected, each with C(where) (C(properties), C(nova), C(libvirt)), C(field), C(is), C(should), and for
          one disk C(volume) and C(device).
      type: list
      elements: dict
    ok:
      description: Whether it has what it should. False also where nothing says what that is.
      type: bool
    next:
      description: What to do about it.
      type: str
wrong:
  description: Names of the servers that are not in order.
  returned: always
  type: list
  elements: str
missing:
  description: Names of the VMs in O(vms) that have no server.
  returned: always
  type: list
  elements: str
"""

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import hardware_check
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.argspec import connection_spec


def main() -> None:
    spec = {
        **connection_spec(),
        "servers": {"type": "list", "elements": "str"},
        "vms": {"type": "list", "elements": "dict", "default": []},
        "hypervisor": {"type": "str", "choices": ["kvm", "vmware"], "default": "kvm"},
        "hardware": {"type": "str", "choices": ["source", "virtio"], "default": "source"},
        "properties": {"type": "dict", "default": {}},
        "domains": {"type": "list", "elements": "str", "default": []},
        "device_names": {"type": "bool", "default": True},
        "fail": {"type": "bool", "default": False},
    }
    edge.run(spec, lambda call: hardware_check.run(call.params))


if __name__ == "__main__":
    main()
