#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_precheck
short_description: Find all that stands in the way of a migration, before anything is touched
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Looks at the virtual machines of a wave, at what is around them in vSphere, and at the target, and returns every concern with its
    category and with what to do about it. It finds all of them, also where some of the machines cannot be found.
  - A concern is V(critical) where a machine cannot be migrated as it is, V(warning) where something is lost or needs a look,
    V(information) else. A machine is C(ready) where it has no critical one.
  - Concerns that Forklift (the Migration Toolkit for Virtualization) has carry its ids. The guide
    R(prechecks, ansible_collections.ferry.vmware.docsite.precheck) has a table of all of them.
  - It asks a fixed number of questions, whatever the number of machines, and changes nothing.
options:
  vms:
    description:
      - The machines, each by name, inventory path, instance UUID, BIOS UUID or MoRef, or as a dictionary.
      - In a dictionary, C(vm) names the machine. C(options) says what is of this machine alone, with any of the names O(strategy),
        O(transports), O(on_timeout), O(network_map) and O(storage_map), and C(target_name), the name that it is to get in Kubernetes. With
        O(target=openstack) it may also have what the C(options) of one machine have in M(ferry.vmware.landing_plan).
    type: list
    elements: raw
    required: true
  target:
    description:
      - Where the machines are to go. V(openstack) looks at the target as well; the others only at the source and whether O(network_map) and
        O(storage_map) name every network and datastore.
      - With V(openshift) and V(harvester) the disks are moved by the importers there (the Migration Toolkit for Virtualization, Harvester's
        vm-import-controller), so concerns have the categories and privileges of these, and Forklift's own labels where it has the concern.
        Names are checked that Kubernetes does not take, or that become the same. What is in the cluster is not looked at; the roles
        P(ferry.vmware.mtv#role) and P(ferry.vmware.harvester#role) do that.
      - Absent, it is V(openstack) where O(cloud) or O(auth) is given, else V(none).
    type: str
    choices: [openstack, openshift, harvester, kubernetes, none]
  strategy:
    description: Whether the machines are copied powered off (V(cold)) or while they run (V(warm)).
    type: str
    choices: [cold, warm]
    default: cold
  transports:
    description:
      - The ways that disks may be read. V(nbd) stands for VDDK; give it where VDDK is set up on the conversion hosts.
    type: list
    elements: str
    choices: [https, nbd, nfc]
    default: [https, nfc]
  on_timeout:
    description: What is done with a guest that does not shut down at the cutover. With V(poweroff) a guest without VMware Tools is no critical concern.
    type: str
    choices: [fail, poweroff]
    default: fail
  network_map:
    description: Source network to target network, as in M(ferry.vmware.landing_plan).
    type: dict
    default: {}
  storage_map:
    description: Source datastore to target storage, as in M(ferry.vmware.landing_plan).
    type: dict
    default: {}
  landing:
    description:
      - With O(target=openstack), what else is said of the landing, by the names of options of M(ferry.vmware.landing_plan). Examples are C(flavor),
        C(availability_zone), C(constraints) and C(port_policy).
    type: dict
    default: {}
  headroom_percent:
    description:
      - With O(strategy=warm), how much of a disk's capacity its snapshot may come to take on the datastore, in percent. The datastore has to have
        that for all disks of the wave together.
    type: float
    default: 10
  streams_per_host:
    description: How many machines of one ESXi host may be read over NFC (V(nfc), V(nbd)) in one wave before it is a concern.
    type: int
    default: 10
  skew_seconds:
    description: By how many seconds vCenter's clock may differ from that of the machine the module runs on.
    type: float
    default: 60
  certificate_days:
    description: For how many days vCenter's certificate has to be good yet.
    type: float
    default: 30
  inspect:
    description:
      - Whether guests of VMs that are off are looked into, of which VMware Tools tell nothing, V(powered_off), or V(never). Their disks are read over the
        datastore's HTTPS, only what is asked for, and not changed. It takes a minute or so for each, and C(guestfish) on the machine that runs the
        module.
    type: str
    choices: [never, powered_off]
    default: never
  distrusted_builds:
    description:
      - ESXi builds whose change tracking is not trusted beside those known, as a build number (V(24022510)) or version and number
        (V(8.0.3 24022510)).
    type: list
    elements: str
    default: []
  facts:
    description: Whether RV(vms) has the facts of each machine as well, those of M(ferry.vmware.vm_info), so that nobody needs to ask again.
    type: bool
    default: false
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
  - ferry.vmware.openstack
attributes:
  check_mode:
    support: full
    details:
      - Changes nothing at any time.
  diff_mode:
    support: N/A
    details:
      - Changes nothing at any time.
  idempotency:
    support: full
notes:
  - O(validate_certs) and O(ca_path) are for vCenter. For OpenStack they are in C(clouds.yaml), or O(ca_cert).
seealso:
  - module: ferry.vmware.vm_info
  - module: ferry.vmware.landing_plan
"""

EXAMPLES = r"""
- name: Look at the source only
  ferry.vmware.vm_precheck:
    vms: [web01, /DC0/vm/databases/db01]
    strategy: warm
  register: checked

- name: Look at both sides, with a disk type of its own for one machine
  ferry.vmware.vm_precheck:
    cloud: mycloud
    vms:
      - web01
      - vm: db01
        options:
          strategy: warm
          storage_map:
            "*": ssd
    network_map:
      VM Network: web
    storage_map:
      "*": hdd
    landing:
      availability_zone: az1
  register: checked

- name: Stop where a machine is not ready
  ansible.builtin.assert:
    that: checked.ready
    fail_msg: "{{ checked.vms | rejectattr('ready') | map(attribute='name') | join(', ') }}"
"""

RETURN = r"""
vms:
  description: One entry for each of O(vms), in its order.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The machine's name; where it was not found, what was asked for.
      type: str
    moref:
      description: Its MoRef, null where it was not found.
      type: str
    ready:
      description: Whether it has no critical concern.
      type: bool
    facts:
      description: With O(facts=true) its facts as in M(ferry.vmware.vm_info), null where it was not found.
      type: dict
    concerns:
      description: What was found, the worst first.
      type: list
      elements: dict
      contains: &concern
        id:
          description: What kind it is, for machines.
          type: str
          sample: vmware.disk_mode.independent
        category:
          description: V(critical), V(warning) or V(information).
          type: str
        label:
          description: A few words.
          type: str
          sample: independent disk
        assessment:
          description: What is so.
          type: str
          sample: Hard disk 2 is independent_persistent.
        advice:
          description: What to do about it.
          type: str
        disk:
          description: Label of the disk, where it is about one.
          type: str
        device:
          description: Another device, a network, a datastore, a host, a cluster or a privilege, where it is about one.
          type: str
wave_concerns:
  description: What is not of one machine alone, the worst first.
  returned: success
  type: list
  elements: dict
  contains: *concern
ready:
  description: Whether nothing critical was found at all.
  returned: success
  type: bool
target:
  description: The target that was looked at.
  returned: success
  type: str
failure:
  description: What went wrong, as data.
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import argspec as openstack_argspec
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import precheck
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec


def main() -> None:
    spec = argspec.connection_spec(
        env_fallback,
        vms={"type": "list", "elements": "raw", "required": True},
        target={"type": "str", "choices": ["openstack", "openshift", "harvester", "kubernetes", "none"]},
        strategy={"type": "str", "choices": ["cold", "warm"], "default": "cold"},
        transports={"type": "list", "elements": "str", "choices": ["https", "nbd", "nfc"], "default": ["https", "nfc"]},
        on_timeout={"type": "str", "choices": ["fail", "poweroff"], "default": "fail"},
        network_map={"type": "dict", "default": {}},
        storage_map={"type": "dict", "default": {}},
        landing={"type": "dict", "default": {}},
        headroom_percent={"type": "float", "default": 10},
        streams_per_host={"type": "int", "default": 10},
        skew_seconds={"type": "float", "default": 60},
        certificate_days={"type": "float", "default": 30},
        inspect={"type": "str", "choices": ["never", "powered_off"], "default": "never"},
        distrusted_builds={"type": "list", "elements": "str", "default": []},
        facts={"type": "bool", "default": False},
    )
    for name, option in openstack_argspec.connection_spec().items():
        spec.setdefault(name, option)
    edge.run(spec, lambda call: precheck.run(call.params))


if __name__ == "__main__":
    main()
