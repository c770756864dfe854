#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_guest_convert
short_description: Make a guest that came from VMware start on KVM, all its disks together or not at all
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Looks into the guest first (system, free space, boot loader, drivers, what its files bind to VMware's hardware), and does no more than it
    needs. A guest without virtio's drivers is converted by C(virt-v2v-in-place). One that has them is bound to its cards and file systems only,
    which takes a fraction of the time. One that needs nothing is left alone, with the reason.
  - File systems that C(/etc/fstab) names by a device are named by their UUID. Names of network interfaces are given to the MACs that had
    them, so that static addresses stay where they are.
  - The work is done on layers over the disks, on this machine. Only when all of it has succeeded does it go down into the disks, in seconds.
    A conversion that fails or is killed has changed nothing; one that is killed while it is written down is finished by the next run.
  - Whether virtio's drivers are there is read from what virt-v2v says, not from its exit code. RV(target) is what the server must then have.
  - In check mode the guest is looked into, and nothing is changed. A volume is attached for it, as a copy does.
requirements:
  - C(virt-v2v-in-place), C(guestfish) and C(qemu-img) on the machine that runs the module (Debian C(virt-v2v), C(libguestfs-tools),
    C(qemu-utils); Fedora and RHEL C(virt-v2v), C(guestfs-tools), C(qemu-img)), about 2 GB of memory, and room for what is changed in the guest
  - KVM, if it is to be quick; without it QEMU emulates, and a conversion takes minutes
options:
  disks:
    description:
      - All disks of the guest, in the order in which its source had them.
      - Each is a volume, which is attached to this machine meanwhile, or a file or block device. Nobody else may write to these.
    type: list
    elements: dict
    required: true
    suboptions:
      volume:
        description: ID of a Cinder volume. One of O(disks[].volume) and O(disks[].path) is needed.
        type: str
      path:
        description: A file or a block device.
        type: path
      format:
        description: What the file is.
        type: str
        choices: [raw, qcow2]
        default: raw
      label:
        description: What errors call the disk.
        type: str
  vm:
    description: What errors and progress call the guest.
    type: str
  root:
    description:
      - Which system is meant where there are several, V(first) or its device (C(/dev/sda2)). With V(single) several are an error.
    type: str
    default: first
  virtio:
    description:
      - Folder or image of virtio-win, with the drivers for Windows. Without it C(VIRTIO_WIN) of the environment and
        C(/usr/share/virtio-win) are looked at. A Windows guest for which there are no drivers gets IDE or SATA disks and an e1000 card.
    type: path
  firmware:
    description: Firmware of the source. Without it, what the disks look like.
    type: str
    choices: [bios, efi]
  nics:
    description:
      - The network cards of the guest as its source had them, in their order. The server has to have the same MACs.
    type: list
    elements: dict
    suboptions:
      mac:
        description: Its MAC address.
        type: str
        required: true
      name:
        description: What the guest calls it, where its files and the rest here do not tell.
        type: str
      slot:
        description: The PCI slot number that it had at its source, after which systemd has named it (C(ens192)).
        type: int
      addresses:
        description: Addresses that it was seen with, by which it is found among several.
        type: list
        elements: str
      static:
        description:
          - For Windows, the address that it is given at the first start, as C(ADDRESS,GATEWAY,LENGTH,DNS,DNS), see C(--mac) in virt-v2v(1).
        type: str
  addresses:
    description:
      - Addresses that are to be others at the target, old to new, for Linux guests. Each may have a prefix length. Gateways and name servers
        are addresses too.
    type: dict
  first_boot:
    description:
      - Whether what virt-v2v leaves for a Linux guest's first start stays. It loads QEMU's guest agent from the distribution's mirror, and
        waits for it where there is none.
    type: bool
    default: false
  force:
    description: Convert also where nothing needs it.
    type: bool
    default: false
  unsupported:
    description:
      - What happens with a guest that cannot be converted because of what it is (no known system, an encrypted one). With V(skip) it is left as it
        is, which is said in RV(reasons).
    type: str
    choices: [fail, skip]
    default: fail
  missing_tools:
    description: The same where this machine lacks the programs.
    type: str
    choices: [fail, skip]
    default: fail
  timeout:
    description: Seconds for virt-v2v.
    type: int
    default: 3600
  ledger:
    description:
      - Folder for what has to outlive a killed run; the layers are in it, too. By default that of M(ferry.vmware.vm_disk_copy).
    type: path
  attach:
    description: How volumes come to this machine, see O(ferry.vmware.vm_disk_copy#module:attach).
    type: str
    choices: [auto, nova, brick]
    default: auto
  instance:
    description: This machine's ID in Nova, where it cannot tell it by itself.
    type: str
  root_helper:
    description: The command prefix that makes os-brick root, where this user is not.
    type: str
    default: sudo
  take_over:
    description: Remove the attachment of another conversion host. Only where it is known to be dead.
    type: bool
    default: false
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.openstack
  - ferry.vmware.long_task
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: RV(changes) has before and after.
  idempotency:
    support: full
notes:
  - That a Windows guest starts afterwards is virt-v2v's and virtio-win's matter; this collection's tests have no Windows.
seealso:
  - ref: ansible_collections.ferry.vmware.docsite.guest
    description: Guests that start on the other side
"""

EXAMPLES = r"""
- name: What would be done
  ferry.vmware.vm_guest_convert:
    disks:
      - path: /var/lib/images/db01.raw
  check_mode: true
  register: looked

- name: Convert the guest on its volumes
  ferry.vmware.vm_guest_convert:
    cloud: mycloud
    vm: db01
    disks:
      - volume: 8b7f9d3e-9d3e-4d55-9e0a-1f0d6c0f2a22
        label: Hard disk 1
      - volume: 1a7c1c5d-6a20-4c3f-8f0e-0c9a1a3cfb5e
        label: Hard disk 2
    nics:
      - mac: 00:50:56:aa:bb:01
        slot: 192
    addresses:
      10.7.0.5: 10.9.0.5
      10.7.0.1: 10.9.0.1
  register: converted
"""

RETURN = r"""
converted:
  description: Whether the disks were changed.
  returned: success
  type: bool
action:
  description:
    - V(convert), V(bind) (drivers were there), V(nothing), or V(skipped) by O(unsupported) or O(missing_tools).
  returned: success
  type: str
reasons:
  description: Why.
  returned: success
  type: list
  elements: str
os:
  description:
    - What the guest is, by its disks, with C(type), C(distro), C(product), C(version), C(arch), C(hostname), C(firmware), C(boot_loader),
      C(kernel), C(virtio) (whether drivers were there), C(tools), C(mounts) (path, device, size and free in bytes), C(encrypted), C(hibernated).
    - Empty where volumes said that they are ready.
  returned: success
  type: dict
changes:
  description: What was changed, or would be, each with C(what), C(where), and C(before) and C(after) where it has them.
  returned: success
  type: list
  elements: dict
target:
  description: The hardware that the server must have; none for a guest that was skipped.
  returned: success
  type: dict
  contains:
    disk_bus:
      description: Bus of its disks (C(hw_disk_bus)), C(virtio), C(sata) or C(ide).
      type: str
    nic_model:
      description: Model of its cards (C(hw_vif_model)), C(virtio) or C(e1000).
      type: str
    firmware:
      description: C(bios) or C(uefi).
      type: str
    machine:
      description: C(pc) or C(q35).
      type: str
remarks:
  description: What is good to know, also what virt-v2v warned of.
  returned: success
  type: list
  elements: str
undone:
  description: Whether an earlier run was killed, and what it had begun was thrown away.
  returned: success
  type: bool
"""

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.long_task import long_task_spec
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.argspec import connection_spec
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import guest_convert


def main() -> None:
    spec = {
        **connection_spec(),
        "disks": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "volume": {"type": "str"},
                "path": {"type": "path"},
                "format": {"type": "str", "choices": ["raw", "qcow2"], "default": "raw"},
                "label": {"type": "str"},
            },
        },
        "vm": {"type": "str"},
        "root": {"type": "str", "default": "first"},
        "virtio": {"type": "path"},
        "firmware": {"type": "str", "choices": ["bios", "efi"]},
        "nics": {
            "type": "list",
            "elements": "dict",
            "options": {
                "mac": {"type": "str", "required": True},
                "name": {"type": "str"},
                "slot": {"type": "int"},
                "addresses": {"type": "list", "elements": "str"},
                "static": {"type": "str"},
            },
        },
        "addresses": {"type": "dict"},
        "first_boot": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
        "unsupported": {"type": "str", "choices": ["fail", "skip"], "default": "fail"},
        "missing_tools": {"type": "str", "choices": ["fail", "skip"], "default": "fail"},
        "timeout": {"type": "int", "default": 3600},
        "ledger": {"type": "path"},
        "attach": {"type": "str", "choices": ["auto", "nova", "brick"], "default": "auto"},
        "instance": {"type": "str"},
        "root_helper": {"type": "str", "default": "sudo"},
        "take_over": {"type": "bool", "default": False},
        **long_task_spec(),
    }
    edge.run(spec, lambda call: guest_convert.run(call.params, check=call.check))


if __name__ == "__main__":
    main()
