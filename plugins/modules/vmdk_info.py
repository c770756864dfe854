#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vmdk_info
short_description: Say what a VMDK is, what is wrong with it, and what Glance makes of it
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Reads a VMDK (monolithicSparse, streamOptimized, monolithicFlat, the split twoGb formats, VMFS flat, snapshot deltas with their
    parents), a member of an OVA, OVF's chunks, a raw disk or a qcow2 image, and says what it is, whether it is sound, and whether
    Glance takes it and Nova boots it.
  - Of a damaged disk it lists every inconsistency with its place, not only the first, and says whether the data can be saved.
  - Raw device mappings and encrypted disks are named, not read.
  - Header fields are checked before they are believed. A descriptor never makes the module open a file outside its folder.
extends_documentation_fragment:
  - ferry.vmware.attributes
attributes:
  check_mode:
    support: full
    details: Changes nothing.
  diff_mode:
    support: none
    details: Changes nothing.
  idempotency:
    support: full
options:
  path:
    description:
      - The disk. Of a disk of several files, its descriptor.
      - A file whose name ends in C(-flat.vmdk) or C(.raw) is a raw disk, whatever it holds; others are told by their content.
    type: path
    required: true
  hypervisor:
    description: The hypervisor under Nova that RV(glance) is for.
    type: str
    choices: [vmware, kvm]
    default: vmware
  deep:
    description:
      - Read and decode every grain, so that damage inside of data is found as well.
      - What could be saved of a damaged disk is tried whatever its size; without it, in files of up to 64 MiB alone.
    type: bool
    default: false
  allow_extents:
    description: Files or folders outside the descriptor's folder that it may name.
    type: list
    elements: path
    default: []
seealso:
  - module: ferry.vmware.vmdk_convert
"""

EXAMPLES = r"""
- name: Look at an exported disk
  ferry.vmware.vmdk_info:
    path: /exports/centos/CentOS.vmdk
    hypervisor: kvm
  register: disk

- name: Stop before an upload that Glance would refuse
  ansible.builtin.assert:
    that: disk.glance.accepted
    fail_msg: "{{ disk.glance.reasons | join('; ') }}"

- name: See what is left of a download that was cut off
  ferry.vmware.vmdk_info:
    path: /exports/centos/CentOS-disk1.vmdk
    deep: true
  register: cut

- name: Show it
  ansible.builtin.debug:
    msg: "{{ cut.salvage.how }}"
  when: cut.salvage
"""

RETURN = r"""
file:
  description: The file that was looked at.
  returned: success
  type: str
format:
  description: What the file is, V(vmdk), V(raw) or V(qcow2).
  returned: success
  type: str
  sample: vmdk
descriptor:
  description: The text descriptor, as it stands in the file.
  returned: success, null where there is none
  type: str
create_type:
  description: The VMDK's variant.
  returned: success, null where it is no VMDK
  type: str
  sample: streamOptimized
adapter_type:
  description: The disk controller that the descriptor names, V(ide), V(buslogic), V(lsilogic), V(lsisas1068), V(pvscsi) or the word found.
  returned: success, null where it names none
  type: str
  sample: lsilogic
hw_version:
  description: The virtual hardware version that the descriptor names.
  returned: success, null where it names none
  type: int
  sample: 19
capacity:
  description: Size of the disk in bytes.
  returned: success
  type: int
  sample: 10737418240
allocated:
  description: Bytes that are stored, in grains or in blocks of a flat file.
  returned: success, null where damage hides it
  type: int
  sample: 1610612736
cid:
  description: The content id, in hexadecimal digits.
  returned: success, null where it is no VMDK
  type: str
  sample: 8f3c1d20
uuid:
  description: The disk's UUID as the descriptor spells it.
  returned: success, null where it has none
  type: str
  sample: 60 00 C2 9a 5d 3c 1f 00-00 11 22 33 44 55 66 77
