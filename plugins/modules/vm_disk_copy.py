#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_disk_copy
short_description: Copy the disks of a virtual machine to where they will live, resumably and proven
version_added: 0.1.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Reads the disks of a powered-off VM over the datastore's HTTPS, or a local disk file, and writes each straight to its
    target, without staging. Zeroes are neither written nor, where holes are known, read.
  - All disks are copied at once, by one pool of O(workers).
  - What was copied is recorded in a ledger on the machine that runs the module. When it is killed, the same task goes
    on inside the disk; when the source has changed since, only what differs is written.
  - The target of a finished copy that was altered by somebody else is compared and mended by the next run.
options:
  vm:
    description:
      - The VM, given by name, inventory path, instance UUID, BIOS UUID or MoRef. It must be powered off.
      - One of O(vm) and O(source) is needed.
    type: str
  source:
    description:
      - A local disk instead of a VM's. One whose name ends in C(.vmdk) (but not in C(-flat.vmdk)) is read as a VMDK, all others
        as raw bytes.
    type: path
  disks:
    description: What goes where.
    type: list
    elements: dict
    required: true
    suboptions:
      disk:
        description:
          - The disk of the VM, by label (C(Hard disk 1)), key (V(2000)), UUID or place (C(scsi0:0)).
          - May be left out where the VM has one disk, and must be with O(source).
        type: str
      dest:
        description: The target.
        type: dict
        required: true
        suboptions:
          path:
            description: A file (made sparse, with mode 0600, if it does not exist) or a block device.
            type: path
          volume:
            description:
              - ID of a Cinder volume, at least as large as the disk. It is attached to this machine for the time of the copy,
                which keeps every other writer away.
            type: str
      format:
        description: What is written.
        type: str
        choices: [raw]
        default: raw
  mode:
    description:
      - V(auto) goes on where the ledger says, and does nothing where the target already holds this state of the source.
      - V(full) copies everything anew.
    type: str
    choices: [auto, full]
    default: auto
  transport:
    description: How the source is read. V(auto) is V(https) for a VM's disk and V(file) for O(source).
    type: str
    choices: [auto, https, file]
    default: auto
  workers:
    description: Reads and writes at once, over all disks.
    type: int
    default: 4
  chunk_size:
    description: Bytes of one read; a multiple of 1 MiB, at most 64 MiB. Memory used is about O(workers) times this, twice.
    type: int
    default: 4194304
  verify:
    description:
      - Whether the target is read back and compared with the digests taken on the way. What differs is copied again and
        counted in RV(disks[].repaired).
      - V(sample) reads back one unit in twenty, V(full) all.
    type: str
    choices: [none, sample, full]
    default: sample
  checksum:
    description:
      - With V(sha256) the target is also read once more from beginning to end for its plain SHA-256. This runs on one core
        and cannot skip zeroes; the RV(disks[].digest) that costs nothing is enough to compare two copies.
    type: str
    choices: [none, sha256]
    default: none
  ledger:
    description:
      - Folder for the ledgers on the machine that runs the module; it must outlive the run.
      - By default C($XDG_STATE_HOME/ferry) or C(~/.local/state/ferry).
    type: path
  patience:
    description: Seconds for which a server that fails or is away is asked again before the copy gives up.
    type: int
    default: 60
  root_helper:
    description: What makes a command root when a volume is attached; not used where the module runs as root.
    type: str
    default: sudo
  take_over:
    description:
      - Take a volume over from another conversion host that holds it. Only when that machine is dead for certain.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    details: Says per disk what would be copied, and how many bytes would be read at most.
  diff_mode:
    support: none
    details: What changes are bytes.
  idempotency:
    support: full
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
  - ferry.vmware.openstack
  - ferry.vmware.long_task
notes:
  - O(validate_certs) is about vCenter. What holds for OpenStack is said in C(clouds.yaml) (C(verify), C(cacert)) or O(ca_cert).
seealso:
  - module: ferry.vmware.vmdk_convert
