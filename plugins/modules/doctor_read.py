#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: doctor_read
short_description: See which way works for which VM, and how fast each host is
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Tells ESXi builds, datastores and the state of changed block tracking, and for every VM by which ways it can be copied and why the others do
    not work.
  - Per host and way it reads the beginning of a disk and measures the speed, from the machine that the task runs on.
  - Nothing is changed in vCenter. Only what lies still is read, which are disks of VMs that are off and what snapshots of yours have frozen.
    An export lease (V(nfc)) is given back; vCenter shows it among its tasks.
options:
  vms:
    description:
      - The VMs to tell of, each given by name, inventory path, UUID or MoRef. Their hosts are measured.
      - By default all, with templates.
    type: list
    elements: str
  bytes:
    description: Bytes to read for each figure, at most.
    type: int
    default: 1073741824
  seconds:
    description: Seconds for each figure, at most.
    type: float
    default: 60.0
  transports:
    description: The ways to measure. V(nbd) is left out where there is no O(vddk).
    type: list
    elements: str
    choices: [https, nfc, nbd]
    default: [https, nfc, nbd]
  workers:
    description: Reads at once.
    type: int
    default: 4
  patience:
    description: Seconds for which a server that fails or is away is asked again.
    type: int
    default: 15
  vddk:
    description: How disks are read by VDDK, as O(ferry.vmware.vm_disk_copy#module:vddk).
    type: dict
    suboptions:
      libdir:
        description: Folder into which VDDK was unpacked (C(vmware-vix-disklib-distrib)).
        type: path
        required: true
      thumbprint:
        description: SHA-1 thumbprint of vCenter's certificate, by default that of the one that it shows and that is verified first.
        type: str
      transports:
        description: VDDK's list of transport modes, such as C(nbdssl:nbd).
        type: str
  bad_builds:
    description: Builds of ESXi (number, or version and number) whose changed areas are not to be used, besides those that are known.
    type: list
    elements: str
  ledger:
    description:
      - Folder of the ledgers on this machine. The figures are kept there for plans (C(throughput.json)), by default in C(~/.ansible/ferry).
    type: path
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
  - ferry.vmware.long_task
attributes:
  check_mode:
    support: full
    details:
      - Looks at everything, and reads no disk.
  diff_mode:
    support: N/A
    details:
      - Changes nothing at any time.
  idempotency:
    support: full
seealso:
  - module: ferry.vmware.vm_precheck
  - module: ferry.vmware.doctor_report
"""

EXAMPLES = r"""
- name: Look at the VMs of a wave, and measure their hosts
  ferry.vmware.doctor_read:
    hostname: vcenter.example.com
    username: ferry@vsphere.local
    password: "{{ vcenter_password }}"
    ca_path: /etc/ssl/vcenter-ca.pem
    vms: [web01, db01]
    bytes: 268435456
  register: looked

- name: Show what cannot be copied warm
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.paths | map(attribute='why') | flatten | unique | join('; ') }}"
  loop: "{{ looked.vms | selectattr('best.warm', 'none') }}"
  loop_control:
    label: "{{ item.name }}"
"""

RETURN = r"""
vcenter:
  description: The server, with C(name), C(version), C(build) and C(api_type).
  returned: success
  type: dict
hosts:
  description: The ESXi hosts that the VMs are on.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    moref:
      description: Its MoRef.
      type: str
    version:
      description: ESXi's version, null where it may not be read.
      type: str
    build:
      description: ESXi's build.
      type: str
    bad_build:
      description: Why changed areas of this build are not to be used, null where nothing is known against it.
      type: str
    connection:
      description: Whether vCenter reaches it, V(connected) if all is well.
      type: str
    maintenance:
      description: Whether it is in maintenance mode.
      type: bool
    vms:
      description: Number of these VMs on it.
      type: int
datastores:
  description: The datastores of their disks, with C(name), C(moref), C(type), C(capacity), C(free) (bytes), C(accessible) and C(vms).
  returned: success
  type: list
  elements: dict
vms:
  description: The VMs.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    moref:
      description: Its MoRef.
      type: str
    tracking:
      description:
        - Changed block tracking. C(supported), C(enabled), and C(disks) for how many of C(of) disks vCenter has a change identifier.
      type: dict
    paths:
      description:
        - The ways, each with C(transport), C(off) and C(running) (whether it can be copied in full then), C(delta) (whether only what has
          changed can be read) and C(why), a list of what does not work.
      type: list
      elements: dict
    best:
      description: The way that is taken for C(cold) and for C(warm), null where none works.
      type: dict
    capacity:
      description: Bytes of all its disks.
      type: int
reads:
  description: The figures, one per host and way; empty in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    host:
      description: Name of the host.
      type: str
    transport:
      description: V(https), V(nfc) or V(nbd).
      type: str
    vm:
      description: The VM whose disk was read.
      type: str
    disk:
      description: Label of the disk.
      type: str
    datastore:
      description: Its datastore.
      type: str
    bytes:
      description: Bytes of the disk that were read.
      type: int
    zero_bytes:
      description: How many of them are zeroes.
      type: int
    seconds:
      description: How long it took.
      type: float
    rate:
      description: Bytes per second, null where nothing was read.
      type: int
    kept:
      description: Whether the figure was kept for plans. What is mostly zeroes, or less than 1 MiB, is not.
      type: bool
    error:
      description: Why there is no figure, null where there is one.
      type: str
failure:
  description: What went wrong, as data.
  type: dict
  returned: failure
"""

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.long_task import long_task_spec
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import doctor
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec


def main() -> None:
    edge.run(
        argspec.connection_spec(
            env_fallback,
            vms={"type": "list", "elements": "str"},
            bytes={"type": "int", "default": 1 << 30},
            seconds={"type": "float", "default": 60.0},
            transports={
                "type": "list",
                "elements": "str",
                "choices": ["https", "nfc", "nbd"],
                "default": ["https", "nfc", "nbd"],
            },
            workers={"type": "int", "default": 4},
            patience={"type": "int", "default": 15},
            vddk={
                "type": "dict",
                "options": {"libdir": {"type": "path", "required": True}, "thumbprint": {"type": "str"}, "transports": {"type": "str"}},
            },
            bad_builds={"type": "list", "elements": "str"},
            ledger={"type": "path"},
            **long_task_spec(),
        ),
        lambda call: doctor.run(call.params, check=call.check),
    )


if __name__ == "__main__":
    main()