ddb:
  description: All values of the descriptor's disk data base.
  returned: success
  type: dict
extents:
  description: The extents, in the order of the disk.
  returned: success
  type: list
  elements: dict
  contains:
    access:
      description: V(RW), V(RDONLY) or V(NOACCESS).
      type: str
    type:
      description: V(FLAT), V(SPARSE), V(VMFS), V(ZERO) or another word of the descriptor.
      type: str
    size:
      description: Bytes of disk in it.
      type: int
    name:
      description: Its file, as the descriptor names it.
      type: str
    offset:
      description: Where it begins in that file, in bytes.
      type: int
    path:
      description: The file that was opened.
      type: str
    version:
      description: Version in the header of a sparse extent.
      type: int
    grain_size:
      description: Grain of a sparse extent, in bytes.
      type: int
    compressed:
      description: Whether a sparse extent's grains are compressed.
      type: bool
    redundant:
      description: Whether a sparse extent has its tables twice.
      type: bool
parent:
  description: The parent of a delta.
  returned: success, null where there is none
  type: dict
  contains:
    cid:
      description: The parent's content id, in hexadecimal digits.
      type: str
    hint:
      description: Where the descriptor believes the parent to be.
      type: str
    chain:
      description: The parents that were opened, the nearest first.
      returned: where all of them could be opened
      type: list
      elements: str
encrypted:
  description: Whether the disk is encrypted.
  returned: success
  type: bool
glance:
  description: What OpenStack makes of the file as it is.
  returned: success
  type: dict
  contains:
    accepted:
      description: Whether Glance takes the upload.
      type: bool
    bootable:
      description: Whether Nova with the O(hypervisor) can boot from it. A disk without a boot sector is not bootable.
      type: bool
    disk_format:
      description: The image's C(disk_format).
      type: str
    vmware_disktype:
      description: The property C(vmware_disktype).
      type: str
    vmware_adaptertype:
      description: The property C(vmware_adaptertype).
      type: str
    reasons:
      description: What stands against it, and what to look out for.
      type: list
      elements: str
problems:
  description:
    - Everything that is wrong or odd; at most 100. Of one kind at most 20 are listed, the others are counted.
  returned: success
  type: list
  elements: dict
  contains:
    severity:
      description: V(error) (damaged), V(unsupported) (of a kind that is not read) or V(warning).
      type: str
    message:
      description: What is wrong.
      type: str
    path:
      description: The file.
      type: str
    offset:
      description: Where in the file, in bytes.
      type: int
    disk_offset:
      description: Where on the disk, in bytes; of a grain that cannot be decoded.
      type: int
    found:
      description: What stands there.
      type: raw
    expected:
      description: What should.
      type: raw
salvage:
  description: Whether data of a damaged disk can be saved.
  returned: success, null where nothing is damaged
  type: dict
  contains:
    possible:
      description: Whether M(ferry.vmware.vmdk_convert) with O(ferry.vmware.vmdk_convert#module:salvage=true) gives anything.
      type: bool
    how:
      description: What to do, or why nothing can be saved.
      type: str
    lost_bytes:
      description: Bytes of the disk that are lost or not proven; null where it was not tried.
      type: int
    lost:
      description: The first 100 ranges that are lost or not proven.
      type: list
      elements: dict
      contains:
        start:
          description: First byte on the disk.
          type: int
        length:
          description: Bytes.
          type: int
        reason:
          description: Why.
          type: str
"""

from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.info import inspect

SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "hypervisor": {"type": "str", "choices": ["vmware", "kvm"], "default": "vmware"},
    "deep": {"type": "bool", "default": False},
    "allow_extents": {"type": "list", "elements": "path", "default": []},
}


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    return inspect(p["path"], p["hypervisor"], p["deep"], allow_extents=p["allow_extents"])


def main() -> None:
    edge.run(SPEC, work)


if __name__ == "__main__":
    main()