"""

EXAMPLES = r"""
- name: Both disks of a powered-off VM, straight into their volumes
  ferry.vmware.vm_disk_copy:
    vm: db01
    cloud: prod
    verify: full
    disks:
      - disk: Hard disk 1
        dest:
          volume: 6f1a6a3e-3a5c-4a8e-9a55-1f1a0a6f8c11
      - disk: scsi0:1
        dest:
          volume: 0b0b7c7e-0a0d-4b7c-8d5a-7d6f3f0f2a22

- name: A disk to a sparse file beside us
  ferry.vmware.vm_disk_copy:
    vm: /DC0/vm/web/web01
    disks:
      - disk: "2000"
        dest:
          path: /srv/images/web01.raw
"""

RETURN = r"""
disks:
  description: One entry for each disk, in the order asked for.
  type: list
  elements: dict
  returned: always
  contains:
    disk:
      description: Label of the disk, or name of the file.
      type: str
    key:
      description: Key of the disk.
      type: str
    capacity:
      description: Size of the disk in bytes.
      type: int
    dest:
      description: The target.
      type: dict
    mode:
      description:
        - V(full), V(none) (nothing was to be done), V(compare) (the source had changed, what differs was written) or
          V(repair) (the target had been altered).
      type: str
    transport:
      description: V(https) or V(file).
      type: str
    bytes_read:
      description: Bytes read from the source.
      type: int
    bytes_written:
      description: Bytes written to the target.
      type: int
    bytes_skipped:
      description: Bytes that needed no writing, because they are zeroes or holes or stood there already.
      type: int
    bytes_resumed:
      description: Bytes that an earlier run had copied.
      type: int
    bytes_to_read:
      description: In check mode, bytes that would be read at most.
      type: int
      returned: in check mode
    change_id:
      description: Always null for a full copy of a powered-off VM.
      type: str
    digest:
      description: Digest of the disk over the digests of its chunks.
      type: str
      sample: xxh3-128:84362e28f26c0ddb1483deaa08e4b9f1
    sha256:
      description: SHA-256 of the disk's bytes on the target.
      type: str
      returned: with O(checksum=sha256), when the disk was copied
    verified:
      description: V(none), V(sample) or V(full).
      type: str
    bytes_verified:
      description: Bytes that were read back and compared.
      type: int
    repaired:
      description: Chunks of 1 MiB that differed and were copied again.
      type: int
    seconds:
      description: How long it took.
      type: float
failure:
  description: What went wrong, as data.
  type: dict
  returned: failure
"""

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.long_task import long_task_spec
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import argspec as openstack_argspec
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import disk_copy
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec as vsphere_argspec


def main() -> None:
    spec = vsphere_argspec.connection_spec(
        env_fallback,
        vm={"type": "str"},
        source={"type": "path"},
        disks={
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "disk": {"type": "str"},
                "dest": {"type": "dict", "required": True, "options": {"path": {"type": "path"}, "volume": {"type": "str"}}},
                "format": {"type": "str", "choices": ["raw"], "default": "raw"},
            },
        },
        mode={"type": "str", "choices": ["auto", "full"], "default": "auto"},
        transport={"type": "str", "choices": ["auto", "https", "file"], "default": "auto"},
        workers={"type": "int", "default": 4},
        chunk_size={"type": "int", "default": 4 << 20},
        verify={"type": "str", "choices": ["none", "sample", "full"], "default": "sample"},
        checksum={"type": "str", "choices": ["none", "sha256"], "default": "none"},
        ledger={"type": "path"},
        patience={"type": "int", "default": 60},
        root_helper={"type": "str", "default": "sudo"},
        take_over={"type": "bool", "default": False},
        **long_task_spec(),
    )
    for name, option in openstack_argspec.connection_spec().items():
        spec.setdefault(name, option)
    edge.run(
        spec,
        lambda call: disk_copy.run(call.params, check=call.check),
        mutually_exclusive=[("vm", "source")],
        required_one_of=[("vm", "source")],
    )


if __name__ == "__main__":
    main()
