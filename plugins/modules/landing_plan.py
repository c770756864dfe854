#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: landing_plan
short_description: Plan what a wave of virtual machines becomes in OpenStack
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Compares the facts of virtual machines, as M(ferry.vmware.vm_info) returns them, with what an OpenStack cloud has, and says
    which volumes, ports and server each of them needs, what of it is there already, and what was altered since by hand.
  - All errors of the whole wave are found at once, before anything is made. Networks, datastores and volume types without a
    map, flavors that are too small, quotas, MAC and IP addresses that are in use or that this user may not choose, key pairs,
    image formats, constraints that Nova cannot keep, and names that are taken are among them.
  - It makes a handful of calls for a wave of any size, and changes nothing.
options:
  vms:
    description:
      - Facts of the virtual machines. Used are C(name), C(moref), C(instance_uuid), C(guest_id), C(firmware), C(secure_boot),
        C(cpus), C(cores_per_socket), C(memory_mb), C(custom_attributes), C(boot_disks), C(disks) (C(key), C(label), C(capacity) in
        bytes, C(controller), C(datastore)) and C(nics) (C(key), C(label), C(mac), C(network), C(type), C(addresses)).
      - A disk with C(file) is to become an image first; the file is looked at on the machine that the module runs on
        (M(ferry.vmware.vm_files_info) gives such facts).
      - A dictionary C(options) in an entry overrides, for this VM, the options of the module with the same names.
    type: list
    elements: dict
    required: true
  network_map:
    description:
      - Source network (name or MoRef, V(*) for all others) to network in OpenStack (name or ID).
      - A null value leaves the VM without that card. The value may be a dictionary with C(network), C(security_groups), and
        C(keep_ip) to give the port the IPv4 addresses that VMware Tools told. They are kept in the metadata of the volume that
        the server boots from, since a source that is off tells none.
    type: dict
    default: {}
  nics:
    description:
      - What is said of single cards, by index (from 0), label, key or MAC address. It wins over O(network_map), so that cards on
        one network can differ.
      - Each is a dictionary with any of C(network), C(keep_ip), C(fixed_ips) (addresses), C(mac) (another one, or null for one that
        Neutron chooses) and C(security_groups).
    type: dict
    default: {}
  port_policy:
    description:
      - By default Neutron lets only an admin, or a member of the project that owns the network, choose a port's MAC and IP address.
        V(check) makes it an error of the plan where this user may not; V(trust) is for clouds with a policy of their own.
    type: str
    choices: [check, trust]
    default: check
  storage_map:
    description:
      - Source datastore (name or MoRef, V(*) for all others) or single disk (label, key, address such as V(scsi0:1), or uuid) to
        volume type; a disk's own entry comes before its datastore's. A null value is the cloud's default type.
      - When it is empty, all volumes get the default type.
      - Instead of the type's name an entry may be a mapping of C(type), C(encrypted) and C(shared). With C(encrypted) the volume is
        an error unless it is so. A disk that vSphere shares among VMs needs a type with multiattach, unless C(shared=false) asks
        for a copy of its own.
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
    description:
      - Name or ID of the flavor. Absent, the one with the fewest surplus processors and memory is taken, and of several such one
        whose extra specs (C(hw:cpu_sockets) and so on) suit the VM's sockets and cores.
      - Where the flavor says nothing of sockets and cores, image properties of the volume that the server boots from do.
    type: str
  key_name:
    description: Key pair of the servers.
    type: str
  config_drive:
    description: Whether the servers get a config drive.
    type: bool
  constraints:
    description:
      - Which VMs belong together or apart, a list of dictionaries as M(ferry.vmware.vm_move) takes them (C(ferry_constraints) of an
        inventory). C(kind) V(together) (or V(EQ)) becomes a server group with the policy C(affinity), V(apart) (or V(NE)) one with
        C(anti-affinity), each C(soft-) where C(required=false). C(name) makes the group's name, the same in each wave.
      - V(pin), V(avoid) and V(hold) are about ESXi hosts and are only warned of. Nova has one group for a server.
    type: list
    elements: dict
    default: []
  rehearsal:
    description:
      - What a rehearsal will need of the quotas beside the landing. V(snapshot) is a snapshot of each volume and a volume from it,
        V(clone) a clone of each volume; both are another server.
    type: str
    choices: [none, snapshot, clone]
    default: none
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
        - C(attach) says the C(order) of the disk on the server (from 0, the one that it boots from), the C(bus), the C(device) name
          that Nova gives it, and the C(serial) that the guest sees (the volume's ID).
        - C(expect) is what it has to be by its type (C(encrypted), C(multiattach)), C(replace) the ID of a volume in error that holds
          nothing and is to be removed first.
        - C(guest) is C(ready) where the volume says which hardware its guest needs since it was looked into (M(ferry.vmware.vm_guest_convert)), C(committing)
          where a conversion was killed while it was written down.
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
      description:
        - C(id) (null where absent), C(name), C(status), C(should), C(metadata), C(key_name), C(config_drive), C(group)
          (the server group, with C(id), C(name) and C(policy)) and C(changes).
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
  description:
    - All errors of the wave, each with C(vm) (null for the whole wave), C(id) (what kind it is, as in M(ferry.vmware.vm_precheck)),
      C(what), and VM and C(what) as C(text).
  returned: always
  type: list
  elements: dict
server_groups:
  description: Server groups of the wave, each with C(id) (null where absent), C(name), C(policy), C(constraint) and C(vms).
  returned: always
  type: list
  elements: dict
notes:
  description: What is good to know of the wave.
  returned: always
  type: list
  elements: str
quotas:
  description:
    - What the wave needs of each quota, with C(what), C(needed), C(used), C(limit) (-1 is none). RAM is in MiB, sizes are in GiB.
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
        "nics": {"type": "dict", "default": {}},
        "port_policy": {"type": "str", "choices": ["check", "trust"], "default": "check"},
        "storage_map": {"type": "dict", "default": {}},
        "availability_zone": {"type": "str"},
        "security_groups": {"type": "list", "elements": "str"},
        "flavor": {"type": "str"},
        "key_name": {"type": "str", "no_log": False},
        "config_drive": {"type": "bool"},
        "constraints": {"type": "list", "elements": "dict", "default": []},
        "rehearsal": {"type": "str", "choices": ["none", "snapshot", "clone"], "default": "none"},
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
