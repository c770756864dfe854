#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_files_info
short_description: Facts of a virtual machine that is given as files
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Reads an OVA, an OVF descriptor, a C(.vmx) file, a folder with one of these, or bare disks, and returns facts in the form of
    those of M(ferry.vmware.vm_info), so that M(ferry.vmware.landing_plan) plans from them.
  - Each disk is opened, none is read through. What a descriptor says of its size is compared with the disk, which is believed.
  - Descriptors are bounded in size and depth, XML with a DOCTYPE is refused, and no name leads out of the descriptor's folder.
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
      - The file or folder, on the target.
      - Of a folder without a descriptor all disks are taken, in the order of their names; the first one is booted from.
    type: path
    required: true
  name:
    description: Name of the machine. Where the descriptor has several, the one that is meant.
    type: str
  hypervisor:
    description:
      - What will run the machine in OpenStack. With it each disk gets C(image), how M(ferry.vmware.glance_vmdk_upload) would send it
        (C(disk_format), C(converted_to)), or why it cannot (C(error)).
    type: str
    choices: [kvm, vmware]
  hardware:
    description: What wins over the files. Of bare disks at least C(cpus) and C(memory_mb) are needed.
    type: dict
    suboptions:
      cpus:
        description: Number of processors.
        type: int
      cores_per_socket:
        description: How many of them make up a socket.
        type: int
      memory_mb:
        description: Memory in MiB.
        type: int
      firmware:
        description: Firmware.
        type: str
        choices: [bios, efi]
      secure_boot:
        description: Whether EFI secure boot is on.
        type: bool
      guest_id:
        description: vSphere's identifier of the guest, such as V(debian12_64Guest).
        type: str
      controller:
        description: Controller of all disks.
        type: str
        choices: [ide, buslogic, lsilogic, lsisas1068, pvscsi, sata, nvme]
      nics:
        description: Network cards, each with C(network), C(mac) and C(type).
        type: list
        elements: dict
seealso:
  - module: ferry.vmware.vm_info
  - module: ferry.vmware.landing_plan
"""

EXAMPLES = r"""
- name: Look into an OVA
  ferry.vmware.vm_files_info:
    path: /exports/shop.ova
  register: found

- name: Two disks without a descriptor
  ferry.vmware.vm_files_info:
    path: /exports/old-shop
    name: old-shop
    hardware:
      cpus: 2
      memory_mb: 4096
      controller: lsilogic
      nics:
        - network: VM Network
"""

RETURN = r"""
vms:
  description:
    - The machines, with the keys of RV(ferry.vmware.vm_info#module:vms) that files tell.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the machine.
      type: str
    instance_uuid:
      description: A UUID made of its name and its disks' names and sizes, the same in each run.
      type: str
    guest_id:
      description: vSphere's identifier of the guest.
      type: str
    firmware:
      description: V(bios) or V(efi).
      type: str
    cpus:
      description: Number of processors.
      type: int
    memory_mb:
      description: Memory in MiB.
      type: int
    disks:
      description: Its disks in the order of the bus, each with C(key), C(label), C(file), C(capacity) in bytes, C(controller), C(bus), C(unit).
      type: list
      elements: dict
    nics:
      description: Its network cards, each with C(key), C(label), C(network), C(mac), C(type).
      type: list
      elements: dict
    problems:
      description: What is wrong or odd.
      type: list
      elements: str
"""

from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.disk import machine
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import formats

SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "name": {"type": "str"},
    "hypervisor": {"type": "str", "choices": ["kvm", "vmware"]},
    "hardware": {
        "type": "dict",
        "options": {
            "cpus": {"type": "int"},
            "cores_per_socket": {"type": "int"},
            "memory_mb": {"type": "int"},
            "firmware": {"type": "str", "choices": ["bios", "efi"]},
            "secure_boot": {"type": "bool"},
            "guest_id": {"type": "str"},
            "controller": {"type": "str", "choices": ["ide", "buslogic", "lsilogic", "lsisas1068", "pvscsi", "sata", "nvme"]},
            "nics": {"type": "list", "elements": "dict"},
        },
    },
}


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    vms = machine.read(p["path"], name=p["name"], hardware=p["hardware"])
    return {"vms": formats.looked_at(vms, [p["hypervisor"]] * len(vms)) if p["hypervisor"] else vms}


def main() -> None:
    edge.run(SPEC, work)


if __name__ == "__main__":
    main()
